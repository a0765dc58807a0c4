//! Version 7 logs (Exchange 2003 to 2010): checksums over what was written at once.

use stillpoint_ese::{
    FileKind, FindingKind, Generation, LogBody, LogMember, LogReport, Place, ScanOptions, Severity,
    check_stream, scan_log,
    write::{LogStreamSpec, NamedLog, Noise, seal_header},
};

const SECTOR: usize = 512;

fn stream() -> LogStreamSpec {
    LogStreamSpec::new(11, Generation::new(3), Generation::new(5))
        .with_segments(24)
        .with_old_format(true)
}

fn logs() -> Vec<NamedLog> {
    stream().logs().collect()
}

fn scan(bytes: &[u8]) -> LogReport {
    scan_log(bytes, &ScanOptions::default(), &mut ()).unwrap()
}

/// Sectors with data, by the body that was checked.
fn data(report: &LogReport) -> usize {
    match report.body {
        LogBody::Checked { data_segments, accumulated: None, .. } => data_segments as usize,
        other => panic!("{other:?}"),
    }
}

#[test]
fn written_logs_are_good_and_chained() {
    let logs = logs();
    for log in &logs {
        let report = scan(&log.bytes);
        assert_eq!(report.findings.list, [], "{}", log.name);
        let sectors = log.bytes.len() / SECTOR;
        let last = if log.name == "E00.log" { sectors / 3 } else { sectors - 2 };
        assert_eq!(data(&report), last + 1 - 8, "{}", log.name);
        let header = report.header.unwrap();
        assert_eq!((header.version[0], header.segment_size, header.header_segments), (7, 512, 8));
        assert_eq!(FileKind::sniff(&log.bytes).unwrap().kind, FileKind::Log);
    }
    let members: Vec<LogMember> = logs
        .iter()
        .map(|log| LogMember::from_report(&log.name, &scan(&log.bytes)).unwrap())
        .collect();
    assert_eq!(check_stream(&stream().signature(), &members), []);
}

