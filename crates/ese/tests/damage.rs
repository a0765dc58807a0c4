//! Files of our own making, damaged in known ways: what is found must be what was done.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use stillpoint_ese::{
    EseError, FileKind, Finding, FindingKind, Generation, GenerationRange, JetError, Lgpos,
    LogBody, LogMember, LogTime, Observer, PageFault, PageSize, Place, Progress, ReadAt, Reason,
    ScanOptions, SetVerdict, Severity, StreamFindingKind, check_stream, judge_set,
    read_database_header, read_log_header, read_stamp, scan_checkpoint, scan_database, scan_log,
    write::{
        CheckpointSpec, DatabaseSpec, ExchangeSet, LogStreamSpec, NamedLog, Noise, seal_header,
        seal_page,
    },
};

fn generation(number: u32) -> Generation {
    Generation::new(number)
}

fn range(first: u32, last: u32) -> GenerationRange {
    GenerationRange::new(generation(first), generation(last)).unwrap()
}

fn database(spec: &DatabaseSpec) -> Vec<u8> {
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    assert_eq!(file.len() as u64, spec.file_len());
    file
}

fn scan(file: &[u8]) -> stillpoint_ese::DatabaseReport {
    scan_database(file, &ScanOptions::default(), &mut ()).unwrap()
}

fn only(findings: &stillpoint_ese::Findings) -> &Finding {
    assert_eq!(findings.list.len(), 1, "{:?}", findings.list);
    &findings.list[0]
}

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

// Logs.

fn stream(first: u32, last: u32) -> LogStreamSpec {
    LogStreamSpec::new(11, generation(first), generation(last)).with_segments(40)
}

fn logs(spec: &LogStreamSpec) -> Vec<NamedLog> {
    spec.logs().collect()
}

fn scan_bytes(bytes: &[u8]) -> stillpoint_ese::LogReport {
    scan_log(bytes, &ScanOptions::default(), &mut ()).unwrap()
}

fn members(logs: &[NamedLog]) -> Vec<LogMember> {
    logs.iter()
        .map(|log| LogMember::from_report(&log.name, &scan_bytes(&log.bytes)).unwrap())
        .collect()
}

#[test]
fn written_logs_are_good_and_chained() {
    let spec = stream(1, 6);
    let logs = logs(&spec);
    let names: Vec<&str> = logs.iter().map(|log| log.name.as_str()).collect();
    assert_eq!(names[0], "E0000000001.log");
    assert_eq!(names[5], "E00.log");
    for log in &logs {
        let report = scan_bytes(&log.bytes);
        assert_eq!(report.findings.list, [], "{}", log.name);
        let data = if log.name == "E00.log" { 13 } else { 38 };
        assert!(
            matches!(report.body, LogBody::Checked { data_segments, .. } if data_segments == data)
        );
        assert_eq!(FileKind::sniff(&log.bytes).unwrap().kind, FileKind::Log);
    }
    assert_eq!(check_stream(&spec.signature(), &members(&logs)), []);
}

#[test]
fn a_turned_bit_anywhere_in_a_log_is_found_where_it_is() {
    for mut log in logs(&stream(3, 4)) {
        let data = if log.name == "E00.log" { 13 } else { 38 };
        for bit in (0..log.bytes.len() * 8).step_by(97) {
            let at = bit / 8;
            let segment = at / 4096;
            log.bytes[at] ^= 1 << (bit % 8);
            let report = scan_bytes(&log.bytes);
            assert!(!report.findings.is_intact(), "{} bit {bit}", log.name);
            let finding = only(&report.findings);
            if segment == 0 {
                assert_eq!((finding.place, finding.offset), (Place::Header, 0));
            } else {
                assert_eq!(finding.place, Place::Segment(u32::try_from(segment).unwrap()));
                let is_located = matches!(finding.kind, FindingKind::SegmentCorrectable { .. });
                let is_torn = finding.kind == FindingKind::TornSegment;
                // The last data segment has a shadow after it, so the whole of it can be had back.
                assert_eq!(is_torn, segment == data, "{} bit {bit}", log.name);
                let within = bit % (4096 * 8);
                // Beyond the data there is nothing to correct, only something to find.
                let can_be = segment < data && within >= 64;
                assert_eq!(is_located, can_be, "{} bit {bit}: {finding}", log.name);
                let expected = if is_located { at } else { segment * 4096 };
                assert_eq!(finding.offset, expected as u64, "{} bit {bit}", log.name);
            }
            log.bytes[at] ^= 1 << (bit % 8);
        }
        assert_eq!(scan_bytes(&log.bytes).findings.list, []);
    }
}

