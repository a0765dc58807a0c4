//! Verdicts of log segments.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::points::is_sure;
use super::{Decision, RetentionInputs, Why, follows, lived_through};
use crate::chain::LogSegment;
use crate::fork::LogChain;
use crate::id::{PointId, SegmentId};
use crate::inventory::Generation;
use crate::point::{PointLogs, RestorePoint};
use crate::policy::{LogRetention, Policy};

/// Of all segments, where these points stay.
pub(super) fn decide(
    inputs: &RetentionInputs<'_>,
    points: &[&RestorePoint],
) -> Vec<Decision<SegmentId>> {
    let segments = Segments::of(inputs.segments);
    let mut keeps: Vec<Vec<Why>> = inputs.segments.iter().map(|_| Vec::new()).collect();
    for point in points.iter().filter(|point| point.has_database()) {
        for at in segments.required(point) {
            keeps[at].push(Why::Required { point: point.id });
        }
    }
    for known in points {
        let (point, protected) = (known.id, inputs.protected.get(&known.id));
        let why = if protected.is_some_and(|protected| protected.keeps(inputs.now)) {
            Why::PointProtected { point }
        } else if known.kind.takes_database() {
            continue;
        } else {
            Why::PointStays { point }
        };
        for at in segments.brought_by(point) {
            keeps[at].push(why.clone());
        }
    }
    for (segment, keeps) in inputs.segments.iter().zip(&mut keeps) {
        if segment.taken_at > inputs.now {
            keeps.push(Why::Future);
        }
        if inputs.policies.is_empty() {
            keeps.push(Why::NoLogPolicy);
        }
    }
    for policy in inputs.policies {
        let mut rolled_through = |points: &[&RestorePoint]| {
            for (point, keeps) in segments.rolled_through(points).into_iter().zip(&mut keeps) {
                keeps.extend(point.map(|point| Why::RollsForward { point, policy: policy.id }));
            }
        };
        match policy.log_retention {
            LogRetention::AsFulls => rolled_through(points),
            LogRetention::FollowFulls(count) => {
                rolled_through(&newest(points, policy, count, inputs));
            }
            LogRetention::Days(days) => {
                for at in within(inputs, days) {
                    keeps[at].push(Why::LogDays { policy: policy.id, days });
                }
            }
            LogRetention::None => {}
        }
    }
    let decisions = inputs.segments.iter().zip(keeps);
    decisions.map(|(segment, keeps)| Decision::of(segment.id, keeps, Why::NotNeeded)).collect()
}

/// The segments of a database by what is looked for, each by its place among all of them.
struct Segments<'a> {
    all: &'a [LogSegment],
    streams: BTreeMap<LogChain, Stream>,
    /// By the point that brought them.
    brought: Vec<(PointId, usize)>,
}

/// The segments of a log stream, in the order of their first generations.
#[derive(Default)]
struct Stream {
    places: Vec<usize>,
    /// The latest generation up to and with each of them.
    reached: Vec<Generation>,
}

impl Stream {
    /// Those from the first on that reaches so far.
    fn from(&self, last: Option<Generation>) -> &[usize] {
        let before = self.reached.partition_point(|reached| Some(*reached) < last);
        &self.places[before..]
    }
}

impl<'a> Segments<'a> {
    fn of(all: &'a [LogSegment]) -> Self {
        let mut streams: BTreeMap<LogChain, Stream> = BTreeMap::new();
        for (at, segment) in all.iter().enumerate() {
            streams.entry(segment.chain).or_default().places.push(at);
        }
        for stream in streams.values_mut() {
            stream.places.sort_by_key(|at| {
                let segment = &all[*at];
                (*segment.range.start(), *segment.range.end(), segment.id)
            });
            let mut reached = Generation(0);
            stream.reached = stream
                .places
                .iter()
                .map(|at| {
                    reached = reached.max(*all[*at].range.end());
                    reached
                })
                .collect();
        }
        let mut brought: Vec<_> =
            all.iter().enumerate().map(|(at, segment)| (segment.point, at)).collect();
        brought.sort_unstable();
        Self { all, streams, brought }
    }

    fn brought_by(&self, point: PointId) -> impl Iterator<Item = usize> {
        let from = self.brought.partition_point(|(other, _)| *other < point);
        let own = self.brought[from..].iter().take_while(move |(other, _)| *other == point);
        own.map(|(_, at)| *at)
    }

    /// Those that a point needs to be recovered to its own instant: what it brought itself, and what it lacks.
    fn required(&self, point: &RestorePoint) -> Vec<usize> {
        let Some(logs) = &point.logs else { return Vec::new() };
        let is_of_stream = |at: &usize| self.all[*at].chain == logs.chain();
        let mut required: Vec<usize> = self.brought_by(point.id).filter(is_of_stream).collect();
        if let (Some(range), Some(stream)) = (&logs.required, self.streams.get(&logs.chain())) {
            let near = stream.from(Some(*range.start())).iter().copied();
            let near = near.take_while(|at| self.all[*at].range.start() <= range.end());
            required.extend(near.filter(|at| {
                let segment = &self.all[*at];
                segment.point != point.id && is_missing(logs, segment)
            }));
        }
        required
    }