#[test]
fn every_turned_bit_of_the_data_is_found() {
    let mut log = logs().pop().unwrap();
    let end = 8 + data(&scan(&log.bytes));
    for bit in (8 * SECTOR * 8..end * SECTOR * 8).step_by(13) {
        log.bytes[bit / 8] ^= 1 << (bit % 8);
        let report = scan(&log.bytes);
        let sector = bit / 8 / SECTOR;
        match report.findings.list.as_slice() {
            [] => {
                // What the last range does not reach is of no log.
                assert_eq!(sector, end - 1, "bit {bit} is missed");
            }
            [found] => {
                let Place::Segment(at) = found.place else { panic!("{found}") };
                // A range is one whole: it is named by its first sector.
                assert!(at as usize <= sector && sector < at as usize + 9, "bit {bit}: {found}");
                assert_eq!(found.offset, u64::from(at) * SECTOR as u64);
                let is_last = sector == end - 1;
                assert_eq!(found.kind == FindingKind::TornSegment, is_last, "bit {bit}: {found}");
            }
            more => panic!("bit {bit}: {more:?}"),
        }
        log.bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(scan(&log.bytes).findings.list, []);
}

#[test]
fn a_torn_end_is_had_back_from_the_shadow() {
    for log in logs() {
        let good = scan(&log.bytes);
        let last = 8 + data(&good) - 1;
        let mut torn = log.bytes.clone();
        torn[last * SECTOR..(last + 1) * SECTOR].fill(0x33);
        let report = scan(&torn);
        assert_eq!(report.findings.list.len(), 1, "{:?}", report.findings);
        let found = &report.findings.list[0];
        assert_eq!(
            (found.place, &found.kind, found.severity),
            (
                Place::Segment(u32::try_from(last).unwrap()),
                &FindingKind::TornSegment,
                Severity::Repairable
            )
        );
        assert_eq!(data(&report), data(&good));
        assert!(matches!(report.body, LogBody::Checked { is_torn: true, .. }));
        // Without the shadow it is damage.
        torn[(last + 1) * SECTOR..(last + 2) * SECTOR].fill(0x44);
        let report = scan(&torn);
        assert_eq!(report.findings.list.len(), 1);
        assert_eq!(report.findings.list[0].kind, FindingKind::SegmentBad);
        // What follows the shadow is of no log.
        let mut stale = log.bytes.clone();
        stale[(last + 2) * SECTOR..].fill(0x77);
        assert_eq!(scan(&stale).findings.list, []);
    }
}

#[test]
fn a_log_cut_short_in_its_data_is_damaged() {
    let log = logs().remove(0).bytes;
    for sectors in [8, 9, 20, 100] {
        let report = scan(&log[..sectors * SECTOR]);
        let kinds: Vec<_> = report.findings.iter().map(|found| &found.kind).collect();
        assert!(matches!(kinds[0], FindingKind::LengthMismatch { .. }), "{kinds:?}");
        assert_eq!(kinds.last(), Some(&&FindingKind::SegmentBad), "{sectors}: {kinds:?}");
    }
    // A generation that its checksums do not know: another log's body.
    let mut other = log.clone();
    other[4..8].copy_from_slice(&77u32.to_le_bytes());
    seal_header(&mut other[..4096]);
    assert!(!scan(&other).findings.is_usable());
}

#[test]
fn chunks_of_any_length_give_the_same() {
    let mut noise = Noise::new(3);
    let mut log = logs().remove(1).bytes;
    for _ in 0..20 {
        let bit = usize::try_from(noise.below(log.len() as u64 * 8)).unwrap();
        log[bit / 8] ^= 1 << (bit % 8);
        let whole = scan(&log);
        let options = ScanOptions::default().with_chunk(65_537);
        assert_eq!(scan_log(&log, &options, &mut ()).unwrap(), whole);
        log[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Follows the chain of a whole log by the letter of the format; shares nothing with the crate.
fn follow(log: &[u8], generation: u32) -> Result<usize, usize> {
    let field = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap());
    let xor = |range: &[u8]| {
        range.iter().enumerate().fold(0, |sum, (at, byte)| sum ^ u32::from(*byte) << (at % 4 * 8))
    };
    let mut at = 4096;
    for records in 1.. {
        let [back, forward, next, checksum, short] =
            [1, 5, 9, 13, 17].map(|offset| field(at + offset));
        let start = at - back as usize;
        let end = at + 22 + forward as usize;
        let fields = back ^ forward ^ next ^ u32::from(log[at + 21]) ^ generation;
        let is_single = log[at + 21] == 0xD1;
        let sector_end = at / SECTOR * SECTOR + SECTOR;
        let covered = xor(&log[start..at]) ^ fields;
        let good = log[at] == 42
            && (is_single || log[at + 21] == 0x9A)
            && (back == 0 || at % SECTOR == back as usize)
            && checksum == 0xFEED_BEAF ^ covered ^ xor(&log[at + 22..end])
            && short
                == if is_single {
                    0
                } else {
                    0xDEAD_C0DE ^ covered ^ xor(&log[at + 22..sector_end])
                }
            && is_single == (end <= sector_end)
            && (end.is_multiple_of(SECTOR) || next == 0);
        if !good {
            return Err(at);
        }
        if next == 0 {
            // The shadow of the last sector.
            let shadow = 0x5AD0_5EC7 ^ checksum;
            return if field(at + SECTOR + 13) == shadow { Ok(records) } else { Err(at + SECTOR) };
        }
        at += 22 + next as usize;
    }
    unreachable!()
}

#[test]
fn written_chains_hold_by_the_letter_of_the_format() {
    for seed in 0..20 {
        let spec = LogStreamSpec::new(seed, Generation::new(9), Generation::new(10))
            .with_segments(40)
            .with_old_format(true);
        for mut log in spec.logs() {
            let generation = log.generation.number();
            let records = follow(&log.bytes, generation).unwrap();
            assert!(records > 5, "{records}");
            assert!(follow(&log.bytes, generation + 1).is_err());
            log.bytes[4096 + 30] ^= 1;
            assert_eq!(follow(&log.bytes, generation), Err(4096));
        }
    }
}
