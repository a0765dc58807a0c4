//! Wrong input at every door: a clear answer, nothing touched, no panic.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::support::{Lab, STILLPOINT, database, list, ran, skip, text};

/// Runs, wants this exit and this code, in JSON and in words, and gives the message.
fn refused(lab: &Lab, args: &[&str], exit: i32, code: &str) -> String {
    let (found, shown) = lab.json(args);
    assert_eq!(found, exit, "{args:?}: {shown:#}");
    assert_eq!(shown["error"]["code"], code, "{args:?}: {shown:#}");
    assert!(!text(&shown["error"], "remedy").is_empty(), "{shown:#}");
    let words = lab.run(args);
    assert_eq!(words.code, exit, "{words:?}");
    assert!(words.stderr.contains(&format!("[{code}]")), "{words:?}");
    assert!(!words.stderr.contains("panicked"), "{words:?}");
    text(&shown["error"], "message").to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn sources_that_are_none() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "x").unwrap();
    fs::create_dir(lab.path("empty")).unwrap();
    refused(&lab, &["protect", "missing"], 1, "source.not_found");
    refused(&lab, &["protect", "file"], 1, "source.not_a_folder");
    assert_eq!(lab.run(["protect", ""]).code, 2);
    refused(&lab, &["discover", "missing"], 1, "source.not_found");
    refused(&lab, &["protect", "empty", "--source", "file"], 2, "cli.usage");
    assert_eq!(names(&lab.root()), ["empty", "file"], "nothing was made");
    refused(&lab, &["protect", "empty"], 1, "source.no_databases");
    assert_eq!(names(&lab.root()), ["empty", "file"], "a state file would protect it for good");
}

/// What is not Unicode is told to be that: not to lead anywhere.
#[test]
fn paths_that_are_not_unicode() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let odd = |name: &[u8]| lab.path("").join(OsStr::from_bytes(name));
    let (state, store) = (odd(b"state\xff.db"), odd(b"store\xff"));
    for (option, path) in [("--state", &state), ("--store", &store), ("--source", &store)] {
        let mut command = Command::new(STILLPOINT);
        command.args(["protect", "--json"]).arg(option).arg(path);
        if option == "--source" {
            fs::create_dir(path).unwrap();
            fs::rename(lab.path("mail"), path.join("mail")).unwrap();
        } else {
            command.arg("mail");
        }
        lab.tame(&mut command);
        let ran = ran(&mut command);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.json()["error"]["code"], "path.invalid", "{ran:?}");
    }
    assert_eq!(fs::read_dir(lab.root()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn stores_in_the_wrong_place() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    fs::write(lab.path("file"), "x").unwrap();
    let message =
        refused(&lab, &["protect", "mail", "--store", "mail/s"], 1, "store.inside_source");
    assert!(message.contains("mail/s"), "{message}");
    refused(&lab, &["protect", "mail", "--store", "mail"], 1, "store.inside_source");
    refused(&lab, &["protect", "mail", "--store", "."], 1, "source.inside_store");
    refused(&lab, &["protect", "mail", "--store", "file"], 1, "store.not_a_folder");
    std::os::unix::fs::symlink(lab.path("mail"), lab.path("link")).unwrap();
    refused(&lab, &["protect", "mail", "--store", "link/s"], 1, "store.inside_source");
    assert_eq!(names(&lab.root()), ["file", "link", "mail"], "nothing was made");
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    refused(&lab, &["topology", "--store", "elsewhere"], 1, "state.other_store");
    fs::create_dir(lab.path("other")).unwrap();
    refused(&lab, &["protect", "other"], 1, "state.other_source");
}

#[test]
fn a_store_that_is_missing_is_never_replaced_unasked() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail", "--store", "kept"]).code, 0);
    let (kept, gone, beside) = (lab.path("kept"), lab.path("gone"), lab.path("state.store"));
    fs::rename(&kept, &gone).unwrap();
    let made = || {
        let mut names = names(&lab.root());
        names.retain(|name| name == "state.db" || !name.starts_with("state.db"));
        names
    };
    let commands = [
        &["topology"][..],
        &["verify", "--all"],
        &["restore", "latest:DB01", "--to", "back"],
        &["backup"],
        &["backup", "--dry-run"],
        &["protect", "mail"],
        &["protect", "mail", "--store", "kept"],
        &["policy", "create", "another"],
    ];
    for args in commands {
        let message = refused(&lab, args, 1, "store.missing");
        assert!(message.contains("kept"), "{message}");
        assert_eq!(made(), ["gone", "mail", "state.db"], "{args:?}: nothing was made");
    }
    // The disk is not mounted: what is there is an empty folder.
    fs::create_dir(&kept).unwrap();
    for args in commands {
        refused(&lab, args, 1, "store.missing");
        assert_eq!(names(&kept), Vec::<String>::new(), "{args:?}: nothing was made");
        assert!(!beside.exists(), "{args:?}");
    }
    let (code, shown) = lab.json(["doctor"]);
    assert_eq!(code, 1, "{shown:#}");
    assert!(text(&list(&shown, "findings")[0], "message").contains("[store.missing]"), "{shown:#}");
    // Commands that only read make no store where the operator says that it is, either.
    for args in [&["topology", "--store", "fresh"][..], &["verify", "--all", "--store", "fresh"]] {
        refused(&lab, args, 1, "store.missing");
        assert!(!lab.path("fresh").exists(), "{args:?}");
    }

    // Moved beside the state file it is found, and what is remembered stays.
    fs::remove_dir(&kept).unwrap();
    fs::rename(&gone, &beside).unwrap();
    assert_eq!(lab.run(["verify", "--all"]).code, 0);
    assert_eq!(lab.run(["backup"]).code, 0);
    fs::rename(&beside, &kept).unwrap();
    assert_eq!(lab.run(["verify", "--all"]).code, 0);
    // Moved elsewhere the operator says where to, once.
    let elsewhere = lab.path("elsewhere");
    fs::rename(&kept, &elsewhere).unwrap();
    assert_eq!(lab.run(["verify", "--all", "--store", "elsewhere"]).code, 0);
    refused(&lab, &["topology"], 1, "store.missing");
    assert_eq!(lab.run(["backup", "--store", "elsewhere"]).code, 0);
    assert_eq!(lab.run(["verify", "--all"]).code, 0);
    assert_eq!(made(), ["elsewhere", "mail", "state.db"]);
}

