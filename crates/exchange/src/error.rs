//! What a plug-in says when it cannot.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, Failure, Interrupted, Panicked, PathError, Subject,
};

/// The result of a call to a plug-in.
pub type PluginResult<T> = Result<T, PluginError>;

/// The name of a capability. An alias, as a reference in a field would be taken for one into the text that is read.
type Capability = &'static str;

/// The names of capabilities in errors of this workspace.
const CAPABILITIES: [&str; 7] =
    ["freeze", "kind", "max_databases", "max_volumes", "restore", "snap", "verify"];

/// A name that is read; one that this program does not know is `other`, as the message has it anyway.
fn capability<'de, D: Deserializer<'de>>(from: D) -> Result<Capability, D::Error> {
    let name = Cow::<'de, str>::deserialize(from)?;
    Ok(CAPABILITIES.into_iter().find(|known| *known == name).unwrap_or("other"))
}

/// What kind of trouble it is, named for what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginErrorKind {
    /// The request is outside the plug-in's capabilities; the name of the one that is missing.
    Unsupported(#[serde(deserialize_with = "capability")] Capability),
    /// The request makes no sense.
    Invalid,
    /// A host, database, copy or file that was named does not exist.
    NotFound,
    /// A copy cannot be backed up now.
    NotAvailable,
    /// The Exchange writer is not there.
    WriterMissing,
    /// The Exchange writer failed.
    WriterFailed {
        /// Its state, such as `FailedAtFreeze`.
        state: String,
        /// The error that it gave, such as `0x800423F3`.
        hresult: Option<u32>,
        /// Whether VSS calls it retryable.
        retryable: bool,
    },
    /// The freeze was not reached, or did not last, in time (VSS, Exchange writer: 20 s).
    FreezeTimeout,
    /// I/O was held too long (VSS: 10 s).
    IoHoldTimeout,
    /// A hardware provider refused.
    ProviderVeto,
    /// Another backup tool is at it.
    BusyOtherRequester,
    /// The session was thawed while it was being frozen; it has thawed itself.
    Superseded,
    /// The session is not open any more: aborted, completed, expired or lost.
    SessionGone,
    /// The caller's fencing token is older than one that was seen.
    Fenced,
    /// The database to restore to does not exist.
    TargetMissing,
    /// Something has the target open.
    TargetInUse,
    /// The copy to restore to is not the active one.
    CopyNotActive,
    /// A file or folder may not be read or written by this process.
    AccessDenied,
    /// The host or its agent cannot be reached.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// The call was cancelled.
    Cancelled,
    /// Reading or writing failed in some other way.
    Io,
    /// A defect of the plug-in.
    Internal,
}

impl PluginErrorKind {
    fn facts(&self) -> (&'static str, ErrorClass, &'static str) {
        use ErrorClass::{Busy, Conflict, Internal, Invalid, Unavailable};
        match self {
            Self::Unsupported(_) => (
                "exchange.unsupported",
                Invalid,
                "Use a plug-in that has the capability, or ask for less.",
            ),
            Self::Invalid => ("exchange.invalid", Invalid, "Correct the request."),
            Self::NotFound => {
                ("exchange.not_found", Conflict, "Take the inventory again, then plan again.")
            }
            Self::NotAvailable => (
                "resource.not_available",
                Unavailable,
                "Bring the database copy back to a normal state.",
            ),
            Self::WriterMissing => (
                "quiesce.writer_missing",
                Unavailable,
                "Start the information store and the replication service of the server.",
            ),
            Self::WriterFailed { .. } => (
                "quiesce.writer_failed",
                Unavailable,
                "Restart the replication service of the server if it does not recover by itself.",
            ),
            Self::FreezeTimeout => (
                "quiesce.freeze_timeout",
                Unavailable,
                "Make the snapshots faster, or the sets smaller.",
            ),
            Self::IoHoldTimeout => (
                "quiesce.io_hold_timeout",
                Unavailable,
                "Make the snapshots faster, or the sets smaller.",
            ),
            Self::ProviderVeto => {
                ("quiesce.provider_veto", Unavailable, "Look into the hardware provider's own log.")
            }
            Self::BusyOtherRequester => (
                "quiesce.busy_other_requester",
                Busy,
                "Wait until the other backup tool has finished, or move its schedule.",
            ),
            Self::Superseded => {
                ("quiesce.superseded", Conflict, "Nothing: the freeze came too late and has ended.")
            }
            Self::SessionGone => ("session.gone", Conflict, "Begin a new backup."),
            Self::Fenced => {
                ("lease.fenced", Conflict, "Stop: another run has taken over the resource.")
            }
            Self::TargetMissing => (
                "restore.target_missing",
                Conflict,
                "Recreate the database, or restore to a recovery database or another path.",
            ),
            Self::TargetInUse => (
                "restore.target_in_use",
                Conflict,
                "Dismount the database, or close what has its files open.",
            ),
            Self::CopyNotActive => {
                ("restore.copy_not_active", Conflict, "Move the active copy to this server first.")
            }
            Self::AccessDenied => (
                "exchange.access_denied",
                Conflict,
                "Give this process the right to read the files.",
            ),
            Self::Unreachable => (
                "exchange.unreachable",
                Unavailable,
                "Check the server, its agent and the way to it.",
            ),
            Self::TimedOut => {
                ("exchange.timed_out", Unavailable, "Find out what is slow, then retry.")
            }
            Self::Cancelled => {
                ("call.cancelled", Unavailable, "Run it again if it is still wanted.")
            }
            Self::Io => ("exchange.io", Unavailable, "Check the disk and the server, then retry."),
            Self::Internal => ("exchange.internal", Internal, "Report it to the plug-in's makers."),
        }
    }
}

