//! Small views of an inventory.

use std::collections::BTreeSet;

use stillpoint_model::id::DatabaseId;
use stillpoint_model::inventory::Inventory;

/// The part of an inventory that concerns these databases: they, their copies, and the copies' hosts.
pub(crate) fn restrict(inventory: &Inventory, databases: &BTreeSet<DatabaseId>) -> Inventory {
    let mut part = Inventory::new(inventory.epoch.clone(), inventory.observed_at);
    for database in inventory.databases.values().filter(|known| databases.contains(&known.id)) {
        let _part = part.add_database(database.clone());
        for copy in inventory.copies_of(database.id) {
            let _part = part.add_copy(copy.clone());
            if let Some(host) = inventory.hosts.get(&copy.id.host) {
                let _part = part.add_host(host.clone());
            }
        }
        if let Some(dag) = database.dag.and_then(|id| inventory.dags.get(&id)) {
            let _part = part.add_dag(dag.clone());
        }
    }
    part
}
