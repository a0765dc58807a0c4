//! Carrying on with what a process left open that is gone.
//!
//! ```text
//!   engine.recover ─▶ runs that go on here ─┐
//!   open jobs of the catalogue ─────────────┴─▶ each followed to its end, and concluded as if nothing had happened
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use stillpoint_catalog::{CatalogExt, JobQuery};
use stillpoint_context::{ErrorClass, Failure, JobId, RunId, Subject};
use stillpoint_model::job::{Job, JobMember, JobOwner, JobRun, RunEnd, RunState};
use stillpoint_model::request::{BackupRequest, Trigger};
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{EngineError, JournalError, RunHandle, RunPhase, RunReport};

use crate::Stillpoint;
use crate::brief::{BRIEF, Brief, Concern, JOB};
use crate::debris::Leaves;
use crate::error::Error;
use crate::follow::open_state;
use crate::hooks::jobs;
use crate::job::{JobHandle, LiveJob};
use crate::parked::job_of;
use crate::runs::owner_of;

/// The code of what is said of a job whose process ended before it was over.
const INTERRUPTED: &str = "job.interrupted";

/// The code of what is said of a run whose records cannot be read.
const UNREADABLE: &str = "run.unreadable";

impl Stillpoint {
    /// Carries on with what processes left open that are gone: every run goes on to its end or is parked, an open freeze is
    /// ended first of all, and the jobs that they belong to are concluded. What had not begun is not begun: such a job says
    /// so, and is to be asked for again. Only a job that a schedule asked for, and of which nothing had begun, is done now:
    /// nobody would ask for it again. Of several processes that recover one has each job.
    ///
    /// To be called when a Stillpoint over a durable store is built, and now and then afterwards where several processes
    /// share the store. Jobs of processes that are alive are left alone, and so are runs that cannot be read, of which whoever is
    /// told of jobs is told once.
    ///
    /// # Errors
    /// Of the journal and the catalogue. What was taken by then goes on.
    ///
    /// # Idempotence
    /// May be repeated, and called by several processes at once.
    pub async fn recover(&self) -> Result<Vec<JobHandle>, Error> {
        let _one = self.asking().lock().await;
        let recovery = self.engine().recover().await?;
        let mut by_job: BTreeMap<JobId, Vec<(RunHandle, Brief)>> = BTreeMap::new();
        for handle in recovery.runs {
            if let Some((job, brief)) = of_job(&handle).await? {
                by_job.entry(job).or_default().push((handle, brief));
            } else {
                // A run that the embedder submitted itself is its own affair.
                tracing::info!(run = %handle.id(), "a run of no job is carried on");
            }
        }
        let elsewhere = recovery.elsewhere.iter().map(|(run, _)| *run).collect();
        let unread: BTreeMap<RunId, JournalError> = recovery.unreadable.into_iter().collect();
        let mut query = JobQuery::all();
        query.ended = Some(false);
        let open = self.services().catalog.all_jobs(&query).await?;
        // After the jobs: who has begun one held its lease before.
        let others: BTreeSet<JobOwner> =
            self.engine().others().await?.into_iter().map(owner_of).collect();
        let theirs = self.jobs_elsewhere(&open, elsewhere).await;
        let (mut jobs, mut stuck) = (Vec::new(), Vec::new());
        for job in open {
            let mut runs = by_job.remove(&job.id).unwrap_or_default();
            if self.live().find(job.id).is_some() || theirs.contains(&job.id) {
                continue;
            }
            self.add_taken(&job, &mut runs).await?;
            let is_owned = job.owner.is_some_and(|owner| others.contains(&owner));
            if !is_owned && job.runs.iter().any(|run| unread.contains_key(&run.run)) {
                stuck.push(job);
                continue;
            }
            // Nobody can say whose an old one is, which names nobody, unless there is nobody else.
            let is_unknown = job.owner.is_none() && runs.is_empty() && !others.is_empty();
            let taken = if is_owned || is_unknown { Ok(None) } else { self.take(&job).await };
            let taken = taken.unwrap_or_else(|error| {
                tracing::warn!(job = %job.id, %error, "who has a job in hand could not be noted");
                None
            });
            // What goes on here is followed in any case.
            let goes_on =
                runs.iter().any(|(run, _)| !matches!(run.status().phase, RunPhase::Ended(_)));
            let Some(job) = taken.or_else(|| goes_on.then_some(job)) else { continue };
            let is_begun = runs.iter().any(|(run, _)| run.id() != jobs::before(job.id));
            jobs.push(match scheduled(&job).filter(|_| !is_begun) {
                Some(request) => self.take_up(job, runs, request),
                None => self.adopt(job, runs),
            });
        }
        // Whoever is told may take his time: what goes on is begun before.
        for job in stuck {
            self.show_unreadable(job, &unread).await;
        }
        Ok(jobs)
    }

