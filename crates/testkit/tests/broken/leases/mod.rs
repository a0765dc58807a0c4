//! Leases of our own over a journal in memory, with a place for each fault.

mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Mono, ProcessId};
use stillpoint_testkit::conformance::{BoxError, Place, Store, StoreFactory};
use stillpoint_workflow::{
    Batch, Fact, Fencing, Journal, JournalError, Lease, Leases, MemoryJournal, OpenStream,
    Position, Seq, Stored, StreamId, Topic,
};

use super::pause;
pub(crate) use wanted::WANTED;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Not a fault: whoever has no process is dead.
    SeesTheDead,
    LastsTwiceTheTerm,
    NumbersProcessesApart,
    BeginsWithZero,
    NumbersWhatIsLeft,
    LooksThenAcquires,
    AcquiresOnce,
    NeverShortensByAcquiring,
    KeepsBothEpochs,
    ListsByProcess,
    ListsByEnd,
    ListsNothingExpired,
    RenewsInWordsOnly,
    RenewsUnderANewEpoch,
    RenewsFromTheEnd,
    Shortens,
    RenewsAnyEpoch,
    RenewsWhatIsGone,
    RefusesExpired,
    ReleasesNothing,
    ReleasesAnyEpoch,
    ReleasesOnce,
    FencesTheLiving,
    IgnoresTheMargin,
    WaitsPastTheMargin,
    NamesTheMarginAsEnd,
    EndsWhatIsAlive,
    FencesInWordsOnly,
    FencesEverybody,
    FencesOnce,
    KnowsOneBoot,
    FencesForEver,
    ComesBackAsItWas,
    LooksThenRenews,
    AcceptsEverybody,
    AcceptsTheKnown,
    LooksThenCommits,
    ForgetsEverything,
    ForgetsTheHighestEpoch,
    ForgetsRenewals,
    ForgetsFencings,
}

#[derive(Debug, Default, Clone)]
struct State {
    epoch: u64,
    leases: BTreeMap<ProcessId, Lease>,
    /// What was given, whatever became of it.
    given: BTreeMap<ProcessId, Lease>,
    fenced: BTreeSet<ProcessId>,
    released: BTreeSet<ProcessId>,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    journal: MemoryJournal,
    state: Mutex<State>,
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn change<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        call(&mut self.state.lock().unwrap())
    }

    fn may_commit(&self, owner: ProcessId, epoch: u64) -> bool {
        let held = self.change(|state| match self.fault {
            Fault::KeepsBothEpochs => {
                state.given.get(&owner).map(|lease| lease.epoch..=state.epoch)
            }
            _ => state.leases.get(&owner).map(|lease| lease.epoch..=lease.epoch),
        });
        match self.fault {
            Fault::AcceptsEverybody => true,
            Fault::AcceptsTheKnown => held.is_some(),
            _ => epoch == 0 || held.is_some_and(|held| held.contains(&epoch)),
        }
    }

    /// What the faulty store finds when it is opened again.
    fn reopen(&self) {
        self.change(|state| match self.fault {
            Fault::ForgetsEverything => *state = State::default(),
            Fault::ForgetsTheHighestEpoch => {
                state.epoch = state.leases.values().map(|lease| lease.epoch).max().unwrap_or(0);
            }
            Fault::ForgetsRenewals => {
                for (process, lease) in &mut state.leases {
                    *lease = state.given[process];
                }
            }
            Fault::ForgetsFencings => {
                for process in &state.fenced {
                    state.leases.insert(*process, state.given[process]);
                }
            }
            _ => {}
        });
    }
}

#[async_trait]
impl Leases for Faulty {
    async fn acquire(
        &self,
        process: ProcessId,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let seen = self.change(|state| state.epoch);
        if self.is(Fault::LooksThenAcquires) {
            pause().await;
            self.change(|state| state.epoch = seen);
        }
        self.change(|state| {
            let old = state.leases.get(&process).copied();
            if let Some(old) = old.filter(|_| self.is(Fault::AcquiresOnce)) {
                return Ok(old);
            }
            if self.is(Fault::FencesForEver) && state.fenced.contains(&process) {
                return Err(JournalError::Fenced { owner: process, epoch: 0 });
            }
            state.epoch += 1;
            let epoch = match self.fault {
                Fault::NumbersProcessesApart => {
                    state.given.get(&process).map_or(1, |lease| lease.epoch + 1)
                }
                Fault::BeginsWithZero => state.epoch - 1,
                Fault::NumbersWhatIsLeft => {
                    state.leases.values().map(|lease| lease.epoch).max().unwrap_or(0) + 1
                }
                Fault::ComesBackAsItWas if state.fenced.contains(&process) => {
                    state.given[&process].epoch
                }
                _ => state.epoch,
            };
            let term = if self.is(Fault::LastsTwiceTheTerm) { term * 2 } else { term };
            let mut lease = Lease::new(process, epoch, now, term);
            if let Some(old) = old.filter(|_| self.is(Fault::NeverShortensByAcquiring)) {
                lease.until = lease.until.max(old.until);
            }
            if !(self.is(Fault::KeepsBothEpochs) && state.given.contains_key(&process)) {
                state.given.insert(process, lease);
            }
            state.leases.insert(process, lease);
            state.fenced.remove(&process);
            state.released.remove(&process);
            Ok(lease)
        })
    }

