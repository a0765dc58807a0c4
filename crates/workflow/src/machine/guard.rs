//! The guard machine: one open guard.
//!
//! ```text
//!              all polled and ok          body whole
//!   armed ─▶ entering ───────────▶ body ───────────────┐
//!     │          │ failed, cutoff,   │ failed, cutoff,  ▼            exits ok
//!     │          │ cancel            │ cancel        closing ─────────────────▶ closed
//!     └──────────┴───────────────────┴────────────────▶ │ exits keep failing
//!                                                        └────────────────────▶ owing
//! ```
//!
//! It runs on the control thread of a lane. All its commands are urgent: nothing is journalled from arming until the
//! exits have ended, and its records are appended afterwards.

mod decide;
#[cfg(test)]
mod explore;
mod state;
mod verdict;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::{Failure, Mono};

pub(crate) use decide::GuardMachine;
pub(crate) use state::{BodyState, Enter, GuardState, Phase};
pub use verdict::{GuardVerdict, Hold};

use crate::payload::Payload;
use crate::plan::NodeNo;

/// How long something that was dropped is waited for.
pub(crate) const STOP_WAIT: Duration = Duration::from_mins(1);

/// The code of a guard that was not entered because the engine is suspended.
pub(crate) const GUARD_SUSPENDED: &str = "guard.suspended";

/// A record of a guard with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardEntry {
    /// When.
    pub at: Mono,
    /// What.
    pub record: GuardRecord,
}

/// What happened in a guard. Members are places in the guard's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuardRecord {
    /// The lane took over; the enters may be polled from now on.
    Opened,
    /// An enter was polled: the clock of the limit starts with the first.
    Polled {
        /// The member.
        member: u32,
    },
    /// An enter ended.
    Entered {
        /// The member.
        member: u32,
        /// How.
        outcome: PartOutcome,
    },
    /// The gate of an enter was closed before it was polled: it never starts.
    Shut {
        /// The member.
        member: u32,
    },
    /// A body step was started.
    BodyStarted {
        /// The step.
        node: NodeNo,
    },
    /// A body step ended.
    BodyEnded {
        /// The step.
        node: NodeNo,
        /// How.
        outcome: PartOutcome,
    },
    /// A body step was dropped at the end of the section; it may still be on its thread.
    BodyDropped {
        /// The step.
        node: NodeNo,
        /// Why.
        failure: Box<Failure>,
    },
    /// A dropped body step is gone from its thread.
    BodyStopped {
        /// The step.
        node: NodeNo,
    },
    /// The body was told to stop.
    Stopping {
        /// Why.
        cause: Box<Failure>,
        /// When it is dropped.
        until: Mono,
    },
    /// The section is over: exits follow.
    Closing {
        /// Why, unless the body is whole.
        cause: Option<Box<Failure>>,
    },
    /// An exit was started.
    ExitStarted {
        /// The member.
        member: u32,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt of an exit ended.
    ExitEnded {
        /// The member.
        member: u32,
        /// The attempt.
        attempt: u32,
        /// How.
        outcome: PartOutcome,
        /// When it is tried again, if it is.
        retry_at: Option<Mono>,
    },
    /// An exit keeps failing, or an enter never came back: a person is needed.
    ExitOwed {
        /// The member.
        member: u32,
        /// What failed last.
        failure: Box<Failure>,
    },
    /// The process ended while the guard was armed: what was done in it is unknown, and it is exited first.
    Lost,
    /// A person asked for another try of what is owed.
    Reopened,
    /// A person said that what is owed is done.
    Resolved,
}

/// How a part of a guard ended. The failure tells what is known of its effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartOutcome {
    /// Well.
    Ok {
        /// What it gave.
        output: Payload,
        /// What went not quite right.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Failure>,
    },
    /// Not well.
    Failed(Box<Failure>),
}

impl PartOutcome {
    pub(crate) const fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }
}

/// What a guard is told.
#[derive(Debug)]
pub(crate) enum GuardInput {
    /// The lane has taken over.
    Open,
    Polled {
        member: u32,
    },
    Entered {
        member: u32,
        outcome: PartOutcome,
    },
    /// The answer to [`GuardCommand::Shut`]: whether the enter can never start.
    Shut {
        member: u32,
        never: bool,
    },
    BodyEnded {
        node: NodeNo,
        outcome: PartOutcome,
    },
    ExitEnded {
        member: u32,
        attempt: u32,
        outcome: PartOutcome,
    },
    Cancel {
        cause: Box<Failure>,
    },
    /// Come to an end before it begins, or not at all: a body that runs goes on.
    Suspend {
        cause: Box<Failure>,
    },
    /// The process that armed it is gone.
    Lost,
    /// Try what is owed once more.
    Reopen,
    Tick,
}

/// What a guard wants done, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuardCommand {
    /// Let the enter of a member be polled, through its gate.
    Enter {
        member: u32,
    },
    /// Close the gate of an enter, and answer.
    Shut {
        member: u32,
    },
    /// Drop the enter of a member.
    DropEnter {
        member: u32,
    },
    Run {
        node: NodeNo,
    },
    /// Tell the whole body to stop.
    Signal,
    DropBody {
        node: NodeNo,
    },
    Exit {
        member: u32,
        attempt: u32,
    },
    DropExit {
        member: u32,
    },
}
