//! What the tests share: folders, a provider over them, and hooks on its way to the file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, HostPath};
use stillpoint_model::handover::{MemberRole, Prepared};
use stillpoint_model::id::{SetToken, SnapshotId, SnapshotRef, VolumeRef};
use stillpoint_storage::{
    MemberSpec, PrepareSpec, ProviderResult, RestoreKey, RestoredFile, Snapshot, SnapshotProvider,
    StageSpec,
};
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::config::{CloneMode, FsConfig, open};
use crate::disk::{Disk, Hook, Op};
use crate::provider::FsProvider;
use crate::store::Store;
use crate::subvolume::{Located, Quota, Subvolume, Subvolumes};

/// Two volumes with files, a store, and a folder to restore to.
pub(super) struct Lab {
    pub(super) folder: TempDir,
    pub(super) runtime: Runtime,
    pub(super) cx: Cx,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Stored folders are read-only, and only root removes them as they are.
        let _best_effort = Disk::default().remove_tree(self.folder.path());
    }
}

/// More than one chunk, and not whole ones.
pub(super) const BIG: usize = (2 << 20) + 12_345;

impl Lab {
    /// In memory where there is such a place: these tests sync thousands of times.
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let roomy = crate::prepare::free_bytes(memory).is_ok_and(|free| free > 1 << 30);
        if roomy { Self::at(memory) } else { Self::on_disk() }
    }

    pub(super) fn on_disk() -> Self {
        Self::at(&std::env::temp_dir())
    }

    pub(super) fn at(parent: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("stillpoint-fs").tempdir_in(parent).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        let lab = Self { folder, runtime, cx };
        for (path, bytes) in [
            ("data/db one/DB01.edb", noise(BIG)),
            ("data/db one/empty.edb", Vec::new()),
            ("data/zwei/Größe 日本.edb", noise(70_000)),
            ("logs/E00/E00.log", noise(1 << 20)),
            ("logs/E00/E0000000001.log", noise(4096)),
            ("logs/E00/E00.chk", noise(8192)),
        ] {
            lab.write(path, &bytes);
        }
        fs::create_dir(lab.path("target")).unwrap();
        lab
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    pub(super) fn host_path(&self, path: &str) -> HostPath {
        HostPath::from_native("lab".parse().unwrap(), &self.path(path)).unwrap()
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn config(&self) -> FsConfig {
        FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), self.path("store"))
            .with_volume("data".parse().unwrap(), self.path("data"))
            .with_volume("logs".parse().unwrap(), self.path("logs"))
    }

    pub(super) fn provider(&self) -> FsProvider {
        FsProvider::open(&self.config()).unwrap()
    }

    /// Another process: a provider that knows nothing of what others did, and whose changes pass `hook` once it is open.
    pub(super) fn hooked(&self, hook: Arc<dyn Hook>) -> FsProvider {
        let mut config = self.config();
        config.mode = CloneMode::Copy;
        FsProvider::new(patient(&config, Disk::hooked(hook), Duration::from_millis(100)))
    }

    pub(super) fn run<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// A call of its own, beside the test.
    #[allow(clippy::disallowed_methods, reason = "the test drives the runtime itself")]
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(call)
    }

    /// All files of both volumes, data before logs.
    pub(super) fn spec(&self, token: &str) -> PrepareSpec {
        PrepareSpec::new(SetToken::new(token).unwrap(), format!("stillpoint-{token}"))
            .with_member(self.member("data", MemberRole::Data))
            .with_member(self.member("logs", MemberRole::Log))
            .with_tag("run", "r1")
    }

    pub(super) fn member(&self, volume: &str, role: MemberRole) -> MemberSpec {
        let files = tree(&self.path(volume)).into_keys();
        let files = files.map(|file| self.host_path(&format!("{volume}/{file}")));
        MemberSpec::new(volume_ref(volume), role, files.collect())
    }

    /// A settled set.
    pub(super) fn take(&self, provider: &FsProvider, token: &str) -> (Prepared, Vec<Snapshot>) {
        self.run(async {
            let prepared = provider.prepare(&self.cx, &self.spec(token)).await.unwrap();
            provider.commit(&self.cx, &prepared).await.unwrap();
            let snapshots = SnapshotProvider::settle(provider, &self.cx, &prepared).await.unwrap();
            (prepared, snapshots)
        })
    }

    /// Everything of the set `token` to below `target`.
    pub(super) fn restore_spec(&self, key: &str, token: &str, target: &str) -> StageSpec {
        let mut files = Vec::new();
        for volume in ["data", "logs"] {
            for file in tree(&self.path(volume)).into_keys() {
                files.push(RestoredFile {
                    snapshot: snapshot_ref(volume, token),
                    original: self.host_path(&format!("{volume}/{file}")),
                    target: self.host_path(&format!("{target}/{volume}/{file}")),
                });
            }
        }
        StageSpec::new(RestoreKey::new(key).unwrap(), files)
    }

    /// The names in the store's folder of sets.
    pub(super) fn sets(&self) -> Vec<String> {
        names(&self.path("store/sets"))
    }
}

