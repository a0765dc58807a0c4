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

/// Whether that many fit, with a reserve. `fitting` says what would, if not.
///
/// # Errors
/// `retention.snapshot_budget_exceeded`.
pub fn check(
    volume: &VolumeRef,
    need: u32,
    limit: u32,
    reserve: u32,
    fitting: impl FnOnce() -> String,
) -> Result<(), PlanError> {
    if need.saturating_add(reserve) > limit {
        let volume = volume.clone();
        return Err(PlanError::BudgetExceeded { volume, need, limit, fitting: fitting() });
    }
    Ok(())
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
        let needs = need(MemberRole::Log, &kept);
        let fitting = || "538 of the daily ones".to_owned();
        let error = check(&volume, needs, 1023, 5, fitting).unwrap_err();
        assert_eq!(error.code(), "retention.snapshot_budget_exceeded");
        let PlanError::BudgetExceeded { need: found, limit, .. } = &error else { unreachable!() };
        assert_eq!((*found, *limit), (1080, 1023));
        assert!(error.remedy().contains("538 of the daily ones"), "{}", error.remedy());
        assert_eq!(need(MemberRole::Data, &kept), 600);
        // The last one that fits, and the first that does not.
        assert_eq!(check(&volume, 1018, 1023, 5, String::new), Ok(()));
        assert!(check(&volume, 1019, 1023, 5, String::new).is_err());
    }
}
