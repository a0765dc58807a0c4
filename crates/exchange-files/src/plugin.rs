//! The plug-in: a folder, and the contract over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_ese::{BackupInfo, DatabaseHeader};
use stillpoint_exchange::{
    BackupKind, ClosedLogs, Completion, CopyId, DatabaseId, ExchangePlugin, ExchangeRestore,
    Exposure, Frozen, Inventory, PluginCaps, PluginError, PluginErrorKind, PluginResult,
    RequiredFile, Scope, Session, SessionId, SessionSpec, SessionState, SetOutcome, Truncation,
    Verdict, VerifyReport, VerifySpec,
};
use stillpoint_model::{
    availability::Availability,
    id::InventoryEpoch,
    inventory::{
        CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, DatabaseSignature, FileRole, Host,
        LastBackups, WriterState,
    },
};

use crate::{
    logs::closed_logs,
    session::{Begun, Sessions, lease_until},
    survey::{Found, FoundFile, select, survey},
    verify::verify,
    watch::Watched,
};

/// Where databases are looked for, and what this machine is called.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    host: HostId,
    excluded: Vec<PathBuf>,
}

impl Place {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn excluded(&self) -> &[PathBuf] {
        &self.excluded
    }

    pub(crate) fn host(&self) -> &HostId {
        &self.host
    }

    pub(crate) fn host_path(&self, native: &Path) -> PluginResult<HostPath> {
        Ok(HostPath::from_native(self.host.clone(), native)?)
    }

    /// The path, or that of the nearest folder above it that can be told as text.
    pub(crate) fn nearest_host_path(&self, native: &Path) -> PluginResult<HostPath> {
        let textual = native.ancestors().find(|path| path.to_str().is_some());
        self.host_path(textual.unwrap_or(&self.root))
    }

    /// The path below the root, with `/` on every system: the same wherever the folder is mounted.
    #[allow(
        clippy::unnecessary_debug_formatting,
        reason = "a part that is no text is escaped, so that different names stay different"
    )]
    pub(crate) fn relative(&self, native: &Path) -> String {
        let below = native.strip_prefix(&self.root).unwrap_or(native);
        let parts: Vec<String> = below
            .components()
            .map(|part| match part.as_os_str().to_str() {
                Some(text) => text.to_owned(),
                None => format!("{:?}", part.as_os_str()),
            })
            .collect();
        parts.join("/")
    }

    pub(crate) fn database_id(&self, native: &Path, signature: Option<&[u8; 28]>) -> DatabaseId {
        let signature = signature.map(<[u8; 28]>::as_slice).unwrap_or_default();
        DatabaseId::at_rest(signature, &self.relative(native))
    }

    pub(crate) fn copy_id(&self, database: DatabaseId) -> CopyId {
        CopyId::new(database, self.host.clone())
    }
}

/// Speaks for the Exchange databases that lie at rest under a folder.
///
/// Cheap to clone; clones share their sessions.
#[derive(Debug, Clone)]
pub struct FilesPlugin {
    place: Arc<Place>,
    sessions: Arc<Sessions>,
}

impl FilesPlugin {
    /// The databases under `root`, on this machine, which is known as `host`.
    ///
    /// The folder need not exist yet, or any more: verification and restore do without it.
    ///
    /// # Errors
    /// `Invalid` when the path is no text or cannot be made absolute.
    pub fn new(root: impl AsRef<Path>, host: HostId) -> PluginResult<Self> {
        let root = absolute(root.as_ref())?;
        HostPath::from_native(host.clone(), &root)?;
        Ok(Self {
            place: Arc::new(Place { root, host, excluded: Vec::new() }),
            sessions: Arc::default(),
        })
    }

    /// The same, leaving out a folder below the root, such as one that snapshots are kept in.
    ///
    /// # Errors
    /// `Invalid` when the path cannot be made absolute.
    pub fn without(self, folder: impl AsRef<Path>) -> PluginResult<Self> {
        let mut excluded = self.place.excluded.clone();
        excluded.push(absolute(folder.as_ref())?);
        let place =
            Place { root: self.place.root.clone(), host: self.place.host.clone(), excluded };
        Ok(Self { place: Arc::new(place), sessions: self.sessions })
    }

