//! The schedules of the catalogue: one document, read and written whole.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{
    Begun, CatalogError, Entry, LAPSES_KEPT, Named, ScheduleCatalog, Settlement, Settling, Times,
    UNBEGUN_NAMED,
};
use stillpoint_context::JobId;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::ScheduleId;
use stillpoint_model::job::Job;
use stillpoint_model::schedule::{AttachmentId, RecordedLapse, StoredSchedule};

use super::{RedbStore, Stop, catalog};

const BOOK: TableDefinition<'_, (), &[u8]> = TableDefinition::new("schedules");

type Answer<T> = Result<T, Stop<CatalogError>>;

/// All that is known of schedules.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    /// In the order of their versions.
    schedules: Vec<StoredSchedule>,
    ledgers: Vec<Entry>,
    /// Oldest first.
    lapses: Vec<RecordedLapse>,
    times: Times,
    entry: u64,
}

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::TableError> {
    transaction.open_table(BOOK).map(drop)
}

fn read(table: &impl ReadableTable<(), &'static [u8]>) -> Answer<Book> {
    let body = table.get(())?;
    Ok(body.map(|body| serde_json::from_slice(body.value())).transpose()?.unwrap_or_default())
}

/// Changes the book in a transaction.
pub(super) fn change<T>(
    transaction: &WriteTransaction,
    change: impl FnOnce(&mut Book) -> Result<T, CatalogError>,
) -> Answer<T> {
    let mut table = transaction.open_table(BOOK)?;
    let mut book = read(&table)?;
    let answer = change(&mut book).map_err(Stop::Answer)?;
    table.insert((), &*serde_json::to_vec(&book)?)?;
    Ok(answer)
}

impl Book {
    /// Whether the schedules of a group exist; notes that the group is another now.
    pub(super) fn take_note(&mut self, group: Option<&ResourceGroup>) -> Result<(), CatalogError> {
        for attached in group.into_iter().flat_map(|group| &group.attachments) {
            if self.versions(attached.schedule).next().is_none() {
                let id = attached.schedule.to_string();
                return Err(CatalogError::NotFound { kind: "schedule", id });
            }
        }
        self.times.revision += 1;
        Ok(())
    }

    fn versions(&self, id: ScheduleId) -> impl DoubleEndedIterator<Item = &StoredSchedule> {
        self.schedules.iter().filter(move |known| known.id == id)
    }

    fn newest(&self) -> Vec<StoredSchedule> {
        let is_newest = |known: &&StoredSchedule| {
            self.versions(known.id).next_back().map(|newest| newest.version) == Some(known.version)
        };
        let mut newest: Vec<_> = self.schedules.iter().filter(is_newest).cloned().collect();
        newest.sort_by_key(|known| known.schedule.name.to_lowercase());
        newest
    }

    fn put(&mut self, new: &StoredSchedule) -> Result<(), CatalogError> {
        let newest = self.versions(new.id).next_back().map_or(0, |known| known.version.get());
        match self.versions(new.id).find(|known| known.version == new.version) {
            Some(known) if known == new => return Ok(()),
            None if new.version.get() - 1 == newest => {}
            _ => {
                let (id, found) = (new.id, new.version);
                return Err(CatalogError::ScheduleVersion { id, found, newest });
            }
        }
        let name = &new.schedule.name;
        let has_name = |known: &StoredSchedule| {
            known.id != new.id && known.schedule.name.to_lowercase() == name.to_lowercase()
        };
        if self.newest().iter().any(has_name) {
            return Err(CatalogError::NameTaken { what: Named::Schedule, name: name.clone() });
        }
        self.schedules.push(new.clone());
        self.take_note(None)
    }

    fn find(&self, id: AttachmentId) -> Option<usize> {
        self.ledgers.iter().position(|entry| entry.ledger.attachment == id)
    }

    fn settle(&mut self, settlement: &Settlement) -> Settling {
        let id = settlement.attachment;
        let place = self.find(id);
        let known = place.map(|place| &self.ledgers[place]);
        if known.map(|entry| entry.revision) != settlement.from {
            return Settling::Stale(known.cloned().map(Box::new));
        }
        if let Some(place) = place {
            self.ledgers.remove(place);
        }
        self.lapses.extend(settlement.lapses.iter().cloned());
        self.forget_lapses(|of| of == id);
        let Some(ledger) = settlement.to.clone() else {
            let attached: BTreeSet<_> =
                self.ledgers.iter().map(|entry| entry.ledger.attachment).collect();
            self.forget_lapses(|of| !attached.contains(&of));
            return Settling::Done(None);
        };
        self.entry += 1;
        self.ledgers.push(Entry { revision: self.entry, ledger });
        self.ledgers.sort_by_key(|entry| entry.ledger.attachment);
        Settling::Done(Some(self.entry))
    }

