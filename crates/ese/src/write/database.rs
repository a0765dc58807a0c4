//! Databases of our own making.

use std::io::{self, Write};

use super::{Noise, put, put_u32, seal_header, seal_page, signature, time};
use crate::{
    DatabaseState, Generation, GenerationRange, Lgpos, LogTime, PageSize, Signature,
    database::{MAGIC, VERSION},
};

/// A database to write. Clean, 32 KiB pages, 62 of them, the last quarter never written, unless
/// told otherwise.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseSpec {
    seed: u64,
    page_size: PageSize,
    pages: u32,
    uninitialised: u32,
    old_format: bool,
    has_flush_map: bool,
    dirty: Option<(GenerationRange, Generation)>,
    state: Option<DatabaseState>,
    has_trailer: bool,
    signature: Signature,
    log_signature: Signature,
    created: [LogTime; 2],
}

impl DatabaseSpec {
    /// A database of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            page_size: PageSize::KIB_32,
            pages: 62,
            uninitialised: 15,
            old_format: false,
            has_flush_map: false,
            dirty: None,
            state: None,
            has_trailer: false,
            signature: signature(seed, 1),
            log_signature: signature(seed, 2),
            created: [LogTime::default(); 2],
        }
    }

    /// Page size.
    pub fn with_page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Number of pages, headers not counted; a quarter of them is left unwritten.
    pub fn with_pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self.uninitialised = pages / 4;
        self
    }

    /// Number of pages at the end that were never written.
    pub fn with_uninitialised(mut self, uninitialised: u32) -> Self {
        self.uninitialised = uninitialised;
        self
    }

    /// Whether pages carry the old checksum format; large pages keep the ECC format.
    pub fn with_old_format(mut self, old_format: bool) -> Self {
        self.old_format = old_format;
        self
    }

    /// Whether the header carries the signatures that pair it with a flush map.
    pub fn with_flush_map(mut self, has_flush_map: bool) -> Self {
        self.has_flush_map = has_flush_map;
        self
    }

    /// Leaves the database dirty, needing logs.
    pub fn with_dirty(mut self, required: GenerationRange, committed: Generation) -> Self {
        self.dirty = Some((required, committed));
        self
    }

    /// Leaves the database clean.
    pub fn with_clean(mut self) -> Self {
        self.dirty = None;
        self
    }

    /// Leaves the database in any state, whatever the logs that it says it needs.
    pub fn with_state(mut self, state: DatabaseState) -> Self {
        self.state = Some(state);
        self
    }

    /// Makes it one that was restored from a streaming backup: the header knows of no logs, and a
    /// trailer page after the last one does.
    pub fn with_trailer(mut self, has_trailer: bool) -> Self {
        self.has_trailer = has_trailer;
        self
    }

    /// Signature of the database; of the seed unless given.
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Signature of its log stream; of the seed unless given.
    pub fn with_log_signature(mut self, signature: Signature) -> Self {
        self.log_signature = signature;
        self
    }

    /// Creation times of the last required and the last committed generation; unset unless given.
    pub fn with_log_times(mut self, required: LogTime, committed: LogTime) -> Self {
        self.created = [required, committed];
        self
    }

    /// Signature of the database.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        (u64::from(self.pages) + 2 + u64::from(self.has_trailer))
            * u64::from(self.page_size.bytes())
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_to<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        let header = self.header();
        out.write_all(&header)?;
        out.write_all(&header)?;
        let written = self.pages.saturating_sub(self.uninitialised);
        let mut page = vec![0; self.page_size.len()];
        for number in 1..=self.pages {
            if number <= written {
                self.fill_page(&mut page, number, written);
            } else if number == written.saturating_add(1) {
                page.fill(0);
            }
            out.write_all(&page)?;
        }
        if self.has_trailer {
            out.write_all(&self.trailer())?;
        }
        Ok(())
    }

    fn dbtime(&self) -> u64 {
        0x1000 + u64::from(self.pages) * 16
    }

    fn header(&self) -> Vec<u8> {
        let mut page = vec![0; self.page_size.len()];
        put_u32(&mut page, 4, MAGIC);
        put_u32(&mut page, 8, VERSION);
        put(&mut page, 16, &self.dbtime().to_le_bytes());
        put(&mut page, 24, self.signature.as_bytes());
        let natural = if self.dirty.is_some() {
            DatabaseState::DirtyShutdown
        } else {
            DatabaseState::CleanShutdown
        };
        put_u32(&mut page, 52, self.state.unwrap_or(natural).number());
        let attach = Lgpos::new(Generation::new(1), 3, 9);
        let consistent_at = self.dirty.map_or(3, |(required, _)| required.first().number());
        let consistent = Lgpos::new(Generation::new(consistent_at), 5, 0);
        put(&mut page, 56, &consistent.to_bytes());
        put(&mut page, 64, &time(60_000).to_bytes());
        put(&mut page, 72, &time(1_000).to_bytes());
        put(&mut page, 80, &attach.to_bytes());
        if self.dirty.is_none() {
            put(&mut page, 88, &time(60_000).to_bytes());
            put(&mut page, 96, &consistent.to_bytes());
        }
        put_u32(&mut page, 104, 1);
        put(&mut page, 108, self.log_signature.as_bytes());
        // Attached by Exchange's own copy of the engine.
        put(&mut page, 211, &[2]);
        put_u32(&mut page, 212, FIRST_OBJID + self.pages / 64);
        for (at, value) in [(216, 10), (220, 0), (224, 17763), (232, 20)] {
            put_u32(&mut page, at, value);
        }
        put_u32(&mut page, 236, self.page_size.bytes());
        if self.has_trailer {
            put(&mut page, 184, &self.backup());
        } else if let Some((required, committed)) = self.dirty {
            put_u32(&mut page, 296, required.first().number());
            put_u32(&mut page, 300, required.last().number());
            put_u32(&mut page, 416, committed.number());
            put_u32(&mut page, 640, required.first().number());
            put(&mut page, 672, &self.created[0].to_bytes());
            put(&mut page, 348, &self.created[1].to_bytes());
        }
        if self.has_flush_map {
            put(&mut page, 584, signature(self.seed, 3).as_bytes());
            put(&mut page, 612, signature(self.seed, 4).as_bytes());
        }
        put_u32(&mut page, 340, VERSION);
        put_u32(&mut page, 344, 20);
        put_u32(&mut page, 667, 1);
        seal_header(&mut page);
        page
    }

    /// A streaming backup that began and has not ended.
    fn backup(&self) -> Vec<u8> {
        let first = self.dirty.map_or(1, |(required, _)| required.first().number());
        let mark = Lgpos::new(Generation::new(first), 7, 0);
        let mut out = mark.to_bytes().to_vec();
        out.extend(time(90_000).to_bytes());
        out.extend(first.to_le_bytes());
        out.extend([0; 4]);
        out
    }

    fn trailer(&self) -> Vec<u8> {
        let mut page = vec![0; self.page_size.len()];
        put(&mut page, 40, &self.backup());
        put(&mut page, 64, self.signature.as_bytes());
        put(&mut page, 92, self.log_signature.as_bytes());
        if let Some((required, committed)) = self.dirty {
            let generations = [required.first(), required.last(), committed];
            for (at, generation) in [120, 124, 128].into_iter().zip(generations) {
                put_u32(&mut page, at, generation.number());
            }
        }
        put(&mut page, 132, &self.created[0].to_bytes());
        put(&mut page, 140, &self.created[1].to_bytes());
        seal_header(&mut page);
        page
    }

    fn fill_page(&self, page: &mut [u8], number: u32, written: u32) {
        let mut noise = Noise::new(self.seed.rotate_left(20) ^ u64::from(number));
        noise.fill(page);
        let system = SYSTEM_TREES.iter().find(|tree| tree.root == number);
        // Runs of 64 leaves make up one tree; the first page of a run is its root.
        let run = number / 64;
        let in_run = |other: u32| {
            let is_linked = other / 64 == run && SYSTEM_TREES.iter().all(|tree| tree.root != other);
            if is_linked { other } else { 0 }
        };
        let is_root = system.is_some() || number == 2 || number.is_multiple_of(64);
        let previous = if is_root { 0 } else { in_run(number - 1) };
        let next = if system.is_none() && number < written { in_run(number + 1) } else { 0 };
        let dbtime = 0x1000 + noise.below(u64::from(self.pages) * 16);
        put(page, 8, &dbtime.to_le_bytes());
        put_u32(page, 16, previous);
        put_u32(page, 20, next);
        put_u32(page, 24, system.map_or(FIRST_OBJID + run, |tree| tree.objid));
        let free = u16::try_from(noise.below(1500)).unwrap_or(0);
        put(page, 28, &free.to_le_bytes());
        put(page, 30, &[0; 2]);
        let lowest = u16::try_from(self.page_size.bytes() / 2).unwrap_or(0);
        put(page, 32, &lowest.to_le_bytes());
        put(page, 34, &20u16.to_le_bytes());
        let flush_type = 1 + u32::try_from(noise.below(3)).unwrap_or(0);
        let format = if self.old_format && !self.page_size.is_large() { 0 } else { 0x2000 };
        put_u32(page, 36, 0x0802 | u32::from(is_root) | format | (flush_type << 15));
        if let Some(tree) = system {
            tree.empty(page, self.page_size);
        }
        seal_page(page, number);
    }
}

