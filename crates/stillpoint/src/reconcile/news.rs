//! Whether a look found something else than what was told last; if so, the job that tells it.
//!
//! ```text
//!   look ─▶ as it was told, and nothing to do ─▶ no word
//!        └▶ another ─▶ job: repair, each difference a warning ─▶ whoever is told of jobs
//! ```
//!
//! What was found stands in the key of the job that tells it. So neither the next process nor another one on the same store tells it
//! again, and of two who find it at once one does.

use stillpoint_catalog::{JobQuery, Page};
use stillpoint_context::{ErrorClass, Failure, IdempotencyKey, JobId};
use stillpoint_model::job::{JobKind, JobState};
use stillpoint_model::reconcile::{Finding, Thing, Verdict};
use stillpoint_model::request::Trigger;
use stillpoint_model::warning::Warning;
use uuid::Uuid;

use super::{ReconcileOptions, ReconcileReport, RepairRequest};
use crate::Stillpoint;
use crate::error::Error;
use crate::job::JobHandle;

/// How the keys of jobs begin that tell what a look has found.
const PREFIX: &str = "reconcile/news/";

/// How many differences a job names; of more it says how many.
const NAMED: usize = 50;

const TARGET: &str = "stillpoint::reconcile";

/// What somebody should look at, by itself and in words.
struct Differences {
    /// The same for the same differences, whatever was done about them meanwhile.
    mark: Uuid,
    warnings: Vec<Warning>,
}

impl Differences {
    fn of(report: &ReconcileReport) -> Self {
        // Of what a storage that cannot be asked has, nothing can be said: that is one difference, and not one for each point.
        let is_blind = !report.limits.is_empty();
        let follows =
            |finding: &&Finding| is_blind && matches!(finding.verdict, Verdict::Unknown { .. });
        let troubles: Vec<&Finding> =
            report.comparison.troubles().filter(|finding| !follows(finding)).collect();
        let mut lines: Vec<String> = troubles.iter().map(|finding| line(finding)).collect();
        // Why they cannot be asked may be said in other words each time.
        let place = |limit: &String| limit.split(": ").next().unwrap_or_default().to_owned();
        lines.extend(report.limits.iter().map(place));
        lines.sort_unstable();
        let mark = Uuid::new_v5(&Uuid::NAMESPACE_OID, lines.join("\n").as_bytes());

        // The run that marks a point as missing warns of it.
        let is_told =
            |finding: &&&Finding| matches!(finding.verdict, Verdict::Missing { is_news: true, .. });
        let mut warnings: Vec<Warning> =
            troubles.iter().filter(|finding| !is_told(finding)).map(|one| differs(one)).collect();
        warnings.extend(report.limits.iter().map(not_seen));
        let more = warnings.len().saturating_sub(NAMED);
        warnings.truncate(NAMED);
        if more > 0 {
            let message = format!("there are {more} more differences");
            warnings.push(Warning::new("reconcile.differs", message, LOOK));
        }
        Self { mark, warnings }
    }

    /// The mark of no differences.
    fn none() -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, b"")
    }
}

const LOOK: &str = "Reconcile, and look at what it finds.";

fn line(finding: &Finding) -> String {
    let Finding { thing, verdict, .. } = finding;
    let what = match verdict {
        Verdict::Missing { lost: snapshots, .. } | Verdict::Orphan { snapshots, .. } => {
            format!("{snapshots:?}")
        }
        Verdict::Adoptable { points } => format!("{points:?}"),
        Verdict::Leftover { points, snapshots, .. } => format!("{points:?} {snapshots:?}"),
        _ => String::new(),
    };
    format!("{thing} {} {what}", verdict.word())
}

fn differs(finding: &Finding) -> Warning {
    let Finding { thing, verdict, .. } = finding;
    let warning = Warning::new("reconcile.differs", format!("{thing}: {verdict}"), LOOK);
    match thing {
        Thing::Point(point) | Thing::Manifest(point) => warning.about("restore point", point),
        Thing::Set(set) => warning.about("set", set),
        Thing::Snapshot(snapshot) => warning.about("snapshot", snapshot),
        _ => warning,
    }
}

fn not_seen(limit: &String) -> Warning {
    let remedy = "See to it that the storage can be asked; nothing of what it has is called missing meanwhile.";
    Warning::new("reconcile.not_seen", format!("nobody could look at everything: {limit}"), remedy)
}

impl Stillpoint {
    /// The job that tells what a look has found and does what is to be done about it, as a [repair](Self::repair); none if there is
    /// nothing to do and it was told before.
    ///
    /// # Idempotence
    /// What was told is not told again, by no process on the same store, until something else was found in between.
    pub(crate) async fn tell_news(
        &self,
        report: &ReconcileReport,
        options: &ReconcileOptions,
    ) -> Result<Option<JobHandle>, Error> {
        let Differences { mark, warnings } = Differences::of(report);
        let (last, told) = self.last_news().await?.unzip();
        let told = told.unwrap_or_else(|| Some(Differences::none().to_string()));
        let is_news = told.is_none_or(|told| told != mark.to_string());
        if !is_news && report.comparison.acts().is_empty() {
            return Ok(None);
        }
        let warnings = if is_news { warnings } else { Vec::new() };
        for warning in &warnings {
            tracing::warn!(target: TARGET, code = %warning.code, "{}", warning.message);
        }
        if is_news && report.is_clean() {
            tracing::info!(target: TARGET, "catalogue and storage do not differ any more");
        }
        let last = last.map_or_else(|| "first".to_owned(), |last| last.to_string());
        let key = IdempotencyKey::new(format!("{PREFIX}{last}/{mark}")).map_err(|error| {
            Failure::new("reconcile.key", ErrorClass::Internal, error.to_string())
        })?;
        let request = RepairRequest { key, trigger: Trigger::Api, options: options.clone() };
        Ok(Some(self.begin_repair(request, warnings).await?))
    }

    /// The last job that was to tell news, and the mark of what it told; none if it was cancelled, which nobody may have been told.
    async fn last_news(&self) -> Result<Option<(JobId, Option<String>)>, Error> {
        let mut query = JobQuery::all();
        query.kind = Some(JobKind::Reconcile);
        let mut page = Page::first(Page::LARGEST);
        loop {
            // Newest first.
            let listing = self.services().catalog.jobs(&query, &page).await?;
            let of = |key: &IdempotencyKey| {
                let (_, mark) = key.as_str().strip_prefix(PREFIX)?.split_once('/')?;
                Some(mark.to_owned())
            };
            let last = listing.items.iter().find_map(|job| {
                let mark = of(&job.key)?;
                Some((job.id, (job.state() != JobState::Cancelled).then_some(mark)))
            });
            match (last, listing.next) {
                (None, Some(next)) => page.after = Some(next),
                (last, _) => return Ok(last),
            }
        }
    }
}
