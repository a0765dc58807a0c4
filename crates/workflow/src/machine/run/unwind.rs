//! Stopping and undoing: the order in which nodes are offered.

use stillpoint_context::Mono;

use super::state::{RunPhase, RunState, Stage, Thread, remove};
use crate::machine::record::Cause;
use crate::plan::{NodeKind, NodeNo};

impl RunState {
    /// Turns round: nothing new starts, and every started node is to be settled.
    pub(super) fn unwind(&mut self, at: Mono, cause: &Cause) {
        self.cause = Some(cause.clone());
        self.phase = RunPhase::Unwinding;
        self.ready.clear();
        for index in 0..self.nodes.len() {
            let _: bool = self.stop(at, NodeNo::at(index));
        }
        let started = |state: &Self, node: NodeNo| {
            let stage = state.nodes[node.index()].stage;
            stage.has_started() && stage != Stage::Settled
        };
        let plan = self.plan().clone();
        let top: Vec<_> =
            plan.topology().top().iter().copied().filter(|node| started(self, *node)).collect();
        self.unsettled = top.len();
        for node in &top {
            for before in plan.topology().preds(*node) {
                self.nodes[before.index()].holds += 1;
            }
        }
        for node in top {
            self.offer(node);
        }
    }

    /// Cancelled past the point of no return: only that point itself goes on.
    pub(super) fn halt(&mut self, at: Mono) {
        self.phase = RunPhase::Halted;
        for index in 0..self.nodes.len() {
            let node = NodeNo::at(index);
            if self.crossed != Some(node) && self.stop(at, node) {
                self.stopped(node);
            }
        }
        // It may wait for slots to be tried again.
        let point = self.crossed;
        self.ready.retain(|node| point == Some(*node));
    }

    /// Whether a node is one that a late cancel has stopped.
    pub(super) fn is_stopped_follow_up(&self, node: NodeNo) -> bool {
        self.phase == RunPhase::Halted && self.crossed != Some(node)
    }

    /// Ends what waits, and gives what runs its grace; whether a started node has come to a stop by it.
    fn stop(&mut self, at: Mono, node: NodeNo) -> bool {
        let part = self.plan().node(node).within.is_some();
        match self.nodes[node.index()].stage {
            // It has been tried, and waits for slots to be tried again.
            Stage::Ready if self.nodes[node.index()].attempt > 0 => {
                self.set(node, Stage::Failed);
                return true;
            }
            Stage::Waiting | Stage::Ready | Stage::Preparing if !part => {
                self.set(node, Stage::Skipped);
            }
            Stage::Running { until } => {
                let grace = at + self.plan().grace(node);
                let until = until.map_or(grace, |until| until.min(grace));
                self.set(node, Stage::Running { until: Some(until) });
            }
            Stage::Stopping { .. }
            | Stage::Probing { .. }
            | Stage::Asking { .. }
            | Stage::Lost { undo: false } => {
                // What was in doubt stays in doubt.
                let owed = self.effect(node) != crate::action::EffectKind::ReadOnly;
                self.nodes[node.index()].owed |= owed;
                self.set(node, Stage::Failed);
                return true;
            }
            Stage::Pausing { .. } => {
                self.set(node, Stage::Failed);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Offers a node for undo if its turn has come; settles it at once if nothing is owed.
    pub(super) fn offer(&mut self, node: NodeNo) {
        let mut work = vec![node];
        while let Some(node) = work.pop() {
            let state = &self.nodes[node.index()];
            let stopped = matches!(state.stage, Stage::Done | Stage::Failed);
            let waits = state.holds > 0 || matches!(state.thread, Thread::Dropped(_));
            if !stopped || waits {
                continue;
            }
            if matches!(self.plan().node(node).kind, NodeKind::Guard(_)) {
                self.offer_body(node, &mut work);
            } else if state.owed {
                self.set(node, Stage::Offered);
                self.offers.push_back(node);
            } else {
                self.settle_into(node, &mut work);
            }
        }
    }

    pub(super) fn unoffer(&mut self, node: NodeNo) {
        if self.nodes[node.index()].stage != Stage::Offered {
            return;
        }
        remove(&mut self.offers, node);
    }

    /// Nothing is owed for a node any more.
    pub(super) fn settle(&mut self, node: NodeNo) {
        let mut work = Vec::new();
        self.settle_into(node, &mut work);
        for node in work {
            self.offer(node);
        }
    }

    /// Settles a node and names those whose turn may have come.
    fn settle_into(&mut self, node: NodeNo, work: &mut Vec<NodeNo>) {
        let was_done = self.nodes[node.index()].output.is_some();
        self.set(node, Stage::Settled);
        if self.phase != RunPhase::Unwinding {
            // An optional step that failed: the run goes on without it.
            if !was_done {
                if let Some(failure) = self.nodes[node.index()].failure.clone() {
                    self.warn(node, *failure);
                }
                self.unblock(node);
            }
            return;
        }
        let plan = self.plan().clone();
        let within = plan.node(node).within;
        match within {
            None => self.unsettled -= 1,
            Some(guard) => {
                let last = self.guards.get_mut(&guard).is_some_and(|run| {
                    run.unsettled -= 1;
                    run.unsettled == 0
                });
                if last {
                    // The guard as a node is settled with the last step of its body.
                    self.settle_into(guard, work);
                }
            }
        }
        for before in plan.topology().preds(node) {
            let state = &mut self.nodes[before.index()];
            state.holds = state.holds.saturating_sub(1);
            if state.holds == 0 {
                work.push(*before);
            }
        }
    }

    /// A guard's turn has come: its body is undone like a small plan of its own.
    fn offer_body(&mut self, guard: NodeNo, work: &mut Vec<NodeNo>) {
        let plan = self.plan().clone();
        let body = plan.guard(guard).map_or(&[][..], |guard| &guard.body);
        let started: Vec<_> = body
            .iter()
            .copied()
            .filter(|node| self.nodes[node.index()].stage.has_started())
            .collect();
        if started.is_empty() {
            self.settle_into(guard, work);
            return;
        }
        if let Some(run) = self.guards.get_mut(&guard) {
            run.unsettled = started.len();
        }
        // Offered once: from here on the guard waits for its body.
        self.set(guard, Stage::Offered);
        for node in &started {
            for before in plan.topology().preds(*node) {
                self.nodes[before.index()].holds += 1;
            }
        }
        work.extend(started);
    }
}
