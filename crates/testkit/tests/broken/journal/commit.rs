//! What the faulty journal makes of a commit before it comes to the one in memory.

use std::sync::atomic::Ordering;

use stillpoint_context::RunId;
use stillpoint_workflow::{
    Append, Batch, Journal, JournalError, Leases, Payload, Position, Record, RunRecord, Seq,
};
use uuid::Uuid;

use super::{Fault, Faulty};
use crate::broken::pause;

/// How a commit stands to what is there.
#[derive(Debug)]
struct Fit {
    /// Those that fit at the head.
    new: usize,
    /// Those that do not fit, and are not there either.
    misfits: usize,
    /// Those that are there.
    repeats: usize,
}

impl Fit {
    fn is_repeat(&self) -> bool {
        self.repeats > 0 && self.new == 0 && self.misfits == 0
    }
}

type Answer = Result<Position, JournalError>;

/// That the stream of an append does not end where the writer thought.
fn conflict(append: &Append, head: u64) -> Answer {
    Err(JournalError::Conflict { stream: append.stream, head: Seq(head) })
}

impl Faulty {
    /// What it makes of a record.
    pub(super) fn record(&self, record: Record) -> Record {
        let text = |by: String| match self.fault {
            Fault::TakesTextForAscii => by.replace(|c: char| !c.is_ascii(), "?"),
            Fault::EndsTextAtNul => by.split('\0').next().unwrap_or_default().to_owned(),
            Fault::CutsBigRecords => by.chars().take(65_535).collect(),
            _ => by,
        };
        match record {
            Record::Run(RunRecord::CancelRequested { by, late }) => {
                Record::Run(RunRecord::CancelRequested { by: text(by), late })
            }
            Record::Run(RunRecord::Failed { node, attempt, mut failure, next })
                if self.is(Fault::ForgetsFailures) =>
            {
                failure.causes.clear();
                Record::Run(RunRecord::Failed { node, attempt, failure, next })
            }
            Record::Run(RunRecord::Succeeded { node, attempt, output, warnings })
                if self.is(Fault::MangledPayloads) =>
            {
                let text = String::from_utf8_lossy(output.as_bytes()).into_owned();
                let output = Payload::from_json(text.into_bytes());
                Record::Run(RunRecord::Succeeded { node, attempt, output, warnings })
            }
            record => record,
        }
    }

    async fn fit(&self, batch: &Batch) -> Fit {
        let mut fit = Fit { new: 0, misfits: 0, repeats: 0 };
        for append in &batch.appends {
            let head = self.inner.head(&append.stream).await.unwrap();
            let stored = self
                .inner
                .read(&append.stream, append.expected, append.records.len())
                .await
                .unwrap();
            if append.expected == head {
                fit.new += 1;
            } else if append.expected > head
                || !stored.iter().map(|stored| &stored.record).eq(&append.records)
            {
                fit.misfits += 1;
            } else {
                fit.repeats += 1;
            }
        }
        fit
    }

    async fn head_of(&self, append: &Append) -> u64 {
        self.inner.head(&append.stream).await.unwrap().0
    }

    /// What the fault makes of a commit; an answer, if it does not come to the journal.
    pub(super) async fn before(&self, batch: &mut Batch) -> Option<Answer> {
        let fit = self.fit(batch).await;
        let answer = if fit.is_repeat() {
            self.repeats(batch).await
        } else {
            self.places(batch, &fit).await
        };
        match answer {
            Some(answer) => Some(answer),
            None => self.parts(batch, &fit).await,
        }
    }

    /// Faults about what is there already.
    async fn repeats(&self, batch: &mut Batch) -> Option<Answer> {
        match self.fault {
            Fault::RefusesRepeats => {
                let first = &batch.appends[0];
                return Some(conflict(first, self.head_of(first).await));
            }
            Fault::RefusesLateRepeats => {
                for append in &batch.appends {
                    let head = self.head_of(append).await;
                    if append.expected.0 + (append.records.len() as u64) < head {
                        return Some(conflict(append, head));
                    }
                }
            }
            Fault::AnswersRepeatsWithTheLatest => {
                return Some(Ok(Position(self.latest.load(Ordering::SeqCst))));
            }
            Fault::StatesFactsTwice => batch.appends.clear(),
            Fault::TakesRepeatsOfAnybody => {
                let last = batch.appends.last()?;
                let stored = self.inner.read(&last.stream, last.expected, 1).await.unwrap();
                return stored.last().map(|stored| Ok(stored.position));
            }
            _ => {}
        }
        None
    }

