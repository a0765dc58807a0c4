//! Stores that are broken on purpose, one for each way to break a rule, and which cases of the suites see it.
//!
//! Each is tried in memory, and keeps what it has when it is opened again, so that every case applies.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broken;

use broken::table::each_is_caught;
use stillpoint_testkit::conformance::{Report, StoreFactory};
use stillpoint_workflow::testing::Sim;

fn run<T>(suite: impl AsyncFnOnce() -> T) -> T {
    Sim::new(1).run(suite())
}

/// That every case passes or is one of these, skipped.
fn passes(report: &Report, skipped: &[&str]) {
    report.assert_passed();
    assert_eq!(report.skipped(), skipped, "{report}");
}

#[test]
fn broken_journals_are_caught() {
    use broken::journal::{Broken, Fault, WANTED};
    use stillpoint_testkit::conformance::journal::{cases, run_all};
    let try_out = |fault| run(async || run_all(&Broken(fault) as &dyn StoreFactory).await);
    passes(&try_out(Fault::None), &["a_shared_journal_refuses_epoch_0"]);
    passes(&try_out(Fault::Shared), &["a_private_journal_takes_epoch_0"]);
    passes(&try_out(Fault::NeverForgets), &["a_shared_journal_refuses_epoch_0"]);
    each_is_caught(cases(), try_out, WANTED);
}

#[test]
fn broken_leases_are_caught() {
    use broken::leases::{Broken, Fault, WANTED};
    use stillpoint_testkit::conformance::leases::{cases, run_all};
    let try_out = |fault| run(async || run_all(&Broken(fault) as &dyn StoreFactory).await);
    passes(&try_out(Fault::None), &[]);
    // Who sees that the processes of the suite never lived may fence them at any time.
    passes(
        &try_out(Fault::SeesTheDead),
        &["a_living_process_is_not_fenced", "of_renewing_and_fencing_one_wins"],
    );
    each_is_caught(cases(), try_out, WANTED);
}

#[test]
fn broken_catalogues_are_caught() {
    use broken::catalog::{Broken, Fault, WANTED};
    use stillpoint_testkit::conformance::catalog::{cases, run_all};
    let try_out = |fault| run(async || run_all(&Broken(fault) as &dyn StoreFactory).await);
    passes(&try_out(Fault::None), &[]);
    each_is_caught(cases(), try_out, WANTED);
}
