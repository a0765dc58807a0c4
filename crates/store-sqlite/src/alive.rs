//! Files that tell whether a process lives.
//!
//! ```text
//!   stillpoint.db.alive/<process>-<epoch>     locked from `acquire` until the store is released, dropped, or dies
//! ```
//!
//! The system frees the lock of a process that is gone, however it went, and keeps that of one that is only paused. So a
//! lock that is free is proof of death on this host, where every user of the file is (SQLite's log needs shared memory).
//! Where there is no such file, nothing is known, and the lease's own end has to be waited for.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stillpoint_context::ProcessId;

use crate::file::beside;

/// The locks that a store holds.
#[derive(Debug)]
pub(crate) struct Alive {
    folder: Folder,
    held: Mutex<HashMap<(ProcessId, u64), Mark>>,
}

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

/// A file that is locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Mark {
    _locked: File,
}

impl Folder {
    fn file(&self, process: ProcessId, epoch: u64) -> PathBuf {
        self.0.join(name(process, epoch))
    }

    /// Makes and locks the file of a lease; `None` where that cannot be done, which is no failure.
    pub(crate) fn mark(&self, process: ProcessId, epoch: u64) -> Option<Mark> {
        let path = self.file(process, epoch);
        let made = std::fs::create_dir_all(&self.0).and_then(|()| {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => Err(std::io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        match made {
            Ok(file) => Some(Mark { _locked: file }),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "a lease has no file that tells whether its process lives");
                None
            }
        }
    }

    /// Whether the process of a lease that was marked is certainly gone.
    pub(crate) fn is_dead(&self, process: ProcessId, epoch: u64) -> bool {
        File::open(self.file(process, epoch)).is_ok_and(|file| file.try_lock().is_ok())
    }

    /// Removes the file of a lease that has ended.
    pub(crate) fn remove(&self, process: ProcessId, epoch: u64) {
        remove(&self.file(process, epoch));
    }

    /// Removes the files of leases that are not held, and of nobody who is just about to hold one.
    pub(crate) fn sweep(&self, held: &[(ProcessId, u64)]) {
        // There is none before the first lease.
        let Ok(files) = std::fs::read_dir(&self.0) else { return };
        let names: Vec<String> =
            held.iter().map(|(process, epoch)| name(*process, *epoch)).collect();
        for file in files.filter_map(Result::ok) {
            let is_held = names.iter().any(|name| file.file_name() == name.as_str());
            if !is_held && File::open(file.path()).is_ok_and(|file| file.try_lock().is_ok()) {
                remove(&file.path());
            }
        }
    }
}

fn name(process: ProcessId, epoch: u64) -> String {
    format!("{process}-{epoch}")
}

/// One that stays is swept when the state file is opened.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, path = %path.display(), "a file of an ended lease stays");
    }
}

impl Alive {
    pub(crate) fn new(state: &Path) -> Self {
        Self { folder: Folder(beside(state, ".alive")), held: Mutex::default() }
    }

    pub(crate) fn folder(&self) -> Folder {
        self.folder.clone()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(ProcessId, u64), Mark>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a mark for as long as the store lives or the lease lasts.
    pub(crate) fn keep(&self, process: ProcessId, epoch: u64, mark: Mark) {
        self.held().insert((process, epoch), mark);
    }

    /// Lets go of the mark of a lease that has ended.
    pub(crate) fn forget(&self, process: ProcessId, epoch: u64) {
        if self.held().remove(&(process, epoch)).is_some() {
            self.folder.remove(process, epoch);
        }
    }
}
