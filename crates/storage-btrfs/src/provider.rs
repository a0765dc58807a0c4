//! The provider: a store over subvolumes.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeId, VolumeRef};
use stillpoint_model::placement::Placement;
use stillpoint_storage::{
    Deleted, Discarded, DocName, Found, Listing, PrepareSpec, ProviderError, ProviderErrorKind,
    ProviderResult, Snapshot, SnapshotLock, SnapshotProvider, SnapshotRestore,
};
use stillpoint_storage_fs::subvolume::Subvolumes;
use stillpoint_storage_fs::{FsConfig, FsProvider};

use crate::config::BtrfsConfig;
use crate::subvolumes::Btrfs;

/// A provider over subvolumes of one btrfs and a store folder on it. Cheap to clone; every clone is the same provider.
///
/// All that it knows is in the store and in the file system, so that several processes may have one store open, and a new
/// process finds what one that is gone has left.
#[derive(Clone, Debug)]
pub struct BtrfsProvider {
    store: FsProvider,
}

/// Whether a folder is the root of a subvolume of btrfs.
///
/// # Errors
/// When the folder cannot be opened, or the file system cannot be asked.
pub fn is_subvolume(folder: &Path) -> std::io::Result<bool> {
    Ok(Btrfs.identify(&std::fs::File::open(folder)?)?.is_some())
}

impl BtrfsProvider {
    /// Checks the configuration, makes the store if it is not there, and ends reverts that a process which is gone has begun.
    /// Blocks: call it when the program starts.
    ///
    /// # Errors
    /// `Invalid` when there is no volume, two volumes are one, a volume is no subvolume or lies on another file system than
    /// the store, the store lies inside a volume or a volume inside the store; `NotFound` for a volume that is not there and
    /// that the store does not know; `AccessDenied` without the rights of root; `ReadOnly` or `NoSpace` when the store cannot be
    /// written; `Unsupported("stored format")` for the store of a newer program.
    pub fn open(config: &BtrfsConfig) -> ProviderResult<Self> {
        Ok(Self { store: FsProvider::open_over(&over_subvolumes(config)?, Arc::new(Btrfs))? })
    }

    /// Looks for what [`open`](Self::open) would refuse, and makes nothing. What shows only when the store is written, such as
    /// a lack of room, is left to `open`. Blocks.
    ///
    /// # Errors
    /// Those of `open` that can be told without a change.
    pub fn check(config: &BtrfsConfig) -> ProviderResult<()> {
        FsProvider::check_over(&over_subvolumes(config)?, Arc::new(Btrfs))
    }

    /// What the volume is known by whose folder was configured so, or has this real path.
    pub fn volume(&self, folder: &Path) -> Option<VolumeRef> {
        let named = folder.to_str();
        let known = self.store.known_volumes();
        let mut known = known.filter(|(name, _, at)| *at == folder || Some(*name) == named);
        known.next().map(|(_, reference, _)| reference.clone())
    }

    /// Where sets and documents are: the store folder, with links resolved.
    pub fn store(&self) -> &Path {
        self.store.store()
    }
}

fn over_subvolumes(config: &BtrfsConfig) -> ProviderResult<FsConfig> {
    let mut store = FsConfig::new(config.provider.clone(), config.host.clone(), &config.store);
    for folder in &config.volumes {
        let name = folder.to_string_lossy();
        let name = VolumeId::new(&name).map_err(|error| {
            ProviderError::new(ProviderErrorKind::Invalid, error.to_string())
                .with_source(error)
                .without_effect()
        })?;
        store = store.with_volume(name, folder);
    }
    if !config.make {
        store = store.with_existing_store();
    }
    if !config.revert {
        store = store.without_revert();
    }
    Ok(store)
}

#[async_trait]
impl SnapshotProvider for BtrfsProvider {
    fn caps(&self) -> ProviderCaps {
        self.store.caps()
    }

    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        self.store.resolve(cx, files).await
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        self.store.volumes(cx, volumes).await
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        self.store.prepare(cx, spec).await
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        self.store.commit(cx, prepared).await
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        SnapshotProvider::settle(&self.store, cx, prepared).await
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        self.store.discard(cx, token).await
    }

    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        self.store.find(cx, token).await
    }

    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        self.store.list(cx, volume, page).await
    }

    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        self.store.delete(cx, snapshot).await
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        self.store.expose(cx, snapshots, to, key).await
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        self.store.unexpose(cx, key).await
    }

    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        self.store.exposures(cx).await
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        self.store.put_doc(cx, name, bytes).await
    }

    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        self.store.get_doc(cx, name).await
    }

    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        self.store.list_docs(cx).await
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        self.store.delete_doc(cx, name).await
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        Some(&self.store)
    }

    fn lock(&self) -> Option<&dyn SnapshotLock> {
        Some(&self.store)
    }
}
