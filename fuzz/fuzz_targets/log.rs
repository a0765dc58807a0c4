#![no_main]
//! Logs of every version: header, attachments, body, in chunks of any length.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    LogHeader, LogMember, ScanOptions, check_stream, read_log_header, read_segment_stamp, scan_log,
    write::seal_header,
};

fuzz_target!(|data: &[u8]| {
    let Some((seal, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    if seal % 2 == 1 && file.len() >= 4096 {
        seal_header(&mut file[..4096]);
    }
    let _ = LogHeader::parse(&file);
    let _ = read_segment_stamp(&file);
    let header = read_log_header(&file);
    let report = scan_log(&file, &ScanOptions::default(), &mut ()).unwrap();
    assert_eq!(report.header.is_some(), header.is_ok());
    assert!(report.findings.iter().all(|finding| finding.offset <= file.len() as u64));
    let other = ScanOptions::default().with_chunk(65_537 + usize::from(*seal));
    assert_eq!(scan_log(&file, &other, &mut ()).unwrap(), report);
    if let Some(member) = LogMember::from_report("E0000000003.log", &report) {
        let _ = check_stream(&member.signature.clone(), &[member.clone(), member]);
    }
});
