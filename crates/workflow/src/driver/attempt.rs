//! Attempts of steps, probes and undos: each a task of its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use stillpoint_context::{
    Attempt as AttemptNo, BoxFuture, Cancel, Deadline, Effect, ErrorClass, Failure, InFlight,
    Panicked, Progress, ProgressSink, RunId, StepName,
};
use tokio::sync::broadcast;

use super::{Address, Mail, RunTask};
use crate::action::{AnyAction, Invocation, Known, Probe, RawDone};
use crate::engine::{Notice, NoticeKind};
use crate::machine::{Input, Outcome, UndoOutcome};
use crate::payload::Payload;
use crate::plan::NodeNo;

/// What a task is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Run,
    Probe,
    Undo,
}

impl Work {
    /// The node of the task whose end an input tells.
    pub(super) const fn node(input: &Input) -> Option<NodeNo> {
        match input {
            Input::Ended { node, .. }
            | Input::Probed { node, .. }
            | Input::UndoEnded { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// What is told of a task that its runtime dropped.
    fn lost(self, node: NodeNo, attempt: u32) -> Input {
        match self {
            Self::Run => Input::Ended { node, attempt, outcome: Outcome::Dropped },
            Self::Probe => Input::Probed { node, attempt, answer: Probe::Unknown },
            Self::Undo => {
                let outcome = undo_failed("step.undo_lost", "the undo was dropped by its runtime");
                Input::UndoEnded { node, attempt, outcome }
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Run => "step",
            Self::Probe => "probe",
            Self::Undo => "undo",
        }
    }
}

/// The means to stop a task.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(super) work: Work,
    /// Tells it from every other task of the run.
    pub(super) serial: u64,
    pub(super) cancel: Cancel,
    pub(super) abort: AbortHandle,
}

/// Where a call's progress goes: to whoever watches the engine.
struct NoticeSink {
    run: RunId,
    step: StepName,
    notices: broadcast::Sender<Notice>,
}

impl fmt::Debug for NoticeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoticeSink")
    }
}

impl ProgressSink for NoticeSink {
    fn report(&self, progress: Progress) {
        let kind = NoticeKind::Progress { step: self.step.clone(), progress };
        let _: Result<usize, _> = self.notices.send(Notice { run: self.run, kind });
    }
}

/// How a future that may panic or be dropped came to its end.
pub(super) enum Ended<T> {
    Value(T),
    Panicked(String),
    Dropped,
}

/// Runs a call until it is ready, panics or is dropped.
pub(super) fn contain<T>(call: BoxFuture<'_, T>, stop: AbortRegistration) -> Contained<'_, T> {
    Contained(Abortable::new(call, stop))
}

/// A call that is run; see [`contain`].
pub(super) struct Contained<'a, T>(Abortable<BoxFuture<'a, T>>);

impl<T> Future for Contained<'_, T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<T>> {
        match catch_unwind(AssertUnwindSafe(|| self.0.poll_unpin(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(value))) => Poll::Ready(Ended::Value(value)),
            Ok(Poll::Ready(Err(_))) => Poll::Ready(Ended::Dropped),
            Err(payload) => {
                let message = Panicked::from_payload(payload.as_ref()).message;
                Poll::Ready(Ended::Panicked(message))
            }
        }
    }
}

impl From<Ended<Result<RawDone, Failure>>> for Outcome {
    fn from(ended: Ended<Result<RawDone, Failure>>) -> Self {
        match ended {
            Ended::Value(Ok(done)) => Self::Ok(done),
            Ended::Value(Err(failure)) => Self::Failed(Box::new(failure)),
            Ended::Panicked(message) => Self::Panicked(message),
            Ended::Dropped => Self::Dropped,
        }
    }
}

/// Sends a message when its task is done, or when the runtime drops the task.
struct Report {
    mail: Address,
    serial: u64,
    work: Work,
    node: NodeNo,
    attempt: u32,
    told: bool,
}

impl Report {
    fn send(mut self, input: Input) {
        self.told = true;
        let _ = self.mail.send(Mail::Over { serial: self.serial, input });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.told {
            let input = self.work.lost(self.node, self.attempt);
            let _ = self.mail.send(Mail::Over { serial: self.serial, input });
        }
    }
}

impl RunTask {
    pub(super) fn action(&self, node: NodeNo) -> Option<Arc<dyn AnyAction>> {
        self.actions.get(node.index()).cloned().flatten()
    }

