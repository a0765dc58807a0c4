//! Sessions of a world: what may be backed up, begin, lease, abort.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_context::{HostId, Subject};
use stillpoint_exchange::{
    ClosedLogs, PluginCaps, PluginError, PluginErrorKind, PluginResult, RequiredFile, Session,
    SessionSpec, SessionState,
};
use stillpoint_model::availability::{Availability, Reason};
use stillpoint_model::id::{CopyId, DatabaseId, SessionId, VolumeRef};
use stillpoint_model::inventory::{
    CopyFile, CopyRole, FileRole, Fitness, Generation, HostState, WriterState,
};
use stillpoint_model::kind::BackupKind;

use super::record::{Breach, Ended};
use super::state::{Entry, Event, Phase, SimHost, SimRestore, SimSession, State};
use crate::moment::Moment;

pub(super) fn refuse(kind: PluginErrorKind, message: impl Into<String>) -> PluginError {
    PluginError::new(kind, message).without_effect()
}

pub(super) fn gone(id: SessionId) -> PluginError {
    refuse(PluginErrorKind::SessionGone, format!("session {id} is not open"))
        .with_subject(Subject::new("session", id))
}

impl State {
    /// Why a copy cannot be backed up.
    pub(crate) fn availability(&self, id: &CopyId, at: Moment) -> Availability {
        let mut reasons = Vec::new();
        if let Some(host) = self.hosts.get(&id.host) {
            let host_id = id.host.clone();
            match &host.info.state {
                HostState::Offline => reasons.push(Reason::HostOffline { host: host_id.clone() }),
                HostState::Maintenance { reason, .. } => reasons.push(Reason::HostMaintenance {
                    host: host_id.clone(),
                    reason: reason.clone(),
                }),
                _ => {}
            }
            match &host.info.writer {
                WriterState::Missing => reasons.push(Reason::WriterMissing { host: host_id }),
                WriterState::Failed { phase } => {
                    reasons.push(Reason::WriterFailed { host: host_id, state: phase.clone() });
                }
                _ => {}
            }
        }
        if let Some(copy) = self.copies.get(id) {
            if copy.role == CopyRole::Active && !copy.mounted {
                reasons.push(Reason::NotMounted);
            } else if copy.status.fitness() != Fitness::Fit {
                reasons.push(Reason::CopyStatus { status: copy.status });
            }
        }
        if let Some(database) = self.databases.get(&id.database) {
            if database.info.recovery {
                reasons.push(Reason::RecoveryDatabase);
            }
            if self.in_backup(id.database).is_some() {
                reasons.push(Reason::BackupInProgress);
            }
            if let Some(restore) = self.in_restore(id.database) {
                reasons.push(Reason::HeldByRestore { holder: restore.to_string() });
            }
        }
        Availability::unavailable(at.at, reasons)
    }

    /// The open session that backs up a database.
    pub(crate) fn in_backup(&self, database: DatabaseId) -> Option<SessionId> {
        let holds = |session: &&SimSession| {
            session.phase.is_open()
                && session.session.copies.iter().any(|copy| copy.database == database)
        };
        self.sessions.values().find(holds).map(|session| session.session.id)
    }

    pub(crate) fn in_restore(&self, database: DatabaseId) -> Option<SessionId> {
        let holds = |restore: &&SimRestore| {
            !restore.finished && restore.spec.in_place && restore.spec.database == database
        };
        self.restores.values().find(holds).map(|restore| restore.spec.id)
    }

    /// The files of a copy as they are now.
    pub(crate) fn copy_files(&mut self, id: &CopyId, now: Moment) -> Vec<CopyFile> {
        self.render(id, now);
        let Some(copy) = self.copies.get(id) else { return Vec::new() };
        let mut files = Vec::new();
        let mut add =
            |volume: &VolumeRef, inside: &str, role: FileRole, generation: Option<u32>| {
                let Some(disk) = self.volumes.get(volume) else { return };
                let Some(file) = disk.files.get(&disk.key(inside)) else { return };
                let Some(path) = disk.path(inside, &id.host) else { return };
                let mut found = CopyFile::new(path, role).with_bytes(file.bytes.len() as u64);
                found.generation = generation.map(Generation);
                files.push(found);
            };
        add(&copy.data, &copy.database_file(), FileRole::Database, None);
        for generation in copy.writer.oldest..copy.writer.open_generation(now) {
            add(&copy.logs, &copy.closed_log(generation), FileRole::Log, Some(generation));
        }
        add(&copy.logs, &copy.open_log(), FileRole::Log, None);
        add(&copy.logs, &copy.checkpoint(), FileRole::Checkpoint, None);
        files
    }

