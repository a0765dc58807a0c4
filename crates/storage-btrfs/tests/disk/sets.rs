//! Sets: taken, settled, found, exposed, restored, removed.

mod tests {
    crate::on_btrfs! { "sets::tests":
        a_set_is_what_was_there_at_its_commit
        a_commit_repeated_is_the_same_snapshots_and_a_half_made_one_is_made_anew
        what_was_taken_before_a_crash_can_be_settled_after_it
        an_exposure_is_read_only_and_keeps_its_snapshot
        files_are_restored_by_clone
        a_restore_is_taken_back_after_the_file_system_was_mounted_again
        what_is_not_in_a_snapshot_under_its_name_is_refused_before_the_freeze
        foreign_snapshots_are_listed_and_never_touched
        a_snapshot_that_appears_late_goes_with_its_set
    }
}

mod cases {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use chrono::TimeDelta;
    use stillpoint_storage::{
        Deleted, Discarded, ExposureKey, Found, MemberRole, MemberSpec, PrepareSpec,
        ProviderErrorKind, RestoreKey, RestoredFile, SnapshotId, SnapshotProvider, SnapshotRef,
        StageSpec,
    };

    use crate::support::{Lab, assert_kind, names, run, tree};

    pub(super) fn a_set_is_what_was_there_at_its_commit(lab: &Lab) {
        let provider = lab.provider();
        let caps = provider.caps();
        assert!(caps.instant && caps.clone && caps.revert && caps.lock && !caps.atomic_group);
        let spec = lab.spec("t1").with_limit(Some(Duration::from_mins(1)));
        let (mail, logs) = (tree(&lab.path("mail")), tree(&lab.path("logs")));
        lab.run(async {
            let cx = &lab.cx;
            let prepared = provider.prepare(cx, &spec).await.unwrap();
            assert!(prepared.worst_case.unwrap() < Duration::from_mins(1));
            assert_eq!(provider.find(cx, &spec.token).await.unwrap(), Found::Absent);
            let before = cx.now();
            let members = provider.commit(cx, &prepared).await.unwrap();
            let after = cx.now();
            // By the clock of the file system, whose tick is 10 ms at most: taken by then at the latest.
            let latest = after + TimeDelta::milliseconds(10);
            assert!(members.iter().all(|m| before <= m.taken_at && m.taken_at <= latest));
            assert_eq!(provider.commit(cx, &prepared).await.unwrap(), members);
            // Written after the commit: in no snapshot.
            lab.write("mail/DB01.edb", b"overwritten");
            lab.write("mail/new.edb", b"new");
            assert!(matches!(provider.find(cx, &spec.token).await.unwrap(), Found::Complete(_)));
            let settled = provider.settle(cx, &prepared).await.unwrap();
            assert_eq!(settled, provider.settle(cx, &prepared).await.unwrap());
            assert_eq!(settled.len(), 2);
            assert_eq!(settled[0].tags["run"], "r1");
            assert!(settled[0].files.iter().all(|file| file.seal.is_none()));
            let fresh = lab.provider();
            let found = fresh.find(cx, &spec.token).await.unwrap();
            assert_eq!(found, Found::Complete(settled.clone()));
            assert_eq!(tree(&lab.path("store/sets/t1/m0/v")), mail);
            assert_eq!(tree(&lab.path("store/sets/t1/m1/v")), logs);
            assert!(fs::write(lab.path("store/sets/t1/m0/v/DB01.edb"), b"x").is_err(), "read-only");
            // A limit that cannot be held is refused, and nothing stays.
            let short = lab.spec("t2").with_limit(Some(Duration::from_millis(1)));
            let refused = provider.prepare(cx, &short).await.unwrap_err();
            assert!(matches!(refused.kind(), ProviderErrorKind::TooSlow { .. }), "{refused}");
            assert_eq!(lab.sets(), ["t1"]);
            // One by one.
            let facts = provider.volumes(cx, &[lab.volume("mail")]).await.unwrap();
            assert_eq!(facts[0].snapshots_used, 1);
            let first = settled[0].reference();
            assert_eq!(fresh.delete(cx, &first).await.unwrap(), Deleted::Gone);
            assert_eq!(fresh.delete(cx, &first).await.unwrap(), Deleted::Gone);
            let left = fresh.find(cx, &spec.token).await.unwrap();
            assert_eq!(left, Found::Partial(vec![settled[1].clone()]));
            assert_eq!(fresh.delete(cx, &settled[1].reference()).await.unwrap(), Deleted::Gone);
            assert_eq!(fresh.find(cx, &spec.token).await.unwrap(), Found::Absent);
            assert_eq!(lab.sets(), Vec::<String>::new());
            let facts = provider.volumes(cx, &[lab.volume("mail")]).await.unwrap();
            assert_eq!(facts[0].snapshots_used, 0);
        });
    }

