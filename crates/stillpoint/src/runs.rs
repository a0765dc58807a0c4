//! Jobs begun and ended, and what becomes of runs for them.

use std::future::Future;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint_catalog::Begun;
use stillpoint_context::{
    BoxFuture, Cx, ErrorClass, ErrorFacts, Failure, IdempotencyKey, JobId, ProcessId, RunId,
};
use stillpoint_model::id::PointId;
use stillpoint_model::job::{Job, JobKind, JobOwner, RunEnd, RunState};
use stillpoint_model::manifest::Manifest;
use stillpoint_model::request::Trigger;
use stillpoint_model::schedule::AttachmentId;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{End, Plan, RunReport, Submission};

use crate::Stillpoint;
use crate::bounds::{CANCELLED, caught, within};
use crate::brief::{BRIEF, Brief, Concern, JOB};
use crate::error::Error;
use crate::follow::let_go;
use crate::job::{JobHandle, LiveJob};
use crate::services::Services;

/// What makes a job.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) kind: JobKind,
    pub(crate) key: IdempotencyKey,
    pub(crate) trigger: Trigger,
    /// The request as text: another text under the same key is another request.
    pub(crate) body: String,
    /// The due time that it is of: it begins only if that is open and has no job.
    pub(crate) due: Option<(AttachmentId, DateTime<Utc>)>,
}

/// A run about to be given to the engine.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) brief: Brief,
    pub(crate) plan: Plan,
    /// The runs of the job that it takes the place of: they no longer count once it exists.
    pub(crate) supersedes: Vec<RunId>,
}

impl Launch {
    /// A run that takes nobody's place.
    pub(crate) fn new(brief: Brief, plan: Plan) -> Self {
        Self { brief, plan, supersedes: Vec::new() }
    }
}

/// Who holds a lease, as jobs name him.
pub(crate) fn owner_of((process, epoch): (ProcessId, u64)) -> JobOwner {
    JobOwner::new(process, epoch)
}

/// The body of a request.
pub(crate) fn body(request: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(request)
        .map_err(|error| Failure::new("request.encode", ErrorClass::Internal, error.to_string()))
}

impl Stillpoint {
    /// A context for calls outside any run.
    pub(crate) fn cx(&self) -> Cx {
        Cx::detached(self.seams())
    }

    /// The same, ended by a cancel of the job.
    pub(crate) fn cx_of(&self, live: &LiveJob) -> Cx {
        Cx::builder(self.seams()).cancel(live.cancel_token().child()).build()
    }

    pub(crate) fn new_job_id(&self) -> JobId {
        JobId(self.seams().ids.uuid())
    }

    /// Records a job and begins its work; if the key is known already, answers with its job.
    pub(crate) async fn start(
        &self,
        ask: Ask,
        describe: impl FnOnce(&mut Job),
        work: impl FnOnce(Self, Arc<LiveJob>) -> BoxFuture<'static, Result<(), Error>> + Send + 'static,
    ) -> Result<JobHandle, Error> {
        // One at a time, so that two requests with one key cannot both be the first.
        let _one = self.asking().lock().await;
        let now = self.seams().clock.now();
        let mut job = Job::new(self.new_job_id(), ask.kind, ask.key, ask.trigger, now);
        job.owner = self.engine().hold_lease().await?.map(owner_of);
        job.request_digest = Manifest::digest(&ask.body);
        describe(&mut job);
        let catalog = &self.services().catalog;
        let begun = match ask.due {
            Some((of, due)) => catalog.begin_due(&job, of, due).await?,
            None => catalog.begin_job(&job).await?,
        };
        if let Begun::Existing(known) = begun {
            // Under way here, or over, or begun by a process that is gone. One that is not found here may have ended since
            // it was read: it is stored before it is forgotten.
            let live = if let Some(live) = self.live().find(known.id) {
                live
            } else {
                let now = catalog.job(known.id).await?;
                LiveJob::ended(now.unwrap_or(*known))
            };
            return Ok(JobHandle::new(live));
        }
        Ok(self.begin_work(job, work))
    }

