//! The catalogue in tables.

mod schedules;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params, params, params_from_iter};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_catalog::{
    Begun, Catalog, CatalogError, Cursor, Debris, JobQuery, Listing, Named, Page, PageToken,
    PointQuery, may_hold, order_key,
};
use stillpoint_context::{JobId, ProcessId, RunId};
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, GroupId, HoldName, PointId, PolicyId};
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::point::{PointFact, RestorePoint};
use stillpoint_model::policy::Policy;
use uuid::Uuid;

use crate::SqliteStore;
use crate::error::rolled_back;
use crate::key::signed;
use crate::lease;
use crate::pen::Pen;

/// The topic whose facts the catalogue is made of.
pub(crate) const TOPIC: &str = "restore-point";

fn blob(id: Uuid) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

fn body<T: Serialize>(value: &T) -> Result<String, CatalogError> {
    serde_json::to_string(value).map_err(|source| CatalogError::Corrupt {
        message: "an entry cannot be written as JSON".to_owned(),
        source: Some(Box::new(source)),
    })
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, CatalogError> {
    serde_json::from_str(text).map_err(|source| CatalogError::Corrupt {
        message: "an entry cannot be read".to_owned(),
        source: Some(Box::new(source)),
    })
}

fn execute(db: &Connection, sql: &str, params: impl Params) -> Result<(), CatalogError> {
    let mut statement = db.prepare_cached(sql).map_err(rolled_back)?;
    statement.execute(params).map_err(rolled_back)?;
    Ok(())
}

/// The first column of the first row, read as JSON.
fn one<T: DeserializeOwned>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, CatalogError> {
    let mut statement = db.prepare_cached(sql).map_err(rolled_back)?;
    let text: Option<String> =
        statement.query_row(params, |row| row.get(0)).optional().map_err(rolled_back)?;
    text.map(|text| parse(&text)).transpose()
}

/// The first column of every row, read as JSON.
fn many<T: DeserializeOwned>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<T>, CatalogError> {
    let mut statement = db.prepare_cached(sql).map_err(rolled_back)?;
    let mut rows = statement.query(params).map_err(rolled_back)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(rolled_back)? {
        let text = row.get_ref(0).and_then(|text| text.as_str().map_err(Into::into));
        entries.push(parse(text.map_err(rolled_back)?)?);
    }
    Ok(entries)
}

/// Conditions that all hold, with their values.
#[derive(Default)]
struct Filter {
    sql: String,
    values: Vec<Value>,
}

impl Filter {
    fn and(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
            self.sql.push_str(condition);
            self.values.push(value);
        }
    }

    /// Newest first, behind the page before, and one more than the page holds.
    fn list<T: DeserializeOwned>(
        mut self,
        db: &Connection,
        table: &str,
        time: &str,
        page: &Page,
    ) -> Result<Vec<T>, CatalogError> {
        if let Some(after) = page.after {
            // As a row value, so that an index on both columns serves it.
            self.and(&format!("{time} <= ?"), Some(after.at().into()));
            self.and(&format!("({time} < ? OR id > ?)"), Some(after.at().into()));
            self.values.push(blob(after.id()));
        }
        self.values.push((i64::from(page.size()) + 1).into());
        let sql = format!("SELECT body FROM {table}{} ORDER BY {time} DESC, id LIMIT ?", self.sql);
        many(db, &sql, params_from_iter(self.values))
    }
}

fn point(db: &Connection, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
    one(db, "SELECT body FROM point WHERE id = ?", [blob(id.0)])
}

fn put_point(db: &Connection, point: &RestorePoint) -> Result<(), CatalogError> {
    execute(
        db,
        "INSERT OR REPLACE INTO point (id, taken_at, database, resource_group, policy, job, run, \
         set_token, kind, state, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            blob(point.id.0),
            order_key(point.taken_at),
            blob(point.database.0),
            point.group.map(|group| blob(group.0)),
            point.policy.as_ref().map(|policy| blob(policy.id.0)),
            blob(point.job.0),
            blob(point.run.0),
            point.set.as_str(),
            point.kind.word(),
            point.state.word(),
            body(point)?,
        ],
    )
}

fn is_removed(db: &Connection, id: PointId) -> Result<bool, CatalogError> {
    db.prepare_cached("SELECT 1 FROM removed_point WHERE id = ?")
        .and_then(|mut statement| statement.exists([blob(id.0)]))
        .map_err(rolled_back)
}

