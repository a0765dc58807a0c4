//! Checking every page of a database.

use serde::Serialize;

use super::{
    CopyState, DatabaseHeader, DatabaseHeaders, HeaderCopy, Trailer, read_database_header,
};
use crate::{
    EseError, FileKind, Finding, FindingKind, Findings, Observer, PageFault, PageState, Place,
    ReadAt, ScanOptions,
    bytes::{u32_at, u64_at},
    checksum::check_page,
    read::{Sweep, size_of},
};

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
/// Memory is bounded by [`ScanOptions`], whatever the size of the file.
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
    let mut report = DatabaseReport {
        header: None,
        size: size_of(file)?,
        pages: 0,
        uninitialised: 0,
        bad: 0,
        correctable: 0,
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
    Scan { page_size: u64::from(headers.header.page_size.bytes()), highest_link: None, report }
        .run(file, options, observer, headers)
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

struct Scan {
    page_size: u64,
    highest_link: Option<u32>,
    report: DatabaseReport,
}

impl Scan {
    fn run<R: ReadAt + ?Sized, O: Observer + ?Sized>(
        mut self,
        file: &R,
        options: &ScanOptions,
        observer: &mut O,
        headers: DatabaseHeaders,
    ) -> Result<DatabaseReport, EseError> {
        let page_len = headers.header.page_size.len();
        self.report.header = Some(headers.header);
        let mut sweep = Sweep::new(file, observer, options)?;
        self.report.size = sweep.size();
        let whole = self.report.size / self.page_size;
        self.report.pages = whole.saturating_sub(2);
        if self.report.pages == 0 {
            self.push(Place::File, self.report.size, FindingKind::NoPages);
        }
        // Page slots are counted from the start of the file; slots 0 and 1 are the headers.
        let mut slot = 0u64;
        let mut buf = Vec::new();
        while sweep.append(&mut buf)? {
            let used = buf.len() / page_len * page_len;
            for page in buf[..used].chunks_exact(page_len) {
                self.look_at(page, slot, slot + 1 == whole);
                slot += 1;
            }
            buf.drain(..used);
            sweep.report()?;
        }
        if !buf.is_empty() {
            let bytes = buf.len() as u64;
            self.push(Place::Tail, self.report.size - bytes, FindingKind::PartialTail { bytes });
        }
        if let Some(highest) = self.highest_link.filter(|&link| u64::from(link) > self.report.pages)
        {
            self.push(Place::Tail, self.report.size, FindingKind::LinksBeyondEnd { highest });
        }
        Ok(self.report)
    }

    fn push(&mut self, place: Place, offset: u64, kind: FindingKind) {
        self.report.findings.push(Finding::new(FileKind::Database, place, offset, kind));
    }

    fn look_at(&mut self, page: &[u8], slot: u64, is_last: bool) {
        let Some(number) = slot.checked_sub(1).filter(|&number| number > 0) else { return };
        let offset = slot * self.page_size;
        let Ok(number) = u32::try_from(number) else {
            // Said once, at the first page that has no number.
            if number == u64::from(u32::MAX) + 1 {
                self.push(Place::Tail, offset, FindingKind::TooManyPages);
            }
            return;
        };
        match check_page(page, number) {
            PageState::Uninitialised => self.report.uninitialised += 1,
            PageState::Good => self.note_good(page, number),
            PageState::Bad(fault) => match Trailer::recognise(page).filter(|_| is_last) {
                Some(trailer) => {
                    self.report.pages -= 1;
                    self.report.trailer = Some(trailer);
                    self.push(Place::Page(number), offset, FindingKind::Trailer);
                }
                None => self.note_bad(fault, number, offset),
            },
        }
    }

    fn note_good(&mut self, page: &[u8], number: u32) {
        let dbtime = u64_at(page, 8);
        // The topmost values mark pages without a time.
        let is_time = dbtime < u64::MAX - 15;
        if is_time && self.report.highest_dbtime.is_none_or(|(highest, _)| dbtime > highest) {
            self.report.highest_dbtime = Some((dbtime, number));
        }
        let link = u32_at(page, 16).max(u32_at(page, 20));
        self.highest_link = self.highest_link.max(Some(link));
    }

    fn note_bad(&mut self, fault: PageFault, number: u32, offset: u64) {
        let mut at = offset;
        let fault = match fault {
            PageFault::Correctable { bits } => {
                self.report.correctable += 1;
                at += u64::from(bits.first().copied().unwrap_or(0) / 8);
                PageFault::Correctable { bits }
            }
            // A number that no page of this file has only looks like another page's content.
            PageFault::WrongPage { actual }
                if actual == 0 || u64::from(actual) > self.report.pages =>
            {
                self.report.bad += 1;
                PageFault::Checksum
            }
            fault => {
                self.report.bad += 1;
                fault
            }
        };
        self.push(Place::Page(number), at, FindingKind::Page(fault));
    }
}
