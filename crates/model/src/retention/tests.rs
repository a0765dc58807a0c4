//! What goes and what stays, by examples and by what holds for any points and policies.

mod history;
mod naive;
mod properties;
mod years;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use chrono::Duration as Span;
use stillpoint_context::{HostId, JobId, RunId};
use uuid::Uuid;

use super::*;
use crate::evidence::EvidenceGrain;
use crate::handover::MemberRole;
use crate::id::{CopyId, DatabaseId, SetToken, SnapshotId};
use crate::inventory::LogSignature;
use crate::kind::BackupKind;
use crate::point::{NewPoint, PointEvidence, PointLogs, PointMember, PointState, Trust};
use crate::policy::{Gfs, LogRetention, Retention};
use crate::quiesce::{Held, QuiesceLevel};

const DATABASE: DatabaseId = DatabaseId(Uuid::from_u128(1));

fn epoch() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn days(days: i64) -> Span {
    Span::days(days)
}

fn signature(number: u8) -> LogSignature {
    LogSignature([number; 28])
}

/// A good full and log backup, so many hours after the epoch, under policy 1.
fn point(id: u128, hours: i64) -> RestorePoint {
    let host = HostId::new("ex1").unwrap();
    let evidence = PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase);
    let mut point = RestorePoint::new(NewPoint {
        id: PointId(Uuid::from_u128(id)),
        copy: CopyId::new(DATABASE, host),
        database_name: "DB".into(),
        kind: BackupKind::FullAndLog,
        taken_at: epoch() + Span::hours(hours),
        job: JobId(Uuid::from_u128(id)),
        run: RunId(Uuid::from_u128(id)),
        set: SetToken::new(format!("set-{id}")).unwrap(),
        evidence,
    });
    point.state = PointState::Available;
    point.policy = Some(policy(1).reference());
    let member = |name: &str, role| {
        let id = SnapshotId::new(format!("{name}-{id}")).unwrap();
        let snapshot = SnapshotRef::new("sim:vol".parse().unwrap(), id);
        PointMember::new(snapshot, name, role)
    };
    point.members = vec![member("data", MemberRole::Data), member("log", MemberRole::Log)];
    point
}

fn with_logs(mut point: RestorePoint, range: RangeInclusive<u32>) -> RestorePoint {
    let range = Generation(*range.start())..=Generation(*range.end());
    point.logs = Some(PointLogs::new(signature(1), Some(range.clone()), Some(range)));
    point
}

/// A log backup of these generations.
fn log(id: u128, hours: i64, range: RangeInclusive<u32>) -> RestorePoint {
    let mut point = with_logs(point(id, hours), range);
    point.kind = BackupKind::Log;
    point.members.remove(0);
    if let Some(logs) = &mut point.logs {
        logs.required = None;
    }
    point
}

fn policy(id: u128) -> Policy {
    Policy::new(PolicyId(Uuid::from_u128(id)), format!("P{id}"))
}

fn keeping(retention: Retention) -> Policy {
    Policy { retention, log_retention: LogRetention::None, ..policy(1) }
}

fn decide_all(points: &[RestorePoint], policies: &[Policy], now: DateTime<Utc>) -> Decisions {
    let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
    decide(&RetentionInputs { points, segments: &segments, policies, ..RetentionInputs::new(now) })
}

/// The numbers of the points that stay.
fn kept(decisions: &Decisions) -> Vec<u128> {
    let kept = decisions.points.iter().filter(|point| point.is_kept());
    kept.map(|point| point.what.0.as_u128()).collect()
}

fn segments_kept(decisions: &Decisions) -> Vec<u128> {
    let kept = decisions.segments.iter().filter(|segment| segment.is_kept());
    kept.map(|segment| segment.what.0.as_u128()).collect()
}

fn daily(count: u128) -> Vec<RestorePoint> {
    (1..=count).map(|id| point(id, 24 * i64::try_from(id).unwrap())).collect()
}

fn later() -> DateTime<Utc> {
    epoch() + days(4000)
}

#[test]
fn a_policy_without_rules_keeps_everything_and_so_does_none() {
    let points = daily(30);
    let decisions = decide_all(&points, &[keeping(Retention::default())], later());
    assert_eq!(kept(&decisions).len(), 30);
    assert!(decisions.points[0].reasons.contains(&Why::KeepsAll { policy: policy(1).id }));
    let orphaned = decide_all(&points, &[], later());
    assert_eq!(kept(&orphaned).len(), 30);
    assert_eq!(orphaned.points[0].reasons, [Why::NoPolicy]);
    assert!(decisions.snapshots.is_empty() && orphaned.snapshots.is_empty());
    // Nor do grids without a place let anything go.
    let nowhere = Retention { gfs: Some(Gfs::default()), ..Retention::default() };
    assert_eq!(kept(&decide_all(&points, &[keeping(nowhere)], later())).len(), 30);
}

