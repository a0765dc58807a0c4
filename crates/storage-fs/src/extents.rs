//! Of how many pieces a file is on disk: what a clone of it costs goes with their number, not with its size.

use std::fs::File;
use std::io;
use std::time::Duration;

use fiemap::{Fiemap, FiemapFlags};
use rustix::io::Errno;

use crate::disk::is;

/// What one extent adds to a clone at worst. XFS was seen to need 11 to 26 µs for one, on a machine of two cores.
const EACH: Duration = Duration::from_micros(30);

/// The extents of a file, after what waits in memory was written out; `None` where the file system does not say.
pub(crate) fn count(file: &File) -> io::Result<Option<u64>> {
    let mut extents = 0;
    for extent in Fiemap::with_flags(file, FiemapFlags::SYNC) {
        match extent {
            Ok(_) => extents += 1,
            Err(error) if is(&error, &[Errno::NOTSUP, Errno::NOTTY, Errno::NOSYS, Errno::BADF]) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(extents))
}

/// How long a clone of so many extents may take at worst.
pub(crate) fn cost(extents: u64) -> Duration {
    EACH.saturating_mul(u32::try_from(extents).unwrap_or(u32::MAX))
}
