//! A journal that forgets when the process ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stillpoint_context::ProcessId;

use super::{Append, Batch, Fact, Journal, JournalError, Position, Seq, Stored, StreamId, Topic};

/// A journal in memory: for tests, and for embedders who accept that nothing outlives the process.
///
/// # Complexity
/// A commit costs O(1) for each record, whatever is there already.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    position: Position,
    streams: BTreeMap<StreamId, Vec<Stored>>,
    facts: BTreeMap<Topic, Vec<Fact>>,
    fenced: BTreeMap<ProcessId, u64>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses this owner's commits below an epoch from now on.
    pub fn fence(&self, owner: ProcessId, below: u64) {
        self.lock().fenced.insert(owner, below);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the append fits, or is there already.
    fn check(&self, append: &Append) -> Result<Fit, JournalError> {
        let stored = self.streams.get(&append.stream).map_or(&[][..], Vec::as_slice);
        let head = Seq(stored.len() as u64);
        if append.expected == head {
            return Ok(Fit::New);
        }
        let conflict = JournalError::Conflict { stream: append.stream, head };
        let Ok(from) = usize::try_from(append.expected.0) else { return Err(conflict) };
        match stored.get(from..from + append.records.len()) {
            Some(there) if there.iter().map(|stored| &stored.record).eq(&append.records) => {
                Ok(Fit::Repeated(there.last().map_or(self.position, |last| last.position)))
            }
            _ => Err(conflict),
        }
    }
}

enum Fit {
    New,
    Repeated(Position),
}

#[async_trait]
impl Journal for MemoryJournal {
    fn is_durable(&self) -> bool {
        false
    }

    async fn commit(&self, batch: Batch) -> Result<Position, JournalError> {
        let mut state = self.lock();
        let Batch { owner, epoch, appends, facts } = batch;
        if state.fenced.get(&owner).is_some_and(|below| epoch < *below) {
            return Err(JournalError::Fenced { owner, epoch });
        }
        let mut repeated = None;
        for append in &appends {
            match (state.check(append)?, repeated) {
                (Fit::New, None) => {}
                (Fit::Repeated(position), _) => repeated = Some(position),
                (Fit::New, Some(_)) => {
                    return Err(JournalError::Conflict {
                        stream: append.stream,
                        head: append.expected,
                    });
                }
            }
        }
        if let Some(position) = repeated {
            return Ok(position);
        }
        state.position.0 += 1;
        let position = state.position;
        for Append { stream, expected, at, records } in appends {
            let stored = state.streams.entry(stream).or_default();
            stored.extend((expected.0..).zip(records).map(|(seq, record)| Stored {
                stream,
                seq: Seq(seq),
                position,
                at,
                record,
            }));
        }
        for (run, fact) in facts {
            let topic = fact.topic.clone();
            state.facts.entry(topic).or_default().push(Fact { position, run, fact });
        }
        Ok(position)
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let state = self.lock();
        let stored = state.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(from.0).unwrap_or(usize::MAX);
        Ok(stored.iter().skip(from).take(max).cloned().collect())
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<StreamId>, JournalError> {
        let state = self.lock();
        let is_open = |stream: &StreamId, stored: &Vec<Stored>| {
            matches!(stream, StreamId::Run(_))
                && after.is_none_or(|after| *stream > after)
                && stored.last().is_some_and(|last| !last.record.ends_run())
        };
        let open = state.streams.iter().filter(|(stream, stored)| is_open(stream, stored));
        Ok(open.map(|(stream, _)| *stream).take(max).collect())
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        let state = self.lock();
        let all = state.facts.get(topic).map_or(&[][..], Vec::as_slice);
        let new = &all[all.partition_point(|fact| fact.position <= after)..];
        // A commit's facts stay together: the cut is moved to the end of the commit in which it falls.
        let mut end = max.max(1).min(new.len());
        while end > 0 && end < new.len() && new[end].position == new[end - 1].position {
            end += 1;
        }
        Ok(new[..end].to_vec())
    }
}