    pub(super) fn a_commit_repeated_is_the_same_snapshots_and_a_half_made_one_is_made_anew(
        lab: &Lab,
    ) {
        let provider = lab.provider();
        lab.run(async {
            let cx = &lab.cx;
            let prepared = provider.prepare(cx, &lab.spec("t1")).await.unwrap();
            provider.commit(cx, &prepared).await.unwrap();
            let then = tree(&lab.path("mail"));
            lab.write("mail/DB01.edb", b"later");
            let other = lab.provider();
            other.commit(cx, &prepared).await.unwrap();
            assert_eq!(tree(&lab.path("store/sets/t1.partial/m0/v")), then);
            // One of the two is there: both are made anew, of one instant.
            let half = lab.text("store/sets/t1.partial/m1/v");
            run("btrfs", &["subvolume", "delete", &half]);
            let found = other.find(cx, &prepared.token).await.unwrap();
            assert!(matches!(&found, Found::Partial(some) if some.len() == 1), "{found:?}");
            assert_kind(other.settle(cx, &prepared).await, &ProviderErrorKind::NotFound);
            other.commit(cx, &prepared).await.unwrap();
            other.settle(cx, &prepared).await.unwrap();
            assert_eq!(tree(&lab.path("store/sets/t1/m0/v")), tree(&lab.path("mail")));
            // Once it was discarded, a commit brings nothing back.
            other.discard(cx, &prepared.token).await.unwrap();
            assert_kind(other.commit(cx, &prepared).await, &ProviderErrorKind::Expired);
            assert_eq!(lab.sets(), Vec::<String>::new());
        });
    }

    pub(super) fn what_was_taken_before_a_crash_can_be_settled_after_it(lab: &Lab) {
        let provider = lab.provider();
        let prepared = lab.run(async {
            let prepared = provider.prepare(&lab.cx, &lab.spec("t1")).await.unwrap();
            provider.commit(&lab.cx, &prepared).await.unwrap();
            prepared
        });
        let then = tree(&lab.path("mail"));
        drop(provider);
        // Device numbers are other ones after this, as after a restart.
        lab.unmount();
        lab.mount();
        lab.run(async {
            let fresh = lab.provider();
            let found = fresh.find(&lab.cx, &prepared.token).await.unwrap();
            assert!(matches!(found, Found::Complete(_)), "{found:?}");
            fresh.settle(&lab.cx, &prepared).await.unwrap();
            assert_eq!(tree(&lab.path("store/sets/t1/m0/v")), then);
        });
    }

    pub(super) fn an_exposure_is_read_only_and_keeps_its_snapshot(lab: &Lab) {
        let provider = lab.provider();
        let (_, set) = lab.take(&provider, "t1");
        let (host, key) = ("lab".parse().unwrap(), ExposureKey::new("look").unwrap());
        let all: Vec<_> = set.iter().map(stillpoint_storage::Snapshot::reference).collect();
        lab.run(async {
            let cx = &lab.cx;
            let exposure = provider.expose(cx, &all, &host, &key).await.unwrap();
            let file = exposure.find(&lab.host_path("mail/sub/DB02.edb")).unwrap();
            let file = file.to_native().unwrap();
            assert_eq!(fs::read(&file).unwrap(), fs::read(lab.path("mail/sub/DB02.edb")).unwrap());
            assert!(fs::File::options().append(true).open(&file).is_err(), "read-only");
            let fresh = lab.provider();
            assert_eq!(fresh.exposures(cx).await.unwrap(), [exposure]);
            assert_kind(fresh.delete(cx, &all[0]).await, &ProviderErrorKind::Dependents);
            let discarded = fresh.discard(cx, &"t1".parse().unwrap()).await;
            assert_kind(discarded, &ProviderErrorKind::Dependents);
            fresh.unexpose(cx, &key).await.unwrap();
            assert_eq!(fresh.delete(cx, &all[0]).await.unwrap(), Deleted::Gone);
        });
    }

