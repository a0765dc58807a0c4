//! What exists: servers, DAGs, databases, their copies and the state of their logs.
//!
//! An [`Inventory`] is what an Exchange plug-in saw at one time. Where its files lie on storage is
//! the storage's knowledge: see [`crate::placement`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{HostId, HostPath};

use crate::availability::Availability;
use crate::id::{CopyId, DagId, DatabaseId, InventoryEpoch};

mod log;
mod status;

pub use log::{DatabaseSignature, Generation, LogSignature, LogState, generations};
pub use status::{CopyStatus, Fitness, WriterState};

/// A mailbox server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Host {
    /// Its name: lower case, absolute.
    pub id: HostId,
    /// Version of the plug-in's agent there, if it has one.
    pub agent_version: Option<String>,
    /// Whether it can be worked with.
    pub state: HostState,
    /// The state of its Exchange writer.
    pub writer: WriterState,
    /// Snapshot providers registered there, by the names the host gives them.
    pub providers: Vec<String>,
}

impl Host {
    /// An online server whose writer is stable.
    pub fn new(id: HostId) -> Self {
        Self {
            id,
            agent_version: None,
            state: HostState::Online,
            writer: WriterState::Stable,
            providers: Vec::new(),
        }
    }
}

/// Whether a server can be worked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostState {
    /// It answers.
    Online,
    /// It does not.
    Offline,
    /// An operator asked to leave it alone: its members are skipped, the others go on.
    Maintenance {
        /// Why.
        reason: String,
        /// When it is expected back.
        until: Option<DateTime<Utc>>,
    },
}

/// A database availability group: the boundary of replication, of at most 16 servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dag {
    /// Its id.
    pub id: DagId,
    /// Its name, for people.
    pub name: String,
    /// Its servers, each once.
    pub members: Vec<HostId>,
    /// Whether it has quorum.
    pub quorum: bool,
}

impl Dag {
    /// A DAG that has quorum.
    pub fn new(id: DagId, name: impl Into<String>, members: Vec<HostId>) -> Self {
        Self { id, name: name.into(), members, quorum: true }
    }
}

/// Times of the last backups that a database's header tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastBackups {
    /// `LastFullBackup`.
    pub full: Option<DateTime<Utc>>,
    /// `LastIncrementalBackup`.
    pub incremental: Option<DateTime<Utc>>,
    /// `LastDifferentialBackup`.
    pub differential: Option<DateTime<Utc>>,
    /// `LastCopyBackup`.
    pub copy: Option<DateTime<Utc>>,
}

/// A mailbox database, whatever copies it has.
// Exchange reports these as independent switches.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Database {
    /// Its GUID.
    pub id: DatabaseId,
    /// Its name, for people; at most 64 characters, unique in the organisation, and changeable.
    pub name: String,
    /// The DAG it belongs to.
    pub dag: Option<DagId>,
    /// Log files are deleted without a backup: no log backups, recovery to a backup's own instant.
    pub circular_logging: bool,
    /// A recovery database: a place to restore to, never to be backed up.
    pub recovery: bool,
    /// Exchange says that a backup of it is in progress, anywhere in the DAG.
    pub backup_in_progress: bool,
    /// A file may be restored over it. Normally off, and to be put back.
    pub allow_file_restore: bool,
    /// What its header says of earlier backups.
    pub last_backups: LastBackups,
    /// Size of the database file in bytes.
    pub bytes: Option<u64>,
    /// The signature in its header, where it could be read.
    pub signature: Option<DatabaseSignature>,
}

impl Database {
    /// A plain database of this name.
    pub fn new(id: DatabaseId, name: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            dag: None,
            circular_logging: false,
            recovery: false,
            backup_in_progress: false,
            allow_file_restore: false,
            last_backups: LastBackups::default(),
            bytes: None,
            signature: None,
        }
    }
}

/// Which part a copy plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyRole {
    /// The one that clients use. Files at rest are the active copy of their database.
    Active,
    /// Kept current by shipping logs.
    Passive,
}

