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

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use stillpoint::catalog::{CatalogExt, MemoryCatalog, PointQuery};
use stillpoint::context::{Effect, RunId};
use stillpoint::exchange::Coordination;
use stillpoint::model::id::{SessionId, SetToken};
use stillpoint::model::job::{Job, JobState, MemberEnd, RunEnd, RunState};
use stillpoint::model::point::{PointState, RestorePoint, Trust};
use stillpoint::model::quiesce::Consistency;
use stillpoint::storage::Snapshot;
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint::workflow::{GrantPolicy, NodeKind, Plan, RunPhase};
use stillpoint::{JobHandle, Stillpoint};
use stillpoint_testkit::{Breach, Change, Fault, Lie, Shape, Side, Trouble, World};
use uuid::Uuid;

/// A fault of the simulated Exchange or storage itself.
#[derive(Debug, Clone)]
struct Mishap {
    step: String,
    call: &'static str,
    after: bool,
    always: bool,
    fault: Fault,
}

/// What is broken on purpose, to see that the matrix notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    NoExit,
    NoUndo,
    NoClaims,
}

#[derive(Debug, Clone)]
struct Case {
    name: String,
    mode: Coordination,
    rules: Vec<Rule>,
    mishap: Option<Mishap>,
}

/// What a case came to.
struct Outcome {
    violations: Vec<String>,
    /// Whether everything that was to go wrong did.
    touched: bool,
    state: Option<JobState>,
}

struct Rig<'a> {
    world: &'a World,
    this: &'a Stillpoint,
    catalog: Arc<MemoryCatalog>,
    mode: Coordination,
    /// Whether no thaw that is asked for reaches the other side: then the limit alone ends the freeze.
    gagged: bool,
    mishap: Option<Mishap>,
    found: Vec<String>,
}

const DAY: Duration = Duration::from_hours(24);

/// Long enough for everything that is late.
const AFTERWARDS: Duration = Duration::from_mins(15);

