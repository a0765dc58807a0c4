//! The suite for plug-ins, on the simulated one in each of its modes.

use std::num::NonZeroU32;
use std::sync::Arc;

use stillpoint_exchange::{Coordination, PluginCaps};
use stillpoint_testkit::conformance::Report;
use stillpoint_testkit::conformance::plugin::{self, SimOrganisations};
use stillpoint_workflow::testing::Sim;

fn run(caps: impl Fn(&mut PluginCaps) + Send + Sync + 'static) -> Report {
    let sim = Sim::new(1);
    let places = SimOrganisations::new(sim.seams()).with(move |p| Arc::new(p.with_caps(&caps)));
    sim.run(plugin::run_all(&places))
}

#[test]
fn the_simulated_plug_in_conforms_in_every_mode() {
    let both = run(|caps| caps.max_databases = NonZeroU32::new(2));
    both.assert_passed();
    assert_eq!(both.skipped(), ["without_log_backups_no_logs_are_named"]);
    let whole = run(|caps| caps.kinds.retain(|kind| kind.takes_database()));
    whole.assert_passed();
    assert!(whole.skipped().contains(&"closed_logs_are_named_in_order"), "{whole}");
    let contracts: Vec<_> = both.by_contract().into_keys().collect();
    assert_eq!(contracts, ["X1", "X2", "X3", "X4", "X5", "X6", "X7", "X8", "X9"]);
    let freezes = run(|caps| caps.coordination = [Coordination::Engine].into());
    freezes.assert_passed();
    assert!(freezes.skipped().contains(&"snapping_freezes_and_thaws_inside"), "{freezes}");
    let snaps = run(|caps| caps.coordination = [Coordination::Plugin].into());
    snaps.assert_passed();
    assert!(snaps.skipped().contains(&"a_thaw_is_right_in_any_state"), "{snaps}");
}

#[test]
fn a_plug_in_that_can_do_little_conforms_in_that() {
    let report = run(|caps| {
        caps.verify = false;
        caps.fencing = false;
        caps.max_databases = NonZeroU32::new(1);
        caps.kinds = [stillpoint_exchange::BackupKind::Full].into();
    });
    report.assert_passed();
    assert!(report.passed().len() > 25, "{report}");
}
