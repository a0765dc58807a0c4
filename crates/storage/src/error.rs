//! What a provider says when it cannot.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, Failure, Interrupted, Panicked, PathError, Subject,
};
use stillpoint_model::id::VolumeRef;

/// The result of a call to a provider.
pub type ProviderResult<T> = Result<T, ProviderError>;

/// The name of a capability. An alias, as a reference in a field would be taken for one into the text that is read.
type Capability = &'static str;

/// The names of capabilities in errors of this workspace.
const CAPABILITIES: [&str; 12] = [
    "adopt",
    "atomic_group",
    "clone",
    "commit",
    "documents",
    "expose",
    "instant",
    "lock",
    "max_volumes",
    "replicate",
    "revert",
    "stored format",
];

/// A name that is read; one that this program does not know is `other`, as the message has it anyway.
fn capability<'de, D: Deserializer<'de>>(from: D) -> Result<Capability, D::Error> {
    let name = Cow::<'de, str>::deserialize(from)?;
    Ok(CAPABILITIES.into_iter().find(|known| *known == name).unwrap_or("other"))
}

/// What kind of trouble it is, named for what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProviderErrorKind {
    /// The request is outside the provider's capabilities; the name of the one that is missing (S5).
    Unsupported(#[serde(deserialize_with = "capability")] Capability),
    /// The request makes no sense.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// A name is taken by something that is not ours.
    NameTaken,
    /// The volume has as many snapshots as it can have.
    SnapshotLimit {
        /// How many that is.
        limit: u64,
    },
    /// There is no room.
    NoSpace,
    /// The target cannot be written.
    ReadOnly,
    /// A file or folder may not be read or written by this process.
    AccessDenied,
    /// A path leaves the folder that it has to stay in, or is one that the provider cannot hold.
    PathEscapes,
    /// A file that was to be in the snapshot has vanished.
    Vanished,
    /// The worst case of the commit does not fit the freeze limit.
    TooSlow {
        /// The worst case.
        worst_case: Duration,
        /// The limit.
        limit: Duration,
    },
    /// A prepared set has expired, or was discarded.
    Expired,
    /// The snapshot is held.
    Held,
    /// The snapshot is locked by the storage.
    Locked {
        /// Until when.
        until: DateTime<Utc>,
    },
    /// Something depends on the snapshot.
    Dependents,
    /// A revert would touch more than was consented to.
    Collateral,
    /// The caller's fencing token is older than one that was seen.
    Fenced,
    /// Another operation is under way.
    Busy,
    /// The storage did not answer in time.
    TimedOut,
    /// The storage cannot be reached.
    Unreachable,
    /// What is stored is not what was stored.
    Damaged,
    /// The call was cancelled.
    Cancelled,
    /// The storage failed in some other way.
    Io,
    /// A defect of the provider.
    Internal,
}

impl ProviderErrorKind {
    fn facts(&self) -> (&'static str, ErrorClass, &'static str) {
        use ErrorClass::{Busy, Conflict, Integrity, Internal, Invalid, Unavailable};
        match self {
            Self::Unsupported(_) => (
                "storage.unsupported",
                Invalid,
                "Use a provider that has the capability, or ask for less.",
            ),
            Self::Invalid => ("storage.invalid", Invalid, "Correct the request."),
            Self::NotFound => (
                "storage.not_found",
                Conflict,
                "Refresh what is known of the storage, then ask again.",
            ),
            Self::NameTaken => (
                "storage.name_taken",
                Conflict,
                "Rename what is in the way, or choose another name.",
            ),
            Self::SnapshotLimit { .. } => (
                "storage.snapshot_limit",
                Conflict,
                "Delete snapshots that are not needed, or keep fewer restore points.",
            ),
            Self::NoSpace => {
                ("storage.no_space", Unavailable, "Free room on the target, then retry.")
            }
            Self::ReadOnly => ("storage.read_only", Conflict, "Make the target writable."),
            Self::AccessDenied => (
                "storage.access_denied",
                Conflict,
                "Give this process the right to read the source and to write the store.",
            ),
            Self::PathEscapes => (
                "storage.path_escapes",
                Invalid,
                "Name paths inside the folder, without links that lead out of it, and targets outside the store.",
            ),
            Self::Vanished => (
                "storage.vanished",
                Unavailable,
                "Find out what removed the file, then back up again.",
            ),
            Self::TooSlow { .. } => (
                "storage.too_slow",
                Conflict,
                "Use storage with instant snapshots, smaller sets, or data at rest without a freeze limit.",
            ),
            Self::Expired => ("storage.expired", Conflict, "Prepare the snapshots again."),
            Self::Held => ("storage.held", Conflict, "Release the hold first."),
            Self::Locked { .. } => ("storage.locked", Conflict, "Wait until the lock ends."),
            Self::Dependents => {
                ("storage.dependents", Conflict, "Remove what depends on the snapshot first.")
            }
            Self::Collateral => (
                "restore.revert_collateral",
                Conflict,
                "Restore by clone, or consent to exactly what would be lost.",
            ),
            Self::Fenced => {
                ("lease.fenced", Conflict, "Stop: another run has taken over the resource.")
            }
            Self::Busy => ("storage.busy", Busy, "Try again later."),
            Self::TimedOut => (
                "storage.timed_out",
                Unavailable,
                "Look whether the operation has happened after all, then retry.",
            ),
            Self::Unreachable => {
                ("storage.unreachable", Unavailable, "Check the storage and the way to it.")
            }
            Self::Damaged => (
                "storage.damaged",
                Integrity,
                "Do not use this snapshot; restore from another restore point.",
            ),
            Self::Cancelled => {
                ("call.cancelled", Unavailable, "Run it again if it is still wanted.")
            }
            Self::Io => ("storage.io", Unavailable, "Check the storage, then retry."),
            Self::Internal => ("storage.internal", Internal, "Report it to the provider's makers."),
        }
    }
}

