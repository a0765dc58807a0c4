//! Leases in a table.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use stillpoint_context::{Mono, ProcessId};
use stillpoint_workflow::{Fencing, JournalError, Lease, Leases};
use uuid::Uuid;

use crate::SqliteStore;
use crate::error::unwritten;
use crate::key::{duration, mono, nanos, signed, unsigned};

/// A lease that is held, and whether a file tells if its process lives.
struct Held {
    lease: Lease,
    marked: bool,
}

const HELD: &str = "SELECT process, epoch, until, term, marked FROM lease WHERE until IS NOT NULL";

fn parse(row: &Row<'_>) -> rusqlite::Result<Held> {
    let process = ProcessId(Uuid::from_bytes(row.get(0)?));
    let term = duration(row.get(3)?);
    let mut lease = Lease::new(process, unsigned(row.get(1)?), Mono::ZERO, term);
    lease.until = mono(row.get(2)?);
    Ok(Held { lease, marked: row.get(4)? })
}

/// The lease of a process.
fn find(db: &Connection, process: ProcessId) -> Result<Option<Held>, JournalError> {
    db.prepare_cached(&format!("{HELD} AND process = ?1"))
        .and_then(|mut held| held.query_row([&process.0.as_bytes()[..]], parse).optional())
        .map_err(unwritten)
}

/// Whether a process holds this epoch.
pub(crate) fn is_held(db: &Connection, process: ProcessId, epoch: u64) -> rusqlite::Result<bool> {
    let mut held = db.prepare_cached(&format!("{HELD} AND process = ?1 AND epoch = ?2"))?;
    held.exists(params![&process.0.as_bytes()[..], signed(epoch)])
}

pub(crate) fn all(db: &Connection) -> Result<Vec<Lease>, JournalError> {
    let mut held = db.prepare_cached(&format!("{HELD} ORDER BY epoch")).map_err(unwritten)?;
    let rows = held.query_map([], parse).map_err(unwritten)?;
    rows.map(|row| row.map(|held| held.lease).map_err(unwritten)).collect()
}

fn execute(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<(), JournalError> {
    db.prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map(drop)
        .map_err(unwritten)
}

/// It stays known, for as long as it may be somebody's last word on a run.
fn end(db: &Connection, epoch: u64) -> Result<(), JournalError> {
    execute(db, "UPDATE lease SET until = NULL, marked = 0 WHERE epoch = ?1", [signed(epoch)])
}

fn give(
    db: &Connection,
    process: ProcessId,
    now: Mono,
    term: Duration,
) -> Result<Lease, JournalError> {
    // Ended ones that nothing speaks of any more. The newest stays, so that the next is higher.
    execute(
        db,
        "DELETE FROM lease WHERE until IS NULL AND epoch < (SELECT max(epoch) FROM lease) \
         AND epoch NOT IN (SELECT epoch FROM stream WHERE open = 1)",
        [],
    )?;
    let until = nanos((now + term).0);
    let epoch = db
        .prepare_cached("INSERT INTO lease (process, until, term, marked) VALUES (?1, ?2, ?3, 0)")
        .and_then(|mut insert| {
            insert.insert(params![&process.0.as_bytes()[..], until, nanos(term)])
        })
        .map_err(unwritten)?;
    Ok(Lease::new(process, unsigned(epoch), now, term))
}

#[async_trait]
impl Leases for SqliteStore {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let folder = self.0.alive.folder();
        let (lease, mark, before) = self
            .write(move |db| {
                let before = find(db, process)?.map(|held| held.lease.epoch);
                if let Some(before) = before {
                    end(db, before)?;
                }
                let lease = give(db, process, now, term)?;
                // Locked before anybody else can see the lease.
                let mark = folder.mark(process, lease.epoch);
                if mark.is_some() {
                    let epoch = signed(lease.epoch);
                    execute(db, "UPDATE lease SET marked = 1 WHERE epoch = ?1", [epoch])?;
                }
                Ok((lease, mark, before))
            })
            .await?;
        if let Some(mark) = mark {
            self.0.alive.keep(process, lease.epoch, mark);
        }
        if let Some(before) = before {
            self.0.alive.forget(process, before);
        }
        Ok(lease)
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.write(move |db| {
            let held = find(db, process)?.map(|held| held.lease);
            let lease = held
                .filter(|lease| lease.epoch == epoch)
                .ok_or(JournalError::Fenced { owner: process, epoch })?;
            let renewed = Lease::new(process, epoch, now, term);
            if renewed.until <= lease.until && !lease.is_over(now, Duration::ZERO) {
                return Ok(lease);
            }
            execute(
                db,
                "UPDATE lease SET until = ?1, term = ?2 WHERE epoch = ?3",
                params![nanos(renewed.until.0), nanos(term), signed(epoch)],
            )?;
            Ok(renewed)
        })
        .await
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.write(move |db| match find(db, process)? {
            Some(held) if held.lease.epoch == epoch => end(db, epoch),
            _ => Ok(()),
        })
        .await?;
        self.0.alive.forget(process, epoch);
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.read(all).await
    }

    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        let folder = self.0.alive.folder();
        let (fencing, ended) = self
            .write(move |db| {
                let Some(Held { lease, marked }) = find(db, process)? else {
                    return Ok((Fencing::Fenced, None));
                };
                let over = lease.is_over(now, margin);
                if over || marked && folder.is_dead(process, lease.epoch) {
                    end(db, lease.epoch)?;
                    return Ok((Fencing::Fenced, Some(lease.epoch)));
                }
                Ok((Fencing::Alive { until: lease.until }, None))
            })
            .await?;
        if let Some(ended) = ended {
            tracing::info!(%process, epoch = ended, "the lease of a process was ended");
            self.0.alive.folder().remove(process, ended);
        }
        Ok(fencing)
    }
}
