//! The provider: each call of the traits, away from the runtime's workers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use stillpoint_context::{Cx, HostId, HostPath, Mono};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::placement::Placement;
use stillpoint_storage::{
    Collateral, Consent, Deleted, Discarded, DocName, Found, HoldName, Keeps, Listing, PrepareSpec,
    ProviderError, ProviderErrorKind, ProviderResult, Published, RestoreKey, Snapshot,
    SnapshotLock, SnapshotProvider, SnapshotRestore, StageSpec, Staged,
};

use crate::commit::{Begun, Commit, moving};
use crate::config::{self, FsConfig};
use crate::disk::Disk;
use crate::flight::Flight;
use crate::format::Method;
use crate::hold::Change;
use crate::remove::Removal;
use crate::restore::{Undone, under_way};
use crate::store::Store;
use crate::subvolume::Subvolumes;

/// How long to watch for a commit that does not end.
const WATCH: TimeDelta = TimeDelta::seconds(60);
/// How often an undo looks again.
const LOOK: Duration = Duration::from_millis(20);

/// A provider over folders and a store folder. Cheap to clone; every clone is the same provider.
///
/// All that it knows is in the store, so that several processes may have one store open, and a new process finds what one
/// that is gone has left.
#[derive(Clone, Debug)]
pub struct FsProvider {
    store: Arc<Store>,
}

impl FsProvider {
    /// Checks the configuration, and makes the store if it is not there. Blocks: call it when the program starts.
    ///
    /// # Errors
    /// `Invalid` when there is no volume, two volumes are one, a volume is no folder, the store lies inside a volume or a
    /// volume inside the store; `PathEscapes` for a path that is not Unicode;
    /// `AccessDenied`, `ReadOnly` or `NoSpace` when the store cannot be written; `Unsupported("instant")` when reflinks
    /// are demanded and a volume has none; `Unsupported("stored format")` for the store of a newer program.
    pub fn open(config: &FsConfig) -> ProviderResult<Self> {
        config::open(config, Disk::default())
    }

    /// The same over a file system that snaps subvolumes: each volume has to be the root of one, on the file system of the
    /// store, and is known by the UUIDs of both, whatever the configuration calls it; its name there is for people.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Invalid` for a volume that is no subvolume or lies on another file system than the store;
    /// `AccessDenied` when this process may not look for snapshots.
    pub fn open_over(config: &FsConfig, subvolumes: Arc<dyn Subvolumes>) -> ProviderResult<Self> {
        let opened = config::open(config, Disk::default().with_subvolumes(Some(subvolumes)))?;
        opened.store.end_left_reverts()?;
        Ok(opened)
    }

    /// Looks for what [`open`](Self::open) would refuse, and makes nothing. What shows only when the store is written, such as
    /// a lack of room or of rights, is left to `open`. Blocks.
    ///
    /// # Errors
    /// Those of `open` that can be told without a change.
    pub fn check(config: &FsConfig) -> ProviderResult<()> {
        config::check(config, &Disk::default())
    }

    /// The same of what [`open_over`](Self::open_over) would refuse.
    ///
    /// # Errors
    /// Those of `open_over` that can be told without a change.
    pub fn check_over(config: &FsConfig, subvolumes: Arc<dyn Subvolumes>) -> ProviderResult<()> {
        config::check(config, &Disk::default().with_subvolumes(Some(subvolumes)))
    }

    /// The volumes: the name of each in the configuration, what it is known by, and its folder.
    pub fn known_volumes(&self) -> impl Iterator<Item = (&str, &VolumeRef, &std::path::Path)> {
        self.store.volumes.iter().map(|v| (v.name.as_str(), &v.reference, v.path.as_path()))
    }

    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    #[cfg(test)]
    pub(crate) fn into_store(self) -> Store {
        Arc::into_inner(self.store).expect("nobody else has it")
    }

    /// Where the copies are: the store folder, with links resolved.
    pub fn store(&self) -> &std::path::Path {
        &self.store.root
    }

