//! How many snapshots each volume would have to hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::kept::Share;
use super::{Seen, Strategy, Unknown};
use crate::handover::MemberRole;
use crate::id::{DatabaseId, GroupId, PolicyId, VolumeRef};
use crate::inventory::{CopyRole, DatabaseCopy, Inventory};
use crate::placement::CopyPlacement;
use crate::planning::PlanError;
use crate::planning::budget::{Kept, check, need};
use crate::policy::{CopySelection, LogRetention, Policy};

/// How many snapshots of a volume are kept free: for the one that is being made, and for what stays longer than its rules say,
/// such as a suspect point.
pub const RESERVE: u32 = 5;

/// What one policy keeps on a volume at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeShare {
    /// Which policy.
    pub policy: PolicyId,
    /// What it is called.
    pub name: String,
    /// Snapshots of restore points with the database.
    pub fulls: u32,
    /// Snapshots of logs alone.
    pub logs: u32,
    /// What would make it fewer.
    rule: Rule,
}

/// The rule that a share comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    Count(u32),
    Days(u32),
    LogDays(u32),
    Other,
}

/// What a volume would have to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeNeed {
    /// Which.
    pub volume: VolumeRef,
    /// The most snapshots that it can hold; none if the provider tells of no limit.
    pub limit: Option<u32>,
    /// How many it would hold at most, as far as that is known.
    pub need: u32,
    /// What each policy keeps of it.
    pub shares: Vec<VolumeShare>,
    /// What is not in it, as nobody can say how much it is.
    pub unknown: BTreeSet<Unknown>,
    /// The groups whose databases lie on it.
    pub groups: BTreeSet<GroupId>,
}

impl VolumeNeed {
    /// Whether it fits, with the [reserve](RESERVE).
    ///
    /// # Errors
    /// `retention.snapshot_budget_exceeded`, with the retention that would fit.
    pub fn check(&self) -> Result<(), PlanError> {
        let Some(limit) = self.limit else { return Ok(()) };
        check(&self.volume, self.need, limit, RESERVE, || self.fitting(limit))
    }

    /// Whether it fits with less than a tenth of the limit to spare.
    pub fn is_tight(&self) -> bool {
        let spare = |limit: u32| limit.saturating_sub(self.need.saturating_add(RESERVE));
        let is_tight = |limit: u32| u64::from(spare(limit)) * 10 < u64::from(limit);
        self.check().is_ok() && self.limit.is_some_and(is_tight)
    }

    /// What would fit, policy by policy, each alone.
    fn fitting(&self, limit: u32) -> String {
        let room = limit.saturating_sub(RESERVE);
        let fits = |share: &VolumeShare| {
            let mine = share.fulls.saturating_add(share.logs);
            let left = room.saturating_sub(self.need.saturating_sub(mine));
            let fitting = |kept: u32, of: u32| -> Option<u32> {
                // What the same rule keeps of a smaller number is in proportion at most.
                let less = u64::from(of) * u64::from(kept) / u64::from(mine.max(1));
                u32::try_from(less).ok().filter(|less| *less > 0)
            };
            let name = &share.name;
            match share.rule {
                // A count counts one by one; what grids add stays.
                Rule::Count(count) => {
                    let fewer = left.checked_sub(mine.saturating_sub(count)).filter(|n| *n > 0)?;
                    Some(format!("{fewer} instead of {count} restore points of {name}"))
                }
                Rule::Days(days) => {
                    let fewer = fitting(left, days)?;
                    Some(format!("{fewer} days instead of {days} of {name}"))
                }
                Rule::LogDays(days) => {
                    let fewer = fitting(left, days)?;
                    Some(format!("logs of {fewer} days instead of {days} of {name}"))
                }
                Rule::Other => None,
            }
        };
        let options: Vec<String> = self.shares.iter().filter_map(fits).collect();
        if options.is_empty() { format!("{room} snapshots in all") } else { options.join(", or ") }
    }
}

/// The copies of a database that a policy may take.
fn candidates<'a>(
    policy: &'a Policy,
    inventory: &'a Inventory,
    database: DatabaseId,
) -> Vec<&'a DatabaseCopy> {
    let all = || inventory.copies_of(database);
    let active = || all().filter(|copy| copy.role == CopyRole::Active).collect();
    match &policy.selection {
        CopySelection::ActiveOnly => active(),
        CopySelection::OnHosts { hosts } | CopySelection::ByPreference { hosts } => {
            all().filter(|copy| hosts.contains(&copy.id.host)).collect()
        }
        CopySelection::PreferPassive { exclude_lagged, .. } => {
            let passive: Vec<_> = all()
                .filter(|copy| copy.role == CopyRole::Passive)
                .filter(|copy| !exclude_lagged || !copy.is_lagged())
                .collect();
            if passive.is_empty() { active() } else { passive }
        }
    }
}

