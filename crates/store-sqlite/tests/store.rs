//! The store as a catalogue, as a file, and after a kill.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

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

fn code(path: &Path) -> String {
    let error = SqliteStore::open(path).unwrap_err();
    let named = error.to_string().contains(path.file_name().unwrap().to_str().unwrap());
    assert!(named && !error.remedy().is_empty(), "{error}");
    error.code().to_string()
}

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

async fn everything_of_schedules(store: &SqliteStore) -> String {
    let (schedules, times) = (store.schedules().await.unwrap(), store.times().await.unwrap());
    let (ledgers, lapses) = (store.ledgers().await.unwrap(), store.lapses(None, 9).await.unwrap());
    assert!(!schedules.is_empty() && !ledgers.is_empty() && !lapses.is_empty());
    format!("{schedules:?}{times:?}{ledgers:?}{lapses:?}")
}

async fn everything(store: &SqliteStore) -> String {
    let points = store.all_points(&PointQuery::all()).await.unwrap();
    let jobs = store.all_jobs(&JobQuery::all()).await.unwrap();
    let policies = store.policies().await.unwrap();
    let groups = store.groups().await.unwrap();
    let debris = store.debris().await.unwrap();
    let (holds, cursor) = (store.holds().await.unwrap(), store.cursor().await.unwrap());
    let forks = store.forks(fork().database).await.unwrap();
    assert_eq!(forks.len(), 1);
    assert!(!points.is_empty() && !jobs.is_empty() && !policies.is_empty() && !groups.is_empty());
    format!("{points:?}{jobs:?}{policies:?}{groups:?}{debris:?}{holds:?}{forks:?}{cursor:?}")
}

/// What an older format does not have, so that a file that was brought up can be compared with a fresh one.
async fn add_what_is_new(store: &SqliteStore) {
    assert!(store.holds().await.unwrap().is_empty());
    store.put_hold(&hold()).await.unwrap();
    store.put_fork(&fork()).await.unwrap();
    let expiring =
        PointFact::Expiring { point: published(1).point(), at: at(8), turn: 1, keeps_logs: true };
    store.apply(&[expiring], None).await.unwrap();
}

#[tokio::test]
async fn what_was_stored_is_there_after_opening_again() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    fill(&store).await;
    let before = everything(&store).await;
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(everything(&store).await, before);
    // The removed point is still known as removed.
    store.apply(&[published(2)], None).await.unwrap();
    assert_eq!(everything(&store).await, before);
}

