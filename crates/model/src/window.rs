//! Recovery windows: what a database can be brought back to, and what stands in the way of the rest.
//!
//! ```text
//!   points     A───────────▶ end of A's logs          B (suspect)        C────────▶
//!   window  ···[ interval ·········· ]····· gap ························ [ interval ]···
//!                                           why: generations 6–7 missing, B is suspect
//! ```
//!
//! A window rests on what the points promise: each goes from its own instant to the end of its [`Reach`]. A
//! point whose backup is not over, that is suspect, missing, or being deleted promises nothing, as a restore refuses it; logs
//! that are stored count whoever brought them. Intervals and gaps cover all of time; only the end stays open where logs that
//! are still on the server may go on.

use std::fmt;
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::availability::ranges;
use crate::chain::{Bound, Chains, LogSegment, Reach};
use crate::fork::{ChainFork, LogChain};
use crate::id::{DatabaseId, PointId};
use crate::inventory::Generation;
use crate::point::{PointLogs, PointState, RestorePoint, Trust};

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

/// Why a database cannot be brought back to a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// Nothing is stored of it.
    NothingStored,
    /// The logs right after a point are not stored any more, or never were.
    NoLogs,
    /// Logs are missing between those that are stored.
    ChainGap {
        /// The missing ones.
        missing: RangeInclusive<Generation>,
    },
    /// The logs that would be needed are being deleted, as no policy keeps them.
    LogsExpired {
        /// Which.
        missing: RangeInclusive<Generation>,
    },
    /// Later logs belong to another stream: the database was restored or its logs were reset.
    ChainForked {
        /// When the other stream is first seen, or the database was restored if nothing is stored of it.
        at: DateTime<Utc>,
    },
    /// The database's logs are overwritten without a backup.
    CircularLogging,
    /// There is a point, and it is suspect.
    Suspect {
        /// Which.
        point: PointId,
    },
    /// There is a point, and its backup is not over.
    NotOver {
        /// Which.
        point: PointId,
    },
    /// There is a point, and it is being deleted.
    Expiring {
        /// Which.
        point: PointId,
    },
    /// There is a point, and the storage has lost a snapshot of it.
    Missing {
        /// Which.
        point: PointId,
    },
    /// There was a point, and nothing is left of it but its logs.
    LogsOnly {
        /// Which.
        point: PointId,
    },
}

impl Why {
    /// The word that stored forms use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NothingStored => "nothing_stored",
            Self::NoLogs => "no_logs",
            Self::ChainGap { .. } => "chain_gap",
            Self::LogsExpired { .. } => "logs_expired",
            Self::ChainForked { .. } => "chain_forked",
            Self::CircularLogging => "circular_logging",
            Self::Suspect { .. } => "suspect",
            Self::NotOver { .. } => "not_over",
            Self::Expiring { .. } => "expiring",
            Self::Missing { .. } => "missing",
            Self::LogsOnly { .. } => "logs_only",
        }
    }

    /// The point that is to blame.
    pub const fn point(&self) -> Option<PointId> {
        match self {
            Self::Suspect { point }
            | Self::NotOver { point }
            | Self::Expiring { point }
            | Self::Missing { point }
            | Self::LogsOnly { point } => Some(*point),
            _ => None,
        }
    }

    /// The generations that are missing.
    pub const fn missing(&self) -> Option<&RangeInclusive<Generation>> {
        match self {
            Self::ChainGap { missing } | Self::LogsExpired { missing } => Some(missing),
            _ => None,
        }
    }

    /// Why a point opens no window, if it does not.
    fn of(point: &RestorePoint) -> Option<Self> {
        let id = point.id;
        match point.state {
            PointState::Expiring => Some(Self::Expiring { point: id }),
            PointState::LogsOnly => Some(Self::LogsOnly { point: id }),
            PointState::Provisional => Some(Self::NotOver { point: id }),
            PointState::Available if point.is_missing() => Some(Self::Missing { point: id }),
            PointState::Available => match point.trust {
                Trust::Suspect { .. } => Some(Self::Suspect { point: id }),
                _ => None,
            },
        }
    }
}

/// In a few words; points are named by their ids.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |missing: &RangeInclusive<Generation>| ranges(std::slice::from_ref(missing));
        match self {
            Self::NothingStored => f.write_str("nothing is stored of it"),
            Self::NoLogs => f.write_str("the logs are not stored any more, or never were"),
            Self::ChainGap { missing } => write!(f, "log generation {} is missing", list(missing)),
            Self::LogsExpired { missing } => {
                write!(f, "log generation {} is being deleted", list(missing))
            }
            Self::ChainForked { at } => write!(f, "the log chain forked at {at}"),
            Self::CircularLogging => f.write_str("circular logging"),
            Self::Suspect { point } => write!(f, "restore point {point} is suspect"),
            Self::NotOver { point } => write!(f, "the backup of {point} is not over"),
            Self::Expiring { point } => write!(f, "restore point {point} is being deleted"),
            Self::Missing { point } => write!(f, "the storage has lost snapshots of {point}"),
            Self::LogsOnly { point } => write!(f, "only the logs of {point} are left"),
        }
    }
}

/// A stretch of time that a database cannot be brought back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TimeGap {
    /// The last instant before it that can be reached; none if there is none.
    pub after: Option<DateTime<Utc>>,
    /// The first instant behind it that can be reached; none if there is none.
    pub before: Option<DateTime<Utc>>,
    /// Why; never empty.
    pub why: Vec<Why>,
}

