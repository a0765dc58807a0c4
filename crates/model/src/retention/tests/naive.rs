//! The same decisions, made for each point and each segment by itself, whatever time it takes.

use super::*;
use crate::point::RestorePoint;
use crate::policy::Verification;
use chrono::{Datelike, Timelike};

/// What [`super::decide`] has to come to.
pub(super) fn decide(inputs: &RetentionInputs<'_>) -> Decisions {
    let mut points: Vec<_> = inputs
        .points
        .iter()
        .map(|point| verdict(point.id, point_stays(inputs, point), point_goes(point)))
        .collect();
    let kept = |points: &[Decision<PointId>]| -> Vec<&RestorePoint> {
        let fates = inputs.points.iter().zip(points);
        fates.filter(|(_, decision)| decision.is_kept()).map(|(point, _)| point).collect()
    };
    let stays = kept(&points);
    let segments: Vec<_> = inputs
        .segments
        .iter()
        .map(|segment| verdict(segment.id, segment_stays(inputs, &stays, segment), Why::NotNeeded))
        .collect();
    for (point, decision) in inputs.points.iter().zip(&mut points) {
        let logs = segments.iter().find(|segment| segment.what.0 == point.id.0);
        let is_its_logs = !point.has_database() && point.state != PointState::Expiring;
        if is_its_logs && !decision.is_kept() && logs.is_some_and(Decision::is_kept) {
            *decision = verdict(point.id, vec![Why::SegmentStays], Why::NotNeeded);
        }
    }
    let stays = kept(&points);
    let kept_segments = || inputs.segments.iter().zip(&segments).filter(|(_, s)| s.is_kept());
    let is_needed = |snapshot: &SnapshotRef| {
        stays.iter().flat_map(|point| &point.members).any(|member| member.snapshot == *snapshot)
            || kept_segments().any(|(segment, _)| segment.snapshots.contains(snapshot))
    };
    let of_points = inputs.points.iter().flat_map(|point| &point.members).map(|m| &m.snapshot);
    let of_segments = inputs.segments.iter().flat_map(|segment| &segment.snapshots);
    let snapshots = of_points.chain(of_segments).filter(|snapshot| !is_needed(snapshot));
    let snapshots = snapshots.cloned().collect();
    Decisions { points, segments, snapshots }
}

fn verdict<T>(what: T, stays: Vec<Why>, goes: Why) -> Decision<T> {
    let is_lock = |why: &&Why| matches!(why, Why::Locked { .. });
    let locks = stays.iter().filter(is_lock).count();
    let fate = match stays.len() {
        0 => Fate::Delete,
        all if all == locks => Fate::Defer,
        _ => Fate::Keep,
    };
    let goes = (fate != Fate::Keep).then_some(goes);
    Decision { what, fate, reasons: stays.into_iter().chain(goes).collect() }
}

fn point_goes(point: &RestorePoint) -> Why {
    match &point.policy {
        _ if point.state == PointState::Expiring => Why::Expiring,
        _ if !point.has_database() => Why::SegmentGoes,
        Some(policy) => Why::NoRule { policy: policy.id },
        None => Why::NoPolicy,
    }
}

fn is_suspect(point: &RestorePoint) -> bool {
    matches!(point.trust, Trust::Suspect { .. })
}

fn is_good(inputs: &RetentionInputs<'_>, point: &RestorePoint) -> bool {
    let is_whole = point.kind.takes_database() && point.state == PointState::Available;
    is_whole && !point.is_missing() && !is_suspect(point) && point.taken_at <= inputs.now
}

fn is_sure(inputs: &RetentionInputs<'_>, point: &RestorePoint) -> bool {
    let mut policies = inputs.policies.iter().filter(|policy| is_under(point, policy));
    let is_verified_later = |policy: &Policy| policy.verification == Verification::AfterCompletion;
    let is_open = point.trust == Trust::Unverified && policies.any(is_verified_later);
    is_good(inputs, point) && !is_open
}

fn is_newer(one: &RestorePoint, than: &RestorePoint) -> bool {
    (one.taken_at, one.id) > (than.taken_at, than.id)
}

fn is_under(point: &RestorePoint, policy: &Policy) -> bool {
    point.policy.as_ref().is_some_and(|made_under| made_under.id == policy.id)
}