fn apply(db: &Connection, fact: &PointFact) -> Result<(), CatalogError> {
    let id = fact.point();
    if is_removed(db, id)? {
        return Ok(());
    }
    let before = point(db, id)?;
    let after = fact.apply(before.clone())?;
    match &after {
        Some(point) if after != before => put_point(db, point)?,
        Some(_) => {}
        None => execute(db, "DELETE FROM point WHERE id = ?", [blob(id.0)])?,
    }
    if matches!(fact, PointFact::Removed { .. }) {
        execute(db, "INSERT INTO removed_point (id) VALUES (?)", [blob(id.0)])?;
    }
    Ok(())
}

fn cursor(db: &Connection) -> Result<Option<Cursor>, CatalogError> {
    let mut statement =
        db.prepare_cached("SELECT position FROM cursor WHERE topic = ?").map_err(rolled_back)?;
    let stored: Option<[u8; 8]> =
        statement.query_row([TOPIC], |row| row.get(0)).optional().map_err(rolled_back)?;
    Ok(stored.map(|bytes| Cursor(u64::from_be_bytes(bytes))))
}

fn move_cursor(db: &Connection, to: Cursor) -> Result<(), CatalogError> {
    if cursor(db)? >= Some(to) {
        return Ok(());
    }
    execute(
        db,
        "INSERT OR REPLACE INTO cursor (topic, position) VALUES (?, ?)",
        params![TOPIC, to.0.to_be_bytes()],
    )
}

/// Takes in what a commit of the journal says, in its transaction, and moves the cursor to it.
///
/// If a fact does not fit, or an earlier one was not taken in, the catalogue stays as it is with its cursor, and whoever
/// feeds catalogues from journals meets the fact there. The commit stands in any case.
pub(crate) fn take_in(
    pen: &mut Pen<'_>,
    facts: &[Option<PointFact>],
    position: i64,
) -> rusqlite::Result<()> {
    pen.in_savepoint(|db| match apply_next(db, facts, position) {
        Ok(done) => done,
        Err(error) => {
            tracing::warn!(%error, position, "the catalogue does not take in facts of the journal");
            false
        }
    })
}

fn apply_next(
    db: &Connection,
    facts: &[Option<PointFact>],
    position: i64,
) -> Result<bool, CatalogError> {
    let Some(facts) = facts.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else {
        tracing::warn!(position, "a fact of the journal cannot be read");
        return Ok(false);
    };
    let read = cursor(db)?.map_or(0, |cursor| signed(cursor.0));
    let behind = db
        .prepare_cached("SELECT 1 FROM fact WHERE topic = ? AND position > ? AND position < ?")
        .and_then(|mut statement| statement.exists(params![TOPIC, read, position]))
        .map_err(rolled_back)?;
    if behind {
        return Ok(false);
    }
    facts.into_iter().try_for_each(|fact| apply(db, fact))?;
    move_cursor(db, Cursor(crate::key::unsigned(position)))?;
    Ok(true)
}

fn job_values(job: &Job) -> Result<[Value; 7], CatalogError> {
    let kind = serde_json::to_value(job.kind).ok();
    let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok([
        blob(job.id.0),
        job.key.as_str().to_owned().into(),
        order_key(job.created_at).into(),
        kind.into(),
        job.group.map_or(Value::Null, |group| blob(group.0)),
        i64::from(job.state().is_final()).into(),
        body(job)?.into(),
    ])
}

/// The newest version of every policy, by name.
fn policies(db: &Connection) -> Result<Vec<Policy>, CatalogError> {
    let mut policies: Vec<Policy> = many(
        db,
        "SELECT body FROM policy AS one WHERE version = \
         (SELECT max(version) FROM policy WHERE id = one.id)",
        [],
    )?;
    policies.sort_by_key(|policy| policy.name.to_lowercase());
    Ok(policies)
}

/// Every group, by name. Names are compared here: SQLite folds the case of ASCII only.
fn groups(db: &Connection) -> Result<Vec<ResourceGroup>, CatalogError> {
    let mut groups: Vec<ResourceGroup> = many(db, "SELECT body FROM resource_group", [])?;
    groups.sort_by_key(|group| group.name.to_lowercase());
    Ok(groups)
}

