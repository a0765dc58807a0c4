//! The journal.

use async_trait::async_trait;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use stillpoint_context::{ProcessId, RunId};
use stillpoint_workflow::{
    Append, Batch, Fact, FactDraft, Journal, JournalError, OpenStream, Position, Record, Seq,
    Stored, StreamId, Topic, decode_records, encode_records,
};
use uuid::Uuid;

use super::{RedbStore, Stop, leases, next};

/// Kind and number of the stream, and the place in it.
type Place = (u8, u128, u64);
/// The commit, the instant and the record.
type Row = (u64, &'static [u8], &'static [u8]);

const RECORD: TableDefinition<'_, Place, Row> = TableDefinition::new("record");
/// By position, who wrote that commit, and under which epoch.
const WRITER: TableDefinition<'_, u64, (u128, u64)> = TableDefinition::new("writer");
const OPEN: TableDefinition<'_, u128, u128> = TableDefinition::new("open");
/// Topic, commit, and the place in it.
type FactPlace = (&'static str, u64, u64);
/// Run, key and body.
type FactRow = (u128, &'static str, &'static [u8]);
const FACT: TableDefinition<'_, FactPlace, FactRow> = TableDefinition::new("fact");

type Answer<T> = Result<T, Stop<JournalError>>;

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::TableError> {
    transaction.open_table(RECORD)?;
    transaction.open_table(OPEN)?;
    transaction.open_table(FACT)?;
    Ok(())
}

impl From<Stop<Self>> for JournalError {
    fn from(stop: Stop<Self>) -> Self {
        match stop {
            Stop::Answer(error) => error,
            Stop::File(redb::Error::Corrupted(what)) => Self::Corrupt(what),
            Stop::File(error) => Self::Io(error.to_string()),
            Stop::Entry(error) => Self::Corrupt(error.to_string()),
        }
    }
}

const fn number(stream: &StreamId) -> (u8, u128) {
    match stream {
        StreamId::Arbiter => (0, 0),
        StreamId::Run(run) => (1, run.0.as_u128()),
        StreamId::Key(key) => (2, key.as_u128()),
    }
}

fn head(records: &impl ReadableTable<Place, Row>, stream: &StreamId) -> Answer<u64> {
    let (kind, number) = number(stream);
    let last = records.range((kind, number, 0)..=(kind, number, u64::MAX))?.next_back();
    Ok(last.transpose()?.map_or(0, |(place, _)| place.value().2 + 1))
}

fn read(
    records: &impl ReadableTable<Place, Row>,
    stream: &StreamId,
    from: u64,
    max: usize,
) -> Answer<Vec<Stored>> {
    let (kind, number) = number(stream);
    let mut found = Vec::new();
    for row in records.range((kind, number, from)..=(kind, number, u64::MAX))?.take(max) {
        let (place, row) = row?;
        let (position, at, record) = row.value();
        let mut record = decode_records(record).map_err(Stop::Answer)?;
        let (Some(record), None) = (record.pop(), record.pop()) else {
            let many = "a row does not hold one record".to_owned();
            return Err(Stop::Answer(JournalError::Corrupt(many)));
        };
        let at = serde_json::from_slice(at)?;
        let (position, seq) = (Position(position), Seq(place.value().2));
        found.push(Stored { stream: *stream, seq, position, at, record });
    }
    Ok(found)
}

/// Where it is already, unless it is new.
fn check(
    records: &impl ReadableTable<Place, Row>,
    writers: &impl ReadableTable<u64, (u128, u64)>,
    writer: (ProcessId, u64),
    append: &Append,
) -> Answer<Option<Position>> {
    let head = head(records, &append.stream)?;
    if append.expected.0 == head {
        return Ok(None);
    }
    let there = read(records, &append.stream, append.expected.0, append.records.len())?;
    let mut equal = there.iter().map(|stored| &stored.record).eq(&append.records);
    for stored in &there {
        let by = writers.get(stored.position.0)?.map(|by| by.value());
        equal &= by == Some((writer.0.0.as_u128(), writer.1));
    }
    match there.last() {
        Some(last) if equal => Ok(Some(last.position)),
        _ => {
            let (stream, head) = (append.stream, Seq(head));
            Err(Stop::Answer(JournalError::Conflict { stream, head }))
        }
    }
}

fn commit(transaction: &WriteTransaction, batch: Batch) -> Answer<Position> {
    let Batch { owner, epoch, appends, facts } = batch;
    leases::check(transaction, owner, epoch)?;
    let mut records = transaction.open_table(RECORD)?;
    let mut writers = transaction.open_table(WRITER)?;
    let mut there = Vec::new();
    for append in &appends {
        there.push(check(&records, &writers, (owner, epoch), append)?);
    }
    match there.iter().position(Option::is_none) {
        None if !appends.is_empty() => return Ok(there.pop().flatten().unwrap_or_default()),
        // Where nothing is appended, nothing is repeated.
        Some(new)
            if there
                .iter()
                .zip(&appends)
                .any(|(there, append)| there.is_some() && !append.records.is_empty()) =>
        {
            let append = &appends[new];
            let (stream, head) = (append.stream, append.expected);
            return Err(Stop::Answer(JournalError::Conflict { stream, head }));
        }
        _ => {}
    }
    let position = next(transaction, "position")?;
    writers.insert(position, (owner.0.as_u128(), epoch))?;
    let mut open = transaction.open_table(OPEN)?;
    for append in &appends {
        let (kind, number) = number(&append.stream);
        let at = serde_json::to_vec(&append.at)?;
        for (seq, record) in (append.expected.0..).zip(&append.records) {
            let stored = encode_records(std::slice::from_ref(record)).map_err(Stop::Answer)?;
            records.insert((kind, number, seq), (position, &*at, &*stored))?;
        }
        match append.records.last().map(Record::ends_run) {
            Some(true) => drop(open.remove(number)?),
            Some(false) if kind == 1 => drop(open.insert(number, owner.0.as_u128())?),
            _ => {}
        }
    }
    let mut table = transaction.open_table(FACT)?;
    for (nth, (run, FactDraft { topic, key, body })) in (0..).zip(&facts) {
        table.insert((topic.as_str(), position, nth), (run.0.as_u128(), &**key, &**body))?;
    }
    Ok(Position(position))
}

#[async_trait]
impl Journal for RedbStore {
    fn is_shared(&self) -> bool {
        false
    }

    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        Ok(self.write(|transaction| commit(transaction, batch))?)
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        Ok(RedbStore::read(self, |transaction| {
            read(&transaction.open_table(RECORD)?, stream, from.0, max)
        })?)
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        let found =
            RedbStore::read(self, |transaction| head(&transaction.open_table(RECORD)?, stream))?;
        Ok(Seq(found))
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        let from = match after {
            None | Some(StreamId::Arbiter) => Some(0),
            Some(StreamId::Run(run)) => run.0.as_u128().checked_add(1),
            Some(StreamId::Key(_)) => None,
        };
        let Some(from) = from else { return Ok(Vec::new()) };
        Ok(RedbStore::read(self, |transaction| {
            let records = transaction.open_table(RECORD)?;
            let mut found = Vec::new();
            for entry in transaction.open_table(OPEN)?.range(from..)?.take(max) {
                let (run, owner) = entry?;
                let stream = StreamId::Run(RunId(Uuid::from_u128(run.value())));
                let owner = ProcessId(Uuid::from_u128(owner.value()));
                found.push(OpenStream { stream, owner, head: Seq(head(&records, &stream)?) });
            }
            Ok::<_, Stop<JournalError>>(found)
        })?)
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        let Some(from) = after.0.checked_add(1) else { return Ok(Vec::new()) };
        Ok(RedbStore::read(self, |transaction| {
            let (first, last) = ((topic.as_str(), from, 0), (topic.as_str(), u64::MAX, u64::MAX));
            let mut found: Vec<Fact> = Vec::new();
            for row in transaction.open_table(FACT)?.range(first..=last)? {
                let (place, row) = row?;
                let (position, (run, key, body)) = (Position(place.value().1), row.value());
                // A commit that has begun is given to its end.
                if found.len() >= max && found.last().is_some_and(|last| last.position < position) {
                    break;
                }
                let fact = FactDraft::new(topic.clone(), key, body);
                found.push(Fact { position, run: RunId(Uuid::from_u128(run)), fact });
            }
            Ok::<_, Stop<JournalError>>(found)
        })?)
    }
}
