//! Recovery windows: what can be reached, and why the rest cannot.

use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use stillpoint_context::{JobId, RunId};
use stillpoint_model::chain::{Chains, LogSegment, reach};
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{CopyId, PointId, SetToken, SnapshotId, SnapshotRef};
use stillpoint_model::inventory::{Generation, LogSignature};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{
    NewPoint, PointEvidence, PointFact, PointLogs, PointMember, PointState, RestorePoint, Trust,
};
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::window::{RecoveryWindow, Why};
use uuid::Uuid;

use super::world::{db, host, now, seed};

fn at(minute: i64) -> DateTime<Utc> {
    now() + TimeDelta::minutes(minute)
}

fn id(number: u128) -> PointId {
    PointId(Uuid::from_u128(number))
}

fn generations(first: u32, last: u32) -> RangeInclusive<Generation> {
    Generation(first)..=Generation(last)
}

/// A good point that was taken when the last of its logs was closed, of which there is one each minute.
fn point(number: u128, first: u32, last: u32) -> RestorePoint {
    let evidence = PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase);
    let run = RunId(Uuid::from_u128(500 + number));
    let mut point = RestorePoint::new(NewPoint {
        id: id(number),
        copy: CopyId::new(db(1), host("ex1")),
        database_name: "DB01".into(),
        kind: BackupKind::FullAndLog,
        taken_at: at(i64::from(last)),
        job: JobId(Uuid::from_u128(77)),
        run,
        set: SetToken::of(&run, id(number)),
        evidence,
    });
    let range = generations(first, last);
    let required = generations(last, last);
    point.logs = Some(PointLogs::new(LogSignature([1; 28]), Some(range), Some(required)));
    point.state = PointState::Available;
    point
}

fn suspect(mut point: RestorePoint) -> RestorePoint {
    point.trust = Trust::Suspect { at: at(999), reason: "bad".into(), findings: vec![] };
    point
}

fn expiring(point: RestorePoint, keeps_logs: bool) -> RestorePoint {
    let fact = PointFact::Expiring { point: point.id, at: at(999), turn: 1, keeps_logs };
    fact.apply(Some(point)).unwrap().unwrap()
}

/// One of which the storage has lost everything.
fn missing(mut point: RestorePoint) -> RestorePoint {
    let snapshot = SnapshotRef::new("sim:vol".parse().unwrap(), SnapshotId::new("lost").unwrap());
    point.members = vec![PointMember::new(snapshot.clone(), "all", MemberRole::DataAndLog)];
    let lost = [snapshot].into();
    let fact = PointFact::Missing { point: point.id, at: at(999), lost };
    fact.apply(Some(point)).unwrap().unwrap()
}

fn of_stream(mut point: RestorePoint, byte: u8) -> RestorePoint {
    point.logs.as_mut().unwrap().signature = LogSignature([byte; 28]);
    point
}

fn window(points: &[RestorePoint]) -> RecoveryWindow {
    RecoveryWindow::of(db(1), points, false)
}

/// Intervals in minutes.
fn spans(window: &RecoveryWindow) -> Vec<(i64, i64)> {
    let minute = |time: DateTime<Utc>| (time - now()).num_minutes();
    window.intervals.iter().map(|known| (minute(known.from), minute(known.until))).collect()
}

/// Why it cannot be brought to each gap.
fn whys(window: &RecoveryWindow) -> Vec<Vec<Why>> {
    window.gaps.iter().map(|gap| gap.why.clone()).collect()
}

const NOTHING: &[Why] = &[Why::NothingStored];

