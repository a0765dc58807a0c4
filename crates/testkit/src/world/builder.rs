//! Making worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use stillpoint_context::{FencingToken, HostId, HostPath, PathFlavor};
use stillpoint_model::id::{CopyId, DagId, DatabaseId, ProviderId, VolumeId, VolumeRef};
use stillpoint_model::inventory::{
    CopyRole, CopyStatus, Dag, Database, DatabaseSignature, Host, LogSignature,
};
use stillpoint_model::quiesce::QuiesceLevel;
use uuid::Uuid;

use super::World;
use super::state::{SimCopy, SimDatabase, SimHost, SimVolume, State};
use crate::moment::Moment;
use crate::writer::Writer;

/// The value, or the end of a test whose world makes no sense.
#[allow(clippy::panic, reason = "the builder of a test's world has nobody to tell but the test")]
fn must<T, E: std::fmt::Display>(value: Result<T, E>) -> T {
    value.unwrap_or_else(|error| panic!("this world makes no sense: {error}"))
}

pub(crate) fn provider(name: &str) -> ProviderId {
    must(ProviderId::new(name))
}

fn host_id(name: &str) -> HostId {
    must(HostId::new(name))
}

fn id_of(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("stillpoint.testkit.{kind}.{name}").as_bytes())
}

fn signature_of(kind: &str, name: &str) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(id_of(kind, name).as_bytes());
    bytes
}

/// A volume of a world in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct VolumeSpec {
    provider: String,
    name: String,
    mounts: Vec<(String, String)>,
    limit: Option<u32>,
    needs: QuiesceLevel,
    commit: Duration,
    worst: Option<Duration>,
}

impl VolumeSpec {
    /// A volume of the provider `sim`, whose snapshots take 10 ms and need a frozen application, without a snapshot limit.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            provider: "sim".to_owned(),
            name: name.into(),
            mounts: Vec::new(),
            limit: None,
            needs: QuiesceLevel::App,
            commit: Duration::from_millis(10),
            worst: None,
        }
    }

    /// It belongs to this provider.
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = name.into();
        self
    }

    /// It is mounted on this host at this folder, such as `D:\Data1` or `/srv/data1`; may be said for several hosts.
    pub fn mounted(mut self, host: impl Into<String>, folder: impl Into<String>) -> Self {
        self.mounts.push((host.into(), folder.into()));
        self
    }

    /// At most so many snapshots.
    pub fn snapshot_limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How far writes have to be held.
    pub fn needs(mut self, level: QuiesceLevel) -> Self {
        self.needs = level;
        self
    }

    /// How long a snapshot takes; also what it states as its worst case, unless that is said.
    pub fn commit(mut self, time: Duration) -> Self {
        self.commit = time;
        self
    }

    /// What it states as the worst case of a snapshot, be it true or not.
    pub fn states_worst(mut self, time: Duration) -> Self {
        self.worst = Some(time);
        self
    }
}

/// A database of a world in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct DatabaseSpec {
    name: String,
    circular: bool,
    recovery: bool,
    every: Duration,
    per_generation: u64,
}

impl DatabaseSpec {
    /// A database that is written all the time: a transaction each 10 ms, a log generation each minute.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            circular: false,
            recovery: false,
            every: Duration::from_millis(10),
            per_generation: 6000,
        }
    }

    /// A transaction takes so long; zero: nobody writes.
    pub fn writes_every(mut self, time: Duration) -> Self {
        self.every = time;
        self
    }

    /// So many transactions to a log generation.
    pub fn per_generation(mut self, transactions: u64) -> Self {
        self.per_generation = transactions.max(1);
        self
    }

    /// It has circular logging.
    pub fn circular(mut self) -> Self {
        self.circular = true;
        self
    }

    /// It is a recovery database.
    pub fn recovery(mut self) -> Self {
        self.recovery = true;
        self
    }
}

/// A copy of a world in the making.
#[derive(Debug, Clone)]
#[must_use]
pub struct CopySpec {
    database: String,
    host: String,
    role: CopyRole,
    status: Option<CopyStatus>,
    data: Option<String>,
    logs: Option<String>,
    preference: Option<u32>,
    replay_lag: Duration,
    truncation_lag: Duration,
    queues: (u64, u64),
}

