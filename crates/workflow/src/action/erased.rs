//! Actions with their types erased: what the driver calls.

use std::any::TypeId;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use stillpoint_context::{BoxFuture, Cx, Failure};

use super::{Action, Done, EffectKind, Known, Probe, Undone};
use crate::journal::FactDraft;
use crate::payload::Payload;

/// One call of an action.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) cx: Cx,
    pub(crate) params: Payload,
    pub(crate) input: Payload,
}

/// The success of a step, with its output at rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RawDone {
    pub(crate) output: Payload,
    pub(crate) facts: Vec<FactDraft>,
    pub(crate) warnings: Vec<Failure>,
}

pub(crate) type RawProbe = Probe<Payload>;

/// An action without its types. Futures own what they need, so that they can be spawned.
pub(crate) trait AnyAction: Debug + Send + Sync {
    fn effect(&self) -> EffectKind;
    fn run(&self, call: Invocation) -> BoxFuture<'static, Result<RawDone, Failure>>;
    fn undo(
        &self,
        call: Invocation,
        known: Known<Payload>,
    ) -> BoxFuture<'static, Result<Undone, Failure>>;
    fn probe(&self, call: Invocation) -> BoxFuture<'static, Result<RawProbe, Failure>>;
    fn worst_case(&self, params: &Payload, input: &Payload) -> Result<Option<Duration>, Failure>;
}

/// Reads a value; the unit value needs no reading.
pub(crate) fn read<T: DeserializeOwned + 'static>(payload: &Payload) -> Result<T, Failure> {
    if *payload == Payload::UNIT && TypeId::of::<T>() == TypeId::of::<()>() {
        // A unit value is made without the parser: most edges of a large plan carry nothing.
        let unit: Box<dyn std::any::Any> = Box::new(());
        if let Ok(unit) = unit.downcast::<T>() {
            return Ok(*unit);
        }
    }
    payload.read()
}

pub(crate) fn rest<T: serde::Serialize + 'static>(done: Done<T>) -> Result<RawDone, Failure> {
    let Done { output, facts, warnings } = done;
    Ok(RawDone { output: Payload::of(&output)?, facts, warnings })
}

pub(crate) fn known<T: DeserializeOwned + 'static>(
    known: Known<Payload>,
) -> Result<Known<T>, Failure> {
    Ok(match known {
        Known::Output(payload) => Known::Output(read(&payload)?),
        Known::Unknown => Known::Unknown,
    })
}

pub(crate) fn found<T: serde::Serialize + 'static>(probe: Probe<T>) -> Result<RawProbe, Failure> {
    Ok(match probe {
        Probe::Done(output) => Probe::Done(Payload::of(&output)?),
        Probe::NotDone => Probe::NotDone,
        Probe::InFlight(time) => Probe::InFlight(time),
        Probe::Unknown => Probe::Unknown,
    })
}

/// A registered action behind [`AnyAction`].
#[derive(Debug)]
pub(crate) struct Typed<A>(pub(crate) Arc<A>, pub(crate) PhantomData<A>);

impl<A: Action> AnyAction for Typed<A> {
    fn effect(&self) -> EffectKind {
        A::EFFECT
    }

    fn run(&self, call: Invocation) -> BoxFuture<'static, Result<RawDone, Failure>> {
        let action = Arc::clone(&self.0);
        Box::pin(async move {
            let (params, input) = (read(&call.params)?, read(&call.input)?);
            rest(action.run(&call.cx, &params, input).await?)
        })
    }

    fn undo(
        &self,
        call: Invocation,
        outcome: Known<Payload>,
    ) -> BoxFuture<'static, Result<Undone, Failure>> {
        let action = Arc::clone(&self.0);
        Box::pin(async move {
            let (params, input) = (read(&call.params)?, read(&call.input)?);
            action.undo(&call.cx, &params, input, known(outcome)?).await
        })
    }

    fn probe(&self, call: Invocation) -> BoxFuture<'static, Result<RawProbe, Failure>> {
        let action = Arc::clone(&self.0);
        Box::pin(async move {
            let (params, input) = (read(&call.params)?, read(&call.input)?);
            found(action.probe(&call.cx, &params, input).await?)
        })
    }

    fn worst_case(&self, params: &Payload, input: &Payload) -> Result<Option<Duration>, Failure> {
        Ok(self.0.worst_case(&read(params)?, &read(input)?))
    }
}
