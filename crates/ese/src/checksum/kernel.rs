//! The inner loop of page checksums, in whatever vectors the processor has.
//!
//! A Hamming code over a block wants, for each bit `k` of a bit's number, the parity of all bits
//! whose number has `k` set. Seen as rows of vectors, that is XOR alone:
//!
//! ```text
//! bits 0–4     within a dword      from the XOR of all dwords, by masks
//! then lanes   within a vector     from the XOR of all vectors, by halving it
//! then 3 bits  within a group      three accumulators, one XOR each for a group
//! the rest     of the group        the groups' XORs, halved until one is left
//! ```
//!
//! Eight vectors make a group, which costs 14 XORs for 8 loads. The same code runs on 64-bit words
//! and on the widest vectors that the processor of the moment has: safe code throughout, for the
//! vectors and the choice among them come from `fearless_simd`.

#![allow(
    clippy::inline_always,
    reason = "what is inlined is compiled for the instruction set at hand, the rest for the least of all processors"
)]

use fearless_simd::{Bytes, Level, Simd, dispatch, prelude::*};

/// Vectors in a group.
const GROUP: usize = 8;
/// Groups of the largest block in the narrowest vectors: 8192 bytes of 64-bit words.
const MAX_GROUPS: usize = 128;
/// Dwords in the widest vector.
const MAX_LANES: usize = 16;

/// What the loop does with a vector.
trait Vector: Copy {
    /// Dwords in it, a power of two.
    const LANES: usize;
    /// What is needed to make one.
    type Token: Copy;

    fn zero(token: Self::Token) -> Self;
    /// Loads the first `LANES` dwords; `bytes` has just as many.
    fn load(token: Self::Token, bytes: &[u8]) -> Self;
    fn xor(self, other: Self) -> Self;
    fn store(self, into: &mut [u32; MAX_LANES]);
}

impl Vector for u64 {
    const LANES: usize = 2;
    type Token = ();

    #[inline(always)]
    fn zero((): ()) -> Self {
        0
    }

    #[inline(always)]
    fn load((): (), bytes: &[u8]) -> Self {
        bytes.first_chunk().copied().map_or(0, Self::from_le_bytes)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    fn store(self, into: &mut [u32; MAX_LANES]) {
        for (lane, dword) in into.iter_mut().zip(self.to_le_bytes().as_chunks().0) {
            *lane = u32::from_le_bytes(*dword);
        }
    }
}

/// The widest vector of an instruction set.
#[derive(Clone, Copy)]
struct Native<S: Simd>(S::u32s);

impl<S: Simd> Vector for Native<S> {
    const LANES: usize = S::u32s::LEN;
    type Token = S;

    #[inline(always)]
    fn zero(token: S) -> Self {
        Self(S::u32s::splat(token, 0))
    }

