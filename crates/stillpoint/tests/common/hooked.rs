//! A catalogue with a hook before and after each of its calls.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint::catalog::{
    Begun, Catalog, CatalogError, Cursor, Debris, Entry, JobQuery, Listing, MemoryCatalog, Page,
    PointQuery, ScheduleCatalog, Settlement, Settling, Times,
};
use stillpoint::context::{BoxFuture, Effect, JobId, RunId};
use stillpoint::model::fork::ChainFork;
use stillpoint::model::group::ResourceGroup;
use stillpoint::model::hold::Hold;
use stillpoint::model::id::{DatabaseId, GroupId, HoldName, PointId, PolicyId, ScheduleId};
use stillpoint::model::job::{Job, JobOwner};
use stillpoint::model::point::{PointFact, RestorePoint};
use stillpoint::model::policy::Policy;
use stillpoint::model::schedule::{AttachmentId, RecordedLapse, StoredSchedule};

type Hook = dyn Fn(&'static str, When) -> Option<BoxFuture<'static, ()>> + Send + Sync;

/// When a hook is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// Asks its hook before and after each call, by the name of the method.
pub struct Hooked {
    inner: MemoryCatalog,
    hook: Arc<Hook>,
    /// The method whose next call fails.
    fails: Mutex<Option<&'static str>>,
    /// The policy that cannot be read.
    unreadable: Mutex<Option<PolicyId>>,
    /// The job whose row is damaged.
    damaged: Mutex<Option<JobId>>,
}

fn damaged() -> CatalogError {
    CatalogError::Corrupt { message: "expected value at line 1".to_owned(), source: None }
}

fn failed() -> CatalogError {
    let message = "it was to fail".to_owned();
    CatalogError::Unavailable { message, effect: Effect::None, source: None }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    pub fn new(
        hook: impl Fn(&'static str, When) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryCatalog::new(),
            hook: Arc::new(hook),
            fails: Mutex::default(),
            unreadable: Mutex::default(),
            damaged: Mutex::default(),
        })
    }

    /// Has the next call of this method fail, without a look at the store.
    pub fn fail_next(&self, name: &'static str) {
        *self.fails.lock().unwrap() = Some(name);
    }

    /// Has this policy not be read from now on, or every one again.
    pub fn make_unreadable(&self, policy: Option<PolicyId>) {
        *self.unreadable.lock().unwrap() = policy;
    }

    /// Has the row of this job be damaged from now on, and with it each list that it is in, or none.
    pub fn damage(&self, job: Option<JobId>) {
        *self.damaged.lock().unwrap() = job;
    }

    async fn around<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        if self.fails.lock().unwrap().take_if(|fails| *fails == name).is_some() {
            return Err(failed());
        }
        if let Some(hooked) = (self.hook)(name, When::Before) {
            hooked.await;
        }
        let result = call.await;
        if let Some(hooked) = (self.hook)(name, When::After) {
            hooked.await;
        }
        result
    }
}

type Answer<T> = Result<T, CatalogError>;

