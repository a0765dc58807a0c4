//! Planning, scenario by scenario.

use std::time::Duration;

use chrono::TimeDelta;
use stillpoint_context::{ErrorFacts, JobId};
use stillpoint_model::capability::{Coordination, ProviderCoordination};
use stillpoint_model::group::Selector;
use stillpoint_model::id::{DagId, ProviderId};
use stillpoint_model::inventory::{
    CopyRole, CopyStatus, Dag, HostState, LogSignature, LogState, WriterState,
};
use stillpoint_model::job::Elsewhere;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{BackupPlan, BaseFull, Claim, Decision, LeftWhy};
use stillpoint_model::point::MemberRole;
use stillpoint_model::policy::{CopySelection, MultipleTruncating};
use stillpoint_model::quiesce::{Consistency, QuiesceLevel};
use uuid::Uuid;

use super::world::{World, codes, db, host, now, refusals, taken, volume};

use CopyRole::{Active, Passive};

#[test]
fn one_snapshot_a_volume_and_truncation_is_said() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:l1");
    world.copy(2, "ex1", Active, "sim:both", "sim:both");
    let plan = world.plan();
    assert_eq!(plan.sets.len(), 1);
    let roles: Vec<_> =
        plan.sets[0].snapshots.iter().map(|s| (s.volume.to_string(), s.role)).collect();
    assert_eq!(
        roles,
        [
            ("sim:both".into(), MemberRole::DataAndLog),
            ("sim:d1".into(), MemberRole::Data),
            ("sim:l1".into(), MemberRole::Log),
        ]
    );
    assert!(plan.truncates());
    let text = plan.to_string();
    assert!(text.contains("this will truncate"), "{text}");
    assert!(text.contains("claim host/ex1/freeze exclusive until the thaw"), "{text}");
    assert!(text.contains("cutoff 8s"), "{text}");
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<BackupPlan>(&json).unwrap(), plan);
    // The token is found again in run and first point.
    let set = &plan.sets[0];
    assert_eq!(set.token.parts(), Some((set.run, set.members[0].point)));
}

#[test]
fn a_set_without_some_copies_needs_less() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:shared");
    world.copy(2, "ex1", Active, "sim:d2", "sim:shared");
    let plan = world.plan();
    let set = &plan.sets[0];
    assert_eq!(set.without(&[].into()), Some(set.clone()));
    let first = set.members[0].copy.clone();
    let rest = set.without(&[first.clone()].into()).unwrap();
    assert!(rest.members.iter().all(|member| member.copy != first));
    let volumes: Vec<_> = rest.snapshots.iter().map(|shot| shot.volume.to_string()).collect();
    assert_eq!(volumes, ["sim:d2", "sim:shared"]);
    let gone: Vec<_> = set.claims.iter().filter(|claim| !rest.claims.contains(claim)).collect();
    assert_eq!(gone, [&Claim::live(first.database), &Claim::volume(&"sim:d1".parse().unwrap())]);
    let all = set.members.iter().map(|member| member.copy.clone()).collect();
    assert_eq!(set.without(&all), None);
}

#[test]
fn a_copy_backup_truncates_nothing_and_says_so() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:l1");
    world.policy.kind = BackupKind::Copy;
    let plan = world.plan();
    assert!(!plan.truncates());
    assert!(plan.to_string().contains("this will not truncate any log"));
}

#[test]
fn active_and_passive_on_one_volume_are_refused_and_the_others_go_on() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:shared", "sim:l1");
    world.copy(1, "ex2", Passive, "sim:d2", "sim:shared");
    world.copy(2, "ex1", Active, "sim:d3", "sim:l3");
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"]);
    let (_, failure) = plan.refused().next().unwrap();
    assert_eq!(failure.code, "placement.active_passive_share_volume");
    let subjects: Vec<String> = failure.subjects.iter().map(|s| s.id.clone()).collect();
    assert_eq!(subjects, [db(1).to_string().as_str(), "sim:shared", "ex1", "ex2"]);
    for name in ["ex1", "ex2", "sim:shared"] {
        assert!(failure.message.contains(name), "{}", failure.message);
    }
    assert!(plan.copies().filter(|c| c.copy.database == db(1)).all(|c| !c.is_taken()));
}

