//! Beginning the jobs of due times.

use chrono::{DateTime, Utc};
use stillpoint_catalog::{CatalogError, Entry, Settlement};
use stillpoint_context::{ErrorClass, ErrorFacts, Failure, IdempotencyKey, JobId};
use stillpoint_model::request::{BackupRequest, Trigger};
use stillpoint_model::schedule::{AttachmentId, Lapse, OpenDue, Overrun, RecordedLapse, Why};

use super::SchedulerEvent;
use super::standing::Standings;
use super::turn::Turns;
use crate::error::Error;

/// What came of an attempt to begin a job.
enum Begun {
    /// It has, and that is noted.
    Job(JobId),
    /// Somebody else has settled the due time.
    Settled,
    /// It has not, and that is still to be noted.
    Else(Outcome),
}

/// What becomes of a due time whose job does not begin here.
enum Outcome {
    /// There is one under its key.
    Job(JobId),
    /// There cannot be one: what it needs is not there.
    Never(Failure),
}

/// One job for each attachment and due instant, whoever asks and however often.
fn key(attachment: AttachmentId, due: &OpenDue) -> Result<IdempotencyKey, Error> {
    let at = due.due.timestamp();
    IdempotencyKey::new(format!("schedule/{attachment}/{at}")).map_err(|error| {
        Failure::new("schedule.key", ErrorClass::Internal, error.to_string()).into()
    })
}

impl Turns {
    /// Begins what is open of these attachments and has no job; a job and the note of it are one commit, so that nobody settles the due
    /// time otherwise meanwhile. What is begun already is that same job. What cannot be begun now keeps the others from nothing.
    pub(super) async fn begin(&mut self, attachments: Vec<AttachmentId>) {
        for attachment in attachments {
            if self.shared.wants_stop() {
                break;
            }
            // Another process may have written it since it was read here.
            let known = match self.catalog().ledger(attachment).await {
                Ok(known) => known,
                Err(error) => {
                    // Where nothing can be read it is of no use to go on.
                    self.failed = Some(error.into());
                    break;
                }
            };
            if self.book.entry(attachment) != known.as_ref() {
                self.book.learn(attachment, known.clone());
            }
            let Some(entry) = known else { continue };
            if let Err(error) = self.begin_of(attachment, entry).await {
                self.failed = Some(error);
            }
        }
    }

    async fn begin_of(&mut self, attachment: AttachmentId, entry: Entry) -> Result<(), Error> {
        let (mut failed, mut others) = (None, Vec::new());
        let standings = self.standings(&entry.ledger).await?;
        for open in entry.ledger.open.into_iter().filter(|open| open.job.is_none()) {
            if self.shared.wants_stop() {
                break;
            }
            match self.begin_one(attachment, &open, &standings).await {
                Ok(Begun::Job(job)) => self.shared.tell(SchedulerEvent::Began {
                    attachment,
                    schedule: open.schedule,
                    due: open.due,
                    is_late: open.is_late,
                    job,
                }),
                Ok(Begun::Settled) => {}
                Ok(Begun::Else(outcome)) => others.push((open.due, outcome)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // As it is now, with the jobs that have begun.
        let known = self.catalog().ledger(attachment).await?;
        match known {
            Some(entry) if !others.is_empty() => self.note(entry, others).await?,
            known => self.book.learn(attachment, known),
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notes what became of due times that are open still.
    async fn note(
        &mut self,
        entry: Entry,
        outcomes: Vec<(DateTime<Utc>, Outcome)>,
    ) -> Result<(), Error> {
        let Entry { revision, mut ledger } = entry;
        let (attachment, now) = (ledger.attachment, self.this.seams().clock.now());
        let mut lapses = Vec::new();
        for (due, outcome) in outcomes {
            let Some(open) = ledger.unbegun(due) else { continue };
            match outcome {
                Outcome::Job(job) => open.job = Some(job),
                Outcome::Never(failure) => {
                    ledger.open.retain(|open| open.due != due);
                    let lapse = Lapse::one(due, Why::Refused { failure });
                    lapses.push(RecordedLapse::new(attachment, now, lapse));
                }
            }
        }
        let settlement = Settlement { attachment, from: Some(revision), to: Some(ledger), lapses };
        self.store(now, vec![settlement]).await.map(drop)
    }

    async fn begin_one(
        &self,
        attachment: AttachmentId,
        due: &OpenDue,
        standings: &Standings,
    ) -> Result<Begun, Error> {
        let key = key(attachment, due)?;
        let mut coalesced = standings.waiting_before(due);
        if !coalesced.is_empty() && !self.coalesces(attachment, due).await? {
            coalesced.clear();
        }
        let trigger = Trigger::Schedule {
            schedule: due.schedule.clone(),
            version: Some(due.version),
            due: due.due,
        };
        let AttachmentId { group, policy, .. } = attachment;
        let request = BackupRequest::scheduled(key, group, policy, trigger, coalesced);
        match self.this.backup_due(request, Some((attachment, due.due))).await {
            Ok(handle) => Ok(Begun::Job(handle.id())),
            Err(Error::Catalog(CatalogError::DueSettled { .. })) => Ok(Begun::Settled),
            Err(Error::Catalog(CatalogError::KeyReused { job, .. })) => {
                Ok(Begun::Else(Outcome::Job(job)))
            }
            Err(error) if error.class() == ErrorClass::Invalid => {
                Ok(Begun::Else(Outcome::Never(Failure::of(&error))))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a schedule wants what waits to be one with what comes due.
    async fn coalesces(&self, attachment: AttachmentId, due: &OpenDue) -> Result<bool, Error> {
        let stored = self.catalog().schedule(attachment.schedule, Some(due.version)).await?;
        Ok(stored.is_some_and(|stored| stored.schedule.overrun == Overrun::Coalesce))
    }
}
