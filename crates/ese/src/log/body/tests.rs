//! Segments by the letter of the format, made here without the writer.

use super::*;
use crate::{JetError, write::seal_header};

const GENERATION: u32 = 1;
const COUNT: u16 = 256;

/// A log of version 8 whose body is all zero.
fn empty_log() -> Vec<u8> {
    let mut log = vec![0; usize::from(COUNT) * SEGMENT];
    log[4..8].copy_from_slice(&GENERATION.to_le_bytes());
    log[8..10].copy_from_slice(&4096u16.to_le_bytes());
    log[10..12].copy_from_slice(&1u16.to_le_bytes());
    log[12..14].copy_from_slice(&COUNT.to_le_bytes());
    log[32..36].copy_from_slice(&8u32.to_le_bytes());
    log[36..40].copy_from_slice(&4000u32.to_le_bytes());
    log[667] = 3;
    seal_header(&mut log[..HEADER_LEN]);
    log
}

/// A segment that carries a position, sealed for an index.
fn segment(generation: u32, position: u16, index: u32) -> Vec<u8> {
    let mut segment = vec![0; SEGMENT];
    segment[8..16]
        .copy_from_slice(&Lgpos::new(Generation::new(generation), position, 0).to_bytes());
    segment[16..24].copy_from_slice(&[1, 2, 3, 4, 5, 124, 1, 0]);
    segment[36..40].copy_from_slice(&0x2000u32.to_le_bytes());
    for (at, byte) in segment.iter_mut().enumerate().skip(40) {
        *byte = u8::try_from((at * 7 + usize::from(position) * 13) % 251).unwrap();
    }
    let sum = block_checksum(&segment, index, true).unwrap();
    segment[..8].copy_from_slice(&sum.to_le_bytes());
    segment
}

fn turned(mut segment: Vec<u8>, bit: usize) -> Vec<u8> {
    segment[bit / 8] ^= 1 << (bit % 8);
    segment
}

fn put(log: &mut [u8], index: u32, segment: &[u8]) {
    let at = index as usize * SEGMENT;
    log[at..at + SEGMENT].copy_from_slice(segment);
}

fn scan(log: &[u8]) -> LogReport {
    scan_log(log, &ScanOptions::default(), &mut ()).unwrap()
}

/// How many segments have data, the sum of their checksums, whether the last is torn.
fn body(report: &LogReport) -> (u32, Option<u64>, bool) {
    match report.body {
        LogBody::Checked { data_segments, accumulated, is_torn, .. } => {
            (data_segments, accumulated, is_torn)
        }
        LogBody::NotChecked => panic!("{report:?}"),
    }
}

// The shape of the genuine log: generation 1, segments 1 to 157 with data, 158 a copy of 157 that is
// sealed for 157, nothing behind.
#[test]
fn a_log_of_the_genuine_shape_ends_at_its_shadow() {
    let mut log = empty_log();
    let mut accumulated = 0;
    for index in 1..=157u16 {
        let segment = segment(GENERATION, index, index.into());
        accumulated ^= u64_at(&segment, 0);
        put(&mut log, index.into(), &segment);
    }
    log.copy_within(157 * SEGMENT..158 * SEGMENT, 158 * SEGMENT);
    assert!(is_segment_good(&log[158 * SEGMENT..159 * SEGMENT], 157));
    let report = scan(&log);
    assert_eq!(report.findings.list, []);
    assert_eq!(body(&report), (157, Some(accumulated), false));

    // With its last segment torn it is had back from the shadow, which gives the same sum.
    log[157 * SEGMENT + 2048..158 * SEGMENT].fill(0xEE);
    let report = scan(&log);
    assert_eq!(body(&report), (157, Some(accumulated), true));
    let found: Vec<_> =
        report.findings.iter().map(|found| (found.place, found.kind.clone(), found.jet)).collect();
    let jet = Some(JetError::LOG_FILE_CORRUPT);
    assert_eq!(found, [(Place::Segment(157), FindingKind::TornSegment, jet)]);
}

