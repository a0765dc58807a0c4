//! Points that are being deleted: what is decided of them, and what a prune does.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;
use stillpoint_context::{ErrorFacts, HostId, JobId, RunId};
use stillpoint_model::chain::LogSegment;
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{
    CopyId, DatabaseId, HoldName, PointId, PolicyId, SetToken, SnapshotId, SnapshotRef,
};
use stillpoint_model::inventory::{Generation, LogSignature};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{
    MemberRole, NewPoint, PointEvidence, PointFact, PointLogs, PointMember, PointState,
    RestorePoint, Trust,
};
use stillpoint_model::policy::{LogRetention, Policy, Retention};
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::retention::{
    Decisions, Fate, Protected, PruneError, PruneOrder, RetentionInputs, Why, decide,
};
use stillpoint_model::window::RecoveryWindow;
use uuid::Uuid;

use super::world::seed;

const DATABASE: DatabaseId = DatabaseId(Uuid::from_u128(1));

fn day(number: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000 + number)
}

fn id(number: u128) -> PointId {
    PointId(Uuid::from_u128(number))
}

/// A good point of a day with a snapshot for its database and one for its logs, which are of these generations.
fn point(number: u128, logs: RangeInclusive<u32>) -> RestorePoint {
    let evidence = PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase);
    let mut point = RestorePoint::new(NewPoint {
        id: id(number),
        copy: CopyId::new(DATABASE, HostId::new("ex1").unwrap()),
        database_name: "DB".into(),
        kind: BackupKind::FullAndLog,
        taken_at: day(i64::try_from(number).unwrap()),
        job: JobId(Uuid::from_u128(number)),
        run: RunId(Uuid::from_u128(number)),
        set: SetToken::new(format!("set-{number}")).unwrap(),
        evidence,
    });
    point.state = PointState::Available;
    point.policy = Some(policy().reference());
    point.members = [("data", MemberRole::Data), ("logs", MemberRole::Log)]
        .map(|(name, role)| PointMember::new(snapshot(name, number), name, role))
        .into();
    let range = Generation(*logs.start())..=Generation(*logs.end());
    let required = Generation(*logs.end())..=Generation(*logs.end());
    point.logs = Some(PointLogs::new(LogSignature([1; 28]), Some(range), Some(required)));
    point
}

fn snapshot(name: &str, number: u128) -> SnapshotRef {
    let id = SnapshotId::new(format!("{name}-{number}")).unwrap();
    SnapshotRef::new("sim:vol".parse().unwrap(), id)
}

fn policy() -> Policy {
    let mut policy = Policy::new(PolicyId(Uuid::from_u128(1)), "P");
    policy.retention = Retention::count(2);
    policy
}

/// Points of days in a row whose logs follow each other.
fn chain(count: u32) -> Vec<RestorePoint> {
    (1..=count).map(|number| point(u128::from(number), number..=number)).collect()
}

struct Case {
    points: Vec<RestorePoint>,
    policies: Vec<Policy>,
    protected: BTreeMap<PointId, Protected>,
}

impl Case {
    fn new(points: Vec<RestorePoint>) -> Self {
        Self { points, policies: vec![policy()], protected: BTreeMap::new() }
    }

