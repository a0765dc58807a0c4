//! Handles of runs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stillpoint_context::RunId;
use tokio::sync::{oneshot, watch};

use super::{EngineError, RunPhase, RunReport, RunStatus};
use crate::driver::{Ask, Mail, RunLink, Status};
use crate::journal::{Seq, Stored, StreamId, read_run};
use crate::machine::{Answer, CancelAnswer, Resolution, RunState};

/// How many records are read from the journal at once.
const PAGE: usize = 256;

/// A run, to be watched and steered. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct RunHandle(Arc<RunLink>, Driven);

/// Who carries a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driven {
    Here,
    Elsewhere,
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.0.run)
    }
}

impl RunHandle {
    pub(super) fn new(link: Arc<RunLink>) -> Self {
        Self(link, Driven::Here)
    }

    pub(super) fn elsewhere(link: Arc<RunLink>) -> Self {
        Self(link, Driven::Elsewhere)
    }

    /// The run.
    pub fn id(&self) -> RunId {
        self.0.run
    }

    /// Where it stands.
    pub fn status(&self) -> RunStatus {
        let status = self.0.status.borrow();
        RunStatus { phase: status.phase, records: self.0.head().0, parked: status.parked.clone() }
    }

    /// Waits until the run has ended. A parked run has not.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the journal has been failing for a while: the run is open there, goes on as soon as the
    /// journal is back, and may be waited for again. [`EngineError::Suspended`] when the engine was suspended,
    /// [`EngineError::Gone`] when its runtime ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn wait(&self) -> Result<RunReport, EngineError> {
        let over = |s: &Status| s.last.is_some() || s.broken.is_some() || s.gone;
        let status = self.wait_for(over).await?;
        match status.last {
            Some(last) => Ok(RunReport::new(last)),
            None => Err(self.why_not(status)),
        }
    }

    /// Why a run that has not ended is not being carried out.
    fn why_not(&self, status: Status) -> EngineError {
        match status.broken {
            Some(error) => EngineError::Journal(error),
            None if status.elsewhere => EngineError::Elsewhere { run: self.0.run },
            None if status.phase == RunPhase::Suspended => {
                EngineError::Suspended { run: self.0.run }
            }
            None => EngineError::Gone,
        }
    }

    /// Waits until the run has ended or needs a person.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn settled(&self) -> Result<RunStatus, EngineError> {
        let settled = |status: &Status| {
            matches!(status.phase, RunPhase::Parked | RunPhase::Ended(_))
                && (status.last.is_some() || !status.parked.is_empty())
                || status.broken.is_some()
                || status.gone
        };
        let status = self.wait_for(settled).await?;
        if status.broken.is_some() || (status.gone && status.last.is_none()) {
            return Err(self.why_not(status));
        }
        Ok(self.status())
    }

    /// Waits until nothing of the run waits for a person: it goes on, or has ended.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn unparked(&self) -> Result<RunStatus, EngineError> {
        let goes_on = |status: &Status| {
            status.phase != RunPhase::Parked || status.broken.is_some() || status.gone
        };
        let status = self.wait_for(goes_on).await?;
        if status.broken.is_some() || (status.gone && status.last.is_none()) {
            return Err(self.why_not(status));
        }
        Ok(self.status())
    }

    /// Waits until the journal does not fail under the run any more; at once if it does not.
    ///
    /// # Errors
    /// [`EngineError::Journal`], [`EngineError::Elsewhere`], [`EngineError::Suspended`] or [`EngineError::Gone`] when it is not
    /// carried here any more and has not ended, so that waiting is of no use.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    pub async fn mended(&self) -> Result<RunStatus, EngineError> {
        let status = self.wait_for(|status| status.broken.is_none() || status.gone).await?;
        if status.gone && status.last.is_none() {
            return Err(self.why_not(status));
        }
        Ok(self.status())
    }

    async fn wait_for(&self, done: impl FnMut(&Status) -> bool) -> Result<Status, EngineError> {
        let mut watch = self.0.status.subscribe();
        let status = watch.wait_for(done).await.map_err(|_| EngineError::Gone)?;
        Ok(status.clone())
    }

    /// The state as the journal has it now.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when it cannot be read.
    ///
    /// # Complexity
    /// O(records): it is read and replayed. An ended run answers from memory.
    pub async fn state(&self) -> Result<RunState, EngineError> {
        if let Some(last) = &self.0.status.borrow().last {
            return Ok((**last).clone());
        }
        Ok(Self::read(&self.0).await?.0)
    }

    /// The state as the journal has it, and the number of its records.
    pub(super) async fn read(link: &RunLink) -> Result<(RunState, u64), EngineError> {
        let read = read_run(&*link.journal, link.run).await.map_err(EngineError::Journal)?;
        let (state, stored) = read.ok_or(EngineError::Gone)?;
        Ok((state, stored.len() as u64))
    }

    /// Cancels the run. Returns once that is recorded.
    ///
    /// # Errors
    /// [`EngineError::Gone`] or [`EngineError::Journal`] when nobody is there to record it.
    pub async fn cancel(&self, by: impl Into<String>) -> Result<CancelAnswer, EngineError> {
        match self.ask(Ask::Cancel { by: by.into() }).await? {
            Answer::Cancel(answer) => Ok(answer),
            Answer::Done | Answer::NotParked => Err(EngineError::Gone),
        }
    }

    /// Tries again what is parked.
    ///
    /// # Errors
    /// [`EngineError::NotParked`] when nothing is.
    pub async fn resume(&self, by: impl Into<String>) -> Result<(), EngineError> {
        self.ask_parked(Ask::Resume { by: by.into() }).await
    }

    /// Says how it stands with a parked step or guard, found out by hand.
    ///
    /// # Errors
    /// [`EngineError::NoStep`] or [`EngineError::NotParked`].
    pub async fn resolve(
        &self,
        by: impl Into<String>,
        step: &str,
        resolution: Resolution,
    ) -> Result<(), EngineError> {
        let state = self.state().await?;
        let node = state.plan().find(step);
        let node = node.ok_or(EngineError::NoStep { run: self.0.run, step: step.to_owned() })?;
        self.ask_parked(Ask::Resolve { by: by.into(), node, resolution }).await
    }

    /// Ends a parked run that is at rest: what it owes becomes debris, what it holds becomes free.
    ///
    /// # Errors
    /// [`EngineError::NotParked`] when it is not parked or something of it is still at work.
    pub async fn abandon(&self, by: impl Into<String>) -> Result<(), EngineError> {
        self.ask_parked(Ask::Abandon { by: by.into() }).await
    }

    async fn ask_parked(&self, ask: Ask) -> Result<(), EngineError> {
        match self.ask(ask).await? {
            Answer::Done => Ok(()),
            Answer::NotParked | Answer::Cancel(_) => {
                Err(EngineError::NotParked { run: self.0.run })
            }
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, EngineError> {
        let ended = match &ask {
            Ask::Cancel { .. } => Answer::Cancel(CancelAnswer::Ended),
            Ask::Resume { .. } | Ask::Resolve { .. } | Ask::Abandon { .. } => Answer::NotParked,
        };
        if self.1 == Driven::Elsewhere && self.0.status.borrow().last.is_none() {
            return Err(EngineError::Elsewhere { run: self.0.run });
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.0.mail.send(Mail::Ask { ask, reply });
        let answer = if asked { answer.await.ok() } else { None };
        if let Some(answer) = answer {
            return Ok(answer);
        }
        // The driver is gone: because the run has ended, or because its journal has failed.
        let status = self.0.status.borrow().clone();
        if status.last.is_some() { Ok(ended) } else { Err(self.why_not(status)) }
    }

    /// The run's records from one on: all of them, in order, none left out, also those still to come.
    pub fn subscribe(&self, from: Seq) -> Subscription {
        self.0.followers.fetch_add(1, Ordering::SeqCst);
        Subscription {
            link: Arc::clone(&self.0),
            watch: self.0.status.subscribe(),
            next: from,
            page: VecDeque::new(),
        }
    }
}

/// The records of a run, as they come. It reads from the journal at its own pace and never slows the engine.
pub struct Subscription {
    link: Arc<RunLink>,
    watch: watch::Receiver<Status>,
    next: Seq,
    page: VecDeque<Stored>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({} from {})", self.link.run, self.next.0)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.link.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Subscription {
    /// The next record; `None` after the last one of an ended run.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the journal fails; the next call tries again.
    ///
    /// # Cancel safety
    /// No record is lost when it is dropped.
    pub async fn next(&mut self) -> Result<Option<Stored>, EngineError> {
        loop {
            if let Some(stored) = self.page.pop_front() {
                self.next = Seq(stored.seq.0 + 1);
                return Ok(Some(stored));
            }
            // Whether it is over is asked first: the number is the last one then.
            let over = {
                let status = self.watch.borrow_and_update();
                status.last.is_some() || status.gone
            };
            if self.next == Seq(0)
                && let Some(first) = self.link.first()
            {
                self.page.push_back(first.clone());
            } else if self.next < self.link.head() {
                let stream = StreamId::Run(self.link.run);
                let page = self.link.journal.read(&stream, self.next, PAGE).await;
                self.page = page.map_err(EngineError::Journal)?.into();
            } else if over {
                return Ok(None);
            } else {
                self.watch.changed().await.map_err(|_| EngineError::Gone)?;
            }
        }
    }
}
