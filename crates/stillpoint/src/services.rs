//! What the actions of every plan reach: the plug-in, the providers, the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use stillpoint_catalog::Catalog;
use stillpoint_context::{Effect, ErrorClass, Failure, HostPath, Subject};
use stillpoint_exchange::{ExchangePlugin, ExchangeRestore, RestoreSpec};
use stillpoint_model::id::ProviderId;
use stillpoint_storage::{SnapshotProvider, SnapshotRestore};

use crate::hooks::HookRunner;
use crate::notify::Subscription;
use crate::pump::Pump;

/// The sides that a Stillpoint composes.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) plugin: Arc<dyn ExchangePlugin>,
    pub(crate) providers: BTreeMap<ProviderId, Arc<dyn SnapshotProvider>>,
    pub(crate) catalog: Arc<dyn Catalog>,
    /// Who is told what became of jobs.
    pub(crate) notifiers: Vec<Subscription>,
    /// What runs the hooks of policies.
    pub(crate) hooks: Option<Arc<dyn HookRunner>>,
    /// Whether the catalogue is in the store that keeps the leases.
    pub(crate) one_store: bool,
    pub(crate) pump: Pump,
    /// Where the state is, as far as the embedder has said so.
    pub(crate) state: Vec<HostPath>,
}

impl Services {
    /// The provider of this id.
    ///
    /// # Errors
    /// `storage.provider_missing`: a plan or a restore point names a provider that this process was not given.
    pub(crate) fn provider(&self, id: &ProviderId) -> Result<&dyn SnapshotProvider, Failure> {
        self.providers.get(id).map(AsRef::as_ref).ok_or_else(|| {
            Failure::new(
                "storage.provider_missing",
                ErrorClass::Invalid,
                format!("there is no storage provider {id}"),
            )
            .with_effect(Effect::None)
            .with_subject(Subject::new("provider", id))
            .with_remedy("Configure the provider that made the snapshots.")
        })
    }

    /// The restore side of this provider.
    ///
    /// # Errors
    /// As [`provider`](Self::provider); `storage.unsupported` where it has none.
    pub(crate) fn storage_restore(&self, id: &ProviderId) -> Result<&dyn SnapshotRestore, Failure> {
        self.provider(id)?.restore().ok_or_else(|| unsupported("storage.unsupported", "restore"))
    }

    /// The restore side of the plug-in; none where it has none and is not needed, since files that are put elsewhere are the
    /// storage's affair alone.
    ///
    /// # Errors
    /// `exchange.unsupported` where it has none and the database is to come back into service.
    pub(crate) fn exchange_restore(
        &self,
        spec: &RestoreSpec,
    ) -> Result<Option<&dyn ExchangeRestore>, Failure> {
        match self.plugin.restore() {
            None if spec.in_place || spec.mount => {
                Err(unsupported("exchange.unsupported", "restore"))
            }
            side => Ok(side),
        }
    }
}

fn unsupported(code: &'static str, capability: &str) -> Failure {
    Failure::new(code, ErrorClass::Invalid, format!("the capability `{capability}` is missing"))
        .with_effect(Effect::None)
        .with_remedy("Use a plug-in and a provider that can restore.")
}
