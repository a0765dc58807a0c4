//! The simulated plug-in: sessions, freezes and completions over real files, in real time.
//!
//! It keeps the contracts X1 to X8 of [`ExchangePlugin`](stillpoint_exchange::ExchangePlugin), in particular:
//!
//! - A freeze ends by itself at its limit, and a session at the end of its lease, whoever is gone.
//! - A session is frozen once: what comes after its thaw, or after its limit, is `Superseded`. A call of an engine that was
//!   killed may still lie in the socket when its successor thaws.
//! - Tokens older than one that was seen, of the session or of one of its copies, are refused.
//!
//! ```text
//!   Open ─freeze▶ Frozen ─thaw, limit▶ Open (thawed) ─complete▶ Completed
//!     └───────────── abort, lease over ────────────▶ Aborted
//!
//!   pen    held by who writes the databases, a round at a time
//!   state  sessions and the one freeze; taken under the pen, never the other way round
//! ```

mod call;
mod session;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, FencingToken, HostId, RunId};
use stillpoint_exchange::{
    BackupKind, Completion, CopyId, EvidenceGrain, PluginCaps, PluginResult, QuiesceLevel, Session,
    SessionId, Truncation,
};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::inventory::LogState;

use crate::ledger::{EndedBy, Ledger, What, now};
use crate::mail::Mail;

/// Ended sessions that are still remembered.
const REMEMBERED: usize = 4096;

/// How the plug-in is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What this machine is called.
    pub host: HostId,
    /// After this long a freeze ends by itself.
    pub freeze_limit: Duration,
    /// How long the writer rests between two rounds.
    pub rest: Duration,
}

/// A simulated Exchange server over a folder of databases. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct SimulatedExchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    /// Reads what lies there; sessions and freezes are this module's own, as its are for data at rest.
    files: FilesPlugin,
    ledger: Ledger,
    pen: Mutex<Mail>,
    /// The beat of the last round.
    beat: AtomicU64,
    state: Mutex<State>,
    /// Told whenever the state has changed.
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<SessionId, Entry>,
    ended: VecDeque<SessionId>,
    /// Highest token seen for each copy.
    fences: BTreeMap<CopyId, FencingToken>,
    /// One at a time: there is one server.
    freeze: Option<Freeze>,
    /// Logs that may go, as soon as nothing is frozen.
    to_truncate: Vec<CopyId>,
    truncated: BTreeMap<CopyId, (DateTime<Utc>, Truncation)>,
    stopped: bool,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    fence: FencingToken,
    lease_end: u64,
    log_states: BTreeMap<CopyId, LogState>,
    phase: Phase,
    /// It was frozen and is not any more, or was thawed before it was: it is never frozen again.
    thawed: bool,
    outcome: Option<Outcome>,
}

#[derive(Debug, PartialEq)]
enum Phase {
    Open,
    Completed(BTreeMap<CopyId, Completion>),
    Aborted,
}

/// The freeze that is open or on its way.
#[derive(Debug)]
struct Freeze {
    session: SessionId,
    /// On the clock of the log.
    until: u64,
    until_civil: DateTime<Utc>,
    /// Since when, and at which beat; not yet while the writer ends its round.
    quiesced: Option<(DateTime<Utc>, u64)>,
}