impl Rig<'_> {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(what());
        }
    }

    async fn points(&self) -> Vec<RestorePoint> {
        self.catalog.all_points(&PointQuery::all()).await.unwrap()
    }

    /// What is known to be left behind, as one text.
    async fn listed(&self) -> String {
        let mut text = String::new();
        for debris in self.this.debris().await.unwrap() {
            writeln!(text, "{} {} {}", debris.key, debris.kind, debris.message).unwrap();
        }
        text
    }

    /// Looks at everything that a backup may leave behind.
    #[allow(clippy::too_many_lines, reason = "a list of questions, one after the other")]
    async fn audit(&mut self, when: &str, jobs: &[Job]) {
        let points = self.points().await;
        let listed = self.listed().await;
        let world = self.world;
        let parked: BTreeSet<_> = self.this.engine().parked().iter().map(|p| p.0).collect();

        // Thawed in time.
        if self.mode == Coordination::Engine && !self.gagged {
            for late in world.late_thaws() {
                self.check(false, || format!("{when}: not thawed in time: {late:?}"));
            }
        }
        for window in world.freeze_windows() {
            let in_limit = match (window.ended, window.limit) {
                (Some((ended, _)), Some(limit)) => ended.mono <= limit.mono,
                (ended, None) => ended.is_some(),
                (None, _) => false,
            };
            self.check(in_limit, || format!("{when}: frozen beyond the limit: {window:?}"));
            let strangers: Vec<_> =
                world.calls_inside(&window).into_iter().filter(|c| c.name != "commit").collect();
            // A thaw that is not true cannot be known of before the evidence is read.
            let only_commit =
                self.mode == Coordination::Plugin || strangers.is_empty() || self.lies("thaw");
            self.check(only_commit, || format!("{when}: inside the freeze: {strangers:?}"));
        }
        for violation in world.violations() {
            // A session that could not be aborted is in the way of whoever comes next, until it is swept.
            let in_the_way =
                violation.breach == Breach::OverlappingBackup && Self::left_a_session(jobs);
            self.check(in_the_way, || format!("{when}: {violation}"));
        }

        // No orphans, and nothing missing.
        let tokens: BTreeSet<&SetToken> = points.iter().map(|point| &point.set).collect();
        let parked_tokens = |token: &SetToken| {
            jobs.iter().flat_map(|job| &job.runs).any(|run| {
                parked.contains(&run.run)
                    && token.as_str().contains(&run.run.0.simple().to_string())
            })
        };
        for snapshot in world.snapshots() {
            let token = snapshot.token.clone().unwrap();
            let known =
                tokens.contains(&token) || listed.contains(token.as_str()) || parked_tokens(&token);
            self.check(known, || format!("{when}: orphan {token} on {}", snapshot.volume));
        }
        for (token, volume, _) in world.in_flight() {
            self.check(listed.contains(token.as_str()), || {
                format!("{when}: {token} is still in flight on {volume}")
            });
        }
        for token in world.prepared_sets() {
            let known = listed.contains(token.as_str()) || parked_tokens(&token);
            self.check(known, || format!("{when}: the prepared set {token} is forgotten"));
        }
        let there: BTreeSet<_> = world.snapshots().iter().map(Snapshot::reference).collect();
        for point in &points {
            for member in &point.members {
                self.check(there.contains(&member.snapshot), || {
                    format!("{when}: {} has lost {}", point.id, member.snapshot)
                });
            }
            let open = parked.contains(&point.run) || !Self::is_over(point, jobs);
            self.check(point.state == PointState::Available || open, || {
                format!("{when}: {} is provisional, and its run is over", point.id)
            });
            // Whatever anybody claims: the bytes.
            let shape = world.shapes(&point.set).get(&point.copy).copied();
            let honest = match (point.consistency, &point.trust) {
                (_, Trust::Suspect { .. }) => true,
                (Consistency::Application, _) => shape == Some(Shape::Quiesced),
                _ => matches!(shape, Some(Shape::Quiesced | Shape::Running)),
            };
            self.check(honest, || {
                format!("{when}: {} is listed as {} and is {shape:?}", point.id, point.consistency)
            });
        }

        // Nothing that was completed is undone, nothing is completed that was given up.
        for complete in world.completes() {
            let run = jobs.iter().flat_map(|job| &job.runs).find(|run| run.run == complete.run);
            let kept = run.is_some_and(|run| {
                !matches!(run.state, RunState::Ended(RunEnd::Failed | RunEnd::Cancelled))
            });
            self.check(kept, || {
                format!("{when}: a completed backup was given up: {:?}", run.map(|run| run.state))
            });
            for copy in complete.good() {
                let point = points.iter().find(|p| p.run == complete.run && p.copy == *copy);
                self.check(point.is_some(), || {
                    format!("{when}: {copy} was completed as good without a restore point")
                });
            }
        }

        // Sessions and exposures: those of a parked run are its own affair.
        let parked_sessions: BTreeSet<_> =
            parked.iter().map(|run| SessionId(Uuid::new_v5(&run.0, b"session"))).collect();
        let parked_exposures: BTreeSet<_> =
            parked.iter().map(|run| format!("verify-{}", run.0.simple())).collect();
        for session in world.open_sessions() {
            let known = parked_sessions.contains(&session)
                || self.lies("complete")
                || listed.contains(&session.to_string());
            self.check(known, || format!("{when}: session {session} is open"));
        }
        for exposure in world.exposures() {
            // What came to be after its run, or against the storage's own word, cannot be listed; the sweep finds it.
            let late = self.mishap.as_ref().is_some_and(|mishap| {
                mishap.call == "expose" && matches!(mishap.fault, Fault::LateArrival(_))
            });
            let unforeseen = when != "after the next" && (late || self.lies("unexpose"));
            let known = parked_exposures.contains(exposure.key.as_str())
                || unforeseen
                || listed.contains(exposure.key.as_str());
            self.check(known, || format!("{when}: exposure {} is open", exposure.key));
        }

        // Runs and claims: nobody waits but behind a parked run.
        let waiting = self.this.engine().waiting().await.unwrap();
        let behind: BTreeSet<_> = waiting
            .iter()
            .filter(|waiting| parked.contains(&waiting.holder))
            .map(|waiting| waiting.run)
            .collect();
        for run in self.this.engine().runs() {
            let phase = run.status().phase;
            let known = match phase {
                RunPhase::Ended(_) => true,
                RunPhase::Parked => parked.contains(&run.id()),
                _ => behind.contains(&run.id()),
            };
            self.check(known, || format!("{when}: run {} is {phase:?}", run.id()));
        }
        self.check(waiting.len() == behind.len(), || format!("{when}: waits: {waiting:?}"));

        for job in jobs {
            self.audit_job(when, job, &points).await;
        }
    }

    /// Whether a run waits for what a parked one holds.
    async fn waits_behind(&self, run: RunId) -> bool {
        let parked: BTreeSet<_> = self.this.engine().parked().iter().map(|p| p.0).collect();
        let waiting = self.this.engine().waiting().await.unwrap();
        waiting.iter().any(|known| known.run == run && parked.contains(&known.holder))
    }

    fn left_a_session(jobs: &[Job]) -> bool {
        let mut debris = jobs.iter().flat_map(|job| &job.runs).flat_map(|run| &run.debris);
        debris.any(|left| left.starts_with("session "))
    }

    /// Whether the other side says of this call that it was done, when it was not.
    fn lies(&self, call: &str) -> bool {
        self.mishap
            .as_ref()
            .is_some_and(|mishap| mishap.call == call && matches!(mishap.fault, Fault::Lie(_)))
    }

    fn is_over(point: &RestorePoint, jobs: &[Job]) -> bool {
        let mut runs = jobs.iter().flat_map(|job| &job.runs);
        runs.any(|run| run.run == point.run && matches!(run.state, RunState::Ended(_)))
    }

    /// The job says what happened.
    async fn audit_job(&mut self, when: &str, job: &Job, points: &[RestorePoint]) {
        let stored = self.this.job(job.id).await.unwrap();
        let told = stored.as_ref().map(Job::state);
        self.check(told == Some(job.state()), || {
            format!("{when}: the job is {} and listed as {told:?}", job.state())
        });
        let debris = job.runs.iter().any(|run| !run.debris.is_empty());
        let state = job.state();
        self.check(
            debris == (state == JobState::NeedsAttention) || state == JobState::Parked,
            || format!("{when}: the job is {state}, debris: {debris}"),
        );
        self.check(job.ended_at.is_some() == state.is_final(), || {
            format!("{when}: the job is {state} and ended at {:?}", job.ended_at)
        });
        let reason = state != JobState::Failed || !job.runs.is_empty() || job.failure.is_some();
        self.check(reason, || format!("{when}: the job has failed without a run or a reason"));
        for run in &job.runs {
            let told = match run.state {
                RunState::Ended(RunEnd::Failed) | RunState::Parked => run.failure.is_some(),
                RunState::Ended(RunEnd::SucceededWithWarnings) => !run.warnings.is_empty(),
                RunState::Ended(RunEnd::Succeeded) => run.failure.is_none(),
                RunState::Ended(_) => true,
                RunState::Queued | RunState::Running | RunState::Cancelling => false,
            };
            // A run behind a parked one is open, and nothing is to be told of it yet.
            let open = matches!(run.state, RunState::Queued) && self.waits_behind(run.run).await;
            self.check(told || open, || {
                format!("{when}: run {} is {:?} without a reason", run.run, run.state)
            });
            for member in &run.members {
                let Some(MemberEnd::Point { point, suspect }) = &member.end else { continue };
                let known = points.iter().find(|known| known.id == *point);
                let as_told =
                    known.is_some_and(|p| matches!(p.trust, Trust::Suspect { .. }) == *suspect);
                self.check(as_told, || {
                    format!("{when}: the job names {point}, the catalogue has {known:?}")
                });
            }
        }
        if state == JobState::Succeeded {
            let (good, all) = job.tally();
            self.check(good == all && all > 0, || format!("{when}: succeeded, {good} of {all}"));
        }
    }
}

