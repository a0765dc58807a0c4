//! The suites of the testkit, on a state file.

// A test may stop where it stands.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::Spawner;
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_testkit::conformance::{self, BoxError, Place, Store, StoreFactory};
use stillpoint_workflow::{Journal, Leases, TokioSeams};

/// State files in folders of their own, used from the threads of a runtime.
struct StateFiles(Arc<dyn Spawner>);

impl StateFiles {
    fn new() -> Self {
        Self(TokioSeams::current().unwrap().spawner)
    }
}

#[async_trait]
impl StoreFactory for StateFiles {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Folder(tempfile::tempdir()?)))
    }
    fn catalog_looks_at_leases(&self) -> bool {
        true
    }
    fn spawner(&self) -> Option<Arc<dyn Spawner>> {
        Some(Arc::clone(&self.0))
    }
}

struct Folder(tempfile::TempDir);

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Result<Store, BoxError> {
        let path: &Path = self.0.path();
        let store = SqliteStore::open(path.join("stillpoint.db"))?;
        // Whatever the case before has done, the file is sound.
        store.check().await?;
        let store = Arc::new(store);
        let journal: Arc<dyn Journal> = Arc::clone(&store) as _;
        let leases: Arc<dyn Leases> = Arc::clone(&store) as _;
        Ok(Store::new().with_journal(journal).with_leases(leases).with_catalog(store))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_a_catalogue() {
    conformance::catalog::run_all(&StateFiles::new()).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_a_journal() {
    conformance::journal::run_all(&StateFiles::new()).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_leases() {
    conformance::leases::run_all(&StateFiles::new()).await.assert_passed();
}
