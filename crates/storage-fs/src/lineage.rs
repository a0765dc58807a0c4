//! Which volume a subvolume is.
//!
//! A volume over a file system with subvolumes is known by the UUIDs of the file system and of its first subvolume, never by
//! its path. A revert puts another subvolume in the place of the one before; that both are one volume is written down in the
//! store, before the one is put in the place of the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use stillpoint_model::id::{VolumeId, VolumeRef};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};
use uuid::Uuid;

use crate::config::{FsConfig, StorePlace};
use crate::disk::{Disk, Wait, open_folder};
use crate::format::{self, LineageRecord};
use crate::store::{Store, text};
use crate::subvolume::{Subvolume, Subvolumes};
use crate::volume::Volume;

/// What volumes a store knows.
#[derive(Debug)]
pub(crate) struct Lineages<'a> {
    disk: &'a Disk,
    folder: PathBuf,
}

impl<'a> Lineages<'a> {
    fn of(disk: &'a Disk, root: &Path) -> Self {
        Self { disk, folder: root.join("volumes") }
    }

    fn all(&self) -> ProviderResult<Vec<(PathBuf, LineageRecord)>> {
        let failed = |error| {
            ProviderError::io(format_args!("list {}", self.folder.display()), error)
                .without_effect()
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(format::read(&path)?.map(|record| (path, record)));
            }
        }
        records.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(records)
    }

    /// The volume that a subvolume is; one that was never seen becomes one of its own.
    fn volume(&self, subvolume: &Subvolume, place: &Path) -> ProviderResult<VolumeId> {
        let place = text(place)?;
        let known = self.all()?.into_iter().find(|(_, r)| r.subvolumes.contains(&subvolume.uuid));
        match known {
            Some((_, record)) if record.place == place => Ok(record.volume),
            Some((path, mut record)) => {
                record.place = place;
                format::write(self.disk, &path, &record, true)?;
                Ok(record.volume)
            }
            None => {
                let id = format!("{}/{}", subvolume.filesystem, subvolume.uuid);
                let volume = VolumeId::new(id).map_err(|error| {
                    ProviderError::new(ProviderErrorKind::Internal, error.to_string())
                        .with_source(error)
                })?;
                let subvolumes = BTreeSet::from([subvolume.uuid]);
                let record = LineageRecord { volume: volume.clone(), subvolumes, place };
                let path = self.folder.join(format!("{}.json", subvolume.uuid));
                format::write(self.disk, &path, &record, true)?;
                Ok(volume)
            }
        }
    }

    /// The volume that was at a place where nothing is any more.
    fn gone(&self, place: &Path) -> ProviderResult<Option<VolumeId>> {
        let place = text(place)?;
        let mut here = self.all()?.into_iter().filter(|(_, record)| record.place == place);
        Ok(match (here.next(), here.next()) {
            (Some((_, record)), None) => Some(record.volume),
            _ => None,
        })
    }
}

/// Refuses, before anything is made, what is not there to be snapped as a subvolume. Over files there is nothing to refuse.
pub(crate) fn check_volumes(
    volumes: &[Volume],
    place: &StorePlace,
    disk: &Disk,
) -> ProviderResult<()> {
    let Some(subvolumes) = disk.subvolumes() else { return Ok(()) };
    for volume in volumes.iter().filter(|volume| volume.path.is_dir()) {
        let folder = volume.path.display();
        let kind = open_folder(&volume.path).and_then(|at| subvolumes.filesystem(&at));
        let kind = kind.map_err(|error| {
            ProviderError::io(format_args!("ask for the file system of {folder}"), error)
                .without_effect()
        })?;
        if kind.is_none() {
            return Err(of_another_kind(subvolumes, &format!("the volume {folder}")));
        }
    }
    let filesystem = file_system(subvolumes, place)?;
    for volume in volumes {
        let found = subvolume_of(volume, filesystem, place, disk)?;
        // One that is gone is known by the records of the store.
        if found.is_none() && !place.root.join("volumes").is_dir() {
            return Err(none_at(&volume.path));
        }
    }
    Ok(())
}

/// The file system on which the store is, or will be.
fn file_system(subvolumes: &dyn Subvolumes, place: &StorePlace) -> ProviderResult<Uuid> {
    let root = &place.root;
    let at_store = |error| {
        ProviderError::io(format_args!("ask for the file system of {}", root.display()), error)
            .without_effect()
    };
    let store = open_folder(&place.existing).map_err(at_store)?;
    let Some(filesystem) = subvolumes.filesystem(&store).map_err(at_store)? else {
        return Err(of_another_kind(subvolumes, &format!("the store {}", root.display())));
    };
    // Refused to those who may not look for snapshots, so that they hear it now.
    let inode = std::os::unix::fs::MetadataExt::ino(&store.metadata().map_err(at_store)?);
    let _may_look = subvolumes
        .root(&store)
        .and_then(|of| subvolumes.path(&store, of, inode))
        .map_err(at_store)?;
    Ok(filesystem)
}

