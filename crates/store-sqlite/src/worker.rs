//! The one thread that works with the file.
//!
//! What waits when the thread is free is taken together: each call in a savepoint of its own, all
//! in one transaction, and answered after its commit.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use stillpoint_catalog::CatalogError;
use stillpoint_context::Effect;
use tokio::sync::oneshot;

use crate::error::{rolled_back, sqlite};

/// The most calls in one commit.
const TOGETHER: usize = 256;

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Tells the caller how it went, given how the commit went.
type Answer = Box<dyn FnOnce(Option<Arc<rusqlite::Error>>) + Send>;

/// A connection in a transaction, or why there is none.
type Begun<'a> = Result<&'a Connection, Arc<rusqlite::Error>>;

struct Call {
    access: Access,
    run: Box<dyn FnOnce(Begun<'_>) -> Answer + Send>,
}

/// The queue of the thread. The thread ends, and the file is released, when this is dropped and all
/// calls before have been carried out.
pub(crate) struct Worker {
    calls: Option<Sender<Call>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    #[allow(
        clippy::disallowed_methods,
        reason = "a connection lives on a thread of its own for as long as the store"
    )]
    pub(crate) fn start(connection: Connection, lock: File) -> io::Result<Self> {
        let (calls, queue) = channel();
        // The thread lives as long as the file is open: it would keep a slot of a pool for ever.
        #[allow(clippy::disallowed_methods, reason = "the store's thread is its own seam")]
        let thread = std::thread::Builder::new()
            .name("stillpoint-state".to_owned())
            .spawn(move || serve(connection, lock, &queue))?;
        Ok(Self { calls: Some(calls), thread: Mutex::new(Some(thread)) })
    }

    /// Has `call` carried out.
    ///
    /// # Cancel safety
    /// Once polled, the call is carried out whether or not anybody waits for the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        access: Access,
        call: impl FnOnce(&Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (tell, answer) = oneshot::channel();
        let run = Box::new(move |connection: Begun<'_>| -> Answer {
            let result = match (connection, access) {
                (Ok(connection), Access::Read) => call(connection),
                (Ok(connection), Access::Write) => in_savepoint(connection, call),
                (Err(error), _) => {
                    Err(failed("the transaction did not begin", error, Effect::None))
                }
            };
            Box::new(move |commit| {
                let result = match (result, commit) {
                    // What was refused was not going to be committed.
                    (Err(error), _) => Err(error),
                    (Ok(value), None) => Ok(value),
                    (Ok(_), Some(error)) => {
                        Err(failed("the commit failed", error, Effect::Unknown))
                    }
                };
                // Nobody may be waiting any more.
                drop(tell.send(result));
            })
        });
        let sent =
            self.calls.as_ref().is_some_and(|calls| calls.send(Call { access, run }).is_ok());
        if !sent {
            return Err(gone(Effect::None));
        }
        answer.await.unwrap_or_else(|_| Err(gone(Effect::Unknown)))
    }
}

impl Drop for Worker {
    /// Waits for the thread, so that the file can be opened again afterwards.
    fn drop(&mut self) {
        self.calls = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of the state file panicked");
        }
    }
}

/// One error for every call of a commit.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<rusqlite::Error>);

fn failed(what: &str, error: Arc<rusqlite::Error>, effect: Effect) -> CatalogError {
    CatalogError::Unavailable {
        message: format!("{what}: {error}"),
        effect,
        source: Some(Box::new(Shared(error))),
    }
}

fn gone(effect: Effect) -> CatalogError {
    CatalogError::Unavailable {
        message: "the thread of the state file has ended".to_owned(),
        effect,
        source: None,
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    call: impl FnOnce(&Connection) -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    connection.execute_batch("SAVEPOINT call").map_err(rolled_back)?;
    let result = call(connection);
    let end = if result.is_ok() { "RELEASE call" } else { "ROLLBACK TO call; RELEASE call" };
    match connection.execute_batch(end) {
        Ok(()) => result,
        Err(error) => result.and_then(|_| Err(sqlite(error, Effect::Unknown))),
    }
}

fn serve(connection: Connection, lock: File, queue: &Receiver<Call>) {
    while let Ok(first) = queue.recv() {
        let mut calls = vec![first];
        while calls.len() < TOGETHER
            && let Ok(next) = queue.try_recv()
        {
            calls.push(next);
        }
        together(&connection, calls);
    }
    // The last connection moves the log into the file as it closes; only then may others open it.
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the state file was not closed cleanly");
    }
    drop(lock);
}

