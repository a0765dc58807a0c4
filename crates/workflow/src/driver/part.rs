//! The calls of a guard: each made beforehand, and begun on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::future::{AbortHandle, Either, select};
use stillpoint_context::{
    Attempt as AttemptNo, BoxFuture, Cancel, Clock, CxBuilder, Deadline, Effect, ErrorClass,
    Failure,
};

use super::attempt::{Ended, contain};
use crate::action::{AnyAction, Invocation, RawDone};
use crate::journal::FactDraft;
use crate::lane::LaneThread;
use crate::machine::PartOutcome;
use crate::payload::Payload;

/// One call of a guard, with its thread.
pub(super) struct Part {
    pub(super) thread: Option<Box<dyn LaneThread>>,
    pub(super) action: Arc<dyn AnyAction>,
    pub(super) cx: CxBuilder,
    pub(super) cancel: Cancel,
    pub(super) params: Payload,
    pub(super) timeout: Option<Duration>,
    pub(super) abort: Option<AbortHandle>,
}

/// The gate of an enter: it begins or is shut, never both.
#[derive(Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    const OPEN: u8 = 0;
    const BEGUN: u8 = 1;
    const SHUT: u8 = 2;

    /// Whether the enter may begin; it has then.
    pub(super) fn begin(&self) -> bool {
        self.close(Self::BEGUN)
    }

    /// Whether the enter can never begin any more.
    pub(super) fn shut(&self) -> bool {
        self.close(Self::SHUT)
    }

    fn close(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A call that waits for its deadline and its thread.
pub(super) type Work = Box<
    dyn FnOnce(Deadline, Arc<dyn Clock>) -> BoxFuture<'static, (PartOutcome, Vec<FactDraft>)>
        + Send,
>;

impl Part {
    /// The call, to be made on its thread once its deadline is known.
    pub(super) fn work(&mut self, attempt: u32, input: Payload) -> Work {
        let (abort, registration) = AbortHandle::new_pair();
        self.abort = Some(abort);
        let (action, cx) = (Arc::clone(&self.action), self.cx.clone());
        let (params, timeout) = (self.params.clone(), self.timeout);
        Box::new(move |deadline, clock| {
            Box::pin(async move {
                let overrun = timeout.map(|timeout| clock.mono() + timeout);
                let deadline = overrun.map_or(deadline, |at| deadline.min(Deadline::at(at)));
                let cx = cx.attempt(AttemptNo(attempt)).deadline(deadline).build();
                let in_flight = cx.in_flight();
                let call = action.run(Invocation { cx, params, input });
                let mut call = Box::pin(contain(call, registration));
                let ended = match overrun {
                    Some(at) => match select(&mut call, clock.sleep_until(at)).await {
                        Either::Left((ended, _)) => Some(ended),
                        Either::Right(_) => None,
                    },
                    None => Some((&mut call).await),
                };
                drop(call);
                if matches!(ended, Some(Ended::Dropped)) {
                    // Its blocking work may still act: it is off its thread when that is over.
                    in_flight.over().await;
                }
                outcome_of(ended)
            })
        })
    }
}

fn outcome_of(ended: Option<Ended<Result<RawDone, Failure>>>) -> (PartOutcome, Vec<FactDraft>) {
    let failed = |code, message: &str| {
        Failure::new(code, ErrorClass::Unavailable, message).with_effect(Effect::Unknown)
    };
    let failure = match ended {
        Some(Ended::Value(Ok(RawDone { output, facts, warnings }))) => {
            return (PartOutcome::Ok { output, warnings }, facts);
        }
        Some(Ended::Value(Err(failure))) => failure,
        Some(Ended::Panicked(message)) => {
            failed("step.panicked", "the step panicked").with_cause(message)
        }
        Some(Ended::Dropped) => failed("step.dropped", "the step was dropped"),
        None => failed("step.timeout", "the step overran its time"),
    };
    (PartOutcome::Failed(Box::new(failure)), Vec::new())
}
