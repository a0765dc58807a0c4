//! Steps of a backup that speak to the Exchange plug-in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Attempt, Cx, Effect, ErrorClass, Failure, HostPath, Subject};
use stillpoint_exchange::{
    Completion, Frozen, PluginErrorKind, Scope, Session, SessionSpec, SessionState,
};
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{CopyId, DatabaseId, InventoryEpoch, PointId, SessionId, VolumeRef};
use stillpoint_model::kind::BackupKind;
use stillpoint_workflow::{Action, Done, EffectKind, GuardVerdict, Known, Probe, Undone};

use super::judge::Judgement;
use super::points::concluded;
use crate::inventory::restrict;
use crate::services::Services;

/// Confirms, under the claims, that what was planned is still there.
#[derive(Debug)]
pub(crate) struct Confirm(pub(crate) Arc<Services>);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfirmParams {
    /// The databases of the set.
    pub(crate) databases: BTreeSet<DatabaseId>,
    /// The structural epoch of the inventory, restricted to them, when it was planned.
    pub(crate) epoch: InventoryEpoch,
    /// Where the files of the chosen copies lay.
    pub(crate) placements: BTreeMap<CopyId, Vec<(HostPath, VolumeRef)>>,
}

#[async_trait]
impl Action for Confirm {
    const NAME: &'static str = "backup.confirm";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ConfirmParams;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, params: &ConfirmParams, (): ()) -> Result<Done<()>, Failure> {
        let scope = Scope::Databases(params.databases.clone());
        let inventory = self.0.plugin.inventory(cx, &scope).await?;
        if restrict(&inventory, &params.databases).structural_epoch() != params.epoch {
            return Err(stale("the databases, their copies or their servers have changed"));
        }
        for (copy, planned) in &params.placements {
            for (path, volume) in planned {
                let provider = self.0.provider(&volume.provider)?;
                let found = provider.resolve(cx, std::slice::from_ref(path)).await?;
                if found.first().map(|placement| &placement.volume) != Some(volume) {
                    let moved = format!("{path} does not lie on volume {volume} any more");
                    return Err(stale(&moved).with_subject(Subject::new("copy", copy)));
                }
            }
        }
        Ok(Done::new(()))
    }
}

/// What was planned is not there any more: the job plans again.
pub(crate) fn stale(what: &str) -> Failure {
    Failure::new("plan.stale", ErrorClass::Conflict, format!("the plan is out of date: {what}"))
        .with_effect(Effect::None)
        .with_remedy("Plan again.")
}

