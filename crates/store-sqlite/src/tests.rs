//! The writer's promises where they need a failing SQLite.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use rusqlite::Connection;
use stillpoint_catalog::{Catalog, CatalogError, Debris, DebrisKind};
use stillpoint_context::{Effect, ErrorFacts, Mono, ProcessId, RunId};
use stillpoint_workflow::{
    Append, Batch, End, Journal, JournalError, Leases, Now, Record, RunRecord, Seq, StreamId,
};
use uuid::Uuid;

use crate::SqliteStore;
use crate::error::rolled_back;

const OWNER: ProcessId = ProcessId(Uuid::nil());

fn open(folder: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("x.db")).unwrap()
}

async fn leased(folder: &tempfile::TempDir) -> (SqliteStore, u64) {
    let store = open(folder);
    let lease = store.acquire(OWNER, Mono::ZERO, Duration::from_mins(1)).await.unwrap();
    (store, lease.epoch)
}

async fn set_up(store: &SqliteStore, sql: &'static str) {
    store.write(move |db| db.execute_batch(sql).map_err(rolled_back)).await.unwrap();
}

fn debris(key: &str, bytes: usize) -> Debris {
    let kind = DebrisKind::Other("x".repeat(bytes));
    Debris::new(key, RunId(Uuid::nil()), kind, "left", chrono::DateTime::UNIX_EPOCH)
}

/// A batch of one append with this many records.
fn batch(epoch: u64, run: u128, expected: u64, records: usize) -> Batch {
    let record = Record::Run(RunRecord::Ended { end: End::Succeeded });
    let append = Append {
        stream: StreamId::Run(RunId(Uuid::from_u128(run))),
        expected: Seq(expected),
        at: Now::default(),
        records: vec![record; records],
    };
    Batch { owner: OWNER, epoch, appends: vec![append], facts: Vec::new() }
}

/// Polled once: it is in the writer's queue from now on.
fn queue(call: std::pin::Pin<&mut impl Future>) {
    assert!(call.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
}

/// Keeps the writer busy until the calls that are made meanwhile all wait.
async fn at_once<T>(store: &SqliteStore, calls: impl Future<Output = T>) -> T {
    let (go, wait) = channel::<()>();
    let (begins, begun) = channel::<()>();
    let mut busy = std::pin::pin!(store.write(move |_| {
        begins.send(()).ok();
        wait.recv().ok();
        Ok::<_, CatalogError>(())
    }));
    queue(busy.as_mut());
    // From here on nobody joins its transaction.
    begun.recv().unwrap();
    let (answers, ()) = tokio::join!(calls, async { go.send(()).unwrap() });
    busy.await.unwrap();
    answers
}

#[tokio::test]
async fn a_call_that_fails_leaves_the_others_of_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    let refused = store.write(|db: &Connection| {
        db.execute("INSERT INTO debris VALUES ('no', 1, '')", []).map_err(rolled_back)?;
        Err::<(), _>(CatalogError::NotFound { kind: "thing", id: "x".into() })
    });
    let (a, b, c, d) = at_once(&store, async {
        let (a, d) = (debris("a", 1), debris("d", 1));
        tokio::join!(
            store.put_debris(&a),
            refused,
            store.commit(batch(epoch, 1, 0, 1)),
            store.put_debris(&d)
        )
    })
    .await;
    assert!(a.is_ok() && c.is_ok() && d.is_ok());
    assert_eq!(b.unwrap_err().code(), "catalog.not_found");
    assert_eq!(store.debris().await.unwrap().len(), 2);
}

