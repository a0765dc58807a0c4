//! The body of a version 7 log: a chain of checksum records, each over a range of sectors.
//!
//! ```text
//!            sector k                      k+1          k+2               k+3
//! ┌──────────────┬────────┬────────┐┌───────────┐┌────────┬─────────┐┌───────────┐
//! │ log records  │ record │ …      ││ …         ││ …      │ record  ││ shadow of │
//! │◀─ backwards ─┘        └─ forwards ─────────▶││        │ (last)  ││ k+2       │
//! └────────────────────────────────┘└───────────┘└────────┴─────────┘└───────────┘
//!                └──────────────── next ──────────────────▶
//! ```
//!
//! A range that lies in one sector is guarded by its checksum alone; one of several sectors ends on
//! a sector boundary, and a second, short checksum guards its first sector, so that the pointers in
//! it can be believed before the rest is read. The last sector, partly filled, is written a second
//! time after itself with another constant mixed in: the shadow, from which a torn write is had
//! back. What follows is of no log, or of an older one.

use super::body::Body;
use crate::{
    FindingKind, Generation, LogBody, LogTime,
    bytes::{u8_at, u32_at},
};

/// Length of a checksum record, and its type byte.
pub(crate) const RECORD: usize = 22;
const RECORD_TYPE: u8 = 42;
/// Start values of the two checksums, and what makes a shadow's differ.
const SEED: u32 = 0xFEED_BEAF;
const SHORT_SEED: u32 = 0xDEAD_C0DE;
const SHADOW: u32 = 0x5AD0_5EC7;
/// The byte that says whether the short checksum is in use.
const SHORT_ON: u8 = 0x9A;
const SHORT_OFF: u8 = 0xD1;

/// XOR of a range's little-endian dwords, counted from its own first byte, as it comes.
#[derive(Debug, Clone, Copy)]
struct Xor {
    sum: u32,
    phase: u32,
}

impl Xor {
    fn add(&mut self, bytes: &[u8]) {
        let lead = usize::try_from((4 - self.phase) % 4).unwrap_or(0).min(bytes.len());
        let (start, rest) = bytes.split_at(lead);
        self.add_bytes(start);
        let (dwords, end) = rest.as_chunks();
        for dword in dwords {
            self.sum ^= u32::from_le_bytes(*dword);
        }
        self.add_bytes(end);
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.sum ^= u32::from(byte) << (8 * self.phase);
            self.phase = (self.phase + 1) % 4;
        }
    }
}

/// A checksum record.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// Where it begins in its sector.
    at: usize,
    backwards: u32,
    forwards: u32,
    next: u32,
    checksum: u32,
    short: u32,
    use_short: u8,
}

impl Record {
    /// Reads the record at `at`, if there is one and its pointers are possible.
    fn read(sector: &[u8], at: usize, generation: Generation, bytes_left: u64) -> Option<Self> {
        let bytes = sector.get(at..at.checked_add(RECORD)?)?;
        if u8_at(bytes, 0) != RECORD_TYPE {
            return None;
        }
        let record = Self {
            at,
            backwards: u32_at(bytes, 1),
            forwards: u32_at(bytes, 5),
            next: u32_at(bytes, 9),
            checksum: u32_at(bytes, 13),
            short: u32_at(bytes, 17),
            use_short: u8_at(bytes, 21),
        };
        let len = sector.len() as u64;
        let end = record.end();
        let is_aligned = end.is_multiple_of(len);
        let is_possible = match record.use_short {
            SHORT_ON => {
                record.short_checksum(sector, generation) == record.short && end > len && is_aligned
            }
            SHORT_OFF => record.short == 0 && end <= len,
            _ => false,
        };
        // The next record lies in the sector that follows the range.
        let follows = record.next == 0
            || (is_aligned && record.next_at() >= end && record.next_at() < end + len);
        let reaches_back = record.backwards == 0 || u64::from(record.backwards) == at as u64;
        (is_possible && follows && reaches_back && end <= bytes_left).then_some(record)
    }

    /// Where its range ends, counted from its sector.
    fn end(&self) -> u64 {
        (self.at + RECORD) as u64 + u64::from(self.forwards)
    }

