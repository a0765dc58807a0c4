//! Why a plan, or a part of it, is refused.

use std::borrow::Cow;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, HostId, Subject};

use crate::availability::Reason;
use crate::group::{GroupError, Selector};
use crate::id::{CopyId, DatabaseId, InventoryEpoch, VolumeRef};
use crate::kind::BackupKind;
use crate::policy::PolicyError;
use crate::quiesce::{Consistency, QuiesceLevel};

/// A plan or one database of it is refused. Nothing has been touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The policy breaks a rule.
    #[error("the policy breaks a rule")]
    Policy(#[source] PolicyError),
    /// The group breaks a rule.
    #[error("the group breaks a rule")]
    Group(#[source] GroupError),
    /// Nothing is selected.
    #[error("nothing is selected")]
    NothingSelected,
    /// The inventory is too old.
    #[error("the inventory is {} s old, and at most {} s are allowed", age.as_secs(), most.as_secs())]
    Old {
        /// Its age.
        age: Duration,
        /// The most.
        most: Duration,
    },
    /// The inventory changed after the plan was made.
    #[error("the inventory changed since the plan was made (from {planned} to {found})")]
    Stale {
        /// The epoch of the plan.
        planned: InventoryEpoch,
        /// The epoch now.
        found: InventoryEpoch,
    },
    /// The policy wants a longer freeze than the plug-in can hold.
    #[error(
        "the policy's freeze limit of {wanted:?} is longer than the {limit:?} that can be held"
    )]
    DeadlineTooLong {
        /// The policy's.
        wanted: Duration,
        /// The plug-in's.
        limit: Duration,
    },
    /// A name template cannot be used.
    #[error("the snapshot name template {template:?} cannot be used: {why}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A selector selects nothing that exists.
    #[error("{selector:?} selects nothing that exists")]
    NotFound {
        /// Which.
        selector: Selector,
    },
    /// It is a recovery database.
    #[error("{name} is a recovery database")]
    RecoveryDatabase {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
    },
    /// No copy of it can be backed up.
    #[error("{name} cannot be backed up: {}", join(reasons))]
    NotAvailable {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
        /// What stands in the way of each copy.
        reasons: Vec<(CopyId, Vec<Reason>)>,
    },
    /// An active and a passive copy of it share a volume.
    #[error(
        "the active copy of {name} on {active} and its passive copy on {passive} share volume {volume}"
    )]
    SharedVolume {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
        /// The volume.
        volume: VolumeRef,
        /// Server of the active copy.
        active: HostId,
        /// Server of the passive copy.
        passive: HostId,
    },
    /// The servers that the policy names hold no copy of it.
    #[error("the selected servers hold no copy of {name}")]
    NotOnHost {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
    },
    /// The copy that the policy wants lies on storage that nobody can snapshot.
    #[error("no provider can snapshot the copy of {name} on {}", copy.host)]
    UnsupportedStorage {
        /// Which copy.
        copy: CopyId,
        /// The database's name.
        name: String,
        /// Another copy that could be taken.
        instead: Option<CopyId>,
    },
    /// The policy passes over every copy that could be taken.
    #[error("the policy takes none of the copies of {name} that could be taken")]
    NoneWanted {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
    },
    /// Several copies of it would truncate, and the policy forbids to change that.
    #[error("{} copies of {name} were selected for a truncating backup", copies.len())]
    MultipleTruncating {
        /// Its name.
        name: String,
        /// Which copies.
        copies: Vec<CopyId>,
    },
    /// Its logs are overwritten without a backup.
    #[error("{name} has circular logging, so its logs cannot be backed up alone")]
    LogWithCircularLogging {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
    },
    /// There is no full backup that its logs could be used with.
    #[error("{name} has no full backup in the log chain of today")]
    NoBaseFull {
        /// Which.
        database: DatabaseId,
        /// Its name.
        name: String,
    },
    /// The plug-in cannot make such a backup.
    #[error("the plug-in {plugin} makes no {kind} backups")]
    KindUnsupported {
        /// The plug-in.
        plugin: String,
        /// The kind.
        kind: BackupKind,
    },
    /// Plug-in and providers have no mode in common.
    #[error("the plug-in and the providers of {copy} have no way to coordinate in common")]
    NoCommonCoordination {
        /// Which copy.
        copy: CopyId,
    },
    /// A volume needs writes to be held further than the plug-in can.
    #[error(
        "volume {volume} needs writes held to the level {needs:?}; the plug-in holds them to {level:?}"
    )]
    LevelTooLow {
        /// Which volume.
        volume: VolumeRef,
        /// What it needs.
        needs: QuiesceLevel,
        /// What the plug-in can.
        level: QuiesceLevel,
    },
    /// A freeze that blocks the writes of others, over a volume that holds the state of whoever is to end it.
    #[error(
        "the state file lies on volume {volume}, whose writes the plug-in blocks while it is frozen"
    )]
    StateOnProtectedVolume {
        /// Which volume.
        volume: VolumeRef,
    },
    /// Live data without a limit on the freeze.
    #[error("the plug-in {plugin} freezes live data and names no limit")]
    LimitMissing {
        /// The plug-in.
        plugin: String,
    },
    /// A snapshot may take longer than the freeze can be held.
    #[error("a snapshot of volume {volume} may take {}, and the freeze has {cutoff:?}",
        worst.map_or_else(|| "any time".to_owned(), |worst| format!("{worst:?}")))]
    WorstCaseTooLong {
        /// Which volume.
        volume: VolumeRef,
        /// How long at worst, if that is known.
        worst: Option<Duration>,
        /// How long there is.
        cutoff: Duration,
    },
    /// The plug-in cannot give what the policy asks for at least.
    #[error("the policy asks for {floor} consistency, and the plug-in gives {best}")]
    FloorUnreachable {
        /// What is asked for.
        floor: Consistency,
        /// What can be had.
        best: Consistency,
    },
    /// A database has more volumes than a set can have.
    #[error("{copy} lies on {volumes} volumes, and a set can have {limit}")]
    TooBig {
        /// Which copy.
        copy: CopyId,
        /// Its volumes.
        volumes: usize,
        /// The most.
        limit: usize,
    },
    /// A volume can hold no more snapshots.
    #[error("volume {volume} has {used} snapshots of at most {limit}, and {reserve} are kept free")]
    SnapshotLimit {
        /// Which.
        volume: VolumeRef,
        /// How many there are.
        used: u32,
        /// How many there can be.
        limit: u32,
        /// How many are kept free.
        reserve: u32,
    },
    /// What retention would keep does not fit.
    #[error(
        "volume {volume} would hold {need} snapshots beside those kept free, of at most {limit}"
    )]
    BudgetExceeded {
        /// Which.
        volume: VolumeRef,
        /// What retention keeps at most; a reserve comes on top.
        need: u32,
        /// How many there can be.
        limit: u32,
        /// What would fit, in a few words.
        fitting: String,
    },
}

