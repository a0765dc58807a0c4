//! The state of a world, and what happens in it by itself as time passes.
//!
//! Nothing here waits: whatever is due (a freeze's limit, a snapshot in flight, a lease) lies in a queue and is carried out,
//! in its order and with its own instant, before anybody looks or acts. So it happens whether or not anybody polls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{FencingToken, HostId, HostPath, PathFlavor, RunId};
use stillpoint_exchange::{Completion, RestoreSpec, Session};
use stillpoint_model::handover::{Exposure, NativeSnapshot, PreparedMember};
use stillpoint_model::id::{
    CopyId, DagId, DatabaseId, ExposureKey, HoldName, ProviderId, SessionId, SetToken, SnapshotId,
    SnapshotRef, VolumeRef,
};
use stillpoint_model::inventory::{CopyRole, CopyStatus, Dag, Database, Host, LogState};
use stillpoint_model::quiesce::{Cause, QuiesceLevel};
use stillpoint_model::seal::Seal;
use stillpoint_storage::{DocName, ProviderErrorKind, RestoreKey};

use crate::call::Side;
use crate::change::Change;
use crate::moment::Moment;
use crate::world::record::{Breach, CompleteRecord, Ended, FreezeWindow, Violation};
use crate::writer::Writer;

/// What a call brings with it when it takes effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) at: Moment,
    pub(crate) order: u64,
    /// How much later than usual what it starts comes.
    pub(crate) extra: Duration,
    pub(crate) run: RunId,
    pub(crate) fence: FencingToken,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    /// The path inside its volume, as it is written.
    pub(crate) inside: String,
    pub(crate) host: HostId,
    pub(crate) bytes: Arc<[u8]>,
}

/// Files by their path inside the volume, in lower case where the host does not tell the cases apart.
pub(crate) type Files = BTreeMap<String, File>;

#[derive(Debug, Clone)]
pub(crate) struct SimHost {
    pub(crate) info: Host,
    pub(crate) other_requester: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SimDatabase {
    pub(crate) info: Database,
    pub(crate) truncation: Option<SimTruncation>,
    /// The highest token that was seen.
    pub(crate) fence: FencingToken,
}

#[derive(Debug, Clone)]
pub(crate) struct SimTruncation {
    pub(crate) asked_at: DateTime<Utc>,
    /// The backup has what is below: nothing else goes.
    pub(crate) below: u32,
    /// `Ok` with the oldest generation that is left, or why nothing was truncated; `None` while it is to come.
    pub(crate) result: Option<Result<u32, String>>,
}

#[derive(Debug, Clone)]
pub(crate) struct SimCopy {
    pub(crate) name: String,
    pub(crate) role: CopyRole,
    pub(crate) status: CopyStatus,
    pub(crate) preference: Option<NonZeroU32>,
    pub(crate) replay_lag: Duration,
    pub(crate) truncation_lag: Duration,
    pub(crate) copy_queue: u64,
    pub(crate) replay_queue: u64,
    pub(crate) data: VolumeRef,
    pub(crate) logs: VolumeRef,
    pub(crate) prefix: String,
    pub(crate) writer: Writer,
    pub(crate) mounted: bool,
    pub(crate) frozen_by: Option<SessionId>,
    /// Closed log files below this generation have been written out.
    pub(crate) rendered_to: u32,
}

impl SimCopy {
    pub(crate) fn database_file(&self) -> String {
        format!("{0}/{0}.edb", self.name)
    }

    pub(crate) fn log_folder(&self) -> String {
        format!("{}/Logs", self.name)
    }

    pub(crate) fn closed_log(&self, generation: u32) -> String {
        format!("{}/{}{generation:08X}.log", self.log_folder(), self.prefix)
    }

    pub(crate) fn open_log(&self) -> String {
        format!("{}/{}.log", self.log_folder(), self.prefix)
    }