#[test]
fn logs_bridge_points_and_a_missing_one_is_named() {
    let points = [point(1, 3, 5), point(2, 6, 7), point(3, 20, 21)];
    let known = window(&points);
    assert_eq!(spans(&known), [(5, 7), (21, 21)]);
    let gap = Why::ChainGap { missing: generations(8, 19) };
    assert_eq!(whys(&known), [NOTHING.to_vec(), vec![gap]]);
    assert_eq!(known.gaps[0].after, None);
    assert_eq!((known.gaps[1].after, known.gaps[1].before), (Some(at(7)), Some(at(21))));
    assert!(known.up_to_the_minute, "the end is open: live logs may follow");
    assert!(known.contains(at(6)) && !known.contains(at(8)) && !known.contains(at(22)));
    assert_eq!(known.intervals[0].points, [id(1), id(2)]);
    // The one log that was missing.
    let bridged = [&points[..], &[point(4, 8, 19)]].concat();
    assert_eq!(spans(&window(&bridged)), [(5, 21)]);
}

#[test]
fn a_database_without_points_can_be_brought_nowhere() {
    let none = window(&[]);
    assert_eq!((whys(&none), none.up_to_the_minute), (vec![NOTHING.to_vec()], false));
    assert_eq!((none.gaps[0].after, none.gaps[0].before), (None, None));
    assert_eq!(RecoveryWindow::of(db(2), &[point(1, 1, 5)], false), none, "those of another");
}

#[test]
fn a_point_that_a_restore_refuses_opens_nothing() {
    let whole = point(1, 1, 5);
    assert_eq!(spans(&window(std::slice::from_ref(&whole))), [(5, 5)]);
    let mut early = whole.clone();
    early.state = PointState::Provisional;
    for (refused, why) in [
        (early, Why::NotOver { point: id(1) }),
        (suspect(whole.clone()), Why::Suspect { point: id(1) }),
        (expiring(whole.clone(), false), Why::Expiring { point: id(1) }),
        (missing(whole.clone()), Why::Missing { point: id(1) }),
    ] {
        let known = window(std::slice::from_ref(&refused));
        assert_eq!((spans(&known), whys(&known)), (vec![], vec![vec![why.clone()]]));
        // Between two others it is one more reason.
        let known = window(&[refused, point(8, 20, 21)]);
        assert_eq!((spans(&known), whys(&known)[0].clone()), (vec![(21, 21)], vec![why]));
    }
    // A suspect one after the last that is good: its logs still count.
    let known = window(&[point(1, 1, 5), suspect(point(2, 6, 9))]);
    assert_eq!((spans(&known), known.up_to_the_minute), (vec![(5, 9)], true));
    // What is lost with its storage brings nobody further.
    let known = window(&[point(1, 1, 5), missing(point(2, 6, 9)), point(3, 10, 12)]);
    assert_eq!(spans(&known), [(5, 5), (12, 12)]);
}

#[test]
fn logs_that_go_are_told_from_logs_that_are_missing() {
    let kept = [point(1, 1, 5), point(3, 10, 12)];
    let all_go = [&kept[..], &[expiring(point(2, 6, 9), false)]].concat();
    let expired = Why::LogsExpired { missing: generations(6, 9) };
    assert_eq!(whys(&window(&all_go))[1], [expired, Why::Expiring { point: id(2) }]);
    let one_short = [&kept[..], &[expiring(point(2, 7, 9), false)]].concat();
    let gap = Why::ChainGap { missing: generations(6, 9) };
    assert_eq!(whys(&window(&one_short))[1], [gap, Why::Expiring { point: id(2) }]);
    // Its logs stay, and bridge.
    let reduced = [&kept[..], &[expiring(point(2, 6, 9), true)]].concat();
    assert_eq!(spans(&window(&reduced)), [(5, 12)]);
}

#[test]
fn a_fork_ends_an_interval_and_the_last_one_is_told() {
    let forked = [point(1, 1, 5), of_stream(point(2, 1, 9), 2)];
    let known = window(&forked);
    assert_eq!(spans(&known), [(5, 5), (9, 9)]);
    assert_eq!(whys(&known)[1], [Why::ChainForked { at: at(9) }]);
    assert!(known.up_to_the_minute);
    // Only logs of the new stream are there: what comes after the last interval is no open end.
    let mut logs = of_stream(point(2, 1, 9), 2);
    logs.kind = BackupKind::Log;
    let known = window(&[point(1, 1, 5), logs]);
    assert_eq!((spans(&known), known.up_to_the_minute), (vec![(5, 5)], false));
    let last = known.gaps.last().unwrap();
    assert_eq!((last.after, last.before), (Some(at(5)), None));
    assert_eq!(last.why, [Why::ChainForked { at: at(9) }]);
}

