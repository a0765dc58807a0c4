//! The end of a process: waiting for its jobs.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint_context::RunId;
use stillpoint_model::job::{Elsewhere, JobState, RunState};
use stillpoint_workflow::RunPhase;

use crate::Stillpoint;
use crate::job::JobHandle;

/// How often it is looked whether a job waits for a person.
const LOOK: Duration = Duration::from_secs(1);

impl Stillpoint {
    /// Waits until no job of this process goes on by itself: those that were under way are over, or are parked and need a person, or
    /// wait for a restore that is, or stand still because the journal fails.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn quiet(&self) {
        loop {
            let mut waited = false;
            for job in self.live().open() {
                if let Some(live) = self.live().find(job.id) {
                    let job = JobHandle::new(live);
                    let stuck = pin!(self.stuck(&job));
                    if let Either::Left((settled, _)) = select(pin!(job.settled()), stuck).await {
                        waited |= settled.state().is_final();
                    }
                }
            }
            if !waited {
                return;
            }
        }
    }

    /// Waits until all that is left of a job waits for restores that need a person, or stands still.
    async fn stuck(&self, handle: &JobHandle) {
        let clock = &self.seams().clock;
        loop {
            let job = handle.job();
            let is_parked = |other: &Elsewhere| {
                let live = self.live().find(other.job);
                live.is_some_and(|live| live.snapshot().state() == JobState::Parked)
            };
            let (stalled, others): (Vec<_>, Vec<_>) =
                job.runs.iter().partition(|run| self.is_stalled(run.run));
            let goes_on = others.iter().any(|run| {
                matches!(run.state, RunState::Queued | RunState::Running | RunState::Cancelling)
            });
            let waits = !stalled.is_empty() || !job.held.is_empty();
            if !goes_on && waits && job.held.iter().all(is_parked) {
                return;
            }
            clock.sleep_until(clock.mono() + LOOK).await;
        }
    }

    fn is_stalled(&self, run: RunId) -> bool {
        self.engine().run(run).is_some_and(|run| run.status().phase == RunPhase::Broken)
    }
}
