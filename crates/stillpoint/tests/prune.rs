//! Prunes: what they must not delete, what they leave, and what goes on beside them.

// Tests may panic and print; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use stillpoint::catalog::{MemoryCatalog, PointQuery};
use stillpoint::context::{ErrorFacts, HostPath, PathFlavor};
use stillpoint::exchange::Coordination;
use stillpoint::model::hold::Hold;
use stillpoint::model::id::{HoldName, PointId, PolicyId, SnapshotId, SnapshotRef};
use stillpoint::model::inventory::FileRole;
use stillpoint::model::job::{Job, JobKind, JobState};
use stillpoint::model::point::{PointState, RestorePoint, Trust};
use stillpoint::model::policy::{LogRetention, Retention, Verification};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint::{PruneRequest, PruneScope, PruneTarget, Stillpoint};
use stillpoint_testkit::{CopySpec, DatabaseSpec, Fault, VolumeSpec, World};

/// Some backups of everything under a policy that keeps the newest, an hour apart.
async fn backed_up(this: &Stillpoint, count: u32) {
    let mut policy = policy();
    policy.retention = Retention::count(1);
    policy.log_retention = LogRetention::None;
    policy.verification = Verification::None;
    this.save_policy(&policy).await.unwrap();
    for number in 0..count {
        backed_up_as(this, &format!("night-{number}")).await;
    }
}

/// One more.
async fn backed_up_as(this: &Stillpoint, name: &str) {
    let job = this.backup(request(name)).await.unwrap();
    let job = end_of(this, &job).await.unwrap();
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    pause(this.seams(), Duration::from_hours(1)).await;
}

/// Every point, oldest first.
async fn points(this: &Stillpoint) -> Vec<RestorePoint> {
    let table = this.retention(&PruneTarget::everything()).await.unwrap();
    let mut points: Vec<_> = table.databases.into_iter().flat_map(|known| known.points).collect();
    points.sort_by_key(|point| (point.taken_at, point.database_name.clone()));
    points
}

async fn states(this: &Stillpoint) -> Vec<PointState> {
    points(this).await.iter().map(|point| point.state).collect()
}

async fn prune(this: &Stillpoint, name: &str, target: PruneTarget) -> Job {
    let job = this.prune(PruneRequest::new(key(name), target)).await.unwrap();
    end_of(this, &job).await.unwrap()
}

fn one(point: PointId) -> PruneTarget {
    PruneTarget::of(PruneScope::Point(point))
}

fn hold(this: &Stillpoint, name: &str, point: PointId) -> Hold {
    let since = this.seams().clock.now();
    Hold::new(HoldName::new(name).unwrap(), [point].into(), "a case", "legal", since)
}

fn codes(job: &Job) -> Vec<String> {
    let warnings = job.runs.iter().flat_map(|run| &run.warnings);
    warnings.map(|warning| warning.code.to_string()).collect()
}

#[test]
fn a_hold_that_comes_while_the_intent_is_made_known_spares_the_point() {
    let (sim, world) = (Sim::new(1), two_arrays(1));
    let rule = Rule::at("decide", Part::Run, Blow::Slow(Duration::from_mins(2))).after();
    let (saboteur, _) = Saboteur::new([rule]);
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, saboteur.tune());
        backed_up(&this, 3).await;
        let old = points(&this).await[0].id;
        let job = this.prune(PruneRequest::new(key("p"), PruneTarget::everything())).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        this.put_hold(&hold(&this, "case-7", old)).await.unwrap();
        let job = end_of(&this, &job).await.unwrap();
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!((job.kind, codes(&job)), (JobKind::Prune, vec!["prune.kept".to_owned()]));
        assert_eq!(states(&this).await, [PointState::Available; 2]);
        assert_eq!((points(&this).await[0].id, world.snapshots().len()), (old, 4));
        // As long as it is held, and no longer.
        let job = prune(&this, "held", PruneTarget::everything()).await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        assert_eq!(this.holds().await.unwrap().len(), 1);
        this.remove_hold(&HoldName::new("case-7").unwrap()).await.unwrap();
        let job = prune(&this, "again", PruneTarget::everything()).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(
            (states(&this).await, world.snapshots().len()),
            (vec![PointState::Available], 2)
        );
        // They are let go right after the end.
        pause(this.seams(), Duration::from_secs(1)).await;
        let locks = this.locks().await.unwrap();
        assert!(locks.is_empty(), "{locks:#?}");
    });
}

