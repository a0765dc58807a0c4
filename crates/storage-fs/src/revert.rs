//! Reverting a volume: another subvolume, made out of a snapshot, in the place of the one that is there.
//!
//! ```text
//!   <parent>/mail                        the volume, with the subvolume of today
//!   <parent>/.stillpoint-revert-<id>     the new one, made out of the snapshot        1. journal  2. branch
//!                                        … both names swapped, at one instant        3. lineage  4. exchange
//!                                        … the old one, which goes                    5. destroy  6. forget
//! ```
//!
//! No snapshot is lost by it, older or newer: they do not lie in the volume. What is lost is what was written since, also in
//! files that nobody wants to bring back; they are the collateral. A volume that is itself a mount point, or has subvolumes
//! inside, is refused.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use stillpoint_context::{Cx, Subject};
use stillpoint_model::id::{SnapshotRef, VolumeRef};
use stillpoint_storage::{Collateral, Consent, ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Lock, Wait, folder_of, neighbour};
use crate::format::{self, RevertRecord, SetRecord};
use crate::store::{LOCK, Store, text};
use crate::subvolume::Subvolume;
use crate::volume::Volume;

/// One volume that is to be reverted.
struct Wanted<'a> {
    snapshot: &'a SnapshotRef,
    volume: &'a Volume,
    live: Subvolume,
    record: SetRecord,
    index: usize,
}

impl Store {
    pub(crate) fn collateral(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
    ) -> ProviderResult<Collateral> {
        let wanted = self.wanted(snapshots)?;
        collateral_of(cx, &wanted)
    }

