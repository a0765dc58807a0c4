//! The storage side of a world: prepared sets, snapshots in flight and taken, removal, exposure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_model::handover::{Member, MemberRole, NativeSnapshot, Prepared, PreparedMember};
use stillpoint_model::id::{ProviderId, SetToken, SnapshotId, SnapshotRef, VolumeRef};
use stillpoint_model::seal::SealWriter;
use stillpoint_storage::{
    Deleted, Discarded, Found, Listing, PrepareSpec, ProviderCaps, ProviderError,
    ProviderErrorKind, ProviderResult, Snapshot, SnapshotFile,
};

use super::state::{Entry, Event, Flight, SetPhase, SimSet, SimSnapshot, SimVolume, State, Taken};
use crate::moment::Moment;

pub(crate) fn refuse(kind: ProviderErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError::new(kind, message).without_effect()
}

fn no_volume(volume: &VolumeRef) -> ProviderError {
    refuse(ProviderErrorKind::NotFound, format!("there is no volume {volume}"))
        .with_volume(volume.clone())
}

/// How a simulated storage behaves beyond what its capabilities say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Behaviour {
    /// A commit takes data members before log members (S9). Without it each comes when it is ready, and a set that is not
    /// frozen may be torn.
    pub data_first: bool,
    /// `discard` stops a snapshot in flight. Without it the snapshot still appears, and `discard` says until when to watch.
    pub stops_flights: bool,
    /// Deleting takes this long.
    pub deletes_in: Duration,
    /// So many snapshots on a page of `list`.
    pub page: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { data_first: true, stops_flights: false, deletes_in: Duration::ZERO, page: 100 }
    }
}

/// A commit that was begun: its members, and when the last of them is there.
#[derive(Debug, Clone)]
pub(crate) struct Committing {
    pub(crate) members: Vec<Member>,
    pub(crate) until: Moment,
}

impl State {
    pub(crate) fn volume_of(
        &self,
        provider: &ProviderId,
        volume: &VolumeRef,
    ) -> ProviderResult<&SimVolume> {
        let ours = volume.provider == *provider;
        self.volumes.get(volume).filter(|_| ours).ok_or_else(|| no_volume(volume))
    }

    pub(crate) fn prepare(
        &mut self,
        entry: &Entry,
        spec: &PrepareSpec,
        caps: &ProviderCaps,
    ) -> ProviderResult<Prepared> {
        if spec.members.is_empty() {
            return Err(refuse(ProviderErrorKind::Invalid, "a set needs a volume"));
        }
        if caps.max_volumes.is_some_and(|most| spec.members.len() > most.get() as usize) {
            return Err(ProviderError::unsupported("max_volumes"));
        }
        if spec.limit.is_some() && !caps.instant {
            return Err(ProviderError::unsupported("instant"));
        }
        let mut worst = Duration::ZERO;
        let mut members = Vec::new();
        for member in &spec.members {
            let disk = self.volume_of(&caps.provider, &member.volume)?;
            worst = worst.max(disk.worst);
            members.push(
                PreparedMember::new(member.volume.clone(), member.role)
                    .with_device(disk.device.clone()),
            );
            if disk.full {
                let message = format!("there is no room on {}", member.volume);
                return Err(
                    refuse(ProviderErrorKind::NoSpace, message).with_volume(member.volume.clone())
                );
            }
            if disk.holds_another(spec.token.as_str(), &spec.token) {
                let message =
                    format!("{} has a snapshot {} that is not ours", member.volume, spec.token);
                return Err(refuse(ProviderErrorKind::NameTaken, message)
                    .with_volume(member.volume.clone()));
            }
            if let (false, Some(limit)) = (disk.has_room(), disk.limit) {
                let limit = u64::from(limit.get());
                let message = format!("{} has {limit} snapshots of {limit}", member.volume);
                return Err(refuse(ProviderErrorKind::SnapshotLimit { limit }, message)
                    .with_volume(member.volume.clone()));
            }
        }
        if let Some(limit) = spec.limit.filter(|limit| worst > *limit) {
            let kind = ProviderErrorKind::TooSlow { worst_case: worst, limit };
            let message = format!("a commit may take {worst:?}, the limit is {limit:?}");
            return Err(refuse(kind, message));
        }
        for member in &spec.members {
            self.render_volume(&member.volume, entry.at);
            for file in &member.files {
                let found = self.locate(file);
                let Some((_, inside)) = found.filter(|(volume, _)| *volume == member.volume) else {
                    let message = format!("{file} does not lie on {}", member.volume);
                    return Err(refuse(ProviderErrorKind::PathEscapes, message));
                };
                let disk = self.volume_of(&caps.provider, &member.volume)?;
                if !disk.files.contains_key(&disk.key(&inside)) {
                    let message = format!("{file} is not there");
                    return Err(refuse(ProviderErrorKind::Vanished, message));
                }
            }
        }
        let key = (caps.provider.clone(), spec.token.clone());
        let round = self.sets.get(&key).map_or(1, |set| set.round + 1);
        if let Some(set) = self.sets.get(&key)
            && matches!(set.phase, SetPhase::Committed | SetPhase::Settled)
        {
            // Repeated after its commit: the answer is the same.
            return Ok(prepared(spec, caps, members, worst, set.round));
        }
        let set = SimSet {
            fence: entry.fence,
            round,
            name: spec.name.clone(),
            tags: spec.tags.clone(),
            members: members.clone(),
            phase: SetPhase::Prepared,
            taking: std::collections::BTreeMap::new(),
            failed: None,
        };
        self.sets.insert(key, set);
        Ok(prepared(spec, caps, members, worst, round))
    }