/// Schema and rows as text.
fn dump(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let mut text = format!(
        "PRAGMA application_id = {};\nPRAGMA user_version = {};\n",
        number("application_id"),
        number("user_version")
    );
    let mut tables = db
        .prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name")
        .unwrap();
    let mut names = Vec::new();
    let mut rows = tables.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (kind, name, sql): (String, String, String) =
            (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        writeln!(text, "{sql};").unwrap();
        if kind == "table" {
            names.push(name);
        }
    }
    for name in names {
        let mut statement = db.prepare(&format!("SELECT * FROM {name} ORDER BY 1")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns)
                .map(|at| match row.get_ref(at).unwrap() {
                    rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    rusqlite::types::ValueRef::Real(number) => number.to_string(),
                    rusqlite::types::ValueRef::Text(text) => {
                        format!("'{}'", str::from_utf8(text).unwrap().replace('\'', "''"))
                    }
                    rusqlite::types::ValueRef::Blob(bytes) => {
                        let mut hex = String::new();
                        for byte in bytes {
                            write!(hex, "{byte:02x}").unwrap();
                        }
                        format!("x'{hex}'")
                    }
                })
                .collect();
            writeln!(text, "INSERT INTO {name} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    text
}

const GOLDEN_1: &str = include_str!("golden/state-1.sql");
const GOLDEN_2: &str = include_str!("golden/state-2.sql");
const GOLDEN_3: &str = include_str!("golden/state-3.sql");
const GOLDEN_4: &str = include_str!("golden/state-4.sql");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-5.sql");

#[tokio::test]
async fn the_stored_form_is_what_it_always_was() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    fill(&store).await;
    fill_schedules(&store).await;
    drop(store);
    let text = dump(&path);
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    assert_eq!(text, golden, "the stored form changed; raise FORMAT and migrate the old one");
}

/// Statements that make tables.
fn schema(dump: &str) -> Vec<&str> {
    let lines = dump.lines().filter(|line| !line.starts_with("INSERT") && !line.is_empty());
    lines.collect()
}

#[tokio::test]
async fn a_file_of_format_1_is_brought_up() {
    let (_folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(GOLDEN_1).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let (_fresh, other) = folder();
    let fresh = SqliteStore::open(&other).unwrap();
    fill(&fresh).await;
    // The cursor counted in another journal than the one that is here now.
    assert_eq!(store.cursor().await.unwrap(), None);
    store.apply(&[], Some(Cursor(u64::MAX))).await.unwrap();
    add_what_is_new(&store).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert!(store.open(None, 9).await.unwrap().is_empty());
    store.check().await.unwrap();
    drop((store, fresh));
    let (brought, fresh) = (dump(&path), dump(&other));
    assert_eq!(schema(&brought), schema(&fresh));
    assert!(schema(&fresh).len() > 60);
    // Again, and nothing changes.
    drop(SqliteStore::open(&path).unwrap());
    assert_eq!(dump(&path), brought);
}

#[tokio::test]
async fn a_file_of_format_2_is_brought_up() {
    let (_folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(GOLDEN_2).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let (_fresh, other) = folder();
    let fresh = SqliteStore::open(&other).unwrap();
    fill(&fresh).await;
    add_what_is_new(&store).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    for stream in [StreamId::Arbiter, StreamId::Run(run(1)), StreamId::Run(run(2))] {
        let read = async |store: &SqliteStore| {
            Journal::read(store, &stream, stillpoint_workflow::Seq(0), 9).await.unwrap()
        };
        assert_eq!(read(&store).await, read(&fresh).await);
        assert!(!read(&store).await.is_empty());
    }
    assert_eq!(store.open(None, 9).await.unwrap(), fresh.open(None, 9).await.unwrap());
    assert_eq!(store.leases().await.unwrap(), fresh.leases().await.unwrap());
    assert!(store.schedules().await.unwrap().is_empty());
    // And what is new can be stored.
    fill_schedules(&store).await;
    let (ledgers, times) = (store.ledgers().await.unwrap(), store.times().await.unwrap());
    assert_eq!((ledgers.len(), times.unbegun.len()), (1, 1));
    store.check().await.unwrap();
    drop((store, fresh));
    let (brought, fresh) = (dump(&path), dump(&other));
    assert_eq!(schema(&brought), schema(&fresh));
    drop(SqliteStore::open(&path).unwrap());
    assert_eq!(dump(&path), brought);
}

#[tokio::test]
async fn a_file_of_format_3_is_brought_up() {
    let (_folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(GOLDEN_3).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    assert!(store.forks(fork().database).await.unwrap().is_empty());
    store.put_fork(&fork()).await.unwrap();
    let (_fresh, other) = folder();
    let fresh = SqliteStore::open(&other).unwrap();
    fill(&fresh).await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_eq!(everything_of_schedules(&store).await, everything_of_schedules(&fresh).await);
    store.check().await.unwrap();
    drop((store, fresh));
    assert_eq!(schema(&dump(&path)), schema(&dump(&other)));
}

#[tokio::test]
async fn a_file_of_format_4_is_brought_up() {
    let (_folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(GOLDEN_4).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let (_fresh, other) = folder();
    let fresh = SqliteStore::open(&other).unwrap();
    fill(&fresh).await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    store.check().await.unwrap();
    drop((store, fresh));
    assert_eq!(dump(&path), dump(&other));
}

#[tokio::test]
async fn a_file_of_format_5_can_be_read() {
    let (_folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&std::fs::read_to_string(GOLDEN).unwrap()).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let (_fresh, other) = folder();
    let fresh = SqliteStore::open(&other).unwrap();
    fill(&fresh).await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_eq!(everything_of_schedules(&store).await, everything_of_schedules(&fresh).await);
    for stream in [StreamId::Arbiter, StreamId::Run(run(1)), StreamId::Run(run(2))] {
        let read = async |store: &SqliteStore| {
            Journal::read(store, &stream, stillpoint_workflow::Seq(0), 9).await.unwrap()
        };
        assert_eq!(read(&store).await, read(&fresh).await);
        assert!(!read(&store).await.is_empty());
    }
    assert_eq!(store.open(None, 9).await.unwrap(), fresh.open(None, 9).await.unwrap());
    assert_eq!(store.leases().await.unwrap(), fresh.leases().await.unwrap());
    store.check().await.unwrap();
}

#[tokio::test]
async fn many_stores_have_a_file_open_whatever_the_way_to_it() {
    let (folder, path) = folder();
    let first = SqliteStore::open(&path).unwrap();
    let roundabout = folder.path().join(".").join("stillpoint.db");
    let mut others = vec![SqliteStore::open(&roundabout).unwrap()];
    #[cfg(unix)]
    {
        let link = folder.path().join("link-to-stillpoint.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        others.push(SqliteStore::open(&link).unwrap());
    }
    for (number, store) in (1..).zip(&others) {
        assert_eq!(store.path(), first.path());
        store.apply(&[published(number)], None).await.unwrap();
        assert!(first.point(published(number).point()).await.unwrap().is_some());
    }
    // Who goes first leaves the file to the others.
    drop(first);
    for store in others {
        store.apply(&[published(99)], None).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_a_file_alone_shares_it_with_nobody() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let alone = |path: &Path| SqliteStore::open_alone(path).map(drop).map_err(|error| error.code());
    assert_eq!(alone(&path), Err("state.in_use".into()));
    drop(store);
    let store = SqliteStore::open_alone(&path).unwrap();
    assert_eq!(code(&path), "state.in_use");
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("stillpoint.db.lock"), "{error}");
    assert_eq!(alone(&folder.path().join(".").join("stillpoint.db")), Err("state.in_use".into()));
    let clone = store.clone();
    drop(store);
    assert_eq!(code(&path), "state.in_use");
    drop(clone);
    alone(&path).unwrap();
    SqliteStore::open(&path).unwrap();

    let first = |path: &Path| SqliteStore::open_first(path).map_err(|error| error.code());
    let one = first(&path).unwrap();
    assert_eq!(first(&path).unwrap_err(), "state.in_use");
    drop(one);
    let shared = SqliteStore::open(&path).unwrap();
    let both = [first(&path).unwrap(), first(&path).unwrap()];
    drop(shared);
    assert_eq!(alone(&path), Err("state.in_use".into()), "they share it still");
    drop(both);
    alone(&path).unwrap();
}

/// A version of format 1 holds the lock beside the file as long as it has it open.
#[test]
fn old_versions_and_new_ones_never_work_together() {
    let (folder, path) = folder();
    let lock = File::create(folder.path().join("stillpoint.db.lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(code(&path), "state.in_use");
    assert!(!path.exists(), "nothing was touched");
    lock.unlock().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    lock.try_lock().unwrap_err();
    drop(store);
    // A process that another test is just starting has, until it begins, what this one had open.
    while let Err(TryLockError::WouldBlock) = lock.try_lock() {
        std::thread::yield_now();
    }
}

/// Many at the same moment, where there is no file yet: one makes it, all have it.
#[test]
fn a_new_file_may_be_opened_by_many_at_once() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(&path))).collect();
        for store in opened {
            store.join().unwrap().unwrap();
        }
    });
}

#[test]
fn what_is_no_state_file_is_refused_and_left_as_it_was() {
    let (folder, path) = folder();
    assert_eq!(code(folder.path()), "state.is_folder");
    assert_eq!(code(&folder.path().join("none").join("stillpoint.db")), "state.no_folder");
    assert_eq!(SqliteStore::open("/").unwrap_err().code(), "state.is_folder");

    let text = folder.path().join("letter.txt");
    std::fs::write(&text, "Dear Sir or Madam, ".repeat(200)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert_eq!(code(&text), "state.not_a_database");
    assert_eq!(std::fs::read(&text).unwrap(), before);

    // A file as a folder.
    assert_eq!(code(&text.join("stillpoint.db")), "state.unavailable");

    let foreign = folder.path().join("photos.db");
    let db = Connection::open(&foreign).unwrap();
    db.execute_batch("CREATE TABLE photo (x)").unwrap();
    drop(db);
    let before = std::fs::read(&foreign).unwrap();
    assert_eq!(code(&foreign), "state.foreign");
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    drop(SqliteStore::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(db);
    assert_eq!(code(&path), "state.newer_format");
    let error = SqliteStore::open(&path).unwrap_err().to_string();
    for number in [FORMAT, FORMAT + 1] {
        assert!(error.contains(&format!("{number}")), "{error}");
    }
}

#[test]
fn an_empty_file_becomes_a_state_file() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    drop(SqliteStore::open(&path).unwrap());
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
}

#[test]
fn a_read_only_file_is_refused() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path).unwrap());
    let mut rights = std::fs::metadata(&path).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&path, rights).unwrap();
    assert_eq!(code(&path), "state.read_only");
}

