//! Choosing copies: one decision with one reason for every copy of a database.

use std::collections::BTreeSet;

use stillpoint_context::{Failure, HostId};

use super::Inputs;
use super::error::PlanError;
use super::fit::{Fit, fit};
use super::freeze::FreezeBudget;
use super::plan::{CopyChoice, DatabasePlan, Decision, LeftWhy, TakenWhy};
use crate::availability::Reason;
use crate::capability::Coordination;
use crate::id::{CopyId, DatabaseId, VolumeRef};
use crate::inventory::{CopyRole, Database, DatabaseCopy};
use crate::kind::BackupKind;
use crate::policy::{CopySelection, MultipleTruncating};
use crate::warning::Warning;

/// Exchange notes a backup when it takes it; our note of the same one may differ by clocks.
const SAME_BACKUP: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// A copy that is to be backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chosen {
    /// Which.
    pub copy: CopyId,
    /// The database's name.
    pub name: String,
    /// Its part.
    pub role: CopyRole,
    /// As what.
    pub kind: BackupKind,
    /// Who coordinates; none where nothing is frozen.
    pub coordination: Option<Coordination>,
    /// The time there is; none where nothing is frozen.
    pub freeze: Option<FreezeBudget>,
    /// Volumes of its data; none for a log backup.
    pub data: BTreeSet<VolumeRef>,
    /// Volumes of its logs.
    pub logs: BTreeSet<VolumeRef>,
}

impl Chosen {
    /// Every volume of it.
    pub fn volumes(&self) -> BTreeSet<&VolumeRef> {
        self.data.iter().chain(&self.logs).collect()
    }
}

/// One database with its decisions.
pub(super) struct Selected {
    pub(super) plan: DatabasePlan,
    pub(super) chosen: Vec<Chosen>,
}

/// Decides about every copy of `id`. `named` says that it was asked for by its own name.
pub(super) fn select(
    inputs: &Inputs<'_>,
    id: DatabaseId,
    named: bool,
    warnings: &mut Vec<Warning>,
) -> Selected {
    // `Members` only knows databases of this inventory.
    let database = match inputs.inventory.databases.get(&id) {
        Some(database) => database.clone(),
        None => Database::new(id, id.to_string()),
    };
    let copies: Vec<&DatabaseCopy> = inputs.inventory.copies_of(id).collect();
    if database.recovery {
        let refused = PlanError::RecoveryDatabase { database: id, name: database.name.clone() };
        let refused = named.then(|| Failure::of(&refused));
        let why = LeftWhy::Unavailable { reasons: vec![Reason::RecoveryDatabase] };
        let mut selected = all_left(&database, &copies, refused, &why);
        selected.plan.ignored = !named;
        return selected;
    }
    if let Some(other) = inputs.coalesced.iter().find(|other| other.database == id) {
        let why = LeftWhy::Coalesced { job: other.job };
        return all_left(&database, &copies, None, &why);
    }
    match decide(inputs, &database, &copies, warnings) {
        Ok(selected) => selected,
        Err(error) => {
            let failure = Failure::of(&*error);
            let why = LeftWhy::Refused { failure: Box::new(failure.clone()) };
            all_left(&database, &copies, Some(failure), &why)
        }
    }
}

fn all_left(
    database: &Database,
    copies: &[&DatabaseCopy],
    refused: Option<Failure>,
    why: &LeftWhy,
) -> Selected {
    let copies = copies.iter().map(|copy| choice(copy, Decision::Left(why.clone()))).collect();
    let plan = DatabasePlan {
        database: Some(database.id),
        name: database.name.clone(),
        refused,
        ignored: false,
        copies,
    };
    Selected { plan, chosen: Vec::new() }
}

fn choice(copy: &DatabaseCopy, decision: Decision) -> CopyChoice {
    CopyChoice { copy: copy.id.clone(), role: copy.role, status: copy.status, decision }
}

