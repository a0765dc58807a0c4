//! Resource groups: what is protected together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, HostId, Subject};

use crate::id::{DagId, DatabaseId, GroupId, PolicyId, ScheduleId};
use crate::inventory::Inventory;
use crate::policy::check_name;

/// What a group says it protects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Selector {
    /// One database.
    Database(DatabaseId),
    /// Every database of a DAG, whichever these are when a plan is made.
    Dag(DagId),
    /// Every database with a copy on a server.
    Host(HostId),
    /// Every database that there is.
    Everything,
}

/// How a group's databases are cut into sets that are frozen together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// At most so many databases a set (SnapCenter: 30).
    pub max_databases: NonZeroU32,
    /// At most so many volumes a set (VSS: 64).
    pub max_volumes: NonZeroU32,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_databases: count(30), max_volumes: count(64) }
    }
}

const fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number - 1)
}

/// A schedule that hangs on a policy of a group: whenever it is due, the group is backed up under the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// One of the group's policies.
    pub policy: PolicyId,
    /// When it is run by itself.
    pub schedule: ScheduleId,
}

/// What is protected together: members, and the policies that apply to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResourceGroup {
    /// Which group.
    pub id: GroupId,
    /// From 1. Each change makes the next one, so that two who change it at the same time cannot undo each other's.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub version: NonZeroU32,
    /// Its name: unique, case ignored.
    pub name: String,
    /// What it protects.
    pub members: Vec<Selector>,
    /// The policies that may be run on it.
    pub policies: Vec<PolicyId>,
    /// When which of them is run by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// How it is cut into sets.
    pub batching: Batching,
    /// How its snapshots are named: see [`crate::planning::name`].
    pub naming: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
}

/// The databases of a group at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// Databases, each once, and whether they were named one by one (`true`) or came with
    /// something larger.
    pub databases: BTreeMap<DatabaseId, bool>,
    /// Selectors that select nothing that exists.
    pub missing: BTreeSet<Selector>,
}

const fn first() -> NonZeroU32 {
    NonZeroU32::MIN
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_first(version: &NonZeroU32) -> bool {
    version.get() == 1
}

impl ResourceGroup {
    /// A group with these members and without policies, as version 1.
    pub fn new(id: GroupId, name: impl Into<String>, members: Vec<Selector>) -> Self {
        Self {
            id,
            version: first(),
            name: name.into(),
            members,
            policies: Vec::new(),
            attachments: Vec::new(),
            batching: Batching::default(),
            naming: None,
            tags: BTreeMap::new(),
        }
    }

    /// `edited` as the version after this one.
    ///
    /// # Errors
    /// What [`ResourceGroup::check`] finds; `group.other_id` if it is another group.
    pub fn edit(&self, edited: Self) -> Result<Self, GroupError> {
        if edited.id != self.id {
            return Err(GroupError::OtherId { id: self.id, other: edited.id });
        }
        let next = Self { version: self.version.saturating_add(1), ..edited };
        next.check()?;
        Ok(next)
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), GroupError> {
        check_name(&self.name).map_err(|why| GroupError::Name { name: self.name.clone(), why })?;
        if self.members.is_empty() {
            return Err(GroupError::Empty);
        }
        for (place, attachment) in self.attachments.iter().enumerate() {
            let Attachment { policy, schedule } = *attachment;
            if !self.policies.contains(&policy) {
                return Err(GroupError::NotItsPolicy { policy, schedule });
            }
            if self.attachments[..place].contains(attachment) {
                return Err(GroupError::AttachedTwice { policy, schedule });
            }
        }
        Ok(())
    }

    /// The databases that it has now.
    pub fn expand(&self, inventory: &Inventory) -> Members {
        Members::of(&self.members, inventory)
    }
}

impl Members {
    /// What these selectors select.
    ///
    /// # Complexity
    /// One pass over the inventory for each selector.
    pub fn of(selectors: &[Selector], inventory: &Inventory) -> Self {
        let mut members = Self::default();
        for selector in selectors {
            let mut found: Vec<DatabaseId> = match selector {
                Selector::Database(id) => {
                    inventory.databases.keys().filter(|known| *known == id).copied().collect()
                }
                Selector::Dag(dag) => inventory
                    .databases
                    .values()
                    .filter(|database| database.dag == Some(*dag))
                    .map(|database| database.id)
                    .collect(),
                Selector::Host(host) => inventory
                    .copies
                    .keys()
                    .filter(|copy| copy.host == *host)
                    .map(|copy| copy.database)
                    .collect(),
                Selector::Everything => inventory.databases.keys().copied().collect(),
            };
            if found.is_empty() {
                members.missing.insert(selector.clone());
            }
            let named = matches!(selector, Selector::Database(_));
            for id in found.drain(..) {
                *members.databases.entry(id).or_default() |= named;
            }
        }
        members
    }
}

/// A group breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// It is another group than the one that is edited.
    #[error("group {id} cannot become group {other}")]
    OtherId {
        /// The group that is edited.
        id: GroupId,
        /// The other one.
        other: GroupId,
    },
    /// Its name is none.
    #[error("{name:?} is no name for a group: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It has no members.
    #[error("the group has no members")]
    Empty,
    /// A schedule hangs on a policy that the group does not have.
    #[error("schedule {schedule} hangs on policy {policy}, which the group does not have")]
    NotItsPolicy {
        /// The policy.
        policy: PolicyId,
        /// The schedule.
        schedule: ScheduleId,
    },
    /// A schedule hangs on one policy more than once.
    #[error("schedule {schedule} hangs on policy {policy} twice")]
    AttachedTwice {
        /// The policy.
        policy: PolicyId,
        /// The schedule.
        schedule: ScheduleId,
    },
}

impl ErrorFacts for GroupError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::OtherId { .. } => "group.other_id",
            Self::Name { .. } => "group.name_invalid",
            Self::Empty => "group.empty",
            Self::NotItsPolicy { .. } => "group.policy_missing",
            Self::AttachedTwice { .. } => "group.attached_twice",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::OtherId { id, .. } => vec![Subject::new("group", id)],
            Self::Name { .. } | Self::Empty => Vec::new(),
            Self::NotItsPolicy { policy, schedule } | Self::AttachedTwice { policy, schedule } => {
                vec![Subject::new("policy", policy), Subject::new("schedule", schedule)]
            }
        }
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::OtherId { .. } => "Edit the group that was read.",
            Self::Name { .. } => "Choose a name of 1 to 250 printable characters.",
            Self::Empty => "Add a database, a DAG or a server.",
            Self::NotItsPolicy { .. } => "Give the group the policy first.",
            Self::AttachedTwice { .. } => "Attach it once.",
        }
        .into()
    }
}
