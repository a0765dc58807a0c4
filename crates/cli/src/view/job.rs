//! What `jobs` and `verify` show, and the job in every other result.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::workflow::NodeProgress;
use stillpoint::{JobAccount, StepAccount};

use super::debris::LeftView;
use super::hook::HookEndView;
use super::locks::LockView;
use super::parked::StuckView;
use super::{FailureView, PointView, Report, WarningView, write_failure};
use crate::context::{JobId, RunId};
use crate::model::id::{CopyId, DatabaseId, PointId};
use crate::model::job::{self, JobKind, JobMember, JobRun, JobState, MemberEnd, RunEnd, RunState};
use crate::model::policy::PolicyRef;
use crate::text::{self, Table};

/// A job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobView {
    job: JobId,
    kind: JobKind,
    state: JobState,
    title: String,
    trigger: String,
    policy: Option<PolicyView>,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    databases: Tally,
    runs: Vec<RunView>,
    skipped: Vec<MemberView>,
    /// What waits for a restore.
    held: Vec<ElsewhereView>,
    /// What is left to a job that waits for it.
    coalesced: Vec<ElsewhereView>,
    warnings: Vec<WarningView>,
    failure: Option<FailureView>,
    /// Only in an account of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    locks: Option<Vec<LockView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_behind: Option<Vec<LeftView>>,
}

/// A database that another job has.
#[derive(Clone, Debug, Serialize)]
struct ElsewhereView {
    database: DatabaseId,
    name: String,
    job: JobId,
}

impl ElsewhereView {
    fn of(elsewhere: &job::Elsewhere) -> Self {
        let job::Elsewhere { database, name, job, .. } = elsewhere;
        Self { database: *database, name: name.clone(), job: *job }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tally {
    good: usize,
    all: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PolicyView {
    id: String,
    version: u32,
    name: String,
}

impl PolicyView {
    pub(crate) fn of(policy: &PolicyRef) -> Self {
        Self { id: policy.id.to_string(), version: policy.version.get(), name: policy.name.clone() }
    }
}

#[derive(Clone, Debug, Serialize)]
struct RunView {
    run: RunId,
    state: &'static str,
    queued_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    follow_up: bool,
    superseded_by: Option<RunId>,
    members: Vec<MemberView>,
    warnings: Vec<WarningView>,
    debris: Vec<String>,
    failure: Option<FailureView>,
    /// Only in an account of its job.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<Vec<StuckView>>,
}

/// How far a step has come.
#[derive(Clone, Debug, Serialize)]
struct StepView {
    step: String,
    within: Option<String>,
    state: NodeProgress,
    attempts: u32,
    failure: Option<FailureView>,
    /// Of a hook that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<HookEndView>,
}

impl StepView {
    fn of(step: &StepAccount) -> Self {
        Self {
            step: step.step.to_string(),
            within: step.within.as_ref().map(ToString::to_string),
            state: step.progress,
            attempts: step.attempts,
            failure: step.failure.as_ref().map(FailureView::of),
            hook: step.hook.as_ref().map(HookEndView::of),
        }
    }

    fn row(&self, table: &mut Table) {
        let indent = if self.within.is_some() { "  " } else { "" };
        let tries = match self.attempts {
            0 | 1 => String::new(),
            tries => format!("{tries} attempts"),
        };
        let failure = self.failure.as_ref();
        let failure = failure
            .map_or_else(String::new, |failure| format!("{} [{}]", failure.message, failure.code));
        table.row([format!("{indent}{}", self.step), word(self.state).to_owned(), tries, failure]);
    }
}

/// How far a step has come, in a word.
const fn word(progress: NodeProgress) -> &'static str {
    match progress {
        NodeProgress::Waiting => "waiting",
        NodeProgress::Running => "running",
        NodeProgress::Retrying => "retrying",
        NodeProgress::Probing => "probing",
        NodeProgress::Done => "done",
        NodeProgress::Failed => "failed",
        NodeProgress::Undoing => "undoing",
        NodeProgress::Undone => "undone",
        NodeProgress::Skipped => "skipped",
        NodeProgress::Parked => "parked",
        _ => "unknown",
    }
}

#[derive(Clone, Debug, Serialize)]
struct MemberView {
    database: DatabaseId,
    name: String,
    copy: Option<CopyId>,
    /// `point`, `done`, `failed`, `skipped`, or `open` while nobody knows.
    end: &'static str,
    point: Option<PointId>,
    suspect: bool,
    failure: Option<FailureView>,
}

impl MemberView {
    fn of(member: &JobMember) -> Self {
        let mut view = Self {
            database: member.database,
            name: member.name.clone(),
            copy: member.copy.clone(),
            end: "open",
            point: None,
            suspect: false,
            failure: None,
        };
        match &member.end {
            Some(MemberEnd::Point { point, suspect }) => {
                (view.end, view.point, view.suspect) = ("point", Some(*point), *suspect);
            }
            Some(MemberEnd::Done) => view.end = "done",
            Some(MemberEnd::Failed { failure }) => {
                (view.end, view.failure) = ("failed", Some(FailureView::of(failure)));
            }
            Some(MemberEnd::Skipped { failure }) => {
                (view.end, view.failure) = ("skipped", Some(FailureView::of(failure)));
            }
            _ => {}
        }
        view
    }

    fn write(&self, text: &mut String, indent: &str) {
        let _ = write!(text, "{indent}{}: ", self.name);
        let _ = match (self.end, &self.point) {
            ("point", Some(point)) if self.suspect => {
                writeln!(text, "restore point {point}, suspect")
            }
            ("point", Some(point)) => writeln!(text, "restore point {point}"),
            (end, _) => writeln!(text, "{end}"),
        };
        if let Some(failure) = &self.failure {
            write_failure(text, &format!("{indent}  "), failure);
        }
    }
}

const fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Running => "running",
        RunState::Cancelling => "cancelling",
        RunState::Parked => "parked",
        RunState::Ended(RunEnd::Succeeded) => "succeeded",
        RunState::Ended(RunEnd::SucceededWithWarnings) => "succeeded_with_warnings",
        RunState::Ended(RunEnd::Failed) => "failed",
        RunState::Ended(RunEnd::Cancelled) => "cancelled",
        RunState::Ended(RunEnd::NeedsAttention) => "needs_attention",
    }
}

