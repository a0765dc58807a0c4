//! What was done to a file, and which findings that explains.

use stillpoint_ese::{
    Finding, FindingKind, Generation, PageFault, Place, StreamFinding, StreamFindingKind,
};

/// One thing that was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// Bits of a page were turned.
    BitsTurned {
        /// The page.
        page: u32,
        /// Their numbers within the page, ascending.
        bits: Vec<u32>,
        /// Whether the page's checksum names them, so that they can be turned back.
        is_located: bool,
    },
    /// A page holds the content of another; the other may hold its.
    ContentMoved {
        /// Where it lies.
        page: u32,
        /// Where it belongs.
        from: u32,
    },
    /// A page was half written: its end is another's.
    PageTorn {
        /// The page.
        page: u32,
    },
    /// Bytes of a page were overwritten.
    PageOverwritten {
        /// The page.
        page: u32,
    },
    /// A bit of one copy of the header was turned.
    HeaderBitTurned {
        /// Which copy.
        place: Place,
        /// Byte of the file.
        offset: u64,
    },
    /// The file was cut in the middle of a page.
    Cut {
        /// Bytes after the last whole page.
        tail: u64,
    },
    /// A bit of a log's segment was turned.
    SegmentBitTurned {
        /// The log.
        generation: Generation,
        /// The segment.
        segment: u32,
        /// Number of the bit within the segment.
        bit: u32,
    },
    /// The last write to a log was torn; its shadow is whole.
    EndTorn {
        /// The log.
        generation: Generation,
        /// The last segment with data.
        segment: u32,
    },
    /// A segment is that of an older log, as if it had never been written.
    SegmentStale {
        /// The log.
        generation: Generation,
        /// The segment.
        segment: u32,
    },
    /// A segment has another content, with a checksum that is right for it.
    SegmentRewritten {
        /// The log.
        generation: Generation,
        /// The segment.
        segment: u32,
    },
    /// A log was taken away.
    LogRemoved {
        /// Its generation.
        generation: Generation,
    },
    /// A log carries the signature of another stream.
    SignatureChanged {
        /// The log.
        generation: Generation,
    },
    /// A log says that its predecessor was created at another time.
    HistoryForked {
        /// The log.
        generation: Generation,
    },
}

impl Done {
    /// The log that it was done to.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::SegmentBitTurned { generation, .. }
            | Self::EndTorn { generation, .. }
            | Self::SegmentStale { generation, .. }
            | Self::SegmentRewritten { generation, .. }
            | Self::LogRemoved { generation }
            | Self::SignatureChanged { generation }
            | Self::HistoryForked { generation } => Some(*generation),
            _ => None,
        }
    }

    /// Whether a finding in the file itself is what comes of this. For a log the caller knows which
    /// one it looked at.
    pub fn explains(&self, found: &Finding) -> bool {
        use FindingKind as K;
        match self {
            Self::BitsTurned { page, bits, is_located } => {
                found.place == Place::Page(*page)
                    && match &found.kind {
                        K::Page(PageFault::Correctable { bits: named }) => {
                            *is_located && named == bits
                        }
                        K::Page(_) => !is_located,
                        _ => false,
                    }
            }
            Self::ContentMoved { page, from } => {
                found.place == Place::Page(*page)
                    && found.kind == K::Page(PageFault::WrongPage { actual: *from })
            }
            Self::PageTorn { page } | Self::PageOverwritten { page } => {
                found.place == Place::Page(*page) && found.kind == K::Page(PageFault::Checksum)
            }
            Self::HeaderBitTurned { place, offset } => {
                found.place == *place && found.offset == *offset && found.kind == K::HeaderCopyBad
            }
            Self::Cut { tail } => match found.kind {
                K::PartialTail { bytes } => bytes == *tail,
                // Links of the pages before lead to those that are gone.
                K::LinksBeyondEnd { .. } => true,
                _ => false,
            },
            Self::SegmentBitTurned { segment, bit, .. } => {
                found.place == Place::Segment(*segment)
                    && match found.kind {
                        K::SegmentCorrectable { bit: named } => named == *bit,
                        // The checksum's own bytes have no place in it.
                        K::SegmentBad => *bit < 64,
                        _ => false,
                    }
            }
            Self::EndTorn { segment, .. } => {
                found.place == Place::Segment(*segment) && found.kind == K::TornSegment
            }
            // It ends the data, and all that follows lies after the end.
            Self::SegmentStale { segment, .. } => {
                matches!(found.place, Place::Segment(at) if at > *segment)
                    && found.kind == K::SegmentAfterEnd
            }
            _ => false,
        }
    }

    /// Whether a finding between logs is what comes of this.
    pub fn explains_between(&self, found: &StreamFinding) -> bool {
        use StreamFindingKind as K;
        match (self, &found.kind) {
            (
                Self::LogRemoved { generation } | Self::SignatureChanged { generation },
                K::Gap { missing },
            ) => missing.contains(*generation),
            (Self::SignatureChanged { generation }, K::ForeignSignature)
            | (Self::HistoryForked { generation }, K::SequenceBroken)
            | (Self::EndTorn { generation, .. }, K::TornWhileClosed) => {
                found.generation == *generation
            }
            // What the next log remembers is no longer so.
            (
                Self::SegmentRewritten { generation, .. }
                | Self::SegmentStale { generation, .. }
                | Self::SegmentBitTurned { generation, .. },
                K::AccumulatedMismatch,
            ) => found.generation == generation.next(),
            _ => false,
        }
    }
}
