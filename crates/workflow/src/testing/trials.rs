//! Trials: a scenario of yours, carried out with every mishap in turn. Each checks that nothing is left behind.
//!
//! ```text
//!   fail_every_step         each step fails once for good: before it did anything, and after
//!   run_every_step_twice    each step is carried out again at once
//!   undo_every_step_twice   the same for each undo, where a step fails for good
//!   crash_at_every_commit   the process dies with each commit of the journal, and another one recovers
//!   crash_at_every_await    the same at each place at which anything in the process waits
//!   cancel_at_every_await   somebody cancels at each such place
//! ```
//!
//! A [`Scenario`] says what is done and what must hold afterwards. Time is virtual, the seed decides the order of everything
//! else; a trial that fails names its mishap and its seed.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use stillpoint_context::{Cx, Failure};
//! use stillpoint_workflow::testing::{Scenario, trials};
//! use stillpoint_workflow::{Action, ActionRegistry, Done, EffectKind, End, Known, Plan, PlanBuilder, Retry, Undone};
//!
//! /// A shelf on which steps put things, and from which their undos take them.
//! #[derive(Debug, Clone, Default)]
//! struct Shelf(Arc<Mutex<Vec<String>>>);
//!
//! #[async_trait::async_trait]
//! impl Action for Shelf {
//!     const NAME: &'static str = "put";
//!     const EFFECT: EffectKind = EffectKind::Reversible;
//!     const IDEMPOTENT: bool = true;
//!     type Params = String;
//!     type Input = ();
//!     type Output = ();
//!     async fn run(&self, _: &Cx, thing: &String, (): ()) -> Result<Done<()>, Failure> {
//!         let mut shelf = self.0.lock().unwrap();
//!         if !shelf.contains(thing) {
//!             shelf.push(thing.clone());
//!         }
//!         Ok(Done::new(()))
//!     }
//!     async fn undo(&self, _: &Cx, thing: &String, (): (), _: Known<()>) -> Result<Undone, Failure> {
//!         self.0.lock().unwrap().retain(|other| other != thing);
//!         Ok(Undone::clean())
//!     }
//! }
//!
//! struct TwoThings;
//!
//! impl Scenario for TwoThings {
//!     type World = Shelf;
//!     fn world(&self) -> Shelf {
//!         Shelf::default()
//!     }
//!     fn registry(&self, shelf: &Shelf) -> ActionRegistry {
//!         let mut registry = ActionRegistry::new();
//!         registry.register(shelf.clone()).unwrap();
//!         registry
//!     }
//!     fn plan(&self, _: &Shelf) -> Plan {
//!         let mut plan = PlanBuilder::new("two things");
//!         let cup = plan.step("cup", Shelf::with("cup".to_owned())).retry(Retry::times(2)).add();
//!         plan.step("plate", Shelf::with("plate".to_owned())).after(cup).add();
//!         plan.build().unwrap()
//!     }
//!     fn check(&self, shelf: &Shelf, end: End) -> Result<(), String> {
//!         let wanted = if end <= End::SucceededWithWarnings { 2 } else { 0 };
//!         let found = shelf.0.lock().unwrap().len();
//!         (found == wanted).then_some(()).ok_or_else(|| format!("{found} things after {end:?}"))
//!     }
//! }
//!
//! let tried = trials::all(&TwoThings, 0).unwrap();
//! assert!(tried > 10, "{tried} mishaps");
//! ```

use std::fmt::{self, Debug};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stillpoint_context::{BoxFuture, Cx, Effect, ErrorClass, Failure, Mono, StepName};
use tokio::sync::watch;

use super::{Conduct, HookJournal, Interpose, Part, Sim, Stuck};
use crate::action::ActionRegistry;
use crate::engine::{Engine, RunHandle, Submission};
use crate::journal::{Journal, MemoryJournal, StreamId};
use crate::lease::Leases;
use crate::machine::End;
use crate::plan::{NodeKind, Plan, Role};

/// How long a lease of a process in a trial lasts, and the margin after it.
const TERM: Duration = Duration::from_mins(10);
const MARGIN: Duration = Duration::from_secs(1);

/// What is tried.
pub trait Scenario: Sync {
    /// What is outside: it outlives the processes that work on it.
    type World: Clone + Send + Sync + 'static;

