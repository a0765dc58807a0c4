//! `steno` with its `InMemorySecStore`, which keeps nothing.

use std::sync::Arc;

use serde_json::{Value, json};
use slog::{Discard, Logger, o};
use steno::{
    ActionContext, ActionError, ActionRegistry, InMemorySecStore, SagaDag, SagaId, SagaResult,
    SagaType, new_action_noop_undo, sec,
};

use super::Engine;
use crate::shapes::{Graph, followers};

/// Sagas.
#[derive(Debug)]
pub struct Steno;

/// What its sagas are given: nothing.
#[derive(Debug)]
pub struct Nothing;

impl SagaType for Nothing {
    type ExecContextType = ();
}

/// A step that does nothing.
async fn nothing(_: ActionContext<Nothing>) -> Result<(), ActionError> {
    Ok(())
}

const ACTION: &str = "peers.nothing";

/// The builder only appends stages, each step of which comes after all of the stage before. A layered graph has fewer
/// edges, so every graph is made in the form in which sagas are stored. A saga has to end in one step: where a graph
/// does not, one more is added.
fn saga(graph: &Graph) -> SagaDag {
    let action = |at: usize| json!({"Action": {"name": format!("s{at}"), "label": "", "action_name": ACTION}});
    let mut nodes: Vec<Value> = (0..graph.len()).map(action).collect();
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for (at, after) in graph.iter().enumerate() {
        edges.extend(after.iter().map(|before| (*before, at)));
    }
    let last: Vec<_> = followers(graph)
        .iter()
        .enumerate()
        .filter_map(|(at, after)| after.is_empty().then_some(at))
        .collect();
    let output = if let [one] = last[..] {
        one
    } else {
        let join = nodes.len();
        nodes.push(action(join));
        edges.extend(last.iter().map(|step| (*step, join)));
        join
    };
    let (start, end) = (nodes.len(), nodes.len() + 1);
    nodes.push(json!({"Start": {"params": null}}));
    nodes.push(json!("End"));
    let first = graph.iter().enumerate().filter(|(_, after)| after.is_empty());
    edges.extend(first.map(|(at, _)| (start, at)));
    edges.push((output, end));
    let edges: Vec<Value> = edges.iter().map(|(from, to)| json!([from, to, null])).collect();
    serde_json::from_value(json!({
        "saga_name": "peers",
        "graph": {
            "nodes": nodes,
            "node_holes": [],
            "edge_property": "directed",
            "edges": edges,
        },
        "start_node": start,
        "end_node": end,
    }))
    .unwrap()
}

impl Engine for Steno {
    type Work = Arc<SagaDag>;
    type Left = SagaResult;

    fn build(graph: &Graph) -> Arc<SagaDag> {
        Arc::new(saga(graph))
    }

    async fn run(saga: Arc<SagaDag>) -> SagaResult {
        let mut actions = ActionRegistry::<Nothing>::new();
        actions.register(new_action_noop_undo(ACTION, nothing));
        let sec = sec(Logger::root(Discard, o!()), Arc::new(InMemorySecStore::new()));
        let id = SagaId::new_v4();
        let end = sec.saga_create(id, Arc::new(()), saga, Arc::new(actions)).await.unwrap();
        sec.saga_start(id).await.unwrap();
        let result = end.await;
        assert!(result.kind.is_ok());
        result
    }
}
