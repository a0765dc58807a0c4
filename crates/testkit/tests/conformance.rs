//! The suites, on the stores in memory and on one over redb.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic)]

mod redb_store;

use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_catalog::MemoryCatalog;
use stillpoint_context::Spawner;
use stillpoint_testkit::conformance::{
    self, BoxError, InMemory, Place, Report, Store, StoreFactory,
};
use stillpoint_workflow::testing::Sim;
use stillpoint_workflow::{MemoryJournal, TokioSeams};

fn in_memory() -> Store {
    let journal = Arc::new(MemoryJournal::new());
    Store::new()
        .with_journal(Arc::clone(&journal) as _)
        .with_leases(journal)
        .with_catalog(Arc::new(MemoryCatalog::new()))
}

async fn every_suite(stores: &dyn StoreFactory) -> [Report; 3] {
    [
        conformance::journal::run_all(stores).await,
        conformance::leases::run_all(stores).await,
        conformance::catalog::run_all(stores).await,
    ]
}

#[test]
fn the_stores_in_memory_conform_and_say_what_was_skipped() {
    let [journal, leases, catalog] = Sim::new(1).run(every_suite(&InMemory::new(in_memory)));
    for report in [&journal, &leases, &catalog] {
        report.assert_passed();
    }
    assert_eq!(
        journal.skipped(),
        ["a_shared_journal_refuses_epoch_0", "everything_is_there_after_opening_again"]
    );
    assert_eq!(leases.skipped(), ["leases_are_there_after_opening_again"]);
    assert_eq!(catalog.skipped(), ["everything_is_there_after_opening_again"]);
    let text = catalog.to_string();
    for line in [
        "passed   queries_choose\n",
        "skipped  everything_is_there_after_opening_again: the store cannot be opened again\n",
        "17 passed, 0 failed, 1 skipped",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// Stores in memory whose users run on several threads.
struct Threads(Arc<dyn Spawner>);

#[async_trait]
impl StoreFactory for Threads {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        InMemory::new(in_memory).place().await
    }
    fn reopens(&self) -> bool {
        false
    }
    fn spawner(&self) -> Option<Arc<dyn Spawner>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_stores_in_memory_conform_on_threads() {
    let stores = Threads(TokioSeams::current().unwrap().spawner);
    for report in every_suite(&stores).await {
        report.assert_passed();
    }
}

/// Stores over redb, used from several threads if there is a spawner.
#[derive(Default)]
struct RedbStores(Option<Arc<dyn Spawner>>);

#[async_trait]
impl StoreFactory for RedbStores {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(redb_store::Folder::new()?))
    }
    fn spawner(&self) -> Option<Arc<dyn Spawner>> {
        self.0.clone()
    }
}

#[test]
fn the_store_over_redb_conforms() {
    let [journal, leases, catalog] = Sim::new(1).run(every_suite(&RedbStores::default()));
    for report in [&journal, &leases, &catalog] {
        report.assert_passed();
    }
    // It is a private one; all the rest applies.
    assert_eq!(journal.skipped(), ["a_shared_journal_refuses_epoch_0"]);
    assert_eq!((leases.skipped(), catalog.skipped()), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_over_redb_conforms_on_threads() {
    let stores = RedbStores(Some(TokioSeams::current().unwrap().spawner));
    for report in every_suite(&stores).await {
        report.assert_passed();
    }
}
