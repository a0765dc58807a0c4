//! Whether files stay as they are: locks where they can be had, stamps in every case.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use stillpoint_context::HostPath;
use stillpoint_ese::{EseError, HeaderStamp, read_segment_stamp, read_stamp};
use stillpoint_exchange::{Cause, CopyId, Held};
use stillpoint_model::inventory::FileRole;

use crate::{survey::FoundFile, walk::open};

/// A file to watch, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) copy: CopyId,
    pub(crate) native: PathBuf,
    pub(crate) path: HostPath,
    /// Whether a running engine writes to it in place; such files are locked.
    is_written: bool,
    /// Whether its body grows without a change of its header.
    is_open_log: bool,
}

impl Watched {
    pub(crate) fn new(copy: &CopyId, file: &FoundFile) -> Self {
        Self {
            copy: copy.clone(),
            native: file.native.clone(),
            path: file.path.clone(),
            is_written: file.role != FileRole::Log || file.is_open_log,
            is_open_log: file.is_open_log,
        }
    }

    /// What the file is like now.
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        let file = open(&self.native)?;
        let read = |error: EseError| match error {
            EseError::Read { source, .. } => source,
            other => io::Error::other(other),
        };
        // The attributes last: a write while the header is read then shows in the time.
        let header = read_stamp(&file).map_err(read)?;
        let segments = if self.is_open_log { read_segment_stamp(&file).map_err(read)? } else { 0 };
        let metadata = file.metadata()?;
        Ok(Stamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(&metadata),
            header,
            segments,
        })
    }
}

/// What is compared to know whether a file changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device, number and change time of the file where the system has them: replaced files and set-back times show.
    identity: Option<[i128; 4]>,
    header: HeaderStamp,
    segments: u64,
}

impl Stamp {
    /// What differs, in words; `None` when nothing does.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.bytes != other.bytes {
            Some("size")
        } else if self.header != other.header {
            Some("header stamp")
        } else if self.segments != other.segments {
            Some("log segments")
        } else if self.modified != other.modified {
            Some("time")
        } else if self.identity != other.identity {
            Some("identity or change time")
        } else {
            None
        }
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
fn identity(metadata: &std::fs::Metadata) -> Option<[i128; 4]> {
    use std::os::unix::fs::MetadataExt;
    Some([
        i128::from(metadata.dev()),
        i128::from(metadata.ino()),
        i128::from(metadata.ctime()),
        i128::from(metadata.ctime_nsec()),
    ])
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> Option<[i128; 4]> {
    None
}

/// Locks that are held; dropping them releases them.
#[derive(Debug, Default)]
pub(crate) struct Locks(#[allow(dead_code, reason = "held for their drop")] Vec<File>);

/// Takes a shared lock on every file that an engine would write in place. Closed logs are not locked, for there may be more
/// of them than a process may have open.
///
/// A file system without locks is no hindrance: the stamps tell then alone.
///
/// # Errors
/// The file that somebody holds exclusively, or cannot be opened.
pub(crate) fn lock(files: &[Watched]) -> Result<Locks, (HostPath, LockError)> {
    let mut held = Vec::new();
    for watched in files.iter().filter(|watched| watched.is_written) {
        let at = |error| (watched.path.clone(), error);
        let file = open(&watched.native).map_err(|error| at(LockError::Open(error)))?;
        match file.try_lock_shared() {
            Ok(()) => held.push(file),
            Err(TryLockError::WouldBlock) => return Err(at(LockError::Held)),
            Err(TryLockError::Error(_)) => {}
        }
    }
    Ok(Locks(held))
}

/// Why a file could not be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    Held,
    Open(io::Error),
}

/// Whether something has a file open for itself alone.
pub(crate) fn is_in_use(native: &Path) -> io::Result<bool> {
    let file = open(native)?;
    Ok(matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Compares each file with what it was. A file that cannot be read any more leaves the answer unknown.
pub(crate) fn compare(before: &[(Watched, Stamp)]) -> Vec<(CopyId, Held)> {
    before
        .iter()
        .map(|(watched, before)| {
            let file = watched.path.clone();
            let held = match watched.stamp() {
                Ok(after) => match before.difference(&after) {
                    None => Held::Yes,
                    Some(what) => Held::Broken(Cause::FileChanged { file, what: what.to_owned() }),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Held::Broken(Cause::FileVanished { file })
                }
                Err(_) => Held::Unknown,
            };
            (watched.copy.clone(), held)
        })
        .collect()
}

/// Takes the stamp of every file.
///
/// # Errors
/// The first file that cannot be read.
pub(crate) fn stamp_all(files: &[Watched]) -> Result<Vec<(Watched, Stamp)>, (HostPath, io::Error)> {
    files
        .iter()
        .map(|watched| match watched.stamp() {
            Ok(stamp) => Ok((watched.clone(), stamp)),
            Err(error) => Err((watched.path.clone(), error)),
        })
        .collect()
}

/// The first file that is not what it was.
pub(crate) fn first_change(
    before: &[(Watched, Stamp)],
    now: &[(Watched, Stamp)],
) -> Option<(HostPath, &'static str)> {
    before.iter().zip(now).find_map(|((watched, before), (_, now))| {
        before.difference(now).map(|what| (watched.path.clone(), what))
    })
}
