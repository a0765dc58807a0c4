//! What the tests of the façade share: a Stillpoint in a simulation, over a simulated Exchange, and a saboteur between the
//! engine and its actions.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod hooked;
pub mod hooks;
pub mod kept;
pub mod teller;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint::context::{
    BoxFuture, Cx, Effect, ErrorClass, Failure, IdempotencyKey, RunId, Seams,
};
use stillpoint::exchange::{Coordination, ExchangePlugin};
use stillpoint::model::group::Selector;
use stillpoint::model::id::PolicyId;
use stillpoint::model::job::Job;
use stillpoint::model::policy::Policy;
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::workflow::testing::{Conduct, HookJournal, Interpose, Part, Sim};
use stillpoint::workflow::{EngineBuilder, MemoryJournal};
use stillpoint::{Builder, JobHandle, Stillpoint};
use stillpoint_testkit::{CopySpec, DatabaseSpec, VolumeSpec, World};
use tokio::sync::mpsc;
use uuid::Uuid;

pub const HOST: &str = "ex1.example.com";
pub const BOTH: [Coordination; 2] = [Coordination::Engine, Coordination::Plugin];

/// The server and databases of most tests: data on one array, logs on another, so that a set spans two providers.
pub fn two_arrays(databases: u32) -> World {
    let mut builder = World::builder().host(HOST);
    for number in 1..=databases {
        let name = format!("DB{number:02}");
        let (data, logs) = (format!("data{number:02}"), format!("logs{number:02}"));
        let volume = |volume: &str, array: &str| {
            VolumeSpec::new(volume).provider(array).mounted(HOST, format!(r"D:\{volume}"))
        };
        builder = builder
            .volume(volume(&data, "alpha"))
            .volume(volume(&logs, "beta"))
            .database(DatabaseSpec::new(&name).writes_every(Duration::from_secs(5)))
            .copy(CopySpec::active(&name, HOST).on(data, logs).preference(1));
    }
    builder.build()
}

/// One database on one volume whose snapshot takes this long, whatever it says.
pub fn slow_world(commit: Duration) -> World {
    World::builder()
        .host(HOST)
        .volume(
            VolumeSpec::new("vol01")
                .mounted(HOST, r"V:\Vol01")
                .commit(commit)
                .states_worst(Duration::from_millis(100)),
        )
        .database(DatabaseSpec::new("DB01").writes_every(Duration::from_millis(500)))
        .copy(CopySpec::active("DB01", HOST).on("vol01", "vol01").preference(1))
        .build()
}

/// A Stillpoint in a simulation. Its journal takes up to 2 ms for a commit, so that other things come between.
pub fn stillpoint(
    sim: &Sim,
    world: &World,
    mode: Coordination,
    tune: impl FnOnce(EngineBuilder) -> EngineBuilder + Send + 'static,
) -> Stillpoint {
    builder(sim, world, mode, tune).build().unwrap()
}

/// The same, to be changed.
pub fn builder(
    sim: &Sim,
    world: &World,
    mode: Coordination,
    tune: impl FnOnce(EngineBuilder) -> EngineBuilder + Send + 'static,
) -> Builder {
    builder_over(sim, world, world.exchange().only(mode), tune)
}

/// The same over a plug-in that is made up.
pub fn builder_over(
    sim: &Sim,
    world: &World,
    plugin: impl ExchangePlugin,
    tune: impl FnOnce(EngineBuilder) -> EngineBuilder + Send + 'static,
) -> Builder {
    let journal = HookJournal::jitter(MemoryJournal::new(), sim, Duration::from_millis(2));
    let mut builder = Stillpoint::builder(Arc::new(plugin))
        .journal(Arc::new(journal))
        .seams(sim.seams())
        .lanes(sim.lanes())
        .engine(tune);
    for array in ["sim", "alpha", "beta"] {
        builder = builder.provider(Arc::new(world.storage_named(array)));
    }
    builder
}

pub fn policy() -> Policy {
    Policy::new(PolicyId(Uuid::from_u128(1)), "default")
}

pub fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).unwrap()
}

/// Nobody asks afterwards what became of the logs.
fn without_follow_up(name: &str, selected: Vec<Selector>) -> BackupRequest {
    let mut request = BackupRequest::new(key(name), Target::Selected(selected), policy().id);
    request.confirm_truncation = false;
    request
}

/// A request for everything.
pub fn request(name: &str) -> BackupRequest {
    without_follow_up(name, vec![Selector::Everything])
}

/// A request for some databases of a world.
pub fn request_for(name: &str, world: &World, databases: &[&str]) -> BackupRequest {
    let selected = databases.iter().map(|name| Selector::Database(world.database(name)));
    without_follow_up(name, selected.collect())
}

/// Waits in virtual time.
pub async fn pause(seams: &Seams, time: Duration) {
    seams.clock.sleep_until(seams.clock.mono() + time).await;
}

