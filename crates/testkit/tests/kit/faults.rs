//! Each fault does what it says, and whatever comes, freezes end and snapshots can be found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stillpoint_context::{Cancel, Cx, Effect, ErrorFacts};
use stillpoint_exchange::{ExchangePlugin, Held, PluginErrorKind, SessionState};
use stillpoint_model::verdict::Verdict;
use stillpoint_storage::{Discarded, Found, ProviderErrorKind, SnapshotProvider};
use stillpoint_testkit::{
    Change, Fault, FreezeWindow, Lie, Outcome, RandomFaults, Shape, Side, Trouble, World,
};

use super::common::{Backup, Time, drop_after_one_poll, ms, s};

fn one() -> (Time, World, Backup) {
    let (time, world) = (Time::default(), World::one_server(1));
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    (time, world, backup)
}

#[test]
fn slow_takes_longer_and_no_more() {
    let (time, world, backup) = one();
    world.faults().on("settle").inject(Fault::Slow(s(3)));
    world.faults().on("begin").after_effect().inject(Fault::Slow(s(2)));
    time.run(backup.taken());
    let settle = &world.calls().named("settle")[0];
    assert_eq!(settle.ended.unwrap().since(settle.started), s(3));
    assert_eq!(settle.outcome, Outcome::Ok);
    assert!(settle.fault.as_deref().unwrap().contains("Slow"));
    let begin = &world.calls().named("begin")[0];
    assert_eq!(begin.ended.unwrap().since(begin.started), s(2));
    assert_eq!(world.faults().fired(), 2);
}

#[test]
fn a_slow_commit_arrives_late_also_when_nobody_waits() {
    let (time, world, backup) = one();
    world.faults().on("commit").nth(1).inject(Fault::Slow(s(25)));
    let prepared = time.run(backup.frozen());
    drop_after_one_poll(backup.storage.commit(&backup.cx, &prepared));
    time.run(backup.plugin.thaw(&backup.cx, backup.session)).unwrap();
    assert_eq!(world.calls().named("commit")[0].outcome, Outcome::Dropped);
    assert_eq!((world.snapshots().len(), world.in_flight().len()), (0, 2));
    time.pass(s(26));
    assert_eq!((world.snapshots().len(), world.in_flight().len()), (2, 0));
    let how = world.shapes(&backup.token)[&backup.copies[0]];
    assert_eq!(how, Shape::Running, "taken after the thaw");
    let evidence = time.run(backup.plugin.evidence(&backup.cx, backup.session)).unwrap();
    assert!(!evidence.held(&backup.copies[0]).is_yes());
    world.assert_thawed_in_time();
}

#[test]
fn hang_ends_at_cancel_and_deaf_does_not() {
    let (time, world, backup) = one();
    world.faults().on("begin").nth(1).inject(Fault::Hang);
    world.faults().on("begin").nth(2).inject(Fault::Deaf);
    let cancel = Cancel::new();
    let cx = Cx::builder(&time.seams()).cancel(cancel.clone()).build();
    let spec = backup.spec();
    cancel.cancel();
    let error = time.run(backup.plugin.begin(&cx, &spec)).unwrap_err();
    assert_eq!(error.kind(), &PluginErrorKind::Cancelled);
    drop_after_one_poll(backup.plugin.begin(&cx, &spec));
    let outcomes: Vec<_> = world.calls().all().iter().map(|call| call.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Failed("call.cancelled".into()), Outcome::Dropped]);
    assert!(world.open_sessions().is_empty(), "neither had an effect");
    let mine = time.cx(1, "step", 1);
    world.faults().on("begin").nth(1).after_effect().inject(Fault::Hang);
    drop_after_one_poll(backup.plugin.begin(&mine, &spec));
    assert_eq!(world.open_sessions(), [backup.session], "this one had");
}

#[test]
fn fail_before_and_after_the_effect() {
    let (time, world, backup) = one();
    let faults = world.faults();
    faults.on("begin").nth(1).inject(Fault::Fail(Trouble::timed_out().without_effect()));
    faults.on("begin").nth(2).after_effect().inject(Fault::fail(PluginErrorKind::WriterMissing));
    faults.on("prepare").inject(Fault::fail(ProviderErrorKind::ReadOnly));
    time.run(async {
        let error = backup.begin().await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&PluginErrorKind::TimedOut, Effect::None));
        assert!(world.open_sessions().is_empty());
        let error = backup.begin().await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::WriterMissing);
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(world.open_sessions().len(), 1);
        let spec = backup.prepare_spec().await;
        let error = backup.storage.prepare(&backup.cx, &spec).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::ReadOnly);
    });
}