fn join(reasons: &[(CopyId, Vec<Reason>)]) -> String {
    let several = reasons.len() > 1;
    let mut text = String::new();
    for (copy, reasons) in reasons {
        for reason in reasons {
            if !text.is_empty() {
                text.push_str("; ");
            }
            if several {
                text.push_str(copy.host.as_str());
                text.push_str(": ");
            }
            text.push_str(&reason.to_string());
        }
    }
    if text.is_empty() { "it has no copy".to_owned() } else { text }
}

impl ErrorFacts for PlanError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Policy(error) => error.code(),
            Self::Group(error) => error.code(),
            other => ErrorCode::new(other.own_code()),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Old { .. }
            | Self::Stale { .. }
            | Self::SharedVolume { .. }
            | Self::NoBaseFull { .. }
            | Self::SnapshotLimit { .. } => ErrorClass::Conflict,
            Self::NotAvailable { .. } => ErrorClass::Unavailable,
            _ => ErrorClass::Invalid,
        }
    }

    /// Only what passes by itself, or a new plan.
    fn is_retryable(&self) -> bool {
        match self {
            Self::NotAvailable { reasons, .. } => {
                reasons.iter().any(|(_, reasons)| reasons.iter().all(Reason::may_pass))
            }
            Self::Old { .. } | Self::Stale { .. } => true,
            _ => false,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        let database = |id: &DatabaseId| Subject::new("database", id);
        let volume = |id: &VolumeRef| Subject::new("volume", id);
        let copy = |id: &CopyId| Subject::new("copy", id);
        match self {
            Self::RecoveryDatabase { database: id, .. }
            | Self::NotAvailable { database: id, .. }
            | Self::NotOnHost { database: id, .. }
            | Self::NoneWanted { database: id, .. }
            | Self::LogWithCircularLogging { database: id, .. }
            | Self::NoBaseFull { database: id, .. } => vec![database(id)],
            Self::SharedVolume { database: id, volume: shared, active, passive, .. } => vec![
                database(id),
                volume(shared),
                Subject::new("host", active),
                Subject::new("host", passive),
            ],
            Self::UnsupportedStorage { copy: id, .. }
            | Self::NoCommonCoordination { copy: id }
            | Self::TooBig { copy: id, .. } => vec![copy(id)],
            Self::MultipleTruncating { copies, .. } => copies.iter().map(copy).collect(),
            Self::LevelTooLow { volume: id, .. }
            | Self::StateOnProtectedVolume { volume: id }
            | Self::WorstCaseTooLong { volume: id, .. }
            | Self::SnapshotLimit { volume: id, .. }
            | Self::BudgetExceeded { volume: id, .. } => vec![volume(id)],
            _ => Vec::new(),
        }
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Policy(error) => return error.remedy(),
            Self::Group(error) => return error.remedy(),
            Self::NothingSelected => "Select at least one database.",
            Self::Old { .. } => "Take the inventory again.",
            Self::Stale { .. } => "Plan again.",
            Self::DeadlineTooLong { .. } => "Choose a shorter limit, or leave it to the plug-in.",
            Self::Template { .. } => {
                "Use the tokens {group} {policy} {host} {kind} {class} {time} {run}."
            }
            Self::NotFound { .. } => "Discover again, and take what is gone out of the group.",
            Self::RecoveryDatabase { .. } => {
                "Take it out of the group: a recovery database is never backed up."
            }
            Self::NotAvailable { reasons, .. } => {
                return reasons
                    .iter()
                    .flat_map(|(_, reasons)| reasons)
                    .next()
                    .map_or("Give the database a copy.", Reason::remedy)
                    .into();
            }
            Self::SharedVolume { .. } => "Move one of the two copies to another volume.",
            Self::NotOnHost { .. } => {
                "Name a server that holds a copy, or select copies another way."
            }
            Self::UnsupportedStorage { instead: Some(_), .. } => {
                "Let the policy prefer passive copies: another copy lies on supported storage."
            }
            Self::UnsupportedStorage { instead: None, .. } => {
                "Put the database on storage that a configured provider can snapshot."
            }
            Self::NoneWanted { .. } => "Let the policy fall back to another copy.",
            Self::MultipleTruncating { .. } => {
                "Select one copy, or let the policy make copy backups of the others."
            }
            Self::LogWithCircularLogging { .. } => {
                "Use a full policy, or switch circular logging off."
            }
            Self::NoBaseFull { .. } => "Run a full backup first, or let the policy promote.",
            Self::KindUnsupported { .. } => "Choose another kind of backup.",
            Self::NoCommonCoordination { .. } => {
                "Use a provider that fits the plug-in, or another plug-in."
            }
            Self::LevelTooLow { .. } => {
                "Use a plug-in that holds writes further, or another provider."
            }
            Self::StateOnProtectedVolume { .. } => {
                "Move the state file to a volume that holds nothing that is backed up."
            }
            Self::LimitMissing { .. } => "Have the plug-in declare its freeze limit.",
            Self::WorstCaseTooLong { .. } => {
                "Use a provider whose snapshots are instant, or take the database at rest."
            }
            Self::FloorUnreachable { .. } => "Lower the policy's floor, or use another plug-in.",
            Self::TooBig { .. } => "Raise the limit of volumes in a set, or use fewer volumes.",
            Self::SnapshotLimit { .. } => "Delete snapshots of the volume, or keep fewer points.",
            Self::BudgetExceeded { fitting, .. } => {
                return format!("Keep less: {fitting}.").into();
            }
        }
        .into()
    }
}

