//! Moving bytes: read once, hashed and written while they are at hand, stoppable between pieces.
//!
//! ```text
//!   lane:  piece 0: read ─▶ hash ─▶ write │ piece 2 … ─┐
//!   lane:  piece 1: read ─▶ hash ─▶ write │ piece 3 … ─┴─▶ joined: seal or check · progress · go on?
//! ```
//!
//! A lane does everything to its piece, part by part, while the bytes are in the cache of its core: handed to another core they
//! cost more than is won. The very bytes that were hashed are written, and all of them have been before anything is said of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use stillpoint_context::{Cx, Progress};
use stillpoint_model::seal::{SealPiece, SealPieces};
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

/// Bytes that are read at once. They stay in the second-level cache until they are written.
const PART: usize = 128 << 10;
/// Below this a thread costs more than it saves.
const WORTH_A_THREAD: u64 = 4 << 20;
/// How far one lane may be ahead of what is joined, in bytes.
const AHEAD: u64 = 16 << 20;

/// A buffer of a part, to be used for many files.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; PART]
}

/// Reads a file to its end, of which so many bytes are expected, in these pieces. Each part of a piece goes to `beside` with its
/// offset, and each piece, when all of it has been there, to `join`, which gives how many bytes it has without a gap: in any order
/// and on any thread, but `join` is called by one at a time. Gives the number of bytes.
///
/// `failed` makes the error of a failed read; the first error of anybody ends it.
pub(crate) fn pump(
    from: &File,
    bytes: u64,
    buffer: &mut [u8],
    pieces: SealPieces,
    failed: impl Fn(io::Error) -> ProviderError + Sync,
    beside: impl Fn(u64, &[u8]) -> ProviderResult<()> + Sync,
    join: impl FnMut(SealPiece) -> ProviderResult<u64> + Send,
) -> ProviderResult<u64> {
    let state = State { pieces, begun: 0, join, joined: 0, ended: false, error: None };
    let lanes = Lanes { from, failed, beside, state: Mutex::new(state), moved: Condvar::new() };
    thread::scope(|scope| {
        if bytes >= WORTH_A_THREAD {
            // Where no thread is to be had, one lane does all of it.
            let other = || lanes.run(&mut self::buffer());
            let _unneeded = thread::Builder::new().spawn_scoped(scope, other);
        }
        lanes.run(buffer);
    });
    let state = lanes.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.error.map_or(Ok(state.joined), Err)
}

/// A file on its way.
struct Lanes<'a, F, B, J> {
    from: &'a File,
    failed: F,
    beside: B,
    state: Mutex<State<J>>,
    /// Something was joined, or it is over.
    moved: Condvar,
}

struct State<J> {
    pieces: SealPieces,
    /// Where the last piece that was given out begins.
    begun: u64,
    join: J,
    joined: u64,
    /// The end of the file was found.
    ended: bool,
    error: Option<ProviderError>,
}

impl<F, B, J> Lanes<'_, F, B, J>
where
    F: Fn(io::Error) -> ProviderError + Sync,
    B: Fn(u64, &[u8]) -> ProviderResult<()> + Sync,
    J: FnMut(SealPiece) -> ProviderResult<u64> + Send,
{
    /// Does piece after piece until it is over. The other lane, which may wait for this one, hears of a panic as well.
    fn run(&self, buffer: &mut [u8]) {
        let work = || {
            while let Some(piece) = self.next() {
                let piece = self.fill(piece, buffer)?;
                self.join(piece)?;
            }
            Ok(())
        };
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(ProviderError::new(ProviderErrorKind::Internal, "copying a file panicked"))
        });
        if let Err(error) = done {
            self.state().error.get_or_insert(error);
            self.moved.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<SealPiece> {
        let far = |state: &mut State<J>| !state.is_over() && state.begun > state.joined + AHEAD;
        let waited = self.moved.wait_while(self.state(), far);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_over() {
            return None;
        }
        let piece = state.pieces.next()?;
        state.begun = piece.at();
        Some(piece)
    }

    /// Reads a piece, as far as there is something.
    fn fill(&self, mut piece: SealPiece, buffer: &mut [u8]) -> ProviderResult<SealPiece> {
        while piece.room() > 0 {
            let at = piece.at() + piece.bytes();
            let part = usize::try_from(piece.room()).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..part).unwrap_or_default();
            let read = read(self.from, part, at).map_err(&self.failed)?;
            let part = part.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            piece.update(part);
            (self.beside)(at, part)?;
        }
        Ok(piece)
    }

    fn join(&self, piece: SealPiece) -> ProviderResult<()> {
        let mut state = self.state();
        if state.error.is_none() {
            state.ended |= piece.room() > 0;
            state.joined = (state.join)(piece)?;
            self.moved.notify_all();
        }
        Ok(())
    }
}

impl<J> State<J> {
    fn is_over(&self) -> bool {
        self.ended || self.error.is_some()
    }
}