    /// For each segment the newest of the points that can be rolled forward through it without a gap.
    ///
    /// # Complexity
    /// The walk of a point ends where a newer one has stood just so: what follows is the same. Where logs follow each other,
    /// that is after the next point.
    fn rolled_through(&self, points: &[&RestorePoint]) -> Vec<Option<PointId>> {
        let mut newest_first: Vec<_> = points.iter().filter(|point| point.has_database()).collect();
        newest_first.sort_by_key(|point| Reverse((point.taken_at, point.id)));
        let mut through: Vec<Option<PointId>> = vec![None; self.all.len()];
        let mut stood: Vec<Option<Walk>> = vec![None; self.all.len()];
        'points: for point in newest_first {
            let Some(logs) = &point.logs else { continue };
            let Some(stream) = self.streams.get(&logs.chain()) else { continue };
            let mut walk = Walk::of(point, logs);
            for &at in stream.from(walk.last) {
                match walk.step(at, &self.all[at]) {
                    Step::Gap => break,
                    Step::Through => {
                        through[at].get_or_insert(point.id);
                    }
                    Step::Past => {}
                }
                if stood[at].replace(walk) == Some(walk) {
                    continue 'points;
                }
            }
            if let Some(again) = walk.again {
                through[again].get_or_insert(point.id);
            }
        }
        through
    }
}

/// How far a point has been rolled forward.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Walk {
    /// The generation. A point that needs no logs begins with the first that is younger.
    last: Option<Generation>,
    until: DateTime<Utc>,
    /// Logs that were stored once more show that nothing came after them: only the last time counts.
    again: Option<usize>,
}

enum Step {
    Past,
    Through,
    Gap,
}

impl Walk {
    /// From the point's own logs on, which stay with it, so that another's are needed only beyond them.
    fn of(point: &RestorePoint, logs: &PointLogs) -> Self {
        Self { last: logs.whole(), until: point.taken_at, again: None }
    }

    fn step(&mut self, at: usize, segment: &LogSegment) -> Step {
        let end = *segment.range.end();
        let is_behind = self.last.is_some_and(|last| end < last);
        let is_before = self.last.is_none() && segment.taken_at < self.until;
        if is_behind || is_before {
            return Step::Past;
        }
        if self.last.is_some_and(|last| !follows(last, *segment.range.start())) {
            return Step::Gap;
        }
        let is_new = self.last.is_none_or(|last| last < end);
        if is_new {
            self.last = Some(end);
            self.again = self.again.filter(|_| segment.taken_at < self.until);
        } else if self.until < segment.taken_at {
            self.again = Some(at);
        }
        self.until = self.until.max(segment.taken_at);
        if is_new { Step::Through } else { Step::Past }
    }
}

/// Whether a segment has something that a point needs and has not itself. Its own logs are those of its range and the open one
/// after that, which is no generation yet.
fn is_missing(logs: &PointLogs, segment: &LogSegment) -> bool {
    let Some(required) = &logs.required else { return false };
    let overlap = |first: Generation, last: Generation| {
        first <= last && first <= *segment.range.end() && *segment.range.start() <= last
    };
    let (first, last) = (*required.start(), *required.end());
    match &logs.range {
        None => overlap(first, last),
        Some(own) => {
            let before = Generation(own.start().0.saturating_sub(1));
            let behind = Generation(own.end().0.saturating_add(2));
            (first < *own.start() && overlap(first, last.min(before)))
                || overlap(first.max(behind), last)
        }
    }
}

/// The newest so many of a policy's own points that are known to be good, with those between them that do not count; of all points,
/// for one that takes no database itself.
fn newest<'a>(
    points: &[&'a RestorePoint],
    of: &Policy,
    count: u32,
    inputs: &RetentionInputs<'_>,
) -> Vec<&'a RestorePoint> {
    let is_own = |point: &RestorePoint| {
        point.policy.as_ref().is_some_and(|made_under| made_under.id == of.id)
    };
    let mut points: Vec<_> = points
        .iter()
        .copied()
        .filter(|point| point.has_database() && !point.is_missing())
        .filter(|point| !of.kind.takes_database() || is_own(point))
        .collect();
    points.sort_by_key(|point| Reverse((point.taken_at, point.id)));
    let mut left = count;
    points.retain(|point| {
        let is_among = left > 0;
        left = left.saturating_sub(u32::from(is_sure(point, inputs)));
        is_among
    });
    points
}

/// The places of the segments that are no older than so many days that were lived through.
fn within(inputs: &RetentionInputs<'_>, days: u32) -> Vec<usize> {
    let window = TimeDelta::days(i64::from(days));
    let taken_at = |at: &usize| inputs.segments[*at].taken_at;
    let mut newest_first: Vec<usize> =
        (0..inputs.segments.len()).filter(|at| taken_at(at) <= inputs.now).collect();
    newest_first.sort_by_key(|at| Reverse(taken_at(at)));
    let ages = lived_through(newest_first.iter().map(taken_at), window);
    let young = ages.take_while(|(_, age)| *age < window).count();
    newest_first.truncate(young);
    newest_first
}
