//! Holds: what somebody keeps whatever the rules say.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use crate::id::{HoldName, PointId};
use crate::manifest::ManifestError;

/// The format of a hold beside the data that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The name of a hold among the documents beside the data.
pub fn document_name(hold: &HoldName) -> String {
    format!("hold-{hold}.json")
}

/// Whether a document beside the data is a hold.
pub fn is_document(name: &str) -> bool {
    name.strip_prefix("hold-").is_some_and(|name| name.strip_suffix(".json").is_some())
}

/// Keeps restore points from being deleted until it is taken off, or over. Ours; a lock is the storage's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// What it is known by, such as the number of a case.
    pub name: HoldName,
    /// What it keeps.
    pub points: BTreeSet<PointId>,
    /// What for.
    pub reason: String,
    /// Who put it on.
    pub by: String,
    /// When.
    pub since: DateTime<Utc>,
    /// When it is over; by itself never, if none.
    pub until: Option<DateTime<Utc>>,
}

impl Hold {
    /// A hold on these points, until it is taken off.
    pub fn new(
        name: HoldName,
        points: BTreeSet<PointId>,
        reason: impl Into<String>,
        by: impl Into<String>,
        since: DateTime<Utc>,
    ) -> Self {
        Self { name, points, reason: reason.into(), by: by.into(), since, until: None }
    }

    /// The same until then.
    #[must_use]
    pub const fn until(mut self, until: DateTime<Utc>) -> Self {
        self.until = Some(until);
        self
    }

    /// Whether it keeps anything at this time.
    pub fn is_on(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// What is kept when two say different things of one hold: all of both, for as long as either.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.points.extend(other.points.iter().copied());
        self.until = match (self.until, other.until) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
        if (other.since, &other.by, &other.reason) > (self.since, &self.by, &self.reason) {
            self.since = other.since;
            self.by.clone_from(&other.by);
            self.reason.clone_from(&other.reason);
        }
        self
    }

    /// Its text beside the data: JSON, indented, ending in a line feed.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        crate::manifest::write(&Stored { format: FORMAT, hold: self.clone() })
    }

    /// Reads what [`Hold::to_json`] wrote, in this version or an earlier one.
    ///
    /// # Errors
    /// [`ManifestError`]: it is damaged, or a later version wrote it.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        crate::manifest::read::<Stored>(text, FORMAT).map(|stored| stored.hold)
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// [`HoldError`] by kind.
    pub fn check(&self) -> Result<(), HoldError> {
        let name = || self.name.clone();
        if self.points.is_empty() {
            return Err(HoldError::Empty { name: name() });
        }
        if self.reason.trim().is_empty() {
            return Err(HoldError::NoReason { name: name() });
        }
        if self.until.is_some_and(|until| until <= self.since) {
            return Err(HoldError::Over { name: name() });
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    hold: Hold,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}: {}", self.name, self.by, self.reason)
    }
}

/// A hold breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// It keeps nothing.
    #[error("the hold {name} names no restore point")]
    Empty {
        /// The hold.
        name: HoldName,
    },
    /// Nobody says what it is for.
    #[error("the hold {name} has no reason")]
    NoReason {
        /// The hold.
        name: HoldName,
    },
    /// It ends before it begins.
    #[error("the hold {name} would be over at once")]
    Over {
        /// The hold.
        name: HoldName,
    },
}

impl ErrorFacts for HoldError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Empty { .. } => "hold.empty",
            Self::NoReason { .. } => "hold.no_reason",
            Self::Over { .. } => "hold.over",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        let (Self::Empty { name } | Self::NoReason { name } | Self::Over { name }) = self;
        vec![Subject::new("hold", name)]
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Empty { .. } => "Name the restore points that it is to keep.",
            Self::NoReason { .. } => "Say what it is for: whoever meets it in a year will ask.",
            Self::Over { .. } => "Give an end in the future, or none.",
        }
        .into()
    }
}
