//! What tells one state from another: all that what follows depends on, and nothing else.
//!
//! Times are told by their distance from now, attempts by how many are left and not by their numbers, failures by what they
//! allow. What follows from the rest (who waits for whom) is left out, and so is the log: the state is checked to be its
//! replay. What may still go wrong is told apart from the state: a state that has been seen with more of it has been seen.

use std::hash::{DefaultHasher, Hash, Hasher};

use stillpoint_context::Mono;

use super::world::{At, Gathered, World};
use crate::machine::guard::STOP_WAIT;
use crate::machine::run::Command;
use crate::machine::run::state::{NodeState, RunPhase, RunState, Stage, Thread};
use crate::machine::{Cause, RunRecord};
use crate::plan::NodeNo;

impl World {
    pub(super) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.print_into(&mut hasher);
        hasher.finish()
    }

    pub(super) fn print_into(&self, hasher: &mut DefaultHasher) {
        let state = self.machine.state();
        print_state(&self.durable, self.now, hasher);
        if self.writing.is_some() || !self.round.0.is_empty() {
            print_state(state, self.now, hasher);
        }
        if let Some(writing) = &self.writing {
            print_gathered(writing, hasher);
        }
        print_gathered(&self.round, hasher);
        for at in &self.at {
            std::mem::discriminant(at).hash(hasher);
            let (node, late) = match *at {
                At::Run(node, n) | At::Stuck(node, n) | At::Probe(node, n) => {
                    (node, n < state.attempts(node))
                }
                At::Undo(node, n) => (node, n < state.nodes[node.index()].undo_attempt),
                At::StuckUndo(node)
                | At::Prepare(node)
                | At::Lane(node)
                | At::Told(node)
                | At::Closing(node) => (node, false),
            };
            (node, late).hash(hasher);
        }
        (self.open, &self.truth, self.cancelled, self.resumed).hash(hasher);
        self.tickets.hash(hasher);
        for command in &self.wanted {
            print_command(command, hasher);
        }
    }
}

fn print_state(state: &RunState, now: Mono, hasher: &mut DefaultHasher) {
    match state.phase {
        RunPhase::Queued => 0_u8.hash(hasher),
        RunPhase::Forward => 1_u8.hash(hasher),
        RunPhase::Halted => 2_u8.hash(hasher),
        RunPhase::Unwinding => 3_u8.hash(hasher),
        RunPhase::Ended(end) => return (4_u8, end).hash(hasher),
    }
    (state.crossed, state.cancelled_by.is_some()).hash(hasher);
    matches!(state.cause, Some(Cause::Cancelled { .. })).hash(hasher);
    for at in 0..state.nodes.len() {
        print_node(state, NodeNo::at(at), now, hasher);
    }
    for (guard, run) in &state.guards {
        (guard, std::mem::discriminant(&run.state.phase)).hash(hasher);
    }
    for parked in &state.parked {
        (parked.node, std::mem::discriminant(&parked.reason)).hash(hasher);
    }
    for debris in &state.debris {
        (debris.step.as_str(), debris.possible).hash(hasher);
    }
    state.warnings.is_empty().hash(hasher);
}

fn print_node(state: &RunState, node: NodeNo, now: Mono, hasher: &mut DefaultHasher) {
    let NodeState { stage, tries, undo_attempt, owed, thread, ref output, ref failure, .. } =
        state.nodes[node.index()];
    std::mem::discriminant(&stage).hash(hasher);
    match thread {
        Thread::Free => 0_u8.hash(hasher),
        Thread::Dropped(at) => (1_u8, (at + STOP_WAIT).saturating_since(now)).hash(hasher),
        Thread::GivenUp => 2_u8.hash(hasher),
    }
    if matches!(stage, Stage::Settled | Stage::Skipped) && state.phase == RunPhase::Unwinding {
        return;
    }
    stage.timer().map(|until| until.saturating_since(now)).hash(hasher);
    (stage == Stage::Lost { undo: true }, owed, output.is_some()).hash(hasher);
    if let Some(step) = state.step(node) {
        let left = step.retry.attempts.saturating_sub(tries);
        (left, step.undo_retry.attempts.saturating_sub(undo_attempt)).hash(hasher);
    }
    let failure = failure.as_ref();
    failure.map(|f| (std::mem::discriminant(&f.effect), f.retryable)).hash(hasher);
}

fn print_gathered((records, gated): &Gathered, hasher: &mut DefaultHasher) {
    (records.len(), gated.len()).hash(hasher);
    for (_, record) in records {
        std::mem::discriminant(record).hash(hasher);
        match record {
            RunRecord::Intended { node, .. }
            | RunRecord::Succeeded { node, .. }
            | RunRecord::Failed { node, .. }
            | RunRecord::Unclear { node, .. }
            | RunRecord::UndoIntended { node, .. }
            | RunRecord::Undone { node, .. } => node.hash(hasher),
            _ => {}
        }
    }
    for command in gated {
        print_command(command, hasher);
    }
}

fn print_command(command: &Command, hasher: &mut DefaultHasher) {
    std::mem::discriminant(command).hash(hasher);
    match *command {
        Command::Launch { node, .. }
        | Command::Skip { node, .. }
        | Command::Probe { node, .. }
        | Command::Undo { node, .. }
        | Command::ReleaseUntil { node }
        | Command::Prepare { guard: node }
        | Command::Open { guard: node }
        | Command::OpenClosed { guard: node, .. }
        | Command::Reopen { guard: node } => node.hash(hasher),
        Command::Answer { ticket, .. } => ticket.hash(hasher),
        _ => {}
    }
}
