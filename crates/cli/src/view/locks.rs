//! What `locks` shows, and the locks in the account of a job.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::Lock;
use stillpoint::workflow::ClaimMode;

use super::Report;
use crate::context::{JobId, RunId};
use crate::text;

/// A lock.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LockView {
    key: String,
    mode: ClaimMode,
    /// The step or guard that ends it.
    until: Option<String>,
    run: RunId,
    job: Option<JobId>,
    since: Option<DateTime<Utc>>,
    why: String,
    /// What its run is parked for.
    parked: Option<&'static str>,
    waiting: Vec<WaiterView>,
}

#[derive(Clone, Debug, Serialize)]
struct WaiterView {
    run: RunId,
    job: Option<JobId>,
    title: String,
    since: Option<DateTime<Utc>>,
}

impl LockView {
    pub(super) fn of(lock: &Lock) -> Self {
        let waiting = lock.waiting.iter().map(|waiter| WaiterView {
            run: waiter.run,
            job: waiter.job,
            title: waiter.title.clone(),
            since: waiter.since,
        });
        Self {
            key: lock.key.to_string(),
            mode: lock.mode,
            until: lock.until.as_ref().map(ToString::to_string),
            run: lock.run,
            job: lock.job,
            since: lock.since,
            why: lock.why.clone(),
            parked: lock.stuck.map(stillpoint::Stuck::word),
            waiting: waiting.collect(),
        }
    }

    pub(super) fn write(&self, text: &mut String, indent: &str) {
        let until = self.until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
        let since = self.since.map_or_else(String::new, |at| format!(" since {}", text::time(at)));
        let job = self.job.map_or_else(String::new, |job| format!(" of job {job}"));
        let _ = writeln!(text, "{indent}{} ({}{until})", self.key, self.mode);
        let _ = writeln!(text, "{indent}  held by run {}{job}{since}", self.run);
        let _ = writeln!(text, "{indent}  why: {}", self.why);
        for waiter in &self.waiting {
            let since =
                waiter.since.map_or_else(String::new, |at| format!(" since {}", text::time(at)));
            let _ = writeln!(
                text,
                "{indent}  run {} waits for it{since}: {}",
                waiter.run, waiter.title
            );
        }
    }
}

/// What `locks` shows.
#[derive(Debug, Serialize)]
pub(crate) struct LocksView {
    locks: Vec<LockView>,
}

impl LocksView {
    pub(crate) fn of(locks: &[Lock]) -> Self {
        Self { locks: locks.iter().map(LockView::of).collect() }
    }
}

impl Report for LocksView {
    const SCHEMA: &'static str = "stillpoint.locks/1";

    fn text(&self, text: &mut String) {
        if self.locks.is_empty() {
            text.push_str("nothing is locked\n");
        }
        for lock in &self.locks {
            lock.write(text, "");
        }
    }
}