#[test]
fn a_panic_is_a_panic_and_the_world_goes_on() {
    let (time, world, backup) = one();
    world.faults().on("begin").nth(1).inject(Fault::Panic);
    world.faults().on("begin").nth(2).after_effect().inject(Fault::Panic);
    for effect in [0, 1] {
        let result = catch_unwind(AssertUnwindSafe(|| time.run(backup.begin())));
        let payload = result.unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("begin panicked"), "{text}");
        assert_eq!(world.open_sessions().len(), effect);
    }
    assert!(world.calls().all().iter().all(|call| call.outcome == Outcome::Panicked));
    time.run(backup.taken());
}

#[test]
fn a_late_commit_is_in_flight_and_another_late_call_is_not_seen_before() {
    let (time, world, backup) = one();
    world.faults().on("commit").inject(Fault::LateArrival(s(5)));
    world.faults().on("settle").inject(Fault::LateArrival(s(5)));
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let prepared = backup.frozen().await;
        let error = storage.commit(cx, &prepared).await.unwrap_err();
        let facts = (error.kind(), error.effect());
        assert_eq!(facts, (&ProviderErrorKind::TimedOut, Effect::Unknown));
        let found = storage.find(cx, &backup.token).await.unwrap();
        assert!(matches!(found, Found::InFlight { .. }), "{found:?}");
        cx.sleep(s(6)).await.unwrap();
        let found = storage.find(cx, &backup.token).await.unwrap();
        assert!(matches!(found, Found::Complete(_)), "{found:?}");
        storage.settle(cx, &prepared).await.unwrap_err();
        assert!(world.snapshots().iter().all(|snapshot| snapshot.files[0].seal.is_none()));
        cx.sleep(s(6)).await.unwrap();
        assert!(world.snapshots().iter().all(|snapshot| snapshot.files[0].seal.is_some()));
    });
}

#[test]
fn lies_are_told_and_leave_the_truth_alone() {
    let (time, world, backup) = one();
    let faults = world.faults();
    faults.on("commit").inject(Fault::Lie(Lie::Done));
    time.run(async {
        let (plugin, storage, cx) = (&backup.plugin, &backup.storage, &backup.cx);
        let prepared = backup.frozen().await;
        let members = storage.commit(cx, &prepared).await.unwrap();
        assert_eq!((members.len(), world.snapshots().len()), (2, 0));
        assert_eq!(storage.find(cx, &backup.token).await.unwrap(), Found::Absent);
        faults.clear();
        faults.on("thaw").nth(1).inject(Fault::Lie(Lie::Done));
        plugin.thaw(cx, backup.session).await.unwrap();
        assert!(world.is_frozen(&backup.copies[0].host));
        cx.sleep(s(30)).await.unwrap();
        let honest = plugin.evidence(cx, backup.session).await.unwrap();
        assert!(matches!(honest.held(&backup.copies[0]), Held::Broken(_)));
        faults.on("evidence").nth(1).inject(Fault::Lie(Lie::Held));
        faults.on("evidence").nth(2).inject(Fault::Lie(Lie::Unsure));
        let lie = plugin.evidence(cx, backup.session).await.unwrap();
        assert_eq!(lie.held(&backup.copies[0]), Held::Yes);
        let lie = plugin.evidence(cx, backup.session).await.unwrap();
        assert_eq!(lie.held(&backup.copies[0]), Held::Unknown);
        plugin.abort(cx, backup.session).await.unwrap();
        let next = Backup::new(&time, &world, 2, &["DB01"]);
        world.damage().database(&next.copies[0]);
        let (_, snapshots) = next.taken().await;
        faults.on("verify").nth(1).inject(Fault::Lie(Lie::Good));
        assert!(next.verify(&snapshots).await.verdict(&next.copies[0]).is_good());
        assert!(next.verify(&snapshots).await.verdict(&next.copies[0]).is_bad());
        faults.on("discard").inject(Fault::Lie(Lie::Done));
        assert_eq!(storage.discard(cx, &next.token).await.unwrap(), Discarded::Gone);
        assert_eq!(world.snapshots().len(), 2);
        faults.on("complete").inject(Fault::Lie(Lie::Done));
        let verdicts = [(next.copies[0].clone(), Verdict::Good)].into();
        plugin.complete(&next.cx, next.session, &verdicts).await.unwrap();
    });
    assert!(world.completes().is_empty());
}

