//! Schedules in memory.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::{GroupId, ScheduleId};
use stillpoint_model::job::Job;
use stillpoint_model::schedule::{AttachmentId, Ledger, RecordedLapse, StoredSchedule};

use super::MemoryCatalog;
use crate::catalog::Begun;
use crate::error::{CatalogError, Named};
use crate::query::fold;
use crate::schedules::{
    Entry, LAPSES_KEPT, ScheduleCatalog, Settlement, Settling, Times, UNBEGUN_NAMED,
};

/// Schedules and their ledgers.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    versions: BTreeMap<ScheduleId, BTreeMap<NonZeroU32, StoredSchedule>>,
    ledgers: BTreeMap<AttachmentId, Entry>,
    /// With the number of each, so that all can be put in the order of their making.
    lapses: BTreeMap<AttachmentId, VecDeque<(u64, RecordedLapse)>>,
    lapse: u64,
    entry: u64,
    revision: u64,
    clock: Option<DateTime<Utc>>,
    believed: u64,
}

impl Schedules {
    /// Whether the schedules of a group exist.
    pub(super) fn check(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        match group.attachments.iter().find(|one| !self.versions.contains_key(&one.schedule)) {
            Some(one) => {
                let id = one.schedule.to_string();
                Err(CatalogError::NotFound { kind: "schedule", id })
            }
            None => Ok(()),
        }
    }

    pub(super) fn note_change(&mut self) {
        self.revision += 1;
    }

    fn put(&mut self, schedule: &StoredSchedule) -> Result<(), CatalogError> {
        let (id, found) = (schedule.id, schedule.version);
        let versions = self.versions.get(&id);
        let newest = versions.and_then(|known| known.keys().next_back()).map_or(0, |v| v.get());
        match versions.and_then(|versions| versions.get(&found)) {
            Some(known) if known == schedule => return Ok(()),
            None if found.get() - 1 == newest => {}
            _ => return Err(CatalogError::ScheduleVersion { id, found, newest }),
        }
        let name = &schedule.schedule.name;
        let taken = self.versions.iter().any(|(other, versions)| {
            let newest = versions.values().next_back();
            *other != id && newest.is_some_and(|known| fold(&known.schedule.name) == fold(name))
        });
        if taken {
            return Err(CatalogError::NameTaken { what: Named::Schedule, name: name.clone() });
        }
        self.versions.entry(id).or_default().insert(found, schedule.clone());
        self.note_change();
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Settling {
        let id = settlement.attachment;
        let known = self.ledgers.get(&id);
        if known.map(|entry| entry.revision) != settlement.from {
            return Settling::Stale(known.cloned().map(Box::new));
        }
        let Some(ledger) = &settlement.to else {
            self.ledgers.remove(&id);
            self.note_lapses(settlement);
            self.forget_lapses();
            return Settling::Done(None);
        };
        let revision = self.put_ledger(ledger.clone());
        self.note_lapses(settlement);
        Settling::Done(Some(revision))
    }

    fn put_ledger(&mut self, ledger: Ledger) -> u64 {
        self.entry += 1;
        let revision = self.entry;
        self.ledgers.insert(ledger.attachment, Entry { revision, ledger });
        revision
    }

    fn note_lapses(&mut self, settlement: &Settlement) {
        let id = settlement.attachment;
        let lapses = self.lapses.entry(id).or_default();
        for lapse in &settlement.lapses {
            self.lapse += 1;
            lapses.push_back((self.lapse, lapse.clone()));
        }
        let most = usize::try_from(LAPSES_KEPT).unwrap_or(usize::MAX);
        lapses.drain(..lapses.len().saturating_sub(most));
    }

    /// Of the lapses of what has no ledger any more the oldest go.
    fn forget_lapses(&mut self) {
        let Self { ledgers, lapses, .. } = self;
        let is_gone = |id: &AttachmentId| !ledgers.contains_key(id);
        let gone = lapses.iter().filter(|(id, _)| is_gone(id)).flat_map(|(_, lapses)| lapses);
        let mut numbers: Vec<u64> = gone.map(|(number, _)| *number).collect();
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        let most = usize::try_from(LAPSES_KEPT).unwrap_or(usize::MAX);
        let Some(last) = numbers.get(most).copied() else { return };
        lapses.retain(|id, lapses| {
            if is_gone(id) {
                lapses.retain(|(number, _)| *number > last);
            }
            !lapses.is_empty()
        });
    }
}

#[async_trait]
impl ScheduleCatalog for MemoryCatalog {
    async fn put_schedule(&self, schedule: &StoredSchedule) -> Result<(), CatalogError> {
        self.state().schedules.put(schedule)
    }

