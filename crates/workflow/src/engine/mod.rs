//! The engine: takes plans, and hands out handles of runs.
//!
//! ```text
//!   builder ─▶ Engine ─┬ submit ──▶ a driver for each run
//!                      ├ recover ─▶ the same drivers, over runs that somebody left open
//!                      ├ drain ───▶ takes nothing more, waits for what runs
//!                      └ suspend ─▶ takes nothing more, stops at the next boundary
//! ```

mod builder;
mod closing;
mod error;
mod follow;
mod forget;
mod handle;
mod recovery;
mod report;
mod runs;
mod submission;
mod survey;

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stillpoint_context::{IdempotencyKey, RunId, Seams, StepName};
use tokio::sync::{broadcast, oneshot};

pub use builder::EngineBuilder;
pub use closing::Drained;
pub use error::EngineError;
pub use handle::{RunHandle, Subscription};
pub use recovery::Recovery;
pub use report::{Notice, NoticeKind, RunPhase, RunReport, RunStatus, StepReport};
pub use submission::Submission;
pub use survey::{Claims, OpenRun, ParkedNode, RunAccount};

use runs::Runs;

use crate::action::ActionRegistry;
use crate::claim::Claim;
use crate::driver::{
    Actions, ArbiterMail, Carry, Lines, Mailbox, Request, RunLink, RunTask, Shared, mailbox,
};
use crate::journal::{Append, Journal, JournalError, Seq, Stored, StreamId};
use crate::lane::Lanes;
use crate::machine::{KeyRecord, Parked, Record, RunRecord, RunState, Submitted, Waiting};
use crate::plan::{NodeKind, NodeNo, Plan};
use crate::pool::PoolName;

/// How many notices a slow watcher may fall behind before it loses some.
const NOTICES: usize = 1024;

/// Carries out plans. Cheap to clone; runs go on when every clone is gone.
///
/// ```
/// use std::sync::Arc;
/// use stillpoint_workflow::{
///     ActionRegistry, Done, End, Engine, MemoryJournal, PlanBuilder, Submission, ThreadLanes, TokioSeams, step_fn,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let seams = TokioSeams::current().ok_or("no runtime")?;
/// let engine = Engine::builder(
///     ActionRegistry::new(),
///     Arc::new(MemoryJournal::new()),
///     seams,
///     Arc::new(ThreadLanes),
/// )
/// .build();
///
/// let mut plan = PlanBuilder::new("greet");
/// let name = plan.step("name", step_fn(|_, ()| async { Ok(Done::new("world".to_owned())) })).add();
/// let greeting = step_fn(|_, name: String| async move { Ok(Done::new(format!("hello {name}"))) });
/// let greeting = plan.step("greet", greeting).bind(name).add();
/// let run = engine.submit(Submission::new(plan.build()?)).await?;
///
/// let report = run.wait().await?;
/// assert_eq!(report.end(), End::Succeeded);
/// assert_eq!(report.output_of(&greeting)?, "hello world");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    runs: Mutex<Runs>,
    /// The most runs that may be open.
    limit: usize,
    gate: AtomicU8,
    recovering: tokio::sync::Mutex<()>,
}

/// Whether runs are taken.
const OPEN: u8 = 0;
const CLOSING: u8 = 1;

