//! The plan of a prune.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_catalog::{CatalogExt as _, PointQuery};
use stillpoint_context::{IdempotencyKey, Mono};
use stillpoint_exchange::Coordination;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{HoldName, PointId};
use stillpoint_model::job::JobState;
use stillpoint_model::manifest::{Manifest, document_name};
use stillpoint_model::point::{PointState, RestorePoint};
use stillpoint_model::policy::{Policy, Retention, Verification};
use stillpoint_storage::{DocName, Snapshot, SnapshotProvider as _};
use stillpoint_workflow::testing::{Scenario, Sim};
use stillpoint_workflow::{ActionRegistry, End, MemoryJournal, Plan};

use super::{ARRAYS, Lab, holds, nothing, try_at_least};
use crate::prune::PruneTarget;
use crate::{PruneRequest, Stillpoint};

/// When all is looked at: later than every backup and every lease.
const MUCH_LATER: Duration = Duration::from_hours(100);

/// Seven backups of a database. The first is held, and the logs of the next four, whose databases go, are its bridge.
struct Prune;

/// The lab, what is carried out, and which points there were, oldest first.
#[derive(Debug, Clone)]
struct Kept {
    lab: Lab,
    plan: Plan,
    points: Vec<PointId>,
    begins: Mono,
}

fn policy() -> Policy {
    let mut policy = Lab::policy();
    policy.version = NonZeroU32::MIN;
    policy.retention = Retention::count(2);
    policy.verification = Verification::None;
    policy
}

/// A backup of everything, an hour after the one before.
async fn back_up(this: &Stillpoint, name: &str) {
    this.cx().sleep(Duration::from_hours(1)).await.unwrap();
    let mut request = Lab::request();
    request.key = IdempotencyKey::new(name).unwrap();
    let job = this.backup(request).await.unwrap().wait().await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
}

/// Every point, oldest first.
async fn points(this: &Stillpoint) -> Vec<RestorePoint> {
    let mut points = this.services().catalog.all_points(&PointQuery::all()).await.unwrap();
    points.sort_by_key(|point| point.taken_at);
    points
}

impl Kept {
    /// What the manifest of a point says on an array.
    async fn manifest(&self, this: &Stillpoint, array: &str, point: PointId) -> Option<Manifest> {
        let name = DocName::new(document_name(point)).unwrap();
        let bytes =
            self.lab.world.storage_named(array).get_doc(&this.cx(), &name).await.unwrap()?;
        Some(Manifest::from_json(&String::from_utf8(bytes).unwrap()).unwrap())
    }

    /// Whether each point is whole, or on its way, or gone.
    async fn check_each(&self, this: &Stillpoint, points: &[RestorePoint]) -> Result<(), String> {
        let snapshots: BTreeSet<_> =
            self.lab.world.snapshots().iter().map(Snapshot::reference).collect();
        for point in points {
            let there = point.members.iter().filter(|member| snapshots.contains(&member.snapshot));
            let whole = there.count() == point.members.len();
            holds(whole || point.state == PointState::Expiring, || {
                format!("a snapshot is missing of {point:#?}")
            })?;
            for array in ARRAYS {
                let mine = |known: &RestorePoint| {
                    known.members.iter().any(|m| m.snapshot.volume.provider.as_str() == array)
                };
                let manifest = self.manifest(this, array, point.id).await;
                let says = manifest.map(|manifest| manifest.point);
                match point.state {
                    PointState::Expiring => {}
                    PointState::LogsOnly if mine(point) => {
                        let fits = says.as_ref().is_some_and(|says| says.members == point.members);
                        holds(fits, || format!("the manifest of {point:#?} says {says:#?}"))?;
                    }
                    _ => holds(says.is_some() == mine(point), || {
                        format!("the manifest of {point:#?} on {array} is {says:#?}")
                    })?,
                }
            }
        }
        let members = points.iter().flat_map(|point| &point.members);
        let known: BTreeSet<_> = members.map(|member| member.snapshot.clone()).collect();
        nothing("snapshots of no point", &snapshots.difference(&known).collect::<Vec<_>>())
    }
}

