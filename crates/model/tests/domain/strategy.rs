//! What a strategy amounts to: snapshots of each volume, and each finding of the linter, where it is and where it just is not.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{NaiveTime, TimeDelta};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use stillpoint_context::{ErrorFacts, IdempotencyKey, JobId, RunId};
use stillpoint_model::chain::LogSegment;
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::group::{Attachment, ResourceGroup, Selector};
use stillpoint_model::id::{CopyId, GroupId, PointId, PolicyId, ScheduleId, SetToken};
use stillpoint_model::inventory::{CopyRole, CopyStatus, Generation, LogSignature};
use stillpoint_model::job::{Job, JobKind, JobRun};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{NewPoint, PointEvidence, PointLogs, PointState, RestorePoint};
use stillpoint_model::policy::{CopySelection, Gfs, LogRetention, Policy, Retention};
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::request::Trigger;
use stillpoint_model::retention::{RetentionInputs, decide};
use stillpoint_model::schedule::{Rule, Schedule, StoredSchedule, Zone};
use stillpoint_model::strategy::{
    Assumptions, Finding, LintInputs, RESERVE, Seen, Severity, Strategy, VolumeNeed, budget, lint,
    log_rate,
};
use uuid::Uuid;

use super::world::{World, db, host, now, seed, volume};

/// A strategy for a small organisation.
struct Plan {
    world: World,
    groups: Vec<ResourceGroup>,
    policies: Vec<Policy>,
    schedules: Vec<StoredSchedule>,
    jobs: Vec<Job>,
    points: Vec<RestorePoint>,
    assumed: Assumptions,
}

fn daily() -> Rule {
    Rule::Daily { at: NaiveTime::from_hms_opt(2, 30, 0).unwrap() }
}

fn hourly() -> Rule {
    Rule::Hourly { every: NonZeroU32::MIN, minute: 15 }
}

impl Plan {
    /// `DB01` with data and logs apart, a group of everything, and nothing else.
    fn new() -> Self {
        let mut world = World::new();
        world.copy(1, "ex1", CopyRole::Active, "sim:d1", "sim:l1");
        let members = vec![Selector::Everything];
        Self {
            world,
            groups: vec![ResourceGroup::new(GroupId(Uuid::from_u128(9)), "mail", members)],
            policies: Vec::new(),
            schedules: Vec::new(),
            jobs: Vec::new(),
            points: Vec::new(),
            assumed: Assumptions::default(),
        }
    }

    /// The same with a policy of full backups that keeps so much and no logs beyond it, run by a rule if there is one.
    fn full(self, name: &str, retention: Retention, rule: Option<Rule>) -> Self {
        self.policy(name, BackupKind::FullAndLog, retention, LogRetention::None, rule)
    }

    fn policy(
        mut self,
        name: &str,
        kind: BackupKind,
        retention: Retention,
        logs: LogRetention,
        rule: Option<Rule>,
    ) -> Self {
        let number = 100 + self.policies.len() as u128;
        let mut policy = Policy::new(PolicyId(Uuid::from_u128(number)), name);
        (policy.kind, policy.retention, policy.log_retention) = (kind, retention, logs);
        policy.selection = CopySelection::ActiveOnly;
        self.groups[0].policies.push(policy.id);
        if let Some(rule) = rule {
            let id = ScheduleId(Uuid::from_u128(number));
            let schedule = Schedule::new(format!("of {name}"), rule, Zone::UTC);
            self.schedules.push(StoredSchedule::new(id, now(), schedule));
            self.groups[0].attachments.push(Attachment { policy: policy.id, schedule: id });
        }
        self.policies.push(policy);
        self
    }

    /// The same with a limit on every volume.
    fn limited(mut self, limit: u32) -> Self {
        for facts in self.world.volumes.values_mut() {
            facts.snapshot_limit = NonZeroU32::new(limit);
        }
        self
    }