#[test]
fn a_bit_of_the_checksum_makes_no_segment_a_shadow() {
    // The segment's number is mixed into the checksum: one bit less, and it is right for the
    // segment before, as a shadow's is.
    let mut log = logs(&stream(3, 4)).remove(0).bytes;
    log[7 * 4096] ^= 1;
    let report = scan_bytes(&log);
    let finding = only(&report.findings);
    assert_eq!((finding.place, &finding.kind), (Place::Segment(7), &FindingKind::SegmentBad));
    assert!(matches!(report.body, LogBody::Checked { data_segments: 38, .. }));
}

#[test]
fn what_recycled_logs_leave_behind_is_no_fault() {
    let old = logs(&stream(3, 4)).remove(0).bytes;
    let mut current = logs(&stream(9, 9)).remove(0).bytes;
    assert_eq!(current.len(), old.len());
    // From the segment after the shadow on, the older content shows, its own shadow too.
    current[15 * 4096..].copy_from_slice(&old[15 * 4096..]);
    let report = scan_bytes(&current);
    assert_eq!(report.findings.list, []);
    assert!(matches!(report.body, LogBody::Checked { data_segments: 13, is_torn: false, .. }));

    // Newer segments than the header says are not.
    let newer = logs(&stream(12, 13)).remove(0).bytes;
    current[16 * 4096..17 * 4096].copy_from_slice(&newer[16 * 4096..17 * 4096]);
    let report = scan_bytes(&current);
    assert!(matches!(only(&report.findings).kind, FindingKind::SegmentMisplaced { .. }));
}

#[test]
fn a_torn_end_is_had_back_from_the_shadow() {
    let good = logs(&stream(9, 9)).remove(0).bytes;
    let mut torn = good.clone();
    torn[13 * 4096 + 512..14 * 4096].fill(0x33);
    let report = scan_bytes(&torn);
    let finding = only(&report.findings);
    assert_eq!(
        (finding.kind.clone(), finding.severity),
        (FindingKind::TornSegment, Severity::Repairable)
    );
    let LogBody::Checked { data_segments: 13, accumulated, is_torn: true, .. } = report.body else {
        panic!("{:?}", report.body)
    };
    assert!(
        matches!(scan_bytes(&good).body, LogBody::Checked { accumulated: sum, .. } if sum == accumulated)
    );
    // Without the shadow it is damage.
    torn[14 * 4096..15 * 4096].fill(0x44);
    assert!(!scan_bytes(&torn).findings.is_usable());
}

#[test]
fn data_after_a_hole_is_damage() {
    let mut log = logs(&stream(3, 4)).remove(0).bytes;
    log[5 * 4096..6 * 4096].fill(0);
    let report = scan_bytes(&log);
    assert!(report.findings.iter().any(|found| found.kind == FindingKind::SegmentAfterEnd));
    assert!(!report.findings.is_usable());
}

