//! Runs that wait for a person: listed, tried again, settled by hand, given up.
//!
//! ```text
//!   parked ─┬ resume   what is stuck is tried again
//!           ├ resolve  somebody has seen to it: it is done, and the run goes on
//!           └ abandon  the run ends; what it owed is debris, what it held is free
//! ```

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{CatalogExt, JobQuery};
use stillpoint_context::{Effect, ErrorClass, Failure, JobId, ProcessId, RunId, StepName, Subject};
use stillpoint_model::job::{Job, RunState};
use stillpoint_workflow::{
    Claim, EngineError, OpenRun, ParkReason, ParkedNode, Payload, Resolution, RunHandle, RunPhase,
    RunState as EngineState,
};

use crate::Stillpoint;
use crate::brief::JOB;
use crate::byhand;
use crate::error::Error;
use crate::follow::open_state;
use crate::job::{JobHandle, LiveJob};

/// Why a run waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stuck {
    /// The exit of a guard, such as a thaw, is owed and keeps failing.
    ExitOwed,
    /// A step failed past the point of no return: nothing is undone any more, and the rest is not done.
    PastNoReturn,
    /// The plan names an action that this version does not have.
    UnknownAction,
    /// Its records cannot be read: of a newer format, or damaged.
    StoredFormat,
    /// Another reason, of a newer engine.
    Other,
}

impl Stuck {
    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExitOwed => "exit_owed",
            Self::PastNoReturn => "past_no_return",
            Self::UnknownAction => "unknown_action",
            Self::StoredFormat => "stored_format",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ExitOwed => "an exit is owed",
            Self::PastNoReturn => "it failed past the point of no return",
            Self::UnknownAction => "its action is unknown to this version",
            Self::StoredFormat => "its records cannot be read",
            Self::Other => "it waits for a person",
        })
    }
}

impl From<ParkReason> for Stuck {
    fn from(reason: ParkReason) -> Self {
        match reason {
            ParkReason::ExitOwed => Self::ExitOwed,
            ParkReason::PastNoReturn => Self::PastNoReturn,
            ParkReason::UnknownAction => Self::UnknownAction,
            _ => Self::Other,
        }
    }
}

/// A step of a run, or the run as a whole, that waits for a person.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParkedStep {
    /// The step or guard; none where the run cannot be read.
    pub step: Option<StepName>,
    /// Why.
    pub why: Stuck,
    /// What failed last.
    pub failure: Failure,
    /// Since when, if that can be read.
    pub since: Option<DateTime<Utc>>,
}

impl ParkedStep {
    /// A step that is parked for this, with what failed last. For tests of whoever shows them.
    pub const fn new(step: Option<StepName>, why: Stuck, failure: Failure) -> Self {
        Self { step, why, failure, since: None }
    }

    pub(crate) fn of(parked: &ParkedNode) -> Self {
        Self {
            step: Some(parked.step.clone()),
            why: parked.reason.into(),
            failure: parked.failure.clone(),
            since: Some(parked.since),
        }
    }
}

/// A run that waits for a person. It keeps what it claims.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParkedRun {
    /// The run.
    pub run: RunId,
    /// Its job; none for a run that the embedder submitted itself.
    pub job: Option<JobId>,
    /// What it does, in words.
    pub title: String,
    /// What of it is stuck; never empty.
    pub steps: Vec<ParkedStep>,
    /// What it holds.
    pub claims: Vec<Claim>,
    /// The runs that wait for something that it holds.
    pub waiting: Vec<RunId>,
    /// The process that wrote of it last. It may be gone.
    pub process: ProcessId,
}

impl ParkedRun {
    /// A run of no job that holds nothing. For tests of whoever shows them.
    pub fn new(
        run: RunId,
        process: ProcessId,
        title: impl Into<String>,
        steps: Vec<ParkedStep>,
    ) -> Self {
        let (title, claims, waiting) = (title.into(), Vec::new(), Vec::new());
        Self { run, job: None, title, steps, claims, waiting, process }
    }
}

/// What somebody has found out about a step that is parked. One that is not done is [resumed](Stillpoint::resume).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByHand {
    /// It is done, by hand or after all. What it would have answered nobody knows.
    Done,
    /// It is done, and this is what it gave.
    Gave(Payload),
}

/// The job of a run, as the run's labels say.
pub(crate) fn job_of(state: &EngineState) -> Option<JobId> {
    state.submitted().labels.get(JOB).and_then(|job| job.parse().ok())
}

