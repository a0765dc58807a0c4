//! Jobs whose processes died before they had begun a run: one of those that live has each of them in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use stillpoint::catalog::Catalog as _;
use stillpoint::context::{JobId, ProcessId};
use stillpoint::model::group::Selector;
use stillpoint::model::job::{Job, JobKind, JobOwner, JobState};
use stillpoint::model::request::Trigger;
use stillpoint::workflow::testing::Sim;
use stillpoint::workflow::{Leases as _, MemoryJournal};
use stillpoint::{JobHandle, Stillpoint};
use stillpoint_testkit::Fault;
use uuid::Uuid;

use crate::common::hooked::{Hooked, When};
use crate::common::{for_seeds, key, pause, policy, request, within};
use crate::outside::{MARGIN, Outside, TERM, idle, put_group, put_policy, sim_at, utc};

/// When the lease of a process that has just died is over.
const GONE: Duration = TERM.saturating_add(MARGIN).saturating_add(Duration::from_secs(1));

fn id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

/// A job that a schedule asked for, of a group that is there, and of which nothing has begun.
async fn due(this: &Stillpoint, number: u128, owner: Option<JobOwner>) -> Job {
    put_policy(this).await;
    let group = put_group(this, 1, vec![Selector::Everything]).await;
    let due = utc("2026-01-05 01:00");
    let trigger = Trigger::Schedule { schedule: "often".into(), version: None, due };
    let key = key(&format!("due-{number}"));
    let mut job = Job::new(id(number), JobKind::Backup, key, trigger, this.seams().clock.now());
    (job.group, job.policy) = (Some(group.id), Some(policy().reference()));
    job.owner = owner;
    job
}

/// The owner that a process without a Stillpoint is, which is heard of no more.
async fn died(journal: &MemoryJournal, this: &Stillpoint) -> JobOwner {
    let process = ProcessId(Uuid::from_u128(99));
    let lease = journal.acquire(process, this.seams().clock.boot(), TERM).await.unwrap();
    JobOwner::new(process, lease.epoch)
}

/// All of them recover at once.
async fn recover(processes: &[Stillpoint]) -> Vec<JobHandle> {
    let recovered = join_all(processes.iter().map(Stillpoint::recover)).await;
    recovered.into_iter().flat_map(Result::unwrap).collect()
}

