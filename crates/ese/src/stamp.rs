//! A few header fields that change whenever a file's owner works on it.

use serde::{Deserialize, Serialize};

use crate::{
    EseError, FileKind, Generation, Lgpos, PageSize, ReadAt,
    read::{fill, head, size_of},
    read_checkpoint, read_database_header, read_log_header,
};

/// What to compare before and after, to know whether somebody worked on a file in between.
///
/// A cheap witness, taken in a few reads beside the file's length and time. It cannot see a change
/// that leaves the header alone.
///
/// ```
/// use stillpoint_ese::read_stamp;
/// let file = vec![7u8; 100];
/// assert_eq!(read_stamp(&file)?, read_stamp(&file)?);
/// # Ok::<(), stillpoint_ese::EseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeaderStamp {
    /// A database.
    Database {
        /// Checksum over all fields of the header in use.
        checksum: u32,
        /// Highest change stamp.
        dbtime: u64,
        /// The number of the state.
        state: u32,
        /// Last clean point.
        consistent: Lgpos,
        /// Where it was attached.
        attach: Lgpos,
        /// Where it was detached.
        detach: Lgpos,
        /// First generation needed.
        min_required: Generation,
        /// Last generation needed.
        max_required: Generation,
        /// Last generation with committed work.
        max_committed: Generation,
    },
    /// A log.
    Log {
        /// Checksum over the header.
        checksum: u32,
        /// Its generation.
        generation: Generation,
    },
    /// A checkpoint.
    Checkpoint {
        /// Checksum over the copy in use.
        checksum: u32,
        /// Where live recovery begins.
        checkpoint: Lgpos,
    },
    /// Any other file, or one whose header is damaged.
    Other {
        /// A sum over its first 64 KiB.
        start: u64,
    },
}

/// Reads the stamp of a file of any kind, from at most its first 64 KiB.
///
/// # Errors
/// [`EseError::Read`] when reading fails.
pub fn read_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<HeaderStamp, EseError> {
    let stamp = match FileKind::sniff(file)?.kind {
        FileKind::Database | FileKind::TemporaryDatabase => database_stamp(file),
        FileKind::Log => log_stamp(file),
        FileKind::Checkpoint => checkpoint_stamp(file),
        _ => other_stamp(file),
    };
    match stamp {
        Err(EseError::HeaderUnusable { .. }) => other_stamp(file),
        stamp => stamp,
    }
}

fn database_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<HeaderStamp, EseError> {
    let header = read_database_header(file)?.header;
    Ok(HeaderStamp::Database {
        checksum: header.checksum,
        dbtime: header.dbtime,
        state: header.state.number(),
        consistent: header.consistent,
        attach: header.attach,
        detach: header.detach,
        min_required: header.min_required,
        max_required: header.max_required,
        max_committed: header.max_committed,
    })
}

fn log_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<HeaderStamp, EseError> {
    let header = read_log_header(file)?;
    Ok(HeaderStamp::Log { checksum: header.checksum, generation: header.generation })
}

fn checkpoint_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<HeaderStamp, EseError> {
    let header = read_checkpoint(file)?;
    Ok(HeaderStamp::Checkpoint { checksum: header.checksum, checkpoint: header.checkpoint })
}

fn other_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<HeaderStamp, EseError> {
    Ok(HeaderStamp::Other { start: fold(&head(file, 2 * PageSize::KIB_32.len())?, 0) })
}

/// A sum over the checksum fields of a log's segments. The header of the log being written stays
/// as it is while data is appended; this does not.
///
/// # Errors
/// [`EseError::Read`] when reading fails.
///
/// # Complexity
/// Eight bytes for each 4096, of at most 256 MiB.
pub fn read_segment_stamp<R: ReadAt + ?Sized>(file: &R) -> Result<u64, EseError> {
    let segments = (size_of(file)? / 4096).min(u64::from(u16::MAX));
    let mut sum = 0;
    for index in 1..segments {
        let mut checksum = [0; 8];
        fill(file, index * 4096, &mut checksum)?;
        sum = fold(&checksum, sum);
    }
    Ok(sum)
}

/// FNV-1a, carried on from an earlier sum.
fn fold(bytes: &[u8], from: u64) -> u64 {
    bytes.iter().fold(from ^ 0xCBF2_9CE4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
