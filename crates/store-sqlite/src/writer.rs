//! The thread that writes.
//!
//! What waits when the thread is free is taken together, in one transaction and one sync, and answered after its commit.
//!
//! ```text
//!   begin ─▶ run run run … ─▶ commit ─▶ answer all        a call that is refused leaves the others alone
//!     └──────────┴──────────────┴─▶ lost ─▶ answer all    SQLite failed: nobody is told a yes
//! ```

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{Lost, Phase, Refusal};
use crate::pen::Pen;
use crate::worker::together;

/// The most calls in one commit.
const TOGETHER: usize = 1024;

/// Part of a transaction.
pub(crate) trait Work: Send {
    /// Does it. An error gives the whole transaction up.
    fn run(&mut self, pen: &mut Pen<'_>) -> rusqlite::Result<()>;

    /// Whether it can be run again in another transaction.
    fn can_run_again(&self) -> bool;

    /// Answers, after the commit or when there was none.
    fn end(self: Box<Self>, lost: Option<&Arc<Lost>>);
}

/// A call in a savepoint of its own: whole or not at all, whatever becomes of the others.
pub(crate) fn write<T, E>(
    call: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
) -> (Box<dyn Work>, oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
    E: Refusal,
{
    let (tell, answer) = oneshot::channel();
    (Box::new(Write { call: Some(call), result: None, tell }), answer)
}

struct Write<F, T, E> {
    call: Option<F>,
    result: Option<Result<T, E>>,
    tell: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Work for Write<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: Refusal,
{
    fn run(&mut self, pen: &mut Pen<'_>) -> rusqlite::Result<()> {
        let Some(call) = self.call.take() else { return Ok(()) };
        pen.forget_holders();
        pen.in_savepoint(|db| {
            let result = call(db);
            let keep = result.is_ok();
            self.result = Some(result);
            keep
        })
    }

    fn can_run_again(&self) -> bool {
        self.call.is_some()
    }

    fn end(self: Box<Self>, lost: Option<&Arc<Lost>>) {
        let answer = match (lost, self.result) {
            (None, Some(result)) => result,
            // What was refused may have been refused for something that is lost now, too.
            (Some(lost), _) => Err(E::lost(lost)),
            (None, None) => Err(E::gone(stillpoint_context::Effect::None)),
        };
        // Nobody may be waiting any more.
        drop(self.tell.send(answer));
    }
}

pub(crate) fn serve(connection: Connection, lock: File, queue: &Receiver<Box<dyn Work>>) {
    match Pen::new(&connection) {
        Ok(mut pen) => {
            while let Some(works) = together(queue, TOGETHER) {
                carry_out(&mut pen, works);
            }
        }
        Err(error) => {
            let lost = Arc::new(Lost { phase: Phase::Begin, error });
            while let Ok(work) = queue.recv() {
                work.end(Some(&lost));
            }
        }
    }
    // The last connection moves the log into the file as it closes; only then may old versions open it.
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the state file was not closed cleanly");
    }
    drop(lock);
}

/// Carries out calls in one transaction and answers them.
///
/// One that meets damage is answered alone, and the others are done without it: what nobody can read must not keep
/// every other run from going on.
fn carry_out(pen: &mut Pen<'_>, mut works: Vec<Box<dyn Work>>) {
    while !works.is_empty() {
        let Err((lost, culprit)) = transact(pen, &mut works) else {
            for work in works {
                work.end(None);
            }
            return;
        };
        pen.roll_back();
        tracing::warn!(error = %lost, calls = works.len(), "a transaction of the state file was lost");
        let culprit = culprit.filter(|_| lost.is_damage());
        let lost = Arc::new(lost);
        let (mut rest, mut failed) = (Vec::new(), Vec::new());
        for (at, work) in works.into_iter().enumerate() {
            let again = culprit.is_some_and(|culprit| culprit != at) && work.can_run_again();
            if again { rest.push(work) } else { failed.push(work) }
        }
        for work in failed {
            work.end(Some(&lost));
        }
        works = rest;
    }
}

/// On failure also says in which of the calls, if it was in one.
fn transact(pen: &mut Pen<'_>, works: &mut [Box<dyn Work>]) -> Result<(), (Lost, Option<usize>)> {
    let lost = |phase, at| move |error| (Lost { phase, error }, at);
    pen.begin().map_err(lost(Phase::Begin, None))?;
    for (at, work) in works.iter_mut().enumerate() {
        work.run(pen)
            // After some failures SQLite gives the transaction up by itself.
            .and_then(|()| pen.still_in_transaction())
            .map_err(lost(Phase::Inside, Some(at)))?;
    }
    pen.commit().map_err(lost(Phase::Commit, None))
}
