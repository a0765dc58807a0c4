//! The Exchange side of a world: sessions, freezes, evidence, completion, truncation, and what happens to servers.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_context::{HostId, Subject};
use stillpoint_exchange::{
    Completion, Coordination, Frozen, PluginCaps, PluginError, PluginErrorKind, PluginResult,
    RequiredFile, Session, SessionSpec, SessionState, Truncation,
};
use stillpoint_model::availability::{Availability, Reason};
use stillpoint_model::evidence::{CopyEvidence, Document, EvidenceGrain, SetOutcome};
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, DatabaseId, SessionId, SnapshotId};
use stillpoint_model::inventory::{
    CopyFile, CopyRole, CopyStatus, FileRole, Fitness, Generation, HostState, WriterState,
};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::quiesce::{Cause, Held};
use stillpoint_model::verdict::Verdict;

use super::record::{Breach, CompleteRecord, Ended, FreezeWindow};
use super::state::{
    Entry, Event, Flight, Phase, SimCopy, SimSession, SimTruncation, SnapPlan, State,
};
use crate::call::Side;
use crate::change::Change;
use crate::moment::Moment;

fn refuse(kind: PluginErrorKind, message: impl Into<String>) -> PluginError {
    PluginError::new(kind, message).without_effect()
}

fn gone(id: SessionId) -> PluginError {
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
        let holds = |restore: &&super::state::SimRestore| {
            !restore.finished && restore.spec.in_place && restore.spec.database == database
        };
        self.restores.values().find(holds).map(|restore| restore.spec.id)
    }

    /// The files of a copy as they are now.
    pub(crate) fn copy_files(&mut self, id: &CopyId, now: Moment) -> Vec<CopyFile> {
        self.render(id, now);
        let Some(copy) = self.copies.get(id) else { return Vec::new() };
        let mut files = Vec::new();
        let mut add = |volume: &stillpoint_model::id::VolumeRef,
                       inside: &str,
                       role: FileRole,
                       generation: Option<u32>| {
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

    fn check_fence(
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

    fn check_host(&self, host: &HostId) -> PluginResult<()> {
        let Some(host) = self.hosts.get(host) else {
            return Err(refuse(PluginErrorKind::NotFound, format!("there is no server {host}")));
        };
        if host.info.state == HostState::Offline {
            return Err(refuse(
                PluginErrorKind::Unreachable,
                format!("{} is offline", host.info.id),
            ));
        }
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

    fn set_phase(&mut self, id: SessionId, phase: Phase) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.phase = phase;
        }
    }

    /// Checks that a session may be frozen now. An answer instead of a check: it is frozen already.
    fn may_freeze(&mut self, entry: &Entry, id: SessionId, caps: &PluginCaps) -> PluginResult<()> {
        let session = self.sessions.get(&id).ok_or_else(|| gone(id))?;
        if !matches!(session.phase, Phase::Open) {
            return Err(gone(id));
        }
        if session.thawed {
            let message = format!("session {id} was thawed already");
            return Err(refuse(PluginErrorKind::Superseded, message));
        }
        let (host, copies) = (session.host.clone(), session.session.copies.clone());
        self.check_fence(entry, caps, &copies)?;
        self.check_host(&host)?;
        if self.windows.iter().any(|window| window.host == host && window.ended.is_none()) {
            self.violate(entry.at, Breach::OverlappingFreeze, host.to_string());
            let message = format!("{host} is frozen for another session");
            return Err(refuse(PluginErrorKind::BusyOtherRequester, message));
        }
        if let Some(copy) = copies.iter().find(|copy| !self.writes(copy)) {
            let kind = PluginErrorKind::WriterFailed {
                state: "FailedAtFreeze".to_owned(),
                hresult: Some(0x8004_23f4),
                retryable: false,
            };
            return Err(refuse(kind, format!("{copy} is not mounted")));
        }
        Ok(())
    }

    fn writes(&self, copy: &CopyId) -> bool {
        self.copies.get(copy).is_some_and(|copy| copy.mounted)
    }

    /// Quiesces the copies of a session.
    fn open_window(
        &mut self,
        entry: &Entry,
        id: SessionId,
        limit: Option<Duration>,
    ) -> Option<usize> {
        let index = self.windows.len();
        let session = self.sessions.get_mut(&id)?;
        session.window = Some(index);
        session.frozen_under = entry.fence;
        let window = FreezeWindow {
            host: session.host.clone(),
            session: id,
            run: entry.run,
            copies: session.session.copies.clone(),
            from: entry.at,
            limit: limit.map(|limit| entry.at.plus(limit)),
            asked: None,
            ended: None,
            order: (entry.order, None),
        };
        for copy_id in &window.copies {
            let Some(copy) = self.copies.get_mut(copy_id) else { continue };
            copy.writer.stop(entry.at);
            copy.frozen_by = Some(id);
            let state = copy.writer.log_state(entry.at);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.log_states.insert(copy_id.clone(), state);
            }
        }
        if let Some(limit) = window.limit {
            self.at(limit, Event::FreezeLimit(index));
        }
        self.windows.push(window);
        Some(index)
    }

    /// Ends a freeze, if it has not ended; what was frozen goes on writing.
    pub(crate) fn end_window(&mut self, index: usize, at: Moment, how: Ended) {
        let order = self.order;
        let Some(window) = self.windows.get_mut(index).filter(|window| window.ended.is_none())
        else {
            return;
        };
        window.ended = Some((at, how));
        window.order.1 = Some(order);
        if how == Ended::Thaw || how == Ended::Abort {
            window.asked.get_or_insert(at);
        }
        let (id, copies) = (window.session, window.copies.clone());
        for copy in copies {
            let frozen = |copy: &&mut SimCopy| copy.frozen_by == Some(id);
            if let Some(copy) = self.copies.get_mut(&copy).filter(frozen) {
                copy.frozen_by = None;
                if copy.mounted {
                    copy.writer.run(at);
                }
            }
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.thawed = true;
            if session.phase == Phase::Frozen {
                session.phase = Phase::Open;
            }
        }
    }

    pub(crate) fn freeze(
        &mut self,
        entry: &Entry,
        id: SessionId,
        limit: Option<Duration>,
        caps: &PluginCaps,
    ) -> PluginResult<Frozen> {
        if !caps.coordination.contains(&Coordination::Engine) {
            return Err(PluginError::unsupported("freeze"));
        }
        let known = self.sessions.get(&id).ok_or_else(|| gone(id))?;
        if let (Phase::Frozen, Some(window)) = (&known.phase, known.window) {
            let window = self.windows.get(window).ok_or_else(|| gone(id))?;
            return Ok(Frozen::new(window.from.at, caps.quiesce, window.limit.map(|at| at.at)));
        }
        self.may_freeze(entry, id, caps)?;
        let limit = match (limit, caps.shortest_limit()) {
            (Some(asked), Some(own)) => Some(asked.min(own)),
            (asked, own) => asked.or(own),
        };
        let _window = self.open_window(entry, id, limit);
        self.set_phase(id, Phase::Frozen);
        let until = limit.map(|limit| entry.at.plus(limit).at);
        Ok(Frozen::new(entry.at.at, caps.quiesce, until))
    }

    /// Notes that somebody wants a freeze to end.
    pub(crate) fn note_asked(&mut self, id: SessionId, at: Moment) {
        let window = self.sessions.get(&id).and_then(|session| session.window);
        if let Some(window) = window.and_then(|window| self.windows.get_mut(window)) {
            window.asked.get_or_insert(at);
        }
    }

    pub(crate) fn thaw(
        &mut self,
        entry: &Entry,
        id: SessionId,
        caps: &PluginCaps,
    ) -> PluginResult<()> {
        if !caps.coordination.contains(&Coordination::Engine) {
            return Err(PluginError::unsupported("freeze"));
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if caps.fencing && entry.fence < session.frozen_under {
            self.violate(entry.at, Breach::OldToken, id.to_string());
            let message = "the freeze was made under a newer token".to_owned();
            return Err(refuse(PluginErrorKind::Fenced, message));
        }
        session.thawed = true;
        if let (Phase::Frozen, Some(window)) = (&session.phase, session.window) {
            self.end_window(window, entry.at, Ended::Thaw);
        }
        Ok(())
    }

    /// Freezes, starts the native snapshots and fixes when the thaw comes, all at once: nothing that the caller does or
    /// leaves undone changes what happens inside VSS.
    pub(crate) fn snap(
        &mut self,
        entry: &Entry,
        id: SessionId,
        prepared: &[Prepared],
        caps: &PluginCaps,
    ) -> PluginResult<SnapPlan> {
        if !caps.coordination.contains(&Coordination::Plugin) {
            return Err(PluginError::unsupported("snap"));
        }
        let known = self.sessions.get(&id).ok_or_else(|| gone(id))?;
        if let (Phase::Snapping | Phase::Snapped, Some(plan)) = (&known.phase, &known.snap) {
            return Ok(plan.clone());
        }
        let members: Vec<_> = prepared
            .iter()
            .flat_map(|set| set.members.iter().map(|member| (set.token.clone(), member.clone())))
            .collect();
        if members.is_empty() {
            return Err(refuse(PluginErrorKind::Invalid, "there is nothing to snap"));
        }
        if caps.max_volumes.is_some_and(|most| members.len() > most.get() as usize) {
            return Err(PluginError::unsupported("max_volumes"));
        }
        for (token, member) in &members {
            let ready = self.volumes.contains_key(&member.volume)
                && self.is_prepared(&member.volume.provider, token);
            if !ready {
                let message = format!("no provider is ready to snap {}", member.volume);
                return Err(refuse(PluginErrorKind::ProviderVeto, message));
            }
        }
        self.may_freeze(entry, id, caps)?;
        let limit = caps.shortest_limit();
        let window = self.open_window(entry, id, limit);
        let mut natives = Vec::new();
        let mut until = entry.at;
        for (token, member) in members {
            let takes =
                self.volumes.get(&member.volume).map(|disk| disk.commit).unwrap_or_default();
            let due = entry.at.plus(takes + entry.extra);
            until = until.max(due);
            self.natives += 1;
            let name = format!("vss-{:04}", self.natives);
            let Ok(native) = SnapshotId::new(&name) else { continue };
            let flight = Flight { due, id: native, run: entry.run, native: true };
            self.flights.insert((member.volume.clone(), token.clone()), flight);
            self.at(due, Event::Arrive(member.volume.clone(), token.clone()));
            natives.push(NativeSnapshot::new(token, member.volume, name, due.at));
        }
        let in_time = limit.is_none_or(|limit| until.since(entry.at) < limit);
        if !in_time && let Some(limit) = limit {
            until = entry.at.plus(limit);
        }
        let plan = SnapPlan { until, in_time };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.phase = Phase::Snapping;
            session.natives = natives;
            session.snap = Some(plan.clone());
            session.window = window;
        }
        self.at(until, Event::SnapDone(id));
        Ok(plan)
    }

    pub(crate) fn snap_done(&mut self, id: SessionId, at: Moment) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.phase != Phase::Snapping {
            return;
        }
        let in_time = session.snap.as_ref().is_some_and(|plan| plan.in_time);
        session.phase = if in_time { Phase::Snapped } else { Phase::Open };
        if let Some(window) = session.window {
            self.end_window(window, at, if in_time { Ended::Thaw } else { Ended::Limit });
        }
    }

    /// What a `snap` that has come to its end answers.
    pub(crate) fn snapped(&self, id: SessionId) -> PluginResult<Vec<NativeSnapshot>> {
        let session = self.sessions.get(&id).ok_or_else(|| gone(id))?;
        match session.phase {
            Phase::Snapped | Phase::Completed(_) => {
                let broken = session.breaks.values().next();
                match broken {
                    Some(cause) => {
                        let kind = PluginErrorKind::WriterFailed {
                            state: "FailedAtThaw".to_owned(),
                            hresult: None,
                            retryable: true,
                        };
                        Err(PluginError::new(kind, format!("the freeze did not hold: {cause}")))
                    }
                    None => Ok(session.natives.clone()),
                }
            }
            Phase::Open if session.snap.is_some() => Err(PluginError::new(
                PluginErrorKind::FreezeTimeout,
                "the providers did not answer before the freeze reached its limit",
            )),
            _ => Err(PluginError::new(
                PluginErrorKind::SessionGone,
                format!("session {id} ended while it was being snapped"),
            )),
        }
    }

    pub(crate) fn evidence(&self, id: SessionId, caps: &PluginCaps) -> PluginResult<SetOutcome> {
        let session = self.sessions.get(&id).ok_or_else(|| gone(id))?;
        let mut outcome = SetOutcome::new(caps.quiesce, caps.grain);
        let window = session.window.and_then(|window| self.windows.get(window));
        outcome.frozen_at = window.map(|window| window.from.at);
        outcome.thawed_at = window.and_then(|window| Some(window.ended?.0.at));
        let held: BTreeMap<_, _> = session
            .session
            .copies
            .iter()
            .map(|copy| (copy.clone(), self.held(session, window, copy)))
            .collect();
        let worst = held.values().cloned().fold(Held::Yes, Held::and);
        for (copy, own) in held {
            let held = match caps.grain {
                EvidenceGrain::PerWriter => worst.clone(),
                EvidenceGrain::PerDatabase => own,
            };
            let mut evidence = CopyEvidence::new(held);
            evidence.log_state = session.log_states.get(&copy).cloned();
            outcome.copies.insert(copy, evidence);
        }
        let text = format!("<backup session=\"{id}\" kind=\"{}\"/>", session.session.kind.word());
        outcome.documents.push(Document::new("components.xml", "application/xml", text));
        Ok(outcome)
    }

    fn held(&self, session: &SimSession, window: Option<&FreezeWindow>, copy: &CopyId) -> Held {
        if session.phase == Phase::Lost {
            return Held::Unknown;
        }
        if let Some(cause) = session.breaks.get(copy) {
            return Held::Broken(cause.clone());
        }
        let Some(window) = window else {
            return Held::Broken(Cause::Other { message: "it was never frozen".to_owned() });
        };
        let Some((_, how)) = window.ended else { return Held::Unknown };
        if how == Ended::Limit {
            return Held::Broken(Cause::LimitPassed);
        }
        // The simulation knows what a real plug-in cannot: when the run's snapshots were taken.
        let volumes = self.copies.get(copy).map(|copy| [&copy.data, &copy.logs]);
        let of_copy = |volume| volumes.is_some_and(|volumes| volumes.contains(&volume));
        let outside = self.taken.iter().any(|taken| {
            taken.run == session.run
                && taken.at.mono >= session.begun.mono
                && of_copy(&taken.volume)
                && !window.covers(taken.at)
        });
        let to_come = self
            .flights
            .iter()
            .any(|((volume, _), flight)| flight.run == session.run && of_copy(volume));
        if outside || to_come { Held::Broken(Cause::ThawedEarly) } else { Held::Yes }
    }

    pub(crate) fn complete(
        &mut self,
        entry: &Entry,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
        caps: &PluginCaps,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let session = self.sessions.get(&id).ok_or_else(|| gone(id))?.clone();
        let copies = &session.session.copies;
        let all = |answer: Completion| -> BTreeMap<CopyId, Completion> {
            copies.iter().map(|copy| (copy.clone(), answer.clone())).collect()
        };
        match &session.phase {
            Phase::Completed(answers) => return Ok(answers.clone()),
            Phase::Lost | Phase::Aborted => return Ok(all(Completion::Lost)),
            Phase::Open if session.window.is_some() => {}
            Phase::Snapped => {}
            Phase::Open | Phase::Frozen | Phase::Snapping => {
                self.violate(entry.at, Breach::CompleteOutOfOrder, id.to_string());
                let message = "a session is completed after its freeze has ended";
                return Err(refuse(PluginErrorKind::Invalid, message));
            }
        }
        self.check_fence(entry, caps, copies)?;
        if let Some(stranger) = verdicts.keys().find(|copy| !copies.contains(copy)) {
            let message = format!("{stranger} is not in session {id}");
            return Err(refuse(PluginErrorKind::Invalid, message));
        }
        let answers = all(match &self.unclear {
            Some(reason) => Completion::Unconfirmed { reason: reason.clone() },
            None => Completion::Completed,
        });
        let kind = session.session.kind;
        if self.unclear.is_none() {
            for copy in copies {
                let good =
                    matches!(verdicts.get(copy), Some(Verdict::Good | Verdict::Unverified { .. }));
                // A dismount during the backup leaves a mere copy: nothing is truncated.
                if good && !session.breaks.contains_key(copy) {
                    self.note_backup(entry.at, copy.database, kind);
                }
            }
        }
        self.completes.push(CompleteRecord {
            session: id,
            run: entry.run,
            kind,
            at: entry.at,
            verdicts: verdicts.clone(),
            answers: answers.clone(),
        });
        self.set_phase(id, Phase::Completed(answers.clone()));
        Ok(answers)
    }

    fn note_backup(&mut self, at: Moment, database: DatabaseId, kind: BackupKind) {
        let due = at.plus(self.truncation_delay);
        let Some(known) = self.databases.get_mut(&database) else { return };
        if kind.truncates() {
            known.info.last_backups.full = Some(at.at);
            known.truncation = Some(SimTruncation { asked_at: at.at, result: None });
            self.at(due, Event::Truncate(database));
        } else {
            known.info.last_backups.copy = Some(at.at);
        }
    }

    /// Deletes what the backup made needless: below the checkpoint, on every copy, unless a suspended copy holds it back.
    pub(crate) fn truncate(&mut self, database: DatabaseId, at: Moment) {
        let copies: Vec<CopyId> =
            self.copies.keys().filter(|copy| copy.database == database).cloned().collect();
        let of_copy = |copy: &CopyId| self.copies.get(copy);
        let blocked = copies.iter().filter_map(of_copy).any(|copy| copy.status.blocks_truncation());
        let result = if blocked {
            Err("a copy is suspended".to_owned())
        } else {
            let mut deleted = false;
            let mut oldest = u32::MAX;
            for copy in &copies {
                self.render(copy, at);
                let Some(known) = self.copies.get(copy) else { continue };
                let (before, checkpoint) = (known.writer.oldest, known.writer.checkpoint(at));
                deleted |= before < checkpoint;
                oldest = oldest.min(checkpoint);
                self.delete_logs(copy, checkpoint);
            }
            if deleted { Ok(oldest) } else { Err("no log is below the checkpoint".to_owned()) }
        };
        if let Some(truncation) =
            self.databases.get_mut(&database).and_then(|database| database.truncation.as_mut())
        {
            truncation.result = Some(result);
        }
    }

    pub(crate) fn truncation(
        &self,
        copy: &CopyId,
        since: chrono::DateTime<chrono::Utc>,
    ) -> PluginResult<Truncation> {
        let database = self.databases.get(&copy.database).ok_or_else(|| {
            refuse(PluginErrorKind::NotFound, format!("there is no database {}", copy.database))
        })?;
        let asked = database.truncation.as_ref().filter(|asked| asked.asked_at >= since);
        Ok(match asked {
            None => Truncation::NothingEligible {
                why: "no truncating backup was completed since".to_owned(),
            },
            Some(SimTruncation { result: None, .. }) => Truncation::Pending,
            Some(SimTruncation { result: Some(Ok(oldest)), .. }) => {
                Truncation::Confirmed { oldest_present: Generation(*oldest) }
            }
            Some(SimTruncation { result: Some(Err(why)), .. }) => {
                Truncation::NothingEligible { why: why.clone() }
            }
        })
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

    pub(crate) fn mount(&mut self, id: &CopyId, at: Moment) -> bool {
        let Some(copy) = self.copies.get(id).filter(|copy| !copy.mounted) else { return true };
        let bytes = self.volumes.get(&copy.data).and_then(|disk| {
            disk.files
                .get(&disk.key(&copy.database_file()))
                .map(|file| std::sync::Arc::clone(&file.bytes))
        });
        let pages = bytes.map(|bytes| crate::writer::read_pages(&bytes)).unwrap_or_default();
        if pages.is_empty() || pages.contains(&None) {
            return false;
        }
        // Recovery finishes the transaction that was under way.
        let newest = pages.into_iter().flatten().max().unwrap_or(0);
        let Some(copy) = self.copies.get_mut(id) else { return false };
        if newest != copy.writer.base {
            // Other files than it had: a new log stream begins.
            copy.writer.signature.0[0] = copy.writer.signature.0[0].wrapping_add(1);
            copy.writer.base = newest;
            copy.writer.oldest = copy.writer.generation_of(newest).max(1);
        }
        copy.rendered_to = copy.writer.oldest;
        copy.mounted = true;
        copy.status = match copy.role {
            CopyRole::Active => CopyStatus::Mounted,
            CopyRole::Passive => CopyStatus::Healthy,
        };
        copy.writer.run(at);
        true
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