#[test]
fn state_files_that_are_none() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let with_state = |state: &str, args: &[&str]| {
        let mut command = Command::new(STILLPOINT);
        lab.tame(command.args(args).args(["--state", state, "--json"]));
        let ran = ran(&mut command);
        let shown = ran.json();
        (ran.code, text(&shown["error"], "code").to_owned())
    };
    fs::create_dir(lab.path("folder.db")).unwrap();
    assert_eq!(with_state("folder.db", &["protect", "mail"]), (1, "state.not_a_file".into()));
    assert_eq!(with_state("no/such.db", &["protect", "mail"]), (1, "state.no_folder".into()));
    for args in [
        &["topology"][..],
        &["jobs"],
        &["verify", "--all"],
        &["policy", "list"],
        &["group", "list"],
    ] {
        assert_eq!(with_state("absent.db", args), (1, "state.not_found".into()), "{args:?}");
    }
    assert_eq!(with_state("new.db", &["backup"]), (1, "state.no_source".into()));
    fs::write(lab.path("text.db"), "this is no database at all, but a text").unwrap();
    let (exit, code) = with_state("text.db", &["topology"]);
    assert!(exit == 1 && code.starts_with("state."), "{code}");
    assert_eq!(
        fs::read_to_string(lab.path("text.db")).unwrap(),
        "this is no database at all, but a text",
        "it is left as it was"
    );
    assert!(!lab.path("absent.db").exists() && !lab.path("new.db").exists());
}

