//! The command, run as an operator runs it, in one program: most of it waits for others, and so waits for them at once.
//!
//! ```text
//!   protect.rs    the two ways of it           operator.rs   parked runs, locks, debris
//!   commands.rs   the commands one by one      daemon.rs     schedules and the process that keeps them
//!   doors.rs      wrong input                  hooks.rs      hooks of policies
//!   damage.rs     a stored copy that rots      notify.rs     who is told
//!   check.rs      the kits on one's own folder reconcile.rs  the catalogue against the store
//!   ese.rs        files looked at              silence.rs    what is written while frozen
//!   holds.rs      what is kept whatever comes  btrfs.rs      copies that are snapshots
//!   policies.rs   what policies can be told
//! ```

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod btrfs;
mod check;
mod commands;
mod daemon;
mod damage;
mod doors;
mod ese;
mod holds;
mod hooks;
mod notify;
mod operator;
mod policies;
mod protect;
mod reconcile;
mod silence;
#[path = "../support/mod.rs"]
mod support;