    pub(crate) fn checkpoint(&self) -> String {
        format!("{}/{}.chk", self.log_folder(), self.prefix)
    }
}

// Independent facts of one snapshot.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub(crate) struct SimSnapshot {
    pub(crate) token: Option<SetToken>,
    pub(crate) name: String,
    pub(crate) taken: Moment,
    pub(crate) files: Files,
    pub(crate) seals: BTreeMap<String, Seal>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) settled: bool,
    /// Made inside the plug-in and not adopted yet.
    pub(crate) native: bool,
    pub(crate) holds: BTreeSet<HoldName>,
    pub(crate) locked_until: Option<DateTime<Utc>>,
    pub(crate) going: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SimVolume {
    pub(crate) mounts: Vec<HostPath>,
    pub(crate) device: String,
    pub(crate) files: Files,
    pub(crate) snapshots: BTreeMap<SnapshotId, SimSnapshot>,
    /// Those that vanished by hand, and may be brought back.
    pub(crate) lost: BTreeMap<SnapshotId, SimSnapshot>,
    pub(crate) limit: Option<NonZeroU32>,
    pub(crate) needs: QuiesceLevel,
    /// How long a snapshot of it takes.
    pub(crate) commit: Duration,
    /// How long it says that one takes at worst.
    pub(crate) worst: Duration,
    pub(crate) full: bool,
    /// Copies that have files on it.
    pub(crate) copies: BTreeSet<CopyId>,
}

impl SimVolume {
    pub(crate) fn key(&self, inside: &str) -> String {
        let windows = self.mounts.iter().any(|mount| mount.flavor() == PathFlavor::Windows);
        if windows { inside.to_lowercase() } else { inside.to_owned() }
    }

    pub(crate) fn mount_on(&self, host: &HostId) -> Option<&HostPath> {
        self.mounts.iter().find(|mount| mount.host() == host).or_else(|| self.mounts.first())
    }

    /// The path of a place inside it, on this host.
    pub(crate) fn path(&self, inside: &str, host: &HostId) -> Option<HostPath> {
        join(self.mount_on(host)?, inside)
    }

    /// Whether a snapshot of this id is there that is not of this set.
    pub(crate) fn holds_another(&self, id: &str, token: &SetToken) -> bool {
        let mut all = self.snapshots.iter();
        all.any(|(known, snapshot)| known.as_str() == id && snapshot.token.as_ref() != Some(token))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.snapshots.len() < limit.get() as usize)
    }
}

/// `inside` below `folder`, written as its host writes paths.
pub(crate) fn join(folder: &HostPath, inside: &str) -> Option<HostPath> {
    match folder.flavor() {
        PathFlavor::Windows => folder.join(&inside.replace('/', "\\")).ok(),
        PathFlavor::Posix => folder.join(inside).ok(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetPhase {
    Prepared,
    Committed,
    Settled,
    Discarded,
}

/// A set of snapshots, from `prepare` on. Stays as a marker when it is discarded, so that a commit never brings it back.
#[derive(Debug, Clone)]
pub(crate) struct SimSet {
    /// The highest token that was seen.
    pub(crate) fence: FencingToken,
    /// Counts the prepares of one token: an older `Prepared` has expired.
    pub(crate) round: u64,
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) members: Vec<PreparedMember>,
    pub(crate) phase: SetPhase,
    pub(crate) taking: BTreeMap<VolumeRef, (SnapshotId, Moment)>,
    pub(crate) failed: Option<ProviderErrorKind>,
}

/// A snapshot that the storage is about to take.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) due: Moment,
    pub(crate) id: SnapshotId,
    pub(crate) run: RunId,
    pub(crate) native: bool,
}

/// A snapshot that was taken at some time, also if it is gone now.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) run: RunId,
    pub(crate) volume: VolumeRef,
    pub(crate) at: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Frozen,
    Snapping,
    Snapped,
    Completed(BTreeMap<CopyId, Completion>),
    Aborted,
    Lost,
}

