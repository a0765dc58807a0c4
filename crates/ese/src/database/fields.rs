//! The fields of a database header, all 748 bytes of them.

use serde::{Serialize, Serializer};

use super::{
    DatabaseState, Trailer,
    upkeep::{BackupType, Occurrence, RepairCount, RevertRecord, ScanRecord, ScrubRecord},
};
use crate::{
    BackupInfo, Generation, GenerationRange, Lgpos, LogTime, PageSize, Signature,
    bytes::{array_at, i32_at, u32_at, u64_at},
};

/// The four flag bytes of a database header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DatabaseFlags([u8; 4]);

impl DatabaseFlags {
    /// The bytes as they are stored.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0
    }

    /// Whether the shadow header is switched off.
    pub const fn is_shadow_disabled(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether an upgrade of the database is under way.
    pub const fn is_upgrading(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// Whether Windows' own copy of the engine (ESENT) attached it.
    pub const fn attached_by_windows(self) -> bool {
        self.0[3] & 1 != 0
    }

    /// Whether Exchange's copy of the engine (ESE) attached it.
    pub const fn attached_by_exchange(self) -> bool {
        self.0[3] & 2 != 0
    }

    /// Whether a private build of the engine attached it.
    pub const fn attached_by_private_build(self) -> bool {
        self.0[3] & 4 != 0
    }
}

impl Serialize for DatabaseFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = [
            (self.is_shadow_disabled(), "shadow_disabled"),
            (self.is_upgrading(), "upgrading"),
            (self.attached_by_windows(), "attached_by_windows"),
            (self.attached_by_exchange(), "attached_by_exchange"),
            (self.attached_by_private_build(), "attached_by_private_build"),
        ];
        serializer
            .collect_seq(names.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)))
    }
}

/// The fields of a database header.
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
    /// Where it was attached again, after it was detached in the middle of the stream.
    pub reattach: Lgpos,
    /// When that was.
    pub reattach_time: LogTime,
    /// Number of the database in its log stream.
    pub dbid: u32,
    /// Signature of the log stream that it belongs to.
    pub log_signature: Signature,
    /// Last full backup.
    pub last_full: BackupInfo,
    /// How that was made.
    pub last_full_type: BackupType,
    /// Last incremental backup since that.
    pub last_incremental: BackupInfo,
    /// How that was made.
    pub last_incremental_type: BackupType,
    /// Full backup under way, or restored from one.
    pub current_full: BackupInfo,
    /// Last copy backup.
    pub last_copy: BackupInfo,
    /// How that was made.
    pub last_copy_type: BackupType,
    /// Last differential backup.
    pub last_differential: BackupInfo,
    /// How that was made.
    pub last_differential_type: BackupType,
    /// VSS backup under way.
    pub current_snapshot: BackupInfo,
    /// Shadow header, upgrade, and which engine attached it.
    pub flags: DatabaseFlags,
    /// Highest object id.
    pub last_objid: u32,
    /// Windows version: major, minor, build.
    pub os_version: [u32; 3],
    /// Windows service pack.
    pub os_service_pack: i32,
    /// Second part of the version, "0x620,N".
    pub update_major: u32,
    /// Third part of the version.
    pub update_minor: u32,
    /// Format version of the engine that created it.
    pub create_version: u32,
    /// Second part of that.
    pub create_update_major: u32,
    /// Version number of the engine that attached it last, for diagnosis.
    pub engine_version: u32,
    /// Version of the sort order of text, no longer used.
    pub sort_version: u64,
    /// Page size.
    pub page_size: PageSize,
    /// Hard repairs; not zero means that the database has been through `eseutil /p`.
    pub repairs: u32,
    /// When it was repaired last.
    pub repair_time: LogTime,
    /// Hard repairs before the last defragmentation.
    pub repairs_before_defrag: u32,
    /// Page counters of an upgrade from Exchange 5.5.
    pub upgrade_pages: [i32; 3],
    /// First generation needed; 0 when none is.
    pub min_required: Generation,
    /// Last generation needed for consistency.
    pub max_required: Generation,
    /// Last generation with committed work; may be 0 in older files.
    pub max_committed: Generation,
    /// Needed to become clean, may lie above `min_required`.
    pub min_consistent: Generation,
    /// What `min_required` was before redo began; 0 when nothing overrides it.
    pub pre_redo_min_required: Generation,
    /// What `min_consistent` was before redo began; 0 when nothing overrides it.
    pub pre_redo_min_consistent: Generation,
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
    /// Last scrub (overwriting of deleted data).
    pub scrub: ScrubRecord,
    /// The engine's own scan of the database.
    pub scan: ScanRecord,
    /// Growths of the file.
    pub extended: Occurrence,
    /// Shrinkings of the file.
    pub shrunk: Occurrence,
    /// Trims (holes made in the file).
    pub trims: u32,
    /// Where the file was resized last.
    pub last_resize: Lgpos,
    /// Signature of the streaming file, obsolete.
    pub slv_signature: Signature,
    /// Pairs with the flush map: last header flush of the database.
    pub header_flush: Signature,
    /// Pairs with the flush map: last header flush of the map.
    pub flush_map_flush: Signature,
    /// Pairs with the revert snapshot: its last header flush.
    pub revert_snapshot_flush: Signature,
    /// Reverts to an earlier state.
    pub reverts: RevertRecord,
    /// Kind of file by its own word; 0 in older files.
    pub file_type: u32,
}