    /// What a call of this node is given.
    fn invocation(
        &self,
        node: NodeNo,
        attempt: u32,
        deadline: Deadline,
    ) -> (Invocation, (Cancel, InFlight)) {
        let state = self.machine.state();
        let name = &state.plan().node(node).name;
        let (mut builder, cancel) = self.context(name);
        if self.shared.notices.receiver_count() > 0 {
            builder = builder.progress(Arc::new(NoticeSink {
                run: self.link.run,
                step: name.clone(),
                notices: self.shared.notices.clone(),
            }));
        }
        let cx = builder.attempt(AttemptNo(attempt)).deadline(deadline).build();
        let params = state.plan().step(node).map(|step| step.params.clone()).unwrap_or_default();
        let in_flight = cx.in_flight();
        (Invocation { cx, params, input: state.input(node) }, (cancel, in_flight))
    }

    fn deadline(&self, timeout: Option<std::time::Duration>) -> Deadline {
        let from_now = |timeout| Deadline::at(self.shared.seams.clock.mono() + timeout);
        timeout.map_or(Deadline::never(), from_now)
    }

    /// Spawns a call, and tells the run how it ended. One that was dropped has ended when its blocking work has.
    fn spawn<T>(
        &mut self,
        work: Work,
        (node, attempt): (NodeNo, u32),
        (cancel, in_flight): (Cancel, InFlight),
        call: BoxFuture<'static, T>,
        tell: impl FnOnce(Ended<T>) -> Input + Send + 'static,
    ) where
        T: Send + 'static,
    {
        let (abort, registration) = AbortHandle::new_pair();
        self.serial += 1;
        let serial = self.serial;
        self.attempts.insert(node, Attempt { work, serial, cancel, abort });
        let report = Report { mail: self.mail.clone(), serial, work, node, attempt, told: false };
        let task = async move {
            let ended = contain(call, registration).await;
            let dropped = matches!(ended, Ended::Dropped);
            let input = tell(ended);
            if dropped {
                in_flight.over().await;
            }
            report.send(input);
        };
        self.shared.seams.spawner.spawn(work.name(), Box::pin(task));
    }

    /// An attempt that was told to stop between its intent and its beginning.
    pub(super) fn skip(&self, node: NodeNo, attempt: u32) {
        let failure = Failure::new(
            "step.not_started",
            ErrorClass::Unavailable,
            "the step was told to stop before it began",
        )
        .with_effect(Effect::None);
        let outcome = Outcome::Failed(Box::new(failure));
        let _ = self.mail.send(Mail::Input(Input::Ended { node, attempt, outcome }));
    }

    pub(super) fn launch(&mut self, node: NodeNo, attempt: u32) {
        let timeout = self.machine.state().plan().step(node).and_then(|step| step.timeout);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        self.spawn(Work::Run, (node, attempt), cancel, action.run(call), move |ended| {
            Input::Ended { node, attempt, outcome: ended.into() }
        });
    }

    pub(super) fn probe(&mut self, node: NodeNo, attempt: u32) {
        let timeout = self.machine.state().plan().step(node).and_then(|step| step.timeout);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        self.spawn(Work::Probe, (node, attempt), cancel, action.probe(call), move |ended| {
            let answer = match ended {
                Ended::Value(Ok(answer)) => answer,
                Ended::Value(Err(_)) | Ended::Panicked(_) | Ended::Dropped => Probe::Unknown,
            };
            Input::Probed { node, attempt, answer }
        });
    }

    pub(super) fn undo(&mut self, node: NodeNo, attempt: u32) {
        let state = self.machine.state();
        let timeout = state.plan().step(node).and_then(|step| step.undo_timeout);
        let known: Known<Payload> =
            state.output(node).cloned().map_or(Known::Unknown, Known::Output);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        self.spawn(Work::Undo, (node, attempt), cancel, action.undo(call, known), move |ended| {
            let outcome = match ended {
                Ended::Value(Ok(undone)) => UndoOutcome::Ok(undone),
                Ended::Value(Err(failure)) => UndoOutcome::Failed(Box::new(failure)),
                Ended::Panicked(message) => undo_failed("step.undo_panicked", message),
                Ended::Dropped => undo_failed("step.undo_dropped", "the undo was dropped"),
            };
            Input::UndoEnded { node, attempt, outcome }
        });
    }
}

fn undo_failed(code: &'static str, message: impl Into<String>) -> UndoOutcome {
    UndoOutcome::Failed(Box::new(Failure::new(code, ErrorClass::Unavailable, message)))
}
