//! What the engine adds to a step: the driver with the in-memory journal, on a chain, a fan-out and a random layered
//! graph, beside a bare tokio task for each step in the same run.
//!
//! `cargo bench -p stillpoint-benches --bench engine` prints criterion's figures and then one table with the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench reads the real clock and spawns its floor itself"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use stillpoint_workflow::{
    ActionRegistry, Call, Done, End, Engine, MemoryJournal, Out, Plan, PlanBuilder, Submission,
    ThreadLanes, TokioSeams, step_fn,
};
use tokio::runtime::Runtime;

const SIZES: [usize; 2] = [1_000, 10_000];

/// The goal of the project: what the driver may add to a step.
const GOAL: Duration = Duration::from_micros(5);

type Shape = (&'static str, fn(usize) -> Plan);

const SHAPES: [Shape; 3] = [("chain", chain), ("fan-out", fan_out), ("layered", layered)];

fn nothing() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) }).read_only()
}

fn chain(steps: usize) -> Plan {
    let mut plan = PlanBuilder::new("chain");
    let mut last = plan.step("s0", nothing()).add();
    for at in 1..steps {
        last = plan.step(format!("s{at}"), nothing()).after(last).add();
    }
    plan.build().unwrap()
}

fn fan_out(steps: usize) -> Plan {
    let mut plan = PlanBuilder::new("fan-out");
    let root = plan.step("root", nothing()).add();
    let leaves: Vec<_> =
        (0..steps - 2).map(|at| plan.step(format!("s{at}"), nothing()).after(root).add()).collect();
    let mut join = plan.step("join", nothing());
    for leaf in leaves {
        join = join.after(leaf);
    }
    join.add();
    plan.build().unwrap()
}

/// Layers of 20 steps, each after up to three of the layer before, drawn by a fixed seed.
fn layered(steps: usize) -> Plan {
    const WIDTH: usize = 20;
    let mut seed = 7_usize;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut plan = PlanBuilder::new("layered");
    let mut before: Vec<Out<()>> = Vec::new();
    let mut layer = Vec::new();
    for at in 0..steps {
        let mut step = plan.step(format!("s{at}"), nothing());
        for _ in 0..3.min(before.len()) {
            step = step.after(before[random() % before.len()]);
        }
        layer.push(step.add());
        if layer.len() == WIDTH {
            before = std::mem::take(&mut layer);
        }
    }
    plan.build().unwrap()
}

fn engine(runtime: &Runtime) -> Engine {
    let seams = TokioSeams::on(runtime.handle().clone());
    let journal = Arc::new(MemoryJournal::new());
    Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes)).build()
}

fn run_plan(runtime: &Runtime, plan: &Plan) {
    let engine = engine(runtime);
    let plan = plan.clone();
    let end = runtime.block_on(async move {
        let run = tokio::spawn(async move {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            run.wait().await.unwrap().end()
        });
        run.await.unwrap()
    });
    assert_eq!(black_box(end), End::Succeeded);
}

/// The floor: one task spawned and awaited for each step, one after the other.
fn run_bare(runtime: &Runtime, steps: usize) {
    runtime.block_on(async move {
        let tasks = tokio::spawn(async move {
            for _ in 0..steps {
                tokio::spawn(async {}).await.unwrap();
            }
        });
        tasks.await.unwrap();
    });
}

/// The best of a few runs, for each step: what is left of the noise of other programs.
fn best(steps: usize, mut run: impl FnMut()) -> Duration {
    let times = (0..25).map(|_| {
        let before = Instant::now();
        run();
        before.elapsed()
    });
    times.min().unwrap_or_default() / u32::try_from(steps).unwrap()
}

fn table(runtime: &Runtime) {
    println!(
        "\n{:<10} {:>7} {:>12} {:>12} {:>8} {:>6}",
        "shape", "steps", "ns a step", "bare task", "ratio", "goal"
    );
    for (name, shape) in SHAPES {
        for steps in SIZES {
            let plan = shape(steps);
            let bare = best(steps, || run_bare(runtime, steps));
            let ours = best(steps, || run_plan(runtime, &plan));
            let ratio = ours.as_secs_f64() / bare.as_secs_f64();
            let met = if ours <= GOAL { "met" } else { "MISSED" };
            println!(
                "{name:<10} {steps:>7} {:>12} {:>12} {ratio:>8.1} {met:>6}",
                ours.as_nanos(),
                bare.as_nanos()
            );
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for (name, shape) in SHAPES {
        let mut group = criterion.benchmark_group(name);
        for steps in SIZES {
            let plan = shape(steps);
            group.throughput(Throughput::Elements(steps as u64));
            group.bench_function(BenchmarkId::new("engine", steps), |b| {
                b.iter(|| run_plan(&runtime, &plan));
            });
            group.bench_function(BenchmarkId::new("bare", steps), |b| {
                b.iter(|| run_bare(&runtime, steps));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    // `cargo test` runs benches once to see that they work; the table is for `cargo bench`.
    if std::env::args().any(|argument| argument == "--bench") {
        table(&runtime);
    }
}
