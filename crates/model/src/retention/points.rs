//! Verdicts of restore points.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};

use super::{Decision, Fate, Period, RetentionInputs, Why, lived_through};
use crate::id::{PointId, SegmentId};
use crate::point::{PointLogs, PointState, RestorePoint, Trust};
use crate::policy::{Gfs, Policy, Verification};

/// Whether it counts: its backup is over, its storage has it, and nobody found anything wrong.
pub(super) fn is_good(point: &RestorePoint, now: DateTime<Utc>) -> bool {
    point.has_database()
        && !point.is_missing()
        && point.state == PointState::Available
        && !matches!(point.trust, Trust::Suspect { .. })
        && point.taken_at <= now
}

/// Whether it counts, and nothing is to be found out of it any more: its policy verifies at leisure, and has not yet.
pub(super) fn is_sure(point: &RestorePoint, inputs: &RetentionInputs<'_>) -> bool {
    let made_under = point.policy.as_ref().map(|policy| policy.id);
    let is_pending = || {
        let policy = inputs.policies.iter().find(|policy| Some(policy.id) == made_under);
        policy.is_some_and(|policy| policy.verification == Verification::AfterCompletion)
    };
    is_good(point, inputs.now) && !(point.trust == Trust::Unverified && is_pending())
}

pub(super) fn decide(inputs: &RetentionInputs<'_>) -> Vec<Decision<PointId>> {
    let mut keeps: Vec<Vec<Why>> =
        inputs.points.iter().map(|point| keeps_by_itself(point, inputs)).collect();
    let newest = |counts: &dyn Fn(&RestorePoint) -> bool| {
        let points = inputs.points.iter().enumerate().filter(|(_, point)| counts(point));
        points.max_by_key(|(_, point)| (point.taken_at, point.id)).map(|(at, _)| at)
    };
    let good = newest(&|point| is_good(point, inputs.now));
    if let Some(at) = good {
        keeps[at].push(Why::NewestGood);
    }
    if let Some(at) = newest(&|point| is_sure(point, inputs)).filter(|at| Some(*at) != good) {
        keeps[at].push(Why::NewestSure);
    }
    for at in newest_suspects(inputs.points) {
        keeps[at].push(Why::NewestOfStream);
    }
    for policy in inputs.policies.iter().filter(|policy| !policy.retention.keeps_all()) {
        keep_by_rules(policy, inputs, &mut keeps);
    }
    let decisions = inputs.points.iter().zip(keeps).map(|(point, keeps)| {
        let otherwise = if point.state == PointState::Expiring {
            Why::Expiring
        } else if point.has_database() {
            point.policy.as_ref().map_or(Why::NoPolicy, |policy| Why::NoRule { policy: policy.id })
        } else {
            Why::SegmentGoes
        };
        Decision::of(point.id, keeps, otherwise)
    });
    decisions.collect()
}

/// What keeps a point whatever others there are.
fn keeps_by_itself(point: &RestorePoint, inputs: &RetentionInputs<'_>) -> Vec<Why> {
    let mut keeps = Vec::new();
    if let Some(protected) = inputs.protected.get(&point.id) {
        keeps.extend(protected.holds.iter().map(|name| Why::Held { name: name.clone() }));
        let locked = protected.locked_until.filter(|until| *until > inputs.now);
        keeps.extend(locked.map(|until| Why::Locked { until }));
        keeps.extend(protected.unknown.iter().map(|why| Why::LockUnknown { why: why.clone() }));
    }
    if point.state == PointState::Expiring {
        return keeps;
    }
    if point.state == PointState::Provisional {
        keeps.push(Why::NotOver);
    }
    if point.taken_at > inputs.now {
        keeps.push(Why::Future);
    }
    if point.state == PointState::LogsOnly {
        // Its rules have let it go. It is nothing but its logs.
        return keeps;
    }
    let made_under = point.policy.as_ref().map(|policy| policy.id);
    match inputs.policies.iter().find(|policy| Some(policy.id) == made_under) {
        None => keeps.push(Why::NoPolicy),
        // A log backup goes by what its policy says of logs, if it says anything.
        Some(policy) if policy.keeps_all_logs() => keeps.push(Why::KeepsAll { policy: policy.id }),
        Some(policy) if policy.retention.keeps_all() && point.has_database() => {
            keeps.push(Why::KeepsAll { policy: policy.id });
        }
        Some(_) => {}
    }
    keeps
}

/// The places of suspect points of whose log stream there is none that is newer and can be had: a bad one is better than none.
fn newest_suspects(points: &[RestorePoint]) -> impl Iterator<Item = usize> {
    let stream = |point: &RestorePoint| point.logs.as_ref().map(PointLogs::chain);
    let mut newest: BTreeMap<_, (DateTime<Utc>, PointId)> = BTreeMap::new();
    for point in points.iter().filter(|point| point.has_database()) {
        // One that is not over may come to nothing.
        if point.state == PointState::Available && !point.is_missing() {
            let this = (point.taken_at, point.id);
            let known = newest.entry(stream(point)).or_insert(this);
            *known = this.max(*known);
        }
    }
    let suspect = points
        .iter()
        .enumerate()
        .filter(|(_, point)| point.has_database() && matches!(point.trust, Trust::Suspect { .. }));
    suspect
        .filter(move |(_, point)| {
            let newest = newest.get(&stream(point));
            newest.is_none_or(|newest| *newest <= (point.taken_at, point.id))
        })
        .map(|(at, _)| at)
}

