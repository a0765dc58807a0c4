//! History: jobs that were over long ago, which are forgotten, so that the state does not grow for ever.
//!
//! ```text
//!   jobs that are over ─┬─ the newest, those of whom something is left behind ─▶ stay
//!                       └─ others ─▶ the records of their runs ─▶ the jobs
//! ```
//!
//! Restore points, and what is known of the data, are not history: what they need they hold themselves.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use stillpoint_catalog::{JobQuery, Page};
use stillpoint_context::{JobId, RunId};
use stillpoint_model::job::Job;

use crate::Stillpoint;
use crate::error::Error;

/// How many jobs are forgotten at once.
const TOGETHER: u32 = 64;

/// How many of the newest jobs stay unless said.
pub(crate) const NEWEST: u32 = 1000;

/// What is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// Jobs that were over by then.
    pub before: DateTime<Utc>,
    /// So many of the newest jobs stay in any case, so that a clock that is wrong does not take all of them: 1,000 unless said, and
    /// at most [`Page::LARGEST`].
    pub newest: u32,
    /// Only count.
    pub dry_run: bool,
}

impl ForgetOptions {
    /// Jobs that were over by then, but for the newest thousand.
    pub const fn before(before: DateTime<Utc>) -> Self {
        Self { before, newest: NEWEST, dry_run: false }
    }
}

impl Stillpoint {
    /// Forgets jobs that were over long ago, with the records of their runs; says how many went, or would go.
    ///
    /// Jobs of whom something is left behind stay, and so do jobs that are not over. The keys of those that went are free again; a
    /// due time of a schedule is not made up for because of that, as its ledger is beyond it. A store that cannot forget keeps all.
    ///
    /// # Errors
    /// Of the catalogue and the journal. What was forgotten by then is.
    ///
    /// # Idempotence
    /// May be repeated, and called by several processes at once.
    ///
    /// # Crash behaviour
    /// Records go before their job: what is left of a job after a crash goes the next time.
    ///
    /// # Complexity
    /// O(n) in the jobs that go.
    pub async fn forget(&self, options: &ForgetOptions) -> Result<u64, Error> {
        let catalog = &self.services().catalog;
        let newest = catalog.jobs(&JobQuery::all(), &Page::first(options.newest)).await?.items;
        let mut stay: BTreeSet<JobId> = newest.iter().map(|job| job.id).collect();
        stay.extend(catalog.debris().await?.into_iter().filter_map(|debris| debris.job));
        // What a run has stated goes with it.
        self.services().pump.run(&**catalog).await?;
        let mut query = JobQuery::all();
        (query.ended, query.until) = (Some(true), Some(options.before));
        let goes = |job: &Job| {
            job.ended_at.is_some_and(|at| at <= options.before) && !stay.contains(&job.id)
        };
        let (mut page, mut gone) = (Page::first(TOGETHER), 0);
        loop {
            let listing = catalog.jobs(&query, &page).await?;
            let jobs: Vec<&Job> = listing.items.iter().filter(|job| goes(job)).collect();
            if options.dry_run {
                gone += jobs.len() as u64;
            } else if !jobs.is_empty() {
                gone += self.forget_these(&jobs).await?;
            }
            let Some(next) = listing.next else { return Ok(gone) };
            page.after = Some(next);
        }
    }

    async fn forget_these(&self, jobs: &[&Job]) -> Result<u64, Error> {
        // Who was taken over changes nothing more.
        self.engine().check_lease().await?;
        let runs: Vec<RunId> = jobs.iter().flat_map(|job| &job.runs).map(|run| run.run).collect();
        self.engine().forget(&runs).await?;
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        Ok(self.services().catalog.forget_jobs(&ids).await?)
    }
}
