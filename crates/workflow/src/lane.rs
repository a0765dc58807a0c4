//! Lanes: the threads of one open guard.
//!
//! ```text
//!   embedder's runtime        lane of one guard, all made before it is armed
//!   ┌──────────────┐  open    ┌ control ┐  one thread that runs the guard machine
//!   │ driver of    │ ───────▶ │         │─▶ enter, one thread for each member
//!   │ the run      │ ◀─────── │         │─▶ body, one thread for each step
//!   └──────────────┘  closed  └─────────┘─▶ exit, one thread for each member
//! ```
//!
//! Each thread has a runtime of its own, so that nothing which blocks an enter, a step of the body or the embedder's
//! runtime can delay an exit.

use std::fmt::{self, Debug};
use std::sync::mpsc;

use stillpoint_context::{BoxFuture, Effect, ErrorClass, Failure};

/// Where the threads of guards come from.
pub trait Lanes: Debug + Send + Sync + 'static {
    /// Makes one thread for each name, each ready to run one future. May block for as long as that takes.
    ///
    /// # Errors
    /// A failure with effect none when not all of them can be had.
    fn threads(&self, names: &[String]) -> Result<Vec<Box<dyn LaneThread>>, Failure>;
}

/// A thread that waits for its one future. Dropping it unused ends the thread.
pub trait LaneThread: Debug + Send {
    /// Runs the future to its end. Returns at once.
    fn run(self: Box<Self>, task: BoxFuture<'static, ()>);
}

/// Threads of the operating system, each with a current-thread tokio runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadLanes;

impl Lanes for ThreadLanes {
    fn threads(&self, names: &[String]) -> Result<Vec<Box<dyn LaneThread>>, Failure> {
        names.iter().map(|name| OsThread::make(name).map(|t| Box::new(t) as _)).collect()
    }
}

struct OsThread(mpsc::Sender<BoxFuture<'static, ()>>);

impl Debug for OsThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OsThread")
    }
}

fn no_thread(error: impl fmt::Display) -> Failure {
    Failure::new("guard.no_thread", ErrorClass::Unavailable, "a thread of the guard cannot be made")
        .with_effect(Effect::None)
        .with_cause(error)
        .with_remedy("Raise the limit of threads, or run fewer guards at once.")
}

impl OsThread {
    #[allow(clippy::disallowed_methods, reason = "this is the lane seam")]
    fn make(name: &str) -> Result<Self, Failure> {
        let (tasks, task) = mpsc::channel::<BoxFuture<'static, ()>>();
        let (tell, ready) = mpsc::sync_channel(1);
        // Linux shows 15 bytes of a thread's name.
        let name: String = name.chars().filter(|c| *c != '\0').take(15).collect();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(tell.send(Err(no_thread(error)))),
                };
                drop(tell.send(Ok(())));
                if let Ok(task) = task.recv() {
                    runtime.block_on(task);
                }
                // Blocking work that was left behind must not hold the thread.
                runtime.shutdown_background();
            })
            .map_err(no_thread)?;
        ready.recv().map_err(no_thread)??;
        Ok(Self(tasks))
    }
}

impl LaneThread for OsThread {
    fn run(self: Box<Self>, task: BoxFuture<'static, ()>) {
        // The thread waits for it: sending can only fail if the thread has died, and then nothing can run it.
        drop(self.0.send(task));
    }
}
