// Seams for tests: threads for blocking work, a clock that is set by hand. Also included by the crate's example, and so
// without inner attributes.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_context::{BoxFuture, Clock, Cx, Ids, Mono, Seams, Spawner};

/// Blocks this thread until the future is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
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

/// A clock that goes forward only when told to.
#[derive(Debug, Default)]
pub(crate) struct HandClock(Mutex<(Duration, Vec<Waker>)>);

impl HandClock {
    pub(crate) fn advance(&self, by: Duration) {
        let mut state = self.0.lock().unwrap();
        state.0 += by;
        state.1.drain(..).for_each(Waker::wake);
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().0
    }
}

#[derive(Debug, Clone)]
struct Handle(Arc<HandClock>);

impl Clock for Handle {
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH
            + TimeDelta::days(20_000)
            + TimeDelta::from_std(self.0.elapsed()).unwrap()
    }

    fn mono(&self) -> Mono {
        Mono(self.0.elapsed())
    }

    fn boot(&self) -> Mono {
        self.mono()
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.0);
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = clock.0.lock().unwrap();
            if state.0 >= at.0 {
                return Poll::Ready(());
            }
            state.1.push(cx.waker().clone());
            Poll::Pending
        }))
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Runs blocking work on threads, or keeps it until it is let go.
#[derive(Default)]
pub(crate) struct Workshop {
    held: Mutex<Option<Vec<Work>>>,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workshop")
    }
}

impl Workshop {
    /// Keeps blocking work from now on.
    pub(crate) fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    /// Runs what was kept, here and now, and keeps no more.
    pub(crate) fn release(&self) {
        let work = self.held.lock().unwrap().take();
        work.into_iter().flatten().for_each(|work| work());
    }
}

#[derive(Debug)]
struct Threads(Arc<Workshop>);

impl Spawner for Threads {
    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {
        unreachable!("a task would end with the runtime of its caller; the plug-in spawns none")
    }

    #[allow(clippy::disallowed_methods, reason = "a test's own seam")]
    fn blocking(&self, _: &'static str, work: Work) {
        match &mut *self.0.held.lock().unwrap() {
            Some(held) => held.push(work),
            None => drop(std::thread::spawn(work)),
        }
    }
}

#[derive(Debug)]
struct NoIds;

impl Ids for NoIds {
    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn random(&self) -> u64 {
        0
    }
}

/// A test's own machine.
pub(crate) struct Bench {
    pub(crate) clock: Arc<HandClock>,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) seams: Seams,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(HandClock::default());
        let workshop = Arc::new(Workshop::default());
        let seams = Seams::new(
            Arc::new(Handle(Arc::clone(&clock))),
            Arc::new(Threads(Arc::clone(&workshop))),
            Arc::new(NoIds),
        );
        Self { clock, workshop, seams }
    }

    pub(crate) fn cx(&self) -> Cx {
        Cx::detached(&self.seams)
    }
}
