//! Who is told what became of a job, and that nobody who is told can get in its way.

use std::sync::Arc;
use std::time::Duration;

use stillpoint::catalog::MemoryCatalog;
use stillpoint::context::RunId;
use stillpoint::exchange::Coordination;
use stillpoint::model::job::{Job, JobState};
use stillpoint::workflow::testing::Sim;
use stillpoint::workflow::{Leases, MemoryJournal};
use stillpoint::{Builder, ByHand, JobReport, NotifyOn, Outcome, REPORT, Stillpoint, Timeouts};
use stillpoint_testkit::{Fault, Trouble, World};

use super::common::*;
use crate::common::kept::Kept;
use crate::common::teller::{Teller, told_by};

async fn backed_up(this: &Stillpoint) -> Job {
    this.save_policy(&policy()).await.unwrap();
    this.backup(request("night")).await.unwrap().wait().await
}

#[test]
fn each_is_told_once_of_what_it_wants_to_know() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(1), two_arrays(2));
        let (all, bad) = (told_by(&world, "all"), told_by(&world, "bad"));
        sim.run(async {
            let this = builder(&sim, &world, mode, |engine| engine)
                .notifier(NotifyOn::all(), Arc::new(all.clone()))
                .notifier(NotifyOn::default(), Arc::new(bad.clone()))
                .build()
                .unwrap();
            let job = backed_up(&this).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            let told = all.told.lock().unwrap().clone();
            assert_eq!(told.len(), 1);
            assert!(bad.told.lock().unwrap().is_empty());
            let told = &told[0];
            assert_eq!((told.outcome, told.is_test), (Outcome::Succeeded, false));
            assert_eq!(told.subject, "backup: succeeded, 2 of 2 databases");
            let report: JobReport = serde_json::from_str(&told.report.to_json().unwrap()).unwrap();
            assert_eq!(report, told.report);
            assert_eq!((report.schema.as_str(), report.job), (REPORT, job.id));
            assert!(report.databases.iter().all(|database| database.good));

            world.faults().on("settle").inject(Fault::fail(Trouble::fenced()));
            let failed = this.backup(request("again")).await.unwrap().wait().await;
            assert_eq!(failed.state(), JobState::Failed, "{failed:#?}");
            let told = bad.told.lock().unwrap().clone();
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].outcome, Outcome::Failed);
            assert!(!told[0].report.failures.is_empty());
            // The same request is the same job, and is not told of again.
            assert_eq!(this.backup(request("again")).await.unwrap().wait().await, failed);
            assert_eq!((all.told.lock().unwrap().len(), bad.told.lock().unwrap().len()), (2, 1));
        });
    }
}

#[test]
fn a_notification_that_fails_is_a_warning_and_nothing_else() {
    let (sim, world) = (Sim::new(2), two_arrays(1));
    let good = told_by(&world, "good");
    sim.run(async {
        let mut builder = builder(&sim, &world, Coordination::Engine, |engine| engine);
        for how in ["fails", "panics", "hangs"] {
            builder = builder.notifier(NotifyOn::all(), Arc::new(told_by(&world, how)));
        }
        let this = builder.notifier(NotifyOn::all(), Arc::new(good.clone())).build().unwrap();
        let job = backed_up(&this).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(job.tally(), (1, 1));
        let codes: Vec<_> = job.warnings.iter().map(|warning| warning.code.as_str()).collect();
        assert_eq!(codes, ["notify.failed"; 3]);
        for (warning, why) in
            job.warnings.iter().zip(["test.refused", "job.panicked", "job.timed_out"])
        {
            assert!(warning.message.contains(why), "{warning:?}");
        }
        assert_eq!(good.told.lock().unwrap().len(), 1);
        assert_eq!(this.job(job.id).await.unwrap().unwrap(), job, "the warnings are stored");
    });
}

/// A Stillpoint that gives up soon, whose jobs are told by this.
fn impatient(sim: &Sim, world: &World, teller: &Teller) -> Builder {
    let mut timeouts = Timeouts::default();
    timeouts.attempts = 1;
    builder(sim, world, Coordination::Engine, |engine| engine)
        .timeouts(timeouts)
        .notifier(NotifyOn::default(), Arc::new(teller.clone()))
}

