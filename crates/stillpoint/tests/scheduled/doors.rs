//! Scenario 37, and what is refused: rules of schedules, groups and policies.

use stillpoint::Stillpoint;
use stillpoint::context::ErrorFacts as _;
use stillpoint::model::group::{Attachment, Selector};
use stillpoint::model::id::ScheduleId;
use stillpoint::model::kind::BackupKind;
use stillpoint::model::request::Trigger;
use stillpoint::model::schedule::AttachmentId;
use stillpoint::workflow::testing::Sim;
use uuid::Uuid;

use crate::common::{policy, request};
use crate::outside::{
    Outside, daily, due_jobs, everything_by, finish, hourly, idle, put_group, put_policy, sim_at,
    start, until, utc,
};

/// Scenario 37: **Duplicate request.** Given the same idempotency key is posted twice (also concurrently, also after a restart), when
/// processed, then one run exists and both callers get its id; a different body gives `run.key_reused`.
#[test]
fn s37_duplicate_request() {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    let (job, at) = sim.run(async {
        let this = outside.process(&sim);
        put_policy(&this).await;
        let (one, two) =
            futures_util::future::join(this.backup(request("once")), this.backup(request("once")))
                .await;
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.id(), two.id());
        let job = one.wait().await;
        assert_eq!(job.runs.iter().filter(|run| !run.follow_up).count(), 1, "{job:#?}");
        (job, sim.seams().clock.mono().0)
    });
    let sim = Sim::starting_at(2, at);
    sim.run(async {
        let this = outside.process(&sim);
        let again = this.backup(request("once")).await.unwrap();
        assert_eq!(again.wait().await, job);
        let mut other = request("once");
        other.kind = Some(BackupKind::Copy);
        let error = this.backup(other).await.unwrap_err();
        assert_eq!(error.code(), "run.key_reused");
        assert_eq!(this.jobs().await.unwrap().len(), 1);
    });
}

/// Each change of a group is built on the one before it, whoever makes it.
#[test]
fn what_several_change_of_a_group_at_the_same_time_is_all_there() {
    let (sim, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let processes: Vec<_> = (0..4).map(|_| outside.process(&sim)).collect();
        let this = &processes[0];
        let first = everything_by(this, hourly("first")).await;
        let mut schedules = Vec::new();
        for number in 1..=4 {
            let schedule = hourly(&format!("often {number}"));
            schedules.push(this.create_schedule(schedule).await.unwrap().id);
        }
        let attached = processes.iter().zip(&schedules).map(|(process, schedule)| {
            process.attach(AttachmentId { schedule: *schedule, ..first })
        });
        for attached in futures_util::future::join_all(attached).await {
            attached.unwrap();
        }
        assert_eq!(this.attached().await.unwrap().len(), 5);
        let group = this.group(first.group).await.unwrap().unwrap();
        assert_eq!(group.attachments.len(), 5, "{group:?}");
        // Who has read it before cannot take that back.
        let mut stale = group.clone();
        processes[1].detach(first).await.unwrap();
        "renamed".clone_into(&mut stale.name);
        let error = this.save_group(&group.edit(stale).unwrap()).await.unwrap_err();
        assert_eq!(error.code(), "group.version_conflict");
        assert_eq!(this.attached().await.unwrap().len(), 4);
    });
}

/// V1, V2, V23, V24, and what hangs on what.
#[test]
fn what_makes_no_sense_is_refused_when_it_is_saved() {
    let (sim, outside) = (sim_at(3, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("Often")).await;
        let code = async |schedule| this.create_schedule(schedule).await.unwrap_err().code();
        assert_eq!(code(hourly("OFTEN")).await, "schedule.name_taken");
        assert_eq!(code(hourly(" ")).await, "schedule.name_invalid");
        let mut ended = daily("ended", 1, 0, "UTC");
        (ended.start, ended.end) = (Some(utc("2026-01-05 00:00")), Some(utc("2026-01-05 00:00")));
        assert_eq!(code(ended).await, "schedule.never_fires");
        let error = "Europe/Atlantis".parse::<stillpoint::model::schedule::Zone>().unwrap_err();
        assert_eq!(error.code(), "schedule.zone_unknown");

        let in_use = this.remove_policy(policy().id).await.unwrap_err();
        assert_eq!(in_use.code(), "policy.in_use");
        let in_use = this.remove_schedule(id.schedule).await.unwrap_err();
        assert_eq!(in_use.code(), "schedule.in_use");
        let stray = ScheduleId(Uuid::from_u128(99));
        let missing = this.attach(AttachmentId { schedule: stray, ..id }).await.unwrap_err();
        assert_eq!(missing.code(), "catalog.not_found");
        let mut group = put_group(&this, 2, vec![Selector::Everything]).await;
        group.policies.clear();
        group.attachments.push(Attachment { policy: policy().id, schedule: id.schedule });
        assert_eq!(this.save_group(&group).await.unwrap_err().code(), "group.policy_missing");

        this.detach(id).await.unwrap();
        this.detach(id).await.unwrap();
        assert!(this.attached().await.unwrap().is_empty());
        this.remove_schedule(id.schedule).await.unwrap();
        this.remove_group(id.group).await.unwrap();
        this.remove_group(group.id).await.unwrap();
        this.remove_policy(policy().id).await.unwrap();
        assert!(this.policies().await.unwrap().is_empty());
    });
}

/// A job says which schedule it is of, and by which version.
#[test]
fn a_job_pins_the_version_of_its_schedule() {
    let (sim, outside) = (sim_at(4, "2026-01-05 00:30"), Outside::new(idle(1, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        let id = everything_by(&this, hourly("often")).await;
        let scheduler = start(&this);
        until(&this, "2026-01-05 01:30").await;
        let renamed = this.change_schedule(id.schedule, hourly("renamed")).await.unwrap();
        assert_eq!(renamed.version.get(), 2);
        let same = this.change_schedule(id.schedule, hourly("renamed")).await.unwrap();
        assert_eq!(same, renamed, "what says the same is no version");
        until(&this, "2026-01-05 02:30").await;
        finish(&this, &scheduler).await;
        assert_eq!(pinned(&this).await, [("often".to_owned(), 1), ("renamed".to_owned(), 2)]);
    });
}

async fn pinned(this: &Stillpoint) -> Vec<(String, u32)> {
    let jobs = due_jobs(this).await.into_iter();
    let pin = |trigger| match trigger {
        Trigger::Schedule { schedule, version, .. } => Some((schedule, version.unwrap().get())),
        _ => None,
    };
    jobs.filter_map(|(_, job)| pin(job.trigger)).collect()
}
