//! The engine's process: makes backups of what an agent speaks for, and may be killed at any instant.
//!
//! Ends with 0 if every backup has succeeded, with 1 if one has not, with 2 if it could not begin.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use stillpoint_crash::engine::{Args, run};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _told = writeln!(std::io::stderr(), "crash-engine: {error}");
            ExitCode::from(2)
        }
    }
}
