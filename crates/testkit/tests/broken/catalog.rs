//! The catalogue in memory, with faults around it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stillpoint_catalog::{
    Begun, Catalog, CatalogError, CatalogExt, Cursor, Debris, JobQuery, Listing, MemoryCatalog,
    Page, PointQuery,
};
use stillpoint_context::{JobId, ProcessId, RunId};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, GroupId, HoldName, PointId, PolicyId};
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::point::{PointFact, PointState, RestorePoint};
use stillpoint_model::policy::Policy;
use stillpoint_testkit::conformance::{BoxError, Place, Store, StoreFactory};
use stillpoint_workflow::{Leases, MemoryJournal};

use uuid::Uuid;

use super::pause;

pub(crate) use faults::{Fault, WANTED};

mod faults;
mod schedules;

#[derive(Debug)]
struct Faulty(Fault, Arc<MemoryCatalog>, Arc<MemoryJournal>);

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.0 == fault
    }
}

#[async_trait]
impl Catalog for Faulty {
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Result<(), CatalogError> {
        match self.0 {
            Fault::OneFactAtATime => {
                for fact in facts {
                    self.1.apply(std::slice::from_ref(fact), cursor).await?;
                }
                self.1.apply(&[], cursor).await
            }
            Fault::HalvesCalls => {
                let half = facts.len() / 2;
                if facts.len() > 1 && MemoryCatalog::new().apply(facts, None).await.is_ok() {
                    self.1.apply(&facts[..half], None).await?;
                    pause().await;
                    return self.1.apply(&facts[half..], cursor).await;
                }
                self.1.apply(facts, cursor).await
            }
            Fault::CursorBeforeFacts => {
                if MemoryCatalog::new().apply(facts, None).await.is_ok() {
                    self.1.apply(&[], cursor).await?;
                    pause().await;
                }
                self.1.apply(facts, cursor).await
            }
            Fault::CursorAfterFacts => {
                self.1.apply(facts, None).await?;
                pause().await;
                self.1.apply(&[], cursor).await
            }
            Fault::KeepsTheCursorOfRefusedFacts => {
                let applied = self.1.apply(facts, cursor).await;
                self.1.apply(&[], cursor).await?;
                applied
            }
            Fault::IgnoresChecks => {
                let facts = facts.iter().filter(|fact| !matches!(fact, PointFact::Checked { .. }));
                self.1.apply(&facts.cloned().collect::<Vec<_>>(), cursor).await
            }
            Fault::ForgetsRemovals => {
                let facts = facts.iter().filter(|fact| !matches!(fact, PointFact::Removed { .. }));
                self.1.apply(&facts.cloned().collect::<Vec<_>>(), cursor).await
            }
            Fault::IgnoresIntents => {
                let intent = |fact: &&PointFact| !matches!(fact, PointFact::Expiring { .. });
                let facts = facts.iter().filter(intent).cloned().collect::<Vec<_>>();
                self.1.apply(&facts, cursor).await
            }
            Fault::RefusesOldCursors if cursor.is_some() && cursor < self.1.cursor().await? => {
                Err(CatalogError::NotFound { kind: "cursor", id: "old".into() })
            }
            _ => self.1.apply(facts, cursor).await,
        }
    }
    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError> {
        let cursor = self.1.cursor().await?;
        Ok(cursor.filter(|cursor| !(self.is(Fault::CursorGoesBack) && *cursor == Cursor(u64::MAX))))
    }
    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
        self.1.point(id).await
    }
    async fn points(
        &self,
        query: &PointQuery,
        page: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError> {
        let (all, mut wide) = (PointQuery::all(), *page);
        let query = if self.is(Fault::IgnoresTheQuery) { &all } else { query };
        if self.is(Fault::IgnoresTheLimit) {
            wide.limit = Page::LARGEST;
        }
        let mut listing = self.1.points(query, &wide).await?;
        match self.0 {
            Fault::OldestFirst => listing.items.reverse(),
            Fault::LosesThePageEnd if listing.next.is_some() => drop(listing.items.pop()),
            _ => {}
        }
        Ok(listing)
    }
    async fn removed(&self, points: &[PointId]) -> Result<BTreeSet<PointId>, CatalogError> {
        match self.0 {
            Fault::TellsNoRemovals => Ok(BTreeSet::new()),
            Fault::TellsAllThatIsGone => {
                let mut gone: BTreeSet<PointId> = points.iter().copied().collect();
                for point in self.1.all_points(&PointQuery::all()).await? {
                    gone.remove(&point.id);
                }
                Ok(gone)
            }
            Fault::TellsOthersRemovals => {
                let all: Vec<PointId> = (0..9).map(|id| PointId(Uuid::from_u128(id))).collect();
                self.1.removed(&all).await
            }
            _ => self.1.removed(points).await,
        }
    }
    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError> {
        match self.0 {
            Fault::TwoJobsOfAKey => {
                let mut job = job.clone();
                job.key = format!("{}-{}", job.key, job.id).parse().unwrap();
                self.1.begin_job(&job).await
            }
            Fault::TakesAnotherRequest => match self.1.begin_job(job).await {
                Err(CatalogError::KeyReused { job, .. }) => {
                    Ok(Begun::Existing(Box::new(self.1.job(job).await?.unwrap())))
                }
                begun => begun,
            },
            Fault::LooksThenBegins => {
                let known = self.1.all_jobs(&JobQuery::all()).await?;
                pause().await;
                let begun = self.1.begin_job(job).await?;
                let is_new = known.iter().all(|known| known.key != job.key);
                Ok(if is_new { Begun::New } else { begun })
            }
            _ => self.1.begin_job(job).await,
        }
    }
    async fn take_job(
        &self,
        id: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Result<Option<Job>, CatalogError> {
        let known = self.1.job(id).await?;
        let noted = known.as_ref().and_then(|job| job.owner);
        match self.0 {
            Fault::TakesFromAnybody => self.1.take_job(id, noted, to).await,
            Fault::LooksThenTakes if noted == from => {
                pause().await;
                let now = self.1.job(id).await?.and_then(|job| job.owner);
                self.1.take_job(id, now, to).await
            }
            Fault::ForgetsWhoTakes => {
                let taken = self.1.take_job(id, from, to).await?;
                self.1.put_job(&known.unwrap()).await?;
                Ok(taken)
            }
            _ => self.1.take_job(id, from, to).await,
        }
    }
    async fn put_job(&self, job: &Job) -> Result<(), CatalogError> {
        match self.0 {
            Fault::LosesPuts => self
                .1
                .job(job.id)
                .await?
                .map(drop)
                .ok_or_else(|| CatalogError::NotFound { kind: "job", id: job.id.to_string() }),
            Fault::PutsWhatNeverBegan => {
                self.1.begin_job(job).await?;
                self.1.put_job(job).await
            }
            _ => self.1.put_job(job).await,
        }
    }
    async fn put_job_in_epoch(
        &self,
        job: &Job,
        owner: ProcessId,
        epoch: u64,
    ) -> Result<(), CatalogError> {
        let held = self.2.leases().await.unwrap();
        let held = held.iter().any(|lease| (lease.process, lease.epoch) == (owner, epoch));
        if !held && !self.is(Fault::IgnoresTheLease) {
            return Err(CatalogError::Fenced { owner, epoch });
        }
        if self.is(Fault::LooksAtTheLeaseThenPuts) && job.title.contains("late") {
            pause().await;
        }
        self.put_job(job).await
    }
    async fn forget_jobs(&self, jobs: &[JobId]) -> Result<u64, CatalogError> {
        match self.0 {
            Fault::CountsUnforgottenJobs => Ok(jobs.len() as u64),
            Fault::ForgetsOpenJobs => {
                for id in jobs {
                    if let Some(mut job) = self.1.job(*id).await? {
                        (job.runs, job.planned_at) = (Vec::new(), Some(job.created_at));
                        self.1.put_job(&job).await?;
                    }
                }
                self.1.forget_jobs(jobs).await
            }
            Fault::ForgetsNoKeys => {
                let mut kept = Vec::new();
                for id in jobs {
                    kept.extend(self.1.job(*id).await?.filter(|job| job.state().is_final()));
                }
                let gone = self.1.forget_jobs(jobs).await?;
                for mut job in kept {
                    job.id = JobId(Uuid::from_u128(1000 + job.id.0.as_u128()));
                    self.1.begin_job(&job).await?;
                }
                Ok(gone)
            }
            _ => self.1.forget_jobs(jobs).await,
        }
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        self.1.job(id).await
    }
    async fn jobs(&self, query: &JobQuery, page: &Page) -> Result<Listing<Job>, CatalogError> {
        self.1.jobs(query, page).await
    }
    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        if self.is(Fault::LooksThenPuts) {
            let known = self.1.policy(policy.id, Some(policy.version)).await?;
            pause().await;
            let stored = self.1.put_policy(policy).await;
            return if known.is_none() && policy.name.contains(" by ") { Ok(()) } else { stored };
        }
        let stored = self.1.put_policy(policy).await;
        match (self.0, &stored) {
            (Fault::OverwritesVersions, Err(CatalogError::Version { .. }))
            | (Fault::SharesNames, Err(CatalogError::NameTaken { .. })) => Ok(()),
            _ => stored,
        }
    }
    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError> {
        self.1.policy(id, version).await
    }
    async fn policies(&self) -> Result<Vec<Policy>, CatalogError> {
        self.1.policies().await
    }
    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError> {
        let removed = self.1.remove_policy(id).await;
        if self.is(Fault::RemovesPoliciesInUse) { Ok(()) } else { removed }
    }
    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        let known = self.1.group(group.id).await?;
        let follows = known.is_some_and(|known| known.version < group.version);
        if self.is(Fault::LooksThenPutsGroups) {
            pause().await;
        }
        let stored = self.1.put_group(group).await;
        match (self.0, &stored) {
            (Fault::OverwritesGroups, Err(CatalogError::GroupVersion { .. })) => Ok(()),
            (Fault::LooksThenPutsGroups, Err(CatalogError::GroupVersion { .. })) => {
                // Those who looked while it was still so all have it.
                if follows && group.name.contains(" by ") { Ok(()) } else { stored }
            }
            _ => stored,
        }
    }
    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
        self.1.group(id).await
    }
    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError> {
        self.1.groups().await
    }
    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError> {
        self.1.remove_group(id).await
    }
    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError> {
        if self.is(Fault::ForgetsDebris) { Ok(()) } else { self.1.put_debris(debris).await }
    }
    async fn debris(&self) -> Result<Vec<Debris>, CatalogError> {
        let mut debris = self.1.debris().await?;
        if self.is(Fault::ListsDebrisByKey) {
            debris.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Ok(debris)
    }
    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError> {
        self.1.remove_debris(key).await
    }
    async fn put_hold(&self, hold: &Hold) -> Result<(), CatalogError> {
        match self.0 {
            Fault::ForgetsHolds => {
                self.1.put_hold(hold).await?;
                self.1.remove_hold(&hold.name).await
            }
            Fault::AddsToHolds => {
                let mut more = hold.clone();
                let holds = self.1.holds().await?;
                if let Some(known) = holds.into_iter().find(|known| known.name == hold.name) {
                    more.points.extend(known.points);
                }
                self.1.put_hold(&more).await
            }
            Fault::HoldsWhatIsGoing => match self.1.put_hold(hold).await {
                Err(CatalogError::Expiring { .. }) => force(&self.1, hold).await,
                done => done,
            },
            Fault::HoldsHalf => {
                let mut half = hold.clone();
                half.points = hold.points.iter().take(1).copied().collect();
                self.1.put_hold(&half).await?;
                self.1.put_hold(hold).await
            }
            Fault::LooksThenHolds => {
                let before = self.1.holds().await?;
                let before = before.into_iter().find(|known| known.name == hold.name);
                let before = before.map(|known| known.points).unwrap_or_default();
                for point in hold.points.difference(&before) {
                    let known = self.1.point(*point).await?;
                    stillpoint_catalog::may_hold(*point, known.as_ref())?;
                }
                pause().await;
                force(&self.1, hold).await
            }
            _ => self.1.put_hold(hold).await,
        }
    }
    async fn holds(&self) -> Result<Vec<Hold>, CatalogError> {
        let mut holds = self.1.holds().await?;
        if self.is(Fault::ListsHoldsBackwards) {
            holds.reverse();
        }
        Ok(holds)
    }
    async fn put_fork(&self, fork: &ChainFork) -> Result<(), CatalogError> {
        if self.is(Fault::ForgetsForks) { Ok(()) } else { self.1.put_fork(fork).await }
    }
    async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, CatalogError> {
        let mut forks = self.1.forks(database).await?;
        if self.is(Fault::ListsForksBackwards) {
            forks.reverse();
        }
        Ok(forks)
    }
    async fn remove_fork(&self, run: RunId) -> Result<(), CatalogError> {
        if self.is(Fault::KeepsForks) { Ok(()) } else { self.1.remove_fork(run).await }
    }
    async fn remove_hold(&self, name: &HoldName) -> Result<(), CatalogError> {
        self.1.remove_hold(name).await
    }
}

