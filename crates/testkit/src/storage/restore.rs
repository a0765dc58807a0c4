//! Cloning files out of simulated snapshots.

use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{Cx, HostPath};
use stillpoint_model::handover::{ExposedRoot, Exposure};
use stillpoint_model::id::{ExposureKey, ProviderId, SnapshotRef, VolumeRef};
use stillpoint_storage::{
    Collateral, Consent, ProviderError, ProviderErrorKind, ProviderResult, Published, RestoreKey,
    SnapshotRestore, StageSpec, Staged,
};

use super::{SimStorage, listed};
use crate::world::array::refuse;
use crate::world::state::{Entry, Stage, StagedFile, State};

/// A name of ours beside a target.
fn beside(target: &HostPath, suffix: &str) -> ProviderResult<HostPath> {
    let raw = format!("{}.{suffix}", target.as_str());
    Ok(HostPath::new(target.host().clone(), target.flavor(), raw)?)
}

fn no_snapshot(snapshot: &SnapshotRef) -> ProviderError {
    refuse(ProviderErrorKind::NotFound, format!("there is no snapshot {snapshot}"))
        .with_volume(snapshot.volume.clone())
}

impl State {
    fn stage(&mut self, spec: &StageSpec, provider: &ProviderId) -> ProviderResult<Staged> {
        let key = (provider.clone(), spec.key.clone());
        if self.stages.get(&key).is_some_and(|stage| stage.files.iter().any(|file| file.published))
        {
            let message = format!("restore {} is published already", spec.key);
            return Err(refuse(ProviderErrorKind::Busy, message));
        }
        self.unstage(&spec.key, provider);
        let mut files = Vec::new();
        let mut roots = Vec::new();
        let mut host = None;
        for wanted in &spec.files {
            let disk = self.volume_of(provider, &wanted.snapshot.volume)?;
            let missing = || {
                let message = format!("there is no {} in {}", wanted.original, wanted.snapshot);
                refuse(ProviderErrorKind::NotFound, message)
            };
            let snapshot = disk.snapshots.get(&wanted.snapshot.id).ok_or_else(missing)?;
            let (volume, inside) = self.locate(&wanted.original).ok_or_else(missing)?;
            if volume != wanted.snapshot.volume {
                return Err(missing());
            }
            let file = snapshot.files.get(&disk.key(&inside)).ok_or_else(missing)?;
            let bytes = Arc::clone(&file.bytes);
            if !spec.replace && self.read(&wanted.target).is_some() {
                let message = format!("something is at {}", wanted.target);
                return Err(refuse(ProviderErrorKind::NameTaken, message));
            }
            let staged = beside(&wanted.target, &format!("{}.staged", spec.key))?;
            roots.push(ExposedRoot::new(
                wanted.snapshot.clone(),
                wanted.original.clone(),
                staged.clone(),
            ));
            host.get_or_insert_with(|| wanted.target.host().clone());
            let target = wanted.target.clone();
            files.push(StagedFile { target, staged, kept: None, bytes, published: false });
        }
        let Some(host) = host else {
            return Err(refuse(ProviderErrorKind::Invalid, "there is nothing to restore"));
        };
        let exposure_key = ExposureKey::new(spec.key.as_str())
            .map_err(|error| refuse(ProviderErrorKind::Invalid, error.to_string()))?;
        let exposure = Exposure::new(exposure_key, host, roots);
        for file in &files {
            self.write(&file.staged, Some(Arc::clone(&file.bytes)));
        }
        let bytes = files.iter().map(|file| file.bytes.len() as u64).sum();
        let stage = Stage { files, replace: spec.replace, retracted: false };
        self.stages.insert(key, stage);
        Ok(Staged::new(spec.key.clone(), exposure, bytes))
    }

    fn unstage(&mut self, key: &RestoreKey, provider: &ProviderId) {
        let key = (provider.clone(), key.clone());
        let published = |stage: &Stage| stage.files.iter().any(|file| file.published);
        if self.stages.get(&key).is_none_or(published) {
            return;
        }
        if let Some(stage) = self.stages.remove(&key) {
            stage.files.iter().for_each(|file| self.write(&file.staged, None));
        }
    }

