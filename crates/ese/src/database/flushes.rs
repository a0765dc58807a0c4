//! Writes that never reached the disk, as the flush map tells of them.
//!
//! The engine gives every page that it writes one of three types, another one each time, and notes
//! in the flush map which. A page of another type is an older one than was written: whole, with a
//! checksum that is right, and wrong.

use crate::{
    DatabaseHeader, DatabaseState, FlushMapFit, PageState, ReadAt,
    bytes::{u8_at, u32_at, u64_at},
    flush_map::{PAGE_LEN, PAGES_A_PAGE, check_map_page, read_flush_map},
    read::fill,
};

/// The flush map of a database, if what it says of pages holds now.
#[derive(Clone, Copy)]
pub(super) struct Flushes<'a> {
    map: &'a dyn ReadAt,
}

/// The page of the map that was read last.
#[derive(Default)]
pub(super) struct Leaf {
    index: Option<u64>,
    page: Vec<u8>,
    is_good: bool,
}

/// The write type that a page carries itself; 0 when it carries none.
pub(super) fn type_of(page: &[u8]) -> u8 {
    u8::try_from(u32_at(page, 36) >> 15 & 3).unwrap_or(0)
}

impl<'a> Flushes<'a> {
    /// `None` unless both files remember each other's last flush and both were closed in order: the
    /// map is written after the pages, so that of a database in use tells of an earlier time.
    pub(super) fn of(map: &'a dyn ReadAt, database: &DatabaseHeader) -> Option<Self> {
        let header = read_flush_map(map).ok()?;
        let holds = database.state == DatabaseState::CleanShutdown
            && header.is_clean
            && header.fit(database) == FlushMapFit::Usable;
        holds.then_some(Self { map })
    }

    /// The type that a page was last written with, and the highest change stamp that this knows of;
    /// `None` where the map says nothing.
    fn written(self, number: u32, leaf: &mut Leaf) -> Option<(u8, u64)> {
        let index = u64::from(number) / PAGES_A_PAGE;
        if leaf.index != Some(index) {
            leaf.index = Some(index);
            leaf.page.resize(PAGE_LEN, 0);
            let at = (index + 1) * PAGE_LEN as u64;
            // What cannot be read says nothing; the map has a check of its own.
            leaf.is_good = fill(self.map, at, &mut leaf.page).is_ok_and(|read| read == PAGE_LEN)
                && u32::try_from(index)
                    .is_ok_and(|index| check_map_page(&leaf.page, index) == PageState::Good);
        }
        if !leaf.is_good {
            return None;
        }
        let slot = usize::try_from(u64::from(number) % PAGES_A_PAGE).ok()?;
        let kind = u8_at(&leaf.page, 64 + slot / 4) >> (6 - 2 * (slot % 4)) & 3;
        (kind != 0).then(|| (kind, u64_at(&leaf.page, 8)))
    }

    /// The type that a page should have, if it has another.
    pub(super) fn expected(self, page: &[u8], number: u32, leaf: &mut Leaf) -> Option<u8> {
        let (expected, known) = self.written(number, leaf)?;
        let found = type_of(page);
        // A page that is newer than what the map knows of, or without a type, proves nothing.
        (found != 0 && found != expected && u64_at(page, 8) <= known).then_some(expected)
    }

    /// The type that a page of zeros should have.
    pub(super) fn expected_of_none(self, number: u32, leaf: &mut Leaf) -> Option<u8> {
        self.written(number, leaf).map(|(expected, _)| expected)
    }

    /// The pages of a hole that were written, with their types.
    pub(super) fn written_in(
        self,
        pages: std::ops::Range<u64>,
        leaf: &mut Leaf,
        mut found: impl FnMut(u32, u8),
    ) {
        let mut at = pages.start;
        while at < pages.end {
            let Ok(number) = u32::try_from(at) else { return };
            if let Some(expected) = self.expected_of_none(number, leaf) {
                found(number, expected);
            }
            at = if leaf.is_good { at + 1 } else { (at / PAGES_A_PAGE + 1) * PAGES_A_PAGE };
        }
    }
}