    /// The folder, absolute and without links.
    pub fn root(&self) -> &Path {
        self.place.root()
    }

    async fn survey(&self, cx: &Cx) -> PluginResult<Vec<Found>> {
        let (place, inner) = (Arc::clone(&self.place), cx.clone());
        cx.blocking("survey files", move || survey(&inner, &place)).await?
    }
}

/// The path without links if it is there, else as it is written.
fn absolute(path: &Path) -> PluginResult<PathBuf> {
    path.canonicalize().or_else(|_| std::path::absolute(path)).map_err(|error| {
        PluginError::new(
            PluginErrorKind::Invalid,
            format!("{} is no usable path: {error}", path.display()),
        )
        .with_source(error)
        .without_effect()
    })
}

#[async_trait]
impl ExchangePlugin for FilesPlugin {
    fn caps(&self) -> PluginCaps {
        let mut caps = PluginCaps::new("files at rest");
        // Nothing is truncated whatever the kind, so every kind that takes the database is the same.
        caps.kinds = BTreeSet::from(BackupKind::ALL);
        caps.verify = true;
        caps.restore = true;
        caps.fencing = true;
        caps
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        let found = match scope {
            Scope::Hosts(hosts) if !hosts.contains(self.place.host()) => Vec::new(),
            Scope::Databases(ids) if ids.is_empty() => Vec::new(),
            _ => self.survey(cx).await?,
        };
        let is_wanted = |found: &&Found| match scope {
            Scope::Databases(ids) => ids.contains(&found.id),
            _ => true,
        };
        let now = cx.now();
        // The epoch is of the content; the name is only there until there is content.
        let epoch = InventoryEpoch::new("files").map_err(|error| {
            PluginError::new(PluginErrorKind::Internal, error.to_string()).without_effect()
        })?;
        let mut inventory = Inventory::new(epoch, now);
        let is_asked = match scope {
            Scope::Hosts(hosts) => hosts.contains(self.place.host()),
            _ => true,
        };
        if is_asked {
            let mut host = Host::new(self.place.host().clone());
            host.writer = WriterState::NotNeeded;
            inventory.add_host(host);
        }
        for found in found.iter().filter(is_wanted) {
            inventory.add_database(database(found));
            inventory.add_copy(copy(&self.place, found, now));
        }
        inventory.epoch = inventory.structural_epoch();
        Ok(inventory)
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        let invalid =
            |message: String| PluginError::new(PluginErrorKind::Invalid, message).without_effect();
        // Log backups have no session.
        if !spec.kind.takes_database() {
            return Err(PluginError::unsupported("kind"));
        }
        if let Some(stray) = spec.copies.iter().find(|copy| copy.host != *self.place.host()) {
            return Err(invalid(format!("{stray} is not on {}", self.place.host())));
        }
        if spec.copies.is_empty() {
            return Err(invalid("a session needs at least one copy".to_owned()));
        }
        if let Some(session) = self.sessions.again(cx, spec)? {
            return Ok(session);
        }
        let (place, sessions) = (Arc::clone(&self.place), Arc::clone(&self.sessions));
        let (inner, spec) = (cx.clone(), spec.clone());
        cx.blocking("begin session", move || {
            let found = select(survey(&inner, &place)?, &place, &spec.copies)?;
            let mut required = Vec::new();
            let mut watched = Vec::new();
            let mut log_states = BTreeMap::new();
            for found in &found {
                let copy = place.copy_id(found.id);
                for file in &found.files {
                    required.push(required_file(&copy, file));
                    watched.push(Watched::new(&copy, file));
                }
                log_states.extend(found.log_state.clone().map(|state| (copy, state)));
            }
            // Databases may share a log stream: all of them come before any log, so that whoever takes the files in this
            // order has no page that is newer than its log.
            required.sort_by_key(|file| file.role != FileRole::Database);
            let session = Session::new(&spec, required, lease_until(&inner, spec.lease));
            sessions.begin(&inner, &spec, Begun { session, watched, log_states })
        })
        .await?
    }

