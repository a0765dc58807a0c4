//! The optional side of a provider that brings files back.

use std::fmt;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, HostPath, IdError, RunId};
use stillpoint_model::handover::Exposure;
use stillpoint_model::id::{SnapshotRef, VolumeRef};

use crate::error::{ProviderError, ProviderResult};

/// Names one restore at a provider, so that it can be found, ended or taken back after a crash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RestoreKey(String);

impl RestoreKey {
    /// The key of the restore that this run carries out.
    pub fn of(run: RunId) -> Self {
        Self(format!("restore-{}", run.0.simple()))
    }

    /// A key of this text: 1 to 100 characters of `A-Z a-z 0-9 _ -`.
    ///
    /// # Errors
    /// When the text breaks the rule.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let legal = (1..=100).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if legal {
            Ok(Self(text))
        } else {
            Err(IdError::new("restore key", &text, "it is not 1 to 100 of A-Z a-z 0-9 _ -"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RestoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for RestoreKey {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<RestoreKey> for String {
    fn from(key: RestoreKey) -> Self {
        key.0
    }
}

/// What is to be brought back, and to where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageSpec {
    /// The restore.
    pub key: RestoreKey,
    /// The files.
    pub files: Vec<RestoredFile>,
    /// Whether files that are in the way at the target are to be kept aside. Without it they are refused.
    pub replace: bool,
}

impl StageSpec {
    /// These files, to places where nothing is.
    pub fn new(key: RestoreKey, files: Vec<RestoredFile>) -> Self {
        Self { key, files, replace: false }
    }

    /// The same; what is in the way is kept aside.
    pub fn replacing(mut self) -> Self {
        self.replace = true;
        self
    }
}

/// One file to be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFile {
    /// The snapshot that holds it.
    pub snapshot: SnapshotRef,
    /// Its path when the snapshot was taken.
    pub original: HostPath,
    /// Where it is to be in the end.
    pub target: HostPath,
}

/// Files that were cloned out of snapshots and are not yet at their target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Staged {
    /// The restore.
    pub key: RestoreKey,
    /// Where each of them can be read now: the roots map *original* paths to staged ones, so that a plug-in verifies it
    /// as it verifies any exposure.
    pub exposure: Exposure,
    /// Bytes written for it.
    pub bytes: u64,
}

impl Staged {
    /// Files staged for this restore.
    pub fn new(key: RestoreKey, exposure: Exposure, bytes: u64) -> Self {
        Self { key, exposure, bytes }
    }
}

/// What a publication did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// The files that are now at their target.
    pub files: Vec<HostPath>,
    /// What was in the way: where it was, and where it is kept.
    pub kept: Vec<(HostPath, HostPath)>,
}

impl Published {
    /// These files, and these kept aside.
    pub fn new(files: Vec<HostPath>, kept: Vec<(HostPath, HostPath)>) -> Self {
        Self { files, kept }
    }
}

/// What a revert of volumes would destroy besides what is wanted (S7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[non_exhaustive]
pub struct Collateral {
    /// Snapshots newer than the chosen ones, which the revert would delete.
    pub newer: Vec<SnapshotRef>,
    /// Files on the volumes that do not belong to what is restored.
    pub files: Vec<HostPath>,
}

/// Consent to a revert: exactly the collateral that was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent(pub Collateral);

/// Brings files back out of snapshots, by clone.
///
/// ```text
///   stage ──▶ (the plug-in reads and checks every staged byte) ──▶ publish ──▶ (the plug-in replays, mounts) ──▶ settle
///     │                                                              │
///   unstage                                                       retract          the two undos
/// ```
///
/// Nothing appears under a target's name before `publish`, and `publish` replaces each file atomically. What was in the
/// way is kept aside until `settle`, so that `retract` can put it back.
///
/// # Cancel safety
/// Dropping a future leaves its effect unknown; `unstage` and `retract` are right in any state.
///
/// # Crash behaviour
/// The key finds everything again: after a crash `retract`, then `unstage` bring back the state before the restore, or
/// the calls are repeated forward.
#[async_trait]
pub trait SnapshotRestore: Debug + Send + Sync {
    /// Clones the files beside their targets (on the same file system, under names of the provider's own).
    ///
    /// # Errors
    /// `NotFound` for a snapshot or a file that is not there, `NameTaken` when something is at a target and
    /// `replace` is not set, `NoSpace`, `ReadOnly`, `AccessDenied`, `PathEscapes` (a target inside the store).
    ///
    /// # Idempotence
    /// Repeated with the same key it starts anew.
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged>;

    /// Takes staged files away.
    ///
    /// # Errors
    /// When it could not be done.
    ///
    /// # Idempotence
    /// For a key that is not there it succeeds.
    async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;

    /// Moves the staged files to their targets, durably, each atomically; keeps aside what is in the way.
    ///
    /// # Errors
    /// `NotFound` when nothing is staged under the key, or nothing since it was retracted; `NameTaken` when something came into the way meanwhile and
    /// `replace` was not set.
    ///
    /// # Idempotence
    /// Repeated it goes on where it stopped and answers the same.
    async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published>;

    /// Takes published files away and puts back what was kept aside. What is staged stays, and can be staged anew or taken
    /// away: a publication that was dropped and comes late must find nothing to publish.
    ///
    /// # Errors
    /// When it could not be done.
    ///
    /// # Idempotence
    /// For a key that is not there, or not published, it succeeds.
    async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;

    /// Forgets the restore and deletes what was kept aside. After it nothing can be put back.
    ///
    /// # Errors
    /// When it could not be done.
    ///
    /// # Idempotence
    /// For a key that is not there it succeeds.
    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()>;

    /// What reverting these volumes to these snapshots would destroy. By default unsupported.
    ///
    /// # Errors
    /// `Unsupported`, `NotFound`.
    async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral> {
        let (_, _) = (cx, snapshots);
        Err(ProviderError::unsupported("revert"))
    }

    /// Reverts volumes to snapshots. By default unsupported.
    ///
    /// # Errors
    /// `Collateral` when the consent is not to exactly what would be lost now.
    async fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        let (_, _, _) = (cx, snapshots, consent);
        Err(ProviderError::unsupported("revert"))
    }
}
