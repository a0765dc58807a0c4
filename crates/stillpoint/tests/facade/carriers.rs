//! Runs that nobody carries here any more, or nobody for a while: of their jobs nothing is said that is not so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, abortable};
use stillpoint::catalog::{Catalog as _, MemoryCatalog};
use stillpoint::context::{BoxFuture, Seams, Spawner};
use stillpoint::exchange::Coordination;
use stillpoint::model::job::{Job, JobState, RunState};
use stillpoint::workflow::testing::{HookJournal, Sim};
use stillpoint::workflow::{JournalError, Leases, MemoryJournal};
use stillpoint::{Builder, JobEvent, NotifyOn, Outcome, Stillpoint};
use stillpoint_testkit::{Fault, Trouble, World};

use super::common::hooked::Hooked;
use super::common::teller::{Teller, told_by};
use super::common::*;

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// A runtime of whose tasks some end before the others, as may be when it is shut down.
#[derive(Debug)]
struct Frail {
    inner: Seams,
    runs: Mutex<Vec<AbortHandle>>,
}

impl Frail {
    fn new(sim: &Sim) -> Arc<Self> {
        Arc::new(Self { inner: sim.seams(), runs: Mutex::default() })
    }

    fn seams(self: &Arc<Self>) -> Seams {
        let Seams { clock, ids, .. } = self.inner.clone();
        Seams::new(clock, Arc::clone(self) as _, ids)
    }

    /// Ends the tasks that carry runs.
    fn end_runs(&self) {
        self.runs.lock().unwrap().iter().for_each(AbortHandle::abort);
    }
}

impl Spawner for Frail {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let (task, end) = abortable(task);
        if name == "run" {
            self.runs.lock().unwrap().push(end);
        }
        self.inner.spawner.spawn(name, Box::pin(task.map(drop)));
    }

    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.inner.spawner.blocking(name, work);
    }
}

/// What outlives a process.
struct Outside {
    world: World,
    journal: Arc<MemoryJournal>,
    catalog: Arc<MemoryCatalog>,
    teller: Teller,
}

impl Outside {
    fn new() -> Self {
        let world = two_arrays(1);
        let teller = told_by(&world, "all");
        Self { world, journal: Arc::default(), catalog: Arc::default(), teller }
    }

