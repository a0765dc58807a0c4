//! The optional side of a plug-in that brings databases back into service.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::id::{DatabaseId, SessionId};
use stillpoint_model::inventory::{FileRole, Generation};

use crate::error::PluginResult;

/// A restore to get ready for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreSpec {
    /// Our id, the same when the call is repeated.
    pub id: SessionId,
    /// The database.
    pub database: DatabaseId,
    /// The host on which the files will be.
    pub host: HostId,
    /// The files, where they will be.
    pub files: Vec<(HostPath, FileRole)>,
    /// Whether they take the place of the database itself (the plug-in dismounts it and allows the file restore), or lie
    /// elsewhere.
    pub in_place: bool,
    /// Whether the database is to be recovered and mounted afterwards, where the plug-in can.
    pub mount: bool,
}

impl RestoreSpec {
    /// A restore of these files to elsewhere, without mounting.
    pub fn new(
        id: SessionId,
        database: DatabaseId,
        host: HostId,
        files: Vec<(HostPath, FileRole)>,
    ) -> Self {
        Self { id, database, host, files, in_place: false, mount: false }
    }

    /// The same in the place of the database itself.
    pub fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }
}

/// What a finished restore left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recovered {
    /// Whether the database is mounted.
    pub mounted: bool,
    /// Up to which log generation it was replayed; `None` if it was not replayed.
    pub replayed_to: Option<Generation>,
    /// What the operator has to know or do, one sentence each.
    pub notes: Vec<String>,
}

impl Recovered {
    /// Files are in place; nothing was replayed or mounted.
    pub fn files_only() -> Self {
        Self { mounted: false, replayed_to: None, notes: Vec::new() }
    }
}

/// Brings databases back into service around the copying, which is the storage's.
///
/// ```text
///   open ──▶ (storage: stage, the plug-in verifies, storage: publish) ──▶ finish
///     └─────────── cancel: the one undo ──────────── open: once more ───────┘
/// ```
///
/// # Cancel safety
/// Dropping a future leaves its effect unknown; `cancel` is right in any state before `finish` has succeeded, and after
/// another `open`.
#[async_trait]
pub trait ExchangeRestore: Debug + Send + Sync {
    /// Gets the target ready: for a restore in place, dismounts the database and allows the file restore; refuses a target
    /// that is in use.
    ///
    /// # Errors
    /// `TargetMissing`, `TargetInUse`, `CopyNotActive`.
    ///
    /// # Idempotence
    /// Repeated with the same id it changes nothing more. After `finish`, whatever that said, it takes the database out of
    /// service again, so that its files can be put back; `cancel` then mounts it if it was mounted before the first `open`.
    async fn open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()>;

    /// Brings the database into service: replays logs and mounts, where asked and able.
    ///
    /// # Errors
    /// When it could not be done; the restore can be finished again or taken back.
    async fn finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered>;

    /// Puts back what `open` changed.
    ///
    /// # Errors
    /// When it could not be done.
    ///
    /// # Idempotence
    /// Right in any state and any number of times.
    async fn cancel(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()>;
}
