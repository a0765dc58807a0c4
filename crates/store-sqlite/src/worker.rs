//! A thread that works off a queue.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::error::Refusal;
use stillpoint_context::Effect;

/// A thread and its queue. It ends when this is dropped and everything before has been worked off.
pub(crate) struct Worker<J> {
    jobs: Option<Sender<J>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<J> fmt::Debug for Worker<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl<J: Send + 'static> Worker<J> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a connection lives on a thread of its own for as long as the store"
    )]
    pub(crate) fn start(
        name: &str,
        serve: impl FnOnce(&Receiver<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || serve(&queue))?;
        Ok(Self { jobs: Some(jobs), thread: Mutex::new(Some(thread)) })
    }

    /// Queues a job. Says no when the thread has ended.
    pub(crate) fn send(&self, job: J) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// Queues a job and waits for what it answers.
    ///
    /// # Cancel safety
    /// Once polled, the job is done whether or not anybody waits for the answer.
    pub(crate) async fn ask<T, E: Refusal>(
        &self,
        job: J,
        answer: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        if !self.send(job) {
            return Err(E::gone(Effect::None));
        }
        answer.await.unwrap_or_else(|_| Err(E::gone(Effect::Unknown)))
    }
}

impl<J> Drop for Worker<J> {
    /// Waits for the thread, so that the file can be opened again afterwards.
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a thread of the state file panicked");
        }
    }
}

/// What waits now: the first, and others up to a number.
pub(crate) fn together<J>(queue: &Receiver<J>, most: usize) -> Option<Vec<J>> {
    let mut jobs = vec![queue.recv().ok()?];
    while jobs.len() < most
        && let Ok(next) = queue.try_recv()
    {
        jobs.push(next);
    }
    Some(jobs)
}
