//! The campaign: engines killed at places and at instants, recovered by others, and looked at from outside each time.
//!
//! ```text
//!   undisturbed ─▶ how many appends, how long
//!        │
//!        ├─▶ a round for each place      append.1.before … append.n.after, of a backup and of a recovery
//!        └─▶ a round for each instant    drawn from a seed; one in three kills the recovery, too
//!
//!   a round:  agent ─ engine ─ SIGKILL ─▶ thawed with no engine ─▶ engine: recovers, backs up ─▶ every rule
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stillpoint_context::{Cx, OsClock};
use stillpoint_workflow::TokioSeams;

use crate::chance::{Dice, pause};
use crate::check::{Broken, Scene};
use crate::engine::{Event, Storage};
use crate::process::{AgentProcess, EngineProcess, Lab};
use crate::wire::Ask;

/// For an agent that gets no time on a busy machine; what is tested is who ends a freeze, not how promptly a machine wakes.
pub const SLACK: Duration = Duration::from_secs(20);

/// How often a place that was not come to is tried again: which appends share a round is not always the same.
const TRIES: u32 = 20;

/// The programs, and where labs are made.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The agent's program.
    pub agent: PathBuf,
    /// The engine's program.
    pub engine: PathBuf,
    /// How many rounds go on at once; most of their time is waiting.
    pub at_once: usize,
    /// After how many milliseconds the agent thaws by itself.
    pub freeze_limit: u64,
    /// How copies are made.
    pub storage: Storage,
}

/// What is done to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blow {
    /// It is killed at this place.
    At(String),
    /// It is killed at the first place, and the engine that recovers at the second.
    Twice(String, String),
    /// It is killed after this long, and, if it says so, the engine that recovers after that long.
    After(Duration, Option<Duration>),
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => write!(f, "killed at {place}"),
            Self::Twice(first, second) => write!(f, "killed at {first}, recovery at {second}"),
            Self::After(first, None) => write!(f, "killed after {first:?}"),
            Self::After(first, Some(second)) => {
                write!(f, "killed after {first:?}, recovery after {second:?}")
            }
        }
    }
}

/// A round that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its number.
    pub round: usize,
    /// What was done.
    pub blow: Blow,
    /// What was seen.
    pub seen: Vec<String>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}, {}: {}", self.round, self.blow, self.seen.join("; "))
    }
}

/// What came of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many rounds were to be made.
    pub expected: usize,
    /// How many hit an engine where, or before, it was to be hit.
    pub hit: usize,
    /// What went wrong.
    pub wrong: Vec<Wrong>,
}

/// What an undisturbed process tells.
#[derive(Debug, Clone, Copy)]
pub struct Undisturbed {
    /// How many appends it made.
    pub appends: u64,
    /// How long it took.
    pub time: Duration,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A lab with an agent in it.
#[derive(Debug)]
pub struct Bench {
    /// Where everything lies.
    pub lab: Lab,
    /// The context of the harness's own questions.
    pub cx: Cx,
    /// The agent.
    pub agent: AgentProcess,
    program: PathBuf,
    storage: Storage,
    _runtime: tokio::runtime::Runtime,
    _folder: Folder,
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let seed = Dice::new_seed();
        let path = std::env::temp_dir().join(format!("sp-{seed:x}-{number}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays lies in the folder for what is temporary.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    /// An engine that makes so many backups.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn engine(
        &self,
        name: &str,
        backups: u32,
        stop_at: &str,
        more: &[&str],
    ) -> std::io::Result<EngineProcess> {
        let more = [&["--storage", self.storage.word()], more].concat();
        EngineProcess::start_with(&self.program, &self.lab, name, backups, stop_at, &more)
    }

    /// Waits until nothing is frozen, and gives what then is wrong although nothing was recovered.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn thawed(&self) -> Result<Vec<Broken>, Failed> {
        self.lab.ask(&self.cx, &Ask::AwaitThaw)?;
        Ok(self.scene()?.broken_by_the_agent(SLACK))
    }

    /// Everything, from outside.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn scene(&self) -> Result<Scene, Failed> {
        Scene::gather(&self.lab).map_err(|error| error.to_string().into())
    }

    /// Lets another engine recover and back up, and gives what is wrong then.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn recovered(&self, name: &str) -> Result<Vec<String>, Failed> {
        let (status, events) = self.engine(name, 1, "", &[])?.finish()?;
        let mut seen = Vec::new();
        if status.code() != Some(0) {
            seen.push(format!("the next backup: {status}, {events:?}"));
        }
        seen.extend(self.scene()?.broken(SLACK).iter().map(ToString::to_string));
        Ok(seen)
    }
}

impl Campaign {
    /// A lab, with an agent that thaws after so many milliseconds.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bench(&self, freeze_limit: u64) -> std::io::Result<Bench> {
        let folder = Folder::new()?;
        let lab = Lab::below(&folder.0);
        if self.storage == Storage::Subvolumes {
            lab.make_subvolume()?;
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        let limit = freeze_limit.to_string();
        let agent = AgentProcess::start(&self.agent, &lab, ["--freeze-limit", &limit])?;
        Ok(Bench {
            lab,
            cx,
            agent,
            program: self.engine.clone(),
            storage: self.storage,
            _runtime: runtime,
            _folder: folder,
        })
    }

