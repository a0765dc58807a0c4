//! Schedules that are made, changed and taken away while a scheduler is at work, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stillpoint::SchedulerEvent;
use stillpoint::model::group::Selector;
use stillpoint::model::id::PolicyId;
use stillpoint::model::job::JobState;
use stillpoint::model::policy::{Retention, Verification};
use stillpoint::model::schedule::{AttachmentId, Blackout, Rule, Why, Window};
use stillpoint_testkit::Fault;
use uuid::Uuid;

use crate::common::hooked::Hooked;
use crate::common::{pause, policy};
use crate::outside::{
    Outside, attach, daily, due_jobs, due_times, everything_by, finish, hourly, idle, in_words,
    lapses, put_group, put_policy, sim_at, start, until, utc,
};

#[test]
fn what_is_added_changed_and_detached_while_it_works_counts_from_then_on() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:10").await;
        assert_eq!(scheduler.status().attachments, 0);
        let id = everything_by(&this, hourly("often")).await;
        until(&this, "2026-01-05 02:10").await;
        assert_eq!(due_times(&this).await, ["01-05 02:00"], "not before it was there");
        assert_eq!(scheduler.status().next, Some(utc("2026-01-05 03:00")));
        // Another minute of the hour, from now on.
        let mut other = hourly("often");
        other.rule = Rule::Hourly { every: std::num::NonZeroU32::MIN, minute: 5 };
        this.change_schedule(id.schedule, other).await.unwrap();
        scheduler.nudge();
        until(&this, "2026-01-05 03:10").await;
        assert_eq!(due_times(&this).await, ["01-05 02:00", "01-05 03:05"]);
        this.detach(id).await.unwrap();
        until(&this, "2026-01-05 05:10").await;
        assert_eq!(due_times(&this).await.len(), 2);
        // What is attached again makes up for nothing of the time between.
        this.attach(id).await.unwrap();
        until(&this, "2026-01-05 06:10").await;
        finish(&this, &scheduler).await;
        assert_eq!(due_times(&this).await, ["01-05 02:00", "01-05 03:05", "01-05 06:05"]);
    });
}

/// What was due before a change is due by the version before, also if nobody was there.
#[test]
fn a_change_while_nobody_was_there_loses_nothing_that_was_due_before() {
    let (sim, outside) = (sim_at(2, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, daily("nightly", 2, 0, "UTC")).await;
        until(&this, "2026-01-05 10:00").await;
        this.change_schedule(id.schedule, daily("nightly", 9, 0, "UTC")).await.unwrap();
        until(&this, "2026-01-05 20:00").await;
        let scheduler = start(&this);
        until(&this, "2026-01-06 10:00").await;
        finish(&this, &scheduler).await;
        // The nine o'clock of the day of the change was before the change.
        assert_eq!(due_times(&this).await, ["01-05 02:00", "01-06 09:00"]);
        assert!(lapses(&this, id).await.is_empty());
    });
}

/// Before a schedule is changed it is asked what there is, which may take its time; the version before is in force until then.
#[test]
fn a_change_counts_from_when_it_is_made_and_not_from_when_it_is_asked_for() {
    let (sim, outside) = (sim_at(8, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("often")).await;
        let mut counted = policy();
        (counted.verification, counted.retention) = (Verification::None, Retention::count(7));
        this.save_policy(&policy().edit(counted).unwrap()).await.unwrap();
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:58").await;
        let mut other = hourly("often");
        other.rule = Rule::Hourly { every: std::num::NonZeroU32::MIN, minute: 59 };
        outside.world.faults().on("inventory").nth(1).inject(Fault::Slow(Duration::from_mins(3)));
        let changed = this.change_schedule(id.schedule, other).await.unwrap();
        assert!(changed.since > utc("2026-01-05 02:00"), "{changed:?}");
        until(&this, "2026-01-05 03:10").await;
        finish(&this, &scheduler).await;
        // Of each version what was due while it was in force, and nothing is left open.
        assert_eq!(due_times(&this).await, ["01-05 01:00", "01-05 02:00", "01-05 02:59"]);
        assert!(lapses(&this, id).await.is_empty());
    });
}

#[test]
fn nothing_is_due_in_a_blackout_and_the_reason_is_kept() {
    let (sim, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut often = hourly("often");
        let (from, to) = (utc("2026-01-05 02:00"), utc("2026-01-05 04:00"));
        let name = "cut-over".to_owned();
        often.blackouts.push(Blackout { name, window: Window::Between { from, to } });
        let id = everything_by(&this, often).await;
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:30").await;
        let found: Vec<_> = lapses(&this, id).await.iter().map(in_words).collect();
        assert_eq!(found, ["01-05 02:00 to 01-05 02:00, 1: blackout"], "as soon as it is");
        until(&this, "2026-01-05 04:30").await;
        finish(&this, &scheduler).await;
        assert_eq!(due_times(&this).await, ["01-05 01:00", "01-05 04:00"]);
        let why: Vec<_> = lapses(&this, id).await.iter().map(|l| l.why.to_string()).collect();
        assert_eq!(why, [r#"skipped: blackout "cut-over""#; 2]);
    });
}

#[test]
fn after_a_stop_no_job_begins_and_those_under_way_go_on() {
    let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        everything_by(&this, hourly("often")).await;
        outside.world.faults().on("begin").nth(1).inject(Fault::Slow(Duration::from_mins(3)));
        let scheduler = start(&this);
        let mut events = scheduler.watch();
        until(&this, "2026-01-05 01:01").await;
        scheduler.stop().await;
        assert!(scheduler.status().is_stopped);
        let job = due_jobs(&this).await.remove(0).1;
        assert_eq!(job.state(), JobState::Running, "{job:#?}");
        this.quiet().await;
        let job = this.job(job.id).await.unwrap().unwrap();
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        pause(this.seams(), Duration::from_hours(5)).await;
        assert_eq!(due_jobs(&this).await.len(), 1);
        let mut count = 0;
        while let Some(event) = events.next().await {
            count += usize::from(matches!(event, SchedulerEvent::Began { .. }));
        }
        assert_eq!(count, 1);
    });
}