    /// Adds the runs of a job that are carried here, and were taken by a recovery that failed afterwards.
    async fn add_taken(
        &self,
        job: &Job,
        runs: &mut Vec<(RunHandle, Brief)>,
    ) -> Result<(), EngineError> {
        for known in &job.runs {
            let is_new = runs.iter().all(|(run, _)| run.id() != known.run);
            let Some(handle) = self.engine().run(known.run).filter(|_| is_new) else { continue };
            if matches!(handle.status().phase, RunPhase::Ended(_)) {
                continue;
            }
            if let Some((_, brief)) = of_job(&handle).await? {
                runs.push((handle, brief));
            }
        }
        Ok(())
    }

    /// Takes a job in hand that nobody has, and gives it as it is then; nothing where another process that recovers was faster, as
    /// what is left of the job is that one's, and where it has ended since it was listed.
    async fn take(&self, job: &Job) -> Result<Option<Job>, Error> {
        let catalog = &self.services().catalog;
        let taken = match self.engine().lease().map(owner_of) {
            Some(me) => catalog.take_job(job.id, job.owner, me).await?,
            None => catalog.job(job.id).await?,
        };
        Ok(taken.filter(|job| !job.state().is_final()))
    }

    /// The jobs of runs that processes have which are alive: as the jobs say, or a run that its job does not list.
    async fn jobs_elsewhere(&self, open: &[Job], mut runs: BTreeSet<RunId>) -> BTreeSet<JobId> {
        let mut theirs = BTreeSet::new();
        for job in open {
            for run in &job.runs {
                if runs.remove(&run.run) {
                    let _known = theirs.insert(job.id);
                }
            }
        }
        for run in runs {
            // One that cannot be read here is for who can to know.
            if let Ok(Some(known)) = self.engine().account(run).await {
                theirs.extend(job_of(&known.state));
            }
        }
        theirs
    }

    /// Tells of the runs of a job that cannot be read, and has the job show that they wait for a person: that they were told of is
    /// known by that.
    async fn show_unreadable(&self, job: Job, unread: &BTreeMap<RunId, JournalError>) {
        let live = LiveJob::new(job);
        let mut is_news = false;
        for known in live.snapshot().runs {
            let Some(error) = unread.get(&known.run) else { continue };
            let why = unreadable(known.run, error);
            if known.state == RunState::Parked && known.failure.as_ref() == Some(&why) {
                continue;
            }
            is_news = true;
            self.tell_unreadable(&live, known.run, error, why.clone()).await;
            live.change_run(known.run, |run| {
                (run.state, run.failure) = (RunState::Parked, Some(why));
            });
        }
        if is_news && let Err(error) = self.store_job(&live).await {
            let job = live.snapshot().id;
            tracing::error!(%job, %error, "the job of a run that cannot be read could not be stored");
        }
    }

    /// Does what a job is for, of which nothing had begun but the hooks before it.
    fn take_up(
        &self,
        mut job: Job,
        runs: Vec<(RunHandle, Brief)>,
        request: BackupRequest,
    ) -> JobHandle {
        tracing::info!(job = %job.id, "a scheduled job that had not begun is taken up");
        take_in(&mut job, &runs);
        self.begin_work(job, move |this, live| {
            Box::pin(async move {
                let mut failed = this.conclude_the_rest(&live, &runs).await;
                for (run, brief) in &runs {
                    failed.extend(this.follow_on(&live, run, brief).await.err());
                }
                match failed.into_iter().next() {
                    Some(failure) => Err(failure.into()),
                    None => this.carry_out(&request, &live).await,
                }
            })
        })
    }

    /// Follows what is left of a job to its end.
    fn adopt(&self, mut job: Job, runs: Vec<(RunHandle, Brief)>) -> JobHandle {
        take_in(&mut job, &runs);
        let live = LiveJob::new(job);
        for (handle, _) in &runs {
            live.add_run(handle.clone());
        }
        self.live().add(&live);
        let (this, task) = (self.clone(), Arc::clone(&live));
        self.seams().spawner.spawn(
            "recovered job",
            Box::pin(async move {
                // A run that is parked may be followed for long: what is over already is told before.
                let mut failed = this.conclude_the_rest(&task, &runs).await;
                let followed = runs.iter().map(|(run, brief)| this.follow_on(&task, run, brief));
                failed.extend(join_all(followed).await.into_iter().filter_map(Result::err));
                task.change(|job| {
                    if let Some(failure) = failed.into_iter().next() {
                        let _kept = job.failure.get_or_insert(failure);
                    }
                    interrupt(job);
                });
                this.end_job(&task, None).await;
            }),
        );
        JobHandle::new(live)
    }

    async fn follow_on(
        &self,
        live: &Arc<LiveJob>,
        run: &RunHandle,
        brief: &Brief,
    ) -> Result<(), Failure> {
        let news = self.engine().notices();
        let report = self.follow(live, run, news).await.map_err(|error| Failure::of(&error))?;
        self.conclude(live, brief, &report).await
    }

