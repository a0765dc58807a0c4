//! Who excludes whom: two backups, or a backup and a restore, of one database never overlap, whatever the order of things;
//! what shares nothing goes side by side.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint::context::{HostPath, PathFlavor, RunId};
use stillpoint::exchange::Coordination;
use stillpoint::model::job::JobState;
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{CallRecord, CopySpec, DatabaseSpec, Fault, VolumeSpec, World};

use super::common::*;

/// How many interleavings each of the properties is tried with.
const SEEDS: u64 = 150;

/// From the first call to the last call of each run, in the order of all calls: steps of a run hold its claims all the time.
fn intervals(calls: &[CallRecord]) -> Vec<(RunId, u64, u64)> {
    let runs: BTreeSet<RunId> = calls.iter().map(|call| call.run).collect();
    let of_run = |run: &RunId| {
        let mine =
            || calls.iter().filter(|call| call.run == *run && call.step.as_str() != "detached");
        let from = mine().map(|call| call.entered).min()?;
        let to = mine().filter_map(|call| call.left).max()?;
        Some((*run, from, to))
    };
    runs.iter().filter_map(of_run).collect()
}

/// Asserts that no two of these runs were at work at once.
fn one_after_another(world: &World, runs: &[RunId]) {
    let all = intervals(&world.calls().all());
    let mut mine: Vec<_> = all.into_iter().filter(|(run, ..)| runs.contains(run)).collect();
    mine.sort_by_key(|(_, from, _)| *from);
    for pair in mine.windows(2) {
        assert!(pair[0].2 < pair[1].1, "{} and {} overlap", pair[0].0, pair[1].0);
    }
    assert_eq!(world.violations(), []);
}

