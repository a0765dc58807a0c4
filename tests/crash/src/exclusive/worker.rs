//! A worker's process: its runs on a state file that others use, too, and what those leave that are gone.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use clap::Parser;
use futures_util::StreamExt as _;
use stillpoint::store_sqlite::SqliteStore;
use stillpoint_context::{BoxFuture, Clock, Mono, ProcessId, Seams, Spawner};
use stillpoint_workflow::testing::HookJournal;
use stillpoint_workflow::{
    ActionRegistry, Engine, EngineError, Fencing, GrantPolicy, JournalError, Lease, Leases,
    ThreadLanes, TokioSeams,
};

use super::plan::{Hold, submission};
use super::{Deed, Did};
use crate::ledger::{Ledger, now};
use crate::server::await_end_of_input;

/// The status of a process that has ended because another has taken over.
pub const TAKEN_OVER: u8 = 3;

/// How many of its runs a worker has in hand at once.
const AT_ONCE: usize = 6;

/// How often a worker looks for what others have left.
const LOOK: Duration = Duration::from_millis(150);

/// How long a journal that fails is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a worker that was refused is there still: time for an effect that must not come.
const LINGER: Duration = Duration::from_millis(300);

/// Carries out runs.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// The folder of the state file and the logs.
    #[arg(long)]
    pub folder: PathBuf,
    /// Its number among the workers.
    #[arg(long)]
    pub worker: u64,
    /// How many runs are its own.
    #[arg(long)]
    pub runs: u64,
    /// What the runs are drawn from.
    #[arg(long)]
    pub seed: u64,
    /// How many milliseconds its lease lasts without being renewed.
    #[arg(long)]
    pub term: u64,
    /// How many milliseconds after its end another may take over.
    #[arg(long)]
    pub margin: u64,
    /// Grants every claim at once, so that what looks for overlaps has some to find.
    #[arg(long)]
    pub blind: bool,
}

impl Args {
    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state.db")
    }

    /// What all workers log.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("workers.log")
    }

    /// Which of its runs are over, a line each.
    pub fn done(&self) -> PathBuf {
        self.folder.join(format!("done-{}.log", self.worker))
    }
}

thread_local! {
    /// When the clock of leases was last read on this thread, in nanoseconds.
    static LOOKED: Cell<Option<u64>> = const { Cell::new(None) };
}

tokio::task_local! {
    static ADMITTED: Option<u64>;
}

/// When the engine last read the clock of leases before it let this task begin.
///
/// Its driver looks at the lease and spawns the effect on one thread, with nothing in between, so this is that very look.
pub(super) fn admitted() -> Option<u64> {
    ADMITTED.try_with(|admitted| *admitted).ok().flatten()
}

fn nanos(at: Mono) -> u64 {
    u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock and the spawner of the engine, which remember when a lease was looked at.
#[derive(Debug)]
struct Watched(Seams);

impl Clock for Watched {
    fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }

    fn mono(&self) -> Mono {
        self.0.clock.mono()
    }

    fn boot(&self) -> Mono {
        let boot = self.0.clock.boot();
        LOOKED.set(Some(nanos(boot)));
        boot
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        self.0.clock.sleep_until(at)
    }
}

impl Spawner for Watched {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        // Taken: each effect needs a look of its own.
        let looked = LOOKED.take();
        self.0.spawner.spawn(name, Box::pin(ADMITTED.scope(looked, task)));
    }

    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.0.spawner.blocking(name, work);
    }
}

/// The leases of a store, with what comes of them noted.
#[derive(Debug)]
struct Noted {
    store: SqliteStore,
    process: ProcessId,
    ledger: Arc<Ledger<Deed>>,
}

impl Noted {
    fn note(&self, did: Did) {
        self.ledger.note(Deed { process: self.process, did });
    }

    fn leased(&self, answer: &Result<Lease, JournalError>) {
        match answer {
            Ok(lease) => {
                self.note(Did::Leased { epoch: lease.epoch, until: nanos(lease.until) });
            }
            Err(JournalError::Fenced { .. }) => self.note(Did::Refused),
            Err(_) => {}
        }
    }
}

#[async_trait]
impl Leases for Noted {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let answer = self.store.acquire(process, now, term).await;
        self.leased(&answer);
        answer
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let answer = self.store.renew(process, epoch, now, term).await;
        self.leased(&answer);
        answer
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.store.release(process, epoch).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.store.leases().await
    }

    async fn fence(
        &self,
        victim: ProcessId,
        at: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        let asked = now();
        let answer = self.store.fence(victim, at, margin).await;
        if matches!(answer, Ok(Fencing::Fenced)) {
            self.note(Did::Fenced { victim, asked });
        }
        answer
    }
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All its runs are over, and nobody needs it any more.
    Done,
    /// Another process has taken over.
    TakenOver,
}

/// Carries out this worker's runs, then what others leave, until standard input ends.
///
/// # Errors
/// When something is wrong that no takeover explains.
pub fn work(args: &Args) -> Result<Ended, Box<dyn Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let ended = runtime.block_on(work_here(args));
    runtime.shutdown_background();
    ended
}

