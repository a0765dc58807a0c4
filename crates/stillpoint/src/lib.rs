//! Application-consistent snapshot backup of Microsoft Exchange databases on any storage.
//!
//! Hand in an Exchange plug-in and a snapshot provider, and get the whole workflow: what there is, what can be backed up and
//! why not, a plan that can be read before it is carried out, backup, verification, restore, jobs and topology. The engine
//! below enforces the order of steps and the exclusive use of resources; nothing that the embedding application does can
//! break either.
//!
//! # Twelve lines to a first backup
//!
//! With the features `sqlite`, `fs` and `files`:
//!
//! ```
//! # #[cfg(all(feature = "sqlite", feature = "fs", feature = "files"))]
//! # mod first {
//! use std::{error::Error, path::Path, sync::Arc};
//!
//! use stillpoint::model::{job::Job, policy::Policy, request::BackupRequest};
//! use stillpoint::storage_fs::{FsConfig, FsProvider};
//! use stillpoint::{Stillpoint, exchange_files::FilesPlugin, store_sqlite::SqliteStore};
//!
//! pub async fn protect(folder: &Path, store: &Path, state: &Path) -> Result<Job, Box<dyn Error>> {
//!     let host = "lab".parse()?;
//!     let volume = FsConfig::new("fs".parse()?, host, store).with_volume("mail".parse()?, folder);
//!     let plugin = FilesPlugin::new(folder, "lab".parse()?)?;
//!     let stillpoint = Stillpoint::builder(Arc::new(plugin))
//!         .provider(Arc::new(FsProvider::open(&volume)?))
//!         .store(Arc::new(SqliteStore::open(state)?))
//!         .build()?;
//!     let policy = Policy::new("6b1d0c1e-5f0e-4a51-9c2f-0d8f5a7d2b10".parse()?, "default");
//!     stillpoint.save_policy(&policy).await?;
//!     let request = BackupRequest::everything("my-first-backup".parse()?, policy.id);
//!     Ok(stillpoint.backup(request).await?.wait().await)
//! }
//! # }
//! # #[cfg(all(feature = "sqlite", feature = "fs", feature = "files"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lab = tempfile::tempdir()?;
//! # let (mail, store) = (lab.path().join("mail"), lab.path().join("store"));
//! # std::fs::create_dir(&mail)?;
//! # stillpoint_ese::write::ExchangeSet::new(1).write_to(&mail)?;
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
//! # let job = runtime.block_on(first::protect(&mail, &store, &lab.path().join("state.db")))?;
//! # assert_eq!(job.state(), stillpoint::model::job::JobState::Succeeded, "{job:#?}");
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "sqlite", feature = "fs", feature = "files")))]
//! # fn main() {}
//! ```
//!
//! # Your backup logic in a unit test
//!
//! [`Stillpoint::in_memory`] keeps journal and catalogue in memory, over any plug-in and provider: mocks, or the simulated
//! Exchange of `stillpoint-testkit`, which freezes, forgets and fails as told:
//!
//! ```
//! use std::sync::Arc;
//!
//! use stillpoint::Stillpoint;
//! use stillpoint::model::{job::JobState, policy::Policy, request::BackupRequest};
//! use stillpoint_testkit::{Fault, Trouble, World};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = World::one_server(2); // two databases, data and logs on volumes of their own
//! let stillpoint = Stillpoint::in_memory(Arc::new(world.exchange()), Arc::new(world.storage()))?;
//! let policy = Policy::new("6b1d0c1e-5f0e-4a51-9c2f-0d8f5a7d2b10".parse()?, "default");
//! stillpoint.save_policy(&policy).await?;
//!
//! world.faults().on("settle").inject(Fault::fail(Trouble::fenced()));
//! let request = BackupRequest::everything("night".parse()?, policy.id);
//! let job = stillpoint.backup(request).await?.wait().await;
//!
//! assert_eq!(job.state(), JobState::Failed);
//! assert!(world.snapshots().is_empty(), "nothing is left behind");
//! assert!(world.completes().is_empty(), "and nothing was truncated");
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! ```text
//!   your tool ──▶ Stillpoint ──▶ model      what to do (pure)
//!                     │   └────▶ workflow   doing it in order, exclusively, undone if it fails
//!                     ├────────▶ exchange   the plug-in's trait       ◀── exchange-files, yours
//!                     ├────────▶ storage    the provider's trait      ◀── storage-fs, yours
//!                     └────────▶ catalog    the catalogue's trait     ◀── store-sqlite, yours
//! ```
//!
//! - [`Stillpoint`]: [`discover`](Stillpoint::discover), [`plan`](Stillpoint::plan), [`backup`](Stillpoint::backup),
//!   [`restore`](Stillpoint::restore), [`verify`](Stillpoint::verify), [`retention`](Stillpoint::retention),
//!   [`prune`](Stillpoint::prune), [`put_hold`](Stillpoint::put_hold), [`reconcile`](Stillpoint::reconcile),
//!   [`repair`](Stillpoint::repair), [`rebuild`](Stillpoint::rebuild), [`jobs`](Stillpoint::jobs),
//!   [`topology`](Stillpoint::topology), [`recovery_window`](Stillpoint::recovery_window), [`lint`](Stillpoint::lint),
//!   [`doctor`](Stillpoint::doctor).
//! - What runs by itself: schedules are [made](Stillpoint::create_schedule) and [attached](Stillpoint::attach) to the policies of
//!   groups, and a [`Scheduler`] makes one job of each time at which one is due, prunes after it, and has old jobs
//!   [forgotten](Stillpoint::forget).
//! - [`JobHandle`]: a job that is under way: wait, watch, cancel.
//! - Who is told what became of a job: [`Notifier`]s.
//! - Programs of the operator's that run before and after: [hooks](HookRunner) of policies.
//! - For whoever operates it: [`parked`](Stillpoint::parked) runs, to be [resumed](Stillpoint::resume),
//!   [resolved](Stillpoint::resolve) or [abandoned](Stillpoint::abandon); [`debris`](Stillpoint::debris);
//!   [`locks`](Stillpoint::locks); a job's [account](Stillpoint::account).
//! - The crates below, re-exported: [`context`], [`model`], [`workflow`], [`exchange`], [`storage`], [`catalog`].
//!
//! # Features
//! None is on by default. `sqlite`: the embedded state store; `fs`: the provider for any directory; `btrfs`: the provider for
//! subvolumes of btrfs; `files`: the plug-in for databases at rest; `mock`: mocks of both traits.