    /// Runs a call on the store away from the runtime's workers.
    async fn run<T: Send + 'static>(
        &self,
        cx: &Cx,
        name: &'static str,
        work: impl FnOnce(&Arc<Store>, &Cx) -> ProviderResult<T> + Send + 'static,
    ) -> ProviderResult<T> {
        let (store, theirs) = (Arc::clone(&self.store), cx.clone());
        cx.blocking(name, move || work(&store, &theirs)).await?
    }

    /// Waits a little for work that still runs; `false` once it has been waited for long enough.
    async fn wait(&self, cx: &Cx, began: Mono) -> bool {
        let waited = cx.mono().saturating_since(began) >= self.store.patience;
        !waited && cx.sleep(LOOK).await.is_ok()
    }

    /// Takes the members wave by wave, those of a wave side by side.
    async fn take(&self, cx: &Cx, commit: Arc<Commit>) -> ProviderResult<Vec<Member>> {
        let mut taken = Vec::new();
        for wave in commit.waves() {
            let members = wave.into_iter().map(|index| {
                let (commit, theirs) = (Arc::clone(&commit), cx.clone());
                cx.blocking("fs.commit.member", move || commit.take(&theirs, index))
            });
            let mut first: Option<ProviderError> = None;
            for member in join_all(members).await {
                match member.map_err(ProviderError::from).and_then(|member| member) {
                    Ok(member) => taken.push(member),
                    // The one that failed by itself says more than those that stopped because of it.
                    Err(error) if first.as_ref().is_none_or(is_follower) => {
                        first = Some(error);
                    }
                    Err(_) => {}
                }
            }
            if let Some(error) = first {
                // The last claim removes a set that was discarded meanwhile, which may take a while.
                let _ended = cx.blocking("fs.commit.end", move || drop(commit)).await;
                return Err(error);
            }
        }
        let finished = cx.blocking("fs.commit.finish", move || commit.finish(taken)).await;
        finished.map_err(ProviderError::from)?
    }
}

fn is_follower(error: &ProviderError) -> bool {
    *error.kind() == ProviderErrorKind::Cancelled
}

#[async_trait]
impl SnapshotProvider for FsProvider {
    fn caps(&self) -> ProviderCaps {
        let mut caps = ProviderCaps::new(self.store.provider.clone());
        caps.instant = self.store.volumes.iter().all(|volume| volume.method != Method::Copy);
        caps.clone = true;
        caps.lock = true;
        caps.revert = self.store.may_revert;
        caps
    }

    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let files = files.to_vec();
        self.run(cx, "fs.resolve", move |store, _| store.resolve(&files)).await
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        let volumes = volumes.to_vec();
        self.run(cx, "fs.volumes", move |store, cx| store.facts(cx, &volumes)).await
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let Some(flight) = self.store.preparations.begin(&spec.token) else {
            return Err(moving(&spec.token).with_retry_after(LOOK));
        };
        let spec = spec.clone();
        let work = move |store: &Arc<Store>, cx: &Cx| store.prepare(cx, &spec, &flight);
        self.run(cx, "fs.prepare", work).await
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let prepared = prepared.clone();
        match self
            .run(cx, "fs.commit.begin", move |store, cx| store.begin_commit(cx, &prepared))
            .await?
        {
            Begun::Before(members) => Ok(members),
            Begun::Now(commit) => self.take(cx, commit).await,
        }
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let prepared = prepared.clone();
        self.run(cx, "fs.settle", move |store, cx| store.settle(cx, &prepared)).await
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        let began = cx.mono();
        loop {
            // Asked before the look at the disk: a preparation that had ended by now has left there what it made.
            let is_prepared = self.store.preparations.stop(token);
            let theirs = token.clone();
            let removal =
                self.run(cx, "fs.discard", move |store, cx| store.discard(cx, &theirs)).await?;
            if removal == Removal::Gone && !is_prepared {
                return Ok(Discarded::Gone);
            }
            // The folder has been moved away, so that whoever works in it stops at its next look, and removes what it made.
            if !self.wait(cx, began).await {
                return Ok(Discarded::WatchUntil(cx.now() + WATCH));
            }
        }
    }

    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let token = token.clone();
        self.run(cx, "fs.find", move |store, cx| store.find(cx, &token)).await
    }

    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        let volume = volume.clone();
        self.run(cx, "fs.list", move |store, cx| store.list(cx, &volume, page.as_deref())).await
    }

    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let began = cx.mono();
        loop {
            let theirs = snapshot.clone();
            let removal =
                self.run(cx, "fs.delete", move |store, cx| store.delete(cx, &theirs)).await?;
            if removal == Removal::Gone {
                return Ok(Deleted::Gone);
            }
            if !self.wait(cx, began).await {
                return Ok(Deleted::Pending);
            }
        }
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        let (snapshots, to, key) = (snapshots.to_vec(), to.clone(), key.clone());
        self.run(cx, "fs.expose", move |store, _| store.expose(&snapshots, &to, &key)).await
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        let key = key.clone();
        self.run(cx, "fs.unexpose", move |store, _| store.unexpose(&key)).await
    }

    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        self.run(cx, "fs.exposures", |store, _| store.exposures()).await
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        let (name, bytes) = (name.clone(), bytes.to_vec());
        self.run(cx, "fs.put_doc", move |store, _| store.put_doc(&name, &bytes)).await
    }

    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        let name = name.clone();
        self.run(cx, "fs.get_doc", move |store, _| store.doc_bytes(&name)).await
    }

    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        self.run(cx, "fs.list_docs", |store, _| store.doc_names()).await
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        let name = name.clone();
        self.run(cx, "fs.delete_doc", move |store, _| store.delete_doc(&name)).await
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        Some(self)
    }

    fn lock(&self) -> Option<&dyn SnapshotLock> {
        Some(self)
    }
}

