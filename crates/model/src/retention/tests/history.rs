//! Random points and policies.

use proptest::prelude::*;

use super::*;
use crate::point::{Loss, PointFact};
use crate::policy::Verification;

pub(super) fn rules() -> impl Strategy<Value = Retention> {
    let count = proptest::option::of(1_u32..6);
    let within = proptest::option::of(1_u32..20);
    let gfs = proptest::option::of((0_u32..3, 0_u32..3, 0_u32..3, 0_u32..3, 0_u32..3));
    (count, within, gfs, 1_u32..4).prop_map(|(count, within_days, gfs, least)| Retention {
        count,
        within_days,
        gfs: gfs.map(|(hourly, daily, weekly, monthly, yearly)| Gfs {
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        }),
        min_keep: NonZeroU32::new(least).unwrap(),
    })
}

pub(super) fn log_rules() -> impl Strategy<Value = LogRetention> {
    prop_oneof![
        Just(LogRetention::AsFulls),
        Just(LogRetention::None),
        (1_u32..4).prop_map(LogRetention::FollowFulls),
        (1_u32..10).prop_map(LogRetention::Days),
    ]
}

pub(super) fn verification() -> impl Strategy<Value = Verification> {
    prop_oneof![Just(Verification::AfterCompletion), Just(Verification::default())]
}

/// Points in order of time, of two policies and of none, some suspect, some not over, with logs that go on or have gaps.
pub(super) fn history() -> impl Strategy<Value = Vec<RestorePoint>> {
    let one = (1_i64..60, 0_u8..10, 0_u32..3, 0_u8..12, 0_u128..4);
    proptest::collection::vec(one, 0..25).prop_map(|all| {
        let (mut hours, mut generation) = (0, 1);
        all.into_iter()
            .zip(1..)
            .map(|((pause, kind, gap, state, made_under), id)| {
                hours += pause;
                generation += gap / 2;
                let range = generation..=generation + 1;
                generation += 2;
                let mut point = if kind < 4 {
                    log(id, hours, range)
                } else {
                    with_logs(point(id, hours), range)
                };
                point.policy = (made_under > 0).then(|| policy(made_under.div_ceil(2)).reference());
                match state {
                    0 => point.state = PointState::Provisional,
                    1 | 2 => {
                        point.trust =
                            Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] }
                    }
                    3 => point.trust = Trust::Verified { at: later() },
                    _ => {}
                }
                point
            })
            .collect()
    })
}

/// One point of [`any_history`]: hours since the one before (and 20), kind, generations left out, state, policy, stream, and what of its
/// logs it needs.
type Wild = (i64, u8, u32, u8, u128, u8, u8);

/// Points as no orderly backup leaves them: in any order, several at one instant, of several streams, missing, half deleted,
/// from the future, with logs that come again or that they need and lack.
pub(super) fn any_history() -> impl Strategy<Value = Vec<RestorePoint>> {
    let one = (0_i64..80, 0_u8..10, 0_u32..5, 0_u8..16, 0_u128..8, 1_u8..6, 0_u8..8);
    let ordered = proptest::collection::vec(one, 0..25).prop_map(|all: Vec<Wild>| {
        let (mut hours, mut generation) = (0, 1_u32);
        let mut points = Vec::new();
        for ((pause, kind, gap, state, made_under, stream, needs), id) in all.into_iter().zip(1..) {
            // Many at one instant.
            hours += (pause - 20).max(0);
            let range = match gap {
                0 => generation.saturating_sub(3).max(1)..=generation + 1,
                1 => generation.saturating_sub(4).max(1)..=generation.saturating_sub(2).max(1),
                _ => generation + gap / 4..=generation + gap / 4 + 1,
            };
            generation = generation.max(*range.end() + 1);
            let mut point =
                if kind < 5 { log(id, hours, range) } else { with_logs(point(id, hours), range) };
            point.policy = (made_under > 0).then(|| policy(made_under.div_ceil(3)).reference());
            if let Some(logs) = &mut point.logs {
                logs.signature = signature(stream / 4);
                logs.branch = u32::from(stream % 4 == 1);
                let (first, last) = (generation.saturating_sub(6).max(1), generation + 1);
                match needs {
                    0 => logs.required = None,
                    1 => (logs.range, logs.required) = (None, None),
                    2 => logs.range = None,
                    3 => logs.required = Some(Generation(first)..=Generation(last)),
                    _ => {}
                }
            }
            if needs == 7 {
                point.logs = None;
            }
            put_into(state, &mut point, hours);
            points.push(point);
        }
        points
    });
    ordered.prop_shuffle()
}

fn expiring(point: &RestorePoint, keeps_logs: bool) -> RestorePoint {
    let fact = PointFact::Expiring { point: point.id, at: later(), turn: 1, keeps_logs };
    fact.apply(Some(point.clone())).unwrap().unwrap()
}

fn put_into(state: u8, point: &mut RestorePoint, hours: i64) {
    match state {
        0 => point.state = PointState::Provisional,
        1 | 2 => {
            point.trust = Trust::Suspect { at: later(), reason: "bad".into(), findings: vec![] };
        }
        3 => *point = expiring(point, hours % 2 == 0),
        4 => {
            let fact =
                PointFact::Reduced { point: point.id, at: later(), turn: 1, manifest_digest: None };
            *point = fact.apply(Some(expiring(point, true))).unwrap().unwrap();
        }
        5 => {
            let lost = [point.members[0].snapshot.clone()].into();
            point.loss = Some(Loss { at: later(), since: later(), lost });
        }
        // A snapshot of several points.
        6 | 7 => {
            let shared = SnapshotId::new("shared").unwrap();
            point.members[0].snapshot.id = shared;
        }
        8 => point.taken_at += days(200),
        9 => point.trust = Trust::Verified { at: later() },
        _ => {}
    }
}

/// What keeps some of so many points whatever the rules say.
pub(super) fn protected() -> impl Strategy<Value = BTreeMap<PointId, Protected>> {
    let one = (1_u128..25, 0_u8..3, -2_i64..3);
    proptest::collection::vec(one, 0..5).prop_map(|all| {
        let one = |(point, kind, until)| {
            let mut protected = Protected::default();
            match kind {
                0 => protected.holds = ["a".to_owned(), "b".to_owned()].into(),
                1 => protected.unknown = Some("away".into()),
                _ => protected.locked_until = Some(epoch() + days(100 + until)),
            }
            (PointId(Uuid::from_u128(point)), protected)
        };
        all.into_iter().map(one).collect()
    })
}
