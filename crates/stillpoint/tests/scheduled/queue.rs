//! Scenario 35, as far as the coalescing, and jobs of a schedule that are not over when it is due again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::SchedulerEvent;
use stillpoint::context::{HostPath, PathFlavor, Subject};
use stillpoint::model::group::Selector;
use stillpoint::model::job::{Elsewhere, Job, JobState, MemberEnd};
use stillpoint::model::policy::{LogRetention, Retention};
use stillpoint::model::request::{BackupRequest, Trigger};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::schedule::{Overrun, Why};
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{Fault, Trouble};

use crate::common::hooked::Hooked;
use crate::common::{key, request_for};
use crate::outside::{
    Outside, attach, daily, due_jobs, due_times, everything_by, finish, hourly, idle, in_words,
    lapses, put_group, put_policy, sim_at, start, until, utc,
};

/// Scenario 35: **Backup behind restore.** Given a restore of DB1 runs, when its hourly backup fires 3 times, then one run is queued
/// (coalesced), released after the restore; DB2 is not delayed, be it on another server or on the same, in a group of its own or with
/// DB1.
#[test]
fn s35_backup_behind_restore() {
    for (servers, databases) in [(2, 1), (1, 2)] {
        for groups in [Groups::OfOne, Groups::OfBoth] {
            behind_restore(servers, databases, groups, false);
            behind_restore(servers, databases, groups, true);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Groups {
    /// Each database has a group and a schedule of its own.
    OfOne,
    /// Both are in one group.
    OfBoth,
}

/// DB01 is restored from 00:45 to 03:45, and backed up by the hour, as DB02 is.
fn behind_restore(servers: u32, databases: u32, groups: Groups, in_place: bool) {
    let sim = sim_at(1, "2026-01-05 00:30");
    let outside = Outside::new(idle(servers, databases));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let world = &outside.world;
        let first = this.backup(request_for("first", world, &["DB01"])).await.unwrap().wait().await;
        assert_eq!(first.state(), JobState::Succeeded, "{first:#?}");
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let member = |name: &str| Selector::Database(world.database(name));
        let mut ids = Vec::new();
        if groups == Groups::OfBoth {
            let group = put_group(&this, 1, vec![member("DB01"), member("DB02")]).await;
            ids.push(attach(&this, &group, hourly("both")).await);
        } else {
            for (number, name) in [(1, "DB01"), (2, "DB02")] {
                let group = put_group(&this, number, vec![member(name)]).await;
                ids.push(attach(&this, &group, hourly(name)).await);
            }
        }
        let scheduler = start(&this);
        until(&this, "2026-01-05 00:45").await;
        world.faults().on("restore.stage").inject(Fault::Slow(Duration::from_hours(3)));
        let folder = HostPath::new(world.hosts()[0].clone(), PathFlavor::Windows, r"R:\back");
        let target = if in_place {
            RestoreTarget::InPlace
        } else {
            RestoreTarget::AlternatePath(folder.unwrap())
        };
        let restore = this.restore(RestoreRequest::new(key("back"), point, target)).await.unwrap();
        until(&this, "2026-01-05 03:30").await;
        assert_eq!(restore.job().state(), JobState::Running, "{:#?}", restore.job());
        // DB02 was backed up at each time, DB01 waits in one job.
        let jobs = due_jobs(&this).await;
        let at = |due: &chrono::DateTime<chrono::Utc>| due.format("%H:%M").to_string();
        let has = |job: &Job, name: &str| {
            let runs = job.runs.iter().filter(|run| !run.follow_up);
            let mut members = runs.flat_map(|run| &run.members);
            members.find(|member| member.name == name).map(|member| member.end.is_some())
        };
        let of = |name: &str| {
            let jobs = jobs.iter().filter_map(|(due, job)| Some((at(due), has(job, name)?)));
            jobs.collect::<Vec<_>>()
        };
        let done = ["01:00", "02:00", "03:00"].map(|at| (at.to_owned(), true));
        assert_eq!(of("DB02"), done, "the other database is not delayed: {jobs:#?}");
        let first = &jobs[0].1;
        assert!(!first.state().is_final(), "{first:#?}");
        if groups == Groups::OfBoth {
            assert_eq!(lapses(&this, ids[0]).await, [], "each time has a job");
            for (due, job) in &jobs[1..] {
                assert_eq!(job.state(), JobState::Succeeded, "{due}: {job:#?}");
                let left: Vec<_> = job.coalesced.iter().map(|db| (&*db.name, db.job)).collect();
                assert_eq!(left, [("DB01", first.id)], "{due}");
            }
        } else {
            assert_eq!(first.state(), JobState::Queued);
            let found = lapses(&this, ids[0]).await;
            assert_eq!(found.len(), 2, "{found:?}");
            for lapse in &found {
                assert_eq!(lapse.why, Why::Coalesced { into: utc("2026-01-05 01:00") });
            }
        }
        // What is dismounted cannot be planned, and what would be in one set with others is left out of it. Else it waits in line.
        let held: Vec<_> = first.held.iter().map(|db| (&*db.name, db.job)).collect();
        if in_place || (servers == 1 && groups == Groups::OfBoth) {
            assert_eq!((held.as_slice(), of("DB01")), (&[("DB01", restore.id())][..], vec![]));
        } else {
            assert_eq!((held.len(), of("DB01")), (0, vec![("01:00".to_owned(), false)]));
        }
        until(&this, "2026-01-05 04:30").await;
        assert_eq!(restore.wait().await.state(), JobState::Succeeded);
        finish(&this, &scheduler).await;
        let mut points = BTreeMap::new();
        for (due, job) in due_jobs(&this).await {
            assert_eq!(job.state(), JobState::Succeeded, "{due}: {job:#?}");
            assert_eq!(job.held, [], "{due}");
            for member in job.members() {
                points.entry(member.name.clone()).or_insert_with(Vec::new).push(at(&due));
            }
        }
        assert_eq!(points["DB01"], ["01:00", "04:00"], "once behind the restore");
        assert_eq!(points["DB02"], ["01:00", "02:00", "03:00", "04:00"]);
    });
}

/// The process of a job dies while one of its databases waits for a restore: what was done is done, and that one is said to be
/// left out.
#[test]
fn what_waited_for_a_restore_is_told_when_its_process_died() {
    let (first, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 2)));
    let restore = first.run(async {
        let this = outside.process(&first);
        let world = &outside.world;
        everything_by(&this, daily("nightly", 1, 0, "UTC")).await;
        this.backup(request_for("first", world, &["DB01"])).await.unwrap().wait().await;
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let _scheduler = start(&this);
        until(&this, "2026-01-05 00:45").await;
        world.faults().on("restore.stage").inject(Fault::Slow(Duration::from_hours(3)));
        let restore = RestoreRequest::new(key("back"), point, RestoreTarget::InPlace);
        let restore = this.restore(restore).await.unwrap();
        until(&this, "2026-01-05 01:30").await;
        restore.id()
    });
    // What others see of it meanwhile.
    let second = Sim::starting_at(4, first.seams().clock.mono().0);
    second.run(async {
        let this = outside.process(&second);
        let (_, job) = due_jobs(&this).await.remove(0);
        assert_eq!(job.held.iter().map(|db| db.job).collect::<Vec<_>>(), [restore], "{job:#?}");
        until(&this, "2026-01-05 02:00").await;
        let scheduler = start(&this);
        until(&this, "2026-01-05 06:00").await;
        finish(&this, &scheduler).await;
        let (_, job) = due_jobs(&this).await.remove(0);
        assert_eq!((job.state(), job.tally()), (JobState::SucceededWithWarnings, (1, 2)));
        assert_eq!((job.held.len(), job.skipped.len()), (0, 1), "{job:#?}");
        let Some(MemberEnd::Skipped { failure }) = &job.skipped[0].end else {
            panic!("{job:#?}");
        };
        assert_eq!((&*job.skipped[0].name, failure.code.as_str()), ("DB01", "job.interrupted"));
    });
}

