//! Restore points: what one backup of one copy left behind, and how far it can be trusted.
//!
//! ```text
//!   published            completed             expiring               removed
//!  ───────────► provisional ───────────► available ─────────► expiring ─────────► (gone)
//!                                            ▲                │      │ reduced              expiring, removed
//!                                            └─────── spared ─┘      └────────► logs only ────────────────────► (gone)
//!
//!        unverified ──► verified ◄──► suspect        (beside it; the latest check counts)
//!        there ◄──► missing                          (beside it; what the storage was last seen to have)
//! ```

use std::fmt;
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostPath, JobId, RunId};

use crate::evidence::EvidenceGrain;
use crate::fork::LogChain;
use crate::id::{CopyId, DatabaseId, GroupId, PointId, SetToken, SnapshotRef};
use crate::inventory::{CopyRole, DatabaseSignature, FileRole, Generation, LogSignature, LogState};
use crate::kind::BackupKind;
use crate::policy::{FrequencyClass, PolicyRef};
use crate::quiesce::{Consistency, Held, QuiesceLevel};
use crate::seal::Seal;
use crate::verdict::Finding;

mod fact;
mod loss;
mod state;

pub use crate::handover::MemberRole;
pub use fact::{FactError, PointFact};
pub use loss::Loss;
pub use state::{Expiry, PointState};

/// A snapshot that a point needs. Data members live and die together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointMember {
    /// The snapshot.
    pub snapshot: SnapshotRef,
    /// Its name on the storage.
    pub name: String,
    /// What it holds of the point.
    pub role: MemberRole,
    /// When the storage says that it was taken.
    pub taken_at: Option<DateTime<Utc>>,
}

impl PointMember {
    /// A member of unknown time.
    pub fn new(snapshot: SnapshotRef, name: impl Into<String>, role: MemberRole) -> Self {
        Self { snapshot, name: name.into(), role, taken_at: None }
    }
}

/// A file of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointFile {
    /// Where it lay.
    pub path: HostPath,
    /// The snapshot that holds it.
    pub snapshot: SnapshotRef,
    /// What it is.
    pub role: FileRole,
    /// Its size in bytes.
    pub bytes: u64,
    /// For a log: which generation.
    pub generation: Option<Generation>,
    /// The hashes of its bytes, if they were sealed.
    pub seal: Option<Seal>,
}

impl PointFile {
    /// A file that is not sealed.
    pub fn new(path: HostPath, snapshot: SnapshotRef, role: FileRole, bytes: u64) -> Self {
        Self { path, snapshot, role, bytes, generation: None, seal: None }
    }
}

/// The logs of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointLogs {
    /// The stream.
    pub signature: LogSignature,
    /// The generations that are there, without a gap; none if the database needs none and none
    /// were taken.
    pub range: Option<RangeInclusive<Generation>>,
    /// Those that recovery to the point itself needs.
    pub required: Option<RangeInclusive<Generation>>,
    /// The instant that they reach to, if it is not that of the point: closed logs end where the last of them was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// On which [branch](crate::fork) of the stream they were written: how often the database had been restored in place.
    #[serde(default, skip_serializing_if = "crate::fork::is_first")]
    pub branch: u32,
}

impl PointLogs {
    /// The logs `range` of a stream, for a database that needs `required` of them.
    pub fn new(
        signature: LogSignature,
        range: Option<RangeInclusive<Generation>>,
        required: Option<RangeInclusive<Generation>>,
    ) -> Self {
        Self { signature, range, required, until: None, branch: 0 }
    }

    /// What they can be put together with.
    pub const fn chain(&self) -> LogChain {
        LogChain { signature: self.signature, branch: self.branch }
    }

    /// The last generation of which the point has everything. What it needs beyond its own is the log that was being written,
    /// of which it has a part.
    pub fn whole(&self) -> Option<Generation> {
        let own = self.range.as_ref().map(|range| *range.end());
        own.or_else(|| self.required.as_ref().and_then(|range| range.end().previous()))
    }
}

/// What is known of the freeze that a point was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointEvidence {
    /// How far it reached.
    pub level: QuiesceLevel,
    /// Whether it held.
    pub held: Held,
    /// How finely that may be read.
    pub grain: EvidenceGrain,
    /// When writes stopped.
    pub frozen_at: Option<DateTime<Utc>>,
    /// When they went on.
    pub thawed_at: Option<DateTime<Utc>>,
    /// The log stream as the snapshot shows it.
    pub log_state: Option<LogState>,
}

impl PointEvidence {
    /// Evidence of a freeze at unknown times.
    pub fn new(level: QuiesceLevel, held: Held, grain: EvidenceGrain) -> Self {
        Self { level, held, grain, frozen_at: None, thawed_at: None, log_state: None }
    }

    /// What the evidence of a whole set says of one copy.
    pub fn of(outcome: &crate::evidence::SetOutcome, copy: &CopyId) -> Self {
        Self {
            level: outcome.level,
            held: outcome.held(copy),
            grain: outcome.grain,
            frozen_at: outcome.frozen_at,
            thawed_at: outcome.thawed_at,
            log_state: outcome.copies.get(copy).and_then(|evidence| evidence.log_state.clone()),
        }
    }
}

/// How far a point's bytes can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trust {
    /// Nobody looked.
    Unverified,
    /// Every byte was checked and nothing was wrong.
    Verified {
        /// When.
        at: DateTime<Utc>,
    },
    /// Something was wrong. Refused by restores without an override.
    Suspect {
        /// When it was found.
        at: DateTime<Utc>,
        /// What, in one sentence.
        reason: String,
        /// In detail; may be capped.
        findings: Vec<Finding>,
    },
}

