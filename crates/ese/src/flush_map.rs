//! Flush maps (`.jfm`): what the engine remembers of its last write of each page, to notice writes
//! that never reached the disk.
//!
//! ```text
//! 0        header, checksummed as that of a database
//! 8192     data page 0: pages of the database 0 … 32511, two bits each
//! 16384    data page 1: …
//! ```

use serde::Serialize;

use crate::{
    DatabaseHeader, EseError, FileKind, Finding, FindingKind, Findings, Generation, JetError,
    LogTime, Observer, PageFault, PageState, Place, ReadAt, ScanOptions, Signature,
    bytes::u32_at,
    checksum::{check_page, is_header_good, uses_ecc},
    database::has_magic,
    read::{Sweep, head},
};

/// Length of a page of a flush map, its header too.
pub(crate) const PAGE_LEN: usize = 8192;
/// Pages of the database that one page of the map has room for.
pub(crate) const PAGES_A_PAGE: u64 = 32_512;

/// The fields of a flush map's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FlushMapHeader {
    /// The stored checksum.
    pub checksum: u32,
    /// Version: major, update major, update minor.
    pub version: [u32; 3],
    /// Whether it was closed in order.
    pub is_clean: bool,
    /// When it was made.
    pub created: LogTime,
    /// When it was attached.
    pub attached: LogTime,
    /// When it was detached.
    pub detached: LogTime,
    /// First generation that it needs to be brought up to date.
    pub min_required: Generation,
    /// Pairs with the database: its last header flush.
    pub database_flush: Signature,
    /// Pairs with the database: the last header flush of the map.
    pub map_flush: Signature,
}

/// Whether a flush map may be used with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlushMapFit {
    /// Map and database were written together last.
    Usable,
    /// The engine of the map's version is not known here.
    Version,
    /// The database was written last with another map, or without one.
    DatabaseMovedOn,
    /// The map was written last with another state of the database.
    MapMovedOn,
}

impl FlushMapHeader {
    /// Reads the fields of a header page; checks nothing.
    pub fn parse(page: &[u8]) -> Self {
        Self {
            checksum: u32_at(page, 0),
            version: [u32_at(page, 4), u32_at(page, 8), u32_at(page, 12)],
            is_clean: u32_at(page, 36) & 1 != 0,
            created: LogTime::parse(page, 40),
            attached: LogTime::parse(page, 48),
            detached: LogTime::parse(page, 56),
            min_required: Generation::new(u32_at(page, 64)),
            database_flush: Signature::parse(page, 88),
            map_flush: Signature::parse(page, 116),
        }
    }

    /// Whether the engine would use this map with a database: only if both remember each other's
    /// last flush. One that it would not use is made anew, and is no fault of the database.
    pub fn fit(&self, database: &DatabaseHeader) -> FlushMapFit {
        if self.version[0] != 3 || self.version[1] > 0 {
            FlushMapFit::Version
        } else if self.map_flush != database.flush_map_flush {
            FlushMapFit::DatabaseMovedOn
        } else if self.database_flush != database.header_flush {
            FlushMapFit::MapMovedOn
        } else {
            FlushMapFit::Usable
        }
    }
}

fn usable(start: &[u8]) -> Result<FlushMapHeader, EseError> {
    let unusable = |jet| EseError::HeaderUnusable { kind: FileKind::FlushMap, jet };
    let page = start.get(..PAGE_LEN).ok_or_else(|| unusable(JetError::READ_VERIFY_FAILURE))?;
    if !is_header_good(page) {
        return Err(unusable(JetError::READ_VERIFY_FAILURE));
    }
    if has_magic(page) || u32_at(page, 667) != 7 {
        return Err(unusable(JetError::FILE_INVALID_TYPE));
    }
    Ok(FlushMapHeader::parse(page))
}

/// Reads the header of a flush map. Reads at most 8192 bytes.
///
/// # Errors
/// [`EseError::HeaderUnusable`] when its checksum is wrong (`JET_errReadVerifyFailure`) or the file
/// is of another kind; [`EseError::Read`] when reading fails.
pub fn read_flush_map<R: ReadAt + ?Sized>(file: &R) -> Result<FlushMapHeader, EseError> {
    usable(&head(file, PAGE_LEN)?)
}