    /// Sessions live in this process: after a restart every one of them is unknown.
    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        Ok(self.sessions.look_up(cx, id))
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.sessions.renew(cx, id, lease)
    }

    /// Locks what an engine would write, where the file system has locks, and takes the stamps that the thaw compares.
    /// There is no limit unless one is asked for.
    ///
    /// # Errors
    /// Beside those of the trait, `NotAvailable` when a file is held by another process or has changed since `begin`.
    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        let thaws = self.sessions.admit_freeze(cx, id)?;
        let (sessions, inner) = (Arc::clone(&self.sessions), cx.clone());
        cx.blocking("freeze files", move || sessions.freeze(&inner, id, thaws, limit)).await?
    }

    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        let asked_at = cx.mono();
        if self.sessions.admit_thaw(cx, id)? {
            let (sessions, inner) = (Arc::clone(&self.sessions), cx.clone());
            cx.blocking("thaw files", move || sessions.thaw(&inner, id, asked_at)).await?;
        }
        Ok(())
    }

    async fn evidence(&self, _: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        self.sessions.evidence(id)
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let (place, inner) = (Arc::clone(&self.place), cx.clone());
        let (exposure, spec) = (exposure.clone(), spec.clone());
        cx.blocking("verify files", move || verify(&inner, place.host(), &exposure, &spec)).await?
    }

    /// Notes the verdicts and ends the session. At rest there is nobody to tell: no header changes and no log goes.
    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        self.sessions.complete(cx, id, verdicts)
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.sessions.abort(cx, id);
        Ok(())
    }

    async fn truncation(&self, _: &Cx, _: &CopyId, _: DateTime<Utc>) -> PluginResult<Truncation> {
        Ok(Truncation::NothingEligible {
            why: "the files are at rest: no Exchange server is there to truncate their logs"
                .to_owned(),
        })
    }

    async fn closed_logs(&self, cx: &Cx, copy: &CopyId) -> PluginResult<ClosedLogs> {
        let (place, inner, copy) = (Arc::clone(&self.place), cx.clone(), copy.clone());
        cx.blocking("closed logs", move || closed_logs(&inner, &place, &copy)).await?
    }

    fn restore(&self) -> Option<&dyn ExchangeRestore> {
        Some(self)
    }
}

impl FilesPlugin {
    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

fn required_file(copy: &CopyId, file: &FoundFile) -> RequiredFile {
    let mut required = RequiredFile::of(copy.clone(), &copy_file(file));
    required.generation = file.generation;
    required
}

pub(crate) fn copy_file(file: &FoundFile) -> CopyFile {
    let out = CopyFile::new(file.path.clone(), file.role).with_bytes(file.bytes);
    match file.generation {
        // The log being written has no generation in its name.
        Some(generation) if !file.is_open_log => out.with_generation(generation),
        _ => out,
    }
}

fn database(found: &Found) -> Database {
    let mut database = Database::new(found.id, found.name.clone());
    database.circular_logging = found.is_circular;
    database.bytes =
        found.files.iter().find(|file| file.role == FileRole::Database).map(|file| file.bytes);
    if let Some(header) = &found.header {
        database.signature = Some(DatabaseSignature(*header.signature.as_bytes()));
        database.last_backups = last_backups(header);
    }
    database
}

fn last_backups(header: &DatabaseHeader) -> LastBackups {
    let time = |info: BackupInfo| {
        // A time that is not marked as UTC is of a clock that nobody knows any more.
        let millis = info.time.is_utc().then(|| info.time.unix_millis()).flatten()?;
        DateTime::from_timestamp_millis(millis)
    };
    let mut out = LastBackups::default();
    out.full = time(header.last_full);
    out.incremental = time(header.last_incremental);
    out.differential = time(header.last_differential);
    out.copy = time(header.last_copy);
    out
}

fn copy(place: &Place, found: &Found, now: DateTime<Utc>) -> DatabaseCopy {
    let availability = Availability::unavailable(now, found.reasons.clone());
    let id = place.copy_id(found.id);
    let mut copy = DatabaseCopy::new(id, CopyRole::Active, CopyStatus::AtRest, availability);
    copy.log_folder.clone_from(&found.log_folder);
    copy.log_prefix.clone_from(&found.log_prefix);
    copy.log_state.clone_from(&found.log_state);
    copy.files = found.files.iter().map(copy_file).collect();
    copy
}
