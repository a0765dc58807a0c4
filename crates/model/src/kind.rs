//! Kinds of backup.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a backup takes and what it asks of Exchange. The words are SnapCenter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupKind {
    /// Database and all logs, also those about to be truncated: allows recovery up to the minute.
    FullAndLog,
    /// Database and the logs it needs: recovery to its own instant.
    Full,
    /// Closed log generations only. No freeze, no session, no truncation.
    Log,
    /// Database and all logs, without a trace in the database's backup history or log chain.
    Copy,
}

impl BackupKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::FullAndLog, Self::Full, Self::Log, Self::Copy];

    /// Whether a good one asks Exchange to truncate logs. SnapCenter's log backup does not.
    pub const fn truncates(self) -> bool {
        matches!(self, Self::FullAndLog | Self::Full)
    }

    /// Whether the database file is taken (else only logs are).
    pub const fn takes_database(self) -> bool {
        !matches!(self, Self::Log)
    }

    /// The word that stored forms and the command line use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FullAndLog => "full_and_log",
            Self::Full => "full",
            Self::Log => "log",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FullAndLog => "full and log",
            Self::Full => "full",
            Self::Log => "log",
            Self::Copy => "copy",
        })
    }
}
