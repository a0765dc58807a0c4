//! Something worth telling that stops nothing.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorCode, Subject};

/// A warning as data, with a stable code like an error's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warning {
    /// The stable code.
    pub code: ErrorCode,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// One sentence without a full stop.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: Cow<'static, str>,
}

impl Warning {
    /// A warning about nothing in particular.
    pub fn new(
        code: impl Into<ErrorCode>,
        message: impl Into<String>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code: code.into(),
            subjects: Vec::new(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// The same with one more subject.
    pub fn about(mut self, kind: &'static str, id: impl fmt::Display) -> Self {
        self.subjects.push(Subject::new(kind, id));
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
