//! How near files lie to each other: what is nearest is most likely of one make.

use std::{cmp::Reverse, collections::BTreeMap, path::Path};

#[cfg(test)]
thread_local! {
    /// How often two folders were compared.
    pub(super) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How near two folders are: the deeper their common folder the nearer, then the fewer steps between them. Less is nearer.
pub(super) type Nearness = (Reverse<usize>, usize);

pub(super) fn nearness(one: &Path, other: &Path) -> Nearness {
    #[cfg(test)]
    COMPARED.set(COMPARED.get() + 1);
    let common = one.components().zip(other.components()).take_while(|(a, b)| a == b).count();
    let steps = one.components().count() + other.components().count() - 2 * common;
    (Reverse(common), steps)
}

/// Folders, so that the nearest to another is found in as many steps as that is deep.
pub(super) struct Places<'a>(BTreeMap<&'a Path, usize>);

impl<'a> FromIterator<&'a Path> for Places<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Path>>(folders: I) -> Self {
        // For each folder the depth of the one that lies least deep in it.
        let mut least: BTreeMap<&Path, usize> = BTreeMap::new();
        for folder in folders {
            let depth = folder.components().count();
            for above in folder.ancestors() {
                let known = least.entry(above).or_insert(depth);
                *known = depth.min(*known);
            }
        }
        Self(least)
    }
}

impl Places<'_> {
    /// How near the nearest of them is.
    pub(super) fn nearest(&self, folder: &Path) -> Option<Nearness> {
        let depth = folder.components().count();
        folder.ancestors().find_map(|common| {
            let least = self.0.get(common)?;
            let shared = common.components().count();
            Some((Reverse(shared), depth + least - 2 * shared))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_many_places_is_the_least_of_all_comparisons() {
        let folders = ["/", "/a", "/a/b/c", "/a/b/d/e", "/a/x", "/b", "/b/c/d/e/f"].map(Path::new);
        let looked_for = ["/", "/a/b", "/a/b/c/d", "/a/x/y", "/b/c", "/z/z", "/a/b/d"];
        for skip in 0..folders.len() {
            let places: Places<'_> = folders.into_iter().skip(skip).collect();
            for at in looked_for.map(Path::new) {
                let least = folders.into_iter().skip(skip).map(|f| nearness(f, at)).min();
                assert_eq!(places.nearest(at), least, "{} without {skip}", at.display());
            }
        }
        assert_eq!(Places(BTreeMap::new()).nearest(Path::new("/a")), None);
    }
}