#[test]
fn a_run_that_waits_for_a_person_is_told_of_each_time_that_it_is_parked() {
    let (sim, world) = (Sim::new(4), two_arrays(1));
    let teller = told_by(&world, "good");
    sim.run(async {
        let this = impatient(&sim, &world, &teller).build().unwrap();
        world.faults().on("complete").inject(Fault::fail(Trouble::timed_out()));
        let job = backed_up(&this).await;
        assert_eq!(job.state(), JobState::Parked, "{job:#?}");
        let told = teller.told.lock().unwrap().clone();
        assert_eq!(told.len(), 1, "told before it is shown: {told:#?}");
        assert_eq!(told[0].outcome, Outcome::NeedsAttention);
        assert_eq!(told[0].subject, "backup: parked, 0 of 1 database");
        assert!(told[0].text.contains("waits for a person"), "{}", told[0].text);
        assert_eq!(told[0].report.state, JobState::Parked);
        assert_eq!(told[0].report.failures.len(), 1, "{told:#?}");
        let run = job.runs[0].run;
        assert!(told[0].key.as_str().contains(&format!("/parked/{run}/")), "{told:#?}");

        // Looked at, and carried on with by the process that has it, it is not told of again.
        assert_eq!(this.parked().await.unwrap().len(), 1);
        assert_eq!(this.recover().await.unwrap().len(), 0);
        pause(&sim.seams(), Duration::from_hours(1)).await;
        assert_eq!(teller.told.lock().unwrap().len(), 1);

        // Tried again and parked again, it is, under another key.
        let again = this.resume(run, "me").await.unwrap().unwrap().settled().await;
        assert_eq!(again.state(), JobState::Parked, "{again:#?}");
        let told = teller.told.lock().unwrap().clone();
        assert_eq!(told.len(), 2, "{told:#?}");
        assert_ne!(told[0].key, told[1].key);

        // Its end is told as any other's.
        world.faults().clear();
        let done = this.resolve(run, "complete", ByHand::Done, "me").await.unwrap().unwrap();
        let done = done.settled().await;
        assert_eq!(done.state(), JobState::SucceededWithWarnings, "{done:#?}");
        let told = teller.told.lock().unwrap().clone();
        assert_eq!(told.len(), 3, "{told:#?}");
        assert_eq!(
            (told[2].outcome, told[2].key.as_str()),
            (Outcome::Warnings, format!("notify/{}", job.id).as_str())
        );
    });
}

#[test]
fn a_parked_run_is_told_of_by_whoever_carries_on_if_nobody_has() {
    // The first process dies while it tells, or after that.
    for dies_telling in [true, false] {
        let world = two_arrays(1);
        let (journal, catalog) = (Arc::new(MemoryJournal::new()), Arc::new(MemoryCatalog::new()));
        let process = |sim: &Sim, teller: &Teller| {
            impatient(sim, &world, teller)
                .journal(Arc::clone(&journal) as _)
                .leases(Arc::clone(&journal) as Arc<dyn Leases>)
                .catalog(Arc::clone(&catalog) as _)
                .build()
                .unwrap()
        };
        let first = told_by(&world, if dies_telling { "hangs" } else { "good" });
        let sim = Sim::new(5);
        let this = process(&sim, &first);
        sim.run(async {
            world.faults().on("complete").inject(Fault::fail(Trouble::timed_out()));
            this.save_policy(&policy()).await.unwrap();
            let job = this.backup(request("night")).await.unwrap();
            while first.told.lock().unwrap().is_empty() {
                pause(this.seams(), Duration::from_millis(10)).await;
            }
            let settled = within(this.seams(), Duration::from_secs(30), job.settled()).await;
            assert_eq!(settled.is_none(), dies_telling, "{settled:#?}");
        });
        let at = sim.seams().clock.mono().0;
        drop((this, sim));
        let sim = Sim::starting_at(6, at);
        let second = told_by(&world, "good");
        let this = process(&sim, &second);
        sim.run(async {
            pause(this.seams(), Duration::from_hours(2)).await;
            let jobs = this.recover().await.unwrap();
            assert_eq!(jobs.len(), 1);
            assert_eq!(jobs[0].settled().await.state(), JobState::Parked);
            let told = second.told.lock().unwrap().clone();
            assert_eq!(told.len(), usize::from(dies_telling), "{told:#?}");
            if dies_telling {
                assert_eq!(told[0].key, first.told.lock().unwrap()[0].key);
            }
        });
    }
}

/// Processes one after the other over one store, of which some cannot read the run.
struct Processes {
    world: World,
    kept: Kept,
    catalog: Arc<MemoryCatalog>,
    at: Duration,
}

impl Processes {
    fn new() -> Self {
        let (kept, catalog) = (Kept::default(), Arc::new(MemoryCatalog::new()));
        Self { world: two_arrays(1), kept, catalog, at: Duration::ZERO }
    }

    /// The life of the next one, some hours after the one before, which ends when the work does.
    fn next<T>(&mut self, teller: &Teller, work: impl AsyncFnOnce(&Stillpoint) -> T) -> T {
        let sim = Sim::starting_at(6, self.at);
        let this = impatient(&sim, &self.world, teller)
            .journal(Arc::new(self.kept.clone()))
            .leases(Arc::clone(&self.kept.journal) as Arc<dyn Leases>)
            .catalog(Arc::clone(&self.catalog) as _)
            .build()
            .unwrap();
        let done = sim.run(async {
            pause(this.seams(), Duration::from_hours(2)).await;
            work(&this).await
        });
        self.at = sim.seams().clock.mono().0;
        done
    }

    /// Backs up until this call fails for good, and gives the job with its run, which the next processes cannot read.
    fn leave_unreadable(&mut self, teller: &Teller, call: &str) -> (Job, RunId) {
        self.world.faults().on(call).inject(Fault::fail(Trouble::timed_out()));
        let job = self.next(teller, async |this| backed_up(this).await);
        let run = job.runs[0].run;
        *self.kept.newer.lock().unwrap() = Some(run);
        (job, run)
    }
}

