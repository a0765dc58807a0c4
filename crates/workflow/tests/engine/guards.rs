//! Guards: whatever happens, the exit runs, in time, and before anything of the body is undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use stillpoint_context::{Cx, Effect, Failure, StepName};
use stillpoint_workflow::testing::Stall;
use stillpoint_workflow::*;

use super::common::*;

const SECOND: Duration = Duration::from_secs(1);

/// What an enter, a body step or an exit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Work(Duration),
    Fail,
    Hang,
    Panic,
}

const QUICK: Does = Does::Work(Duration::from_millis(10));

fn part(
    trace: &Trace,
    name: &'static str,
    does: Does,
) -> impl Fn(Cx) -> PartFuture + Clone + use<> {
    let trace = trace.clone();
    move |cx: Cx| {
        let trace = trace.clone();
        Box::pin(async move {
            trace.note(format!("{name} begins"));
            match does {
                Does::Work(time) => cx.sleep(time).await.map_err(|error| Failure::of(&error))?,
                Does::Fail => return Err(refusal(Effect::Unknown)),
                Does::Hang => std::future::pending().await,
                Does::Panic => panic!("{name} panics"),
            }
            trace.note(name);
            Ok(())
        })
    }
}

type PartFuture = stillpoint_context::BoxFuture<'static, Result<(), Failure>>;

struct Section {
    enter: Does,
    body: Does,
    exit: Does,
    limit: Option<Duration>,
}

impl Default for Section {
    fn default() -> Self {
        Self { enter: QUICK, body: QUICK, exit: QUICK, limit: Some(8 * SECOND) }
    }
}

/// before → guard [ enter · commit · exit ] → after
fn plan(trace: &Trace, section: &Section) -> Plan {
    let (enter, body) = (part(trace, "enter", section.enter), part(trace, "commit", section.body));
    let exit = part(trace, "exit", section.exit);
    let known = trace.clone();
    let undo = trace.clone();
    let mut plan = PlanBuilder::new("guarded");
    plan.grace(2 * SECOND);
    plan.claim(Claim::exclusive(key("db/1")));
    plan.claim(Claim::exclusive(key("host/1/freeze")).until(StepName::new("freeze").unwrap()));
    let before = plan.step("before", trace.step("before")).add();
    let enter = step_fn(move |cx, ()| {
        let enter = enter(cx);
        async move { enter.await.map(|()| Done::new(7_u32)) }
    });
    let exit = step_fn(move |cx, (entered, ()): (Known<u32>, ())| {
        known.note(format!("exit knows {:?}", entered.output()));
        let exit = exit(cx);
        async move { exit.await.map(Done::new) }
    });
    let commit = step_fn(move |cx, ()| {
        let body = body(cx);
        async move { body.await.map(|()| Done::new(1_u32)) }
    })
    .undo(move |_, (), _| {
        undo.note("undo commit");
        async { Ok(Undone::clean()) }
    });
    let (verdict, committed) = plan
        .guard("freeze")
        .after(before)
        .limit(section.limit)
        .exit_timeout(2 * SECOND)
        .exit_retry(Retry::times(2))
        .miss_code("quiesce.freeze_timeout")
        .member("host", enter, exit)
        .body(|body| body.step("commit", commit).add())
        .close();
    let after = trace.clone();
    let settle = step_fn(move |_, (verdict, commit): (GuardVerdict, u32)| {
        assert_eq!((verdict.hold, commit), (Hold::Held, 1));
        after.note("settle");
        async { Ok(Done::new(())) }
    });
    plan.step("settle", settle).bind((verdict, committed)).add();
    plan.build().unwrap()
}

fn verdict(report: &RunReport) -> GuardVerdict {
    report.step_named("freeze").unwrap().verdict.unwrap()
}

#[test]
fn a_section_that_holds_feeds_what_follows() {
    for_seeds(200, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = plan(&trace, &Section::default());
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Succeeded, "{:?}", report.failure());
            assert_eq!(verdict(&report).hold, Hold::Held);
            assert_eq!(verdict(&report).lasted(), Some(Duration::from_millis(30)));
            replays(&run).await;
        });
        for pair in ["before", "enter", "commit", "exit", "settle"].windows(2) {
            trace.ordered(pair[0], pair[1]);
        }
        assert_eq!(trace.count("exit knows Some(7)"), 1);
    });
}

