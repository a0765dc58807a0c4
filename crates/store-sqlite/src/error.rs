//! Why a state file cannot be opened, and what SQLite's errors mean to callers.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode as Sqlite;
use stillpoint_catalog::CatalogError;
use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use crate::schema::FORMAT;

/// A state file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody has it open.
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
        "the state file {} has format {found}; this version reads up to {FORMAT}",
        path.display()
    )]
    Newer {
        /// The path.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// It is damaged.
    #[error("the state file {} is damaged: {message}", path.display())]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What was found.
        message: String,
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
            | Self::ReadOnly { path }
            | Self::NotADatabase { path }
            | Self::Foreign { path }
            | Self::Newer { path, .. }
            | Self::Corrupt { path, .. }
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
            Self::ReadOnly { .. } => "state.read_only",
            Self::NotADatabase { .. } => "state.not_a_database",
            Self::Foreign { .. } => "state.foreign",
            Self::Newer { .. } => "state.newer_format",
            Self::Corrupt { .. } => "state.corrupt",
            Self::Io { .. } | Self::Sqlite { .. } => "state.unavailable",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::InUse { .. } => ErrorClass::Busy,
            Self::Corrupt { .. } => ErrorClass::Integrity,
            Self::Io { .. } | Self::Sqlite { .. } => ErrorClass::Unavailable,
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
            Self::ReadOnly { .. } => "Make the file writable, or use another one.",
            Self::NotADatabase { .. } | Self::Foreign { .. } => {
                "Name another file; this one was left as it was."
            }
            Self::Newer { .. } => "Use the version that wrote it, or a later one.",
            Self::Corrupt { .. } => {
                "Keep the file, and rebuild the catalogue from the manifests beside the data."
            }
            Self::Io { .. } | Self::Sqlite { .. } => "Look at the disk and the rights of the file.",
        }
        .into()
    }
}

/// What an error of SQLite means to a caller. `effect` says whether the change may have been made.
pub(crate) fn sqlite(source: rusqlite::Error, effect: Effect) -> CatalogError {
    let message = source.to_string();
    let source_box = |source| Some(Box::new(source) as Box<dyn std::error::Error + Send + Sync>);
    match source.sqlite_error_code() {
        Some(Sqlite::DatabaseCorrupt | Sqlite::NotADatabase) => {
            CatalogError::Corrupt { message, source: source_box(source) }
        }
        _ => CatalogError::Unavailable { message, effect, source: source_box(source) },
    }
}

/// An error of SQLite inside a call: its savepoint is rolled back.
pub(crate) fn rolled_back(source: rusqlite::Error) -> CatalogError {
    sqlite(source, Effect::None)
}
