//! Exposures and documents: small files of the store, each put in its place at one instant.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use stillpoint_context::{HostId, HostPath};
use stillpoint_model::handover::{ExposedRoot, Exposure};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_storage::{DocName, ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Lock, Wait, neighbour};
use crate::format::{self, ExposureRecord};
use crate::store::{LOCK, Store, nothing_at};

impl Store {
    /// The stored folders themselves are the exposure: they are read-only.
    pub(crate) fn expose(
        &self,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        if *to != self.host {
            let text = format!("the snapshots can be read on {} only, not on {to}", self.host);
            return Err(
                ProviderError::new(ProviderErrorKind::Unsupported("expose"), text).without_effect()
            );
        }
        // Held until the exposure is in the journal: what is exposed cannot be deleted in between.
        let _locks = self.lock_sets(snapshots)?;
        let mut roots = Vec::new();
        for snapshot in snapshots {
            let (record, index) = self.snapshot_record(snapshot)?;
            let Some(member) = record.members.get(index) else { continue };
            let exposed = self.host_path(&member.folder(&self.settled(&record.token), index))?;
            let root =
                |original: HostPath| ExposedRoot::new(snapshot.clone(), original, exposed.clone());
            roots.push(root(member.root.clone()));
            if member.real_root != member.root {
                roots.push(root(member.real_root.clone()));
            }
        }
        let record = ExposureRecord { exposure: Exposure::new(key.clone(), to.clone(), roots) };
        let path = self.exposure_path(key);
        let bytes = format::encode(&record)?;
        loop {
            self.disk.look(&path);
            if let Some(known) = format::read::<ExposureRecord>(&path)? {
                if known.exposure == record.exposure {
                    return Ok(known.exposure);
                }
                let text = format!("the exposure {key} is open with other snapshots");
                return Err(ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect());
            }
            if !nothing_at(&path)? {
                // Unless another call has opened it this very moment.
                if format::read::<ExposureRecord>(&path)?.is_some() {
                    continue;
                }
                let text = format!("{} is in the way and not ours", path.display());
                return Err(ProviderError::new(ProviderErrorKind::NameTaken, text).without_effect());
            }
            match self.disk.put_new(&path, &bytes) {
                Ok(()) => return Ok(record.exposure),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(ProviderError::io(format_args!("write {}", path.display()), error));
                }
            }
        }
    }

    /// Locks the sets of these snapshots, in the order of their tokens, so that two calls never wait for each other.
    fn lock_sets(&self, snapshots: &[SnapshotRef]) -> ProviderResult<Vec<Lock>> {
        let mut tokens = BTreeMap::new();
        for snapshot in snapshots {
            let (record, _) = self.snapshot_record(snapshot)?;
            tokens.insert(record.token, snapshot);
        }
        let mut locks = Vec::new();
        for (token, snapshot) in tokens {
            let folder = self.settled(&token);
            match self.disk.lock(&folder.join(LOCK), Wait::Yes) {
                Ok(lock) => locks.extend(lock),
                Err(error) => {
                    // If it was moved away meanwhile, that is the reason.
                    self.snapshot_record(snapshot)?;
                    return Err(ProviderError::io(
                        format_args!("lock {}", folder.display()),
                        error,
                    ));
                }
            }
        }
        Ok(locks)
    }

    pub(crate) fn unexpose(&self, key: &ExposureKey) -> ProviderResult<()> {
        let path = self.exposure_path(key);
        if format::read::<ExposureRecord>(&path)?.is_none() {
            return Ok(());
        }
        self.disk
            .remove(&path)
            .and_then(|()| self.disk.sync_dir(&self.exposures_dir()))
            .map_err(|error| ProviderError::io(format_args!("remove {}", path.display()), error))
    }

    pub(crate) fn exposures(&self) -> ProviderResult<Vec<Exposure>> {
        let folder = self.exposures_dir();
        let failed = |error| {
            ProviderError::io(format_args!("list {}", folder.display()), error).without_effect()
        };
        let mut exposures = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let record: Option<ExposureRecord> = format::read(&path)?;
            exposures.extend(
                record
                    .map(|record| record.exposure)
                    .filter(|exposure| self.exposure_path(&exposure.key) == path),
            );
        }
        exposures.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(exposures)
    }

    /// Refuses to remove a snapshot from which somebody may be reading.
    pub(crate) fn refuse_exposed(
        &self,
        token: &SetToken,
        volume: &VolumeRef,
    ) -> ProviderResult<()> {
        let uses = |exposure: &Exposure| {
            exposure.roots.iter().any(|root| {
                root.snapshot.volume == *volume && root.snapshot.id.as_str() == token.as_str()
            })
        };
        let Some(exposure) = self.exposures()?.into_iter().find(uses) else { return Ok(()) };
        let text = format!("the snapshot {token} of {volume} is exposed as {}", exposure.key);
        Err(ProviderError::new(ProviderErrorKind::Dependents, text)
            .with_volume(volume.clone())
            .with_remedy("End the exposure first.")
            .without_effect())
    }

    pub(crate) fn put_doc(&self, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        let path = self.doc(name);
        self.disk
            .replace(&path, bytes, true)
            .map_err(|error| ProviderError::io(format_args!("write {}", path.display()), error))
    }

    pub(crate) fn doc_bytes(&self, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        let path = self.doc(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(ProviderError::io(format_args!("read {}", path.display()), error)
                    .without_effect())
            }
        }
    }

    pub(crate) fn doc_names(&self) -> ProviderResult<Vec<DocName>> {
        let folder = self.docs();
        let failed = |error| {
            ProviderError::io(format_args!("list {}", folder.display()), error).without_effect()
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| DocName::new(name).ok());
            if entry.file_type().map_err(failed)?.is_file() {
                names.extend(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn delete_doc(&self, name: &DocName) -> ProviderResult<()> {
        let path = self.doc(name);
        let removed = || {
            self.disk.remove(&neighbour(&path)?)?;
            self.disk.remove(&path)?;
            self.disk.sync_dir(&self.docs())
        };
        removed()
            .map_err(|error| ProviderError::io(format_args!("remove {}", path.display()), error))
    }
}
