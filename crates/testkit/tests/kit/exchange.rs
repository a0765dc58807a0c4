//! The simulated plug-in keeps the contracts X1–X7.

use std::collections::BTreeMap;

use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_exchange::{
    BackupKind, Cause, Completion, Coordination, EvidenceGrain, ExchangePlugin, Held,
    PluginErrorKind, Scope, SessionId, SessionSpec, SessionState, Truncation,
};
use stillpoint_model::availability::Reason;
use stillpoint_model::id::CopyId;
use stillpoint_model::inventory::{CopyRole, CopyStatus, WriterState};
use stillpoint_model::verdict::Verdict;
use stillpoint_storage::SnapshotProvider;
use stillpoint_testkit::{Breach, Change, Ended, Fault, Shape, Side, World};
use uuid::Uuid;

use super::common::{Backup, Time, drop_after_one_poll, ms, s};

fn one() -> (Time, World, Backup) {
    let (time, world) = (Time::default(), World::one_server(2));
    let backup = Backup::new(&time, &world, 1, &["DB01", "DB02"]);
    (time, world, backup)
}

fn all_good(backup: &Backup) -> BTreeMap<CopyId, Verdict> {
    backup.copies.iter().map(|copy| (copy.clone(), Verdict::Good)).collect()
}

#[test]
fn x1_a_freeze_ends_by_itself_at_its_limit_with_nobody_there() {
    let (time, world, backup) = one();
    let host = backup.copies[0].host.clone();
    time.run(backup.frozen());
    assert!(world.is_frozen(&host));
    time.pass(s(9));
    assert!(world.is_frozen(&host));
    // Nothing polls anything any more; the engine is gone.
    time.pass(s(100));
    assert!(!world.is_frozen(&host));
    let window = &world.freeze_windows()[0];
    let (end, how) = window.ended.unwrap();
    assert_eq!((end.since(window.from), how), (s(10), Ended::Limit));
    assert_eq!(world.late_thaws().len(), 1);
    time.run(async {
        let evidence = backup.plugin.evidence(&backup.cx, backup.session).await.unwrap();
        let broken = Held::Broken(Cause::LimitPassed);
        assert!(backup.copies.iter().all(|copy| evidence.held(copy) == broken));
        // The writers went on at the limit, not when somebody looked.
        let before = world.read(&world.files(&backup.copies[0])[0].path).unwrap();
        backup.cx.sleep(ms(500)).await.unwrap();
        assert_ne!(before, world.read(&world.files(&backup.copies[0])[0].path).unwrap());
    });
}

#[test]
fn x1_the_plug_ins_own_limit_is_the_most() {
    let (time, world, backup) = one();
    time.run(async {
        backup.begin().await.unwrap();
        let frozen = backup.plugin.freeze(&backup.cx, backup.session, Some(s(60))).await.unwrap();
        assert_eq!(frozen.until, Some(frozen.at + s(20)));
        let again = backup.plugin.freeze(&backup.cx, backup.session, Some(s(60))).await.unwrap();
        assert_eq!(frozen, again, "repeated, it is the same freeze");
        let state = backup.plugin.session(&backup.cx, backup.session).await.unwrap();
        assert_eq!(state, SessionState::Frozen { until: frozen.until });
    });
    time.pass(s(20));
    assert_eq!(world.freeze_windows()[0].length(), Some(s(20)));
}

#[test]
#[should_panic(expected = "not thawed in time")]
fn a_freeze_that_nobody_ended_is_told() {
    let (time, world, backup) = one();
    time.run(backup.frozen());
    time.pass(s(30));
    world.assert_thawed_in_time();
}

#[test]
fn x2_thaw_is_right_in_any_state_and_never_anothers() {
    let (time, world, backup) = one();
    let other = SessionId(Uuid::from_u128(9));
    time.run(async {
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        plugin.thaw(cx, other).await.unwrap();
        backup.frozen().await;
        plugin.thaw(cx, other).await.unwrap();
        assert!(world.is_frozen(&backup.copies[0].host), "another session's thaw");
        let old = time.cx(1, "old", 0);
        let error = plugin.thaw(&old, backup.session).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&PluginErrorKind::Fenced, Effect::None));
        assert!(world.is_frozen(&backup.copies[0].host), "an older token's thaw");
        for _ in 0..3 {
            plugin.thaw(cx, backup.session).await.unwrap();
        }
        assert_eq!(world.freeze_windows().len(), 1);
        plugin.abort(cx, backup.session).await.unwrap();
        plugin.thaw(cx, backup.session).await.unwrap();
    });
    world.assert_thawed_in_time();
}