    fn strategy(&self) -> Strategy<'_> {
        Strategy::new(&self.groups, &self.policies, &self.schedules, now())
    }

    fn seen(&self) -> Seen<'_> {
        Seen::new(&self.world.inventory, &self.world.placement, &self.world.volumes)
    }

    fn budget(&self) -> Vec<VolumeNeed> {
        budget(&self.strategy(), &self.seen())
    }

    fn need(&self, of: &str) -> u32 {
        self.volume(of).need
    }

    fn volume(&self, of: &str) -> VolumeNeed {
        self.budget().into_iter().find(|known| known.volume == volume(of)).unwrap()
    }

    fn lint(&self) -> Vec<Finding> {
        let mut inputs = LintInputs::new(self.strategy());
        inputs.seen = Some(self.seen());
        (inputs.jobs, inputs.points, inputs.assumed) = (&self.jobs, &self.points, self.assumed);
        lint(&inputs)
    }

    fn codes(&self) -> Vec<String> {
        self.lint().iter().map(|finding| finding.code.to_string()).collect()
    }

    fn found(&self, code: &str) -> Option<Finding> {
        self.lint().into_iter().find(|finding| finding.code == code)
    }

    fn has(&self, code: &str) -> bool {
        self.found(code).is_some()
    }

    /// Restore points of so many log generations, so many hours apart.
    fn backed_up(mut self, logs: &[u32], hours: i64) -> Self {
        for (nth, last) in (1_i64..).zip(logs) {
            let (run, id) =
                (RunId(Uuid::from_u128(1)), PointId(Uuid::from_u128(u128::from(*last))));
            let level = QuiesceLevel::App;
            let mut point = RestorePoint::new(NewPoint {
                id,
                copy: CopyId::new(db(1), host("ex1")),
                database_name: "DB01".into(),
                kind: BackupKind::FullAndLog,
                taken_at: now() + TimeDelta::hours(hours * nth),
                job: JobId(Uuid::from_u128(1)),
                run,
                set: SetToken::of(&run, id),
                evidence: PointEvidence::new(level, Held::Yes, EvidenceGrain::PerDatabase),
            });
            let range = Some(Generation(1)..=Generation(*last));
            point.logs = Some(PointLogs::new(LogSignature([1; 28]), range, None));
            self.points.push(point);
        }
        self
    }

    /// Jobs of the first policy that took so many minutes each.
    fn took(mut self, minutes: &[i64]) -> Self {
        for (number, minutes) in (1..).zip(minutes) {
            let key = IdempotencyKey::new(format!("job/{number}")).unwrap();
            let id = JobId(Uuid::from_u128(number));
            let trigger = Trigger::Manual { user: None };
            let mut job = Job::new(id, JobKind::Backup, key, trigger, now());
            (job.group, job.policy) = (Some(self.groups[0].id), Some(self.policies[0].reference()));
            // It waited for an hour, which is none of its own time.
            let started = now() + TimeDelta::hours(1);
            let mut run = JobRun::new(RunId(Uuid::from_u128(number)), now());
            run.started_at = Some(started);
            run.ended_at = Some(started + TimeDelta::minutes(*minutes));
            (job.ended_at, job.runs) = (run.ended_at, vec![run]);
            self.jobs.push(job);
        }
        self
    }
}

fn within(days: u32) -> Retention {
    let mut retention = Retention::default();
    retention.within_days = Some(days);
    retention
}

#[test]
fn a_volume_holds_what_all_policies_keep() {
    let plan = Plan::new()
        .full("daily", Retention::count(600), Some(daily()))
        .policy("logs", BackupKind::Log, within(20), LogRetention::Days(20), Some(hourly()))
        .limited(1023);
    assert_eq!((plan.need("sim:d1"), plan.need("sim:l1")), (600, 1080));
    let error = plan.volume("sim:l1").check().unwrap_err();
    assert_eq!(error.code(), "retention.snapshot_budget_exceeded");
    let remedy = error.remedy();
    assert!(remedy.contains("538 instead of 600 restore points of daily"), "{remedy}");
    assert!(remedy.contains("logs of 17 days instead of 20 of logs"), "{remedy}");
    assert_eq!(plan.volume("sim:d1").check(), Ok(()));

    // What it says would fit does, and one more does not.
    for (keeps, fits) in [(538, true), (539, false)] {
        let mut less = Plan::new()
            .full("daily", Retention::count(keeps), Some(daily()))
            .policy("logs", BackupKind::Log, within(20), LogRetention::Days(20), Some(hourly()))
            .limited(1023);
        assert_eq!(less.volume("sim:l1").check().is_ok(), fits, "{keeps}");
        less.policies[0].retention = Retention::count(600);
        less.policies[1].log_retention = LogRetention::Days(if fits { 17 } else { 18 });
        assert_eq!(less.volume("sim:l1").check().is_ok(), fits);
    }
}

