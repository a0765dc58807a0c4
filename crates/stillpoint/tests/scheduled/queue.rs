//! Scenario 35, as far as the coalescing, and jobs of a schedule that are not over when it is due again.

use std::time::Duration;

use stillpoint::context::{HostPath, PathFlavor};
use stillpoint::model::group::Selector;
use stillpoint::model::job::JobState;
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::schedule::{Overrun, Why};
use stillpoint_testkit::Fault;

use crate::common::{key, request_for};
use crate::outside::{
    Outside, attach, due_jobs, due_times, everything_by, finish, hourly, idle, in_words, lapses,
    put_group, put_policy, sim_at, start, until, utc,
};

/// Scenario 35: **Backup behind restore.** Given a restore of DB1 runs, when its hourly backup fires 3 times, then one run is queued
/// (coalesced), released after the restore; DB2 is not delayed, be it on another server or on the same.
#[test]
fn s35_backup_behind_restore() {
    for (servers, databases) in [(2, 1), (1, 2)] {
        behind_restore(servers, databases);
    }
}

fn behind_restore(servers: u32, databases: u32) {
    let sim = sim_at(1, "2026-01-05 00:30");
    let outside = Outside::new(idle(servers, databases));
    sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let world = &outside.world;
        let first = this.backup(request_for("first", world, &["DB01"])).await.unwrap().wait().await;
        assert_eq!(first.state(), JobState::Succeeded, "{first:#?}");
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        let mut ids = Vec::new();
        for (number, name) in [(1, "DB01"), (2, "DB02")] {
            let members = vec![Selector::Database(world.database(name))];
            let group = put_group(&this, number, members).await;
            ids.push(attach(&this, &group, hourly(name)).await);
        }
        let scheduler = start(&this);
        until(&this, "2026-01-05 00:45").await;
        world.faults().on("restore.stage").inject(Fault::Slow(Duration::from_mins(195)));
        let folder = HostPath::new(world.hosts()[0].clone(), PathFlavor::Windows, r"R:\back");
        let target = RestoreTarget::AlternatePath(folder.unwrap());
        let restore = this.restore(RestoreRequest::new(key("back"), point, target)).await.unwrap();
        until(&this, "2026-01-05 03:30").await;
        assert_eq!(restore.job().state(), JobState::Running, "{:#?}", restore.job());
        let jobs = due_jobs(&this).await;
        let of = |group: usize| {
            let jobs = jobs.iter().filter(|(_, job)| job.group == Some(ids[group].group));
            jobs.map(|(due, job)| (due.format("%H:%M").to_string(), job.state()))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), [("01:00".to_owned(), JobState::Queued)], "one, which waits");
        let done = ["01:00", "02:00", "03:00"].map(|at| (at.to_owned(), JobState::Succeeded));
        assert_eq!(of(1), done, "the other database is not delayed");
        let found = lapses(&this, ids[0]).await;
        assert_eq!(found.len(), 2, "{found:?}");
        for lapse in &found {
            assert_eq!(lapse.why, Why::Coalesced { into: utc("2026-01-05 01:00") });
        }
        until(&this, "2026-01-05 04:30").await;
        assert_eq!(restore.wait().await.state(), JobState::Succeeded);
        finish(&this, &scheduler).await;
        for (due, job) in due_jobs(&this).await {
            assert_eq!(job.state(), JobState::Succeeded, "{due}: {job:#?}");
        }
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