impl DatabaseHeader {
    /// Reads the fields of a header page; `None` when the page-size field is impossible.
    ///
    /// Checks nothing else: use [`read_database_header`](crate::read_database_header) for a file.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let generation = |at| Generation::new(u32_at(page, at));
        let page_size = PageSize::from_field(u32_at(page, 236))?;
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
            flags: DatabaseFlags(array_at(page, 208)),
            last_objid: u32_at(page, 212),
            os_version: [u32_at(page, 216), u32_at(page, 220), u32_at(page, 224)],
            os_service_pack: i32_at(page, 228),
            update_major: u32_at(page, 232),
            page_size,
            repairs: u32_at(page, 240),
            repair_time: LogTime::parse(page, 244),
            slv_signature: Signature::parse(page, 252),
            scrub: ScrubRecord { dbtime: u64_at(page, 280), time: LogTime::parse(page, 288) },
            min_required: generation(296),
            max_required: generation(300),
            upgrade_pages: [i32_at(page, 304), i32_at(page, 308), i32_at(page, 312)],
            current_snapshot: BackupInfo::parse(page, 316),
            create_version: u32_at(page, 340),
            create_update_major: u32_at(page, 344),
            max_committed_created: LogTime::parse(page, 348),
            last_full_type: BackupType::from_field(u32_at(page, 356)),
            last_incremental_type: BackupType::from_field(u32_at(page, 360)),
            repairs_before_defrag: u32_at(page, 364),
            bits_corrected: RepairCount::parse(page, 368),
            bits_not_corrected: RepairCount::parse(page, 384),
            bad_checksums: RepairCount::parse(page, 400),
            max_committed: generation(416),
            last_copy: BackupInfo::parse(page, 420),
            last_differential: BackupInfo::parse(page, 444),
            last_copy_type: BackupType::from_field(u32_at(page, 468)),
            last_differential_type: BackupType::from_field(u32_at(page, 472)),
            incremental_reseeds: RepairCount::parse(page, 476),
            pages_patched: RepairCount::parse(page, 492),
            sort_version: u64_at(page, 508),
            scan: ScanRecord {
                finished: LogTime::parse(page, 516),
                started: LogTime::parse(page, 524),
                highest_continuous: u32_at(page, 532),
                highest: u32_at(page, 652),
            },
            recovering: generation(536),
            extended: Occurrence::parse(page, 540),
            shrunk: Occurrence::parse(page, 552),
            reattach_time: LogTime::parse(page, 564),
            reattach: Lgpos::parse(page, 572),
            trims: u32_at(page, 580),
            header_flush: Signature::parse(page, 584),
            flush_map_flush: Signature::parse(page, 612),
            min_consistent: generation(640),
            update_minor: u32_at(page, 644),
            engine_version: u32_at(page, 648),
            last_resize: Lgpos::parse(page, 656),
            file_type: u32_at(page, 667),
            max_required_created: LogTime::parse(page, 672),
            pre_redo_min_consistent: generation(680),
            pre_redo_min_required: generation(684),
            revert_snapshot_flush: Signature::parse(page, 688),
            reverts: RevertRecord::parse(page, 716),
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

    /// Whether a streaming backup of it is under way, or it was restored from one and ends with a
    /// trailer page.
    pub fn in_streaming_backup(&self) -> bool {
        self.current_full.gen_low.number() != 0 && self.current_full.gen_high.number() == 0
    }

    /// The header as it counts once the trailer of a restored streaming backup is taken into
    /// account: the trailer was written last and knows which logs the pages need.
    pub fn with_trailer(mut self, trailer: &Trailer) -> Self {
        self.min_required = trailer.min_required;
        self.max_required = trailer.max_required;
        self.max_committed = trailer.max_committed;
        self.max_required_created = trailer.max_required_created;
        self.max_committed_created = trailer.max_committed_created;
        self
    }
}

#[cfg(test)]
mod tests;
