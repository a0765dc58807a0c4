//! The suite for providers, on the simulated storage in each of its modes.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use stillpoint_model::capability::ProviderCoordination::{self, Adopt, Commit};
use stillpoint_storage::ProviderCaps;
use stillpoint_testkit::conformance::Report;
use stillpoint_testkit::conformance::provider::{self, SimPlaces};
use stillpoint_workflow::testing::Sim;

fn run(caps: impl Fn(&mut ProviderCaps) + Send + Sync + 'static) -> Report {
    let sim = Sim::new(1);
    let places = SimPlaces::new(sim.seams()).with(move |s| Arc::new(s.with_caps(&caps)));
    sim.run(provider::run_all(&places))
}

fn in_mode(coordination: &[ProviderCoordination]) -> Report {
    let coordination: BTreeSet<_> = coordination.iter().copied().collect();
    run(move |caps| {
        caps.coordination.clone_from(&coordination);
        caps.revert = true;
        caps.max_volumes = NonZeroU32::new(2);
    })
}

#[test]
fn the_simulated_storage_conforms_in_every_mode() {
    let both = in_mode(&[Commit, Adopt]);
    both.assert_passed();
    assert!(both.skipped().is_empty(), "{both}");
    assert_eq!(
        both.by_contract().into_keys().collect::<Vec<_>>(),
        ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9"]
    );
    let commits = in_mode(&[Commit]);
    commits.assert_passed();
    assert_eq!(commits.skipped().len(), 4, "{commits}");
    let adopts = in_mode(&[Adopt]);
    adopts.assert_passed();
    assert_eq!(adopts.skipped().len(), 6, "{adopts}");
}

#[test]
fn a_storage_that_can_do_little_conforms_in_that() {
    let report = run(|caps| {
        caps.instant = false;
        caps.expose = false;
        caps.clone = false;
        caps.documents = false;
        caps.max_volumes = NonZeroU32::new(1);
    });
    report.assert_passed();
    assert!(report.passed().len() > 30, "{report}");
}