/// The next bytes of a file; none at its end.
fn read(from: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match from.read_at(buffer, at) {
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
    use std::io::Write as _;

    use stillpoint_model::seal::SealWriter;

    use super::*;

    const PIECE: usize = 1 << 20;

    fn file(bytes: usize) -> (File, Vec<u8>) {
        let mut content = (0..=250).collect::<Vec<u8>>().repeat(bytes / 251 + 1);
        content.truncate(bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    fn unread(error: io::Error) -> ProviderError {
        ProviderError::io("read", error)
    }

    fn stop(text: &str) -> ProviderError {
        ProviderError::new(ProviderErrorKind::Cancelled, text)
    }

    /// Pumps a file; what was said of its bytes.
    fn sealed(
        file: &File,
        expected: usize,
        beside: impl Fn(u64, &[u8]) -> ProviderResult<()> + Sync,
        go_on: impl Fn(u64) -> ProviderResult<()> + Sync,
    ) -> ProviderResult<(u64, SealWriter)> {
        let mut seal = SealWriter::new(expected as u64);
        let pieces = seal.pieces();
        let join = |piece| {
            seal.join(piece);
            go_on(seal.bytes())?;
            Ok(seal.bytes())
        };
        let bytes = pump(file, expected as u64, &mut buffer(), pieces, unread, beside, join)?;
        Ok((bytes, seal))
    }

    #[test]
    fn every_byte_is_hashed_and_handed_on_whatever_the_size() {
        let large = usize::try_from(WORTH_A_THREAD).unwrap();
        for bytes in [0, 1, PART, PIECE - 1, PIECE, large - 1, large, large + 1, 3 * large + 77] {
            let (file, content) = file(bytes);
            let copy = tempfile::tempfile().unwrap();
            let write = |at, part: &[u8]| copy.write_all_at(part, at).map_err(unread);
            let (read, seal) = sealed(&file, bytes, write, |_| Ok(())).unwrap();
            assert_eq!(read, bytes as u64);
            assert_eq!(seal.finish().check_all(&content), Ok(()), "{bytes} bytes");
            let mut copied = vec![0; bytes];
            copy.read_exact_at(&mut copied, 0).unwrap();
            assert!(copied == content && copy.metadata().unwrap().len() == bytes as u64);
        }
    }

    #[test]
    fn a_file_that_is_longer_or_shorter_than_expected_is_read_to_its_end() {
        let (file, content) = file(9 * PIECE + 5);
        for expected in [0, PIECE, 40 * PIECE] {
            let (read, seal) = sealed(&file, expected, |_, _| Ok(()), |_| Ok(())).unwrap();
            assert_eq!(read, content.len() as u64);
            assert_eq!(seal.finish().check_all(&content), Ok(()));
        }
    }

    #[test]
    fn either_may_end_it_and_says_why() {
        let (file, content) = file(8 * PIECE);
        for expected in [0, content.len()] {
            let two = 2 * PIECE as u64;
            let join = |done| if done >= two { Err(stop("join")) } else { Ok(()) };
            let ended = sealed(&file, expected, |_, _| Ok(()), join).unwrap_err();
            assert_eq!(ended.to_string(), stop("join").to_string());
            let beside = |at, _: &[u8]| if at >= two { Err(stop("beside")) } else { Ok(()) };
            let ended = sealed(&file, expected, beside, |_| Ok(())).unwrap_err();
            assert_eq!(ended.to_string(), stop("beside").to_string());
        }
    }

    #[test]
    fn a_lane_does_not_run_away_from_one_that_hangs() {
        let (file, content) = file(40 * PIECE);
        let (said, heard) = std::sync::mpsc::channel::<()>();
        let heard = Mutex::new(heard);
        let far = std::sync::atomic::AtomicU64::new(0);
        let beside = |at, part: &[u8]| {
            if at == 0 {
                // Until the other lane has gone as far as it may.
                heard.lock().unwrap().recv().unwrap();
                let far = far.load(std::sync::atomic::Ordering::SeqCst);
                assert!(far <= AHEAD + 2 * PIECE as u64, "{far}");
            } else {
                let end = at + part.len() as u64;
                let before = far.fetch_max(end, std::sync::atomic::Ordering::SeqCst);
                if before < AHEAD + PIECE as u64 && end >= AHEAD + PIECE as u64 {
                    said.send(()).unwrap();
                }
            }
            Ok(())
        };
        let (read, _) = sealed(&file, content.len(), beside, |_| Ok(())).unwrap();
        assert_eq!(read, content.len() as u64);
    }

    #[test]
    fn a_panic_is_an_error_and_leaves_nobody_waiting() {
        let (file, content) = file(40 * PIECE);
        for bad in [0, 3 * PIECE as u64] {
            let beside = |at, _: &[u8]| if at == bad { panic!("as a bug would") } else { Ok(()) };
            let ended = sealed(&file, content.len(), beside, |_| Ok(())).unwrap_err();
            assert_eq!(*ended.kind(), ProviderErrorKind::Internal);
        }
        let ended = sealed(&file, content.len(), |_, _| Ok(()), |_| panic!("so, too"));
        assert_eq!(*ended.unwrap_err().kind(), ProviderErrorKind::Internal);
    }
}
