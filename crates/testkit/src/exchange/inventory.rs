//! The inventory of a world.

use stillpoint_exchange::{PluginError, PluginErrorKind, PluginResult, Scope};
use stillpoint_model::id::{CopyId, InventoryEpoch};
use stillpoint_model::inventory::{DatabaseCopy, Inventory};

use crate::moment::Moment;
use crate::world::state::State;

impl State {
    pub(super) fn inventory(&mut self, scope: &Scope, at: Moment) -> PluginResult<Inventory> {
        let epoch = InventoryEpoch::new("simulated")
            .map_err(|error| PluginError::new(PluginErrorKind::Internal, error.to_string()))?;
        let mut inventory = Inventory::new(epoch, at.at);
        let ids: Vec<CopyId> = self.copies.keys().cloned().collect();
        let wanted = |id: &CopyId| match scope {
            Scope::Hosts(hosts) => hosts.contains(&id.host),
            Scope::Databases(databases) => databases.contains(&id.database),
            _ => true,
        };
        for id in ids.iter().filter(|id| wanted(id)) {
            let availability = self.availability(id, at);
            let files = self.copy_files(id, at);
            let Some(known) = self.copies.get(id) else { continue };
            let mut copy = DatabaseCopy::new(id.clone(), known.role, known.status, availability);
            copy.activation_preference = known.preference;
            copy.replay_lag = known.replay_lag;
            copy.truncation_lag = known.truncation_lag;
            copy.copy_queue = Some(known.copy_queue);
            copy.replay_queue = Some(known.replay_queue);
            copy.last_inspected_at = Some(at.at);
            let disk = self.volumes.get(&known.logs);
            copy.log_folder = disk.and_then(|disk| disk.path(&known.log_folder(), &id.host));
            copy.log_prefix = Some(known.prefix.clone());
            copy.log_state = Some(known.writer.log_state(at));
            copy.files = files;
            inventory.add_copy(copy);
        }
        for (id, known) in &self.databases {
            if !inventory.copies.keys().any(|copy| copy.database == *id)
                && *scope != Scope::Everything
            {
                continue;
            }
            let mut database = known.info.clone();
            database.backup_in_progress = self.in_backup(*id).is_some();
            let active = inventory.active_copy(*id).and_then(DatabaseCopy::database_file);
            database.bytes = active.and_then(|file| file.bytes);
            inventory.add_database(database);
        }
        for (id, host) in &self.hosts {
            let named = match scope {
                Scope::Everything => true,
                Scope::Hosts(hosts) => hosts.contains(id),
                _ => inventory.copies.keys().any(|copy| copy.host == *id),
            };
            if named {
                inventory.add_host(host.info.clone());
            }
        }
        for dag in self.dags.values() {
            if dag.members.iter().any(|member| inventory.hosts.contains_key(member)) {
                inventory.add_dag(dag.clone());
            }
        }
        inventory.epoch = inventory.structural_epoch();
        Ok(inventory)
    }
}
