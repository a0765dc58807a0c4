//! Schedules as stored things: made, changed, attached to the policies of groups, looked ahead, taken away.

use chrono::{DateTime, Utc};
use stillpoint_catalog::CatalogError;
use stillpoint_model::group::{Attachment, ResourceGroup};
use stillpoint_model::id::{GroupId, PolicyId, ScheduleId};
use stillpoint_model::planning::PlanError;
use stillpoint_model::schedule::{
    AttachmentId, Firing, Ledger, RecordedLapse, Schedule, StoredSchedule,
};

use crate::Stillpoint;
use crate::draft::Draft;
use crate::error::Error;

/// How often a group is changed anew that others change at the same time.
const TRIES: u32 = 16;

/// A schedule on a policy of a group, with what is known of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Attached {
    /// Which.
    pub id: AttachmentId,
    /// The group's name.
    pub group: String,
    /// The policy's name; its id if it cannot be found.
    pub policy: String,
    /// Its ledger; none until a scheduler has seen it.
    pub ledger: Option<Ledger>,
    /// The next time at which it takes place; none if it is exhausted.
    pub next: Option<Firing>,
}

/// The time at which a schedule is due, or would be, and where.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Upcoming {
    /// Where; none for a schedule that is attached to nothing.
    pub attachment: Option<AttachmentId>,
    /// When, and what becomes of it.
    pub firing: Firing,
}

impl Attached {
    /// One that nothing more is known of. For tests of whoever shows them.
    pub fn new(id: AttachmentId, group: impl Into<String>, policy: impl Into<String>) -> Self {
        Self { id, group: group.into(), policy: policy.into(), ledger: None, next: None }
    }
}

impl Upcoming {
    /// A firing at a place. For tests of whoever shows them.
    pub const fn new(attachment: Option<AttachmentId>, firing: Firing) -> Self {
        Self { attachment, firing }
    }
}

impl Stillpoint {
    /// Stores a new schedule, as version 1.
    ///
    /// # Errors
    /// When it breaks a rule of its own (`schedule.zone_unknown`, `schedule.never_fires`, …), `schedule.name_taken`, and of the
    /// catalogue.
    pub async fn create_schedule(&self, schedule: Schedule) -> Result<StoredSchedule, Error> {
        schedule.check()?;
        let id = ScheduleId(self.seams().ids.uuid());
        let stored = StoredSchedule::new(id, self.seams().clock.now(), schedule);
        // Nothing hangs on it yet, and the catalogue looks at its name: to read all that there is for each of many would take long.
        self.services().catalog.put_schedule(&stored).await?;
        Ok(stored)
    }

    /// Changes a schedule, which makes its next version; one that says the same is left as it is. What was due before the change
    /// is due by the version before, also if nobody was there then.
    ///
    /// # Errors
    /// As [`create_schedule`](Self::create_schedule); `not_found`; `schedule.version_conflict` if somebody else changed it at
    /// the same time; `retention.snapshot_budget_exceeded` where what it is attached to would keep more snapshots of a volume
    /// than that can hold.
    pub async fn change_schedule(
        &self,
        id: ScheduleId,
        schedule: Schedule,
    ) -> Result<StoredSchedule, Error> {
        let known = self.schedule(id).await?.ok_or_else(|| no_schedule(id))?;
        if known.schedule == schedule {
            return Ok(known);
        }
        let next = known.edit(schedule, self.seams().clock.now())?;
        let draft = Draft { schedules: vec![next.clone()], ..Draft::default() };
        Ok(self.save_draft(&draft).await?.schedules.pop().unwrap_or(next))
    }

