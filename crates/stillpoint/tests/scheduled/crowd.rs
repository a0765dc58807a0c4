//! Scenarios 2 and 40: many at once, and what is left out of a group.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use stillpoint::context::HostId;
use stillpoint::model::group::Selector;
use stillpoint::model::job::{JobState, MemberEnd};
use stillpoint_testkit::{Change, Side, World};

use crate::outside::{
    Outside, attach, daily, due_jobs, everything_by, finish, idle, put_group, put_policy, sim_at,
    start, until,
};

/// What counts as a storage operation.
const OPERATIONS: [&str; 4] = ["prepare", "commit", "settle", "delete"];

/// Scenario 2: **Many at once.** Given 40 groups on 10 servers all due at 01:00 with limits storage=8 and freeze slot=1 per host, when
/// the time comes, then never more than 8 storage operations and never two freezes on one host overlap, and all finish; no group waits
/// while an unrelated slot is free.
#[test]
fn s02_many_at_once() {
    assert_eq!(many_at_once(NonZeroU32::new(8)), 8);
    // And without a limit there are as many as servers.
    assert_eq!(many_at_once(None), 10);
}

/// How many storage operations there were at once.
fn many_at_once(limit: Option<NonZeroU32>) -> usize {
    let (sim, outside) = (sim_at(1, "2026-01-05 00:30"), Outside::new(idle(10, 4)));
    for volume in outside.world.volumes() {
        outside.world.slow_volume(&volume, Duration::from_millis(500));
    }
    sim.run(async {
        let mut builder = outside.builder(&sim);
        if let Some(most) = limit {
            builder = builder.storage_operations(most);
        }
        let this = builder.build().unwrap();
        put_policy(&this).await;
        let mut schedule = None;
        for number in 1..=40 {
            let database = outside.world.database(&format!("DB{number:02}"));
            let group = put_group(&this, number, vec![Selector::Database(database)]).await;
            // All by one schedule.
            let id = match schedule {
                None => attach(&this, &group, daily("nightly", 1, 0, "UTC")).await.schedule,
                Some(id) => id,
            };
            let policy = crate::common::policy().id;
            let all =
                stillpoint::model::schedule::AttachmentId { schedule: id, group: group.id, policy };
            this.attach(all).await.unwrap();
            schedule = Some(id);
        }
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:00").await;
        finish(&this, &scheduler).await;
        let jobs = due_jobs(&this).await;
        let groups: BTreeSet<_> = jobs.iter().map(|(_, job)| job.group).collect();
        assert_eq!((jobs.len(), groups.len()), (40, 40), "one each");
        for (_, job) in &jobs {
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        }
        for host in outside.world.hosts() {
            assert!(outside.world.overlapping_freezes(&host).is_empty(), "{host}");
        }
        let windows = outside.world.freeze_windows();
        assert_eq!(windows.len(), 40);
        // Servers do not wait for each other: the first forty seconds see all of them frozen once.
        let first = windows.iter().map(|window| window.from).min().unwrap();
        let soon = |host: &HostId| {
            let of_host = windows.iter().filter(|window| window.host == *host);
            of_host.map(|window| window.from).min().unwrap()
        };
        for host in outside.world.hosts() {
            let after = soon(&host).mono.saturating_since(first.mono);
            assert!(after < Duration::from_secs(40), "{host} waits {after:?}");
        }
    });
    at_once(&outside.world)
}

/// How many storage operations of runs overlapped at most.
fn at_once(world: &World) -> usize {
    let calls = world.calls().filtered(|call| {
        call.side == Side::Storage && OPERATIONS.contains(&call.name) && call.left.is_some()
    });
    let ends = calls.iter().flat_map(|call| [(call.entered, 1), (call.left.unwrap(), -1)]);
    let mut ends: Vec<(u64, isize)> = ends.collect();
    ends.sort_unstable();
    let mut now = 0;
    let counts = ends.into_iter().map(|(_, change)| {
        now += change;
        now
    });
    usize::try_from(counts.max().unwrap()).unwrap()
}

/// Scenario 40: **Maintenance.** Given host H in maintenance, when a group over H and I is due, then only H's members are
/// Skipped{HostMaintenance} and the parent is a warning.
#[test]
fn s40_maintenance() {
    let (sim, outside) = (sim_at(2, "2026-01-05 00:30"), Outside::new(idle(2, 1)));
    sim.run(async {
        let this = outside.process(&sim);
        everything_by(&this, daily("nightly", 1, 0, "UTC")).await;
        outside.world.change(&Change::Maintain("ex1.example.com".parse().unwrap()));
        let scheduler = start(&this);
        until(&this, "2026-01-05 02:00").await;
        finish(&this, &scheduler).await;
        let (_, job) = due_jobs(&this).await.remove(0);
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(job.tally(), (1, 2));
        let skipped: Vec<_> = job.skipped.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(skipped, ["DB01"]);
        let Some(MemberEnd::Skipped { failure }) = &job.skipped[0].end else {
            panic!("{job:#?}");
        };
        let told = format!("{failure:?}");
        assert!(told.contains("maintenance"), "{told}");
    });
}