    /// The closed logs of a copy: whoever asks for them has them flushed.
    pub(crate) fn closed_logs(&mut self, id: &CopyId, now: Moment) -> PluginResult<ClosedLogs> {
        let _reachable = self.check_reachable(&id.host)?;
        let closed = self.copy_files(id, now).into_iter().filter(|file| file.generation.is_some());
        let files = closed.collect();
        let Some(copy) = self.copies.get(id) else {
            return Err(refuse(PluginErrorKind::NotFound, format!("there is no copy {id}")));
        };
        Ok(ClosedLogs::new(copy.writer.closed_state(now), files))
    }

    pub(super) fn check_fence(
        &mut self,
        entry: &Entry,
        caps: &PluginCaps,
        copies: &[CopyId],
    ) -> PluginResult<()> {
        if !caps.fencing {
            return Ok(());
        }
        for copy in copies {
            let Some(database) = self.databases.get_mut(&copy.database) else { continue };
            if entry.fence < database.fence {
                let about = copy.to_string();
                self.violate(entry.at, Breach::OldToken, about);
                let message = format!("token {} is older than one that was seen", entry.fence);
                return Err(refuse(PluginErrorKind::Fenced, message));
            }
            database.fence = entry.fence;
        }
        Ok(())
    }

    fn check_reachable(&self, host: &HostId) -> PluginResult<&SimHost> {
        let Some(host) = self.hosts.get(host) else {
            return Err(refuse(PluginErrorKind::NotFound, format!("there is no server {host}")));
        };
        if host.info.state == HostState::Offline {
            return Err(refuse(
                PluginErrorKind::Unreachable,
                format!("{} is offline", host.info.id),
            ));
        }
        Ok(host)
    }

    pub(super) fn check_host(&self, host: &HostId) -> PluginResult<()> {
        let host = self.check_reachable(host)?;
        match &host.info.writer {
            WriterState::Missing => {
                return Err(refuse(
                    PluginErrorKind::WriterMissing,
                    "the Exchange writer is missing",
                ));
            }
            WriterState::Failed { phase } => {
                let kind = PluginErrorKind::WriterFailed {
                    state: phase.clone(),
                    hresult: None,
                    retryable: false,
                };
                return Err(refuse(kind, format!("the Exchange writer failed ({phase})")));
            }
            _ => {}
        }
        if host.other_requester {
            let message = "another backup tool has a snapshot set in progress";
            return Err(refuse(PluginErrorKind::BusyOtherRequester, message)
                .with_retry_after(Duration::from_mins(1)));
        }
        Ok(())
    }

