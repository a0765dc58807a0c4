//! What a scan found: data, never an error.

use std::fmt;

use serde::Serialize;

use crate::{FileKind, JetError, Lgpos, PageFault};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Normal, but worth telling.
    Notice,
    /// Bytes are not as they were written, but the engine can put them right.
    Repairable,
    /// The file is damaged.
    Damage,
}

/// Which part of a file a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Place {
    /// The whole file.
    File,
    /// The first copy of the header.
    Header,
    /// The second copy of the header.
    ShadowHeader,
    /// A page by its number: of a database from 1, of a flush map from 0.
    Page(u32),
    /// A log segment by its index in the file, the header is 0.
    Segment(u32),
    /// What follows the last whole page.
    Tail,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Header => f.write_str("header"),
            Self::ShadowHeader => f.write_str("shadow header"),
            Self::Page(number) => write!(f, "page {number}"),
            Self::Segment(index) => write!(f, "segment {index}"),
            Self::Tail => f.write_str("tail"),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// No copy of the header is usable.
    HeaderUnusable,
    /// The header is of a version this engine never had.
    HeaderVersion {
        /// The version found.
        version: u32,
    },
    /// One copy of the header is bad, the other is in use.
    HeaderCopyBad,
    /// One copy of the header lies beyond the end of the file.
    HeaderCopyAbsent,
    /// Both copies are good but differ: a crash between two header writes leaves that.
    HeaderCopiesDiffer,
    /// A page is bad.
    Page(PageFault),
    /// A page is an older one than was written last: a write was lost. The types are those of the
    /// flush map and the page, 1 to 3.
    LostFlush {
        /// The type of the last write.
        expected: u8,
        /// The type of the page; `None` when it was never written at all.
        found: Option<u8>,
    },
    /// Fewer bytes than a page follow the last whole page; they are not checked.
    PartialTail {
        /// How many.
        bytes: u64,
    },
    /// The last page is the trailer of a streaming backup.
    Trailer,
    /// The database has no pages.
    NoPages,
    /// The file has more pages than the engine can number.
    TooManyPages,
    /// Good pages link to pages beyond the end of the file, which may have been cut short.
    LinksBeyondEnd {
        /// The highest page linked to.
        highest: u32,
    },
    /// The file's length is not what its header says.
    LengthMismatch {
        /// Bytes by the header.
        expected: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// The header carries a generation that no log has.
    GenerationInvalid,
    /// The header's segment size is impossible for its version.
    SegmentSizeInvalid,
    /// A segment's checksum does not match, and no copy of it does.
    SegmentBad,
    /// One bit of a segment changed and can be turned back.
    SegmentCorrectable {
        /// Bit number within the segment.
        bit: u32,
    },
    /// A sound segment carries the position of another place.
    SegmentMisplaced {
        /// The position it carries.
        found: Lgpos,
    },
    /// A sound segment of this log follows the end of its data.
    SegmentAfterEnd,
    /// The last write was torn; the shadow copy after it holds the segment whole.
    TornSegment,
    /// The body has the format of an older engine, which is not checked here.
    BodyNotChecked {
        /// Major version of the log.
        version: u32,
    },
}

/// One thing found in one file, with where it is and what a Windows tool would call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Kind of the file.
    pub file: FileKind,
    /// Which part of it.
    pub place: Place,
    /// Byte offset in the file: of the changed byte where that is known, else of the place.
    pub offset: u64,
    /// What was found.
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// The engine's error for it, if it has one.
    pub jet: Option<JetError>,
}

impl Finding {
    pub(crate) fn new(file: FileKind, place: Place, offset: u64, kind: FindingKind) -> Self {
        let (severity, jet) = weigh(file, &kind);
        Self { file, place, offset, kind, severity, jet }
    }
}