/// Begins the session.
#[derive(Debug)]
pub(crate) struct Begin(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Begin {
    const NAME: &'static str = "exchange.begin";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = SessionSpec;
    type Input = ();
    type Output = Session;

    async fn run(&self, cx: &Cx, spec: &SessionSpec, (): ()) -> Result<Done<Session>, Failure> {
        Ok(Done::new(self.0.plugin.begin(cx, spec).await?))
    }

    async fn undo(
        &self,
        cx: &Cx,
        spec: &SessionSpec,
        (): (),
        _: Known<Session>,
    ) -> Result<Undone, Failure> {
        self.0.plugin.abort(cx, spec.id).await?;
        Ok(Undone::clean())
    }
}

/// Freezes: the enter of the guard.
#[derive(Debug)]
pub(crate) struct Freeze(pub(crate) Arc<Services>);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FreezeParams {
    pub(crate) session: SessionId,
    pub(crate) limit: Option<Duration>,
}

#[async_trait]
impl Action for Freeze {
    const NAME: &'static str = "exchange.freeze";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = FreezeParams;
    type Input = ();
    type Output = Frozen;

    async fn run(&self, cx: &Cx, params: &FreezeParams, (): ()) -> Result<Done<Frozen>, Failure> {
        Ok(Done::new(self.0.plugin.freeze(cx, params.session, params.limit).await?))
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &FreezeParams,
        (): (),
        _: Known<Frozen>,
    ) -> Result<Undone, Failure> {
        self.0.plugin.thaw(cx, params.session).await?;
        Ok(Undone::clean())
    }
}

/// Thaws: the exit of the guard.
#[derive(Debug)]
pub(crate) struct Thaw(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Thaw {
    const NAME: &'static str = "exchange.thaw";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    const IDEMPOTENT: bool = true;
    type Params = SessionId;
    type Input = (Known<Frozen>, ());
    type Output = ();

    async fn run(
        &self,
        cx: &Cx,
        session: &SessionId,
        _: (Known<Frozen>, ()),
    ) -> Result<Done<()>, Failure> {
        self.0.plugin.thaw(cx, *session).await?;
        Ok(Done::new(()))
    }
}

/// Has the plug-in freeze, snap and thaw by itself.
#[derive(Debug)]
pub(crate) struct Snap(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Snap {
    const NAME: &'static str = "exchange.snap";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = SessionId;
    type Input = Vec<Prepared>;
    type Output = Vec<NativeSnapshot>;

    async fn run(
        &self,
        cx: &Cx,
        session: &SessionId,
        prepared: Vec<Prepared>,
    ) -> Result<Done<Vec<NativeSnapshot>>, Failure> {
        Ok(Done::new(self.0.plugin.snap(cx, *session, &prepared).await?))
    }

    /// What it left is taken away by the steps before it: the session is aborted, which thaws, and the set discarded.
    async fn undo(
        &self,
        _: &Cx,
        _: &SessionId,
        _: Vec<Prepared>,
        _: Known<Vec<NativeSnapshot>>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }

    async fn probe(
        &self,
        cx: &Cx,
        session: &SessionId,
        _: Vec<Prepared>,
    ) -> Result<Probe<Vec<NativeSnapshot>>, Failure> {
        Ok(match self.0.plugin.session(cx, *session).await? {
            SessionState::Snapped(natives) => Probe::Done(natives),
            // Frozen: it is still at it, or died in it; the session's own limits decide, so it is not waited for.
            _ => Probe::Unknown,
        })
    }
}

/// Reads what became of the freeze.
#[derive(Debug)]
pub(crate) struct Evidence(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Evidence {
    const NAME: &'static str = "exchange.evidence";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = SessionId;
    /// The guard's verdict, where there is a guard.
    type Input = Vec<GuardVerdict>;
    type Output = SetOutcome;

    async fn run(
        &self,
        cx: &Cx,
        session: &SessionId,
        _: Vec<GuardVerdict>,
    ) -> Result<Done<SetOutcome>, Failure> {
        Ok(Done::new(self.0.plugin.evidence(cx, *session).await?))
    }
}

/// Completes the session with the verdicts: the point of no return. Its answer is recorded as facts in the commit of its
/// success.
///
/// It has no probe: a completion of unknown outcome is asked for again, which a plug-in bears (contract X4) and answers with
/// what came of it.
#[derive(Debug)]
pub(crate) struct Complete(pub(crate) Arc<Services>);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CompleteParams {
    pub(crate) session: SessionId,
    pub(crate) kind: BackupKind,
}

#[async_trait]
impl Action for Complete {
    const NAME: &'static str = "exchange.complete";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    const IDEMPOTENT: bool = true;
    type Params = CompleteParams;
    type Input = (Judgement, BTreeMap<CopyId, PointId>);
    type Output = BTreeMap<CopyId, Completion>;

    async fn run(
        &self,
        cx: &Cx,
        params: &CompleteParams,
        (judgement, points): Self::Input,
    ) -> Result<Done<Self::Output>, Failure> {
        let verdicts = judgement.for_completion();
        let answers = match self.0.plugin.complete(cx, params.session, &verdicts).await {
            Ok(answers) => answers,
            // After an attempt of unknown outcome nobody can say any more whether it took effect. That is an answer too
            // (contract X3): the points stay, and truncation is not assumed.
            Err(error)
                if *error.kind() == PluginErrorKind::SessionGone
                    && cx.attempt() > Attempt::FIRST =>
            {
                verdicts.into_keys().map(|copy| (copy, Completion::Lost)).collect()
            }
            Err(error) => return Err(error.into()),
        };
        concluded(cx, params.kind, &points, &judgement, answers)
    }
}
