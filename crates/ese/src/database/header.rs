//! The database header, its shadow, and the choice between them.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{
    BackupInfo, EseError, FileKind, Generation, GenerationRange, JetError, Lgpos, LogTime,
    PageSize, ReadAt, Signature,
    bytes::{u8_at, u32_at, u64_at},
    checksum::{SEED, is_header_good},
    read::head,
};

/// The magic number at offset 4.
pub(crate) const MAGIC: u32 = SEED;
/// The format version at offset 8, unchanged since 1997.
pub(crate) const VERSION: u32 = 0x620;

/// Whether the bytes begin as a database header does.
pub(crate) fn has_magic(bytes: &[u8]) -> bool {
    u32_at(bytes, 4) == MAGIC
}

/// What state a database was left in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatabaseState {
    /// Just created, never attached.
    JustCreated,
    /// Needs its logs to become consistent.
    DirtyShutdown,
    /// Consistent without logs.
    CleanShutdown,
    /// Being converted.
    BeingConverted,
    /// Forced off.
    ForceDetach,
    /// An incremental reseed is under way.
    IncrementalReseed,
    /// Needs its logs over its whole required range.
    DirtyAndPatched,
    /// A revert is under way.
    RevertInProgress,
    /// A number the engine does not use.
    Unknown(u32),
}

impl DatabaseState {
    pub(crate) fn from_field(field: u32) -> Self {
        match field {
            1 => Self::JustCreated,
            2 => Self::DirtyShutdown,
            3 => Self::CleanShutdown,
            4 => Self::BeingConverted,
            5 => Self::ForceDetach,
            6 => Self::IncrementalReseed,
            7 => Self::DirtyAndPatched,
            8 => Self::RevertInProgress,
            other => Self::Unknown(other),
        }
    }

    /// The number that the header holds.
    pub fn number(self) -> u32 {
        match self {
            Self::JustCreated => 1,
            Self::DirtyShutdown => 2,
            Self::CleanShutdown => 3,
            Self::BeingConverted => 4,
            Self::ForceDetach => 5,
            Self::IncrementalReseed => 6,
            Self::DirtyAndPatched => 7,
            Self::RevertInProgress => 8,
            Self::Unknown(number) => number,
        }
    }

    /// Whether the database is consistent by itself.
    pub fn is_clean(self) -> bool {
        self == Self::CleanShutdown
    }

    /// Whether replaying its logs makes it consistent.
    pub fn needs_logs(self) -> bool {
        matches!(self, Self::DirtyShutdown | Self::DirtyAndPatched)
    }

    fn name(self) -> &'static str {
        match self {
            Self::JustCreated => "just created",
            Self::DirtyShutdown => "dirty shutdown",
            Self::CleanShutdown => "clean shutdown",
            Self::BeingConverted => "being converted",
            Self::ForceDetach => "force detach",
            Self::IncrementalReseed => "incremental reseed in progress",
            Self::DirtyAndPatched => "dirty and patched shutdown",
            Self::RevertInProgress => "revert in progress",
            Self::Unknown(_) => "unknown state",
        }
    }
}

impl fmt::Display for DatabaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "unknown state {number}"),
            known => f.write_str(known.name()),
        }
    }
}

impl Serialize for DatabaseState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often something happened to a database, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RepairCount {
    /// Since the last defragmentation.
    pub count: u32,
    /// When last.
    pub last: LogTime,
    /// Before the last defragmentation.
    pub before_defrag: u32,
}

impl RepairCount {
    fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            count: u32_at(bytes, at),
            last: LogTime::parse(bytes, at + 4),
            before_defrag: u32_at(bytes, at + 12),
        }
    }
}