#[test]
fn x2_a_freeze_that_comes_after_the_thaw_is_superseded_and_freezes_nothing() {
    let (time, world, backup) = one();
    world.faults().on("freeze").inject(Fault::LateArrival(s(3)));
    time.run(async {
        backup.begin().await.unwrap();
        let late = backup.plugin.freeze(&backup.cx, backup.session, None).await.unwrap_err();
        assert_eq!((late.kind(), late.effect()), (&PluginErrorKind::TimedOut, Effect::Unknown));
        backup.plugin.thaw(&backup.cx, backup.session).await.unwrap();
        backup.cx.sleep(s(5)).await.unwrap();
        assert!(world.freeze_windows().is_empty(), "it froze after its thaw");
        world.faults().clear();
        let late = backup.plugin.freeze(&backup.cx, backup.session, None).await.unwrap_err();
        assert_eq!(late.kind(), &PluginErrorKind::Superseded);
    });
}

#[test]
fn x2_a_late_freeze_without_a_thaw_does_freeze_and_ends_by_itself() {
    let (time, world, backup) = one();
    world.faults().on("freeze").inject(Fault::LateArrival(s(3)));
    time.run(async {
        backup.begin().await.unwrap();
        backup.plugin.freeze(&backup.cx, backup.session, Some(s(10))).await.unwrap_err();
    });
    time.pass(s(60));
    let window = &world.freeze_windows()[0];
    assert_eq!((window.length(), window.ended.unwrap().1), (Some(s(10)), Ended::Limit));
}

#[test]
fn x3_the_kind_is_checked_and_the_first_verdicts_stand() {
    let (time, world, backup) = one();
    time.run(async {
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        let mut spec = backup.spec();
        spec.kind = BackupKind::Log;
        let error = plugin.begin(cx, &spec).await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::Unsupported("kind"));
        backup.begin().await.unwrap();
        let early = plugin.complete(cx, backup.session, &all_good(&backup)).await.unwrap_err();
        assert_eq!(early.kind(), &PluginErrorKind::Invalid, "nothing was frozen yet");
        backup.taken().await;
        let mut verdicts = all_good(&backup);
        verdicts.remove(&backup.copies[1]);
        let first = plugin.complete(cx, backup.session, &verdicts).await.unwrap();
        let again = plugin.complete(cx, backup.session, &all_good(&backup)).await.unwrap();
        assert_eq!(first, again);
        cx.sleep(s(61)).await.unwrap();
        let since = cx.now() - s(3600);
        let truncated = plugin.truncation(cx, &backup.copies[0], since).await.unwrap();
        assert!(matches!(truncated, Truncation::Confirmed { .. }), "{truncated:?}");
        let kept = plugin.truncation(cx, &backup.copies[1], since).await.unwrap();
        assert!(matches!(kept, Truncation::NothingEligible { .. }), "{kept:?}");
    });
    assert_eq!(world.completes().len(), 1);
    assert_eq!(world.calls().count("complete"), 3);
}

#[test]
fn x3_unclear_and_lost_completions_are_answers() {
    let (time, world, backup) = one();
    world.change(&Change::CompletionsUnclear("the writer failed".to_owned()));
    time.run(async {
        backup.taken().await;
        let verdicts = all_good(&backup);
        let answers = backup.plugin.complete(&backup.cx, backup.session, &verdicts).await.unwrap();
        assert!(answers.values().all(|a| matches!(a, Completion::Unconfirmed { .. })));
        let second = Backup::new(&time, &world, 2, &["DB01"]);
        second.taken().await;
        world.change(&Change::Die(Side::Exchange));
        let died = second.plugin.session(&second.cx, second.session).await.unwrap_err();
        assert_eq!(died.kind(), &PluginErrorKind::Unreachable);
        world.change(&Change::Revive(Side::Exchange));
        let state = second.plugin.session(&second.cx, second.session).await.unwrap();
        assert_eq!(state, SessionState::Lost);
        let verdicts = all_good(&second);
        let answers = second.plugin.complete(&second.cx, second.session, &verdicts).await.unwrap();
        assert!(answers.values().all(|answer| *answer == Completion::Lost));
        let evidence = second.plugin.evidence(&second.cx, second.session).await.unwrap();
        assert_eq!(evidence.held(&second.copies[0]), Held::Unknown);
    });
}