#[test]
fn logs_of_another_length_or_version() {
    let log = logs(&stream(3, 4)).remove(0).bytes;
    let report = scan_bytes(&log[..20 * 4096 + 7]);
    assert_eq!(
        only(&report.findings).kind,
        FindingKind::LengthMismatch { expected: 40 * 4096, actual: 20 * 4096 + 7 }
    );
    let patched = |at: usize, value: u32| {
        let mut log = log.clone();
        log[at..at + 4].copy_from_slice(&value.to_le_bytes());
        seal_header(&mut log[..4096]);
        scan_bytes(&log)
    };
    let report = patched(32, 6);
    assert_eq!(only(&report.findings).kind, FindingKind::BodyNotChecked { version: 6 });
    assert_eq!(report.body, LogBody::NotChecked);
    assert_eq!(only(&patched(32, 9).findings).jet, Some(JetError::BAD_LOG_VERSION));
    assert!(
        patched(8, 512 | 1 << 16)
            .findings
            .iter()
            .any(|found| found.kind == FindingKind::SegmentSizeInvalid)
    );
    assert!(
        patched(4, 0).findings.iter().any(|found| found.kind == FindingKind::GenerationInvalid)
    );
    assert_eq!(only(&patched(667, 4).findings).jet, Some(JetError::FILE_INVALID_TYPE));
    assert_eq!(only(&scan_bytes(&log[..100]).findings).kind, FindingKind::HeaderUnusable);
    assert_eq!(only(&scan_bytes(&[]).findings).kind, FindingKind::HeaderUnusable);
}

#[test]
fn stream_rules() {
    use StreamFindingKind as K;
    let spec = stream(3, 9);
    let all = members(&logs(&spec));
    let check = |change: &dyn Fn(&mut Vec<LogMember>)| {
        let mut logs = all.clone();
        change(&mut logs);
        let found = check_stream(&spec.signature(), &logs);
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].kind.clone(), found[0].jet.code(), found[0].generation.number())
    };
    assert_eq!(check(&|logs| drop(logs.drain(2..4))), (K::Gap { missing: range(5, 6) }, -528, 7));
    assert_eq!(
        check(&|logs| logs[2].previous_created = LogTime::default()),
        (K::SequenceBroken, -515, 5)
    );
    assert_eq!(check(&|logs| logs[2].previous_accumulated ^= 2), (K::AccumulatedMismatch, -590, 5));
    assert_eq!(
        check(&|logs| logs[2].file = "E0000000055.log".into()),
        (K::NameMismatch { named: generation(0x55) }, -513, 5)
    );
    assert_eq!(
        check(&|logs| {
            let mut twin = logs[2].clone();
            twin.file = "folder/E00tmp.log".into();
            logs.push(twin);
        }),
        (K::Duplicate { other: "E0000000005.log".into() }, -513, 5)
    );
    assert_eq!(
        check(&|logs| {
            logs[6].file = "E0000000009.log".into();
            logs[5].file = "E00.log".into();
        }),
        (K::CurrentNotHighest, -513, 8)
    );
    let foreign = members(&logs(&LogStreamSpec::new(99, generation(3), generation(3))));
    assert_eq!(check(&|logs| logs.extend(foreign.clone())), (K::ForeignSignature, -530, 3));
    // An engine that keeps no accumulated checksum writes 0.
    let mut old = all.clone();
    old[2].previous_accumulated = 0;
    assert_eq!(check_stream(&spec.signature(), &old), []);
}

#[test]
fn the_order_in_which_logs_are_found_decides_nothing() {
    let spec = stream(3, 9);
    let mut logs = members(&logs(&spec));
    logs.remove(2);
    logs.extend(members(
        &LogStreamSpec::new(99, generation(3), generation(5)).logs().collect::<Vec<_>>(),
    ));
    let found = check_stream(&spec.signature(), &logs);
    assert_eq!(found.len(), 4, "{found:?}");
    logs.reverse();
    assert_eq!(check_stream(&spec.signature(), &logs), found);
}

