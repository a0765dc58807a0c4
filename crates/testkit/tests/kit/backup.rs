//! Whole backups by hand, in both coordination modes, and what a freeze is worth.

use std::collections::BTreeMap;

use stillpoint_exchange::{Completion, Coordination, ExchangePlugin, Held, Truncation};
use stillpoint_model::verdict::Verdict;
use stillpoint_storage::{Found, SnapshotProvider};
use stillpoint_testkit::{Breach, Ended, Shape, World};

use super::common::{Backup, Time, ms, s};

#[test]
fn engine_coordinated_from_begin_to_truncation() {
    let (time, world) = (Time::default(), World::one_server(2));
    let backup = Backup::new(&time, &world, 1, &["DB01", "DB02"]);
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        assert_eq!(snapshots.len(), 4);
        let evidence = backup.plugin.evidence(&backup.cx, backup.session).await.unwrap();
        for copy in &backup.copies {
            assert_eq!(evidence.held(copy), Held::Yes);
            assert_eq!(world.shapes(&backup.token)[copy], Shape::Quiesced);
        }
        let report = backup.verify(&snapshots).await;
        let verdicts: BTreeMap<_, _> =
            backup.copies.iter().map(|copy| (copy.clone(), report.verdict(copy))).collect();
        assert!(verdicts.values().all(Verdict::is_good), "{verdicts:?}");
        let cx = &backup.cx;
        let started = cx.now();
        let answers = backup.plugin.complete(cx, backup.session, &verdicts).await.unwrap();
        assert!(answers.values().all(|answer| *answer == Completion::Completed));
        let copy = &backup.copies[0];
        let oldest_before = world.files(copy).iter().filter_map(|file| file.generation).min();
        let asked = backup.plugin.truncation(cx, copy, started).await.unwrap();
        assert_eq!(asked, Truncation::Pending);
        cx.sleep(s(61)).await.unwrap();
        let asked = backup.plugin.truncation(cx, copy, started).await.unwrap();
        let Truncation::Confirmed { oldest_present } = asked else { panic!("{asked:?}") };
        assert!(Some(oldest_present) > oldest_before, "{oldest_present} {oldest_before:?}");
        let oldest_now = world.files(copy).iter().filter_map(|file| file.generation).min();
        assert_eq!(oldest_now, Some(oldest_present));
    });
    world.assert_thawed_in_time();
    assert_eq!(world.completes().len(), 1);
    assert_eq!(world.completes()[0].good().len(), 2);
    assert!(world.open_sessions().is_empty() && world.prepared_sets().is_empty());
    assert!(world.violations().is_empty(), "{:?}", world.violations());
    let windows = world.freeze_windows();
    assert_eq!(windows.len(), 1);
    assert_eq!(windows[0].length(), Some(ms(10)));
    let inside: Vec<_> = world.calls_inside(&windows[0]).iter().map(|call| call.name).collect();
    assert_eq!(inside, ["commit"], "nothing but the commit between freeze and thaw");
    assert_eq!(world.orphans(std::slice::from_ref(&backup.token)), []);
    assert_eq!(world.orphans(&[]).len(), 4);
}

#[test]
fn plug_in_coordinated_from_begin_to_adoption() {
    let (time, world) = (Time::default(), World::one_server(2));
    let mut backup = Backup::new(&time, &world, 1, &["DB01", "DB02"]);
    backup.plugin = backup.plugin.only(Coordination::Plugin);
    time.run(async {
        backup.begin().await.unwrap();
        let prepared = backup.prepare().await;
        let cx = &backup.cx;
        assert!(backup.plugin.freeze(cx, backup.session, None).await.is_err());
        let sets = [prepared.clone()];
        let natives = backup.plugin.snap(cx, backup.session, &sets).await.unwrap();
        assert_eq!(natives.len(), 4);
        let again = backup.plugin.snap(cx, backup.session, &sets).await.unwrap();
        assert_eq!(natives, again, "repeated, it is the same snapshots");
        assert!(backup.storage.settle(cx, &prepared).await.is_err(), "not adopted yet");
        let members = backup.storage.adopt(cx, &prepared, &natives).await.unwrap();
        assert_eq!(members, backup.storage.adopt(cx, &prepared, &natives).await.unwrap());
        let snapshots = backup.storage.settle(cx, &prepared).await.unwrap();
        assert_eq!(snapshots.len(), 4);
        let found = backup.storage.find(cx, &backup.token).await.unwrap();
        assert_eq!(found, Found::Complete(snapshots.clone()));
        let evidence = backup.plugin.evidence(cx, backup.session).await.unwrap();
        assert!(backup.copies.iter().all(|copy| evidence.held(copy).is_yes()));
        assert!(backup.verify(&snapshots).await.copies.values().all(|r| r.verdict.is_good()));
    });
    assert_eq!(world.freeze_windows()[0].ended.unwrap().1, Ended::Thaw);
    assert!(world.shapes(&backup.token).values().all(|shape| *shape == Shape::Quiesced));
}

