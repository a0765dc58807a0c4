//! Plans of steps that do nothing, in the shapes that are measured.

use async_trait::async_trait;
use stillpoint_context::{Cx, Failure};
use stillpoint_workflow::{Action, ActionRegistry, Done, EffectKind, Out, Plan, PlanBuilder};

/// A step that does nothing.
#[derive(Debug)]
pub struct Nothing;

#[async_trait]
impl Action for Nothing {
    const NAME: &'static str = "bench.nothing";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        Ok(Done::new(()))
    }
}

/// What engines of the benches can do.
pub fn actions() -> ActionRegistry {
    let mut actions = ActionRegistry::new();
    actions.register(Nothing).unwrap();
    actions
}

/// A name and a way to a plan of so many steps.
pub type Shape = (&'static str, fn(usize) -> Plan);

/// All of them.
pub const SHAPES: [Shape; 3] = [("chain", chain), ("fan-out", fan_out), ("layered", layered)];

/// One after the other.
pub fn chain(steps: usize) -> Plan {
    let mut plan = PlanBuilder::new("chain");
    let mut last = plan.step("s0", Nothing::with(())).add();
    for at in 1..steps {
        last = plan.step(format!("s{at}"), Nothing::with(())).after(last).add();
    }
    plan.build().unwrap()
}

/// One, all others but the last side by side, and the last.
pub fn fan_out(steps: usize) -> Plan {
    let mut plan = PlanBuilder::new("fan-out");
    let root = plan.step("root", Nothing::with(())).add();
    let leaves: Vec<_> = (0..steps - 2)
        .map(|at| plan.step(format!("s{at}"), Nothing::with(())).after(root).add())
        .collect();
    let mut join = plan.step("join", Nothing::with(()));
    for leaf in leaves {
        join = join.after(leaf);
    }
    join.add();
    plan.build().unwrap()
}

/// Layers of 20 steps, each after up to three of the layer before, drawn by a fixed seed.
pub fn layered(steps: usize) -> Plan {
    layers(steps, 20)
}

/// The same with layers of this width.
pub fn layers(steps: usize, width: usize) -> Plan {
    let mut seed = 7_usize;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut plan = PlanBuilder::new("layered");
    let mut before: Vec<Out<()>> = Vec::new();
    let mut layer = Vec::new();
    for at in 0..steps {
        let mut step = plan.step(format!("s{at}"), Nothing::with(()));
        for _ in 0..3.min(before.len()) {
            step = step.after(before[random() % before.len()]);
        }
        layer.push(step.add());
        if layer.len() == width {
            before = std::mem::take(&mut layer);
        }
    }
    plan.build().unwrap()
}