    /// A fresh one.
    fn world(&self) -> Self::World;

    /// The actions, on that world. Each process has its own.
    fn registry(&self, world: &Self::World) -> ActionRegistry;

    /// What is carried out.
    fn plan(&self, world: &Self::World) -> Plan;

    /// What the processes write to: a fresh one, unless actions of the scenario read from it, as those that hand facts on do. The
    /// world holds it then, and nothing else may write to it.
    fn journal(&self, _world: &Self::World) -> Arc<MemoryJournal> {
        Arc::new(MemoryJournal::new())
    }

    /// Where the clocks stand when the run is submitted: later than what has happened in the world.
    fn begins(&self, _world: &Self::World) -> Mono {
        Mono(Duration::from_secs(1))
    }

    /// Whether the world is as it should be after a run that ended so, all debris counted as gone. A run of which nothing was
    /// recorded counts as cancelled.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, world: &Self::World, end: End) -> Result<(), String>;
}

/// A trial that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{scenario}, {mishap}, seed {seed}: {why}")]
#[non_exhaustive]
pub struct TrialError {
    /// The plan's name.
    pub scenario: String,
    /// What was made to go wrong.
    pub mishap: String,
    /// The seed that replays it.
    pub seed: u64,
    /// What was left behind.
    pub why: String,
}

/// What goes wrong, once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mishap {
    None,
    Fails { step: StepName, after: bool },
    Twice { step: StepName },
    UndoTwice { step: StepName, failing: StepName },
    Crash { at: Moment },
    Cancel { at: Moment },
}

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Commit(usize),
    Poll(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(count) => write!(f, "commit {count}"),
            Self::Poll(count) => write!(f, "poll {count}"),
        }
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("without a mishap"),
            Self::Fails { step, after: false } => write!(f, "step {step} fails before it acts"),
            Self::Fails { step, after: true } => write!(f, "step {step} fails after it has acted"),
            Self::Twice { step } => write!(f, "step {step} is carried out twice"),
            Self::UndoTwice { step, failing } => {
                write!(f, "step {failing} fails and {step} is undone twice")
            }
            Self::Crash { at } => write!(f, "the process dies with {at}"),
            Self::Cancel { at } => write!(f, "a cancel comes with {at}"),
        }
    }
}

/// Makes steps fail, and tells of what was undone.
#[derive(Debug)]
struct Meddler {
    mishap: Mishap,
    undone: Mutex<Vec<StepName>>,
    again: Mutex<Option<StepName>>,
    /// Somebody has mended what kept failing.
    mended: AtomicBool,
}

impl Interpose for Meddler {
    fn before(&self, cx: Cx, _: &str, part: Part) -> BoxFuture<'static, Result<Conduct, Failure>> {
        let fails = match &self.mishap {
            Mishap::Fails { step, after: false } => part == Part::Run && step == cx.step(),
            _ => false,
        } && !self.mended.load(Ordering::Acquire);
        let answer = if fails { Err(refused(Effect::None)) } else { Ok(Conduct::Do) };
        Box::pin(std::future::ready(answer))
    }

    fn after(&self, cx: Cx, _: &str, part: Part) -> BoxFuture<'static, Result<(), Failure>> {
        let mut fails = match &self.mishap {
            Mishap::Fails { step, after: true } | Mishap::UndoTwice { failing: step, .. } => {
                part == Part::Run && step == cx.step()
            }
            // The first time it is told that it failed, in a way that is worth another try.
            Mishap::Twice { step } => part == Part::Run && step == cx.step() && self.first(step),
            _ => false,
        };
        fails &= !self.mended.load(Ordering::Acquire);
        let mut failure = refused(Effect::Unknown);
        if let (Mishap::Twice { .. }, true) = (&self.mishap, fails) {
            failure = Failure::new("trial.again", ErrorClass::Unavailable, "carried out once more");
        }
        if part == Part::Undo {
            self.undone.lock().unwrap_or_else(PoisonError::into_inner).push(cx.step().clone());
            if let Mishap::UndoTwice { step, .. } = &self.mishap {
                fails = step == cx.step() && self.first(step);
                failure = Failure::new("trial.again", ErrorClass::Unavailable, "undone once more");
            }
        }
        Box::pin(std::future::ready(if fails { Err(failure) } else { Ok(()) }))
    }
}

