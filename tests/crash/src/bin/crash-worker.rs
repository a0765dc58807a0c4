//! A worker's process of the exclusivity campaign: runs on a state file that others use, too.
//!
//! Ends with 0 when all is done, with 3 if another has taken over, with 2 if something is wrong.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use stillpoint_crash::exclusive::worker::{Args, Ended, TAKEN_OVER, work};

fn main() -> ExitCode {
    match work(&Args::parse()) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::TakenOver) => ExitCode::from(TAKEN_OVER),
        Err(error) => {
            let _told = writeln!(std::io::stderr(), "crash-worker: {error}: {error:?}");
            ExitCode::from(2)
        }
    }
}
