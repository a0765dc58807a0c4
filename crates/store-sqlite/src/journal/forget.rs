//! Forgetting streams, with what their runs stated, and the beginning of the arbiter's.

use rusqlite::{Connection, OptionalExtension, params};
use stillpoint_workflow::{Forget, Seq, StreamId};

use crate::key::{Key, signed};

/// Forgets what may go; how many streams went.
///
/// What bears the highest number stays, for streams and for commits: numbers are read off the ends of their tables, and must not be
/// given again.
pub(super) fn forget(db: &Connection, what: &Forget) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for stream in &what.streams {
        gone += u64::from(*stream != StreamId::Arbiter && forget_stream(db, *stream)?);
    }
    forget_grants(db, what.arbiter)?;
    Ok(gone)
}

fn forget_stream(db: &Connection, stream: StreamId) -> rusqlite::Result<bool> {
    let found: Option<i64> = db
        .prepare_cached(
            "SELECT n FROM stream WHERE id = ?1 AND open = 0 \
               AND n < (SELECT max(n) FROM stream) \
               AND n <> (SELECT stream FROM append ORDER BY place DESC LIMIT 1)",
        )?
        .query_row([Key::of(stream)], |row| row.get(0))
        .optional()?;
    let Some(n) = found else { return Ok(false) };
    if let StreamId::Run(run) = stream {
        let mut stated = db.prepare_cached("DELETE FROM fact WHERE run = ?1")?;
        stated.execute([&run.0.as_bytes()[..]])?;
    }
    db.prepare_cached("DELETE FROM append WHERE stream = ?1")?.execute([n])?;
    db.prepare_cached("DELETE FROM stream WHERE n = ?1")?.execute([n])?;
    Ok(true)
}

/// Appends go as a whole: what is left begins with the one that holds `before`, or the last.
fn forget_grants(db: &Connection, before: Seq) -> rusqlite::Result<()> {
    let arbiter = Key::of(StreamId::Arbiter);
    let found: Option<(i64, Option<i64>)> = db
        .prepare_cached(
            "SELECT n, (SELECT max(seq) FROM append WHERE stream = n AND seq <= ?2) \
             FROM stream WHERE id = ?1",
        )?
        .query_row(params![arbiter, signed(before.0)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((n, Some(first))) = found else { return Ok(()) };
    db.prepare_cached("DELETE FROM append WHERE stream = ?1 AND seq < ?2")?
        .execute(params![n, first])?;
    db.prepare_cached("UPDATE stream SET first = ?2 WHERE n = ?1 AND first < ?2")?
        .execute(params![n, first])?;
    Ok(())
}
