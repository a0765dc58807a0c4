//! What happens in the middle to files that are cloned or copied: the disk is full, read-only, gone; somebody deletes a set by
//! hand. On btrfs and XFS by reflink, on ext4 by copy. What is taken as subvolumes is in `faults`.

mod tests {
    use crate::inside::inside;
    use crate::trouble::cases;

    /// Each case on each file system.
    macro_rules! everywhere {
        ($($kind:ident: $($name:ident)*;)*) => {
            $(mod $kind {
                $(
                    #[test]
                    fn $name() {
                        let kind = stringify!($kind);
                        let test = format!("trouble::tests::{kind}::{}", stringify!($name));
                        super::inside(kind, &test, || super::cases::$name(kind));
                    }
                )*
            })*
        };
    }

    everywhere! {
        btrfs: a_full_disk a_read_only_disk a_disk_that_is_gone a_set_deleted_by_hand;
        xfs: a_full_disk a_read_only_disk a_disk_that_is_gone a_set_deleted_by_hand;
        ext4: a_full_disk a_read_only_disk a_disk_that_is_gone a_set_deleted_by_hand;
    }
}

mod cases {
    use std::fs;
    use std::path::{Path, PathBuf};

    use stillpoint_context::{Cx, ErrorFacts, HostPath};
    use stillpoint_storage::{
        Deleted, Discarded, ExposureKey, Found, MemberRole, MemberSpec, PrepareSpec, Prepared,
        ProviderErrorKind, ProviderResult, RestoreKey, RestoredFile, SnapshotId, SnapshotProvider,
        SnapshotRef, SnapshotRestore, StageSpec, VolumeRef,
    };
    use stillpoint_storage_fs::{FsConfig, FsProvider};
    use stillpoint_workflow::TokioSeams;
    use tempfile::TempDir;
    use tokio::runtime::Runtime;

    use crate::support::{assert_kind, names, noise, run, tree};

    /// A small file system with a volume and a store on it.
    struct Bench {
        _folder: TempDir,
        image: PathBuf,
        at: PathBuf,
        runtime: Runtime,
        cx: Cx,
    }

    const FILES: [(&str, usize); 3] =
        [("DB01.edb", 3 << 20), ("sub/DB02.edb", 70_000), ("E00.log", 9000)];

    impl Bench {
        fn new(kind: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
            fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
            fs::create_dir(&at).unwrap();
            run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build()
                .unwrap();
            let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
            let bench = Self { _folder: folder, image, at, runtime, cx };
            bench.mount();
            for ((name, length), seed) in FILES.into_iter().zip(1..) {
                let path = bench.path("mail").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, noise(length, seed)).unwrap();
            }
            bench
        }

        fn mount(&self) {
            let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
            run("mount", &["-o", "loop,noatime", image, at]);
        }

        fn unmount(&self) {
            run("umount", &[self.at.to_str().unwrap()]);
        }

        fn remount(&self, how: &str) {
            run("mount", &["-o", &format!("remount,{how}"), self.at.to_str().unwrap()]);
        }

        fn path(&self, path: &str) -> PathBuf {
            self.at.join(path)
        }

        fn host_path(&self, path: &str) -> HostPath {
            HostPath::from_native("lab".parse().unwrap(), &self.path(path)).unwrap()
        }

