//! What a prune of one database has to delete, and what it refuses to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use super::{Decision, Decisions, Fate, RetentionInputs, Why, decide_without};
use crate::id::{DatabaseId, PointId, PolicyId, SegmentId, SetToken, SnapshotRef};
use crate::planning::{Claim, Mode};
use crate::point::{PointState, RestorePoint};

/// How a point goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Going {
    /// The set that its snapshots belong to.
    pub set: SetToken,
    /// Its logs stay.
    pub keeps_logs: bool,
}

/// What is to be deleted of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneOrder {
    /// Which database.
    pub database: DatabaseId,
    /// Its points that go.
    pub points: BTreeMap<PointId, Going>,
}

impl PruneOrder {
    /// What follows from what was decided of these points; of one policy's points alone, if one is given and it was decided
    /// [for that](super::decide_for). Deletions that were begun are gone on with in any case.
    pub fn of(
        database: DatabaseId,
        decisions: &Decisions,
        points: &[RestorePoint],
        policy: Option<PolicyId>,
    ) -> Self {
        let logs: BTreeSet<SegmentId> = decisions
            .segments
            .iter()
            .filter(|known| known.is_kept())
            .map(|known| known.what)
            .collect();
        let fates: BTreeMap<PointId, Fate> =
            decisions.points.iter().map(|known| (known.what, known.fate)).collect();
        let going = points.iter().filter(|point| {
            let fate = fates.get(&point.id);
            if point.state == PointState::Expiring {
                // One that is held meanwhile is to be spared.
                return fate != Some(&Fate::Defer);
            }
            is_meant(point, policy) && fate == Some(&Fate::Delete)
        });
        let going = going.map(|point| {
            let keeps_logs = point.has_segment() && logs.contains(&SegmentId(point.id.0));
            (point.id, Going { set: point.set.clone(), keeps_logs })
        });
        Self { database, points: going.collect() }
    }

    /// The deletion of one point that somebody names.
    ///
    /// # Errors
    /// [`PruneError`] where it must not be deleted, whoever asks.
    pub fn of_one(inputs: &RetentionInputs<'_>, wanted: &RestorePoint) -> Result<Self, PruneError> {
        let point = wanted.id;
        let plain = super::decide(inputs);
        let known = plain.points.iter().find(|known| known.what == point);
        let Some(known) = known else { return Err(PruneError::Unknown { point }) };
        refuse(known)?;
        let decisions = decide_without(inputs, Some(point), None);
        let mut order = Self::of(wanted.database, &decisions, std::slice::from_ref(wanted), None);
        let is_logs = !wanted.has_database() && wanted.state != PointState::Expiring;
        if is_logs && order.points.get(&point).is_none_or(|going| going.keeps_logs) {
            return Err(PruneError::LogsNeeded { point, by: needed_by(&decisions, point) });
        }
        order.points.retain(|id, _| *id == point);
        Ok(order)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// What is not in another order, which is the newer one: it has become needed meanwhile, or is gone.
    pub fn without(&self, other: &Self) -> Vec<PointId> {
        self.points.keys().copied().filter(|id| !other.points.contains_key(id)).collect()
    }

    /// What a prune holds while it carries this out: exactly what it deletes, the database's other prunes off, and those of
    /// other databases off the sets that they share with it. Never the live database: backups go on.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![Claim::prune(self.database)];
        for (point, going) in &self.points {
            claims.push(Claim::point(self.database, *point, Mode::Exclusive));
            if !going.keeps_logs {
                claims.push(Claim::segment(self.database, SegmentId(point.0), Mode::Exclusive));
            }
        }
        let sets: BTreeSet<&SetToken> = self.points.values().map(|going| &going.set).collect();
        claims.extend(sets.into_iter().map(Claim::set));
        claims
    }
}

/// Whether a prune of one policy's points, or of all if none is given, is about a point.
pub(super) fn is_meant(point: &RestorePoint, policy: Option<PolicyId>) -> bool {
    let made_under = point.policy.as_ref().map(|policy| policy.id);
    policy.is_none_or(|policy| made_under == Some(policy))
}

