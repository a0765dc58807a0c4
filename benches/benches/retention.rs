//! How fast retention decides: verdicts for 1,000,000 restore points of 1,000 databases, and whether that is linear; and the topology
//! of one database in a catalogue of as many points.
//!
//! `cargo bench -p stillpoint-benches --bench retention` prints one table, with floors measured in the same run: a sort of as many
//! points by their instants, and bare reads of as many rows of JSON.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint::catalog::{Catalog, CatalogExt, PointQuery};
use stillpoint::context::{HostId, JobId, RunId};
use stillpoint::model::chain::LogSegment;
use stillpoint::model::evidence::EvidenceGrain;
use stillpoint::model::handover::MemberRole;
use stillpoint::model::id::{
    CopyId, DatabaseId, PointId, PolicyId, SetToken, SnapshotId, SnapshotRef,
};
use stillpoint::model::inventory::{Generation, LogSignature};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::point::{
    NewPoint, PointEvidence, PointFact, PointLogs, PointMember, PointState, RestorePoint,
};
use stillpoint::model::policy::{Gfs, LogRetention, Policy, Retention};
use stillpoint::model::quiesce::{Held, QuiesceLevel};
use stillpoint::model::retention::{RetentionInputs, decide};
use stillpoint::model::topology::Topology;
use stillpoint_benches::table::{best, is_wanted, verdict};
use stillpoint_store_sqlite::SqliteStore;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goals of the project, in seconds.
const VERDICTS: f64 = 1.5;
const TOPOLOGY: f64 = 0.03;

fn epoch() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A good backup of a database, the `nth`, an hour after the one before.
fn point(database: u32, nth: u32, policy: &Policy) -> RestorePoint {
    let number = (u128::from(database) << 64) | u128::from(nth);
    let database = DatabaseId(Uuid::from_u128(u128::from(database)));
    let evidence = PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase);
    let mut point = RestorePoint::new(NewPoint {
        id: PointId(Uuid::from_u128(number)),
        copy: CopyId::new(database, HostId::new("ex1.example.com").unwrap()),
        database_name: "DB01".into(),
        kind: if nth.is_multiple_of(24) { BackupKind::FullAndLog } else { BackupKind::Log },
        taken_at: epoch() + TimeDelta::hours(i64::from(nth)),
        job: JobId(Uuid::from_u128(number)),
        run: RunId(Uuid::from_u128(number)),
        set: SetToken::new(format!("set-{number:x}")).unwrap(),
        evidence,
    });
    point.state = PointState::Available;
    point.policy = Some(policy.reference());
    let member = |name: &str, role| {
        let id = SnapshotId::new(format!("{name}-{number:x}")).unwrap();
        PointMember::new(SnapshotRef::new("sim:vol".parse().unwrap(), id), name, role)
    };
    let range: RangeInclusive<Generation> = Generation(nth * 10 + 1)..=Generation(nth * 10 + 10);
    point.members = vec![member("log", MemberRole::Log)];
    let mut required = None;
    if point.kind == BackupKind::FullAndLog {
        point.members.push(member("data", MemberRole::Data));
        required = Some(range.clone());
    }
    point.logs = Some(PointLogs::new(LogSignature([1; 28]), Some(range), required));
    point
}

fn policy() -> Policy {
    let mut policy = Policy::new(PolicyId(Uuid::from_u128(1)), "hourly");
    policy.retention = Retention::count(30);
    policy.retention.gfs = Some(Gfs { daily: 14, weekly: 8, monthly: 12, ..Gfs::default() });
    policy.log_retention = LogRetention::FollowFulls(7.try_into().unwrap());
    policy
}

/// Verdicts for every point and segment of so many databases; also as long as a sort of them takes.
fn verdicts(databases: u32, points: u32) -> (Duration, Duration) {
    let policies = [policy()];
    let all: Vec<Vec<RestorePoint>> = (0..databases)
        .map(|database| (0..points).map(|nth| point(database, nth, &policies[0])).collect())
        .collect();
    let now = epoch() + TimeDelta::hours(i64::from(points));
    let decided = best(3, || {
        for points in &all {
            let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
            let mut inputs = RetentionInputs::new(now);
            (inputs.points, inputs.segments, inputs.policies) = (points, &segments, &policies);
            let decisions = decide(&inputs);
            assert_eq!(decisions.points.len(), points.len());
            black_box(decisions);
        }
    });
    let sorted = best(3, || {
        for points in &all {
            let mut order: Vec<_> = points.iter().rev().collect();
            order.sort_by_key(|point| (point.taken_at, point.id));
            black_box(order);
        }
    });
    (decided, sorted)
}

/// The topology of one database, and as many rows of JSON read by bare serde.
fn topology(databases: u32, points: u32) -> (Duration, Duration) {
    let policy = policy();
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let store = SqliteStore::open(place.path().join("state.db")).unwrap();
    for database in 0..databases {
        let facts: Vec<_> = (0..points)
            .map(|nth| PointFact::Published(Box::new(point(database, nth, &policy))))
            .collect();
        runtime.block_on(store.apply(&facts, None)).unwrap();
    }
    let one = DatabaseId(Uuid::from_u128(u128::from(databases / 2)));
    let taken = best(5, || {
        let points = runtime.block_on(store.all_points(&PointQuery::of(one))).unwrap();
        let topology = Topology::of(None, &points);
        assert_eq!(topology.databases[0].points.len(), points.len());
    });
    let texts: Vec<_> =
        (0..points).map(|nth| serde_json::to_string(&point(1, nth, &policy)).unwrap()).collect();
    let parsed = best(5, || {
        for text in &texts {
            black_box(serde_json::from_str::<RestorePoint>(text).unwrap());
        }
    });
    (taken, parsed)
}

fn main() {
    let wanted = is_wanted();
    let (databases, points) = if wanted { (1_000, 1_000) } else { (2, 50) };
    let tenth = databases / 10 + 1;
    let (small, _) = verdicts(tenth, points);
    let (all, sorted) = verdicts(databases, points);
    let (one, parsed) = topology(databases, points);
    if !wanted {
        return;
    }
    let (all, one) = (all.as_secs_f64(), one.as_secs_f64());
    let factor = all / small.as_secs_f64() / f64::from(databases) * f64::from(tenth);
    println!("\n{points} restore points of each of {databases} databases\n");
    println!("| what | found | floor | goal | |");
    println!("|---|---|---|---|---|");
    println!(
        "| verdicts for all of them | {all:.2} s | {:.2} s | {VERDICTS} s | {} |",
        sorted.as_secs_f64(),
        verdict(all <= VERDICTS)
    );
    println!("| a verdict, beside one of a tenth as many | {factor:.2} × | | linear | |");
    println!(
        "| topology of one database | {:.1} ms | {:.1} ms | {} ms | {} |",
        one * 1e3,
        parsed.as_secs_f64() * 1e3,
        TOPOLOGY * 1e3,
        verdict(one <= TOPOLOGY)
    );
}
