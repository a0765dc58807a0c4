//! Damage to files of the Extensible Storage Engine, from a seed, with a word on what was done.
//!
//! A checker is right when what it found is what was done, no less and no more. So every call gives
//! back a [`Done`], which can tell a finding that it explains from one that it does not.
//!
//! ```
//! use stillpoint_ese::{ScanOptions, scan_database, write::DatabaseSpec};
//! use stillpoint_testkit::ese::DatabaseDamager;
//!
//! let mut file = Vec::new();
//! DatabaseSpec::new(1).with_pages(40).write_to(&mut file)?;
//! let mut damager = DatabaseDamager::new(7, &mut file).ok_or("it is no database")?;
//! let done = [damager.any(), damager.any(), damager.any()].into_iter().flatten().collect::<Vec<_>>();
//!
//! let report = scan_database(&file, &ScanOptions::default(), &mut ())?;
//! assert!(report.findings.iter().all(|found| done.iter().any(|done| done.explains(found))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod database;
mod done;
mod stream;

pub use database::DatabaseDamager;
pub use done::Done;
pub use stream::StreamDamager;
