//! What happened to a point, as a journal tells it to a catalogue.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use super::{PointState, RestorePoint, Truncation, Trust};
use crate::id::{PointId, SnapshotRef};

/// One thing that happened to a restore point.
///
/// # Idempotence
/// Facts may be told again, and later ones may have been told before earlier ones are told again:
/// applying a fact a second time changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PointFact {
    /// It exists.
    Published(Box<RestorePoint>),
    /// Exchange answered, or never will: the session is over.
    Completed {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
        /// What that means for truncation.
        truncation: Truncation,
    },
    /// Its bytes were checked.
    Checked {
        /// Which point.
        point: PointId,
        /// What was found, with its date.
        trust: Trust,
    },
    /// Something was learnt about truncation.
    Truncated {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
        /// What.
        truncation: Truncation,
    },
    /// It is to be deleted: told before anything of it is.
    Expiring {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
        /// Which [turn](super::Expiry) this is of its deletion.
        turn: u32,
        /// Its logs stay, as other points need them.
        keeps_logs: bool,
    },
    /// It stays after all, and nothing of it was deleted.
    Spared {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
        /// The turn that ends so.
        turn: u32,
    },
    /// Its database is gone, and its logs stay.
    Reduced {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
        /// The turn that ends so.
        turn: u32,
        /// BLAKE3 of the manifest that tells of its logs alone, as hexadecimal text.
        manifest_digest: Option<String>,
    },
    /// The storage does not have all of its snapshots.
    Missing {
        /// Which point.
        point: PointId,
        /// When that was seen.
        at: DateTime<Utc>,
        /// Those that are gone.
        lost: BTreeSet<SnapshotRef>,
    },
    /// The storage has all of its snapshots again.
    Found {
        /// Which point.
        point: PointId,
        /// When that was seen.
        at: DateTime<Utc>,
    },
    /// It is gone: undone before anybody could rely on it, or pruned.
    Removed {
        /// Which point.
        point: PointId,
        /// When.
        at: DateTime<Utc>,
    },
}

/// A fact does not fit what is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactError {
    /// It is about a point that is not there.
    #[error("restore point {point} is not known")]
    Unknown {
        /// Which point.
        point: PointId,
    },
    /// Another point of this id was published before.
    #[error("another restore point {point} was published before")]
    Different {
        /// Which point.
        point: PointId,
    },
}

impl ErrorFacts for FactError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Unknown { .. } => "point.unknown",
            Self::Different { .. } => "point.different",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown { .. } => ErrorClass::Invalid,
            Self::Different { .. } => ErrorClass::Conflict,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        let (Self::Unknown { point } | Self::Different { point }) = self;
        vec![Subject::new("restore point", point)]
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Unknown { .. } => "List the restore points and choose one that exists.",
            Self::Different { .. } => {
                "Rebuild the catalogue from the manifests; two histories were mixed."
            }
        }
        .into()
    }
}

impl PointFact {
    /// The point that it is about.
    pub fn point(&self) -> PointId {
        match self {
            Self::Published(point) => point.id,
            Self::Completed { point, .. }
            | Self::Checked { point, .. }
            | Self::Truncated { point, .. }
            | Self::Expiring { point, .. }
            | Self::Spared { point, .. }
            | Self::Reduced { point, .. }
            | Self::Missing { point, .. }
            | Self::Found { point, .. }
            | Self::Removed { point, .. } => *point,
        }
    }

    /// The point after this fact, given the point before it. A removed point is none.
    ///
    /// # Errors
    /// [`FactError`]; the point is as it was.
    pub fn apply(&self, before: Option<RestorePoint>) -> Result<Option<RestorePoint>, FactError> {
        let point = self.point();
        let unknown = FactError::Unknown { point };
        match self {
            Self::Published(new) => match before {
                None => Ok(Some((**new).clone())),
                // What came later must not be taken back by hearing of the beginning again.
                Some(known) if known.set == new.set && known.copy == new.copy => Ok(Some(known)),
                Some(_) => Err(FactError::Different { point }),
            },
            Self::Completed { at, truncation, .. } => {
                let mut point = before.ok_or(unknown)?;
                if point.state == PointState::Provisional {
                    point.state = PointState::Available;
                    point.completed_at = Some(*at);
                    learn(&mut point, *at, truncation);
                }
                Ok(Some(point))
            }
            Self::Checked { trust, .. } => {
                let mut point = before.ok_or(unknown)?;
                // Of two checks at one instant, the one that found something counts.
                let doubt = |trust: &Trust| (trust.at(), matches!(trust, Trust::Suspect { .. }));
                if doubt(trust) > doubt(&point.trust) {
                    point.trust = trust.clone();
                }
                Ok(Some(point))
            }
            Self::Truncated { at, truncation, .. } => {
                let mut point = before.ok_or(unknown)?;
                learn(&mut point, *at, truncation);
                Ok(Some(point))
            }
            Self::Expiring { at, turn, keeps_logs, .. } => {
                let mut point = before.ok_or(unknown)?;
                point.expire(*turn, *at, *keeps_logs);
                Ok(Some(point))
            }
            Self::Spared { turn, .. } => {
                let mut point = before.ok_or(unknown)?;
                point.spare(*turn);
                Ok(Some(point))
            }
            Self::Reduced { turn, manifest_digest, .. } => {
                let mut point = before.ok_or(unknown)?;
                point.reduce(*turn, manifest_digest.as_ref());
                Ok(Some(point))
            }
            Self::Missing { at, lost, .. } => {
                let mut point = before.ok_or(unknown)?;
                point.look(*at, lost);
                Ok(Some(point))
            }
            Self::Found { at, .. } => {
                let mut point = before.ok_or(unknown)?;
                point.look(*at, &BTreeSet::new());
                Ok(Some(point))
            }
            Self::Removed { .. } => Ok(None),
        }
    }
}

fn learn(point: &mut RestorePoint, at: DateTime<Utc>, truncation: &Truncation) {
    if point.truncation_at.is_none_or(|known| known < at) {
        point.truncation = truncation.clone();
        point.truncation_at = Some(at);
    }
}
