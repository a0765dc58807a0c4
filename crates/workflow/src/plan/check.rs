//! Finding everything that is wrong with a plan.

use std::collections::BTreeSet;
use std::time::Duration;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use super::handle::NodeNo;
use super::topology::{Topology, edges};
use super::{Guard, NodeKind, PLAN_FORMAT, PlanData, PlanError, PlanProblem, Role, Step};
use crate::action::EffectKind;

/// Node indices of petgraph are the places in the plan's list; they never leave this module.
type Graph = DiGraph<(), (), u32>;

/// Checks a plan and gives its topology.
pub(super) fn check(data: &PlanData, problems: Vec<PlanProblem>) -> Result<Topology, PlanError> {
    let mut check = Check { data, problems };
    if data.format > PLAN_FORMAT {
        return Err(PlanError {
            problems: vec![PlanProblem::Format { found: data.format, known: PLAN_FORMAT }],
        });
    }
    check.names();
    if check.references() {
        let graph = check.graph();
        check.guards();
        if check.cycles(&graph) {
            check.worst_cases(&graph);
            check.no_return(&graph);
            check.uses(&graph);
        }
    }
    if check.problems.is_empty() {
        Ok(Topology::of(data))
    } else {
        Err(PlanError { problems: check.problems })
    }
}

struct Check<'a> {
    data: &'a PlanData,
    problems: Vec<PlanProblem>,
}

fn index(node: NodeNo) -> NodeIndex<u32> {
    NodeIndex::new(node.index())
}

impl<'a> Check<'a> {
    fn name(&self, at: usize) -> String {
        self.data.nodes[at].name.to_string()
    }

