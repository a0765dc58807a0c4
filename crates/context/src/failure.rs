//! The facts that every error tells, and an error as data.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stable code of an error, such as `placement.active_passive_share_volume`: area, dot, what happened.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(Cow<'static, str>);

impl ErrorCode {
    /// A code of the program's own.
    pub const fn new(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// A code that was read from somewhere.
    pub fn owned(code: impl Into<String>) -> Self {
        Self(Cow::Owned(code.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for ErrorCode {
    fn from(code: &'static str) -> Self {
        Self::new(code)
    }
}

impl PartialEq<&str> for ErrorCode {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({})", self.0)
    }
}

/// What kind of answer an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorClass {
    /// The caller's fault; the same call never succeeds.
    Invalid,
    /// The state does not allow it; it may after a change.
    Conflict,
    /// Somebody else is at it; try again later.
    Busy,
    /// The environment fails; try again.
    Unavailable,
    /// Data is not what it should be; stop, a person is needed.
    Integrity,
    /// A defect of ours.
    Internal,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Integrity => "integrity",
            Self::Internal => "internal",
        })
    }
}

/// Whether a failed call may have changed anything.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was changed.
    None,
    /// Something may have been changed; what is not said is this.
    #[default]
    Unknown,
}

/// Something that an error is about, such as a database or a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The kind of thing, such as `database`.
    pub kind: Cow<'static, str>,
    /// Its id or name.
    pub id: String,
}

impl Subject {
    /// A subject of this kind.
    pub fn new(kind: &'static str, id: impl fmt::Display) -> Self {
        Self { kind: Cow::Borrowed(kind), id: id.to_string() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// What every error that crosses a public boundary of the workspace tells besides its message.
pub trait ErrorFacts {
    /// The stable code.
    fn code(&self) -> ErrorCode;

    /// The class.
    fn class(&self) -> ErrorClass;

    /// Whether the same call may succeed when it is tried again unchanged. By default, what is busy or unavailable.
    fn is_retryable(&self) -> bool {
        matches!(self.class(), ErrorClass::Busy | ErrorClass::Unavailable)
    }

    /// How long to wait before trying again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Whether the failed call may have changed anything. By default unknown.
    fn effect(&self) -> Effect {
        Effect::Unknown
    }

    /// What it is about.
    fn subjects(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// What to do about it, in one sentence.
    fn remedy(&self) -> Cow<'static, str>;
}

/// An error as data: what is journalled, stored in a job, and printed as JSON.
///
/// `Display` is one line and leaves the causes out; print them beside it where there is room.
///
/// ```
/// use stillpoint_context::{Effect, ErrorClass, Failure, Subject};
///
/// let failure = Failure::new("storage.snapshot_limit", ErrorClass::Conflict, "volume data1 has 1023 of 1023 snapshots")
///     .with_effect(Effect::None)
///     .with_subject(Subject::new("volume", "data1"))
///     .with_remedy("Delete snapshots that are not needed, or keep fewer restore points.");
/// assert!(!failure.retryable);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// The stable code.
    pub code: ErrorCode,
    /// The class.
    pub class: ErrorClass,
    /// Whether the same call may succeed when it is tried again unchanged.
    pub retryable: bool,
    /// How long to wait before trying again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// Whether anything may have been changed.
    pub effect: Effect,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// What happened, in one sentence without a full stop.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: Cow<'static, str>,
    /// The messages of the errors below, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure with the defaults of its class: retryable if busy or unavailable, effect unknown, no remedy.
    pub fn new(code: impl Into<ErrorCode>, class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            class,
            retryable: matches!(class, ErrorClass::Busy | ErrorClass::Unavailable),
            retry_after: None,
            effect: Effect::Unknown,
            subjects: Vec::new(),
            message: message.into(),
            remedy: Cow::Borrowed(""),
            causes: Vec::new(),
        }
    }

    /// The data of a live error: this is a decode of what it tells, the error itself is gone.
    pub fn of(error: &(impl ErrorFacts + Error)) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self {
            code: error.code(),
            class: error.class(),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            effect: error.effect(),
            subjects: error.subjects(),
            message: error.to_string(),
            remedy: error.remedy(),
            causes,
        }
    }

    /// The same with this effect.
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The same with this remedy.
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The same with one more subject.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.subjects.push(subject);
        self
    }

    /// The same, to be retried or not.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// The same with one more cause, below those that it has.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
}

impl ErrorFacts for Failure {
    fn code(&self) -> ErrorCode {
        self.code.clone()
    }
    fn class(&self) -> ErrorClass {
        self.class
    }
    fn is_retryable(&self) -> bool {
        self.retryable
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
        self.remedy.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the array did not answer")]
    struct Silent(#[source] std::io::Error);

    impl ErrorFacts for Silent {
        fn code(&self) -> ErrorCode {
            "storage.unreachable".into()
        }
        fn class(&self) -> ErrorClass {
            ErrorClass::Unavailable
        }
        fn remedy(&self) -> Cow<'static, str> {
            "Look at the network.".into()
        }
    }

    #[test]
    fn a_failure_keeps_every_fact_of_its_error_and_survives_json() {
        let failure = Failure::of(&Silent(std::io::Error::other("timed out")));
        assert!(failure.retryable);
        assert_eq!(failure.effect, Effect::Unknown);
        assert_eq!(failure.causes, ["timed out"]);
        let round: Failure =
            serde_json::from_str(&serde_json::to_string(&failure).unwrap()).unwrap();
        assert_eq!(round, failure);
        assert_eq!(Failure::of(&failure).code, "storage.unreachable");
    }
}
