//! What became of the due times of a schedule that hangs on a group: jobs that were asked for, reasons why there is none.
//!
//! ```text
//!             considered                        now
//!   ──┬─────┬─────┴──┬────────┬────────┬────────┴─▶
//!    job   lapse    due      due     to come         Ledger { considered, open: [jobs that are not over] }
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stillpoint_context::{Failure, IdError, JobId};

use super::{Due, Fate, Overrun, StoredSchedule};
use crate::group::ResourceGroup;
use crate::id::{GroupId, PolicyId, ScheduleId};

/// A schedule on a policy of a group: what comes due, each time as one job. Its text is `<schedule>/<group>/<policy>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// When.
    pub schedule: ScheduleId,
    /// What is backed up.
    pub group: GroupId,
    /// How.
    pub policy: PolicyId,
}

impl AttachmentId {
    /// Those of a group.
    pub fn all_of(group: &ResourceGroup) -> impl Iterator<Item = Self> {
        group.attachments.iter().map(|attached| Self {
            schedule: attached.schedule,
            group: group.id,
            policy: attached.policy,
        })
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.schedule, self.group, self.policy)
    }
}

impl FromStr for AttachmentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::new("attachment", text, "it is not <schedule>/<group>/<policy>");
        let (schedule, rest) = text.split_once('/').ok_or_else(bad)?;
        let (group, policy) = rest.split_once('/').ok_or_else(bad)?;
        Ok(Self { schedule: schedule.parse()?, group: group.parse()?, policy: policy.parse()? })
    }
}

impl Serialize for AttachmentId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AttachmentId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a due time became no job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// Nobody was there, and the schedule does not make up for it.
    Missed,
    /// Clocks skipped it.
    Gap,
    /// Clocks showed it twice, and this is not the time that counts.
    Overlap {
        /// Whether it is the last.
        last: bool,
    },
    /// It fell into a blackout.
    Blackout {
        /// Which.
        name: String,
    },
    /// A job of the same attachment was not over.
    Overrun,
    /// It is one with a job that waited already.
    Coalesced {
        /// When that one was due.
        into: DateTime<Utc>,
    },
    /// The schedule was changed before its time had come.
    Changed,
    /// The schedule was detached before its job had begun.
    Detached,
    /// A job could not be made.
    Refused {
        /// Why.
        failure: Failure,
    },
}

impl Why {
    /// Why a firing of this fate does not take place; none if it does.
    pub fn of(fate: &Fate) -> Option<Self> {
        match fate {
            Fate::Planned | Fate::Shifted | Fate::Repeated { .. } => None,
            Fate::SkippedGap => Some(Self::Gap),
            Fate::SkippedOverlap { last } => Some(Self::Overlap { last: *last }),
            Fate::SkippedBlackout { name } => Some(Self::Blackout { name: name.clone() }),
        }
    }

    /// The word that stored forms and documents use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Gap => "gap",
            Self::Overlap { .. } => "overlap",
            Self::Blackout { .. } => "blackout",
            Self::Overrun => "overrun",
            Self::Coalesced { .. } => "coalesced",
            Self::Changed => "changed",
            Self::Detached => "detached",
            Self::Refused { .. } => "refused",
        }
    }
}

/// In a few words: `coalesced with the one due 2026-01-01 02:00:00 UTC`.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed => f.write_str("missed: nobody was there"),
            Self::Gap => f.write_str("skipped: clocks skip its time"),
            Self::Overlap { last: true } => f.write_str("skipped: the last of two such times"),
            Self::Overlap { last: false } => f.write_str("skipped: the first of two such times"),
            Self::Blackout { name } => write!(f, "skipped: blackout {name:?}"),
            Self::Overrun => f.write_str("skipped: the job before was not over"),
            Self::Coalesced { into } => write!(f, "coalesced with the one due {into}"),
            Self::Changed => f.write_str("skipped: the schedule was changed before its time"),
            Self::Detached => {
                f.write_str("skipped: the schedule was detached before its job began")
            }
            Self::Refused { failure } => write!(f, "no job could be made: {failure}"),
        }
    }
}

/// One due time that became no job, or several in a row of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lapse {
    /// The first.
    pub from: DateTime<Utc>,
    /// The last.
    pub to: DateTime<Utc>,
    /// How many.
    pub count: u64,
    /// Whether there were more: beyond a hundred thousand nobody counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_more: bool,
    /// Why.
    pub why: Why,
}

impl Lapse {
    /// One due time.
    pub const fn one(due: DateTime<Utc>, why: Why) -> Self {
        Self { from: due, to: due, count: 1, is_more: false, why }
    }

    /// Whether a due time is among them, if it is one of the schedule.
    pub fn has(&self, due: DateTime<Utc>) -> bool {
        (self.from..=self.to).contains(&due)
    }

    /// Adds a later due time to a list.
    pub(super) fn append(lapses: &mut Vec<Self>, due: DateTime<Utc>, why: Why) {
        match lapses.last_mut() {
            Some(last) if last.why == why && !last.is_more => {
                last.to = due;
                last.count += 1;
            }
            _ => lapses.push(Self::one(due, why)),
        }
    }
}

