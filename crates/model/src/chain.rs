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

use crate::fork::{ChainFork, LogChain};
use crate::id::{DatabaseId, PointId, SegmentId, SnapshotRef};
use crate::inventory::Generation;
use crate::point::RestorePoint;

/// A stretch of a log stream that is stored somewhere, kept and counted on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogSegment {
    /// Which.
    pub id: SegmentId,
    /// Of which database.
    pub database: DatabaseId,
    /// The stream, and on which branch.
    #[serde(flatten)]
    pub chain: LogChain,
    /// The generations, without a gap.
    pub range: RangeInclusive<Generation>,
    /// What its last generation reaches to: when it was taken, or closed.
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
            chain: logs.chain(),
            range: logs.range.clone()?,
            taken_at: logs.until.unwrap_or(point.taken_at),
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
        /// When the other stream is first seen, or the database was restored if nothing is stored of it.
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
/// order). For many points of a database, [`Chains`] sorts them once.
///
/// # Complexity
/// O(n log n) for n segments.
pub fn reach(point: &RestorePoint, segments: &[LogSegment], circular_logging: bool) -> Reach {
    Chains::of(point.database, segments).reach(point, circular_logging)
}

/// The stored logs of a database, chain by chain, in stretches without a gap.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    streams: BTreeMap<LogChain, Stream>,
    /// When each branch was left for the next one.
    left: Vec<DateTime<Utc>>,
}

/// The stored logs of one stream.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// In order.
    stretches: Vec<Stretch>,
    /// When each segment was taken that has been stored, in order.
    taken: Vec<DateTime<Utc>>,
    /// The last generation that a point brought, and when, in the order of the generations.
    brought: Vec<(Generation, DateTime<Utc>)>,
    /// The last generation that each point brought.
    own: BTreeMap<PointId, Generation>,
}

/// Generations without a gap between them.
#[derive(Clone, Debug)]
struct Stretch {
    start: Generation,
    end: Generation,
    /// When its first segment was taken.
    first: DateTime<Utc>,
    /// Of each segment that reaches as far as all before it: how far, and to what instant it and those behind it do.
    reaches: Vec<(Generation, DateTime<Utc>)>,
}

impl Stream {
    fn of(mut segments: Vec<&LogSegment>) -> Self {
        segments.sort_by_key(|segment| (*segment.range.start(), segment.taken_at, segment.id));
        let mut stream = Self::default();
        for segment in segments {
            let (start, end) = (*segment.range.start(), *segment.range.end());
            stream.taken.push(segment.taken_at);
            stream.brought.push((end, segment.taken_at));
            stream.own.insert(segment.point, end);
            match stream.stretches.last_mut() {
                Some(known) if known.end.next().is_none_or(|next| start <= next) => {
                    if end >= known.end {
                        known.end = end;
                        known.reaches.push((end, segment.taken_at));
                    }
                }
                _ => stream.stretches.push(Stretch {
                    start,
                    end,
                    first: segment.taken_at,
                    reaches: vec![(end, segment.taken_at)],
                }),
            }
        }
        stream.taken.sort_unstable();
        for stretch in &mut stream.stretches {
            let mut latest = DateTime::<Utc>::MIN_UTC;
            for (_, until) in stretch.reaches.iter_mut().rev() {
                latest = latest.max(*until);
                *until = latest;
            }
        }
        stream
    }

    /// The stretch, and its place, that goes on for somebody who has everything up to `whole` and looks for what ends at `have`
    /// or later.
    fn joining(&self, have: Generation, whole: Generation) -> Option<(usize, &Stretch)> {
        let place = self.stretches.partition_point(|stretch| stretch.end < have);
        let stretch = self.stretches.get(place)?;
        whole.next().is_none_or(|next| stretch.start <= next).then_some((place, stretch))
    }
}

impl Stretch {
    /// The instant that it reaches to for somebody who has everything up to a generation.
    fn until(&self, have: Generation) -> Option<DateTime<Utc>> {
        let place = self.reaches.partition_point(|(end, _)| *end < have);
        self.reaches.get(place).map(|(_, until)| *until)
    }
}

