//! Whether something can be backed up, with every reason why not.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostId, HostPath};

use crate::id::{CopyId, VolumeRef};
use crate::inventory::{CopyStatus, Generation};

/// A verdict with its date. Available means that there is no reason against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Availability {
    /// Everything that stands in the way.
    pub reasons: Vec<Reason>,
    /// When it was looked at.
    pub checked_at: DateTime<Utc>,
    /// Until when a job may be started on the strength of it; no end if it cannot change by
    /// itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Availability {
    /// Nothing stands in the way.
    pub fn available(checked_at: DateTime<Utc>) -> Self {
        Self { reasons: Vec::new(), checked_at, expires_at: None }
    }

    /// These stand in the way. Without a single reason it is available.
    pub fn unavailable(checked_at: DateTime<Utc>, reasons: Vec<Reason>) -> Self {
        Self { reasons, checked_at, expires_at: None }
    }

    /// The same, but only until `expires_at`.
    pub fn until(mut self, expires_at: DateTime<Utc>) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Whether nothing stands in the way. An expired verdict still says what it said: see
    /// [`Availability::is_expired`].
    pub fn is_available(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Whether it is too old to start a job.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Why something cannot be backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// No provider can snapshot where a file of it lies.
    UnsupportedStorage {
        /// The file, if it is one in particular.
        file: Option<HostPath>,
    },
    /// The active copy is not mounted.
    NotMounted,
    /// The copy is in a state that is not backed up.
    CopyStatus {
        /// Which.
        status: CopyStatus,
    },
    /// It is a recovery database.
    RecoveryDatabase,
    /// Exchange says that a backup of it is in progress.
    BackupInProgress,
    /// An active and a passive copy of it share a volume.
    SharedActivePassiveVolume {
        /// The volume.
        volume: VolumeRef,
        /// Server of the active copy.
        active: HostId,
        /// Server of the passive copy.
        passive: HostId,
    },
    /// The server does not answer.
    HostOffline {
        /// Which.
        host: HostId,
    },
    /// The server is in maintenance.
    HostMaintenance {
        /// Which.
        host: HostId,
        /// Why.
        reason: String,
    },
    /// The Exchange writer is not registered.
    WriterMissing {
        /// Where.
        host: HostId,
    },
    /// The Exchange writer failed and needs attention.
    WriterFailed {
        /// Where.
        host: HostId,
        /// The writer's word for its state.
        state: String,
    },
    /// No copy of the database is fit.
    NoHealthyCopy,
    /// What is known of it is too old.
    StaleInventory {
        /// How old.
        #[serde(rename = "age_ms", with = "crate::millis")]
        age: Duration,
    },
    /// A restore holds it.
    HeldByRestore {
        /// Who holds it, for people.
        holder: String,
    },
    /// Files at rest from which the database cannot be recovered: logs that it needs are missing.
    NotRecoverable {
        /// The missing generations, in order; empty if the whole log stream is missing or the
        /// database says no more than that it is not consistent.
        missing: Vec<RangeInclusive<Generation>>,
    },
    /// A file of it cannot be read.
    Unreadable {
        /// Which.
        file: HostPath,
        /// What the system said.
        message: String,
    },
    /// A file of it is damaged in a way that shows before a backup.
    Damaged {
        /// Which.
        file: HostPath,
        /// One sentence.
        message: String,
    },
    /// Two copies claim the same identity, e.g. two log streams of one signature in one place.
    Ambiguous {
        /// What else it could be.
        others: Vec<CopyId>,
        /// One sentence.
        message: String,
    },
}