#[test]
fn a_shared_volume_holds_data_and_logs() {
    let mut plan = Plan::new();
    plan.world = World::new();
    plan.world.copy(1, "ex1", CopyRole::Active, "sim:v", "sim:v");
    let plan = plan.full("daily", Retention::count(14), Some(daily())).policy(
        "logs",
        BackupKind::Log,
        within(2),
        LogRetention::Days(2),
        Some(hourly()),
    );
    assert_eq!(plan.need("sim:v"), 14 + 48);
}

#[test]
fn every_rule_is_counted_once() {
    let need = |retention: &Retention, rule: Option<Rule>| {
        let plan = Plan::new().full("p", retention.clone(), rule);
        plan.need("sim:d1")
    };
    assert_eq!(need(&Retention::count(7), None), 7);
    assert_eq!(need(&within(7), Some(daily())), 7);
    assert_eq!(need(&within(7), Some(hourly())), 168);
    let weekly = Rule::Weekly { on: vec![chrono::Weekday::Sun], at: NaiveTime::MIN };
    assert_eq!(need(&within(15), Some(weekly)), 3, "three Sundays may be in fifteen days");
    let minute = Rule::Every { interval: Duration::from_mins(1) };
    assert_eq!(need(&within(100), Some(minute)), 144_000, "denser than is counted one by one");
    // The newest is in each: the larger of count and days, and the other places of the grids.
    let mut all = Retention::count(5);
    all.within_days = Some(3);
    all.gfs = Some(Gfs { daily: 14, monthly: 12, ..Gfs::default() });
    assert_eq!(need(&all, Some(daily())), 5 + 13 + 11);
    let mut least = Retention::default();
    least.gfs = Some(Gfs { daily: 14, ..Gfs::default() });
    assert_eq!(need(&least, None), 14, "a grid has so many places, whoever runs it");
    least.min_keep = NonZeroU32::new(30).unwrap();
    assert_eq!(
        need(&least, None),
        30 + 13,
        "the newest stay whatever grids keep, and may be all of one day"
    );
}

#[test]
fn what_nobody_knows_is_said() {
    let forever = Plan::new().full("ever", Retention::default(), Some(daily())).limited(10);
    let known = forever.volume("sim:d1");
    assert_eq!((known.need, known.unknown.len(), known.check()), (0, 1, Ok(())));
    assert_eq!(known.unknown.first().unwrap().to_string(), "policy ever keeps all");
    let unscheduled = Plan::new().full("by hand", within(7), None).limited(10);
    let known = unscheduled.volume("sim:d1");
    let why = known.unknown.first().unwrap().to_string();
    assert_eq!(why, "no schedule says how often policy by hand is run");
    assert!(unscheduled.has("retention.snapshot_budget_unknown"));
    // A count needs no schedule, and a volume without a limit no number.
    let counted = Plan::new().full("by hand", Retention::count(4), None).limited(10);
    assert!(counted.volume("sim:d1").unknown.is_empty());
    let limitless = Plan::new().full("by hand", within(7), None);
    assert!(!limitless.has("retention.snapshot_budget_unknown"));
    assert_eq!(limitless.volume("sim:d1").check(), Ok(()));
    // Log backups that are kept for as long as fulls, of which nobody knows how long that is.
    let logs = Plan::new().full("daily", Retention::count(14), None).policy(
        "logs",
        BackupKind::Log,
        within(1),
        LogRetention::AsFulls,
        Some(hourly()),
    );
    assert!(logs.volume("sim:d1").unknown.is_empty());
    let known = logs.volume("sim:l1");
    assert_eq!((known.need, known.unknown.len()), (14, 1), "the fulls are known");
}

#[test]
fn logs_follow_the_fulls_that_they_roll_forward() {
    let logs = |retention| {
        let plan = Plan::new().full("daily", Retention::count(14), Some(daily())).policy(
            "logs",
            BackupKind::Log,
            within(1),
            retention,
            Some(hourly()),
        );
        plan.need("sim:l1")
    };
    assert_eq!(logs(LogRetention::None), 14);
    assert_eq!(logs(LogRetention::AsFulls), 14 + 14 * 24);
    assert_eq!(logs(LogRetention::FollowFulls(3)), 14 + 3 * 24);
    assert_eq!(
        logs(LogRetention::Days(30)),
        14 + 16 + 30 * 24,
        "logs of fulls that went stay, too"
    );
}

