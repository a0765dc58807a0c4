//! What a durable journal costs: one small append alone, beside one bare SQLite commit with `synchronous=FULL`, and
//! appends of many runs that share commits.
//!
//! `cargo bench -p stillpoint-benches --bench journal` prints criterion's figures and then one table with the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench reads the real clock and spawns its committers itself"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use stillpoint_benches::floor::Bare;
use stillpoint_benches::table::{is_wanted, median, micros, verdict};
use stillpoint_context::{Mono, ProcessId, RunId};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{Append, Batch, Journal, Leases, Now, Record, RunRecord, Seq, StreamId};
use tokio::runtime::Runtime;
use uuid::Uuid;

const OWNER: ProcessId = ProcessId(Uuid::nil());

/// The goal of the project: a durable commit beside the floor.
const GOAL: f64 = 1.2;

/// A store, and a run that it writes.
struct Ours {
    store: SqliteStore,
    epoch: u64,
}

impl Ours {
    fn open(runtime: &Runtime, folder: &Path) -> Self {
        let store = SqliteStore::open(folder.join("stillpoint.db")).unwrap();
        let lease = store.acquire(OWNER, Mono::ZERO, Duration::from_hours(1));
        let epoch = runtime.block_on(lease).unwrap().epoch;
        Self { store, epoch }
    }

    /// As an engine writes for a step: intent and success of two.
    fn batch(&self, run: RunId, expected: u64) -> Batch {
        let record =
            Record::Run(RunRecord::Started { fence: stillpoint_context::FencingToken(expected) });
        let append = Append {
            stream: StreamId::Run(run),
            expected: Seq(expected),
            at: Now::default(),
            records: vec![record.clone(), record],
        };
        Batch { owner: OWNER, epoch: self.epoch, appends: vec![append], facts: Vec::new() }
    }
}

/// A run of each committer, written by as many tasks at once. Says how long it took.
fn together(runtime: &Runtime, ours: &Ours, committers: u128, each: u64, first: u128) -> Duration {
    let before = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (first..first + committers)
            .map(|number| {
                let run = RunId(Uuid::from_u128(
                    number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835),
                ));
                let ours = Ours { store: ours.store.clone(), epoch: ours.epoch };
                tokio::spawn(async move {
                    for at in 0..each {
                        let batch = ours.batch(run, at * 2);
                        ours.store.commit(batch).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    before.elapsed()
}

/// The processor time of the thread that writes, where the system tells it.
fn writer_time() -> Duration {
    let nanos = || {
        for thread in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
            let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            if read("comm").starts_with("stillpoint-stat") {
                let all: Vec<u64> =
                    read("schedstat").split(' ').filter_map(|word| word.parse().ok()).collect();
                // The first is the time on a processor.
                return all.first().copied();
            }
        }
        None
    };
    Duration::from_nanos(nanos().unwrap_or(0))
}

fn table(runtime: &Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let bare = Bare::open(folder.path());
    let ours = Ours::open(runtime, folder.path());
    // In turns, so that both meet the same disk.
    let (mut floor, mut alone) = (Duration::MAX, Duration::MAX);
    for round in 0..5 {
        floor = floor.min(median(400, |_| bare.commit()));
        let run = RunId(Uuid::from_u128(1 << 100 | round));
        let one = |at| {
            runtime.block_on(ours.store.commit(ours.batch(run, at * 2))).unwrap();
        };
        alone = alone.min(median(400, one));
    }
    let ratio = alone.as_secs_f64() / floor.as_secs_f64();
    let met = verdict(ratio <= GOAL);
    println!("\n{:<44} {:>9.1} µs", "bare SQLite, FULL, one row a commit", micros(floor));
    println!(
        "{:<44} {:>9.1} µs  {ratio:.2} × bare, {met}",
        "SqliteStore, one append a commit",
        micros(alone)
    );
    let shared = median(20, |_| bare.commit_many(1_000)) / 1_000;
    println!("{:<44} {:>9.2} µs", "bare SQLite, FULL, 1,000 rows a commit, a row", micros(shared));
    let mut first = 1;
    for committers in [1, 10, 100, 1_000, 4_000] {
        let each = (20_000 / u64::try_from(committers).unwrap()).clamp(20, 1_000);
        let appends = each * u64::try_from(committers).unwrap();
        let per = |time: Duration| time / u32::try_from(appends).unwrap();
        let best = (0..5)
            .map(|_| {
                first += committers;
                let before = writer_time();
                let all = together(runtime, &ours, committers, each, first);
                (per(all), per(writer_time().saturating_sub(before)))
            })
            .min();
        let (all, writer) = best.unwrap();
        let name = format!("{committers} committers at once, an append");
        println!(
            "{name:<44} {:>9.2} µs  {:>5.2} µs of the writer's processor  {:>9.0} appends/s",
            micros(all),
            micros(writer),
            1.0 / all.as_secs_f64()
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("durable");
    let folder = tempfile::tempdir().unwrap();
    let bare = Bare::open(folder.path());
    group.bench_function("bare commit", |b| b.iter(|| bare.commit()));
    let ours = Ours::open(&runtime, folder.path());
    let mut at = 0;
    group.bench_function("one append", |b| {
        b.iter(|| {
            let batch = ours.batch(RunId(Uuid::from_u128(7)), at);
            at += 2;
            runtime.block_on(ours.store.commit(batch)).unwrap()
        });
    });
    let mut first = 1;
    group.bench_function("20 appends each of 1,000 runs", |b| {
        b.iter(|| {
            first += 1_000;
            together(&runtime, &ours, 1_000, 20, first)
        });
    });
    group.finish();
    drop(ours);
    criterion.final_summary();
    if is_wanted() {
        table(&runtime);
    }
}
