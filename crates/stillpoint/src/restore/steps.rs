//! Steps of a restore.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, ErrorFacts, Failure, HostId, Subject};
use stillpoint_exchange::{Recovered, RestoreSpec, VerifyReport};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::handover::Exposure;
use stillpoint_model::id::{DatabaseId, ExposureKey, PointId, ProviderId, SnapshotRef};
use stillpoint_model::verdict::{Finding, Verdict};
use stillpoint_storage::{
    ProviderError, ProviderErrorKind, Published, RestoreKey, StageSpec, Staged,
};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use crate::beside;
use crate::exposure::Inspection;
use crate::services::Services;

/// Gets the target ready.
#[derive(Debug)]
pub(crate) struct Open(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Open {
    const NAME: &'static str = "restore.open";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = RestoreSpec;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, spec: &RestoreSpec, (): ()) -> Result<Done<()>, Failure> {
        if let Some(side) = self.0.exchange_restore(spec)? {
            side.open(cx, spec).await?;
        }
        Ok(Done::new(()))
    }

    async fn undo(
        &self,
        cx: &Cx,
        spec: &RestoreSpec,
        (): (),
        _: Known<()>,
    ) -> Result<Undone, Failure> {
        if let Some(side) = self.0.exchange_restore(spec)? {
            side.cancel(cx, spec).await?;
        }
        Ok(Undone::clean())
    }
}

/// What one provider has to bring back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageParams {
    pub(crate) provider: ProviderId,
    pub(crate) spec: StageSpec,
    pub(crate) point: PointId,
    /// Where the backed-up copy was: the host on which it can be looked at.
    pub(crate) host: HostId,
}

