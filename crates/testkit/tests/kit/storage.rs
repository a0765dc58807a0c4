//! The simulated provider keeps the contracts S1–S9.

use std::num::NonZeroU32;

use stillpoint_context::{Effect, ErrorFacts, HostPath, RunId};
use stillpoint_exchange::{ExchangePlugin, RestoreSpec, SessionId};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::inventory::FileRole;
use stillpoint_storage::{
    Deleted, Discarded, DocName, Found, Prepared, ProviderErrorKind as Kind, RestoreKey,
    RestoredFile, Snapshot, SnapshotProvider, StageSpec,
};
use stillpoint_testkit::{Change, Shape, World};
use uuid::Uuid;

use super::common::{Backup, Time, drop_after_one_poll, ms, s};

fn one() -> (Time, World, Backup) {
    let (time, world) = (Time::default(), World::one_server(1));
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    (time, world, backup)
}

fn volume(name: &str) -> VolumeRef {
    format!("sim:{name}").parse().unwrap()
}

#[test]
fn s1_what_is_not_settled_does_not_survive_a_power_cut() {
    for settled in [false, true] {
        let (time, world, backup) = one();
        time.run(async {
            let prepared = backup.frozen().await;
            backup.storage.commit(&backup.cx, &prepared).await.unwrap();
            if settled {
                let snapshots = backup.storage.settle(&backup.cx, &prepared).await.unwrap();
                assert!(snapshots.iter().all(|snapshot| snapshot.token.is_some()));
                assert!(snapshots[0].files.iter().all(|file| file.seal.is_some()));
            }
            world.change(&Change::PowerCut);
            let found = backup.storage.find(&backup.cx, &backup.token).await.unwrap();
            assert_eq!(matches!(found, Found::Complete(_)), settled, "{found:?}");
            assert_eq!(found == Found::Absent, !settled);
        });
    }
}

#[test]
fn s1_volumes_are_taken_side_by_side() {
    let (time, world) = (Time::default(), World::volumes_of(64, ms(50)));
    let names: Vec<String> = (1..=64).map(|n| format!("DB{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let backup = Backup::new(&time, &world, 1, &names);
    time.run(backup.taken());
    assert_eq!(world.snapshots().len(), 64);
    assert_eq!(world.freeze_windows()[0].length(), Some(ms(50)));
}

#[test]
fn s2_a_commit_repeated_is_the_same_snapshots() {
    let (time, world, backup) = one();
    time.run(async {
        let prepared = backup.frozen().await;
        let first = backup.storage.commit(&backup.cx, &prepared).await.unwrap();
        let again = backup.storage.commit(&backup.cx, &prepared).await.unwrap();
        assert_eq!(first, again);
        let settled = backup.storage.settle(&backup.cx, &prepared).await.unwrap();
        assert_eq!(settled, backup.storage.settle(&backup.cx, &prepared).await.unwrap());
        let spec = backup.prepare_spec().await;
        let stored = backup.storage.prepare(&backup.cx, &spec).await.unwrap();
        assert_eq!(first, backup.storage.commit(&backup.cx, &stored).await.unwrap());
    });
    assert_eq!(world.snapshots().len(), 2);
}

#[test]
fn s2_a_commit_that_was_dropped_is_found_in_flight_and_arrives() {
    let (time, world, backup) = one();
    world.slow_volume(&volume("data01"), s(25));
    let prepared = time.run(backup.frozen());
    drop_after_one_poll(backup.storage.commit(&backup.cx, &prepared));
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let started = cx.now();
        let found = storage.find(cx, &backup.token).await.unwrap();
        assert_eq!(found, Found::InFlight { until: started + s(25) });
        backup.plugin.thaw(cx, backup.session).await.unwrap();
        let discarded = storage.discard(cx, &backup.token).await.unwrap();
        assert_eq!(discarded, Discarded::WatchUntil(started + s(25)));
        let error = storage.commit(cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Expired, "a commit never brings a discarded set back");
        cx.sleep(s(26)).await.unwrap();
        assert_eq!(world.orphans(&[]).len(), 2, "late, as it said");
        assert_eq!(storage.discard(cx, &backup.token).await.unwrap(), Discarded::Gone);
        assert_eq!(storage.find(cx, &backup.token).await.unwrap(), Found::Absent);
    });
    assert!(world.orphans(&[]).is_empty());
}