#[test]
fn a_full_disk_is_told_when_a_file_is_opened() {
    use rusqlite::ffi;
    for (code, is_full) in [
        (ffi::SQLITE_FULL, true),
        // What a file on a full disk says first: there is no room for the index of its log.
        (ffi::SQLITE_IOERR_SHMSIZE, true),
        (ffi::SQLITE_IOERR_FSYNC, false),
    ] {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let error = crate::file::failed(Path::new("/x.db"), error);
        assert_eq!(error.code(), "state.unavailable");
        assert_eq!(error.to_string().contains("full"), is_full, "{error}");
        assert_eq!(error.remedy().contains("Free room"), is_full, "{}", error.remedy());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_can_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    set_up(&store, "PRAGMA max_page_count = 60").await;
    store.put_debris(&debris("a", 10)).await.unwrap();
    store.commit(batch(epoch, 1, 0, 1)).await.unwrap();

    let full = store.put_debris(&debris("b", 1_000_000)).await.unwrap_err();
    assert_eq!((full.code().as_str(), full.effect()), ("state.unavailable", Effect::None));
    let full = store.commit(batch(epoch, 2, 0, 10_000)).await.unwrap_err();
    assert_eq!((full.clone(), full.effect()), (JournalError::Full, Effect::None));

    // Nothing of either is there, and what needs less room is done.
    assert_eq!(store.debris().await.unwrap().len(), 1);
    assert_eq!(store.head(&batch(epoch, 2, 0, 0).appends[0].stream).await.unwrap(), Seq(0));
    store.put_debris(&debris("c", 10)).await.unwrap();
    store.commit(batch(epoch, 2, 0, 1)).await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn who_shares_a_transaction_that_is_given_up_is_not_told_yes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    set_up(&store, "PRAGMA max_page_count = 60").await;
    let (small, large, late) = at_once(&store, async {
        tokio::join!(
            store.commit(batch(epoch, 1, 0, 1)),
            store.commit(batch(epoch, 2, 0, 10_000)),
            // It conflicts only with what is given up.
            store.commit(batch(epoch, 1, 0, 2)),
        )
    })
    .await;
    for answer in [small, large, late] {
        assert_eq!(answer.unwrap_err(), JournalError::Full);
    }
    store.commit(batch(epoch, 1, 0, 2)).await.unwrap();
}

fn busy(store: &Path) -> Connection {
    let other = Connection::open(store).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

#[tokio::test]
async fn a_transaction_that_cannot_begin_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    set_up(&store, "PRAGMA busy_timeout = 0").await;
    let other = busy(store.path());
    let refused = store.put_debris(&debris("a", 1)).await.unwrap_err();
    assert_eq!((refused.code().as_str(), refused.effect()), ("state.unavailable", Effect::None));
    let refused = store.commit(batch(epoch, 1, 0, 1)).await.unwrap_err();
    assert!(matches!(refused, JournalError::Busy(_)), "{refused}");
    // Who reads does not wait for who writes.
    assert_eq!(store.debris().await.unwrap().len(), 0);
    other.execute_batch("COMMIT").unwrap();
    store.commit(batch(epoch, 1, 0, 1)).await.unwrap();
}

#[tokio::test]
async fn a_transaction_of_another_process_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    let other = busy(store.path());
    let commit = store.commit(batch(epoch, 1, 0, 1));
    let (done, ()) = tokio::join!(commit, async { other.execute_batch("COMMIT").unwrap() });
    done.unwrap();
}

#[tokio::test]
async fn a_call_nobody_waits_for_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let (store, epoch) = leased(&folder).await;
    queue(std::pin::pin!(store.commit(batch(epoch, 1, 0, 1))));
    drop(store);
    let store = open(&folder);
    assert_eq!(store.head(&batch(epoch, 1, 0, 0).appends[0].stream).await.unwrap(), Seq(1));
}

#[tokio::test]
async fn the_next_epoch_is_higher_though_the_last_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut epoch) = leased(&folder).await;
    let count = || {
        store.read(|db| {
            db.query_row("SELECT count(*) FROM lease", [], |row| row.get::<_, i64>(0))
                .map_err(rolled_back)
        })
    };
    let mut open = batch(epoch, 7, 0, 1);
    open.appends[0].records =
        vec![Record::Run(RunRecord::Started { fence: stillpoint_context::FencingToken(1) })];
    store.commit(open).await.unwrap();
    for _ in 0..5 {
        store.release(OWNER, epoch).await.unwrap();
        let next = store.acquire(OWNER, Mono::ZERO, Duration::from_mins(1)).await.unwrap().epoch;
        assert!(next > epoch);
        epoch = next;
    }
    // The one that an open run speaks of, the one before the last, and the last.
    assert_eq!(count().await.unwrap(), 3);
    assert_eq!(store.open(None, 9).await.unwrap()[0].owner, OWNER);
    store.check().await.unwrap();
}
