//! What a policy can be told on the command line, and what comes of it.

use serde_json::Value;

use super::support::{Lab, database, list, text};

/// After a rebuild nobody knows the policies any more: their points stay until somebody says how long.
#[test]
fn a_policy_takes_the_place_of_one_that_is_gone() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    assert_eq!(lab.run(["backup"]).code, 0);
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let _gone = std::fs::remove_file(lab.path(file));
    }
    assert_eq!(lab.run(["rebuild", "--source", "mail"]).code, 0);
    let (_, shown) = lab.json(["prune", "--dry-run"]);
    let points = list(database(&shown, "DB01"), "points").to_vec();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|point| text(&point["reasons"][0], "why") == "no_policy"));
    let id = text(&points[0], "policy_id");
    let told = lab.run(["prune", "--dry-run"]);
    assert!(told.stdout.contains(&format!("its policy {id} is not there")), "{told:?}");

    let taken = ["policy", "create", "before", "--id", id, "--keep-count", "1"];
    assert_eq!(lab.run(taken).code, 0);
    assert_eq!(lab.run(["prune"]).code, 0);
    let (_, shown) = lab.json(["prune", "--dry-run"]);
    assert_eq!(list(database(&shown, "DB01"), "points").len(), 1, "{shown:#}");
    let again = ["policy", "create", "twice", "--id", id];
    let (code, shown) = lab.json(again);
    assert_eq!((code, text(&shown["error"], "code")), (1, "policy.version_conflict"));
}

#[test]
fn policies_keep_by_grids_and_never_fewer_than_so_many() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    for _ in 0..2 {
        assert_eq!(lab.run(["backup"]).code, 0);
    }
    let edited = |flags: &[&str]| {
        let args = ["policy", "edit", "default"];
        let (code, shown) = lab.json(args.iter().chain(flags));
        assert_eq!(code, 0, "{flags:?}: {shown:#}");
        shown["policies"][0].clone()
    };
    let kept = |policy: &Value| {
        let fields = ["hourly", "daily", "weekly", "monthly", "yearly", "least"];
        fields.map(|field| policy[format!("keep_{field}")].as_u64())
    };
    let told = || {
        let told = lab.run(["policy", "show", "default"]);
        let line = told.stdout.lines().find_map(|line| line.strip_prefix("  kept "));
        line.unwrap().to_owned()
    };
    let verdicts = || {
        let (_, shown) = lab.json(["prune", "--dry-run"]);
        let points = list(database(&shown, "DB01"), "points");
        points.iter().map(|point| text(point, "verdict").to_owned()).collect::<Vec<_>>()
    };

    // No place in a grid is no rule: as long as there is no other one, all stay.
    let same = edited(&["--keep-daily", "0"]);
    assert_eq!(
        (kept(&same), &same["version"]),
        ([None, None, None, None, None, Some(1)], &1.into())
    );
    assert_eq!((told().as_str(), verdicts()), ("all", vec!["keep".to_owned(); 3]));

    let grids = edited(&["--keep-hourly", "1", "--keep-daily", "7", "--keep-monthly", "12"]);
    assert_eq!(kept(&grids), [Some(1), Some(7), None, Some(12), None, Some(1)]);
    assert_eq!(told(), "one for each of 1 hour, 7 days and 12 months");
    let more =
        ["--keep-hourly", "0", "--keep-daily", "1", "--keep-monthly", "0", "--keep-yearly", "1"];
    assert_eq!(kept(&edited(&more)), [None, Some(1), None, None, Some(1), Some(1)]);
    assert_eq!(verdicts(), ["keep", "delete", "delete"]);
    let least = edited(&["--keep-least", "2"]);
    assert_eq!(kept(&least), [None, Some(1), None, None, Some(1), Some(2)]);
    assert_eq!(told(), "one for each of 1 day and 1 year, and in any case the newest 2 good ones");
    assert_eq!(verdicts(), ["keep", "keep", "delete"]);

    for bad in [
        ["--keep-least", "0"],
        ["--keep-least", "1024"],
        ["--keep-hourly", "1024"],
        ["--keep-daily", "1024"],
        ["--keep-weekly", "1024"],
        ["--keep-monthly", "1024"],
        ["--keep-yearly", "1024"],
    ] {
        let (code, shown) = lab.json(["policy", "edit", "default"].iter().chain(&bad));
        let wanted = (1, &"retention.out_of_range".into());
        assert_eq!((code, &shown["error"]["code"]), wanted, "{bad:?}: {shown:#}");
    }
    for flag in ["hourly", "daily", "weekly", "monthly", "yearly", "least"] {
        let flag = format!("--keep-{flag}");
        let edit = ["policy", "edit", "default", &flag];
        assert_eq!(lab.run(edit.iter().chain(&["-1"])).code, 2, "{flag}");
        assert_eq!(lab.run(edit.iter().chain(&["2", "--keep-all"])).code, 2, "{flag}");
    }
    let (_, shown) = lab.json(["policy", "show", "default"]);
    assert_eq!(shown["policies"][0], least, "what was refused changed nothing");

    let all = edited(&["--keep-all"]);
    assert_eq!(kept(&all), [None, None, None, None, None, Some(1)]);
    assert_eq!((told().as_str(), verdicts()), ("all", vec!["keep".to_owned(); 3]));
    // The last grid that goes leaves the other rules as they are.
    edited(&["--keep-count", "2", "--keep-weekly", "4"]);
    assert_eq!(told(), "the newest 2, and one for each of 4 weeks");
    edited(&["--keep-weekly", "0"]);
    assert_eq!(told(), "the newest 2");

    let create = ["policy", "create", "archive", "--keep-monthly", "12", "--keep-yearly", "7"];
    let (code, shown) = lab.json(create.iter().chain(&["--keep-least", "3"]));
    let wanted = [None, None, None, Some(12), Some(7), Some(3)];
    assert_eq!((code, kept(&shown["policies"][0])), (0, wanted), "{shown:#}");
}

#[test]
fn policies_say_which_servers_come_first_and_how_often_a_freeze_is_tried() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let edited = |flags: &[&str]| {
        let args = ["policy", "edit", "default"];
        let (code, shown) = lab.json(args.iter().chain(flags));
        assert_eq!(code, 0, "{flags:?}: {shown:#}");
        shown["policies"][0].clone()
    };
    let first = edited(&["--prefer-hosts", "ex2", "ex1"]);
    assert_eq!(first["copies"], "by_preference");
    assert_eq!(list(&first, "hosts"), ["ex2", "ex1"], "in this order");
    assert_eq!(first["freeze_retries"], 1);
    assert_eq!(edited(&["--freeze-retries", "3"])["freeze_retries"], 3);
    let never = edited(&["--freeze-retries", "0"]);
    assert_eq!((&never["freeze_retries"], &never["version"]), (&0.into(), &4.into()));
    for other in [["--on-hosts", "ex1"], ["--copies", "active"]] {
        let both = ["policy", "edit", "default", "--prefer-hosts", "ex1"];
        assert_eq!(lab.run(both.iter().chain(&other)).code, 2, "{other:?}");
    }
}