    pub(crate) fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        cx.check().map_err(|error| ProviderError::from(error).without_effect())?;
        if !self.may_revert {
            return Err(ProviderError::unsupported("revert"));
        }
        let lock = self.revert_lock()?.ok_or_else(|| {
            let text = "another revert is under way";
            ProviderError::new(ProviderErrorKind::Busy, text).without_effect()
        })?;
        self.end_reverts()?;
        let wanted = self.wanted(snapshots)?;
        let lost = collateral_of(cx, &wanted)?;
        if lost != consent.0 {
            let text = format!(
                "the revert would lose {} files, and not exactly these were consented to",
                lost.files.len()
            );
            let error = ProviderError::new(ProviderErrorKind::Collateral, text).without_effect();
            let files = lost.files.iter().take(10);
            return Err(
                files.fold(error, |error, file| error.with_subject(Subject::new("file", file)))
            );
        }
        for wanted in &wanted {
            self.check_swappable(wanted)?;
        }
        let mut done = Vec::new();
        for wanted in &wanted {
            // Held while the snapshot is read: it cannot be removed meanwhile.
            let folder = self.settled(&wanted.record.token);
            let set = self.disk.lock(&folder.join(LOCK), Wait::Yes).map_err(|error| {
                ProviderError::io(format_args!("lock {}", folder.display()), error)
            })?;
            let reverted = self
                .swap(cx, wanted)
                .map_err(|error| error.with_volume(wanted.volume.reference.clone()));
            drop(set);
            reverted?;
            done.push(wanted.volume.reference.clone());
        }
        drop(lock);
        Ok(done)
    }

    fn wanted<'a>(&'a self, snapshots: &'a [SnapshotRef]) -> ProviderResult<Vec<Wanted<'a>>> {
        if !self.may_revert {
            return Err(ProviderError::unsupported("revert"));
        }
        let mut wanted: Vec<Wanted<'a>> = Vec::new();
        for snapshot in snapshots {
            let volume = self.volume(&snapshot.volume)?;
            if wanted.iter().any(|other| other.volume.reference == volume.reference) {
                let text = format!("the volume {} is to be reverted twice", snapshot.volume);
                return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                    .with_volume(snapshot.volume.clone())
                    .without_effect());
            }
            let (record, index) = self.snapshot_record(snapshot)?;
            wanted.push(Wanted { snapshot, volume, live: self.live(volume)?, record, index });
        }
        Ok(wanted)
    }

    /// Refuses a volume whose subvolume cannot be swapped, or would take others with it.
    fn check_swappable(&self, wanted: &Wanted<'_>) -> ProviderResult<()> {
        let place = &wanted.volume.path;
        let refused = |kind, text: String, remedy: &'static str| {
            Err(ProviderError::new(kind, text)
                .with_volume(wanted.volume.reference.clone())
                .with_remedy(remedy)
                .without_effect())
        };
        let failed = |error| {
            ProviderError::io(format_args!("look at {}", place.display()), error).without_effect()
        };
        let facts = rustix::fs::statx(
            CWD,
            place.as_path(),
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        )
        .map_err(|error| failed(error.into()))?;
        if facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return refused(
                ProviderErrorKind::Unsupported("revert"),
                format!("{} is a mount point, whose subvolume cannot be swapped", place.display()),
                "Mount the subvolume above it and name the volume below that, or restore by clone.",
            );
        }
        let Some(subvolumes) = self.disk.subvolumes() else {
            return Err(ProviderError::unsupported("revert"));
        };
        let all = fs::File::open(place).and_then(|at| subvolumes.all(&at)).map_err(failed)?;
        let inside: Vec<_> = all.iter().filter(|found| found.root == wanted.live.id).collect();
        if let Some(first) = inside.first() {
            return refused(
                ProviderErrorKind::Dependents,
                format!(
                    "{} has {} subvolumes inside, among them {}, which would be lost",
                    place.display(),
                    inside.len(),
                    first.name
                ),
                "Move them out of the volume, or restore by clone.",
            );
        }
        Ok(())
    }

    fn swap(&self, cx: &Cx, wanted: &Wanted<'_>) -> ProviderResult<()> {
        let place = &wanted.volume.path;
        let failed = |error| ProviderError::io(format_args!("revert {}", place.display()), error);
        let parent = folder_of(place).map_err(failed)?;
        let aside = parent.join(format!(".stillpoint-revert-{}", cx.seams().ids.uuid().simple()));
        let member = wanted.record.members.get(wanted.index).ok_or_else(|| {
            ProviderError::new(ProviderErrorKind::Internal, "the set has no such member")
        })?;
        let stored = member.folder(&self.settled(&wanted.record.token), wanted.index);
        let record = RevertRecord {
            volume: wanted.volume.reference.id.clone(),
            snapshot: wanted.snapshot.clone(),
            place: text(place)?,
            aside: text(&aside)?,
            old: wanted.live.uuid,
        };
        let journal = self.revert_path(wanted.volume);
        format::write(&self.disk, &journal, &record, true)?;
        self.disk.branch(&stored, &aside).map_err(failed)?;
        let new = self.disk.subvolume_at(&aside).map_err(failed)?.ok_or_else(|| {
            let text = format!("{} is no subvolume", aside.display());
            ProviderError::new(ProviderErrorKind::Internal, text)
        })?;
        self.extend_lineage(wanted.volume, new.uuid)?;
        self.disk.exchange(&aside, place).map_err(failed)?;
        self.disk.sync_dir(parent).map_err(failed)?;
        self.end_revert(&journal, &record)
    }

    /// Ends what a process that is gone has begun. Does nothing while another one reverts.
    pub(crate) fn end_left_reverts(&self) -> ProviderResult<()> {
        if self.disk.subvolumes().is_none() || self.revert_records()?.is_empty() {
            return Ok(());
        }
        match self.revert_lock()? {
            Some(_lock) => self.end_reverts(),
            None => Ok(()),
        }
    }

    fn end_reverts(&self) -> ProviderResult<()> {
        for (path, record) in self.revert_records()? {
            self.end_revert(&path, &record)?;
        }
        Ok(())
    }

    /// Takes away what is left beside the volume: the old subvolume if the names were swapped, and otherwise the new one.
    fn end_revert(&self, journal: &Path, record: &RevertRecord) -> ProviderResult<()> {
        let (place, aside) = (Path::new(&record.place), Path::new(&record.aside));
        let failed =
            |error| ProviderError::io(format_args!("end the revert of {}", record.place), error);
        let at_place = self.disk.subvolume_at(place).map_err(failed)?;
        let at_aside = self.disk.subvolume_at(aside).map_err(failed)?;
        if let Some(left) = at_aside {
            // Either of the two may go only while the other is in its place.
            let is_swapped = left.uuid == record.old;
            let is_whole = at_place.is_some_and(|there| (there.uuid == record.old) != is_swapped);
            if !is_whole {
                let text = format!("neither {} nor {} is the volume", record.place, record.aside);
                return Err(ProviderError::new(ProviderErrorKind::Vanished, text)
                    .with_remedy("Put the subvolume that is wanted in the volume's place."));
            }
            self.disk.destroy(aside).map_err(failed)?;
        }
        let forget = || {
            self.disk.remove(&neighbour(journal)?)?;
            self.disk.remove(journal)?;
            self.disk.sync_dir(&self.reverts())
        };
        forget().map_err(failed)
    }

    fn revert_lock(&self) -> ProviderResult<Option<Lock>> {
        let path = self.reverts().join(LOCK);
        self.disk
            .lock(&path, Wait::No)
            .map_err(|error| ProviderError::io(format_args!("lock {}", path.display()), error))
    }

    /// One for each volume, so that what a crash leaves of its writing is overwritten by the next.
    fn revert_path(&self, volume: &Volume) -> PathBuf {
        let id = volume.reference.id.as_str();
        let name = id.rsplit('/').next().unwrap_or(id);
        self.reverts().join(format!("{name}.json"))
    }

    fn revert_records(&self) -> ProviderResult<Vec<(PathBuf, RevertRecord)>> {
        let folder = self.reverts();
        let failed = |error| {
            ProviderError::io(format_args!("list {}", folder.display()), error).without_effect()
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(format::read(&path)?.map(|record| (path, record)));
            }
        }
        Ok(records)
    }
}

/// Every file of the volumes that is not one of those for which the snapshots were taken.
fn collateral_of(cx: &Cx, wanted: &[Wanted<'_>]) -> ProviderResult<Collateral> {
    let mut collateral = Collateral::default();
    for wanted in wanted {
        let known = wanted.record.members.get(wanted.index);
        let known = |path: &str| {
            known.is_some_and(|member| member.files.iter().any(|file| file.path == path))
        };
        let mut open = vec![wanted.volume.path.clone()];
        while let Some(folder) = open.pop() {
            cx.check()?;
            let failed = |error| {
                ProviderError::io(format_args!("list {}", folder.display()), error)
                    .with_volume(wanted.volume.reference.clone())
                    .without_effect()
            };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    open.push(entry.path());
                    continue;
                }
                let path = entry.path();
                let below = path.strip_prefix(&wanted.volume.path).unwrap_or(&path);
                let below = text(below)?;
                if !known(&below) {
                    collateral.files.push(wanted.volume.root.join(&below)?);
                }
            }
        }
    }
    collateral.files.sort();
    Ok(collateral)
}
