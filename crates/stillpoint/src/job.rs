//! Jobs as they go: what somebody asked for, followed to its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use stillpoint_context::{Cancel, Failure, JobId, Progress, RunId, StepName};
use stillpoint_model::job::{Job, JobRun, JobState, RunState};
use stillpoint_workflow::{CancelAnswer, RunHandle};
use tokio::sync::broadcast;

use crate::error::Error;

/// How many events a slow watcher may be behind before it misses some.
const BACKLOG: usize = 1024;

/// Something that happened to a job. Lossy: a slow watcher misses some, and the [job](JobHandle::wait) tells the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobEvent {
    /// The job's state, computed from its runs, is now this.
    State(JobState),
    /// A step of a run began, succeeded, failed or was undone.
    Step {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// What happened to it, in a word: `running`, `done`, `failed`, `undone`.
        what: &'static str,
    },
    /// A step has come this far.
    Progress {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// How far.
        progress: Progress,
    },
    /// A run waits for a resource that another holds.
    Waiting {
        /// The run that waits.
        run: RunId,
        /// The resource.
        key: String,
        /// The run that holds it.
        holder: RunId,
    },
    /// A run stands still, as its journal has been failing for a while. It goes on as soon as the journal is back.
    Stalled {
        /// The run.
        run: RunId,
        /// What the journal fails with.
        why: Failure,
    },
}

/// A job that is under way in this process.
#[derive(Debug)]
pub(crate) struct LiveJob {
    job: Mutex<Job>,
    /// Held while it is stored.
    storing: tokio::sync::Mutex<()>,
    runs: Mutex<BTreeMap<RunId, RunHandle>>,
    /// How many sets are being carried out.
    sets: AtomicUsize,
    cancel: Cancel,
    cancelled_by: Mutex<Option<String>>,
    ended: AtomicBool,
    /// This process has no say in it any more.
    let_go: AtomicBool,
    end: Event,
    events: broadcast::Sender<JobEvent>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveJob {
    /// Held by whoever stores it.
    pub(crate) fn storing(&self) -> &tokio::sync::Mutex<()> {
        &self.storing
    }

    pub(crate) fn new(job: Job) -> Arc<Self> {
        Arc::new(Self {
            job: Mutex::new(job),
            storing: tokio::sync::Mutex::new(()),
            runs: Mutex::new(BTreeMap::new()),
            sets: AtomicUsize::new(0),
            cancel: Cancel::new(),
            cancelled_by: Mutex::new(None),
            ended: AtomicBool::new(false),
            let_go: AtomicBool::new(false),
            end: Event::new(),
            events: broadcast::channel(BACKLOG).0,
        })
    }

    /// A job that ended before, maybe in another process.
    pub(crate) fn ended(job: Job) -> Arc<Self> {
        let live = Self::new(job);
        live.finish();
        live
    }

    /// The job as it is now.
    pub(crate) fn snapshot(&self) -> Job {
        lock(&self.job).clone()
    }

    /// Changes the job and tells the watchers if its state is another now.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Job)) {
        let (before, after, went_on) = {
            let mut job = lock(&self.job);
            let (before, went_on) = (job.state(), self.goes_on(&job));
            change(&mut job);
            (before, job.state(), went_on && !self.goes_on(&job))
        };
        if before != after {
            self.tell(JobEvent::State(after));
        }
        if before != after || went_on {
            let _woken: usize = self.end.notify(usize::MAX);
        }
    }

    /// Changes one of its runs.
    pub(crate) fn change_run(&self, run: RunId, change: impl FnOnce(&mut JobRun)) {
        self.change(|job| {
            if let Some(run) = job.runs.iter_mut().find(|known| known.run == run) {
                change(run);
            }
        });
    }

    pub(crate) fn tell(&self, event: JobEvent) {
        // Nobody may be listening.
        let _heard = self.events.send(event);
    }

    pub(crate) fn add_run(&self, handle: RunHandle) {
        let _none = lock(&self.runs).insert(handle.id(), handle);
    }

    /// The token that says that the job is not wanted any more: no new run is begun.
    pub(crate) fn cancel_token(&self) -> &Cancel {
        &self.cancel
    }

    /// Who cancelled it, if somebody did.
    pub(crate) fn cancelled_by(&self) -> Option<String> {
        lock(&self.cancelled_by).clone()
    }

    /// Notes that the cancel has left something undone that was not begun yet.
    pub(crate) fn stop_short(&self) {
        let by = self.cancelled_by();
        self.change(|job| job.stopped_by = by);
    }

    /// Marks the end: the job does not change any more.
    pub(crate) fn finish(&self) {
        self.ended.store(true, Ordering::SeqCst);
        let _woken: usize = self.end.notify(usize::MAX);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Notes that a run of it is carried by another process, or will be: what becomes of the job is not for this one to say.
    pub(crate) fn let_go(&self) {
        self.let_go.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::SeqCst)
    }

    /// Notes that a set is being carried out, for as long as what this gives is kept: it has one run at a time, and between two
    /// of them it goes on by itself.
    pub(crate) fn set_at_work(&self) -> SetAtWork<'_> {
        self.sets.fetch_add(1, Ordering::SeqCst);
        SetAtWork(self)
    }

    /// Whether something of the job goes on without a person.
    fn goes_on(&self, job: &Job) -> bool {
        let open = job.runs.iter().any(|run| {
            matches!(run.state, RunState::Queued | RunState::Running | RunState::Cancelling)
        });
        let parked = job.runs.iter().filter(|run| run.state == RunState::Parked).count();
        // What waits for a restore goes on once that is over.
        let waits = !job.held.is_empty();
        open || waits
            || job.state() != JobState::Parked
            || self.sets.load(Ordering::SeqCst) > parked
    }

    async fn wait(&self) {
        self.wait_until(|job| job.state() == JobState::Parked).await;
    }

    async fn settled(&self) {
        self.wait_until(|job| !self.goes_on(job)).await;
    }

    /// Waits for the end, or until this holds.
    async fn wait_until(&self, holds: impl Fn(&Job) -> bool) {
        loop {
            let listener = self.end.listen();
            if self.is_ended() || holds(&lock(&self.job)) {
                return;
            }
            listener.await;
        }
    }
}

