//! Names of things: newtypes, each with one text form that `Display` writes and `FromStr` reads.
//!
//! Databases are known by GUID, copies by database and server, volumes and snapshots by the
//! storage's own id; never by a name that somebody may change.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stillpoint_context::{HostId, IdError, RunId, text_id, uuid_id};
use uuid::Uuid;

fn printable(text: &str, longest: usize) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.len() > longest {
        Err("it is too long")
    } else if text.chars().any(char::is_control) {
        Err("it has control characters")
    } else {
        Ok(())
    }
}

fn plain(text: &str, longest: usize) -> Result<(), &'static str> {
    printable(text, longest)?;
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        Ok(())
    } else {
        Err("only letters, digits, '.', '_' and '-' may stand in it")
    }
}

uuid_id! {
    /// A mailbox database, by its GUID, which survives renames and failovers. Files at rest have
    /// no directory to ask: see [`DatabaseId::at_rest`].
    DatabaseId, "database id"
}
uuid_id! {
    /// A database availability group.
    DagId, "DAG id"
}
uuid_id! {
    /// A policy; a run pins it together with its version.
    PolicyId, "policy id"
}
uuid_id! {
    /// A resource group.
    GroupId, "group id"
}
uuid_id! {
    /// A stored schedule; a run pins it together with its version.
    ScheduleId, "schedule id"
}
uuid_id! {
    /// A restore point: what one backup of one database left behind.
    PointId, "restore point id"
}
uuid_id! {
    /// A stretch of the log stream (signature and generation range) that is kept on its own.
    SegmentId, "segment id"
}
uuid_id! {
    /// A backup session of the Exchange plug-in. The id is ours, so that the session can be looked
    /// up after a crash.
    SessionId, "session id"
}

text_id! {
    /// A snapshot provider, e.g. `fs` or `ontap-prod`: 1 to 64 characters of `[A-Za-z0-9._-]`.
    ProviderId, "provider id", |text| plain(text, 64)
}
text_id! {
    /// A volume by the storage's own id (a UUID, a serial number, a canonical path): 1 to 1024
    /// bytes without control characters.
    VolumeId, "volume id", |text| printable(text, 1024)
}
text_id! {
    /// A snapshot by the storage's own id: 1 to 1024 bytes without control characters.
    SnapshotId, "snapshot id", |text| printable(text, 1024)
}
text_id! {
    /// What names one exposure of snapshots to a server, so that it can be found and ended after a
    /// crash: 1 to 128 characters of `[A-Za-z0-9._-]`.
    ExposureKey, "exposure key", |text| plain(text, 128)
}
text_id! {
    /// What somebody keeps a restore point or a snapshot by, such as the number of a case: 1 to 100 characters of
    /// `[A-Za-z0-9._-]`.
    HoldName, "name of a hold", |text| plain(text, 100)
}
text_id! {
    /// What an inventory was taken of: two inventories of one epoch have the same databases,
    /// copies, roles and places. 1 to 128 characters of `[A-Za-z0-9._-]`.
    InventoryEpoch, "inventory epoch", |text| plain(text, 128)
}
text_id! {
    /// Our name for one set of snapshots, made of run and restore point. Storage finds a set by it
    /// after a crash, so it is fit for a snapshot's name or tag anywhere: 1 to 100 characters of
    /// `[A-Za-z0-9._-]`.
    SetToken, "set token", |text| plain(text, 100)
}

impl DatabaseId {
    /// Namespace of the ids of databases at rest.
    const AT_REST: Uuid = Uuid::from_u128(0x8d6a_3a4e_90b7_5c11_a0d4_52c1_7e11_90f1);

    /// The id of a database that is known by its files alone: a UUIDv5 of the signature in its
    /// header and the place where it lies. Two clones of one database are thus two databases.
    pub fn at_rest(signature: &[u8], place: &str) -> Self {
        let mut name = Vec::with_capacity(8 + signature.len() + place.len());
        // The length keeps (signature, place) pairs apart whose concatenations are equal.
        name.extend_from_slice(&(signature.len() as u64).to_be_bytes());
        name.extend_from_slice(signature);
        name.extend_from_slice(place.as_bytes());
        Self(Uuid::new_v5(&Self::AT_REST, &name))
    }
}

impl SetToken {
    /// The token of the set that `run` takes for `point`. A set that serves several points is
    /// named by the first of them in plan order.
    ///
    /// ```
    /// use stillpoint_context::RunId;
    /// use stillpoint_model::id::{PointId, SetToken};
    /// use uuid::Uuid;
    ///
    /// let token = SetToken::of(&RunId(Uuid::from_u128(1)), PointId(Uuid::from_u128(2)));
    /// assert_eq!(
    ///     token.as_str(),
    ///     "sp-00000000000000000000000000000001-00000000000000000000000000000002",
    /// );
    /// ```
    pub fn of(run: &RunId, point: PointId) -> Self {
        Self(Arc::from(format!("sp-{}-{}", run.0.simple(), point.0.simple())))
    }

