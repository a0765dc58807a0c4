//! The plan of a backup as data, to be printed, stored and carried out.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorFacts, Failure, HostId, IdempotencyKey, JobId, RunId};

use super::claim::Claim;
use super::error::PlanError;
use super::freeze::FreezeBudget;
use crate::availability::Reason;
use crate::capability::Coordination;
use crate::group::Selector;
use crate::handover::MemberRole;
use crate::hook::Hook;
use crate::id::{CopyId, DatabaseId, GroupId, InventoryEpoch, PointId, SetToken, VolumeRef};
use crate::inventory::{CopyRole, CopyStatus, Inventory};
use crate::kind::BackupKind;
use crate::policy::PolicyRef;
use crate::quiesce::QuiesceLevel;
use crate::warning::Warning;

/// The version of the stored and printed form of a plan.
pub const FORMAT: u32 = 1;

/// Why a copy is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TakenWhy {
    /// It is the active copy, and the policy takes that.
    Active,
    /// It is on a server that the policy names.
    OnSelectedHost,
    /// It is the passive copy that is least likely to be activated.
    PreferredPassive,
    /// It is the active copy, and no passive one is fit.
    FallbackToActive,
    /// It is the first fit copy in the policy's order.
    FirstInOrder,
}

impl fmt::Display for TakenWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "the policy takes the active copy",
            Self::OnSelectedHost => "it is on a selected server",
            Self::PreferredPassive => {
                "it is the fit passive copy that is least likely to be activated"
            }
            Self::FallbackToActive => "no passive copy is fit, so the active one is taken",
            Self::FirstInOrder => "it is the first fit copy in the policy's order",
        })
    }
}

/// Why a copy is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftWhy {
    /// It cannot be backed up.
    Unavailable {
        /// Everything that stands in the way.
        reasons: Vec<Reason>,
    },
    /// Plug-in and storage cannot do it.
    Unsupported {
        /// What is refused.
        failure: Box<Failure>,
    },
    /// The policy takes the active copy only.
    NotActive,
    /// The policy takes passive copies only.
    NotPassive,
    /// It is on no server that the policy names.
    NotOnSelectedHost,
    /// Its replay is delayed.
    Lagged {
        /// How much.
        #[serde(rename = "lag_ms", with = "crate::millis")]
        lag: Duration,
    },
    /// It is too far behind.
    Behind {
        /// Logs not yet replayed, if that is known.
        queue: Option<u64>,
        /// The most that the policy allows.
        most: u64,
    },
    /// Another copy is taken.
    AnotherPreferred {
        /// Which.
        copy: CopyId,
    },
    /// The database is refused.
    Refused {
        /// Why.
        failure: Box<Failure>,
    },
    /// Another job is going to back the database up.
    Coalesced {
        /// Which.
        job: JobId,
    },
}

impl fmt::Display for LeftWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { reasons } => {
                for (index, reason) in reasons.iter().enumerate() {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    write!(f, "{reason}")?;
                }
                Ok(())
            }
            Self::Unsupported { failure } | Self::Refused { failure } => {
                write!(f, "{} ({})", failure.message, failure.code)
            }
            Self::NotActive => f.write_str("the policy takes the active copy only"),
            Self::NotPassive => f.write_str("the policy takes passive copies only"),
            Self::NotOnSelectedHost => f.write_str("it is not on a selected server"),
            Self::Lagged { lag } => {
                write!(f, "its replay is delayed by {} h", lag.as_secs() / 3600)
            }
            Self::Behind { queue: Some(queue), most } => {
                write!(f, "it is {queue} logs behind, and {most} are allowed")
            }
            Self::Behind { queue: None, most } => {
                write!(f, "nobody knows how far it is behind, and {most} logs are allowed")
            }
            Self::AnotherPreferred { copy } => write!(f, "the copy on {} is taken", copy.host),
            Self::Coalesced { job } => write!(f, "job {job} waits for it"),
        }
    }
}

/// What is done with a copy; each has exactly one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It is backed up.
    Taken {
        /// As what.
        kind: BackupKind,
        /// Why it.
        why: TakenWhy,
        /// Why it is a copy backup although the policy truncates, if so.
        downgraded: Option<String>,
    },
    /// It is not.
    Left(LeftWhy),
}

/// A copy and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyChoice {
    /// Which copy.
    pub copy: CopyId,
    /// Its part.
    pub role: CopyRole,
    /// What Exchange says of it.
    pub status: CopyStatus,
    /// What is done with it.
    pub decision: Decision,
}

impl CopyChoice {
    /// Whether it is backed up.
    pub const fn is_taken(&self) -> bool {
        matches!(self.decision, Decision::Taken { .. })
    }
}

/// A database in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabasePlan {
    /// Which; none for a selector that selects nothing.
    pub database: Option<DatabaseId>,
    /// Its name, or the selector.
    pub name: String,
    /// Why it is not backed up, if it is not.
    pub refused: Option<Failure>,
    /// Left out because it merely came with something larger and is never backed up.
    pub ignored: bool,
    /// Every copy of it.
    pub copies: Vec<CopyChoice>,
}

