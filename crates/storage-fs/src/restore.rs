//! Bringing files back: beside their targets first, checked, then moved to them.
//!
//! ```text
//!                 stage                      publish                     settle
//!   (nothing) ──────────▶ staging ─▶ staged ─────────▶ publishing ─▶ published ──────▶ (nothing)
//!       ▲                    │         │  ▲                 │            │
//!       │      unstage       │         │  └──── failed ─────┤            │ retract
//!       └────────────────────┴─────────┘                    ▼            ▼
//!       └──────────────────── unstage ◀── retracted ◀─── retracting ◀────┘
//!                                             ▲
//!                 staging, staged ── retract ─┘     whatever publication may still begin finds nothing to publish
//!
//!   <target's folder>/.stillpoint-restore-<key>/     the nearest folder that exists, so on the target's file system
//!     ├── new/<n>/<name>                             staged files; <n> stands for the folder of the original
//!     └── kept/<i>/<name>                            what was in the way of the i-th file
//! ```
//!
//! The journal in the store (`restores/<key>.json`) is durable before anything that it speaks of is begun. Every step
//! between two of its phases is told by the identity of the files on disk (device and inode), so that it can be repeated or
//! taken back from wherever a crash left it.

mod publish;
mod stage;
mod undo;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult, RestoreKey};

pub(crate) use undo::Undone;

use crate::disk::{Lock, Wait};
use crate::flight::Flight;
use crate::format::{self, Phase, RestoreRecord};
use crate::store::{Store, nothing_at};

impl Store {
    fn restore_lock_path(&self, key: &RestoreKey) -> PathBuf {
        self.restores().join(format!("{key}.lock"))
    }

    fn restore_stop_path(&self, key: &RestoreKey) -> PathBuf {
        self.restores().join(format!("{key}.stop"))
    }

    /// The right to work on a restore; `None` if somebody else is at it.
    fn restore_lock(&self, key: &RestoreKey) -> ProviderResult<Option<Lock>> {
        let path = self.restore_lock_path(key);
        self.disk
            .lock(&path, Wait::No)
            .map_err(|error| ProviderError::io(format_args!("lock {}", path.display()), error))
    }

    /// The right to begin something; busy if somebody else is at it. A call that waited for its thread while the restore was
    /// taken back, or while its caller asked anew, begins nothing.
    fn restore_claim(&self, key: &RestoreKey, flight: &Flight<RestoreKey>) -> ProviderResult<Lock> {
        let lock = self.restore_lock(key)?.ok_or_else(|| under_way(key))?;
        if flight.is_wanted() { Ok(lock) } else { Err(taken_back(key).without_effect()) }
    }

    /// The right to undo something: asks whoever is at it to stop. `None` while it has not.
    fn restore_undo_lock(&self, key: &RestoreKey) -> ProviderResult<Option<Lock>> {
        let lock = self.restore_lock(key)?;
        if lock.is_none() {
            let path = self.restore_stop_path(key);
            match self.disk.create_new(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    let doing = format_args!("write {}", path.display()).to_string();
                    return Err(ProviderError::io(doing, error));
                }
                _ => {}
            }
        }
        Ok(lock)
    }

    fn restore_record(&self, key: &RestoreKey) -> ProviderResult<Option<RestoreRecord>> {
        let record: Option<RestoreRecord> = format::read(&self.restore_path(key))?;
        Ok(record.filter(|record| record.key == *key).map(on_this_mount))
    }

    fn write_restore(&self, record: &RestoreRecord) -> ProviderResult<()> {
        format::write(&self.disk, &self.restore_path(&record.key), record, true)
    }

    fn write_phase(&self, record: &mut RestoreRecord, phase: Phase) -> ProviderResult<()> {
        record.phase = phase;
        self.write_restore(record)
    }

    /// Whether anything of this restore is in the store.
    fn knows_restore(&self, key: &RestoreKey) -> ProviderResult<bool> {
        let paths =
            [self.restore_path(key), self.restore_lock_path(key), self.restore_stop_path(key)];
        for path in paths {
            if !nothing_at(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets a restore; the lock goes last.
    fn forget_restore(&self, key: &RestoreKey, lock: Lock) -> ProviderResult<()> {
        let record = self.restore_path(key);
        let removed = || -> io::Result<()> {
            self.disk.remove(&crate::disk::neighbour(&record)?)?;
            self.disk.remove(&record)?;
            self.disk.sync_dir(&self.restores())?;
            self.disk.remove(&self.restore_stop_path(key))?;
            self.disk.remove(&self.restore_lock_path(key))
        };
        let removed = removed()
            .map_err(|error| ProviderError::io(format_args!("forget the restore {key}"), error));
        drop(lock);
        removed
    }

    /// Removes the hidden folders of a restore.
    fn remove_folders(&self, record: &RestoreRecord) -> ProviderResult<()> {
        for folder in &record.folders {
            let folder = Path::new(folder);
            let removed = self.disk.remove_tree(folder).and_then(|()| match folder.parent() {
                Some(parent) if parent.is_dir() => self.disk.sync_dir(parent),
                _ => Ok(()),
            });
            removed.map_err(|error| {
                ProviderError::io(format_args!("remove {}", folder.display()), error)
            })?;
        }
        Ok(())
    }

    /// Removes the folders that publication made, as far as they are empty.
    fn remove_made(&self, record: &RestoreRecord) -> ProviderResult<()> {
        for folder in record.made.iter().rev().map(Path::new) {
            let empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            if !empty {
                continue;
            }
            let removed = self.disk.remove_dir(folder).and_then(|()| match folder.parent() {
                Some(parent) if parent.is_dir() => self.disk.sync_dir(parent),
                _ => Ok(()),
            });
            removed.map_err(|error| {
                ProviderError::io(format_args!("remove {}", folder.display()), error)
            })?;
        }
        Ok(())
    }
}

/// Another call for the restore has not ended.
pub(crate) fn under_way(key: &RestoreKey) -> ProviderError {
    let text = format!("another call for the restore {key} is still running");
    ProviderError::new(ProviderErrorKind::Busy, text).without_effect()
}

/// Nobody wants the call any more.
fn taken_back(key: &RestoreKey) -> ProviderError {
    let text = format!("the restore {key} was taken back, or asked for anew");
    ProviderError::new(ProviderErrorKind::Cancelled, text)
}

/// The record as it reads today. A file system, and every subvolume of one, may have another device number whenever it is
/// mounted. What a restore tells apart lies beside its target, so the target's number of today is that of all of it.
fn on_this_mount(mut record: RestoreRecord) -> RestoreRecord {
    for file in &mut record.files {
        let mut above = Path::new(&file.place).ancestors().skip(1);
        let Some(folder) = above.find_map(|folder| fs::metadata(folder).ok()) else { continue };
        for inode in [&mut file.new, &mut file.old].into_iter().flatten() {
            inode.device = folder.dev();
        }
    }
    record
}
