//! How jobs end: whatever is cancelled, panics, hangs, is asked for twice or is settled by hand, a job ends and tells the truth.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint::context::{BoxFuture, Effect, Seams};
use stillpoint::exchange::Coordination;
use stillpoint::model::id::{CopyId, PointId};
use stillpoint::model::job::{Job, JobState, MemberEnd, RunEnd, RunState};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::point::{PointState, Truncation};
use stillpoint::model::policy::{CopySelection, OnMiss, Verification};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::topology::Protection;
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint::workflow::{Payload, Resolution};
use stillpoint::{ForgetOptions, JobHandle, PruneTarget, Stillpoint, Timeouts, VerifyRequest};
use stillpoint_testkit::{
    Change, CopySpec, DatabaseSpec, Fault, RandomFaults, Trouble, VolumeSpec, World,
};

use super::common::hooked::{Hooked, When};
use super::common::*;

/// Waits until this holds of a job, at most an hour.
async fn until(this: &Stillpoint, job: &JobHandle, holds: impl Fn(&Job) -> bool) -> Job {
    for _ in 0..36_000 {
        let now = job.job();
        if holds(&now) {
            return now;
        }
        pause(this.seams(), Duration::from_millis(100)).await;
    }
    panic!("it never comes so far: {:#?}", job.job());
}

#[test]
fn a_cancel_in_the_pause_before_a_retry_ends_the_job_cancelled() {
    let (sim, world) = (Sim::new(5), slow_world(Duration::from_secs(25)));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.quiesce.limit = Some(Duration::from_secs(2));
        let times = NonZeroU32::new(2).unwrap();
        policy.quiesce.on_miss = OnMiss::Retry { times, pause: Duration::from_hours(1) };
        this.save_policy(&policy).await.unwrap();
        let job = this.backup(request("slow")).await.unwrap();
        let ended =
            |job: &Job| matches!(job.runs.first().map(|r| r.state), Some(RunState::Ended(_)));
        let paused = until(&this, &job, ended).await;
        pause(this.seams(), Duration::from_mins(10)).await;
        // Nobody takes the run's place yet, and the job is not over.
        assert_eq!(job.job(), paused);
        assert_eq!(paused.state(), JobState::Running, "{paused:#?}");
        assert_eq!((paused.runs.len(), paused.runs[0].superseded_by), (1, None));
        job.cancel("a test").await.unwrap();
        let job = within(this.seams(), Duration::from_secs(1), job.wait()).await.unwrap();
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
        assert_eq!((job.runs.len(), job.stopped_by.as_deref()), (1, Some("a test")));
        assert!(job.ended_at.is_some());
        assert!(world.snapshots().is_empty() && world.completes().is_empty());
        assert_eq!(this.job(job.id).await.unwrap().unwrap(), job);
    });
}

#[test]
fn a_cancel_while_a_stale_plan_is_made_again_ends_the_job_cancelled() {
    let (sim, world) = (Sim::new(7), World::dag(2, 1));
    let stale = Blow::Fail { effect: Effect::None, retryable: false };
    let rule = Rule::on_action("backup.confirm", Part::Run, stale);
    let (saboteur, _) = Saboteur::new([rule]);
    let saboteur = saboteur.failing_with("plan.stale");
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, saboteur.tune());
        this.save_policy(&policy()).await.unwrap();
        world.faults().on("inventory").step("detached").nth(2).inject(Fault::Deaf);
        let job = this.backup(request("moving")).await.unwrap();
        let ended =
            |job: &Job| matches!(job.runs.first().map(|r| r.state), Some(RunState::Ended(_)));
        let between = until(&this, &job, ended).await;
        assert_eq!(between.state(), JobState::Running, "{between:#?}");
        job.cancel("a test").await.unwrap();
        let job = within(this.seams(), Duration::from_secs(1), job.wait()).await.unwrap();
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
        assert_eq!((job.runs.len(), job.runs[0].superseded_by), (1, None));
    });
}