impl Phase {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Frozen | Self::Snapping | Self::Snapped)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SimSession {
    pub(crate) session: Session,
    pub(crate) host: HostId,
    pub(crate) run: RunId,
    pub(crate) begun: Moment,
    pub(crate) lease_until: Moment,
    pub(crate) phase: Phase,
    /// Once thawed it is never frozen again (X2).
    pub(crate) thawed: bool,
    pub(crate) frozen_under: FencingToken,
    pub(crate) window: Option<usize>,
    pub(crate) breaks: BTreeMap<CopyId, Cause>,
    pub(crate) log_states: BTreeMap<CopyId, LogState>,
    pub(crate) natives: Vec<NativeSnapshot>,
    pub(crate) snap: Option<SnapPlan>,
}

/// How a `snap` that was begun will end.
#[derive(Debug, Clone)]
pub(crate) struct SnapPlan {
    pub(crate) until: Moment,
    pub(crate) in_time: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SimRestore {
    pub(crate) spec: RestoreSpec,
    pub(crate) was_mounted: bool,
    pub(crate) finished: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct StagedFile {
    pub(crate) target: HostPath,
    pub(crate) staged: HostPath,
    pub(crate) kept: Option<HostPath>,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) published: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) files: Vec<StagedFile>,
    pub(crate) replace: bool,
    /// Nothing is published any more.
    pub(crate) retracted: bool,
}

/// The effect of a call that comes late.
#[derive(Clone)]
pub(crate) struct Late {
    pub(crate) side: Side,
    pub(crate) entry: Entry,
    #[allow(clippy::type_complexity, reason = "a boxed effect is what it is")]
    pub(crate) effect: Arc<dyn Fn(&mut State, &Entry) + Send + Sync>,
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("side", &self.side).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    FreezeLimit(usize),
    SnapDone(SessionId),
    Arrive(VolumeRef, SetToken),
    LeaseEnd(SessionId),
    Truncate(DatabaseId),
    DeleteDone(SnapshotRef),
    Late(Late),
    Change(Change),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) now: Moment,
    pub(crate) order: u64,
    queue: BTreeMap<(Moment, u64), Event>,
    queued: u64,
    pub(crate) hosts: BTreeMap<HostId, SimHost>,
    pub(crate) dags: BTreeMap<DagId, Dag>,
    pub(crate) databases: BTreeMap<DatabaseId, SimDatabase>,
    pub(crate) copies: BTreeMap<CopyId, SimCopy>,
    pub(crate) volumes: BTreeMap<VolumeRef, SimVolume>,
    /// Files on no volume that a provider knows.
    pub(crate) local: BTreeMap<HostPath, Arc<[u8]>>,
    pub(crate) sets: BTreeMap<(ProviderId, SetToken), SimSet>,
    pub(crate) flights: BTreeMap<(VolumeRef, SetToken), Flight>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) exposures: BTreeMap<(ProviderId, ExposureKey), Exposure>,
    pub(crate) docs: BTreeMap<(ProviderId, DocName), Vec<u8>>,
    pub(crate) stages: BTreeMap<(ProviderId, RestoreKey), Stage>,
    pub(crate) sessions: BTreeMap<SessionId, SimSession>,
    /// Sessions that were aborted before they were begun: a late `begin` of them is refused.
    pub(crate) refused: BTreeSet<SessionId>,
    pub(crate) restores: BTreeMap<SessionId, SimRestore>,
    pub(crate) windows: Vec<FreezeWindow>,
    pub(crate) completes: Vec<CompleteRecord>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) dead: BTreeSet<Side>,
    pub(crate) unclear: Option<String>,
    /// Bits that are wrong in files of volumes, whoever writes them.
    pub(crate) flips: BTreeMap<(VolumeRef, String), BTreeSet<u64>>,
    pub(crate) natives: u64,
    pub(crate) truncation_delay: Duration,
}

