//! A journal whose commits are numbered, so that the engine's process can be stopped and killed at each of them in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use stillpoint_workflow::{
    Batch, Fact, Journal, JournalError, OpenStream, Position, Seq, Stored, StreamId, Topic,
};

use crate::stops::Stops;

/// A journal over another. Before and after its n-th commit the process has come to the places `append.n.before` and
/// `append.n.after`.
///
/// It numbers the commits of this process, from 1. Commits of runs that go on side by side may come in another order the next
/// time; each place is passed once all the same.
#[derive(Debug)]
pub struct Numbered {
    inner: Arc<dyn Journal>,
    commits: AtomicU64,
    stops: Stops,
}

impl Numbered {
    /// Numbers the commits of this journal.
    pub fn over(inner: Arc<dyn Journal>, stops: Stops) -> Self {
        Self { inner, commits: AtomicU64::new(0), stops }
    }

    /// How many commits were begun.
    pub fn count(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Journal for Numbered {
    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        let call = format!("append.{}", self.commits.fetch_add(1, Ordering::SeqCst) + 1);
        self.stops.reached(&call, "before");
        let position = self.inner.commit(batch).await;
        self.stops.reached(&call, "after");
        position
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
}
