//! What is refused when it is saved, and what the linter says of what is there.

use std::time::Duration;

use stillpoint::context::ErrorFacts;
use stillpoint::model::group::{Attachment, ResourceGroup, Selector};
use stillpoint::model::id::{GroupId, ScheduleId, VolumeRef};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::planning::PlanError;
use stillpoint::model::policy::{LogRetention, Policy, Retention};
use stillpoint::model::schedule::{AttachmentId, Rule, Schedule, StoredSchedule, Zone};
use stillpoint::model::strategy::{Assumptions, Severity};
use stillpoint::model::window::Why;
use stillpoint::workflow::testing::Sim;
use stillpoint::{Draft, Error, LintReport};
use stillpoint_testkit::{Fault, Trouble};
use uuid::Uuid;

use crate::site::{Site, policy};

fn daily() -> Rule {
    Rule::Daily { at: chrono::NaiveTime::from_hms_opt(2, 30, 0).unwrap() }
}

fn hourly() -> Rule {
    Rule::Hourly { every: std::num::NonZeroU32::MIN, minute: 15 }
}

/// Hourly log backups that are kept for so many days.
fn log_policy(days: u32) -> Policy {
    let mut retention = Retention::default();
    retention.within_days = Some(days);
    let mut logs = policy(2, "logs", retention);
    (logs.kind, logs.log_retention) = (BackupKind::Log, LogRetention::Days(days));
    logs
}

impl Site {
    async fn schedule(&self, name: &str, rule: Rule) -> StoredSchedule {
        self.this.create_schedule(Schedule::new(name, rule, Zone::UTC)).await.unwrap()
    }

    async fn linted(&self) -> LintReport {
        self.this.lint(Assumptions::default()).await.unwrap()
    }

    async fn codes(&self) -> Vec<String> {
        let report = self.linted().await;
        report.findings.iter().map(|finding| finding.code.to_string()).collect()
    }
}

/// A group of everything with policies, each on a schedule.
fn group(hung: &[(&Policy, &StoredSchedule)]) -> ResourceGroup {
    let mut group =
        ResourceGroup::new(GroupId(Uuid::from_u128(9)), "mail", vec![Selector::Everything]);
    for (policy, schedule) in hung {
        group.policies.push(policy.id);
        group.attachments.push(Attachment { policy: policy.id, schedule: schedule.id });
    }
    group
}

