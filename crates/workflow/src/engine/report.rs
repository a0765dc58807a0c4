//! What is told of runs.

use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Effect, ErrorClass, Failure, Progress, RunId, StepName};

use crate::machine::{
    Cause, End, GuardVerdict, NodeProgress, ParkReason, Parked, RunState, Waiting,
};
use crate::payload::Payload;
use crate::plan::{NodeNo, Out};

/// Where a run stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunPhase {
    /// It waits for its claims.
    Queued,
    /// It goes forward.
    Running,
    /// It stops and undoes, after a failure or a cancel.
    Cancelling,
    /// It waits for a person.
    Parked,
    /// It has ended.
    Ended(End),
    /// Its journal fails: it is open there, and stands still here until the journal is back.
    Broken,
    /// The engine was suspended: it is open in the journal, keeps what it claims, and waits to be recovered.
    Suspended,
}

impl RunPhase {
    pub(crate) fn of(state: &RunState) -> Self {
        match state.end() {
            Some(end) => Self::Ended(end),
            None if !state.parked().is_empty() => Self::Parked,
            None if state.is_unwinding() => Self::Cancelling,
            None if state.has_started() => Self::Running,
            None => Self::Queued,
        }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunStatus {
    /// As a whole.
    pub phase: RunPhase,
    /// Number of records in the journal.
    pub records: u64,
    /// What waits for a person, with the node's name.
    pub parked: Vec<(StepName, Parked)>,
}

/// News of a run. Lossy; what must not be missed is in the records.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Notice {
    /// The run.
    pub run: RunId,
    /// What is new.
    pub kind: NoticeKind,
}

/// What is new.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum NoticeKind {
    /// The run waits for a claim.
    Waiting(Waiting),
    /// The run has its claims.
    Started,
    /// An attempt of a step is about to begin.
    StepStarted {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
    },
    /// A step succeeded.
    StepSucceeded {
        /// The step.
        step: StepName,
    },
    /// An attempt of a step failed.
    StepFailed {
        /// The step.
        step: StepName,
        /// Why.
        failure: Failure,
    },
    /// A call reports how far it has come.
    Progress {
        /// The step.
        step: StepName,
        /// How far.
        progress: Progress,
    },
    /// The run needs a person.
    Parked {
        /// The step or guard.
        step: StepName,
        /// Why.
        reason: ParkReason,
    },
    /// The run has ended.
    Ended {
        /// How.
        end: End,
    },
}

/// The report of an ended run. It is the run's last [`RunState`], with what is worth asking of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport(Arc<RunState>);

/// What became of one step or guard.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// Its place in the plan.
    pub node: NodeNo,
    /// Its name.
    pub name: StepName,
    /// How far it came.
    pub progress: NodeProgress,
    /// How often it was tried.
    pub attempts: u32,
    /// What it gave.
    pub output: Option<Payload>,
    /// What it failed with last.
    pub failure: Option<Failure>,
    /// The verdict, of a guard.
    pub verdict: Option<GuardVerdict>,
}

impl Deref for RunReport {
    type Target = RunState;

    fn deref(&self) -> &RunState {
        &self.0
    }
}

impl RunReport {
    pub(crate) fn new(state: Arc<RunState>) -> Self {
        Self(state)
    }

    /// How the run ended.
    pub fn end(&self) -> End {
        // A report is made of an ended run.
        self.0.end().unwrap_or(End::NeedsAttention)
    }

    /// What the run failed with, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self.0.cause()? {
            Cause::Failed { failure, .. } => Some(failure),
            Cause::Cancelled { .. } => None,
        }
    }

    /// The node that made the run fail.
    pub fn failed_node(&self) -> Option<NodeNo> {
        match self.0.cause()? {
            Cause::Failed { node, .. } => Some(*node),
            Cause::Cancelled { .. } => None,
        }
    }

    /// What became of every node, in the order of the plan.
    pub fn steps(&self) -> impl Iterator<Item = StepReport> + '_ {
        (0..self.0.plan().nodes().len()).map(|at| self.step(NodeNo::at(at)))
    }

    /// What became of a node.
    pub fn step(&self, node: NodeNo) -> StepReport {
        StepReport {
            node,
            name: self.0.plan().node(node).name.clone(),
            progress: self.0.progress(node),
            attempts: self.0.attempts(node),
            output: self.0.output(node).cloned(),
            failure: self.0.failure(node).cloned(),
            verdict: self.0.verdict(node),
        }
    }

    /// What became of the node of this name.
    pub fn step_named(&self, name: &str) -> Option<StepReport> {
        self.0.plan().find(name).map(|node| self.step(node))
    }

    /// The output behind a handle of the run's plan.
    ///
    /// # Errors
    /// `run.no_output` when the step did not succeed, or when the handle is of another plan; of an optional step, its
    /// failure is the value.
    pub fn output_of<T: DeserializeOwned>(&self, handle: &Out<T>) -> Result<T, Failure> {
        let node = handle.node();
        let tag = self.0.plan().tag();
        let known = self.0.plan().nodes().len() > node.index() && (tag == 0 || tag == handle.plan);
        let ended = known && (self.0.output(node).is_some() || self.0.failure(node).is_some());
        let optional = known && self.0.plan().step(node).is_some_and(|step| step.optional);
        if ended && (optional || self.0.output(node).is_some()) {
            return self.0.value(node).read();
        }
        Err(Failure::new("run.no_output", ErrorClass::Conflict, "the step gave no output")
            .with_effect(Effect::None))
    }
}
