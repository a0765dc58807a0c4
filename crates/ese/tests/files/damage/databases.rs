//! Databases, damaged in known ways.

use super::*;

#[test]
fn written_databases_are_good() {
    for size in PageSize::ALL {
        for old_format in [false, true] {
            let spec = DatabaseSpec::new(3)
                .with_page_size(size)
                .with_pages(200)
                .with_uninitialised(30)
                .with_old_format(old_format)
                .with_dirty(range(4, 9), generation(11));
            let report = scan(&database(&spec));
            assert_eq!((report.pages, report.uninitialised), (200, 30), "{size}");
            assert_eq!(report.findings.list, [], "{size}");
            let header = report.header.unwrap();
            assert_eq!(header.required(), Some(range(4, 9)));
            assert_eq!(header.committed(), generation(11));
            assert_eq!(header.signature, spec.signature());
            assert!(report.highest_dbtime.unwrap().0 <= header.dbtime);
            assert_eq!(database(&spec), database(&spec));
        }
    }
}

#[test]
fn a_turned_bit_anywhere_in_a_database_is_found_where_it_is() {
    for size in PageSize::ALL {
        let page_size = size.len();
        let spec = DatabaseSpec::new(9).with_page_size(size).with_pages(12).with_uninitialised(3);
        let mut file = database(&spec);
        let mut noise = Noise::new(u64::from(size.bytes()));
        for _ in 0..600 {
            let bit = usize::try_from(noise.below(file.len() as u64 * 8)).unwrap();
            let (at, slot) = (bit / 8, bit / 8 / page_size);
            file[at] ^= 1 << (bit % 8);
            let report = scan(&file);
            let finding = only(&report.findings);
            assert!(!report.findings.is_intact());
            match slot {
                0 => assert_eq!((finding.place, finding.offset), (Place::Header, at as u64)),
                1 => assert_eq!((finding.place, finding.offset), (Place::ShadowHeader, at as u64)),
                slot => {
                    assert_eq!(finding.place, Place::Page(u32::try_from(slot - 1).unwrap()));
                    let expected = match &finding.kind {
                        FindingKind::Page(PageFault::Correctable { .. }) => at,
                        _ => slot * page_size,
                    };
                    assert_eq!(finding.offset, expected as u64);
                }
            }
            file[at] ^= 1 << (bit % 8);
        }
        assert_eq!(scan(&file).findings.list, []);
    }
}

#[test]
fn headers_stand_in_for_each_other() {
    for size in PageSize::ALL {
        let len = size.len();
        let file = database(&DatabaseSpec::new(1).with_page_size(size));
        let good = read_database_header(&file).unwrap().header;
        let mut torn = file.clone();
        torn[..len].fill(0xEE);
        let report = scan(&torn);
        assert_eq!(report.header.unwrap(), good);
        assert_eq!(only(&report.findings).kind, FindingKind::HeaderCopyBad);
        assert_eq!(only(&report.findings).severity, Severity::Repairable);
        torn[len..2 * len].fill(0xEE);
        let report = scan(&torn);
        assert_eq!(report.header, None);
        assert_eq!(only(&report.findings).jet, Some(JetError::READ_VERIFY_FAILURE));
        assert!(!report.findings.is_usable());

        let mut updated = file.clone();
        updated[16] ^= 1;
        seal_header(&mut updated[..len]);
        let report = scan(&updated);
        assert_eq!(only(&report.findings).kind, FindingKind::HeaderCopiesDiffer);
        assert!(report.findings.is_intact());
        assert_ne!(read_stamp(&updated).unwrap(), read_stamp(&file).unwrap());
    }
}

#[test]
fn other_versions_and_types_are_refused_by_name() {
    let file = database(&DatabaseSpec::new(1));
    let len = PageSize::KIB_32.len();
    for (at, value, jet) in [
        (8, 0x621_u32, JetError::INVALID_DATABASE_VERSION),
        (667, 2, JetError::FILE_INVALID_TYPE),
        (12, 1, JetError::FILE_INVALID_TYPE),
    ] {
        let mut file = file.clone();
        for copy in [0, len] {
            file[copy + at..copy + at + 4].copy_from_slice(&value.to_le_bytes());
            seal_header(&mut file[copy..copy + len]);
        }
        assert_eq!(only(&scan(&file).findings).jet, Some(jet));
    }
}

#[test]
fn swapped_pages_name_each_other() {
    for size in PageSize::ALL {
        let len = size.len();
        let mut file = database(&DatabaseSpec::new(5).with_page_size(size));
        let (one, other) = (3 * len, 8 * len);
        let page = file[one..one + len].to_vec();
        file.copy_within(other..other + len, one);
        file[other..other + len].copy_from_slice(&page);
        let report = scan(&file);
        let kinds: Vec<_> =
            report.findings.iter().map(|found| (found.place, &found.kind)).collect();
        let wrong = |actual| FindingKind::Page(PageFault::WrongPage { actual });
        assert_eq!(kinds, [(Place::Page(2), &wrong(7)), (Place::Page(7), &wrong(2))], "{size}");
        assert_eq!(report.bad, 2);
    }
}

#[test]
fn files_cut_short_say_so() {
    let len = PageSize::KIB_8.len();
    let spec = DatabaseSpec::new(5).with_page_size(PageSize::KIB_8).with_pages(20);
    let file = database(&spec.with_uninitialised(0));
    let report = scan(&file[..10 * len + 100]);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind.clone()).collect();
    assert_eq!(
        kinds,
        [FindingKind::PartialTail { bytes: 100 }, FindingKind::LinksBeyondEnd { highest: 9 }]
    );
    assert_eq!(only(&scan(&file[..2 * len]).findings).kind, FindingKind::NoPages);
    let kinds: Vec<_> =
        scan(&file[..len + 5]).findings.iter().map(|finding| finding.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            FindingKind::HeaderCopyAbsent,
            FindingKind::NoPages,
            FindingKind::PartialTail { bytes: 5 }
        ]
    );
    for len in [0, 1, 100, len - 1] {
        assert_eq!(only(&scan(&file[..len]).findings).kind, FindingKind::HeaderUnusable);
    }
}

