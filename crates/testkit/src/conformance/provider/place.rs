//! Where providers are tried: volumes with files on them, and what may be done there besides.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{HostId, HostPath, Seams};
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{SnapshotRef, VolumeRef};
use stillpoint_storage::SnapshotProvider;

use super::super::store::BoxError;

/// What can be done at a place besides calling the provider. What is not declared is not tried: a report lists what was
/// skipped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Can {
    /// [Open](ProviderPlace::open) gives a provider that finds what one before it left, as after a crash.
    Reopen,
    /// The suite may [write](ProviderPlace::write) to the files of the volumes, and restore to [`Ground::targets`].
    Write,
    /// It can [make](ProviderPlace::add_foreign) snapshots that are not ours.
    Foreign,
    /// It can [play the hardware provider](ProviderPlace::snap) that snaps inside VSS.
    Snap,
    /// It can [fill](ProviderPlace::fill) the place where snapshots go.
    Fill,
    /// The suite may take as many snapshots as the first volume can have; they are few.
    Exhaust,
    /// It can [hold](ProviderPlace::hold) snapshots.
    Hold,
    /// It can [lock](ProviderPlace::lock) snapshots.
    Lock,
    /// It can [cut the power](ProviderPlace::cut_power) of the storage.
    CutPower,
    /// Its clock is virtual, so that waiting costs nothing and times are exact.
    Virtual,
}

/// A volume that a suite may take snapshots of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestVolume {
    /// Its name in calls.
    pub volume: VolumeRef,
    /// The folder where it is mounted.
    pub root: HostPath,
    /// Files on it, at least one. They are read whole and compared.
    pub files: Vec<HostPath>,
}

impl TestVolume {
    /// These files of a volume.
    pub fn new(volume: VolumeRef, root: HostPath, files: Vec<HostPath>) -> Self {
        Self { volume, root, files }
    }
}

/// What a suite stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ground {
    /// The volumes, at least one; with two or more, sets are tried, of which the first is called data and the second logs.
    pub volumes: Vec<TestVolume>,
    /// Where snapshots are exposed to.
    pub host: HostId,
    /// A path that lies on no volume of the provider.
    pub elsewhere: Option<HostPath>,
    /// A folder to which files may be restored.
    pub targets: Option<HostPath>,
}

impl Ground {
    /// These volumes, exposed to this host.
    pub fn new(volumes: Vec<TestVolume>, host: HostId) -> Self {
        Self { volumes, host, elsewhere: None, targets: None }
    }

    /// The same with a path that lies on no volume of the provider.
    pub fn with_elsewhere(mut self, path: HostPath) -> Self {
        self.elsewhere = Some(path);
        self
    }

    /// The same with a folder for restores.
    pub fn with_targets(mut self, folder: HostPath) -> Self {
        self.targets = Some(folder);
        self
    }
}

fn cannot(what: &str) -> BoxError {
    format!("the place cannot {what}").into()
}

/// A place where a provider works. What it can do beyond the first three is declared by
/// [`ProviderFactory::can`]; it need not implement the rest.
#[async_trait]
pub trait ProviderPlace: Send + Sync {
    /// Opens the provider. Called again when every handle of the one before has been dropped, as after a crash; calls that
    /// were dropped half way may still be at work then.
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError>;

    /// The volumes and their files. The same at any time.
    fn ground(&self) -> Ground;

    /// The bytes of a file now, on a volume, in an exposure or at a target; `None` if there is none.
    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError>;

    /// Writes a file: one that is there in place, as an application does, without making it shorter meanwhile.
    async fn write(&self, path: &HostPath, bytes: &[u8]) -> Result<(), BoxError> {
        let (_, _) = (path, bytes);
        Err(cannot("write"))
    }

    /// Removes a file.
    async fn remove(&self, path: &HostPath) -> Result<(), BoxError> {
        let _ = path;
        Err(cannot("remove files"))
    }

    /// Whether a file in an exposure is refused to writers, whoever they are; by default nobody looks.
    async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
        let _ = path;
        Ok(true)
    }

    /// Makes a snapshot of somebody else's, under a name that is as confusing as the storage allows: it is asked for the
    /// very name and token that a set of ours will bear.
    async fn add_foreign(&self, volume: &VolumeRef, name: &str) -> Result<SnapshotRef, BoxError> {
        let (_, _) = (volume, name);
        Err(cannot("make foreign snapshots"))
    }

    /// Snaps every volume of a prepared set, as a hardware provider does inside VSS.
    async fn snap(&self, prepared: &Prepared) -> Result<Vec<NativeSnapshot>, BoxError> {
        let _ = prepared;
        Err(cannot("snap"))
    }

    /// Leaves no room for a snapshot of a volume, or makes room again.
    async fn fill(&self, volume: &VolumeRef, full: bool) -> Result<(), BoxError> {
        let (_, _) = (volume, full);
        Err(cannot("fill a volume"))
    }

    /// Holds a snapshot, or releases it.
    async fn hold(&self, snapshot: &SnapshotRef, held: bool) -> Result<(), BoxError> {
        let (_, _) = (snapshot, held);
        Err(cannot("hold snapshots"))
    }

    /// Locks a snapshot, and says until when; the next call of it, with `false`, ends the lock as time would.
    async fn lock(&self, snapshot: &SnapshotRef, locked: bool) -> Result<DateTime<Utc>, BoxError> {
        let (_, _) = (snapshot, locked);
        Err(cannot("lock snapshots"))
    }

    /// Lets the storage lose whatever is not durable.
    async fn cut_power(&self) -> Result<(), BoxError> {
        Err(cannot("cut the power"))
    }
}

/// Makes the places at which a suite tries a provider, and says what they can.
#[async_trait]
pub trait ProviderFactory: Send + Sync {
    /// A new place, on which nobody else works.
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError>;

    /// Time, tasks and ids for the calls.
    fn seams(&self) -> Seams;

    /// What the places can do besides.
    fn can(&self) -> BTreeSet<Can> {
        BTreeSet::new()
    }
}