/// A job that waits for a restore that needs a person is not waited for when the daemon ends.
#[test]
fn what_waits_for_a_parked_restore_keeps_no_daemon_from_ending() {
    let (sim, outside) = (sim_at(5, "2026-01-05 00:30"), Outside::new(idle(1, 2)));
    sim.run(async {
        let this = outside.process(&sim);
        let world = &outside.world;
        everything_by(&this, daily("nightly", 1, 0, "UTC")).await;
        this.backup(request_for("first", world, &["DB01"])).await.unwrap().wait().await;
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let scheduler = start(&this);
        until(&this, "2026-01-05 00:45").await;
        // Past its point of no return.
        world.faults().on("restore.settle").inject(Fault::fail(Trouble::timed_out()));
        let restore = RestoreRequest::new(key("back"), point, RestoreTarget::InPlace);
        let restore = this.restore(restore).await.unwrap();
        until(&this, "2026-01-05 03:00").await;
        assert_eq!(restore.job().state(), JobState::Parked, "{:#?}", restore.job());
        let (_, job) = due_jobs(&this).await.remove(0);
        assert_eq!((job.state(), job.held.len()), (JobState::Running, 1), "{job:#?}");
        scheduler.stop().await;
        let ends = crate::common::within(this.seams(), Duration::from_mins(1), this.quiet()).await;
        assert!(ends.is_some());
    });
}