#[test]
fn s2_a_storage_that_can_stop_a_flight_does() {
    let (time, world, mut backup) = one();
    backup.storage = backup.storage.with_behaviour(|how| how.stops_flights = true);
    world.slow_volume(&volume("data01"), s(25));
    let prepared = time.run(backup.frozen());
    drop_after_one_poll(backup.storage.commit(&backup.cx, &prepared));
    let gone = time.run(backup.storage.discard(&backup.cx, &backup.token)).unwrap();
    assert_eq!(gone, Discarded::Gone);
    time.pass(s(60));
    assert!(world.snapshots().is_empty() && world.in_flight().is_empty());
}

#[test]
fn s2_a_part_of_a_set_is_told_as_a_part() {
    let (time, world, backup) = one();
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        world.lose_snapshot(&snapshots[0].reference());
        let found = backup.storage.find(&backup.cx, &backup.token).await.unwrap();
        assert_eq!(found, Found::Partial(vec![snapshots[1].clone()]));
    });
}

#[test]
fn s2_a_set_prepared_anew_makes_the_old_one_expire() {
    let (time, world, backup) = one();
    time.run(async {
        let old = backup.frozen().await;
        let new = backup.prepare().await;
        let error = backup.storage.commit(&backup.cx, &old).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&Kind::Expired, Effect::None));
        backup.storage.commit(&backup.cx, &new).await.unwrap();
        let stale = time.cx(1, "stale", 0);
        let error = backup.storage.settle(&stale, &new).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Fenced);
    });
    assert_eq!(world.snapshots().len(), 2);
}

#[test]
fn s3_removal_is_idempotent_and_refused_with_its_reason() {
    let (time, world, backup) = one();
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let (_, snapshots) = backup.taken().await;
        let (first, second) = (snapshots[0].reference(), snapshots[1].reference());
        world.hold(&first, true);
        let error = storage.delete(cx, &first).await.unwrap_err();
        assert_eq!((error.kind(), error.volume()), (&Kind::Held, Some(&first.volume)));
        let error = storage.discard(cx, &backup.token).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&Kind::Held, Effect::None));
        assert_eq!(world.snapshots().len(), 2, "none of the set went");
        world.hold(&first, false);
        world.lock_snapshot(&first, s(60));
        let error = storage.delete(cx, &first).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Locked { .. }), "{error}");
        cx.sleep(s(60)).await.unwrap();
        assert_eq!(storage.delete(cx, &first).await.unwrap(), Deleted::Gone);
        assert_eq!(storage.delete(cx, &first).await.unwrap(), Deleted::Gone);
        let exposure = backup.expose(&snapshots[1..]).await;
        let error = storage.delete(cx, &second).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Dependents);
        storage.unexpose(cx, &exposure.key).await.unwrap();
        let foreign = world.add_foreign_snapshot(&second.volume, "nightly");
        let error = storage.delete(cx, &foreign).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Invalid);
        for _ in 0..2 {
            let gone = storage.discard(cx, &backup.token).await.unwrap();
            assert_eq!(gone, Discarded::Gone);
        }
        let never = SetToken::new("never").unwrap();
        assert_eq!(storage.discard(cx, &never).await.unwrap(), Discarded::Gone);
    });
    assert_eq!(world.foreign_snapshots().len(), 1, "what is not ours is never touched");
}

#[test]
fn s3_a_slow_deletion_is_pending_first() {
    let (time, world, mut backup) = one();
    backup.storage = backup.storage.with_behaviour(|how| how.deletes_in = s(5));
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        let first = snapshots[0].reference();
        let pending = backup.storage.delete(&backup.cx, &first).await.unwrap();
        assert_eq!((pending, world.snapshots().len()), (Deleted::Pending, 2));
        backup.cx.sleep(s(5)).await.unwrap();
        let gone = backup.storage.delete(&backup.cx, &first).await.unwrap();
        assert_eq!((gone, world.snapshots().len()), (Deleted::Gone, 1));
    });
}

#[test]
fn s4_an_exposure_shows_the_instant_and_is_listed() {
    let (time, world, backup) = one();
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let prepared = backup.frozen().await;
        let live = world.files(&backup.copies[0])[0].path.clone();
        let then = world.read(&live).unwrap();
        storage.commit(cx, &prepared).await.unwrap();
        backup.plugin.thaw(cx, backup.session).await.unwrap();
        let snapshots = storage.settle(cx, &prepared).await.unwrap();
        cx.sleep(s(60)).await.unwrap();
        let exposure = backup.expose(&snapshots).await;
        assert_eq!(exposure, backup.expose(&snapshots).await);
        assert_eq!(storage.exposures(cx).await.unwrap(), vec![exposure.clone()]);
        let shown = exposure.find(&live).unwrap();
        assert_eq!(world.read(&shown).unwrap(), then);
        assert_ne!(world.read(&live).unwrap(), then);
        let gone = SnapshotRef::new(volume("data01"), "gone".parse().unwrap());
        let key = ExposureKey::new("other").unwrap();
        let error = storage.expose(cx, &[gone], &exposure.host, &key).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::NotFound);
        for _ in 0..2 {
            storage.unexpose(cx, &exposure.key).await.unwrap();
        }
        assert_eq!(world.read(&shown), None);
    });
    assert!(world.exposures().is_empty());
}

