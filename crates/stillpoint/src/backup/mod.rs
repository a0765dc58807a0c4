//! Backup: from a request to restore points.
//!
//! ```text
//!   request ─ survey ─ plan ─┬─ set 1 ─ compile ─ run ─┐
//!                            ├─ set 2 ─ compile ─ run ─┼─ job state
//!                            └─ …                     ─┘
//!                  ▲                          │
//!                  └── plan.stale: again ─────┤
//!                      quiesce.*:  new run ───┘
//! ```

pub(crate) mod compile;
pub(crate) mod judge;
pub(crate) mod logs;
pub(crate) mod points;
pub(crate) mod session;
pub(crate) mod snapshots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use stillpoint_catalog::{CatalogExt, JobQuery, Page};
use stillpoint_context::{Effect, ErrorClass, Failure, HostPath, JobId, RunId};
use stillpoint_model::group::Selector;
use stillpoint_model::id::{CopyId, DatabaseId, PointId, SetToken, VolumeRef};
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun, MemberEnd};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{BackupPlan, Decision, Inputs, LeftWhy, SetPlan, plan_backup};
use stillpoint_model::point::{PointFact, PointState, RestorePoint, Truncation};
use stillpoint_model::policy::{OnMiss, Verification};
use stillpoint_model::request::{BackupRequest, Target};
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{Plan, RunReport};
use uuid::Uuid;

use self::compile::{Sources, compile};
use crate::Stillpoint;
use crate::bounds::{unless_cancelled, within};
use crate::brief::{Brief, Concern};
use crate::error::Error;
use crate::job::{JobHandle, LiveJob};
use crate::prune::{Part, PruneScope, PruneTarget};
use crate::runs::{Ask, Launch};
use crate::survey::Survey;

/// A volume can have no more snapshots.
const NO_ROOM: &str = "storage.snapshot_limit";

/// A database cannot be backed up as it is, such as one that is dismounted.
const NOT_AVAILABLE: &str = "resource.not_available";

/// How often it is looked whether a restore is over.
const WHILE_RESTORED: Duration = Duration::from_secs(5);

/// How many restores that are over are looked through for one that has just ended.
const NEWEST_RESTORES: u32 = 64;

/// How often a job plans again because its plan went out of date.
const ROUNDS: u32 = 3;

impl Stillpoint {
    /// What a backup would do: every copy taken or left with its reason, the sets, snapshots and claims, and whether it
    /// truncates. Changes nothing.
    ///
    /// # Errors
    /// What cannot be found, and what concerns the whole request: a policy or group that breaks a rule, an inventory or a
    /// catalogue that cannot be read. What concerns one database is in the plan.
    pub async fn plan(&self, request: &BackupRequest) -> Result<BackupPlan, Error> {
        let survey = Survey::take(self, &self.cx(), request).await?;
        self.plan_round(request, &survey, self.new_job_id(), &Round::first())
    }

