//! The engine under its own tests, in one program, as each program is built and linked by itself.
//!
//! ```text
//!   plans.rs      what a plan may be         barrier.rs    guards with several members
//!   forward.rs    order, data, retries       claims.rs     who waits for whom
//!   backward.rs   cancel, undo, parking      bounds.rs     pools, queues, drain and suspend
//!   guards.rs     the exit, whatever happens recovery.rs   what a process left open
//!   threads.rs    the same in real time      takeover.rs   two that find the same run
//!   operator.rs   parked runs, holders       processes.rs  several on one store
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod backward;
mod barrier;
mod bounds;
mod claims;
#[path = "../common/mod.rs"]
mod common;
mod forward;
mod guards;
mod operator;
mod plans;
mod processes;
mod recovery;
mod takeover;
mod threads;
