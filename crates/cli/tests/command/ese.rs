//! `ese`: good, notable, bad and unusable told apart, by exit code, in JSON and in words. What is printed for scripts is
//! held still by golden files, which `STILLPOINT_BLESS=1 cargo test -p stillpoint-cli` writes anew; a change that a script
//! could notice needs another version in the schema.

use std::fs;

use stillpoint_ese::{
    PageSize, read_database_header,
    write::{DatabaseSpec, ExchangeSet, FlushMapSpec, WrittenSet},
};

use super::support::{Lab, golden, list, text};

fn mail(lab: &Lab) -> WrittenSet {
    let folder = lab.path("set");
    fs::create_dir(&folder).unwrap();
    ExchangeSet::new(3)
        .with_log_segments(8)
        .with_pages(40)
        .with_page_size(PageSize::KIB_4)
        .write_to(&folder)
        .unwrap()
}

fn spoil(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 8].fill(0x5A);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_set_is_checked_without_a_state_file() {
    let lab = Lab::new();
    let set = mail(&lab);
    let (code, shown) = lab.json(["ese", "check", "set"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["schema"], "stillpoint.ese_check/1");
    assert_eq!(shown["health"], "good");
    assert_eq!(list(&shown, "files").len(), 8);
    let database = &list(&shown, "databases")[0];
    assert_eq!(text(database, "verdict"), "recoverable");
    assert_eq!(database["required"], serde_json::json!({ "from": 6, "to": 7 }));
    assert_eq!((&database["committed"], &database["page_size"]), (&8.into(), &4096.into()));
    assert_eq!(database["rolls_forward_to"]["generation"], 8);
    assert_eq!(database["checkpoints"][0]["fits"], true);
    assert_eq!(shown["files"][0]["pages"]["uninitialised"], 10);
    let words = lab.run(["ese", "check", "set"]);
    assert_eq!(words.code, 0);
    assert!(words.stdout.contains("needs log generations 6-7"), "{words:?}");
    assert!(words.stdout.ends_with("good: 8 files\n"), "{words:?}");
    let names: Vec<_> = fs::read_dir(lab.root()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing was made");

    // Work is lost.
    fs::remove_file(&set.logs[5]).unwrap();
    let (code, shown) = lab.json(["ese", "check", "set"]);
    assert_eq!((code, text(&shown, "health")), (3, "notable"));
    let database = &list(&shown, "databases")[0];
    assert_eq!(text(database, "verdict"), "recoverable_with_loss");
    assert_eq!(database["missing"], serde_json::json!([{ "from": 8, "to": 8 }]));

    // A page is bad.
    spoil(&set.database, 9 * 4096 + 99);
    let (code, shown) = lab.json(["ese", "check", "set/DB01.edb"]);
    assert_eq!((code, text(&shown, "health")), (4, "bad"));
    let finding = &list(&shown["files"][0], "findings")[0];
    assert_eq!((text(finding, "place"), text(finding, "kind")), ("page 8", "checksum"));
    assert_eq!(finding["jet"]["code"], -1018);
    assert_eq!(lab.run(["ese", "check", "set"]).code, 4);

    // There is nothing to be said.
    fs::write(lab.path("letter"), "Dear Sir").unwrap();
    let (code, shown) = lab.json(["ese", "check", "letter"]);
    assert_eq!((code, text(&shown, "health")), (1, "unusable"));
    let (code, shown) = lab.json(["ese", "check", "gone"]);
    assert_eq!(code, 1);
    assert!(text(&shown["files"][0], "failure").contains("cannot be opened"), "{shown:#}");
    assert_eq!(lab.run(["ese", "check"]).code, 2);
}

#[test]
fn a_log_stream_is_checked_by_its_base_name() {
    let lab = Lab::new();
    let set = mail(&lab);
    let (code, shown) = lab.json(["ese", "logs", "set", "e00"]);
    assert_eq!((code, list(&shown, "files").len()), (0, 6), "{shown:#}");
    let stream = &list(&shown, "streams")[0];
    assert_eq!(stream["generations"], serde_json::json!({ "from": 3, "to": 8 }));
    fs::remove_file(&set.logs[2]).unwrap();
    let words = lab.run(["ese", "logs", "set", "E00"]);
    assert_eq!(words.code, 4);
    assert!(words.stdout.contains("JET_errMissingLogFile (-528)"), "{words:?}");
    assert_eq!(lab.run(["ese", "logs", "set", "E07"]).code, 1);
    assert_eq!(lab.run(["ese", "logs", "set", "mail"]).code, 2);
    let (code, shown) = lab.json(["ese", "logs", "gone", "E00"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"ese.open".into()));
}

#[test]
fn headers_are_shown_field_by_field() {
    let lab = Lab::new();
    let set = mail(&lab);
    let (code, shown) = lab.json(["ese", "header", "set/DB01.edb"]);
    assert_eq!((code, text(&shown, "schema")), (0, "stillpoint.ese_header/1"), "{shown:#}");
    assert_eq!(text(&shown, "kind"), "database");
    assert_eq!(
        (text(&shown["header"], "state"), &shown["header"]["max_required"]),
        ("dirty shutdown", &7.into())
    );
    assert_eq!(text(&shown["copies"], "used"), "primary");
    let words = lab.run(["ese", "header", "set/DB01.edb"]);
    assert!(words.stdout.contains("\n  state: dirty shutdown\n"), "{words:?}");
    for (name, kind) in [("E0000000003.log", "log"), ("E00.chk", "checkpoint")] {
        let (code, shown) = lab.json(["ese", "header", &format!("set/{name}")]);
        assert_eq!((code, text(&shown, "kind")), (0, kind));
        assert_eq!(shown["copies"], serde_json::Value::Null);
    }
    spoil(&set.database, 100);
    assert_eq!(text(&lab.json(["ese", "header", "set/DB01.edb"]).1["copies"], "used"), "shadow");
    spoil(&set.database, 4196);
    for (file, expected) in
        [("set/DB01.edb", "ese.header_unusable"), ("set/gone", "ese.open"), ("set", "ese.read")]
    {
        let (code, shown) = lab.json(["ese", "header", file]);
        assert_eq!((code, &shown["error"]["code"]), (1, &expected.into()), "{file}");
    }
    fs::write(lab.path("letter"), "Dear Sir").unwrap();
    assert_eq!(lab.json(["ese", "header", "letter"]).1["error"]["code"], "ese.other_file");
}

/// A clean database and its flush map.
fn mapped(lab: &Lab) {
    let spec = DatabaseSpec::new(5).with_page_size(PageSize::KIB_4).with_pages(30);
    let mut bytes = Vec::new();
    spec.with_flush_map(true).write_to(&mut bytes).unwrap();
    let header = read_database_header(&bytes).unwrap().header;
    fs::write(lab.path("mapped.edb"), bytes).unwrap();
    let map = FlushMapSpec::new(&header).with_pages(2, 1);
    fs::write(lab.path("mapped.jfm"), map.bytes()).unwrap();
}

#[test]
fn every_document_has_its_form() {
    let lab = Lab::new();
    let set = mail(&lab);
    mapped(&lab);
    let check = |name: &str, exit: i32, args: &[&str]| {
        let (code, shown) = lab.json(args);
        assert_eq!(code, exit, "{name}: {shown:#}");
        golden(name, &shown);
    };
    check("ese_header_database", 0, &["ese", "header", "set/DB01.edb"]);
    check("ese_header_log", 0, &["ese", "header", "set/E0000000003.log"]);
    check("ese_header_checkpoint", 0, &["ese", "header", "set/E00.chk"]);
    check("ese_header_flush_map", 0, &["ese", "header", "mapped.jfm"]);
    check("ese_check_good", 0, &["ese", "check", "set", "mapped.edb", "mapped.jfm"]);
    check("ese_logs_good", 0, &["ese", "logs", "set", "E00"]);

    // Everything there is to tell: pages that are bad, correctable and another's, a log that is gone and one that is
    // bad, a file that is not there.
    let mut bytes = fs::read(&set.database).unwrap();
    bytes[9 * 4096 + 99] ^= 0x5A;
    bytes[11 * 4096 + 500] ^= 0x08;
    bytes.copy_within(14 * 4096..15 * 4096, 13 * 4096);
    bytes[4096 + 300] ^= 1;
    fs::write(&set.database, bytes).unwrap();
    fs::remove_file(&set.logs[4]).unwrap();
    spoil(&set.logs[1], 2 * 4096 + 77);
    check("ese_check_bad", 4, &["ese", "check", "set", "gone.edb"]);
    check("ese_logs_bad", 4, &["ese", "logs", "set", "E00"]);
    check("ese_header_refused", 1, &["ese", "header", "gone.edb"]);
}