    /// The oldest lapses go, of those that are meant, where there are too many.
    fn forget_lapses(&mut self, are_meant: impl Fn(AttachmentId) -> bool) {
        let of_them = self.lapses.iter().filter(|lapse| are_meant(lapse.attachment)).count();
        let mut too_many = of_them.saturating_sub(LAPSES_KEPT as usize);
        self.lapses.retain(|lapse| {
            let goes = too_many > 0 && are_meant(lapse.attachment);
            too_many -= usize::from(goes);
            !goes
        });
    }

    /// Notes the job of a due time that is open and has none.
    fn note(&mut self, of: AttachmentId, due: DateTime<Utc>, job: JobId) {
        self.entry += 1;
        if let Some(place) = self.find(of) {
            let entry = &mut self.ledgers[place];
            entry.revision = self.entry;
            entry.ledger.unbegun(due).into_iter().for_each(|open| open.job = Some(job));
        }
    }
}

impl RedbStore {
    fn book(&self) -> Result<Book, CatalogError> {
        Ok(self.read(|transaction| read(&transaction.open_table(BOOK)?))?)
    }

    fn change<T>(
        &self,
        how: impl FnOnce(&mut Book) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        Ok(self.write(|transaction| change(transaction, how))?)
    }
}

#[async_trait]
impl ScheduleCatalog for RedbStore {
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Result<(), CatalogError> {
        self.change(|book| book.put(schedule))
    }

    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<StoredSchedule>, CatalogError> {
        let book = self.book()?;
        let mut versions = book.versions(id);
        let found = match version {
            Some(version) => versions.find(|known| known.version == version),
            None => versions.next_back(),
        };
        Ok(found.cloned())
    }

    async fn schedules(&self) -> Result<Vec<StoredSchedule>, CatalogError> {
        Ok(self.book()?.newest())
    }

    async fn remove_schedule(&self, id: ScheduleId) -> Result<(), CatalogError> {
        Ok(self.write(|transaction| {
            let groups = catalog::groups(transaction)?;
            let uses =
                |group: &&ResourceGroup| group.attachments.iter().any(|one| one.schedule == id);
            let groups: Vec<_> = groups.iter().filter(uses).map(|group| group.id).collect();
            if !groups.is_empty() {
                return Err(Stop::Answer(CatalogError::ScheduleInUse { id, groups }));
            }
            change(transaction, |book| {
                book.schedules.retain(|known| known.id != id);
                book.take_note(None)
            })
        })?)
    }

    async fn times(&self) -> Result<Times, CatalogError> {
        let book = self.book()?;
        let unbegun = book.ledgers.iter().filter(|entry| entry.ledger.is_unbegun());
        let unbegun = unbegun.map(|entry| entry.ledger.attachment).take(UNBEGUN_NAMED as usize);
        let mut times = book.times.clone();
        times.unbegun = unbegun.collect();
        Ok(times)
    }

    async fn ledgers(&self) -> Result<Vec<Entry>, CatalogError> {
        Ok(self.book()?.ledgers)
    }

    async fn ledger(&self, attachment: AttachmentId) -> Result<Option<Entry>, CatalogError> {
        let mut book = self.book()?;
        Ok(book.find(attachment).map(|place| book.ledgers.swap_remove(place)))
    }

    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Result<Vec<Settling>, CatalogError> {
        self.change(|book| {
            book.times.clock = book.times.clock.max(Some(now));
            Ok(settlements.iter().map(|settlement| book.settle(settlement)).collect())
        })
    }

    async fn begin_due(
        &self,
        job: &Job,
        of: AttachmentId,
        due: DateTime<Utc>,
    ) -> Result<Begun, CatalogError> {
        Ok(self.write(|transaction| {
            let mut book = read(&transaction.open_table(BOOK)?)?;
            let place = book.find(of);
            if place.and_then(|place| book.ledgers[place].ledger.unbegun(due)).is_none() {
                return Err(Stop::Answer(CatalogError::DueSettled { attachment: of, due }));
            }
            let begun = catalog::begin_job(transaction, job)?;
            change(transaction, |book| {
                book.note(of, due, begun.id(job));
                Ok(())
            })?;
            Ok(begun)
        })?)
    }

    async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, CatalogError> {
        let lapses = self.book()?.lapses.into_iter().rev();
        let wanted = lapses.filter(|lapse| of.is_none_or(|of| of == lapse.attachment));
        Ok(wanted.take(most as usize).collect())
    }

    async fn believe_clock(&self, now: DateTime<Utc>) -> Result<(), CatalogError> {
        self.change(|book| {
            book.times.clock = Some(now);
            book.times.believed += 1;
            for entry in book.ledgers.iter_mut().filter(|entry| entry.ledger.considered > now) {
                book.entry += 1;
                entry.revision = book.entry;
                entry.ledger.considered = now;
            }
            Ok(())
        })
    }
}
