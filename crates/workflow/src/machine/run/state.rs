//! The state of a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use stillpoint_context::{Failure, FencingToken, Mono, RunId, StepName};

use crate::action::EffectKind;
use crate::machine::guard::{GuardState, GuardVerdict, STOP_WAIT};
use crate::machine::record::{Cause, Debris, End, Parked, Record, RunRecord, Submitted, Warning};
use crate::payload::Payload;
use crate::plan::{NodeKind, NodeNo, Plan, Role, Step};

/// The state of a run: what its records amount to. Read one from a journal with [`RunState::replay`].
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    pub(super) submitted: Arc<Submitted>,
    pub(super) phase: RunPhase,
    pub(super) fence: FencingToken,
    pub(super) cause: Option<Cause>,
    pub(super) cancelled_by: Option<String>,
    /// The point of no return, from its intent on.
    pub(super) crossed: Option<NodeNo>,
    pub(super) nodes: Vec<NodeState>,
    pub(super) guards: BTreeMap<NodeNo, GuardRun>,
    /// Top-level nodes whose predecessors are done.
    pub(super) ready: VecDeque<NodeNo>,
    /// Nodes whose undo may begin.
    pub(super) offers: VecDeque<NodeNo>,
    pub(super) timers: BTreeSet<(Mono, NodeNo, Timer)>,
    /// Going forward: top-level nodes that are not done.
    pub(super) left: usize,
    /// Unwinding: started nodes that are not settled.
    pub(super) unsettled: usize,
    /// Nodes at work or waiting for a time.
    pub(super) active: usize,
    /// Dropped attempts that are still on a thread.
    pub(super) lingering: usize,
    pub(super) parked: Vec<Parked>,
    pub(super) debris: Vec<Debris>,
    pub(super) warnings: Vec<Warning>,
    /// The time of the latest record.
    pub(super) seen: Mono,
    /// Nodes that were at work when their process went, until somebody takes them up.
    pub(super) lost: VecDeque<NodeNo>,
    /// Guards that were open when their process went, until their exits have ended.
    pub(super) exiting: usize,
}

/// Where a run as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunPhase {
    Queued,
    Forward,
    /// Cancelled past the point of no return: what follows it is not started.
    Halted,
    Unwinding,
    Ended(End),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeState {
    pub(super) stage: Stage,
    /// Number of the latest attempt; 0 before the first.
    pub(super) attempt: u32,
    /// Attempts counted against the retries: since the start, or since a person resumed it.
    pub(super) tries: u32,
    pub(super) undo_attempt: u32,
    /// Predecessors that are not done.
    pub(super) waits: u32,
    /// Unwinding: started successors that are not settled.
    pub(super) holds: u32,
    /// An attempt may have had an effect.
    pub(super) owed: bool,
    /// Whether the latest attempt may still be on a thread.
    pub(super) thread: Thread,
    pub(super) output: Option<Payload>,
    pub(super) failure: Option<Box<Failure>>,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Ready,
    Running {
        until: Option<Mono>,
    },
    /// Dropped; the probe waits until it is gone from its thread, or for this long.
    Stopping {
        until: Mono,
    },
    Probing {
        until: Mono,
    },
    Asking {
        until: Mono,
    },
    Pausing {
        until: Mono,
    },
    Preparing,
    Armed,
    /// A guard that was armed when its process went, and is being exited.
    Exiting,
    /// A guard whose exit is owed.
    Owing,
    /// It was at work when its process went: an attempt, or an undo.
    Lost {
        undo: bool,
    },
    Done,
    Failed,
    Offered,
    Undoing {
        until: Option<Mono>,
    },
    UndoPausing {
        until: Mono,
    },
    Settled,
    /// Never started, never will.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thread {
    Free,
    /// Dropped then, not gone yet.
    Dropped(Mono),
    /// No longer waited for.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Stage,
    Thread,
}

/// A guard from arming on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GuardRun {
    pub(super) state: GuardState,
    /// Unwinding: started body steps that are not settled.
    pub(super) unsettled: usize,
}

impl Stage {
    pub(super) const fn timer(self) -> Option<Mono> {
        match self {
            Self::Running { until } | Self::Undoing { until } => until,
            Self::Stopping { until }
            | Self::Probing { until }
            | Self::Asking { until }
            | Self::Pausing { until }
            | Self::UndoPausing { until } => Some(until),
            _ => None,
        }
    }

    pub(super) const fn is_active(self) -> bool {
        !matches!(
            self,
            Self::Waiting
                | Self::Ready
                | Self::Owing
                | Self::Done
                | Self::Failed
                | Self::Settled
                | Self::Skipped
        )
    }

    /// Whether it only waits for a time or for somebody to begin.
    pub(super) const fn is_at_rest(self) -> bool {
        matches!(
            self,
            Self::Pausing { .. }
                | Self::Asking { .. }
                | Self::UndoPausing { .. }
                | Self::Preparing
                | Self::Lost { .. }
                | Self::Offered
        )
    }