    /// Where the next record begins, counted from its sector.
    fn next_at(&self) -> u64 {
        (self.at + RECORD) as u64 + u64::from(self.next)
    }

    fn back_start(&self) -> usize {
        if self.backwards == 0 { self.at } else { 0 }
    }

    /// XOR of what both checksums cover before the forward range.
    fn begin(&self, sector: &[u8], seed: u32, generation: Generation) -> Xor {
        let mut back = Xor { sum: 0, phase: 0 };
        back.add(sector.get(self.back_start()..self.at).unwrap_or_default());
        let fields = self.backwards ^ self.forwards ^ self.next ^ u32::from(self.use_short);
        Xor { sum: seed ^ back.sum ^ fields ^ generation.number(), phase: 0 }
    }

    fn short_checksum(&self, sector: &[u8], generation: Generation) -> u32 {
        let mut sum = self.begin(sector, SHORT_SEED, generation);
        sum.add(sector.get(self.at + RECORD..).unwrap_or_default());
        sum.sum
    }

    /// The checksum over its range as far as it lies in its own sector.
    fn checksum_in(&self, sector: &[u8], generation: Generation) -> Xor {
        let mut sum = self.begin(sector, SEED, generation);
        let end = usize::try_from(self.end()).unwrap_or(usize::MAX).min(sector.len());
        sum.add(sector.get(self.at + RECORD..end).unwrap_or_default());
        sum
    }

    fn is_shadow(&self, sector: &[u8], generation: Generation) -> bool {
        self.use_short == SHORT_OFF
            && self.next == 0
            && self.checksum_in(sector, generation).sum ^ SHADOW == self.checksum
    }
}

/// Where the chain is.
#[derive(Debug, Clone, Copy)]
enum At {
    /// A record is due at this offset of the next sector.
    Record(usize),
    /// So many sectors of a range are still to come.
    Range { from: u32, sectors: u64, sum: Xor, record: Record },
    /// The sector before could not be believed; the next may be its shadow.
    Shadow { from: u32, at: usize },
    /// The data has ended, or the chain is lost.
    Ended,
}

/// Follows the chain, sector by sector.
#[derive(Debug)]
pub(super) struct Chain {
    generation: Generation,
    sector_len: usize,
    /// Sectors of the file, and the next one to come.
    sectors: u32,
    index: u32,
    /// The start of a sector whose rest has not come yet.
    partial: Vec<u8>,
    state: At,
    data: u32,
    is_torn: bool,
}

impl Chain {
    /// The chain of a log with these sectors, the first of which comes after the header.
    pub(super) fn new(
        generation: Generation,
        sector_len: u16,
        header_len: usize,
        sectors: u16,
    ) -> Self {
        let sector_len = usize::from(sector_len.max(1));
        Self {
            generation,
            sector_len,
            sectors: u32::from(sectors),
            index: u32::try_from(header_len / sector_len).unwrap_or(u32::MAX),
            partial: Vec::new(),
            state: At::Record(0),
            data: 0,
            is_torn: false,
        }
    }

    fn look_at(&mut self, sector: &[u8], push: &mut dyn FnMut(u32, u64, FindingKind)) {
        let index = self.index;
        self.index += 1;
        if index >= self.sectors {
            return;
        }
        let offset = |sector: u32| u64::from(sector) * self.sector_len as u64;
        match self.state {
            At::Record(at) => {
                let left = u64::from(self.sectors - index) * self.sector_len as u64;
                let record = Record::read(sector, at, self.generation, left);
                self.state = match record {
                    Some(record) => self.begin(record, sector, index),
                    None => At::Shadow { from: index, at },
                };
            }
            At::Range { from, sectors, mut sum, record } => {
                sum.add(sector);
                self.state = if sectors > 1 {
                    At::Range { from, sectors: sectors - 1, sum, record }
                } else {
                    // The short checksum vouches for the pointers: the chain goes on either way.
                    if sum.sum != record.checksum {
                        push(from, offset(from), FindingKind::SegmentBad);
                    }
                    self.follow(record)
                };
            }
            At::Shadow { from, at } => {
                let left = u64::from(self.sectors - from) * self.sector_len as u64;
                let is_shadow = Record::read(sector, at, self.generation, left)
                    .is_some_and(|record| record.is_shadow(sector, self.generation));
                let kind =
                    if is_shadow { FindingKind::TornSegment } else { FindingKind::SegmentBad };
                push(from, offset(from), kind);
                self.is_torn = is_shadow;
                self.data += u32::from(is_shadow);
                self.state = At::Ended;
            }
            At::Ended => {}
        }
    }

