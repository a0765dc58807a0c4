//! What a run needs for itself, as data: hierarchical keys, shared or exclusive.
//!
//! | key | what for |
//! |---|---|
//! | `db/<guid>/live` | one backup, restore or reseed of a database at a time |
//! | `db/<guid>/point/<id>` | read by restores and verifications, removed by pruning |
//! | `db/<guid>/segment/<id>` | the same for log segments |
//! | `db/<guid>/prune` | one prune of a database at a time: what one decides, another does not change |
//! | `set/<token>` | the snapshots of a set are deleted by one prune at a time, whatever databases lie in them |
//! | `host/<id>/freeze` | one freeze at a time on a server; released at the thaw |
//! | `volume/<id>` | shared by snapshots, exclusive for a revert |

use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::HostId;

use super::plan::{SetMember, SnapshotPlan};
use crate::id::{DatabaseId, PointId, SegmentId, SetToken, VolumeRef};

/// How a key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// With others that share.
    Shared,
    /// Alone.
    Exclusive,
}

/// Until when a key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The run is over.
    End,
    /// The freeze is over, so that verification does not hold up the server's other databases.
    Thaw,
}

/// A claim on a key. Its parts, between `/`, are of `[A-Za-z0-9._:-]` and `%XX` for anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Claim {
    /// The key.
    pub key: String,
    /// How it is held.
    pub mode: Mode,
    /// Until when.
    pub until: Until,
}

impl Claim {
    fn new(key: String, mode: Mode) -> Self {
        Self { key, mode, until: Until::End }
    }

    /// The live database, exclusively.
    pub fn live(database: DatabaseId) -> Self {
        Self::new(format!("db/{database}/live"), Mode::Exclusive)
    }

    /// A restore point.
    pub fn point(database: DatabaseId, point: PointId, mode: Mode) -> Self {
        Self::new(format!("db/{database}/point/{point}"), mode)
    }

    /// A log segment.
    pub fn segment(database: DatabaseId, segment: SegmentId, mode: Mode) -> Self {
        Self::new(format!("db/{database}/segment/{segment}"), mode)
    }

    /// The deletion of a database's points, exclusively.
    pub fn prune(database: DatabaseId) -> Self {
        Self::new(format!("db/{database}/prune"), Mode::Exclusive)
    }

    /// The deletion of a set's snapshots, exclusively.
    pub fn set(set: &SetToken) -> Self {
        Self::new(format!("set/{}", part(set.as_str())), Mode::Exclusive)
    }

    /// The freeze of a server, exclusively, until the thaw.
    pub fn freeze(host: &HostId) -> Self {
        Self {
            until: Until::Thaw,
            ..Self::new(format!("host/{}/freeze", part(host.as_str())), Mode::Exclusive)
        }
    }

    /// A volume, shared: snapshots of it may be made and read.
    pub fn volume(volume: &VolumeRef) -> Self {
        Self::new(format!("volume/{}", part(&volume.to_string())), Mode::Shared)
    }

    /// A volume, exclusively: it is reverted.
    pub fn whole_volume(volume: &VolumeRef) -> Self {
        Self { mode: Mode::Exclusive, ..Self::volume(volume) }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Shared => "shared",
            Mode::Exclusive => "exclusive",
        };
        write!(f, "{} {mode}", self.key)?;
        if self.until == Until::Thaw {
            f.write_str(" until the thaw")?;
        }
        Ok(())
    }
}

/// The longest part of a key that is written out. Keys as a whole have at most 400 characters.
const LONGEST_PART: usize = 200;

/// One part of a key: what has a meaning in keys, or could have, is written as `%XX`. What would be
/// too long is cut and ends in `~` (which stands in no other part) and a hash of the whole.
fn part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._:-".contains(&byte) {
            part.push(char::from(byte));
        } else {
            part.push('%');
            crate::hex::encode(&[byte], &mut part);
        }
    }
    if part.len() > LONGEST_PART {
        part.truncate(LONGEST_PART);
        part.push('~');
        crate::hex::encode(blake3::hash(text.as_bytes()).as_bytes(), &mut part);
    }
    part
}

pub(super) fn of_set(
    host: &HostId,
    members: &[SetMember],
    snapshots: &[SnapshotPlan],
    freezes: bool,
) -> Vec<Claim> {
    let mut claims: Vec<Claim> =
        members.iter().map(|member| Claim::live(member.copy.database)).collect();
    if freezes {
        claims.push(Claim::freeze(host));
    }
    claims.extend(snapshots.iter().map(|snapshot| Claim::volume(&snapshot.volume)));
    claims.sort();
    claims.dedup();
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_cannot_reach_into_other_keys() {
        let volume: VolumeRef = "fs:/srv/a%b c".parse().unwrap();
        assert_eq!(Claim::volume(&volume).key, "volume/fs:%2fsrv%2fa%25b%20c");
    }

    #[test]
    fn long_volume_ids_stay_apart_in_short_keys() {
        let key = |end: &str| {
            let volume: VolumeRef = format!("fs:/{}{end}", "x/".repeat(400)).parse().unwrap();
            Claim::volume(&volume).key
        };
        assert!(key("a").len() <= 400);
        assert_ne!(key("a"), key("b"));
        assert_eq!(key("a").matches('/').count(), 1);
    }
}
