//! Restore: from a restore point to files that were checked byte for byte.
//!
//! ```text
//!   before_restore ─ open ─ load ─┬ stage(p) ┬─ check every byte ─┬ place(p) ┬─ finish ═ release ─ after_restore
//!                                 └ stage(q) ┘                    └ place(q) ┘        └ fork ┘
//! ```
//!
//! Hooks are where the policy of the restore point has some.
//!
//! Nothing appears under a target's name before every staged byte was checked; what was in the way is kept aside until the
//! plug-in has finished; `release`, which lets go of it, is the point of no return. A restore in place notes before that the
//! chain of logs [forks](stillpoint_model::fork).

pub(crate) mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use stillpoint_context::{Failure, HostId, HostPath, RunId};
use stillpoint_exchange::RestoreSpec;
use stillpoint_model::hook::HookPhase;
use stillpoint_model::id::{ExposureKey, ProviderId, SessionId};
use stillpoint_model::inventory::FileRole;
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun};
use stillpoint_model::point::RestorePoint;
use stillpoint_model::policy::Policy;
use stillpoint_model::request::Trigger;
use stillpoint_model::restore::{RestorePlan, RestoreRequest, RestoreTarget, plan_restore};
use stillpoint_storage::{RestoreKey, RestoredFile, StageSpec};
use stillpoint_workflow::{Action, Plan, PlanBuilder, Retry};
use uuid::Uuid;

use self::steps::{
    CheckParams, CheckStaged, Finish, Fork, Open, Place, PlaceParams, Release, Stage, StageParams,
};
use crate::Stillpoint;
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::hooks::HookCall;
use crate::hooks::jobs::call_of;
use crate::hooks::steps::HookSteps;
use crate::job::{JobHandle, LiveJob};
use crate::pools::OnStorage as _;
use crate::runs::{Ask, Launch};
use crate::verify::Load;

impl Stillpoint {
    /// What a restore would do: each file and where it would be, the claims, the warnings. Changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown point, [`Error::Restore`] for one that may not be restored so.
    pub async fn plan_restore(&self, request: &RestoreRequest) -> Result<RestorePlan, Error> {
        let point =
            self.point(request.point).await?.ok_or_else(|| Error::no_point(request.point))?;
        Ok(plan_restore(request, &point)?)
    }

    /// Restores. Every byte is read and checked before anything appears under a target's name, whatever the point's
    /// state says.
    ///
    /// # Errors
    /// As [`plan_restore`](Self::plan_restore); `run.key_reused` when the key was used for another request.
    ///
    /// # Idempotence
    /// The same request with the same key is the same job.
    pub async fn restore(&self, request: RestoreRequest) -> Result<JobHandle, Error> {
        let plan = self.plan_restore(&request).await?;
        let ask = Ask {
            kind: JobKind::Restore,
            key: request.key.clone(),
            trigger: Trigger::Manual { user: None },
            body: crate::runs::body(&request)?,
            due: None,
        };
        let title = format!("restore of {}", request.point);
        let warnings = plan.warnings.clone();
        let policy = self.hooks_of(&request).await?;
        self.start(
            ask,
            move |job: &mut Job| {
                job.title = title;
                job.warnings = warnings;
                job.policy = policy.map(|policy| policy.reference());
            },
            move |this, live| Box::pin(async move { this.carry_back(&request, &live).await }),
        )
        .await
    }

    /// The policy of the point, as it is now, if it has hooks that a restore comes to.
    async fn hooks_of(&self, request: &RestoreRequest) -> Result<Option<Policy>, Error> {
        let Some(point) = self.point(request.point).await? else { return Ok(None) };
        match point.policy {
            Some(made_under) => self.hooks_of_restore(made_under.id).await,
            None => Ok(None),
        }
    }

    async fn carry_back(&self, request: &RestoreRequest, live: &Arc<LiveJob>) -> Result<(), Error> {
        let now = self.seams().clock.now();
        let point =
            self.point(request.point).await?.ok_or_else(|| Error::no_point(request.point))?;
        let plan = plan_restore(request, &point)?;
        let id = RunId(Uuid::new_v5(&live.snapshot().id.0, b"restore"));
        let job = live.snapshot();
        let hooks = self.hooks_for(&job).await?.map(|policy| {
            let mut call = call_of(&job, &policy);
            call.databases = vec![point.database_name.clone()];
            (policy, call)
        });
        let compiled = self.compile_restore(id, &point, &plan, hooks.as_ref())?;
        let leaves = Leaves { restore: Some(RestoreKey::of(id)), ..Leaves::default() };
        let mut run = JobRun::new(id, now);
        let mut member = JobMember::new(point.database, point.database_name.clone());
        member.copy = Some(point.copy.clone());
        run.members = vec![member];
        let brief = Brief::new(run, leaves, Concern::Restore);
        let _report = self.run(live, Launch::new(brief, compiled)).await?;
        Ok(())
    }

