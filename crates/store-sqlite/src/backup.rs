//! A copy of the state, taken while it is in use.
//!
//! ```text
//!   stillpoint.db ──one read transaction──▶ copy.db.part ──sync──▶ copy.db
//! ```

use std::fs::File;
use std::io;
use std::path::Path;

use crate::SqliteStore;
use crate::error::OpenError;
use crate::file::{beside, failed, link};

impl SqliteStore {
    /// Writes a copy of the whole state as it is at one instant, to be opened in its place if it is lost. Others go on reading and
    /// writing meanwhile. Blocks while it does.
    ///
    /// A copy is older than the storage at once: whoever opens one in place of a state that is lost should
    /// rebuild and reconcile, and take up what was under way with care, since it may be over.
    ///
    /// # Errors
    /// [`OpenError::Exists`] if something has the name: nothing is overwritten. Others by kind.
    ///
    /// # Crash behaviour
    /// There is no copy, or a whole one that is durable; what was written of it by then lies under the name with `.part` behind it,
    /// and the next one to that name takes it away.
    pub fn back_up(&self, to: impl AsRef<Path>) -> Result<(), OpenError> {
        let to = to.as_ref();
        let io = |source| OpenError::Io { path: to.to_owned(), source };
        if to.symlink_metadata().is_ok() {
            return Err(OpenError::Exists { path: to.to_owned() });
        }
        let folder = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(OpenError::NoFolder { path: to.to_owned() });
        }
        let part = beside(to, ".part");
        let Some(name) = part.to_str() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path is not Unicode");
            return Err(io(source));
        };
        remove(&part).map_err(io)?;
        let connection = link(self.path(), rusqlite::OpenFlags::empty());
        let connection = connection.map_err(|source| failed(self.path(), source))?;
        let written = connection.execute("VACUUM INTO ?", [name]);
        let placed = written.map_err(|source| failed(to, source)).and_then(|_| {
            File::open(&part).and_then(|file| file.sync_all()).map_err(io)?;
            // Unlike a rename it takes nobody's place.
            std::fs::hard_link(&part, to).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => OpenError::Exists { path: to.to_owned() },
                _ => io(source),
            })
        });
        let removed = remove(&part);
        placed?;
        removed.map_err(io)?;
        // Windows has no such thing as a folder that can be synced.
        if cfg!(unix) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        tracing::debug!(path = %to.display(), "a copy of the state was written");
        Ok(())
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