impl Reason {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedStorage { .. } => "copy.unsupported_storage",
            Self::NotMounted => "resource.not_mounted",
            Self::CopyStatus { .. } => "copy.status",
            Self::RecoveryDatabase => "resource.recovery_database",
            Self::BackupInProgress => "resource.backup_in_progress",
            Self::SharedActivePassiveVolume { .. } => "placement.active_passive_share_volume",
            Self::HostOffline { .. } => "host.offline",
            Self::HostMaintenance { .. } => "host.maintenance",
            Self::WriterMissing { .. } => "writer.missing",
            Self::WriterFailed { .. } => "writer.failed",
            Self::NoHealthyCopy => "resource.no_healthy_copy",
            Self::StaleInventory { .. } => "inventory.stale",
            Self::HeldByRestore { .. } => "resource.held_by_restore",
            Self::NotRecoverable { .. } => "resource.not_recoverable",
            Self::Unreadable { .. } => "resource.unreadable",
            Self::Damaged { .. } => "resource.damaged",
            Self::Ambiguous { .. } => "resource.ambiguous",
        }
    }

    /// Whether it may pass without anybody doing anything.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::CopyStatus { status } => {
                use crate::inventory::Fitness;
                matches!(status.fitness(), Fitness::Wait | Fitness::Avoid | Fitness::Stale)
            }
            Self::BackupInProgress
            | Self::HostOffline { .. }
            | Self::HostMaintenance { .. }
            | Self::StaleInventory { .. }
            | Self::HeldByRestore { .. } => true,
            _ => false,
        }
    }

    /// What to do about it, in one sentence.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::UnsupportedStorage { .. } => {
                "Put its files on storage that a configured provider can snapshot, or choose another copy."
            }
            Self::NotMounted => "Mount the database.",
            Self::CopyStatus { .. } => "Bring the copy back to health, or choose another copy.",
            Self::RecoveryDatabase => "Leave it out: a recovery database is never backed up.",
            Self::BackupInProgress => "Wait for the other backup, or end it.",
            Self::SharedActivePassiveVolume { .. } => {
                "Move one of the two copies to another volume."
            }
            Self::HostOffline { .. } => "Bring the server back.",
            Self::HostMaintenance { .. } => "End the maintenance.",
            Self::WriterMissing { .. } => {
                "Start the information store and the replication service of the server."
            }
            Self::WriterFailed { .. } => "Restart the replication service of the server.",
            Self::NoHealthyCopy => "Bring a copy of the database back to health.",
            Self::StaleInventory { .. } => "Take the inventory again.",
            Self::HeldByRestore { .. } => "Wait for the restore.",
            Self::NotRecoverable { .. } => {
                "Put the missing log files beside the database, or recover it first."
            }
            Self::Unreadable { .. } => "Give the backup the right to read the file.",
            Self::Damaged { .. } => "Repair the database, or restore it from an earlier point.",
            Self::Ambiguous { .. } => "Put each database and its logs in a folder of their own.",
        }
    }
}

/// `000001A3`, `000001A3–000001A9`, joined by commas.
pub fn ranges(ranges: &[RangeInclusive<Generation>]) -> String {
    let mut text = String::new();
    for range in ranges {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&range.start().to_string());
        if range.start() != range.end() {
            text.push('–');
            text.push_str(&range.end().to_string());
        }
    }
    text
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedStorage { file: Some(file) } => {
                write!(f, "no provider can snapshot {file}")
            }
            Self::UnsupportedStorage { file: None } => {
                f.write_str("no provider can snapshot its volumes")
            }
            Self::NotMounted => f.write_str("it is not mounted"),
            Self::CopyStatus { status } => write!(f, "the copy is {status}"),
            Self::RecoveryDatabase => f.write_str("it is a recovery database"),
            Self::BackupInProgress => f.write_str("another backup of it is in progress"),
            Self::SharedActivePassiveVolume { volume, active, passive } => write!(
                f,
                "the active copy on {active} and the passive copy on {passive} share volume {volume}"
            ),
            Self::HostOffline { host } => write!(f, "{host} is offline"),
            Self::HostMaintenance { host, reason } => {
                write!(f, "{host} is in maintenance ({reason})")
            }
            Self::WriterMissing { host } => write!(f, "{host} has no Exchange writer"),
            Self::WriterFailed { host, state } => {
                write!(f, "the Exchange writer of {host} failed ({state})")
            }
            Self::NoHealthyCopy => f.write_str("no copy of it is fit to be backed up"),
            Self::StaleInventory { age } => {
                write!(f, "what is known of it is {} s old", age.as_secs())
            }
            Self::HeldByRestore { holder } => write!(f, "a restore holds it ({holder})"),
            Self::NotRecoverable { missing } if missing.is_empty() => {
                f.write_str("it cannot be recovered: its logs are missing")
            }
            Self::NotRecoverable { missing } => {
                write!(f, "it cannot be recovered: log generation {} is missing", ranges(missing))
            }
            Self::Unreadable { file, message } => write!(f, "{file} cannot be read: {message}"),
            Self::Damaged { file, message } => write!(f, "{file} is damaged: {message}"),
            Self::Ambiguous { message, .. } => f.write_str(message),
        }
    }
}
