//! Planning a backup: from what exists and what is wanted to sets of snapshots, with a reason for
//! every copy that is taken or left. Pure: the same inputs give the same plan, ids included.
//!
//! ```text
//! group ─► databases ─► copies ─────► coordination ─► sets ─────► names, claims, budgets
//!          (expand)     (select,      (freeze:        (batch:
//!                        one reason    mode, level,    server, kind,
//!                        each)         worst case)     mode, limits)
//!             │            │              │              │
//!             └────────────┴── refused ───┴──────────────┘     the others go on
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{Failure, IdempotencyKey, JobId, RunId};
use uuid::Uuid;

use crate::capability::{PluginCaps, ProviderCaps, VolumeFacts};
use crate::group::{Batching, Members, ResourceGroup, Selector};
use crate::handover::MemberRole;
use crate::hook::Hook;
use crate::id::{DatabaseId, PointId, ProviderId, SetToken, VolumeRef};
use crate::inventory::{Generation, Inventory, LogSignature};
use crate::job::Elsewhere;
use crate::kind::BackupKind;
use crate::placement::PlacementMap;
use crate::policy::{CopySelection, Policy};

pub mod batch;
pub mod budget;
pub mod claim;
mod error;
mod fit;
pub mod freeze;
pub mod name;
mod plan;
pub mod select;

pub use claim::{Claim, Mode, Until};
pub use error::PlanError;
pub use plan::{
    BackupPlan, CopyChoice, DatabasePlan, Decision, FORMAT, LeftWhy, SetMember, SetPlan,
    SnapshotPlan, TakenWhy, VolumeBudget,
};

use select::Chosen;

/// What is known of earlier backups of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseFull {
    /// When our last backup that truncates was noted by Exchange; none if there never was one.
    pub truncated_at: Option<DateTime<Utc>>,
    /// The log stream of the newest one that logs can be built on, whatever its kind.
    pub signature: Option<LogSignature>,
    /// The database was restored in place since: nothing goes on from there.
    pub forked: bool,
    /// The generation up to which all logs of that stream are stored since.
    pub stored_to: Option<Generation>,
}

impl BaseFull {
    /// A backup that truncates, of this time and stream.
    pub fn new(truncated_at: DateTime<Utc>, signature: Option<LogSignature>) -> Self {
        Self { truncated_at: Some(truncated_at), ..Self::copy(signature) }
    }

    /// A backup that truncates nothing, of this stream, and none that does.
    pub fn copy(signature: Option<LogSignature>) -> Self {
        Self { truncated_at: None, signature, forked: false, stored_to: None }
    }
}

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The time now.
    pub now: DateTime<Utc>,
    /// The job that the plan is for; ids of runs and restore points follow from it.
    pub job: JobId,
    /// How many times the job has been planned before; another round has other ids.
    pub round: u32,
    /// What is to be backed up.
    pub members: &'a [Selector],
    /// The group, if it is one; brings batching and names.
    pub group: Option<&'a ResourceGroup>,
    /// How.
    pub policy: &'a Policy,
    /// Another kind than the policy's, this once.
    pub kind: Option<BackupKind>,
    /// Another selection than the policy's, this once.
    pub selection: Option<&'a CopySelection>,
    /// What exists.
    pub inventory: &'a Inventory,
    /// An inventory older than this is refused (`plan.stale`).
    pub max_inventory_age: Option<Duration>,
    /// Where it lies.
    pub placement: &'a PlacementMap,
    /// What the plug-in can do.
    pub plugin: &'a PluginCaps,
    /// What the providers can do.
    pub providers: &'a BTreeMap<ProviderId, ProviderCaps>,
    /// What is known of the volumes.
    pub volumes: &'a BTreeMap<VolumeRef, VolumeFacts>,
    /// Our last full backup of each database.
    pub fulls: &'a BTreeMap<DatabaseId, BaseFull>,
    /// Databases that are left to other jobs.
    pub coalesced: &'a [Elsewhere],
    /// Databases that a run of ours has now: that Exchange says so as well is no news.
    pub under_way: &'a [DatabaseId],
    /// How many snapshots are kept free on each volume.
    pub reserve: u32,
    /// The volumes that hold the state of whoever carries the plan out. A freeze that blocks the writes of others to one of
    /// them would block what has to be written to end it.
    pub state: &'a [VolumeRef],
}