fn point_stays(inputs: &RetentionInputs<'_>, point: &RestorePoint) -> Vec<Why> {
    let mut stays = Vec::new();
    if let Some(protected) = inputs.protected.get(&point.id) {
        stays.extend(protected.holds.iter().map(|name| Why::Held { name: name.clone() }));
        let locked = protected.locked_until.filter(|until| *until > inputs.now);
        stays.extend(locked.map(|until| Why::Locked { until }));
        stays.extend(protected.unknown.iter().map(|why| Why::LockUnknown { why: why.clone() }));
    }
    if point.state == PointState::Expiring {
        return stays;
    }
    if point.state == PointState::Provisional {
        stays.push(Why::NotOver);
    }
    if point.taken_at > inputs.now {
        stays.push(Why::Future);
    }
    if point.state == PointState::LogsOnly {
        return stays;
    }
    let policy = inputs.policies.iter().find(|policy| is_under(point, policy));
    match policy {
        None => stays.push(Why::NoPolicy),
        Some(policy) if policy.retention.keeps_all() => {
            if point.kind.takes_database() || policy.log_retention == LogRetention::AsFulls {
                stays.push(Why::KeepsAll { policy: policy.id });
            }
        }
        Some(_) => {}
    }
    let newer = || inputs.points.iter().filter(|other| is_newer(other, point));
    if is_good(inputs, point) && !newer().any(|other| is_good(inputs, other)) {
        stays.push(Why::NewestGood);
    }
    let is_good_and_newer = newer().any(|other| is_good(inputs, other));
    let is_sure_and_newer = newer().any(|other| is_sure(inputs, other));
    if is_sure(inputs, point) && !is_sure_and_newer && is_good_and_newer {
        stays.push(Why::NewestSure);
    }
    let stream =
        |point: &RestorePoint| point.logs.as_ref().map(|logs| (logs.signature, logs.branch));
    let is_there = |point: &RestorePoint| {
        point.kind.takes_database() && point.state == PointState::Available && !point.is_missing()
    };
    let follows = newer().any(|other| is_there(other) && stream(other) == stream(point));
    if point.has_database() && is_suspect(point) && !follows {
        stays.push(Why::NewestOfStream);
    }
    if let Some(policy) = policy.filter(|policy| !policy.retention.keeps_all()) {
        let rules = by_rules(inputs, policy, point);
        let is_short = rules.is_empty() && is_of_the_least(inputs, policy, point);
        stays.extend(rules);
        let least = policy.retention.min_keep.get();
        stays.extend(is_short.then_some(Why::Least { policy: policy.id, least }));
    }
    stays
}

/// All but that there have to be so many.
fn by_rules(inputs: &RetentionInputs<'_>, policy: &Policy, point: &RestorePoint) -> Vec<Why> {
    let (rules, id, mut stays) = (&policy.retention, policy.id, Vec::new());
    if !point.has_database() {
        return stays;
    }
    let good = || inputs.points.iter().filter(|p| is_under(p, policy) && is_good(inputs, p));
    let newer: Vec<_> = good().filter(|other| is_newer(other, point)).collect();
    if let Some(of) = rules.count {
        let nth = u32::try_from(newer.len()).unwrap() + 1;
        stays.extend((nth <= of).then_some(Why::Count { policy: id, nth, of }));
    }
    if let Some(days) = rules.within_days {
        let window = Span::days(days.into());
        let instants: BTreeSet<_> =
            good().map(|other| other.taken_at).filter(|at| *at >= point.taken_at).collect();
        let instants: Vec<_> = instants.into_iter().collect();
        let age: Span = instants.windows(2).map(|pair| (pair[1] - pair[0]).min(window / 2)).sum();
        let is_within = instants.is_empty() || age < window;
        stays.extend(is_within.then_some(Why::Within { policy: id, days }));
    }
    if let (Some(gfs), true) = (rules.gfs, is_good(inputs, point)) {
        for (period, of) in [
            (Period::Hour, gfs.hourly),
            (Period::Day, gfs.daily),
            (Period::Week, gfs.weekly),
            (Period::Month, gfs.monthly),
            (Period::Year, gfs.yearly),
        ] {
            let place = |point: &RestorePoint| {
                let civil = inputs.zone.civil(point.taken_at);
                match period {
                    Period::Hour => civil.date().and_hms_opt(civil.hour(), 0, 0),
                    Period::Day => civil.date().and_hms_opt(0, 0, 0),
                    Period::Week => {
                        let monday = civil.weekday().num_days_from_monday();
                        (civil.date() - Span::days(monday.into())).and_hms_opt(0, 0, 0)
                    }
                    Period::Month => civil.date().with_day(1).unwrap().and_hms_opt(0, 0, 0),
                    Period::Year => civil.date().with_ordinal(1).unwrap().and_hms_opt(0, 0, 0),
                }
            };
            let places: BTreeSet<_> = newer.iter().map(|other| place(other)).collect();
            let nth = u32::try_from(places.len()).unwrap() + 1;
            if nth <= of && !places.contains(&place(point)) {
                stays.push(Why::Grid { policy: id, period, nth, of });
            }
        }
    }
    stays
}

/// Whether it is among the newest good ones, of which so many stay.
fn is_of_the_least(inputs: &RetentionInputs<'_>, policy: &Policy, point: &RestorePoint) -> bool {
    let good = inputs.points.iter().filter(|p| is_under(p, policy) && is_good(inputs, p));
    let newer = good.filter(|other| is_newer(other, point)).count();
    is_good(inputs, point) && newer < policy.retention.min_keep.get() as usize
}