    pub(super) fn files_are_restored_by_clone(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        let then = tree(&lab.path("mail"));
        lab.write("mail/DB01.edb", b"broken");
        lab.subvolume("elsewhere");
        let file = |name: &str, to: &str| RestoredFile {
            snapshot: lab.snapshot("mail", "t1"),
            original: lab.host_path(&format!("mail/{name}")),
            target: lab.host_path(&format!("{to}/{name}")),
        };
        let side = provider.restore().unwrap();
        lab.run(async {
            for (key, to) in [("back", "mail"), ("away", "elsewhere")] {
                let files = vec![file("DB01.edb", to), file("sub/DB02.edb", to)];
                let key = RestoreKey::new(key).unwrap();
                let spec = StageSpec::new(key.clone(), files).replacing();
                let staged = side.stage(&lab.cx, &spec).await.unwrap();
                assert_eq!(staged.bytes, 0, "by clone, to {to}");
                side.publish(&lab.cx, &key).await.unwrap();
                side.settle(&lab.cx, &key).await.unwrap();
                assert_eq!(tree(&lab.path(to)), then);
            }
        });
    }

    /// As after a restart: the device number of a subvolume is another one at each mount.
    pub(super) fn a_restore_is_taken_back_after_the_file_system_was_mounted_again(lab: &Lab) {
        use std::os::unix::fs::MetadataExt as _;

        let provider = lab.provider();
        lab.take(&provider, "t1");
        lab.write("mail/DB01.edb", b"what is there now");
        let (before, then) = (tree(&lab.path("mail")), lab.path("store/sets/t1/m0/v/DB01.edb"));
        let then = fs::read(then).unwrap();
        let key = RestoreKey::new("back").unwrap();
        let file = RestoredFile {
            snapshot: lab.snapshot("mail", "t1"),
            original: lab.host_path("mail/DB01.edb"),
            target: lab.host_path("mail/DB01.edb"),
        };
        let spec = StageSpec::new(key.clone(), vec![file]).replacing();
        lab.run(async {
            let side = provider.restore().unwrap();
            side.stage(&lab.cx, &spec).await.unwrap();
            side.publish(&lab.cx, &key).await.unwrap();
        });
        assert_eq!(fs::read(lab.path("mail/DB01.edb")).unwrap(), then);
        let device = fs::metadata(lab.path("mail")).unwrap().dev();
        drop(provider);
        lab.unmount();
        // The numbers that have become free go to others.
        for index in 0..32 {
            let other = lab.at.with_file_name(format!("other-{index}"));
            fs::create_dir(&other).unwrap();
            run("mount", &["-t", "tmpfs", "none", other.to_str().unwrap()]);
        }
        lab.mount();
        assert_ne!(fs::metadata(lab.path("mail")).unwrap().dev(), device, "the test tests nothing");
        lab.run(async {
            let provider = lab.provider();
            let side = provider.restore().unwrap();
            side.retract(&lab.cx, &key).await.unwrap();
            side.unstage(&lab.cx, &key).await.unwrap();
        });
        assert_eq!(tree(&lab.path("mail")), before);
    }

    pub(super) fn what_is_not_in_a_snapshot_under_its_name_is_refused_before_the_freeze(lab: &Lab) {
        lab.subvolume("mail/nested");
        lab.write("mail/nested/DB03.edb", b"x");
        symlink(lab.path("mail/DB01.edb"), lab.path("mail/link.edb")).unwrap();
        symlink(lab.path("logs/E00.log"), lab.path("mail/out.log")).unwrap();
        let provider = lab.provider();
        lab.run(async {
            for name in ["nested/DB03.edb", "link.edb", "out.log"] {
                let files = vec![lab.host_path(&format!("mail/{name}"))];
                let member = MemberSpec::new(lab.volume("mail"), MemberRole::Data, files);
                let spec = PrepareSpec::new("t1".parse().unwrap(), "t1").with_member(member);
                let refused = provider.prepare(&lab.cx, &spec).await;
                let error = assert_kind(refused, &ProviderErrorKind::PathEscapes);
                assert!(error.to_string().contains(name), "{error}");
            }
            // And it is not said to lie on the volume.
            let asked = [lab.host_path("mail/DB01.edb"), lab.host_path("mail/nested/DB03.edb")];
            let placed = provider.resolve(&lab.cx, &asked).await.unwrap();
            assert_eq!(placed.len(), 1, "{placed:?}");
            assert_eq!(placed[0].inside, "DB01.edb");
            assert_eq!(placed[0].volume, lab.volume("mail"));
        });
        assert_eq!(lab.sets(), Vec::<String>::new());
    }

