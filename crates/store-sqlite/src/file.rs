//! The file: finding, locking, connecting.
//!
//! ```text
//!   stillpoint.db          SQLite's: never opened by other means, as closing any handle on it drops SQLite's locks
//!   stillpoint.db-wal, -shm    SQLite's log and its index
//!   stillpoint.db.lock     shared: held while a store is open · exclusive: while it is set up, and by format 1
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use stillpoint_catalog::CatalogError;

use crate::error::{OpenError, is_full};
use crate::schema::{self, APPLICATION_ID, FORMAT};
use crate::{check, log};

/// Files up to this size are checked whole when they are opened.
const CHECKED_AT_OPEN: u64 = 64 << 20;

/// How long a file that somebody else sets up is waited for.
const SET_UP: Duration = Duration::from_secs(2);

/// In how many looks others must share a file before one that wants it alone is told so.
const SHARED: u32 = 3;

/// How often it is asked for meanwhile.
const ASKED: Duration = Duration::from_millis(10);

/// How long a transaction of another process is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Whether other stores may have the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Shared,
    /// As the first one alone, else as one of those who share it.
    First,
    Alone,
}

/// A file that is open and ours.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) writer: Connection,
    pub(crate) reader: Connection,
    /// Held until the connections are closed.
    pub(crate) lock: File,
}

pub(crate) fn open(path: &Path, wanted: Use) -> Result<Opened, OpenError> {
    let path = canonical(path)?;
    let io = |source| OpenError::Io { path: path.clone(), source };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Err(OpenError::Folder { path }),
        // Root could write it all the same; who made it read-only did not want that.
        Ok(found) if found.permissions().readonly() => return Err(OpenError::ReadOnly { path }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let lock = Lock::open(&path)?;
    let held = lock.take(wanted)?;
    if held == Held::Exclusive
        && let Some(damage) = log::damage(&beside(&path, "-wal")).map_err(io)?
    {
        return Err(OpenError::Corrupt { path, message: damage });
    }
    let writer = connect(&path)?;
    if held == Held::Exclusive && wanted == Use::Shared {
        lock.share()?;
    }
    check_at_open(&path, &writer)?;
    let reader = second(&path)?;
    let lock = lock.file;
    Ok(Opened { path, writer, reader, lock })
}

/// A file beside the state file.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path without links, so that every way to a file leads to one lock.
fn canonical(path: &Path) -> Result<PathBuf, OpenError> {
    match path.canonicalize() {
        Ok(path) => return Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    }
    // The file is still to be made (a link that leads nowhere counts as such and is refused by the
    // system later); its folder has to be there.
    let Some(name) = path.file_name() else {
        return Err(OpenError::Folder { path: path.to_owned() });
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => Ok(folder.join(name)),
        Ok(_) => Err(OpenError::NoFolder { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NoFolder { path: path.to_owned() })
        }
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Exclusive,
    Shared,
    /// This file system has no such locks, so nobody holds one.
    None,
}

/// The lock file. A version of format 1 holds it exclusively as long as it runs, so old and new never work together.
struct Lock<'a> {
    path: &'a Path,
    name: PathBuf,
    file: File,
}

impl<'a> Lock<'a> {
    fn open(path: &'a Path) -> Result<Self, OpenError> {
        let name = beside(path, ".lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path: path.to_owned() },
            _ => OpenError::Io { path: path.to_owned(), source },
        })?;
        Ok(Self { path, name, file })
    }

    /// Exclusively if nobody has it, so that the file can be set up; else shared with those who have.
    fn take(&self, wanted: Use) -> Result<Held, OpenError> {
        let mut seen_shared = 0;
        self.ask(|file| match file.try_lock() {
            Ok(()) => Ok(Held::Exclusive),
            Err(TryLockError::Error(error))
                if error.kind() == io::ErrorKind::Unsupported && wanted == Use::Shared =>
            {
                Ok(Held::None)
            }
            Err(TryLockError::WouldBlock) if wanted != Use::Alone => {
                file.try_lock_shared().map(|()| Held::Shared)
            }
            Err(TryLockError::WouldBlock) => {
                // Whoever sets it up lets nobody share it. What others share over several looks is in use.
                file.try_lock_shared()?;
                file.unlock().map_err(TryLockError::Error)?;
                seen_shared += 1;
                let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
                Err(if seen_shared < SHARED {
                    TryLockError::WouldBlock
                } else {
                    TryLockError::Error(busy())
                })
            }
            Err(error) => Err(error),
        })
    }

    /// Lets others in. What one of them may set up in between changes nothing that is set up.
    fn share(&self) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: self.path.to_owned(), source };
        self.file.unlock().map_err(io)?;
        self.ask(File::try_lock_shared)
    }

    /// Who sets a file up holds it for a moment only: that is waited for.
    #[allow(clippy::disallowed_methods, reason = "opening blocks, as its docs say")]
    fn ask<T>(
        &self,
        mut attempt: impl FnMut(&File) -> Result<T, TryLockError>,
    ) -> Result<T, OpenError> {
        let mut waited = Duration::ZERO;
        loop {
            match attempt(&self.file) {
                Ok(held) => return Ok(held),
                Err(TryLockError::WouldBlock) if waited < SET_UP => {
                    std::thread::sleep(ASKED);
                    waited += ASKED;
                }
                Err(error) if is_in_use(&error) => {
                    let (path, lock) = (self.path.to_owned(), self.name.clone());
                    return Err(OpenError::InUse { path, lock });
                }
                Err(error) => {
                    return Err(OpenError::Io { path: self.path.to_owned(), source: error.into() });
                }
            }
        }
    }
}

