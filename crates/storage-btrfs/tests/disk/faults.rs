//! What happens to a file system in the middle: full, read-only, gone, a snapshot deleted by hand.

mod tests {
    crate::on_btrfs! { "faults::tests":
        a_snapshot_deleted_by_hand_is_missed
        a_read_only_file_system_is_said
        a_file_system_that_is_gone_is_said_and_nothing_is_made_in_its_place
        a_full_file_system_is_said_before_the_freeze
        a_file_that_vanishes_before_the_commit_fails_the_set
    }
}

mod cases {
    use std::fs;

    use stillpoint_context::{Effect, ErrorFacts};
    use stillpoint_storage::{
        Deleted, Discarded, ExposureKey, Found, ProviderErrorKind, SnapshotProvider,
    };

    use crate::support::{Lab, assert_kind, names, run};

    pub(super) fn a_snapshot_deleted_by_hand_is_missed(lab: &Lab) {
        let provider = lab.provider();
        let (_, set) = lab.take(&provider, "t1");
        run("btrfs", &["subvolume", "delete", &lab.text("store/sets/t1/m0/v")]);
        let (host, key) = ("lab".parse().unwrap(), ExposureKey::new("k").unwrap());
        lab.run(async {
            let cx = &lab.cx;
            let found = provider.find(cx, &"t1".parse().unwrap()).await.unwrap();
            assert_eq!(found, Found::Partial(vec![set[1].clone()]));
            let gone = [set[0].reference()];
            let exposed = provider.expose(cx, &gone, &host, &key).await;
            assert_kind(exposed, &ProviderErrorKind::NotFound);
            let listing = provider.list(cx, &lab.volume("mail"), None).await.unwrap();
            assert!(listing.snapshots.is_empty(), "{listing:?}");
            assert_eq!(provider.delete(cx, &gone[0]).await.unwrap(), Deleted::Gone);
            assert_eq!(provider.delete(cx, &set[1].reference()).await.unwrap(), Deleted::Gone);
        });
        assert_eq!(lab.sets(), Vec::<String>::new());
    }

    pub(super) fn a_read_only_file_system_is_said(lab: &Lab) {
        let provider = lab.provider();
        let (_, set) = lab.take(&provider, "t1");
        let (t2, t3) = (lab.spec("t2"), lab.spec("t3"));
        lab.run(async {
            let cx = &lab.cx;
            let prepared = provider.prepare(cx, &t2).await.unwrap();
            lab.remount("ro");
            let read_only = ProviderErrorKind::ReadOnly;
            let error = assert_kind(provider.prepare(cx, &t3).await, &read_only);
            assert_eq!(error.class(), stillpoint_context::ErrorClass::Conflict);
            assert_kind(provider.commit(cx, &prepared).await, &read_only);
            assert_kind(provider.discard(cx, &t2.token).await, &read_only);
            assert_kind(provider.delete(cx, &set[0].reference()).await, &read_only);
            // What only reads goes on.
            let found = provider.find(cx, &"t1".parse().unwrap()).await.unwrap();
            assert_eq!(found, Found::Complete(set));
            lab.remount("rw");
            assert_eq!(provider.discard(cx, &t2.token).await.unwrap(), Discarded::Gone);
        });
        assert_eq!(lab.sets(), ["t1"]);
    }

    pub(super) fn a_file_system_that_is_gone_is_said_and_nothing_is_made_in_its_place(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        let (t2, t3) = (lab.spec("t2"), lab.spec("t3"));
        lab.run(async {
            let cx = &lab.cx;
            let prepared = provider.prepare(cx, &t2).await.unwrap();
            lab.unmount();
            assert!(provider.prepare(cx, &t3).await.is_err());
            assert!(provider.commit(cx, &prepared).await.is_err());
            assert!(provider.list_docs(cx).await.is_err());
            assert_eq!(names(&lab.at), Vec::<String>::new());
            lab.mount();
            // It is all there again, for the same provider.
            let found = provider.find(cx, &"t1".parse().unwrap()).await.unwrap();
            assert!(matches!(found, Found::Complete(_)), "{found:?}");
            provider.commit(cx, &prepared).await.unwrap();
            provider.settle(cx, &prepared).await.unwrap();
        });
        assert_eq!(lab.sets(), ["t1", "t2"]);
    }

    pub(super) fn a_full_file_system_is_said_before_the_freeze(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        let spec = lab.spec("t2");
        // Less than what always stays free is left. Reserved, not written: that is as full, and sooner.
        let room = run("stat", &["-f", "-c", "%a %S", lab.at.to_str().unwrap()]);
        let room = String::from_utf8(room.stdout).unwrap();
        let (blocks, size) = room.trim().split_once(' ').unwrap();
        let free = blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap();
        let fill = (free - (8 << 20)).to_string();
        run("fallocate", &["-l", &fill, &lab.text("filler")]);
        run("btrfs", &["filesystem", "sync", lab.at.to_str().unwrap()]);
        let refused = lab.run(provider.prepare(&lab.cx, &spec));
        let error = assert_kind(refused, &ProviderErrorKind::NoSpace);
        assert!(!error.remedy().is_empty());
        fs::remove_file(lab.path("filler")).unwrap();
        run("btrfs", &["filesystem", "sync", lab.at.to_str().unwrap()]);
        lab.run(async {
            assert_eq!(provider.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
        });
        lab.take(&provider, "t2");
        assert_eq!(lab.sets(), ["t1", "t2"]);
    }

    pub(super) fn a_file_that_vanishes_before_the_commit_fails_the_set(lab: &Lab) {
        let provider = lab.provider();
        let spec = lab.spec("t1");
        lab.run(async {
            let cx = &lab.cx;
            let prepared = provider.prepare(cx, &spec).await.unwrap();
            fs::remove_file(lab.path("mail/sub/DB02.edb")).unwrap();
            provider.commit(cx, &prepared).await.unwrap();
            let error =
                assert_kind(provider.settle(cx, &prepared).await, &ProviderErrorKind::Vanished);
            assert!(error.to_string().contains("DB02.edb"), "{error}");
            assert_eq!(error.effect(), Effect::Unknown);
            assert_eq!(provider.discard(cx, &spec.token).await.unwrap(), Discarded::Gone);
            let missing = provider.prepare(cx, &spec).await;
            assert_kind(missing, &ProviderErrorKind::Vanished);
        });
        assert_eq!(lab.sets(), Vec::<String>::new());
    }
}
