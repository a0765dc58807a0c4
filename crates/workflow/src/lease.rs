//! Leases: which processes are alive on a state store, and who may carry on for one that is gone.
//!
//! ```text
//!   acquire ─▶ held ── renew ──▶ held … expired ──(margin)──▶ fenced: every commit of that epoch is refused
//!                │                        ▲  └─ renew ─▶ held again, if nobody has fenced it meanwhile
//!                └─ release ─▶ gone       └─ the clock that counts suspend, so a paused process expires too
//! ```
//!
//! A lease is of a process, not of a resource: what a run holds are claims. The epoch of a lease is checked inside each
//! append ([`Journal::commit`](crate::Journal::commit)), so a process that was fenced off while it was paused cannot
//! write a word more.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Mono, ProcessId};

use crate::journal::JournalError;

/// The lease of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// Whose it is.
    pub process: ProcessId,
    /// Its number: higher than that of every lease before it on this store, of any process. Never 0.
    pub epoch: u64,
    /// Until when it lasts, on the clock that counts suspend ([`Clock::boot`](stillpoint_context::Clock::boot)).
    pub until: Mono,
    /// For how long it was last given.
    pub term: Duration,
}

impl Lease {
    /// A lease given at `now`.
    pub fn new(process: ProcessId, epoch: u64, now: Mono, term: Duration) -> Self {
        Self { process, epoch, until: now + term, term }
    }

    /// Whether it has ended by itself, and `margin` has gone by since.
    ///
    /// A lease that would last longer than its term and the margin is one of an earlier boot of the machine, whose clock
    /// began anew. The margin covers that another process may have renewed it after `now` was read.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stillpoint_context::{Mono, ProcessId};
    /// use stillpoint_workflow::Lease;
    ///
    /// let at = |seconds| Mono(Duration::from_secs(seconds));
    /// let lease = Lease::new(ProcessId(uuid::Uuid::nil()), 1, at(100), Duration::from_secs(60));
    /// let margin = Duration::from_secs(10);
    /// assert!(!lease.is_over(at(169), margin));
    /// assert!(lease.is_over(at(170), margin));
    /// assert!(lease.is_over(at(5), margin), "the machine has been restarted");
    /// ```
    pub fn is_over(&self, now: Mono, margin: Duration) -> bool {
        now >= self.until + margin || self.until > now + self.term + margin
    }
}

/// What came of an attempt to fence a process off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fencing {
    /// It has no lease any more: its commits are refused from now on, and its runs may be carried on.
    Fenced,
    /// Its lease has not ended, or not long enough ago.
    Alive {
        /// Until when it lasts as it stands.
        until: Mono,
    },
}

/// Keeps leases, in the store of a [`Journal`](crate::Journal).
///
/// All instants are of the clock that counts suspend, and given by the caller.
///
/// # Atomicity and ordering
/// Each call takes effect whole or not at all, in one order with the commits of the journal: a commit that began after
/// [`fence`](Self::fence) answered [`Fencing::Fenced`] is refused, and one that was accepted came before it. Everything is
/// durable when it returns.
///
/// # Idempotence
/// [`release`](Self::release) and [`fence`](Self::fence) of what has no lease succeed.
/// [`acquire`](Self::acquire) repeated gives a new lease in the place of the old one.
///
/// # Cancel safety
/// A dropped call may or may not have taken effect.
///
/// # Errors
/// [`JournalError`], as for the journal; [`JournalError::Fenced`] where a method says so.
#[async_trait]
pub trait Leases: Debug + Send + Sync + 'static {
    /// Gives a process a lease of a new epoch. What it held before ends.
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError>;

    /// Prolongs a lease to `now` and a term, also one that has expired and was not fenced. It never gets shorter.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] when the process does not hold this epoch any more.
    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError>;

    /// Gives a lease back: what the process left open may be carried on at once. A lease of another epoch stays.
    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError>;

    /// Every lease there is, in the order of their epochs.
    async fn leases(&self) -> Result<Vec<Lease>, JournalError>;

    /// Ends the lease of a process that [is over](Lease::is_over).
    ///
    /// A store that can tell for certain that the process has died may fence it before that.
    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError>;
}