impl Meddler {
    fn first(&self, step: &StepName) -> bool {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.replace(step.clone()).is_none()
    }
}

fn refused(effect: Effect) -> Failure {
    Failure::new("trial.refused", ErrorClass::Invalid, "a trial made it fail").with_effect(effect)
}

/// What is outside of every process of an episode.
struct Episode<'a, S: Scenario> {
    scenario: &'a S,
    world: S::World,
    plan: Plan,
    store: Arc<MemoryJournal>,
    meddler: Arc<Meddler>,
    seed: u64,
    /// Where the clocks stood when the last process ended.
    now: Mutex<Mono>,
}

impl<'a, S: Scenario> Episode<'a, S> {
    fn new(scenario: &'a S, mishap: Mishap, seed: u64) -> Self {
        let world = scenario.world();
        let plan = scenario.plan(&world);
        let meddler = Arc::new(Meddler {
            mishap,
            undone: Mutex::default(),
            again: Mutex::default(),
            mended: AtomicBool::new(false),
        });
        let store = scenario.journal(&world);
        let now = Mutex::new(scenario.begins(&world));
        Self { scenario, world, plan, store, meddler, seed, now }
    }

    /// The simulation of a process: time goes on from where it was.
    fn sim(&self, seed: u64) -> Sim {
        Sim::starting_at(seed, self.now.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn over(&self, sim: &Sim) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = sim.seams().clock.mono();
    }

    fn error(&self, why: impl Into<String>) -> TrialError {
        TrialError {
            scenario: self.plan.name().to_owned(),
            mishap: self.meddler.mishap.to_string(),
            seed: self.seed,
            why: why.into(),
        }
    }

    /// A process over the store; told of every commit of a run's stream that has been written.
    fn engine(&self, sim: &Sim, commits: &watch::Sender<usize>) -> Engine {
        let count = AtomicUsize::new(0);
        let commits = commits.clone();
        let store = Arc::clone(&self.store);
        let journal = HookJournal::after(store, move |batch| {
            if batch.appends.iter().any(|append| matches!(append.stream, StreamId::Run(_))) {
                let count = count.fetch_add(1, Ordering::AcqRel) + 1;
                commits.send_replace(count);
            }
        });
        let interpose: Arc<dyn Interpose> = Arc::clone(&self.meddler) as Arc<dyn Interpose>;
        let registry = self.scenario.registry(&self.world);
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let leases: Arc<dyn Leases> = Arc::clone(&self.store) as Arc<dyn Leases>;
        Engine::builder(registry, journal, sim.seams(), sim.lanes())
            .leases(leases)
            .lease_terms(TERM, MARGIN)
            .interpose(&interpose)
            .audited()
            .build()
    }

    /// Submits the plan, and says how it ended; none if the process died first.
    fn first_process(&self) -> Result<Option<End>, TrialError> {
        let sim = self.sim(self.seed);
        let (commits, seen) = watch::channel(0);
        let engine = self.engine(&sim, &commits);
        let mishap = self.meddler.mishap.clone();
        let (plan, here, meddler) = (self.plan.clone(), sim.clone(), Arc::clone(&self.meddler));
        let ended = sim.try_run(async move {
            let submit = engine.submit(Submission::new(plan));
            let (sim, mut seen) = (here, seen);
            let mut reached = async move |at: Moment| match at {
                Moment::Commit(count) => drop(seen.wait_for(|seen| *seen >= count).await),
                Moment::Poll(count) => sim.polled(count).await,
            };
            if let Mishap::Crash { at } = mishap {
                let life = async {
                    let run = submit.await.map_err(|error| error.to_string())?;
                    let report = run.wait().await.map_err(|error| error.to_string())?;
                    Ok::<_, String>(Some(report.end()))
                };
                let life = std::pin::pin!(life);
                let death = std::pin::pin!(reached(at));
                // With the end of this future everything of the process is dropped, wherever it is.
                return match futures_util::future::select(death, life).await {
                    futures_util::future::Either::Left(_) => Ok(None),
                    futures_util::future::Either::Right((end, _)) => end,
                };
            }
            let run = submit.await.map_err(|error| error.to_string())?;
            if let Mishap::Cancel { at } = mishap {
                let reached = std::pin::pin!(reached(at));
                let over = std::pin::pin!(run.wait());
                drop(futures_util::future::select(reached, over).await);
                let _answer = run.cancel("trial").await.map_err(|error| error.to_string())?;
            }
            bring_to_an_end(&run, &meddler).await.map(Some)
        });
        self.over(&sim);
        self.said(ended)
    }

    fn said<T>(&self, ended: Result<Result<T, String>, Stuck>) -> Result<T, TrialError> {
        ended.map_err(|stuck| stuck.to_string()).flatten().map_err(|why| self.error(why))
    }

    /// Recovers what the first process left open, and says how it ended; none if it had left nothing.
    fn second_process(&self) -> Result<Option<End>, TrialError> {
        let sim = self.sim(self.seed.wrapping_add(1));
        let (commits, _) = watch::channel(0);
        let engine = self.engine(&sim, &commits);
        let (clock, meddler) = (sim.seams().clock, Arc::clone(&self.meddler));
        let ended = sim.try_run(async move {
            // The first one's lease has to end first.
            clock.sleep_until(clock.mono() + TERM + MARGIN).await;
            let recovery = engine.recover().await.map_err(|error| error.to_string())?;
            let run = match recovery.runs.as_slice() {
                [run] => run,
                // It died before it had submitted anything, or after all was over.
                [] => return Ok(None),
                runs => return Err(format!("{} runs were recovered", runs.len())),
            };
            let end = bring_to_an_end(run, &meddler).await?;
            let holders = engine.holders().await.map_err(|error| error.to_string())?;
            if !holders.is_empty() {
                return Err(format!("claims are still held: {holders:?}"));
            }
            Ok(Some(end))
        });
        self.said(ended)
    }

    /// The process died with nothing open: before it had begun, or after it had ended.
    fn check_nothing_open(&self) -> Result<(), TrialError> {
        match self.store.ends().as_slice() {
            [end] => self.check(*end),
            [] => self.check(End::Cancelled),
            ends => Err(self.error(format!("{} runs have ended", ends.len()))),
        }
    }

    fn check(&self, end: End) -> Result<(), TrialError> {
        self.scenario.check(&self.world, end).map_err(|why| self.error(why))
    }
}

/// Waits for the end of a run; if it needs a person, what failed is mended and tried again.
async fn bring_to_an_end(run: &RunHandle, meddler: &Meddler) -> Result<End, String> {
    let settled = run.settled().await.map_err(|error| error.to_string())?;
    if !settled.parked.is_empty() {
        meddler.mended.store(true, Ordering::Release);
        run.resume("trial").await.map_err(|error| error.to_string())?;
    }
    let report = run.wait().await.map_err(|error| error.to_string())?;
    Ok(report.end())
}

/// Carries out a scenario with one mishap.
fn attempt<S: Scenario>(scenario: &S, mishap: Mishap, seed: u64) -> Result<(), TrialError> {
    let episode = Episode::new(scenario, mishap, seed);
    let end = match episode.first_process()? {
        Some(end) => Some(end),
        None => episode.second_process()?,
    };
    match end {
        Some(end) => episode.check(end),
        None => episode.check_nothing_open(),
    }
}

/// The steps that are called by the run itself.
fn steps<S: Scenario>(scenario: &S) -> Vec<(StepName, bool)> {
    let plan = scenario.plan(&scenario.world());
    let nodes = plan.nodes().iter();
    nodes
        .filter_map(|node| match &node.kind {
            NodeKind::Step(step) => Some((node.name.clone(), step.role == Role::Plain)),
            NodeKind::Input | NodeKind::Guard(_) => None,
        })
        .collect()
}

/// The number of commits of a run without a mishap, and of polls.
fn length<S: Scenario>(scenario: &S, seed: u64) -> Result<(usize, u64), TrialError> {
    let episode = Episode::new(scenario, Mishap::None, seed);
    let sim = episode.sim(seed);
    let (commits, written) = watch::channel(0);
    let engine = episode.engine(&sim, &commits);
    let plan = episode.plan.clone();
    let ended = sim.try_run(async move {
        let run = engine.submit(Submission::new(plan)).await.map_err(|error| error.to_string())?;
        run.wait().await.map(|report| report.end()).map_err(|error| error.to_string())
    });
    episode.check(episode.said(ended)?)?;
    let count = *written.borrow();
    Ok((count, sim.polls()))
}

/// Each step fails for good: once before it does anything, once after.
///
/// # Errors
/// The first trial that left something behind.
pub fn fail_every_step<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    let steps = steps(scenario);
    for (step, _) in &steps {
        for after in [false, true] {
            attempt(scenario, Mishap::Fails { step: step.clone(), after }, seed)?;
        }
    }
    Ok(2 * steps.len())
}

