//! What a file is, by its content.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    EseError, PageSize, ReadAt,
    bytes::{u16_at, u32_at},
    checksum::is_header_good,
    database::{MAGIC, VERSION, has_magic},
    read::{head, size_of},
};

/// The kinds of file that the engine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// A database.
    Database,
    /// A temporary database of a running engine.
    TemporaryDatabase,
    /// A transaction log.
    Log,
    /// A checkpoint.
    Checkpoint,
    /// A flush map.
    FlushMap,
    /// Another file of the engine: streaming file, trace, cache, revert snapshot.
    Auxiliary,
    /// No file of the engine.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::TemporaryDatabase => "temporary database",
            Self::Log => "log",
            Self::Checkpoint => "checkpoint",
            Self::FlushMap => "flush map",
            Self::Auxiliary => "auxiliary file",
            Self::Other => "other file",
        })
    }
}

/// What a file is, and whether its header is whole enough to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Sniffed {
    /// Kind of the file.
    pub kind: FileKind,
    /// Whether a header copy with a right checksum says so; otherwise the file only begins like
    /// one, and is damaged.
    pub is_intact: bool,
}

impl FileKind {
    /// Tells a file's kind by its content, never by its name. Reads at most 64 KiB.
    ///
    /// # Errors
    /// [`EseError::Read`] when reading fails (a directory, say).
    ///
    /// ```
    /// use stillpoint_ese::FileKind;
    /// let sniffed = FileKind::sniff(&b"Dear Sir, ..."[..])?;
    /// assert_eq!(sniffed.kind, FileKind::Other);
    /// # Ok::<(), stillpoint_ese::EseError>(())
    /// ```
    pub fn sniff<R: ReadAt + ?Sized>(file: &R) -> Result<Sniffed, EseError> {
        let size = size_of(file)?;
        // Logs are many, and tell what they are in their first 4 KiB.
        let sniffed = sniff_start(&head(file, 4096)?, size);
        if sniffed.is_intact && sniffed.kind != FileKind::Other {
            return Ok(sniffed);
        }
        Ok(sniff_start(&head(file, 2 * PageSize::KIB_32.len())?, size))
    }
}

fn sniff_start(start: &[u8], size: u64) -> Sniffed {
    let intact = |kind| Sniffed { kind, is_intact: true };
    let damaged = |kind| Sniffed { kind, is_intact: false };
    let good = |at: usize, len: usize| start.get(at..at + len).filter(|page| is_header_good(page));
    let file_type = |page: &[u8]| u32_at(page, 667);

    for page_size in PageSize::ALL {
        for at in [0, page_size.len()] {
            let Some(page) = good(at, page_size.len()).filter(|page| has_magic(page)) else {
                continue;
            };
            if PageSize::from_field(u32_at(page, 236)) == Some(page_size) {
                let is_usable = u32_at(page, 8) == VERSION && u32_at(page, 12) == 0;
                return match file_type(page) {
                    0 | 1 => Sniffed { kind: FileKind::Database, is_intact: is_usable },
                    5 => intact(FileKind::TemporaryDatabase),
                    _ => intact(FileKind::Auxiliary),
                };
            }
        }
    }
    // Logs and checkpoints share their length of header; old ones carry no type.
    if let Some(page) = good(0, 4096).filter(|page| !has_magic(page)) {
        match file_type(page) {
            3 => return intact(FileKind::Log),
            4 => return intact(FileKind::Checkpoint),
            0 if looks_like_log(page) => return intact(FileKind::Log),
            0 if size == 8192 => return intact(FileKind::Checkpoint),
            6 | 8..=11 => return intact(FileKind::Auxiliary),
            _ => {}
        }
    }
    if let Some(page) = good(4096, 4096)
        && size == 8192
        && matches!(file_type(page), 0 | 4)
        && !has_magic(page)
    {
        return intact(FileKind::Checkpoint);
    }
    if let Some(page) = good(0, 8192)
        && file_type(page) == 7
    {
        return intact(FileKind::FlushMap);
    }

    // Nothing is whole: what does it begin like?
    let begins_as_database =
        |at: usize| u32_at(start, at + 4) == MAGIC && u32_at(start, at + 8) == VERSION;
    if begins_as_database(0) || PageSize::ALL.iter().any(|page| begins_as_database(page.len())) {
        return damaged(FileKind::Database);
    }
    match file_type(start) {
        3 if looks_like_log(start) => damaged(FileKind::Log),
        4 if size == 8192 => damaged(FileKind::Checkpoint),
        _ => intact(FileKind::Other),
    }
}

fn looks_like_log(start: &[u8]) -> bool {
    matches!(u16_at(start, 8), 512 | 1024 | 2048 | 4096) && matches!(u32_at(start, 32), 5..=8)
}