/// Databases `DB01` on the first and `DB02` on the second of two servers, each with a passive copy on the other.
fn crossed() -> World {
    let hosts = ["ex1.example.com", "ex2.example.com"];
    let mut builder = World::builder().host(hosts[0]).host(hosts[1]).dag("DAG1", hosts);
    for (number, name) in ["DB01", "DB02"].into_iter().enumerate() {
        builder = builder.database(DatabaseSpec::new(name));
        for (place, host) in hosts.into_iter().enumerate() {
            let volume = format!("{name}-{place}");
            builder = builder
                .volume(VolumeSpec::new(&volume).mounted(host, format!(r"D:\{volume}")))
                .copy(if number == place {
                    CopySpec::active(name, host).on(&volume, &volume)
                } else {
                    CopySpec::passive(name, host).on(&volume, &volume)
                });
        }
    }
    builder.build()
}

#[test]
fn a_job_is_not_settled_while_a_set_pauses_before_its_retry() {
    let (sim, world) = (Sim::new(11), crossed());
    // One set misses its freeze and pauses; the other one parks meanwhile, as the first will after its retry.
    world.faults().on("commit").about("DB02").nth(1).inject(Fault::Slow(Duration::from_secs(25)));
    world.faults().on("complete").inject(Fault::fail(Trouble::timed_out()));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.quiesce.limit = Some(Duration::from_secs(2));
        let times = NonZeroU32::new(2).unwrap();
        policy.quiesce.on_miss = OnMiss::Retry { times, pause: Duration::from_hours(9) };
        this.save_policy(&policy).await.unwrap();
        let handle = this.backup(request("slow")).await.unwrap();
        let first = handle.wait().await;
        assert_eq!(first.state(), JobState::Parked, "{first:#?}");
        let job = handle.settled().await;
        let states: Vec<_> = job.runs.iter().map(|run| run.state).collect();
        assert_eq!(states.len(), 3, "{job:#?}");
        assert_eq!(states.iter().filter(|state| **state == RunState::Parked).count(), 2);
        for run in job.runs.iter().filter(|run| run.state == RunState::Parked) {
            drop(this.abandon(run.run, "op").await.unwrap());
        }
        assert!(handle.settled().await.state().is_final());
    });
}

/// As soon as a plan has seen what there is, the first database moves to where the second one is: what is active then.
fn moves_once_planned(world: &World) -> CopyId {
    let (database, to) = (world.database("DB01"), world.active("DB02").host);
    let rule = world.faults().on("inventory").step("detached").nth(1).after_effect();
    rule.inject(Fault::Change(Change::FailOver { database, to: to.clone() }));
    CopyId::new(database, to)
}

#[test]
fn planning_again_backs_up_only_what_went_out_of_date() {
    let (sim, world) = (Sim::new(11), crossed());
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.selection = CopySelection::ActiveOnly;
        this.save_policy(&policy).await.unwrap();
        let moved = moves_once_planned(&world);
        let job = this.backup(request("moved")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(job.runs.len(), 3, "{job:#?}");
        assert_eq!(job.tally(), (2, 2), "{job:#?}");
        let mut backed_up: BTreeMap<CopyId, u32> = BTreeMap::new();
        for complete in world.completes() {
            for copy in complete.good() {
                *backed_up.entry(copy.clone()).or_default() += 1;
            }
        }
        let once = [moved, world.active("DB02")].map(|copy| (copy, 1));
        assert_eq!(backed_up, BTreeMap::from(once));
    });
}