        fn provider(&self) -> FsProvider {
            let config =
                FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), self.path("store"))
                    .with_volume("mail".parse().unwrap(), self.path("mail"));
            FsProvider::open(&config).unwrap()
        }

        fn volume() -> VolumeRef {
            "fs:mail".parse().unwrap()
        }

        fn snapshot(token: &str) -> SnapshotRef {
            SnapshotRef::new(Self::volume(), SnapshotId::new(token).unwrap())
        }

        fn spec(&self, token: &str) -> PrepareSpec {
            let files = FILES.map(|(name, _)| self.host_path(&format!("mail/{name}")));
            let member = MemberSpec::new(Self::volume(), MemberRole::DataAndLog, files.into());
            PrepareSpec::new(token.parse().unwrap(), token).with_member(member)
        }

        fn run<T>(&self, call: impl Future<Output = T>) -> T {
            self.runtime.block_on(call)
        }

        async fn prepared(&self, provider: &FsProvider, token: &str) -> Prepared {
            provider.prepare(&self.cx, &self.spec(token)).await.unwrap()
        }

        fn take(&self, provider: &FsProvider, token: &str) {
            self.run(async {
                let prepared = self.prepared(provider, token).await;
                provider.commit(&self.cx, &prepared).await.unwrap();
                SnapshotProvider::settle(provider, &self.cx, &prepared).await.unwrap();
            });
        }

        /// A restore of every file of a set into a folder.
        fn restore(&self, key: &str, token: &str, to: &str) -> StageSpec {
            let files = FILES.map(|(name, _)| RestoredFile {
                snapshot: Self::snapshot(token),
                original: self.host_path(&format!("mail/{name}")),
                target: self.host_path(&format!("{to}/{name}")),
            });
            StageSpec::new(RestoreKey::new(key).unwrap(), files.into())
        }

        fn sets(&self) -> Vec<String> {
            names(&self.path("store/sets"))
        }

        /// Writes until nothing more fits.
        fn fill(&self) {
            for (number, piece) in [8 << 20, 1 << 20, 4096, 1].into_iter().enumerate() {
                // Where not even a name fits any more it is full enough.
                let filler = fs::File::create(self.path(&format!("filler-{number}")));
                let Ok(mut filler) = filler else { break };
                let piece = vec![7; piece];
                while std::io::Write::write_all(&mut filler, &piece).is_ok() {}
                let _full = filler.sync_all();
            }
        }

        fn make_room(&self) {
            for name in names(&self.at).iter().filter(|name| name.starts_with("filler-")) {
                fs::remove_file(self.path(name)).unwrap();
            }
            run("sync", &["-f", self.at.to_str().unwrap()]);
        }
    }

    fn full<T: std::fmt::Debug>(what: &str, result: &ProviderResult<T>) -> bool {
        match result {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(*error.kind(), ProviderErrorKind::NoSpace, "{what}: {error}");
                assert!(!error.remedy().is_empty());
                true
            }
        }
    }

    /// Whether it is found out at the preparation, the commit or the settling is the file system's affair: a clone takes no
    /// room, and its record little. What fails says so and leaves nothing, what does not is whole.
    pub(super) fn a_full_disk(kind: &str) {
        let bench = Bench::new(kind);
        let provider = bench.provider();
        bench.take(&provider, "t0");
        let original = tree(&bench.path("mail"));
        bench.run(async {
            let cx = &bench.cx;
            let before = bench.prepared(&provider, "t1").await;
            bench.fill();
            let committed = provider.commit(cx, &before).await;
            let settled = SnapshotProvider::settle(&provider, cx, &before).await;
            let is_taken = !full("a commit", &committed) && !full("settling", &settled);
            let prepared = provider.prepare(cx, &bench.spec("t2")).await;
            let _refused = full("a preparation", &prepared);
            let restore = bench.restore("r1", "t0", "back");
            let side: &dyn SnapshotRestore = &provider;
            let staged = side.stage(cx, &restore).await;
            let published = if full("staging", &staged) {
                None
            } else {
                Some(side.publish(cx, &restore.key).await)
            };
            let is_back = published.is_some_and(|published| !full("publishing", &published));
            // What is there in part is not published: not a set, and no file at its target.
            let found = provider.find(cx, &"t1".parse().unwrap()).await.unwrap();
            assert!(is_taken || !bench.sets().contains(&"t1".to_owned()), "{found:?}");
            let targets = bench.path("back");
            assert!(
                is_back
                    || !targets.exists()
                    || tree(&targets).keys().all(|file| file.contains(".stillpoint")),
                "{:?}",
                names(&targets)
            );

            bench.make_room();
            let found = provider.find(cx, &"t0".parse().unwrap()).await.unwrap();
            assert!(matches!(found, Found::Complete(_)), "{found:?}");
            for token in ["t1", "t2"] {
                let discarded = provider.discard(cx, &token.parse().unwrap()).await.unwrap();
                assert_eq!(discarded, Discarded::Gone);
            }
            side.retract(cx, &restore.key).await.unwrap();
            side.unstage(cx, &restore.key).await.unwrap();
            side.stage(cx, &restore).await.unwrap();
            side.publish(cx, &restore.key).await.unwrap();
            side.settle(cx, &restore.key).await.unwrap();
        });
        assert_eq!(bench.sets(), ["t0"]);
        assert_eq!(tree(&bench.path("back")), original);
        bench.take(&provider, "t3");
    }

    pub(super) fn a_read_only_disk(kind: &str) {
        let bench = Bench::new(kind);
        let provider = bench.provider();
        bench.take(&provider, "t0");
        let read_only = ProviderErrorKind::ReadOnly;
        bench.run(async {
            let cx = &bench.cx;
            let side: &dyn SnapshotRestore = &provider;
            let prepared = bench.prepared(&provider, "t1").await;
            let taken = bench.prepared(&provider, "t2").await;
            provider.commit(cx, &taken).await.unwrap();
            let restore = bench.restore("r1", "t0", "back");
            side.stage(cx, &restore).await.unwrap();
            bench.remount("ro");
            assert_kind(provider.prepare(cx, &bench.spec("t3")).await, &read_only);
            assert_kind(provider.commit(cx, &prepared).await, &read_only);
            assert_kind(SnapshotProvider::settle(&provider, cx, &taken).await, &read_only);
            assert_kind(provider.discard(cx, &"t1".parse().unwrap()).await, &read_only);
            assert_kind(provider.delete(cx, &Bench::snapshot("t0")).await, &read_only);
            assert_kind(side.publish(cx, &restore.key).await, &read_only);
            assert_kind(side.stage(cx, &bench.restore("r2", "t0", "other")).await, &read_only);
            // What only reads goes on.
            let found = provider.find(cx, &"t0".parse().unwrap()).await.unwrap();
            assert!(matches!(found, Found::Complete(_)), "{found:?}");
            bench.remount("rw");
            SnapshotProvider::settle(&provider, cx, &taken).await.unwrap();
            assert_eq!(
                provider.discard(cx, &"t1".parse().unwrap()).await.unwrap(),
                Discarded::Gone
            );
            side.publish(cx, &restore.key).await.unwrap();
            side.settle(cx, &restore.key).await.unwrap();
        });
        assert_eq!(bench.sets(), ["t0", "t2"]);
        assert_eq!(tree(&bench.path("back")), tree(&bench.path("mail")));
    }

    pub(super) fn a_disk_that_is_gone(kind: &str) {
        let bench = Bench::new(kind);
        let provider = bench.provider();
        bench.take(&provider, "t0");
        bench.run(async {
            let cx = &bench.cx;
            let side: &dyn SnapshotRestore = &provider;
            let prepared = bench.prepared(&provider, "t1").await;
            let taken = bench.prepared(&provider, "t2").await;
            provider.commit(cx, &taken).await.unwrap();
            let restore = bench.restore("r1", "t0", "back");
            side.stage(cx, &restore).await.unwrap();
            bench.unmount();
            assert!(provider.prepare(cx, &bench.spec("t3")).await.is_err());
            assert!(provider.commit(cx, &prepared).await.is_err());
            assert!(SnapshotProvider::settle(&provider, cx, &taken).await.is_err());
            assert!(side.publish(cx, &restore.key).await.is_err());
            assert!(provider.list_docs(cx).await.is_err());
            assert_eq!(names(&bench.at), Vec::<String>::new(), "nothing is made in its place");
            bench.mount();
            // It is all there again, for the same provider.
            let found = provider.find(cx, &"t0".parse().unwrap()).await.unwrap();
            assert!(matches!(found, Found::Complete(_)), "{found:?}");
            SnapshotProvider::settle(&provider, cx, &taken).await.unwrap();
            assert_eq!(
                provider.discard(cx, &"t1".parse().unwrap()).await.unwrap(),
                Discarded::Gone
            );
            side.retract(cx, &restore.key).await.unwrap();
            side.unstage(cx, &restore.key).await.unwrap();
        });
        assert_eq!(bench.sets(), ["t0", "t2"]);
        assert_eq!(names(&bench.at).iter().filter(|name| name.starts_with("back")).count(), 0);
    }

    /// Files of a set are deleted, or the whole of it: nothing comes out of it, and the others are as they were.
    pub(super) fn a_set_deleted_by_hand(kind: &str) {
        let bench = Bench::new(kind);
        let provider = bench.provider();
        for token in ["t0", "t1", "t2"] {
            bench.take(&provider, token);
        }
        delete(&bench.path("store/sets/t0/m0/DB01.edb"));
        delete(&bench.path("store/sets/t1"));
        let host = "lab".parse().unwrap();
        bench.run(async {
            let cx = &bench.cx;
            let side: &dyn SnapshotRestore = &provider;
            for (key, token) in [("r0", "t0"), ("r1", "t1")] {
                let restore = bench.restore(key, token, "back");
                let error = side.stage(cx, &restore).await.unwrap_err();
                let legal = [
                    ProviderErrorKind::NotFound,
                    ProviderErrorKind::Vanished,
                    ProviderErrorKind::Damaged,
                ];
                assert!(legal.contains(error.kind()), "{error}");
                side.unstage(cx, &restore.key).await.unwrap();
            }
            assert_eq!(provider.find(cx, &"t1".parse().unwrap()).await.unwrap(), Found::Absent);
            let key = ExposureKey::new("k").unwrap();
            let exposed = provider.expose(cx, &[Bench::snapshot("t1")], &host, &key).await;
            assert_kind(exposed, &ProviderErrorKind::NotFound);
            for token in ["t0", "t1"] {
                let deleted = provider.delete(cx, &Bench::snapshot(token)).await.unwrap();
                assert_eq!(deleted, Deleted::Gone);
            }
            let restore = bench.restore("r2", "t2", "back");
            side.stage(cx, &restore).await.unwrap();
            side.publish(cx, &restore.key).await.unwrap();
            side.settle(cx, &restore.key).await.unwrap();
        });
        assert_eq!(bench.sets(), ["t2"]);
        assert_eq!(tree(&bench.path("back")), tree(&bench.path("mail")));
    }

    fn delete(path: &Path) {
        run("rm", &["-rf", path.to_str().unwrap()]);
    }
}
