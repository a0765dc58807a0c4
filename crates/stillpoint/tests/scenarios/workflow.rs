//! The workflow as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint::context::ErrorFacts as _;
use stillpoint::model::availability::Reason;
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::GroupId;
use stillpoint::model::inventory::CopyStatus;
use stillpoint::model::job::{JobState, RunEnd, RunState};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::planning::Mode;
use stillpoint::model::point::PointState;
use stillpoint::model::policy::{Gfs, LogRetention, Retention};
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::retention::{Fate, Why};
use stillpoint::model::schedule::{AttachmentId, Rule, Schedule, Zone};
use stillpoint::model::strategy::Assumptions;
use stillpoint::model::topology::Protection;
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{Change, CopySpec, DatabaseSpec, Fault, VolumeSpec, World};
use uuid::Uuid;

use crate::common::{BOTH, HOST, key, pause, request, stillpoint, two_arrays};
use crate::site::{Site, policy};

/// Databases of which each has data and logs on one volume.
fn one_volume_each(databases: u32) -> World {
    let mut builder = World::builder().host(HOST);
    for number in 1..=databases {
        let (name, volume) = (format!("DB{number:02}"), format!("vol{number:02}"));
        builder = builder
            .volume(VolumeSpec::new(&volume).mounted(HOST, format!(r"D:\{volume}")))
            .database(DatabaseSpec::new(&name))
            .copy(CopySpec::active(&name, HOST).on(&volume, &volume).preference(1));
    }
    builder.build()
}

#[test]
fn s01_seven_steps() {
    for mode in BOTH {
        for members in [2, 1] {
            let world = if members == 2 { two_arrays(3) } else { one_volume_each(3) };
            let sim = Sim::new(1);
            sim.run(async {
                let this = stillpoint(&sim, &world, mode, |engine| engine);
                // Strategy: nothing is protected yet, and it is told.
                let lacks = this.lint(Assumptions::default()).await.unwrap();
                let codes: Vec<_> =
                    lacks.findings.iter().map(|finding| finding.code.to_string()).collect();
                assert_eq!(codes, ["strategy.no_group"; 3]);
                // Availability.
                let there = this.discover().await.unwrap().inventory;
                assert_eq!(there.databases.len(), 3);
                let reasons: Vec<&Reason> =
                    there.copies.values().flat_map(|copy| &copy.availability.reasons).collect();
                assert!(reasons.is_empty(), "{reasons:?}");
                // Policy, group and schedule.
                let mut daily = policy(1, "daily", Retention::count(14));
                daily.log_retention = LogRetention::AsFulls;
                this.save_policy(&daily).await.unwrap();
                let id = GroupId(Uuid::from_u128(2));
                let mut mail = ResourceGroup::new(id, "mail", vec![Selector::Everything]);
                mail.policies.push(daily.id);
                this.save_group(&mail).await.unwrap();
                let at = chrono::NaiveTime::from_hms_opt(2, 30, 0).unwrap();
                let nightly = Schedule::new("nightly", Rule::Daily { at }, Zone::UTC);
                let schedule = this.create_schedule(nightly).await.unwrap().id;
                this.attach(AttachmentId { schedule, group: id, policy: daily.id }).await.unwrap();
                let report = this.lint(Assumptions::default()).await.unwrap();
                assert_eq!(report.findings, []);
                // Run and monitor.
                let request = BackupRequest::new(key("first"), Target::Group(id), daily.id);
                let job = this.backup(request).await.unwrap().wait().await;
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
                assert_eq!(this.jobs().await.unwrap(), [job]);
                // Topology.
                let topology = this.topology().await.unwrap();
                for database in &topology.databases {
                    assert_eq!(database.protection, Protection::Protected);
                    assert_eq!(database.points.len(), 1, "{database:#?}");
                    assert_eq!(database.points[0].members, members, "{database:#?}");
                    assert!(database.window.contains(database.points[0].taken_at));
                }
                assert_eq!(world.snapshots().len(), 3 * members);
                world.assert_thawed_in_time();
            });
        }
    }
}