    async fn schedule(
        &self,
        id: ScheduleId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<StoredSchedule>, CatalogError> {
        let state = self.state();
        let versions = state.schedules.versions.get(&id);
        let found = versions.and_then(|versions| match version {
            Some(version) => versions.get(&version),
            None => versions.values().next_back(),
        });
        Ok(found.cloned())
    }

    async fn schedules(&self) -> Result<Vec<StoredSchedule>, CatalogError> {
        let state = self.state();
        let all = state.schedules.versions.values();
        let mut newest: Vec<StoredSchedule> =
            all.filter_map(|versions| versions.values().next_back()).cloned().collect();
        newest.sort_by_key(|known| fold(&known.schedule.name));
        Ok(newest)
    }

    async fn remove_schedule(&self, id: ScheduleId) -> Result<(), CatalogError> {
        let mut state = self.state();
        let uses = |group: &&ResourceGroup| group.attachments.iter().any(|one| one.schedule == id);
        let groups: Vec<GroupId> =
            state.groups.values().filter(uses).map(|group| group.id).collect();
        if !groups.is_empty() {
            return Err(CatalogError::ScheduleInUse { id, groups });
        }
        state.schedules.versions.remove(&id);
        state.schedules.note_change();
        Ok(())
    }

    async fn times(&self) -> Result<Times, CatalogError> {
        let state = self.state();
        let Schedules { ledgers, revision, clock, believed, .. } = &state.schedules;
        let most = usize::try_from(UNBEGUN_NAMED).unwrap_or(usize::MAX);
        let unbegun = ledgers.iter().filter(|(_, entry)| entry.ledger.is_unbegun());
        let unbegun = unbegun.map(|(id, _)| *id).take(most).collect();
        Ok(Times { revision: *revision, clock: *clock, believed: *believed, unbegun })
    }

    async fn ledgers(&self) -> Result<Vec<Entry>, CatalogError> {
        Ok(self.state().schedules.ledgers.values().cloned().collect())
    }

    async fn ledger(&self, attachment: AttachmentId) -> Result<Option<Entry>, CatalogError> {
        Ok(self.state().schedules.ledgers.get(&attachment).cloned())
    }

    async fn settle(
        &self,
        now: DateTime<Utc>,
        settlements: &[Settlement],
    ) -> Result<Vec<Settling>, CatalogError> {
        let mut state = self.state();
        let all = &mut state.schedules;
        all.clock = all.clock.max(Some(now));
        Ok(settlements.iter().map(|settlement| all.settle(settlement)).collect())
    }

    async fn begin_due(
        &self,
        job: &Job,
        of: AttachmentId,
        due: DateTime<Utc>,
    ) -> Result<Begun, CatalogError> {
        let mut state = self.state();
        let mut ledger = state.schedules.ledgers.get(&of).map(|entry| entry.ledger.clone());
        let Some(open) = ledger.as_mut().and_then(|ledger| ledger.unbegun(due)) else {
            return Err(CatalogError::DueSettled { attachment: of, due });
        };
        let begun = state.begin_job(job)?;
        open.job = Some(begun.id(job));
        ledger.map(|ledger| state.schedules.put_ledger(ledger));
        Ok(begun)
    }

    async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, CatalogError> {
        let state = self.state();
        let wanted = state.schedules.lapses.iter().filter(|(id, _)| of.is_none_or(|of| of == **id));
        let mut found: Vec<&(u64, RecordedLapse)> = wanted.flat_map(|(_, lapses)| lapses).collect();
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(found.into_iter().take(most).map(|(_, lapse)| lapse.clone()).collect())
    }

    async fn believe_clock(&self, now: DateTime<Utc>) -> Result<(), CatalogError> {
        let mut state = self.state();
        let all = &mut state.schedules;
        all.clock = Some(now);
        all.believed += 1;
        for entry in all.ledgers.values_mut().filter(|entry| entry.ledger.considered > now) {
            all.entry += 1;
            entry.revision = all.entry;
            entry.ledger.considered = now;
        }
        Ok(())
    }
}
