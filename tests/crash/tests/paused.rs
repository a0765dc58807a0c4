//! Engines that stand still in front of a freeze or in it, that are taken over meanwhile, and whose journal hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use stillpoint_crash::campaign::{Bench, Campaign, SLACK};
use stillpoint_crash::chance::{number, pause};
use stillpoint_crash::check::Scene;
use stillpoint_crash::ledger::{EndedBy, Line, What};
use stillpoint_crash::process::EngineProcess;
use stillpoint_crash::wire::Ask;
use stillpoint_exchange::SessionId;
use stillpoint_model::quiesce::Consistency;

/// After how many milliseconds the agent thaws by itself, where that is what is tested.
const LIMIT: u64 = 2000;

fn bench(limit: u64) -> Bench {
    let campaign = Campaign {
        agent: PathBuf::from(env!("CARGO_BIN_EXE_crash-agent")),
        engine: PathBuf::from(env!("CARGO_BIN_EXE_crash-engine")),
        at_once: 1,
        freeze_limit: limit,
        storage: stillpoint_crash::engine::Storage::Copies,
    };
    campaign.bench(limit).unwrap()
}

/// The session that was begun last.
fn last_begun(lines: &[Line]) -> SessionId {
    let begun = lines.iter().rev().find_map(|line| match &line.what {
        What::Answered { ask, session, outcome, .. } if ask == "begin" && outcome == "ok" => {
            *session
        }
        _ => None,
    });
    begun.expect("a session was begun")
}

/// What became of the freeze of a session, in order.
fn freezes(lines: &[Line], of: SessionId) -> Vec<&'static str> {
    let told = lines.iter().filter_map(|line| match &line.what {
        What::Frozen { session, .. } if *session == of => Some("frozen"),
        What::Thawed { session, by: EndedBy::Limit, .. } if *session == of => Some("limit"),
        What::Thawed { session, .. } if *session == of => Some("thawed"),
        What::Completed { session, good, .. } if *session == of && good.values().any(|g| *g) => {
            Some("good")
        }
        _ => None,
    });
    told.collect()
}

/// Lets an engine go on, past every further place, to its end.
fn to_its_end(mut engine: EngineProcess) -> Option<i32> {
    engine.go_on().unwrap();
    while engine.until_stopped().unwrap().is_some() {
        engine.go_on().unwrap();
    }
    engine.finish().unwrap().0.code()
}

/// Holds an engine at a place for longer than its freeze may last, and lets it go on to its end.
fn held(place: &str) -> (Scene, SessionId, Option<i32>) {
    let bench = bench(LIMIT);
    let mut engine = bench.engine("test", 1, place, &[]).unwrap();
    assert_eq!(engine.until_stopped().unwrap().as_deref(), Some(place));
    pause(Duration::from_millis(LIMIT + LIMIT / 4));
    let broken = bench.thawed().unwrap();
    assert_eq!(broken, [], "while it stands still at {place}");
    let session = last_begun(&bench.lab.lines().unwrap());
    let status = to_its_end(engine);
    let scene = bench.scene().unwrap();
    assert_eq!(scene.broken(SLACK), [], "after it stood still at {place}");
    // Whatever became of it, the next one is as good as ever.
    assert_eq!(bench.recovered("next").unwrap(), Vec::<String>::new(), "{place}");
    (scene, session, status)
}

#[test]
fn an_engine_that_stands_still_before_its_enter_does_not_freeze_late() {
    let (scene, session, status) = held("freeze.before");
    assert_eq!(freezes(&scene.lines, session), Vec::<&str>::new());
    // The freeze was missed, and tried again under another session.
    assert_eq!(status, Some(0));
    assert_ne!(last_begun(&scene.lines), session);
}

#[test]
fn an_engine_that_stands_still_in_its_freeze_does_not_call_it_consistent() {
    let (scene, session, status) = held("freeze.after");
    assert_eq!(freezes(&scene.lines, session), ["frozen", "limit"]);
    assert_eq!(status, Some(0));
    let missed = scene.lines.iter().find_map(|line| match &line.what {
        What::Frozen { session: frozen, run, .. } if *frozen == session => Some(*run),
        _ => None,
    });
    let mut points = scene.points.iter().filter(|p| p.consistency == Consistency::Application);
    assert!(points.all(|point| Some(point.run) != missed), "{:#?}", scene.points);
}

#[test]
fn an_engine_that_stands_still_once_armed_has_not_begun_to_count() {
    let (scene, session, status) = held("arming.after");
    // The clock of a guard starts when its enter is polled: there was no freeze before, and one whole freeze after.
    assert_eq!(freezes(&scene.lines, session).first(), Some(&"frozen"));
    assert_eq!(status, Some(0));
}

