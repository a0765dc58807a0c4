//! What is kept, and what a prune deletes.

use std::time::Duration;

use stillpoint::PruneTarget;
use stillpoint::context::{ErrorFacts, HostPath, PathFlavor};
use stillpoint::model::chain::{Bound, LogSegment, reach};
use stillpoint::model::job::{JobState, RunEnd, RunState};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::point::{PointState, Truncation, Trust};
use stillpoint::model::policy::{Gfs, LogRetention, Retention, Verification};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::retention::{Fate, Why};
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{Fault, Trouble};

use crate::common::{HOST, key};
use crate::site::{DAY, Site, policy};

#[test]
fn s05_a_copy_backup_is_invisible_to_the_retention_of_other_policies() {
    let sim = Sim::new(5);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(3));
        let mut copies = policy(2, "copies", Retention::count(1));
        copies.kind = BackupKind::Copy;
        site.save(&[&daily, &copies]).await;
        site.daily(3, &daily).await;
        let before = site.table().await.decisions.points;
        site.backed_up("a-copy", &copies).await;
        let after = site.table().await;
        let of = |known: &stillpoint::model::retention::Decision<_>| {
            known
                .reasons
                .iter()
                .filter(|why| matches!(why, Why::Count { .. }))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            before.iter().map(of).collect::<Vec<_>>(),
            after.decisions.points[..3].iter().map(of).collect::<Vec<_>>()
        );
        assert!(after.order.is_empty(), "{after:#?}");
        // Only its own policy makes it go.
        site.pass(DAY).await;
        site.backed_up("another-copy", &copies).await;
        site.pruned("prune").await;
        assert_eq!((site.of(&daily).await.len(), site.of(&copies).await.len()), (3, 1));
    });
}

#[test]
fn s21_two_policies_have_one_log_retention() {
    let sim = Sim::new(21);
    sim.run(async {
        let site = Site::new(&sim);
        let mut a = policy(1, "A", Retention::count(5));
        a.log_retention = LogRetention::FollowFulls(5);
        let mut b = policy(2, "B", Retention::count(2));
        b.log_retention = LogRetention::FollowFulls(2);
        site.save(&[&a, &b]).await;
        for day in 0..8 {
            site.backed_up(&format!("a-{day}"), &a).await;
            site.pass(DAY / 2).await;
            site.backed_up(&format!("b-{day}"), &b).await;
            site.pass(DAY / 2).await;
        }
        let reaches = |points: &[stillpoint::model::point::RestorePoint]| {
            let segments: Vec<LogSegment> = points.iter().filter_map(LogSegment::of).collect();
            let mine = points.iter().filter(|point| {
                point.has_database() && point.policy.as_ref().is_some_and(|made| made.id == a.id)
            });
            let newest: Vec<_> =
                mine.rev().take(5).map(|point| reach(point, &segments, false)).collect();
            newest
                .into_iter()
                .map(|reach| (reach.until, reach.last, reach.bound))
                .collect::<Vec<_>>()
        };
        let before = reaches(&site.table().await.points);
        assert!(before.iter().all(|(_, _, bound)| *bound == Bound::EndOfLogs), "{before:#?}");
        let of_a = site.of(&a).await;
        let mut target = PruneTarget::everything();
        target.policy = Some(b.id);
        let job = site.prune("prune-b", target).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        // B keeps two; the logs that A's five fulls roll forward through are still there, cut off from their databases.
        assert_eq!((site.of(&a).await, site.of(&b).await.len()), (of_a, 2));
        let table = site.table().await;
        assert_eq!(reaches(&table.points), before);
        let bridges: Vec<_> =
            table.points.iter().filter(|p| p.state == PointState::LogsOnly).collect();
        assert!(bridges.len() >= 2, "{:#?}", table.points);
        for bridge in bridges {
            let verdict =
                table.decisions.segments.iter().find(|known| known.what.0 == bridge.id.0).unwrap();
            let cites =
                |why: &Why| matches!(why, Why::RollsForward { policy, .. } if *policy == a.id);
            assert!(verdict.is_kept() && verdict.reasons.iter().any(cites), "{verdict:?}");
            assert_eq!(bridge.members.len(), 1, "the database of it is gone: {bridge:#?}");
        }
        site.assert_storage_fits().await;
    });
}

