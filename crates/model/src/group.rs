//! Resource groups: what is protected together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, HostId};

use crate::id::{DagId, DatabaseId, GroupId, PolicyId};
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

/// What is protected together: members, and the policies that apply to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResourceGroup {
    /// Which group.
    pub id: GroupId,
    /// Its name: unique, case ignored.
    pub name: String,
    /// What it protects.
    pub members: Vec<Selector>,
    /// The policies that may be run on it.
    pub policies: Vec<PolicyId>,
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

impl ResourceGroup {
    /// A group with these members and without policies.
    pub fn new(id: GroupId, name: impl Into<String>, members: Vec<Selector>) -> Self {
        Self {
            id,
            name: name.into(),
            members,
            policies: Vec::new(),
            batching: Batching::default(),
            naming: None,
            tags: BTreeMap::new(),
        }
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
}

impl ErrorFacts for GroupError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Name { .. } => "group.name_invalid",
            Self::Empty => "group.empty",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Name { .. } => "Choose a name of 1 to 250 printable characters.",
            Self::Empty => "Add a database, a DAG or a server.",
        }
        .into()
    }
}
