//! How fast ESE files are checked, beside how fast the same memory and the same file are merely read.
//!
//! `cargo bench -p stillpoint-benches --bench ese` prints two tables: what is in memory, and what is not in the page cache.
//! With `-- cold` it measures only the second. The database is made in the temporary folder (`TMPDIR`);
//! `STILLPOINT_BENCH_GIB` says how large, 4 unless told otherwise, and `STILLPOINT_BENCH_ROUNDS` how often everything is
//! read from the disk, 9 times unless told otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock and runs threads")]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stillpoint_benches::table::{best, is_wanted, time, verdict};
use stillpoint_ese::write::DatabaseSpec;
use stillpoint_ese::{
    PageSize, ReadAt, ScanOptions, block_checksum, block_checksum_portable, check_page,
    scan_database,
};

const PAGE: usize = 32 << 10;
/// What is read at once, as the scan reads.
const CHUNK: usize = 256 << 10;
/// What a thread takes up at once, as the scan does.
const STRETCH: u64 = 4 << 20;

/// Gigabytes a second.
fn rate(bytes: u64, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    bytes / time.as_secs_f64() / 1e9
}

/// What one core reads from memory.
fn xor_sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

type Kernel = fn(&[u8], u32, bool) -> Option<u64>;

/// The checksums of large pages, block by block.
fn checksums(bytes: &[u8], kernel: Kernel) -> u64 {
    let mut all = 0;
    for (index, block) in (0u32..).zip(bytes.chunks_exact(PAGE / 4)) {
        all ^= kernel(block, index / 4, index % 4 == 0).unwrap_or(0);
    }
    all
}

fn pages(bytes: &[u8]) {
    for (index, page) in (0u32..).zip(bytes.chunks_exact(PAGE)) {
        black_box(check_page(page, index.wrapping_sub(1)));
    }
}

/// The file read as the scan reads it, and not looked at.
fn read(file: &File, threads: usize) {
    let size = file.size().unwrap();
    let taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buf = vec![0; CHUNK];
                loop {
                    let mut at = taken.fetch_add(STRETCH, Ordering::Relaxed);
                    if at >= size {
                        return;
                    }
                    let end = (at + STRETCH).min(size);
                    while at < end {
                        let want = usize::try_from(end - at).unwrap().min(CHUNK);
                        let read = file.read_at(at, &mut buf[..want]).unwrap();
                        black_box(&buf[..read]);
                        at += read as u64;
                    }
                }
            });
        }
    });
}

fn scan<R: ReadAt>(file: &R, threads: usize) {
    let options = ScanOptions::default().with_threads(threads).with_chunk(CHUNK);
    let report = scan_database(file, &options, &mut ()).unwrap();
    assert!(report.findings.is_intact());
}

/// Drops a file from the page cache; false where that cannot be done.
fn forget(path: &Path) -> bool {
    let file = format!("of={}", path.display());
    let args = [file.as_str(), "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
    Command::new("dd").args(args).status().is_ok_and(|status| status.success())
}

/// Seconds of processor time that this process has had, where the system says so.
fn processor() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, in hundredths: of the program itself, and of the system for it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?].map(|ticks| ticks.parse::<f64>().ok());
    Some((user? + system?) / 100.0)
}

/// One way to read a file, and what its rounds took.
struct Way<'a> {
    what: &'static str,
    run: Box<dyn Fn() + 'a>,
    seconds: Vec<f64>,
    processor: Vec<f64>,
}

impl<'a> Way<'a> {
    fn new(what: &'static str, run: impl Fn() + 'a) -> Self {
        Self { what, run: Box::new(run), seconds: Vec::new(), processor: Vec::new() }
    }
}

