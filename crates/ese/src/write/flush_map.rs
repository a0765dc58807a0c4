//! Flush maps of our own making.

use super::{Noise, put, put_u32, seal_header, seal_page, time};
use crate::{DatabaseHeader, Generation, Signature, flush_map::PAGE_LEN};

/// A flush map to write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlushMapSpec {
    seed: u64,
    pages: u32,
    uninitialised: u32,
    min_required: Generation,
    database_flush: Signature,
    map_flush: Signature,
}

impl FlushMapSpec {
    /// The map that fits a database: one data page, and it was closed in order.
    pub fn new(seed: u64, database: &DatabaseHeader) -> Self {
        Self {
            seed,
            pages: 1,
            uninitialised: 0,
            min_required: database.min_required,
            database_flush: database.header_flush,
            map_flush: database.flush_map_flush,
        }
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
        for (at, value) in [(4, 3), (36, 1), (64, self.min_required.number()), (667, 7)] {
            put_u32(&mut out, at, value);
        }
        for (at, millis) in [(40, 0), (48, 1000), (56, 60_000)] {
            put(&mut out, at, &time(millis).to_bytes());
        }
        put(&mut out, 88, self.database_flush.as_bytes());
        put(&mut out, 116, self.map_flush.as_bytes());
        seal_header(&mut out);
        let mut noise = Noise::new(self.seed ^ 0xF1A5);
        for number in 0..self.pages {
            let mut page = vec![0; PAGE_LEN];
            if number < self.pages.saturating_sub(self.uninitialised) {
                noise.fill(&mut page[64..]);
                put(&mut page, 8, &(0x1000 + u64::from(number)).to_le_bytes());
                put_u32(&mut page, 16, number);
                put_u32(&mut page, 36, 0x2000);
                seal_page(&mut page, number);
            }
            out.extend(page);
        }
        out
    }
}