impl Scenario for Prune {
    type World = Kept;

    fn world(&self) -> Kept {
        let (lab, sim) = (Lab::new(Coordination::Engine, 1), Sim::new(0));
        sim.run(async {
            let this = lab.stillpoint(&sim);
            this.save_policy(&policy()).await.unwrap();
            for number in 0..2 {
                back_up(&this, &format!("night-{number}")).await;
            }
            let first = points(&this).await[0].id;
            let name = HoldName::new("case-7").unwrap();
            let since = this.seams().clock.now();
            let hold = Hold::new(name, [first].into(), "a case", "legal", since);
            this.put_hold(&hold).await.unwrap();
            for number in 2..7 {
                back_up(&this, &format!("night-{number}")).await;
            }
            let points = points(&this).await;
            let table = this.retention(&PruneTarget::everything()).await.unwrap();
            let order = &table.databases[0].order;
            assert_eq!(order.points.len(), 4, "{table:#?}");
            assert!(order.points.values().all(|going| going.keeps_logs), "{order:#?}");
            let plan = this.compile_prune(&PruneTarget::everything(), order).unwrap();
            let begins = this.cx().mono();
            let points = points.iter().map(|point| point.id).collect();
            Kept { lab: lab.clone(), plan, points, begins }
        })
    }

    fn registry(&self, kept: &Kept) -> ActionRegistry {
        kept.lab.registry()
    }

    fn plan(&self, kept: &Kept) -> Plan {
        kept.plan.clone()
    }

    fn journal(&self, kept: &Kept) -> Arc<MemoryJournal> {
        Arc::clone(&kept.lab.journal)
    }

    fn begins(&self, kept: &Kept) -> Mono {
        kept.begins
    }

    fn check(&self, kept: &Kept, end: End) -> Result<(), String> {
        let lab = &kept.lab;
        if end == End::NeedsAttention {
            return Err("it needs attention".to_owned());
        }
        let sim = Sim::starting_at(2, MUCH_LATER);
        sim.run(async {
            let this = lab.stillpoint(&sim);
            lab.pump().run(&*lab.catalog).await.unwrap();
            lab.check_at_rest()?;
            let left = points(&this).await;
            kept.check_each(&this, &left).await?;
            let state = |number: usize| {
                left.iter().find(|point| point.id == kept.points[number]).map(|point| point.state)
            };
            for number in [0, 5, 6] {
                holds(state(number) == Some(PointState::Available), || {
                    format!("point {number} after {end:?}: {left:#?}")
                })?;
            }
            if end == End::Succeeded {
                for number in 1..=4 {
                    holds(state(number) == Some(PointState::LogsOnly), || {
                        format!("point {number} after {end:?}: {left:#?}")
                    })?;
                }
            }
            // The next prune goes on where this one stopped; without the hold, no logs are needed any more.
            for (round, is_held) in [("first", true), ("second", false)] {
                if !is_held {
                    this.remove_hold(&HoldName::new("case-7").unwrap()).await.unwrap();
                }
                let key = IdempotencyKey::new(format!("prune-{round}")).unwrap();
                let request = PruneRequest::new(key, PruneTarget::everything());
                let job = this.prune(request).await.unwrap().wait().await;
                holds(job.state() == JobState::Succeeded, || format!("the {round}: {job:#?}"))?;
                let left = points(&this).await;
                kept.check_each(&this, &left).await?;
                let states: Vec<_> = left.iter().map(|point| point.state).collect();
                let logs = [PointState::LogsOnly; 4].into_iter().filter(|_| is_held);
                let held = Some(PointState::Available).filter(|_| is_held);
                let wanted: Vec<_> =
                    held.into_iter().chain(logs).chain([PointState::Available; 2]).collect();
                holds(states == wanted, || format!("after the {round}: {left:#?}"))?;
            }
            Ok(())
        })
    }
}

#[test]
fn a_prune_leaves_each_point_whole_or_on_its_way() {
    // Two kinds of steps: there is less to go wrong than in a backup.
    try_at_least(&Prune, 40);
}
