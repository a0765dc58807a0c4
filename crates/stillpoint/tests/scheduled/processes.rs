//! Several processes on one store: each due time is one job.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint::model::job::JobState;
use stillpoint_testkit::Fault;

use crate::common::{for_seeds, pause, request};
use crate::outside::{
    Outside, due_jobs, everything_by, finish, hourly, idle, lapses, put_policy, sim_at, start,
    until,
};

#[test]
fn of_several_processes_one_makes_the_job_of_each_due_time() {
    for_seeds("scheduled", "of_several_processes_one_makes_the_job_of_each_due_time", 8, |seed| {
        let sim = sim_at(seed.seed(), "2026-01-05 00:30");
        let outside = Outside::new(idle(1, 2));
        sim.run(async {
            let processes: Vec<_> = (0..3).map(|_| outside.process(&sim)).collect();
            let id = everything_by(&processes[0], hourly("often")).await;
            let schedulers: Vec<_> = processes.iter().map(start).collect();
            until(&processes[0], "2026-01-05 12:30").await;
            for (this, scheduler) in processes.iter().zip(&schedulers) {
                finish(this, scheduler).await;
            }
            let jobs = due_jobs(&processes[0]).await;
            let mut by_due: BTreeMap<_, u32> = BTreeMap::new();
            for (due, job) in &jobs {
                *by_due.entry(*due).or_default() += 1;
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            }
            assert_eq!(by_due.len(), 12, "{by_due:?}");
            assert!(by_due.values().all(|count| *count == 1), "{by_due:?}");
            assert!(lapses(&processes[0], id).await.is_empty());
            assert_eq!(outside.world.completes().len(), 12);
        });
    });
}

/// A job is not stored at each turn of its run; the journal tells how far it has come.
#[test]
fn how_far_a_job_has_come_is_seen_by_other_processes() {
    let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let (this, other) = (outside.process(&sim), outside.process(&sim));
        put_policy(&this).await;
        outside.world.faults().on("settle").inject(Fault::Slow(Duration::from_mins(5)));
        let job = this.backup(request("night")).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        for seen in
            [other.job(job.id()).await.unwrap().unwrap(), other.jobs().await.unwrap().remove(0)]
        {
            assert_eq!(seen.state(), JobState::Running, "{seen:#?}");
            assert!(seen.runs[0].started_at.is_some(), "{seen:#?}");
        }
        job.cancel("a test").await.unwrap();
        let seen = other.job(job.id()).await.unwrap().unwrap();
        assert_eq!(seen.state(), JobState::Cancelling, "{seen:#?}");
        let ended = job.wait().await;
        assert_eq!(other.job(job.id()).await.unwrap().as_ref(), Some(&ended));
    });
}

/// One process dies between the intent of a job and the job; another one that lives makes it.
#[test]
fn a_job_that_a_dead_process_intended_is_begun_by_a_living_one() {
    use stillpoint::catalog::{ScheduleCatalog as _, Settlement};
    use stillpoint::model::schedule::{OpenDue, Timetable};
    let (sim, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("often")).await;
        let scheduler = start(&this);
        pause(this.seams(), Duration::from_mins(5)).await;
        // What the dead one has stored, before its time by the clock of the other.
        let due = crate::outside::utc("2026-01-05 01:00");
        let mut table = Timetable::new();
        table.put(hourly("often"), crate::outside::utc("2026-01-05 00:30")).unwrap();
        let fired = table.tick(due).due.remove(0);
        let entry = outside.catalog.ledger(id).await.unwrap().unwrap();
        let mut ledger = entry.ledger.clone();
        ledger.considered = due;
        ledger.open.push(OpenDue::new(&fired, "often", std::num::NonZeroU32::MIN));
        let (from, to) = (Some(entry.revision), Some(ledger));
        let settlement = Settlement { attachment: id, from, to, lapses: Vec::new() };
        outside.catalog.settle(this.seams().clock.now(), &[settlement]).await.unwrap();
        until(&this, "2026-01-05 02:30").await;
        finish(&this, &scheduler).await;
        let found: Vec<_> =
            due_jobs(&this).await.into_iter().map(|(due, job)| (due, job.state())).collect();
        let second = crate::outside::utc("2026-01-05 02:00");
        assert_eq!(found, [(due, JobState::Succeeded), (second, JobState::Succeeded)]);
    });
}