#[test]
fn the_trailer_of_a_streaming_backup_is_no_bad_page() {
    let mut file = database(&DatabaseSpec::new(5).with_page_size(PageSize::KIB_4));
    let mut trailer = vec![0; 4096];
    for (at, byte) in trailer.iter_mut().enumerate().take(148).skip(40) {
        *byte = u8::try_from(at).unwrap();
    }
    seal_header(&mut trailer);
    file.extend(&trailer);
    let report = scan(&file);
    assert_eq!(only(&report.findings).kind, FindingKind::Trailer);
    assert_eq!((report.bad, report.pages), (0, 62));
    let found = report.trailer.unwrap();
    let long = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().unwrap());
    assert_eq!(found.backup.mark.to_bytes(), trailer[40..48]);
    assert_eq!(found.backup.gen_high.number(), long(60));
    assert_eq!(found.signature.as_bytes()[..], trailer[64..92]);
    assert_eq!(found.log_signature.as_bytes()[..], trailer[92..120]);
    assert_eq!(found.max_required_created.to_bytes(), trailer[132..140]);
    assert_eq!(found.max_committed_created.to_bytes(), trailer[140..148]);
    let header = report.header.unwrap().with_trailer(&found);
    let generations = [header.min_required, header.max_required, header.max_committed];
    assert_eq!(generations, [120, 124, 128].map(|at| generation(long(at))));
    // Anywhere else it is a bad page, and so is a spoiled one.
    file.extend([0; 4096]);
    assert_eq!(scan(&file).trailer, None);
    assert_eq!(scan(&file).bad, 1);
    file.truncate(file.len() - 4096);
    let at = file.len() - 4096 + 100;
    file[at] ^= 1;
    assert_eq!((scan(&file).trailer, scan(&file).bad), (None, 1));
}

#[test]
fn findings_are_bounded_and_counted() {
    let mut file = database(&DatabaseSpec::new(5).with_page_size(PageSize::KIB_2).with_pages(400));
    // A notice fills the list before the damage comes.
    file[16] ^= 1;
    seal_header(&mut file[..2048]);
    for slot in 10..200 {
        file[slot * 2048 + 900..slot * 2048 + 908].fill(0x5A);
    }
    let options = ScanOptions::default().with_max_findings(1);
    let report = scan_database(&file, &options, &mut ()).unwrap();
    assert_eq!((report.findings.notices, report.findings.damage), (1, 190));
    assert_eq!(report.findings.list.len(), 2);
    assert_eq!(report.findings.omitted, 189);
    assert_eq!(report.findings.worst().unwrap().place, Place::Page(9));
}

struct Tape(Vec<u8>, u64);

impl Observer for Tape {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn progress(&mut self, progress: Progress) -> std::ops::ControlFlow<()> {
        assert!(progress.done >= self.1 && progress.done <= progress.total);
        self.1 = progress.done;
        std::ops::ControlFlow::Continue(())
    }
}

#[test]
fn an_observer_sees_every_byte_once() {
    let mut file = database(&DatabaseSpec::new(5).with_page_size(PageSize::KIB_2).with_pages(300));
    file.extend([1; 77]);
    let log = logs(&stream(3, 3)).remove(0).bytes;
    let mut checkpoint = CheckpointSpec::new(stream(3, 3).signature(), Lgpos::default()).bytes();
    checkpoint.extend(vec![1; 100_000]);
    for chunk in [0, 70_001, 1 << 20] {
        let options = ScanOptions::default().with_chunk(chunk);
        let mut tape = Tape(Vec::new(), 0);
        scan_database(&file, &options, &mut tape).unwrap();
        assert!(tape.0 == file);
        let mut tape = Tape(Vec::new(), 0);
        scan_log(&log, &options, &mut tape).unwrap();
        assert!(tape.0 == log);
        let mut tape = Tape(Vec::new(), 0);
        scan_checkpoint(&checkpoint, &options, &mut tape).unwrap();
        assert!(tape.0 == checkpoint);
    }
}

#[test]
fn a_caller_can_stop_a_scan() {
    let file = database(&DatabaseSpec::new(5).with_pages(100));
    let options = ScanOptions::default().with_chunk(1 << 16);
    let mut calls = 0;
    let stopped = scan_database(&file, &options, &mut |_| {
        calls += 1;
        if calls == 3 {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(EseError::Stopped)));
    assert_eq!(calls, 3);
}

/// A reader that gives bytes in dribs and drabs and fails at one offset.
#[derive(Debug)]
struct Flaky(Vec<u8>, u64);

impl ReadAt for Flaky {
    fn size(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        if offset == self.1 {
            return Err(std::io::Error::other("bad sector"));
        }
        let len = buf.len().min(4096);
        self.0.read_at(offset, &mut buf[..len])
    }
}

#[test]
fn a_read_error_names_its_offset() {
    let file = Flaky(database(&DatabaseSpec::new(5)), u64::MAX);
    assert_eq!(scan_database(&file, &ScanOptions::default(), &mut ()).unwrap().findings.list, []);
    let file = Flaky(file.0, 0x10_0000);
    match scan_database(&file, &ScanOptions::default(), &mut ()) {
        Err(EseError::Read { offset: 0x10_0000, .. }) => {}
        other => panic!("{other:?}"),
    }
}