/// An error of a plug-in: what happened, to what, whether it may have had an effect, and what to do.
///
/// The effect is unknown unless [`without_effect`](Self::without_effect) says otherwise.
///
/// ```
/// use stillpoint_context::ErrorFacts;
/// use stillpoint_exchange::{PluginError, PluginErrorKind};
///
/// let error = PluginError::new(PluginErrorKind::BusyOtherRequester, "another snapshot set is in progress")
///     .without_effect();
/// assert_eq!(error.code(), "quiesce.busy_other_requester");
/// assert!(error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    kind: PluginErrorKind,
    message: String,
    subjects: Vec<Subject>,
    effect: Effect,
    retry_after: Option<Duration>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PluginError {
    /// An error of this kind; `message` is one sentence without a full stop.
    pub fn new(kind: PluginErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            subjects: Vec::new(),
            effect: Effect::Unknown,
            retry_after: None,
            remedy: None,
            source: None,
        }
    }

    /// The request needs a capability that the plug-in lacks. Nothing was done.
    pub fn unsupported(capability: &'static str) -> Self {
        Self::new(
            PluginErrorKind::Unsupported(capability),
            format!("the plug-in does not have the capability `{capability}`"),
        )
        .without_effect()
    }

    /// An error of the operating system, with the kind that fits it; `doing` is what was being done, such as
    /// `read /mail/db.edb`.
    pub fn io(doing: impl std::fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => PluginErrorKind::NotFound,
            Io::PermissionDenied => PluginErrorKind::AccessDenied,
            Io::TimedOut => PluginErrorKind::TimedOut,
            _ => PluginErrorKind::Io,
        };
        Self::new(kind, format!("could not {doing}: {error}")).with_source(error)
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> &PluginErrorKind {
        &self.kind
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

impl ErrorFacts for PluginError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(self.kind.facts().0)
    }
    fn class(&self) -> ErrorClass {
        self.kind.facts().1
    }
    fn is_retryable(&self) -> bool {
        match &self.kind {
            PluginErrorKind::WriterFailed { retryable, .. } => *retryable,
            PluginErrorKind::Cancelled => false,
            _ => matches!(self.class(), ErrorClass::Busy | ErrorClass::Unavailable),
        }
    }
    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
    fn effect(&self) -> Effect {
        self.effect
    }
    fn subjects(&self) -> Vec<Subject> {
        self.subjects.clone()
    }
    fn remedy(&self) -> Cow<'static, str> {
        self.remedy.clone().unwrap_or(Cow::Borrowed(self.kind.facts().2))
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        Self::of(&error)
    }
}

impl From<Interrupted> for PluginError {
    fn from(interrupted: Interrupted) -> Self {
        let kind = match interrupted {
            Interrupted::DeadlinePassed => PluginErrorKind::TimedOut,
            _ => PluginErrorKind::Cancelled,
        };
        Self::new(kind, interrupted.to_string()).with_source(interrupted)
    }
}

impl From<Panicked> for PluginError {
    fn from(panicked: Panicked) -> Self {
        Self::new(PluginErrorKind::Internal, panicked.to_string()).with_source(panicked)
    }
}

impl From<PathError> for PluginError {
    fn from(error: PathError) -> Self {
        Self::new(PluginErrorKind::Invalid, error.to_string()).with_source(error).without_effect()
    }
}