/// A job of which other jobs have everything has nothing to do, and nothing to warn of.
#[test]
fn a_job_that_leaves_all_to_others_succeeds() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let database = outside.world.database("DB01");
        let group = put_group(&this, 1, vec![Selector::Database(database)]).await;
        let other = stillpoint::context::JobId(uuid::Uuid::from_u128(9));
        let left = vec![Elsewhere::new(database, "DB01", other)];
        let (policy, trigger) = (crate::common::policy().id, Trigger::Api);
        let request = BackupRequest::scheduled(key("all"), group.id, policy, trigger, left.clone());
        assert!(this.plan(&request).await.unwrap().is_empty());
        let job = this.backup(request).await.unwrap().wait().await;
        assert_eq!(
            (job.state(), job.tally(), &job.coalesced),
            (JobState::Succeeded, (0, 0), &left)
        );
        assert!(job.runs.is_empty() && job.warnings.is_empty(), "{job:#?}");
    });
}

/// That Exchange says that a database is being backed up is a warning only if it is not by us.
#[test]
fn a_backup_of_ours_is_no_warning_of_the_next_one() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        everything_by(&this, hourly("often")).await;
        outside.world.faults().on("settle").nth(1).inject(Fault::Slow(Duration::from_mins(20)));
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:05").await;
        let seen = this.discover().await.unwrap().inventory;
        assert!(seen.databases.values().all(|database| database.backup_in_progress));
        let next = this.backup(request_for("next", &outside.world, &["DB01"])).await.unwrap();
        let next = next.wait().await;
        assert_eq!((next.state(), next.warnings.len()), (JobState::Succeeded, 0), "{next:#?}");
        finish(&this, &scheduler).await;
    });
}

/// What comes due by itself is deleted by itself: nobody is there to ask for it.
#[test]
fn a_scheduled_backup_prunes_what_its_policy_lets_go() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 2)));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let mut policy = this.policy(crate::common::policy().id).await.unwrap().unwrap();
        policy.retention = Retention::count(2);
        policy.log_retention = LogRetention::None;
        this.save_policy(&policy.edit(policy.clone()).unwrap()).await.unwrap();
        let group = put_group(&this, 1, vec![Selector::Everything]).await;
        attach(&this, &group, daily("nightly", 1, 0, "UTC")).await;
        let scheduler = start(&this);
        until(&this, "2026-01-10 02:00").await;
        finish(&this, &scheduler).await;
        let jobs = due_jobs(&this).await;
        assert_eq!(jobs.len(), 6);
        for (due, job) in &jobs {
            assert_eq!(job.state(), JobState::Succeeded, "{due}: {job:#?}");
        }
        for database in &this.topology().await.unwrap().databases {
            assert_eq!(database.points.len(), 2, "{database:#?}");
        }
        assert_eq!(outside.world.snapshots().len(), 4);
    });
}

