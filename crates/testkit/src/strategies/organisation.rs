//! What there is: servers, databases, copies, and the volumes on which they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stillpoint_context::{HostId, HostPath, PathFlavor};
use stillpoint_model::availability::{Availability, Reason};
use stillpoint_model::capability::{ProviderCaps, ProviderCoordination, VolumeFacts};
use stillpoint_model::id::{CopyId, DagId, DatabaseId, InventoryEpoch, ProviderId, VolumeRef};
use stillpoint_model::inventory::{
    CopyFile, CopyRole, CopyStatus, Dag, Database, DatabaseCopy, FileRole, Fitness, Host, Inventory,
};
use stillpoint_model::placement::{CopyPlacement, PlacementMap};
use stillpoint_model::quiesce::QuiesceLevel;
use uuid::Uuid;

use super::must;

/// The most servers of an organisation.
pub(super) const SERVERS: usize = 4;
/// The most databases of an organisation.
pub(super) const DATABASES: u128 = 8;

/// The n-th server, from 0.
pub(super) fn host(number: usize) -> HostId {
    must(HostId::new(format!("ex{}.example.com", number + 1)))
}

/// The n-th database, from 1.
pub(super) fn database(number: u128) -> DatabaseId {
    DatabaseId(Uuid::from_u128(number))
}

/// The DAG of all servers.
pub(super) fn dag() -> DagId {
    DagId(Uuid::from_u128(0xda6))
}

/// When everything was seen.
pub(super) fn seen() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

pub(super) fn volume(text: &str) -> VolumeRef {
    must(text.parse())
}

/// An Exchange organisation and the storage it lies on, as a plan sees them.
///
/// Each database has one active copy and at most one copy on a server, no two copies of one database share a volume, activation
/// preferences are 1 to n, no volume has more snapshots than it can have, and every volume has a provider.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Organisation {
    /// What Exchange has.
    pub inventory: Inventory,
    /// Where it lies.
    pub placement: PlacementMap,
    /// What is known of the volumes.
    pub volumes: BTreeMap<VolumeRef, VolumeFacts>,
    /// Whose they are: `sim`, which commits, and `array`, which adopts.
    pub providers: BTreeMap<ProviderId, ProviderCaps>,
}

#[derive(Debug, Clone)]
struct CopySketch {
    host: usize,
    status: Option<usize>,
    volumes: (u8, u8),
    on_array: bool,
    lags: (u64, u64),
    queues: (u64, u64),
}

#[derive(Debug, Clone)]
struct DatabaseSketch {
    copies: Vec<CopySketch>,
    circular: bool,
    recovery: bool,
    bytes: Option<u64>,
}

fn copies(fit: bool) -> impl Strategy<Value = CopySketch> {
    // Mostly fit states, so that plans are not empty.
    let any_status = (0..CopyStatus::EXCHANGE.len()).prop_map(Some);
    let status = if fit {
        Just(None).boxed()
    } else {
        prop_oneof![6 => Just(None), 1 => any_status].boxed()
    };
    let lag = || prop_oneof![6 => Just(0_u64), 1 => 1..=14 * 24_u64];
    let queue = || prop_oneof![6 => Just(0_u64), 1 => 1..1000_u64];
    let volumes = (0..3_u8, 0..3_u8);
    let lags = (lag(), lag());
    (0..SERVERS, status, volumes, prop::bool::weighted(0.2), lags, (queue(), queue())).prop_map(
        |(host, status, volumes, on_array, lags, queues)| CopySketch {
            host,
            status,
            volumes,
            on_array,
            lags,
            queues,
        },
    )
}

fn databases(fit: bool) -> impl Strategy<Value = DatabaseSketch> {
    let (circular, recovery) = if fit { (0.0, 0.0) } else { (0.15, 0.05) };
    let flags = (prop::bool::weighted(circular), prop::bool::weighted(recovery));
    (vec(copies(fit), 1..=SERVERS), flags, option::of(1..2_000_000_000_000_u64)).prop_map(
        |(copies, (circular, recovery), bytes)| DatabaseSketch {
            copies,
            circular,
            recovery,
            bytes,
        },
    )
}

fn providers() -> BTreeMap<ProviderId, ProviderCaps> {
    use ProviderCoordination::{Adopt, Commit};
    let provider = |name: &str, parts: BTreeSet<ProviderCoordination>| {
        let id = must(ProviderId::new(name));
        let mut caps = ProviderCaps::new(id.clone());
        caps.coordination = parts;
        caps.instant = true;
        (id, caps)
    };
    [provider("sim", [Commit].into()), provider("array", [Adopt].into())].into()
}

