//! Sessions: they live in this process alone, and end with it.
//!
//! ```text
//!   begin ─▶ Open ─freeze▶ Frozen ─thaw▶ Open ─complete▶ Completed
//!             └────────────── abort, lease over ─────────▶ Aborted
//!
//!   freeze   lock, stamp, compare with the stamps of begin
//!   thaw     stamp again, compare, unlock: what differs has broken the freeze of its copy
//! ```
//!
//! A freeze ends at its limit and a session with its lease though nobody calls any more: a thread of the plug-in's own sees
//! to that. What is spawned through the seams would end with the caller's runtime, and a guard's ends with its freeze.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use chrono::{DateTime, Utc};
use stillpoint_context::{Clock, Cx, FencingToken, Mono, Panicked};
use stillpoint_exchange::{
    Cause, Completion, CopyEvidence, CopyId, EvidenceGrain, Frozen, Held, PluginError,
    PluginErrorKind, PluginResult, QuiesceLevel, Session, SessionId, SessionSpec, SessionState,
    SetOutcome, Verdict,
};
use stillpoint_model::inventory::LogState;

use crate::watch::{LockError, Locks, Stamp, Watched, compare, first_change, lock, stamp_all};

/// Ended sessions that are still remembered.
const REMEMBERED: usize = 256;
/// How long the watchdog waits at most before it looks at the clock again: inside a freeze, and outside of one.
const NAP: Duration = Duration::from_millis(50);
const LONG_NAP: Duration = Duration::from_secs(1);

/// Every session of a plug-in. Its calls that touch files are for blocking threads; they leave a state that holds even if
/// whoever waits for them goes away.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    book: Arc<Book>,
    /// Ends freezes and sessions whose time is over; there is one from the first session on.
    watchdog: Mutex<Option<JoinHandle<()>>>,
}

/// What the plug-in and its watchdog share.
#[derive(Debug, Default)]
struct Book {
    state: Mutex<State>,
    /// Told when a session, a freeze or the end of the plug-in has come.
    changed: Condvar,
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is over, until the plug-in is dropped.
    ///
    /// A clock is asked for the time and never for a timer: its timers are of a runtime, and this thread has none.
    fn watch(&self) {
        let mut state = self.state();
        while !state.is_closed {
            state = match state.end_what_is_over() {
                // The time that counts may pass faster than a wait here: across a suspend, or where it is not real.
                Some(left) => {
                    let most = if state.is_frozen() { NAP } else { LONG_NAP };
                    let nap = left.clamp(Duration::from_millis(1), most);
                    let woken = self.changed.wait_timeout(state, nap);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.book.state().is_closed = true;
        self.book.changed.notify_all();
        let thread = self.watchdog.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // It never holds the sessions, so this is not its own thread; and it is at its wait, or nearly.
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            let told = Panicked::from_payload(panic.as_ref());
            tracing::error!(error = %told, "the watchdog of the sessions ended early");
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The plug-in is gone, and nobody can call any more.
    is_closed: bool,
    sessions: BTreeMap<SessionId, Entry>,
    /// Highest token seen for each copy.
    fences: BTreeMap<CopyId, FencingToken>,
    ended: VecDeque<SessionId>,
}

#[derive(Debug)]
struct Entry {
    spec: SessionSpec,
    session: Session,
    /// The clock of its limit and its lease.
    clock: Arc<dyn Clock>,
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
            self.end(cx.now(), id, Phase::Aborted);
        }
    }

    fn is_frozen(&self) -> bool {
        self.sessions.values().any(|entry| matches!(entry.phase, Phase::Frozen(_)))
    }

    /// Ends every freeze whose limit has passed and every session whose lease has. Gives the time until the next will; none
    /// if there is nothing to wait for.
    fn end_what_is_over(&mut self) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        let mut over = Vec::new();
        for (id, entry) in self.sessions.iter_mut().filter(|(_, entry)| entry.is_live()) {
            let mut left = entry.lease_end.saturating_since(entry.clock.boot());
            if left.is_zero() {
                over.push((*id, entry.clock.now()));
                continue;
            }
            if let Phase::Frozen(freeze) = &entry.phase
                && let Some((_, until)) = freeze.until
            {
                match until.saturating_since(entry.clock.mono()) {
                    Duration::ZERO => entry.break_freeze(entry.clock.now(), &Cause::LimitPassed),
                    frozen => left = left.min(frozen),
                }
            }
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        for (id, at) in over {
            self.end(at, id, Phase::Aborted);
        }
        next
    }

    fn end(&mut self, at: DateTime<Utc>, id: SessionId, phase: Phase) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.break_freeze(at, &Cause::ThawedEarly);
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
        self.book.state()
    }

    /// Starts the watchdog if there is none yet.
    fn keep_watch(&self) -> PluginResult<()> {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        if watchdog.is_some() {
            return Ok(());
        }
        let book = Arc::clone(&self.book);
        #[allow(
            clippy::disallowed_methods,
            reason = "it has to outlive the runtime of every caller, so it can be no task of the seams"
        )]
        let thread = std::thread::Builder::new()
            .name("files-watchdog".to_owned())
            .spawn(move || book.watch())
            .map_err(|error| {
                PluginError::io("start the watchdog of the sessions", error).without_effect()
            })?;
        *watchdog = Some(thread);
        Ok(())
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
        // Before there is anything to be watched: a freeze must not fail for want of a thread.
        self.keep_watch()?;
        let mut state = self.state();
        state.check_fence(cx, &spec.copies)?;
        self.book.changed.notify_all();
        let entry = state.sessions.entry(spec.id).or_insert_with(|| Entry {
            spec: spec.clone(),
            session: begun.session,
            clock: Arc::clone(&cx.seams().clock),
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
        // By the clock of its limit, which may be another than that of `begin`.
        entry.clock = Arc::clone(&cx.seams().clock);
        entry.phase = Phase::Frozen(freeze);
        // From here on it ends at its limit, whether or not anybody still waits for this call.
        self.book.changed.notify_all();
        Ok(frozen)
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
        state.end(cx.now(), id, Phase::Completed(completions.clone()));
        Ok(completions)
    }

    pub(crate) fn abort(&self, cx: &Cx, id: SessionId) {
        let mut state = self.state();
        if let Some(entry) = state.sessions.get_mut(&id) {
            entry.thaws += 1;
            if entry.is_live() {
                state.end(cx.now(), id, Phase::Aborted);
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
