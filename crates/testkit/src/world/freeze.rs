//! Freezes of a world: freeze, thaw, snap, and the evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_exchange::{
    Coordination, Frozen, PluginCaps, PluginError, PluginErrorKind, PluginResult,
};
use stillpoint_model::evidence::{CopyEvidence, Document, EvidenceGrain, SetOutcome};
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, SessionId, SnapshotId};
use stillpoint_model::quiesce::{Cause, Held};

use super::record::{Breach, Ended, FreezeWindow};
use super::session::{gone, refuse};
use super::state::{Entry, Event, Flight, Phase, SimCopy, SimSession, SnapPlan, State};
use crate::moment::Moment;

impl State {
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
        // Also for a session that was lost: its freeze lasts until its limit otherwise. What VSS froze inside `snap` it thaws.
        if session.phase != Phase::Snapping
            && let Some(window) = session.window
        {
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
        // Nobody has to ask for this thaw: it comes inside, in time or at the limit.
        self.note_asked(id, entry.at);
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

    pub(super) fn held(
        &self,
        session: &SimSession,
        window: Option<&FreezeWindow>,
        copy: &CopyId,
    ) -> Held {
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
}
