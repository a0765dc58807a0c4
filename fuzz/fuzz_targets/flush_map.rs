#![no_main]
//! Flush maps: header and pages, and what they say of a database.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    FlushMapHeader, PageSize, ScanOptions, read_flush_map, scan_flush_map, scan_mapped_database,
    write::{DatabaseSpec, seal_header, seal_page},
};

/// The database that the seeds among the maps belong to.
static DATABASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut file = Vec::new();
    let spec = DatabaseSpec::new(1).with_page_size(PageSize::KIB_2).with_pages(12);
    spec.with_flush_map(true).write_to(&mut file).unwrap();
    file
});

fuzz_target!(|data: &[u8]| {
    let Some((seal, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    if seal % 2 == 1 && file.len() >= 8192 {
        seal_header(&mut file[..8192]);
    }
    if seal % 4 == 3 && file.len() >= 2 * 8192 {
        seal_page(&mut file[8192..2 * 8192], 0);
    }
    let _ = FlushMapHeader::parse(&file);
    let header = read_flush_map(&file);
    let report = scan_flush_map(&file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.header, header.ok());
    assert!(report.findings.iter().all(|finding| finding.offset <= file.len() as u64));
    let held = scan_mapped_database(&*DATABASE, &file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(held.lost_flushes, held.findings.damage);
    assert!(held.lost_flushes <= held.pages);
});
