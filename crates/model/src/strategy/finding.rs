//! What the linter says.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorCode, Subject};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something will not be protected as well as it could be, or will go wrong some day.
    Warning,
    /// Something that is wanted cannot work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The stable code.
    pub code: ErrorCode,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// One sentence without a full stop.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: Cow<'static, str>,
}

impl Finding {
    /// A finding about nothing in particular.
    pub fn new(
        code: impl Into<ErrorCode>,
        severity: Severity,
        message: impl Into<String>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (code, message, remedy) = (code.into(), message.into(), remedy.into());
        Self { code, severity, subjects: Vec::new(), message, remedy }
    }

    /// The same with one more subject.
    pub fn about(mut self, kind: &'static str, id: impl fmt::Display) -> Self {
        self.subjects.push(Subject::new(kind, id));
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
