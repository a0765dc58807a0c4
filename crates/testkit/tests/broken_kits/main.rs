//! Providers and plug-ins that are broken on purpose, one for each way to break a rule, and which cases of the suites see it.
//!
//! Each is tried over the simulated world, at which everything can be done, so that every case applies.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic)]

mod plugin;
mod provider;
#[path = "../broken/table.rs"]
mod table;

use stillpoint_testkit::conformance::Report;
use stillpoint_workflow::testing::Sim;
use table::each_is_caught;

/// That every case passes or is one of these, skipped.
fn passes(report: &Report, skipped: &[&str]) {
    report.assert_passed();
    assert_eq!(report.skipped(), skipped, "{report}");
}

#[test]
fn broken_providers_are_caught() {
    use provider::{Fault, WANTED, places};
    use stillpoint_testkit::conformance::provider::{cases, run_all};
    let try_out = |fault| {
        let sim = Sim::new(1);
        let places = places(fault, sim.seams());
        sim.run(run_all(&places))
    };
    passes(&try_out(Fault::None), &["more_volumes_than_can_be_are_refused"]);
    passes(&try_out(Fault::FewVolumes), &["a_revert_needs_consent_to_what_it_destroys"]);
    each_is_caught(cases(), try_out, WANTED);
}

#[test]
fn broken_plug_ins_are_caught() {
    use plugin::{Fault, WANTED, places};
    use stillpoint_testkit::conformance::plugin::{cases, run_all};
    let try_out = |fault| {
        let sim = Sim::new(1);
        let places = places(fault, sim.seams());
        sim.run(run_all(&places))
    };
    let no_log_backups = "without_log_backups_no_logs_are_named";
    passes(&try_out(Fault::None), &["more_databases_than_can_be_are_refused", no_log_backups]);
    passes(&try_out(Fault::FewDatabases), &[no_log_backups]);
    let whole = try_out(Fault::NoLogBackups);
    whole.assert_passed();
    assert!(whole.passed().contains(&no_log_backups), "{whole}");
    let snaps = try_out(Fault::SnapsOnly);
    snaps.assert_passed();
    assert!(snaps.passed().contains(&"snapping_freezes_and_thaws_inside"), "{snaps}");
    each_is_caught(cases(), try_out, WANTED);
}
