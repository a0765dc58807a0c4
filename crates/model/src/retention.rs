//! What is kept and what may go: one verdict for each restore point, log segment and snapshot of a database, with reasons.
//!
//! ```
//! use chrono::{DateTime, Utc};
//! use stillpoint_model::retention::{RetentionInputs, decide};
//!
//! let now: DateTime<Utc> = "2026-11-26T12:00:00Z".parse()?;
//! let decisions = decide(&RetentionInputs::new(now));
//! assert!(decisions.points.is_empty() && decisions.snapshots.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!   points of one policy ─▶ count · days · grids · least to keep ─┐
//!   holds, locks, newest good, not over, policy unknown ──────────┼─▶ verdict of each point
//!                                                                  │          │ kept points need
//!   log retention: union over the policies ────────────────────────┼─▶ verdict of each segment
//!                                                                  ▼          │
//!                             a snapshot lives while any of them is in it ◀───┘
//! ```
//!
//! Nothing is lost by waiting: what is decided does not depend on `now`, but on the points that there are. Ages are counted from
//! the newest good point, grids have a place for each hour, day, week, month or year in which there is a good point, and between
//! two neighbours no more time counts than half of what is kept. So an outage, however long, and a clock that jumps for a while
//! make nothing go that would have stayed without.

mod order;
mod points;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::chain::LogSegment;
use crate::id::{PointId, PolicyId, SegmentId, SnapshotRef};
use crate::inventory::Generation;
use crate::point::{PointState, RestorePoint};
use crate::policy::Policy;
use crate::schedule::Zone;

pub use order::{Going, PruneError, PruneOrder};

/// What keeps a point whatever the rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protected {
    /// The names of its holds (ours).
    pub holds: BTreeSet<String>,
    /// It is locked by the storage until then.
    pub locked_until: Option<DateTime<Utc>>,
    /// Why the storage could not be asked whether it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl Protected {
    /// Whether it keeps a point now.
    pub fn keeps(&self, now: DateTime<Utc>) -> bool {
        !self.holds.is_empty()
            || self.unknown.is_some()
            || self.locked_until.is_some_and(|until| until > now)
    }
}

/// What is decided upon.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetentionInputs<'a> {
    /// The points of one database; those of others are passed over by whoever asks.
    pub points: &'a [RestorePoint],
    /// Its log segments, whether or not the points that brought them are still there.
    pub segments: &'a [LogSegment],
    /// The policies, each at its newest version.
    pub policies: &'a [Policy],
    /// What keeps points whatever the rules say.
    pub protected: &'a BTreeMap<PointId, Protected>,
    /// In whose hours, days, weeks, months and years grids are.
    pub zone: Zone,
    /// The time. Only locks that are over and points from the future depend on it.
    pub now: DateTime<Utc>,
}

static NOBODY: BTreeMap<PointId, Protected> = BTreeMap::new();

impl RetentionInputs<'_> {
    /// Nothing, in UTC; the rest is set afterwards.
    pub const fn new(now: DateTime<Utc>) -> Self {
        Self { points: &[], segments: &[], policies: &[], protected: &NOBODY, zone: Zone::UTC, now }
    }
}

/// What is to become of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It stays.
    Keep,
    /// It would go, but the storage has locked it: it stays until then.
    Defer,
    /// It may go.
    Delete,
}

impl Fate {
    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Defer => "defer",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a point or a segment stays or goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// Somebody holds it.
    Held {
        /// Under this name.
        name: String,
    },
    /// The storage has locked it.
    Locked {
        /// Until then.
        until: DateTime<Utc>,
    },
    /// The storage could not be asked whether it is locked.
    LockUnknown {
        /// Why not.
        why: String,
    },
    /// Its deletion has begun.
    Expiring,
    /// Somebody wants it deleted.
    Wanted,
    /// Its backup is not over.
    NotOver,
    /// It is from the future: the clock is wrong, or was.
    Future,
    /// It was made under no policy, or under one that is not there any more.
    NoPolicy,
    /// Its policy has no rule that would let anything go.
    KeepsAll {
        /// Which policy.
        policy: PolicyId,
    },
    /// It is the newest good one of its database.
    NewestGood,
    /// It is the newest good one that is verified, or is not to be: what is newer may turn out to be bad.
    NewestSure,
    /// It is suspect, and there is none of its log stream that is newer.
    NewestOfStream,
    /// It is among the newest so many.
    Count {
        /// Which policy.
        policy: PolicyId,
        /// Which one it is, from 1.
        nth: u32,
        /// Of how many.
        of: u32,
    },
    /// It is not older than that.
    Within {
        /// Which policy.
        policy: PolicyId,
        /// Days.
        days: u32,
    },
    /// It is the newest of an hour, a day, a week, a month or a year.
    Grid {
        /// Which policy.
        policy: PolicyId,
        /// Of what.
        period: Period,
        /// Which, from 1 for the newest.
        nth: u32,
        /// Of how many.
        of: u32,
    },
    /// It is one of the newest good ones, of which so many stay whatever the rules say.
    Least {
        /// Which policy.
        policy: PolicyId,
        /// How many.
        least: u32,
    },
    /// No rule of its policy keeps it.
    NoRule {
        /// Which policy.
        policy: PolicyId,
    },
    /// It is a log backup, and its segment goes.
    SegmentGoes,
    /// It is a log backup, and its segment stays.
    SegmentStays,
    /// A point needs these logs to be recovered to its own instant.
    Required {
        /// Which point.
        point: PointId,
    },
    /// A point can be rolled forward through these logs.
    RollsForward {
        /// The newest point that can.
        point: PointId,
        /// Which policy says that it shall.
        policy: PolicyId,
    },
    /// These logs are not older than a policy says.
    LogDays {
        /// Which policy.
        policy: PolicyId,
        /// Days.
        days: u32,
    },
    /// The point that brought these logs is held or locked.
    PointProtected {
        /// Which point.
        point: PointId,
    },
    /// The log backup that is these logs stays by itself.
    PointStays {
        /// Which.
        point: PointId,
    },
    /// Nobody says how long these logs are to be kept.
    NoLogPolicy,
    /// No point and no policy needs these logs.
    NotNeeded,
}

