//! `find`, `list`, `resolve` and `volumes`: what there is, read from the store each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_context::{Cx, HostPath};
use stillpoint_model::capability::VolumeFacts;
use stillpoint_model::id::{SetToken, SnapshotId, VolumeRef};
use stillpoint_model::placement::Placement;
use stillpoint_model::quiesce::QuiesceLevel;
use stillpoint_storage::{
    Found, Listing, ProviderError, ProviderErrorKind, ProviderResult, Snapshot,
};

use uuid::Uuid;

use crate::commit::snapshot_id;
use crate::disk::{Inode, open_folder};
use crate::format::{self, Plan, Taken};
use crate::prepare::free_bytes;
use crate::snap::taken_at;
use crate::store::{BEGUN, LOCK, Owner, PLAN, Store, TAKEN, inode_at, is_name, nothing_at};
use crate::subvolume::{Located, Subvolume};
use crate::volume::Volume;

/// The tag of a snapshot in a listing that is not settled: it is part of a set under way, or debris of one.
pub(crate) const UNSETTLED: &str = "unsettled";
/// When to ask again about a set on which somebody works.
const AGAIN: TimeDelta = TimeDelta::seconds(60);
/// How often a set that moves while it is looked at is looked at again. It moves at most three times between its preparation
/// and its end.
const LOOKS: usize = 100;
/// What a page mark begins with.
const MARK: &str = "after:";

