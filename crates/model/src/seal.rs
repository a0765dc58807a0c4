//! Seals: hashes of a file's bytes, block by block, made while they are stored and checked
//! whenever they are read again.
//!
//! ```text
//! file   |‹ block 0 ›|‹ block 1 ›|‹ block 2 ›|‹ … ›|‹ last, maybe short ›|
//! seal   | BLAKE3    | BLAKE3    | BLAKE3    |     | BLAKE3              |  + length in bytes
//! ```
//!
//! A bad byte is thus found with the offset of its block, as soon as the block has been read.
//!
//! BLAKE3 is a tree, so that pieces of a block can be hashed side by side: see [`SealPieces`].

mod blocks;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use blocks::Blocks;
pub use blocks::{SealPiece, SealPieces};

/// The smallest block.
const BLOCK: u64 = 1 << 20;
/// The most blocks that a seal of a file of known length has.
const MOST_BLOCKS: u64 = 8192;

/// The hashes of a file.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Seal {
    bytes: u64,
    block_bytes: u64,
    #[serde(serialize_with = "blocks_as_hex")]
    blocks: Vec<[u8; 32]>,
}

/// Bytes are not those that were sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes of a block differ.
    #[error("the block of {length} bytes at offset {offset:#x} is not what was sealed")]
    Block {
        /// Where the block begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// There are fewer bytes, and those that are there are right.
    #[error("it ends after {found} bytes of {sealed}")]
    Short {
        /// How many were sealed.
        sealed: u64,
        /// How many there are.
        found: u64,
    },
    /// There are more bytes, and the sealed ones are right.
    #[error("it goes on after the {sealed} bytes that were sealed")]
    Long {
        /// How many were sealed.
        sealed: u64,
    },
}

impl SealError {
    /// Where in the file the trouble begins, in bytes.
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Block { offset, .. } => *offset,
            Self::Short { found, .. } => *found,
            Self::Long { sealed } => *sealed,
        }
    }
}

impl Seal {
    /// The block size for a file of `bytes`: 1 MiB up to 8 GiB, then the power of two that keeps
    /// the seal at 8192 blocks at most.
    pub const fn block_bytes_for(bytes: u64) -> u64 {
        let mut block = BLOCK;
        while block < 1 << 62 && bytes.div_ceil(block) > MOST_BLOCKS {
            block *= 2;
        }
        block
    }

    /// Length of what was sealed.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Length of a block; the last may be shorter.
    pub const fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The hash of each block.
    pub fn blocks(&self) -> &[[u8; 32]] {
        &self.blocks
    }

    /// One hash over the whole seal, to compare or to store in a small place.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key("stillpoint seal digest 1");
        hash.update(&self.bytes.to_le_bytes());
        hash.update(&self.block_bytes.to_le_bytes());
        self.blocks.iter().for_each(|block| {
            hash.update(block);
        });
        *hash.finalize().as_bytes()
    }

    /// Begins to check a stream from its first byte.
    pub fn check(&self) -> SealCheck<'_> {
        let blocks = Blocks::new(self.block_bytes, Some(self.bytes));
        SealCheck { seal: self, blocks, next: 0, failed: None }
    }

    /// Checks bytes that are in memory.
    pub fn check_all(&self, bytes: &[u8]) -> Result<(), SealError> {
        let mut check = self.check();
        check.update(bytes)?;
        check.finish()
    }

    fn length_of(&self, block: u64) -> u64 {
        self.block_bytes.min(self.bytes - block * self.block_bytes)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digest = String::new();
        crate::hex::encode(&self.digest(), &mut digest);
        f.debug_struct("Seal")
            .field("bytes", &self.bytes)
            .field("blocks", &self.blocks.len())
            .field("digest", &digest)
            .finish_non_exhaustive()
    }
}

fn blocks_as_hex<S: Serializer>(blocks: &[[u8; 32]], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(blocks.iter().map(|block| {
        let mut text = String::with_capacity(64);
        crate::hex::encode(block, &mut text);
        text
    }))
}