#[test]
fn one_snapshot_serves_the_databases_of_a_group() {
    let mut plan = Plan::new();
    plan.world.copy(2, "ex1", CopyRole::Active, "sim:d1", "sim:l2");
    let plan = plan.full("daily", Retention::count(14), Some(daily()));
    assert_eq!((plan.need("sim:d1"), plan.need("sim:l2")), (14, 14));
    // In groups of their own they are snapped one after the other.
    let mut apart = plan;
    let mut other = apart.groups[0].clone();
    other.id = GroupId(Uuid::from_u128(10));
    apart.groups[0].members = vec![Selector::Database(db(1))];
    other.members = vec![Selector::Database(db(2))];
    apart.groups.push(other);
    assert_eq!((apart.need("sim:d1"), apart.need("sim:l2")), (28, 14));
    // A database that has the policy through both keeps as many of it all the same.
    apart.groups[1].members = vec![Selector::Everything];
    assert_eq!(apart.need("sim:l1"), 14);
}

#[test]
fn the_copies_that_a_policy_may_take_count() {
    let mut plan = Plan::new();
    plan.world.copy(1, "ex2", CopyRole::Passive, "sim:d2", "sim:l2");
    let mut plan = plan.full("daily", Retention::count(14), None);
    let on = |plan: &Plan| -> Vec<String> {
        plan.budget().iter().map(|known| known.volume.to_string()).collect()
    };
    assert_eq!(on(&plan), ["sim:d1", "sim:l1"]);
    plan.policies[0].selection = CopySelection::prefer_passive();
    assert_eq!(on(&plan), ["sim:d2", "sim:l2"]);
    plan.policies[0].selection = CopySelection::OnHosts { hosts: vec![host("ex1"), host("ex2")] };
    assert_eq!(on(&plan).len(), 4);
}

#[test]
fn a_budget_is_tight_before_it_is_exceeded() {
    // Of 100 there is less than a tenth to spare from 86 on, with the reserve, and 95 are the most.
    let at =
        |keeps: u32| Plan::new().full("p", Retention::count(keeps), Some(daily())).limited(100);
    let codes = |plan: &Plan| {
        let of_budget = |code: &String| code.starts_with("retention.");
        plan.codes().into_iter().filter(of_budget).collect::<Vec<_>>()
    };
    let both = |code: &str| vec![code.to_owned(); 2];
    assert_eq!(codes(&at(85)), Vec::<String>::new());
    assert_eq!(codes(&at(86)), both("retention.snapshot_budget_tight"));
    assert_eq!(codes(&at(100 - RESERVE)), both("retention.snapshot_budget_tight"));
    assert_eq!(codes(&at(101 - RESERVE)), both("retention.snapshot_budget_exceeded"));
    assert_eq!(
        at(96).found("retention.snapshot_budget_exceeded").unwrap().severity,
        Severity::Error
    );
}

#[test]
fn a_sound_strategy_has_no_findings() {
    let plan = Plan::new()
        .policy(
            "daily",
            BackupKind::FullAndLog,
            Retention::count(14),
            LogRetention::AsFulls,
            Some(daily()),
        )
        .policy("logs", BackupKind::Log, within(14), LogRetention::AsFulls, Some(hourly()))
        .took(&[59; 20])
        .limited(1023);
    assert_eq!(plan.lint(), []);
}

#[test]
fn logs_that_nothing_truncates() {
    let code = "strategy.no_truncating_backup";
    let kept = || Retention::count(3);
    assert!(!Plan::new().full("p", kept(), Some(daily())).has(code));
    assert!(Plan::new().full("p", kept(), None).has(code), "nobody runs it");
    let kind =
        |kind| Plan::new().policy("p", kind, kept(), LogRetention::None, Some(daily())).has(code);
    assert!(kind(BackupKind::Copy) && kind(BackupKind::Log) && !kind(BackupKind::Full));
    // A schedule that is over runs nothing.
    let mut over = Plan::new().full("p", kept(), Some(daily()));
    over.schedules[0].schedule.end = Some(now());
    assert!(over.has(code) && over.has("strategy.schedule_exhausted"));
    over.schedules[0].schedule.end = Some(now() + TimeDelta::days(2));
    assert!(!over.has(code) && !over.has("strategy.schedule_exhausted"));
    // Where logs are overwritten, or nobody writes them, nothing has to be truncated.
    let mut circular = Plan::new().full("p", kept(), None);
    circular.world.inventory.databases.get_mut(&db(1)).unwrap().circular_logging = true;
    assert!(!circular.has(code));
    let mut at_rest = Plan::new().full("p", kept(), None);
    for copy in at_rest.world.inventory.copies.values_mut() {
        copy.status = CopyStatus::AtRest;
    }
    assert!(!at_rest.has(code));
}