/// Each step outside guards is told once that nobody knows whether it succeeded: one that may be tried again is carried out
/// twice.
///
/// # Errors
/// The first trial that left something behind.
pub fn run_every_step_twice<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    let steps: Vec<_> = steps(scenario).into_iter().filter(|(_, plain)| *plain).collect();
    for (step, _) in &steps {
        attempt(scenario, Mishap::Twice { step: step.clone() }, seed)?;
    }
    Ok(steps.len())
}

/// The last step fails for good, and each step that is undone for it is undone twice.
///
/// # Errors
/// The first trial that left something behind.
pub fn undo_every_step_twice<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    let steps = steps(scenario);
    let Some((failing, _)) = steps.iter().rev().find(|(_, plain)| *plain) else { return Ok(0) };
    let first = Mishap::Fails { step: failing.clone(), after: true };
    let episode = Episode::new(scenario, first, seed);
    let end = episode.first_process()?.unwrap_or(End::NeedsAttention);
    episode.check(end)?;
    let undone = episode.meddler.undone.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for step in &undone {
        let (step, failing) = (step.clone(), failing.clone());
        attempt(scenario, Mishap::UndoTwice { step, failing }, seed)?;
    }
    Ok(undone.len())
}

/// The process dies with each commit, and another one recovers.
///
/// # Errors
/// The first trial that left something behind.
pub fn crash_at_every_commit<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    let (commits, _) = length(scenario, seed)?;
    for commit in 1..=commits {
        attempt(scenario, Mishap::Crash { at: Moment::Commit(commit) }, seed)?;
    }
    Ok(commits)
}

