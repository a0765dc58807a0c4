//! The log header and the databases that it lists.

use serde::Serialize;

use crate::{
    EseError, FileKind, Generation, JetError, Lgpos, LogTime, PageSize, ReadAt, Signature,
    bytes::{first_name, text_at, u8_at, u16_at, u32_at, u64_at},
    checksum::is_header_good,
    database::has_magic,
    read::head,
};

/// Length of the header in every version.
pub(crate) const HEADER_LEN: usize = 4096;

/// A database that was attached when a log or checkpoint was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attachment {
    /// Number of the database in its log stream.
    pub dbid: u8,
    /// Whether the file is sparse.
    pub is_sparse: bool,
    /// Its highest change stamp.
    pub dbtime: u64,
    /// Its highest object id.
    pub last_objid: u32,
    /// The most pages that it may have; 0 for no limit.
    pub max_pages: u32,
    /// Where it was attached.
    pub attach: Lgpos,
    /// Where it was consistent.
    pub consistent: Lgpos,
    /// Its signature.
    pub signature: Signature,
    /// Its path on the server that wrote this, as text only.
    pub path: String,
}

impl Attachment {
    /// Reads a packed list; stops at its end or where it makes no sense.
    pub(crate) fn parse_list(list: &[u8]) -> Vec<Self> {
        let mut rest = list;
        let mut out = Vec::new();
        while u8_at(rest, 0) != 0 {
            let names = usize::from(u16_at(rest, 2));
            let Some(name) = rest.get(64..64 + names) else { break };
            out.push(Self {
                dbid: u8_at(rest, 0),
                is_sparse: u8_at(rest, 1) & 0x40 != 0,
                dbtime: u64_at(rest, 4),
                last_objid: u32_at(rest, 12),
                max_pages: u32_at(rest, 16),
                attach: Lgpos::parse(rest, 20),
                consistent: Lgpos::parse(rest, 28),
                signature: Signature::parse(rest, 36),
                path: first_name(name, u8_at(rest, 1) & 0x20 != 0),
            });
            rest = rest.get(64 + names..).unwrap_or_default();
        }
        out
    }
}

/// How the engine was set up when it wrote a log or checkpoint. Tells about the server, and
/// decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct EngineSettings {
    /// System folder of the server, as text only.
    pub system_path: String,
    /// Log folder of the server, as text only.
    pub log_path: String,
    /// Whether circular logging was asked for.
    pub is_circular: bool,
    /// Sessions.
    pub sessions: u32,
    /// Open tables.
    pub tables: u32,
    /// Pages of the version store.
    pub version_pages: u32,
    /// Cursors.
    pub cursors: u32,
    /// Log buffers, in sectors.
    pub log_buffers: u32,
    /// Sectors of a log file.
    pub log_sectors: u32,
    /// Buffers of the page cache.
    pub cache: u32,
}

impl EngineSettings {
    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        let number = |index: usize| u32_at(bytes, at + 523 + 4 * index);
        Self {
            system_path: text_at(bytes, at, 261),
            log_path: text_at(bytes, at + 261, 261),
            is_circular: u8_at(bytes, at + 522) & 1 != 0,
            sessions: number(0),
            tables: number(1),
            version_pages: number(2),
            cursors: number(3),
            log_buffers: number(4),
            log_sectors: number(5),
            cache: number(6),
        }
    }
}

