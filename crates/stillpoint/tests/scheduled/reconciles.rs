//! A scheduler that looks by itself whether the catalogue tells the truth.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::catalog::{CatalogExt as _, PointQuery};
use stillpoint::context::{Cx, Failure};
use stillpoint::model::id::PointId;
use stillpoint::model::job::{Job, JobKind, JobState};
use stillpoint::model::manifest;
use stillpoint::model::point::RestorePoint;
use stillpoint::storage::{DocName, SnapshotProvider as _};
use stillpoint::workflow::testing::Sim;
use stillpoint::{
    Notification, Notifier, NotifyOn, Outcome, Reconciling, Scheduler, SchedulerEvent,
    SchedulerOptions, Stillpoint,
};
use stillpoint_testkit::{Fault, Trouble};

use crate::common::{pause, request, within};
use crate::outside::{
    Outside, due_jobs, everything_by, finish, hourly, idle, put_policy, sim_at, start,
};

const DAY: Duration = Duration::from_hours(24);

/// By then there was a look, wherever it is now.
const LOOKED: Duration = Duration::from_hours(27);

/// Keeps what it is told.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<Notification>>>);

impl Told {
    fn outcomes(&self) -> Vec<Outcome> {
        self.0.lock().unwrap().iter().map(|told| told.outcome).collect()
    }
}

#[async_trait]
impl Notifier for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        self.0.lock().unwrap().push(notification.clone());
        Ok(())
    }
}

/// A process that tells somebody what does not go well.
fn process(outside: &Outside, sim: &Sim) -> (Stillpoint, Told) {
    let told = Told::default();
    let builder = outside.builder(sim).notifier(NotifyOn::default(), Arc::new(told.clone()));
    (builder.build().unwrap(), told)
}

fn reconciling(this: &Stillpoint, grace: Option<Duration>) -> Scheduler {
    let mut reconciling = Reconciling::default();
    reconciling.grace = grace;
    let mut options = SchedulerOptions::default();
    options.reconciling = Some(reconciling);
    // In simulated weeks that counts.
    options.beat = Duration::from_mins(10);
    this.start_scheduler(options)
}

/// What was reconciled, oldest first.
async fn jobs(this: &Stillpoint) -> Vec<Job> {
    let mut jobs = this.jobs().await.unwrap();
    jobs.retain(|job| job.kind == JobKind::Reconcile);
    jobs.sort_by_key(|job| job.created_at);
    jobs
}

fn codes(job: &Job) -> Vec<&str> {
    let warnings = job.warnings.iter().chain(job.runs.iter().flat_map(|run| &run.warnings));
    warnings.map(|warning| warning.code.as_str()).collect()
}

/// Backs everything up; the one point.
async fn backed_up(outside: &Outside, this: &Stillpoint) -> RestorePoint {
    put_policy(this).await;
    let job = this.backup(request("night")).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let mut points = outside.catalog.all_points(&PointQuery::all()).await.unwrap();
    assert_eq!(points.len(), 1);
    points.remove(0)
}

async fn is_missing(this: &Stillpoint, point: PointId) -> bool {
    this.point(point).await.unwrap().unwrap().is_missing()
}

/// Another process, at the time that the first one has come to.
fn later(seed: u64, sim: &Sim) -> Sim {
    Sim::starting_at(seed, sim.seams().clock.mono().0)
}