/// A tree that the engine itself keeps in every database.
struct SystemTree {
    root: u32,
    objid: u32,
    parent: u32,
}

/// The tree of all trees, the catalogue, and the copy of the catalogue, with the pages that they
/// begin at. In a written database they are there and hold nothing, so that whoever opens it finds
/// a database without tables.
const SYSTEM_TREES: [SystemTree; 3] = [
    SystemTree { root: 1, objid: 1, parent: 0 },
    SystemTree { root: 4, objid: 2, parent: 1 },
    SystemTree { root: 24, objid: 3, parent: 1 },
];
/// The lowest object id of other trees.
const FIRST_OBJID: u32 = 4;

impl SystemTree {
    /// Makes a page the root of the tree, with no node in it. The noise is free space then.
    fn empty(&self, page: &mut [u8], size: PageSize) {
        let (header, space, tag) = (if size.is_large() { 80 } else { 40 }, 16, 4);
        let number = |value: usize| u16::try_from(value).unwrap_or(0).to_le_bytes();
        put(page, 28, &number(size.len() - header - space - tag));
        put(page, 32, &number(space));
        put(page, 34, &number(1));
        // The space that the tree owns: one page, none of it in a tree of space, none free.
        for (at, value) in [(0, 1), (4, self.parent), (8, 0), (12, 0)] {
            put_u32(page, header + at, value);
        }
        // Tags lie at the end of the page, the first one last: length, then offset of its data.
        put(page, size.len() - tag, &number(space));
        put(page, size.len() - 2, &number(0));
    }
}
