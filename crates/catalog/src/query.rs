//! What can be asked of a catalogue, and how answers are cut into pages.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{IdError, JobId, RunId};
use stillpoint_model::id::{DatabaseId, GroupId, PolicyId, SetToken};
use stillpoint_model::job::{Job, JobKind};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{PointState, RestorePoint};
use uuid::Uuid;

/// The instant that listings are ordered by, in microseconds since 1970.
pub fn order_key(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// A name as it is compared: case ignored, in all scripts.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Where a listing goes on: behind this entry. Opaque text, valid for the query it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageToken {
    at: i64,
    id: Uuid,
}

impl PageToken {
    /// Behind the entry of this instant (see [`order_key`]) and id.
    pub const fn behind(at: i64, id: Uuid) -> Self {
        Self { at, id }
    }

    /// The instant of the last entry of the page before.
    pub const fn at(&self) -> i64 {
        self.at
    }

    /// Its id.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Whether an entry comes behind it: older, or as old and of a higher id.
    pub fn precedes(&self, at: i64, id: Uuid) -> bool {
        at < self.at || (at == self.at && id > self.id)
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.id.simple())
    }
}

impl FromStr for PageToken {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::new("page token", text, "it did not come from a listing");
        let (at, id) = text.split_once('.').ok_or_else(bad)?;
        let at = at.parse().map_err(|_| bad())?;
        Ok(Self { at, id: Uuid::parse_str(id).map_err(|_| bad())? })
    }
}

impl Serialize for PageToken {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PageToken {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How much of a listing is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most so many entries; 0 counts as 1, and what exceeds [`Page::LARGEST`] as that.
    pub limit: u32,
    /// Behind this entry; from the start if none.
    pub after: Option<PageToken>,
}

impl Page {
    /// The largest page.
    pub const LARGEST: u32 = 1000;

    /// The first entries.
    pub const fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// The limit within its bounds.
    pub fn size(&self) -> u32 {
        self.limit.clamp(1, Self::LARGEST)
    }
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where to go on; none if that was all.
    pub next: Option<PageToken>,
}

impl<T> Listing<T> {
    /// A page of at most `size` from one entry more than that, if there were so many.
    pub fn cut(mut items: Vec<T>, size: u32, place: impl Fn(&T) -> PageToken) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = if more { items.last().map(place) } else { None };
        Self { items, next }
    }
}

/// Which restore points are wanted; all conditions hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointQuery {
    /// Of this database.
    pub database: Option<DatabaseId>,
    /// Made for this group.
    pub group: Option<GroupId>,
    /// Made under this policy, whichever version.
    pub policy: Option<PolicyId>,
    /// Made by this job.
    pub job: Option<JobId>,
    /// Made by this run.
    pub run: Option<RunId>,
    /// Of this set of snapshots.
    pub set: Option<SetToken>,
    /// Of this kind.
    pub kind: Option<BackupKind>,
    /// In this state.
    pub state: Option<PointState>,
    /// Taken then or later.
    pub from: Option<DateTime<Utc>>,
    /// Taken then or earlier.
    pub until: Option<DateTime<Utc>>,
}

impl PointQuery {
    /// Every point.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every point of a database.
    pub fn of(database: DatabaseId) -> Self {
        Self { database: Some(database), ..Self::default() }
    }

    /// Whether a point is wanted.
    pub fn wants(&self, point: &RestorePoint) -> bool {
        let at = order_key(point.taken_at);
        let policy = point.policy.as_ref().map(|policy| policy.id);
        self.database.is_none_or(|wanted| wanted == point.database)
            && self.group.is_none_or(|wanted| Some(wanted) == point.group)
            && self.policy.is_none_or(|wanted| Some(wanted) == policy)
            && self.job.is_none_or(|wanted| wanted == point.job)
            && self.run.is_none_or(|wanted| wanted == point.run)
            && self.set.as_ref().is_none_or(|wanted| *wanted == point.set)
            && self.kind.is_none_or(|wanted| wanted == point.kind)
            && self.state.is_none_or(|wanted| wanted == point.state)
            && self.from.is_none_or(|from| order_key(from) <= at)
            && self.until.is_none_or(|until| at <= order_key(until))
    }
}

/// Which jobs are wanted; all conditions hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobQuery {
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// About this group.
    pub group: Option<GroupId>,
    /// Those that are over (`true`) or that are not (`false`).
    pub ended: Option<bool>,
    /// Asked for then or later.
    pub from: Option<DateTime<Utc>>,
    /// Asked for then or earlier.
    pub until: Option<DateTime<Utc>>,
}

impl JobQuery {
    /// Every job.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every job that is not over.
    pub fn open() -> Self {
        Self { ended: Some(false), ..Self::default() }
    }

    /// Whether a job is wanted.
    pub fn wants(&self, job: &Job) -> bool {
        let at = order_key(job.created_at);
        self.kind.is_none_or(|wanted| wanted == job.kind)
            && self.group.is_none_or(|wanted| Some(wanted) == job.group)
            && self.ended.is_none_or(|wanted| wanted == job.state().is_final())
            && self.from.is_none_or(|from| order_key(from) <= at)
            && self.until.is_none_or(|until| at <= order_key(until))
    }
}