/// A catalogue after whose listings of jobs others go on for so long: of processes that recover at once each sees the jobs before any
/// takes one.
fn slow(sim: &Sim, pause: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Hooked> {
    let clock = sim.seams().clock;
    Hooked::new(move |name, when| {
        let pauses = (name, when) == ("jobs", When::After);
        pauses.then(|| clock.sleep_until(clock.mono() + pause()))
    })
}

/// Some processes over a catalogue.
fn processes(sim: &Sim, outside: &Outside, catalog: &Arc<Hooked>) -> Vec<Stillpoint> {
    let process = |_| outside.builder(sim).catalog(Arc::clone(catalog) as _).build().unwrap();
    (0..3).map(process).collect()
}

fn owner(this: &Stillpoint) -> Option<JobOwner> {
    this.engine().lease().map(|(process, epoch)| JobOwner::new(process, epoch))
}

async fn stored(this: &Stillpoint, number: u128) -> Job {
    this.job(id(number)).await.unwrap().unwrap()
}

#[test]
fn one_of_those_that_live_takes_up_the_job_of_one_that_died() {
    let name = "one_of_those_that_live_takes_up_the_job_of_one_that_died";
    for_seeds("scheduled", name, 20, |seed| {
        let sim = sim_at(seed.seed(), "2026-01-05 00:30");
        let (outside, catalog) =
            (Outside::new(idle(1, 1)), slow(&sim, || Duration::from_millis(50)));
        sim.run(async {
            let processes = processes(&sim, &outside, &catalog);
            let this = &processes[0];
            let dead = died(&outside.journal, this).await;
            let scheduled = due(this, 1, Some(dead)).await;
            let mut by_hand = due(this, 2, Some(dead)).await;
            by_hand.trigger = Trigger::Api;
            let old = due(this, 3, None).await;
            for job in [&scheduled, &by_hand, &old] {
                catalog.begin_job(job).await.unwrap();
            }
            // It may be alive yet.
            assert_eq!(recover(&processes).await.len(), 0);
            pause(this.seams(), GONE).await;
            let mut jobs = Vec::new();
            for handle in recover(&processes).await {
                jobs.push(handle.wait().await);
            }
            jobs.sort_by_key(|job| job.id);
            let [scheduled, by_hand] = jobs.as_slice() else { panic!("{jobs:#?}") };
            assert_eq!(scheduled.state(), JobState::Succeeded, "{scheduled:#?}");
            assert_eq!(by_hand.failure.as_ref().unwrap().code, "job.interrupted");
            assert_eq!(outside.world.completes().len(), 1);
            for job in &jobs {
                assert!(processes.iter().any(|this| owner(this) == job.owner), "{job:#?}");
                assert_eq!(this.job(job.id).await.unwrap().as_ref(), Some(job));
            }
            assert_eq!(recover(&processes).await.len(), 0);
            // Nobody can say whose an old one is: it waits until only one lives.
            assert_eq!(stored(this, 3).await, old);
            for gone in &processes[1..] {
                drop(gone.engine().drain().await.unwrap());
            }
            let jobs = this.recover().await.unwrap();
            assert_eq!((jobs.len(), jobs[0].wait().await.state()), (1, JobState::Succeeded));
        });
    });
}

#[test]
fn who_has_taken_a_job_up_and_died_is_followed_by_another() {
    let name = "who_has_taken_a_job_up_and_died_is_followed_by_another";
    for_seeds("scheduled", name, 10, |seed| {
        let outside = Outside::new(idle(1, 1));
        let sim = sim_at(seed.seed(), "2026-01-05 00:30");
        outside.world.faults().on("inventory").inject(Fault::Slow(Duration::from_hours(5)));
        let first = sim.run(async {
            let (this, other) = (outside.process(&sim), outside.process(&sim));
            let job = due(&this, 1, Some(died(&outside.journal, &this).await)).await;
            outside.catalog.begin_job(&job).await.unwrap();
            assert_eq!(other.recover().await.unwrap().len(), 0);
            pause(this.seams(), GONE).await;
            assert_eq!(this.recover().await.unwrap().len(), 1);
            // As long as it lives, it is its own.
            assert_eq!(other.recover().await.unwrap().len(), 0);
            assert_eq!(stored(&this, 1).await.owner, owner(&this));
            owner(&this)
        });
        let at = sim.seams().clock.mono().0;
        drop(sim);
        outside.world.faults().clear();
        // Other processes have other ids.
        let sim = Sim::starting_at(seed.seed() + 1000, at);
        sim.run(async {
            let processes: Vec<_> = (0..3).map(|_| outside.process(&sim)).collect();
            assert_eq!(recover(&processes).await.len(), 0);
            pause(processes[0].seams(), GONE).await;
            let jobs = recover(&processes).await;
            let [job] = jobs.as_slice() else { panic!("{jobs:#?}") };
            let job = job.wait().await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert_ne!(job.owner, first);
            assert_eq!(outside.world.completes().len(), 1);
        });
    });
}

/// A job with a run whose process has died at its work, and when that was.
fn left_at_work(outside: &Outside) -> (Job, Duration) {
    let sim = sim_at(1, "2026-01-05 00:30");
    outside.world.faults().on("settle").inject(Fault::Slow(Duration::from_hours(1)));
    let job = sim.run(async {
        let this = outside.process(&sim);
        let job = due(&this, 1, Some(died(&outside.journal, &this).await)).await;
        outside.catalog.begin_job(&job).await.unwrap();
        pause(this.seams(), GONE).await;
        let jobs = this.recover().await.unwrap();
        while jobs[0].job().runs.is_empty() {
            pause(this.seams(), Duration::from_millis(50)).await;
        }
        pause(this.seams(), Duration::from_secs(30)).await;
        stored(&this, 1).await
    });
    (job, sim.seams().clock.mono().0)
}

/// A process that has just got the run of a job is held up before it takes the job, and others recover meanwhile.
#[test]
fn a_job_is_with_who_carries_its_run_or_with_one_of_the_others() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Run {
        /// It ends before that: what is left is theirs.
        Ends,
        /// It goes on, and is not noted in its job as the catalogue failed.
        IsUnlisted,
        /// It goes on, and somebody else has taken the job all the same.
        IsNotBelieved,
    }
    for run in [Run::Ends, Run::IsUnlisted, Run::IsNotBelieved] {
        let outside = Outside::new(idle(1, 1));
        let (mut job, at) = left_at_work(&outside);
        match run {
            Run::Ends => outside.world.faults().clear(),
            Run::IsUnlisted => job.runs.clear(),
            Run::IsNotBelieved => {}
        }
        let sim = Sim::starting_at(2, at);
        let held_up = AtomicBool::new(true);
        let catalog = slow(&sim, move || {
            let is_first = held_up.swap(false, Ordering::SeqCst);
            Duration::from_secs(if is_first { 60 } else { 0 })
        });
        sim.run(async {
            catalog.begin_job(&job).await.unwrap();
            let processes = processes(&sim, &outside, &catalog);
            put_policy(&processes[0]).await;
            pause(processes[0].seams(), GONE).await;
            let others = async {
                pause(processes[0].seams(), Duration::from_secs(30)).await;
                let recovered = recover(&processes[1..]).await;
                if run == Run::IsNotBelieved {
                    let other = owner(&processes[1]).unwrap();
                    assert!(catalog.take_job(job.id, job.owner, other).await.unwrap().is_some());
                }
                recovered
            };
            let (jobs, others) = join(recover(&processes[..1]), others).await;
            let theirs = run == Run::Ends;
            assert_eq!((jobs.is_empty(), others.is_empty()), (theirs, !theirs), "{run:?}");
            outside.world.faults().clear();
            let all = [jobs, others].concat();
            let [job] = all.as_slice() else { panic!("{run:?}: {all:#?}") };
            let job = job.wait().await;
            assert!(job.state().is_final() && job.runs.len() == 1, "{run:?}: {job:#?}");
        });
    }
}

