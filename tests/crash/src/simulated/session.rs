//! Sessions: begin, freeze, thaw, complete, abort, and what can be asked of them.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_context::{Cx, FencingToken};
use stillpoint_exchange::{
    Cause, Completion, CopyEvidence, CopyId, EvidenceGrain, Frozen, Held, Inventory,
    PluginErrorKind, QuiesceLevel, RequiredFile, Session, SessionId, SessionSpec, SessionState,
    SetOutcome, Truncation, Verdict,
};
use stillpoint_model::inventory::{FileRole, LogState};

use super::{Entry, Freeze, Inner, Outcome, Phase, State, later, lock, micros};
use crate::ledger::{EndedBy, What, now};
use crate::wire::{Caller, Refusal};

fn gone(id: SessionId) -> Refusal {
    Refusal::new(PluginErrorKind::SessionGone, format!("session {id} is not open"))
}

fn superseded(id: SessionId) -> Refusal {
    let message =
        format!("session {id} was thawed before it was frozen, or has been frozen before");
    Refusal::new(PluginErrorKind::Superseded, message)
}

impl Inner {
    /// The session, if it is open and the caller's token is not an old one.
    fn open<'a>(
        &self,
        state: &'a mut State,
        caller: &Caller,
        id: SessionId,
    ) -> Result<&'a mut Entry, Refusal> {
        self.admit(state, caller, id)?;
        let open = |entry: &&mut Entry| entry.phase == Phase::Open;
        state.sessions.get_mut(&id).filter(open).ok_or_else(|| gone(id))
    }

    /// Refuses a token older than one that was seen, for the session or for any of its copies; remembers it otherwise.
    fn admit(&self, state: &mut State, caller: &Caller, id: SessionId) -> Result<(), Refusal> {
        let Some(entry) = state.sessions.get_mut(&id) else { return Ok(()) };
        let copies = entry.session.copies.clone();
        let own = entry.fence;
        self.admit_copies(state, caller, id, &copies, own)?;
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.fence = caller.fence;
        }
        Ok(())
    }

    fn admit_copies(
        &self,
        state: &mut State,
        caller: &Caller,
        id: SessionId,
        copies: &[CopyId],
        own: FencingToken,
    ) -> Result<(), Refusal> {
        let seen = copies.iter().filter_map(|copy| state.fences.get(copy)).copied();
        let seen = seen.fold(own, FencingToken::max);
        if caller.fence < seen {
            let message =
                format!("the fencing token {} is older than {seen}, which was seen", caller.fence);
            return Err(Refusal::new(PluginErrorKind::Fenced, message));
        }
        state.fences.extend(copies.iter().map(|copy| (copy.clone(), caller.fence)));
        self.ledger.note(What::Admitted { session: id, run: caller.run, fence: caller.fence });
        Ok(())
    }

    /// The session of a repeated `begin`, with its lease begun anew; `None` if there is none yet.
    pub(super) fn begun_before(
        &self,
        cx: &Cx,
        caller: &Caller,
        spec: &SessionSpec,
    ) -> Result<Option<Session>, Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        if !state.sessions.contains_key(&spec.id) {
            return Ok(None);
        }
        let entry = self.open(&mut state, caller, spec.id)?;
        if entry.session.kind != spec.kind || entry.session.copies != spec.copies {
            let message = format!("session {} was begun for something else", spec.id);
            return Err(Refusal::new(PluginErrorKind::Invalid, message));
        }
        entry.lease_end = now().saturating_add(micros(spec.lease));
        entry.session.lease_until = later(cx.now(), spec.lease);
        let session = entry.session.clone();
        self.news.notify_all();
        Ok(Some(session))
    }

    /// Begins a session over what the inventory shows.
    pub(super) fn begin(
        &self,
        cx: &Cx,
        caller: &Caller,
        spec: &SessionSpec,
        inventory: &Inventory,
    ) -> Result<Session, Refusal> {
        let (mut files, mut log_states) = (Vec::new(), BTreeMap::new());
        for id in &spec.copies {
            let copy = inventory.copies.get(id).ok_or_else(|| {
                Refusal::new(PluginErrorKind::NotFound, format!("{id} is not there"))
            })?;
            if let Some(reason) = copy.availability.reasons.first() {
                let message = format!("{id} cannot be backed up: {reason}");
                return Err(Refusal::new(PluginErrorKind::NotAvailable, message));
            }
            let open = copy.log_state.as_ref().and_then(|state: &LogState| state.open);
            files.extend(copy.files.iter().map(|file| {
                let mut required = RequiredFile::of(id.clone(), file);
                if file.role == FileRole::Log && required.generation.is_none() {
                    // The log that is being written has no generation in its name.
                    required.generation = open;
                }
                required
            }));
            log_states.extend(copy.log_state.clone().map(|state| (id.clone(), state)));
        }
        let mut state = lock(&self.state);
        let before = state.sessions.get(&spec.id).map(|entry| entry.fence).unwrap_or_default();
        self.admit_copies(&mut state, caller, spec.id, &spec.copies, before)?;
        let session = Session::new(spec, files, later(cx.now(), spec.lease));
        // If another call has begun it meanwhile, that one stands.
        let entry = state.sessions.entry(spec.id).or_insert_with(|| Entry {
            session,
            fence: caller.fence,
            lease_end: now().saturating_add(micros(spec.lease)),
            log_states,
            phase: Phase::Open,
            thawed: false,
            outcome: None,
        });
        let session = entry.session.clone();
        self.news.notify_all();
        Ok(session)
    }

    pub(super) fn look_up(&self, cx: &Cx, id: SessionId) -> SessionState {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        let freeze = state.freeze.as_ref().filter(|freeze| freeze.session == id);
        match (state.sessions.get(&id).map(|entry| &entry.phase), freeze) {
            (None, _) => SessionState::Unknown,
            (Some(Phase::Open), Some(freeze)) => {
                SessionState::Frozen { until: Some(freeze.until_civil) }
            }
            (Some(Phase::Open), None) => SessionState::Open,
            (Some(Phase::Completed(answers)), _) => SessionState::Completed(answers.clone()),
            (Some(Phase::Aborted), _) => SessionState::Aborted,
        }
    }

    pub(super) fn renew(
        &self,
        cx: &Cx,
        caller: &Caller,
        id: SessionId,
        lease: Duration,
    ) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        let entry = self.open(&mut state, caller, id)?;
        entry.lease_end = now().saturating_add(micros(lease));
        entry.session.lease_until = later(cx.now(), lease);
        self.news.notify_all();
        Ok(())
    }

    pub(super) fn freeze(
        &self,
        cx: &Cx,
        caller: &Caller,
        id: SessionId,
        limit: Option<Duration>,
    ) -> Result<Frozen, Refusal> {
        {
            let mut state = lock(&self.state);
            self.expire(&mut state, cx);
            if self.open(&mut state, caller, id)?.thawed {
                return Err(superseded(id));
            }
            match &state.freeze {
                Some(freeze) if freeze.session == id => {}
                Some(other) => {
                    let message = format!("frozen for the session {}", other.session);
                    return Err(Refusal::new(PluginErrorKind::BusyOtherRequester, message));
                }
                None => {
                    let limit = limit.unwrap_or(Duration::MAX).min(self.setup.freeze_limit);
                    state.freeze = Some(Freeze {
                        session: id,
                        until: now().saturating_add(micros(limit)),
                        until_civil: later(cx.now(), limit),
                        quiesced: None,
                    });
                }
            }
            self.news.notify_all();
        }
        // Whoever writes ends its round first, and writes no other.
        let mail = lock(&self.pen);
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        let freeze = state.freeze.as_mut().filter(|freeze| freeze.session == id);
        // Thawed, given up or timed out meanwhile: then it is over, and stays so.
        let Some(freeze) = freeze else { return Err(superseded(id)) };
        let (at, _) = *freeze.quiesced.get_or_insert_with(|| {
            let (at, beat) = (cx.now(), mail.beat());
            self.ledger.note(What::Frozen {
                session: id,
                run: caller.run,
                fence: caller.fence,
                until: freeze.until,
                beat,
            });
            (at, beat)
        });
        Ok(Frozen::new(at, QuiesceLevel::App, Some(freeze.until_civil)))
    }

    pub(super) fn thaw(&self, cx: &Cx, caller: &Caller, id: SessionId) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        self.admit(&mut state, caller, id)?;
        // Right for a session that is unknown, and for one that was never frozen.
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.thawed = true;
        }
        if state.freeze.as_ref().is_some_and(|freeze| freeze.session == id) {
            self.end_freeze(&mut state, cx, EndedBy::Thaw, Some(caller.run));
        }
        Ok(())
    }

    pub(super) fn evidence(&self, cx: &Cx, id: SessionId) -> Result<SetOutcome, Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        let entry = state.sessions.get(&id).ok_or_else(|| gone(id))?;
        let held = match &entry.outcome {
            // Not frozen, or not thawed yet.
            None => Held::Unknown,
            Some(Outcome { by: EndedBy::Limit, .. }) => Held::Broken(Cause::LimitPassed),
            Some(Outcome { by: EndedBy::Abort | EndedBy::Lease, .. }) => {
                Held::Broken(Cause::ThawedEarly)
            }
            Some(Outcome { beats: (before, after), .. }) if before != after => {
                let message = format!("it was written: beat {before} became {after}");
                Held::Broken(Cause::Other { message })
            }
            Some(_) => Held::Yes,
        };
        let mut outcome = SetOutcome::new(QuiesceLevel::App, EvidenceGrain::PerDatabase);
        outcome.frozen_at = entry.outcome.as_ref().map(|outcome| outcome.frozen_at);
        outcome.thawed_at = entry.outcome.as_ref().map(|outcome| outcome.thawed_at);
        for copy in &entry.session.copies {
            let mut evidence = CopyEvidence::new(held.clone());
            evidence.log_state = entry.log_states.get(copy).cloned();
            outcome.copies.insert(copy.clone(), evidence);
        }
        Ok(outcome)
    }

    pub(super) fn complete(
        &self,
        cx: &Cx,
        caller: &Caller,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> Result<BTreeMap<CopyId, Completion>, Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        self.admit(&mut state, caller, id)?;
        if state.freeze.as_ref().is_some_and(|freeze| freeze.session == id) {
            let message = format!("session {id} is frozen still");
            return Err(Refusal::new(PluginErrorKind::Invalid, message));
        }
        let entry = match state.sessions.get_mut(&id) {
            Some(Entry { phase: Phase::Completed(answers), .. }) => return Ok(answers.clone()),
            Some(entry) if entry.phase == Phase::Open => entry,
            // Nothing is in doubt: it was lost before.
            _ => return Ok(verdicts.keys().map(|copy| (copy.clone(), Completion::Lost)).collect()),
        };
        let is_good = |copy: &CopyId| {
            matches!(verdicts.get(copy), Some(Verdict::Good | Verdict::Unverified { .. }))
        };
        let copies = entry.session.copies.clone();
        let good: BTreeMap<_, _> =
            copies.iter().map(|copy| (copy.clone(), is_good(copy))).collect();
        let answers: BTreeMap<_, _> =
            copies.iter().map(|copy| (copy.clone(), Completion::Completed)).collect();
        let truncates = entry.session.kind.truncates();
        entry.phase = Phase::Completed(answers.clone());
        self.ledger.note(What::Completed {
            session: id,
            run: caller.run,
            fence: caller.fence,
            good: good.clone(),
        });
        if truncates {
            let eligible = good.into_iter().filter(|(_, good)| *good).map(|(copy, _)| copy);
            state.to_truncate.extend(eligible);
        }
        state.forget_old(id);
        self.news.notify_all();
        Ok(answers)
    }

    pub(super) fn abort(&self, cx: &Cx, caller: &Caller, id: SessionId) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        self.admit(&mut state, caller, id)?;
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.thawed = true;
        }
        self.end_session(&mut state, cx, id, EndedBy::Abort, Some(caller.run));
        Ok(())
    }

    pub(super) fn truncation(&self, copy: &CopyId) -> Truncation {
        let state = lock(&self.state);
        if state.to_truncate.contains(copy) {
            return Truncation::Pending;
        }
        match state.truncated.get(copy) {
            Some((_, became)) => became.clone(),
            None => Truncation::NothingEligible { why: "no backup was completed".to_owned() },
        }
    }

    /// Whether a session over this copy is open.
    pub(super) fn in_backup(&self, cx: &Cx, copy: &CopyId) -> bool {
        let mut state = lock(&self.state);
        self.expire(&mut state, cx);
        let over = |entry: &Entry| entry.session.copies.contains(copy);
        state.sessions.values().any(|entry| entry.phase == Phase::Open && over(entry))
    }
}
