//! A provider around another one.

use std::borrow::Cow::Borrowed;
use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx, HostId, HostPath};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::placement::Placement;

use crate::call::{ProviderCall, lock_of, restore_of};
use crate::error::ProviderResult;
use crate::lock::{HoldName, Keeps, SnapshotLock};
use crate::provider::SnapshotProvider;
use crate::restore::{
    Collateral, Consent, Published, RestoreKey, SnapshotRestore, StageSpec, Staged,
};
use crate::snapshot::{Deleted, Discarded, DocName, Found, Listing, PrepareSpec, Snapshot};

/// What stands around another provider: implement [`inner`](Self::inner), and it is a [`SnapshotProvider`] that can do what
/// that one can, in all calls, those with a default and those of the two optional sides among them.
///
/// Change one call by implementing its method, or every call in one place, [`around`](Self::around). What a trait of this
/// crate gains later is forwarded without a change.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use stillpoint_storage::{
///     Cx, ForwardProvider, Member, Prepared, ProviderError, ProviderErrorKind, ProviderResult, SnapshotProvider,
/// };
///
/// /// Takes no snapshot before it is told that it may.
/// #[derive(Debug)]
/// struct Gated {
///     inner: Arc<dyn SnapshotProvider>,
///     is_open: bool,
/// }
///
/// #[async_trait]
/// impl ForwardProvider for Gated {
///     fn inner(&self) -> &dyn SnapshotProvider {
///         &*self.inner
///     }
///     async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
///         if !self.is_open {
///             return Err(ProviderError::new(ProviderErrorKind::Busy, "the gate is shut").without_effect());
///         }
///         self.inner.commit(cx, prepared).await
///     }
/// }
///
/// fn gate(inner: Arc<dyn SnapshotProvider>) -> Arc<dyn SnapshotProvider> {
///     Arc::new(Gated { inner, is_open: false })
/// }
/// ```
///
/// # Cancel safety
/// That of the inner provider: a future that is dropped drops the inner one.
#[async_trait]
pub trait ForwardProvider: Debug + Send + Sync + 'static {
    /// The provider that does the work.
    fn inner(&self) -> &dyn SnapshotProvider;

    /// Stands around every call: `work` asks, by the method of this trait that belongs to the call. The calls of the two
    /// sides come here too; [`caps`](Self::caps) does not.
    ///
    /// What it does inside a freeze is what the provider does: no log line, no write, no waiting on tasks elsewhere.
    fn around<'a, T>(
        &'a self,
        cx: &'a Cx,
        call: ProviderCall<'a>,
        work: BoxFuture<'a, ProviderResult<T>>,
    ) -> BoxFuture<'a, ProviderResult<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let (_, _) = (cx, call);
        work
    }

    /// [`caps`](SnapshotProvider::caps).
    fn caps(&self) -> ProviderCaps {
        self.inner().caps()
    }

    /// Whether there is a side that brings files back.
    fn has_restore(&self) -> bool {
        self.inner().restore().is_some()
    }

    /// Whether there is a side that keeps snapshots.
    fn has_lock(&self) -> bool {
        self.inner().lock().is_some()
    }

    /// [`resolve`](SnapshotProvider::resolve).
    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        self.inner().resolve(cx, files).await
    }

    /// [`volumes`](SnapshotProvider::volumes).
    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        self.inner().volumes(cx, volumes).await
    }

    /// [`prepare`](SnapshotProvider::prepare).
    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        self.inner().prepare(cx, spec).await
    }

    /// [`commit`](SnapshotProvider::commit).
    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        self.inner().commit(cx, prepared).await
    }

    /// [`adopt`](SnapshotProvider::adopt).
    async fn adopt(
        &self,
        cx: &Cx,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
    ) -> ProviderResult<Vec<Member>> {
        self.inner().adopt(cx, prepared, natives).await
    }

    /// [`settle`](SnapshotProvider::settle).
    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        self.inner().settle(cx, prepared).await
    }

    /// [`discard`](SnapshotProvider::discard).
    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        self.inner().discard(cx, token).await
    }

    /// [`find`](SnapshotProvider::find).
    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        self.inner().find(cx, token).await
    }

    /// [`list`](SnapshotProvider::list).
    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        self.inner().list(cx, volume, page).await
    }

    /// [`delete`](SnapshotProvider::delete).
    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        self.inner().delete(cx, snapshot).await
    }

    /// [`expose`](SnapshotProvider::expose).
    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        self.inner().expose(cx, snapshots, to, key).await
    }

    /// [`unexpose`](SnapshotProvider::unexpose).
    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        self.inner().unexpose(cx, key).await
    }

    /// [`exposures`](SnapshotProvider::exposures).
    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        self.inner().exposures(cx).await
    }

    /// [`put_doc`](SnapshotProvider::put_doc).
    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        self.inner().put_doc(cx, name, bytes).await
    }

    /// [`get_doc`](SnapshotProvider::get_doc).
    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        self.inner().get_doc(cx, name).await
    }

    /// [`list_docs`](SnapshotProvider::list_docs).
    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        self.inner().list_docs(cx).await
    }

    /// [`delete_doc`](SnapshotProvider::delete_doc).
    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        self.inner().delete_doc(cx, name).await
    }

    /// [`stage`](SnapshotRestore::stage).
    async fn restore_stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        restore_of(self.inner())?.stage(cx, spec).await
    }

    /// [`unstage`](SnapshotRestore::unstage).
    async fn restore_unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        restore_of(self.inner())?.unstage(cx, key).await
    }

    /// [`publish`](SnapshotRestore::publish).
    async fn restore_publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        restore_of(self.inner())?.publish(cx, key).await
    }

    /// [`retract`](SnapshotRestore::retract).
    async fn restore_retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        restore_of(self.inner())?.retract(cx, key).await
    }

    /// [`settle`](SnapshotRestore::settle).
    async fn restore_settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        restore_of(self.inner())?.settle(cx, key).await
    }

    /// [`collateral`](SnapshotRestore::collateral).
    async fn restore_collateral(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
    ) -> ProviderResult<Collateral> {
        restore_of(self.inner())?.collateral(cx, snapshots).await
    }

    /// [`revert`](SnapshotRestore::revert).
    async fn restore_revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        restore_of(self.inner())?.revert(cx, snapshots, consent).await
    }

    /// [`hold`](SnapshotLock::hold).
    async fn lock_hold(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        name: &HoldName,
    ) -> ProviderResult<()> {
        lock_of(self.inner())?.hold(cx, snapshot, name).await
    }

    /// [`release`](SnapshotLock::release).
    async fn lock_release(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        name: &HoldName,
    ) -> ProviderResult<()> {
        lock_of(self.inner())?.release(cx, snapshot, name).await
    }

    /// [`lock`](SnapshotLock::lock).
    async fn lock_lock(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
    ) -> ProviderResult<()> {
        lock_of(self.inner())?.lock(cx, snapshot, until).await
    }

    /// [`keeps`](SnapshotLock::keeps).
    async fn lock_keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps> {
        lock_of(self.inner())?.keeps(cx, snapshot).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is not here is not forwarded")]
#[async_trait]
impl<F: ForwardProvider> SnapshotProvider for F {
    fn caps(&self) -> ProviderCaps {
        ForwardProvider::caps(self)
    }

    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let call = ProviderCall::Resolve { files: Borrowed(files) };
        self.around(cx, call, ForwardProvider::resolve(self, cx, files)).await
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        let call = ProviderCall::Volumes { volumes: Borrowed(volumes) };
        self.around(cx, call, ForwardProvider::volumes(self, cx, volumes)).await
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let call = ProviderCall::Prepare { spec: Borrowed(spec) };
        self.around(cx, call, ForwardProvider::prepare(self, cx, spec)).await
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let call = ProviderCall::Commit { prepared: Borrowed(prepared) };
        self.around(cx, call, ForwardProvider::commit(self, cx, prepared)).await
    }

    async fn adopt(
        &self,
        cx: &Cx,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
    ) -> ProviderResult<Vec<Member>> {
        let call = ProviderCall::Adopt { prepared: Borrowed(prepared), natives: Borrowed(natives) };
        self.around(cx, call, ForwardProvider::adopt(self, cx, prepared, natives)).await
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let call = ProviderCall::Settle { prepared: Borrowed(prepared) };
        self.around(cx, call, ForwardProvider::settle(self, cx, prepared)).await
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        let call = ProviderCall::Discard { token: Borrowed(token) };
        self.around(cx, call, ForwardProvider::discard(self, cx, token)).await
    }

    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let call = ProviderCall::Find { token: Borrowed(token) };
        self.around(cx, call, ForwardProvider::find(self, cx, token)).await
    }

    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        let call = ProviderCall::List { volume: Borrowed(volume), page: page.clone() };
        self.around(cx, call, ForwardProvider::list(self, cx, volume, page)).await
    }

    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let call = ProviderCall::Delete { snapshot: Borrowed(snapshot) };
        self.around(cx, call, ForwardProvider::delete(self, cx, snapshot)).await
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        let call = ProviderCall::Expose {
            snapshots: Borrowed(snapshots),
            to: Borrowed(to),
            key: Borrowed(key),
        };
        self.around(cx, call, ForwardProvider::expose(self, cx, snapshots, to, key)).await
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        let call = ProviderCall::Unexpose { key: Borrowed(key) };
        self.around(cx, call, ForwardProvider::unexpose(self, cx, key)).await
    }

    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        let call = ProviderCall::Exposures;
        self.around(cx, call, ForwardProvider::exposures(self, cx)).await
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        let call = ProviderCall::PutDoc { name: Borrowed(name), bytes: Borrowed(bytes) };
        self.around(cx, call, ForwardProvider::put_doc(self, cx, name, bytes)).await
    }

    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        let call = ProviderCall::GetDoc { name: Borrowed(name) };
        self.around(cx, call, ForwardProvider::get_doc(self, cx, name)).await
    }

    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        let call = ProviderCall::ListDocs;
        self.around(cx, call, ForwardProvider::list_docs(self, cx)).await
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        let call = ProviderCall::DeleteDoc { name: Borrowed(name) };
        self.around(cx, call, ForwardProvider::delete_doc(self, cx, name)).await
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        self.has_restore().then_some(self as &dyn SnapshotRestore)
    }

    fn lock(&self) -> Option<&dyn SnapshotLock> {
        self.has_lock().then_some(self as &dyn SnapshotLock)
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is not here is not forwarded")]
#[async_trait]
impl<F: ForwardProvider> SnapshotRestore for F {
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        let call = ProviderCall::Stage { spec: Borrowed(spec) };
        self.around(cx, call, ForwardProvider::restore_stage(self, cx, spec)).await
    }

    async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let call = ProviderCall::Unstage { key: Borrowed(key) };
        self.around(cx, call, ForwardProvider::restore_unstage(self, cx, key)).await
    }

    async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        let call = ProviderCall::Publish { key: Borrowed(key) };
        self.around(cx, call, ForwardProvider::restore_publish(self, cx, key)).await
    }

    async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let call = ProviderCall::Retract { key: Borrowed(key) };
        self.around(cx, call, ForwardProvider::restore_retract(self, cx, key)).await
    }

    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let call = ProviderCall::SettleRestore { key: Borrowed(key) };
        self.around(cx, call, ForwardProvider::restore_settle(self, cx, key)).await
    }

    async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral> {
        let call = ProviderCall::Collateral { snapshots: Borrowed(snapshots) };
        self.around(cx, call, ForwardProvider::restore_collateral(self, cx, snapshots)).await
    }

    async fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        let call =
            ProviderCall::Revert { snapshots: Borrowed(snapshots), consent: Borrowed(consent) };
        self.around(cx, call, ForwardProvider::restore_revert(self, cx, snapshots, consent)).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is not here is not forwarded")]
#[async_trait]
impl<F: ForwardProvider> SnapshotLock for F {
    async fn hold(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()> {
        let call = ProviderCall::Hold { snapshot: Borrowed(snapshot), name: Borrowed(name) };
        self.around(cx, call, ForwardProvider::lock_hold(self, cx, snapshot, name)).await
    }

    async fn release(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        name: &HoldName,
    ) -> ProviderResult<()> {
        let call = ProviderCall::Release { snapshot: Borrowed(snapshot), name: Borrowed(name) };
        self.around(cx, call, ForwardProvider::lock_release(self, cx, snapshot, name)).await
    }

    async fn lock(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
    ) -> ProviderResult<()> {
        let call = ProviderCall::Lock { snapshot: Borrowed(snapshot), until };
        self.around(cx, call, ForwardProvider::lock_lock(self, cx, snapshot, until)).await
    }

    async fn keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps> {
        let call = ProviderCall::Keeps { snapshot: Borrowed(snapshot) };
        self.around(cx, call, ForwardProvider::lock_keeps(self, cx, snapshot)).await
    }
}