/// Stores a hold, whatever its points are: puts each back to what it was for that.
async fn force(catalog: &MemoryCatalog, hold: &Hold) -> Result<(), CatalogError> {
    let mut spared = Vec::new();
    let before = catalog.holds().await?.into_iter().find(|known| known.name == hold.name);
    let before = before.map(|known| known.points).unwrap_or_default();
    for id in hold.points.difference(&before) {
        let Some(known) = catalog.point(*id).await? else { continue };
        if known.state == PointState::Expiring {
            spared.push((*id, known.turn()));
        }
    }
    for (point, turn) in &spared {
        let at = hold.since;
        catalog.apply(&[PointFact::Spared { point: *point, at, turn: *turn }], None).await?;
    }
    catalog.put_hold(hold).await?;
    for (point, turn) in spared {
        let again =
            PointFact::Expiring { point, at: hold.since, turn: turn + 1, keeps_logs: false };
        catalog.apply(&[again], None).await?;
    }
    Ok(())
}

/// A catalogue that has been told what another lists, some of it left out.
async fn told_again(known: &MemoryCatalog, fault: Fault) -> Result<MemoryCatalog, CatalogError> {
    let new = MemoryCatalog::new();
    if fault == Fault::ForgetsEverything {
        return Ok(new);
    }
    let points = known.all_points(&PointQuery::all()).await?;
    let published = points.into_iter().map(|point| PointFact::Published(Box::new(point)));
    let cursor = known.cursor().await?.filter(|_| fault != Fault::ForgetsTheCursor);
    new.apply(&published.collect::<Vec<_>>(), cursor).await?;
    for job in known.all_jobs(&JobQuery::all()).await? {
        new.begin_job(&job).await?;
    }
    for policy in known.policies().await? {
        for version in 1..=policy.version.get() {
            let mut policy = policy.clone();
            policy.version = NonZeroU32::new(version).unwrap();
            new.put_policy(&policy).await?;
        }
    }
    for group in known.groups().await? {
        for version in 1..=group.version.get() {
            let mut group = group.clone();
            group.version = NonZeroU32::new(version).unwrap();
            new.put_group(&group).await?;
        }
    }
    for debris in known.debris().await? {
        new.put_debris(&debris).await?;
    }
    for hold in known.holds().await? {
        new.put_hold(&hold).await?;
    }
    Ok(new)
}

