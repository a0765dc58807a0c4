//! What happens to servers, writers and copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use stillpoint_context::HostId;
use stillpoint_model::id::{CopyId, DatabaseId};
use stillpoint_model::inventory::{CopyRole, CopyStatus, HostState, WriterState};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::quiesce::Cause;

use super::record::Ended;
use super::state::{Phase, SimCopy, SimSession, State};
use crate::call::Side;
use crate::change::Change;
use crate::moment::Moment;
use crate::writer::{LogFile, read_log, read_pages};

impl State {
    /// Breaks the freezes that concern some copies, and says why.
    fn break_freeze(&mut self, cause: &Cause, concerns: impl Fn(&CopyId) -> bool) {
        for session in self.sessions.values_mut().filter(|session| session.phase.is_open()) {
            for copy in session.session.copies.iter().filter(|copy| concerns(copy)) {
                session.breaks.entry(copy.clone()).or_insert_with(|| cause.clone());
            }
        }
    }

    fn end_windows_of(&mut self, host: &HostId, at: Moment, how: Ended) {
        for index in 0..self.windows.len() {
            if self.windows.get(index).is_some_and(|window| window.host == *host) {
                self.end_window(index, at, how);
            }
        }
    }

    /// Mounts a copy from the files that are there, replaying the logs that follow on its database without a gap; what lies
    /// beyond a gap is deleted. `false` when the database is missing or damaged.
    pub(crate) fn mount(&mut self, id: &CopyId, at: Moment) -> bool {
        let Some(copy) = self.copies.get(id) else { return false };
        if copy.mounted {
            return true;
        }
        let copy = copy.clone();
        let bytes = self.volumes.get(&copy.data).and_then(|disk| {
            let file = disk.files.get(&disk.key(&copy.database_file()))?;
            Some(Arc::clone(&file.bytes))
        });
        let pages = bytes.map(|bytes| read_pages(&bytes)).unwrap_or_default();
        let Some(pages) = pages.into_iter().collect::<Option<Vec<u64>>>() else { return false };
        let (Some(oldest), Some(newest)) = (pages.iter().min(), pages.iter().max()) else {
            return false;
        };
        let logs = self.logs_on_disk(&copy);
        // Recovery finishes the transaction that was under way, then goes on as far as there are logs.
        let (mut done, mut next) = (*newest, copy.writer.generation_of(*oldest));
        while let Some(log) = logs.get(&next) {
            done = done.max(log.last);
            next = next.saturating_add(1);
        }
        let first = (1..next).rev().take_while(|generation| logs.contains_key(generation)).last();
        let foreign = done != copy.writer.base;
        if let Some(disk) = self.volumes.get_mut(&copy.logs) {
            for generation in logs.into_keys().filter(|generation| *generation >= next) {
                let key = disk.key(&copy.closed_log(generation));
                let _beyond_a_gap = disk.files.remove(&key);
            }
        }
        let Some(copy) = self.copies.get_mut(id) else { return false };
        if foreign {
            // Other files than it had: a new log stream begins.
            copy.writer.signature.0[0] = copy.writer.signature.0[0].wrapping_add(1);
            copy.writer.base = done;
        }
        copy.writer.oldest = first.unwrap_or_else(|| copy.writer.generation_of(done)).max(1);
        copy.rendered_to = copy.writer.oldest;
        copy.mounted = true;
        copy.status = match copy.role {
            CopyRole::Active => CopyStatus::Mounted,
            CopyRole::Passive => CopyStatus::Healthy,
        };
        copy.writer.run(at);
        true
    }

    /// The readable logs of a copy, by generation.
    fn logs_on_disk(&self, copy: &SimCopy) -> BTreeMap<u32, LogFile> {
        let Some(disk) = self.volumes.get(&copy.logs) else { return BTreeMap::new() };
        let folder = disk.key(&copy.log_folder()) + "/";
        let files = disk.files.iter().filter(|(key, _)| key.starts_with(&folder));
        let logs = files.filter_map(|(_, file)| read_log(&file.bytes));
        logs.map(|log| (log.generation, log)).collect()
    }