/// A lapse as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedLapse {
    /// Of what.
    pub attachment: AttachmentId,
    /// When it was noted.
    pub at: DateTime<Utc>,
    /// What it is.
    pub lapse: Lapse,
}

impl RecordedLapse {
    /// Noted now.
    pub const fn new(attachment: AttachmentId, at: DateTime<Utc>, lapse: Lapse) -> Self {
        Self { attachment, at, lapse }
    }
}

/// A due time whose job was intended, and is not known to be over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenDue {
    /// When it was due.
    pub due: DateTime<Utc>,
    /// What the schedule was called then.
    pub schedule: String,
    /// The version by which it was due.
    pub version: NonZeroU32,
    /// Whether it is made up for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_late: bool,
    /// Its job; none until that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

impl OpenDue {
    /// One that has no job yet.
    pub fn new(due: &Due, schedule: impl Into<String>, version: NonZeroU32) -> Self {
        let (schedule, is_late) = (schedule.into(), due.is_late);
        Self { due: due.firing.due, schedule, version, is_late, job: None }
    }
}

/// How far the job of an open due time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for what it needs.
    Waiting,
    /// It is at work, or needs a person.
    AtWork,
    /// It is over.
    Over,
}

/// What is known of the due times of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ledger {
    /// Of which.
    pub attachment: AttachmentId,
    /// The version of the schedule by which they were considered.
    pub version: NonZeroU32,
    /// Up to when all due times are either jobs, or open, or lapses.
    pub considered: DateTime<Utc>,
    /// Those whose jobs are not known to be over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenDue>,
}

impl Ledger {
    /// One that begins now.
    pub const fn new(attachment: AttachmentId, version: NonZeroU32, now: DateTime<Utc>) -> Self {
        Self { attachment, version, considered: now, open: Vec::new() }
    }

    /// Whether a job is still to be begun.
    pub fn is_unbegun(&self) -> bool {
        self.open.iter().any(|open| open.job.is_none())
    }

    /// A due time that is open and whose job has not begun, to note that in it.
    pub fn unbegun(&mut self, due: DateTime<Utc>) -> Option<&mut OpenDue> {
        self.open.iter_mut().find(|open| open.due == due && open.job.is_none())
    }

    /// Why the due times of an attachment that ends now become no jobs: those whose jobs have not begun, and
    /// [those that nobody has considered](Self::pass).
    pub fn detach(&self, versions: &[StoredSchedule], now: DateTime<Utc>) -> Vec<Lapse> {
        let unbegun = self.open.iter().filter(|open| open.job.is_none());
        // Each for itself: what is due between two of them may be a job, or have its reason already.
        let mut lapses: Vec<_> = unbegun.map(|open| Lapse::one(open.due, Why::Detached)).collect();
        lapses.extend(self.pass(versions, now));
        lapses.sort_by_key(|lapse| lapse.from);
        lapses
    }

    /// Why the due times that nobody has considered by now become no jobs if nobody ever does, but for those that are open. By the
    /// versions of the schedule from that of the ledger on, in order, each of which counts until the next one was made.
    pub fn pass(&self, versions: &[StoredSchedule], now: DateTime<Utc>) -> Vec<Lapse> {
        let mut considered = self.considered;
        // Where a clock has gone back they may be later than what is considered.
        let mut open: Vec<_> = self.open.iter().map(|open| open.due).collect();
        open.sort_unstable();
        let mut lapses = Vec::new();
        for (place, stored) in versions.iter().enumerate() {
            let next = versions.get(place + 1);
            let until = next.map_or(now, |next| next.since.min(now));
            let schedule = stored.attached(self.attachment);
            for due in open.iter().filter(|due| **due <= until) {
                lapses.extend(schedule.pass(considered, *due - TimeDelta::nanoseconds(1)));
                considered = considered.max(*due);
            }
            lapses.extend(schedule.pass(considered, until));
            considered = considered.max(until);
        }
        lapses
    }

    /// Forgets due times whose jobs are over.
    pub fn forget_over(&mut self, progress: impl Fn(&OpenDue) -> Progress) {
        self.open.retain(|open| progress(open) != Progress::Over);
    }

    /// Takes in what is due, as the schedule says of jobs that are not over; gives what becomes no job.
    ///
    /// What is made up for is set against the jobs that there were before: where three are to be made up for, three are.
    pub fn admit(
        &mut self,
        overrun: Overrun,
        due: impl IntoIterator<Item = OpenDue>,
        progress: impl Fn(&OpenDue) -> Progress,
    ) -> Vec<Lapse> {
        let before = self.open.len();
        let mut lapses = Vec::new();
        for due in due {
            let others = if due.is_late { &self.open[..before] } else { &self.open[..] };
            let waiting = others.iter().rfind(|open| progress(open) == Progress::Waiting);
            let why = match overrun {
                _ if others.is_empty() => None,
                Overrun::Queue => None,
                Overrun::Skip => Some(Why::Overrun),
                Overrun::Coalesce => waiting.map(|open| Why::Coalesced { into: open.due }),
            };
            match why {
                Some(why) => lapses.push(Lapse::one(due.due, why)),
                None => self.open.push(due),
            }
        }
        lapses
    }
}

#[cfg(test)]
mod tests;
