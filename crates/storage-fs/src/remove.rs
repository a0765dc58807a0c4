//! `discard` and `delete`: taking away what is ours, and nothing else.
//!
//! ```text
//!   <token>.partial ──┐ rename
//!                     ├────────▶ <token>.discarded ──▶ (lock free) ──▶ removed
//!   <token> ──────────┘                 │
//!                              a commit that still runs holds the lock; it finds its folder moved,
//!                              stops, and removes it itself when it ends
//! ```

use std::fs;
use std::io;
use std::path::Path;

use stillpoint_context::Subject;
use stillpoint_model::id::{SetToken, SnapshotRef};
use stillpoint_storage::{Deleted, ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Wait, is_free, neighbour};
use crate::format;
use crate::store::{
    BEGUN, LOCK, PLAN, SET, Store, TAKEN, TRIAL, is_name, is_ours, member_folder, member_index,
    nothing_at,
};

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing is there.
    Gone,
    /// Work that still runs holds it.
    Waiting,
}

impl Store {
    /// Takes away a set in whatever state it is.
    pub(crate) fn discard(&self, token: &SetToken) -> ProviderResult<Removal> {
        loop {
            if let Some(record) = self.set_record(token)? {
                for member in record.members.iter().filter(|member| !member.deleted) {
                    self.refuse_exposed(token, &self.snapshot_volume(&member.volume))?;
                }
                if self.clear_discarded(token)? == Removal::Waiting {
                    return Ok(Removal::Waiting);
                }
                self.retire(token, &self.settled(token))?;
            }
            let swept = self.sweep(token)?;
            // A settle that was faster than we has made a settled set of the partial one meanwhile.
            if swept == Removal::Waiting || self.set_record(token)?.is_none() {
                return Ok(swept);
            }
        }
    }

    /// Takes away a set that is not settled.
    pub(crate) fn sweep(&self, token: &SetToken) -> ProviderResult<Removal> {
        if self.clear_discarded(token)? == Removal::Waiting {
            return Ok(Removal::Waiting);
        }
        let partial = self.partial(token);
        if !is_ours(&partial, token)? || !self.retire(token, &partial)? {
            return Ok(Removal::Gone);
        }
        self.clear_discarded(token)
    }

