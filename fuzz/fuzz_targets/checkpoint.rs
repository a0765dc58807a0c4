#![no_main]
//! Checkpoints: both copies.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    CheckpointHeader, ScanOptions, read_checkpoint, scan_checkpoint, write::seal_header,
};

fuzz_target!(|data: &[u8]| {
    let Some((seal, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    for copy in 0..2 {
        if seal >> copy & 1 == 1 && file.len() >= (copy + 1) * 4096 {
            seal_header(&mut file[copy * 4096..(copy + 1) * 4096]);
        }
    }
    let _ = CheckpointHeader::parse(&file);
    let header = read_checkpoint(&file);
    let report = scan_checkpoint(&file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.header, header.ok());
    assert_eq!(report.header.is_some(), report.findings.is_usable());
});
