//! What the engine adds to a step: the driver with the in-memory journal, on a chain, a fan-out and a random layered
//! graph, beside a bare tokio task for each step in the same run.
//!
//! `cargo bench -p stillpoint-benches --bench engine` prints criterion's figures and then one table with the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench spawns its floor itself")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use stillpoint_benches::shapes::{SHAPES, actions};
use stillpoint_benches::table::{best, is_wanted, micros_each, verdict};
use stillpoint_workflow::{End, Engine, MemoryJournal, Plan, Submission, ThreadLanes, TokioSeams};
use tokio::runtime::Runtime;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// The goals of the project: microseconds that the driver may add to a step, and how flat that has to be.
const GOAL: f64 = 3.0;
const FLAT: f64 = 2.0;

fn engine(runtime: &Runtime) -> Engine {
    let seams = TokioSeams::on(runtime.handle().clone());
    let journal = Arc::new(MemoryJournal::new());
    Engine::builder(actions(), journal, seams, Arc::new(ThreadLanes)).build()
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

fn table(runtime: &Runtime) {
    println!(
        "\n{:<10} {:>7} {:>10} {:>10} {:>6} {:>7}",
        "shape", "steps", "µs a step", "bare task", "ratio", "goal"
    );
    for (name, shape) in SHAPES {
        let mut all = Vec::new();
        for steps in SIZES {
            let plan = shape(steps);
            let times = (250_000 / steps).clamp(5, 25);
            let bare = micros_each(best(times, || run_bare(runtime, steps)), steps);
            let ours = micros_each(best(times, || run_plan(runtime, &plan)), steps);
            let (ratio, met) = (ours / bare, verdict(ours <= GOAL));
            println!("{name:<10} {steps:>7} {ours:>10.2} {bare:>10.2} {ratio:>6.1} {met:>7}");
            all.push(ours);
        }
        let (least, most) =
            all.iter().fold((f64::MAX, 0_f64), |(l, m), us| (l.min(*us), m.max(*us)));
        let flat = most / least;
        println!("{name:<10} flat within {flat:.2}: {}", verdict(flat <= FLAT));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
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
    if is_wanted() {
        table(&runtime);
    }
}
