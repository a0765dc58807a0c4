//! Moving bytes: read once, hashed while they pass, stoppable between chunks.
//!
//! ```text
//!   free ─▶ read ─▶ here: hashed ─▶ beside, on another thread: written ─▶ free
//! ```
//!
//! Writing takes about as long as reading and hashing do. The very bytes that were hashed are written, in their order, and all of
//! them have been before anything is said of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use stillpoint_context::{Cx, Progress};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Chunks under way: one is here, one is beside, one is between the two.
const CHUNKS: usize = 3;
/// Below this a thread costs more than it saves.
const WORTH_A_THREAD: u64 = 4 << 20;

/// A buffer of a chunk, to be used for many files.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; CHUNK]
}

/// Reads a file to its end, of which so many bytes are expected. Each chunk is handed on twice: to `here` with its offset, and to
/// `beside`, in the same order but perhaps later and on another thread. Gives the number of bytes.
///
/// `failed` makes the error of a failed read; either of the two may end it with an error of its own.
pub(crate) fn pump(
    from: &File,
    bytes: u64,
    buffer: &mut [u8],
    failed: impl Fn(io::Error) -> ProviderError,
    mut here: impl FnMut(u64, &[u8]) -> ProviderResult<()>,
    mut beside: impl FnMut(&[u8]) -> ProviderResult<()> + Send,
) -> ProviderResult<u64> {
    if bytes >= WORTH_A_THREAD
        && let Some(read) = pump_with_thread(from, &failed, &mut here, &mut beside)
    {
        return read;
    }
    let mut at = 0;
    loop {
        let read = read(from, buffer).map_err(&failed)?;
        if read == 0 {
            return Ok(at);
        }
        let chunk = buffer.get(..read).unwrap_or_default();
        here(at, chunk)?;
        beside(chunk)?;
        at += read as u64;
    }
}

/// The same with a thread beside; nothing if none is to be had, and then nothing is read.
fn pump_with_thread(
    from: &File,
    failed: impl Fn(io::Error) -> ProviderError,
    mut here: impl FnMut(u64, &[u8]) -> ProviderResult<()>,
    mut beside: impl FnMut(&[u8]) -> ProviderResult<()> + Send,
) -> Option<ProviderResult<u64>> {
    // Each has room for all chunks that there are, so that nobody waits to hand one on.
    let (full, chunks) = sync_channel::<(Vec<u8>, usize)>(CHUNKS);
    let (done, free) = sync_channel(CHUNKS);
    for _ in 0..CHUNKS {
        done.send(buffer()).ok()?;
    }
    thread::scope(|scope| {
        let work = move || {
            for (buffer, read) in chunks {
                beside(buffer.get(..read).unwrap_or_default())?;
                // At the end of the file nobody wants it any more, and others may still wait for their turn.
                let _unwanted = done.send(buffer);
            }
            Ok(())
        };
        let worker = thread::Builder::new().spawn_scoped(scope, work).ok()?;
        let mut read_all = move || {
            let mut at = 0;
            // Without a free chunk, the other has failed, and says why below.
            while let Ok(mut buffer) = free.recv() {
                let read = read(from, &mut buffer).map_err(&failed)?;
                if read == 0 {
                    break;
                }
                here(at, buffer.get(..read).unwrap_or_default())?;
                at += read as u64;
                if full.send((buffer, read)).is_err() {
                    break;
                }
            }
            Ok(at)
        };
        let bytes = read_all();
        // The other has had the last chunk when it finds that no more come.
        drop(read_all);
        let copied = worker.join().unwrap_or_else(|_| {
            Err(ProviderError::new(ProviderErrorKind::Internal, "copying a file panicked"))
        });
        Some(bytes.and_then(|bytes| copied.map(|()| bytes)))
    })
}

/// The next bytes of a file; none at its end.
fn read(mut from: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
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

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn file(bytes: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file.rewind().unwrap();
        (file, content)
    }

    fn unread(error: io::Error) -> ProviderError {
        ProviderError::io("read", error)
    }

    fn stop(text: &str) -> ProviderError {
        ProviderError::new(ProviderErrorKind::Cancelled, text)
    }

    #[test]
    fn both_have_every_byte_in_order_whatever_the_size() {
        let large = usize::try_from(WORTH_A_THREAD).unwrap();
        for bytes in [0, 1, CHUNK - 1, CHUNK, large - 1, large, large + 1, 3 * large + 77] {
            let (file, content) = file(bytes);
            let (mut here, mut beside) = (Vec::new(), Vec::new());
            let read = pump(
                &file,
                bytes as u64,
                &mut buffer(),
                unread,
                |at, chunk| {
                    assert_eq!(at, here.len() as u64);
                    here.extend_from_slice(chunk);
                    Ok(())
                },
                |chunk| {
                    beside.extend_from_slice(chunk);
                    Ok(())
                },
            );
            assert_eq!(read.unwrap(), bytes as u64);
            assert!(here == content && beside == content, "{bytes} bytes");
        }
    }

    #[test]
    fn either_may_end_it_and_says_why() {
        let (file, content) = file(8 << 20);
        for expected in [0, content.len() as u64] {
            (&file).rewind().unwrap();
            let ended = pump(
                &file,
                expected,
                &mut buffer(),
                unread,
                |at, _| if at >= 2 << 20 { Err(stop("here")) } else { Ok(()) },
                |_| Ok(()),
            );
            assert_eq!(ended.unwrap_err().to_string(), stop("here").to_string());
            (&file).rewind().unwrap();
            let mut seen = 0;
            let ended = pump(
                &file,
                expected,
                &mut buffer(),
                unread,
                |_, _| Ok(()),
                |_| {
                    seen += 1;
                    if seen == 3 { Err(stop("beside")) } else { Ok(()) }
                },
            );
            assert_eq!(ended.unwrap_err().to_string(), stop("beside").to_string());
            assert_eq!(seen, 3, "nothing more after the one that failed");
        }
    }

    #[test]
    fn a_panic_beside_is_an_error() {
        let (file, content) = file(8 << 20);
        let ended = pump(
            &file,
            content.len() as u64,
            &mut buffer(),
            unread,
            |_, _| Ok(()),
            |_| panic!("as a bug would"),
        );
        assert_eq!(*ended.unwrap_err().kind(), ProviderErrorKind::Internal);
    }
}
