//! Running a test with file systems of its own: this program anew, in a mount namespace, so that mounts and loop devices
//! vanish with it, whatever happens.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Set for the program that runs inside.
const INSIDE: &str = "STILLPOINT_BTRFS_TEST_INSIDE";

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Why no such file system can be mounted here, if none can.
fn missing(kind: &str) -> Option<String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        Some("it mounts file systems, which needs root".to_owned())
    } else if !works("unshare", &["-m", "--propagation", "private", "true"]) {
        Some("this root may not make a mount namespace".to_owned())
    } else if !works(&format!("mkfs.{kind}"), &["-V"]) {
        Some(format!("`mkfs.{kind}` is not there"))
    } else if !Path::new("/dev/loop-control").exists() {
        Some("there are no loop devices".to_owned())
    } else {
        None
    }
}

/// Runs a test in a mount namespace, or says that it is skipped; that is a failure where `STILLPOINT_REQUIRE` has the kind of
/// file system in it.
pub(crate) fn inside(kind: &str, test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    if let Some(why) = missing(kind) {
        let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
        let is_required = required.split(',').any(|word| word.trim() == kind);
        assert!(!is_required, "{test} is required: {why}");
        println!("skipped: {test}: {why}");
        return;
    }
    // A folder with a mount on it cannot be removed from inside; from outside the mount is gone afterwards.
    let folders = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--include-ignored"])
        .env("TMPDIR", folders.path())
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{test}:\n{told}\n{trouble}");
    print!("{told}");
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output
}

/// Makes a file system of this kind in a file of a folder, which it fills as it is filled itself, and mounts it beside that.
pub(crate) fn mount_new(kind: &str, folder: &Path) -> PathBuf {
    let (image, at) = (folder.join("image"), folder.join("mnt"));
    fs::File::create(&image).unwrap().set_len(8 << 30).unwrap();
    fs::create_dir(&at).unwrap();
    run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
    run("mount", &["-o", "loop,noatime", image.to_str().unwrap(), at.to_str().unwrap()]);
    at
}
