//! A deterministic executor: one thread, seeded order, virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{BoxFuture, Clock, Failure, Ids, Mono, Seams, Spawner};
use uuid::Uuid;

use crate::lane::{LaneThread, Lanes};
use crate::retry::mix;

/// The number of polls after which a simulation counts as running in circles.
const MOST_POLLS: u64 = 20_000_000;

/// The civil time at which every simulation begins: 2026-01-01 00:00:00 UTC.
const EPOCH: i64 = 1_767_225_600;

/// A seeded simulation: implements all seams, so that an engine and everything above it runs on one thread, in an order
/// that the seed decides, in virtual time.
///
/// Time goes on only when no task is ready and nothing is [outstanding](Sim::outstanding). The same seed gives the same
/// order, as long as nothing outside the simulation wakes its tasks.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

struct Inner {
    seed: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    random: u64,
    now: Duration,
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    /// The same tasks, to tell quickly whether one is ready already.
    is_ready: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    last: u64,
    outstanding: usize,
    /// Tasks polled so far, and who wants to know when it is how many.
    polls: u64,
    poll_watchers: Vec<(u64, Waker)>,
}

struct Task {
    name: &'static str,
    /// Empty while it is being polled, and of the main task.
    future: Option<BoxFuture<'static, ()>>,
}

/// The main future's place among the tasks.
const MAIN: u64 = 0;

/// A simulation that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("simulation {seed} is stuck after {polls} polls at {now:?}: {why}; unfinished: {}", tasks.join(", "))]
pub struct Stuck {
    /// The seed that leads there.
    pub seed: u64,
    /// Polls so far.
    pub polls: u64,
    /// The virtual time.
    pub now: Duration,
    /// Whether it waits for nothing or runs in circles.
    pub why: &'static str,
    /// The names of the unfinished tasks.
    pub tasks: Vec<&'static str>,
}

/// Something real that the simulation has to wait for, such as a call of a store on a thread of its own: while one
/// exists, virtual time stands still.
#[derive(Debug)]
pub struct Outstanding(Sim);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.lock().outstanding -= 1;
        self.0.0.changed.notify_all();
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim({})", self.0.seed)
    }
}

impl Sim {
    /// A simulation of this seed, whose clocks show a second past midnight, UTC, of 1 January 2026.
    pub fn new(seed: u64) -> Self {
        Self::starting_at(seed, Duration::from_secs(1))
    }

    /// The same, with clocks that stand so long after that midnight: a process that comes after another one. Both clocks count
    /// from there, so that `Mono(now)` is when it begins.
    pub fn starting_at(seed: u64, now: Duration) -> Self {
        let state = State {
            random: mix(seed),
            now,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            is_ready: BTreeSet::new(),
            timers: BTreeMap::new(),
            last: MAIN,
            outstanding: 0,
            polls: 0,
            poll_watchers: Vec::new(),
        };
        Self(Arc::new(Inner { seed, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Its clock, spawner and ids.
    pub fn seams(&self) -> Seams {
        let (clock, spawner, ids) = (self.clone(), self.clone(), self.clone());
        Seams::new(Arc::new(clock), Arc::new(spawner), Arc::new(ids))
    }

    /// Lanes whose threads are tasks of the simulation.
    pub fn lanes(&self) -> Arc<SimLanes> {
        Arc::new(SimLanes(self.clone()))
    }

    /// A number that the seed decides.
    pub fn random(&self) -> u64 {
        self.lock().random()
    }

    /// Ready once the simulation has polled this many tasks: any place between two awaits of anything in it.
    pub fn polled(&self, count: u64) -> BoxFuture<'static, ()> {
        let sim = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = sim.lock();
            if state.polls >= count {
                return Poll::Ready(());
            }
            state.poll_watchers.push((count, cx.waker().clone()));
            Poll::Pending
        }))
    }

    /// How many tasks it has polled.
    pub fn polls(&self) -> u64 {
        self.lock().polls
    }

    /// Keeps virtual time from going on until the guard is dropped.
    pub fn outstanding(&self) -> Outstanding {
        self.lock().outstanding += 1;
        Outstanding(self.clone())
    }