#[tokio::test]
async fn damage_is_found() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let facts: Vec<PointFact> = (1..200).map(published).collect();
    store.apply(&facts, None).await.unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();

    // Every page after the first, one after the other, filled with the same byte.
    let page = 4096;
    let mut refused = 0;
    let mut pages = 0;
    for at in (page..good.len()).step_by(page * 7) {
        let mut bad = good.clone();
        bad[at..at + page].fill(0xA5);
        std::fs::write(&path, &bad).unwrap();
        pages += 1;
        match SqliteStore::open(&path) {
            Err(error) => {
                assert_eq!(error.code(), "state.corrupt", "{error}");
                refused += 1;
            }
            // Overflow pages hold text alone; what reads them says so.
            Ok(store) => {
                let error = store.all_points(&PointQuery::all()).await.unwrap_err();
                assert_eq!(error.code(), "state.corrupt", "{error}");
            }
        }
    }
    assert!(pages > 10 && refused > 0, "{refused} of {pages}");

    for length in [page - 1, page + 1, good.len() - page] {
        std::fs::write(&path, &good[..length]).unwrap();
        let found = code(&path);
        assert!(["state.corrupt", "state.not_a_database"].contains(&found.as_str()), "{found}");
    }

    std::fs::write(&path, &good).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE point SET body = '{}' WHERE rowid = 1", []).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let error = store.all_points(&PointQuery::all()).await.unwrap_err();
    assert_eq!(error.code(), "state.corrupt");
    assert!(store.point(published(100).point()).await.unwrap().is_some(), "the others can be read");
}

