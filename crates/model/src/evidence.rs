//! What a plug-in says, after the thaw, about a freeze.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::CopyId;
use crate::inventory::LogState;
use crate::quiesce::{Consistency, Held, QuiesceLevel};

/// How finely a plug-in can say whether the freeze held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceGrain {
    /// One answer for everything that a writer froze; every copy of that server shares it.
    PerWriter,
    /// An answer for each database.
    PerDatabase,
}

/// What is known of one copy in the freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyEvidence {
    /// Whether its freeze held.
    pub held: Held,
    /// Its log stream as the snapshot shows it.
    pub log_state: Option<LogState>,
}

impl CopyEvidence {
    /// An answer without a log state.
    pub fn new(held: Held) -> Self {
        Self { held, log_state: None }
    }

    /// The same with the log state.
    pub fn with_log_state(mut self, log_state: LogState) -> Self {
        self.log_state = Some(log_state);
        self
    }
}

/// A document that a restore needs and that is kept beside the data, e.g. VSS's backup components
/// document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Document {
    /// Its name: a plain file name.
    pub name: String,
    /// Its media type, e.g. `application/xml`.
    pub media_type: String,
    /// Its text.
    pub text: String,
}

impl Document {
    /// A document of this text.
    pub fn new(
        name: impl Into<String>,
        media_type: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), media_type: media_type.into(), text: text.into() }
    }
}

/// The evidence of one freeze, read after the thaw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetOutcome {
    /// When writes stopped, on the clock of the side that froze; unknown if it cannot say.
    pub frozen_at: Option<DateTime<Utc>>,
    /// When they went on.
    pub thawed_at: Option<DateTime<Utc>>,
    /// How far the freeze reached.
    pub level: QuiesceLevel,
    /// How finely `copies` may be read.
    pub grain: EvidenceGrain,
    /// What is known of each copy of the session.
    pub copies: BTreeMap<CopyId, CopyEvidence>,
    /// Documents to keep.
    pub documents: Vec<Document>,
}

impl SetOutcome {
    /// An outcome that says nothing of any copy yet.
    pub fn new(level: QuiesceLevel, grain: EvidenceGrain) -> Self {
        Self {
            frozen_at: None,
            thawed_at: None,
            level,
            grain,
            copies: BTreeMap::new(),
            documents: Vec::new(),
        }
    }

    /// Whether the freeze of `copy` held. What is not mentioned is unknown.
    pub fn held(&self, copy: &CopyId) -> Held {
        self.copies.get(copy).map_or(Held::Unknown, |evidence| evidence.held.clone())
    }

    /// What a restore point of `copy` may be called.
    pub fn consistency(&self, copy: &CopyId) -> Consistency {
        Consistency::of(self.level, &self.held(copy))
    }
}
