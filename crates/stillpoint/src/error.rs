//! What the façade says when it cannot.

use std::borrow::Cow;
use std::time::Duration;

use stillpoint_catalog::CatalogError;
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Failure, Subject};
use stillpoint_exchange::PluginError;
use stillpoint_model::hold::HoldError;
use stillpoint_model::id::PointId;
use stillpoint_model::planning::PlanError;
use stillpoint_model::restore::RestoreError;
use stillpoint_model::retention::PruneError;
use stillpoint_model::schedule::ScheduleError;
use stillpoint_storage::ProviderError;
use stillpoint_workflow::EngineError;

/// An error of the façade. What went wrong inside a job is in the [job](stillpoint_model::job::Job), not here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue could not be read or written, or has something else under a key or a name.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The Exchange plug-in could not be asked.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A snapshot provider could not be asked.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A backup cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A restore cannot be planned.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Something must not be deleted.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// A hold makes no sense.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// A schedule breaks a rule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The engine did not take or carry out what it was asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something that was named does not exist.
    #[error("there is no {kind} {id}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The Stillpoint was put together wrongly.
    #[error("{0}")]
    Configuration(String),
    /// Something else, as data.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Error {
    pub(crate) fn no_point(point: PointId) -> Self {
        Self::NotFound { kind: "restore point", id: point.to_string() }
    }

    /// As data, with nothing lost of what is data already.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            other => Failure::of(&other),
        }
    }

    fn inner(&self) -> Option<&dyn ErrorFacts> {
        match self {
            Self::Catalog(error) => Some(error),
            Self::Plugin(error) => Some(error),
            Self::Provider(error) => Some(error),
            Self::Plan(error) => Some(error),
            Self::Restore(error) => Some(error),
            Self::Prune(error) => Some(error),
            Self::Hold(error) => Some(error),
            Self::Schedule(error) => Some(error),
            Self::Engine(error) => Some(error),
            Self::Failed(failure) => Some(failure),
            Self::NotFound { .. } | Self::Configuration(_) => None,
        }
    }
}

impl ErrorFacts for Error {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => "not_found".into(),
            Self::Configuration(_) => "configuration.invalid".into(),
            other => other.inner().map_or("internal".into(), ErrorFacts::code),
        }
    }
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } | Self::Configuration(_) => ErrorClass::Invalid,
            other => other.inner().map_or(ErrorClass::Internal, ErrorFacts::class),
        }
    }
    fn is_retryable(&self) -> bool {
        self.inner().is_some_and(ErrorFacts::is_retryable)
    }
    fn retry_after(&self) -> Option<Duration> {
        self.inner().and_then(ErrorFacts::retry_after)
    }
    fn effect(&self) -> Effect {
        self.inner().map_or(Effect::None, ErrorFacts::effect)
    }
    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::NotFound { kind, id } => vec![Subject::new(kind, id)],
            other => other.inner().map_or_else(Vec::new, ErrorFacts::subjects),
        }
    }
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::NotFound { .. } => "List what there is, and name one of those.".into(),
            Self::Configuration(_) => "Correct the configuration.".into(),
            other => other.inner().map_or("".into(), ErrorFacts::remedy),
        }
    }
}

/// A plan that cannot be made, which is a defect of ours.
pub(crate) fn plan_defect(what: impl std::fmt::Display) -> Failure {
    Failure::new("plan.internal", ErrorClass::Internal, what.to_string())
        .with_remedy("Report it to the makers of Stillpoint.")
}
