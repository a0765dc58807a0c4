//! The journal in tables.

mod commit;
mod forget;
mod read;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};
use stillpoint_context::{ProcessId, RunId};
use stillpoint_workflow::{
    Append, Batch, Fact, FactDraft, Forget, Journal, JournalError, OpenStream, Position, Record,
    Seq, Stored, StreamId, Topic,
};
use uuid::Uuid;

use crate::SqliteStore;
use crate::error::unwritten;
use crate::key::{self, Key, signed, unsigned};
use crate::pen::Written;

#[async_trait]
impl Journal for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        let Batch { owner, epoch, appends, facts } = batch;
        if epoch == 0 {
            // Others may have the file open: who has no lease cannot be kept from them.
            return Err(JournalError::Fenced { owner, epoch });
        }
        let (work, answer) = commit::Commit::new(owner, epoch, &appends, facts)?;
        match self.0.writer.ask(Box::new(work), answer).await? {
            Written::At(position) => Ok(Position(unsigned(position))),
            Written::Fenced => Err(JournalError::Fenced { owner, epoch }),
            Written::Misfit { heads, last } => {
                let last = Position(unsigned(last));
                self.find_repeated(epoch, &appends, &heads, last).await
            }
        }
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let id = *stream;
        let rows = self.read(move |db| read::rows(db, id, from, max)).await?;
        read::unpack(id, &rows, from, max)
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        let key = Key::of(*stream);
        self.read(move |db| {
            let mut head =
                db.prepare_cached("SELECT head FROM stream WHERE id = ?1").map_err(unwritten)?;
            let head = head.query_row([key], |row| row.get(0)).optional().map_err(unwritten)?;
            Ok(Seq(head.map_or(0, unsigned)))
        })
        .await
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        // Streams of runs sort behind the arbiter's.
        let after = Key::of(after.unwrap_or(StreamId::Arbiter));
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.read(move |db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT s.id, l.process, s.head FROM stream AS s \
                     LEFT JOIN lease AS l ON l.epoch = s.epoch \
                     WHERE s.open = 1 AND s.id > ?1 ORDER BY s.id LIMIT ?2",
                )
                .map_err(unwritten)?;
            let mut rows = statement.query(params![after, max]).map_err(unwritten)?;
            let mut open = Vec::new();
            while let Some(row) = rows.next().map_err(unwritten)? {
                let id: Vec<u8> = row.get(0).map_err(unwritten)?;
                let owner: Option<[u8; 16]> = row.get(1).map_err(unwritten)?;
                let head = row.get(2).map_err(unwritten)?;
                let stream = key::parse(&id).ok_or_else(|| corrupt("a stream has no id"))?;
                let owner = owner.ok_or_else(|| corrupt("an open run has no owner"))?;
                let owner = ProcessId(Uuid::from_bytes(owner));
                open.push(OpenStream { stream, owner, head: Seq(unsigned(head)) });
            }
            Ok(open)
        })
        .await
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        let (topic, max) = (topic.clone(), max.max(1));
        self.read(move |db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT position, run, key, body FROM fact WHERE topic = ?1 AND position > ?2 \
                     ORDER BY position, n",
                )
                .map_err(unwritten)?;
            let after = signed(after.0);
            let mut rows = statement.query(params![topic.as_str(), after]).map_err(unwritten)?;
            let mut facts: Vec<Fact> = Vec::new();
            while let Some(row) = rows.next().map_err(unwritten)? {
                let position = Position(unsigned(row.get(0).map_err(unwritten)?));
                // The facts of one commit stay together.
                if facts.len() >= max && facts.last().is_some_and(|last| last.position < position) {
                    break;
                }
                let run = row.get(1).map_err(unwritten)?;
                let key: String = row.get(2).map_err(unwritten)?;
                let body: Vec<u8> = row.get(3).map_err(unwritten)?;
                let fact = FactDraft::new(topic.clone(), key, body);
                facts.push(Fact { position, run: RunId(Uuid::from_bytes(run)), fact });
            }
            Ok(facts)
        })
        .await
    }

    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        let what = what.clone();
        self.write(move |db| forget::forget(db, &what).map_err(unwritten)).await
    }
}

impl SqliteStore {
    /// The position of a batch that is there already, given the heads of its streams; else what conflicts.
    ///
    /// What was appended never changes, so this may be looked at after the transaction.
    async fn find_repeated(
        &self,
        epoch: u64,
        appends: &[Append],
        heads: &[i64],
        last: Position,
    ) -> Result<Position, JournalError> {
        let mut repeated = None;
        let mut new = None;
        for (at, (append, head)) in appends.iter().zip(heads).enumerate() {
            let head = Seq(unsigned(*head));
            let conflict = JournalError::Conflict { stream: append.stream, head };
            if appends[..at].iter().any(|other| other.stream == append.stream) {
                return Err(conflict);
            }
            if append.expected == head {
                new = new.or(Some(conflict));
                continue;
            }
            let there =
                Journal::read(self, &append.stream, append.expected, append.records.len()).await?;
            let stored: Vec<&Record> = there.iter().map(|stored| &stored.record).collect();
            let begins = there.first().is_none_or(|first| first.seq == append.expected);
            let is_there =
                append.expected < head && begins && stored.iter().copied().eq(&append.records);
            if !is_there || !self.wrote(epoch, append).await? {
                return Err(conflict);
            }
            // Nothing is everywhere.
            repeated = Some(there.last().map_or(last, |stored| stored.position));
        }
        // A commit is repeated as a whole or not at all.
        match (new, repeated) {
            (None, Some(position)) => Ok(position),
            (Some(conflict), _) => Err(conflict),
            (None, None) => Ok(last),
        }
    }
}

impl SqliteStore {
    /// Whether all records of an append were written in this epoch, which is that of one owner.
    async fn wrote(&self, epoch: u64, append: &Append) -> Result<bool, JournalError> {
        if append.records.is_empty() {
            // Nothing is everybody's.
            return Ok(true);
        }
        let key = Key::of(append.stream);
        let (from, count) = (append.expected.0, append.records.len() as u64);
        let (from, to) = (signed(from), signed(from.saturating_add(count)));
        self.read(move |db| {
            let mut others = db
                .prepare_cached(
                    "SELECT 1 FROM append AS a JOIN stream AS s ON s.n = a.stream \
                     WHERE s.id = ?1 AND a.seq + a.count > ?2 AND a.seq < ?3 AND a.epoch <> ?4",
                )
                .map_err(unwritten)?;
            Ok(!others.exists(params![key, from, to, signed(epoch)]).map_err(unwritten)?)
        })
        .await
    }
}

fn corrupt(message: &str) -> JournalError {
    JournalError::Corrupt(message.to_owned())
}
