//! Why a state file cannot be opened, and what SQLite's errors mean to callers.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode as Sqlite;
use stillpoint_catalog::CatalogError;
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};
use stillpoint_workflow::JournalError;

/// A state file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A version that shares with nobody has it open, or it is wanted alone and somebody has it open.
    #[error("the state file {} is in use (its lock {} is held)", path.display(), lock.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The lock beside it.
        lock: PathBuf,
    },
    /// It is a folder.
    #[error("{} is a folder, not a state file", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// There is no folder for it.
    #[error("the state file {} cannot be made: its folder does not exist", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// There is something of that name already.
    #[error("there is something at {} already", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// It may only be read.
    #[error("the state file {} is read-only", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// It is no SQLite database.
    #[error("{} is not a state file", path.display())]
    NotADatabase {
        /// The path.
        path: PathBuf,
    },
    /// It is the database of another program.
    #[error("{} is the database of another program", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error(
        "the state file {} has format {found}; this version reads up to {known}",
        path.display()
    )]
    Newer {
        /// The path.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that this version reads.
        known: i64,
    },
    /// It is damaged.
    #[error("the state file {} is damaged: {message}", path.display())]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// There is no room on its disk, which opening it takes a little of.
    #[error("the state file {} cannot be opened: its disk is full", path.display())]
    Full {
        /// The path.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The system refused something.
    #[error("the state file {} cannot be opened", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite refused something.
    #[error("the state file {} cannot be opened", path.display())]
    Sqlite {
        /// The path.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    fn path(&self) -> &PathBuf {
        match self {
            Self::InUse { path, .. }
            | Self::Folder { path }
            | Self::NoFolder { path }
            | Self::Exists { path }
            | Self::ReadOnly { path }
            | Self::NotADatabase { path }
            | Self::Foreign { path }
            | Self::Newer { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Full { path, .. }
            | Self::Io { path, .. }
            | Self::Sqlite { path, .. } => path,
        }
    }
}

impl ErrorFacts for OpenError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::InUse { .. } => "state.in_use",
            Self::Folder { .. } => "state.is_folder",
            Self::NoFolder { .. } => "state.no_folder",
            Self::Exists { .. } => "state.exists",
            Self::ReadOnly { .. } => "state.read_only",
            Self::NotADatabase { .. } => "state.not_a_database",
            Self::Foreign { .. } => "state.foreign",
            Self::Newer { .. } => "state.newer_format",
            Self::Corrupt { .. } => "state.corrupt",
            Self::Full { .. } | Self::Io { .. } | Self::Sqlite { .. } => "state.unavailable",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::InUse { .. } => ErrorClass::Busy,
            Self::Exists { .. } => ErrorClass::Conflict,
            Self::Corrupt { .. } => ErrorClass::Integrity,
            Self::Full { .. } | Self::Io { .. } | Self::Sqlite { .. } => ErrorClass::Unavailable,
            _ => ErrorClass::Invalid,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject::new("state file", self.path().display())]
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::InUse { .. } => {
                "Wait for the other stillpoint process to end, or use another state file."
            }
            Self::Folder { .. } => "Name a file, not a folder.",
            Self::NoFolder { .. } => "Make the folder first, or name another place.",
            Self::Exists { .. } => "Name a file that is not there; nothing is overwritten.",
            Self::ReadOnly { .. } => "Make the file writable, or use another one.",
            Self::NotADatabase { .. } | Self::Foreign { .. } => {
                "Name another file; this one was left as it was."
            }
            Self::Newer { .. } => "Use the version that wrote it, or a later one.",
            Self::Corrupt { .. } => {
                "Keep the file, and rebuild the catalogue from the manifests beside the data."
            }
            Self::Full { .. } => "Free room on the disk that it is on, then try again.",
            Self::Io { .. } | Self::Sqlite { .. } => "Look at the disk and the rights of the file.",
        }
        .into()
    }
}

/// Whether an error of SQLite says that the disk is full.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    Kind::of(error) == Kind::Full
}

/// When a transaction of the writer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before anything was done.
    Begin,
    /// Before its commit: nothing of it can be in the file.
    Inside,
    /// In its commit.
    Commit,
}

/// A transaction that came to nothing, for everybody who had a part in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", match phase {
    Phase::Begin => "a transaction did not begin",
    Phase::Inside => "a transaction was given up",
    Phase::Commit => "a commit failed",
})]
pub(crate) struct Lost {
    pub(crate) phase: Phase,
    pub(crate) error: rusqlite::Error,
}