fn role(placed: &CopyPlacement, volume: &VolumeRef) -> MemberRole {
    match (placed.data.contains(volume), placed.logs.contains(volume)) {
        (true, true) => MemberRole::DataAndLog,
        (false, true) => MemberRole::Log,
        _ => MemberRole::Data,
    }
}

fn rule(policy: &Policy, is_only_log_days: Option<u32>) -> Rule {
    let rules = &policy.retention;
    if !policy.kind.takes_database() {
        return is_only_log_days.map_or(Rule::Other, Rule::LogDays);
    }
    match (rules.count, rules.within_days, rules.gfs) {
        (Some(count), None, _) => Rule::Count(count),
        (None, Some(days), None) => Rule::Days(days),
        _ => Rule::Other,
    }
}

/// The days for which logs are kept, if nothing else says how long.
fn log_days(shares: &[Share<'_>]) -> Option<u32> {
    let mut days = None;
    for share in shares {
        match share.policy.log_retention {
            LogRetention::Days(number) => days = days.max(Some(number)),
            LogRetention::None => {}
            _ => return None,
        }
    }
    days
}

/// The need of every volume that has something of a database of a group, in the order of the volumes.
///
/// Databases that have a policy through the same groups are snapped together, so that one snapshot of a volume serves them
/// all. A copy that a policy may take counts as if it were always taken.
///
/// # Complexity
/// The copies once for each policy, and for each different set of policies as many firings as are kept.
pub fn budget(strategy: &Strategy<'_>, seen: &Seen<'_>) -> Vec<VolumeNeed> {
    let mut needs: BTreeMap<&VolumeRef, VolumeNeed> = BTreeMap::new();
    let mut counted: BTreeMap<(&VolumeRef, PolicyId, BTreeSet<GroupId>), (Kept, Rule)> =
        BTreeMap::new();
    for (having, databases) in strategy.alike(seen.inventory) {
        let shares = strategy.shares(&having);
        let days = log_days(&shares);
        for share in &shares {
            let with_logs = Strategy::kept(share, &shares);
            let data_alone = Strategy::kept_data(share);
            for database in &databases {
                for copy in candidates(share.policy, seen.inventory, *database) {
                    let Some(placed) = seen.placement.of(&copy.id) else { continue };
                    for volume in placed.volumes() {
                        let known = needs.entry(volume).or_insert_with(|| of(volume, seen));
                        known.groups.extend(&share.groups);
                        let role = role(placed, volume);
                        let kept = match &with_logs {
                            Ok(_) if role != MemberRole::Data => &with_logs,
                            Err(unknown) if role != MemberRole::Data => {
                                // Of the database alone it may be known all the same.
                                known.unknown.insert(unknown.clone());
                                &data_alone
                            }
                            _ => &data_alone,
                        };
                        match kept {
                            Err(unknown) => {
                                known.unknown.insert(unknown.clone());
                            }
                            Ok(kept) => {
                                let key = (volume, share.policy.id, share.groups.clone());
                                let by = rule(share.policy, days);
                                let most = &mut counted.entry(key).or_insert((*kept, by)).0;
                                most.fulls = most.fulls.max(kept.fulls);
                                most.logs = most.logs.max(kept.logs);
                            }
                        }
                    }
                }
            }
        }
    }
    for ((volume, policy, _), (kept, rule)) in counted {
        let Some(known) = needs.get_mut(volume) else { continue };
        let Some(policy) = strategy.policy(policy) else { continue };
        // What a data volume does not have was left out above.
        let mine = need(MemberRole::DataAndLog, &[kept]);
        if mine > 0 {
            known.need = known.need.saturating_add(mine);
            let (name, Kept { fulls, logs }) = (policy.name.clone(), kept);
            known.shares.push(VolumeShare { policy: policy.id, name, fulls, logs, rule });
        }
    }
    needs.into_values().collect()
}

fn of(volume: &VolumeRef, seen: &Seen<'_>) -> VolumeNeed {
    let facts = seen.volumes.get(volume);
    VolumeNeed {
        volume: volume.clone(),
        limit: facts.and_then(|facts| facts.snapshot_limit).map(Into::into),
        need: 0,
        shares: Vec::new(),
        unknown: BTreeSet::new(),
        groups: BTreeSet::new(),
    }
}