/// A run that waits for slots of pools before it begins a step or a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingForSlots {
    /// The run.
    pub run: RunId,
    /// The step or guard.
    pub step: StepName,
    /// The pools.
    pub pools: Vec<PoolName>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("runs", &self.lock().by_id.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins an engine over these.
    pub fn builder(
        registry: ActionRegistry,
        journal: Arc<dyn Journal>,
        seams: Seams,
        lanes: Arc<dyn Lanes>,
    ) -> EngineBuilder {
        EngineBuilder::new(registry, journal, seams, lanes)
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.0.gate.load(Ordering::Acquire) == OPEN
    }

    /// Takes a plan. The run is in the journal when this returns, and starts once its claims are granted.
    ///
    /// # Errors
    /// What [`EngineError`] names; nothing has been submitted then, unless the journal says that it may have been.
    ///
    /// # Idempotence
    /// The same key with the same plan, inputs and claims gives the same run, also at the same time, in another process on
    /// the same journal, and after a restart; with others, `run.key_reused`.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it submits all the same, or not at all; with a key it may be repeated.
    pub async fn submit(&self, submission: Submission) -> Result<RunHandle, EngineError> {
        let shared = &self.0.shared;
        if submission.plan.is_ephemeral() && shared.journal.is_durable() {
            return Err(EngineError::Ephemeral);
        }
        let actions = self.actions(&submission.plan)?;
        let run = submission.run.unwrap_or_else(|| RunId(shared.seams.ids.uuid()));
        let seed = shared.seams.ids.random();
        let submitted = submission.into_record(run, seed)?;
        let digest = match submitted.key {
            Some(_) => Some(submitted.digest().map_err(EngineError::BadValue)?),
            None => None,
        };
        let state = RunState::new(Arc::new(submitted));
        if let Some(input) = state.missing_input() {
            return Err(EngineError::MissingInput { input: input.clone() });
        }
        // In a task of its own, so that whoever stops waiting leaves nothing half done.
        let (reply, answer) = oneshot::channel();
        let this = self.clone();
        shared.seams.spawner.spawn(
            "submit",
            Box::pin(async move {
                drop(reply.send(this.take(state, digest, actions).await));
            }),
        );
        answer.await.map_err(|_| EngineError::Gone)?
    }

    async fn take(
        &self,
        state: RunState,
        digest: Option<String>,
        actions: Actions,
    ) -> Result<RunHandle, EngineError> {
        let shared = &self.0.shared;
        let run = state.run();
        if self.is_open() {
            shared.lease.ensure(&shared.seams).await.map_err(EngineError::Journal)?;
        }
        let (link, mailbox) = self.link(&state);
        if let Some(earlier) = self.enter(&link, digest.as_deref())? {
            return Ok(RunHandle::new(earlier));
        }
        let at = shared.now();
        let append =
            |stream, record| Append { stream, expected: Seq(0), at, records: vec![record] };
        let record = Record::Run(RunRecord::Submitted(state.submission()));
        let stream = StreamId::Run(run);
        let mut appends = vec![append(stream, record.clone())];
        if let (Some(key), Some(digest)) = (state.submitted().key.clone(), digest.clone()) {
            let stream = StreamId::of_key(&key);
            appends.push(append(stream, Record::Key(KeyRecord { key, run, digest })));
        }
        match shared.core.commit(appends).await {
            Ok(position) => {
                link.begin(Stored { stream, seq: Seq(0), position, at, record });
            }
            Err(error) => return self.not_taken(&link, state.submitted(), digest, error).await,
        }
        link.set_head(Seq(1));
        let (claims, head_start) = (state.submitted().claims.clone(), state.submitted().head_start);
        let ask = Request { run, claims, head_start, mail: link.mail.clone() };
        if shared.arbiter.send(ArbiterMail::Ask(ask)).is_err() {
            self.leave(&link, EngineError::Gone);
            return Err(EngineError::Gone);
        }
        let task =
            RunTask::new(Arc::clone(shared), Arc::clone(&link), mailbox, state, actions, Seq(1));
        shared.seams.spawner.spawn("run", Box::pin(Box::new(task).run(Carry::New)));
        Ok(RunHandle::new(link))
    }

    /// A submission that the journal refused: because its key is taken, or for good.
    async fn not_taken(
        &self,
        link: &Arc<RunLink>,
        submitted: &Submitted,
        digest: Option<String>,
        error: JournalError,
    ) -> Result<RunHandle, EngineError> {
        let failed = EngineError::Journal(error.clone());
        self.leave(link, failed.clone());
        let (Some(key), Some(digest), JournalError::Conflict { .. }) = (&link.key, digest, error)
        else {
            return Err(failed);
        };
        let Some(known) = self.known_key(key).await? else { return Err(failed) };
        // A hash is of the stored form, and another version may have stored the same in another one.
        if known.digest == digest || self.was_asked(known.run, submitted).await? {
            return self.handle_of(known.run).await;
        }
        Err(EngineError::KeyReused { key: key.clone(), run: known.run })
    }

    /// Whether a run of the journal would do what this submission would.
    async fn was_asked(&self, run: RunId, submitted: &Submitted) -> Result<bool, EngineError> {
        let first = self.0.shared.journal.read(&StreamId::Run(run), Seq(0), 1).await;
        let first = first.map_err(EngineError::Journal)?.into_iter().next();
        let first = first.and_then(|stored| match stored.record {
            Record::Run(RunRecord::Submitted(before)) => Some(before),
            _ => None,
        });
        Ok(first.is_some_and(|before| before.asks_the_same(submitted)))
    }

    /// Which run the journal says that a key belongs to.
    async fn known_key(&self, key: &IdempotencyKey) -> Result<Option<KeyRecord>, EngineError> {
        let stream = StreamId::of_key(key);
        let stored = self.0.shared.journal.read(&stream, Seq(0), 1).await;
        let stored = stored.map_err(EngineError::Journal)?;
        Ok(stored.into_iter().find_map(|stored| match stored.record {
            Record::Key(record) => Some(record),
            _ => None,
        }))
    }

    /// A link of a run of this engine, and its mailbox.
    fn link(&self, state: &RunState) -> (Arc<RunLink>, Mailbox) {
        let (mail, mailbox) = mailbox();
        let journal = Arc::clone(&self.0.shared.journal);
        let key = state.submitted().key.clone();
        (RunLink::new(state.run(), mail, journal, key), mailbox)
    }

    /// The actions of a plan, by node.
    fn actions(&self, plan: &Plan) -> Result<Actions, EngineError> {
        let nodes = plan.nodes().iter().enumerate().map(|(at, node)| {
            let NodeKind::Step(step) = &node.kind else { return Ok(None) };
            let registered = || self.0.shared.registry.find(&step.action, step.version);
            match plan.closure(NodeNo::at(at)).or_else(registered) {
                Some(action) => Ok(Some(action)),
                None => Err(EngineError::UnknownAction {
                    step: node.name.clone(),
                    action: step.action.to_string(),
                    version: step.version,
                }),
            }
        });
        nodes.collect()
    }

    /// Enters a run in the list; gives the earlier run of its key, if there is one.
    fn enter(
        &self,
        link: &Arc<RunLink>,
        digest: Option<&str>,
    ) -> Result<Option<Arc<RunLink>>, EngineError> {
        let mut runs = self.lock();
        if let (Some(key), Some(digest)) = (&link.key, digest)
            && let Some((run, before)) = runs.by_key.get(key)
        {
            if before != digest {
                return Err(EngineError::KeyReused { key: key.clone(), run: *run });
            }
            if let Some(earlier) = runs.by_id.get(run) {
                return Ok(Some(Arc::clone(earlier)));
            }
        }
        if !self.is_open() {
            return Err(EngineError::Closing);
        }
        let limit = self.0.limit;
        if runs.are_full(limit) {
            return Err(EngineError::QueueFull { limit });
        }
        if runs.by_id.contains_key(&link.run) {
            return Err(EngineError::RunTaken { run: link.run });
        }
        runs.enter(link, digest);
        Ok(None)
    }

    /// Takes a run out of the list that did not come to be; whoever has its handle is told.
    fn leave(&self, link: &RunLink, error: EngineError) {
        let mut runs = self.lock();
        runs.by_id.remove(&link.run);
        if let Some(key) = &link.key
            && runs.by_key.get(key).is_some_and(|(run, _)| *run == link.run)
        {
            runs.by_key.remove(key);
        }
        drop(runs);
        link.status.send_modify(|status| {
            if let EngineError::Journal(error) = error {
                status.broken = Some(error);
            }
            status.gone = true;
        });
    }

    /// The handle of a run: open, or among the last that ended.
    pub fn run(&self, run: RunId) -> Option<RunHandle> {
        self.lock().by_id.get(&run).cloned().map(RunHandle::new)
    }

    /// Handles of all open runs and of the last that ended, in the order of their ids.
    pub fn runs(&self) -> Vec<RunHandle> {
        self.lock().by_id.values().cloned().map(RunHandle::new).collect()
    }

    async fn lines(&self) -> Result<Lines, EngineError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.shared.arbiter.send(ArbiterMail::Look { reply });
        sent.map_err(|_| EngineError::Gone)?;
        answer.await.map_err(|_| EngineError::Gone)
    }

    /// What every waiting run waits for, of all processes on the journal: key, holder, since when.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the engine's runtime has ended.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, EngineError> {
        Ok(self.lines().await?.waiting)
    }

    /// Every run that holds claims, of all processes on the journal, with what it holds.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the engine's runtime has ended.
    pub async fn holders(&self) -> Result<Vec<(RunId, Vec<Claim>)>, EngineError> {
        Ok(self.lines().await?.holders)
    }

    /// What of this engine's runs waits for slots of pools.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the engine's runtime has ended, [`EngineError::Journal`] when a plan cannot be read.
    pub async fn waiting_for_slots(&self) -> Result<Vec<WaitingForSlots>, EngineError> {
        let mut waiting = Vec::new();
        for (run, node, pools) in self.lines().await?.slots {
            let Some(handle) = self.run(run) else { continue };
            let step = handle.state().await?.plan().node(node).name.clone();
            waiting.push(WaitingForSlots { run, step, pools });
        }
        Ok(waiting)
    }

    /// Everything that is parked: the run, the node's name, why.
    pub fn parked(&self) -> Vec<(RunId, StepName, Parked)> {
        let runs: Vec<_> = self.lock().by_id.values().cloned().collect();
        let parked = runs.iter().flat_map(|link| {
            let parked = link.status.borrow().parked.clone();
            parked.into_iter().map(|(name, parked)| (link.run, name, parked))
        });
        parked.collect()
    }

    /// Runs that a recovery found open and could not read: of a newer format, or damaged. They keep what they claim.
    pub fn unreadable(&self) -> Vec<(RunId, JournalError)> {
        self.lock().unreadable.iter().map(|(run, error)| (*run, error.clone())).collect()
    }

    /// News of all runs from now on. Lossy: a slow watcher misses some and is told so by its receiver.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.0.shared.notices.subscribe()
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.0.shared.core.journal
    }
}
