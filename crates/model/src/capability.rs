//! What a plug-in, a provider and a volume can do, as data that the planner, the engine and the
//! conformance suites read alike.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::EvidenceGrain;
use crate::id::{ProviderId, VolumeRef};
use crate::kind::BackupKind;
use crate::quiesce::QuiesceLevel;

/// Who runs freeze, snapshot and thaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordination {
    /// The engine: freeze, then every provider's commit, then thaw.
    Engine,
    /// The plug-in: one call runs freeze, the hardware providers and thaw (as VSS does), and the
    /// providers adopt what was made.
    Plugin,
}

impl Coordination {
    /// What a provider has to do in this mode.
    pub const fn provider_side(self) -> ProviderCoordination {
        match self {
            Self::Engine => ProviderCoordination::Commit,
            Self::Plugin => ProviderCoordination::Adopt,
        }
    }
}

impl std::fmt::Display for Coordination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Engine => "engine",
            Self::Plugin => "plug-in",
        })
    }
}

/// A provider's part in a coordination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderCoordination {
    /// It snaps when told to.
    Commit,
    /// It takes over what a hardware provider made inside VSS.
    Adopt,
}

/// What an Exchange plug-in can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PluginCaps {
    /// Its name, for people.
    pub name: String,
    /// The modes it can work in; the planner prefers [`Coordination::Engine`].
    pub coordination: BTreeSet<Coordination>,
    /// The kinds of backup it can begin.
    pub kinds: BTreeSet<BackupKind>,
    /// How far its freeze reaches.
    pub quiesce: QuiesceLevel,
    /// After this long it thaws by itself (Exchange: 20 s). None is legal for data at rest only.
    #[serde(rename = "freeze_limit_ms", with = "crate::millis::option")]
    pub freeze_limit: Option<Duration>,
    /// After this long held I/O is let go (VSS: 10 s).
    #[serde(rename = "hold_limit_ms", with = "crate::millis::option")]
    pub hold_limit: Option<Duration>,
    /// The most databases in one set.
    pub max_databases: Option<NonZeroU32>,
    /// The most volumes in one set (VSS: 64).
    pub max_volumes: Option<NonZeroU32>,
    /// How finely its evidence may be read.
    pub grain: EvidenceGrain,
    /// It can verify.
    pub verify: bool,
    /// It can restore into Exchange.
    pub restore: bool,
    /// It refuses old fencing tokens.
    pub fencing: bool,
}

impl PluginCaps {
    /// The least: engine-coordinated full backups of data at rest, without limits, verification or
    /// restore, with an answer for each database.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            coordination: BTreeSet::from([Coordination::Engine]),
            kinds: BTreeSet::from([BackupKind::Full]),
            quiesce: QuiesceLevel::AtRest,
            freeze_limit: None,
            hold_limit: None,
            max_databases: None,
            max_volumes: None,
            grain: EvidenceGrain::PerDatabase,
            verify: false,
            restore: false,
            fencing: false,
        }
    }

    /// How long a freeze may last at most: the shorter of freeze limit and I/O hold limit.
    pub fn shortest_limit(&self) -> Option<Duration> {
        match (self.freeze_limit, self.hold_limit) {
            (Some(freeze), Some(hold)) => Some(freeze.min(hold)),
            (limit, None) | (None, limit) => limit,
        }
    }
}

/// What a snapshot provider can do.
// Capabilities are independent yes-or-no facts; a set of flags would hide that behind a type.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProviderCaps {
    /// Which provider.
    pub provider: ProviderId,
    /// The parts it can play.
    pub coordination: BTreeSet<ProviderCoordination>,
    /// It snaps several volumes at one instant.
    pub atomic_group: bool,
    /// A commit copies no data. Its worst case is known of the volume, or stated by `prepare`.
    /// Without it a commit copies.
    pub instant: bool,
    /// It can expose snapshots for reading.
    pub expose: bool,
    /// It can restore by clone.
    pub clone: bool,
    /// It can revert a volume.
    pub revert: bool,
    /// It can replicate.
    pub replicate: bool,
    /// It can lock snapshots against deletion.
    pub lock: bool,
    /// It keeps documents beside the data.
    pub documents: bool,
    /// It refuses old fencing tokens.
    pub fencing: bool,
    /// The most volumes in one prepared set.
    pub max_volumes: Option<NonZeroU32>,
}

impl ProviderCaps {
    /// The least: it commits, volume by volume, by copying, exposes, and keeps documents.
    pub fn new(provider: ProviderId) -> Self {
        Self {
            provider,
            coordination: BTreeSet::from([ProviderCoordination::Commit]),
            atomic_group: false,
            instant: false,
            expose: true,
            clone: false,
            revert: false,
            replicate: false,
            lock: false,
            documents: true,
            fencing: false,
            max_volumes: None,
        }
    }
}

/// What a provider knows of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeFacts {
    /// Which.
    pub volume: VolumeRef,
    /// Its name, for people.
    pub name: Option<String>,
    /// Snapshots that are there, whoever made them.
    pub snapshots_used: u32,
    /// The most there can be.
    pub snapshot_limit: Option<NonZeroU32>,
    /// How far writes have to be held for a snapshot of it to be worth anything. What goes beyond
    /// the plug-in's level is refused when planning.
    pub needs: QuiesceLevel,
    /// How long a commit on it may take at worst; unknown if it depends on what it holds. Under a
    /// freeze limit an unknown one is refused when planning unless the provider is
    /// [instant](ProviderCaps::instant): then its `prepare` states it, and refuses what is too slow.
    #[serde(rename = "worst_commit_ms", with = "crate::millis::option")]
    pub worst_commit: Option<Duration>,
    /// Free bytes in the place where snapshots go, where that means something.
    pub free_bytes: Option<u64>,
}

impl VolumeFacts {
    /// A volume without a snapshot limit, on which a commit takes at worst `worst_commit`.
    pub fn new(volume: VolumeRef, needs: QuiesceLevel, worst_commit: Option<Duration>) -> Self {
        Self {
            volume,
            name: None,
            snapshots_used: 0,
            snapshot_limit: None,
            needs,
            worst_commit,
            free_bytes: None,
        }
    }

    /// How many more snapshots fit; unknown without a limit.
    pub fn snapshots_left(&self) -> Option<u32> {
        self.snapshot_limit.map(|limit| limit.get().saturating_sub(self.snapshots_used))
    }
}
