//! A catalogue in memory.

mod schedules;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stillpoint_context::{IdempotencyKey, JobId, RunId};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, GroupId, HoldName, PointId, PolicyId};
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::point::{PointFact, RestorePoint};
use stillpoint_model::policy::Policy;
use uuid::Uuid;

use crate::catalog::{Begun, Catalog, Cursor, Debris, may_hold};
use crate::error::{CatalogError, Named};
use crate::query::{JobQuery, Listing, Page, PageToken, PointQuery, fold, order_key};

/// A catalogue that forgets everything when it is dropped: for tests, and as the reference that
/// other catalogues are compared with.
#[derive(Debug, Default)]
pub struct MemoryCatalog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    points: BTreeMap<PointId, RestorePoint>,
    removed: BTreeSet<PointId>,
    cursor: Option<Cursor>,
    jobs: BTreeMap<JobId, Job>,
    keys: BTreeMap<IdempotencyKey, JobId>,
    policies: BTreeMap<PolicyId, BTreeMap<NonZeroU32, Policy>>,
    groups: BTreeMap<GroupId, ResourceGroup>,
    debris: BTreeMap<String, Debris>,
    holds: BTreeMap<HoldName, Hold>,
    forks: BTreeMap<RunId, ChainFork>,
    schedules: schedules::Schedules,
}

impl State {
    fn begin_job(&mut self, job: &Job) -> Result<Begun, CatalogError> {
        let known = self.keys.get(&job.key).and_then(|id| self.jobs.get(id));
        if let Some(known) = known {
            if known.request_digest == job.request_digest && known.kind == job.kind {
                return Ok(Begun::Existing(Box::new(known.clone())));
            }
            return Err(CatalogError::KeyReused { key: job.key.clone(), job: known.id });
        }
        if let Some(twin) = self.jobs.get(&job.id) {
            return Err(CatalogError::KeyReused { key: twin.key.clone(), job: twin.id });
        }
        self.keys.insert(job.key.clone(), job.id);
        self.jobs.insert(job.id, job.clone());
        Ok(Begun::New)
    }
}

impl MemoryCatalog {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is made at its end, in one go: a panic in between leaves the state whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page of those entries that are wanted, newest first.
fn page<'a, T: Clone + 'a>(
    entries: impl Iterator<Item = &'a T>,
    page: &Page,
    place: impl Fn(&T) -> (i64, Uuid),
) -> Listing<T> {
    let mut found: Vec<&T> = entries
        .filter(|entry| {
            let (at, id) = place(entry);
            page.after.is_none_or(|after| after.precedes(at, id))
        })
        .collect();
    found.sort_by_key(|entry| {
        let (at, id) = place(entry);
        (Reverse(at), id)
    });
    let one_more = usize::try_from(page.size()).unwrap_or(usize::MAX).saturating_add(1);
    let items = found.into_iter().take(one_more).cloned().collect();
    Listing::cut(items, page.size(), |entry| {
        let (at, id) = place(entry);
        PageToken::behind(at, id)
    })
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Result<(), CatalogError> {
        let mut state = self.state();
        let mut changed: BTreeMap<PointId, Option<RestorePoint>> = BTreeMap::new();
        let mut removed = BTreeSet::new();
        for fact in facts {
            let id = fact.point();
            if state.removed.contains(&id) || removed.contains(&id) {
                continue;
            }
            let before = match changed.get(&id) {
                Some(point) => point.clone(),
                None => state.points.get(&id).cloned(),
            };
            changed.insert(id, fact.apply(before)?);
            if matches!(fact, PointFact::Removed { .. }) {
                removed.insert(id);
            }
        }
        for (id, point) in changed {
            match point {
                Some(point) => drop(state.points.insert(id, point)),
                None => drop(state.points.remove(&id)),
            }
        }
        state.removed.extend(removed);
        state.cursor = state.cursor.max(cursor);
        Ok(())
    }

    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError> {
        Ok(self.state().cursor)
    }

    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
        Ok(self.state().points.get(&id).cloned())
    }

