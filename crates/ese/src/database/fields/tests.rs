use super::*;

/// A page whose every byte tells its offset, so that a field read from a wrong place shows.
fn ramp() -> Vec<u8> {
    let mut page: Vec<u8> =
        (0..4096u32).map(|at| u8::try_from(at.wrapping_mul(37) >> 3 & 0xFF).unwrap()).collect();
    page[236..240].fill(0);
    page
}

#[test]
#[allow(clippy::too_many_lines, reason = "it is a table of offsets")]
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
    for (at, field) in [(16, header.dbtime), (280, header.scrub.dbtime), (508, header.sort_version)]
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