#[test]
fn s22_each_policy_keeps_its_own_fulls() {
    let sim = Sim::new(22);
    sim.run(async {
        let site = Site::new(&sim);
        let (a, b) = (policy(1, "A", Retention::count(4)), policy(2, "B", Retention::count(3)));
        site.save(&[&a, &b]).await;
        for day in 0..30 {
            for (mine, other) in [(&a, &b), (&b, &a)] {
                site.backed_up(&format!("{}-{day}", mine.name), mine).await;
                let before = site.of(other).await;
                let mut target = PruneTarget::everything();
                target.policy = Some(mine.id);
                let job = site.prune(&format!("prune-{}-{day}", mine.name), target).await;
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
                assert_eq!(site.of(other).await, before, "day {day}");
                site.pass(DAY / 2).await;
            }
        }
        assert_eq!((site.of(&a).await.len(), site.of(&b).await.len()), (4, 3));
        assert_eq!(site.table().await.points.len(), 7, "no logs are left of the others");
        assert_eq!(site.world.snapshots().len(), 14);
        site.assert_storage_fits().await;
    });
}

#[test]
fn s23_logs_that_are_kept_shorter_than_fulls_leave_points_of_one_instant() {
    let sim = Sim::new(23);
    sim.run(async {
        let site = Site::new(&sim);
        // The copies are kept for 30 days, the logs, which the fulls bring, for 10.
        let mut copies = policy(1, "copies", Retention::default());
        copies.retention.within_days = Some(30);
        copies.kind = BackupKind::Copy;
        copies.log_retention = LogRetention::Days(10);
        let fulls = policy(2, "fulls", Retention::count(2));
        site.save(&[&fulls, &copies]).await;
        for day in 0..16 {
            site.backed_up(&format!("full-{day}"), &fulls).await;
            site.pass(DAY / 2).await;
            site.backed_up(&format!("copy-{day}"), &copies).await;
            site.pass(DAY / 2).await;
            site.pruned(&format!("prune-{day}")).await;
        }
        assert_eq!((site.of(&copies).await.len(), site.of(&fulls).await.len()), (16, 2));
        let topology = site.this.topology().await.unwrap();
        let of_copies = site.of(&copies).await;
        let shown = |number: usize| {
            let points = &topology.databases[0].points;
            points.iter().find(|point| point.point == of_copies[number]).unwrap()
        };
        let (old, young) = (shown(3), shown(12));
        assert!(young.reach.up_to_the_minute(), "{young:#?}");
        assert!(!old.reach.up_to_the_minute(), "{old:#?}");
        assert_eq!(old.reach.until, old.taken_at, "its own instant only");
        // And to that it can be restored.
        let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\old").unwrap();
        let request =
            RestoreRequest::new(key("old"), old.point, RestoreTarget::AlternatePath(folder));
        let job = site.this.restore(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        site.assert_storage_fits().await;
    });
}

#[test]
fn s24_a_full_whose_verification_failed_does_not_count() {
    let sim = Sim::new(24);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(3));
        assert!(matches!(daily.verification, Verification::BeforeCompletion { .. }));
        site.save(&[&daily]).await;
        site.daily(5, &daily).await;
        site.world.damage().database(&site.world.active("DB01"));
        let job = site.backup("bad", &daily).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        let before = site.points().await;
        let bad = before.last().unwrap();
        let Trust::Suspect { findings, .. } = &bad.trust else { panic!("{bad:#?}") };
        assert!(findings[0].file.contains("DB01"), "the damaged file is named: {findings:#?}");
        let warnings = job.runs.iter().flat_map(|run| &run.warnings);
        let alarms: Vec<_> = warnings.filter(|warning| warning.message.contains("DB01")).collect();
        assert!(!alarms.is_empty(), "and an alarm names it: {job:#?}");
        assert_eq!(bad.truncation, Truncation::NotRequested);
        site.pruned("prune").await;
        // Three good ones, of which the newest is the last good one, and the bad one, which is the newest of its chain.
        let wanted: Vec<_> = before[2..].iter().map(|point| point.id).collect();
        assert_eq!(site.ids().await, wanted);
        let table = site.table().await;
        assert!(table.decisions.points[2].reasons.contains(&Why::NewestGood), "{table:#?}");
        assert!(table.decisions.points[3].reasons.contains(&Why::NewestOfStream), "{table:#?}");
        site.assert_storage_fits().await;
    });
}

