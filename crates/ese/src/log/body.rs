//! The body of a log: segments, their shadows, and the torn end.
//!
//! ```text
//! segment   0       1        …  k        k+1          k+2 …   last
//!         header │ data │ data │ data │ shadow of k │ zero or older │
//!                                      └ end of data
//! ```
//!
//! The engine writes the last, partly filled segment twice, so that a torn write can be undone.
//! A log that was recycled (circular logging) holds older segments after the end of its data.

use serde::Serialize;

use super::{
    chain::Chain,
    header::{HEADER_LEN, LogHeader, usable},
};
use crate::{
    EseError, FileKind, Finding, FindingKind, Findings, Generation, Lgpos, LogTime, Observer,
    Place, ReadAt, ScanOptions,
    bytes::{is_zero, u64_at},
    checksum::{block_checksum, is_segment_good, single_bit},
    read::Sweep,
};

const SEGMENT: usize = 4096;

/// What the body of a log came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogBody {
    /// Everything that has a checksum was looked at.
    Checked {
        /// Segments (sectors) that hold data.
        data_segments: u32,
        /// XOR of their checksums: what the next generation's header must say. Version 7 kept no
        /// such sum.
        accumulated: Option<u64>,
        /// When the last of them was first written; unset in version 7.
        last_written: LogTime,
        /// Whether the last of them is torn and only its shadow is whole.
        is_torn: bool,
    },
    /// The body has an older format that is not checked here, or the header is unusable.
    NotChecked,
}

/// Checks a body as it comes.
pub(super) trait Body {
    /// Looks at the next bytes after the header. `push` takes a segment, an offset in the file and
    /// what was found there.
    fn take(&mut self, bytes: &[u8], push: &mut dyn FnMut(u32, u64, FindingKind));

    /// Says what it came to once the file is at its end.
    fn end(self: Box<Self>, push: &mut dyn FnMut(u32, u64, FindingKind)) -> LogBody;
}

/// What a scan of one log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogReport {
    /// The header; `None` when it is unusable, and then the body was not looked at.
    pub header: Option<LogHeader>,
    /// Length of the file in bytes.
    pub size: u64,
    /// The body.
    pub body: LogBody,
    /// Everything found, in the order of the file.
    pub findings: Findings,
}