#[test]
fn a_log_volume_that_fills_up() {
    let code = "strategy.log_disk_will_fill";
    let assumed = |rate: Option<u64>, room: Option<u64>| {
        let mut plan = Plan::new().full("p", Retention::count(3), Some(daily()));
        (plan.assumed.log_bytes_per_hour, plan.assumed.log_room) = (rate, room);
        plan
    };
    // 24 hours between two backups.
    assert!(!assumed(Some(100), Some(2400)).has(code));
    let full = assumed(Some(100), Some(2399)).found(code).unwrap();
    let about: Vec<(&str, String)> =
        full.subjects.iter().map(|one| (one.kind.as_ref(), one.id.clone())).collect();
    assert_eq!(about, [("days", "0".to_owned()), ("database", db(1).to_string())]);
    assert!(full.message.contains("0 days and 23 hours"), "{}", full.message);
    assert!(!assumed(Some(100), None).has(code) && !assumed(None, Some(1)).has(code), "unknown");
    assert!(!assumed(Some(0), Some(1)).has(code));
    // Never truncated, it fills in any case.
    let mut never = assumed(Some(100), Some(1_000_000));
    assert!(!never.has(code));
    never.groups[0].attachments.clear();
    assert!(never.found(code).unwrap().message.contains("no backup truncates them"));
    // Two databases fill one volume twice as fast.
    let mut two = assumed(Some(100), Some(2400));
    two.world.copy(2, "ex1", CopyRole::Active, "sim:d2", "sim:l1");
    assert!(two.has(code));
    two.assumed.log_room = Some(4800);
    assert!(!two.has(code));
}

#[test]
fn the_rate_of_logs_is_read_off_restore_points() {
    // 10, then 40 logs in two hours.
    let plan =
        Plan::new().full("p", Retention::count(3), Some(daily())).backed_up(&[100, 110, 150], 2);
    assert_eq!(log_rate(db(1), &plan.points), Some(20 << 20));
    assert_eq!(log_rate(db(2), &plan.points), None);
    assert_eq!(log_rate(db(1), &plan.points[..1]), None, "one says nothing");
    let mut close = plan.points.clone();
    close[1].taken_at = close[0].taken_at + TimeDelta::minutes(59);
    assert_eq!(log_rate(db(1), &close), Some((50 << 20) / 4), "two of the same hour say nothing");
    let mut forked = plan.points.clone();
    forked[2].logs.as_mut().unwrap().signature = LogSignature([2; 28]);
    assert_eq!(log_rate(db(1), &forked), Some(5 << 20), "nor do those of two streams");
    let mut filling = plan;
    filling.assumed.log_room = Some(480 << 20);
    assert!(!filling.has("strategy.log_disk_will_fill"));
    filling.assumed.log_room = Some(479 << 20);
    assert!(filling.has("strategy.log_disk_will_fill"));
}

#[test]
fn log_backups_of_logs_that_are_overwritten() {
    let code = "policy.log_with_circular_logging";
    let of = |kind, is_circular| {
        let mut plan =
            Plan::new().policy("p", kind, within(2), LogRetention::Days(2), Some(hourly()));
        plan.world.inventory.databases.get_mut(&db(1)).unwrap().circular_logging = is_circular;
        plan.found(code)
    };
    assert_eq!(of(BackupKind::Log, true).unwrap().severity, Severity::Error);
    assert_eq!((of(BackupKind::Log, false), of(BackupKind::FullAndLog, true)), (None, None));
}