/// Whether one that is named must not go.
fn refuse(known: &Decision<PointId>) -> Result<(), PruneError> {
    let point = known.what;
    let names = known.reasons.iter().filter_map(|why| match why {
        Why::Held { name } => Some(name.clone()),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        return Err(PruneError::Held { point, names });
    }
    for why in &known.reasons {
        match why {
            Why::Locked { until } => return Err(PruneError::Locked { point, until: *until }),
            Why::LockUnknown { why } => {
                return Err(PruneError::LockUnknown { point, why: why.clone() });
            }
            Why::NotOver => return Err(PruneError::NotOver { point }),
            Why::NewestGood => return Err(PruneError::LastGood { point }),
            _ => {}
        }
    }
    Ok(())
}

fn needed_by(decisions: &Decisions, point: PointId) -> Vec<PointId> {
    let segment = decisions.segments.iter().find(|known| known.what == SegmentId(point.0));
    let reasons = segment.into_iter().flat_map(|known| &known.reasons);
    let by: BTreeSet<PointId> = reasons
        .filter_map(|why| match why {
            Why::Required { point } | Why::RollsForward { point, .. } => Some(*point),
            _ => None,
        })
        .collect();
    by.into_iter().collect()
}

/// Something must not be deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// There is no such point.
    #[error("there is no restore point {point}")]
    Unknown {
        /// The point.
        point: PointId,
    },
    /// Somebody holds it.
    #[error("restore point {point} is held: {}", names.join(", "))]
    Held {
        /// The point.
        point: PointId,
        /// The names of the holds.
        names: Vec<String>,
    },
    /// The storage has locked it.
    #[error("restore point {point} is locked until {until}")]
    Locked {
        /// The point.
        point: PointId,
        /// Until when.
        until: DateTime<Utc>,
    },
    /// Nobody knows whether the storage has locked it.
    #[error("restore point {point} may be locked: {why}")]
    LockUnknown {
        /// The point.
        point: PointId,
        /// Why the storage could not be asked.
        why: String,
    },
    /// It is the newest good one of its database.
    #[error("restore point {point} is the newest good one of its database")]
    LastGood {
        /// The point.
        point: PointId,
    },
    /// Its backup is not over.
    #[error("the backup of restore point {point} is not over")]
    NotOver {
        /// The point.
        point: PointId,
    },
    /// It is nothing but logs, and they are needed.
    #[error("the logs of {point} are needed")]
    LogsNeeded {
        /// The point.
        point: PointId,
        /// The points that need them, as far as it is points that do.
        by: Vec<PointId>,
    },
    /// A snapshot is part of a point.
    #[error("snapshot {snapshot} is part of restore point {point}")]
    Part {
        /// The snapshot.
        snapshot: SnapshotRef,
        /// The point.
        point: PointId,
    },
}

impl PruneError {
    /// Why a snapshot must not be deleted by itself: it is part of one of these points.
    pub fn of_part(snapshot: &SnapshotRef, points: &[RestorePoint]) -> Option<Self> {
        let whole = points.iter().find(|point| point.needs(snapshot, true))?;
        Some(Self::Part { snapshot: snapshot.clone(), point: whole.id })
    }
}

impl ErrorFacts for PruneError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Unknown { .. } => "point.unknown",
            Self::Held { .. } => "prune.held",
            Self::Locked { .. } => "prune.locked",
            Self::LockUnknown { .. } => "prune.lock_unknown",
            Self::LastGood { .. } => "prune.last_good",
            Self::NotOver { .. } => "prune.not_over",
            Self::LogsNeeded { .. } => "prune.logs_needed",
            Self::Part { .. } => "prune.partial_point",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown { .. } | Self::Part { .. } => ErrorClass::Invalid,
            Self::LockUnknown { .. } => ErrorClass::Unavailable,
            _ => ErrorClass::Conflict,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        let (Self::Unknown { point }
        | Self::Held { point, .. }
        | Self::Locked { point, .. }
        | Self::LockUnknown { point, .. }
        | Self::LastGood { point }
        | Self::NotOver { point }
        | Self::LogsNeeded { point, .. }
        | Self::Part { point, .. }) = self;
        let mut subjects = vec![Subject::new("restore point", point)];
        if let Self::LogsNeeded { by, .. } = self {
            subjects.extend(by.iter().map(|point| Subject::new("restore point", point)));
        }
        subjects
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Unknown { .. } => "List the restore points and choose one that exists.",
            Self::Held { .. } => "Take it out of the holds first.",
            Self::Locked { .. } => "Wait until the lock is over; nobody can end it before.",
            Self::LockUnknown { .. } => "See to it that the storage answers, then ask again.",
            Self::LastGood { .. } => "Make a newer backup first.",
            Self::NotOver { .. } => "Wait for the backup to end, or resolve its run.",
            Self::LogsNeeded { .. } => "Delete the points that need them first.",
            Self::Part { .. } => "Delete the restore point: its snapshots go together.",
        }
        .into()
    }
}
