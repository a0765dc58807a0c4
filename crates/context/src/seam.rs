//! The seams through which everything reaches time, threads and randomness.
//!
//! Nothing else in the workspace may reach for them (clippy's disallowed methods), so that a test can put a virtual
//! clock, a seeded scheduler and counted ids in their place. The implementations over tokio live in
//! `stillpoint-workflow`; the deterministic ones in its feature `testing`.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::time::Mono;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where time comes from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The civil time. May jump.
    fn now(&self) -> DateTime<Utc>;

    /// The monotonic time, for deadlines. May stand still while the machine is suspended.
    fn mono(&self) -> Mono;

    /// A monotonic time that counts suspend, for leases: what another machine may have waited for meanwhile.
    fn boot(&self) -> Mono;

    /// Completes when [`mono`](Self::mono) has reached `at`. Dropping it forgets the timer.
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()>;
}

/// Where concurrent work runs.
///
/// Work is detached: its result travels by a channel of the caller's. A panic ends only the work itself.
pub trait Spawner: Debug + Send + Sync + 'static {
    /// Starts a task that must not block its thread.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// Starts work that may block its thread.
    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>);
}

/// Where ids and random numbers come from.
pub trait Ids: Debug + Send + Sync + 'static {
    /// A new unique id.
    fn uuid(&self) -> Uuid;

    /// A uniformly distributed number, for jitter and the like. Not for secrets.
    fn random(&self) -> u64;
}

/// The three seams together; cheap to clone.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Concurrent work.
    pub spawner: Arc<dyn Spawner>,
    /// Ids and random numbers.
    pub ids: Arc<dyn Ids>,
}

impl Seams {
    /// These three.
    pub fn new(clock: Arc<dyn Clock>, spawner: Arc<dyn Spawner>, ids: Arc<dyn Ids>) -> Self {
        Self { clock, spawner, ids }
    }
}

/// The operating system's clocks: what a [`Clock`] over a real runtime reads.
///
/// It has no timers, as those belong to a runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsClock;

impl OsClock {
    /// The civil time.
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn now(self) -> DateTime<Utc> {
        DateTime::<Utc>::from(SystemTime::now())
    }

    /// The monotonic time since the first call in this process.
    pub fn mono(self) -> Mono {
        Mono(Self::origin().elapsed())
    }

    /// The instant of [`Mono::ZERO`] in this process.
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn origin() -> Instant {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        *ORIGIN.get_or_init(Instant::now)
    }

    /// The time since boot, suspend counted (`CLOCK_BOOTTIME`).
    #[cfg(target_os = "linux")]
    pub fn boot(self) -> Mono {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Mono(Duration::new(seconds, nanos))
    }

    /// The monotonic time; on this platform the standard library's clock is the best that is portable.
    #[cfg(not(target_os = "linux"))]
    pub fn boot(self) -> Mono {
        let _: Duration = Duration::ZERO;
        self.mono()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_go_forward() {
        let (mono, boot) = (OsClock.mono(), OsClock.boot());
        assert!(OsClock.mono() >= mono);
        assert!(OsClock.boot() >= boot);
        assert!(OsClock.now().timestamp() > 1_700_000_000);
    }
}