#[test]
fn what_went_out_of_date_is_planned_again_beside_the_sets_that_did_not() {
    let (sim, world) = (Sim::new(11), crossed());
    // Of the set that goes on: the other one is still to be planned.
    world.faults().on("complete").nth(1).inject(Fault::fail(Trouble::timed_out()));
    sim.run(async {
        let mut timeouts = Timeouts::default();
        timeouts.attempts = 1;
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.timeouts(timeouts).build().unwrap();
        let mut policy = policy();
        policy.selection = CopySelection::ActiveOnly;
        this.save_policy(&policy).await.unwrap();
        let moved = moves_once_planned(&world);
        let handle = this.backup(request("moved")).await.unwrap();
        // The other set waits for a person, and nobody waits for that.
        let job = handle.settled().await;
        assert_eq!(job.state(), JobState::Parked, "{job:#?}");
        let states: Vec<_> = job.runs.iter().map(|run| run.state).collect();
        assert_eq!(states.len(), 3, "{job:#?}");
        assert_eq!(states[2], RunState::Ended(RunEnd::Succeeded), "{job:#?}");
        assert_eq!(job.runs[2].members[0].copy.as_ref(), Some(&moved));
        let parked = job.runs.iter().find(|run| run.state == RunState::Parked).unwrap();
        assert_eq!(parked.members[0].name, "DB02");
        drop(this.abandon(parked.run, "op").await.unwrap());
        assert_eq!(handle.wait().await.tally(), (2, 2));
    });
}

/// A side that does not do what it should while a backup is planned.
async fn planned_badly(this: &Stillpoint, world: &World, what: &str) -> Job {
    let handle = this.backup(request(what)).await.unwrap();
    let limit = Timeouts::default().inventory + Duration::from_secs(10);
    let job = within(this.seams(), limit, handle.wait()).await;
    let job = job.unwrap_or_else(|| panic!("{what}: it does not end: {:#?}", handle.job()));
    assert_eq!(job.state(), JobState::Failed, "{what}: {job:#?}");
    assert!(job.failure.is_some() && job.ended_at.is_some(), "{what}: {job:#?}");
    assert_eq!(this.job(job.id).await.unwrap().unwrap(), job, "{what}");
    assert!(world.completes().is_empty());
    job
}

#[test]
fn a_side_that_panics_or_hangs_while_a_backup_is_planned_fails_the_job() {
    for call in ["inventory", "resolve", "volumes"] {
        for fault in [Fault::Panic, Fault::Deaf, Fault::Hang] {
            let (sim, world) = (Sim::new(3), two_arrays(1));
            sim.run(async {
                let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
                this.save_policy(&policy()).await.unwrap();
                world.faults().on(call).step("detached").nth(1).inject(fault.clone());
                let job = planned_badly(&this, &world, &format!("{call}-{fault:?}")).await;
                let code = job.failure.unwrap().code;
                let wanted = if fault == Fault::Panic { "job.panicked" } else { "job.timed_out" };
                assert_eq!(code, wanted, "{call} {fault:?}");
                let next = this.backup(request("next")).await.unwrap().wait().await;
                assert_eq!(next.state(), JobState::Succeeded, "{next:#?}");
            });
        }
    }
}

#[test]
fn a_catalogue_that_panics_or_hangs_fails_the_job_and_does_not_keep_it_open() {
    for call in ["points", "policy"] {
        for panics in [true, false] {
            let (sim, world) = (Sim::new(3), two_arrays(1));
            let count = AtomicU32::new(0);
            // The policy is read once before there is a job.
            let first = u32::from(call == "policy");
            let catalog = Hooked::new(move |name, when| {
                let hit = name == call
                    && when == When::Before
                    && count.fetch_add(1, Ordering::SeqCst) == first;
                hit.then(|| -> BoxFuture<'static, ()> {
                    Box::pin(async move {
                        if panics {
                            std::panic::resume_unwind(Box::new("sabotaged"));
                        }
                        std::future::pending::<()>().await;
                    })
                })
            });
            sim.run(async {
                let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
                let this = this.catalog(catalog).build().unwrap();
                this.save_policy(&policy()).await.unwrap();
                let _job = planned_badly(&this, &world, call).await;
            });
        }
    }
}

#[test]
fn a_catalogue_that_hangs_at_the_end_of_a_job_does_not_keep_it_open() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    let catalog = Hooked::new(|name, when| {
        let hit = name == "put_job" && when == When::Before;
        hit.then(|| -> BoxFuture<'static, ()> { Box::pin(std::future::pending()) })
    });
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.catalog(catalog).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let job = this.backup(request("unstored")).await.unwrap();
        let job = within(this.seams(), Duration::from_hours(1), job.wait()).await;
        assert_eq!(job.expect("it ends").state(), JobState::Succeeded);
    });
}

