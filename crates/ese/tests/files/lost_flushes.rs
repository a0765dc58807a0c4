//! Writes that never reached the disk: pages whose checksums are right, and which are older than the flush map says.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use stillpoint_ese::{
    DatabaseReport, DatabaseState, FindingKind, FlushMapFit, Generation, GenerationRange, Health,
    JetError, PageSize, Place, ReadAt, ScanOptions, Severity, check_set, read_database_header,
    scan_database, scan_flush_map, scan_mapped_database,
    write::{DatabaseSpec, FlushMapSpec, seal_header, seal_page},
};

const PAGES: u32 = 40;

fn spec(size: PageSize) -> DatabaseSpec {
    DatabaseSpec::new(9)
        .with_page_size(size)
        .with_pages(PAGES)
        .with_uninitialised(6)
        .with_flush_map(true)
}

fn written(spec: &DatabaseSpec) -> Vec<u8> {
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    file
}

fn map_of(file: &[u8]) -> FlushMapSpec {
    let header = read_database_header(file).unwrap().header;
    FlushMapSpec::new(&header).with_writes_of(file).unwrap()
}

fn scan(file: &[u8], map: &[u8]) -> DatabaseReport {
    scan_mapped_database(file, &map, &ScanOptions::default(), &mut ()).unwrap()
}

fn page_of(file: &mut [u8], size: PageSize, number: u32) -> &mut [u8] {
    let at = (number as usize + 1) * size.len();
    &mut file[at..at + size.len()]
}

/// Puts another write of a page in its place, whole and with a right checksum; gives its type.
fn put_back(file: &mut [u8], size: PageSize, number: u32) -> [u8; 2] {
    let page = page_of(file, size, number);
    let flags = u32::from_le_bytes(page[36..40].try_into().unwrap());
    let was = flags >> 15 & 3;
    let is = was % 3 + 1;
    page[36..40].copy_from_slice(&(flags & !(3 << 15) | is << 15).to_le_bytes());
    page[100] ^= 0x55;
    seal_page(page, number);
    [was, is].map(|kind| u8::try_from(kind).unwrap())
}

#[test]
fn an_older_page_is_told_by_the_map_alone() {
    for size in PageSize::ALL {
        for old_format in [false, true] {
            let mut file = written(&spec(size).with_old_format(old_format));
            let map = map_of(&file).bytes();
            assert_eq!(scan(&file, &map).findings.list, [], "{size}");
            assert_eq!(
                scan(&file, &map),
                scan_database(&file, &ScanOptions::default(), &mut ()).unwrap()
            );

            let [expected, found] = put_back(&mut file, size, 17);
            let report = scan_database(&file, &ScanOptions::default(), &mut ()).unwrap();
            assert_eq!((report.findings.list, report.lost_flushes), (vec![], 0), "{size}");
            let report = scan(&file, &map);
            assert_eq!((report.lost_flushes, report.bad), (1, 0), "{size}");
            let [only] = report.findings.list.as_slice() else { panic!("{report:?}") };
            assert_eq!(only.kind, FindingKind::LostFlush { expected, found: Some(found) });
            assert_eq!((only.place, only.severity), (Place::Page(17), Severity::Damage));
            assert_eq!(only.offset, 18 * u64::from(size.bytes()));
            assert_eq!(only.jet, Some(JetError::READ_LOST_FLUSH_VERIFY_FAILURE));
            assert_eq!(only.jet.unwrap().code(), -1119);
        }
    }
}

#[test]
fn a_first_write_that_was_lost_leaves_zeros() {
    let size = PageSize::KIB_8;
    let mut file = written(&spec(size));
    let map = map_of(&file).bytes();
    page_of(&mut file, size, 30).fill(0);
    let report = scan(&file, &map);
    assert_eq!((report.uninitialised, report.lost_flushes), (7, 1));
    let [only] = report.findings.list.as_slice() else { panic!("{report:?}") };
    assert!(matches!(only.kind, FindingKind::LostFlush { found: None, .. }), "{only}");
    assert_eq!((only.place, only.offset), (Place::Page(30), 31 * 8192));
}

/// A file with a hole, and how much of it was read.
struct Holed {
    bytes: Vec<u8>,
    hole: std::ops::Range<u64>,
    read: AtomicU64,
}

impl ReadAt for Holed {
    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read_at(offset, buf)?;
        self.read.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(if self.hole.contains(&offset) { self.hole.end } else { offset })
    }
}