    /// The plans that the engine would be given, one for each set of [`plan`](Self::plan): every step with its retries, its
    /// time-out and its place, to be printed as DOT or Mermaid. Changes nothing.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn engine_plans(&self, request: &BackupRequest) -> Result<Vec<Plan>, Error> {
        let survey = Survey::take(self, &self.cx(), request).await?;
        let plan = self.plan_round(request, &survey, self.new_job_id(), &Round::first())?;
        let compiled = plan.sets.iter().map(|set| compile(&self.sources(&survey, &plan, set)));
        Ok(compiled.collect::<Result<_, Failure>>()?)
    }

    fn sources<'a>(
        &'a self,
        survey: &'a Survey,
        plan: &'a BackupPlan,
        set: &'a SetPlan,
    ) -> Sources<'a> {
        Sources {
            plan,
            set,
            policy: &survey.policy,
            inventory: &survey.inventory,
            placements: &survey.places,
            timeouts: self.timeouts(),
        }
    }

    /// Backs up. The answer comes as soon as the job is recorded; [`JobHandle::wait`] follows it to its end.
    ///
    /// # Errors
    /// `run.key_reused` when the key was used for another request; otherwise as [`plan`](Self::plan).
    ///
    /// # Idempotence
    /// The same request with the same key is the same job.
    pub async fn backup(&self, request: BackupRequest) -> Result<JobHandle, Error> {
        let (policy, group) = crate::survey::subjects(self, &request).await?;
        let ask = Ask {
            kind: JobKind::Backup,
            key: request.key.clone(),
            trigger: request.trigger.clone(),
            body: crate::runs::body(&request)?,
        };
        self.start(
            ask,
            move |job: &mut Job| {
                job.group = group.as_ref().map(|group| group.id);
                job.title = group.map_or_else(|| "backup".to_owned(), |group| group.name);
                job.policy = Some(policy.reference());
                job.on_partial = policy.on_partial;
            },
            move |this, live| Box::pin(async move { this.carry_out(&request, &live).await }),
        )
        .await
    }

    fn plan_round(
        &self,
        request: &BackupRequest,
        survey: &Survey,
        job: JobId,
        round: &Round,
    ) -> Result<BackupPlan, Error> {
        let group = survey.group.as_ref();
        let again: Vec<Selector> = round.databases().map(Selector::Database).collect();
        let members = match &request.target {
            _ if round.number > 0 => again.as_slice(),
            Target::Selected(selectors) => selectors.as_slice(),
            _ => group.map_or(&[][..], |group| group.members.as_slice()),
        };
        let inputs = Inputs {
            now: self.seams().clock.now(),
            job,
            round: round.number,
            members,
            group,
            policy: &survey.policy,
            kind: request.kind,
            selection: request.selection.as_ref(),
            inventory: &survey.inventory,
            max_inventory_age: None,
            placement: &survey.placement,
            plugin: &survey.plugin,
            providers: &survey.providers,
            volumes: &survey.volumes,
            fulls: &survey.fulls,
            reserve: 0,
            state: &survey.state,
        };
        Ok(plan_backup(&inputs)?)
    }

    /// Carries a job out to its end: runs the hooks before it, plans, runs every set, plans again what went out of date.
    pub(crate) async fn carry_out(
        &self,
        request: &BackupRequest,
        live: &Arc<LiveJob>,
    ) -> Result<(), Error> {
        self.before_job(live).await?;
        let job = live.snapshot().id;
        let mut round = Round::first();
        loop {
            let looked_at = self.seams().clock.now();
            let (survey, plan) = self.planned(request, live, job, &mut round).await?;
            let held = self.held_by_restores(&plan, looked_at).await?;
            round.waited = std::mem::replace(&mut round.held, held);
            let sets: Vec<SetPlan> =
                plan.sets.iter().filter_map(|set| set.without(&round.done)).collect();
            note_plan(live, &plan, &sets, &round);
            let outcomes = join_all(sets.iter().map(|set| {
                self.carry_out_set(&survey, &plan, set, live, round.superseded_by(set))
            }))
            .await;
            round.conclude(&sets, &outcomes);
            self.wait_for_restores(live, &mut round).await?;
            if round.is_last() || live.cancel_token().is_cancelled() {
                let left_out = !round.is_last() || outcomes.contains(&SetOutcome::Stopped);
                if left_out {
                    live.stop_short();
                }
                if survey.policy.verification == Verification::AfterCompletion {
                    self.verify_after(live).await;
                }
                if request.confirm_truncation && !live.cancel_token().is_cancelled() {
                    self.confirm_after(live).await;
                }
                if request.prune {
                    self.prune_after(live, survey.policy.id).await;
                }
                return Ok(());
            }
        }
    }

    /// Looks and plans. Where a volume has no room for another snapshot, what may go of it goes first, once.
    async fn planned(
        &self,
        request: &BackupRequest,
        live: &Arc<LiveJob>,
        job: JobId,
        round: &mut Round,
    ) -> Result<(Survey, BackupPlan), Error> {
        let survey = self.survey(request, live).await?;
        let plan = self.plan_round(request, &survey, job, round)?;
        let full = full(&plan);
        if full.is_empty() || std::mem::replace(&mut round.has_made_room, true) {
            return Ok((survey, plan));
        }
        self.make_room(live, &survey, &full).await;
        let survey = self.survey(request, live).await?;
        let plan = self.plan_round(request, &survey, job, round)?;
        Ok((survey, plan))
    }

    /// Deletes what retention lets go of the databases that lie on some volumes (rule V49 of the model). That nothing could be
    /// deleted shows in the plan that is made afterwards.
    async fn make_room(&self, live: &Arc<LiveJob>, survey: &Survey, full: &BTreeSet<VolumeRef>) {
        let lies_there = |files: &Vec<(HostPath, VolumeRef)>| {
            files.iter().any(|(_, volume)| full.contains(volume))
        };
        let there = survey.places.iter().filter(|(_, files)| lies_there(files));
        let scope = PruneScope::Databases(there.map(|(copy, _)| copy.database).collect());
        if let Err(error) = self.prune_for(live, &PruneTarget::of(scope), Part::Before).await {
            tracing::warn!(%error, "no room could be made for snapshots");
        }
    }

    /// The databases that are refused while a restore of ours has them, or had them when they were looked at (rule V17 of the
    /// model): a backup of them waits.
    async fn held_by_restores(
        &self,
        plan: &BackupPlan,
        since: DateTime<Utc>,
    ) -> Result<BTreeSet<DatabaseId>, Error> {
        let away = plan.refused().filter(|(_, failure)| failure.code == NOT_AVAILABLE);
        let refused: BTreeSet<DatabaseId> =
            away.filter_map(|(database, _)| database.database).collect();
        if refused.is_empty() {
            return Ok(refused);
        }
        let restored = self.restored(Some(since)).await?;
        Ok(refused.intersection(&restored).copied().collect())
    }

    /// The databases that are being restored, or whose restore was not over at an instant.
    async fn restored(&self, since: Option<DateTime<Utc>>) -> Result<BTreeSet<DatabaseId>, Error> {
        let catalog = &self.services().catalog;
        let mut restores = JobQuery::open();
        restores.kind = Some(JobKind::Restore);
        let mut jobs = catalog.all_jobs(&restores).await?;
        if let Some(since) = since {
            restores.ended = Some(true);
            let newest = catalog.jobs(&restores, &Page::first(NEWEST_RESTORES)).await?.items;
            jobs.extend(newest.into_iter().filter(|job| job.ended_at >= Some(since)));
        }
        Ok(jobs.iter().flat_map(Job::members).map(|member| member.database).collect())
    }

    /// Waits until no restore has what this job still has to back up. A parked one is waited for as well: it keeps the database.
    async fn wait_for_restores(&self, live: &Arc<LiveJob>, round: &mut Round) -> Result<(), Error> {
        let cx = self.cx_of(live);
        while !round.held.is_disjoint(&self.restored(None).await?) {
            if cx.sleep(WHILE_RESTORED).await.is_err() || live.cancel_token().is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// What has to be known for a plan; a side that panics or hangs does not keep the job open.
    async fn survey(&self, request: &BackupRequest, live: &LiveJob) -> Result<Survey, Error> {
        let cx = self.cx_of(live);
        let survey = Survey::take(self, &cx, request);
        let limit = self.timeouts().inventory;
        let survey = within(self.seams(), limit, "looking at what there is", survey);
        unless_cancelled(live.cancel_token(), survey).await
    }

    /// Runs one set, again if a missed freeze is to be retried.
    async fn carry_out_set(
        &self,
        survey: &Survey,
        plan: &BackupPlan,
        set: &SetPlan,
        live: &Arc<LiveJob>,
        mut supersedes: Vec<RunId>,
    ) -> SetOutcome {
        let (retries, pause) = match survey.policy.quiesce.on_miss {
            OnMiss::Retry { times, pause } => (times.get(), pause),
            OnMiss::Fail => (0, Duration::ZERO),
        };
        let _at_work = live.set_at_work();
        let mut set = set.clone();
        let mut attempt = 0;
        loop {
            let report = match self.run_set(survey, plan, &set, live, supersedes).await {
                Ok(report) => report,
                Err(failure) => {
                    live.change(|job| {
                        let _kept = job.failure.get_or_insert(failure);
                    });
                    return SetOutcome::Over;
                }
            };
            let Some(failure) = report.failure() else { return SetOutcome::Over };
            // Logs go when Exchange truncates them: those that are left are another plan. So is one for which room is made.
            let went = set.kind == BackupKind::Log && failure.code == "storage.vanished";
            let is_full = failure.code == NO_ROOM;
            if failure.code == "plan.stale" || went || is_full {
                return SetOutcome::Stale(set.run);
            }
            let missed = failure.retryable && failure.code.as_str().starts_with("quiesce.");
            if !missed || attempt == retries {
                return SetOutcome::Over;
            }
            if self.cx_of(live).sleep(pause).await.is_err() || live.cancel_token().is_cancelled() {
                return SetOutcome::Stopped;
            }
            attempt += 1;
            supersedes = vec![set.run];
            set = next_attempt(&set, attempt);
        }
    }

    async fn run_set(
        &self,
        survey: &Survey,
        plan: &BackupPlan,
        set: &SetPlan,
        live: &Arc<LiveJob>,
        supersedes: Vec<RunId>,
    ) -> Result<RunReport, Failure> {
        let compiled = compile(&self.sources(survey, plan, set))?;
        let mut run = JobRun::new(set.run, self.seams().clock.now());
        run.members = set
            .members
            .iter()
            .map(|member| {
                let mut named = JobMember::new(member.copy.database, member.name.clone());
                named.copy = Some(member.copy.clone());
                named
            })
            .collect();
        let brief = Brief::new(run, compile::leaves(set), Concern::Backup);
        self.run(live, Launch { brief, plan: compiled, supersedes }).await
    }

    /// Withdraws restore points that a run has published and could not take back itself. Its snapshots are discarded or
    /// listed as debris: no point may lie on them.
    pub(crate) async fn withdraw(&self, points: &[PointId]) -> Result<(), Error> {
        let catalog = &self.services().catalog;
        for point in self.provisional(points).await? {
            let removed = PointFact::Removed { point: point.id, at: self.seams().clock.now() };
            catalog.apply(&[removed], None).await?;
        }
        Ok(())
    }

    /// A run that ended past its point of no return without an answer to its completion (it was abandoned, or resolved by
    /// hand) leaves good points whose session is over. Whether Exchange truncates nobody can say.
    pub(crate) async fn conclude_points(
        &self,
        points: &[PointId],
        live: &LiveJob,
    ) -> Result<(), Error> {
        let catalog = &self.services().catalog;
        for point in self.provisional(points).await? {
            let at = self.seams().clock.now();
            let truncation = Truncation::Unknown;
            let over = PointFact::Completed { point: point.id, at, truncation };
            catalog.apply(&[over], None).await?;
            let warning = Warning::new(
                "complete.unconfirmed",
                format!("nobody knows whether Exchange completed the backup of {}", point.copy),
                "The restore point can be used. Look at the backup state of the database in Exchange.",
            );
            live.change(|job| job.warnings.push(warning.about("restore point", point.id)));
        }
        Ok(())
    }

    /// Those of a set's points whose backup is not over.
    async fn provisional(&self, points: &[PointId]) -> Result<Vec<RestorePoint>, Error> {
        let mut found = Vec::new();
        for point in points {
            found.extend(self.services().catalog.point(*point).await?);
        }
        found.retain(|point| point.state == PointState::Provisional);
        Ok(found)
    }

    /// The follow-up of a policy that verifies at leisure.
    async fn verify_after(&self, live: &Arc<LiveJob>) {
        let points: Vec<_> = live
            .snapshot()
            .runs
            .iter()
            .flat_map(|run| &run.members)
            .filter_map(|member| match member.end {
                Some(MemberEnd::Point { point, .. }) => Some(point),
                _ => None,
            })
            .collect();
        for point in points {
            if live.cancel_token().is_cancelled() {
                let warning = Warning::new(
                    "verify.not_done",
                    format!("{point} was not verified: the job was cancelled"),
                    "Verify it at leisure.",
                );
                live.change(|job| job.warnings.push(warning.about("restore point", point)));
                continue;
            }
            if let Err(error) = self.verify_point(live, point, true).await {
                tracing::warn!(%point, %error, "the verification after the backup could not be done");
            }
        }
    }
}

/// Notes in the job what a plan leaves out.
fn note_plan(live: &LiveJob, plan: &BackupPlan, sets: &[SetPlan], round: &Round) {
    live.change(|job| {
        if round.number == 0 {
            job.skipped = skipped(plan, &round.held);
            job.warnings.clone_from(&plan.warnings);
            if plan.is_empty() && round.held.is_empty() {
                job.failure = Some(nothing(plan));
            }
            return;
        }
        // What is planned otherwise than before is told.
        for warning in &plan.warnings {
            if !job.warnings.contains(warning) {
                job.warnings.push(warning.clone());
            }
        }
        // What waited for a restore and cannot be backed up all the same is left out.
        let refused = skipped(plan, &round.held).into_iter();
        job.skipped.extend(refused.filter(|member| round.waited.contains(&member.database)));
        if job.runs.is_empty() && plan.is_empty() && round.held.is_empty() {
            job.failure = Some(nothing(plan));
        }
        // A run that another one takes the place of no longer counts. What the other one leaves out of it does.
        for stale in &round.stale {
            let taken = |database: &DatabaseId| sets.iter().any(|set| has(set, *database));
            if !stale.databases.iter().any(taken) {
                continue;
            }
            for (database, failure) in plan.refused() {
                let Some(id) = database.database else { continue };
                if stale.databases.contains(&id) && !taken(&id) {
                    let member = JobMember::skipped(id, database.name.clone(), failure.clone());
                    job.skipped.push(member);
                }
            }
        }
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetOutcome {
    Over,
    /// The job was cancelled before the set was tried again.
    Stopped,
    /// The plan of this run went out of date.
    Stale(RunId),
}

/// A run whose plan went out of date, and the databases of it.
#[derive(Debug)]
struct Stale {
    run: RunId,
    databases: BTreeSet<DatabaseId>,
}

/// One planning of a job: the first, or that of what went out of date since the one before.
#[derive(Debug)]
struct Round {
    number: u32,
    /// What is planned again, wherever its copies are now.
    stale: Vec<Stale>,
    /// What must not be backed up again.
    done: BTreeSet<CopyId>,
    /// What may go was deleted for it.
    has_made_room: bool,
    /// What a restore has: it is planned when that is over.
    held: BTreeSet<DatabaseId>,
    /// What a restore had when it was planned before.
    waited: BTreeSet<DatabaseId>,
    /// How often something went out of date.
    again: u32,
}

impl Round {
    fn first() -> Self {
        Self {
            number: 0,
            stale: Vec::new(),
            done: BTreeSet::new(),
            has_made_room: false,
            held: BTreeSet::new(),
            waited: BTreeSet::new(),
            again: 0,
        }
    }

    fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        let stale = self.stale.iter().flat_map(|stale| stale.databases.iter().copied());
        stale.chain(self.held.iter().copied()).collect::<BTreeSet<_>>().into_iter()
    }

    /// The runs that a set takes the place of.
    fn superseded_by(&self, set: &SetPlan) -> Vec<RunId> {
        let of_set = |stale: &&Stale| stale.databases.iter().any(|database| has(set, *database));
        self.stale.iter().filter(of_set).map(|stale| stale.run).collect()
    }

    /// Goes on to the next one.
    fn conclude(&mut self, sets: &[SetPlan], outcomes: &[SetOutcome]) {
        self.number += 1;
        self.stale.clear();
        for (set, outcome) in sets.iter().zip(outcomes) {
            let copies = set.members.iter().map(|member| &member.copy);
            match outcome {
                SetOutcome::Stale(run) => {
                    let databases = copies.map(|copy| copy.database).collect();
                    self.stale.push(Stale { run: *run, databases });
                }
                SetOutcome::Over | SetOutcome::Stopped => self.done.extend(copies.cloned()),
            }
        }
        self.again += u32::from(!self.stale.is_empty());
    }

    /// Whether none follows.
    fn is_last(&self) -> bool {
        self.held.is_empty() && (self.stale.is_empty() || self.again == ROUNDS)
    }
}

fn has(set: &SetPlan, database: DatabaseId) -> bool {
    set.members.iter().any(|member| member.copy.database == database)
}

/// The same set as another run, with restore points and a token of its own.
fn next_attempt(set: &SetPlan, attempt: u32) -> SetPlan {
    let derive = |id: Uuid| Uuid::new_v5(&id, format!("attempt/{attempt}").as_bytes());
    let mut next = set.clone();
    next.run = RunId(derive(set.run.0));
    for member in &mut next.members {
        member.point = PointId(derive(member.point.0));
    }
    if let Some(first) = next.members.first() {
        next.token = SetToken::of(&next.run, first.point);
    }
    for snapshot in &mut next.snapshots {
        // The name tells runs apart by the run's id; a later run of the set bears its own.
        snapshot.name = snapshot.name.replace(&set.run.short(), &next.run.short());
    }
    next
}

/// The volumes for whose sake something is not backed up, as they can have no more snapshots.
fn full(plan: &BackupPlan) -> BTreeSet<VolumeRef> {
    let of_copies = plan.copies().filter_map(|choice| match &choice.decision {
        Decision::Left(LeftWhy::Refused { failure }) => Some(&**failure),
        _ => None,
    });
    let no_room = of_copies.filter(|failure| failure.code == NO_ROOM);
    let subjects = no_room.flat_map(|failure| &failure.subjects);
    subjects.filter_map(|subject| subject.id.parse().ok()).collect()
}

fn skipped(plan: &BackupPlan, held: &BTreeSet<DatabaseId>) -> Vec<JobMember> {
    plan.refused()
        .filter(|(database, _)| !database.database.is_some_and(|id| held.contains(&id)))
        .map(|(database, failure)| {
            let id = database.database.unwrap_or(DatabaseId(Uuid::nil()));
            JobMember::skipped(id, database.name.clone(), failure.clone())
        })
        .collect()
}

fn nothing(plan: &BackupPlan) -> Failure {
    let failure = Failure::new(
        "backup.nothing_to_do",
        ErrorClass::Conflict,
        "no database of the request can be backed up",
    )
    .with_effect(Effect::None)
    .with_remedy("Look at the reason of each database.");
    plan.refused().fold(failure, |failure, (_, why)| failure.with_cause(&why.message))
}