impl Inputs<'_> {
    pub(crate) fn batching(&self) -> Batching {
        self.group.map(|group| group.batching).unwrap_or_default()
    }

    /// An id that follows from the job, the round and `what`.
    fn id(&self, what: &str) -> Uuid {
        Uuid::new_v5(&self.job.0, format!("{}/{what}", self.round).as_bytes())
    }
}

/// Makes the plan of a backup.
///
/// Databases that cannot be backed up are refused one by one, with every copy's reason; the others
/// go on. A plan without sets is a plan: it says why there is nothing to do.
///
/// # Errors
/// Only what concerns the whole: a policy, group or name template that breaks a rule, an inventory
/// that is too old, a freeze limit that the plug-in cannot keep, nothing selected at all.
///
/// # Complexity
/// O(n log n) in copies and volumes, and O(s · n) for packing n databases into s sets.
pub fn plan_backup(inputs: &Inputs<'_>) -> Result<BackupPlan, PlanError> {
    check(inputs)?;
    let template = name::Template::of(inputs.group.and_then(|group| group.naming.as_deref()))?;
    let members = Members::of(inputs.members, inputs.inventory);
    if members.databases.is_empty() && members.missing.is_empty() {
        return Err(PlanError::NothingSelected);
    }

    let mut warnings = Vec::new();
    let mut databases = Vec::new();
    let mut chosen: Vec<Chosen> = Vec::new();
    for selector in &members.missing {
        databases.push(plan::missing(selector));
    }
    for (database, named) in &members.databases {
        // A recovery database that merely came with a DAG is left out without fuss.
        let selected = select::select(inputs, *database, *named, &mut warnings);
        chosen.extend(selected.chosen);
        databases.push(selected.plan);
    }

    let batches = batch::batches(inputs, chosen, &mut |copy, error| {
        plan::refuse(&mut databases, copy, &Failure::of(&error));
    });
    warnings.extend(blast_radius(inputs, &batches));
    let sets: Vec<SetPlan> = batches
        .into_iter()
        .enumerate()
        .map(|(index, batch)| set(inputs, &template, index, batch))
        .collect::<Result<_, _>>()?;

    Ok(BackupPlan {
        format: FORMAT,
        job: inputs.job,
        round: inputs.round,
        made_at: inputs.now,
        epoch: inputs.inventory.epoch.clone(),
        policy: inputs.policy.reference(),
        group: inputs.group.map(|group| group.id),
        title: inputs.group.map(|group| group.name.clone()),
        kind: inputs.kind.unwrap_or(inputs.policy.kind),
        budgets: budget::of_plan(inputs, &sets),
        hooks: hooks(inputs.policy, &sets),
        sets,
        databases,
        warnings,
    })
}

/// The programs that a job comes to. One that freezes nothing comes to none before a freeze or after a thaw.
fn hooks(policy: &Policy, sets: &[SetPlan]) -> Vec<Hook> {
    let mut hooks = policy.hooks_of_backups();
    if !sets.is_empty() && !sets.iter().any(|set| set.kind.takes_database()) {
        hooks.retain(|hook| !hook.phase.is_around_freeze());
    }
    hooks
}

fn check(inputs: &Inputs<'_>) -> Result<(), PlanError> {
    inputs.policy.check().map_err(PlanError::Policy)?;
    if let Some(group) = inputs.group {
        group.check().map_err(PlanError::Group)?;
    }
    if let Some(most) = inputs.max_inventory_age {
        let age = (inputs.now - inputs.inventory.observed_at).to_std().unwrap_or_default();
        if age > most {
            return Err(PlanError::Old { age, most });
        }
    }
    if let (Some(wanted), Some(limit)) =
        (inputs.policy.quiesce.limit, inputs.plugin.shortest_limit())
        && wanted > limit
    {
        return Err(PlanError::DeadlineTooLong { wanted, limit });
    }
    Ok(())
}