#[test]
fn x3_a_dismount_in_the_backup_leaves_a_mere_copy() {
    let (time, world, backup) = one();
    time.run(async {
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        backup.taken().await;
        world.change(&Change::Dismount(backup.copies[0].clone()));
        plugin.complete(cx, backup.session, &all_good(&backup)).await.unwrap();
        cx.sleep(s(61)).await.unwrap();
        let since = cx.now() - s(3600);
        let kept = plugin.truncation(cx, &backup.copies[0], since).await.unwrap();
        assert!(matches!(kept, Truncation::NothingEligible { .. }), "{kept:?}");
    });
    let breaches: Vec<_> = world.violations().iter().map(|v| v.breach).collect();
    assert_eq!(breaches, [Breach::TruncatesThoughBroken], "the evidence would have said so");
}

#[test]
fn x4_a_lease_that_ends_thaws_and_aborts() {
    let (time, world, backup) = one();
    time.run(async {
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        let spec = SessionSpec::new(backup.session, BackupKind::Full, backup.copies.clone(), s(5));
        let first = plugin.begin(cx, &spec).await.unwrap();
        cx.sleep(s(3)).await.unwrap();
        let again = plugin.begin(cx, &spec).await.unwrap();
        assert_eq!(again.lease_until, first.lease_until + s(3), "begun again, the lease is new");
        cx.sleep(s(3)).await.unwrap();
        plugin.renew(cx, backup.session, s(7)).await.unwrap();
        plugin.freeze(cx, backup.session, None).await.unwrap();
        cx.sleep(s(6)).await.unwrap();
        assert_eq!(world.open_sessions(), [backup.session]);
        let inventory = plugin.inventory(cx, &Scope::Everything).await.unwrap();
        assert!(inventory.databases.values().all(|database| database.backup_in_progress));
        cx.sleep(s(1)).await.unwrap();
        let state = plugin.session(cx, backup.session).await.unwrap();
        assert_eq!(state, SessionState::Aborted);
        assert!(plugin.renew(cx, backup.session, s(5)).await.is_err());
        assert!(plugin.begin(cx, &spec).await.is_err());
    });
    assert_eq!(world.freeze_windows()[0].ended.unwrap().1, Ended::Lease);
    assert!(world.open_sessions().is_empty());
}

#[test]
fn x4_a_begin_that_comes_after_the_abort_opens_nothing() {
    let (time, world, backup) = one();
    world.faults().on("begin").inject(Fault::LateArrival(s(3)));
    time.run(async {
        backup.begin().await.unwrap_err();
        backup.plugin.abort(&backup.cx, backup.session).await.unwrap();
        backup.cx.sleep(s(10)).await.unwrap();
        let state = backup.plugin.session(&backup.cx, backup.session).await.unwrap();
        assert_eq!(state, SessionState::Unknown);
    });
    assert!(world.open_sessions().is_empty());
}

#[test]
fn x5_copies_are_of_one_server_and_known() {
    let (time, world) = (Time::default(), World::dag(2, 2));
    let backup = Backup::new(&time, &world, 1, &["DB01", "DB02"]);
    time.run(async {
        let error = backup.begin().await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::Invalid);
        let stranger = CopyId::new(world.database("DB01"), "ex9.example.com".parse().unwrap());
        let spec = SessionSpec::new(backup.session, BackupKind::Full, vec![stranger], s(60));
        let error = backup.plugin.begin(&backup.cx, &spec).await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::NotFound);
        assert_eq!(error.effect(), Effect::None);
    });
}

/// What evidence says when something happens inside the freeze, before the commit.
fn evidence_when(change: impl FnOnce(&Backup) -> Change, grain: EvidenceGrain) -> [Held; 2] {
    let (time, world) = (Time::default(), World::dag(2, 3));
    // DB01 and DB03 are active on the first server.
    let mut backup = Backup::new(&time, &world, 1, &["DB01", "DB03"]);
    backup.plugin = backup.plugin.with_caps(|caps| caps.grain = grain);
    let change = change(&backup);
    world.faults().on("commit").inject(Fault::Change(change));
    time.run(async {
        let prepared = backup.frozen().await;
        let open = backup.plugin.evidence(&backup.cx, backup.session).await.unwrap();
        assert_eq!(open.held(&backup.copies[0]), Held::Unknown, "before the thaw nobody can say");
        backup.storage.commit(&backup.cx, &prepared).await.unwrap();
        backup.plugin.thaw(&backup.cx, backup.session).await.unwrap();
        let evidence = backup.plugin.evidence(&backup.cx, backup.session).await.unwrap();
        [evidence.held(&backup.copies[0]), evidence.held(&backup.copies[1])]
    })
}

