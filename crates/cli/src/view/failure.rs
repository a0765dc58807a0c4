//! Failures, warnings and reasons.

use std::fmt::Write as _;

use serde::Serialize;

use crate::context::{Effect, ErrorClass, Failure, Subject};
use crate::model::availability::Reason;
use crate::model::inventory::Generation;
use crate::model::warning::Warning;

/// Something that a failure is about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubjectView {
    kind: String,
    id: String,
}

impl SubjectView {
    fn all(subjects: &[Subject]) -> Vec<Self> {
        let view = |s: &Subject| Self { kind: s.kind.to_string(), id: s.id.clone() };
        subjects.iter().map(view).collect()
    }
}

/// Why something failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailureView {
    pub(crate) code: String,
    class: ErrorClass,
    pub(crate) message: String,
    pub(crate) remedy: String,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    effect: Effect,
    subjects: Vec<SubjectView>,
    causes: Vec<String>,
}

impl FailureView {
    pub(crate) fn of(failure: &Failure) -> Self {
        Self {
            code: failure.code.to_string(),
            class: failure.class,
            message: failure.message.clone(),
            remedy: failure.remedy.to_string(),
            retryable: failure.retryable,
            retry_after_ms: failure
                .retry_after
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            effect: failure.effect,
            subjects: SubjectView::all(&failure.subjects),
            causes: failure.causes.clone(),
        }
    }
}

/// A failure in lines behind `indent`.
pub(crate) fn write_failure(text: &mut String, indent: &str, failure: &FailureView) {
    let _ = writeln!(text, "{indent}{} [{}]", failure.message, failure.code);
    for cause in &failure.causes {
        let _ = writeln!(text, "{indent}  because: {cause}");
    }
    if !failure.remedy.is_empty() {
        let _ = writeln!(text, "{indent}  remedy: {}", failure.remedy);
    }
}

/// Something worth a look that stopped nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WarningView {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
    subjects: Vec<SubjectView>,
}

impl WarningView {
    pub(crate) fn all(warnings: &[Warning]) -> Vec<Self> {
        let view = |warning: &Warning| Self {
            code: warning.code.to_string(),
            message: warning.message.clone(),
            remedy: warning.remedy.to_string(),
            subjects: SubjectView::all(&warning.subjects),
        };
        warnings.iter().map(view).collect()
    }

    pub(crate) fn write(text: &mut String, indent: &str, warnings: &[Self]) {
        for warning in warnings {
            let _ = writeln!(text, "{indent}warning: {} [{}]", warning.message, warning.code);
            if !warning.remedy.is_empty() {
                let _ = writeln!(text, "{indent}  remedy: {}", warning.remedy);
            }
        }
    }
}

/// A stretch of log generations, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RangeView {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl RangeView {
    pub(crate) const fn of(range: &std::ops::RangeInclusive<Generation>) -> Self {
        Self { from: range.start().0, to: range.end().0 }
    }
}

/// Why a copy cannot be backed up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReasonView {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
    /// For `resource.not_recoverable`: the log generations that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_generations: Vec<RangeView>,
}

impl ReasonView {
    pub(crate) fn all(reasons: &[Reason]) -> Vec<Self> {
        let view = |reason: &Reason| Self {
            code: reason.code(),
            message: reason.to_string(),
            remedy: reason.remedy(),
            missing_generations: match reason {
                Reason::NotRecoverable { missing } => missing.iter().map(RangeView::of).collect(),
                _ => Vec::new(),
            },
        };
        reasons.iter().map(view).collect()
    }
}
