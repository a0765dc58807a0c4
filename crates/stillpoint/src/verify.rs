//! Verification of restore points, at any time after their backup.
//!
//! ```text
//!   load ─ expose ─ verify ─ unexpose ─ record
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, IdempotencyKey, RunId};
use stillpoint_exchange::{RequiredFile, VerifyFile, VerifyReport, VerifySpec};
use stillpoint_model::id::{CopyId, ExposureKey, PointId, ProviderId};
use stillpoint_model::job::{Job, JobKind, JobMember, JobRun};
use stillpoint_model::planning::{Claim, Mode};
use stillpoint_model::point::{PointFact, PointState, RestorePoint, Trust};
use stillpoint_model::request::Trigger;
use stillpoint_model::restore::RestoreError;
use stillpoint_model::verdict::Verdict;
use stillpoint_workflow::{Action, Done, EffectKind, Plan, PlanBuilder};
use uuid::Uuid;

use crate::Stillpoint;
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::exposure::{Check, Expose, ExposeParams, Inspection, Unexpose};
use crate::job::{JobHandle, LiveJob};
use crate::pools::OnStorage as _;
use crate::pump;
use crate::runs::{Ask, Launch};
use crate::services::Services;

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyRequest {
    /// Our key: the same key is the same job.
    pub key: IdempotencyKey,
    /// The restore points.
    pub points: Vec<PointId>,
}

impl VerifyRequest {
    /// A request to verify these.
    pub fn new(key: IdempotencyKey, points: Vec<PointId>) -> Self {
        Self { key, points }
    }
}

impl Stillpoint {
    /// Reads and checks every byte of restore points, and marks each as verified or suspect.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown point, `run.key_reused` when the key was used for another request.
    ///
    /// # Idempotence
    /// The same request with the same key is the same job.
    pub async fn verify(&self, request: VerifyRequest) -> Result<JobHandle, Error> {
        for point in &request.points {
            if self.point(*point).await?.is_none() {
                return Err(Error::no_point(*point));
            }
        }
        let ask = Ask {
            kind: JobKind::Verify,
            key: request.key.clone(),
            trigger: Trigger::Manual { user: None },
            body: crate::runs::body(&request)?,
            due: None,
        };
        let title = format!("verification of {} restore points", request.points.len());
        self.start(
            ask,
            move |job: &mut Job| job.title = title,
            move |this, live| {
                Box::pin(async move {
                    for point in request.points {
                        if live.cancel_token().is_cancelled() {
                            live.stop_short();
                            break;
                        }
                        this.verify_point(&live, point, false).await?;
                    }
                    Ok(())
                })
            },
        )
        .await
    }

    /// Verifies one point as a run of the job.
    pub(crate) async fn verify_point(
        &self,
        live: &Arc<LiveJob>,
        point: PointId,
        follow_up: bool,
    ) -> Result<(), Error> {
        let known = self.point(point).await?.ok_or_else(|| Error::no_point(point))?;
        let job = live.snapshot().id;
        let id = RunId(Uuid::new_v5(&job.0, format!("verify/{point}").as_bytes()));
        let plan = self.compile_verify(id, &known)?;
        let mut run = JobRun::new(id, self.seams().clock.now());
        run.follow_up = follow_up;
        let mut member = JobMember::new(known.database, known.database_name.clone());
        member.copy = Some(known.copy.clone());
        run.members = vec![member];
        let leaves = Leaves { exposure: Some(exposure_key(id)?), ..Leaves::default() };
        let brief = Brief::new(run, leaves, Concern::Verification { point });
        let _report = self.run(live, Launch::new(brief, plan)).await?;
        Ok(())
    }