/// A database that was brought back may write logs of the same signature and the same numbers, which hold something else.
#[test]
fn logs_of_another_branch_are_not_put_together() {
    let on_branch = |mut point: RestorePoint, branch: u32| {
        point.logs.as_mut().unwrap().branch = branch;
        point
    };
    let log = |mut point: RestorePoint| {
        point.kind = BackupKind::Log;
        point
    };
    let old = [point(1, 1, 5), log(point(2, 6, 9))];
    assert_eq!(spans(&window(&old)), [(5, 9)]);
    let restored =
        [&old[..], &[on_branch(point(3, 1, 20), 1), on_branch(log(point(4, 21, 30)), 1)]].concat();
    let known = window(&restored);
    assert_eq!(spans(&known), [(5, 9), (20, 30)]);
    assert_eq!(whys(&known)[1], [Why::ChainForked { at: at(20) }]);
    assert!(known.up_to_the_minute);
    // Logs that begin where those of the old branch end bridge nothing.
    let bridge = [&old[..1], &[on_branch(log(point(2, 6, 9)), 1)]].concat();
    assert_eq!(spans(&window(&bridge)), [(5, 5)]);
}

/// Of the log that was being written a point has a part. Whoever goes on from it needs the whole.
#[test]
fn a_chain_goes_on_from_what_is_there_whole() {
    let mut full = point(1, 1, 5);
    full.logs.as_mut().unwrap().required = Some(Generation(5)..=Generation(6));
    let log = |from, to| {
        let mut logs = point(2, from, to);
        logs.kind = BackupKind::Log;
        logs
    };
    assert_eq!(spans(&window(&[full.clone(), log(6, 9)])), [(5, 9)]);
    let short = window(&[full.clone(), log(7, 9)]);
    assert_eq!(spans(&short), [(5, 5)]);
    let stored_to = |points: &[RestorePoint]| {
        let chain = full.logs.as_ref().unwrap().chain();
        Chains::stored_to(db(1), points, chain).map(|last| last.0)
    };
    assert_eq!(stored_to(&[full.clone()]), Some(5));
    assert_eq!(stored_to(&[full.clone(), log(6, 9)]), Some(9));
    assert_eq!(stored_to(&[full.clone(), log(7, 9)]), Some(5));
    assert_eq!(stored_to(&[log(6, 9)]), None);
}

#[test]
fn circular_logging_leaves_instants() {
    let points = [point(1, 1, 5), point(2, 6, 9)];
    let known = RecoveryWindow::of(db(1), &points, true);
    assert_eq!(spans(&known), [(5, 5), (9, 9)]);
    assert_eq!(whys(&known)[1..], [[Why::CircularLogging], [Why::CircularLogging]]);
    assert!(!known.up_to_the_minute);
    // A point without logs goes nowhere either.
    let mut bare = point(1, 1, 5);
    bare.logs = None;
    assert_eq!(whys(&window(&[bare]))[1], [Why::NoLogs]);
}

#[test]
fn a_window_survives_storage() {
    let known = window(&[point(1, 1, 5), suspect(point(2, 8, 9)), of_stream(point(3, 1, 20), 2)]);
    let json = serde_json::to_string(&known).unwrap();
    assert_eq!(serde_json::from_str::<RecoveryWindow>(&json).unwrap(), known);
    assert!(json.contains(&format!("\"{}\"", known.gaps[1].why[0].word())), "{json}");
}

/// What may become of a backup.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Good,
    Early,
    Suspect,
    Going,
    Reduced,
    LogBackup,
}