#[test]
fn checkpoints() {
    let spec = stream(3, 9);
    let good = CheckpointSpec::new(spec.signature(), Lgpos::default()).bytes();
    let scan = |bytes: &[u8]| scan_checkpoint(bytes, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(scan(&good).findings.list, []);
    assert_eq!(FileKind::sniff(&good).unwrap().kind, FileKind::Checkpoint);
    for (at, place) in [(700, Place::Header), (4096 + 700, Place::ShadowHeader)] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        let report = scan(&bad);
        assert_eq!(report.header.as_ref().unwrap().log_signature, spec.signature());
        let finding = only(&report.findings);
        assert_eq!((finding.place, finding.offset), (place, at as u64));
        assert_eq!(FileKind::sniff(&bad).unwrap().kind, FileKind::Checkpoint);
        bad[(at + 4096) % 8192] ^= 2;
        let report = scan(&bad);
        assert_eq!(report.header, None);
        assert_eq!(only(&report.findings).jet, Some(JetError::CHECKPOINT_CORRUPT));
        assert_eq!(FileKind::sniff(&bad).unwrap().kind, FileKind::Checkpoint);
        assert!(!FileKind::sniff(&bad).unwrap().is_intact);
    }
    let mut other = good.clone();
    for copy in [0, 4096] {
        other[copy + 667] = 3;
        seal_header(&mut other[copy..copy + 4096]);
    }
    assert_eq!(only(&scan(&other).findings).jet, Some(JetError::FILE_INVALID_TYPE));
    let refused = stillpoint_ese::read_checkpoint(&other).unwrap_err();
    assert_eq!(refused.jet(), Some(JetError::FILE_INVALID_TYPE));
    let report = scan(&good[..5000]);
    assert!(report.findings.iter().any(|found| found.kind == FindingKind::HeaderCopyAbsent));
    assert_eq!(scan(&[]).findings.worst().unwrap().severity, Severity::Damage);
}

#[test]
fn duplicates_neither_make_nor_hide_a_broken_chain() {
    use StreamFindingKind as K;
    let spec = stream(3, 9);
    let all = members(&logs(&spec));
    let database = header(
        &DatabaseSpec::new(11)
            .with_pages(4)
            .with_page_size(PageSize::KIB_2)
            .with_dirty(range(5, 7), generation(9)),
    );
    // Sorted before and after the log itself; none of them is what recovery would read.
    for twin_of_6 in ["E0000000001.log", "E00.log", "E0000000099.log", "z/E00tmp.log"] {
        let mut logs = all.clone();
        let mut twin = logs[3].clone();
        twin.file = twin_of_6.into();
        twin.created = LogTime::default();
        twin.previous_created = LogTime::default();
        // One that is of another history spoils nothing, on either side.
        logs.push(twin.clone());
        let found = check_stream(&spec.signature(), &logs);
        assert!(
            !found.iter().any(|f| matches!(f.kind, K::SequenceBroken | K::AccumulatedMismatch)),
            "{found:?}"
        );
        let twins: Vec<_> =
            found.iter().filter(|f| matches!(f.kind, K::Duplicate { .. })).collect();
        let [only] = twins.as_slice() else { panic!("{found:?}") };
        assert_eq!(only.kind, K::Duplicate { other: "E0000000006.log".into() });
        assert_eq!(only.file, twin_of_6);
        let verdict = judge_set(&database, &logs).verdict;
        assert!(verdict.is_lossless(), "{twin_of_6}: {verdict:?}");

        // One that fits does not stand in for the log that recovery would read.
        let (mut logs, mut twin) = (all.clone(), all[3].clone());
        logs[3].created = LogTime::default();
        logs[3].previous_created = LogTime::default();
        twin.file = twin_of_6.into();
        logs.push(twin);
        let found = check_stream(&spec.signature(), &logs);
        for number in [6, 7] {
            let broken = |f: &&stillpoint_ese::StreamFinding| {
                f.kind == K::SequenceBroken && f.generation == generation(number)
            };
            assert_eq!(found.iter().filter(broken).count(), 1, "{twin_of_6}: {found:?}");
        }
        let verdict = judge_set(&database, &logs).verdict;
        assert!(!verdict.is_recoverable(), "{twin_of_6}: {verdict:?}");
        // Whatever the order in which they were found.
        logs.reverse();
        assert_eq!(check_stream(&spec.signature(), &logs), found);
        assert_eq!(judge_set(&database, &logs).verdict, verdict);
    }
}

