//! Its schedules.

use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_catalog::{
    Begun, Catalog, CatalogError, Entry, MemoryCatalog, ScheduleCatalog, Settlement, Settling,
    Times,
};
use stillpoint_model::id::ScheduleId;
use stillpoint_model::job::Job;
use stillpoint_model::schedule::{AttachmentId, RecordedLapse, StoredSchedule};

use super::super::pause;
use super::{Fault, Faulty};

/// Removes every ledger.
pub(super) async fn forget_ledgers(kept: &MemoryCatalog) -> Result<(), CatalogError> {
    for Entry { revision, ledger } in kept.ledgers().await? {
        let (attachment, from) = (ledger.attachment, Some(revision));
        let removal = Settlement { attachment, from, to: None, lapses: Vec::new() };
        kept.settle(ledger.considered, &[removal]).await?;
    }
    Ok(())
}

impl Faulty {
    /// Stores it whatever it was made from.
    async fn force(
        &self,
        now: DateTime<Utc>,
        settlement: &Settlement,
    ) -> Result<Settling, CatalogError> {
        let from = self.1.ledger(settlement.attachment).await?.map(|entry| entry.revision);
        let forced = Settlement { from, ..settlement.clone() };
        Ok(self.1.settle(now, &[forced]).await?.remove(0))
    }
}

#[async_trait]
impl ScheduleCatalog for Faulty {
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Result<(), CatalogError> {
        let stored = self.1.put_schedule(schedule).await;
        match (self.0, &stored) {
            (Fault::OverwritesSchedules, Err(CatalogError::ScheduleVersion { .. }))
            | (Fault::SharesScheduleNames, Err(CatalogError::NameTaken { .. })) => Ok(()),
            _ => stored,
        }
    }

    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<StoredSchedule>, CatalogError> {
        self.1.schedule(id, version).await
    }

    async fn schedules(&self) -> Result<Vec<StoredSchedule>, CatalogError> {
        self.1.schedules().await
    }

    async fn remove_schedule(&self, id: ScheduleId) -> Result<(), CatalogError> {
        let removed = self.1.remove_schedule(id).await;
        if self.is(Fault::RemovesAttachedSchedules) { Ok(()) } else { removed }
    }

    async fn times(&self) -> Result<Times, CatalogError> {
        let mut times = self.1.times().await?;
        match self.0 {
            Fault::ShowsNothingNew => times.revision = 0,
            Fault::NamesNothingUnbegun => times.unbegun.clear(),
            _ => {}
        }
        Ok(times)
    }

    async fn ledgers(&self) -> Result<Vec<Entry>, CatalogError> {
        self.1.ledgers().await
    }

    async fn ledger(&self, attachment: AttachmentId) -> Result<Option<Entry>, CatalogError> {
        self.1.ledger(attachment).await
    }

    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Result<Vec<Settling>, CatalogError> {
        let mut settlements = settlements.to_vec();
        match self.0 {
            Fault::SettlesWhatIsStale => {
                let mut answers = Vec::new();
                for settlement in &settlements {
                    answers.push(self.force(now, settlement).await?);
                }
                return Ok(answers);
            }
            Fault::LooksThenSettles if settlements.len() == 1 => {
                let known = self.1.ledger(settlements[0].attachment).await?;
                let is_fresh = known.map(|entry| entry.revision) == settlements[0].from;
                pause().await;
                if is_fresh {
                    return Ok(vec![self.force(now, &settlements[0]).await?]);
                }
            }
            Fault::LosesLapses => settlements.iter_mut().for_each(|one| one.lapses.clear()),
            Fault::LosesLapsesOfRemovals => {
                let removals = settlements.iter_mut().filter(|one| one.to.is_none());
                removals.for_each(|one| one.lapses.clear());
            }
            Fault::ScheduleClockGoesBack if settlements.is_empty() => {
                self.1.believe_clock(now).await?;
            }
            _ => {}
        }
        self.1.settle(now, &settlements).await
    }

    async fn begin_due(
        &self,
        job: &Job,
        of: AttachmentId,
        due: DateTime<Utc>,
    ) -> Result<Begun, CatalogError> {
        match self.0 {
            Fault::BeginsWhatIsSettled => match self.1.begin_due(job, of, due).await {
                Err(CatalogError::DueSettled { .. }) => self.1.begin_job(job).await,
                begun => begun,
            },
            Fault::ForgetsToNoteJobs | Fault::LooksThenBeginsWhatIsDue => {
                let mut entry = self.1.ledger(of).await?;
                let open = entry.as_mut().and_then(|entry| entry.ledger.unbegun(due));
                let Some(open) = open else {
                    return Err(CatalogError::DueSettled { attachment: of, due });
                };
                if self.is(Fault::ForgetsToNoteJobs) {
                    return self.1.begin_job(job).await;
                }
                pause().await;
                let begun = self.1.begin_job(job).await?;
                open.job = Some(begun.id(job));
                let to = entry.map(|entry| entry.ledger);
                let noted = Settlement { attachment: of, from: None, to, lapses: Vec::new() };
                self.force(due, &noted).await?;
                Ok(begun)
            }
            _ => self.1.begin_due(job, of, due).await,
        }
    }

    async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, CatalogError> {
        let mut lapses = self.1.lapses(of, most).await?;
        match self.0 {
            Fault::ListsLapsesOldestFirst => lapses.reverse(),
            Fault::ForgetsLapsesOfWhatIsGone => {
                let entries = self.1.ledgers().await?;
                lapses.retain(|lapse| {
                    entries.iter().any(|entry| entry.ledger.attachment == lapse.attachment)
                });
            }
            _ => {}
        }
        Ok(lapses)
    }

    async fn believe_clock(&self, now: DateTime<Utc>) -> Result<(), CatalogError> {
        if self.is(Fault::BelievesNoClock) { Ok(()) } else { self.1.believe_clock(now).await }
    }
}
