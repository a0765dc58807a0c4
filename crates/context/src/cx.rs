//! The context of a call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use event_listener::Event;
use futures_util::future::{Either, select};
use uuid::Uuid;

use crate::cancel::Cancel;
use crate::failure::{Effect, ErrorClass, ErrorCode, ErrorFacts};
use crate::id::{Attempt, FencingToken, IdempotencyKey, RunId, StepName};
use crate::progress::{Progress, ProgressSink};
use crate::seam::Seams;
use crate::time::{Deadline, Mono};

/// Why a wait ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupted {
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The call's deadline has passed.
    #[error("the call's deadline has passed")]
    DeadlinePassed,
}

impl ErrorFacts for Interrupted {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled => "call.cancelled".into(),
            Self::DeadlinePassed => "call.deadline_passed".into(),
        }
    }
    fn class(&self) -> ErrorClass {
        ErrorClass::Unavailable
    }
    fn is_retryable(&self) -> bool {
        matches!(self, Self::DeadlinePassed)
    }
    fn effect(&self) -> Effect {
        Effect::Unknown
    }
    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Cancelled => "Run it again if it is still wanted.".into(),
            Self::DeadlinePassed => "Give the call more time, or find out what is slow.".into(),
        }
    }
}

/// Blocking work that ended in a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked: {message}")]
pub struct Panicked {
    /// What the panic said.
    pub message: String,
}

impl Panicked {
    /// The message of a caught panic.
    pub fn from_payload(payload: &(dyn std::any::Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "(a panic without a message)".to_owned());
        Self { message }
    }
}

/// What every call into a plug-in or a provider carries: who calls, until when, under which token, and the seams.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cx {
    call: Arc<Call>,
    deadline: Deadline,
    cancel: Cancel,
}

/// What all contexts of one call have in common.
#[derive(Debug)]
struct Call {
    run: RunId,
    step: StepName,
    attempt: Attempt,
    /// Made when somebody asks, unless it was given.
    key: OnceLock<IdempotencyKey>,
    fence: FencingToken,
    progress: Option<Arc<dyn ProgressSink>>,
    seams: Arc<Seams>,
    /// Pieces of blocking work that are on a thread, and who waits for the last one.
    blocking: AtomicUsize,
    over: Event,
}

/// The blocking work of a call that is still on a thread, also when the call itself has been dropped.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<Call>);

impl InFlight {
    /// Whether there is none.
    pub fn is_over(&self) -> bool {
        self.0.blocking.load(Ordering::Acquire) == 0
    }

    /// Waits until there is none.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn over(&self) {
        loop {
            let listener = self.0.over.listen();
            if self.is_over() {
                return;
            }
            listener.await;
        }
    }

    fn begin(&self) -> OneInFlight {
        let _: usize = self.0.blocking.fetch_add(1, Ordering::AcqRel);
        OneInFlight(self.clone())
    }
}

/// One piece of blocking work.
struct OneInFlight(InFlight);

impl Drop for OneInFlight {
    fn drop(&mut self) {
        let call = &self.0.0;
        if call.blocking.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _woken: usize = call.over.notify(usize::MAX);
        }
    }
}

/// Makes a [`Cx`]; what is not said is a detached call without deadline.
#[derive(Debug, Clone)]
pub struct CxBuilder {
    run: RunId,
    step: Option<StepName>,
    attempt: Attempt,
    key: Option<IdempotencyKey>,
    fence: FencingToken,
    deadline: Deadline,
    cancel: Option<Cancel>,
    progress: Option<Arc<dyn ProgressSink>>,
    seams: Arc<Seams>,
}

impl CxBuilder {
    /// The run that calls.
    pub fn run(mut self, run: RunId) -> Self {
        self.run = run;
        self
    }

    /// The step that calls.
    pub fn step(mut self, step: StepName) -> Self {
        self.step = Some(step);
        self
    }

    /// Which try this is.
    pub fn attempt(mut self, attempt: Attempt) -> Self {
        self.attempt = attempt;
        self
    }

    /// The key that stays the same over attempts and restarts; unless said, the run and the step: `RUN/STEP`.
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The fencing token of the grant under which the run acts.
    pub fn fence(mut self, fence: FencingToken) -> Self {
        self.fence = fence;
        self
    }

    /// Until when.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// The token that asks the call to stop; one of its own unless said.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Where progress goes; nowhere unless said.
    pub fn progress(mut self, sink: Arc<dyn ProgressSink>) -> Self {
        self.progress = Some(sink);
        self
    }

