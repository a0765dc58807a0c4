//! The step of a repair.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{Debris, DebrisKind};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use stillpoint_model::id::{PointId, SetToken, SnapshotRef};
use stillpoint_model::point::PointFact;
use stillpoint_model::reconcile::{Act, Comparison, Finding, Sight, Verdict};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use super::{ReconcileOptions, look};
use crate::beside::{self, Told};
use crate::prune::steps::delete;
use crate::pump;
use crate::services::Services;

/// What a repair has in mind for a set when it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TendParams {
    pub(crate) set: SetToken,
    pub(crate) acts: Vec<Act>,
    pub(crate) options: ReconcileOptions,
    /// How long it waits for a storage that deletes later.
    pub(crate) late: Duration,
}

/// Looks at a set again, under its claim, and does what is to be done about it still.
///
/// Not undone: each act is right by itself, and what one leaves the next repair does.
#[derive(Debug)]
pub(crate) struct Tend(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Tend {
    const NAME: &'static str = "reconcile.tend";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = TendParams;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, params: &TendParams, (): ()) -> Result<Done<()>, Failure> {
        let about_orphans = |act: &Act| !matches!(act, Act::Mark { .. } | Act::Unmark { .. });
        let manifests = params.acts.iter().any(about_orphans);
        let sight =
            look::of_set(&self.0, cx, &params.set, manifests, params.options.grace()).await?;
        let comparison = Comparison::of(&sight);
        let is_left = |found: &Finding| matches!(found.verdict, Verdict::Leftover { .. });
        let is_leftover = comparison.findings.iter().any(is_left);
        let mut done = Done::new(());
        for act in comparison.acts().remove(&params.set).unwrap_or_default() {
            // What was not to be done before may be seen by half now.
            if manifests || !about_orphans(&act) {
                done = self.act(cx, params, &sight, is_leftover, act, done).await?;
            }
        }
        Ok(done)
    }

    async fn undo(&self, _: &Cx, _: &TendParams, (): (), _: Known<()>) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }
}

impl Tend {
    async fn act(
        &self,
        cx: &Cx,
        params: &TendParams,
        sight: &Sight,
        is_leftover: bool,
        act: Act,
        done: Done<()>,
    ) -> Result<Done<()>, Failure> {
        Ok(match act {
            Act::Mark { point, lost } => {
                let missing = missing(point, &lost);
                let fact = PointFact::Missing { point, at: cx.now(), lost };
                self.tell(cx, &fact).await?;
                done.with_fact(pump::fact(&fact)?).with_warning(missing)
            }
            Act::Unmark { point } => {
                let fact = PointFact::Found { point, at: cx.now() };
                self.tell(cx, &fact).await?;
                done.with_fact(pump::fact(&fact)?)
            }
            Act::Adopt { points } => {
                let done = self.adopt(cx, &points, done).await?;
                self.forget(&params.set).await?;
                done
            }
            Act::Note => {
                self.note(cx, &params.set, is_leftover).await?;
                done
            }
            Act::Delete { snapshots } => {
                // With manifests of the set that tell of more than was there.
                let torn = sight.manifests.iter().filter(|found| {
                    found.content.as_ref().is_ok_and(|content| content.set == params.set)
                });
                let torn = torn.map(|found| found.point).collect();
                self.delete(cx, params, &snapshots, torn).await?;
                done
            }
            Act::Clear { points, snapshots } => {
                self.delete(cx, params, &snapshots, points).await?;
                done
            }
            Act::Forget => {
                self.forget(&params.set).await?;
                done
            }
            _ => done,
        })
    }

    /// Tells beside the data what a fact will have the catalogue say.
    async fn tell(&self, cx: &Cx, fact: &PointFact) -> Result<(), Failure> {
        let known = self.0.catalog.point(fact.point()).await;
        let known = known.map_err(|error| Failure::of(&error))?;
        let after = fact.apply(known).map_err(|error| Failure::of(&error))?;
        if let Some(point) = after {
            // A storage that has lost a part may not take it; the catalogue has to know all the same.
            if let Err(failure) = beside::tell(&self.0, cx, &point).await {
                tracing::warn!(point = %point.id, %failure, "how a point stands could not be told");
            }
        }
        Ok(())
    }

    async fn adopt(
        &self,
        cx: &Cx,
        points: &BTreeSet<PointId>,
        mut done: Done<()>,
    ) -> Result<Done<()>, Failure> {
        for id in points {
            if let Told::Point(point) = beside::read(&self.0, cx, *id).await? {
                beside::tell(&self.0, cx, &point).await?;
                done = done.with_fact(pump::fact(&PointFact::Published(point))?);
            }
        }
        Ok(done)
    }

    async fn note(&self, cx: &Cx, set: &SetToken, is_leftover: bool) -> Result<(), Failure> {
        let run = set.parts().map_or_else(|| cx.run(), |(run, _)| run);
        let message = if is_leftover {
            "they, or what tells of them, are left of restore points that were removed"
        } else {
            "no restore point lies on them, and no run is known to have left them"
        };
        let kind = DebrisKind::Orphan(set.clone());
        let orphan = Debris::new(key(set), run, kind, message, cx.now());
        self.0.catalog.put_debris(&orphan).await.map_err(|error| Failure::of(&error))
    }

    async fn forget(&self, set: &SetToken) -> Result<(), Failure> {
        self.0.catalog.remove_debris(&key(set)).await.map_err(|error| Failure::of(&error))
    }

    async fn delete(
        &self,
        cx: &Cx,
        params: &TendParams,
        snapshots: &BTreeSet<SnapshotRef>,
        manifests: BTreeSet<PointId>,
    ) -> Result<(), Failure> {
        tracing::info!(set = %params.set, "what is nobody's of a set is deleted");
        for snapshot in snapshots {
            delete(&self.0, cx, params.late, snapshot).await?;
        }
        for point in manifests {
            for side in beside::keepers(&self.0) {
                beside::forget(side, cx, point).await?;
            }
        }
        self.forget(&params.set).await
    }
}

/// What an orphan or a leftover is noted under.
fn key(set: &SetToken) -> String {
    format!("orphan/{set}")
}

/// The alarm.
fn missing(point: PointId, lost: &BTreeSet<SnapshotRef>) -> Failure {
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    Failure::new(
        "point.missing",
        ErrorClass::Integrity,
        format!("the storage has lost snapshots of {point}: {}", lost.join(", ")),
    )
    .with_effect(Effect::None)
    .with_subject(Subject::new("restore point", point))
    .with_remedy(
        "Back the database up, and find out who deleted them. If they come back, reconcile again.",
    )
}
