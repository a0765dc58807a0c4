//! The façade over simulated and made-up surroundings, in one program, as each program is built and linked by itself.
//!
//! ```text
//!   simulated.rs      the whole workflow           hooks.rs           hooks around a backup
//!   guarantees.rs     what a backup promises       hook_programs.rs   hooks that are real programs
//!   jobs.rs           what is told of a job        notifications.rs   who is told what
//!   exclusion.rs      never two at one database    operator.rs        parked runs and debris
//!   restores.rs       restores                     operator_sqlite.rs the same after a restart
//!   carriers.rs       runs that stand still or are carried elsewhere
//! ```
//!
//! What explores a space has a program of its own: `fault_matrix`, `recovery`, `scenarios`, `scheduled`, `prune`.

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod carriers;
#[path = "../common/mod.rs"]
mod common;
mod exclusion;
mod guarantees;
mod hook_programs;
mod hooks;
mod jobs;
mod notifications;
mod operator;
mod operator_sqlite;
mod restores;
mod simulated;