impl Why {
    /// The word for it that stored forms use.
    pub fn word(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        let named = value.as_object().and_then(|object| object.keys().next().cloned());
        named.or_else(|| value.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The policy that it comes from.
    pub const fn policy(&self) -> Option<PolicyId> {
        match self {
            Self::KeepsAll { policy }
            | Self::Count { policy, .. }
            | Self::Within { policy, .. }
            | Self::Grid { policy, .. }
            | Self::Least { policy, .. }
            | Self::NoRule { policy }
            | Self::RollsForward { policy, .. }
            | Self::LogDays { policy, .. } => Some(*policy),
            _ => None,
        }
    }

    /// The point that it comes from.
    pub const fn point(&self) -> Option<PointId> {
        match self {
            Self::Required { point }
            | Self::RollsForward { point, .. }
            | Self::PointProtected { point }
            | Self::PointStays { point } => Some(*point),
            _ => None,
        }
    }

    /// When it is over, for a lock.
    pub const fn until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Locked { until } => Some(*until),
            _ => None,
        }
    }
}

/// A stretch of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

/// In one sentence without names; those of policies and points are in the data.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { name } => write!(f, "held: {name}"),
            Self::Locked { until } => write!(f, "locked until {until}"),
            Self::LockUnknown { why } => write!(f, "maybe locked: {why}"),
            Self::Expiring => f.write_str("its deletion has begun"),
            Self::Wanted => f.write_str("somebody wants it deleted"),
            Self::NotOver => f.write_str("its backup is not over"),
            Self::Future => f.write_str("it is from the future"),
            Self::NoPolicy => f.write_str("no policy says how long"),
            Self::KeepsAll { .. } => f.write_str("its policy keeps all"),
            Self::NewestGood => f.write_str("the newest good one"),
            Self::NewestSure => f.write_str("the newest good one that is not still to be verified"),
            Self::NewestOfStream => f.write_str("suspect, but the newest of its log stream"),
            Self::Count { nth, of, .. } => write!(f, "number {nth} of the newest {of}"),
            Self::Within { days, .. } => write!(f, "within {days} days"),
            Self::Grid { period, nth, of, .. } => write!(f, "{} {nth} of {of}", period.word()),
            Self::Least { least, .. } => write!(f, "at least {least} are kept"),
            Self::NoRule { .. } => f.write_str("no rule keeps it"),
            Self::SegmentGoes => f.write_str("its logs are not needed"),
            Self::SegmentStays => f.write_str("its logs are needed"),
            Self::Required { point } => write!(f, "{point} needs it"),
            Self::RollsForward { point, .. } => write!(f, "{point} rolls forward through it"),
            Self::LogDays { days, .. } => write!(f, "logs of {days} days"),
            Self::PointProtected { point } => write!(f, "{point} is held or locked"),
            Self::PointStays { point } => write!(f, "{point} is nothing but these logs, and stays"),
            Self::NoLogPolicy => f.write_str("no policy says how long logs are kept"),
            Self::NotNeeded => f.write_str("no point and no policy needs it"),
        }
    }
}

/// What is to become of something, and why. There is always a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision<T> {
    /// What.
    pub what: T,
    /// What becomes of it.
    pub fate: Fate,
    /// Why: all that keep it, or why nothing does.
    pub reasons: Vec<Why>,
}

impl<T> Decision<T> {
    /// It stays if there is anything that keeps it, and for a while if that is nothing but a lock.
    fn of(what: T, keeps: Vec<Why>, otherwise: Why) -> Self {
        if keeps.is_empty() {
            return Self { what, fate: Fate::Delete, reasons: vec![otherwise] };
        }
        if keeps.iter().all(|why| matches!(why, Why::Locked { .. })) {
            let reasons = keeps.into_iter().chain([otherwise]).collect();
            return Self { what, fate: Fate::Defer, reasons };
        }
        Self { what, fate: Fate::Keep, reasons: keeps }
    }

