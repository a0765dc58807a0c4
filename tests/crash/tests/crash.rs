//! Both processes, for real: a backup from end to end, and an engine that is killed around its freeze.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use stillpoint_context::Cx;
use stillpoint_crash::check::{Rule, Scene};
use stillpoint_crash::engine::Event;
use stillpoint_crash::ledger::{EndedBy, Line, What};
use stillpoint_crash::process::{AgentProcess, EngineProcess, Lab};
use stillpoint_crash::wire::Ask;
use stillpoint_exchange::{SessionId, SessionState};
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;

/// For an agent that gets no time on a busy machine; what is tested is who ends a freeze, not how promptly a machine wakes.
const SLACK: Duration = Duration::from_secs(20);

struct Bench {
    _folder: TempDir,
    lab: Lab,
    cx: Cx,
    _runtime: tokio::runtime::Runtime,
    agent: AgentProcess,
}

impl Bench {
    fn new(freeze_limit: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::below(folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        let program = Path::new(env!("CARGO_BIN_EXE_crash-agent"));
        let agent = AgentProcess::start(program, &lab, ["--freeze-limit", freeze_limit]).unwrap();
        Self { _folder: folder, lab, cx, _runtime: runtime, agent }
    }

    fn engine(&self, backups: u32, stop_at: &str) -> EngineProcess {
        let program = Path::new(env!("CARGO_BIN_EXE_crash-engine"));
        EngineProcess::start(program, &self.lab, "test", backups, stop_at).unwrap()
    }

    fn session(&self, id: SessionId) -> SessionState {
        self.lab.session(&self.cx, id).unwrap().unwrap()
    }
}

/// The sessions that were begun, and what became of them, in a word each.
fn story(lines: &[Line]) -> Vec<(SessionId, &'static str)> {
    let told = lines.iter().filter_map(|line| match &line.what {
        What::Answered { ask, session: Some(session), outcome, .. }
            if ask == "begin" && outcome == "ok" =>
        {
            Some((*session, "begun"))
        }
        What::Frozen { session, .. } => Some((*session, "frozen")),
        What::Thawed { session, by: EndedBy::Thaw, .. } => Some((*session, "thawed")),
        What::Thawed { session, by: EndedBy::Limit, .. } => Some((*session, "limit")),
        What::Completed { session, .. } => Some((*session, "completed")),
        What::Ended { session, .. } => Some((*session, "ended")),
        _ => None,
    });
    told.collect()
}

fn words(story: &[(SessionId, &'static str)]) -> Vec<&'static str> {
    story.iter().map(|(_, word)| *word).collect()
}

#[test]
fn a_backup_from_end_to_end_succeeds_and_every_rule_holds() {
    // Long enough for any machine: that a freeze ends at its limit is another test's.
    let bench = Bench::new("60000");
    let (status, events) = bench.engine(2, "").finish().unwrap();
    assert_eq!(status.code(), Some(0), "{events:#?}");
    assert!(matches!(events.last(), Some(Event::End { ok: true, .. })), "{events:#?}");

    let scene = Scene::gather(&bench.lab).unwrap();
    assert_eq!(scene.broken(SLACK), []);
    let one = ["begun", "frozen", "thawed", "completed"];
    assert_eq!(words(&story(&scene.lines)), [one, one].concat());
    // Two databases, twice; what was taken was taken inside the freezes, since it bears their beats.
    assert_eq!((scene.points.len(), scene.jobs.len()), (4, 2));
    // The databases were written all the while, and their logs truncated after the first completion.
    let count = |wanted: fn(&What) -> bool| scene.lines.iter().filter(|l| wanted(&l.what)).count();
    assert!(count(|what| matches!(what, What::Wrote { .. })) > 10);
    assert_eq!(count(|what| matches!(what, What::Truncated { .. })), 2);
    assert_eq!(count(|what| matches!(what, What::Trouble { .. })), 0);

    let (lab, agent) = (bench.lab.clone(), bench.agent);
    assert_eq!(agent.stop().unwrap().code(), Some(0));
    assert!(lab.ask(&bench.cx, &Ask::Caps).is_err(), "nobody serves any more");
}

#[test]
fn an_engine_that_is_stopped_goes_on_where_it_was() {
    let bench = Bench::new("60000");
    let mut engine = bench.engine(1, "begin.after,complete.before");
    for (place, last) in [("begin.after", "begun"), ("complete.before", "thawed")] {
        assert_eq!(engine.until_stopped().unwrap().as_deref(), Some(place));
        assert_eq!(words(&story(&bench.lab.lines().unwrap())).last(), Some(&last));
        engine.go_on().unwrap();
    }
    let (status, events) = engine.finish().unwrap();
    assert_eq!(status.code(), Some(0), "{events:#?}");
    assert_eq!(Scene::gather(&bench.lab).unwrap().broken(SLACK), []);
}

/// Kills an engine that has stopped at a place, and gives what the agent tells of it, with the session's state right after.
fn kill_at(place: &str) -> (Scene, SessionState) {
    let bench = Bench::new("4000");
    // A freeze that is missed on a busy machine is tried again, and stops there.
    let mut engine = bench.engine(5, place);
    assert_eq!(engine.until_stopped().unwrap().as_deref(), Some(place));
    engine.kill().unwrap();
    let begun = story(&bench.lab.lines().unwrap());
    let (session, _) = *begun.last().expect("a session was begun");
    let state = bench.session(session);
    bench.lab.ask(&bench.cx, &Ask::AwaitThaw).unwrap();
    let scene = Scene::gather(&bench.lab).unwrap();
    assert_eq!(scene.broken_by_the_agent(SLACK), [], "killed at {place}");
    (scene, state)
}

#[test]
fn an_engine_killed_in_its_freeze_leaves_no_freeze() {
    // Side by side, as each waits for a limit.
    let places = ["freeze.after", "commit.before", "commit.after", "thaw.before"];
    let scenes = std::thread::scope(|scope| {
        let killed = places.map(|place| scope.spawn(move || kill_at(place)));
        killed.map(|thread| thread.join().unwrap())
    });
    for (place, (scene, state)) in places.iter().zip(scenes) {
        // The limit may have come before the question, on a busy machine.
        assert!(matches!(state, SessionState::Frozen { .. } | SessionState::Open), "{state:?}");
        let story = words(&story(&scene.lines));
        assert!(story.ends_with(&["begun", "frozen", "limit"]), "killed at {place}: {story:?}");
        assert_eq!(scene.points, [], "nothing is published of a freeze that did not end well");
        // Until somebody recovers, the checks see what is left.
        let broken = scene.broken(SLACK);
        assert!(broken.iter().any(|broken| broken.rule == Rule::Sets), "{place}: {broken:?}");
        assert!(broken.iter().any(|broken| broken.rule == Rule::Jobs), "{place}: {broken:?}");
    }
}

#[test]
fn an_engine_killed_outside_its_freeze_leaves_a_session_that_can_be_looked_up() {
    let places = ["freeze.before", "settle.after", "complete.before", "complete.after"];
    let scenes = std::thread::scope(|scope| {
        let killed = places.map(|place| scope.spawn(move || kill_at(place)));
        killed.map(|thread| thread.join().unwrap())
    });
    for (place, (scene, state)) in places.iter().zip(scenes) {
        let story = words(&story(&scene.lines));
        match *place {
            "freeze.before" => {
                assert_eq!(state, SessionState::Open);
                assert_eq!(story.last(), Some(&"begun"), "{place}: {story:?}");
            }
            "complete.after" => {
                assert!(matches!(state, SessionState::Completed(_)), "{state:?}");
                assert!(story.ends_with(&["frozen", "thawed", "completed"]), "{place}: {story:?}");
                assert_eq!(scene.points.len(), 2, "published before it was completed");
            }
            _ => {
                assert_eq!(state, SessionState::Open);
                assert!(story.ends_with(&["begun", "frozen", "thawed"]), "{place}: {story:?}");
            }
        }
    }
}