    pub(crate) fn compile_restore(
        &self,
        run: RunId,
        point: &RestorePoint,
        restore: &RestorePlan,
        hooks: Option<&(Policy, HookCall)>,
    ) -> Result<Plan, Failure> {
        let timeouts = self.timeouts();
        let key = RestoreKey::of(run);
        let in_place = restore.target == RestoreTarget::InPlace;
        let Parts { by_provider, files, host } = Parts::of(point, restore);
        let host = host.ok_or_else(|| plan_defect("the restore has no files"))?;
        let session = SessionId(Uuid::new_v5(&run.0, b"restore"));
        let mut spec = RestoreSpec::new(session, point.database, host, files);
        spec.in_place = in_place;

        let mut plan = PlanBuilder::new(format!("restore of {}", point.id));
        let _plan = plan.grace(timeouts.grace);
        for claim in &restore.claims {
            let _plan = plan.claim(crate::claims::of(claim, None)?);
        }
        let before = hooks.and_then(|(policy, call)| {
            let mut steps = HookSteps::new(&mut plan, call, None);
            steps.add(policy.hooks_of(HookPhase::BeforeRestore), None);
            steps.end()
        });
        let mut open = plan.step("open", Open::with(spec.clone()));
        if let Some(hook) = before {
            open = open.after_named(hook);
        }
        let open = open.timeout(timeouts.begin).retry(timeouts.retry()).add();
        let loaded = plan
            .step("load", Load::with(point.id))
            .after(open)
            .timeout(timeouts.publish)
            .retry(timeouts.retry())
            .add();
        let targets: Vec<PlaceParams> = by_provider
            .keys()
            .map(|provider| PlaceParams { provider: provider.clone(), key: key.clone() })
            .collect();
        let staged: Vec<_> = by_provider
            .into_iter()
            .map(|(provider, files)| {
                let mut stage = StageSpec::new(key.clone(), files);
                stage.replace = in_place;
                plan.step(
                    format!("stage:{provider}"),
                    Stage::with(StageParams {
                        provider,
                        spec: stage,
                        point: point.id,
                        host: point.copy.host.clone(),
                    }),
                )
                .bind(loaded)
                .on_storage()
                .timeout(timeouts.restore)
                .undo_timeout(timeouts.prepare)
                .add()
            })
            .collect();
        let check = CheckParams {
            key: ExposureKey::new(key.as_str()).map_err(plan_defect)?,
            point: point.id,
        };
        let checked = plan
            .step("check", CheckStaged::with(check))
            .bind((staged, loaded))
            .timeout(timeouts.restore)
            .retry(Retry::NEVER)
            .add();
        let placed: Vec<_> = targets
            .iter()
            .map(|place| {
                plan.step(format!("place:{}", place.provider), Place::with(place.clone()))
                    .after(checked)
                    .on_storage()
                    .timeout(timeouts.prepare)
                    .undo_timeout(timeouts.prepare)
                    .add()
            })
            .collect();
        let mut finish = plan.step("finish", Finish::with(spec)).timeout(timeouts.restore);
        for place in placed {
            finish = finish.after(place);
        }
        let finished = finish.add();
        let forked = in_place.then(|| {
            plan.step("fork", Fork::with((point.database, point.id)))
                .bind(finished)
                .timeout(timeouts.publish)
                .retry(timeouts.retry())
                .undo_timeout(timeouts.publish)
                .add()
        });
        let mut release = plan.step("release", Release::with(targets)).after(finished);
        if let Some(forked) = forked {
            release = release.after(forked);
        }
        let release = release.on_storage().timeout(timeouts.prepare).retry(timeouts.retry());
        let _released = release.no_return().add();
        if let Some((policy, call)) = hooks {
            let mut steps = HookSteps::new(&mut plan, call, Some("release"));
            steps.add(policy.hooks_of(HookPhase::AfterRestore), None);
        }
        plan.build().map_err(plan_defect)
    }
}

/// What is brought back: by whom, as what, and where.
struct Parts {
    by_provider: BTreeMap<ProviderId, Vec<RestoredFile>>,
    files: Vec<(HostPath, FileRole)>,
    host: Option<HostId>,
}

impl Parts {
    fn of(point: &RestorePoint, restore: &RestorePlan) -> Self {
        let mut by_provider: BTreeMap<ProviderId, Vec<RestoredFile>> = BTreeMap::new();
        let mut files = Vec::new();
        let mut host = None;
        for planned in &restore.files {
            let Some(stored) = point.files.get(planned.index) else { continue };
            host.get_or_insert_with(|| planned.to.host().clone());
            files.push((planned.to.clone(), planned.role));
            by_provider.entry(stored.snapshot.volume.provider.clone()).or_default().push(
                RestoredFile {
                    snapshot: stored.snapshot.clone(),
                    original: stored.path.clone(),
                    target: planned.to.clone(),
                },
            );
        }
        Self { by_provider, files, host }
    }
}
