//! What a database header remembers of backups, repairs and upkeep.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{Lgpos, LogTime, bytes::u32_at};

/// How a backup was made, by the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackupType {
    /// Through the engine's streaming interface.
    Streaming,
    /// A snapshot by the operating system (VSS).
    OsSnapshot,
    /// A snapshot by the caller.
    Snapshot,
    /// Taken from another copy on behalf of this one.
    Surrogate,
    /// A number the engine does not use.
    Unknown(u32),
}

impl BackupType {
    pub(crate) fn from_field(field: u32) -> Self {
        match field {
            0 => Self::Streaming,
            1 => Self::OsSnapshot,
            2 => Self::Snapshot,
            3 => Self::Surrogate,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streaming => f.write_str("streaming"),
            Self::OsSnapshot => f.write_str("VSS snapshot"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Surrogate => f.write_str("surrogate"),
            Self::Unknown(number) => write!(f, "unknown type {number}"),
        }
    }
}

impl Serialize for BackupType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often something happened to a database, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RepairCount {
    /// Since the last defragmentation.
    pub count: u32,
    /// When last.
    pub last: LogTime,
    /// Before the last defragmentation.
    pub before_defrag: u32,
}

impl RepairCount {
    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            count: u32_at(bytes, at),
            last: LogTime::parse(bytes, at + 4),
            before_defrag: u32_at(bytes, at + 12),
        }
    }
}

/// How often something was done, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Occurrence {
    /// How often.
    pub count: u32,
    /// When last.
    pub last: LogTime,
}

impl Occurrence {
    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self { count: u32_at(bytes, at), last: LogTime::parse(bytes, at + 4) }
    }
}

/// The last overwriting of deleted data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ScrubRecord {
    /// Change stamp that it reached.
    pub dbtime: u64,
    /// When it was done.
    pub time: LogTime,
}

/// How far the engine's own scan of the database has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ScanRecord {
    /// When the last whole scan ended.
    pub finished: LogTime,
    /// When the scan under way began.
    pub started: LogTime,
    /// Every page up to this one was looked at.
    pub highest_continuous: u32,
    /// The highest page looked at.
    pub highest: u32,
}

/// Reverts of a database to an earlier state by a revert snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RevertRecord {
    /// How often.
    pub count: u32,
    /// The time that the last one began from.
    pub from: LogTime,
    /// The time that it went back to.
    pub to: LogTime,
    /// Pages that it put back.
    pub pages: u32,
    /// Where the last commit before it was.
    pub commit_before: Lgpos,
}

impl RevertRecord {
    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            count: u32_at(bytes, at),
            from: LogTime::parse(bytes, at + 4),
            to: LogTime::parse(bytes, at + 12),
            pages: u32_at(bytes, at + 20),
            commit_before: Lgpos::parse(bytes, at + 24),
        }
    }
}
