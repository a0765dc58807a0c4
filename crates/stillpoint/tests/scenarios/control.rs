//! What somebody does to a job that is under way.

use std::time::Duration;

use stillpoint::context::Seams;
use stillpoint::exchange::Coordination;
use stillpoint::model::job::JobState;
use stillpoint::model::policy::Verification;
use stillpoint::workflow::testing::Sim;
use stillpoint::{JobEvent, JobHandle, Stillpoint};
use stillpoint_testkit::{Fault, World};

use crate::common::{BOTH, pause, policy, request, stillpoint, two_arrays, within};

/// Waits until a call of this name is under way.
async fn until_in(seams: &Seams, world: &World, name: &str) {
    while world.calls().count(name) == 0 {
        pause(seams, Duration::from_millis(10)).await;
    }
}

async fn begun(this: &Stillpoint) -> JobHandle {
    let mut verified = policy();
    verified.verification = Verification::BeforeCompletion { required: true, cap: None };
    this.save_policy(&verified).await.unwrap();
    this.backup(request("night")).await.unwrap()
}

/// Nothing of it is left: no session, no freeze, no snapshot, no exposure, no restore point.
async fn left_nothing(this: &Stillpoint, world: &World) {
    pause(this.seams(), Duration::from_mins(10)).await;
    assert_eq!(world.open_sessions(), []);
    assert_eq!(world.snapshots().len(), 0);
    assert_eq!(world.exposures().len(), 0);
    assert!(world.completes().is_empty(), "nothing was completed as good or bad");
    assert!(this.topology().await.unwrap().databases.iter().all(|known| known.points.is_empty()));
    assert!(this.debris().await.unwrap().is_empty());
    world.assert_thawed_in_time();
}

/// Scenario 39: **Cancel running.** Given a run in verify, when cancelled, then it stops within the step deadline, aborts VSS, deletes
/// provisional snapshots, ends cancelled; a cancel during the freeze thaws at once, then unwinds; after `complete` is intended it is
/// answered too late.
#[test]
fn s39_cancel_running() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(39), two_arrays(2));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            world.faults().on("verify").inject(Fault::Slow(Duration::from_hours(2)));
            let job = begun(&this).await;
            until_in(this.seams(), &world, "verify").await;
            pause(this.seams(), Duration::from_mins(20)).await;
            assert_eq!(job.job().state(), JobState::Running);
            job.cancel("an operator").await.unwrap();
            let ended = within(this.seams(), Duration::from_mins(2), job.wait()).await.unwrap();
            assert_eq!(ended.state(), JobState::Cancelled, "{ended:#?}");
            assert!(world.calls().count("abort") > 0);
            left_nothing(&this, &world).await;
        });
    }
}

#[test]
fn s39_a_cancel_in_a_freeze_thaws_at_once() {
    let (sim, world) = (Sim::new(40), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        world.faults().on("commit").inject(Fault::Slow(Duration::from_secs(7)));
        let job = begun(&this).await;
        until_in(this.seams(), &world, "commit").await;
        job.cancel("an operator").await.unwrap();
        let ended = job.wait().await;
        assert_eq!(ended.state(), JobState::Cancelled, "{ended:#?}");
        let windows = world.freeze_windows();
        let held = windows[0].length().unwrap();
        assert!(windows.len() == 1 && held < Duration::from_secs(2), "{windows:#?}");
        left_nothing(&this, &world).await;
    });
}

#[test]
fn s39_a_cancel_after_the_completion_is_too_late() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(41), two_arrays(2));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            world.faults().on("complete").inject(Fault::Slow(Duration::from_secs(20)));
            let job = begun(&this).await;
            let mut watch = job.watch();
            until_in(this.seams(), &world, "complete").await;
            job.cancel("an operator").await.unwrap();
            let ended = job.wait().await;
            assert_eq!((ended.state(), ended.tally()), (JobState::Succeeded, (2, 2)), "{ended:#?}");
            let mut answers = Vec::new();
            while let Some(event) = watch.next().await {
                if let JobEvent::Step { step, what: "too late to cancel", .. } = event {
                    answers.push(step.to_string());
                }
            }
            assert_eq!(answers, ["complete"]);
            assert_eq!(world.snapshots().len(), 4);
        });
    }
}