#[test]
fn s04_dry_run() {
    let sim = Sim::new(4);
    let site = Site::new(&sim);
    let weekly = policy(1, "week", Retention::count(7));
    sim.run(async {
        site.save(&[&weekly]).await;
        site.daily(7, &weekly).await;
        let before = site.points().await;
        let (shots, jobs) = (site.world.snapshots(), site.this.jobs().await.unwrap());

        let mut ask = BackupRequest::new(key("next"), request("next").target, weekly.id);
        ask.prune = true;
        let dry = site.this.dry_run(&ask).await.unwrap();
        let (plan, table) = (dry.plan, dry.retention.unwrap());
        let [set] = plan.sets.as_slice() else { panic!("{plan:#?}") };
        assert!(set.claims.iter().any(|claim| claim.mode == Mode::Exclusive), "{set:#?}");
        assert_eq!((set.snapshots.len(), plan.truncates()), (2, true));
        let [known] = table.databases.as_slice() else { panic!("{table:#?}") };
        let going: Vec<_> = known.order.points.keys().copied().collect();
        assert_eq!(going, [before[0].id], "the oldest");
        let why = |id| {
            let of = known.decisions.points.iter().find(|decision| decision.what == id).unwrap();
            (of.fate, of.reasons.as_slice())
        };
        let rule = Why::NoRule { policy: weekly.id };
        assert_eq!(why(before[0].id), (Fate::Delete, &[rule][..]));
        let (fate, reasons) = why(set.members[0].point);
        assert_eq!((fate, &reasons[0]), (Fate::Keep, &Why::NewestGood), "{reasons:?}");
        // Nothing has changed by that.
        assert_eq!(site.points().await, before);
        assert_eq!((site.world.snapshots(), site.this.jobs().await.unwrap()), (shots, jobs));

        // And that is what happens.
        let job = site.this.backup(ask).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let stay: Vec<_> = before[1..].iter().map(|point| point.id).collect();
        assert_eq!(site.ids().await[..6], stay);
        assert_eq!(site.ids().await.len(), 7);
        // The plan holds for as long as there is what it was made for.
        let now = async || site.this.discover().await.unwrap().inventory;
        assert_eq!(plan.check_fresh(&now().await), Ok(()));
        let copy = site.world.active("DB01");
        site.world.change(&Change::Status { copy, status: CopyStatus::Dismounted });
        let stale = plan.check_fresh(&now().await).unwrap_err();
        assert_eq!(stale.code(), "plan.stale");
    });
}

#[test]
fn what_a_dry_run_says_of_the_prune_after_a_backup_is_what_it_does() {
    let fulls = |count, logs| {
        let mut policy = policy(1, "fulls", Retention::count(count));
        policy.log_retention = logs;
        policy
    };
    let mut grid = policy(1, "grid", Retention::default());
    grid.retention.gfs = Some(Gfs { hourly: 3, daily: 2, ..Gfs::default() });
    let mut days = policy(1, "days", Retention::default());
    (days.retention.within_days, days.log_retention) = (Some(1), LogRetention::Days(1));
    let policies = [fulls(3, LogRetention::None), fulls(2, LogRetention::Days(2)), grid, days];
    let mut kept_logs = 0;
    for (seed, rules) in (40..).zip(policies) {
        let sim = Sim::new(seed);
        let site = Site::new(&sim);
        sim.run(async {
            site.save(&[&rules]).await;
            let mut deleted = 0;
            for nth in 0..24 {
                let name = format!("backup-{nth}");
                let mut ask = BackupRequest::new(key(&name), request("all").target, rules.id);
                ask.prune = true;
                if nth % 3 != 0 {
                    ask.kind = Some(BackupKind::Log);
                }
                let dry = site.this.dry_run(&ask).await.unwrap();
                let (plan, told) = (dry.plan, dry.retention.unwrap());
                let before = told.databases[0].points.clone();
                let job = site.this.backup(ask).await.unwrap().wait().await;
                assert_eq!(job.state(), JobState::Succeeded, "{}: {nth}: {job:#?}", rules.name);
                let now = site.table().await.points;
                let is_new = |id| plan.sets[0].members.iter().any(|member| member.point == id);
                for point in before.iter().filter(|point| !is_new(point.id)) {
                    let going = told.databases[0].order.points.get(&point.id);
                    let after = now.iter().find(|known| known.id == point.id);
                    let what = format!("{}: {nth}: {point:#?} {going:?}", rules.name);
                    match (going, after) {
                        (None, Some(after)) => assert_eq!(after.state, point.state, "{what}"),
                        (Some(going), None) => assert!(!going.keeps_logs, "{what}"),
                        (Some(going), Some(after)) => {
                            assert!(going.keeps_logs, "{what}");
                            assert_eq!(after.state, PointState::LogsOnly, "{what}");
                            kept_logs += 1;
                        }
                        (None, None) => panic!("{what}"),
                    }
                    deleted += u32::from(going.is_some());
                }
                site.pass(Duration::from_hours(3)).await;
            }
            assert!(deleted >= 5, "{}: {deleted}", rules.name);
        });
    }
    assert!(kept_logs > 0);
}