fn policy(
    db: &Connection,
    id: PolicyId,
    version: Option<NonZeroU32>,
) -> Result<Option<Policy>, CatalogError> {
    match version {
        Some(version) => one(
            db,
            "SELECT body FROM policy WHERE id = ? AND version = ?",
            params![blob(id.0), version.get()],
        ),
        None => one(
            db,
            "SELECT body FROM policy WHERE id = ? ORDER BY version DESC LIMIT 1",
            [blob(id.0)],
        ),
    }
}

fn put_policy(db: &Connection, new: &Policy) -> Result<(), CatalogError> {
    let newest = policy(db, new.id, None)?.map_or(0, |newest| newest.version.get());
    match policy(db, new.id, Some(new.version))? {
        Some(known) if known == *new => return Ok(()),
        None if new.version.get() - 1 == newest => {}
        _ => {
            return Err(CatalogError::Version { id: new.id, found: new.version, newest });
        }
    }
    let name = new.name.to_lowercase();
    if policies(db)?.iter().any(|known| known.id != new.id && known.name.to_lowercase() == name) {
        return Err(CatalogError::NameTaken { what: Named::Policy, name: new.name.clone() });
    }
    execute(
        db,
        "INSERT INTO policy (id, version, body) VALUES (?, ?, ?)",
        params![blob(new.id.0), new.version.get(), body(new)?],
    )
}

fn group(db: &Connection, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
    one(db, "SELECT body FROM resource_group WHERE id = ?", [blob(id.0)])
}

fn put_group(db: &Connection, new: &ResourceGroup) -> Result<(), CatalogError> {
    for id in &new.policies {
        if policy(db, *id, None)?.is_none() {
            return Err(CatalogError::NotFound { kind: "policy", id: id.to_string() });
        }
    }
    schedules::check(db, new)?;
    let known = group(db, new.id)?;
    let newest = known.as_ref().map_or(0, |known| known.version.get());
    if known.as_ref() == Some(new) {
        return Ok(());
    }
    if new.version.get() - 1 != newest {
        let (id, found) = (new.id, new.version);
        return Err(CatalogError::GroupVersion { id, found, newest });
    }
    let name = new.name.to_lowercase();
    if groups(db)?.iter().any(|known| known.id != new.id && known.name.to_lowercase() == name) {
        return Err(CatalogError::NameTaken { what: Named::Group, name: new.name.clone() });
    }
    execute(
        db,
        "INSERT OR REPLACE INTO resource_group (id, body) VALUES (?, ?)",
        params![blob(new.id.0), body(new)?],
    )?;
    schedules::note_change(db)
}

fn job(db: &Connection, id: JobId) -> Result<Option<Job>, CatalogError> {
    one(db, "SELECT body FROM job WHERE id = ?", [blob(id.0)])
}

fn begin_job(db: &Connection, job: &Job) -> Result<Begun, CatalogError> {
    let known: Option<Job> = one(db, "SELECT body FROM job WHERE key = ?", [job.key.as_str()])?;
    match known {
        Some(known) if known.request_digest == job.request_digest && known.kind == job.kind => {
            return Ok(Begun::Existing(Box::new(known)));
        }
        Some(known) => {
            return Err(CatalogError::KeyReused { key: job.key.clone(), job: known.id });
        }
        None => {}
    }
    // An id is used once, whatever the key.
    if let Some(twin) = self::job(db, job.id)? {
        return Err(CatalogError::KeyReused { key: twin.key, job: twin.id });
    }
    execute(
        db,
        "INSERT INTO job (id, key, created_at, kind, resource_group, ended, body) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        params_from_iter(job_values(job)?),
    )?;
    Ok(Begun::New)
}

fn put_job(db: &Connection, job: &Job) -> Result<(), CatalogError> {
    let mut statement = db
        .prepare_cached(
            "UPDATE job SET key = ?2, created_at = ?3, kind = ?4, resource_group = ?5, \
             ended = ?6, body = ?7 WHERE id = ?1",
        )
        .map_err(rolled_back)?;
    match statement.execute(params_from_iter(job_values(job)?)).map_err(rolled_back)? {
        0 => Err(CatalogError::NotFound { kind: "job", id: job.id.to_string() }),
        _ => Ok(()),
    }
}