    pub(super) const fn has_started(self) -> bool {
        !matches!(self, Self::Waiting | Self::Ready | Self::Preparing | Self::Skipped)
    }
}

/// How far a node has come, for people.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeProgress {
    /// It has not started.
    Waiting,
    /// It is at work.
    Running,
    /// It waits before the next attempt.
    Retrying,
    /// Its outcome is being found out.
    Probing,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// It is being undone.
    Undoing,
    /// It is undone, or nothing was owed.
    Undone,
    /// It never started and never will.
    Skipped,
    /// It waits for a person.
    Parked,
}

impl RunState {
    /// The state after a whole log, or a prefix of one; `None` unless the first record is the submission.
    pub fn replay<'a>(records: impl IntoIterator<Item = (Mono, &'a Record)>) -> Option<Self> {
        let mut state: Option<Self> = None;
        for (at, record) in records {
            match (&mut state, record) {
                (None, Record::Run(RunRecord::Submitted(submitted))) => {
                    state = Some(Self::new(Arc::clone(submitted)));
                }
                (Some(state), Record::Run(record)) => state.apply(at, record),
                _ => return None,
            }
        }
        state
    }

    pub(crate) fn new(submitted: Arc<Submitted>) -> Self {
        let plan = &submitted.plan;
        let topology = plan.topology();
        let nodes = plan.nodes().iter().enumerate().map(|(at, _)| {
            let waits = topology.preds(NodeNo::at(at)).len();
            NodeState {
                stage: Stage::Waiting,
                attempt: 0,
                tries: 0,
                undo_attempt: 0,
                waits: u32::try_from(waits).unwrap_or(u32::MAX),
                holds: 0,
                owed: false,
                thread: Thread::Free,
                output: None,
                failure: None,
            }
        });
        let (nodes, left) = (nodes.collect(), topology.top().len());
        Self { nodes, left, ..Self::hollow(submitted) }
    }

    /// A state without its nodes: what is left where one was taken away.
    pub(super) fn hollow(submitted: Arc<Submitted>) -> Self {
        Self {
            submitted,
            phase: RunPhase::Queued,
            fence: FencingToken::default(),
            cause: None,
            cancelled_by: None,
            crossed: None,
            nodes: Vec::new(),
            guards: BTreeMap::new(),
            ready: VecDeque::new(),
            offers: VecDeque::new(),
            timers: BTreeSet::new(),
            left: 0,
            unsettled: 0,
            active: 0,
            lingering: 0,
            parked: Vec::new(),
            debris: Vec::new(),
            warnings: Vec::new(),
            seen: Mono::ZERO,
            lost: VecDeque::new(),
            exiting: 0,
        }
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.submitted.run
    }

    /// What it was submitted with.
    pub fn submitted(&self) -> &Submitted {
        &self.submitted
    }

    /// The same, to be kept.
    pub(crate) fn submission(&self) -> Arc<Submitted> {
        Arc::clone(&self.submitted)
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.submitted.plan
    }

    /// How it ended, if it has.
    pub const fn end(&self) -> Option<End> {
        match self.phase {
            RunPhase::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Whether all its claims have been granted.
    pub fn has_started(&self) -> bool {
        self.phase != RunPhase::Queued && self.fence != FencingToken::default()
    }

    /// Whether it stops or undoes.
    pub const fn is_unwinding(&self) -> bool {
        matches!(self.phase, RunPhase::Unwinding | RunPhase::Halted)
    }

    /// Why it failed or was cancelled.
    pub const fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Who cancelled it.
    pub fn cancelled_by(&self) -> Option<&str> {
        self.cancelled_by.as_deref()
    }

    /// The nodes that wait for a person.
    pub fn parked(&self) -> &[Parked] {
        &self.parked
    }

    /// What is left outside.
    pub fn debris(&self) -> &[Debris] {
        &self.debris
    }

    /// What went not quite right.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How far a node has come.
    pub fn progress(&self, node: NodeNo) -> NodeProgress {
        if self.parked.iter().any(|parked| parked.node == node) {
            return NodeProgress::Parked;
        }
        match self.nodes[node.index()].stage {
            Stage::Waiting | Stage::Ready => NodeProgress::Waiting,
            Stage::Running { .. } | Stage::Preparing | Stage::Armed | Stage::Exiting => {
                NodeProgress::Running
            }
            Stage::Stopping { .. }
            | Stage::Probing { .. }
            | Stage::Asking { .. }
            | Stage::Lost { undo: false } => NodeProgress::Probing,
            Stage::Pausing { .. } => NodeProgress::Retrying,
            Stage::Owing => NodeProgress::Parked,
            Stage::Done => NodeProgress::Done,
            Stage::Failed => NodeProgress::Failed,
            Stage::Offered
            | Stage::Undoing { .. }
            | Stage::UndoPausing { .. }
            | Stage::Lost { undo: true } => NodeProgress::Undoing,
            Stage::Settled => NodeProgress::Undone,
            Stage::Skipped => NodeProgress::Skipped,
        }
    }

    /// The number of attempts of a step so far.
    pub fn attempts(&self, node: NodeNo) -> u32 {
        self.nodes[node.index()].attempt
    }

    /// What a node gave.
    pub fn output(&self, node: NodeNo) -> Option<&Payload> {
        self.nodes[node.index()].output.as_ref()
    }

    /// What a node failed with last.
    pub fn failure(&self, node: NodeNo) -> Option<&Failure> {
        self.nodes[node.index()].failure.as_deref()
    }

    /// The verdict over a guard, once its lane has ended.
    pub fn verdict(&self, guard: NodeNo) -> Option<GuardVerdict> {
        let over = !matches!(self.nodes[guard.index()].stage, Stage::Armed | Stage::Exiting);
        self.guards.get(&guard).filter(|_| over).map(|run| run.state.verdict())
    }

    /// The time of the latest record, on the clock of the process that wrote it.
    pub(crate) fn seen(&self) -> Mono {
        self.seen
    }

    /// Whether this is a guard that must be exited.
    pub(crate) fn is_armed(&self, node: NodeNo) -> bool {
        matches!(self.nodes[node.index()].stage, Stage::Armed | Stage::Exiting)
    }

    pub(crate) fn fence(&self) -> FencingToken {
        self.fence
    }

    pub(crate) fn guard_state(&self, guard: NodeNo) -> Option<&GuardState> {
        self.guards.get(&guard).map(|run| &run.state)
    }

    pub(super) fn name(&self, node: NodeNo) -> &StepName {
        &self.plan().node(node).name
    }

    pub(super) fn step(&self, node: NodeNo) -> Option<&Step> {
        self.plan().step(node)
    }

    pub(super) fn effect(&self, node: NodeNo) -> EffectKind {
        // What an enter does is taken back by its exit, what an exit does by nothing.
        let step = self.step(node).filter(|step| matches!(step.role, Role::Plain | Role::Body));
        step.map_or(EffectKind::ReadOnly, |step| step.effect)
    }

    pub(super) fn is_optional(&self, node: NodeNo) -> bool {
        self.step(node).is_some_and(|step| step.optional)
    }

    /// The input of a step, put together from the outputs of earlier ones.
    pub(crate) fn input(&self, node: NodeNo) -> Payload {
        let Some(step) = self.step(node) else { return Payload::UNIT };
        step.feed.compose(&|from| self.value(from))
    }

    /// What a node gives to those that bind it: its output; of an optional step, the result as serde writes one.
    pub(crate) fn value(&self, node: NodeNo) -> Payload {
        let output = self.output(node);
        if !self.is_optional(node) {
            return output.cloned().unwrap_or_default();
        }
        let failure = || self.failure(node).and_then(|failure| serde_json::to_vec(failure).ok());
        let (tag, text) = match output {
            Some(output) => ("Ok", output.as_bytes().to_vec()),
            None => ("Err", failure().unwrap_or_else(|| b"null".to_vec())),
        };
        let mut result = format!("{{\"{tag}\":").into_bytes();
        result.extend(text);
        result.push(b'}');
        Payload::from_json(result)
    }

    /// What has to be given at submission and is not.
    pub(crate) fn missing_input(&self) -> Option<&StepName> {
        let inputs = self.plan().nodes().iter().filter(|node| node.kind == NodeKind::Input);
        inputs.map(|node| &node.name).find(|name| !self.submitted.inputs.contains_key(*name))
    }

    // ---- What apply uses. ----

    /// Puts a node into a stage, its timer along with it.
    pub(super) fn set(&mut self, node: NodeNo, stage: Stage) {
        let before = std::mem::replace(&mut self.nodes[node.index()].stage, stage);
        if let Some(at) = before.timer() {
            self.timers.remove(&(at, node, Timer::Stage));
        }
        if let Some(at) = stage.timer() {
            self.timers.insert((at, node, Timer::Stage));
        }
        if matches!(before, Stage::Lost { .. }) {
            remove(&mut self.lost, node);
        }
        if matches!(stage, Stage::Lost { .. }) {
            self.lost.push_back(node);
        }
        self.exiting = self.exiting + usize::from(stage == Stage::Exiting)
            - usize::from(before == Stage::Exiting);
        self.active =
            self.active + usize::from(stage.is_active()) - usize::from(before.is_active());
    }

    pub(super) fn set_thread(&mut self, node: NodeNo, thread: Thread) {
        let before = std::mem::replace(&mut self.nodes[node.index()].thread, thread);
        if let Thread::Dropped(at) = before {
            self.timers.remove(&(at + STOP_WAIT, node, Timer::Thread));
            self.lingering -= 1;
        }
        if let Thread::Dropped(at) = thread {
            self.timers.insert((at + STOP_WAIT, node, Timer::Thread));
            self.lingering += 1;
        }
    }
}

/// Takes a node out of a line, of which it is nearly always the first.
pub(super) fn remove(line: &mut VecDeque<NodeNo>, node: NodeNo) {
    if line.front() == Some(&node) {
        line.pop_front();
    } else {
        line.retain(|other| *other != node);
    }
}
