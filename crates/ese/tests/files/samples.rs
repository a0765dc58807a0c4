//! Genuine files. They are not part of the project: `STILLPOINT_ESE_SAMPLES` names their folder,
//! by default `../shared/ese-samples` beside the workspace. Without it the test says that it skips,
//! unless `STILLPOINT_REQUIRE` contains `samples`.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use stillpoint_ese::{
    DatabaseState, FileKind, Generation, GenerationRange, LogBody, LogMember, Reason, ScanOptions,
    SetVerdict, block_checksum, block_checksum_portable, header_checksum, judge_set,
    read_database_header, read_log_header, scan_checkpoint, scan_database, scan_log,
};

fn samples() -> Option<PathBuf> {
    let folder = env::var_os("STILLPOINT_ESE_SAMPLES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ese-samples"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    let required = env::var("STILLPOINT_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|what| what.trim() == "samples"),
        "samples are required but {} is absent",
        folder.display()
    );
    eprintln!("SKIPPED: no genuine files at {} (set STILLPOINT_ESE_SAMPLES)", folder.display());
    None
}

fn generations(first: u32, last: u32) -> GenerationRange {
    GenerationRange::new(Generation::new(first), Generation::new(last)).unwrap()
}

#[test]
fn databases_give_the_numbers_they_are_known_for() {
    use DatabaseState::{CleanShutdown, DirtyShutdown};
    let Some(folder) = samples() else { return };
    for (name, kib, state, checksum, pages, uninitialised, needs) in [
        ("basic.edb", 4, CleanShutdown, Some(0x98A8_10D4), 254, 231, None),
        ("decompress_test2.edb", 8, CleanShutdown, None, 254, 227, None),
        ("qmgr.db", 16, DirtyShutdown, Some(0x75CD_211A), 78, 35, Some(23)),
        ("large.edb", 32, CleanShutdown, Some(0x9334_9835), 766, 385, None),
        ("Windows.edb", 32, DirtyShutdown, None, 1022, 366, Some(40)),
        ("Current.mdb", 4, DirtyShutdown, None, 254, 201, Some(124)),
    ] {
        let file = File::open(folder.join(name)).unwrap();
        let sniffed = FileKind::sniff(&file).unwrap();
        assert_eq!((sniffed.kind, sniffed.is_intact), (FileKind::Database, true), "{name}");

        let report = scan_database(&file, &ScanOptions::default(), &mut ()).unwrap();
        let header = report.header.unwrap();
        assert_eq!(header.page_size.bytes(), kib * 1024, "{name}");
        assert_eq!(header.state, state, "{name}");
        assert!(checksum.is_none_or(|checksum| checksum == header.checksum), "{name}");
        assert_eq!((report.pages, report.uninitialised), (pages, uninitialised), "{name}");
        assert_eq!((report.bad, report.correctable), (0, 0), "{name}");
        assert!(report.findings.is_intact(), "{name}: {:?}", report.findings);
        assert!(report.findings.iter().all(|finding| finding.jet.is_none()), "{name}");

        let required = needs.map(|generation| generations(generation, generation));
        assert_eq!(header.required(), required, "{name}");
        let verdict = judge_set(&header, &[]).verdict;
        match required {
            None => assert_eq!(verdict, SetVerdict::Clean, "{name}"),
            Some(missing) => assert_eq!(
                verdict,
                SetVerdict::NotRecoverable {
                    missing: vec![missing],
                    reasons: vec![Reason::RequiredMissing { missing }],
                },
                "{name}"
            ),
        }
    }
}

#[test]
fn the_exchange_shaped_set_is_recoverable() {
    let Some(folder) = samples() else { return };
    let folder = folder.join("e00");
    let mut logs = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let file = File::open(&path).unwrap();
        let kind = FileKind::sniff(&file).unwrap().kind;
        match name.rsplit('.').next().unwrap() {
            "log" => {
                assert_eq!(kind, FileKind::Log, "{name}");
                let report = scan_log(&file, &ScanOptions::default(), &mut ()).unwrap();
                assert!(report.findings.list.is_empty(), "{name}: {:?}", report.findings);
                let data = if name == "E00.log" { 77 } else { 254 };
                assert!(
                    matches!(report.body, LogBody::Checked { data_segments, is_torn: false, .. }
                        if data_segments == data),
                    "{name}: {:?}",
                    report.body
                );
                let header = report.header.as_ref().unwrap();
                assert_eq!(header.attachments.len(), 1, "{name}");
                assert_eq!(header.attachments[0].path, "D:\\E00\\db\\DB01.edb");
                logs.push(LogMember::from_report(name, &report).unwrap());
            }
            "chk" => {
                assert_eq!(kind, FileKind::Checkpoint);
                let report = scan_checkpoint(&file, &ScanOptions::default(), &mut ()).unwrap();
                assert!(report.findings.list.is_empty());
                assert_eq!(report.header.unwrap().checkpoint.generation, Generation::new(6));
            }
            "jrs" => {
                assert_eq!(kind, FileKind::Other);
                assert!(read_log_header(&file).is_err());
            }
            _ => assert_eq!(kind, FileKind::Database, "{name}"),
        }
    }
    assert_eq!(logs.len(), 6);

    let file = File::open(folder.join("DB01.edb")).unwrap();
    let report = scan_database(&file, &ScanOptions::default(), &mut ()).unwrap();
    assert!(report.findings.is_intact(), "{:?}", report.findings);
    let header = read_database_header(&file).unwrap().header;
    let set = judge_set(&header, &logs);
    assert_eq!(
        set.verdict,
        SetVerdict::Recoverable { required: generations(6, 7), committed: Generation::new(8) }
    );
    assert_eq!(set.needed, ["E0000000006.log", "E0000000007.log", "E00.log"]);
    assert_eq!(set.stream, []);
    assert_eq!(set.rolls_forward_to.unwrap().generation, Generation::new(8));
}