    /// The run and the point, if the token was made by [`SetToken::of`].
    pub fn parts(&self) -> Option<(RunId, PointId)> {
        let (run, point) = self.0.strip_prefix("sp-")?.split_once('-')?;
        let parse = |text: &str| (text.len() == 32).then(|| Uuid::parse_str(text).ok()).flatten();
        Some((RunId(parse(run)?), PointId(parse(point)?)))
    }
}

/// One copy of a database: the database and the server that holds it. A server never holds two
/// copies of one database. Its text is `<guid>@<host>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyId {
    /// The database.
    pub database: DatabaseId,
    /// The server.
    pub host: HostId,
}

impl CopyId {
    /// The copy of `database` on `host`.
    pub fn new(database: DatabaseId, host: HostId) -> Self {
        Self { database, host }
    }
}

impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.database, self.host)
    }
}

impl FromStr for CopyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = |why| IdError::new("copy id", text, why);
        let (database, host) = text.split_once('@').ok_or_else(|| bad("it has no '@'"))?;
        Ok(Self {
            database: database.parse()?,
            host: host.parse().map_err(|_| bad("what follows the '@' is no host"))?,
        })
    }
}

/// A volume of a provider. Its text is `<provider>:<volume id>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeRef {
    /// Who makes its snapshots.
    pub provider: ProviderId,
    /// The storage's own id.
    pub id: VolumeId,
}

impl VolumeRef {
    /// The volume `id` of `provider`.
    pub fn new(provider: ProviderId, id: VolumeId) -> Self {
        Self { provider, id }
    }
}

impl fmt::Display for VolumeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.id)
    }
}

impl FromStr for VolumeRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (provider, id) =
            text.split_once(':').ok_or_else(|| IdError::new("volume", text, "it has no ':'"))?;
        Ok(Self { provider: provider.parse()?, id: id.parse()? })
    }
}

/// A snapshot on a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Where it lies.
    pub volume: VolumeRef,
    /// The storage's own id.
    pub id: SnapshotId,
}

impl SnapshotRef {
    /// The snapshot `id` on `volume`.
    pub fn new(volume: VolumeRef, id: SnapshotId) -> Self {
        Self { volume, id }
    }
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.volume, self.id)
    }
}

// As text, so that copies and volumes can be the keys of JSON objects.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(CopyId);
serde_as_text!(VolumeRef);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_ids_round_trip_as_text_and_as_json_keys() {
        let copy = CopyId::new(DatabaseId(Uuid::from_u128(7)), "ex1.example.org".parse().unwrap());
        assert_eq!(copy.to_string().parse::<CopyId>().unwrap(), copy);
        let volume: VolumeRef = "fs:/srv/exchange: one".parse().unwrap();
        assert_eq!(volume.id.as_str(), "/srv/exchange: one");
        let map = std::collections::BTreeMap::from([(copy, volume)]);
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(
            json,
            r#"{"00000000-0000-0000-0000-000000000007@ex1.example.org":"fs:/srv/exchange: one"}"#
        );
        assert_eq!(
            serde_json::from_str::<std::collections::BTreeMap<CopyId, VolumeRef>>(&json).unwrap(),
            map
        );
    }

    #[test]
    fn bad_text_is_refused_with_its_reason() {
        assert_eq!(VolumeId::new("").unwrap_err().why, "it is empty");
        assert_eq!(ExposureKey::new("a/b").unwrap_err().kind, "exposure key");
        assert!(SetToken::new("../up").is_err());
        assert!("no-colon".parse::<VolumeRef>().is_err());
        assert!("not-a-guid@host".parse::<CopyId>().is_err());
        assert!(serde_json::from_str::<SetToken>("\"a b\"").is_err());
    }

    #[test]
    fn a_token_gives_back_its_parts() {
        let (run, point) = (RunId(Uuid::from_u128(3)), PointId(Uuid::from_u128(9)));
        assert_eq!(SetToken::of(&run, point).parts(), Some((run, point)));
        assert_eq!(SetToken::new("sp-1-2").unwrap().parts(), None);
        assert_eq!(SetToken::new("foreign").unwrap().parts(), None);
    }

    #[test]
    fn the_same_files_in_two_places_are_two_databases() {
        let a = DatabaseId::at_rest(b"sig", "/a");
        assert_eq!(a, DatabaseId::at_rest(b"sig", "/a"));
        assert_ne!(a, DatabaseId::at_rest(b"sig", "/b"));
        assert_ne!(DatabaseId::at_rest(b"sig/", "a"), DatabaseId::at_rest(b"sig", "/a"));
    }
}
