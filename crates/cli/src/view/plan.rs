//! What `backup` shows.

use serde::Serialize;
use stillpoint::DryRun;

use super::hook::HookView;
use super::job::PolicyView;
use super::prune::DatabaseView as DatabaseVerdicts;
use super::{FailureView, JobView, Report, WarningView};
use crate::context::RunId;
use crate::model::id::{CopyId, DatabaseId, PointId};
use crate::model::inventory::{CopyRole, CopyStatus};
use crate::model::job;
use crate::model::kind::BackupKind;
use crate::model::planning::{BackupPlan, Decision, Mode};
use crate::model::point::MemberRole;

/// The plan of a backup.
#[derive(Debug, Serialize)]
pub(crate) struct PlanView {
    kind: BackupKind,
    policy: PolicyView,
    group: Option<String>,
    truncates: bool,
    databases: Vec<DatabaseView>,
    sets: Vec<SetView>,
    hooks: Vec<HookView>,
    warnings: Vec<WarningView>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    database: Option<DatabaseId>,
    name: String,
    refused: Option<FailureView>,
    ignored: bool,
    copies: Vec<ChoiceView>,
}

#[derive(Debug, Serialize)]
struct ChoiceView {
    copy: CopyId,
    role: CopyRole,
    status: CopyStatus,
    taken: bool,
    kind: Option<BackupKind>,
    why: String,
    downgraded: Option<String>,
}

#[derive(Debug, Serialize)]
struct SetView {
    run: RunId,
    host: String,
    kind: BackupKind,
    coordination: Option<&'static str>,
    members: Vec<SetMemberView>,
    snapshots: Vec<SnapshotView>,
    claims: Vec<ClaimView>,
}

#[derive(Debug, Serialize)]
struct SetMemberView {
    database: DatabaseId,
    name: String,
    copy: CopyId,
    point: PointId,
    truncates: bool,
}

#[derive(Debug, Serialize)]
struct SnapshotView {
    volume: String,
    name: String,
    role: MemberRole,
}

#[derive(Debug, Serialize)]
pub(super) struct ClaimView {
    key: String,
    mode: Mode,
}

impl ClaimView {
    pub(super) fn all(claims: &[crate::model::planning::Claim]) -> Vec<Self> {
        claims.iter().map(|claim| Self { key: claim.key.clone(), mode: claim.mode }).collect()
    }
}

impl PlanView {
    pub(crate) fn of(plan: &BackupPlan) -> Self {
        let choice = |choice: &crate::model::planning::CopyChoice| {
            let (taken, kind, why, downgraded) = match &choice.decision {
                Decision::Taken { kind, why, downgraded } => {
                    (true, Some(*kind), why.to_string(), downgraded.clone())
                }
                Decision::Left(why) => (false, None, why.to_string(), None),
            };
            let (role, status) = (choice.role, choice.status);
            ChoiceView { copy: choice.copy.clone(), role, status, taken, kind, why, downgraded }
        };
        let databases = plan.databases.iter().map(|database| DatabaseView {
            database: database.database,
            name: database.name.clone(),
            refused: database.refused.as_ref().map(FailureView::of),
            ignored: database.ignored,
            copies: database.copies.iter().map(choice).collect(),
        });
        let sets = plan.sets.iter().map(|set| SetView {
            run: set.run,
            host: set.host.to_string(),
            kind: set.kind,
            coordination: set.coordination.map(|coordination| match coordination {
                crate::model::capability::Coordination::Engine => "engine",
                crate::model::capability::Coordination::Plugin => "plugin",
            }),
            members: set
                .members
                .iter()
                .map(|member| SetMemberView {
                    database: member.copy.database,
                    name: member.name.clone(),
                    copy: member.copy.clone(),
                    point: member.point,
                    truncates: member.truncates,
                })
                .collect(),
            snapshots: set
                .snapshots
                .iter()
                .map(|snapshot| SnapshotView {
                    volume: snapshot.volume.to_string(),
                    name: snapshot.name.clone(),
                    role: snapshot.role,
                })
                .collect(),
            claims: ClaimView::all(&set.claims),
        });
        Self {
            kind: plan.kind,
            policy: PolicyView::of(&plan.policy),
            group: plan.title.clone(),
            truncates: plan.truncates(),
            databases: databases.collect(),
            sets: sets.collect(),
            hooks: HookView::all(&plan.hooks),
            warnings: WarningView::all(&plan.warnings),
            text: plan.to_string(),
        }
    }
}

/// What `backup` shows: the plan of a dry run with the verdicts of the prune after it, or the job.
#[derive(Debug, Serialize)]
pub(crate) struct BackupView {
    plan: Option<PlanView>,
    prune: Option<Vec<DatabaseVerdicts>>,
    job: Option<JobView>,
}

impl BackupView {
    pub(crate) fn dry_run(dry: &DryRun) -> Self {
        let prune = dry.retention.as_ref().map(DatabaseVerdicts::all);
        Self { plan: Some(PlanView::of(&dry.plan)), prune, job: None }
    }

    pub(crate) fn job(job: &job::Job) -> Self {
        Self { plan: None, prune: None, job: Some(JobView::of(job)) }
    }
}

impl Report for BackupView {
    const SCHEMA: &'static str = "stillpoint.backup/1";

    fn text(&self, text: &mut String) {
        if let Some(plan) = &self.plan {
            text.push_str(&plan.text);
        }
        if let Some(prune) = &self.prune {
            text.push_str("If that comes out well, the prune after it:\n");
            for database in prune {
                database.write(text);
            }
        }
        if let Some(job) = &self.job {
            job.write(text);
        }
    }
}
