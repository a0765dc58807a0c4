//! One engine on one graph, in a process of its own: what overflows its stack or never ends takes nothing with it.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::engines::Engine;
use crate::engines::bare::Bare;
use crate::shapes::{Graph, SHAPES};

/// How long a case may take in all.
const LIMIT: Duration = Duration::from_mins(1);

/// How long runs are repeated within one process, and how often at most.
const REPEAT: Duration = Duration::from_secs(3);
const TIMES: usize = 25;

/// Microseconds a step, the best of all runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// A bare task for each step, in between.
    pub bare: f64,
    /// To bring the graph into the engine's form.
    pub build: f64,
    /// To run it.
    pub run: f64,
}

impl Times {
    const WORST: Self = Self { bare: f64::MAX, build: f64::MAX, run: f64::MAX };

    /// The better of each.
    pub fn or(self, other: Self) -> Self {
        Self {
            bare: self.bare.min(other.bare),
            build: self.build.min(other.build),
            run: self.run.min(other.run),
        }
    }
}

/// Why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It was not over in a minute.
    Slow,
    /// It overflowed its stack.
    Stack,
    /// Something else; its last words.
    Other(String),
}

/// Runs the case in a child.
pub fn in_child(engine: &str, shape: &str, steps: usize) -> Result<Times, Failed> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["case", engine, shape, &steps.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let Some(status) = wait(&mut child) else { return Err(Failed::Slow) };
    let output = child.wait_with_output().unwrap();
    if !status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(if said.contains("overflowed its stack") {
            Failed::Stack
        } else {
            Failed::Other(said.into_owned())
        });
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let all: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [bare, build, run] = all[..] else { return Err(Failed::Other(said)) };
    Ok(Times { bare, build, run })
}

/// How it ended, or nothing where it had to be ended.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the case here and prints its times.
pub fn here<E: Engine>(shape: &str, steps: usize) {
    let (_, shape) = SHAPES.into_iter().find(|(name, _)| *name == shape).unwrap();
    let graph = shape(steps);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let begun = Instant::now();
    let mut best = Times::WORST;
    for _ in 0..TIMES {
        let (_, bare) = once::<Bare>(&runtime, &graph);
        let (build, run) = once::<E>(&runtime, &graph);
        best = best.or(Times { bare, build, run });
        if begun.elapsed() > REPEAT {
            break;
        }
    }
    println!("{} {} {}", best.bare, best.build, best.run);
    // What is left of an engine need not be waited for.
    runtime.shutdown_background();
}

/// What building and running take, in microseconds a step.
fn once<E: Engine>(runtime: &Runtime, graph: &Graph) -> (f64, f64) {
    let steps = f64::from(u32::try_from(graph.len()).unwrap());
    let each = |time: Duration| time.as_secs_f64() * 1e6 / steps;
    let begun = Instant::now();
    let work = E::build(graph);
    let build = begun.elapsed();
    let (left, run) = runtime.block_on(async move {
        let run = tokio::spawn(async move {
            let begun = Instant::now();
            let left = E::run(work).await;
            (left, begun.elapsed())
        });
        run.await.unwrap()
    });
    drop(left);
    (each(build), each(run))
}
