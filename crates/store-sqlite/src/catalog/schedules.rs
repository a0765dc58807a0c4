//! Schedules in tables.

use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use stillpoint_catalog::{
    Begun, CatalogError, Entry, LAPSES_KEPT, Named, ScheduleCatalog, Settlement, Settling, Times,
    UNBEGUN_NAMED, order_key,
};
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::{GroupId, ScheduleId};
use stillpoint_model::job::Job;
use stillpoint_model::schedule::{AttachmentId, Ledger, RecordedLapse, StoredSchedule};

use super::{begin_job, blob, body, execute, groups, many, one, parse};
use crate::SqliteStore;
use crate::error::rolled_back;
use crate::key::unsigned;

/// The numbers that are counted, by their names in the table.
const REVISION: &str = "revision";
const ENTRY: &str = "entry";
const LAPSE: &str = "lapse";
const BELIEVED: &str = "believed";
const CLOCK: &str = "clock";

fn counted(db: &Connection, name: &str) -> Result<Option<i64>, CatalogError> {
    let mut statement =
        db.prepare_cached("SELECT value FROM counter WHERE name = ?").map_err(rolled_back)?;
    statement.query_row([name], |row| row.get(0)).optional().map_err(rolled_back)
}

fn set(db: &Connection, name: &str, value: i64) -> Result<(), CatalogError> {
    execute(db, "INSERT OR REPLACE INTO counter (name, value) VALUES (?, ?)", params![name, value])
}

/// The next number of this name, from 1.
fn count(db: &Connection, name: &str) -> Result<i64, CatalogError> {
    let next = counted(db, name)?.unwrap_or(0).saturating_add(1);
    set(db, name, next)?;
    Ok(next)
}

/// Notes that a schedule or a group is another now.
pub(super) fn note_change(db: &Connection) -> Result<(), CatalogError> {
    count(db, REVISION).map(drop)
}

/// Whether the schedules of a group exist.
pub(super) fn check(db: &Connection, group: &ResourceGroup) -> Result<(), CatalogError> {
    for attached in &group.attachments {
        if schedule(db, attached.schedule, None)?.is_none() {
            let id = attached.schedule.to_string();
            return Err(CatalogError::NotFound { kind: "schedule", id });
        }
    }
    Ok(())
}

fn schedule(
    db: &Connection,
    id: ScheduleId,
    version: Option<NonZeroU32>,
) -> Result<Option<StoredSchedule>, CatalogError> {
    match version {
        Some(version) => one(
            db,
            "SELECT body FROM schedule WHERE id = ? AND version = ?",
            params![blob(id.0), version.get()],
        ),
        None => one(
            db,
            "SELECT body FROM schedule WHERE id = ? ORDER BY version DESC LIMIT 1",
            [blob(id.0)],
        ),
    }
}

/// The newest version of every schedule, by name.
fn schedules(db: &Connection) -> Result<Vec<StoredSchedule>, CatalogError> {
    let mut schedules: Vec<StoredSchedule> = many(
        db,
        "SELECT body FROM schedule AS one WHERE version = \
         (SELECT max(version) FROM schedule WHERE id = one.id)",
        [],
    )?;
    schedules.sort_by_key(|known| known.schedule.name.to_lowercase());
    Ok(schedules)
}

fn put_schedule(db: &Connection, new: &StoredSchedule) -> Result<(), CatalogError> {
    let (id, found) = (new.id, new.version);
    let newest = schedule(db, id, None)?.map_or(0, |newest| newest.version.get());
    match schedule(db, id, Some(found))? {
        Some(known) if known == *new => return Ok(()),
        None if found.get() - 1 == newest => {}
        _ => return Err(CatalogError::ScheduleVersion { id, found, newest }),
    }
    // As it is compared, so that a hundred thousand names need not be read to store one more.
    let name = new.schedule.name.to_lowercase();
    let taken = db
        .prepare_cached(
            "SELECT 1 FROM schedule AS one WHERE name = ?1 AND id <> ?2 AND version = \
             (SELECT max(version) FROM schedule WHERE id = one.id)",
        )
        .and_then(|mut statement| statement.exists(params![name, blob(id.0)]))
        .map_err(rolled_back)?;
    if taken {
        let name = new.schedule.name.clone();
        return Err(CatalogError::NameTaken { what: Named::Schedule, name });
    }
    execute(
        db,
        "INSERT INTO schedule (id, version, name, body) VALUES (?, ?, ?, ?)",
        params![blob(id.0), found.get(), name, body(new)?],
    )?;
    note_change(db)
}