    fn begin(&mut self, record: Record, sector: &[u8], index: u32) -> At {
        let sum = record.checksum_in(sector, self.generation);
        let sectors = record.end().div_ceil(self.sector_len as u64);
        if sectors > 1 {
            self.data = self.data.saturating_add(u32::try_from(sectors).unwrap_or(u32::MAX));
            At::Range { from: index, sectors: sectors - 1, sum, record }
        } else if sum.sum == record.checksum {
            self.data += 1;
            self.follow(record)
        } else {
            At::Shadow { from: index, at: record.at }
        }
    }

    fn follow(&self, record: Record) -> At {
        if record.next == 0 {
            return At::Ended;
        }
        let at = record.next_at() % self.sector_len as u64;
        usize::try_from(at).map_or(At::Ended, At::Record)
    }
}

impl Body for Chain {
    fn take(&mut self, bytes: &[u8], push: &mut dyn FnMut(u32, u64, FindingKind)) {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let lacking = (self.sector_len - self.partial.len()).min(rest.len());
            let (start, after) = rest.split_at(lacking);
            self.partial.extend_from_slice(start);
            rest = after;
            if self.partial.len() < self.sector_len {
                return;
            }
            let sector = std::mem::take(&mut self.partial);
            self.look_at(&sector, push);
        }
        let sectors = rest.chunks_exact(self.sector_len);
        self.partial.extend_from_slice(sectors.remainder());
        for sector in sectors {
            self.look_at(sector, push);
        }
    }

    fn end(self: Box<Self>, push: &mut dyn FnMut(u32, u64, FindingKind)) -> LogBody {
        // A chain that the file broke off is broken where it was last whole.
        let lost = match self.state {
            At::Ended => None,
            At::Record(_) => Some(self.index.min(self.sectors)),
            At::Range { from, .. } | At::Shadow { from, .. } => Some(from),
        };
        if let Some(from) = lost {
            push(from, u64::from(from) * self.sector_len as u64, FindingKind::SegmentBad);
        }
        LogBody::Checked {
            data_segments: self.data,
            accumulated: None,
            last_written: LogTime::default(),
            is_torn: self.is_torn,
        }
    }
}

/// Writes a record with its checksums into the sectors of its range; `next` is where the following
/// one begins, counted from the first of them, if there is one.
#[cfg(feature = "write")]
pub(crate) fn seal_range(
    range: &mut [u8],
    sector_len: usize,
    at: usize,
    end: usize,
    next: Option<usize>,
    generation: Generation,
    is_shadow: bool,
) {
    let number = |value: usize| u32::try_from(value).unwrap_or(0);
    let is_long = end > sector_len;
    let mut record = Record {
        at,
        backwards: number(at),
        forwards: number(end.saturating_sub(at + RECORD)),
        next: next.map_or(0, |next| number(next.saturating_sub(at + RECORD))),
        checksum: 0,
        short: 0,
        use_short: if is_long { SHORT_ON } else { SHORT_OFF },
    };
    let (first, rest) = range.split_at(sector_len.min(range.len()));
    let mut sum = record.checksum_in(first, generation);
    sum.add(rest.get(..end.saturating_sub(sector_len)).unwrap_or_default());
    record.checksum = if is_shadow { sum.sum ^ SHADOW } else { sum.sum };
    if is_long {
        record.short = record.short_checksum(first, generation);
    }
    let mut bytes = [0; RECORD];
    bytes[0] = RECORD_TYPE;
    for (field, value) in [
        (1, record.backwards),
        (5, record.forwards),
        (9, record.next),
        (13, record.checksum),
        (17, record.short),
    ] {
        bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes[21] = record.use_short;
    if let Some(into) = range.get_mut(at..at + RECORD) {
        into.copy_from_slice(&bytes);
    }
}