    /// Runs that had ended before anybody could say so, and those that never began.
    async fn conclude_the_rest(
        &self,
        live: &Arc<LiveJob>,
        followed: &[(RunHandle, Brief)],
    ) -> Vec<Failure> {
        let mut failed = Vec::new();
        for run in live.snapshot().runs {
            let is_followed = followed.iter().any(|(handle, _)| handle.id() == run.run);
            if is_followed || matches!(run.state, RunState::Ended(_)) {
                continue;
            }
            match self.ended(run.run).await {
                Some((report, brief)) => {
                    failed.extend(self.conclude(live, &brief, &report).await.err());
                }
                // Hooks that never began are still to be run.
                None if jobs::is_of_hooks(&run, live.snapshot().id) => {
                    live.change(|job| job.runs.retain(|known| known.run != run.run));
                }
                None => live.change_run(run.run, |run| {
                    run.state = RunState::Ended(RunEnd::Failed);
                    let _kept = run.failure.get_or_insert_with(interrupted);
                }),
            }
        }
        failed
    }

    /// The report of a run that has ended, from the journal.
    async fn ended(&self, run: RunId) -> Option<(RunReport, Brief)> {
        let handle = self.engine().watch(run).await.ok()?;
        handle.state().await.ok()?.end()?;
        let report = handle.wait().await.ok()?;
        let label = report.submitted().labels.get(BRIEF);
        let brief = label.and_then(|brief| Brief::of_label(brief)).unwrap_or_else(|| {
            let run = JobRun::new(run, self.seams().clock.now());
            Brief::new(run, Leaves::default(), Concern::Restore)
        });
        Some((report, brief))
    }
}

/// The job of a run, and what is to be known of it there; none for a run that is of no job.
async fn of_job(run: &RunHandle) -> Result<Option<(JobId, Brief)>, EngineError> {
    let state = run.state().await?;
    let labels = &state.submitted().labels;
    let job = labels.get(JOB).and_then(|job| job.parse().ok());
    Ok(job.zip(labels.get(BRIEF).and_then(|brief| Brief::of_label(brief))))
}

/// Brings what is known of the runs of a job, which may be newer than what is stored of it, into the job. That one is parked shows
/// when it is followed, so that it is told of if nobody has.
fn take_in(job: &mut Job, runs: &[(RunHandle, Brief)]) {
    for (handle, brief) in runs {
        if !job.runs.iter().any(|run| run.run == handle.id()) {
            job.runs.push(brief.run.clone());
        }
        let Some(known) = job.runs.iter_mut().find(|run| run.run == handle.id()) else { continue };
        if known.failure.take_if(|why| why.code == UNREADABLE).is_some() {
            // It can be read again. What it is parked for, if it is, need not have been told.
            known.state = RunState::Running;
        }
        let state = open_state(handle.status().phase).filter(|state| *state != RunState::Parked);
        known.state = state.unwrap_or(known.state);
    }
}

/// The request of a job that a schedule asked for and of which nothing has begun but the hooks before it: nobody will ask for it
/// again.
fn scheduled(job: &Job) -> Option<BackupRequest> {
    let has_begun =
        !jobs::is_before_anything(job) || job.planned_at.is_some() || job.failure.is_some();
    if has_begun || !matches!(job.trigger, Trigger::Schedule { .. }) {
        return None;
    }
    let (group, policy) = (job.group?, job.policy.as_ref()?.id);
    let (key, trigger, coalesced) = (job.key.clone(), job.trigger.clone(), job.coalesced.clone());
    Some(BackupRequest::scheduled(key, group, policy, trigger, coalesced))
}

/// Says of a job that not everything it was to do may have begun.
fn interrupt(job: &mut Job) {
    // The hooks after a job come once everything else is over.
    if job.planned_at.is_some() || job.runs.iter().any(|run| run.run == jobs::after(job.id)) {
        return;
    }
    for held in std::mem::take(&mut job.held) {
        job.skipped.push(JobMember::skipped(held.database, held.name, interrupted()));
    }
    if jobs::is_before_anything(job) {
        let _kept = job.failure.get_or_insert_with(interrupted);
        return;
    }
    let failure = interrupted();
    job.warnings.push(Warning::new(failure.code, failure.message, failure.remedy));
}

/// Why a run is left as it is that cannot be read.
fn unreadable(run: RunId, error: &JournalError) -> Failure {
    let mut failure = Failure::of(error).with_subject(Subject::new("run", run));
    failure.message = format!("run {run} cannot be read: {error}");
    failure.code = UNREADABLE.into();
    failure
}

fn interrupted() -> Failure {
    Failure::new(
        INTERRUPTED,
        ErrorClass::Unavailable,
        "the process of the job ended before it was over; what had not begun was left out",
    )
    .with_remedy("Ask for it again if it is still wanted, under another key.")
}