/// A job on one line.
fn brief(job: &Job) -> String {
    let runs = job.runs.iter().map(|run| {
        let codes: Vec<_> = run.warnings.iter().map(|warning| &warning.code).collect();
        let why = run.failure.as_ref().map(|failure| (&failure.code, &failure.message));
        format!("{:?} {why:?} {codes:?} {:?}", run.state, run.debris)
    });
    let runs: Vec<_> = runs.collect();
    let codes: Vec<_> = job.warnings.iter().map(|warning| &warning.code).collect();
    let why =
        job.failure.as_ref().map(|failure| (&failure.code, &failure.message, &failure.causes));
    format!("{} {why:?} {codes:?} runs {runs:?}", job.state())
}

/// What the rival of a case is: a backup of the same databases, asked for at the same moment.
fn has_rival(case: &Case, mutant: Mutant) -> bool {
    mutant == Mutant::NoClaims || digest(&case.name).is_multiple_of(4)
}

fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Carries out one case.
#[allow(clippy::too_many_lines, reason = "one story from beginning to end")]
fn carry_out(case: &Case, mutant: Mutant) -> Outcome {
    let sim = Sim::new(digest(&case.name));
    let world = two_arrays(2);
    let catalog = Arc::new(MemoryCatalog::new());
    let mut rules = case.rules.clone();
    match mutant {
        Mutant::NoExit => rules.push(Rule::on_action("exchange.thaw", Part::Run, Blow::Skip)),
        Mutant::NoUndo => rules.push(Rule::on_action("", Part::Undo, Blow::Skip)),
        Mutant::None | Mutant::NoClaims => {}
    }
    let (saboteur, mut cancels) = Saboteur::new(rules);
    let interpose = saboteur.tune();
    let tune = move |engine| {
        let engine = interpose(engine);
        if mutant == Mutant::NoClaims { engine.grant_policy(GrantPolicy::Always) } else { engine }
    };
    let shared: Arc<MemoryCatalog> = Arc::clone(&catalog);
    let ran = sim.try_run(async {
        let this = builder(&sim, &world, case.mode, tune).catalog(shared).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let mut rig = Rig {
            world: &world,
            this: &this,
            catalog,
            mode: case.mode,
            gagged: case
                .rules
                .iter()
                .any(|rule| rule.step.ends_with("/exit") && rule.times == u32::MAX && !rule.after),
            mishap: case.mishap.clone(),
            found: Vec::new(),
        };
        if let Some(mishap) = &case.mishap {
            let mut rule = world.faults().on(mishap.call).step(&mishap.step);
            if !mishap.always {
                rule = rule.nth(1);
            }
            if mishap.after {
                rule = rule.after_effect();
            }
            rule.inject(mishap.fault.clone());
        }
        let first = this.backup(request("first")).await.unwrap();
        let (asked, seams) = (first.clone(), sim.seams());
        let rival = if has_rival(case, mutant) {
            // As soon as the first has its claims, so that it is not the one that waits.
            let waits = |job: Job| {
                !job.state().is_final()
                    && job.runs.first().is_none_or(|run| run.started_at.is_none())
            };
            while waits(first.job()) {
                pause(&seams, Duration::from_micros(100)).await;
            }
            Some(this.backup(request("rival")).await.unwrap())
        } else {
            None
        };
        seams.spawner.spawn(
            "canceller",
            Box::pin(async move {
                while cancels.recv().await.is_some() {
                    asked.cancel("a test").await.unwrap();
                }
            }),
        );
        let Some(job) = end_of(&this, &first).await else {
            rig.found.push(format!("the job does not end: {}", brief(&first.job())));
            return (rig.found, None);
        };
        let state = job.state();
        if let Some(rival) = &rival
            && state != JobState::Parked
            && end_of(&this, rival).await.is_none()
        {
            rig.found.push(format!("the rival does not end: {}", brief(&rival.job())));
            return (rig.found, Some(state));
        }
        pause(&seams, AFTERWARDS).await;
        let jobs = |more: Option<Job>| {
            let both = [Some(first.job()), rival.as_ref().map(JobHandle::job), more];
            both.into_iter().flatten().collect::<Vec<_>>()
        };
        rig.audit("at the end", &jobs(None)).await;
        let listed = rig.listed().await;
        for debris in jobs(None).iter().flat_map(|job| &job.runs).flat_map(|run| &run.debris) {
            rig.check(listed.contains(debris), || format!("{debris} is not in the catalogue"));
        }

        // What an operator does: mends what is broken, resumes what is parked, sweeps what is left.
        world.faults().clear();
        saboteur.clear();
        if mutant == Mutant::NoUndo {
            return (rig.found, Some(state));
        }
        for side in [Side::Exchange, Side::Storage] {
            world.change(&Change::Revive(side));
        }
        let parked = this.engine().parked();
        rig.check(parked.is_empty() == (state != JobState::Parked), || {
            format!("the job is {state}, parked: {parked:?}")
        });
        if state == JobState::Parked {
            let told = this.jobs().await.unwrap();
            let told = told.iter().any(|j| j.id == job.id && j.state() == JobState::Parked);
            rig.check(told, || "a parked job is not listed".to_owned());
            for (run, _, _) in parked {
                this.engine().run(run).unwrap().resume("an operator").await.unwrap();
            }
            for _ in 0..48 {
                if first.job().state().is_final() {
                    break;
                }
                pause(&seams, DAY / 48).await;
            }
            pause(&seams, AFTERWARDS).await;
            let over = first.job().state().is_final();
            rig.check(over, || format!("resumed, it does not end: {}", brief(&first.job())));
            rig.audit("after resuming", &jobs(None)).await;
        }
        let left = this.sweep().await.unwrap();
        rig.check(left.is_empty(), || format!("cannot be swept: {left:?}"));
        if rig.lies("complete") {
            // The plug-in has said "completed" and has not: the database is in a backup until its lease ends.
            return (rig.found, Some(state));
        }
        let next = this.backup(request("next")).await.unwrap();
        match end_of(&this, &next).await {
            // Where the plug-in has said "completed" and has not, the database is in a backup until the lease ends.
            Some(job) => {
                let well = job.state() == JobState::Succeeded;
                rig.check(well, || format!("the next backup is {}", brief(&job)));
            }
            None => rig.found.push(format!("the next backup does not end: {}", brief(&next.job()))),
        }
        rig.audit("after the next", &jobs(Some(next.job()))).await;
        (rig.found, Some(state))
    });
    let mut touched = saboteur.fired().iter().take(case.rules.len()).all(|hits| *hits > 0);
    touched &= case.mishap.is_none() || world.faults().fired() > 0;
    if std::env::var("FAULT_CASE").is_ok() {
        for call in world.calls().all() {
            println!("{:>12?} {} {}: {call}", call.started.mono.0, call.run.short(), call.step);
        }
    }
    match ran {
        Ok((violations, state)) => Outcome { violations, touched, state },
        Err(stuck) => Outcome { violations: vec![stuck.to_string()], touched, state: None },
    }
}

