//! The catalogue: everything as JSON under its id; listings look at every entry.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::num::NonZeroU32;

use async_trait::async_trait;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use stillpoint_catalog::{
    Begun, Catalog, CatalogError, Cursor, Debris, JobQuery, Listing, Named, Page, PageToken,
    PointQuery, may_hold, order_key,
};
use stillpoint_context::{Effect, JobId, ProcessId, RunId};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, GroupId, HoldName, PointId, PolicyId};
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::point::{PointFact, RestorePoint};
use stillpoint_model::policy::Policy;
use uuid::Uuid;

use super::{Bodies, COUNTER, RedbStore, Stop, counter, every, get, leases, put, schedules};

const POINT: Bodies = Bodies::new("point");
const REMOVED: TableDefinition<'_, u128, ()> = TableDefinition::new("removed");
const JOB: Bodies = Bodies::new("job");
const KEY: TableDefinition<'_, &str, u128> = TableDefinition::new("key");
const GROUP: Bodies = Bodies::new("group");
const POLICY: TableDefinition<'_, (u128, u32), &[u8]> = TableDefinition::new("policy");
const DEBRIS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("debris");
const HOLD: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("hold");
const FORK: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("fork");

type Answer<T> = Result<T, Stop<CatalogError>>;

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::TableError> {
    for table in [POINT, JOB, GROUP] {
        transaction.open_table(table)?;
    }
    transaction.open_table(REMOVED)?;
    transaction.open_table(KEY)?;
    transaction.open_table(POLICY)?;
    transaction.open_table(DEBRIS)?;
    transaction.open_table(HOLD)?;
    transaction.open_table(FORK)?;
    Ok(())
}

impl From<Stop<Self>> for CatalogError {
    fn from(stop: Stop<Self>) -> Self {
        match stop {
            Stop::Answer(error) => error,
            Stop::File(error) => {
                let message = "the file failed".to_owned();
                Self::Unavailable {
                    message,
                    effect: Effect::Unknown,
                    source: Some(Box::new(error)),
                }
            }
            Stop::Entry(error) => {
                let message = "an entry cannot be read".to_owned();
                Self::Corrupt { message, source: Some(Box::new(error)) }
            }
        }
    }
}

fn refuse<T>(error: impl Into<CatalogError>) -> Answer<T> {
    Err(Stop::Answer(error.into()))
}

fn unknown<T>(kind: &'static str, id: &impl ToString) -> Answer<T> {
    refuse(CatalogError::NotFound { kind, id: id.to_string() })
}

/// The page of those entries that are wanted, newest first.
fn page<T>(mut entries: Vec<T>, page: &Page, place: impl Fn(&T) -> (i64, Uuid)) -> Listing<T> {
    let behind = |entry: &T| {
        let (at, id) = place(entry);
        page.after.is_none_or(|after| after.precedes(at, id))
    };
    entries.retain(behind);
    entries.sort_by_key(|entry| (Reverse(place(entry).0), place(entry).1));
    Listing::cut(entries, page.size(), |entry| PageToken::behind(place(entry).0, place(entry).1))
}