    /// Begins the work of a job that is stored.
    pub(crate) fn begin_work(
        &self,
        job: Job,
        work: impl FnOnce(Self, Arc<LiveJob>) -> BoxFuture<'static, Result<(), Error>> + Send + 'static,
    ) -> JobHandle {
        let live = LiveJob::new(job);
        self.live().add(&live);
        let (this, task) = (self.clone(), Arc::clone(&live));
        self.seams().spawner.spawn(
            "job",
            Box::pin(async move {
                let ended = caught(async { work(this.clone(), Arc::clone(&task)).await }).await;
                if let Err(error) = &ended
                    && !task.is_let_go()
                {
                    this.end_open_runs(&task, &Failure::of(error)).await;
                }
                this.end_job(&task, ended.err()).await;
            }),
        );
        JobHandle::new(live)
    }

    /// The end of a job: its hooks, its notifications, then it is stored, then known. One that this process has no say in any
    /// more ends here only: whoever carries on with it does all that.
    pub(crate) async fn end_job(&self, live: &Arc<LiveJob>, error: Option<Error>) {
        let cancelled_by = live.cancelled_by();
        live.change(|job| match error {
            Some(error) if error.code() == CANCELLED => job.stopped_by = cancelled_by,
            Some(error) => {
                let _kept = job.failure.get_or_insert(error.into_failure());
            }
            None => {}
        });
        let is_ours = !live.is_let_go();
        if is_ours {
            self.after_job(live).await;
            self.tell(live).await;
        }
        let now = self.seams().clock.now();
        live.change(|job| {
            job.planned_at = Some(now);
            if !is_ours {
                give_up_open_runs(job);
            }
            if job.state().is_final() {
                job.ended_at = Some(now);
            }
        });
        let job = live.snapshot().id;
        if !is_ours {
            tracing::warn!(%job, "the job is left to whoever carries on with it");
        } else if let Err(error) = self.store_job(live).await {
            tracing::error!(%job, %error, "the job could not be stored");
        }
        self.live().close(live);
    }

