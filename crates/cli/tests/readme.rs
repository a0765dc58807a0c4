//! The README says what is so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_snippet_is_the_one_that_the_library_tests() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let snippet = fs::read_to_string(root().join("crates/stillpoint/doc/first_backup.rs")).unwrap();
    assert!(readme.contains(&format!("```rust\n{snippet}```")), "README.md has another snippet");
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
fn the_examples_are_short_enough_to_learn_from() {
    let protect = fs::read_to_string(root().join("examples/examples/protect.rs")).unwrap();
    assert!(protect.lines().count() <= 120, "{} lines", protect.lines().count());
}
