//! The engine: takes plans, and hands out handles of runs.

mod error;
mod handle;
mod report;
mod submission;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stillpoint_context::{IdempotencyKey, ProcessId, RunId, Seams, StepName};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use error::EngineError;
pub use handle::{RunHandle, Subscription};
pub use report::{Notice, NoticeKind, RunPhase, RunReport, RunStatus, StepReport};
pub use submission::Submission;

use crate::action::ActionRegistry;
use crate::driver::{Actions, ArbiterMail, ArbiterTask, RunLink, RunTask, Shared, Status};
use crate::journal::{Append, Batch, Journal, Seq, StreamId};
use crate::lane::Lanes;
use crate::machine::{GrantPolicy, Parked, Record, RunRecord, RunState, Submitted, Waiting};
use crate::plan::{NodeKind, NodeNo, Plan};

/// How many ended runs [`Engine::run`] still finds.
const KEPT: usize = 1024;

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
}

#[derive(Default)]
struct Runs {
    by_id: BTreeMap<RunId, Arc<RunLink>>,
    /// Ended runs, oldest first.
    ended: VecDeque<RunId>,
    by_key: HashMap<IdempotencyKey, (RunId, Submitted)>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("runs", &self.lock().by_id.len()).finish_non_exhaustive()
    }
}

/// Makes an [`Engine`].
#[derive(Debug)]
#[must_use]
pub struct EngineBuilder {
    registry: ActionRegistry,
    journal: Arc<dyn Journal>,
    seams: Seams,
    lanes: Arc<dyn Lanes>,
    owner: Option<ProcessId>,
    policy: GrantPolicy,
    audit: bool,
}

