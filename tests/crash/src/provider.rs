//! The storage of the harness: real copies of real files, with a promise that only the harness can make.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::storage::{
    Discarded, DocName, ForwardProvider, PrepareSpec, ProviderError, ProviderErrorKind,
    ProviderResult, Snapshot, SnapshotProvider,
};
use stillpoint_context::{Cx, HostId};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};

use crate::stops::Stops;

/// What a commit is declared to take at worst.
const WORST: Duration = Duration::from_millis(400);

/// A provider of files so small that copying them has a known worst case.
///
/// `FsProvider` is right to refuse full copies under a freeze limit: it cannot know how large files are or how busy a disk
/// is. The harness can, as it made the files, and it needs a freeze that has a limit. It only declares; whether a commit does
/// come in time is the guard's business, as with any other provider. It declares the same of clones and snapshots, whose own
/// worst case would be that of a machine on which many rounds go on at once.
///
/// It is also where the engine's process [stops](Stops) to be killed.
#[derive(Debug, Clone)]
pub struct TinyFiles {
    inner: Arc<dyn SnapshotProvider>,
    stops: Stops,
}

impl TinyFiles {
    /// The promise over this provider.
    pub fn over(inner: Arc<dyn SnapshotProvider>, stops: Stops) -> Self {
        Self { inner, stops }
    }

    /// Stops on a thread that may block; inside a guard that is the one that polls.
    async fn at<T>(&self, call: &str, work: impl Future<Output = T> + Send) -> T {
        self.stops.reached(call, "before");
        let done = work.await;
        self.stops.reached(call, "after");
        done
    }
}

#[async_trait]
impl ForwardProvider for TinyFiles {
    fn inner(&self) -> &dyn SnapshotProvider {
        &*self.inner
    }

    fn caps(&self) -> ProviderCaps {
        let mut caps = self.inner.caps();
        caps.instant = true;
        caps
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        let mut facts = self.inner.volumes(cx, volumes).await?;
        for volume in &mut facts {
            volume.worst_commit = Some(WORST);
        }
        Ok(facts)
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        if let Some(limit) = spec.limit.filter(|&limit| limit < WORST) {
            let kind = ProviderErrorKind::TooSlow { worst_case: WORST, limit };
            let message = format!("copies may take {WORST:?}, and the limit is {limit:?}");
            return Err(ProviderError::new(kind, message).without_effect());
        }
        let unlimited = spec.clone().with_limit(None);
        let prepared = self.at("prepare", self.inner.prepare(cx, &unlimited)).await?;
        Ok(prepared.with_worst_case(Some(WORST)))
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        self.at("commit", self.inner.commit(cx, prepared)).await
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        self.at("settle", self.inner.settle(cx, prepared)).await
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        self.at("discard", self.inner.discard(cx, token)).await
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        self.at("expose", self.inner.expose(cx, snapshots, to, key)).await
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        self.at("unexpose", self.inner.unexpose(cx, key)).await
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        self.at("put_doc", self.inner.put_doc(cx, name, bytes)).await
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        self.at("delete_doc", self.inner.delete_doc(cx, name)).await
    }
}
