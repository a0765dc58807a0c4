//! Whether a section was held.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorClass, Failure, Mono, Subject};

use super::state::{Enter, Exit, GuardState, Phase};

/// What is known of a guarded section after its exits have ended: the output of the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuardVerdict {
    /// Whether it was held.
    pub hold: Hold,
    /// When the first enter was polled: the engine cannot have frozen anything before.
    pub entered_at: Option<Mono>,
    /// When the last exit ended.
    pub exited_at: Option<Mono>,
    /// The time between the first member and the last to hold.
    pub skew: Option<Duration>,
}

/// Whether a section was held from the end of its enters to the start of its exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Every member entered, the body is whole, and the exits ended within the limit.
    Held,
    /// Something was entered, but not so.
    Broken(Box<Failure>),
    /// No enter ever started.
    NeverEntered(Box<Failure>),
}

impl GuardVerdict {
    /// The time from the first poll of an enter to the end of the last exit.
    pub fn lasted(&self) -> Option<Duration> {
        Some(self.exited_at?.saturating_since(self.entered_at?))
    }
}

impl GuardState {
    /// The verdict over a guard that is over.
    pub(crate) fn verdict(&self) -> GuardVerdict {
        let entered_at = self.clock.filter(|_| self.polled);
        let exits = self.members.iter().filter_map(|member| match member.exit {
            Exit::Done { ended, .. } => Some(ended),
            _ => None,
        });
        let exited_at = exits.max();
        let since = |member: &super::state::MemberState| match &member.enter {
            Enter::Ended(at, outcome) if outcome.is_ok() => Some(*at),
            _ => None,
        };
        let first = self.members.iter().filter_map(since).min();
        let last = self.members.iter().filter_map(since).max();
        let skew = first.zip(last).map(|(first, last)| last.saturating_since(first));
        let limit = self.guard().and_then(|guard| guard.limit);
        let over = match (limit, entered_at, exited_at) {
            (Some(limit), Some(from), Some(to)) => to.saturating_since(from) > limit,
            _ => false,
        };
        let hold = match (&self.cause, self.owed()) {
            (Some(cause), _) if !self.polled => Hold::NeverEntered(cause.clone()),
            (Some(cause), _) => Hold::Broken(cause.clone()),
            (None, Some(owed)) => Hold::Broken(Box::new(owed.clone())),
            (None, None) if over => Hold::Broken(self.overran()),
            (None, None) => Hold::Held,
        };
        GuardVerdict { hold, entered_at, exited_at, skew }
    }

    /// Whether every step of the body succeeded before the section ended.
    pub(crate) fn body_is_whole(&self) -> bool {
        self.cause.is_none() && matches!(self.phase, Phase::Closed | Phase::Owing)
    }

    fn overran(&self) -> Box<Failure> {
        let code = self.guard().map_or("guard.cutoff".into(), |guard| guard.miss_code.clone());
        Box::new(
            Failure::new(code, ErrorClass::Unavailable, "the exits ended after the limit")
                .with_subject(Subject::new("guard", &self.plan.node(self.node).name))
                .with_remedy("Find out what makes the exit slow."),
        )
    }
}