    fn with<T>(&self, ask: impl FnOnce(&RetentionInputs<'_>) -> T) -> T {
        let segments: Vec<LogSegment> = self.points.iter().filter_map(LogSegment::of).collect();
        let mut inputs = RetentionInputs::new(day(1000));
        inputs.points = &self.points;
        inputs.segments = &segments;
        inputs.policies = &self.policies;
        inputs.protected = &self.protected;
        ask(&inputs)
    }

    fn decide(&self) -> Decisions {
        self.with(decide)
    }

    fn order(&self) -> PruneOrder {
        PruneOrder::of(DATABASE, &self.decide(), &self.points, None)
    }

    fn delete(&self, number: u128) -> Result<PruneOrder, PruneError> {
        let wanted = self.points.iter().find(|point| point.id == id(number)).unwrap();
        self.with(|inputs| PruneOrder::of_one(inputs, wanted))
    }

    fn begin(&mut self, number: u128, keeps_logs: bool) {
        let point = self.points.iter_mut().find(|point| point.id == id(number)).unwrap();
        let turn = point.turn();
        let fact = PointFact::Expiring { point: point.id, at: day(999), turn, keeps_logs };
        *point = fact.apply(Some(point.clone())).unwrap().unwrap();
    }

    /// Carries an order out.
    fn carry_out(&mut self, order: &PruneOrder) {
        for (point, going) in &order.points {
            self.begin(point.0.as_u128(), going.keeps_logs);
            let place = self.points.iter().position(|known| known.id == *point).unwrap();
            if going.keeps_logs {
                let turn = self.points[place].turn();
                let fact =
                    PointFact::Reduced { point: *point, at: day(999), turn, manifest_digest: None };
                let known = self.points[place].clone();
                self.points[place] = fact.apply(Some(known)).unwrap().unwrap();
            } else {
                self.points.remove(place);
            }
        }
    }

    fn fates(&self) -> Vec<Fate> {
        self.decide().points.iter().map(|known| known.fate).collect()
    }
}

fn going(order: &PruneOrder) -> Vec<(u128, bool)> {
    order.points.iter().map(|(id, going)| (id.0.as_u128(), going.keeps_logs)).collect()
}

#[test]
fn what_is_being_deleted_counts_for_nothing_and_goes_on() {
    let mut case = Case::new(chain(4));
    assert_eq!(going(&case.order()), [(1, false), (2, false)]);
    case.begin(4, false);
    // The newest is not there any more, so one more of the older ones stays.
    assert_eq!(case.fates(), [Fate::Delete, Fate::Keep, Fate::Keep, Fate::Delete]);
    assert_eq!(case.decide().points[3].reasons, [Why::Expiring]);
    assert_eq!(going(&case.order()), [(1, false), (4, false)]);
    assert!(case.decide().segments.iter().all(|segment| segment.what.0 != id(4).0));
    // Its deletion is gone on with whatever policy is pruned.
    let other = PolicyId(Uuid::from_u128(9));
    let order = PruneOrder::of(DATABASE, &case.decide(), &case.points, Some(other));
    assert_eq!(going(&order), [(4, false)]);
    // Nothing is restored from it, and no window rests on it.
    let window = RecoveryWindow::of(DATABASE, &case.points, false);
    assert!(window.intervals.iter().all(|interval| !interval.points.contains(&id(4))));
}

#[test]
fn logs_outlive_their_database_while_a_point_needs_them() {
    let mut case = Case::new(chain(4));
    case.protected
        .insert(id(1), Protected { holds: ["case".into()].into(), ..Protected::default() });
    let order = case.order();
    assert_eq!(going(&order), [(2, true)]);
    let keys: Vec<String> = order.claims().into_iter().map(|claim| claim.key).collect();
    let point = id(2);
    assert_eq!(
        keys,
        [
            format!("db/{DATABASE}/prune"),
            format!("db/{DATABASE}/point/{point}"),
            "set/set-2".into()
        ]
    );
    case.carry_out(&order);
    let reduced = &case.points[1];
    assert_eq!((reduced.state, reduced.members.len()), (PointState::LogsOnly, 1));
    assert_eq!(reduced.members[0].snapshot, snapshot("logs", 2));
    assert!(!reduced.has_database() && reduced.has_segment());
    // Nothing more to do, until the hold is gone.
    assert!(case.order().is_empty(), "{:?}", case.decide());
    assert_eq!(case.decide().points[1].reasons, [Why::SegmentStays]);
    case.protected.clear();
    assert_eq!(going(&case.order()), [(1, false), (2, false)]);
    assert_eq!(case.order().claims().len(), 7, "the segments, too");
}

#[test]
fn a_point_needs_no_logs_of_others_that_it_has_itself() {
    // As a backup leaves them: the open log, which recovery needs, is no generation yet; the next backup brings it closed.
    let mut case = Case::new(vec![point(1, 1..=5), point(2, 6..=9), point(3, 10..=12)]);
    for (point, last) in case.points.iter_mut().zip([5, 9, 12]) {
        let logs = point.logs.as_mut().unwrap();
        logs.required = Some(Generation(last)..=Generation(last + 1));
    }
    case.policies[0].log_retention = LogRetention::None;
    case.policies[0].retention = Retention::count(1);
    let holds = ["h".to_owned()].into();
    case.protected.insert(id(1), Protected { holds, ..Protected::default() });
    assert_eq!(going(&case.order()), [(2, false)]);
    // One that lacks what it needs has it from another.
    case.points[0].logs.as_mut().unwrap().range = None;
    case.points[0].logs.as_mut().unwrap().required = Some(Generation(6)..=Generation(7));
    assert_eq!(going(&case.order()), [(2, true)]);
    let reasons = &case.decide().segments[0].reasons;
    assert_eq!(reasons, &[Why::Required { point: id(1) }]);
}

#[test]
fn logs_that_bring_nothing_new_go_with_their_point() {
    // A database at rest: each backup brings the same logs once more.
    let mut case = Case::new((1..=5).map(|number| point(number, 3..=8)).collect());
    for point in &mut case.points {
        // Recovery needs fewer than there are.
        point.logs.as_mut().unwrap().required = Some(Generation(6)..=Generation(7));
    }
    assert_eq!(going(&case.order()), [(1, false), (2, false), (3, false)]);
    // The oldest that is held needs none of the copies in between either.
    let holds = ["h".to_owned()].into();
    case.protected.insert(id(1), Protected { holds, ..Protected::default() });
    assert_eq!(going(&case.order()), [(2, false), (3, false)]);
    let order = case.order();
    case.carry_out(&order);
    assert!(case.order().is_empty());
}

#[test]
fn logs_follow_the_fulls_of_the_policy_that_says_so() {
    // Two policies in turn; the one keeps the logs of its own last three fulls, the other those of none.
    let mut case = Case::new(chain(8));
    let mut other = Policy::new(PolicyId(Uuid::from_u128(2)), "Q");
    other.log_retention = LogRetention::None;
    other.retention = Retention::count(1);
    case.policies[0].retention = Retention::count(3);
    case.policies[0].log_retention = LogRetention::FollowFulls(3);
    for point in case.points.iter_mut().step_by(2) {
        point.policy = Some(other.reference());
    }
    case.policies.push(other);
    let decisions = case.decide();
    let kept: Vec<u128> =
        decisions.segments.iter().filter(|s| s.is_kept()).map(|s| s.what.0.as_u128()).collect();
    // Its fulls are 4, 6 and 8, and all logs since the first of them are the bridge, whoever brought them.
    assert_eq!(kept, [4, 5, 6, 7, 8]);
    let by = |number: usize| &decisions.segments[number - 1].reasons;
    assert!(
        by(5).contains(&Why::RollsForward { point: id(4), policy: policy().id }),
        "{:?}",
        by(5)
    );
}

#[test]
fn a_lock_defers_until_it_is_over() {
    let mut case = Case::new(chain(4));
    for (number, until) in [(1, 1002), (2, 1001), (4, 1003)] {
        let locked_until = Some(day(until));
        case.protected.insert(id(number), Protected { locked_until, ..Protected::default() });
    }
    assert_eq!(case.fates(), [Fate::Defer, Fate::Defer, Fate::Keep, Fate::Keep]);
    let decisions = case.decide();
    assert_eq!(decisions.points[0].reasons[0], Why::Locked { until: day(1002) });
    assert_eq!(decisions.points[0].reasons[1], Why::NoRule { policy: policy().id });
    assert_eq!(decisions.next_due(), Some(day(1001)));
    assert!(case.order().is_empty() && decisions.snapshots.is_empty());
    // One that nobody could ask about stays, and is due at no time.
    let unknown = Some("the storage is away".to_owned());
    case.protected.insert(id(1), Protected { unknown, ..Protected::default() });
    assert_eq!(case.fates()[0], Fate::Keep);
}

#[test]
fn what_is_named_is_refused_where_it_must_not_go() {
    let mut case = Case::new(chain(5));
    case.points[2].state = PointState::Provisional;
    case.protected.insert(id(1), Protected { holds: ["a".into()].into(), ..Protected::default() });
    let locked_until = Some(day(1001));
    case.protected.insert(id(2), Protected { locked_until, ..Protected::default() });
    let code = |case: &Case, number| {
        case.delete(number).map(|_| ()).map_err(|error| error.code().to_string())
    };
    assert_eq!(code(&case, 1), Err("prune.held".into()));
    assert_eq!(code(&case, 2), Err("prune.locked".into()));
    assert_eq!(code(&case, 3), Err("prune.not_over".into()));
    assert_eq!(code(&case, 5), Err("prune.last_good".into()));
    // One that a rule keeps may go if somebody says so.
    assert_eq!(going(&case.delete(4).unwrap()), [(4, true)]);
    assert!(case.order().points.is_empty());
    // One that is bad already may go, and then the last good one is another.
    case.points[4].trust = Trust::Suspect { at: day(6), reason: "bad".into(), findings: vec![] };
    assert_eq!(code(&case, 4), Err("prune.last_good".into()));
    assert_eq!(code(&case, 5), Ok(()));
    let part = PruneError::of_part(&snapshot("data", 2), &case.points).unwrap();
    assert_eq!(part.code(), "prune.partial_point");
    assert!(PruneError::of_part(&snapshot("data", 9), &case.points).is_none());
    // Logs alone go only where nobody needs them.
    let order = case.delete(5).unwrap();
    case.carry_out(&order);
    case.protected.clear();
    case.policies[0].retention = Retention::count(9);
    let order = case.delete(2).unwrap();
    assert_eq!(going(&order), [(2, true)]);
    case.carry_out(&order);
    assert_eq!(code(&case, 2), Err("prune.logs_needed".into()));
    case.policies[0].log_retention = LogRetention::None;
    assert_eq!(code(&case, 2), Ok(()));
}

#[test]
fn one_that_is_held_meanwhile_is_in_the_order_to_be_spared() {
    let mut case = Case::new(chain(4));
    case.begin(1, false);
    let holds = Protected { holds: ["a".into()].into(), ..Protected::default() };
    case.protected.insert(id(1), holds);
    assert_eq!(case.fates()[0], Fate::Keep);
    assert!(case.order().points.contains_key(&id(1)));
    assert!(case.points[0].needs(&snapshot("data", 1), true));
    assert!(!case.points[0].needs(&snapshot("data", 1), false));
    let at = day(999);
    let spared = PointFact::Spared { point: id(1), at, turn: case.points[0].turn() };
    let point = spared.apply(Some(case.points[0].clone())).unwrap().unwrap();
    assert_eq!((point.state, point.turn()), (PointState::Available, 2));
    // The intent, told again, does not begin anew.
    let intent = PointFact::Expiring { point: id(1), at, turn: 1, keeps_logs: false };
    assert_eq!(intent.apply(Some(point.clone())), Ok(Some(point)));
}

#[test]
fn a_hold_says_what_it_keeps_and_why() {
    let name = HoldName::new("case-7").unwrap();
    let hold = Hold::new(name, [id(1)].into(), "a case", "legal", day(1));
    assert_eq!(hold.check(), Ok(()));
    assert!(hold.is_on(day(9999)));
    let ended = hold.clone().until(day(2));
    assert!(ended.is_on(day(1)) && !ended.is_on(day(2)));
    let code = |hold: &Hold| hold.check().unwrap_err().code().to_string();
    assert_eq!(code(&hold.clone().until(day(1))), "hold.over");
    let mut bad = hold.clone();
    bad.reason = " ".into();
    assert_eq!(code(&bad), "hold.no_reason");
    bad.points.clear();
    assert_eq!(code(&bad), "hold.empty");
    for bad in ["", "a b", "a/b", "ä", &"x".repeat(101)] {
        assert!(HoldName::new(bad).is_err(), "{bad:?}");
    }
    let json = serde_json::to_string(&hold).unwrap();
    assert_eq!(serde_json::from_str::<Hold>(&json).unwrap(), hold);
}

proptest! {
    #![proptest_config(seed::seeded("a_prune_that_was_cut_short"))]

    /// However a prune is cut short and begun again, it comes to the same, and then there is nothing more to do.
    #[test]
    fn a_prune_that_was_cut_short_comes_to_the_same(
        count in 1_u32..12,
        keep in 1_u32..5,
        held in proptest::collection::btree_set(1_u128..12, 0..3),
        begun in proptest::collection::btree_set(1_u128..12, 0..12),
        logs in prop_oneof![
            Just(LogRetention::AsFulls), Just(LogRetention::None), (1_u32..4).prop_map(LogRetention::FollowFulls)
        ],
    ) {
        let mut case = Case::new(chain(count));
        case.policies[0].retention = Retention::count(keep);
        case.policies[0].log_retention = logs;
        for number in held {
            let holds = ["h".to_owned()].into();
            case.protected.insert(id(number), Protected { holds, ..Protected::default() });
        }
        let mut whole = Case::new(case.points.clone());
        (whole.policies, whole.protected) = (case.policies.clone(), case.protected.clone());
        let order = whole.order();
        whole.carry_out(&order);
        prop_assert!(whole.order().is_empty());
        // Some of it is only begun at first.
        for (point, going) in order.points.iter().filter(|(point, _)| begun.contains(&point.0.as_u128())) {
            case.begin(point.0.as_u128(), going.keeps_logs);
        }
        let rest = case.order();
        prop_assert_eq!(&rest, &order);
        case.carry_out(&rest);
        let shape = |case: &Case| case.points.iter().map(|p| (p.id, p.state, p.members.len())).collect::<Vec<_>>();
        prop_assert_eq!(shape(&case), shape(&whole));
    }
}
