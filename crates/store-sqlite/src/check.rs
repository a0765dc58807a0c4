//! Whether what is in the file fits together.

use rusqlite::{Connection, Row};
use stillpoint_catalog::CatalogError;
use stillpoint_workflow::{JournalError, Record, StreamId, decode_records};

use crate::error::rolled_back;
use crate::key;

fn corrupt(message: String) -> CatalogError {
    CatalogError::Corrupt { message, source: None }
}

/// Checks pages, tables and journal.
pub(crate) fn everything(connection: &Connection) -> Result<(), CatalogError> {
    pages(connection)?;
    streams(connection)?;
    positions(connection)
}

/// Reads every page and checks that the tables fit together.
pub(crate) fn pages(connection: &Connection) -> Result<(), CatalogError> {
    let mut statement = connection.prepare("PRAGMA quick_check(1)").map_err(rolled_back)?;
    let found: String = statement.query_row([], |row| row.get(0)).map_err(rolled_back)?;
    if found == "ok" { Ok(()) } else { Err(corrupt(found)) }
}

/// A stream while its appends are gone through.
#[derive(Debug)]
struct Walk {
    id: StreamId,
    n: i64,
    head: i64,
    open: bool,
    /// Up to where the records are there, or forgotten.
    count: i64,
    ended: bool,
}

impl Walk {
    /// Every stream has no holes from its first record on, and ends where its head says.
    fn step(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let seq: i64 = row.get("seq").map_err(rolled_back)?;
        let count: i64 = row.get("count").map_err(rolled_back)?;
        if seq != self.count || count < 1 {
            return Err(corrupt(format!("stream {} has a hole at {}", self.id, self.count)));
        }
        self.count += count;
        let stored = row.get_ref("records").map_err(rolled_back)?;
        let stored = stored.as_blob().map_err(|error| corrupt(error.to_string()))?;
        match decode_records(stored) {
            Ok(records) if i64::try_from(records.len()).ok() == Some(count) => {
                self.ended = records.last().is_some_and(Record::ends_run);
                Ok(())
            }
            Ok(_) => Err(corrupt(format!("stream {} has other records at {seq}", self.id))),
            // A newer version may write here, too; what it wrote is not for us to judge.
            Err(JournalError::Format { .. } | JournalError::PlanFormat { .. }) => {
                self.ended = !self.open;
                Ok(())
            }
            Err(error) => Err(corrupt(format!("stream {} at {seq}: {error}", self.id))),
        }
    }

    fn finish(&self) -> Result<(), CatalogError> {
        if self.count != self.head {
            return Err(corrupt(format!(
                "stream {} has {} records and should have {}",
                self.id, self.count, self.head
            )));
        }
        let open = matches!(self.id, StreamId::Run(_)) && !self.ended;
        if open == self.open {
            Ok(())
        } else {
            Err(corrupt(format!("stream {} is open, or ended, unlike its records", self.id)))
        }
    }
}

fn streams(connection: &Connection) -> Result<(), CatalogError> {
    let mut all = connection
        .prepare("SELECT n, id, head, open, first FROM stream ORDER BY n")
        .map_err(rolled_back)?;
    let mut appends = connection
        .prepare(
            "SELECT stream, seq, count, records FROM append WHERE stream > 0 ORDER BY stream, seq",
        )
        .map_err(rolled_back)?;
    let mut all = all.query([]).map_err(rolled_back)?;
    let mut appends = appends.query([]).map_err(rolled_back)?;
    let mut append = appends.next().map_err(rolled_back)?;
    while let Some(row) = all.next().map_err(rolled_back)? {
        let id: Vec<u8> = row.get(1).map_err(rolled_back)?;
        let id = key::parse(&id).ok_or_else(|| corrupt("a stream has no id".to_owned()))?;
        let (n, head, open) = (row.get(0), row.get(2), row.get(3));
        let (n, head) = (n.map_err(rolled_back)?, head.map_err(rolled_back)?);
        let open = open.map_err(rolled_back)?;
        let first: i64 = row.get(4).map_err(rolled_back)?;
        if first > 0 && id != StreamId::Arbiter {
            return Err(corrupt(format!("stream {id} begins at {first}")));
        }
        let mut walk = Walk { id, n, head, open, count: first, ended: false };
        while let Some(row) = append {
            let stream: i64 = row.get(0).map_err(rolled_back)?;
            if stream != walk.n {
                break;
            }
            walk.step(row)?;
            append = appends.next().map_err(rolled_back)?;
        }
        walk.finish()?;
    }
    // They come in the order of their streams: one is left over if its stream is not there.
    if append.is_some() {
        Err(corrupt("there are records of no stream".to_owned()))
    } else {
        Ok(())
    }
}

/// Commits are in order, and what is open has an owner.
fn positions(connection: &Connection) -> Result<(), CatalogError> {
    let count =
        |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(rolled_back);
    let backwards = "SELECT count(*) FROM \
         (SELECT position - lag(position, 1, 0) OVER (ORDER BY place) AS step FROM append) \
         WHERE step < 0";
    if count(backwards)? > 0 {
        return Err(corrupt("commits are out of order".to_owned()));
    }
    let beyond = "SELECT count(*) FROM fact WHERE position > \
         (SELECT coalesce(max(position), 0) FROM append)";
    if count(beyond)? > 0 {
        return Err(corrupt("there are facts of no commit".to_owned()));
    }
    let orphans = "SELECT count(*) FROM stream WHERE open = 1 AND \
         epoch NOT IN (SELECT epoch FROM lease)";
    if count(orphans)? > 0 {
        return Err(corrupt("an open run has no owner".to_owned()));
    }
    Ok(())
}
