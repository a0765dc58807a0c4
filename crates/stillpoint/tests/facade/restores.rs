//! Restores that go wrong: what is said of the damage, what is left behind, and how that is taken away.

use stillpoint::Stillpoint;
use stillpoint::context::{Effect, HostPath, PathFlavor};
use stillpoint::exchange::Coordination;
use stillpoint::model::inventory::FileRole;
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::point::RestorePoint;
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::storage::ProviderErrorKind;
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint_testkit::{Fault, Trouble, World};

use super::common::*;

/// A restore point whose database is on one array and whose logs are on another.
async fn point(this: &Stillpoint) -> RestorePoint {
    this.save_policy(&policy()).await.unwrap();
    let job = this.backup(request("before")).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let id = this.topology().await.unwrap().databases[0].points[0].point;
    this.point(id).await.unwrap().unwrap()
}

async fn restore(this: &Stillpoint, world: &World, point: &RestorePoint) -> Job {
    let host = world.copies().remove(0).host;
    let folder = HostPath::new(host, PathFlavor::Windows, r"R:\restored").unwrap();
    let target = RestoreTarget::AlternatePath(folder);
    let back = RestoreRequest::new(key("back"), point.id, target);
    this.restore(back).await.unwrap().wait().await
}

/// The database is damaged. The provider that holds it finds its page; the one that holds the logs and says that something is
/// damaged there must not name a file of the other.
#[test]
fn the_damage_that_a_provider_finds_is_looked_for_among_its_own_files() {
    for (provider, is_its_own) in [("alpha", true), ("beta", false)] {
        let (sim, world) = (Sim::new(3), two_arrays(1));
        sim.run(async {
            let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
            let point = point(&this).await;
            let database = point.files.iter().find(|file| file.role == FileRole::Database).unwrap();
            world.damage().stored_file(&database.snapshot, &database.path, 325);
            let damaged = Fault::fail(ProviderErrorKind::Damaged);
            let step = format!("stage:{provider}");
            world.faults().on("restore.stage").step(step).inject(damaged);
            let job = restore(&this, &world, &point).await;
            assert_eq!(job.state(), JobState::Failed, "{job:#?}");
            let failure = job.runs[0].failure.as_ref().unwrap();
            assert_eq!(failure.code, "restore.damaged", "{failure:#?}");
            let file = failure.subjects.iter().find(|subject| subject.kind == "file");
            let wanted = is_its_own.then(|| database.path.file_name().unwrap());
            assert_eq!(file.map(|subject| subject.id.as_str()), wanted, "{failure:#?}");
            assert!(world.exposures().is_empty());
        });
    }
}

#[test]
fn an_exposure_in_which_damage_was_looked_for_is_swept() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let point = point(&this).await;
        let damaged = Fault::fail(ProviderErrorKind::Damaged);
        world.faults().on("restore.stage").step("stage:beta").inject(damaged);
        world.faults().on("unexpose").step("stage:beta").inject(Fault::fail(Trouble::io()));
        let job = restore(&this, &world, &point).await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        assert_eq!(world.exposures().len(), 1);
        world.faults().clear();
        assert!(this.sweep().await.unwrap().is_empty());
        assert!(world.exposures().is_empty());
    });
}

#[test]
fn what_a_restore_leaves_is_named_and_swept() {
    let (sim, world) = (Sim::new(3), two_arrays(1));
    let doom = Blow::Fail { effect: Effect::None, retryable: false };
    let (saboteur, _) = Saboteur::new([
        Rule::at("check", Part::Run, doom.clone()),
        Rule::at("stage:alpha", Part::Undo, doom).always(),
    ]);
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, saboteur.tune());
        let point = point(&this).await;
        let job = restore(&this, &world, &point).await;
        assert_eq!(job.state(), JobState::NeedsAttention, "{job:#?}");
        let key = format!("restore-{}", job.runs[0].run.0.simple());
        assert_eq!(job.runs[0].debris, [format!("staged files of restore {key}")]);
        assert!(!world.staged().is_empty());
        saboteur.clear();
        assert!(this.sweep().await.unwrap().is_empty());
        assert_eq!(world.staged(), Vec::<String>::new());
    });
}
