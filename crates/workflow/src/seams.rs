//! The seams over tokio and the operating system.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use stillpoint_context::{BoxFuture, Clock, Ids, Mono, OsClock, Seams, Spawner};
use tokio::runtime::Handle;
use uuid::Uuid;

/// The seams over tokio: its timers and tasks, the system's clocks, random ids.
///
/// ```
/// use stillpoint_workflow::TokioSeams;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// let seams = TokioSeams::on(runtime.handle().clone());
/// # let _ = seams;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TokioSeams;

impl TokioSeams {
    /// Seams whose tasks run on the runtime of the caller or, called from elsewhere, on this one.
    ///
    /// The runtime must have time enabled.
    pub fn on(handle: Handle) -> Seams {
        Seams::new(Arc::new(TokioClock), Arc::new(TokioSpawner(handle)), Arc::new(SystemIds))
    }

    /// The seams of the runtime that this is called in; `None` outside of one.
    pub fn current() -> Option<Seams> {
        Handle::try_current().ok().map(Self::on)
    }
}

/// The system's clocks with tokio's timers. A timer belongs to the runtime on which it is first polled.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        OsClock.now()
    }

    fn mono(&self) -> Mono {
        OsClock.mono()
    }

    fn boot(&self) -> Mono {
        OsClock.boot()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        // Made when polled, so that it is a timer of the runtime that polls it: a guard's thread has its own.
        Box::pin(async move {
            match OsClock::origin().checked_add(at.0) {
                Some(at) => {
                    tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
                }
                // Further away than instants reach: never.
                None => std::future::pending().await,
            }
        })
    }
}

/// Tasks of the caller's runtime: on a guard's thread that is the thread's own.
#[derive(Debug, Clone)]
struct TokioSpawner(Handle);

impl TokioSpawner {
    fn handle(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.0.clone())
    }
}

impl Spawner for TokioSpawner {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) {
        drop(self.handle().spawn(task));
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn blocking(&self, _: &'static str, work: Box<dyn FnOnce() + Send>) {
        drop(self.handle().spawn_blocking(work));
    }
}

/// Random ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn random(&self) -> u64 {
        // The bits that every such id has in common do not fall on each other.
        let (high, low) = self.uuid().as_u64_pair();
        high ^ low.rotate_left(32)
    }
}
