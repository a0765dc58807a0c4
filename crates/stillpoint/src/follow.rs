//! Runs of the engine followed for their jobs.
//!
//! ```text
//!   run ─ news ──────────── told to whoever watches the job
//!       ─ parked ────────── told, shown, stored; waits
//!       ─ journal fails ─── shown, stored, told; goes on when it is back
//!       ─ carried no more ─ the job is let go of: whoever carries on has it
//!       ─ end ───────────── its report
//! ```

use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use stillpoint_context::{Failure, RunId};
use stillpoint_model::job::RunState;
use stillpoint_workflow::{
    EngineError, JournalError, Notice, NoticeKind, RunHandle, RunPhase, RunReport,
};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::Stillpoint;
use crate::hooks::jobs;
use crate::job::{JobEvent, LiveJob};

impl Stillpoint {
    /// Follows a run to its end, passing its news on. A parked run is not over: the job shows it, and waits; nor is one that stands
    /// still because the journal fails. One that is carried here no more lets go of the job.
    pub(crate) async fn follow(
        &self,
        live: &LiveJob,
        handle: &RunHandle,
        mut news: broadcast::Receiver<Notice>,
    ) -> Result<RunReport, EngineError> {
        live.add_run(handle.clone());
        // What follows on a job is not of it any more: a hook may have been made for this very case.
        let is_after = handle.id() == jobs::after(live.snapshot().id);
        if let Some(by) = live.cancelled_by().filter(|_| !is_after) {
            // The wish came before the run did.
            let _answer = handle.cancel(by).await.map_err(|error| let_go(live, error))?;
        }
        let mut end = pin!(handle.wait());
        let mut parked = false;
        loop {
            // News may be missed, and come before what they tell of. That a run is parked must not be.
            let shown = parked;
            let turned = pin!(async move {
                drop(if shown { handle.unparked().await } else { handle.settled().await });
            });
            let heard = pin!(news.recv());
            let told = select(heard, turned);
            match select(end.as_mut(), told).await {
                Either::Left((Ok(report), _)) => return Ok(report),
                Either::Left((Err(error), _)) => {
                    // Whether anybody carries it on is known at once; that the journal is back may take a while.
                    let known = handle.mended().now_or_never();
                    let mended = if let Some(mended) = known {
                        mended
                    } else {
                        self.stall(live, handle.id(), Failure::of(&error)).await;
                        handle.mended().await
                    };
                    mended.map_err(|error| let_go(live, error))?;
                    end.set(handle.wait());
                }
                Either::Right((Either::Left((Ok(notice), _)), _)) => {
                    if notice.run == handle.id() {
                        self.pass_on(live, handle.id(), notice.kind);
                    }
                }
                Either::Right((Either::Left((Err(RecvError::Closed), _)), _)) => {
                    return end.await.map_err(|error| let_go(live, error));
                }
                Either::Right((
                    Either::Left((Err(RecvError::Lagged(_)), _)) | Either::Right(_),
                    _,
                )) => {}
            }
            parked = self.show(live, handle).await;
        }
    }

    /// Shows in the job that its run stands still, as the journal fails, and tells of it: the end, of which somebody would be told,
    /// may be far away.
    async fn stall(&self, live: &LiveJob, run: RunId, why: Failure) {
        live.change_run(run, |known| known.failure = Some(why.clone()));
        live.tell(JobEvent::Stalled { run, why: why.clone() });
        if let Err(error) = self.store_job(live).await {
            tracing::warn!(%run, %error, "the job of a run that stands still could not be stored");
        }
        self.tell_stalled(live, run, why).await;
    }

    /// Shows in the job where its run stands; whether that is parked.
    async fn show(&self, live: &LiveJob, handle: &RunHandle) -> bool {
        let job = live.snapshot();
        let known = job.runs.iter().find(|known| known.run == handle.id());
        let is_shown = known.is_none_or(|known| known.state == RunState::Parked);
        if handle.status().phase == RunPhase::Parked && !is_shown {
            // Told before it is shown and stored: who waits for it may end, and whoever carries on tells what was not.
            self.tell_parked(live, handle).await;
        }
        let (mut news, mut is_parked) = (false, false);
        live.change_run(handle.id(), |known| {
            // Looked at in here, so that of two who show it the later one shows what is newer.
            let status = handle.status();
            // The end is recorded with its report.
            let Some(state) = open_state(status.phase) else { return };
            // Why it is parked is told at once: nobody reads a report of a run that has not ended.
            let why = status.parked.first().map(|(_, parked)| (*parked.failure).clone());
            is_parked = state == RunState::Parked;
            news = known.state != state || known.failure != why;
            known.state = state;
            known.failure = why;
        });
        if news && is_parked {
            // A parked run may outlast this process: what is known of it is stored now.
            if let Err(error) = self.store_job(live).await {
                tracing::error!(run = %handle.id(), %error, "the parked run's job could not be stored");
            }
        }
        is_parked
    }

    fn pass_on(&self, live: &LiveJob, run: RunId, news: NoticeKind) {
        let step = |step, what| JobEvent::Step { run, step, what };
        match news {
            NoticeKind::Started => {
                let now = self.seams().clock.now();
                live.change_run(run, |known| known.started_at = Some(now));
            }
            NoticeKind::StepStarted { step: name, .. } => live.tell(step(name, "running")),
            NoticeKind::StepSucceeded { step: name } => live.tell(step(name, "done")),
            NoticeKind::StepFailed { step: name, .. } => live.tell(step(name, "failed")),
            NoticeKind::Progress { step, progress } => {
                live.tell(JobEvent::Progress { run, step, progress });
            }
            NoticeKind::Waiting(waiting) => {
                let (key, holder) = (waiting.key.to_string(), waiting.holder);
                live.tell(JobEvent::Waiting { run, key, holder });
            }
            _ => {}
        }
    }
}

/// Lets go of a job of which a run is not carried here any more though it has not ended, as this says.
pub(crate) fn let_go(live: &LiveJob, error: EngineError) -> EngineError {
    let is_lost = matches!(
        error,
        EngineError::Gone
            | EngineError::Suspended { .. }
            | EngineError::Elsewhere { .. }
            | EngineError::Journal(JournalError::Fenced { .. })
    );
    if is_lost {
        live.let_go();
    }
    error
}

/// What a job says of a run that has not ended.
pub(crate) const fn open_state(phase: RunPhase) -> Option<RunState> {
    match phase {
        RunPhase::Queued => Some(RunState::Queued),
        RunPhase::Running => Some(RunState::Running),
        RunPhase::Cancelling => Some(RunState::Cancelling),
        RunPhase::Parked => Some(RunState::Parked),
        _ => None,
    }
}