    /// An engine that nobody disturbs, with so many backups, after one that was killed at a place if there is one.
    ///
    /// # Errors
    /// When it fails all the same.
    pub fn undisturbed(&self, backups: u32, after: Option<&str>) -> Result<Undisturbed, Failed> {
        let bench = self.bench(60_000)?;
        if let Some(place) = after {
            let mut engine = bench.engine("first", 1, place, &[])?;
            engine.until_stopped()?.ok_or("it did not come to its place")?;
            engine.kill()?;
        }
        let begun = OsClock.boot();
        let (_, events) = bench.engine("next", backups, "", &[])?.finish()?;
        let time = OsClock.boot().saturating_since(begun);
        match events.last() {
            Some(Event::End { ok: true, appends }) => Ok(Undisturbed { appends: *appends, time }),
            _ => Err(format!("the undisturbed engine failed: {events:?}").into()),
        }
    }

    /// Carries out blows, a round each, some at once. `only` picks one round.
    pub fn strike(&self, blows: &[Blow], only: Option<usize>) -> Outcome {
        let rounds: Vec<_> =
            (0..blows.len()).filter(|round| only.is_none_or(|only| only == *round)).collect();
        let outcome = Mutex::new(Outcome { expected: rounds.len(), ..Outcome::default() });
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(&round) = rounds.get(next.fetch_add(1, Ordering::SeqCst)) {
                let blow = &blows[round];
                let (hit, seen) = match self.round(blow) {
                    Ok(Some(seen)) => (true, seen),
                    Ok(None) => (false, Vec::new()),
                    Err(error) => (true, vec![format!("the harness failed: {error}")]),
                };
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                outcome.hit += usize::from(hit);
                if !seen.is_empty() {
                    outcome.wrong.push(Wrong { round, blow: blow.clone(), seen });
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.at_once {
                scope.spawn(work);
            }
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round; none if the engine was over each time before it could be hit.
    fn round(&self, blow: &Blow) -> Result<Option<Vec<String>>, Failed> {
        for again in 0..TRIES {
            let bench = self.bench(self.freeze_limit)?;
            let (first, second) = match blow {
                Blow::At(place) => (Kill::At(place), None),
                Blow::Twice(first, second) => (Kill::At(first), Some(Kill::At(second))),
                Blow::After(first, second) => {
                    (Kill::After(sooner(*first, again)), second.map(Kill::After))
                }
            };
            let backups = if matches!(blow, Blow::After(..)) { 2 } else { 1 };
            if !first.strike(&bench, "first", backups)? {
                continue;
            }
            let mut seen: Vec<_> = bench.thawed()?.iter().map(ToString::to_string).collect();
            if let Some(second) = second {
                // A recovery that was over before is one that was not hit, and leaves nothing to do for the next.
                let hit = second.strike(&bench, "second", 1)?;
                if !hit && matches!(second, Kill::At(_)) {
                    continue;
                }
                seen.extend(bench.thawed()?.iter().map(ToString::to_string));
            }
            seen.extend(bench.recovered("last")?);
            return Ok(Some(seen));
        }
        Ok(None)
    }

    /// Places before and after each of so many appends; every n-th of them.
    pub fn places(appends: u64, stride: usize) -> Vec<String> {
        (1..=appends)
            .flat_map(|append| ["before", "after"].map(|when| format!("append.{append}.{when}")))
            .step_by(stride.max(1))
            .collect()
    }

    /// So many instants within a time, drawn from a seed.
    pub fn instants(seed: u64, count: usize, within: Duration) -> Vec<Blow> {
        let instant = |round| {
            let mut dice = Dice::part(seed, round);
            let first = dice.within(within);
            Blow::After(first, dice.one_in(3).then(|| dice.within(within)))
        };
        (0..).take(count).map(instant).collect()
    }
}

/// An instant that came after the end, drawn nearer: how long an engine takes is not the same twice.
fn sooner(instant: Duration, times: u32) -> Duration {
    (0..times).fold(instant, |instant, _| instant * 3 / 4)
}

/// How one engine is killed.
#[derive(Debug, Clone, Copy)]
enum Kill<'a> {
    At(&'a str),
    After(Duration),
}

impl Kill<'_> {
    /// Starts an engine and kills it; whether it lived when it was.
    fn strike(self, bench: &Bench, name: &str, backups: u32) -> Result<bool, Failed> {
        match self {
            Self::At(place) => {
                let mut engine = bench.engine(name, backups, place, &[])?;
                let stopped = engine.until_stopped()?;
                let hit = stopped.as_deref() == Some(place);
                if hit {
                    engine.kill()?;
                }
                Ok(hit)
            }
            Self::After(time) => {
                let mut engine = bench.engine(name, backups, "", &[])?;
                pause(time);
                let lived = !engine.is_over()?;
                engine.kill()?;
                Ok(lived)
            }
        }
    }
}
