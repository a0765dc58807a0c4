//! What a test asks a world, and what it does to it by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stillpoint_context::{HostId, HostPath, RunId};
use stillpoint_exchange::RequiredFile;
use stillpoint_model::handover::{Exposure, NativeSnapshot, Prepared};
use stillpoint_model::id::{
    CopyId, DatabaseId, HoldName, SessionId, SetToken, SnapshotId, SnapshotRef, VolumeRef,
};
use stillpoint_model::inventory::CopyRole;
use stillpoint_storage::Snapshot;

use super::World;
use super::record::{Breach, CompleteRecord, Ended, FreezeWindow, Violation};
use super::state::{Event, Flight, SetPhase, SimSnapshot};
use crate::call::{CallRecord, Calls};
use crate::change::Change;
use crate::damage::Damage;
use crate::fault::Faults;
use crate::moment::Moment;
use crate::writer::{Shape, is_log, shape};

/// What a test asks a world.
impl World {
    /// What is to go wrong.
    pub fn faults(&self) -> Faults {
        self.0.faults.clone()
    }

    /// What was called.
    pub fn calls(&self) -> Calls {
        self.0.calls.clone()
    }

    /// Damages files.
    pub fn damage(&self) -> Damage {
        Damage::of(self)
    }

    /// Lets something happen now.
    pub fn change(&self, change: &Change) {
        let order = self.0.calls.tick();
        let mut state = self.view();
        state.order = order;
        let now = state.now;
        state.change(change, now);
    }

    /// Lets something happen this much later than now.
    pub fn change_in(&self, time: Duration, change: Change) {
        let mut state = self.view();
        let due = state.now.plus(time);
        state.at(due, Event::Change(change));
    }

    /// How far it has come.
    pub fn now(&self) -> Moment {
        self.view().now
    }

