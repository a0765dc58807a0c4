//! The catalogue of restore points and of what leads to them: policies, groups, jobs, holds, debris.
//!
//! ```
//! use stillpoint_catalog::{Catalog, MemoryCatalog, Page, PointQuery};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), stillpoint_catalog::CatalogError> {
//! let catalog = MemoryCatalog::new();
//! let newest = catalog.points(&PointQuery::all(), &Page::first(10)).await?;
//! assert!(newest.items.is_empty() && newest.next.is_none());
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  journal ──facts──► apply ──► restore points ──► point, points
//!  façade  ──────────► begin_job, put_job ───────► job, jobs
//!                     put_policy, put_group, put_hold, put_debris …
//! ```
//!
//! - [`Catalog`] is what a store implements, with [`ScheduleCatalog`]; their docs are the contract.
//! - [`MemoryCatalog`] keeps all in memory: for tests, and as the reference.
//! - [`CatalogExt`] adds sugar over any catalogue.
//! - What every catalogue has to pass is in `stillpoint-testkit`, as `conformance::catalog`.

#![forbid(unsafe_code)]

mod catalog;
mod error;
mod memory;
mod query;
mod schedules;

pub use catalog::{Begun, Catalog, CatalogExt, Cursor, Debris, DebrisKind, may_hold};
pub use error::{CatalogError, Named};
pub use memory::MemoryCatalog;
pub use query::{JobQuery, Listing, Page, PageToken, PointQuery, order_key};
pub use schedules::{
    Entry, LAPSES_KEPT, ScheduleCatalog, Settlement, Settling, Times, UNBEGUN_NAMED,
};
