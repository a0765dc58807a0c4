//! In real time, on real threads: nothing that blocks a thread keeps an exit from starting.
//!
//! Every test runs on an embedder's runtime with one worker, and what blocks waits for the exit itself: if the exit
//! waited for it in turn, the test would never end (a watchdog ends it after half a minute).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::Cx;
use stillpoint_workflow::*;

const LONG: Duration = Duration::from_secs(30);

fn on_one_worker<F: Future>(test: impl FnOnce(Engine) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let engine = {
        let seams = TokioSeams::on(runtime.handle().clone());
        let journal = Arc::new(MemoryJournal::new());
        Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes))
            .audited()
            .build()
    };
    let output = runtime.block_on(test(engine));
    runtime.shutdown_background();
    output
}

/// A signal that can be waited for by blocking a thread.
#[derive(Clone)]
struct Flag(Sender<()>, Arc<Mutex<Receiver<()>>>);

impl Flag {
    fn new() -> Self {
        let (tell, told) = channel();
        Self(tell, Arc::new(Mutex::new(told)))
    }

    fn set(&self) {
        self.0.send(()).unwrap();
    }

    /// Blocks this thread; whether the flag was set in time.
    fn block(&self) -> bool {
        !matches!(self.1.lock().unwrap().recv_timeout(LONG), Err(RecvTimeoutError::Timeout))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    Enter,
    Body,
}

/// A guard whose enter or body blocks its thread until the exit has begun.
fn plan(blocks: Blocks, exited: &Flag, in_time: &Arc<Mutex<Vec<bool>>>) -> Plan {
    let block = |what: Blocks| {
        let (exited, in_time) = (exited.clone(), Arc::clone(in_time));
        move || {
            if blocks == what {
                in_time.lock().unwrap().push(exited.block());
            }
        }
    };
    let (enter, body) = (block(Blocks::Enter), block(Blocks::Body));
    let mut plan = PlanBuilder::new("blocked");
    let enter = step_fn(move |_, ()| {
        enter();
        async { Ok(Done::new(())) }
    });
    let exited = exited.clone();
    let exit = step_fn(move |_, (_, ()): (Known<()>, ())| {
        exited.set();
        async { Ok(Done::new(())) }
    });
    let commit = step_fn(move |_, ()| {
        body();
        async { Ok(Done::new(())) }
    })
    .undo(|_, (), _| async { Ok(Undone::clean()) });
    let _closed = plan
        .guard("freeze")
        .limit(Duration::from_millis(1200))
        .exit_timeout(Duration::from_secs(1))
        .member("host", enter, exit)
        .body(|body| body.step("commit", commit).add())
        .close();
    plan.build().unwrap()
}

#[test]
fn a_body_or_an_enter_that_blocks_its_thread_does_not_delay_the_exit() {
    for blocks in [Blocks::Enter, Blocks::Body] {
        let (exited, in_time) = (Flag::new(), Arc::default());
        let plan = plan(blocks, &exited, &in_time);
        let report = on_one_worker(|engine| async move {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            run.wait().await.unwrap()
        });
        assert_eq!(report.end(), End::Failed);
        assert_eq!(report.failure().unwrap().code, "guard.cutoff");
        // It had waited for nothing but the exit.
        assert_eq!(*in_time.lock().unwrap(), [true]);
        let log = report.step_named("freeze").unwrap().verdict.unwrap();
        assert!(matches!(log.hold, Hold::Broken(_)));
    }
}

#[test]
fn an_enter_that_ends_after_its_exit_is_followed_by_another_exit() {
    let exited = Flag::new();
    let plan = plan(Blocks::Enter, &exited, &Arc::default());
    let report = on_one_worker(|engine| async move {
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        let report = run.wait().await.unwrap();
        let mut all = run.subscribe(Seq(0));
        let mut log = Vec::new();
        while let Some(stored) = all.next().await.unwrap() {
            if let Record::Run(RunRecord::Guarded { log: entries, .. }) = stored.record {
                log.extend(entries.into_iter().map(|entry| entry.record));
            }
        }
        let entered = log.iter().position(|r| matches!(r, GuardRecord::Entered { .. })).unwrap();
        let exits = |log: &[GuardRecord]| {
            log.iter().filter(|r| matches!(r, GuardRecord::ExitStarted { .. })).count()
        };
        assert_eq!(exits(&log[..entered]), 1, "{log:?}");
        assert_eq!(exits(&log[entered..]), 1, "{log:?}");
        report
    });
    assert_eq!(report.end(), End::Failed);
}

#[test]
fn another_run_that_blocks_the_only_worker_does_not_delay_the_exit() {
    let (entered, exited) = (Flag::new(), Flag::new());
    let blocked = Arc::new(AtomicBool::new(false));
    let mut hog = PlanBuilder::new("hog");
    let (waits, blocks) = (exited.clone(), Arc::clone(&blocked));
    let block = step_fn(move |_, ()| {
        // On the embedder's only worker, until the exit has run.
        blocks.store(true, Ordering::SeqCst);
        let in_time = waits.block();
        async move { Ok(Done::new(in_time)) }
    });
    let block = hog.step("block", block.read_only()).add();
    let hog = hog.build().unwrap();

    let mut plan = PlanBuilder::new("guarded");
    let begun = entered.clone();
    let enter = step_fn(move |cx: Cx, ()| {
        begun.set();
        let blocked = Arc::clone(&blocked);
        async move {
            while !blocked.load(Ordering::SeqCst) {
                cx.sleep(Duration::from_millis(2)).await.unwrap();
            }
            Ok(Done::new(()))
        }
    });
    let exit = step_fn(move |_, (_, ()): (Known<()>, ())| {
        exited.set();
        async { Ok(Done::new(())) }
    });
    let commit = step_fn(|cx: Cx, ()| async move {
        cx.sleep(Duration::from_millis(50)).await.unwrap();
        Ok(Done::new(()))
    });
    let _closed = plan
        .guard("freeze")
        .limit(LONG)
        .member("host", enter, exit)
        .body(|body| body.step("commit", commit.read_only()).add())
        .close();
    let plan = plan.build().unwrap();
    on_one_worker(|engine| async move {
        let guarded = engine.submit(Submission::new(plan)).await.unwrap();
        assert!(entered.block());
        let hog = engine.submit(Submission::new(hog)).await.unwrap();
        assert!(hog.wait().await.unwrap().output_of(&block).unwrap(), "the exit came in time");
        assert_eq!(guarded.wait().await.unwrap().end(), End::Succeeded);
    });
}

#[test]
fn an_undo_waits_for_an_attempt_that_is_still_on_its_thread() {
    let (undoing, order) = (Flag::new(), Arc::new(Mutex::new(Vec::new())));
    let (run, undo, told) = (Arc::clone(&order), Arc::clone(&order), undoing.clone());
    let stuck = step_fn(move |_, ()| {
        // Dropped long before, but the thread is here: an undo that did not wait would run meanwhile.
        let early = told.1.lock().unwrap().recv_timeout(Duration::from_millis(400)).is_ok();
        run.lock().unwrap().push(if early { "overtaken" } else { "acts" });
        async { Ok(Done::new(())) }
    })
    .undo(move |_, (), known| {
        undo.lock().unwrap().push(if known == Known::Unknown { "undo" } else { "undo known" });
        undoing.set();
        async { Ok(Undone::clean()) }
    });
    let mut plan = PlanBuilder::new("stuck");
    plan.step("stuck", stuck)
        .timeout(Duration::from_millis(20))
        .grace(Duration::from_millis(20))
        .add();
    let plan = plan.build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let seams = TokioSeams::on(runtime.handle().clone());
    let journal = Arc::new(MemoryJournal::new());
    let engine = Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes));
    let engine = engine.audited().build();
    let end = runtime.block_on(async move {
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        run.wait().await.unwrap().end()
    });
    assert_eq!((end, &order.lock().unwrap()[..]), (End::Failed, &["acts", "undo"][..]));
}
