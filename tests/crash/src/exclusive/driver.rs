//! Stops, wakes and kills workers at times of a seed, and starts those anew that have ended.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint_workflow::{Journal as _, NodeProgress, Record, Seq, StreamId};

use super::check::{Asked, Figures, Tale, nothing_is_lost};
use super::plan::key;
use super::worker::TAKEN_OVER;
use super::{Blow, Deed};
use crate::chance::{Dice, pause};
use crate::check::{Broken, Claimed, Rule, claims_are_of_parked_runs, replay};
use crate::ledger::{self, Ledger, now};

/// How often a worker that is wrong may be started again.
const TOLERATED: usize = 0;

/// A campaign.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The worker's program.
    pub program: PathBuf,
    /// Where everything lies.
    pub folder: PathBuf,
    /// How many workers.
    pub workers: u64,
    /// How many runs each.
    pub runs: u64,
    /// What runs and blows are drawn from.
    pub seed: u64,
    /// How long leases last, in milliseconds.
    pub term: u64,
    /// How long after that another may take over, in milliseconds.
    pub margin: u64,
    /// Whether every claim is granted at once, which must be seen.
    pub blind: bool,
}

/// What came of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many runs were asked for.
    pub asked: usize,
    /// How often a worker was stopped for a short while, and for longer than its lease.
    pub stops: (usize, usize),
    /// How often one was killed.
    pub kills: usize,
    /// How often one ended because it was taken over.
    pub takeovers: usize,
    /// Numbers of the logs.
    pub figures: Figures,
    /// Rules that do not hold.
    pub broken: Vec<Broken>,
}

/// A worker, over all its processes.
struct Worker {
    number: u64,
    child: Child,
    /// Whether this process has told that its runs are over.
    done: Arc<AtomicBool>,
    /// Until when it is stopped, on the clock of the logs.
    stopped: Option<u64>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail if it is gone, which is what is wanted.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

struct Driver<'s> {
    setup: &'s Setup,
    dice: Dice,
    ledger: Ledger<Blow>,
    workers: Vec<Worker>,
    over: Arc<AtomicU64>,
    outcome: Outcome,
    wrong: usize,
}

type Failed = Box<dyn Error + Send + Sync>;

/// Runs a campaign and looks at what it has left.
///
/// # Errors
/// When the harness itself fails.
pub fn run(setup: &Setup) -> Result<Outcome, Failed> {
    let log = setup.folder.join("driver.log");
    let mut driver = Driver {
        setup,
        dice: Dice::part(setup.seed, u64::MAX),
        ledger: Ledger::open(&log)?,
        workers: Vec::new(),
        over: Arc::default(),
        outcome: Outcome::default(),
        wrong: 0,
    };
    for number in 0..setup.workers {
        let worker = driver.start(number)?;
        driver.workers.push(worker);
    }
    driver.drive()?;
    driver.end()?;
    let Driver { mut outcome, .. } = driver;
    let deeds = ledger::read::<Deed>(&setup.folder.join("workers.log"))?;
    let tale = Tale::of(&deeds, &ledger::read::<Blow>(&log)?);
    outcome.figures = tale.figures();
    outcome.broken.extend(tale.broken());
    look_at_state(setup, &tale, &mut outcome)?;
    Ok(outcome)
}