fn entry(db: &Connection, id: AttachmentId) -> Result<Option<Entry>, CatalogError> {
    let mut statement = db
        .prepare_cached("SELECT revision, body FROM ledger WHERE attachment = ?")
        .map_err(rolled_back)?;
    let row: Option<(i64, String)> = statement
        .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(rolled_back)?;
    row.map(|(revision, text)| Ok(Entry { revision: unsigned(revision), ledger: parse(&text)? }))
        .transpose()
}

fn put_ledger(db: &Connection, ledger: &Ledger) -> Result<u64, CatalogError> {
    let revision = count(db, ENTRY)?;
    execute(
        db,
        "INSERT OR REPLACE INTO ledger (attachment, revision, considered, unbegun, body) \
         VALUES (?, ?, ?, ?, ?)",
        params![
            ledger.attachment.to_string(),
            revision,
            order_key(ledger.considered),
            ledger.is_unbegun(),
            body(ledger)?
        ],
    )?;
    Ok(unsigned(revision))
}

fn put_lapses(db: &Connection, id: &str, lapses: &[RecordedLapse]) -> Result<(), CatalogError> {
    if lapses.is_empty() {
        return Ok(());
    }
    for lapse in lapses {
        let n = count(db, LAPSE)?;
        execute(
            db,
            "INSERT INTO lapse (attachment, n, body) VALUES (?, ?, ?)",
            params![id, n, body(lapse)?],
        )?;
    }
    execute(
        db,
        "DELETE FROM lapse WHERE attachment = ?1 AND n <= \
         (SELECT n FROM lapse WHERE attachment = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)",
        params![id, LAPSES_KEPT],
    )
}

/// Of the lapses of what has no ledger any more the oldest go.
fn forget_lapses(db: &Connection) -> Result<(), CatalogError> {
    execute(
        db,
        "DELETE FROM lapse WHERE attachment NOT IN (SELECT attachment FROM ledger) AND n <= \
         (SELECT n FROM lapse WHERE attachment NOT IN (SELECT attachment FROM ledger) \
         ORDER BY n DESC LIMIT 1 OFFSET ?)",
        [LAPSES_KEPT],
    )
}

fn settle(db: &Connection, settlement: &Settlement) -> Result<Settling, CatalogError> {
    let known = entry(db, settlement.attachment)?;
    if known.as_ref().map(|known| known.revision) != settlement.from {
        return Ok(Settling::Stale(known.map(Box::new)));
    }
    let id = settlement.attachment.to_string();
    let Some(ledger) = &settlement.to else {
        execute(db, "DELETE FROM ledger WHERE attachment = ?", [&id])?;
        put_lapses(db, &id, &settlement.lapses)?;
        return Ok(Settling::Done(None));
    };
    let revision = put_ledger(db, ledger)?;
    put_lapses(db, &id, &settlement.lapses)?;
    Ok(Settling::Done(Some(revision)))
}

fn times(db: &Connection) -> Result<Times, CatalogError> {
    let mut times = Times::default();
    times.revision = unsigned(counted(db, REVISION)?.unwrap_or(0));
    times.clock = counted(db, CLOCK)?.and_then(DateTime::from_timestamp_micros);
    times.believed = unsigned(counted(db, BELIEVED)?.unwrap_or(0));
    let mut statement = db
        .prepare_cached(
            "SELECT attachment FROM ledger WHERE unbegun = 1 ORDER BY attachment LIMIT ?",
        )
        .map_err(rolled_back)?;
    let mut rows = statement.query([UNBEGUN_NAMED]).map_err(rolled_back)?;
    while let Some(row) = rows.next().map_err(rolled_back)? {
        let text: String = row.get(0).map_err(rolled_back)?;
        times.unbegun.push(text.parse().map_err(|error| CatalogError::Corrupt {
            message: "a ledger has no attachment".to_owned(),
            source: Some(Box::<dyn std::error::Error + Send + Sync>::from(error)),
        })?);
    }
    Ok(times)
}

