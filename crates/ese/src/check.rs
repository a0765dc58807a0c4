//! One answer for a file of any kind.

use std::{fs::File, path::Path};

use serde::Serialize;

use crate::{
    CheckpointReport, DatabaseReport, EseError, FileKind, Findings, FlushMapReport, LogBody,
    LogReport, Observer, ReadAt, ScanOptions, scan_checkpoint, scan_database, scan_flush_map,
    scan_log, scan_mapped_database,
};

/// How a file, or a set of them, was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Everything that is checked is as it was written.
    Good,
    /// It can be used, and something is worth a look: bits to put right, or work that is lost.
    Notable,
    /// There is nothing to say of it: it is no file of the engine, cannot be read, or has no usable
    /// header.
    Unusable,
    /// It is damaged, or cannot be recovered.
    Bad,
}

/// What a check of one file found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileCheck {
    /// A database.
    Database(Box<DatabaseReport>),
    /// A log.
    Log(Box<LogReport>),
    /// A checkpoint.
    Checkpoint(Box<CheckpointReport>),
    /// A flush map.
    FlushMap(Box<FlushMapReport>),
    /// Another file of the engine, or of somebody else: nothing in it is checked. A temporary
    /// database is among them, for the engine makes it anew whenever it starts.
    Other {
        /// What it is.
        file: FileKind,
    },
}

impl FileCheck {
    /// What was found; `None` where nothing is checked.
    pub fn findings(&self) -> Option<&Findings> {
        match self {
            Self::Database(report) => Some(&report.findings),
            Self::Log(report) => Some(&report.findings),
            Self::Checkpoint(report) => Some(&report.findings),
            Self::FlushMap(report) => Some(&report.findings),
            Self::Other { .. } => None,
        }
    }

    /// Kind of the file.
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Database(_) => FileKind::Database,
            Self::Log(_) => FileKind::Log,
            Self::Checkpoint(_) => FileKind::Checkpoint,
            Self::FlushMap(_) => FileKind::FlushMap,
            Self::Other { file } => *file,
        }
    }

    fn has_header(&self) -> bool {
        match self {
            Self::Database(report) => report.header.is_some(),
            Self::Log(report) => report.header.is_some(),
            Self::Checkpoint(report) => report.header.is_some(),
            Self::FlushMap(report) => report.header.is_some(),
            Self::Other { .. } => false,
        }
    }

    /// How the file was found by itself, whatever it belongs to.
    pub fn health(&self) -> Health {
        let not_checked = matches!(self, Self::Log(report) if report.body == LogBody::NotChecked);
        match self.findings() {
            Some(findings) if self.has_header() => match (findings.damage, findings.repairable) {
                (1.., _) => Health::Bad,
                (0, 1..) => Health::Notable,
                (0, 0) if not_checked => Health::Unusable,
                (0, 0) => Health::Good,
            },
            _ => Health::Unusable,
        }
    }
}

/// Checks a file of any kind, told by its content.
///
/// # Errors
/// As [`scan_database`].
pub fn check_file<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<FileCheck, EseError> {
    Ok(match FileKind::sniff(file)?.kind {
        FileKind::Database => {
            FileCheck::Database(Box::new(scan_database(file, options, observer)?))
        }
        FileKind::Log => FileCheck::Log(Box::new(scan_log(file, options, observer)?)),
        FileKind::Checkpoint => {
            FileCheck::Checkpoint(Box::new(scan_checkpoint(file, options, observer)?))
        }
        FileKind::FlushMap => {
            FileCheck::FlushMap(Box::new(scan_flush_map(file, options, observer)?))
        }
        kind => FileCheck::Other { file: kind },
    })
}

/// [`check_path`] with the flush map of a database beside it.
pub(crate) fn check_path_beside<O: Observer + ?Sized>(
    path: &Path,
    map: Option<&File>,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<FileCheck, EseError> {
    let file = File::open(path).map_err(|source| EseError::Open { source })?;
    match map {
        Some(map) if FileKind::sniff(&file)?.kind == FileKind::Database => {
            let report = scan_mapped_database(&file, map, options, observer)?;
            Ok(FileCheck::Database(Box::new(report)))
        }
        _ => check_file(&file, options, observer),
    }
}

/// [`check_file`] on the file at a path, which is opened for reading alone.
///
/// # Errors
/// [`EseError::Open`] when it cannot be opened, else as [`scan_database`].
pub fn check_path<O: Observer + ?Sized>(
    path: &Path,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<FileCheck, EseError> {
    let file = File::open(path).map_err(|source| EseError::Open { source })?;
    check_file(&file, options, observer)
}