    /// Whether a hardware provider may snap for this token.
    pub(crate) fn is_prepared(&self, provider: &ProviderId, token: &SetToken) -> bool {
        let set = self.sets.get(&(provider.clone(), token.clone()));
        set.is_some_and(|set| set.phase == SetPhase::Prepared)
    }

    fn set_of(
        &mut self,
        entry: &Entry,
        prepared: &Prepared,
        caps: &ProviderCaps,
    ) -> ProviderResult<&mut SimSet> {
        let expired = || {
            let message = format!("the set {} was discarded or is too old", prepared.token);
            refuse(ProviderErrorKind::Expired, message)
        };
        let round = prepared.opaque.as_slice().try_into().map_or(0, u64::from_le_bytes);
        let key = (caps.provider.clone(), prepared.token.clone());
        let set = self.sets.get_mut(&key).ok_or_else(expired)?;
        if caps.fencing && entry.fence < set.fence {
            let message = format!("token {} is older than one that was seen", entry.fence);
            return Err(refuse(ProviderErrorKind::Fenced, message));
        }
        set.fence = set.fence.max(entry.fence);
        if set.phase == SetPhase::Discarded || set.round != round {
            return Err(expired());
        }
        Ok(set)
    }

    pub(crate) fn commit(
        &mut self,
        entry: &Entry,
        prepared: &Prepared,
        caps: &ProviderCaps,
        behaviour: Behaviour,
    ) -> ProviderResult<Committing> {
        let set = self.set_of(entry, prepared, caps)?;
        let (phase, members) = (set.phase, set.members.clone());
        let id = SnapshotId::new(prepared.token.as_str())
            .map_err(|error| refuse(ProviderErrorKind::Internal, error.to_string()))?;
        if phase == SetPhase::Prepared {
            let takes = |volume: &VolumeRef| {
                self.volumes.get(volume).map(|disk| disk.commit).unwrap_or_default()
            };
            let data = members
                .iter()
                .filter(|member| member.role != MemberRole::Log)
                .map(|member| takes(&member.volume))
                .max()
                .unwrap_or_default();
            let mut taking = std::collections::BTreeMap::new();
            for member in &members {
                let own = takes(&member.volume);
                let waits = behaviour.data_first && member.role == MemberRole::Log;
                let time = if waits { own.max(data) } else { own };
                let due = entry.at.plus(time + entry.extra);
                taking.insert(member.volume.clone(), (id.clone(), due));
                let flight = Flight { due, id: id.clone(), run: entry.run, native: false };
                self.flights.insert((member.volume.clone(), prepared.token.clone()), flight);
            }
            // Data before logs also where both are due at one instant.
            let mut order: Vec<_> = members.iter().collect();
            order.sort_by_key(|member| member.role == MemberRole::Log);
            for member in order {
                if let Some((_, due)) = taking.get(&member.volume) {
                    self.at(*due, Event::Arrive(member.volume.clone(), prepared.token.clone()));
                }
            }
            let set = self.set_of(entry, prepared, caps)?;
            set.phase = SetPhase::Committed;
            set.taking = taking;
        }
        let set = self.set_of(entry, prepared, caps)?;
        let mut until = entry.at;
        let taken = set.members.iter().filter_map(|member| {
            let (id, due) = set.taking.get(&member.volume)?;
            until = until.max(*due);
            let taken = Member::new(member.volume.clone(), member.role, due.at);
            Some(taken.with_snapshot(id.clone()))
        });
        let members = taken.collect();
        Ok(Committing { members, until })
    }