impl EngineBuilder {
    /// The process in whose name it writes; a new one unless said.
    pub fn owner(mut self, owner: ProcessId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Whether claims exclude each other; for tests that must fail when they do not.
    #[cfg(any(test, feature = "testing"))]
    pub fn grant_policy(mut self, policy: GrantPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Puts a test between the engine and its registered actions.
    #[cfg(any(test, feature = "testing"))]
    pub fn interpose(mut self, interpose: &Arc<dyn crate::testing::Interpose>) -> Self {
        self.registry = self.registry.interposed(interpose);
        self
    }

    /// Compares every state with what its records amount to, and panics where they differ. O(steps) a round.
    #[cfg(any(test, feature = "testing"))]
    pub fn audited(mut self) -> Self {
        self.audit = true;
        self
    }

    /// The engine. Its arbiter is spawned through the seams, so with [`TokioSeams`](crate::TokioSeams) their runtime
    /// must be alive.
    pub fn build(self) -> Engine {
        let (arbiter, mailbox) = mpsc::unbounded_channel();
        let (notices, _) = broadcast::channel(NOTICES);
        let owner = self.owner.unwrap_or_else(|| ProcessId(self.seams.ids.uuid()));
        let shared = Arc::new(Shared {
            registry: self.registry,
            journal: self.journal,
            seams: self.seams,
            lanes: self.lanes,
            owner,
            epoch: 0,
            arbiter,
            notices,
            audit: self.audit,
        });
        let task = ArbiterTask::new(Arc::clone(&shared), mailbox, self.policy);
        shared.seams.spawner.spawn("arbiter", Box::pin(task.run()));
        Engine(Arc::new(Inner { shared, runs: Mutex::default() }))
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
        EngineBuilder {
            registry,
            journal,
            seams,
            lanes,
            owner: None,
            policy: GrantPolicy::default(),
            audit: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a plan. The run is in the journal when this returns, and starts once its claims are granted.
    ///
    /// # Errors
    /// What [`EngineError`] names; nothing has been submitted then, unless the journal says that it may have been.
    ///
    /// # Idempotence
    /// The same key with the same plan, inputs and claims gives the same run; with others, `run.key_reused`.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it may or may not have submitted.
    pub async fn submit(&self, submission: Submission) -> Result<RunHandle, EngineError> {
        let shared = &self.0.shared;
        if submission.plan.is_ephemeral() && shared.journal.is_durable() {
            return Err(EngineError::Ephemeral);
        }
        let actions = self.actions(&submission.plan)?;
        let run = submission.run.unwrap_or_else(|| RunId(shared.seams.ids.uuid()));
        let seed = shared.seams.ids.random();
        let (submitted, head_start) = submission.into_record(run, seed)?;
        let state = RunState::new(Box::new(submitted.clone()));
        if let Some(input) = state.missing_input() {
            return Err(EngineError::MissingInput { input: input.clone() });
        }
        let (mail, mailbox) = mpsc::unbounded_channel();
        let (status, _) = watch::channel(Status {
            phase: RunPhase::Queued,
            head: Seq(0),
            parked: Vec::new(),
            last: None,
            broken: None,
        });
        let journal = Arc::clone(&shared.journal);
        let link = Arc::new(RunLink { run, status, mail: mail.clone(), journal });
        if let Some(earlier) = self.enter(&link, &submitted)? {
            return Ok(RunHandle::new(earlier));
        }
        let claims = submitted.claims.clone();
        let batch = Batch {
            owner: shared.owner,
            epoch: shared.epoch,
            appends: vec![Append {
                stream: StreamId::Run(run),
                expected: Seq(0),
                at: shared.now(),
                records: vec![Record::Run(RunRecord::Submitted(Box::new(submitted)))],
            }],
            facts: Vec::new(),
        };
        if let Err(error) = shared.journal.commit(batch).await {
            self.leave(run);
            return Err(EngineError::Journal(error));
        }
        link.status.send_modify(|status| status.head = Seq(1));
        let ask = ArbiterMail::Ask { run, claims, head_start, mail };
        if shared.arbiter.send(ask).is_err() {
            self.leave(run);
            return Err(EngineError::Gone);
        }
        let task =
            RunTask::new(Arc::clone(shared), Arc::clone(&link), mailbox, state, actions, Seq(1));
        shared.seams.spawner.spawn("run", Box::pin(task.run()));
        Ok(RunHandle::new(link))
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
                    action: step.action.clone(),
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
        submitted: &Submitted,
    ) -> Result<Option<Arc<RunLink>>, EngineError> {
        let mut runs = self.lock();
        if let Some(key) = &submitted.key
            && let Some((run, before)) = runs.by_key.get(key)
        {
            let same = before.plan == submitted.plan
                && before.inputs == submitted.inputs
                && before.claims == submitted.claims;
            if !same {
                return Err(EngineError::KeyReused { key: key.clone(), run: *run });
            }
            if let Some(earlier) = runs.by_id.get(run) {
                return Ok(Some(Arc::clone(earlier)));
            }
        }
        if runs.by_id.contains_key(&link.run) {
            return Err(EngineError::RunTaken { run: link.run });
        }
        if let Some(key) = &submitted.key {
            runs.by_key.insert(key.clone(), (link.run, submitted.clone()));
        }
        runs.by_id.insert(link.run, Arc::clone(link));
        runs.trim();
        Ok(None)
    }

    fn leave(&self, run: RunId) {
        let mut runs = self.lock();
        runs.by_id.remove(&run);
        runs.by_key.retain(|_, (other, _)| *other != run);
    }

    /// The handle of a run: open, or among the last that ended.
    pub fn run(&self, run: RunId) -> Option<RunHandle> {
        self.lock().by_id.get(&run).cloned().map(RunHandle::new)
    }

    /// Handles of all open runs and of the last that ended, in the order of their ids.
    pub fn runs(&self) -> Vec<RunHandle> {
        self.lock().by_id.values().cloned().map(RunHandle::new).collect()
    }

    /// What every waiting run waits for: key, holder, since when.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the engine's runtime has ended.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, EngineError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.shared.arbiter.send(ArbiterMail::Waiting { reply });
        sent.map_err(|_| EngineError::Gone)?;
        answer.await.map_err(|_| EngineError::Gone)
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

    /// News of all runs from now on. Lossy: a slow watcher misses some and is told so by its receiver.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.0.shared.notices.subscribe()
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.0.shared.journal
    }
}

impl Runs {
    /// Forgets the oldest ended runs beyond what is kept. Each run is moved once, so a submission costs O(1) amortised.
    fn trim(&mut self) {
        if self.by_id.len() <= KEPT.max(2 * self.ended.len()) {
            return;
        }
        let known: std::collections::BTreeSet<_> = self.ended.iter().copied().collect();
        for (run, link) in &self.by_id {
            if !known.contains(run) && link.status.borrow().last.is_some() {
                self.ended.push_back(*run);
            }
        }
        while self.ended.len() > KEPT {
            if let Some(run) = self.ended.pop_front() {
                self.by_id.remove(&run);
                self.by_key.retain(|_, (other, _)| *other != run);
            }
        }
    }
}