/// A policy that went away between attachment and due time, past every rule.
#[test]
fn a_due_time_whose_job_cannot_be_made_has_its_reason() {
    let (sim, outside) = (sim_at(5, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        use stillpoint::catalog::Catalog as _;
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("often")).await;
        let mut group = this.group(id.group).await.unwrap().unwrap();
        group.policies.clear();
        group.version = group.version.saturating_add(1);
        outside.catalog.put_group(&group).await.unwrap();
        outside.catalog.remove_policy(id.policy).await.unwrap();
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:30").await;
        finish(&this, &scheduler).await;
        assert!(due_jobs(&this).await.is_empty());
        let found = lapses(&this, id).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let Why::Refused { failure } = &found[0].why else { panic!("{found:?}") };
        assert_eq!(failure.code, "not_found");
    });
}

/// A policy that is damaged in the store, say: nobody knows whether it can be read later.
#[test]
fn a_schedule_whose_job_cannot_be_begun_keeps_no_other_one_from_its_time() {
    let (sim, outside) = (sim_at(7, "2026-01-05 00:30"), Outside::new(idle(1, 2)));
    let catalog = Hooked::new(|_, _| None);
    sim.run(async {
        let this = outside.builder(&sim).catalog(Arc::clone(&catalog) as _).build().unwrap();
        put_policy(&this).await;
        let mut other = policy();
        (other.id, other.name) = (PolicyId(Uuid::from_u128(2)), "other".to_owned());
        other.verification = Verification::None;
        this.save_policy(&other).await.unwrap();
        let member = |name| vec![Selector::Database(outside.world.database(name))];
        let group = put_group(&this, 1, member("DB01")).await;
        attach(&this, &group, hourly("good")).await;
        let bad = put_group(&this, 2, member("DB02")).await;
        this.change_group(bad.id, |bad| bad.policies.push(other.id)).await.unwrap();
        let schedule = this.create_schedule(daily("bad", 0, 45, "UTC")).await.unwrap().id;
        let id = AttachmentId { schedule, group: bad.id, policy: other.id };
        this.attach(id).await.unwrap();
        catalog.make_unreadable(Some(other.id));
        let scheduler = start(&this);
        until(&this, "2026-01-05 04:30").await;
        let hours = ["01-05 01:00", "01-05 02:00", "01-05 03:00", "01-05 04:00"];
        assert_eq!(due_times(&this).await, hours);
        let failure = scheduler.status().failure.unwrap();
        assert_eq!(failure.code, "state.unavailable");
        // What could not be begun is not lost.
        catalog.make_unreadable(None);
        until(&this, "2026-01-05 04:45").await;
        finish(&this, &scheduler).await;
        assert_eq!(due_times(&this).await[0], "01-05 00:45");
        assert!(lapses(&this, id).await.is_empty());
        assert_eq!(scheduler.status().failure, None);
    });
}

/// Somebody who detached a schedule, or removed its group, died before he came to the ledger.
#[test]
fn what_hung_on_a_group_that_is_gone_is_forgotten() {
    let (sim, outside) = (sim_at(5, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        use stillpoint::catalog::{Catalog as _, ScheduleCatalog as _};
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("often")).await;
        outside.catalog.remove_group(id.group).await.unwrap();
        assert_eq!(outside.catalog.ledgers().await.unwrap().len(), 1);
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:30").await;
        finish(&this, &scheduler).await;
        assert!(due_jobs(&this).await.is_empty());
        assert!(outside.catalog.ledgers().await.unwrap().is_empty());
    });
}

/// Jitter spreads what one schedule asks of many groups, and is the same for everybody.
#[test]
fn what_one_schedule_asks_of_many_groups_is_spread_by_its_jitter() {
    let (sim, outside) = (sim_at(6, "2026-01-05 00:30"), Outside::new(idle(3, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let mut nightly = daily("nightly", 1, 0, "UTC");
        nightly.jitter = Duration::from_mins(30);
        let first = everything_by(&this, nightly).await;
        for number in 2..=3 {
            let database = outside.world.database(&format!("DB0{number}"));
            let group = put_group(&this, number, vec![Selector::Database(database)]).await;
            let id = AttachmentId { group: group.id, ..first };
            this.attach(id).await.unwrap();
        }
        let seen = this.preview(first.schedule, utc("2026-01-05 00:30"), 3).await.unwrap();
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:00").await;
        finish(&this, &scheduler).await;
        let mut begun: Vec<_> =
            due_jobs(&this).await.into_iter().map(|(_, job)| (job.created_at, job.group)).collect();
        begun.sort();
        assert_eq!(begun.len(), 3);
        for ((at, group), seen) in begun.iter().zip(&seen) {
            assert_eq!(*group, seen.attachment.map(|id| id.group));
            let late = *at - seen.firing.at;
            assert!(late >= TimeDelta::zero() && late < TimeDelta::seconds(1), "{late}");
        }
        assert_ne!(begun[0].0, begun[2].0);
    });
}
