//! Jobs that were over long ago are forgotten, and nothing of what they made.

use std::time::Duration;

use stillpoint::catalog::{Catalog as _, Debris, DebrisKind};
use stillpoint::context::{HostPath, JobId, PathFlavor};
use stillpoint::model::group::Selector;
use stillpoint::model::hold::Hold;
use stillpoint::model::job::JobState;
use stillpoint::model::policy::{LogRetention, Retention};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::workflow::{EngineError, Journal as _, Seq, StreamId};
use stillpoint::{ForgetOptions, SchedulerOptions, Stillpoint};

use crate::common::{key, pause, request_for};
use crate::outside::{
    Outside, attach, daily, due_jobs, everything_by, finish, hourly, idle, lapses, put_group,
    put_policy, sim_at, start, until, utc,
};

async fn ids(this: &Stillpoint) -> Vec<JobId> {
    this.jobs().await.unwrap().iter().map(|job| job.id).collect()
}

#[test]
fn jobs_are_forgotten_with_the_records_of_their_runs() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, daily("nightly", 1, 0, "UTC")).await;
        let scheduler = start(&this);
        until(&this, "2026-01-12 02:00").await;
        finish(&this, &scheduler).await;
        let jobs = due_jobs(&this).await;
        assert_eq!(jobs.len(), 8);
        let points = this.topology().await.unwrap().databases[0].points.clone();
        let mut options = ForgetOptions::before(utc("2026-01-08 12:00"));
        // The newest stay, however old they are.
        assert_eq!(this.forget(&options).await.unwrap(), 0);
        options.newest = 5;
        options.dry_run = true;
        assert_eq!(this.forget(&options).await.unwrap(), 3);
        assert_eq!(ids(&this).await.len(), 8);
        options.dry_run = false;
        assert_eq!(this.forget(&options).await.unwrap(), 3);
        assert_eq!(this.forget(&options).await.unwrap(), 0);
        let left = due_jobs(&this).await;
        assert_eq!(left, jobs[3..]);
        for (_, job) in &jobs[..3] {
            assert!(this.job(job.id).await.unwrap().is_none());
            for run in &job.runs {
                let gone = this.engine().watch(run.run).await.unwrap_err();
                assert!(matches!(gone, EngineError::Gone), "{gone}");
                let stream = StreamId::Run(run.run);
                assert_eq!(outside.journal.head(&stream).await.unwrap(), Seq(0));
            }
        }
        // What they made is there, and can be restored.
        assert_eq!(this.topology().await.unwrap().databases[0].points, points);
        let oldest = points.last().unwrap().point;
        let folder = HostPath::new(outside.world.hosts()[0].clone(), PathFlavor::Windows, r"R:\a");
        let target = RestoreTarget::AlternatePath(folder.unwrap());
        let restore = this.restore(RestoreRequest::new(key("back"), oldest, target)).await.unwrap();
        assert_eq!(restore.wait().await.state(), JobState::Succeeded);
        // Nothing of the schedule is made up for.
        let scheduler = start(&this);
        until(&this, "2026-01-13 00:30").await;
        finish(&this, &scheduler).await;
        assert_eq!(due_jobs(&this).await, left);
        assert_eq!(lapses(&this, id).await, []);
    });
}

#[test]
fn what_is_open_or_has_left_something_behind_stays() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(2, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let world = &outside.world;
        let ended = this.backup(request_for("ended", world, &["DB01"])).await.unwrap().wait().await;
        world.faults().on("settle").nth(1).inject(stillpoint_testkit::Fault::Deaf);
        let open = this.backup(request_for("open", world, &["DB02"])).await.unwrap();
        pause(this.seams(), Duration::from_secs(20)).await;
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let mut debris = Debris::new(
            "left",
            ended.runs[0].run,
            DebrisKind::Manifest(point),
            "something",
            utc("2026-01-05 00:30"),
        );
        debris.job = Some(ended.id);
        outside.catalog.put_debris(&debris).await.unwrap();
        let mut options = ForgetOptions::before(utc("2030-01-01 00:00"));
        options.newest = 0;
        let newest = this.backup(request_for("newest", world, &["DB01"])).await.unwrap();
        newest.wait().await;
        assert_eq!(this.forget(&options).await.unwrap(), 0);
        assert_eq!(ids(&this).await.len(), 3);
        outside.catalog.remove_debris("left").await.unwrap();
        assert_eq!(this.forget(&options).await.unwrap(), 1);
        assert_eq!(this.job(open.id()).await.unwrap().unwrap().id, open.id());
        open.cancel("a test").await.unwrap();
        open.wait().await;
    });
}

/// A daemon that runs for long has the jobs of so many days, and no more than a day's beyond.
#[test]
fn a_daemon_keeps_the_jobs_of_some_days() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let mut policy = this.policy(crate::common::policy().id).await.unwrap().unwrap();
        (policy.retention, policy.log_retention) = (Retention::count(2), LogRetention::None);
        this.save_policy(&policy.edit(policy.clone()).unwrap()).await.unwrap();
        let group = put_group(&this, 1, vec![Selector::Everything]).await;
        let first = this.backup(request_for("first", &outside.world, &["DB01"])).await.unwrap();
        first.wait().await;
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let held = Hold::new(
            "case-7".parse().unwrap(),
            [point].into(),
            "a case",
            "a test",
            utc("2026-01-05 00:30"),
        );
        this.put_hold(&held).await.unwrap();
        attach(&this, &group, hourly("often")).await;
        let mut options = SchedulerOptions::default();
        options.keep_jobs = Some(Duration::from_hours(48));
        options.keep_newest = 10;
        options.beat = Duration::from_mins(30);
        let scheduler = this.start_scheduler(options);
        until(&this, "2026-01-15 00:30").await;
        finish(&this, &scheduler).await;
        let began = usize::try_from(scheduler.status().began).unwrap();
        let kept = ids(&this).await.len();
        assert_eq!(began, 240);
        assert!((48..=48 + 27).contains(&kept), "{kept} of {began}");
        let points = &this.topology().await.unwrap().databases[0].points;
        assert_eq!((points.len(), points[2].point), (3, point));
    });
}
