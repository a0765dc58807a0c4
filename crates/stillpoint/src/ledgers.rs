//! The ledgers of attachments: begun with them, and ended with them so that no due time is lost.
//!
//! ```text
//!   attached ─▶ Ledger ── considered ──────────── now: detached
//!                 open: job, job, ─┐     │ due, due │
//!                                  └─────┴── lapse ─┴─▶ in the commit that removes the ledger
//! ```

use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use stillpoint_catalog::{Catalog, CatalogError, Entry, Settlement, Settling};
use stillpoint_context::{ErrorClass, Failure};
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::ScheduleId;
use stillpoint_model::schedule::{AttachmentId, Lapse, Ledger, RecordedLapse, StoredSchedule};

use crate::Stillpoint;
use crate::error::Error;

/// How often a ledger that somebody else writes at the same time is tried again.
const TRIES: u32 = 16;

/// The versions of a schedule from one on, in order; none of one that is gone.
pub(crate) async fn versions(
    catalog: &dyn Catalog,
    of: ScheduleId,
    from: NonZeroU32,
) -> Result<Vec<StoredSchedule>, CatalogError> {
    let Some(newest) = catalog.schedule(of, None).await? else { return Ok(Vec::new()) };
    let (mut versions, mut version) = (Vec::new(), from);
    while version < newest.version {
        versions.extend(catalog.schedule(of, Some(version)).await?);
        version = version.saturating_add(1);
    }
    versions.push(newest);
    Ok(versions)
}

fn recorded(of: AttachmentId, now: DateTime<Utc>, lapses: Vec<Lapse>) -> Vec<RecordedLapse> {
    lapses.into_iter().map(|lapse| RecordedLapse::new(of, now, lapse)).collect()
}

/// What ends a ledger: what is due by now and has no job has its reason from then on.
pub(crate) async fn ending(
    catalog: &dyn Catalog,
    entry: &Entry,
    now: DateTime<Utc>,
) -> Result<Settlement, CatalogError> {
    let Entry { revision, ledger } = entry;
    let attachment = ledger.attachment;
    let versions = versions(catalog, attachment.schedule, ledger.version).await?;
    let lapses = recorded(attachment, now, ledger.detach(&versions, now));
    Ok(Settlement { attachment, from: Some(*revision), to: None, lapses })
}

/// What begins a ledger. One that is there was left by somebody who detached it and died: what was to begin by then begins, and what
/// was due since has its reason.
async fn beginning(
    catalog: &dyn Catalog,
    attachment: AttachmentId,
    version: NonZeroU32,
    known: Option<&Entry>,
    now: DateTime<Utc>,
) -> Result<Settlement, CatalogError> {
    let mut ledger = Ledger::new(attachment, version, now);
    let mut lapses = Vec::new();
    if let Some(Entry { ledger: known, .. }) = known {
        let versions = versions(catalog, attachment.schedule, known.version).await?;
        lapses = recorded(attachment, now, known.pass(&versions, now));
        ledger.open.clone_from(&known.open);
        ledger.considered = known.considered.max(now);
    }
    let from = known.map(|entry| entry.revision);
    Ok(Settlement { attachment, from, to: Some(ledger), lapses })
}

async fn is_settled(
    catalog: &dyn Catalog,
    now: DateTime<Utc>,
    settlement: Settlement,
) -> Result<bool, CatalogError> {
    let answers = catalog.settle(now, &[settlement]).await?;
    Ok(matches!(answers.first(), Some(Settling::Done(_))))
}

fn contended(attachment: AttachmentId) -> Error {
    let message = format!("the ledger of {attachment} changes faster than it can be read");
    let failure = Failure::new("schedule.contended", ErrorClass::Busy, message)
        .with_retryable(true)
        .with_remedy("Ask again.");
    failure.into()
}

impl Stillpoint {
    /// Begins the ledgers of what is attached now, and ends those of what is not any more.
    pub(crate) async fn keep_ledgers(
        &self,
        before: Option<&ResourceGroup>,
        after: Option<&ResourceGroup>,
    ) -> Result<(), Error> {
        let ids = |group: Option<&ResourceGroup>| -> Vec<AttachmentId> {
            group.into_iter().flat_map(AttachmentId::all_of).collect()
        };
        let (before, after) = (ids(before), ids(after));
        for gone in before.iter().filter(|id| !after.contains(id)) {
            self.end_ledger(*gone).await?;
        }
        for new in after.iter().filter(|id| !before.contains(id)) {
            self.begin_ledger(*new).await?;
        }
        Ok(())
    }

    /// Ends what is left of a schedule that is about to go by somebody who detached it and died: without its versions nobody could
    /// say what was due.
    pub(crate) async fn end_strays_of(&self, schedule: ScheduleId) -> Result<(), Error> {
        let catalog = &self.services().catalog;
        let groups = catalog.groups().await?;
        let attached: Vec<_> = groups.iter().flat_map(AttachmentId::all_of).collect();
        for Entry { ledger: Ledger { attachment, .. }, .. } in catalog.ledgers().await? {
            if attachment.schedule == schedule && !attached.contains(&attachment) {
                self.end_ledger(attachment).await?;
            }
        }
        Ok(())
    }

    async fn end_ledger(&self, attachment: AttachmentId) -> Result<(), Error> {
        let catalog = &*self.services().catalog;
        for _ in 0..TRIES {
            let Some(known) = catalog.ledger(attachment).await? else { return Ok(()) };
            let now = self.seams().clock.now();
            if is_settled(catalog, now, ending(catalog, &known, now).await?).await? {
                return Ok(());
            }
        }
        Err(contended(attachment))
    }

    async fn begin_ledger(&self, attachment: AttachmentId) -> Result<(), Error> {
        let catalog = &*self.services().catalog;
        let Some(schedule) = self.schedule(attachment.schedule).await? else { return Ok(()) };
        for _ in 0..TRIES {
            let known = catalog.ledger(attachment).await?;
            let (version, now) = (schedule.version, self.seams().clock.now());
            let new = beginning(catalog, attachment, version, known.as_ref(), now).await?;
            if is_settled(catalog, now, new).await? {
                return Ok(());
            }
        }
        Err(contended(attachment))
    }
}
