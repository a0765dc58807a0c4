//! Sessions: they live in this process alone, and end with it.
//!
//! ```text
//!   begin ─▶ Open ─freeze▶ Frozen ─thaw▶ Open ─complete▶ Completed
//!             └────────────── abort, lease over ─────────▶ Aborted
//!
//!   freeze   lock, stamp, compare with the stamps of begin
//!   thaw     stamp again, compare, unlock: what differs has broken the freeze of its copy
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, FencingToken, Mono};
use stillpoint_exchange::{
    Cause, Completion, CopyEvidence, CopyId, EvidenceGrain, Frozen, Held, PluginError,
    PluginErrorKind, PluginResult, QuiesceLevel, Session, SessionId, SessionSpec, SessionState,
    SetOutcome, Verdict,
};
use stillpoint_model::inventory::LogState;

use crate::watch::{LockError, Locks, Stamp, Watched, compare, first_change, lock, stamp_all};

/// Ended sessions that are still remembered.
const REMEMBERED: usize = 256;

/// Every session of a plug-in. Its calls that touch files are for blocking threads; they leave a state that holds even if
/// whoever waits for them goes away.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<SessionId, Entry>,
    /// Highest token seen for each copy.
    fences: BTreeMap<CopyId, FencingToken>,
    ended: VecDeque<SessionId>,
}

#[derive(Debug)]
struct Entry {
    spec: SessionSpec,
    session: Session,
    lease_end: Mono,
    fence: FencingToken,
    files: Vec<(Watched, Stamp)>,
    log_states: BTreeMap<CopyId, LogState>,
    phase: Phase,
    /// How often a thaw was asked for: a freeze that was under way then comes too late.
    thaws: u64,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Phase {
    Open,
    Frozen(Arc<Freeze>),
    Completed(BTreeMap<CopyId, Completion>),
    Aborted,
}

#[derive(Debug)]
struct Freeze {
    at: DateTime<Utc>,
    until: Option<(DateTime<Utc>, Mono)>,
    before: Vec<(Watched, Stamp)>,
    /// Taken out when the freeze ends, whoever still looks at it.
    locks: Mutex<Option<Locks>>,
}

impl Freeze {
    fn frozen(&self) -> Frozen {
        Frozen::new(self.at, QuiesceLevel::AtRest, self.until.map(|(at, _)| at))
    }

    fn unlock(&self) {
        drop(self.locks.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[derive(Debug, Clone)]
struct Outcome {
    frozen_at: DateTime<Utc>,
    thawed_at: DateTime<Utc>,
    held: BTreeMap<CopyId, Held>,
}

impl Entry {
    fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Frozen(_))
    }

    fn outcome_of(&self, freeze: &Freeze, at: DateTime<Utc>, held: Vec<(CopyId, Held)>) -> Outcome {
        let mut worst: BTreeMap<CopyId, Held> =
            self.spec.copies.iter().map(|copy| (copy.clone(), Held::Yes)).collect();
        for (copy, held) in held {
            let answer = worst.entry(copy).or_insert(Held::Yes);
            *answer = std::mem::replace(answer, Held::Unknown).and(held);
        }
        Outcome { frozen_at: freeze.at, thawed_at: at, held: worst }
    }

    /// Ends the freeze, if one is open, with the same answer for every copy.
    fn break_freeze(&mut self, at: DateTime<Utc>, cause: &Cause) {
        if let Phase::Frozen(freeze) = std::mem::replace(&mut self.phase, Phase::Open) {
            freeze.unlock();
            let held = self.spec.copies.iter();
            let held = held.map(|copy| (copy.clone(), Held::Broken(cause.clone()))).collect();
            self.outcome = Some(self.outcome_of(&freeze, at, held));
        }
    }
}

fn gone(id: SessionId) -> PluginError {
    PluginError::new(PluginErrorKind::SessionGone, format!("session {id} is not open"))
        .without_effect()
}

fn fenced(seen: FencingToken, given: FencingToken) -> PluginError {
    PluginError::new(
        PluginErrorKind::Fenced,
        format!("the fencing token {given} is older than {seen}, which was seen"),
    )
    .without_effect()
}

impl State {
    /// The session, if it is open; one whose lease is over ends here.
    fn live(&mut self, cx: &Cx, id: SessionId) -> PluginResult<&mut Entry> {
        self.expire(cx, id);
        self.sessions.get_mut(&id).filter(|entry| entry.is_live()).ok_or_else(|| gone(id))
    }