#[test]
fn whatever_goes_wrong_the_exit_runs_before_any_undo_and_after_the_last_word_of_the_enter() {
    for does in [Does::Fail, Does::Hang, Does::Panic, Does::Work(25 * SECOND)] {
        for in_enter in [false, true] {
            for_seeds(60, |sim| {
                let (engine, trace) = (engine(&sim), Trace::default());
                let mut section = Section::default();
                *(if in_enter { &mut section.enter } else { &mut section.body }) = does;
                let plan = plan(&trace, &section);
                sim.run(async {
                    let run = engine.submit(Submission::new(plan)).await.unwrap();
                    let report = run.wait().await.unwrap();
                    assert_eq!(report.end(), End::Failed);
                    let verdict = verdict(&report);
                    assert!(matches!(verdict.hold, Hold::Broken(_)), "{verdict:?}");
                    let lasted = verdict.lasted().unwrap();
                    assert!(lasted <= 8 * SECOND, "held for {lasted:?}");
                    if matches!(does, Does::Hang | Does::Work(_)) {
                        assert_eq!(report.failure().unwrap().code, "quiesce.freeze_timeout");
                        let exits = u32::try_from(trace.count("exit")).unwrap();
                        assert_eq!(lasted, 6 * SECOND + Duration::from_millis(10) * exits);
                    }
                    replays(&run).await;
                });
                // An enter that has to be dropped may take effect until it is off its thread, and the exit does not wait for
                // that: it is run again if it was first.
                let dropped = in_enter && matches!(does, Does::Hang | Does::Work(_));
                let exits = trace.count("exit");
                assert!(exits == 1 || (dropped && exits == 2), "{:?}", trace.all());
                assert_eq!(trace.count("settle"), 0);
                trace.ordered("exit", "undo before");
                if in_enter {
                    assert_eq!(trace.count("exit knows None"), exits);
                    assert_eq!(trace.count("commit begins"), 0);
                } else {
                    trace.ordered("exit", "undo commit");
                    trace.ordered("undo commit", "undo before");
                }
            });
        }
    }
}

#[test]
fn a_cancel_in_the_section_ends_it_at_once() {
    for_seeds(300, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let section = Section {
            enter: Does::Work(SECOND),
            body: Does::Work(2 * SECOND),
            exit: Does::Work(SECOND),
            limit: None,
        };
        let plan = plan(&trace, &section);
        let seams = sim.seams();
        let when = Duration::from_millis(sim.random() % 5000);
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            pause(&seams, when).await;
            let (asked, answer) = (seams.clock.mono(), run.cancel("op").await.unwrap());
            let report = run.wait().await.unwrap();
            // Once more where the enter was dropped after its exit had begun.
            let (begun, ended) = (trace.count("enter begins"), trace.count("enter"));
            let exits = trace.count("exit");
            let fits = exits >= begun && exits <= 2 * begun - ended;
            assert!(fits, "an entered section is left: {:?}", trace.all());
            if answer == CancelAnswer::Accepted {
                assert_eq!(report.end(), End::Cancelled);
                let took = seams.clock.mono().saturating_since(asked);
                // Every exit takes a second.
                let most = if begun == ended { 2 * SECOND } else { 3 * SECOND };
                assert!(took < most, "took {took:?}: {:?}", trace.all());
                assert!(trace.count("before") <= trace.count("undo before"));
            }
            replays(&run).await;
        });
    });
}