impl Driver<'_> {
    fn start(&self, number: u64) -> io::Result<Worker> {
        let Setup { program, folder, runs, seed, term, margin, blind, .. } = self.setup;
        let mut child = Command::new(program)
            .arg("--folder")
            .arg(folder)
            .args(["--worker", &number.to_string(), "--runs", &runs.to_string()])
            .args(["--seed", &seed.to_string(), "--term", &term.to_string()])
            .args(["--margin", &margin.to_string()])
            .args(blind.then_some("--blind"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let done = Arc::new(AtomicBool::new(false));
        if let Some(out) = child.stdout.take() {
            let (told, over) = (Arc::clone(&done), Arc::clone(&self.over));
            hear(out, move |word| match word {
                "run" => drop(over.fetch_add(1, Ordering::SeqCst)),
                "done" => told.store(true, Ordering::SeqCst),
                _ => {}
            })?;
        }
        Ok(Worker { number, child, done, stopped: None })
    }

    /// Until every worker has told that its runs are over.
    fn drive(&mut self) -> Result<(), Failed> {
        while !self.workers.iter().all(|worker| worker.done.load(Ordering::SeqCst)) {
            pause(Duration::from_millis(20) + self.dice.within(Duration::from_millis(80)));
            self.wake()?;
            self.replace_the_dead()?;
            self.strike()?;
        }
        Ok(())
    }

    /// Lets those go on whose time has come.
    fn wake(&mut self) -> Result<(), Failed> {
        for worker in &mut self.workers {
            if worker.stopped.is_some_and(|until| now() >= until) {
                worker.stopped = None;
                signal(&worker.child, Signal::CONT)?;
                self.ledger.note(Blow::Wake { pid: worker.child.id() });
            }
        }
        Ok(())
    }

    fn replace_the_dead(&mut self) -> Result<(), Failed> {
        for at in 0..self.workers.len() {
            let Some(status) = self.workers[at].child.try_wait()? else { continue };
            if status.code() == Some(i32::from(TAKEN_OVER)) {
                self.outcome.takeovers += 1;
            } else {
                self.wrong += 1;
                let number = self.workers[at].number;
                let message = format!("worker {number} ended with {status}");
                self.outcome.broken.push(Broken::new(Rule::Lost, message));
                if self.wrong > TOLERATED {
                    return Err(format!("{:?}", self.outcome.broken).into());
                }
            }
            self.workers[at] = self.start(self.workers[at].number)?;
        }
        Ok(())
    }

    /// One worker, and what it gets; at most half of them stand still at once.
    fn strike(&mut self) -> Result<(), Failed> {
        let count = u64::try_from(self.workers.len())?;
        let at = usize::try_from(self.dice.below(count))?;
        let (what, for_how_long) = (self.dice.below(100), self.dice.roll());
        let still = self.workers.iter().filter(|worker| worker.stopped.is_some()).count();
        let worker = &mut self.workers[at];
        let pid = worker.child.id();
        let lost = self.setup.term + self.setup.margin;
        let stop_for = match what {
            0..12 => 5 + for_how_long % 300,
            // Long enough to be taken over, with what it takes others to look.
            12..17 => lost + 300 + for_how_long % (lost / 2),
            17..21 => {
                self.ledger.note(Blow::Kill { pid });
                worker.child.kill()?;
                worker.child.wait()?;
                self.outcome.kills += 1;
                let number = worker.number;
                self.workers[at] = self.start(number)?;
                return Ok(());
            }
            _ => return Ok(()),
        };
        if worker.stopped.is_some() || still * 2 >= usize::try_from(count)? {
            return Ok(());
        }
        self.ledger.note(Blow::Stop { pid });
        signal(&worker.child, Signal::STOP)?;
        worker.stopped = Some(now() + stop_for * 1000);
        if stop_for > lost {
            self.outcome.stops.1 += 1;
        } else {
            self.outcome.stops.0 += 1;
        }
        Ok(())
    }

    /// Wakes who stands still, and lets all end that are not needed any more.
    fn end(&mut self) -> Result<(), Failed> {
        // One that was taken over at the last moment ends as such; there is nothing left for it to do.
        for worker in &mut self.workers {
            if worker.stopped.take().is_some() {
                signal(&worker.child, Signal::CONT)?;
            }
        }
        for worker in &mut self.workers {
            drop(worker.child.stdin.take());
        }
        for worker in &mut self.workers {
            let status = worker.child.wait()?;
            match status.code() {
                Some(0) => {}
                Some(code) if code == i32::from(TAKEN_OVER) => self.outcome.takeovers += 1,
                _ => {
                    let message = format!("worker {} ended with {status}", worker.number);
                    self.outcome.broken.push(Broken::new(Rule::Lost, message));
                }
            }
        }
        Ok(())
    }
}

fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// Listens to a process on a thread of its own.
#[allow(clippy::disallowed_methods, reason = "the driver is a process outside the engine")]
fn hear(
    out: impl io::Read + Send + 'static,
    each: impl Fn(&str) + Send + 'static,
) -> io::Result<()> {
    let listen = move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            each(&line);
        }
    };
    std::thread::Builder::new().name("listener".to_owned()).spawn(listen).map(drop)
}

/// What the state file says in the end.
fn look_at_state(setup: &Setup, tale: &Tale, outcome: &mut Outcome) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (asked, claimed, sound) = runtime.block_on(async {
        let state = SqliteStore::open(setup.folder.join("state.db"))?;
        let mut asked = Vec::new();
        for worker in 0..setup.workers {
            for number in 0..setup.runs {
                asked.push(look_up(&state, worker, number).await?);
            }
        }
        let claimed = Claimed::read(&state).await?;
        Ok::<_, Failed>((asked, claimed, state.check().await))
    })?;
    outcome.asked = asked.len();
    outcome.broken.extend(nothing_is_lost(&asked, tale));
    outcome.broken.extend(claims_are_of_parked_runs(&claimed));
    for (run, parked) in &claimed.open {
        let message = format!("run {run} is open, parked: {parked}");
        outcome.broken.push(Broken::new(Rule::Lost, message));
    }
    if let Err(error) = sound {
        outcome.broken.push(Broken::new(Rule::Sound, error.to_string()));
    }
    Ok(())
}

async fn look_up(state: &SqliteStore, worker: u64, number: u64) -> Result<Asked, Failed> {
    let key = key(worker, number)?;
    let stored = state.read(&StreamId::of_key(&key), Seq(0), 1).await?;
    let run = stored.into_iter().find_map(|stored| match stored.record {
        Record::Key(record) => Some(record.run),
        _ => None,
    });
    let mut asked = Asked { key: key.to_string(), run, end: None, steps: BTreeSet::new() };
    if let Some(run) = run
        && let Some(state) = replay(state, run).await?
    {
        asked.end = state.end();
        let plan = state.plan();
        let succeeded = plan.nodes().iter().filter(|node| {
            plan.find(node.name.as_str())
                .is_some_and(|node| state.progress(node) == NodeProgress::Done)
        });
        asked.steps = succeeded.map(|node| node.name.clone()).collect();
    }
    Ok(asked)
}