/// The subvolume at a volume's folder, which has to be on this file system; none if the folder is gone.
fn subvolume_of(
    volume: &Volume,
    filesystem: Uuid,
    place: &StorePlace,
    disk: &Disk,
) -> ProviderResult<Option<Subvolume>> {
    let (folder, named) = (&volume.path, &volume.name);
    let failed = |error| {
        ProviderError::io(format_args!("ask what {} is", folder.display()), error).without_effect()
    };
    let Some(subvolume) = disk.subvolume_at(folder).map_err(failed)? else {
        if !folder.is_dir() {
            return Ok(None);
        }
        let text = format!("the volume {named} at {} is no subvolume", folder.display());
        let error = ProviderError::new(ProviderErrorKind::Invalid, text).without_effect();
        return Err(error
            .with_remedy("Name the root of a subvolume; make one with `btrfs subvolume create`."));
    };
    if subvolume.filesystem != filesystem {
        let text = format!(
            "the volume {named} at {} lies on another file system than the store {}",
            folder.display(),
            place.root.display()
        );
        return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
            .with_remedy("Put the store on the file system of the volumes, outside every volume.")
            .without_effect());
    }
    Ok(Some(subvolume))
}

fn of_another_kind(subvolumes: &dyn Subvolumes, what: &str) -> ProviderError {
    let name = subvolumes.name();
    let text = format!("{what} does not lie on a {name}");
    ProviderError::new(ProviderErrorKind::Invalid, text)
        .with_remedy(format!(
            "It is no {name}: put volumes and store on one, or have files cloned or copied instead."
        ))
        .without_effect()
}

fn none_at(folder: &Path) -> ProviderError {
    let text = format!("there is no subvolume at {}", folder.display());
    ProviderError::new(ProviderErrorKind::NotFound, text).without_effect()
}

/// Names the volumes after their subvolumes.
pub(crate) fn name_volumes(
    config: &FsConfig,
    volumes: &mut [Volume],
    root: &Path,
    disk: &Disk,
) -> ProviderResult<()> {
    let Some(subvolumes) = disk.subvolumes() else { return Ok(()) };
    // Asked again: it may have been mounted elsewhere since.
    let place = StorePlace { root: root.to_owned(), existing: root.to_owned() };
    let filesystem = file_system(subvolumes, &place)?;
    let lineages = Lineages::of(disk, root);
    let lock = disk
        .lock(&root.join(".probe"), Wait::Yes)
        .map_err(|error| ProviderError::io(format_args!("lock {}", root.display()), error))?;
    for index in 0..volumes.len() {
        let Some(volume) = volumes.get(index) else { break };
        let (folder, named) = (volume.path.clone(), volume.name.clone());
        let id = match subvolume_of(volume, filesystem, &place, disk)? {
            Some(subvolume) => lineages.volume(&subvolume, &folder)?,
            None => lineages.gone(&folder)?.ok_or_else(|| none_at(&folder))?,
        };
        let reference = VolumeRef::new(config.provider.clone(), id);
        if let Some(twin) = volumes.iter().take(index).find(|v| v.reference == reference) {
            let text = format!("the volumes {} and {named} are one", twin.name);
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text).without_effect());
        }
        if let Some(volume) = volumes.get_mut(index) {
            volume.reference = reference;
        }
    }
    disk.remove(&root.join(".probe"))
        .map_err(|error| ProviderError::io(format_args!("unlock {}", root.display()), error))?;
    drop(lock);
    Ok(())
}

impl Store {
    /// The subvolumes that are, or have been, a volume.
    pub(crate) fn lineage(&self, volume: &Volume) -> ProviderResult<BTreeSet<Uuid>> {
        let mut subvolumes = BTreeSet::new();
        for (_, record) in Lineages::of(&self.disk, &self.root).all()? {
            if record.volume == volume.reference.id {
                subvolumes.extend(record.subvolumes);
            }
        }
        Ok(subvolumes)
    }

    /// Writes down that another subvolume is going to be this volume.
    pub(crate) fn extend_lineage(&self, volume: &Volume, with: Uuid) -> ProviderResult<()> {
        for (path, mut record) in Lineages::of(&self.disk, &self.root).all()? {
            if record.volume == volume.reference.id && record.subvolumes.insert(with) {
                format::write(&self.disk, &path, &record, true)?;
            }
        }
        Ok(())
    }

    /// The subvolume that is at a volume's folder now.
    pub(crate) fn live(&self, volume: &Volume) -> ProviderResult<Subvolume> {
        let at = self.disk.subvolume_at(&volume.path).map_err(|error| {
            ProviderError::io(format_args!("ask what {} is", volume.path.display()), error)
                .with_volume(volume.reference.clone())
                .without_effect()
        })?;
        let error = |text| {
            ProviderError::new(ProviderErrorKind::NotFound, text)
                .with_volume(volume.reference.clone())
                .without_effect()
        };
        let Some(subvolume) = at else {
            let place = volume.path.display();
            return Err(error(format!("there is no subvolume at {place}"))
                .with_remedy("Mount it, or restore it, then try again."));
        };
        if self.lineage(volume)?.contains(&subvolume.uuid) {
            return Ok(subvolume);
        }
        let text = format!(
            "the subvolume at {} is not the volume {} any more",
            volume.path.display(),
            volume.reference
        );
        Err(error(text).with_remedy("Open the provider again to take it as a volume of its own."))
    }
}