#[test]
fn an_exit_that_hangs_is_repeated_and_one_that_keeps_failing_parks_the_run_with_its_claims() {
    for does in [Does::Fail, Does::Hang, Does::Panic] {
        for_seeds(40, |sim| {
            let (engine, trace) = (engine(&sim), Trace::default());
            let plan = plan(&trace, &Section { exit: does, ..Section::default() });
            sim.run(async {
                let run = engine.submit(Submission::new(plan)).await.unwrap();
                let status = run.settled().await.unwrap();
                assert_eq!(status.phase, RunPhase::Parked);
                assert_eq!(status.parked[0].1.reason, ParkReason::ExitOwed);
                assert_eq!(status.parked[0].0.as_str(), "freeze");
                assert_eq!(trace.count("exit begins"), 2);
                // The body is undone only after the exit.
                pause(&sim.seams(), 100 * SECOND).await;
                assert_eq!(trace.count("undo commit"), 0);

                let mut rival = PlanBuilder::new("rival");
                rival.claim(Claim::exclusive(key("host/1/freeze")));
                rival.step("rival", trace.step("rival")).add();
                let rival = engine.submit(Submission::new(rival.build().unwrap())).await.unwrap();
                pause(&sim.seams(), 10 * SECOND).await;
                assert_eq!(rival.status().phase, RunPhase::Queued);

                run.resume("op").await.unwrap();
                pause(&sim.seams(), 10 * SECOND).await;
                assert_eq!(trace.count("exit begins"), 4, "{:?}", trace.all());
                assert_eq!(run.settled().await.unwrap().phase, RunPhase::Parked);
                run.resolve("op", "freeze", Resolution::Done(Payload::UNIT)).await.unwrap();
                let report = run.wait().await.unwrap();
                assert_eq!(rival.wait().await.unwrap().end(), End::Succeeded);
                assert_eq!(report.end(), End::Failed);
                assert_eq!(trace.count("undo commit"), 1);
                replays(&run).await;
            });
        });
    }
}

#[test]
fn an_exit_that_is_resumed_while_the_journal_fails_is_begun_once() {
    for written in [false, true] {
        for_seeds(20, |sim| {
            let fails = Arc::new(AtomicBool::new(false));
            let failing = Arc::clone(&fails);
            let journal = testing::HookJournal::around(
                MemoryJournal::new(),
                move |store: Arc<MemoryJournal>, batch| {
                    let fails = failing.swap(false, Ordering::SeqCst);
                    Box::pin(async move {
                        if fails && !written {
                            return Err(JournalError::Full);
                        }
                        let position = store.commit(batch).await;
                        if fails { Err(JournalError::Full) } else { position }
                    })
                },
            );
            let engine = engine_over(&sim, Arc::new(journal));
            let trace = Trace::default();
            let plan = plan(&trace, &Section { exit: Does::Fail, ..Section::default() });
            sim.run(async {
                let run = engine.submit(Submission::new(plan)).await.unwrap();
                assert_eq!(run.settled().await.unwrap().phase, RunPhase::Parked);
                assert_eq!(trace.count("exit begins"), 2);
                fails.store(true, Ordering::SeqCst);
                drop(run.resume("op").await);
                pause(&sim.seams(), 60 * SECOND).await;
                assert_eq!(run.settled().await.unwrap().phase, RunPhase::Parked);
                assert_eq!(trace.count("exit begins"), 4, "{:?}", trace.all());
                run.resolve("op", "freeze", Resolution::Done(Payload::UNIT)).await.unwrap();
                assert_eq!(run.wait().await.unwrap().end(), End::Failed);
                replays(&run).await;
            });
        });
    }
}

#[test]
fn a_body_that_cannot_end_in_time_is_refused_before_anything_is_entered() {
    for_seeds(20, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let mut registry = ActionRegistry::new();
        registry.register(Slow).unwrap();
        let journal = Arc::new(MemoryJournal::new());
        let engine_with =
            Engine::builder(registry, journal, sim.seams(), sim.lanes()).audited().build();
        drop(engine);
        let (enter, exit) = (part(&trace, "enter", QUICK), part(&trace, "exit", QUICK));
        let mut plan = PlanBuilder::new("slow");
        let worst = step_fn(|_, ()| async { Ok(Done::new(Duration::from_millis(6001))) });
        let worst = plan.step("prepare", worst.read_only()).add();
        let enter = step_fn(move |cx, ()| {
            let enter = enter(cx);
            async move { enter.await.map(Done::new) }
        });
        let exit = step_fn(move |cx, (_, ()): (Known<()>, ())| {
            let exit = exit(cx);
            async move { exit.await.map(Done::new) }
        });
        let _closed = plan
            .guard("freeze")
            .limit(8 * SECOND)
            .exit_timeout(2 * SECOND)
            .member("host", enter, exit)
            .body(|body| body.step("commit", Slow::with(())).bind(worst).add())
            .close();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine_with.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Failed);
            assert_eq!(report.failure().unwrap().code, "guard.worst_case_too_long");
            assert_eq!(trace.all(), Vec::<String>::new());
            replays(&run).await;
        });
    });
}

