//! What the provider writes into its store besides the files: small JSON documents, each with its format and version.
//!
//! ```text
//! { "format": "stillpoint.fs.set", "version": 1, "content": { … } }
//! ```
//!
//! Readers ignore fields that they do not know and refuse a version that is newer than theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_context::HostPath;
use stillpoint_model::handover::{Exposure, MemberRole};
use stillpoint_model::id::{SetToken, SnapshotRef, VolumeId};
use stillpoint_model::seal::Seal;
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult, RestoreKey};
use uuid::Uuid;

use crate::disk::{Disk, Inode};
use crate::store::content_folder;

/// A document of the store.
pub(crate) trait Stored: Serialize + DeserializeOwned {
    const FORMAT: &'static str;
    const VERSION: u32;
}

#[derive(Serialize)]
struct Out<'a, T> {
    format: &'a str,
    version: u32,
    content: &'a T,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
struct In<T> {
    content: T,
}

/// The document as bytes.
pub(crate) fn encode<T: Stored>(content: &T) -> ProviderResult<Vec<u8>> {
    let out = Out { format: T::FORMAT, version: T::VERSION, content };
    let mut bytes = serde_json::to_vec_pretty(&out).map_err(|error| {
        ProviderError::new(ProviderErrorKind::Internal, format!("could not encode: {error}"))
            .with_source(error)
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The document in these bytes; `None` if they are not one of this format.
pub(crate) fn decode<T: Stored>(bytes: &[u8], path: &Path) -> ProviderResult<Option<T>> {
    let Ok(head) = serde_json::from_slice::<Head>(bytes) else { return Ok(None) };
    if head.format != T::FORMAT {
        return Ok(None);
    }
    if head.version > T::VERSION {
        let text = format!("{} was written by a newer version of this program", path.display());
        return Err(ProviderError::new(ProviderErrorKind::Unsupported("stored format"), text)
            .with_remedy("Use a program at least as new as the one that wrote the store.")
            .without_effect());
    }
    let parsed: In<T> = serde_json::from_slice(bytes).map_err(|error| {
        let text = format!("{} is damaged: {error}", path.display());
        ProviderError::new(ProviderErrorKind::Damaged, text).with_source(error).without_effect()
    })?;
    Ok(Some(parsed.content))
}

/// Reads a document; `None` if it is not there or is not one of this format.
pub(crate) fn read<T: Stored>(path: &Path) -> ProviderResult<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes, path),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => {
            Err(ProviderError::io(format_args!("read {}", path.display()), error).without_effect())
        }
    }
}

/// Writes a document in the place of an older one, at one instant.
pub(crate) fn write<T: Stored>(
    disk: &Disk,
    path: &Path,
    content: &T,
    durable: bool,
) -> ProviderResult<()> {
    let bytes = encode(content)?;
    disk.replace(path, &bytes, durable)
        .map_err(|error| ProviderError::io(format_args!("write {}", path.display()), error))
}

/// Says that a folder is a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreMark {
    pub(crate) made_by: String,
}

/// How the bytes of a file get into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    /// Shared with the source until one of the two is written.
    Reflink,
    /// Read and written.
    Copy,
    /// In a snapshot of the whole subvolume.
    Snapshot,
}

/// What `prepare` worked out, for `commit` in this process or another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) token: SetToken,
    /// Which `prepare` it was: a commit that was prepared before the set was discarded must not act on a later one.
    pub(crate) nonce: String,
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<String, String>,
    /// The freeze limit; none for data at rest.
    pub(crate) limit_ms: Option<u64>,
    /// What the trial came to; none if files are copied.
    pub(crate) worst_case_ms: Option<u64>,
    pub(crate) members: Vec<PlanMember>,
}

/// One volume of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanMember {
    pub(crate) volume: VolumeId,
    pub(crate) role: MemberRole,
    /// The volume's folder as the operator named it.
    pub(crate) root: HostPath,
    /// The same with links resolved.
    pub(crate) real_root: HostPath,
    /// The subvolume that is to be snapped as a whole; none where files are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subvolume: Option<Uuid>,
    pub(crate) files: Vec<PlanFile>,
}

/// One file of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanFile {
    /// Below the volume's folder, with `/`.
    pub(crate) path: String,
    pub(crate) method: Method,
}

/// What `commit` did, not yet durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) nonce: String,
    /// The boot of the machine in which it was done. Nothing was synced, so after another boot the bytes may be anything.
    pub(crate) boot: String,
    pub(crate) members: Vec<TakenMember>,
}

/// One volume that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TakenMember {
    pub(crate) taken_at: DateTime<Utc>,
    pub(crate) files: Vec<TakenFile>,
}

/// One file that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TakenFile {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) mode: u32,
    pub(crate) modified: DateTime<Utc>,
    /// Made from the bytes that were read; none for a clone, which is read later.
    pub(crate) seal: Option<Seal>,
}

/// A set that is durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetRecord {
    pub(crate) token: SetToken,
    pub(crate) nonce: String,
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) members: Vec<SetMember>,
}

/// One volume of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetMember {
    pub(crate) volume: VolumeId,
    pub(crate) role: MemberRole,
    pub(crate) root: HostPath,
    pub(crate) real_root: HostPath,
    pub(crate) taken_at: DateTime<Utc>,
    /// The snapshot was deleted; what is left of its files is going.
    #[serde(default)]
    pub(crate) deleted: bool,
    /// The snapshot, where it is one of a whole subvolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subvolume: Option<Uuid>,
    /// The names of those who hold it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) holds: BTreeSet<String>,
    /// It is locked until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locked_until: Option<DateTime<Utc>>,
    pub(crate) files: Vec<SetFile>,
}