fn put_hold(db: &Connection, hold: &Hold) -> Result<(), CatalogError> {
    let before: Option<Hold> =
        one(db, "SELECT body FROM hold WHERE name = ?", [hold.name.as_str()])?;
    let new = hold
        .points
        .iter()
        .filter(|id| before.as_ref().is_none_or(|hold| !hold.points.contains(id)));
    for id in new {
        may_hold(*id, point(db, *id)?.as_ref())?;
    }
    execute(
        db,
        "INSERT OR REPLACE INTO hold (name, body) VALUES (?, ?)",
        params![hold.name.as_str(), body(hold)?],
    )
}

#[async_trait]
impl Catalog for SqliteStore {
    async fn apply(&self, facts: &[PointFact], to: Option<Cursor>) -> Result<(), CatalogError> {
        let facts = facts.to_vec();
        self.write(move |db| {
            facts.iter().try_for_each(|fact| apply(db, fact))?;
            to.map_or(Ok(()), |to| move_cursor(db, to))
        })
        .await
    }

    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError> {
        self.read(cursor).await
    }

    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
        self.read(move |db| point(db, id)).await
    }

    async fn points(
        &self,
        query: &PointQuery,
        page: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError> {
        let (query, page) = (query.clone(), *page);
        self.read(move |db| {
            let mut filter = Filter::default();
            filter.and("database = ?", query.database.map(|id| blob(id.0)));
            filter.and("resource_group = ?", query.group.map(|id| blob(id.0)));
            filter.and("policy = ?", query.policy.map(|id| blob(id.0)));
            filter.and("job = ?", query.job.map(|id| blob(id.0)));
            filter.and("run = ?", query.run.map(|id| blob(id.0)));
            filter.and("set_token = ?", query.set.map(|token| token.as_str().to_owned().into()));
            filter.and("kind = ?", query.kind.map(|kind| kind.word().to_owned().into()));
            filter.and("state = ?", query.state.map(|state| state.word().to_owned().into()));
            filter.and("taken_at >= ?", query.from.map(|from| order_key(from).into()));
            filter.and("taken_at <= ?", query.until.map(|until| order_key(until).into()));
            let found = filter.list(db, "point", "taken_at", &page)?;
            Ok(Listing::cut(found, page.size(), |point: &RestorePoint| {
                PageToken::behind(order_key(point.taken_at), point.id.0)
            }))
        })
        .await
    }

    async fn removed(&self, points: &[PointId]) -> Result<BTreeSet<PointId>, CatalogError> {
        let points = points.to_vec();
        self.read(move |db| {
            let mut removed = BTreeSet::new();
            for id in points {
                if is_removed(db, id)? {
                    removed.insert(id);
                }
            }
            Ok(removed)
        })
        .await
    }

    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError> {
        let job = job.clone();
        self.write(move |db| begin_job(db, &job)).await
    }

    async fn take_job(
        &self,
        id: JobId,
        from: Option<JobOwner>,
        to: JobOwner,
    ) -> Result<Option<Job>, CatalogError> {
        self.write(move |db| {
            let unknown = || CatalogError::NotFound { kind: "job", id: id.to_string() };
            let mut job = job(db, id)?.ok_or_else(unknown)?;
            if job.owner == from {
                job.owner = Some(to);
                put_job(db, &job)?;
            }
            Ok((job.owner == Some(to)).then_some(job))
        })
        .await
    }

    async fn put_job(&self, job: &Job) -> Result<(), CatalogError> {
        let job = job.clone();
        self.write(move |db| put_job(db, &job)).await
    }

    async fn put_job_in_epoch(
        &self,
        job: &Job,
        owner: ProcessId,
        epoch: u64,
    ) -> Result<(), CatalogError> {
        let job = job.clone();
        self.write(move |db| {
            if lease::is_held(db, owner, epoch).map_err(rolled_back)? {
                put_job(db, &job)
            } else {
                Err(CatalogError::Fenced { owner, epoch })
            }
        })
        .await
    }

    async fn forget_jobs(&self, jobs: &[JobId]) -> Result<u64, CatalogError> {
        let jobs = jobs.to_vec();
        self.write(move |db| {
            let mut forget = db
                .prepare_cached("DELETE FROM job WHERE id = ? AND ended = 1")
                .map_err(rolled_back)?;
            let mut gone = 0;
            for id in jobs {
                gone += forget.execute([blob(id.0)]).map_err(rolled_back)? as u64;
            }
            Ok(gone)
        })
        .await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        self.read(move |db| job(db, id)).await
    }

    async fn jobs(&self, query: &JobQuery, page: &Page) -> Result<Listing<Job>, CatalogError> {
        let (query, page) = (query.clone(), *page);
        self.read(move |db| {
            let kind = query.kind.and_then(|kind| serde_json::to_value(kind).ok());
            let kind = kind.as_ref().and_then(serde_json::Value::as_str).map(str::to_owned);
            let mut filter = Filter::default();
            filter.and("kind = ?", kind.map(Into::into));
            filter.and("resource_group = ?", query.group.map(|id| blob(id.0)));
            filter.and("ended = ?", query.ended.map(|ended| i64::from(ended).into()));
            filter.and("created_at >= ?", query.from.map(|from| order_key(from).into()));
            filter.and("created_at <= ?", query.until.map(|until| order_key(until).into()));
            let found = filter.list(db, "job", "created_at", &page)?;
            Ok(Listing::cut(found, page.size(), |job: &Job| {
                PageToken::behind(order_key(job.created_at), job.id.0)
            }))
        })
        .await
    }

    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        let policy = policy.clone();
        self.write(move |db| put_policy(db, &policy)).await
    }

    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError> {
        self.read(move |db| policy(db, id, version)).await
    }

    async fn policies(&self) -> Result<Vec<Policy>, CatalogError> {
        self.read(policies).await
    }

    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError> {
        self.write(move |db| {
            let groups: Vec<GroupId> = groups(db)?
                .into_iter()
                .filter(|group| group.policies.contains(&id))
                .map(|group| group.id)
                .collect();
            if !groups.is_empty() {
                return Err(CatalogError::PolicyInUse { id, groups });
            }
            execute(db, "DELETE FROM policy WHERE id = ?", [blob(id.0)])
        })
        .await
    }

    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        let group = group.clone();
        self.write(move |db| put_group(db, &group)).await
    }

    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
        self.read(move |db| group(db, id)).await
    }

    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError> {
        self.read(groups).await
    }

    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError> {
        self.write(move |db| {
            execute(db, "DELETE FROM resource_group WHERE id = ?", [blob(id.0)])?;
            schedules::note_change(db)
        })
        .await
    }

    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError> {
        let debris = debris.clone();
        self.write(move |db| {
            execute(
                db,
                "INSERT OR REPLACE INTO debris (key, since, body) VALUES (?, ?, ?)",
                params![debris.key, order_key(debris.since), body(&debris)?],
            )
        })
        .await
    }

    async fn debris(&self) -> Result<Vec<Debris>, CatalogError> {
        self.read(|db| many(db, "SELECT body FROM debris ORDER BY since, key", [])).await
    }

    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError> {
        let key = key.to_owned();
        self.write(move |db| execute(db, "DELETE FROM debris WHERE key = ?", [key])).await
    }

    async fn put_hold(&self, hold: &Hold) -> Result<(), CatalogError> {
        let hold = hold.clone();
        self.write(move |db| put_hold(db, &hold)).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, CatalogError> {
        self.read(|db| many(db, "SELECT body FROM hold ORDER BY name", [])).await
    }

    async fn put_fork(&self, fork: &ChainFork) -> Result<(), CatalogError> {
        let fork = fork.clone();
        self.write(move |db| {
            execute(
                db,
                "INSERT OR REPLACE INTO fork (run, database, at, body) VALUES (?, ?, ?, ?)",
                params![
                    fork.run.0.as_bytes(),
                    fork.database.0.as_bytes(),
                    order_key(fork.at),
                    body(&fork)?
                ],
            )
        })
        .await
    }

    async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, CatalogError> {
        let query = "SELECT body FROM fork WHERE database = ? ORDER BY at, run";
        self.read(move |db| many(db, query, [database.0.as_bytes()])).await
    }

    async fn remove_fork(&self, run: RunId) -> Result<(), CatalogError> {
        self.write(move |db| execute(db, "DELETE FROM fork WHERE run = ?", [run.0.as_bytes()]))
            .await
    }

    async fn remove_hold(&self, name: &HoldName) -> Result<(), CatalogError> {
        let name = name.clone();
        self.write(move |db| execute(db, "DELETE FROM hold WHERE name = ?", [name.as_str()])).await
    }
}
