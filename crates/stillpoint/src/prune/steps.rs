//! Steps of a prune.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{CatalogExt, PointQuery};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use stillpoint_model::id::{PointId, PolicyId, ProviderId, SnapshotRef};
use stillpoint_model::manifest::Manifest;
use stillpoint_model::point::{PointFact, PointState, RestorePoint};
use stillpoint_model::retention::{Protected, PruneOrder};
use stillpoint_storage::{Deleted, Found, Snapshot};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use crate::beside;
use crate::pump;
use crate::retention::{Kept, locks};
use crate::services::Services;

/// What a prune has in mind when it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DecideParams {
    /// What it has claimed.
    pub(crate) order: PruneOrder,
    pub(crate) policy: Option<PolicyId>,
    /// The point that somebody wants deleted.
    pub(crate) wanted: Option<PointId>,
}

/// Decides again, under the claims, and makes known what is to be deleted.
#[derive(Debug)]
pub(crate) struct Decide(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Decide {
    const NAME: &'static str = "prune.decide";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = DecideParams;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, params: &DecideParams, (): ()) -> Result<Done<()>, Failure> {
        let DecideParams { order: claimed, policy, wanted } = params;
        self.0.pump.run(&*self.0.catalog).await?;
        let kept = Kept::take(&self.0, cx, claimed.database, *wanted).await?;
        let mut done = Done::new(());
        let is_gone = |point: &PointId| kept.points.iter().all(|known| known.id != *point);
        if wanted.as_ref().is_some_and(is_gone) {
            return Ok(done);
        }
        let now = kept.order(*policy, *wanted).map_err(|refused| Failure::of(&refused))?;
        for point in claimed.without(&now) {
            if !is_gone(&point) {
                done = done.with_warning(stays(point, "it is needed after all"));
            }
        }
        for (id, going) in &claimed.points {
            let Some(then) = now.points.get(id) else { continue };
            let Some(point) = kept.points.iter().find(|point| point.id == *id) else { continue };
            // Logs that were to stay when the claims were made are not claimed.
            let keeps_logs = going.keeps_logs || then.keeps_logs;
            let fact =
                PointFact::Expiring { point: *id, at: cx.now(), turn: point.turn(), keeps_logs };
            done = done.with_fact(pump::fact(&fact)?);
        }
        Ok(done)
    }
}

/// What of a point is to be deleted follows from the catalogue by then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeleteParams {
    pub(crate) point: PointId,
    /// How long it waits for a storage that deletes later.
    pub(crate) late: Duration,
}

/// What became of the deletion of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deletion {
    /// It is gone.
    Gone,
    /// Its logs are left.
    Reduced,
    /// It stays.
    Kept,
}