impl<'de> Deserialize<'de> for Seal {
    /// # Errors
    /// A hash that is no hash, or a number of blocks that does not fit the length.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Seal")]
        struct Stored {
            bytes: u64,
            block_bytes: u64,
            blocks: Vec<String>,
        }
        let stored = Stored::deserialize(from)?;
        let wanted = (stored.block_bytes > 0).then(|| stored.bytes.div_ceil(stored.block_bytes));
        if wanted != u64::try_from(stored.blocks.len()).ok() {
            return Err(serde::de::Error::custom("the seal has not one hash for each block"));
        }
        let mut blocks = Vec::with_capacity(stored.blocks.len());
        for text in &stored.blocks {
            let mut block = [0; 32];
            crate::hex::decode(text, &mut block)
                .ok_or_else(|| serde::de::Error::custom("a hash is not 64 hexadecimal digits"))?;
            blocks.push(block);
        }
        Ok(Self { bytes: stored.bytes, block_bytes: stored.block_bytes, blocks })
    }
}

/// Makes a seal of a stream of bytes, or of pieces that were hashed side by side.
#[derive(Debug)]
pub struct SealWriter {
    blocks: Blocks,
    done: Vec<[u8; 32]>,
}

impl SealWriter {
    /// For a file that is expected to be `bytes` long. Only the block size is chosen by it; the
    /// seal tells the length that came.
    pub fn new(bytes: u64) -> Self {
        Self { blocks: Blocks::new(Seal::block_bytes_for(bytes), None), done: Vec::new() }
    }

    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (rest, block) = self.blocks.take(bytes);
            self.done.extend(block);
            bytes = rest;
        }
    }

    /// The pieces to hash, from the first byte on and without end.
    pub fn pieces(&self) -> SealPieces {
        self.blocks.pieces()
    }

    /// A piece that was hashed, whenever it comes: it waits for those before it. The first that is
    /// not full is the end of the file; what is after that does not count.
    pub fn join(&mut self, piece: SealPiece) {
        self.blocks.put(piece);
        while let Some(block) = self.blocks.join() {
            self.done.extend(block);
        }
    }

    /// How many bytes have come, in their order.
    pub const fn bytes(&self) -> u64 {
        self.blocks.total
    }

    /// The seal of all bytes so far.
    pub fn finish(mut self) -> Seal {
        if self.blocks.in_block() > 0 {
            let last = self.blocks.cut();
            self.done.push(last);
        }
        Seal { bytes: self.blocks.total, block_bytes: self.blocks.block_bytes, blocks: self.done }
    }
}

/// Checks a stream of bytes against a seal. Made by [`Seal::check`].
///
/// Once it has failed it goes on to say so.
#[derive(Debug)]
pub struct SealCheck<'a> {
    seal: &'a Seal,
    blocks: Blocks,
    next: u64,
    failed: Option<SealError>,
}