    fn builder(&self, sim: &Sim) -> Builder {
        let mut timeouts = stillpoint::Timeouts::default();
        timeouts.attempts = 2;
        builder(sim, &self.world, Coordination::Engine, |engine| engine.lease_terms(TERM, MARGIN))
            .journal(Arc::clone(&self.journal) as _)
            .leases(Arc::clone(&self.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
            .notifier(NotifyOn::all(), Arc::new(self.teller.clone()))
            .timeouts(timeouts)
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.teller.told.lock().unwrap().iter().map(|told| told.outcome).collect()
    }

    async fn stored(&self, job: &Job) -> Job {
        self.catalog.job(job.id).await.unwrap().unwrap()
    }
}

/// How a process comes to carry its run no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loses {
    /// Its runtime is shut down, the task of the run first.
    Runtime,
    /// Its engine is suspended.
    Suspended,
}

#[test]
fn a_job_whose_run_is_carried_no_more_is_left_to_whoever_carries_on() {
    for loses in [Loses::Runtime, Loses::Suspended] {
        for is_parked in [false, true] {
            let case = format!("{loses:?}, parked: {is_parked}");
            let outside = Outside::new();
            let sim = Sim::new(11);
            let frail = Frail::new(&sim);
            let this = outside.builder(&sim).seams(frail.seams()).build().unwrap();
            let (call, fault) = if is_parked {
                ("complete", Fault::fail(Trouble::timed_out()))
            } else {
                ("settle", Fault::Slow(Duration::from_mins(1)))
            };
            outside.world.faults().on(call).inject(fault);
            let job = sim.run(async {
                this.save_policy(&policy()).await.unwrap();
                let handle = this.backup(request("night")).await.unwrap();
                let want = if is_parked { RunState::Parked } else { RunState::Running };
                while handle.job().runs.first().map(|run| run.state) != Some(want) {
                    pause(this.seams(), Duration::from_millis(50)).await;
                }
                pause(this.seams(), Duration::from_secs(5)).await;
                match loses {
                    Loses::Runtime => frail.end_runs(),
                    Loses::Suspended => this.engine().suspend().await.unwrap(),
                }
                // Whoever waits for it is told that it is not known here what becomes of it.
                let job = within(this.seams(), Duration::from_mins(5), handle.wait()).await;
                let job = job.unwrap_or_else(|| panic!("{case}: {:#?}", handle.job()));
                let stored = outside.stored(&job).await;
                assert!(!stored.state().is_final(), "{case}: {stored:#?}");
                assert_eq!(stored.ended_at, None, "{case}");
                let told = if is_parked { vec![Outcome::NeedsAttention] } else { vec![] };
                assert_eq!(outside.outcomes(), told, "{case}");
                job
            });
            outside.world.faults().clear();

            let at = sim.seams().clock.mono().0;
            drop((this, frail, sim));
            let sim = Sim::starting_at(12, at);
            let this = outside.builder(&sim).build().unwrap();
            sim.run(async {
                pause(this.seams(), TERM + MARGIN).await;
                let jobs = this.recover().await.unwrap();
                let [handle] = jobs.as_slice() else { panic!("{case}: {jobs:?}") };
                assert_eq!(handle.id(), job.id);
                if is_parked {
                    let again = this.resume(job.runs[0].run, "op").await.unwrap().unwrap();
                    assert_eq!(again.id(), job.id, "{case}");
                }
                let ended = handle.wait().await;
                assert_eq!(ended.tally(), (1, 1), "{case}: {ended:#?}");
                // Nobody knows here whether more was to follow.
                let codes: Vec<_> =
                    ended.warnings.iter().map(|warning| warning.code.as_str()).collect();
                assert_eq!(codes, ["job.interrupted"], "{case}");
                assert_eq!(outside.stored(&job).await, ended, "{case}");
                assert_eq!(outside.outcomes().last(), Some(&Outcome::Warnings), "{case}");
            });
        }
    }
}

/// A Stillpoint whose journal fails while this says so.
fn failing(outside: &Outside, sim: &Sim) -> (Stillpoint, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&fails);
    let journal = HookJournal::new(Arc::clone(&outside.journal), move |_| {
        let fails = seen.load(Ordering::SeqCst);
        Box::pin(async move { if fails { Err(JournalError::Full) } else { Ok(()) } })
    });
    (outside.builder(sim).journal(Arc::new(journal)).build().unwrap(), fails)
}

#[test]
fn a_run_stands_still_while_the_journal_fails_and_its_job_with_it() {
    let (outside, sim) = (Outside::new(), Sim::new(13));
    let (this, fails) = failing(&outside, &sim);
    sim.run(async {
        this.save_policy(&policy()).await.unwrap();
        outside.world.faults().on("settle").inject(Fault::Slow(Duration::from_secs(20)));
        let handle = this.backup(request("night")).await.unwrap();
        let mut watch = handle.watch();
        while handle.job().state() != JobState::Running || handle.job().runs.is_empty() {
            pause(this.seams(), Duration::from_millis(50)).await;
        }
        pause(this.seams(), Duration::from_secs(2)).await;
        fails.store(true, Ordering::SeqCst);
        pause(this.seams(), Duration::from_hours(1)).await;

        let job = handle.job();
        assert_eq!(job.state(), JobState::Running, "{job:#?}");
        let why = job.runs[0].failure.as_ref().unwrap();
        assert_eq!(why.code, "journal.full", "{job:#?}");
        assert_eq!(outside.stored(&job).await, job, "what is known of it is stored");
        // That is told at once, and once: nobody would know of it otherwise.
        let told = outside.teller.told.lock().unwrap().clone();
        let [told] = told.as_slice() else { panic!("{told:#?}") };
        assert_eq!((told.outcome, told.report.job), (Outcome::NeedsAttention, job.id));
        assert_eq!(told.report.failures[0].code, "journal.full", "{told:#?}");
        let stalled = async {
            loop {
                match watch.next().await {
                    Some(JobEvent::Stalled { run, why }) => return (run, why),
                    Some(_) => {}
                    None => panic!("it is over"),
                }
            }
        };
        let heard = within(this.seams(), Duration::from_secs(1), stalled).await.unwrap();
        assert_eq!(heard, (job.runs[0].run, why.clone()));
        // Who wants to end does not wait for it: the next process has it.
        within(this.seams(), Duration::from_secs(5), this.quiet()).await.unwrap();

        fails.store(false, Ordering::SeqCst);
        let job = within(this.seams(), Duration::from_mins(10), handle.wait()).await.unwrap();
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(job.runs[0].failure, None);
        assert_eq!(outside.outcomes(), [Outcome::NeedsAttention, Outcome::Succeeded]);
    });
}