/// A copy in a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetMember {
    /// Which copy.
    pub copy: CopyId,
    /// The database's name.
    pub name: String,
    /// Its part.
    pub role: CopyRole,
    /// The restore point that it will have.
    pub point: PointId,
    /// Exchange will be told that its logs may go, if its verdict is good.
    pub truncates: bool,
    /// Volumes of its data; none for a log backup.
    pub data: BTreeSet<VolumeRef>,
    /// Volumes of its logs.
    pub logs: BTreeSet<VolumeRef>,
}

/// A snapshot to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotPlan {
    /// On which volume.
    pub volume: VolumeRef,
    /// Its name; one volume never gets the same name twice.
    pub name: String,
    /// What of the set lies there.
    pub role: MemberRole,
    /// The databases of the set that it serves.
    pub databases: BTreeSet<DatabaseId>,
}

/// What is snapped together: one run of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetPlan {
    /// The run; its id follows from job, round and place in the plan.
    pub run: RunId,
    /// The key to submit the run under.
    pub key: IdempotencyKey,
    /// The token that its snapshots are found by.
    pub token: SetToken,
    /// The server.
    pub host: HostId,
    /// What is taken. The kind of a session is fixed when it begins, so a set has one.
    pub kind: BackupKind,
    /// Who coordinates; none where nothing is frozen.
    pub coordination: Option<Coordination>,
    /// How far the plug-in holds writes.
    pub level: QuiesceLevel,
    /// The time there is; none where nothing is frozen.
    pub freeze: Option<FreezeBudget>,
    /// Its copies.
    pub members: Vec<SetMember>,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotPlan>,
    /// What it claims.
    pub claims: Vec<Claim>,
}

/// What a plan does to the snapshots of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeBudget {
    /// Which volume.
    pub volume: VolumeRef,
    /// Snapshots that are there.
    pub used: u32,
    /// Snapshots that the plan makes.
    pub makes: u32,
    /// The most there can be.
    pub limit: Option<u32>,
}

/// The plan of a backup: what will be done, what will not, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupPlan {
    /// The version of this form.
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// Which planning of the job, from 0.
    pub round: u32,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// The inventory it holds for.
    pub epoch: InventoryEpoch,
    /// The policy it follows.
    pub policy: PolicyRef,
    /// The group it is for.
    pub group: Option<GroupId>,
    /// The group's name.
    pub title: Option<String>,
    /// The kind that was asked for.
    pub kind: BackupKind,
    /// What is snapped together.
    pub sets: Vec<SetPlan>,
    /// Every database that was selected.
    pub databases: Vec<DatabasePlan>,
    /// What happens to the volumes.
    pub budgets: Vec<VolumeBudget>,
    /// What is worth telling.
    pub warnings: Vec<Warning>,
    /// The programs that run for it: those of backups, in the order in which the job comes to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

impl BackupPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Whether anything was asked for that will not be done.
    pub fn refused(&self) -> impl Iterator<Item = (&DatabasePlan, &Failure)> {
        self.databases
            .iter()
            .filter_map(|database| database.refused.as_ref().map(|failure| (database, failure)))
    }

    /// Every copy in it, with its decision.
    pub fn copies(&self) -> impl Iterator<Item = &CopyChoice> {
        self.databases.iter().flat_map(|database| &database.copies)
    }

    /// Whether Exchange will be asked to truncate logs of some database.
    pub fn truncates(&self) -> bool {
        self.sets.iter().flat_map(|set| &set.members).any(|member| member.truncates)
    }

    /// Whether it still holds.
    ///
    /// # Errors
    /// `plan.stale`: plan again.
    pub fn check_fresh(&self, inventory: &Inventory) -> Result<(), PlanError> {
        if self.epoch == inventory.epoch {
            return Ok(());
        }
        Err(PlanError::Stale { planned: self.epoch.clone(), found: inventory.epoch.clone() })
    }
}

pub(super) fn missing(selector: &Selector) -> DatabasePlan {
    let (database, name) = match selector {
        Selector::Database(id) => (Some(*id), format!("database {id}")),
        Selector::Dag(id) => (None, format!("DAG {id}")),
        Selector::Host(host) => (None, format!("server {host}")),
        Selector::Everything => (None, "everything".to_owned()),
    };
    let mut failure = Failure::of(&PlanError::NotFound { selector: selector.clone() });
    failure.message = format!("{name} does not exist");
    DatabasePlan { database, name, refused: Some(failure), ignored: false, copies: Vec::new() }
}

/// Takes back that `copy` is taken.
pub(super) fn refuse(databases: &mut [DatabasePlan], copy: &CopyId, failure: &Failure) {
    for database in databases.iter_mut().filter(|known| known.database == Some(copy.database)) {
        for choice in database.copies.iter_mut().filter(|choice| choice.copy == *copy) {
            choice.decision =
                Decision::Left(LeftWhy::Refused { failure: Box::new(failure.clone()) });
        }
        if !database.copies.iter().any(CopyChoice::is_taken) {
            database.refused = Some(failure.clone());
        }
    }
}

