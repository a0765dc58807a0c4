//! Suites that every store has to pass, one for each trait that a store implements; and one each for snapshot
//! [providers](provider) and Exchange [plug-ins](plugin).
//!
//! A suite is a list of [`Case`]s. Each is named as a rule, quotes the sentence of the contract that it holds an
//! implementation to, and gets one of its own from a factory, which can also close it and open it again, as after a crash:
//! a store from a [`StoreFactory`], a provider from a [`ProviderFactory`](provider::ProviderFactory), a plug-in from a
//! [`PluginFactory`](plugin::PluginFactory).
//!
//! ```
//! use std::sync::Arc;
//! use stillpoint_testkit::conformance::{self, InMemory, Store};
//! use stillpoint_workflow::MemoryJournal;
//!
//! let stores = InMemory::new(|| {
//!     let journal = Arc::new(MemoryJournal::new());
//!     Store::new().with_journal(Arc::clone(&journal) as _).with_leases(journal)
//! });
//! # stillpoint_workflow::testing::Sim::new(1).run(async {
//! // In a test of yours, on whatever runtime you use:
//! conformance::journal::run_all(&stores).await.assert_passed();
//! conformance::leases::run_all(&stores).await.assert_passed();
//! # });
//! ```
//!
//! ```text
//!   StoreFactory ── place ──▶ Place ── open ──▶ Store: journal · leases · catalogue
//!                               ▲                 │ every handle is dropped
//!                               └──── reopen ─────┘
//!   cases ── run ──▶ Verdict: passed · failed, and how · skipped, and by which declaration ──▶ Report
//! ```
//!
//! A case for a store needs nothing of the runtime: what it does at the same time it does in the caller's task, or in tasks of
//! [`StoreFactory::spawner`], where a store that is used from several threads should be tried. It sleeps never and reads
//! no clock; instants are values of its own.
//!
//! Cases may be added in any version: a store that keeps the contract passes them all.

pub mod catalog;
mod frame;
pub mod journal;
pub mod leases;
pub mod plugin;
pub mod provider;
mod store;
mod subject;

pub use frame::{Case, Flaw, Kit, Outcome, Report, Tally, Verdict};
pub use store::{BoxError, InMemory, Place, Store, StoreFactory};
pub use subject::{Stores, Subject};