impl std::fmt::Display for CopyRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Passive => "passive",
        })
    }
}

/// What a file is to its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileRole {
    /// The database itself (`.edb`).
    Database,
    /// A log file (`Enn.log`, `EnnXXXXXXXX.log`).
    Log,
    /// The checkpoint (`Enn.chk`).
    Checkpoint,
    /// Anything else that belongs to it and is taken with it (flush map, reserve logs).
    Other,
}

/// A file of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyFile {
    /// Where it lies.
    pub path: HostPath,
    /// What it is.
    pub role: FileRole,
    /// Its size in bytes when it was looked at.
    pub bytes: Option<u64>,
    /// For a closed log: which.
    pub generation: Option<Generation>,
}

impl CopyFile {
    /// A file of unknown size.
    pub fn new(path: HostPath, role: FileRole) -> Self {
        Self { path, role, bytes: None, generation: None }
    }

    /// The same with its size.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The same with its log generation.
    pub fn with_generation(mut self, generation: Generation) -> Self {
        self.generation = Some(generation);
        self
    }
}

/// A copy of a database on one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseCopy {
    /// Which.
    pub id: CopyId,
    /// Its part.
    pub role: CopyRole,
    /// What Exchange says of it.
    pub status: CopyStatus,
    /// 1 is most preferred for activation; the highest number is least likely to be activated.
    pub activation_preference: Option<NonZeroU32>,
    /// How long replay is delayed; more than nothing makes it a lagged copy.
    #[serde(rename = "replay_lag_ms", with = "crate::millis")]
    pub replay_lag: Duration,
    /// How long the deletion of replayed logs is delayed.
    #[serde(rename = "truncation_lag_ms", with = "crate::millis")]
    pub truncation_lag: Duration,
    /// Logs not yet copied here.
    pub copy_queue: Option<u64>,
    /// Logs not yet replayed here.
    pub replay_queue: Option<u64>,
    /// When the last log was inspected here; says how stale a disconnected copy is.
    pub last_inspected_at: Option<DateTime<Utc>>,
    /// Where its logs and checkpoint lie, if that is one folder. Needed for placement, since logs
    /// come and go.
    pub log_folder: Option<HostPath>,
    /// First three characters of its log files, e.g. `E00`.
    pub log_prefix: Option<String>,
    /// Its files. A live copy lists at least its database file; files at rest are listed whole,
    /// and these are what a backup takes.
    pub files: Vec<CopyFile>,
    /// Its log stream, where it could be read.
    pub log_state: Option<LogState>,
    /// Whether it can be backed up, and every reason why not.
    pub availability: Availability,
}

impl DatabaseCopy {
    /// A copy without lag and without files, available as of `now`.
    pub fn new(id: CopyId, role: CopyRole, status: CopyStatus, availability: Availability) -> Self {
        Self {
            id,
            role,
            status,
            activation_preference: None,
            replay_lag: Duration::ZERO,
            truncation_lag: Duration::ZERO,
            copy_queue: None,
            replay_queue: None,
            last_inspected_at: None,
            log_folder: None,
            log_prefix: None,
            files: Vec::new(),
            log_state: None,
            availability,
        }
    }

    /// Whether replay is delayed on purpose: a poor source, days old and slow to mount.
    pub fn is_lagged(&self) -> bool {
        !self.replay_lag.is_zero()
    }

    /// The files of one role.
    pub fn files_of(&self, role: FileRole) -> impl Iterator<Item = &CopyFile> {
        self.files.iter().filter(move |file| file.role == role)
    }

    /// The database file.
    pub fn database_file(&self) -> Option<&CopyFile> {
        self.files_of(FileRole::Database).next()
    }
}