#[test]
fn what_a_storage_has_lost_is_told_once_by_all_processes_together() {
    let sim = sim_at(1, "2026-02-01 00:00");
    let outside = Outside::new(idle(1, 1));
    let point = sim.run(async {
        let (this, told) = process(&outside, &sim);
        let point = backed_up(&outside, &this).await;
        let scheduler = reconciling(&this, None);
        let mut events = scheduler.watch();
        pause(this.seams(), 3 * LOOKED).await;
        assert_eq!((jobs(&this).await.len(), told.outcomes()), (0, vec![]), "all is well");

        outside.world.lose_snapshot(&point.members[0].snapshot);
        pause(this.seams(), LOOKED).await;
        let all = jobs(&this).await;
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!(all[0].state(), JobState::SucceededWithWarnings, "{all:#?}");
        assert_eq!(codes(&all[0]), ["point.missing"]);
        assert!(is_missing(&this, point.id).await);
        assert_eq!(told.outcomes(), [Outcome::Warnings]);
        pause(this.seams(), 3 * LOOKED).await;
        assert_eq!((jobs(&this).await.len(), told.outcomes().len()), (1, 1), "as it was");

        finish(&this, &scheduler).await;
        let (mut looks, mut with_job) = (0, 0);
        while let Some(event) = events.next().await {
            if let SchedulerEvent::Reconciled { job } = event {
                looks += 1;
                with_job += usize::from(job.is_some());
            }
        }
        assert!((7..=8).contains(&looks), "{looks} in a week");
        assert_eq!(with_job, 1);
        point
    });
    let sim = later(2, &sim);
    sim.run(async {
        // Two of them, on one store.
        let ((this, told), (other, told_other)) =
            (process(&outside, &sim), process(&outside, &sim));
        let schedulers = [reconciling(&this, None), reconciling(&other, None)];
        pause(this.seams(), 2 * LOOKED).await;
        assert_eq!((jobs(&this).await.len(), told.outcomes()), (1, vec![]), "told before");
        outside.world.bring_back_snapshot(&point.members[0].snapshot);
        pause(this.seams(), LOOKED).await;
        assert!(!is_missing(&this, point.id).await);
        let all = jobs(&this).await;
        assert_eq!(all.len(), 2, "{all:#?}");
        assert_eq!((all[1].state(), codes(&all[1])), (JobState::Succeeded, vec![]), "{all:#?}");
        // Lost again, it is told again, by one of them.
        outside.world.lose_snapshot(&point.members[0].snapshot);
        pause(this.seams(), 2 * LOOKED).await;
        assert_eq!(jobs(&this).await.len(), 3);
        assert!(is_missing(&this, point.id).await);
        assert_eq!([told.outcomes(), told_other.outcomes()].concat(), [Outcome::Warnings]);
        for scheduler in &schedulers {
            scheduler.stop().await;
        }
    });
}

