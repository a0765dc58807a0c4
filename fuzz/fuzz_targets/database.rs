#![no_main]
//! Databases: sniffing, headers, stamps, every page, on one thread and on two.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    DatabaseHeader, FileKind, ScanOptions, is_header_good, read_database_header, read_stamp,
    scan_database, write::seal_header,
};

fuzz_target!(|data: &[u8]| {
    let mut file = data.to_vec();
    // The first byte says whether the checksums of the headers are put right, so that nonsense
    // reaches the fields behind them.
    if data.first().is_some_and(|byte| byte % 2 == 1) {
        for len in [2048, 4096, 8192, 16384, 32768] {
            if file.len() >= len && !is_header_good(&file[..len]) {
                seal_header(&mut file[..len]);
                break;
            }
        }
    }
    let _ = FileKind::sniff(&file);
    let _ = read_stamp(&file);
    let _ = DatabaseHeader::parse(&file);
    let headers = read_database_header(&file);
    let scan = |threads| {
        scan_database(&file, &ScanOptions::default().with_threads(threads), &mut ()).unwrap()
    };
    let report = scan(1);
    assert_eq!(report.header.is_some(), headers.is_ok());
    assert!(report.findings.iter().all(|finding| finding.offset <= file.len() as u64));
    assert_eq!(scan(2), report);
});
