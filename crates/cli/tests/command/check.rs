//! `provider check` and `plugin check`: either side of a backup on the operator's own folder, of which nothing changes and beside
//! which nothing stays.

#![allow(clippy::disallowed_methods, reason = "it waits for a process")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::support::{self, Lab, golden, list, ran, skip, text};

/// Set for the program that runs in a mount namespace of its own.
const INSIDE: &str = "STILLPOINT_CLI_TEST_INSIDE";

/// Names with their mode; of a file also when it was written, and what it holds.
type Names = BTreeMap<PathBuf, (u32, Option<(SystemTime, Vec<u8>)>)>;

/// Every name below a folder.
fn everything(below: &Path) -> Names {
    let (mut open, mut found) = (vec![below.to_owned()], BTreeMap::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let content = facts.is_file().then(|| {
                // The image of a file system changes with everything on it.
                let bytes =
                    if facts.len() < 1 << 30 { fs::read(&path).unwrap() } else { Vec::new() };
                (facts.modified().unwrap(), bytes)
            });
            if facts.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (facts.mode(), content));
        }
    }
    found
}

/// Runs, and looks that everything in the place is as it was.
fn leaves_nothing(lab: &Lab, args: &[&str]) -> (i32, Value) {
    let before = everything(&lab.root());
    let shown = lab.json(args);
    assert_eq!(everything(&lab.root()), before, "{args:?}: {:#}", shown.1);
    shown
}

