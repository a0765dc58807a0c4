//! No input makes a parser panic, and none makes it loop or allocate without bound.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use stillpoint_ese::{
    DatabaseHeader, FileKind, LogHeader, LogMember, LogName, ScanOptions, check_page, judge_set,
    read_checkpoint, read_database_header, read_log_header, read_segment_stamp, read_stamp,
    scan_checkpoint, scan_database, scan_flush_map, scan_log,
    write::{CheckpointSpec, DatabaseSpec, FlushMapSpec, LogStreamSpec, seal_header},
};

fn feed(bytes: &[u8]) {
    let options = ScanOptions::default();
    let _ = FileKind::sniff(bytes).unwrap();
    let _ = read_stamp(bytes).unwrap();
    let _ = read_segment_stamp(bytes).unwrap();
    let _ = read_checkpoint(bytes);
    let checkpoint = scan_checkpoint(bytes, &options, &mut ()).unwrap();
    let report = scan_database(bytes, &options, &mut ()).unwrap();
    let log = scan_log(bytes, &options, &mut ()).unwrap();
    let map = scan_flush_map(bytes, &options, &mut ()).unwrap();
    let _ = check_page(bytes, 1);
    for finding in
        report.findings.iter().chain(&log.findings).chain(&checkpoint.findings).chain(&map.findings)
    {
        assert!(finding.offset <= bytes.len() as u64, "{finding}");
        assert!(!finding.to_string().is_empty());
    }
    serde_json::to_string(&(&report, &log, &checkpoint, &map)).unwrap();
    let members: Vec<LogMember> = LogMember::from_report("E00.log", &log).into_iter().collect();
    if let Ok(headers) = read_database_header(bytes) {
        let _ = judge_set(&headers.header, &members);
    }
    if let Ok(header) = read_log_header(bytes) {
        assert_eq!(members[0].generation, header.generation);
    }
    // Fields are read whatever the checksum says.
    let _ = serde_json::to_string(&DatabaseHeader::parse(bytes)).unwrap();
    let _ = serde_json::to_string(&LogHeader::parse(bytes)).unwrap();
}

/// A valid file of some kind, to be spoiled.
fn seed_file(kind: u8, seed: u64) -> Vec<u8> {
    let generation = stillpoint_ese::Generation::new(2);
    match kind % 3 {
        0 => {
            let size = stillpoint_ese::PageSize::ALL[usize::from(kind / 3) % 5];
            let mut file = Vec::new();
            DatabaseSpec::new(seed)
                .with_page_size(size)
                .with_pages(5)
                .with_dirty(stillpoint_ese::GenerationRange::one(generation), generation)
                .write_to(&mut file)
                .unwrap();
            file
        }
        1 => {
            let stream = LogStreamSpec::new(seed, generation, generation)
                .with_segments(8)
                .with_old_format(kind / 3 % 2 == 1);
            stream.logs().next().unwrap().bytes
        }
        _ if kind / 3 % 2 == 1 => {
            let mut database = Vec::new();
            DatabaseSpec::new(seed).with_pages(1).write_to(&mut database).unwrap();
            let header = read_database_header(&database).unwrap().header;
            FlushMapSpec::new(&header).with_pages(2, 0).bytes()
        }
        _ => CheckpointSpec::new(
            stillpoint_ese::Signature::new(7, stillpoint_ese::LogTime::default()),
            stillpoint_ese::Lgpos::default(),
        )
        .bytes(),
    }
}

/// Another seed each time, printed when the test fails; `STILLPOINT_SEED` plays one again.
fn seeded(test: &str) -> ProptestConfig {
    let seed = std::env::var("STILLPOINT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("replay: STILLPOINT_SEED={seed} cargo test -p stillpoint-ese --test files {test}");
    let rng_seed = RngSeed::Fixed(seed);
    ProptestConfig { rng_seed, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(seeded("robust"))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        feed(&bytes);
    }

    #[test]
    fn spoiled_files(
        kind in 0u8..15,
        seed in any::<u64>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        reseal in any::<bool>(),
    ) {
        let mut file = seed_file(kind, seed);
        for (at, value) in spoil {
            let at = at.index(file.len());
            file[at] = value;
        }
        // With its checksum put right again, nonsense reaches the fields behind it.
        if reseal {
            for len in [2048, 4096, 8192, 16384, 32768] {
                if file.len() >= 2 * len && stillpoint_ese::is_header_good(&file[len..2 * len]) {
                    seal_header(&mut file[..len]);
                }
            }
            if kind % 3 == 1 {
                seal_header(&mut file[..4096]);
            }
        }
        if let Some(cut) = cut {
            let len = cut.index(file.len());
            file.truncate(len);
        }
        feed(&file);
    }

    #[test]
    fn random_headers_with_right_checksums(
        mut bytes in prop::collection::vec(any::<u8>(), 4096..=4096),
        kind in prop::sample::select(vec![0u32, 1, 3, 4]),
        magic in any::<bool>(),
    ) {
        bytes[667..671].copy_from_slice(&kind.to_le_bytes());
        bytes[236..240].fill(0);
        if magic {
            bytes[4..8].copy_from_slice(&0x89AB_CDEF_u32.to_le_bytes());
            bytes[8..12].copy_from_slice(&0x620_u32.to_le_bytes());
            bytes[12..16].fill(0);
        }
        seal_header(&mut bytes);
        feed(&bytes.repeat(3));
    }

    #[test]
    fn random_names(name in ".{0,20}") {
        let _ = LogName::parse(&name);
    }

    #[test]
    fn log_like_names(name in "[eE]0[0-9][0-9a-gA-G]{0,9}\\.(log|LOG|jrs|chk|jtx)") {
        let _ = LogName::parse(&name);
    }
}
