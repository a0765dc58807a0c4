//! Prune: deletes what the rules let go, one run for each database.
//!
//! ```text
//!   request ─ table ─┬─ database 1 ─ claims ─ decide again ─ intent ─┬ delete(p) ┬─ job state
//!                    └─ database 2 ─ …                               └ delete(q) ┘
//! ```
//!
//! A run holds exactly what it deletes, so that backups go on. Under its claims it decides again, and makes the intent known:
//! the points are then *expiring*, whatever happens. Then it looks at the holds once more, which can only be fewer by then, and
//! deletes. Whatever is left of a point is deleted by the next prune.

pub(crate) mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Failure, IdempotencyKey, RunId};
use stillpoint_model::id::{DatabaseId, PointId, PolicyId, SetToken, SnapshotRef};
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun, MemberEnd};
use stillpoint_model::request::Trigger;
use stillpoint_model::retention::PruneOrder;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{Action, Out, Plan, PlanBuilder};
use uuid::Uuid;

use self::steps::{Decide, DecideParams, Delete, DeleteParams, Deletion};
use crate::Stillpoint;
use crate::bounds::{unless_cancelled, within};
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::job::{JobHandle, LiveJob};
use crate::pools::OnStorage as _;
use crate::retention::DatabaseRetention;
use crate::runs::{Ask, Launch};

/// What a prune is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PruneScope {
    /// Every database.
    #[default]
    Everything,
    /// These.
    Databases(BTreeSet<DatabaseId>),
    /// One restore point, whatever its rules say, unless it must not be deleted.
    Point(PointId),
    /// One snapshot. Always refused where a restore point lies on it: its snapshots go together.
    Snapshot(SnapshotRef),
}

/// Which part of its job a prune is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// It makes room for the backup that comes after it.
    Before,
    /// It comes after a backup.
    After,
}

impl Part {
    /// What tells its runs from those of another part.
    const fn name(self) -> &'static str {
        match self {
            Self::Whole | Self::After => "prune",
            Self::Before => "make-room",
        }
    }
}

/// What of a scope is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneTarget {
    /// Of what.
    pub scope: PruneScope,
    /// Only points that were made under this policy, and what was begun to be deleted before.
    pub policy: Option<PolicyId>,
}

impl PruneTarget {
    /// Everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// All of a scope.
    pub fn of(scope: PruneScope) -> Self {
        Self { scope, policy: None }
    }
}

/// What is to be pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneRequest {
    /// Our key: the same key is the same job.
    pub key: IdempotencyKey,
    /// Who or what asks.
    pub trigger: Trigger,
    /// What is meant.
    pub target: PruneTarget,
}

impl PruneRequest {
    /// A request of a person.
    pub fn new(key: IdempotencyKey, target: PruneTarget) -> Self {
        Self { key, trigger: Trigger::Manual { user: None }, target }
    }
}

impl Stillpoint {
    /// Deletes what [`retention`](Self::retention) says may go, as a job with one run for each database. What is left of a point
    /// that could not be deleted whole is expiring: it is never restored from, and the next prune goes on with it.
    ///
    /// # Errors
    /// [`Error::Prune`] for a point that is named and must not be deleted, or for a snapshot of one; `run.key_reused` when the
    /// key was used for another request. What goes wrong later is in the job: a point that stays after all, or only in part,
    /// is a warning.
    ///
    /// # Idempotence
    /// The same request with the same key is the same job.
    ///
    /// # Crash behaviour
    /// At whatever instant the process ends, each point is whole, or expiring, or gone.
    pub async fn prune(&self, request: PruneRequest) -> Result<JobHandle, Error> {
        let is_there = match &request.target.scope {
            // One that is gone may have been deleted by this very request.
            PruneScope::Point(point) => self.point(*point).await?.is_some(),
            PruneScope::Snapshot(_) => true,
            _ => false,
        };
        if is_there {
            drop(self.retention(&request.target).await?);
        }
        let ask = Ask {
            kind: JobKind::Prune,
            key: request.key.clone(),
            trigger: request.trigger.clone(),
            body: crate::runs::body(&request)?,
            due: None,
        };
        let title = match &request.target.scope {
            PruneScope::Point(point) => format!("deletion of {point}"),
            _ => "prune".to_owned(),
        };
        self.start(
            ask,
            move |job: &mut Job| job.title = title,
            move |this, live| {
                Box::pin(async move { this.prune_for(&live, &request.target, Part::Whole).await })
            },
        )
        .await
    }

