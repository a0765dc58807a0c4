//! A strategy as a whole: what policies, groups and schedules amount to together, before it is found out by running them.
//!
//! ```text
//!   groups ─▶ databases ─┬─ policies ─┬─ retention ──▶ restore points kept ─┐
//!   (inventory)          │            └─ log retention ▶ log backups kept ──┼─▶ snapshots of each volume ▶ limit?
//!                        └─ schedules ─▶ how often ────────────────────────┘
//!   and: truncation in time? room for logs? run times? what is in no group, on no schedule?   ─▶ findings
//! ```
//!
//! Everything is an upper bound of what retention would keep with nothing held, locked or suspect. What depends on something
//! that nobody knows is [`Unknown`], and never guessed: a policy that keeps all, one that keeps by time and has no schedule.

mod budget;
mod finding;
mod kept;
mod lint;
mod pace;
mod runway;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::capability::VolumeFacts;
use crate::group::{Members, ResourceGroup};
use crate::id::{DatabaseId, GroupId, PolicyId, VolumeRef};
use crate::inventory::Inventory;
use crate::placement::PlacementMap;
use crate::policy::Policy;
use crate::schedule::{AttachmentId, Schedule, StoredSchedule};

pub use budget::{RESERVE, VolumeNeed, VolumeShare, budget};
pub use finding::{Finding, Severity};
pub use lint::{LintInputs, lint};
pub use runway::{Assumptions, LOG_BYTES, log_rate};

use kept::Share;
use pace::Pace;

/// What is wanted: the newest versions of everything.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Strategy<'a> {
    /// The groups.
    pub groups: &'a [ResourceGroup],
    /// The policies.
    pub policies: &'a [Policy],
    /// The schedules.
    pub schedules: &'a [StoredSchedule],
    /// The time, from which schedules are looked ahead.
    pub now: DateTime<Utc>,
}

/// What exists.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Seen<'a> {
    /// Databases and copies.
    pub inventory: &'a Inventory,
    /// Where they lie.
    pub placement: &'a PlacementMap,
    /// What is known of the volumes.
    pub volumes: &'a BTreeMap<VolumeRef, VolumeFacts>,
}

/// Why it cannot be said how much is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unknown {
    /// The policy has no rule that would let anything go.
    KeepsAll {
        /// Which.
        policy: PolicyId,
        /// What it is called.
        name: String,
    },
    /// It depends on how often the policy is run, and no schedule that is still due says so.
    NoSchedule {
        /// Which.
        policy: PolicyId,
        /// What it is called.
        name: String,
    },
}

impl Unknown {
    fn keeps_all(policy: &Policy) -> Self {
        Self::KeepsAll { policy: policy.id, name: policy.name.clone() }
    }

    fn no_schedule(policy: &Policy) -> Self {
        Self::NoSchedule { policy: policy.id, name: policy.name.clone() }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepsAll { name, .. } => write!(f, "policy {name} keeps all"),
            Self::NoSchedule { name, .. } => {
                write!(f, "no schedule says how often policy {name} is run")
            }
        }
    }
}

/// The policies of a database, each with the groups through which it has it: databases that have the same are treated alike.
type Having = BTreeMap<PolicyId, BTreeSet<GroupId>>;

impl<'a> Strategy<'a> {
    /// These, as of an instant.
    pub const fn new(
        groups: &'a [ResourceGroup],
        policies: &'a [Policy],
        schedules: &'a [StoredSchedule],
        now: DateTime<Utc>,
    ) -> Self {
        Self { groups, policies, schedules, now }
    }

    fn policy(&self, id: PolicyId) -> Option<&'a Policy> {
        self.policies.iter().find(|policy| policy.id == id)
    }

    /// When a policy of some groups is run by itself.
    fn pace(&self, policy: PolicyId, groups: &BTreeSet<GroupId>) -> Pace {
        let mine = self.groups.iter().filter(|group| groups.contains(&group.id));
        let attached = mine.flat_map(AttachmentId::all_of).filter(|id| id.policy == policy);
        let schedules: Vec<Schedule> = attached
            .filter_map(|id| {
                let stored = self.schedules.iter().find(|stored| stored.id == id.schedule)?;
                Some(stored.attached(id))
            })
            .collect();
        Pace::new(schedules, self.now)
    }

    /// Databases that have the same policies through the same groups; recovery databases and those in no group left out.
    fn alike(&self, inventory: &Inventory) -> BTreeMap<Having, BTreeSet<DatabaseId>> {
        let mut having: BTreeMap<DatabaseId, Having> = BTreeMap::new();
        for group in self.groups {
            for database in Members::of(&group.members, inventory).databases.into_keys() {
                let policies = having.entry(database).or_default();
                for policy in &group.policies {
                    policies.entry(*policy).or_default().insert(group.id);
                }
            }
        }
        let mut alike: BTreeMap<Having, BTreeSet<DatabaseId>> = BTreeMap::new();
        for (database, having) in having {
            let is_recovery = |known: &crate::inventory::Database| known.recovery;
            if !inventory.databases.get(&database).is_some_and(is_recovery) {
                alike.entry(having).or_default().insert(database);
            }
        }
        alike
    }

    fn shares(&self, having: &Having) -> Vec<Share<'a>> {
        let share = |(policy, groups): (&PolicyId, &BTreeSet<GroupId>)| {
            let pace = self.pace(*policy, groups);
            Some(Share { policy: self.policy(*policy)?, groups: groups.clone(), pace })
        };
        having.iter().filter_map(share).collect()
    }
}

impl<'a> Seen<'a> {
    /// These.
    pub const fn new(
        inventory: &'a Inventory,
        placement: &'a PlacementMap,
        volumes: &'a BTreeMap<VolumeRef, VolumeFacts>,
    ) -> Self {
        Self { inventory, placement, volumes }
    }
}
