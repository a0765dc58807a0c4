use super::*;

#[test]
fn every_field_is_read_from_its_place() {
    let mut page: Vec<u8> =
        (0..4096u32).map(|at| u8::try_from(at.wrapping_mul(37) >> 3 & 0xFF).unwrap()).collect();
    page[14..16].copy_from_slice(&0x8000u16.to_le_bytes());
    page[72..80].copy_from_slice(b"C:\\sys\\\0");
    page[333..341].copy_from_slice(b"D:\\log\\\0");
    page[594] = 1;
    page[639] = 5;
    let header = LogHeader::parse(&page);
    let long = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let settings = &header.settings;
    for (at, field) in [
        (0, header.checksum),
        (4, header.generation.number()),
        (32, header.version[0]),
        (36, header.version[1]),
        (40, header.version[2]),
        (648, header.version[3]),
        (595, settings.sessions),
        (599, settings.tables),
        (603, settings.version_pages),
        (607, settings.cursors),
        (611, settings.log_buffers),
        (615, settings.log_sectors),
        (619, settings.cache),
        (661, header.engine_version),
        (667, header.file_type),
    ] {
        assert_eq!(field, long(at), "offset {at}");
    }
    for (at, field) in
        [(8, header.segment_size), (10, header.header_segments), (12, header.segments)]
    {
        assert_eq!(field.to_le_bytes(), page[at..at + 2], "offset {at}");
    }
    assert_eq!(header.page_size, Some(PageSize::KIB_32));
    assert_eq!(header.created.to_bytes(), page[16..24]);
    assert_eq!(header.previous_created.to_bytes(), page[24..32]);
    assert_eq!(header.signature.as_bytes()[..], page[44..72]);
    assert_eq!(settings.system_path, "C:\\sys\\");
    assert_eq!(settings.log_path, "D:\\log\\");
    assert!(settings.is_circular && header.from_reserve && header.was_circular);
    assert!(!header.is_circular);
    assert_eq!(header.checkpoint.to_bytes(), page[640..648]);
    assert_eq!(header.previous_accumulated.to_le_bytes(), page[653..661]);
    for (field, sector) in [
        (0, None),
        (1, Some(header.segment_size)),
        (2, Some(512)),
        (3, Some(1024)),
        (4, Some(2048)),
        (5, Some(4096)),
        (255, None),
    ] {
        page[652] = field;
        assert_eq!(LogHeader::parse(&page).disk_sector, sector);
    }
}

#[test]
fn attachments_follow_each_other() {
    let mut list = vec![0; 2048];
    let mut at = 0;
    for (dbid, flags, name) in [(1u8, 0x60u8, b"D\0:\0\0\0".as_slice()), (2, 0, b"E:\0".as_slice())]
    {
        let entry: Vec<u8> = (0..64).map(|byte| byte ^ dbid).collect();
        list[at..at + 64].copy_from_slice(&entry);
        list[at] = dbid;
        list[at + 1] = flags;
        list[at + 2..at + 4].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        list[at + 64..at + 64 + name.len()].copy_from_slice(name);
        at += 64 + name.len();
    }
    let found = Attachment::parse_list(&list);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].path.as_str(), found[1].path.as_str()), ("D:", "E:"));
    assert!(found[0].is_sparse && !found[1].is_sparse);
    assert_eq!((found[1].dbid, found[1].max_pages), (2, u32_at(&list, 70 + 16)));
    assert_eq!(found[0].last_objid, u32_at(&list, 12));
    assert_eq!(found[0].attach.to_bytes(), list[20..28]);
    assert_eq!(found[0].consistent.to_bytes(), list[28..36]);
    assert_eq!(found[0].signature.as_bytes()[..], list[36..64]);
    // A name that reaches beyond the list ends it.
    list[at] = 3;
    list[at + 2..at + 4].fill(0xFF);
    assert_eq!(Attachment::parse_list(&list).len(), 2);
}