/// An error of a provider (S6): what happened, to which volume, whether it may have had an effect, and what to do.
///
/// The effect is unknown unless [`without_effect`](Self::without_effect) says otherwise: a provider says that nothing
/// happened only where it is sure.
///
/// ```
/// use stillpoint_context::{Effect, ErrorFacts};
/// use stillpoint_storage::{ProviderError, ProviderErrorKind};
///
/// let error = ProviderError::new(ProviderErrorKind::SnapshotLimit { limit: 1023 }, "no room for one more snapshot")
///     .without_effect();
/// assert_eq!(error.code(), "storage.snapshot_limit");
/// assert_eq!(error.effect(), Effect::None);
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    kind: ProviderErrorKind,
    message: String,
    volume: Option<VolumeRef>,
    subjects: Vec<Subject>,
    effect: Effect,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ProviderError {
    /// An error of this kind; `message` is one sentence without a full stop.
    pub fn new(kind: ProviderErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            volume: None,
            subjects: Vec::new(),
            effect: Effect::Unknown,
            retryable: None,
            retry_after: None,
            remedy: None,
            source: None,
        }
    }

    /// The request needs a capability that the provider lacks. Nothing was done.
    pub fn unsupported(capability: &'static str) -> Self {
        Self::new(
            ProviderErrorKind::Unsupported(capability),
            format!("the provider does not have the capability `{capability}`"),
        )
        .without_effect()
    }

    /// An error of the operating system, with the kind that fits it; `doing` is what was being done, such as
    /// `copy /mail/db.edb`.
    pub fn io(doing: impl std::fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ProviderErrorKind::NotFound,
            Io::PermissionDenied => ProviderErrorKind::AccessDenied,
            Io::AlreadyExists => ProviderErrorKind::NameTaken,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ProviderErrorKind::NoSpace,
            Io::ReadOnlyFilesystem => ProviderErrorKind::ReadOnly,
            Io::TimedOut => ProviderErrorKind::TimedOut,
            Io::ResourceBusy => ProviderErrorKind::Busy,
            _ => ProviderErrorKind::Io,
        };
        Self::new(kind, format!("could not {doing}: {error}")).with_source(error)
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> &ProviderErrorKind {
        &self.kind
    }

    /// The volume that it is about, if it is about one.
    pub fn volume(&self) -> Option<&VolumeRef> {
        self.volume.as_ref()
    }

    /// The same, about this volume.
    pub fn with_volume(mut self, volume: VolumeRef) -> Self {
        self.volume = Some(volume);
        self
    }

    /// The same, also about this.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.subjects.push(subject);
        self
    }

    /// The same; nothing was changed.
    pub fn without_effect(mut self) -> Self {
        self.effect = Effect::None;
        self
    }

    /// The same, to be retried or not, whatever its kind would say.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// The same, to be retried after this time.
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// The same with a better remedy than its kind has.
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same, caused by this.
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl ErrorFacts for ProviderError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(self.kind.facts().0)
    }
    fn class(&self) -> ErrorClass {
        self.kind.facts().1
    }
    fn is_retryable(&self) -> bool {
        self.retryable.unwrap_or_else(|| {
            matches!(self.class(), ErrorClass::Busy | ErrorClass::Unavailable)
                && self.kind != ProviderErrorKind::Cancelled
        })
    }
    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
    fn effect(&self) -> Effect {
        self.effect
    }
    fn subjects(&self) -> Vec<Subject> {
        let volume = self.volume.iter().map(|volume| Subject::new("volume", volume));
        volume.chain(self.subjects.iter().cloned()).collect()
    }
    fn remedy(&self) -> Cow<'static, str> {
        self.remedy.clone().unwrap_or(Cow::Borrowed(self.kind.facts().2))
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self::of(&error)
    }
}

impl From<Interrupted> for ProviderError {
    fn from(interrupted: Interrupted) -> Self {
        let kind = match interrupted {
            Interrupted::DeadlinePassed => ProviderErrorKind::TimedOut,
            _ => ProviderErrorKind::Cancelled,
        };
        Self::new(kind, interrupted.to_string()).with_source(interrupted)
    }
}

impl From<Panicked> for ProviderError {
    fn from(panicked: Panicked) -> Self {
        Self::new(ProviderErrorKind::Internal, panicked.to_string()).with_source(panicked)
    }
}

impl From<PathError> for ProviderError {
    fn from(error: PathError) -> Self {
        Self::new(ProviderErrorKind::PathEscapes, error.to_string())
            .with_source(error)
            .without_effect()
    }
}
