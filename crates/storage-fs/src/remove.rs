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

use stillpoint_context::{Cx, Subject};
use stillpoint_model::id::{SetToken, SnapshotRef};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Wait, neighbour};
use crate::format;
use crate::hold::refuse_kept;
use crate::store::{
    BEGUN, LOCK, Owner, PLAN, SET, Store, TAKEN, TRIAL, glances, is_name, member_folder,
    member_index, nothing_at,
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
    pub(crate) fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Removal> {
        // Looked for in the order in which a set moves, so that none slips past; whatever was moved is looked at again.
        loop {
            if self.sweep(cx, token)? == Removal::Waiting {
                return Ok(Removal::Waiting);
            }
            if self.set_record(token)?.is_some() {
                if self.retire_settled(cx, token)? == Removal::Waiting {
                    return Ok(Removal::Waiting);
                }
            } else if nothing_at(&self.discarded(token))? || !is_name(token) {
                return Ok(Removal::Gone);
            }
        }
    }

    /// Takes away a set that is not settled.
    pub(crate) fn sweep(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Removal> {
        let partial = self.partial(token);
        loop {
            let is_there = self.owner(&partial, token)? == Owner::Ours;
            if self.clear_discarded(cx, token)? == Removal::Waiting {
                return Ok(Removal::Waiting);
            }
            if !is_there {
                return Ok(Removal::Gone);
            }
            self.retire(token, &partial)?;
        }
    }

    /// Moves a settled set out of the way, unless somebody reads from it or works on it.
    fn retire_settled(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Removal> {
        let folder = self.settled(token);
        let path = folder.join(LOCK);
        let failed = |error| ProviderError::io(format_args!("lock {}", folder.display()), error);
        let lock = match self.disk.lock(&path, Wait::ForGlances(&glances(cx))) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Removal::Waiting),
            // Moved by another call.
            Err(_) if nothing_at(&folder)? => return Ok(Removal::Gone),
            Err(error) => return Err(failed(error)),
        };
        if let Some(record) = self.set_record(token)? {
            self.refuse_kept_set(cx, &record)?;
            for member in record.members.iter().filter(|member| !member.deleted) {
                self.refuse_exposed(token, &self.snapshot_volume(&member.volume))?;
            }
            self.retire(token, &folder)?;
        }
        drop(lock);
        Ok(Removal::Gone)
    }

    /// Moves a set's folder out of the way of every commit and reader. If it has gone meanwhile, or one that was moved
    /// before is still in the way, nothing happens: the caller looks again.
    pub(crate) fn retire(&self, token: &SetToken, folder: &Path) -> ProviderResult<()> {
        refuse_strangers(folder)?;
        match self.disk.rename_new(folder, &self.discarded(token)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) =>
            {
                Err(ProviderError::io(format_args!("move away {}", folder.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a set that was moved away, unless somebody is still at it.
    fn clear_discarded(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Removal> {
        let folder = self.discarded(token);
        if !is_name(token) {
            return Ok(Removal::Gone);
        }
        match self.owner(&folder, token)? {
            Owner::Nobody => return Ok(Removal::Gone),
            Owner::Ours => {}
            Owner::Stranger => {
                let text = format!("{} is in the way and not ours", folder.display());
                return Err(ProviderError::new(ProviderErrorKind::NameTaken, text));
            }
        }
        let failed = |error| ProviderError::io(format_args!("remove {}", folder.display()), error);
        let lock = match self.disk.lock(&folder.join(LOCK), Wait::ForGlances(&glances(cx))) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Removal::Waiting),
            Err(_) if nothing_at(&folder)? => return Ok(Removal::Gone),
            Err(error) => return Err(failed(error)),
        };
        match self.remove_set(&folder) {
            Ok(()) => {}
            // Somebody who waited for us has made the lock anew before the folder was gone; he removes the rest.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Ok(Removal::Waiting);
            }
            Err(error) => return Err(failed(error)),
        }
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
    pub(crate) fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Removal> {
        let _known = self.volume(&snapshot.volume)?;
        let Ok(token) = SetToken::new(snapshot.id.as_str()) else {
            return self.refuse_foreign(snapshot);
        };
        let folder = self.settled(&token);
        let failed = |error| {
            ProviderError::io(format_args!("delete {snapshot}"), error)
                .with_volume(snapshot.volume.clone())
        };
        // In the order in which a set moves; one that moves while it is looked at is looked at again.
        loop {
            let is_partial = || -> ProviderResult<bool> {
                Ok(self.owner(&self.partial(&token), &token)? == Owner::Ours)
            };
            let was_partial = is_partial()?;
            if self.set_record(&token)?.is_none() {
                if was_partial && is_partial()? {
                    let text = format!("the snapshot {snapshot} is not settled");
                    return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                        .with_volume(snapshot.volume.clone())
                        .with_remedy("Discard its set.")
                        .without_effect());
                }
                if was_partial {
                    continue;
                }
                // What another call or a crash has left on its way out.
                if self.clear_discarded(cx, &token)? == Removal::Waiting {
                    return Ok(Removal::Waiting);
                }
                return self.refuse_foreign(snapshot);
            }
            // Members of one set may be deleted side by side, and each rewrites the record. An exposure, too, is only
            // made under this lock.
            let lock = match self.disk.lock(&folder.join(LOCK), Wait::Yes) {
                Ok(lock) => lock,
                Err(_) if nothing_at(&folder)? => continue,
                Err(error) => return Err(failed(error)),
            };
            let Some(mut record) = self.set_record(&token)? else { continue };
            let place = record.members.iter().position(|m| m.volume == snapshot.volume.id);
            let Some((index, member)) = place.and_then(|i| Some((i, record.members.get_mut(i)?)))
            else {
                return Ok(Removal::Gone);
            };
            if !member.deleted {
                refuse_kept(cx, member, &snapshot.volume, snapshot.id.as_str())?;
                self.refuse_exposed(&token, &snapshot.volume)?;
            }
            let was_deleted = std::mem::replace(&mut member.deleted, true);
            member.files.clear();
            member.holds.clear();
            member.locked_until = None;
            if record.members.iter().all(|member| member.deleted) {
                self.retire(&token, &folder)?;
                drop(lock);
                if self.clear_discarded(cx, &token)? == Removal::Waiting {
                    return Ok(Removal::Waiting);
                }
                continue;
            }
            if !was_deleted {
                format::write(&self.disk, &folder.join(SET), &record, true)?;
            }
            self.disk.remove_tree(&member_folder(&folder, index)).map_err(failed)?;
            drop(lock);
            return Ok(Removal::Gone);
        }
    }

    /// What is not ours is never touched; what is not there is gone.
    fn refuse_foreign(&self, snapshot: &SnapshotRef) -> ProviderResult<Removal> {
        let id = snapshot.id.as_str();
        let is_elsewhere =
            || -> ProviderResult<bool> { self.is_elsewhere(self.volume(&snapshot.volume)?, id) };
        let names = !id.is_empty() && !id.contains('/') && id != "." && id != "..";
        if names && (!nothing_at(&self.sets().join(id))? || is_elsewhere()?) {
            let text = format!("{snapshot} is not ours");
            return Err(ProviderError::new(ProviderErrorKind::Invalid, text)
                .with_volume(snapshot.volume.clone())
                .without_effect());
        }
        Ok(Removal::Gone)
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