    /// Runs a future, and all that it spawns, until it is ready; what is unfinished then is dropped.
    ///
    /// # Panics
    /// When it is stuck; the message names the seed and the unfinished tasks.
    #[allow(clippy::panic, reason = "a test that is stuck has failed")]
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        self.try_run(main).unwrap_or_else(|stuck| panic!("{stuck}"))
    }

    /// The same, with a simulation that is stuck as an error.
    ///
    /// # Errors
    /// [`Stuck`] when nothing is ready and nothing will be, or when it runs in circles.
    pub fn try_run<F: Future>(&self, main: F) -> Result<F::Output, Stuck> {
        let mut main = pin!(main);
        self.insert(MAIN, Task { name: "main", future: None });
        let result = loop {
            let mut polls = 0;
            match self.spin(main.as_mut(), &mut polls) {
                Ok(Some(output)) => break Ok(output),
                Ok(None) => {}
                Err(stuck) => break Err(stuck),
            }
        };
        // Dropped outside the lock: what a task holds may well wake or spawn another.
        loop {
            let tasks = std::mem::take(&mut self.lock().tasks);
            let timers = std::mem::take(&mut self.lock().timers);
            if tasks.is_empty() && timers.is_empty() {
                break;
            }
            drop((tasks, timers));
        }
        result
    }

    /// Polls tasks until the main one is ready.
    fn spin<F: Future>(
        &self,
        mut main: std::pin::Pin<&mut F>,
        polls: &mut u64,
    ) -> Result<Option<F::Output>, Stuck> {
        loop {
            let Some(id) = self.next_ready(*polls)? else { continue };
            *polls += 1;
            self.count_poll();
            let waker = Waker::from(Arc::new(Wakeup { id, sim: self.clone() }));
            let mut cx = Context::from_waker(&waker);
            if id == MAIN {
                if let Poll::Ready(output) = main.as_mut().poll(&mut cx) {
                    return Ok(Some(output));
                }
                continue;
            }
            let future = self.lock().tasks.get_mut(&id).and_then(|task| task.future.take());
            let Some(mut future) = future else { continue };
            if future.as_mut().poll(&mut cx).is_pending() {
                if let Some(task) = self.lock().tasks.get_mut(&id) {
                    task.future = Some(future);
                }
            } else {
                self.lock().tasks.remove(&id);
            }
        }
    }

    fn count_poll(&self) {
        let mut state = self.lock();
        state.polls += 1;
        let count = state.polls;
        let (due, later) = std::mem::take(&mut state.poll_watchers)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= count);
        state.poll_watchers = later;
        drop(state);
        for (_, waker) in due {
            waker.wake();
        }
    }

    /// The next task; `None` if time has gone on, or something outside has happened, instead.
    fn next_ready(&self, polls: u64) -> Result<Option<u64>, Stuck> {
        let mut state = self.lock();
        if polls >= MOST_POLLS {
            return Err(self.stuck(&state, polls, "it runs in circles"));
        }
        if !state.ready.is_empty() {
            let count = state.ready.len() as u64;
            let at = usize::try_from(state.random() % count).unwrap_or(0);
            let id = state.ready.swap_remove(at);
            state.is_ready.remove(&id);
            return Ok(Some(id));
        }
        if state.outstanding > 0 {
            drop(self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
            return Ok(None);
        }
        let Some((&(at, _), _)) = state.timers.first_key_value() else {
            return Err(self.stuck(&state, polls, "nothing is ready, no timer is set"));
        };
        state.now = state.now.max(at);
        let later = state.timers.split_off(&(at + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut state.timers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        Ok(None)
    }

    fn stuck(&self, state: &State, polls: u64, why: &'static str) -> Stuck {
        let tasks = state.tasks.values().map(|task| task.name).collect();
        Stuck { seed: self.0.seed, polls, now: state.now, why, tasks }
    }

    fn insert(&self, id: u64, task: Task) {
        self.lock().tasks.insert(id, task);
        self.wake(id);
    }

    fn wake(&self, id: u64) {
        let mut state = self.lock();
        if state.tasks.contains_key(&id) && state.is_ready.insert(id) {
            state.ready.push(id);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random)
    }

    fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

struct Wakeup {
    id: u64,
    sim: Sim,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.sim.wake(self.id);
    }
}

impl Clock for Sim {
    fn now(&self) -> DateTime<Utc> {
        let start = DateTime::<Utc>::from_timestamp(EPOCH, 0).unwrap_or_default();
        start + self.lock().now
    }

    fn mono(&self) -> Mono {
        Mono(self.lock().now)
    }

    fn boot(&self) -> Mono {
        self.mono()
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { sim: self.clone(), at: at.0, timer: None })
    }
}

/// A timer of the simulation.
struct Sleep {
    sim: Sim,
    at: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sim = self.sim.clone();
        let mut state = sim.lock();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let timer = *self.timer.get_or_insert_with(|| state.next_id());
        let before = state.timers.insert((self.at, timer), cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = self.sim.lock().timers.remove(&(self.at, timer));
            drop(waker);
        }
    }
}

