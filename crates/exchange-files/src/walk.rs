//! Walking the folder, and opening what is found there.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use stillpoint_context::{Cx, Interrupted};
use stillpoint_exchange::{PluginError, PluginResult};
use stillpoint_model::restore::HIDDEN_FOLDER;

/// Folders of the operating system in which no database lies and which are often closed to others.
const SYSTEM_FOLDERS: [&str; 3] = ["lost+found", "System Volume Information", "$RECYCLE.BIN"];

/// Whether a folder of this name holds no database that is anybody's own.
fn is_passed_by(name: &OsStr) -> bool {
    // What a restore has staged or keeps is not what is protected, and goes away again.
    SYSTEM_FOLDERS.iter().any(|folder| name == *folder)
        || name.as_encoded_bytes().starts_with(HIDDEN_FOLDER.as_bytes())
}

/// What a walk came upon.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A regular file.
    File(PathBuf),
    /// A folder whose content cannot be listed.
    Unreadable(PathBuf, io::Error),
}

impl Entry {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Unreadable(path, _) => path,
        }
    }
}

/// Every regular file below `root`, in the order of its path. Symbolic links are never followed: what they lead to is found
/// in its own place if that is below `root`, and is none of ours otherwise. Pipes, sockets and devices are left alone.
pub(crate) fn walk(cx: &Cx, root: &Path, excluded: &[PathBuf]) -> PluginResult<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        cx.check().map_err(interrupted)?;
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if folder == root => {
                return Err(PluginError::io(format_args!("list {}", root.display()), error)
                    .without_effect());
            }
            // It went away while we walked: then it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                entries.push(Entry::Unreadable(folder, error));
                continue;
            }
        };
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    entries.push(Entry::Unreadable(folder.clone(), error));
                    break;
                }
            };
            // Of the entry itself, not of what a link leads to.
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_file() {
                entries.push(Entry::File(path));
            } else if kind.is_dir()
                && !is_passed_by(&entry.file_name())
                && !excluded.contains(&path)
            {
                folders.push(path);
            }
        }
    }
    entries.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(entries)
}

/// Opens a regular file for reading; never through a link in its last part, and never waiting for the other end of a pipe.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    no_surprises(&mut options);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

#[cfg(unix)]
fn no_surprises(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    if let Ok(flags) = i32::try_from(flags.bits()) {
        options.custom_flags(flags);
    }
}

#[cfg(not(unix))]
fn no_surprises(_: &mut OpenOptions) {}

/// An interruption before anything was changed.
pub(crate) fn interrupted(interrupted: Interrupted) -> PluginError {
    PluginError::from(interrupted).without_effect()
}
