//! What a job has to know of a run to follow it to its end: it travels with the run, so that another process can.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorClass, Failure};
use stillpoint_exchange::VerifyReport;
use stillpoint_model::id::{CopyId, PointId};
use stillpoint_model::job::{JobMember, JobRun, MemberEnd};
use stillpoint_workflow::{Cause, End, RunReport};

use crate::backup::judge::Judgement;
use crate::debris::Leaves;
use crate::runs::output;

/// The label of a run under which its brief is kept, and that of its job.
pub(crate) const BRIEF: &str = "brief";
pub(crate) const JOB: &str = "job";

/// The form of a stored brief.
const FORMAT: u32 = 1;

/// What is known of a run before it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Brief {
    format: u32,
    /// The run as its job lists it.
    pub(crate) run: JobRun,
    /// What it may leave behind.
    pub(crate) leaves: Leaves,
    /// What it is for.
    pub(crate) concern: Concern,
}

/// What a run is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Concern {
    Backup,
    Verification { point: PointId },
    Restore,
    Prune,
    Reconcile,
    Hooks,
    Truncation { points: Vec<PointId> },
}

impl Brief {
    pub(crate) fn new(run: JobRun, leaves: Leaves, concern: Concern) -> Self {
        Self { format: FORMAT, run, leaves, concern }
    }

    /// The label's text.
    ///
    /// # Errors
    /// `brief.encode`, which is a defect of ours.
    pub(crate) fn to_label(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|error| Failure::new("brief.encode", ErrorClass::Internal, error.to_string()))
    }

    /// What the label of a run says; nothing if it has none, or one of a newer form.
    pub(crate) fn of_label(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|brief: &Self| brief.format <= FORMAT)
    }
}

/// Restores go before everything that came up to this long before: rule V18 of the model.
const RESTORES_FIRST: Duration = Duration::from_hours(7 * 24);

impl Concern {
    /// How long before it others may have come that it still goes before.
    pub(crate) const fn head_start(&self) -> Duration {
        match self {
            Self::Restore => RESTORES_FIRST,
            _ => Duration::ZERO,
        }
    }

    /// What became of the databases of a run.
    pub(crate) fn conclude(&self, run: &mut JobRun, report: &RunReport) {
        match self {
            Self::Backup => {
                for member in &mut run.members {
                    member.end = Some(backed_up(member, report));
                }
            }
            Self::Verification { point } => {
                let checked: Option<VerifyReport> = output(report, "verify");
                for member in &mut run.members {
                    let bad = checked
                        .as_ref()
                        .and_then(|checked| Some(checked.verdict(member.copy.as_ref()?).is_bad()));
                    member.end = Some(match (undone(report), bad) {
                        (Some(end), _) => end,
                        (None, Some(suspect)) => MemberEnd::Point { point: *point, suspect },
                        (None, None) => MemberEnd::Done,
                    });
                }
            }
            // It has no databases.
            Self::Hooks => {}
            // What could not be deleted is in its warnings, and still in the catalogue.
            Self::Restore | Self::Prune | Self::Reconcile | Self::Truncation { .. } => {
                for member in &mut run.members {
                    member.end = Some(undone(report).unwrap_or(MemberEnd::Done));
                }
            }
        }
    }
}

/// What became of one database of a set.
fn backed_up(member: &JobMember, report: &RunReport) -> MemberEnd {
    let judgement: Option<Judgement> = output(report, "judge");
    let points: Option<BTreeMap<CopyId, PointId>> = output(report, "publish");
    let copy = member.copy.as_ref();
    let judged = copy.and_then(|copy| judgement.as_ref()?.copies.get(copy));
    let point = copy.and_then(|copy| points.as_ref()?.get(copy));
    match (undone(report), judged, point) {
        (Some(end), _, _) => end,
        (None, Some(judged), point) => match (&judged.refused, point) {
            (Some(failure), _) => MemberEnd::Failed { failure: failure.clone() },
            (None, Some(point)) => {
                MemberEnd::Point { point: *point, suspect: judged.verified.is_bad() }
            }
            (None, None) => cancelled(),
        },
        (None, None, _) => cancelled(),
    }
}

/// What became of every database of a run that came to nothing.
fn undone(report: &RunReport) -> Option<MemberEnd> {
    match report.cause() {
        Some(Cause::Failed { failure, .. }) => {
            Some(MemberEnd::Failed { failure: (**failure).clone() })
        }
        Some(Cause::Cancelled { .. }) => Some(cancelled()),
        // One that was cancelled in the queue has not begun, and has no cause.
        None => (report.end() == End::Cancelled).then(cancelled),
    }
}

fn cancelled() -> MemberEnd {
    let failure = Failure::new("run.cancelled", ErrorClass::Unavailable, "the run was cancelled")
        .with_remedy("Run it again if it is still wanted.");
    MemberEnd::Failed { failure }
}