/// The fields of a database header that a backup looks at.
///
/// Fields that an older engine did not write are zero or unset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DatabaseHeader {
    /// The stored checksum.
    pub checksum: u32,
    /// Format version, 0x620.
    pub version: u32,
    /// 0 for a database.
    pub attribute: u32,
    /// Highest change stamp.
    pub dbtime: u64,
    /// Signature of the database: its identity.
    pub signature: Signature,
    /// State it was left in.
    pub state: DatabaseState,
    /// Last clean point; kept while dirty.
    pub consistent: Lgpos,
    /// When it was last clean.
    pub consistent_time: LogTime,
    /// Where it was attached.
    pub attach: Lgpos,
    /// When it was attached.
    pub attach_time: LogTime,
    /// Where it was detached; zero while attached or dirty.
    pub detach: Lgpos,
    /// When it was detached.
    pub detach_time: LogTime,
    /// Number of the database in its log stream.
    pub dbid: u32,
    /// Signature of the log stream that it belongs to.
    pub log_signature: Signature,
    /// Last full backup.
    pub last_full: BackupInfo,
    /// Last incremental backup since that.
    pub last_incremental: BackupInfo,
    /// Full backup under way, or restored from one.
    pub current_full: BackupInfo,
    /// Last copy backup.
    pub last_copy: BackupInfo,
    /// Last differential backup.
    pub last_differential: BackupInfo,
    /// VSS backup under way.
    pub current_snapshot: BackupInfo,
    /// Whether the shadow header is switched off.
    pub is_shadow_disabled: bool,
    /// Whether Exchange's copy of the engine attached it (and not Windows' own).
    pub attached_by_exchange: bool,
    /// Highest object id.
    pub last_objid: u32,
    /// Windows version: major, minor, build.
    pub os_version: [u32; 3],
    /// Second part of the version, "0x620,N".
    pub update_major: u32,
    /// Third part of the version.
    pub update_minor: u32,
    /// Page size.
    pub page_size: PageSize,
    /// Hard repairs; not zero means that the database has been through `eseutil /p`.
    pub repairs: u32,
    /// When it was repaired last.
    pub repair_time: LogTime,
    /// Hard repairs before the last defragmentation.
    pub repairs_before_defrag: u32,
    /// First generation needed; 0 when none is.
    pub min_required: Generation,
    /// Last generation needed for consistency.
    pub max_required: Generation,
    /// Last generation with committed work; may be 0 in older files.
    pub max_committed: Generation,
    /// Needed to become clean, may lie above `min_required`.
    pub min_consistent: Generation,
    /// Generation that recovery was redoing.
    pub recovering: Generation,
    /// Creation time of the generation in `max_committed`. An engine that knew no committed
    /// generation wrote the time of `max_required` here.
    pub max_committed_created: LogTime,
    /// Creation time of the generation in `max_required`.
    pub max_required_created: LogTime,
    /// Single bits that the engine put right.
    pub bits_corrected: RepairCount,
    /// Single bits that it could not put right.
    pub bits_not_corrected: RepairCount,
    /// Bad checksums that it saw.
    pub bad_checksums: RepairCount,
    /// Incremental reseeds.
    pub incremental_reseeds: RepairCount,
    /// Pages patched.
    pub pages_patched: RepairCount,
    /// Pairs with the flush map: last header flush of the database.
    pub header_flush: Signature,
    /// Pairs with the flush map: last header flush of the map.
    pub flush_map_flush: Signature,
    /// Where the file was resized last.
    pub last_resize: Lgpos,
    /// Kind of file by its own word; 0 in older files.
    pub file_type: u32,
}

impl DatabaseHeader {
    /// Reads the fields of a header page; `None` when the page-size field is impossible.
    ///
    /// Checks nothing else: use [`read_database_header`] for a file.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let generation = |at| Generation::new(u32_at(page, at));
        Some(Self {
            checksum: u32_at(page, 0),
            version: u32_at(page, 8),
            attribute: u32_at(page, 12),
            dbtime: u64_at(page, 16),
            signature: Signature::parse(page, 24),
            state: DatabaseState::from_field(u32_at(page, 52)),
            consistent: Lgpos::parse(page, 56),
            consistent_time: LogTime::parse(page, 64),
            attach_time: LogTime::parse(page, 72),
            attach: Lgpos::parse(page, 80),
            detach_time: LogTime::parse(page, 88),
            detach: Lgpos::parse(page, 96),
            dbid: u32_at(page, 104),
            log_signature: Signature::parse(page, 108),
            last_full: BackupInfo::parse(page, 136),
            last_incremental: BackupInfo::parse(page, 160),
            current_full: BackupInfo::parse(page, 184),
            is_shadow_disabled: u8_at(page, 208) & 1 != 0,
            attached_by_exchange: u8_at(page, 211) & 2 != 0,
            last_objid: u32_at(page, 212),
            os_version: [u32_at(page, 216), u32_at(page, 220), u32_at(page, 224)],
            update_major: u32_at(page, 232),
            page_size: PageSize::from_field(u32_at(page, 236))?,
            repairs: u32_at(page, 240),
            repair_time: LogTime::parse(page, 244),
            min_required: generation(296),
            max_required: generation(300),
            current_snapshot: BackupInfo::parse(page, 316),
            max_committed_created: LogTime::parse(page, 348),
            repairs_before_defrag: u32_at(page, 364),
            bits_corrected: RepairCount::parse(page, 368),
            bits_not_corrected: RepairCount::parse(page, 384),
            bad_checksums: RepairCount::parse(page, 400),
            max_committed: generation(416),
            last_copy: BackupInfo::parse(page, 420),
            last_differential: BackupInfo::parse(page, 444),
            incremental_reseeds: RepairCount::parse(page, 476),
            pages_patched: RepairCount::parse(page, 492),
            recovering: generation(536),
            header_flush: Signature::parse(page, 584),
            flush_map_flush: Signature::parse(page, 612),
            min_consistent: generation(640),
            update_minor: u32_at(page, 644),
            last_resize: Lgpos::parse(page, 656),
            file_type: u32_at(page, 667),
            max_required_created: LogTime::parse(page, 672),
        })
    }

    /// The generations that must be replayed to make the database consistent; `None` when it is
    /// clean, or when the header gives no sensible range.
    pub fn required(&self) -> Option<GenerationRange> {
        if !self.state.needs_logs()
            || !self.min_required.is_valid()
            || !self.max_required.is_valid()
        {
            return None;
        }
        GenerationRange::new(self.min_required, self.max_required)
    }

    /// The last generation that holds work of this database; at least the last required one.
    pub fn committed(&self) -> Generation {
        if self.max_committed.is_valid() {
            self.max_committed.max(self.max_required)
        } else {
            self.max_required
        }
    }
}

