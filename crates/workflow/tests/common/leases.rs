//! Leases that do something of the test's before they are renewed or ended.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{BoxFuture, Mono, ProcessId};
use stillpoint_workflow::*;

/// Before what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Renew(ProcessId),
    Fence,
}

type Hook = dyn Fn(Arc<MemoryJournal>, Before) -> BoxFuture<'static, Result<(), JournalError>>
    + Send
    + Sync;

/// The leases of a store, and a hook that may wait, or refuse.
pub struct HookLeases {
    store: Arc<MemoryJournal>,
    hook: Box<Hook>,
}

impl Debug for HookLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookLeases").finish_non_exhaustive()
    }
}

impl HookLeases {
    pub fn new(
        store: &Arc<MemoryJournal>,
        hook: impl Fn(Arc<MemoryJournal>, Before) -> BoxFuture<'static, Result<(), JournalError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { store: Arc::clone(store), hook: Box::new(hook) }
    }

    /// Leases that can be acquired and never renewed, as those of a process that stands still.
    pub fn once(store: &Arc<MemoryJournal>) -> Self {
        Self::new(store, |store, before| {
            Box::pin(async move {
                let Before::Renew(process) = before else { return Ok(()) };
                if store.leases().await?.iter().any(|lease| lease.process == process) {
                    return Err(JournalError::Io("it stands still".into()));
                }
                Ok(())
            })
        })
    }
}

#[async_trait]
impl Leases for HookLeases {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.store.acquire(process, now, term).await
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        (self.hook)(Arc::clone(&self.store), Before::Renew(process)).await?;
        self.store.renew(process, epoch, now, term).await
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.store.release(process, epoch).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.store.leases().await
    }

    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        (self.hook)(Arc::clone(&self.store), Before::Fence).await?;
        self.store.fence(process, now, margin).await
    }
}