impl RunView {
    fn of(run: &JobRun) -> Self {
        Self {
            run: run.run,
            state: run_state(run.state),
            queued_at: run.queued_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            follow_up: run.follow_up,
            superseded_by: run.superseded_by,
            members: run.members.iter().map(MemberView::of).collect(),
            warnings: WarningView::all(&run.warnings),
            debris: run.debris.clone(),
            failure: run.failure.as_ref().map(FailureView::of),
            steps: None,
            parked: None,
        }
    }
}

impl JobView {
    pub(crate) fn of(job: &job::Job) -> Self {
        let (good, all) = job.tally();
        Self {
            job: job.id,
            kind: job.kind,
            state: job.state(),
            title: job.title.clone(),
            trigger: job.trigger.to_string(),
            policy: job.policy.as_ref().map(PolicyView::of),
            created_at: job.created_at,
            ended_at: job.ended_at,
            databases: Tally { good, all },
            runs: job.runs.iter().map(RunView::of).collect(),
            skipped: job.skipped.iter().map(MemberView::of).collect(),
            held: job.held.iter().map(ElsewhereView::of).collect(),
            coalesced: job.coalesced.iter().map(ElsewhereView::of).collect(),
            warnings: WarningView::all(&job.warnings),
            failure: job.failure.as_ref().map(FailureView::of),
            locks: None,
            left_behind: None,
        }
    }

    /// The same with everything that is known of it.
    fn account(account: &JobAccount) -> Self {
        let mut view = Self::of(&account.job);
        for known in &account.runs {
            let Some(run) = view.runs.iter_mut().find(|run| run.run == known.run) else { continue };
            run.steps = Some(known.steps.iter().map(StepView::of).collect());
            run.parked = Some(known.parked.iter().map(StuckView::of).collect());
        }
        view.locks = Some(account.locks.iter().map(LockView::of).collect());
        view.left_behind = Some(account.debris.iter().map(LeftView::of).collect());
        view
    }