#[async_trait]
impl Catalog for Hooked {
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Answer<()> {
        self.around("apply", self.inner.apply(facts, cursor)).await
    }
    async fn cursor(&self) -> Answer<Option<Cursor>> {
        self.around("cursor", self.inner.cursor()).await
    }
    async fn point(&self, id: PointId) -> Answer<Option<RestorePoint>> {
        self.around("point", self.inner.point(id)).await
    }
    async fn points(&self, query: &PointQuery, page: &Page) -> Answer<Listing<RestorePoint>> {
        self.around("points", self.inner.points(query, page)).await
    }
    async fn removed(&self, points: &[PointId]) -> Answer<BTreeSet<PointId>> {
        self.around("removed", self.inner.removed(points)).await
    }
    async fn begin_job(&self, job: &Job) -> Answer<Begun> {
        self.around("begin_job", self.inner.begin_job(job)).await
    }
    async fn take_job(
        &self,
        job: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Answer<Option<Job>> {
        self.around("take_job", self.inner.take_job(job, from, to)).await
    }
    async fn put_job(&self, job: &Job) -> Answer<()> {
        self.around("put_job", self.inner.put_job(job)).await
    }
    async fn forget_jobs(&self, jobs: &[JobId]) -> Answer<u64> {
        self.around("forget_jobs", self.inner.forget_jobs(jobs)).await
    }
    async fn job(&self, id: JobId) -> Answer<Option<Job>> {
        if *self.damaged.lock().unwrap() == Some(id) {
            return Err(damaged());
        }
        self.around("job", self.inner.job(id)).await
    }
    async fn jobs(&self, query: &JobQuery, page: &Page) -> Answer<Listing<Job>> {
        let listing = self.around("jobs", self.inner.jobs(query, page)).await?;
        let bad = *self.damaged.lock().unwrap();
        let is_damaged = listing.items.iter().any(|job| Some(job.id) == bad);
        if is_damaged { Err(damaged()) } else { Ok(listing) }
    }
    async fn put_policy(&self, policy: &Policy) -> Answer<()> {
        self.around("put_policy", self.inner.put_policy(policy)).await
    }
    async fn policy(&self, id: PolicyId, version: Option<NonZeroU32>) -> Answer<Option<Policy>> {
        if *self.unreadable.lock().unwrap() == Some(id) {
            return Err(failed());
        }
        self.around("policy", self.inner.policy(id, version)).await
    }
    async fn policies(&self) -> Answer<Vec<Policy>> {
        self.around("policies", self.inner.policies()).await
    }
    async fn remove_policy(&self, id: PolicyId) -> Answer<()> {
        self.around("remove_policy", self.inner.remove_policy(id)).await
    }
    async fn put_group(&self, group: &ResourceGroup) -> Answer<()> {
        self.around("put_group", self.inner.put_group(group)).await
    }
    async fn group(&self, id: GroupId) -> Answer<Option<ResourceGroup>> {
        self.around("group", self.inner.group(id)).await
    }
    async fn groups(&self) -> Answer<Vec<ResourceGroup>> {
        self.around("groups", self.inner.groups()).await
    }
    async fn remove_group(&self, id: GroupId) -> Answer<()> {
        self.around("remove_group", self.inner.remove_group(id)).await
    }
    async fn put_debris(&self, debris: &Debris) -> Answer<()> {
        self.around("put_debris", self.inner.put_debris(debris)).await
    }
    async fn debris(&self) -> Answer<Vec<Debris>> {
        self.around("debris", self.inner.debris()).await
    }
    async fn remove_debris(&self, key: &str) -> Answer<()> {
        self.around("remove_debris", self.inner.remove_debris(key)).await
    }
    async fn put_hold(&self, hold: &Hold) -> Answer<()> {
        self.around("put_hold", self.inner.put_hold(hold)).await
    }
    async fn holds(&self) -> Answer<Vec<Hold>> {
        self.around("holds", self.inner.holds()).await
    }
    async fn put_fork(&self, fork: &ChainFork) -> Answer<()> {
        self.around("put_fork", self.inner.put_fork(fork)).await
    }
    async fn forks(&self, database: DatabaseId) -> Answer<Vec<ChainFork>> {
        self.around("forks", self.inner.forks(database)).await
    }
    async fn remove_fork(&self, run: RunId) -> Answer<()> {
        self.around("remove_fork", self.inner.remove_fork(run)).await
    }
    async fn remove_hold(&self, name: &HoldName) -> Answer<()> {
        self.around("remove_hold", self.inner.remove_hold(name)).await
    }
}

#[async_trait]
impl ScheduleCatalog for Hooked {
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Answer<()> {
        self.around("put_schedule", self.inner.put_schedule(schedule)).await
    }
    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Answer<Option<StoredSchedule>> {
        self.around("schedule", self.inner.schedule(id, version)).await
    }
    async fn schedules(&self) -> Answer<Vec<StoredSchedule>> {
        self.around("schedules", self.inner.schedules()).await
    }
    async fn remove_schedule(&self, id: ScheduleId) -> Answer<()> {
        self.around("remove_schedule", self.inner.remove_schedule(id)).await
    }
    async fn times(&self) -> Answer<Times> {
        self.around("times", self.inner.times()).await
    }
    async fn ledgers(&self) -> Answer<Vec<Entry>> {
        self.around("ledgers", self.inner.ledgers()).await
    }
    async fn ledger(&self, attachment: AttachmentId) -> Answer<Option<Entry>> {
        self.around("ledger", self.inner.ledger(attachment)).await
    }
    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Answer<Vec<Settling>> {
        self.around("settle", self.inner.settle(now, settlements)).await
    }
    async fn begin_due(&self, job: &Job, of: AttachmentId, due: DateTime<Utc>) -> Answer<Begun> {
        self.around("begin_due", self.inner.begin_due(job, of, due)).await
    }
    async fn lapses(&self, of: Option<AttachmentId>, most: u32) -> Answer<Vec<RecordedLapse>> {
        self.around("lapses", self.inner.lapses(of, most)).await
    }
    async fn believe_clock(&self, now: DateTime<Utc>) -> Answer<()> {
        self.around("believe_clock", self.inner.believe_clock(now)).await
    }
}
