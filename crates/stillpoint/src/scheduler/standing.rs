//! How far the jobs of due times have come.

use chrono::{DateTime, Utc};
use stillpoint_context::{ErrorClass, ErrorFacts, Failure, JobId, Subject};
use stillpoint_model::job::{Elsewhere, Job, JobState, RunState};
use stillpoint_model::schedule::{Ledger, OpenDue, Progress};

use crate::Stillpoint;
use crate::error::Error;
use crate::hooks::jobs;

/// How far a job has come.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) progress: Progress,
    /// The databases for which it still waits.
    pub(super) waiting: Vec<Elsewhere>,
}

impl Standing {
    const OVER: Self = Self { progress: Progress::Over, waiting: Vec::new() };
    const AT_WORK: Self = Self { progress: Progress::AtWork, waiting: Vec::new() };
}

/// How far those of a ledger have come.
#[derive(Debug, Default)]
pub(super) struct Standings {
    known: Vec<(DateTime<Utc>, Standing)>,
    /// Why one of the jobs could not be read.
    pub(super) unread: Option<Failure>,
}

impl Standings {
    pub(super) fn progress(&self, open: &OpenDue) -> Progress {
        let known = self.known.iter().find(|(due, _)| *due == open.due);
        known.map_or(Progress::Waiting, |(_, standing)| standing.progress)
    }

    /// The databases for which a job waits that was due before.
    pub(super) fn waiting_before(&self, open: &OpenDue) -> Vec<Elsewhere> {
        let mut waiting: Vec<Elsewhere> = Vec::new();
        let before = self.known.iter().filter(|(due, _)| *due < open.due);
        for other in before.flat_map(|(_, standing)| &standing.waiting) {
            if !waiting.iter().any(|known| known.database == other.database) {
                waiting.push(other.clone());
            }
        }
        waiting
    }
}

impl Stillpoint {
    /// How far the jobs of a ledger have come.
    ///
    /// Of a job whose record is damaged nobody knows whether it is over. It counts as at work: none is begun in its place where
    /// they must not overlap, none becomes one with it, and all other ones go on.
    pub(super) async fn standings(&self, ledger: &Ledger) -> Result<Standings, Error> {
        let mut standings = Standings::default();
        for open in &ledger.open {
            let Some(id) = open.job else { continue };
            let standing = match self.standing_of(id).await {
                Err(error) if error.class() == ErrorClass::Integrity => {
                    let failure = error.into_failure().with_subject(Subject::new("job", id));
                    standings.unread = Some(failure);
                    Standing::AT_WORK
                }
                known => known?,
            };
            standings.known.push((open.due, standing));
        }
        Ok(standings)
    }

    async fn standing_of(&self, id: JobId) -> Result<Standing, Error> {
        match self.job(id).await? {
            // Removed with all that is old.
            None => Ok(Standing::OVER),
            Some(job) => self.standing(&job).await,
        }
    }

    /// A job of which nothing is done yet waits; of one that is at work some databases may wait.
    async fn standing(&self, job: &Job) -> Result<Standing, Error> {
        if job.state().is_final() {
            return Ok(Standing::OVER);
        }
        let is_here = self.live().find(job.id).is_some();
        let mut is_begun = matches!(job.state(), JobState::Cancelling | JobState::Parked);
        let mut waiting = job.held.clone();
        for run in job.counted().filter(|run| run.run != jobs::before(job.id)) {
            // What is stored of a job of another process may be older than what its run has done since.
            let waits = run.state == RunState::Queued
                && (is_here || !self.has_started_elsewhere(run.run).await?);
            is_begun |= !waits;
            if waits && !run.follow_up {
                let of_run = run.members.iter();
                waiting.extend(of_run.map(|m| Elsewhere::new(m.database, m.name.clone(), job.id)));
            }
        }
        for waits in &mut waiting {
            waits.job = job.id;
        }
        let progress = if is_begun { Progress::AtWork } else { Progress::Waiting };
        Ok(Standing { progress, waiting })
    }

    /// Whether a run of another process, which is stored as waiting, is at work by now.
    async fn has_started_elsewhere(&self, run: stillpoint_context::RunId) -> Result<bool, Error> {
        let account = self.engine().account(run).await?;
        Ok(account.is_some_and(|account| account.started_at.is_some()))
    }
}
