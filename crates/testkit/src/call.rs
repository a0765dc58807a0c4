//! The record of every call.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use stillpoint_context::{Attempt, Cx, ErrorCode, ErrorFacts, FencingToken, RunId, StepName};

use crate::moment::Moment;

/// The side that a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The Exchange plug-in.
    Exchange,
    /// A snapshot provider.
    Storage,
}

/// The calls of `ExchangePlugin`, by the names of its methods.
pub const PLUGIN_CALLS: [&str; 13] = [
    "inventory",
    "begin",
    "session",
    "renew",
    "freeze",
    "thaw",
    "snap",
    "evidence",
    "verify",
    "complete",
    "abort",
    "truncation",
    "closed_logs",
];

/// The calls of `ExchangeRestore`.
pub const PLUGIN_RESTORE_CALLS: [&str; 3] = ["restore.open", "restore.finish", "restore.cancel"];

/// The calls of `SnapshotProvider`.
pub const PROVIDER_CALLS: [&str; 17] = [
    "resolve",
    "volumes",
    "prepare",
    "commit",
    "adopt",
    "settle",
    "discard",
    "find",
    "list",
    "delete",
    "expose",
    "unexpose",
    "exposures",
    "put_doc",
    "get_doc",
    "list_docs",
    "delete_doc",
];

/// The calls of `SnapshotLock`.
pub const PROVIDER_LOCK_CALLS: [&str; 4] = ["lock.hold", "lock.release", "lock.lock", "lock.keeps"];

/// The calls of `SnapshotRestore`.
pub const PROVIDER_RESTORE_CALLS: [&str; 7] = [
    "restore.stage",
    "restore.unstage",
    "restore.publish",
    "restore.retract",
    "restore.settle",
    "restore.collateral",
    "restore.revert",
];

/// The name as the lists above have it, if it is in one of them.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    PLUGIN_CALLS
        .into_iter()
        .chain(PLUGIN_RESTORE_CALLS)
        .chain(PROVIDER_CALLS)
        .chain(PROVIDER_RESTORE_CALLS)
        .chain(PROVIDER_LOCK_CALLS)
        .find(|known| *known == name)
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// It answered.
    Ok,
    /// It failed with this code.
    Failed(ErrorCode),
    /// Its future was dropped.
    Dropped,
    /// It panicked.
    Panicked,
}

/// One call.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// When it began in the order of all beginnings and ends of calls; unique.
    pub entered: u64,
    /// When it ended in that order.
    pub left: Option<u64>,
    /// Whom it went to.
    pub side: Side,
    /// The method, as in [`PLUGIN_CALLS`] and its neighbours.
    pub name: &'static str,
    /// What it was about: session, copies, token, volumes, verdicts; for people and for `contains`.
    pub about: String,
    /// The run that called.
    pub run: RunId,
    /// The step that called.
    pub step: StepName,
    /// Which attempt.
    pub attempt: Attempt,
    /// Its fencing token.
    pub fence: FencingToken,
    /// When it began.
    pub started: Moment,
    /// When it ended.
    pub ended: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault that was injected, if one was.
    pub fault: Option<String>,
}

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.about)?;
        match &self.outcome {
            Outcome::Failed(code) => write!(f, " → {code}")?,
            other => write!(f, " → {other:?}")?,
        }
        self.fault.as_ref().map_or(Ok(()), |fault| write!(f, " [{fault}]"))
    }
}

/// Every call to a [`World`](crate::World), or through a [wrapper](crate::wrap) that keeps a record, in the order in which they began. Cheap to clone; all clones are one record.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    records: Arc<Mutex<Vec<CallRecord>>>,
    order: Arc<AtomicU64>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<CallRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tick(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    /// All of them.
    pub fn all(&self) -> Vec<CallRecord> {
        self.lock().clone()
    }

    /// Those of one name.
    pub fn named(&self, name: &str) -> Vec<CallRecord> {
        self.filtered(|call| call.name == name)
    }

    /// How many there were of one name.
    pub fn count(&self, name: &str) -> usize {
        self.lock().iter().filter(|call| call.name == name).count()
    }

    /// Those of one run.
    pub fn of_run(&self, run: RunId) -> Vec<CallRecord> {
        self.filtered(|call| call.run == run)
    }

    /// Those for which `wanted` is true.
    pub fn filtered(&self, wanted: impl Fn(&CallRecord) -> bool) -> Vec<CallRecord> {
        self.lock().iter().filter(|call| wanted(call)).cloned().collect()
    }

    /// The names in the order in which the calls began.
    pub fn names(&self) -> Vec<&'static str> {
        self.lock().iter().map(|call| call.name).collect()
    }

    /// The names that occur, each once.
    pub fn distinct(&self) -> BTreeSet<&'static str> {
        self.lock().iter().map(|call| call.name).collect()
    }

    /// Forgets them all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn enter(
        &self,
        cx: &Cx,
        side: Side,
        name: &'static str,
        about: String,
        fault: Option<String>,
    ) -> Ticket {
        let entered = self.tick();
        let record = CallRecord {
            entered,
            left: None,
            side,
            name,
            about,
            run: cx.run(),
            step: cx.step().clone(),
            attempt: cx.attempt(),
            fence: cx.fence(),
            started: Moment::of(cx),
            ended: None,
            outcome: Outcome::Running,
            fault,
        };
        self.lock().push(record);
        Ticket { calls: self.clone(), cx: cx.clone(), entered, open: true }
    }
}

/// An open record. Dropped without an end, it says so.
#[derive(Debug)]
pub(crate) struct Ticket {
    calls: Calls,
    cx: Cx,
    entered: u64,
    open: bool,
}

impl Ticket {
    /// Which record it is.
    pub(crate) fn entered(&self) -> u64 {
        self.entered
    }

    fn close(&mut self, outcome: Outcome) {
        self.open = false;
        let (left, now) = (self.calls.tick(), Moment::of(&self.cx));
        // Found from the end: the record may have been cleared, and open calls are near the end.
        if let Some(record) =
            self.calls.lock().iter_mut().rev().find(|record| record.entered == self.entered)
        {
            record.left = Some(left);
            record.ended = Some(now);
            record.outcome = outcome;
        }
    }

    pub(crate) fn end<T, E: ErrorFacts>(mut self, result: &Result<T, E>) {
        self.close(match result {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Failed(error.code()),
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.close(if std::thread::panicking() { Outcome::Panicked } else { Outcome::Dropped });
        }
    }
}
