//! The suite for providers, on the minimal one of the documentation: what of it can be tried without files.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "the provider stands as it does in the documentation"
)]

include!("../../crates/storage/doc/minimal.rs");

use std::sync::Arc;

use stillpoint_context::{PathFlavor, Seams};
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::provider::{
    self, Ground, ProviderFactory, ProviderPlace, TestVolume,
};
use stillpoint_workflow::testing::Sim;

fn root() -> HostPath {
    HostPath::new("lab".parse().unwrap(), PathFlavor::Posix, "/srv/mail").unwrap()
}

/// Snapshots of nothing: every file of the world holds the same, at any time.
struct Nowhere(Sim);

struct Place;

#[async_trait]
impl ProviderFactory for Nowhere {
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
        Ok(Box::new(Place))
    }
    fn seams(&self) -> Seams {
        self.0.seams()
    }
}

#[async_trait]
impl ProviderPlace for Place {
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
        Ok(Arc::new(Minimal {
            caps: ProviderCaps::new("minimal".parse()?),
            volume: "minimal:mail".parse()?,
            root: root(),
            sets: Mutex::default(),
            exposed: Mutex::default(),
            docs: Mutex::default(),
        }))
    }
    fn ground(&self) -> Ground {
        let files = vec![root().join("DB01.edb").unwrap()];
        let volume = TestVolume::new("minimal:mail".parse().unwrap(), root(), files);
        Ground::new(vec![volume], root().host().clone())
    }
    async fn read(&self, _: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(b"the same".to_vec()))
    }
}

#[test]
fn the_minimal_provider_conforms() {
    let sim = Sim::new(1);
    let report = sim.run(provider::run_all(&Nowhere(sim.clone())));
    report.assert_passed();
    // It keeps no bytes: what needs them is for one that does.
    assert!(report.skipped().contains(&"publishing_puts_files_at_their_targets"), "{report}");
    assert!(report.passed().len() > 30, "{report}");
}
