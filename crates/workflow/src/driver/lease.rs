//! The lease of this process: acquired before it writes, renewed while it lives, looked at before each effect.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use stillpoint_context::{Clock, Mono, ProcessId, Seams};
use tokio::sync::Mutex;

use crate::journal::JournalError;
use crate::lease::{Lease, Leases};

/// How long leases last, and how long after that another process may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) term: Duration,
    pub(crate) margin: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { term: Duration::from_mins(2), margin: Duration::from_secs(10) }
    }
}

/// The lease of an engine's process; none where the journal keeps none.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    leases: Option<Arc<dyn Leases>>,
    clock: Arc<dyn Clock>,
    process: ProcessId,
    terms: Terms,
    epoch: AtomicU64,
    /// Nanoseconds of the clock that counts suspend.
    until: AtomicU64,
    fenced: AtomicBool,
    /// Given back by this process itself.
    released: AtomicBool,
    /// Guards that are open: nothing is written for their sake, so renewals wait while they can.
    open_guards: AtomicUsize,
    acquiring: Mutex<()>,
}

fn nanos(at: Mono) -> u64 {
    u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX)
}

impl LeaseKeeper {
    pub(crate) fn new(
        leases: Option<Arc<dyn Leases>>,
        clock: Arc<dyn Clock>,
        process: ProcessId,
        terms: Terms,
    ) -> Self {
        Self {
            leases,
            clock,
            process,
            terms,
            epoch: AtomicU64::new(0),
            until: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            released: AtomicBool::new(false),
            open_guards: AtomicUsize::new(0),
            acquiring: Mutex::new(()),
        }
    }

    pub(crate) fn leases(&self) -> Option<&Arc<dyn Leases>> {
        self.leases.as_ref()
    }

    pub(crate) fn margin(&self) -> Duration {
        self.terms.margin
    }

    /// The epoch to write with: 0 without leases.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn fenced(&self) -> JournalError {
        JournalError::Fenced { owner: self.process, epoch: self.epoch() }
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Makes sure that there is a lease, and somebody who renews it.
    pub(crate) async fn ensure(self: &Arc<Self>, seams: &Seams) -> Result<(), JournalError> {
        let Some(leases) = &self.leases else { return Ok(()) };
        if self.epoch() != 0 {
            return if self.is_fenced() { Err(self.fenced()) } else { Ok(()) };
        }
        let _one = self.acquiring.lock().await;
        if self.epoch() != 0 {
            return Ok(());
        }
        let lease = leases.acquire(self.process, self.clock.boot(), self.terms.term).await?;
        self.note(&lease);
        self.epoch.store(lease.epoch, Ordering::Release);
        let keeper = Arc::downgrade(self);
        let (clock, pause) = (Arc::clone(&self.clock), self.terms.term / 3);
        seams.spawner.spawn("lease", Box::pin(keep(keeper, clock, pause)));
        Ok(())
    }

    fn note(&self, lease: &Lease) {
        self.until.store(nanos(lease.until), Ordering::Release);
    }

    /// How long it still lasts; `None` without leases.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.leases.as_ref()?;
        if self.is_fenced() {
            return Some(Duration::ZERO);
        }
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        Some(until.saturating_sub(self.clock.boot().0))
    }

    /// Whether this process may begin an effect now.
    pub(crate) fn may_act(&self) -> bool {
        self.left().is_none_or(|left| !left.is_zero())
    }

    /// Prolongs it; once fenced, for ever so.
    pub(crate) async fn renew(&self) -> Result<(), JournalError> {
        let Some(leases) = &self.leases else { return Ok(()) };
        if self.is_fenced() {
            return Err(self.fenced());
        }
        let now = self.clock.boot();
        match leases.renew(self.process, self.epoch(), now, self.terms.term).await {
            Ok(lease) => {
                self.note(&lease);
                Ok(())
            }
            Err(error) => {
                if matches!(error, JournalError::Fenced { .. }) {
                    self.fenced.store(true, Ordering::Release);
                }
                Err(error)
            }
        }
    }

    /// The epoch of a lease that was taken and not given back.
    pub(crate) fn held_epoch(&self) -> Option<u64> {
        let held = self.leases.is_some() && !self.released.load(Ordering::Acquire);
        Some(self.epoch()).filter(|epoch| held && *epoch != 0)
    }

    /// Asks the store whether it is held still, and not what this process believes.
    pub(crate) async fn check(&self) -> Result<(), JournalError> {
        let (Some(leases), Some(epoch)) = (&self.leases, self.held_epoch()) else { return Ok(()) };
        let held = leases.leases().await?;
        if held.iter().any(|lease| lease.process == self.process && lease.epoch == epoch) {
            return Ok(());
        }
        self.fenced.store(true, Ordering::Release);
        Err(self.fenced())
    }

    /// Prolongs it if less than this is left of it.
    ///
    /// Gives what is left then.
    pub(crate) async fn ensure_left(&self, wanted: Duration) -> Option<Duration> {
        let left = self.left()?;
        if left < wanted
            && let Err(error) = self.renew().await
        {
            tracing::warn!(%error, "the lease could not be renewed");
        }
        self.left()
    }

    /// Gives it back: nothing is written in its name any more.
    pub(crate) async fn release(&self) -> Result<(), JournalError> {
        let Some(leases) = &self.leases else { return Ok(()) };
        let epoch = self.epoch();
        self.released.store(true, Ordering::Release);
        if epoch == 0 || self.fenced.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        leases.release(self.process, epoch).await
    }

    pub(crate) fn guard_opens(&self) {
        self.open_guards.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn guard_closes(&self) {
        self.open_guards.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a renewal can wait: a guard is open, and the lease lasts a good while yet.
    fn can_wait(&self) -> bool {
        self.open_guards.load(Ordering::Acquire) > 0
            && self.left().is_some_and(|left| left > self.terms.term / 4)
    }
}

/// Renews the lease until its engine is gone or has been fenced off.
async fn keep(keeper: Weak<LeaseKeeper>, clock: Arc<dyn Clock>, pause: Duration) {
    // After a renewal that failed, or while a guard is open, it is looked at more often.
    let soon = pause / 16;
    let mut next = pause;
    loop {
        clock.sleep_until(clock.mono() + next).await;
        let Some(keeper) = keeper.upgrade() else { return };
        if keeper.is_fenced() {
            return;
        }
        if keeper.can_wait() {
            next = soon;
            continue;
        }
        next = match keeper.renew().await {
            Ok(()) => pause,
            Err(error) => {
                tracing::warn!(%error, "the lease could not be renewed");
                soon
            }
        };
    }
}
