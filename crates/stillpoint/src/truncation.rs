//! Confirmation of truncation: what became of the logs, asked some time after a backup was completed.
//!
//! ```text
//!   backup ─ complete ═ requested ··· ask ─ pending ─ ask ─ … ─┬─ confirmed
//!                                                              ├─ nothing eligible, and why
//!                                                              ├─ unknown
//!                                                              └─ still pending: the next backup asks again
//! ```
//!
//! Exchange truncates when every copy allows it, minutes later or days (a lagged copy). So nothing of it is assumed: what a
//! point says of it is what Exchange was heard to say.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{Page, PointQuery};
use stillpoint_context::{Cx, Failure, Mono, RunId};
use stillpoint_exchange::Truncation as Answer;
use stillpoint_model::id::{CopyId, DatabaseId, PointId};
use stillpoint_model::job::{JobMember, JobRun};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{Claim, Mode};
use stillpoint_model::point::{PointFact, RestorePoint, Truncation};
use stillpoint_model::warning::Warning;
use stillpoint_workflow::{Action, Done, EffectKind, Plan, PlanBuilder};
use uuid::Uuid;

use crate::Stillpoint;
use crate::brief::{Brief, Concern};
use crate::debris::Leaves;
use crate::error::{Error, plan_defect};
use crate::job::LiveJob;
use crate::pump;
use crate::runs::Launch;
use crate::services::Services;

/// How many of the newest points of a database that led to truncation, of each kind, are looked through for what is still open.
/// Each backup looks, so that more are there only where nobody asked for long.
const NEWEST: u32 = 32;

/// The first pause between two questions, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl Stillpoint {
    /// The follow-up of a backup that asks what became of the logs: those of its own points, and of earlier points of its
    /// databases of which nobody knows yet. That it cannot be asked is a warning.
    pub(crate) async fn confirm_after(&self, live: &Arc<LiveJob>) {
        let job = live.snapshot();
        let mut databases: Vec<DatabaseId> = job.members().map(|member| member.database).collect();
        databases.sort_unstable();
        databases.dedup();
        let done = async {
            let mut open = Vec::new();
            for database in databases {
                open.extend(self.unconfirmed(database).await?);
            }
            if open.is_empty() {
                return Ok(());
            }
            self.confirm(live, &open).await
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "the truncation of logs could not be asked about");
            let warning = Warning::new(
                "truncation.not_asked",
                format!("nobody asked what became of the logs: {error}"),
                "Nothing is lost. The next backup asks again.",
            );
            live.change(|job| job.warnings.push(warning));
        }
    }

    /// The points of a database of whose truncation nobody has heard yet, newest first.
    async fn unconfirmed(&self, database: DatabaseId) -> Result<Vec<RestorePoint>, Error> {
        let (catalog, page) = (&self.services().catalog, Page::first(NEWEST));
        let mut points = Vec::new();
        // By their kinds: any number of log backups may come before Exchange truncates.
        for kind in BackupKind::ALL.into_iter().filter(|kind| kind.truncates()) {
            let mut query = PointQuery::of(database);
            query.kind = Some(kind);
            points.extend(catalog.points(&query, &page).await?.items);
        }
        let is_open = |of: &Truncation| matches!(of, Truncation::Requested | Truncation::Unknown);
        points.retain(|point| is_open(&point.truncation));
        points.sort_by_key(|point| Reverse((point.taken_at, point.id)));
        Ok(points)
    }

    async fn confirm(&self, live: &Arc<LiveJob>, points: &[RestorePoint]) -> Result<(), Error> {
        let id = RunId(Uuid::new_v5(&live.snapshot().id.0, b"truncation"));
        let mut run = JobRun::new(id, self.seams().clock.now());
        run.follow_up = true;
        for point in points {
            if run.members.iter().all(|member| member.database != point.database) {
                let mut member = JobMember::new(point.database, point.database_name.clone());
                member.copy = Some(point.copy.clone());
                run.members.push(member);
            }
        }
        let plan = self.compile_confirmation(points)?;
        let concern = Concern::Truncation { points: points.iter().map(|point| point.id).collect() };
        let brief = Brief::new(run, Leaves::default(), concern);
        let _report = self.run(live, Launch::new(brief, plan)).await?;
        Ok(())
    }

    pub(crate) fn compile_confirmation(&self, points: &[RestorePoint]) -> Result<Plan, Failure> {
        let timeouts = self.timeouts();
        let mut plan = PlanBuilder::new("confirmation of truncation");
        let _plan = plan.grace(timeouts.grace);
        for point in points {
            // It is not deleted while something is learnt of it.
            let claim = Claim::point(point.database, point.id, Mode::Shared);
            let _plan = plan.claim(crate::claims::of(&claim, None)?);
            let question = Question {
                point: point.id,
                copy: point.copy.clone(),
                since: point.taken_at,
                patience: timeouts.truncation,
            };
            let _asked = plan
                .step(format!("ask:{}", point.id), AskTruncation::with(question))
                .timeout(timeouts.truncation.saturating_add(timeouts.evidence))
                .retry(timeouts.retry())
                .optional()
                .add();
        }
        plan.build().map_err(plan_defect)
    }
}

/// What is asked of whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question {
    point: PointId,
    copy: CopyId,
    since: DateTime<Utc>,
    /// For how long it is asked again while truncation is pending.
    patience: Duration,
}

/// Asks until there is an answer, or patience ends.
#[derive(Debug)]
pub(crate) struct AskTruncation(pub(crate) Arc<Services>);

#[async_trait]
impl Action for AskTruncation {
    const NAME: &'static str = "exchange.truncation";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = Question;
    type Input = ();
    /// What was heard; [`Truncation::Requested`] if it is still pending.
    type Output = Truncation;

    async fn run(&self, cx: &Cx, asked: &Question, (): ()) -> Result<Done<Truncation>, Failure> {
        let until: Mono = cx.mono() + asked.patience;
        let (mut pause, longest) = PAUSES;
        let truncation = loop {
            match self.0.plugin.truncation(cx, &asked.copy, asked.since).await? {
                Answer::Confirmed { oldest_present } => {
                    break Truncation::Confirmed { oldest_present: Some(oldest_present) };
                }
                Answer::NothingEligible { why } => break Truncation::NothingEligible { why },
                Answer::Pending if cx.mono() + pause <= until => {
                    cx.sleep(pause).await.map_err(|error| Failure::of(&error))?;
                    pause = longest.min(pause * 2);
                }
                Answer::Pending => {
                    tracing::info!(copy = %asked.copy, "logs are not truncated yet");
                    return Ok(Done::new(Truncation::Requested));
                }
                _ => break Truncation::Unknown,
            }
        };
        tracing::info!(copy = %asked.copy, %truncation, "truncation of logs");
        let told = truncation.clone();
        let fact = PointFact::Truncated { point: asked.point, at: cx.now(), truncation };
        Ok(Done::new(told).with_fact(pump::fact(&fact)?))
    }
}