impl State {
    /// Puts something on the queue.
    pub(crate) fn at(&mut self, due: Moment, event: Event) {
        self.queued += 1;
        let _none_before = self.queue.insert((due, self.queued), event);
    }

    /// Carries out all that is due. Going backwards changes nothing.
    pub(crate) fn advance(&mut self, to: Moment) {
        while let Some(((due, _), _)) = self.queue.first_key_value() {
            if due.mono > to.mono {
                break;
            }
            let Some(((due, _), event)) = self.queue.pop_first() else { break };
            self.now = self.now.max(due);
            self.carry_out(event, due);
        }
        self.now = self.now.max(to);
    }

    fn carry_out(&mut self, event: Event, due: Moment) {
        match event {
            Event::FreezeLimit(window) => self.end_window(window, due, Ended::Limit),
            Event::SnapDone(session) => self.snap_done(session, due),
            Event::Arrive(volume, token) => self.arrive(&volume, &token, due),
            Event::LeaseEnd(session) => self.lease_end(session, due),
            Event::Truncate(database) => self.truncate(database, due),
            Event::DeleteDone(snapshot) => {
                if let Some(volume) = self.volumes.get_mut(&snapshot.volume) {
                    volume.snapshots.remove(&snapshot.id);
                }
            }
            Event::Late(late) => {
                if !self.dead.contains(&late.side) {
                    let entry = Entry { at: due, order: self.order, ..late.entry };
                    (late.effect)(self, &entry);
                }
            }
            Event::Change(change) => self.change(&change, due),
        }
    }

    pub(crate) fn violate(&mut self, at: Moment, breach: Breach, about: String) {
        self.violations.push(Violation { at, breach, about });
    }

    /// Where a path lies: its volume and the place inside.
    pub(crate) fn locate(&self, path: &HostPath) -> Option<(VolumeRef, String)> {
        let mounts = self.volumes.iter().flat_map(|(id, volume)| {
            volume.mounts.iter().map(move |mount| (mount.as_str().len(), mount, id))
        });
        let holding = mounts.filter(|(_, mount, _)| path.starts_with(mount));
        let (_, mount, id) = holding.max_by_key(|(length, _, _)| *length)?;
        Some((id.clone(), path.parts_below(mount)?.join("/")))
    }

    /// Writes a file; wrong bits stay wrong.
    pub(crate) fn put(&mut self, volume: &VolumeRef, inside: &str, host: &HostId, bytes: Vec<u8>) {
        let Some(disk) = self.volumes.get_mut(volume) else { return };
        let key = disk.key(inside);
        let mut bytes = bytes;
        if let Some(flips) = self.flips.get(&(volume.clone(), key.clone())) {
            for bit in flips {
                flip(&mut bytes, *bit);
            }
        }
        let file = File { inside: inside.to_owned(), host: host.clone(), bytes: bytes.into() };
        let _before = disk.files.insert(key, file);
    }

    fn take_away(&mut self, volume: &VolumeRef, inside: &str) {
        if let Some(disk) = self.volumes.get_mut(volume) {
            let key = disk.key(inside);
            let _before = disk.files.remove(&key);
        }
    }

    /// Brings the files of a mounted copy up to `now`, as its writer has them.
    pub(crate) fn render(&mut self, id: &CopyId, now: Moment) {
        let Some(copy) = self.copies.get_mut(id).filter(|copy| copy.mounted) else { return };
        let open = copy.writer.open_generation(now);
        let from = copy.rendered_to.max(copy.writer.oldest);
        copy.rendered_to = open;
        let copy = copy.clone();
        let (data, logs, host) = (&copy.data, &copy.logs, &id.host);
        self.put(data, &copy.database_file(), host, copy.writer.database_bytes(now));
        for generation in from..open {
            let bytes = copy.writer.log_bytes(generation, now);
            self.put(logs, &copy.closed_log(generation), host, bytes);
        }
        self.put(logs, &copy.open_log(), host, copy.writer.log_bytes(open, now));
        self.put(logs, &copy.checkpoint(), host, copy.writer.checkpoint_bytes(now));
    }

