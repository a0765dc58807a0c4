//! The journal in memory, with faults around it.

mod commit;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Mono, ProcessId};
use stillpoint_testkit::conformance::{BoxError, Place, Store, StoreFactory};
use stillpoint_workflow::{
    Batch, Fact, Fencing, Forget, Journal, JournalError, Lease, Leases, MemoryJournal, Now,
    OpenStream, Position, Seq, Stored, StreamId, Topic,
};

pub(crate) use wanted::WANTED;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Not a fault: a journal that several processes may share.
    Shared,
    CommitsOneAppendAtATime,
    StatesFactsOfRefusedCommits,
    FactsBeforeRecords,
    AppendsBehind,
    AppendsAhead,
    NamesAnotherHead,
    RefusesEmptyAppends,
    OpensEmptyStreams,
    ForgetsFactsAlone,
    AnswersWithAnotherPosition,
    PositionsStandStill,
    RefusesRepeats,
    TakesRepeatsOfOthers,
    RefusesLateRepeats,
    AnswersRepeatsWithTheLatest,
    StatesFactsTwice,
    TakesAnyRepeat,
    TakesLongerRepeats,
    CompletesParts,
    ReadsFromTheCommit,
    ReadsOneMore,
    ForgetsInstants,
    CountsOneLess,
    ForgetsTheEnded,
    MixesKeysAndRuns,
    MixesKeyZeroAndArbiter,
    ForgetsFailures,
    TakesTextForAscii,
    EndsTextAtNul,
    MangledPayloads,
    RefusesPayloadsHalfway,
    CutsBigRecords,
    CutsBigCommits,
    ListsEnded,
    SortsAsSigned,
    SortsAsText,
    IgnoresAfter,
    IgnoresMax,
    NeedsAfterToBeOpen,
    ListsKeys,
    ListsTheArbiter,
    OwnerIsTheFirst,
    OwnerIsWhoTries,
    ListsHeadOne,
    MixesTopics,
    FactsFromThePosition,
    SortsFacts,
    KeepsTheLatestFact,
    FactsAreOfNobody,
    SplitsFacts,
    GivesAllFacts,
    CountsCommits,
    LateFacts,
    OneAtATime,
    LooksThenCommits,
    IgnoresEpochs,
    KnowsProcessesOnly,
    ConflictFirst,
    RepeatFirst,
    SharedTakesEpochZero,
    PrivateRefusesEpochZero,
    ForgetsEverything,
    ForgetsFacts,
    ForgetsOwners,
    ForgetsPositions,
    ForgetsTheLastRecord,
    /// Not a fault: it keeps everything.
    NeverForgets,
    ForgetsOpenRuns,
    ForgetsButCounts,
    KeepsFactsOfTheForgotten,
    ForgetsAllFacts,
    KeepsKeys,
    ForgetsTheWholeArbiter,
    NumbersTheArbiterAnew,
    CountsPositionsAnew,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: Arc<MemoryJournal>,
    busy: AtomicBool,
    latest: AtomicU64,
    /// Who wrote first, and who tried last.
    writers: Mutex<BTreeMap<StreamId, (ProcessId, ProcessId)>>,
    reopened: bool,
    forgotten: Arc<Mutex<Forgotten>>,
}

/// What a faulty journal was asked to forget.
#[derive(Debug, Default)]
struct Forgotten {
    /// Hidden as if they had never been.
    hidden: BTreeSet<StreamId>,
    arbiter: u64,
    any: bool,
}

impl Faulty {
    fn forgotten(&self) -> std::sync::MutexGuard<'_, Forgotten> {
        self.forgotten.lock().unwrap()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Where the faulty journal keeps a stream.
    fn stream(&self, stream: StreamId) -> StreamId {
        match stream {
            StreamId::Key(key) if self.is(Fault::MixesKeysAndRuns) => {
                StreamId::Run(stillpoint_context::RunId(key))
            }
            StreamId::Key(key) if self.is(Fault::MixesKeyZeroAndArbiter) && key.is_nil() => {
                StreamId::Arbiter
            }
            stream => stream,
        }
    }
}

