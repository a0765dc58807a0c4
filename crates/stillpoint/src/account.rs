//! One job with everything that is known of it: the steps of its runs, what is stuck, what it holds, what it left.

use stillpoint_catalog::Debris;
use stillpoint_context::{Failure, JobId, RunId, StepName};
use stillpoint_model::hook::HookEnd;
use stillpoint_model::job::{Job, JobRun, RunState};
use stillpoint_workflow::{GuardVerdict, NodeKind, NodeNo, NodeProgress, Plan, RunAccount};

use crate::Stillpoint;
use crate::error::Error;
use crate::locks::Lock;
use crate::parked::ParkedStep;

/// A job with everything that is known of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct JobAccount {
    /// The job.
    pub job: Job,
    /// Its runs that the journal still knows, in the order of the job.
    pub runs: Vec<RunSteps>,
    /// What its runs hold.
    pub locks: Vec<Lock>,
    /// What its runs left behind and nobody has taken away.
    pub debris: Vec<Debris>,
}

impl JobAccount {
    /// A job of which nothing else is known. For tests of whoever shows them.
    pub const fn new(job: Job) -> Self {
        Self { job, runs: Vec::new(), locks: Vec::new(), debris: Vec::new() }
    }
}

/// The steps of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunSteps {
    /// The run.
    pub run: RunId,
    /// Its steps and guards, in the order of its plan.
    pub steps: Vec<StepAccount>,
    /// What of it waits for a person.
    pub parked: Vec<ParkedStep>,
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepAccount {
    /// The step or guard.
    pub step: StepName,
    /// The guard that it is inside of.
    pub within: Option<StepName>,
    /// How far.
    pub progress: NodeProgress,
    /// How often it was tried.
    pub attempts: u32,
    /// What it failed with last.
    pub failure: Option<Failure>,
    /// The verdict, of a guard that is over.
    pub verdict: Option<GuardVerdict>,
    /// What became of the program, of a hook that has ended; of one whose failure failed its run, that is in the failure.
    pub hook: Option<HookEnd>,
}

impl StepAccount {
    /// A step that has come this far. For tests of whoever shows them.
    pub const fn new(step: StepName, progress: NodeProgress, attempts: u32) -> Self {
        let (failure, verdict, hook) = (None, None, None);
        Self { step, within: None, progress, attempts, failure, verdict, hook }
    }
}

/// Whether a step is a hook.
fn is_hook(plan: &Plan, at: NodeNo) -> bool {
    let kind = &plan.node(at).kind;
    matches!(kind, NodeKind::Step(step) if crate::hooks::steps::is_hook(&step.action))
}

impl RunSteps {
    /// A run with these steps, of which none is parked. For tests of whoever shows them.
    pub const fn new(run: RunId, steps: Vec<StepAccount>) -> Self {
        Self { run, steps, parked: Vec::new() }
    }

    fn of(known: &RunAccount) -> Self {
        let state = &known.state;
        let plan = state.plan();
        let named = plan.nodes().iter().filter(|node| node.kind != NodeKind::Input);
        let steps = named.filter_map(|node| {
            let at = plan.find(node.name.as_str())?;
            Some(StepAccount {
                step: node.name.clone(),
                within: node.within.map(|guard| plan.node(guard).name.clone()),
                progress: state.progress(at),
                attempts: state.attempts(at),
                failure: state.failure(at).cloned(),
                verdict: state.verdict(at),
                hook: is_hook(plan, at).then(|| state.output(at)?.read().ok()).flatten(),
            })
        });
        let parked = known.parked.iter().map(ParkedStep::of).collect();
        Self { run: state.run(), steps: steps.collect(), parked }
    }
}

/// The journal is nearer to the truth than a job that is followed elsewhere, or by nobody any more: jobs are not stored at each
/// turn of their runs, as that might be inside a freeze.
fn show(run: &mut JobRun, known: &RunAccount) {
    let state = &known.state;
    if matches!(run.state, RunState::Ended(_)) || state.end().is_some() {
        return;
    }
    if let Some(parked) = known.parked.first() {
        (run.state, run.failure) = (RunState::Parked, Some(parked.failure.clone()));
    } else if state.is_unwinding() || state.cancelled_by().is_some() {
        run.state = RunState::Cancelling;
    } else if known.started_at.is_some() {
        run.state = RunState::Running;
    }
    run.started_at = run.started_at.or(known.started_at);
}

impl Stillpoint {
    /// Has a job that is not under way here show how far its open runs have come.
    pub(crate) async fn look_up(&self, job: &mut Job) {
        for run in &mut job.runs {
            if !matches!(run.state, RunState::Ended(_))
                && let Ok(Some(known)) = self.engine().account(run.run).await
            {
                show(run, &known);
            }
        }
    }

    /// A job with everything that is known of it, also one of a process that is gone: read from journal and catalogue, so it
    /// needs no [recovery](Self::recover) and changes nothing. Nothing if there is no such job.
    ///
    /// # Errors
    /// Of the journal and the catalogue. A run that cannot be read is left out, and stands among the [parked](Self::parked).
    pub async fn account(&self, id: JobId) -> Result<Option<JobAccount>, Error> {
        let Some(mut job) = self.job(id).await? else { return Ok(None) };
        let mut runs = Vec::new();
        for run in &mut job.runs {
            let Ok(Some(known)) = self.engine().account(run.run).await else { continue };
            show(run, &known);
            runs.push(RunSteps::of(&known));
        }
        let mine = |run: RunId| job.runs.iter().any(|known| known.run == run);
        let mut locks = self.locks().await?;
        locks.retain(|lock| mine(lock.run));
        let mut debris = self.debris().await?;
        debris.retain(|left| mine(left.run));
        Ok(Some(JobAccount { job, runs, locks, debris }))
    }
}
