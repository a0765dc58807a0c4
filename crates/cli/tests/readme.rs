//! The README says what is so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The first example of the façade's documentation, without the lines that rustdoc hides.
fn first_example() -> String {
    let source = fs::read_to_string(root().join("crates/stillpoint/src/lib.rs")).unwrap();
    let lines = source.lines().skip_while(|line| *line != "//! ```").skip(1);
    lines
        .take_while(|line| *line != "//! ```")
        .map(|line| line.strip_prefix("//!").unwrap().strip_prefix(' ').unwrap_or_default())
        .filter(|line| !(*line == "#" || line.starts_with("# ")))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_snippet_is_the_one_that_the_library_tests() {
    let (readme, snippet) =
        (fs::read_to_string(root().join("README.md")).unwrap(), first_example());
    assert!(snippet.contains("Stillpoint::builder"), "{snippet}");
    assert!(
        readme.contains(&format!("```rust\n{snippet}```")),
        "README.md should have:\n{snippet}"
    );
}

#[test]
fn what_is_linked_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut links = 0;
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = link.split('#').next().unwrap();
        if !path.is_empty() && !path.contains("://") {
            assert!(root().join(path).exists(), "{link} leads nowhere");
            links += 1;
        }
    }
    assert!(links >= 5, "only {links} links were looked at");
}

#[test]
fn every_crate_is_in_its_table() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().file_name().into_string().unwrap();
        let package = match folder.as_str() {
            "cli" => continue, // The command has a chapter.
            "stillpoint" => "`stillpoint`".to_owned(),
            other => format!("`stillpoint-{other}`"),
        };
        assert!(readme.contains(&package), "README.md does not name {package}");
    }
}

#[test]
fn the_example_is_short_enough_to_learn_from() {
    let protect = fs::read_to_string(root().join("examples/examples/protect.rs")).unwrap();
    assert!(protect.lines().count() <= 120, "{} lines", protect.lines().count());
}
