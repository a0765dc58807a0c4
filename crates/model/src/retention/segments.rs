//! Verdicts of log segments.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Decision, RetentionInputs, Why, follows, lived_through};
use crate::chain::LogSegment;
use crate::fork::LogChain;
use crate::id::{PointId, SegmentId};
use crate::inventory::Generation;
use crate::point::{PointLogs, RestorePoint};
use crate::policy::{LogRetention, Policy};

pub(super) fn decide(
    inputs: &RetentionInputs<'_>,
    kept: &BTreeSet<PointId>,
) -> Vec<Decision<SegmentId>> {
    let mut keeps: BTreeMap<SegmentId, Vec<Why>> = BTreeMap::new();
    let mut keep = |segment: SegmentId, why| keeps.entry(segment).or_default().push(why);
    let points: Vec<_> = inputs.points.iter().filter(|point| kept.contains(&point.id)).collect();
    for segment in inputs.segments {
        for (point, logs) in required(&points, segment) {
            if point == segment.point || is_missing(logs, segment) {
                keep(segment.id, Why::Required { point });
            }
        }
        if points.iter().any(|point| point.id == segment.point && is_protected(inputs, point)) {
            keep(segment.id, Why::PointProtected { point: segment.point });
        }
        if segment.taken_at > inputs.now {
            keep(segment.id, Why::Future);
        }
    }
    if inputs.policies.is_empty() {
        inputs.segments.iter().for_each(|segment| keep(segment.id, Why::NoLogPolicy));
    }
    for policy in inputs.policies {
        match policy.log_retention {
            LogRetention::AsFulls => {
                for (segment, point) in rolled_through(inputs.segments, &points) {
                    keep(segment, Why::RollsForward { point, policy: policy.id });
                }
            }
            LogRetention::FollowFulls(count) => {
                let newest = newest(&points, policy, count);
                for (segment, point) in rolled_through(inputs.segments, &newest) {
                    keep(segment, Why::RollsForward { point, policy: policy.id });
                }
            }
            LogRetention::Days(days) => {
                for segment in within(inputs, days) {
                    keep(segment, Why::LogDays { policy: policy.id, days });
                }
            }
            LogRetention::None => {}
        }
    }
    let decision = |segment: &LogSegment| {
        let keeps = keeps.remove(&segment.id).unwrap_or_default();
        Decision::of(segment.id, keeps, Why::NotNeeded)
    };
    inputs.segments.iter().map(decision).collect()
}

fn is_protected(inputs: &RetentionInputs<'_>, point: &RestorePoint) -> bool {
    inputs.protected.get(&point.id).is_some_and(|protected| protected.keeps(inputs.now))
}

/// The points that need logs of a segment's stream to be recovered to their own instant.
fn required<'a>(
    points: &'a [&RestorePoint],
    segment: &'a LogSegment,
) -> impl Iterator<Item = (PointId, &'a PointLogs)> {
    points.iter().filter(|point| point.has_database()).filter_map(|point| {
        let logs = point.logs.as_ref()?;
        (logs.chain() == segment.chain).then_some((point.id, logs))
    })
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

/// The newest so many of a policy's own points that hold the database and are not missing; of all, for one that takes none
/// itself.
fn newest<'a>(points: &[&'a RestorePoint], of: &Policy, count: u32) -> Vec<&'a RestorePoint> {
    let is_own = |point: &RestorePoint| {
        point.policy.as_ref().is_some_and(|made_under| made_under.id == of.id)
    };
    let mut points: Vec<_> = points
        .iter()
        .copied()
        .filter(|point| point.has_database() && !point.is_missing())
        .filter(|point| !of.kind.takes_database() || is_own(point))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse((point.taken_at, point.id)));
    points.truncate(count as usize);
    points
}

/// The segments through which any of the points can be rolled forward without a gap, each with the newest of them that can.
fn rolled_through(
    segments: &[LogSegment],
    points: &[&RestorePoint],
) -> BTreeMap<SegmentId, PointId> {
    let mut streams: BTreeMap<LogChain, Vec<&LogSegment>> = BTreeMap::new();
    for segment in segments {
        streams.entry(segment.chain).or_default().push(segment);
    }
    for stream in streams.values_mut() {
        stream.sort_by_key(|segment| (*segment.range.start(), *segment.range.end(), segment.id));
    }
    let mut oldest_first: Vec<_> = points.iter().filter(|point| point.has_database()).collect();
    oldest_first.sort_by_key(|point| (point.taken_at, point.id));
    let mut through = BTreeMap::new();
    for point in oldest_first {
        let Some(logs) = &point.logs else { continue };
        let stream = streams.get(&logs.chain()).map_or(&[][..], Vec::as_slice);
        // From the point's own logs on; one that needs none begins with the first that is younger.
        // Its own stay with it, so that another's are needed only beyond them.
        let own = logs.range.as_ref().map(|range| *range.end());
        let mut last = logs.required.as_ref().map(|range| *range.end()).max(own);
        let mut until = point.taken_at;
        // Logs that were stored once more show that nothing came after them: only the last time counts.
        let mut again = None;
        for segment in stream {
            let is_behind = last.is_some_and(|last| *segment.range.end() < last);
            let is_before = last.is_none() && segment.taken_at < point.taken_at;
            if is_behind || is_before {
                continue;
            }
            if last.is_some_and(|last| !follows(last, *segment.range.start())) {
                break;
            }
            if last.is_none_or(|last| last < *segment.range.end()) {
                through.insert(segment.id, point.id);
                last = Some(*segment.range.end());
                again = again.filter(|_| segment.taken_at < until);
            } else if until < segment.taken_at {
                again = Some(segment.id);
            }
            until = until.max(segment.taken_at);
        }
        through.extend(again.map(|segment| (segment, point.id)));
    }
    through
}

/// The segments that are no older than so many days that were lived through.
fn within(inputs: &RetentionInputs<'_>, days: u32) -> Vec<SegmentId> {
    let window = TimeDelta::days(i64::from(days));
    let of_time = || inputs.segments.iter().filter(|segment| segment.taken_at <= inputs.now);
    let instants: BTreeSet<DateTime<Utc>> = of_time().map(|segment| segment.taken_at).collect();
    let ages = lived_through(&instants, window);
    of_time()
        .filter(|segment| ages.get(&segment.taken_at).is_some_and(|age| *age < window))
        .map(|segment| segment.id)
        .collect()
}
