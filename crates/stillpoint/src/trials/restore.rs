//! The plan of a restore.

use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Cx, HostPath, IdempotencyKey, Mono, PathFlavor, RunId};
use stillpoint_exchange::{Coordination, ExchangePlugin as _, Scope};
use stillpoint_model::id::ExposureKey;
use stillpoint_model::inventory::{CopyStatus, DatabaseCopy, Generation};
use stillpoint_model::job::JobState;
use stillpoint_model::point::RestorePoint;
use stillpoint_model::restore::{RestoreRequest, RestoreTarget, plan_restore};
use stillpoint_storage::SnapshotProvider as _;
use stillpoint_workflow::testing::{Scenario, Sim};
use stillpoint_workflow::{ActionRegistry, End, MemoryJournal, Plan};
use uuid::Uuid;

use super::{HOST, LATER, Lab, holds, try_all};

/// How long after its backup the database is restored.
const WRITTEN: Duration = Duration::from_hours(1);

/// A database that was backed up comes back, its data from one array and its logs from another: to a folder, or in the place of
/// the one that is in service, which has been written meanwhile.
struct Back {
    in_place: bool,
}

/// The lab, what is carried out, and where which bytes of the restore point are to be.
#[derive(Debug, Clone)]
struct After {
    lab: Lab,
    plan: Plan,
    wanted: Vec<(HostPath, Vec<u8>)>,
    begins: Mono,
    /// The open generation then.
    open: Generation,
}

/// The one copy as it is now.
async fn copy(lab: &Lab, cx: &Cx) -> (DatabaseCopy, bool) {
    let inventory = lab.world.exchange().inventory(cx, &Scope::Everything).await.unwrap();
    let open = inventory.databases.values().any(|database| database.allow_file_restore);
    (inventory.copies.into_values().next().unwrap(), open)
}

fn generation(copy: &DatabaseCopy) -> Generation {
    copy.log_state.as_ref().and_then(|state| state.open).unwrap()
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
            let target = if self.in_place {
                RestoreTarget::InPlace
            } else {
                RestoreTarget::AlternatePath(folder.unwrap())
            };
            this.cx().sleep(WRITTEN).await.unwrap();
            let key = IdempotencyKey::new("back").unwrap();
            let planned = plan_restore(&RestoreRequest::new(key, point.id, target), &point);
            let planned = planned.unwrap();
            let plan =
                this.compile_restore(RunId(Uuid::from_u128(9)), &point, &planned, None).unwrap();
            let mut wanted = Vec::new();
            for file in &planned.files {
                let bytes = stored(&lab, &this.cx(), &point, file.index).await;
                wanted.push((file.to.clone(), bytes));
            }
            let (copy, _) = copy(&lab, &this.cx()).await;
            let (begins, open) = (this.cx().mono(), generation(&copy));
            assert!(open > Generation(10), "written since its backup: {copy:#?}");
            After { lab: lab.clone(), plan, wanted, begins, open }
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

    fn begins(&self, after: &After) -> Mono {
        after.begins
    }

    fn check(&self, after: &After, end: End) -> Result<(), String> {
        let points = after.lab.points_later();
        holds(points.len() == 1, || format!("the restore point that was used: {points:#?}"))?;
        after.lab.check_at_rest()?;
        if end == End::NeedsAttention {
            return Err("it needs attention".to_owned());
        }
        let sim = Sim::starting_at(0, LATER);
        let (copy, is_open) = sim.run(copy(&after.lab, &Cx::detached(&sim.seams())));
        holds(copy.status == CopyStatus::Mounted, || format!("out of service: {copy:#?}"))?;
        holds(!is_open, || "files may still be restored over the database".to_owned())?;
        if self.in_place {
            // Nothing that was written since the backup is lost, whichever way it came back: there are logs of it.
            let open = generation(&copy);
            return holds(open > after.open, || format!("{open:?} follows on {:?}", after.open));
        }
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
                End::NeedsAttention => {}
            }
        }
        Ok(())
    }
}

#[test]
fn a_restore_to_a_folder_leaves_all_or_nothing() {
    try_all(&Back { in_place: false });
}

#[test]
fn a_restore_in_place_leaves_the_database_in_service() {
    try_all(&Back { in_place: true });
}