impl Stillpoint {
    /// Every run that waits for a person, of all processes, also of those that are gone: read from the journal, so it needs no
    /// [recovery](Self::recover) and changes nothing.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use stillpoint::model::{job::JobState, policy::Policy, request::BackupRequest};
    /// use stillpoint::{ByHand, Stillpoint, Stuck, Timeouts};
    /// use stillpoint_testkit::{Fault, Trouble, World};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let world = World::one_server(1);
    /// # let mut timeouts = Timeouts::default();
    /// # timeouts.attempts = 1;
    /// let stillpoint = Stillpoint::builder(Arc::new(world.exchange()))
    ///     .provider(Arc::new(world.storage()))
    /// #   .timeouts(timeouts)
    ///     .build()?;
    /// let policy = Policy::new("6b1d0c1e-5f0e-4a51-9c2f-0d8f5a7d2b10".parse()?, "default");
    /// stillpoint.save_policy(&policy).await?;
    ///
    /// // Exchange does not say whether it has completed the backup: past the point of no return nothing is undone.
    /// world.faults().on("complete").inject(Fault::fail(Trouble::timed_out()));
    /// let request = BackupRequest::everything("night".parse()?, policy.id);
    /// let job = stillpoint.backup(request).await?.settled().await;
    /// assert_eq!(job.state(), JobState::Parked);
    ///
    /// let parked = stillpoint.parked().await?;
    /// assert_eq!((parked[0].job, parked[0].steps[0].why), (Some(job.id), Stuck::PastNoReturn));
    /// assert!(stillpoint.locks().await?.iter().all(|lock| lock.run == parked[0].run));
    ///
    /// // Somebody has looked: the backup is complete.
    /// let job = stillpoint.resolve(parked[0].run, "complete", ByHand::Done, "me").await?;
    /// let job = job.ok_or("the run has a job")?.settled().await;
    /// assert_eq!(job.state(), JobState::SucceededWithWarnings);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of the journal and the catalogue.
    ///
    /// # Complexity
    /// O(records of the open runs).
    pub async fn parked(&self) -> Result<Vec<ParkedRun>, Error> {
        let open = self.engine().open_runs().await?;
        let stuck: Vec<&OpenRun> = open
            .iter()
            .filter(|open| open.account.as_ref().map_or(true, |known| !known.parked.is_empty()))
            .collect();
        if stuck.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.engine().claims().await?;
        let unread = stuck.iter().any(|open| open.account.is_err());
        let jobs = if unread { self.unfinished().await? } else { Vec::new() };
        let told = stuck.into_iter().map(|open| {
            let held = claims.holders.iter().find(|(run, _)| *run == open.run);
            let held = held.map(|(_, held)| held.clone()).unwrap_or_default();
            let waits = |wanted: &[Claim]| {
                wanted.iter().any(|wanted| held.iter().any(|held| held.conflicts_with(wanted)))
            };
            let waiting = claims.wanted.iter().filter(|(_, wanted)| waits(wanted));
            let waiting = waiting.map(|(run, _)| *run).collect();
            let (job, title, steps) = match &open.account {
                Ok(known) => {
                    let steps = known.parked.iter().map(ParkedStep::of).collect();
                    (job_of(&known.state), known.state.plan().name().to_owned(), steps)
                }
                Err(error) => {
                    let job = jobs.iter().find(|job| job.runs.iter().any(|r| r.run == open.run));
                    let title = job.map(|job| job.kind.to_string()).unwrap_or_default();
                    let (why, failure) = (Stuck::StoredFormat, Failure::of(error));
                    let step = ParkedStep { step: None, why, failure, since: None };
                    (job.map(|job| job.id), title, vec![step])
                }
            };
            let (run, process) = (open.run, open.owner);
            ParkedRun { run, job, title, steps, claims: held, waiting, process }
        });
        Ok(told.collect())
    }

    async fn unfinished(&self) -> Result<Vec<Job>, Error> {
        let mut open = JobQuery::all();
        open.ended = Some(false);
        Ok(self.services().catalog.all_jobs(&open).await?)
    }

