//! Beginning the jobs of due times.

use stillpoint_catalog::{CatalogError, Settlement};
use stillpoint_context::{ErrorClass, ErrorFacts, Failure, IdempotencyKey, JobId};
use stillpoint_model::request::{BackupRequest, Trigger};
use stillpoint_model::schedule::{AttachmentId, Lapse, OpenDue, Overrun, RecordedLapse, Why};

use super::SchedulerEvent;
use super::standing::Standings;
use super::turn::Turns;
use crate::error::Error;

/// What came of an attempt to begin a job.
enum Begun {
    Job(JobId),
    /// It cannot be: what it needs is not there.
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
    /// Begins what is open of these attachments and has no job, and notes its job. What is begun already is that same job. What
    /// cannot be begun now keeps the others from nothing.
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

    async fn begin_of(
        &mut self,
        attachment: AttachmentId,
        entry: stillpoint_catalog::Entry,
    ) -> Result<(), Error> {
        let (mut ledger, mut events, mut lapses) = (entry.ledger, Vec::new(), Vec::new());
        let (mut failed, mut kept) = (None, Vec::new());
        let now = self.this.seams().clock.now();
        let standings = self.standings(&ledger).await?;
        for mut open in std::mem::take(&mut ledger.open) {
            let stops = failed.is_some() || self.shared.wants_stop();
            if open.job.is_some() || stops {
                kept.push(open);
                continue;
            }
            match self.begin_one(attachment, &open, &standings).await {
                Ok(Begun::Job(job)) => {
                    events.push(SchedulerEvent::Began {
                        attachment,
                        schedule: open.schedule.clone(),
                        due: open.due,
                        is_late: open.is_late,
                        job,
                    });
                    open.job = Some(job);
                    kept.push(open);
                }
                Ok(Begun::Never(failure)) => {
                    let lapse = Lapse::one(open.due, Why::Refused { failure });
                    lapses.push(RecordedLapse::new(attachment, now, lapse));
                }
                Err(error) => {
                    failed = Some(error);
                    kept.push(open);
                }
            }
        }
        ledger.open = kept;
        for event in events {
            self.shared.tell(event);
        }
        let from = Some(entry.revision);
        let settlement = Settlement { attachment, from, to: Some(ledger), lapses };
        self.store(now, vec![settlement]).await?;
        failed.map_or(Ok(()), Err)
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
        match self.this.backup(request).await {
            Ok(handle) => Ok(Begun::Job(handle.id())),
            Err(Error::Catalog(CatalogError::KeyReused { job, .. })) => Ok(Begun::Job(job)),
            Err(error) if error.class() == ErrorClass::Invalid => {
                Ok(Begun::Never(Failure::of(&error)))
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
