//! Acceptance scenarios, named after their numbers and titles in `docs/scenarios.md`: on a simulated Exchange, in virtual time.

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(unreachable_pub, reason = "shared by the modules of the test")]

#[path = "../common/mod.rs"]
mod common;
mod control;
mod hooks;
mod logs;
mod reconcile;
mod retention;
mod site;
mod strategy;
mod told;
mod workflow;
