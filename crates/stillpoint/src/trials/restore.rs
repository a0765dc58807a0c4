//! The plan of a restore.

use std::sync::Arc;

use stillpoint_context::{Cx, HostPath, IdempotencyKey, PathFlavor, RunId};
use stillpoint_exchange::Coordination;
use stillpoint_model::id::ExposureKey;
use stillpoint_model::job::JobState;
use stillpoint_model::point::RestorePoint;
use stillpoint_model::restore::{RestoreRequest, RestoreTarget, plan_restore};
use stillpoint_storage::SnapshotProvider as _;
use stillpoint_workflow::testing::{Scenario, Sim};
use stillpoint_workflow::{ActionRegistry, End, MemoryJournal, Plan};
use uuid::Uuid;

use super::{HOST, Lab, holds, try_all};

/// A database that was backed up comes back to a folder, its data from one array and its logs from another.
struct Back;

/// The lab, what is carried out, and where which bytes of the restore point are to be.
#[derive(Debug, Clone)]
struct After {
    lab: Lab,
    plan: Plan,
    wanted: Vec<(HostPath, Vec<u8>)>,
}

/// A backup of everything.
async fn backed_up(lab: &Lab, sim: &Sim) -> (crate::Stillpoint, RestorePoint) {
    let this = lab.stillpoint(sim);
    this.save_policy(&Lab::policy()).await.unwrap();
    let job = this.backup(Lab::request()).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    let id = this.topology().await.unwrap().databases[0].points[0].point;
    let point = this.point(id).await.unwrap().unwrap();
    (this, point)
}

/// The bytes of a file of a restore point.
async fn stored(lab: &Lab, cx: &Cx, point: &RestorePoint, index: usize) -> Vec<u8> {
    let file = &point.files[index];
    let provider = lab.world.storage_named(file.snapshot.volume.provider.as_str());
    let key = ExposureKey::new("looked-at").unwrap();
    let snapshots = std::slice::from_ref(&file.snapshot);
    let exposure = provider.expose(cx, snapshots, &point.copy.host, &key).await.unwrap();
    let bytes = lab.world.read(&exposure.find(&file.path).unwrap()).unwrap();
    provider.unexpose(cx, &key).await.unwrap();
    bytes
}

impl Scenario for Back {
    type World = After;

    fn world(&self) -> After {
        let (lab, sim) = (Lab::new(Coordination::Engine, 1), Sim::new(0));
        sim.run(async {
            let (this, point) = backed_up(&lab, &sim).await;
            let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\restored");
            let target = RestoreTarget::AlternatePath(folder.unwrap());
            let key = IdempotencyKey::new("back").unwrap();
            let planned = plan_restore(&RestoreRequest::new(key, point.id, target), &point);
            let planned = planned.unwrap();
            let plan = this.compile_restore(RunId(Uuid::from_u128(9)), &point, &planned).unwrap();
            let mut wanted = Vec::new();
            for file in &planned.files {
                let bytes = stored(&lab, &this.cx(), &point, file.index).await;
                wanted.push((file.to.clone(), bytes));
            }
            After { lab: lab.clone(), plan, wanted }
        })
    }

    fn registry(&self, after: &After) -> ActionRegistry {
        after.lab.registry()
    }

    fn plan(&self, after: &After) -> Plan {
        after.plan.clone()
    }

    fn journal(&self, after: &After) -> Arc<MemoryJournal> {
        Arc::clone(&after.lab.journal)
    }

    fn check(&self, after: &After, end: End) -> Result<(), String> {
        let points = after.lab.points_later();
        holds(points.len() == 1, || format!("the restore point that was used: {points:#?}"))?;
        after.lab.check_at_rest()?;
        for (file, wanted) in &after.wanted {
            let found = after.lab.world.read(file);
            match end {
                End::Succeeded | End::SucceededWithWarnings => {
                    holds(found.as_ref() == Some(wanted), || {
                        let bytes = found.as_ref().map(Vec::len);
                        format!("{file} has {bytes:?} bytes, which are not those of the point")
                    })?;
                }
                End::Failed | End::Cancelled => {
                    holds(found.is_none(), || format!("{file} is there after {end:?}"))?;
                }
                End::NeedsAttention => return Err("it needs attention".to_owned()),
            }
        }
        Ok(())
    }
}

#[test]
fn a_restore_to_a_folder_leaves_all_or_nothing() {
    try_all(&Back);
}