    /// The database of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn database(&self, name: &str) -> DatabaseId {
        let state = self.lock();
        let found = state.databases.values().find(|known| known.info.name == name);
        assert!(found.is_some(), "there is no database named {name:?}");
        found.map_or_else(|| unreachable!("asserted"), |found| found.info.id)
    }

    /// The active copy of the database of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn active(&self, name: &str) -> CopyId {
        let database = self.database(name);
        let state = self.lock();
        let mut copies = state.copies.iter();
        let found =
            copies.find(|(id, copy)| id.database == database && copy.role == CopyRole::Active);
        assert!(found.is_some(), "the database {name:?} has no active copy");
        found.map_or_else(|| unreachable!("asserted"), |(id, _)| id.clone())
    }

    /// Every copy, in order.
    pub fn copies(&self) -> Vec<CopyId> {
        self.lock().copies.keys().cloned().collect()
    }

    /// Every host, in order.
    pub fn hosts(&self) -> Vec<HostId> {
        self.lock().hosts.keys().cloned().collect()
    }

    /// Every volume, in order.
    pub fn volumes(&self) -> Vec<VolumeRef> {
        self.lock().volumes.keys().cloned().collect()
    }

    /// The files of a copy as they are now: what a session of it would require.
    pub fn files(&self, copy: &CopyId) -> Vec<RequiredFile> {
        let mut state = self.view();
        let now = state.now;
        let files = state.copy_files(copy, now);
        files.iter().map(|file| RequiredFile::of(copy.clone(), file)).collect()
    }

    /// The bytes at a path now: of a live file, an exposed one, or a restored one.
    pub fn read(&self, path: &HostPath) -> Option<Vec<u8>> {
        self.view().read(path).map(|bytes| bytes.to_vec())
    }

    /// Every freeze, in the order in which they began.
    pub fn freeze_windows(&self) -> Vec<FreezeWindow> {
        self.view().windows.clone()
    }

    /// Whether a host is frozen now.
    pub fn is_frozen(&self, host: &HostId) -> bool {
        let open = |window: &FreezeWindow| window.host == *host && window.ended.is_none();
        self.view().windows.iter().any(open)
    }

    /// Whether the writes of a copy are held now.
    pub fn is_held(&self, copy: &CopyId) -> bool {
        self.view().copies.get(copy).is_some_and(|copy| copy.frozen_by.is_some())
    }

    /// Gives a database another name; its files stay where they are.
    pub fn rename(&self, database: DatabaseId, name: &str) {
        self.edit(|state| {
            if let Some(known) = state.databases.get_mut(&database) {
                name.clone_into(&mut known.info.name);
            }
        });
    }

    /// Freezes that last, or whose end nobody asked for before their limit: they ended by themselves alone.
    pub fn late_thaws(&self) -> Vec<FreezeWindow> {
        let late = |window: &&FreezeWindow| match window.ended {
            None | Some((_, Ended::Lease)) => true,
            Some((_, Ended::Limit)) => match (window.asked, window.limit) {
                (Some(asked), Some(limit)) => asked.mono >= limit.mono,
                _ => true,
            },
            Some(_) => false,
        };
        self.view().windows.iter().filter(late).cloned().collect()
    }

    /// Every freeze has ended, and for each the end was asked for before its limit, even if the asking failed.
    ///
    /// # Panics
    /// When that is not so; it says which.
    pub fn assert_thawed_in_time(&self) {
        let late = self.late_thaws();
        assert!(late.is_empty(), "not thawed in time: {late:#?}");
    }

    /// The calls of the same run that were under way inside a freeze, but for `freeze`, `snap` and `thaw` themselves.
    pub fn calls_inside(&self, window: &FreezeWindow) -> Vec<CallRecord> {
        let (from, until) = (window.order.0, window.order.1.unwrap_or(u64::MAX));
        let end = window.ended.map(|(end, _)| end.mono);
        self.0.calls.filtered(|call| {
            // By order, as many calls share an instant of virtual time; and by time, as a freeze that ended by itself has
            // its place in the order only when somebody looked.
            call.run == window.run
                && !matches!(call.name, "freeze" | "snap" | "thaw")
                && call.entered < until
                && call.left.is_none_or(|left| left > from)
                && end.is_none_or(|end| call.started.mono <= end)
        })
    }

    /// Pairs of freezes of one host that overlap, and freezes that were refused because another one was on: what exclusive
    /// claims are to prevent.
    pub fn overlapping_freezes(&self, host: &HostId) -> Vec<Violation> {
        let name = host.to_string();
        let of_host = |violation: &Violation| {
            violation.breach == Breach::OverlappingFreeze && violation.about == name
        };
        self.violations().into_iter().filter(of_host).collect()
    }

    /// All that callers did against the contracts.
    pub fn violations(&self) -> Vec<Violation> {
        self.view().violations.clone()
    }

    /// Every completion that took effect, in order.
    pub fn completes(&self) -> Vec<CompleteRecord> {
        self.view().completes.clone()
    }

    /// Sessions that are open: what "backup in progress" means.
    pub fn open_sessions(&self) -> Vec<SessionId> {
        let state = self.view();
        let open = state.sessions.values().filter(|session| session.phase.is_open());
        open.map(|session| session.session.id).collect()
    }

    fn described(&self, wanted: impl Fn(&SimSnapshot) -> bool) -> Vec<Snapshot> {
        let state = self.view();
        let mut found = Vec::new();
        for (volume, disk) in &state.volumes {
            for (id, _) in disk.snapshots.iter().filter(|(_, snapshot)| wanted(snapshot)) {
                found.extend(state.describe(&SnapshotRef::new(volume.clone(), id.clone())));
            }
        }
        found
    }

    /// Our snapshots, settled or not, native ones too.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.described(|snapshot| snapshot.token.is_some())
    }

    /// Others' snapshots.
    pub fn foreign_snapshots(&self) -> Vec<Snapshot> {
        self.described(|snapshot| snapshot.token.is_none())
    }

    /// Our snapshots of other tokens than these: what nobody knows of.
    pub fn orphans(&self, known: &[SetToken]) -> Vec<Snapshot> {
        self.described(|snapshot| {
            snapshot.token.as_ref().is_some_and(|token| !known.contains(token))
        })
    }

    /// Snapshots that are still to come, and when.
    pub fn in_flight(&self) -> Vec<(SetToken, VolumeRef, Moment)> {
        let state = self.view();
        let flights = state.flights.iter();
        flights
            .map(|((volume, token), flight)| (token.clone(), volume.clone(), flight.due))
            .collect()
    }

    /// Sets that were prepared and neither committed nor discarded.
    pub fn prepared_sets(&self) -> Vec<SetToken> {
        let state = self.view();
        let open = state.sets.iter().filter(|(_, set)| set.phase == SetPhase::Prepared);
        open.map(|((_, token), _)| token.clone()).collect()
    }

    /// Exposures that are open.
    pub fn exposures(&self) -> Vec<Exposure> {
        self.view().exposures.values().cloned().collect()
    }

    /// Restores at the storage that were staged and neither settled nor taken away.
    pub fn staged(&self) -> Vec<String> {
        self.view().stages.keys().map(|(_, key)| key.to_string()).collect()
    }

    /// How each copy was taken in the snapshots of a token, by their bytes: the truth, whatever the evidence says.
    pub fn shapes(&self, token: &SetToken) -> BTreeMap<CopyId, Shape> {
        let state = self.view();
        let of_volume = |volume: &VolumeRef| {
            let disk = state.volumes.get(volume)?;
            let mut all = disk.snapshots.values();
            all.find(|snapshot| snapshot.token.as_ref() == Some(token)).map(|found| (disk, found))
        };
        let mut found = BTreeMap::new();
        for (id, copy) in &state.copies {
            let (data, logs) = (of_volume(&copy.data), of_volume(&copy.logs));
            if data.is_none() && logs.is_none() {
                continue;
            }
            let database = data
                .and_then(|(disk, snapshot)| snapshot.files.get(&disk.key(&copy.database_file())))
                .map(|file| file.bytes.to_vec());
            let logs = logs.map_or_else(Vec::new, |(disk, snapshot)| {
                let folder = disk.key(&copy.log_folder()) + "/";
                let files = snapshot
                    .files
                    .iter()
                    .filter(|(key, file)| key.starts_with(&folder) && is_log(&file.bytes));
                files.map(|(_, file)| &*file.bytes).collect()
            });
            let how = database.map_or(Shape::Incomplete, |bytes| shape(&bytes, &logs));
            let _none_before = found.insert(id.clone(), how);
        }
        found
    }
}

