//! A plug-in under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stillpoint_context::{
    BoxFuture, Cx, ErrorClass, ErrorFacts, FencingToken, RunId, Seams, Spawner,
};
use stillpoint_exchange::{
    BackupKind, Coordination, CopyId, ExchangePlugin, Inventory, PluginCaps, PluginError,
    PluginErrorKind, PluginResult, Scope, Session, SessionId, SessionSpec, SessionState, Verdict,
};
use uuid::Uuid;

use super::super::frame::{Flaw, Kit, ensure};
use super::super::store::BoxError;
use super::place::{Can, PluginFactory, PluginPlace};

impl From<PluginError> for Flaw {
    fn from(error: PluginError) -> Self {
        Self::new(format!("a call failed: {error} ({})", error.code()))
    }
}

/// How often a call that is told to come again later is made at most. Most of these are a second apart: what counts is that
/// somebody who is slow comes to an end.
const TRIES: u32 = 300;
/// After so many the calls are a second apart.
const SOON: u32 = 100;
/// How long a suite waits for what ends by itself, at most.
const PATIENCE: Duration = Duration::from_mins(2);
/// A lease that is not to end.
pub(super) const LEASE: Duration = Duration::from_hours(2);

/// The newest token under which a case calls.
pub(super) const NEWEST: u64 = 9;

/// The kit of the suite for plug-ins.
#[derive(Debug)]
pub enum Plugins {}

/// What a case for a plug-in cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It freezes and thaws.
    Freezes,
    /// It snaps by itself, and the place prepares for it.
    Snaps,
    /// It verifies, and the place exposes what is frozen.
    Verifies,
    /// It refuses old tokens.
    Fences,
    /// It takes at most so many databases, and there are more.
    MostDatabases,
    /// There are copies on two servers.
    TwoServers,
    /// There are two copies on one server.
    TwoCopies,
    /// It begins copy-only backups.
    CopyKind,
    /// It begins backups that truncate.
    Truncates,
    /// It has log backups.
    ClosedLogs,
    /// It has none.
    NoClosedLogs,
    /// The place opens a plug-in again.
    Reopen,
    /// The place reads files.
    Read,
    /// The place sees freezes.
    SeeFreeze,
    /// The place breaks freezes.
    Disturb,
    /// The place renames databases.
    Rename,
    /// Sessions may be completed.
    Complete,
}

impl Need {
    fn can(self) -> Option<(Can, &'static str)> {
        Some(match self {
            Self::Reopen => (Can::Reopen, "the plug-in cannot be opened again"),
            Self::Read => (Can::Read, "the place cannot read the files"),
            Self::SeeFreeze => (Can::SeeFreeze, "the place cannot see a freeze"),
            Self::Disturb => (Can::Disturb, "the place cannot break a freeze"),
            Self::Rename => (Can::Rename, "the place cannot rename a database"),
            Self::Complete => (Can::Complete, "no session is to be completed"),
            _ => return None,
        })
    }

    /// Whether a case that needs this leaves databases and logs as they are.
    fn is_harmless(self) -> bool {
        !matches!(self, Self::Disturb | Self::Rename | Self::Complete)
    }

    fn missing(self, trial: &Trial) -> Option<&'static str> {
        if let Some((can, why)) = self.can() {
            return (!trial.can(can)).then_some(why);
        }
        let caps = &trial.caps;
        let lacking = |lacks: bool, why| lacks.then_some(why);
        match self {
            Self::Freezes => lacking(!trial.freezes(), "the plug-in does not freeze by itself"),
            Self::Snaps if !trial.snaps() => Some("the plug-in does not snap by itself"),
            Self::Snaps => lacking(!trial.can(Can::Prepare), "nobody prepares what it would snap"),
            Self::Verifies => lacking(
                !caps.verify || !trial.can(Can::Expose),
                "the plug-in does not verify, or nothing can be exposed",
            ),
            Self::Fences => lacking(!caps.fencing, "the plug-in does not look at tokens"),
            Self::ClosedLogs => {
                lacking(!caps.kinds.contains(&BackupKind::Log), "the plug-in has no log backups")
            }
            Self::NoClosedLogs => {
                lacking(caps.kinds.contains(&BackupKind::Log), "the plug-in has log backups")
            }
            Self::MostDatabases => lacking(
                caps.max_databases.is_none_or(|most| trial.copies.len() <= most.get() as usize),
                "there are no more databases than a set may have",
            ),
            Self::TwoServers => lacking(trial.elsewhere.is_none(), "every copy is on one server"),
            Self::TwoCopies => lacking(
                trial.copies.len() < 2 || caps.max_databases.is_some_and(|most| most.get() < 2),
                "a set has one database",
            ),
            Self::CopyKind => lacking(
                !caps.kinds.contains(&BackupKind::Copy),
                "the plug-in has no copy-only backups",
            ),
            Self::Truncates => lacking(
                !caps.kinds.iter().any(|kind| kind.truncates()),
                "the plug-in has no backups that truncate",
            ),
            _ => None,
        }
    }
}

