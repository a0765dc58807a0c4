//! Holds and locks of simulated snapshots: for a provider whose capabilities have `lock`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::Cx;
use stillpoint_model::id::SnapshotRef;
use stillpoint_storage::{
    HoldName, Keeps, ProviderError, ProviderErrorKind, ProviderResult, SnapshotLock,
};

use super::SimStorage;
use crate::world::array::refuse;
use crate::world::state::{Entry, SimSnapshot, State};

impl State {
    /// One of our snapshots.
    fn ours(&mut self, snapshot: &SnapshotRef) -> ProviderResult<&mut SimSnapshot> {
        let found = self.snapshot_mut(snapshot).filter(|found| found.token.is_some());
        found.ok_or_else(|| {
            let message = format!("there is no snapshot {snapshot} of ours");
            refuse(ProviderErrorKind::NotFound, message).with_volume(snapshot.volume.clone())
        })
    }

    fn lock_until(
        &mut self,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> ProviderResult<()> {
        let known = self.ours(snapshot)?;
        if until <= now {
            return Err(refuse(ProviderErrorKind::Invalid, format!("{until} is over")));
        }
        if let Some(locked) = known.locked_until.filter(|locked| *locked > until) {
            let message = format!("{snapshot} is locked until {locked}");
            return Err(refuse(ProviderErrorKind::Locked { until: locked }, message));
        }
        known.locked_until = Some(until);
        Ok(())
    }
}

#[async_trait]
impl SnapshotLock for SimStorage {
    async fn hold(&self, cx: &Cx, snapshot: &SnapshotRef, name: &HoldName) -> ProviderResult<()> {
        let (wanted, name) = (snapshot.clone(), name.clone());
        let effect = move |state: &mut State, _: &Entry| {
            state.ours(&wanted)?.holds.insert(name.clone());
            Ok(())
        };
        self.perform(cx, "lock.hold", snapshot.to_string(), effect).await
    }

    async fn release(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        name: &HoldName,
    ) -> ProviderResult<()> {
        let (wanted, name) = (snapshot.clone(), name.clone());
        let effect = move |state: &mut State, _: &Entry| {
            state.ours(&wanted)?.holds.remove(&name);
            Ok(())
        };
        self.perform(cx, "lock.release", snapshot.to_string(), effect).await
    }

    async fn lock(
        &self,
        cx: &Cx,
        snapshot: &SnapshotRef,
        until: DateTime<Utc>,
    ) -> ProviderResult<()> {
        let wanted = snapshot.clone();
        let effect =
            move |state: &mut State, entry: &Entry| state.lock_until(&wanted, until, entry.at.at);
        self.perform(cx, "lock.lock", snapshot.to_string(), effect).await
    }

    async fn keeps(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Keeps> {
        let wanted = snapshot.clone();
        let effect = move |state: &mut State, entry: &Entry| {
            let known = state.ours(&wanted)?;
            let locked = known.locked_until.filter(|until| *until > entry.at.at);
            Ok::<_, ProviderError>(Keeps::new(known.holds.clone(), locked))
        };
        self.perform(cx, "lock.keeps", snapshot.to_string(), effect).await
    }
}
