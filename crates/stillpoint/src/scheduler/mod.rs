//! The scheduler: makes one job of each time at which a schedule is due.
//!
//! ```text
//!            ┌───────────────── a turn: at each due time, on a nudge, and at least once a beat ──────────────────┐
//!   store ──▶│ what is new ─▶ timetable ─▶ due ─▶ overrun? ─▶ settle (one commit, compare and swap) ─▶ begin jobs │──▶ jobs
//!            └──────────────────────┬──────────────────────────────────▲──────────────────────────────────────────┘
//!                                   └── lapses: no job, and why ───────┘
//! ```
//!
//! - **Intent first.** A due time is written into its ledger as open before its job is begun, in the commit that moves `considered`
//!   over it; whoever finds it open without a job begins that. The key of the job is made of the attachment and the due instant,
//!   so that of several who begin it one does.
//! - **One of many.** Each ledger is changed by compare and swap, so that of several processes on one store one settles a due
//!   time, and the others see that it is settled.
//! - **Nothing in silence.** What becomes no job is a lapse with its reason, in the same commit.
//! - **Nothing twice.** Where due times are coalesced, a job leaves to an earlier one of its schedule the databases that still wait
//!   there; the others of its group do not wait with them.
//! - **Beside the turns**, if it is to, it looks whether catalogue and storages still agree (see [`Reconciling`]), and has jobs
//!   forgotten that were over long ago.

mod begin;
mod book;
mod history;
mod quiet;
mod standing;
mod turn;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use event_listener::Event;
use futures_util::future::{Either, join, select};
use stillpoint_context::{Failure, JobId, Mono};
use stillpoint_model::schedule::{AttachmentId, RecordedLapse, Regress};
use tokio::sync::broadcast;

use crate::Stillpoint;
use crate::history::NEWEST;
use turn::Turns;
pub use watch::Reconciling;

/// How many events a slow watcher may be behind before it misses some.
const BACKLOG: usize = 4096;

/// How a scheduler works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// How late a due time may be without being missed.
    pub grace: Duration,
    /// By how much the clock may go back without a word.
    pub tolerance: Duration,
    /// How often it looks at the store for what others have changed, and at the clock, when nothing is due.
    pub beat: Duration,
    /// How often it carries on with what processes left open that are gone; not at all if zero.
    pub recover: Duration,
    /// How it reconciles by itself; it does not, if none is given.
    pub reconciling: Option<Reconciling>,
    /// For how long jobs that are over are kept: once a day it has those forgotten that are older, as by
    /// [`Stillpoint::forget`]. None are, if this is not given.
    pub keep_jobs: Option<Duration>,
    /// How many of the newest jobs are kept, however old they are.
    pub keep_newest: u32,
}

impl Default for SchedulerOptions {
    /// Five minutes, a minute, half a minute, five minutes; it does not reconcile, and keeps all jobs.
    fn default() -> Self {
        Self {
            grace: Duration::from_mins(5),
            tolerance: Duration::from_mins(1),
            beat: Duration::from_secs(30),
            recover: Duration::from_mins(5),
            reconciling: None,
            keep_jobs: None,
            keep_newest: NEWEST,
        }
    }
}

/// Something that the scheduler did or met. Lossy: a slow watcher misses some; jobs, ledgers and lapses are in the catalogue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SchedulerEvent {
    /// A job was begun for a due time.
    Began {
        /// Of which attachment.
        attachment: AttachmentId,
        /// What its schedule is called.
        schedule: String,
        /// When it was due.
        due: DateTime<Utc>,
        /// Whether it is made up for.
        is_late: bool,
        /// The job.
        job: JobId,
    },
    /// Due times became no jobs.
    Lapsed(RecordedLapse),
    /// The clock has gone back: nothing is due until it is right again, or is believed (`clock.regressed`).
    Regressed(Regress),
    /// The clock is right again, or is believed.
    ClockRight,
    /// Catalogue and storages were compared.
    Reconciled {
        /// The job that tells what was found, and does what is to be done; none if that is as it was, and nothing is to be done.
        job: Option<JobId>,
    },
    /// Jobs that were over long ago were forgotten.
    Forgot {
        /// How many.
        jobs: u64,
    },
    /// Something failed, and is tried again.
    Failed(Failure),
    /// It has ended: no job is begun any more.
    Stopped,
}

/// Where a scheduler stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SchedulerStatus {
    /// How many schedules are attached.
    pub attachments: usize,
    /// When the next of them is due.
    pub next: Option<DateTime<Utc>>,
    /// How far the clock has gone back, if it has.
    pub regress: Option<Regress>,
    /// What failed in the last turn.
    pub failure: Option<Failure>,
    /// When it last looked, on the monotonic clock.
    pub turned_at: Mono,
    /// How often it has looked.
    pub turns: u64,
    /// How many jobs it has begun.
    pub began: u64,
    /// How many due times became no jobs.
    pub lapsed: u64,
    /// Whether it has ended.
    pub is_stopped: bool,
}

/// A scheduler at work. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Scheduler(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: SchedulerOptions,
    state: Mutex<State>,
    /// Something is to be looked at, or it has ended.
    news: Event,
    events: broadcast::Sender<SchedulerEvent>,
}

#[derive(Debug)]
struct State {
    status: SchedulerStatus,
    wants_stop: bool,
    is_nudged: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants_stop(&self) -> bool {
        self.state().wants_stop
    }

