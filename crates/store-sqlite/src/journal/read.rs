//! Records out of the table.

use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, params};
use stillpoint_workflow::{JournalError, Now, Position, Seq, Stored, StreamId, decode_records};

use crate::error::unwritten;
use crate::key::{self, Key, signed, unsigned};

/// An append as it is stored.
#[derive(Debug)]
pub(super) struct Row {
    seq: i64,
    count: i64,
    position: i64,
    mono: i64,
    civil: i64,
    records: Vec<u8>,
}

/// The appends that hold at most `max` records from a place on, without holes.
pub(super) fn rows(
    db: &Connection,
    stream: StreamId,
    from: Seq,
    max: usize,
) -> Result<Vec<Row>, JournalError> {
    let mut find =
        db.prepare_cached("SELECT n, first, head FROM stream WHERE id = ?1").map_err(unwritten)?;
    let found = find
        .query_row([Key::of(stream)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(unwritten)?;
    let Some((n, first, head)): Option<(i64, i64, i64)> = found else { return Ok(Vec::new()) };
    // What was before is forgotten.
    let from = signed(from.0).max(first);
    let end = from.saturating_add(i64::try_from(max).unwrap_or(i64::MAX)).min(head);
    if from >= end {
        return Ok(Vec::new());
    }
    let mut statement = db
        .prepare_cached(
            "SELECT seq, count, position, mono, civil, records FROM append \
             WHERE stream = ?1 AND seq < ?3 AND seq >= \
               (SELECT coalesce(max(seq), 0) FROM append WHERE stream = ?1 AND seq <= ?2) \
             ORDER BY seq",
        )
        .map_err(unwritten)?;
    let mut found = statement.query(params![n, from, end]).map_err(unwritten)?;
    let mut rows: Vec<Row> = Vec::new();
    while let Some(row) = found.next().map_err(unwritten)? {
        let row = Row {
            seq: row.get(0).map_err(unwritten)?,
            count: row.get(1).map_err(unwritten)?,
            position: row.get(2).map_err(unwritten)?,
            mono: row.get(3).map_err(unwritten)?,
            civil: row.get(4).map_err(unwritten)?,
            records: row.get(5).map_err(unwritten)?,
        };
        let next = rows.last().map_or(row.seq.min(from), |before| before.seq + before.count);
        if row.seq != next || row.count < 1 {
            return Err(hole(stream, next));
        }
        rows.push(row);
    }
    let covered = rows.last().map_or(from, |last| last.seq.saturating_add(last.count));
    if covered < end {
        return Err(hole(stream, covered));
    }
    Ok(rows)
}

fn hole(stream: StreamId, at: i64) -> JournalError {
    JournalError::Corrupt(format!("stream {stream} has a hole at {at}"))
}

/// The records of these appends, from a place on.
pub(super) fn unpack(
    stream: StreamId,
    rows: &[Row],
    from: Seq,
    max: usize,
) -> Result<Vec<Stored>, JournalError> {
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let records = decode_records(&row.records)?;
        if i64::try_from(records.len()).ok() != Some(row.count) {
            let seq = row.seq;
            let message = format!("stream {stream} has other records at {seq} than it should");
            return Err(JournalError::Corrupt(message));
        }
        let at =
            Now { mono: key::mono(row.mono), civil: DateTime::from_timestamp_nanos(row.civil) };
        let position = Position(unsigned(row.position));
        let numbered = (unsigned(row.seq)..).zip(records).filter(|(seq, _)| *seq >= from.0);
        let left = max - all.len();
        all.extend(numbered.take(left).map(|(seq, record)| Stored {
            stream,
            seq: Seq(seq),
            position,
            at,
            record,
        }));
    }
    Ok(all)
}
