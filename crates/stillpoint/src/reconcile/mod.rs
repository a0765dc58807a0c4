//! Reconcile: whether the catalogue tells the truth, and what to do if it does not.
//!
//! ```text
//!   reconcile ─ look ─ compare ─ report                                              (read only)
//!   repair ──── look ─ compare ─┬─ run: claim set 1 … set n ─ look again ─ act ─┬─ job state
//!                               └─ …                                            └
//! ```
//!
//! A scheduler does both by itself, if it is to: see [`Reconciling`](crate::Reconciling).
//!
//! A repair acts upon each set by itself, with the set claimed, and only after it has looked at it again: what is not as the
//! report says by then is left as it is. What is told of points are facts of the journal like any other.

pub(crate) mod look;
mod news;
pub(crate) mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Failure, IdempotencyKey, RunId};
use stillpoint_model::id::SetToken;
use stillpoint_model::job::{Job, JobKind, JobRun};
use stillpoint_model::planning::Claim;
use stillpoint_model::reconcile::{Act, Comparison};
use stillpoint_model::request::Trigger;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{Action, Plan, PlanBuilder};
use uuid::Uuid;

use self::steps::{Tend, TendParams};
use crate::Stillpoint;
use crate::bounds::{unless_cancelled, within};
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::job::{JobHandle, LiveJob};
use crate::pools::OnStorage as _;
use crate::runs::{Ask, Launch};

/// The most sets that one run claims: while it waits for one, others must not wait for it for long.
const SETS: usize = 32;

/// How a reconcile goes about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReconcileOptions {
    /// How long an orphan, or what is left of removed points, is left alone once it is noted; without it, neither is ever deleted.
    ///
    /// Mind whom a storage is shared with: to each other, two Stillpoints on one storage are strangers who left orphans.
    pub grace: Option<Duration>,
}

impl ReconcileOptions {
    /// Orphans are reported, noted, and kept.
    pub fn keep_orphans() -> Self {
        Self::default()
    }

    /// Orphans are deleted so long after they were noted.
    pub fn delete_orphans_after(grace: Duration) -> Self {
        Self { grace: Some(grace) }
    }

    pub(crate) fn grace(&self) -> Option<TimeDelta> {
        self.grace.map(|grace| TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX))
    }
}

/// What a reconcile found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReconcileReport {
    /// When it was looked.
    pub at: DateTime<Utc>,
    /// What was found of each thing.
    pub comparison: Comparison,
    /// Where nobody could look, in one sentence each.
    pub limits: Vec<String>,
}

impl ReconcileReport {
    /// A report of these findings. For tests of whoever shows it.
    pub const fn new(at: DateTime<Utc>, comparison: Comparison, limits: Vec<String>) -> Self {
        Self { at, comparison, limits }
    }

    /// Whether nothing is to be looked at by anybody.
    pub fn is_clean(&self) -> bool {
        self.limits.is_empty() && self.comparison.troubles().next().is_none()
    }
}

/// What is to be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RepairRequest {
    /// Our key: the same key is the same job.
    pub key: IdempotencyKey,
    /// Who or what asks.
    pub trigger: Trigger,
    /// How.
    pub options: ReconcileOptions,
}

impl RepairRequest {
    /// A request of a person.
    pub fn new(key: IdempotencyKey, options: ReconcileOptions) -> Self {
        Self { key, trigger: Trigger::Manual { user: None }, options }
    }
}

impl Stillpoint {
    /// Compares the catalogue with what the storages show: a finding for each restore point, for each set of snapshots of ours
    /// that no point lies on, for each manifest of nothing, and for each snapshot that is not ours. Changes nothing.
    ///
    /// Looked at are the volumes that restore points lie on and those that Exchange is on now. One that cannot be listed makes
    /// what lies on it unknown, never missing.
    ///
    /// # Errors
    /// Of the catalogue and the journal. A storage that cannot be asked is in the report.
    ///
    /// # Complexity
    /// A listing of each volume, page by page. Of points and snapshots only the ids are held.
    pub async fn reconcile(&self, options: &ReconcileOptions) -> Result<ReconcileReport, Error> {
        let looked = look::everything(self, options.grace()).await?;
        let comparison = Comparison::of(&looked.sight);
        Ok(ReconcileReport { at: looked.sight.now, comparison, limits: looked.limits })
    }

