//! Scenarios 41 to 44: what clocks do, and what becomes of the time in which nobody was there.

use chrono::TimeDelta;
use stillpoint::model::group::Selector;
use stillpoint::model::job::JobState;
use stillpoint::model::policy::{LogRetention, Retention};
use stillpoint::model::schedule::{Fate, Gap, Missed, Overlap};
use stillpoint::{PruneTarget, SchedulerEvent, Stillpoint};

use crate::outside::{
    Outside, daily, due_jobs, due_times, everything_by, finish, hourly, idle, in_words, lapses,
    sim_at, start, until, utc, zone,
};

/// Scenario 41: **DST gap.** Given daily 02:00 Europe/Berlin, when the clock jumps 02:00 -> 03:00, then `ShiftForward` runs once at
/// 03:00 and Skip runs zero times with a visible reason; never lost silently.
#[test]
fn s41_dst_gap() {
    for (gap, wanted, reasons) in [
        (Gap::ShiftForward, &["03-28 01:00", "03-29 01:00", "03-30 00:00"][..], &[][..]),
        (Gap::Skip, &["03-28 01:00", "03-30 00:00"], &["03-29 01:00 to 03-29 01:00, 1: gap"]),
    ] {
        let (sim, outside) = (sim_at(1, "2026-03-27 12:00"), Outside::new(idle(1, 1)));
        sim.run(async {
            let this = outside.process(&sim);
            let mut nightly = daily("nightly", 2, 0, "Europe/Berlin");
            nightly.gap = gap;
            let id = everything_by(&this, nightly).await;
            let seen = this.preview(id.schedule, utc("2026-03-28 12:00"), 1).await.unwrap();
            let fate = if gap == Gap::Skip { Fate::SkippedGap } else { Fate::Shifted };
            assert_eq!((seen[0].attachment, &seen[0].firing.fate), (Some(id), &fate));
            let scheduler = start(&this);
            until(&this, "2026-03-30 12:00").await;
            finish(&this, &scheduler).await;
            assert_eq!(due_times(&this).await, wanted);
            let found: Vec<_> = lapses(&this, id).await.iter().map(in_words).collect();
            assert_eq!(found, reasons, "never lost silently");
        });
    }
}

/// Scenario 42: **DST overlap.** Given daily 02:30 on the day 02:30 happens twice, then First, Last or Both gives 1, 1 or 2 runs as
/// configured, with names unique in UTC; hourly schedules run 25 times that day.
#[test]
fn s42_dst_overlap() {
    for (overlap, wanted) in [
        (Overlap::First, &["10-25 00:30"][..]),
        (Overlap::Last, &["10-25 01:30"]),
        (Overlap::Both, &["10-25 00:30", "10-25 01:30"]),
    ] {
        let (sim, outside) = (sim_at(2, "2026-10-24 12:00"), Outside::new(idle(1, 1)));
        sim.run(async {
            let this = outside.process(&sim);
            let mut nightly = daily("nightly", 2, 30, "Europe/Berlin");
            nightly.overlap = overlap;
            let id = everything_by(&this, nightly).await;
            let scheduler = start(&this);
            until(&this, "2026-10-25 12:00").await;
            finish(&this, &scheduler).await;
            assert_eq!(due_times(&this).await, wanted);
            let skipped = lapses(&this, id).await;
            assert_eq!(skipped.len(), 2 - wanted.len(), "{skipped:?}");
            assert!(skipped.iter().all(|lapse| lapse.why.word() == "overlap"));
            let mut names: Vec<_> = names(&this).await;
            names.dedup();
            assert_eq!(names.len(), wanted.len(), "names are unique: {names:?}");
        });
    }
    let (sim, outside) = (sim_at(3, "2026-10-24 21:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut often = hourly("often");
        often.zone = zone("Europe/Berlin");
        everything_by(&this, often).await;
        let scheduler = start(&this);
        // The day of Berlin: from 22:00 to 23:00 of the next in UTC.
        until(&this, "2026-10-25 22:30").await;
        finish(&this, &scheduler).await;
        assert_eq!(due_times(&this).await.len(), 25);
    });
}

/// The names of all restore points, in order.
async fn names(this: &Stillpoint) -> Vec<String> {
    let topology = this.topology_of_catalog().await.unwrap();
    let points = topology.databases.iter().flat_map(|database| &database.points);
    let mut names = Vec::new();
    for point in points {
        names.push(this.point(point.point).await.unwrap().unwrap().name);
    }
    names.sort();
    names
}

/// Scenario 43: **Clock jumps back.** Given the wall clock goes back 3 h, when schedules are evaluated, then no due time fires twice,
/// freeze deadlines (monotonic) are unaffected, and `clock.regressed` is raised.
#[test]
fn s43_clock_jumps_back() {
    let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        everything_by(&this, hourly("often")).await;
        let scheduler = start(&this);
        let mut events = scheduler.watch();
        until(&this, "2026-01-05 06:01").await;
        *outside.wrong.lock().unwrap() = TimeDelta::hours(-3);
        until(&this, "2026-01-05 08:45").await;
        let status = scheduler.status();
        let regress = status.regress.expect("the clock has gone back");
        assert!(regress.latest - regress.now > TimeDelta::minutes(1), "{regress:?}");
        assert_eq!(due_jobs(&this).await.len(), 6, "nothing is due while the clock is wrong");
        // It has passed what was seen: 09:00 by the true time shows 06:00, which was, and 10:00 shows 07:00.
        until(&this, "2026-01-05 10:30").await;
        assert_eq!(scheduler.status().regress, None);
        finish(&this, &scheduler).await;
        let hours: Vec<_> = (1..=7).map(|hour| format!("01-05 0{hour}:00")).collect();
        assert_eq!(due_times(&this).await, hours, "each once");
        for (_, job) in due_jobs(&this).await {
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        }
        outside.world.assert_thawed_in_time();
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                SchedulerEvent::Regressed(_) => told.push("regressed"),
                SchedulerEvent::ClockRight => told.push("right"),
                SchedulerEvent::Stopped => break,
                _ => {}
            }
        }
        assert_eq!(told, ["regressed", "right"]);
    });
}

