//! A btrfs of the test's own on a loop device, and a provider over two subvolumes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use stillpoint_context::{Cx, HostPath};
use stillpoint_storage::{
    MemberRole, MemberSpec, PrepareSpec, Prepared, ProviderError, ProviderErrorKind,
    ProviderResult, Snapshot, SnapshotId, SnapshotProvider, SnapshotRef, VolumeRef,
};
use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider};
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) use crate::inside::run;
use crate::inside::{inside, mount_new};

/// Runs a test with a file system of its own, or says that it is skipped.
pub(crate) fn on_btrfs(test: &str, work: fn(&Lab)) {
    inside("btrfs", test, || work(&Lab::new()));
}

/// A mounted btrfs.
pub(crate) struct Lab {
    _folder: TempDir,
    pub(crate) at: PathBuf,
    image: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) cx: Cx,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = mount_new("btrfs", folder.path());
        let image = folder.path().join("image");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        let lab = Self { _folder: folder, at, image, runtime, cx };
        lab.subvolume("mail");
        lab.subvolume("logs");
        lab.write("mail/DB01.edb", &noise(3 << 20, 1));
        lab.write("mail/sub/DB02.edb", &noise(100_000, 2));
        lab.write("logs/E00.log", &noise(1 << 20, 3));
        lab
    }

    pub(crate) fn mount(&self) {
        let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
        run("mount", &["-o", "loop,noatime", image, at]);
    }

    /// Mounts the file system a second time, at another folder or with other options.
    pub(crate) fn mount_again(&self, options: &str, to: &Path) {
        let source = run("findmnt", &["-no", "SOURCE", self.at.to_str().unwrap()]);
        let source = String::from_utf8(source.stdout).unwrap();
        fs::create_dir_all(to).unwrap();
        run("mount", &["-o", options, source.trim(), to.to_str().unwrap()]);
    }

    pub(crate) fn unmount(&self) {
        run("umount", &[self.at.to_str().unwrap()]);
    }

    pub(crate) fn remount(&self, how: &str) {
        run("mount", &["-o", &format!("remount,{how}"), self.at.to_str().unwrap()]);
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    pub(crate) fn text(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    pub(crate) fn host_path(&self, path: &str) -> HostPath {
        HostPath::from_native("lab".parse().unwrap(), &self.path(path)).unwrap()
    }

    pub(crate) fn subvolume(&self, name: &str) {
        run("btrfs", &["subvolume", "create", &self.text(name)]);
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn config(&self) -> BtrfsConfig {
        BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), self.path("store"))
            .with_volume(self.path("mail"))
            .with_volume(self.path("logs"))
    }

    pub(crate) fn provider(&self) -> BtrfsProvider {
        BtrfsProvider::open(&self.config()).unwrap()
    }

    pub(crate) fn volume(&self, name: &str) -> VolumeRef {
        self.provider().volume(&self.path(name)).unwrap()
    }

    pub(crate) fn snapshot(&self, volume: &str, token: &str) -> SnapshotRef {
        SnapshotRef::new(self.volume(volume), SnapshotId::new(token).unwrap())
    }

    pub(crate) fn spec(&self, token: &str) -> PrepareSpec {
        let member = |name: &str, role| {
            let files = tree(&self.path(name)).into_keys();
            let files = files.map(|file| self.host_path(&format!("{name}/{file}")));
            MemberSpec::new(self.volume(name), role, files.collect())
        };
        PrepareSpec::new(token.parse().unwrap(), format!("stillpoint-{token}"))
            .with_member(member("mail", MemberRole::Data))
            .with_member(member("logs", MemberRole::Log))
            .with_tag("run", "r1")
    }

    /// A settled set of both volumes.
    pub(crate) fn take(&self, provider: &BtrfsProvider, token: &str) -> (Prepared, Vec<Snapshot>) {
        self.run(async {
            let prepared = provider.prepare(&self.cx, &self.spec(token)).await.unwrap();
            provider.commit(&self.cx, &prepared).await.unwrap();
            let settled = provider.settle(&self.cx, &prepared).await.unwrap();
            (prepared, settled)
        })
    }

    pub(crate) fn run<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// The names in the store's folder of sets.
    pub(crate) fn sets(&self) -> Vec<String> {
        names(&self.path("store/sets"))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32).to_le_bytes()[0]
        })
        .collect()
}

/// Every regular file below a folder, with its bytes.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Whether the result is an error of this kind; shows what it is if not.
#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(
    result: ProviderResult<T>,
    kind: &ProviderErrorKind,
) -> ProviderError {
    let error = result.expect_err("it must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}
