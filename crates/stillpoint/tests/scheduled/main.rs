//! What runs by itself: schedules of a simulated Exchange in virtual time, each test named after its scenario.

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod detached;
mod doors;
mod history;
mod outside;
mod owners;
mod processes;
mod queue;
mod reconciles;
mod restarts;
mod time;