async fn work_here(args: &Args) -> Result<Ended, Box<dyn Error>> {
    let bare = TokioSeams::current().ok_or("there is no runtime")?;
    let watched = Arc::new(Watched(bare.clone()));
    let clock: Arc<dyn Clock> = Arc::<Watched>::clone(&watched);
    let seams = Seams::new(clock, watched, Arc::clone(&bare.ids));
    let process = ProcessId(seams.ids.uuid());
    let ledger = Arc::new(Ledger::open(&args.ledger())?);
    let note = |did| ledger.note(Deed { process, did });
    note(Did::Started { pid: std::process::id() });

    let store = SqliteStore::open(args.state())?;
    let commits = Arc::clone(&ledger);
    let journal = HookJournal::around(store.clone(), move |inner, batch| {
        let ledger = Arc::clone(&commits);
        Box::pin(async move {
            use stillpoint_workflow::Journal as _;
            let asked = now();
            let answer = inner.commit(batch).await;
            let did = match &answer {
                Ok(_) => Some(Did::Committed { asked }),
                Err(JournalError::Fenced { .. }) => Some(Did::Refused),
                Err(_) => None,
            };
            if let Some(did) = did {
                ledger.note(Deed { process, did });
            }
            answer
        })
    });
    let leases = Noted { store: store.clone(), process, ledger: Arc::clone(&ledger) };
    let mut registry = ActionRegistry::new();
    registry.register(Hold::new(process, Arc::clone(&ledger)))?;
    let engine = Engine::builder(registry, Arc::new(journal), seams.clone(), Arc::new(ThreadLanes))
        .owner(process)
        .leases(Arc::new(leases))
        .lease_terms(Duration::from_millis(args.term), Duration::from_millis(args.margin))
        .grant_policy(if args.blind { GrantPolicy::Always } else { GrantPolicy::default() })
        .build();

    let carried = futures_util::future::select(
        Box::pin(carry_out(args, &engine, &seams)),
        Box::pin(take_over(&engine, &seams)),
    );
    match carried.await {
        futures_util::future::Either::Left((Ok(()), _)) => {
            engine.drain().await?;
            note(Did::Left);
            Ok(Ended::Done)
        }
        futures_util::future::Either::Left((Err(error), _))
        | futures_util::future::Either::Right((error, _)) => {
            if !matches!(error, EngineError::Journal(JournalError::Fenced { .. })) {
                return Err(error.into());
            }
            // It tries all the same.
            let again = submission(args.seed, args.worker, args.runs)?;
            match engine.submit(again).await {
                Err(EngineError::Journal(JournalError::Fenced { .. })) => note(Did::RefusedAgain),
                Err(other) => return Err(other.into()),
                Ok(_) => return Err("a submission of a fenced process was taken".into()),
            }
            seams.clock.sleep_until(seams.clock.mono() + LINGER).await;
            Ok(Ended::TakenOver)
        }
    }
}

/// Whether it may be better the next time: the journal is, or a run that another process was faster to carry on is watched.
fn passes(error: &EngineError) -> bool {
    matches!(error, EngineError::Elsewhere { .. })
        || matches!(error, EngineError::Journal(inner) if matches!(inner, JournalError::Busy(_) | JournalError::Io(_)))
}

/// All its own runs, then the end of standard input.
async fn carry_out(args: &Args, engine: &Engine, seams: &Seams) -> Result<(), EngineError> {
    let over: BTreeSet<u64> = fs::read_to_string(args.done())
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    let open = (0..args.runs).filter(|number| !over.contains(number));
    let each = open.map(|number| one(args, engine, seams, number));
    let mut ended = futures_util::stream::iter(each).buffer_unordered(AT_ONCE);
    while let Some(result) = ended.next().await {
        let number = result?;
        mark(args, number);
    }
    tell("done");
    // For as long as others may be stopped or killed, somebody has to be there to take over.
    let (told, mut end) = tokio::sync::oneshot::channel::<()>();
    seams.spawner.blocking(
        "input",
        Box::new(move || {
            await_end_of_input();
            drop(told);
        }),
    );
    let _ended = (&mut end).await;
    Ok(())
}

fn mark(args: &Args, number: u64) {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().create(true).append(true).open(args.done());
    if let Ok(mut file) = file {
        let _written = file.write_all(format!("{number}\n").as_bytes());
    }
    tell("run");
}

/// A word to the driver, which may be gone.
fn tell(word: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _heard = writeln!(out, "{word}").and_then(|()| out.flush());
}

/// One run to its end, whoever carries it there.
async fn one(args: &Args, engine: &Engine, seams: &Seams, number: u64) -> Result<u64, EngineError> {
    loop {
        let wanted = submission(args.seed, args.worker, number).map_err(|_| EngineError::Gone)?;
        let ended = match engine.submit(wanted).await {
            Ok(run) => run.wait().await.map(drop),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return Ok(number),
            Err(error) if passes(&error) => {
                seams.clock.sleep_until(seams.clock.mono() + PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Carries on with what is left by processes that are gone. Ends with an error alone.
async fn take_over(engine: &Engine, seams: &Seams) -> EngineError {
    loop {
        match engine.recover().await {
            Ok(_) => {}
            Err(error) if passes(&error) => {}
            Err(error) => return error,
        }
        seams.clock.sleep_until(seams.clock.mono() + LOOK).await;
    }
}
