//! What the engine hands between an Exchange plug-in and a snapshot provider, which do not know each other.
//!
//! ```text
//!   provider: prepare ──Prepared──▶ plug-in: snap ──NativeSnapshot──▶ provider: adopt      (plug-in-coordinated)
//!   provider: expose  ──Exposure──▶ plug-in: verify
//! ```

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostId, HostPath};

use crate::id::{ExposureKey, ProviderId, SetToken, SnapshotId, SnapshotRef, VolumeRef};

/// What of a database lies on a member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Database files.
    Data,
    /// Log files and the checkpoint.
    Log,
    /// Both.
    DataAndLog,
}

impl MemberRole {
    /// The role of a volume that has both.
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::DataAndLog }
    }
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Data => "data",
            Self::Log => "log",
            Self::DataAndLog => "data and log",
        })
    }
}

/// A set of snapshots that one provider is ready to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prepared {
    /// The token of the set.
    pub token: SetToken,
    /// Whose.
    pub provider: ProviderId,
    /// The volumes, in the order in which they are taken where the set is not atomic.
    pub members: Vec<PreparedMember>,
    /// How long the commit may take at worst; unknown for a provider that copies.
    #[serde(rename = "worst_case_ms", with = "crate::millis::option")]
    pub worst_case: Option<Duration>,
    /// After this the provider may forget it.
    pub expires_at: Option<DateTime<Utc>>,
    /// The provider's own data, such as a file's extents or the id of a set begun on an array.
    pub opaque: Vec<u8>,
}

impl Prepared {
    /// A set without members.
    pub fn new(token: SetToken, provider: ProviderId) -> Self {
        Self {
            token,
            provider,
            members: Vec::new(),
            worst_case: None,
            expires_at: None,
            opaque: Vec::new(),
        }
    }

    /// The same with these members.
    pub fn with_members(mut self, members: Vec<PreparedMember>) -> Self {
        self.members = members;
        self
    }

    /// The same; the commit takes at most this long.
    pub fn with_worst_case(mut self, worst_case: Option<Duration>) -> Self {
        self.worst_case = worst_case;
        self
    }

    /// The same; it may be forgotten after this instant.
    pub fn with_expiry(mut self, at: DateTime<Utc>) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// The same with the provider's own data.
    pub fn with_opaque(mut self, opaque: Vec<u8>) -> Self {
        self.opaque = opaque;
        self
    }
}

/// One volume of a prepared set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PreparedMember {
    /// The volume.
    pub volume: VolumeRef,
    /// The device as the server sees it, by which VSS names it.
    pub device: Option<String>,
    /// What lies on it.
    pub role: MemberRole,
}

impl PreparedMember {
    /// This volume.
    pub fn new(volume: VolumeRef, role: MemberRole) -> Self {
        Self { volume, device: None, role }
    }

    /// The same with the device.
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }
}

/// A snapshot that a hardware provider made inside VSS, as the plug-in saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NativeSnapshot {
    /// The token of the set for which it was made.
    pub token: SetToken,
    /// The volume.
    pub volume: VolumeRef,
    /// The name or id under which the storage knows it.
    pub native_id: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
}

impl NativeSnapshot {
    /// The snapshot `native_id` of `volume`.
    pub fn new(
        token: SetToken,
        volume: VolumeRef,
        native_id: impl Into<String>,
        taken_at: DateTime<Utc>,
    ) -> Self {
        Self { token, volume, native_id: native_id.into(), taken_at }
    }
}

/// A snapshot that was taken, maybe not durable yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The volume.
    pub volume: VolumeRef,
    /// What lies on it.
    pub role: MemberRole,
    /// The storage's own id, if it is known already.
    pub snapshot: Option<SnapshotId>,
    /// When it was taken, by the clock of the side that took it.
    pub taken_at: DateTime<Utc>,
}

impl Member {
    /// A member taken at this instant.
    pub fn new(volume: VolumeRef, role: MemberRole, taken_at: DateTime<Utc>) -> Self {
        Self { volume, role, snapshot: None, taken_at }
    }

    /// The same with the storage's id.
    pub fn with_snapshot(mut self, snapshot: SnapshotId) -> Self {
        self.snapshot = Some(snapshot);
        self
    }
}

/// Snapshots made readable on a host.
///
/// A file of the original is found below the exposed root of its volume: see [`find`](Self::find).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exposure {
    /// The key under which it can be ended.
    pub key: ExposureKey,
    /// Where it can be read.
    pub host: HostId,
    /// Each snapshot's place.
    pub roots: Vec<ExposedRoot>,
}

impl Exposure {
    /// An exposure of these.
    pub fn new(key: ExposureKey, host: HostId, roots: Vec<ExposedRoot>) -> Self {
        Self { key, host, roots }
    }

    /// Where the file that was `original` can be read: below the longest exposed root that holds it.
    pub fn find(&self, original: &HostPath) -> Option<HostPath> {
        let root = self
            .roots
            .iter()
            .filter(|root| original.starts_with(&root.original))
            .max_by_key(|root| root.original.as_str().len())?;
        let parts = original.parts_below(&root.original)?;
        parts.iter().try_fold(root.exposed.clone(), |folder, part| folder.join(part).ok())
    }
}

/// Where one snapshot can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExposedRoot {
    /// The snapshot.
    pub snapshot: SnapshotRef,
    /// The folder (or mount point) of which it was taken.
    pub original: HostPath,
    /// The folder in which its files can be read now.
    pub exposed: HostPath,
}

impl ExposedRoot {
    /// What was below `original` is now below `exposed`.
    pub fn new(snapshot: SnapshotRef, original: HostPath, exposed: HostPath) -> Self {
        Self { snapshot, original, exposed }
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::PathFlavor;

    use super::*;

    fn path(host: &str, raw: &str) -> HostPath {
        let flavor = if raw.starts_with('/') { PathFlavor::Posix } else { PathFlavor::Windows };
        HostPath::new(host.parse().unwrap(), flavor, raw).unwrap()
    }

    #[test]
    fn an_exposed_file_is_found_below_the_longest_root_also_on_a_host_of_another_kind() {
        let snapshot = |id: &str| {
            SnapshotRef::new(format!("p:{id}").parse().unwrap(), SnapshotId::new("s").unwrap())
        };
        let exposure = Exposure::new(
            ExposureKey::new("k").unwrap(),
            "proxy".parse().unwrap(),
            vec![
                ExposedRoot::new(snapshot("a"), path("ex1", r"D:\"), path("proxy", "/x/a")),
                ExposedRoot::new(snapshot("b"), path("ex1", r"D:\Logs"), path("proxy", "/x/b")),
            ],
        );
        let find = |raw| exposure.find(&path("ex1", raw)).map(|found| found.as_str().to_owned());
        assert_eq!(find(r"d:\logs\E00.log").as_deref(), Some("/x/b/E00.log"));
        assert_eq!(find(r"D:\a\b.edb").as_deref(), Some("/x/a/a/b.edb"));
        assert_eq!(find(r"D:\DB01.edb").as_deref(), Some("/x/a/DB01.edb"));
        assert_eq!(find(r"E:\DB01.edb"), None);
        assert_eq!(exposure.find(&path("ex2", r"D:\DB01.edb")), None, "another host's file");
    }
}
