//! What policies, groups and schedules amount to: the linter, and the budget of snapshots that is kept when one of them is saved.

use chrono::{DateTime, Utc};
use stillpoint_catalog::{CatalogExt, JobQuery, PointQuery};
use stillpoint_context::ErrorFacts;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::GroupId;
use stillpoint_model::job::JobKind;
use stillpoint_model::policy::Policy;
use stillpoint_model::schedule::StoredSchedule;
use stillpoint_model::strategy::{
    Assumptions, Finding, LintInputs, Seen, Severity, Strategy, VolumeNeed, budget, lint,
};

use crate::Stillpoint;
use crate::bounds::within;
use crate::draft::Draft;
use crate::error::Error;
use crate::survey::Discovery;

/// What the linter found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LintReport {
    /// When it looked.
    pub at: DateTime<Utc>,
    /// What it found, the worst first.
    pub findings: Vec<Finding>,
    /// What each volume would have to hold.
    pub volumes: Vec<VolumeNeed>,
}

impl LintReport {
    /// A report of these. For tests of whoever shows it.
    pub const fn new(at: DateTime<Utc>, findings: Vec<Finding>, volumes: Vec<VolumeNeed>) -> Self {
        Self { at, findings, volumes }
    }

    /// How bad the worst of it is; `None` if nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// What is wanted, as the catalogue has it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) groups: Vec<ResourceGroup>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) schedules: Vec<StoredSchedule>,
    now: DateTime<Utc>,
}

impl Wanted {
    pub(crate) async fn read(this: &Stillpoint) -> Result<Self, Error> {
        let (groups, policies) = (this.groups().await?, this.policies().await?);
        let (schedules, now) = (this.schedules().await?, this.seams().clock.now());
        Ok(Self { groups, policies, schedules, now })
    }

    fn strategy(&self) -> Strategy<'_> {
        Strategy::new(&self.groups, &self.policies, &self.schedules, self.now)
    }

    /// The same once a draft is saved.
    pub(crate) fn with(&self, draft: &Draft) -> Self {
        let mut all = self.clone();
        for new in &draft.policies {
            put(&mut all.policies, new, |known| known.id == new.id);
        }
        for new in &draft.groups {
            put(&mut all.groups, new, |known| known.id == new.id);
        }
        for new in &draft.schedules {
            put(&mut all.schedules, new, |known| known.id == new.id);
        }
        all
    }

    /// The groups of which a draft changes what is kept.
    fn concerned(&self, draft: &Draft) -> Vec<GroupId> {
        let is_concerned = |group: &&ResourceGroup| {
            let mut schedules = group.attachments.iter().map(|attached| attached.schedule);
            draft.policies.iter().any(|new| group.policies.contains(&new.id))
                || draft.groups.iter().any(|new| new.id == group.id)
                || schedules.any(|id| draft.schedules.iter().any(|new| new.id == id))
        };
        self.groups.iter().filter(is_concerned).map(|group| group.id).collect()
    }

    /// Whether anything of these groups is kept by a rule: what is kept for ever has no number to compare.
    fn has_rules(&self, groups: &[GroupId]) -> bool {
        let groups = self.groups.iter().filter(|group| groups.contains(&group.id));
        let mut policies = groups.flat_map(|group| &group.policies);
        policies.any(|id| {
            let known = self.policies.iter().find(|policy| policy.id == *id);
            known.is_some_and(|policy| !policy.retention.keeps_all())
        })
    }
}

fn put<T: Clone>(all: &mut Vec<T>, new: &T, is_it: impl Fn(&T) -> bool) {
    match all.iter_mut().find(|known| is_it(known)) {
        Some(known) => known.clone_from(new),
        None => all.push(new.clone()),
    }
}

fn seen(discovery: &Discovery) -> Seen<'_> {
    Seen::new(&discovery.inventory, &discovery.placement, &discovery.volumes)
}

impl Stillpoint {
    /// What is wrong with policies, groups and schedules as they are: what is never truncated, kept or run as somebody may
    /// think. Changes nothing. Servers that cannot be asked are a finding, and leave out what needs an inventory.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn lint(&self, assumed: Assumptions) -> Result<LintReport, Error> {
        let wanted = Wanted::read(self).await?;
        let catalog = &self.services().catalog;
        let mut ended = JobQuery::all();
        (ended.kind, ended.ended) = (Some(JobKind::Backup), Some(true));
        let jobs = catalog.all_jobs(&ended).await?;
        // Only how fast logs come is read off them.
        let points = if assumed.log_room.is_some() && assumed.log_bytes_per_hour.is_none() {
            catalog.all_points(&PointQuery::all()).await?
        } else {
            Vec::new()
        };
        let discovery = self.discover_in_time().await;
        let mut inputs = LintInputs::new(wanted.strategy());
        inputs.jobs = &jobs;
        inputs.points = &points;
        inputs.assumed = assumed;
        inputs.seen = discovery.as_ref().ok().map(seen);
        let mut findings = lint(&inputs);
        let mut volumes = Vec::new();
        match &discovery {
            Ok(discovery) => volumes = budget(&wanted.strategy(), &seen(discovery)),
            Err(error) => {
                let message = format!("it is not known what there is: {error}");
                let code = "strategy.inventory_unknown";
                let finding =
                    Finding::new(code, Severity::Warning, message, error.remedy().into_owned());
                findings.insert(0, finding);
            }
        }
        Ok(LintReport { at: wanted.now, findings, volumes })
    }

    /// Refuses a change after which retention would keep more snapshots of a volume than it can hold, and more than before.
    /// What nobody can say is no reason to refuse: the linter tells of it.
    ///
    /// # Errors
    /// `retention.snapshot_budget_exceeded`.
    pub(crate) async fn check_budget(
        &self,
        draft: &Draft,
        before: &Wanted,
        after: &Wanted,
    ) -> Result<(), Error> {
        let concerned = after.concerned(draft);
        if !after.has_rules(&concerned) {
            return Ok(());
        }
        let discovery = match self.discover_in_time().await {
            Ok(discovery) => discovery,
            Err(error) => {
                tracing::warn!(code = %error.code(), %error, "the budget of snapshots is not known, and not checked");
                return Ok(());
            }
        };
        let seen = seen(&discovery);
        let then = budget(&before.strategy(), &seen);
        for known in budget(&after.strategy(), &seen) {
            if !concerned.iter().any(|group| known.groups.contains(group)) {
                continue;
            }
            let had = then.iter().find(|one| one.volume == known.volume).map_or(0, |one| one.need);
            match known.check() {
                Err(error) if known.need > had => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(volume = %known.volume, %error, "the budget of snapshots is still exceeded");
                }
                Ok(()) if known.is_tight() => {
                    tracing::warn!(volume = %known.volume, need = known.need, limit = known.limit, "the budget of snapshots is tight");
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn discover_in_time(&self) -> Result<Discovery, Error> {
        let limit = self.timeouts().inventory;
        within(self.seams(), limit, "looking at what there is", self.discover()).await
    }
}
