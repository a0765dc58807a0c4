//! The kit under its own tests, in one program, as each program is built and linked by itself.
//!
//! ```text
//!   exchange.rs    the simulated plug-in          conformance.rs  the suites for stores
//!   storage.rs     the simulated provider         plugin.rs       the suite for plug-ins
//!   lock.rs        holds and locks                provider.rs     the suite for providers
//!   backup.rs      whole backups by hand          strategies.rs   what is drawn
//!   faults.rs      what may go wrong              planning.rs     plans of what is drawn
//!   wrap.rs        recorders, faults around       forward.rs      what stands around forwards all
//!   ese.rs         damage done to files
//! ```
//!
//! That the suites catch what is broken is tried in `broken_stores` and `broken_kits`.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod ese;
mod exchange;
mod faults;
mod forward;
mod lock;
mod planning;
mod plugin;
mod provider;
#[path = "../redb_store/mod.rs"]
mod redb_store;
mod storage;
mod strategies;
mod wrap;