/// One of the two copies of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderCopy {
    /// At the start of the file.
    Primary,
    /// On the page after it.
    Shadow,
}

/// How a copy of a header was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// Its checksum is right.
    Good,
    /// Its checksum is wrong.
    Bad,
    /// The file ends before it.
    Absent,
}

/// A database header with how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DatabaseHeaders {
    /// The header in use.
    pub header: DatabaseHeader,
    /// Which copy that is.
    pub used: HeaderCopy,
    /// The first copy.
    pub primary: CopyState,
    /// The second copy.
    pub shadow: CopyState,
    /// Byte offset within the page where the copies begin to differ, if they do.
    pub differs_at: Option<u64>,
}

/// Reads the header of a database, whatever its page size: the primary copy if it is good, else
/// the shadow. Reads at most the first 64 KiB.
///
/// # Errors
/// [`EseError::HeaderUnusable`] when neither copy is good (`JET_errReadVerifyFailure`), or of
/// another format version; [`EseError::Read`] when reading fails.
pub fn read_database_header<R: ReadAt + ?Sized>(file: &R) -> Result<DatabaseHeaders, EseError> {
    let largest = PageSize::KIB_32.len();
    let start = head(file, 2 * largest)?;
    choose(&start)
}

/// [`read_database_header`] on the first 64 KiB of a file.
pub(crate) fn choose(start: &[u8]) -> Result<DatabaseHeaders, EseError> {
    let unusable = |jet| EseError::HeaderUnusable { kind: FileKind::Database, jet };
    let mut found = None;
    for size in PageSize::ALL {
        let len = size.len();
        let copy = |at: usize| start.get(at..at + len);
        let is_good = |page: &[u8]| {
            has_magic(page)
                && is_header_good(page)
                && PageSize::from_field(u32_at(page, 236)) == Some(size)
        };
        let state = |page: Option<&[u8]>| match page {
            None => CopyState::Absent,
            Some(page) if is_good(page) => CopyState::Good,
            Some(_) => CopyState::Bad,
        };
        let (primary, shadow) = (copy(0), copy(len));
        let used = match (state(primary), state(shadow)) {
            (CopyState::Good, _) => HeaderCopy::Primary,
            (_, CopyState::Good) => HeaderCopy::Shadow,
            _ => continue,
        };
        let page = match used {
            HeaderCopy::Primary => primary,
            HeaderCopy::Shadow => shadow,
        };
        let Some(header) = page.and_then(DatabaseHeader::parse) else { continue };
        let differs_at = match (primary, shadow) {
            (Some(one), Some(other)) => {
                one.iter().zip(other).position(|(one, other)| one != other).map(|at| at as u64)
            }
            _ => None,
        };
        let headers = DatabaseHeaders {
            header,
            used,
            primary: state(primary),
            shadow: state(shadow),
            differs_at,
        };
        // A good primary settles the page size; a page that merely looks like a shadow does not.
        if used == HeaderCopy::Primary {
            found = Some(headers);
            break;
        }
        found.get_or_insert(headers);
    }
    let found = found.ok_or_else(|| unusable(JetError::READ_VERIFY_FAILURE))?;
    if found.header.version != VERSION {
        return Err(unusable(JetError::INVALID_DATABASE_VERSION));
    }
    if found.header.attribute != 0 || !matches!(found.header.file_type, 0 | 1 | 5) {
        return Err(unusable(JetError::FILE_INVALID_TYPE));
    }
    Ok(found)
}
