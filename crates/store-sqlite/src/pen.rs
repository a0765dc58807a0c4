//! Writes the journal: the statements, prepared once, and what is known without asking.

use std::collections::HashMap;

use rusqlite::blob::ZeroBlob;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Statement, ffi, params};
use stillpoint_context::ProcessId;
use stillpoint_workflow::StreamId;

use crate::key::Key;

/// The most streams whose numbers are kept in mind.
const KNOWN: usize = 100_000;

/// From how many bytes on the records of an append are written into their place by themselves.
const LARGE: usize = 1 << 20;

/// One append, in its stored form.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) stream: StreamId,
    pub(crate) expected: i64,
    pub(crate) count: i64,
    pub(crate) mono: i64,
    pub(crate) civil: i64,
    /// Whether the stream is one of a run that has not ended afterwards.
    pub(crate) open: bool,
    pub(crate) records: Vec<u8>,
}

/// One fact, in its stored form.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) topic: String,
    pub(crate) run: [u8; 16],
    pub(crate) key: String,
    pub(crate) body: std::sync::Arc<[u8]>,
}

/// What became of a batch in the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is the commit of this position.
    At(i64),
    /// Its owner does not hold its epoch.
    Fenced,
    /// Not every stream ends where it should.
    Misfit {
        /// The heads of all of them, in the order of the appends.
        heads: Vec<i64>,
        /// The position of the last commit.
        last: i64,
    },
}

/// A stream as it stands.
#[derive(Debug, Clone, Copy)]
struct Stream {
    n: i64,
    head: i64,
}

/// The connection in a transaction, for those who write the journal.
#[derive(Debug)]
pub(crate) struct Pen<'c> {
    db: &'c Connection,
    /// The numbers of streams. They never change and are never given again; a stream may have been forgotten, by any process.
    numbers: HashMap<StreamId, i64>,
    /// Who has been found to hold a lease in this transaction.
    holders: Vec<(ProcessId, u64)>,
    /// The position of the last commit, once asked for in this transaction.
    position: Option<i64>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    holds: Statement<'c>,
    last: Statement<'c>,
    find: Statement<'c>,
    look: Statement<'c>,
    advance: Statement<'c>,
    turn: Statement<'c>,
    make: Statement<'c>,
    insert: Statement<'c>,
    state: Statement<'c>,
}