#[test]
fn a_schedule_that_is_due_before_its_job_is_over() {
    let code = "schedule.too_tight";
    let plan = |minutes: &[i64]| {
        Plan::new().full("p", Retention::count(3), Some(hourly())).took(minutes).found(code)
    };
    assert_eq!(plan(&[]), None, "no job, no time");
    assert_eq!(plan(&[60; 20]), None, "just in time");
    assert!(plan(&[61; 20]).unwrap().message.contains("every 60 minutes, and its backups take 61"));
    // One of twenty may take longer, two may not.
    let mut times = [10; 20];
    times[7] = 600;
    assert_eq!(plan(&times), None);
    times[3] = 600;
    assert!(plan(&times).is_some());
    // Two schedules of one policy are close to each other where they meet.
    let mut two = Plan::new().full("p", Retention::count(3), Some(daily())).took(&[20]);
    assert!(!two.has(code));
    let quarter = Rule::Daily { at: NaiveTime::from_hms_opt(2, 45, 0).unwrap() };
    let id = ScheduleId(Uuid::from_u128(7));
    let schedule = Schedule::new("a quarter later", quarter, Zone::UTC);
    two.schedules.push(StoredSchedule::new(id, now(), schedule));
    two.groups[0].attachments.push(Attachment { policy: two.policies[0].id, schedule: id });
    assert!(two.has(code));
}

#[test]
fn logs_and_restore_points_are_kept_for_different_times() {
    let (outlive, instants) = ("strategy.logs_outlive_fulls", "strategy.points_become_pit_only");
    let found = |days: u32| {
        let plan = Plan::new().policy(
            "p",
            BackupKind::FullAndLog,
            Retention::count(14),
            LogRetention::Days(days),
            Some(daily()),
        );
        (plan.has(outlive), plan.has(instants))
    };
    assert_eq!(found(13), (false, true));
    assert_eq!(found(14), (false, false));
    assert_eq!(found(15), (true, false));
    // Of another policy that keeps longer they roll forward its points.
    let plan = Plan::new()
        .policy("p", BackupKind::FullAndLog, within(7), LogRetention::Days(15), Some(daily()))
        .full("long", within(15), Some(daily()));
    assert!(!plan.has(outlive) && !plan.has(instants));
    // What keeps all is outlived by nothing.
    let plan = Plan::new()
        .policy("p", BackupKind::FullAndLog, within(7), LogRetention::Days(15), Some(daily()))
        .full("ever", Retention::default(), Some(daily()));
    assert!(!plan.has(outlive));
}

#[test]
fn what_is_in_no_group_and_on_no_schedule() {
    let mut plan = Plan::new().full("p", Retention::count(3), Some(daily()));
    assert!(!plan.has("strategy.no_group") && !plan.has("strategy.no_schedule"));
    plan.world.copy(2, "ex1", CopyRole::Active, "sim:d2", "sim:l2");
    plan.groups[0].members = vec![Selector::Database(db(1))];
    let alone = plan.found("strategy.no_group").unwrap();
    assert_eq!(alone.subjects[0].id, db(2).to_string());
    plan.world.inventory.databases.get_mut(&db(2)).unwrap().recovery = true;
    assert!(!plan.has("strategy.no_group"), "nobody backs up a recovery database");

    let unattached = "strategy.schedule_unattached";
    assert!(!plan.has(unattached));
    plan.groups[0].attachments.clear();
    assert_eq!(plan.found(unattached).unwrap().severity, Severity::Info);
    let idle = plan.found("strategy.no_schedule").unwrap();
    assert!(idle.message.contains("p is on no schedule in mail"), "{}", idle.message);
    plan.groups[0].policies.clear();
    assert!(plan.found("strategy.no_schedule").unwrap().message.contains("p is in no group"));
}

#[test]
fn the_worst_comes_first_and_without_an_inventory_the_rest_is_looked_at() {
    let plan = Plan::new()
        .full("p", Retention::count(96), None)
        .full("q", Retention::count(96), Some(daily()))
        .limited(100);
    let severities: Vec<Severity> = plan.lint().iter().map(|finding| finding.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b) && severities[0] == Severity::Error);
    let alone = lint(&LintInputs::new(plan.strategy()));
    assert_eq!(alone.len(), 1, "{alone:?}");
    assert_eq!(alone[0].code, "strategy.no_schedule");
    let json = serde_json::to_string(&plan.lint()).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Finding>>(&json).unwrap(), plan.lint());
    let needs = plan.budget();
    let json = serde_json::to_string(&needs).unwrap();
    assert_eq!(serde_json::from_str::<Vec<VolumeNeed>>(&json).unwrap(), needs);
}

