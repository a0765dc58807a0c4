//! One turn of the scheduler: what is new, what is due, what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_catalog::{Catalog, Entry, Settlement, Settling};
use stillpoint_context::Failure;
use stillpoint_model::schedule::{AttachmentId, Ledger, OpenDue, RecordedLapse, Regress};

use super::book::{Batch, Book};
use super::standing::Standings;
use super::{SchedulerEvent, Shared};
use crate::Stillpoint;
use crate::error::Error;

/// How many ledgers are settled in one commit.
const TOGETHER: usize = 256;

/// The shortest rest, so that clocks that differ a little do not make it turn in circles.
const SHORTEST: Duration = Duration::from_millis(1);

/// When the store is read again where it was found to be another than what was known.
const SOON: TimeDelta = TimeDelta::milliseconds(100);

/// The loop's memory.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) this: Stillpoint,
    pub(super) shared: Arc<Shared>,
    pub(super) book: Book,
    regress: Option<Regress>,
    recovered_at: Option<stillpoint_context::Mono>,
    /// Why a job could not be begun in this turn, or not be read. Others are not kept from their time by it.
    pub(super) failed: Option<Error>,
}

impl Turns {
    pub(super) fn new(this: Stillpoint, shared: Arc<Shared>) -> Self {
        let book = Book::new(shared.options);
        Self { this, shared, book, regress: None, recovered_at: None, failed: None }
    }

    pub(super) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.this.services().catalog)
    }

    /// Does what is to be done now; for how long there is nothing more.
    pub(super) async fn turn(&mut self) -> Duration {
        self.failed = None;
        let done = crate::bounds::caught(self.all()).await;
        let clock = Arc::clone(&self.this.seams().clock);
        let beat = self.shared.options.beat;
        let (mut failed, mut next) = (self.failed.take(), None);
        let rest = match done {
            Ok(wake) => {
                next = wake;
                wake.map_or(beat, |wake| {
                    (wake - clock.now()).to_std().unwrap_or_default().min(beat)
                })
            }
            Err(error) => {
                // What was considered here may not be settled there.
                self.book.doubt();
                failed = Some(error);
                beat
            }
        };
        let failure = failed.map(|error| Failure::of(&error));
        if let Some(failure) = &failure {
            self.shared.tell(SchedulerEvent::Failed(failure.clone()));
        }
        let mut state = self.shared.state();
        let status = &mut state.status;
        (status.attachments, status.next) = (self.book.len(), next);
        (status.failure, status.regress) = (failure, self.regress);
        (status.turned_at, status.turns) = (clock.mono(), status.turns + 1);
        rest.max(SHORTEST)
    }

    async fn all(&mut self) -> Result<Option<DateTime<Utc>>, Error> {
        self.recover().await;
        let catalog = self.catalog();
        let times = catalog.times().await?;
        let now = self.this.seams().clock.now();
        let behind = self.book.read(&*catalog, &times, now).await?;
        self.settle(behind, now).await?;
        // What another one intended, and may have died before it could begin it.
        self.begin(times.unbegun).await;
        loop {
            let now = self.this.seams().clock.now();
            let looked = self.book.look(now);
            self.note_clock(looked.regress);
            if looked.batches.is_empty() || self.shared.wants_stop() {
                if !looked.batches.is_empty() {
                    self.book.doubt();
                }
                let soon = self.book.is_in_doubt().then(|| now + SOON);
                return Ok(soon.into_iter().chain(looked.wake).min());
            }
            self.settle(looked.batches, now).await?;
        }
    }

    /// Carries on with what was left open by who is gone: at first, and now and then.
    async fn recover(&mut self) {
        let every = self.shared.options.recover;
        let now = self.this.seams().clock.mono();
        let is_time = self.recovered_at.is_none_or(|at| now.saturating_since(at) >= every);
        if every.is_zero() || !is_time {
            return;
        }
        self.recovered_at = Some(now);
        if let Err(error) = self.this.recover().await {
            self.shared.tell(SchedulerEvent::Failed(Failure::of(&error)));
        }
    }

    fn note_clock(&mut self, regress: Option<Regress>) {
        match (self.regress, regress) {
            (None, Some(back)) => self.shared.tell(SchedulerEvent::Regressed(back)),
            (Some(_), None) => self.shared.tell(SchedulerEvent::ClockRight),
            _ => {}
        }
        self.regress = regress;
    }

    /// Stores what became of due times, then begins the jobs of those that are to have one.
    async fn settle(&mut self, batches: Vec<Batch>, now: DateTime<Utc>) -> Result<(), Error> {
        let mut batches = batches.into_iter().peekable();
        while batches.peek().is_some() {
            let some: Vec<Batch> = batches.by_ref().take(TOGETHER).collect();
            let mut settlements = Vec::with_capacity(some.len());
            for batch in some {
                settlements.push(self.decide(batch, now).await?);
            }
            let unbegun = self.store(now, settlements).await?;
            self.begin(unbegun).await;
        }
        Ok(())
    }

    /// How far the jobs of a ledger have come; what cannot be read is noted.
    pub(super) async fn standings(&mut self, ledger: &Ledger) -> Result<Standings, Error> {
        let mut standings = self.this.standings(ledger).await?;
        if let Some(failure) = standings.unread.take() {
            self.failed = Some(failure.into());
        }
        Ok(standings)
    }

    /// What becomes of a batch, given the jobs that are not over.
    async fn decide(&mut self, batch: Batch, now: DateTime<Utc>) -> Result<Settlement, Error> {
        let Batch { stored, entry, considered, due, mut lapses } = batch;
        let Entry { revision, mut ledger } = entry;
        let standings = self.standings(&ledger).await?;
        let of = |open: &OpenDue| standings.progress(open);
        ledger.forget_over(of);
        lapses.extend(ledger.admit(stored.schedule.overrun, due, of));
        lapses.sort_by_key(|lapse| lapse.from);
        ledger.considered = ledger.considered.max(considered);
        ledger.version = stored.version;
        let attachment = ledger.attachment;
        let record = |lapse| RecordedLapse::new(attachment, now, lapse);
        let lapses = lapses.into_iter().map(record).collect();
        Ok(Settlement { attachment, from: Some(revision), to: Some(ledger), lapses })
    }

    /// Stores settlements; gives the attachments whose jobs are to be begun.
    pub(super) async fn store(
        &mut self,
        now: DateTime<Utc>,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<AttachmentId>, Error> {
        // Who was taken over settles nothing more.
        self.this.engine().check_lease().await?;
        let answers = self.catalog().settle(now, &settlements).await?;
        let mut unbegun = Vec::new();
        for (settlement, answer) in settlements.into_iter().zip(answers) {
            let Settlement { attachment, to, lapses, .. } = settlement;
            match answer {
                Settling::Done(revision) => {
                    let entry = to.zip(revision);
                    let entry = entry.map(|(ledger, revision)| Entry { revision, ledger });
                    if entry.as_ref().is_some_and(|entry| entry.ledger.is_unbegun()) {
                        unbegun.push(attachment);
                    }
                    self.book.learn(attachment, entry);
                    for lapse in lapses {
                        self.shared.tell(SchedulerEvent::Lapsed(lapse));
                    }
                }
                // Somebody else was first; what is left to do shows in the next look.
                Settling::Stale(entry) => self.book.learn(attachment, entry.map(|entry| *entry)),
            }
        }
        Ok(unbegun)
    }
}