    fn expire(&mut self, cx: &Cx, id: SessionId) {
        let now = cx.seams().clock.boot();
        let is_over =
            self.sessions.get(&id).is_some_and(|entry| entry.is_live() && entry.lease_end <= now);
        if is_over {
            self.end(cx, id, Phase::Aborted);
        }
    }

    fn end(&mut self, cx: &Cx, id: SessionId, phase: Phase) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.break_freeze(cx.now(), &Cause::ThawedEarly);
        entry.phase = phase;
        entry.files = Vec::new();
        self.ended.push_back(id);
        while self.ended.len() > REMEMBERED {
            if let Some(oldest) = self.ended.pop_front() {
                self.sessions.remove(&oldest);
            }
        }
    }

    /// Refuses a token older than one that was seen for any of the copies; remembers it otherwise.
    fn check_fence(&mut self, cx: &Cx, copies: &[CopyId]) -> PluginResult<()> {
        let given = cx.fence();
        let seen = copies.iter().filter_map(|copy| self.fences.get(copy)).max().copied();
        if let Some(seen) = seen.filter(|&seen| given < seen) {
            return Err(fenced(seen, given));
        }
        self.fences.extend(copies.iter().map(|copy| (copy.clone(), given)));
        Ok(())
    }
}

/// What a session is begun with.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) session: Session,
    pub(crate) watched: Vec<Watched>,
    pub(crate) log_states: BTreeMap<CopyId, LogState>,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a repeated `begin`, with its lease begun anew; `None` if there is none yet.
    pub(crate) fn again(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Option<Session>> {
        let mut state = self.state();
        if !state.sessions.contains_key(&spec.id) {
            return Ok(None);
        }
        let entry = state.live(cx, spec.id)?;
        if entry.spec.kind != spec.kind || entry.spec.copies != spec.copies {
            return Err(PluginError::new(
                PluginErrorKind::Invalid,
                format!("session {} was begun for something else", spec.id),
            )
            .without_effect());
        }
        state.check_fence(cx, &spec.copies)?;
        let entry = state.live(cx, spec.id)?;
        entry.fence = entry.fence.max(cx.fence());
        entry.lease_end = cx.seams().clock.boot() + spec.lease;
        entry.session.lease_until = lease_until(cx, spec.lease);
        Ok(Some(entry.session.clone()))
    }

    /// Keeps a new session; if another call has begun it meanwhile, that one stands.
    pub(crate) fn begin(&self, cx: &Cx, spec: &SessionSpec, begun: Begun) -> PluginResult<Session> {
        let files = stamp_all(&begun.watched).map_err(|(file, error)| {
            PluginError::io(format_args!("read {file}"), error).without_effect()
        })?;
        if let Some(session) = self.again(cx, spec)? {
            return Ok(session);
        }
        let mut state = self.state();
        state.check_fence(cx, &spec.copies)?;
        let entry = state.sessions.entry(spec.id).or_insert_with(|| Entry {
            spec: spec.clone(),
            session: begun.session,
            lease_end: cx.seams().clock.boot() + spec.lease,
            fence: cx.fence(),
            files,
            log_states: begun.log_states,
            phase: Phase::Open,
            thaws: 0,
            outcome: None,
        });
        Ok(entry.session.clone())
    }

    pub(crate) fn look_up(&self, cx: &Cx, id: SessionId) -> SessionState {
        let mut state = self.state();
        state.expire(cx, id);
        match state.sessions.get(&id).map(|entry| &entry.phase) {
            None => SessionState::Unknown,
            Some(Phase::Open) => SessionState::Open,
            Some(Phase::Frozen(freeze)) => {
                SessionState::Frozen { until: freeze.until.map(|(at, _)| at) }
            }
            Some(Phase::Completed(completions)) => SessionState::Completed(completions.clone()),
            Some(Phase::Aborted) => SessionState::Aborted,
        }
    }

    pub(crate) fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        let mut state = self.state();
        let entry = state.live(cx, id)?;
        entry.lease_end = cx.seams().clock.boot() + lease;
        entry.session.lease_until = lease_until(cx, lease);
        Ok(())
    }

