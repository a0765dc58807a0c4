//! The engines, each told to run the same graph as its documentation advises.

pub mod bare;
pub mod dagrs;
pub mod steno;
pub mod stillpoint;

use crate::shapes::Graph;

/// One of them.
pub trait Engine {
    /// The graph in the engine's own form, ready to be run once.
    type Work: Send + 'static;
    /// What is left when the graph has been run; it is dropped after the clock has stopped.
    type Left: Send + 'static;

    /// The graph in this form.
    fn build(graph: &Graph) -> Self::Work;

    /// Runs it and waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not succeed.
    fn run(work: Self::Work) -> impl Future<Output = Self::Left> + Send;
}
