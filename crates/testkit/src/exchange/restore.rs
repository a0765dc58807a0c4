//! Bringing simulated databases back into service.

use async_trait::async_trait;
use stillpoint_context::Cx;
use stillpoint_exchange::{
    ExchangeRestore, PluginError, PluginErrorKind, PluginResult, Recovered, RestoreSpec,
};
use stillpoint_model::id::CopyId;
use stillpoint_model::inventory::{CopyRole, Generation};

use super::SimExchange;
use crate::world::record::Breach;
use crate::world::state::{Entry, SimRestore, State};

fn refuse(kind: PluginErrorKind, message: String) -> PluginError {
    PluginError::new(kind, message).without_effect()
}

impl State {
    fn open_restore(&mut self, entry: &Entry, spec: &RestoreSpec) -> PluginResult<()> {
        let before = self.restores.get(&spec.id);
        if before.is_some_and(|before| !before.finished) {
            return Ok(());
        }
        let before = before.map(|before| before.was_mounted);
        let copy = CopyId::new(spec.database, spec.host.clone());
        let mut was_mounted = false;
        if spec.in_place {
            if !self.databases.contains_key(&spec.database) {
                let message = format!("there is no database {}", spec.database);
                return Err(refuse(PluginErrorKind::TargetMissing, message));
            }
            if self.in_backup(spec.database).is_some() {
                self.violate(entry.at, Breach::BackupDuringRestore, copy.to_string());
                let message = format!("{copy} is in a backup");
                return Err(refuse(PluginErrorKind::TargetInUse, message));
            }
            let Some(known) = self.copies.get(&copy).filter(|known| known.role == CopyRole::Active)
            else {
                let message = format!("{copy} is not the active copy");
                return Err(refuse(PluginErrorKind::CopyNotActive, message));
            };
            was_mounted = known.mounted;
            self.dismount(&copy, entry.at);
            if let Some(database) = self.databases.get_mut(&spec.database) {
                database.info.allow_file_restore = true;
            }
        } else if let Some((path, _)) = spec.files.iter().find(|(path, _)| self.is_live(path)) {
            let message = format!("{path} belongs to a mounted database");
            return Err(refuse(PluginErrorKind::TargetInUse, message));
        }
        // Opened once more to be taken back: what counts is how it was at first.
        let was_mounted = before.unwrap_or(was_mounted);
        let restore = SimRestore { spec: spec.clone(), was_mounted, finished: false };
        self.restores.insert(spec.id, restore);
        Ok(())
    }

    /// Whether a mounted copy has a file open at this path.
    pub(crate) fn is_live(&self, path: &stillpoint_context::HostPath) -> bool {
        let Some((volume, inside)) = self.locate(path) else { return false };
        let Some(disk) = self.volumes.get(&volume) else { return false };
        let key = disk.key(&inside);
        self.copies.values().filter(|copy| copy.mounted).any(|copy| {
            let data = copy.data == volume && disk.key(&copy.database_file()) == key;
            let logs = disk.key(&copy.log_folder()) + "/";
            data || (copy.logs == volume && key.starts_with(&logs))
        })
    }

    fn finish_restore(&mut self, entry: &Entry, spec: &RestoreSpec) -> PluginResult<Recovered> {
        let Some(restore) = self.restores.get(&spec.id).cloned() else {
            let message = format!("restore {} was not opened", spec.id);
            return Err(refuse(PluginErrorKind::SessionGone, message));
        };
        let mut recovered = Recovered::files_only();
        if spec.in_place && (spec.mount || restore.was_mounted) {
            let copy = CopyId::new(spec.database, spec.host.clone());
            if !self.mount(&copy, entry.at) {
                let message = format!("{copy} cannot be mounted: its database is damaged");
                return Err(refuse(PluginErrorKind::Io, message));
            }
            recovered.mounted = true;
            let writer = self.copies.get(&copy).map(|copy| &copy.writer);
            recovered.replayed_to =
                writer.map(|writer| Generation(writer.open_generation(entry.at)));
        }
        self.close_restore(spec);
        Ok(recovered)
    }

    fn close_restore(&mut self, spec: &RestoreSpec) {
        if let Some(restore) = self.restores.get_mut(&spec.id) {
            restore.finished = true;
        }
        if spec.in_place
            && let Some(database) = self.databases.get_mut(&spec.database)
        {
            database.info.allow_file_restore = false;
        }
    }

    fn cancel_restore(&mut self, entry: &Entry, spec: &RestoreSpec) -> PluginResult<()> {
        let Some(restore) = self.restores.get(&spec.id).filter(|restore| !restore.finished) else {
            return Ok(());
        };
        let copy = CopyId::new(spec.database, spec.host.clone());
        if restore.was_mounted && !self.mount(&copy, entry.at) {
            let message = format!("{copy} cannot be mounted again");
            return Err(refuse(PluginErrorKind::Io, message));
        }
        self.close_restore(spec);
        self.restores.remove(&spec.id);
        Ok(())
    }
}

#[async_trait]
impl ExchangeRestore for SimExchange {
    async fn open(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        let about = format!("{} {} on {}", spec.id, spec.database, spec.host);
        let spec = spec.clone();
        let effect = move |state: &mut State, entry: &Entry| state.open_restore(entry, &spec);
        self.perform(cx, "restore.open", about, effect).await
    }

    async fn finish(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<Recovered> {
        let about = format!("{} {} on {}", spec.id, spec.database, spec.host);
        let spec = spec.clone();
        let effect = move |state: &mut State, entry: &Entry| state.finish_restore(entry, &spec);
        self.perform(cx, "restore.finish", about, effect).await
    }

    async fn cancel(&self, cx: &Cx, spec: &RestoreSpec) -> PluginResult<()> {
        let about = format!("{} {} on {}", spec.id, spec.database, spec.host);
        let spec = spec.clone();
        let effect = move |state: &mut State, entry: &Entry| state.cancel_restore(entry, &spec);
        self.perform(cx, "restore.cancel", about, effect).await
    }
}
