//! The suite of the testkit, on folders.

// A test may stop where it stands.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{HostId, HostPath, Seams};
use stillpoint_storage::{SnapshotId, SnapshotProvider, SnapshotRef, VolumeRef};
use stillpoint_storage_fs::{CloneMode, FsConfig, FsProvider};
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::provider::{
    self, Can, Ground, ProviderFactory, ProviderPlace, TestVolume,
};
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;

/// Folders of their own.
struct Folders {
    seams: Seams,
    mode: CloneMode,
}

impl Folders {
    fn new(mode: CloneMode) -> Self {
        Self { seams: TokioSeams::current().unwrap(), mode }
    }
}

/// A folder with two volumes, a store, and room for restores.
struct Folder {
    folder: TempDir,
    mode: CloneMode,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Stored folders are read-only, and only root removes them as they are.
        make_writable(self.folder.path());
    }
}

fn make_writable(folder: &Path) {
    let _best_effort = fs::set_permissions(folder, Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

fn host() -> HostId {
    "lab".parse().unwrap()
}

fn native(path: &HostPath) -> Result<PathBuf, BoxError> {
    Ok(path.to_native()?)
}

impl Folder {
    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    fn host_path(&self, path: &str) -> HostPath {
        HostPath::from_native(host(), &self.at(path)).unwrap()
    }
}

#[async_trait]
impl ProviderFactory for Folders {
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
        // In memory where there is such a place: the suite syncs hundreds of times.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("stillpoint-fs").tempdir_in(parent)?;
        let place = Folder { folder, mode: self.mode };
        for file in
            ["data/DB01.edb", "data/zwei/Größe 日本.edb", "logs/E00/E00.log", "logs/E00.chk"]
        {
            let path = place.at(file);
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(path, b"as it was")?;
        }
        fs::create_dir(place.at("targets"))?;
        Ok(Box::new(place))
    }

    fn seams(&self) -> Seams {
        self.seams.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        [Can::Reopen, Can::Write, Can::Foreign].into()
    }
}

#[async_trait]
impl ProviderPlace for Folder {
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
        let config = FsConfig::new("fs".parse()?, host(), self.at("store"))
            .with_volume("data".parse()?, self.at("data"))
            .with_volume("logs".parse()?, self.at("logs"))
            .with_mode(self.mode);
        Ok(Arc::new(FsProvider::open(&config)?))
    }

    fn ground(&self) -> Ground {
        let volume = |name: &str, files: [&str; 2]| {
            let volume: VolumeRef = format!("fs:{name}").parse().unwrap();
            let files = files.map(|file| self.host_path(&format!("{name}/{file}")));
            TestVolume::new(volume, self.host_path(name), files.into())
        };
        let data = volume("data", ["DB01.edb", "zwei/Größe 日本.edb"]);
        let logs = volume("logs", ["E00/E00.log", "E00.chk"]);
        Ground::new(vec![data, logs], host())
            .with_elsewhere(self.host_path("targets/elsewhere"))
            .with_targets(self.host_path("targets"))
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        match fs::read(native(path)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, path: &HostPath, bytes: &[u8]) -> Result<(), BoxError> {
        let path = native(path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(bytes, 0)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        Ok(())
    }

    async fn remove(&self, path: &HostPath) -> Result<(), BoxError> {
        Ok(fs::remove_file(native(path)?)?)
    }

    async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
        // The mode, as root may write to anything.
        Ok(fs::metadata(native(path)?)?.permissions().mode() & 0o222 == 0)
    }

    async fn add_foreign(&self, volume: &VolumeRef, name: &str) -> Result<SnapshotRef, BoxError> {
        let folder = self.at("store/sets").join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("letter"), b"mine")?;
        Ok(SnapshotRef::new(volume.clone(), SnapshotId::new(name)?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_folders_are_snapshots() {
    let report = provider::run_all(&Folders::new(CloneMode::Copy)).await;
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_of_folders_are_snapshots_where_there_are_clones() {
    let report = provider::run_all(&Folders::new(CloneMode::Auto)).await;
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_harmless_can_be_tried_on_folders_in_use() {
    let report = provider::check(&Folders::new(CloneMode::Auto)).await;
    report.assert_passed();
    assert!(report.verdicts.iter().all(|verdict| verdict.contract != "S9"), "{report}");
}