/// Refuses the whole database, or decides copy by copy.
fn decide(
    inputs: &Inputs<'_>,
    database: &Database,
    copies: &[&DatabaseCopy],
    warnings: &mut Vec<Warning>,
) -> Result<Selected, Box<PlanError>> {
    check_shared_volume(inputs, database, copies)?;
    let kind = kind(inputs, database, copies, warnings)?;
    let selection = inputs.selection.unwrap_or(&inputs.policy.selection);
    let fits: Vec<Result<Fit<'_>, LeftWhy>> =
        copies.iter().map(|copy| fit(inputs, database, copy, kind, selection)).collect();

    // What the policy thinks of each copy, whether or not it is fit: wanted, or left and why.
    let wanted: Vec<Result<TakenWhy, LeftWhy>> =
        copies.iter().map(|copy| wanted(selection, copy)).collect();
    let mut takes: Vec<usize> =
        (0..copies.len()).filter(|&at| wanted[at].is_ok() && fits[at].is_ok()).collect();
    takes.sort_by_key(|&at| rank(selection, copies[at]));
    if !matches!(selection, CopySelection::OnHosts { .. }) {
        takes.truncate(1);
    }
    if takes.is_empty() {
        return Ok(none_taken(database, copies, selection, fits, wanted));
    }

    let truncating: Vec<usize> = if kind.truncates() { takes.clone() } else { Vec::new() };
    if truncating.len() > 1 && inputs.policy.multiple_truncating == MultipleTruncating::Refuse {
        return Err(Box::new(PlanError::MultipleTruncating {
            name: database.name.clone(),
            copies: truncating.iter().map(|&at| copies[at].id.clone()).collect(),
        }));
    }
    if kind.truncates() {
        warnings.extend(blocked_truncation(database, copies));
    }

    let mut chosen = Vec::new();
    let mut choices = Vec::new();
    let first = takes[0];
    for (at, (fit, wanted)) in fits.into_iter().zip(wanted).enumerate() {
        let copy = copies[at];
        let decision = match (fit, wanted) {
            (_, Err(why)) | (Err(why), Ok(_)) => Decision::Left(why),
            (Ok(_), Ok(_)) if !takes.contains(&at) => {
                Decision::Left(LeftWhy::AnotherPreferred { copy: copies[first].id.clone() })
            }
            (Ok(fit), Ok(why)) => {
                let downgraded = (kind.truncates() && at != first)
                    .then(|| format!("only the copy on {} truncates", copies[first].id.host));
                let kind = if downgraded.is_some() { BackupKind::Copy } else { kind };
                if inputs.plugin.kinds.contains(&kind) {
                    chosen.push(take(database, copy, kind, fit));
                    Decision::Taken { kind, why, downgraded }
                } else {
                    let plugin = inputs.plugin.name.clone();
                    let failure = Failure::of(&PlanError::KindUnsupported { plugin, kind });
                    Decision::Left(LeftWhy::Unsupported { failure: Box::new(failure) })
                }
            }
        };
        choices.push(choice(copy, decision));
    }
    let plan = DatabasePlan {
        database: Some(database.id),
        name: database.name.clone(),
        refused: None,
        ignored: false,
        copies: choices,
    };
    Ok(Selected { plan, chosen })
}

fn take(database: &Database, copy: &DatabaseCopy, kind: BackupKind, fit: Fit<'_>) -> Chosen {
    Chosen {
        copy: copy.id.clone(),
        name: database.name.clone(),
        role: copy.role,
        kind,
        coordination: fit.coordination,
        freeze: fit.freeze,
        data: if kind.takes_database() { fit.placed.data.clone() } else { BTreeSet::new() },
        logs: fit.placed.logs.clone(),
    }
}

/// Active and passive copies of one database on one volume are refused, whichever was to be taken:
/// a snapshot would hold both, and a revert would take both back.
fn check_shared_volume(
    inputs: &Inputs<'_>,
    database: &Database,
    copies: &[&DatabaseCopy],
) -> Result<(), Box<PlanError>> {
    for active in copies.iter().filter(|copy| copy.role == CopyRole::Active) {
        for passive in copies.iter().filter(|copy| copy.role == CopyRole::Passive) {
            let (Some(a), Some(b)) =
                (inputs.placement.of(&active.id), inputs.placement.of(&passive.id))
            else {
                continue;
            };
            let theirs = b.volumes();
            if let Some(shared) = a.volumes().into_iter().find(|volume| theirs.contains(*volume)) {
                return Err(Box::new(PlanError::SharedVolume {
                    database: database.id,
                    name: database.name.clone(),
                    volume: shared.clone(),
                    active: active.id.host.clone(),
                    passive: passive.id.host.clone(),
                }));
            }
        }
    }
    Ok(())
}

