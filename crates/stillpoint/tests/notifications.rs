//! Who is told what became of a job, and that nobody who is told can get in its way.

// Tests may panic; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use common::*;
use stillpoint::context::{Cx, ErrorClass, Failure};
use stillpoint::exchange::Coordination;
use stillpoint::model::job::{Job, JobState};
use stillpoint::workflow::testing::Sim;
use stillpoint::{JobReport, Notification, Notifier, NotifyOn, Outcome, REPORT, Stillpoint};
use stillpoint_testkit::{Fault, Trouble, World};

/// Keeps what it is told, or comes to grief.
#[derive(Debug, Clone)]
struct Teller {
    how: &'static str,
    told: Arc<Mutex<Vec<Notification>>>,
    world: World,
}

#[async_trait]
impl Notifier for Teller {
    fn name(&self) -> &str {
        self.how
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        for host in self.world.hosts() {
            assert!(!self.world.is_frozen(&host), "told while {host} is frozen");
        }
        self.told.lock().unwrap().push(notification.clone());
        match self.how {
            "fails" => Err(Failure::new("test.refused", ErrorClass::Unavailable, "not today")),
            "panics" => panic!("at the wrong moment"),
            "hangs" => futures_util::future::pending().await,
            _ => Ok(()),
        }
    }
}

fn told_by(world: &World, how: &'static str) -> Teller {
    Teller { how, told: Arc::default(), world: world.clone() }
}

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