/// The output of a future, unless it takes longer than this in virtual time.
pub async fn within<T>(
    seams: &Seams,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(future), seams.clock.sleep_until(seams.clock.mono() + time)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Waits for the end of a job, at most some days.
pub async fn end_of(this: &Stillpoint, job: &JobHandle) -> Option<Job> {
    within(this.seams(), Duration::from_hours(24 * 7), job.wait()).await
}

/// Runs a test under many seeds. A failure says how to replay it.
pub fn for_seeds(file: &str, name: &str, count: u64, test: impl Fn(&Sim)) {
    let only = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| test(&Sim::new(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!(
                "seed {seed} failed; replay it with: SIM_SEED={seed} cargo test -p stillpoint --test {file} {name}"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

/// What a saboteur does to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Blow {
    Fail {
        effect: Effect,
        retryable: bool,
    },
    /// Waits until it is told to stop.
    Hang,
    /// Waits for ever.
    Deaf,
    Slow(Duration),
    Panic,
    /// Has the job cancelled, and lets the call go on.
    Cancel,
    /// Answers as if it were done.
    Skip,
}

/// Which call of which step, and what is done to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The step; every step if empty.
    pub step: String,
    /// The action; every action if empty.
    pub action: String,
    pub part: Part,
    pub after: bool,
    /// How many calls of the first run that it meets are hit.
    pub times: u32,
    pub blow: Blow,
}

impl Rule {
    pub fn at(step: &str, part: Part, blow: Blow) -> Self {
        let (step, action) = (step.to_owned(), String::new());
        Self { step, action, part, after: false, times: 1, blow }
    }

    pub fn on_action(action: &str, part: Part, blow: Blow) -> Self {
        let (step, action) = (String::new(), action.to_owned());
        Self { step, action, part, after: false, times: u32::MAX, blow }
    }

    pub fn after(mut self) -> Self {
        self.after = true;
        self
    }

    pub fn always(mut self) -> Self {
        self.times = u32::MAX;
        self
    }
}

#[derive(Debug, Default)]
struct Armed {
    rules: Vec<(Rule, u32, Option<RunId>)>,
    /// How often each rule was hit, in their order.
    fired: Vec<u32>,
}

/// Sits between the engine and its actions, and does what its rules say.
#[derive(Debug, Clone)]
pub struct Saboteur {
    armed: Arc<Mutex<Armed>>,
    cancels: mpsc::UnboundedSender<()>,
    code: &'static str,
}

impl Saboteur {
    /// The same, whose failures have this code.
    pub fn failing_with(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// A saboteur, and where it asks for cancels.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> (Self, mpsc::UnboundedReceiver<()>) {
        let (cancels, asked) = mpsc::unbounded_channel();
        let rules: Vec<_> = rules.into_iter().map(|rule| (rule, 0, None)).collect();
        let fired = vec![0; rules.len()];
        let armed = Arc::new(Mutex::new(Armed { rules, fired }));
        (Self { armed, cancels, code: "test.sabotage" }, asked)
    }

    pub fn tune(&self) -> impl FnOnce(EngineBuilder) -> EngineBuilder + Send + 'static {
        let this: Arc<dyn Interpose> = Arc::new(self.clone());
        move |engine| engine.interpose(&this)
    }

    /// How often each rule was hit, in their order.
    pub fn fired(&self) -> Vec<u32> {
        self.armed.lock().unwrap().fired.clone()
    }

    pub fn clear(&self) {
        self.armed.lock().unwrap().rules.clear();
    }

    fn pick(&self, cx: &Cx, action: &str, part: Part, after: bool) -> Option<Blow> {
        let mut armed = self.armed.lock().unwrap();
        let hit = armed.rules.iter_mut().enumerate().find(|(_, (rule, hits, run))| {
            (rule.step.is_empty() || rule.step == cx.step().as_str())
                && (rule.action.is_empty() || rule.action == action)
                && (rule.part, rule.after) == (part, after)
                && *hits < rule.times
                && (rule.step.is_empty() || run.is_none_or(|run| run == cx.run()))
        });
        let (index, (rule, hits, run)) = hit?;
        *hits += 1;
        run.get_or_insert(cx.run());
        let blow = rule.blow.clone();
        armed.fired[index] += 1;
        Some(blow)
    }

    async fn strike(self, cx: Cx, blow: Option<Blow>) -> Result<Conduct, Failure> {
        match blow {
            None => {}
            Some(Blow::Skip) => return Ok(Conduct::Skip),
            Some(Blow::Fail { effect, retryable }) => {
                return Err(Failure::new(self.code, ErrorClass::Internal, "sabotaged")
                    .with_effect(effect)
                    .with_retryable(retryable));
            }
            Some(Blow::Hang) => {
                cx.cancel().cancelled().await;
                return Err(Failure::new("test.stopped", ErrorClass::Unavailable, "told to stop"));
            }
            Some(Blow::Deaf) => std::future::pending().await,
            Some(Blow::Slow(time)) => pause(cx.seams(), time).await,
            Some(Blow::Panic) => std::panic::resume_unwind(Box::new("sabotaged")),
            Some(Blow::Cancel) => {
                let _asked = self.cancels.send(());
                // Long enough for the wish to arrive.
                pause(cx.seams(), Duration::from_millis(20)).await;
            }
        }
        Ok(Conduct::Do)
    }
}

impl Interpose for Saboteur {
    fn before(
        &self,
        cx: Cx,
        action: &str,
        part: Part,
    ) -> BoxFuture<'static, Result<Conduct, Failure>> {
        let blow = self.pick(&cx, action, part, false);
        Box::pin(self.clone().strike(cx, blow))
    }

    fn after(&self, cx: Cx, action: &str, part: Part) -> BoxFuture<'static, Result<(), Failure>> {
        let blow = self.pick(&cx, action, part, true);
        let strike = self.clone().strike(cx, blow);
        Box::pin(async move { strike.await.map(drop) })
    }
}