#[test]
fn x7_evidence_says_what_happened_to_each_copy() {
    use EvidenceGrain::{PerDatabase, PerWriter};
    let fail_over = |backup: &Backup| Change::FailOver {
        database: backup.copies[0].database,
        to: "ex2.example.com".parse().unwrap(),
    };
    let broken = Held::Broken(Cause::Failover);
    assert_eq!(evidence_when(fail_over, PerDatabase), [broken.clone(), Held::Yes]);
    assert_eq!(evidence_when(fail_over, PerWriter), [broken.clone(), broken]);
    let dismount = |backup: &Backup| Change::Dismount(backup.copies[1].clone());
    let broken = Held::Broken(Cause::Dismounted);
    assert_eq!(evidence_when(dismount, PerDatabase), [Held::Yes, broken]);
    let writer = |backup: &Backup| Change::FailWriter {
        host: backup.copies[0].host.clone(),
        state: "FailedAtFreeze".to_owned(),
    };
    let broken = Held::Broken(Cause::WriterFailed { state: "FailedAtFreeze".to_owned() });
    assert_eq!(evidence_when(writer, PerDatabase), [broken.clone(), broken]);
    let operator = |backup: &Backup| Change::ThawByOperator(backup.copies[0].host.clone());
    let broken = Held::Broken(Cause::ThawedEarly);
    assert_eq!(evidence_when(operator, PerDatabase), [broken.clone(), broken]);
    let lost = |backup: &Backup| Change::LoseHost(backup.copies[0].host.clone());
    assert_eq!(evidence_when(lost, PerDatabase), [Held::Unknown, Held::Unknown]);
}

#[test]
fn a_failover_in_the_freeze_shows_in_the_bytes() {
    let (time, world) = (Time::default(), World::dag(2, 3));
    let backup = Backup::new(&time, &world, 1, &["DB01", "DB03"]);
    world.faults().on("commit").inject(Fault::Change(Change::FailOver {
        database: backup.copies[0].database,
        to: "ex2.example.com".parse().unwrap(),
    }));
    time.run(backup.taken());
    let how = world.shapes(&backup.token);
    assert_eq!(how[&backup.copies[0]], Shape::Running);
    assert_eq!(how[&backup.copies[1]], Shape::Quiesced);
    assert_ne!(world.active("DB01"), backup.copies[0]);
}

#[test]
fn snap_beyond_the_limit_fails_thaws_in_time_and_leaves_late_snapshots_to_discard() {
    let (time, world, backup) = one();
    world.slow_volume(&"sim:logs02".parse().unwrap(), s(25));
    time.run(async {
        backup.begin().await.unwrap();
        let sets = [backup.prepare().await];
        let error = backup.plugin.snap(&backup.cx, backup.session, &sets).await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::FreezeTimeout);
        assert!(!world.is_frozen(&backup.copies[0].host));
        assert_eq!(world.snapshots().len(), 3);
        assert_eq!(world.in_flight().len(), 1);
        backup.cx.sleep(s(10)).await.unwrap();
        assert_eq!(world.orphans(&[]).len(), 4, "the late one has come");
        backup.storage.discard(&backup.cx, &backup.token).await.unwrap();
        backup.plugin.abort(&backup.cx, backup.session).await.unwrap();
    });
    assert_eq!(world.freeze_windows()[0].ended.unwrap().1, Ended::Limit);
    assert_eq!(world.freeze_windows()[0].length(), Some(s(20)));
    world.assert_thawed_in_time();
    assert!(world.snapshots().is_empty() && world.open_sessions().is_empty());
}

#[test]
fn what_vss_began_goes_on_when_nobody_waits_for_it() {
    let (time, world, backup) = one();
    let sets = time.run(async {
        backup.begin().await.unwrap();
        [backup.prepare().await]
    });
    drop_after_one_poll(backup.plugin.snap(&backup.cx, backup.session, &sets));
    time.pass(s(1));
    time.run(async {
        let state = backup.plugin.session(&backup.cx, backup.session).await.unwrap();
        let SessionState::Snapped(natives) = state else { panic!("{state:?}") };
        assert_eq!(natives.len(), 4);
        backup.storage.adopt(&backup.cx, &sets[0], &natives).await.unwrap();
    });
    assert!(world.shapes(&backup.token).values().all(|shape| *shape == Shape::Quiesced));
}