impl Organisation {
    fn of(sketches: Vec<DatabaseSketch>, used: u32) -> Self {
        let epoch = must(InventoryEpoch::new("drawn"));
        let mut this = Self {
            inventory: Inventory::new(epoch, seen()),
            placement: PlacementMap::new(),
            volumes: BTreeMap::new(),
            providers: providers(),
        };
        for (number, sketch) in (1..).zip(sketches) {
            this.add(number, sketch, used);
        }
        let hosts: Vec<_> = this.inventory.hosts.keys().cloned().collect();
        if hosts.len() > 1 {
            this.inventory.add_dag(Dag::new(dag(), "DAG1", hosts));
            for database in this.inventory.databases.values_mut() {
                database.dag = Some(dag());
            }
        }
        this.inventory.epoch = this.inventory.structural_epoch();
        this
    }

    fn add(&mut self, number: u128, sketch: DatabaseSketch, used: u32) {
        let id = database(number);
        let mut info = Database::new(id, format!("DB{number:02}"));
        info.circular_logging = sketch.circular;
        info.recovery = sketch.recovery;
        info.bytes = sketch.bytes;
        self.inventory.add_database(info);
        let mut seen_on = BTreeSet::new();
        // One copy on a server.
        let copies = sketch.copies.into_iter().filter(|copy| seen_on.insert(copy.host));
        for (at, copy) in copies.enumerate() {
            self.add_copy(number, at, &copy, used);
        }
    }

    fn add_copy(&mut self, number: u128, at: usize, sketch: &CopySketch, used: u32) {
        let server = host(sketch.host);
        self.inventory.add_host(Host::new(server.clone()));
        let id = CopyId::new(database(number), server.clone());
        let (role, usual) = if at == 0 {
            (CopyRole::Active, CopyStatus::Mounted)
        } else {
            (CopyRole::Passive, CopyStatus::Healthy)
        };
        let status =
            sketch.status.and_then(|at| CopyStatus::EXCHANGE.get(at)).copied().unwrap_or(usual);
        let availability = match status.fitness() {
            Fitness::Fit => Availability::available(seen()),
            _ => Availability::unavailable(seen(), vec![Reason::CopyStatus { status }]),
        };
        let mut copy = DatabaseCopy::new(id.clone(), role, status, availability);
        copy.activation_preference = u32::try_from(at + 1).ok().and_then(NonZeroU32::new);
        if role == CopyRole::Passive {
            copy.replay_lag = Duration::from_hours(sketch.lags.0);
            copy.truncation_lag = Duration::from_hours(sketch.lags.1);
        }
        (copy.copy_queue, copy.replay_queue) = (Some(sketch.queues.0), Some(sketch.queues.1));
        let path = |raw: String| must(HostPath::new(server.clone(), PathFlavor::Windows, raw));
        copy.log_folder = Some(path(format!(r"D:\DB{number:02}\Logs")));
        copy.log_prefix = Some("E00".to_owned());
        let file = path(format!(r"D:\DB{number:02}\DB{number:02}.edb"));
        copy.files.push(CopyFile::new(file, FileRole::Database));
        self.inventory.add_copy(copy);
        // The server is in the name: copies of one database never share a volume.
        let provider = if sketch.on_array { "array" } else { "sim" };
        let place = |at: u8| volume(&format!("{provider}:ex{}-v{at}", sketch.host + 1));
        let (data, logs) = (place(sketch.volumes.0), place(sketch.volumes.1));
        for volume in [&data, &logs] {
            self.know(volume, used);
        }
        self.placement.insert(id, CopyPlacement::new(data, logs));
    }

    pub(super) fn know(&mut self, volume: &VolumeRef, used: u32) {
        let worst = Some(Duration::from_millis(50));
        let facts = || {
            let mut facts = VolumeFacts::new(volume.clone(), QuiesceLevel::App, worst);
            facts.snapshots_used = used;
            facts.snapshot_limit = NonZeroU32::new(1023);
            facts
        };
        self.volumes.entry(volume.clone()).or_insert_with(facts);
    }
}

/// Organisations of up to four servers and eight databases, in any state.
pub fn organisations() -> impl Strategy<Value = Organisation> {
    (vec(databases(false), 0..=DATABASES as usize), 0..200_u32)
        .prop_map(|(databases, used)| Organisation::of(databases, used))
}

/// Organisations all of whose copies can be backed up, with a database at least.
pub fn fit_organisations() -> impl Strategy<Value = Organisation> {
    (vec(databases(true), 1..=DATABASES as usize), 0..200_u32)
        .prop_map(|(databases, used)| Organisation::of(databases, used))
}
