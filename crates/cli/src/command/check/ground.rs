//! What is tried: files of the operator's own, of which none is changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::model::inventory::Inventory;

/// A file and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The suite reads each file whole, many times over.
const SUITE_MOST: u64 = 16 << 20;
/// How many files the suite is tried with.
const SUITE_FILES: usize = 2;
/// What is copied or read again in each round of a measurement, at most.
pub(super) const ROUND_MOST: u64 = 256 << 20;
/// How many names of a folder without databases are looked at.
const NAMES_MOST: usize = 10_000;

/// What a backup of everything would take; of a folder without databases, what there is.
pub(super) fn files(source: &Path, inventory: &Inventory) -> Vec<Found> {
    let available = inventory.copies.values().filter(|copy| copy.availability.is_available());
    let known =
        available.flat_map(|copy| &copy.files).filter_map(|file| file.path.to_native().ok());
    let mut found: Vec<Found> = known.filter_map(|path| look(&path)).collect();
    if found.is_empty() {
        found = walk(source);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    found
}

fn look(path: &Path) -> Option<Found> {
    let facts = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Found { path: path.to_owned(), bytes: facts.len() })
}

/// The regular files below a folder, on its own file system and subvolume.
fn walk(source: &Path) -> Vec<Found> {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|facts| facts.dev());
    let home = device(source);
    let (mut folders, mut found, mut names) = (vec![source.to_owned()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            names += 1;
            if names > NAMES_MOST {
                return found;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && device(&path) == home => folders.push(path),
                Ok(kind) if kind.is_file() => found.extend(look(&path)),
                _ => {}
            }
        }
    }
    found
}

/// Those that are small enough to be read whole and compared, the smallest first.
pub(super) fn for_suite(files: &[Found]) -> Vec<Found> {
    let mut small: Vec<_> = files.iter().filter(|file| file.bytes <= SUITE_MOST).cloned().collect();
    // One without content shows little.
    small.sort_by_key(|file| (file.bytes == 0, file.bytes));
    small.truncate(SUITE_FILES);
    small
}

/// Those that can be copied in every round, as many as there may be; the smallest of all if even that is larger.
pub(super) fn for_rounds(files: &[Found]) -> Vec<Found> {
    let mut by_size = files.to_vec();
    by_size.sort_by_key(|file| file.bytes);
    let (mut sum, mut taken) = (0_u64, Vec::new());
    for file in by_size {
        sum = sum.saturating_add(file.bytes);
        if sum > ROUND_MOST {
            break;
        }
        taken.push(file);
    }
    taken
}

pub(super) fn sum(files: &[Found]) -> u64 {
    files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sizes: &[u64]) -> Vec<Found> {
        let found = |(number, bytes): (usize, &u64)| Found {
            path: PathBuf::from(format!("/f{number}")),
            bytes: *bytes,
        };
        sizes.iter().enumerate().map(found).collect()
    }

    fn sizes(files: &[Found]) -> Vec<u64> {
        files.iter().map(|file| file.bytes).collect()
    }

    #[test]
    fn the_suite_gets_small_files_with_something_in_them() {
        assert_eq!(sizes(&for_suite(&of(&[0, 9 << 20, 5, 1 << 40]))), [5, 9 << 20]);
        assert_eq!(sizes(&for_suite(&of(&[0, 1 << 40]))), [0]);
        assert!(for_suite(&of(&[1 << 40])).is_empty());
    }

    #[test]
    fn a_round_copies_no_more_than_it_may() {
        assert_eq!(sizes(&for_rounds(&of(&[200 << 20, 1, 56 << 20, 7]))), [1, 7, 56 << 20]);
        assert!(for_rounds(&of(&[1 << 40])).is_empty());
    }

    #[test]
    fn a_folder_without_databases_is_walked_and_links_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (root, other) = (place.path().join("root"), place.path().join("other"));
        fs::create_dir_all(root.join("in/side")).unwrap();
        fs::create_dir(&other).unwrap();
        for path in [root.join("in/side/a"), root.join("b"), other.join("c")] {
            fs::write(path, b"xyz").unwrap();
        }
        std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
        std::os::unix::fs::symlink(other.join("c"), root.join("c")).unwrap();
        let mut found = walk(&root);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let wanted = [root.join("b"), root.join("in/side/a")];
        assert_eq!(
            found.iter().map(|file| &file.path).collect::<Vec<_>>(),
            wanted.iter().collect::<Vec<_>>()
        );
        assert_eq!(sum(&found), 6);
    }
}
