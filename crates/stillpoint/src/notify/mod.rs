//! Notifications: who is told what became of a job.
//!
//! ```text
//!   run ─ is parked, or stands still ──────┐
//!   job ─ runs ─ hooks ─ its end is known ─┬─ filter ─▶ Notifier (log)
//!                                          ├─ filter ─▶ Notifier (mail)       each with a time-out; what fails is a warning of the job
//!                                          └─ filter ─▶ Notifier (webhook)
//!                                                       then the job is stored, and over
//! ```
//!
//! Nothing of a job runs any more when its end is told, so no such notification is ever sent inside a freeze of its own. A run that is
//! parked waits for a person, and is told of at once, each time that it is: as what needs attention, with the state `parked`. So is,
//! once, a run of a process that is gone whose records cannot be read. One that stands still because the journal has been failing for
//! a while is told of as what needs attention too, with the state that its job has.

mod log;
mod report;
mod send;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Failure, IdempotencyKey};
use stillpoint_model::job::JobState;

pub use log::LogNotifier;
pub use report::{JobReport, REPORT, ReportedDatabase, ReportedProblem};

/// What became of a job, as far as it matters to whoever is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing of what was asked for was done.
    Failed,
    /// It left something that somebody has to see to, or waits for somebody: a run of it is parked, or stands still because the
    /// journal fails.
    NeedsAttention,
    /// Something is worth a look: also where some of its databases failed.
    Warnings,
    /// All is well.
    Succeeded,
    /// Somebody cancelled it.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failed, Self::NeedsAttention, Self::Warnings, Self::Succeeded, Self::Cancelled];

    /// The outcome of a job in this state; none while it is not over.
    pub const fn of(state: JobState) -> Option<Self> {
        match state {
            JobState::Failed => Some(Self::Failed),
            JobState::NeedsAttention => Some(Self::NeedsAttention),
            JobState::SucceededWithWarnings => Some(Self::Warnings),
            JobState::Succeeded => Some(Self::Succeeded),
            JobState::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NeedsAttention => "needs_attention",
            Self::Warnings => "warnings",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Which outcomes somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotifyOn(BTreeSet<Outcome>);

impl NotifyOn {
    /// These.
    pub fn these(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        Self(outcomes.into_iter().collect())
    }

    /// Every one.
    pub fn all() -> Self {
        Self::these(Outcome::ALL)
    }

    /// Whether this one is told.
    pub fn includes(&self, outcome: Outcome) -> bool {
        self.0.contains(&outcome)
    }
}

impl Default for NotifyOn {
    /// What did not go well: failed, needs attention, warnings.
    fn default() -> Self {
        Self::these([Outcome::Failed, Outcome::NeedsAttention, Outcome::Warnings])
    }
}

/// What somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The same however often the end of one job, one parking of a run of it, one standstill, or that one cannot be read, is told: a
    /// side that remembers it can drop a repeat.
    pub key: IdempotencyKey,
    /// What became of the job.
    pub outcome: Outcome,
    /// One line, such as `backup mail: succeeded with warnings, 4 of 5 databases`. No control characters.
    pub subject: String,
    /// The same at length, in lines of plain text.
    pub text: String,
    /// The same as data; [`JobReport::to_json`] is what is attached.
    pub report: JobReport,
    /// It was sent by hand, to try whether it arrives.
    pub is_test: bool,
}

/// Tells somebody what became of jobs: by mail, by a call of a web service, in a log.
///
/// # The contract
/// - **Once, or again after a crash.** One process sends one notification for the end of one job to each notifier, and one before that
///   for each time that a run of it is parked, stands still, or is found that cannot be read. A process that carries on with
///   a job of one that has died may send it again, under the same [key](Notification::key). What fails is not tried again by the
///   caller; a notifier that tries by itself does so only where nothing can have arrived yet.
/// - **It ends.** By the deadline of the call, or when it is cancelled; a call that does not is dropped.
/// - **No secrets.** Neither `Debug` nor an error shows a password, a token, or an address that holds one.
/// - **Never in the way.** What it answers changes nothing about the job but a warning.
///
/// # Cancel safety
/// Dropping the future leaves open whether the notification arrives.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync + 'static {
    /// What it is called in warnings.
    fn name(&self) -> &str;

    /// Tells.
    ///
    /// # Errors
    /// When it did not arrive, or nobody knows whether it did.
    async fn notify(&self, cx: &Cx, notification: &Notification) -> Result<(), Failure>;
}

/// A notifier, and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) on: NotifyOn,
    pub(crate) notifier: Arc<dyn Notifier>,
}