/// A store that gives up waiting after `patience`.
pub(super) fn patient(config: &FsConfig, disk: Disk, patience: Duration) -> Arc<Store> {
    let opened = open(config, Disk::default()).unwrap();
    let mut store = opened.into_store();
    store.disk = disk;
    store.patience = patience;
    store.page = 3;
    Arc::new(store)
}

pub(super) fn volume_ref(volume: &str) -> VolumeRef {
    VolumeRef::new("fs".parse().unwrap(), volume.parse().unwrap())
}

pub(super) fn snapshot_ref(volume: &str, token: &str) -> SnapshotRef {
    SnapshotRef::new(volume_ref(volume), SnapshotId::new(token).unwrap())
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes that do not repeat within a chunk.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32).to_le_bytes()[0]
        })
        .collect()
}

/// The bytes of a file; a failed comparison shows their number.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Every file below a folder with its bytes.
pub(super) fn tree(folder: &Path) -> BTreeMap<String, Bytes> {
    let mut all = everything(folder);
    all.retain(|name, _| !name.ends_with('/'));
    all
}

/// As [`tree`], with folders under names that end in `/`. A link has where it leads to.
pub(super) fn everything(folder: &Path) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                found.insert(name + "/", Bytes(Vec::new()));
                folders.push(path);
            } else if kind.is_symlink() {
                let to = fs::read_link(path).unwrap();
                found.insert(name, Bytes(format!("-> {}", to.display()).into_bytes()));
            } else {
                found.insert(name, Bytes(fs::read(path).unwrap()));
            }
        }
    }
    found
}

pub(super) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Notes every change.
#[derive(Debug, Default)]
pub(super) struct Trace(Mutex<Vec<(Op, PathBuf)>>);

impl Trace {
    pub(super) fn drain(&self) -> Vec<(Op, PathBuf)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Hook for Trace {
    fn before(&self, op: Op, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().push((op, path.to_owned()));
        Ok(())
    }
}

/// Lets so many changes happen, then none any more, as if the process had been killed; or refuses one of them alone.
#[derive(Debug)]
pub(super) struct Failing {
    left: AtomicUsize,
    once: Option<rustix::io::Errno>,
}

impl Failing {
    pub(super) fn dead_after(changes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(changes), once: None })
    }

    pub(super) fn once_after(changes: usize, error: rustix::io::Errno) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(changes), once: Some(error) })
    }
}

impl Hook for Failing {
    fn before(&self, _: Op, path: &Path) -> io::Result<()> {
        let gone_by = |left: usize| left.checked_sub(1).or(self.once.map(|_| usize::MAX));
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, gone_by) {
            Ok(0) => Err(self.once.unwrap_or(rustix::io::Errno::IO).into()),
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other(format!("dead before {}", path.display()))),
        }
    }
}

/// A file system without hard links, before another hook.
#[derive(Debug)]
pub(super) struct NoLinks(pub(super) Arc<dyn Hook>);

impl Hook for NoLinks {
    fn before(&self, op: Op, path: &Path) -> io::Result<()> {
        if op == Op::Link { Err(rustix::io::Errno::PERM.into()) } else { self.0.before(op, path) }
    }
}

/// Calls back before the changes that it is asked about.
pub(super) struct Calling<F>(pub(super) F);

impl<F> std::fmt::Debug for Calling<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl<F: Fn(Op, &Path) -> io::Result<()> + Send + Sync> Hook for Calling<F> {
    fn before(&self, op: Op, path: &Path) -> io::Result<()> {
        (self.0)(op, path)
    }
}

/// Does something once, at the n-th event: a change of the file system, or a look at a set.
pub(super) struct At<F> {
    left: AtomicUsize,
    work: F,
}

impl<F: Fn() + Send + Sync + 'static> At<F> {
    pub(super) fn event(number: usize, work: F) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(number), work })
    }

    /// Whether the event has come.
    pub(super) fn has_come(&self) -> bool {
        self.left.load(Ordering::SeqCst) == usize::MAX
    }

    fn pass(&self) {
        let count = |left: usize| (left != usize::MAX).then(|| left.wrapping_sub(1));
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(0) {
            (self.work)();
        }
    }
}

impl<F> std::fmt::Debug for At<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("At")
    }
}