    pub(super) fn foreign_snapshots_are_listed_and_never_touched(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        let snap = |from: &str, to: &str| {
            run("btrfs", &["subvolume", "snapshot", "-r", &lab.text(from), &lab.text(to)]);
        };
        snap("mail", "by-hand");
        // In our own folder, under a name that could be ours, and in a folder that could be a set's.
        snap("mail", "store/sets/t2");
        fs::create_dir_all(lab.path("store/sets/t3/m0")).unwrap();
        snap("mail", "store/sets/t3/m0/v");
        snap("logs", "of-the-logs");
        lab.run(async {
            let cx = &lab.cx;
            let listing = provider.list(cx, &lab.volume("mail"), None).await.unwrap();
            assert_eq!(listing.next, None);
            let ours: Vec<_> =
                listing.snapshots.iter().filter(|snapshot| snapshot.token.is_some()).collect();
            assert_eq!(ours.len(), 1);
            let others = listing.snapshots.iter().filter(|snapshot| snapshot.token.is_none());
            let mut others: Vec<_> = others.collect();
            others.sort_by(|a, b| a.name.cmp(&b.name));
            let known: Vec<_> = others.iter().map(|snapshot| snapshot.name.as_str()).collect();
            assert_eq!(known, ["by-hand", "t2", "t3"], "and none of the other volume");
            for snapshot in others {
                let refused = provider.delete(cx, &snapshot.reference()).await;
                assert_kind(refused, &ProviderErrorKind::Invalid);
            }
            for token in ["t2", "t3"] {
                let refused = provider.prepare(cx, &lab.spec(token)).await;
                assert_kind(refused, &ProviderErrorKind::NameTaken);
                let id = SnapshotRef::new(lab.volume("mail"), SnapshotId::new(token).unwrap());
                assert_kind(provider.delete(cx, &id).await, &ProviderErrorKind::Invalid);
                let token = token.parse().unwrap();
                assert_eq!(provider.find(cx, &token).await.unwrap(), Found::Absent);
                assert_eq!(provider.discard(cx, &token).await.unwrap(), Discarded::Gone);
            }
            provider.discard(cx, &"t1".parse().unwrap()).await.unwrap();
        });
        assert_eq!(tree(&lab.path("by-hand")), tree(&lab.path("mail")));
        assert_eq!(tree(&lab.path("store/sets/t2")), tree(&lab.path("mail")));
        assert_eq!(tree(&lab.path("store/sets/t3/m0/v")), tree(&lab.path("mail")));
        assert_eq!(lab.sets(), ["t2", "t3"]);
    }

    /// A process that is killed while the kernel makes its snapshot: it holds the set's lock until the kernel lets it go, and
    /// the snapshot appears then.
    pub(super) fn a_snapshot_that_appears_late_goes_with_its_set(lab: &Lab) {
        let provider = lab.provider();
        let spec = lab.spec("t1");
        lab.run(async {
            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            let hung = fs::File::open(lab.path("store/sets/t1.partial/lock")).unwrap();
            hung.lock().unwrap();
            let found = provider.find(&lab.cx, &spec.token).await.unwrap();
            assert!(matches!(found, Found::InFlight { .. }), "{found:?}");
            // Nobody waits for long: the call has a deadline of its own.
            let hasty = lab.cx.with_timeout(Duration::from_millis(1));
            let busy = provider.commit(&lab.cx, &prepared).await;
            assert_kind(busy, &ProviderErrorKind::Busy);
            let discarded = provider.discard(&hasty, &spec.token).await.unwrap();
            assert!(matches!(discarded, Discarded::WatchUntil(_)), "{discarded:?}");
            let (mail, late) = (lab.text("mail"), lab.text("store/sets/t1.discarded/m0/v"));
            run("btrfs", &["subvolume", "snapshot", "-r", &mail, &late]);
            drop(hung);
            let discarded = provider.discard(&lab.cx, &spec.token).await.unwrap();
            assert_eq!(discarded, Discarded::Gone);
            assert_eq!(provider.find(&lab.cx, &spec.token).await.unwrap(), Found::Absent);
        });
        assert_eq!(names(&lab.path("store/sets")), Vec::<String>::new());
    }
}