impl Plan {
    /// The record of the set that was planned so, with these members.
    pub(crate) fn settled(self, created_at: DateTime<Utc>, members: Vec<SetMember>) -> SetRecord {
        let Self { token, nonce, name, tags, .. } = self;
        SetRecord { token, nonce, name, tags, created_at, members }
    }
}

impl PlanMember {
    /// The member that was planned so and taken: nobody keeps it yet.
    pub(crate) fn settled(
        self,
        taken_at: DateTime<Utc>,
        subvolume: Option<Uuid>,
        files: Vec<SetFile>,
    ) -> SetMember {
        let Self { volume, role, root, real_root, .. } = self;
        SetMember {
            volume,
            role,
            root,
            real_root,
            taken_at,
            deleted: false,
            subvolume,
            holds: BTreeSet::new(),
            locked_until: None,
            files,
        }
    }
}

/// One file of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetFile {
    /// Below the volume's folder and below the member's folder alike, with `/`.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) method: Method,
    /// Permission bits of the original.
    pub(crate) mode: u32,
    /// When the original was last written.
    pub(crate) modified: DateTime<Utc>,
    /// None where the bytes were never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<Seal>,
}

/// An exposure that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExposureRecord {
    pub(crate) exposure: Exposure,
}

/// The subvolumes that are, or have been, one volume: a revert puts another in the place of the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LineageRecord {
    pub(crate) volume: VolumeId,
    pub(crate) subvolumes: BTreeSet<Uuid>,
    /// The folder where it was seen last: a volume that is gone is known by it.
    pub(crate) place: String,
}

/// A revert under way. It is durable before what it says is begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RevertRecord {
    pub(crate) volume: VolumeId,
    pub(crate) snapshot: SnapshotRef,
    /// The folder of the volume.
    pub(crate) place: String,
    /// Where the new subvolume is made, and the old one is in the end.
    pub(crate) aside: String,
    /// The subvolume that is to go.
    pub(crate) old: Uuid,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Files are being brought beside their targets.
    Staging,
    /// All are there and checked.
    Staged,
    /// They are being moved to their targets.
    Publishing,
    /// All are at their targets.
    Published,
    /// They are being taken away again.
    Retracting,
    /// The targets are as they were.
    Retracted,
}

/// The journal of one restore. It is durable before what it says is begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RestoreRecord {
    pub(crate) key: RestoreKey,
    pub(crate) replace: bool,
    pub(crate) phase: Phase,
    /// The hidden folders that hold staged and kept files.
    pub(crate) folders: Vec<String>,
    /// Folders that publication makes, outermost first.
    pub(crate) made: Vec<String>,
    pub(crate) files: Vec<RestoreFile>,
}

/// One file of a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RestoreFile {
    pub(crate) snapshot: SnapshotRef,
    pub(crate) original: HostPath,
    /// The target as it was asked for.
    pub(crate) target: HostPath,
    /// The target with the links of its folders resolved.
    pub(crate) place: String,
    /// Where it is staged.
    pub(crate) staged: String,
    /// Where that which is in the way is kept.
    pub(crate) kept: String,
    /// The staged file; known once all are staged.
    pub(crate) new: Option<Inode>,
    /// What was at the target when publication began.
    pub(crate) old: Option<Inode>,
}

macro_rules! stored {
    ($($type:ident $format:literal;)*) => {
        $(impl Stored for $type {
            const FORMAT: &'static str = $format;
            const VERSION: u32 = 1;
        })*
    };
}

stored! {
    StoreMark "stillpoint.fs.store";
    Plan "stillpoint.fs.plan";
    Taken "stillpoint.fs.taken";
    SetRecord "stillpoint.fs.set";
    ExposureRecord "stillpoint.fs.exposure";
    RestoreRecord "stillpoint.fs.restore";
    LineageRecord "stillpoint.fs.lineage";
    RevertRecord "stillpoint.fs.revert";
}

impl SetRecord {
    /// The member on this volume, if it has not been deleted, and its number.
    pub(crate) fn member(&self, volume: &VolumeId) -> Option<(usize, &SetMember)> {
        self.members.iter().enumerate().find(|(_, m)| m.volume == *volume && !m.deleted)
    }
}

impl Plan {
    /// Whether it takes subvolumes as a whole: then all of its members are such.
    pub(crate) fn is_snapped(&self) -> bool {
        self.members.iter().any(|member| member.subvolume.is_some())
    }
}

impl PlanMember {
    /// Where its files are in the folder of a set.
    pub(crate) fn folder(&self, set: &Path, index: usize) -> PathBuf {
        content_folder(set, index, self.subvolume.is_some())
    }
}

impl SetMember {
    /// Where its files are in the folder of a set.
    pub(crate) fn folder(&self, set: &Path, index: usize) -> PathBuf {
        content_folder(set, index, self.subvolume.is_some())
    }

    /// The file that was `original`, under either spelling of the volume's folder.
    pub(crate) fn file(&self, original: &HostPath) -> Option<&SetFile> {
        let path = inside(original, &self.root, &self.real_root)?;
        self.files.iter().find(|file| file.path == path)
    }
}

/// The path below a volume's folder, under either of its spellings, with `/`.
pub(crate) fn inside(path: &HostPath, root: &HostPath, real_root: &HostPath) -> Option<String> {
    let parts = path.parts_below(root).or_else(|| path.parts_below(real_root))?;
    Some(parts.join("/"))
}
