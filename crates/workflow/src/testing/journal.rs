//! Journals that are slow, stand still or fail.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::BoxFuture;
use tokio::sync::watch;

use super::Sim;
use crate::journal::{
    Batch, Fact, Forget, Journal, JournalError, OpenStream, Position, Seq, Stored, StreamId, Topic,
};

type Commit<J> =
    dyn Fn(Arc<J>, Batch) -> BoxFuture<'static, Result<Position, JournalError>> + Send + Sync;

/// A journal that does something of the test's around each commit: wait, fail, count, tell.
pub struct HookJournal<J> {
    inner: Arc<J>,
    commit: Box<Commit<J>>,
    shared: bool,
}

impl<J: Debug> Debug for HookJournal<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookJournal({:?})", self.inner)
    }
}

impl<J: Journal> HookJournal<J> {
    /// Does `commit` in the place of each commit, which is given the journal and the batch.
    ///
    /// ```
    /// # use stillpoint_workflow::{Journal, MemoryJournal, testing::HookJournal};
    /// let journal = HookJournal::around(MemoryJournal::new(), |inner, batch| {
    ///     Box::pin(async move {
    ///         let answer = inner.commit(batch).await;
    ///         // Look at the answer, or give another.
    ///         answer
    ///     })
    /// });
    /// ```
    pub fn around(
        inner: J,
        commit: impl Fn(Arc<J>, Batch) -> BoxFuture<'static, Result<Position, JournalError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { inner: Arc::new(inner), commit: Box::new(commit), shared: false }
    }

    /// Commits to `inner` once what `before` gives is ready, unless that is an error.
    pub fn new(
        inner: J,
        before: impl Fn(&Batch) -> BoxFuture<'static, Result<(), JournalError>> + Send + Sync + 'static,
    ) -> Self {
        Self::around(inner, move |inner, batch| {
            let free = before(&batch);
            Box::pin(async move {
                free.await?;
                inner.commit(batch).await
            })
        })
    }

    /// Tells `after` of each batch that `inner` has written.
    pub fn after(inner: J, after: impl Fn(&Batch) + Send + Sync + 'static) -> Self {
        let after = Arc::new(after);
        Self::around(inner, move |inner, batch| {
            let after = Arc::clone(&after);
            Box::pin(async move {
                let position = inner.commit(batch.clone()).await?;
                after(&batch);
                Ok(position)
            })
        })
    }

    /// Says that other processes may write to it.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Commits after up to `most` of virtual time, drawn by the simulation, so that other things come between.
    pub fn jitter(inner: J, sim: &Sim, most: Duration) -> Self {
        let sim = sim.clone();
        Self::new(inner, move |_| {
            let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
            let wait = Duration::from_nanos(sim.random() % most.saturating_add(1).max(1));
            let clock = sim.seams().clock;
            let timer = clock.sleep_until(clock.mono() + wait);
            Box::pin(async move {
                timer.await;
                Ok(())
            })
        })
    }
}

/// Makes a journal hang: after a commit that its trigger picks, further commits wait until it is released.
#[derive(Debug, Clone)]
pub struct Stall(Arc<watch::Sender<(bool, usize)>>);

impl Stall {
    /// A journal over `inner` that hangs after each commit that `trigger` picks, and the means to release it.
    pub fn new<J: Journal>(
        inner: J,
        trigger: impl Fn(&Batch) -> bool + Send + Sync + 'static,
    ) -> (Self, HookJournal<J>) {
        let (state, _) = watch::channel((false, 0));
        let stall = Self(Arc::new(state));
        let theirs = stall.clone();
        let journal = HookJournal::new(inner, move |batch| {
            let (state, picked) = (Arc::clone(&theirs.0), trigger(batch));
            Box::pin(async move {
                state.send_modify(|(_, held)| *held += 1);
                // The sender is held by this future, so the wait cannot fail.
                let free = state.subscribe().wait_for(|(stalled, _)| !stalled).await.is_ok();
                state.send_modify(|(stalled, held)| {
                    *held -= 1;
                    *stalled |= picked && free;
                });
                Ok(())
            })
        });
        (stall, journal)
    }

    /// Whether it hangs now.
    pub fn is_stalled(&self) -> bool {
        self.0.borrow().0
    }

    /// The number of commits that wait now.
    pub fn held(&self) -> usize {
        self.0.borrow().1
    }

    /// Lets commits through again, until the trigger picks another.
    pub fn release(&self) {
        self.0.send_modify(|(stalled, _)| *stalled = false);
    }
}

#[async_trait]
impl<J: Journal> Journal for HookJournal<J> {
    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }

    fn is_shared(&self) -> bool {
        self.shared || self.inner.is_shared()
    }

    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        (self.commit)(Arc::clone(&self.inner), batch).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        self.inner.read(stream, from, max).await
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        self.inner.head(stream).await
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        self.inner.open(after, max).await
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        self.inner.facts(topic, after, max).await
    }

    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        self.inner.forget(what).await
    }
}