impl CopySpec {
    fn new(database: impl Into<String>, host: impl Into<String>, role: CopyRole) -> Self {
        Self {
            database: database.into(),
            host: host.into(),
            role,
            status: None,
            data: None,
            logs: None,
            preference: None,
            replay_lag: Duration::ZERO,
            truncation_lag: Duration::ZERO,
            queues: (0, 0),
        }
    }

    /// The active copy of a database, mounted, on this host.
    pub fn active(database: impl Into<String>, host: impl Into<String>) -> Self {
        Self::new(database, host, CopyRole::Active)
    }

    /// A passive copy of a database, healthy, on this host.
    pub fn passive(database: impl Into<String>, host: impl Into<String>) -> Self {
        Self::new(database, host, CopyRole::Passive)
    }

    /// Database file and logs lie on the volumes of these names, which may be one.
    pub fn on(mut self, data: impl Into<String>, logs: impl Into<String>) -> Self {
        self.data = Some(data.into());
        self.logs = Some(logs.into());
        self
    }

    /// Exchange says this of it. A copy that is dismounted is not written.
    pub fn status(mut self, status: CopyStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Its activation preference, from 1.
    pub fn preference(mut self, preference: u32) -> Self {
        self.preference = Some(preference);
        self
    }

    /// Its replay lag and truncation lag.
    pub fn lagged(mut self, replay: Duration, truncation: Duration) -> Self {
        (self.replay_lag, self.truncation_lag) = (replay, truncation);
        self
    }

    /// Logs not yet copied, and not yet replayed.
    pub fn queues(mut self, copy: u64, replay: u64) -> Self {
        self.queues = (copy, replay);
        self
    }
}

/// Makes a [`World`]. Made by [`World::builder`].
///
/// ```
/// use std::time::Duration;
/// use stillpoint_testkit::{CopySpec, DatabaseSpec, VolumeSpec, World};
///
/// let world = World::builder()
///     .host("ex1.example.com")
///     .volume(VolumeSpec::new("data1").mounted("ex1.example.com", r"D:\Data1").snapshot_limit(1023))
///     .volume(VolumeSpec::new("logs1").mounted("ex1.example.com", r"L:\Logs1").commit(Duration::from_millis(50)))
///     .database(DatabaseSpec::new("DB01"))
///     .copy(CopySpec::active("DB01", "ex1.example.com").on("data1", "logs1"))
///     .build();
/// assert_eq!(world.copies().len(), 1);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct WorldBuilder {
    hosts: Vec<String>,
    dags: Vec<(String, Vec<String>)>,
    volumes: Vec<VolumeSpec>,
    databases: Vec<DatabaseSpec>,
    copies: Vec<CopySpec>,
    truncation_delay: Option<Duration>,
}

