//! The run machine: one plan.
//!
//! ```text
//!   a step going forward                                   unwinding
//!   waiting ─▶ ready ─▶ running ─▶ done ─────────────────▶ offered ─▶ undoing ─▶ settled
//!                ▲        │ │  failed, effect none            ▲          │  ▲
//!     retry due  │        │ └───────────────▶ pausing/failed ─┤          ▼  │ retry due
//!             pausing ◀───┤ unclear                           │        undo pausing
//!                ▲        ▼                                   │
//!                └──── probing ◀─▶ asking (in flight) ────────┘
//! ```
//!
//! A step is offered for undo once it has stopped and all its started successors are settled.

mod apply;
mod decide;
mod end;
#[cfg(test)]
mod explore;
mod input;
mod park;
mod recover;
mod slots;
mod state;
mod unwind;

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint_context::{Failure, FencingToken, Mono};

pub(crate) use decide::{Held, RunMachine};
pub use state::{NodeProgress, RunState};

use super::guard::GuardEntry;
use super::record::{CancelAnswer, Record, Resolution, Ticket};
use crate::action::{RawDone, RawProbe, Undone};
use crate::journal::FactDraft;
use crate::plan::NodeNo;

/// How an attempt ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Ok(RawDone),
    Failed(Box<Failure>),
    Panicked(String),
    /// The future was dropped before it was ready.
    Dropped,
}

/// How an attempt to undo ended.
#[derive(Debug, Clone)]
pub(crate) enum UndoOutcome {
    Ok(Undone),
    Failed(Box<Failure>),
}

/// What a run is told.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// All its claims are granted.
    Granted {
        fence: FencingToken,
    },
    /// An attempt is over and its future gone.
    Ended {
        node: NodeNo,
        attempt: u32,
        outcome: Outcome,
    },
    Probed {
        node: NodeNo,
        attempt: u32,
        answer: RawProbe,
    },
    UndoEnded {
        node: NodeNo,
        attempt: u32,
        outcome: UndoOutcome,
    },
    /// Threads and inputs of a guard are there; the lane is not open yet.
    Prepared {
        guard: NodeNo,
        worst: Duration,
        /// How long the lease of this process lasts; `None` without one.
        left: Option<Duration>,
    },
    /// They cannot be had.
    Refused {
        guard: NodeNo,
        failure: Box<Failure>,
    },
    /// The lane of a guard has ended.
    Closed {
        guard: NodeNo,
        log: Vec<GuardEntry>,
        facts: Vec<FactDraft>,
    },
    /// What was dropped is off its thread.
    Gone {
        node: NodeNo,
    },
    /// The log has been read by a new process, or anew: carry on.
    Recover {
        fence: FencingToken,
        elapsed: Duration,
        /// Attempts of this same process that are still on a thread.
        lingering: BTreeSet<NodeNo>,
    },
    /// Come to rest at the next boundary.
    Suspend,
    /// All slots that a node asked for are held.
    Slots {
        node: NodeNo,
    },
    Cancel {
        by: String,
        ticket: Ticket,
    },
    Resume {
        by: String,
        ticket: Ticket,
    },
    Resolve {
        by: String,
        node: NodeNo,
        resolution: Resolution,
        ticket: Ticket,
    },
    Abandon {
        by: String,
        ticket: Ticket,
    },
}

impl Input {
    /// Whether it tells that something is over that was under way.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Ended { .. }
                | Self::Probed { .. }
                | Self::UndoEnded { .. }
                | Self::Closed { .. }
                | Self::Gone { .. }
        )
    }
}

/// What a run wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Launch {
        node: NodeNo,
        attempt: u32,
    },
    /// An attempt that was told to stop before it began: it ends without an effect.
    Skip {
        node: NodeNo,
        attempt: u32,
    },
    Probe {
        node: NodeNo,
        attempt: u32,
    },
    Undo {
        node: NodeNo,
        attempt: u32,
    },
    /// Make the threads and inputs of a guard.
    Prepare {
        guard: NodeNo,
    },
    /// The guard is armed: open its lane.
    Open {
        guard: NodeNo,
    },
    /// The same for one that was told to end before it began.
    OpenClosed {
        guard: NodeNo,
        suspended: bool,
    },
    /// Open a lane for the exits that are owed.
    Reopen {
        guard: NodeNo,
    },
    /// The prepared lane of a guard is not needed.
    Unprepare {
        guard: NodeNo,
    },
    /// Let go of the claims that lasted until this guard or step.
    ReleaseUntil {
        node: NodeNo,
    },
    /// The run has ended: let go of everything.
    Finish,
    Answer {
        ticket: Ticket,
        answer: Answer,
    },
    /// Tell an attempt to stop.
    Signal {
        node: NodeNo,
    },
    /// Drop an attempt, a probe or an undo.
    Drop {
        node: NodeNo,
    },
    /// Tell a guard to end.
    CloseGuard {
        guard: NodeNo,
    },
    /// Tell a guard not to begin, if it has not.
    SuspendGuard {
        guard: NodeNo,
    },
    /// Ask for all slots of a node at once.
    AskSlots {
        node: NodeNo,
    },
    /// Give them back, granted or not.
    ReturnSlots {
        node: NodeNo,
    },
}

/// The answer to an asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Cancel(CancelAnswer),
    /// It is done.
    Done,
    /// The run, or the node, is not parked.
    NotParked,
}

/// What comes of one round: one append, and commands before and after it.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The time of the first record: that of the append.
    pub(crate) from: Mono,
    /// The time of the latest record.
    pub(crate) at: Mono,
    pub(crate) records: Vec<Record>,
    pub(crate) facts: Vec<FactDraft>,
    pub(crate) urgent: Vec<Command>,
    pub(crate) gated: Vec<Command>,
}
