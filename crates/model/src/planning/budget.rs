//! Counting snapshots: what a plan adds, and what retention would keep.

use std::collections::BTreeMap;

use super::Inputs;
use super::error::PlanError;
use super::plan::{SetPlan, VolumeBudget};
use crate::handover::MemberRole;
use crate::id::VolumeRef;

/// What one policy keeps of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Restore points with the database.
    pub fulls: u32,
    /// Log backups.
    pub logs: u32,
}

/// How many snapshots a volume holds when all these are kept: fulls on a data volume; fulls and
/// log backups on one that has logs, since one snapshot serves data and logs alike.
pub fn need(role: MemberRole, kept: &[Kept]) -> u32 {
    kept.iter().fold(0, |need: u32, kept| {
        let logs = if role == MemberRole::Data { 0 } else { kept.logs };
        need.saturating_add(kept.fulls).saturating_add(logs)
    })
}

/// Whether that fits, with a reserve; gives what is needed without the reserve.
///
/// # Errors
/// `retention.snapshot_budget_exceeded`.
pub fn check(
    volume: &VolumeRef,
    role: MemberRole,
    kept: &[Kept],
    limit: u32,
    reserve: u32,
) -> Result<u32, PlanError> {
    let need = need(role, kept);
    if need.saturating_add(reserve) > limit {
        return Err(PlanError::BudgetExceeded { volume: volume.clone(), need, limit });
    }
    Ok(need)
}

pub(super) fn of_plan(inputs: &Inputs<'_>, sets: &[SetPlan]) -> Vec<VolumeBudget> {
    let mut makes: BTreeMap<&VolumeRef, u32> = BTreeMap::new();
    for snapshot in sets.iter().flat_map(|set| &set.snapshots) {
        *makes.entry(&snapshot.volume).or_default() += 1;
    }
    makes
        .into_iter()
        .map(|(volume, makes)| {
            let facts = inputs.volumes.get(volume);
            VolumeBudget {
                volume: volume.clone(),
                used: facts.map_or(0, |facts| facts.snapshots_used),
                makes,
                limit: facts.and_then(|facts| facts.snapshot_limit).map(Into::into),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use stillpoint_context::ErrorFacts;

    use super::*;

    #[test]
    fn daily_fulls_and_hourly_logs_do_not_fit_a_log_volume() {
        let volume: VolumeRef = "ontap:log1".parse().unwrap();
        let kept = [Kept { fulls: 600, logs: 480 }];
        let error = check(&volume, MemberRole::Log, &kept, 1023, 5).unwrap_err();
        assert_eq!(error.code(), "retention.snapshot_budget_exceeded");
        assert_eq!(
            error,
            PlanError::BudgetExceeded { volume: volume.clone(), need: 1080, limit: 1023 }
        );
        assert_eq!(check(&volume, MemberRole::Data, &kept, 1023, 5), Ok(600));
    }
}