fn segment_stays(
    inputs: &RetentionInputs<'_>,
    points: &[&RestorePoint],
    segment: &LogSegment,
) -> Vec<Why> {
    let mut stays = Vec::new();
    let (first, last) = (segment.range.start().0, segment.range.end().0);
    for point in points.iter().filter(|point| point.has_database()) {
        let Some(logs) = &point.logs else { continue };
        // Its own, and the open one after them.
        let has = |generation: u32| {
            let own = logs.range.as_ref();
            own.is_some_and(|own| (own.start().0..=own.end().0 + 1).contains(&generation))
        };
        let needs = |generation: u32| {
            let required = logs.required.as_ref();
            required.is_some_and(|required| required.contains(&Generation(generation)))
        };
        let lacks = (first..=last).any(|generation| needs(generation) && !has(generation));
        let is_same =
            (logs.signature, logs.branch) == (segment.chain.signature, segment.chain.branch);
        if is_same && (point.id == segment.point || lacks) {
            stays.push(Why::Required { point: point.id });
        }
    }
    let brought = points.iter().find(|point| point.id == segment.point);
    if brought.is_some_and(|p| inputs.protected.get(&p.id).is_some_and(|p| p.keeps(inputs.now))) {
        stays.push(Why::PointProtected { point: segment.point });
    } else if brought.is_some_and(|point| !point.kind.takes_database()) {
        stays.push(Why::PointStays { point: segment.point });
    }
    if segment.taken_at > inputs.now {
        stays.push(Why::Future);
    }
    if inputs.policies.is_empty() {
        stays.push(Why::NoLogPolicy);
    }
    stays.extend(
        inputs.policies.iter().filter_map(|policy| by_policy(inputs, points, policy, segment)),
    );
    stays
}

/// Why a policy wants the logs of a segment, if it does.
fn by_policy(
    inputs: &RetentionInputs<'_>,
    points: &[&RestorePoint],
    policy: &Policy,
    segment: &LogSegment,
) -> Option<Why> {
    let mut points: Vec<_> = points.iter().filter(|point| point.has_database()).collect();
    points.sort_by_key(|point| std::cmp::Reverse((point.taken_at, point.id)));
    match policy.log_retention {
        LogRetention::None => return None,
        LogRetention::Days(days) => {
            let window = Span::days(days.into());
            let instants: BTreeSet<_> = inputs.segments.iter().map(|s| s.taken_at).collect();
            let counted = |at: &DateTime<Utc>| (segment.taken_at..=inputs.now).contains(at);
            let instants: Vec<_> = instants.into_iter().filter(counted).collect();
            let age: Span =
                instants.windows(2).map(|pair| (pair[1] - pair[0]).min(window / 2)).sum();
            let is_within = segment.taken_at <= inputs.now && age < window;
            return is_within.then_some(Why::LogDays { policy: policy.id, days });
        }
        LogRetention::FollowFulls(count) => {
            points.retain(|point| {
                !point.is_missing() && (!policy.kind.takes_database() || is_under(point, policy))
            });
            let all = points.clone();
            let sure_after = |point: &RestorePoint| {
                all.iter().filter(|other| is_newer(other, point) && is_sure(inputs, other)).count()
            };
            points.retain(|point| sure_after(point) < count as usize);
        }
        LogRetention::AsFulls => {}
    }
    let through = |point: &&&&RestorePoint| walk(inputs.segments, point).contains(&segment.id);
    let point = points.iter().find(through)?.id;
    Some(Why::RollsForward { point, policy: policy.id })
}

/// The segments that one point needs to be rolled forward as far as it can be, and to show until when nothing came after them.
fn walk(segments: &[LogSegment], point: &RestorePoint) -> BTreeSet<SegmentId> {
    let mut through = BTreeSet::new();
    let Some(logs) = &point.logs else { return through };
    let is_same =
        |s: &&LogSegment| (s.chain.signature, s.chain.branch) == (logs.signature, logs.branch);
    let mut stream: Vec<_> = segments.iter().filter(is_same).collect();
    stream.sort_by_key(|segment| (*segment.range.start(), *segment.range.end(), segment.id));
    let end = |range: &Option<RangeInclusive<Generation>>| range.as_ref().map(|r| r.end().0);
    // Of the open log, the last that is required, a point has a part: the whole of it is needed.
    let before = end(&logs.required).filter(|last| *last > 1).map(|last| last - 1);
    let mut last = end(&logs.range).or(before);
    let (mut until, mut again) = (point.taken_at, None);
    for segment in stream {
        let range = (segment.range.start().0, segment.range.end().0);
        match last {
            None if segment.taken_at < point.taken_at => continue,
            Some(last) if range.1 < last => continue,
            Some(last) if range.0 > last + 1 => break,
            Some(last) if range.1 == last => {
                // The same once more, later: nothing came between.
                again = if segment.taken_at > until { Some(segment) } else { again };
            }
            _ => {
                through.insert(segment.id);
                last = Some(range.1);
                again = again.filter(|again: &&LogSegment| again.taken_at > segment.taken_at);
            }
        }
        until = until.max(segment.taken_at);
    }
    through.extend(again.map(|segment| segment.id));
    through
}