/// Deletes the snapshots of a point that is expiring, then its manifest.
///
/// Not undone: whoever has made the intent known wants it gone, and what a prune leaves the next one deletes.
#[derive(Debug)]
pub(crate) struct Delete(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Delete {
    const NAME: &'static str = "prune.delete";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = DeleteParams;
    type Input = ();
    type Output = Deletion;

    async fn run(&self, cx: &Cx, params: &DeleteParams, (): ()) -> Result<Done<Deletion>, Failure> {
        // The intent first: no hold is put on what the catalogue knows to be expiring.
        self.0.pump.run(&*self.0.catalog).await?;
        let known =
            self.0.catalog.point(params.point).await.map_err(|error| Failure::of(&error))?;
        let Some(point) = known else { return Ok(Done::new(Deletion::Gone)) };
        let expiry = point.expiry.filter(|_| point.state == PointState::Expiring);
        let Some(expiry) = expiry else { return Ok(Done::new(Deletion::Kept)) };
        let holds = self.holds(cx, point.id).await?;
        if !holds.is_empty() {
            return spare(cx, &point, &format!("it is held: {}", listed(&holds)));
        }
        let locks = locks(&self.0, cx, &point).await?;
        if locks.keeps(cx.now()) {
            return self.keep(cx, &point, locked(&point, &locks)).await;
        }
        if let Err(failure) = self.snapshots(cx, params, &point, expiry.keeps_logs).await {
            return self.keep(cx, &point, failure).await;
        }
        if expiry.keeps_logs {
            let fact = self.reduced(cx, &point).await?;
            return Ok(Done::new(Deletion::Reduced).with_fact(pump::fact(&fact)?));
        }
        for provider in providers(&point) {
            self.forget(cx, &provider, &point).await?;
        }
        let fact = PointFact::Removed { point: point.id, at: cx.now() };
        Ok(Done::new(Deletion::Gone).with_fact(pump::fact(&fact)?))
    }

    async fn undo(
        &self,
        _: &Cx,
        _: &DeleteParams,
        (): (),
        _: Known<Deletion>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }
}

impl Delete {
    async fn holds(&self, cx: &Cx, point: PointId) -> Result<BTreeSet<String>, Failure> {
        let holds = self.0.catalog.held_by(point, cx.now()).await;
        let holds = holds.map_err(|error| Failure::of(&error))?;
        Ok(holds.iter().map(ToString::to_string).collect())
    }

    /// Deletes every snapshot of a point that no other one needs, as far as that can be done.
    async fn snapshots(
        &self,
        cx: &Cx,
        params: &DeleteParams,
        point: &RestorePoint,
        keeps_logs: bool,
    ) -> Result<(), Failure> {
        // All points that lie on a snapshot are of its set.
        let mut query = PointQuery::all();
        query.set = Some(point.set.clone());
        let others =
            self.0.catalog.all_points(&query).await.map_err(|error| Failure::of(&error))?;
        let mut needed = BTreeSet::new();
        for other in others.iter().filter(|other| other.id != point.id) {
            let is_held = !self.holds(cx, other.id).await?.is_empty();
            let members = other.members.iter().map(|member| &member.snapshot);
            needed.extend(members.filter(|snapshot| other.needs(snapshot, is_held)));
        }
        let mut failed = None;
        for snapshot in point.goes_with(keeps_logs).filter(|snapshot| !needed.contains(snapshot)) {
            if let Err(failure) = delete(&self.0, cx, params.late, snapshot).await {
                let is_kept = is_kept(&failure);
                let _first = failed.get_or_insert(failure);
                if is_kept {
                    // What may be whole yet is not broken for nothing.
                    break;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// A point that could not be deleted is spared if the storage keeps it and nothing of it is gone. Else it stays expiring.
    async fn keep(
        &self,
        cx: &Cx,
        point: &RestorePoint,
        failure: Failure,
    ) -> Result<Done<Deletion>, Failure> {
        if is_kept(&failure) && self.is_whole(cx, point).await? {
            return spare(cx, point, &failure.message);
        }
        Err(failure)
    }

    async fn is_whole(&self, cx: &Cx, point: &RestorePoint) -> Result<bool, Failure> {
        let mut there = BTreeSet::new();
        for provider in providers(point) {
            match self.0.provider(&provider)?.find(cx, &point.set).await? {
                Found::Partial(found) | Found::Complete(found) => {
                    there.extend(found.iter().map(Snapshot::reference));
                }
                _ => {}
            }
        }
        Ok(point.members.iter().all(|member| there.contains(&member.snapshot)))
    }

    /// Has the manifest tell of the logs alone, wherever they are, and gives the fact that says so.
    async fn reduced(&self, cx: &Cx, point: &RestorePoint) -> Result<PointFact, Failure> {
        let (id, turn) = (point.id, point.turn());
        let fact =
            |manifest_digest| PointFact::Reduced { point: id, at: cx.now(), turn, manifest_digest };
        let after = fact(None).apply(Some(point.clone())).map_err(|error| Failure::of(&error))?;
        let Some(after) = after else { return Ok(fact(None)) };
        let logs = providers(&after);
        let mut digest = None;
        for provider in providers(point) {
            if !logs.contains(&provider) {
                self.forget(cx, &provider, point).await?;
                continue;
            }
            let side = self.0.provider(&provider)?;
            if !side.caps().documents {
                continue;
            }
            let name = beside::manifest_name(id)?;
            let stored = side.get_doc(cx, &name).await?;
            let stored = stored.and_then(|bytes| String::from_utf8(bytes).ok());
            // One that cannot be read is left as it is: it is not for a prune to judge.
            let Some(Ok(mut manifest)) = stored.map(|text| Manifest::from_json(&text)) else {
                tracing::warn!(point = %id, %provider, "the manifest of a point cannot be read");
                continue;
            };
            manifest.point = after.clone();
            let text = manifest.to_json().map_err(|error| Failure::of(&error))?;
            side.put_doc(cx, &name, text.as_bytes()).await?;
            // The manifest tells all of it now.
            side.delete_doc(cx, &beside::standing_name(id)?).await?;
            digest = Some(Manifest::digest(&text));
        }
        Ok(fact(digest))
    }

    async fn forget(
        &self,
        cx: &Cx,
        provider: &ProviderId,
        point: &RestorePoint,
    ) -> Result<(), Failure> {
        let side = self.0.provider(provider)?;
        if side.caps().documents {
            beside::forget(side, cx, point.id).await?;
        }
        Ok(())
    }
}

/// Deletes a snapshot, and waits so long for a storage that deletes later.
pub(crate) async fn delete(
    services: &Services,
    cx: &Cx,
    late: Duration,
    snapshot: &SnapshotRef,
) -> Result<(), Failure> {
    let provider = services.provider(&snapshot.volume.provider)?;
    let give_up = cx.mono() + late;
    let mut pause = Duration::from_millis(100);
    while provider.delete(cx, snapshot).await? != Deleted::Gone {
        if cx.mono() + pause > give_up {
            return Err(Failure::new(
                "prune.pending",
                ErrorClass::Unavailable,
                format!("the storage has not deleted {snapshot} yet"),
            )
            .with_effect(Effect::Unknown)
            .with_retryable(false)
            .with_subject(Subject::new("snapshot", snapshot))
            .with_remedy("Ask again later: it is deleted then."));
        }
        cx.sleep(pause).await.map_err(|error| Failure::of(&error))?;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
    Ok(())
}

fn providers(point: &RestorePoint) -> BTreeSet<ProviderId> {
    point.members.iter().map(|member| member.snapshot.volume.provider.clone()).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether it says that the storage keeps a snapshot.
fn is_kept(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "storage.held" | "storage.locked")
}

fn locked(point: &RestorePoint, locks: &Protected) -> Failure {
    let (code, why) = match locks.locked_until {
        Some(until) => ("storage.locked", format!("the storage has locked it until {until}")),
        None => ("storage.held", format!("the storage holds it: {}", listed(&locks.holds))),
    };
    Failure::new(code, ErrorClass::Conflict, why)
        .with_effect(Effect::None)
        .with_subject(Subject::new("restore point", point.id))
        .with_remedy("Nothing is to be done: it is deleted once nothing keeps it.")
}

fn stays(point: PointId, why: &str) -> Failure {
    Failure::new("prune.kept", ErrorClass::Conflict, format!("{point} stays: {why}"))
        .with_effect(Effect::None)
        .with_subject(Subject::new("restore point", point))
        .with_remedy("Nothing is to be done: it is deleted once nothing keeps it.")
}

fn spare(cx: &Cx, point: &RestorePoint, why: &str) -> Result<Done<Deletion>, Failure> {
    let fact = PointFact::Spared { point: point.id, at: cx.now(), turn: point.turn() };
    let done = Done::new(Deletion::Kept).with_warning(stays(point.id, why));
    Ok(done.with_fact(pump::fact(&fact)?))
}
