//! Every step of a backup × every fault × both ways to coordinate, generated from the plan that the engine is given.
//!
//! Each case runs one backup with one fault, in virtual time, and looks from the outside at what is left: the freeze, the
//! snapshots, the sessions, the exposures, the claims, the catalogue, the job. Then it does what an operator would do with
//! what is parked or left behind, and backs up again without faults. The mutants show that the matrix is no ornament: with the exit removed, undo skipped or
//! claims always granted it goes red.
//!
//! One case alone: `FAULT_CASE='engine/commit:alpha/panic' cargo test -p stillpoint --test fault_matrix -- --nocapture`

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod audit;
mod carry;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod matrix;

use carry::{Mutant, carry_out};
use cases::{Case, blueprint, call_cases, step_cases, undo_cases};
use common::BOTH;
use matrix::matrix;
use stillpoint::exchange::Coordination;

#[test]
fn every_step_may_fail_when_the_engine_coordinates() {
    let (plan, _) = blueprint(Coordination::Engine);
    matrix("steps, engine-coordinated", &step_cases(Coordination::Engine, &plan));
}

#[test]
fn every_step_may_fail_when_the_plugin_coordinates() {
    let (plan, _) = blueprint(Coordination::Plugin);
    matrix("steps, plug-in-coordinated", &step_cases(Coordination::Plugin, &plan));
}

#[test]
fn every_call_may_go_wrong_when_the_engine_coordinates() {
    let (_, calls) = blueprint(Coordination::Engine);
    matrix("calls, engine-coordinated", &call_cases(Coordination::Engine, &calls));
}

#[test]
fn every_call_may_go_wrong_when_the_plugin_coordinates() {
    let (_, calls) = blueprint(Coordination::Plugin);
    matrix("calls, plug-in-coordinated", &call_cases(Coordination::Plugin, &calls));
}

#[test]
fn every_undo_may_fail() {
    let cases = BOTH.into_iter().flat_map(|mode| undo_cases(mode, &blueprint(mode).0));
    matrix("undos", &cases.collect::<Vec<_>>());
}

/// The cases that a mutant is shown to, and how many of them must notice it.
fn red(mutant: Mutant, cases: &[Case], wanted: &str) -> usize {
    let noticed = cases.iter().filter(|case| {
        let outcome = carry_out(case, mutant);
        outcome.violations.iter().any(|found| found.contains(wanted))
    });
    let count = noticed.count();
    println!("{mutant:?}: {count} of {} cases are red with {wanted:?}", cases.len());
    count
}

fn some_cases(mode: Coordination, step: &str) -> Vec<Case> {
    let (plan, _) = blueprint(mode);
    let all = step_cases(mode, &plan);
    all.into_iter().filter(|case| case.name.contains(&format!("/{step}/"))).collect()
}

#[test]
fn the_matrix_is_red_without_the_exit() {
    // The abort of a run that fails for it may still thaw in time; what came before it was inside the freeze.
    let cases = some_cases(Coordination::Engine, "commit:alpha");
    assert_eq!(red(Mutant::NoExit, &cases, "inside the freeze"), cases.len());
}

#[test]
fn the_matrix_is_red_without_undo() {
    for mode in BOTH {
        let cases = some_cases(mode, "judge");
        let doomed: Vec<_> =
            cases.into_iter().filter(|case| case.name.ends_with("is refused")).collect();
        assert_eq!(doomed.len(), 1);
        assert_eq!(red(Mutant::NoUndo, &doomed, "orphan"), 1);
        assert_eq!(red(Mutant::NoUndo, &doomed, "is open"), 1);
    }
}

#[test]
fn the_matrix_is_red_when_claims_are_always_granted() {
    for mode in BOTH {
        let cases = some_cases(mode, "begin");
        assert!(red(Mutant::NoClaims, &cases, "Overlapping") > 0);
    }
}
