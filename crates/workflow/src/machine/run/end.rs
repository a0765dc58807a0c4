//! When a run is over, and how it ended.

use stillpoint_context::Mono;

use super::decide::RunMachine;
use super::state::{RunPhase, RunState, Stage};
use super::{Command, Round};
use crate::machine::record::{Cause, End, RunRecord};

impl RunMachine {
    /// Ends the run, or turns it round, if everything in its direction is over; whether there is more to do then.
    pub(super) fn turn_if_over(&mut self, now: Mono, round: &mut Round) -> bool {
        if !self.state.parked.is_empty() || self.state.lingering > 0 {
            return false;
        }
        let end = match self.state.phase {
            RunPhase::Forward if self.state.left == 0 && self.state.active == 0 => {
                self.state.good_end()
            }
            RunPhase::Halted if self.state.active == 0 && self.state.ready.is_empty() => {
                match self.halted() {
                    // The cancel came when nothing was left to stop.
                    Halted::Over if self.state.left == 0 => self.state.good_end(),
                    Halted::Over => self.state.good_end().max(End::SucceededWithWarnings),
                    Halted::Uncrossed(cause) => {
                        self.unwind(now, cause, round);
                        return true;
                    }
                    Halted::Stuck(parked) => {
                        self.note(now, RunRecord::Parked(parked), round);
                        return false;
                    }
                }
            }
            RunPhase::Unwinding if self.state.unsettled == 0 => self.state.bad_end(),
            _ => return false,
        };
        self.note(now, RunRecord::Ended { end }, round);
        round.gated.push(Command::Finish);
        false
    }

    /// Where a run stands that was cancelled past its point of no return and has come to rest.
    fn halted(&self) -> Halted {
        let by = self.state.cancelled_by.clone().unwrap_or_default();
        let Some(point) = self.state.crossed else {
            return Halted::Uncrossed(Cause::Cancelled { by });
        };
        let node = &self.state.nodes[point.index()];
        match (&node.failure, node.stage) {
            (Some(failure), Stage::Failed) => Halted::Stuck(crate::machine::Parked {
                node: point,
                reason: crate::machine::ParkReason::PastNoReturn,
                failure: failure.clone(),
            }),
            _ => Halted::Over,
        }
    }
}

enum Halted {
    Over,
    Uncrossed(Cause),
    Stuck(crate::machine::Parked),
}

impl RunState {
    pub(super) fn good_end(&self) -> End {
        if !self.debris.is_empty() {
            End::NeedsAttention
        } else if self.warnings.is_empty() {
            End::Succeeded
        } else {
            End::SucceededWithWarnings
        }
    }

    pub(super) fn bad_end(&self) -> End {
        match (&self.cause, self.debris.is_empty()) {
            (_, false) => End::NeedsAttention,
            (Some(Cause::Cancelled { .. }), true) => End::Cancelled,
            _ => End::Failed,
        }
    }
}
