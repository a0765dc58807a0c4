//! Reverting a real subvolume. That a revert may die anywhere is tested in `stillpoint-storage-fs`.

mod tests {
    crate::on_btrfs! { "revert::tests":
        a_volume_is_reverted_and_stays_the_same_volume
        a_volume_that_cannot_be_swapped_is_refused
        where_reverts_are_not_wanted_they_are_no_capability
        what_is_held_or_locked_stays_over_reverts
    }
}

mod cases {
    use std::fs;

    use chrono::TimeDelta;
    use stillpoint_storage::{
        Collateral, Consent, Found, HoldName, ProviderErrorKind, SnapshotProvider,
    };
    use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider};

    use crate::support::{Lab, assert_kind, names, run, tree};

    pub(super) fn a_volume_is_reverted_and_stays_the_same_volume(lab: &Lab) {
        let provider = lab.provider();
        let known = lab.volume("mail");
        lab.take(&provider, "t1");
        let first = tree(&lab.path("mail"));
        lab.write("mail/DB01.edb", b"second");
        lab.take(&provider, "t2");
        let second = tree(&lab.path("mail"));
        lab.write("mail/other.edb", b"somebody else's");
        let before = names(&lab.at);
        let side = provider.restore().unwrap();
        lab.run(async {
            let cx = &lab.cx;
            // To the older one, to the newer one, and to the older one again.
            for (token, content) in [("t1", &first), ("t2", &second), ("t1", &first)] {
                let snapshot = [lab.snapshot("mail", token)];
                let lost = side.collateral(cx, &snapshot).await.unwrap();
                assert!(lost.newer.is_empty());
                let refused = Consent(Collateral::default());
                if !lost.files.is_empty() {
                    let refused = side.revert(cx, &snapshot, &refused).await;
                    assert_kind(refused, &ProviderErrorKind::Collateral);
                }
                let done = side.revert(cx, &snapshot, &Consent(lost)).await.unwrap();
                assert_eq!(done, std::slice::from_ref(&known));
                assert_eq!(tree(&lab.path("mail")), *content);
                assert_eq!(names(&lab.at), before, "nothing is left beside it");
                assert_eq!(lab.volume("mail"), known);
                lab.write("mail/after.edb", b"it can be written");
                fs::remove_file(lab.path("mail/after.edb")).unwrap();
            }
            // No snapshot is lost, also of the subvolumes that are gone, and new ones can be taken by the same provider.
            for token in ["t1", "t2"] {
                let found = provider.find(cx, &token.parse().unwrap()).await.unwrap();
                assert!(matches!(found, Found::Complete(_)), "{found:?}");
            }
            let prepared = provider.prepare(cx, &lab.spec("t3")).await.unwrap();
            provider.commit(cx, &prepared).await.unwrap();
            provider.settle(cx, &prepared).await.unwrap();
            let listing = provider.list(cx, &known, None).await.unwrap();
            assert_eq!(listing.snapshots.len(), 3, "{listing:?}");
        });
    }

    pub(super) fn a_volume_that_cannot_be_swapped_is_refused(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        let snapshot = [lab.snapshot("mail", "t1")];
        lab.subvolume("mail/nested");
        lab.write("mail/nested/precious", b"x");
        let side = provider.restore().unwrap();
        lab.run(async {
            let lost = side.collateral(&lab.cx, &snapshot).await.unwrap();
            let error = assert_kind(
                side.revert(&lab.cx, &snapshot, &Consent(lost)).await,
                &ProviderErrorKind::Dependents,
            );
            assert!(error.to_string().contains("nested"), "{error}");
            assert_eq!(fs::read(lab.path("mail/nested/precious")).unwrap(), b"x");
        });
        run("btrfs", &["subvolume", "delete", &lab.text("mail/nested")]);
        let elsewhere = lab.at.with_file_name("elsewhere");
        lab.mount_again("subvol=mail", &elsewhere);
        let config =
            BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), lab.path("store"));
        let mounted = BtrfsProvider::open(&config.with_volume(&elsewhere)).unwrap();
        let side = mounted.restore().unwrap();
        lab.run(async {
            let lost = side.collateral(&lab.cx, &snapshot).await.unwrap();
            let refused = side.revert(&lab.cx, &snapshot, &Consent(lost)).await;
            let error = assert_kind(refused, &ProviderErrorKind::Unsupported("revert"));
            assert!(error.to_string().contains("mount point"), "{error}");
        });
        assert!(names(&lab.path("store/reverts")).iter().all(|name| name == "lock"));
    }

    pub(super) fn where_reverts_are_not_wanted_they_are_no_capability(lab: &Lab) {
        lab.take(&lab.provider(), "t1");
        let provider = BtrfsProvider::open(&lab.config().without_revert()).unwrap();
        assert!(!provider.caps().revert && provider.caps().clone);
        let snapshot = [lab.snapshot("mail", "t1")];
        let (side, kind) = (provider.restore().unwrap(), ProviderErrorKind::Unsupported("revert"));
        lab.run(async {
            assert_kind(side.collateral(&lab.cx, &snapshot).await, &kind);
            let consent = Consent(Collateral::default());
            assert_kind(side.revert(&lab.cx, &snapshot, &consent).await, &kind);
        });
    }

    pub(super) fn what_is_held_or_locked_stays_over_reverts(lab: &Lab) {
        let provider = lab.provider();
        lab.take(&provider, "t1");
        lab.take(&provider, "t2");
        let (older, newer) = (lab.snapshot("mail", "t1"), lab.snapshot("mail", "t2"));
        let locks = provider.lock().unwrap();
        let side = provider.restore().unwrap();
        lab.run(async {
            let cx = &lab.cx;
            let until = cx.now() + TimeDelta::days(1);
            locks.lock(cx, &newer, until).await.unwrap();
            locks.hold(cx, &older, &HoldName::new("case-7").unwrap()).await.unwrap();
            let older = [older];
            let lost = side.collateral(cx, &older).await.unwrap();
            side.revert(cx, &older, &Consent(lost)).await.unwrap();
            let locked = ProviderErrorKind::Locked { until };
            assert_kind(provider.delete(cx, &newer).await, &locked);
            assert_kind(provider.discard(cx, &"t2".parse().unwrap()).await, &locked);
            assert_kind(provider.delete(cx, &older[0]).await, &ProviderErrorKind::Held);
            assert!(lab.path("store/sets/t2/m0/v/DB01.edb").exists());
        });
    }
}
