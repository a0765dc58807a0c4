//! What `restore` shows.

use serde::Serialize;

use super::plan::ClaimView;
use super::{JobView, Report, WarningView};
use crate::model::id::{DatabaseId, PointId};
use crate::model::inventory::FileRole;
use crate::model::job;
use crate::model::restore::RestorePlan;

/// The plan of a restore.
#[derive(Debug, Serialize)]
pub(crate) struct RestorePlanView {
    point: PointId,
    database: DatabaseId,
    bytes: u64,
    files: Vec<FileView>,
    claims: Vec<ClaimView>,
    warnings: Vec<WarningView>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct FileView {
    role: FileRole,
    to: String,
    bytes: u64,
}

impl RestorePlanView {
    pub(crate) fn of(plan: &RestorePlan) -> Self {
        let file = |file: &crate::model::restore::RestoreFile| FileView {
            role: file.role,
            to: file.to.as_str().to_owned(),
            bytes: file.bytes,
        };
        Self {
            point: plan.point,
            database: plan.database,
            bytes: plan.bytes,
            files: plan.files.iter().map(file).collect(),
            claims: ClaimView::all(&plan.claims),
            warnings: WarningView::all(&plan.warnings),
            text: plan.to_string(),
        }
    }
}

/// What `restore` shows: what it will do or did, and the job unless it was a dry run.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreView {
    plan: RestorePlanView,
    job: Option<JobView>,
}

impl RestoreView {
    pub(crate) fn of(plan: &RestorePlan, job: Option<&job::Job>) -> Self {
        Self { plan: RestorePlanView::of(plan), job: job.map(JobView::of) }
    }
}

impl Report for RestoreView {
    const SCHEMA: &'static str = "stillpoint.restore/1";

    fn text(&self, text: &mut String) {
        text.push_str(&self.plan.text);
        if let Some(job) = &self.job {
            job.write(text);
        }
    }
}
