//! The engine's process: real backups of real files, to be killed at any instant.
//!
//! ```text
//!   AgentPlugin ──socket──▶ crash-agent ──▶ mail/        databases, written all the time
//!   TinyFiles   ──────────▶ FsProvider  ──▶ store/       copies, documents, exposures
//!   SqliteStore ────────────────────────▶ state.db       restore points, jobs, debris
//!   Stillpoint  ── one JSON line an event ▶ stdout
//! ```

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use stillpoint::model::job::{JobState, MemberEnd};
use stillpoint::model::policy::{OnMiss, Policy};
use stillpoint::model::request::BackupRequest;
use stillpoint::storage::SnapshotProvider;
use stillpoint::storage_btrfs::{BtrfsConfig, BtrfsProvider};
use stillpoint::storage_fs::{CloneMode, FsConfig, FsProvider};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::{JobEvent, JobHandle, Stillpoint, Timeouts};
use stillpoint_context::{Cx, FencingToken, HostId, RunId, StepName};
use stillpoint_workflow::TokioSeams;

use crate::appends::numbered;
use crate::client::AgentPlugin;
use crate::provider::TinyFiles;
use crate::stops::Stops;

/// Backs up what the agent speaks for.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// The folder of the databases: the one volume.
    #[arg(long)]
    pub folder: PathBuf,
    /// The state file.
    #[arg(long)]
    pub state: PathBuf,
    /// The folder that snapshots go to.
    #[arg(long)]
    pub store: PathBuf,
    /// The agent's socket.
    #[arg(long)]
    pub agent: PathBuf,
    /// What this machine is called.
    #[arg(long, default_value = "ex1")]
    pub host: HostId,
    /// How copies are made.
    #[arg(long, value_enum, default_value_t)]
    pub storage: Storage,
    /// How many backups are made, one after the other.
    #[arg(long, default_value_t = 1)]
    pub backups: u32,
    /// What the requests' keys begin with. A process after this one needs another name, or asks for the same jobs again.
    #[arg(long, default_value = "first")]
    pub name: String,
    /// How many milliseconds the lease of the process lasts without being renewed.
    #[arg(long, default_value_t = 120_000)]
    pub lease: u64,
    /// How many milliseconds after its end another process may take over.
    #[arg(long, default_value_t = 10_000)]
    pub margin: u64,
}

/// How copies are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Storage {
    /// Of each file, in full.
    #[default]
    Copies,
    /// Of each file, by reflink.
    Reflinks,
    /// As snapshots of the subvolume that the folder of the databases is.
    Subvolumes,
}

impl Storage {
    /// As the command line says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Copies => "copies",
            Self::Reflinks => "reflinks",
            Self::Subvolumes => "subvolumes",
        }
    }
}

fn provider(args: &Args) -> Result<Arc<dyn SnapshotProvider>, Box<dyn Error>> {
    let mode = match args.storage {
        Storage::Copies => CloneMode::Copy,
        Storage::Reflinks => CloneMode::Reflink,
        Storage::Subvolumes => {
            let config = BtrfsConfig::new("btrfs".parse()?, args.host.clone(), &args.store);
            let config = config.with_volume(&args.folder).without_revert();
            return Ok(Arc::new(BtrfsProvider::open(&config)?));
        }
    };
    let config = FsConfig::new("fs".parse()?, args.host.clone(), &args.store)
        .with_volume("mail".parse()?, &args.folder)
        .with_mode(mode);
    Ok(Arc::new(FsProvider::open(&config)?))
}

/// How often a process that is only paused is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A line of the engine's standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All is open, and what a process before has left is taken up.
    Ready {
        /// This process.
        pid: u32,
    },
    /// A backup was asked for.
    Asked {
        /// The request's key.
        key: String,
    },
    /// A step began, ended or was undone.
    Step {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// What happened to it.
        news: String,
    },
    /// The process stops here, and is to be continued or killed.
    Stopped {
        /// Where, such as `commit.before`.
        place: String,
    },
    /// A job is over, or parked.
    Job {
        /// The request's key.
        key: String,
        /// Its state.
        state: JobState,
        /// Its restore points.
        points: usize,
        /// Why it is not better than that, in words.
        why: Vec<String>,
    },
    /// Every job is over.
    End {
        /// Whether every job has succeeded.
        ok: bool,
        /// How many commits the journal was asked for: the places at which the process can be killed.
        appends: u64,
    },
}

/// Where events go: standard output, a line for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Events;

