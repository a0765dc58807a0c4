//! Whether a copy can be backed up at all, and everything that stands in the way.

use std::time::Duration;

use stillpoint_context::Failure;

use super::Inputs;
use super::error::PlanError;
use super::freeze::{self, FreezeBudget};
use super::plan::LeftWhy;
use crate::availability::Reason;
use crate::capability::Coordination;
use crate::id::VolumeRef;
use crate::inventory::{Database, DatabaseCopy, Fitness, HostState, WriterState};
use crate::kind::BackupKind;
use crate::placement::CopyPlacement;
use crate::policy::CopySelection;
use crate::quiesce::QuiesceLevel;

/// What a fit copy brings along.
#[derive(Clone, Copy)]
pub(super) struct Fit<'a> {
    pub(super) placed: &'a CopyPlacement,
    pub(super) coordination: Option<Coordination>,
    pub(super) freeze: Option<FreezeBudget>,
}

/// Whether a copy can be backed up at all.
pub(super) fn fit<'a>(
    inputs: &Inputs<'a>,
    database: &Database,
    copy: &DatabaseCopy,
    kind: BackupKind,
    selection: &CopySelection,
) -> Result<Fit<'a>, LeftWhy> {
    let placed = inputs.placement.of(&copy.id);
    let reasons = reasons(inputs, copy, placed, selection);
    let Some(placed) = placed.filter(|_| reasons.is_empty()) else {
        return Err(LeftWhy::Unavailable { reasons });
    };
    if kind == BackupKind::Log {
        return Ok(Fit { placed, coordination: None, freeze: None });
    }
    let unsupported =
        |error: PlanError| LeftWhy::Unsupported { failure: Box::new(Failure::of(&error)) };
    freeze::check_floor(&inputs.policy.quiesce, inputs.plugin).map_err(unsupported)?;
    let coordination = freeze::coordination(inputs.plugin, inputs.providers, placed.volumes())
        .ok_or_else(|| unsupported(PlanError::NoCommonCoordination { copy: copy.id.clone() }))?;
    let volumes = placed.volumes();
    let blocked = volumes.into_iter().find(|volume| inputs.state.contains(volume));
    if let Some(volume) = blocked.filter(|_| inputs.plugin.quiesce.blocks_others()) {
        return Err(unsupported(PlanError::StateOnProtectedVolume { volume: volume.clone() }));
    }
    let mut budget =
        FreezeBudget::of(&inputs.policy.quiesce, inputs.plugin).map_err(unsupported)?;
    budget.worst_case = freeze::check(
        &copy.id,
        &database.name,
        inputs.plugin,
        &budget,
        inputs.providers,
        inputs.volumes,
        placed.volumes(),
    )
    .map_err(unsupported)?;
    Ok(Fit { placed, coordination: Some(coordination), freeze: Some(budget) })
}

/// Everything that stands in the way of a copy.
fn reasons(
    inputs: &Inputs<'_>,
    copy: &DatabaseCopy,
    placed: Option<&CopyPlacement>,
    selection: &CopySelection,
) -> Vec<Reason> {
    let host = &copy.id.host;
    // A backup in progress may be our own and over when this one's turn comes; the session finds
    // out. It is told as a warning.
    let mut reasons: Vec<Reason> = copy
        .availability
        .reasons
        .iter()
        .filter(|reason| **reason != Reason::BackupInProgress)
        .cloned()
        .collect();
    let mut add = |reason: Reason| {
        if reasons.iter().all(|known| known.code() != reason.code()) {
            reasons.push(reason);
        }
    };
    if let Some(known) = inputs.inventory.hosts.get(host) {
        match &known.state {
            HostState::Online => {}
            HostState::Offline => add(Reason::HostOffline { host: host.clone() }),
            HostState::Maintenance { reason, .. } => {
                add(Reason::HostMaintenance { host: host.clone(), reason: reason.clone() });
            }
        }
        if inputs.plugin.quiesce > QuiesceLevel::AtRest {
            match &known.writer {
                WriterState::Missing => add(Reason::WriterMissing { host: host.clone() }),
                WriterState::Failed { phase } => {
                    add(Reason::WriterFailed { host: host.clone(), state: phase.clone() });
                }
                WriterState::Stable | WriterState::Waiting { .. } | WriterState::NotNeeded => {}
            }
        }
    }
    let by_name =
        matches!(selection, CopySelection::OnHosts { .. } | CopySelection::ByPreference { .. });
    match copy.status.fitness() {
        Fitness::Fit => {}
        // Who names a server takes what it has.
        Fitness::Stale if by_name => {}
        Fitness::Stale | Fitness::Wait | Fitness::Avoid | Fitness::Unfit => {
            add(Reason::CopyStatus { status: copy.status });
        }
    }
    if copy.availability.is_expired(inputs.now) {
        let age = (inputs.now - copy.availability.checked_at).to_std().unwrap_or(Duration::ZERO);
        add(Reason::StaleInventory { age });
    }
    match placed {
        None => add(Reason::UnsupportedStorage { file: None }),
        Some(placed) => {
            if let Some(file) = placed.unresolved.first() {
                add(Reason::UnsupportedStorage { file: Some(file.clone()) });
            }
            let known = |volume: &&VolumeRef| inputs.providers.contains_key(&volume.provider);
            if placed.volumes().is_empty() || !placed.volumes().iter().all(known) {
                add(Reason::UnsupportedStorage { file: None });
            }
        }
    }
    reasons
}
