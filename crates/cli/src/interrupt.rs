//! Interrupts from the keyboard, and polite requests to end: heard in one place for as long as the process lives.
//!
//! ```text
//!   signal ─▶ heard ─┬─ a job is followed ─▶ its follower takes it (cancels, then gives up)
//!                    └─ none is            ─▶ the command ends; at once if it is about to write its result, or stuck in it
//! ```

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::context::{Effect, ErrorClass};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out;

/// How many interrupts this process has had, and how many of them were answered.
static CAME: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Whether an interrupt came that nobody has answered yet. Who is about to write a result, and may be stuck in that, asks: one
/// that comes later sees that it is being written.
pub(crate) fn is_owed() -> bool {
    TAKEN.load(Ordering::SeqCst) < CAME.load(Ordering::SeqCst)
}

/// Hears interrupts. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    is_followed: AtomicBool,
    news: Notify,
}

impl Interrupts {
    /// Begins to listen, for good. Called inside the runtime.
    pub(crate) fn listen() -> Outcome<Self> {
        let this = Self::default();
        let mut signals = Signals::listen()?;
        let heard = this.clone();
        // On a thread of the runtime's, so that a command that blocks its own is interrupted as well.
        #[allow(
            clippy::disallowed_methods,
            reason = "signals of the process are heard outside any seam"
        )]
        drop(tokio::spawn(async move {
            loop {
                signals.next().await;
                heard.hear();
            }
        }));
        Ok(this)
    }

    fn hear(&self) {
        let came = CAME.fetch_add(1, Ordering::SeqCst) + 1;
        let is_patient =
            self.0.is_followed.load(Ordering::SeqCst) || came - TAKEN.load(Ordering::SeqCst) < 2;
        match out::stage() {
            out::Stage::Working if is_patient => self.0.news.notify_waiters(),
            // The result is out, and the process ends by itself.
            out::Stage::Told => {}
            _ => std::process::exit(i32::from(Exit::Failed.code())),
        }
    }

    fn take() -> bool {
        let owed = is_owed();
        if owed {
            TAKEN.fetch_add(1, Ordering::SeqCst);
        }
        owed
    }

    /// From now on interrupts are for the job that is followed.
    pub(crate) fn follow(&self) -> Following {
        self.0.is_followed.store(true, Ordering::SeqCst);
        Following(self.clone())
    }

    /// Waits for an interrupt that no followed job takes.
    pub(crate) async fn outside(&self) -> CliError {
        loop {
            let mut news = pin!(self.0.news.notified());
            news.as_mut().enable();
            if !self.0.is_followed.load(Ordering::SeqCst) && Self::take() {
                let message = "the command was interrupted while no job was under way";
                let remedy = "Ask again; `stillpoint jobs` lists what was done.";
                let error =
                    CliError::of_class("cli.interrupted", ErrorClass::Unavailable, message, remedy);
                let failure = Box::new((*error.failure).with_effect(Effect::Unknown));
                return CliError { failure, exit: Exit::Failed };
            }
            news.await;
        }
    }
}

/// Takes the interrupts for a job. An interrupt that it has not taken when it is dropped ends the command.
#[derive(Debug)]
pub(crate) struct Following(Interrupts);

impl Following {
    /// The next interrupt.
    pub(crate) async fn next(&self) {
        loop {
            let mut news = pin!(self.0.0.news.notified());
            news.as_mut().enable();
            if Interrupts::take() {
                return;
            }
            news.await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let heard = &self.0.0;
        heard.is_followed.store(false, Ordering::SeqCst);
        heard.news.notify_waiters();
    }
}

#[derive(Debug)]
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> Outcome<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let message = format!("cannot listen for interrupts: {error}");
                CliError::of_class("cli.internal", ErrorClass::Internal, message, "")
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let heard = tokio::select! {
            heard = self.interrupt.recv() => heard,
            heard = self.terminate.recv() => heard,
        };
        if heard.is_none() {
            pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn listen() -> Outcome<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    }
}