fn ledgers(db: &Connection) -> Result<Vec<Entry>, CatalogError> {
    let mut statement = db
        .prepare_cached("SELECT revision, body FROM ledger ORDER BY attachment")
        .map_err(rolled_back)?;
    let mut rows = statement.query([]).map_err(rolled_back)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(rolled_back)? {
        let revision = row.get(0).map_err(rolled_back)?;
        let text = row.get_ref(1).and_then(|text| text.as_str().map_err(Into::into));
        let ledger = parse(text.map_err(rolled_back)?)?;
        entries.push(Entry { revision: unsigned(revision), ledger });
    }
    Ok(entries)
}

#[async_trait]
impl ScheduleCatalog for SqliteStore {
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Result<(), CatalogError> {
        let schedule = schedule.clone();
        self.write(move |db| put_schedule(db, &schedule)).await
    }

    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<StoredSchedule>, CatalogError> {
        self.read(move |db| schedule(db, id, version)).await
    }

    async fn schedules(&self) -> Result<Vec<StoredSchedule>, CatalogError> {
        self.read(schedules).await
    }

    async fn remove_schedule(&self, id: ScheduleId) -> Result<(), CatalogError> {
        self.write(move |db| {
            let uses =
                |group: &ResourceGroup| group.attachments.iter().any(|one| one.schedule == id);
            let groups: Vec<GroupId> =
                groups(db)?.into_iter().filter(uses).map(|group| group.id).collect();
            if !groups.is_empty() {
                return Err(CatalogError::ScheduleInUse { id, groups });
            }
            execute(db, "DELETE FROM schedule WHERE id = ?", [blob(id.0)])?;
            note_change(db)
        })
        .await
    }

    async fn times(&self) -> Result<Times, CatalogError> {
        self.read(times).await
    }

    async fn ledgers(&self) -> Result<Vec<Entry>, CatalogError> {
        self.read(ledgers).await
    }

    async fn ledger(&self, attachment: AttachmentId) -> Result<Option<Entry>, CatalogError> {
        self.read(move |db| entry(db, attachment)).await
    }

    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Result<Vec<Settling>, CatalogError> {
        let settlements = settlements.to_vec();
        self.write(move |db| {
            let now = order_key(now);
            if counted(db, CLOCK)?.is_none_or(|known| known < now) {
                set(db, CLOCK, now)?;
            }
            let settled = settlements.iter().map(|settlement| settle(db, settlement));
            let settled: Vec<_> = settled.collect::<Result<_, _>>()?;
            if settled.contains(&Settling::Done(None)) {
                forget_lapses(db)?;
            }
            Ok(settled)
        })
        .await
    }

    async fn begin_due(
        &self,
        job: &Job,
        of: AttachmentId,
        due: DateTime<Utc>,
    ) -> Result<Begun, CatalogError> {
        let job = job.clone();
        self.write(move |db| {
            let mut ledger = entry(db, of)?.map(|entry| entry.ledger);
            let Some(open) = ledger.as_mut().and_then(|ledger| ledger.unbegun(due)) else {
                return Err(CatalogError::DueSettled { attachment: of, due });
            };
            let begun = begin_job(db, &job)?;
            open.job = Some(begun.id(&job));
            ledger.as_ref().map(|ledger| put_ledger(db, ledger)).transpose()?;
            Ok(begun)
        })
        .await
    }

    async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, CatalogError> {
        self.read(move |db| match of {
            Some(id) => many(
                db,
                "SELECT body FROM lapse WHERE attachment = ? ORDER BY n DESC LIMIT ?",
                params![id.to_string(), most],
            ),
            None => many(db, "SELECT body FROM lapse ORDER BY n DESC LIMIT ?", [most]),
        })
        .await
    }

    async fn believe_clock(&self, now: DateTime<Utc>) -> Result<(), CatalogError> {
        self.write(move |db| {
            set(db, CLOCK, order_key(now))?;
            count(db, BELIEVED)?;
            let beyond: Vec<Ledger> =
                many(db, "SELECT body FROM ledger WHERE considered >= ?", [order_key(now)])?;
            for mut ledger in beyond.into_iter().filter(|ledger| ledger.considered > now) {
                ledger.considered = now;
                put_ledger(db, &ledger)?;
            }
            Ok(())
        })
        .await
    }
}
