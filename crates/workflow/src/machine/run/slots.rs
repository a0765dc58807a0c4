//! Slots of pools: asked for all at once before an attempt, given back after it. Nothing is waited for while one is held.
//!
//! Slots are not in the log: they belong to attempts of this process, and are gone with it.

use std::collections::BTreeMap;

use super::decide::{RunMachine, Slots};
use super::state::{Stage, Thread};
use super::{Command, Round};
use crate::plan::{NodeKind, NodeNo};
use crate::pool::PoolName;

/// How many nodes of a run stand in line at once, at most.
const MOST_ASKED: usize = 256;

impl RunMachine {
    /// What one attempt of a node needs: of a guard, what its whole body does.
    pub(crate) fn needs(&self, node: NodeNo) -> BTreeMap<PoolName, u32> {
        let plan = self.state.plan();
        let one = [node];
        let steps = match &plan.node(node).kind {
            NodeKind::Guard(guard) => guard.body.as_slice(),
            NodeKind::Step(_) | NodeKind::Input => &one,
        };
        let mut needs = BTreeMap::new();
        for pool in steps.iter().filter_map(|step| plan.step(*step)).flat_map(|step| &step.pools) {
            *needs.entry(pool.clone()).or_default() += 1;
        }
        needs
    }

    pub(super) fn needs_slots(&self, node: NodeNo) -> bool {
        let plan = self.state.plan();
        let needs = |node: &NodeNo| plan.step(*node).is_some_and(|step| !step.pools.is_empty());
        match &plan.node(node).kind {
            NodeKind::Guard(guard) => guard.body.iter().any(needs),
            NodeKind::Step(_) | NodeKind::Input => needs(&node),
        }
    }

    /// Whether a node has what it needs to begin; asks for it otherwise.
    pub(super) fn has_slots(&mut self, node: NodeNo, round: &mut Round) -> bool {
        if !self.needs_slots(node) {
            return true;
        }
        match self.slots.get(&node) {
            Some(Slots::Held) => return true,
            None if self.slots.len() < MOST_ASKED => {
                self.slots.insert(node, Slots::Asked);
                round.gated.push(Command::AskSlots { node });
            }
            Some(Slots::Asked) | None => {}
        }
        false
    }

    pub(super) fn granted_slots(&mut self, node: NodeNo, round: &mut Round) {
        match self.slots.get_mut(&node) {
            Some(slots) => *slots = Slots::Held,
            // Given back before the grant came.
            None => round.gated.push(Command::ReturnSlots { node }),
        }
    }

    /// Gives back what is not needed any more: an attempt that is over, a node that will not begin.
    pub(super) fn return_slots(&mut self, round: &mut Round) {
        if self.slots.is_empty() {
            return;
        }
        let ended = self.state.end().is_some();
        let nodes = &self.state.nodes;
        self.slots.retain(|node, _| {
            let state = &nodes[node.index()];
            let needed = match state.stage {
                Stage::Ready
                | Stage::Running { .. }
                | Stage::Stopping { .. }
                | Stage::Preparing
                | Stage::Armed
                | Stage::Exiting => true,
                // Dropped and still at it, in this process or before its journal failed.
                _ => matches!(state.thread, Thread::Dropped(_)) || self.lingering.contains(node),
            };
            if ended || !needed {
                round.gated.push(Command::ReturnSlots { node: *node });
            }
            needed && !ended
        });
    }
}
