//! What is kept: points, windows, verdicts, holds, the comparison with storage.

use super::*;

#[test]
fn topology() {
    check("topology", &TopologyView::of(&Topology::of(Some(&inventory()), &points())));
    check("topology_of_catalog", &TopologyView::of(&Topology::of(None, &points())));
}

#[test]
fn windows() {
    // A stretch of logs, a suspect point, logs that are missing, and another stream.
    let mut points = vec![point(61, 0, Trust::Unverified), point(62, 60, Trust::Unverified)];
    points.extend([point(63, 120, damage()), point(64, 180, Trust::Unverified)]);
    for (point, (first, last)) in points.iter_mut().zip([(3, 8), (9, 12), (1, 2), (20, 21)]) {
        let logs = point.logs.as_mut().unwrap();
        logs.range = Some(Generation(first)..=Generation(last));
        logs.required = Some(Generation(last)..=Generation(last));
    }
    points[2].logs = None;
    let topology = Topology::of(Some(&inventory()), &points);
    check("windows", &WindowsView::of(&topology, None));
    points[3].logs.as_mut().unwrap().signature = LogSignature([8; 28]);
    let topology = Topology::of(Some(&inventory()), &points[..]);
    check("windows_of_one", &WindowsView::of(&topology, Some(DatabaseId(uuid(1)))));
}

#[test]
fn verify() {
    let topology = Topology::of(None, &points());
    let checked = PointView::some(&topology, &[PointId(uuid(62))]);
    check("verify", &VerifyView::of(&job(), checked));
}

#[test]
fn prune() {
    let table = verdicts();
    check("prune_plan", &PruneView::of(&table, None));
    check("prune_job", &PruneView::of(&table, Some(&job())));
}

pub(super) fn verdicts() -> RetentionTable {
    // Two that the rules let go, of which the storage has locked one, one that is held, one on its way, and those that stay.
    let mut points: Vec<RestorePoint> = (61..67)
        .map(|number| point(number, 60 * (i64::try_from(number).unwrap() - 60), Trust::Unverified))
        .collect();
    let mut policy = policy();
    policy.retention = Retention::count(2);
    for point in &mut points {
        point.kind = BackupKind::FullAndLog;
        point.policy = Some(policy.reference());
    }
    let expiring =
        PointFact::Expiring { point: points[2].id, at: time(400), turn: 1, keeps_logs: false };
    points[2] = expiring.apply(Some(points[2].clone())).unwrap().unwrap();
    points[1].policy = None;
    let locked = Protected { locked_until: Some(time(10_000)), ..Protected::default() };
    let held = Protected { holds: ["case-7".to_owned()].into(), ..Protected::default() };
    let protected = BTreeMap::from([(points[0].id, locked), (points[1].id, held)]);
    let segments: Vec<LogSegment> = points.iter().filter_map(LogSegment::of).collect();
    let policies = [policy];
    let mut inputs = RetentionInputs::new(time(500));
    inputs.points = &points;
    inputs.segments = &segments;
    inputs.policies = &policies;
    inputs.protected = &protected;
    let known = DatabaseRetention::of(DatabaseId(uuid(1)), "DB01", &inputs);
    let names = BTreeMap::from([(policies[0].id, policies[0].name.clone())]);
    RetentionTable::new(time(500), vec![known], names)
}

#[test]
fn reconcile() {
    let set = |number| SetToken::of(&RunId(uuid(51)), PointId(uuid(number)));
    let at = |name: &str| SnapshotRef::new(volume(), SnapshotId::new(name).unwrap());
    let lost = BTreeSet::from([at("sp-61")]);
    let mut known: Vec<KnownPoint> =
        (61..64).map(|number| KnownPoint::of(&point(number, 60, Trust::Unverified))).collect();
    for (known, name) in known.iter_mut().zip(["sp-61", "sp-62", "sp-63"]) {
        known.members = [at(name)].into();
    }
    known[2].state = PointState::Expiring;
    let mut sight = Sight::at(time(500), Some(TimeDelta::days(7)));
    sight.seen = [volume()].into();
    let adopted = point(64, 60, Trust::Unverified);
    let mut found = KnownPoint::of(&adopted);
    found.members = [at("sp-64")].into();
    sight.snapshots = vec![
        (at("sp-62"), Some(known[1].set.clone())),
        (at("sp-64"), Some(found.set.clone())),
        (at("sp-65"), Some(set(65))),
        (at("theirs"), None),
    ];
    let mut removed = KnownPoint::of(&point(67, 60, Trust::Unverified));
    removed.members = [at("sp-67")].into();
    sight.snapshots.push((at("sp-67"), Some(removed.set.clone())));
    sight.removed = [removed.point].into();
    sight.manifests = vec![
        FoundManifest::new(found.point, Ok(found)),
        FoundManifest::new(removed.point, Ok(removed)),
        FoundManifest::new(PointId(uuid(66)), Err("it ends too early".to_owned())),
    ];
    sight.noted = [(set(65), time(100))].into();
    sight.points = known;
    let comparison = Comparison::of(&sight);
    let marks = comparison.acts().into_values().flatten();
    assert!(
        marks
            .into_iter()
            .any(|act| act == Act::Mark { point: PointId(uuid(61)), lost: lost.clone() })
    );
    let limits = vec!["volume fs:/srv/old: it does not answer".to_owned()];
    let report = ReconcileReport::new(time(500), comparison, limits);
    check("reconcile", &ReconcileView::of(&report, None));
    check("reconcile_job", &ReconcileView::of(&report, Some(&job())));
    let clean = ReconcileReport::new(time(500), Comparison::default(), Vec::new());
    check("reconcile_clean", &ReconcileView::of(&clean, None));
}

#[test]
fn rebuild() {
    let mut rebuilt = Rebuilt::default();
    rebuilt.points = [PointId(uuid(61)), PointId(uuid(62))].into();
    rebuilt.known = 3;
    rebuilt.holds = [HoldName::new("case-7").unwrap()].into();
    rebuilt.forks = [RunId(uuid(70))].into();
    rebuilt.clock = Some(time(10));
    rebuilt.skipped = vec!["the manifest of 63: it ends too early".to_owned()];
    check("rebuild", &RebuildView::of(&rebuilt));
    check("catalogue", &BackedUpView::of(Path::new("/srv/copy.db"), 4096));
    let mut options = ForgetOptions::before(time(10));
    check("forget", &ForgottenView::of(1, &options));
    options.dry_run = true;
    check("forget_plan", &ForgottenView::of(20, &options));
}

#[test]
fn a_missing_point_is_told_of() {
    let mut points = points();
    let lost = points[0].members.iter().map(|member| member.snapshot.clone()).collect();
    let missing = PointFact::Missing { point: points[0].id, at: time(90), lost };
    points[0] = missing.apply(Some(points[0].clone())).unwrap().unwrap();
    assert!(points[0].is_missing(), "{:?}", points[0].members);
    check("topology_missing", &TopologyView::of(&Topology::of(None, &points)));
}

#[test]
fn holds() {
    let hold = |name: &str, points: &[u128]| {
        let points = points.iter().map(|number| PointId(uuid(*number))).collect();
        Hold::new(HoldName::new(name).unwrap(), points, "a case", "legal", time(0))
    };
    let holds = [hold("audit", &[61]).until(time(10)), hold("case-7", &[61, 62]).until(time(1000))];
    check("hold", &HoldsView::of(&holds, time(100)));
    check("hold_dry_run", &HoldsView::of_dry_run(&holds[1], time(100)));
}
