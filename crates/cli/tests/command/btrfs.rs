//! The command over a btrfs: copies are snapshots of the subvolume that is protected. Skipped without root, unless
//! `STILLPOINT_REQUIRE` has `btrfs` in it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Set for the program that runs in a mount namespace of its own.
const INSIDE: &str = "STILLPOINT_CLI_TEST_INSIDE";
const TEST: &str = "btrfs::a_subvolume_is_protected_by_snapshots_and_restored_from_them";

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[test]
fn a_subvolume_is_protected_by_snapshots_and_restored_from_them() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let may = fs::metadata("/proc/self").unwrap().uid() == 0
        && works("unshare", &["-m", "--propagation", "private", "true"])
        && works("mkfs.btrfs", &["-V"])
        && Path::new("/dev/loop-control").exists();
    if !may {
        let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
        let is_required = required.split(',').any(|word| word.trim() == "btrfs");
        assert!(!is_required, "{TEST} is required: no btrfs can be mounted here");
        println!("skipped: {TEST}: it mounts a btrfs, which needs root and btrfs-progs");
        return;
    }
    // A folder with a mount on it cannot be removed from inside; from outside the mount is gone afterwards.
    let folders = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env("TMPDIR", folders.path())
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{trouble}");
}

fn stillpoint(at: &Path, arguments: &[&str]) -> Output {
    let state = at.with_file_name("state.db");
    Command::new(env!("CARGO_BIN_EXE_stillpoint"))
        .args(arguments)
        .args(["--quiet", "--state", state.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn inside() {
    let place = tempfile::tempdir().unwrap();
    let (image, at) = (place.path().join("image"), place.path().join("mnt"));
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    fs::create_dir(&at).unwrap();
    run("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
    let (mail, store) = (at.join("mail"), at.join("store"));
    run("btrfs", &["subvolume", "create", mail.to_str().unwrap()]);

    // Something to protect: what the command makes by itself when nobody names anything.
    let demo = place.path().join("demo.db");
    let output = Command::new(env!("CARGO_BIN_EXE_stillpoint"))
        .args(["protect", "--quiet", "--state", demo.to_str().unwrap()])
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let made = databases(place.path());
    let from = made.iter().find(|path| !path.starts_with(&at)).expect("it made databases");
    run("cp", &["-a", from.parent().unwrap().to_str().unwrap(), mail.join("db").to_str().unwrap()]);
    let original: Vec<_> = databases(&mail).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!original.is_empty());

    let (mail, store) = (mail.to_str().unwrap(), store.to_str().unwrap());
    let output = stillpoint(&at, &["protect", mail, "--store", store, "--storage", "btrfs"]);
    assert!(output.status.success(), "{output:?}");
    let sets: Vec<_> = fs::read_dir(at.join("store/sets")).unwrap().map(Result::unwrap).collect();
    assert_eq!(sets.len(), 1, "{sets:?}");
    run("btrfs", &["subvolume", "show", sets[0].path().join("m0/v").to_str().unwrap()]);

    // It is remembered, and nothing else is said of the same state file.
    let output = stillpoint(&at, &["backup"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(at.join("store/sets")).unwrap().count(), 2);
    let output = stillpoint(&at, &["backup", "--storage", "files", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("state.other_storage"), "{output:?}");

    for path in databases(Path::new(mail)) {
        fs::write(path, b"broken").unwrap();
    }
    let back = at.join("back");
    let point = first_database(Path::new(mail));
    let output =
        stillpoint(&at, &["restore", &format!("latest:{point}"), "--to", back.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let restored: Vec<_> = databases(&back).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!restored.is_empty());
    assert!(restored.iter().all(|bytes| original.contains(bytes)), "not what was protected");

    // A folder that is no subvolume is refused with the way out.
    fs::create_dir(at.join("plain")).unwrap();
    let plain = at.join("plain");
    let output = Command::new(env!("CARGO_BIN_EXE_stillpoint"))
        .args(["protect", plain.to_str().unwrap(), "--store", at.join("other").to_str().unwrap()])
        .args(["--storage", "btrfs", "--json", "--state"])
        .arg(place.path().join("plain.db"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no subvolume"), "{output:?}");
}

/// Every database below a folder, in order.
fn databases(below: &Path) -> Vec<std::path::PathBuf> {
    let (mut open, mut found) = (vec![below.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "edb") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn first_database(below: &Path) -> String {
    let first = databases(below).remove(0);
    first.file_stem().unwrap().to_str().unwrap().to_owned()
}
