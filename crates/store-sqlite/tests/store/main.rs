//! The store as a catalogue, as a file, and after a kill.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod calls;
mod files;
mod formats;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::num::NonZeroU32;
use std::path::Path;

use futures_util::future::{join, join_all};
use rusqlite::Connection;
use stillpoint_catalog::{
    Catalog, CatalogExt, Cursor, Debris, DebrisKind, JobQuery, PointQuery, ScheduleCatalog,
    Settlement,
};
use stillpoint_context::{Effect, ErrorFacts, IdempotencyKey, JobId, RunId};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, GroupId, HoldName, PolicyId, ScheduleId};
use stillpoint_model::job::{Job, JobKind};
use stillpoint_model::point::{PointFact, RestorePoint};
use stillpoint_model::policy::Policy;
use stillpoint_model::request::Trigger;
use stillpoint_model::schedule::{
    AttachmentId, Lapse, Ledger, OpenDue, RecordedLapse, Rule, Schedule, StoredSchedule, Timetable,
    Why,
};
use stillpoint_store_sqlite::{FORMAT, SqliteStore};
use stillpoint_testkit::conformance::catalog::{at, point};
use stillpoint_workflow::{Fencing, Journal, Leases, StreamId};
use support::{
    MARGIN, Other, TERM, append, at as mono, batch, ended, fact, folder, leased, process, record,
    run, say, state,
};
use uuid::Uuid;

fn published(number: u128) -> PointFact {
    PointFact::Published(Box::new(point(number, 1, i64::try_from(number).unwrap()).unwrap()))
}

fn hold() -> Hold {
    let name = HoldName::new("case-7").unwrap();
    Hold::new(name, [published(1).point()].into(), "a case", "legal", at(7)).until(at(1000))
}

/// Something of everything that is stored.
fn fork() -> ChainFork {
    let run = RunId(Uuid::from_u128(12));
    ChainFork::new(run, DatabaseId(Uuid::from_u128(11)), at(7), published(1).point())
}

async fn fill(store: &SqliteStore) {
    store.apply(&[published(1), published(2)], Some(Cursor(u64::MAX))).await.unwrap();
    let id = published(2).point();
    store.apply(&[PointFact::Removed { point: id, at: at(9) }], None).await.unwrap();
    let policy = Policy::new(PolicyId(Uuid::from_u128(3)), "Daily");
    store.put_policy(&policy).await.unwrap();
    let id = GroupId(Uuid::from_u128(4));
    let mut group = ResourceGroup::new(id, "Mail", vec![Selector::Everything]);
    group.policies.push(policy.id);
    store.put_group(&group).await.unwrap();
    let key = IdempotencyKey::new("key-1").unwrap();
    let job = Job::new(JobId(Uuid::from_u128(5)), JobKind::Backup, key, Trigger::Api, at(1));
    store.begin_job(&job).await.unwrap();
    let kind = DebrisKind::Other("a clone".into());
    let debris = Debris::new("d", RunId(Uuid::from_u128(6)), kind, "left behind", at(2));
    store.put_debris(&debris).await.unwrap();
    let expiring =
        PointFact::Expiring { point: published(1).point(), at: at(8), turn: 1, keeps_logs: true };
    store.put_hold(&hold()).await.unwrap();
    store.put_fork(&fork()).await.unwrap();
    store.apply(&[expiring], None).await.unwrap();
    let old = store.acquire(process(8), support::at(1), TERM).await.unwrap();
    let lease = store.acquire(process(7), support::at(100), TERM).await.unwrap();
    let mut first = batch(
        process(8),
        old.epoch,
        vec![
            append(StreamId::Run(run(1)), 0, vec![record(1), record(2)]),
            append(StreamId::Arbiter, 0, vec![record(3)]),
            append(StreamId::Key(Uuid::from_u128(9)), 0, vec![record(4)]),
        ],
    );
    first.facts.push(fact("topic", "key", b"body"));
    store.commit(first).await.unwrap();
    store.release(process(8), old.epoch).await.unwrap();
    let last = append(StreamId::Run(run(2)), 0, vec![record(5), ended()]);
    store.commit(batch(process(7), lease.epoch, vec![last])).await.unwrap();
    let mut nothing = batch(process(7), lease.epoch, vec![]);
    nothing.facts.push(fact("topic", "key", b""));
    store.commit(nothing).await.unwrap();
}

/// Something of what is stored of schedules.
async fn fill_schedules(store: &SqliteStore) {
    let hourly = Rule::Hourly { every: NonZeroU32::MIN, minute: 5 };
    let schedule = Schedule::new("Hourly", hourly, "Europe/Berlin".parse().unwrap());
    let first = StoredSchedule::new(ScheduleId(Uuid::from_u128(10)), at(1), schedule);
    store.put_schedule(&first).await.unwrap();
    let mut renamed = first.schedule.clone();
    renamed.name = "Often".into();
    store.put_schedule(&first.edit(renamed.clone(), at(2)).unwrap()).await.unwrap();
    let (group, policy) = (GroupId(Uuid::from_u128(4)), PolicyId(Uuid::from_u128(3)));
    let attachment = AttachmentId { schedule: first.id, group, policy };
    let mut table = Timetable::new();
    table.put(renamed, at(0)).unwrap();
    let due = table.tick(at(7200)).due.remove(0);
    let mut ledger = Ledger::new(attachment, first.version, due.firing.due);
    ledger.open.push(OpenDue::new(&due, "Often", first.version));
    let lapse = Lapse::one(at(60), Why::Missed);
    let lapses = vec![RecordedLapse::new(attachment, at(7200), lapse)];
    let settlement = Settlement { attachment, from: None, to: Some(ledger), lapses };
    store.settle(at(7200), &[settlement]).await.unwrap();
}