/// Backups after so many minutes, each with so many of the last logs, and in the stream of then: the database was restored at
/// the minutes in `forks`.
fn history(backups: &[(u32, u32, Fate)], forks: &[u32]) -> Vec<RestorePoint> {
    let stream = |minute: u32| forks.iter().filter(|fork| **fork < minute).count();
    let make = |(number, (minute, logs, fate)): (usize, &(u32, u32, Fate))| {
        let mine = stream(*minute);
        // Logs of an earlier stream are no part of this one.
        let oldest = (1..=*minute).find(|one| stream(*one) == mine).unwrap();
        let first = minute.saturating_sub(*logs).max(oldest);
        let byte = u8::try_from(mine).unwrap() + 1;
        let mut point = of_stream(point(number as u128 + 1, first, *minute), byte);
        match fate {
            Fate::Good => {}
            Fate::Early => point.state = PointState::Provisional,
            Fate::Suspect => point = suspect(point),
            Fate::Going => point = expiring(point, false),
            Fate::Reduced => point = expiring(point, true),
            Fate::LogBackup => point.kind = BackupKind::Log,
        }
        point
    };
    backups.iter().enumerate().map(make).collect()
}

fn fates() -> impl Strategy<Value = Fate> {
    use Fate::{Early, Going, Good, LogBackup, Reduced, Suspect};
    prop::sample::select(vec![Good, Good, Good, Early, Suspect, Going, Reduced, LogBackup])
}

proptest! {
    #![proptest_config(seed::seeded("a_window_is_what_can_be_replayed"))]

    #[test]
    fn a_window_is_what_can_be_replayed(
        backups in prop::collection::vec((1u32..60, 0u32..8, fates()), 0..14),
        forks in prop::collection::vec(1u32..60, 0..3),
    ) {
        let points = history(&backups, &forks);
        let known = window(&points);
        let signature = |point: &RestorePoint| point.logs.as_ref().unwrap().signature;
        let stored = |stream: LogSignature, generation: u32| {
            let has = |segment: &LogSegment| {
                segment.chain.signature == stream && segment.range.contains(&Generation(generation))
            };
            points.iter().filter_map(LogSegment::of).any(|segment| has(&segment))
        };
        // The slow way: for each minute, from every point that a restore takes, one generation after the other.
        let usable = || points.iter().filter(|point| {
            point.has_database()
                && point.state == PointState::Available
                && !matches!(point.trust, Trust::Suspect { .. })
        });
        for minute in 0..70 {
            let can = usable().any(|point| {
                let from = u32::try_from((point.taken_at - now()).num_minutes()).unwrap();
                from <= minute && (from + 1..=minute).all(|log| stored(signature(point), log))
            });
            prop_assert_eq!(known.contains(at(i64::from(minute))), can, "minute {}", minute);
        }
        // Intervals and gaps take turns, and leave nothing out.
        let mut edge = None;
        let mut gaps = known.gaps.iter();
        for interval in &known.intervals {
            let gap = gaps.next().unwrap();
            prop_assert_eq!((gap.after, gap.before), (edge, Some(interval.from)));
            prop_assert!(interval.from <= interval.until && !interval.points.is_empty());
            edge = Some(interval.until);
        }
        match gaps.next() {
            Some(last) => prop_assert_eq!((last.after, last.before), (edge, None)),
            None => prop_assert!(known.up_to_the_minute),
        }
        prop_assert!(gaps.next().is_none());
        prop_assert!(known.gaps.iter().all(|gap| !gap.why.is_empty()));
        prop_assert!(known.gaps.iter().all(|gap| gap.after.is_none() || gap.after < gap.before
            || gap.before.is_none()));
        // It rests on what the points promise, however the points are given.
        let reversed: Vec<RestorePoint> = points.iter().rev().cloned().collect();
        prop_assert_eq!(&window(&reversed), &known);
        let segments: Vec<LogSegment> = points.iter().filter_map(LogSegment::of).collect();
        let chains = Chains::of(db(1), &segments);
        for point in &points {
            let promise = chains.reach(point, false);
            prop_assert_eq!(&promise, &reach(point, &segments, false));
            if usable().any(|one| one.id == point.id) {
                prop_assert!(known.contains(promise.from) && known.contains(promise.until));
            }
        }
    }
}
