//! Checking every page of a database.
//!
//! The file is cut into stretches of whole pages. Lanes read and check them a chunk at a time, so
//! that what is checked is still in the processor's cache; the caller's thread puts what they found
//! together in the order of the file. Holes of a sparse file are not read.

use std::io;

use serde::Serialize;

use super::{
    CopyState, DatabaseHeader, DatabaseHeaders, HeaderCopy, Trailer,
    flushes::{Flushes, Leaf, type_of},
    read_database_header,
};
use crate::{
    EseError, FileKind, Finding, FindingKind, Findings, Observer, PageFault, PageState, Place,
    Progress, ReadAt, ScanOptions,
    bytes::{u32_at, u64_at},
    checksum::check_page,
    lanes::in_order,
    read::{fill, report_progress, size_of},
};

/// Bytes that a lane reads, chunk by chunk, before it hands in what it found, when nobody wants the
/// bytes.
const STRETCH: u64 = 4 << 20;

/// What a scan of a whole database found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DatabaseReport {
    /// The header in use; `None` when there is none, and then no page was looked at.
    pub header: Option<DatabaseHeader>,
    /// Length of the file in bytes.
    pub size: u64,
    /// Pages of the file, headers not counted.
    pub pages: u64,
    /// Pages never written (all zero).
    pub uninitialised: u64,
    /// Pages with a bad checksum or a wrong number, correctable ones not counted.
    pub bad: u64,
    /// Pages that are good after turning single bits back.
    pub correctable: u64,
    /// Pages that are older than what was written last, by the flush map. Their checksums are right,
    /// and they are not among the bad ones.
    pub lost_flushes: u64,
    /// Highest change stamp of a good page, with that page.
    pub highest_dbtime: Option<(u64, u32)>,
    /// The trailer page of a restored streaming backup; it is not among the pages.
    pub trailer: Option<Trailer>,
    /// Everything found, header first, then in the order of the file.
    pub findings: Findings,
}

/// Checks both headers and every page of a database: what `eseutil /k` reads, and more than it
/// says. The state is not judged: a dirty database is as sound as a clean one.
///
/// Reads and checks on as many threads as [`ScanOptions::threads`] says, and returns when all of
/// them have ended; the report is the same for any number. Memory is bounded by [`ScanOptions`],
/// whatever the size of the file. Holes of a sparse file are counted as pages never written, without
/// being read, unless the observer wants every byte.
///
/// # Errors
/// [`EseError::Read`] when reading fails, [`EseError::Stopped`] when the observer says so. Damage
/// is not an error: it is in the report.
///
/// # Complexity
/// One pass over the file.
pub fn scan_database<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<DatabaseReport, EseError> {
    scan(file, None, options, observer)
}

/// [`scan_database`], and holds the pages against the database's flush map (`.jfm`): a write that
/// never reached the disk leaves an older page whose checksum is right, and only the map tells.
///
/// Compares nothing unless the map is usable with the database and both were closed in order: in
/// use, and so in a snapshot of a mounted database, the map is behind the pages. A map that is bad
/// or cannot be read says nothing; [`scan_flush_map`](crate::scan_flush_map) tells why.
///
/// # Errors
/// As [`scan_database`].
pub fn scan_mapped_database<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    map: &dyn ReadAt,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<DatabaseReport, EseError> {
    scan(file, Some(map), options, observer)
}