    pub(crate) fn dismount(&mut self, id: &CopyId, at: Moment) {
        let Some(copy) = self.copies.get_mut(id).filter(|copy| copy.mounted) else { return };
        copy.writer.stop(at);
        self.render(id, at);
        if let Some(copy) = self.copies.get_mut(id) {
            copy.mounted = false;
            copy.frozen_by = None;
            copy.status = CopyStatus::Dismounted;
        }
    }

    fn fail_over(&mut self, database: DatabaseId, to: &HostId, at: Moment) {
        let target = CopyId::new(database, to.clone());
        if !self.copies.contains_key(&target) {
            return;
        }
        self.break_freeze(&Cause::Failover, |copy| copy.database == database);
        for (id, copy) in self.copies.iter_mut().filter(|(id, _)| id.database == database) {
            copy.role = if *id == target { CopyRole::Active } else { CopyRole::Passive };
            if copy.mounted {
                copy.status = if *id == target { CopyStatus::Mounted } else { CopyStatus::Healthy };
                copy.frozen_by = None;
                copy.writer.run(at);
            }
        }
    }

    /// Something happens.
    pub(crate) fn change(&mut self, change: &Change, at: Moment) {
        let on = |host: &HostId| {
            let host = host.clone();
            move |copy: &CopyId| copy.host == host
        };
        match change {
            Change::FailOver { database, to } => self.fail_over(*database, to, at),
            Change::Dismount(copy) => {
                self.break_freeze(&Cause::Dismounted, |other| other == copy);
                self.dismount(copy, at);
            }
            Change::Mount(copy) => {
                let _mounted = self.mount(copy, at);
            }
            Change::Status { copy, status } => {
                if let Some(copy) = self.copies.get_mut(copy) {
                    copy.status = *status;
                }
            }
            Change::LoseHost(host) => {
                self.break_freeze(&Cause::HostLost, on(host));
                self.end_windows_of(host, at, Ended::Broken);
                self.lose_sessions(|session| session.host == *host);
                self.set_host(host, HostState::Offline);
            }
            Change::RestoreHost(host) => self.set_host(host, HostState::Online),
            Change::Maintain(host) => {
                let state = HostState::Maintenance { reason: "planned".to_owned(), until: None };
                self.set_host(host, state);
            }
            Change::FailWriter { host, state } => {
                self.break_freeze(&Cause::WriterFailed { state: state.clone() }, on(host));
                self.end_windows_of(host, at, Ended::Broken);
                self.set_writer(host, WriterState::Failed { phase: state.clone() });
            }
            Change::RemoveWriter(host) => self.set_writer(host, WriterState::Missing),
            Change::RepairWriter(host) => self.set_writer(host, WriterState::Stable),
            Change::OtherRequester(host) => self.set_requester(host, true),
            Change::OtherRequesterGone(host) => self.set_requester(host, false),
            Change::ForeignBackup(database) => {
                self.note_backup(at, *database, BackupKind::FullAndLog, None);
            }
            Change::DeleteLogs { copy, below } => {
                self.render(copy, at);
                self.delete_logs(copy, below.0);
            }
            Change::ThawByOperator(host) => self.end_windows_of(host, at, Ended::Operator),
            Change::CompletionsUnclear(reason) => self.unclear = Some(reason.clone()),
            Change::Die(side) => {
                let _new = self.dead.insert(*side);
                if *side == Side::Exchange {
                    self.lose_sessions(|_| true);
                }
            }
            Change::Revive(side) => {
                let _was = self.dead.remove(side);
            }
            Change::PowerCut => {
                for disk in self.volumes.values_mut() {
                    disk.snapshots
                        .retain(|_, snapshot| snapshot.settled || snapshot.token.is_none());
                }
                self.flights.clear();
            }
        }
    }

    /// What sessions need is gone. A freeze goes on until its own limit.
    fn lose_sessions(&mut self, which: impl Fn(&SimSession) -> bool) {
        let open = |session: &&mut SimSession| session.phase.is_open();
        for session in self.sessions.values_mut().filter(open).filter(|session| which(session)) {
            session.phase = Phase::Lost;
        }
    }

    fn set_host(&mut self, host: &HostId, state: HostState) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.info.state = state;
        }
    }

    fn set_writer(&mut self, host: &HostId, state: WriterState) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.info.writer = state;
        }
    }

    fn set_requester(&mut self, host: &HostId, active: bool) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.other_requester = active;
        }
    }
}