/// The process ends between the records of a job and the job: the job can be shown, and goes the next time.
#[test]
fn a_job_whose_records_are_forgotten_goes_the_next_time() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    let hangs = Arc::new(AtomicU32::new(1));
    let once = Arc::clone(&hangs);
    let catalog = Hooked::new(move |name, when| {
        let hit = name == "forget_jobs" && when == When::Before;
        (hit && once.swap(0, Ordering::SeqCst) == 1)
            .then(|| -> BoxFuture<'static, ()> { Box::pin(std::future::pending()) })
    });
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.catalog(catalog).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let job = this.backup(request("old")).await.unwrap().wait().await;
        this.backup(request("new")).await.unwrap().wait().await;
        let now = this.seams().clock.now();
        let mut options = ForgetOptions::before(now);
        options.newest = 1;
        let hanging = this.forget(&options);
        assert!(within(this.seams(), Duration::from_hours(1), hanging).await.is_none());
        let account = this.account(job.id).await.unwrap().unwrap();
        assert_eq!((&account.job, account.runs.len()), (&job, 0));
        assert_eq!(this.forget(&options).await.unwrap(), 1);
        assert!(this.job(job.id).await.unwrap().is_none());
        // Its key is free.
        let again = this.backup(request("old")).await.unwrap();
        assert_ne!(again.id(), job.id);
        assert_eq!(again.wait().await.state(), JobState::Succeeded);
    });
}

#[test]
fn a_cancel_ends_a_planning_that_hangs() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        this.save_policy(&policy()).await.unwrap();
        world.faults().on("volumes").step("detached").inject(Fault::Deaf);
        let job = this.backup(request("hanging")).await.unwrap();
        pause(this.seams(), Duration::from_secs(10)).await;
        job.cancel("a test").await.unwrap();
        let job = within(this.seams(), Duration::from_secs(1), job.wait()).await.unwrap();
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
        assert_eq!(job.stopped_by.as_deref(), Some("a test"));
    });
}

async fn two_points(this: &Stillpoint) -> Vec<PointId> {
    this.save_policy(&policy()).await.unwrap();
    let job = this.backup(request("before")).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let points = this.topology().await.unwrap().databases;
    points.iter().flat_map(|database| &database.points).map(|point| point.point).collect()
}

#[test]
fn a_verification_cancelled_before_its_points_ends_cancelled() {
    let (sim, world) = (Sim::new(3), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let points = two_points(&this).await;
        let job = this.verify(VerifyRequest::new(key("verify"), points)).await.unwrap();
        job.cancel("a test").await.unwrap();
        let job = job.wait().await;
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
    });
}

#[test]
fn a_verification_cancelled_between_its_points_ends_cancelled() {
    let (sim, world) = (Sim::new(3), two_arrays(2));
    let cancelled: Arc<Mutex<Option<JobHandle>>> = Arc::default();
    let to_cancel = Arc::clone(&cancelled);
    // The catalogue is fed when the first run has ended: what it found is taken in, and the second has not begun.
    let catalog = Hooked::new(move |name, when| {
        let job = to_cancel.lock().unwrap().clone()?;
        let hit = name == "apply" && when == When::After;
        hit.then(|| -> BoxFuture<'static, ()> {
            Box::pin(async move { job.cancel("a test").await.unwrap() })
        })
    });
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.catalog(catalog).build().unwrap();
        let points = two_points(&this).await;
        let job = this.verify(VerifyRequest::new(key("verify"), points)).await.unwrap();
        *cancelled.lock().unwrap() = Some(job.clone());
        let job = job.wait().await;
        assert_eq!(job.runs.len(), 1, "{job:#?}");
        assert_eq!(job.runs[0].state, RunState::Ended(RunEnd::Succeeded));
        assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
    });
}

