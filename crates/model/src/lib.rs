//! The domain of Exchange snapshot backup in types and pure functions.
//!
//! Nothing here does I/O, waits, or asks for the time: what exists, what is wanted and what
//! happened come in as data, decisions go out as data. The same inputs give the same answer.
//!
//! ```
//! use stillpoint_model::seal::{Seal, SealWriter};
//!
//! // Bytes are sealed once, while they are copied, and checked whenever they are read again.
//! let mut writer = SealWriter::new(5);
//! writer.update(b"mail!");
//! let seal: Seal = writer.finish();
//!
//! let mut check = seal.check();
//! check.update(b"mail?").unwrap_err(); // names the first bad block
//! ```
//!
//! ```text
//!  what exists            what is wanted            what happened
//!  inventory ──────┐      policy, group ─┐          evidence ─┐
//!  availability    ├──►   request ───────┼──► plan  verdict   ├──► restore point, manifest
//!  placement ──────┘      capability ────┘          seal ─────┘        topology, log chain
//! ```

#![forbid(unsafe_code)]

pub mod availability;
pub mod capability;
pub mod evidence;
pub mod handover;
pub mod id;
pub mod inventory;
pub mod kind;
pub mod placement;
pub mod quiesce;
pub mod seal;
pub mod verdict;

mod hex;
mod millis;
