//! What ends with its attachment: each due time that has no job by then has its reason.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stillpoint::Stillpoint;
use stillpoint::catalog::{Catalog as _, ScheduleCatalog, Settlement};
use stillpoint::model::group::ResourceGroup;
use stillpoint::model::schedule::{
    AttachmentId, Blackout, Missed, OpenDue, Overrun, Rule, Timetable, Window,
};
use stillpoint_testkit::Fault;

use crate::common::hooked::{Hooked, When};
use crate::common::{for_seeds, pause};
use crate::outside::{
    Outside, due_jobs, due_times, everything_by, finish, hourly, idle, in_words, lapses, sim_at,
    start, until, utc,
};

async fn reasons_of(this: &Stillpoint, of: AttachmentId) -> Vec<String> {
    lapses(this, of).await.iter().map(in_words).collect()
}

/// The next version of a group, on which nothing hangs.
fn without_schedules(group: &ResourceGroup) -> ResourceGroup {
    let mut bare = group.clone();
    bare.attachments.clear();
    group.edit(bare).unwrap()
}

/// Has a due time open in a ledger without a job, as a process leaves it that dies then.
async fn intend(catalog: &dyn ScheduleCatalog, of: AttachmentId, due: &str) {
    let (mut table, due) = (Timetable::new(), utc(due));
    table.put(hourly("often"), due - TimeDelta::minutes(1)).unwrap();
    let fired = table.tick(due).due.remove(0);
    let entry = catalog.ledger(of).await.unwrap().unwrap();
    let (from, mut ledger) = (Some(entry.revision), entry.ledger);
    ledger.considered = due;
    ledger.open.push(OpenDue::new(&fired, "often", NonZeroU32::MIN));
    let settlement = Settlement { attachment: of, from, to: Some(ledger), lapses: Vec::new() };
    catalog.settle(due, &[settlement]).await.unwrap();
}

#[test]
fn what_was_due_while_nobody_was_there_has_its_reason_once_it_is_detached() {
    for way in 0..3 {
        let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
        sim.run(async {
            let this = outside.process(&sim);
            let id = everything_by(&this, hourly("often")).await;
            until(&this, "2026-01-05 04:30").await;
            match way {
                0 => this.detach(id).await.unwrap(),
                1 => this.remove_group(id.group).await.unwrap(),
                _ => {
                    let group = this.group(id.group).await.unwrap().unwrap();
                    this.save_group(&without_schedules(&group)).await.unwrap();
                }
            }
            assert_eq!(outside.catalog.ledger(id).await.unwrap(), None);
            let scheduler = start(&this);
            until(&this, "2026-01-05 06:30").await;
            finish(&this, &scheduler).await;
            assert!(due_jobs(&this).await.is_empty());
            let wanted = ["01-05 01:00 to 01-05 04:00, 4: detached"];
            assert_eq!(reasons_of(&this, id).await, wanted, "way {way}");
            // Also once nobody knows any more what it was called.
            this.remove_group(id.group).await.unwrap();
            this.remove_schedule(id.schedule).await.unwrap();
            assert_eq!(reasons_of(&this, id).await, wanted, "way {way}");
        });
    }
}

#[test]
fn what_was_due_by_older_versions_has_its_reason_too_and_what_has_one_keeps_it() {
    let (sim, outside) = (sim_at(2, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut often = hourly("often");
        let (from, to) = (utc("2026-01-05 02:00"), utc("2026-01-05 03:00"));
        let window = Window::Between { from, to };
        often.blackouts.push(Blackout { name: "cut-over".into(), window });
        let id = everything_by(&this, often.clone()).await;
        until(&this, "2026-01-05 04:30").await;
        often.rule = Rule::Hourly { every: NonZeroU32::MIN, minute: 5 };
        this.change_schedule(id.schedule, often).await.unwrap();
        until(&this, "2026-01-05 06:10").await;
        this.detach(id).await.unwrap();
        let wanted = [
            "01-05 01:00 to 01-05 01:00, 1: detached",
            "01-05 02:00 to 01-05 02:00, 1: blackout",
            "01-05 03:00 to 01-05 04:00, 2: detached",
            "01-05 05:05 to 01-05 06:05, 2: detached",
        ];
        assert_eq!(reasons_of(&this, id).await, wanted);
    });
}

#[test]
fn a_due_time_whose_job_has_not_begun_has_its_reason_and_one_that_has_a_job_has_that() {
    let (sim, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut often = hourly("often");
        often.overrun = Overrun::Queue;
        let id = everything_by(&this, often).await;
        outside.world.faults().on("begin").nth(1).inject(Fault::Slow(Duration::from_hours(3)));
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:30").await;
        scheduler.stop().await;
        intend(&*outside.catalog, id, "2026-01-05 02:00").await;
        until(&this, "2026-01-05 02:30").await;
        let ledger = outside.catalog.ledger(id).await.unwrap().unwrap().ledger;
        let jobs: Vec<_> = ledger.open.iter().map(|open| open.job.is_some()).collect();
        assert_eq!(jobs, [true, false]);
        this.detach(id).await.unwrap();
        this.quiet().await;
        assert_eq!(reasons_of(&this, id).await, ["01-05 02:00 to 01-05 02:00, 1: detached"]);
        assert_eq!(due_times(&this).await, ["01-05 01:00"]);
    });
}