#[test]
fn several_databases_on_a_volume_are_worth_a_warning() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d", "sim:l1");
    world.copy(2, "ex1", Active, "sim:d", "sim:l2");
    assert!(!codes(&world.plan()).contains("placement.blast_radius"), "restored by clone");
    world.providers.values_mut().for_each(|caps| caps.revert = true);
    let plan = world.plan();
    assert!(codes(&plan).contains("placement.blast_radius"));
    assert_eq!(plan.sets.len(), 1);
    assert_eq!(plan.sets[0].snapshots.len(), 3);
}

#[test]
fn forty_seven_databases_make_two_sets() {
    let mut world = World::new();
    for number in 1..=47 {
        world.copy(number, "ex1", Active, &format!("sim:v{number}"), &format!("sim:v{number}"));
    }
    let plan = world.plan();
    let sizes: Vec<usize> = plan.sets.iter().map(|set| set.members.len()).collect();
    assert_eq!(sizes, [30, 17]);
    assert_ne!(plan.sets[0].run, plan.sets[1].run);
    assert_ne!(plan.sets[0].snapshots[0].name, plan.sets[1].snapshots[0].name);

    // All on one volume: the limit of databases still cuts, and the volume gets two snapshots.
    let mut world = World::new();
    for number in 1..=47 {
        world.copy(number, "ex1", Active, "sim:v", "sim:v");
    }
    let plan = world.plan();
    assert_eq!(plan.sets.len(), 2);
    assert_eq!((plan.budgets.len(), plan.budgets[0].makes), (1, 2));
}

#[test]
fn a_database_too_big_for_a_set_is_refused_alone() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:l1");
    world.copy(2, "ex1", Active, "sim:v", "sim:v");
    world.plugin.max_volumes = std::num::NonZeroU32::new(1);
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"]);
    assert_eq!(refusals(&plan)["DB01"], "plan.database_too_big");
}

#[test]
fn passive_copies_are_preferred_by_their_likelihood_to_stay_passive() {
    let mut world = World::new();
    world.policy.selection = CopySelection::prefer_passive();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    for (on, preference) in [("ex2", 2), ("ex3", 4), ("ex4", 3)] {
        let copy = world.copy(1, on, Passive, &format!("sim:{on}"), &format!("sim:{on}"));
        world.preference(&copy, preference);
    }
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex3 full_and_log"]);
    let left: Vec<String> =
        plan.copies().filter(|c| !c.is_taken()).map(|c| c.decision.code()).collect();
    assert_eq!(left, ["copy.another_preferred"; 3]);
}

#[test]
fn lagged_and_late_copies_fall_back_to_the_active_one() {
    let mut world = World::new();
    world.policy.selection = CopySelection::prefer_passive();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    let lagged = world.copy(1, "ex2", Passive, "sim:b", "sim:b");
    world.edit(&lagged, |copy| copy.replay_lag = Duration::from_hours(7 * 24));
    let behind = world.copy(1, "ex3", Passive, "sim:c", "sim:c");
    world.edit(&behind, |copy| copy.replay_queue = Some(5000));
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log"]);
    let text = plan.to_string();
    assert!(text.contains("delayed by 168 h"), "{text}");
    assert!(text.contains("5000 logs behind"), "{text}");
    assert!(text.contains("no passive copy is fit"), "{text}");

    world.policy.selection = CopySelection::PreferPassive {
        exclude_lagged: true,
        max_replay_queue: Some(10),
        fallback_active: false,
    };
    assert_eq!(refusals(&world.plan())["DB01"], "copy.none_wanted");
}