#[test]
fn s29_a_machine_that_was_off_for_two_months_wipes_nothing() {
    let mut grid = Retention::default();
    grid.gfs = Some(Gfs { daily: 14, ..Gfs::default() });
    let mut days = grid.clone();
    days.within_days = Some(14);
    let rules = [grid, days];
    for retention in rules {
        let sim = Sim::new(29);
        sim.run(async {
            let site = Site::new(&sim);
            let daily = policy(1, "daily", retention.clone());
            site.save(&[&daily]).await;
            for day in 0..18 {
                site.backed_up(&format!("day-{day}"), &daily).await;
                site.pruned(&format!("prune-{day}")).await;
                site.pass(DAY).await;
            }
            let before = site.ids().await;
            assert_eq!(before.len(), 14);
            site.pass(60 * DAY).await;
            // The first prune, before and after the first backup.
            site.pruned("prune-back").await;
            assert_eq!(site.ids().await, before);
            site.backed_up("back", &daily).await;
            site.pruned("prune-back-2").await;
            let after = site.ids().await;
            assert_eq!(after.len(), 14);
            assert_eq!(after[..13], before[1..]);
            site.assert_storage_fits().await;
        });
    }
}

#[test]
fn s32_locked_points_are_deferred_until_their_release() {
    let sim = Sim::new(32);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(5));
        site.save(&[&daily]).await;
        site.daily(9, &daily).await;
        let points = site.points().await;
        for (days, point) in (10_u32..).zip(points.iter().rev()) {
            // One snapshot of it is enough.
            site.world.lock_snapshot(&point.members[0].snapshot, days * DAY);
        }
        let now = site.this.seams().clock.now();
        let table = site.this.retention(&PruneTarget::everything()).await.unwrap();
        let fates: Vec<Fate> =
            table.databases[0].decisions.points.iter().map(|known| known.fate).collect();
        assert_eq!(fates, [[Fate::Defer; 4].as_slice(), &[Fate::Keep; 5]].concat());
        for (days, known) in [18, 17, 16, 15].into_iter().zip(&table.databases[0].decisions.points)
        {
            assert_eq!(known.reasons[0], Why::Locked { until: now + days * DAY });
        }
        assert_eq!(table.next_due(), Some(now + 15 * DAY));
        site.pruned("prune").await;
        assert_eq!(site.ids().await.len(), 9);
        // By name no more than by rule.
        let named = PruneTarget::of(stillpoint::PruneScope::Point(points[0].id));
        let refused = site.this.retention(&named).await.unwrap_err();
        assert_eq!(refused.code(), "prune.locked");
        // What is due goes.
        site.pass(16 * DAY + Duration::from_secs(1)).await;
        site.pruned("due").await;
        assert_eq!(site.ids().await.len(), 7);
        site.pass(3 * DAY).await;
        site.pruned("due-2").await;
        assert_eq!(site.ids().await.len(), 5);
        site.assert_storage_fits().await;
    });
}

