//! What the writer makes, read by programs that share no code with it: `dissect.esedb` (Python; `STILLPOINT_DISSECT` names
//! the folder it is installed in, if Python does not find it by itself) and `esedbinfo` of libesedb. Where one is absent,
//! its test says that it skips, unless `STILLPOINT_REQUIRE` contains `dissect` or `esedbinfo`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use stillpoint_ese::{
    DatabaseState, Generation, GenerationRange, LogTime, PageSize, ScanOptions, Signature,
    read_database_header, scan_database,
    write::{DatabaseSpec, LogStreamSpec},
};

const PAGES: u32 = 40;
const UNINITIALISED: u32 = 7;

fn skip(what: &str, why: &str) {
    let required = env::var("STILLPOINT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word.trim() == what), "{what} is required: {why}");
    eprintln!("SKIPPED: {what}: {why}");
}

fn range(first: u32, last: u32) -> GenerationRange {
    GenerationRange::new(Generation::new(first), Generation::new(last)).unwrap()
}

/// A database of every page size, format and state, each with a name; all of them but the last one
/// without the creation times of logs.
fn specs(size: PageSize) -> Vec<(String, DatabaseSpec)> {
    let base = || {
        DatabaseSpec::new(u64::from(size.bytes()))
            .with_page_size(size)
            .with_pages(PAGES)
            .with_uninitialised(UNINITIALISED)
    };
    let dirty = || base().with_dirty(range(6, 9), Generation::new(11));
    let mut specs = vec![
        ("clean".to_owned(), base()),
        ("old".to_owned(), base().with_old_format(true)),
        ("dirty".to_owned(), dirty().with_old_format(true)),
        ("mapped".to_owned(), base().with_flush_map(true)),
    ];
    for state in [
        DatabaseState::JustCreated,
        DatabaseState::BeingConverted,
        DatabaseState::ForceDetach,
        DatabaseState::IncrementalReseed,
        DatabaseState::DirtyAndPatched,
        DatabaseState::RevertInProgress,
    ] {
        specs.push((format!("state-{}", state.number()), dirty().with_state(state)));
    }
    let logs = LogStreamSpec::new(1, Generation::new(3), Generation::new(11));
    let [required, committed] = [9, 11].map(|number| logs.created(Generation::new(number)));
    specs.push(("timed".to_owned(), dirty().with_log_times(required, committed)));
    specs
}

fn write(folder: &Path, size: PageSize, name: &str, spec: &DatabaseSpec) -> PathBuf {
    let path = folder.join(format!("{}-{name}.edb", size.bytes()));
    let mut file = Vec::new();
    spec.write_to(&mut file).unwrap();
    fs::write(&path, file).unwrap();
    path
}

/// Prints a line of JSON for each file: fields of its header, fields of every page, its tables.
const DISSECT: &str = r#"
import json, sys
from dissect.esedb.esedb import EseDB

def time(t):
    return [t.bSeconds, t.bMinutes, t.bHours, t.bDay, t.bMonth, t.bYear]

def signature(s):
    return [s.ulRandom, *time(s.logtimeCreate)]

def position(p):
    return [p.lGeneration, p.isec, p.ib]

for path in sys.argv[1:]:
    with open(path, "rb") as file:
        db = EseDB(file)
        h = db.header
        header = {
            "checksum": h.ulChecksum, "dbtime": h.dbtimeDirtied, "state": h.dbstate,
            "page_size": db.page_size, "version": [db.version, db.format_major, db.format_minor],
            "signature": signature(h.signDb), "log_signature": signature(h.signLog),
            "consistent": position(h.lgposConsistent), "attach": position(h.lgposAttach),
            "detach": position(h.lgposDetach), "consistent_time": time(h.logtimeConsistent),
            "attach_time": time(h.logtimeAttach), "detach_time": time(h.logtimeDetach),
            "required": [h.lGenMinRequired, h.lGenMaxRequired], "committed": h.lGenMaxCommitted,
            "last_objid": h.objidLast, "file_type": h.filetype,
            "header_flush": signature(h.signDbHdrFlush), "map_flush": signature(h.signFlushMapHdrFlush),
            "committed_time": time(h.logtimeGenMaxCreate),
            "required_time": time(h.logtimeGenMaxRequired),
        }
        pages = []
        for page in db.pages():
            p = page.header
            sums = list(page.header2.rgChecksum) if page.header2 else []
            pages.append({
                "number": page.header2.pgno if page.header2 else None,
                "sums": [sum % 2**64 for sum in [p.checksum, *sums]], "dbtime": p.dbtimeDirtied,
                "previous": p.pgnoPrev, "next": p.pgnoNext, "objid": p.objidFDP, "flags": int(p.fFlags),
                "root": page.is_root, "leaf": page.is_leaf, "tags": page.tag_count,
            })
        print(json.dumps({
            "header": header, "pages": pages, "tables": len(db.tables()),
            "nodes": [db.page(number).node_count for number in (1, 4, 24)],
        }))
"#;

fn dissect(paths: &[PathBuf]) -> Option<Output> {
    let python = || {
        let mut python = Command::new("python3");
        if let Some(folder) = env::var_os("STILLPOINT_DISSECT") {
            python.env("PYTHONPATH", folder);
        }
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        python
    };
    let probe = python().args(["-c", "import dissect.esedb.esedb"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        skip("dissect", "python3 has no module dissect.esedb");
        return None;
    }
    Some(python().args(["-c", DISSECT]).args(paths).output().unwrap())
}

fn time(time: LogTime) -> Value {
    time.to_bytes()[..6].to_vec().into()
}

fn signature(signature: Signature) -> Value {
    let random = Value::from(signature.random());
    let created = signature.created().to_bytes();
    std::iter::once(random).chain(created[..6].iter().map(|&byte| byte.into())).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn dissect_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for size in PageSize::ALL {
        for (name, spec) in specs(size) {
            paths.push(write(folder.path(), size, &name, &spec));
        }
    }
    let Some(read) = dissect(&paths) else { return };
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let lines = String::from_utf8(read.stdout).unwrap();
    assert_eq!(lines.lines().count(), paths.len());
    for (path, line) in paths.iter().zip(lines.lines()) {
        let found: Value = serde_json::from_str(line).unwrap();
        let bytes = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        compare_header(name, &bytes, &found["header"]);
        compare_pages(name, &bytes, found["pages"].as_array().unwrap());
        assert_eq!(found["tables"], 0, "{name}");
        assert_eq!(found["nodes"], json!([0, 0, 0]), "{name}");
    }
}

fn compare_header(name: &str, bytes: &[u8], found: &Value) {
    let header = read_database_header(bytes).unwrap().header;
    let position = |at: stillpoint_ese::Lgpos| {
        Value::from(vec![at.generation.number(), at.segment.into(), at.byte.into()])
    };
    let required = [header.min_required.number(), header.max_required.number()];
    for (field, expected) in [
        ("checksum", header.checksum.into()),
        ("dbtime", header.dbtime.into()),
        ("state", header.state.number().into()),
        ("page_size", header.page_size.bytes().into()),
        ("version", Value::from(vec![0x620, 20, 0])),
        ("signature", signature(header.signature)),
        ("log_signature", signature(header.log_signature)),
        ("consistent", position(header.consistent)),
        ("attach", position(header.attach)),
        ("detach", position(header.detach)),
        ("consistent_time", time(header.consistent_time)),
        ("attach_time", time(header.attach_time)),
        ("detach_time", time(header.detach_time)),
        ("required", required.to_vec().into()),
        ("committed", header.max_committed.number().into()),
        ("last_objid", header.last_objid.into()),
        ("file_type", 1.into()),
        ("header_flush", signature(header.header_flush)),
        ("map_flush", signature(header.flush_map_flush)),
        ("committed_time", time(header.max_committed_created)),
        ("required_time", time(header.max_required_created)),
    ] {
        assert_eq!(found[field], expected, "{name}: {field}");
    }
}

fn compare_pages(name: &str, bytes: &[u8], found: &[Value]) {
    let report = scan_database(bytes, &ScanOptions::default(), &mut ()).unwrap();
    assert!(report.findings.is_intact(), "{name}");
    let size = report.header.unwrap().page_size;
    assert_eq!(found.len() as u64, report.pages, "{name}");
    let mut highest = None;
    let written = PAGES - UNINITIALISED;
    for (number, (found, page)) in
        (1u32..).zip(found.iter().zip(bytes.chunks_exact(size.len()).skip(2)))
    {
        let sums = if size.is_large() { &[0, 40, 48, 56][..] } else { &[0] };
        let flags = u32_at(page, 36);
        let number_there = if size.is_large() { u32_at(page, 64).into() } else { Value::Null };
        let tags = u16::from_le_bytes([page[34], page[35]]);
        for (field, expected) in [
            ("number", number_there),
            ("sums", sums.iter().map(|&at| u64_at(page, at)).collect()),
            ("dbtime", u64_at(page, 8).into()),
            ("previous", u32_at(page, 16).into()),
            ("next", u32_at(page, 20).into()),
            ("objid", u32_at(page, 24).into()),
            ("flags", flags.into()),
            ("root", (flags & 1 != 0).into()),
            ("leaf", (flags & 2 != 0).into()),
            ("tags", tags.into()),
        ] {
            assert_eq!(found[field], expected, "{name}: page {number}: {field}");
        }
        // What that has to be.
        let is_written = number <= written;
        assert_eq!(found["leaf"], is_written, "{name}: page {number}");
        if is_written {
            assert!(size.is_large() || found["number"].is_null());
            assert!(!size.is_large() || found["number"] == number, "{name}: page {number}");
            highest = highest.max(found["dbtime"].as_u64());
        } else {
            assert_eq!(found["sums"][0], 0, "{name}: page {number}");
        }
    }
    assert_eq!(report.highest_dbtime.map(|(dbtime, _)| dbtime), highest, "{name}");
}

fn esedbinfo(path: &Path) -> Option<Output> {
    match Command::new("esedbinfo").arg("-v").arg(path).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip("esedbinfo", &error.to_string());
            None
        }
    }
}