impl WorldBuilder {
    /// A server, online, with a stable writer.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// A DAG of these servers; every database with a copy on one of them belongs to it.
    pub fn dag<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        members: impl IntoIterator<Item = S>,
    ) -> Self {
        self.dags.push((name.into(), members.into_iter().map(Into::into).collect()));
        self
    }

    /// A volume.
    pub fn volume(mut self, volume: VolumeSpec) -> Self {
        self.volumes.push(volume);
        self
    }

    /// A database.
    pub fn database(mut self, database: DatabaseSpec) -> Self {
        self.databases.push(database);
        self
    }

    /// A copy of a database.
    pub fn copy(mut self, copy: CopySpec) -> Self {
        self.copies.push(copy);
        self
    }

    /// How long after a completion logs are truncated; a second unless said, so that nobody waits for it in real time for long.
    pub fn truncates_after(mut self, time: Duration) -> Self {
        self.truncation_delay = Some(time);
        self
    }

    /// The world.
    ///
    /// # Panics
    /// When it makes no sense: names that are no legal ids, copies of databases or on hosts or volumes that were not named.
    pub fn build(self) -> World {
        let mut state = State::default();
        state.truncation_delay = self.truncation_delay.unwrap_or(Duration::from_secs(1));
        for name in &self.hosts {
            let info = Host::new(host_id(name));
            state.hosts.insert(info.id.clone(), SimHost { info, other_requester: false });
        }
        for (name, members) in &self.dags {
            let id = DagId(id_of("dag", name));
            let members = members.iter().map(|member| host_id(member)).collect();
            state.dags.insert(id, Dag::new(id, name.clone(), members));
        }
        let mut names = BTreeMap::new();
        for volume in &self.volumes {
            let reference =
                VolumeRef::new(provider(&volume.provider), must(VolumeId::new(&volume.name)));
            names.insert(volume.name.clone(), reference.clone());
            let disk = make_volume(volume);
            state.volumes.insert(reference, disk);
        }
        for database in &self.databases {
            let id = DatabaseId(id_of("database", &database.name));
            let mut info = Database::new(id, database.name.clone());
            info.circular_logging = database.circular;
            info.recovery = database.recovery;
            info.signature = Some(DatabaseSignature(signature_of("database", &database.name)));
            let known = SimDatabase { info, truncation: None, fence: FencingToken::default() };
            state.databases.insert(id, known);
        }
        for copy in &self.copies {
            self.add_copy(&mut state, &names, copy);
        }
        World::of_state(state)
    }

    fn add_copy(&self, state: &mut State, names: &BTreeMap<String, VolumeRef>, copy: &CopySpec) {
        let host = host_id(&copy.host);
        let database = self.databases.iter().find(|database| database.name == copy.database);
        let database =
            must(database.ok_or_else(|| format!("there is no database {:?}", copy.database)));
        must(state.hosts.get(&host).ok_or_else(|| format!("there is no host {host}")));
        let volume = |name: &Option<String>| -> VolumeRef {
            let found = name.as_ref().and_then(|name| names.get(name)).cloned();
            must(found.ok_or_else(|| format!("a copy of {} lies on no volume", copy.database)))
        };
        let (data, logs) = (volume(&copy.data), volume(&copy.logs));
        let id = CopyId::new(DatabaseId(id_of("database", &copy.database)), host.clone());
        let dags = state.dags.values().filter(|dag| dag.members.contains(&host));
        let dag = dags.map(|dag| dag.id).next();
        // E00, E01, …: each database of a host has a prefix of its own.
        let number = state.copies.keys().filter(|other| other.host == host).count();
        let status = copy.status.unwrap_or(match copy.role {
            CopyRole::Active => CopyStatus::Mounted,
            CopyRole::Passive => CopyStatus::Healthy,
        });
        let mounted = status != CopyStatus::Dismounted;
        let behind = copy.queues.0.saturating_add(copy.queues.1);
        let per_generation = database.per_generation;
        // Some generations in, so that there is something to truncate.
        let base = (per_generation * 4 + 1).saturating_sub(per_generation.saturating_mul(behind));
        let writer = Writer {
            signature: LogSignature(signature_of("log", &copy.database)),
            every: database.every,
            per_generation,
            base,
            running_since: mounted.then(Moment::default),
            oldest: 1,
            closed_before: Moment::default(),
        };
        let known = SimCopy {
            name: copy.database.clone(),
            role: copy.role,
            status,
            preference: copy.preference.and_then(NonZeroU32::new),
            replay_lag: copy.replay_lag,
            truncation_lag: copy.truncation_lag,
            copy_queue: copy.queues.0,
            replay_queue: copy.queues.1,
            data: data.clone(),
            logs: logs.clone(),
            prefix: format!("E{number:02}"),
            writer,
            mounted: true,
            frozen_by: None,
            rendered_to: 1,
        };
        for volume in BTreeSet::from([&data, &logs]) {
            if let Some(disk) = state.volumes.get_mut(volume) {
                disk.copies.insert(id.clone());
                must(disk.mount_on(&host).ok_or_else(|| format!("{volume} is mounted nowhere")));
            }
        }
        if let Some(database) = state.databases.get_mut(&id.database) {
            database.info.dag = dag.or(database.info.dag);
        }
        state.copies.insert(id.clone(), known);
        state.render(&id, Moment::default());
        if let Some(copy) = state.copies.get_mut(&id) {
            copy.mounted = mounted;
        }
    }
}