    fn steps(&self) -> impl Iterator<Item = (usize, &'a Step)> + use<'a> {
        self.data.nodes.iter().enumerate().filter_map(|(at, node)| match &node.kind {
            NodeKind::Step(step) => Some((at, step)),
            NodeKind::Input | NodeKind::Guard(_) => None,
        })
    }

    fn guards_of(&self) -> impl Iterator<Item = (usize, &'a Guard)> + use<'a> {
        self.data.nodes.iter().enumerate().filter_map(|(at, node)| match &node.kind {
            NodeKind::Guard(guard) => Some((at, guard)),
            NodeKind::Input | NodeKind::Step(_) => None,
        })
    }

    fn names(&mut self) {
        if self.steps().next().is_none() && self.guards_of().next().is_none() {
            self.problems.push(PlanProblem::Empty);
        }
        let mut seen = BTreeSet::new();
        for node in &self.data.nodes {
            if !seen.insert(node.name.as_str()) {
                self.problems.push(PlanProblem::DuplicateName { name: node.name.to_string() });
            }
        }
        for claim in &self.data.claims {
            let Some(until) = &claim.until else { continue };
            let named = |node: &super::Node| node.name == *until && node.within.is_none();
            if !self.data.nodes.iter().any(|node| named(node) && node.kind != NodeKind::Input) {
                self.problems.push(PlanProblem::UnknownGuard {
                    key: claim.key.to_string(),
                    guard: until.to_string(),
                });
            }
        }
    }

    /// Whether every reference is to a node of the plan; a plan that was read may say anything.
    fn references(&mut self) -> bool {
        let count = self.data.nodes.len();
        let before = self.problems.len();
        for (at, node) in self.data.nodes.iter().enumerate() {
            let mut all: Vec<NodeNo> = node.after.clone();
            all.extend(node.within);
            match &node.kind {
                NodeKind::Input => {}
                NodeKind::Step(step) => step.feed.each(&mut |from| {
                    all.push(from);
                    if !node.after.contains(&from) {
                        all.push(NodeNo(u32::MAX));
                    }
                }),
                NodeKind::Guard(guard) => {
                    all.extend(guard.members.iter().flat_map(|m| [m.enter, m.exit]));
                    all.extend(&guard.body);
                }
            }
            if let Some(unknown) = all.iter().find(|node| node.index() >= count) {
                self.problems.push(PlanProblem::UnknownDependency {
                    step: self.name(at),
                    name: format!("node {unknown}"),
                });
            }
        }
        self.problems.len() == before
    }

    fn graph(&self) -> Graph {
        let edges = edges(self.data);
        let mut graph = Graph::with_capacity(self.data.nodes.len(), edges.len());
        for _ in &self.data.nodes {
            graph.add_node(());
        }
        for (from, to) in edges {
            graph.add_edge(index(from), index(to), ());
        }
        graph
    }

    fn guards(&mut self) {
        for (at, guard) in self.guards_of() {
            let mut bad = |why| {
                let guard = self.data.nodes[at].name.to_string();
                self.problems.push(PlanProblem::BadGuard { guard, why });
            };
            if guard.members.is_empty() {
                bad("it has no member");
            }
            if guard.exit_retry.attempts == 0 {
                bad("its exits have no attempt");
            }
            if guard.limit.is_some_and(|limit| limit <= guard.exit_timeout) {
                bad("its limit is not longer than its exit time-out");
            }
            let names: BTreeSet<_> = guard.members.iter().map(|member| &member.name).collect();
            if names.len() < guard.members.len() {
                bad("two members have one name");
            }
            let enters = guard.members.iter().map(|member| (member.enter, Role::Enter));
            let exits = guard.members.iter().map(|member| (member.exit, Role::Exit));
            let body = guard.body.iter().map(|step| (*step, Role::Body));
            let mut parts = 0;
            for (part, role) in enters.chain(exits).chain(body) {
                parts += 1;
                let node = &self.data.nodes[part.index()];
                let fits = matches!(&node.kind, NodeKind::Step(step) if step.role == role);
                if !fits || node.within != Some(NodeNo::at(at)) {
                    bad("it lists a step that is not its own");
                }
            }
            let own = |node: &&super::Node| node.within == Some(NodeNo::at(at));
            if self.data.nodes.iter().filter(own).count() != parts {
                bad("a step says that it is in it and is not");
            }
        }
        for (at, node) in self.data.nodes.iter().enumerate() {
            let Some(outer) = node.within else { continue };
            let outer = outer.index();
            let is_guard = matches!(self.data.nodes[outer].kind, NodeKind::Guard(_));
            if matches!(node.kind, NodeKind::Guard(_)) || !is_guard {
                self.problems.push(PlanProblem::NestedGuard {
                    outer: self.name(outer),
                    inner: self.name(at),
                });
            }
        }
        for (at, step) in self.steps() {
            if let (true, Some(guard)) = (step.no_return, self.data.nodes[at].within) {
                self.problems.push(PlanProblem::NoReturnInGuard {
                    step: self.name(at),
                    guard: self.name(guard.index()),
                });
            }
        }
    }

    /// Whether there are no rings; otherwise one problem for each knot, with one whole ring of it in order.
    fn cycles(&mut self, graph: &Graph) -> bool {
        if toposort(graph, None).is_ok() {
            return true;
        }
        for knot in kosaraju_scc(graph) {
            let first = knot[0];
            if knot.len() == 1 && graph.find_edge(first, first).is_none() {
                continue;
            }
            let members: BTreeSet<_> = knot.iter().copied().collect();
            // Every node of a knot has a successor in it: walking on must come back to a node seen before.
            let (mut walk, mut at) = (vec![], first);
            while !walk.contains(&at) {
                walk.push(at);
                let Some(next) = graph.neighbors(at).find(|next| members.contains(next)) else {
                    break;
                };
                at = next;
            }
            let start = walk.iter().position(|node| *node == at).unwrap_or(0);
            let ring = walk[start..].iter().chain([&at]).map(|node| self.name(node.index()));
            let steps = ring.collect();
            self.problems.push(PlanProblem::Cycle { steps });
        }
        false
    }

    fn worst_cases(&mut self, graph: &Graph) {
        for (at, guard) in self.guards_of() {
            let Some(limit) = guard.limit else { continue };
            let cutoff = limit.saturating_sub(guard.exit_timeout);
            let worst = worst_case(self.data, guard, graph);
            if worst > cutoff {
                let guard = self.name(at);
                self.problems.push(PlanProblem::WorstCaseTooLong { guard, worst, cutoff });
            }
        }
    }

    fn no_return(&mut self, graph: &Graph) {
        let mut points = self.steps().filter(|(_, step)| step.no_return).map(|(at, _)| at);
        let Some(point) = points.next() else { return };
        if let Some(second) = points.next() {
            let (first, second) = (self.name(point), self.name(second));
            self.problems.push(PlanProblem::SecondNoReturn { first, second });
            return;
        }
        if self.data.nodes[point].within.is_some() {
            return;
        }
        let before = reach(graph, point, Way::Back);
        let after = reach(graph, point, Way::Forward);
        for (at, node) in self.data.nodes.iter().enumerate() {
            let outer = node.within.map_or(at, NodeNo::index);
            let idle = node.kind == NodeKind::Input;
            if !before[outer] && !after[outer] && node.within.is_none() && !idle {
                let (step, beside) = (self.name(point), self.name(at));
                self.problems.push(PlanProblem::NoReturnNotCut { step, beside });
            }
        }
        if self.steps().any(|(at, step)| at == point && step.optional) {
            self.problems.push(PlanProblem::OptionalNoReturn { step: self.name(point) });
        }
        for (at, step) in self.steps() {
            let outer = self.data.nodes[at].within.map_or(at, NodeNo::index);
            let takes_back = matches!(step.role, Role::Plain | Role::Body) && !step.optional;
            if after[outer] && takes_back && step.effect == EffectKind::Reversible {
                self.problems.push(PlanProblem::UndoNeverOwed { step: self.name(at) });
            }
        }
    }

    /// Steps that use one resource, one of them exclusively, must be ordered.
    fn uses(&mut self, graph: &Graph) {
        let users: Vec<_> = self
            .steps()
            .flat_map(|(at, step)| step.uses.iter().map(move |claim| (at, step.role, claim)))
            .collect();
        let outer = |at: usize| self.data.nodes[at].within.map_or(at, NodeNo::index);
        let mut found = BTreeSet::new();
        for (at, role, claim) in &users {
            let rivals: Vec<_> = users
                .iter()
                .filter(|(other, _, theirs)| other > at && claim.conflicts_with(theirs))
                .collect();
            if rivals.is_empty() {
                continue;
            }
            let near = [reach(graph, *at, Way::Forward), reach(graph, *at, Way::Back)];
            let far = [reach(graph, outer(*at), Way::Forward), reach(graph, outer(*at), Way::Back)];
            for (other, their_role, _) in rivals {
                let ordered = if outer(*other) == outer(*at) {
                    // In one guard all enters come before the body and all exits after it.
                    role != their_role || near.iter().any(|set| set[*other])
                } else {
                    far.iter().any(|set| set[outer(*other)])
                };
                if !ordered {
                    found.insert((*at, *other, claim.key.to_string()));
                }
            }
        }
        for (first, second, key) in found {
            let (first, second) = (self.name(first), self.name(second));
            self.problems.push(PlanProblem::UnorderedUse { key, first, second });
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Back,
}

/// Which nodes can be reached, itself included.
fn reach(graph: &Graph, from: usize, way: Way) -> Vec<bool> {
    let mut seen = vec![false; graph.node_count()];
    let start = NodeIndex::new(from);
    match way {
        Way::Forward => {
            let mut walk = Dfs::new(graph, start);
            while let Some(node) = walk.next(graph) {
                seen[node.index()] = true;
            }
        }
        Way::Back => {
            let back = Reversed(graph);
            let mut walk = Dfs::new(back, start);
            while let Some(node) = walk.next(back) {
                seen[node.index()] = true;
            }
        }
    }
    seen
}

/// The longest declared way through a guard: the slowest enter, then the slowest path of the body.
fn worst_case(data: &PlanData, guard: &Guard, graph: &Graph) -> Duration {
    let declared = |node: NodeNo| match &data.nodes[node.index()].kind {
        NodeKind::Step(step) => step.worst_case.unwrap_or_default(),
        NodeKind::Input | NodeKind::Guard(_) => Duration::ZERO,
    };
    let enter = guard.members.iter().map(|member| declared(member.enter)).max();
    let edges = |node: NodeNo, visit: &mut dyn FnMut(NodeNo)| {
        for next in graph.neighbors(index(node)) {
            visit(NodeNo::at(next.index()));
        }
    };
    enter.unwrap_or_default().saturating_add(longest_path(&guard.body, declared, edges))
}

/// The weight of the heaviest path through `body`, an acyclic graph.
pub(crate) fn longest_path(
    body: &[NodeNo],
    weight: impl Fn(NodeNo) -> Duration,
    succs: impl Fn(NodeNo, &mut dyn FnMut(NodeNo)),
) -> Duration {
    let mut waiting = std::collections::BTreeMap::<NodeNo, (u32, Duration)>::new();
    for node in body {
        waiting.insert(*node, (0, Duration::ZERO));
    }
    for node in body {
        // Of a plan that was read, a body may say of steps that they follow each other by ways that are not in it.
        succs(*node, &mut |next| {
            if let Some((left, _)) = waiting.get_mut(&next) {
                *left += 1;
            }
        });
    }
    let mut free: Vec<_> = body.iter().copied().filter(|node| waiting[node].0 == 0).collect();
    let mut longest = Duration::ZERO;
    while let Some(node) = free.pop() {
        let end = waiting[&node].1.saturating_add(weight(node));
        longest = longest.max(end);
        succs(node, &mut |next| {
            if let Some((left, start)) = waiting.get_mut(&next) {
                *start = end.max(*start);
                *left -= 1;
                if *left == 0 {
                    free.push(next);
                }
            }
        });
    }
    longest
}
