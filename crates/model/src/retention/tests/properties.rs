//! What holds for any points and policies.

use proptest::prelude::*;

use super::history::{any_history, history, log_rules, protected, rules, verification};
use super::*;
use crate::chain::reach;
use crate::point::Expiry;
use crate::seed::seeded;

proptest! {
    #![proptest_config(seeded("retention::tests"))]

    #[test]
    fn whatever_the_rules_are(
        points in history(),
        (first, first_logs) in (rules(), log_rules()),
        (second, second_logs) in (rules(), log_rules()),
        verification in verification(),
        hold in proptest::option::of(0_usize..25),
        wait in 0_i64..5000,
    ) {
        let policies = [
            Policy { retention: first, log_retention: first_logs, verification, ..policy(1) },
            Policy { retention: second, log_retention: second_logs, ..policy(2) },
        ];
        let held = Protected { holds: ["h".to_owned()].into(), ..Protected::default() };
        let protected: BTreeMap<_, _> =
            hold.and_then(|at| points.get(at)).map(|point| (point.id, held)).into_iter().collect();
        let now = epoch() + days(100);
        let run = |points: &[RestorePoint], segments: &[LogSegment], now| decide(&RetentionInputs {
            points, segments, policies: &policies, protected: &protected, ..RetentionInputs::new(now)
        });
        let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
        let decisions = run(&points, &segments, now);

        // One verdict for each, with a reason.
        prop_assert!(decisions.points.iter().map(|d| d.what).eq(points.iter().map(|p| p.id)));
        prop_assert!(decisions.segments.iter().map(|d| d.what).eq(segments.iter().map(|s| s.id)));
        prop_assert!(decisions.points.iter().all(|d| !d.reasons.is_empty()));
        prop_assert!(decisions.segments.iter().all(|d| !d.reasons.is_empty()));

        // Waiting loses nothing.
        prop_assert_eq!(&run(&points, &segments, now + days(wait)), &decisions);

        // Good ones stay: the newest, and as many as each policy says.
        let stays: BTreeSet<_> = decisions.points.iter().filter(|d| d.is_kept()).map(|d| d.what).collect();
        let is_good = |p: &&RestorePoint| p.has_database() && p.state == PointState::Available
            && !matches!(p.trust, Trust::Suspect { .. });
        if let Some(newest) = points.iter().rfind(is_good) {
            prop_assert!(stays.contains(&newest.id));
        }
        for policy in &policies {
            let of_policy = |p: &&RestorePoint| p.policy.as_ref().is_some_and(|made| made.id == policy.id);
            let good: Vec<_> = points.iter().filter(is_good).filter(of_policy).collect();
            let least = good.len().min(policy.retention.min_keep.get() as usize);
            prop_assert!(good.iter().filter(|p| stays.contains(&p.id)).count() >= least);
        }
        for point in protected.keys() {
            prop_assert!(stays.contains(point));
        }

        // What stays has the logs that it needs, and no snapshot of it goes.
        let logs: BTreeSet<_> = decisions.segments.iter().filter(|d| d.is_kept()).map(|d| d.what).collect();
        for point in points.iter().filter(|p| stays.contains(&p.id)) {
            prop_assert!(point.members.iter().all(|m| !decisions.snapshots.contains(&m.snapshot)));
            let Some(required) = point.logs.as_ref().and_then(|l| l.required.clone()) else { continue };
            for generation in required.start().0..=required.end().0 {
                let has = |s: &&LogSegment| s.range.contains(&Generation(generation)) && logs.contains(&s.id);
                prop_assert!(segments.iter().any(|s| has(&s)), "{generation}");
            }
        }

        // Once carried out there is nothing more to do, and where logs stay as fulls do, each point reaches as far as before.
        let left: Vec<_> = points.iter().filter(|p| stays.contains(&p.id)).cloned().collect();
        let left_segments: Vec<_> = segments.iter().filter(|s| logs.contains(&s.id)).cloned().collect();
        let again = run(&left, &left_segments, now);
        prop_assert!(again.points.iter().all(Decision::is_kept), "{:?}", again);
        prop_assert!(again.snapshots.is_empty());
        if policies.iter().any(|p| p.log_retention == LogRetention::AsFulls) {
            for point in left.iter().filter(|p| p.has_database()) {
                let (before, after) = (reach(point, &segments, false), reach(point, &left_segments, false));
                prop_assert_eq!((before.until, before.last), (after.until, after.last));
            }
        }
    }

    /// Whatever a prune of one policy's points deletes, those that it leaves go as far as before, where logs stay as fulls do.
    #[test]
    fn a_prune_of_one_policy_shortens_no_point_that_it_leaves(
        points in history(),
        rules in proptest::collection::vec((rules(), verification()), 1..4),
        protected in protected(),
        which in 1_u128..4,
    ) {
        let mut policies: Vec<_> = rules
            .into_iter()
            .zip(1..)
            .map(|((retention, verification), id)| Policy { retention, verification, ..policy(id) })
            .collect();
        policies[0].log_retention = LogRetention::AsFulls;
        let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
        let inputs = RetentionInputs {
            points: &points,
            segments: &segments,
            policies: &policies,
            protected: &protected,
            ..RetentionInputs::new(epoch() + days(100))
        };
        let id = PolicyId(Uuid::from_u128(which));
        let order = PruneOrder::of(DATABASE, &decide_for(&inputs, Some(id)), &points, Some(id));
        let mut left = points.clone();
        for point in &mut left {
            if let Some(going) = order.points.get(&point.id) {
                point.state = PointState::Expiring;
                let (turn, since, keeps_logs) = (1, inputs.now, going.keeps_logs);
                let from = PointState::Available;
                point.expiry = Some(Expiry { turn, since, from, keeps_logs, is_over: false });
            }
        }
        let left_segments: Vec<_> = left.iter().filter_map(LogSegment::of).collect();
        for (before, after) in points.iter().zip(&left) {
            if before.state == PointState::Expiring {
                continue;
            }
            let theirs = before.policy.as_ref().is_none_or(|made| made.id != id);
            prop_assert!(!theirs || !order.points.contains_key(&before.id), "{before:?}");
            if after.has_database() {
                let (now, then) = (reach(before, &segments, false), reach(after, &left_segments, false));
                prop_assert_eq!((now.until, now.last), (then.until, then.last));
            }
        }
    }

    /// Every verdict with every reason, and every snapshot.
    #[test]
    fn decisions_are_those_of_a_look_at_each_point_by_itself(
        points in any_history(),
        rules in proptest::collection::vec(
            (proptest::option::of(rules()), log_rules(), verification()),
            0..3,
        ),
        protected in protected(),
        zone in prop_oneof![Just("UTC"), Just("Australia/Lord_Howe"), Just("Europe/Berlin")],
    ) {
        let policies: Vec<_> = rules
            .into_iter()
            .zip(1..)
            .map(|((retention, log_retention, verification), id)| Policy {
                retention: retention.unwrap_or_default(),
                log_retention,
                verification,
                ..policy(id)
            })
            .collect();
        let segments: Vec<_> = points.iter().filter_map(LogSegment::of).collect();
        let inputs = RetentionInputs {
            points: &points,
            segments: &segments,
            policies: &policies,
            protected: &protected,
            zone: zone.parse().unwrap(),
            now: epoch() + days(100),
        };
        prop_assert_eq!(decide(&inputs), naive::decide(&inputs));
    }
}