    /// What a commit that has come to its end answers.
    pub(crate) fn committed(
        &self,
        prepared: &Prepared,
        provider: &ProviderId,
    ) -> ProviderResult<()> {
        let set = self.sets.get(&(provider.clone(), prepared.token.clone()));
        if let Some(failed) = set.and_then(|set| set.failed.clone()) {
            return Err(ProviderError::new(failed, "a snapshot of the set could not be taken"));
        }
        if set.is_none_or(|set| set.phase == SetPhase::Discarded) {
            let message = format!("the set {} was discarded meanwhile", prepared.token);
            return Err(ProviderError::new(ProviderErrorKind::Expired, message));
        }
        let missing = prepared
            .members
            .iter()
            .find(|member| self.token_on(&member.volume, &prepared.token).is_none());
        match missing {
            None => Ok(()),
            Some(member) => {
                let message = format!("the snapshot of {} is not there", member.volume);
                Err(ProviderError::new(ProviderErrorKind::Expired, message)
                    .with_volume(member.volume.clone()))
            }
        }
    }

    fn token_on(
        &self,
        volume: &VolumeRef,
        token: &SetToken,
    ) -> Option<(&SnapshotId, &SimSnapshot)> {
        let snapshots = &self.volumes.get(volume)?.snapshots;
        snapshots.iter().find(|(_, snapshot)| snapshot.token.as_ref() == Some(token))
    }

    /// A snapshot in flight is there: this is its instant.
    pub(crate) fn arrive(&mut self, volume: &VolumeRef, token: &SetToken, at: Moment) {
        let key = (volume.clone(), token.clone());
        if self.flights.get(&key).is_none_or(|flight| flight.due != at) {
            return;
        }
        let Some(flight) = self.flights.remove(&key) else { return };
        self.render_volume(volume, at);
        let set_key = (volume.provider.clone(), token.clone());
        let name = self.sets.get(&set_key).map_or_else(String::new, |set| set.name.clone());
        let Some(disk) = self.volumes.get_mut(volume) else { return };
        let refused = match (disk.has_room(), disk.limit) {
            // Somebody took the name since the set was prepared.
            _ if disk.holds_another(flight.id.as_str(), token) => {
                Some(ProviderErrorKind::NameTaken)
            }
            (false, Some(limit)) => {
                Some(ProviderErrorKind::SnapshotLimit { limit: u64::from(limit.get()) })
            }
            _ => None,
        };
        if let Some(refused) = refused {
            if let Some(set) = self.sets.get_mut(&set_key) {
                set.failed = Some(refused);
            }
            return;
        }
        let snapshot = SimSnapshot {
            token: Some(token.clone()),
            name: if flight.native { flight.id.to_string() } else { name },
            taken: at,
            files: disk.files.clone(),
            seals: std::collections::BTreeMap::new(),
            tags: std::collections::BTreeMap::new(),
            settled: false,
            native: flight.native,
            holds: std::collections::BTreeSet::new(),
            locked_until: None,
            going: false,
        };
        disk.snapshots.insert(flight.id, snapshot);
        self.taken.push(Taken { run: flight.run, volume: volume.clone(), at });
    }

    pub(crate) fn adopt(
        &mut self,
        entry: &Entry,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
        caps: &ProviderCaps,
    ) -> ProviderResult<Vec<Member>> {
        let members = self.set_of(entry, prepared, caps)?.members.clone();
        let mut adopted = Vec::new();
        for member in members {
            let wanted = |native: &&NativeSnapshot| {
                native.volume == member.volume && native.token == prepared.token
            };
            let missing = || {
                let message = format!("there is no native snapshot of {}", member.volume);
                refuse(ProviderErrorKind::NotFound, message).with_volume(member.volume.clone())
            };
            let native = natives.iter().find(wanted).ok_or_else(missing)?;
            let id = SnapshotId::new(&native.native_id).map_err(|_| missing())?;
            let reference = SnapshotRef::new(member.volume.clone(), id.clone());
            let snapshot = self.snapshot(&reference).ok_or_else(missing)?;
            if snapshot.token.as_ref() != Some(&prepared.token) {
                return Err(missing());
            }
            let taken_at = snapshot.taken.at;
            adopted.push((
                reference,
                Member::new(member.volume.clone(), member.role, taken_at).with_snapshot(id),
            ));
        }
        for (reference, _) in &adopted {
            if let Some(snapshot) = self.snapshot_mut(reference) {
                snapshot.native = false;
            }
        }
        let set = self.set_of(entry, prepared, caps)?;
        if set.phase == SetPhase::Prepared {
            set.phase = SetPhase::Committed;
        }
        Ok(adopted.into_iter().map(|(_, member)| member).collect())
    }

