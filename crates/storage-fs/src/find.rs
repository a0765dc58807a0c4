//! `find`, `list`, `resolve` and `volumes`: what there is, read from the store each time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_context::{Cx, HostPath};
use stillpoint_model::capability::VolumeFacts;
use stillpoint_model::id::{SetToken, SnapshotId, VolumeRef};
use stillpoint_model::placement::Placement;
use stillpoint_model::quiesce::QuiesceLevel;
use stillpoint_storage::{
    Found, Listing, ProviderError, ProviderErrorKind, ProviderResult, Snapshot,
};

use crate::commit::snapshot_id;
use crate::disk::Wait;
use crate::format::{self, Plan, Taken};
use crate::prepare::free_bytes;
use crate::store::{BEGUN, LOCK, PLAN, Store, TAKEN, is_ours, nothing_at};

/// The tag of a snapshot in a listing that is not settled: it is part of a set under way, or debris of one.
pub(crate) const UNSETTLED: &str = "unsettled";
/// When to ask again about a set on which somebody works.
const AGAIN: TimeDelta = TimeDelta::seconds(60);
/// What a page mark begins with.
const MARK: &str = "after:";

impl Store {
    pub(crate) fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        if let Some(record) = self.set_record(token)? {
            let snapshots = self.snapshots(&record)?;
            let whole = snapshots.len() == record.members.len();
            return Ok(if whole { Found::Complete(snapshots) } else { Found::Partial(snapshots) });
        }
        let in_flight = Found::InFlight { until: cx.now() + AGAIN };
        let discarded = self.discarded(token);
        if is_ours(&discarded, token)? {
            return Ok(if self.is_locked(&discarded)? {
                in_flight
            } else {
                Found::Partial(vec![])
            });
        }
        let partial = self.partial(token);
        if !is_ours(&partial, token)? {
            // Settled between the two looks.
            return Ok(match self.set_record(token)? {
                Some(record) => Found::Complete(self.snapshots(&record)?),
                None => Found::Absent,
            });
        }
        if self.is_locked(&partial)? {
            return Ok(in_flight);
        }
        let Some(plan) = format::read::<Plan>(&partial.join(PLAN))? else {
            return Ok(Found::Absent);
        };
        if nothing_at(&partial.join(BEGUN))? {
            return Ok(Found::Absent);
        }
        let done: Option<Taken> = format::read(&partial.join(TAKEN))?;
        let snapshots = self.unsettled(&plan, done.as_ref(), cx.now())?;
        let whole = done.is_some_and(|done| done.boot == self.boot);
        Ok(if whole { Found::Complete(snapshots) } else { Found::Partial(snapshots) })
    }

    fn is_locked(&self, folder: &std::path::Path) -> ProviderResult<bool> {
        let path = folder.join(LOCK);
        if nothing_at(&path)? {
            return Ok(false);
        }
        let held = self.disk.lock(&path, Wait::No);
        let held = held.map_err(|e| ProviderError::io(format_args!("lock {}", path.display()), e));
        Ok(held?.is_none())
    }

    /// The snapshots of a set under way, as far as they are known.
    fn unsettled(
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

    /// The snapshots of a volume in the order of the names in the store, ours and others', a page at a time.
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
        let mut snapshots = Vec::new();
        for (name, kind) in self.entries()? {
            if after.is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            cx.check()?;
            let found = self.entry(&name, &kind, cx.now())?;
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
                return Ok(Listing { snapshots, next: Some(format!("{MARK}{name}")) });
            }
        }
        Ok(Listing { snapshots, next: None })
    }

    /// The names in the folder of sets, sorted, with what each of them seems to be.
    fn entries(&self) -> ProviderResult<BTreeMap<String, Entry>> {
        let sets = self.sets();
        let failed = |error| {
            ProviderError::io(format_args!("list {}", sets.display()), error).without_effect()
        };
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(&sets).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let kind = match (name.strip_suffix(".partial"), name.strip_suffix(".discarded")) {
                (Some(token), _) => SetToken::new(token).map_or(Entry::Foreign, Entry::Partial),
                (_, Some(token)) => SetToken::new(token).map_or(Entry::Foreign, Entry::Discarded),
                _ => SetToken::new(name.as_str()).map_or(Entry::Foreign, Entry::Settled),
            };
            entries.insert(name, kind);
        }
        Ok(entries)
    }

    /// What an entry of the folder of sets holds.
    fn entry(&self, name: &str, kind: &Entry, now: DateTime<Utc>) -> ProviderResult<Vec<Snapshot>> {
        match kind {
            Entry::Settled(token) => {
                if let Some(record) = self.set_record(token)? {
                    return self.snapshots(&record);
                }
            }
            Entry::Partial(token) | Entry::Discarded(token) => {
                let folder = self.sets().join(name);
                if is_ours(&folder, token)? {
                    let plan: Option<Plan> = format::read(&folder.join(PLAN))?;
                    let Some(plan) = plan else { return Ok(Vec::new()) };
                    if nothing_at(&folder.join(BEGUN))? {
                        return Ok(Vec::new());
                    }
                    let done: Option<Taken> = format::read(&folder.join(TAKEN))?;
                    return self.unsettled(&plan, done.as_ref(), now);
                }
            }
            Entry::Foreign => {}
        }
        let Ok(metadata) = fs::symlink_metadata(self.sets().join(name)) else {
            return Ok(Vec::new());
        };
        let id = SnapshotId::new(name.replace(char::is_control, "?"));
        let (Ok(id), Ok(modified)) = (id, metadata.modified()) else { return Ok(Vec::new()) };
        // It lies on no volume of ours; whoever lists one puts it there.
        let Some(volume) = self.volumes.first() else { return Ok(Vec::new()) };
        Ok(vec![Snapshot::new(volume.reference.clone(), id, modified.into())])
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
        let mut used: BTreeMap<VolumeRef, u32> = BTreeMap::new();
        for (name, kind) in self.entries()? {
            for snapshot in self.entry(&name, &kind, cx.now())? {
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
            facts.name = Some(volume.id.to_string());
            facts.snapshots_used = used.get(volume).copied().unwrap_or(0);
            facts.free_bytes = Some(free);
            facts
        });
        Ok(facts.collect())
    }
}

/// What the name of an entry says.
#[derive(Clone, Debug)]
enum Entry {
    Settled(SetToken),
    Partial(SetToken),
    Discarded(SetToken),
    Foreign,
}