/// What a database can be brought back to: disjoint intervals in order, and the gaps around them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecoveryWindow {
    /// Where it can be brought to.
    pub intervals: Vec<Interval>,
    /// Where not, in order.
    pub gaps: Vec<TimeGap>,
    /// Logs that are still on the server, if they follow without a gap, bring it from the last
    /// interval up to the minute.
    pub up_to_the_minute: bool,
}

/// What ends an interval, and in which stream.
#[derive(Debug)]
struct End {
    bound: Bound,
    stream: Option<LogChain>,
}

impl RecoveryWindow {
    /// The window of one database that was never restored in place; points of others are passed over.
    ///
    /// # Complexity
    /// O(n log n) for n points.
    pub fn of(database: DatabaseId, points: &[RestorePoint], circular_logging: bool) -> Self {
        Self::of_forked(database, points, &[], circular_logging)
    }

    /// The same of one whose chain of logs forked so, in this order.
    ///
    /// # Complexity
    /// O(n log n) for n points.
    pub fn of_forked(
        database: DatabaseId,
        points: &[RestorePoint],
        forks: &[ChainFork],
        circular_logging: bool,
    ) -> Self {
        let mut mine: Vec<&RestorePoint> =
            points.iter().filter(|point| point.database == database).collect();
        mine.sort_by_key(|point| (point.taken_at, point.id));
        let there = mine.iter().filter(|point| !point.has_lost_logs());
        let segments: Vec<LogSegment> = there.filter_map(|point| LogSegment::of(point)).collect();
        let chains = Chains::of(database, &segments).forked(forks);

        let mut window = Self::default();
        let mut ends: Vec<End> = Vec::new();
        for point in mine.iter().filter(|point| point.kind.takes_database()) {
            if Why::of(point).is_some() {
                continue;
            }
            let stream = point.logs.as_ref().map(PointLogs::chain);
            window.add(&mut ends, chains.reach(point, circular_logging), stream);
        }
        window.up_to_the_minute =
            ends.last().is_some_and(|end| matches!(end.bound, Bound::EndOfLogs));
        window.find_gaps(&mine, &ends);
        window
    }

    /// Takes in the reach of a point that is not older than those before it.
    fn add(&mut self, ends: &mut Vec<End>, reach: Reach, stream: Option<LogChain>) {
        let Reach { point, from, until, bound, .. } = reach;
        let end = End { bound, stream };
        match (self.intervals.last_mut(), ends.last_mut()) {
            (Some(interval), Some(known)) if from <= interval.until => {
                interval.points.push(point);
                let is_open = matches!(end.bound, Bound::EndOfLogs);
                if until > interval.until || (until == interval.until && is_open) {
                    interval.until = until;
                    *known = end;
                }
            }
            _ => {
                self.intervals.push(Interval { from, until, points: vec![point] });
                ends.push(end);
            }
        }
    }

    fn find_gaps(&mut self, points: &[&RestorePoint], ends: &[End]) {
        let froms = self.intervals.iter().map(|interval| Some(interval.from));
        let untils = self.intervals.iter().map(|interval| Some(interval.until));
        let edges = std::iter::once(None).chain(untils).zip(froms.chain([None]));
        let ends = std::iter::once(None).chain(ends.iter().map(Some));
        let unusable: Vec<(DateTime<Utc>, Why)> =
            points.iter().filter_map(|point| Some((point.taken_at, Why::of(point)?))).collect();
        for ((after, before), end) in edges.zip(ends) {
            if before.is_none() && self.up_to_the_minute {
                continue;
            }
            let mut why: Vec<Why> =
                end.and_then(|end| why_it_ends(end, points)).into_iter().collect();
            let first = unusable.partition_point(|(at, _)| after.is_some_and(|after| *at <= after));
            let inside = unusable[first..]
                .iter()
                .take_while(|(at, _)| before.is_none_or(|before| *at < before));
            why.extend(inside.map(|(_, why)| why.clone()));
            if why.is_empty() {
                why.push(Why::NothingStored);
            }
            self.gaps.push(TimeGap { after, before, why });
        }
    }

    /// Whether an instant can be reached.
    ///
    /// # Complexity
    /// O(log n) for n intervals.
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        let place = self.intervals.partition_point(|interval| interval.until < instant);
        self.intervals.get(place).is_some_and(|interval| interval.from <= instant)
    }
}

fn why_it_ends(end: &End, points: &[&RestorePoint]) -> Option<Why> {
    Some(match &end.bound {
        Bound::EndOfLogs => return None,
        Bound::NoLogs => Why::NoLogs,
        Bound::CircularLogging => Why::CircularLogging,
        Bound::Forked { at } => Why::ChainForked { at: *at },
        Bound::Gap { missing } if are_going(missing, end.stream, points) => {
            Why::LogsExpired { missing: missing.clone() }
        }
        Bound::Gap { missing } => Why::ChainGap { missing: missing.clone() },
    })
}

/// Whether points that are being deleted have all these logs.
fn are_going(
    missing: &RangeInclusive<Generation>,
    stream: Option<LogChain>,
    points: &[&RestorePoint],
) -> bool {
    let mut going: Vec<&RangeInclusive<Generation>> = points
        .iter()
        .filter(|point| point.state == PointState::Expiring)
        .filter_map(|point| point.logs.as_ref())
        .filter(|logs| Some(logs.chain()) == stream)
        .filter_map(|logs| logs.range.as_ref())
        .collect();
    going.sort_by_key(|range| *range.start());
    let mut next = Some(*missing.start());
    for range in going {
        if next.is_some_and(|next| range.contains(&next)) {
            next = range.end().next();
        }
    }
    next.is_none_or(|next| next > *missing.end())
}