/// The checksums that `esedbinfo` complains of: the stored one and its own.
fn mismatches(output: &Output) -> Vec<(u32, u32)> {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let hex = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    words
        .lines()
        .filter_map(|line| line.split_once("checksum ( ")?.1.split_once(" )"))
        .map(|(sums, _)| sums.split_once(" != ").unwrap())
        .map(|(stored, computed)| (hex(stored), hex(computed)))
        .collect()
}

#[test]
fn esedbinfo_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for size in PageSize::ALL {
        for (name, spec) in specs(size) {
            // It sums the first 668 bytes of a header and not the whole page, so it refuses every database whose
            // header goes on behind them, genuine ones too.
            if name == "timed" {
                continue;
            }
            let path = write(folder.path(), size, &name, &spec);
            let Some(output) = esedbinfo(&path) else { return };
            let words = String::from_utf8_lossy(&output.stdout);
            let what = format!("{size} {name}: {output:?}");
            assert!(output.status.success(), "{what}");
            assert!(words.contains("File type:\t\tDatabase\n"), "{what}");
            assert!(words.contains("Current format:\t\t0x620,20\n"), "{what}");
            assert!(words.contains(&format!("Page size:\t\t{} bytes\n", size.bytes())), "{what}");
            assert!(words.contains("Number of tables:\t0\n"), "{what}");
            // With -v it compares the checksums of the pages that it reads: the roots of the system's trees.
            let wrong = mismatches(&output);
            match size.bytes() {
                // It computes those of large pages not at all.
                16_384 | 32_768 => {}
                // Its ECC of a 2 KiB page has a bit too many: the halves are numbers of a page's 16,384 bits, and it
                // masks one of the two bits above them. That shows where the upper half is not the lower one.
                2048 => assert!(wrong.iter().all(|(one, other)| one ^ other == 1 << 31), "{what}"),
                _ => assert_eq!(wrong, [], "{what}"),
            }
        }
    }
}

#[test]
fn esedbinfo_would_tell_wrong_checksums() {
    let folder = tempfile::tempdir().unwrap();
    for size in [PageSize::KIB_2, PageSize::KIB_4, PageSize::KIB_8] {
        for old_format in [false, true] {
            let spec = DatabaseSpec::new(3).with_page_size(size).with_pages(PAGES);
            let path = write(folder.path(), size, "bad", &spec.with_old_format(old_format));
            let mut bytes = fs::read(&path).unwrap();
            // In the free space of the catalogue's root.
            bytes[5 * size.len() + 1000] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let Some(output) = esedbinfo(&path) else { return };
            let wrong = mismatches(&output);
            assert!(wrong.iter().any(|(one, other)| one ^ other != 1 << 31), "{size} {output:?}");
        }
    }
}
