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
//!
//! - What exists: [`inventory`], [`availability`] with every reason, [`placement`], and what plug-in,
//!   providers and volumes can do ([`capability`]).
//! - What is wanted: [`policy`] (versioned) with its [`hook`]s, [`group`], [`schedule`], [`request`]; what they amount to
//!   together, and what is wrong with it ([`strategy`]).
//! - What will be done: [`planning`] for backups, [`restore`] for restores. Plans are data: the dry
//!   run prints them, the engine carries them out.
//! - What passes between plug-in and provider: [`handover`].
//! - What happened: [`quiesce`] and [`evidence`] of the freeze, [`verdict`]s of the verification,
//!   [`seal`]s of the bytes.
//! - What is kept, and for how long ([`retention`], [`hold`]): [`point`] and the facts that change it, [`manifest`] and [`standing`] beside
//!   the data, [`reconcile`] of catalogue and storage, [`chain`]s of logs, the recovery [`window`] that they give, [`topology`] over all,
//!   and [`job`]s with their rolled-up states.

#![forbid(unsafe_code)]

pub mod availability;
pub mod capability;
pub mod chain;
pub mod evidence;
pub mod fork;
pub mod group;
pub mod handover;
pub mod hold;
pub mod hook;
pub mod id;
pub mod inventory;
pub mod job;
pub mod kind;
pub mod manifest;
pub mod placement;
pub mod planning;
pub mod point;
pub mod policy;
pub mod quiesce;
pub mod reconcile;
pub mod request;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod seal;
pub mod standing;
pub mod strategy;
pub mod topology;
pub mod verdict;
pub mod warning;
pub mod window;

mod hex;
mod millis;
#[cfg(test)]
#[path = "../tests/world/seed.rs"]
#[allow(unreachable_pub)]
mod seed;
