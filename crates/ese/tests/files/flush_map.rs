//! Flush maps: header, pages, and whether one belongs to a database.

use stillpoint_ese::{
    DatabaseHeader, FileKind, FindingKind, FlushMapFit, FlushMapReport, JetError, PageFault, Place,
    ScanOptions, read_database_header, read_flush_map, scan_flush_map,
    write::{DatabaseSpec, FlushMapSpec, seal_header, seal_page},
};

const PAGE: usize = 8192;

fn database() -> DatabaseHeader {
    let mut file = Vec::new();
    DatabaseSpec::new(4).with_pages(2).with_flush_map(true).write_to(&mut file).unwrap();
    read_database_header(&file).unwrap().header
}

fn scan(file: &[u8]) -> FlushMapReport {
    scan_flush_map(file, &ScanOptions::default(), &mut ()).unwrap()
}

#[test]
fn a_written_map_is_good_and_fits() {
    let database = database();
    assert!(!database.header_flush.is_zero());
    let file = FlushMapSpec::new(&database).with_pages(5, 2).bytes();
    assert_eq!(FileKind::sniff(&file).unwrap().kind, FileKind::FlushMap);
    let report = scan(&file);
    assert_eq!(report.findings.list, []);
    assert_eq!((report.pages, report.uninitialised, report.capacity), (5, 2, 5 * 32_512));
    let header = report.header.unwrap();
    assert_eq!(read_flush_map(&file).unwrap(), header);
    assert!(header.is_clean && header.created.is_set() && header.detached.is_set());
    assert_eq!(header.fit(&database), FlushMapFit::Usable);

    let mut other = database.clone();
    other.header_flush = database.signature;
    assert_eq!(header.fit(&other), FlushMapFit::MapMovedOn);
    other.flush_map_flush = database.signature;
    assert_eq!(header.fit(&other), FlushMapFit::DatabaseMovedOn);
    let mut newer = header;
    newer.version[0] = 4;
    assert_eq!(newer.fit(&database), FlushMapFit::Version);
}

#[test]
fn every_turned_bit_is_found_in_its_page() {
    let mut file = FlushMapSpec::new(&database()).with_pages(3, 1).bytes();
    for bit in (0..file.len() * 8).step_by(101) {
        file[bit / 8] ^= 1 << (bit % 8);
        let report = scan(&file);
        assert_eq!(report.findings.list.len(), 1, "bit {bit}");
        let found = &report.findings.list[0];
        if bit / 8 < PAGE {
            assert_eq!(found.kind, FindingKind::HeaderUnusable);
            assert_eq!(found.jet, Some(JetError::READ_VERIFY_FAILURE));
            assert!(read_flush_map(&file).is_err());
        } else {
            let number = u32::try_from(bit / 8 / PAGE - 1).unwrap();
            assert_eq!(found.place, Place::Page(number), "bit {bit}");
        }
        file[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn pages_out_of_place_and_other_files() {
    let good = FlushMapSpec::new(&database()).with_pages(3, 0).bytes();
    let mut swapped = good.clone();
    swapped.copy_within(2 * PAGE..3 * PAGE, PAGE);
    let found = &scan(&swapped).findings.list[0];
    assert_eq!(found.kind, FindingKind::Page(PageFault::WrongPage { actual: 1 }));

    let mut renumbered = good.clone();
    renumbered[PAGE + 16] = 9;
    seal_page(&mut renumbered[PAGE..2 * PAGE], 0);
    let found = &scan(&renumbered).findings.list[0];
    assert_eq!(found.kind, FindingKind::Page(PageFault::NumberField { found: 9 }));

    // The old checksum format is none of a map's.
    let mut old = good.clone();
    old[PAGE + 36..PAGE + 40].fill(0);
    seal_page(&mut old[PAGE..2 * PAGE], 0);
    assert_eq!(scan(&old).findings.list[0].kind, FindingKind::Page(PageFault::Checksum));

    let mut other = good.clone();
    other[667] = 3;
    seal_header(&mut other[..PAGE]);
    assert_eq!(scan(&other).findings.list[0].jet, Some(JetError::FILE_INVALID_TYPE));
    let kinds: Vec<_> =
        scan(&good[..2 * PAGE + 7]).findings.iter().map(|found| found.kind.clone()).collect();
    assert_eq!(kinds, [FindingKind::PartialTail { bytes: 7 }]);
    assert_eq!(scan(&good[..100]).findings.list[0].kind, FindingKind::HeaderUnusable);
}
