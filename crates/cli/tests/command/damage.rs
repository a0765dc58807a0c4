//! One flipped bit in a stored copy, made after everything was verified.

use serde_json::Value;

use super::support::{Lab, database, file, flip, list, newest_point};

/// Protects, verifies, flips a bit of a stored file; gives the lab, the point and what a restore then says.
fn damaged(name: &str, offset: usize) -> (Lab, String, Value) {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (code, verified) = lab.json(["verify", "--all"]);
    assert_eq!(code, 0, "{verified:#}");
    assert_eq!(list(&verified, "points")[0]["trust"], "verified");
    flip(&file(&lab.path("state.store"), name), offset);
    let (_, topology) = lab.json(["topology"]);
    let point = newest_point(&topology, "DB01");
    assert_eq!(list(database(&topology, "DB01"), "points")[0]["trust"], "verified");

    let (code, shown) = lab.json(["restore", &point[..8], "--to", "back"]);
    assert_eq!(code, 1, "{shown:#}");
    assert_eq!(shown["error"]["code"], "restore.damaged", "{shown:#}");
    let left = std::fs::read_dir(lab.path("back")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is under the target's name");
    (lab, point, shown["error"].clone())
}

/// What the failure says of a kind of subject.
fn subject(failure: &Value, kind: &str) -> Option<String> {
    let found = list(failure, "subjects").iter().find(|subject| subject["kind"] == kind)?;
    Some(found["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_bit_of_a_database_stops_the_restore_and_makes_the_point_suspect() {
    // Pages are of 32 KiB and two headers come first: this is in page 5, whose checksum finds the very byte.
    let offset = 6 * 32_768 + 1_000;
    let (lab, point, failure) = damaged("DB01.edb", offset);
    assert!(subject(&failure, "file").unwrap().ends_with("DB01.edb"), "{failure:#}");
    assert_eq!(subject(&failure, "page").as_deref(), Some("5"), "{failure:#}");
    assert_eq!(subject(&failure, "offset").as_deref(), Some("197608"), "{failure:#}");

    let (code, shown) = lab.json(["verify", &point]);
    assert_eq!(code, 3, "{shown:#}");
    let found = &list(&shown, "points")[0];
    assert_eq!(found["trust"], "suspect");
    let finding = &list(found, "findings")[0];
    assert_eq!((&finding["page"], &finding["offset"]), (&5.into(), &197_608.into()));

    let (code, shown) = lab.json(["restore", &point, "--to", "back"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"restore.suspect".into()), "{shown:#}");
    // The override lets it try; damage stops it all the same.
    let (code, shown) = lab.json(["restore", &point, "--to", "back", "--accept-suspect"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"restore.damaged".into()), "{shown:#}");
    let (_, topology) = lab.json(["topology"]);
    assert_eq!(database(&topology, "DB01")["protection"], "suspect_only");
}

#[test]
fn a_bit_of_a_log_stops_the_restore_too() {
    let offset = 2 * 4_096 + 100;
    let (lab, point, failure) = damaged("E0000000006.log", offset);
    assert!(subject(&failure, "file").unwrap().ends_with("E0000000006.log"), "{failure:#}");
    assert_eq!(subject(&failure, "page").as_deref(), Some("2"), "a log's pages are its segments");
    assert!(subject(&failure, "offset").is_some(), "{failure:#}");
    let (code, shown) = lab.json(["verify", "latest:DB01"]);
    assert_eq!(code, 3, "{shown:#}");
    assert_eq!(list(&shown, "points")[0]["point"], point);
    assert_eq!(list(&shown, "points")[0]["trust"], "suspect");
}

#[test]
fn people_read_the_same() {
    let (lab, point, _) = damaged("DB01.edb", 6 * 32_768 + 1_000);
    let ran = lab.run(["restore", &point, "--to", "back"]);
    assert_eq!(ran.code, 1);
    let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("page 5") && error.contains("[restore.damaged]"), "{error}");
    assert!(ran.stderr.contains("  remedy: "), "{}", ran.stderr);
}
