//! S7: restore by clone, and reverts.

use std::time::Duration;

use stillpoint_context::HostPath;
use stillpoint_model::id::SnapshotId;
use stillpoint_storage::{
    Collateral, Consent, PrepareSpec, ProviderErrorKind as Kind, RestoreKey, RestoredFile,
    Snapshot, SnapshotProvider, SnapshotRestore, StageSpec,
};

use super::super::frame::{Flaw, ensure, poll_and_drop, same};
use super::trial::{Bytes, Trial, patiently, placed, refused, stamped, told};

/// A settled set, what it holds, and where its files are to be restored to.
struct Lab {
    spec: PrepareSpec,
    snapshots: Vec<Snapshot>,
    seen: Bytes,
    /// Original and target.
    files: Vec<(HostPath, HostPath)>,
}

impl Lab {
    async fn new(trial: &Trial) -> Result<Self, Flaw> {
        let spec = trial.spec()?;
        trial.stamp(1).await?;
        let seen = trial.live(&spec).await?;
        let snapshots = trial.settled(&spec).await?;
        trial.stamp(2).await?;
        let folder = trial.ground.targets.as_ref();
        let folder = folder.ok_or_else(|| Flaw::new("there is no folder to restore to"))?;
        let mut files = Vec::new();
        for original in seen.keys() {
            let target = folder.join(&trial.name()).map_err(|e| Flaw::new(e.to_string()))?;
            files.push((original.clone(), target));
        }
        Ok(Self { spec, snapshots, seen, files })
    }

    fn stage(&self, key: &RestoreKey) -> Result<StageSpec, Flaw> {
        let mut files = Vec::new();
        for (original, target) in &self.files {
            let holds = |volume| {
                let member = self.spec.members.iter().find(|member| member.volume == volume);
                member.is_some_and(|member| member.files.contains(original))
            };
            let snapshot = self.snapshots.iter().find(|snapshot| holds(snapshot.volume.clone()));
            let snapshot = snapshot.ok_or_else(|| Flaw::new("a file is in no snapshot"))?;
            files.push(RestoredFile {
                snapshot: snapshot.reference(),
                original: original.clone(),
                target: target.clone(),
            });
        }
        Ok(StageSpec::new(key.clone(), files))
    }

    /// That every target holds what the set holds.
    async fn is_restored(&self, trial: &Trial, what: &str) -> Result<(), Flaw> {
        for (original, target) in &self.files {
            let found = trial.read(target).await?;
            ensure(found.as_ref() == self.seen.get(original), || {
                format!("{what}: {target} holds {}", told(found.as_deref()))
            })?;
        }
        Ok(())
    }

    /// That every target holds these bytes, or nothing.
    async fn targets_are(
        &self,
        trial: &Trial,
        what: &str,
        wanted: Option<&[u8]>,
    ) -> Result<(), Flaw> {
        for (_, target) in &self.files {
            let found = trial.read(target).await?;
            ensure(found.as_deref() == wanted, || {
                format!(
                    "{what}: {target} holds {}, wanted {}",
                    told(found.as_deref()),
                    told(wanted)
                )
            })?;
        }
        Ok(())
    }

    async fn write_targets(&self, trial: &Trial, bytes: &[u8]) -> Result<(), Flaw> {
        for (_, target) in &self.files {
            placed("write", trial.place.write(target, bytes).await)?;
        }
        Ok(())
    }

    async fn end(self, trial: &Trial) -> Result<(), Flaw> {
        for (_, target) in &self.files {
            if trial.read(target).await?.is_some() {
                placed("remove", trial.place.remove(target).await)?;
            }
        }
        trial.clear(&self.spec.token).await
    }
}

fn side(provider: &dyn SnapshotProvider) -> Result<&dyn SnapshotRestore, Flaw> {
    provider.restore().ok_or_else(|| Flaw::new("it restores by clone, and has no side for it"))
}

/// Takes a restore back, whatever of it there is.
async fn undo(trial: &Trial, key: &RestoreKey) -> Result<(), Flaw> {
    let provider = trial.provider()?;
    let restore = side(&*provider)?;
    patiently!(trial, restore.retract(trial.cx(), key))?;
    patiently!(trial, restore.unstage(trial.cx(), key))?;
    Ok(())
}

pub(super) async fn what_is_staged_can_be_read_and_is_not_at_its_target(
    trial: Trial,
) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    let staged = restore.stage(trial.cx(), &lab.stage(&key)?).await?;
    same("the key of what is staged", &staged.key, &key)?;
    trial.shows("what is staged", &staged.exposure, &lab.seen).await?;
    lab.targets_are(&trial, "when it is only staged", None).await?;
    for _ in 0..2 {
        restore.unstage(trial.cx(), &key).await?;
        lab.targets_are(&trial, "when it was unstaged", None).await?;
    }
    for (original, _) in &lab.files {
        let left = match staged.exposure.find(original) {
            Some(place) => trial.read(&place).await?,
            None => None,
        };
        ensure(left.is_none(), || format!("what was staged of {original} is left"))?;
    }
    lab.end(&trial).await
}

