//! The suites, on the stores in memory and on one over redb.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_catalog::MemoryCatalog;
use stillpoint_context::Spawner;
use stillpoint_testkit::conformance::{
    self, BoxError, InMemory, Outcome, Place, Report, Store, StoreFactory,
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
        [
            "a_shared_journal_refuses_epoch_0",
            "positions_rise_over_what_is_forgotten",
            "what_is_left_of_the_arbiter_keeps_its_place",
            "everything_is_there_after_opening_again"
        ]
    );
    assert_eq!(leases.skipped(), ["leases_are_there_after_opening_again"]);
    assert_eq!(
        catalog.skipped(),
        [
            "who_was_taken_over_stores_no_job",
            "everything_is_there_after_opening_again",
            "schedules_are_there_after_opening_again"
        ]
    );
    let text = catalog.to_string();
    for line in [
        "passed   queries_choose\n",
        "skipped  everything_is_there_after_opening_again: the store cannot be opened again\n",
        "38 passed, 0 failed, 3 skipped",
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
        Ok(Box::new(super::redb_store::Folder::new()?))
    }
    fn catalog_looks_at_leases(&self) -> bool {
        true
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

/// What came of the first case of the journal's suite.
fn first(stores: &dyn StoreFactory) -> Outcome {
    let case = &conformance::journal::cases()[0];
    Sim::new(1).run(case.run(stores)).outcome
}

/// Places that nobody can open.
struct Locked;

#[async_trait]
impl StoreFactory for Locked {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl Place for Locked {
    async fn open(&self) -> Result<Store, BoxError> {
        Err("somebody has it".into())
    }
}

#[test]
fn a_store_that_cannot_be_tried_has_failed() {
    // A suite for what a store does not implement is no suite that it passes.
    let nothing = InMemory::new(Store::new);
    assert_eq!(first(&nothing), Outcome::Failed("the store has no journal".into()));
    let [_, leases, catalog] = Sim::new(1).run(every_suite(&nothing));
    assert!(leases.passed().is_empty() && catalog.passed().is_empty(), "{leases}\n{catalog}");
    let panics = InMemory::new(|| panic!("no luck"));
    assert_eq!(first(&panics), Outcome::Failed("the store panicked: no luck".into()));
    let failed = Outcome::Failed("the store cannot be opened: somebody has it".into());
    assert_eq!(first(&Locked), failed);
}

#[test]
#[should_panic(expected = "flaw: the store has no catalogue")]
fn a_report_with_a_flaw_stops_the_test() {
    let stores = InMemory::new(Store::new);
    Sim::new(1).run(conformance::catalog::run_all(&stores)).assert_passed();
}

#[test]
#[should_panic(expected = "0 passed, 0 failed")]
fn a_report_of_nothing_stops_the_test() {
    Report { verdicts: Vec::new() }.assert_passed();
}

#[test]
fn cases_have_names_and_rules_of_their_own() {
    for cases in
        [conformance::journal::cases(), conformance::leases::cases(), conformance::catalog::cases()]
    {
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| case.rule.ends_with('.') && case.rule.len() > 20));
    }
}
