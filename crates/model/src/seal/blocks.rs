//! The tree of a block's hash, from pieces in their order.

use std::collections::BTreeMap;

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// The most bytes that a piece has. A power of two, and so a subtree of its own in BLAKE3.
const PIECE: u64 = 1 << 20;

/// A stretch of a file, at most 1 MiB and within one block, that is hashed by itself.
#[derive(Clone, Debug)]
pub struct SealPiece {
    at: u64,
    room: u64,
    bytes: u64,
    hash: blake3::Hasher,
}

impl SealPiece {
    /// The piece that begins at this offset of a file, of which so many bytes are sealed.
    fn new(block_bytes: u64, at: u64, sealed: Option<u64>) -> Self {
        let in_block = at % block_bytes;
        let mut room = (PIECE - in_block % PIECE).min(block_bytes - in_block);
        if let Some(left) =
            sealed.and_then(|sealed| sealed.checked_sub(at)).filter(|left| *left > 0)
        {
            room = room.min(left);
        }
        let mut hash = blake3::Hasher::new();
        // Only what is beyond the sealed bytes may begin elsewhere, and its hash is not asked for.
        if in_block.is_multiple_of(PIECE) {
            hash.set_input_offset(in_block);
        }
        Self { at, room, bytes: 0, hash }
    }

    /// Where in the file it begins.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes it has.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many more it takes.
    pub const fn room(&self) -> u64 {
        self.room - self.bytes
    }

    /// Takes its next bytes, and gives those that are not its own any more.
    pub fn update<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let fits = usize::try_from(self.room()).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = bytes.split_at(fits);
        self.hash.update(now);
        self.bytes += now.len() as u64;
        rest
    }
}

/// The pieces of a file in their order, without end. Made by [`SealWriter::pieces`](super::SealWriter::pieces) and
/// [`SealCheck::pieces`](super::SealCheck::pieces), to which they go back when they have been hashed.
#[derive(Clone, Debug)]
pub struct SealPieces {
    block_bytes: u64,
    sealed: Option<u64>,
    next: u64,
}

impl Iterator for SealPieces {
    type Item = SealPiece;

    fn next(&mut self) -> Option<SealPiece> {
        let piece = SealPiece::new(self.block_bytes, self.next, self.sealed);
        self.next = self.next.checked_add(piece.room)?;
        Some(piece)
    }
}

/// Puts the hashes of blocks together.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) block_bytes: u64,
    pub(super) total: u64,
    sealed: Option<u64>,
    /// Subtrees of the block, each a power of two of pieces and smaller than the one before, but for those that are merged
    /// when the next comes.
    tree: Vec<ChainingValue>,
    /// How many pieces are in there.
    pieces: u64,
    /// The newest piece. It is not in the tree before another comes, as the last one makes the root.
    newest: SealPiece,
    /// Pieces that have come before their turn.
    waiting: BTreeMap<u64, SealPiece>,
}

impl Blocks {
    pub(super) fn new(block_bytes: u64, sealed: Option<u64>) -> Self {
        Self {
            block_bytes,
            total: 0,
            sealed,
            tree: Vec::new(),
            pieces: 0,
            newest: SealPiece::new(block_bytes, 0, sealed),
            waiting: BTreeMap::new(),
        }
    }

    pub(super) const fn pieces(&self) -> SealPieces {
        SealPieces { block_bytes: self.block_bytes, sealed: self.sealed, next: 0 }
    }

    pub(super) const fn in_block(&self) -> u64 {
        self.newest.at % self.block_bytes + self.newest.bytes
    }

    /// Takes bytes up to the end of the piece; gives the rest, and the hash if the block is full.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], Option<[u8; 32]>) {
        if self.newest.room() == 0 {
            self.begin(SealPiece::new(self.block_bytes, self.total, self.sealed));
        }
        let rest = self.newest.update(bytes);
        self.total += (bytes.len() - rest.len()) as u64;
        (rest, self.full())
    }

    /// Keeps a piece until its turn.
    pub(super) fn put(&mut self, piece: SealPiece) {
        if piece.bytes > 0 {
            self.waiting.insert(piece.at, piece);
        }
    }

    /// Whether it is the turn of a piece that has come.
    pub(super) fn goes_on(&self) -> bool {
        self.waiting.contains_key(&self.total)
    }

    /// Takes the piece whose turn it is, if it has come; gives the hash if the block is full.
    #[expect(clippy::option_option, reason = "no piece, a piece, or the last piece of a block")]
    pub(super) fn join(&mut self) -> Option<Option<[u8; 32]>> {
        let piece = self.waiting.remove(&self.total)?;
        self.total += piece.bytes;
        self.begin(piece);
        Some(self.full())
    }

    fn full(&mut self) -> Option<[u8; 32]> {
        (self.in_block() == self.block_bytes).then(|| self.cut())
    }

    /// Another piece is the newest.
    fn begin(&mut self, piece: SealPiece) {
        let before = std::mem::replace(&mut self.newest, piece);
        if before.bytes > 0 {
            self.merge();
            self.tree.push(before.hash.finalize_non_root());
            self.pieces += 1;
        }
    }

    /// Merges what the pieces in the tree make complete: there is a subtree for each bit of their number.
    fn merge(&mut self) {
        while self.tree.len() > self.pieces.count_ones() as usize {
            let (Some(right), Some(left)) = (self.tree.pop(), self.tree.pop()) else { return };
            self.tree.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// Ends the block, and gives its hash.
    pub(super) fn cut(&mut self) -> [u8; 32] {
        self.merge();
        self.pieces = 0;
        let next = SealPiece::new(self.block_bytes, self.total, self.sealed);
        let last = std::mem::replace(&mut self.newest, next);
        let Some(mut left) = self.tree.pop() else { return *last.hash.finalize().as_bytes() };
        let mut right = last.hash.finalize_non_root();
        while let Some(further) = self.tree.pop() {
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
            left = further;
        }
        *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
    }
}