#[test]
fn of_two_truncating_copies_one_becomes_a_copy_backup() {
    let mut world = World::new();
    world.policy.selection = CopySelection::OnHosts { hosts: vec![host("ex1"), host("ex2")] };
    world.copy(1, "ex1", Passive, "sim:a", "sim:a");
    world.copy(1, "ex2", Active, "sim:b", "sim:b");
    world.copy(1, "ex3", Passive, "sim:c", "sim:c");
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 copy", "DB01@ex2 full_and_log"]);
    assert!(plan.to_string().contains("only the copy on ex2 truncates"));

    world.policy.multiple_truncating = MultipleTruncating::Refuse;
    let plan = world.plan();
    assert!(plan.is_empty());
    assert_eq!(refusals(&plan)["DB01"], "copy.multiple_truncating");
}

#[test]
fn a_suspended_copy_is_warned_of_and_not_taken() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    let copy = world.copy(1, "ex2", Passive, "sim:b", "sim:b");
    world.edit(&copy, |copy| copy.status = CopyStatus::Suspended);
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log"]);
    assert!(codes(&plan).contains("truncation.blocked"));
}

#[test]
fn foreign_storage_under_the_active_copy_proposes_the_passive_one() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "foreign:a", "foreign:a");
    world.copy(1, "ex2", Passive, "sim:b", "sim:b");
    world.copy(2, "ex1", Active, "sim:c", "sim:c");
    let plan = world.plan();
    let (database, failure) = plan.refused().next().unwrap();
    assert_eq!(
        (database.name.as_str(), failure.code.as_str()),
        ("DB01", "copy.unsupported_storage")
    );
    assert!(failure.remedy.contains("prefer passive"), "{}", failure.remedy);
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"]);
}

#[test]
fn servers_in_trouble_are_skipped_with_their_reasons() {
    let mut world = World::new();
    for (number, on) in [(1, "ex1"), (2, "ex2"), (3, "ex3"), (4, "ex4"), (5, "ex5")] {
        world.copy(number, on, Active, &format!("sim:{on}"), &format!("sim:{on}"));
    }
    let mut edit = |on: &str, state: HostState, writer: WriterState| {
        let host = world.inventory.hosts.get_mut(&host(on)).unwrap();
        (host.state, host.writer) = (state, writer);
    };
    edit("ex1", HostState::Offline, WriterState::Stable);
    edit(
        "ex2",
        HostState::Maintenance { reason: "patch day".into(), until: None },
        WriterState::Stable,
    );
    edit("ex3", HostState::Online, WriterState::Missing);
    edit("ex4", HostState::Online, WriterState::Failed { phase: "FailedAtFreeze".into() });
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB05@ex5 full_and_log"]);
    let codes: Vec<String> =
        plan.copies().filter(|c| !c.is_taken()).map(|c| c.decision.code()).collect();
    assert_eq!(codes, ["host.offline", "host.maintenance", "writer.missing", "writer.failed"]);
    assert!(refusals(&plan).values().all(|code| code == "resource.not_available"));
    assert!(plan.to_string().contains("patch day"));
}

