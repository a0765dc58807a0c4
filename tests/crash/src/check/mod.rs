//! What must hold after any crash, read from outside: the agent's log, the store's folder, the state file.
//!
//! | rule | of what | from |
//! |---|---|---|
//! | [`FreezeEnds`](Rule::FreezeEnds) | every freeze ends within its limit, once, before the next one | log |
//! | [`Quiet`](Rule::Quiet) | nothing is written while frozen | log |
//! | [`Tokens`](Rule::Tokens) | tokens never go back for one session | log |
//! | [`Completion`](Rule::Completion) | only a freeze that a thaw has ended is completed as good, and only once | log |
//! | [`Sets`](Rule::Sets) | sets on storage = sets of restore points ∪ debris, but for what a parked run holds | store, state |
//! | [`Exposures`](Rule::Exposures) | the same for exposures | store, state |
//! | [`Points`](Rule::Points) | what a restore point holds is what the files were while it was frozen | all |
//! | [`Jobs`](Rule::Jobs) | every job is over or parked | state |
//! | [`Claims`](Rule::Claims) | nothing is claimed, nor waited for, but by runs that are open and parked | state |
//! | [`Sound`](Rule::Sound) | the state file is sound, its journal without holes | state |
//!
//! Each rule is a function over data, so that it is tested on histories of our own making, good and bad.

mod claims;
mod freeze;
mod scene;
mod storage;

use std::fmt;

pub(crate) use claims::replay;
pub use claims::{Claimed, claims_are_of_parked_runs};
pub use freeze::{
    completions_are_of_freezes_that_held, every_freeze_ends, nothing_is_written_while_frozen,
    tokens_never_go_back,
};
pub use scene::Scene;
pub use storage::{
    OnDisk, SetState, exposures_are_accounted_for, jobs_are_over, points_show_their_freezes,
    sets_are_accounted_for,
};

/// What a check is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every freeze ends in time.
    FreezeEnds,
    /// Nothing is written while frozen.
    Quiet,
    /// Tokens never go back.
    Tokens,
    /// Only what held is completed as good.
    Completion,
    /// Sets are in the catalogue or debris.
    Sets,
    /// Exposures are debris, or somebody's.
    Exposures,
    /// Restore points are what they say.
    Points,
    /// Jobs are over or parked.
    Jobs,
    /// Claims are of parked runs.
    Claims,
    /// The state file is sound.
    Sound,
    /// Holds that conflict never overlap.
    Overlap,
    /// Tokens rise from hold to hold.
    Order,
    /// No effect is admitted once its process has no lease.
    Late,
    /// A process that was taken over is refused.
    Refusal,
    /// Every run comes to its end, and does what it says.
    Lost,
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub message: String,
}

impl Broken {
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.message)
    }
}