/// Stores with this fault, which are still there when they are opened again.
pub(crate) struct Broken(pub(crate) Fault);

#[async_trait]
impl StoreFactory for Broken {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Kept(self.0, Mutex::default(), Arc::new(MemoryJournal::new()))))
    }
    fn catalog_looks_at_leases(&self) -> bool {
        true
    }
}

struct Kept(Fault, Mutex<Arc<MemoryCatalog>>, Arc<MemoryJournal>);

#[async_trait]
impl Place for Kept {
    async fn open(&self) -> Result<Store, BoxError> {
        let mut kept = Arc::clone(&self.1.lock().unwrap());
        match self.0 {
            Fault::ForgetsEverything | Fault::ForgetsWhatIsNotListed | Fault::ForgetsTheCursor => {
                kept = Arc::new(told_again(&kept, self.0).await?);
            }
            Fault::ForgetsLedgers => schedules::forget_ledgers(&kept).await?,
            Fault::ForgetsDebrisOnly => {
                for debris in kept.debris().await? {
                    kept.remove_debris(&debris.key).await?;
                }
            }
            Fault::ForgetsHoldsOnly => {
                for hold in kept.holds().await? {
                    kept.remove_hold(&hold.name).await?;
                }
            }
            _ => {}
        }
        *self.1.lock().unwrap() = Arc::clone(&kept);
        let leases = Arc::clone(&self.2);
        let catalog = Arc::new(Faulty(self.0, kept, Arc::clone(&leases)));
        Ok(Store::new().with_catalog(catalog).with_leases(leases))
    }
}
