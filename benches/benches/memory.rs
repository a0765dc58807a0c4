//! How much memory a plan of 100,000 steps takes: the peak of a whole process that makes the plan, runs it over a durable
//! journal, and has two late subscribers read all of its records.
//!
//! `cargo bench -p stillpoint-benches --bench memory` prints one table. Each case is a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench starts processes")]

use std::sync::Arc;

use stillpoint_benches::shapes::{SHAPES, actions, chain};
use stillpoint_benches::table::{is_wanted, verdict};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{
    End, Engine, Journal, MemoryJournal, Plan, Seq, Submission, ThreadLanes, TokioSeams,
};

/// The goal of the project, in MiB.
const GOAL: u64 = 100;

/// Tells a process which case it is.
const CASE: &str = "STILLPOINT_MEMORY_CASE";

async fn run(engine: Engine, plan: Plan) {
    let run = engine.submit(Submission::new(plan)).await.unwrap();
    assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
    for _ in 0..2 {
        let (mut records, mut all) = (run.subscribe(Seq(0)), 0);
        while records.next().await.unwrap().is_some() {
            all += 1;
        }
        assert_eq!(all, run.status().records);
    }
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// One case: `journal shape steps`.
fn case(text: &str) {
    let words: Vec<_> = text.split(' ').collect();
    let [journal, shape, steps] = words[..] else { return };
    let shape = SHAPES.iter().find(|(name, _)| *name == shape).map_or(chain as _, |of| of.1);
    let plan = shape(steps.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let seams = TokioSeams::on(runtime.handle().clone());
    let folder = tempfile::tempdir().unwrap();
    let engine = if journal == "durable" {
        let store = SqliteStore::open(folder.path().join("stillpoint.db")).unwrap();
        let journal: Arc<dyn Journal> = Arc::new(store.clone());
        let engine = Engine::builder(actions(), journal, seams, Arc::new(ThreadLanes));
        engine.leases(Arc::new(store)).build()
    } else {
        Engine::builder(actions(), Arc::new(MemoryJournal::new()), seams, Arc::new(ThreadLanes))
            .build()
    };
    runtime.block_on(async { tokio::spawn(run(engine, plan)).await.unwrap() });
    println!("{}", peak());
}

fn peak_of(case: &str) -> u64 {
    let me = std::env::current_exe().unwrap();
    let child = std::process::Command::new(me).env(CASE, case).output().unwrap();
    assert!(child.status.success(), "{case}: {}", String::from_utf8_lossy(&child.stderr));
    let text = String::from_utf8(child.stdout).unwrap();
    text.trim().parse::<u64>().unwrap() / 1024
}

fn main() {
    if let Ok(text) = std::env::var(CASE) {
        return case(&text);
    }
    let steps = if is_wanted() { 100_000 } else { 100 };
    println!("\n{:<40} {:>10}", "peak of a whole process", "MiB");
    println!("{:<40} {:>10}", "a run of one step", peak_of("memory chain 1"));
    for journal in ["durable", "memory"] {
        let cases = if journal == "durable" { &SHAPES[1..] } else { &SHAPES[..] };
        for (shape, _) in cases {
            let peak = peak_of(&format!("{journal} {shape} {steps}"));
            let name = format!("{journal} journal, {shape} of {steps}");
            println!("{name:<40} {peak:>10} {:>8}", verdict(peak <= GOAL));
        }
    }
}