    async fn renew(
        &self,
        process: ProcessId,
        epoch: u64,
        now: Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        let held = |state: &State| {
            let lease = state.leases.get(&process).copied();
            match self.fault {
                Fault::RenewsWhatIsGone => lease.or(state.given.get(&process).copied()),
                Fault::KeepsBothEpochs => lease.filter(|lease| epoch > 0 && epoch <= lease.epoch),
                _ => lease,
            }
            .filter(|lease| {
                [Fault::RenewsAnyEpoch, Fault::KeepsBothEpochs].contains(&self.fault)
                    || lease.epoch == epoch
            })
        };
        let mut lease = self.change(|state| held(state));
        if self.is(Fault::LooksThenRenews) {
            pause().await;
        } else {
            lease = self.change(|state| held(state));
        }
        self.change(|state| {
            let fenced = JournalError::Fenced { owner: process, epoch };
            let lease = lease.ok_or(fenced.clone())?;
            if self.is(Fault::RefusesExpired) && lease.until < now {
                return Err(fenced);
            }
            let from = if self.is(Fault::RenewsFromTheEnd) { lease.until } else { now };
            let mut renewed = Lease::new(process, lease.epoch, from, term);
            if renewed.until < lease.until && !self.is(Fault::Shortens) {
                renewed = lease;
            }
            if self.is(Fault::RenewsUnderANewEpoch) {
                state.epoch += 1;
                renewed.epoch = state.epoch;
            }
            if !self.is(Fault::RenewsInWordsOnly) {
                state.leases.insert(process, renewed);
            }
            Ok(renewed)
        })
    }

    async fn release(&self, process: ProcessId, epoch: u64) -> Result<(), JournalError> {
        self.change(|state| {
            let lease = state.leases.get(&process);
            let held = lease.is_some_and(|lease| lease.epoch == epoch);
            match self.fault {
                Fault::ReleasesNothing => {}
                Fault::ReleasesOnce if lease.is_none() => {
                    return Err(JournalError::Fenced { owner: process, epoch });
                }
                Fault::ReleasesAnyEpoch => drop(state.leases.remove(&process)),
                _ if held => {
                    state.leases.remove(&process);
                    state.released.insert(process);
                }
                _ => {}
            }
            Ok(())
        })
    }

    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        let mut leases: Vec<Lease> = self.change(|state| state.leases.values().copied().collect());
        match self.fault {
            Fault::ListsByProcess => {}
            Fault::ListsByEnd => leases.sort_by_key(|lease| lease.until),
            // By the latest end that it has seen, for want of a clock.
            Fault::ListsNothingExpired => {
                let latest = leases.iter().map(|lease| lease.until).max().unwrap_or_default();
                leases.retain(|lease| lease.until + lease.term >= latest);
                leases.sort_by_key(|lease| lease.epoch);
            }
            _ => leases.sort_by_key(|lease| lease.epoch),
        }
        Ok(leases)
    }

    async fn fence(
        &self,
        process: ProcessId,
        now: Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        self.change(|state| {
            let Some(lease) = state.leases.get(&process).copied() else {
                return match self.fault {
                    Fault::FencesOnce => Ok(Fencing::Alive { until: now }),
                    _ => Ok(Fencing::Fenced),
                };
            };
            let over = match self.fault {
                Fault::FencesTheLiving | Fault::SeesTheDead => true,
                Fault::IgnoresTheMargin => lease.is_over(now, Duration::ZERO),
                Fault::WaitsPastTheMargin => lease.is_over(now, margin + Duration::from_millis(1)),
                Fault::KnowsOneBoot => now >= lease.until + margin,
                _ => lease.is_over(now, margin),
            };
            if !over {
                if self.is(Fault::EndsWhatIsAlive) {
                    state.leases.remove(&process);
                }
                let late =
                    if self.is(Fault::NamesTheMarginAsEnd) { margin } else { Duration::ZERO };
                return Ok(Fencing::Alive { until: lease.until + late });
            }
            match self.fault {
                Fault::FencesInWordsOnly => {}
                Fault::FencesEverybody => state.leases.clear(),
                _ => drop(state.leases.remove(&process)),
            }
            state.fenced.insert(process);
            Ok(Fencing::Fenced)
        })
    }
}

#[async_trait]
impl Journal for Faulty {
    fn is_durable(&self) -> bool {
        false
    }

    async fn commit(&self, mut batch: Batch) -> Result<Position, JournalError> {
        let (owner, epoch) = (batch.owner, batch.epoch);
        if !self.may_commit(owner, epoch) {
            return Err(JournalError::Fenced { owner, epoch });
        }
        if self.is(Fault::LooksThenCommits) {
            pause().await;
        }
        batch.epoch = 0;
        self.journal.commit(batch).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        self.journal.read(stream, from, max).await
    }

    async fn head(&self, stream: &StreamId) -> Result<Seq, JournalError> {
        self.journal.head(stream).await
    }

    async fn open(
        &self,
        after: Option<StreamId>,
        max: usize,
    ) -> Result<Vec<OpenStream>, JournalError> {
        self.journal.open(after, max).await
    }

    async fn facts(
        &self,
        topic: &Topic,
        after: Position,
        max: usize,
    ) -> Result<Vec<Fact>, JournalError> {
        self.journal.facts(topic, after, max).await
    }
}

/// Stores with this fault, which are still there when they are opened again.
pub(crate) struct Broken(pub(crate) Fault);

#[async_trait]
impl StoreFactory for Broken {
    async fn place(&self) -> Result<Box<dyn Place>, BoxError> {
        let (journal, state) = (MemoryJournal::new(), Mutex::default());
        Ok(Box::new(Kept(Arc::new(Faulty { fault: self.0, journal, state }))))
    }

    fn sees_the_dead(&self) -> bool {
        self.0 == Fault::SeesTheDead
    }
}

struct Kept(Arc<Faulty>);

#[async_trait]
impl Place for Kept {
    async fn open(&self) -> Result<Store, BoxError> {
        self.0.reopen();
        let store = Arc::clone(&self.0);
        Ok(Store::new().with_journal(Arc::clone(&store) as _).with_leases(store))
    }
}