    /// Prunes as a part of a job.
    pub(crate) async fn prune_for(
        &self,
        live: &Arc<LiveJob>,
        target: &PruneTarget,
        part: Part,
    ) -> Result<(), Error> {
        let table = self.retention(target);
        let limit = self.timeouts().inventory;
        let table = within(self.seams(), limit, "looking at what is kept", table);
        let table = unless_cancelled(live.cancel_token(), table).await?;
        let todo = table.databases.iter().filter(|database| !database.order.is_empty());
        let runs = todo.map(|database| self.prune_database(live, target, database, part));
        let failed = join_all(runs).await.into_iter().filter_map(Result::err);
        for failure in failed {
            live.change(|job| {
                let _kept = job.failure.get_or_insert(failure);
            });
        }
        Ok(())
    }

    /// The follow-up of a backup: what its policy lets go of its databases. Not where any of them came out badly: what is there
    /// of it may be all that there is.
    pub(crate) async fn prune_after(&self, live: &Arc<LiveJob>, policy: PolicyId) {
        let job = live.snapshot();
        let (good, all) = job.tally();
        let members = || job.runs.iter().flat_map(|run| &run.members);
        let is_bad = |member: &JobMember| {
            matches!(
                member.end,
                Some(MemberEnd::Failed { .. } | MemberEnd::Point { suspect: true, .. })
            )
        };
        // The verification that follows on a backup may have found what the backup did not look for.
        let follows = job.runs.iter().filter(|run| run.follow_up).flat_map(|run| &run.members);
        let left_out = if live.cancel_token().is_cancelled() {
            Some("the job was cancelled".to_owned())
        } else if all == 0 && !job.coalesced.is_empty() {
            // All that it is about is with other jobs.
            None
        } else if good < all || all == 0 {
            Some(format!("{good} of {all} databases came out well"))
        } else if follows.into_iter().any(is_bad) {
            Some("a verification found something".to_owned())
        } else {
            let databases = members().map(|member| member.database).collect();
            let scope = PruneScope::Databases(databases);
            let target = PruneTarget { scope, policy: Some(policy) };
            self.prune_for(live, &target, Part::After).await.err().map(|error| error.to_string())
        };
        if let Some(why) = left_out {
            let warning = Warning::new(
                "prune.not_done",
                format!("nothing was pruned: {why}"),
                "Prune once the backup is good.",
            );
            live.change(|job| job.warnings.push(warning));
        }
    }

    async fn prune_database(
        &self,
        live: &Arc<LiveJob>,
        target: &PruneTarget,
        database: &DatabaseRetention,
        part: Part,
    ) -> Result<(), Failure> {
        let job = live.snapshot().id;
        let name = format!("{}/{}", part.name(), database.database);
        let id = RunId(Uuid::new_v5(&job.0, name.as_bytes()));
        let plan = self.compile_prune(target, &database.order)?;
        let mut run = JobRun::new(id, self.seams().clock.now());
        run.follow_up = part != Part::Whole;
        run.members = vec![JobMember::new(database.database, database.name.clone())];
        let brief = Brief::new(run, Leaves::default(), Concern::Prune);
        let _report = self.run(live, Launch::new(brief, plan)).await?;
        Ok(())
    }

    pub(crate) fn compile_prune(
        &self,
        target: &PruneTarget,
        order: &PruneOrder,
    ) -> Result<Plan, Failure> {
        let timeouts = self.timeouts();
        let mut plan = PlanBuilder::new(format!("prune of {}", order.database));
        let _plan = plan.grace(timeouts.grace);
        for claim in order.claims() {
            let _plan = plan.claim(crate::claims::of(&claim, None)?);
        }
        let params = DecideParams {
            order: order.clone(),
            policy: target.policy,
            wanted: match &target.scope {
                PruneScope::Point(point) => Some(*point),
                _ => None,
            },
        };
        let decided = plan
            .step("decide", Decide::with(params))
            .timeout(timeouts.inventory)
            .retry(timeouts.retry())
            .add();
        // Points of one set share snapshots: what one needs is asked once the other is over.
        let mut of_set: BTreeMap<&SetToken, Out<Result<Deletion, Failure>>> = BTreeMap::new();
        for (point, going) in &order.points {
            let params = DeleteParams { point: *point, late: timeouts.late };
            let mut step =
                plan.step(format!("delete:{point}"), Delete::with(params)).after(decided);
            if let Some(before) = of_set.get(&going.set) {
                step = step.after(*before);
            }
            let deleted = step
                .on_storage()
                .timeout(timeouts.delete)
                .retry(timeouts.retry())
                .undo_timeout(timeouts.delete)
                .optional()
                .add();
            let _before = of_set.insert(&going.set, deleted);
        }
        plan.build().map_err(plan_defect)
    }
}