pub(super) async fn publishing_puts_files_at_their_targets(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    // Staged again it starts anew.
    restore.stage(trial.cx(), &lab.stage(&key)?).await?;
    restore.stage(trial.cx(), &lab.stage(&key)?).await?;
    let published = restore.publish(trial.cx(), &key).await?;
    lab.is_restored(&trial, "what was published").await?;
    let mut files = published.files.clone();
    files.sort();
    let mut wanted: Vec<_> = lab.files.iter().map(|(_, target)| target.clone()).collect();
    wanted.sort();
    same("the files that were published", &files, &wanted)?;
    same("what was in the way", &published.kept, &Vec::new())?;
    same("publishing again", &restore.publish(trial.cx(), &key).await?, &published)?;
    for _ in 0..2 {
        restore.settle(trial.cx(), &key).await?;
        lab.is_restored(&trial, "a settled restore").await?;
    }
    // What is restored is a file like any other: the snapshot does not change with it.
    lab.write_targets(&trial, &stamped(9)).await?;
    trial.hold("a snapshot that was restored from", &lab.snapshots, &lab.seen).await?;
    lab.end(&trial).await
}

pub(super) async fn what_is_in_the_way_is_refused_unless_asked(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    lab.write_targets(&trial, &stamped(7)).await?;
    let staged = restore.stage(trial.cx(), &lab.stage(&key)?).await;
    refused("staging where something is", staged, &Kind::NameTaken)?;
    lab.targets_are(&trial, "when it was refused", Some(&stamped(7))).await?;
    for (_, target) in &lab.files {
        placed("remove", trial.place.remove(target).await)?;
    }
    restore.stage(trial.cx(), &lab.stage(&key)?).await?;
    lab.write_targets(&trial, &stamped(8)).await?;
    let published = restore.publish(trial.cx(), &key).await;
    refused("publishing where something came", published, &Kind::NameTaken)?;
    lab.targets_are(&trial, "when it was refused", Some(&stamped(8))).await?;
    undo(&trial, &key).await?;
    lab.targets_are(&trial, "when it was taken back", Some(&stamped(8))).await?;
    lab.end(&trial).await
}

pub(super) async fn what_was_in_the_way_is_put_back(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    lab.write_targets(&trial, &stamped(7)).await?;
    restore.stage(trial.cx(), &lab.stage(&key)?.replacing()).await?;
    lab.targets_are(&trial, "when it is only staged", Some(&stamped(7))).await?;
    let published = restore.publish(trial.cx(), &key).await?;
    lab.is_restored(&trial, "what was published in the place of another").await?;
    for (_, target) in &lab.files {
        let kept = published.kept.iter().find(|(was, _)| was == target);
        let Some((_, kept)) = kept else {
            return Err(Flaw::new(format!("what was at {target} is not kept: {published:?}")));
        };
        let found = trial.read(kept).await?;
        ensure(found == Some(stamped(7)), || {
            format!("what was in the way is kept as {}", told(found.as_deref()))
        })?;
    }
    for _ in 0..2 {
        restore.retract(trial.cx(), &key).await?;
        lab.targets_are(&trial, "when it was taken back", Some(&stamped(7))).await?;
    }
    restore.unstage(trial.cx(), &key).await?;
    lab.targets_are(&trial, "when it was unstaged", Some(&stamped(7))).await?;
    for (_, kept) in &published.kept {
        ensure(trial.read(kept).await?.is_none(), || format!("{kept} is left"))?;
    }
    lab.end(&trial).await
}

pub(super) async fn what_was_taken_back_is_not_published(trial: Trial) -> Result<(), Flaw> {
    for published in [false, true] {
        let lab = Lab::new(&trial).await?;
        let (provider, key) = (trial.provider()?, trial.restore_key()?);
        let restore = side(&*provider)?;
        restore.stage(trial.cx(), &lab.stage(&key)?).await?;
        if published {
            restore.publish(trial.cx(), &key).await?;
        }
        restore.retract(trial.cx(), &key).await?;
        let late = restore.publish(trial.cx(), &key).await;
        refused("publishing what was taken back", late, &Kind::NotFound)?;
        lab.targets_are(&trial, "when it was taken back", None).await?;
        restore.stage(trial.cx(), &lab.stage(&key)?).await?;
        restore.publish(trial.cx(), &key).await?;
        lab.is_restored(&trial, "what was staged anew and published").await?;
        undo(&trial, &key).await?;
        lab.end(&trial).await?;
    }
    Ok(())
}

pub(super) async fn a_settled_restore_cannot_be_taken_back(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    lab.write_targets(&trial, &stamped(7)).await?;
    restore.stage(trial.cx(), &lab.stage(&key)?.replacing()).await?;
    let published = restore.publish(trial.cx(), &key).await?;
    restore.settle(trial.cx(), &key).await?;
    for (_, kept) in &published.kept {
        ensure(trial.read(kept).await?.is_none(), || format!("{kept} is kept for ever"))?;
    }
    undo(&trial, &key).await?;
    lab.is_restored(&trial, "a settled restore that was to be taken back").await?;
    lab.end(&trial).await
}