fn scan<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    map: Option<&dyn ReadAt>,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<DatabaseReport, EseError> {
    let size = size_of(file)?;
    let mut report = DatabaseReport {
        header: None,
        size,
        pages: 0,
        uninitialised: 0,
        bad: 0,
        correctable: 0,
        lost_flushes: 0,
        highest_dbtime: None,
        trailer: None,
        findings: Findings::with_limit(options.max_findings),
    };
    let headers = match read_database_header(file) {
        Ok(headers) => headers,
        Err(EseError::HeaderUnusable { jet, .. }) => {
            let kind = FindingKind::HeaderUnusable;
            let mut finding = Finding::new(FileKind::Database, Place::Header, 0, kind);
            finding.jet = Some(jet);
            report.findings.push(finding);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    judge_headers(&headers, &mut report.findings);
    let flushes = map.and_then(|map| Flushes::of(map, &headers.header));
    let page_size = u64::from(headers.header.page_size.bytes());
    report.header = Some(headers.header);
    report.pages = (size / page_size).saturating_sub(2);
    if report.pages == 0 {
        let finding = Finding::new(FileKind::Database, Place::File, size, FindingKind::NoPages);
        report.findings.push(finding);
    }
    let layout = Layout { page_size, size, flushes };
    let mut gathered = Tally::default();
    sweep(file, layout, options, observer, |mut tally| {
        report.findings.append(std::mem::take(&mut tally.findings));
        gathered.add(&tally);
    })?;

    report.uninitialised = gathered.uninitialised;
    report.bad = gathered.bad;
    report.correctable = gathered.correctable;
    report.lost_flushes = gathered.lost_flushes;
    report.highest_dbtime = gathered.highest_dbtime;
    report.trailer = gathered.trailer;
    report.pages -= u64::from(gathered.trailer.is_some());
    let mut push = |at, kind| {
        report.findings.push(Finding::new(FileKind::Database, Place::Tail, at, kind));
    };
    if report.pages > u64::from(u32::MAX) {
        push((u64::from(u32::MAX) + 2) * page_size, FindingKind::TooManyPages);
    }
    let bytes = size % page_size;
    if bytes > 0 {
        push(size - bytes, FindingKind::PartialTail { bytes });
    }
    if let Some(highest) = gathered.highest_link.filter(|&link| u64::from(link) > report.pages) {
        push(size, FindingKind::LinksBeyondEnd { highest });
    }
    Ok(report)
}

fn judge_headers(headers: &DatabaseHeaders, findings: &mut Findings) {
    let page_size = u64::from(headers.header.page_size.bytes());
    let differs_at = headers.differs_at.unwrap_or(0);
    let mut push = |place, base, kind| {
        let offset = if base == u64::MAX { page_size } else { base + differs_at };
        findings.push(Finding::new(FileKind::Database, place, offset, kind));
    };
    match (headers.primary, headers.shadow) {
        (CopyState::Good, CopyState::Good) => {
            if headers.differs_at.is_some() {
                push(Place::ShadowHeader, page_size, FindingKind::HeaderCopiesDiffer);
            }
        }
        (CopyState::Good, CopyState::Bad) => {
            push(Place::ShadowHeader, page_size, FindingKind::HeaderCopyBad);
        }
        (CopyState::Good, CopyState::Absent) => {
            push(Place::ShadowHeader, u64::MAX, FindingKind::HeaderCopyAbsent);
        }
        _ => push(Place::Header, 0, FindingKind::HeaderCopyBad),
    }
    debug_assert!(headers.used == HeaderCopy::Shadow || headers.primary == CopyState::Good);
}

/// How the file is laid out, and what is known of its pages beforehand.
#[derive(Clone, Copy)]
struct Layout<'a> {
    page_size: u64,
    size: u64,
    flushes: Option<Flushes<'a>>,
}

/// What a lane has of its own.
#[derive(Default)]
struct Lane {
    buf: Vec<u8>,
    leaf: Leaf,
}

/// Bounds of what a lane does.
#[derive(Debug, Clone, Copy)]
struct Limits {
    chunk: u64,
    max_findings: usize,
}

/// A stretch of the file to be looked at: it begins at a page, and ends at one or with the file.
struct Stretch {
    at: u64,
    len: u64,
    /// Where its bytes go if the observer wants them.
    bytes: Option<Vec<u8>>,
}

/// What came of a stretch.
struct Looked {
    tally: Result<Tally, EseError>,
    end: u64,
    bytes: Option<Vec<u8>>,
}

fn sweep<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    layout: Layout<'_>,
    options: &ScanOptions,
    observer: &mut O,
    mut gather: impl FnMut(Tally),
) -> Result<(), EseError> {
    let wants_bytes = observer.wants_bytes();
    let lanes = options.lanes();
    let chunk = options.chunk_on(lanes) / layout.page_size * layout.page_size;
    let stretch = if wants_bytes { chunk } else { chunk * (STRETCH / chunk).clamp(1, 16) };
    let limits = Limits { chunk, max_findings: options.max_findings };
    // A file of a few chunks is read before threads are made.
    let lanes = if layout.size <= stretch { 1 } else { lanes };
    let progress = |done| Progress { done, total: layout.size };

    let mut at = 0;
    let pool = std::cell::RefCell::new(Vec::new());
    let next = || {
        let mut stretched = Stretch { at, len: 0, bytes: None };
        if at >= layout.size {
            return Ok(None);
        }
        if wants_bytes {
            stretched.bytes = Some(pool.borrow_mut().pop().unwrap_or_default());
        } else {
            at += layout.hole_at(file, at)?;
            stretched.at = at;
        }
        stretched.len = stretch.min(layout.size - at);
        at += stretched.len;
        Ok(Some(stretched))
    };
    let work = |stretch: Stretch, lane: &mut Lane| {
        let mut own = stretch.bytes;
        let Lane { buf, leaf } = lane;
        let buf = own.as_mut().unwrap_or(buf);
        let tally = layout.look_at(file, stretch.at, stretch.len, limits, buf, leaf);
        Looked { tally, end: stretch.at + stretch.len, bytes: own }
    };
    let (mut merged, mut leaf) = (0, Leaf::default());
    let merge = |looked: Looked| {
        let tally = looked.tally?;
        if let Some(bytes) = looked.bytes {
            observer.bytes(&bytes);
            pool.borrow_mut().push(bytes);
        }
        // What lies between two stretches is a hole.
        let begin = looked.end - tally.bytes;
        if begin > merged {
            gather(layout.look_at_hole(merged, begin, limits, &mut leaf));
        }
        merged = looked.end;
        gather(tally);
        report_progress(observer, progress(looked.end))
    };
    in_order(lanes, next, work, merge)
}

