//! What a storage no longer has of a point.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{PointMember, RestorePoint};
use crate::handover::MemberRole;
use crate::id::SnapshotRef;

/// What was found when somebody last looked whether the storage has every snapshot of a point, and it mattered.
///
/// A point of which a snapshot is gone is *missing*, beside its state: it is never restored from, counts for nothing, and stays
/// in the catalogue. Once the storage shows the snapshot again, nothing is missing any more, and the instant stays, so that what
/// is told again of the time before changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loss {
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// Since when something is missing; since when nothing is any more, if nothing is.
    pub since: DateTime<Utc>,
    /// The snapshots that are gone; none if they are back.
    pub lost: BTreeSet<SnapshotRef>,
}

impl RestorePoint {
    /// Whether the storage has lost a snapshot of it, as far as somebody has looked.
    pub fn is_missing(&self) -> bool {
        self.loss.as_ref().is_some_and(|loss| !loss.lost.is_empty())
    }

    /// Whether a snapshot that holds logs of it is lost.
    pub fn has_lost_logs(&self) -> bool {
        let Some(loss) = &self.loss else { return false };
        let holds_logs = |member: &&PointMember| member.role != MemberRole::Data;
        self.members.iter().filter(holds_logs).any(|member| loss.lost.contains(&member.snapshot))
    }

    /// What was seen at an instant of the snapshots that it needs. Of two looks at one instant, the one that missed something
    /// counts, and of two that did both.
    pub(super) fn look(&mut self, at: DateTime<Utc>, lost: &BTreeSet<SnapshotRef>) {
        match &mut self.loss {
            Some(known) if known.at > at => {}
            Some(known) if known.at == at => {
                if known.lost.is_empty() && !lost.is_empty() {
                    known.since = at;
                }
                known.lost.extend(lost.iter().cloned());
            }
            Some(known) => {
                let same = known.lost.is_empty() == lost.is_empty();
                let since = if same { known.since } else { at };
                *known = Loss { at, since, lost: lost.clone() };
            }
            None if lost.is_empty() => {}
            known => *known = Some(Loss { at, since: at, lost: lost.clone() }),
        }
    }
}