/// What a test does to the storage by hand.
impl World {
    /// Puts a snapshot of somebody else's on a volume.
    ///
    /// # Panics
    /// When there is no such volume, or the name is no snapshot id.
    pub fn add_foreign_snapshot(&self, volume: &VolumeRef, name: &str) -> SnapshotRef {
        let id = SnapshotId::new(name);
        assert!(id.is_ok(), "{name:?} is no snapshot id");
        let id = id.unwrap_or_else(|_| unreachable!("asserted"));
        self.edit(|state| {
            let taken = state.now;
            let disk = state.volumes.get_mut(volume);
            assert!(disk.is_some(), "there is no volume {volume}");
            if let Some(disk) = disk {
                let snapshot = SimSnapshot {
                    token: None,
                    name: name.to_owned(),
                    taken,
                    files: disk.files.clone(),
                    seals: BTreeMap::new(),
                    tags: BTreeMap::new(),
                    settled: true,
                    native: false,
                    holds: BTreeSet::new(),
                    locked_until: None,
                    going: false,
                };
                disk.snapshots.insert(id.clone(), snapshot);
            }
        });
        SnapshotRef::new(volume.clone(), id)
    }

    fn on_snapshot(&self, snapshot: &SnapshotRef, act: impl FnOnce(&mut SimSnapshot)) {
        self.edit(|state| {
            let found = state.snapshot_mut(snapshot);
            assert!(found.is_some(), "there is no snapshot {snapshot}");
            if let Some(found) = found {
                act(found);
            }
        });
    }