#[test]
fn an_abort_inside_snap_thaws_at_once() {
    let (time, world, backup) = one();
    world.slow_volume(&"sim:logs02".parse().unwrap(), s(5));
    let sets = time.run(async {
        backup.begin().await.unwrap();
        [backup.prepare().await]
    });
    drop_after_one_poll(backup.plugin.snap(&backup.cx, backup.session, &sets));
    time.pass(s(1));
    time.run(backup.plugin.abort(&backup.cx, backup.session)).unwrap();
    let (end, how) = world.freeze_windows()[0].ended.unwrap();
    assert_eq!((end.since(world.freeze_windows()[0].from), how), (s(1), Ended::Abort));
}

#[test]
fn the_inventory_gives_every_reason() {
    let (time, world) = (Time::default(), World::dag(3, 3));
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    let hosts = world.hosts();
    let passive = CopyId::new(world.database("DB01"), hosts[1].clone());
    world.change(&Change::Status { copy: passive.clone(), status: CopyStatus::Suspended });
    world.change(&Change::RemoveWriter(hosts[2].clone()));
    world.change(&Change::Dismount(world.active("DB02")));
    world.change(&Change::OtherRequester(hosts[0].clone()));
    time.run(async {
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        let inventory = plugin.inventory(cx, &Scope::Everything).await.unwrap();
        assert_eq!((inventory.hosts.len(), inventory.copies.len()), (3, 9));
        assert_eq!(inventory.dags.len(), 1);
        assert_eq!(inventory.hosts[&hosts[2]].writer, WriterState::Missing);
        let reasons = |copy: &CopyId| inventory.copies[copy].availability.reasons.clone();
        assert_eq!(reasons(&passive), [Reason::CopyStatus { status: CopyStatus::Suspended }]);
        let missing = Reason::WriterMissing { host: hosts[2].clone() };
        assert_eq!(reasons(&world.active("DB03")), [missing]);
        assert_eq!(reasons(&world.active("DB02")), [Reason::NotMounted]);
        assert!(reasons(&world.active("DB01")).is_empty());
        let active = inventory.copies.values().filter(|copy| copy.role == CopyRole::Active);
        assert_eq!(active.count(), 3, "one active copy of each");
        let busy = backup.begin().await.unwrap_err();
        assert_eq!(busy.kind(), &PluginErrorKind::BusyOtherRequester);
        assert!(busy.is_retryable() && busy.retry_after().is_some());
        world.change(&Change::OtherRequesterGone(hosts[0].clone()));
        backup.begin().await.unwrap();
        let later = plugin.inventory(cx, &Scope::Everything).await.unwrap();
        assert_ne!(later.epoch, inventory.epoch);
        let some = Scope::Databases([world.database("DB03")].into());
        let some = plugin.inventory(cx, &some).await.unwrap();
        assert_eq!((some.databases.len(), some.copies.len()), (1, 3));
    });
}

#[test]
fn a_suspended_copy_holds_the_logs_back() {
    let (time, world) = (Time::default(), World::dag(2, 1));
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    let passive = CopyId::new(world.database("DB01"), world.hosts()[1].clone());
    world.change(&Change::Status { copy: passive, status: CopyStatus::Suspended });
    time.run(async {
        backup.taken().await;
        let (plugin, cx) = (&backup.plugin, &backup.cx);
        let since = cx.now();
        plugin.complete(cx, backup.session, &all_good(&backup)).await.unwrap();
        cx.sleep(s(61)).await.unwrap();
        let asked = plugin.truncation(cx, &backup.copies[0], since).await.unwrap();
        assert_eq!(asked, Truncation::NothingEligible { why: "a copy is suspended".to_owned() });
    });
}

#[test]
fn a_plug_in_keeps_to_its_capabilities() {
    let (time, _, mut backup) = one();
    backup.plugin = backup
        .plugin
        .only(Coordination::Engine)
        .with_caps(|caps| caps.max_databases = std::num::NonZeroU32::new(1));
    time.run(async {
        let error = backup.begin().await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::Unsupported("max_databases"));
        let error = backup.plugin.snap(&backup.cx, backup.session, &[]).await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::Unsupported("snap"));
    });
}
