//! The catalogue against the store, on real files: what is missing, what is nobody's, and how a lost catalogue comes back.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{self, Lab, list, newest_point, text};

fn verdicts(shown: &Value) -> Vec<&str> {
    list(shown, "findings").iter().map(|finding| text(finding, "verdict")).collect()
}

/// Puts the files of the state aside.
fn lose_state(lab: &Lab) {
    for name in ["state.db", "state.db-wal", "state.db-shm", "state.db.lock"] {
        let file = lab.path(name);
        if file.exists() {
            std::fs::rename(&file, lab.path(&format!("lost-{name}"))).unwrap();
        }
    }
}

fn documents(store: &Path) -> Vec<PathBuf> {
    let files = support::files(store).into_iter();
    files.filter(|file| file.extension().is_some_and(|end| end == "json")).collect()
}

#[test]
fn a_lost_catalogue_comes_back_and_what_is_deleted_by_hand_is_missing() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    assert_eq!(lab.run(["backup"]).code, 0);
    let add = ["hold", "add", "case-7", "latest:DB01", "--reason", "a case"];
    assert_eq!(lab.run(add).code, 0);
    let (_, topology) = lab.json(["topology"]);
    let (_, holds) = lab.json(["hold", "list"]);
    let (code, shown) = lab.json(["reconcile"]);
    assert_eq!((code, text(&shown, "schema")), (0, "stillpoint.reconcile/1"), "{shown:#}");
    assert_eq!((shown["counts"]["whole"].as_u64(), shown["job"].is_null()), (Some(4), true));
    assert!(!documents(&lab.path("state.store")).is_empty());

    // A copy of the state, beside its use.
    let (code, copy) = lab.json(["catalogue", "backup", "copy.db"]);
    assert_eq!((code, text(&copy, "schema")), (0, "stillpoint.catalogue/1"), "{copy:#}");
    assert_eq!(lab.json(["catalogue", "backup", "copy.db"]).1["error"]["code"], "state.exists");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stillpoint"));
    command.args(["topology", "--json", "--state", "copy.db"]);
    lab.tame(&mut command);
    assert_eq!(support::ran(&mut command).json(), topology);

    lose_state(&lab);
    let (code, refused) = lab.json(["rebuild"]);
    assert!(code != 0);
    assert_eq!(refused["error"]["code"], "state.no_source", "{refused:#}");
    let nowhere = ["rebuild", "--source", "mail", "--store", "nowhere"];
    assert_eq!(lab.json(nowhere).1["error"]["code"], "store.missing");
    assert!(!lab.path("state.db").exists() && !lab.path("nowhere").exists());
    let rebuild = ["rebuild", "--source", "mail", "--store", "state.store"];
    let (code, shown) = lab.json(rebuild);
    assert_eq!((code, text(&shown, "schema")), (0, "stillpoint.rebuild/1"), "{shown:#}");
    assert_eq!((list(&shown, "points").len(), list(&shown, "holds").len()), (4, 1));
    assert_eq!(lab.json(["topology"]).1, topology);
    assert_eq!(lab.json(["hold", "list"]).1, holds);
    let (code, again) = lab.json(["rebuild"]);
    assert_eq!((code, again["known"].as_u64(), list(&again, "points").len()), (0, Some(4), 0));
    assert_eq!(lab.json(["topology"]).1, topology);
    assert_eq!(lab.run(["reconcile"]).code, 0);
    assert_eq!(lab.run(["restore", "latest:DB02", "--to", "back"]).code, 0);

    // Somebody deletes what he takes for old.
    let newest = newest_point(&topology, "DB01");
    let sets = std::fs::read_dir(lab.path("state.store/sets")).unwrap();
    let sets = sets.map(|set| set.unwrap().path());
    let made = |set: &PathBuf| set.join("set.json").metadata().unwrap().modified().unwrap();
    let folder = sets.max_by_key(made).unwrap();
    std::fs::rename(&folder, lab.path("aside")).unwrap();
    let (code, shown) = lab.json(["reconcile"]);
    assert_eq!(code, 4, "{shown:#}");
    assert_eq!(verdicts(&shown), ["missing", "missing"], "{shown:#}");
    let (code, shown) = lab.json(["reconcile", "--apply"]);
    assert_eq!((code, verdicts(&shown).len()), (4, 2), "{shown:#}");
    let (code, refused) = lab.json(["restore", &newest, "--to", "no"]);
    assert!(code != 0);
    assert_eq!(refused["error"]["code"], "restore.missing", "{refused:#}");
    assert!(lab.run(["topology"]).stdout.contains("MISSING since"));
    // The next best is offered.
    assert_eq!(lab.run(["restore", "latest:DB01", "--to", "older"]).code, 0);
    std::fs::rename(lab.path("aside"), &folder).unwrap();
    let (code, shown) = lab.json(["reconcile", "--apply"]);
    assert_eq!((code, verdicts(&shown).len()), (0, 0), "{shown:#}");
    assert_eq!(lab.json(["topology"]).1, topology);
}

#[test]
fn old_jobs_are_forgotten_and_restore_points_stay() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    for _ in 0..2 {
        assert_eq!(lab.run(["backup"]).code, 0);
    }
    let (_, topology) = lab.json(["topology"]);
    let jobs = || lab.json(["jobs"]).1["jobs"].as_array().unwrap().len() as u64;
    let before = jobs();
    let forget = ["catalogue", "forget", "--older-than", "0s", "--newest", "1"];
    let (code, plan) = lab.json([&forget[..], &["--dry-run"]].concat());
    assert_eq!((code, text(&plan, "schema")), (0, "stillpoint.forget/1"), "{plan:#}");
    assert_eq!((plan["jobs"].as_u64(), jobs()), (Some(before - 1), before), "{plan:#}");
    let (code, done) = lab.json(forget);
    assert_eq!((code, done["jobs"].as_u64(), jobs()), (0, Some(before - 1), 1), "{done:#}");
    assert_eq!(lab.json(["topology"]).1, topology);
    let (code, ages) = lab.json(["catalogue", "forget", "--older-than", "300000000d"]);
    assert_eq!((code, text(&ages["error"], "code")), (1, "forget.too_long_ago"), "{ages:#}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = Lab::new();
    assert_eq!(lab.json(["reconcile"]).1["error"]["code"], "state.not_found");
    assert_eq!(lab.json(["catalogue", "backup", "copy.db"]).1["error"]["code"], "state.not_found");
    for wrong in [
        ["reconcile", "--delete-orphans-after", "7d"].as_slice(),
        &["reconcile", "--apply", "--delete-orphans-after", "soon"],
        &["reconcile", "everything"],
        &["catalogue", "backup"],
        &["catalogue", "forget"],
        &["catalogue", "forget", "--older-than", "long"],
        &["catalogue", "forget", "--older-than", "1d", "--newest", "0"],
    ] {
        assert_eq!(lab.run(wrong).code, 2, "{wrong:?}");
    }
}