#[test]
fn a_side_that_dies_answers_no_more_and_its_freeze_still_ends() {
    let (time, world, backup) = one();
    world.faults().on("commit").inject(Fault::Change(Change::Die(Side::Exchange)));
    world.faults().on("settle").inject(Fault::Die);
    time.run(async {
        let (plugin, storage, cx) = (&backup.plugin, &backup.storage, &backup.cx);
        let prepared = backup.frozen().await;
        storage.commit(cx, &prepared).await.unwrap();
        let error = plugin.thaw(cx, backup.session).await.unwrap_err();
        assert_eq!(error.kind(), &PluginErrorKind::Unreachable);
        assert!(world.is_frozen(&backup.copies[0].host));
        cx.sleep(s(10)).await.unwrap();
        assert!(!world.is_frozen(&backup.copies[0].host));
        let error = storage.settle(cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::Unreachable);
        assert!(storage.find(cx, &backup.token).await.is_err());
        world.change(&Change::Revive(Side::Storage));
        world.change(&Change::Revive(Side::Exchange));
        let found = storage.find(cx, &backup.token).await.unwrap();
        assert!(matches!(found, Found::Complete(_)), "{found:?}");
        let state = plugin.session(cx, backup.session).await.unwrap();
        assert_eq!(state, SessionState::Lost);
    });
    world.assert_thawed_in_time();
}

#[test]
fn a_blocked_thread_is_blocked() {
    let (time, world, backup) = one();
    world.faults().on("begin").inject(Fault::BlockThread(ms(30)));
    #[allow(clippy::disallowed_methods, reason = "real time is what is looked at")]
    let started = std::time::Instant::now();
    time.run(backup.begin()).unwrap();
    assert!(started.elapsed() >= ms(30));
}

#[test]
fn something_may_happen_later() {
    let (time, world, backup) = one();
    world.change_in(s(7), Change::Dismount(backup.copies[0].clone()));
    time.run(async {
        backup.begin().await.unwrap();
        backup.cx.sleep(s(8)).await.unwrap();
        let error = backup.plugin.freeze(&backup.cx, backup.session, None).await.unwrap_err();
        assert!(matches!(error.kind(), PluginErrorKind::WriterFailed { .. }), "{error}");
    });
}

/// A backup that minds nothing but its duties: thaw, abort or complete, and discard until all is gone.
async fn careless(backup: &Backup) {
    let (plugin, storage) = (&backup.plugin, &backup.storage);
    let cx = &backup.cx.with_timeout(s(60));
    if plugin.begin(cx, &backup.spec()).await.is_ok() {
        let spec = backup.prepare_spec().await;
        if let Ok(prepared) = storage.prepare(cx, &spec).await {
            if plugin.freeze(cx, backup.session, Some(s(10))).await.is_ok() {
                let _ = storage.commit(cx, &prepared).await;
            }
            let _ = plugin.thaw(cx, backup.session).await;
        }
    }
}

#[test]
fn whatever_comes_freezes_end_and_nothing_is_lost_from_sight() {
    let mut fired = 0;
    for seed in 0..200 {
        let (time, world, backup) = one();
        let calls = ["begin", "prepare", "freeze", "commit", "thaw"];
        world.faults().random(RandomFaults::new(seed).one_in(3).only(&calls));
        // A hang ends with its deadline here, as the engine would end it.
        let hanging = time.seams().clock.sleep_until(time.seams().clock.mono() + s(120));
        let run = std::pin::pin!(careless(&backup));
        let run = futures_util::future::select(hanging, run);
        let _ = catch_unwind(AssertUnwindSafe(|| time.run(run)));
        fired += world.faults().fired();
        world.faults().clear();
        time.pass(s(300));
        time.run(async {
            backup.plugin.abort(&backup.cx, backup.session).await.unwrap();
            backup.storage.discard(&backup.cx, &backup.token).await.unwrap();
        });
        let again = format!(
            "seed {seed}; again: cargo test -p stillpoint-testkit --test kit faults::whatever"
        );
        assert!(world.freeze_windows().iter().all(|window| window.ended.is_some()), "{again}");
        let longest = world.freeze_windows().iter().filter_map(FreezeWindow::length).max();
        assert!(longest.is_none_or(|longest| longest <= s(10)), "{again}: {longest:?}");
        assert!(world.in_flight().is_empty() && world.snapshots().is_empty(), "{again}");
        assert!(world.open_sessions().is_empty(), "{again}");
        assert!(world.violations().is_empty(), "{again}: {:?}", world.violations());
        let next = Backup::new(&time, &world, 2, &["DB01"]);
        time.run(next.taken());
        let how = world.shapes(&next.token)[&next.copies[0]];
        assert_eq!(how, Shape::Quiesced, "{again}");
    }
    assert!(fired > 150, "only {fired} faults in all");
}
