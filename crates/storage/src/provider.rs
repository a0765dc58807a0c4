//! The trait that a snapshot provider implements.

use std::fmt::Debug;

use async_trait::async_trait;
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
use stillpoint_model::handover::{Exposure, Member, NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::placement::Placement;

use crate::error::{ProviderError, ProviderResult};
use crate::lock::SnapshotLock;
use crate::restore::SnapshotRestore;
use crate::snapshot::{Deleted, Discarded, DocName, Found, Listing, PrepareSpec, Snapshot};

/// Takes snapshots of volumes.
///
/// The engine calls it; it never sees the engine. Everything that it needs to know comes as an argument, and everything
/// that it sleeps, waits and blocks for goes through the [`Cx`].
///
/// # Contract
///
/// | | |
/// |---|---|
/// | S1 phases | [`prepare`](Self::prepare) does what is slow and fences nothing; [`commit`](Self::commit) only snaps, volumes side by side or atomically; [`settle`](Self::settle) makes durable and tags. |
/// | S2 token | The token is ours, unique for each set. Snapshots are found by it after a crash, in flight ones too; what VSS named itself is [adopted](Self::adopt) under it. `commit` repeated with the same [`Prepared`] is the same snapshots. |
/// | S3 removal | [`delete`](Self::delete) and [`discard`](Self::discard) are idempotent. A held, locked or depended-on snapshot is refused with that reason. What we did not tag is never touched. |
/// | S4 exposure | An exposure is read-only, known by its key, listed by [`exposures`](Self::exposures) after a crash, and never changes the snapshot. |
/// | S5 capabilities | A request outside [`caps`](Self::caps) is refused before the freeze (in `prepare` at the latest), with the capability's name. |
/// | S6 errors | An error says code, class, retryable, effect none or unknown, volume and remedy. |
/// | S7 restore | Restore is by clone; a revert names its collateral and is refused without consent to exactly that. |
/// | S8 manifests | Documents lie beside the data; the catalogue can be rebuilt from storage alone. |
/// | S9 order | If a set is only crash-grade, database members are taken before log members, as pages may never be newer than their logs. [`PrepareSpec::members`] comes in that order. |
///
/// **Atomicity.** A set is all or nothing for whoever lists it as ours: until `settle` has succeeded its snapshots may
/// exist in part, and `discard` takes away whatever part there is.
///
/// **Ordering.** The engine calls `prepare`, `commit` (or `adopt`), `settle` in this order for one token, and never two of
/// them at once for one token. Different tokens may be under way at once, also on one volume.
///
/// **After an error** the call may be repeated with the same arguments, or the token discarded; nothing else. Unless the
/// error's effect is none, something may exist.
///
/// # Cancel safety
/// Dropping the future of any call leaves its effect unknown: `find` tells afterwards what there is, and `discard` takes
/// it away. What was handed to a thread or to the storage may go on and finish late; `discard` then answers
/// [`Discarded::WatchUntil`].
///
/// # Inside the freeze
/// Between `commit`'s first poll and its end, nothing but the snapshot calls themselves: no log line, no write to any
/// volume but the target, no waiting on tasks spawned elsewhere. `commit` is polled on a runtime of the guard's own.
#[async_trait]
pub trait SnapshotProvider: Debug + Send + Sync + 'static {
    /// What it can do. The same for the life of the value.
    fn caps(&self) -> ProviderCaps;

    /// Where these files lie. The answer has one placement for each file that lies on a volume of this provider, in the
    /// order of `files`; files that lie elsewhere are left out.
    ///
    /// # Errors
    /// When the storage cannot be asked. A file that does not exist is placed by its folder.
    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>>;

    /// What is to be known of these volumes before a backup is planned: snapshots used and their limit, the quiesce level
    /// that a snapshot of it needs, the worst case of a commit. In the order of `volumes`.
    ///
    /// # Errors
    /// `NotFound` for a volume that is not (or no longer) this provider's.
    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>>;

    /// Gets ready to snap: everything slow, nothing that an application would notice. States the worst case of the
    /// commit. The answer is stored and may be used by another process.
    ///
    /// # Errors
    /// `Unsupported` and `TooSlow` for what [`caps`](Self::caps) rule out (S5), `SnapshotLimit`, `NoSpace`, `ReadOnly`,
    /// `AccessDenied`, `Vanished`, `NameTaken`: all that would make the commit fail and can be known before the freeze.
    ///
    /// # Idempotence
    /// Repeated with the same token it starts anew or answers the same.
    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared>;

    /// Takes the snapshots: only the instant. No tags, no fsync, no listing.
    ///
    /// # Errors
    /// Any; with effect none only if surely no member was taken. `Expired` when the set was discarded or is too old: a
    /// commit never brings a discarded set back.
    ///
    /// # Idempotence
    /// Repeated it is the same snapshots (S2).
    ///
    /// # Crash behaviour
    /// After a crash `find` answers `Absent`, `InFlight`, `Partial` or `Complete`.
    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>>;

    /// Takes over under our token what a hardware provider made inside VSS. By default unsupported.
    ///
    /// # Errors
    /// `Unsupported`; `NotFound` when one of them does not exist.
    ///
    /// # Idempotence
    /// Repeated it answers the same.
    async fn adopt(
        &self,
        cx: &Cx,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
    ) -> ProviderResult<Vec<Member>> {
        let (_, _, _) = (cx, prepared, natives);
        Err(ProviderError::unsupported("adopt"))
    }

    /// Makes the snapshots durable and tags them; called after the thaw. When it returns, they survive a power cut and
    /// `find` by token answers `Complete`.
    ///
    /// # Errors
    /// Any; the set may be settled again or discarded.
    ///
    /// # Idempotence
    /// Repeated it answers the same.
    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>>;

    /// The one undo, in any phase: takes away everything of this token, also what `prepare` left, and keeps a late commit
    /// from appearing where that can be done.
    ///
    /// # Errors
    /// `Held`, `Locked`, `Dependents` when a snapshot may not go; others when it could not be tried.
    ///
    /// # Idempotence
    /// Repeated, or for a token that never was, it answers [`Discarded::Gone`].
    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded>;

    /// What there is of this token. Costs a look-up, not a listing.
    ///
    /// # Errors
    /// When the storage cannot be asked.
    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found>;

    /// The snapshots of a volume, ours and others', page by page; `page` is what the page before gave as `next`.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume, `Invalid` for a page mark that is not one.
    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing>;

    /// Deletes one of our snapshots.
    ///
    /// # Errors
    /// `Held`, `Locked`, `Dependents`; `Invalid` for a snapshot that is not ours (S3).
    ///
    /// # Idempotence
    /// For one that is gone it answers [`Deleted::Gone`].
    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted>;

    /// Makes snapshots readable on a host, read-only.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported` for a host that cannot see them.
    ///
    /// # Idempotence
    /// Repeated with the same key and snapshots it is the same exposure.
    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure>;

    /// Ends an exposure.
    ///
    /// # Errors
    /// `Busy` while somebody reads from it and the storage cannot end that.
    ///
    /// # Idempotence
    /// For a key that is not open it succeeds.
    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()>;

    /// The exposures that are open, also those of a process that is gone (S4).
    ///
    /// # Errors
    /// When the storage cannot be asked.
    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>>;

    /// Stores a document beside the data, durably, in the place of one of the same name (S8).
    ///
    /// # Errors
    /// `Unsupported`, `NoSpace`, `ReadOnly`.
    ///
    /// # Crash behaviour
    /// After a crash there is the old document or the new one, whole.
    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()>;

    /// A document; `None` if there is none of this name.
    ///
    /// # Errors
    /// When the storage cannot be asked.
    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>>;

    /// The names of all documents, in order.
    ///
    /// # Errors
    /// When the storage cannot be asked.
    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>>;

    /// Deletes a document.
    ///
    /// # Errors
    /// When the storage cannot be asked.
    ///
    /// # Idempotence
    /// For a name that is not there it succeeds.
    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()>;

    /// The side that brings files back; `None` where that cannot be done.
    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        None
    }

    /// The side that keeps snapshots from being removed; `None` where that cannot be done
    /// ([`lock`](ProviderCaps::lock)).
    fn lock(&self) -> Option<&dyn SnapshotLock> {
        None
    }
}
