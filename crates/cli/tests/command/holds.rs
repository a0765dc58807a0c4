//! Holds on what fits: of databases, of a group, of a policy, of a time.

use std::collections::BTreeSet;

use super::support::{Lab, database, list, text};
use serde_json::Value;

/// The ids of all restore points of these databases, newest first.
fn points(lab: &Lab, names: &[&str]) -> Vec<String> {
    let (_, shown) = lab.json(["topology"]);
    let all = names.iter().flat_map(|name| list(database(&shown, name), "points").to_vec());
    all.map(|point| text(&point, "point").to_owned()).collect()
}

/// What a hold of the answer keeps.
fn held(shown: &Value, name: &str) -> BTreeSet<String> {
    let hold = list(shown, "holds").iter().find(|hold| hold["hold"] == name);
    let hold = hold.unwrap_or_else(|| panic!("no hold {name} in {shown:#}"));
    list(hold, "points").iter().map(|point| point.as_str().unwrap().to_owned()).collect()
}

fn set(points: &[String]) -> BTreeSet<String> {
    points.iter().cloned().collect()
}

#[test]
fn all_that_fits_when_it_is_asked_for_is_held() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    assert_eq!(lab.run(["policy", "create", "other", "--kind", "copy"]).code, 0);
    assert_eq!(lab.run(["backup", "--database", "DB01", "--policy", "other"]).code, 0);
    let (one, two) = (points(&lab, &["DB01"]), points(&lab, &["DB02"]));
    assert_eq!((one.len(), two.len()), (2, 1));
    let all = points(&lab, &["DB01", "DB02"]);
    let add = |name: &str, fits: &[&str]| {
        let args = [&["hold", "add", name, "--reason", "a case"], fits].concat();
        let (code, shown) = lab.json(args);
        assert_eq!(code, 0, "{fits:?}: {shown:#}");
        held(&shown, name)
    };
    let past = "2001-01-01";
    assert_eq!(add("db", &["--database", "DB01"]), set(&one));
    assert_eq!(add("dbs", &["--database", "DB01", "DB02"]), set(&all));
    assert_eq!(add("policy", &["--policy", "other"]), set(&one[..1]));
    assert_eq!(add("both", &["--database", "DB01", "--policy", "default"]), set(&one[1..]));
    // One that was not made for the group is not of it.
    assert_eq!(add("group", &["--group", "default"]), set(&[one[1].clone(), two[0].clone()]));
    assert_eq!(add("since", &["--taken-since", past]), set(&all));
    let (_, shown) = lab.json(["hold", "list"]);
    assert_eq!((list(&shown, "holds").len(), &shown["dry_run"]), (6, &false.into()));

    // What comes afterwards is in none of them.
    assert_eq!(lab.run(["backup"]).code, 0);
    let (_, shown) = lab.json(["hold", "list"]);
    assert_eq!((held(&shown, "dbs"), points(&lab, &["DB01"]).len()), (set(&all), 3));
    // One of the same name is replaced.
    assert_eq!(add("db", &["--database", "DB02"]).len(), 2);
}

#[test]
fn a_dry_run_shows_what_would_be_held_and_what_fits_nothing_is_refused() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let dry = ["hold", "add", "case-7", "--database", "DB01", "--reason", "a case", "--dry-run"];
    let (code, shown) = lab.json(dry);
    assert_eq!((code, &shown["dry_run"]), (0, &true.into()), "{shown:#}");
    assert_eq!(held(&shown, "case-7"), set(&points(&lab, &["DB01"])));
    assert!(lab.run(dry).stdout.contains("nothing was changed"));
    assert!(list(&lab.json(["hold", "list"]).1, "holds").is_empty());

    let refused = |args: &[&str]| {
        let (code, shown) =
            lab.json([&["hold", "add", "case-7", "--reason", "a case"], args].concat());
        assert_eq!(code, 1, "{shown:#}");
        text(&shown["error"], "code").to_owned()
    };
    for dry in [&["--dry-run"][..], &[]] {
        let with = |args: &[&'static str]| refused(&[args, dry].concat());
        assert_eq!(with(&["--taken-until", "2001-01-01"]), "hold.fits_nothing");
        assert_eq!(with(&["--database", "DB09"]), "database.unknown");
        assert_eq!(with(&["--policy", "weekly"]), "policy.unknown");
        assert_eq!(with(&["--group", "nobody"]), "group.unknown");
        assert_eq!(with(&["latest:DB01", "--until", "2001-01-01"]), "hold.over");
    }
    // Either points or what they are of, and one of both.
    assert_eq!(lab.run(["hold", "add", "case-7", "--reason", "a case"]).code, 2);
    let both = ["hold", "add", "case-7", "latest:DB01", "--policy", "default", "--reason", "x"];
    assert_eq!(lab.run(both).code, 2);
    assert!(list(&lab.json(["hold", "list"]).1, "holds").is_empty());
}