fn same_name(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// The newest version of every policy.
fn newest(table: &impl ReadableTable<(u128, u32), &'static [u8]>) -> Answer<Vec<Policy>> {
    let mut policies: Vec<Policy> = Vec::new();
    for row in table.iter()? {
        let policy: Policy = serde_json::from_slice(row?.1.value())?;
        match policies.last_mut() {
            Some(last) if last.id == policy.id => *last = policy,
            _ => policies.push(policy),
        }
    }
    Ok(policies)
}

fn apply(
    transaction: &WriteTransaction,
    facts: &[PointFact],
    cursor: Option<Cursor>,
) -> Answer<()> {
    let mut points = transaction.open_table(POINT)?;
    let mut removed = transaction.open_table(REMOVED)?;
    for fact in facts {
        let id = fact.point().0.as_u128();
        if removed.get(id)?.is_some() {
            continue;
        }
        match fact.apply(get(&points, id)?).map_err(|error| Stop::Answer(error.into()))? {
            Some(point) => put(&mut points, id, &point)?,
            None => drop(points.remove(id)?),
        }
        if matches!(fact, PointFact::Removed { .. }) {
            removed.insert(id, ())?;
        }
    }
    let mut counters = transaction.open_table(COUNTER)?;
    let known = counter(&counters, "cursor")?;
    if let Some(cursor) = cursor.map(|cursor| cursor.0).filter(|cursor| Some(*cursor) > known) {
        counters.insert("cursor", cursor)?;
    }
    Ok(())
}

/// Every group.
pub(super) fn groups(transaction: &WriteTransaction) -> Answer<Vec<ResourceGroup>> {
    every(&transaction.open_table(GROUP)?)
}

fn put_job(transaction: &WriteTransaction, job: &Job) -> Answer<()> {
    let mut jobs = transaction.open_table(JOB)?;
    let id = job.id.0.as_u128();
    if jobs.get(id)?.is_none() {
        return unknown("job", &job.id);
    }
    put(&mut jobs, id, job)
}

pub(super) fn begin_job(transaction: &WriteTransaction, job: &Job) -> Answer<Begun> {
    let mut jobs = transaction.open_table(JOB)?;
    let mut keys = transaction.open_table(KEY)?;
    let known = keys.get(job.key.as_str())?.map(|id| id.value());
    let by_key: Option<Job> = known.map(|id| get(&jobs, id)).transpose()?.flatten();
    let id = job.id.0.as_u128();
    match by_key {
        Some(known) if known.request_digest == job.request_digest && known.kind == job.kind => {
            return Ok(Begun::Existing(Box::new(known)));
        }
        Some(known) => {
            return refuse(CatalogError::KeyReused { key: job.key.clone(), job: known.id });
        }
        None => {}
    }
    if let Some(twin) = get::<Job, CatalogError>(&jobs, id)? {
        return refuse(CatalogError::KeyReused { key: twin.key, job: twin.id });
    }
    keys.insert(job.key.as_str(), id)?;
    put(&mut jobs, id, job)?;
    Ok(Begun::New)
}

#[async_trait]
impl Catalog for RedbStore {
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| apply(transaction, facts, cursor))?)
    }

    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError> {
        let cursor = self.read(|transaction| {
            counter::<CatalogError>(&transaction.open_table(COUNTER)?, "cursor")
        })?;
        Ok(cursor.map(Cursor))
    }

    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
        Ok(self.read(|transaction| {
            get::<_, CatalogError>(&transaction.open_table(POINT)?, id.0.as_u128())
        })?)
    }

    async fn points(
        &self,
        query: &PointQuery,
        wanted: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError> {
        let mut points: Vec<RestorePoint> =
            self.read(|transaction| every::<_, CatalogError>(&transaction.open_table(POINT)?))?;
        points.retain(|point| query.wants(point));
        Ok(page(points, wanted, |point| (order_key(point.taken_at), point.id.0)))
    }

    async fn removed(&self, points: &[PointId]) -> Result<BTreeSet<PointId>, CatalogError> {
        Ok(self.read(|transaction| {
            let table = transaction.open_table(REMOVED)?;
            let mut removed = BTreeSet::new();
            for id in points {
                if table.get(id.0.as_u128())?.is_some() {
                    removed.insert(*id);
                }
            }
            Ok::<_, Stop<CatalogError>>(removed)
        })?)
    }

    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError> {
        Ok(self.write(|transaction| begin_job(transaction, job))?)
    }

    async fn take_job(
        &self,
        id: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Result<Option<Job>, CatalogError> {
        Ok(self.write(|transaction| {
            let mut jobs = transaction.open_table(JOB)?;
            let Some(mut job) = get::<Job, CatalogError>(&jobs, id.0.as_u128())? else {
                return unknown("job", &id);
            };
            if job.owner == from {
                job.owner = Some(to);
                put(&mut jobs, id.0.as_u128(), &job)?;
            }
            Ok((job.owner == Some(to)).then_some(job))
        })?)
    }

    async fn put_job(&self, job: &Job) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| put_job(transaction, job))?)
    }

    async fn put_job_in_epoch(
        &self,
        job: &Job,
        owner: ProcessId,
        epoch: u64,
    ) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            if leases::is_held(transaction, owner, epoch)? {
                put_job(transaction, job)
            } else {
                Err(Stop::Answer(CatalogError::Fenced { owner, epoch }))
            }
        })?)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        Ok(self.read(|transaction| {
            get::<_, CatalogError>(&transaction.open_table(JOB)?, id.0.as_u128())
        })?)
    }

    async fn jobs(&self, query: &JobQuery, wanted: &Page) -> Result<Listing<Job>, CatalogError> {
        let mut jobs: Vec<Job> =
            self.read(|transaction| every::<_, CatalogError>(&transaction.open_table(JOB)?))?;
        jobs.retain(|job| query.wants(job));
        Ok(page(jobs, wanted, |job| (order_key(job.created_at), job.id.0)))
    }

    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let mut table = transaction.open_table(POLICY)?;
            let others = newest(&table)?;
            let known = others.iter().find(|known| known.id == policy.id);
            let newest = known.map_or(0, |known| known.version.get());
            let place = (policy.id.0.as_u128(), policy.version.get());
            let stored =
                table.get(place)?.map(|body| serde_json::from_slice::<Policy>(body.value()));
            match stored.transpose()? {
                Some(stored) if stored == *policy => return Ok(()),
                None if policy.version.get() - 1 == newest => {}
                _ => {
                    let (id, found) = (policy.id, policy.version);
                    return refuse(CatalogError::Version { id, found, newest });
                }
            }
            if others
                .iter()
                .any(|known| known.id != policy.id && same_name(&known.name, &policy.name))
            {
                let name = policy.name.clone();
                return refuse(CatalogError::NameTaken { what: Named::Policy, name });
            }
            table.insert(place, &*serde_json::to_vec(policy)?)?;
            Ok(())
        })?)
    }

    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError> {
        let id = id.0.as_u128();
        let (first, last) = version.map_or((0, u32::MAX), |version| (version.get(), version.get()));
        Ok(self.read(|transaction| {
            let table = transaction.open_table(POLICY)?;
            let found = table.range((id, first)..=(id, last))?.next_back().transpose()?;
            let policy = found.map(|(_, body)| serde_json::from_slice(body.value()));
            Ok::<_, Stop<CatalogError>>(policy.transpose()?)
        })?)
    }

    async fn policies(&self) -> Result<Vec<Policy>, CatalogError> {
        let mut policies = self.read(|transaction| newest(&transaction.open_table(POLICY)?))?;
        policies.sort_by_key(|policy| policy.name.to_lowercase());
        Ok(policies)
    }

    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let groups: Vec<ResourceGroup> = every(&transaction.open_table(GROUP)?)?;
            let users = groups.iter().filter(|group| group.policies.contains(&id));
            let groups: Vec<GroupId> = users.map(|group| group.id).collect();
            if !groups.is_empty() {
                return refuse(CatalogError::PolicyInUse { id, groups });
            }
            let number = id.0.as_u128();
            let mut table = transaction.open_table(POLICY)?;
            table.retain_in((number, 0)..=(number, u32::MAX), |_, _| false)?;
            Ok(())
        })?)
    }

    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let policies = newest(&transaction.open_table(POLICY)?)?;
            let stray =
                group.policies.iter().find(|id| policies.iter().all(|known| known.id != **id));
            if let Some(id) = stray {
                return unknown("policy", id);
            }
            let mut table = transaction.open_table(GROUP)?;
            let others: Vec<ResourceGroup> = every(&table)?;
            let known = others.iter().find(|known| known.id == group.id);
            let newest = known.map_or(0, |known| known.version.get());
            if known != Some(group) && group.version.get() - 1 != newest {
                let (id, found) = (group.id, group.version);
                return refuse(CatalogError::GroupVersion { id, found, newest });
            }
            if others
                .iter()
                .any(|known| known.id != group.id && same_name(&known.name, &group.name))
            {
                let name = group.name.clone();
                return refuse(CatalogError::NameTaken { what: Named::Group, name });
            }
            schedules::change(transaction, |book| book.take_note(Some(group)))?;
            put(&mut table, group.id.0.as_u128(), group)
        })?)
    }

    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
        Ok(self.read(|transaction| {
            get::<_, CatalogError>(&transaction.open_table(GROUP)?, id.0.as_u128())
        })?)
    }

    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError> {
        let mut groups: Vec<ResourceGroup> =
            self.read(|transaction| every::<_, CatalogError>(&transaction.open_table(GROUP)?))?;
        groups.sort_by_key(|group| group.name.to_lowercase());
        Ok(groups)
    }

    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            transaction.open_table(GROUP)?.remove(id.0.as_u128())?;
            schedules::change(transaction, |book| book.take_note(None))
        })?)
    }

    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let body = serde_json::to_vec(debris)?;
            transaction.open_table(DEBRIS)?.insert(&*debris.key, &*body)?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }

    async fn debris(&self) -> Result<Vec<Debris>, CatalogError> {
        let mut debris: Vec<Debris> = self.read(|transaction| {
            let mut debris = Vec::new();
            for row in transaction.open_table(DEBRIS)?.iter()? {
                debris.push(serde_json::from_slice(row?.1.value())?);
            }
            Ok::<_, Stop<CatalogError>>(debris)
        })?;
        // They come in the order of keys, which stays where instants are equal.
        debris.sort_by_key(|debris| order_key(debris.since));
        Ok(debris)
    }

    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            transaction.open_table(DEBRIS)?.remove(key)?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }

    async fn put_hold(&self, hold: &Hold) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let points = transaction.open_table(POINT)?;
            let mut holds = transaction.open_table(HOLD)?;
            let name = hold.name.as_str();
            let before = holds.get(name)?.map(|body| serde_json::from_slice::<Hold>(body.value()));
            let before = before.transpose()?.map(|hold| hold.points).unwrap_or_default();
            for id in hold.points.difference(&before) {
                let known = get(&points, id.0.as_u128())?;
                may_hold(*id, known.as_ref()).map_err(Stop::Answer)?;
            }
            holds.insert(name, &*serde_json::to_vec(hold)?)?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }

    async fn holds(&self) -> Result<Vec<Hold>, CatalogError> {
        Ok(self.read(|transaction| {
            let mut holds = Vec::new();
            for row in transaction.open_table(HOLD)?.iter()? {
                holds.push(serde_json::from_slice(row?.1.value())?);
            }
            Ok::<_, Stop<CatalogError>>(holds)
        })?)
    }

    async fn put_fork(&self, fork: &ChainFork) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let mut forks = transaction.open_table(FORK)?;
            forks.insert(fork.run.0.as_u128(), &*serde_json::to_vec(fork)?)?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }

    async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, CatalogError> {
        Ok(self.read(|transaction| {
            let mut forks = Vec::new();
            for row in transaction.open_table(FORK)?.iter()? {
                forks.push(serde_json::from_slice::<ChainFork>(row?.1.value())?);
            }
            forks.retain(|fork| fork.database == database);
            forks.sort_by_key(|fork| (fork.at, fork.run));
            Ok::<_, Stop<CatalogError>>(forks)
        })?)
    }

    async fn remove_fork(&self, run: RunId) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            transaction.open_table(FORK)?.remove(run.0.as_u128())?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }

    async fn remove_hold(&self, name: &HoldName) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            transaction.open_table(HOLD)?.remove(name.as_str())?;
            Ok::<_, Stop<CatalogError>>(())
        })?)
    }
}