    /// Holds a snapshot, or releases it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn hold(&self, snapshot: &SnapshotRef, held: bool) {
        let name = HoldName::new("by-hand");
        assert!(name.is_ok(), "the name of a hold");
        let name = name.unwrap_or_else(|_| unreachable!("asserted"));
        self.on_snapshot(snapshot, |snapshot| {
            if held {
                snapshot.holds.insert(name);
            } else {
                snapshot.holds.clear();
            }
        });
    }

    /// Locks a snapshot for this long from now.
    ///
    /// # Panics
    /// When it is not there.
    pub fn lock_snapshot(&self, snapshot: &SnapshotRef, time: Duration) {
        let until = self.now().plus(time).at;
        self.on_snapshot(snapshot, |snapshot| snapshot.locked_until = Some(until));
    }

    /// Puts bytes at a path, as somebody does who is no part of Exchange: in the place of what is there.
    pub fn write(&self, path: &HostPath, bytes: &[u8]) {
        self.edit(|state| state.write(path, Some(bytes.into())));
    }

    /// Takes the file at a path away.
    pub fn remove(&self, path: &HostPath) {
        self.edit(|state| state.write(path, None));
    }

    /// Snaps every volume of a prepared set at once, as a hardware provider does inside VSS. What is not prepared, or has
    /// no room, is left out.
    pub fn snap_natively(&self, prepared: &Prepared) -> Vec<NativeSnapshot> {
        self.edit(|state| {
            let now = state.now;
            let mut natives = Vec::new();
            for member in &prepared.members {
                let token = &prepared.token;
                if !state.is_prepared(&member.volume.provider, token) {
                    continue;
                }
                state.natives += 1;
                let name = format!("vss-{:04}", state.natives);
                let Ok(id) = SnapshotId::new(&name) else { continue };
                let run = RunId(uuid::Uuid::nil());
                let flight = Flight { due: now, id, run, native: true };
                state.flights.insert((member.volume.clone(), token.clone()), flight);
                state.arrive(&member.volume, token, now);
                let native =
                    NativeSnapshot::new(token.clone(), member.volume.clone(), name, now.at);
                natives.push(native);
            }
            natives
        })
    }

    /// Makes a snapshot vanish, as if an administrator had deleted it by hand.
    pub fn lose_snapshot(&self, snapshot: &SnapshotRef) {
        self.edit(|state| {
            if let Some(disk) = state.volumes.get_mut(&snapshot.volume)
                && let Some(lost) = disk.snapshots.remove(&snapshot.id)
            {
                disk.lost.insert(snapshot.id.clone(), lost);
            }
        });
    }

    /// Has a snapshot that [vanished](Self::lose_snapshot) appear again, as if it had been brought back from a mirror.
    pub fn bring_back_snapshot(&self, snapshot: &SnapshotRef) {
        self.edit(|state| {
            if let Some(disk) = state.volumes.get_mut(&snapshot.volume)
                && let Some(lost) = disk.lost.remove(&snapshot.id)
            {
                disk.snapshots.insert(snapshot.id.clone(), lost);
            }
        });
    }

    /// Fills a volume, or makes room again: `prepare` says `NoSpace`.
    pub fn fill(&self, volume: &VolumeRef, full: bool) {
        self.edit(|state| {
            if let Some(disk) = state.volumes.get_mut(volume) {
                disk.full = full;
            }
        });
    }

    /// Sets how long a snapshot of a volume takes, leaving what it states as its worst case as it is.
    pub fn slow_volume(&self, volume: &VolumeRef, commit: Duration) {
        self.edit(|state| {
            if let Some(disk) = state.volumes.get_mut(volume) {
                disk.commit = commit;
            }
        });
    }
}
