//! `stillpoint-workflow` with its journal in memory.

use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{Cx, Failure};
use stillpoint_workflow::{
    Action, ActionRegistry, Done, EffectKind, End, Engine as Workflow, MemoryJournal, Out, Plan,
    PlanBuilder, Submission, ThreadLanes, TokioSeams,
};
use tokio::runtime::Handle;

use super::Engine;
use crate::shapes::Graph;

/// Ours.
#[derive(Debug)]
pub struct Stillpoint;

/// A step that does nothing.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Action for Nothing {
    const NAME: &'static str = "peers.nothing";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        Ok(Done::new(()))
    }
}

impl Engine for Stillpoint {
    type Work = Plan;
    type Left = Workflow;

    fn build(graph: &Graph) -> Plan {
        let mut plan = PlanBuilder::new("peers");
        let mut steps: Vec<Out<()>> = Vec::with_capacity(graph.len());
        for (at, after) in graph.iter().enumerate() {
            let mut step = plan.step(format!("s{at}"), Nothing::with(()));
            for before in after {
                step = step.after(steps[*before]);
            }
            steps.push(step.add());
        }
        plan.build().unwrap()
    }

    async fn run(plan: Plan) -> Workflow {
        let mut actions = ActionRegistry::new();
        actions.register(Nothing).unwrap();
        let seams = TokioSeams::on(Handle::current());
        let journal = Arc::new(MemoryJournal::new());
        let engine = Workflow::builder(actions, journal, seams, Arc::new(ThreadLanes)).build();
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
        engine
    }
}