impl Trust {
    /// When it was looked at last.
    pub const fn at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Unverified => None,
            Self::Verified { at } | Self::Suspect { at, .. } => Some(*at),
        }
    }

    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Verified { .. } => "verified",
            Self::Suspect { .. } => "suspect",
        }
    }

    /// What a verdict of `at` says. An unverified verdict says nothing.
    pub fn of(verdict: &crate::verdict::Verdict, at: DateTime<Utc>) -> Self {
        use crate::verdict::Verdict;
        match verdict {
            Verdict::Good => Self::Verified { at },
            Verdict::Bad { reason, findings } => {
                Self::Suspect { at, reason: reason.clone(), findings: findings.clone() }
            }
            Verdict::Unverified { .. } => Self::Unverified,
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is known about the truncation that a backup led to. Exchange decides, later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Truncation {
    /// Nothing was asked for.
    NotRequested,
    /// Exchange was told that the backup is good.
    Requested,
    /// It has happened.
    Confirmed {
        /// The lowest generation that is still there.
        oldest_present: Option<Generation>,
    },
    /// There is nothing that may go.
    NothingEligible {
        /// Why, e.g. the checkpoint.
        why: String,
    },
    /// Nobody can say: the completion was unclear or lost.
    Unknown,
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRequested => f.write_str("not requested"),
            Self::Requested => f.write_str("requested"),
            Self::Confirmed { .. } => f.write_str("confirmed"),
            Self::NothingEligible { why } => write!(f, "nothing eligible ({why})"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What one backup of one copy left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestorePoint {
    /// Which point.
    pub id: PointId,
    /// Its name, for people.
    pub name: String,
    /// The database.
    pub database: DatabaseId,
    /// What the database was called then.
    pub database_name: String,
    /// The signature of the database file, where it could be read.
    pub database_signature: Option<DatabaseSignature>,
    /// The copy that was taken.
    pub copy: CopyId,
    /// The copy's part.
    pub role: CopyRole,
    /// What was taken.
    pub kind: BackupKind,
    /// What it may be called.
    pub consistency: Consistency,
    /// The instant that it restores to: that of the freeze.
    pub taken_at: DateTime<Utc>,
    /// The job that made it.
    pub job: JobId,
    /// The run that made it.
    pub run: RunId,
    /// The set of snapshots that it belongs to.
    pub set: SetToken,
    /// The policy it was made under.
    pub policy: Option<PolicyRef>,
    /// The group it was made for.
    pub group: Option<GroupId>,
    /// Its label.
    pub class: FrequencyClass,
    /// Its logs.
    pub logs: Option<PointLogs>,
    /// Its snapshots; at least one.
    pub members: Vec<PointMember>,
    /// Its files.
    pub files: Vec<PointFile>,
    /// What is known of the freeze.
    pub evidence: PointEvidence,
    /// How far it has come.
    pub state: PointState,
    /// How its deletion stands, if one was ever begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,
    /// What the storage has lost of it, if it ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How far it can be trusted.
    pub trust: Trust,
    /// What is known about truncation.
    pub truncation: Truncation,
    /// When [`RestorePoint::truncation`] was learnt, if after publication.
    pub truncation_at: Option<DateTime<Utc>>,
    /// When Exchange was told of it and answered, or nobody could tell it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
    /// BLAKE3 of the manifest beside the data, as hexadecimal text.
    pub manifest_digest: Option<String>,
}

/// What a new point is made of; the rest has defaults that can be set afterwards.
#[derive(Clone, Debug)]
pub struct NewPoint {
    /// Which point.
    pub id: PointId,
    /// The copy that was taken.
    pub copy: CopyId,
    /// What the database is called.
    pub database_name: String,
    /// What was taken.
    pub kind: BackupKind,
    /// The instant that it restores to.
    pub taken_at: DateTime<Utc>,
    /// The job.
    pub job: JobId,
    /// The run.
    pub run: RunId,
    /// The set of snapshots.
    pub set: SetToken,
    /// What is known of the freeze.
    pub evidence: PointEvidence,
}

impl RestorePoint {
    /// A provisional, unverified point of the active copy without members or files; its
    /// consistency follows from its evidence.
    pub fn new(new: NewPoint) -> Self {
        let NewPoint { id, copy, database_name, kind, taken_at, job, run, set, evidence } = new;
        Self {
            id,
            name: format!("{database_name} {}", taken_at.format("%Y-%m-%dT%H:%M:%SZ")),
            database: copy.database,
            database_name,
            database_signature: None,
            copy,
            role: CopyRole::Active,
            kind,
            consistency: Consistency::of(evidence.level, &evidence.held),
            taken_at,
            job,
            run,
            set,
            policy: None,
            group: None,
            class: FrequencyClass::OnDemand,
            logs: None,
            members: Vec::new(),
            files: Vec::new(),
            evidence,
            state: PointState::Provisional,
            expiry: None,
            loss: None,
            trust: Trust::Unverified,
            truncation: Truncation::NotRequested,
            truncation_at: None,
            completed_at: None,
            manifest_digest: None,
        }
    }

    /// Size of its files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// Whether it holds the database: it took it (else only logs), and its deletion has not begun.
    pub fn has_database(&self) -> bool {
        self.state.is_whole() && self.kind.takes_database()
    }
}
