//! The exclusivity campaign with real processes. `CRASH_LONG=1` makes it the long one; the README has the other variables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;

use stillpoint_crash::chance::{Dice, number};
use stillpoint_crash::check::Rule;
use stillpoint_crash::exclusive::driver::{Outcome, Setup, run};

fn campaign(seed: u64, runs: u64, blind: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        program: PathBuf::from(env!("CARGO_BIN_EXE_crash-worker")),
        folder: folder.path().to_owned(),
        workers: 4,
        runs,
        seed,
        term: 1000,
        margin: 250,
        blind,
    };
    let outcome = run(&setup).unwrap();
    if !blind && !outcome.broken.is_empty() {
        println!("the logs stay in {}", folder.keep().display());
    }
    outcome
}

#[test]
fn workers_that_are_stopped_and_killed_never_hold_at_once_what_conflicts() {
    let long = number("CRASH_LONG") == Some(1);
    let seed = number("CRASH_SEED").unwrap_or_else(Dice::new_seed);
    let runs = number("CRASH_RUNS").unwrap_or(if long { 1000 } else { 60 });
    println!(
        "again: CRASH_SEED={seed} CRASH_RUNS={runs} cargo test -p stillpoint-crash --test exclusive -- --nocapture"
    );
    let outcome = campaign(seed, runs, false);
    println!("{outcome:#?}");
    assert_eq!(outcome.broken, []);
    assert_eq!(outcome.asked, usize::try_from(4 * runs).unwrap());
}

#[test]
fn claims_that_keep_nobody_apart_are_seen() {
    let outcome = campaign(7, 15, true);
    let overlaps = outcome.broken.iter().filter(|broken| broken.rule == Rule::Overlap);
    assert_ne!(overlaps.count(), 0, "{outcome:#?}");
}