/// Whether the lock is somebody else's.
fn is_in_use(error: &TryLockError) -> bool {
    match error {
        TryLockError::WouldBlock => true,
        TryLockError::Error(error) => error.kind() == io::ErrorKind::ResourceBusy,
    }
}

/// What an error of SQLite means while the file is opened.
pub(crate) fn failed(path: &Path, source: rusqlite::Error) -> OpenError {
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => {
            OpenError::Corrupt { path: path.to_owned(), message: source.to_string() }
        }
        Some(ErrorCode::ReadOnly) => OpenError::ReadOnly { path: path.to_owned() },
        _ if is_full(&source) => OpenError::Full { path: path.to_owned(), source },
        _ => OpenError::Sqlite { path: path.to_owned(), source },
    }
}

/// Waits in small steps: a commit takes a millisecond or so, and SQLite's own steps soon are a hundred.
#[allow(clippy::disallowed_methods, reason = "a thread that waits for another process")]
fn wait(tries: i32) -> bool {
    let step = Duration::from_micros(if tries < 20 { 500 } else { 5_000 });
    std::thread::sleep(step);
    u128::try_from(tries).is_ok_and(|tries| tries < BUSY.as_millis() / 5)
}

pub(crate) fn link(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait))?;
    Ok(connection)
}

/// What holds for every connection.
fn tune(connection: &Connection) -> rusqlite::Result<()> {
    for (name, value) in [
        ("synchronous", "FULL"),
        // Where a plain fsync leaves data in the disk's own memory.
        ("fullfsync", "ON"),
        ("trusted_schema", "OFF"),
        ("temp_store", "MEMORY"),
        // Kibibytes: what a large commit changes stays in memory until it is written once.
        ("cache_size", "-16384"),
        ("wal_autocheckpoint", "2000"),
        // A log that has grown is cut back when it begins anew.
        ("journal_size_limit", "67108864"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The connection that writes, with the file set up.
fn connect(path: &Path) -> Result<Connection, OpenError> {
    let error = |source| failed(path, source);
    let connection = link(path, OpenFlags::SQLITE_OPEN_CREATE).map_err(error)?;
    if connection.is_readonly("main").map_err(error)? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    // Whose it is, before a byte of it is changed.
    let number = |name: &str| schema::number(&connection, name).map_err(error);
    let (application, format) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(error)?;
    let new = application == 0 && format == 0 && tables == 0;
    if !new && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(error)?;
    tune(&connection).map_err(error)?;
    if format < FORMAT {
        schema::bring_up(&connection).map_err(error)?;
    }
    Ok(connection)
}

/// The connection that reads, beside the one that writes.
fn second(path: &Path) -> Result<Connection, OpenError> {
    let error = |source| failed(path, source);
    let connection = link(path, OpenFlags::empty()).map_err(error)?;
    tune(&connection).map_err(error)?;
    connection.pragma_update(None, "query_only", "ON").map_err(error)?;
    // It mostly reads what it does not read again.
    connection.pragma_update(None, "cache_size", "-4096").map_err(error)?;
    Ok(connection)
}

fn check_at_open(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    if !std::fs::metadata(path).is_ok_and(|found| found.len() <= CHECKED_AT_OPEN) {
        return Ok(());
    }
    check::pages(connection).map_err(|found| {
        let message = match found {
            CatalogError::Corrupt { message, .. } => message,
            other => other.to_string(),
        };
        OpenError::Corrupt { path: path.to_owned(), message }
    })
}
