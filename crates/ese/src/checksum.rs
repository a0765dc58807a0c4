//! Checksums of headers, pages and log segments, and what a mismatch says.
//!
//! ```text
//! header        32-bit XOR with a seed over the whole header page
//! page, old     the same over the page, with the page number beside it
//! page, ECC     XOR and a Hamming code for each block, the page number mixed in
//!               2, 4, 8 KiB pages: one block; 16 KiB: four of 4 KiB; 32 KiB: four of 8 KiB
//!
//! large page    0     8          40    48    56    64       80
//!               sum 0 │ header … │sum 1│sum 2│sum 3│number│  data …
//! ```
//!
//! A Hamming code names the one bit that changed, so a mismatch can often be told apart: one bit,
//! another page's content, or plain damage.

use serde::Serialize;

mod kernel;

use self::kernel::Folded;
use crate::{
    PageSize,
    bytes::{is_zero, u32_at, u64_at},
};

/// Start value of header checksums, and the magic number of a database header.
pub(crate) const SEED: u32 = 0x89AB_CDEF;
/// Page flag: the checksum has the ECC format.
const FLAG_ECC: u32 = 0x2000;
/// The bit of the page that holds [`FLAG_ECC`]; no correction may turn it.
const FLAG_ECC_BIT: u32 = 301;

/// The checksum of a header over all of `page`: XOR of its dwords from offset 4, with a seed.
///
/// ```
/// assert_eq!(stillpoint_ese::header_checksum(&[0; 4096]), 0x89AB_CDEF);
/// ```
pub fn header_checksum(page: &[u8]) -> u32 {
    dwords(page.get(4..).unwrap_or_default()).fold(SEED, |sum, word| sum ^ word)
}

/// Whether the header checksum stored at offset 0 is right.
pub fn is_header_good(page: &[u8]) -> bool {
    page.len() >= 8 && u32_at(page, 0) == header_checksum(page)
}

fn dwords(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

/// The ECC checksum of one block of 2048, 4096 or 8192 bytes; `None` for another length.
///
/// `first` marks the block that begins a page or log segment: its first eight bytes hold the
/// checksum itself and count as zero. `number` is the page number, or the segment's index in a log.
///
/// # Complexity
/// Less than two XORs for each vector of the widest kind that the processor has.
pub fn block_checksum(block: &[u8], number: u32, first: bool) -> Option<u64> {
    if !matches!(block.len(), 2048 | 4096 | 8192) {
        return None;
    }
    Some(seal(kernel::fold(block, if first { 2 } else { 0 }), block.len(), number))
}

/// [`block_checksum`] in 64-bit words, whatever the processor offers: what a processor without
/// vectors does, to be compared and measured on one that has them.
pub fn block_checksum_portable(block: &[u8], number: u32, first: bool) -> Option<u64> {
    if !matches!(block.len(), 2048 | 4096 | 8192) {
        return None;
    }
    Some(seal(kernel::fold_portable(block, if first { 2 } else { 0 }), block.len(), number))
}

/// The checksum of a folded block.
fn seal(folded: Folded, len: usize, number: u32) -> u64 {
    let mask = u32::try_from(len * 8 - 1).unwrap_or(0);
    // The upper half codes the complemented numbers, which differ only for an odd count of bits.
    let high = if odd(folded.sum) { folded.low ^ mask } else { folded.low };
    (u64::from((high << 16) | folded.low) << 32) | u64::from(folded.sum ^ number)
}

fn odd(word: u32) -> bool {
    word.count_ones() % 2 == 1
}

/// What is wrong with a page, as far as its checksum tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PageFault {
    /// The checksum does not match and nothing better can be said.
    Checksum,
    /// Single bits changed and can be turned back: their numbers within the page, at most one for
    /// each checksum block. The page with these bits turned has been checked and is good.
    Correctable {
        /// Bit numbers within the page: bit `n % 8` of byte `n / 8`.
        bits: Vec<u32>,
    },
    /// The content is sound but belongs to another page: a write went astray.
    WrongPage {
        /// The page it belongs to. On pages up to 8 KiB a changed bit in the checksum's own first
        /// four bytes looks the same.
        actual: u32,
    },
    /// The checksum matches but the page's own number (large pages only) is another.
    NumberField {
        /// The number found in the page.
        found: u32,
    },
}

/// What a page is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum PageState {
    /// All zero: never written. Normal in a file, an error only when the engine reads it.
    Uninitialised,
    /// Its checksum matches.
    Good,
    /// It is damaged.
    Bad(PageFault),
}

/// Checks one page of the size its slice has (2, 4, 8, 16 or 32 KiB); any other length is bad.
///
/// ```
/// use stillpoint_ese::{PageState, check_page};
/// assert_eq!(check_page(&[0; 4096], 7), PageState::Uninitialised);
/// ```
pub fn check_page(page: &[u8], number: u32) -> PageState {
    let Some(size) = u32::try_from(page.len()).ok().and_then(PageSize::new) else {
        return PageState::Bad(PageFault::Checksum);
    };
    if is_zero(page) {
        return PageState::Uninitialised;
    }
    match (uses_ecc(page), size.is_large()) {
        (true, _) => check_ecc(page, number, size),
        (false, false) => check_old(page, number),
        // A large page never has the old format.
        (false, true) => PageState::Bad(PageFault::Checksum),
    }
}