/// The fields of a log header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogHeader {
    /// The stored checksum.
    pub checksum: u32,
    /// Generation of this log.
    pub generation: Generation,
    /// Bytes in a segment (sector).
    pub segment_size: u16,
    /// Segments of the header.
    pub header_segments: u16,
    /// Segments of the file, header included.
    pub segments: u16,
    /// Page size of the databases; `None` when the field is impossible.
    pub page_size: Option<PageSize>,
    /// When this log was created.
    pub created: LogTime,
    /// When the previous generation was created; unset in generation 1.
    pub previous_created: LogTime,
    /// Version: major, minor, update major, update minor.
    pub version: [u32; 4],
    /// Signature of the stream.
    pub signature: Signature,
    /// How the engine was set up.
    pub settings: EngineSettings,
    /// Whether circular logging is on.
    pub is_circular: bool,
    /// Whether circular logging was on earlier in the stream.
    pub was_circular: bool,
    /// Whether the log was made from a reserve log because the disk was full.
    pub from_reserve: bool,
    /// Checkpoint when the log was created.
    pub checkpoint: Lgpos,
    /// Accumulated segment checksum of the previous generation; 0 when the engine kept none.
    pub previous_accumulated: u64,
    /// Bytes in a sector of the disk; `None` when the engine did not know, or it is an odd number.
    pub disk_sector: Option<u16>,
    /// Version number of the engine that wrote it, for diagnosis.
    pub engine_version: u32,
    /// Kind of file by its own word; 0 in older files.
    pub file_type: u32,
    /// Databases attached when the log was created.
    pub attachments: Vec<Attachment>,
}

impl LogHeader {
    /// Reads the fields of the first 4096 bytes of a log; checks nothing.
    pub fn parse(header: &[u8]) -> Self {
        let flags = u8_at(header, 639);
        let list = header.get(671..671 + 2048).unwrap_or_default();
        Self {
            checksum: u32_at(header, 0),
            generation: Generation::new(u32_at(header, 4)),
            segment_size: u16_at(header, 8),
            header_segments: u16_at(header, 10),
            segments: u16_at(header, 12),
            page_size: PageSize::from_field(u32::from(u16_at(header, 14))),
            created: LogTime::parse(header, 16),
            previous_created: LogTime::parse(header, 24),
            version: [
                u32_at(header, 32),
                u32_at(header, 36),
                u32_at(header, 40),
                u32_at(header, 648),
            ],
            signature: Signature::parse(header, 44),
            settings: EngineSettings::parse(header, 72),
            from_reserve: flags & 1 != 0,
            is_circular: flags & 2 != 0,
            was_circular: flags & 4 != 0,
            checkpoint: Lgpos::parse(header, 640),
            previous_accumulated: u64_at(header, 653),
            disk_sector: match u8_at(header, 652) {
                // It matches the segment.
                1 => Some(u16_at(header, 8)),
                2 => Some(512),
                3 => Some(1024),
                4 => Some(2048),
                5 => Some(4096),
                _ => None,
            },
            engine_version: u32_at(header, 661),
            file_type: u32_at(header, 667),
            attachments: Attachment::parse_list(list),
        }
    }

    /// Length that the file must have, by the header.
    pub fn file_len(&self) -> u64 {
        u64::from(self.segments) * u64::from(self.segment_size)
    }

    /// Whether the body is made of checksummed 4096-byte segments (Exchange 2013 and later).
    pub fn has_segments(&self) -> bool {
        self.version[0] == 8
    }
}

/// Reads the header of a log. Reads at most 4096 bytes.
///
/// # Errors
/// [`EseError::HeaderUnusable`] when its checksum is wrong (`JET_errLogFileCorrupt`) or the file
/// is of another kind; [`EseError::Read`] when reading fails.
pub fn read_log_header<R: ReadAt + ?Sized>(file: &R) -> Result<LogHeader, EseError> {
    usable(&head(file, HEADER_LEN)?)
}

/// [`read_log_header`] on the first bytes of a file.
pub(crate) fn usable(start: &[u8]) -> Result<LogHeader, EseError> {
    let unusable = |jet| EseError::HeaderUnusable { kind: FileKind::Log, jet };
    let header = start.get(..HEADER_LEN).ok_or_else(|| unusable(JetError::LOG_FILE_CORRUPT))?;
    if !is_header_good(header) {
        return Err(unusable(JetError::LOG_FILE_CORRUPT));
    }
    if has_magic(header) || !matches!(u32_at(header, 667), 0 | 3) {
        return Err(unusable(JetError::FILE_INVALID_TYPE));
    }
    Ok(LogHeader::parse(header))
}

#[cfg(test)]
mod tests;