#[test]
fn the_mode_is_what_both_sides_can_and_the_engines_if_there_is_a_choice() {
    use Coordination::{Engine, Plugin};
    let mut world = World::new();
    world.provider("array", [ProviderCoordination::Adopt]);
    world.provider("both", [ProviderCoordination::Adopt, ProviderCoordination::Commit]);
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    world.copy(2, "ex1", Active, "array:a", "array:a");
    world.copy(3, "ex1", Active, "both:a", "both:a");
    world.copy(4, "ex1", Active, "sim:b", "array:b");
    world.coordinate([Engine, Plugin]);
    let plan = world.plan();
    let modes: Vec<_> = plan
        .sets
        .iter()
        .map(|set| {
            (set.coordination, set.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(modes, [(Some(Engine), vec!["DB01", "DB03"]), (Some(Plugin), vec!["DB02"])]);
    assert_eq!(refusals(&plan)["DB04"], "plan.no_common_coordination");

    world.coordinate([Plugin]);
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log", "DB03@ex1 full_and_log"]);
}

#[test]
fn a_freeze_that_is_not_enough_is_refused_before_it_begins() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:raw", "sim:raw");
    world.copy(2, "ex1", Active, "sim:slow", "sim:slow");
    world.provider("copier", [ProviderCoordination::Commit]);
    world.providers.get_mut(&"copier".parse::<ProviderId>().unwrap()).unwrap().instant = false;
    world.copy(3, "ex1", Active, "copier:mail", "copier:mail");
    world.copy(4, "ex1", Active, "sim:good", "sim:good");
    world.volumes.get_mut(&volume("sim:raw")).unwrap().needs = QuiesceLevel::AppIoHeld;
    world.volumes.get_mut(&volume("sim:slow")).unwrap().worst_commit = Some(Duration::from_secs(9));
    world.volumes.get_mut(&volume("copier:mail")).unwrap().worst_commit = None;
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB04@ex1 full_and_log"]);
    let codes = refusals(&plan);
    assert_eq!(codes["DB01"], "quiesce.level_too_low");
    assert_eq!(codes["DB02"], "quiesce.worst_case_too_long");
    assert_eq!(codes["DB03"], "quiesce.worst_case_too_long");

    world.policy.quiesce.limit = Some(Duration::from_secs(30));
    assert_eq!(world.try_plan().unwrap_err().code(), "quiesce.deadline_too_long");
}

#[test]
fn a_freeze_never_blocks_the_volume_of_the_state() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:data", "sim:logs");
    world.copy(2, "ex1", Active, "sim:other", "sim:other");
    world.state = vec![volume("sim:logs")];
    let both = ["DB01@ex1 full_and_log", "DB02@ex1 full_and_log"];
    for level in [QuiesceLevel::AppFsFlushed, QuiesceLevel::AppIoHeld] {
        world.plugin.quiesce = level;
        let plan = world.plan();
        assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"], "{level}");
        assert_eq!(refusals(&plan)["DB01"], "state.on_protected_volume");
    }
    // One that holds only the writes of Exchange blocks nobody else's.
    world.plugin.quiesce = QuiesceLevel::App;
    assert_eq!(taken(&world.plan()), both);
    world.plugin.quiesce = QuiesceLevel::AppIoHeld;
    world.state = vec![volume("sim:elsewhere")];
    assert_eq!(taken(&world.plan()), both);
}

/// A clone of a file takes an instant, but only a trial in `prepare` tells how long that is.
#[test]
fn an_instant_snapshot_whose_worst_case_only_a_trial_tells_is_planned_under_a_limit() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:clone", "sim:clone");
    world.copy(2, "ex1", Active, "sim:known", "sim:known");
    world.volumes.get_mut(&volume("sim:clone")).unwrap().worst_commit = None;
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log", "DB02@ex1 full_and_log"]);
    let freeze = plan.sets[0].freeze.unwrap();
    assert!(freeze.limit.is_some());
    assert_eq!(freeze.worst_case, None, "what is unknown of one volume is unknown of the set");

    // A worst case that is known counts for an instant provider too.
    world.volumes.get_mut(&volume("sim:clone")).unwrap().worst_commit =
        Some(Duration::from_secs(9));
    assert_eq!(refusals(&world.plan())["DB01"], "quiesce.worst_case_too_long");
}

