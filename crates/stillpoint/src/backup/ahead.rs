//! What a backup would do, and what the prune after it would delete: told before there is either.

use std::collections::BTreeSet;

use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::fork::branch_after;
use stillpoint_model::planning::{BackupPlan, SetMember, SetPlan};
use stillpoint_model::point::{NewPoint, PointEvidence, PointLogs, PointState, RestorePoint};
use stillpoint_model::quiesce::Held;
use stillpoint_model::request::BackupRequest;

use crate::Stillpoint;
use crate::error::Error;
use crate::prune::{PruneScope, PruneTarget};
use crate::retention::RetentionTable;
use crate::services::Services;
use crate::survey::Survey;

/// What a backup would do: the answer of [`Stillpoint::dry_run`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DryRun {
    /// What would be backed up.
    pub plan: BackupPlan,
    /// What would be kept of the databases of the plan, and what would go, if all of them came out well; none for a request that
    /// does not [prune](BackupRequest::prune). The points that there are not yet are among them, under the ids that the plan has
    /// for them.
    pub retention: Option<RetentionTable>,
}

impl DryRun {
    /// These. For tests of whoever shows it.
    pub const fn new(plan: BackupPlan, retention: Option<RetentionTable>) -> Self {
        Self { plan, retention }
    }
}

impl Stillpoint {
    /// What a backup would do, as [`plan`](Self::plan) says, and if it is to prune afterwards, each point that it would delete with
    /// the rule that lets it go. Changes nothing.
    ///
    /// What is decided of logs is decided for those that are closed when it is asked.
    ///
    /// # Errors
    /// As [`plan`](Self::plan) and [`retention`](Self::retention).
    pub async fn dry_run(&self, request: &BackupRequest) -> Result<DryRun, Error> {
        let survey = Survey::take(self, &self.cx(), request, None).await?;
        let plan = self.first_plan(request, &survey)?;
        let retention =
            if request.prune { Some(self.retention_after(&plan, &survey).await?) } else { None };
        Ok(DryRun { plan, retention })
    }

    async fn retention_after(
        &self,
        plan: &BackupPlan,
        survey: &Survey,
    ) -> Result<RetentionTable, Error> {
        let (mut databases, mut planned) = (BTreeSet::new(), Vec::new());
        for set in &plan.sets {
            for member in &set.members {
                databases.insert(member.copy.database);
                let logs = self.logs_ahead(survey, set, member).await?;
                planned.push(point(plan, set, member, logs));
            }
        }
        let scope = PruneScope::Databases(databases);
        let target = PruneTarget { scope, policy: Some(plan.policy.id) };
        self.retention_beside(&target, planned).await
    }

    /// The logs that a member's point is to have: with a database all that are there, else those that go on from what is stored.
    async fn logs_ahead(
        &self,
        survey: &Survey,
        set: &SetPlan,
        member: &SetMember,
    ) -> Result<Option<PointLogs>, Error> {
        let Services { catalog, plugin, .. } = self.services();
        let database = member.copy.database;
        let takes_all = set.kind.takes_database();
        let state = if takes_all {
            let copy = survey.inventory.copies.get(&member.copy);
            copy.and_then(|copy| copy.log_state.clone())
        } else {
            Some(plugin.closed_logs(&self.cx(), &member.copy).await?.state)
        };
        let Some(state) = state else { return Ok(None) };
        let stored = survey.fulls.get(&database).and_then(|base| base.stored_to);
        let range = stored.filter(|_| !takes_all).max(state.oldest_present).zip(state.last_closed);
        let range = range.filter(|(first, last)| first <= last).map(|(first, last)| first..=last);
        let required = state.required.filter(|_| takes_all);
        let mut logs = PointLogs::new(state.signature, range, required);
        logs.until = state.closed_at.filter(|_| !takes_all);
        logs.branch = branch_after(&catalog.forks(database).await?);
        Ok(Some(logs))
    }
}

/// The point that a set is to make of a member, as far as retention looks at it.
fn point(
    plan: &BackupPlan,
    set: &SetPlan,
    member: &SetMember,
    logs: Option<PointLogs>,
) -> RestorePoint {
    let mut point = RestorePoint::new(NewPoint {
        id: member.point,
        copy: member.copy.clone(),
        database_name: member.name.clone(),
        kind: set.kind,
        taken_at: plan.made_at,
        job: plan.job,
        run: set.run,
        set: set.token.clone(),
        evidence: PointEvidence::new(set.level, Held::Yes, EvidenceGrain::PerWriter),
    });
    point.policy = Some(plan.policy.clone());
    point.group = plan.group;
    point.state = PointState::Available;
    point.logs = logs;
    point
}
