//! A journal that forgets when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Mono, ProcessId};

use super::{
    Append, Batch, Fact, Forget, Journal, JournalError, Now, OpenStream, Position, Seq, Stored,
    StreamId, Topic,
};
use crate::lease::{Fencing, Lease, Leases};
use crate::machine::Record;

/// A journal and leases in memory: for tests, and for embedders who accept that nothing outlives the process.
///
/// Commits of epoch 0, those of an engine without leases, are accepted.
///
/// # Complexity
/// A commit costs O(1) for each record, whatever is there already.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    position: Position,
    streams: BTreeMap<StreamId, Kept>,
    facts: BTreeMap<Topic, Vec<Fact>>,
    leases: BTreeMap<ProcessId, Lease>,
    /// The last epoch that was given.
    epoch: u64,
}

/// A stream: its appends as they came, and who made the last one.
#[derive(Debug)]
struct Kept {
    owner: ProcessId,
    len: u64,
    appends: Vec<KeptAppend>,
}

impl Kept {
    fn is_open_run(&self, stream: StreamId) -> bool {
        matches!(stream, StreamId::Run(_)) && self.last().is_some_and(|last| !last.ends_run())
    }
}

#[derive(Debug)]
struct KeptAppend {
    /// The place of its first record.
    from: u64,
    /// Who made it, in which epoch.
    by: (ProcessId, u64),
    position: Position,
    at: Now,
    records: Vec<Record>,
}

impl Kept {
    /// The records from one on, with their places.
    fn records(&self, from: u64) -> impl Iterator<Item = (u64, &KeptAppend, &Record)> {
        let first = self.appends.partition_point(|append| append.from <= from).saturating_sub(1);
        let places = self.appends[first..].iter().flat_map(|append| {
            (append.from..).zip(&append.records).map(move |(seq, record)| (seq, append, record))
        });
        places.skip_while(move |(seq, ..)| *seq < from)
    }

