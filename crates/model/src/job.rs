//! Jobs and the states of their runs: a job's state is computed, never stored.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Failure, IdempotencyKey, JobId, ProcessId, RunId};

use crate::id::{CopyId, DatabaseId, GroupId, PointId};
use crate::policy::{OnPartial, PolicyRef};
use crate::request::Trigger;
use crate::warning::Warning;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobKind {
    /// Makes restore points.
    Backup,
    /// Brings one back.
    Restore,
    /// Checks the bytes of some.
    Verify,
    /// Removes some.
    Prune,
    /// Rebuilds a passive copy.
    Reseed,
    /// Compares catalogue and storage.
    Reconcile,
    /// Carries some elsewhere.
    Replicate,
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Prune => "prune",
            Self::Reseed => "reseed",
            Self::Reconcile => "reconcile",
            Self::Replicate => "replicate",
        })
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// All is well.
    Succeeded,
    /// It did what it was for, and something is worth a look.
    SucceededWithWarnings,
    /// It failed and left nothing behind.
    Failed,
    /// It was cancelled and left nothing behind.
    Cancelled,
    /// It left debris that somebody has to remove.
    NeedsAttention,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its claims.
    Queued,
    /// It runs, forwards or unwinding.
    Running,
    /// It was asked to stop.
    Cancelling,
    /// It cannot go on by itself, and keeps its claims.
    Parked,
    /// It is over.
    Ended(RunEnd),
}

/// Where a job is: one vocabulary with [`RunState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// All its runs wait.
    Queued,
    /// One runs.
    Running,
    /// One was asked to stop.
    Cancelling,
    /// One cannot go on by itself.
    Parked,
    /// All is well.
    Succeeded,
    /// Something is worth a look.
    SucceededWithWarnings,
    /// Nothing of what was asked for was done.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A run left debris.
    NeedsAttention,
}

impl JobState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::Cancelling | Self::Parked)
    }

    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::SucceededWithWarnings => "succeeded_with_warnings",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::NeedsAttention => "needs_attention",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SucceededWithWarnings => "succeeded with warnings",
            Self::NeedsAttention => "needs attention",
            other => other.word(),
        })
    }
}

/// What became of one database in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemberEnd {
    /// It has a restore point.
    Point {
        /// Which.
        point: PointId,
        /// Its bytes are known to be damaged.
        suspect: bool,
    },
    /// What was asked for was done, without a new point (a restore, a verification).
    Done,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It was left out before anything happened.
    Skipped {
        /// Why.
        failure: Failure,
    },
}

/// A database in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobMember {
    /// Which.
    pub database: DatabaseId,
    /// What it is called.
    pub name: String,
    /// The copy, once one was chosen.
    pub copy: Option<CopyId>,
    /// What became of it; unknown while its run is open.
    pub end: Option<MemberEnd>,
}

impl JobMember {
    /// A database whose fate is open.
    pub fn new(database: DatabaseId, name: impl Into<String>) -> Self {
        Self { database, name: name.into(), copy: None, end: None }
    }

    /// A database that was left out.
    pub fn skipped(database: DatabaseId, name: impl Into<String>, failure: Failure) -> Self {
        Self { end: Some(MemberEnd::Skipped { failure }), ..Self::new(database, name) }
    }
}

/// A database that another job has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Elsewhere {
    /// Which.
    pub database: DatabaseId,
    /// What it is called.
    pub name: String,
    /// Which job.
    pub job: JobId,
}

impl Elsewhere {
    /// This one, which that job has.
    pub fn new(database: DatabaseId, name: impl Into<String>, job: JobId) -> Self {
        Self { database, name: name.into(), job }
    }
}

/// A run of a job: one plan in the engine, one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRun {
    /// Which.
    pub run: RunId,
    /// Where it is.
    pub state: RunState,
    /// When it was submitted.
    pub queued_at: DateTime<Utc>,
    /// When it got its claims.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// A follow-up (truncation check, replication, pruning): its failure is a warning of the job.
    pub follow_up: bool,
    /// The run that took its place after a missed freeze or a stale plan: its own end no longer
    /// counts, unless it left debris.
    pub superseded_by: Option<RunId>,
    /// Its databases.
    pub members: Vec<JobMember>,
    /// Why it ended as it did.
    pub failure: Option<Failure>,
    /// What it warns of.
    pub warnings: Vec<Warning>,
    /// What it left behind, in words.
    pub debris: Vec<String>,
}

impl JobRun {
    /// A queued run.
    pub fn new(run: RunId, queued_at: DateTime<Utc>) -> Self {
        Self {
            run,
            state: RunState::Queued,
            queued_at,
            started_at: None,
            ended_at: None,
            follow_up: false,
            superseded_by: None,
            members: Vec::new(),
            failure: None,
            warnings: Vec::new(),
            debris: Vec::new(),
        }
    }
}

/// A process that has a job in hand, as the leases of its store know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobOwner {
    /// Which.
    pub process: ProcessId,
    /// The epoch of its lease.
    pub epoch: u64,
}

impl JobOwner {
    /// The process that holds this epoch.
    pub const fn new(process: ProcessId, epoch: u64) -> Self {
        Self { process, epoch }
    }
}

