//! Who coordinates a freeze, how far it has to reach, and how long it may take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::PlanError;
use crate::capability::{Coordination, PluginCaps, ProviderCaps, VolumeFacts};
use crate::id::{CopyId, ProviderId, VolumeRef};
use crate::policy::QuiescePolicy;
use crate::quiesce::{Consistency, QuiesceLevel};

/// The time that a freeze has.
///
/// ```text
/// enter                                  cutoff                    limit
///   |‹──── freeze, snapshots ────────────›|‹──── exit time-out ────›|
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FreezeBudget {
    /// After this long the frozen side thaws by itself; none for data at rest.
    #[serde(rename = "limit_ms", with = "crate::millis::option")]
    pub limit: Option<Duration>,
    /// What is kept for the thaw.
    #[serde(rename = "exit_timeout_ms", with = "crate::millis")]
    pub exit_timeout: Duration,
    /// How long the slowest snapshot may take, if that is known.
    #[serde(rename = "worst_case_ms", with = "crate::millis::option")]
    pub worst_case: Option<Duration>,
}

impl FreezeBudget {
    /// The budget that plug-in and policy leave: the shortest of their limits, less a margin of at
    /// most a quarter.
    ///
    /// # Errors
    /// `quiesce.limit_missing`: the plug-in freezes live data without a limit, and the policy names
    /// none either.
    pub fn of(policy: &QuiescePolicy, plugin: &PluginCaps) -> Result<Self, PlanError> {
        let limit = match (plugin.shortest_limit(), policy.limit) {
            (Some(plugin), Some(policy)) => Some(plugin.min(policy)),
            (limit, None) | (None, limit) => limit,
        };
        if limit.is_none() && plugin.quiesce > QuiesceLevel::AtRest {
            return Err(PlanError::LimitMissing { plugin: plugin.name.clone() });
        }
        let exit_timeout =
            limit.map_or(policy.thaw_margin, |limit| policy.thaw_margin.min(limit / 4));
        Ok(Self { limit, exit_timeout, worst_case: None })
    }

    /// When the body has to stop, counted from the start of the freeze.
    pub fn cutoff(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.exit_timeout))
    }
}

impl fmt::Display for FreezeBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.limit, self.cutoff()) {
            (Some(limit), Some(cutoff)) => write!(f, "frozen at most {limit:?}, cutoff {cutoff:?}"),
            _ => f.write_str("no limit"),
        }
    }
}

/// The mode that the plug-in and the providers of all these volumes can work in; the engine's if
/// there is a choice.
pub fn coordination<'a>(
    plugin: &PluginCaps,
    providers: &BTreeMap<ProviderId, ProviderCaps>,
    volumes: impl IntoIterator<Item = &'a VolumeRef>,
) -> Option<Coordination> {
    let used: BTreeSet<&ProviderId> = volumes.into_iter().map(|volume| &volume.provider).collect();
    [Coordination::Engine, Coordination::Plugin].into_iter().find(|mode| {
        plugin.coordination.contains(mode)
            && used.iter().all(|provider| {
                providers
                    .get(*provider)
                    .is_some_and(|caps| caps.coordination.contains(&mode.provider_side()))
            })
    })
}

/// Whether the freeze is enough for each of these volumes, and the longest that a snapshot of them
/// may take.
///
/// A worst case that nobody knows yet is refused of a provider that copies. One that is instant
/// states it in its `prepare`, for the files that it is given, and refuses there what the freeze
/// cannot hold.
///
/// # Errors
/// `quiesce.level_too_low`, `quiesce.worst_case_too_long`, `copy.unsupported_storage` if nothing is
/// known of a volume.
pub fn check<'a>(
    copy: &CopyId,
    name: &str,
    plugin: &PluginCaps,
    budget: &FreezeBudget,
    providers: &BTreeMap<ProviderId, ProviderCaps>,
    facts: &BTreeMap<VolumeRef, VolumeFacts>,
    volumes: impl IntoIterator<Item = &'a VolumeRef>,
) -> Result<Option<Duration>, PlanError> {
    let mut slowest = Some(Duration::ZERO);
    for volume in volumes {
        let facts = facts.get(volume).ok_or_else(|| PlanError::UnsupportedStorage {
            copy: copy.clone(),
            name: name.to_owned(),
            instead: None,
        })?;
        if facts.needs > plugin.quiesce {
            return Err(PlanError::LevelTooLow {
                volume: volume.clone(),
                needs: facts.needs,
                level: plugin.quiesce,
            });
        }
        let is_instant = providers.get(&volume.provider).is_some_and(|caps| caps.instant);
        if let Some(cutoff) = budget.cutoff()
            && facts.worst_commit.map_or(!is_instant, |worst| worst > cutoff)
        {
            return Err(PlanError::WorstCaseTooLong {
                volume: volume.clone(),
                worst: facts.worst_commit,
                cutoff,
            });
        }
        slowest = slowest.zip(facts.worst_commit).map(|(slowest, worst)| slowest.max(worst));
    }
    Ok(slowest)
}

/// Whether the plug-in's freeze can give what the policy asks for at least.
///
/// # Errors
/// `quiesce.floor_unreachable`.
pub fn check_floor(policy: &QuiescePolicy, plugin: &PluginCaps) -> Result<(), PlanError> {
    let best = Consistency::of(plugin.quiesce, &crate::quiesce::Held::Yes);
    if best < policy.floor {
        return Err(PlanError::FloorUnreachable { floor: policy.floor, best });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vss_leaves_eight_seconds() {
        let mut plugin = PluginCaps::new("vss");
        plugin.quiesce = QuiesceLevel::AppIoHeld;
        assert!(FreezeBudget::of(&QuiescePolicy::default(), &plugin).is_err());
        plugin.freeze_limit = Some(Duration::from_secs(20));
        plugin.hold_limit = Some(Duration::from_secs(10));
        let budget = FreezeBudget::of(&QuiescePolicy::default(), &plugin).unwrap();
        assert_eq!(budget.cutoff(), Some(Duration::from_secs(8)));
        let short =
            QuiescePolicy { limit: Some(Duration::from_secs(2)), ..QuiescePolicy::default() };
        let budget = FreezeBudget::of(&short, &plugin).unwrap();
        assert_eq!(budget.cutoff(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn data_at_rest_needs_no_limit() {
        let budget =
            FreezeBudget::of(&QuiescePolicy::default(), &PluginCaps::new("files")).unwrap();
        assert_eq!((budget.limit, budget.cutoff()), (None, None));
    }
}