impl fmt::Display for BackupPlan {
    /// The dry run, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan: {} backup", self.kind)?;
        if let Some(title) = &self.title {
            write!(f, " of {title}")?;
        }
        writeln!(f, ", policy {}, inventory {}", self.policy, self.epoch)?;
        for database in &self.databases {
            write!(f, "{}", database.name)?;
            match &database.refused {
                Some(failure) => writeln!(f, ": refused: {} ({})", failure.message, failure.code)?,
                None if database.ignored => writeln!(f, ": left out")?,
                None => writeln!(f)?,
            }
            for choice in &database.copies {
                write!(f, "  {} copy on {} ({}): ", choice.role, choice.copy.host, choice.status)?;
                match &choice.decision {
                    Decision::Taken { kind, why, downgraded } => {
                        write!(f, "taken as {kind}: {why}")?;
                        if let Some(reason) = downgraded {
                            write!(f, "; {reason}")?;
                        }
                        writeln!(f)?;
                    }
                    Decision::Left(why) => writeln!(f, "left: {why}")?,
                }
            }
        }
        for (index, set) in self.sets.iter().enumerate() {
            set.write(f, index + 1)?;
        }
        for budget in &self.budgets {
            write!(
                f,
                "volume {}: {} snapshots, {} more",
                budget.volume, budget.used, budget.makes
            )?;
            match budget.limit {
                Some(limit) => writeln!(f, ", at most {limit}")?,
                None => writeln!(f)?,
            }
        }
        for hook in &self.hooks {
            writeln!(f, "hook {hook}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing will be done")?;
        } else if self.truncates() {
            writeln!(f, "this will truncate: Exchange may delete logs of the databases marked so")?;
        } else {
            writeln!(f, "this will not truncate any log")?;
        }
        Ok(())
    }
}

impl SetPlan {
    /// The set without these copies, and without the snapshots and claims that only they need; none if nothing is left.
    pub fn without(&self, copies: &BTreeSet<CopyId>) -> Option<Self> {
        let mut rest = self.clone();
        rest.members.retain(|member| !copies.contains(&member.copy));
        if rest.members.len() == self.members.len() {
            return Some(rest);
        }
        let databases: BTreeSet<DatabaseId> =
            rest.members.iter().map(|member| member.copy.database).collect();
        for snapshot in &mut rest.snapshots {
            snapshot.databases.retain(|database| databases.contains(database));
        }
        let (kept, gone): (Vec<_>, Vec<_>) =
            rest.snapshots.into_iter().partition(|snapshot| !snapshot.databases.is_empty());
        rest.snapshots = kept;
        let mut idle: BTreeSet<String> =
            gone.iter().map(|snapshot| Claim::volume(&snapshot.volume).key).collect();
        let left = self.members.iter().map(|member| member.copy.database);
        idle.extend(left.filter(|id| !databases.contains(id)).map(|id| Claim::live(id).key));
        rest.claims.retain(|claim| !idle.contains(&claim.key));
        (!rest.members.is_empty()).then_some(rest)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, number: usize) -> fmt::Result {
        write!(f, "set {number} on {}: {}", self.host, self.kind)?;
        match (&self.coordination, &self.freeze) {
            (Some(coordination), Some(freeze)) => {
                writeln!(f, ", {coordination}-coordinated, level {}, {freeze}", self.level)?;
            }
            _ => writeln!(f, ", without a freeze")?,
        }
        for member in &self.members {
            write!(f, "  {} → restore point {}", member.name, member.point)?;
            writeln!(f, "{}", if member.truncates { ", truncates" } else { "" })?;
        }
        for snapshot in &self.snapshots {
            writeln!(f, "  snapshot {} of {} ({})", snapshot.name, snapshot.volume, snapshot.role)?;
        }
        for claim in &self.claims {
            writeln!(f, "  claim {claim}")?;
        }
        Ok(())
    }
}

impl Decision {
    /// `taken`, or the code of the reason for which it is left.
    pub fn code(&self) -> String {
        match self {
            Self::Taken { .. } => "taken".to_owned(),
            Self::Left(why) => match why {
                LeftWhy::Unavailable { reasons } => {
                    reasons.first().map_or("copy.unavailable", Reason::code).to_owned()
                }
                LeftWhy::Unsupported { failure } | LeftWhy::Refused { failure } => {
                    failure.code().as_str().to_owned()
                }
                LeftWhy::NotActive => "copy.not_active".to_owned(),
                LeftWhy::NotPassive => "copy.not_passive".to_owned(),
                LeftWhy::NotOnSelectedHost => "copy.not_on_selected_host".to_owned(),
                LeftWhy::Lagged { .. } => "copy.lagged".to_owned(),
                LeftWhy::Behind { .. } => "copy.behind".to_owned(),
                LeftWhy::AnotherPreferred { .. } => "copy.another_preferred".to_owned(),
                LeftWhy::Coalesced { .. } => "copy.coalesced".to_owned(),
            },
        }
    }
}
