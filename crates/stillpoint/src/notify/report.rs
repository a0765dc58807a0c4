//! A job as it is told to somebody: in a line, at length, and as data.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{ErrorClass, Failure, JobId};
use stillpoint_model::id::{DatabaseId, PointId};
use stillpoint_model::job::{Job, JobKind, JobMember, JobState, MemberEnd};
use stillpoint_model::warning::Warning;

/// The name and version of the form: what a field means is not changed without another number.
pub const REPORT: &str = "stillpoint.job-report/1";

/// A job that is over, or that waits for a person, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobReport {
    /// [`REPORT`].
    pub schema: String,
    /// The job.
    pub job: JobId,
    /// What it did.
    pub kind: JobKind,
    /// How it ended; `parked` if it waits for a person.
    pub state: JobState,
    /// What it was about.
    pub title: String,
    /// Why it existed.
    pub trigger: String,
    /// The policy that it pinned, as `name@version`.
    pub policy: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was over; of one that is parked, when that was told.
    pub ended_at: DateTime<Utc>,
    /// How many databases came out well.
    pub good: usize,
    /// How many there were.
    pub all: usize,
    /// Each of them.
    pub databases: Vec<ReportedDatabase>,
    /// Why it, or a run of it, failed.
    pub failures: Vec<ReportedProblem>,
    /// What is worth a look.
    pub warnings: Vec<ReportedProblem>,
    /// What it left behind, in words.
    pub left_behind: Vec<String>,
}

/// A database of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReportedDatabase {
    /// Which.
    pub database: DatabaseId,
    /// What it is called.
    pub name: String,
    /// It came out well.
    pub good: bool,
    /// Its restore point, if it has one.
    pub point: Option<PointId>,
    /// Why it did not come out well, if that is known.
    pub problem: Option<ReportedProblem>,
}

/// A failure or a warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReportedProblem {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl ReportedProblem {
    fn of(failure: &Failure) -> Self {
        Self {
            code: failure.code.to_string(),
            message: failure.message.clone(),
            remedy: failure.remedy.to_string(),
        }
    }

    fn warning(warning: &Warning) -> Self {
        Self {
            code: warning.code.to_string(),
            message: warning.message.clone(),
            remedy: warning.remedy.to_string(),
        }
    }
}

impl ReportedDatabase {
    fn of(member: &JobMember) -> Self {
        let (good, point, problem) = match &member.end {
            Some(MemberEnd::Point { point, suspect: false }) => (true, Some(*point), None),
            Some(MemberEnd::Point { point, .. }) => {
                let suspect =
                    Failure::new("verify.suspect", ErrorClass::Integrity, "it is suspect")
                        .with_remedy("Look at the findings of its restore point.");
                (false, Some(*point), Some(ReportedProblem::of(&suspect)))
            }
            Some(MemberEnd::Done) => (true, None, None),
            Some(MemberEnd::Failed { failure } | MemberEnd::Skipped { failure }) => {
                (false, None, Some(ReportedProblem::of(failure)))
            }
            _ => (false, None, None),
        };
        Self { database: member.database, name: member.name.clone(), good, point, problem }
    }
}

impl JobReport {
    /// What is told of a job that is over, or as good as over, in this state.
    pub fn of(job: &Job, state: JobState, now: DateTime<Utc>) -> Self {
        let (good, all) = job.tally();
        let failures =
            job.failure.iter().chain(job.counted().filter_map(|run| run.failure.as_ref()));
        let warnings = job.warnings.iter().chain(job.runs.iter().flat_map(|run| &run.warnings));
        Self {
            schema: REPORT.to_owned(),
            job: job.id,
            kind: job.kind,
            state,
            title: job.title.clone(),
            trigger: job.trigger.to_string(),
            policy: job.policy.as_ref().map(ToString::to_string),
            created_at: job.created_at,
            ended_at: job.ended_at.unwrap_or(now),
            good,
            all,
            databases: job.members().map(ReportedDatabase::of).collect(),
            failures: failures.map(ReportedProblem::of).collect(),
            warnings: warnings.map(ReportedProblem::warning).collect(),
            left_behind: job.runs.iter().flat_map(|run| run.debris.iter().cloned()).collect(),
        }
    }

    /// As JSON, in lines.
    ///
    /// # Errors
    /// `report.encode`, which is a defect of ours.
    pub fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Failure::new("report.encode", ErrorClass::Internal, error.to_string()))
    }

    /// In one line.
    pub fn subject(&self) -> String {
        let (kind, title) = (self.kind.to_string(), plain(&self.title));
        // A title often says the kind already.
        let what = if title.starts_with(&kind) { title } else { format!("{kind} {title}") };
        let mut line = format!("{what}: {}", self.state);
        if self.all > 0 {
            let databases = if self.all == 1 { "database" } else { "databases" };
            let _ = write!(line, ", {} of {} {databases}", self.good, self.all);
        }
        line
    }

    /// At length, in lines of plain text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.subject());
        let _ = writeln!(text, "job {}, {}", self.job, plain(&self.trigger));
        if let Some(policy) = &self.policy {
            let _ = writeln!(text, "policy {}", plain(policy));
        }
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        let _ = writeln!(text, "from {} to {}\n", time(self.created_at), time(self.ended_at));
        for database in &self.databases {
            let word = if database.good { "good" } else { "NOT GOOD" };
            let _ = writeln!(text, "{}: {word}", plain(&database.name));
            write_problems(&mut text, "  ", "", &database.problem);
        }
        if self.state == JobState::Parked {
            let _ = writeln!(
                text,
                "it waits for a person, and holds what it holds until somebody has seen to it"
            );
        }
        write_problems(&mut text, "", "failed: ", &self.failures);
        write_problems(&mut text, "", "warning: ", &self.warnings);
        for left in &self.left_behind {
            let _ = writeln!(text, "left behind: {}", plain(left));
        }
        text
    }
}

fn write_problems<'p>(
    text: &mut String,
    indent: &str,
    word: &str,
    problems: impl IntoIterator<Item = &'p ReportedProblem>,
) {
    for problem in problems {
        let _ = writeln!(text, "{indent}{word}{} [{}]", plain(&problem.message), problem.code);
        if !problem.remedy.is_empty() {
            let _ = writeln!(text, "{indent}  remedy: {}", plain(&problem.remedy));
        }
    }
}

/// Without what could end a line or begin a header.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