    pub(crate) fn render_volume(&mut self, volume: &VolumeRef, now: Moment) {
        let copies = self.volumes.get(volume).map(|disk| disk.copies.clone()).unwrap_or_default();
        for copy in &copies {
            self.render(copy, now);
        }
    }

    /// Deletes the log files of a copy below a generation.
    pub(crate) fn delete_logs(&mut self, id: &CopyId, below: u32) {
        let Some(copy) = self.copies.get_mut(id) else { return };
        let from = copy.writer.oldest;
        copy.writer.oldest = copy.writer.oldest.max(below);
        let copy = copy.clone();
        for generation in from..below {
            self.take_away(&copy.logs, &copy.closed_log(generation));
        }
    }

    /// The bytes at a path: in an exposure, on a volume, or elsewhere.
    pub(crate) fn read(&mut self, path: &HostPath) -> Option<Arc<[u8]>> {
        if let Some(bytes) = self.local.get(path) {
            return Some(Arc::clone(bytes));
        }
        if let Some((files, inside, windows)) = self.exposed(path) {
            let key = if windows { inside.to_lowercase() } else { inside };
            return files.get(&key).map(|file| Arc::clone(&file.bytes));
        }
        let (volume, inside) = self.locate(path)?;
        self.render_volume(&volume, self.now);
        let disk = self.volumes.get(&volume)?;
        disk.files.get(&disk.key(&inside)).map(|file| Arc::clone(&file.bytes))
    }

    /// The snapshot's files and the place inside it that an exposed path shows.
    fn exposed(&self, path: &HostPath) -> Option<(&Files, String, bool)> {
        let roots = self.exposures.values().flat_map(|exposure| &exposure.roots);
        let root = roots
            .filter(|root| path.starts_with(&root.exposed))
            .max_by_key(|root| root.exposed.as_str().len())?;
        let files = &self.snapshot(&root.snapshot)?.files;
        let windows = root.original.flavor() == PathFlavor::Windows;
        Some((files, path.parts_below(&root.exposed)?.join("/"), windows))
    }

    /// The files in a folder of an exposure.
    pub(crate) fn exposed_folder(&self, folder: &HostPath) -> Vec<(String, Arc<[u8]>)> {
        let Some((files, inside, windows)) = self.exposed(folder) else { return Vec::new() };
        let start = if windows { inside.to_lowercase() } else { inside } + "/";
        let below = files
            .iter()
            .filter(|(key, _)| key.strip_prefix(&start).is_some_and(|name| !name.contains('/')));
        below.map(|(_, file)| (file.inside.clone(), Arc::clone(&file.bytes))).collect()
    }

    /// Puts bytes at a path, or takes them away.
    pub(crate) fn write(&mut self, path: &HostPath, bytes: Option<Arc<[u8]>>) {
        match (self.locate(path), bytes) {
            (Some((volume, inside)), Some(bytes)) => {
                self.put(&volume, &inside, path.host(), bytes.to_vec());
            }
            (Some((volume, inside)), None) => self.take_away(&volume, &inside),
            (None, Some(bytes)) => drop(self.local.insert(path.clone(), bytes)),
            (None, None) => drop(self.local.remove(path)),
        }
    }

    pub(crate) fn snapshot(&self, id: &SnapshotRef) -> Option<&SimSnapshot> {
        self.volumes.get(&id.volume)?.snapshots.get(&id.id)
    }

    pub(crate) fn snapshot_mut(&mut self, id: &SnapshotRef) -> Option<&mut SimSnapshot> {
        self.volumes.get_mut(&id.volume)?.snapshots.get_mut(&id.id)
    }
}

pub(crate) fn flip(bytes: &mut [u8], bit: u64) {
    let byte = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if let Some(byte) = bytes.get_mut(byte) {
        *byte ^= 1 << (bit % 8);
    }
}