fn ability<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let all = list(shown, "abilities");
    all.iter().find(|ability| ability["ability"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// The findings of a level, as text.
fn findings(shown: &Value, level: &str) -> Vec<String> {
    let all = list(shown, "findings").iter().filter(|finding| finding["level"] == level);
    all.map(|finding| {
        assert!(level == "ok" || !text(finding, "remedy").is_empty(), "{finding:#}");
        format!("{}: {}", text(finding, "area"), text(finding, "message"))
    })
    .collect()
}

/// The document without what differs from run to run.
fn still(lab: &Lab, shown: &Value) -> Value {
    let root = lab.root().display().to_string();
    let text = shown.to_string().replace(&root, "/srv");
    let mut shown: Value = serde_json::from_str(&text).unwrap();
    for time in shown["times"].as_array_mut().unwrap() {
        for field in ["median_ms", "worst_ms"] {
            assert!(time[field].as_f64().is_some_and(|ms| ms >= 0.0), "{time:#}");
            time[field] = json!(0.5);
        }
    }
    for finding in shown["findings"].as_array_mut().unwrap() {
        if finding["area"] == "space" {
            finding["message"] = json!("…");
        }
    }
    shown
}

#[test]
fn a_provider_says_what_it_can_do_and_leaves_nothing() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    let (code, shown) = leaves_nothing(&lab, &["provider", "check", "mail", "--rounds", "3"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["schema"], "stillpoint.check/1");
    assert_eq!(shown["usable"], true);
    assert_eq!(ability(&shown, "clone")["can"], true);
    assert!(shown["cases"]["passed"].as_u64().unwrap() > 35, "{shown:#}");
    assert_eq!(list(&shown["cases"], "failed").len(), 0, "{shown:#}");
    let calls: Vec<_> = list(&shown, "times").iter().map(|time| text(time, "call")).collect();
    assert_eq!(calls, ["prepare", "commit", "settle", "discard"]);
    assert!(list(&shown, "times").iter().all(|time| time["rounds"] == 3), "{shown:#}");
    // Copies or clones: what is told of a freeze goes with it, and is no fault where nobody freezes.
    assert_eq!(shown["freeze"]["fits"], ability(&shown, "instant")["can"], "{shown:#}");
    if ability(&shown, "instant")["can"] == false {
        golden("provider_check", &still(&lab, &shown));
    }
    let words = lab.run(["provider", "check", "mail", "--rounds", "1"]);
    assert_eq!(words.code, 0, "{words:?}");
    assert!(words.stdout.ends_with("a backup can be made with it\n"), "{words:?}");
    for part in ["can ", "cannot ", "commit", "median", "rules kept"] {
        assert!(words.stdout.contains(part), "{part}: {words:?}");
    }
}

#[test]
fn a_folder_without_databases_and_a_state_file_serve_as_well() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("plain/in")).unwrap();
    fs::write(lab.path("plain/in/one"), b"something").unwrap();
    let (code, shown) = leaves_nothing(&lab, &["provider", "check", "plain", "--rounds", "1"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["measured"], json!({"files": 1, "bytes": 9, "of_files": 1, "of_bytes": 9}));
    let (code, shown) = leaves_nothing(&lab, &["plugin", "check", "plain"]);
    assert_eq!(code, 1, "{shown:#}");
    assert!(findings(&shown, "error")[0].contains("[check.no_database]"), "{shown:#}");

    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let store = everything(&lab.path("state.store"));
    let (code, shown) = lab.json(["provider", "check", "--rounds", "1"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(everything(&lab.path("state.store")), store);
    let (code, shown) = lab.json(["plugin", "check", "--rounds", "1"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(lab.run(["topology"]).code, 0);
}

#[test]
fn a_plug_in_says_what_it_can_do_and_what_is_missing() {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01", "DB02"]);
    let (code, shown) = leaves_nothing(&lab, &["plugin", "check", "mail", "--rounds", "2"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(ability(&shown, "freeze")["can"], true);
    assert_eq!(ability(&shown, "snap")["can"], false);
    assert!(shown["cases"]["passed"].as_u64().unwrap() > 20, "{shown:#}");
    golden("plugin_check", &still(&lab, &shown));
    // One that cannot be recovered is told with its reason; the other is still good.
    for log in support::files(&mail.join("DB01")) {
        if log.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(log).unwrap();
        }
    }
    let (code, shown) = leaves_nothing(&lab, &["plugin", "check", "mail", "--rounds", "1"]);
    assert_eq!(code, 3, "{shown:#}");
    assert_eq!(shown["usable"], true);
    assert!(findings(&shown, "warning")[0].starts_with("database DB01: "), "{shown:#}");
}

#[test]
fn wrong_input_at_every_door() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    fs::write(lab.path("file"), "x").unwrap();
    fs::create_dir(lab.path("empty")).unwrap();
    for side in ["provider", "plugin"] {
        for (args, exit, code) in [
            (&["missing"][..], 1, "source.not_found"),
            (&["file"], 1, "source.not_a_folder"),
            (&[], 1, "state.not_found"),
            (&["mail", "--source", "empty"], 2, "cli.usage"),
            (&["mail", "--rounds", "0"], 2, "cli.usage"),
            (&["mail", "--rounds", "many"], 2, "cli.usage"),
            (&["mail", "--store", "mail/in"], 1, "store.inside_source"),
            (&["mail", "--store", "file"], 1, "store.not_a_folder"),
        ] {
            let args = [&[side, "check"], args].concat();
            let (found, shown) = leaves_nothing(&lab, &args);
            assert_eq!(found, exit, "{args:?}: {shown:#}");
            assert_eq!(shown["error"]["code"], code, "{args:?}: {shown:#}");
        }
    }
    let (code, shown) =
        leaves_nothing(&lab, &["provider", "check", "mail", "--freeze-limit", "0s"]);
    assert_eq!((code, &shown["error"]["code"]), (2, &json!("cli.usage")), "{shown:#}");
    let (code, shown) = leaves_nothing(&lab, &["provider", "check", "empty"]);
    assert_eq!(code, 1, "{shown:#}");
    assert!(findings(&shown, "error")[0].contains("[check.no_file]"), "{shown:#}");
    // A limit that is asked for has to be kept, by copies it is not.
    let limited = ["provider", "check", "mail", "--freeze-limit", "1ms"];
    let (code, shown) = leaves_nothing(&lab, &limited);
    assert_eq!(code, 1, "{shown:#}");
    assert_eq!(shown["usable"], false);
    assert!(findings(&shown, "error")[0].contains("[check.freeze_limit]"), "{shown:#}");
    // Nothing can be made there, by anybody.
    let (code, shown) =
        leaves_nothing(&lab, &["provider", "check", "mail", "--store", "/proc/store"]);
    assert_eq!(code, 1, "{shown:#}");
    assert!(findings(&shown, "error")[0].contains("[check.no_store]"), "{shown:#}");
}

#[test]
fn what_is_no_btrfs_is_refused_as_that_and_nothing_is_made() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    // In memory, so that it surely is none.
    let memory = tempfile::Builder::new().prefix("stillpoint-cli").tempdir_in("/dev/shm").unwrap();
    let mail = memory.path().join("mail");
    fs::create_dir(&mail).unwrap();
    fs::copy(support::file(&lab.path("mail"), "DB01.edb"), mail.join("DB01.edb")).unwrap();
    let (mail, store) = (mail.to_str().unwrap(), memory.path().join("store"));
    let options = [mail, "--storage", "btrfs", "--store", store.to_str().unwrap()];
    let before = everything(memory.path());
    let (code, shown) = leaves_nothing(&lab, &[&["provider", "check"], &options[..]].concat());
    assert_eq!(code, 1, "{shown:#}");
    assert!(findings(&shown, "error")[0].contains("does not lie on a btrfs"), "{shown:#}");
    assert!(shown.to_string().contains("It is no btrfs"), "{shown:#}");
    let (code, shown) = leaves_nothing(&lab, &[&["protect"], &options[..]].concat());
    assert_eq!(code, 1, "{shown:#}");
    assert!(text(&shown["error"], "remedy").contains("no btrfs"), "{shown:#}");
    assert_eq!(everything(memory.path()), before, "no store, and no state file either");
}

#[test]
fn without_rights_it_is_said() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skip("root", "it runs the command as somebody else");
    }
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    fs::set_permissions(lab.root(), fs::Permissions::from_mode(0o755)).unwrap();
    // The command itself has to be where anybody can run it.
    let command = lab.path("stillpoint");
    fs::copy(support::STILLPOINT, &command).unwrap();
    let before = everything(&lab.root());
    let as_nobody = |args: &[&str]| {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&command);
        lab.tame(nobody.args(args).arg("--json"));
        let ran = ran(&mut nobody);
        (ran.code, ran.json())
    };
    let (code, shown) = as_nobody(&["provider", "check", "mail"]);
    assert_eq!(code, 1, "{shown:#}");
    assert!(findings(&shown, "error")[0].contains("[check.no_store]"), "{shown:#}");
    fs::set_permissions(&mail, fs::Permissions::from_mode(0o700)).unwrap();
    for side in ["provider", "plugin"] {
        let (code, shown) = as_nobody(&[side, "check", "mail"]);
        assert_eq!(code, 1, "{shown:#}");
        assert_eq!(shown["error"]["code"], "source.unreadable", "{shown:#}");
    }
    fs::set_permissions(&mail, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(everything(&lab.root()), before);
}

/// Begins a check that takes long, and waits until it has made something.
fn begin(lab: &Lab, options: &[&str]) -> Child {
    let args = ["provider", "check", "mail", "--rounds", "1000", "--json"];
    let mut command = lab.command(args.iter().chain(options));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !is_at_work(&lab.root()) {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", child.wait_with_output());
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Whether a set is under way in the store of a check.
fn is_at_work(root: &Path) -> bool {
    let entries = fs::read_dir(root).unwrap().flatten();
    let is_trial = |name: &str| name.starts_with(".stillpoint-check-");
    let mut trials = entries.filter(|entry| is_trial(&entry.file_name().to_string_lossy()));
    trials.any(|trial| {
        let sets = fs::read_dir(trial.path().join("store/sets"));
        sets.is_ok_and(|mut sets| sets.next().is_some())
    })
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

fn told(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn an_interrupt_takes_everything_away() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let before = everything(&lab.root());
    let child = begin(&lab, &[]);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let shown = told(&output);
    assert_eq!(output.status.code(), Some(1), "{shown:#}");
    assert_eq!(shown["error"]["code"], "cli.interrupted", "{shown:#}");
    assert_eq!(everything(&lab.root()), before);
}

#[test]
fn what_a_killed_check_left_goes_with_the_next() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let before = everything(&lab.root());
    let mut child = begin(&lab, &[]);
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_ne!(everything(&lab.root()), before);
    let (code, shown) = lab.json(["provider", "check", "mail", "--rounds", "1"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(everything(&lab.root()), before);
    // One that is at work is left alone.
    let child = begin(&lab, &[]);
    let (code, shown) = lab.json(["provider", "check", "mail", "--rounds", "1"]);
    assert_eq!(code, 0, "{shown:#}");
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output)["error"]["code"], "cli.interrupted");
    assert_eq!(everything(&lab.root()), before);
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a test of this file anew in a mount namespace; says that it is skipped where that cannot be.
fn inside(test: &str, needs: &str, work: fn(&Lab)) {
    if std::env::var_os(INSIDE).is_some() {
        return work(&Lab::new());
    }
    let may = fs::metadata("/proc/self").unwrap().uid() == 0
        && works("unshare", &["-m", "--propagation", "private", "true"])
        && (needs == "root" || works(&format!("mkfs.{needs}"), &["-V"]));
    if !may {
        return skip(needs, &format!("{test} mounts file systems"));
    }
    let folders = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("check::{test}"), "--nocapture"])
        .env("TMPDIR", folders.path())
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{trouble}");
}

fn mount(arguments: &[&str], at: &Path) {
    fs::create_dir_all(at).unwrap();
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

#[test]
fn a_full_or_read_only_disk_is_said_and_nothing_stays() {
    inside("a_full_or_read_only_disk_is_said_and_nothing_stays", "root", |lab| {
        lab.mail(&["DB01"]);
        let small = lab.path("small");
        mount(&["-t", "tmpfs", "-o", "size=3m", "tmpfs"], &small);
        let check = ["provider", "check", "mail", "--store", "small/store", "--rounds", "1"];
        let (code, shown) = leaves_nothing(lab, &check);
        assert_eq!(code, 1, "{shown:#}");
        assert!(findings(&shown, "error")[0].contains("[storage.no_space]"), "{shown:#}");
        // Not even a folder fits.
        mount(&["-t", "tmpfs", "-o", "remount,size=4k", "tmpfs"], &small);
        let (code, shown) = leaves_nothing(lab, &check);
        assert_eq!(code, 1, "{shown:#}");
        assert!(findings(&shown, "error")[0].contains("[storage.no_space]"), "{shown:#}");
        mount(&["-t", "tmpfs", "-o", "remount,size=99m,ro", "tmpfs"], &small);
        let (code, shown) = leaves_nothing(lab, &check);
        assert_eq!(code, 1, "{shown:#}");
        assert!(findings(&shown, "error")[0].contains("[check.no_store]"), "{shown:#}");
        assert!(findings(&shown, "error")[0].contains("Read-only"), "{shown:#}");
    });
}

#[test]
fn a_subvolume_of_btrfs_is_tried_by_snapshots() {
    inside("a_subvolume_of_btrfs_is_tried_by_snapshots", "btrfs", |lab| {
        let image = lab.path("image");
        fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
        let image = image.to_str().unwrap();
        assert!(works("mkfs.btrfs", &["-q", image]));
        let at = lab.path("mnt");
        mount(&["-o", "loop", image], &at);
        let mail = at.join("mail");
        assert!(works("btrfs", &["subvolume", "create", mail.to_str().unwrap()]));
        for file in support::files(&lab.mail(&["DB01"])) {
            fs::copy(&file, mail.join(file.file_name().unwrap())).unwrap();
        }
        let subvolumes = || {
            let listed = Command::new("btrfs").args(["subvolume", "list"]).arg(&at).output();
            String::from_utf8(listed.unwrap().stdout).unwrap().lines().count()
        };
        let before = everything(&at);
        let btrfs = ["--storage", "btrfs", "--store", "mnt/store"];
        let args = [&["provider", "check", "mnt/mail", "--rounds", "2"], &btrfs[..]].concat();
        let (code, shown) = lab.json(&args);
        assert_eq!(code, 0, "{shown:#}");
        assert_eq!(ability(&shown, "instant")["can"], true);
        assert_eq!(shown["freeze"]["fits"], true, "{shown:#}");
        assert!(shown["cases"]["passed"].as_u64().unwrap() > 35, "{shown:#}");
        assert_eq!((everything(&at), subvolumes()), (before.clone(), 1));

        // Also when it is interrupted, and when it was killed.
        for (name, exit) in [("-INT", Some(1)), ("-KILL", None)] {
            let args =
                [&["provider", "check", "mnt/mail", "--rounds", "1000", "--json"], &btrfs[..]];
            let mut command = lab.command(args.concat());
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            while !is_at_work(&at) {
                assert!(child.try_wait().unwrap().is_none(), "{:?}", child.wait_with_output());
                std::thread::sleep(Duration::from_millis(1));
            }
            signal(&child, name);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), exit, "{output:?}");
            if exit.is_none() {
                let (code, shown) = lab.json(args_of(&btrfs));
                assert_eq!(code, 0, "{shown:#}");
            }
            assert_eq!((everything(&at), subvolumes()), (before.clone(), 1), "{name}");
        }

        // A folder that is no subvolume, and a store elsewhere.
        fs::create_dir(at.join("plain")).unwrap();
        fs::write(at.join("plain/file"), b"x").unwrap();
        for (folder, store) in [("mnt/plain", "mnt/store"), ("mnt/mail", "elsewhere")] {
            let args = ["provider", "check", folder, "--storage", "btrfs", "--store", store];
            let (code, shown) = lab.json(args);
            assert_eq!(code, 1, "{shown:#}");
            assert_eq!(findings(&shown, "error").len(), 1, "{shown:#}");
            assert!(!lab.path(store).exists());
        }
    });
}

fn args_of<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["provider", "check", "mnt/mail", "--rounds", "1"], options].concat()
}