/// A kind that it begins no session of; of log backups there are none.
pub(super) fn missing_kind(caps: &PluginCaps) -> BackupKind {
    let missing = BackupKind::ALL.into_iter().find(|kind| !caps.kinds.contains(kind));
    missing.unwrap_or(BackupKind::Log)
}

impl Kit for Plugins {
    type Factory<'f> = dyn PluginFactory + 'f;
    type Subject = Trial;
    type Need = Need;
    const NOUN: &'static str = "plug-in";

    fn open<'f>(factory: &'f Self::Factory<'f>) -> BoxFuture<'f, Result<Trial, Flaw>> {
        Box::pin(Trial::open(factory))
    }

    fn is_harmless(need: Need) -> bool {
        need.is_harmless()
    }

    fn missing(need: Need, _: &Self::Factory<'_>, trial: &Trial) -> Option<&'static str> {
        need.missing(trial)
    }

    fn tidy(trial: &Trial) -> BoxFuture<'static, Result<(), Flaw>> {
        let (place, ids, cx) =
            (Arc::clone(&trial.place), Arc::clone(&trial.ids), trial.under(NEWEST));
        Box::pin(async move {
            let ids = std::mem::take(&mut *lock(&ids));
            if ids.is_empty() {
                return Ok(());
            }
            let plugin = opened(&*place).await?;
            let mut first = Ok(());
            for id in ids {
                let ended = plugin.abort(&cx, id).await.map_err(Flaw::from);
                first = first.and(ended);
            }
            first
        })
    }
}

/// A plug-in under test, and the organisation that it speaks for.
pub struct Trial {
    // Dropped before the place.
    plugin: Mutex<Option<Arc<dyn ExchangePlugin>>>,
    pub(super) caps: PluginCaps,
    /// The copies of one server that can be backed up.
    pub(super) copies: Vec<CopyId>,
    /// One on another server.
    pub(super) elsewhere: Option<CopyId>,
    can: BTreeSet<Can>,
    cx: Cx,
    pub(super) place: Arc<dyn PluginPlace>,
    /// Every session that the case has a name for.
    ids: Arc<Mutex<Vec<SessionId>>>,
}

impl Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trial").field(&self.caps).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the place could not do is no fault of the plug-in; the case has failed all the same.
pub(super) fn placed<T>(what: &str, found: Result<T, BoxError>) -> Result<T, Flaw> {
    found.map_err(|error| Flaw::new(format!("the place failed to {what}: {error}")))
}

/// A refusal that is one of several.
pub(super) fn refused<T: Debug>(
    what: &str,
    found: PluginResult<T>,
    wanted: &str,
    is_it: impl Fn(&PluginErrorKind) -> bool,
) -> Result<PluginError, Flaw> {
    match found {
        Ok(answer) => Err(Flaw::new(format!("{what} answers {answer:?}, and not {wanted}"))),
        Err(error) if is_it(error.kind()) => Ok(error),
        Err(error) => {
            Err(Flaw::new(format!("{what} fails as {:?} ({error}), not {wanted}", error.kind())))
        }
    }
}

/// A refusal because the session is not open.
pub(super) fn gone<T: Debug>(what: &str, found: PluginResult<T>) -> Result<(), Flaw> {
    refused(what, found, "SessionGone", |kind| *kind == PluginErrorKind::SessionGone).map(drop)
}

async fn opened(place: &dyn PluginPlace) -> Result<Arc<dyn ExchangePlugin>, Flaw> {
    let failed = |error| Flaw::new(format!("the plug-in cannot be opened: {error}"));
    place.open().await.map_err(failed)
}

impl Trial {
    async fn open(factory: &dyn PluginFactory) -> Result<Self, Flaw> {
        let place: Arc<dyn PluginPlace> = placed("be made", factory.place().await)?.into();
        let plugin = opened(&*place).await?;
        let caps = plugin.caps();
        let seams = factory.seams();
        let cx = Cx::builder(&seams).run(RunId(seams.ids.uuid())).fence(FencingToken(7)).build();
        let inventory = plugin.inventory(&cx, &Scope::Everything).await?;
        let mut servers = BTreeMap::<_, Vec<CopyId>>::new();
        for copy in inventory.copies.values().filter(|copy| copy.availability.is_available()) {
            servers.entry(copy.id.host.clone()).or_default().push(copy.id.clone());
        }
        let most = servers.iter().max_by_key(|(_, copies)| copies.len());
        let (host, copies) = most
            .map(|(host, copies)| (host.clone(), copies.clone()))
            .ok_or_else(|| Flaw::new("the place has no copy that can be backed up"))?;
        servers.remove(&host);
        let elsewhere = servers.into_values().flatten().next();
        Ok(Self {
            plugin: Mutex::new(Some(plugin)),
            caps,
            copies,
            elsewhere,
            can: factory.can(),
            cx,
            place,
            ids: Arc::default(),
        })
    }