/// The points that a plan's schedules make in so many days, each with the logs since the one before it.
fn history(plan: &Plan, days: i64) -> Vec<RestorePoint> {
    let end = now() + TimeDelta::days(days);
    let mut due: Vec<_> = Vec::new();
    for (policy, stored) in plan.policies.iter().zip(&plan.schedules) {
        let firings = stored.schedule.firings(now()).map(|firing| firing.due);
        due.extend(firings.take_while(|due| *due <= end).map(|due| (due, policy)));
    }
    due.sort_by_key(|(due, policy)| (*due, policy.id));
    let point = |(number, (due, policy)): (u32, &(_, &Policy))| {
        let (run, id) = (RunId(Uuid::from_u128(1)), PointId(Uuid::from_u128(u128::from(number))));
        let level = QuiesceLevel::App;
        let mut point = RestorePoint::new(NewPoint {
            id,
            copy: CopyId::new(db(1), host("ex1")),
            database_name: "DB01".into(),
            kind: policy.kind,
            taken_at: *due,
            job: JobId(Uuid::from_u128(1)),
            run,
            set: SetToken::of(&run, id),
            evidence: PointEvidence::new(level, Held::Yes, EvidenceGrain::PerDatabase),
        });
        let own = Generation(number)..=Generation(number);
        let required = policy.kind.takes_database().then(|| own.clone());
        point.logs = Some(PointLogs::new(LogSignature([1; 28]), Some(own), required));
        (point.state, point.policy) = (PointState::Available, Some(policy.reference()));
        point
    };
    (1..).zip(&due).map(point).collect()
}

fn retentions() -> impl proptest::strategy::Strategy<Value = Retention> {
    let grids = (0..5_u32, 0..4_u32, 0..2_u32);
    (prop::option::of(1..8_u32), prop::option::of(1..8_u32), grids, 1..4_u32).prop_map(
        |(count, days, (hourly, daily, weekly), least)| {
            let mut retention = Retention::default();
            (retention.count, retention.within_days) = (count, days);
            retention.gfs = Some(Gfs { hourly, daily, weekly, ..Gfs::default() });
            retention.min_keep = NonZeroU32::new(least).unwrap();
            if retention.keeps_all() {
                retention.count = Some(1);
            }
            retention
        },
    )
}

fn rules() -> impl proptest::strategy::Strategy<Value = Rule> {
    let every = |hours| Rule::Every { interval: Duration::from_hours(hours) };
    prop::sample::select(vec![daily(), hourly(), every(5), every(31)])
}

fn log_retentions() -> impl proptest::strategy::Strategy<Value = LogRetention> {
    prop_oneof![
        Just(LogRetention::AsFulls),
        Just(LogRetention::None),
        (1..6_u32).prop_map(LogRetention::Days),
        (1..6_u32).prop_map(LogRetention::FollowFulls),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..seed::seeded("no_more_is_kept") })]

    #[test]
    fn no_more_is_kept_than_was_said(
        policies in prop::collection::vec((retentions(), log_retentions(), rules(), 0..4_usize), 1..4),
        days in 1..16_i64,
    ) {
        let mut plan = Plan::new();
        for (number, (retention, logs, rule, kind)) in policies.into_iter().enumerate() {
            // The first takes the database, so that there is something to follow.
            let kind = if number == 0 { BackupKind::FullAndLog } else { BackupKind::ALL[kind] };
            plan = plan.policy(&format!("p{number}"), kind, retention, logs, Some(rule));
        }
        let points = history(&plan, days);
        let segments: Vec<LogSegment> = points.iter().filter_map(LogSegment::of).collect();
        let mut inputs = RetentionInputs::new(now() + TimeDelta::days(days));
        inputs.points = &points;
        inputs.segments = &segments;
        inputs.policies = &plan.policies;
        let decisions = decide(&inputs);
        let database = points.iter().zip(&decisions.points);
        let database = database.filter(|(point, kept)| point.has_database() && kept.is_kept()).count();
        let logs = decisions.points.iter().zip(&decisions.segments);
        let logs = logs.filter(|(point, segment)| point.is_kept() || segment.is_kept()).count();
        for (of, kept) in [("sim:d1", database), ("sim:l1", logs)] {
            let known = plan.volume(of);
            prop_assert!(known.unknown.is_empty(), "{:?}", known);
            prop_assert!(kept <= known.need as usize, "{} {} {:?}", of, kept, known);
        }
    }
}
