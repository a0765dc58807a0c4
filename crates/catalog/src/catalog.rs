//! The trait that a store implements.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{JobId, ProcessId, RunId, StepName};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{
    DatabaseId, ExposureKey, GroupId, HoldName, PointId, PolicyId, SessionId, SetToken,
};
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::point::{PointFact, PointState, RestorePoint};
use stillpoint_model::policy::Policy;
use stillpoint_model::schedule::StoredSchedule;

use crate::error::CatalogError;
use crate::query::{JobQuery, Listing, Page, PointQuery};
use crate::schedules::ScheduleCatalog;

/// How far a pump has read the facts of a journal. Only the pump knows what the number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub u64);

/// What became of [`Catalog::begin_job`] and [`ScheduleCatalog::begin_due`].
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// The job is new and stored.
    New,
    /// The same request came before; this is its job.
    Existing(Box<Job>),
}

impl Begun {
    /// Which job it is, given the one that was to begin.
    pub fn id(&self, new: &Job) -> JobId {
        match self {
            Self::New => new.id,
            Self::Existing(known) => known.id,
        }
    }
}

/// What kind of thing was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DebrisKind {
    /// Snapshots of a set, or some of them, maybe.
    Snapshots(SetToken),
    /// An exposure.
    Exposure(ExposureKey),
    /// A session of the Exchange plug-in.
    Session(SessionId),
    /// A manifest beside the data, of a restore point that was never completed.
    Manifest(PointId),
    /// Files that a restore staged beside their targets, by the key of the restore.
    Staged(String),
    /// Snapshots of a set that no restore point lies on and no run is known to have left, since when they were noted first; or what
    /// is left of points that were removed.
    Orphan(SetToken),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for DebrisKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshots(token) => write!(f, "snapshots {token}"),
            Self::Exposure(key) => write!(f, "exposure {key}"),
            Self::Session(session) => write!(f, "session {session}"),
            Self::Manifest(point) => write!(f, "manifest of {point}"),
            Self::Orphan(token) => write!(f, "orphaned snapshots {token}"),
            Self::Staged(restore) => write!(f, "staged files of restore {restore}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Something that a run left behind and that somebody has to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Debris {
    /// What tells it from other debris, e.g. run and step.
    pub key: String,
    /// The run that left it.
    pub run: RunId,
    /// The job of that run, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The step that owed its removal, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepName>,
    /// What it is.
    pub kind: DebrisKind,
    /// Whether it is only possible that it is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possible: bool,
    /// What is known of it, in one sentence.
    pub message: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl Debris {
    /// Debris of this kind.
    pub fn new(
        key: impl Into<String>,
        run: RunId,
        kind: DebrisKind,
        message: impl Into<String>,
        since: DateTime<Utc>,
    ) -> Self {
        let (key, message) = (key.into(), message.into());
        Self { key, run, job: None, step: None, kind, possible: false, message, since }
    }

    /// The same of a run of this job.
    #[must_use]
    pub const fn of_job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// The same, whose removal this step owed.
    #[must_use]
    pub fn owed_by(mut self, step: StepName) -> Self {
        self.step = Some(step);
        self
    }

    /// The same, of which it is not known whether it is there.
    #[must_use]
    pub const fn maybe(mut self, possible: bool) -> Self {
        self.possible = possible;
        self
    }
}

/// Whether a hold may be put on a point that is as the catalogue knows it: for whoever implements
/// [`Catalog::put_hold`].
///
/// # Errors
/// [`CatalogError::NotFound`] if it is not there, [`CatalogError::Expiring`] if it is being deleted.
pub fn may_hold(id: PointId, known: Option<&RestorePoint>) -> Result<(), CatalogError> {
    match known.map(|point| point.state) {
        None => Err(CatalogError::NotFound { kind: "restore point", id: id.to_string() }),
        Some(PointState::Expiring) => Err(CatalogError::Expiring { point: id }),
        Some(_) => Ok(()),
    }
}

/// The catalogue.
///
/// **Atomicity.** Each call takes effect whole or not at all; no reader sees half of it. When a call
/// that changes something has returned `Ok`, the change is durable if the catalogue is.
///
/// **Order.** Changes take effect in some order that fits the order of calls and returns; a call
/// that began after another returned sees its effect.
///
/// **Idempotence.** Every call may be repeated. [`Catalog::apply`] ignores facts that it has seen,
/// [`Catalog::begin_job`] gives back the job of the same request, puts of the same content and
/// removals of what is gone succeed.
///
/// **Cancel safety.** A dropped future may or may not take effect, but never in half.
///
/// **Concurrency.** Any number of calls at once, from any thread.
///
/// # Errors
/// [`CatalogError`] by kind. After an error that says "effect unknown" the caller reads again.
///
/// The instants of listings are compared to the microsecond ([`crate::order_key`]).
#[async_trait]
pub trait Catalog: ScheduleCatalog + Debug + Send + Sync + 'static {
    /// Takes in what happened to restore points, all or nothing, and moves the cursor (never
    /// back). Facts about a point that was removed are ignored for ever, so that a story told
    /// again does not bring it back.
    ///
    /// # Errors
    /// [`CatalogError::Fact`] if a fact does not fit what is known.
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Result<(), CatalogError>;

    /// How far the facts of the journal have been taken in.
    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError>;

    /// A restore point.
    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError>;

    /// Restore points, newest first (then by id). Points that come or go meanwhile may or may not
    /// be seen; the others are seen exactly once over all pages.
    async fn points(
        &self,
        query: &PointQuery,
        page: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError>;

    /// Those of these points that were [removed](PointFact::Removed), however long ago. A point that was never told of is none.
    async fn removed(&self, points: &[PointId]) -> Result<BTreeSet<PointId>, CatalogError>;

    /// Stores a new job, unless one with its key exists.
    ///
    /// # Errors
    /// [`CatalogError::KeyReused`] if the key was used for another request (by
    /// [`Job::request_digest`] and kind), or if a job of another key has its id.
    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError>;

    /// Notes that a process has a job in hand, if the one that it has it from is noted in it; nobody, if none. Gives the job if it has
    /// it then: of many who take it from one, one does. That the other one is gone for good is for the caller to know.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] if the job never began.
    async fn take_job(
        &self,
        job: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Result<Option<Job>, CatalogError>;

    /// Stores a job as it is now. The last put counts.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] if it never began.
    async fn put_job(&self, job: &Job) -> Result<(), CatalogError>;

    /// Stores a job in the name of a process that holds this epoch, which is a [`put_job`](Self::put_job) unless the store
    /// also keeps the leases: such a one looks at the lease and stores in one step, so that a process that slept while it was
    /// taken over cannot overwrite what its successor has said of the job.
    ///
    /// # Errors
    /// Those of `put_job`, and [`CatalogError::Fenced`] when the process does not hold the epoch.
    async fn put_job_in_epoch(
        &self,
        job: &Job,
        owner: ProcessId,
        epoch: u64,
    ) -> Result<(), CatalogError> {
        let _nobody_looks = (owner, epoch);
        self.put_job(job).await
    }

    /// Forgets jobs that are over, with their keys: what is asked for under one of them is a new job. Says how many went; others stay,
    /// whoever asks. One that keeps every job, as by default, forgets none.
    ///
    /// # Idempotence
    /// May be repeated.
    async fn forget_jobs(&self, jobs: &[JobId]) -> Result<u64, CatalogError> {
        let _kept = jobs;
        Ok(0)
    }

    /// A job.
    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError>;

    /// Jobs, newest first (then by id).
    async fn jobs(&self, query: &JobQuery, page: &Page) -> Result<Listing<Job>, CatalogError>;

    /// Stores a version of a policy. Versions are never changed: the first is 1, each next one
    /// follows the newest; a repeated put of equal content succeeds.
    ///
    /// # Errors
    /// [`CatalogError::Version`] for a gap or a changed old version; [`CatalogError::NameTaken`]
    /// if another policy's newest version has the name, case ignored.
    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError>;

    /// A version of a policy, or its newest.
    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError>;

    /// The newest version of every policy, by name.
    async fn policies(&self) -> Result<Vec<Policy>, CatalogError>;

    /// Removes a policy with all its versions.
    ///
    /// # Errors
    /// [`CatalogError::PolicyInUse`] while a group has it.
    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError>;

    /// Stores a version of a group, which takes the place of the one before. One that is stored already in the same words is
    /// left as it is.
    ///
    /// # Errors
    /// [`CatalogError::GroupVersion`] for one that does not follow the stored one, or is it in other words: somebody else has
    /// changed the group. [`CatalogError::NameTaken`]; [`CatalogError::NotFound`] if one of its policies, or a schedule that is attached, does
    /// not exist.
    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError>;

    /// A group.
    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError>;

    /// Every group, by name.
    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError>;

    /// Removes a group. Its restore points stay.
    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError>;

    /// Notes what a run left behind, under its key.
    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError>;

    /// Everything that is known to be left behind, oldest first.
    async fn debris(&self) -> Result<Vec<Debris>, CatalogError>;

    /// Forgets debris that was removed.
    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError>;

    /// Stores a hold as it is now. Looks at its points and stores in one step: once a point is seen as
    /// [expiring](PointState::Expiring), no hold is put on it any more, so whoever deletes it looks at the holds after that
    /// and knows them all.
    ///
    /// # Errors
    /// For a point that the hold of this name did not have before: [`CatalogError::NotFound`] if it is not there,
    /// [`CatalogError::Expiring`] if it is being deleted.
    async fn put_hold(&self, hold: &Hold) -> Result<(), CatalogError>;

    /// Every hold, also those that are over, by name.
    async fn holds(&self) -> Result<Vec<Hold>, CatalogError>;

    /// Stores that the chain of a database forked; by its run it is known.
    async fn put_fork(&self, fork: &ChainFork) -> Result<(), CatalogError>;

    /// The forks of a database, in the order in which they were (then by run).
    async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, CatalogError>;

    /// Takes back that a chain forked: the restore was undone.
    async fn remove_fork(&self, run: RunId) -> Result<(), CatalogError>;

    /// Takes a hold off.
    async fn remove_hold(&self, name: &HoldName) -> Result<(), CatalogError>;
}

/// Sugar over any catalogue. Not to be implemented.
#[async_trait]
pub trait CatalogExt: Catalog {
    /// All pages of restore points.
    async fn all_points(&self, query: &PointQuery) -> Result<Vec<RestorePoint>, CatalogError> {
        let mut all = Vec::new();
        let mut page = Page::first(Page::LARGEST);
        loop {
            let listing = self.points(query, &page).await?;
            all.extend(listing.items);
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// All pages of jobs.
    async fn all_jobs(&self, query: &JobQuery) -> Result<Vec<Job>, CatalogError> {
        let mut all = Vec::new();
        let mut page = Page::first(Page::LARGEST);
        loop {
            let listing = self.jobs(query, &page).await?;
            all.extend(listing.items);
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// The policy of this name, case ignored.
    async fn policy_named(&self, name: &str) -> Result<Option<Policy>, CatalogError> {
        let wanted = crate::query::fold(name);
        let policies = self.policies().await?;
        Ok(policies.into_iter().find(|policy| crate::query::fold(&policy.name) == wanted))
    }

    /// The names of the holds that keep a point at this time.
    async fn held_by(
        &self,
        point: PointId,
        now: DateTime<Utc>,
    ) -> Result<BTreeSet<HoldName>, CatalogError> {
        let holds = self.holds().await?.into_iter();
        let keeps = holds.filter(|hold| hold.is_on(now) && hold.points.contains(&point));
        Ok(keeps.map(|hold| hold.name).collect())
    }

    /// The newest version of the schedule of this name, case ignored.
    async fn schedule_named(&self, name: &str) -> Result<Option<StoredSchedule>, CatalogError> {
        let wanted = crate::query::fold(name);
        let schedules = self.schedules().await?;
        Ok(schedules.into_iter().find(|known| crate::query::fold(&known.schedule.name) == wanted))
    }

    /// The group of this name, case ignored.
    async fn group_named(&self, name: &str) -> Result<Option<ResourceGroup>, CatalogError> {
        let wanted = crate::query::fold(name);
        let groups = self.groups().await?;
        Ok(groups.into_iter().find(|group| crate::query::fold(&group.name) == wanted))
    }
}

impl<C: Catalog + ?Sized> CatalogExt for C {}
