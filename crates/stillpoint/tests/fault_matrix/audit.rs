//! What is looked at from the outside after a backup: whatever may be left behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use stillpoint::Stillpoint;
use stillpoint::catalog::{CatalogExt, MemoryCatalog, PointQuery};
use stillpoint::context::RunId;
use stillpoint::exchange::Coordination;
use stillpoint::model::id::{SessionId, SetToken};
use stillpoint::model::job::{Job, JobState, MemberEnd, RunEnd, RunState};
use stillpoint::model::point::{PointState, RestorePoint, Trust};
use stillpoint::model::quiesce::Consistency;
use stillpoint::storage::Snapshot;
use stillpoint::workflow::RunPhase;
use stillpoint_testkit::{Breach, Fault, Shape, World};
use uuid::Uuid;

use super::cases::Mishap;

/// What an audit looks at, and what it has found.
pub(crate) struct Rig<'a> {
    pub(crate) world: &'a World,
    pub(crate) this: &'a Stillpoint,
    pub(crate) catalog: Arc<MemoryCatalog>,
    pub(crate) mode: Coordination,
    /// Whether no thaw that is asked for reaches the other side: then the limit alone ends the freeze.
    pub(crate) gagged: bool,
    pub(crate) mishap: Option<Mishap>,
    pub(crate) found: Vec<String>,
}

impl Rig<'_> {
    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(what());
        }
    }

    async fn points(&self) -> Vec<RestorePoint> {
        self.catalog.all_points(&PointQuery::all()).await.unwrap()
    }

    /// What is known to be left behind, as one text.
    pub(crate) async fn listed(&self) -> String {
        let mut text = String::new();
        for debris in self.this.debris().await.unwrap() {
            writeln!(text, "{} {} {}", debris.key, debris.kind, debris.message).unwrap();
        }
        text
    }

    /// Looks at everything that a backup may leave behind.
    #[allow(clippy::too_many_lines, reason = "a list of questions, one after the other")]
    pub(crate) async fn audit(&mut self, when: &str, jobs: &[Job]) {
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
    pub(crate) fn lies(&self, call: &str) -> bool {
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