#[test]
fn a_job_is_cancelled_once_the_journal_is_back() {
    let (outside, sim) = (Outside::new(), Sim::new(14));
    let (this, fails) = failing(&outside, &sim);
    sim.run(async {
        this.save_policy(&policy()).await.unwrap();
        outside.world.faults().on("settle").inject(Fault::Slow(Duration::from_secs(20)));
        let handle = this.backup(request("night")).await.unwrap();
        while handle.job().runs.is_empty() {
            pause(this.seams(), Duration::from_millis(50)).await;
        }
        fails.store(true, Ordering::SeqCst);
        pause(this.seams(), Duration::from_mins(1)).await;
        let cancel = async {
            pause(this.seams(), Duration::from_mins(1)).await;
            assert!(!handle.job().state().is_final());
            fails.store(false, Ordering::SeqCst);
        };
        let (cancelled, ()) = futures_util::future::join(handle.cancel("op"), cancel).await;
        cancelled.unwrap();
        let job = within(this.seams(), Duration::from_mins(10), handle.wait()).await.unwrap();
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
    });
}

/// Between the runs that are taken and the jobs that are listed the catalogue fails: the runs go on, and who recovers once more has
/// their jobs.
#[test]
fn a_recovery_that_failed_half_way_leaves_no_run_without_its_job() {
    let (outside, catalog) = (Outside::new(), Hooked::new(|_, _| None));
    let builder = |sim: &Sim| outside.builder(sim).catalog(Arc::clone(&catalog) as _);
    outside.world.faults().on("settle").inject(Fault::Slow(Duration::from_mins(5)));
    let sim = Sim::new(15);
    let this = builder(&sim).build().unwrap();
    let job = sim.run(async {
        this.save_policy(&policy()).await.unwrap();
        let handle = this.backup(request("night")).await.unwrap();
        while handle.job().runs.first().map(|run| run.state) != Some(RunState::Running) {
            pause(this.seams(), Duration::from_millis(50)).await;
        }
        pause(this.seams(), Duration::from_secs(5)).await;
        handle.job()
    });
    let at = sim.seams().clock.mono().0;
    drop((this, sim));

    let sim = Sim::starting_at(16, at);
    let this = builder(&sim).build().unwrap();
    sim.run(async {
        pause(this.seams(), TERM + MARGIN).await;
        catalog.fail_next("jobs");
        this.recover().await.unwrap_err();
        pause(this.seams(), Duration::from_secs(10)).await;
        let jobs = this.recover().await.unwrap();
        let [handle] = jobs.as_slice() else { panic!("{jobs:?}") };
        assert_eq!(handle.id(), job.id);
        pause(this.seams(), Duration::from_secs(10)).await;
        let shown = this.job(job.id).await.unwrap().unwrap();
        assert_eq!(shown.state(), JobState::Running, "its run goes on: {shown:#?}");
        let ended = handle.wait().await;
        assert_eq!(ended.tally(), (1, 1), "{ended:#?}");
        assert_eq!(catalog.job(job.id).await.unwrap().as_ref(), Some(&ended));
    });
}