impl Chains {
    /// Those of a database.
    ///
    /// # Complexity
    /// O(n log n) for n segments.
    pub fn of(database: DatabaseId, segments: &[LogSegment]) -> Self {
        let mut streams: BTreeMap<LogChain, Vec<&LogSegment>> = BTreeMap::new();
        for segment in segments.iter().filter(|segment| segment.database == database) {
            streams.entry(segment.chain).or_default().push(segment);
        }
        let streams = streams.into_iter().map(|(chain, of)| (chain, Stream::of(of))).collect();
        Self { streams, left: Vec::new() }
    }

    /// The same of a database that forked so, in this order: what was left is not gone on with, also while nothing is stored yet
    /// of what came after it.
    #[must_use]
    pub fn forked(mut self, forks: &[ChainFork]) -> Self {
        self.left = forks.iter().map(|fork| fork.at).collect();
        self
    }

    /// The generation up to which all logs of a chain are stored, from the newest point on that they can be built on: a log
    /// backup goes on from there. None if there is no such point, or it neither has nor needs logs.
    ///
    /// # Complexity
    /// O(n log n) for n points.
    pub fn stored_to(
        database: DatabaseId,
        points: &[RestorePoint],
        chain: LogChain,
    ) -> Option<Generation> {
        let of_stream = |point: &&RestorePoint| {
            point.database == database
                && point.logs.as_ref().is_some_and(|logs| logs.chain() == chain)
        };
        let is_base = |point: &&RestorePoint| point.has_database() && !point.is_missing();
        let base = points.iter().filter(of_stream).filter(is_base);
        let base = base.max_by_key(|point| (point.taken_at, point.id))?;
        let there = points.iter().filter(of_stream).filter(|point| !point.has_lost_logs());
        let segments: Vec<LogSegment> = there.filter_map(LogSegment::of).collect();
        let whole = base.logs.as_ref()?.whole()?;
        let stream = Stream::of(segments.iter().collect());
        Some(stream.joining(whole, whole).map_or(whole, |(_, stretch)| stretch.end))
    }

    /// How far a point of the database can be rolled forward.
    ///
    /// # Complexity
    /// O(log n) for n segments and each stream; O(n) for a point that needs no logs and has none.
    pub fn reach(&self, point: &RestorePoint, circular_logging: bool) -> Reach {
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
        let stream = self.streams.get(&logs.chain());
        let (mut until, mut used) = (point.taken_at, false);
        if last.is_none()
            && let Some(stream) = stream
            // A clean database needs none; the first that is there begins the roll.
            && let Some((end, at)) = stream.brought.iter().find(|(_, at)| *at >= point.taken_at)
        {
            (last, until, used) = (Some(*end), *at, true);
        }
        if let (Some(have), Some(stream)) = (last, stream) {
            // Of a log that was being written the point has a part: the whole of it has to come from elsewhere.
            let mut whole = logs.whole().map_or(have, |whole| whole.min(have));
            let mut place = stream.stretches.partition_point(|stretch| stretch.end < have);
            if let Some((at, stretch)) = stream.joining(have, whole) {
                let is_own = stream.own.get(&point.id).is_some_and(|end| *end >= have);
                used |= stretch.end > have || is_own;
                until = stretch.until(have).map_or(until, |at| at.max(until));
                last = Some(stretch.end);
                whole = stretch.end;
                place = at + 1;
            }
            if let Some(behind) = stream.stretches.get(place) {
                let missing = Generation(whole.0 + 1)..=Generation(behind.start.0 - 1);
                let bound = if used || behind.first <= point.taken_at {
                    Bound::Gap { missing }
                } else {
                    // Nothing at all follows the point directly.
                    Bound::NoLogs
                };
                return Reach { until, last, ..own(None, bound) };
            }
        }
        let bound = match (self.fork(logs.chain(), until), used) {
            (Some(at), _) => Bound::Forked { at },
            (None, true) => Bound::EndOfLogs,
            (None, false) => Bound::NoLogs,
        };
        Reach { until, last, ..own(None, bound) }
    }

    /// When another chain than this one is first seen after an instant; when this one was left, if nothing is stored of another.
    fn fork(&self, from: LogChain, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let left = usize::try_from(from.branch).ok().and_then(|branch| self.left.get(branch));
        let others = self.streams.iter().filter(|(chain, _)| **chain != from);
        let first = |stream: &Stream| {
            stream.taken.get(stream.taken.partition_point(|at| *at <= after)).copied()
        };
        others.filter_map(|(_, stream)| first(stream)).min().or(left.copied())
    }
}