// Sets.

fn header(spec: &DatabaseSpec) -> stillpoint_ese::DatabaseHeader {
    read_database_header(&database(spec)).unwrap().header
}

#[test]
fn set_verdicts() {
    let spec = stream(3, 9);
    let all = members(&logs(&spec));
    let dirty = |required, committed| {
        header(
            &DatabaseSpec::new(11)
                .with_pages(4)
                .with_page_size(PageSize::KIB_2)
                .with_dirty(required, generation(committed)),
        )
    };
    let without = |gone: &[u32]| -> Vec<LogMember> {
        all.iter().filter(|log| !gone.contains(&log.generation.number())).cloned().collect()
    };
    let database = dirty(range(5, 7), 9);
    let recoverable = SetVerdict::Recoverable { required: range(5, 7), committed: generation(9) };
    let whole = judge_set(&database, &all);
    assert_eq!(whole.verdict, recoverable);
    assert_eq!(whole.needed.len(), 5);
    assert_eq!(whole.rolls_forward_to.unwrap().cut_by, None);
    assert_eq!(judge_set(&database, &without(&[3, 4])).verdict, recoverable);

    match judge_set(&database, &without(&[5, 6, 9])).verdict {
        SetVerdict::NotRecoverable { missing, reasons } => {
            assert_eq!(missing, [range(5, 6)]);
            assert_eq!(reasons[0].jet().code(), -543);
        }
        other => panic!("{other:?}"),
    }
    let report = judge_set(&database, &without(&[8]));
    match &report.verdict {
        SetVerdict::RecoverableWithLoss { missing, reasons, .. } => {
            assert_eq!(*missing, [range(8, 8)]);
            assert_eq!(reasons[0].jet().code(), -582);
        }
        other => panic!("{other:?}"),
    }
    let roll = report.rolls_forward_to.unwrap();
    assert_eq!((roll.generation, roll.cut_by), (generation(7), Some(range(8, 8))));

    // Beyond what is committed a gap costs only the way forward.
    let report = judge_set(&dirty(range(5, 6), 6), &without(&[8]));
    assert!(matches!(report.verdict, SetVerdict::Recoverable { .. }));
    assert_eq!(report.rolls_forward_to.unwrap().generation, generation(7));

    // Damage in a needed log, and in one that is not needed.
    let mut damaged = all.clone();
    damaged[3].is_damaged = true;
    match judge_set(&database, &damaged).verdict {
        SetVerdict::NotRecoverable { missing, reasons } => {
            assert_eq!(missing, [range(6, 6)]);
            assert!(
                matches!(&reasons[0], Reason::LogDamaged { file, .. } if file == "E0000000006.log")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(judge_set(&dirty(range(7, 7), 9), &damaged).verdict.is_lossless());

    // Another history, and what lies before the first required log.
    let mut forked = all.clone();
    forked[3].previous_created = LogTime::default();
    assert!(!judge_set(&database, &forked).verdict.is_recoverable());
    assert!(judge_set(&dirty(range(6, 7), 9), &forked).verdict.is_lossless());

    // A wild range costs nothing and is refused.
    match judge_set(&dirty(range(1, Generation::MAX.number()), 9), &all).verdict {
        SetVerdict::NotRecoverable { missing, .. } => {
            assert_eq!(missing, [range(1, 2), range(10, Generation::MAX.number())]);
        }
        other => panic!("{other:?}"),
    }
    let clean = header(&DatabaseSpec::new(11).with_pages(4).with_page_size(PageSize::KIB_2));
    assert_eq!(judge_set(&clean, &[]).verdict, SetVerdict::Clean);
}

#[test]
fn a_set_says_how_new_it_is() {
    let spec = stream(3, 9);
    let dirty = header(
        &DatabaseSpec::new(11)
            .with_pages(4)
            .with_page_size(PageSize::KIB_2)
            .with_dirty(range(5, 7), generation(7)),
    );
    // By headers alone: when the last log was created; scanned: when its last data was written.
    let mut logs = logs(&spec);
    let newest = spec.created(generation(9));
    let written = LogTime::from_unix_millis(newest.unix_millis().unwrap() + 5_000).unwrap();
    let current = &mut logs[6].bytes;
    let at = 13 * 4096;
    current[at + 16..at + 24].copy_from_slice(&written.to_bytes());
    let sum = stillpoint_ese::block_checksum(&current[at..at + 4096], 13, true).unwrap();
    current[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    let by_header: Vec<LogMember> = logs
        .iter()
        .map(|log| LogMember::from_header(&log.name, &read_log_header(&log.bytes).unwrap()))
        .collect();
    let reached = judge_set(&dirty, &by_header).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.time), (generation(9), newest));
    let scanned = members(&logs);
    let reached = judge_set(&dirty, &scanned).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.time, reached.cut_by), (generation(9), written, None));

    // A clean one goes on from the log that it was shut down in: generation 3 here.
    let clean = header(&DatabaseSpec::new(11).with_pages(4).with_page_size(PageSize::KIB_2));
    assert_eq!(clean.consistent.generation, generation(3));
    let alone = judge_set(&clean, &[]).rolls_forward_to.unwrap();
    assert_eq!(
        (alone.generation, alone.time, alone.cut_by),
        (generation(3), clean.consistent_time, None)
    );
    let reached = judge_set(&clean, &scanned).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.time, reached.cut_by), (generation(9), written, None));
    let reached = judge_set(&clean, &scanned[..3]).rolls_forward_to.unwrap();
    assert_eq!(reached.generation, generation(5));
    let reached = judge_set(&clean, &scanned[2..]).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.cut_by), (generation(3), Some(range(3, 4))));
    let mut gap = scanned.clone();
    gap.remove(3);
    let reached = judge_set(&clean, &gap).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.cut_by), (generation(5), Some(range(6, 6))));
    // One that is damaged cuts as one that is missing does.
    let mut damaged = scanned;
    damaged[3].is_damaged = true;
    let reached = judge_set(&clean, &damaged).rolls_forward_to.unwrap();
    assert_eq!((reached.generation, reached.cut_by), (generation(5), Some(range(6, 6))));
}

