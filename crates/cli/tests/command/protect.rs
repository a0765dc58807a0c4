//! The two ways of `protect`: a folder of its own making, and genuine files.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::support::{
    Lab, STILLPOINT, database, file, files, list, newest_point, ran, samples, text,
};

#[test]
fn without_a_folder_it_makes_one_protects_it_restores_it_and_cleans_up() {
    let lab = Lab::new();
    let mut command = Command::new(STILLPOINT);
    lab.tame(command.arg("protect"));
    let ran = ran(&mut command);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("byte for byte the same"), "{}", ran.stdout);
    assert!(ran.stdout.contains("DB01: protected"), "{}", ran.stdout);
    assert!(ran.stderr.contains("backup: succeeded"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(lab.root()).unwrap().count(), 0, "everything is gone");
}

#[test]
fn what_is_kept_can_be_used_by_a_second_process() {
    let lab = Lab::new();
    let mut command = Command::new(STILLPOINT);
    lab.tame(command.args(["protect", "--keep", "--json"]));
    let first = ran(&mut command);
    let shown = first.json();
    assert_eq!(first.code, 0, "{shown:#}");
    assert_eq!(shown["schema"], "stillpoint.protect/1");
    assert_eq!((&shown["demo"], &shown["kept"]), (&true.into(), &true.into()));
    assert_eq!(shown["comparison"]["files"], 16);
    assert_eq!(shown["comparison"]["different"], serde_json::json!([]));
    assert_eq!(shown["backup"]["state"], "succeeded");
    assert_eq!(shown["verification"]["state"], "succeeded");
    assert_eq!(list(&shown, "restores").len(), 2);

    let state = text(&shown, "state");
    let mut command = Command::new(STILLPOINT);
    lab.tame(command.args(["topology", "--json", "--state", state]));
    let topology = ran(&mut command).json();
    assert_eq!(list(&topology, "databases"), list(&shown["topology"], "databases"));
    let mut command = Command::new(STILLPOINT);
    lab.tame(command.args(["jobs", "--json", "--state", state]));
    assert_eq!(list(&ran(&mut command).json(), "jobs").len(), 4, "backup, verify, two restores");
}

#[test]
fn a_demonstration_may_use_a_state_file_of_the_operators() {
    let lab = Lab::new();
    let (code, shown) = lab.json(["protect"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["kept"], true);
    let (code, topology) = lab.json(["topology"]);
    assert_eq!(code, 0);
    assert!(database(&topology, "DB01")["exists"].is_null(), "the source is gone");
    let (code, restored) = lab.json(["restore", "latest:DB01", "--to", "back"]);
    assert_eq!(code, 0, "{restored:#}");
    assert!(lab.path("back/DB01.edb").is_file());
}

/// The acceptance of genuine files: four are protected, three are refused, and nothing needs the source any more.
#[test]
fn genuine_files_are_protected_or_refused_and_come_back_without_their_source() {
    let Some(samples) = samples() else { return };
    let lab = Lab::new();
    // A copy, because it is to be deleted.
    let source = lab.path("source");
    let mut originals = BTreeMap::new();
    for from in files(&samples) {
        let below = from.strip_prefix(&samples).unwrap();
        let to = source.join(below);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let bytes = fs::read(&from).unwrap();
        fs::write(&to, &bytes).unwrap();
        originals.insert(below.to_path_buf(), bytes);
    }

    let (code, shown) = lab.json(["protect", "source"]);
    assert_eq!(code, 3, "{shown:#}");
    assert_eq!(shown["found"], 7);
    let refused: BTreeMap<&str, Vec<(u64, u64)>> = list(&shown, "refused")
        .iter()
        .map(|refused| {
            let missing = list(refused, "reasons")
                .iter()
                .filter(|reason| reason["code"] == "resource.not_recoverable")
                .flat_map(|reason| list(reason, "missing_generations"))
                .map(|range| (range["from"].as_u64().unwrap(), range["to"].as_u64().unwrap()))
                .collect();
            (text(refused, "name"), missing)
        })
        .collect();
    let names: Vec<&str> = refused.keys().copied().collect();
    let wanted = [("Current", (124, 124)), ("Windows", (40, 40)), ("qmgr", (23, 23))];
    assert_eq!(names.len(), 3, "{names:?}");
    for ((name, missing), (wanted, range)) in refused.iter().zip(wanted) {
        assert!(name.starts_with(wanted), "{name} is not {wanted}");
        assert_eq!(missing, &[range], "{name}");
    }

    let protected: BTreeMap<String, String> = list(&shown["topology"], "databases")
        .iter()
        .filter(|database| database["protection"] == "protected")
        .map(|database| {
            let points = list(database, "points");
            assert_eq!((points.len(), &points[0]["trust"]), (1, &"verified".into()));
            (text(database, "name").to_owned(), text(&points[0], "point").to_owned())
        })
        .collect();
    assert_eq!(protected.len(), 4, "{protected:?}");

    let (code, topology) = lab.json(["topology"]);
    assert_eq!(code, 0);
    assert_eq!(list(&topology, "databases"), list(&shown["topology"], "databases"));

    fs::remove_dir_all(&source).unwrap();
    let (code, topology) = lab.json(["topology"]);
    assert_eq!(code, 0, "the topology does without the source");
    let mut restored = Vec::new();
    for (name, point) in &protected {
        assert_eq!(newest_point(&topology, name), *point);
        let to = format!("restored/{name}");
        let (code, job) = lab.json(["restore", point.as_str(), "--to", to.as_str()]);
        assert_eq!(code, 0, "{job:#}");
        for path in files(&lab.path(&to)) {
            let file_name = path.file_name().unwrap().to_owned();
            let mut of_name =
                originals.iter().filter(|(below, _)| below.file_name() == Some(&file_name));
            let (_, bytes) = of_name.next().unwrap();
            assert!(fs::read(&path).unwrap() == *bytes, "{} differs", path.display());
            restored.push(file_name.into_string().unwrap());
        }
    }
    for database in ["basic.edb", "decompress_test2.edb", "large.edb", "DB01.edb"] {
        assert!(restored.iter().any(|name| name == database), "{database} of {restored:?}");
    }
    for log in ["E0000000006.log", "E0000000007.log"] {
        assert!(restored.iter().any(|name| name == log), "{log} of {restored:?}");
    }
}

#[test]
fn in_place_is_where_the_files_were() {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let database = file(&mail, "DB01.edb");
    let before = fs::read(&database).unwrap();
    let mut damaged = before.clone();
    damaged[40_000] ^= 1;
    fs::write(&database, &damaged).unwrap();
    let (code, shown) = lab.json(["restore", "latest:db01", "--in-place"]);
    assert_eq!(code, 0, "{shown:#}");
    assert!(fs::read(&database).unwrap() == before);
    // What was there is kept until the restored files have been checked, and no longer.
    assert_eq!(files(&mail).len(), 8, "{:?}", files(&mail));
}

#[test]
fn a_restore_replaces_nothing_at_another_place() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    fs::create_dir(lab.path("back")).unwrap();
    fs::write(lab.path("back/DB01.edb"), "mine").unwrap();
    let (code, shown) = lab.json(["restore", "latest:DB01", "--to", "back"]);
    assert_eq!(code, 1, "{shown:#}");
    assert_eq!(fs::read_to_string(lab.path("back/DB01.edb")).unwrap(), "mine");
    assert_eq!(files(&lab.path("back")).len(), 1, "nothing else was left");
}