#[test]
fn a_hold_on_what_is_being_deleted_comes_too_late() {
    let (sim, world) = (Sim::new(2), two_arrays(1));
    world.faults().on("delete").inject(Fault::Slow(Duration::from_mins(5)));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        let old = points(&this).await[0].id;
        let job = this.prune(PruneRequest::new(key("p"), PruneTarget::everything())).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        let late = this.put_hold(&hold(&this, "late", old)).await.unwrap_err();
        assert_eq!(late.code(), "hold.too_late");
        let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\x").unwrap();
        let request = RestoreRequest::new(key("r"), old, RestoreTarget::AlternatePath(folder));
        assert_eq!(this.restore(request).await.unwrap_err().code(), "restore.expiring");
        drop(end_of(&this, &job).await.unwrap());
        let gone = this.put_hold(&hold(&this, "late", old)).await.unwrap_err();
        assert_eq!(gone.code(), "catalog.not_found");
        assert!(this.holds().await.unwrap().is_empty());
    });
}

#[test]
fn what_fits_is_held_as_it_is_when_it_is_asked_for() {
    let (sim, world) = (Sim::new(7), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let before = this.seams().clock.now();
        backed_up(&this, 2).await;
        let since = this.seams().clock.now();
        backed_up_as(&this, "later").await;
        let known = points(&this).await;
        assert_eq!(known.len(), 6);
        let fits = async |narrow: &dyn Fn(&mut PointQuery)| {
            let mut query = PointQuery::all();
            narrow(&mut query);
            let found = this.holdable(&query).await.unwrap();
            let wanted = known.iter().filter(|point| query.wants(point)).map(|point| point.id);
            assert_eq!(found, wanted.collect(), "{query:?}");
            found
        };
        let database = world.database("DB01");
        assert_eq!(fits(&|_| ()).await.len(), 6);
        let of_one = fits(&|query| query.database = Some(database)).await;
        assert_eq!(of_one.len(), 3);
        assert_eq!(fits(&|query| query.policy = Some(policy().id)).await.len(), 6);
        let later = fits(&|query| query.from = Some(since)).await;
        assert_eq!((later.len(), fits(&|query| query.until = Some(before)).await.len()), (2, 0));
        let nobody = PolicyId(uuid::Uuid::from_u128(9));
        let none = fits(&|query| query.policy = Some(nobody)).await;
        let mut empty = hold(&this, "empty", known[0].id);
        empty.points = none;
        assert_eq!(this.put_hold(&empty).await.unwrap_err().code(), "hold.empty");

        // A hold stays a set of points: what is made afterwards is not in it.
        let mut case = hold(&this, "case-7", known[0].id);
        case.points = of_one;
        this.put_hold(&case).await.unwrap();
        backed_up_as(&this, "last").await;
        assert_eq!(this.holds().await.unwrap(), [case.clone()]);
        // What is being deleted fits no more, though it is there still.
        world.faults().on("delete").inject(Fault::Slow(Duration::from_mins(5)));
        let job = this.prune(PruneRequest::new(key("p"), PruneTarget::everything())).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        let all = this.holdable(&PointQuery::all()).await.unwrap();
        let there = points(&this).await;
        assert!(there.iter().any(|point| point.state == PointState::Expiring), "{there:#?}");
        let stays = there.iter().filter(|point| point.state != PointState::Expiring);
        assert_eq!(all, stays.map(|point| point.id).collect());
        drop(end_of(&this, &job).await.unwrap());
        let kept: BTreeSet<PointId> = points(&this).await.iter().map(|point| point.id).collect();
        assert!(case.points.is_subset(&kept));
    });
}