/// Not a test by itself: a process that stores points, says so after each, and is killed.
#[test]
#[ignore = "the other side of what_was_acknowledged_survives_a_kill"]
fn writer_process() {
    let Some(path) = state() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = SqliteStore::open(path).unwrap();
    runtime.block_on(async {
        for number in 1u64.. {
            store.apply(&[published(number.into())], Some(Cursor(number))).await.unwrap();
            say(number);
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (_folder, path) = folder();
    let mut acknowledged = 0;
    for round in 1..=4 {
        let mut other = Other::start("writer_process", &path);
        loop {
            let number = other.hear().parse::<u64>().unwrap();
            acknowledged = acknowledged.max(number);
            if number >= round * 7 {
                break;
            }
        }
        other.kill();

        let store = SqliteStore::open(&path).unwrap();
        store.check().await.unwrap();
        let points: Vec<RestorePoint> = store.all_points(&PointQuery::all()).await.unwrap();
        let stored = points.len() as u64;
        assert!(stored >= acknowledged, "{stored} of {acknowledged}");
        // Points and cursor are of one commit. Rounds begin again at 1, which changes nothing.
        assert_eq!(store.cursor().await.unwrap(), Some(Cursor(stored)));
    }
    assert!(acknowledged >= 28);
}

#[tokio::test]
async fn calls_from_many_tasks_are_each_whole() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let calls: Vec<_> = (1..=200u128)
        .map(|number| {
            let store = store.clone();
            async move {
                let stray = PointFact::Removed { point: published(number).point(), at: at(1) };
                match number % 4 {
                    // A pair in one call, a call that is refused, and reads in between.
                    0 => store.apply(&[published(number), published(number + 1000)], None).await,
                    1 => store.apply(&[published(number), late(number)], None).await,
                    2 => store.apply(&[published(number), stray], None).await,
                    _ => store
                        .points(&PointQuery::all(), &stillpoint_catalog::Page::first(3))
                        .await
                        .map(drop),
                }
            }
        })
        .collect();
    let refused = join_all(calls).await.into_iter().filter(Result::is_err).count();
    assert_eq!(refused, 50);
    assert_eq!(store.all_points(&PointQuery::all()).await.unwrap().len(), 100);
}

/// A fact about a point that does not exist.
fn late(number: u128) -> PointFact {
    let truncation = stillpoint_model::point::Truncation::Unknown;
    PointFact::Completed { point: published(number + 5000).point(), at: at(1), truncation }
}

#[tokio::test]
async fn who_was_taken_over_stores_no_job() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let mut job = Job::new(
        JobId(Uuid::from_u128(1)),
        JobKind::Backup,
        IdempotencyKey::new("k").unwrap(),
        Trigger::Api,
        at(1),
    );
    store.begin_job(&job).await.unwrap();
    job.title = "of the first".to_owned();
    store.put_job_in_epoch(&job, process(1), epoch).await.unwrap();

    // Another process finds the lease over, and stores what it makes of the job.
    let other = SqliteStore::open(&path).unwrap();
    let later = mono(0) + TERM + MARGIN;
    assert_eq!(other.fence(process(1), later, MARGIN).await.unwrap(), Fencing::Fenced);
    let taken = other.acquire(process(2), later, TERM).await.unwrap().epoch;
    job.title = "of the second".to_owned();
    other.put_job_in_epoch(&job, process(2), taken).await.unwrap();

    // The first one wakes.
    let mut late = job.clone();
    late.title = "of the first, late".to_owned();
    for (owner, epoch) in
        [(process(1), epoch), (process(1), taken), (process(2), epoch), (process(3), 0)]
    {
        let error = store.put_job_in_epoch(&late, owner, epoch).await.unwrap_err();
        assert_eq!(error.code(), "catalog.fenced");
        assert_eq!(error.effect(), Effect::None);
    }
    assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));

    let mut never = job;
    never.id = JobId(Uuid::from_u128(2));
    let error = other.put_job_in_epoch(&never, process(2), taken).await.unwrap_err();
    assert_eq!(error.code(), "catalog.not_found");
}

