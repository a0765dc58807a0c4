//! The floor: a task spawned and awaited for each step, one after the other.

use super::Engine;
use crate::shapes::Graph;

/// No engine.
#[derive(Debug)]
pub struct Bare;

impl Engine for Bare {
    type Work = usize;
    type Left = ();

    fn build(graph: &Graph) -> usize {
        graph.len()
    }

    async fn run(steps: usize) {
        for _ in 0..steps {
            tokio::spawn(async {}).await.unwrap();
        }
    }
}