#[test]
fn s5_what_cannot_be_done_is_refused_before_the_freeze() {
    let (time, world, backup) = one();
    time.run(async {
        let cx = &backup.cx;
        let spec = backup.prepare_spec().await;
        let refused = async |backup: &Backup, spec: &_| {
            let error = backup.storage.prepare(cx, spec).await.unwrap_err();
            assert_eq!(error.effect(), Effect::None);
            error.kind().clone()
        };
        let hurried = spec.clone().with_limit(Some(ms(5)));
        let slow = Kind::TooSlow { worst_case: ms(10), limit: ms(5) };
        assert_eq!(refused(&backup, &hurried).await, slow);
        world.fill(&volume("logs01"), true);
        assert_eq!(refused(&backup, &spec).await, Kind::NoSpace);
        world.fill(&volume("logs01"), false);
        let mut lost = spec.clone();
        lost.members[0].files[0] = world.files(&backup.copies[0])[1].path.clone();
        assert_eq!(refused(&backup, &lost).await, Kind::PathEscapes);
        let missing = spec.members[0].files[0].as_str().replace("DB01.edb", "DB99.edb");
        let missing = HostPath::new(
            backup.copies[0].host.clone(),
            lost.members[0].files[0].flavor(),
            missing,
        );
        lost.members[0].files[0] = missing.unwrap();
        assert_eq!(refused(&backup, &lost).await, Kind::Vanished);
        let copying = Backup {
            storage: world.storage().with_caps(|caps| caps.instant = false),
            ..Backup::new(&time, &world, 1, &["DB01"])
        };
        let limited = spec.clone().with_limit(Some(s(5)));
        assert_eq!(refused(&copying, &limited).await, Kind::Unsupported("instant"));
        let narrow = Backup {
            storage: world.storage().with_caps(|caps| caps.max_volumes = NonZeroU32::new(1)),
            ..Backup::new(&time, &world, 1, &["DB01"])
        };
        assert_eq!(refused(&narrow, &spec).await, Kind::Unsupported("max_volumes"));
        let foreign = world.storage_named("other");
        let error = foreign.prepare(cx, &spec).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::NotFound, "another provider's volume");
        let placed = foreign.resolve(cx, &spec.members[0].files).await.unwrap();
        assert!(placed.is_empty());
    });
    assert!(world.prepared_sets().is_empty());
}

#[test]
fn s5_the_snapshot_limit_is_seen_before_and_kept_at_the_instant() {
    let (time, world) = (Time::default(), {
        let volume = stillpoint_testkit::VolumeSpec::new("vol")
            .mounted("ex1", "/srv/mail")
            .snapshot_limit(2);
        World::builder()
            .host("ex1")
            .volume(volume)
            .database(stillpoint_testkit::DatabaseSpec::new("DB01"))
            .copy(stillpoint_testkit::CopySpec::active("DB01", "ex1").on("vol", "vol"))
            .build()
    });
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    world.add_foreign_snapshot(&volume("vol"), "a");
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let facts = storage.volumes(cx, &[volume("vol")]).await.unwrap();
        assert_eq!(facts[0].snapshots_left(), Some(1));
        let prepared = backup.frozen().await;
        world.add_foreign_snapshot(&volume("vol"), "b");
        let error = storage.commit(cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::SnapshotLimit { limit: 2 });
        let mut other = backup.prepare_spec().await;
        other.token = SetToken::new("other").unwrap();
        let error = storage.prepare(cx, &other).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::SnapshotLimit { limit: 2 });
        assert_eq!(error.volume(), Some(&volume("vol")));
    });
}

/// What brings every file of a copy out of snapshots, to where it was.
fn restore_of(backup: &Backup, snapshots: &[Snapshot], key: &str) -> StageSpec {
    let files = snapshots.iter().flat_map(|snapshot| {
        snapshot.files.iter().map(|file| RestoredFile {
            snapshot: snapshot.reference(),
            original: file.path.clone(),
            target: file.path.clone(),
        })
    });
    assert!(!backup.copies.is_empty());
    StageSpec::new(RestoreKey::new(key).unwrap(), files.collect())
}

