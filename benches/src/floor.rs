//! The floor of all that is durable: bare SQLite on the same disk.

use std::path::Path;

use rusqlite::Connection;

/// One row into one table, durably. The blob is as long as one small append is when stored.
#[derive(Debug)]
pub struct Bare(Connection);

impl Bare {
    /// A file of its own in the folder.
    pub fn open(folder: &Path) -> Self {
        let db = Connection::open(folder.join("bare.db")).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "synchronous", "FULL").unwrap();
        db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)").unwrap();
        Self(db)
    }

    /// One row in one commit.
    pub fn commit(&self) {
        let mut insert = self.0.prepare_cached("INSERT INTO t (x) VALUES (zeroblob(100))").unwrap();
        insert.execute([]).unwrap();
    }

    /// As many rows in one commit.
    pub fn commit_many(&self, rows: u64) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..rows {
            self.commit();
        }
        self.0.execute_batch("COMMIT").unwrap();
    }
}