#![forbid(unsafe_code)]

mod account;
mod backup;
mod beside;
mod bounds;
mod brief;
mod builder;
mod byhand;
mod claims;
mod debris;
mod doctor;
mod draft;
mod error;
mod exposure;
mod follow;
mod history;
mod holds;
mod hooks;
mod inventory;
mod job;
mod ledgers;
mod lint;
mod locks;
mod notify;
mod objects;
mod parked;
mod pools;
mod prune;
mod pump;
mod rebuild;
mod reconcile;
mod recover;
mod restore;
mod retention;
mod runs;
mod scheduler;
mod schedules;
mod services;
mod survey;
mod timeouts;
#[cfg(test)]
mod trials;
mod truncation;
mod verify;

use std::sync::Arc;

use futures_util::lock::Mutex;
use stillpoint_context::Seams;
use stillpoint_exchange::ExchangePlugin;
use stillpoint_storage::SnapshotProvider;
use stillpoint_workflow::Engine;

pub use account::{JobAccount, RunSteps, StepAccount};
pub use backup::DryRun;
pub use builder::Builder;
pub use doctor::{DoctorFinding, Gravity};
pub use draft::Draft;
pub use error::Error;
pub use history::ForgetOptions;
pub use hooks::{ENVIRONMENT_VERSION, HookCall, HookRunner};
#[cfg(unix)]
pub use hooks::{INHERITED, ProgramRunner};
pub use job::{JobEvent, JobHandle, Watch};
pub use lint::LintReport;
pub use locks::{Lock, Waiter};
pub use notify::{
    JobReport, LogNotifier, Notification, Notifier, NotifyOn, Outcome, REPORT, ReportedDatabase,
    ReportedProblem,
};
pub use parked::{ByHand, ParkedRun, ParkedStep, Stuck};
pub use prune::{PruneRequest, PruneScope, PruneTarget};
pub use pump::TOPIC;
pub use rebuild::Rebuilt;
pub use reconcile::{ReconcileOptions, ReconcileReport, RepairRequest};
pub use retention::{DatabaseRetention, RetentionTable};
pub use scheduler::{
    Reconciling, Scheduler, SchedulerEvent, SchedulerEvents, SchedulerOptions, SchedulerStatus,
};
pub use schedules::{Attached, Upcoming};
pub use survey::Discovery;
pub use timeouts::Timeouts;
pub use verify::VerifyRequest;

pub use stillpoint_catalog as catalog;
pub use stillpoint_context as context;
pub use stillpoint_exchange as exchange;
#[cfg(feature = "files")]
pub use stillpoint_exchange_files as exchange_files;
pub use stillpoint_model as model;
pub use stillpoint_storage as storage;
#[cfg(feature = "btrfs")]
pub use stillpoint_storage_btrfs as storage_btrfs;
#[cfg(feature = "fs")]
pub use stillpoint_storage_fs as storage_fs;
#[cfg(feature = "sqlite")]
pub use stillpoint_store_sqlite as store_sqlite;
pub use stillpoint_workflow as workflow;

use job::LiveJobs;
use services::Services;

/// The whole workflow over one plug-in, its providers and a catalogue. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct Stillpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    services: Arc<Services>,
    engine: Engine,
    seams: Seams,
    timeouts: Timeouts,
    live: LiveJobs,
    asking: Mutex<()>,
}

impl Stillpoint {
    /// Begins to put one together.
    pub fn builder(plugin: Arc<dyn ExchangePlugin>) -> Builder {
        Builder::new(plugin)
    }

    /// One that keeps everything in memory, for unit tests. Called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn in_memory(
        plugin: Arc<dyn ExchangePlugin>,
        provider: Arc<dyn SnapshotProvider>,
    ) -> Result<Self, Error> {
        Self::builder(plugin).provider(provider).build()
    }

    fn assemble(services: Arc<Services>, engine: Engine, seams: Seams, timeouts: Timeouts) -> Self {
        let live = LiveJobs::default();
        Self(Arc::new(Inner { services, engine, seams, timeouts, live, asking: Mutex::new(()) }))
    }

    /// The clock, tasks and ids that it uses.
    pub fn seams(&self) -> &Seams {
        &self.0.seams
    }

    /// The engine: runs, what they wait for, parked ones.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn services(&self) -> &Services {
        &self.0.services
    }

    fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }

    fn live(&self) -> &LiveJobs {
        &self.0.live
    }

    fn asking(&self) -> &Mutex<()> {
        &self.0.asking
    }
}