    /// In detail, for people.
    pub(crate) fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{} {}: {}", self.kind, self.job, self.state);
        for run in &self.runs {
            for member in &run.members {
                member.write(text, "  ");
            }
            let is_stuck = run.parked.as_ref().is_some_and(|parked| !parked.is_empty());
            // What is stuck is told with its step.
            if let Some(failure) = run.failure.as_ref().filter(|_| !is_stuck) {
                let _ = writeln!(text, "  run {}: {}", run.run, run.state.replace('_', " "));
                write_failure(text, "    ", failure);
            }
            WarningView::write(text, "  ", &run.warnings);
            // An account tells what is left now.
            for debris in run.debris.iter().filter(|_| self.left_behind.is_none()) {
                let _ = writeln!(text, "  left behind: {debris}");
            }
            for stuck in run.parked.iter().flatten() {
                stuck.write(text, "  ");
            }
            if let Some(steps) = &run.steps {
                let _ = writeln!(text, "  steps of run {}:", run.run);
                let mut table = Table::default();
                for step in steps {
                    step.row(&mut table);
                }
                table.write(text, "    ");
                for step in steps {
                    if let Some(hook) = &step.hook {
                        hook.write(text, "    ", &step.step);
                    }
                }
            }
        }
        for member in &self.skipped {
            member.write(text, "  ");
        }
        for held in &self.held {
            let _ = writeln!(text, "  {}: waits for restore {}", held.name, held.job);
        }
        for left in &self.coalesced {
            let _ = writeln!(text, "  {}: left to job {}, which waits for it", left.name, left.job);
        }
        WarningView::write(text, "  ", &self.warnings);
        if let Some(failure) = &self.failure {
            write_failure(text, "  ", failure);
        }
        for lock in self.locks.iter().flatten() {
            lock.write(text, "  ");
        }
        for left in self.left_behind.iter().flatten() {
            left.write(text, "  ");
        }
    }

    /// A row of the list.
    fn row(&self, table: &mut Table) {
        table.row([
            self.job.to_string(),
            text::time(self.created_at),
            self.kind.to_string(),
            self.state.to_string(),
            format!("{} of {}", self.databases.good, text::count(self.databases.all, "database")),
            self.title.clone(),
        ]);
    }
}

/// What `jobs` shows.
#[derive(Debug, Serialize)]
pub(crate) struct JobsView {
    jobs: Vec<JobView>,
    #[serde(skip)]
    in_detail: bool,
}

impl JobsView {
    /// All of them, newest first.
    pub(crate) fn list(jobs: &[job::Job]) -> Self {
        let mut jobs: Vec<JobView> = jobs.iter().map(JobView::of).collect();
        jobs.sort_by_key(|job| std::cmp::Reverse((job.created_at, job.job)));
        Self { jobs, in_detail: false }
    }

    /// One of them.
    pub(crate) fn one(job: &job::Job) -> Self {
        Self { jobs: vec![JobView::of(job)], in_detail: true }
    }

    /// One of them, with everything that is known of it.
    pub(crate) fn account(account: &JobAccount) -> Self {
        Self { jobs: vec![JobView::account(account)], in_detail: true }
    }

    pub(crate) fn write(&self, text: &mut String, indent: &str) {
        let mut table = Table::default();
        for job in &self.jobs {
            job.row(&mut table);
        }
        table.write(text, indent);
    }
}

impl Report for JobsView {
    const SCHEMA: &'static str = "stillpoint.jobs/1";

    fn text(&self, text: &mut String) {
        if self.in_detail {
            for job in &self.jobs {
                job.write(text);
            }
        } else if self.jobs.is_empty() {
            text.push_str("no jobs yet\n");
        } else {
            self.write(text, "");
        }
    }
}

/// What `verify` shows.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyView {
    job: JobView,
    points: Vec<PointView>,
}

impl VerifyView {
    pub(crate) fn of(job: &job::Job, points: Vec<PointView>) -> Self {
        Self { job: JobView::of(job), points }
    }
}

impl Report for VerifyView {
    const SCHEMA: &'static str = "stillpoint.verify/1";

    fn text(&self, text: &mut String) {
        self.job.write(text);
        for point in &self.points {
            point.write(text, "", true);
        }
    }
}
