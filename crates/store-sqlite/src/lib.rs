//! The embedded state store of Stillpoint: one SQLite file.
//!
//! ```
//! use stillpoint_catalog::{Catalog, Page, PointQuery};
//! use stillpoint_store_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = SqliteStore::open(folder.path().join("stillpoint.db"))?;
//! assert!(store.points(&PointQuery::all(), &Page::first(10)).await?.items.is_empty());
//!
//! // One process at a time.
//! let second = SqliteStore::open(folder.path().join("stillpoint.db"));
//! assert!(second.unwrap_err().to_string().contains("in use"));
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  calls (any task) ──queue──► one thread, one connection ──► stillpoint.db  (WAL, synchronous=FULL)
//!        ▲                       what waits together            stillpoint.db.lock  (held while open)
//!        └──────answers───────── is one commit
//! ```
//!
//! What is written is durable when the call returns: SQLite has synced it. Calls that wait together
//! share a commit; each of them still takes effect whole or not at all.
//!
//! The file's format is its `user_version`; a file of a newer format is refused, and what is not
//! ours is not touched.

#![forbid(unsafe_code)]

mod catalog;
mod error;
mod schema;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use stillpoint_catalog::CatalogError;

pub use error::OpenError;
pub use schema::{APPLICATION_ID, FORMAT};

/// A state file that is open. Clones share it; it is released when the last one is dropped, after
/// every call that was made has been carried out.
#[derive(Clone, Debug)]
pub struct SqliteStore(Arc<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    worker: worker::Worker,
}

impl SqliteStore {
    /// Opens the state file at `path`, or makes it. Blocks while it does.
    ///
    /// # Errors
    /// [`OpenError`] by kind: in use, a folder, read only, no folder to be in, no database,
    /// somebody else's database, a newer format, damaged. What was there is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let schema::Opened { path, connection, lock } = schema::open(path.as_ref())?;
        let worker = worker::Worker::start(connection, lock)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        tracing::debug!(path = %path.display(), "state file open");
        Ok(Self(Arc::new(Open { path, worker })))
    }

    /// The file, by its canonical path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the whole file and checks that it is sound.
    ///
    /// # Errors
    /// `state.corrupt` with what SQLite found.
    ///
    /// # Complexity
    /// O(size of the file); other calls wait.
    pub async fn check(&self) -> Result<(), CatalogError> {
        self.read(schema::check).await
    }

    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.0.worker.call(worker::Access::Read, call).await
    }

    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.0.worker.call(worker::Access::Write, call).await
    }
}