#[test]
fn s7_restore_elsewhere_is_by_clone_and_can_be_taken_back() {
    let (time, world, backup) = one();
    time.run(async {
        let cx = &backup.cx;
        let (_, snapshots) = backup.taken().await;
        let restore = backup.storage.restore().unwrap();
        let mut spec = restore_of(&backup, &snapshots, "r1");
        for file in &mut spec.files {
            let raw = file.original.as_str().replace("D:", r"R:\Lab").replace("L:", r"R:\Lab");
            file.target =
                HostPath::new("lab".parse().unwrap(), file.original.flavor(), raw).unwrap();
        }
        let staged = restore.stage(cx, &spec).await.unwrap();
        let target = &spec.files[0].target;
        assert_eq!(world.read(target), None, "nothing under the target's name");
        let readable = staged.exposure.find(&spec.files[0].original).unwrap();
        let bytes = world.read(&readable).unwrap();
        let published = restore.publish(cx, &spec.key).await.unwrap();
        assert_eq!(published, restore.publish(cx, &spec.key).await.unwrap());
        assert_eq!(world.read(target), Some(bytes));
        assert_eq!(world.read(&readable), None);
        let mut again = spec.clone();
        again.key = RestoreKey::new("r2").unwrap();
        let error = restore.stage(cx, &again).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::NameTaken);
        for _ in 0..2 {
            restore.retract(cx, &spec.key).await.unwrap();
        }
        assert_eq!(world.read(target), None);
        for _ in 0..2 {
            restore.unstage(cx, &spec.key).await.unwrap();
        }
        let error = restore.publish(cx, &spec.key).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::NotFound);
    });
    assert!(world.staged().is_empty());
}

#[test]
fn s7_restore_in_place_keeps_the_original_aside_and_mounts() {
    let (time, world, backup) = one();
    time.run(async {
        let cx = &backup.cx;
        let (_, snapshots) = backup.taken().await;
        backup.plugin.abort(cx, backup.session).await.unwrap();
        cx.sleep(s(30)).await.unwrap();
        let copy = &backup.copies[0];
        let restore = backup.storage.restore().unwrap();
        let exchange = backup.plugin.restore().unwrap();
        let spec = restore_of(&backup, &snapshots, "r1").replacing();
        let target = RestoreSpec::new(
            SessionId(Uuid::from_u128(77)),
            copy.database,
            copy.host.clone(),
            spec.files.iter().map(|file| (file.target.clone(), FileRole::Other)).collect(),
        )
        .in_place();
        restore.stage(cx, &spec).await.unwrap();
        let error = restore.publish(cx, &spec.key).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Busy, "the database is mounted");
        exchange.open(cx, &target).await.unwrap();
        exchange.open(cx, &target).await.unwrap();
        let before = world.read(&world.files(copy)[0].path).unwrap();
        let published = restore.publish(cx, &spec.key).await.unwrap();
        assert_eq!(published.kept.len(), spec.files.len());
        assert_ne!(world.read(&published.files[0]).unwrap(), before);
        restore.retract(cx, &spec.key).await.unwrap();
        assert_eq!(world.read(&published.files[0]).unwrap(), before);
        let error = restore.publish(cx, &spec.key).await.unwrap_err();
        assert_eq!(error.kind(), &Kind::NotFound, "it was taken back");
        restore.stage(cx, &spec).await.unwrap();
        restore.publish(cx, &spec.key).await.unwrap();
        let recovered = exchange.finish(cx, &target).await.unwrap();
        assert!(recovered.mounted);
        restore.settle(cx, &spec.key).await.unwrap();
        cx.sleep(s(1)).await.unwrap();
        assert_ne!(world.read(&published.files[0]).unwrap(), before, "it is written again");
        let next = Backup::new(&time, &world, 2, &["DB01"]);
        let (_, snapshots) = next.taken().await;
        assert_eq!(world.shapes(&next.token)[copy], Shape::Quiesced);
        assert!(next.verify(&snapshots).await.verdict(copy).is_good());
    });
    assert!(world.violations().is_empty(), "{:?}", world.violations());
}

