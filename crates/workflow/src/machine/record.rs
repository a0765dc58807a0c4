//! What is written down: the records of runs, and the words they use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::{
    ErrorClass, Failure, FencingToken, IdempotencyKey, Mono, RunId, StepName, Subject,
};

use super::arbiter::ArbiterRecord;
use super::guard::GuardEntry;
use crate::claim::Claim;
use crate::payload::Payload;
use crate::plan::{NodeNo, Plan};

/// A record of any stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// Of a run.
    Run(RunRecord),
    /// Of the arbiter.
    Arbiter(ArbiterRecord),
    /// Of a submission key: the one record of its stream.
    Key(KeyRecord),
}

/// Which run a submission key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key.
    pub key: IdempotencyKey,
    /// The run.
    pub run: RunId,
    /// What tells the submission from another one: the BLAKE3 hash, in hex, of plan, inputs and claims as stored.
    pub digest: String,
}

impl Record {
    /// What happened to the run, in a run's stream.
    pub(crate) const fn of_run(&self) -> Option<&RunRecord> {
        match self {
            Self::Run(record) => Some(record),
            Self::Arbiter(_) | Self::Key(_) => None,
        }
    }

    /// Whether it is the last record of a run.
    pub const fn ends_run(&self) -> bool {
        matches!(self, Self::Run(RunRecord::Ended { .. }))
    }
}

/// What happened to a run. Nodes are places in the list of the plan that the first record holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunRecord {
    /// Somebody asked for it.
    Submitted(Arc<Submitted>),
    /// What follows happened at this time, later than what came before it in the same append.
    Tick {
        /// When.
        at: Mono,
    },
    /// Another process, or the same one after its journal was gone, carries on from the log. What was at work is in doubt;
    /// what was guarded is to be exited first. Times that lie ahead are those of the new process's clock from here on.
    Recovered {
        /// The token of the new process's grant.
        fence: FencingToken,
        /// How much time went by since the record before.
        elapsed: Duration,
    },
    /// All claims are granted.
    Started {
        /// The token of the grant.
        fence: FencingToken,
    },
    /// An attempt is about to begin.
    Intended {
        /// The step.
        node: NodeNo,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt succeeded, by its own word or by a probe's.
    Succeeded {
        /// The step.
        node: NodeNo,
        /// The attempt.
        attempt: u32,
        /// What it gave.
        output: Payload,
        /// What went not quite right.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Failure>,
    },
    /// An attempt failed, and what is known of its effect is in the failure.
    Failed {
        /// The step, or a guard that could not be armed.
        node: NodeNo,
        /// The attempt.
        attempt: u32,
        /// Why.
        failure: Box<Failure>,
        /// What follows.
        next: Next,
    },
    /// An attempt ended in a way that leaves its effect open; going forward it is probed.
    Unclear {
        /// The step.
        node: NodeNo,
        /// The attempt.
        attempt: u32,
        /// Why.
        failure: Box<Failure>,
        /// It was dropped and may still be on a thread.
        dropped: bool,
    },
    /// A dropped attempt is gone from its thread.
    Stopped {
        /// The step.
        node: NodeNo,
    },
    /// A dropped attempt is still on its thread and is no longer waited for.
    Lingers {
        /// The step.
        node: NodeNo,
    },
    /// It is time for another attempt, which has to wait for slots of its pools first.
    RetryDue {
        /// The step.
        node: NodeNo,
    },
    /// It is time to probe.
    ProbeDue {
        /// The step.
        node: NodeNo,
    },
    /// A probe found the effect still in flight: it is asked again then.
    InFlight {
        /// The step.
        node: NodeNo,
        /// When it is asked again.
        until: Mono,
    },
    /// The threads and inputs of a guard are being made.
    Preparing {
        /// The guard.
        guard: NodeNo,
    },
    /// Intent of every enter and body step, and the obligation to exit.
    Armed {
        /// The guard.
        guard: NodeNo,
    },
    /// What happened in a guard, appended after its exits have ended.
    Guarded {
        /// The guard.
        guard: NodeNo,
        /// What happened, in order.
        log: Vec<GuardEntry>,
    },
    /// No new step starts; what was done is undone.
    Unwinding {
        /// Why.
        cause: Cause,
    },
    /// An attempt to undo is about to begin.
    UndoIntended {
        /// The step.
        node: NodeNo,
        /// The attempt of the undo.
        attempt: u32,
    },
    /// A step is undone.
    Undone {
        /// The step.
        node: NodeNo,
        /// What is left in spite of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        debris: Vec<Debris>,
    },
    /// An attempt to undo failed and is repeated.
    UndoFailed {
        /// The step.
        node: NodeNo,
        /// The attempt of the undo.
        attempt: u32,
        /// Why.
        failure: Box<Failure>,
        /// When it is tried again.
        retry_at: Mono,
    },
    /// An attempt to undo was dropped and may still be on its thread.
    UndoDropped {
        /// The step.
        node: NodeNo,
    },
    /// Somebody asked to cancel.
    CancelRequested {
        /// Who.
        by: String,
        /// The point of no return, if it had been passed.
        late: Option<NodeNo>,
    },
    /// The run needs a person.
    Parked(Parked),
    /// A person said: try again.
    Resumed {
        /// Who.
        by: String,
    },
    /// A person said how it stands with a parked node.
    Resolved {
        /// Who.
        by: String,
        /// The node.
        node: NodeNo,
        /// How it stands.
        resolution: Resolution,
    },
    /// A person gave up what was left.
    Abandoned {
        /// Who.
        by: String,
        /// What is left.
        debris: Vec<Debris>,
    },
    /// The run has ended.
    Ended {
        /// How.
        end: End,
    },
}