    /// Stores a job, unless another process has taken over: the job is that one's then, and what is said of it here is old.
    pub(crate) async fn store_job(&self, live: &LiveJob) -> Result<(), Error> {
        let Services { catalog, one_store, .. } = self.services();
        self.catalogue(async {
            // One after the other, each as the job is by then: what is newer is never overwritten by what is older.
            let _one = live.storing().lock().await;
            let job = live.snapshot();
            match self.engine().lease() {
                Some((process, epoch)) if *one_store => {
                    catalog.put_job_in_epoch(&job, process, epoch).await?;
                }
                _ => {
                    self.engine().check_lease().await?;
                    catalog.put_job(&job).await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Runs that were left open because the work around them failed: nobody follows them any more, so they are stopped.
    async fn end_open_runs(&self, live: &LiveJob, why: &Failure) {
        for run in live.snapshot().runs {
            if matches!(run.state, RunState::Ended(_)) {
                continue;
            }
            let report = match self.engine().run(run.run) {
                Some(handle) => {
                    // One that has ended already does not mind.
                    drop(handle.cancel("its job, which has failed").await);
                    handle.wait().await.ok()
                }
                None => None,
            };
            live.change_run(run.run, |run| {
                let end = report.as_ref().map_or(RunEnd::Failed, |report| run_end(report.end()));
                run.state = RunState::Ended(end);
                let _kept = run.failure.get_or_insert_with(|| why.clone());
            });
        }
    }

    /// A call of the catalogue on behalf of a job: it may fail, but not keep the job open.
    pub(crate) async fn catalogue<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        within(self.seams(), self.timeouts().publish, "the catalogue", call).await
    }

    /// Runs a plan for a job, and records in it what became of the run.
    ///
    /// # Errors
    /// When the engine did not take the plan.
    pub(crate) async fn run(
        &self,
        live: &Arc<LiveJob>,
        launch: Launch,
    ) -> Result<RunReport, Failure> {
        let Launch { brief, plan, supersedes } = launch;
        let label = brief.to_label()?;
        let run = brief.run.clone();
        let id = run.run;
        let job = live.snapshot().id;
        live.change(|job| {
            for old in job.runs.iter_mut().filter(|old| supersedes.contains(&old.run)) {
                old.superseded_by = Some(id);
            }
            job.runs.push(run);
        });
        let news = self.engine().notices();
        let submission = Submission::new(plan)
            .run(id)
            .head_start(brief.concern.head_start())
            .label(JOB, job.to_string())
            .label(BRIEF, label);
        // Whoever recovers the job finds the run in it. The run says so itself, so that a catalogue that fails costs nothing.
        if let Err(error) = self.store_job(live).await {
            tracing::warn!(run = %id, %error, "the job could not be stored before its run");
        }
        let report = match self.engine().submit(submission).await {
            Ok(handle) => self.follow(live, &handle, news).await,
            Err(error) => Err(let_go(live, error)),
        };
        let report = report.map_err(|error| {
            let failure = Failure::of(&error);
            live.change_run(id, |run| {
                run.state = RunState::Ended(RunEnd::Failed);
                run.failure = Some(failure.clone());
            });
            failure
        })?;
        self.conclude(live, &brief, &report).await?;
        Ok(report)
    }

    /// Records in a job what became of one of its runs: in the catalogue, in the debris, in what is said of its databases.
    ///
    /// # Errors
    /// When the points of the run could not be closed.
    pub(crate) async fn conclude(
        &self,
        live: &Arc<LiveJob>,
        brief: &Brief,
        report: &RunReport,
    ) -> Result<(), Failure> {
        let (id, leaves) = (report.run(), &brief.leaves);
        let fed = async { Ok(self.services().pump.run(&*self.services().catalog).await?) };
        if let Err(error) = self.catalogue(fed).await {
            tracing::error!(run = %id, %error, "the catalogue could not be fed");
            live.change(|job| {
                let _kept = job.failure.get_or_insert(Failure::of(&error));
            });
        }
        let now = self.seams().clock.now();
        let debris = leaves.debris(live.snapshot().id, report, now);
        for left in &debris {
            // The run has ended and holds nothing: what it left must be in plain sight by then.
            let noted = async { Ok(self.services().catalog.put_debris(left).await?) };
            if let Err(error) = self.catalogue(noted).await {
                tracing::error!(run = %id, debris = %left.key, %error, "the debris could not be stored");
            }
        }
        live.change_run(id, |run| {
            run.state = RunState::Ended(run_end(report.end()));
            run.failure = report.failure().cloned();
            run.warnings =
                report.warnings().iter().map(|warned| warning(&warned.failure)).collect();
            if report.end() == End::NeedsAttention {
                run.debris = debris.iter().map(|left| left.kind.to_string()).collect();
            }
            run.ended_at = Some(now);
            brief.concern.conclude(run, report);
        });
        let closed = async {
            match (&brief.concern, report.cause()) {
                (Concern::Backup, Some(_)) => self.withdraw(&leaves.points).await,
                (Concern::Backup, None) => self.conclude_points(&leaves.points, live).await,
                _ => Ok(()),
            }
        };
        let closed = self.catalogue(closed).await;
        let noted: &[PointId] = match &brief.concern {
            Concern::Backup => &leaves.points,
            Concern::Verification { point } => std::slice::from_ref(point),
            Concern::Truncation { points } => points,
            _ => &[],
        };
        self.note_standings(noted).await;
        closed.map_err(|error| Failure::of(&error))
    }
}

/// Shows of the open runs of a job that is left to others that they are over as far as this process goes.
fn give_up_open_runs(job: &mut Job) {
    let why = job.failure.clone();
    for run in job.runs.iter_mut().filter(|run| !matches!(run.state, RunState::Ended(_))) {
        run.state = RunState::Ended(RunEnd::Failed);
        run.failure.clone_from(&why);
    }
}

const fn run_end(end: End) -> RunEnd {
    match end {
        End::Succeeded => RunEnd::Succeeded,
        End::SucceededWithWarnings => RunEnd::SucceededWithWarnings,
        End::Failed => RunEnd::Failed,
        End::Cancelled => RunEnd::Cancelled,
        End::NeedsAttention => RunEnd::NeedsAttention,
    }
}

fn warning(failure: &Failure) -> Warning {
    let mut warning =
        Warning::new(failure.code.clone(), failure.message.clone(), failure.remedy.clone());
    warning.subjects.clone_from(&failure.subjects);
    warning
}

/// What a step of a run gave, by its name.
pub(crate) fn output<T: serde::de::DeserializeOwned>(report: &RunReport, step: &str) -> Option<T> {
    report.step_named(step)?.output?.read().ok()
}
