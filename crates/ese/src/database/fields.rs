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
mod tests {
    use super::*;

    /// A page whose every byte tells its offset, so that a field read from a wrong place shows.
    fn ramp() -> Vec<u8> {
        let mut page: Vec<u8> =
            (0..4096u32).map(|at| u8::try_from(at.wrapping_mul(37) >> 3 & 0xFF).unwrap()).collect();
        page[236..240].fill(0);
        page
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let page = ramp();
        let header = DatabaseHeader::parse(&page).unwrap();
        let long = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let signed = |at: usize| i32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let quad = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let time = |at: usize| LogTime::from_bytes(page[at..at + 8].try_into().unwrap());
        let mark = |at: usize| -> [u8; 8] { page[at..at + 8].try_into().unwrap() };
        let name = |at: usize| Signature::from_bytes(page[at..at + 28].try_into().unwrap());

        for (at, field) in [
            (0, header.checksum),
            (8, header.version),
            (12, header.attribute),
            (104, header.dbid),
            (212, header.last_objid),
            (216, header.os_version[0]),
            (220, header.os_version[1]),
            (224, header.os_version[2]),
            (232, header.update_major),
            (240, header.repairs),
            (296, header.min_required.number()),
            (300, header.max_required.number()),
            (340, header.create_version),
            (344, header.create_update_major),
            (364, header.repairs_before_defrag),
            (368, header.bits_corrected.count),
            (380, header.bits_corrected.before_defrag),
            (384, header.bits_not_corrected.count),
            (396, header.bits_not_corrected.before_defrag),
            (400, header.bad_checksums.count),
            (412, header.bad_checksums.before_defrag),
            (416, header.max_committed.number()),
            (476, header.incremental_reseeds.count),
            (488, header.incremental_reseeds.before_defrag),
            (492, header.pages_patched.count),
            (504, header.pages_patched.before_defrag),
            (532, header.scan.highest_continuous),
            (536, header.recovering.number()),
            (540, header.extended.count),
            (552, header.shrunk.count),
            (580, header.trims),
            (640, header.min_consistent.number()),
            (644, header.update_minor),
            (648, header.engine_version),
            (652, header.scan.highest),
            (667, header.file_type),
            (680, header.pre_redo_min_consistent.number()),
            (684, header.pre_redo_min_required.number()),
            (716, header.reverts.count),
            (736, header.reverts.pages),
        ] {
            assert_eq!(field, long(at), "offset {at}");
        }
        for (at, field) in
            [(16, header.dbtime), (280, header.scrub.dbtime), (508, header.sort_version)]
        {
            assert_eq!(field, quad(at), "offset {at}");
        }
        for (at, field) in [
            (228, header.os_service_pack),
            (304, header.upgrade_pages[0]),
            (308, header.upgrade_pages[1]),
            (312, header.upgrade_pages[2]),
        ] {
            assert_eq!(field, signed(at), "offset {at}");
        }
        for (at, field) in [
            (64, header.consistent_time),
            (72, header.attach_time),
            (88, header.detach_time),
            (244, header.repair_time),
            (288, header.scrub.time),
            (348, header.max_committed_created),
            (372, header.bits_corrected.last),
            (388, header.bits_not_corrected.last),
            (404, header.bad_checksums.last),
            (480, header.incremental_reseeds.last),
            (496, header.pages_patched.last),
            (516, header.scan.finished),
            (524, header.scan.started),
            (544, header.extended.last),
            (556, header.shrunk.last),
            (564, header.reattach_time),
            (672, header.max_required_created),
            (720, header.reverts.from),
            (728, header.reverts.to),
        ] {
            assert_eq!(field, time(at), "offset {at}");
        }
        for (at, field) in [
            (56, header.consistent),
            (80, header.attach),
            (96, header.detach),
            (572, header.reattach),
            (656, header.last_resize),
            (740, header.reverts.commit_before),
        ] {
            assert_eq!(field.to_bytes(), mark(at), "offset {at}");
        }
        for (at, field) in [
            (24, header.signature),
            (108, header.log_signature),
            (252, header.slv_signature),
            (584, header.header_flush),
            (612, header.flush_map_flush),
            (688, header.revert_snapshot_flush),
        ] {
            assert_eq!(field, name(at), "offset {at}");
        }
        for (at, field) in [
            (136, header.last_full),
            (160, header.last_incremental),
            (184, header.current_full),
            (316, header.current_snapshot),
            (420, header.last_copy),
            (444, header.last_differential),
        ] {
            assert_eq!(field.mark.to_bytes(), mark(at), "offset {at}");
            assert_eq!(field.time, time(at + 8), "offset {at}");
            assert_eq!(field.gen_low.number(), long(at + 16), "offset {at}");
            assert_eq!(field.gen_high.number(), long(at + 20), "offset {at}");
        }
        for (at, field) in [
            (356, header.last_full_type),
            (360, header.last_incremental_type),
            (468, header.last_copy_type),
            (472, header.last_differential_type),
        ] {
            assert_eq!(field, BackupType::from_field(long(at)), "offset {at}");
        }
        assert_eq!(header.state, DatabaseState::from_field(long(52)));
        assert_eq!(header.flags.to_bytes(), page[208..212]);
        assert_eq!(header.page_size, PageSize::KIB_4);
    }

    #[test]
    fn flags_have_names() {
        let flags = DatabaseFlags([3, 0, 0, 7]);
        assert!(flags.is_shadow_disabled() && flags.is_upgrading());
        assert!(flags.attached_by_windows() && flags.attached_by_exchange());
        assert_eq!(
            serde_json::to_string(&DatabaseFlags([1, 0, 0, 2])).unwrap(),
            "[\"shadow_disabled\",\"attached_by_exchange\"]"
        );
        assert_eq!(serde_json::to_string(&DatabaseFlags([0xFC, 9, 9, 0xF8])).unwrap(), "[]");
    }
}