    /// Admits a freeze: the number of thaws so far, which must not have changed when it is done.
    pub(crate) fn admit_freeze(&self, cx: &Cx, id: SessionId) -> PluginResult<u64> {
        let mut state = self.state();
        let copies = state.live(cx, id)?.spec.copies.clone();
        state.check_fence(cx, &copies)?;
        let entry = state.live(cx, id)?;
        entry.fence = entry.fence.max(cx.fence());
        Ok(entry.thaws)
    }

    /// Locks and stamps the files, and opens the freeze unless a thaw came meanwhile. Blocks.
    pub(crate) fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        thaws: u64,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        // Admitted already, so whatever ended the session or asked for the thaw came in between.
        let superseded = || {
            PluginError::new(
                PluginErrorKind::Superseded,
                format!("session {id} was thawed while it was being frozen"),
            )
            .without_effect()
        };
        let (files, begun): (Vec<Watched>, Vec<(Watched, Stamp)>) = {
            let mut state = self.state();
            let entry = state.live(cx, id).map_err(|_| superseded())?;
            if entry.thaws != thaws {
                return Err(superseded());
            }
            if let Phase::Frozen(freeze) = &entry.phase {
                return Ok(freeze.frozen());
            }
            (entry.files.iter().map(|(watched, _)| watched.clone()).collect(), entry.files.clone())
        };
        let locks = lock(&files).map_err(|(file, error)| match error {
            LockError::Held => PluginError::new(
                PluginErrorKind::NotAvailable,
                format!("{file} is not at rest: another process holds it for itself"),
            )
            .without_effect(),
            LockError::Open(error) => {
                PluginError::io(format_args!("open {file}"), error).without_effect()
            }
        })?;
        let before = stamp_all(&files).map_err(|(file, error)| {
            PluginError::io(format_args!("read {file}"), error).without_effect()
        })?;
        if let Some((file, what)) = first_change(&begun, &before) {
            return Err(PluginError::new(
                PluginErrorKind::NotAvailable,
                format!("{file} is not at rest: its {what} changed since the session began"),
            )
            .without_effect());
        }
        let mut state = self.state();
        let entry = state.live(cx, id).map_err(|_| superseded())?;
        if entry.thaws != thaws {
            return Err(superseded());
        }
        if let Phase::Frozen(freeze) = &entry.phase {
            return Ok(freeze.frozen());
        }
        let at = cx.now();
        let until = limit.map(|limit| (add(at, limit), cx.mono() + limit));
        let freeze = Arc::new(Freeze { at, until, before, locks: Mutex::new(Some(locks)) });
        let frozen = freeze.frozen();
        entry.outcome = None;
        entry.phase = Phase::Frozen(freeze);
        Ok(frozen)
    }

    /// When the freeze that is open ends by itself.
    pub(crate) fn frozen_until(&self, id: SessionId) -> Option<Mono> {
        match &self.state().sessions.get(&id)?.phase {
            Phase::Frozen(freeze) => freeze.until.map(|(_, until)| until),
            _ => None,
        }
    }

    /// Ends a freeze whose limit has passed at `now`. Does not block.
    pub(crate) fn thaw_at_limit(&self, id: SessionId, now: Mono, at: DateTime<Utc>) {
        let mut state = self.state();
        let Some(entry) = state.sessions.get_mut(&id) else { return };
        let is_over = matches!(
            &entry.phase,
            Phase::Frozen(freeze) if freeze.until.is_some_and(|(_, until)| until <= now)
        );
        if is_over {
            entry.break_freeze(at, &Cause::LimitPassed);
        }
    }

    /// Takes note that a thaw was asked for; gives back whether there is a freeze to end.
    pub(crate) fn admit_thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<bool> {
        let mut state = self.state();
        let Some(entry) = state.sessions.get_mut(&id) else { return Ok(false) };
        if cx.fence() < entry.fence {
            return Err(fenced(entry.fence, cx.fence()));
        }
        entry.thaws += 1;
        Ok(matches!(entry.phase, Phase::Frozen(_)))
    }

    /// Compares every file with its stamp, unlocks, and keeps what was seen. Blocks.
    pub(crate) fn thaw(&self, cx: &Cx, id: SessionId, asked_at: Mono) {
        let freeze = match self.state().sessions.get(&id).map(|entry| &entry.phase) {
            Some(Phase::Frozen(freeze)) => Arc::clone(freeze),
            _ => return,
        };
        let held = compare(&freeze.before);
        freeze.unlock();
        let mut state = self.state();
        let Some(entry) = state.sessions.get_mut(&id) else { return };
        // Another thaw, or an abort, may have ended it meanwhile.
        if !matches!(&entry.phase, Phase::Frozen(open) if Arc::ptr_eq(open, &freeze)) {
            return;
        }
        if freeze.until.is_some_and(|(_, until)| until <= asked_at) {
            entry.break_freeze(cx.now(), &Cause::LimitPassed);
        } else {
            entry.outcome = Some(entry.outcome_of(&freeze, cx.now(), held));
            entry.phase = Phase::Open;
        }
    }

    pub(crate) fn evidence(&self, id: SessionId) -> PluginResult<SetOutcome> {
        let state = self.state();
        let entry = state.sessions.get(&id).ok_or_else(|| gone(id))?;
        let mut out = SetOutcome::new(QuiesceLevel::AtRest, EvidenceGrain::PerDatabase);
        let outcome = entry.outcome.as_ref();
        out.frozen_at = outcome.map(|outcome| outcome.frozen_at);
        out.thawed_at = outcome.map(|outcome| outcome.thawed_at);
        for copy in &entry.spec.copies {
            // Never frozen, or not thawed yet: nobody can say.
            let held = outcome.and_then(|outcome| outcome.held.get(copy)).cloned();
            let mut evidence = CopyEvidence::new(held.unwrap_or(Held::Unknown));
            evidence.log_state = entry.log_states.get(copy).cloned();
            out.copies.insert(copy.clone(), evidence);
        }
        Ok(out)
    }

    pub(crate) fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        let mut state = self.state();
        state.expire(cx, id);
        let copies = match state.sessions.get(&id) {
            Some(Entry { phase: Phase::Completed(completions), .. }) => {
                return Ok(completions.clone());
            }
            Some(entry) if entry.is_live() => entry.spec.copies.clone(),
            // Nothing is written at completion, so nothing is in doubt: it was lost before.
            _ => return Ok(verdicts.keys().map(|copy| (copy.clone(), Completion::Lost)).collect()),
        };
        state.check_fence(cx, &copies)?;
        let completions: BTreeMap<_, _> =
            copies.into_iter().map(|copy| (copy, Completion::Completed)).collect();
        state.end(cx, id, Phase::Completed(completions.clone()));
        Ok(completions)
    }

    pub(crate) fn abort(&self, cx: &Cx, id: SessionId) {
        let mut state = self.state();
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.thaws += 1;
            if entry.is_live() {
                state.end(cx, id, Phase::Aborted);
            }
        }
    }
}

pub(crate) fn lease_until(cx: &Cx, lease: Duration) -> DateTime<Utc> {
    add(cx.now(), lease)
}

/// An instant later; the last there is when that lies beyond the calendar.
fn add(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|by| at.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
