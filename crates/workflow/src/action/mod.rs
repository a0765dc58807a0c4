//! Actions: what the steps of a plan do.
//!
//! ```text
//!             ┌── run ──▶ Done(output, facts, warnings)
//!   Action ───┼── undo ─▶ Undone(debris)      told Known(output) or Unknown
//!             └── probe ▶ Done · NotDone · InFlight · Unknown
//! ```

mod call;
mod closure;
mod erased;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod interpose;
mod registry;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};

pub use call::{Call, step_fn};
pub(crate) use erased::{AnyAction, Invocation, RawDone, RawProbe};
pub use registry::{ActionRegistry, RegistryError};

use crate::journal::FactDraft;

/// What a step does to the world, declared by its action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Nothing: never undone, free to repeat.
    ReadOnly,
    /// Something that [`Action::undo`] takes back.
    Reversible,
    /// Something that stays. If the run fails before its point of no return, it is left as debris.
    Irreversible,
}

/// A kind of step: named, versioned, typed.
///
/// The value that implements it holds what the process supplies (clients, handles) and is registered once in an
/// [`ActionRegistry`]; a plan stores the name, the version and the [`Params`](Self::Params).
///
/// # Idempotence
/// [`Cx::key`] is the same in every attempt. After an outcome that is unknown (time-out, panic, crash) the engine asks
/// [`probe`](Self::probe) and repeats [`run`](Self::run) only if the probe says *not done* or the action is
/// [`IDEMPOTENT`](Self::IDEMPOTENT). [`undo`](Self::undo) may be called more than once and must bear it.
///
/// # Cancel safety
/// Every future may be dropped at any await: the engine then treats the outcome as unknown.
#[async_trait]
pub trait Action: Debug + Send + Sync + 'static {
    /// The stable name, such as `storage.prepare`.
    const NAME: &'static str;
    /// The version of parameters, input and output as stored.
    const VERSION: u32 = 1;
    /// What it does to the world.
    const EFFECT: EffectKind;
    /// Whether repeating a call with unknown outcome is harmless.
    const IDEMPOTENT: bool = matches!(Self::EFFECT, EffectKind::ReadOnly);

    /// What the plan says once and for all.
    type Params: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it gets from earlier steps.
    type Input: DeserializeOwned + Send + 'static;
    /// What it gives to later ones.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Does it.
    ///
    /// # Errors
    /// A [`Failure`] whose effect tells whether anything may have changed; *unknown* unless said.
    async fn run(
        &self,
        cx: &Cx,
        params: &Self::Params,
        input: Self::Input,
    ) -> Result<Done<Self::Output>, Failure>;

    /// Takes it back; told what is known of the outcome. Only called for [`EffectKind::Reversible`] actions.
    ///
    /// # Errors
    /// A [`Failure`]; when retries are spent, its subjects become the run's debris.
    async fn undo(
        &self,
        cx: &Cx,
        params: &Self::Params,
        input: Self::Input,
        known: Known<Self::Output>,
    ) -> Result<Undone, Failure> {
        let _ = (cx, params, input, known);
        Err(Failure::new("action.no_undo", ErrorClass::Internal, "the action has no undo")
            .with_effect(Effect::None)
            .with_subject(Subject::new("action", Self::NAME))
            .with_remedy("Declare the action irreversible, or give it an undo."))
    }

    /// Finds out whether an attempt of unknown outcome took effect. Must change nothing.
    ///
    /// # Errors
    /// A [`Failure`] counts as [`Probe::Unknown`].
    async fn probe(
        &self,
        cx: &Cx,
        params: &Self::Params,
        input: Self::Input,
    ) -> Result<Probe<Self::Output>, Failure> {
        let _ = (cx, params, input);
        Ok(Probe::Unknown)
    }

    /// How long the call may take at worst, where that follows from parameters or input; read when a guard is armed.
    fn worst_case(&self, params: &Self::Params, input: &Self::Input) -> Option<Duration> {
        let _ = (params, input);
        None
    }

    /// This action with these parameters, ready to be made a step.
    fn with(params: Self::Params) -> Call<Self::Input, Self::Output, ()>
    where
        Self: Sized,
    {
        Call::to::<Self>(&params)
    }
}

/// The success of a step: its output, and what is to be kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Done<T> {
    /// The output.
    pub output: T,
    /// Appended to the journal in the same commit as the step's record.
    pub facts: Vec<FactDraft>,
    /// What went not quite right; the run ends with warnings.
    pub warnings: Vec<Failure>,
}

impl<T> Done<T> {
    /// Done, with this output.
    pub const fn new(output: T) -> Self {
        Self { output, facts: Vec::new(), warnings: Vec::new() }
    }

    /// The same with one more fact.
    pub fn with_fact(mut self, fact: FactDraft) -> Self {
        self.facts.push(fact);
        self
    }

    /// The same with one more warning.
    pub fn with_warning(mut self, warning: Failure) -> Self {
        self.warnings.push(warning);
        self
    }
}

impl<T> From<T> for Done<T> {
    fn from(output: T) -> Self {
        Self::new(output)
    }
}

/// What an undo, or the exit of a guard, is told of the attempt that it takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known<T> {
    /// It succeeded with this output.
    Output(T),
    /// It may or may not have taken effect, wholly or in part.
    Unknown,
}

impl<T> Known<T> {
    /// The output, if known.
    pub fn output(self) -> Option<T> {
        match self {
            Self::Output(output) => Some(output),
            Self::Unknown => None,
        }
    }
}

/// The success of an undo.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[must_use]
pub struct Undone {
    /// What is left in spite of it: objects outside, each of which somebody has to look at.
    pub debris: Vec<Subject>,
    /// Appended to the journal in the same commit as the record of the undo.
    pub facts: Vec<FactDraft>,
}

impl Undone {
    /// All is gone.
    pub fn clean() -> Self {
        Self::default()
    }

    /// The same, but this is left or may still appear.
    pub fn with_debris(mut self, object: Subject) -> Self {
        self.debris.push(object);
        self
    }

    /// The same with one more fact.
    pub fn with_fact(mut self, fact: FactDraft) -> Self {
        self.facts.push(fact);
        self
    }
}

impl From<()> for Undone {
    fn from((): ()) -> Self {
        Self::clean()
    }
}

/// What is found out about an attempt of unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// It took effect, with this output: the step has succeeded.
    Done(T),
    /// It did not and no longer will.
    NotDone,
    /// It may still take effect for this long: ask again then.
    InFlight(Duration),
    /// There is no telling.
    Unknown,
}
