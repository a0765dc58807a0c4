//! The engine over a real state file that fails it while a guard is open: the guard exits without it, nothing is lost, and the run
//! goes on when the file is back, here or in another process.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use stillpoint_context::{Cx, ErrorFacts, Failure, ProcessId};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{
    Action, ActionRegistry, ArbiterRecord, Claim, ClaimKey, Done, EffectKind, End, Engine, Journal,
    JournalError, Known, Leases, PLAN_FORMAT, Plan, PlanBuilder, RECORD_FORMAT, Record, RunRecord,
    StreamId, Submission, Submitted, ThreadLanes, TokioSeams, Undone,
};
use support::{folder, process, run};

/// What is outside the engine: what happened there, and what is done to the file in the section and after it.
#[derive(Debug, Clone)]
struct World(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    path: PathBuf,
    trace: Mutex<Vec<&'static str>>,
    fault: Fault,
    /// The connection that keeps others out.
    lock: Mutex<Option<Connection>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Another connection has begun to write, and does not end.
    Locked,
}

impl World {
    fn new(path: &Path, fault: Fault) -> Self {
        let (trace, lock) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inside { path: path.to_owned(), trace, fault, lock }))
    }

    fn note(&self, what: &'static str) {
        self.0.trace.lock().unwrap().push(what);
    }

    fn trace(&self) -> Vec<&'static str> {
        self.0.trace.lock().unwrap().clone()
    }

    /// Begins to fail the engine.
    fn break_it(&self) {
        if self.0.fault == Fault::Locked {
            let db = Connection::open(&self.0.path).unwrap();
            db.busy_timeout(Duration::from_mins(1)).unwrap();
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            *self.0.lock.lock().unwrap() = Some(db);
        }
    }

    fn mend(&self) {
        drop(self.0.lock.lock().unwrap().take());
    }
}

macro_rules! action {
    ($name:ident, $text:literal, $effect:ident, $in:ty, |$world:ident| $run:expr) => {
        #[derive(Debug)]
        struct $name(World);

        #[async_trait]
        impl Action for $name {
            const NAME: &'static str = $text;
            const EFFECT: EffectKind = EffectKind::$effect;
            type Params = ();
            type Input = $in;
            type Output = ();
            async fn run(&self, _: &Cx, (): &(), _: $in) -> Result<Done<()>, Failure> {
                let $world = &self.0;
                $run;
                Ok(Done::new(()))
            }
            async fn undo(&self, _: &Cx, (): &(), _: $in, _: Known<()>) -> Result<Undone, Failure> {
                self.0.note(concat!("undo ", $text));
                Ok(Undone::clean())
            }
        }
    };
}

action!(Freeze, "freeze", Irreversible, (), |world| world.note("freeze"));
action!(Commit, "commit", Reversible, (), |world| {
    world.note("commit");
    world.break_it();
});
action!(Thaw, "thaw", Irreversible, (Known<()>, ()), |world| world.note("thaw"));
action!(Settle, "settle", Reversible, (), |world| world.note("settle"));

fn plan() -> Plan {
    let mut plan = PlanBuilder::new("backup");
    plan.claim(Claim::exclusive(ClaimKey::new("db/1").unwrap()));
    let guard = plan.guard("guard").limit(Duration::from_mins(5));
    let guard = guard.exit_timeout(Duration::from_mins(1));
    let guard = guard.member("host", Freeze::with(()).bind(()), Thaw::with(()).bind(()));
    let (verdict, ()) = guard.body(|body| _ = body.step("commit", Commit::with(())).add()).close();
    plan.step("settle", Settle::with(())).after(verdict).add();
    plan.build().unwrap()
}