    /// Faults about where records go.
    async fn places(&self, batch: &mut Batch, fit: &Fit) -> Option<Answer> {
        match self.fault {
            Fault::AppendsBehind | Fault::AppendsAhead => {
                for append in &mut batch.appends {
                    let head = self.inner.head(&append.stream).await.unwrap();
                    let behind = append.expected < head && fit.misfits > 0;
                    let ahead = append.expected > head;
                    if behind && self.is(Fault::AppendsBehind)
                        || ahead && self.is(Fault::AppendsAhead)
                    {
                        append.expected = head;
                    }
                }
            }
            Fault::RefusesEmptyAppends => {
                let empty = batch.appends.iter().find(|append| append.records.is_empty())?;
                return Some(conflict(empty, self.head_of(empty).await));
            }
            Fault::CompletesParts if fit.misfits == 0 && fit.new > 0 => {
                let mut new = Vec::new();
                for append in std::mem::take(&mut batch.appends) {
                    if append.expected.0 == self.head_of(&append).await {
                        new.push(append);
                    }
                }
                batch.appends = new;
            }
            Fault::RefusesPayloadsHalfway => {
                let odd = |record: &Record| match record {
                    Record::Run(RunRecord::Succeeded { output, .. }) => {
                        std::str::from_utf8(output.as_bytes()).is_err()
                    }
                    _ => false,
                };
                if let Some(append) =
                    batch.appends.iter_mut().find(|append| append.records.iter().any(odd))
                {
                    append.records.retain(|record| !odd(record));
                    drop(self.inner.commit(batch.clone()).await);
                    return Some(Err(JournalError::Corrupt("no text".into())));
                }
            }
            Fault::TakesAnyRepeat | Fault::TakesLongerRepeats
                if fit.misfits > 0 && fit.new == 0 =>
            {
                for append in &mut batch.appends {
                    let stored =
                        self.inner.read(&append.stream, append.expected, append.records.len());
                    let stored: Vec<_> =
                        stored.await.unwrap().into_iter().map(|stored| stored.record).collect();
                    let longer = stored.len() < append.records.len();
                    let prefix = append.records.starts_with(&stored);
                    let any = self.is(Fault::TakesAnyRepeat) && !longer;
                    let long = self.is(Fault::TakesLongerRepeats) && longer && prefix;
                    if !stored.is_empty() && (any || long) {
                        append.records = stored;
                    }
                }
            }
            _ => {}
        }
        None
    }

    /// Faults about what belongs together.
    async fn parts(&self, batch: &mut Batch, fit: &Fit) -> Option<Answer> {
        match self.fault {
            Fault::CommitsOneAppendAtATime if batch.appends.len() > 1 && !fit.is_repeat() => {
                let last = batch.appends.pop();
                for append in std::mem::take(&mut batch.appends) {
                    let one = Batch { appends: vec![append], facts: Vec::new(), ..batch.clone() };
                    if let Err(error) = self.inner.commit(one).await {
                        return Some(Err(error));
                    }
                    pause().await;
                }
                batch.appends.extend(last);
            }
            Fault::StatesFactsOfRefusedCommits if fit.misfits > 0 => {
                let facts = Batch { appends: Vec::new(), ..batch.clone() };
                drop(self.inner.commit(facts).await);
            }
            Fault::FactsBeforeRecords
                if fit.misfits == 0 && !fit.is_repeat() && !batch.facts.is_empty() =>
            {
                let facts = Batch { appends: Vec::new(), ..batch.clone() };
                if let Err(error) = self.inner.commit(facts).await {
                    return Some(Err(error));
                }
                batch.facts.clear();
                pause().await;
            }
            Fault::ForgetsFactsAlone if batch.appends.is_empty() => batch.facts.clear(),
            Fault::CutsBigCommits => {
                batch.appends.truncate(50);
                batch.facts.truncate(200);
            }
            Fault::FactsAreOfNobody => {
                for (run, _) in &mut batch.facts {
                    *run = RunId(Uuid::nil());
                }
            }
            Fault::OneAtATime => {
                if self.busy.swap(true, Ordering::SeqCst) {
                    return Some(Err(JournalError::Busy("another commit".into())));
                }
                pause().await;
            }
            Fault::LooksThenCommits if fit.misfits == 0 && !fit.is_repeat() => {
                pause().await;
                for append in &mut batch.appends {
                    append.expected = self.inner.head(&append.stream).await.unwrap();
                }
            }
            _ => {}
        }
        None
    }

    /// The same for who may commit.
    pub(super) async fn may_commit(&self, batch: &mut Batch) -> Option<Answer> {
        let (owner, epoch) = (batch.owner, batch.epoch);
        let fenced = Some(Err(JournalError::Fenced { owner, epoch }));
        let lease = self.inner.leases().await.unwrap().into_iter();
        let lease = lease.into_iter().find(|lease| lease.process == owner);
        let held = lease.is_some_and(|lease| lease.epoch == epoch);
        match self.fault {
            Fault::IgnoresEpochs => batch.epoch = 0,
            Fault::KnowsProcessesOnly => batch.epoch = lease.map_or(epoch, |lease| lease.epoch),
            Fault::PrivateRefusesEpochZero | Fault::Shared if epoch == 0 => return fenced,
            Fault::ConflictFirst | Fault::RepeatFirst if !held && epoch != 0 => {
                let fit = self.fit(batch).await;
                if fit.misfits > 0 && self.is(Fault::ConflictFirst) {
                    return Some(conflict(&batch.appends[0], 0));
                }
                if fit.is_repeat() && self.is(Fault::RepeatFirst) {
                    batch.epoch = 0;
                }
            }
            _ => {}
        }
        None
    }
}