/// Clones files out of snapshots, beside their targets.
#[derive(Debug)]
pub(crate) struct Stage(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Stage {
    const NAME: &'static str = "restore.stage";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = StageParams;
    type Input = Inspection;
    type Output = Staged;

    async fn run(
        &self,
        cx: &Cx,
        params: &StageParams,
        inspection: Inspection,
    ) -> Result<Done<Staged>, Failure> {
        let side = self.0.storage_restore(&params.provider)?;
        match side.stage(cx, &params.spec).await {
            Ok(staged) => Ok(Done::new(staged)),
            Err(error) if *error.kind() == ProviderErrorKind::Damaged => {
                Err(self.locate(cx, params, &inspection, &error).await)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &StageParams,
        _: Inspection,
        _: Known<Staged>,
    ) -> Result<Undone, Failure> {
        self.0.storage_restore(&params.provider)?.unstage(cx, &params.spec.key).await?;
        Ok(Undone::clean())
    }
}

impl Stage {
    /// A provider that checks what it copies knows the block that is bad; the plug-in knows the page. It is asked here, where
    /// the restore has failed already and a second read costs nothing that matters.
    async fn locate(
        &self,
        cx: &Cx,
        params: &StageParams,
        inspection: &Inspection,
        error: &ProviderError,
    ) -> Failure {
        let plain = damaged(params.point, &error.to_string(), None);
        let plain = error.subjects().into_iter().fold(plain, Failure::with_subject);
        let (Ok(provider), Ok(key)) =
            (self.0.provider(&params.provider), ExposureKey::new(located(&params.spec.key)))
        else {
            return plain;
        };
        let mine = |snapshot: &&SnapshotRef| snapshot.volume.provider == params.provider;
        let snapshots: Vec<SnapshotRef> =
            inspection.snapshots.iter().filter(mine).cloned().collect();
        // The files of other providers are not in this exposure, and are not what is damaged.
        let files = &params.spec.files;
        let mut spec = inspection.spec.clone();
        spec.files.retain(|file| files.iter().any(|mine| mine.original == file.file.path));
        spec.recoverable = false;
        let host = &params.host;
        let found = match provider.expose(cx, &snapshots, host, &key).await {
            Ok(exposure) => self.0.plugin.verify(cx, &exposure, &spec).await.ok(),
            Err(_) => None,
        };
        // An exposure that stays open is listed by the provider; the failure to tell is the damage.
        let _closed = provider.unexpose(cx, &key).await;
        let bad =
            found.into_iter().flat_map(|report| report.copies.into_values()).find_map(|report| {
                match report.verdict {
                    Verdict::Bad { reason, findings } => Some((reason, findings)),
                    _ => None,
                }
            });
        bad.map_or(plain, |(reason, findings)| damaged(params.point, &reason, findings.first()))
    }
}

/// The key of the exposure in which the damage of a restore is looked for.
pub(crate) fn located(key: &RestoreKey) -> String {
    format!("locate-{key}")
}

/// What the check of staged files is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CheckParams {
    pub(crate) key: ExposureKey,
    pub(crate) point: PointId,
}

/// Reads and checks every byte that is about to be restored, whatever the point's state says.
#[derive(Debug)]
pub(crate) struct CheckStaged(pub(crate) Arc<Services>);

#[async_trait]
impl Action for CheckStaged {
    const NAME: &'static str = "restore.check";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = CheckParams;
    type Input = (Vec<Staged>, Inspection);
    type Output = VerifyReport;

    async fn run(
        &self,
        cx: &Cx,
        params: &CheckParams,
        (staged, Inspection { spec, .. }): Self::Input,
    ) -> Result<Done<VerifyReport>, Failure> {
        let host = staged.first().map(|part| part.exposure.host.clone()).ok_or_else(|| {
            Failure::new("restore.no_files", ErrorClass::Internal, "nothing was staged")
        })?;
        let roots = staged.into_iter().flat_map(|part| part.exposure.roots).collect();
        let exposure = Exposure::new(params.key.clone(), host, roots);
        let report = self.0.plugin.verify(cx, &exposure, &spec).await?;
        for copy in spec.copies() {
            match report.verdict(copy) {
                Verdict::Good => {}
                Verdict::Bad { reason, findings } => {
                    return Err(damaged(params.point, &reason, findings.first()));
                }
                Verdict::Unverified { reason } => return Err(unchecked(params.point, &reason)),
                other => return Err(unchecked(params.point, &other.to_string())),
            }
        }
        Ok(Done::new(report))
    }
}

fn unchecked(point: PointId, reason: &str) -> Failure {
    Failure::new(
        "restore.unchecked",
        ErrorClass::Integrity,
        format!("the restored files could not be checked: {reason}"),
    )
    .with_effect(Effect::None)
    .with_remedy(
        "Use a plug-in that can check such files; nothing was put under the target's name.",
    )
    .with_subject(Subject::new("restore point", point))
}

/// The failure of a restore whose bytes are not what was backed up.
pub(crate) fn damaged(point: PointId, reason: &str, first: Option<&Finding>) -> Failure {
    let failure = Failure::new(
        "restore.damaged",
        ErrorClass::Integrity,
        format!("the stored copy is damaged: {reason}"),
    )
    .with_effect(Effect::None)
    .with_remedy("Restore from another restore point; run `verify` to mark this one as suspect.")
    .with_subject(Subject::new("restore point", point));
    let Some(first) = first else { return failure };
    let failure = failure.with_subject(Subject::new("file", &first.file));
    let failure = match first.page {
        Some(page) => failure.with_subject(Subject::new("page", page)),
        None => failure,
    };
    match first.offset {
        Some(offset) => failure.with_subject(Subject::new("offset", offset)),
        None => failure,
    }
}

/// Moves staged files to their targets.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Arc<Services>);

/// Names a restore at a provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlaceParams {
    pub(crate) provider: ProviderId,
    pub(crate) key: RestoreKey,
}

#[async_trait]
impl Action for Place {
    const NAME: &'static str = "restore.place";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = PlaceParams;
    type Input = ();
    type Output = Published;

    async fn run(&self, cx: &Cx, params: &PlaceParams, (): ()) -> Result<Done<Published>, Failure> {
        Ok(Done::new(self.0.storage_restore(&params.provider)?.publish(cx, &params.key).await?))
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &PlaceParams,
        (): (),
        _: Known<Published>,
    ) -> Result<Undone, Failure> {
        self.0.storage_restore(&params.provider)?.retract(cx, &params.key).await?;
        Ok(Undone::clean())
    }
}

/// Brings the database into service.
#[derive(Debug)]
pub(crate) struct Finish(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Finish {
    const NAME: &'static str = "restore.finish";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = RestoreSpec;
    type Input = ();
    type Output = Recovered;

    async fn run(&self, cx: &Cx, spec: &RestoreSpec, (): ()) -> Result<Done<Recovered>, Failure> {
        match self.0.exchange_restore(spec)? {
            Some(side) => Ok(Done::new(side.finish(cx, spec).await?)),
            None => Ok(Done::new(Recovered::files_only())),
        }
    }

    /// Takes the database out of service again, so that no files are put back under a mounted one; the undo of `open` mounts it
    /// once they are back.
    async fn undo(
        &self,
        cx: &Cx,
        spec: &RestoreSpec,
        (): (),
        _: Known<Recovered>,
    ) -> Result<Undone, Failure> {
        if let Some(side) = self.0.exchange_restore(spec)? {
            side.open(cx, spec).await?;
        }
        Ok(Undone::clean())
    }
}

/// Notes that the chain of the database's logs forks here: what it writes from now on is put together with nothing older.
#[derive(Debug)]
pub(crate) struct Fork(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Fork {
    const NAME: &'static str = "restore.fork";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = (DatabaseId, PointId);
    type Input = Recovered;
    type Output = ();

    async fn run(
        &self,
        cx: &Cx,
        (database, point): &(DatabaseId, PointId),
        recovered: Recovered,
    ) -> Result<Done<()>, Failure> {
        let mut fork = ChainFork::new(cx.run(), *database, cx.now(), *point);
        fork.replayed_to = recovered.replayed_to;
        self.0.catalog.put_fork(&fork).await.map_err(|error| Failure::of(&error))?;
        // Beside the data as well, as far as that can be done: a database that is back is worth more, and a repair tells it.
        if let Err(failure) = beside::put_fork(&self.0, cx, &fork, |_, _| true).await {
            tracing::warn!(%failure, "a fork could not be told beside the data");
        }
        Ok(Done::new(()))
    }

    async fn undo(
        &self,
        cx: &Cx,
        _: &(DatabaseId, PointId),
        _: Recovered,
        _: Known<()>,
    ) -> Result<Undone, Failure> {
        beside::forget_fork(&self.0, cx, cx.run()).await?;
        self.0.catalog.remove_fork(cx.run()).await.map_err(|error| Failure::of(&error))?;
        Ok(Undone::clean())
    }
}

/// Lets go of what was kept aside: the point of no return.
#[derive(Debug)]
pub(crate) struct Release(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Release {
    const NAME: &'static str = "restore.release";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    const IDEMPOTENT: bool = true;
    type Params = Vec<PlaceParams>;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, places: &Vec<PlaceParams>, (): ()) -> Result<Done<()>, Failure> {
        for place in places {
            self.0.storage_restore(&place.provider)?.settle(cx, &place.key).await?;
        }
        Ok(Done::new(()))
    }
}