#[test]
fn data_at_rest_has_no_limit_and_no_application_consistency() {
    let mut world = World::new();
    let copy = world.copy(1, "ex1", Active, "sim:a", "sim:a");
    world.edit(&copy, |copy| copy.status = CopyStatus::AtRest);
    world.plugin.quiesce = QuiesceLevel::AtRest;
    (world.plugin.freeze_limit, world.plugin.hold_limit) = (None, None);
    let facts = world.volumes.get_mut(&volume("sim:a")).unwrap();
    (facts.needs, facts.worst_commit) = (QuiesceLevel::AtRest, None);
    let plan = world.plan();
    let freeze = plan.sets[0].freeze.unwrap();
    assert_eq!((freeze.limit, freeze.worst_case), (None, None));

    world.policy.quiesce.floor = Consistency::Application;
    assert_eq!(refusals(&world.plan())["DB01"], "quiesce.floor_unreachable");

    // The same without a limit on live data is refused.
    world.plugin.quiesce = QuiesceLevel::App;
    assert_eq!(refusals(&world.plan())["DB01"], "quiesce.limit_missing");
}

#[test]
fn recovery_databases_are_refused_by_name_and_ignored_otherwise() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    world.inventory.databases.get_mut(&db(1)).unwrap().recovery = true;
    let plan = world.plan();
    assert!(plan.databases[0].ignored && plan.refused().next().is_none());
    world.group.members = vec![Selector::Everything, Selector::Database(db(1))];
    assert_eq!(refusals(&world.plan())["DB01"], "resource.recovery_database");
}

#[test]
fn selectors_overlap_and_miss() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    world.copy(2, "ex2", Active, "sim:b", "sim:b");
    let dag = DagId(Uuid::from_u128(5));
    world.inventory.add_dag(Dag::new(dag, "DAG1", vec![host("ex1")]));
    world.inventory.databases.get_mut(&db(1)).unwrap().dag = Some(dag);
    world.group.members = vec![
        Selector::Dag(dag),
        Selector::Database(db(1)),
        Selector::Host(host("ex1")),
        Selector::Database(db(9)),
        Selector::Host(host("gone")),
    ];
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log"]);
    let missing: Vec<_> = plan.refused().map(|(_, f)| f.code.to_string()).collect();
    assert_eq!(missing, ["resource.not_found"; 2]);
    world.group.members.clear();
    assert_eq!(world.try_plan().unwrap_err().code(), "group.empty");
}

#[test]
fn log_backups_need_a_full_of_the_same_chain() {
    let signature = |byte| LogSignature([byte; 28]);
    let mut world = World::new();
    let copy = world.copy(1, "ex1", Active, "sim:d", "sim:l");
    world.edit(&copy, |copy| copy.log_state = Some(LogState::new(signature(1))));
    world.policy.kind = BackupKind::Log;
    assert_eq!(refusals(&world.plan())["DB01"], "backup.no_base_full");

    world.fulls.insert(db(1), BaseFull::new(now(), Some(signature(1))));
    let plan = world.plan();
    let set = &plan.sets[0];
    assert_eq!((set.kind, set.coordination, set.freeze), (BackupKind::Log, None, None));
    assert_eq!(set.snapshots.len(), 1);
    assert!(!set.claims.iter().any(|claim| claim.key.starts_with("host/")));
    assert!(plan.to_string().contains("without a freeze"));

    // Another stream, then another product: both make a full.
    world.fulls.insert(db(1), BaseFull::new(now(), Some(signature(2))));
    assert_eq!(refusals(&world.plan())["DB01"], "backup.no_base_full");
    world.policy.promote_log = true;
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log"]);
    assert!(codes(&plan).contains("backup.promoted"));

    world.fulls.insert(db(1), BaseFull::new(now(), Some(signature(1))));
    world.policy.promote_log = false;
    world.inventory.databases.get_mut(&db(1)).unwrap().last_backups.full =
        Some(now() + TimeDelta::hours(1));
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full_and_log"]);
    assert!(codes(&plan).contains("chain.foreign_backup"));
}

