//! The tables of each format, and the way from one to the next.

use rusqlite::Connection;

/// What marks a file as ours: SQLite's `application_id`, "Stil".
pub const APPLICATION_ID: i64 = 0x5374_696c;

/// The format that this version writes, and the newest that it reads: SQLite's `user_version`.
pub const FORMAT: i64 = 5;

/// What format 1 has: the catalogue. Instants are microseconds since 1970, ids are 16 bytes, bodies are JSON in the
/// stored form of the model; the other columns repeat what listings choose and order by.
const CATALOG: &str = "
CREATE TABLE point (
  id BLOB NOT NULL PRIMARY KEY,
  taken_at INTEGER NOT NULL,
  database BLOB NOT NULL,
  resource_group BLOB,
  policy BLOB,
  job BLOB NOT NULL,
  run BLOB NOT NULL,
  set_token TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX point_by_time ON point (taken_at DESC, id);
CREATE INDEX point_by_database ON point (database, taken_at DESC, id);
CREATE INDEX point_by_job ON point (job);
CREATE INDEX point_by_set ON point (set_token);
CREATE TABLE removed_point (id BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE job (
  id BLOB NOT NULL PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  resource_group BLOB,
  ended INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX job_by_time ON job (created_at DESC, id);
CREATE INDEX job_open ON job (created_at DESC, id) WHERE ended = 0;
CREATE TABLE policy (
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE resource_group (id BLOB NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE debris (
  key TEXT NOT NULL PRIMARY KEY,
  since INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (topic TEXT NOT NULL PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// What format 2 adds: journal and leases. Instants and terms are nanoseconds.
///
/// - `stream`: a row for each; `id` is a byte for its kind (0 arbiter, 1 run, 2 key) and 16 bytes of id, so that it
///   sorts as `StreamId` does; `epoch` is that of its last commit; `open` is 1 while a run has not ended.
/// - `append`: a row for each append, in the order of commits, so that what many runs write at once lies on few pages;
///   `seq` and `count` are the place and number of its records, `records` is their stored form. A commit that appends
///   nothing leaves a row of stream 0, so that positions can be read off the end of this table.
/// - `fact`: `n` is the place in its commit.
/// - `lease`: held while `until` is there. An ended one stays as long as an open run's last commit is of its epoch, and
///   the newest stays always, so that epochs rise. `marked` is 1 if a file tells whether its process lives.
const JOURNAL: &str = "
CREATE TABLE stream (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  head INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  open INTEGER NOT NULL
) STRICT;
CREATE INDEX stream_open ON stream (id) WHERE open = 1;
CREATE TABLE append (
  place INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  mono INTEGER NOT NULL,
  civil INTEGER NOT NULL,
  records BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX append_by_stream ON append (stream, seq);
CREATE TABLE fact (
  topic TEXT NOT NULL,
  position INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run BLOB NOT NULL,
  key TEXT NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (topic, position, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE lease (
  epoch INTEGER PRIMARY KEY,
  process BLOB NOT NULL,
  until INTEGER,
  term INTEGER NOT NULL,
  marked INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX lease_held ON lease (process) WHERE until IS NOT NULL;
";

/// What format 3 adds: holds. In a file of format 3 a point may be `expiring` or `logs_only`, which readers of older ones do
/// not know.
const HOLDS: &str = "
CREATE TABLE hold (name TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// What format 3 adds: schedules, and what became of their due times.
///
/// - `schedule`: as `policy`; `name` is that of the version, in lower case.
/// - `ledger`: a row for each attachment, by its text; `unbegun` is 1 while a due time of it has no job yet.
/// - `lapse`: `n` is counted over all attachments. It stays when its ledger goes.
/// - `counter`: numbers by name: `revision` of what schedulers read, `entry` and `lapse` as they were last given,
///   `believed`, and `clock`, the latest instant that a scheduler has seen.
const SCHEDULES: &str = "
CREATE TABLE schedule (
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_by_name ON schedule (name);
CREATE TABLE ledger (
  attachment TEXT NOT NULL PRIMARY KEY,
  revision INTEGER NOT NULL,
  considered INTEGER NOT NULL,
  unbegun INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_unbegun ON ledger (attachment) WHERE unbegun = 1;
CREATE TABLE lapse (
  attachment TEXT NOT NULL,
  n INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (attachment, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX lapse_by_number ON lapse (n);
CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// What format 4 adds: where chains of logs forked. In a file of format 4 a point may be of another branch than the first,
/// which readers of older ones would put together with it.
const FORKS: &str = "
CREATE TABLE fork (
  run BLOB NOT NULL PRIMARY KEY,
  database BLOB NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX fork_by_database ON fork (database, at, run);
";

/// What format 5 adds: what of a stream was forgotten. `first` is the place of the first record that is left of the arbiter's, and 0
/// for every other one. Readers of older formats would take its absence for damage.
const FORGETTING: &str = "
ALTER TABLE stream ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
CREATE INDEX fact_by_run ON fact (run);
";

/// Brings a file from the format that it has to this version's: an empty one has 0.
///
/// One transaction, so that a crash leaves the old or the new.
pub(crate) fn bring_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = steps(connection).and_then(|()| connection.execute_batch("COMMIT"));
    if done.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    done
}

fn steps(connection: &Connection) -> rusqlite::Result<()> {
    // Asked inside the transaction: another process may just have done it.
    let format = number(connection, "user_version")?;
    if format < 1 {
        connection.execute_batch(CATALOG)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    if format < 2 {
        connection.execute_batch(JOURNAL)?;
        // It counted in a journal elsewhere. This file's begins at 0; facts that are told again change nothing.
        connection.execute_batch("DELETE FROM cursor")?;
    }
    if format < 3 {
        connection.execute_batch(HOLDS)?;
        connection.execute_batch(SCHEDULES)?;
    }
    if format < 4 {
        connection.execute_batch(FORKS)?;
    }
    if format < 5 {
        connection.execute_batch(FORGETTING)?;
    }
    if format < FORMAT {
        connection.pragma_update(None, "user_version", FORMAT)?;
    }
    Ok(())
}

/// A number in the file's header.
pub(crate) fn number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
