//! A seeded writer of valid files: databases, log streams, checkpoints, and whole sets.
//!
//! For tests and demonstrations. What it writes has right headers, checksums and chains. A database
//! of 24 written pages or more has an empty catalogue, so that readers of the format open it and
//! find no tables; all else in it is noise, and the engine itself could not work with it. The same
//! seed gives the same bytes. A gibibyte of database takes a core some 0.7 s, and what it takes the
//! system to keep it.
//!
//! ```
//! use stillpoint_ese::{PageSize, ScanOptions, scan_database, write::DatabaseSpec};
//!
//! let mut file = Vec::new();
//! DatabaseSpec::new(7).with_page_size(PageSize::KIB_8).with_pages(100).write_to(&mut file)?;
//! let report = scan_database(&file, &ScanOptions::default(), &mut ())?;
//! assert_eq!((report.pages, report.bad), (100, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod database;
mod flush_map;
mod log;
mod noise;
mod set;

pub use database::DatabaseSpec;
pub use flush_map::FlushMapSpec;
pub use log::{CheckpointSpec, LogStreamSpec, NamedLog};
pub use noise::Noise;
pub use set::{ExchangeSet, WrittenSet};

use crate::{
    LogTime, PageSize, Signature,
    bytes::u32_at,
    checksum::{blocks, header_checksum},
};

/// Stores the right header checksum at offset 0 of a header page.
pub fn seal_header(page: &mut [u8]) {
    let sum = header_checksum(page);
    put(page, 0, &sum.to_le_bytes());
}

/// Stores the right checksums, and on large pages the number, in a database page of 2 to 32 KiB.
/// The page's own flags say which format; large pages are given the ECC format.
pub fn seal_page(page: &mut [u8], number: u32) {
    let Some(size) = u32::try_from(page.len()).ok().and_then(PageSize::new) else { return };
    if !size.is_large() && u32_at(page, 36) & 0x2000 == 0 {
        put(page, 4, &number.to_le_bytes());
        seal_header(page);
        return;
    }
    if size.is_large() {
        put(page, 64, &number.to_le_bytes());
        put(page, 68, &[0; 12]);
        put_u32(page, 36, u32_at(page, 36) | 0x2000);
    }
    // Block 0 covers the stored checksums of the others, so it comes last.
    let all: Vec<_> = blocks(size).collect();
    for block in all.into_iter().rev() {
        let sum = block.checksum(page, number);
        put(page, block.stored_at, &sum.to_le_bytes());
    }
}

/// Writes a field; one that does not fit is left out.
fn put(page: &mut [u8], at: usize, field: &[u8]) {
    if let Some(into) = page.get_mut(at..at + field.len()) {
        into.copy_from_slice(field);
    }
}

fn put_u32(page: &mut [u8], at: usize, value: u32) {
    put(page, at, &value.to_le_bytes());
}

/// Start of all clocks in written files: 2024-06-05 10:00 UTC.
const EPOCH_MILLIS: i64 = 1_717_581_600_000;

fn time(millis: i64) -> LogTime {
    LogTime::from_unix_millis(EPOCH_MILLIS + millis).unwrap_or_default()
}

/// A signature that differs from seed to seed.
fn signature(seed: u64, kind: u64) -> Signature {
    let mut noise = Noise::new(seed ^ kind.rotate_left(32));
    Signature::new(noise.u32(), time(0))
}