/// Holds an engine at a place until another has taken over and backed up, then wakes it.
fn taken_over_at(place: &str) {
    let lease = ["--lease", "3000", "--margin", "200"];
    let (bench, paused) = loop {
        let bench = bench(LIMIT);
        let mut paused = bench.engine("paused", 1, place, &lease).unwrap();
        assert_eq!(paused.until_stopped().unwrap().as_deref(), Some(place));
        if is_free(&bench) {
            break (bench, paused);
        }
        // Another of its threads stands still in a commit: nobody can take over before it goes on or dies.
    };
    let session = last_begun(&bench.lab.lines().unwrap());

    let next = bench.engine("next", 1, "", &lease).unwrap();
    let (status, events) = next.finish().unwrap();
    assert_eq!(status.code(), Some(0), "{place}: {events:#?}");
    let before = bench.scene().unwrap();
    assert_eq!(before.broken(SLACK), [], "taken over at {place}");

    let status = to_its_end(paused);
    assert_ne!(status, Some(0), "a backup that was taken over is not this process's success");
    let after = bench.scene().unwrap();
    assert_eq!(after.broken(SLACK), [], "woken at {place}");
    // Nothing that it says or does counts any more.
    let fresh = &after.lines[before.lines.len()..];
    assert_eq!(freezes(fresh, session), Vec::<&str>::new(), "woken at {place}");
    let admitted = fresh.iter().filter(|line| matches!(line.what, What::Admitted { .. }));
    assert_eq!(admitted.count(), 0, "woken at {place}");
    assert_eq!(after.points, before.points, "woken at {place}");
    assert_eq!(after.jobs, before.jobs, "woken at {place}");
}

#[test]
fn an_engine_that_was_taken_over_while_it_stood_still_changes_nothing_any_more() {
    let places =
        ["arming.after", "freeze.before", "freeze.after", "thaw.before", "complete.before"];
    std::thread::scope(|scope| {
        for place in places {
            scope.spawn(move || taken_over_at(place));
        }
    });
}

#[test]
fn a_snapshot_that_lands_after_the_takeover_is_accounted_for() {
    std::thread::scope(|scope| {
        for place in ["prepare.before", "commit.before", "settle.before"] {
            scope.spawn(move || taken_over_at(place));
        }
    });
}

/// Whether nobody is in the middle of a commit.
fn is_free(bench: &Bench) -> bool {
    let other = Connection::open(bench.lab.state()).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
}

/// Somebody else's transaction on the state file: nothing can be appended.
fn blocks_appends(bench: &Bench) -> Connection {
    let other = Connection::open(bench.lab.state()).unwrap();
    other.busy_timeout(Duration::from_mins(1)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// An engine with a freeze under way and a journal that hangs, seen to thaw all the same.
fn thaws_without_a_journal(bench: &Bench) -> (EngineProcess, Connection) {
    let mut engine = bench.engine("test", 1, "freeze.after", &[]).unwrap();
    assert_eq!(engine.until_stopped().unwrap().as_deref(), Some("freeze.after"));
    let other = blocks_appends(bench);
    engine.go_on().unwrap();
    bench.lab.ask(&bench.cx, &Ask::AwaitThaw).unwrap();
    let lines = bench.lab.lines().unwrap();
    assert_eq!(freezes(&lines, last_begun(&lines)), ["frozen", "thawed"]);
    (engine, other)
}

#[test]
fn a_journal_that_hangs_does_not_hold_the_thaw() {
    // Ended by a thaw, long before the agent would.
    let bench = bench(60_000);
    let (engine, other) = thaws_without_a_journal(&bench);
    if number("CRASH_LONG") == Some(1) {
        // Until SQLite gives up waiting and the append fails.
        pause(Duration::from_secs(7));
    }
    other.execute_batch("ROLLBACK").unwrap();
    let (status, events) = engine.finish().unwrap();
    assert_eq!(status.code(), Some(0), "{events:#?}");
    assert_eq!(bench.scene().unwrap().broken(SLACK), []);
}

#[test]
fn an_engine_killed_while_its_journal_hangs_is_recovered() {
    let bench = bench(60_000);
    let (engine, other) = thaws_without_a_journal(&bench);
    engine.kill().unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    assert_eq!(bench.thawed().unwrap(), []);
    assert_eq!(bench.recovered("next").unwrap(), Vec::<String>::new());
}
