//! Hooks around a job: runs of its own, before the first and after the last.
//!
//! Each has an id that follows from the job's, so that a process that carries a job on finds out whether they have been.

use std::sync::Arc;

use stillpoint_context::{Effect, ErrorClass, Failure, JobId, RunId};
use stillpoint_model::hook::{Hook, HookPhase};
use stillpoint_model::id::PolicyId;
use stillpoint_model::job::{Job, JobKind, JobRun, JobState, RunEnd, RunState};
use stillpoint_model::policy::Policy;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::PlanBuilder;
use uuid::Uuid;

use super::HookCall;
use super::steps::HookSteps;
use crate::Stillpoint;
use crate::bounds::cancelled;
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::job::LiveJob;
use crate::runs::Launch;

/// The run of the hooks before a job.
pub(crate) fn before(job: JobId) -> RunId {
    RunId(Uuid::new_v5(&job.0, b"hooks/before"))
}

/// The run of the hooks after a job: once it exists, everything that the job was for is over.
pub(crate) fn after(job: JobId) -> RunId {
    RunId(Uuid::new_v5(&job.0, b"hooks/after"))
}

/// Whether a run of a job is of hooks around it.
pub(crate) fn is_of_hooks(run: &JobRun, job: JobId) -> bool {
    run.run == before(job) || run.run == after(job)
}

/// Whether nothing of a job has begun but the hooks before it.
pub(crate) fn is_before_anything(job: &Job) -> bool {
    job.runs.iter().all(|run| run.run == before(job.id))
}

/// What the hooks of a job are told of it.
pub(crate) fn call_of(job: &Job, policy: &Policy) -> HookCall {
    // Which hook it is, the steps say.
    let hook = Hook::new(HookPhase::Always, "");
    HookCall::new(hook, job.id, job.kind, job.title.clone(), policy.reference())
}

impl Stillpoint {
    /// The policy whose hooks a job has, in the version that it pins; none for a job that has no hooks.
    pub(crate) async fn hooks_for(&self, job: &Job) -> Result<Option<Policy>, Error> {
        let Some(pinned) = &job.policy else { return Ok(None) };
        if !matches!(job.kind, JobKind::Backup | JobKind::Restore) {
            return Ok(None);
        }
        let catalog = &self.services().catalog;
        let (id, version) = (pinned.id, Some(pinned.version));
        let policy = async { Ok(catalog.policy(id, version).await?) };
        Ok(self.catalogue(policy).await?.filter(|policy| !policy.hooks.is_empty()))
    }

    /// The policy of a restore point as it is now, if it has hooks that a restore comes to.
    pub(crate) async fn hooks_of_restore(&self, id: PolicyId) -> Result<Option<Policy>, Error> {
        let concerns = |phase: HookPhase| {
            phase.is_of_restores() || matches!(phase, HookPhase::OnFailure | HookPhase::Always)
        };
        let policy = self.services().catalog.policy(id, None).await?;
        Ok(policy.filter(|policy| policy.hooks.iter().any(|hook| concerns(hook.phase))))
    }

    /// Runs the hooks before a backup, unless a process that is gone has.
    ///
    /// # Errors
    /// Of a hook that has to succeed and did not: the job fails, and nothing of it has begun.
    pub(crate) async fn before_job(&self, live: &Arc<LiveJob>) -> Result<(), Error> {
        let job = live.snapshot();
        let id = before(job.id);
        if !job.runs.iter().any(|run| run.run == id) {
            let Some(policy) = self.hooks_for(&job).await? else { return Ok(()) };
            let hooks: Vec<&Hook> = policy.hooks_of(HookPhase::BeforeJob).collect();
            let call = call_of(&job, &policy);
            self.run_hooks(live, id, &hooks, &call).await?;
        }
        let job = live.snapshot();
        let Some(run) = job.runs.iter().find(|run| run.run == id) else { return Ok(()) };
        match run.state {
            RunState::Ended(RunEnd::Succeeded | RunEnd::SucceededWithWarnings) => Ok(()),
            RunState::Ended(RunEnd::Cancelled) => Err(cancelled()),
            _ => Err(Error::Failed(run.failure.clone().unwrap_or_else(|| {
                Failure::new("hook.failed", ErrorClass::Conflict, "a hook before the job failed")
                    .with_effect(Effect::None)
                    .with_remedy("Look at the steps of the job's first run.")
            }))),
        }
    }

    /// Runs the hooks after a job whose end is known but for them, unless a process that is gone has.
    pub(crate) async fn after_job(&self, live: &Arc<LiveJob>) {
        let job = live.snapshot();
        let id = after(job.id);
        if job.runs.iter().any(|run| run.run == id) {
            return;
        }
        let state = self.state_at_end(&job);
        if !state.is_final() {
            return;
        }
        let ran = async {
            let Some(policy) = self.hooks_for(&job).await? else { return Ok(()) };
            let first = match state {
                JobState::Succeeded | JobState::SucceededWithWarnings => {
                    (job.kind == JobKind::Backup).then_some(HookPhase::AfterBackup)
                }
                JobState::Failed | JobState::NeedsAttention => Some(HookPhase::OnFailure),
                _ => None,
            };
            let phases = first.into_iter().chain([HookPhase::Always]);
            let hooks: Vec<&Hook> = phases.flat_map(|phase| policy.hooks_of(phase)).collect();
            let mut call = call_of(&job, &policy);
            call.databases = job.members().map(|member| member.name.clone()).collect();
            call.databases.sort();
            call.outcome = Some(state.word().to_owned());
            call.tally = Some(job.tally());
            self.run_hooks(live, id, &hooks, &call).await
        };
        if let Err(error) = ran.await {
            let warning = Warning::new(
                "hook.not_run",
                format!("the hooks after the job could not be run: {error}"),
                "See to what they do by hand.",
            );
            live.change(|job| job.warnings.push(warning));
        }
    }

    /// What the state of a job is if nothing more of it comes.
    pub(crate) fn state_at_end(&self, job: &Job) -> JobState {
        let mut ended = job.clone();
        ended.planned_at = Some(self.seams().clock.now());
        ended.state()
    }

    /// Runs hooks as a run of the job, if there are any.
    async fn run_hooks(
        &self,
        live: &Arc<LiveJob>,
        id: RunId,
        hooks: &[&Hook],
        call: &HookCall,
    ) -> Result<(), Error> {
        if hooks.is_empty() {
            return Ok(());
        }
        let mut plan = PlanBuilder::new("hooks");
        let _plan = plan.grace(self.timeouts().grace);
        HookSteps::new(&mut plan, call, None).add(hooks.iter().copied(), None);
        let plan = plan.build().map_err(plan_defect)?;
        let mut run = JobRun::new(id, self.seams().clock.now());
        // It makes nothing that counts.
        run.follow_up = true;
        let brief = Brief::new(run, Leaves::default(), Concern::Hooks);
        let _report = self.run(live, Launch::new(brief, plan)).await?;
        Ok(())
    }
}