    fn last(&self) -> Option<&Record> {
        self.appends.last()?.records.last()
    }
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the runs ended that have.
    #[cfg(any(test, feature = "testing"))]
    pub fn ends(&self) -> Vec<crate::machine::End> {
        let state = self.lock();
        let last = state.streams.values().filter_map(Kept::last);
        last.filter_map(|record| match record {
            Record::Run(crate::machine::RunRecord::Ended { end }) => Some(*end),
            _ => None,
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_owner(&self, owner: ProcessId, epoch: u64) -> Result<(), JournalError> {
        let holds = self.leases.get(&owner).is_some_and(|lease| lease.epoch == epoch);
        if epoch == 0 || holds { Ok(()) } else { Err(JournalError::Fenced { owner, epoch }) }
    }

    /// Whether the append fits, or is there already.
    fn check(&self, append: &Append, by: (ProcessId, u64)) -> Result<Fit, JournalError> {
        let kept = self.streams.get(&append.stream);
        let head = Seq(kept.map_or(0, |kept| kept.len));
        if append.expected == head {
            return Ok(Fit::New);
        }
        let conflict = JournalError::Conflict { stream: append.stream, head };
        let Some(kept) = kept.filter(|_| append.expected < head) else { return Err(conflict) };
        let mut there = kept.records(append.expected.0);
        let mut position = self.position;
        for record in &append.records {
            match there.next() {
                Some((_, append, kept)) if kept == record && append.by == by => {
                    position = append.position;
                }
                _ => return Err(conflict),
            }
        }
        Ok(Fit::Repeated(position))
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
        state.check_owner(owner, epoch)?;
        let mut repeated = None;
        let mut new = None;
        for append in &appends {
            match state.check(append, (owner, epoch))? {
                Fit::Repeated(position) => repeated = Some(position),
                Fit::New => new = new.or(Some((append.stream, append.expected))),
            }
        }
        match (repeated, new) {
            (None, _) => {}
            (Some(position), None) => return Ok(position),
            // A commit is repeated as a whole or not at all.
            (Some(_), Some((stream, head))) => {
                return Err(JournalError::Conflict { stream, head });
            }
        }
        state.position.0 += 1;
        let position = state.position;
        for Append { stream, expected, at, records } in appends {
            let new = || Kept { owner, len: 0, appends: Vec::new() };
            let kept = state.streams.entry(stream).or_insert_with(new);
            kept.owner = owner;
            kept.len += records.len() as u64;
            if !records.is_empty() {
                let (from, by) = (expected.0, (owner, epoch));
                kept.appends.push(KeptAppend { from, by, position, at, records });
            }
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
        let Some(kept) = state.streams.get(stream) else { return Ok(Vec::new()) };
        let stored = kept.records(from.0).take(max).map(|(seq, append, record)| Stored {
            stream: *stream,
            seq: Seq(seq),
            position: append.position,
            at: append.at,
            record: record.clone(),
        });
        Ok(stored.collect())
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        Ok(Seq(self.lock().streams.get(stream).map_or(0, |kept| kept.len)))
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let streams = state.streams.range((from, Bound::Unbounded));
        let open = streams.filter_map(|(stream, kept)| {
            let (stream, owner, head) = (*stream, kept.owner, Seq(kept.len));
            kept.is_open_run(stream).then_some(OpenStream { stream, owner, head })
        });
        Ok(open.take(max).collect())
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

    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        let mut state = self.lock();
        let mut gone = 0;
        let mut runs = BTreeSet::new();
        for stream in &what.streams {
            let is_ended = state.streams.get(stream).is_some_and(|kept| !kept.is_open_run(*stream));
            if *stream == StreamId::Arbiter || !is_ended {
                continue;
            }
            state.streams.remove(stream);
            gone += 1;
            if let StreamId::Run(run) = stream {
                runs.insert(*run);
            }
        }
        if !runs.is_empty() {
            for facts in state.facts.values_mut() {
                facts.retain(|fact| !runs.contains(&fact.run));
            }
        }
        if let Some(kept) = state.streams.get_mut(&StreamId::Arbiter) {
            // An append goes as a whole; what is left of the last begins before.
            let after = kept.appends.partition_point(|append| append.from <= what.arbiter.0);
            kept.appends.drain(..after.saturating_sub(1));
        }
        Ok(gone)
    }
}

#[async_trait]
impl Leases for MemoryJournal {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let mut state = self.lock();
        state.epoch += 1;
        let lease = Lease::new(process, state.epoch, now, term);
        state.leases.insert(process, lease);
        Ok(lease)
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let mut state = self.lock();
        let lease = state.leases.get_mut(&process).filter(|lease| lease.epoch == epoch);
        let lease = lease.ok_or(JournalError::Fenced { owner: process, epoch })?;
        let renewed = Lease::new(process, epoch, now, term);
        if renewed.until > lease.until || lease.is_over(now, Duration::ZERO) {
            *lease = renewed;
        }
        Ok(*lease)
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        let mut state = self.lock();
        if state.leases.get(&process).is_some_and(|lease| lease.epoch == epoch) {
            state.leases.remove(&process);
        }
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        let mut leases: Vec<_> = self.lock().leases.values().copied().collect();
        leases.sort_by_key(|lease| lease.epoch);
        Ok(leases)
    }

    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        let mut state = self.lock();
        match state.leases.get(&process) {
            Some(lease) if !lease.is_over(now, margin) => Ok(Fencing::Alive { until: lease.until }),
            _ => {
                state.leases.remove(&process);
                Ok(Fencing::Fenced)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::RunId;
    use uuid::Uuid;

    use super::*;
    use crate::journal::FactDraft;
    use crate::machine::{End, RunRecord};

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
        let both = || batch(0, vec![append(1, 0, 7), append(2, 0, 8)]);
        let position = now(journal.commit(both())).unwrap();
        assert_eq!(now(journal.commit(both())).unwrap(), position, "a repeated commit is the same");
        let one_fits = batch(0, vec![append(1, 1, 7), append(2, 0, 9)]);
        let error = now(journal.commit(one_fits)).unwrap_err();
        assert!(matches!(error, JournalError::Conflict { head: Seq(1), .. }));
        let other = Batch { owner: ProcessId(Uuid::from_u128(9)), ..both() };
        let error = now(journal.commit(other)).unwrap_err();
        assert!(matches!(error, JournalError::Conflict { .. }), "of another owner it is no repeat");
        let half_repeated = batch(0, vec![append(1, 0, 7), append(2, 1, 9)]);
        assert!(now(journal.commit(half_repeated)).is_err());
        for n in [1, 2] {
            let stored = now(journal.read(&StreamId::Run(run(n)), Seq(0), 9)).unwrap();
            assert_eq!(stored.len(), 1, "nothing of a refused commit is there");
        }
    }

    #[test]
    fn an_epoch_that_is_not_held_is_refused_before_anything_else() {
        let journal = MemoryJournal::new();
        let process = ProcessId(Uuid::nil());
        let at = |seconds| Mono(Duration::from_secs(seconds));
        let (term, margin) = (Duration::from_mins(1), Duration::from_secs(10));
        let lease = now(journal.acquire(process, at(0), term)).unwrap();
        assert!(now(journal.commit(batch(lease.epoch, vec![append(1, 0, 7)]))).is_ok());
        let early = now(journal.fence(process, at(69), margin)).unwrap();
        assert_eq!(early, Fencing::Alive { until: at(60) });
        assert_eq!(now(journal.fence(process, at(70), margin)).unwrap(), Fencing::Fenced);
        let error = now(journal.commit(batch(lease.epoch, vec![append(1, 0, 7)]))).unwrap_err();
        assert!(matches!(error, JournalError::Fenced { .. }), "not the conflict that it is too");
        assert!(now(journal.renew(process, lease.epoch, at(71), term)).is_err());
        let again = now(journal.acquire(process, at(71), term)).unwrap();
        assert!(again.epoch > lease.epoch);
        assert!(now(journal.commit(batch(again.epoch, vec![append(1, 1, 7)]))).is_ok());
    }

    #[test]
    fn open_streams_are_paged_and_ended_ones_left_out() {
        let journal = MemoryJournal::new();
        for n in 1..=5 {
            now(journal.commit(batch(0, vec![append(n, 0, 7)]))).unwrap();
        }
        let nothing = Append { records: Vec::new(), ..append(4, 1, 0) };
        now(journal.commit(batch(0, vec![nothing]))).unwrap();
        let mut last = append(3, 1, 0);
        last.records = vec![Record::Run(RunRecord::Ended { end: End::Succeeded })];
        now(journal.commit(batch(0, vec![last]))).unwrap();
        let first = now(journal.open(None, 2)).unwrap();
        let rest = now(journal.open(first.last().map(|open| open.stream), 9)).unwrap();
        let runs = |of: Vec<OpenStream>| of.iter().map(|open| open.stream).collect::<Vec<_>>();
        let wanted = |of: &[u128]| of.iter().map(|n| StreamId::Run(run(*n))).collect::<Vec<_>>();
        assert_eq!((runs(first), runs(rest)), (wanted(&[1, 2]), wanted(&[4, 5])));
        assert_eq!(now(journal.head(&StreamId::Run(run(3)))).unwrap(), Seq(2));
    }

    #[test]
    fn the_facts_of_one_commit_are_never_split() {
        let journal = MemoryJournal::new();
        let topic = Topic::new("t").unwrap();
        for (at, count) in [(0, 1), (1, 3), (2, 1)] {
            let mut batch = batch(0, vec![append(1, at, 7)]);
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