#[test]
fn a_state_file_that_another_process_uses() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    // Others may share it, as the daemon does, and may have it alone.
    let shared = stillpoint::store_sqlite::SqliteStore::open(lab.path("state.db")).unwrap();
    assert_eq!(lab.run(["topology"]).code, 0);
    drop(shared);
    let held = stillpoint::store_sqlite::SqliteStore::open_alone(lab.path("state.db")).unwrap();
    // Side by side, as each waits a while for the other process to end.
    std::thread::scope(|scope| {
        for args in [&["topology"][..], &["protect", "mail"]] {
            scope.spawn(|| refused(&lab, args, 1, "state.in_use"));
        }
        let (code, shown) = lab.json(["doctor"]);
        assert_eq!(code, 1);
        let state = &list(&shown, "findings")[0];
        assert!(text(state, "message").contains("[state.in_use]"), "{shown:#}");
    });
    drop(held);
    assert_eq!(lab.run(["topology"]).code, 0);
}

/// A point whose backup is not over, as a process that died before the end of it leaves one.
#[tokio::test]
async fn a_provisional_point_is_restored_only_if_that_is_accepted() {
    use stillpoint::catalog::{Catalog as _, CatalogExt as _, PointQuery};
    use stillpoint::model::point::{PointFact, PointState};

    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let store = stillpoint::store_sqlite::SqliteStore::open(lab.path("state.db")).unwrap();
    let mut point = store.all_points(&PointQuery::all()).await.unwrap().remove(0);
    let removed = PointFact::Removed { point: point.id, at: point.taken_at };
    point.id = "11111111-2222-4333-8444-555555555555".parse().unwrap();
    point.state = PointState::Provisional;
    let facts = [removed, PointFact::Published(Box::new(point))];
    store.apply(&facts, None).await.unwrap();
    drop(store);
    let (_, topology) = lab.json(["topology"]);
    assert_eq!(database(&topology, "DB01")["protection"], "not_protected", "{topology:#}");
    let restore = ["restore", "11111111", "--to", "back"];
    refused(&lab, &restore, 1, "restore.provisional");
    assert!(!lab.path("back").exists());
    let (code, shown) = lab.json(restore.into_iter().chain(["--accept-provisional"]));
    assert_eq!(code, 3, "{shown:#}");
    let warnings = list(&shown["job"], "warnings");
    assert_eq!(warnings[0]["code"], "restore.provisional", "{shown:#}");
    assert!(lab.path("back").is_dir());
}

#[test]
fn points_and_jobs_that_are_none() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    refused(&lab, &["restore", "ffffffff-0000", "--to", "back"], 1, "point.unknown");
    refused(&lab, &["restore", "latest:nothing", "--to", "back"], 1, "database.unknown");
    refused(&lab, &["restore", "latest:", "--to", "back"], 1, "database.unknown");
    refused(&lab, &["restore", "", "--to", "back"], 1, "point.unknown");
    refused(&lab, &["verify", "zzz"], 1, "point.unknown");
    refused(&lab, &["jobs", "zzz"], 1, "job.unknown");
    refused(&lab, &["backup", "--group", "nobody"], 1, "group.unknown");
    refused(&lab, &["backup", "--policy", "nobody"], 1, "policy.unknown");
    refused(&lab, &["backup", "--database", "nobody"], 1, "database.unknown");
    fs::write(lab.path("file"), "x").unwrap();
    // There it would be another database of what is protected.
    for inside in ["mail", "mail/back", "mail/../mail/back/again"] {
        let there = ["restore", "latest:DB01", "--to", inside];
        refused(&lab, &there, 1, "restore.target_protected");
    }
    assert!(!lab.path("mail/back").exists());
    let to_a_file = ["restore", "latest:DB01", "--to", "file"];
    refused(&lab, &to_a_file, 1, "restore.target_not_a_folder");
    let (_, jobs) = lab.json(["jobs"]);
    assert_eq!(list(&jobs, "jobs").len(), 1, "nothing was begun");

    // Back up until two points begin alike; there are 16 beginnings.
    let mut first = std::collections::BTreeSet::new();
    let ambiguous = loop {
        let (_, topology) = lab.json(["topology"]);
        let mut twice = None;
        first.clear();
        for database in list(&topology, "databases") {
            for point in list(database, "points") {
                let begin = text(point, "point")[..1].to_owned();
                if !first.insert(begin.clone()) {
                    twice = Some(begin);
                }
            }
        }
        match twice {
            Some(begin) => break begin,
            None => assert_eq!(lab.run(["backup"]).code, 0),
        }
    };
    refused(&lab, &["verify", &ambiguous], 1, "point.ambiguous");
}