/// A set of a job that is being carried out.
#[derive(Debug)]
pub(crate) struct SetAtWork<'l>(&'l LiveJob);

impl Drop for SetAtWork<'_> {
    fn drop(&mut self) {
        self.0.sets.fetch_sub(1, Ordering::SeqCst);
        let _woken: usize = self.0.end.notify(usize::MAX);
    }
}

/// A job that was asked for. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct JobHandle {
    live: Arc<LiveJob>,
    id: JobId,
}

impl JobHandle {
    pub(crate) fn new(live: Arc<LiveJob>) -> Self {
        let id = live.snapshot().id;
        Self { live, id }
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The job as it is now.
    pub fn job(&self) -> Job {
        self.live.snapshot()
    }

    /// Waits for the job to end (or for a run of it to be parked, which needs a person) and gives it as it is then.
    ///
    /// A job whose run comes to be carried by another process, or will be by the next one that
    /// [recovers](crate::Stillpoint::recover), is over here and not there: when the runtime ends, the engine is suspended, or the
    /// lease was lost. Its failure says so (`engine.gone`, `run.suspended`, `run.elsewhere`, `journal.fenced`); what becomes of it
    /// the [catalogue](crate::Stillpoint::job) tells.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn wait(&self) -> Job {
        self.live.wait().await;
        self.live.snapshot()
    }

    /// Waits for the job to end, or until nothing of it goes on without a person: every run of it that is open is parked.
    ///
    /// [`wait`](Self::wait) comes back as soon as one is.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn settled(&self) -> Job {
        self.live.settled().await;
        self.live.snapshot()
    }

    /// Asks the job to stop: what runs is unwound, what waits does not begin. A run that has passed its point of no return
    /// goes on to its end, and only what would follow is left out.
    ///
    /// # Errors
    /// When the wish could not be recorded.
    pub async fn cancel(&self, by: &str) -> Result<(), Error> {
        let _before = lock(&self.live.cancelled_by).get_or_insert_with(|| by.to_owned()).clone();
        self.live.cancel.cancel();
        let runs: Vec<RunHandle> = lock(&self.live.runs).values().cloned().collect();
        for run in runs {
            match run.cancel(by).await? {
                CancelAnswer::Accepted | CancelAnswer::Ended => {}
                CancelAnswer::TooLate { step } => {
                    self.live.tell(JobEvent::Step {
                        run: run.id(),
                        step,
                        what: "too late to cancel",
                    });
                }
            }
        }
        Ok(())
    }

    /// Follows the job.
    pub fn watch(&self) -> Watch {
        Watch { live: Arc::clone(&self.live), events: self.live.events.subscribe(), over: false }
    }
}

/// Events of a job, from now on.
#[derive(Debug)]
pub struct Watch {
    live: Arc<LiveJob>,
    events: broadcast::Receiver<JobEvent>,
    over: bool,
}

impl Watch {
    /// The next event; `None` once all events were given and the job has ended, or nothing of it goes on without a person.
    /// One that is gone on with is watched anew.
    ///
    /// # Cancel safety
    /// No event is lost by dropping it.
    pub async fn next(&mut self) -> Option<JobEvent> {
        use broadcast::error::{RecvError, TryRecvError};
        loop {
            match self.events.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(_)) => continue,
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) if self.over => return None,
                Err(TryRecvError::Empty) => {}
            }
            let end = std::pin::pin!(self.live.settled());
            let next = std::pin::pin!(self.events.recv());
            match futures_util::future::select(next, end).await {
                futures_util::future::Either::Left((Ok(event), _)) => return Some(event),
                futures_util::future::Either::Left((Err(RecvError::Lagged(_)), _)) => {}
                futures_util::future::Either::Left((Err(RecvError::Closed), _)) => return None,
                // What was sent before the end is still to be given.
                futures_util::future::Either::Right(_) => self.over = true,
            }
        }
    }
}

/// The jobs of this process.
#[derive(Debug, Default)]
pub(crate) struct LiveJobs(Mutex<BTreeMap<JobId, Arc<LiveJob>>>);

impl LiveJobs {
    pub(crate) fn add(&self, live: &Arc<LiveJob>) {
        let _none = lock(&self.0).insert(live.snapshot().id, Arc::clone(live));
    }

    pub(crate) fn find(&self, id: JobId) -> Option<Arc<LiveJob>> {
        lock(&self.0).get(&id).cloned()
    }

    /// The job of a run.
    pub(crate) fn of_run(&self, run: RunId) -> Option<Arc<LiveJob>> {
        let of_run = |live: &&Arc<LiveJob>| lock(&live.runs).contains_key(&run);
        lock(&self.0).values().find(of_run).cloned()
    }

    /// The jobs that have not ended.
    pub(crate) fn open(&self) -> Vec<Job> {
        lock(&self.0).values().filter(|live| !live.is_ended()).map(|live| live.snapshot()).collect()
    }

    /// Ends a job, which has been stored, and forgets it here.
    pub(crate) fn close(&self, live: &LiveJob) {
        live.finish();
        let _gone = lock(&self.0).remove(&live.snapshot().id);
    }
}