    /// The newest version of a schedule.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn schedule(&self, id: ScheduleId) -> Result<Option<StoredSchedule>, Error> {
        Ok(self.services().catalog.schedule(id, None).await?)
    }

    /// The newest version of every schedule, by name.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn schedules(&self) -> Result<Vec<StoredSchedule>, Error> {
        Ok(self.services().catalog.schedules().await?)
    }

    /// Removes a schedule. Jobs that it made stay, and so do the reasons of due times that became none.
    ///
    /// # Errors
    /// `schedule.in_use` while it is attached; of the catalogue.
    pub async fn remove_schedule(&self, id: ScheduleId) -> Result<(), Error> {
        self.end_strays_of(id).await?;
        Ok(self.services().catalog.remove_schedule(id).await?)
    }

    /// Removes a policy. Restore points made under it stay.
    ///
    /// # Errors
    /// `policy.in_use` while a group has it; of the catalogue.
    pub async fn remove_policy(&self, id: PolicyId) -> Result<(), Error> {
        Ok(self.services().catalog.remove_policy(id).await?)
    }

    /// Removes a group, with its attachments, as [`detach`](Self::detach) does. Its restore points stay.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn remove_group(&self, id: GroupId) -> Result<(), Error> {
        let before = self.group(id).await?;
        self.services().catalog.remove_group(id).await?;
        self.keep_ledgers(before.as_ref(), None).await
    }

    /// Has a schedule run a policy of a group from now on.
    ///
    /// # Errors
    /// `not_found`, `group.policy_missing`, `retention.snapshot_budget_exceeded`; of the catalogue.
    ///
    /// # Idempotence
    /// What is attached already stays as it is.
    pub async fn attach(&self, to: AttachmentId) -> Result<(), Error> {
        let (policy, schedule) = (to.policy, to.schedule);
        self.change_group(to.group, |group| {
            let attachment = Attachment { policy, schedule };
            if !group.attachments.contains(&attachment) {
                group.attachments.push(attachment);
            }
        })
        .await
        .map(drop)
    }

    /// Ends that. Jobs under way go on. A due time whose job has not begun, also one that nobody has looked at as no scheduler was
    /// there, becomes none, and that is its [reason](Self::lapses).
    ///
    /// # Errors
    /// `not_found` for the group; of the catalogue.
    ///
    /// # Idempotence
    /// What is not attached stays so.
    pub async fn detach(&self, from: AttachmentId) -> Result<(), Error> {
        let (policy, schedule) = (from.policy, from.schedule);
        self.change_group(from.group, |group| {
            group.attachments.retain(|known| *known != Attachment { policy, schedule });
        })
        .await
        .map(drop)
    }

    /// Everything that runs by itself: each attachment with its next time.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn attached(&self) -> Result<Vec<Attached>, Error> {
        let (groups, policies) = (self.groups().await?, self.policies().await?);
        let schedules = self.schedules().await?;
        let now = self.seams().clock.now();
        let mut all = Vec::new();
        for group in &groups {
            for id in AttachmentId::all_of(group) {
                let policy = policies.iter().find(|policy| policy.id == id.policy);
                let schedule = schedules.iter().find(|known| known.id == id.schedule);
                let entry = self.services().catalog.ledger(id).await?;
                all.push(Attached {
                    id,
                    group: group.name.clone(),
                    policy: policy
                        .map_or_else(|| id.policy.to_string(), |known| known.name.clone()),
                    ledger: entry.map(|entry| entry.ledger),
                    next: schedule.and_then(|known| known.attached(id).next(now)),
                });
            }
        }
        Ok(all)
    }

    /// The next times of a schedule after an instant, in order, each with what becomes of it: those that are shifted, skipped
    /// or in a blackout say why. Of one that is attached, with the jitter that each attachment has.
    ///
    /// # Errors
    /// `not_found`; of the catalogue.
    pub async fn preview(
        &self,
        id: ScheduleId,
        after: DateTime<Utc>,
        most: usize,
    ) -> Result<Vec<Upcoming>, Error> {
        let stored = self.schedule(id).await?.ok_or_else(|| no_schedule(id))?;
        let groups = self.groups().await?;
        let mut places: Vec<Option<AttachmentId>> = groups
            .iter()
            .flat_map(AttachmentId::all_of)
            .filter(|known| known.schedule == id)
            .map(Some)
            .collect();
        if places.is_empty() {
            places.push(None);
        }
        let mut upcoming = Vec::new();
        for attachment in places {
            let schedule =
                attachment.map_or_else(|| stored.schedule.clone(), |at| stored.attached(at));
            let firings = schedule.firings(after).take(most);
            upcoming.extend(firings.map(|firing| Upcoming { attachment, firing }));
        }
        upcoming.sort_by_key(|next| (next.firing.at, next.firing.due, next.attachment));
        upcoming.truncate(most);
        Ok(upcoming)
    }

    /// The due times that became no jobs, newest first: of one attachment, or of all, also of those that are not attached any more.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn lapses(
        &self,
        of: Option<AttachmentId>,
        most: u32,
    ) -> Result<Vec<RecordedLapse>, Error> {
        Ok(self.services().catalog.lapses(of, most).await?)
    }

    /// Says that the clock is right although it has gone back: schedulers go on from now. What is due from now on is due, also if
    /// it was due already in the time that the clock had gone ahead; jobs that exist are not made again.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn believe_clock(&self) -> Result<(), Error> {
        Ok(self.services().catalog.believe_clock(self.seams().clock.now()).await?)
    }

    /// Changes a group, as often as somebody else changes it at the same time, and gives it as it is then. What changes nothing is
    /// not stored.
    ///
    /// # Errors
    /// `not_found`; `group.version_conflict` if others change it all the time; otherwise as [`save_group`](Self::save_group).
    pub async fn change_group(
        &self,
        id: GroupId,
        change: impl Fn(&mut ResourceGroup),
    ) -> Result<ResourceGroup, Error> {
        let mut tries = 0;
        loop {
            let known = self.group_of(id).await?;
            let mut next = known.clone();
            change(&mut next);
            if next == known {
                return Ok(known);
            }
            let next = known.edit(next).map_err(PlanError::Group)?;
            tries += 1;
            match self.save_group(&next).await {
                Err(Error::Catalog(CatalogError::GroupVersion { .. })) if tries < TRIES => {}
                saved => return saved.map(|()| next),
            }
        }
    }

    async fn group_of(&self, id: GroupId) -> Result<ResourceGroup, Error> {
        self.group(id)
            .await?
            .ok_or_else(|| Error::NotFound { kind: "resource group", id: id.to_string() })
    }
}

fn no_schedule(id: ScheduleId) -> Error {
    Error::NotFound { kind: "schedule", id: id.to_string() }
}
