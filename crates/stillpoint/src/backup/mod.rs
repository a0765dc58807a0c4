//! Backup: from a request to restore points.
//!
//! ```text
//!   request ─ survey ─ plan ─┬─ set 1 ─ compile ─ run ─┐
//!                            ├─ set 2 ─ compile ─ run ─┼─ what follows ─ job state
//!                            └─ …                     ─┘
//!                  ▲                          │
//!                  └── plan.stale: a round ───┤
//!                      quiesce.*:  new run ───┘
//! ```

mod ahead;
pub(crate) mod compile;
pub(crate) mod judge;
pub(crate) mod logs;
pub(crate) mod points;
mod rounds;
pub(crate) mod session;
pub(crate) mod snapshots;

pub use self::ahead::DryRun;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_context::{Failure, JobId, RunId};
use stillpoint_model::group::Selector;
use stillpoint_model::id::{PointId, SetToken};
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun, MemberEnd};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{BackupPlan, Inputs, SetPlan, plan_backup};
use stillpoint_model::point::{PointFact, PointState, RestorePoint, Truncation};
use stillpoint_model::policy::{OnMiss, Verification};
use stillpoint_model::request::{BackupRequest, Target};
use stillpoint_model::schedule::AttachmentId;
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{Plan, RunReport};
use uuid::Uuid;

use self::compile::{Sources, compile};
use self::rounds::{Carried, NO_ROOM, Round, Rounds};
use crate::Stillpoint;
use crate::bounds::{unless_cancelled, within};
use crate::brief::{Brief, Concern};
use crate::error::Error;
use crate::job::{JobHandle, LiveJob};
use crate::runs::{Ask, Launch};
use crate::survey::Survey;

impl Stillpoint {
    /// What a backup would do: every copy taken or left with its reason, the sets, snapshots and claims, and whether it
    /// truncates. Changes nothing.
    ///
    /// # Errors
    /// What cannot be found, and what concerns the whole request: a policy or group that breaks a rule, an inventory or a
    /// catalogue that cannot be read. What concerns one database is in the plan.
    pub async fn plan(&self, request: &BackupRequest) -> Result<BackupPlan, Error> {
        let survey = Survey::take(self, &self.cx(), request, None).await?;
        self.first_plan(request, &survey)
    }

    /// The plan of a job that there is not.
    fn first_plan(&self, request: &BackupRequest, survey: &Survey) -> Result<BackupPlan, Error> {
        self.plan_round(request, survey, self.new_job_id(), &Round::first(&Rounds::default()))
    }

    /// The plans that the engine would be given, one for each set of [`plan`](Self::plan): every step with its retries, its
    /// time-out and its place, to be printed as DOT or Mermaid. Changes nothing.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn engine_plans(&self, request: &BackupRequest) -> Result<Vec<Plan>, Error> {
        let survey = Survey::take(self, &self.cx(), request, None).await?;
        let plan = self.first_plan(request, &survey)?;
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
        self.backup_due(request, None).await
    }

    /// The same for a due time, if that is open in its ledger and has no job: `schedule.due_settled` otherwise.
    pub(crate) async fn backup_due(
        &self,
        request: BackupRequest,
        due: Option<(AttachmentId, DateTime<Utc>)>,
    ) -> Result<JobHandle, Error> {
        let (policy, group) = crate::survey::subjects(self, &request, None).await?;
        let coalesced = request.coalesced.clone();
        let ask = Ask {
            kind: JobKind::Backup,
            key: request.key.clone(),
            trigger: request.trigger.clone(),
            body: crate::runs::body(&request)?,
            due,
        };
        self.start(
            ask,
            move |job: &mut Job| {
                job.group = group.as_ref().map(|group| group.id);
                job.title = group.map_or_else(|| "backup".to_owned(), |group| group.name);
                job.policy = Some(policy.reference());
                job.on_partial = policy.on_partial;
                job.coalesced = coalesced;
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
        let again: Option<Vec<Selector>> =
            round.again().map(|again| again.iter().copied().map(Selector::Database).collect());
        let members = match (&again, &request.target) {
            (Some(again), _) => again.as_slice(),
            (None, Target::Selected(selectors)) => selectors.as_slice(),
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
            coalesced: &request.coalesced,
            under_way: &survey.under_way,
            reserve: 0,
            state: &survey.state,
        };
        Ok(plan_backup(&inputs)?)
    }

    /// Carries a job out to its end: runs the hooks before it, plans, runs every set, plans again what went out of date, then does
    /// what follows on a backup.
    pub(crate) async fn carry_out(
        &self,
        request: &BackupRequest,
        live: &Arc<LiveJob>,
    ) -> Result<(), Error> {
        self.before_job(live).await?;
        let rounds = Rounds::default();
        let Carried { is_short, policy } =
            self.round(request, live, &rounds, Round::first(&rounds)).await?;
        if is_short {
            live.stop_short();
        }
        if policy.verification == Verification::AfterCompletion {
            self.verify_after(live).await;
        }
        if request.prune {
            self.prune_after(live, policy.id).await;
        }
        // Last, as Exchange may take its time.
        if request.confirm_truncation && !live.cancel_token().is_cancelled() {
            self.confirm_after(live).await;
        }
        Ok(())
    }

    /// What has to be known for a plan; a side that panics or hangs does not keep the job open.
    async fn survey(&self, request: &BackupRequest, live: &LiveJob) -> Result<Survey, Error> {
        let cx = self.cx_of(live);
        // As the job says, whatever was edited since it was asked for.
        let pinned = live.snapshot().policy.map(|policy| policy.version);
        let survey = Survey::take(self, &cx, request, pinned);
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetOutcome {
    Over,
    /// The job was cancelled before the set was tried again.
    Stopped,
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