    /// The context, with blocking work of its own.
    pub fn build(self) -> Cx {
        let call = Call {
            run: self.run,
            step: self.step.unwrap_or_else(detached),
            attempt: self.attempt,
            key: self.key.map(OnceLock::from).unwrap_or_default(),
            fence: self.fence,
            progress: self.progress,
            seams: self.seams,
            blocking: AtomicUsize::new(0),
            over: Event::new(),
        };
        let cancel = self.cancel.unwrap_or_default();
        Cx { call: Arc::new(call), deadline: self.deadline, cancel }
    }
}

/// The name of the step that a call outside of any run has.
fn detached() -> StepName {
    let Ok(step) = StepName::new("detached") else { unreachable!("a constant name is legal") };
    step
}

impl Cx {
    /// A builder over these seams.
    pub fn builder(seams: &Seams) -> CxBuilder {
        CxBuilder {
            run: RunId(Uuid::nil()),
            step: None,
            attempt: Attempt::FIRST,
            key: None,
            fence: FencingToken::default(),
            deadline: Deadline::never(),
            cancel: None,
            progress: None,
            seams: Arc::new(seams.clone()),
        }
    }

    /// A context for a call outside any run, such as listing what there is: a nil run id, no deadline.
    pub fn detached(seams: &Seams) -> Self {
        Self::builder(seams).build()
    }

    /// The run that calls; nil outside a run.
    pub fn run(&self) -> RunId {
        self.call.run
    }

    /// The step that calls.
    pub fn step(&self) -> &StepName {
        &self.call.step
    }

    /// Which try of the step this is.
    pub fn attempt(&self) -> Attempt {
        self.call.attempt
    }

    /// A key that is the same in every attempt of this step, also after a restart: a side that remembers it can answer
    /// a repeated call without repeating the effect.
    pub fn key(&self) -> &IdempotencyKey {
        self.call.key.get_or_init(|| {
            let key = format!("{}/{}", self.call.run, self.call.step);
            let Ok(key) = IdempotencyKey::new(key) else {
                unreachable!("a run id and a step name together are a legal key")
            };
            key
        })
    }

    /// The token under which the run acts; a side that can compare refuses one lower than the highest it has seen.
    pub fn fence(&self) -> FencingToken {
        self.call.fence
    }

    /// Until when the call may take.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The token that asks the call to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The blocking work of this call.
    pub fn in_flight(&self) -> InFlight {
        InFlight(Arc::clone(&self.call))
    }

    /// The seams.
    pub fn seams(&self) -> &Seams {
        &self.call.seams
    }

    /// The same context with a deadline no later than this.
    pub fn with_deadline(&self, deadline: Deadline) -> Self {
        Self { deadline: self.deadline.min(deadline), ..self.clone() }
    }

    /// The same context with a deadline no later than `from_now` from now.
    pub fn with_timeout(&self, from_now: Duration) -> Self {
        self.with_deadline(Deadline::at(self.mono() + from_now))
    }

    /// The same context with a cancel token below this one's.
    pub fn child(&self) -> Self {
        Self { cancel: self.cancel.child(), ..self.clone() }
    }

    /// The civil time.
    pub fn now(&self) -> DateTime<Utc> {
        self.call.seams.clock.now()
    }

    /// The monotonic time.
    pub fn mono(&self) -> Mono {
        self.call.seams.clock.mono()
    }

    /// The time left until the deadline, if there is one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.remaining(self.mono())
    }

    /// Whether the call should stop. Long work asks now and then.
    ///
    /// # Errors
    /// [`Interrupted`] once the call is cancelled or its deadline has passed.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.cancel.is_cancelled() {
            Err(Interrupted::Cancelled)
        } else if self.deadline.is_past(self.mono()) {
            Err(Interrupted::DeadlinePassed)
        } else {
            Ok(())
        }
    }

    /// Tells how far the call has come; free when nobody listens. Not for use inside a freeze.
    pub fn report(&self, progress: impl FnOnce() -> Progress) {
        if let Some(sink) = &self.call.progress {
            sink.report(progress());
        }
    }

    /// Sleeps.
    ///
    /// # Errors
    /// [`Interrupted`] as soon as the call is cancelled, or when its deadline comes first.
    ///
    /// # Cancel safety
    /// Dropping it forgets the timer.
    pub async fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        self.check()?;
        let wanted = self.mono() + time;
        let until = Deadline::at(wanted).min(self.deadline).instant().unwrap_or(wanted);
        let cancelled = std::pin::pin!(self.cancel.cancelled());
        match select(self.call.seams.clock.sleep_until(until), cancelled).await {
            Either::Left(_) if until < wanted => Err(Interrupted::DeadlinePassed),
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Interrupted::Cancelled),
        }
    }

    /// Runs work that may block its thread away from the runtime's workers, and waits for it.
    ///
    /// It is not interrupted by cancel or deadline: work that takes long asks [`check`](Self::check) of a clone.
    ///
    /// # Errors
    /// [`Panicked`] when the work panicked.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the work running to its end: its effect is then unknown. [`in_flight`](Self::in_flight)
    /// tells when it is over.
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> Result<T, Panicked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let slot = Arc::new(Slot { result: Mutex::new(None), event: Event::new() });
        let theirs = Arc::clone(&slot);
        let one = self.in_flight().begin();
        self.call.seams.spawner.blocking(
            name,
            Box::new(move || {
                let one = one;
                let result = catch_unwind(AssertUnwindSafe(work))
                    .map_err(|payload| Panicked::from_payload(payload.as_ref()));
                *theirs.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                drop(one);
                let _woken: usize = theirs.event.notify(usize::MAX);
            }),
        );
        loop {
            let listener = slot.event.listen();
            if let Some(result) = slot.take() {
                return result;
            }
            listener.await;
        }
    }
}

