//! Carrying on from the log: after a crash, in the place of a process that is gone, after a journal that failed.
//!
//! ```text
//!   Recovered ─▶ owed exits, side by side ─▶ what was at work is probed ─▶ undo, or go on
//! ```
//!
//! There is no second way to go on: what was at work becomes unclear, as if it had been dropped, and everything else follows
//! from that. A crash counts as an attempt.

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint_context::{FencingToken, Mono};

use super::decide::RunMachine;
use super::state::{RunPhase, RunState, Stage, Thread, Timer};
use super::{Command, Round};
use crate::machine::guard::STOP_WAIT;
use crate::machine::record::RunRecord;
use crate::plan::{NodeKind, NodeNo};

impl RunMachine {
    /// Takes up a run from its log.
    pub(super) fn recover(
        &mut self,
        now: Mono,
        fence: FencingToken,
        elapsed: Duration,
        lingering: BTreeSet<NodeNo>,
        round: &mut Round,
    ) {
        // A grant may have come in the same round.
        let fence = fence.max(self.state.fence());
        self.note(now, RunRecord::Recovered { fence, elapsed }, round);
        self.lingering = lingering;
        for index in 0..self.state.nodes.len() {
            let node = NodeNo::at(index);
            if self.state.nodes[index].stage == Stage::Exiting {
                round.gated.push(Command::Reopen { guard: node });
            }
            // The process may have gone before it let go of what lasted until here.
            if self.state.is_over(node) {
                self.release_after(node, round);
            }
        }
    }

    /// Says of a node that was at work when its process went what that means.
    pub(super) fn take_up(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let state = &self.state.nodes[node.index()];
        let (attempt, undo_attempt) = (state.attempt, state.undo_attempt);
        let lost = |what: &str| {
            self.about(node, "step.lost", &format!("its process ended while {what} was at work"))
        };
        if state.stage == (Stage::Lost { undo: true }) {
            let failure = Box::new(lost("the undo"));
            let record =
                RunRecord::UndoFailed { node, attempt: undo_attempt, failure, retry_at: now };
            self.note(now, record, round);
            return;
        }
        // One that was in doubt already stays so for the reason that it had.
        let failure = state.failure.as_deref().cloned().unwrap_or_else(|| lost("the step"));
        let dropped = self.lingering.remove(&node);
        self.unclear(now, node, attempt, failure, dropped, round);
    }
}

impl RunState {
    /// Whether a claim that lasts until this node has come to its end.
    fn is_over(&self, node: NodeNo) -> bool {
        let state = &self.nodes[node.index()];
        match self.plan().node(node).kind {
            NodeKind::Step(_) => state.output.is_some(),
            NodeKind::Guard(_) => {
                self.guards.contains_key(&node)
                    && !matches!(state.stage, Stage::Armed | Stage::Exiting | Stage::Owing)
            }
            NodeKind::Input => false,
        }
    }

    /// Turns to the clock of another process. What was at work is lost, what is to come keeps its distance.
    pub(super) fn recover(&mut self, at: Mono, fence: FencingToken, elapsed: Duration) {
        let before = std::mem::replace(&mut self.seen, at);
        let shift = |until: Mono| at + until.saturating_since(before).saturating_sub(elapsed);
        if self.phase != RunPhase::Queued {
            self.fence = fence;
        }
        self.timers.clear();
        self.lingering = 0;
        let mut freed = Vec::new();
        for index in 0..self.nodes.len() {
            let node = NodeNo::at(index);
            // Its threads went with the process.
            if matches!(self.nodes[index].thread, Thread::Dropped(_)) {
                self.nodes[index].thread = Thread::Free;
                freed.push(node);
            }
            let stage = match self.nodes[index].stage {
                Stage::Running { .. } | Stage::Stopping { .. } | Stage::Probing { .. } => {
                    Stage::Lost { undo: false }
                }
                Stage::Undoing { .. } => Stage::Lost { undo: true },
                Stage::Armed | Stage::Exiting => Stage::Exiting,
                Stage::Preparing => Stage::Ready,
                Stage::Asking { until } => Stage::Asking { until: shift(until) },
                Stage::Pausing { until } => Stage::Pausing { until: shift(until) },
                Stage::UndoPausing { until } => Stage::UndoPausing { until: shift(until) },
                stage => stage,
            };
            let was = self.nodes[index].stage;
            if was == stage {
                // Unchanged, but its timer was cleared with all the others.
                if let Some(until) = stage.timer() {
                    self.timers.insert((until, node, Timer::Stage));
                }
                continue;
            }
            if was == Stage::Preparing {
                self.ready.push_back(node);
            }
            self.set(node, stage);
        }
        // What had stopped and only waited for its thread goes on.
        for node in freed {
            if matches!(self.nodes[node.index()].stage, Stage::Failed | Stage::Done) {
                self.stopped(node);
            }
        }
    }
}

/// How long a dropped attempt is waited for; a probe in the meantime is put off until a little later.
pub(super) const UNTIL_GONE: Duration = STOP_WAIT.saturating_add(Duration::from_millis(1));