#[test]
fn a_restore_that_is_cancelled_mounts_what_was_there() {
    let (time, world, backup) = one();
    let copy = backup.copies[0].clone();
    time.run(async {
        let exchange = backup.plugin.restore().unwrap();
        let target = RestoreSpec::new(
            SessionId(Uuid::from_u128(77)),
            copy.database,
            copy.host.clone(),
            Vec::new(),
        )
        .in_place();
        exchange.open(&backup.cx, &target).await.unwrap();
        backup.begin().await.unwrap_err();
        for _ in 0..2 {
            exchange.cancel(&backup.cx, &target).await.unwrap();
        }
        backup.begin().await.unwrap();
    });
    assert_eq!(world.violations().len(), 1, "a backup was tried during the restore");
}

#[test]
fn s8_documents_lie_beside_the_data() {
    let (time, _, backup) = one();
    time.run(async {
        let (storage, cx) = (&backup.storage, &backup.cx);
        let (a, b) = (DocName::new("a.json").unwrap(), DocName::new("b.json").unwrap());
        storage.put_doc(cx, &b, b"2").await.unwrap();
        storage.put_doc(cx, &a, b"1").await.unwrap();
        storage.put_doc(cx, &a, b"one").await.unwrap();
        assert_eq!(storage.list_docs(cx).await.unwrap(), [a.clone(), b.clone()]);
        assert_eq!(storage.get_doc(cx, &a).await.unwrap().as_deref(), Some(&b"one"[..]));
        for _ in 0..2 {
            storage.delete_doc(cx, &a).await.unwrap();
        }
        assert_eq!(storage.get_doc(cx, &a).await.unwrap(), None);
        let other = backup.world.storage_named("other");
        assert!(other.list_docs(cx).await.unwrap().is_empty());
    });
}

#[test]
fn lists_come_page_by_page_ours_and_others() {
    let (time, world, mut backup) = one();
    backup.storage = backup.storage.with_behaviour(|how| how.page = 2);
    for name in ["a", "b", "zz"] {
        world.add_foreign_snapshot(&volume("data01"), name);
    }
    time.run(async {
        backup.taken().await;
        let (storage, cx, volume) = (&backup.storage, &backup.cx, volume("data01"));
        let (mut page, mut names) = (None, Vec::new());
        loop {
            let listing = storage.list(cx, &volume, page).await.unwrap();
            assert!(listing.snapshots.len() <= 2);
            names.extend(listing.snapshots.iter().map(|snapshot| snapshot.token.is_some()));
            page = listing.next;
            if page.is_none() {
                break;
            }
        }
        assert_eq!(names, [false, false, true, false]);
    });
}

#[test]
fn a_prepared_set_may_be_used_by_another_process() {
    let (time, world, backup) = one();
    let prepared = time.run(backup.frozen());
    let stored = serde_json::to_string(&prepared).unwrap();
    let read: Prepared = serde_json::from_str(&stored).unwrap();
    let other = world.storage();
    time.run(other.commit(&time.cx(1, "other", 1), &read)).unwrap();
    assert_eq!(world.snapshots().len(), 2);
    let run = RunId(Uuid::from_u128(1));
    assert!(world.calls().of_run(run).iter().any(|call| call.name == "commit"));
}

#[test]
fn damage_to_what_is_stored_is_found_where_it_is() {
    let (time, world, backup) = one();
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        let copy = &backup.copies[0];
        let database = &snapshots[0].files[0].path;
        assert!(backup.verify(&snapshots).await.verdict(copy).is_good());
        world.damage().stored_file(&snapshots[0].reference(), database, 8 * 64 * 5 + 100);
        let verdict = backup.verify(&snapshots).await.verdict(copy);
        assert!(verdict.to_string().contains("DB01.edb"), "{verdict}");
        world.damage().stored_file(&snapshots[0].reference(), database, 8 * 64 * 5 + 100);
        assert!(backup.verify(&snapshots).await.verdict(copy).is_good());
        let log = snapshots[1].files.iter().find(|file| file.path.as_str().ends_with("3.log"));
        let log = &log.unwrap().path;
        world.damage().truncate_stored(&snapshots[1].reference(), log, 20);
        assert!(backup.verify(&snapshots).await.verdict(copy).is_bad());
    });
}

#[test]
fn a_missing_log_is_a_gap() {
    let (time, world, backup) = one();
    let copy = backup.copies[0].clone();
    let closed: Vec<_> = world.files(&copy).iter().filter_map(|file| file.generation).collect();
    world.damage().remove_log(&copy, *closed.last().unwrap());
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        let verdict = backup.verify(&snapshots).await.verdict(&copy);
        assert!(verdict.to_string().contains("is missing"), "{verdict}");
    });
}
