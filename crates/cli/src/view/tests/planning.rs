//! What is planned: inventory, policies, backups and restores before they are done.

use stillpoint::DryRun;

use super::*;

#[test]
fn lint() {
    let (inventory, mut group, mut daily) = (inventory(), group(), policy());
    let mut by_hand = policy();
    (by_hand.id, by_hand.name) = (PolicyId(uuid(31)), "by hand".to_owned());
    by_hand.retention = Retention::default();
    group.policies.push(by_hand.id);
    daily.retention = Retention::count(96);
    let mut placement = PlacementMap::new();
    placement.insert(copy_id(1), CopyPlacement::new(volume(), volume()));
    let mut facts = VolumeFacts::new(volume(), QuiesceLevel::AtRest, None);
    facts.snapshot_limit = NonZeroU32::new(100);
    let volumes = BTreeMap::from([(volume(), facts)]);
    let (groups, policies) = ([group], [daily, by_hand]);
    let strategy = Strategy::new(&groups, &policies, &[], time(0));
    let seen = Seen::new(&inventory, &placement, &volumes);
    let mut inputs = LintInputs::new(strategy);
    inputs.seen = Some(seen);
    let findings = stillpoint::model::strategy::lint(&inputs);
    let report = LintReport::new(time(0), findings, budget(&strategy, &seen));
    let view = LintView::of(&report);
    check("lint", &view);
    assert_eq!(view.exit(), Exit::Failed);
    let nothing = LintView::of(&LintReport::new(time(0), vec![], vec![]));
    check("lint_nothing", &nothing);
    assert_eq!(nothing.exit(), Exit::Done);
}

#[test]
fn discover() {
    check("discover", &DiscoverView::of(Path::new("/srv/mail"), &inventory()));
}

#[test]
fn policies_and_groups() {
    let archive = Policy::new(PolicyId(uuid(31)), "archive");
    let mut grids = Policy::new(PolicyId(uuid(32)), "grids");
    grids.retention.within_days = Some(2);
    grids.retention.gfs = Some(Gfs { hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 1 });
    grids.retention.min_keep = NonZeroU32::new(3).unwrap();
    grids.quiesce.on_miss = OnMiss::Fail;
    check("policy", &PoliciesView::of([&policy(), &archive, &grids]));
    check("group", &GroupsView::of([&group()], &[policy()]));
}

#[test]
fn backup() {
    let (inventory, policy, group) = (inventory(), policy(), group());
    let mut placement = PlacementMap::new();
    for copy in inventory.copies.keys() {
        placement.insert(copy.clone(), CopyPlacement::new(volume(), volume()));
    }
    let plan = plan_backup(&Inputs {
        now: time(0),
        job: JobId(uuid(50)),
        round: 0,
        members: &group.members,
        group: Some(&group),
        policy: &policy,
        kind: None,
        selection: None,
        inventory: &inventory,
        max_inventory_age: None,
        placement: &placement,
        plugin: &PluginCaps::new("files"),
        providers: &BTreeMap::from([(volume().provider, ProviderCaps::new(volume().provider))]),
        volumes: &BTreeMap::from([(
            volume(),
            VolumeFacts::new(volume(), QuiesceLevel::AtRest, None),
        )]),
        fulls: &BTreeMap::new(),
        coalesced: &[],
        under_way: &[],
        reserve: 0,
        state: &[],
    })
    .unwrap();
    check("backup_plan", &BackupView::dry_run(&DryRun::new(plan.clone(), None)));
    let pruned = DryRun::new(plan, Some(keeping::verdicts()));
    check("backup_plan_prune", &BackupView::dry_run(&pruned));
    check("backup_job", &BackupView::job(&job()));
}

#[test]
fn restore() {
    let key = IdempotencyKey::new("cli/2").unwrap();
    let target = RestoreTarget::AlternatePath(path("/srv/restored"));
    let request = RestoreRequest::new(key, PointId(uuid(61)), target);
    let plan = plan_restore(&request, &points()[0]).unwrap();
    check("restore_plan", &RestoreView::of(&plan, None));
    check("restore_job", &RestoreView::of(&plan, Some(&job())));
}
