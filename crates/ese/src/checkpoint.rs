//! Checkpoints: where live recovery begins.

use serde::Serialize;

use crate::{
    EseError, FileKind, Finding, FindingKind, Findings, JetError, Lgpos, LogTime, Observer, Place,
    ReadAt, ScanOptions, Signature,
    bytes::{u8_at, u32_at},
    checksum::is_header_good,
    log::{Attachment, EngineSettings},
    read::{Sweep, head},
};

/// Length of one copy; a checkpoint file holds two.
pub(crate) const COPY_LEN: usize = 4096;

/// The fields of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointHeader {
    /// The stored checksum.
    pub checksum: u32,
    /// Where live recovery begins.
    pub checkpoint: Lgpos,
    /// Checkpoint at the last full backup.
    pub full_backup_checkpoint: Lgpos,
    /// Signature of the log stream.
    pub log_signature: Signature,
    /// Log position of the last full backup.
    pub full_backup: Lgpos,
    /// When that was.
    pub full_backup_time: LogTime,
    /// Log position of the last incremental backup.
    pub incremental_backup: Lgpos,
    /// When that was.
    pub incremental_backup_time: LogTime,
    /// Where the databases are consistent; zero means at the checkpoint.
    pub consistency: Lgpos,
    /// How the engine was set up.
    pub settings: EngineSettings,
    /// Databases that were attached, when the checkpoint says that its list holds.
    pub attachments: Vec<Attachment>,
}

impl CheckpointHeader {
    /// Reads the fields of one copy; checks nothing.
    pub fn parse(copy: &[u8]) -> Self {
        let lists_attachments = u8_at(copy, 647) & 1 != 0;
        let list = copy.get(679..679 + 2048).filter(|_| lists_attachments);
        Self {
            checksum: u32_at(copy, 0),
            full_backup_checkpoint: Lgpos::parse(copy, 4),
            checkpoint: Lgpos::parse(copy, 12),
            log_signature: Signature::parse(copy, 20),
            full_backup: Lgpos::parse(copy, 615),
            full_backup_time: LogTime::parse(copy, 623),
            incremental_backup: Lgpos::parse(copy, 631),
            incremental_backup_time: LogTime::parse(copy, 639),
            consistency: Lgpos::parse(copy, 648),
            settings: EngineSettings::parse(copy, 48),
            attachments: list.map(Attachment::parse_list).unwrap_or_default(),
        }
    }
}

fn is_good(copy: &[u8]) -> bool {
    is_whole(copy) && matches!(u32_at(copy, 667), 0 | 4)
}

fn is_whole(copy: &[u8]) -> bool {
    copy.len() == COPY_LEN && is_header_good(copy)
}

/// What a Windows tool would answer when no copy is good: one that is whole is of another kind.
fn refusal(start: &[u8]) -> JetError {
    if start.chunks(COPY_LEN).any(is_whole) {
        JetError::FILE_INVALID_TYPE
    } else {
        JetError::CHECKPOINT_CORRUPT
    }
}

/// Reads a checkpoint: the first copy if it is good, else the second.
///
/// # Errors
/// [`EseError::HeaderUnusable`] when neither copy is good (`JET_errCheckpointCorrupt`) or the file
/// is of another kind, [`EseError::Read`] when reading fails.
pub fn read_checkpoint<R: ReadAt + ?Sized>(file: &R) -> Result<CheckpointHeader, EseError> {
    let start = head(file, 2 * COPY_LEN)?;
    start.chunks(COPY_LEN).find(|copy| is_good(copy)).map(CheckpointHeader::parse).ok_or_else(
        || EseError::HeaderUnusable { kind: FileKind::Checkpoint, jet: refusal(&start) },
    )
}

/// What a scan of a checkpoint found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The copy in use; `None` when neither is good.
    pub header: Option<CheckpointHeader>,
    /// Length of the file in bytes.
    pub size: u64,
    /// Everything found.
    pub findings: Findings,
}