fn make_volume(volume: &VolumeSpec) -> SimVolume {
    let mount = |(host, folder): &(String, String)| {
        let flavor = if folder.starts_with('/') { PathFlavor::Posix } else { PathFlavor::Windows };
        must(HostPath::new(host_id(host), flavor, folder.as_str()))
    };
    SimVolume {
        mounts: volume.mounts.iter().map(mount).collect(),
        device: format!("naa.{}", id_of("volume", &volume.name).simple()),
        files: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        lost: BTreeMap::new(),
        limit: volume.limit.and_then(NonZeroU32::new),
        needs: volume.needs,
        commit: volume.commit,
        worst: volume.worst.unwrap_or(volume.commit),
        full: false,
        copies: BTreeSet::new(),
    }
}

/// Ready-made worlds.
impl World {
    /// Begins a world of one's own.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// One server, `ex1.example.com`, with the databases `DB01`, `DB02`, …, each with a volume for its data (`data01`, 10 ms
    /// a snapshot) and one for its logs (`logs01`, 10 ms).
    pub fn one_server(databases: u32) -> Self {
        let host = "ex1.example.com";
        let mut builder = Self::builder().host(host);
        for number in 1..=databases {
            let name = format!("DB{number:02}");
            builder = builder
                .volume(
                    VolumeSpec::new(format!("data{number:02}"))
                        .mounted(host, format!(r"D:\Data{number:02}")),
                )
                .volume(
                    VolumeSpec::new(format!("logs{number:02}"))
                        .mounted(host, format!(r"L:\Logs{number:02}")),
                )
                .database(DatabaseSpec::new(&name))
                .copy(
                    CopySpec::active(&name, host)
                        .on(format!("data{number:02}"), format!("logs{number:02}"))
                        .preference(1),
                );
        }
        builder.build()
    }

    /// A DAG of servers `ex1.example.com`, `ex2.example.com`, … with the databases `DB01`, `DB02`, …, every one with a copy on
    /// each server, on volumes of its own (`data01-ex1`, `logs01-ex1`). The active copies go round the servers.
    pub fn dag(servers: u32, databases: u32) -> Self {
        let hosts: Vec<String> = (1..=servers).map(|n| format!("ex{n}.example.com")).collect();
        let mut builder = Self::builder();
        for host in &hosts {
            builder = builder.host(host);
        }
        builder = builder.dag("DAG1", hosts.iter().map(String::as_str));
        for number in 1..=databases {
            let name = format!("DB{number:02}");
            builder = builder.database(DatabaseSpec::new(&name));
            for (server, host) in (1..=servers).zip(&hosts) {
                let data = format!("data{number:02}-ex{server}");
                let logs = format!("logs{number:02}-ex{server}");
                // The first server is the home of DB01, the second of DB02, and round again.
                let distance = (server + servers - (number - 1) % servers - 1) % servers;
                let copy = if distance == 0 {
                    CopySpec::active(&name, host)
                } else {
                    CopySpec::passive(&name, host)
                };
                builder = builder
                    .volume(VolumeSpec::new(&data).mounted(host, format!(r"D:\Data{number:02}")))
                    .volume(VolumeSpec::new(&logs).mounted(host, format!(r"L:\Logs{number:02}")))
                    .copy(copy.on(data, logs).preference(distance + 1));
            }
        }
        builder.build()
    }

    /// One server, `ex1.example.com`, with so many volumes, `vol01`, `vol02`, …, each with one database (`DB01`, …) and its
    /// logs, whose snapshots take this long.
    pub fn volumes_of(count: u32, commit: Duration) -> Self {
        let host = "ex1.example.com";
        let mut builder = Self::builder().host(host);
        for number in 1..=count {
            let (name, volume) = (format!("DB{number:02}"), format!("vol{number:02}"));
            builder = builder
                .volume(
                    VolumeSpec::new(&volume)
                        .mounted(host, format!(r"V:\Vol{number:02}"))
                        .commit(commit),
                )
                .database(DatabaseSpec::new(&name))
                .copy(CopySpec::active(&name, host).on(&volume, &volume).preference(1));
        }
        builder.build()
    }
}
