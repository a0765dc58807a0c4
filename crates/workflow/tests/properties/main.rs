//! Generated plans with failures, time-outs, panics, guards and cancels, alone, with others that claim the same, in processes
//! that die, and over a journal that fails for a while, checked against what the engine promises.
//!
//! ```text
//!   cases.rs      what is generated         promises.rs    what holds of each run
//!   plan.rs       the plan of a case        exclusion.rs   what holds between runs
//!   world.rs      what its steps do         naive.rs       what a case may come to, without a machine
//!   play.rs       carrying it out           replay.rs      seeds
//! ```
//!
//! A failure prints the smallest case that fails and the command that brings it back;
//! `PROPTEST_CASES=5000 cargo test -p stillpoint-workflow --test properties` looks at more of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod exclusion;
mod naive;
mod plan;
mod play;
mod promises;
mod replay;
mod world;

use play::{play, play_under};
use replay::{for_cases, value_of};
use stillpoint_workflow::GrantPolicy;

#[test]
fn every_generated_run_keeps_the_promises() {
    for_cases("every_generated_run_keeps_the_promises", 400, cases::alone, |story| {
        play(&story).check_runs();
    });
}

#[test]
fn generated_runs_keep_out_of_each_others_way() {
    for_cases("generated_runs_keep_out_of_each_others_way", 300, cases::together, |story| {
        let played = play(&story);
        played.check_exclusion();
        played.check_runs();
    });
}

#[test]
fn generated_runs_survive_the_death_of_their_process() {
    for_cases("generated_runs_survive_the_death_of_their_process", 400, cases::dying, |story| {
        let played = play(&story);
        played.check_runs();
        played.check_exclusion();
    });
}

#[test]
fn generated_runs_outlast_a_journal_that_fails() {
    for_cases("generated_runs_outlast_a_journal_that_fails", 300, cases::failing, |story| {
        let played = play(&story);
        played.check_runs();
        played.check_exclusion();
    });
}

#[test]
fn the_same_stories_meet_when_every_claim_is_granted() {
    let strategy = cases::together();
    let meet = |seed: &u64| {
        let story = value_of(*seed, &strategy);
        !play_under(&story, GrantPolicy::Always).conflicts().is_empty()
    };
    let seen = (0..40).filter(meet).count();
    assert!(seen > 10, "{seen} of 40: the checks would not notice an arbiter that sleeps");
}

#[test]
fn processes_die_at_all_ages() {
    let strategy = cases::dying();
    let mut deaths = [0; 3];
    for seed in 0..60 {
        deaths[play(&value_of(seed, &strategy)).deaths] += 1;
    }
    assert!(deaths.iter().all(|count| *count >= 5), "stories with 0, 1 and 2 deaths: {deaths:?}");
}

#[test]
fn a_seed_brings_back_the_same_story() {
    let strategy = cases::dying();
    for seed in 0..20 {
        let story = value_of(seed, &strategy);
        let log = || format!("{:?}", play(&story).world.log.events());
        assert_eq!(log(), log());
    }
}