impl Events {
    /// Tells an event. Nobody may be listening any more.
    pub fn tell(self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            let _heard = out.write_all(&line).and_then(|()| out.flush());
        }
    }

    pub(crate) fn stopped(self, place: &str) {
        self.tell(&Event::Stopped { place: place.to_owned() });
    }
}

/// How long steps may take: what the harness waits for must come soon, and a session of a dead engine must not last.
fn timeouts() -> Timeouts {
    let mut timeouts = Timeouts::default();
    timeouts.lease = Duration::from_mins(10);
    timeouts.late = Duration::from_secs(1);
    timeouts.grace = Duration::from_secs(1);
    timeouts
}

fn policy() -> Result<Policy, Box<dyn Error>> {
    let mut policy = Policy::new("0d9f4a5e-31b6-4f0c-9a5e-6f2d6f6e7c11".parse()?, "crash");
    // A freeze that was missed on a busy machine is tried again at once.
    policy.quiesce.on_miss =
        OnMiss::Retry { times: std::num::NonZeroU32::MIN, pause: Duration::from_millis(100) };
    Ok(policy)
}

/// Makes the backups.
///
/// # Errors
/// When something cannot be opened. A backup that fails is an event; whether all succeeded is the answer.
pub fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let ok = runtime.block_on(back_up(args))?;
    runtime.shutdown_background();
    Ok(ok)
}

async fn back_up(args: &Args) -> Result<bool, Box<dyn Error>> {
    let events = Events;
    let stops = Stops::from_environment(events);
    let seams = TokioSeams::current().ok_or("there is no runtime")?;
    let cx = Cx::builder(&seams).fence(FencingToken::default()).build();
    let plugin = AgentPlugin::connect(&args.agent, &cx)?.with_stops(stops.clone());
    let provider = TinyFiles::over(provider(args)?, stops.clone());
    let state = Arc::new(SqliteStore::open(&args.state)?);
    let (journal, count) = numbered(Arc::<SqliteStore>::clone(&state), stops);
    let (term, margin) = (args.lease, args.margin);
    let stillpoint = Stillpoint::builder(Arc::new(plugin))
        .provider(Arc::new(provider))
        .store(state)
        .journal(Arc::new(journal))
        .timeouts(timeouts())
        .engine(move |engine| {
            engine.lease_terms(Duration::from_millis(term), Duration::from_millis(margin))
        })
        .build()?;
    // What a process before has left. One that is only paused has to outstay its lease.
    loop {
        // Asked first: what of it was alive then may be gone by now, and is taken up.
        let alone = stillpoint.engine().is_alone().await?;
        for job in stillpoint.recover().await? {
            let _over = job.wait().await;
        }
        if alone {
            break;
        }
        seams.clock.sleep_until(seams.clock.mono() + LOOK).await;
    }
    let policy = policy()?;
    stillpoint.save_policy(&policy).await?;
    events.tell(&Event::Ready { pid: std::process::id() });

    let mut ok = true;
    for number in 1..=args.backups {
        let key = format!("{}-{number}", args.name);
        events.tell(&Event::Asked { key: key.clone() });
        let request = BackupRequest::everything(key.parse()?, policy.id);
        let job = stillpoint.backup(request).await?;
        ok &= follow(events, &key, &job).await;
    }
    events.tell(&Event::End { ok, appends: count.so_far() });
    Ok(ok)
}

/// Tells what happens to a job, to its end.
async fn follow(events: Events, key: &str, handle: &JobHandle) -> bool {
    let mut watch = handle.watch();
    while let Some(event) = watch.next().await {
        if let JobEvent::Step { run, step, what } = event {
            events.tell(&Event::Step { run, step, news: what.to_owned() });
        }
    }
    let job = handle.wait().await;
    let members = || job.runs.iter().flat_map(|run| &run.members);
    let failures = job.failure.iter().chain(job.runs.iter().filter_map(|run| run.failure.as_ref()));
    let warnings = job.warnings.iter().chain(job.runs.iter().flat_map(|run| &run.warnings));
    let why = failures
        .map(|failure| format!("{}: {}", failure.code, failure.message))
        .chain(warnings.map(|warning| format!("{}: {}", warning.code, warning.message)))
        .collect();
    let state = job.state();
    events.tell(&Event::Job {
        key: key.to_owned(),
        state,
        points: members().filter(|m| matches!(m.end, Some(MemberEnd::Point { .. }))).count(),
        why,
    });
    state == JobState::Succeeded
}