    pub(crate) fn begin(
        &mut self,
        entry: &Entry,
        spec: &SessionSpec,
        caps: &PluginCaps,
    ) -> PluginResult<Session> {
        if let Some(known) = self.sessions.get_mut(&spec.id) {
            if !known.phase.is_open() {
                return Err(gone(spec.id));
            }
            let until = entry.at.plus(spec.lease);
            known.lease_until = until;
            known.session.lease_until = until.at;
            let session = known.session.clone();
            self.at(until, Event::LeaseEnd(spec.id));
            return Ok(session);
        }
        if self.refused.contains(&spec.id) {
            return Err(gone(spec.id));
        }
        if !caps.kinds.contains(&spec.kind) || spec.kind == BackupKind::Log {
            return Err(PluginError::unsupported("kind"));
        }
        if caps.max_databases.is_some_and(|most| spec.copies.len() > most.get() as usize) {
            return Err(PluginError::unsupported("max_databases"));
        }
        let host = match spec.copies.as_slice() {
            [] => return Err(refuse(PluginErrorKind::Invalid, "a session needs a copy")),
            [first, rest @ ..] if rest.iter().all(|copy| copy.host == first.host) => &first.host,
            _ => {
                let message = "the copies of a session are all of one server";
                return Err(refuse(PluginErrorKind::Invalid, message));
            }
        };
        self.check_fence(entry, caps, &spec.copies)?;
        self.check_host(host)?;
        for copy in &spec.copies {
            if !self.copies.contains_key(copy) {
                return Err(refuse(PluginErrorKind::NotFound, format!("there is no copy {copy}")));
            }
            if self.in_backup(copy.database).is_some() {
                self.violate(entry.at, Breach::OverlappingBackup, copy.to_string());
            }
            if self.in_restore(copy.database).is_some() {
                self.violate(entry.at, Breach::BackupDuringRestore, copy.to_string());
            }
            let availability = self.availability(copy, entry.at);
            if let Some(reason) = availability.reasons.first() {
                return Err(refuse(PluginErrorKind::NotAvailable, format!("{copy}: {reason}"))
                    .with_subject(Subject::new("copy", copy)));
            }
        }
        let files = spec.copies.iter().flat_map(|copy| {
            let files = self.copy_files(copy, entry.at);
            files.into_iter().map(move |file| RequiredFile::of(copy.clone(), &file))
        });
        let files: Vec<_> = files.collect();
        let lease_until = entry.at.plus(spec.lease);
        let session = Session::new(spec, files, lease_until.at);
        let known = SimSession {
            session: session.clone(),
            host: host.clone(),
            run: entry.run,
            begun: entry.at,
            lease_until,
            phase: Phase::Open,
            thawed: false,
            frozen_under: entry.fence,
            window: None,
            breaks: BTreeMap::new(),
            log_states: BTreeMap::new(),
            natives: Vec::new(),
            snap: None,
        };
        self.sessions.insert(spec.id, known);
        self.at(lease_until, Event::LeaseEnd(spec.id));
        Ok(session)
    }

    pub(crate) fn session_state(&self, id: SessionId) -> SessionState {
        let Some(session) = self.sessions.get(&id) else { return SessionState::Unknown };
        let until = session.window.and_then(|window| self.windows.get(window)?.limit);
        match &session.phase {
            Phase::Open => SessionState::Open,
            Phase::Frozen | Phase::Snapping => {
                SessionState::Frozen { until: until.map(|until| until.at) }
            }
            Phase::Snapped => SessionState::Snapped(session.natives.clone()),
            Phase::Completed(answers) => SessionState::Completed(answers.clone()),
            Phase::Aborted => SessionState::Aborted,
            Phase::Lost => SessionState::Lost,
        }
    }

    pub(crate) fn renew(
        &mut self,
        entry: &Entry,
        id: SessionId,
        lease: Duration,
    ) -> PluginResult<()> {
        let open = |session: &&mut SimSession| session.phase.is_open();
        let session = self.sessions.get_mut(&id).filter(open).ok_or_else(|| gone(id))?;
        let until = entry.at.plus(lease);
        session.lease_until = until;
        session.session.lease_until = until.at;
        self.at(until, Event::LeaseEnd(id));
        Ok(())
    }

    pub(crate) fn lease_end(&mut self, id: SessionId, due: Moment) {
        let ended =
            |session: &&SimSession| session.phase.is_open() && session.lease_until.mono <= due.mono;
        let Some(session) = self.sessions.get(&id).filter(ended) else { return };
        if let Some(window) = session.window {
            self.end_window(window, due, Ended::Lease);
        }
        self.set_phase(id, Phase::Aborted);
    }

    pub(super) fn set_phase(&mut self, id: SessionId, phase: Phase) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.phase = phase;
        }
    }

    pub(crate) fn abort(&mut self, entry: &Entry, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            let _new = self.refused.insert(id);
            return;
        };
        session.thawed = true;
        if matches!(session.phase, Phase::Completed(_)) {
            self.violate(entry.at, Breach::AbortAfterComplete, id.to_string());
            return;
        }
        let window = session.window;
        if session.phase.is_open() {
            session.phase = Phase::Aborted;
        }
        if let Some(window) = window {
            self.end_window(window, entry.at, Ended::Abort);
        }
    }
}
