//! Log chains: how far a restore point can be rolled forward, and what stands in the way.
//!
//! ```text
//! point P needs 3–5        logs of later points, same signature
//!     [3 4 5]  +  [6 7]  +  [7 8 9]      +      [12 13]
//!      └──────── reaches 9 ──────────┘   gap 10–11
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{DatabaseId, PointId, SegmentId, SnapshotRef};
use crate::inventory::{Generation, LogSignature};
use crate::point::RestorePoint;

/// A stretch of a log stream that is stored somewhere, kept and counted on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogSegment {
    /// Which.
    pub id: SegmentId,
    /// Of which database.
    pub database: DatabaseId,
    /// The stream.
    pub signature: LogSignature,
    /// The generations, without a gap.
    pub range: RangeInclusive<Generation>,
    /// When it was taken: what its last generation reaches to.
    pub taken_at: DateTime<Utc>,
    /// The snapshots that hold it.
    pub snapshots: Vec<SnapshotRef>,
    /// The point that brought it.
    pub point: PointId,
}

impl LogSegment {
    /// The segment that a point brings with it, if it brings logs that are not being deleted. Its id follows from the point's,
    /// and it may outlive the point's database.
    pub fn of(point: &RestorePoint) -> Option<Self> {
        if !point.has_segment() {
            return None;
        }
        let logs = point.logs.as_ref()?;
        Some(Self {
            id: SegmentId(point.id.0),
            database: point.database,
            signature: logs.signature,
            range: logs.range.clone()?,
            taken_at: point.taken_at,
            snapshots: point
                .members
                .iter()
                .filter(|member| member.role != crate::point::MemberRole::Data)
                .map(|member| member.snapshot.clone())
                .collect(),
            point: point.id,
        })
    }
}

/// Why a point goes no further than it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Bound {
    /// It takes in every log that is stored.
    EndOfLogs,
    /// Generations are missing; later ones are there.
    Gap {
        /// The missing ones.
        missing: RangeInclusive<Generation>,
    },
    /// Later logs belong to another stream: the database was restored or its logs were reset.
    Forked {
        /// When the other stream is first seen.
        at: DateTime<Utc>,
    },
    /// The logs right after it are not stored any more, or never were.
    NoLogs,
    /// The database's logs are overwritten without a backup.
    CircularLogging,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfLogs => f.write_str("all stored logs"),
            Self::Gap { missing } => write!(
                f,
                "log generation {} is missing",
                crate::availability::ranges(std::slice::from_ref(missing))
            ),
            Self::Forked { at } => write!(f, "the log chain forked at {at}"),
            Self::NoLogs => f.write_str("no logs beyond the point itself"),
            Self::CircularLogging => f.write_str("circular logging"),
        }
    }
}

/// How far one point can be rolled forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reach {
    /// The point.
    pub point: PointId,
    /// The instant of the point itself.
    pub from: DateTime<Utc>,
    /// The instant that the last usable log reaches to.
    pub until: DateTime<Utc>,
    /// The last usable generation, if logs are used at all.
    pub last: Option<Generation>,
    /// What ends it.
    pub bound: Bound,
}

impl Reach {
    /// Whether logs that are still on the server, if they follow without a gap, would bring it up
    /// to the minute.
    pub const fn up_to_the_minute(&self) -> bool {
        matches!(self.bound, Bound::EndOfLogs)
    }
}

