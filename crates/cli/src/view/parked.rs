//! What `parked` shows, and what is stuck in the account of a job.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::workflow::{Claim, ClaimMode};
use stillpoint::{ParkedRun, ParkedStep};

use super::{FailureView, Report, write_failure};
use crate::context::{JobId, RunId};
use crate::text;

/// A step that waits for a person.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StuckView {
    step: Option<String>,
    /// `exit_owed`, `past_no_return`, `unknown_action`, `stored_format`.
    reason: &'static str,
    since: Option<DateTime<Utc>>,
    failure: FailureView,
    #[serde(skip)]
    words: String,
}

impl StuckView {
    pub(super) fn of(parked: &ParkedStep) -> Self {
        Self {
            step: parked.step.as_ref().map(ToString::to_string),
            reason: parked.why.word(),
            since: parked.since,
            failure: FailureView::of(&parked.failure),
            words: parked.why.to_string(),
        }
    }

    pub(super) fn write(&self, text: &mut String, indent: &str) {
        let what = self.step.as_ref().map_or_else(String::new, |step| format!("step {step}: "));
        let since = self.since.map_or_else(String::new, |at| format!(" since {}", text::time(at)));
        let _ = writeln!(text, "{indent}parked: {what}{}{since}", self.words);
        write_failure(text, &format!("{indent}  "), &self.failure);
    }
}

/// Something that a run holds.
#[derive(Clone, Debug, Serialize)]
struct HeldView {
    key: String,
    mode: ClaimMode,
    until: Option<String>,
}

impl HeldView {
    fn of(claim: &Claim) -> Self {
        let until = claim.until.as_ref().map(ToString::to_string);
        Self { key: claim.key.to_string(), mode: claim.mode, until }
    }
}

#[derive(Debug, Serialize)]
struct ParkedRunView {
    run: RunId,
    job: Option<JobId>,
    title: String,
    steps: Vec<StuckView>,
    claims: Vec<HeldView>,
    /// The runs that wait for something of it.
    waiting: Vec<RunId>,
}

/// What `parked` shows.
#[derive(Debug, Serialize)]
pub(crate) struct ParkedView {
    parked: Vec<ParkedRunView>,
}

impl ParkedView {
    pub(crate) fn of(parked: &[ParkedRun]) -> Self {
        let view = |known: &ParkedRun| ParkedRunView {
            run: known.run,
            job: known.job,
            title: known.title.clone(),
            steps: known.steps.iter().map(StuckView::of).collect(),
            claims: known.claims.iter().map(HeldView::of).collect(),
            waiting: known.waiting.clone(),
        };
        Self { parked: parked.iter().map(view).collect() }
    }
}

impl Report for ParkedView {
    const SCHEMA: &'static str = "stillpoint.parked/1";

    fn text(&self, text: &mut String) {
        if self.parked.is_empty() {
            text.push_str("nothing is parked\n");
            return;
        }
        for known in &self.parked {
            let job = known.job.map_or_else(String::new, |job| format!(" of job {job}"));
            let colon = if known.title.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "run {}{job}{colon}{}", known.run, known.title);
            for step in &known.steps {
                step.write(text, "  ");
            }
            for claim in &known.claims {
                let until = claim.until.as_ref();
                let until = until.map_or_else(String::new, |until| format!(" until {until}"));
                let _ = writeln!(text, "  holds {} ({}{until})", claim.key, claim.mode);
            }
            for run in &known.waiting {
                let _ = writeln!(text, "  run {run} waits for it");
            }
        }
    }
}