/// What a plug-in saw at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inventory {
    /// Changes whenever a plan made from this inventory would no longer hold.
    pub epoch: InventoryEpoch,
    /// When it was seen.
    pub observed_at: DateTime<Utc>,
    /// Servers.
    pub hosts: BTreeMap<HostId, Host>,
    /// DAGs.
    pub dags: BTreeMap<DagId, Dag>,
    /// Databases.
    pub databases: BTreeMap<DatabaseId, Database>,
    /// Copies.
    pub copies: BTreeMap<CopyId, DatabaseCopy>,
}

impl Inventory {
    /// An empty one.
    pub fn new(epoch: InventoryEpoch, observed_at: DateTime<Utc>) -> Self {
        Self {
            epoch,
            observed_at,
            hosts: BTreeMap::new(),
            dags: BTreeMap::new(),
            databases: BTreeMap::new(),
            copies: BTreeMap::new(),
        }
    }

    /// Adds a server, or replaces what is known of it.
    pub fn add_host(&mut self, host: Host) -> &mut Self {
        self.hosts.insert(host.id.clone(), host);
        self
    }

    /// Adds a DAG, or replaces what is known of it.
    pub fn add_dag(&mut self, dag: Dag) -> &mut Self {
        self.dags.insert(dag.id, dag);
        self
    }

    /// Adds a database, or replaces what is known of it.
    pub fn add_database(&mut self, database: Database) -> &mut Self {
        self.databases.insert(database.id, database);
        self
    }

    /// Adds a copy, or replaces what is known of it.
    pub fn add_copy(&mut self, copy: DatabaseCopy) -> &mut Self {
        self.copies.insert(copy.id.clone(), copy);
        self
    }

    /// The copies of one database, in order of their servers' names.
    pub fn copies_of(&self, database: DatabaseId) -> impl Iterator<Item = &DatabaseCopy> {
        // Copies are ordered by database first, so this is a run in the map; the end is found by
        // looking, since there is no smallest host id to begin at.
        self.copies.values().filter(move |copy| copy.id.database == database)
    }

    /// The active copy of a database.
    pub fn active_copy(&self, database: DatabaseId) -> Option<&DatabaseCopy> {
        self.copies_of(database).find(|copy| copy.role == CopyRole::Active)
    }

    /// The database of this name (case ignored), for people who type.
    pub fn database_named(&self, name: &str) -> Option<&Database> {
        self.databases.values().find(|database| database.name.eq_ignore_ascii_case(name))
    }

    /// An epoch of what plans depend on (servers and their states, databases, copies, their roles,
    /// states, places and preference), for plug-ins that have no counter of their own. Queues,
    /// sizes and log generations, which always move, do not count.
    pub fn structural_epoch(&self) -> InventoryEpoch {
        let mut hash = blake3::Hasher::new();
        // Each part ends with a byte that stands in no text, so that parts cannot run together.
        let mut part = |text: &str| {
            hash.update(text.as_bytes());
            hash.update(&[0xff]);
        };
        for host in self.hosts.values() {
            part("host");
            part(&host.id.to_string());
            part(&format!("{:?}", host.state));
            part(&format!("{:?}", host.writer));
        }
        for dag in self.dags.values() {
            part("dag");
            part(&dag.id.to_string());
            for member in &dag.members {
                part(&member.to_string());
            }
        }
        for database in self.databases.values() {
            part("database");
            part(&database.id.to_string());
            part(&format!("{} {}", database.circular_logging, database.recovery));
        }
        for copy in self.copies.values() {
            part("copy");
            part(&copy.id.to_string());
            part(&format!("{} {:?} {:?}", copy.role, copy.status, copy.replay_lag));
            part(&format!("{:?}", copy.activation_preference));
            part(&format!("{:?}", copy.log_folder));
            part(&format!("{:?}", copy.availability.reasons));
            for file in copy.files.iter().filter(|file| file.role == FileRole::Database) {
                part(&file.path.to_string());
            }
        }
        let hex = hash.finalize().to_hex();
        // 32 characters of hex are always a valid epoch.
        InventoryEpoch::new(&hex[..32]).unwrap_or_else(|_| self.epoch.clone())
    }
}