    /// Does what a [`reconcile`](Self::reconcile) finds is to be done, as a job. Points whose snapshots are gone are told to be
    /// missing, and told back when they are there again. Points that the catalogue lacks are adopted from their manifests, with
    /// what is known of their verification. Other orphans, and what comes back of points that were removed, are noted as
    /// [debris](Self::debris), and deleted once they have been for as long as the options say. What is not ours is never touched.
    ///
    /// # Errors
    /// `run.key_reused` when the key was used for another request. What goes wrong later is in the job, and so is each point that
    /// is missing, as a warning.
    ///
    /// # Idempotence
    /// The same request with the same key is the same job. A repair that finds nothing to do begins no run.
    ///
    /// # Crash behaviour
    /// Each set is as it was, or as the report wants it; the next repair does the rest.
    pub async fn repair(&self, request: RepairRequest) -> Result<JobHandle, Error> {
        self.begin_repair(request, Vec::new()).await
    }

    /// The same with something to say beside what it does.
    async fn begin_repair(
        &self,
        request: RepairRequest,
        warnings: Vec<Warning>,
    ) -> Result<JobHandle, Error> {
        let ask = Ask {
            kind: JobKind::Reconcile,
            key: request.key.clone(),
            trigger: request.trigger.clone(),
            body: crate::runs::body(&request)?,
            due: None,
        };
        self.start(
            ask,
            |job: &mut Job| {
                "reconcile".clone_into(&mut job.title);
                job.warnings = warnings;
            },
            move |this, live| {
                Box::pin(async move { this.carry_out_repair(&live, &request.options).await })
            },
        )
        .await
    }

    async fn carry_out_repair(
        &self,
        live: &Arc<LiveJob>,
        options: &ReconcileOptions,
    ) -> Result<(), Error> {
        let look = self.reconcile(options);
        let limit = self.timeouts().settle;
        let look = within(self.seams(), limit, "looking at the storages", look);
        let report = unless_cancelled(live.cancel_token(), look).await?;
        let acts: Vec<_> = report.comparison.acts().into_iter().collect();
        for (number, sets) in acts.chunks(SETS).enumerate() {
            if live.cancel_token().is_cancelled() {
                break;
            }
            let job = live.snapshot().id;
            let id = RunId(Uuid::new_v5(&job.0, format!("reconcile/{number}").as_bytes()));
            let sets = sets.iter().map(|(set, acts)| ((*set).clone(), acts.clone())).collect();
            let plan = self.compile_repair(sets, options)?;
            let run = JobRun::new(id, self.seams().clock.now());
            let brief = Brief::new(run, Leaves::default(), Concern::Reconcile);
            let _report = self.run(live, Launch::new(brief, plan)).await?;
        }
        self.tell_unwritten().await;
        Ok(())
    }

    fn compile_repair(
        &self,
        sets: BTreeMap<SetToken, Vec<Act>>,
        options: &ReconcileOptions,
    ) -> Result<Plan, Failure> {
        let timeouts = self.timeouts();
        let mut plan = PlanBuilder::new("reconcile");
        let _plan = plan.grace(timeouts.grace);
        for (number, (set, acts)) in sets.into_iter().enumerate() {
            let _plan = plan.claim(crate::claims::of(&Claim::set(&set), None)?);
            let params = TendParams { set, acts, options: options.clone(), late: timeouts.late };
            let _done = plan
                .step(format!("tend:{}", number + 1), Tend::with(params))
                .on_storage()
                .timeout(timeouts.delete)
                .retry(timeouts.retry())
                .undo_timeout(timeouts.delete)
                .optional()
                .add();
        }
        plan.build().map_err(plan_defect)
    }
}