/// Checks the header and the body of a log, the shadow at its end too: what `eseutil /ml` checks,
/// and in version 8 the bytes after the end of the data, which it does not look at.
///
/// Version 8 (Exchange 2013 and later) has a checksum for each segment, version 7 (Exchange 2003 to
/// 2010) for each range of sectors that was written at once. Older bodies are not checked and say
/// so.
///
/// # Errors
/// As [`scan_database`](crate::scan_database).
pub fn scan_log<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<LogReport, EseError> {
    let mut sweep = Sweep::new(file, observer, options)?;
    let mut report = LogReport {
        header: None,
        size: sweep.size(),
        body: LogBody::NotChecked,
        findings: Findings::with_limit(options.max_findings),
    };
    // A chunk is never shorter than the header, unless the file is.
    let mut buf = Vec::new();
    sweep.append(&mut buf)?;
    let header = match usable(&buf) {
        Ok(header) => header,
        Err(EseError::HeaderUnusable { jet, .. }) => {
            let mut finding =
                Finding::new(FileKind::Log, Place::Header, 0, FindingKind::HeaderUnusable);
            finding.jet = Some(jet);
            report.findings.push(finding);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut body = judge_header(&header, &mut report);
    report.header = Some(header);

    buf.drain(..HEADER_LEN);
    let findings = &mut report.findings;
    let mut push = |index, at, kind| {
        findings.push(Finding::new(FileKind::Log, Place::Segment(index), at, kind));
    };
    loop {
        if let Some(body) = &mut body {
            body.take(&buf, &mut push);
        }
        buf.clear();
        sweep.report()?;
        if !sweep.append(&mut buf)? {
            break;
        }
    }
    if let Some(body) = body {
        report.body = body.end(&mut push);
    }
    Ok(report)
}

/// Judges the header; gives what checks the body, if it can be checked.
fn judge_header(header: &LogHeader, report: &mut LogReport) -> Option<Box<dyn Body>> {
    let size = report.size;
    let mut push = |kind| {
        report.findings.push(Finding::new(FileKind::Log, Place::Header, 0, kind));
    };
    if !header.generation.is_valid() {
        push(FindingKind::GenerationInvalid);
    }
    if header.file_len() != size {
        push(FindingKind::LengthMismatch { expected: header.file_len(), actual: size });
    }
    let sector = header.segment_size;
    match header.version[0] {
        8 if usize::from(sector) == SEGMENT => Some(Box::new(Segments::new(header))),
        7 if matches!(sector, 512 | 1024 | 2048 | 4096) => {
            Some(Box::new(Chain::new(header.generation, sector, HEADER_LEN, header.segments)))
        }
        7 | 8 => {
            push(FindingKind::SegmentSizeInvalid);
            None
        }
        version @ 1..=6 => {
            push(FindingKind::BodyNotChecked { version });
            None
        }
        version => {
            push(FindingKind::HeaderVersion { version });
            None
        }
    }
}

/// The segments of a version 8 log.
struct Segments {
    generation: Generation,
    /// Segments of the file by its header; 0 when the file is another length.
    count: u32,
    index: u32,
    /// Bytes that have come and are not judged yet: a segment waits for its successor.
    waiting: Vec<u8>,
    has_ended: bool,
    last_is_torn: bool,
    data: u32,
    accumulated: u64,
    last_written: LogTime,
}

impl Body for Segments {
    fn take(&mut self, bytes: &[u8], push: &mut dyn FnMut(u32, u64, FindingKind)) {
        self.waiting.extend_from_slice(bytes);
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.as_slice();
        // A segment is judged only with its successor at hand, where the shadow may be.
        while rest.len() >= 2 * SEGMENT {
            let (segment, next) = rest.split_at(SEGMENT);
            self.look_at(segment, next.get(..SEGMENT), push);
            rest = next;
        }
        self.waiting.extend_from_slice(rest);
    }

    fn end(mut self: Box<Self>, push: &mut dyn FnMut(u32, u64, FindingKind)) -> LogBody {
        let waiting = std::mem::take(&mut self.waiting);
        if let Some(segment) = waiting.get(..SEGMENT) {
            self.look_at(segment, None, push);
        }
        LogBody::Checked {
            data_segments: self.data,
            accumulated: Some(self.accumulated),
            last_written: self.last_written,
            is_torn: self.last_is_torn,
        }
    }
}

impl Segments {
    fn new(header: &LogHeader) -> Self {
        Self {
            generation: header.generation,
            count: u32::from(header.segments),
            index: 1,
            waiting: Vec::new(),
            has_ended: false,
            last_is_torn: false,
            data: 0,
            accumulated: 0,
            last_written: LogTime::default(),
        }
    }

    fn look_at(
        &mut self,
        segment: &[u8],
        next: Option<&[u8]>,
        push: &mut dyn FnMut(u32, u64, FindingKind),
    ) {
        let index = self.index;
        self.index += 1;
        // What lies beyond the length of the header is no part of the log; its length was told.
        if index >= self.count {
            return;
        }
        let offset = u64::from(index) * SEGMENT as u64;
        let mut push = |at: u64, kind| push(index, at, kind);
        let expected =
            u16::try_from(index).ok().map(|segment| Lgpos::new(self.generation, segment, 0));
        let found = Lgpos::parse(segment, 8);
        let is_last = index + 1 == self.count;

        if is_segment_good(segment, index) {
            match expected {
                Some(expected) if found < expected => self.has_ended = true,
                Some(expected) if found == expected && !is_last => {
                    if self.has_ended {
                        push(offset, FindingKind::SegmentAfterEnd);
                    } else {
                        self.take(segment);
                    }
                }
                // The last segment can only hold a shadow.
                _ => {
                    self.has_ended = true;
                    push(offset, FindingKind::SegmentMisplaced { found });
                }
            }
        } else if is_zero(segment)
            // A shadow carries the position of the segment before: with its own, it is that segment
            // with a bit of its checksum turned.
            || (is_segment_good(segment, index.saturating_sub(1)) && Some(found) != expected)
        {
            self.has_ended = true;
        } else if self.has_ended || is_last {
            push(offset, FindingKind::SegmentBad);
            self.has_ended = true;
        } else if next.is_some_and(|next| {
            is_segment_good(next, index) && Some(Lgpos::parse(next, 8)) == expected
        }) {
            self.last_is_torn = true;
            self.take(next.unwrap_or_default());
            self.has_ended = true;
            push(offset, FindingKind::TornSegment);
        } else if let Some((bit, sum)) = correctable(segment, index)
            && Some(found_after(segment, bit)) == expected
        {
            self.data += 1;
            self.accumulated ^= sum;
            self.last_written = LogTime::parse(segment, 16);
            push(offset + u64::from(bit / 8), FindingKind::SegmentCorrectable { bit });
        } else {
            push(offset, FindingKind::SegmentBad);
            // The data may go on after a bad segment. Going on to take it keeps one bad segment
            // one finding.
            self.data += 1;
        }
    }

    fn take(&mut self, segment: &[u8]) {
        self.data += 1;
        self.accumulated ^= u64_at(segment, 0);
        self.last_written = LogTime::parse(segment, 16);
    }
}

/// The one bit that makes a segment good, with the checksum it then has.
fn correctable(segment: &[u8], index: u32) -> Option<(u32, u64)> {
    let stored = u64_at(segment, 0);
    let bit = single_bit(block_checksum(segment, index, true)? ^ stored, SEGMENT)?;
    // The checksum's own bytes carry no index.
    if bit < 64 {
        return None;
    }
    let fixed = with_bit_turned(segment, bit)?;
    is_segment_good(&fixed, index).then_some((bit, stored))
}

fn with_bit_turned(segment: &[u8], bit: u32) -> Option<Vec<u8>> {
    let mut fixed = segment.to_vec();
    *fixed.get_mut(usize::try_from(bit / 8).ok()?)? ^= 1 << (bit % 8);
    Some(fixed)
}

/// The position that a segment carries once a bit of it is turned back.
fn found_after(segment: &[u8], bit: u32) -> Lgpos {
    with_bit_turned(segment, bit).map(|fixed| Lgpos::parse(&fixed, 8)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
