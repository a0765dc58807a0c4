//! What snapshots of plain file systems cost, beside `cp` and beside the kernel's own call.
//!
//! `cargo bench -p stillpoint-benches --bench storage` prints one table. It makes 4 GiB in the temporary folder (`TMPDIR`), and as
//! root file systems of its own on loop devices in files there, 10 GiB each; `STILLPOINT_BENCH_GIB` makes all of it smaller, and
//! `-- copy`, `-- reflink` and `-- listing` do one part.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the real clock and runs programs")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stillpoint::context::{Cx, HostPath};
use stillpoint::model::id::SnapshotRef;
use stillpoint::storage::{MemberRole, MemberSpec, PrepareSpec, SnapshotProvider};
use stillpoint::workflow::TokioSeams;
use stillpoint_benches::table::{is_wanted, time, verdict};
use stillpoint_storage_fs::{CloneMode, FsConfig, FsProvider};

/// Set for the program that runs in a mount namespace of its own, to the kind of file system.
const INSIDE: &str = "STILLPOINT_BENCH_INSIDE";

/// Rounds of each way; the median counts.
const ROUNDS: usize = 5;
const EXTENTS: u64 = 1000;

/// One file to be taken, and a provider to take it.
struct Lab {
    runtime: tokio::runtime::Runtime,
    cx: Cx,
    provider: FsProvider,
    at: PathBuf,
}

impl Lab {
    fn new(at: &Path, mode: CloneMode) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        fs::create_dir_all(at.join("data")).unwrap();
        let config =
            FsConfig::new("files".parse().unwrap(), "lab".parse().unwrap(), at.join("store"))
                .with_volume("data".parse().unwrap(), at.join("data"))
                .with_mode(mode);
        Self { runtime, cx, provider: FsProvider::open(&config).unwrap(), at: at.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.at.join("data/DB.edb")
    }

    /// Takes the file under this token; how long the commit took, and what it made.
    fn take(&self, token: &str) -> (Duration, SnapshotRef) {
        let file = HostPath::from_native("lab".parse().unwrap(), &self.file()).unwrap();
        let volume = self.provider.known_volumes().next().unwrap().1.clone();
        let member = MemberSpec::new(volume, MemberRole::DataAndLog, vec![file]);
        let spec = PrepareSpec::new(token.parse().unwrap(), token).with_member(member);
        let prepared = self.runtime.block_on(self.provider.prepare(&self.cx, &spec)).unwrap();
        let took = time(|| {
            self.runtime.block_on(self.provider.commit(&self.cx, &prepared)).unwrap();
        });
        let made = self.runtime.block_on(self.provider.settle(&self.cx, &prepared)).unwrap();
        (took, made[0].reference())
    }

    fn delete(&self, snapshot: &SnapshotRef) {
        self.runtime.block_on(self.provider.delete(&self.cx, snapshot)).unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// A way to take a file; each round removes what it has made, and nothing waits to be written when the next begins.
type Way<'a> = (String, Box<dyn Fn(usize) -> Duration + 'a>);

/// Each way in turn, round by round, and a row for each: against the first, the last with a goal.
fn compare(at: &Path, ways: &[Way<'_>], goal: f64) {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..if is_wanted() { ROUNDS } else { 1 } {
        for turn in 0..ways.len() {
            let way = (round + turn) % ways.len();
            times[way].push((ways[way].1)(round));
            rustix::fs::syncfs(File::open(at).unwrap()).unwrap();
        }
    }
    let floor = median(times[0].clone());
    for (index, ((what, _), times)) in ways.iter().zip(times).enumerate() {
        let (best, worst) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        let took = median(times);
        let ratio = took.as_secs_f64() / floor.as_secs_f64();
        let goal = if index + 1 == ways.len() {
            format!("{goal} | {}", verdict(ratio <= goal))
        } else {
            "| ".to_owned()
        };
        println!("| {what} | {took:.1?} | {best:.1?}–{worst:.1?} | {ratio:.2} | {goal} |");
    }
}

fn by_cp(lab: &Lab, reflink: &str) -> Duration {
    let copy = lab.at.join("copy.edb");
    let (from, to) = (lab.file(), copy.to_str().unwrap().to_owned());
    let took = time(|| run("cp", &[&format!("--reflink={reflink}"), from.to_str().unwrap(), &to]));
    fs::remove_file(&copy).unwrap();
    took
}

fn through_the_provider(lab: &Lab, round: usize) -> Duration {
    let (took, made) = lab.take(&format!("round-{round}"));
    lab.delete(&made);
    took
}

/// Bytes that no file system can leave out.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        all.extend_from_slice(&state.to_le_bytes());
    }
    all
}

fn write(path: &Path, piece: u64, pieces: u64, hole: u64) {
    let file = File::create(path).unwrap();
    let piece = noise(usize::try_from(piece).unwrap());
    for index in 0..pieces {
        file.write_all_at(&piece, index * (piece.len() as u64 + hole)).unwrap();
    }
    file.sync_all().unwrap();
}