/// What a scan of a flush map found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FlushMapReport {
    /// The header; `None` when it is unusable, and then no page was looked at.
    pub header: Option<FlushMapHeader>,
    /// Length of the file in bytes.
    pub size: u64,
    /// Data pages.
    pub pages: u64,
    /// Data pages never written.
    pub uninitialised: u64,
    /// Pages of a database that it has room for.
    pub capacity: u64,
    /// Everything found, in the order of the file. Pages are numbered from 0.
    pub findings: Findings,
}

/// Checks the header and every page of a flush map. What its pages say about those of the
/// database is for [`scan_mapped_database`](crate::scan_mapped_database).
///
/// # Errors
/// As [`scan_database`](crate::scan_database).
pub fn scan_flush_map<R: ReadAt + ?Sized, O: Observer + ?Sized>(
    file: &R,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<FlushMapReport, EseError> {
    let mut sweep = Sweep::new(file, observer, options)?;
    let mut report = FlushMapReport {
        header: None,
        size: sweep.size(),
        pages: 0,
        uninitialised: 0,
        capacity: 0,
        findings: Findings::with_limit(options.max_findings),
    };
    let mut push = |place, at, kind, jet: Option<JetError>| {
        let mut finding = Finding::new(FileKind::FlushMap, place, at, kind);
        finding.jet = jet.or(finding.jet);
        report.findings.push(finding);
    };
    // A chunk is never shorter than the header, unless the file is.
    let mut buf = Vec::new();
    sweep.append(&mut buf)?;
    match usable(&buf) {
        Ok(header) => report.header = Some(header),
        Err(EseError::HeaderUnusable { jet, .. }) => {
            push(Place::Header, 0, FindingKind::HeaderUnusable, Some(jet));
            return Ok(report);
        }
        Err(error) => return Err(error),
    }
    let mut at = PAGE_LEN as u64;
    buf.drain(..PAGE_LEN);
    loop {
        let used = buf.len() / PAGE_LEN * PAGE_LEN;
        for page in buf[..used].chunks_exact(PAGE_LEN) {
            let number = u32::try_from(report.pages).unwrap_or(u32::MAX);
            match check_map_page(page, number) {
                PageState::Good => {}
                PageState::Uninitialised => report.uninitialised += 1,
                PageState::Bad(fault) => {
                    let within = match &fault {
                        PageFault::Correctable { bits } => bits.first().copied().unwrap_or(0) / 8,
                        _ => 0,
                    };
                    let kind = FindingKind::Page(fault);
                    push(Place::Page(number), at + u64::from(within), kind, None);
                }
            }
            report.pages += 1;
            at += PAGE_LEN as u64;
        }
        buf.drain(..used);
        sweep.report()?;
        if !sweep.append(&mut buf)? {
            break;
        }
    }
    if !buf.is_empty() {
        let bytes = buf.len() as u64;
        push(Place::Tail, at, FindingKind::PartialTail { bytes }, None);
    }
    report.capacity = report.pages.saturating_mul(PAGES_A_PAGE);
    Ok(report)
}

pub(crate) fn check_map_page(page: &[u8], number: u32) -> PageState {
    match check_page(page, number) {
        // Its pages never have the old format.
        PageState::Good if !uses_ecc(page) => PageState::Bad(PageFault::Checksum),
        PageState::Good => match u32_at(page, 16) {
            found if found == number => PageState::Good,
            found => PageState::Bad(PageFault::NumberField { found }),
        },
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_from_its_place() {
        let page: Vec<u8> =
            (0..PAGE_LEN).map(|at| u8::try_from((at * 37 + at / 256) % 251).unwrap()).collect();
        let header = FlushMapHeader::parse(&page);
        let [major, update_major, update_minor] = header.version;
        for (at, field) in [
            (0, header.checksum),
            (4, major),
            (8, update_major),
            (12, update_minor),
            (64, header.min_required.number()),
        ] {
            assert_eq!(field.to_le_bytes(), page[at..at + 4], "offset {at}");
        }
        for (at, field) in [(40, header.created), (48, header.attached), (56, header.detached)] {
            assert_eq!(field.to_bytes(), page[at..at + 8], "offset {at}");
        }
        assert_eq!(header.database_flush.as_bytes()[..], page[88..116]);
        assert_eq!(header.map_flush.as_bytes()[..], page[116..144]);
        assert_eq!(header.is_clean, page[36] & 1 == 1);
    }
}
