//! Sets, from which something is missing or does not fit.

use super::*;

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
    assert_eq!(sum, 0x8AF2_2D6E_3186_2FF6, "{sum:#018X}");
    assert_ne!(
        std::fs::read(&written.database).unwrap(),
        database(&DatabaseSpec::new(43).with_pages(12))
    );
}