/// Nothing was restored, verified or pruned, so nothing may be counted as if it had been.
#[test]
fn a_job_cancelled_before_it_has_begun_counts_no_database_as_done() {
    let (sim, world) = (Sim::new(3), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let points = two_points(&this).await;
        let back = RestoreRequest::new(key("back"), points[0], RestoreTarget::InPlace);
        let first = VerifyRequest::new(key("verify"), vec![points[0]]);
        for job in [this.restore(back).await.unwrap(), this.verify(first).await.unwrap()] {
            job.cancel("a test").await.unwrap();
            let job = job.wait().await;
            assert_eq!(job.state(), JobState::Cancelled, "{job:#?}");
            assert_eq!(job.tally().0, 0, "{job:#?}");
            for member in job.runs.iter().flat_map(|run| &run.members) {
                let Some(MemberEnd::Failed { failure }) = &member.end else {
                    panic!("it came to nothing: {job:#?}");
                };
                assert_eq!(failure.code, "run.cancelled");
            }
        }
    });
}

/// A hook that waits an hour after the n-th call of a name.
fn linger(seams: Seams, wanted: &'static str, nth: u32) -> Arc<Hooked> {
    let count = AtomicU32::new(0);
    Hooked::new(move |name, when| {
        let hit = name == wanted
            && when == When::After
            && count.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        let seams = seams.clone();
        hit.then(|| -> BoxFuture<'static, ()> {
            Box::pin(async move { pause(&seams, Duration::from_hours(1)).await })
        })
    })
}

#[test]
fn a_repeat_that_comes_as_the_job_ends_gets_the_job_as_it_ended() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let catalog = linger(sim.seams(), "begin_job", 2);
        let this = this.catalog(catalog).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let first = this.backup(request("key")).await.unwrap();
        let again = this.backup(request("key")).await.unwrap();
        let first = first.wait().await;
        assert_eq!(first.state(), JobState::Succeeded);
        assert_eq!(again.job(), first);
    });
}

#[test]
fn a_job_that_ends_while_jobs_are_listed_is_never_listed_as_it_began() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.catalog(linger(sim.seams(), "jobs", 1)).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        world.faults().on("verify").inject(Fault::Slow(Duration::from_secs(30)));
        let job = this.backup(request("key")).await.unwrap();
        let _running = until(&this, &job, |job| !job.runs.is_empty()).await;
        assert!(!job.job().state().is_final());
        let listed = this.jobs().await.unwrap();
        assert!(job.job().state().is_final(), "it ended meanwhile");
        // As it was when the listing began, or as it ended; never as it was stored before.
        assert!(!listed[0].runs.is_empty(), "{listed:#?}");
    });
}

/// A backup whose completion stays unclear: parked past its point of no return.
async fn parked(this: &Stillpoint, world: &World) -> JobHandle {
    this.save_policy(&policy()).await.unwrap();
    world.faults().on("complete").inject(Fault::fail(Trouble::timed_out()));
    let handle = this.backup(request("parked")).await.unwrap();
    assert_eq!(handle.wait().await.state(), JobState::Parked);
    let topology = this.topology().await.unwrap();
    let [database] = topology.databases.as_slice() else { panic!("{topology:#?}") };
    assert_eq!(database.points[0].state, PointState::Provisional);
    assert_ne!(database.protection, Protection::Protected, "nobody can rely on it yet");
    handle
}

/// What is left of it once somebody has settled it by hand.
async fn settled_by_hand(this: &Stillpoint, job: &JobHandle) -> Job {
    let job = until(this, job, |job| job.ended_at.is_some()).await;
    let Some(MemberEnd::Point { point, .. }) = job.runs[0].members[0].end else {
        panic!("{job:#?}")
    };
    let point = this.point(point).await.unwrap().unwrap();
    assert_eq!((point.state, point.truncation), (PointState::Available, Truncation::Unknown));
    assert!(job.warnings.iter().any(|w| w.code == "complete.unconfirmed"), "{job:#?}");
    let topology = this.topology().await.unwrap();
    assert_eq!(topology.databases[0].protection, Protection::Protected);
    job
}