    pub(crate) fn settle(
        &mut self,
        entry: &Entry,
        prepared: &Prepared,
        caps: &ProviderCaps,
    ) -> ProviderResult<Vec<Snapshot>> {
        let set = self.set_of(entry, prepared, caps)?;
        let (name, tags, members) = (set.name.clone(), set.tags.clone(), set.members.clone());
        let mut ids = Vec::new();
        for member in &members {
            let found = self.token_on(&member.volume, &prepared.token);
            let Some((id, snapshot)) = found.filter(|(_, snapshot)| !snapshot.native) else {
                let message = format!("no snapshot of {} was taken", member.volume);
                return Err(
                    refuse(ProviderErrorKind::NotFound, message).with_volume(member.volume.clone())
                );
            };
            // Seals of the very bytes that are stored.
            let seal = |bytes: &[u8]| {
                let mut seal = SealWriter::new(bytes.len() as u64);
                seal.update(bytes);
                seal.finish()
            };
            let seals = if snapshot.settled {
                snapshot.seals.clone()
            } else {
                snapshot.files.iter().map(|(key, file)| (key.clone(), seal(&file.bytes))).collect()
            };
            ids.push((SnapshotRef::new(member.volume.clone(), id.clone()), seals));
        }
        let mut settled = Vec::new();
        for (reference, seals) in ids {
            if let Some(snapshot) = self.snapshot_mut(&reference) {
                snapshot.settled = true;
                snapshot.seals = seals;
                snapshot.name.clone_from(&name);
                snapshot.tags.clone_from(&tags);
            }
            settled.extend(self.describe(&reference));
        }
        self.set_of(entry, prepared, caps)?.phase = SetPhase::Settled;
        Ok(settled)
    }

    /// A snapshot as callers see it.
    pub(crate) fn describe(&self, reference: &SnapshotRef) -> Option<Snapshot> {
        let disk = self.volumes.get(&reference.volume)?;
        let snapshot = disk.snapshots.get(&reference.id)?;
        let file = |(key, file): (&String, &super::state::File)| {
            let path = disk.path(&file.inside, &file.host)?;
            Some(SnapshotFile::new(path, snapshot.seals.get(key).cloned()))
        };
        let bytes = snapshot.files.values().map(|file| file.bytes.len() as u64).sum();
        let mut described =
            Snapshot::new(reference.volume.clone(), reference.id.clone(), snapshot.taken.at)
                .with_name(snapshot.name.clone())
                .with_bytes(bytes)
                .with_files(snapshot.files.iter().filter_map(file).collect())
                .with_tags(snapshot.tags.clone());
        described.token.clone_from(&snapshot.token);
        Some(described)
    }

    /// Every snapshot of a token at a provider, in the order of their volumes.
    pub(crate) fn of_token(&self, provider: &ProviderId, token: &SetToken) -> Vec<SnapshotRef> {
        let ours = self.volumes.keys().filter(|volume| volume.provider == *provider);
        let found = ours.filter_map(|volume| {
            let (id, _) = self.token_on(volume, token)?;
            Some(SnapshotRef::new(volume.clone(), id.clone()))
        });
        found.collect()
    }

    fn last_flight(&self, provider: &ProviderId, token: &SetToken) -> Option<Moment> {
        let ours = self
            .flights
            .iter()
            .filter(|((volume, of), _)| of == token && volume.provider == *provider);
        ours.map(|(_, flight)| flight.due).max()
    }