pub(super) async fn restores_that_never_were_are_undone(trial: Trial) -> Result<(), Flaw> {
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    restore.retract(trial.cx(), &key).await?;
    restore.unstage(trial.cx(), &key).await?;
    restore.settle(trial.cx(), &key).await?;
    let published = restore.publish(trial.cx(), &key).await;
    refused("publishing what was never staged", published, &Kind::NotFound).map(drop)
}

pub(super) async fn what_is_not_there_is_not_restored(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let (provider, key) = (trial.provider()?, trial.restore_key()?);
    let restore = side(&*provider)?;
    let mut spec = lab.stage(&key)?;
    let id = SnapshotId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    if let Some(last) = spec.files.last_mut() {
        last.snapshot.id = id;
    }
    let staged = restore.stage(trial.cx(), &spec).await;
    refused("staging out of a snapshot that is not there", staged, &Kind::NotFound)?;
    let mut spec = lab.stage(&key)?;
    let missing = trial.first()?.root.join(&trial.name()).map_err(|e| Flaw::new(e.to_string()))?;
    if let Some(last) = spec.files.last_mut() {
        last.original = missing;
    }
    let staged = restore.stage(trial.cx(), &spec).await;
    refused("staging a file that is not in the snapshot", staged, &Kind::NotFound)?;
    undo(&trial, &key).await?;
    lab.targets_are(&trial, "when it was refused", None).await?;
    lab.end(&trial).await
}

pub(super) async fn a_restore_that_was_dropped_is_undone(trial: Trial) -> Result<(), Flaw> {
    for polls in 0..6 {
        let lab = Lab::new(&trial).await?;
        let (provider, key) = (trial.provider()?, trial.restore_key()?);
        let restore = side(&*provider)?;
        lab.write_targets(&trial, &stamped(7)).await?;
        let spec = lab.stage(&key)?.replacing();
        if polls % 2 == 0 {
            poll_and_drop(restore.stage(trial.cx(), &spec), polls / 2).await;
        } else {
            restore.stage(trial.cx(), &spec).await?;
            poll_and_drop(restore.publish(trial.cx(), &key), polls / 2).await;
        }
        undo(&trial, &key).await?;
        trial.let_pass().await;
        lab.targets_are(&trial, "when what was dropped was taken back", Some(&stamped(7))).await?;
        lab.end(&trial).await?;
    }
    Ok(())
}

pub(super) async fn a_restore_goes_on_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let lab = Lab::new(&trial).await?;
    let key = trial.restore_key()?;
    lab.write_targets(&trial, &stamped(7)).await?;
    side(&*trial.provider()?)?.stage(trial.cx(), &lab.stage(&key)?.replacing()).await?;
    trial.reopen().await?;
    let published = side(&*trial.provider()?)?.publish(trial.cx(), &key).await?;
    lab.is_restored(&trial, "what was published after a crash").await?;
    trial.reopen().await?;
    let again = side(&*trial.provider()?)?.publish(trial.cx(), &key).await?;
    same("publishing again after a crash", &again, &published)?;
    trial.reopen().await?;
    undo(&trial, &key).await?;
    lab.targets_are(&trial, "when it was taken back after a crash", Some(&stamped(7))).await?;
    lab.end(&trial).await
}

pub(super) async fn a_revert_needs_consent_to_what_it_destroys(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let old = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    // Newer by the storage's clock, too.
    trial.wait(Duration::from_millis(10)).await;
    let newer = trial.one()?;
    let new = trial.settled(&newer).await?;
    trial.stamp(3).await?;
    let now = trial.live(&spec).await?;
    let (provider, cx) = (trial.provider()?, trial.cx());
    let restore =
        provider.restore().ok_or_else(|| Flaw::new("it reverts, and has no side for it"))?;
    let references: Vec<_> = old.iter().map(Snapshot::reference).collect();
    let collateral = restore.collateral(cx, &references).await?;
    for snapshot in &new {
        ensure(collateral.newer.contains(&snapshot.reference()), || {
            format!("the collateral does not name {}, which is newer", snapshot.reference())
        })?;
    }
    let nothing = Consent(Collateral::default());
    let reverted = restore.revert(cx, &references, &nothing).await;
    refused("a revert without consent", reverted, &Kind::Collateral)?;
    same("the files after a refused revert", &trial.live(&spec).await?, &now)?;
    let volumes = restore.revert(cx, &references, &Consent(collateral)).await?;
    same("the volumes that were reverted", &volumes, &vec![trial.first()?.volume.clone()])?;
    same("the files after a revert", &trial.live(&spec).await?, &seen)?;
    trial.clear(&newer.token).await?;
    trial.clear(&spec.token).await
}