    async fn points(
        &self,
        query: &PointQuery,
        wanted: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError> {
        let state = self.state();
        let points = state.points.values().filter(|point| query.wants(point));
        Ok(page(points, wanted, |point| (order_key(point.taken_at), point.id.0)))
    }

    async fn removed(&self, points: &[PointId]) -> Result<BTreeSet<PointId>, CatalogError> {
        let state = self.state();
        Ok(points.iter().filter(|id| state.removed.contains(id)).copied().collect())
    }

    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError> {
        self.state().begin_job(job)
    }

    async fn take_job(
        &self,
        id: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Result<Option<Job>, CatalogError> {
        let mut state = self.state();
        let unknown = || CatalogError::NotFound { kind: "job", id: id.to_string() };
        let job = state.jobs.get_mut(&id).ok_or_else(unknown)?;
        if job.owner == from {
            job.owner = Some(to);
        }
        Ok((job.owner == Some(to)).then(|| job.clone()))
    }

    async fn put_job(&self, job: &Job) -> Result<(), CatalogError> {
        match self.state().jobs.get_mut(&job.id) {
            Some(known) => {
                *known = job.clone();
                Ok(())
            }
            None => Err(CatalogError::NotFound { kind: "job", id: job.id.to_string() }),
        }
    }

    async fn forget_jobs(&self, jobs: &[JobId]) -> Result<u64, CatalogError> {
        let mut state = self.state();
        let mut gone = 0;
        for id in jobs {
            if state.jobs.get(id).is_some_and(|job| job.state().is_final())
                && let Some(job) = state.jobs.remove(id)
            {
                state.keys.remove(&job.key);
                gone += 1;
            }
        }
        Ok(gone)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        Ok(self.state().jobs.get(&id).cloned())
    }

    async fn jobs(&self, query: &JobQuery, wanted: &Page) -> Result<Listing<Job>, CatalogError> {
        let state = self.state();
        let jobs = state.jobs.values().filter(|job| query.wants(job));
        Ok(page(jobs, wanted, |job| (order_key(job.created_at), job.id.0)))
    }

    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        let mut state = self.state();
        let versions = state.policies.get(&policy.id);
        let newest = versions
            .and_then(|versions| versions.keys().next_back())
            .map_or(0, |version| version.get());
        match versions.and_then(|versions| versions.get(&policy.version)) {
            Some(known) if known == policy => return Ok(()),
            None if policy.version.get() - 1 == newest => {}
            _ => {
                let (id, found) = (policy.id, policy.version);
                return Err(CatalogError::Version { id, found, newest });
            }
        }
        let taken = state.policies.iter().any(|(id, versions)| {
            let newest = versions.values().next_back();
            *id != policy.id && newest.is_some_and(|known| fold(&known.name) == fold(&policy.name))
        });
        if taken {
            let name = policy.name.clone();
            return Err(CatalogError::NameTaken { what: Named::Policy, name });
        }
        state.policies.entry(policy.id).or_default().insert(policy.version, policy.clone());
        Ok(())
    }

    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError> {
        let state = self.state();
        let versions = state.policies.get(&id);
        Ok(versions
            .and_then(|versions| match version {
                Some(version) => versions.get(&version),
                None => versions.values().next_back(),
            })
            .cloned())
    }

    async fn policies(&self) -> Result<Vec<Policy>, CatalogError> {
        let state = self.state();
        let newest = state.policies.values().filter_map(|versions| versions.values().next_back());
        let mut policies: Vec<Policy> = newest.cloned().collect();
        policies.sort_by_key(|policy| fold(&policy.name));
        Ok(policies)
    }

    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError> {
        let mut state = self.state();
        let groups: Vec<GroupId> = state
            .groups
            .values()
            .filter(|group| group.policies.contains(&id))
            .map(|group| group.id)
            .collect();
        if !groups.is_empty() {
            return Err(CatalogError::PolicyInUse { id, groups });
        }
        state.policies.remove(&id);
        Ok(())
    }

    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        let mut state = self.state();
        if let Some(id) = group.policies.iter().find(|id| !state.policies.contains_key(id)) {
            return Err(CatalogError::NotFound { kind: "policy", id: id.to_string() });
        }
        state.schedules.check(group)?;
        let known = state.groups.get(&group.id);
        let newest = known.map_or(0, |known| known.version.get());
        if known == Some(group) {
            return Ok(());
        }
        if group.version.get() - 1 != newest {
            let (id, found) = (group.id, group.version);
            return Err(CatalogError::GroupVersion { id, found, newest });
        }
        let taken = state
            .groups
            .values()
            .any(|known| known.id != group.id && fold(&known.name) == fold(&group.name));
        if taken {
            let name = group.name.clone();
            return Err(CatalogError::NameTaken { what: Named::Group, name });
        }
        state.groups.insert(group.id, group.clone());
        state.schedules.note_change();
        Ok(())
    }

    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
        Ok(self.state().groups.get(&id).cloned())
    }

    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError> {
        let mut groups: Vec<ResourceGroup> = self.state().groups.values().cloned().collect();
        groups.sort_by_key(|group| fold(&group.name));
        Ok(groups)
    }

    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError> {
        let mut state = self.state();
        state.groups.remove(&id);
        state.schedules.note_change();
        Ok(())
    }

    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError> {
        self.state().debris.insert(debris.key.clone(), debris.clone());
        Ok(())
    }

    async fn debris(&self) -> Result<Vec<Debris>, CatalogError> {
        let mut debris: Vec<Debris> = self.state().debris.values().cloned().collect();
        debris.sort_by(|a, b| (order_key(a.since), &a.key).cmp(&(order_key(b.since), &b.key)));
        Ok(debris)
    }

    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError> {
        self.state().debris.remove(key);
        Ok(())
    }

    async fn put_hold(&self, hold: &Hold) -> Result<(), CatalogError> {
        let mut state = self.state();
        let before = state.holds.get(&hold.name);
        let new =
            hold.points.iter().filter(|id| before.is_none_or(|hold| !hold.points.contains(id)));
        for id in new {
            may_hold(*id, state.points.get(id))?;
        }
        state.holds.insert(hold.name.clone(), hold.clone());
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<Hold>, CatalogError> {
        Ok(self.state().holds.values().cloned().collect())
    }

    async fn put_fork(&self, fork: &ChainFork) -> Result<(), CatalogError> {
        self.state().forks.insert(fork.run, fork.clone());
        Ok(())
    }

    async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, CatalogError> {
        let state = self.state();
        let mine = state.forks.values().filter(|fork| fork.database == database);
        let mut forks: Vec<ChainFork> = mine.cloned().collect();
        forks.sort_by_key(|fork| (fork.at, fork.run));
        Ok(forks)
    }

    async fn remove_fork(&self, run: RunId) -> Result<(), CatalogError> {
        self.state().forks.remove(&run);
        Ok(())
    }

    async fn remove_hold(&self, name: &HoldName) -> Result<(), CatalogError> {
        self.state().holds.remove(name);
        Ok(())
    }
}
