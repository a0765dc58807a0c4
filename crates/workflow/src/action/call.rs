//! An action with its parameters, on its way into a plan.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{Cx, Failure};

use super::closure::Closure;
use super::{Action, AnyAction, Done, EffectKind, Known, Undone};
use crate::payload::Payload;
use crate::plan::{Bind, Binding, Outside};

/// An action with its parameters: `I` is the input it wants, `O` its output, `X` what has been bound so far.
///
/// Made by [`Action::with`] or [`step_fn`]; taken by the builders of plans and guards, which accept it where `X` is `I`.
#[must_use]
pub struct Call<I, O, X = ()> {
    pub(crate) what: CallData,
    pub(crate) binding: Binding,
    types: PhantomData<fn(I, X) -> O>,
}

#[derive(Debug, Clone)]
pub(crate) struct CallData {
    pub(crate) action: Cow<'static, str>,
    pub(crate) version: u32,
    pub(crate) effect: EffectKind,
    pub(crate) idempotent: bool,
    pub(crate) params: Result<Payload, Failure>,
    pub(crate) closure: Option<Arc<dyn AnyAction>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) worst_case: Option<Duration>,
}

impl<I, O> Call<I, O> {
    pub(crate) fn to<A: Action>(params: &A::Params) -> Self {
        Self::from_data(CallData {
            action: Cow::Borrowed(A::NAME),
            version: A::VERSION,
            effect: A::EFFECT,
            idempotent: A::IDEMPOTENT,
            params: Payload::of(params),
            closure: None,
            timeout: None,
            worst_case: None,
        })
    }

    fn from_data(what: CallData) -> Self {
        Self { what, binding: Binding::Nothing, types: PhantomData }
    }
}

impl<I, O, X> Call<I, O, X> {
    /// Feeds the outputs of earlier steps.
    pub fn bind<B: Bind<Outside>>(self, source: B) -> Call<I, O, B::Value> {
        Call { what: self.what, binding: source.binding(), types: PhantomData }
    }

    /// How long one attempt may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.what.timeout = Some(timeout);
        self
    }

    /// How long the call may take at worst; counted when a guard is armed.
    pub fn worst_case(mut self, worst: Duration) -> Self {
        self.what.worst_case = Some(worst);
        self
    }
}

impl<I, O, X> Debug for Call<I, O, X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("action", &self.what.action).finish_non_exhaustive()
    }
}

/// A step from a closure. Plans with such steps are ephemeral: a durable journal refuses them.
///
/// The step counts as irreversible until it gets an [`undo`](Call::undo) or is said to be
/// [`read_only`](Call::read_only).
///
/// ```
/// use stillpoint_workflow::{Done, step_fn};
///
/// let double = step_fn(|_cx, n: u32| async move { Ok(Done::new(n * 2)) });
/// # let _ = double;
/// ```
pub fn step_fn<I, O, F, Fut>(run: F) -> Call<I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
    F: Fn(Cx, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Done<O>, Failure>> + Send + 'static,
{
    Call::from_data(CallData {
        action: Cow::Borrowed("fn"),
        version: 0,
        effect: EffectKind::Irreversible,
        idempotent: false,
        params: Ok(Payload::UNIT),
        closure: Some(Arc::new(Closure::new(run))),
        timeout: None,
        worst_case: None,
    })
}

impl<I, O, X> Call<I, O, X>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
{
    /// Says that the closure changes nothing. Of no effect on a registered action, which declares it itself.
    pub fn read_only(mut self) -> Self {
        if self.what.closure.is_some() {
            self.what.effect = EffectKind::ReadOnly;
            self.what.idempotent = true;
        }
        self
    }

    /// Says that repeating the closure is harmless. Of no effect on a registered action.
    pub fn idempotent(mut self) -> Self {
        if self.what.closure.is_some() {
            self.what.idempotent = true;
        }
        self
    }

    /// Gives the closure an undo. Of no effect on a registered action, which has its own.
    pub fn undo<F, Fut>(mut self, undo: F) -> Self
    where
        F: Fn(Cx, I, Known<O>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Undone, Failure>> + Send + 'static,
    {
        if let Some(closure) = &self.what.closure {
            self.what.closure = Some(Closure::<I, O>::with_undo(Arc::clone(closure), undo));
            self.what.effect = EffectKind::Reversible;
        }
        self
    }
}
