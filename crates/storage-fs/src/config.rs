//! What a provider is opened with, and the checks that come with opening it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use stillpoint_context::{HostId, HostPath};
use stillpoint_model::id::{ProviderId, VolumeId, VolumeRef};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Disk, Wait, is};
use crate::format::{self, Method, StoreMark};
use crate::lineage;
use crate::provider::FsProvider;
use crate::store::Store;
use crate::volume::Volume;

/// How files get into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CloneMode {
    /// As reflinks where every volume can, else as copies.
    #[default]
    Auto,
    /// As reflinks only; opening fails where a volume cannot.
    Reflink,
    /// As copies only.
    Copy,
}

/// What a provider is made of.
///
/// ```
/// use stillpoint_storage_fs::{CloneMode, FsConfig};
///
/// let config = FsConfig::new("fs".parse()?, "lab".parse()?, "/var/backup/store")
///     .with_volume("mail".parse()?, "/srv/mail")
///     .with_mode(CloneMode::Copy);
/// assert_eq!(config.volumes.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsConfig {
    /// The provider's name; it stands in every volume's reference.
    pub provider: ProviderId,
    /// The name of this machine in [`HostPath`]s.
    pub host: HostId,
    /// The volumes: a name, which must not change while there are snapshots, and a folder. A folder inside another volume's
    /// folder is a volume of its own, whose files do not belong to the outer one. A folder that is gone can be restored
    /// from, not snapped.
    pub volumes: Vec<(VolumeId, PathBuf)>,
    /// The folder of the store.
    pub store: PathBuf,
    /// How files get into the store.
    pub mode: CloneMode,
    /// Whether the store is made if it is not there. Without it, opening fails where there is none.
    pub make: bool,
    /// Whether volumes may be reverted, where that can be done: over a file system with subvolumes.
    pub revert: bool,
}

impl FsConfig {
    /// A provider without volumes, with its store in this folder.
    pub fn new(provider: ProviderId, host: HostId, store: impl Into<PathBuf>) -> Self {
        let (store, mode) = (store.into(), CloneMode::Auto);
        Self { provider, host, volumes: Vec::new(), store, mode, make: true, revert: true }
    }

    /// The same over a store that is there: none is made, so that a store which is missing (a disk that is not mounted) is not
    /// taken for an empty one.
    pub fn with_existing_store(mut self) -> Self {
        self.make = false;
        self
    }

    /// The same without reverts.
    pub fn without_revert(mut self) -> Self {
        self.revert = false;
        self
    }

    /// The same with one more volume.
    pub fn with_volume(mut self, name: VolumeId, folder: impl Into<PathBuf>) -> Self {
        self.volumes.push((name, folder.into()));
        self
    }

    /// The same with this mode.
    pub fn with_mode(mut self, mode: CloneMode) -> Self {
        self.mode = mode;
        self
    }
}

/// The file by which a store is known.
const MARK: &str = "store.json";

