//! Which volume is which, and what is refused when the provider is opened.

mod tests {
    crate::on_btrfs! { "identity::tests":
        a_volume_is_its_subvolume_wherever_it_is
        a_subvolume_in_the_place_of_another_is_another_volume
        what_is_no_subvolume_or_lies_elsewhere_is_refused
        what_is_refused_leaves_nothing_behind
        a_quota_bounds_the_room
    }
}

mod cases {
    use std::fs;

    use stillpoint_context::{Effect, ErrorFacts};
    use stillpoint_storage::{ProviderErrorKind, SnapshotProvider};
    use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider, is_subvolume};

    use crate::support::{Lab, assert_kind, names, run};

    pub(super) fn a_volume_is_its_subvolume_wherever_it_is(lab: &Lab) {
        let known = lab.volume("mail");
        lab.take(&lab.provider(), "t1");
        fs::rename(lab.path("mail"), lab.path("renamed")).unwrap();
        let config = || {
            BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), lab.path("store"))
        };
        let moved = BtrfsProvider::open(&config().with_volume(lab.path("renamed"))).unwrap();
        assert_eq!(moved.volume(&lab.path("renamed")).unwrap(), known);
        let listing = lab.run(moved.list(&lab.cx, &known, None)).unwrap();
        assert_eq!(listing.snapshots.len(), 1);
        // Also below another mount, as a mount point of its own.
        let elsewhere = lab.at.with_file_name("elsewhere");
        lab.mount_again("subvol=renamed", &elsewhere);
        let mounted = BtrfsProvider::open(&config().with_volume(&elsewhere)).unwrap();
        assert_eq!(mounted.volume(&elsewhere).unwrap(), known);
        // What is gone can still be restored from.
        let gone = BtrfsProvider::open(&lab.config());
        assert_kind(gone, &ProviderErrorKind::NotFound);
        fs::rename(lab.path("renamed"), lab.path("mail")).unwrap();
        assert_eq!(lab.volume("mail"), known);
        run("umount", &[elsewhere.to_str().unwrap()]);
        run("btrfs", &["subvolume", "delete", &lab.text("mail")]);
        assert_eq!(lab.volume("mail"), known, "the store knows what was there");
    }

    pub(super) fn a_subvolume_in_the_place_of_another_is_another_volume(lab: &Lab) {
        let provider = lab.provider();
        let (known, spec) = (lab.volume("mail"), lab.spec("t1"));
        lab.run(async {
            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            fs::rename(lab.path("mail"), lab.path("away")).unwrap();
            let (from, to) = (lab.text("away"), lab.text("mail"));
            run("btrfs", &["subvolume", "snapshot", &from, &to]);
            // What was prepared is not there any more, and nothing is taken.
            let refused = provider.commit(&lab.cx, &prepared).await;
            assert_kind(refused, &ProviderErrorKind::Vanished);
            assert!(!lab.path("store/sets/t1.partial/m0/v").exists());
            let refused = provider.prepare(&lab.cx, &spec).await;
            assert_kind(refused, &ProviderErrorKind::NotFound);
        });
        assert_ne!(lab.volume("mail"), known);
    }

    pub(super) fn what_is_no_subvolume_or_lies_elsewhere_is_refused(lab: &Lab) {
        fs::create_dir(lab.path("folder")).unwrap();
        assert!(is_subvolume(&lab.path("mail")).unwrap());
        assert!(!is_subvolume(&lab.path("folder")).unwrap());
        assert!(!is_subvolume(std::path::Path::new("/proc")).unwrap());
        let invalid = ProviderErrorKind::Invalid;
        let config = lab.config().with_volume(lab.path("folder"));
        let error = assert_kind(BtrfsProvider::open(&config), &invalid);
        assert!(error.to_string().contains("no subvolume"), "{error}");
        let outside = tempfile::tempdir().unwrap();
        let mut config = lab.config();
        config.store = outside.path().join("store");
        assert_kind(BtrfsProvider::open(&config), &invalid);
        config.store = lab.path("mail/store");
        assert_kind(BtrfsProvider::open(&config), &invalid);
        assert!(!lab.path("mail/store").exists());
        let config = lab.config().with_volume(lab.path("mail/../mail"));
        assert_kind(BtrfsProvider::open(&config), &invalid);
        // The same subvolume under another mount is the same volume.
        let elsewhere = lab.at.with_file_name("elsewhere");
        lab.mount_again("subvol=mail", &elsewhere);
        let config = lab.config().with_volume(&elsewhere);
        let error = assert_kind(BtrfsProvider::open(&config), &invalid);
        assert!(error.to_string().contains("are one"), "{error}");
        let mut existing = lab.config().with_existing_store();
        existing.store = lab.path("not-there");
        assert_kind(BtrfsProvider::open(&existing), &ProviderErrorKind::NotFound);
    }

    pub(super) fn what_is_refused_leaves_nothing_behind(lab: &Lab) {
        fs::create_dir(lab.path("folder")).unwrap();
        fs::write(lab.path("file"), b"x").unwrap();
        let outside = tempfile::tempdir().unwrap();
        let elsewhere = outside.path().join("mail");
        fs::create_dir(&elsewhere).unwrap();
        let config = |volume: &std::path::Path, store: &std::path::Path| {
            BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), store)
                .with_volume(volume)
        };
        let (store, other) = (lab.path("deep/store"), outside.path().join("store"));
        let no_btrfs = [config(&elsewhere, &other), config(&elsewhere, &store)];
        for config in no_btrfs.into_iter().chain([config(&lab.path("mail"), &other)]) {
            for refused in [BtrfsProvider::check(&config).err(), BtrfsProvider::open(&config).err()]
            {
                let error = refused.expect("it is no btrfs");
                assert_eq!(*error.kind(), ProviderErrorKind::Invalid);
                assert_eq!(error.effect(), Effect::None);
                assert!(error.to_string().ends_with("does not lie on a btrfs"), "{error}");
                assert!(error.remedy().contains("no btrfs"), "{}", error.remedy());
            }
        }
        for (volume, kind) in [
            ("folder", ProviderErrorKind::Invalid),
            ("file", ProviderErrorKind::Invalid),
            ("gone", ProviderErrorKind::NotFound),
        ] {
            let config = config(&lab.path(volume), &store);
            assert_kind(BtrfsProvider::check(&config), &kind);
            let error = assert_kind(BtrfsProvider::open(&config), &kind);
            assert_eq!(error.effect(), Effect::None);
        }
        assert_eq!(names(outside.path()), ["mail"]);
        assert_eq!(names(&elsewhere), Vec::<String>::new());
        assert_eq!(names(&lab.at), ["file", "folder", "logs", "mail"]);
        // What is not refused makes nothing by being looked at.
        BtrfsProvider::check(&config(&lab.path("mail"), &store)).unwrap();
        assert_eq!(names(&lab.at), ["file", "folder", "logs", "mail"]);
    }

    pub(super) fn a_quota_bounds_the_room(lab: &Lab) {
        let provider = lab.provider();
        let volumes = [lab.volume("mail"), lab.volume("logs")];
        let at = lab.at.to_str().unwrap();
        run("btrfs", &["quota", "enable", at]);
        run("btrfs", &["quota", "rescan", "-w", at]);
        run("btrfs", &["qgroup", "limit", "20M", &lab.text("mail")]);
        run("btrfs", &["filesystem", "sync", at]);
        let facts = lab.run(provider.volumes(&lab.cx, &volumes)).unwrap();
        let (mail, logs) = (facts[0].free_bytes.unwrap(), facts[1].free_bytes.unwrap());
        assert!(mail < 20 << 20, "{mail}");
        assert!(logs > 100 << 20, "{logs}");
        assert_eq!(facts[0].name.as_deref(), lab.path("mail").to_str());
        assert_eq!(facts[0].snapshot_limit, None);
        // A snapshot is taken all the same: it takes no room of the volume's.
        lab.write("mail/fill", &vec![1; 15 << 20]);
        lab.take(&provider, "t1");
    }
}