impl Lost {
    /// Whether what one call touched is damaged, and others may still be done.
    pub(crate) fn is_damage(&self) -> bool {
        Kind::of(&self.error) == Kind::Corrupt
    }

    /// Whether something of it may be in the file.
    ///
    /// A commit writes its last frame last, so one that found no room is not there. One whose sync failed may be found
    /// by whoever reads the log after a crash.
    fn effect(&self) -> Effect {
        match (self.phase, Kind::of(&self.error)) {
            (Phase::Commit, Kind::Io | Kind::Corrupt) => Effect::Unknown,
            _ => Effect::None,
        }
    }
}

/// What kind of failure an error of SQLite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Full,
    Busy,
    Corrupt,
    Io,
}

impl Kind {
    fn of(error: &rusqlite::Error) -> Self {
        use rusqlite::{Error, ffi};
        match error {
            Error::SqliteFailure(failure, _) => match failure.code {
                Sqlite::DiskFull => Self::Full,
                // There is no room for what the processes on the file share.
                Sqlite::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
                    Self::Full
                }
                Sqlite::DatabaseBusy | Sqlite::DatabaseLocked => Self::Busy,
                // The tables do not hold what they must.
                Sqlite::DatabaseCorrupt | Sqlite::NotADatabase | Sqlite::ConstraintViolation => {
                    Self::Corrupt
                }
                Sqlite::SystemIoFailure
                    if matches!(
                        failure.extended_code,
                        ffi::SQLITE_IOERR_SHORT_READ
                            | ffi::SQLITE_IOERR_DATA
                            | ffi::SQLITE_IOERR_CORRUPTFS
                    ) =>
                {
                    Self::Corrupt
                }
                _ => Self::Io,
            },
            // A value of another type than every version wrote.
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..)
            | Error::InvalidColumnType(..) => Self::Corrupt,
            _ => Self::Io,
        }
    }
}

/// An error that a caller of the store gets.
pub(crate) trait Refusal: Sized + Send + 'static {
    /// The transaction of the call was lost.
    fn lost(lost: &Arc<Lost>) -> Self;
    /// SQLite refused a statement of the call, and what the call did before is rolled back.
    fn refused(error: rusqlite::Error) -> Self;
    /// The thread of the file has ended.
    fn gone(effect: Effect) -> Self;
}

const GONE: &str = "the thread of the state file has ended";

impl Refusal for CatalogError {
    fn lost(lost: &Arc<Lost>) -> Self {
        let (message, source) = (lost.to_string(), Some(Box::new(Shared(Arc::clone(lost))) as _));
        match (Kind::of(&lost.error), lost.phase) {
            (Kind::Corrupt, Phase::Begin | Phase::Inside) => Self::Corrupt { message, source },
            _ => Self::Unavailable { message, effect: lost.effect(), source },
        }
    }

    fn refused(error: rusqlite::Error) -> Self {
        let (message, kind) = (error.to_string(), Kind::of(&error));
        let source = Some(Box::new(error) as _);
        match kind {
            Kind::Corrupt => Self::Corrupt { message, source },
            _ => Self::Unavailable { message, effect: Effect::None, source },
        }
    }

    fn gone(effect: Effect) -> Self {
        Self::Unavailable { message: GONE.to_owned(), effect, source: None }
    }
}

/// One error for every call of a commit.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<Lost>);

impl Refusal for JournalError {
    fn lost(lost: &Arc<Lost>) -> Self {
        match (Kind::of(&lost.error), lost.phase) {
            // Of these it is certain that nothing was written, also in a commit.
            (Kind::Full, _) => Self::Full,
            (Kind::Busy, _) => Self::Busy(lost.to_string()),
            (Kind::Corrupt, Phase::Begin | Phase::Inside) => Self::Corrupt(lost.to_string()),
            _ => Self::Io(lost.to_string()),
        }
    }

    fn refused(error: rusqlite::Error) -> Self {
        let message = error.to_string();
        match Kind::of(&error) {
            Kind::Full => Self::Full,
            Kind::Busy => Self::Busy(message),
            Kind::Corrupt => Self::Corrupt(message),
            Kind::Io => Self::Io(message),
        }
    }

    fn gone(_: Effect) -> Self {
        Self::Io(GONE.to_owned())
    }
}

/// An error of SQLite inside a call of the catalogue: its savepoint is rolled back.
pub(crate) fn rolled_back(error: rusqlite::Error) -> CatalogError {
    CatalogError::refused(error)
}

/// An error of SQLite inside a call of the journal or the leases: its savepoint is rolled back.
pub(crate) fn unwritten(error: rusqlite::Error) -> JournalError {
    JournalError::refused(error)
}