/// The plan of the backup that every case makes, and the calls of each of its steps.
fn blueprint(mode: Coordination) -> (Plan, BTreeSet<(String, &'static str)>) {
    let (sim, world) = (Sim::new(1), two_arrays(2));
    let plan = sim.run(async {
        let this = stillpoint(&sim, &world, mode, |engine| engine);
        this.save_policy(&policy()).await.unwrap();
        let plans = this.engine_plans(&request("first")).await.unwrap();
        let job = this.backup(request("first")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let [plan] = <[Plan; 1]>::try_from(plans).unwrap();
        plan
    });
    let steps: BTreeSet<String> = plan.nodes().iter().map(|node| node.name.to_string()).collect();
    let calls = world.calls().all().into_iter().map(|call| (call.step.to_string(), call.name));
    // What is asked while a backup is planned is asked outside any step.
    (plan, calls.filter(|(step, _)| steps.contains(step) || step == "detached").collect())
}

fn case(mode: Coordination, step: &str, what: &str, rules: Vec<Rule>) -> Case {
    let word = match mode {
        Coordination::Engine => "engine",
        Coordination::Plugin => "plugin",
    };
    Case { name: format!("{word}/{step}/{what}"), mode, rules, mishap: None }
}

fn fail(effect: Effect, retryable: bool) -> Blow {
    Blow::Fail { effect, retryable }
}

/// Every step × everything that may happen to its call, on the side of the engine.
fn step_cases(mode: Coordination, plan: &Plan) -> Vec<Case> {
    let mut cases = Vec::new();
    for node in plan.nodes() {
        let NodeKind::Step(step) = &node.kind else { continue };
        let name = node.name.as_str();
        let beyond = step.timeout.unwrap_or(Duration::from_secs(25)) + Duration::from_secs(10);
        let rule = |blow| Rule::at(name, Part::Run, blow);
        let faults = [
            ("fails", rule(fail(Effect::None, true))),
            ("keeps failing", rule(fail(Effect::None, true)).always()),
            ("is refused", rule(fail(Effect::None, false))),
            ("may have failed", rule(fail(Effect::Unknown, true))),
            ("is in doubt", rule(fail(Effect::Unknown, false))),
            ("stays in doubt", rule(fail(Effect::Unknown, true)).always()),
            ("fails when done", rule(fail(Effect::Unknown, true)).after()),
            ("is in doubt when done", rule(fail(Effect::Unknown, false)).after()),
            ("hangs", rule(Blow::Hang)),
            ("is deaf", rule(Blow::Deaf)),
            ("stays deaf", rule(Blow::Deaf).always()),
            ("is deaf when done", rule(Blow::Deaf).after()),
            ("is slow", rule(Blow::Slow(beyond))),
            ("is slow when done", rule(Blow::Slow(beyond)).after()),
            ("panics", rule(Blow::Panic)),
            ("panics when done", rule(Blow::Panic).after()),
            ("is cancelled", rule(Blow::Cancel)),
            ("is cancelled when done", rule(Blow::Cancel).after()),
        ];
        cases.extend(faults.map(|(what, rule)| case(mode, name, what, vec![rule])));
    }
    cases
}

/// Every call of every step × everything that may happen to it at the other side.
fn call_cases(mode: Coordination, calls: &BTreeSet<(String, &'static str)>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (step, call) in calls {
        let faults = [
            ("io", false, false, Fault::Fail(Trouble::io())),
            ("io for good", false, true, Fault::Fail(Trouble::io())),
            ("timed out when done", true, false, Fault::Fail(Trouble::timed_out())),
            ("timed out when done for good", true, true, Fault::Fail(Trouble::timed_out())),
            ("fenced", false, false, Fault::Fail(Trouble::fenced())),
            ("a little slow", false, false, Fault::Slow(Duration::from_millis(700))),
            ("slow", false, false, Fault::Slow(Duration::from_secs(30))),
            ("hangs", false, false, Fault::Hang),
            ("deaf", false, false, Fault::Deaf),
            ("deaf when done", true, false, Fault::Deaf),
            ("panics", false, false, Fault::Panic),
            ("panics when done", true, false, Fault::Panic),
            ("soon", false, false, Fault::LateArrival(Duration::from_secs(5))),
            ("late", false, false, Fault::LateArrival(Duration::from_secs(90))),
            ("lies", false, false, Fault::Lie(Lie::Done)),
            ("dies", false, false, Fault::Die),
            ("dies when done", true, false, Fault::Die),
        ];
        for (what, after, always, fault) in faults {
            let what = format!("{call} {what}");
            let mishap = Mishap { step: step.clone(), call, after, always, fault };
            cases.push(Case { mishap: Some(mishap), ..case(mode, step, &what, Vec::new()) });
        }
    }
    cases
}

/// Every undo × everything that may happen to it, of a run that fails just before its point of no return.
fn undo_cases(mode: Coordination, plan: &Plan) -> Vec<Case> {
    let doom = Rule::at("index", Part::Run, fail(Effect::None, false));
    let mut cases = Vec::new();
    for node in plan.nodes() {
        let NodeKind::Step(step) = &node.kind else { continue };
        if step.effect != stillpoint::workflow::EffectKind::Reversible {
            continue;
        }
        let name = node.name.as_str();
        // What a guard's enter did is undone by its exit, which the cases above are about.
        if name.ends_with("/enter") {
            continue;
        }
        let rule = |blow| Rule::at(name, Part::Undo, blow);
        let faults = [
            ("undo fails", rule(fail(Effect::None, true))),
            ("undo keeps failing", rule(fail(Effect::None, true)).always()),
            ("undo is refused", rule(fail(Effect::None, false)).always()),
            ("undo fails when done", rule(fail(Effect::Unknown, true)).after()),
            ("undo is deaf", rule(Blow::Deaf)),
            ("undo stays deaf", rule(Blow::Deaf).always()),
            ("undo panics", rule(Blow::Panic)),
            ("undo panics when done", rule(Blow::Panic).after()),
            ("undo is cancelled", rule(Blow::Cancel)),
        ];
        cases.extend(faults.map(|(what, rule)| case(mode, name, what, vec![doom.clone(), rule])));
    }
    cases
}

/// Carries out cases and says how they ended. Red when one of them left something that it must not.
fn matrix(what: &str, cases: &[Case]) {
    let only = std::env::var("FAULT_CASE").ok();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut classes: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut red, mut count) = (Vec::new(), 0);
    for case in cases {
        if only.as_ref().is_some_and(|only| *only != case.name) {
            continue;
        }
        count += 1;
        let outcome = carry_out(case, Mutant::None);
        let end = outcome.state.map_or_else(|| "stuck".to_owned(), |state| state.to_string());
        // What kind of case it is: without the mode and the step.
        let class = case.name.splitn(3, '/').nth(2).unwrap_or_default();
        *classes.entry((class.to_owned(), end.clone())).or_default() += 1;
        *ends.entry(end).or_default() += 1;
        let touched = outcome.touched;
        if !outcome.violations.is_empty() || !touched {
            let state = outcome.state;
            println!("RED {} ({state:?}, touched: {touched})", case.name);
            outcome.violations.iter().for_each(|found| println!("    {found}"));
            red.push(case.name.clone());
        }
    }
    println!("fault matrix, {what}: {count} cases; {ends:?}");
    assert!(
        red.is_empty(),
        "{} of {count} cases are red; replay one with FAULT_CASE='{}' cargo test -p stillpoint --test fault_matrix -- --nocapture",
        red.len(),
        red[0]
    );
    if only.is_none() {
        golden(what, &classes);
    }
}

/// Holds still how the cases of each kind end. `STILLPOINT_BLESS=1` writes the golden files anew: read the difference.
fn golden(what: &str, classes: &BTreeMap<(String, String), usize>) {
    let mut found = String::new();
    let mut last = "";
    for ((class, end), count) in classes {
        if class != last {
            writeln!(found, "{class}").unwrap();
            last = class;
        }
        writeln!(found, "    {end}: {count}").unwrap();
    }
    let name: String = what.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/golden/fault_matrix/{name}.txt"));
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, wanted, "{what}: cases end in another way; see {}", file.display());
}

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