    /// Whether it stays.
    pub const fn is_kept(&self) -> bool {
        !matches!(self.fate, Fate::Delete)
    }
}

/// What is to become of all that a database has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decisions {
    /// Of each point, in the order in which they were given.
    pub points: Vec<Decision<PointId>>,
    /// Of each segment, in the order in which they were given.
    pub segments: Vec<Decision<SegmentId>>,
    /// The snapshots in which nothing is any more that stays, as far as this database is concerned: another one may lie in them,
    /// too.
    pub snapshots: BTreeSet<SnapshotRef>,
}

impl Decisions {
    /// When the first of the locks is over that alone keep something.
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        let deferred = self.points.iter().filter(|decision| decision.fate == Fate::Defer);
        let locks = deferred.flat_map(|decision| &decision.reasons).filter_map(|why| match why {
            Why::Locked { until } => Some(*until),
            _ => None,
        });
        locks.min()
    }
}

/// Decides what of one database is kept and what may go. A point that is expiring counts for nothing, and is deleted.
///
/// Pure: the same inputs give the same decisions, and once they are carried out, the same again.
///
/// # Complexity
/// O(n log n) for n points and segments, times the number of policies, where the logs of a stream follow each other; quadratic
/// where it has many gaps and as many points that lack logs.
pub fn decide(inputs: &RetentionInputs<'_>) -> Decisions {
    decide_without(inputs, None, None)
}

/// The same for a prune of one policy's points alone, if one is given. What it leaves of other policies is still there after it,
/// whatever their rules say, and keeps the logs that it can be rolled forward through.
pub fn decide_for(inputs: &RetentionInputs<'_>, policy: Option<PolicyId>) -> Decisions {
    decide_without(inputs, None, policy)
}

/// The same where somebody wants one point deleted, whatever its rules say.
fn decide_without(
    inputs: &RetentionInputs<'_>,
    wanted: Option<PointId>,
    policy: Option<PolicyId>,
) -> Decisions {
    let mut points = points::decide(inputs);
    if let Some(point) = points.iter_mut().find(|point| Some(point.what) == wanted) {
        *point = Decision { what: point.what, fate: Fate::Delete, reasons: vec![Why::Wanted] };
    }
    let is_left = |point: &RestorePoint| {
        point.state != PointState::Expiring && !order::is_meant(point, policy)
    };
    let stays = inputs.points.iter().zip(&points);
    let stays = stays.filter(|(point, decision)| decision.is_kept() || is_left(point));
    let stays: Vec<&RestorePoint> = stays.map(|(point, _)| point).collect();
    let segments = segments::decide(inputs, &stays);
    points::follow_segments(inputs, &segments, &mut points);
    let snapshots = snapshots_that_go(inputs, &points, &segments);
    Decisions { points, segments, snapshots }
}

/// Those that only points and segments need that go. What is kept is told from what goes by two sorted lists: sets of so many
/// names take half of the time of everything.
fn snapshots_that_go(
    inputs: &RetentionInputs<'_>,
    points: &[Decision<PointId>],
    segments: &[Decision<SegmentId>],
) -> BTreeSet<SnapshotRef> {
    let (mut stays, mut goes) = (Vec::new(), Vec::new());
    for (point, decision) in inputs.points.iter().zip(points) {
        // Members of a point go together.
        let list = if decision.is_kept() { &mut stays } else { &mut goes };
        list.extend(point.members.iter().map(|member| &member.snapshot));
    }
    for (segment, decision) in inputs.segments.iter().zip(segments) {
        let list = if decision.is_kept() { &mut stays } else { &mut goes };
        list.extend(&segment.snapshots);
    }
    for list in [&mut stays, &mut goes] {
        list.sort();
        list.dedup();
    }
    let mut stays = stays.into_iter().peekable();
    goes.retain(|snapshot| {
        while stays.next_if(|other| other < snapshot).is_some() {}
        stays.peek() != Some(snapshot)
    });
    goes.into_iter().cloned().collect()
}

/// Each of these instants, the newest first, and how old it is: the newest is not old at all, and between two neighbours no more
/// counts than half of `kept`.
fn lived_through(
    newest_first: impl Iterator<Item = DateTime<Utc>>,
    kept: TimeDelta,
) -> impl Iterator<Item = (DateTime<Utc>, TimeDelta)> {
    let (mut age, mut newer): (TimeDelta, Option<DateTime<Utc>>) = (TimeDelta::zero(), None);
    newest_first.map(move |instant| {
        let passed = newer.map_or(TimeDelta::zero(), |newer| newer - instant);
        age = age.checked_add(&passed.min(kept / 2)).unwrap_or(TimeDelta::MAX);
        newer = Some(instant);
        (instant, age)
    })
}

/// The last of a stretch of generations that follow each other from one on.
fn follows(last: Generation, first: Generation) -> bool {
    first <= last || last.next() == Some(first)
}