#[test]
fn what_is_named_goes_once_and_what_must_not_go_is_refused() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 4).await;
        let known = points(&this).await;
        let refused = async |target: PruneTarget| {
            let error = this.prune(PruneRequest::new(key("no"), target)).await.unwrap_err();
            error.code().to_string()
        };
        assert_eq!(refused(one(known[3].id)).await, "prune.last_good");
        this.put_hold(&hold(&this, "case-7", known[2].id)).await.unwrap();
        assert_eq!(refused(one(known[2].id)).await, "prune.held");
        let part = known[1].members[0].snapshot.clone();
        assert_eq!(
            refused(PruneTarget::of(PruneScope::Snapshot(part))).await,
            "prune.partial_point"
        );
        let part_of_nobody = "alpha:x".parse().unwrap();
        let nobody = PruneTarget::of(PruneScope::Snapshot(SnapshotRef::new(
            part_of_nobody,
            SnapshotId::new("y").unwrap(),
        )));
        assert_eq!(refused(nobody).await, "not_found");
        assert!(this.jobs().await.unwrap().iter().all(|job| job.kind == JobKind::Backup));
        // One goes, the others stay for now.
        let request = PruneRequest::new(key("one"), one(known[1].id));
        let job = this.prune(request.clone()).await.unwrap();
        let done = end_of(&this, &job).await.unwrap();
        assert_eq!(done.state(), JobState::Succeeded, "{done:#?}");
        let left: Vec<_> = points(&this).await.iter().map(|point| point.id).collect();
        assert_eq!(left, [known[0].id, known[2].id, known[3].id]);
        // Asked for again it is the same job, also now that the point is gone.
        assert_eq!(this.prune(request).await.unwrap().wait().await, done);
    });
}

#[test]
fn a_backup_of_the_same_database_goes_on_beside_a_prune() {
    let (sim, world) = (Sim::new(4), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 3).await;
        world.faults().on("delete").inject(Fault::Slow(Duration::from_mins(5)));
        let pruned =
            this.prune(PruneRequest::new(key("p"), PruneTarget::everything())).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        let backup = this.backup(request("beside")).await.unwrap();
        let backup = end_of(&this, &backup).await.unwrap();
        assert_eq!(backup.state(), JobState::Succeeded, "{backup:#?}");
        assert_eq!(pruned.job().state(), JobState::Running);
        let pruned = end_of(&this, &pruned).await.unwrap();
        assert_eq!(pruned.state(), JobState::Succeeded, "{pruned:#?}");
        assert_eq!(states(&this).await, [PointState::Available; 2]);
        world.assert_thawed_in_time();
    });
}

#[test]
fn a_prune_waits_for_the_restore_of_a_point_that_it_deletes() {
    let (sim, world) = (Sim::new(5), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        let old = points(&this).await[0].id;
        world.faults().on("restore.stage").inject(Fault::Slow(Duration::from_mins(20)));
        let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\x").unwrap();
        let request = RestoreRequest::new(key("r"), old, RestoreTarget::AlternatePath(folder));
        let restore = this.restore(request).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        let pruned =
            this.prune(PruneRequest::new(key("p"), PruneTarget::everything())).await.unwrap();
        pause(this.seams(), Duration::from_mins(1)).await;
        assert_eq!(pruned.job().state(), JobState::Queued, "{:#?}", pruned.job());
        assert_eq!(states(&this).await, [PointState::Available; 2]);
        let restore = end_of(&this, &restore).await.unwrap();
        assert_eq!(restore.state(), JobState::Succeeded, "{restore:#?}");
        let pruned = end_of(&this, &pruned).await.unwrap();
        assert_eq!(pruned.state(), JobState::Succeeded, "{pruned:#?}");
        assert_eq!(states(&this).await, [PointState::Available]);
    });
}

/// Two databases that share their volume, so that they are in one snapshot.
fn shared() -> World {
    let mut builder =
        World::builder().host(HOST).volume(VolumeSpec::new("vol01").mounted(HOST, r"V:\Vol01"));
    for name in ["DB01", "DB02"] {
        builder = builder
            .database(DatabaseSpec::new(name).writes_every(Duration::from_mins(1)))
            .copy(CopySpec::active(name, HOST).on("vol01", "vol01").preference(1));
    }
    builder.build()
}