impl<F: Fn() + Send + Sync + 'static> Hook for At<F> {
    fn before(&self, _: Op, _: &Path) -> io::Result<()> {
        self.pass();
        Ok(())
    }

    fn look(&self, _: &Path) {
        self.pass();
    }
}

/// Whether the result is an error of this kind; shows what it is if not.
#[track_caller]
pub(super) fn assert_kind<T: std::fmt::Debug>(
    result: ProviderResult<T>,
    kind: &stillpoint_storage::ProviderErrorKind,
) -> stillpoint_storage::ProviderError {
    let error = result.expect_err("it must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Folders that behave like subvolumes: a file in each says which it is. A snapshot is a copy that appears at one instant.
#[derive(Debug, Default)]
pub(super) struct Pretended {
    made: AtomicUsize,
}

/// The file by which a pretended subvolume is known: UUID, that of its parent, whether it is read-only.
const PRETENDED: &str = ".subvolume";
/// The one file system of the pretended subvolumes.
const FILE_SYSTEM: uuid::Uuid = uuid::Uuid::from_u128(0xf5);

impl Pretended {
    /// Makes a folder a subvolume.
    pub(super) fn make(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        self.mark(folder, None, false).unwrap();
    }

    fn mark(&self, folder: &Path, of: Option<uuid::Uuid>, read_only: bool) -> io::Result<()> {
        // Unique among the tests of this process.
        let number = self.made.fetch_add(1, Ordering::SeqCst) as u128;
        let uuid = uuid::Uuid::from_u128((u128::from(std::process::id()) << 64) + number + 1);
        let of = of.unwrap_or_default();
        fs::write(folder.join(PRETENDED), format!("{uuid} {of} {read_only}"))
    }

    fn path(file: &fs::File) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd as _;
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    fn copy(&self, source: &fs::File, folder: &fs::File, name: &str, ro: bool) -> io::Result<()> {
        let (from, folder) = (Self::path(source)?, Self::path(folder)?);
        let of = self.identify(source)?.ok_or(rustix::io::Errno::INVAL)?;
        if fs::symlink_metadata(folder.join(name)).is_ok() {
            return Err(rustix::io::Errno::EXIST.into());
        }
        let making =
            tempfile::Builder::new().prefix(".making").tempdir_in(folder.parent().unwrap())?;
        let new = making.path().join("new");
        copy_tree(&from, &new)?;
        self.mark(&new, Some(of.uuid), ro)?;
        fs::rename(new, folder.join(name))
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Subvolumes for Pretended {
    fn identify(&self, folder: &fs::File) -> io::Result<Option<Subvolume>> {
        let text = match fs::read_to_string(Self::path(folder)?.join(PRETENDED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let mut parts = text.split(' ');
        let mut uuid = || parts.next().unwrap().parse::<uuid::Uuid>().unwrap();
        let (uuid, parent) = (uuid(), uuid());
        Ok(Some(Subvolume {
            filesystem: FILE_SYSTEM,
            uuid,
            parent: Some(parent).filter(|parent| !parent.is_nil()),
            id: 256 + u64::try_from(uuid.as_u128() & 0xffff_ffff).unwrap(),
            read_only: parts.next() == Some("true"),
            created_at: chrono::DateTime::UNIX_EPOCH,
        }))
    }

    fn name(&self) -> &'static str {
        "pretended"
    }

    fn filesystem(&self, _: &fs::File) -> io::Result<Option<uuid::Uuid>> {
        Ok(Some(FILE_SYSTEM))
    }

    fn snapshot(&self, source: &fs::File, folder: &fs::File, name: &str) -> io::Result<()> {
        self.copy(source, folder, name, true)
    }

    fn branch(&self, source: &fs::File, folder: &fs::File, name: &str) -> io::Result<()> {
        self.copy(source, folder, name, false)
    }

    fn destroy(&self, folder: &fs::File, name: &str) -> io::Result<()> {
        let path = Self::path(folder)?.join(name);
        if !path.join(PRETENDED).exists() {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let gone = tempfile::tempdir_in(path.parent().unwrap().parent().unwrap())?;
        fs::rename(path, gone.path().join("gone"))
    }

    fn all(&self, _: &fs::File) -> io::Result<Vec<Located>> {
        Ok(Vec::new())
    }

    fn root(&self, _: &fs::File) -> io::Result<u64> {
        Ok(5)
    }

    fn path(&self, _: &fs::File, _: u64, _: u64) -> io::Result<String> {
        Ok(String::new())
    }

    fn quota(&self, _: &Subvolume) -> io::Result<Option<Quota>> {
        Ok(None)
    }
}