/// A job that takes longer than the time between two firings: what its schedule says of those that come due meanwhile.
#[test]
fn a_job_that_is_not_over_when_it_is_due_again() {
    for (overrun, wanted, reasons) in [
        (Overrun::Queue, &["01:00", "02:00", "03:00", "04:00", "05:00"][..], &[][..]),
        (
            Overrun::Coalesce,
            &["01:00", "02:00", "05:00"],
            &[
                "01-05 03:00 to 01-05 03:00, 1: coalesced",
                "01-05 04:00 to 01-05 04:00, 1: coalesced",
            ],
        ),
        (
            Overrun::Skip,
            &["01:00", "05:00"],
            &[
                "01-05 02:00 to 01-05 02:00, 1: overrun",
                "01-05 03:00 to 01-05 03:00, 1: overrun",
                "01-05 04:00 to 01-05 04:00, 1: overrun",
            ],
        ),
    ] {
        let (sim, outside) = (sim_at(2, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
        let slow = Fault::Slow(Duration::from_mins(200));
        sim.run(async {
            let this = outside.process(&sim);
            let mut often = hourly("often");
            often.overrun = overrun;
            let id = everything_by(&this, often).await;
            outside.world.faults().on("begin").nth(1).inject(slow.clone());
            // Longer than a session usually takes to begin.
            let scheduler = start(&this);
            until(&this, "2026-01-05 05:30").await;
            finish(&this, &scheduler).await;
            let due: Vec<_> = due_times(&this).await;
            let wanted: Vec<_> = wanted.iter().map(|at| format!("01-05 {at}")).collect();
            assert_eq!(due, wanted, "{overrun:?}");
            let found: Vec<_> = lapses(&this, id).await.iter().map(in_words).collect();
            assert_eq!(found, reasons, "{overrun:?}");
        });
    }
}

/// A job whose row in the store is damaged: nobody knows whether it is over.
#[test]
fn a_job_that_cannot_be_read_keeps_no_other_schedule_from_its_time() {
    let all = ["01-05 01:00", "01-05 02:00", "01-05 03:00", "01-05 04:00"];
    for (overrun, wanted, reasons) in [
        (Overrun::Queue, &all[..], &[][..]),
        // What may be at work is not one with what comes after it.
        (Overrun::Coalesce, &all, &[]),
        (
            Overrun::Skip,
            &["01-05 01:00", "01-05 04:00"],
            &["01-05 02:00 to 01-05 02:00, 1: overrun", "01-05 03:00 to 01-05 03:00, 1: overrun"],
        ),
    ] {
        let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(2, 1)));
        let catalog = Hooked::new(|_, _| None);
        sim.run(async {
            let this = outside.builder(&sim).catalog(Arc::clone(&catalog) as _).build().unwrap();
            put_policy(&this).await;
            let member = |name| vec![Selector::Database(outside.world.database(name))];
            let (bad, good) = (
                put_group(&this, 1, member("DB01")).await,
                put_group(&this, 2, member("DB02")).await,
            );
            let mut ids = Vec::new();
            for (group, name) in [(&bad, "bad"), (&good, "good")] {
                let mut often = hourly(name);
                often.overrun = overrun;
                ids.push(attach(&this, group, often).await);
            }
            let due_of = async |group| {
                let jobs =
                    due_jobs(&this).await.into_iter().filter(|(_, job)| job.group == Some(group));
                jobs.map(|(due, _)| due.format("%m-%d %H:%M").to_string()).collect::<Vec<_>>()
            };
            let scheduler = start(&this);
            let mut events = scheduler.watch();
            until(&this, "2026-01-05 01:30").await;
            let first =
                due_jobs(&this).await.into_iter().find(|(_, job)| job.group == Some(bad.id));
            let first = first.unwrap().1.id;
            catalog.damage(Some(first));
            until(&this, "2026-01-05 03:30").await;
            catalog.damage(None);
            assert_eq!(due_of(good.id).await, all[..3], "{overrun:?}");
            until(&this, "2026-01-05 04:30").await;
            finish(&this, &scheduler).await;
            assert_eq!(due_of(good.id).await, all, "{overrun:?}");
            assert_eq!(due_of(bad.id).await, wanted, "{overrun:?}");
            let found: Vec<_> = lapses(&this, ids[0]).await.iter().map(in_words).collect();
            assert_eq!(found, reasons, "{overrun:?}");
            assert!(lapses(&this, ids[1]).await.is_empty(), "{overrun:?}");
            let mut failures = Vec::new();
            while let Some(event) = events.next().await {
                if let SchedulerEvent::Failed(failure) = event {
                    failures.push(failure);
                }
            }
            assert_eq!(failures.len(), 2, "once each time that it was asked for: {failures:#?}");
            for failure in failures {
                assert_eq!(failure.code, "state.corrupt");
                assert!(failure.subjects.contains(&Subject::new("job", first)), "{failure:#?}");
            }
        });
    }
}