#[test]
fn two_backups_of_one_database_never_overlap() {
    for_seeds("facade", "exclusion::two_backups_of_one_database_never_overlap", SEEDS, |sim| {
        let mode = if sim.seed() % 2 == 0 { Coordination::Engine } else { Coordination::Plugin };
        let world = two_arrays(2);
        sim.run(async {
            let this = stillpoint(sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            // The first is slow somewhere, so that the second comes at any of its moments.
            let slow = ["begin", "prepare", "settle", "verify", "complete"];
            let call = slow[usize::try_from(sim.random() % 5).unwrap()];
            world.faults().on(call).nth(1).inject(Fault::Slow(Duration::from_millis(40)));
            let first = this.backup(request("first")).await.unwrap();
            // Planned before the other has begun, so that only the claims are between them.
            let second = this.backup(request_for("second", &world, &["DB02"])).await.unwrap();
            let (first, second) = (first.wait().await, second.wait().await);
            for job in [&first, &second] {
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            }
            let runs: Vec<_> = first.runs.iter().chain(&second.runs).map(|run| run.run).collect();
            one_after_another(&world, &runs);
            assert_eq!(world.completes().len(), 2);
            world.assert_thawed_in_time();
        });
    });
}

#[test]
fn a_backup_and_a_restore_of_one_database_never_overlap() {
    let name = "exclusion::a_backup_and_a_restore_of_one_database_never_overlap";
    let (tried, begun) = (Cell::new(0_u64), Cell::new(0_u64));
    for_seeds("facade", name, SEEDS, |sim| {
        let mode = if sim.seed() % 2 == 0 { Coordination::Engine } else { Coordination::Plugin };
        let world = two_arrays(1);
        sim.run(async {
            let this = stillpoint(sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            let before = this.backup(request("before")).await.unwrap().wait().await;
            assert_eq!(before.state(), JobState::Succeeded, "{before:#?}");
            let point = this.topology().await.unwrap().databases[0].points[0].point;
            world.calls().clear();
            // Wherever its files go: nobody has to reason about what a backup takes while they appear.
            let host = world.copies().remove(0).host;
            let elsewhere = HostPath::new(host, PathFlavor::Windows, r"R:\restored").unwrap();
            let target = match sim.random() % 2 {
                0 => RestoreTarget::InPlace,
                _ => RestoreTarget::AlternatePath(elsewhere),
            };
            let back = RestoreRequest::new(key("back"), point, target);
            let (backup, restore) = if sim.random() % 2 == 0 {
                let backup = this.backup(request("again")).await.unwrap();
                (backup, this.restore(back).await.unwrap())
            } else {
                let restore = this.restore(back).await.unwrap();
                (this.backup(request("again")).await.unwrap(), restore)
            };
            let (backup, restore) = (backup.wait().await, restore.wait().await);
            assert_eq!(restore.state(), JobState::Succeeded, "{restore:#?}");
            tried.set(tried.get() + 1);
            if world.calls().count("begin") > 0 {
                begun.set(begun.get() + 1);
                assert_eq!(backup.state(), JobState::Succeeded, "{backup:#?}");
            } else {
                // It was planned while the restore had the database out of service: there was nothing to back up.
                assert_eq!((backup.state(), backup.runs.len()), (JobState::Failed, 0));
                let code = backup.failure.as_ref().map(|failure| failure.code.as_str());
                assert_eq!(code, Some("backup.nothing_to_do"), "{backup:#?}");
            }
            let runs: Vec<_> = backup.runs.iter().chain(&restore.runs).map(|run| run.run).collect();
            one_after_another(&world, &runs);
        });
    });
    println!("the backup began under {} of {} seeds", begun.get(), tried.get());
    assert!(begun.get() * 2 > tried.get() || tried.get() == 1, "they hardly ever meet");
}

#[test]
fn backups_that_share_nothing_are_inside_their_freezes_at_the_same_moment() {
    let hosts = ["ex1.example.com", "ex2.example.com"];
    let mut builder = World::builder();
    for (number, host) in hosts.iter().enumerate() {
        let (name, volume) = (format!("DB{number:02}"), format!("vol{number}"));
        builder = builder
            .host(*host)
            .volume(
                VolumeSpec::new(&volume)
                    .mounted(*host, format!(r"V:\{volume}"))
                    .commit(Duration::from_millis(500)),
            )
            .database(DatabaseSpec::new(&name))
            .copy(CopySpec::active(&name, *host).on(&volume, &volume));
    }
    for mode in BOTH {
        let (sim, world) = (Sim::new(19), builder.clone().build());
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            let one = this.backup(request_for("one", &world, &["DB00"])).await.unwrap();
            let two = this.backup(request_for("two", &world, &["DB01"])).await.unwrap();
            for job in [one.wait().await, two.wait().await] {
                assert_eq!(job.state(), JobState::Succeeded, "{mode}: {job:#?}");
            }
        });
        let windows = world.freeze_windows();
        let [one, two] = windows.as_slice() else { panic!("{windows:?}") };
        let (ended_one, ended_two) = (one.ended.unwrap().0, two.ended.unwrap().0);
        let both = one.from.max(two.from);
        assert!(both.mono < ended_one.mono.min(ended_two.mono), "{mode}: {windows:?}");
    }
}

#[test]
fn a_long_verification_does_not_hold_back_another_freeze_of_its_host() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(23), two_arrays(2));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            let long = Duration::from_hours(1);
            world.faults().on("verify").nth(1).inject(Fault::Slow(long));
            let one = this.backup(request_for("one", &world, &["DB01"])).await.unwrap();
            while world.calls().count("verify") == 0 {
                pause(this.seams(), Duration::from_millis(1)).await;
            }
            let two = this.backup(request_for("two", &world, &["DB02"])).await.unwrap();
            let two = within(this.seams(), Duration::from_mins(1), two.wait()).await;
            let two = two.unwrap_or_else(|| panic!("{mode}: it waits for the verification"));
            assert_eq!(two.state(), JobState::Succeeded, "{mode}: {two:#?}");
            assert!(!one.job().state().is_final());
            assert_eq!(one.wait().await.state(), JobState::Succeeded);
        });
    }
}