/// Whether a folder is a store, by its mark.
pub fn is_store(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

fn invalid(text: impl Into<String>) -> ProviderError {
    ProviderError::new(ProviderErrorKind::Invalid, text).without_effect()
}

/// Looks for what opening would refuse, as far as that is seen without a change.
pub(crate) fn check(config: &FsConfig, disk: &Disk) -> ProviderResult<()> {
    let volumes = volumes(config)?;
    let place = find_store(config, &volumes)?;
    lineage::check_volumes(&volumes, &place, disk)
}

/// Checks everything and makes the store.
pub(crate) fn open(config: &FsConfig, disk: Disk) -> ProviderResult<FsProvider> {
    let mut volumes = volumes(config)?;
    let place = find_store(config, &volumes)?;
    lineage::check_volumes(&volumes, &place, &disk)?;
    let root = make_store(config, &place, &disk)?;
    let boot = boot_id()?;
    if disk.subvolumes().is_some() {
        lineage::name_volumes(config, &mut volumes, &root, &disk)?;
    }
    for volume in &mut volumes {
        volume.method = match config.mode {
            _ if disk.subvolumes().is_some() => Method::Snapshot,
            CloneMode::Copy => Method::Copy,
            // Nothing can be taken of it, so there is nothing to be known.
            _ if !volume.path.is_dir() => continue,
            CloneMode::Auto | CloneMode::Reflink => probe(&disk, &root, volume)?,
        };
        if config.mode == CloneMode::Reflink && volume.method == Method::Copy {
            let text = format!(
                "files of {} cannot be cloned into the store {}",
                volume.path.display(),
                root.display(),
            );
            return Err(ProviderError::new(ProviderErrorKind::Unsupported("instant"), text)
                .with_volume(volume.reference.clone())
                .with_remedy(
                    "Put the store on the volume's own file system (btrfs, or XFS with reflink), or allow copies.",
                )
                .without_effect());
        }
    }
    Ok(FsProvider::new(Arc::new(Store {
        may_revert: config.revert && disk.subvolumes().is_some(),
        disk,
        provider: config.provider.clone(),
        host: config.host.clone(),
        volumes,
        root,
        boot,
        page: 1000,
        patience: Duration::from_secs(5),
        preparations: Arc::default(),
        restorations: Arc::default(),
    })))
}

fn volumes(config: &FsConfig) -> ProviderResult<Vec<Volume>> {
    if config.volumes.is_empty() {
        return Err(invalid("the provider has no volume"));
    }
    let mut volumes: Vec<Volume> = Vec::new();
    for (name, folder) in &config.volumes {
        let reference = VolumeRef::new(config.provider.clone(), name.clone());
        let about = |error: ProviderError| error.with_volume(reference.clone()).without_effect();
        let named = std::path::absolute(folder)
            .map_err(|error| about(ProviderError::io("find the current folder", error)))?;
        // A folder that is gone has snapshots all the same, to be read and restored; where it was is known by what is
        // left above it.
        let (existing, missing) = split_existing(&named).map_err(|error| {
            about(if error.kind() == io::ErrorKind::NotADirectory {
                invalid(format!("{} is not a folder", folder.display()))
            } else {
                ProviderError::io(format_args!("find the folder {}", folder.display()), error)
            })
        })?;
        let path = missing.iter().fold(existing, |path, part| path.join(part));
        let real_root = host_path(&config.host, &path).map_err(about)?;
        // A name with `..` is no host path; such a folder is known by its real path alone.
        let root = host_path(&config.host, &named).unwrap_or_else(|_| real_root.clone());
        if let Some(twin) = volumes.iter().find(|v| v.path == path || v.reference == reference) {
            let text = format!("the volumes {} and {} are one", twin.reference.id, reference.id);
            return Err(about(invalid(text)));
        }
        volumes.push(Volume {
            name: name.to_string(),
            reference,
            root,
            real_root,
            path,
            nested: Vec::new(),
            method: Method::Copy,
        });
    }
    let paths: Vec<PathBuf> = volumes.iter().map(|volume| volume.path.clone()).collect();
    for volume in &mut volumes {
        let inside = |other: &&PathBuf| **other != volume.path && other.starts_with(&volume.path);
        volume.nested = paths.iter().filter(inside).cloned().collect();
    }
    Ok(volumes)
}

fn host_path(host: &HostId, path: &Path) -> ProviderResult<HostPath> {
    Ok(HostPath::from_native(host.clone(), path)?)
}

/// Where a store is, or will be.
#[derive(Debug)]
pub(crate) struct StorePlace {
    /// Its folder, with links resolved.
    pub(crate) root: PathBuf,
    /// The nearest folder that is there already: it, or one above it.
    pub(crate) existing: PathBuf,
}

fn doing(config: &FsConfig, what: &str) -> String {
    format!("{what} the store {}", config.store.display())
}

/// Finds the place of the store, outside every volume. Where it will be is decided before anything is made: nothing may be
/// made inside a volume.
fn find_store(config: &FsConfig, volumes: &[Volume]) -> ProviderResult<StorePlace> {
    let named = std::path::absolute(&config.store)
        .map_err(|error| ProviderError::io("find the current folder", error).without_effect())?;
    let (existing, missing) = split_existing(&named)
        .map_err(|error| ProviderError::io(doing(config, "find"), error).without_effect())?;
    let root = missing.iter().fold(existing.clone(), |path, part| path.join(part));
    for volume in volumes {
        let (store, folder) = (root.display(), volume.path.display());
        let text = if root.starts_with(&volume.path) {
            format!("the store {store} lies inside the volume {folder}")
        } else if volume.path.starts_with(&root) {
            format!("the volume {folder} lies inside the store {store}")
        } else {
            continue;
        };
        return Err(invalid(text)
            .with_volume(volume.reference.clone())
            .with_remedy("Choose a store folder beside what is protected, not inside it."));
    }
    let _checked = host_path(&config.host, &root)?;
    if !config.make && !is_store(&root) {
        let text = format!("there is no store at {}", root.display());
        return Err(ProviderError::new(ProviderErrorKind::NotFound, text)
            .with_remedy(
                "Mount the disk that holds the store, or name the folder that it is in now.",
            )
            .without_effect());
    }
    Ok(StorePlace { root, existing })
}

/// Makes the store if it is not there, and shows that it can be written.
fn make_store(config: &FsConfig, place: &StorePlace, disk: &Disk) -> ProviderResult<PathBuf> {
    let doing = |what: &str| doing(config, what);
    let StorePlace { root, existing } = place;
    let root = root.clone();
    disk.make_dirs(existing, &root).map_err(|error| ProviderError::io(doing("make"), error))?;
    let mark = root.join(MARK);
    // Read for its version; a store of a newer program is left alone.
    if format::read::<StoreMark>(&mark)?.is_none() {
        if fs::symlink_metadata(&mark).is_ok() {
            let text = format!("{} is not the mark of a store", mark.display());
            return Err(ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect());
        }
        let made_by = concat!("stillpoint-storage-fs ", env!("CARGO_PKG_VERSION")).to_owned();
        format::write(disk, &mark, &StoreMark { made_by }, true)?;
    }
    let is_over = disk.subvolumes().is_some();
    if !is_over && root.join("volumes").is_dir() {
        let text = format!("the store {} holds snapshots of subvolumes", root.display());
        return Err(invalid(text).with_remedy("Open it with the provider that made it."));
    }
    let further: &[&str] = if disk.subvolumes().is_some() { &["volumes", "reverts"] } else { &[] };
    for folder in ["sets", "docs", "exposures", "restores"].iter().chain(further) {
        let folder = root.join(folder);
        if !folder.is_dir() {
            disk.make_dir(&folder)
                .map_err(|error| ProviderError::io(doing("make folders in"), error))?;
        }
    }
    disk.sync_dir(&root).map_err(|error| ProviderError::io(doing("sync"), error))?;
    let lock = root.join(".probe");
    let tried = disk.lock(&lock, Wait::Yes).and_then(|held| {
        let removed = disk.remove(&lock);
        drop(held);
        removed
    });
    tried.map_err(|error| ProviderError::io(doing("write and lock a file in"), error))?;
    Ok(root)
}

/// The nearest folder that exists, with links resolved, and the parts below it that do not.
pub(crate) fn split_existing(path: &Path) -> io::Result<(PathBuf, Vec<std::ffi::OsString>)> {
    let mut missing = Vec::new();
    let mut at = path.to_owned();
    loop {
        match fs::canonicalize(&at) {
            Ok(real) if real.is_dir() => {
                missing.reverse();
                return Ok((real, missing));
            }
            Ok(_) => return Err(Errno::NOTDIR.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere must not be taken for something that can be made.
                if fs::symlink_metadata(&at).is_ok() {
                    return Err(Errno::LOOP.into());
                }
                match (at.file_name().map(ToOwned::to_owned), at.parent()) {
                    (Some(name), Some(parent)) => {
                        missing.push(name);
                        at = parent.to_owned();
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn boot_id() -> ProviderResult<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH)
        .map_err(|error| ProviderError::io(format_args!("read {PATH}"), error).without_effect())?;
    Ok(text.trim().to_owned())
}

/// Whether files of a volume can be cloned into the store: tried with a file of the volume, and if it has none with one of
/// the store's own, provided that both are one file system.
fn probe(disk: &Disk, root: &Path, volume: &Volume) -> ProviderResult<Method> {
    let io = |error| ProviderError::io(format_args!("try a clone in {}", root.display()), error);
    let (from, to) = (root.join(".probe-from"), root.join(".probe-to"));
    let lock = disk.lock(&root.join(".probe"), Wait::Yes).map_err(io)?;
    let attempt = || -> io::Result<bool> {
        disk.remove(&from)?;
        disk.remove(&to)?;
        let target = disk.create_new(&to)?;
        if let Some(file) = some_file(&volume.path) {
            return can_clone(disk.clone_bytes(&file, &target, &to));
        }
        if fs::metadata(&volume.path)?.dev() != fs::metadata(root)?.dev() {
            return Ok(false);
        }
        let source = disk.create_new(&from)?;
        disk.write(&source, &from, &[0x5a; 4096])?;
        can_clone(disk.clone_bytes(&source, &target, &to))
    };
    let able = attempt();
    let removed = disk.remove(&from).and(disk.remove(&to)).and(disk.remove(&root.join(".probe")));
    drop(lock);
    removed.map_err(io)?;
    Ok(if able.map_err(io)? { Method::Reflink } else { Method::Copy })
}

/// Whether a clone was made; `Ok(false)` if the file systems cannot do it.
pub(crate) fn can_clone(done: io::Result<()>) -> io::Result<bool> {
    const CANNOT: [Errno; 8] = [
        Errno::XDEV,
        Errno::NOTSUP,
        Errno::INVAL,
        Errno::NOTTY,
        Errno::NOSYS,
        Errno::PERM,
        Errno::TXTBSY,
        Errno::BADF,
    ];
    match done {
        Ok(()) => Ok(true),
        Err(error) if is(&error, &CANNOT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Some regular file below a folder that can be read, found within the first few hundred names.
fn some_file(folder: &Path) -> Option<File> {
    let mut folders = vec![folder.to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            looked_at += 1;
            let kind = entry.file_type().ok();
            if kind.is_some_and(|kind| kind.is_file())
                && let Ok(file) = File::open(entry.path())
            {
                return Some(file);
            }
            if kind.is_some_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            if looked_at > 500 {
                return None;
            }
        }
    }
    None
}
