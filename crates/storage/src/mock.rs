//! Mocks of the traits, made with `mockall`; usable from any crate's tests with the feature `mock`.
//!
//! ```
//! use stillpoint_storage::{Discarded, MockSnapshotProvider, SnapshotProvider};
//!
//! let mut provider = MockSnapshotProvider::new();
//! provider.expect_discard().returning(|_, _| Ok(Discarded::Gone));
//! let shared: std::sync::Arc<dyn SnapshotProvider> = std::sync::Arc::new(provider);
//! # drop(shared);
//! ```
//!
//! A mock has no optional sides: [`SnapshotProvider::restore`] and [`SnapshotProvider::lock`] answer `None`. Where one is
//! needed, wrap the mocks in a type of the test's own that is a [`ForwardProvider`](crate::ForwardProvider).

// What the macro writes is not ours to document or to lint.
#![allow(missing_docs, clippy::pedantic, unreachable_pub)]

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::placement::Placement;

use crate::error::ProviderResult;
use crate::lock::{HoldName, Keeps, SnapshotLock};
use crate::provider::SnapshotProvider;
use crate::restore::{
    Collateral, Consent, Published, RestoreKey, SnapshotRestore, StageSpec, Staged,
};
use crate::snapshot::{Deleted, Discarded, DocName, Found, Listing, PrepareSpec, Snapshot};

mockall::mock! {
    #[derive(Debug)]
    pub SnapshotProvider {}

    #[async_trait]
    impl SnapshotProvider for SnapshotProvider {
        fn caps(&self) -> ProviderCaps;
        async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>>;
        async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>>;
        async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared>;
        async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>>;
        async fn adopt(&self, cx: &Cx, prepared: &Prepared, natives: &[NativeSnapshot]) -> ProviderResult<Vec<Member>>;
        async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>>;
        async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded>;
        async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found>;
        async fn list(&self, cx: &Cx, volume: &VolumeRef, page: Option<String>) -> ProviderResult<Listing>;
        async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted>;
        async fn expose(&self, cx: &Cx, snapshots: &[SnapshotRef], to: &HostId, key: &ExposureKey) -> ProviderResult<Exposure>;
        async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()>;
        async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>>;
        async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()>;
        async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>>;
        async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>>;
        async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()>;
    }
}

mockall::mock! {
    #[derive(Debug)]
    pub SnapshotRestore {}

    #[async_trait]
    impl SnapshotRestore for SnapshotRestore {
        async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged>;
        async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;
        async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published>;
        async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;
        async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;
        async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral>;
        async fn revert(&self, cx: &Cx, snapshots: &[SnapshotRef], consent: &Consent) -> ProviderResult<Vec<VolumeRef>>;
    }
}

mockall::mock! {
    #[derive(Debug)]
    pub SnapshotLock {}

    #[async_trait]
    impl SnapshotLock for SnapshotLock {
        async fn hold(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()>;
        async fn release(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()>;
        async fn lock(&self, cx: &Cx, snapshot: &SnapshotRef, until: DateTime<Utc>) -> ProviderResult<()>;
        async fn keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps>;
    }
}
