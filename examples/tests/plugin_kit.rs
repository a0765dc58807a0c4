//! The suite for plug-ins, on the minimal one of the documentation: what of it can be tried without files.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "the plug-in stands as it does in the documentation"
)]

include!("../../crates/exchange/doc/minimal.rs");

use std::sync::Arc;

use stillpoint_context::{HostId, HostPath, PathFlavor, Seams};
use stillpoint_model::availability::Availability;
use stillpoint_model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, FileRole, Host,
};
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::plugin::{self, PluginFactory, PluginPlace};
use stillpoint_workflow::testing::Sim;

/// Two databases at rest on one server; their files are nowhere.
fn inventory() -> Inventory {
    let host: HostId = "lab".parse().unwrap();
    let mut inventory = Inventory::new("seen-once".parse().unwrap(), DateTime::UNIX_EPOCH);
    inventory.add_host(Host::new(host.clone()));
    for name in ["DB01", "DB02"] {
        let database = Database::new(DatabaseId::at_rest(b"a signature", name), name);
        let mut copy = DatabaseCopy::new(
            CopyId::new(database.id, host.clone()),
            CopyRole::Active,
            CopyStatus::AtRest,
            Availability::available(DateTime::UNIX_EPOCH),
        );
        let file = format!("/srv/mail/{name}.edb");
        let file = HostPath::new(host.clone(), PathFlavor::Posix, file).unwrap();
        copy.files = vec![CopyFile::new(file, FileRole::Database)];
        inventory.add_database(database).add_copy(copy);
    }
    inventory
}

struct Lab(Sim);

struct Place;

#[async_trait]
impl PluginFactory for Lab {
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError> {
        Ok(Box::new(Place))
    }
    fn seams(&self) -> Seams {
        self.0.seams()
    }
}

#[async_trait]
impl PluginPlace for Place {
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError> {
        Ok(Arc::new(Minimal { inventory: inventory(), sessions: Mutex::default() }))
    }
}

#[test]
fn the_minimal_plug_in_conforms() {
    let sim = Sim::new(1);
    let report = sim.run(plugin::run_all(&Lab(sim.clone())));
    report.assert_passed();
    // Nobody can say here whether writes are held: that is for one that holds them.
    assert!(report.skipped().contains(&"writes_are_held_from_freeze_to_thaw"), "{report}");
    assert!(report.passed().len() > 20, "{report}");
}
