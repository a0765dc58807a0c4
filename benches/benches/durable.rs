//! Runs with a durable journal: what a step costs in plans of several shapes, how many steps a second many runs at once
//! make, and how long it takes to carry on with what was left open; beside bare SQLite on the same disk.
//!
//! `cargo bench -p stillpoint-benches --bench durable` prints criterion's figures and then one table with the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use criterion::Criterion;
use stillpoint_benches::floor::{Asked, Bare};
use stillpoint_benches::shapes::{Nothing, actions, chain, fan_out, layered, layers};
use stillpoint_benches::table::{is_wanted, median, micros, micros_each, time, verdict};
use stillpoint_context::{Cx, Failure, RunId};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{
    Action, ActionRegistry, Done, EffectKind, End, Engine, Plan, PlanBuilder, Retry, RunHandle,
    Submission, ThreadLanes, TokioSeams,
};
use tokio::runtime::Runtime;

/// What a server would use: a run makes and frees some hundred small things, on whichever thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goals of the project.
const SHARED: f64 = 12.0;
const CHAIN: f64 = 1.2;
const RATE: f64 = 100_000.0;
/// How long the chain is that is measured.
const STEPS: usize = 500;
const RECOVERY: Duration = Duration::from_secs(3);

fn engine(runtime: &Runtime, store: &SqliteStore, actions: ActionRegistry) -> Engine {
    let seams = TokioSeams::on(runtime.handle().clone());
    let (journal, leases) = (Arc::new(store.clone()), Arc::new(store.clone()));
    Engine::builder(actions, journal, seams, Arc::new(ThreadLanes))
        .leases(leases)
        .queue_limit(1_000_000)
        .build()
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder.join("stillpoint.db")).unwrap()
}

/// So many runs at once.
async fn run_these(engine: &Engine, plan: &Plan, runs: usize) -> Vec<RunId> {
    let mut handles = Vec::with_capacity(runs);
    let submissions = (0..runs).map(|_| {
        let (engine, plan) = (engine.clone(), plan.clone());
        tokio::spawn(async move { engine.submit(Submission::new(plan)).await.unwrap() })
    });
    for submission in submissions.collect::<Vec<_>>() {
        handles.push(submission.await.unwrap());
    }
    let ids = handles.iter().map(RunHandle::id).collect();
    for handle in handles {
        assert_eq!(handle.wait().await.unwrap().end(), End::Succeeded);
    }
    ids
}

async fn run_all(engine: &Engine, plan: &Plan, runs: usize) {
    drop(run_these(engine, plan, runs).await);
}

/// A step that never ends in the process that leaves runs open, and ends at once in the one that carries them on.
#[derive(Debug)]
struct Gate {
    is_open: bool,
}

#[async_trait]
impl Action for Gate {
    const NAME: &'static str = "bench.gate";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        if !self.is_open {
            std::future::pending::<()>().await;
        }
        Ok(Done::new(()))
    }
}

fn with_gate(is_open: bool) -> ActionRegistry {
    let mut actions = actions();
    actions.register(Gate { is_open }).unwrap();
    actions
}

/// A chain with the gate in its middle.
fn gated(steps: usize) -> Plan {
    let mut plan = PlanBuilder::new("gated");
    let mut last = plan.step("s0", Nothing::with(())).add();
    for at in 1..steps {
        // A crash counts as an attempt.
        let gate = at == steps / 2;
        let step = if gate { Gate::with(()) } else { Nothing::with(()) };
        let step = plan.step(format!("s{at}"), step).retry(Retry::times(2));
        last = step.after(last).add();
    }
    plan.build().unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap()
}

