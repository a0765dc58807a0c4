//! Verdicts of restore points.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};

use super::{Decision, Fate, Period, RetentionInputs, Why, lived_through};
use crate::id::{PointId, SegmentId};
use crate::point::{PointLogs, PointState, RestorePoint, Trust};
use crate::policy::{Gfs, Policy};

/// Whether it counts: its backup is over, its storage has it, and nobody found anything wrong.
fn is_good(point: &RestorePoint, now: DateTime<Utc>) -> bool {
    point.has_database()
        && !point.is_missing()
        && point.state == PointState::Available
        && !matches!(point.trust, Trust::Suspect { .. })
        && point.taken_at <= now
}

pub(super) fn decide(inputs: &RetentionInputs<'_>) -> Vec<Decision<PointId>> {
    let mut keeps: BTreeMap<PointId, Vec<Why>> = BTreeMap::new();
    let mut keep = |point: PointId, why| keeps.entry(point).or_default().push(why);
    let policy_of = |point: &RestorePoint| {
        let made_under = point.policy.as_ref()?.id;
        inputs.policies.iter().find(|policy| policy.id == made_under)
    };
    for point in inputs.points {
        if let Some(protected) = inputs.protected.get(&point.id) {
            for name in &protected.holds {
                keep(point.id, Why::Held { name: name.clone() });
            }
            if let Some(until) = protected.locked_until.filter(|until| *until > inputs.now) {
                keep(point.id, Why::Locked { until });
            }
            if let Some(why) = &protected.unknown {
                keep(point.id, Why::LockUnknown { why: why.clone() });
            }
        }
        if point.state == PointState::Expiring {
            continue;
        }
        if point.state == PointState::Provisional {
            keep(point.id, Why::NotOver);
        }
        if point.taken_at > inputs.now {
            keep(point.id, Why::Future);
        }
        if point.state == PointState::LogsOnly {
            // Its rules have let it go. It is nothing but its logs.
            continue;
        }
        match policy_of(point) {
            None => keep(point.id, Why::NoPolicy),
            Some(policy) if policy.retention.keeps_all() => {
                keep(point.id, Why::KeepsAll { policy: policy.id });
            }
            Some(_) => {}
        }
    }
    let newest = |of: &mut dyn Iterator<Item = &RestorePoint>| {
        of.max_by_key(|point| (point.taken_at, point.id)).map(|point| point.id)
    };
    if let Some(point) = newest(&mut inputs.points.iter().filter(|p| is_good(p, inputs.now))) {
        keep(point, Why::NewestGood);
    }
    for point in newest_suspects(inputs) {
        keep(point, Why::NewestOfStream);
    }
    for policy in inputs.policies.iter().filter(|policy| !policy.retention.keeps_all()) {
        let of_policy = |point: &&RestorePoint| {
            point.policy.as_ref().is_some_and(|made_under| made_under.id == policy.id)
        };
        let points: Vec<_> = inputs.points.iter().filter(of_policy).collect();
        for (point, why) in by_rules(policy, &points, inputs) {
            keep(point, why);
        }
    }
    let decision = |point: &RestorePoint| {
        let otherwise = if point.state == PointState::Expiring {
            Why::Expiring
        } else if point.has_database() {
            point.policy.as_ref().map_or(Why::NoPolicy, |policy| Why::NoRule { policy: policy.id })
        } else {
            Why::SegmentGoes
        };
        Decision::of(point.id, keeps.remove(&point.id).unwrap_or_default(), otherwise)
    };
    inputs.points.iter().map(decision).collect()
}

/// Of each log stream the newest point, where it is suspect: a bad one is better than none.
fn newest_suspects(inputs: &RetentionInputs<'_>) -> Vec<PointId> {
    let mut newest: BTreeMap<_, &RestorePoint> = BTreeMap::new();
    for point in inputs.points.iter().filter(|point| point.has_database()) {
        let stream = point.logs.as_ref().map(PointLogs::chain);
        let known = newest.entry(stream).or_insert(point);
        if (known.taken_at, known.id) < (point.taken_at, point.id) {
            *known = point;
        }
    }
    let suspect = |point: &&RestorePoint| matches!(point.trust, Trust::Suspect { .. });
    newest.into_values().filter(suspect).map(|point| point.id).collect()
}

/// What the rules of one policy keep of its points. One that is suspect or missing counts for nothing, and stays for as long as
/// a good one would in its place.
fn by_rules(
    policy: &Policy,
    points: &[&RestorePoint],
    inputs: &RetentionInputs<'_>,
) -> Vec<(PointId, Why)> {
    let (rules, policy) = (&policy.retention, policy.id);
    let mut points: Vec<_> = points.iter().filter(|point| point.has_database()).collect();
    points.sort_by_key(|point| std::cmp::Reverse((point.taken_at, point.id)));
    let good: Vec<_> = points.iter().filter(|point| is_good(point, inputs.now)).collect();
    let mut kept = Vec::new();

    if let Some(of) = rules.count {
        let mut newer = 0;
        for point in &points {
            if newer < of {
                kept.push((point.id, Why::Count { policy, nth: newer + 1, of }));
            }
            newer += u32::from(is_good(point, inputs.now));
        }
    }
    if let Some(days) = rules.within_days {
        let window = TimeDelta::days(i64::from(days));
        let instants = good.iter().map(|point| point.taken_at).collect();
        let ages = lived_through(&instants, window);
        for point in &points {
            // As old as the next good one after it: a suspect one has no age of its own.
            let age = ages.range(point.taken_at..).next().map(|(_, age)| *age);
            if age.is_none_or(|age| age < window) {
                kept.push((point.id, Why::Within { policy, days }));
            }
        }
    }
    if let Some(gfs) = rules.gfs {
        for (period, of) in grids(gfs) {
            let mut places = BTreeSet::new();
            for point in &good {
                let place = place_of(period, inputs.zone.civil(point.taken_at));
                let nth = u32::try_from(places.len()).unwrap_or(u32::MAX) + 1;
                if nth <= of && places.insert(place) {
                    kept.push((point.id, Why::Grid { policy, period, nth, of }));
                }
            }
        }
    }
    let least = rules.min_keep.get();
    let stays: BTreeSet<PointId> = kept.iter().map(|(point, _)| *point).collect();
    let short = (least as usize)
        .saturating_sub(good.iter().filter(|point| stays.contains(&point.id)).count());
    let more = good.iter().filter(|point| !stays.contains(&point.id)).take(short);
    kept.extend(more.map(|point| (point.id, Why::Least { policy, least })));
    kept
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
    kept: &BTreeSet<SegmentId>,
    decisions: &mut [Decision<PointId>],
) {
    for (point, decision) in inputs.points.iter().zip(decisions) {
        let is_its_logs = !point.has_database() && point.state != PointState::Expiring;
        if is_its_logs && kept.contains(&SegmentId(point.id.0)) && !decision.is_kept() {
            decision.fate = Fate::Keep;
            decision.reasons = vec![Why::SegmentStays];
        }
    }
}