/// A commit whose worst case comes with its input.
#[derive(Debug)]
struct Slow;

#[async_trait::async_trait]
impl Action for Slow {
    const NAME: &'static str = "test.slow";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = ();
    type Input = Duration;
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), _: Duration) -> Result<Done<()>, Failure> {
        Ok(Done::new(()))
    }

    async fn undo(&self, _: &Cx, (): &(), _: Duration, _: Known<()>) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }

    fn worst_case(&self, (): &(), input: &Duration) -> Option<Duration> {
        Some(*input)
    }
}

#[test]
fn a_journal_that_hangs_from_arming_on_does_not_hold_the_exit() {
    for_seeds(100, |sim| {
        let armed = |batch: &Batch| {
            let records = batch.appends.iter().flat_map(|append| &append.records);
            records.into_iter().any(|r| matches!(r, Record::Run(RunRecord::Armed { .. })))
        };
        let (stall, journal) = Stall::new(MemoryJournal::new(), armed);
        let engine = engine_over(&sim, Arc::new(journal));
        let trace = Trace::default();
        let plan = plan(&trace, &Section::default());
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            pause(&sim.seams(), 60 * SECOND).await;
            assert!(stall.is_stalled());
            assert_eq!(trace.count("exit"), 1, "the exit ran without the journal");
            assert_eq!(trace.count("settle"), 0, "what follows waits for the journal");
            stall.release();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Succeeded);
            assert_eq!(verdict(&report).lasted(), Some(Duration::from_millis(30)));
            replays(&run).await;
        });
    });
}

#[test]
fn nothing_is_appended_between_arming_and_the_end_of_the_exit() {
    for_seeds(100, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = plan(&trace, &Section::default());
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            run.wait().await.unwrap();
            let mut all = run.subscribe(Seq(0));
            let mut kinds = Vec::new();
            while let Some(stored) = all.next().await.unwrap() {
                if let Record::Run(record) = stored.record {
                    kinds.push(record);
                }
            }
            let armed = kinds.iter().position(|k| matches!(k, RunRecord::Armed { .. })).unwrap();
            assert!(
                matches!(kinds[armed + 1], RunRecord::Guarded { .. }),
                "{:?}",
                kinds[armed + 1]
            );
        });
    });
}

#[test]
fn claims_until_the_guard_are_free_once_it_is_left() {
    for_seeds(60, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let section = Section { body: Does::Work(SECOND), ..Section::default() };
        let mut first = PlanBuilder::new("first");
        let freeze = StepName::new("freeze").unwrap();
        first.claim(Claim::exclusive(key("host/1/freeze")).until(freeze));
        let body = part(&trace, "commit", section.body);
        let body = step_fn(move |cx, ()| {
            let body = body(cx);
            async move { body.await.map(Done::new) }
        })
        .read_only();
        let enter = step_fn(|_, ()| async { Ok(Done::new(())) });
        let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
        let (verdict, ()) = first
            .guard("freeze")
            .member("host", enter, exit)
            .body(|body_of| {
                body_of.step("commit", body).add();
            })
            .close();
        // A long verification after the freeze.
        first.step("verify", trace.step_in("verify", 1000 * SECOND)).after(verdict).add();
        let first = first.build().unwrap();
        let mut second = PlanBuilder::new("second");
        second.claim(Claim::exclusive(key("host/1/freeze")));
        second.step("second", trace.step("second")).add();
        let second = second.build().unwrap();
        sim.run(async {
            let first = engine.submit(Submission::new(first)).await.unwrap();
            let second = engine.submit(Submission::new(second)).await.unwrap();
            assert_eq!(second.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(first.wait().await.unwrap().end(), End::Succeeded);
        });
        assert_eq!(trace.all(), ["commit begins", "commit", "second", "verify"]);
    });
}

