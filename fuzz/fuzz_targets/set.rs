#![no_main]
//! Verdicts: any header with any logs, in any order.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{DatabaseHeader, LogHeader, LogMember, SetVerdict, check_stream, judge_set};

fuzz_target!(|data: (Vec<u8>, Vec<(u8, u32, u32, u8)>)| {
    let (start, logs) = data;
    let mut page = vec![0; 748];
    for (into, from) in page.iter_mut().zip(&start) {
        *into = *from;
    }
    page[236..240].fill(0);
    // Mostly dirty, so that the logs matter.
    if page[52] > 8 {
        page[52..56].copy_from_slice(&2u32.to_le_bytes());
    }
    let Some(database) = DatabaseHeader::parse(&page) else { return };
    let mut members: Vec<LogMember> = logs
        .iter()
        .map(|&(kind, generation, time, name)| {
            let mut bytes = vec![0; 4096];
            // Near what the database needs, more often than not.
            let base = if kind % 4 == 0 { 0 } else { database.min_required.number() };
            let generation =
                base.wrapping_add(if kind % 4 == 0 { generation } else { generation % 16 });
            bytes[4..8].copy_from_slice(&generation.to_le_bytes());
            bytes[16..20].copy_from_slice(&(time % 4).to_le_bytes());
            bytes[24..28].copy_from_slice(&(time / 4 % 4).to_le_bytes());
            if kind % 8 != 7 {
                bytes[44..72].copy_from_slice(database.log_signature.as_bytes());
            }
            let file = match name % 4 {
                0 => "E00.log".to_owned(),
                1 => format!("E00{name:08X}.log"),
                _ => format!("E00{generation:08X}.log"),
            };
            let mut member = LogMember::from_header(file, &LogHeader::parse(&bytes));
            member.is_damaged = kind % 16 == 5;
            member
        })
        .collect();
    let _ = check_stream(&database.log_signature, &members);
    let report = judge_set(&database, &members);
    if let SetVerdict::NotRecoverable { reasons, .. } = &report.verdict {
        assert!(!reasons.is_empty());
        assert!(report.rolls_forward_to.is_none());
    } else {
        assert!(report.rolls_forward_to.is_some());
    }
    // The order in which files were found decides nothing. Files of one name do not occur in a
    // folder.
    members.sort_by(|one, other| one.file.cmp(&other.file));
    members.dedup_by(|one, other| one.file == other.file);
    let verdict = judge_set(&database, &members);
    members.reverse();
    assert_eq!(judge_set(&database, &members), verdict);
});
