//! The floor of all that is durable: bare SQLite on the same disk.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use rusqlite::Connection;
use tokio::sync::oneshot;

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

/// The same on a thread of its own that tasks ask, as they must: a commit blocks.
#[derive(Debug)]
pub struct Asked(Sender<oneshot::Sender<()>>);

impl Asked {
    /// A file of its own in the folder. The thread ends with this.
    pub fn open(folder: &Path) -> Self {
        let bare = Bare::open(folder);
        let (asks, queue) = channel::<oneshot::Sender<()>>();
        std::thread::spawn(move || {
            while let Ok(answer) = queue.recv() {
                bare.commit();
                answer.send(()).unwrap();
            }
        });
        Self(asks)
    }

    /// One row in one commit.
    pub async fn commit(&self) {
        let (answer, committed) = oneshot::channel();
        self.0.send(answer).unwrap();
        committed.await.unwrap();
    }

    /// So many times: as many bare tasks as wide, and when they have ended a commit.
    pub async fn commit_layers(&self, layers: usize, wide: usize) {
        for _ in 0..layers {
            let tasks: Vec<_> = (0..wide).map(|_| tokio::spawn(std::future::ready(()))).collect();
            for task in tasks {
                task.await.unwrap();
            }
            self.commit().await;
        }
    }
}