#[derive(Debug, Clone)]
struct Outcome {
    frozen_at: DateTime<Utc>,
    thawed_at: DateTime<Utc>,
    by: EndedBy,
    beats: (u64, u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// An instant later; the last there is when that lies beyond the calendar.
fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|by| at.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl SimulatedExchange {
    /// A server over the databases in `root`, which must be there.
    ///
    /// # Errors
    /// When the folder has no path that can be told, or its databases cannot be opened.
    pub fn open(root: &Path, setup: Setup, ledger: Ledger) -> PluginResult<Self> {
        let files = FilesPlugin::new(root, setup.host.clone())?;
        let mail = Mail::open(root).map_err(|error| {
            stillpoint_exchange::PluginError::io(format_args!("open {}", root.display()), error)
        })?;
        Ok(Self(Arc::new(Inner {
            setup,
            files,
            ledger,
            beat: AtomicU64::new(mail.beat()),
            pen: Mutex::new(mail),
            state: Mutex::default(),
            news: Condvar::new(),
        })))
    }

    /// What it can do.
    pub fn caps(&self) -> PluginCaps {
        let mut caps = PluginCaps::new("simulated Exchange, an agent of its own");
        caps.kinds = [BackupKind::FullAndLog, BackupKind::Full, BackupKind::Copy].into();
        caps.quiesce = QuiesceLevel::App;
        caps.freeze_limit = Some(self.0.setup.freeze_limit);
        caps.grain = EvidenceGrain::PerDatabase;
        caps.verify = true;
        caps.fencing = true;
        caps
    }

    /// Its log.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Ends what waits and writes.
    pub fn stop(&self) {
        lock(&self.0.state).stopped = true;
        self.0.news.notify_all();
    }

    /// Ends freezes at their limits and sessions at the ends of their leases, until it is stopped. For a thread of its own.
    ///
    /// Every call looks for what is over as well, so that what is answered does not depend on when this thread wakes.
    pub fn keep_time(&self, cx: &Cx) {
        let mut state = lock(&self.0.state);
        while !state.stopped {
            self.0.expire(&mut state, cx);
            let at = now();
            let leases = state.sessions.values().filter(|entry| entry.phase == Phase::Open);
            let limit = state.freeze.iter().map(|freeze| freeze.until);
            let due = leases.map(|entry| entry.lease_end).chain(limit).min();
            let wait = due.map_or(3_600_000_000, |due| due.saturating_sub(at));
            let woken = self.0.news.wait_timeout(state, Duration::from_micros(wait));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns as soon as nothing is frozen.
    pub fn await_thaw(&self) {
        let mut state = lock(&self.0.state);
        while state.freeze.is_some() && !state.stopped {
            state = self.0.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inner {
    /// Ends what is over.
    fn expire(&self, state: &mut State, cx: &Cx) {
        let at = now();
        if state.freeze.as_ref().is_some_and(|freeze| freeze.until <= at) {
            self.end_freeze(state, cx, EndedBy::Limit, None);
        }
        let over = |entry: &Entry| entry.phase == Phase::Open && entry.lease_end <= at;
        let over: Vec<SessionId> =
            state.sessions.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| *id).collect();
        for id in over {
            self.end_session(state, cx, id, EndedBy::Lease, None);
        }
    }

    /// Ends the freeze, which is there; from then on the databases are written again.
    fn end_freeze(&self, state: &mut State, cx: &Cx, by: EndedBy, run: Option<RunId>) {
        let Some(freeze) = state.freeze.take() else { return };
        if let Some(entry) = state.sessions.get_mut(&freeze.session) {
            entry.thawed = true;
        }
        if let Some((frozen_at, beat)) = freeze.quiesced {
            let after = self.beat.load(Ordering::SeqCst);
            let session = freeze.session;
            self.ledger.note(What::Thawed { session, by, run, beat: after });
            let outcome = Outcome { frozen_at, thawed_at: cx.now(), by, beats: (beat, after) };
            if let Some(entry) = state.sessions.get_mut(&freeze.session) {
                entry.outcome = Some(outcome);
            }
        }
        self.news.notify_all();
    }

    /// Ends a session without completing it.
    fn end_session(
        &self,
        state: &mut State,
        cx: &Cx,
        id: SessionId,
        by: EndedBy,
        run: Option<RunId>,
    ) {
        if state.freeze.as_ref().is_some_and(|freeze| freeze.session == id) {
            self.end_freeze(state, cx, by, run);
        }
        if let Some(entry) = state.sessions.get_mut(&id)
            && entry.phase == Phase::Open
        {
            entry.phase = Phase::Aborted;
            self.ledger.note(What::Ended { session: id, by });
            state.forget_old(id);
            self.news.notify_all();
        }
    }
}

impl State {
    /// Remembers that a session has ended, and forgets the oldest that have.
    fn forget_old(&mut self, id: SessionId) {
        self.ended.push_back(id);
        while self.ended.len() > REMEMBERED {
            if let Some(oldest) = self.ended.pop_front() {
                self.sessions.remove(&oldest);
            }
        }
    }
}