fn set(
    inputs: &Inputs<'_>,
    template: &name::Template,
    index: usize,
    batch: batch::Batch,
) -> Result<SetPlan, PlanError> {
    let run = RunId(inputs.id(&format!("set/{index}")));
    let members: Vec<SetMember> = batch
        .members
        .into_iter()
        .map(|member| SetMember {
            point: PointId(inputs.id(&format!("point/{}", member.copy))),
            name: member.name,
            copy: member.copy,
            role: member.role,
            truncates: member.kind.truncates(),
            data: member.data,
            logs: member.logs,
        })
        .collect();
    let token = SetToken::of(&run, members.first().map_or(PointId(run.0), |first| first.point));

    let mut volumes: BTreeMap<&VolumeRef, (MemberRole, BTreeSet<DatabaseId>)> = BTreeMap::new();
    for member in &members {
        let data = member.data.iter().map(|volume| (volume, MemberRole::Data));
        let logs = member.logs.iter().map(|volume| (volume, MemberRole::Log));
        for (volume, role) in data.chain(logs) {
            let entry = volumes.entry(volume).or_insert_with(|| (role, BTreeSet::new()));
            entry.0 = entry.0.and(role);
            entry.1.insert(member.copy.database);
        }
    }
    let name = template.name(&name::Tokens {
        group: inputs.group.map_or("", |group| group.name.as_str()),
        policy: &inputs.policy.name,
        host: batch.host.as_str(),
        kind: batch.kind.word(),
        class: &inputs.policy.class.to_string(),
        time: inputs.now,
        run,
    });
    let snapshots: Vec<SnapshotPlan> = volumes
        .into_iter()
        .map(|(volume, (role, databases))| SnapshotPlan {
            volume: volume.clone(),
            name: name.clone(),
            role,
            databases,
        })
        .collect();
    let key = IdempotencyKey::new(format!("{}/{}/{index}", inputs.job, inputs.round))
        .map_err(|_| PlanError::NothingSelected)?;
    Ok(SetPlan {
        claims: claim::of_set(&batch.host, &members, &snapshots, batch.freeze.is_some()),
        run,
        key,
        token,
        host: batch.host,
        kind: batch.kind,
        coordination: batch.coordination,
        level: inputs.plugin.quiesce,
        freeze: batch.freeze,
        members,
        snapshots,
    })
}

/// A warning for each volume of the plan that holds several databases and can be reverted: a revert
/// would happen to all of them. Restores by clone concern one database alone.
fn blast_radius(inputs: &Inputs<'_>, batches: &[batch::Batch]) -> Vec<crate::warning::Warning> {
    let planned: BTreeSet<&VolumeRef> = batches
        .iter()
        .flat_map(|batch| &batch.members)
        .flat_map(|member| member.data.iter().chain(&member.logs))
        .collect();
    let mut on: BTreeMap<&VolumeRef, BTreeSet<DatabaseId>> = BTreeMap::new();
    for (copy, placed) in &inputs.placement.0 {
        for volume in placed.volumes() {
            if planned.contains(volume) {
                on.entry(volume).or_default().insert(copy.database);
            }
        }
    }
    let reverts =
        |volume: &VolumeRef| inputs.providers.get(&volume.provider).is_some_and(|caps| caps.revert);
    on.into_iter()
        .filter(|(volume, databases)| databases.len() > 1 && reverts(volume))
        .map(|(volume, databases)| {
            let mut warning = crate::warning::Warning::new(
                "placement.blast_radius",
                format!("volume {volume} holds {} databases", databases.len()),
                "Give each database volumes of its own if they are to be restored by revert.",
            )
            .about("volume", volume);
            for database in databases {
                warning = warning.about("database", database);
            }
            warning
        })
        .collect()
}
