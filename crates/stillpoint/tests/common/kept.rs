//! A journal some of whose runs cannot be read.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stillpoint::context::RunId;
use stillpoint::workflow::{
    Batch, Fact, Journal, JournalError, MemoryJournal, OpenStream, Position, Seq, Stored, StreamId,
    Topic,
};

/// A journal in memory whose records of some runs are of a newer format.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub journal: Arc<MemoryJournal>,
    pub newer: Arc<Mutex<Option<RunId>>>,
}

#[async_trait]
impl Journal for Kept {
    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        self.journal.commit(batch).await
    }
    async fn read(
        &self,
        at: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let newer = *self.newer.lock().unwrap();
        if newer.is_some_and(|run| *at == StreamId::Run(run)) {
            return Err(JournalError::Format { found: 99, known: 1 });
        }
        self.journal.read(at, from, max).await
    }
    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        self.journal.head(stream).await
    }
    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        self.journal.open(after, max).await
    }
    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        self.journal.facts(topic, after, max).await
    }
}
