//! Flush maps of our own making.

use std::io;

use super::{put, put_u32, seal_header, seal_page, time};
use crate::{
    DatabaseHeader, Generation, ReadAt, Signature,
    bytes::{u32_at, u64_at},
    flush_map::{PAGE_LEN, PAGES_A_PAGE},
};

/// A flush map to write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlushMapSpec {
    pages: u32,
    uninitialised: u32,
    is_clean: bool,
    page_size: usize,
    min_required: Generation,
    database_flush: Signature,
    map_flush: Signature,
    /// Of every page of the database from number 0 on: write type and change stamp.
    writes: Vec<(u8, u64)>,
}

impl FlushMapSpec {
    /// The map that fits a database: one data page that knows of no writes, and it was closed in
    /// order.
    pub fn new(database: &DatabaseHeader) -> Self {
        Self {
            pages: 1,
            uninitialised: 0,
            is_clean: true,
            page_size: database.page_size.len(),
            min_required: database.min_required,
            database_flush: database.header_flush,
            map_flush: database.flush_map_flush,
            writes: Vec::new(),
        }
    }

    /// Whether it was closed in order.
    pub fn with_clean(mut self, is_clean: bool) -> Self {
        self.is_clean = is_clean;
        self
    }

    /// Makes it remember the pages of the database as they are, and as many data pages as that takes.
    ///
    /// # Errors
    /// What the database's reader says.
    pub fn with_writes_of<R: ReadAt + ?Sized>(mut self, database: &R) -> io::Result<Self> {
        self.writes = vec![(0, 0)];
        let mut page = vec![0; self.page_size];
        let mut at = 2 * self.page_size as u64;
        let size = database.size()?;
        while at + self.page_size as u64 <= size {
            let read = database.read_at(at, &mut page)?;
            if read < page.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let kind = u8::try_from(u32_at(&page, 36) >> 15 & 3).unwrap_or(0);
            self.writes.push((kind, u64_at(&page, 8)));
            at += self.page_size as u64;
        }
        let pages = (self.writes.len() as u64).div_ceil(PAGES_A_PAGE);
        self.pages = self.pages.max(u32::try_from(pages).unwrap_or(u32::MAX));
        Ok(self)
    }

    /// Number of data pages, and how many of them at the end were never written.
    pub fn with_pages(mut self, pages: u32, uninitialised: u32) -> Self {
        self.pages = pages;
        self.uninitialised = uninitialised;
        self
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; PAGE_LEN];
        for (at, value) in
            [(4, 3), (36, u32::from(self.is_clean)), (64, self.min_required.number()), (667, 7)]
        {
            put_u32(&mut out, at, value);
        }
        for (at, millis) in [(40, 0), (48, 1000), (56, 60_000)] {
            put(&mut out, at, &time(millis).to_bytes());
        }
        put(&mut out, 88, self.database_flush.as_bytes());
        put(&mut out, 116, self.map_flush.as_bytes());
        seal_header(&mut out);
        let mut leaves = self.writes.chunks(usize::try_from(PAGES_A_PAGE).unwrap_or(usize::MAX));
        for number in 0..self.pages {
            let writes = leaves.next().unwrap_or_default();
            let mut page = vec![0; PAGE_LEN];
            if number < self.pages.saturating_sub(self.uninitialised) {
                for (slot, (kind, _)) in writes.iter().enumerate() {
                    page[64 + slot / 4] |= kind << (6 - 2 * (slot % 4));
                }
                let newest = writes.iter().map(|&(_, dbtime)| dbtime).max().unwrap_or(0);
                put(&mut page, 8, &newest.to_le_bytes());
                put_u32(&mut page, 16, number);
                put_u32(&mut page, 36, 0x2000);
                seal_page(&mut page, number);
            }
            out.extend(page);
        }
        out
    }
}