/// Checks both copies of a checkpoint.
///
/// # Errors
/// As [`scan_database`](crate::scan_database).
pub fn scan_checkpoint<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<CheckpointReport, EseError> {
    let mut sweep = Sweep::new(file, observer, options)?;
    let size = sweep.size();
    let mut findings = Findings::with_limit(options.max_findings);
    let mut push = |place, offset, kind, refused: Option<JetError>| {
        let mut finding = Finding::new(FileKind::Checkpoint, place, offset, kind);
        finding.jet = refused.or(finding.jet);
        findings.push(finding);
    };
    let expected = 2 * COPY_LEN as u64;
    if size != expected {
        push(Place::File, 0, FindingKind::LengthMismatch { expected, actual: size }, None);
    }
    // The sweep goes on to the end, so that the observer sees the whole file; what follows the
    // copies is dropped as it comes.
    let mut start = Vec::new();
    let mut rest = Vec::new();
    while sweep.append(if start.len() < 2 * COPY_LEN { &mut start } else { &mut rest })? {
        rest.clear();
        sweep.report()?;
    }
    let copies = [start.get(..COPY_LEN), start.get(COPY_LEN..2 * COPY_LEN)];
    let good = copies.map(|copy| copy.is_some_and(is_good));
    let header =
        copies.into_iter().flatten().find(|copy| is_good(copy)).map(CheckpointHeader::parse);
    let places = [(Place::Header, 0), (Place::ShadowHeader, COPY_LEN as u64)];
    if header.is_none() {
        let refused = refusal(start.get(..2 * COPY_LEN).unwrap_or(&start));
        push(Place::Header, 0, FindingKind::HeaderUnusable, Some(refused));
    } else {
        let differs_at = match copies {
            [Some(one), Some(other)] => {
                one.iter().zip(other).position(|(one, other)| one != other).unwrap_or(0) as u64
            }
            _ => 0,
        };
        for (index, (place, base)) in places.into_iter().enumerate() {
            if copies[index].is_none() {
                push(place, base.min(size), FindingKind::HeaderCopyAbsent, None);
            } else if !good[index] {
                push(place, base + differs_at, FindingKind::HeaderCopyBad, None);
            }
        }
    }
    Ok(CheckpointReport { header, size, findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_from_its_place() {
        let mut copy: Vec<u8> =
            (0..4096usize).map(|at| u8::try_from((at * 37 + at / 256) % 251).unwrap()).collect();
        copy[48..51].copy_from_slice(b"S:\0");
        copy[309..312].copy_from_slice(b"L:\0");
        copy[570] = 1;
        copy[647] = 0;
        let header = CheckpointHeader::parse(&copy);
        let number = |at: usize| u32::from_le_bytes(copy[at..at + 4].try_into().unwrap());
        assert_eq!(header.checksum, number(0));
        for (at, field) in [
            (4, header.full_backup_checkpoint),
            (12, header.checkpoint),
            (615, header.full_backup),
            (631, header.incremental_backup),
            (648, header.consistency),
        ] {
            assert_eq!(field.to_bytes(), copy[at..at + 8], "offset {at}");
        }
        for (at, field) in [(623, header.full_backup_time), (639, header.incremental_backup_time)] {
            assert_eq!(field.to_bytes(), copy[at..at + 8], "offset {at}");
        }
        assert_eq!(header.log_signature.as_bytes()[..], copy[20..48]);
        let settings = &header.settings;
        assert_eq!((settings.system_path.as_str(), settings.log_path.as_str()), ("S:", "L:"));
        assert!(settings.is_circular);
        assert_eq!((settings.sessions, settings.cache), (number(571), number(595)));
        // The list of attachments holds only if the checkpoint says so.
        assert_eq!(header.attachments, []);
        copy[679..679 + 2048].fill(0);
        copy[679] = 5;
        copy[647] = 1;
        let attachments = CheckpointHeader::parse(&copy).attachments;
        assert_eq!(attachments.iter().map(|one| one.dbid).collect::<Vec<_>>(), [5]);
    }
}