    /// Closes the plug-in and opens it again. Handles that the case has are dropped before.
    pub(super) async fn reopen(&self) -> Result<(), Flaw> {
        drop(lock(&self.plugin).take());
        let plugin = opened(&*self.place).await?;
        *lock(&self.plugin) = Some(plugin);
        Ok(())
    }

    pub(super) fn plugin(&self) -> Result<Arc<dyn ExchangePlugin>, Flaw> {
        lock(&self.plugin).clone().ok_or_else(|| Flaw::new("the plug-in is closed"))
    }

    pub(super) fn cx(&self) -> &Cx {
        &self.cx
    }

    /// The context under another token.
    pub(super) fn under(&self, fence: u64) -> Cx {
        let builder = Cx::builder(self.cx.seams()).run(self.cx.run());
        builder.fence(FencingToken(fence)).build()
    }

    /// The context with seams that start no task.
    pub(super) fn alone(&self) -> (Cx, Arc<Alone>) {
        let seams = self.cx.seams();
        let alone = Arc::new(Alone { inner: Arc::clone(&seams.spawner), tasks: Mutex::default() });
        let spawner: Arc<dyn Spawner> = Arc::clone(&alone) as _;
        let seams = Seams::new(Arc::clone(&seams.clock), spawner, Arc::clone(&seams.ids));
        let cx = Cx::builder(&seams).run(self.cx.run()).fence(self.cx.fence()).build();
        (cx, alone)
    }

    pub(super) fn can(&self, what: Can) -> bool {
        self.can.contains(&what)
    }

    pub(super) fn freezes(&self) -> bool {
        self.caps.coordination.contains(&Coordination::Engine)
    }

    pub(super) fn snaps(&self) -> bool {
        self.caps.coordination.contains(&Coordination::Plugin)
    }

    pub(super) fn id(&self) -> SessionId {
        let id = SessionId(self.cx.seams().ids.uuid());
        lock(&self.ids).push(id);
        id
    }

    pub(super) fn uuid(&self) -> Uuid {
        self.cx.seams().ids.uuid()
    }

    pub(super) async fn inventory(&self, scope: &Scope) -> Result<Inventory, Flaw> {
        Ok(self.plugin()?.inventory(&self.cx, scope).await?)
    }

    /// A session of the first copies, as many as can be, at most two.
    pub(super) fn spec(&self) -> Result<SessionSpec, Flaw> {
        let most = self.caps.max_databases.map_or(2, |most| most.get().min(2)) as usize;
        let copies = self.copies.iter().take(most).cloned().collect();
        Ok(SessionSpec::new(self.id(), self.kind()?, copies, LEASE))
    }

    /// A session of the first copy.
    pub(super) fn one(&self) -> Result<SessionSpec, Flaw> {
        let copies = self.copies.iter().take(1).cloned().collect();
        Ok(SessionSpec::new(self.id(), self.kind()?, copies, LEASE))
    }

    /// A kind that takes databases, one that truncates nothing if there is one.
    fn kind(&self) -> Result<BackupKind, Flaw> {
        let mut kinds: Vec<_> =
            self.caps.kinds.iter().copied().filter(|kind| kind.takes_database()).collect();
        kinds.sort_by_key(|kind| kind.truncates());
        kinds.first().copied().ok_or_else(|| Flaw::new("the plug-in begins no kind of backup"))
    }

    pub(super) async fn begin(&self, spec: &SessionSpec) -> Result<Session, Flaw> {
        let plugin = self.plugin()?;
        let mut tries = 0;
        loop {
            match plugin.begin(&self.cx, spec).await {
                Err(error) if self.again(&error, &mut tries).await => {}
                result => return Ok(result?),
            }
        }
    }

    /// Whether a call that failed is to be made again; waits for that.
    async fn again(&self, error: &PluginError, tries: &mut u32) -> bool {
        if error.class() != ErrorClass::Busy || *tries >= TRIES {
            return false;
        }
        *tries += 1;
        let time = error.retry_after().unwrap_or(Duration::from_millis(20));
        let time = if *tries > SOON { time.max(Duration::from_secs(1)) } else { time };
        self.wait(time).await;
        true
    }