/// The kind that this database gets.
fn kind(
    inputs: &Inputs<'_>,
    database: &Database,
    copies: &[&DatabaseCopy],
    warnings: &mut Vec<Warning>,
) -> Result<BackupKind, Box<PlanError>> {
    let (id, name) = (database.id, database.name.clone());
    let mut kind = inputs.kind.unwrap_or(inputs.policy.kind);
    if kind == BackupKind::Log && database.circular_logging {
        return Err(Box::new(PlanError::LogWithCircularLogging { database: id, name }));
    }
    let base = inputs.fulls.get(&id);
    let foreign = base
        .and_then(|base| base.truncated_at)
        .zip(database.last_backups.full)
        .is_some_and(|(ours, last)| last.signed_duration_since(ours) > SAME_BACKUP);
    if foreign {
        let warning = Warning::new(
            "chain.foreign_backup",
            format!("{name} had a full backup that was not ours"),
            "Let one product alone make truncating backups of a database.",
        );
        warnings.push(warning.about("database", id));
    }
    if kind == BackupKind::Log {
        let now = copies.iter().find_map(|copy| copy.log_state.as_ref().map(|log| log.signature));
        let same_chain = |base: &&super::BaseFull| match (base.signature, now) {
            (Some(then), Some(now)) => then == now,
            _ => true,
        };
        let chain = base.filter(|base| !base.forked).filter(same_chain);
        let why = if foreign || chain.is_none() {
            if !foreign && !inputs.policy.promote_log {
                return Err(Box::new(PlanError::NoBaseFull { database: id, name }));
            }
            Some("since it has none to build on")
        } else {
            // Without leave to make a full one, what is there is better than nothing; it tells of its gap.
            let gap = inputs.policy.promote_log && is_cut(copies, chain);
            gap.then_some("since logs were truncated before they were stored")
        };
        if let Some(why) = why {
            kind = BackupKind::FullAndLog;
            let warning = Warning::new(
                "backup.promoted",
                format!("the log backup of {name} becomes a full one, {why}"),
                "Nothing has to be done.",
            );
            warnings.push(warning.about("database", id));
        }
    }
    if kind == BackupKind::FullAndLog && database.circular_logging {
        kind = BackupKind::Full;
        let warning = Warning::new(
            "policy.kind_downgraded",
            format!("{name} has circular logging: it can only be brought back to its backups"),
            "Switch circular logging off if it is to be recovered up to the minute.",
        );
        warnings.push(warning.about("database", id));
    }
    if !inputs.plugin.kinds.contains(&kind) {
        let plugin = inputs.plugin.name.clone();
        return Err(Box::new(PlanError::KindUnsupported { plugin, kind }));
    }
    if database.backup_in_progress && !inputs.under_way.contains(&id) {
        let warning = Warning::new(
            "resource.backup_in_progress",
            format!("Exchange says that a backup of {name} is in progress"),
            "If it is not one of ours, wait for it or end it.",
        );
        warnings.push(warning.about("database", id));
    }
    Ok(kind)
}

/// Whether no copy has the log any more that comes after those that are stored.
fn is_cut(copies: &[&DatabaseCopy], base: Option<&super::BaseFull>) -> bool {
    let Some(next) = base.and_then(|base| base.stored_to?.next()) else { return false };
    let oldest = copies.iter().filter_map(|copy| copy.log_state.as_ref()?.oldest_present);
    oldest.min().is_some_and(|oldest| oldest > next)
}

/// Whether the policy would take this copy if it is fit.
fn wanted(selection: &CopySelection, copy: &DatabaseCopy) -> Result<TakenWhy, LeftWhy> {
    match (selection, copy.role) {
        (CopySelection::ActiveOnly, CopyRole::Active) => Ok(TakenWhy::Active),
        (CopySelection::ActiveOnly, CopyRole::Passive) => Err(LeftWhy::NotActive),
        (CopySelection::OnHosts { hosts }, _) if hosts.contains(&copy.id.host) => {
            Ok(TakenWhy::OnSelectedHost)
        }
        (CopySelection::ByPreference { hosts }, _) if hosts.contains(&copy.id.host) => {
            Ok(TakenWhy::FirstInOrder)
        }
        (CopySelection::OnHosts { .. } | CopySelection::ByPreference { .. }, _) => {
            Err(LeftWhy::NotOnSelectedHost)
        }
        (CopySelection::PreferPassive { fallback_active: true, .. }, CopyRole::Active) => {
            Ok(TakenWhy::FallbackToActive)
        }
        (CopySelection::PreferPassive { .. }, CopyRole::Active) => Err(LeftWhy::NotPassive),
        (
            CopySelection::PreferPassive { exclude_lagged, max_replay_queue, .. },
            CopyRole::Passive,
        ) => {
            if *exclude_lagged && copy.is_lagged() {
                return Err(LeftWhy::Lagged { lag: copy.replay_lag });
            }
            match max_replay_queue {
                // Not knowing is not being close.
                Some(most) if copy.replay_queue.is_none_or(|queue| queue > *most) => {
                    Err(LeftWhy::Behind { queue: copy.replay_queue, most: *most })
                }
                _ => Ok(TakenWhy::PreferredPassive),
            }
        }
    }
}

