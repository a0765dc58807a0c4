//! The embedded state store of Stillpoint: journal, process leases and catalogue in one SQLite file.
//!
//! ```
//! use stillpoint_catalog::{Catalog, Page, PointQuery};
//! use stillpoint_context::OsClock;
//! use stillpoint_store_sqlite::SqliteStore;
//! use stillpoint_workflow::{Journal, Leases};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = SqliteStore::open(folder.path().join("stillpoint.db"))?;
//! assert!(store.points(&PointQuery::all(), &Page::first(10)).await?.items.is_empty());
//! assert!(store.is_durable() && store.is_shared());
//!
//! // Other stores may have the file open, in this process and in others.
//! let second = SqliteStore::open(folder.path().join("stillpoint.db"))?;
//! # let process = stillpoint_context::ProcessId(uuid::Uuid::from_u128(1));
//! let lease = store.acquire(process, OsClock.boot(), std::time::Duration::from_mins(1)).await?;
//! assert_eq!(second.leases().await?, [lease]);
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!              Journal · Leases · Catalog
//!   commits, changes ──queue──▶ writer: what waits together ──┐
//!          ▲                     is one transaction, one sync │    stillpoint.db      (WAL, synchronous=FULL)
//!          ├──────answers────────────────────────────────────┼──▶ stillpoint.db.lock  shared, against old versions
//!          ▼                                                  │    stillpoint.db.alive/ a locked file for each lease
//!   reads ────────────queue──▶ reader: never waits for one ───┘
//! ```
//!
//! - **Durable**: what is written has been synced when the call returns. Calls that wait together share a commit; each of
//!   them takes effect whole or not at all.
//! - **Shared**: any number of processes of one host may have the file open. A commit is checked against the lease of its
//!   owner and the heads of its streams inside its own transaction, so it is refused from the moment on at which another
//!   process has fenced its owner off. A process that dies is known to be dead at once, by the lock that it held; one that
//!   is paused has to outstay its lease. A process that is paused in the middle of a commit keeps SQLite's lock: the
//!   others then get [`JournalError::Busy`](stillpoint_workflow::JournalError::Busy) until it goes on or dies.
//! - **One story**: facts of the topic `restore-point` are taken into the catalogue in the commit that states them. One
//!   that does not fit fails no commit: the catalogue's cursor stays before it.
//! - **Versioned**: the file's format is its `user_version`. Format 1, the catalogue alone, and format 2, without schedules, are
//!   brought up when they are opened; a newer one is refused, and what is not ours is not touched. A version of format 1 has the file to itself, and
//!   neither opens it while the other has it open.
//!
//! The file must not be on a network file system: SQLite's log needs memory that all its users share.

#![forbid(unsafe_code)]

mod alive;
mod backup;
mod catalog;
mod check;
mod error;
mod file;
mod journal;
mod key;
mod lease;
mod log;
mod pen;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod worker;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use stillpoint_catalog::CatalogError;
use stillpoint_workflow::Lease;

use error::Refusal;

pub use error::OpenError;
pub use schema::{APPLICATION_ID, FORMAT};

/// A state file that is open. Clones share it; it is released when the last one is dropped, after
/// every call that was made has been carried out.
#[derive(Clone, Debug)]
pub struct SqliteStore(Arc<Open>);

/// In the order in which it is let go: the reader, then the writer with what waits, then what tells that we live.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    reader: worker::Worker<reader::Read>,
    writer: worker::Worker<Box<dyn writer::Work>>,
    alive: alive::Alive,
}

impl SqliteStore {
    /// Opens the state file at `path`, or makes it. Others may have it open, too. Blocks while it does.
    ///
    /// # Errors
    /// [`OpenError`] by kind: in use by a version that shares with nobody, a folder, read only, no
    /// folder to be in, no database, somebody else's database, a newer format, damaged. What was
    /// there is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), file::Use::Shared)
    }

    /// Opens the state file at `path`, or makes it, and keeps everybody else from opening it: for those who keep runs
    /// apart by being the only ones. Blocks while it does.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] if anybody has it open.
    pub fn open_alone(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), file::Use::Alone)
    }

    /// Opens the state file at `path`, or makes it: alone if nobody has it open, else as one of those who share it. Two that
    /// are opened so never have it both, unless somebody shares it with them. Blocks while it does.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] if somebody has it alone.
    pub fn open_first(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref(), file::Use::First)
    }

    fn open_as(path: &Path, wanted: file::Use) -> Result<Self, OpenError> {
        let file::Opened { path, writer, reader, lock } = file::open(path, wanted)?;
        let alive = alive::Alive::new(&path);
        // Reading them here costs nothing; a failure is met again by whoever needs them.
        if let Ok(held) = lease::all(&writer) {
            let name = |lease: &Lease| (lease.process, lease.epoch);
            alive.folder().sweep(&held.iter().map(name).collect::<Vec<_>>());
        }
        let io = |source| OpenError::Io { path: path.clone(), source };
        let reader = worker::Worker::start("stillpoint-read", |queue| reader::serve(reader, queue))
            .map_err(io)?;
        let writer =
            worker::Worker::start("stillpoint-state", |queue| writer::serve(writer, lock, queue))
                .map_err(io)?;
        tracing::debug!(path = %path.display(), "state file open");
        Ok(Self(Arc::new(Open { path, reader, writer, alive })))
    }

    /// The file, by its canonical path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the whole file and checks that it is sound: its pages, and that the journal has no holes, ends where it
    /// should, and holds records.
    ///
    /// # Errors
    /// `state.corrupt` with what was found.
    ///
    /// # Complexity
    /// O(size of the file); other reads wait.
    pub async fn check(&self) -> Result<(), CatalogError> {
        self.read(check::everything).await
    }

    async fn read<T: Send + 'static, E: Refusal>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (read, answer) = reader::read(call);
        self.0.reader.ask(read, answer).await
    }

    async fn write<T: Send + 'static, E: Refusal>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (write, answer) = writer::write(call);
        self.0.writer.ask(write, answer).await
    }
}
