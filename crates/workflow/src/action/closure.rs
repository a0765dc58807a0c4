//! Closures as actions.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx, ErrorClass, Failure};

use super::erased::{known, read, rest};
use super::{AnyAction, Done, EffectKind, Invocation, Known, Probe, RawDone, RawProbe, Undone};
use crate::payload::Payload;

type Run = dyn Fn(Invocation) -> BoxFuture<'static, Result<RawDone, Failure>> + Send + Sync;
type Undo =
    dyn Fn(Invocation, Known<Payload>) -> BoxFuture<'static, Result<Undone, Failure>> + Send + Sync;

/// A closure, and perhaps its undo. Effect and idempotence are the plan's to say.
pub(super) struct Closure<I, O> {
    run: Box<Run>,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Closure<I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
{
    pub(super) fn new<F, Fut>(run: F) -> Self
    where
        F: Fn(Cx, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Done<O>, Failure>> + Send + 'static,
    {
        let run = Arc::new(run);
        Self {
            run: Box::new(move |call| {
                let run = Arc::clone(&run);
                Box::pin(async move { rest(run(call.cx, read(&call.input)?).await?) })
            }),
            types: PhantomData,
        }
    }

    pub(super) fn with_undo<F, Fut>(inner: Arc<dyn AnyAction>, undo: F) -> Arc<dyn AnyAction>
    where
        F: Fn(Cx, I, Known<O>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Undone, Failure>> + Send + 'static,
    {
        let undo = Arc::new(undo);
        let undo = move |call: Invocation, outcome: Known<Payload>| {
            let undo = Arc::clone(&undo);
            let future: BoxFuture<'static, Result<Undone, Failure>> =
                Box::pin(async move { undo(call.cx, read(&call.input)?, known(outcome)?).await });
            future
        };
        Arc::new(WithUndo { inner, undo: Box::new(undo) })
    }
}

impl<I, O> fmt::Debug for Closure<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closure")
    }
}

fn no_undo() -> Failure {
    Failure::new("action.no_undo", ErrorClass::Internal, "the closure has no undo")
        .with_remedy("Give the step an undo.")
}

impl<I, O> AnyAction for Closure<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    fn effect(&self) -> EffectKind {
        EffectKind::Irreversible
    }

    fn run(&self, call: Invocation) -> BoxFuture<'static, Result<RawDone, Failure>> {
        (self.run)(call)
    }

    fn undo(
        &self,
        _: Invocation,
        _: Known<Payload>,
    ) -> BoxFuture<'static, Result<Undone, Failure>> {
        Box::pin(async { Err(no_undo()) })
    }

    fn probe(&self, _: Invocation) -> BoxFuture<'static, Result<RawProbe, Failure>> {
        Box::pin(async { Ok(Probe::Unknown) })
    }

    fn worst_case(&self, _: &Payload, _: &Payload) -> Result<Option<Duration>, Failure> {
        Ok(None)
    }
}

struct WithUndo {
    inner: Arc<dyn AnyAction>,
    undo: Box<Undo>,
}

impl fmt::Debug for WithUndo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closure with undo")
    }
}

impl AnyAction for WithUndo {
    fn effect(&self) -> EffectKind {
        EffectKind::Reversible
    }

    fn run(&self, call: Invocation) -> BoxFuture<'static, Result<RawDone, Failure>> {
        self.inner.run(call)
    }

    fn undo(
        &self,
        call: Invocation,
        outcome: Known<Payload>,
    ) -> BoxFuture<'static, Result<Undone, Failure>> {
        (self.undo)(call, outcome)
    }

    fn probe(&self, call: Invocation) -> BoxFuture<'static, Result<RawProbe, Failure>> {
        self.inner.probe(call)
    }

    fn worst_case(&self, params: &Payload, input: &Payload) -> Result<Option<Duration>, Failure> {
        self.inner.worst_case(params, input)
    }
}
