//! Positioned reading, and the one sweep over a file that every scan makes.

use std::{fs::File, io, ops::ControlFlow};

use crate::{EseError, lanes::JOBS_A_LANE};

/// Something that can be read at any offset without a cursor, so that a shared reader is enough,
/// for several threads too.
///
/// Implemented for files, byte slices and references to either.
pub trait ReadAt: Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the source says when it is asked for its length.
    fn size(&self) -> io::Result<u64>;

    /// Reads at most `buf.len()` bytes from `offset`; 0 means the end.
    ///
    /// # Errors
    /// Whatever the source says; `Interrupted` is tried again by the callers in this crate.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// The first offset from `offset` on where something may be stored; everything before it reads
    /// as zeros. A reader that knows of no holes says `offset`.
    ///
    /// # Errors
    /// Whatever the source says.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    // Moves the file's cursor, which nothing in this crate relies on.
    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(data.max(offset)),
            // Nothing but a hole is left.
            Err(rustix::io::Errno::NXIO) => Ok(self.size()?.max(offset)),
            // The file system knows nothing of holes; if the file cannot be read, reading says so.
            Err(_) => Ok(offset),
        }
    }

    // Moves the file's cursor, which nothing in this crate relies on.
    #[cfg(windows)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        u64::try_from(self.len()).map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

impl<T: ReadAt + ?Sized + Send> ReadAt for std::sync::Arc<T> {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        (**self).next_data(offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        (**self).next_data(offset)
    }
}

/// Reads until `buf` is full or the file ends; returns how many bytes were read.
pub(crate) fn fill<R: ReadAt + ?Sized>(
    file: &R,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize, EseError> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.saturating_add(done as u64);
        match file.read_at(at, &mut buf[done..]) {
            Ok(0) => break,
            // A reader that claims more than was asked for must not make us panic.
            Ok(read) => done = done.saturating_add(read).min(buf.len()),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(EseError::Read { offset: at, source }),
        }
    }
    Ok(done)
}

/// The first `len` bytes of a file, or fewer when it is shorter.
pub(crate) fn head<R: ReadAt + ?Sized>(file: &R, len: usize) -> Result<Vec<u8>, EseError> {
    let mut buf = vec![0; len];
    let read = fill(file, 0, &mut buf)?;
    buf.truncate(read);
    Ok(buf)
}

/// How far a scan is, in bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read and checked.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
}

/// Watches a scan: sees every byte once and in order, hears of progress, may stop it.
///
/// A closure from [`Progress`] to [`ControlFlow`] is an observer, and so is `()`; neither wants the
/// bytes.
///
/// ```
/// use std::ops::ControlFlow;
/// use stillpoint_ese::{ScanOptions, scan_checkpoint};
/// let stopped = scan_checkpoint(&[0u8; 8192][..], &ScanOptions::default(), &mut |_| {
///     ControlFlow::Break(())
/// });
/// assert_eq!(stopped.unwrap_err().code(), "ese.stopped");
/// ```
pub trait Observer {
    /// Bytes of the file as they are read: each exactly once, in order, without gaps. A scan that
    /// found no usable header stops there and shows nothing further.
    fn bytes(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Whether [`bytes`](Self::bytes) is to be called. Without it a scan skips holes, and what it
    /// reads need not leave the processor's cache. Asked once, before anything is read.
    fn wants_bytes(&self) -> bool {
        true
    }

    /// Called after each part of the file has been read and checked, the parts in their order and
    /// none larger than 16 MiB. `Break` ends the scan with [`EseError::Stopped`].
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        let _ = progress;
        ControlFlow::Continue(())
    }
}

impl Observer for () {
    fn wants_bytes(&self) -> bool {
        false
    }
}

impl<F: FnMut(Progress) -> ControlFlow<()>> Observer for F {
    fn wants_bytes(&self) -> bool {
        false
    }

    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// Bounds of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanOptions {
    /// Bytes read at once; clamped to 64 KiB … 16 MiB, and to less where several threads would
    /// otherwise hold more than 64 MiB together. Default 256 KiB, which stays in a processor's cache.
    pub chunk: usize,
    /// Findings kept in full; what is beyond is counted. Default 1000.
    pub max_findings: usize,
    /// Threads that read and check a database; 0, the default, for as many as the machine has, at
    /// most 8. With 1 no thread is made.
    pub threads: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { chunk: 256 << 10, max_findings: 1000, threads: 0 }
    }
}

/// Most bytes that the buffers of a scan hold together.
const MAX_BUFFERS: usize = 64 << 20;
const MAX_THREADS: usize = 64;

impl ScanOptions {
    /// Bytes read at once.
    pub fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    /// Findings kept in full.
    pub fn with_max_findings(mut self, max_findings: usize) -> Self {
        self.max_findings = max_findings;
        self
    }

    /// Threads that read and check a database.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    fn chunk_bytes(&self) -> usize {
        self.chunk.clamp(64 << 10, 16 << 20)
    }

    pub(crate) fn lanes(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(8),
            threads => threads.min(MAX_THREADS),
        }
    }

    /// Bytes that each of so many lanes reads at once, so that all together keep to the bound.
    pub(crate) fn chunk_on(&self, lanes: usize) -> u64 {
        let buffers = lanes.max(1) * (JOBS_A_LANE + 1);
        self.chunk_bytes().min(MAX_BUFFERS / buffers).max(64 << 10) as u64
    }
}

/// One pass over a file from its first byte to the length it had at the start.
pub(crate) struct Sweep<'a, R: ?Sized, O: ?Sized> {
    file: &'a R,
    observer: &'a mut O,
    chunk: usize,
    at: u64,
    size: u64,
}

impl<'a, R: ReadAt + ?Sized, O: Observer + ?Sized> Sweep<'a, R, O> {
    pub(crate) fn new(
        file: &'a R,
        observer: &'a mut O,
        options: &ScanOptions,
    ) -> Result<Self, EseError> {
        let size = size_of(file)?;
        Ok(Self { file, observer, chunk: options.chunk_bytes(), at: 0, size })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends the next chunk to `buf`; false at the end of the file.
    pub(crate) fn append(&mut self, buf: &mut Vec<u8>) -> Result<bool, EseError> {
        let left = self.size - self.at;
        if left == 0 {
            return Ok(false);
        }
        let want = usize::try_from(left).map_or(self.chunk, |left| left.min(self.chunk));
        let start = buf.len();
        buf.resize(start + want, 0);
        let read = fill(self.file, self.at, &mut buf[start..])?;
        if read < want {
            return Err(EseError::Read {
                offset: self.at + read as u64,
                source: io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was read",
                ),
            });
        }
        self.observer.bytes(&buf[start..]);
        self.at += want as u64;
        Ok(true)
    }

    /// Tells the observer that everything read so far has been checked.
    pub(crate) fn report(&mut self) -> Result<(), EseError> {
        report_progress(self.observer, Progress { done: self.at, total: self.size })
    }
}

/// Tells the observer how far a scan is.
pub(crate) fn report_progress<O: Observer + ?Sized>(
    observer: &mut O,
    progress: Progress,
) -> Result<(), EseError> {
    match observer.progress(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EseError::Stopped),
    }
}

/// The length of a file, as an error of this crate.
pub(crate) fn size_of<R: ReadAt + ?Sized>(file: &R) -> Result<u64, EseError> {
    file.size().map_err(|source| EseError::Read { offset: 0, source })
}
