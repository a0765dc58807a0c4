//! The trait that a snapshot provider implements, with its types, errors and mock.
//!
//! A provider takes snapshots of volumes for the engine, which it never sees: it gets a [`Cx`] with each call and
//! answers with data. What is slow happens before the freeze, what must be instant happens inside it, and what makes the
//! snapshots durable happens after it:
//!
//! ```text
//!          before the freeze        inside            after the thaw
//!          ┌─────────┐          ┌──────────┐          ┌──────────┐
//!  resolve │ prepare │ ───────▶ │  commit  │ ───────▶ │  settle  │ ──▶ expose · restore · delete
//!  volumes │  slow   │          │  instant │          │ durable  │
//!          └─────────┘          └──────────┘          └──────────┘
//!               │                    │                     │
//!               └────────── discard(token): the one undo ──┘       find(token): what became of it
//! ```
//!
//! The contracts S1–S9 are in the docs of [`SnapshotProvider`]. A complete provider that keeps its snapshots in memory:
//!
//! ```
#![doc = include_str!("../doc/minimal.rs")]
//! ```
//!
//! - [`provider`] has [`SnapshotProvider`].
//! - [`restore`] has [`SnapshotRestore`], the optional side that brings files back.
//! - [`lock`] has [`SnapshotLock`], the optional side that keeps snapshots from being removed.
//! - [`snapshot`]: what the calls take and give.
//! - [`forward`] has [`ForwardProvider`], a provider around another one, and [`call`] has [`ProviderCall`], a call as data.
//! - [`error`] has [`ProviderError`].
//! - `mock` (feature `mock`): `MockSnapshotProvider`, `MockSnapshotRestore` and `MockSnapshotLock`, usable from any crate's tests.

#![forbid(unsafe_code)]

pub mod call;
pub mod error;
pub mod forward;
pub mod lock;
#[cfg(feature = "mock")]
pub mod mock;
pub mod provider;
pub mod restore;
pub mod snapshot;

pub use call::ProviderCall;
pub use error::{ProviderError, ProviderErrorKind, ProviderResult};
pub use forward::ForwardProvider;
pub use lock::{HoldName, Keeps, SnapshotLock};
#[cfg(feature = "mock")]
pub use mock::{MockSnapshotLock, MockSnapshotProvider, MockSnapshotRestore};
pub use provider::SnapshotProvider;
pub use restore::{
    Collateral, Consent, Published, RestoreKey, RestoredFile, SnapshotRestore, StageSpec, Staged,
};
pub use snapshot::{
    Deleted, Discarded, DocName, Found, Listing, MemberSpec, PrepareSpec, Snapshot, SnapshotFile,
};
pub use stillpoint_context::Cx;
pub use stillpoint_model::capability::{ProviderCaps, VolumeFacts};
pub use stillpoint_model::handover::{
    ExposedRoot, Exposure, Member, MemberRole, NativeSnapshot, Prepared, PreparedMember,
};
pub use stillpoint_model::id::{
    ExposureKey, SetToken, SnapshotId, SnapshotRef, VolumeId, VolumeRef,
};
pub use stillpoint_model::placement::Placement;