impl PlanError {
    const fn own_code(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy.invalid",
            Self::Group(_) => "group.invalid",
            Self::NothingSelected => "plan.nothing_selected",
            Self::Old { .. } | Self::Stale { .. } => "plan.stale",
            Self::DeadlineTooLong { .. } => "quiesce.deadline_too_long",
            Self::Template { .. } => "naming.template_invalid",
            Self::NotFound { .. } => "resource.not_found",
            Self::RecoveryDatabase { .. } => "resource.recovery_database",
            Self::NotAvailable { .. } => "resource.not_available",
            Self::SharedVolume { .. } => "placement.active_passive_share_volume",
            Self::NotOnHost { .. } => "copy.not_on_host",
            Self::UnsupportedStorage { .. } => "copy.unsupported_storage",
            Self::NoneWanted { .. } => "copy.none_wanted",
            Self::MultipleTruncating { .. } => "copy.multiple_truncating",
            Self::LogWithCircularLogging { .. } => "policy.log_with_circular_logging",
            Self::NoBaseFull { .. } => "backup.no_base_full",
            Self::KindUnsupported { .. } => "plan.kind_unsupported",
            Self::NoCommonCoordination { .. } => "plan.no_common_coordination",
            Self::LevelTooLow { .. } => "quiesce.level_too_low",
            Self::StateOnProtectedVolume { .. } => "state.on_protected_volume",
            Self::LimitMissing { .. } => "quiesce.limit_missing",
            Self::WorstCaseTooLong { .. } => "quiesce.worst_case_too_long",
            Self::FloorUnreachable { .. } => "quiesce.floor_unreachable",
            Self::TooBig { .. } => "plan.database_too_big",
            Self::SnapshotLimit { .. } => "storage.snapshot_limit",
            Self::BudgetExceeded { .. } => "retention.snapshot_budget_exceeded",
        }
    }
}
