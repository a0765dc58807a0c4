//! What the calls of a plug-in take and give.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostId, HostPath};
use stillpoint_model::handover::NativeSnapshot;
use stillpoint_model::id::{CopyId, DatabaseId, SessionId};
use stillpoint_model::inventory::{CopyFile, FileRole, Generation, LogState};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::seal::Seal;

/// What an inventory is to cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// Everything that the plug-in speaks for.
    Everything,
    /// These hosts.
    Hosts(BTreeSet<HostId>),
    /// These databases, with all their copies. An empty set is nothing, never everything.
    Databases(BTreeSet<DatabaseId>),
}

/// A backup session to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionSpec {
    /// Our id, the same when the call is repeated.
    pub id: SessionId,
    /// The kind, fixed here and for good (VSS: `SetBackupState`).
    pub kind: BackupKind,
    /// The copies, all of one server.
    pub copies: Vec<CopyId>,
    /// How long the session may live without being renewed; then the plug-in aborts it, so that a dead engine leaves no
    /// "backup in progress" behind.
    pub lease: Duration,
}

impl SessionSpec {
    /// A session of this kind over these copies.
    pub fn new(id: SessionId, kind: BackupKind, copies: Vec<CopyId>, lease: Duration) -> Self {
        Self { id, kind, copies, lease }
    }
}

/// A file that a session's snapshots must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequiredFile {
    /// Of which copy.
    pub copy: CopyId,
    /// Where it is.
    pub path: HostPath,
    /// What it is.
    pub role: FileRole,
    /// Its size in bytes when the session began, where that is known.
    pub bytes: Option<u64>,
    /// For a log file: its generation.
    pub generation: Option<Generation>,
}

impl RequiredFile {
    /// A file of this copy.
    pub fn new(copy: CopyId, path: HostPath, role: FileRole) -> Self {
        Self { copy, path, role, bytes: None, generation: None }
    }

    /// A file of this copy, as the inventory has it.
    pub fn of(copy: CopyId, file: &CopyFile) -> Self {
        Self {
            copy,
            path: file.path.clone(),
            role: file.role,
            bytes: file.bytes,
            generation: file.generation,
        }
    }
}

/// A session that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its kind.
    pub kind: BackupKind,
    /// Its copies.
    pub copies: Vec<CopyId>,
    /// The files that the snapshots must hold.
    pub files: Vec<RequiredFile>,
    /// Until when it lives without being renewed.
    pub lease_until: DateTime<Utc>,
    /// The plug-in's own data.
    pub opaque: Vec<u8>,
}

impl Session {
    /// The session that `spec` asked for.
    pub fn new(spec: &SessionSpec, files: Vec<RequiredFile>, lease_until: DateTime<Utc>) -> Self {
        Self {
            id: spec.id,
            kind: spec.kind,
            copies: spec.copies.clone(),
            files,
            lease_until,
            opaque: Vec::new(),
        }
    }

    /// The same with the plug-in's own data.
    pub fn with_opaque(mut self, opaque: Vec<u8>) -> Self {
        self.opaque = opaque;
        self
    }
}

/// The closed logs of a copy: what a log backup takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClosedLogs {
    /// The stream that they are of, with the instant at which the last of them was closed.
    pub state: LogState,
    /// They, each with its generation, lowest first; the log being written is none of them.
    pub files: Vec<CopyFile>,
}

impl ClosedLogs {
    /// These logs of a stream.
    pub fn new(state: LogState, files: Vec<CopyFile>) -> Self {
        Self { state, files }
    }
}

/// A freeze that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frozen {
    /// When writes were quiesced, on the plug-in's clock.
    pub at: DateTime<Utc>,
    /// How far.
    pub level: stillpoint_model::quiesce::QuiesceLevel,
    /// When the plug-in thaws by itself; `None` for data at rest only.
    pub until: Option<DateTime<Utc>>,
}

impl Frozen {
    /// A freeze of this level.
    pub fn new(
        at: DateTime<Utc>,
        level: stillpoint_model::quiesce::QuiesceLevel,
        until: Option<DateTime<Utc>>,
    ) -> Self {
        Self { at, level, until }
    }
}

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// There never was one of this id, or it is forgotten.
    Unknown,
    /// Begun, not frozen.
    Open,
    /// Frozen.
    Frozen {
        /// When the plug-in thaws by itself.
        until: Option<DateTime<Utc>>,
    },
    /// The plug-in has taken the snapshots (plug-in-coordinated).
    Snapped(Vec<NativeSnapshot>),
    /// Completed.
    Completed(BTreeMap<CopyId, Completion>),
    /// Aborted, or its lease ran out.
    Aborted,
    /// It was there, and what it needs is gone: the requester's process died, and its VSS state with it.
    Lost,
}

/// What a completion came to for one copy. Answers, not errors: the point stays either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Completion {
    /// Exchange took note of the verdict; after a good one it may truncate.
    Completed,
    /// It is unclear whether Exchange took note (VSS: `BackupComplete` failed).
    Unconfirmed {
        /// Why, in one sentence.
        reason: String,
    },
    /// The session was lost before; nothing was completed and nothing will be truncated.
    Lost,
}

/// What became of the logs of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Truncation {
    /// Logs below this generation are gone.
    Confirmed {
        /// The oldest generation that is still present.
        oldest_present: Generation,
    },
    /// Not yet; it happens some time after the completion.
    Pending,
    /// There is nothing to truncate.
    NothingEligible {
        /// Why, such as the checkpoint.
        why: String,
    },
    /// It cannot be told.
    Unknown,
}

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[non_exhaustive]
pub struct VerifySpec {
    /// The files, by copy: each is found in the exposure by its original path.
    pub files: Vec<VerifyFile>,
    /// Whether a missing needed log or an unrecoverable state is damage (it is, for a restore point; for a set that is not
    /// meant to be complete it is not).
    pub recoverable: bool,
    /// The most findings to report for each copy.
    pub max_findings: u32,
}

impl VerifySpec {
    /// These files, which must make each database recoverable.
    pub fn new(files: Vec<VerifyFile>) -> Self {
        Self { files, recoverable: true, max_findings: 100 }
    }

    /// The copies that are to be verified.
    pub fn copies(&self) -> BTreeSet<&CopyId> {
        self.files.iter().map(|file| &file.file.copy).collect()
    }
}

/// A file to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyFile {
    /// The file, by its original path.
    pub file: RequiredFile,
    /// What its bytes were when they were stored: every byte is compared.
    pub seal: Option<Seal>,
}

impl VerifyFile {
    /// This file, to be compared with this seal if there is one.
    pub fn new(file: RequiredFile, seal: Option<Seal>) -> Self {
        Self { file, seal }
    }
}