    #[inline(always)]
    fn load(token: S, bytes: &[u8]) -> Self {
        Self(S::u32s::from_bytes(S::u8s::from_slice(token, bytes)))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    #[inline(always)]
    fn store(self, into: &mut [u32; MAX_LANES]) {
        self.0.store_slice(&mut into[..Self::LANES]);
    }
}

/// Index parities and XOR of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folded {
    /// XOR of the numbers of all set bits.
    pub(super) low: u32,
    /// XOR of all dwords.
    pub(super) sum: u32,
}

/// Folds a block of 2048, 4096 or 8192 bytes, with the best vectors there are. The first `skip`
/// dwords, at most two, count as zero.
pub(super) fn fold(block: &[u8], skip: usize) -> Folded {
    let level = Level::new();
    // On a processor without vectors, 64-bit words beat vectors made of single dwords.
    if level.is_fallback() { fold_portable(block, skip) } else { fold_at(level, block, skip) }
}

/// The same in 64-bit words, which every processor has.
pub(super) fn fold_portable(block: &[u8], skip: usize) -> Folded {
    fold_by::<u64>((), block, skip)
}

/// The same with the vectors of one instruction set.
pub(super) fn fold_at(level: Level, block: &[u8], skip: usize) -> Folded {
    dispatch!(level, token => fold_native(token, block, skip))
}

#[inline(always)]
fn fold_native<S: Simd>(token: S, block: &[u8], skip: usize) -> Folded {
    fold_by::<Native<S>>(token, block, skip)
}

#[inline(always)]
fn fold_by<V: Vector>(token: V::Token, block: &[u8], skip: usize) -> Folded {
    let vector_bytes = 4 * V::LANES;
    let mut totals = [V::zero(token); MAX_GROUPS];
    let (mut odd, mut second, mut upper) = (V::zero(token), V::zero(token), V::zero(token));
    let mut groups = 0;
    for (total, group) in totals.iter_mut().zip(block.chunks_exact(vector_bytes * GROUP)) {
        let vector =
            |index: usize| V::load(token, &group[index * vector_bytes..(index + 1) * vector_bytes]);
        let (v1, v3, v5, v7) = (vector(1), vector(3), vector(5), vector(7));
        let (pair0, pair1) = (vector(0).xor(v1), vector(2).xor(v3));
        let (pair2, pair3) = (vector(4).xor(v5), vector(6).xor(v7));
        let half = pair2.xor(pair3);
        odd = odd.xor(v1.xor(v3).xor(v5.xor(v7)));
        second = second.xor(pair1.xor(pair3));
        upper = upper.xor(half);
        *total = pair0.xor(pair1).xor(half);
        groups += 1;
    }

    let lane_bits = V::LANES.trailing_zeros();
    let group_bit = 5 + lane_bits;
    let mut low = parity(odd) << group_bit
        | parity(second) << (group_bit + 1)
        | parity(upper) << (group_bit + 2);
    let mut len: usize = groups;
    while len > 1 {
        len /= 2;
        let mut all = V::zero(token);
        let (lower, rest) = totals.split_at_mut(len);
        for (into, from) in lower.iter_mut().zip(&rest[..len]) {
            all = all.xor(*from);
            *into = into.xor(*from);
        }
        low |= parity(all) << (group_bit + 3 + len.trailing_zeros());
    }

    let mut lanes = [0; MAX_LANES];
    totals[0].store(&mut lanes);
    // They lie in the first vector of the first group, whose number has no bit set, so that
    // nothing but the XOR of all vectors holds them.
    for (lane, dword) in lanes.iter_mut().zip(block.as_chunks().0).take(skip.min(2)) {
        *lane ^= u32::from_le_bytes(*dword);
    }
    let mut len = V::LANES;
    while len > 1 {
        len /= 2;
        let mut all = 0;
        for index in 0..len {
            all ^= lanes[len + index];
            lanes[index] ^= lanes[len + index];
        }
        low |= (all.count_ones() & 1) << (5 + len.trailing_zeros());
    }
    let sum = lanes[0];
    for (bit, mask) in
        [0xAAAA_AAAA, 0xCCCC_CCCC, 0xF0F0_F0F0, 0xFF00_FF00, 0xFFFF_0000].into_iter().enumerate()
    {
        low |= ((sum & mask).count_ones() & 1) << bit;
    }
    Folded { low, sum }
}

/// 1 if an odd number of bits is set.
#[inline(always)]
fn parity<V: Vector>(vector: V) -> u32 {
    let mut lanes = [0; MAX_LANES];
    vector.store(&mut lanes);
    lanes[..V::LANES].iter().fold(0u32, |all, lane| all ^ lane).count_ones() & 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Noise;

    /// Every instruction set that this processor has, the best first.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        let mut levels = vec![best];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            levels.extend(best.as_avx512().map(Level::Avx512));
            levels.extend(best.as_avx2().map(Level::Avx2));
            levels.extend(best.as_sse4_2().map(Level::Sse4_2));
            levels.extend(best.as_sse2().map(Level::Sse2));
        }
        levels
    }

    #[test]
    fn every_instruction_set_gives_what_words_give() {
        let mut noise = Noise::new(1);
        for round in 0..200 {
            for len in [2048, 4096, 8192] {
                let mut block = vec![0; len];
                noise.fill(&mut block);
                // Sparse blocks too, where a misplaced parity would not be hidden.
                if round % 2 == 1 {
                    block.fill(0);
                    let bit = usize::try_from(noise.below(len as u64 * 8)).unwrap();
                    block[bit / 8] = 1 << (bit % 8);
                }
                for skip in [0, 2] {
                    let expected = fold_portable(&block, skip);
                    for level in levels() {
                        assert_eq!(fold_at(level, &block, skip), expected, "{level:?} {len}");
                    }
                    assert_eq!(fold(&block, skip), expected);
                }
            }
        }
    }

    #[test]
    fn a_single_bit_gives_its_number() {
        for len in [2048usize, 4096, 8192] {
            for bit in 0..len * 8 {
                let mut block = vec![0; len];
                block[bit / 8] = 1 << (bit % 8);
                let expected = Folded { low: u32::try_from(bit).unwrap(), sum: 1 << (bit % 32) };
                assert_eq!(fold_portable(&block, 0), expected, "{len} {bit}");
                assert_eq!(fold(&block, 0), expected, "{len} {bit}");
                let skipped = Folded { low: 0, sum: 0 };
                assert_eq!(fold(&block, 2), if bit < 64 { skipped } else { expected });
            }
        }
    }
}
