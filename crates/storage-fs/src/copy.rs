//! Moving bytes: read once, hashed while they pass, stoppable between chunks.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use stillpoint_context::{Cx, Progress};
use stillpoint_storage::{ProviderError, ProviderResult};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// A buffer of a chunk, to be used for many files.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; CHUNK]
}

/// Reads a file to its end and hands on each chunk with its offset. Gives the number of bytes.
///
/// `failed` makes the error of a failed read; `each` may end it with an error of its own.
pub(crate) fn pump(
    mut from: &File,
    buffer: &mut [u8],
    failed: impl Fn(io::Error) -> ProviderError,
    mut each: impl FnMut(u64, &[u8]) -> ProviderResult<()>,
) -> ProviderResult<u64> {
    let mut at = 0;
    loop {
        let read = match from.read(buffer) {
            Ok(0) => return Ok(at),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        each(at, bytes)?;
        at += bytes.len() as u64;
    }
}

/// Tells about progress, file by file.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    cx: &'a Cx,
    /// Nothing is told inside a freeze.
    silent: bool,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(cx: &'a Cx, silent: bool) -> Self {
        Self { cx, silent }
    }

    /// So much of this file is done.
    pub(crate) fn bytes(&self, path: &Path, done: u64, total: u64) {
        if !self.silent {
            let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.cx.report(|| Progress::bytes(name(), done, Some(total)));
        }
    }
}