    /// Moves a set's folder out of the way of every commit and reader. `false` if it has gone meanwhile.
    fn retire(&self, token: &SetToken, folder: &Path) -> ProviderResult<bool> {
        refuse_strangers(folder)?;
        match self.disk.rename_new(folder, &self.discarded(token)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(ProviderError::io(format_args!("move away {}", folder.display()), error))
            }
        }
    }

    /// Removes a set that was moved away, unless somebody is still at it.
    fn clear_discarded(&self, token: &SetToken) -> ProviderResult<Removal> {
        let folder = self.discarded(token);
        if !is_name(token) || nothing_at(&folder)? {
            return Ok(Removal::Gone);
        }
        if !is_ours(&folder, token)? {
            // It may have been ours and gone this very moment.
            if nothing_at(&folder)? {
                return Ok(Removal::Gone);
            }
            let text = format!("{} is in the way and not ours", folder.display());
            return Err(ProviderError::new(ProviderErrorKind::NameTaken, text));
        }
        let failed = |error| ProviderError::io(format_args!("remove {}", folder.display()), error);
        let lock = match self.disk.lock(&folder.join(LOCK), Wait::No) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Removal::Waiting),
            Err(_) if nothing_at(&folder)? => return Ok(Removal::Gone),
            Err(error) => return Err(failed(error)),
        };
        self.remove_set(&folder).map_err(failed)?;
        self.disk.sync_dir(&self.sets()).map_err(failed)?;
        drop(lock);
        Ok(Removal::Gone)
    }

    /// Removes a set's folder; last of all that by which it is known as ours, so that the removal can be repeated after a
    /// crash.
    pub(crate) fn remove_set(&self, folder: &Path) -> io::Result<()> {
        let records = [neighbour(&folder.join(PLAN))?, folder.join(SET), folder.join(PLAN)];
        let lock = folder.join(LOCK);
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !records.contains(&path) && path != lock {
                self.disk.remove_tree(&path)?;
            }
        }
        for record in &records {
            self.disk.remove(record)?;
        }
        self.disk.remove(&lock)?;
        self.disk.remove_dir(folder)
    }

    /// Deletes one snapshot of a settled set, and the set with its last one.
    pub(crate) fn delete(&self, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let _known = self.volume(&snapshot.volume)?;
        let Ok(token) = SetToken::new(snapshot.id.as_str()) else {
            return self.refuse_foreign(snapshot);
        };
        let folder = self.settled(&token);
        let failed = |error| {
            ProviderError::io(format_args!("delete {snapshot}"), error)
                .with_volume(snapshot.volume.clone())
        };
        if self.set_record(&token)?.is_none() {
            if is_ours(&self.partial(&token), &token)? {
                let text = format!("the snapshot {snapshot} is not settled");
                return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                    .with_volume(snapshot.volume.clone())
                    .with_remedy("Discard its set.")
                    .without_effect());
            }
            // What a crash left of an earlier call.
            let _waiting = self.sweep(&token)?;
            return self.refuse_foreign(snapshot);
        }
        self.refuse_exposed(&token, &snapshot.volume)?;
        // Members of one set may be deleted side by side, and each rewrites the record.
        let lock = match self.disk.lock(&folder.join(LOCK), Wait::Yes) {
            Ok(lock) => lock,
            Err(_) if is_free(&folder).map_err(failed)? => return Ok(Deleted::Gone),
            Err(error) => return Err(failed(error)),
        };
        let Some(mut record) = self.set_record(&token)? else { return Ok(Deleted::Gone) };
        let place = record.members.iter().position(|m| m.volume == snapshot.volume.id);
        let Some((index, member)) = place.and_then(|i| Some((i, record.members.get_mut(i)?)))
        else {
            return Ok(Deleted::Gone);
        };
        let was_deleted = std::mem::replace(&mut member.deleted, true);
        member.files.clear();
        if record.members.iter().all(|member| member.deleted) {
            let _moved = self.retire(&token, &folder)?;
            drop(lock);
            let _waiting = self.clear_discarded(&token)?;
            return Ok(Deleted::Gone);
        }
        if !was_deleted {
            format::write(&self.disk, &folder.join(SET), &record, true)?;
        }
        self.disk.remove_tree(&member_folder(&folder, index)).map_err(failed)?;
        drop(lock);
        Ok(Deleted::Gone)
    }

    /// What is not ours is never touched; what is not there is gone.
    fn refuse_foreign(&self, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let id = snapshot.id.as_str();
        let names = !id.is_empty() && !id.contains('/') && id != "." && id != "..";
        if names && !nothing_at(&self.sets().join(id))? {
            let text = format!("{snapshot} is not ours");
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                .with_volume(snapshot.volume.clone())
                .without_effect());
        }
        Ok(Deleted::Gone)
    }
}

/// Refuses to remove a set's folder into which somebody has put something.
fn refuse_strangers(folder: &Path) -> ProviderResult<()> {
    let failed = |error| ProviderError::io(format_args!("read {}", folder.display()), error);
    let mut known = Vec::new();
    for name in [PLAN, TAKEN, SET, LOCK, BEGUN, TRIAL] {
        known.push(folder.join(name));
        known.push(neighbour(&folder.join(name)).map_err(failed)?);
    }
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_member = entry.file_name().to_str().is_some_and(|n| member_index(n).is_some());
        if !is_member && !known.contains(&entry.path()) {
            let path = entry.path();
            let text = format!("{} is not ours and lies in a set's folder", path.display());
            return Err(ProviderError::new(ProviderErrorKind::NameTaken, text)
                .with_subject(Subject::new("file", path.display()))
                .with_remedy("Move it out of the store, then repeat the call.")
                .without_effect());
        }
    }
    Ok(())
}
