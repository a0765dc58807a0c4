//! The thread that reads: it never waits for a commit.
//!
//! What waits together reads one state of the file. It is chosen after the last of them was asked for, so each sees
//! what was committed before it began.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{Lost, Phase, Refusal};
use crate::worker::together;

/// The most reads of one state.
const TOGETHER: usize = 64;

/// A read, given a connection in a transaction or why there is none.
pub(crate) type Read = Box<dyn FnOnce(Result<&Connection, &Arc<Lost>>) + Send>;

/// A read and where its answer comes from.
pub(crate) fn read<T, E: Refusal>(
    call: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
) -> (Read, oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
{
    let (tell, answer) = oneshot::channel();
    let read = Box::new(move |connection: Result<&Connection, &Arc<Lost>>| {
        // Nobody may be waiting any more.
        drop(tell.send(connection.map_err(E::lost).and_then(call)));
    });
    (read, answer)
}

pub(crate) fn serve(connection: Connection, queue: &Receiver<Read>) {
    while let Some(reads) = together(queue, TOGETHER) {
        let transaction = connection.prepare_cached("BEGIN").and_then(|mut sql| sql.execute([]));
        let begun = transaction.map_err(|error| Arc::new(Lost { phase: Phase::Begin, error }));
        for read in reads {
            read(begun.as_ref().map(|_| &connection));
        }
        if begun.is_ok()
            && let Err(error) =
                connection.prepare_cached("COMMIT").and_then(|mut sql| sql.execute([]))
        {
            tracing::error!(%error, "a reading transaction did not end");
            drop(connection.execute_batch("ROLLBACK"));
        }
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the state file was not closed cleanly by its reader");
    }
}