#[test]
fn a_storage_that_cannot_be_asked_is_told_once_and_nothing_is_called_missing() {
    let sim = sim_at(3, "2026-02-01 00:00");
    let outside = Outside::new(idle(1, 2));
    sim.run(async {
        let (this, told) = process(&outside, &sim);
        put_policy(&this).await;
        let job = this.backup(request("night")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let points = outside.catalog.all_points(&PointQuery::all()).await.unwrap();
        outside
            .world
            .faults()
            .on("list")
            .about("vol01")
            .inject(Fault::fail(Trouble::unreachable()));
        let scheduler = reconciling(&this, None);
        pause(this.seams(), 3 * LOOKED).await;
        let all = jobs(&this).await;
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!(codes(&all[0]), ["reconcile.not_seen"], "{all:#?}");
        assert_eq!(told.outcomes(), [Outcome::Warnings]);
        // Another one, which is another finding.
        outside.world.lose_snapshot(&points[1].members[0].snapshot);
        pause(this.seams(), LOOKED).await;
        let all = jobs(&this).await;
        assert_eq!(all.len(), 2, "{all:#?}");
        assert_eq!(codes(&all[1]), ["reconcile.not_seen", "point.missing"], "{all:#?}");
        assert!(!is_missing(&this, points[0].id).await && is_missing(&this, points[1].id).await);
        outside.world.faults().clear();
        pause(this.seams(), 2 * LOOKED).await;
        let all = jobs(&this).await;
        assert_eq!(all.len(), 3, "{all:#?}");
        // Still missing is what was told of before, and is named with what has changed.
        assert_eq!(codes(&all[2]), ["reconcile.differs"], "{all:#?}");
        finish(&this, &scheduler).await;
    });
}

#[test]
fn orphans_are_kept_unless_somebody_has_said_how_long() {
    let sim = sim_at(4, "2026-02-01 00:00");
    let lost = Outside::new(idle(1, 1));
    let point = sim.run(async { backed_up(&lost, &lost.process(&sim)).await });
    // Nobody knows of it any more, and nothing is written of it.
    let outside = Outside::new(lost.world.clone());
    let sim = later(5, &sim);
    let snapshots = || outside.world.snapshots().len();
    sim.run(async {
        let (this, told) = process(&outside, &sim);
        let storage = outside.world.storage_named("sim");
        let name = DocName::new(manifest::document_name(point.id)).unwrap();
        storage.delete_doc(&Cx::detached(this.seams()), &name).await.unwrap();
        let scheduler = reconciling(&this, None);
        pause(this.seams(), 30 * DAY).await;
        let all = jobs(&this).await;
        assert_eq!((all.len(), snapshots()), (1, 1), "{all:#?}");
        assert_eq!(codes(&all[0]), ["reconcile.differs"]);
        assert_eq!(told.outcomes(), [Outcome::Warnings]);
        assert_eq!(this.debris().await.unwrap().len(), 1, "it is noted");
        finish(&this, &scheduler).await;
    });
    let sim = later(6, &sim);
    sim.run(async {
        let (this, told) = process(&outside, &sim);
        let scheduler = reconciling(&this, Some(40 * DAY));
        pause(this.seams(), 8 * DAY).await;
        assert_eq!((jobs(&this).await.len(), snapshots()), (1, 1));
        pause(this.seams(), 5 * DAY).await;
        assert_eq!(snapshots(), 0);
        assert!(this.debris().await.unwrap().is_empty());
        // The deletion, and that nothing is left.
        let all = jobs(&this).await;
        assert_eq!(all.len(), 3, "{all:#?}");
        assert_eq!((codes(&all[1]), codes(&all[2])), (vec![], vec![]), "{all:#?}");
        assert_eq!(told.outcomes(), [], "nothing new to look at");
        finish(&this, &scheduler).await;
    });
}

#[test]
fn it_does_not_look_unless_it_is_to() {
    let sim = sim_at(7, "2026-02-01 00:00");
    let outside = Outside::new(idle(1, 1));
    sim.run(async {
        let (this, told) = process(&outside, &sim);
        let point = backed_up(&outside, &this).await;
        let scheduler = start(&this);
        outside.world.lose_snapshot(&point.members[0].snapshot);
        pause(this.seams(), 3 * DAY).await;
        assert_eq!((jobs(&this).await.len(), told.outcomes()), (0, vec![]));
        assert!(!is_missing(&this, point.id).await);
        finish(&this, &scheduler).await;
    });
}

#[test]
fn an_end_waits_for_no_look_and_what_it_cuts_off_is_told_by_the_next() {
    let sim = sim_at(8, "2026-02-01 00:00");
    let outside = Outside::new(idle(1, 1));
    let moment = Duration::from_secs(1);
    let slow = |call: &str| {
        outside.world.faults().on(call).inject(Fault::Slow(Duration::from_hours(2)));
    };
    let point = sim.run(async {
        let (this, _) = process(&outside, &sim);
        let point = backed_up(&outside, &this).await;
        slow("list");
        let scheduler = reconciling(&this, None);
        pause(this.seams(), Duration::from_mins(21)).await;
        let stopped = within(this.seams(), moment, scheduler.stop()).await;
        assert!(stopped.is_some() && jobs(&this).await.is_empty());
        // And now while its job is under way.
        outside.world.faults().clear();
        outside.world.lose_snapshot(&point.members[0].snapshot);
        slow("find");
        let scheduler = reconciling(&this, None);
        pause(this.seams(), Duration::from_mins(21)).await;
        let all = jobs(&this).await;
        assert!(all.len() == 1 && !all[0].state().is_final(), "{all:#?}");
        assert!(within(this.seams(), moment, scheduler.stop()).await.is_some());
        this.quiet().await;
        assert!(!is_missing(&this, point.id).await);
        point
    });
    outside.world.faults().clear();
    let sim = later(9, &sim);
    sim.run(async {
        let (this, told) = process(&outside, &sim);
        let scheduler = reconciling(&this, None);
        pause(this.seams(), Duration::from_mins(30)).await;
        assert!(is_missing(&this, point.id).await);
        assert_eq!(told.outcomes(), [Outcome::Warnings]);
        finish(&this, &scheduler).await;
    });
}

#[test]
fn schedules_are_due_while_it_looks() {
    let sim = sim_at(10, "2026-02-01 00:30");
    let outside = Outside::new(idle(1, 1));
    sim.run(async {
        let (this, _) = process(&outside, &sim);
        let _attachment = everything_by(&this, hourly("hourly")).await;
        outside.world.faults().on("list").inject(Fault::Slow(Duration::from_mins(3)));
        let mut reconciling = Reconciling::default();
        (reconciling.every, reconciling.first) = (Duration::ZERO, Duration::ZERO);
        let mut options = SchedulerOptions::default();
        options.reconciling = Some(reconciling);
        let scheduler = this.start_scheduler(options);
        pause(this.seams(), Duration::from_hours(5)).await;
        finish(&this, &scheduler).await;
        let due = due_jobs(&this).await;
        assert_eq!(due.len(), 5, "{due:#?}");
        for (due, job) in due {
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert!((job.created_at - due).num_seconds() < 5, "{due}: {job:#?}");
        }
    });
}