impl Store {
    pub(crate) fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        for _ in 0..LOOKS {
            if let Some(found) = self.look_for(cx, token)? {
                return Ok(found);
            }
        }
        // Somebody moves it as often as we look.
        Ok(Found::InFlight { until: cx.now() + AGAIN })
    }

    /// What there is of a token; `None` if it moved while it was looked at.
    fn look_for(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Option<Found>> {
        let in_flight = Found::InFlight { until: cx.now() + AGAIN };
        // In the order in which a set moves, so that none slips past.
        let partial = self.partial(token);
        let at = inode_at(&partial)?;
        if self.owner(&partial, token)? == Owner::Ours {
            let found = if self.is_locked(&partial)? {
                in_flight
            } else {
                match self.unsettled(token, &partial, cx.now())? {
                    None => Found::Absent,
                    Some((snapshots, true)) => Found::Complete(snapshots),
                    Some((snapshots, false)) => Found::Partial(snapshots),
                }
            };
            return self.if_still(&partial, at, found);
        }
        if let Some(record) = self.set_record(token)? {
            let snapshots = self.snapshots(&record)?;
            let whole = snapshots.len() == record.members.len();
            let found = if whole { Found::Complete(snapshots) } else { Found::Partial(snapshots) };
            return Ok(Some(found));
        }
        let discarded = self.discarded(token);
        let at = inode_at(&discarded)?;
        if self.owner(&discarded, token)? == Owner::Ours {
            let locked = self.is_locked(&discarded)?;
            let found = if locked { in_flight } else { Found::Partial(Vec::new()) };
            return self.if_still(&discarded, at, found);
        }
        Ok(Some(Found::Absent))
    }

    /// What was found in a folder, if that is still the one that was looked at.
    fn if_still<T>(&self, folder: &Path, at: Option<Inode>, found: T) -> ProviderResult<Option<T>> {
        self.disk.look(folder);
        Ok((inode_at(folder)? == at).then_some(found))
    }

    fn is_locked(&self, folder: &Path) -> ProviderResult<bool> {
        let path = folder.join(LOCK);
        self.disk.is_locked(&path).map_err(|error| {
            ProviderError::io(format_args!("lock {}", path.display()), error).without_effect()
        })
    }

    /// The snapshots of a set that is not settled, if a commit has begun, and whether all were taken since the machine
    /// started.
    fn unsettled(
        &self,
        token: &SetToken,
        folder: &Path,
        now: DateTime<Utc>,
    ) -> ProviderResult<Option<(Vec<Snapshot>, bool)>> {
        self.disk.look(&folder.join(PLAN));
        let plan: Option<Plan> = format::read(&folder.join(PLAN))?;
        let Some(plan) = plan.filter(|plan| plan.token == *token) else { return Ok(None) };
        if let Some(found) = self.snapshots_of_plan(folder, &plan)? {
            return self.unsettled_subvolumes(&plan, &found);
        }
        if nothing_at(&folder.join(BEGUN))? {
            return Ok(None);
        }
        let done: Option<Taken> = format::read(&folder.join(TAKEN))?;
        let snapshots = self.unsettled_snapshots(&plan, done.as_ref(), now)?;
        Ok(Some((snapshots, done.is_some_and(|done| done.boot == self.boot))))
    }

    /// The same of a set that takes subvolumes: those that are there were taken, and are on disk.
    fn unsettled_subvolumes(
        &self,
        plan: &Plan,
        found: &[Option<Subvolume>],
    ) -> ProviderResult<Option<(Vec<Snapshot>, bool)>> {
        let id = snapshot_id(&plan.token)?;
        let mut tags = plan.tags.clone();
        tags.insert(UNSETTLED.to_owned(), "true".to_owned());
        let mut snapshots = Vec::new();
        for (member, found) in plan.members.iter().zip(found) {
            let Some(found) = found else { continue };
            let volume = self.snapshot_volume(&member.volume);
            snapshots.push(
                Snapshot::new(volume, id.clone(), taken_at(found))
                    .with_name(plan.name.clone())
                    .with_token(plan.token.clone())
                    .with_tags(tags.clone()),
            );
        }
        let whole = snapshots.len() == found.len();
        Ok((!snapshots.is_empty()).then_some((snapshots, whole)))
    }

    /// The snapshots of a set under way, as far as they are known.
    fn unsettled_snapshots(
        &self,
        plan: &Plan,
        taken: Option<&Taken>,
        now: DateTime<Utc>,
    ) -> ProviderResult<Vec<Snapshot>> {
        let id = snapshot_id(&plan.token)?;
        let mut tags = plan.tags.clone();
        tags.insert(UNSETTLED.to_owned(), "true".to_owned());
        let members = plan.members.iter().enumerate();
        let snapshots = members.map(|(index, member)| {
            let at = taken.and_then(|t| t.members.get(index)).map_or(now, |t| t.taken_at);
            Snapshot::new(self.snapshot_volume(&member.volume), id.clone(), at)
                .with_name(plan.name.clone())
                .with_token(plan.token.clone())
                .with_tags(tags.clone())
        });
        Ok(snapshots.collect())
    }

    /// The snapshots of a volume in the order of their tokens, ours and others', a page at a time.
    pub(crate) fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<&str>,
    ) -> ProviderResult<Listing> {
        let _known = self.volume(volume)?;
        let after =
            page.map(|mark| mark.strip_prefix(MARK).ok_or(mark)).transpose().map_err(|mark| {
                let text = format!("{mark:?} is not the mark of a page");
                ProviderError::new(ProviderErrorKind::Invalid, text).without_effect()
            })?;
        let mut entries = self.entries()?;
        let found = self.subvolumes_of(self.volume(volume)?)?;
        let ours = found.iter().filter(|(_, place)| place.is_ours);
        let ours: BTreeSet<_> = ours.map(|(located, _)| located.subvolume.uuid).collect();
        let mut others = others(volume, found);
        for other in others.keys() {
            let _none = entries.entry(other.clone()).or_default();
        }
        let mut snapshots = Vec::new();
        for (key, names) in entries {
            if after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            cx.check()?;
            snapshots.extend(others.remove(&key));
            let found = self.entry(&key, &names, cx.now(), &ours)?;
            snapshots.extend(
                found
                    .into_iter()
                    .filter(|snapshot| snapshot.volume == *volume || snapshot.token.is_none())
                    .map(|mut snapshot| {
                        snapshot.volume = volume.clone();
                        snapshot
                    }),
            );
            if snapshots.len() >= self.page {
                return Ok(Listing { snapshots, next: Some(format!("{MARK}{key}")) });
            }
        }
        Ok(Listing { snapshots, next: None })
    }

    /// Whether a snapshot of a volume lies elsewhere than in our sets under this id.
    pub(crate) fn is_elsewhere(&self, volume: &Volume, id: &str) -> ProviderResult<bool> {
        let found = self.subvolumes_of(volume)?;
        Ok(others(&volume.reference, found).contains_key(id))
    }

    /// Every snapshot of a volume in the file system, wherever it lies.
    fn subvolumes_of(&self, volume: &Volume) -> ProviderResult<Vec<(Located, FoundAt)>> {
        let Some(subvolumes) = self.disk.subvolumes() else { return Ok(Vec::new()) };
        let lineage = self.lineage(volume)?;
        let sets = self.sets();
        let failed = |error| unlisted(error).with_volume(volume.reference.clone());
        let at = open_folder(&sets).map_err(failed)?;
        let root = subvolumes.root(&at).map_err(failed)?;
        let inode = at.metadata().map_err(failed)?.ino();
        let ours = subvolumes.path(&at, root, inode).map_err(failed)?;
        let mut found = Vec::new();
        for located in subvolumes.all(&at).map_err(failed)? {
            let parent = located.subvolume.parent;
            if !parent.is_some_and(|parent| lineage.contains(&parent)) {
                continue;
            }
            // One that is removed this very moment has no place any more.
            let Ok(folder) = subvolumes.path(&at, located.root, located.folder) else { continue };
            let rest = folder.strip_prefix(&ours);
            let below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let is_ours = located.root == root && below;
            found.push((located, FoundAt { folder, is_ours }));
        }
        Ok(found)
    }

    /// The names in the folder of sets by the token that they seem to be of, or by themselves.
    ///
    /// A name that changes while a folder is read may be missed, so it is read twice.
    fn entries(&self) -> ProviderResult<BTreeMap<String, BTreeSet<String>>> {
        let sets = self.sets();
        let failed = |error| {
            ProviderError::io(format_args!("list {}", sets.display()), error).without_effect()
        };
        let mut entries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for _ in 0..2 {
            self.disk.look(&sets);
            for entry in fs::read_dir(&sets).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                let key = name.strip_suffix(".partial").or(name.strip_suffix(".discarded"));
                let key = key.filter(|key| SetToken::new(*key).is_ok_and(|token| is_name(&token)));
                entries.entry(key.unwrap_or(&name).to_owned()).or_default().insert(name);
            }
        }
        Ok(entries)
    }

    /// What the names of one token hold: our snapshots, wherever their set is by now, and what is not ours.
    fn entry(
        &self,
        key: &str,
        names: &BTreeSet<String>,
        now: DateTime<Utc>,
        known: &BTreeSet<Uuid>,
    ) -> ProviderResult<Vec<Snapshot>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let token = SetToken::new(key).ok();
        let mut found = Vec::new();
        if let Some(token) = token.as_ref().filter(|token| is_name(token)) {
            for _ in 0..LOOKS {
                if let Some(ours) = self.look_at(token, now, known)? {
                    found = ours;
                    break;
                }
            }
        }
        // A settled set of ours under its one name: there is nothing else.
        if !found.is_empty() && names.len() == 1 && names.contains(key) {
            return Ok(found);
        }
        for name in names {
            found.extend(self.foreign(name, token.as_ref())?);
        }
        Ok(found)
    }

    /// Our snapshots of a token, settled or not; `None` if their set moved while it was looked at.
    fn look_at(
        &self,
        token: &SetToken,
        now: DateTime<Utc>,
        known: &BTreeSet<Uuid>,
    ) -> ProviderResult<Option<Vec<Snapshot>>> {
        let snapshots = |folder: &Path, at| {
            let found = self.unsettled(token, folder, now)?;
            self.if_still(folder, at, found.map(|(snapshots, _)| snapshots).unwrap_or_default())
        };
        // In the order in which a set moves, so that none slips past.
        let partial = self.partial(token);
        let at = inode_at(&partial)?;
        if self.owner(&partial, token)? == Owner::Ours {
            return snapshots(&partial, at);
        }
        if let Some(record) = self.set_record(token)? {
            return self.snapshots_among(&record, known).map(Some);
        }
        let discarded = self.discarded(token);
        let at = inode_at(&discarded)?;
        if self.owner(&discarded, token)? == Owner::Ours {
            return snapshots(&discarded, at);
        }
        Ok(Some(Vec::new()))
    }

    /// What is under a name, if it is not ours.
    fn foreign(&self, name: &str, token: Option<&SetToken>) -> ProviderResult<Option<Snapshot>> {
        let path = self.sets().join(name);
        self.disk.look(&path);
        let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(None) };
        let is_ours = match token {
            Some(token) if token.as_str() == name => self.set_record(token)?.is_some(),
            Some(token) => self.owner(&path, token)? == Owner::Ours,
            None => false,
        };
        // What moved this very moment was ours.
        if is_ours || inode_at(&path)? != Some(Inode::of(&metadata)) {
            return Ok(None);
        }
        let id = SnapshotId::new(name.replace(char::is_control, "?"));
        let (Ok(id), Ok(modified)) = (id, metadata.modified()) else { return Ok(None) };
        // It lies on no volume of ours; whoever lists one puts it there.
        let Some(volume) = self.volumes.first() else { return Ok(None) };
        Ok(Some(Snapshot::new(volume.reference.clone(), id, modified.into())))
    }

    pub(crate) fn resolve(&self, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let mut placements = Vec::new();
        for file in files {
            let Some((volume, inside)) = self.volume_of(file) else { continue };
            let failed = |error| {
                ProviderError::io(format_args!("find {file}"), error)
                    .with_volume(volume.reference.clone())
                    .without_effect()
            };
            // A file that a link leads out to lies elsewhere.
            if volume.places(&inside).map_err(failed)? {
                let device = fs::metadata(&volume.path).map_err(failed)?.dev();
                let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
                placements.push(
                    Placement::new(file.clone(), volume.reference.clone(), inside)
                        .with_device(device),
                );
            }
        }
        Ok(placements)
    }

    pub(crate) fn facts(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        for volume in volumes {
            let _known = self.volume(volume)?;
        }
        if let Some(subvolumes) = self.disk.subvolumes() {
            let all = open_folder(&self.root).and_then(|root| subvolumes.all(&root));
            let all = all.map_err(unlisted)?;
            return volumes.iter().map(|volume| self.subvolume_facts(volume, &all)).collect();
        }
        let mut used: BTreeMap<VolumeRef, u32> = BTreeMap::new();
        for (key, names) in self.entries()? {
            for snapshot in self.entry(&key, &names, cx.now(), &BTreeSet::new())? {
                if snapshot.token.is_some() {
                    *used.entry(snapshot.volume).or_default() += 1;
                }
            }
        }
        let free = free_bytes(&self.root).map_err(|error| {
            ProviderError::io(format_args!("ask for the room in {}", self.root.display()), error)
                .without_effect()
        })?;
        let facts = volumes.iter().map(|volume| {
            // A clone of a file is right if nobody writes it meanwhile; a freeze of the file system would only block it.
            let mut facts = VolumeFacts::new(volume.clone(), QuiesceLevel::AtRest, None);
            facts.name = self.volume(volume).ok().map(|volume| volume.name.clone());
            facts.snapshots_used = used.get(volume).copied().unwrap_or(0);
            facts.free_bytes = Some(free);
            facts
        });
        Ok(facts.collect())
    }

    fn subvolume_facts(
        &self,
        reference: &VolumeRef,
        all: &[Located],
    ) -> ProviderResult<VolumeFacts> {
        let volume = self.volume(reference)?;
        let failed = |error| {
            ProviderError::io(format_args!("ask for the room of {}", volume.path.display()), error)
                .with_volume(reference.clone())
                .without_effect()
        };
        let lineage = self.lineage(volume)?;
        let is_of = |found: &&Located| found.subvolume.parent.is_some_and(|p| lineage.contains(&p));
        let used = all.iter().filter(is_of).count();
        let mut free = free_bytes(&self.root).map_err(failed)?;
        let live = self.disk.subvolume_at(&volume.path).map_err(failed)?;
        if let (Some(live), Some(subvolumes)) = (live, self.disk.subvolumes())
            && let Some(quota) = subvolumes.quota(&live).map_err(failed)?
        {
            free = free.min(quota.left);
        }
        // A snapshot writes out what is in memory, so the application's writes have to be held and no more; a freeze of the
        // file system would only block it. How long it takes depends on how much that is: `prepare` says.
        let mut facts = VolumeFacts::new(reference.clone(), QuiesceLevel::AtRest, None);
        facts.name = Some(volume.name.clone());
        facts.snapshots_used = u32::try_from(used).unwrap_or(u32::MAX);
        facts.free_bytes = Some(free);
        Ok(facts)
    }
}

/// The snapshots of a volume that lie elsewhere than in our sets, by their ids; only file systems with subvolumes can have
/// such.
fn others(volume: &VolumeRef, found: Vec<(Located, FoundAt)>) -> BTreeMap<String, Snapshot> {
    let mut others = BTreeMap::new();
    for (found, place) in found.into_iter().filter(|(_, place)| !place.is_ours) {
        let text = format!("subvolume-{}", found.subvolume.uuid);
        let Ok(id) = SnapshotId::new(&text) else { continue };
        let path = format!("{}/{}", place.folder, found.name);
        let name = path.trim_start_matches('/').replace(char::is_control, "?");
        let snapshot =
            Snapshot::new(volume.clone(), id, found.subvolume.created_at).with_name(name);
        let _none = others.insert(text, snapshot);
    }
    others
}

fn unlisted(error: std::io::Error) -> ProviderError {
    ProviderError::io("list the subvolumes of the file system", error).without_effect()
}

/// Where a snapshot was found.
#[derive(Debug)]
struct FoundAt {
    /// The path of its folder, below the root of the subvolume in which it lies.
    folder: String,
    /// It lies in our folder of sets: whatever it is there, the names in that folder say.
    is_ours: bool,
}
