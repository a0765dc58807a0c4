//! Claims under load: 10,000 runs wait on 1,000 resources. What submitting one costs, and what a release and the grant
//! that follows cost, whoever else waits elsewhere.
//!
//! `cargo bench -p stillpoint-benches --bench claims` prints criterion's figures and then one table.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench spawns its own tasks")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use criterion::Criterion;
use stillpoint_benches::shapes::{actions, chain};
use stillpoint_benches::table::{is_wanted, micros_each, verdict};
use stillpoint_context::Seams;
use stillpoint_workflow::{
    Claim, ClaimKey, Done, End, Engine, MemoryJournal, Plan, PlanBuilder, RunHandle, Submission,
    ThreadLanes, TokioSeams, step_fn,
};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// What a server would use: a run makes and frees some hundred small things, on whichever thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goal of the project, in microseconds.
const GOAL: f64 = 5.0;

/// Microseconds a run.
#[derive(Clone, Copy)]
struct Measured {
    /// For its submission.
    submit: f64,
    /// For all that comes before its end; of those that wait, from the first release on.
    all: f64,
}

impl Measured {
    const MOST: Self = Self { submit: f64::MAX, all: f64::MAX };

    fn min(self, other: Self) -> Self {
        Self { submit: self.submit.min(other.submit), all: self.all.min(other.all) }
    }
}

fn claim(resource: usize) -> Claim {
    Claim::exclusive(ClaimKey::new(format!("database:{resource}")).unwrap())
}

/// An engine, and runs that hold resources until they are told to let go.
struct Held {
    engine: Engine,
    holders: Vec<RunHandle>,
    /// Lets go of the first resources, and of the others.
    gates: [Arc<Semaphore>; 2],
}

impl Held {
    /// So many resources, and so many others, each held by a run of its own.
    async fn new(seams: Seams, resources: usize, others: usize) -> Self {
        let journal = Arc::new(MemoryJournal::new());
        let engine = Engine::builder(actions(), journal, seams, Arc::new(ThreadLanes))
            .queue_limit(1_000_000)
            .build();
        let gates = [0, 1].map(|_| Arc::new(Semaphore::new(0)));
        let mut holders = Vec::new();
        for resource in 0..resources + others {
            let gate = Arc::clone(&gates[usize::from(resource >= resources)]);
            let mut plan = PlanBuilder::new("holder");
            let wait = step_fn(move |_, ()| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(Done::new(()))
                }
            });
            plan.step("hold", wait).add();
            let submission = Submission::new(plan.build().unwrap()).claim(claim(resource));
            holders.push(engine.submit(submission).await.unwrap());
        }
        while engine.holders().await.unwrap().len() < holders.len() {
            tokio::task::yield_now().await;
        }
        Self { engine, holders, gates }
    }

    /// Submits so many runs, in turn for each of the resources. Gives them, and how long each submission took.
    async fn submit(
        &self,
        plan: &Plan,
        runs: usize,
        resources: Range<usize>,
    ) -> (Vec<RunHandle>, f64) {
        let submissions: Vec<_> = (0..runs)
            .map(|at| resources.start + at % resources.len())
            .map(|resource| Submission::new(plan.clone()).claim(claim(resource)))
            .collect();
        let before = Instant::now();
        let mut handles = Vec::with_capacity(runs);
        for submission in submissions {
            handles.push(self.engine.submit(submission).await.unwrap());
        }
        // The arbiter has taken all of them in once it answers.
        drop(self.engine.holders().await.unwrap());
        (handles, micros_each(before.elapsed(), runs))
    }
}

async fn all_end(handles: Vec<RunHandle>) {
    for handle in handles {
        assert_eq!(handle.wait().await.unwrap().end(), End::Succeeded);
    }
}

/// What a run costs that waits for nobody: submitted, and from then to its end. Each has a resource of its own.
async fn free(seams: Seams, plan: Plan, runs: usize) -> Measured {
    let held = Held::new(seams, 0, 0).await;
    let before = Instant::now();
    let (handles, submit) = held.submit(&plan, runs, 0..runs).await;
    all_end(handles).await;
    Measured { submit, all: micros_each(before.elapsed(), runs) }
}

/// The same for runs that wait for a holder and for each other, with so many others that wait elsewhere.
async fn waiting(
    seams: Seams,
    plan: Plan,
    (runs, resources): (usize, usize),
    elsewhere: usize,
) -> Measured {
    let held = Held::new(seams, resources, elsewhere.div_ceil(10)).await;
    let others = match elsewhere {
        0 => Vec::new(),
        _ => held.submit(&plan, elsewhere, resources..resources + elsewhere.div_ceil(10)).await.0,
    };
    let (handles, submit) = held.submit(&plan, runs, 0..resources).await;
    let before = Instant::now();
    held.gates[0].add_permits(resources);
    all_end(handles).await;
    let all = micros_each(before.elapsed(), runs);
    held.gates[1].add_permits(held.holders.len() - resources);
    all_end(held.holders).await;
    all_end(others).await;
    Measured { submit, all }
}

/// On a worker of the runtime, as in any program that is asynchronous: not on the thread that waits for it.
fn on_worker<F>(runtime: &Runtime, measure: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.block_on(async { tokio::spawn(measure).await.unwrap() })
}

fn table(runtime: &Runtime) {
    const RUNS: usize = 10_000;
    const RESOURCES: usize = 1_000;
    let seams = || TokioSeams::on(runtime.handle().clone());
    let plan = chain(1);
    let (mut bare, mut line, mut few, mut crowd) =
        (Measured::MOST, Measured::MOST, Measured::MOST, Measured::MOST);
    for _ in 0..7 {
        bare = bare.min(on_worker(runtime, free(seams(), plan.clone(), RUNS)));
        line = line.min(on_worker(runtime, waiting(seams(), plan.clone(), (RUNS, RESOURCES), 0)));
        few = few.min(on_worker(
            runtime,
            waiting(seams(), plan.clone(), (RUNS / 10, RESOURCES / 10), 0),
        ));
        crowd = crowd.min(on_worker(
            runtime,
            waiting(seams(), plan.clone(), (RUNS / 10, RESOURCES / 10), RUNS),
        ));
    }
    let grant = line.all - (bare.all - bare.submit);
    println!("\n{:<64} {:>8} {:>8}", "runs of one step, µs a run", "submit", "rest");
    let row = |name: &str, of: Measured| println!("{name:<64} {:>8.2} {:>8.2}", of.submit, of.all);
    let rest = Measured { all: bare.all - bare.submit, ..bare };
    row("10,000 that wait for nobody", rest);
    row("10,000 that wait, ten for each of 1,000 resources", line);
    row("1,000 that wait, ten for each of 100 resources", few);
    row("the same while 10,000 wait elsewhere", crowd);
    println!("{:<64} {:>8.2} {:>8}", "submit", line.submit, verdict(line.submit <= GOAL));
    println!(
        "{:<64} {:>8.2} {:>8}",
        "release and grant: what waiting adds",
        grant,
        verdict(grant <= GOAL)
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let seams = || TokioSeams::on(runtime.handle().clone());
    let plan = chain(1);
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    criterion.bench_function("1,000 runs that wait for nobody", |b| {
        b.iter(|| on_worker(&runtime, free(seams(), plan.clone(), 1_000)));
    });
    criterion.bench_function("1,000 runs that wait for 100 resources", |b| {
        b.iter(|| on_worker(&runtime, waiting(seams(), plan.clone(), (1_000, 100), 0)));
    });
    criterion.final_summary();
    if is_wanted() {
        table(&runtime);
    }
}