pub(crate) fn uses_ecc(page: &[u8]) -> bool {
    u32_at(page, 36) & FLAG_ECC != 0
}

fn check_old(page: &[u8], number: u32) -> PageState {
    let sum_is_right = u32_at(page, 0) == header_checksum(page);
    let found = u32_at(page, 4);
    match (sum_is_right, found == number) {
        (true, true) => PageState::Good,
        (true, false) => PageState::Bad(PageFault::WrongPage { actual: found }),
        (false, _) => PageState::Bad(PageFault::Checksum),
    }
}

/// The checksum blocks of a page: where each begins, how long it is, where its sum is stored.
pub(crate) fn blocks(size: PageSize) -> impl Iterator<Item = Block> + Clone {
    let (count, len) = if size.is_large() { (4, size.len() / 4) } else { (1, size.len()) };
    (0..count).map(move |index| Block {
        at: index * len,
        len,
        stored_at: if index == 0 { 0 } else { 32 + index * 8 },
    })
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) stored_at: usize,
}

impl Block {
    pub(crate) fn checksum(self, page: &[u8], number: u32) -> u64 {
        page.get(self.at..self.at + self.len)
            .and_then(|block| block_checksum(block, number, self.at == 0))
            .unwrap_or(0)
    }
}

fn is_ecc_good(page: &[u8], number: u32, size: PageSize) -> bool {
    blocks(size).all(|block| block.checksum(page, number) == u64_at(page, block.stored_at))
}

fn check_ecc(page: &[u8], number: u32, size: PageSize) -> PageState {
    // A good page, which nearly all are, costs no more than its checksums.
    if is_ecc_good(page, number, size) {
        let found = u32_at(page, 64);
        return if size.is_large() && found != number {
            PageState::Bad(PageFault::NumberField { found })
        } else {
            PageState::Good
        };
    }
    PageState::Bad(diagnose(page, number, size))
}

fn diagnose(page: &[u8], number: u32, size: PageSize) -> PageFault {
    let differences: Vec<u64> = blocks(size)
        .map(|block| block.checksum(page, number) ^ u64_at(page, block.stored_at))
        .collect();
    let first = differences.first().copied().unwrap_or(0);
    if first != 0
        && u32::try_from(first).is_ok()
        && differences.iter().all(|&difference| difference == first)
    {
        return PageFault::WrongPage { actual: number ^ u32_at(&first.to_le_bytes(), 0) };
    }
    correct(page, number, size).unwrap_or(PageFault::Checksum)
}

/// The single bits that make the page good again, if there are such.
fn correct(page: &[u8], number: u32, size: PageSize) -> Option<PageFault> {
    let mut fixed = page.to_vec();
    let mut turned = Vec::new();
    // Block 0 first: it covers the stored checksums of the others, and a bit that it corrects
    // there changes what they are compared with.
    for block in blocks(size) {
        let difference = block.checksum(&fixed, number) ^ u64_at(&fixed, block.stored_at);
        if difference == 0 {
            continue;
        }
        let within = single_bit(difference, block.len)?;
        let bit = within + u32::try_from(block.at * 8).ok()?;
        // The checksum's own bytes carry no index, and the format flag decides which check is run.
        if bit < 64 || bit == FLAG_ECC_BIT {
            return None;
        }
        *fixed.get_mut(usize::try_from(bit / 8).ok()?)? ^= 1 << (bit % 8);
        turned.push(bit);
    }
    let number_is_right = !size.is_large() || u32_at(&fixed, 64) == number;
    (!turned.is_empty() && number_is_right && is_ecc_good(&fixed, number, size))
        .then_some(PageFault::Correctable { bits: turned })
}

/// The one bit of a block that explains the difference of stored and computed checksum.
pub(crate) fn single_bit(difference: u64, block_len: usize) -> Option<u32> {
    let bytes = difference.to_le_bytes();
    let (sum, ecc) = (u32_at(&bytes, 0), u32_at(&bytes, 4));
    let bits = u32::try_from(block_len * 8).ok()?;
    let mask = bits - 1;
    let bit = ecc & 0xFFFF;
    let complements = ((ecc >> 16) ^ ecc) & mask == mask;
    (complements && sum.is_power_of_two() && bit < bits && bit % 32 == sum.trailing_zeros())
        .then_some(bit)
}

/// Whether a 4096-byte log segment carries the right checksum for segment `index`.
pub(crate) fn is_segment_good(segment: &[u8], index: u32) -> bool {
    block_checksum(segment, index, true) == Some(u64_at(segment, 0))
}

#[cfg(test)]
mod tests;
