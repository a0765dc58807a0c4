//! Logs, their streams and checkpoints, damaged in known ways.

use super::*;

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