#[test]
fn pages_in_a_hole_and_beyond_one_page_of_the_map() {
    // More pages than a page of the map has room for, and the pages at its edge in a hole.
    let size = PageSize::KIB_2;
    let spec = spec(size).with_pages(33_000).with_uninitialised(0);
    let mut bytes = written(&spec);
    let map = map_of(&bytes).bytes();
    assert_eq!(map.len(), 3 * 8192);
    let expected = put_back(&mut bytes, size, 32_700);
    let (first, last) = (20_480, 32_550);
    for number in first..=last {
        page_of(&mut bytes, size, number).fill(0);
    }
    let hole = u64::from(first + 1) * 2048..u64::from(last + 2) * 2048;
    let read = scan(&bytes, &map);
    let zeros = u64::from(last - first + 1);
    assert_eq!((read.lost_flushes, read.uninitialised), (zeros + 1, zeros));
    let places: Vec<_> = read.findings.iter().map(|found| found.place).collect();
    assert_eq!(places[..3], [20_480, 20_481, 20_482].map(Place::Page));
    let file = Holed { bytes, hole, read: AtomicU64::new(0) };
    for threads in [1, 2, 3] {
        for limit in [2, 100_000] {
            file.read.store(0, Ordering::SeqCst);
            let options = ScanOptions::default().with_threads(threads).with_max_findings(limit);
            let passed = scan_mapped_database(&file, &map, &options, &mut ()).unwrap();
            assert!(file.read.load(Ordering::SeqCst) < file.bytes.len() as u64 - (16 << 20));
            let read = scan_mapped_database(&file.bytes, &map, &options, &mut ()).unwrap();
            assert_eq!(passed, read, "{threads} {limit}");
        }
    }
    let all = ScanOptions::default().with_max_findings(100_000);
    let read = scan_mapped_database(&file, &map, &all, &mut ()).unwrap();
    let last = read.findings.list.last().unwrap();
    let [expected, found] = expected;
    assert_eq!(last.kind, FindingKind::LostFlush { expected, found: Some(found) });
    assert_eq!(last.place, Place::Page(32_700));
}

#[test]
fn what_proves_nothing_is_not_told() {
    let size = PageSize::KIB_4;
    let good = written(&spec(size));
    let map = map_of(&good);
    let mut lost = good.clone();
    put_back(&mut lost, size, 17);
    assert_eq!(scan(&lost, &map.bytes()).lost_flushes, 1);

    // A page that is newer than anything the map knows of.
    let mut newer = lost.clone();
    let page = page_of(&mut newer, size, 17);
    page[8..16].copy_from_slice(&0xFFFF_FFFF_u64.to_le_bytes());
    seal_page(page, 17);
    assert_eq!(scan(&newer, &map.bytes()).lost_flushes, 0);

    // A page without a type, and one that the map knows nothing of.
    let mut untyped = lost.clone();
    let page = page_of(&mut untyped, size, 17);
    let flags = u32::from_le_bytes(page[36..40].try_into().unwrap());
    page[36..40].copy_from_slice(&(flags & !(3 << 15)).to_le_bytes());
    seal_page(page, 17);
    assert_eq!(scan(&untyped, &map.bytes()).lost_flushes, 0);
    assert_eq!(scan(&lost, &map_of(&untyped).bytes()).lost_flushes, 0);

    // A page that is bad is told of as that alone.
    let mut bad = lost.clone();
    page_of(&mut bad, size, 17)[500..510].fill(1);
    let report = scan(&bad, &map.bytes());
    assert_eq!((report.bad, report.lost_flushes, report.findings.list.len()), (1, 0, 1));

    // A map that was not closed, that is damaged, or that belongs to another state of the database.
    assert_eq!(scan(&lost, &map.clone().with_clean(false).bytes()).lost_flushes, 0);
    for at in [300, 8192 + 70] {
        let mut damaged = map.bytes();
        damaged[at] ^= 0xA5;
        assert_eq!(scan(&lost, &damaged).lost_flushes, 0);
    }
    assert_eq!(scan(&lost, &map.bytes()[..8192 + 100]).lost_flushes, 0);
    assert_eq!(scan(&lost, &[]).lost_flushes, 0);
    let mut foreign = map.bytes();
    foreign[88] ^= 1;
    seal_header(&mut foreign[..8192]);
    assert_eq!(scan(&lost, &foreign).lost_flushes, 0);
    let mut later = map.bytes();
    later[8] = 1;
    seal_header(&mut later[..8192]);
    assert_eq!(scan(&lost, &later).lost_flushes, 0);
    let header = read_database_header(&lost).unwrap().header;
    let report = scan_flush_map(&later, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.header.unwrap().fit(&header), FlushMapFit::Version);

    // A database in use: its map is behind its pages.
    let range = GenerationRange::one(Generation::new(4));
    for used in [
        spec(size).with_dirty(range, Generation::new(4)),
        spec(size).with_state(DatabaseState::DirtyAndPatched),
    ] {
        let mut used = written(&used);
        let map = map_of(&used).bytes();
        put_back(&mut used, size, 17);
        assert_eq!(scan(&used, &map).findings.list, []);
    }
}

#[test]
fn a_set_uses_the_map_beside_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let size = PageSize::KIB_32;
    let mut file = written(&spec(size));
    let paths = ["one.edb", "one.jfm", "other.edb"].map(|name| folder.path().join(name));
    fs::write(&paths[1], map_of(&file).bytes()).unwrap();
    let check = || {
        let folder = [folder.path().to_owned()];
        check_set(&folder, &ScanOptions::default(), &mut ()).unwrap()
    };
    fs::write(&paths[0], &file).unwrap();
    let good = check();
    assert_eq!(good.health(), Health::Good);
    assert_eq!(good.databases[0].flush_map, Some(FlushMapFit::Usable));

    put_back(&mut file, size, 5);
    fs::write(&paths[0], &file).unwrap();
    // Without a map of its own it is as good as can be told.
    fs::write(&paths[2], &file).unwrap();
    let lost = check();
    let health: Vec<_> = lost.files.iter().map(|file| file.health).collect();
    assert_eq!(health, [Health::Bad, Health::Good, Health::Good]);
    assert_eq!(lost.files[0].findings.damage, 1);
    assert_eq!(lost.health(), Health::Bad);
}
