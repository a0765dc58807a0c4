//! Forgetting runs that ended long ago, so that a journal does not grow for ever.

use stillpoint_context::RunId;

use super::{Engine, EngineError};
use crate::driver::read_snapshot;
use crate::journal::{Forget, JournalError, Seq, StreamId};
use crate::machine::{GrantPolicy, Record, RunRecord};

impl Engine {
    /// Has the journal forget these runs, their keys and what they have stated, and how claims were granted before the arbiter's
    /// last snapshot. Says how many streams went. A run that has not ended stays, and one whose records cannot be read; so does
    /// everything in a journal that [keeps everything](crate::Journal::forget).
    ///
    /// Facts go with their runs: whoever reads them has to have done so. What is submitted under the key of a forgotten run is a new
    /// run.
    ///
    /// # Errors
    /// [`EngineError::Journal`]. What was forgotten by then is.
    ///
    /// # Idempotence
    /// May be repeated.
    pub async fn forget(&self, runs: &[RunId]) -> Result<u64, EngineError> {
        self.forget_in_journal(runs).await.map_err(EngineError::Journal)
    }

    async fn forget_in_journal(&self, runs: &[RunId]) -> Result<u64, JournalError> {
        let journal = &self.0.shared.core.journal;
        let mut streams = Vec::with_capacity(2 * runs.len());
        for run in runs {
            streams.extend(self.streams_of(*run).await?);
        }
        let mut gone = 0;
        if !streams.is_empty() {
            gone = journal.forget(&Forget::streams(streams)).await?;
            self.lock().forget(runs);
        }
        let (_, place) = read_snapshot(&**journal, GrantPolicy::Strict).await?;
        if place > Seq(0) {
            journal.forget(&Forget::arbiter(place)).await?;
        }
        Ok(gone)
    }

    /// The streams of a run that has ended; none of one that has not, or cannot be read.
    async fn streams_of(&self, run: RunId) -> Result<Vec<StreamId>, JournalError> {
        let stream = StreamId::Run(run);
        let Some(last) = self.journal().head(&stream).await?.0.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let mut ends = Vec::new();
        for at in [0, last] {
            match self.journal().read(&stream, Seq(at), 1).await {
                Ok(stored) => ends.extend(stored.into_iter().map(|stored| stored.record)),
                Err(error @ (JournalError::Format { .. } | JournalError::PlanFormat { .. })) => {
                    tracing::debug!(%run, %error, "a run is kept, as it cannot be read");
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            }
        }
        let [Record::Run(RunRecord::Submitted(submitted)), last] = ends.as_slice() else {
            return Ok(Vec::new());
        };
        if !last.ends_run() {
            return Ok(Vec::new());
        }
        let key = submitted.key.as_ref().map(StreamId::of_key);
        Ok(key.into_iter().chain([stream]).collect())
    }
}
