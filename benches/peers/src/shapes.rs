//! The graphs that are measured: those of `stillpoint-benches`, as each engine can be given them.

/// For each step those that it comes after, all of them before it in the list.
pub type Graph = Vec<Vec<usize>>;

/// A name and a way to a graph of so many steps.
pub type Shape = (&'static str, fn(usize) -> Graph);

/// All of them.
pub const SHAPES: [Shape; 3] = [("chain", chain), ("fan-out", fan_out), ("layered", layered)];

/// One after the other.
fn chain(steps: usize) -> Graph {
    (0..steps).map(|at| at.checked_sub(1).into_iter().collect()).collect()
}

/// One, all others but the last side by side, and the last.
fn fan_out(steps: usize) -> Graph {
    let mut graph = vec![vec![0]; steps];
    graph[0].clear();
    graph[steps - 1] = (1..steps - 1).collect();
    graph
}

/// Layers of 20 steps, each after up to three of the layer before, drawn by a fixed seed.
fn layered(steps: usize) -> Graph {
    const WIDTH: usize = 20;
    let mut seed = 7_usize;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    (0..steps)
        .map(|at| {
            let Some(before) = (at / WIDTH).checked_sub(1) else { return Vec::new() };
            let mut after: Vec<_> = (0..3).map(|_| before * WIDTH + random() % WIDTH).collect();
            after.sort_unstable();
            after.dedup();
            after
        })
        .collect()
}

/// The same graph the other way round: for each step those that come after it.
pub fn followers(graph: &Graph) -> Graph {
    let mut followers = vec![Vec::new(); graph.len()];
    for (at, after) in graph.iter().enumerate() {
        for before in after {
            followers[*before].push(at);
        }
    }
    followers
}