#[test]
fn without_a_freeze_it_shows() {
    for (data_first, expected) in [(true, Shape::Running), (false, Shape::Torn)] {
        let (time, world) = (Time::default(), World::one_server(1));
        let mut backup = Backup::new(&time, &world, 1, &["DB01"]);
        backup.storage = backup.storage.with_behaviour(|how| how.data_first = data_first);
        world.slow_volume(&"sim:data01".parse().unwrap(), ms(300));
        time.run(async {
            backup.begin().await.unwrap();
            let prepared = backup.prepare().await;
            backup.storage.commit(&backup.cx, &prepared).await.unwrap();
            let snapshots = backup.storage.settle(&backup.cx, &prepared).await.unwrap();
            let report = backup.verify(&snapshots).await;
            let verdict = report.verdict(&backup.copies[0]);
            assert_eq!(verdict.is_bad(), expected == Shape::Torn, "{verdict}");
            let evidence = backup.plugin.evidence(&backup.cx, backup.session).await.unwrap();
            assert!(!evidence.held(&backup.copies[0]).is_yes());
        });
        assert_eq!(world.shapes(&backup.token)[&backup.copies[0]], expected);
    }
}

#[test]
fn one_bad_database_of_three_is_one_bad_verdict() {
    let (time, world) = (Time::default(), World::one_server(3));
    let backup = Backup::new(&time, &world, 1, &["DB01", "DB02", "DB03"]);
    world.damage().database(&backup.copies[1]);
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        let report = backup.verify(&snapshots).await;
        let bad: Vec<_> = backup.copies.iter().map(|copy| report.verdict(copy).is_bad()).collect();
        assert_eq!(bad, [false, true, false]);
        let Verdict::Bad { findings, .. } = report.verdict(&backup.copies[1]) else { panic!() };
        assert_eq!((findings[0].page, findings[0].jet_error), (Some(3), Some(-1018)));
        let verdicts = backup.copies.iter().map(|copy| (copy.clone(), report.verdict(copy)));
        let verdicts: BTreeMap<_, _> = verdicts.collect();
        backup.plugin.complete(&backup.cx, backup.session, &verdicts).await.unwrap();
        backup.cx.sleep(s(61)).await.unwrap();
        let since = backup.cx.now() - s(3600);
        let asked = backup.plugin.truncation(&backup.cx, &backup.copies[1], since).await.unwrap();
        assert!(matches!(asked, Truncation::NothingEligible { .. }), "{asked:?}");
    });
    let completes = world.completes();
    assert_eq!((completes.len(), completes[0].good().len()), (1, 2));
    assert_eq!(completes[0].bad(), [&backup.copies[1]]);
}

#[test]
fn overlapping_freezes_are_refused_and_remembered() {
    let (time, world) = (Time::default(), World::one_server(2));
    let (one, two) =
        (Backup::new(&time, &world, 1, &["DB01"]), Backup::new(&time, &world, 2, &["DB02"]));
    time.run(async {
        one.frozen().await;
        two.begin().await.unwrap();
        let error = two.plugin.freeze(&two.cx, two.session, None).await.unwrap_err();
        assert!(error.to_string().contains("frozen"), "{error}");
        one.plugin.thaw(&one.cx, one.session).await.unwrap();
        two.plugin.freeze(&two.cx, two.session, None).await.unwrap();
        two.plugin.thaw(&two.cx, two.session).await.unwrap();
        let again = Backup::new(&time, &world, 3, &["DB02"]);
        again.begin().await.unwrap_err();
    });
    let host = &world.hosts()[0];
    assert_eq!(world.overlapping_freezes(host).len(), 1);
    let breaches: Vec<_> = world.violations().iter().map(|v| v.breach).collect();
    assert_eq!(breaches, [Breach::OverlappingFreeze, Breach::OverlappingBackup]);
}
