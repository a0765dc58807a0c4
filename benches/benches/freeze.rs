//! How long a freeze lasts: one set of 64 volumes whose snapshots take 50 ms each, over the simulated Exchange in real
//! time, from the first quiesced write to the thaw, as a ratio to the slowest snapshot of the same run.
//!
//! `cargo bench -p stillpoint-benches --bench freeze` prints the table, and fails if the median misses the goal. Beside it, in the same run: the bare provider, told
//! to commit the same set without any engine around it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock")]

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillpoint::Stillpoint;
use stillpoint::context::{Cx, IdempotencyKey};
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::{GroupId, PolicyId, SetToken};
use stillpoint::model::job::JobState;
use stillpoint::model::policy::Policy;
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::storage::{MemberRole, MemberSpec, PrepareSpec, SnapshotProvider};
use stillpoint_testkit::World;
use uuid::Uuid;

const VOLUMES: u32 = 64;
const SNAPSHOT: Duration = Duration::from_millis(50);
const ROUNDS: usize = 20;

/// The goal of the project: 60 ms for snapshots of 50 ms.
const GOAL: f64 = 60.0 / 50.0;

/// One backup of all volumes as one set: how long its freeze lasted.
async fn frozen() -> Duration {
    let world = World::volumes_of(VOLUMES, SNAPSHOT);
    let this =
        Stillpoint::in_memory(Arc::new(world.exchange()), Arc::new(world.storage())).unwrap();
    let policy = Policy::new(PolicyId(Uuid::from_u128(1)), "default");
    this.save_policy(&policy).await.unwrap();
    let mut group =
        ResourceGroup::new(GroupId(Uuid::from_u128(2)), "all", vec![Selector::Everything]);
    let all = NonZeroU32::new(VOLUMES).unwrap();
    group.batching.max_databases = all;
    group.batching.max_volumes = all;
    this.save_group(&group).await.unwrap();
    let key = IdempotencyKey::new("bench").unwrap();
    let request = BackupRequest::new(key, Target::Group(group.id), policy.id);
    let job = this.backup(request).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let windows = world.freeze_windows();
    assert_eq!(windows.len(), 1, "one set");
    windows[0].length().unwrap()
}

/// The same set committed by the bare provider.
async fn bare() -> Duration {
    let world = World::volumes_of(VOLUMES, SNAPSHOT);
    let seams = stillpoint::workflow::TokioSeams::current().unwrap();
    let cx = Cx::detached(&seams);
    let storage = world.storage();
    let mut spec = PrepareSpec::new(SetToken::new("bare").unwrap(), "bare");
    for volume in world.volumes() {
        spec = spec.with_member(MemberSpec::new(volume, MemberRole::DataAndLog, Vec::new()));
    }
    let prepared = storage.prepare(&cx, &spec).await.unwrap();
    let begun = Instant::now();
    storage.commit(&cx, &prepared).await.unwrap();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ratio(time: Duration) -> f64 {
    time.as_secs_f64() / SNAPSHOT.as_secs_f64()
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.push(runtime.block_on(frozen()));
        without.push(runtime.block_on(bare()));
    }
    let worst = with.iter().max().copied().unwrap();
    println!("{VOLUMES} volumes, snapshots of {SNAPSHOT:?} each, {ROUNDS} rounds");
    println!("| what | median | × slowest snapshot |");
    println!("|---|---|---|");
    for (what, time) in [
        ("bare provider, commit alone", median(without)),
        ("freeze to thaw through the engine", median(with.clone())),
        ("freeze to thaw, worst round", worst),
    ] {
        println!("| {what} | {time:.2?} | {:.3} |", ratio(time));
    }
    let reached = ratio(median(with)) <= GOAL;
    println!(
        "goal: {GOAL:.1}× at most in the median: {}",
        if reached { "reached" } else { "missed" }
    );
    if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