#[test]
fn the_open_log_may_be_absent_from_a_frozen_set() {
    // The freeze of a VSS backup closes it, so that the newest generation has a closed log's name.
    for has_current in [true, false] {
        let spec = stream(3, 9).with_current(has_current);
        let logs = members(&logs(&spec));
        assert_eq!(logs.iter().any(|log| log.file == "E00.log"), has_current);
        let database = header(
            &DatabaseSpec::new(11)
                .with_pages(4)
                .with_page_size(PageSize::KIB_2)
                .with_dirty(range(5, 7), generation(9)),
        );
        let report = judge_set(&database, &logs);
        assert_eq!(report.stream, []);
        assert_eq!(
            report.verdict,
            SetVerdict::Recoverable { required: range(5, 7), committed: generation(9) }
        );
        assert_eq!(report.rolls_forward_to.unwrap().generation, generation(9));
    }
}

#[test]
fn logs_of_another_creation_time_do_not_count() {
    let spec = stream(3, 9);
    let all = members(&logs(&spec));
    let database = |required_created, committed_created| {
        header(
            &DatabaseSpec::new(11)
                .with_dirty(range(5, 7), generation(9))
                .with_log_times(required_created, committed_created),
        )
    };
    let at = |number| spec.created(generation(number));
    assert!(judge_set(&database(at(7), at(9)), &all).verdict.is_lossless());
    // Older engines kept the time of the last required generation in the second field.
    assert!(judge_set(&database(LogTime::default(), at(7)), &all).verdict.is_lossless());
    assert!(!judge_set(&database(at(3), at(9)), &all).verdict.is_recoverable());
    let lossy = judge_set(&database(at(7), at(3)), &all).verdict;
    assert!(lossy.is_recoverable() && !lossy.is_lossless(), "{lossy:?}");
}

