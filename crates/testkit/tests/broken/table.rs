//! The table of what is broken, and by which cases it has to be caught.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};

use stillpoint_testkit::conformance::{Case, Kit, Report};

/// Runs each broken thing through the suite, and compares the cases that failed with those that should have.
pub(crate) fn each_is_caught<K: Kit, F: Debug + Copy>(
    cases: &[Case<K>],
    run_all: impl Fn(F) -> Report,
    wanted: &[(F, &[&str])],
) {
    let (mut wrong, mut useful) = (String::new(), BTreeSet::new());
    for (fault, by) in wanted {
        let report = run_all(*fault);
        let failed: BTreeSet<&str> = report.failed().into_iter().collect();
        if failed.is_empty() || failed != by.iter().copied().collect() {
            writeln!(wrong, "{fault:?} was caught by {failed:?}, not by {by:?}:\n{report}\n")
                .unwrap();
        }
        useful.extend(failed);
    }
    assert!(wrong.is_empty(), "{wrong}");
    let useless: Vec<_> =
        cases.iter().map(|case| case.name).filter(|name| !useful.contains(name)).collect();
    assert!(useless.is_empty(), "nothing broken was caught by {useless:?}");
}
