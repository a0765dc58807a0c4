//! What a scheduler knows of the store: what is attached, with its ledger, in a timetable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use stillpoint_catalog::{Catalog, Entry, Settlement, Settling, Times};
use stillpoint_model::id::ScheduleId;
use stillpoint_model::schedule::{
    AttachmentId, Lapse, Ledger, OpenDue, Regress, StoredSchedule, Timetable,
};

use super::{SchedulerOptions, delta};
use crate::error::Error;
use crate::ledgers::ending;

/// How often the store is read again where it changes while it is read.
const TRIES: u32 = 8;

/// What is attached.
#[derive(Debug)]
pub(super) struct Book {
    options: SchedulerOptions,
    table: Timetable,
    lines: HashMap<String, Line>,
    /// What was last read of the store; none if it is to be read anew.
    revision: Option<u64>,
    believed: u64,
}

#[derive(Debug)]
struct Line {
    attachment: AttachmentId,
    stored: Arc<StoredSchedule>,
    entry: Entry,
}

/// What came due, or is no longer to come, of one attachment.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) stored: Arc<StoredSchedule>,
    /// The entry that it is to be settled in.
    pub(super) entry: Entry,
    /// Up to when all is in here.
    pub(super) considered: DateTime<Utc>,
    pub(super) due: Vec<OpenDue>,
    pub(super) lapses: Vec<Lapse>,
}

/// What a look at the clock gives.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) batches: Vec<Batch>,
    pub(super) wake: Option<DateTime<Utc>>,
    pub(super) regress: Option<Regress>,
}

fn table(options: &SchedulerOptions) -> Timetable {
    Timetable::new().with_grace(delta(options.grace)).with_tolerance(delta(options.tolerance))
}

/// Ends the ledgers of what is not attached: somebody detached it, and died or has not come to it yet. Whether they are gone.
async fn remove_stray(
    catalog: &dyn Catalog,
    wanted: &BTreeSet<AttachmentId>,
    entries: &mut BTreeMap<AttachmentId, Entry>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut removals = Vec::new();
    for (_, stray) in entries.iter().filter(|(id, _)| !wanted.contains(id)) {
        removals.push(ending(catalog, stray, now).await?);
    }
    if removals.is_empty() {
        return Ok(true);
    }
    let answers = catalog.settle(now, &removals).await?;
    entries.retain(|id, _| wanted.contains(id));
    Ok(answers.iter().all(|answer| !matches!(answer, Settling::Stale(Some(_)))))
}

impl Book {
    pub(super) fn new(options: SchedulerOptions) -> Self {
        let table = table(&options);
        Self { options, table, lines: HashMap::new(), revision: None, believed: 0 }
    }

    /// How many schedules are attached.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Has the store read anew: what is known may not be what is there.
    pub(super) fn doubt(&mut self) {
        self.lines.clear();
        self.table = table(&self.options);
        self.revision = None;
    }

    /// Reads what is new. Gives what has to be settled as a schedule was changed.
    pub(super) async fn read(
        &mut self,
        catalog: &dyn Catalog,
        times: &Times,
        now: DateTime<Utc>,
    ) -> Result<Vec<Batch>, Error> {
        if times.believed != self.believed {
            self.doubt();
        }
        if let Some(clock) = times.clock {
            self.table.has_seen(clock);
        }
        if self.revision == Some(times.revision) {
            return Ok(Vec::new());
        }
        let mut revision = times.revision;
        for _ in 0..TRIES {
            let schedules = catalog.schedules().await?;
            let groups = catalog.groups().await?;
            let entries = catalog.ledgers().await?;
            let after = catalog.times().await?;
            if after.revision != revision {
                revision = after.revision;
                continue;
            }
            let schedules: BTreeMap<ScheduleId, Arc<StoredSchedule>> =
                schedules.into_iter().map(|known| (known.id, Arc::new(known))).collect();
            let wanted: BTreeSet<AttachmentId> =
                groups.iter().flat_map(AttachmentId::all_of).collect();
            let mut entries: BTreeMap<AttachmentId, Entry> =
                entries.into_iter().map(|entry| (entry.ledger.attachment, entry)).collect();
            let are_gone = remove_stray(catalog, &wanted, &mut entries, now).await?;
            let batches = self.take_in(catalog, &schedules, &wanted, entries, now).await?;
            // What somebody else has changed meanwhile is looked at again.
            (self.revision, self.believed) = (are_gone.then_some(revision), times.believed);
            return Ok(batches);
        }
        // It changes all the time; the next turn may have more luck.
        Ok(Vec::new())
    }

