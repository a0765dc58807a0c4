//! What an operator does after a restart, over the embedded store: one process parks a run and is gone, the next one finds it
//! in the state file.

#![cfg(feature = "sqlite")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::catalog::Catalog;
use stillpoint::context::{ErrorFacts as _, RunId};
use stillpoint::exchange::Coordination;
use stillpoint::model::job::{Job, JobState};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::workflow::{Fencing, Leases};
use stillpoint::{ByHand, Stillpoint, Stuck, Timeouts};
use stillpoint_testkit::{Fault, Trouble, World};
use tokio::runtime::Runtime;

use super::common::{pause, policy, request, two_arrays};

/// A process: a runtime of its own, which is gone with everything on it when this is dropped.
struct Process {
    runtime: Runtime,
    this: Stillpoint,
}

impl Process {
    fn start(state: &Path, world: &World) -> Self {
        let runtime = Runtime::new().unwrap();
        let this = runtime.block_on(async {
            let mut timeouts = Timeouts::default();
            timeouts.attempts = 1;
            let plugin = world.exchange().only(Coordination::Engine);
            let mut builder = Stillpoint::builder(Arc::new(plugin));
            for array in ["alpha", "beta"] {
                builder = builder.provider(Arc::new(world.storage_named(array)));
            }
            let store = Arc::new(SqliteStore::open(state).unwrap());
            builder.store(store).timeouts(timeouts).build().unwrap()
        });
        Self { runtime, this }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// Parks a backup in a process that is gone when this returns.
fn parked(state: &Path, world: &World, call: &str) -> Job {
    world.faults().on(call).inject(Fault::fail(Trouble::timed_out()));
    let process = Process::start(state, world);
    process.run(async {
        process.this.save_policy(&policy()).await.unwrap();
        let job = process.this.backup(request("night")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Parked, "{job:#?}");
        job
    })
}

const STEPS: [(&str, &str, Stuck); 2] =
    [("thaw", "freeze", Stuck::ExitOwed), ("complete", "complete", Stuck::PastNoReturn)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Resume,
    Resolve,
    Abandon,
}

#[test]
fn a_parked_run_is_found_after_a_restart_and_dealt_with() {
    for (call, step, stuck) in STEPS {
        for act in [Act::Resume, Act::Resolve, Act::Abandon] {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path().join("state.db");
            let world = two_arrays(1);
            let job = parked(&state, &world, call);
            let run = job.runs[0].run;
            world.faults().clear();

            let process = Process::start(&state, &world);
            let this = &process.this;
            process.run(async {
                let all = this.parked().await.unwrap();
                let [known] = all.as_slice() else { panic!("{all:#?}") };
                assert_eq!((known.run, known.job), (run, Some(job.id)));
                assert_eq!(known.steps[0].why, stuck);
                let locks = this.locks().await.unwrap();
                assert_eq!(locks.len(), known.claims.len());
                assert!(locks.iter().all(|lock| lock.run == run && lock.stuck == Some(stuck)));
                let nobody = RunId(uuid::Uuid::from_u128(7));
                let error = this.resume(nobody, "op").await.unwrap_err();
                assert_eq!(error.code(), "not_found");

                let handle = match act {
                    Act::Resume => this.resume(run, "op").await,
                    Act::Resolve => this.resolve(run, step, ByHand::Done, "op").await,
                    Act::Abandon => this.abandon(run, "op").await,
                };
                let settled = handle.unwrap().unwrap().settled().await;
                assert!(settled.state().is_final(), "{act:?}: {settled:#?}");
                let attention = settled.state() == JobState::NeedsAttention;
                assert_eq!(attention, act == Act::Abandon, "{settled:#?}");
                // The arbiter has taken the release by the time that it answers.
                drop(this.engine().holders().await.unwrap());
                assert_eq!(this.parked().await.unwrap(), []);
                assert_eq!(this.locks().await.unwrap(), []);
                assert_eq!(this.debris().await.unwrap().is_empty(), !attention);
            });
            drop(process);

            // And the next one finds it done with.
            let process = Process::start(&state, &world);
            process.run(async {
                let this = &process.this;
                assert_eq!(this.parked().await.unwrap(), []);
                assert_eq!(this.locks().await.unwrap(), []);
                let account = this.account(job.id).await.unwrap().unwrap();
                assert!(account.job.state().is_final(), "{:#?}", account.job);
                assert_eq!(account.debris.is_empty(), act != Act::Abandon);
                let error = this.abandon(run, "op").await.unwrap_err();
                assert_eq!(error.code(), "run.not_parked");
            });
        }
    }
}

#[test]
fn a_process_that_was_taken_over_overwrites_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let world = two_arrays(1);
    world.faults().on("thaw").inject(Fault::fail(Trouble::timed_out()));
    let process = Process::start(&state, &world);
    process.run(async {
        process.this.save_policy(&policy()).await.unwrap();
        let handle = process.this.backup(request("night")).await.unwrap();
        let job = handle.wait().await;
        assert_eq!(job.state(), JobState::Parked, "{job:#?}");

        // Another process finds the lease over, and says something of the job.
        let other = SqliteStore::open(&state).unwrap();
        let [lease] = other.leases().await.unwrap().try_into().unwrap();
        let later = lease.until + Duration::from_hours(1);
        let fenced = other.fence(lease.process, later, Duration::ZERO).await.unwrap();
        assert_eq!(fenced, Fencing::Fenced);
        let mut known = other.job(job.id).await.unwrap().unwrap();
        known.title = "carried on by another".to_owned();
        other.put_job(&known).await.unwrap();

        // This one carries on as if nothing had happened: its run fails at the next record, and the job with it.
        drop(process.this.resume(job.runs[0].run, "op").await);
        while !handle.job().state().is_final() {
            pause(process.this.seams(), Duration::from_millis(5)).await;
        }
        assert_eq!(other.job(job.id).await.unwrap(), Some(known));
    });
}