#[test]
fn s03_more_than_30_databases() {
    for mode in BOTH {
        let sim = Sim::new(3);
        let world = two_arrays(47);
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            this.save_policy(&policy(1, "default", Retention::default())).await.unwrap();
            let job = this.backup(request("all")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            let sets = || job.runs.iter().filter(|run| !run.follow_up);
            let sizes: Vec<usize> = sets().map(|run| run.members.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), 47);
            assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 30), "{sizes:?}");
            let ends: Vec<RunState> = sets().map(|run| run.state).collect();
            assert_eq!(ends, [RunState::Ended(RunEnd::Succeeded); 2]);
            // Each set has a freeze of its own, and no snapshot is in two points.
            assert_eq!(world.freeze_windows().len(), 2, "{:#?}", world.freeze_windows());
            let topology = this.topology().await.unwrap();
            assert_eq!(topology.databases.len(), 47);
            assert!(topology.databases.iter().all(|database| database.points.len() == 1));
            // Of one database it is what all of it says of that one.
            let mut one = this.topology_of_catalog().await.unwrap();
            one.databases.drain(1..);
            let of_one = this.topology_of(one.databases[0].database).await.unwrap();
            assert_eq!(of_one, one);
            let shots: BTreeSet<String> =
                world.snapshots().iter().map(|shot| shot.reference().to_string()).collect();
            assert_eq!(shots.len(), 94);
            world.assert_thawed_in_time();
        });
    }
}

#[test]
fn s36_restore_jumps_the_queue() {
    let sim = Sim::new(36);
    let world = two_arrays(1);
    sim.run(async {
        let this = stillpoint(&sim, &world, BOTH[0], |engine| engine);
        this.save_policy(&policy(1, "default", Retention::default())).await.unwrap();
        let first = this.backup(request("first")).await.unwrap().wait().await;
        let point = this.topology().await.unwrap().databases[0].points[0].point;
        // One that runs for long, and five that wait for it.
        world.faults().on("settle").nth(1).inject(Fault::Slow(Duration::from_mins(20)));
        let running = this.backup(request("running")).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        let mut queued = Vec::new();
        for number in 0..5 {
            queued.push(this.backup(request(&format!("queued-{number}"))).await.unwrap());
            pause(this.seams(), Duration::from_secs(10)).await;
        }
        let back = RestoreRequest::new(key("back"), point, RestoreTarget::InPlace);
        let restore = this.restore(back).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        assert_eq!(restore.job().state(), JobState::Queued, "{:#?}", restore.job());
        let restored = restore.wait().await;
        assert_eq!(restored.state(), JobState::Succeeded, "{restored:#?}");
        let mut jobs = vec![first, running.wait().await];
        let (began, ended) = (restored.runs[0].started_at, restored.runs[0].ended_at);
        assert!(began >= jobs[1].runs[0].ended_at, "after the one that was running");
        for waiting in queued {
            let job = waiting.wait().await;
            assert!(job.runs[0].started_at >= ended, "before one that waited: {job:#?}");
            jobs.push(job);
        }
        for job in jobs {
            // Those that were planned beside another one were told by Exchange of a backup in progress.
            assert_eq!(job.tally(), (1, 1), "{job:#?}");
        }
        world.assert_thawed_in_time();
    });
}