fn median_of(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Every way in turn, round by round, each round beginning with another of them: a disk has its moods, and what it
/// remembers itself of one way must not help always the same next.
fn cold(path: &Path, file: &File, bytes: u64, rounds: usize) {
    let mut ways = [
        Way::new("read alone", || read(file, 2)),
        Way::new("checked", || scan(file, 2)),
        Way::new("checked, 1 thread", || scan(file, 1)),
    ];
    for round in 0..rounds {
        for turn in 0..ways.len() {
            let way = (round + turn) % ways.len();
            let way = &mut ways[way];
            assert!(forget(path), "the page cache was emptied before");
            let before = processor();
            way.seconds.push(time(|| (way.run)()).as_secs_f64());
            way.processor.extend(processor().zip(before).map(|(after, before)| after - before));
        }
    }
    println!(
        "\n| not in the page cache, {rounds} rounds | GB/s | slowest to fastest | of reading alone, median of rounds | worst to best | processor, s | goal | |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let floor = ways[0].seconds.clone();
    for way in ways {
        let gbs = |seconds: f64| rate(bytes, Duration::from_secs_f64(seconds));
        let mut rates: Vec<f64> = way.seconds.iter().copied().map(gbs).collect();
        rates.sort_by(f64::total_cmp);
        // Of one round, in which the disk was much the same.
        let mut shares: Vec<f64> =
            floor.iter().zip(&way.seconds).map(|(floor, own)| floor / own * 100.0).collect();
        shares.sort_by(f64::total_cmp);
        let share = median_of(shares.clone());
        let goal = match way.what {
            "checked" => format!("90 % | {}", verdict(share >= 90.0)),
            _ => "| ".to_owned(),
        };
        let busy = way
            .processor
            .first()
            .map_or_else(String::new, |_| format!("{:.2}", median_of(way.processor.clone())));
        println!(
            "| {} | {:.2} | {:.2}–{:.2} | {share:.0} % | {:.0}–{:.0} % | {busy} | {goal} |",
            way.what,
            median_of(rates.clone()),
            rates[0],
            rates[rates.len() - 1],
            shares[0],
            shares[shares.len() - 1],
        );
    }
}

fn write(path: &Path, bytes: u64) -> Duration {
    let pages = u32::try_from(bytes / PAGE as u64).unwrap() - 2;
    time(|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
        let spec = DatabaseSpec::new(1).with_page_size(PageSize::KIB_32).with_pages(pages);
        spec.with_uninitialised(0).write_to(&mut out).unwrap();
        out.flush().unwrap();
    })
}

/// A row whose floor is the rate of its own run.
fn row(what: &str, rate: f64, floor: f64, goal: f64) {
    let share = rate / floor * 100.0;
    let goal = if goal > 0.0 {
        format!("{goal:.0} % | {}", verdict(share >= goal))
    } else {
        "| ".to_owned()
    };
    println!("| {what} | {rate:.2} | {floor:.2} | {share:.0} % | {goal} |");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() {
    // `cargo test` runs it once to see that it works.
    let (bytes, times) = if is_wanted() {
        (number("STILLPOINT_BENCH_GIB").unwrap_or(4) << 30, 5)
    } else {
        (8 << 20, 1)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.edb");
    let written = write(&path, bytes);
    let file = File::open(&path).unwrap();
    println!("written at {:.2} GB/s\n", rate(bytes, written));
    if !std::env::args().any(|argument| argument == "cold") {
        hot(&file, bytes, times);
        holes(folder.path(), times);
    }
    if forget(&path) {
        let rounds = if is_wanted() { number("STILLPOINT_BENCH_ROUNDS").unwrap_or(9) } else { 1 };
        cold(&path, &file, bytes, usize::try_from(rounds).unwrap().max(1));
    }
}

/// What is in memory or in the page cache.
fn hot(file: &File, bytes: u64, times: usize) {
    let mut memory = vec![0; usize::try_from(bytes.min(256 << 20)).unwrap()];
    let len = memory.len() as u64;
    assert_eq!(file.read_at(0, &mut memory).unwrap() as u64, len);
    println!("| what | GB/s | floor | of the floor | goal | |");
    println!("|---|---|---|---|---|---|");
    let floor = rate(len, best(times, || _ = black_box(xor_sum(black_box(&memory)))));
    let with = |kernel: Kernel| {
        rate(len, best(times, || _ = black_box(checksums(black_box(&memory), kernel))))
    };
    row("checksum kernel, one core, from memory", with(block_checksum), floor, 60.0);
    let portable = with(block_checksum_portable);
    row("the same without SIMD", portable, floor, 0.0);
    let checked = rate(len, best(times, || pages(black_box(&memory))));
    row("whole pages, one core, from memory", checked, floor, 0.0);
    for threads in [1, 2] {
        let floor = rate(bytes, best(times, || read(file, threads)));
        let scanned = rate(bytes, best(times, || scan(file, threads)));
        let goal = if threads == 2 { 70.0 } else { 0.0 };
        row(&format!("a database in the page cache, {threads} threads"), scanned, floor, goal);
    }
    println!("\nportable kernel above 3 GB/s: {}", verdict(portable > 3.0));
}

/// Nothing of 1 TiB but 64 pages is there.
fn holes(folder: &Path, times: usize) {
    let sparse = folder.join("sparse.edb");
    write(&sparse, 66 * PAGE as u64);
    let file = File::options().read(true).write(true).open(&sparse).unwrap();
    if is_wanted() && file.set_len(1 << 40).is_ok() && file.next_data(1 << 30).unwrap() >= 1 << 40 {
        println!("1 TiB of holes: {:.2} ms", best(times, || scan(&file, 2)).as_secs_f64() * 1e3);
    }
}