/// The process dies at each place at which anything in it waits, and another one recovers.
///
/// # Errors
/// The first trial that left something behind.
pub fn crash_at_every_await<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    at_awaits(scenario, seed, NonZeroU64::MIN, |at| Mishap::Crash { at })
}

/// A cancel comes at each place at which anything waits.
///
/// # Errors
/// The first trial that left something behind.
pub fn cancel_at_every_await<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    at_awaits(scenario, seed, NonZeroU64::MIN, |at| Mishap::Cancel { at })
}

/// At each `stride`th place; the seed decides with which it begins.
fn at_awaits<S: Scenario>(
    scenario: &S,
    seed: u64,
    stride: NonZeroU64,
    mishap: impl Fn(Moment) -> Mishap,
) -> Result<usize, TrialError> {
    let (_, polls) = length(scenario, seed)?;
    let mut tried = 0;
    for poll in (1..=polls).filter(|poll| *poll % stride == seed % stride) {
        attempt(scenario, mishap(Moment::Poll(poll)), seed)?;
        tried += 1;
    }
    Ok(tried)
}

/// All of them; the number of mishaps.
///
/// # Errors
/// The first trial that left something behind.
pub fn all<S: Scenario>(scenario: &S, seed: u64) -> Result<usize, TrialError> {
    sampled(scenario, seed, NonZeroU64::MIN)
}

/// All of them, but of the awaits only each `stride`th, for plans with many; the seed decides with which it
/// begins.
///
/// # Errors
/// The first trial that left something behind.
pub fn sampled<S: Scenario>(
    scenario: &S,
    seed: u64,
    stride: NonZeroU64,
) -> Result<usize, TrialError> {
    Ok(fail_every_step(scenario, seed)?
        + run_every_step_twice(scenario, seed)?
        + undo_every_step_twice(scenario, seed)?
        + crash_at_every_commit(scenario, seed)?
        + at_awaits(scenario, seed, stride, |at| Mishap::Crash { at })?
        + at_awaits(scenario, seed, stride, |at| Mishap::Cancel { at })?)
}
