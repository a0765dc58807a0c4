//! Scans on several threads and of sparse files: the same answer as of one thread that reads all.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
};

use stillpoint_ese::{
    EseError, FindingKind, Observer, PageSize, Progress, ReadAt, ScanOptions, scan_database,
    write::{DatabaseSpec, Noise},
};

fn database(spec: &DatabaseSpec) -> Vec<u8> {
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    file
}

fn options(threads: usize, chunk: usize) -> ScanOptions {
    ScanOptions::default().with_threads(threads).with_chunk(chunk)
}

#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    done: u64,
}

impl Observer for Tape {
    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        assert!(progress.done > self.done && progress.done <= progress.total);
        assert!(progress.done - self.done <= 16 << 20);
        self.done = progress.done;
        ControlFlow::Continue(())
    }
}

#[test]
fn any_number_of_threads_and_any_chunk_give_the_same_report() {
    for size in [PageSize::KIB_2, PageSize::KIB_8, PageSize::KIB_32] {
        let pages = u32::try_from((9 << 20) / size.len()).unwrap();
        let spec = DatabaseSpec::new(5).with_page_size(size).with_pages(pages);
        let mut file = database(&spec);
        file.extend([7; 77]);
        let mut noise = Noise::new(8);
        let spoiled = usize::try_from(noise.below(300)).unwrap();
        for _ in 0..spoiled {
            let at = size.len() * 2 + usize::try_from(noise.below(8 << 20)).unwrap();
            file[at..at + 8].fill(0x5A);
        }
        for limit in [0, 3, 1000] {
            let one = options(1, 1 << 20).with_max_findings(limit);
            let expected = scan_database(&file, &one, &mut ()).unwrap();
            assert!(expected.bad > 0 && expected.uninitialised > 0);
            for (threads, chunk) in [(1, 0), (2, 0), (2, 100_001), (3, 1 << 20), (64, 1 << 30)] {
                let options = options(threads, chunk).with_max_findings(limit);
                assert_eq!(scan_database(&file, &options, &mut ()).unwrap(), expected);
                let mut tape = Tape::default();
                assert_eq!(scan_database(&file, &options, &mut tape).unwrap(), expected);
                assert!(tape.bytes == file);
                assert_eq!(tape.done, file.len() as u64);
            }
        }
    }
}

/// A file with holes where its content is zero, by the word of the reader; counts what is read.
struct Sparse {
    bytes: Vec<u8>,
    grain: usize,
    read: AtomicU64,
    fails_at: Option<u64>,
}

impl ReadAt for Sparse {
    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.fails_at.is_some_and(|at| (offset..offset + buf.len() as u64).contains(&at)) {
            return Err(io::Error::other("bad sector"));
        }
        self.read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        self.bytes.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        let mut at = usize::try_from(offset).unwrap();
        while at < self.bytes.len() {
            let end = (at / self.grain * self.grain + self.grain).min(self.bytes.len());
            if self.bytes[at..end].iter().any(|&byte| byte != 0) {
                break;
            }
            at = end;
        }
        Ok(at as u64)
    }
}

#[test]
fn holes_are_counted_and_not_read() {
    for (size, grain) in
        [(PageSize::KIB_4, 65_536), (PageSize::KIB_32, 4096), (PageSize::KIB_16, 7777)]
    {
        let pages = u32::try_from((32 << 20) / size.len()).unwrap();
        let spec = DatabaseSpec::new(5).with_page_size(size).with_pages(pages);
        let mut bytes = database(&spec.with_uninitialised(pages / 2));
        // Holes in the middle, and data again after the last quarter.
        let len = bytes.len();
        bytes[3 << 20..11 << 20].fill(0);
        let copy = bytes[2 << 20..(2 << 20) + size.len()].to_vec();
        bytes[len - size.len() * 9..len - size.len() * 8].copy_from_slice(&copy);
        let expected = scan_database(&bytes, &options(1, 1 << 20), &mut ()).unwrap();
        assert!(expected.uninitialised > u64::from(pages / 2) && expected.bad == 1);
        let file = Sparse { bytes, grain, read: AtomicU64::new(0), fails_at: None };
        for threads in [1, 2, 5] {
            file.read.store(0, Ordering::SeqCst);
            let report = scan_database(&file, &options(threads, 1 << 20), &mut ()).unwrap();
            assert_eq!(report, expected, "{size} {threads}");
            let read = file.read.load(Ordering::SeqCst);
            assert!(read < 20 << 20, "{read} bytes were read");
            // Who wants every byte is given every byte.
            let mut tape = Tape::default();
            assert_eq!(scan_database(&file, &options(threads, 0), &mut tape).unwrap(), expected);
            assert!(tape.bytes == file.bytes);
        }
    }
}

#[test]
fn a_terabyte_of_holes_is_not_read() {
    let size = PageSize::KIB_32;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.edb");
    let spec = DatabaseSpec::new(5).with_pages(64).with_uninitialised(0);
    std::fs::write(&path, database(&spec)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    if file.set_len(1 << 40).is_err() || file.next_data(1 << 30).unwrap() < 1 << 40 {
        eprintln!("SKIPPED: the file system keeps no holes");
        return;
    }
    let mut calls = 0;
    let report = scan_database(&file, &ScanOptions::default(), &mut |progress: Progress| {
        calls += 1;
        assert_eq!(progress.total, 1 << 40);
        ControlFlow::Continue(())
    })
    .unwrap();
    let pages = (1u64 << 40) / size.len() as u64 - 2;
    assert_eq!((report.pages, report.uninitialised, report.bad), (pages, pages - 64, 0));
    assert!(report.findings.is_intact());
    assert!(calls < 100, "{calls}");
}

#[test]
fn the_first_read_error_in_the_file_is_the_one_told() {
    let bytes = database(&DatabaseSpec::new(5).with_pages(900).with_uninitialised(0));
    for threads in [1, 2, 4] {
        let file = Sparse {
            bytes: bytes.clone(),
            grain: 4096,
            read: AtomicU64::new(0),
            fails_at: Some(17 << 20),
        };
        let failed = scan_database(&file, &options(threads, 1 << 20), &mut ());
        let Err(EseError::Read { offset, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!(offset, 17 << 20, "{threads}");
    }
}

#[test]
fn a_caller_can_stop_a_scan_on_several_threads() {
    let file = database(&DatabaseSpec::new(5).with_pages(900));
    let mut calls = 0;
    let stopped = scan_database(&file, &options(3, 1 << 16), &mut |_: Progress| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(EseError::Stopped)));
    assert_eq!(calls, 2);
}

#[test]
fn more_pages_than_the_engine_can_number() {
    /// A header, and nothing but a hole after it.
    struct Endless(Vec<u8>);
    impl ReadAt for Endless {
        fn size(&self) -> io::Result<u64> {
            Ok((u64::from(u32::MAX) + 9) * 2048)
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read_at(offset, buf)?;
            buf[read..].fill(0);
            Ok(buf.len())
        }
        fn next_data(&self, offset: u64) -> io::Result<u64> {
            Ok(if offset < self.0.len() as u64 { offset } else { self.size()? })
        }
    }
    let spec = DatabaseSpec::new(5).with_page_size(PageSize::KIB_2).with_pages(8);
    let file = Endless(database(&spec));
    let report = scan_database(&file, &options(2, 0), &mut ()).unwrap();
    assert_eq!(report.pages, u64::from(u32::MAX) + 7);
    assert_eq!(report.findings.list.len(), 1);
    assert_eq!(report.findings.list[0].kind, FindingKind::TooManyPages);
}