impl<'c> Pen<'c> {
    pub(crate) fn new(db: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            db,
            numbers: HashMap::new(),
            holders: Vec::new(),
            position: None,
            // As a writer from the beginning: a reader that becomes one can be refused in the middle.
            begin: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            holds: db.prepare(
                "SELECT 1 FROM lease WHERE epoch = ?1 AND process = ?2 AND until IS NOT NULL",
            )?,
            last: db.prepare("SELECT position FROM append ORDER BY place DESC LIMIT 1")?,
            find: db.prepare("SELECT n, head FROM stream WHERE id = ?1")?,
            look: db.prepare("SELECT head FROM stream WHERE n = ?1")?,
            // `open` is not set here: it is part of an index, which would be written again each time.
            advance: db.prepare(
                "UPDATE stream SET head = ?1, epoch = ?2 WHERE n = ?3 AND head = ?4 AND open = ?5",
            )?,
            turn: db.prepare("UPDATE stream SET head = ?1, epoch = ?2, open = ?3 WHERE n = ?4")?,
            make: db
                .prepare("INSERT INTO stream (id, head, epoch, open) VALUES (?1, ?2, ?3, ?4)")?,
            insert: db.prepare(
                "INSERT INTO append (stream, seq, count, position, epoch, mono, civil, records) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?,
            state: db.prepare(
                "INSERT INTO fact (topic, position, n, run, key, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
        })
    }

    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        self.holders.clear();
        self.position = None;
        self.begin.execute([]).map(drop)
    }

    pub(crate) fn commit(&mut self) -> rusqlite::Result<()> {
        self.commit.execute([]).map(drop)
    }

    /// Leaves no transaction behind, nor anything that was learnt in one.
    pub(crate) fn roll_back(&mut self) {
        self.numbers.clear();
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the state file could not be rolled back");
        }
    }

    pub(crate) fn still_in_transaction(&self) -> rusqlite::Result<()> {
        if self.db.is_autocommit() {
            let what = "SQLite gave the transaction up".to_owned();
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_ABORT),
                Some(what),
            ));
        }
        Ok(())
    }

    /// Leases are about to change.
    pub(crate) fn forget_holders(&mut self) {
        self.holders.clear();
    }

    /// Does something that is kept if it says so.
    pub(crate) fn in_savepoint(
        &mut self,
        call: impl FnOnce(&Connection) -> bool,
    ) -> rusqlite::Result<()> {
        let run = |sql: &str| self.db.prepare_cached(sql)?.execute([]).map(drop);
        run("SAVEPOINT call")?;
        if !call(self.db) {
            run("ROLLBACK TO call")?;
        }
        run("RELEASE call")
    }

    /// Writes a batch: all of it, or nothing if it is refused.
    pub(crate) fn write(
        &mut self,
        owner: ProcessId,
        epoch: u64,
        appends: &[Append],
        facts: &[Fact],
    ) -> rusqlite::Result<Written> {
        if !self.is_held(owner, epoch)? {
            return Ok(Written::Fenced);
        }
        let epoch = crate::key::signed(epoch);
        let position = self.last_position()? + 1;
        // Nearly every append is one to a stream that is known and open, and fits.
        let simple = match appends {
            [append] => self.try_simply(append, epoch, position)?,
            _ => false,
        };
        if !simple && let Some(heads) = self.write_all(appends, epoch, position)? {
            return Ok(Written::Misfit { heads, last: position - 1 });
        }
        if appends.iter().all(|append| append.count == 0) {
            let nothing: &[u8] = &[];
            self.insert.execute(params![0, position, 0, position, epoch, 0, 0, nothing])?;
        }
        for (n, fact) in (0_i64..).zip(facts) {
            let Fact { topic, run, key, body } = fact;
            self.state.execute(params![topic, position, n, run, key, &body[..]])?;
        }
        self.position = Some(position);
        Ok(Written::At(position))
    }

    fn is_held(&mut self, owner: ProcessId, epoch: u64) -> rusqlite::Result<bool> {
        if self.holders.contains(&(owner, epoch)) {
            return Ok(true);
        }
        let held =
            self.holds.exists(params![crate::key::signed(epoch), &owner.0.as_bytes()[..]])?;
        if held {
            self.holders.push((owner, epoch));
        }
        Ok(held)
    }

    fn last_position(&mut self) -> rusqlite::Result<i64> {
        if let Some(position) = self.position {
            return Ok(position);
        }
        let last = self.last.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
        self.position = Some(last);
        Ok(last)
    }

    /// Two statements. Nothing is changed if it does not fit.
    fn try_simply(&mut self, append: &Append, epoch: i64, position: i64) -> rusqlite::Result<bool> {
        let Some(&n) = self.numbers.get(&append.stream) else { return Ok(false) };
        if append.count == 0 {
            return Ok(false);
        }
        let head = append.expected.saturating_add(append.count);
        let fits =
            self.advance.execute(params![head, epoch, n, append.expected, append.open])? == 1;
        if fits {
            self.put(append, n, epoch, position)?;
        }
        Ok(fits)
    }

    /// All of them; or none, and the heads of their streams, if one does not fit.
    fn write_all(
        &mut self,
        appends: &[Append],
        epoch: i64,
        position: i64,
    ) -> rusqlite::Result<Option<Vec<i64>>> {
        let mut streams = Vec::with_capacity(appends.len());
        let mut fit = true;
        for (at, append) in appends.iter().enumerate() {
            let stream = self.stream(append.stream)?;
            let twice = appends[..at].iter().any(|other| other.stream == append.stream);
            fit &= !twice && append.expected == stream.map_or(0, |stream| stream.head);
            streams.push(stream);
        }
        if !fit {
            return Ok(Some(streams.iter().map(|stream| stream.map_or(0, |s| s.head)).collect()));
        }
        for (append, stream) in appends.iter().zip(streams) {
            let head = append.expected + append.count;
            let n = match stream {
                Some(stream) if append.count == 0 => {
                    // It writes nothing, and is the last who wrote.
                    self.db
                        .prepare_cached("UPDATE stream SET epoch = ?1 WHERE n = ?2")?
                        .execute([epoch, stream.n])?;
                    continue;
                }
                None if append.count == 0 => continue,
                Some(Stream { n, .. }) => {
                    let fits = params![head, epoch, n, append.expected, append.open];
                    if self.advance.execute(fits)? == 0 {
                        self.turn.execute(params![head, epoch, append.open, n])?;
                    }
                    n
                }
                None => {
                    let key = Key::of(append.stream);
                    let n = self.make.insert(params![key, head, epoch, append.open])?;
                    self.remember(append.stream, n);
                    n
                }
            };
            self.put(append, n, epoch, position)?;
        }
        Ok(None)
    }

    fn put(&mut self, append: &Append, n: i64, epoch: i64, position: i64) -> rusqlite::Result<()> {
        let Append { expected, count, mono, civil, records, .. } = append;
        if records.len() < LARGE {
            let row = params![n, expected, count, position, epoch, mono, civil, records];
            return self.insert.execute(row).map(drop);
        }
        // SQLite holds a value that it is given twice, and once more as part of its row; one that is written into its place
        // is only ever here.
        let room = ZeroBlob(records.len() as u64);
        let row = params![n, expected, count, position, epoch, mono, civil, room];
        let place = self.insert.insert(row)?;
        let mut blob = self.db.blob_open(MAIN_DB, "append", "records", place, false)?;
        blob.write_all_at(records, 0)?;
        blob.close()
    }

    fn stream(&mut self, id: StreamId) -> rusqlite::Result<Option<Stream>> {
        if let Some(&n) = self.numbers.get(&id) {
            if let Some(head) = self.look.query_row([n], |row| row.get(0)).optional()? {
                return Ok(Some(Stream { n, head }));
            }
            self.numbers.remove(&id);
        }
        let found = self
            .find
            .query_row([Key::of(id)], |row| Ok(Stream { n: row.get(0)?, head: row.get(1)? }))
            .optional()?;
        if let Some(stream) = found {
            self.remember(id, stream.n);
        }
        Ok(found)
    }

    fn remember(&mut self, id: StreamId, n: i64) {
        if self.numbers.len() >= KNOWN {
            self.numbers.clear();
        }
        self.numbers.insert(id, n);
    }
}