impl Layout<'_> {
    /// Bytes of whole pages from `at` on that are a hole in the file.
    fn hole_at<R: ReadAt + ?Sized>(self, file: &R, at: u64) -> Result<u64, EseError> {
        let data = file.next_data(at).map_err(|source| EseError::Read { offset: at, source })?;
        // The last page of all is read in any case, so that every file ends with a stretch.
        let end = data.min(self.size.saturating_sub(1));
        Ok(end.saturating_sub(at) / self.page_size * self.page_size)
    }

    /// Database pages between two page boundaries.
    fn pages_in(self, from: u64, to: u64) -> u64 {
        let page = |at: u64| (at / self.page_size).max(2);
        page(to).saturating_sub(page(from))
    }

    /// A hole that was not read: pages that were never written.
    fn look_at_hole(self, from: u64, to: u64, limits: Limits, leaf: &mut Leaf) -> Tally {
        let findings = Findings::with_limit(limits.max_findings);
        let uninitialised = self.pages_in(from, to);
        let mut tally = Tally { bytes: to - from, uninitialised, findings, ..Tally::default() };
        if let Some(flushes) = self.flushes {
            // Slots 0 and 1 are the headers, and slot 2 is page 1.
            let page = |at: u64| (at / self.page_size).max(2) - 1;
            flushes.written_in(page(from)..page(to), leaf, |number, expected| {
                let offset = (u64::from(number) + 1) * self.page_size;
                tally.note_lost(number, offset, expected, None);
            });
        }
        tally
    }

    fn look_at<R: ReadAt + ?Sized>(
        self,
        file: &R,
        at: u64,
        len: u64,
        limits: Limits,
        buf: &mut Vec<u8>,
        leaf: &mut Leaf,
    ) -> Result<Tally, EseError> {
        let findings = Findings::with_limit(limits.max_findings);
        let mut tally = Tally { bytes: len, findings, ..Tally::default() };
        let mut done = 0;
        while done < len {
            let want = usize::try_from(limits.chunk.min(len - done)).unwrap_or(usize::MAX);
            buf.resize(want, 0);
            let read = fill(file, at + done, buf)?;
            if read < want {
                return Err(EseError::Read {
                    offset: at + done + read as u64,
                    source: io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file became shorter while it was read",
                    ),
                });
            }
            let page_len = usize::try_from(self.page_size).unwrap_or(usize::MAX);
            for (slot, page) in ((at + done) / self.page_size..).zip(buf.chunks_exact(page_len)) {
                self.look_at_page(page, slot, leaf, &mut tally);
            }
            done += want as u64;
        }
        Ok(tally)
    }

    // Page slots are counted from the start of the file; slots 0 and 1 are the headers.
    fn look_at_page(self, page: &[u8], slot: u64, leaf: &mut Leaf, tally: &mut Tally) {
        let Some(number) = slot.checked_sub(1).filter(|&number| number > 0) else { return };
        let offset = slot * self.page_size;
        // A page that has no number is told of once for all.
        let Ok(number) = u32::try_from(number) else { return };
        match check_page(page, number) {
            PageState::Uninitialised => {
                tally.uninitialised += 1;
                let written =
                    self.flushes.and_then(|flushes| flushes.expected_of_none(number, leaf));
                if let Some(expected) = written {
                    tally.note_lost(number, offset, expected, None);
                }
            }
            PageState::Good => {
                tally.note_good(page, number);
                let written = self.flushes.and_then(|flushes| flushes.expected(page, number, leaf));
                if let Some(expected) = written {
                    tally.note_lost(number, offset, expected, Some(type_of(page)));
                }
            }
            PageState::Bad(fault) => {
                let is_last = slot + 1 == self.size / self.page_size;
                match Trailer::recognise(page).filter(|_| is_last) {
                    Some(trailer) => {
                        tally.trailer = Some(trailer);
                        tally.push(Place::Page(number), offset, FindingKind::Trailer);
                    }
                    None => tally.note_bad(fault, number, offset, self.size / self.page_size),
                }
            }
        }
    }
}

