//! The optional side of a provider that keeps snapshots from being removed.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::Cx;
pub use stillpoint_model::id::HoldName;
use stillpoint_model::id::SnapshotRef;

use crate::error::ProviderResult;

/// What keeps a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Keeps {
    /// Those who hold it. It can go when the last of them has let go.
    pub holds: BTreeSet<HoldName>,
    /// It is locked until then, whoever asks.
    pub locked_until: Option<DateTime<Utc>>,
}

impl Keeps {
    /// These holds, and a lock until then.
    pub fn new(holds: BTreeSet<HoldName>, locked_until: Option<DateTime<Utc>>) -> Self {
        Self { holds, locked_until }
    }
}

/// Keeps snapshots from being removed: by a hold, which is somebody's and has no end, or by a lock, which is nobody's and ends
/// at an instant.
///
/// While there is either, `delete` and `discard` refuse the snapshot with `Held` or `Locked`, and a revert that would destroy
/// it is refused in the same way.
///
/// # Cancel safety
/// Dropping a future leaves its effect unknown; each call may be repeated.
#[async_trait]
pub trait SnapshotLock: Debug + Send + Sync {
    /// Holds a snapshot under a name.
    ///
    /// # Errors
    /// `NotFound` for a snapshot that is not there, or is not ours.
    ///
    /// # Idempotence
    /// For a name under which it is held already it succeeds.
    async fn hold(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()>;

    /// Ends a hold.
    ///
    /// # Errors
    /// `NotFound` for a snapshot that is not there, or is not ours.
    ///
    /// # Idempotence
    /// For a name under which it is not held it succeeds.
    async fn release(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName)
    -> ProviderResult<()>;

    /// Locks a snapshot until an instant, or for longer than it is locked now. A lock is never shortened and never taken away.
    ///
    /// # Errors
    /// `Locked` for an instant before that until which it is locked; `Invalid` for one that is over; `NotFound` for a snapshot
    /// that is not there, or is not ours.
    ///
    /// # Idempotence
    /// For the instant until which it is locked it succeeds.
    async fn lock(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
    ) -> ProviderResult<()>;

    /// What keeps a snapshot now.
    ///
    /// # Errors
    /// `NotFound` for a snapshot that is not there, or is not ours.
    async fn keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps>;
}