/// Carries out calls in one transaction and answers them.
fn together(connection: &Connection, calls: Vec<Call>) {
    let writes = calls.iter().any(|call| call.access == Access::Write);
    // Writers begin as such: a reader that becomes one can be refused in the middle.
    let sql = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
    let begun = connection.execute_batch(sql).map_err(Arc::new);
    let answers: Vec<Answer> = calls
        .into_iter()
        .map(|call| (call.run)(begun.as_ref().map(|()| connection).map_err(Arc::clone)))
        .collect();
    let commit = match begun {
        Ok(()) => connection.execute_batch("COMMIT").err().map(Arc::new),
        Err(error) => Some(error),
    };
    if commit.is_some() && !connection.is_autocommit() {
        // The next transaction must not begin inside this one.
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "the state file could not be rolled back");
        }
    }
    for answer in answers {
        answer(commit.clone());
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::ErrorFacts;

    use super::*;

    fn worker(folder: &tempfile::TempDir, set_up: &str) -> Worker {
        let connection = Connection::open(folder.path().join("x.db")).unwrap();
        connection.execute_batch("CREATE TABLE t (x BLOB NOT NULL)").unwrap();
        connection.execute_batch(set_up).unwrap();
        Worker::start(connection, File::create(folder.path().join("x.lock")).unwrap()).unwrap()
    }

    fn insert(bytes: i64) -> impl FnOnce(&Connection) -> Result<(), CatalogError> {
        move |db| {
            db.execute("INSERT INTO t VALUES (zeroblob(?))", [bytes]).map_err(rolled_back)?;
            Ok(())
        }
    }

    fn count(db: &Connection) -> Result<i64, CatalogError> {
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).map_err(rolled_back)
    }

    #[tokio::test]
    async fn a_call_that_fails_leaves_the_others_of_its_commit() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder, "");
        let refused = |db: &Connection| -> Result<(), CatalogError> {
            insert(1)(db)?;
            Err(CatalogError::NotFound { kind: "thing", id: "x".into() })
        };
        // The thread is kept busy until all of them wait.
        let (go, wait) = channel::<()>();
        let busy = worker.call(Access::Read, move |_| {
            wait.recv().ok();
            Ok(())
        });
        let (_, a, b, c) = tokio::join!(
            async {
                let busy = std::pin::pin!(busy);
                busy.await
            },
            worker.call(Access::Write, insert(1)),
            worker.call(Access::Write, refused),
            async {
                let last = worker.call(Access::Write, insert(1));
                go.send(()).ok();
                last.await
            },
        );
        assert!(a.is_ok() && c.is_ok());
        assert_eq!(b.unwrap_err().code(), "catalog.not_found");
        assert_eq!(worker.call(Access::Read, count).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_can_pass() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder, "PRAGMA max_page_count = 10");
        worker.call(Access::Write, insert(100)).await.unwrap();
        let full = worker.call(Access::Write, insert(1_000_000)).await.unwrap_err();
        assert_eq!(full.code(), "state.unavailable");
        assert_eq!(worker.call(Access::Read, count).await.unwrap(), 1);
        worker.call(Access::Write, insert(100)).await.unwrap();
        assert_eq!(worker.call(Access::Read, count).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_transaction_that_cannot_begin_has_no_effect() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder, "PRAGMA busy_timeout = 0");
        let other = Connection::open(folder.path().join("x.db")).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let busy = worker.call(Access::Write, insert(1)).await.unwrap_err();
        assert_eq!((busy.code().as_str(), busy.effect()), ("state.unavailable", Effect::None));
        other.execute_batch("COMMIT").unwrap();
        worker.call(Access::Write, insert(1)).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_nobody_waits_for_is_carried_out() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder, "");
        {
            let call = std::pin::pin!(worker.call(Access::Write, insert(1)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            // Polled once, then dropped.
            assert!(call.poll(&mut context).is_pending());
        }
        assert_eq!(worker.call(Access::Read, count).await.unwrap(), 1);
    }
}
