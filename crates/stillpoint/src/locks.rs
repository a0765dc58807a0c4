//! Locks: what is claimed, by which run, since when, why, and who waits for it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use stillpoint_context::{JobId, RunId, StepName};
use stillpoint_workflow::{Claim, ClaimKey, ClaimMode, JournalError, OpenRun};

use crate::Stillpoint;
use crate::error::Error;
use crate::parked::{Stuck, job_of};

/// One claim that a run holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Lock {
    /// The resource, as a path of names. A lock covers everything below it.
    pub key: ClaimKey,
    /// How it is shared.
    pub mode: ClaimMode,
    /// The step or guard that ends it; without one it is held until the run ends.
    pub until: Option<StepName>,
    /// The run that holds it.
    pub run: RunId,
    /// The job of that run; none for a run that the embedder submitted itself.
    pub job: Option<JobId>,
    /// Since when, if that can be read.
    pub since: Option<DateTime<Utc>>,
    /// Why it is held, in one sentence: what the run does, or what it is parked for.
    pub why: String,
    /// What the run is parked for, if it is.
    pub stuck: Option<Stuck>,
    /// Who waits for it, in line.
    pub waiting: Vec<Waiter>,
}

impl Lock {
    /// What a run holds by a claim, for this reason. For tests of whoever shows them.
    pub fn new(claim: Claim, run: RunId, why: impl Into<String>) -> Self {
        let (Claim { key, mode, until }, why) = (claim, why.into());
        Self {
            key,
            mode,
            until,
            run,
            job: None,
            since: None,
            why,
            stuck: None,
            waiting: Vec::new(),
        }
    }
}

/// A run that waits for a lock.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Waiter {
    /// The run.
    pub run: RunId,
    /// Its job; none for a run that the embedder submitted itself.
    pub job: Option<JobId>,
    /// What it is to do, in words.
    pub title: String,
    /// Since when, if that can be read.
    pub since: Option<DateTime<Utc>>,
}

impl Waiter {
    /// A run of no job. For tests of whoever shows them.
    pub fn new(run: RunId, title: impl Into<String>) -> Self {
        Self { run, job: None, title: title.into(), since: None }
    }
}

/// What is told of the run behind a claim.
struct Claiming {
    job: Option<JobId>,
    title: String,
    why: String,
    stuck: Option<Stuck>,
    submitted: Option<DateTime<Utc>>,
    started: Option<DateTime<Utc>>,
}

impl Claiming {
    fn of(open: &OpenRun) -> Self {
        let known = match &open.account {
            Ok(known) => known,
            Err(error) => return Self::unread(error),
        };
        let title = known.state.plan().name().to_owned();
        let first = known.parked.first();
        let why = match first {
            Some(parked) => {
                let why = Stuck::from(parked.reason);
                format!("{title}; parked: {}: {why}: {}", parked.step, parked.failure.message)
            }
            None if known.state.is_unwinding() => format!("{title}; it is being undone"),
            None => title.clone(),
        };
        Self {
            job: job_of(&known.state),
            title,
            why,
            stuck: first.map(|parked| parked.reason.into()),
            submitted: Some(known.submitted_at),
            started: known.started_at,
        }
    }

    fn unread(error: &JournalError) -> Self {
        let why = format!("its run cannot be read: {error}");
        let (title, stuck) = (String::new(), Some(Stuck::StoredFormat));
        Self { job: None, title, why, stuck, submitted: None, started: None }
    }

    fn over() -> Self {
        let why = "its run has ended; it is let go at once, or by the next recovery if the process went before it could";
        let (title, why) = (String::new(), why.to_owned());
        Self { job: None, title, why, stuck: None, submitted: None, started: None }
    }
}

impl Stillpoint {
    /// Every lock, of all processes, also of those that are gone, by its key: read from the journal, so it needs no
    /// [recovery](Self::recover) and changes nothing.
    ///
    /// # Errors
    /// Of the journal.
    ///
    /// # Complexity
    /// O(records of the open runs + what is held · what is waited for).
    pub async fn locks(&self) -> Result<Vec<Lock>, Error> {
        let claims = self.engine().claims().await?;
        // Runs that come to be in between hold nothing of what was read.
        let open = self.engine().open_runs().await?;
        let known: BTreeMap<RunId, Claiming> =
            open.iter().map(|open| (open.run, Claiming::of(open))).collect();
        let over = Claiming::over();
        let of = |run: &RunId| known.get(run).unwrap_or(&over);
        let waiters = |held: &Claim| {
            let waits = |wanted: &[Claim]| wanted.iter().any(|wanted| wanted.conflicts_with(held));
            let waiting = claims.wanted.iter().filter(|(_, wanted)| waits(wanted));
            waiting
                .map(|(run, _)| {
                    let Claiming { job, title, submitted, .. } = of(run);
                    Waiter { run: *run, job: *job, title: title.clone(), since: *submitted }
                })
                .collect()
        };
        let mut locks = Vec::new();
        for (run, held) in &claims.holders {
            let holder = of(run);
            locks.extend(held.iter().map(|claim| Lock {
                key: claim.key.clone(),
                mode: claim.mode,
                until: claim.until.clone(),
                run: *run,
                job: holder.job,
                since: holder.started,
                why: holder.why.clone(),
                stuck: holder.stuck,
                waiting: waiters(claim),
            }));
        }
        locks.sort_by(|a, b| (&a.key, a.run).cmp(&(&b.key, b.run)));
        Ok(locks)
    }
}