#[test]
fn a_snapshot_of_two_databases_goes_with_the_last_of_them() {
    for_seeds("prune", "a_snapshot_of_two_databases", 8, |sim| {
        let world = shared();
        sim.run(async {
            let this = stillpoint(sim, &world, Coordination::Engine, |engine| engine);
            backed_up(&this, 3).await;
            assert_eq!(world.snapshots().len(), 3);
            let first = PruneScope::Databases([world.database("DB01")].into());
            let job = prune(&this, "first", PruneTarget::of(first)).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert_eq!((points(&this).await.len(), world.snapshots().len()), (4, 3));
            let second = PruneScope::Databases([world.database("DB02")].into());
            let job = prune(&this, "second", PruneTarget::of(second)).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert_eq!((points(&this).await.len(), world.snapshots().len()), (2, 1));
        });
    });
}

#[test]
fn two_databases_of_one_snapshot_that_are_pruned_at_once_leave_nothing() {
    for_seeds("prune", "two_databases_of_one_snapshot", 24, |sim| {
        let world = shared();
        sim.run(async {
            let this = stillpoint(sim, &world, Coordination::Engine, |engine| engine);
            backed_up(&this, 3).await;
            let held = points(&this).await[0].id;
            this.put_hold(&hold(&this, "case", held)).await.unwrap();
            let job = prune(&this, "both", PruneTarget::everything()).await;
            assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 2), "{job:#?}");
            // The held one is whole, and so are the two newest.
            assert_eq!(states(&this).await, [PointState::Available; 3]);
            assert_eq!(world.snapshots().len(), 2);
            assert!(world.violations().is_empty());
        });
    });
}

#[test]
fn what_the_storage_keeps_unasked_is_spared_while_it_is_whole() {
    let (sim, world) = (Sim::new(7), two_arrays(1));
    sim.run(async {
        // This storage cannot be asked for its locks: it refuses.
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        let old = points(&this).await.remove(0);
        let [data, logs] = [0, 1].map(|at| old.members[at].snapshot.clone());
        world.hold(&data, true);
        let job = prune(&this, "held", PruneTarget::everything()).await;
        assert_eq!(
            (job.state(), codes(&job)),
            (JobState::SucceededWithWarnings, vec!["prune.kept".to_owned()])
        );
        assert_eq!(
            (states(&this).await, world.snapshots().len()),
            (vec![PointState::Available; 2], 4)
        );
        // Of one that is not whole any more nothing is promised.
        world.hold(&data, false);
        world.lock_snapshot(&logs, Duration::from_hours(48));
        let job = prune(&this, "locked", PruneTarget::everything()).await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(states(&this).await, [PointState::Expiring, PointState::Available]);
        pause(this.seams(), Duration::from_hours(49)).await;
        let job = prune(&this, "over", PruneTarget::everything()).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(
            (states(&this).await, world.snapshots().len()),
            (vec![PointState::Available], 2)
        );
    });
}

#[test]
fn a_storage_that_deletes_later_is_waited_for_but_not_for_ever() {
    for (minutes, wanted) in [(2, JobState::Succeeded), (120, JobState::SucceededWithWarnings)] {
        let (sim, world) = (Sim::new(8), two_arrays(1));
        sim.run(async {
            let time = Duration::from_mins(minutes);
            let mut builder = Stillpoint::builder(Arc::new(world.exchange()))
                .seams(sim.seams())
                .lanes(sim.lanes());
            for array in ["alpha", "beta"] {
                let provider =
                    world.storage_named(array).with_behaviour(|how| how.deletes_in = time);
                builder = builder.provider(Arc::new(provider));
            }
            let this = builder.build().unwrap();
            backed_up(&this, 2).await;
            let job = prune(&this, "later", PruneTarget::everything()).await;
            assert_eq!(job.state(), wanted, "{job:#?}");
            if wanted == JobState::SucceededWithWarnings {
                assert_eq!(codes(&job), ["prune.pending"]);
                assert_eq!(states(&this).await, [PointState::Expiring, PointState::Available]);
                pause(this.seams(), Duration::from_hours(3)).await;
                let job = prune(&this, "by-then", PruneTarget::everything()).await;
                assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            }
            assert_eq!(
                (states(&this).await, world.snapshots().len()),
                (vec![PointState::Available], 2)
            );
        });
    }
}