    /// Whether a snapshot may go; an error says why not.
    fn may_go(&self, reference: &SnapshotRef, now: DateTime<Utc>) -> ProviderResult<()> {
        let Some(snapshot) = self.snapshot(reference) else { return Ok(()) };
        let refused = |kind, why: &str| {
            let message = format!("snapshot {} {why}", reference.id);
            Err(refuse(kind, message).with_volume(reference.volume.clone()))
        };
        if snapshot.token.is_none() {
            return refused(ProviderErrorKind::Invalid, "is not ours");
        }
        if !snapshot.holds.is_empty() {
            return refused(ProviderErrorKind::Held, "is held");
        }
        if let Some(until) = snapshot.locked_until.filter(|until| *until > now) {
            return refused(ProviderErrorKind::Locked { until }, "is locked");
        }
        let exposed = self.exposures.values().flat_map(|exposure| &exposure.roots);
        if exposed.into_iter().any(|root| root.snapshot == *reference) {
            return refused(ProviderErrorKind::Dependents, "is exposed");
        }
        Ok(())
    }

    pub(crate) fn discard(
        &mut self,
        entry: &Entry,
        token: &SetToken,
        provider: &ProviderId,
        behaviour: Behaviour,
    ) -> ProviderResult<Discarded> {
        let snapshots = self.of_token(provider, token);
        for snapshot in &snapshots {
            self.may_go(snapshot, entry.at.at)?;
        }
        for snapshot in snapshots {
            if let Some(disk) = self.volumes.get_mut(&snapshot.volume) {
                disk.snapshots.remove(&snapshot.id);
            }
        }
        if let Some(set) = self.sets.get_mut(&(provider.clone(), token.clone())) {
            set.phase = SetPhase::Discarded;
        }
        let flight = self.last_flight(provider, token);
        if behaviour.stops_flights {
            self.flights.retain(|(volume, of), _| of != token || volume.provider != *provider);
            return Ok(Discarded::Gone);
        }
        Ok(flight.map_or(Discarded::Gone, |due| Discarded::WatchUntil(due.at)))
    }

    pub(crate) fn find(&self, token: &SetToken, provider: &ProviderId) -> Found {
        if let Some(due) = self.last_flight(provider, token) {
            return Found::InFlight { until: due.at };
        }
        let found = self.of_token(provider, token);
        let found: Vec<_> = found.iter().filter_map(|reference| self.describe(reference)).collect();
        let set = self.sets.get(&(provider.clone(), token.clone()));
        let wanted = set.map_or(found.len(), |set| set.members.len());
        match found.len() {
            0 => Found::Absent,
            some if some < wanted => Found::Partial(found),
            _ => Found::Complete(found),
        }
    }

    pub(crate) fn list(
        &self,
        volume: &VolumeRef,
        page: Option<&str>,
        provider: &ProviderId,
        behaviour: Behaviour,
    ) -> ProviderResult<Listing> {
        let disk = self.volume_of(provider, volume)?;
        let after = match page {
            None => None,
            Some(mark) => Some(SnapshotId::new(mark).map_err(|_| {
                refuse(ProviderErrorKind::Invalid, "the page mark is not one of ours")
            })?),
        };
        let mut rest = disk.snapshots.keys().filter(|id| after.as_ref().is_none_or(|at| *id > at));
        let ids: Vec<_> = rest.by_ref().take(behaviour.page.max(1)).collect();
        let next = rest.next().and(ids.last()).map(ToString::to_string);
        let snapshots = ids
            .into_iter()
            .filter_map(|id| self.describe(&SnapshotRef::new(volume.clone(), id.clone())));
        Ok(Listing { snapshots: snapshots.collect(), next })
    }

    pub(crate) fn delete(
        &mut self,
        entry: &Entry,
        reference: &SnapshotRef,
        provider: &ProviderId,
        behaviour: Behaviour,
    ) -> ProviderResult<Deleted> {
        self.volume_of(provider, &reference.volume)?;
        self.may_go(reference, entry.at.at)?;
        let Some(snapshot) = self.snapshot_mut(reference) else { return Ok(Deleted::Gone) };
        if behaviour.deletes_in.is_zero() {
            if let Some(disk) = self.volumes.get_mut(&reference.volume) {
                disk.snapshots.remove(&reference.id);
            }
            return Ok(Deleted::Gone);
        }
        if !std::mem::replace(&mut snapshot.going, true) {
            let due = entry.at.plus(behaviour.deletes_in);
            self.at(due, Event::DeleteDone(reference.clone()));
        }
        Ok(Deleted::Pending)
    }
}

fn prepared(
    spec: &PrepareSpec,
    caps: &ProviderCaps,
    members: Vec<PreparedMember>,
    worst: Duration,
    round: u64,
) -> Prepared {
    Prepared::new(spec.token.clone(), caps.provider.clone())
        .with_members(members)
        .with_worst_case(Some(worst))
        .with_opaque(round.to_le_bytes().to_vec())
}
