//! The engine over a real state file that fails it while a guard is open: the guard exits without it, nothing is lost, and the run
//! goes on when the file is back, here or in another process.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use stillpoint_context::{Cx, ErrorFacts, Failure, ProcessId};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{
    Action, ActionRegistry, Append, ArbiterRecord, Claim, ClaimKey, Done, EffectKind, End, Engine,
    Journal, JournalError, Known, Leases, PLAN_FORMAT, Plan, PlanBuilder, RECORD_FORMAT, Record,
    RunHandle, RunRecord, StreamId, Submission, Submitted, ThreadLanes, TokioSeams, Undone,
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
    /// Something else fills the file system on which it lies.
    Full,
    /// The process says that it is there, and stands still.
    Still,
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
        match self.0.fault {
            Fault::None => {}
            Fault::Locked => {
                let db = Connection::open(&self.0.path).unwrap();
                db.busy_timeout(Duration::from_mins(1)).unwrap();
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                *self.0.lock.lock().unwrap() = Some(db);
            }
            Fault::Full => {
                let mut ballast = File::create(self.ballast()).unwrap();
                let error = loop {
                    if let Err(error) = ballast.write_all(&[1; 512]) {
                        break error;
                    }
                };
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
            }
            Fault::Still => {
                support::say("frozen");
                // Until it is killed.
                assert_eq!(std::io::stdin().lines().count(), 0);
            }
        }
    }

    fn mend(&self) {
        drop(self.0.lock.lock().unwrap().take());
        if self.0.fault == Fault::Full {
            std::fs::remove_file(self.ballast()).unwrap();
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.path.with_file_name("ballast")
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
    plan_of("db/1")
}

fn plan_of(database: &str) -> Plan {
    let mut plan = PlanBuilder::new(format!("backup of {database}"));
    plan.claim(Claim::exclusive(ClaimKey::new(database).unwrap()));
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

/// The run's waiter is told of the fault once it has lasted; the exit did not wait for that.
async fn breaks_in_the_section(engine: &Engine, world: &World, code: &str) -> RunHandle {
    let run = engine.submit(Submission::new(plan())).await.unwrap();
    let error = run.wait().await.unwrap_err();
    assert_eq!(error.code().as_str(), code, "{error}");
    let trace = world.trace();
    assert!(trace.starts_with(&["freeze", "commit", "thaw"]), "{trace:?}");
    assert!(!trace.contains(&"settle"), "nothing begins without its intent: {trace:?}");
    run
}

/// It comes to its end, whichever is told of the section: that it was held, or that nobody knows.
async fn comes_to_an_end(engine: &Engine, world: &World, run: &RunHandle) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_file_that_is_locked_in_a_section_holds_no_exit_and_loses_no_run() {
    let (_folder, path) = folder();
    let world = World::new(&path, Fault::Locked);
    let engine = engine(&path, &world, process(1));
    let run = breaks_in_the_section(&engine, &world, "journal.busy").await;
    world.mend();
    comes_to_an_end(&engine, &world, &run).await;
}

/// The appends of a run that was submitted and granted, and of which nothing else was done.
async fn left_open(store: &SqliteStore, number: u128, database: &str) -> Vec<Append> {
    let submitted = Submitted {
        run: run(number),
        plan: plan_of(database),
        inputs: std::collections::BTreeMap::new(),
        claims: plan_of(database).claims().to_vec(),
        key: None,
        labels: std::collections::BTreeMap::new(),
        head_start: Duration::ZERO,
        seed: 1,
    };
    let claims = submitted.claims.clone();
    let queued = ArbiterRecord::Queued {
        run: run(number),
        claims,
        head_start: Duration::ZERO,
        at: support::at(1),
    };
    let arbiter = [queued, ArbiterRecord::Granted { run: run(number) }].map(Record::Arbiter);
    let first = Record::Run(RunRecord::Submitted(Arc::new(submitted)));
    let arbiter_head = store.head(&StreamId::Arbiter).await.unwrap().0;
    vec![
        support::append(StreamId::Run(run(number)), 0, vec![first]),
        support::append(StreamId::Arbiter, arbiter_head, arbiter.into()),
    ]
}

/// A run that somebody left who knew more than we do: it is named with both versions, keeps what it claims, and is carried on once
/// it can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_a_newer_format_is_kept_with_its_claims_until_it_can_be_read() {
    let (_folder, path) = folder();
    let world = World::new(&path, Fault::None);
    let (store, epoch) = support::leased(&path).await;
    let appends = left_open(&store, 7, "db/1").await;
    store.commit(support::batch(process(1), epoch, appends)).await.unwrap();
    store.release(process(1), epoch).await.unwrap();
    drop(store);

    let change = |from: &str, to: &str| {
        let db = Connection::open(&path).unwrap();
        let sql = "UPDATE append SET records = CAST(replace(CAST(records AS TEXT), ?1, ?2) AS BLOB) \
                   WHERE CAST(records AS TEXT) LIKE '%submitted%'";
        assert_eq!(db.execute(sql, [from, to]).unwrap(), 1);
    };
    let record = |format| format!(r#"{{"format":{format},"records""#);
    let plan_of = |format| format!(r#""plan":{{"format":{format},"#);
    let (known, plans) = (RECORD_FORMAT, PLAN_FORMAT);
    for (what, newer, known, wanted) in [
        (record(known), record(9), known, JournalError::Format { found: 9, known }),
        (plan_of(plans), plan_of(9), plans, JournalError::PlanFormat { found: 9, known: plans }),
    ] {
        change(&what, &newer);
        let engine = engine(&path, &world, process(2));
        let recovery = engine.recover().await.unwrap();
        assert!(recovery.runs.is_empty());
        assert_eq!(recovery.unreadable, [(run(7), wanted)]);
        let message = recovery.unreadable[0].1.to_string();
        let known = format!("up to {known}");
        assert!(message.contains("format 9") && message.contains(&known), "{message}");
        assert_eq!(engine.unreadable(), recovery.unreadable);
        assert_eq!(engine.holders().await.unwrap().len(), 1, "it keeps what it claims");
        assert!(world.trace().is_empty(), "nothing of it was done");
        change(&newer, &what);
        let _drained = engine.drain().await.unwrap();
    }
    let engine = engine(&path, &world, process(3));
    let recovery = engine.recover().await.unwrap();
    let [run] = recovery.runs.as_slice() else { panic!("{recovery:?}") };
    assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
    assert_eq!(world.trace(), ["freeze", "commit", "thaw", "settle"]);
}

/// Not a test by itself: a disk that fills up in a section and has room again later, on a file system of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other side of the test of a full disk"]
async fn full_in_a_section() {
    let Some(path) = support::state() else { return };
    let world = World::new(&path, Fault::Full);
    let engine = engine(&path, &world, process(1));
    let run = breaks_in_the_section(&engine, &world, "journal.full").await;
    world.mend();
    comes_to_an_end(&engine, &world, &run).await;
}

/// Not a test by itself: the same, but the process gives up while the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other side of the test of a full disk"]
async fn gives_up_in_a_section() {
    let Some(path) = support::state() else { return };
    let world = World::new(&path, Fault::Full);
    let engine = engine(&path, &world, process(1));
    let _run = breaks_in_the_section(&engine, &world, "journal.full").await;
    std::process::exit(0);
}

/// Not a test by itself: the process after that one, once there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other side of the test of a full disk"]
async fn takes_over() {
    let Some(path) = support::state() else { return };
    World::new(&path, Fault::Full).mend();
    let world = World::new(&path, Fault::None);
    let engine = engine(&path, &world, process(2));
    assert_undone(&recovers(&engine, &world).await);
}

/// The one run is there, and comes to its end with all that it owed; how, and what was done for it here.
async fn recovers(engine: &Engine, world: &World) -> (End, Vec<&'static str>) {
    let recovery = engine.recover().await.unwrap();
    assert!(recovery.unreadable.is_empty(), "{recovery:?}");
    let [run] = recovery.runs.as_slice() else { panic!("{recovery:?}") };
    let report = run.wait().await.unwrap();
    assert!(engine.holders().await.unwrap().is_empty());
    (report.end(), world.trace())
}

/// Nobody can say how long the freeze lasted in which the other process went.
fn assert_undone((end, trace): &(End, Vec<&'static str>)) {
    assert_eq!(*end, End::Failed, "{trace:?}");
    let first = |what| trace.iter().position(|entry| *entry == what);
    assert!(first("thaw").is_some(), "{trace:?}");
    assert!(first("undo commit").is_none_or(|undo| Some(undo) > first("thaw")), "{trace:?}");
    assert!(!trace.contains(&"settle"), "{trace:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::print_stderr, reason = "who reads the log of the tests has to know")]
fn a_disk_that_is_full_in_a_section_holds_no_exit_and_loses_no_run() {
    let (folder, path) = folder();
    let mount = format!("mount -t tmpfs -o size=1m none '{}'", folder.path().display());
    let apart = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.env(support::STATE, &path);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let may = apart(&mount).and_then(Child::wait_with_output);
    if !may.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: this process may not mount a file system of its own");
        return;
    }
    let one = |test: &str| format!("\"$1\" {test} --exact --ignored --nocapture");
    // Side by side: each waits for as long as a fault has to last before it is told of.
    let goes_on = format!("{mount} && {}", one("full_in_a_section"));
    let another = format!("{mount} && {} && {}", one("gives_up_in_a_section"), one("takes_over"));
    for other in [goes_on, another].map(|script| apart(&script).unwrap()) {
        let done = other.wait_with_output().unwrap();
        let [said, told] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(done.status.success(), "{said}\n{told}");
        // Of the process that gives up nothing more is heard.
        assert_eq!(said.matches("1 passed").count(), 1, "{said}\n{told}");
    }
}

/// Not a test by itself: stands still in a section until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other side of the test of a damaged log"]
async fn stands_still_in_a_section() {
    let Some(path) = support::state() else { return };
    let world = World::new(&path, Fault::Still);
    let engine = engine(&path, &world, process(1));
    let run = engine.submit(Submission::new(plan())).await.unwrap();
    panic!("{:?}", run.wait().await);
}

/// A log that is damaged after its process was killed in a section is refused and left as it is, so that nothing is lost once it
/// is whole again. Where only its end is damaged, what was written before is carried on with.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_damaged_behind_a_killed_process_loses_no_run() {
    const FRAME: usize = 24 + 4096;
    for at_its_end in [false, true] {
        let (_folder, path) = folder();
        let mut other = support::Other::start("stands_still_in_a_section", &path);
        assert_eq!(other.hear(), "frozen");
        other.kill();
        let log = path.with_extension("db-wal");
        let good = std::fs::read(&log).unwrap();
        let frames = (good.len() - 32) / FRAME;
        assert!(frames > 8, "{frames} frames");
        let damaged = |frame: usize| {
            let mut bad = good.clone();
            bad[32 + frame * FRAME + 99] ^= 0x40;
            bad
        };

        let middle = damaged(frames / 2);
        std::fs::write(&log, &middle).unwrap();
        let refused = SqliteStore::open(&path).unwrap_err();
        assert_eq!(refused.code().as_str(), "state.corrupt");
        assert!(refused.to_string().contains("damaged"), "{refused}");
        assert!(!refused.remedy().is_empty());
        assert_eq!(std::fs::read(&log).unwrap(), middle, "it was left as it is");

        std::fs::write(&log, if at_its_end { damaged(frames - 1) } else { good }).unwrap();
        let world = World::new(&path, Fault::None);
        let done = recovers(&engine(&path, &world, process(2)), &world).await;
        match &done {
            // Its last commit was that of the freeze, of which nothing is known then: it begins anew.
            (End::Succeeded, trace) if at_its_end => {
                assert_eq!(*trace, ["freeze", "commit", "thaw", "settle"]);
            }
            done => assert_undone(done),
        }
    }
}

/// A run whose records have rotten is listed with the reason and keeps its claims; the others are carried on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_run_is_listed_and_keeps_its_claims_beside_others() {
    let (_folder, path) = folder();
    let (store, epoch) = support::leased(&path).await;
    for (number, name) in [(7, "db/1"), (8, "db/2")] {
        let batch = support::batch(process(1), epoch, left_open(&store, number, name).await);
        store.commit(batch).await.unwrap();
    }
    store.release(process(1), epoch).await.unwrap();
    drop(store);

    // The letters of its plan's name, wherever they lie in the file.
    let bytes = std::fs::read(&path).unwrap();
    let name = b"\"name\":\"backup of db/1\"";
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty());
    let mut bad = bytes.clone();
    for at in places {
        bad[at..at + name.len()].fill(0xA5);
    }
    std::fs::write(&path, &bad).unwrap();

    let world = World::new(&path, Fault::None);
    let engine = engine(&path, &world, process(2));
    let recovery = engine.recover().await.unwrap();
    let [(damaged, why)] = recovery.unreadable.as_slice() else { panic!("{recovery:?}") };
    assert_eq!((*damaged, why.code().as_str()), (run(7), "journal.corrupt"), "{why}");
    assert_eq!(engine.unreadable(), recovery.unreadable);
    let [other] = recovery.runs.as_slice() else { panic!("{recovery:?}") };
    assert_eq!((other.id(), other.wait().await.unwrap().end()), (run(8), End::Succeeded));
    assert_eq!(world.trace(), ["freeze", "commit", "thaw", "settle"], "only of the other");
    let holders = engine.holders().await.unwrap();
    assert!(matches!(holders.as_slice(), [(holder, _)] if *holder == run(7)), "{holders:?}");
}