#[test]
fn a_storage_that_is_away_keeps_its_points_with_that_as_the_reason() {
    let (sim, world) = (Sim::new(9), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        let elsewhere = Stillpoint::builder(Arc::new(world.exchange()))
            .provider(Arc::new(world.storage_named("alpha")))
            .seams(sim.seams())
            .lanes(sim.lanes());
        let catalog = Arc::new(MemoryCatalog::new());
        let elsewhere = elsewhere.catalog(Arc::clone(&catalog) as _).build().unwrap();
        for point in points(&this).await {
            use stillpoint::catalog::Catalog as _;
            let fact = stillpoint::model::point::PointFact::Published(Box::new(point));
            catalog.apply(&[fact], None).await.unwrap();
        }
        elsewhere
            .save_policy(&{
                let mut policy = policy();
                policy.retention = Retention::count(1);
                policy
            })
            .await
            .unwrap();
        let table = elsewhere.retention(&PruneTarget::everything()).await.unwrap();
        assert!(table.is_empty(), "{table:#?}");
        let why = table.databases[0].decisions.points[0].reasons[0].word();
        assert_eq!(why, "lock_unknown");
    });
}

#[test]
fn a_backup_may_prune_afterwards_but_not_if_a_database_failed() {
    let (sim, world) = (Sim::new(10), World::one_server(5));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        assert_eq!(points(&this).await.len(), 10);
        let back_up = async |name: &str| {
            pause(this.seams(), Duration::from_hours(1)).await;
            let mut request = request(name);
            request.prune = true;
            let job = this.backup(request).await.unwrap();
            end_of(&this, &job).await.unwrap()
        };
        // Scenario 52: four of five came out well, so nothing of the policy is deleted.
        let mut verified = policy();
        verified.retention = Retention::count(1);
        verified.log_retention = LogRetention::None;
        this.save_policy(&this.policy(verified.id).await.unwrap().unwrap().edit(verified).unwrap())
            .await
            .unwrap();
        world.damage().database(&world.active("DB03"));
        let job = back_up("partial").await;
        assert_eq!((job.state(), job.tally()), (JobState::SucceededWithWarnings, (4, 5)));
        assert!(job.warnings.iter().any(|warning| warning.code == "prune.not_done"), "{job:#?}");
        assert!(job.runs.iter().all(|run| !run.follow_up));
        assert_eq!(points(&this).await.len(), 15);
    });
    let (sim, world) = (Sim::new(11), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        backed_up(&this, 2).await;
        let mut request = request("whole");
        request.prune = true;
        let job = this.backup(request).await.unwrap();
        let job = end_of(&this, &job).await.unwrap();
        assert_eq!((job.state(), job.tally()), (JobState::Succeeded, (2, 2)), "{job:#?}");
        assert_eq!(job.runs.iter().filter(|run| run.follow_up).count(), 2);
        assert_eq!(states(&this).await, [PointState::Available; 2]);
    });
}

/// A policy that verifies at leisure: until it is known that the newest backup is good, the one before it is all that is.
#[test]
fn the_last_one_that_is_known_to_be_good_stays_until_a_newer_one_is_verified() {
    let (sim, world) = (Sim::new(12), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.retention = Retention::count(1);
        policy.verification = Verification::AfterCompletion;
        this.save_policy(&policy).await.unwrap();
        backed_up_as(&this, "good").await;
        let good = points(&this).await[0].id;
        world.faults().on("verify").inject(Fault::Slow(Duration::from_hours(2)));
        let bad = this.backup(request("bad")).await.unwrap();
        pause(this.seams(), Duration::from_hours(1)).await;
        assert_eq!(states(&this).await, [PointState::Available; 2]);
        let newer = points(&this).await.remove(1);
        let file = newer.files.iter().find(|file| file.role == FileRole::Database).unwrap();
        world.damage().stored_file(&file.snapshot, &file.path, 325);
        drop(prune(&this, "beside", PruneTarget::everything()).await);
        drop(end_of(&this, &bad).await.unwrap());
        let newer = this.point(newer.id).await.unwrap().unwrap();
        assert!(matches!(newer.trust, Trust::Suspect { .. }), "{newer:#?}");
        drop(prune(&this, "after", PruneTarget::everything()).await);
        let left = points(&this).await;
        assert!(left.iter().any(|point| point.id == good), "{left:#?}");
        // Once a newer one is verified it goes.
        world.faults().clear();
        backed_up_as(&this, "newer").await;
        drop(prune(&this, "late", PruneTarget::everything()).await);
        assert_eq!(states(&this).await, [PointState::Available]);
    });
}
