//! Steps that make snapshots readable, have the plug-in check them, and end the exposure.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, ErrorClass, Failure, HostId};
use stillpoint_exchange::{VerifyReport, VerifySpec};
use stillpoint_model::handover::{ExposedRoot, Exposure};
use stillpoint_model::id::{ExposureKey, ProviderId, SnapshotRef};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Undone};

use crate::services::Services;

/// What is to be exposed, and how the exposure is to be known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExposeParams {
    pub(crate) key: ExposureKey,
    pub(crate) host: HostId,
    /// The providers that may hold a part of it.
    pub(crate) providers: Vec<ProviderId>,
}

/// The snapshots to look into, and what is to be checked in them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inspection {
    pub(crate) snapshots: Vec<SnapshotRef>,
    pub(crate) spec: VerifySpec,
}

/// Makes snapshots readable on a host.
#[derive(Debug)]
pub(crate) struct Expose(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Expose {
    const NAME: &'static str = "storage.expose";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = ExposeParams;
    type Input = Inspection;
    type Output = Exposure;

    async fn run(
        &self,
        cx: &Cx,
        params: &ExposeParams,
        inspection: Inspection,
    ) -> Result<Done<Exposure>, Failure> {
        let mut by_provider: BTreeMap<ProviderId, Vec<SnapshotRef>> = BTreeMap::new();
        for snapshot in inspection.snapshots {
            by_provider.entry(snapshot.volume.provider.clone()).or_default().push(snapshot);
        }
        let mut roots: Vec<ExposedRoot> = Vec::new();
        for (provider, snapshots) in by_provider {
            let provider = self.0.provider(&provider)?;
            let part = provider.expose(cx, &snapshots, &params.host, &params.key).await?;
            roots.extend(part.roots);
        }
        Ok(Done::new(Exposure::new(params.key.clone(), params.host.clone(), roots)))
    }

    async fn undo(
        &self,
        cx: &Cx,
        params: &ExposeParams,
        _: Inspection,
        _: Known<Exposure>,
    ) -> Result<Undone, Failure> {
        unexpose(&self.0, cx, params).await?;
        Ok(Undone::clean())
    }
}

async fn unexpose(services: &Services, cx: &Cx, params: &ExposeParams) -> Result<(), Failure> {
    for provider in &params.providers {
        services.provider(provider)?.unexpose(cx, &params.key).await?;
    }
    Ok(())
}

/// Ends an exposure that is not needed any more.
#[derive(Debug)]
pub(crate) struct Unexpose(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Unexpose {
    const NAME: &'static str = "storage.unexpose";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ExposeParams;
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, params: &ExposeParams, (): ()) -> Result<Done<()>, Failure> {
        unexpose(&self.0, cx, params).await?;
        Ok(Done::new(()))
    }
}

/// Has the plug-in read and check what is exposed.
#[derive(Debug)]
pub(crate) struct Check(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Check {
    const NAME: &'static str = "exchange.verify";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    /// What is exposed (an exposure that failed makes the check fail) and what of it is to be checked.
    type Input = (Result<Exposure, Failure>, Inspection);
    type Output = VerifyReport;

    async fn run(
        &self,
        cx: &Cx,
        (): &(),
        (exposure, Inspection { spec, .. }): (Result<Exposure, Failure>, Inspection),
    ) -> Result<Done<VerifyReport>, Failure> {
        let report = self.0.plugin.verify(cx, &exposure?, &spec).await?;
        for copy in spec.copies() {
            if !report.copies.contains_key(copy) {
                return Err(Failure::new(
                    "verify.incomplete",
                    ErrorClass::Internal,
                    format!("the plug-in's report leaves out copy {copy}"),
                ));
            }
        }
        Ok(Done::new(report))
    }
}