#[async_trait]
impl SnapshotLock for FsProvider {
    async fn hold(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()> {
        self.keep(cx, "fs.hold", snapshot, Change::Hold(name.clone())).await
    }

    async fn release(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        name: &HoldName,
    ) -> ProviderResult<()> {
        self.keep(cx, "fs.release", snapshot, Change::Release(name.clone())).await
    }

    async fn lock(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
    ) -> ProviderResult<()> {
        self.keep(cx, "fs.lock", snapshot, Change::LockUntil(until)).await
    }

    async fn keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps> {
        let snapshot = snapshot.clone();
        self.run(cx, "fs.keeps", move |store, _| store.keeps(&snapshot)).await
    }
}

/// An undo of a restore.
type Undo = fn(&Store, &RestoreKey) -> ProviderResult<Undone>;

impl FsProvider {
    async fn keep(
        &self,
        cx: &Cx,
        name: &'static str,
        snapshot: &SnapshotRef,
        change: Change,
    ) -> ProviderResult<()> {
        let snapshot = snapshot.clone();
        self.run(cx, name, move |store, cx| store.change_keeps(cx, &snapshot, &change)).await
    }

    /// Announces a call for a restore; busy while an earlier one has not ended.
    fn fly(&self, key: &RestoreKey) -> ProviderResult<Flight<RestoreKey>> {
        let flight = self.store.restorations.begin(key);
        flight.ok_or_else(|| under_way(key).with_retry_after(LOOK))
    }

    /// Repeats an undo until whoever is at the restore has stopped.
    async fn undo(
        &self,
        cx: &Cx,
        name: &'static str,
        key: &RestoreKey,
        undo: Undo,
    ) -> ProviderResult<()> {
        let began = cx.mono();
        loop {
            // Asked before the look at the disk: a call that had ended by now has left there what it did.
            let is_under_way = self.store.restorations.stop(key);
            let theirs = key.clone();
            let undone = self.run(cx, name, move |store, _| undo(store, &theirs)).await?;
            if undone == Undone::Done && !is_under_way {
                return Ok(());
            }
            if !self.wait(cx, began).await {
                let text =
                    format!("a call for the restore {key} is still running and was asked to stop");
                return Err(ProviderError::new(ProviderErrorKind::Busy, text)
                    .with_retry_after(Duration::from_secs(1)));
            }
        }
    }
}

#[async_trait]
impl SnapshotRestore for FsProvider {
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        let (spec, flight) = (spec.clone(), self.fly(&spec.key)?);
        let work = move |store: &Arc<Store>, cx: &Cx| store.stage(cx, &spec, &flight);
        self.run(cx, "fs.restore.stage", work).await
    }

    async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        self.undo(cx, "fs.restore.unstage", key, Store::unstage).await
    }

    async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        let (key, flight) = (key.clone(), self.fly(key)?);
        let work = move |store: &Arc<Store>, cx: &Cx| store.publish(cx, &key, &flight);
        self.run(cx, "fs.restore.publish", work).await
    }

    async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        self.undo(cx, "fs.restore.retract", key, Store::retract).await
    }

    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        self.undo(cx, "fs.restore.settle", key, Store::settle_restore).await
    }

    async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral> {
        let snapshots = snapshots.to_vec();
        self.run(cx, "fs.collateral", move |store, cx| store.collateral(cx, &snapshots)).await
    }

    async fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        let (snapshots, consent) = (snapshots.to_vec(), consent.clone());
        self.run(cx, "fs.revert", move |store, cx| store.revert(cx, &snapshots, &consent)).await
    }
}
