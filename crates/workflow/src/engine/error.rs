//! Why the engine did not do what it was asked.

use std::borrow::Cow;

use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, Failure, IdempotencyKey, RunId, StepName, Subject,
};

use crate::journal::JournalError;

/// Why the engine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A plan of closures and a durable journal.
    #[error("the plan has steps of closures, which a durable journal cannot keep")]
    Ephemeral,
    /// The plan names an action that this process does not have.
    #[error("step {step} needs action {action} version {version}, which is not registered")]
    UnknownAction {
        /// The step.
        step: StepName,
        /// The action.
        action: String,
        /// Its version.
        version: u32,
    },
    /// The plan has an input that the submission does not give.
    #[error("the submission gives no value for input {input}")]
    MissingInput {
        /// The input.
        input: StepName,
    },
    /// A value that cannot be stored.
    #[error("a value of the submission cannot be stored: {0}")]
    BadValue(Failure),
    /// A claim that lasts until what is no guard and no step outside guards.
    #[error(
        "a claim lasts until {guard}, which is no guard and no step of the plan outside guards"
    )]
    UnknownGuard {
        /// What was said to be one.
        guard: StepName,
    },
    /// The key belongs to another submission.
    #[error("key {key} has been used for another submission, run {run}")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
        /// The run that it belongs to.
        run: RunId,
    },
    /// Another run has the id that was asked for.
    #[error("there is a run {run} already")]
    RunTaken {
        /// The run.
        run: RunId,
    },
    /// The run, or the step, is not parked, or something of it is still at work.
    #[error("run {run} is not parked there, or not at rest")]
    NotParked {
        /// The run.
        run: RunId,
    },
    /// There is no step of this name.
    #[error("run {run} has no step {step:?}")]
    NoStep {
        /// The run.
        run: RunId,
        /// The name.
        step: String,
    },
    /// As many runs are open as may be.
    #[error("{limit} runs are open, which is the limit of this engine")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The engine takes nothing more: it is being drained, or suspended.
    #[error("the engine is coming to its end and takes no more runs")]
    Closing,
    /// The run came to rest because the engine was suspended: it is open in the journal, and keeps what it claims.
    #[error("run {run} is suspended")]
    Suspended {
        /// The run.
        run: RunId,
    },
    /// Another process carries the run.
    #[error("run {run} is carried out by another process")]
    Elsewhere {
        /// The run.
        run: RunId,
    },
    /// The journal failed.
    #[error("the journal failed")]
    Journal(#[source] JournalError),
    /// The runtime under the engine has ended.
    #[error("the engine's runtime has ended")]
    Gone,
}

impl ErrorFacts for EngineError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Ephemeral => "engine.ephemeral_plan".into(),
            Self::UnknownAction { .. } => "engine.unknown_action".into(),
            Self::MissingInput { .. } => "engine.missing_input".into(),
            Self::BadValue(failure) => failure.code.clone(),
            Self::UnknownGuard { .. } => "plan.unknown_guard".into(),
            Self::KeyReused { .. } => "run.key_reused".into(),
            Self::RunTaken { .. } => "run.taken".into(),
            Self::NotParked { .. } => "run.not_parked".into(),
            Self::NoStep { .. } => "run.no_step".into(),
            Self::QueueFull { .. } => "engine.queue_full".into(),
            Self::Closing => "engine.closing".into(),
            Self::Suspended { .. } => "run.suspended".into(),
            Self::Elsewhere { .. } => "run.elsewhere".into(),
            Self::Journal(error) => error.code(),
            Self::Gone => "engine.gone".into(),
        }
    }
    fn class(&self) -> ErrorClass {
        match self {
            Self::Ephemeral
            | Self::UnknownAction { .. }
            | Self::MissingInput { .. }
            | Self::BadValue(_)
            | Self::UnknownGuard { .. }
            | Self::NoStep { .. } => ErrorClass::Invalid,
            Self::KeyReused { .. } | Self::RunTaken { .. } | Self::NotParked { .. } => {
                ErrorClass::Conflict
            }
            Self::QueueFull { .. } => ErrorClass::Busy,
            Self::Suspended { .. } | Self::Elsewhere { .. } => ErrorClass::Conflict,
            Self::Journal(error) => error.class(),
            Self::Closing | Self::Gone => ErrorClass::Unavailable,
        }
    }
    fn effect(&self) -> Effect {
        match self {
            Self::Journal(error) => error.effect(),
            Self::Gone => Effect::Unknown,
            _ => Effect::None,
        }
    }
    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::UnknownAction { step, action, .. } => {
                vec![Subject::new("step", step), Subject::new("action", action)]
            }
            Self::MissingInput { input } => vec![Subject::new("step", input)],
            Self::BadValue(failure) => failure.subjects.clone(),
            Self::UnknownGuard { guard } => vec![Subject::new("step", guard)],
            Self::KeyReused { run, .. }
            | Self::RunTaken { run }
            | Self::NotParked { run }
            | Self::Suspended { run }
            | Self::Elsewhere { run } => vec![Subject::new("run", run)],
            Self::NoStep { run, step } => {
                vec![Subject::new("run", run), Subject::new("step", step)]
            }
            Self::Journal(error) => error.subjects(),
            Self::Ephemeral | Self::QueueFull { .. } | Self::Closing | Self::Gone => Vec::new(),
        }
    }
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Ephemeral => {
                "Make the steps registered actions, or use a journal in memory.".into()
            }
            Self::UnknownAction { .. } => {
                "Register the action, or run the version that has it.".into()
            }
            Self::MissingInput { .. } => "Give the submission a value for it.".into(),
            Self::BadValue(failure) => failure.remedy.clone(),
            Self::UnknownGuard { .. } => "Name a guard or a step of the plan.".into(),
            Self::KeyReused { .. } => "Use a new key for a new request.".into(),
            Self::RunTaken { .. } => "Leave the id to the engine, or use a new one.".into(),
            Self::NotParked { .. } => "Look at the run's state.".into(),
            Self::NoStep { .. } => "Look at the steps of the run's plan.".into(),
            Self::Journal(error) => error.remedy(),
            Self::QueueFull { .. } => "Wait until some have ended, or raise the limit.".into(),
            Self::Closing => "Submit it to the engine that comes next.".into(),
            Self::Suspended { .. } => "Recover it, in this process or another.".into(),
            Self::Elsewhere { .. } => {
                "Ask the process that carries it, or wait until it is gone.".into()
            }
            Self::Gone => "Start the engine again, and recover its runs.".into(),
        }
    }
}
