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
mod state;
mod unwind;

use stillpoint_context::{Failure, FencingToken};

pub(crate) use decide::RunMachine;
pub use state::{NodeProgress, RunState};

use super::guard::GuardEntry;
use super::record::{CancelAnswer, Resolution, RunRecord, Ticket};
use crate::action::{RawDone, RawProbe, Undone};
use crate::journal::FactDraft;
use crate::plan::NodeNo;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ok(RawDone),
    Failed(Failure),
    Panicked(String),
    /// The future was dropped before it was ready.
    Dropped,
}

/// How an attempt to undo ended.
#[derive(Debug)]
pub(crate) enum UndoOutcome {
    Ok(Undone),
    Failed(Failure),
}

/// What a run is told.
#[derive(Debug)]
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
        worst: std::time::Duration,
    },
    /// They cannot be had.
    Refused {
        guard: NodeNo,
        failure: Failure,
    },
    /// The lane of a guard has ended.
    Closed {
        guard: NodeNo,
        log: Vec<GuardEntry>,
        facts: Vec<FactDraft>,
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

/// What a run wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Launch {
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
    pub(crate) records: Vec<RunRecord>,
    pub(crate) facts: Vec<FactDraft>,
    pub(crate) urgent: Vec<Command>,
    pub(crate) gated: Vec<Command>,
}
