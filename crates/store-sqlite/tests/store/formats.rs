//! The stored form: what it is, and that what older versions stored is brought up.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

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

const GOLDEN_1: &str = include_str!("../golden/state-1.sql");
const GOLDEN_2: &str = include_str!("../golden/state-2.sql");
const GOLDEN_3: &str = include_str!("../golden/state-3.sql");
const GOLDEN_4: &str = include_str!("../golden/state-4.sql");
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

/// A file that this made, and the store over it.
fn opened(stored: &str) -> (TempDir, PathBuf, SqliteStore) {
    let (folder, path) = folder();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(stored).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    (folder, path, store)
}

/// A file of this version with something of everything but schedules.
async fn filled() -> (TempDir, PathBuf, SqliteStore) {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    fill(&store).await;
    (folder, path, store)
}

/// That runs, and who has them, are the same in both.
async fn assert_same_runs(store: &SqliteStore, fresh: &SqliteStore) {
    for stream in [StreamId::Arbiter, StreamId::Run(run(1)), StreamId::Run(run(2))] {
        let read = async |store: &SqliteStore| {
            Journal::read(store, &stream, stillpoint_workflow::Seq(0), 9).await.unwrap()
        };
        assert_eq!(read(store).await, read(fresh).await);
        assert!(!read(store).await.is_empty());
    }
    assert_eq!(store.open(None, 9).await.unwrap(), fresh.open(None, 9).await.unwrap());
    assert_eq!(store.leases().await.unwrap(), fresh.leases().await.unwrap());
}

/// That a file that was brought up has the tables of a new one, and that nothing changes if it is opened again.
fn assert_same_tables(brought: &Path, fresh: &Path) {
    let (before, fresh) = (dump(brought), dump(fresh));
    assert_eq!(schema(&before), schema(&fresh));
    assert!(schema(&fresh).len() > 60);
    drop(SqliteStore::open(brought).unwrap());
    assert_eq!(dump(brought), before);
}

#[tokio::test]
async fn a_file_of_format_1_is_brought_up() {
    let (_folder, path, store) = opened(GOLDEN_1);
    let (_fresh, other, fresh) = filled().await;
    // The cursor counted in another journal than the one that is here now.
    assert_eq!(store.cursor().await.unwrap(), None);
    store.apply(&[], Some(Cursor(u64::MAX))).await.unwrap();
    add_what_is_new(&store).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert!(store.open(None, 9).await.unwrap().is_empty());
    store.check().await.unwrap();
    drop((store, fresh));
    assert_same_tables(&path, &other);
}

#[tokio::test]
async fn a_file_of_format_2_is_brought_up() {
    let (_folder, path, store) = opened(GOLDEN_2);
    let (_fresh, other, fresh) = filled().await;
    add_what_is_new(&store).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_same_runs(&store, &fresh).await;
    assert!(store.schedules().await.unwrap().is_empty());
    // And what is new can be stored.
    fill_schedules(&store).await;
    let (ledgers, times) = (store.ledgers().await.unwrap(), store.times().await.unwrap());
    assert_eq!((ledgers.len(), times.unbegun.len()), (1, 1));
    store.check().await.unwrap();
    drop((store, fresh));
    assert_same_tables(&path, &other);
}

#[tokio::test]
async fn a_file_of_format_3_is_brought_up() {
    let (_folder, path, store) = opened(GOLDEN_3);
    assert!(store.forks(fork().database).await.unwrap().is_empty());
    store.put_fork(&fork()).await.unwrap();
    let (_fresh, other, fresh) = filled().await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_eq!(everything_of_schedules(&store).await, everything_of_schedules(&fresh).await);
    assert_same_runs(&store, &fresh).await;
    store.check().await.unwrap();
    drop((store, fresh));
    assert_same_tables(&path, &other);
}

#[tokio::test]
async fn a_file_of_format_4_is_brought_up() {
    let (_folder, path, store) = opened(GOLDEN_4);
    let (_fresh, other, fresh) = filled().await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_eq!(everything_of_schedules(&store).await, everything_of_schedules(&fresh).await);
    assert_same_runs(&store, &fresh).await;
    store.check().await.unwrap();
    drop((store, fresh));
    assert_same_tables(&path, &other);
    assert_eq!(dump(&path), dump(&other));
}

#[tokio::test]
async fn a_file_of_format_5_can_be_read() {
    let (_folder, path, store) = opened(&std::fs::read_to_string(GOLDEN).unwrap());
    let (_fresh, other, fresh) = filled().await;
    fill_schedules(&fresh).await;
    assert_eq!(everything(&store).await, everything(&fresh).await);
    assert_eq!(everything_of_schedules(&store).await, everything_of_schedules(&fresh).await);
    assert_same_runs(&store, &fresh).await;
    store.check().await.unwrap();
    drop((store, fresh));
    assert_same_tables(&path, &other);
}
