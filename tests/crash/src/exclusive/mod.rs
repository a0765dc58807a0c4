//! Exclusivity across processes: workers on one state file that are stopped, woken and killed, and what they did, looked at
//! from outside.
//!
//! ```text
//!   driver ── SIGSTOP · SIGCONT · SIGKILL, at times of a seed ──▶ 4 × crash-worker ──▶ state.db
//!      │                                                            │
//!      ▼                                                            ▼  a line for each begin and end of an effect,
//!   driver.log                                                   workers.log        each lease, takeover and commit
//!      └──────────────────────────▶ check::Tale ◀───────────────────┘
//! ```
//!
//! # What is promised, to the word
//!
//! The holds of two runs with claims that conflict never overlap. A hold is measured from the first effect that begins in a
//! run's name to the end of its last one, over all processes that carried the run. Of a process that was taken over only what
//! it did up to the end of its lease counts as the run's, and of one that was killed what it did until then.
//!
//! A process looks at its lease before each effect. So one that is stopped between that look and the effect begins it when it
//! wakes, however late, and one that is stopped in the middle of an effect ends it then: **effects that were admitted before
//! the end of the lease may still land**, no others. They are counted, they bear a token that is older than the successor's,
//! and whoever looks at tokens refuses them. An effect that was admitted at the end of its lease or later is a defect.

pub mod check;
pub mod driver;
pub mod plan;
pub mod worker;

use serde::{Deserialize, Serialize};
use stillpoint_context::{FencingToken, ProcessId, RunId, StepName};
use stillpoint_workflow::Claim;

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// Which process.
    pub process: ProcessId,
    /// What it did.
    pub did: Did,
}

/// What a worker did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It began.
    Started {
        /// Its number in the system.
        pid: u32,
    },
    /// An effect begins.
    Begun {
        /// Its number in this process.
        effect: u64,
        /// In whose name.
        run: RunId,
        /// Its step.
        step: StepName,
        /// Whether it takes something back.
        undo: bool,
        /// Under which token.
        fence: FencingToken,
        /// What the run claims.
        claims: Vec<Claim>,
        /// When the engine had last looked at the clock of leases before it let this begin, in nanoseconds.
        admitted: Option<u64>,
    },
    /// An effect has ended.
    Ended {
        /// Its number.
        effect: u64,
    },
    /// A lease was given or prolonged.
    Leased {
        /// Its number.
        epoch: u64,
        /// Until when, in nanoseconds.
        until: u64,
    },
    /// Another process was fenced off, or found to be.
    Fenced {
        /// Which.
        victim: ProcessId,
        /// When that was asked for.
        asked: u64,
    },
    /// A commit was written.
    Committed {
        /// When that was asked for.
        asked: u64,
    },
    /// A commit or a renewal was refused: another process has taken over.
    Refused,
    /// A submission after that was refused, too.
    RefusedAgain,
    /// Its driver needed it no longer, and it ended of itself.
    Left,
}

/// What the driver does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// SIGSTOP.
    Stop {
        /// To which process of the system.
        pid: u32,
    },
    /// SIGCONT.
    Wake {
        /// To which.
        pid: u32,
    },
    /// SIGKILL, sent just after this.
    Kill {
        /// To which.
        pid: u32,
    },
}
