//! Schedules as they are stored: versioned, and never changed in place.

use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{AttachmentId, Schedule, ScheduleError};
use crate::id::ScheduleId;

/// A schedule at one version. An edit makes the next one, which counts from the instant of its making on: what was due before
/// was due by the version before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredSchedule {
    /// Which schedule.
    pub id: ScheduleId,
    /// From 1.
    pub version: NonZeroU32,
    /// When this version was made.
    pub since: DateTime<Utc>,
    /// What it says. Its name is unique, case ignored.
    pub schedule: Schedule,
}

impl StoredSchedule {
    /// Version 1.
    pub const fn new(id: ScheduleId, since: DateTime<Utc>, schedule: Schedule) -> Self {
        Self { id, version: NonZeroU32::MIN, since, schedule }
    }

    /// What it says where it is attached: under the attachment's own name, of which its jitter and the keys of its jobs are
    /// made.
    pub fn attached(&self, attachment: AttachmentId) -> Schedule {
        Schedule { name: attachment.to_string(), ..self.schedule.clone() }
    }

    /// The version after this one.
    ///
    /// # Errors
    /// What [`Schedule::check`] finds.
    pub fn edit(&self, schedule: Schedule, since: DateTime<Utc>) -> Result<Self, ScheduleError> {
        schedule.check()?;
        // A clock that has gone back does not put versions out of order.
        let since = since.max(self.since);
        Ok(Self { id: self.id, version: self.version.saturating_add(1), since, schedule })
    }
}