#[test]
fn if_one_member_cannot_enter_all_are_left_and_the_body_never_runs() {
    for_seeds(100, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let exits = Arc::new(AtomicU32::new(0));
        let mut plan = PlanBuilder::new("barrier");
        let mut guard = plan.guard("freeze").limit(8 * SECOND).exit_timeout(SECOND);
        for member in ["a", "b", "c"] {
            let bad = member == "b";
            let enter = step_fn(move |cx: Cx, ()| async move {
                cx.sleep(SECOND).await.map_err(|error| Failure::of(&error))?;
                if bad { Err(refusal(Effect::None)) } else { Ok(Done::new(())) }
            });
            let exits = Arc::clone(&exits);
            let exit = step_fn(move |_, (_, ()): (Known<()>, ())| {
                exits.fetch_add(1, Ordering::SeqCst);
                async { Ok(Done::new(())) }
            });
            guard = guard.member(member, enter, exit);
        }
        let body = trace.clone();
        let _closed = guard.body(|b| b.step("commit", body.step("commit")).add()).close();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Failed);
            replays(&run).await;
        });
        assert_eq!(trace.count("commit"), 0);
        // An exit that began while its enter was still in flight is run again when that has ended.
        assert!(exits.load(Ordering::SeqCst) >= 3);
    });
}

/// Lanes on which the threads of enters never come to run.
#[derive(Debug)]
struct NoEnter(Arc<dyn Lanes>);

#[derive(Debug)]
struct Dead;

impl LaneThread for Dead {
    fn run(self: Box<Self>, task: stillpoint_context::BoxFuture<'static, ()>) {
        // Neither polled nor dropped.
        std::mem::forget(task);
    }
}

impl Lanes for NoEnter {
    fn threads(&self, names: &[String]) -> Result<Vec<Box<dyn LaneThread>>, Failure> {
        let made = self.0.threads(names)?.into_iter().zip(names);
        Ok(made.map(|(t, name)| if name.ends_with("enter") { Box::new(Dead) } else { t }).collect())
    }
}

#[test]
fn an_enter_that_was_never_polled_is_shut_out_and_needs_no_exit() {
    for_seeds(50, |sim| {
        let trace = Trace::default();
        let plan = plan(&trace, &Section::default());
        let lanes = Arc::new(NoEnter(sim.lanes()));
        let journal = Arc::new(MemoryJournal::new());
        let engine =
            Engine::builder(ActionRegistry::new(), journal, sim.seams(), lanes).audited().build();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let report = run.wait().await.unwrap();
            assert_eq!(report.end(), End::Failed);
            assert!(matches!(verdict(&report).hold, Hold::NeverEntered(_)));
            assert_eq!(trace.all(), ["before", "undo before"]);
            replays(&run).await;
        });
    });
}