/// What somebody asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The key of the request.
    pub key: IdempotencyKey,
    /// BLAKE3 of the request, so that a key that is used again for something else is noticed.
    pub request_digest: String,
    /// Why it exists.
    pub trigger: Trigger,
    /// The group it is about.
    pub group: Option<GroupId>,
    /// What it is about, for people.
    pub title: String,
    /// The policy it pins.
    pub policy: Option<PolicyRef>,
    /// What a partial success is called.
    pub on_partial: OnPartial,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last of its runs was begun; until then more may come, and the job is not over, whatever its runs say.
    pub planned_at: Option<DateTime<Utc>>,
    /// Who had it stopped before everything that it was for was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// Its runs, in order of their making.
    pub runs: Vec<JobRun>,
    /// Databases that no run was made for, each with its reason.
    pub skipped: Vec<JobMember>,
    /// Databases that wait until a restore is over, and are then planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Elsewhere>,
    /// Databases that are left to an earlier job of the same schedule, which still waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coalesced: Vec<Elsewhere>,
    /// What the plan warns of.
    pub warnings: Vec<Warning>,
    /// Why there is no run at all.
    pub failure: Option<Failure>,
    /// Who has it in hand, or had it at its end; nobody can say where there are no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<JobOwner>,
}

impl Job {
    /// A job that has only been asked for.
    pub fn new(
        id: JobId,
        kind: JobKind,
        key: IdempotencyKey,
        trigger: Trigger,
        created_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            kind,
            key,
            request_digest: String::new(),
            trigger,
            group: None,
            title: String::new(),
            policy: None,
            on_partial: OnPartial::Warn,
            created_at,
            planned_at: None,
            stopped_by: None,
            ended_at: None,
            runs: Vec::new(),
            skipped: Vec::new(),
            held: Vec::new(),
            coalesced: Vec::new(),
            warnings: Vec::new(),
            failure: None,
            owner: None,
        }
    }

    /// Its state, from the states of its runs.
    pub fn state(&self) -> JobState {
        roll_up(self)
    }

    /// The runs whose end counts: not those that another run of the job has taken the place of. One that was to have a
    /// successor which never came to be counts.
    pub fn counted(&self) -> impl Iterator<Item = &JobRun> {
        self.runs.iter().filter(|run| {
            run.superseded_by.is_none_or(|next| self.runs.iter().all(|known| known.run != next))
        })
    }

    /// What it was about, each once: in the runs that count and do not merely follow, and what was skipped.
    pub fn members(&self) -> impl Iterator<Item = &JobMember> {
        let counted = self.counted().filter(|run| !run.follow_up);
        counted.flat_map(|run| &run.members).chain(&self.skipped)
    }

    /// How many databases came out well, and how many there were.
    pub fn tally(&self) -> (usize, usize) {
        let (mut good, mut all) = (0, 0);
        for member in self.members() {
            all += 1;
            good += usize::from(matches!(
                member.end,
                Some(MemberEnd::Point { suspect: false, .. } | MemberEnd::Done)
            ));
        }
        (good, all)
    }
}

/// The state of a job. While a run is open the most telling one shows: parked, cancelling,
/// running, queued. While more runs may come the job is running, also between two of them. Then
/// debris needs attention; then cancelled; then all failed is failed, all good is success, and anything between is success with warnings (or failed, if the policy's `on_partial` says so and a database failed).
fn roll_up(job: &Job) -> JobState {
    let open = |state: RunState| job.runs.iter().any(|run| run.state == state);
    for (run, shown) in [
        (RunState::Parked, JobState::Parked),
        (RunState::Cancelling, JobState::Cancelling),
        (RunState::Running, JobState::Running),
        (RunState::Queued, JobState::Queued),
    ] {
        if open(run) {
            return shown;
        }
    }
    let is_stopped = job.stopped_by.is_some();
    // What follows on nothing makes nothing better.
    if job.failure.is_some() && job.runs.iter().all(|run| run.follow_up) && !is_stopped {
        return JobState::Failed;
    }
    if job.planned_at.is_none() {
        return if job.runs.is_empty() { JobState::Queued } else { JobState::Running };
    }
    if open(RunState::Ended(RunEnd::NeedsAttention)) {
        return JobState::NeedsAttention;
    }
    let counted: Vec<&JobRun> = job.counted().filter(|run| !run.follow_up).collect();
    let ended =
        |end: RunEnd| counted.iter().filter(|run| run.state == RunState::Ended(end)).count();
    if is_stopped || ended(RunEnd::Cancelled) > 0 {
        return JobState::Cancelled;
    }
    let failed_runs = ended(RunEnd::Failed);
    if failed_runs == counted.len() && (failed_runs > 0 || !job.skipped.is_empty()) {
        return JobState::Failed;
    }
    let members = || counted.iter().flat_map(|run| &run.members);
    let failed_member = |member: &JobMember| {
        matches!(member.end, Some(MemberEnd::Failed { .. } | MemberEnd::Skipped { .. }))
    };
    if members().next().is_some() && members().all(failed_member) {
        return JobState::Failed;
    }
    let partial = failed_runs > 0 || members().any(failed_member) || !job.skipped.is_empty();
    if partial {
        return match job.on_partial {
            OnPartial::Warn => JobState::SucceededWithWarnings,
            OnPartial::Fail => JobState::Failed,
        };
    }
    let suspect =
        |member: &JobMember| matches!(member.end, Some(MemberEnd::Point { suspect: true, .. }));
    let warned = ended(RunEnd::SucceededWithWarnings) > 0
        || !job.warnings.is_empty()
        || job.failure.is_some()
        || job.runs.iter().any(|run| !run.warnings.is_empty())
        || members().any(suspect)
        || job
            .runs
            .iter()
            .any(|run| run.follow_up && run.state != RunState::Ended(RunEnd::Succeeded));
    if warned { JobState::SucceededWithWarnings } else { JobState::Succeeded }
}