/// Leaves so many runs open, each with half of its steps done and one at work, as a process does that is killed.
fn leave_open(folder: &Path, plan: &Plan, runs: usize) {
    let (runtime, store) = (runtime(), open(folder));
    let engine = engine(&runtime, &store, with_gate(false));
    runtime.block_on(async {
        let submissions = (0..runs).map(|_| {
            let (engine, plan) = (engine.clone(), plan.clone());
            tokio::spawn(async move { engine.submit(Submission::new(plan)).await.unwrap() })
        });
        let mut handles = Vec::new();
        for submission in submissions.collect::<Vec<_>>() {
            handles.push(submission.await.unwrap());
        }
        // Submitted and started; half of the steps intended and done, and the gate intended.
        let there = 2 + plan.nodes().len() as u64 + 1;
        for handle in handles {
            while handle.status().records < there {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    // Nothing more is written, and the store knows that whoever had it open is gone.
    drop(engine);
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// How long it takes until all of them are carried on, and until they have ended.
fn recover(folder: &Path, runs: usize) -> (Duration, Duration) {
    let (runtime, store) = (runtime(), open(folder));
    let engine = engine(&runtime, &store, with_gate(true));
    let before = Instant::now();
    let recovery = runtime.block_on(engine.recover()).unwrap();
    let carried_on = before.elapsed();
    assert_eq!(recovery.runs.len(), runs);
    runtime.block_on(async {
        for run in recovery.runs {
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
        }
    });
    (carried_on, before.elapsed())
}

/// A plan in a new file, so many times: the best.
fn plan_once(runtime: &Runtime, plan: &Plan, times: usize) -> Duration {
    (0..times)
        .map(|_| {
            let folder = tempfile::tempdir().unwrap();
            let engine = engine(runtime, &open(folder.path()), actions());
            time(|| runtime.block_on(run_all(&engine, plan, 1)))
        })
        .min()
        .unwrap()
}

fn table(runtime: &Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let bare = Bare::open(folder.path());
    let rows = median(20, |_| bare.commit_many(1_000)) / 1_000;
    println!("\n{:<58} {:>10}", "what", "µs");
    println!("{:<58} {:>10.2}", "bare SQLite, FULL, 1,000 rows a commit: a row", micros(rows));
    for steps in [10_000, 100_000] {
        let each = micros_each(plan_once(runtime, &fan_out(steps), 5), steps);
        let name = format!("fan-out of {steps} steps: a step");
        println!("{name:<58} {each:>10.2} {:>8}", verdict(each <= SHARED));
    }
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked::open(folder.path());
    for steps in [10_000, 100_000] {
        let plan = layered(steps);
        let (mut floor, mut each) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            floor = floor.min(time(|| runtime.block_on(asked.commit_layers(steps / 20, 20))));
            each = each.min(plan_once(runtime, &plan, 1));
        }
        let ratio = each.as_secs_f64() / floor.as_secs_f64();
        let (floor, each) = (micros_each(floor, steps), micros_each(each, steps));
        let name = "20 bare tasks and a commit on a thread: a task";
        println!("{name:<58} {floor:>10.2} {:>8}", verdict(floor <= SHARED));
        let name = format!("layered of {steps} steps: a step");
        let met = verdict(each <= SHARED);
        println!("{name:<58} {each:>10.2} {met:>8}  {ratio:.2} × the tasks");
    }
    // In turns, so that all meet the same disk.
    let plan = chain(STEPS);
    let engine_of = |folder: &Path| engine(runtime, &open(folder), actions());
    let ours = tempfile::tempdir().unwrap();
    let durable = engine_of(ours.path());
    let (mut floor, mut hop, mut each) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..7 {
        floor = floor.min(time(|| (0..STEPS).for_each(|_| bare.commit())));
        hop = hop.min(time(|| runtime.block_on(asked.commit_layers(STEPS, 1))));
        each = each.min(time(|| runtime.block_on(run_all(&durable, &plan, 1))));
    }
    let of_floor = |time: Duration| time.as_secs_f64() / floor.as_secs_f64();
    println!("{:<58} {:>10.1}", "bare SQLite, FULL: a commit", micros_each(floor, STEPS));
    let (name, met) = ("a bare task and a commit on a thread", verdict(of_floor(hop) <= CHAIN));
    let of_bare = |time| format!("{:.2} × bare", of_floor(time));
    println!("{name:<58} {:>10.1} {met:>8}  {}", micros_each(hop, STEPS), of_bare(hop));
    let name = format!("chain of {STEPS} steps: a step");
    let met = verdict(of_floor(each) <= CHAIN);
    println!("{name:<58} {:>10.1} {met:>8}  {}", micros_each(each, STEPS), of_bare(each));
    println!("{:<58} {:>10}", "1,000 runs of 20 steps at once", "steps/s");
    let shapes = [
        ("side by side (1, 18, 1)", fan_out(20)),
        ("five layers of four", layers(20, 4)),
        ("one after the other", chain(20)),
    ];
    for (name, plan) in shapes {
        let all = (0..7).map(|_| {
            let folder = tempfile::tempdir().unwrap();
            let engine = engine_of(folder.path());
            time(|| runtime.block_on(run_all(&engine, &plan, 1_000)))
        });
        let rate = 20_000.0 / all.min().unwrap().as_secs_f64();
        println!("{name:<58} {rate:>10.0} {:>8}", verdict(rate >= RATE));
    }
    let folder = tempfile::tempdir().unwrap();
    leave_open(folder.path(), &gated(20), 10_000);
    let (carried_on, ended) = recover(folder.path(), 10_000);
    println!("{:<58} {:>10}", "10,000 open runs of 20 steps", "s");
    let (seconds, met) = (carried_on.as_secs_f64(), verdict(carried_on <= RECOVERY));
    println!("{:<58} {seconds:>10.2} {met:>8}", "until all are carried on");
    println!("{:<58} {:>10.2}", "until all have ended", ended.as_secs_f64());
    forgetting(runtime);
}

/// Runs that come and go in one file: what it takes to forget one, beside what it took to run it, and how the file grows.
fn forgetting(runtime: &Runtime) {
    const RUNS: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let engine = engine(runtime, &store, actions());
    let plan = fan_out(20);
    let size = || std::fs::metadata(folder.path().join("stillpoint.db")).unwrap().len() >> 10;
    println!(
        "{:<58} {:>10} {:>8} {:>8}",
        "2,000 runs of 20 steps, forgotten", "µs a run", "of it", "KiB"
    );
    for round in 1..=4 {
        let mut ids = Vec::new();
        let ran = time(|| ids = runtime.block_on(run_these(&engine, &plan, RUNS)));
        let forgot = time(|| {
            for some in ids.chunks(64) {
                runtime.block_on(engine.forget(some)).unwrap();
            }
        });
        let ratio = forgot.as_secs_f64() / ran.as_secs_f64();
        let name = format!("round {round}");
        println!("{name:<58} {:>10.1} {ratio:>8.2} {:>8}", micros_each(forgot, RUNS), size());
    }
}

fn main() {
    let runtime = runtime();
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut group = criterion.benchmark_group("durable");
    for (name, plan) in
        [("fan-out", fan_out(1_000)), ("layered", layered(1_000)), ("chain", chain(20))]
    {
        group.bench_function(format!("{name} of {}", plan.nodes().len()), |b| {
            b.iter(|| plan_once(&runtime, &plan, 1));
        });
    }
    group.finish();
    criterion.final_summary();
    if is_wanted() {
        table(&runtime);
    }
}
