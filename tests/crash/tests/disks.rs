//! The campaign over the file systems of the kernel: snapshots of subvolumes and reflinks on btrfs, reflinks on XFS. Short: an
//! engine is killed around each call. With `CRASH_LONG=1` also before and after every append of a backup, and at random
//! instants.
//!
//! Each test runs this program anew in a mount namespace, with a file system of its own for everything temporary. Without root
//! it is skipped, unless `STILLPOINT_REQUIRE` has the file system in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stillpoint_crash::campaign::{Blow, Campaign, Outcome};
use stillpoint_crash::chance::{Dice, number};
use stillpoint_crash::engine::Storage;

/// Set for the program that runs inside, to the folder on the new file system.
const INSIDE: &str = "CRASH_DISK";

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Runs a test with a file system of this kind for everything temporary.
fn on(kind: &str, test: &str, work: impl FnOnce()) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let folder = PathBuf::from(folder);
        let (image, at) = (folder.join("i"), folder.join("m"));
        fs::File::create(&image).unwrap().set_len(4 << 30).unwrap();
        fs::create_dir(&at).unwrap();
        run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        run("mount", &["-o", "loop,noatime", image.to_str().unwrap(), at.to_str().unwrap()]);
        return work();
    }
    let may = fs::metadata("/proc/self").unwrap().uid() == 0
        && works("unshare", &["-m", "--propagation", "private", "true"])
        && works(&format!("mkfs.{kind}"), &["-V"])
        && Path::new("/dev/loop-control").exists();
    if !may {
        let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
        let is_required = required.split(',').any(|word| word.trim() == kind);
        assert!(!is_required, "{test} is required: no {kind} can be mounted here");
        println!("skipped: {test}: it mounts a file system, which needs root and mkfs.{kind}");
        return;
    }
    // From outside, the mount is gone afterwards, and the folder can be removed.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", folder.path().join("m"))
        .env(INSIDE, folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{test}:\n{told}\n{trouble}");
    print!("{told}");
}

fn judge(what: &str, outcome: &Outcome) {
    println!("{what}: {} expected, {} hit", outcome.expected, outcome.hit);
    assert!(outcome.wrong.is_empty(), "{what}: {:#?}", outcome.wrong);
    assert_eq!(outcome.hit, outcome.expected, "{what}: places that were never come to");
    assert_ne!(outcome.expected, 0, "{what}: nothing was tried");
}

fn strike(storage: Storage) {
    let campaign = Campaign {
        agent: PathBuf::from(env!("CARGO_BIN_EXE_crash-agent")),
        engine: PathBuf::from(env!("CARGO_BIN_EXE_crash-engine")),
        at_once: number("CRASH_AT_ONCE").and_then(|n| usize::try_from(n).ok()).unwrap_or(4),
        freeze_limit: 2000,
        storage,
    };
    let calls = [
        "prepare.after",
        "freeze.after",
        "commit.before",
        "commit.after",
        "settle.after",
        "put_doc.before",
        "complete.before",
        "complete.after",
    ];
    let blows: Vec<_> = calls.iter().map(|place| Blow::At((*place).to_owned())).collect();
    judge(&format!("calls, {}", storage.word()), &campaign.strike(&blows, None));
    if number("CRASH_LONG") != Some(1) {
        return;
    }
    let appends = campaign.undisturbed(1, None).unwrap().appends;
    let blows: Vec<_> = Campaign::places(appends, 1).into_iter().map(Blow::At).collect();
    judge(&format!("appends, {}", storage.word()), &campaign.strike(&blows, None));
    let seed = number("CRASH_SEED").unwrap_or_else(Dice::new_seed);
    println!("again: CRASH_SEED={seed}");
    let time = campaign.undisturbed(2, None).unwrap().time.max(Duration::from_millis(100));
    let blows = Campaign::instants(seed, 100, time * 3 / 2);
    judge(&format!("instants of seed {seed}, {}", storage.word()), &campaign.strike(&blows, None));
}

#[test]
fn snapshots_on_btrfs() {
    on("btrfs", "snapshots_on_btrfs", || strike(Storage::Subvolumes));
}

#[test]
fn reflinks_on_btrfs() {
    on("btrfs", "reflinks_on_btrfs", || strike(Storage::Reflinks));
}

#[test]
fn reflinks_on_xfs() {
    on("xfs", "reflinks_on_xfs", || strike(Storage::Reflinks));
}