/// A point that the rules of its policy are about.
struct Ruled<'a> {
    point: &'a RestorePoint,
    /// Its place among all points.
    at: usize,
    is_good: bool,
    stays: bool,
}

/// Notes what the rules of one policy keep of its points. One that is suspect or missing counts for nothing, and stays for as
/// long as a good one would in its place.
fn keep_by_rules(policy: &Policy, inputs: &RetentionInputs<'_>, keeps: &mut [Vec<Why>]) {
    let (rules, policy) = (&policy.retention, policy.id);
    let all = inputs.points.iter().enumerate().filter(|(_, point)| {
        let made_under = point.policy.as_ref().map(|policy| policy.id);
        made_under == Some(policy) && point.has_database()
    });
    let mut points: Vec<Ruled<'_>> = all
        .map(|(at, point)| Ruled { point, at, is_good: is_good(point, inputs.now), stays: false })
        .collect();
    points.sort_by_key(|ruled| std::cmp::Reverse((ruled.point.taken_at, ruled.point.id)));
    let mut keep = |ruled: &mut Ruled<'_>, why| {
        ruled.stays = true;
        keeps[ruled.at].push(why);
    };

    if let Some(of) = rules.count {
        let mut nth = 1;
        for ruled in &mut points {
            if nth > of {
                break;
            }
            keep(ruled, Why::Count { policy, nth, of });
            nth += u32::from(ruled.is_good);
        }
    }
    if let Some(days) = rules.within_days {
        let window = TimeDelta::days(i64::from(days));
        let good = points.iter().filter(|ruled| ruled.is_good).map(|ruled| ruled.point.taken_at);
        let mut ages = lived_through(good.collect::<Vec<_>>().into_iter(), window).peekable();
        let mut age = None;
        for ruled in &mut points {
            // As old as the next good one after it: a suspect one has no age of its own.
            while let Some((_, next)) = ages.next_if(|(good, _)| *good >= ruled.point.taken_at) {
                age = Some(next);
            }
            if age.is_none_or(|age| age < window) {
                keep(ruled, Why::Within { policy, days });
            }
        }
    }
    for (period, of) in rules.gfs.map(grids).into_iter().flatten() {
        let mut places = BTreeSet::new();
        for ruled in points.iter_mut().filter(|ruled| ruled.is_good) {
            let nth = u32::try_from(places.len()).unwrap_or(u32::MAX).saturating_add(1);
            if nth > of {
                break;
            }
            if places.insert(place_of(period, inputs.zone.civil(ruled.point.taken_at))) {
                keep(ruled, Why::Grid { policy, period, nth, of });
            }
        }
    }
    let least = rules.min_keep.get();
    // The newest ones, whatever else stays: were they counted against it, a rule that keeps more could let one of them go.
    let newest = points.iter_mut().filter(|ruled| ruled.is_good).take(least as usize);
    newest.filter(|ruled| !ruled.stays).for_each(|ruled| keep(ruled, Why::Least { policy, least }));
}

fn grids(gfs: Gfs) -> [(Period, u32); 5] {
    [
        (Period::Hour, gfs.hourly),
        (Period::Day, gfs.daily),
        (Period::Week, gfs.weekly),
        (Period::Month, gfs.monthly),
        (Period::Year, gfs.yearly),
    ]
}

/// What is the same for all that is in one place of a grid.
fn place_of(period: Period, civil: NaiveDateTime) -> (i32, u32, u32) {
    match period {
        Period::Hour => (civil.year(), civil.ordinal(), civil.hour()),
        Period::Day => (civil.year(), civil.ordinal(), 0),
        Period::Week => (civil.iso_week().year(), civil.iso_week().week(), 0),
        Period::Month => (civil.year(), civil.month(), 0),
        Period::Year => (civil.year(), 0, 0),
    }
}

/// A log backup is nothing but its segment.
pub(super) fn follow_segments(
    inputs: &RetentionInputs<'_>,
    segments: &[Decision<SegmentId>],
    decisions: &mut [Decision<PointId>],
) {
    let kept = segments.iter().filter(|segment| segment.is_kept()).map(|segment| segment.what);
    let mut kept: Vec<SegmentId> = kept.collect();
    kept.sort_unstable();
    for (point, decision) in inputs.points.iter().zip(decisions) {
        let is_its_logs = !point.has_database() && point.state != PointState::Expiring;
        let goes = is_its_logs && !decision.is_kept();
        if goes && kept.binary_search(&SegmentId(point.id.0)).is_ok() {
            decision.fate = Fate::Keep;
            decision.reasons = vec![Why::SegmentStays];
        }
    }
}
