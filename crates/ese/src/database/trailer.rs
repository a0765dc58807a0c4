//! The trailer: an extra last page that a database restored from a streaming backup has.

use serde::Serialize;

use crate::{
    BackupInfo, Generation, LogTime, Signature,
    bytes::{is_zero, u32_at},
    checksum::is_header_good,
};

/// The fields of a trailer page. They stand in for those of the header, which was copied before
/// the pages were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trailer {
    /// The backup that it ended.
    pub backup: BackupInfo,
    /// Signature of the database.
    pub signature: Signature,
    /// Signature of its log stream.
    pub log_signature: Signature,
    /// First generation needed.
    pub min_required: Generation,
    /// Last generation needed for consistency.
    pub max_required: Generation,
    /// Last generation with committed work.
    pub max_committed: Generation,
    /// Creation time of the generation in `max_required`.
    pub max_required_created: LogTime,
    /// Creation time of the generation in `max_committed`.
    pub max_committed_created: LogTime,
}

impl Trailer {
    /// Reads a page if it is a trailer: checksummed as a header, with a bare page header before its
    /// fields.
    pub(crate) fn recognise(page: &[u8]) -> Option<Self> {
        let is_trailer = [4, 8, 12, 24].into_iter().all(|at| u32_at(page, at) == 0)
            && is_header_good(page)
            && !is_zero(page);
        is_trailer.then(|| Self::parse(page))
    }

    fn parse(page: &[u8]) -> Self {
        let generation = |at| Generation::new(u32_at(page, at));
        Self {
            backup: BackupInfo::parse(page, 40),
            signature: Signature::parse(page, 64),
            log_signature: Signature::parse(page, 92),
            min_required: generation(120),
            max_required: generation(124),
            max_committed: generation(128),
            max_required_created: LogTime::parse(page, 132),
            max_committed_created: LogTime::parse(page, 140),
        }
    }
}
