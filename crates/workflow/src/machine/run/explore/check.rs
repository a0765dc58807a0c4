//! What must hold, whatever happened: the promises, checked against what is true outside.

use super::world::{At, World};
use crate::machine::run::state::{RunState, Stage};
use crate::machine::run::{Answer, Command};
use crate::machine::{CancelAnswer, End, RunRecord, Ticket};
use crate::plan::NodeNo;

impl World {
    /// The log alone leads here: what is durable is the replay, and the rest is what has been noted since.
    pub(super) fn check_state(&self) {
        let replayed = RunState::replay(self.log.all()).unwrap();
        assert!(replayed == self.durable, "the log leads elsewhere");
        let mut state = replayed;
        let pending = self.writing.iter().map(|(records, _)| records).chain([&self.round.0]);
        for (at, record) in pending.flatten() {
            state.apply(*at, record);
        }
        assert!(state == *self.machine.state(), "the state is not what its log amounts to");
    }

    /// E6: an undo follows the end of all that came after.
    pub(super) fn check_record(&self, record: &RunRecord) {
        if let RunRecord::UndoIntended { node, .. } = record {
            for after in self.plan().topology().succs(*node) {
                let busy = |at: &At| matches!(at, At::Run(n, _) | At::Undo(n, _) | At::Lane(n) | At::Told(n) | At::Closing(n) if n == after);
                assert!(!self.at.iter().any(busy), "undone while a successor is at work");
            }
        }
    }

    /// What must be so before something begins.
    pub(super) fn check_command(&self, command: &Command) {
        let owed = self.truth.iter().any(|truth| truth.owed);
        match *command {
            Command::Launch { node, attempt } => {
                assert!(!owed, "E5: {node:?} begins before the owed exits have been tried");
                self.check_order(node);
                assert_eq!(self.durable.attempts(node), attempt, "E2: the intent is not durable");
                let busy = |at: &At| matches!(at, At::Run(n, _) | At::Stuck(n, _) if *n == node);
                assert!(!self.at.iter().any(busy), "two attempts of {node:?} at once");
                // Past the point of no return, that point goes on, and so does what a person asks for.
                let point = self.machine.state().crossed;
                let goes_on = point == Some(node) || point.is_some() && self.resumed;
                assert!(
                    goes_on || !self.machine.state().is_unwinding(),
                    "E7: {node:?} begins after the run was told to stop"
                );
            }
            Command::Open { guard } => {
                assert!(!owed, "E5: {guard:?} begins before the owed exits have been tried");
                self.check_order(guard);
                assert!(self.durable.is_armed(guard), "E2: the guard is not armed durably");
                assert!(!self.machine.state().is_unwinding(), "E7: a guard opens after a cancel");
            }
            Command::Probe { .. } => assert!(!owed, "E5: asked before the owed exits"),
            Command::Undo { node, attempt } => {
                assert!(!owed, "E5: {node:?} is undone before the owed exits have been tried");
                let undo = self.durable.nodes[node.index()].undo_attempt;
                assert_eq!(undo, attempt, "E2: the intent to undo is not durable");
                self.check_undo(node);
            }
            Command::Finish => assert!(self.durable.end().is_some(), "E10: not ended durably"),
            _ => {}
        }
    }

    /// E3: nothing begins without an append in which owner and epoch are checked; whoever was taken over begins nothing more.
    pub(super) fn check_unwritten(gated: &[Command]) {
        let begins = |command: &Command| {
            matches!(
                command,
                Command::Launch { .. }
                    | Command::Undo { .. }
                    | Command::Open { .. }
                    | Command::OpenClosed { .. }
                    | Command::Reopen { .. }
            )
        };
        assert!(!gated.iter().any(begins), "E3: {gated:?} without an append");
    }

    /// E1: all that a node comes after is done, durably.
    fn check_order(&self, node: NodeNo) {
        for before in self.plan().topology().preds(node) {
            let state = &self.durable.nodes[before.index()];
            let without = self.durable.is_optional(*before) && state.stage == Stage::Settled;
            assert!(
                state.output.is_some() || without,
                "E1: {node:?} begins before {before:?} is done"
            );
        }
    }

    /// E6 and E14: what came after is taken back or listed, and nothing is undone past the point of no return.
    fn check_undo(&self, node: NodeNo) {
        let state = self.machine.state();
        let optional = state.is_optional(node);
        assert!(state.crossed.is_none() || optional, "E14: {node:?} is undone past the point");
        let plan = self.plan();
        if let Some(guard) = plan.node(node).within {
            assert!(!self.truth[guard.index()].frozen, "E6: undone before the exit has ended");
        }
        let mut after = plan.topology().succs(node).to_vec();
        let mut seen = 0;
        while let Some(&next) = after.get(seen) {
            seen += 1;
            after.extend(plan.topology().succs(next));
            after.extend(self.body(next));
            let listed = state.debris.iter().any(|d| d.step == plan.node(next).name);
            let lingers = state.debris.iter().any(|d| d.possible);
            assert!(
                !self.truth[next.index()].touched || listed || lingers,
                "E6: {node:?} is undone before {next:?}, which came after it"
            );
        }
    }

    pub(super) fn answered(&mut self, ticket: Ticket, answer: &Answer) {
        assert!(self.tickets.remove(&ticket), "answered twice");
        if let Answer::Cancel(answer) = answer {
            match answer {
                CancelAnswer::Ended => {
                    assert!(self.durable.end().is_some(), "E7: said to have ended");
                    return;
                }
                CancelAnswer::Accepted => self.cancelled = Some(true),
                CancelAnswer::TooLate { .. } => self.cancelled = Some(false),
            }
            assert!(self.durable.cancelled_by().is_some(), "E7: an answer before the record");
        }
    }

    /// E10: a run ends only when all is over, and its end tells the truth.
    pub(super) fn check_end(&self) {
        let state = &self.durable;
        let end = state.end().unwrap();
        let gone = |at: &At| matches!(at, At::Stuck(..) | At::StuckUndo(_) | At::Prepare(_));
        assert!(self.at.iter().all(gone), "ended while at work: {:?}", self.at);
        let touched: Vec<_> = (0..self.truth.len())
            .filter(|at| self.truth[*at].touched)
            .map(|at| state.plan().node(NodeNo::at(at)).name.clone())
            .collect();
        match end {
            End::Failed | End::Cancelled => {
                assert!(touched.is_empty(), "clean end, but {touched:?} may be left");
                assert!(state.debris().is_empty());
            }
            End::NeedsAttention => assert!(!state.debris().is_empty()),
            End::Succeeded | End::SucceededWithWarnings => {
                assert!(state.debris().is_empty());
                assert!(self.cancelled != Some(true), "E7: an accepted cancel, and it succeeded");
            }
        }
        if end == End::Succeeded {
            let done = |node: &NodeNo| state.output(*node).is_some();
            assert!(
                state.plan().topology().top().iter().all(done),
                "succeeded, and not all is done"
            );
        }
        if end != End::NeedsAttention {
            let frozen = self.truth.iter().any(|truth| truth.frozen);
            assert!(!frozen, "E5: ended while frozen");
        }
        assert!(state.timers.is_empty() || !state.debris.is_empty(), "a timer is left");
    }
}