/// What was found in a part of the file.
#[derive(Default)]
struct Tally {
    bytes: u64,
    uninitialised: u64,
    bad: u64,
    correctable: u64,
    lost_flushes: u64,
    highest_dbtime: Option<(u64, u32)>,
    highest_link: Option<u32>,
    trailer: Option<Trailer>,
    findings: Findings,
}

impl Tally {
    fn add(&mut self, later: &Self) {
        self.uninitialised += later.uninitialised;
        self.bad += later.bad;
        self.correctable += later.correctable;
        self.lost_flushes += later.lost_flushes;
        self.highest_link = self.highest_link.max(later.highest_link);
        self.trailer = self.trailer.or(later.trailer);
        if let Some((dbtime, page)) = later.highest_dbtime {
            self.note_dbtime(dbtime, page);
        }
    }

    fn push(&mut self, place: Place, offset: u64, kind: FindingKind) {
        self.findings.push(Finding::new(FileKind::Database, place, offset, kind));
    }

    fn note_lost(&mut self, page: u32, offset: u64, expected: u8, found: Option<u8>) {
        self.lost_flushes += 1;
        self.push(Place::Page(page), offset, FindingKind::LostFlush { expected, found });
    }

    fn note_dbtime(&mut self, dbtime: u64, page: u32) {
        if self.highest_dbtime.is_none_or(|(highest, _)| dbtime > highest) {
            self.highest_dbtime = Some((dbtime, page));
        }
    }

    fn note_good(&mut self, page: &[u8], number: u32) {
        let dbtime = u64_at(page, 8);
        // The topmost values mark pages without a time.
        if dbtime < u64::MAX - 15 {
            self.note_dbtime(dbtime, number);
        }
        let link = u32_at(page, 16).max(u32_at(page, 20));
        self.highest_link = self.highest_link.max(Some(link));
    }

    fn note_bad(&mut self, fault: PageFault, number: u32, offset: u64, slots: u64) {
        let mut at = offset;
        let fault = match fault {
            PageFault::Correctable { bits } => {
                self.correctable += 1;
                at += u64::from(bits.first().copied().unwrap_or(0) / 8);
                PageFault::Correctable { bits }
            }
            // A number that no page of this file has only looks like another page's content.
            PageFault::WrongPage { actual } if actual == 0 || u64::from(actual) + 2 > slots => {
                self.bad += 1;
                PageFault::Checksum
            }
            fault => {
                self.bad += 1;
                fault
            }
        };
        self.push(Place::Page(number), at, FindingKind::Page(fault));
    }
}