#[test]
fn s33_an_empty_retention_deletes_nothing() {
    let sim = Sim::new(33);
    sim.run(async {
        let site = Site::new(&sim);
        let forever = policy(1, "forever", Retention::default());
        site.save(&[&forever]).await;
        for day in 0..10 {
            site.backed_up(&format!("day-{day}"), &forever).await;
            site.pass(7 * DAY).await;
        }
        let before = site.ids().await;
        let table = site.table().await;
        assert!(table.order.is_empty());
        let keeps_all = |why: &Why| matches!(why, Why::KeepsAll { .. });
        assert!(table.decisions.points.iter().all(|known| known.reasons.iter().any(keeps_all)));
        let job = site.prune("prune", PruneTarget::everything()).await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        assert_eq!((site.ids().await, before.len()), (before.clone(), 10));
        site.assert_storage_fits().await;
    });
}

#[test]
fn s34_members_of_a_point_go_together() {
    let sim = Sim::new(34);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(2));
        site.save(&[&daily]).await;
        site.daily(3, &daily).await;
        let points = site.points().await;
        let going = &points[0];
        site.world.faults().on("delete").about("beta").inject(Fault::fail(Trouble::io()));
        let job = site.prune("prune", PruneTarget::everything()).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(job.runs[0].state, RunState::Ended(RunEnd::SucceededWithWarnings));
        assert!(job.runs[0].debris.is_empty(), "{job:#?}");
        assert!(site.this.debris().await.unwrap().is_empty());
        // It is not deleted, and not restorable either.
        let known = site.this.point(going.id).await.unwrap().unwrap();
        assert_eq!(known.state, PointState::Expiring);
        assert_eq!(site.world.snapshots().len(), 5);
        let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\x").unwrap();
        let target = RestoreTarget::AlternatePath(folder);
        let refused =
            site.this.restore(RestoreRequest::new(key("r"), going.id, target)).await.unwrap_err();
        assert_eq!(refused.code(), "restore.expiring");
        let topology = site.this.topology().await.unwrap();
        let window = &topology.databases[0].window;
        assert!(
            window.intervals.iter().all(|interval| !interval.points.contains(&going.id)),
            "{window:#?}"
        );
        assert_eq!(site.ids().await, [points[1].id, points[2].id]);
        // Later it is tried again.
        site.world.faults().clear();
        site.pruned("again").await;
        assert!(site.this.point(going.id).await.unwrap().is_none());
        assert_eq!(site.world.snapshots().len(), 4);
        site.assert_storage_fits().await;
    });
}

#[test]
fn s30_snapshot_limit() {
    let sim = Sim::new(30);
    sim.run(async {
        // Each volume can have four snapshots, and nobody prunes.
        let site = Site::with_limit(&sim, Some(4));
        let daily = policy(1, "daily", Retention::count(2));
        site.save(&[&daily]).await;
        site.daily(4, &daily).await;
        let before = site.ids().await;
        assert_eq!(before.len(), 4);
        // What is expired is pruned first, and then there is room.
        let job = site.backup("day-4", &daily).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let first: Vec<bool> = job.runs.iter().map(|run| run.follow_up).collect();
        assert_eq!(first, [true, false, true], "{job:#?}");
        let after = site.ids().await;
        assert_eq!(after[..2], before[2..]);
        assert_eq!(after.len(), 3);
        site.assert_storage_fits().await;
        // Where nothing may go it fails, before anything is frozen.
        let mut keeps = daily.clone();
        keeps.retention = Retention::default();
        site.save(&[&daily.edit(keeps).unwrap()]).await;
        site.backed_up("day-5", &daily).await;
        let windows = site.world.freeze_windows().len();
        let job = site.backup("day-6", &daily).await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        let code = &job.skipped[0].end;
        assert!(format!("{code:?}").contains("storage.snapshot_limit"), "{code:?}");
        assert_eq!(site.world.freeze_windows().len(), windows);
        assert_eq!(site.ids().await.len(), 4);
    });
}