struct Slot<T> {
    result: Mutex<Option<Result<T, Panicked>>>,
    event: Event,
}

impl<T> Slot<T> {
    fn take(&self) -> Option<Result<T, Panicked>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;
    use crate::seam::{BoxFuture, Clock, Ids, OsClock, Spawner};

    /// A clock that stands still and whose timers are due only in the past.
    #[derive(Debug)]
    struct StillClock;
    impl Clock for StillClock {
        fn now(&self) -> DateTime<Utc> {
            OsClock.now()
        }
        fn mono(&self) -> Mono {
            Mono(Duration::from_secs(10))
        }
        fn boot(&self) -> Mono {
            self.mono()
        }
        fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
            if at <= self.mono() {
                Box::pin(std::future::ready(()))
            } else {
                Box::pin(std::future::pending())
            }
        }
    }

    #[derive(Debug)]
    struct Threads;
    impl Spawner for Threads {
        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {
            unreachable!("these tests spawn no task")
        }
        #[allow(clippy::disallowed_methods, reason = "a test's own seam")]
        fn blocking(&self, _: &'static str, work: Box<dyn FnOnce() + Send>) {
            drop(std::thread::spawn(work));
        }
    }

    #[derive(Debug)]
    struct Zeros;
    impl Ids for Zeros {
        fn uuid(&self) -> Uuid {
            Uuid::nil()
        }
        fn random(&self) -> u64 {
            0
        }
    }

    fn cx() -> Cx {
        let seams = Seams::new(Arc::new(StillClock), Arc::new(Threads), Arc::new(Zeros));
        Cx::detached(&seams)
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Blocks this thread until the future is ready.
    fn wait<F: Future>(future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return out;
            }
            std::thread::park();
        }
    }

    #[test]
    fn sleep_ends_at_cancel_and_deadline() {
        let cx = cx();
        let second = Duration::from_secs(1);
        assert_eq!(poll_once(cx.sleep(Duration::ZERO)), Poll::Ready(Ok(())));
        assert_eq!(poll_once(cx.sleep(second)), Poll::Pending);
        let past = cx.with_deadline(Deadline::at(cx.mono()));
        assert_eq!(poll_once(past.sleep(second)), Poll::Ready(Err(Interrupted::DeadlinePassed)));
        cx.cancel().cancel();
        assert_eq!(poll_once(cx.sleep(second)), Poll::Ready(Err(Interrupted::Cancelled)));
        assert_eq!(cx.child().check(), Err(Interrupted::Cancelled));
    }

    #[test]
    fn blocking_work_gives_its_value_or_its_panic() {
        let cx = cx();
        assert_eq!(wait(cx.blocking("add", || 1 + 1)), Ok(2));
        let panicked = wait(cx.blocking("panic", || -> u8 { panic!("no disk") }));
        assert_eq!(panicked, Err(Panicked { message: "no disk".to_owned() }));
    }

    #[test]
    fn blocking_work_outlives_its_dropped_call_and_is_seen() {
        let cx = Cx::builder(cx().seams()).build();
        let (go, wait_for_it) = std::sync::mpsc::channel::<()>();
        assert!(cx.in_flight().is_over());
        assert!(poll_once(cx.blocking("work", move || wait_for_it.recv())).is_pending());
        assert!(!cx.in_flight().is_over(), "the call is dropped, its work goes on");
        let deeper = cx.child();
        assert!(!deeper.in_flight().is_over(), "whoever holds the call's context sees it");
        go.send(()).unwrap();
        wait(cx.in_flight().over());
        assert!(cx.in_flight().is_over());
    }

    #[test]
    fn a_deadline_only_ever_comes_nearer() {
        let near = cx().with_timeout(Duration::from_secs(1));
        assert_eq!(near.with_timeout(Duration::from_secs(9)).remaining(), near.remaining());
    }
}
