#![no_main]
//! Flush maps: header and pages.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    FlushMapHeader, ScanOptions, read_flush_map, scan_flush_map, write::seal_header,
};

fuzz_target!(|data: &[u8]| {
    let Some((seal, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    if seal % 2 == 1 && file.len() >= 8192 {
        seal_header(&mut file[..8192]);
    }
    let _ = FlushMapHeader::parse(&file);
    let header = read_flush_map(&file);
    let report = scan_flush_map(&file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.header, header.ok());
    assert!(report.findings.iter().all(|finding| finding.offset <= file.len() as u64));
});