    fn publish(&mut self, key: &RestoreKey, provider: &ProviderId) -> ProviderResult<Published> {
        let full = (provider.clone(), key.clone());
        let staged = self.stages.get(&full).filter(|stage| !stage.retracted);
        let Some(mut stage) = staged.cloned() else {
            let message = format!("nothing is staged for restore {key}");
            return Err(refuse(ProviderErrorKind::NotFound, message));
        };
        for file in stage.files.iter().filter(|file| !file.published) {
            if self.is_live(&file.target) {
                let message = format!("{} is open in a mounted database", file.target);
                return Err(refuse(ProviderErrorKind::Busy, message));
            }
            if !stage.replace && self.read(&file.target).is_some() {
                let message = format!("something came to {}", file.target);
                return Err(refuse(ProviderErrorKind::NameTaken, message));
            }
        }
        for file in stage.files.iter_mut().filter(|file| !file.published) {
            if let Some(before) = self.read(&file.target) {
                let kept = beside(&file.target, &format!("{key}.kept"))?;
                self.write(&kept, Some(before));
                file.kept = Some(kept);
            }
            // What was staged is what is published, also if it was damaged meanwhile.
            let bytes = self.read(&file.staged).unwrap_or_else(|| Arc::clone(&file.bytes));
            self.write(&file.target, Some(bytes));
            self.write(&file.staged, None);
            file.published = true;
        }
        let files = stage.files.iter().map(|file| file.target.clone()).collect();
        let kept =
            stage.files.iter().filter_map(|file| Some((file.target.clone(), file.kept.clone()?)));
        let published = Published::new(files, kept.collect());
        self.stages.insert(full, stage);
        Ok(published)
    }

    fn retract(&mut self, key: &RestoreKey, provider: &ProviderId) -> ProviderResult<()> {
        let full = (provider.clone(), key.clone());
        let Some(mut stage) = self.stages.get(&full).cloned() else { return Ok(()) };
        let mut published = stage.files.iter().filter(|file| file.published);
        if let Some(file) = published.find(|file| self.is_live(&file.target)) {
            let message = format!("{} is open in a mounted database", file.target);
            return Err(refuse(ProviderErrorKind::Busy, message));
        }
        for file in stage.files.iter_mut().filter(|file| file.published) {
            let before = file.kept.as_ref().and_then(|kept| self.read(kept));
            self.write(&file.target, before);
            if let Some(kept) = file.kept.take() {
                self.write(&kept, None);
            }
            self.write(&file.staged, Some(Arc::clone(&file.bytes)));
            file.published = false;
        }
        stage.retracted = true;
        self.stages.insert(full, stage);
        Ok(())
    }

    /// What a revert would destroy: newer snapshots, and files that the chosen ones do not hold.
    fn collateral(
        &mut self,
        snapshots: &[SnapshotRef],
        provider: &ProviderId,
    ) -> ProviderResult<Collateral> {
        let mut collateral = Collateral::default();
        for chosen in snapshots {
            self.render_volume(&chosen.volume, self.now);
            let disk = self.volume_of(provider, &chosen.volume)?;
            let known = disk.snapshots.get(&chosen.id).ok_or_else(|| no_snapshot(chosen))?;
            let newer = disk.snapshots.iter().filter(|(_, other)| other.taken > known.taken);
            collateral
                .newer
                .extend(newer.map(|(id, _)| SnapshotRef::new(chosen.volume.clone(), id.clone())));
            let lost = disk.files.iter().filter(|(key, _)| !known.files.contains_key(*key));
            collateral.files.extend(lost.filter_map(|(_, f)| disk.path(&f.inside, &f.host)));
        }
        Ok(collateral)
    }