impl Spawner for Sim {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let id = self.lock().next_id();
        self.insert(id, Task { name, future: Some(task) });
    }

    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.spawn(name, Box::pin(async move { work() }));
    }
}

impl Ids for Sim {
    fn uuid(&self) -> Uuid {
        let mut state = self.lock();
        let (high, low) = (state.random(), state.random());
        drop(state);
        uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
            .into_uuid()
    }

    fn random(&self) -> u64 {
        self.lock().random()
    }
}

/// Lanes whose threads are tasks of a simulation.
#[derive(Debug)]
pub struct SimLanes(Sim);

#[derive(Debug)]
struct SimThread(Sim);

impl Lanes for SimLanes {
    fn threads(&self, names: &[String]) -> Result<Vec<Box<dyn LaneThread>>, Failure> {
        Ok(names.iter().map(|_| Box::new(SimThread(self.0.clone())) as _).collect())
    }
}

impl LaneThread for SimThread {
    fn run(self: Box<Self>, task: BoxFuture<'static, ()>) {
        self.0.spawn("lane", task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Vec<u32> {
        let sim = Sim::new(seed);
        let seams = sim.seams();
        sim.run(async move {
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            for task in 0..8_u32 {
                let (tell, clock) = (tell.clone(), Arc::clone(&seams.clock));
                seams.spawner.spawn(
                    "teller",
                    Box::pin(async move {
                        clock.sleep_until(Mono(Duration::from_secs(5))).await;
                        tell.send(task).unwrap();
                    }),
                );
            }
            drop(tell);
            let mut order = Vec::new();
            while let Some(task) = told.recv().await {
                order.push(task);
            }
            order
        })
    }

    #[test]
    fn the_seed_alone_decides_the_order() {
        assert_eq!(order(1), order(1));
        let orders: BTreeSet<_> = (0..20).map(order).collect();
        assert!(orders.len() > 15, "other seeds give other orders");
    }

    #[test]
    fn a_simulation_that_waits_for_nothing_says_so() {
        let sim = Sim::new(3);
        let stuck = sim.try_run(std::future::pending::<()>()).unwrap_err();
        assert_eq!((stuck.seed, stuck.tasks), (3, vec!["main"]));
    }

    #[test]
    fn time_stands_still_while_something_is_outstanding() {
        let sim = Sim::new(4);
        let seams = sim.seams();
        let held = sim.outstanding();
        let (tell, told) = tokio::sync::oneshot::channel();
        let clock = Arc::clone(&seams.clock);
        let before = clock.mono();
        #[allow(clippy::disallowed_methods, reason = "the real thread that the test is about")]
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            tell.send(clock.mono()).unwrap();
            drop(held);
        });
        let at = sim.run(async move {
            let late = seams.clock.mono() + Duration::from_mins(1);
            let sleep = seams.clock.sleep_until(late);
            let (at, ()) = futures_util::future::join(told, sleep).await;
            at.unwrap()
        });
        thread.join().unwrap();
        assert_eq!(at, before);
    }
}