    fn tell(&self, event: SchedulerEvent) {
        match &event {
            SchedulerEvent::Began { schedule, due, job, is_late, .. } => {
                tracing::info!(%schedule, %due, %job, is_late, "a schedule is due");
                self.state().status.began += 1;
            }
            SchedulerEvent::Lapsed(RecordedLapse { attachment, lapse, .. }) => {
                let (from, count, why) = (lapse.from, lapse.count, &lapse.why);
                tracing::info!(%attachment, %from, count, %why, "due times became no jobs");
                let mut state = self.state();
                state.status.lapsed = state.status.lapsed.saturating_add(lapse.count);
            }
            SchedulerEvent::Regressed(regress) => {
                let Regress { latest, now, .. } = regress;
                tracing::error!(%latest, %now, code = "clock.regressed", "the clock has gone back");
            }
            SchedulerEvent::ClockRight => tracing::info!("the clock is right again"),
            SchedulerEvent::Reconciled { job: Some(job) } => {
                tracing::info!(%job, "what a reconcile has found is told");
            }
            SchedulerEvent::Reconciled { job: None } => {
                tracing::debug!("a reconcile has found nothing new");
            }
            SchedulerEvent::Forgot { jobs } => tracing::info!(jobs, "old jobs are forgotten"),
            SchedulerEvent::Failed(failure) => tracing::warn!(%failure, "the scheduler failed"),
            SchedulerEvent::Stopped => tracing::info!("the scheduler has stopped"),
        }
        // Nobody may be listening.
        let _heard = self.events.send(event);
    }

    /// Waits until it is to end.
    async fn stop_wanted(&self) {
        loop {
            let news = self.news.listen();
            if self.wants_stop() {
                return;
            }
            news.await;
        }
    }

    /// Waits until something is to be looked at, at most so long.
    async fn rest(&self, this: &Stillpoint, time: Duration) {
        let clock = &this.seams().clock;
        let mut late = clock.sleep_until(clock.mono() + time);
        loop {
            let news = self.news.listen();
            {
                let mut state = self.state();
                if std::mem::take(&mut state.is_nudged) || state.wants_stop {
                    return;
                }
            }
            match select(late, news).await {
                Either::Left(_) => return,
                Either::Right(((), rest)) => late = rest,
            }
        }
    }
}

impl Stillpoint {
    /// Starts a scheduler: it carries on with what was left open, then makes jobs of what is due, until it is
    /// [stopped](Scheduler::stop) or the process ends. Several may work on one store, in one process or many.
    pub fn start_scheduler(&self, options: SchedulerOptions) -> Scheduler {
        let status = SchedulerStatus {
            attachments: 0,
            next: None,
            regress: None,
            failure: None,
            turned_at: self.seams().clock.mono(),
            turns: 0,
            began: 0,
            lapsed: 0,
            is_stopped: false,
        };
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(State { status, wants_stop: false, is_nudged: false }),
            news: Event::new(),
            events: broadcast::channel(BACKLOG).0,
        });
        let (this, loops) = (self.clone(), Arc::clone(&shared));
        self.seams().spawner.spawn("scheduler", Box::pin(turns(this, loops)));
        Scheduler(shared)
    }
}

async fn turns(this: Stillpoint, shared: Arc<Shared>) {
    let mut turns = Turns::new(this.clone(), Arc::clone(&shared));
    let turning = async {
        while !shared.wants_stop() {
            let rest = turns.turn().await;
            shared.rest(&this, rest).await;
        }
    };
    let beside = join(watch::watch(&this, &shared), history::forget(&this, &shared));
    Box::pin(join(turning, beside)).await;
    // Told first: who sees that it has stopped has nothing more to hear.
    shared.tell(SchedulerEvent::Stopped);
    shared.state().status.is_stopped = true;
    let _woken: usize = shared.news.notify(usize::MAX);
}

impl Scheduler {
    /// Has it look at the store at once: for whoever has just changed a schedule and does not want to wait for the next beat.
    pub fn nudge(&self) {
        self.0.state().is_nudged = true;
        let _woken: usize = self.0.news.notify(usize::MAX);
    }

    /// Where it stands.
    pub fn status(&self) -> SchedulerStatus {
        self.0.state().status.clone()
    }

    /// Ends it: from now on no job is begun. What is due and has no job yet is in its ledger, and is begun by the next scheduler.
    /// Comes back once it has ended. Jobs under way go on: see [`Stillpoint::quiet`].
    ///
    /// # Cancel safety
    /// It ends all the same.
    pub async fn stop(&self) {
        self.0.state().wants_stop = true;
        let _woken: usize = self.0.news.notify(usize::MAX);
        loop {
            let news = self.0.news.listen();
            if self.0.state().status.is_stopped {
                return;
            }
            news.await;
        }
    }

    /// Follows it.
    pub fn watch(&self) -> SchedulerEvents {
        SchedulerEvents { events: self.0.events.subscribe(), shared: Arc::clone(&self.0) }
    }
}

/// Events of a scheduler, from now on.
#[derive(Debug)]
pub struct SchedulerEvents {
    events: broadcast::Receiver<SchedulerEvent>,
    shared: Arc<Shared>,
}

impl SchedulerEvents {
    /// The next event; none once it has ended and all were given.
    ///
    /// # Cancel safety
    /// No event is lost by dropping it.
    pub async fn next(&mut self) -> Option<SchedulerEvent> {
        use broadcast::error::{RecvError, TryRecvError};
        loop {
            let is_stopped = self.shared.state().status.is_stopped;
            match self.events.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(_)) => continue,
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) if is_stopped => return None,
                Err(TryRecvError::Empty) => {}
            }
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn delta(time: Duration) -> TimeDelta {
    TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX)
}