/// Somebody who detached a schedule died before he came to the ledger: whoever comes to it next says what became of it.
#[test]
fn who_detaches_and_dies_loses_no_due_time() {
    for way in 0..3 {
        let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
        sim.run(async {
            let this = outside.process(&sim);
            let id = everything_by(&this, hourly("often")).await;
            intend(&*outside.catalog, id, "2026-01-05 01:00").await;
            until(&this, "2026-01-05 03:30").await;
            let group = this.group(id.group).await.unwrap().unwrap();
            outside.catalog.put_group(&without_schedules(&group)).await.unwrap();
            let mut wanted = vec![
                "01-05 01:00 to 01-05 01:00, 1: detached",
                "01-05 02:00 to 01-05 03:00, 2: detached",
            ];
            let mut jobs = Vec::new();
            match way {
                // A scheduler that is started then.
                0 => {
                    let scheduler = start(&this);
                    until(&this, "2026-01-05 03:31").await;
                    finish(&this, &scheduler).await;
                }
                // Who removes the schedule.
                1 => this.remove_schedule(id.schedule).await.unwrap(),
                // Who attaches it again: what was to begin by then is begun.
                _ => {
                    this.attach(id).await.unwrap();
                    let scheduler = start(&this);
                    until(&this, "2026-01-05 04:30").await;
                    finish(&this, &scheduler).await;
                    wanted.remove(0);
                    jobs = vec!["01-05 01:00", "01-05 04:00"];
                }
            }
            assert_eq!(reasons_of(&this, id).await, wanted, "way {way}");
            assert_eq!(due_times(&this).await, jobs, "way {way}");
        });
    }
}

#[test]
fn what_had_a_reason_before_it_was_detached_keeps_it() {
    let (sim, outside) = (sim_at(5, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut often = hourly("often");
        often.missed = Missed::Skip;
        let id = everything_by(&this, often).await;
        until(&this, "2026-01-05 02:30").await;
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:40").await;
        finish(&this, &scheduler).await;
        let mut wanted = vec!["01-05 01:00 to 01-05 02:00, 2: missed"];
        assert_eq!(reasons_of(&this, id).await, wanted);
        until(&this, "2026-01-05 03:30").await;
        this.detach(id).await.unwrap();
        wanted.push("01-05 03:00 to 01-05 03:00, 1: detached");
        assert_eq!(reasons_of(&this, id).await, wanted);
        // Nothing is due while it is not attached, and what is noted later follows.
        until(&this, "2026-01-05 05:30").await;
        this.attach(id).await.unwrap();
        until(&this, "2026-01-05 06:30").await;
        this.detach(id).await.unwrap();
        wanted.push("01-05 06:00 to 01-05 06:00, 1: detached");
        assert_eq!(reasons_of(&this, id).await, wanted);
    });
}

/// Of a process that begins a due time and one that detaches it at the same time, one has it.
#[test]
fn a_due_time_that_is_begun_while_it_is_detached_is_a_job_or_a_reason() {
    let name = "a_due_time_that_is_begun_while_it_is_detached_is_a_job_or_a_reason";
    let (jobs, reasons) = (Cell::new(0), Cell::new(0));
    for_seeds("scheduled", name, 60, |seed| {
        let sim = sim_at(seed.seed(), "2026-01-05 00:30");
        let outside = Outside::new(idle(1, 1));
        let seams = sim.seams();
        // Each call takes its time, so that others come between.
        let catalog = Hooked::new(move |_, when| {
            let seams = seams.clone();
            (when == When::Before).then(|| {
                let time = Duration::from_micros(u64::from(seams.ids.uuid().as_bytes()[0]) * 20);
                Box::pin(async move { pause(&seams, time).await }) as _
            })
        });
        sim.run(async {
            let process =
                || outside.builder(&sim).catalog(Arc::clone(&catalog) as _).build().unwrap();
            let (this, others) = (process(), [process(), process()]);
            let id = everything_by(&this, hourly("often")).await;
            let schedulers: Vec<_> = others.iter().map(start).collect();
            until(&this, "2026-01-05 01:00").await;
            pause(this.seams(), Duration::from_micros(seed.seed() * 1009 % 60_000)).await;
            if seed.seed().is_multiple_of(2) {
                this.detach(id).await.unwrap();
            } else {
                this.remove_group(id.group).await.unwrap();
            }
            until(&this, "2026-01-05 02:30").await;
            for (other, scheduler) in others.iter().zip(&schedulers) {
                finish(other, scheduler).await;
            }
            let (due, why) = (due_times(&this).await, reasons_of(&this, id).await);
            assert_eq!(due.len() + why.len(), 1, "{due:?}, {why:?}");
            let only = due.iter().chain(&why).all(|text| text.starts_with("01-05 01:00"));
            assert!(only, "{due:?}, {why:?}");
            assert_eq!(catalog.ledger(id).await.unwrap(), None);
            jobs.set(jobs.get() + due.len());
            reasons.set(reasons.get() + why.len());
        });
    });
    let either = jobs.get() > 0 && reasons.get() > 0;
    assert!(either || std::env::var_os("SIM_SEED").is_some(), "{jobs:?} jobs, {reasons:?} reasons");
}