#[test]
fn a_count_keeps_the_newest_and_suspect_ones_do_not_count() {
    let mut points = daily(6);
    points[5].trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
    let policy = keeping(Retention::count(2));
    let decisions = decide_all(&points, std::slice::from_ref(&policy), later());
    assert_eq!(kept(&decisions), [4, 5, 6]);
    assert_eq!(decisions.points[3].reasons, [Why::Count { policy: policy.id, nth: 2, of: 2 }]);
    assert_eq!(decisions.points[2].reasons, [Why::NoRule { policy: policy.id }]);
    // Once two good ones are newer, it goes as well.
    points.extend([point(7, 24 * 7), point(8, 24 * 8)]);
    assert_eq!(kept(&decide_all(&points, &[policy], later())), [7, 8]);
}

#[test]
fn what_is_deleted_is_every_snapshot_in_which_nothing_stays() {
    let points = daily(3);
    let decisions = decide_all(&points, &[keeping(Retention::count(1))], later());
    let wanted = ["data-1", "data-2", "log-1", "log-2"].map(|name| format!("sim:vol#{name}"));
    assert_eq!(decisions.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
}

#[test]
fn days_are_counted_from_the_newest_good_one() {
    let points = daily(40);
    let rules = Retention { within_days: Some(10), ..Retention::default() };
    let decisions = decide_all(&points, &[keeping(rules)], later());
    assert_eq!(kept(&decisions), (31..=40).collect::<Vec<_>>());
}

#[test]
fn an_outage_and_a_clock_that_jumps_wipe_nothing() {
    let rules = Retention { within_days: Some(10), ..Retention::default() };
    let policy = keeping(rules);
    let mut points = daily(40);
    // A year without backups, and then one; or a clock that says so for a day.
    points.push(point(41, 24 * 400));
    let decisions = decide_all(&points, std::slice::from_ref(&policy), later());
    assert_eq!(kept(&decisions), [36, 37, 38, 39, 40, 41]);
    // The clock is right again: what it said wrongly is from the future, and counts for nothing.
    let now = epoch() + days(41);
    let decisions = decide_all(&points, &[policy], now);
    assert_eq!(kept(&decisions), (31..=41).collect::<Vec<_>>());
    assert_eq!(decisions.points[40].reasons[0], Why::Future);
}

#[test]
fn grids_keep_the_newest_of_each_place_that_has_one() {
    let points: Vec<_> = (1..=24 * 70).map(|id| point(id, i64::try_from(id).unwrap())).collect();
    let gfs = Gfs { hourly: 3, daily: 2, weekly: 2, monthly: 3, yearly: 1 };
    let rules = Retention { gfs: Some(gfs), ..Retention::default() };
    let decisions = decide_all(&points, &[keeping(rules)], later());
    let at: Vec<_> = decisions
        .points
        .iter()
        .zip(&points)
        .filter(|(decision, _)| decision.is_kept())
        .map(|(_, point)| point.taken_at.format("%m-%d %H").to_string())
        .collect();
    // The last is of 12 March, 0 h: a Thursday.
    let wanted = ["01-31 23", "02-28 23", "03-08 23", "03-11 22", "03-11 23", "03-12 00"];
    assert_eq!(at, wanted);
}

#[test]
fn there_are_never_fewer_good_ones_than_there_have_to_be() {
    let mut points = daily(5);
    points[4].trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
    let min_keep = NonZeroU32::new(3).unwrap();
    let policy = keeping(Retention { min_keep, ..Retention::count(1) });
    let decisions = decide_all(&points, std::slice::from_ref(&policy), later());
    assert_eq!(kept(&decisions), [2, 3, 4, 5]);
    assert_eq!(decisions.points[1].reasons, [Why::Least { policy: policy.id, least: 3 }]);
}

#[test]
fn holds_and_locks_beat_every_rule_until_they_end() {
    let points = daily(3);
    let policy = keeping(Retention::count(1));
    let held = Protected { holds: ["case 7".to_owned()].into(), ..Protected::default() };
    let locked = Protected { locked_until: Some(later()), ..Protected::default() };
    let protected = BTreeMap::from([(points[0].id, held), (points[1].id, locked)]);
    let decide_at = |now| {
        let policies = std::slice::from_ref(&policy);
        let inputs = RetentionInputs::new(now);
        decide(&RetentionInputs { points: &points, policies, protected: &protected, ..inputs })
    };
    let before = decide_at(later() - days(1));
    assert_eq!(kept(&before), [1, 2, 3]);
    assert_eq!(before.points[0].reasons, [Why::Held { name: "case 7".into() }]);
    assert_eq!(kept(&decide_at(later())), [1, 3]);
}

#[test]
fn what_is_not_over_stays_and_does_not_count() {
    let mut points = daily(3);
    points[2].state = PointState::Provisional;
    let decisions = decide_all(&points, &[keeping(Retention::count(1))], later());
    assert_eq!(kept(&decisions), [2, 3]);
}

#[test]
fn a_suspect_one_stays_while_it_is_the_newest_of_its_stream() {
    let mut points = [with_logs(point(1, 1), 1..=2), point(2, 2), point(3, 3)];
    points[0].trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
    let decisions = decide_all(&points, &[keeping(Retention::count(1))], later());
    assert_eq!(kept(&decisions), [1, 3]);
    assert_eq!(decisions.points[0].reasons, [Why::NewestOfStream]);
}

#[test]
fn logs_stay_as_the_policies_of_a_database_together_say() {
    let full = with_logs(point(1, 0), 1..=2);
    let mut points = vec![full];
    points.extend((2..=5_u128).map(|id| {
        let generation = u32::try_from(id).unwrap() + 1;
        log(id, 24 * i64::try_from(id).unwrap(), generation..=generation)
    }));
    let of = |log_retention| Policy { log_retention, ..policy(1) };
    let segments = |policies: &[Policy]| segments_kept(&decide_all(&points, policies, later()));
    assert_eq!(segments(&[of(LogRetention::None)]), [1]);
    assert_eq!(segments(&[of(LogRetention::AsFulls)]), [1, 2, 3, 4, 5]);
    assert_eq!(segments(&[of(LogRetention::FollowFulls(1))]), [1, 2, 3, 4, 5]);
    assert_eq!(segments(&[of(LogRetention::Days(2))]), [1, 4, 5]);
    let other = Policy { log_retention: LogRetention::Days(2), ..policy(2) };
    assert_eq!(segments(&[of(LogRetention::None), other]), [1, 4, 5]);
}

#[test]
fn a_log_backup_goes_with_its_segment_and_is_no_log_of_what_a_gap_cuts_off() {
    let points = [with_logs(point(1, 0), 1..=2), log(2, 24, 3..=3), log(3, 48, 5..=5)];
    let policy = Policy { retention: Retention::count(1), ..policy(1) };
    let decisions = decide_all(&points, &[policy], later());
    assert_eq!((kept(&decisions), segments_kept(&decisions)), (vec![1, 2], vec![1, 2]));
    assert_eq!(decisions.points[1].reasons, [Why::SegmentStays]);
    assert_eq!(decisions.points[2].reasons, [Why::SegmentGoes]);
    assert_eq!(decisions.segments[2].reasons, [Why::NotNeeded]);
}

#[test]
fn the_logs_of_a_point_that_goes_may_be_the_bridge_of_one_that_stays() {
    let mut points =
        vec![with_logs(point(1, 0), 1..=2), with_logs(point(2, 24), 3..=4), log(3, 48, 5..=6)];
    let held = Protected { holds: ["h".to_owned()].into(), ..Protected::default() };
    let protected = BTreeMap::from([(points[0].id, held)]);
    points[2].policy = None;
    points.push(with_logs(point(4, 72), 7..=8));
    let policies = [Policy { retention: Retention::count(1), ..policy(1) }];
    let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
    let inputs = RetentionInputs::new(later());
    let decisions = decide(&RetentionInputs {
        points: &points,
        segments: &segments,
        policies: &policies,
        protected: &protected,
        ..inputs
    });
    assert_eq!(kept(&decisions), [1, 3, 4]);
    assert_eq!(segments_kept(&decisions), [1, 2, 3, 4]);
    // The database of the second goes, its logs stay.
    assert_eq!(
        decisions.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["sim:vol#data-2"]
    );
}

fn suspect(mut point: RestorePoint) -> RestorePoint {
    point.trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
    point
}

#[test]
fn a_suspect_one_stays_while_what_is_newer_is_missing_or_not_over() {
    let gfs = Gfs { daily: 1, ..Gfs::default() };
    let policies = [keeping(Retention { gfs: Some(gfs), ..Retention::default() })];
    let mut points = [suspect(point(1, 1)), point(2, 48)];
    assert_eq!(kept(&decide_all(&points, &policies, later())), [2]);
    // The storage has lost the newer one: a bad one is better than none.
    let lost = points[1].members[0].snapshot.clone();
    let fact =
        crate::point::PointFact::Missing { point: points[1].id, at: later(), lost: [lost].into() };
    let missing = fact.apply(Some(points[1].clone())).unwrap().unwrap();
    let decisions = decide_all(&[points[0].clone(), missing], &policies, later());
    assert_eq!(decisions.points[0].reasons, [Why::NewestOfStream]);
    // The newer one may still come to nothing.
    points[1].state = PointState::Provisional;
    assert_eq!(kept(&decide_all(&points, &policies, later())), [1, 2]);
}

#[test]
fn the_newest_that_is_known_to_be_good_stays_while_newer_ones_are_still_to_be_verified() {
    let mut points = daily(4);
    points[0].trust = Trust::Verified { at: later() };
    points[1].trust = Trust::Verified { at: later() };
    let mut policy = keeping(Retention::count(1));
    assert_eq!(kept(&decide_all(&points, std::slice::from_ref(&policy), later())), [4]);
    policy.verification = crate::policy::Verification::AfterCompletion;
    let decisions = decide_all(&points, std::slice::from_ref(&policy), later());
    assert_eq!(kept(&decisions), [2, 4]);
    assert_eq!(decisions.points[1].reasons, [Why::NewestSure]);
    points[3].trust = Trust::Verified { at: later() };
    assert_eq!(kept(&decide_all(&points, &[policy], later())), [4]);
}

#[test]
fn logs_follow_so_many_fulls_that_count() {
    let policies = [Policy { log_retention: LogRetention::FollowFulls(1), ..policy(1) }];
    let with = |newest: RestorePoint| {
        let points = [with_logs(point(1, 0), 1..=2), log(2, 24, 3..=4), newest];
        segments_kept(&decide_all(&points, &policies, later()))
    };
    let newest = with_logs(point(3, 48), 5..=6);
    assert_eq!(with(newest.clone()), [1, 3]);
    // A failed verification does not count, and a backup that is not over may fail: until there is a good one, the logs of the
    // one before are what it can be rolled forward with.
    assert_eq!(with(suspect(newest.clone())), [1, 2, 3]);
    assert_eq!(with(RestorePoint { state: PointState::Provisional, ..newest }), [1, 2, 3]);
}

#[test]
fn a_log_backup_goes_by_what_its_policy_says_of_logs() {
    let mut points = vec![with_logs(point(1, 0), 1..=2)];
    points.extend(
        (1..5).map(|id| log(u128::from(id) + 1, i64::from(id) * 24, id * 2 + 1..=id * 2 + 2)),
    );
    for point in &mut points[1..] {
        point.policy = Some(policy(2).reference());
    }
    let all = |logs| [policy(1), Policy { log_retention: logs, ..policy(2) }];
    let mut fulls = all(LogRetention::Days(2));
    fulls[0].log_retention = LogRetention::None;
    let decisions = decide_all(&points, &fulls, later());
    assert_eq!(kept(&decisions), [1, 4, 5], "the logs of two days");
    assert_eq!(segments_kept(&decisions), [1, 4, 5]);
    // One that says nothing keeps everything, and so say the verdicts of what it keeps.
    fulls[1] = policy(2);
    fulls[0].retention = Retention::count(1);
    let mut later_full = with_logs(point(9, 200), 30..=31);
    later_full.policy = Some(policy(1).reference());
    points.push(later_full);
    let decisions = decide_all(&points, &fulls, later());
    assert_eq!(kept(&decisions), [2, 3, 4, 5, 9]);
    assert_eq!(segments_kept(&decisions), [2, 3, 4, 5, 9]);
    let why = &decisions.segments[1].reasons;
    assert_eq!(*why, [Why::PointStays { point: points[1].id }]);
}

#[test]
fn a_prune_of_one_policy_leaves_logs_to_the_points_that_it_leaves() {
    let mut points = vec![with_logs(point(1, 0), 1..=2), log(2, 24, 3..=4)];
    points[1].policy = Some(policy(2).reference());
    points.push(with_logs(point(3, 48), 5..=6));
    let keeps_one = |id| Policy { retention: Retention::count(1), ..policy(id) };
    let policies = [keeps_one(1), keeps_one(2)];
    let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
    let inputs = RetentionInputs {
        points: &points,
        segments: &segments,
        policies: &policies,
        ..RetentionInputs::new(later())
    };
    let order = |policy: Option<u128>| -> Vec<u128> {
        let policy = policy.map(|id| PolicyId(Uuid::from_u128(id)));
        let decisions = decide_for(&inputs, policy);
        let order = PruneOrder::of(DATABASE, &decisions, &points, policy);
        order.points.keys().map(|point| point.0.as_u128()).collect()
    };
    assert_eq!(order(None), [1, 2]);
    // The first point is there until its own policy is pruned, and goes on to be rolled forward.
    assert_eq!(order(Some(2)), [] as [u128; 0]);
    assert_eq!(order(Some(1)), [1]);
}