/// A recovery lists the jobs, and one of its own process ends before it comes to it.
#[test]
fn what_ends_while_it_is_looked_is_over() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    let catalog = slow(&sim, || Duration::from_hours(1));
    sim.run(async {
        let processes = processes(&sim, &outside, &catalog);
        let this = &processes[0];
        put_policy(this).await;
        let job = this.backup(request("night")).await.unwrap();
        assert_eq!(recover(&processes[..2]).await.len(), 0);
        let job = job.job();
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(this.job(job.id).await.unwrap(), Some(job));
    });
}

#[test]
fn a_job_names_who_has_begun_it_and_is_not_lost_in_its_own_process() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let (this, other) = (outside.process(&sim), outside.process(&sim));
        put_policy(&this).await;
        // The first thing that it does.
        let job = this.backup(request("night")).await.unwrap();
        assert!(job.job().owner.is_some() && job.job().owner == owner(&this));
        assert_eq!(stored(&this, job.id().0.as_u128()).await.owner, owner(&this));
        // Who looks in between lets it be.
        assert_eq!(other.recover().await.unwrap().len(), 0);
        assert_eq!(job.wait().await.state(), JobState::Succeeded);
        // One whose beginning nobody waited for to the end.
        let lost = due(&this, 1, owner(&this)).await;
        outside.catalog.begin_job(&lost).await.unwrap();
        assert_eq!(other.recover().await.unwrap().len(), 0);
        let jobs = this.recover().await.unwrap();
        assert_eq!((jobs.len(), jobs[0].id()), (1, lost.id));
        let ended = within(this.seams(), Duration::from_hours(2), jobs[0].wait()).await.unwrap();
        assert_eq!(ended.state(), JobState::Succeeded, "{ended:#?}");
    });
}