    fn revert(
        &mut self,
        snapshots: &[SnapshotRef],
        consent: &Consent,
        provider: &ProviderId,
    ) -> ProviderResult<Vec<VolumeRef>> {
        let collateral = self.collateral(snapshots, provider)?;
        if consent.0 != collateral {
            let message = "the consent is not to what would be lost now";
            return Err(refuse(ProviderErrorKind::Collateral, message));
        }
        for chosen in snapshots {
            let Some(disk) = self.volumes.get_mut(&chosen.volume) else { continue };
            disk.snapshots.retain(|id, _| {
                !collateral
                    .newer
                    .iter()
                    .any(|newer| newer.volume == chosen.volume && newer.id == *id)
            });
            if let Some(known) = disk.snapshots.get(&chosen.id) {
                disk.files.clone_from(&known.files);
            }
        }
        Ok(snapshots.iter().map(|chosen| chosen.volume.clone()).collect())
    }

    fn settle_restore(&mut self, key: &RestoreKey, provider: &ProviderId) {
        let Some(stage) = self.stages.remove(&(provider.clone(), key.clone())) else { return };
        for file in &stage.files {
            self.write(&file.staged, None);
            if let Some(kept) = &file.kept {
                self.write(kept, None);
            }
        }
    }
}

#[async_trait]
impl SnapshotRestore for SimStorage {
    async fn stage(&self, cx: &Cx, spec: &StageSpec) -> ProviderResult<Staged> {
        let about = format!("{} {} files", spec.key, spec.files.len());
        let (caps, spec) = (Arc::clone(&self.caps), spec.clone());
        let effect = move |state: &mut State, _: &Entry| state.stage(&spec, &caps.provider);
        self.perform(cx, "restore.stage", about, effect).await
    }

    async fn unstage(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let (caps, wanted) = (Arc::clone(&self.caps), key.clone());
        let effect = move |state: &mut State, _: &Entry| {
            state.unstage(&wanted, &caps.provider);
            Ok(())
        };
        self.perform(cx, "restore.unstage", key.to_string(), effect).await
    }

    async fn publish(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<Published> {
        let (caps, wanted) = (Arc::clone(&self.caps), key.clone());
        let effect = move |state: &mut State, _: &Entry| state.publish(&wanted, &caps.provider);
        self.perform(cx, "restore.publish", key.to_string(), effect).await
    }

    async fn retract(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let (caps, wanted) = (Arc::clone(&self.caps), key.clone());
        let effect = move |state: &mut State, _: &Entry| state.retract(&wanted, &caps.provider);
        self.perform(cx, "restore.retract", key.to_string(), effect).await
    }

    async fn settle(&self, cx: &Cx, key: &RestoreKey) -> ProviderResult<()> {
        let (caps, wanted) = (Arc::clone(&self.caps), key.clone());
        let effect = move |state: &mut State, _: &Entry| {
            state.settle_restore(&wanted, &caps.provider);
            Ok(())
        };
        self.perform(cx, "restore.settle", key.to_string(), effect).await
    }

    async fn collateral(&self, cx: &Cx, snapshots: &[SnapshotRef]) -> ProviderResult<Collateral> {
        let (caps, wanted) = (Arc::clone(&self.caps), snapshots.to_vec());
        let effect = move |state: &mut State, _: &Entry| {
            if !caps.revert {
                return Err(ProviderError::unsupported("revert"));
            }
            state.collateral(&wanted, &caps.provider)
        };
        self.perform(cx, "restore.collateral", listed(snapshots), effect).await
    }

    async fn revert(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        consent: &Consent,
    ) -> ProviderResult<Vec<VolumeRef>> {
        let (caps, wanted, consent) = (Arc::clone(&self.caps), snapshots.to_vec(), consent.clone());
        let effect = move |state: &mut State, _: &Entry| {
            if !caps.revert {
                return Err(ProviderError::unsupported("revert"));
            }
            state.revert(&wanted, &consent, &caps.provider)
        };
        self.perform(cx, "restore.revert", listed(snapshots), effect).await
    }
}
