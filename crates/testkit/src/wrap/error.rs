//! Errors as a recording keeps them, and errors of recordings.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};
use stillpoint_exchange::{PluginError, PluginErrorKind};
use stillpoint_storage::{ProviderError, ProviderErrorKind, VolumeRef};

use crate::fault::SideError;

/// Why something is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It does not begin as a recording of this version does.
    #[error("it begins with {found:?}, which is not {}", super::SCHEMA)]
    Schema {
        /// What its first line says.
        found: String,
    },
    /// A line is not one of a recording.
    #[error("line {number} cannot be read: {source}")]
    Line {
        /// Which, from 1.
        number: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl ErrorFacts for RecordingError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Schema { .. } => "recording.schema".into(),
            Self::Line { .. } => "recording.damaged".into(),
        }
    }
    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
    fn effect(&self) -> Effect {
        Effect::None
    }
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Schema { .. } => "Record it anew with this version.".into(),
            Self::Line { .. } => "Record it anew, or leave the line out.".into(),
        }
    }
}

/// An error of a side, with all that it told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RecordedError {
    kind: Value,
    message: String,
    effect: Effect,
    retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<VolumeRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subjects: Vec<Subject>,
    remedy: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
}

/// A cause, as far as it is known: what it said.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

impl RecordedError {
    fn of(error: &(impl ErrorFacts + Error), kind: Result<Value, serde_json::Error>) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self {
            kind: kind.unwrap_or(Value::Null),
            message: error.to_string(),
            effect: error.effect(),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            volume: None,
            subjects: error.subjects(),
            remedy: error.remedy().into_owned(),
            causes,
        }
    }

    fn cause(&self) -> Option<Box<Cause>> {
        let causes = self.causes.iter().rev();
        causes.fold(None, |source, message| {
            Some(Box::new(Cause { message: message.clone(), source }))
        })
    }
}

/// An error that can be recorded and made again.
pub(super) trait Recordable: SideError {
    fn record(&self) -> RecordedError;
    fn again(recorded: &RecordedError) -> Self;
}

impl Recordable for ProviderError {
    fn record(&self) -> RecordedError {
        let mut recorded = RecordedError::of(self, serde_json::to_value(self.kind()));
        recorded.volume = self.volume().cloned();
        if recorded.volume.is_some() {
            // The volume is told first among the subjects.
            recorded.subjects.remove(0);
        }
        recorded
    }

    fn again(recorded: &RecordedError) -> Self {
        let kind = ProviderErrorKind::deserialize(&recorded.kind);
        let kind = kind.unwrap_or(ProviderErrorKind::Internal);
        let mut error = Self::new(kind, &recorded.message)
            .with_retryable(recorded.retryable)
            .with_remedy(recorded.remedy.clone());
        if recorded.effect == Effect::None {
            error = error.without_effect();
        }
        if let Some(time) = recorded.retry_after {
            error = error.with_retry_after(time);
        }
        if let Some(volume) = &recorded.volume {
            error = error.with_volume(volume.clone());
        }
        if let Some(cause) = recorded.cause() {
            error = error.with_source(cause);
        }
        recorded.subjects.iter().cloned().fold(error, Self::with_subject)
    }
}

impl Recordable for PluginError {
    fn record(&self) -> RecordedError {
        RecordedError::of(self, serde_json::to_value(self.kind()))
    }

    fn again(recorded: &RecordedError) -> Self {
        let kind = PluginErrorKind::deserialize(&recorded.kind);
        let kind = kind.unwrap_or(PluginErrorKind::Internal);
        let mut error = Self::new(kind, &recorded.message).with_remedy(recorded.remedy.clone());
        if recorded.effect == Effect::None {
            error = error.without_effect();
        }
        if let Some(time) = recorded.retry_after {
            error = error.with_retry_after(time);
        }
        if let Some(cause) = recorded.cause() {
            error = error.with_source(cause);
        }
        recorded.subjects.iter().cloned().fold(error, Self::with_subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_back_with_all_that_it_told() {
        let until = chrono::DateTime::UNIX_EPOCH;
        for kind in [
            ProviderErrorKind::Unsupported("revert"),
            ProviderErrorKind::Locked { until },
            ProviderErrorKind::Io,
        ] {
            let error = ProviderError::new(kind, "it does not work")
                .with_volume("fs:mail".parse().unwrap())
                .with_subject(Subject::new("file", "a"))
                .with_retryable(true)
                .with_retry_after(Duration::from_secs(3))
                .with_remedy("Look.")
                .with_source(Cause {
                    message: "one".to_owned(),
                    source: Some(Box::new(Cause { message: "two".to_owned(), source: None })),
                });
            let line = serde_json::to_string(&error.record()).unwrap();
            let recorded: RecordedError = serde_json::from_str(&line).unwrap();
            let again = ProviderError::again(&recorded);
            assert_eq!(again.record(), error.record());
            assert_eq!((again.kind(), again.code()), (error.kind(), error.code()));
            assert_eq!(again.subjects(), error.subjects());
        }
        let hresult = Some(0x8004_23F3);
        let state = "FailedAtFreeze".to_owned();
        let kind = PluginErrorKind::WriterFailed { state, hresult, retryable: true };
        let error = PluginError::new(kind, "the writer failed").without_effect();
        let again = PluginError::again(&error.record());
        assert_eq!(again.record(), error.record());
        assert!(again.is_retryable() && again.kind() == error.kind());
        let strange = ProviderError::unsupported("levitation").record();
        let line = serde_json::to_string(&strange).unwrap();
        let again = ProviderError::again(&serde_json::from_str(&line).unwrap());
        assert_eq!(again.kind(), &ProviderErrorKind::Unsupported("other"));
        assert!(again.to_string().contains("levitation"));
    }
}