/// How far `point` can be rolled forward with these segments (of any database and stream, in any
/// order).
///
/// # Complexity
/// O(n log n) for n segments.
pub fn reach(point: &RestorePoint, segments: &[LogSegment], circular_logging: bool) -> Reach {
    let own = |last, bound| Reach {
        point: point.id,
        from: point.taken_at,
        until: point.taken_at,
        last,
        bound,
    };
    let Some(logs) = &point.logs else { return own(None, Bound::NoLogs) };
    let mut last = logs.required.as_ref().or(logs.range.as_ref()).map(|range| *range.end());
    if circular_logging {
        return own(last, Bound::CircularLogging);
    }
    let of_database = || segments.iter().filter(|segment| segment.database == point.database);
    let mut usable: Vec<&LogSegment> =
        of_database().filter(|segment| segment.signature == logs.signature).collect();
    usable.sort_by_key(|segment| (*segment.range.start(), segment.taken_at, segment.id));

    let mut until = point.taken_at;
    let mut used = false;
    for segment in usable {
        let Some(have) = last else {
            // A clean database needs none; the first that is there begins the roll.
            if segment.taken_at >= point.taken_at {
                last = Some(*segment.range.end());
                until = until.max(segment.taken_at);
                used = true;
            }
            continue;
        };
        if have.next().is_some_and(|next| *segment.range.start() > next) {
            let missing = Generation(have.0 + 1)..=Generation(segment.range.start().0 - 1);
            let bound = if used || segment.taken_at <= point.taken_at {
                Bound::Gap { missing }
            } else {
                // Nothing at all follows the point directly.
                Bound::NoLogs
            };
            return Reach { until, last, ..own(None, bound) };
        }
        if *segment.range.end() >= have {
            used |= *segment.range.end() > have || segment.point == point.id;
            last = Some(*segment.range.end());
            until = until.max(segment.taken_at);
        }
    }
    let fork = of_database()
        .filter(|segment| segment.signature != logs.signature && segment.taken_at > until)
        .map(|segment| segment.taken_at)
        .min();
    let bound = match (fork, used) {
        (Some(at), _) => Bound::Forked { at },
        (None, true) => Bound::EndOfLogs,
        (None, false) => Bound::NoLogs,
    };
    Reach { until, last, ..own(None, bound) }
}

/// A stretch of time that a database can be brought back to. With `from` equal to `until` it is
/// one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interval {
    /// The first instant.
    pub from: DateTime<Utc>,
    /// The last.
    pub until: DateTime<Utc>,
    /// The points that it rests on, oldest first.
    pub points: Vec<PointId>,
}

/// A stretch of time that a database cannot be brought back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TimeGap {
    /// The last instant before it that can be reached.
    pub after: DateTime<Utc>,
    /// The first instant behind it that can be reached.
    pub before: DateTime<Utc>,
    /// Why.
    pub why: Bound,
}

/// What a database can be brought back to: disjoint intervals in order, and the gaps between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecoveryWindow {
    /// Where it can be brought to.
    pub intervals: Vec<Interval>,
    /// Where not.
    pub gaps: Vec<TimeGap>,
}

impl RecoveryWindow {
    /// The window of one database. Points of others, points without a database file, suspect and missing
    /// points do not count.
    ///
    /// # Complexity
    /// O(p · s log s) for p points and s segments of the database.
    pub fn of(database: DatabaseId, points: &[RestorePoint], circular_logging: bool) -> Self {
        let mine = || points.iter().filter(|point| point.database == database);
        let segments: Vec<LogSegment> =
            mine().filter(|point| !point.has_lost_logs()).filter_map(LogSegment::of).collect();
        let mut reaches: Vec<Reach> = mine()
            .filter(|point| point.has_database() && !point.is_missing())
            .filter(|point| !matches!(point.trust, crate::point::Trust::Suspect { .. }))
            .map(|point| reach(point, &segments, circular_logging))
            .collect();
        reaches.sort_by_key(|reach| (reach.from, reach.until, reach.point));

        let mut window = Self::default();
        let mut ends: BTreeMap<DateTime<Utc>, Bound> = BTreeMap::new();
        for reach in reaches {
            ends.insert(reach.until, reach.bound);
            match window.intervals.last_mut() {
                Some(interval) if reach.from <= interval.until => {
                    interval.until = interval.until.max(reach.until);
                    interval.points.push(reach.point);
                }
                last => {
                    if let Some(last) = last {
                        window.gaps.push(TimeGap {
                            after: last.until,
                            before: reach.from,
                            why: ends.get(&last.until).cloned().unwrap_or(Bound::NoLogs),
                        });
                    }
                    window.intervals.push(Interval {
                        from: reach.from,
                        until: reach.until,
                        points: vec![reach.point],
                    });
                }
            }
        }
        window
    }

    /// Whether an instant can be reached.
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        self.intervals.iter().any(|interval| interval.from <= instant && instant <= interval.until)
    }
}
