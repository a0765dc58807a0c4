//! How a restore point stands, beside its data.
//!
//! A [manifest](crate::manifest) says what a point is, as it was published. What became of it since (its backup is over, its
//! bytes were checked, it is being deleted, the storage has lost some of it) is told in a small document of its own, which is
//! written anew at each change. A catalogue is rebuilt from both.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::PointId;
use crate::manifest::ManifestError;
use crate::point::{Expiry, Loss, PointState, RestorePoint, Truncation, Trust};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The name of a point's standing among the documents beside the data.
pub fn document_name(point: PointId) -> String {
    format!("standing-{point}.json")
}

/// What became of a point after it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Standing {
    /// The version of this format.
    pub format: u32,
    /// Of which point.
    pub point: PointId,
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
    /// When that was learnt, if after publication.
    pub truncation_at: Option<DateTime<Utc>>,
    /// When its backup was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
}

impl Standing {
    /// How a point stands.
    pub fn of(point: &RestorePoint) -> Self {
        Self {
            format: FORMAT,
            point: point.id,
            state: point.state,
            expiry: point.expiry,
            loss: point.loss.clone(),
            trust: point.trust.clone(),
            truncation: point.truncation.clone(),
            truncation_at: point.truncation_at,
            completed_at: point.completed_at,
        }
    }

    /// Has a point that was read from its manifest stand so. A standing of another point is not taken.
    pub fn apply(&self, point: &mut RestorePoint) {
        if self.point != point.id {
            return;
        }
        // A manifest that tells of the logs alone is later than any standing that does not.
        if point.state != PointState::LogsOnly || self.state != PointState::Available {
            point.state = self.state;
            point.expiry = self.expiry;
        }
        point.loss.clone_from(&self.loss);
        point.trust = self.trust.clone();
        point.truncation = self.truncation.clone();
        point.truncation_at = self.truncation_at;
        point.completed_at = self.completed_at;
    }

    /// The latest instant that it knows of.
    pub fn latest(&self) -> Option<DateTime<Utc>> {
        let loss = self.loss.as_ref().map(|loss| loss.at);
        let expiry = self.expiry.map(|expiry| expiry.since);
        let told = [self.trust.at(), self.truncation_at, self.completed_at, loss, expiry];
        told.into_iter().flatten().max()
    }

    /// Its text: JSON, indented, ending in a line feed.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        crate::manifest::write(self)
    }

    /// Reads what [`Standing::to_json`] wrote, in this version or an earlier one. What is not known is ignored.
    ///
    /// # Errors
    /// [`ManifestError`]: it is damaged, or a later version wrote it.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        crate::manifest::read(text, FORMAT)
    }
}
