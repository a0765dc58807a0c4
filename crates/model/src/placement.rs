//! Where files lie: which volume of which provider.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stillpoint_context::HostPath;

use crate::id::{CopyId, VolumeRef};

/// A file (or folder) and its volume, as a snapshot provider resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Placement {
    /// What was asked about.
    pub file: HostPath,
    /// Where it lies.
    pub volume: VolumeRef,
    /// The device as the server sees it (serial number, NAA id, device number), where there is
    /// one.
    pub device: Option<String>,
    /// The path of the file inside the volume, with `/` between its parts and none before the
    /// first.
    pub inside: String,
}

impl Placement {
    /// `file` lies on `volume` at `inside`.
    pub fn new(file: HostPath, volume: VolumeRef, inside: impl Into<String>) -> Self {
        Self { file, volume, device: None, inside: inside.into() }
    }

    /// The same with the device.
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }
}

/// The volumes of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyPlacement {
    /// Volumes of the database file and what else is no log.
    pub data: BTreeSet<VolumeRef>,
    /// Volumes of the logs and the checkpoint.
    pub logs: BTreeSet<VolumeRef>,
    /// Files that no provider knows.
    pub unresolved: Vec<HostPath>,
}

impl CopyPlacement {
    /// Data on one volume and logs on one, maybe the same.
    pub fn new(data: VolumeRef, logs: VolumeRef) -> Self {
        Self { data: BTreeSet::from([data]), logs: BTreeSet::from([logs]), unresolved: Vec::new() }
    }

    /// Every volume of the copy, each once.
    pub fn volumes(&self) -> BTreeSet<&VolumeRef> {
        self.data.iter().chain(&self.logs).collect()
    }
}

/// The volumes of every copy that was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlacementMap(pub BTreeMap<CopyId, CopyPlacement>);

impl PlacementMap {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The volumes of `copy`.
    pub fn of(&self, copy: &CopyId) -> Option<&CopyPlacement> {
        self.0.get(copy)
    }

    /// Says where `copy` lies.
    pub fn insert(&mut self, copy: CopyId, placement: CopyPlacement) -> &mut Self {
        self.0.insert(copy, placement);
        self
    }

    /// Every copy that has something on `volume`, in order.
    pub fn on_volume<'a>(&'a self, volume: &'a VolumeRef) -> impl Iterator<Item = &'a CopyId> {
        self.0
            .iter()
            .filter(move |(_, placed)| placed.data.contains(volume) || placed.logs.contains(volume))
            .map(|(copy, _)| copy)
    }
}