#[async_trait]
impl Journal for Faulty {
    fn is_durable(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        [Fault::Shared, Fault::SharedTakesEpochZero].contains(&self.fault)
    }

    async fn commit(&self, mut batch: Batch) -> Result<Position, JournalError> {
        for append in &mut batch.appends {
            append.stream = self.stream(append.stream);
            let records = std::mem::take(&mut append.records);
            append.records = records.into_iter().map(|record| self.record(record)).collect();
            if self.is(Fault::ForgetsInstants) {
                append.at = Now::default();
            }
            let writers = &mut self.writers.lock().unwrap();
            writers.entry(append.stream).or_insert((batch.owner, batch.owner)).1 = batch.owner;
        }
        if let Some(answer) = self.may_commit(&mut batch).await {
            return answer;
        }
        if let Some(answer) = self.before(&mut batch).await {
            return answer;
        }
        let answer = self.inner.commit(batch).await;
        self.busy.store(false, Ordering::SeqCst);
        match (self.fault, answer) {
            (Fault::NamesAnotherHead, Err(JournalError::Conflict { stream, head })) => {
                Err(JournalError::Conflict { stream, head: Seq(head.0 + 1) })
            }
            (Fault::AnswersWithAnotherPosition, Ok(position)) => Ok(Position(position.0 + 1)),
            (Fault::PositionsStandStill, Ok(_)) => Ok(Position(1)),
            (Fault::CountsPositionsAnew, Ok(_)) if self.forgotten().any => Ok(Position(1)),
            (Fault::ForgetsPositions, Ok(position)) if self.reopened => {
                Ok(Position(position.0 % 2 + 1))
            }
            (_, Ok(position)) => {
                self.latest.fetch_max(position.0, Ordering::SeqCst);
                Ok(position)
            }
            (_, Err(error)) => Err(error),
        }
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let at = self.stream(*stream);
        let (mut from, mut max) = (from, max);
        if self.forgotten().hidden.contains(&at) {
            return Ok(Vec::new());
        }
        match self.fault {
            Fault::ReadsOneMore => max = max.saturating_add(1),
            Fault::ReadsFromTheCommit if from.0 > 0 => {
                // A commit that has begun before the place is left out.
                let around = self.inner.read(&at, Seq(from.0 - 1), usize::MAX).await?;
                let begun = around.first().map(|stored| stored.position);
                let rest = around.iter().skip(1);
                let cut = rest.take_while(|stored| Some(stored.position) == begun).count();
                from.0 = from.0.saturating_add(cut as u64);
            }
            _ => {}
        }
        let mut found = self.inner.read(&at, from, max).await?;
        let anew = match (self.fault, at) {
            (Fault::NumbersTheArbiterAnew, StreamId::Arbiter) => self.forgotten().arbiter,
            _ => 0,
        };
        for stored in &mut found {
            stored.stream = *stream;
            stored.seq.0 = stored.seq.0.saturating_sub(anew);
            if self.is(Fault::PositionsStandStill) {
                stored.position = Position(1);
            }
        }
        if self.is(Fault::ForgetsTheLastRecord) && self.reopened {
            let head = self.head(stream).await?;
            found.retain(|stored| stored.seq < head);
        }
        Ok(found)
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        let stream = self.stream(*stream);
        if self.forgotten().hidden.contains(&stream) {
            return Ok(Seq(0));
        }
        let head = self.inner.head(&stream).await?;
        let last = self.inner.read(&stream, Seq(head.0.saturating_sub(1)), 1).await?;
        let ended = last.first().is_some_and(|stored| stored.record.ends_run());
        Ok(match self.fault {
            Fault::CountsOneLess => Seq(head.0.saturating_sub(1)),
            Fault::ForgetsTheEnded if ended => Seq(0),
            Fault::ForgetsTheLastRecord if self.reopened => Seq(head.0.saturating_sub(1)),
            _ => head,
        })
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        let mut open = self.inner.open(None, usize::MAX).await?;
        let writers = self.writers.lock().unwrap().clone();
        let mut add = Vec::new();
        match self.fault {
            Fault::ListsEnded
            | Fault::ListsKeys
            | Fault::ListsTheArbiter
            | Fault::OpensEmptyStreams => {
                for (stream, (_, owner)) in &writers {
                    let head = self.inner.head(stream).await?;
                    add.push(OpenStream { stream: *stream, owner: *owner, head });
                }
            }
            _ => {}
        }
        add.retain(|one| match (self.fault, one.stream) {
            (Fault::ListsEnded, StreamId::Run(_))
            | (Fault::ListsKeys, StreamId::Key(_))
            | (Fault::ListsTheArbiter, StreamId::Arbiter) => one.head > Seq(0),
            (Fault::OpensEmptyStreams, StreamId::Run(_)) => one.head == Seq(0),
            _ => false,
        });
        open.retain(|known| add.iter().all(|one| one.stream != known.stream));
        open.extend(add);
        open.sort_by_key(|one| one.stream);
        for one in &mut open {
            match self.fault {
                Fault::OwnerIsTheFirst => {
                    one.owner = writers.get(&one.stream).map_or(one.owner, |writers| writers.0);
                }
                Fault::OwnerIsWhoTries => {
                    one.owner = writers.get(&one.stream).map_or(one.owner, |writers| writers.1);
                }
                Fault::ForgetsOwners if self.reopened => one.owner = ProcessId(uuid::Uuid::nil()),
                Fault::ListsHeadOne => one.head = Seq(1),
                _ => {}
            }
        }
        let known = after.is_none_or(|after| open.iter().any(|one| one.stream == after));
        match self.fault {
            Fault::IgnoresAfter => {}
            Fault::NeedsAfterToBeOpen if !known => open.clear(),
            _ => open.retain(|one| after.is_none_or(|after| one.stream > after)),
        }
        match self.fault {
            Fault::SortsAsSigned => open.sort_by_key(|one| match one.stream {
                StreamId::Run(run) => run.0.as_u128().cast_signed(),
                _ => 0,
            }),
            Fault::SortsAsText => open.sort_by_key(|one| match one.stream {
                StreamId::Run(run) => run.0.as_u128().to_string(),
                _ => String::new(),
            }),
            _ => {}
        }
        open.truncate(if self.is(Fault::IgnoresMax) { usize::MAX } else { max });
        Ok(open)
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        let are_forgotten = self.is(Fault::ForgetsAllFacts) && self.forgotten().any;
        if are_forgotten || self.is(Fault::ForgetsFacts) && self.reopened {
            return Ok(Vec::new());
        }
        let latest = self.latest.load(Ordering::SeqCst);
        let every = self.inner.facts(topic, Position(0), usize::MAX).await?;
        let mut found: Vec<Fact> =
            every.iter().filter(|fact| fact.position > after).cloned().collect();
        match self.fault {
            Fault::MixesTopics => {
                for other in ["a", "a.b", "b", "other", "conformance"] {
                    if other != topic.as_str() {
                        let other = Topic::new(other).unwrap();
                        found.extend(self.inner.facts(&other, after, usize::MAX).await?);
                    }
                }
                found.sort_by_key(|fact| fact.position);
            }
            Fault::FactsFromThePosition => {
                found = every.into_iter().filter(|fact| fact.position >= after).collect();
            }
            Fault::SortsFacts => {
                found.sort_by(|a, b| (a.position, &a.fact.key).cmp(&(b.position, &b.fact.key)));
            }
            Fault::KeepsTheLatestFact => {
                let all = found.clone();
                let mut at = 0;
                found.retain(|fact| {
                    at += 1;
                    all[at..].iter().all(|later| later.fact.key != fact.fact.key)
                });
            }
            // Every other commit is seen when the next one is there.
            Fault::LateFacts => {
                found.retain(|fact| fact.position.0 % 2 == 0 || fact.position.0 + 1 < latest);
            }
            Fault::PositionsStandStill => {
                for fact in &mut found {
                    fact.position = Position(1);
                }
            }
            _ => {}
        }
        match self.fault {
            Fault::SplitsFacts => found.truncate(max.max(1)),
            Fault::GivesAllFacts => {}
            Fault::CountsCommits => {
                let mut positions: Vec<_> = found.iter().map(|fact| fact.position).collect();
                positions.dedup();
                if let Some(last) = positions.get(max.saturating_sub(1)) {
                    found.retain(|fact| fact.position <= *last);
                }
            }
            _ => {
                let mut end = max.max(1).min(found.len());
                while end > 0 && end < found.len() && found[end].position == found[end - 1].position
                {
                    end += 1;
                }
                found.truncate(end);
            }
        }
        Ok(found)
    }

