//! The edges of a plan, as dense lists: what the machines walk.

use super::handle::NodeNo;
use super::{NodeKind, PlanData, Role};

/// Edges between top-level nodes, and between the body steps of one guard. A guard's parts count as the guard wherever
/// they touch the outside.
#[derive(Debug)]
pub(crate) struct Topology {
    succs: Lists,
    preds: Lists,
    /// Nodes that are no part of a guard.
    top: Vec<NodeNo>,
}

/// Many short lists in two vectors.
#[derive(Debug, Default)]
struct Lists {
    starts: Vec<u32>,
    items: Vec<NodeNo>,
}

impl Lists {
    /// The lists of `pairs`, sorted by their first element.
    fn of(count: usize, pairs: &[(NodeNo, NodeNo)]) -> Self {
        let mut starts = vec![0_u32; count + 1];
        for (from, _) in pairs {
            starts[from.index() + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        Self { starts, items: pairs.iter().map(|(_, to)| *to).collect() }
    }

    fn of_node(&self, node: NodeNo) -> &[NodeNo] {
        let (from, to) = (self.starts[node.index()], self.starts[node.index() + 1]);
        &self.items[from as usize..to as usize]
    }
}

impl Topology {
    /// The topology of nodes whose references have been checked.
    pub(super) fn of(data: &PlanData) -> Self {
        let mut edges = edges(data);
        let count = data.nodes.len();
        let succs = Lists::of(count, &edges);
        for (from, to) in &mut edges {
            std::mem::swap(from, to);
        }
        edges.sort_unstable();
        let preds = Lists::of(count, &edges);
        let top = (0..count).map(NodeNo::at);
        let top = top.filter(|node| data.nodes[node.index()].within.is_none()).collect();
        Self { succs, preds, top }
    }

    pub(crate) fn succs(&self, node: NodeNo) -> &[NodeNo] {
        self.succs.of_node(node)
    }

    pub(crate) fn preds(&self, node: NodeNo) -> &[NodeNo] {
        self.preds.of_node(node)
    }

    pub(crate) fn top(&self) -> &[NodeNo] {
        &self.top
    }
}

/// The edges, sorted and without doubles: before, after.
pub(super) fn edges(data: &PlanData) -> Vec<(NodeNo, NodeNo)> {
    let nodes = &data.nodes;
    let outer = |node: NodeNo| nodes[node.index()].within.unwrap_or(node);
    let mut edges = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let to = NodeNo::at(at);
        for from in &node.after {
            if outer(*from) != outer(to) {
                edges.push((outer(*from), outer(to)));
            } else if is_body(data, *from) && is_body(data, to) {
                edges.push((*from, to));
            } else {
                // A part of a guard that waits for its own guard: a ring of one.
                edges.push((outer(to), outer(to)));
            }
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

pub(super) fn is_body(data: &PlanData, node: NodeNo) -> bool {
    let node = &data.nodes[node.index()];
    let body = matches!(&node.kind, NodeKind::Step(step) if step.role == Role::Body);
    body || node.within.is_none()
}