impl SealCheck<'_> {
    /// The next bytes. An error may come as soon as the block that holds the first bad byte is
    /// complete; bytes of a block that is not complete have not been checked yet.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), SealError> {
        self.again()?;
        while !bytes.is_empty() {
            // The end of the sealed bytes ends a piece and a block, even if more follows.
            if self.blocks.total == self.seal.bytes {
                return self.fail(SealError::Long { sealed: self.seal.bytes });
            }
            let (rest, block) = self.blocks.take(bytes);
            self.compare(block)?;
            bytes = rest;
        }
        Ok(())
    }

    /// The pieces to hash, from the first byte on and without end.
    pub fn pieces(&self) -> SealPieces {
        self.blocks.pieces()
    }

    /// A piece that was hashed, whenever it comes: it waits for those before it. The first that is
    /// not full is the end of the file; what is after that does not count.
    pub fn join(&mut self, piece: SealPiece) -> Result<(), SealError> {
        self.again()?;
        self.blocks.put(piece);
        loop {
            if self.blocks.total == self.seal.bytes && self.blocks.goes_on() {
                return self.fail(SealError::Long { sealed: self.seal.bytes });
            }
            let Some(block) = self.blocks.join() else { return Ok(()) };
            self.compare(block)?;
        }
    }

    /// How many bytes have come, in their order.
    pub const fn bytes(&self) -> u64 {
        self.blocks.total
    }

    /// There are no more bytes.
    pub fn finish(mut self) -> Result<(), SealError> {
        self.again()?;
        let (sealed, found) = (self.seal.bytes, self.blocks.total);
        if found < sealed { self.fail(SealError::Short { sealed, found }) } else { Ok(()) }
    }

    fn again(&self) -> Result<(), SealError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: SealError) -> Result<(), SealError> {
        self.failed = Some(error.clone());
        Err(error)
    }

    /// The hash of a block that is full, or of the last.
    fn compare(&mut self, full: Option<[u8; 32]>) -> Result<(), SealError> {
        let last = self.blocks.total == self.seal.bytes && self.blocks.in_block() > 0;
        let Some(found) = full.or_else(|| last.then(|| self.blocks.cut())) else { return Ok(()) };
        let block = self.next;
        self.next += 1;
        let sealed = usize::try_from(block).ok().and_then(|at| self.seal.blocks.get(at));
        if sealed == Some(&found) {
            return Ok(());
        }
        let (offset, length) = (block * self.seal.block_bytes, self.seal.length_of(block));
        self.fail(SealError::Block { offset, length })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seed::{seeded, seeded_cases};

    fn seal(bytes: &[u8], block_bytes: u64) -> Seal {
        let mut writer = SealWriter { blocks: Blocks::new(block_bytes, None), done: Vec::new() };
        writer.update(bytes);
        writer.finish()
    }

    #[test]
    fn blocks_grow_with_the_file() {
        const GIB: u64 = 1 << 30;
        assert_eq!(Seal::block_bytes_for(0), 1 << 20);
        assert_eq!(Seal::block_bytes_for(8 * GIB), 1 << 20);
        assert_eq!(Seal::block_bytes_for(8 * GIB + 1), 2 << 20);
        assert_eq!(Seal::block_bytes_for(2048 * GIB), 256 << 20);
        assert_eq!(Seal::block_bytes_for(u64::MAX), 1 << 51);
    }

    #[test]
    fn an_empty_file_has_a_seal_too() {
        let seal = seal(b"", 4);
        assert_eq!(seal.blocks().len(), 0);
        assert_eq!(seal.check_all(b""), Ok(()));
        assert_eq!(seal.check_all(b"x"), Err(SealError::Long { sealed: 0 }));
    }

    #[test]
    fn a_seal_that_contradicts_itself_is_refused() {
        let good = serde_json::to_value(seal(b"0123456789", 4)).unwrap();
        assert_eq!(good["blocks"].as_array().unwrap().len(), 3);
        for (field, value) in
            [("bytes", serde_json::json!(13)), ("block_bytes", serde_json::json!(0))]
        {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(serde_json::from_value::<Seal>(bad).is_err(), "{field}");
        }
        let mut bad = good;
        bad["blocks"][1] = serde_json::json!("zz");
        assert!(serde_json::from_value::<Seal>(bad).is_err());
    }

    /// What a check must say, worked out the slow way.
    fn expected(sealed: &[u8], found: &[u8], block: usize) -> Result<(), SealError> {
        for (index, want) in sealed.chunks(block).enumerate() {
            let at = index * block;
            let Some(have) = found.get(at..at + want.len()) else {
                return Err(SealError::Short {
                    sealed: sealed.len() as u64,
                    found: found.len() as u64,
                });
            };
            if want != have {
                return Err(SealError::Block { offset: at as u64, length: want.len() as u64 });
            }
        }
        if found.len() > sealed.len() {
            return Err(SealError::Long { sealed: sealed.len() as u64 });
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(seeded("a_check_says_what_differs"))]

        #[test]
        fn a_check_says_what_differs_whatever_the_pieces(
            sealed in prop::collection::vec(0u8..3, 0..40),
            change in prop::option::of((0usize..40, 1u8..3)),
            cut in prop::option::of(0usize..44),
            pieces in prop::collection::vec(1usize..9, 1..50),
            block in 1usize..9,
        ) {
            let mut found = sealed.clone();
            if let Some((at, by)) = change && let Some(byte) = found.get_mut(at) {
                *byte += by;
            }
            if let Some(length) = cut {
                found.resize(length, 7);
            }
            let seal = seal(&sealed, block as u64);
            prop_assert_eq!(seal.bytes(), sealed.len() as u64);

            let mut check = seal.check();
            let mut rest = found.as_slice();
            let mut said = Ok(());
            for piece in pieces.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                said = check.update(now);
                rest = later;
                if said.is_err() { break; }
            }
            let said = said.and_then(|()| check.finish());
            prop_assert_eq!(said, expected(&sealed, &found, block));

            let json = serde_json::to_string(&seal).unwrap();
            prop_assert_eq!(serde_json::from_str::<Seal>(&json).unwrap(), seal);
        }
    }
    proptest! {
        #![proptest_config(seeded_cases("pieces_make_the_same_seal", 12))]

        /// Pieces of a block are subtrees of its hash, in whatever order they come.
        #[test]
        fn pieces_make_the_same_seal_and_the_same_check(
            mut length in 0usize..(6 << 20),
            to_piece in prop::bool::weighted(0.3),
            mebibytes in 1u64..6,
            odd in prop::option::of(1u64..2048),
            order in 0usize..7,
            change in prop::option::of(0usize..(6 << 20)),
            sealed in 0usize..(6 << 20),
        ) {
            if to_piece {
                length &= !((1 << 20) - 1);
            }
            let block = (mebibytes << 20) + odd.unwrap_or_default();
            let pattern: Vec<u8> = (0..=250).collect();
            let some = |length: usize| {
                let mut all = pattern.repeat(length / 251 + 1);
                all.truncate(length);
                all
            };
            let bytes = some(length);
            let hashed = |pieces: SealPieces, bytes: &[u8]| {
                let mut all: Vec<_> = pieces
                    .map(|mut piece| {
                        let at = usize::try_from(piece.at()).unwrap().min(bytes.len());
                        piece.update(&bytes[at..]);
                        piece
                    })
                    .take_while(|piece| piece.bytes() > 0)
                    .collect();
                let turn = order.min(all.len());
                all.rotate_left(turn);
                all
            };
            let mut writer = SealWriter { blocks: Blocks::new(block, None), done: Vec::new() };
            for piece in hashed(writer.pieces(), &bytes) {
                writer.join(piece);
            }
            let seal = writer.finish();
            let blocks = bytes.chunks(usize::try_from(block).unwrap());
            let wanted: Vec<_> = blocks.map(|block| *blake3::hash(block).as_bytes()).collect();
            prop_assert_eq!(seal.bytes(), length as u64);
            prop_assert!(seal.blocks() == wanted);

            // What is found is longer, shorter, different, or as it was sealed.
            let mut found = some(sealed);
            if change.is_none() {
                found.clone_from(&bytes);
            } else if let Some(byte) = change.and_then(|at| found.get_mut(at)) {
                *byte ^= 1;
            }
            let mut check = seal.check();
            let mut said = Ok(());
            for piece in hashed(check.pieces(), &found) {
                said = check.join(piece);
                if said.is_err() { break; }
            }
            let said = said.and_then(|()| check.finish());
            prop_assert_eq!(said, expected(&bytes, &found, usize::try_from(block).unwrap()));
        }
    }

    #[test]
    fn what_comes_after_a_piece_that_is_not_full_does_not_count() {
        let bytes = vec![5; 3 << 20];
        let mut writer = SealWriter::new(bytes.len() as u64);
        let mut pieces = writer.pieces();
        for take in [1 << 20, 77, 1 << 20] {
            let mut piece = pieces.next().unwrap();
            assert!(piece.update(&bytes[..take]).is_empty());
            writer.join(piece);
        }
        assert_eq!(writer.bytes(), (1 << 20) + 77);
        let seal = writer.finish();
        assert_eq!(seal.check_all(&bytes[..(1 << 20) + 77]), Ok(()));
    }
}