#[test]
fn command_lines_that_make_no_sense() {
    let lab = Lab::new();
    for args in [
        &["protect", "--json=yes"][..],
        &["fly"],
        &["restore", "x"],
        &["restore", "x", "--to", "a", "--in-place"],
        &["verify"],
        &["verify", "x", "--all"],
        &["backup", "--kind", "huge"],
        &["backup", "--group", "a", "--database", "b"],
        &["policy", "create", "p", "--verify-cap", "4"],
        &["protect", "mail", "--keep"],
    ] {
        let shown = ran(lab.command(args.iter()).arg("--json"));
        assert_eq!(shown.code, 2, "{args:?}: {shown:?}");
        let shown = shown.json();
        assert_eq!(shown["schema"], "stillpoint.error/1");
        assert_eq!(shown["error"]["code"], "cli.usage");
        let words = lab.run(args.iter());
        assert_eq!((words.code, words.stdout.as_str()), (2, ""), "{words:?}");
        assert!(words.stderr.starts_with("error: "), "{words:?}");
    }
    assert_eq!(names(&lab.root()), Vec::<String>::new(), "nothing was made");
}

#[test]
fn files_that_look_like_databases() {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    fs::write(mail.join("zero.edb"), "").unwrap();
    fs::create_dir(mail.join("folder.edb")).unwrap();
    fs::write(mail.join("short.edb"), [0x5a; 100]).unwrap();
    let mut cut = fs::read(mail.join("DB01/DB01.edb")).unwrap();
    cut.truncate(100_000);
    fs::write(mail.join("cut.edb"), cut).unwrap();
    let (code, shown) = lab.json(["protect", "mail"]);
    assert_eq!(code, 3, "{shown:#}");
    assert_eq!(database(&shown["topology"], "DB01")["protection"], "protected");
    for refused in list(&shown, "refused") {
        assert!(!list(refused, "reasons").is_empty(), "{refused:#}");
    }
    let refused: Vec<&str> = list(&shown, "refused").iter().map(|r| text(r, "name")).collect();
    for name in ["zero", "short"] {
        assert!(refused.iter().any(|found| found.starts_with(name)), "{name}: {refused:?}");
    }
    assert!(!refused.iter().any(|name| name.starts_with("folder")), "{refused:?}");
    // A file that was cut off is refused, or its restore point is suspect; never more than that.
    let topology = list(&shown["topology"], "databases");
    let cut = topology.iter().find(|database| text(database, "name").starts_with("cut")).unwrap();
    assert_ne!(cut["protection"], "protected", "{cut:#}");
}

#[test]
fn a_file_without_the_right_to_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    let mail = lab.mail(&["DB01", "DB02"]);
    let secret = mail.join("DB02/DB02.edb");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    let is_root = fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() == 0);
    let mut command = if is_root {
        // Root reads everything unless it gives that up.
        let caps = "-dac_override,-dac_read_search";
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={caps}")).arg(format!("--inh-caps={caps}"));
        command.arg(STILLPOINT);
        command
    } else {
        Command::new(STILLPOINT)
    };
    command.args(["protect", "mail", "--json", "--state"]).arg(lab.path("state.db"));
    lab.tame(&mut command);
    if is_root && Command::new("setpriv").arg("--version").output().is_err() {
        skip("root", "there is no setpriv to give up root's right to read everything");
        return;
    }
    let ran = ran(&mut command);
    let shown = ran.json();
    assert_eq!(ran.code, 3, "{shown:#}");
    assert_eq!(database(&shown["topology"], "DB01")["protection"], "protected");
    let refused = &list(&shown, "refused")[0];
    assert!(text(refused, "name").starts_with("DB02"), "{refused:#}");
    assert_eq!(list(refused, "reasons")[0]["code"], "resource.unreadable", "{refused:#}");
}