/// Its part of retention: by age nothing goes until the clock has passed what it has shown before.
#[test]
fn s43_retention_by_age_waits_for_the_clock() {
    let (sim, outside) = (sim_at(7, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        crate::outside::put_policy(&this).await;
        let mut policy = this.policy(crate::common::policy().id).await.unwrap().unwrap();
        let mut retention = Retention::default();
        retention.within_days = Some(1);
        policy.retention = retention;
        policy.log_retention = LogRetention::None;
        this.save_policy(&policy.edit(policy.clone()).unwrap()).await.unwrap();
        let group = crate::outside::put_group(&this, 1, vec![Selector::Everything]).await;
        crate::outside::attach(&this, &group, hourly("often")).await;
        let scheduler = start(&this);
        let count = async || this.topology().await.unwrap().databases[0].points.len();
        until(&this, "2026-01-07 06:01").await;
        let before = count().await;
        assert!((24..=26).contains(&before), "a day of hours: {before}");
        *outside.wrong.lock().unwrap() = TimeDelta::hours(-3);
        for at in ["06:30", "07:30", "08:30", "08:59"] {
            until(&this, &format!("2026-01-07 {at}")).await;
            assert!(this.retention(&PruneTarget::everything()).await.unwrap().is_empty(), "{at}");
            assert_eq!(count().await, before, "{at}");
        }
        // Once it is right again, one comes and one goes.
        until(&this, "2026-01-07 12:30").await;
        assert_eq!(count().await, before);
        finish(&this, &scheduler).await;
    });
}

/// A clock that ran ahead and was put right is believed when somebody says so; nothing that has a job gets another.
#[test]
fn s43_a_clock_that_is_believed_goes_on_from_there() {
    let (sim, outside) = (sim_at(5, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    let days = TimeDelta::days(100);
    *outside.wrong.lock().unwrap() = days;
    let at = sim.run(async {
        let this = outside.process(&sim);
        everything_by(&this, hourly("often")).await;
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:30").await;
        assert_eq!(due_times(&this).await, ["04-15 01:00", "04-15 02:00"]);
        finish(&this, &scheduler).await;
        sim.seams().clock.mono().0
    });
    // Also another process knows how far the clock had been.
    *outside.wrong.lock().unwrap() = TimeDelta::zero();
    let sim = stillpoint::workflow::testing::Sim::starting_at(6, at);
    sim.run(async {
        let this = outside.process(&sim);
        let scheduler = start(&this);
        until(&this, "2026-01-05 04:30").await;
        assert!(scheduler.status().regress.is_some());
        assert_eq!(due_jobs(&this).await.len(), 2);
        this.believe_clock().await.unwrap();
        until(&this, "2026-01-05 06:30").await;
        assert_eq!(scheduler.status().regress, None);
        finish(&this, &scheduler).await;
        let wanted = ["01-05 05:00", "01-05 06:00", "04-15 01:00", "04-15 02:00"];
        assert_eq!(due_times(&this).await, wanted);
    });
}

/// Scenario 44: **Downtime misfire.** Given the engine was down over 6 hourly due times, when it starts, then `RunOnce` makes one run,
/// Skip none, RunAll(max 3) three, each recorded.
#[test]
fn s44_downtime_misfire() {
    for (missed, wanted, reasons) in [
        (Missed::Once, &["01-05 07:00"][..], &["01-05 02:00 to 01-05 06:00, 5: missed"][..]),
        (Missed::Skip, &[], &["01-05 02:00 to 01-05 07:00, 6: missed"]),
        (
            Missed::All { most: 3 },
            &["01-05 05:00", "01-05 06:00", "01-05 07:00"],
            &["01-05 02:00 to 01-05 04:00, 3: missed"],
        ),
    ] {
        let (sim, outside) = (sim_at(7, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
        let (id, at) = sim.run(async {
            let this = outside.process(&sim);
            let mut often = hourly("often");
            often.missed = missed;
            let id = everything_by(&this, often).await;
            let scheduler = start(&this);
            until(&this, "2026-01-05 01:30").await;
            finish(&this, &scheduler).await;
            assert_eq!(due_times(&this).await, ["01-05 01:00"]);
            (id, sim.seams().clock.mono().0)
        });
        let later = stillpoint::workflow::testing::Sim::starting_at(
            8,
            at + std::time::Duration::from_hours(6),
        );
        later.run(async {
            let this = outside.process(&later);
            let scheduler = start(&this);
            until(&this, "2026-01-05 07:45").await;
            finish(&this, &scheduler).await;
            assert_eq!(due_times(&this).await[1..], *wanted, "{missed:?}");
            let found: Vec<_> = lapses(&this, id).await.iter().map(in_words).collect();
            assert_eq!(found, reasons, "{missed:?}");
            for (_, job) in due_jobs(&this).await {
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            }
        });
    }
}
