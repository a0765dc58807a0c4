//! The states of a database.

use std::fmt;

use serde::{Serialize, Serializer};

/// What state a database was left in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatabaseState {
    /// Just created, never attached.
    JustCreated,
    /// Needs its logs to become consistent.
    DirtyShutdown,
    /// Consistent without logs.
    CleanShutdown,
    /// Being converted.
    BeingConverted,
    /// Forced off.
    ForceDetach,
    /// An incremental reseed is under way.
    IncrementalReseed,
    /// Needs its logs over its whole required range.
    DirtyAndPatched,
    /// A revert is under way.
    RevertInProgress,
    /// A number the engine does not use.
    Unknown(u32),
}

impl DatabaseState {
    pub(crate) fn from_field(field: u32) -> Self {
        match field {
            1 => Self::JustCreated,
            2 => Self::DirtyShutdown,
            3 => Self::CleanShutdown,
            4 => Self::BeingConverted,
            5 => Self::ForceDetach,
            6 => Self::IncrementalReseed,
            7 => Self::DirtyAndPatched,
            8 => Self::RevertInProgress,
            other => Self::Unknown(other),
        }
    }

    /// The number that the header holds.
    pub fn number(self) -> u32 {
        match self {
            Self::JustCreated => 1,
            Self::DirtyShutdown => 2,
            Self::CleanShutdown => 3,
            Self::BeingConverted => 4,
            Self::ForceDetach => 5,
            Self::IncrementalReseed => 6,
            Self::DirtyAndPatched => 7,
            Self::RevertInProgress => 8,
            Self::Unknown(number) => number,
        }
    }

    /// Whether the database is consistent by itself.
    pub fn is_clean(self) -> bool {
        self == Self::CleanShutdown
    }

    /// Whether replaying its logs makes it consistent.
    pub fn needs_logs(self) -> bool {
        matches!(self, Self::DirtyShutdown | Self::DirtyAndPatched)
    }

    fn name(self) -> &'static str {
        match self {
            Self::JustCreated => "just created",
            Self::DirtyShutdown => "dirty shutdown",
            Self::CleanShutdown => "clean shutdown",
            Self::BeingConverted => "being converted",
            Self::ForceDetach => "force detach",
            Self::IncrementalReseed => "incremental reseed in progress",
            Self::DirtyAndPatched => "dirty and patched shutdown",
            Self::RevertInProgress => "revert in progress",
            Self::Unknown(_) => "unknown state",
        }
    }
}

impl fmt::Display for DatabaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "unknown state {number}"),
            known => f.write_str(known.name()),
        }
    }
}

impl Serialize for DatabaseState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