#[test]
fn checksums_are_those_that_genuine_files_are_known_for() {
    let Some(folder) = samples() else { return };
    let read = |name: &str, at: usize, len: usize| {
        let file = fs::read(folder.join(name)).unwrap();
        file[at..at + len].to_vec()
    };
    for (name, len, checksum) in [
        ("basic.edb", 4096, 0x98A8_10D4),
        ("large.edb", 32768, 0x9334_9835),
        ("qmgr.db", 16384, 0x75CD_211A),
    ] {
        // The shadow is identical in a healthy detached file.
        assert_eq!(header_checksum(&read(name, 0, len)), checksum, "{name}");
    }
    for (name, at, len, number, first, checksum) in [
        ("basic.edb", 0x5000, 4096, 4, true, 0x13C0_13C0_7986_4F4B),
        ("qmgr.db", 0x8000, 4096, 1, true, 0x7D4A_02B5_001A_E81F),
        ("qmgr.db", 0x9000, 4096, 1, false, 1),
        ("qmgr.db", 0xA000, 4096, 1, false, 1),
        ("qmgr.db", 0xB000, 4096, 1, false, 0x001B_7FE4_0000_0011),
        ("large.edb", 0x10000, 8192, 1, true, 0x0131_0131_001A_28C0),
        ("large.edb", 0x12000, 8192, 1, false, 1),
        ("large.edb", 0x14000, 8192, 1, false, 1),
        ("large.edb", 0x16000, 8192, 1, false, 0x001B_FFE4_0000_0011),
    ] {
        let block = read(name, at, len);
        assert_eq!(block_checksum(&block, number, first), Some(checksum), "{name} {at:#x}");
        assert_eq!(
            block_checksum_portable(&block, number, first),
            Some(checksum),
            "{name} {at:#x}"
        );
    }
}
