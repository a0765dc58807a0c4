//! Files of our own making, damaged in known ways: what is found must be what was done.

mod databases;
mod logs;
mod sets;

use stillpoint_ese::{
    EseError, FileKind, Finding, FindingKind, Generation, GenerationRange, JetError, Lgpos,
    LogBody, LogMember, LogTime, Observer, PageFault, PageSize, Place, Progress, ReadAt, Reason,
    ScanOptions, SetVerdict, Severity, StreamFindingKind, check_stream, judge_set,
    read_database_header, read_log_header, read_stamp, scan_checkpoint, scan_database, scan_log,
    write::{
        CheckpointSpec, DatabaseSpec, ExchangeSet, LogStreamSpec, NamedLog, Noise, seal_header,
        seal_page,
    },
};

fn generation(number: u32) -> Generation {
    Generation::new(number)
}

fn range(first: u32, last: u32) -> GenerationRange {
    GenerationRange::new(generation(first), generation(last)).unwrap()
}

fn database(spec: &DatabaseSpec) -> Vec<u8> {
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    assert_eq!(file.len() as u64, spec.file_len());
    file
}

fn scan(file: &[u8]) -> stillpoint_ese::DatabaseReport {
    scan_database(file, &ScanOptions::default(), &mut ()).unwrap()
}

fn only(findings: &stillpoint_ese::Findings) -> &Finding {
    assert_eq!(findings.list.len(), 1, "{:?}", findings.list);
    &findings.list[0]
}

fn stream(first: u32, last: u32) -> LogStreamSpec {
    LogStreamSpec::new(11, generation(first), generation(last)).with_segments(40)
}

fn logs(spec: &LogStreamSpec) -> Vec<NamedLog> {
    spec.logs().collect()
}

fn scan_bytes(bytes: &[u8]) -> stillpoint_ese::LogReport {
    scan_log(bytes, &ScanOptions::default(), &mut ()).unwrap()
}

fn members(logs: &[NamedLog]) -> Vec<LogMember> {
    logs.iter()
        .map(|log| LogMember::from_report(&log.name, &scan_bytes(&log.bytes)).unwrap())
        .collect()
}

fn header(spec: &DatabaseSpec) -> stillpoint_ese::DatabaseHeader {
    read_database_header(&database(spec)).unwrap().header
}
