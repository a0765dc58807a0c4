//! Attempts of steps, probes and undos: each a task of its own.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use stillpoint_context::{
    Attempt as AttemptNo, BoxFuture, Cancel, Deadline, ErrorClass, Failure, Panicked, Progress,
    ProgressSink, RunId, StepName,
};
use tokio::sync::{broadcast, mpsc};

use super::{Mail, RunTask};
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
    /// The task whose end an input tells.
    pub(super) const fn ended(input: &Input) -> Option<(NodeNo, (Self, u32))> {
        Some(match input {
            Input::Ended { node, attempt, .. } => (*node, (Self::Run, *attempt)),
            Input::Probed { node, attempt, .. } => (*node, (Self::Probe, *attempt)),
            Input::UndoEnded { node, attempt, .. } => (*node, (Self::Undo, *attempt)),
            _ => return None,
        })
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
    pub(super) what: (Work, u32),
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

/// Runs a future until it is ready, panics or is dropped.
pub(super) async fn contain<T>(
    future: impl Future<Output = T>,
    registration: AbortRegistration,
) -> Ended<T> {
    let panicked = |payload: Box<dyn Any + Send>| Panicked::from_payload(payload.as_ref()).message;
    match Abortable::new(AssertUnwindSafe(future).catch_unwind(), registration).await {
        Ok(Ok(value)) => Ended::Value(value),
        Ok(Err(payload)) => Ended::Panicked(panicked(payload)),
        Err(_) => Ended::Dropped,
    }
}

impl From<Ended<Result<RawDone, Failure>>> for Outcome {
    fn from(ended: Ended<Result<RawDone, Failure>>) -> Self {
        match ended {
            Ended::Value(Ok(done)) => Self::Ok(done),
            Ended::Value(Err(failure)) => Self::Failed(failure),
            Ended::Panicked(message) => Self::Panicked(message),
            Ended::Dropped => Self::Dropped,
        }
    }
}

/// Sends a message when its task is done, or when the runtime drops the task.
struct Report {
    mail: mpsc::UnboundedSender<Mail>,
    lost: Option<Input>,
}

impl Report {
    fn send(mut self, input: Input) {
        self.lost = None;
        let _ = self.mail.send(Mail::Input(input));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            let _ = self.mail.send(Mail::Input(lost));
        }
    }
}

impl RunTask {
    pub(super) fn action(&self, node: NodeNo) -> Option<Arc<dyn AnyAction>> {
        self.actions.get(node.index()).cloned().flatten()
    }

    /// What a call of this node is given.
    fn invocation(&self, node: NodeNo, attempt: u32, deadline: Deadline) -> (Invocation, Cancel) {
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
        (Invocation { cx, params, input: state.input(node) }, cancel)
    }

    fn deadline(&self, timeout: Option<std::time::Duration>) -> Deadline {
        let from_now = |timeout| Deadline::at(self.shared.seams.clock.mono() + timeout);
        timeout.map_or(Deadline::never(), from_now)
    }

    fn spawn(
        &mut self,
        cancel: Cancel,
        lost: Input,
        task: impl FnOnce(AbortRegistration) -> BoxFuture<'static, Input>,
    ) {
        let Some((node, what)) = Work::ended(&lost) else { return };
        let (abort, registration) = AbortHandle::new_pair();
        self.attempts.insert(node, Attempt { what, cancel, abort });
        let report = Report { mail: self.mail.clone(), lost: Some(lost) };
        let task = task(registration);
        self.shared.seams.spawner.spawn(
            what.0.name(),
            Box::pin(async move {
                let input = task.await;
                report.send(input);
            }),
        );
    }

    pub(super) fn launch(&mut self, node: NodeNo, attempt: u32) {
        let timeout = self.machine.state().plan().step(node).and_then(|step| step.timeout);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        let lost = Input::Ended { node, attempt, outcome: Outcome::Dropped };
        self.spawn(cancel, lost, |registration| {
            Box::pin(async move {
                let run = async move { action.run(call).await };
                let outcome = contain(run, registration).await.into();
                Input::Ended { node, attempt, outcome }
            })
        });
    }

    pub(super) fn probe(&mut self, node: NodeNo, attempt: u32) {
        let timeout = self.machine.state().plan().step(node).and_then(|step| step.timeout);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        let lost = Input::Probed { node, attempt, answer: Probe::Unknown };
        self.spawn(cancel, lost, |registration| {
            Box::pin(async move {
                let probe = async move { action.probe(call).await };
                let answer = match contain(probe, registration).await {
                    Ended::Value(Ok(answer)) => answer,
                    Ended::Value(Err(_)) | Ended::Panicked(_) | Ended::Dropped => Probe::Unknown,
                };
                Input::Probed { node, attempt, answer }
            })
        });
    }

    pub(super) fn undo(&mut self, node: NodeNo, attempt: u32) {
        let state = self.machine.state();
        let timeout = state.plan().step(node).and_then(|step| step.undo_timeout);
        let known: Known<Payload> =
            state.output(node).cloned().map_or(Known::Unknown, Known::Output);
        let (call, cancel) = self.invocation(node, attempt, self.deadline(timeout));
        let Some(action) = self.action(node) else { return };
        let failed = |code, message: String| {
            UndoOutcome::Failed(Failure::new(code, ErrorClass::Unavailable, message))
        };
        let outcome = failed("step.undo_lost", "the undo was dropped by its runtime".to_owned());
        let lost = Input::UndoEnded { node, attempt, outcome };
        self.spawn(cancel, lost, |registration| {
            Box::pin(async move {
                let undo = async move { action.undo(call, known).await };
                let outcome = match contain(undo, registration).await {
                    Ended::Value(Ok(undone)) => UndoOutcome::Ok(undone),
                    Ended::Value(Err(failure)) => UndoOutcome::Failed(failure),
                    Ended::Panicked(message) => failed("step.undo_panicked", message),
                    Ended::Dropped => {
                        failed("step.undo_timeout", "the undo was dropped".to_owned())
                    }
                };
                Input::UndoEnded { node, attempt, outcome }
            })
        });
    }
}
