//! The suite of the testkit: on subvolumes, and on folders of a file system with reflinks.

mod tests {
    crate::on_btrfs! { "conformance::tests":
        the_suite_is_passed_on_subvolumes
        the_suite_is_passed_by_reflinks_on_btrfs
    }

    #[test]
    fn the_suite_is_passed_by_reflinks_on_xfs() {
        let test = "conformance::tests::the_suite_is_passed_by_reflinks_on_xfs";
        crate::inside::inside("xfs", test, super::cases::reflinks_on_xfs);
    }
}

mod cases {
    use std::collections::BTreeSet;
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use stillpoint_context::{Cx, HostId, HostPath, Seams};
    use stillpoint_storage::{SnapshotId, SnapshotProvider, SnapshotRef, VolumeRef};
    use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider};
    use stillpoint_storage_fs::{CloneMode, FsConfig, FsProvider};
    use stillpoint_testkit::conformance::BoxError;
    use stillpoint_testkit::conformance::provider::{
        self, Can, Ground, ProviderFactory, ProviderPlace, TestVolume,
    };
    use stillpoint_workflow::TokioSeams;
    use tokio::runtime::Runtime;

    use crate::inside::mount_new;
    use crate::support::{Lab, run};

    /// How volumes are taken.
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        Subvolumes,
        Reflinks,
    }

    /// Folders of one file system, each with subvolumes and a store of its own.
    struct Pool {
        by: By,
        at: PathBuf,
        seams: Seams,
        places: AtomicU32,
    }

    struct Place {
        by: By,
        at: PathBuf,
        seams: Seams,
    }

    fn host() -> HostId {
        "lab".parse().unwrap()
    }

    fn host_path(path: &Path) -> HostPath {
        HostPath::from_native(host(), path).unwrap()
    }

    impl Place {
        /// The provider, and what it calls the volume of this name.
        fn provider(&self) -> Result<(Arc<dyn SnapshotProvider>, [VolumeRef; 2]), BoxError> {
            let store = self.at.join("store");
            let (data, logs) = (self.at.join("data"), self.at.join("logs"));
            if self.by == By::Reflinks {
                let config = FsConfig::new("fs".parse()?, host(), store)
                    .with_volume("data".parse()?, data)
                    .with_volume("logs".parse()?, logs)
                    .with_mode(CloneMode::Reflink);
                let provider = FsProvider::open(&config)?;
                return Ok((Arc::new(provider), ["fs:data".parse()?, "fs:logs".parse()?]));
            }
            let config = BtrfsConfig::new("btrfs".parse()?, host(), store)
                .with_volume(&data)
                .with_volume(&logs)
                .without_revert();
            let provider = BtrfsProvider::open(&config)?;
            let volume = |folder: &Path| provider.volume(folder).ok_or("it is no volume");
            let volumes = [volume(&data)?, volume(&logs)?];
            Ok((Arc::new(provider), volumes))
        }
    }

    #[async_trait]
    impl ProviderFactory for Pool {
        async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
            let number = self.places.fetch_add(1, Ordering::Relaxed);
            let at = self.at.join(format!("place-{number}"));
            fs::create_dir(&at)?;
            if self.by == By::Subvolumes {
                for volume in ["data", "logs"] {
                    run("btrfs", &["subvolume", "create", at.join(volume).to_str().unwrap()]);
                }
            }
            for file in
                ["data/DB01.edb", "data/zwei/Größe 日本.edb", "logs/E00/E00.log", "logs/E00.chk"]
            {
                let path = at.join(file);
                fs::create_dir_all(path.parent().unwrap())?;
                fs::write(path, b"as it was")?;
            }
            fs::create_dir(at.join("targets"))?;
            Ok(Box::new(Place { by: self.by, at, seams: self.seams.clone() }))
        }

        fn seams(&self) -> Seams {
            self.seams.clone()
        }

        fn can(&self) -> BTreeSet<Can> {
            [Can::Reopen, Can::Write, Can::Foreign, Can::Hold].into()
        }
    }

    #[async_trait]
    impl ProviderPlace for Place {
        async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
            Ok(self.provider()?.0)
        }

        fn ground(&self) -> Ground {
            let [data, logs] = self.provider().unwrap().1;
            let volume = |volume: VolumeRef, name: &str, files: [&str; 2]| {
                let root = self.at.join(name);
                let files = files.map(|file| host_path(&root.join(file)));
                TestVolume::new(volume, host_path(&root), files.into())
            };
            let data = volume(data, "data", ["DB01.edb", "zwei/Größe 日本.edb"]);
            let logs = volume(logs, "logs", ["E00/E00.log", "E00.chk"]);
            Ground::new(vec![data, logs], host())
                .with_elsewhere(host_path(&self.at.join("targets/elsewhere")))
                .with_targets(host_path(&self.at.join("targets")))
        }

        async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
            match fs::read(path.to_native()?) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        async fn write(&self, path: &HostPath, bytes: &[u8]) -> Result<(), BoxError> {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path.to_native()?)?;
            file.write_all_at(bytes, 0)?;
            Ok(file.set_len(bytes.len() as u64)?)
        }

        async fn remove(&self, path: &HostPath) -> Result<(), BoxError> {
            Ok(fs::remove_file(path.to_native()?)?)
        }

        async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
            let path = path.to_native()?;
            if self.by == By::Reflinks {
                return Ok(fs::metadata(path)?.permissions().mode() & 0o222 == 0);
            }
            // Also for root: a read-only subvolume answers EROFS.
            let refused = OpenOptions::new().append(true).open(path).err();
            Ok(refused.is_some_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem))
        }

        async fn add_foreign(
            &self,
            volume: &VolumeRef,
            name: &str,
        ) -> Result<SnapshotRef, BoxError> {
            if self.by == By::Reflinks {
                let folder = self.at.join("store/sets").join(name);
                fs::create_dir_all(&folder)?;
                fs::write(folder.join("letter"), b"mine")?;
                return Ok(SnapshotRef::new(volume.clone(), SnapshotId::new(name)?));
            }
            let [data, _] = self.provider()?.1;
            let source = self.at.join(if *volume == data { "data" } else { "logs" });
            fs::create_dir_all(self.at.join("foreign"))?;
            let place = self.at.join("foreign").join(name);
            let place = place.to_str().ok_or("a name in UTF-8")?;
            run("btrfs", &["subvolume", "snapshot", "-r", source.to_str().unwrap(), place]);
            let shown = String::from_utf8(run("btrfs", &["subvolume", "show", place]).stdout)?;
            let uuid = shown.lines().find_map(|line| line.trim().strip_prefix("UUID:"));
            let uuid = uuid.ok_or("it has a UUID")?.trim();
            Ok(SnapshotRef::new(volume.clone(), SnapshotId::new(format!("subvolume-{uuid}"))?))
        }

        async fn hold(&self, snapshot: &SnapshotRef, held: bool) -> Result<(), BoxError> {
            let (provider, cx) = (self.provider()?.0, Cx::detached(&self.seams));
            let locks = provider.lock().ok_or("it has holds")?;
            let name = "case-17".parse()?;
            if held {
                locks.hold(&cx, snapshot, &name).await?;
            } else {
                locks.release(&cx, snapshot, &name).await?;
            }
            Ok(())
        }
    }

    fn passes(by: By, at: &Path, runtime: &Runtime) {
        let seams = TokioSeams::on(runtime.handle().clone());
        let pool = Pool { by, at: at.to_owned(), seams, places: AtomicU32::new(0) };
        runtime.block_on(provider::run_all(&pool)).assert_passed();
    }

    pub(super) fn the_suite_is_passed_on_subvolumes(lab: &Lab) {
        passes(By::Subvolumes, &lab.at, &lab.runtime);
    }

    pub(super) fn the_suite_is_passed_by_reflinks_on_btrfs(lab: &Lab) {
        passes(By::Reflinks, &lab.at, &lab.runtime);
    }

    pub(super) fn reflinks_on_xfs() {
        let folder = tempfile::tempdir().unwrap();
        let at = mount_new("xfs", folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        passes(By::Reflinks, &at, &runtime);
    }
}