#[test]
fn a_run_that_cannot_be_read_is_told_of_once() {
    let mut processes = Processes::new();
    let first = told_by(&processes.world, "good");
    processes.world.faults().on("settle").inject(Fault::Slow(Duration::from_hours(1)));
    // The first process dies at its work.
    let job = processes.next(&first, async |this| {
        this.save_policy(&policy()).await.unwrap();
        let job = this.backup(request("night")).await.unwrap();
        while job.job().runs.is_empty() {
            pause(this.seams(), Duration::from_millis(50)).await;
        }
        pause(this.seams(), Duration::from_secs(30)).await;
        job.job()
    });
    let run = job.runs[0].run;
    *processes.kept.newer.lock().unwrap() = Some(run);
    processes.world.faults().clear();

    let second = told_by(&processes.world, "good");
    processes.next(&second, async |this| {
        for _ in 0..2 {
            assert_eq!(this.recover().await.unwrap().len(), 0);
        }
        let stored = this.job(job.id).await.unwrap().unwrap();
        assert_eq!(stored.state(), JobState::Parked, "{stored:#?}");
    });
    let told = second.told.lock().unwrap().clone();
    let [told] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!((told.outcome, told.report.job), (Outcome::NeedsAttention, job.id));
    assert_eq!(told.subject, "backup: parked, 0 of 1 database");
    let [failure] = told.report.failures.as_slice() else { panic!("{told:#?}") };
    assert_eq!(failure.code, "run.unreadable");
    assert!(failure.message.contains(&run.to_string()), "{failure:?}");
    assert!(failure.message.contains("format 99"), "{failure:?}");
    assert!(told.text.contains(&failure.message) && told.text.contains(&failure.remedy));
    let key = format!("notify/{}/unreadable/{run}/journal.format", job.id);
    assert_eq!(told.key.as_str(), key);

    // Others say nothing more of it; one that can read it carries on, and tells its end.
    let third = told_by(&processes.world, "good");
    processes.next(&third, async |this| assert_eq!(this.recover().await.unwrap().len(), 0));
    assert!(third.told.lock().unwrap().is_empty());
    *processes.kept.newer.lock().unwrap() = None;
    processes.next(&third, async |this| {
        let jobs = this.recover().await.unwrap();
        assert_eq!(jobs.len(), 1);
        let ended = jobs[0].wait().await;
        assert!(ended.state().is_final(), "{ended:#?}");
        let told = third.told.lock().unwrap().clone();
        assert!(told.iter().all(|told| told.key.as_str() == format!("notify/{}", job.id)));
    });
}

#[test]
fn that_a_run_cannot_be_read_is_told_by_the_next_if_the_one_before_died_telling() {
    let mut processes = Processes::new();
    let (hangs, good) = (told_by(&processes.world, "hangs"), told_by(&processes.world, "good"));
    let (job, run) = processes.leave_unreadable(&good, "complete");
    assert_eq!(job.state(), JobState::Parked, "{job:#?}");
    let parked = good.told.lock().unwrap().remove(0);
    processes.next(&hangs, async |this| {
        let recovered = within(this.seams(), Duration::from_millis(10), this.recover()).await;
        assert!(recovered.is_none(), "it tells");
    });
    processes.next(&good, async |this| drop(this.recover().await.unwrap()));
    let told = std::mem::take(&mut *good.told.lock().unwrap());
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].key, hangs.told.lock().unwrap()[0].key);
    assert_ne!(told[0].key, parked.key);
    // What it is parked for is told once more, under its key, when it can be read.
    *processes.kept.newer.lock().unwrap() = None;
    processes.next(&good, async |this| {
        let jobs = this.recover().await.unwrap();
        let settled = jobs[0].settled().await;
        assert_eq!((settled.state(), settled.runs[0].run), (JobState::Parked, run));
        assert_eq!(
            settled.runs[0].failure.as_ref().unwrap().code,
            job.runs[0].failure.as_ref().unwrap().code
        );
    });
    let told = good.told.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].key, parked.key);
}

#[test]
fn a_test_goes_to_all_and_says_so() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    let (good, fails) = (told_by(&world, "good"), told_by(&world, "fails"));
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine)
            .notifier(NotifyOn::these([Outcome::Failed]), Arc::new(good.clone()))
            .notifier(NotifyOn::these([]), Arc::new(fails.clone()))
            .build()
            .unwrap();
        let sent = this.test_notifiers().await.unwrap();
        assert!(matches!(&sent[0], (name, Ok(())) if name == "good"), "{sent:?}");
        assert!(matches!(&sent[1], (name, Err(_)) if name == "fails"), "{sent:?}");
        let told = good.told.lock().unwrap()[0].clone();
        assert!(told.is_test && told.subject.starts_with("TEST: "), "{told:?}");
        assert!(this.jobs().await.unwrap().is_empty(), "it is no job");
    });
}
