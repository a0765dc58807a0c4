//! What the calls of a provider take and give.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostPath, IdError};
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{SetToken, SnapshotId, SnapshotRef, VolumeRef};
use stillpoint_model::seal::Seal;

/// What is to be snapped together, under one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrepareSpec {
    /// Our token: snapshots are found by it after a crash (S2).
    pub token: SetToken,
    /// The name that each snapshot is to bear, unique by construction; a provider whose storage limits names may shorten
    /// it, as the token is what counts.
    pub name: String,
    /// The volumes, in the order in which they are to be taken where a set is not atomic: database members before log
    /// members (S9).
    pub members: Vec<MemberSpec>,
    /// How long the commit may take; none for data at rest. A provider that cannot promise it refuses (S5).
    pub limit: Option<Duration>,
    /// Tags to put on each snapshot, such as run and restore points. Keys are short lower-case words.
    pub tags: BTreeMap<String, String>,
}

impl PrepareSpec {
    /// A set without members, limit or tags.
    pub fn new(token: SetToken, name: impl Into<String>) -> Self {
        Self { token, name: name.into(), members: Vec::new(), limit: None, tags: BTreeMap::new() }
    }

    /// The same with one more volume.
    pub fn with_member(mut self, member: MemberSpec) -> Self {
        self.members.push(member);
        self
    }

    /// The same, with this limit for the commit.
    pub fn with_limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// The same with one more tag.
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let _before = self.tags.insert(key.into(), value.into());
        self
    }
}

/// One volume of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberSpec {
    /// The volume.
    pub volume: VolumeRef,
    /// What lies on it.
    pub role: MemberRole,
    /// The files on it that the restore points need. A provider that snaps whole volumes may take more; one that copies
    /// takes these.
    pub files: Vec<HostPath>,
}

impl MemberSpec {
    /// These files of this volume.
    pub fn new(volume: VolumeRef, role: MemberRole, files: Vec<HostPath>) -> Self {
        Self { volume, role, files }
    }
}

/// A snapshot that exists, durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The volume.
    pub volume: VolumeRef,
    /// The storage's own id.
    pub id: SnapshotId,
    /// Its name on the storage.
    pub name: String,
    /// The token of its set; `None` for a snapshot that is not ours.
    pub token: Option<SetToken>,
    /// When it was taken, by the storage's clock.
    pub created_at: DateTime<Utc>,
    /// The room that it takes, where the storage tells.
    pub bytes: Option<u64>,
    /// What the provider knows of the files in it; may be empty.
    pub files: Vec<SnapshotFile>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Snapshot {
    /// A snapshot without name, token, size, files and tags.
    pub fn new(volume: VolumeRef, id: SnapshotId, created_at: DateTime<Utc>) -> Self {
        Self {
            volume,
            name: id.to_string(),
            id,
            token: None,
            created_at,
            bytes: None,
            files: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    /// The same under this name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same as ours, under this token.
    pub fn with_token(mut self, token: SetToken) -> Self {
        self.token = Some(token);
        self
    }

    /// The same with this size.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The same with these files.
    pub fn with_files(mut self, files: Vec<SnapshotFile>) -> Self {
        self.files = files;
        self
    }

    /// The same with these tags.
    pub fn with_tags(mut self, tags: BTreeMap<String, String>) -> Self {
        self.tags = tags;
        self
    }

    /// Its name in a call.
    pub fn reference(&self) -> SnapshotRef {
        SnapshotRef::new(self.volume.clone(), self.id.clone())
    }
}

/// A file in a snapshot, with what its bytes were when they were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// The original path.
    pub path: HostPath,
    /// Its size and digests, if the provider made them from the very bytes that it stored.
    pub seal: Option<Seal>,
}

impl SnapshotFile {
    /// This file with this seal.
    pub fn new(path: HostPath, seal: Option<Seal>) -> Self {
        Self { path, seal }
    }
}

/// What `discard` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Discarded {
    /// Nothing of the set exists, and nothing of it will appear.
    Gone,
    /// Nothing exists now, but a snapshot that was under way may still appear: look again until then.
    WatchUntil(DateTime<Utc>),
}

/// What `find` found of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Found {
    /// Nothing.
    Absent,
    /// Something is under way; it is decided by then.
    InFlight {
        /// When to ask again at the latest.
        until: DateTime<Utc>,
    },
    /// Some of its snapshots.
    Partial(Vec<Snapshot>),
    /// All of its snapshots.
    Complete(Vec<Snapshot>),
}

/// One page of a volume's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The snapshots, ours and others', in the order of their ids.
    pub snapshots: Vec<Snapshot>,
    /// Pass it to get the next page; `None` at the end.
    pub next: Option<String>,
}

/// What `delete` came to. Refusals are errors: held, locked, dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Deleted {
    /// It is gone, or never was.
    Gone,
    /// The storage has taken the request and carries it out later.
    Pending,
}

/// The name of a document beside the data: 1 to 200 characters of `A-Z a-z 0-9 . _ -`, not beginning with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DocName(String);

impl DocName {
    /// A document of this name.
    ///
    /// # Errors
    /// When the name breaks the rule.
    pub fn new(name: impl Into<String>) -> Result<Self, IdError> {
        let name = name.into();
        let legal = (1..=200).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if legal {
            Ok(Self(name))
        } else {
            Err(IdError::new("document name", &name, "it is not 1 to 200 of A-Z a-z 0-9 . _ -"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DocName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for DocName {
    type Error = IdError;

    fn try_from(name: String) -> Result<Self, IdError> {
        Self::new(name)
    }
}

impl From<DocName> for String {
    fn from(name: DocName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_names_cannot_leave_their_folder() {
        assert!(DocName::new("point-1.json").is_ok());
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "ä"] {
            assert!(DocName::new(bad).is_err(), "{bad:?}");
        }
    }
}
