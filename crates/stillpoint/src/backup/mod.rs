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
pub(crate) mod points;
pub(crate) mod session;
pub(crate) mod snapshots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use stillpoint_context::{Effect, ErrorClass, Failure, JobId, RunId};
use stillpoint_model::id::{CopyId, DatabaseId, PointId, SetToken};
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun, MemberEnd};
use stillpoint_model::planning::{BackupPlan, Inputs, SetPlan, plan_backup};
use stillpoint_model::point::{PointFact, PointState};
use stillpoint_model::policy::{OnMiss, Verification};
use stillpoint_model::request::{BackupRequest, Target};
use stillpoint_workflow::{Cause, Plan, RunReport};
use uuid::Uuid;

use self::compile::{Sources, compile};
use self::judge::Judgement;
use crate::Stillpoint;
use crate::error::Error;
use crate::job::{JobHandle, LiveJob};
use crate::runs::{Ask, output};
use crate::survey::Survey;

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
        let survey = Survey::take(self, request).await?;
        self.plan_round(request, &survey, self.new_job_id(), 0)
    }

    /// The plans that the engine would be given, one for each set of [`plan`](Self::plan): every step with its retries, its
    /// time-out and its place, to be printed as DOT or Mermaid. Changes nothing.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn engine_plans(&self, request: &BackupRequest) -> Result<Vec<Plan>, Error> {
        let survey = Survey::take(self, request).await?;
        let plan = self.plan_round(request, &survey, self.new_job_id(), 0)?;
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
        round: u32,
    ) -> Result<BackupPlan, Error> {
        let group = survey.group.as_ref();
        let members = match &request.target {
            Target::Selected(selectors) => selectors.as_slice(),
            _ => group.map_or(&[][..], |group| group.members.as_slice()),
        };
        let inputs = Inputs {
            now: self.seams().clock.now(),
            job,
            round,
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
        };
        Ok(plan_backup(&inputs)?)
    }

    /// Carries a job out to its end: plans, runs every set, plans again what went out of date.
    async fn carry_out(&self, request: &BackupRequest, live: &Arc<LiveJob>) -> Result<(), Error> {
        let job = live.snapshot().id;
        // What is planned again: the databases of each run whose plan went out of date, wherever their copies are now.
        let mut stale: Vec<(RunId, BTreeSet<DatabaseId>)> = Vec::new();
        let mut done: BTreeSet<CopyId> = BTreeSet::new();
        for round in 0..ROUNDS {
            let survey = Survey::take(self, request).await?;
            let plan = self.plan_round(request, &survey, job, round)?;
            let sets: Vec<&SetPlan> = plan
                .sets
                .iter()
                .filter(|set| {
                    round == 0
                        || set.members.iter().any(|member| {
                            !done.contains(&member.copy)
                                && stale.iter().any(|(_, old)| old.contains(&member.copy.database))
                        })
                })
                .collect();
            for (run, databases) in &stale {
                // Only a run that another one takes the place of no longer counts; without one the job has failed there.
                let again = |set: &&&SetPlan| {
                    set.members.iter().any(|member| databases.contains(&member.copy.database))
                };
                if let Some(set) = sets.iter().find(again) {
                    live.change_run(*run, |run| run.superseded_by = Some(set.run));
                }
            }
            live.change(|job| {
                if round == 0 {
                    job.skipped = skipped(&plan);
                    job.warnings.clone_from(&plan.warnings);
                    if plan.is_empty() {
                        job.failure = Some(nothing(&plan));
                    }
                }
                job.planned_at = Some(plan.made_at);
            });
            let outcomes =
                join_all(sets.iter().map(|set| self.carry_out_set(&survey, &plan, set, live)))
                    .await;
            stale.clear();
            for (outcome, set) in outcomes.iter().zip(&sets) {
                let copies = set.members.iter().map(|member| &member.copy);
                match outcome {
                    SetOutcome::Stale(run) => {
                        stale.push((*run, copies.map(|copy| copy.database).collect()));
                    }
                    SetOutcome::Over => done.extend(copies.cloned()),
                }
            }
            if stale.is_empty() || live.cancel_token().is_cancelled() || round + 1 == ROUNDS {
                if survey.policy.verification == Verification::AfterCompletion {
                    self.verify_after(live).await;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Runs one set, again if a missed freeze is to be retried.
    async fn carry_out_set(
        &self,
        survey: &Survey,
        plan: &BackupPlan,
        set: &SetPlan,
        live: &Arc<LiveJob>,
    ) -> SetOutcome {
        let (retries, pause) = match survey.policy.quiesce.on_miss {
            OnMiss::Retry { times, pause } => (times.get(), pause),
            OnMiss::Fail => (0, Duration::ZERO),
        };
        let mut set = set.clone();
        for attempt in 0..=retries {
            let report = match self.run_set(survey, plan, &set, live).await {
                Ok(report) => report,
                Err(failure) => {
                    live.change(|job| {
                        let _kept = job.failure.get_or_insert(failure);
                    });
                    return SetOutcome::Over;
                }
            };
            let code = report.failure().map(|failure| failure.code.clone());
            let missed = report.failure().is_some_and(|failure| {
                failure.retryable && failure.code.as_str().starts_with("quiesce.")
            });
            let again = missed && attempt < retries && !live.cancel_token().is_cancelled();
            if code.is_some_and(|code| code == "plan.stale") {
                return SetOutcome::Stale(set.run);
            }
            if !again {
                return SetOutcome::Over;
            }
            let before = set.run;
            set = next_attempt(&set, attempt + 1);
            live.change_run(before, |run| run.superseded_by = Some(set.run));
            if self.cx_of(live).sleep(pause).await.is_err() {
                return SetOutcome::Over;
            }
        }
        SetOutcome::Over
    }

    async fn run_set(
        &self,
        survey: &Survey,
        plan: &BackupPlan,
        set: &SetPlan,
        live: &Arc<LiveJob>,
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
        let leaves = compile::leaves(set);
        let report = self
            .run(live, run, compiled, leaves, |run, report| {
                for member in &mut run.members {
                    member.end = Some(member_end(member, set, report));
                }
            })
            .await?;
        if report.cause().is_some() {
            self.withdraw(set).await?;
        }
        Ok(report)
    }

    /// Withdraws restore points that a run has published and could not take back itself. Its snapshots are discarded or
    /// listed as debris: no point may lie on them.
    async fn withdraw(&self, set: &SetPlan) -> Result<(), Failure> {
        let catalog = &self.services().catalog;
        for member in &set.members {
            let known = catalog.point(member.point).await.map_err(|error| Failure::of(&error))?;
            if known.is_some_and(|point| point.state == PointState::Provisional) {
                let at = self.seams().clock.now();
                let removed = PointFact::Removed { point: member.point, at };
                catalog.apply(&[removed], None).await.map_err(|error| Failure::of(&error))?;
            }
        }
        Ok(())
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
            if let Err(error) = self.verify_point(live, point, true).await {
                tracing::warn!(%point, %error, "the verification after the backup could not be done");
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetOutcome {
    Over,
    /// The plan of this run went out of date.
    Stale(RunId),
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

/// What became of one database of a set.
fn member_end(member: &JobMember, set: &SetPlan, report: &RunReport) -> MemberEnd {
    let planned = set.members.iter().find(|known| Some(&known.copy) == member.copy.as_ref());
    let judgement: Option<Judgement> = output(report, "judge");
    let judged = member.copy.as_ref().and_then(|copy| judgement.as_ref()?.copies.get(copy));
    match (report.cause(), judged, planned) {
        (None, Some(judged), Some(planned)) => match &judged.refused {
            Some(failure) => MemberEnd::Failed { failure: failure.clone() },
            None => MemberEnd::Point { point: planned.point, suspect: judged.verified.is_bad() },
        },
        (Some(Cause::Failed { failure, .. }), _, _) => {
            MemberEnd::Failed { failure: (**failure).clone() }
        }
        _ => MemberEnd::Failed {
            failure: Failure::new(
                "run.cancelled",
                ErrorClass::Unavailable,
                "the run was cancelled",
            )
            .with_remedy("Run it again if it is still wanted."),
        },
    }
}

fn skipped(plan: &BackupPlan) -> Vec<JobMember> {
    plan.refused()
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