fn weigh(file: FileKind, kind: &FindingKind) -> (Severity, Option<JetError>) {
    use FindingKind as K;
    use Severity::{Damage, Notice, Repairable};
    match kind {
        K::HeaderUnusable => (
            Damage,
            Some(match file {
                FileKind::Log => JetError::LOG_FILE_CORRUPT,
                FileKind::Checkpoint => JetError::CHECKPOINT_CORRUPT,
                _ => JetError::READ_VERIFY_FAILURE,
            }),
        ),
        K::HeaderVersion { .. } if file == FileKind::Log => {
            (Damage, Some(JetError::BAD_LOG_VERSION))
        }
        K::HeaderVersion { .. } => (Damage, Some(JetError::INVALID_DATABASE_VERSION)),
        K::HeaderCopyBad | K::HeaderCopyAbsent | K::Page(PageFault::Correctable { .. }) => {
            (Repairable, Some(JetError::READ_VERIFY_FAILURE))
        }
        K::SegmentCorrectable { .. } | K::TornSegment => {
            (Repairable, Some(JetError::LOG_FILE_CORRUPT))
        }
        K::HeaderCopiesDiffer | K::PartialTail { .. } | K::Trailer | K::BodyNotChecked { .. } => {
            (Notice, None)
        }
        K::LinksBeyondEnd { .. } => (Notice, Some(JetError::FILE_IO_BEYOND_EOF)),
        K::Page(PageFault::NumberField { .. }) => {
            (Damage, Some(JetError::READ_PGNO_VERIFY_FAILURE))
        }
        K::LostFlush { .. } => (Damage, Some(JetError::READ_LOST_FLUSH_VERIFY_FAILURE)),
        K::Page(_) => (Damage, Some(JetError::READ_VERIFY_FAILURE)),
        K::NoPages | K::TooManyPages => (Damage, Some(JetError::DATABASE_CORRUPTED)),
        K::LengthMismatch { .. } if file == FileKind::Checkpoint => {
            (Notice, Some(JetError::CHECKPOINT_CORRUPT))
        }
        K::LengthMismatch { .. } => (Damage, Some(JetError::LOG_FILE_SIZE_MISMATCH)),
        K::GenerationInvalid
        | K::SegmentSizeInvalid
        | K::SegmentBad
        | K::SegmentMisplaced { .. }
        | K::SegmentAfterEnd => (Damage, Some(JetError::LOG_FILE_CORRUPT)),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {:#x}: ", self.place, self.offset)?;
        match &self.kind {
            FindingKind::HeaderUnusable => f.write_str("no usable header"),
            FindingKind::HeaderVersion { version } => write!(f, "unknown version {version:#x}"),
            FindingKind::HeaderCopyBad => f.write_str("this copy of the header is bad"),
            FindingKind::HeaderCopyAbsent => f.write_str("this copy of the header is missing"),
            FindingKind::HeaderCopiesDiffer => f.write_str("the two headers differ"),
            FindingKind::Page(PageFault::Checksum) | FindingKind::SegmentBad => {
                f.write_str("checksum does not match")
            }
            FindingKind::Page(PageFault::Correctable { bits }) => match bits.as_slice() {
                [bit] => write!(f, "bit {bit} of the page is turned"),
                bits => write!(f, "bits {bits:?} of the page are turned"),
            },
            FindingKind::Page(PageFault::WrongPage { actual }) => {
                write!(f, "holds the content of page {actual}")
            }
            FindingKind::Page(PageFault::NumberField { found }) => {
                write!(f, "carries the number {found}")
            }
            FindingKind::LostFlush { expected, found: Some(found) } => {
                write!(f, "an older page, of write type {found} where {expected} was written last")
            }
            FindingKind::LostFlush { expected, found: None } => {
                write!(f, "never written, where write type {expected} was written last")
            }
            FindingKind::PartialTail { bytes } => {
                write!(f, "{bytes} bytes after the last whole page are not checked")
            }
            FindingKind::Trailer => f.write_str("trailer of a streaming backup"),
            FindingKind::NoPages => f.write_str("the database has no pages"),
            FindingKind::TooManyPages => f.write_str("more pages than the engine can number"),
            FindingKind::LinksBeyondEnd { highest } => {
                write!(f, "pages link to page {highest} beyond the end of the file")
            }
            FindingKind::LengthMismatch { expected, actual } => {
                write!(f, "{actual} bytes long where {expected} are expected")
            }
            FindingKind::GenerationInvalid => f.write_str("impossible generation"),
            FindingKind::SegmentSizeInvalid => f.write_str("impossible segment size"),
            FindingKind::SegmentCorrectable { bit } => {
                write!(f, "bit {bit} of the segment is turned")
            }
            FindingKind::SegmentMisplaced { found } => write!(f, "carries the position {found}"),
            FindingKind::SegmentAfterEnd => f.write_str("data after the end of the data"),
            FindingKind::TornSegment => f.write_str("torn write, whole in the copy after it"),
            FindingKind::BodyNotChecked { version } => {
                write!(f, "the body of a version {version} log is not checked")
            }
        }?;
        match self.jet {
            Some(jet) => write!(f, ", {jet}"),
            None => Ok(()),
        }
    }
}

/// The findings of one scan, bounded: counts are exact, the list may be cut.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Findings {
    /// The first findings, in the order of the file; at most
    /// [`ScanOptions::max_findings`](crate::ScanOptions::max_findings).
    pub list: Vec<Finding>,
    /// How many more there were.
    pub omitted: u64,
    /// How many of all are notices.
    pub notices: u64,
    /// How many of all are repairable.
    pub repairable: u64,
    /// How many of all are damage.
    pub damage: u64,
    #[serde(skip)]
    limit: usize,
    #[serde(skip)]
    worst: Option<usize>,
}

impl Findings {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Notice => self.notices += 1,
            Severity::Repairable => self.repairable += 1,
            Severity::Damage => self.damage += 1,
        }
        // The first finding of each severity is kept whatever came before it, so that the list
        // always explains the counts.
        let is_graver = self.worst().is_none_or(|worst| worst.severity < finding.severity);
        if self.list.len() < self.limit || is_graver {
            if is_graver {
                self.worst = Some(self.list.len());
            }
            self.list.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds what was found later in the same file. The result is that of having pushed everything to
    /// one list, as long as the limits are equal.
    pub(crate) fn append(&mut self, later: Self) {
        let notices = self.notices + later.notices;
        let repairable = self.repairable + later.repairable;
        let damage = self.damage + later.damage;
        for finding in later.list {
            self.push(finding);
        }
        self.omitted += later.omitted;
        (self.notices, self.repairable, self.damage) = (notices, repairable, damage);
    }

    /// Whether the engine can use the file: nothing is damaged, though it may have to put bits
    /// right. This is what `eseutil /k` answers with 0.
    pub fn is_usable(&self) -> bool {
        self.damage == 0
    }

    /// Whether every byte that is checked is as it was written.
    pub fn is_intact(&self) -> bool {
        self.damage == 0 && self.repairable == 0
    }

    /// The gravest finding; the first of equals.
    pub fn worst(&self) -> Option<&Finding> {
        self.worst.and_then(|index| self.list.get(index))
    }

    /// Iterates over the list.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
