//! Plans as pictures: DOT for Graphviz, Mermaid for documents; a run lays its states over them.

use std::fmt::Write as _;

use crate::machine::{NodeProgress, RunState};
use crate::plan::{NodeKind, NodeNo, Plan, Role};

impl Plan {
    /// The plan in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        Picture { plan: self, run: None }.dot()
    }

    /// The plan as a Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        Picture { plan: self, run: None }.mermaid()
    }
}

impl RunState {
    /// The plan in the language of Graphviz, coloured by how far each node has come.
    pub fn to_dot(&self) -> String {
        Picture { plan: self.plan(), run: Some(self) }.dot()
    }

    /// The plan as a Mermaid flowchart, coloured by how far each node has come.
    pub fn to_mermaid(&self) -> String {
        Picture { plan: self.plan(), run: Some(self) }.mermaid()
    }
}

struct Picture<'a> {
    plan: &'a Plan,
    run: Option<&'a RunState>,
}

impl Picture<'_> {
    fn label(&self, node: NodeNo) -> String {
        let spec = self.plan.node(node);
        let mut label = spec.name.to_string();
        if let NodeKind::Step(step) = &spec.kind {
            let marks = [(step.optional, " (optional)"), (step.no_return, " (no return)")];
            for (_, mark) in marks.iter().filter(|(set, _)| *set) {
                label.push_str(mark);
            }
        }
        if let Some(run) = self.run {
            let _ = write!(label, "\\n{}", word(run.progress(node)));
        }
        label
    }

    fn colour(&self, node: NodeNo) -> Option<&'static str> {
        Some(match self.run?.progress(node) {
            NodeProgress::Waiting | NodeProgress::Skipped => "#eeeeee",
            NodeProgress::Running | NodeProgress::Retrying | NodeProgress::Probing => "#ffe9a8",
            NodeProgress::Done => "#bfe6bf",
            NodeProgress::Failed => "#f4b6b6",
            NodeProgress::Undoing | NodeProgress::Undone => "#d6c8f0",
            NodeProgress::Parked => "#ffc48a",
        })
    }

    fn edges(&self) -> impl Iterator<Item = (NodeNo, NodeNo)> {
        let topology = self.plan.topology();
        let nodes = (0..self.plan.nodes().len()).map(NodeNo::at);
        nodes.flat_map(|node| topology.succs(node).iter().map(move |next| (node, *next)))
    }

    /// The parts of a guard, in the order of time: enters, body, exits.
    fn parts(&self, guard: NodeNo) -> Vec<NodeNo> {
        let Some(guard) = self.plan.guard(guard) else { return Vec::new() };
        let enters = guard.members.iter().map(|member| member.enter);
        let exits = guard.members.iter().map(|member| member.exit);
        enters.chain(guard.body.iter().copied()).chain(exits).collect()
    }

    fn role(&self, node: NodeNo) -> Role {
        self.plan.step(node).map_or(Role::Plain, |step| step.role)
    }

    fn dot(&self) -> String {
        let mut text =
            format!("digraph {:?} {{\n  rankdir=LR; node [shape=box];\n", self.plan.name());
        let line = |text: &mut String, node: NodeNo, indent: &str| {
            let style = self
                .colour(node)
                .map(|colour| format!(", style=filled, fillcolor=\"{colour}\""))
                .unwrap_or_default();
            let label = self.label(node);
            let _ = writeln!(text, "{indent}n{node} [label=\"{label}\"{style}];");
        };
        for node in self.plan.topology().top() {
            if self.plan.guard(*node).is_none() {
                line(&mut text, *node, "  ");
                continue;
            }
            let _ = writeln!(text, "  subgraph cluster_{node} {{");
            let _ = writeln!(text, "    label=\"{}\";", self.label(*node));
            // A point that edges of the guard as a whole can hold on to.
            let _ = writeln!(text, "    n{node} [shape=point];");
            for part in self.parts(*node) {
                line(&mut text, part, "    ");
            }
            text.push_str("  }\n");
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "  n{from} -> n{to};");
        }
        text.push_str("}\n");
        text
    }

    fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        let label = |node| self.label(node).replace("\\n", "<br/>");
        for node in self.plan.topology().top() {
            if self.plan.guard(*node).is_none() {
                let _ = writeln!(text, "  n{node}[\"{}\"]", label(*node));
                continue;
            }
            let _ = writeln!(text, "  subgraph n{node}[\"{}\"]", label(*node));
            for part in self.parts(*node) {
                let (open, close) = match self.role(part) {
                    Role::Enter | Role::Exit => ("([", "])"),
                    Role::Plain | Role::Body => ("[", "]"),
                };
                let _ = writeln!(text, "    n{part}{open}\"{}\"{close}", label(part));
            }
            text.push_str("  end\n");
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "  n{from} --> n{to}");
        }
        for node in (0..self.plan.nodes().len()).map(NodeNo::at) {
            if let Some(colour) = self.colour(node) {
                let _ = writeln!(text, "  style n{node} fill:{colour}");
            }
        }
        text
    }
}

const fn word(progress: NodeProgress) -> &'static str {
    match progress {
        NodeProgress::Waiting => "waiting",
        NodeProgress::Running => "running",
        NodeProgress::Retrying => "retrying",
        NodeProgress::Probing => "probing",
        NodeProgress::Done => "done",
        NodeProgress::Failed => "failed",
        NodeProgress::Undoing => "undoing",
        NodeProgress::Undone => "undone",
        NodeProgress::Skipped => "skipped",
        NodeProgress::Parked => "parked",
    }
}
