//! Scans that an asynchronous caller awaits, on threads of the caller's choice.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{EseError, Observer, Progress};

/// Blocking work to be run once, on a thread that may block.
pub type Task = Box<dyn FnOnce() + Send>;

/// A scan that runs elsewhere. Awaiting it gives its result.
///
/// Knows no runtime: `spawn` puts the work where blocking is allowed.
///
/// ```
/// use stillpoint_ese::{Background, EseError, ScanOptions, scan_checkpoint};
/// # fn spawn_blocking(task: impl FnOnce() + Send + 'static) { task() }
/// # async fn check(file: std::fs::File) -> Result<(), EseError> {
/// let scan = Background::run(
///     |task| spawn_blocking(task),
///     move |stop| scan_checkpoint(&file, &ScanOptions::default(), stop),
/// );
/// let report = scan.await?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping it stops the scan at the end of the part that is being read, with
/// [`EseError::Stopped`], which nobody hears of any more. Nothing waits for that: the thread and
/// the reader are in use a moment longer.
#[derive(Debug)]
#[must_use = "dropping it stops the scan"]
pub struct Background<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    stopped: Arc<AtomicBool>,
    slot: Mutex<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    result: Option<Result<T, EseError>>,
    waker: Option<Waker>,
}

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Background<T> {
    /// Hands `work` to `spawn`, and gives what to await. `work` passes what it is given to its scan
    /// as the observer, or asks it now and then.
    ///
    /// Work that is never run, or panics, ends as [`EseError::Stopped`].
    pub fn run(
        spawn: impl FnOnce(Task),
        work: impl FnOnce(&mut Stop) -> Result<T, EseError> + Send + 'static,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let slot = Mutex::new(Slot { result: None, waker: None });
        let shared = Arc::new(Shared { stopped: Arc::clone(&stopped), slot });
        let mut handing_in = HandIn { shared: Arc::clone(&shared), result: None };
        spawn(Box::new(move || {
            handing_in.take(work(&mut Stop { stopped }));
        }));
        Self { shared }
    }
}

impl<T> Future for Background<T> {
    type Output = Result<T, EseError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.shared.slot();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

/// Hands the result in when the work is over, however it ends.
struct HandIn<T> {
    shared: Arc<Shared<T>>,
    result: Option<Result<T, EseError>>,
}

impl<T> HandIn<T> {
    fn take(&mut self, result: Result<T, EseError>) {
        self.result = Some(result);
    }
}

impl<T> Drop for HandIn<T> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or(Err(EseError::Stopped));
        let waker = {
            let mut slot = self.shared.slot();
            slot.result = Some(result);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Stops a scan once nobody waits for it. It is an observer that wants no bytes.
#[derive(Debug, Clone)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
}

impl Stop {
    /// Whether nobody waits any more: for an observer of one's own.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

impl Observer for Stop {
    fn wants_bytes(&self) -> bool {
        false
    }

    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        if self.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, task::Wake, thread};

    use super::*;

    struct Bell(Mutex<std::sync::mpsc::Sender<()>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.lock().unwrap().send(());
        }
    }

    fn block_on<T>(mut background: Background<T>) -> Result<T, EseError> {
        let (sender, bell) = channel();
        let waker = Waker::from(Arc::new(Bell(Mutex::new(sender))));
        let mut cx = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut background).poll(&mut cx) {
                Poll::Ready(result) => return result,
                Poll::Pending => bell.recv().unwrap(),
            }
        }
    }

    #[test]
    fn the_result_comes_from_another_thread() {
        thread::scope(|scope| {
            let background = Background::run(|task| drop(scope.spawn(task)), |_| Ok(7));
            assert_eq!(block_on(background).unwrap(), 7);
        });
        assert_eq!(block_on(Background::run(|task| task(), |_| Ok(8))).unwrap(), 8);
    }

    #[test]
    fn dropping_it_stops_the_scan() {
        let (tell, told) = channel();
        let (go_on, wait) = channel::<()>();
        thread::scope(|scope| {
            let background = Background::run(
                |task| drop(scope.spawn(task)),
                move |stop| {
                    wait.recv().unwrap();
                    let ended = stop.progress(Progress { done: 1, total: 2 });
                    tell.send(ended).unwrap();
                    Ok(())
                },
            );
            drop(background);
            go_on.send(()).unwrap();
        });
        assert_eq!(told.recv().unwrap(), ControlFlow::Break(()));
    }

    #[test]
    fn work_that_is_never_run_is_not_waited_for() {
        let background = Background::<()>::run(drop, |_| Ok(()));
        assert!(matches!(block_on(background), Err(EseError::Stopped)));
    }
}
