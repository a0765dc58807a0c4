//! What a store keeps of schedules: the schedules themselves, and what became of their due times.

use std::fmt::Debug;
use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_model::id::ScheduleId;
use stillpoint_model::job::Job;
use stillpoint_model::schedule::{AttachmentId, Ledger, RecordedLapse, StoredSchedule};

use crate::catalog::Begun;
use crate::error::CatalogError;

/// How many of the newest lapses of each attachment are kept; and of all those together that have no ledger any more.
pub const LAPSES_KEPT: u32 = 1_000;

/// The most attachments that [`Times::unbegun`] names.
pub const UNBEGUN_NAMED: u32 = 1_000;

/// What a scheduler looks at now and then to see whether there is something new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Times {
    /// Another number whenever a schedule or a group was stored or removed. It rises.
    pub revision: u64,
    /// The latest instant at which anybody settled anything.
    pub clock: Option<DateTime<Utc>>,
    /// How often somebody has said that the clock is right although it has gone back.
    pub believed: u64,
    /// Attachments with a due time whose job has not begun, in order of their ids; the first [`UNBEGUN_NAMED`].
    pub unbegun: Vec<AttachmentId>,
}

/// A ledger as it is stored, with the number that tells whether somebody else has written it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises with each change, and is never used twice.
    pub revision: u64,
    /// The ledger.
    pub ledger: Ledger,
}

/// What a scheduler has settled of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Of which.
    pub attachment: AttachmentId,
    /// The revision of the entry that it was made from; none if there was no entry.
    pub from: Option<u64>,
    /// The ledger from now on; none to remove it. Its lapses stay.
    pub to: Option<Ledger>,
    /// The due times that became no jobs.
    pub lapses: Vec<RecordedLapse>,
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settling {
    /// It is stored, under this revision (none if the entry was removed).
    Done(Option<u64>),
    /// Somebody else was first: this is the entry now.
    Stale(Option<Box<Entry>>),
}

/// The schedules of a catalogue. Its rules are those of [`Catalog`](crate::Catalog).
#[async_trait]
pub trait ScheduleCatalog: Debug + Send + Sync + 'static {
    /// Stores a version of a schedule. Versions are never changed: the first is 1, each next one follows the newest; a
    /// repeated put of equal content succeeds.
    ///
    /// # Errors
    /// [`CatalogError::ScheduleVersion`] for a gap or a changed old version; [`CatalogError::NameTaken`] if another
    /// schedule's newest version has the name, case ignored.
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Result<(), CatalogError>;

    /// A version of a schedule, or its newest.
    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<StoredSchedule>, CatalogError>;

    /// The newest version of every schedule, by name.
    async fn schedules(&self) -> Result<Vec<StoredSchedule>, CatalogError>;

    /// Removes a schedule with all its versions.
    ///
    /// # Errors
    /// [`CatalogError::ScheduleInUse`] while it is attached to a group.
    async fn remove_schedule(&self, id: ScheduleId) -> Result<(), CatalogError>;

    /// Whether there is something new.
    async fn times(&self) -> Result<Times, CatalogError>;

    /// Every ledger, in order of their attachments.
    async fn ledgers(&self) -> Result<Vec<Entry>, CatalogError>;

    /// One ledger.
    async fn ledger(&self, attachment: AttachmentId) -> Result<Option<Entry>, CatalogError>;

    /// Stores what was settled at an instant, each settlement for itself, all in one commit: one that was made from what is
    /// no longer there is not stored. The clock of [`Times`] is moved to the instant, never back. Of each attachment the
    /// newest [`LAPSES_KEPT`] lapses are kept; of those that have no ledger any more as many, of all of them together: where a ledger
    /// is removed, the oldest of these go. The answers are in the order of the settlements, of which each is about another
    /// attachment.
    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Result<Vec<Settling>, CatalogError>;

    /// Stores the job of a due time, as [`begin_job`](crate::Catalog::begin_job) does, and notes it in the ledger of its attachment,
    /// both in one commit, if the due time is open there and has no job: of somebody who begins it and somebody who settles it
    /// otherwise, one does.
    ///
    /// # Errors
    /// [`CatalogError::DueSettled`] if it is not open, or has its job; those of `begin_job`. Nothing is stored or noted then.
    async fn begin_due(
        &self,
        job: &Job,
        of: AttachmentId,
        due: DateTime<Utc>,
    ) -> Result<Begun, CatalogError>;

    /// The newest lapses, newest first: of one attachment, or of all, also of those that are not attached any more.
    async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, CatalogError>;

    /// Says that the clock is right although it has gone back: the clock of [`Times`] is put to this instant, and so is what
    /// was considered beyond it.
    async fn believe_clock(&self, now: DateTime<Utc>) -> Result<(), CatalogError>;
}
