//! The campaign with real processes. `CRASH_LONG=1` makes it the long one; the README has the other variables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use stillpoint_crash::campaign::{Blow, Campaign, Outcome};
use stillpoint_crash::chance::{Dice, number};

fn campaign() -> Campaign {
    Campaign {
        agent: PathBuf::from(env!("CARGO_BIN_EXE_crash-agent")),
        engine: PathBuf::from(env!("CARGO_BIN_EXE_crash-engine")),
        at_once: number("CRASH_AT_ONCE").and_then(|n| usize::try_from(n).ok()).unwrap_or(4),
        freeze_limit: 2000,
        storage: stillpoint_crash::engine::Storage::Copies,
    }
}

fn is_long() -> bool {
    number("CRASH_LONG") == Some(1)
}

/// A number that the environment may say, with one for the short and one for the long form.
fn by_length(variable: &str, short: usize, long: usize) -> usize {
    let given = number(variable).and_then(|n| usize::try_from(n).ok());
    given.unwrap_or(if is_long() { long } else { short })
}

/// Every n-th place of an enumeration is tried; all in the long form.
fn stride(short: usize) -> usize {
    by_length("CRASH_STRIDE", short, 1)
}

fn judge(what: &str, outcome: &Outcome) {
    println!(
        "{what}: {} expected, {} hit, {} wrong",
        outcome.expected,
        outcome.hit,
        outcome.wrong.len()
    );
    for wrong in &outcome.wrong {
        println!("  {wrong}");
    }
    assert!(outcome.wrong.is_empty(), "{what}: {:#?}", outcome.wrong);
    assert_eq!(outcome.hit, outcome.expected, "{what}: places that were never come to");
    assert_ne!(outcome.expected, 0, "{what}: nothing was tried");
}

#[test]
fn an_engine_killed_at_any_append_is_recovered_by_the_next() {
    let campaign = campaign();
    let appends = campaign.undisturbed(1, None).unwrap().appends;
    let places = Campaign::places(appends, stride(7));
    let blows: Vec<_> = places.into_iter().map(Blow::At).collect();
    judge(&format!("appends of a backup ({appends})"), &campaign.strike(&blows, None));
}

#[test]
fn a_recovery_killed_at_any_append_is_recovered_by_the_next() {
    let campaign = campaign();
    for first in ["commit.after", "complete.before"] {
        let appends = campaign.undisturbed(1, Some(first)).unwrap().appends;
        let places = Campaign::places(appends, stride(31));
        let blows: Vec<_> =
            places.into_iter().map(|second| Blow::Twice(first.to_owned(), second)).collect();
        judge(
            &format!("appends of a recovery from {first} ({appends})"),
            &campaign.strike(&blows, None),
        );
    }
}

#[test]
fn an_engine_killed_at_a_call_is_recovered_by_the_next() {
    let places = [
        "begin.after",
        "prepare.after",
        "freeze.after",
        "commit.before",
        "commit.after",
        "thaw.before",
        "settle.after",
        "complete.before",
        "complete.after",
    ];
    let blows: Vec<_> = places.iter().map(|place| Blow::At((*place).to_owned())).collect();
    judge("calls", &campaign().strike(&blows, None));
}

#[test]
fn an_engine_killed_at_any_instant_is_recovered_by_the_next() {
    let campaign = campaign();
    let seed = number("CRASH_SEED").unwrap_or_else(Dice::new_seed);
    let count = by_length("CRASH_INSTANTS", 6, 500);
    println!(
        "again: CRASH_SEED={seed} CRASH_INSTANTS={count} cargo test -p stillpoint-crash --test campaign instant -- \
         --nocapture, and one round of it with CRASH_ONLY=n"
    );
    let time = campaign.undisturbed(2, None).unwrap().time;
    let only = number("CRASH_ONLY").and_then(|n| usize::try_from(n).ok());
    // Rounds side by side are slower than the one that was measured.
    let blows = Campaign::instants(seed, count, time.max(Duration::from_millis(100)) * 3 / 2);
    judge(&format!("instants of seed {seed}"), &campaign.strike(&blows, only));
}