    /// Tries again what is parked in a run. Gives the job of the run, whose [`settled`](JobHandle::settled) says what came of
    /// it; none if the run has none.
    ///
    /// A run of a process that is gone is [recovered](Self::recover) first, along with whatever else that process left.
    ///
    /// # Errors
    /// `not_found`; `run.not_parked`; `run.elsewhere` when a process that is alive carries it; `run.cannot_resume` when its
    /// action is unknown here; `journal.format` when it cannot be read.
    ///
    /// # Idempotence
    /// Repeated, it says `run.not_parked`, or tries once more what is parked again.
    pub async fn resume(&self, run: RunId, by: &str) -> Result<Option<JobHandle>, Error> {
        let handle = self.parked_run(run).await?;
        let parked = handle.status().parked;
        if parked.iter().all(|(_, parked)| parked.reason == ParkReason::UnknownAction) {
            return Err(cannot_resume(run).into());
        }
        let job = self.live().of_run(run);
        handle.resume(by).await?;
        Ok(job.map(|live| goes_on(live, &handle)))
    }

    /// Says that a parked step has been seen to by hand, and lets the run go on. Gives its job as [`resume`](Self::resume)
    /// does.
    ///
    /// An exit that is owed is taken as done: whoever says so has seen that nothing is frozen any more. A step that failed past
    /// the point of no return is taken as done; what it gave is what the steps after it are given.
    ///
    /// # Errors
    /// As [`resume`](Self::resume); `run.no_step`; `run.not_parked` when another step is; `run.resolution_unfit` when nobody
    /// can settle such a step by hand, or it gives something else.
    pub async fn resolve(
        &self,
        run: RunId,
        step: &str,
        outcome: ByHand,
        by: &str,
    ) -> Result<Option<JobHandle>, Error> {
        let handle = self.parked_run(run).await?;
        let state = handle.state().await?;
        if state.plan().find(step).is_none() {
            return Err(EngineError::NoStep { run, step: step.to_owned() }.into());
        }
        let parked = handle.status().parked;
        let known = parked.iter().find(|(name, _)| name.as_str() == step);
        let (_, parked) = known.ok_or(EngineError::NotParked { run })?;
        let output = byhand::output(state.plan(), step, parked.reason, outcome)?;
        let job = self.live().of_run(run);
        handle.resolve(by, step, Resolution::Done(output)).await?;
        Ok(job.map(|live| goes_on(live, &handle)))
    }

    /// Gives a parked run up: it ends as one that needs attention, what it owed becomes [debris](Self::debris), and what it
    /// held is free. Gives its job as [`resume`](Self::resume) does.
    ///
    /// # Errors
    /// As [`resume`](Self::resume); `run.not_parked` also while something of the run is still at work.
    pub async fn abandon(&self, run: RunId, by: &str) -> Result<Option<JobHandle>, Error> {
        let handle = self.parked_run(run).await?;
        // A job that is over is soon forgotten here.
        let job = self.live().of_run(run);
        handle.abandon(by).await?;
        Ok(job.map(|live| goes_on(live, &handle)))
    }

    /// The handle of a parked run, which is carried here then.
    async fn parked_run(&self, run: RunId) -> Result<RunHandle, Error> {
        if let Some(handle) = self.engine().run(run) {
            return is_parked(handle).await;
        }
        let known = self.engine().account(run).await?;
        let known = known.ok_or_else(|| Error::NotFound { kind: "run", id: run.to_string() })?;
        if known.parked.is_empty() {
            return Err(EngineError::NotParked { run }.into());
        }
        drop(self.recover().await?);
        let handle = self.engine().run(run).ok_or(EngineError::Elsewhere { run })?;
        // What it lacks it finds out as it takes the run up.
        drop(handle.settled().await);
        is_parked(handle).await
    }
}

/// Shows in its job that a run is not parked any more.
fn goes_on(live: Arc<LiveJob>, handle: &RunHandle) -> JobHandle {
    live.change_run(handle.id(), |run| {
        // Looked at in here, so that of two who show it the later one shows what is newer. What has ended is about to be
        // concluded.
        let state = open_state(handle.status().phase).unwrap_or(RunState::Running);
        if run.state == RunState::Parked && state != RunState::Parked {
            run.state = state;
            run.failure = None;
        }
    });
    JobHandle::new(live)
}

async fn is_parked(handle: RunHandle) -> Result<RunHandle, Error> {
    if handle.status().phase == RunPhase::Parked {
        // What is parked is told once the run has been taken up.
        drop(handle.settled().await);
    }
    if handle.status().parked.is_empty() {
        return Err(EngineError::NotParked { run: handle.id() }.into());
    }
    Ok(handle)
}

fn cannot_resume(run: RunId) -> Failure {
    let message = format!("run {run} needs an action that this version does not have");
    Failure::new("run.cannot_resume", ErrorClass::Conflict, message)
        .with_effect(Effect::None)
        .with_subject(Subject::new("run", run))
        .with_remedy(
            "Start the version that has it, which carries on by itself; or abandon the run.",
        )
}
