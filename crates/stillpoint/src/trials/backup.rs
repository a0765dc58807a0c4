//! The plan of a backup set.

use std::sync::Arc;

use stillpoint_context::Cx;
use stillpoint_exchange::Coordination;
use stillpoint_model::job::JobState;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::PointState;
use stillpoint_storage::SnapshotProvider as _;
use stillpoint_testkit::Shape;
use stillpoint_workflow::testing::{Scenario, Sim};
use stillpoint_workflow::{ActionRegistry, End, MemoryJournal, Plan};

use super::{ARRAYS, LATER, Lab, holds, nothing, try_all};

/// A set of two databases over two providers, verified before its completion.
struct Set(Coordination);

/// The databases of the set.
const DATABASES: u32 = 2;

/// The lab, and what is carried out.
#[derive(Debug, Clone)]
struct Planned {
    lab: Lab,
    plan: Plan,
}

impl Planned {
    fn of(lab: Lab, mut plans: Vec<Plan>) -> Self {
        assert_eq!(plans.len(), 1, "one set");
        Self { lab, plan: plans.remove(0) }
    }

    /// Ends the exposure in which the set was verified, as a sweep does of debris.
    fn sweep(&self) {
        let named = serde_json::to_string(&self.plan).unwrap();
        let sim = Sim::starting_at(1, LATER);
        sim.run(async {
            let cx = Cx::detached(&sim.seams());
            for exposure in self.lab.world.exposures() {
                assert!(named.contains(exposure.key.as_str()), "{exposure:#?}");
                for array in ARRAYS {
                    let provider = self.lab.world.storage_named(array);
                    provider.unexpose(&cx, &exposure.key).await.unwrap();
                }
            }
        });
    }
}

impl Scenario for Set {
    type World = Planned;

    fn world(&self) -> Planned {
        let (lab, sim) = (Lab::new(self.0, DATABASES), Sim::new(0));
        let plans = sim.run(async {
            let this = lab.stillpoint(&sim);
            this.save_policy(&Lab::policy()).await.unwrap();
            this.engine_plans(&Lab::request()).await.unwrap()
        });
        Planned::of(lab, plans)
    }

    fn registry(&self, planned: &Planned) -> ActionRegistry {
        planned.lab.registry()
    }

    fn plan(&self, planned: &Planned) -> Plan {
        planned.plan.clone()
    }

    fn journal(&self, planned: &Planned) -> Arc<MemoryJournal> {
        Arc::clone(&planned.lab.journal)
    }

    fn check(&self, planned: &Planned, end: End) -> Result<(), String> {
        let lab = &planned.lab;
        let points = lab.points_later();
        if end == End::SucceededWithWarnings {
            // The one thing that a set may leave and yet be good: an exposure that could not be ended, which the façade lists
            // as debris.
            planned.sweep();
        }
        lab.check_at_rest()?;
        let (snapshots, completes) = (lab.world.snapshots(), lab.world.completes());
        match end {
            End::Succeeded | End::SucceededWithWarnings => {
                let good = points.iter().filter(|point| point.state == PointState::Available);
                holds(
                    good.count() == DATABASES as usize && points.len() == DATABASES as usize,
                    || format!("points after {end:?}: {points:#?}"),
                )?;
                let sets: Vec<_> = points.into_iter().map(|point| point.set).collect();
                nothing("snapshots of no point", &lab.world.orphans(&sets))?;
                holds(snapshots.len() == 2 * DATABASES as usize, || {
                    format!("snapshots after {end:?}: {snapshots:#?}")
                })?;
                let [complete] = completes.as_slice() else {
                    return Err(format!("completions after {end:?}: {completes:#?}"));
                };
                // A copy that could not be verified is completed as failed, so that nothing is truncated for it.
                let good = complete.good();
                holds(
                    good.len() == DATABASES as usize || end == End::SucceededWithWarnings,
                    || format!("after {end:?} only {good:?} are completed as good"),
                )?;
                let shapes = sets.first().map(|set| lab.world.shapes(set)).unwrap_or_default();
                holds(good.iter().all(|copy| shapes[*copy] == Shape::Quiesced), || {
                    format!("completed as good: {good:?}, but they are {shapes:?}")
                })
            }
            // Nothing is left here that only a person could take away.
            End::NeedsAttention => Err("it needs attention".to_owned()),
            End::Failed | End::Cancelled => {
                nothing("points", &points)?;
                nothing("snapshots", &snapshots)?;
                nothing("completions", &completes)
            }
        }
    }
}

/// A set of the closed logs of the same databases, of which full backups are there.
struct Logs;

impl Scenario for Logs {
    type World = Planned;

    fn world(&self) -> Planned {
        let (lab, sim) = (Lab::new(Coordination::Engine, DATABASES), Sim::new(0));
        let plans = sim.run(async {
            let this = lab.stillpoint(&sim);
            this.save_policy(&Lab::policy()).await.unwrap();
            let full = this.backup(Lab::request()).await.unwrap().wait().await;
            assert_eq!(full.state(), JobState::Succeeded, "{full:#?}");
            let mut request = Lab::request();
            request.kind = Some(BackupKind::Log);
            this.engine_plans(&request).await.unwrap()
        });
        Planned::of(lab, plans)
    }

    fn registry(&self, planned: &Planned) -> ActionRegistry {
        planned.lab.registry()
    }

    fn plan(&self, planned: &Planned) -> Plan {
        planned.plan.clone()
    }

    fn journal(&self, planned: &Planned) -> Arc<MemoryJournal> {
        Arc::clone(&planned.lab.journal)
    }

    fn check(&self, planned: &Planned, end: End) -> Result<(), String> {
        let lab = &planned.lab;
        let (fulls, logs): (Vec<_>, Vec<_>) =
            lab.points_later().into_iter().partition(|point| point.kind.takes_database());
        if end == End::SucceededWithWarnings {
            planned.sweep();
        }
        lab.check_at_rest()?;
        holds(fulls.len() == DATABASES as usize, || format!("fulls after {end:?}: {fulls:#?}"))?;
        let made = match end {
            End::Succeeded | End::SucceededWithWarnings => DATABASES as usize,
            End::NeedsAttention => return Err("it needs attention".to_owned()),
            End::Failed | End::Cancelled => 0,
        };
        let good = logs.iter().filter(|point| point.state == PointState::Available).count();
        holds((good, logs.len()) == (made, made), || format!("logs after {end:?}: {logs:#?}"))?;
        let sets: Vec<_> = fulls.iter().chain(&logs).map(|point| point.set.clone()).collect();
        nothing("snapshots of no point", &lab.world.orphans(&sets))?;
        let snapshots = lab.world.snapshots();
        holds(snapshots.len() == 2 * DATABASES as usize + made, || {
            format!("snapshots after {end:?}: {snapshots:#?}")
        })?;
        let completes = lab.world.completes().len();
        holds(completes == 1, || format!("{completes} completions after {end:?}"))
    }
}

#[test]
fn a_set_of_logs_leaves_nothing_behind() {
    try_all(&Logs);
}

#[test]
fn a_set_leaves_nothing_behind_where_the_engine_freezes() {
    try_all(&Set(Coordination::Engine));
}

#[test]
fn a_set_leaves_nothing_behind_where_the_plugin_freezes() {
    try_all(&Set(Coordination::Plugin));
}
