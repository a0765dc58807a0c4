//! The table of what is broken, and by which cases it has to be caught.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stillpoint_testkit::conformance::{Case, Kit, Report};

/// Runs each broken thing through the suite, and compares the cases that failed with those that should have.
pub(crate) fn each_is_caught<K: Kit, F: Debug + Copy + Sync>(
    cases: &[Case<K>],
    run_all: impl Fn(F) -> Report + Sync,
    wanted: &[(F, &[&str])],
) {
    // Each by itself, as many at once as there are processors to spare: the table is long.
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut wrong, mut useful) = (String::new(), BTreeSet::new());
        while let Some((fault, by)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = run_all(*fault);
            let failed: BTreeSet<String> =
                report.failed().into_iter().map(ToOwned::to_owned).collect();
            if failed.is_empty() || failed != by.iter().map(|name| (*name).to_owned()).collect() {
                writeln!(wrong, "{fault:?} was caught by {failed:?}, not by {by:?}:\n{report}\n")
                    .unwrap();
            }
            useful.extend(failed);
        }
        (wrong, useful)
    };
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let found: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let wrong: String = found.iter().map(|(wrong, _)| wrong.as_str()).collect();
    let useful: BTreeSet<&str> =
        found.iter().flat_map(|(_, useful)| useful).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{wrong}");
    let useless: Vec<_> =
        cases.iter().map(|case| case.name).filter(|name| !useful.contains(name)).collect();
    assert!(useless.is_empty(), "nothing broken was caught by {useless:?}");
}
