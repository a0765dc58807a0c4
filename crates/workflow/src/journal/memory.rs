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
        let fits =
            appends.iter().map(|append| state.check(append)).collect::<Result<Vec<_>, _>>()?;
        let repeated = fits.iter().filter_map(|fit| match fit {
            Fit::Repeated(position) => Some(*position),
            Fit::New => None,
        });
        match (repeated.clone().count(), repeated.clone().next_back()) {
            (0, _) | (_, None) => {}
            (count, Some(position)) if count == appends.len() => return Ok(position),
            // A commit is repeated as a whole or not at all.
            _ => {
                let new = appends.iter().zip(&fits).find(|(_, fit)| matches!(fit, Fit::New));
                let stream = new.map_or(StreamId::Arbiter, |(append, _)| append.stream);
                let head = new.map_or(Seq(0), |(append, _)| append.expected);
                return Err(JournalError::Conflict { stream, head });
            }
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

#[cfg(test)]
mod tests {
    use stillpoint_context::RunId;
    use uuid::Uuid;

    use super::*;
    use crate::journal::{FactDraft, Now};
    use crate::machine::{End, Record, RunRecord};

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    fn append(n: u128, expected: u64, node: u32) -> Append {
        let record = RunRecord::Intended { node: crate::plan::NodeNo(node), attempt: 1 };
        Append {
            stream: StreamId::Run(run(n)),
            expected: Seq(expected),
            at: Now::default(),
            records: vec![Record::Run(record)],
        }
    }

    fn batch(epoch: u64, appends: Vec<Append>) -> Batch {
        Batch { owner: ProcessId(Uuid::nil()), epoch, appends, facts: Vec::new() }
    }

    fn now<F: Future>(future: F) -> F::Output {
        crate::testing::Sim::new(0).run(future)
    }

    #[test]
    fn a_commit_is_all_or_nothing_and_may_be_repeated() {
        let journal = MemoryJournal::new();
        let both = || batch(1, vec![append(1, 0, 7), append(2, 0, 8)]);
        let position = now(journal.commit(both())).unwrap();
        assert_eq!(now(journal.commit(both())).unwrap(), position, "a repeated commit is the same");
        let one_fits = batch(1, vec![append(1, 1, 7), append(2, 0, 9)]);
        let error = now(journal.commit(one_fits)).unwrap_err();
        assert!(matches!(error, JournalError::Conflict { head: Seq(1), .. }));
        let half_repeated = batch(1, vec![append(1, 0, 7), append(2, 1, 9)]);
        assert!(now(journal.commit(half_repeated)).is_err());
        for n in [1, 2] {
            let stored = now(journal.read(&StreamId::Run(run(n)), Seq(0), 9)).unwrap();
            assert_eq!(stored.len(), 1, "nothing of a refused commit is there");
        }
    }

    #[test]
    fn a_fenced_epoch_is_refused() {
        let journal = MemoryJournal::new();
        journal.fence(ProcessId(Uuid::nil()), 2);
        let error = now(journal.commit(batch(1, vec![append(1, 0, 7)]))).unwrap_err();
        assert!(matches!(error, JournalError::Fenced { epoch: 1, .. }));
        assert!(now(journal.commit(batch(2, vec![append(1, 0, 7)]))).is_ok());
    }

    #[test]
    fn open_streams_are_paged_and_ended_ones_left_out() {
        let journal = MemoryJournal::new();
        for n in 1..=5 {
            now(journal.commit(batch(1, vec![append(n, 0, 7)]))).unwrap();
        }
        let mut last = append(3, 1, 0);
        last.records = vec![Record::Run(RunRecord::Ended { end: End::Succeeded })];
        now(journal.commit(batch(1, vec![last]))).unwrap();
        let first = now(journal.open(None, 2)).unwrap();
        let rest = now(journal.open(first.last().copied(), 9)).unwrap();
        let runs = |of: &[u128]| of.iter().map(|n| StreamId::Run(run(*n))).collect::<Vec<_>>();
        assert_eq!((first, rest), (runs(&[1, 2]), runs(&[4, 5])));
    }

    #[test]
    fn the_facts_of_one_commit_are_never_split() {
        let journal = MemoryJournal::new();
        let topic = Topic::new("t").unwrap();
        for (at, count) in [(0, 1), (1, 3), (2, 1)] {
            let mut batch = batch(1, vec![append(1, at, 7)]);
            for key in 0..count {
                let fact = FactDraft::new(topic.clone(), format!("{at}/{key}"), &b""[..]);
                batch.facts.push((run(1), fact));
            }
            now(journal.commit(batch)).unwrap();
        }
        let mut cursor = Position(0);
        let mut pages = Vec::new();
        loop {
            let page = now(journal.facts(&topic, cursor, 2)).unwrap();
            let Some(last) = page.last() else { break };
            cursor = last.position;
            pages.push(page.into_iter().map(|fact| fact.fact.key).collect::<Vec<_>>());
        }
        assert_eq!(pages, [vec!["0/0", "1/0", "1/1", "1/2"], vec!["2/0"]]);
    }
}
