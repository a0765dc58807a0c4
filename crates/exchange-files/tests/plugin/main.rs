//! The plug-in over folders of our own making: what is found, what a session sees, what verification finds.

// Links, pipes, permissions and odd names are those of Unix.
#![cfg(unix)]
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod discovery;
mod genuine;
mod lab;
mod restore;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod verification;
