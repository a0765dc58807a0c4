//! The error codes that a Windows tool would report for what was found.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// An error code of the engine (`JET_err…`), always negative.
///
/// ```
/// use stillpoint_ese::JetError;
/// assert_eq!(JetError::READ_VERIFY_FAILURE.to_string(), "JET_errReadVerifyFailure (-1018)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JetError(i32);

macro_rules! jet_errors {
    ($($constant:ident = $code:literal $name:literal;)*) => {
        impl JetError {
            $(
                #[doc = concat!("`JET_err", $name, "`, ", stringify!($code), ".")]
                pub const $constant: Self = Self($code);
            )*

            /// The engine's name of the code, `JET_err…`; `None` for a code this crate never reports.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(concat!("JET_err", $name)),)*
                    _ => None,
                }
            }
        }
    };
}

jet_errors! {
    LOG_FILE_CORRUPT = -501 "LogFileCorrupt";
    LOG_GENERATION_MISMATCH = -513 "LogGenerationMismatch";
    BAD_LOG_VERSION = -514 "BadLogVersion";
    INVALID_LOG_SEQUENCE = -515 "InvalidLogSequence";
    MISSING_LOG_FILE = -528 "MissingLogFile";
    BAD_LOG_SIGNATURE = -530 "BadLogSignature";
    BAD_CHECKPOINT_SIGNATURE = -532 "BadCheckpointSignature";
    CHECKPOINT_CORRUPT = -533 "CheckpointCorrupt";
    LOG_FILE_SIZE_MISMATCH = -541 "LogFileSizeMismatch";
    CHECKPOINT_FILE_NOT_FOUND = -542 "CheckpointFileNotFound";
    REQUIRED_LOG_FILES_MISSING = -543 "RequiredLogFilesMissing";
    DATABASE_DIRTY_SHUTDOWN = -550 "DatabaseDirtyShutdown";
    COMMITTED_LOG_FILES_MISSING = -582 "CommittedLogFilesMissing";
    COMMITTED_LOG_FILE_CORRUPT = -586 "CommittedLogFileCorrupt";
    LOG_SEQUENCE_CHECKSUM_MISMATCH = -590 "LogSequenceChecksumMismatch";
    READ_VERIFY_FAILURE = -1018 "ReadVerifyFailure";
    PAGE_NOT_INITIALIZED = -1019 "PageNotInitialized";
    DISK_IO = -1022 "DiskIO";
    INVALID_DATABASE = -1028 "InvalidDatabase";
    FILE_ACCESS_DENIED = -1032 "FileAccessDenied";
    READ_PGNO_VERIFY_FAILURE = -1118 "ReadPgnoVerifyFailure";
    READ_LOST_FLUSH_VERIFY_FAILURE = -1119 "ReadLostFlushVerifyFailure";
    DATABASE_CORRUPTED = -1206 "DatabaseCorrupted";
    INVALID_DATABASE_VERSION = -1209 "InvalidDatabaseVersion";
    FILE_NOT_FOUND = -1811 "FileNotFound";
    FILE_INVALID_TYPE = -1812 "FileInvalidType";
    FILE_IO_BEYOND_EOF = -4001 "FileIOBeyondEOF";
}

impl JetError {
    /// The number.
    pub fn code(self) -> i32 {
        self.0
    }
}

impl fmt::Display for JetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "JET error {}", self.0),
        }
    }
}

impl Serialize for JetError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("JetError", 2)?;
        out.serialize_field("code", &self.0)?;
        out.serialize_field("name", &self.name())?;
        out.end()
    }
}