    fn compile_verify(&self, run: RunId, point: &RestorePoint) -> Result<Plan, Failure> {
        let timeouts = self.timeouts();
        let mut plan = PlanBuilder::new(format!("verification of {}", point.id));
        let claim = Claim::point(point.database, point.id, Mode::Shared);
        let _plan = plan.grace(timeouts.grace).claim(crate::claims::of(&claim, None)?);
        let providers: BTreeSet<ProviderId> =
            point.members.iter().map(|member| member.snapshot.volume.provider.clone()).collect();
        let params = ExposeParams {
            key: exposure_key(run)?,
            host: point.copy.host.clone(),
            providers: providers.into_iter().collect(),
        };
        let loaded = plan
            .step("load", Load::with(point.id))
            .timeout(timeouts.publish)
            .retry(timeouts.retry())
            .add();
        let exposed = plan
            .step("expose", Expose::with(params.clone()))
            .bind(loaded)
            .on_storage()
            .timeout(timeouts.expose)
            .retry(timeouts.retry())
            .undo_timeout(timeouts.expose)
            .optional()
            .add();
        let checked = plan
            .step("verify", Check::with(()))
            .bind((exposed, loaded))
            .timeout(timeouts.verify)
            .add();
        let hidden = plan
            .step("unexpose", Unexpose::with(params))
            .after(checked)
            .on_storage()
            .timeout(timeouts.expose)
            .retry(timeouts.retry())
            .optional()
            .add();
        let _recorded = plan
            .step("record", Record::with((point.id, point.copy.clone())))
            .bind(checked)
            .after(hidden)
            .add();
        plan.build().map_err(plan_defect)
    }
}

fn exposure_key(run: RunId) -> Result<ExposureKey, Failure> {
    ExposureKey::new(format!("verify-{}", run.0.simple())).map_err(plan_defect)
}

/// Reads from the catalogue what is to be looked into.
#[derive(Debug)]
pub(crate) struct Load(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Load {
    const NAME: &'static str = "point.load";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = PointId;
    type Input = ();
    type Output = Inspection;

    async fn run(&self, _: &Cx, id: &PointId, (): ()) -> Result<Done<Inspection>, Failure> {
        let found = self.0.catalog.point(*id).await.map_err(|error| Failure::of(&error))?;
        let point = found.ok_or_else(|| {
            Failure::new("point.unknown", ErrorClass::Conflict, format!("there is no point {id}"))
                .with_effect(Effect::None)
                .with_remedy("List the restore points and choose one that exists.")
        })?;
        if point.state == PointState::Expiring
            || (point.kind.takes_database() && !point.has_database())
        {
            // A prune was here first.
            return Err(Failure::of(&RestoreError::Expiring { point: *id }));
        }
        if point.is_missing() {
            return Err(Failure::of(&RestoreError::Missing { point: *id }));
        }
        Ok(Done::new(inspection(&point)))
    }
}

fn inspection(point: &RestorePoint) -> Inspection {
    let files = point.files.iter().map(|stored| {
        let mut file = RequiredFile::new(point.copy.clone(), stored.path.clone(), stored.role);
        file.bytes = Some(stored.bytes);
        file.generation = stored.generation;
        VerifyFile::new(file, stored.seal.clone())
    });
    let mut spec = VerifySpec::new(files.collect());
    // Logs alone make no database.
    spec.recoverable = point.has_database();
    let snapshots = point.members.iter().map(|member| member.snapshot.clone()).collect();
    Inspection { snapshots, spec }
}

/// Records what a verification found.
#[derive(Debug)]
pub(crate) struct Record;

#[async_trait]
impl Action for Record {
    const NAME: &'static str = "point.record";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = (PointId, CopyId);
    type Input = VerifyReport;
    type Output = ();

    async fn run(
        &self,
        cx: &Cx,
        (point, copy): &(PointId, CopyId),
        report: VerifyReport,
    ) -> Result<Done<()>, Failure> {
        let verdict = report.verdict(copy);
        let trust = Trust::of(&verdict, cx.now());
        let done =
            Done::new(()).with_fact(pump::fact(&PointFact::Checked { point: *point, trust })?);
        let Verdict::Bad { reason, .. } = &verdict else { return Ok(done) };
        Ok(done.with_warning(
            Failure::new(
                "verify.suspect",
                ErrorClass::Integrity,
                format!("{point} is suspect: {reason}"),
            )
            .with_effect(Effect::None)
            .with_remedy("Restore from another point; find out what damaged this one."),
        ))
    }
}