fn engine(path: &Path, world: &World, owner: ProcessId) -> Engine {
    let store = Arc::new(SqliteStore::open(path).unwrap());
    let mut registry = ActionRegistry::new();
    registry.register(Freeze(world.clone())).unwrap();
    registry.register(Commit(world.clone())).unwrap();
    registry.register(Thaw(world.clone())).unwrap();
    registry.register(Settle(world.clone())).unwrap();
    let seams = TokioSeams::on(tokio::runtime::Handle::current());
    Engine::builder(registry, Arc::clone(&store) as Arc<dyn Journal>, seams, Arc::new(ThreadLanes))
        .owner(owner)
        .lease_terms(Duration::from_mins(30), Duration::from_secs(10))
        .leases(store as Arc<dyn Leases>)
        .build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_file_that_is_locked_in_a_section_holds_no_exit_and_loses_no_run() {
    let (_folder, path) = folder();
    let world = World::new(&path, Fault::Locked);
    let engine = engine(&path, &world, process(1));
    let run = engine.submit(Submission::new(plan())).await.unwrap();
    // Told once it has lasted: the exit did not wait for that.
    let error = run.wait().await.unwrap_err();
    assert_eq!(error.code().as_str(), "journal.busy", "{error}");
    let trace = world.trace();
    assert!(trace.starts_with(&["freeze", "commit", "thaw"]), "{trace:?}");
    assert!(!trace.contains(&"settle"), "nothing begins without its intent: {trace:?}");
    world.mend();
    // Waited for again, it comes to its end, whichever is told of the section: that it was held, or that nobody knows.
    let report = loop {
        if let Ok(report) = run.wait().await {
            break report;
        }
        tokio::task::yield_now().await;
    };
    let trace = world.trace();
    match report.end() {
        End::Succeeded => assert!(trace.contains(&"settle"), "{trace:?}"),
        End::Failed => {
            assert_eq!(report.failure().unwrap().code, "guard.lost");
            let last = |what| trace.iter().rposition(|entry| *entry == what);
            assert!(last("undo commit") > last("thaw"), "{trace:?}");
            assert!(!trace.contains(&"settle"), "{trace:?}");
        }
        end => panic!("{end:?}: {trace:?}"),
    }
    assert!(engine.holders().await.unwrap().is_empty());
}

/// A run that somebody left who knew more than we do: it is named with both versions, keeps what it claims, and is carried on once
/// it can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_a_newer_format_is_kept_with_its_claims_until_it_can_be_read() {
    let (_folder, path) = folder();
    let world = World::new(&path, Fault::None);
    let submitted = Submitted {
        run: run(7),
        plan: plan(),
        inputs: std::collections::BTreeMap::new(),
        claims: plan().claims().to_vec(),
        key: None,
        labels: std::collections::BTreeMap::new(),
        head_start: Duration::ZERO,
        seed: 1,
    };
    let claims = submitted.claims.clone();
    let queued = ArbiterRecord::Queued {
        run: run(7),
        claims,
        head_start: Duration::ZERO,
        at: support::at(1),
    };
    let arbiter = [queued, ArbiterRecord::Granted { run: run(7) }].map(Record::Arbiter);
    let (store, epoch) = support::leased(&path).await;
    let first = Record::Run(RunRecord::Submitted(Box::new(submitted)));
    let appends = vec![
        support::append(StreamId::Run(run(7)), 0, vec![first]),
        support::append(StreamId::Arbiter, 0, arbiter.into()),
    ];
    store.commit(support::batch(process(1), epoch, appends)).await.unwrap();
    store.release(process(1), epoch).await.unwrap();
    drop(store);

    let change = |from: &str, to: &str| {
        let db = Connection::open(&path).unwrap();
        let sql = "UPDATE append SET records = CAST(replace(CAST(records AS TEXT), ?1, ?2) AS BLOB) \
                   WHERE CAST(records AS TEXT) LIKE '%submitted%'";
        assert_eq!(db.execute(sql, [from, to]).unwrap(), 1);
    };
    let (record, plan_of) = (r#"{"format":1,"records""#, r#""plan":{"format":1,"#);
    let newer = |text: &str| text.replace("\"format\":1,", "\"format\":9,");
    for (what, wanted) in [
        (record, JournalError::Format { found: 9, known: RECORD_FORMAT }),
        (plan_of, JournalError::PlanFormat { found: 9, known: PLAN_FORMAT }),
    ] {
        change(what, &newer(what));
        let engine = engine(&path, &world, process(2));
        let recovery = engine.recover().await.unwrap();
        assert!(recovery.runs.is_empty());
        assert_eq!(recovery.unreadable, [(run(7), wanted)]);
        let message = recovery.unreadable[0].1.to_string();
        assert!(message.contains("format 9") && message.contains("up to 1"), "{message}");
        assert_eq!(engine.unreadable(), recovery.unreadable);
        assert_eq!(engine.holders().await.unwrap().len(), 1, "it keeps what it claims");
        assert!(world.trace().is_empty(), "nothing of it was done");
        change(&newer(what), what);
        let _drained = engine.drain().await.unwrap();
    }
    let engine = engine(&path, &world, process(3));
    let recovery = engine.recover().await.unwrap();
    let [run] = recovery.runs.as_slice() else { panic!("{recovery:?}") };
    assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
    assert_eq!(world.trace(), ["freeze", "commit", "thaw", "settle"]);
}
