//! How soon the exit of a guard begins after its cutoff, when a body blocks its thread or never returns, on a runtime that
//! has one worker, which the embedder blocks as well.
//!
//! `cargo bench -p stillpoint-benches --bench cutoff` prints one table.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock and blocks threads")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stillpoint_benches::table::{is_wanted, micros, verdict};
use stillpoint_workflow::{
    ActionRegistry, Done, Engine, Known, MemoryJournal, PlanBuilder, Submission, ThreadLanes,
    TokioSeams, step_fn,
};

/// The goal of the project.
const GOAL: Duration = Duration::from_millis(5);

const LIMIT: Duration = Duration::from_millis(200);
const EXIT: Duration = Duration::from_millis(100);
/// The limit without the time of the exit.
const CUTOFF: Duration = Duration::from_millis(100);

/// What goes wrong in the section.
#[derive(Clone, Copy)]
enum Body {
    /// It never returns, and gives its thread back.
    Hangs,
    /// It keeps its thread.
    Blocks,
    /// It keeps its thread, and the embedder keeps the runtime's only worker.
    BlocksAll,
}

/// How long after the cutoff the exit began.
fn lateness(body: Body) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let seams = TokioSeams::on(runtime.handle().clone());
    let journal = Arc::new(MemoryJournal::new());
    let engine =
        Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes)).build();
    let times = Arc::new(Mutex::new((None, None)));
    let (entered, exited) = (Arc::clone(&times), Arc::clone(&times));
    let mut plan = PlanBuilder::new("cutoff");
    let enter = step_fn(move |_, ()| {
        entered.lock().unwrap().0.get_or_insert_with(Instant::now);
        async { Ok(Done::new(())) }
    });
    let exit = step_fn(move |_, (_, ()): (Known<()>, ())| {
        exited.lock().unwrap().1.get_or_insert_with(Instant::now);
        async { Ok(Done::new(())) }
    });
    let work = step_fn(move |_, ()| async move {
        match body {
            Body::Hangs => std::future::pending().await,
            Body::Blocks | Body::BlocksAll => std::thread::sleep(2 * LIMIT),
        }
        Ok(Done::new(()))
    });
    let guard = plan.guard("section").limit(LIMIT).exit_timeout(EXIT).member("host", enter, exit);
    let _closed = guard.body(|of| of.step("work", work).add()).close();
    let plan = plan.build().unwrap();
    runtime.block_on(async {
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        while times.lock().unwrap().0.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if matches!(body, Body::BlocksAll) {
            drop(tokio::spawn(async { std::thread::sleep(2 * LIMIT) }));
        }
        run.wait().await.unwrap();
    });
    let (entered, exited) = *times.lock().unwrap();
    exited.unwrap().saturating_duration_since(entered.unwrap() + CUTOFF)
}

fn main() {
    let rounds = if is_wanted() { 20 } else { 1 };
    println!("\n{:<58} {:>10} {:>10}", "exit after the cutoff", "median µs", "worst µs");
    for (name, body) in [
        ("a body that hangs", Body::Hangs),
        ("a body that blocks its thread", Body::Blocks),
        ("the same, and the runtime's only worker is blocked", Body::BlocksAll),
    ] {
        let mut all: Vec<_> = (0..rounds).map(|_| lateness(body)).collect();
        all.sort_unstable();
        let (median, worst) = (all[all.len() / 2], all[all.len() - 1]);
        let met = verdict(worst <= GOAL);
        println!("{name:<58} {:>10.0} {:>10.0} {met:>8}", micros(median), micros(worst));
    }
}
