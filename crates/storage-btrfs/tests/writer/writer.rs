//! A writer that never rests unless it is held, and that knows what it has written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// The bytes of each file.
pub(crate) type Content = Vec<Vec<u8>>;

/// Bytes that are written at once, and how many of them a database has.
const PAGE: usize = 4096;
const PAGES: usize = 64;
/// Pages of a log, after which it begins anew.
const LOG: usize = 40;

/// The state that writer and test share. The writer holds the lock for each round of writing, so that whoever has it sees
/// whole rounds.
#[derive(Debug, Default)]
struct Shared {
    content: Mutex<(Content, u64, bool)>,
    /// How many wait for the lock: the writer lets them go first.
    wanted: AtomicUsize,
    round: Condvar,
}

/// A thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// While it lives, nothing is written.
pub(crate) struct Held<'a>(MutexGuard<'a, (Content, u64, bool)>);

impl Held<'_> {
    /// What every file holds, as the writer knows it.
    pub(crate) fn content(&self) -> Content {
        self.0.0.clone()
    }
}

impl Writer {
    /// Two databases and a log, all in one folder.
    pub(crate) const FILES: [&str; 3] = ["DB01.edb", "DB02.edb", "E00.log"];

    #[allow(clippy::disallowed_methods, reason = "a writer that no runtime knows")]
    pub(crate) fn start(folder: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let files = Self::FILES.map(|name| File::create_new(folder.join(name)).unwrap());
        let content = vec![vec![0; PAGE * PAGES], vec![0; PAGE * PAGES], Vec::new()];
        for (file, bytes) in files.iter().zip(&content) {
            file.write_all_at(bytes, 0).unwrap();
        }
        shared.content.lock().unwrap().0 = content;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut round = 0;
            loop {
                let mut held = theirs.content.lock().unwrap();
                if held.2 {
                    return;
                }
                round += 1;
                write(&files, &mut held.0, round);
                held.1 = round;
                theirs.round.notify_all();
                drop(held);
                while theirs.wanted.load(Ordering::SeqCst) > 0 {
                    std::thread::yield_now();
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Holds the writer between two rounds.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        let held = self.shared.content.lock().unwrap();
        self.shared.wanted.fetch_sub(1, Ordering::SeqCst);
        Held(held)
    }

    /// How often it has written.
    pub(crate) fn rounds(&self) -> u64 {
        self.hold().0.1
    }

    /// Waits until it has written so many times more.
    pub(crate) fn wait_for_rounds(&self, more: u64) {
        let mut held = self.hold().0;
        let until = held.1 + more;
        while held.1 < until {
            held = self.shared.round.wait(held).unwrap();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hold().0.2 = true;
        self.thread.take().unwrap().join().unwrap();
    }
}

/// One round: the first and the last page of each database, some between them, and one more page of log.
fn write(files: &[File; 3], content: &mut Content, round: u64) {
    let stamp = |page: usize| {
        let mut bytes = vec![0_u8; PAGE];
        for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(round ^ ((page * PAGE + at) as u64) << 32).to_le_bytes());
        }
        bytes
    };
    let [databases @ .., log] = files;
    for (index, file) in databases.iter().enumerate() {
        let step = usize::try_from(round % 13).unwrap() + 1;
        for page in (0..PAGES).step_by(step).chain([PAGES - 1]) {
            let bytes = stamp(page);
            file.write_all_at(&bytes, (page * PAGE) as u64).unwrap();
            content[index][page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes);
        }
    }
    if content[2].len() >= LOG * PAGE {
        log.set_len(0).unwrap();
        content[2].clear();
    }
    let bytes = stamp(content[2].len() / PAGE);
    log.write_all_at(&bytes, content[2].len() as u64).unwrap();
    content[2].extend(bytes);
}