    async fn take_in(
        &mut self,
        catalog: &dyn Catalog,
        schedules: &BTreeMap<ScheduleId, Arc<StoredSchedule>>,
        wanted: &BTreeSet<AttachmentId>,
        mut entries: BTreeMap<AttachmentId, Entry>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Batch>, Error> {
        self.begin_missing(catalog, schedules, wanted, &mut entries, now).await?;
        let (table, lines) = (&mut self.table, &mut self.lines);
        lines.retain(|name, line| {
            let stays = entries.contains_key(&line.attachment);
            if !stays {
                table.remove(name);
            }
            stays
        });
        let mut batches = Vec::new();
        for (attachment, entry) in entries {
            let Some(stored) = schedules.get(&attachment.schedule) else { continue };
            let name = attachment.to_string();
            let same = self.lines.get(&name).is_some_and(|line| {
                line.entry.revision == entry.revision && line.stored.version == stored.version
            });
            if same {
                continue;
            }
            if entry.ledger.version < stored.version {
                batches.push(self.catch_up(catalog, stored, &entry, now).await?);
            }
            self.put(attachment, Arc::clone(stored), entry);
        }
        Ok(batches)
    }

    /// What is attached and has no ledger: somebody attached it and died, or has not come to it yet.
    async fn begin_missing(
        &self,
        catalog: &dyn Catalog,
        schedules: &BTreeMap<ScheduleId, Arc<StoredSchedule>>,
        wanted: &BTreeSet<AttachmentId>,
        entries: &mut BTreeMap<AttachmentId, Entry>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let new: Vec<Settlement> = wanted
            .iter()
            .filter(|id| !entries.contains_key(id))
            .filter_map(|id| {
                let version = schedules.get(&id.schedule)?.version;
                let to = Some(Ledger::new(*id, version, now));
                Some(Settlement { attachment: *id, from: None, to, lapses: Vec::new() })
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let answers = catalog.settle(now, &new).await?;
        for (settlement, answer) in new.into_iter().zip(answers) {
            let entry = match answer {
                Settling::Done(Some(revision)) => {
                    settlement.to.map(|ledger| Entry { revision, ledger })
                }
                Settling::Stale(entry) => entry.map(|entry| *entry),
                Settling::Done(None) => None,
            };
            entries.extend(entry.map(|entry| (settlement.attachment, entry)));
        }
        Ok(())
    }

    /// What was due by older versions of a schedule, each until the next was made.
    async fn catch_up(
        &self,
        catalog: &dyn Catalog,
        stored: &Arc<StoredSchedule>,
        entry: &Entry,
        now: DateTime<Utc>,
    ) -> Result<Batch, Error> {
        let attachment = entry.ledger.attachment;
        let (mut considered, mut due, mut lapses) =
            (entry.ledger.considered, Vec::new(), Vec::new());
        let mut version = entry.ledger.version;
        let mut old = catalog.schedule(stored.id, Some(version)).await?;
        while version < stored.version {
            let next = version.saturating_add(1);
            let newer = if next == stored.version {
                Some(StoredSchedule::clone(stored))
            } else {
                catalog.schedule(stored.id, Some(next)).await?
            };
            let since = newer.as_ref().map_or(considered, |newer| newer.since);
            if let Some(old) = &old {
                let closed = old.attached(attachment);
                let settled = closed.close(considered, since, now, self.table.grace());
                let name = &old.schedule.name;
                due.extend(settled.due.iter().map(|due| OpenDue::new(due, name, version)));
                lapses.extend(settled.lapses);
            }
            considered = considered.max(since);
            (version, old) = (next, newer);
        }
        let (stored, entry) = (Arc::clone(stored), entry.clone());
        Ok(Batch { stored, entry, considered, due, lapses })
    }

    fn put(&mut self, attachment: AttachmentId, stored: Arc<StoredSchedule>, entry: Entry) {
        let name = attachment.to_string();
        let schedule = stored.attached(attachment);
        if let Err(error) = self.table.put(schedule, entry.ledger.considered) {
            // It was checked before it was stored; only another version of the rules can have changed its mind.
            tracing::error!(%attachment, %error, "a schedule that is stored cannot be used");
            self.table.remove(&name);
        }
        self.lines.insert(name, Line { attachment, stored, entry });
    }

    /// Takes over how an entry is stored now; none if it is gone.
    pub(super) fn learn(&mut self, attachment: AttachmentId, entry: Option<Entry>) {
        let name = attachment.to_string();
        match (entry, self.lines.get_mut(&name)) {
            (Some(entry), Some(line)) if entry.ledger.version >= line.stored.version => {
                if self.table.considered(&name) == Some(entry.ledger.considered) {
                    // As it was settled here: the timetable has it already.
                    line.entry = entry;
                } else {
                    let stored = Arc::clone(&line.stored);
                    self.put(attachment, stored, entry);
                }
            }
            // It is gone, or somebody knows another version of its schedule.
            _ => {
                self.lines.remove(&name);
                self.table.remove(&name);
                self.revision = None;
            }
        }
    }

    /// Whether the store has to be read anew before anything is due.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.revision.is_none()
    }

    /// What is known of an attachment.
    pub(super) fn entry(&self, attachment: AttachmentId) -> Option<&Entry> {
        self.lines.get(&attachment.to_string()).map(|line| &line.entry)
    }

    /// What is due by now. What is given is considered here from then on, and settled in the store or [doubted](Self::doubt).
    pub(super) fn look(&mut self, now: DateTime<Utc>) -> Looked {
        let tick = self.table.tick(now);
        let mut batches: BTreeMap<String, Batch> = BTreeMap::new();
        for (name, considered) in tick.considered {
            let Some(line) = self.lines.get(&name) else { continue };
            let (stored, entry) = (Arc::clone(&line.stored), line.entry.clone());
            let (due, lapses) = (Vec::new(), Vec::new());
            batches.insert(name, Batch { stored, entry, considered, due, lapses });
        }
        for due in tick.due {
            if let Some(batch) = batches.get_mut(&due.schedule) {
                let stored = &batch.stored;
                batch.due.push(OpenDue::new(&due, &stored.schedule.name, stored.version));
            }
        }
        for (name, lapse) in tick.lapses {
            batches.entry(name).and_modify(|batch| batch.lapses.push(lapse));
        }
        let batches = batches.into_values().collect();
        Looked { batches, wake: tick.wake, regress: tick.regress }
    }
}
