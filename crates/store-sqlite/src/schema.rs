//! The file: opening, locking, format.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use stillpoint_catalog::CatalogError;

use crate::error::{OpenError, rolled_back};

/// What marks a file as ours: SQLite's `application_id`, "Stil".
pub const APPLICATION_ID: i64 = 0x5374_696c;

/// The format that this version writes, and the newest that it reads: SQLite's `user_version`.
pub const FORMAT: i64 = 1;

/// Files up to this size are checked whole when they are opened.
const CHECKED_AT_OPEN: u64 = 64 << 20;

/// The tables of format 1. Instants are microseconds since 1970, ids are 16 bytes, bodies are JSON
/// in the stored form of the model; the other columns repeat what listings choose and order by.
const TABLES: &str = "
CREATE TABLE point (
  id BLOB NOT NULL PRIMARY KEY,
  taken_at INTEGER NOT NULL,
  database BLOB NOT NULL,
  resource_group BLOB,
  policy BLOB,
  job BLOB NOT NULL,
  run BLOB NOT NULL,
  set_token TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX point_by_time ON point (taken_at DESC, id);
CREATE INDEX point_by_database ON point (database, taken_at DESC, id);
CREATE INDEX point_by_job ON point (job);
CREATE INDEX point_by_set ON point (set_token);
CREATE TABLE removed_point (id BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE job (
  id BLOB NOT NULL PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  resource_group BLOB,
  ended INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX job_by_time ON job (created_at DESC, id);
CREATE INDEX job_open ON job (created_at DESC, id) WHERE ended = 0;
CREATE TABLE policy (
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE resource_group (id BLOB NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE debris (
  key TEXT NOT NULL PRIMARY KEY,
  since INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (topic TEXT NOT NULL PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// A file that is open and ours.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    /// Held until the connection is closed.
    pub(crate) lock: File,
}

pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
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
    let lock = lock(&path)?;
    let connection = connect(&path)?;
    Ok(Opened { path, connection, lock })
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

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source },
    };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned(), lock }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let error = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => {
            OpenError::Corrupt { path: path.to_owned(), message: source.to_string() }
        }
        Some(ErrorCode::ReadOnly) => OpenError::ReadOnly { path: path.to_owned() },
        _ => OpenError::Sqlite { path: path.to_owned(), source },
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    if connection.is_readonly("main").map_err(error)? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    connection.busy_timeout(Duration::from_secs(5)).map_err(error)?;

    // Whose it is, before a byte of it is changed.
    let number = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(error)
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(error)?;
    let new = application == 0 && format == 0 && tables == 0;
    if !new && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format });
    }

    for (name, value) in
        [("journal_mode", "WAL"), ("synchronous", "FULL"), ("trusted_schema", "OFF")]
    {
        connection.pragma_update(None, name, value).map_err(error)?;
    }
    if new {
        create(&connection).map_err(error)?;
    } else if std::fs::metadata(path).is_ok_and(|found| found.len() <= CHECKED_AT_OPEN) {
        check(&connection).map_err(|found| match found {
            CatalogError::Corrupt { message, .. } => {
                OpenError::Corrupt { path: path.to_owned(), message }
            }
            other => OpenError::Corrupt { path: path.to_owned(), message: other.to_string() },
        })?;
    }
    Ok(connection)
}

/// One transaction, so that a crash leaves either nothing or a whole file.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    let marked = format!(
        "BEGIN IMMEDIATE;{TABLES}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {FORMAT};
         COMMIT;"
    );
    connection.execute_batch(&marked)
}

/// Reads everything and checks that it fits together.
pub(crate) fn check(connection: &Connection) -> Result<(), CatalogError> {
    let mut statement = connection.prepare("PRAGMA quick_check(1)").map_err(rolled_back)?;
    let found: String = statement.query_row([], |row| row.get(0)).map_err(rolled_back)?;
    if found == "ok" {
        return Ok(());
    }
    Err(CatalogError::Corrupt { message: found, source: None })
}