#[test]
fn circular_logging_allows_fulls_only() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d", "sim:l");
    world.inventory.databases.get_mut(&db(1)).unwrap().circular_logging = true;
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB01@ex1 full"]);
    assert!(codes(&plan).contains("policy.kind_downgraded"));
    world.policy.kind = BackupKind::Log;
    assert_eq!(refusals(&world.plan())["DB01"], "policy.log_with_circular_logging");
}

#[test]
fn a_full_volume_is_refused_before_any_freeze() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:full", "sim:l1");
    world.copy(2, "ex1", Active, "sim:d2", "sim:l2");
    let facts = world.volumes.get_mut(&volume("sim:full")).unwrap();
    (facts.snapshots_used, facts.snapshot_limit) = (1018, std::num::NonZeroU32::new(1023));
    assert_eq!(world.plan().sets[0].members.len(), 2);
    world.reserve = 5;
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"]);
    assert_eq!(refusals(&plan)["DB01"], "storage.snapshot_limit");
}

#[test]
fn what_another_job_waits_for_is_left_to_it() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:l1");
    world.copy(2, "ex1", Active, "sim:d2", "sim:l2");
    let other = JobId(Uuid::from_u128(5));
    world.coalesced = vec![Elsewhere::new(db(1), "DB01", other)];
    let plan = world.plan();
    assert_eq!(taken(&plan), ["DB02@ex1 full_and_log"]);
    assert_eq!(refusals(&plan).len(), 0);
    let left: Vec<_> = plan.copies().filter(|copy| !copy.is_taken()).collect();
    assert_eq!(left[0].decision, Decision::Left(LeftWhy::Coalesced { job: other }));
    assert_eq!(left[0].decision.code(), "copy.coalesced");
    assert!(plan.to_string().contains(&format!("left: job {other} waits for it")), "{plan}");
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<BackupPlan>(&json).unwrap(), plan);
}

#[test]
fn a_backup_of_another_product_is_told_and_one_of_ours_is_not() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:d1", "sim:l1");
    world.inventory.databases.get_mut(&db(1)).unwrap().backup_in_progress = true;
    assert!(codes(&world.plan()).contains("resource.backup_in_progress"));
    world.under_way = vec![db(1)];
    let plan = world.plan();
    assert_eq!((codes(&plan).len(), plan.sets.len()), (0, 1), "{plan}");
}

#[test]
fn a_plan_holds_for_its_inventory_only() {
    let mut world = World::new();
    world.copy(1, "ex1", Active, "sim:a", "sim:a");
    let plan = world.plan();
    assert_eq!(plan.check_fresh(&world.inventory), Ok(()));
    world.inventory.epoch = "e2".parse().unwrap();
    let stale = plan.check_fresh(&world.inventory).unwrap_err();
    assert_eq!((stale.code().as_str(), stale.is_retryable()), ("plan.stale", true));
    world.inventory.observed_at = now() - TimeDelta::hours(2);
    assert_eq!(world.try_plan().unwrap_err().code(), "plan.stale");
}

#[test]
fn a_verdict_that_expired_starts_nothing() {
    let mut world = World::new();
    let copy = world.copy(1, "ex1", Active, "sim:a", "sim:a");
    world.edit(&copy, |copy| copy.availability.expires_at = Some(now()));
    let plan = world.plan();
    let decision = plan.copies().next().unwrap().decision.clone();
    assert!(matches!(decision, Decision::Left(LeftWhy::Unavailable { .. })));
    assert_eq!(decision.code(), "inventory.stale");
}

#[test]
fn the_structural_epoch_sees_moves_and_not_growth() {
    let mut world = World::new();
    let copy = world.copy(1, "ex1", Active, "sim:a", "sim:a");
    let before = world.inventory.structural_epoch();
    world.edit(&copy, |copy| copy.replay_queue = Some(9));
    assert_eq!(world.inventory.structural_epoch(), before);
    world.edit(&copy, |copy| copy.role = Passive);
    assert_ne!(world.inventory.structural_epoch(), before);
}
