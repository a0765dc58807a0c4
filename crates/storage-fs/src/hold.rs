//! Holds and locks: what keeps a settled snapshot from being removed. They stand in the set's record.

use chrono::{DateTime, Utc};
use stillpoint_context::Cx;
use stillpoint_model::id::{SnapshotRef, VolumeRef};
use stillpoint_storage::{HoldName, Keeps, ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::Wait;
use crate::format::{self, SetMember, SetRecord};
use crate::store::{LOCK, SET, Store, nothing_at};

/// A change of what keeps a snapshot.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Hold(HoldName),
    Release(HoldName),
    LockUntil(DateTime<Utc>),
}

impl Store {
    pub(crate) fn keeps(&self, snapshot: &SnapshotRef) -> ProviderResult<Keeps> {
        let (record, index) = self.snapshot_record(snapshot)?;
        let member = record.members.get(index);
        let holds = member.map(|member| member.holds.iter());
        let holds = holds.into_iter().flatten().filter_map(|name| HoldName::new(name).ok());
        Ok(Keeps::new(holds.collect(), member.and_then(|member| member.locked_until)))
    }

    /// Changes the record of a set, under its lock: nobody removes the set meanwhile.
    pub(crate) fn change_keeps(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        change: &Change,
    ) -> ProviderResult<()> {
        loop {
            let (record, _) = self.snapshot_record(snapshot)?;
            let folder = self.settled(&record.token);
            let lock = match self.disk.lock(&folder.join(LOCK), Wait::Yes) {
                Ok(lock) => lock,
                // Moved away meanwhile: it is not there any more.
                Err(_) if nothing_at(&folder)? => continue,
                Err(error) => {
                    return Err(ProviderError::io(
                        format_args!("lock {}", folder.display()),
                        error,
                    ));
                }
            };
            let (mut record, index) = self.snapshot_record(snapshot)?;
            let changed = match record.members.get_mut(index) {
                Some(member) => apply(member, change, snapshot, cx.now())?,
                None => false,
            };
            if changed {
                format::write(&self.disk, &folder.join(SET), &record, true)?;
            }
            drop(lock);
            return Ok(());
        }
    }

    /// Refuses to remove a set of which a member is kept.
    pub(crate) fn refuse_kept_set(&self, cx: &Cx, record: &SetRecord) -> ProviderResult<()> {
        for member in record.members.iter().filter(|member| !member.deleted) {
            let volume = self.snapshot_volume(&member.volume);
            refuse_kept(cx, member, &volume, record.token.as_str())?;
        }
        Ok(())
    }
}

/// Whether the change changes anything.
fn apply(
    member: &mut SetMember,
    change: &Change,
    snapshot: &SnapshotRef,
    now: DateTime<Utc>,
) -> ProviderResult<bool> {
    match change {
        Change::Hold(name) => Ok(member.holds.insert(name.to_string())),
        Change::Release(name) => Ok(member.holds.remove(name.as_str())),
        Change::LockUntil(until) => {
            let locked = member.locked_until.filter(|locked| *locked > now);
            if let Some(locked) = locked.filter(|locked| locked > until) {
                let text = format!(
                    "the snapshot {snapshot} is locked until {locked}, and a lock is not shortened"
                );
                return Err(ProviderError::new(ProviderErrorKind::Locked { until: locked }, text)
                    .with_volume(snapshot.volume.clone())
                    .without_effect());
            }
            if *until <= now {
                let text =
                    format!("the snapshot {snapshot} cannot be locked until {until}: it is over");
                return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                    .with_volume(snapshot.volume.clone())
                    .without_effect());
            }
            Ok(member.locked_until.replace(*until) != Some(*until))
        }
    }
}

/// Refuses to remove a snapshot that is held or locked. A lock counts first: nobody can end it.
pub(crate) fn refuse_kept(
    cx: &Cx,
    member: &SetMember,
    volume: &VolumeRef,
    id: &str,
) -> ProviderResult<()> {
    let refused = |kind, text: String| {
        Err(ProviderError::new(kind, text).with_volume(volume.clone()).without_effect())
    };
    if let Some(until) = member.locked_until.filter(|until| *until > cx.now()) {
        let text = format!("the snapshot {id} of {volume} is locked until {until}");
        return refused(ProviderErrorKind::Locked { until }, text);
    }
    if member.holds.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = member.holds.iter().map(String::as_str).collect();
    let text = format!("the snapshot {id} of {volume} is held for {}", names.join(", "));
    refused(ProviderErrorKind::Held, text)
}