/// What a run was submitted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The run.
    pub run: RunId,
    /// The plan.
    pub plan: Plan,
    /// Values of the plan's inputs.
    #[serde(default)]
    pub inputs: BTreeMap<StepName, Payload>,
    /// What it claims, the plan's own claims included.
    pub claims: Vec<Claim>,
    /// The key under which the same submission is the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
    /// Words of the embedder's, opaque to the engine.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// By how much it goes before those that came at the same time.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub head_start: Duration,
    /// Seeds the jitter of retries.
    pub seed: u64,
}

impl Submitted {
    /// What tells this submission from another one of the same key: the hash of what it would do.
    pub(crate) fn digest(&self) -> Result<String, Failure> {
        let text =
            serde_json::to_vec(&(&self.plan, &self.inputs, &self.claims)).map_err(|error| {
                Failure::new(
                    "value.encode",
                    ErrorClass::Internal,
                    "a plan cannot be written as JSON",
                )
                .with_cause(error)
            })?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }

    /// Whether it would do what another one would; whatever stored form that was read from.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        self.plan == other.plan && self.inputs == other.inputs && self.claims == other.claims
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Another attempt, then.
    Retry(Mono),
    /// None.
    Final,
}

/// Why a run unwinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A node failed.
    Failed {
        /// The node.
        node: NodeNo,
        /// Why.
        failure: Box<Failure>,
    },
    /// Somebody cancelled.
    Cancelled {
        /// Who.
        by: String,
    },
}

/// Something outside that is left, and the step that owed its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debris {
    /// The step.
    pub step: StepName,
    /// The object.
    pub object: Subject,
    /// Whether it is only possible that it is there.
    pub possible: bool,
    /// Why it is left.
    pub why: String,
}

/// Something that went not quite right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The step.
    pub step: StepName,
    /// What.
    pub failure: Failure,
}

/// A parked node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The node.
    pub node: NodeNo,
    /// Why.
    pub reason: ParkReason,
    /// What failed last.
    pub failure: Box<Failure>,
}

/// Why a run is parked: it keeps its claims and waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// An exit of a guard is owed and keeps failing.
    ExitOwed,
    /// A step failed past the point of no return.
    PastNoReturn,
    /// The plan names an action that this process does not have. Never stored: a process that has it carries on.
    UnknownAction,
}

/// What a person found out about a parked node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It is done, by hand or after all: a step with this output, an exit whatever the output.
    Done(Payload),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All steps succeeded.
    Succeeded,
    /// It did what it should; something went not quite right.
    SucceededWithWarnings,
    /// It failed and left nothing behind.
    Failed,
    /// It was cancelled and left nothing behind.
    Cancelled,
    /// It left debris. It holds nothing.
    NeedsAttention,
}

/// The answer to a cancel. It has been recorded in every case but the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelAnswer {
    /// The run stops and undoes what it did.
    Accepted,
    /// The point of no return has been passed: only what follows it is stopped.
    TooLate {
        /// The point of no return.
        step: StepName,
    },
    /// The run had ended.
    Ended,
}

/// Ties the answer of a machine to its asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);