    async fn forget(&self, what: &Forget) -> Result<u64, JournalError> {
        let asked = what.streams.len() as u64;
        let mut what = what.clone();
        {
            let mut forgotten = self.forgotten();
            forgotten.any = true;
            forgotten.arbiter = forgotten.arbiter.max(what.arbiter.0);
            match self.fault {
                Fault::NeverForgets => return Ok(0),
                Fault::ForgetsButCounts => return Ok(asked),
                Fault::ForgetsOpenRuns | Fault::KeepsFactsOfTheForgotten => {
                    forgotten.hidden.extend(what.streams);
                    return Ok(asked);
                }
                Fault::ForgetsTheWholeArbiter if what.arbiter.0 > 0 => {
                    forgotten.hidden.insert(StreamId::Arbiter);
                }
                Fault::KeepsKeys => {
                    what.streams.retain(|stream| matches!(stream, StreamId::Run(_)));
                }
                _ => {}
            }
        }
        let gone = self.inner.forget(&what).await?;
        Ok(if self.is(Fault::KeepsKeys) { asked } else { gone })
    }
}

/// The leases are those of the journal in memory: they have broken stores of their own.
#[async_trait]
impl Leases for Faulty {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.inner.acquire(process, now, term).await
    }
    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.inner.renew(process, epoch, now, term).await
    }
    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.inner.release(process, epoch).await
    }
    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.inner.leases().await
    }
    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        self.inner.fence(process, now, margin).await
    }
}

/// Stores with this fault, which are still there when they are opened again.
pub(crate) struct Broken(pub(crate) Fault);

#[async_trait]
impl StoreFactory for Broken {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        Ok(Box::new(Kept(self.0, Mutex::default())))
    }
}

/// What is there when a store is opened again.
type Lasting = (Arc<MemoryJournal>, Arc<Mutex<Forgotten>>);

struct Kept(Fault, Mutex<Option<Lasting>>);

#[async_trait]
impl Place for Kept {
    async fn open(&self) -> Result<Store, BoxError> {
        let mut kept = self.1.lock().unwrap();
        let reopened = kept.is_some();
        let (inner, forgotten) = match kept.take() {
            Some(kept) if self.0 != Fault::ForgetsEverything => kept,
            _ => Default::default(),
        };
        *kept = Some((Arc::clone(&inner), Arc::clone(&forgotten)));
        let store = Arc::new(Faulty {
            fault: self.0,
            inner,
            busy: AtomicBool::new(false),
            latest: AtomicU64::new(0),
            writers: Mutex::default(),
            reopened,
            forgotten,
        });
        Ok(Store::new().with_journal(Arc::clone(&store) as _).with_leases(store))
    }
}
