//! The arbiter: grants claims over all runs.
//!
//! All claims of a run are granted at once, at admission, or not yet: nobody holds some and waits for others, so there
//! is no deadlock. First come, first served among those that conflict, where a priority is a head start in time.
//!
//! A waiting run stands in line for what it is to keep to its end. For what it lets go of early (`until`) it stands in line as
//! soon as all of that is free: before, it could not use it, and would hold up those who can.
//!
//! ```text
//!   restore  holds db/1/live
//!   backup 1 waits: db/1/live is to be kept and not free   host/a/freeze: not in line for it yet
//!   backup 2 runs:  db/2/live                              host/a/freeze: until its thaw
//! ```
//!
//! A claim locks its key, and with an intention every key above it:
//!
//! ```text
//!   exclusive db/1/live      db: intends exclusive   db/1: intends exclusive   db/1/live: exclusive
//!   shared    db/1           db: intends shared      db/1: shared              conflict at db/1
//! ```
//!
//! Each waiting run watches one blocker: the latest conflicting one before it. It is looked at again only when that
//! one lets go or leaves the line, so waking n waiters in turn costs O(n), however many wait elsewhere. With a head start it costs
//! as much as it overtakes.

mod decide;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::{FencingToken, Mono, RunId};

pub(crate) use decide::ArbiterMachine;
pub(crate) use state::ArbiterState;

use crate::claim::{Claim, ClaimKey};

/// A head start in time: what a priority is.
pub(crate) type HeadStart = Duration;

/// What happened at the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ArbiterRecord {
    /// A run asks for claims.
    Queued {
        /// The run.
        run: RunId,
        /// What it claims.
        claims: Vec<Claim>,
        /// By how much it goes before those that came at the same time.
        head_start: Duration,
        /// When it asked, on the clock that counts suspend; never before one that asked earlier.
        at: Mono,
    },
    /// A run holds all its claims. The token is the place of this record in the stream, counted from one.
    Granted {
        /// The run.
        run: RunId,
    },
    /// A run that holds its claims is carried on by another process, or anew. The token is the place of this record, counted
    /// from one: it is higher than that of whoever carried the run before.
    Regranted {
        /// The run.
        run: RunId,
    },
    /// A run let go of some claims, or of all.
    Released {
        /// The run.
        run: RunId,
        /// What it let go of; everything if empty.
        claims: Vec<Claim>,
    },
    /// Everything that is claimed at this place of the stream, so that nobody has to read what came before.
    Snapshot(Box<Snapshot>),
}

/// All that the arbiter knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The runs, in line.
    pub runs: Vec<Claimant>,
}

/// A run that holds claims or waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Claimant {
    /// The run.
    pub run: RunId,
    /// What it claims, less what it has let go of.
    pub claims: Vec<Claim>,
    /// By how much it goes before those that came at the same time.
    pub head_start: Duration,
    /// When it asked.
    pub at: Mono,
    /// The place of its asking in the stream, counted from one.
    pub asked: u64,
    /// The token, if it holds what it claims.
    pub token: Option<FencingToken>,
}

/// Whether the arbiter does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GrantPolicy {
    /// Claims exclude each other.
    #[default]
    Strict,
    /// Every claim is granted at once: for tests that must then fail.
    #[cfg(any(test, feature = "testing"))]
    Always,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The run that waits.
    pub run: RunId,
    /// A key that it cannot have.
    pub key: ClaimKey,
    /// The run that holds it, or is to have it first.
    pub holder: RunId,
    /// Since when it waits.
    pub since: Mono,
}

#[derive(Debug)]
pub(crate) enum ArbiterInput {
    Ask {
        run: RunId,
        claims: Vec<Claim>,
        head_start: HeadStart,
    },
    /// Asks for a run that may be known already: it is carried on by this process.
    Adopt {
        run: RunId,
        claims: Vec<Claim>,
        head_start: HeadStart,
    },
    /// Lets go of some claims, or of everything, granted or not.
    Release {
        run: RunId,
        claims: Vec<Claim>,
    },
}

/// What the arbiter wants told, once its records are appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArbiterCommand {
    Granted { run: RunId, fence: FencingToken },
    Waits { run: RunId },
}