/// What is copied is hashed on the way, so that it can be checked ever after.
fn copy(bytes: u64) {
    let place = tempfile::tempdir().unwrap();
    let lab = Lab::new(place.path(), CloneMode::Copy);
    write(&lab.file(), 1 << 20, bytes >> 20, 0);
    let gib = bytes >> 30;
    let ways: [Way<'_>; 2] = [
        (format!("`cp --reflink=never` of {gib} GiB"), Box::new(|_| by_cp(&lab, "never"))),
        ("copy through the provider".into(), Box::new(|round| through_the_provider(&lab, round))),
    ];
    compare(place.path(), &ways, 1.15);
}

/// A clone of a file in many extents, on a file system of this kind made for it.
fn reflink(kind: &str, bytes: u64) {
    let place = tempfile::tempdir().unwrap();
    let (image, at) = (place.path().join("image"), place.path().join("mnt"));
    File::create(&image).unwrap().set_len(bytes + (4 << 30)).unwrap();
    fs::create_dir(&at).unwrap();
    run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
    run("mount", &["-o", "loop,noatime", image.to_str().unwrap(), at.to_str().unwrap()]);
    let lab = Lab::new(&at, CloneMode::Reflink);
    write(&lab.file(), bytes / EXTENTS / 4096 * 4096, EXTENTS, 4096);
    let bare = |_| {
        let copy = lab.at.join("bare.edb");
        let (from, to) = (File::open(lab.file()).unwrap(), File::create(&copy).unwrap());
        let took = time(|| rustix::fs::ioctl_ficlone(&to, &from).unwrap());
        fs::remove_file(&copy).unwrap();
        took
    };
    let gib = bytes >> 30;
    let ways: [Way<'_>; 3] = [
        (
            format!("{kind}: `cp --reflink=always` of {gib} GiB in {EXTENTS} extents"),
            Box::new(|_| by_cp(&lab, "always")),
        ),
        (format!("{kind}: the bare call"), Box::new(bare)),
        (
            format!("{kind}: reflink through the provider"),
            Box::new(|round| through_the_provider(&lab, round)),
        ),
    ];
    compare(&at, &ways, 1.2);
}

/// Many snapshots listed, and one of them found.
fn listing(count: usize) {
    let place = tempfile::tempdir().unwrap();
    let lab = Lab::new(place.path(), CloneMode::Copy);
    fs::write(lab.file(), b"a database").unwrap();
    let _first = lab.take("first");
    // One after the other, through the provider, would take minutes; what is listed is the same.
    let sets = lab.at.join("store/sets");
    let record = fs::read_to_string(sets.join("first/set.json")).unwrap();
    for index in 1..count {
        let token = format!("more-{index}");
        fs::create_dir_all(sets.join(&token).join("m0")).unwrap();
        fs::write(sets.join(&token).join("m0/DB.edb"), b"a database").unwrap();
        let record = record.replace("\"first\"", &format!("\"{token}\""));
        fs::write(sets.join(&token).join("set.json"), record).unwrap();
    }
    let volume = lab.provider.known_volumes().next().unwrap().1.clone();
    let listed = time(|| {
        lab.runtime.block_on(async {
            let (mut page, mut found) = (None, 0);
            loop {
                let listing = lab.provider.list(&lab.cx, &volume, page).await.unwrap();
                found += listing.snapshots.iter().filter(|s| s.token.is_some()).count();
                page = listing.next;
                if page.is_none() {
                    break;
                }
            }
            assert_eq!(found, count);
        });
    });
    let names = time(|| assert_eq!(fs::read_dir(&sets).unwrap().count(), count));
    let met = verdict(listed <= Duration::from_secs(1));
    println!(
        "| {count} snapshots listed | {listed:.1?} | names alone {names:.1?} | | 1 s | {met} |"
    );
    let token = format!("more-{}", count / 2).parse().unwrap();
    let found = time(|| {
        lab.runtime.block_on(lab.provider.find(&lab.cx, &token)).unwrap();
    });
    println!("| one found among them by its token | {found:.1?} | | | | |");
}

/// Runs this program anew where mounts and loop devices end with it.
fn inside(kind: &str) {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let makes = Command::new(format!("mkfs.{kind}")).arg("-V").output();
    if !is_root || !makes.is_ok_and(|output| output.status.success()) {
        println!("| {kind}: skipped, it needs root and `mkfs.{kind}` | | | | | |");
        return;
    }
    let folders = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--bench", "reflink"])
        .env("TMPDIR", folders.path())
        .env(INSIDE, kind)
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{kind}");
}

fn main() {
    let gib = std::env::var("STILLPOINT_BENCH_GIB").ok().and_then(|text| text.parse::<u64>().ok());
    if let Ok(kind) = std::env::var(INSIDE) {
        return reflink(&kind, gib.unwrap_or(10) << 30);
    }
    let parts = ["copy", "reflink", "listing"];
    let named = std::env::args().any(|argument| parts.contains(&argument.as_str()));
    let wants = |part: &str| !named || std::env::args().any(|argument| argument == part);
    println!("| what | median | best to worst | ÷ the first | goal | |\n|---|---|---|---|---|---|");
    if wants("copy") {
        copy(if is_wanted() { gib.unwrap_or(4) << 30 } else { 8 << 20 });
    }
    // `cargo test` runs it once to see that it works; mounts are for `cargo bench`.
    if wants("reflink") && is_wanted() {
        inside("xfs");
        inside("btrfs");
    }
    if wants("listing") {
        listing(if is_wanted() { 10_000 } else { 100 });
    }
}
