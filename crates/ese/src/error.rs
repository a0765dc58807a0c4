//! What keeps a file from being read at all. Damage inside a readable file is a
//! [`Finding`](crate::Finding), not an error.

use std::io;

use thiserror::Error;

use crate::{FileKind, JetError};

/// Why a file could not be read or a scan did not end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EseError {
    /// A file or folder could not be opened.
    #[error("it cannot be opened")]
    Open {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The reader failed, or the file became shorter while it was read.
    #[error("reading at offset {offset} failed")]
    Read {
        /// Byte offset of the read that failed.
        offset: u64,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The observer asked to stop.
    #[error("stopped by the caller")]
    Stopped,
    /// The file has no usable header of the wanted kind.
    #[error("no usable {kind} header: {jet}")]
    HeaderUnusable {
        /// The kind that was looked for.
        kind: FileKind,
        /// What a Windows tool would answer.
        jet: JetError,
    },
}

impl EseError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "ese.open",
            Self::Read { .. } => "ese.read",
            Self::Stopped => "ese.stopped",
            Self::HeaderUnusable { .. } => "ese.header_unusable",
        }
    }

    /// What a Windows tool would answer, where it has an answer.
    pub fn jet(&self) -> Option<JetError> {
        match self {
            Self::Open { source } if source.kind() == io::ErrorKind::NotFound => {
                Some(JetError::FILE_NOT_FOUND)
            }
            Self::Open { source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(JetError::FILE_ACCESS_DENIED)
            }
            Self::Open { .. } | Self::Read { .. } => Some(JetError::DISK_IO),
            Self::Stopped => None,
            Self::HeaderUnusable { jet, .. } => Some(*jet),
        }
    }
}