#[test]
fn the_points_of_a_run_that_is_abandoned_past_no_return_can_be_used() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(3), two_arrays(1));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            let job = parked(&this, &world).await;
            let run = this.engine().run(job.job().runs[0].run).unwrap();
            run.abandon("an operator").await.unwrap();
            let job = settled_by_hand(&this, &job).await;
            assert_eq!(job.state(), JobState::NeedsAttention, "{job:#?}");
        });
    }
}

#[test]
fn the_points_of_a_run_whose_completion_is_resolved_by_hand_can_be_used() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(3), two_arrays(1));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            let job = parked(&this, &world).await;
            let run = this.engine().run(job.job().runs[0].run).unwrap();
            let nothing = Payload::of(&BTreeMap::<CopyId, u8>::new()).unwrap();
            run.resolve("an operator", "complete", Resolution::Done(nothing)).await.unwrap();
            let job = settled_by_hand(&this, &job).await;
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        });
    }
}

#[test]
fn a_session_outlives_all_that_its_backup_may_take() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(3), two_arrays(1));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            // Nearly as long as each may take.
            let limits = Timeouts::default();
            let mut policy = policy();
            if let Verification::BeforeCompletion { cap, .. } = &mut policy.verification {
                *cap = Some(limits.verify);
            }
            this.save_policy(&policy).await.unwrap();
            let short = Duration::from_secs(10);
            let slow = |call: &str, limit: Duration| {
                world.faults().on(call).nth(1).inject(Fault::Slow(limit.saturating_sub(short)));
            };
            slow("prepare", limits.prepare);
            slow("settle", limits.settle);
            slow("verify", limits.verify);
            let job = this.backup(request("long")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::Succeeded, "{mode}: {job:#?}");
            assert_eq!(world.completes().len(), 1, "{mode}");
        });
    }
}

/// Whatever goes wrong at random, also while it is planned, a job ends.
#[test]
fn a_job_ends_whatever_goes_wrong() {
    for_seeds("facade", "jobs::a_job_ends_whatever_goes_wrong", 60, |sim| {
        let world = two_arrays(2);
        let mode = if sim.seed() % 2 == 0 { Coordination::Engine } else { Coordination::Plugin };
        sim.run(async {
            let this = stillpoint(sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            world.faults().random(RandomFaults::new(sim.seed()).one_in(4).at_most(6));
            let asked = request("random");
            let job = this.backup(asked).await.unwrap();
            let ended = end_of(&this, &job).await;
            let ended = ended.unwrap_or_else(|| panic!("it does not end: {:#?}", job.job()));
            let over = ended.state().is_final() && ended.ended_at.is_some();
            assert!(over || ended.state() == JobState::Parked, "{ended:#?}");
        });
    });
}

/// The policy is edited between the request and the planning, as it may be while a hook runs before a job or a restore is waited for.
#[test]
fn a_job_is_carried_out_by_the_version_of_the_policy_that_it_pins() {
    let (sim, world) = (Sim::new(17), two_arrays(1));
    let clock = sim.seams().clock;
    let catalog = Hooked::new(move |name, when| {
        let waits = (name, when) == ("begin_job", When::After);
        waits.then(|| clock.sleep_until(clock.mono() + Duration::from_mins(1)))
    });
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine);
        let this = this.catalog(catalog).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let edit = async {
            pause(this.seams(), Duration::from_secs(30)).await;
            let mut edited = policy();
            edited.kind = BackupKind::Copy;
            this.save_policy(&policy().edit(edited).unwrap()).await.unwrap();
        };
        let (job, ()) = futures_util::future::join(this.backup(request("night")), edit).await;
        let job = end_of(&this, &job.unwrap()).await.unwrap();
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(job.policy, Some(policy().reference()));
        let points = this.retention(&PruneTarget::everything()).await.unwrap().databases;
        let point = &points[0].points[0];
        assert_eq!((&point.policy, point.kind), (&job.policy, BackupKind::FullAndLog));
    });
}