/// Lower is taken first. Among copies on selected servers the first is the one that truncates.
fn rank<'a>(
    selection: &CopySelection,
    copy: &'a DatabaseCopy,
) -> (usize, std::cmp::Reverse<u32>, &'a HostId) {
    let preference = copy.activation_preference.map_or(0, std::num::NonZeroU32::get);
    let first = match selection {
        CopySelection::ByPreference { hosts } => {
            hosts.iter().position(|host| *host == copy.id.host).unwrap_or(usize::MAX)
        }
        CopySelection::PreferPassive { .. } => usize::from(copy.role == CopyRole::Active),
        CopySelection::ActiveOnly | CopySelection::OnHosts { .. } => {
            usize::from(copy.role == CopyRole::Passive)
        }
    };
    (first, std::cmp::Reverse(preference), &copy.id.host)
}

/// No copy is taken: says why, for each copy and for the database.
fn none_taken(
    database: &Database,
    copies: &[&DatabaseCopy],
    selection: &CopySelection,
    fits: Vec<Result<Fit<'_>, LeftWhy>>,
    wanted: Vec<Result<TakenWhy, LeftWhy>>,
) -> Selected {
    let (id, name) = (database.id, database.name.clone());
    let instead =
        copies.iter().zip(&fits).find(|(_, fit)| fit.is_ok()).map(|(copy, _)| copy.id.clone());
    let mut unavailable = Vec::new();
    let mut unsupported = None;
    let mut any_wanted = false;
    let mut choices = Vec::new();
    for ((copy, fit), wanted) in copies.iter().zip(fits).zip(wanted) {
        any_wanted |= wanted.is_ok();
        let is_wanted = wanted.is_ok();
        let why = match (fit, wanted) {
            // What the copy itself cannot do says more than what the policy would not take.
            (Err(why), _) | (Ok(_), Err(why)) => why,
            (Ok(_), Ok(_)) => LeftWhy::NotOnSelectedHost,
        };
        match &why {
            LeftWhy::Unavailable { reasons } if is_wanted => {
                unavailable.push((copy.id.clone(), reasons.clone()));
            }
            LeftWhy::Unsupported { failure } if is_wanted => {
                unsupported.get_or_insert_with(|| Failure::clone(failure));
            }
            _ => {}
        }
        choices.push(choice(copy, Decision::Left(why)));
    }
    let by_host =
        matches!(selection, CopySelection::OnHosts { .. } | CopySelection::ByPreference { .. });
    let storage_only = |reasons: &[Reason]| matches!(reasons, [Reason::UnsupportedStorage { .. }]);
    let failure = match (unsupported, unavailable.as_slice()) {
        (Some(failure), _) => failure,
        (None, []) if by_host && !any_wanted => {
            Failure::of(&PlanError::NotOnHost { database: id, name })
        }
        (None, []) if instead.is_some() => {
            Failure::of(&PlanError::NoneWanted { database: id, name })
        }
        (None, [(copy, reasons)]) if storage_only(reasons) => {
            Failure::of(&PlanError::UnsupportedStorage { copy: copy.clone(), name, instead })
        }
        (None, _) => {
            Failure::of(&PlanError::NotAvailable { database: id, name, reasons: unavailable })
        }
    };
    let plan = DatabasePlan {
        database: Some(id),
        name: database.name.clone(),
        refused: Some(failure),
        ignored: false,
        copies: choices,
    };
    Selected { plan, chosen: Vec::new() }
}

/// A suspended passive copy keeps the active one from truncating: the backup is good, the log disk
/// fills all the same.
fn blocked_truncation(database: &Database, copies: &[&DatabaseCopy]) -> Option<Warning> {
    let blocking = copies
        .iter()
        .find(|copy| copy.role == CopyRole::Passive && copy.status.blocks_truncation())?;
    let warning = Warning::new(
        "truncation.blocked",
        format!(
            "the copy of {} on {} is {}: its active copy will not truncate",
            database.name, blocking.id.host, blocking.status
        ),
        "Resume or remove that copy before the log disk is full.",
    );
    Some(warning.about("copy", &blocking.id))
}