#[tokio::test]
async fn a_copy_is_taken_while_others_write() {
    let (kept, _) = folder();
    let folder = kept.path().to_owned();
    let (path, copy) = (folder.join("state.db"), folder.join("copy.db"));
    let store = SqliteStore::open(&path).unwrap();
    fill(&store).await;
    // Left by one that was killed.
    std::fs::write(folder.join("copy.db.part"), "half").unwrap();
    let others = SqliteStore::open(&path).unwrap();
    // Once they are asked for, the writes go on by themselves while the copy blocks.
    let facts: Vec<_> = (100..140).map(|number| [published(number)]).collect();
    let writes = join_all(facts.iter().map(|facts| others.apply(facts, None)));
    let (written, copied) = join(writes, async { store.back_up(&copy) }).await;
    written.into_iter().for_each(Result::unwrap);
    copied.unwrap();
    assert!(!folder.join("copy.db.part").exists());
    let opened = SqliteStore::open(&copy).unwrap();
    let mut kept = opened.all_points(&PointQuery::all()).await.unwrap();
    kept.retain(|point| point.id != published(1).point());
    // All of some commits and nothing of the rest: one for each point, in order.
    kept.sort_by_key(|point| point.id);
    let ids: Vec<_> = kept.iter().map(|point| point.id).collect();
    let first: Vec<_> = (100..140).map(|number| published(number).point()).collect();
    assert_eq!(ids, first[..ids.len()]);
    assert_eq!(opened.holds().await.unwrap(), store.holds().await.unwrap());
    assert_eq!(opened.policies().await.unwrap(), store.policies().await.unwrap());
    assert_eq!(opened.times().await.unwrap(), store.times().await.unwrap());
    assert_eq!(opened.debris().await.unwrap(), store.debris().await.unwrap());
    // What is removed stays so in a copy.
    let removed = published(2);
    opened.apply(std::slice::from_ref(&removed), None).await.unwrap();
    assert!(opened.point(removed.point()).await.unwrap().is_none());

    let refused = |to: &Path| store.back_up(to).unwrap_err().code().to_string();
    assert_eq!(refused(&copy), "state.exists");
    assert_eq!(refused(&path), "state.exists");
    assert_eq!(refused(&folder), "state.exists");
    assert_eq!(refused(&folder.join("no/copy.db")), "state.no_folder");
}