    /// Begins a session and freezes it.
    pub(super) async fn frozen(&self, spec: &SessionSpec) -> Result<(), Flaw> {
        self.begin(spec).await?;
        self.plugin()?.freeze(&self.cx, spec.id, self.limit()).await?;
        Ok(())
    }

    /// A limit that a freeze does not reach while it is looked at.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.caps.shortest_limit()
    }

    /// Begins a session and brings it past its freeze, in the way that the plug-in can.
    pub(super) async fn thawed(&self, spec: &SessionSpec) -> Result<(), Flaw> {
        let session = self.begin(spec).await?;
        let plugin = self.plugin()?;
        if self.freezes() {
            plugin.freeze(&self.cx, spec.id, self.limit()).await?;
            plugin.thaw(&self.cx, spec.id).await?;
        } else {
            let prepared = placed("prepare", self.place.prepare(&session.files).await)?;
            plugin.snap(&self.cx, spec.id, &prepared).await?;
        }
        Ok(())
    }

    pub(super) async fn state(&self, id: SessionId) -> Result<SessionState, Flaw> {
        Ok(self.plugin()?.session(&self.cx, id).await?)
    }

    /// Aborts a session, and looks that nothing of it is on.
    pub(super) async fn end(&self, spec: &SessionSpec) -> Result<(), Flaw> {
        self.plugin()?.abort(&self.cx, spec.id).await?;
        self.is_over(spec, "after it was aborted").await
    }

    /// That a session is neither open nor frozen.
    pub(super) async fn is_over(&self, spec: &SessionSpec, when: &str) -> Result<(), Flaw> {
        let state = self.state(spec.id).await?;
        let is_on = matches!(
            state,
            SessionState::Open | SessionState::Frozen { .. } | SessionState::Snapped(_)
        );
        ensure(!is_on, || format!("{when} the session is {state:?}"))?;
        self.writes_again(spec, when).await
    }

    /// That a session is not frozen, by what it says and by what the place sees.
    pub(super) async fn is_not_frozen(&self, spec: &SessionSpec, when: &str) -> Result<(), Flaw> {
        let state = self.state(spec.id).await?;
        let frozen = matches!(state, SessionState::Frozen { .. });
        ensure(!frozen, || format!("{when} the session is {state:?}"))?;
        self.writes_again(spec, when).await
    }

    pub(super) async fn is_frozen(&self, spec: &SessionSpec, when: &str) -> Result<(), Flaw> {
        let state = self.state(spec.id).await?;
        let frozen = matches!(state, SessionState::Frozen { .. });
        ensure(frozen, || format!("{when} the session is {state:?}, and not frozen"))
    }

    async fn writes_again(&self, spec: &SessionSpec, when: &str) -> Result<(), Flaw> {
        if !self.can(Can::SeeFreeze) {
            return Ok(());
        }
        for copy in &spec.copies {
            let held = placed("look for a freeze", self.place.is_frozen(copy).await)?;
            ensure(!held, || format!("{when} the writes of {copy} are held"))?;
        }
        Ok(())
    }

    /// Waits until a session is not frozen, or not open, by itself.
    pub(super) async fn ends_by_itself(
        &self,
        id: SessionId,
        what: &str,
        is_on: impl Fn(&SessionState) -> bool,
    ) -> Result<SessionState, Flaw> {
        let began = self.cx.mono();
        loop {
            let state = self.state(id).await?;
            if !is_on(&state) {
                return Ok(state);
            }
            ensure(self.cx.mono().saturating_since(began) < PATIENCE, || {
                format!("{what} does not end by itself: the session is {state:?}")
            })?;
            self.wait(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn wait(&self, time: Duration) {
        // The context of a trial has no deadline and is never cancelled.
        let _slept = self.cx.sleep(time).await;
    }
}

/// Verdicts that call every copy of a session good.
pub(super) fn all_good(spec: &SessionSpec) -> BTreeMap<CopyId, Verdict> {
    spec.copies.iter().map(|copy| (copy.clone(), Verdict::Good)).collect()
}

/// A spawner that notes the tasks that it is asked to start, and starts none. Work that blocks goes its way.
#[derive(Debug)]
pub(super) struct Alone {
    inner: Arc<dyn Spawner>,
    tasks: Mutex<Vec<&'static str>>,
}

impl Alone {
    pub(super) fn tasks(&self) -> Vec<&'static str> {
        lock(&self.tasks).clone()
    }
}

impl Spawner for Alone {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        lock(&self.tasks).push(name);
        // Nobody runs it, as on a runtime that has stopped.
        drop(task);
    }

    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.inner.blocking(name, work);
    }
}