// Segments with nothing in them but what gives them the checksums that two genuine ones are known
// for. The index halves of both are equal, for both have an even number of bits set; their five low
// bits follow from the XOR half, the others from two bits of one column.
#[test]
fn checksums_of_genuine_segments() {
    for (index, checksum) in [(1u32, 0x1275_1275_550D_D85F_u64), (157, 0x1EA0_1EA0_A382_C6B6)] {
        let bytes = checksum.to_le_bytes();
        let sum = u32::from_le_bytes(bytes[..4].try_into().unwrap()) ^ index;
        let low = u16::from_le_bytes(bytes[4..6].try_into().unwrap());
        let mut segment = vec![0; SEGMENT];
        let (one, other) = (16, 16 ^ usize::from(low >> 5));
        for (dword, bits) in [(11, sum), (one, 1), (other, 1)] {
            segment[4 * dword..4 * dword + 4].copy_from_slice(&bits.to_le_bytes());
        }
        segment[..8].copy_from_slice(&bytes);
        assert_eq!(block_checksum(&segment, index, true), Some(checksum), "segment {index}");
        assert!(is_segment_good(&segment, index));
        assert!(!is_segment_good(&segment, index + 1));
    }
}

#[test]
fn every_rule_of_the_scan() {
    use FindingKind as K;
    let misplaced = |index, generation, segment| {
        let found = Lgpos::new(Generation::new(generation), segment, 0);
        vec![(index, K::SegmentMisplaced { found })]
    };
    let junk = || vec![7; SEGMENT];
    let bit = |bit| vec![(4, K::SegmentCorrectable { bit })];
    // What comes after the whole segments 1 to 3; how many segments have data; what is found.
    let cases = [
        ("nothing", vec![], 3, vec![]),
        ("a segment that follows", vec![(4, segment(1, 4, 4))], 4, vec![]),
        ("a shadow", vec![(4, segment(1, 3, 3))], 3, vec![]),
        ("the same segment of an older log", vec![(4, segment(0, 4, 4))], 3, vec![]),
        ("an earlier segment, sealed anew", vec![(4, segment(1, 2, 4))], 3, vec![]),
        ("a later segment", vec![(4, segment(1, 5, 4))], 3, misplaced(4, 1, 5)),
        ("the same segment of a newer log", vec![(4, segment(2, 4, 4))], 3, misplaced(4, 2, 4)),
        ("data after an empty one", vec![(5, segment(1, 5, 5))], 3, vec![(5, K::SegmentAfterEnd)]),
        ("junk after an empty one", vec![(5, junk())], 3, vec![(5, K::SegmentBad)]),
        ("junk", vec![(4, junk())], 4, vec![(4, K::SegmentBad)]),
        (
            "junk with its shadow",
            vec![(4, junk()), (5, segment(1, 4, 4))],
            4,
            vec![(4, K::TornSegment)],
        ),
        ("a turned bit", vec![(4, turned(segment(1, 4, 4), 999))], 4, bit(999)),
        ("a turned bit in its position", vec![(4, turned(segment(1, 4, 4), 83))], 4, bit(83)),
        (
            "a turned bit of its checksum",
            vec![(4, turned(segment(1, 4, 4), 33))],
            4,
            vec![(4, K::SegmentBad)],
        ),
        ("data in the last segment", vec![(255, segment(1, 255, 255))], 3, misplaced(255, 1, 255)),
        ("a shadow in the last segment", vec![(255, segment(1, 254, 254))], 3, vec![]),
    ];
    for (what, after, segments, expected) in cases {
        let mut log = empty_log();
        for index in 1..=3 {
            put(&mut log, index.into(), &segment(GENERATION, index, index.into()));
        }
        for (index, segment) in after {
            put(&mut log, index, &segment);
        }
        let report = scan(&log);
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|found| match found.place {
                Place::Segment(index) => (index, found.kind.clone()),
                place => panic!("{what}: {place:?}"),
            })
            .collect();
        assert_eq!(found, expected, "{what}");
        assert_eq!(body(&report).0, segments, "{what}");
    }
}