#[test]
fn a_journal_that_fails_while_a_guard_is_open_ends_it_and_launches_nothing_more() {
    for_seeds(60, |sim| {
        // Every commit of the run fails once the guard is armed; another branch has something to append meanwhile.
        let armed = Arc::new(AtomicBool::new(false));
        let journal = testing::HookJournal::new(MemoryJournal::new(), move |batch| {
            let run = batch.appends.iter().any(|a| matches!(a.stream, StreamId::Run(_)));
            let fails = run && armed.load(Ordering::SeqCst);
            let records = batch.appends.iter().flat_map(|append| &append.records);
            let arms =
                records.into_iter().any(|r| matches!(r, Record::Run(RunRecord::Armed { .. })));
            armed.fetch_or(arms, Ordering::SeqCst);
            Box::pin(async move { if fails { Err(JournalError::Full) } else { Ok(()) } })
        });
        let engine = engine_over(&sim, Arc::new(journal));
        let trace = Trace::default();
        let section =
            Section { body: Does::Work(1000 * SECOND), limit: None, ..Section::default() };
        let mut plan = PlanBuilder::new("failing");
        plan.grace(SECOND);
        let beside = plan.step("beside", trace.step_in("beside", 5 * SECOND)).add();
        plan.step("next", trace.step("next")).after(beside).add();
        let (enter, body) =
            (part(&trace, "enter", section.enter), part(&trace, "commit", section.body));
        let exit = part(&trace, "exit", QUICK);
        let enter = step_fn(move |cx, ()| {
            let enter = enter(cx);
            async move { enter.await.map(Done::new) }
        });
        let exit = step_fn(move |cx, (_, ()): (Known<()>, ())| {
            let exit = exit(cx);
            async move { exit.await.map(Done::new) }
        });
        let commit = step_fn(move |cx, ()| {
            let body = body(cx);
            async move { body.await.map(Done::new) }
        });
        let _closed = plan
            .guard("freeze")
            .limit(section.limit)
            .member("host", enter, exit)
            .body(|body| body.step("commit", commit).add())
            .close();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            let error = run.wait().await.unwrap_err();
            assert!(matches!(error, EngineError::Journal(JournalError::Full)));
            assert_eq!(run.status().phase, RunPhase::Broken);
            assert_eq!(trace.count("enter"), 1);
            assert_eq!(trace.count("exit"), 1, "{:?}", trace.all());
            assert_eq!(trace.count("next"), 0);
            // The run is still open where it can be recovered from.
            let open = engine.journal().open(None, 9).await.unwrap();
            let open: Vec<_> = open.iter().map(|open| open.stream).collect();
            assert_eq!(open, [StreamId::Run(run.id())]);
        });
    });
}

/// A journal of which the first append of such a record fails, and whether that append was written all the same.
fn fails_once(
    written: bool,
    is: impl Fn(&RunRecord) -> bool + Send + Sync + 'static,
) -> Arc<dyn Journal> {
    let armed = AtomicBool::new(true);
    let journal = testing::HookJournal::around(
        MemoryJournal::new(),
        move |store: Arc<MemoryJournal>, batch: Batch| {
            let mut records = batch.appends.iter().flat_map(|append| &append.records);
            let hit = records.any(|r| matches!(r, Record::Run(record) if is(record)));
            let fails = hit && armed.swap(false, Ordering::SeqCst);
            Box::pin(async move {
                if fails && !written {
                    return Err(JournalError::Full);
                }
                let position = store.commit(batch).await;
                if fails { Err(JournalError::Io("no answer".into())) } else { position }
            })
        },
    );
    Arc::new(journal)
}

#[test]
fn a_guard_that_has_held_still_has_when_the_append_that_says_so_fails() {
    for written in [false, true] {
        for_seeds(40, |sim| {
            let is = |record: &RunRecord| matches!(record, RunRecord::Guarded { .. });
            let engine = engine_over(&sim, fails_once(written, is));
            let trace = Trace::default();
            let plan = plan(&trace, &Section::default());
            sim.run(async {
                let run = engine.submit(Submission::new(plan)).await.unwrap();
                let report = run.wait().await.unwrap();
                assert_eq!(verdict(&report).lasted(), Some(Duration::from_millis(30)));
                assert_eq!(trace.count("exit"), 1, "{:?}", trace.all());
                assert_eq!(trace.count("commit"), 1, "{:?}", trace.all());
                // What was to follow was intended in the append that was written after all: it is in doubt as ever.
                assert_eq!(report.end() == End::Succeeded, !written);
                replays(&run).await;
            });
        });
    }
}

#[test]
fn a_step_that_has_succeeded_still_has_when_the_append_that_says_so_fails() {
    for_seeds(40, |sim| {
        let is = |record: &RunRecord| matches!(record, RunRecord::Succeeded { .. });
        let engine = engine_over(&sim, fails_once(false, is));
        let trace = Trace::default();
        // None of them can be probed, or be run again.
        let mut plan = PlanBuilder::new("steps");
        let first = plan.step("first", trace.step("first")).add();
        plan.step("second", trace.step("second")).after(first).add();
        let plan = plan.build().unwrap();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(trace.all(), ["first", "second"]);
            replays(&run).await;
        });
    });
}
