//! What Exchange says of a copy and of its writer, and what that means for a backup.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use stillpoint_context::IdError;

/// The state of a copy: the 16 values of `Get-MailboxDatabaseCopyStatus`, and one for files that
/// no Exchange server has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyStatus {
    /// Active and online.
    Mounted,
    /// Active and offline. The writer does not list it.
    Dismounted,
    /// Active, going online.
    Mounting,
    /// Active, going offline.
    Dismounting,
    /// Passive, copying and replaying.
    Healthy,
    /// Being checked; normally 15 s, at most about 30 s.
    Initializing,
    /// Comparing with the active copy for divergence.
    Resynchronizing,
    /// Being built or rebuilt.
    Seeding,
    /// Feeding a seed of another copy.
    SeedingSource,
    /// Suspended by an operator. Also keeps the active copy from truncating.
    Suspended,
    /// Cannot copy or replay; the system retries.
    Failed,
    /// Cannot copy or replay; an operator is needed, usually a reseed.
    FailedAndSuspended,
    /// Its server's replication service does not run.
    ServiceDown,
    /// Healthy when contact with the active copy was lost: stale since then.
    DisconnectedAndHealthy,
    /// Resynchronizing when contact was lost.
    DisconnectedAndResynchronizing,
    /// Patching a page.
    SinglePageRestore,
    /// Files that nobody has open: a mounted clone, a lab, a migration. Not a value of Exchange's.
    AtRest,
}

/// Whether a copy in some state may be backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    /// Yes.
    Fit,
    /// Yes, but what it holds is old: the policy decides.
    Stale,
    /// Not now; it passes by itself.
    Wait,
    /// No. It would disturb what goes on there.
    Avoid,
    /// No, until somebody does something.
    Unfit,
}

impl CopyStatus {
    /// The 16 values that Exchange reports.
    pub const EXCHANGE: [Self; 16] = [
        Self::Mounted,
        Self::Dismounted,
        Self::Mounting,
        Self::Dismounting,
        Self::Healthy,
        Self::Initializing,
        Self::Resynchronizing,
        Self::Seeding,
        Self::SeedingSource,
        Self::Suspended,
        Self::Failed,
        Self::FailedAndSuspended,
        Self::ServiceDown,
        Self::DisconnectedAndHealthy,
        Self::DisconnectedAndResynchronizing,
        Self::SinglePageRestore,
    ];

    /// Whether a copy in this state may be backed up.
    pub const fn fitness(self) -> Fitness {
        match self {
            Self::Mounted | Self::Healthy | Self::AtRest => Fitness::Fit,
            Self::DisconnectedAndHealthy => Fitness::Stale,
            Self::Mounting
            | Self::Dismounting
            | Self::Initializing
            | Self::Resynchronizing
            | Self::DisconnectedAndResynchronizing
            | Self::Failed
            | Self::SinglePageRestore => Fitness::Wait,
            Self::Seeding | Self::SeedingSource => Fitness::Avoid,
            Self::Dismounted | Self::Suspended | Self::FailedAndSuspended | Self::ServiceDown => {
                Fitness::Unfit
            }
        }
    }

    /// Whether a passive copy in this state keeps the active copy from truncating its logs.
    pub const fn blocks_truncation(self) -> bool {
        matches!(self, Self::Suspended | Self::FailedAndSuspended)
    }

    /// Whether only an active copy can be in this state.
    pub const fn is_of_active(self) -> bool {
        matches!(self, Self::Mounted | Self::Dismounted | Self::Mounting | Self::Dismounting)
    }

    /// Exchange's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mounted => "Mounted",
            Self::Dismounted => "Dismounted",
            Self::Mounting => "Mounting",
            Self::Dismounting => "Dismounting",
            Self::Healthy => "Healthy",
            Self::Initializing => "Initializing",
            Self::Resynchronizing => "Resynchronizing",
            Self::Seeding => "Seeding",
            Self::SeedingSource => "SeedingSource",
            Self::Suspended => "Suspended",
            Self::Failed => "Failed",
            Self::FailedAndSuspended => "FailedAndSuspended",
            Self::ServiceDown => "ServiceDown",
            Self::DisconnectedAndHealthy => "DisconnectedAndHealthy",
            Self::DisconnectedAndResynchronizing => "DisconnectedAndResynchronizing",
            Self::SinglePageRestore => "SinglePageRestore",
            Self::AtRest => "AtRest",
        }
    }
}

impl fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for CopyStatus {
    type Err = IdError;

    /// Exchange's word, case ignored.
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::EXCHANGE
            .into_iter()
            .chain([Self::AtRest])
            .find(|status| status.word().eq_ignore_ascii_case(text))
            .ok_or_else(|| IdError::new("copy status", text, "Exchange has no such state"))
    }
}

/// The state of the Exchange writer of a server (VSS), as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WriterState {
    /// Ready.
    Stable,
    /// Somebody's backup is somewhere between freeze and completion.
    Waiting {
        /// The writer's word, e.g. `WaitingForThaw`.
        phase: String,
    },
    /// It failed and needs attention before the next freeze.
    Failed {
        /// The writer's word, e.g. `FailedAtFreeze`.
        phase: String,
    },
    /// It is not registered: the information store or the replication service does not run.
    Missing,
    /// There is none, because nothing is frozen there (files at rest).
    NotNeeded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_exchange_is_known_by_its_word() {
        for status in CopyStatus::EXCHANGE {
            assert_eq!(status.word().parse(), Ok(status));
        }
        assert!("Happy".parse::<CopyStatus>().is_err());
    }

    #[test]
    fn only_running_copies_are_fit() {
        let fit: Vec<_> =
            CopyStatus::EXCHANGE.into_iter().filter(|s| s.fitness() == Fitness::Fit).collect();
        assert_eq!(fit, [CopyStatus::Mounted, CopyStatus::Healthy]);
    }
}