#[test]
fn states_that_no_log_can_help() {
    for state in [0u32, 1, 4, 5, 6, 8, 77] {
        let mut file = database(&DatabaseSpec::new(1).with_page_size(PageSize::KIB_4));
        file[52..56].copy_from_slice(&state.to_le_bytes());
        seal_header(&mut file[..4096]);
        let header = read_database_header(&file).unwrap().header;
        assert_eq!(header.state.number(), state);
        let verdict = judge_set(&header, &[]).verdict;
        assert!(!verdict.is_recoverable(), "{state}");
    }
    // Dirty without a range.
    let mut file = database(&DatabaseSpec::new(1).with_page_size(PageSize::KIB_4));
    file[52..56].copy_from_slice(&2u32.to_le_bytes());
    seal_header(&mut file[..4096]);
    let header = read_database_header(&file).unwrap().header;
    assert!(matches!(
        judge_set(&header, &[]).verdict,
        SetVerdict::NotRecoverable { reasons, .. } if reasons == [Reason::RequiredUnknown]
    ));
}

#[test]
fn a_stamp_follows_the_header() {
    let log = logs(&stream(3, 4)).remove(1).bytes;
    let stamp = read_stamp(&log).unwrap();
    let json = serde_json::to_string(&stamp).unwrap();
    assert_eq!(serde_json::from_str::<stillpoint_ese::HeaderStamp>(&json).unwrap(), stamp);
    // An engine that writes on changes the body, not the header.
    let mut longer = log.clone();
    longer[14 * 4096..15 * 4096].fill(1);
    assert_eq!(read_stamp(&longer).unwrap(), stamp);
    assert_ne!(
        stillpoint_ese::read_segment_stamp(&longer).unwrap(),
        stillpoint_ese::read_segment_stamp(&log).unwrap()
    );
    assert!(read_log_header(&longer).is_ok());
}

#[test]
fn seals_of_all_sizes_round_trip() {
    for size in PageSize::ALL {
        let mut page = vec![3; size.len()];
        seal_page(&mut page, 88);
        let state = stillpoint_ese::check_page(&page, 88);
        assert_eq!(state, stillpoint_ese::PageState::Good, "{size}");
    }
}

#[test]
fn the_same_seed_gives_the_same_set() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    for folder in [&one, &other] {
        std::fs::create_dir(folder).unwrap();
    }
    let spec = ExchangeSet::new(42).with_log_segments(8).with_pages(12);
    let written = spec.write_to(&one).unwrap();
    spec.write_to(&other).unwrap();
    let mut files = written.logs.clone();
    files.extend([written.database.clone(), written.checkpoint.clone()]);
    assert_eq!(files.len(), 8);
    let mut sum = 0xCBF2_9CE4_8422_2325_u64;
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        assert!(bytes == std::fs::read(other.join(file.file_name().unwrap())).unwrap());
        for byte in bytes {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    // On every system and in every release: stored examples stay what they are.
    assert_eq!(sum, 0x8A8A_E23A_50B8_BB4B, "{sum:#018X}");
    assert_ne!(
        std::fs::read(&written.database).unwrap(),
        database(&DatabaseSpec::new(43).with_pages(12))
    );
}