/// The volume, the need and the limit of a refusal.
fn exceeded(error: &Error) -> (VolumeRef, u32, u32) {
    assert_eq!(error.code(), "retention.snapshot_budget_exceeded", "{error}");
    match error {
        Error::Plan(PlanError::BudgetExceeded { volume, need, limit, .. }) => {
            (volume.clone(), *need, *limit)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn s31_budget_at_save_time() {
    let sim = Sim::new(31);
    sim.run(async {
        let site = Site::with_limit(&sim, Some(1023));
        let (fulls, logs) = (policy(1, "daily", Retention::count(600)), log_policy(20));
        site.save(&[&fulls, &logs]).await;
        let nightly = site.schedule("nightly", daily()).await;
        let often = site.schedule("often", hourly()).await;
        let both = group(&[(&fulls, &nightly), (&logs, &often)]);
        let error = site.this.save_group(&both).await.unwrap_err();
        let (volume, need, limit) = exceeded(&error);
        assert_eq!((volume.id.as_str(), need, limit), ("logs01", 1080, 1023));
        let remedy = error.remedy().into_owned();
        assert!(remedy.contains("538 instead of 600 restore points of daily"), "{remedy}");
        assert!(remedy.contains("logs of 17 days instead of 20 of logs"), "{remedy}");
        assert!(site.this.groups().await.unwrap().is_empty(), "nothing was saved");

        // With what it says it is saved, at every door by which more would come.
        let fits = policy(1, "daily", Retention::count(538));
        let fewer = fulls.edit(fits).unwrap();
        site.save(&[&fewer]).await;
        site.this.save_group(&both).await.unwrap();
        let more = fewer.edit(policy(1, "daily", Retention::count(539))).unwrap();
        let error = site.this.save_policy(&more).await.unwrap_err();
        assert_eq!(exceeded(&error).1, 539 + 480);
        let mut denser = often.schedule.clone();
        denser.rule = Rule::Every { interval: Duration::from_mins(30) };
        let error = site.this.change_schedule(often.id, denser).await.unwrap_err();
        assert_eq!(exceeded(&error).1, 538 + 960);
        let again = AttachmentId { schedule: nightly.id, group: both.id, policy: logs.id };
        let error = site.this.attach(again).await.unwrap_err();
        assert_eq!(exceeded(&error).1, 538 + 500, "one more log backup a day");
        // What asks for less is saved; so is what has nothing to do with it.
        let less = fewer.edit(policy(1, "daily", Retention::count(10))).unwrap();
        site.save(&[&less, &policy(7, "other", Retention::count(1023))]).await;
    });
}

#[test]
fn what_is_saved_together_is_looked_at_together() {
    let sim = Sim::new(31);
    sim.run(async {
        let site = Site::with_limit(&sim, Some(1023));
        let (fulls, logs) = (policy(1, "daily", Retention::count(600)), log_policy(20));
        let now = site.this.seams().clock.now();
        let stored = |number, name, rule| {
            let id = ScheduleId(Uuid::from_u128(number));
            StoredSchedule::new(id, now, Schedule::new(name, rule, Zone::UTC))
        };
        let (nightly, often) = (stored(21, "nightly", daily()), stored(22, "often", hourly()));
        let mut draft = Draft::default();
        draft.groups = vec![group(&[(&fulls, &nightly), (&logs, &often)])];
        // What a group refers to has to be there, or among what comes with it.
        let refused = async |draft: &Draft| {
            let checked = site.this.check_draft(draft).await.unwrap_err();
            [checked, site.this.save_draft(draft).await.unwrap_err()]
        };
        for error in refused(&draft).await {
            assert_eq!(error.code(), "catalog.not_found");
        }
        draft.policies = vec![fulls.clone(), logs];
        draft.schedules = vec![nightly, often];
        for error in refused(&draft).await {
            assert_eq!(exceeded(&error).1, 1080);
        }
        assert_eq!(site.this.policies().await.unwrap(), [], "nothing was saved");
        assert_eq!(site.this.schedules().await.unwrap(), []);

        draft.policies[0] = policy(1, "daily", Retention::count(538));
        site.this.check_draft(&draft).await.unwrap();
        assert_eq!(site.this.groups().await.unwrap(), []);
        site.this.save_draft(&draft).await.unwrap();
        assert_eq!(site.this.policies().await.unwrap(), draft.policies);
        assert_eq!(site.this.groups().await.unwrap(), draft.groups);
        assert_eq!(site.this.attached().await.unwrap().len(), 2);
        site.this.save_draft(&draft).await.unwrap();
        let mut twin = Draft::default();
        twin.schedules = vec![stored(23, "Nightly", daily())];
        twin.policies = vec![policy(7, "fine", Retention::default())];
        let refused = site.this.save_draft(&twin).await.unwrap_err();
        assert_eq!(refused.code(), "schedule.name_taken");
        assert_eq!(site.this.policies().await.unwrap(), draft.policies, "nothing was saved");

        // One asks for more and the other for less: together they fit, one by one they would not.
        let mut moved = Draft::default();
        let more = policy(1, "daily", Retention::count(890));
        moved.policies = vec![draft.policies[0].edit(more).unwrap()];
        assert_eq!(exceeded(&site.this.save_draft(&moved).await.unwrap_err()).1, 890 + 480);
        let less = draft.policies[1].edit(log_policy(5)).unwrap();
        moved.policies.push(less);
        site.this.save_draft(&moved).await.unwrap();
        assert_eq!(site.this.policies().await.unwrap(), moved.policies);
    });
}

#[test]
fn what_was_too_much_already_may_become_less() {
    let sim = Sim::new(31);
    sim.run(async {
        let site = Site::with_limit(&sim, Some(20));
        let fulls = policy(1, "daily", Retention::default());
        site.save(&[&fulls]).await;
        let nightly = site.schedule("nightly", daily()).await;
        site.this.save_group(&group(&[(&fulls, &nightly)])).await.unwrap();
        // The servers cannot be asked: nothing is known, and nothing is refused.
        let much = fulls.edit(policy(1, "daily", Retention::count(100))).unwrap();
        assert_eq!(exceeded(&site.this.save_policy(&much).await.unwrap_err()).1, 100);
        site.world.faults().on("inventory").inject(Fault::fail(Trouble::io()));
        site.save(&[&much]).await;
        site.world.faults().clear();
        assert!(site.codes().await.contains(&"retention.snapshot_budget_exceeded".to_owned()));
        let less = much.edit(policy(1, "daily", Retention::count(50))).unwrap();
        site.save(&[&less]).await;
        let more = less.edit(policy(1, "daily", Retention::count(51))).unwrap();
        assert_eq!(exceeded(&site.this.save_policy(&more).await.unwrap_err()).1, 51);
    });
}

#[test]
fn the_linter_looks_at_what_is_stored() {
    let sim = Sim::new(31);
    sim.run(async {
        let site = Site::with_limit(&sim, Some(20));
        assert_eq!(site.codes().await, ["strategy.no_group"]);
        let mut fulls = policy(1, "daily", Retention::count(10));
        fulls.log_retention = LogRetention::AsFulls;
        site.save(&[&fulls]).await;
        let nightly = site.schedule("nightly", daily()).await;
        let found = site.codes().await;
        assert_eq!(
            found,
            ["strategy.no_group", "strategy.no_schedule", "strategy.schedule_unattached"]
        );
        site.this.save_group(&group(&[(&fulls, &nightly)])).await.unwrap();
        assert_eq!(site.codes().await, Vec::<String>::new());
        let report = site.linted().await;
        assert_eq!(report.worst(), None);
        let needs: Vec<(u32, Option<u32>)> =
            report.volumes.iter().map(|known| (known.need, known.limit)).collect();
        assert_eq!(needs, [(10, Some(20)); 2]);

        // How fast logs come is read off the restore points, unless somebody says so.
        let mut assumed = Assumptions::default();
        assumed.log_room = Some(1);
        let few = site.this.lint(assumed).await.unwrap();
        assert!(few.findings.is_empty(), "nothing is known of the rate: {few:#?}");
        site.daily(2, &fulls).await;
        let full = site.this.lint(assumed).await.unwrap();
        assert_eq!(full.findings[0].code, "strategy.log_disk_will_fill", "{full:#?}");
        assumed.log_bytes_per_hour = Some(0);
        assert!(site.this.lint(assumed).await.unwrap().findings.is_empty());

        // Servers that cannot be asked are a finding, and the rest is looked at all the same.
        site.world.faults().on("inventory").inject(Fault::fail(Trouble::io()));
        let blind = site.linted().await;
        assert_eq!(blind.findings[0].code, "strategy.inventory_unknown");
        assert_eq!((blind.worst(), blind.volumes.len()), (Some(Severity::Warning), 0));
    });
}

#[test]
fn a_window_is_read_from_the_catalogue() {
    let sim = Sim::new(31);
    sim.run(async {
        let site = Site::new(&sim);
        let mut daily = policy(1, "daily", Retention::count(3));
        daily.log_retention = LogRetention::AsFulls;
        site.save(&[&daily]).await;
        let database = site.this.discover().await.unwrap().inventory;
        let database = *database.databases.keys().next().unwrap();
        let none = site.this.recovery_window(database).await.unwrap();
        assert_eq!(none.gaps[0].why, [Why::NothingStored]);
        site.daily(3, &daily).await;
        let window = site.this.recovery_window(database).await.unwrap();
        let points = site.points().await;
        assert_eq!((window.intervals.len(), window.up_to_the_minute), (1, true));
        assert_eq!(window.intervals[0].from, points[0].taken_at);
        assert_eq!(window.intervals[0].until, points[2].taken_at);
        assert_eq!(site.this.topology().await.unwrap().databases[0].window, window);
        let nobody = stillpoint::model::id::DatabaseId(Uuid::from_u128(404));
        assert_eq!(site.this.recovery_window(nobody).await.unwrap_err().code(), "not_found");
    });
}
