//! `dagrs`: its `Graph`, without checkpoints.

use std::sync::Arc;

use async_trait::async_trait;
use dagrs::{
    Action, CompletionStatus, Content, DefaultNode, EnvVar, Graph as Flow, InChannels, Node,
    NodeTable, OutChannels, Output,
};

use super::Engine;
use crate::shapes::{Graph, followers};

/// All nodes of a graph are started at once there; it is what they wait for in their channels that puts them in order.
#[derive(Debug)]
pub struct Dagrs;

/// A step that waits for those before it, does nothing, and tells those after it. It takes one channel after the other:
/// `map` and `broadcast`, which take them all at once, need much longer where a step has thousands of neighbours.
struct Nothing;

#[async_trait]
impl Action for Nothing {
    async fn run(
        &self,
        before: &mut InChannels,
        after: &mut OutChannels,
        _: Arc<EnvVar>,
    ) -> Output {
        for id in before.get_sender_ids() {
            before.recv_from(&id).await.unwrap();
        }
        let done = Content::new(());
        for id in after.get_receiver_ids() {
            after.send_to(&id, done.clone()).await.unwrap();
        }
        Output::empty()
    }
}

impl Engine for Dagrs {
    type Work = Flow;
    type Left = Flow;

    fn build(graph: &Graph) -> Flow {
        let mut table = NodeTable::new();
        let mut flow = Flow::new();
        let ids: Vec<_> = (0..graph.len())
            .map(|at| {
                let node = DefaultNode::with_action(format!("s{at}"), Nothing, &mut table);
                let id = node.id();
                flow.add_node(node).unwrap();
                id
            })
            .collect();
        for (at, after) in followers(graph).iter().enumerate() {
            if !after.is_empty() {
                flow.add_edge(ids[at], after.iter().map(|follower| ids[*follower])).unwrap();
            }
        }
        flow.set_env(EnvVar::new(table));
        flow
    }

    async fn run(mut flow: Flow) -> Flow {
        let report = flow.async_start().await.unwrap();
        assert_eq!(report.status, CompletionStatus::Succeeded);
        assert_eq!(report.node_succeeded, report.node_total);
        flow
    }
}
