//! Damage to files, live or stored.

use std::sync::Arc;

use stillpoint_context::HostPath;
use stillpoint_model::id::{CopyId, SnapshotRef};
use stillpoint_model::inventory::Generation;

use crate::world::World;
use crate::world::state::{State, flip};
use crate::writer::PAGE_BYTES;

/// Damages files of a [`World`]. Made by [`World::damage`].
#[derive(Debug)]
pub struct Damage(World);

impl Damage {
    pub(crate) fn of(world: &World) -> Self {
        Self(world.clone())
    }

    /// Makes page 3 of a copy's live database bad: whoever reads it from now on, also in a snapshot taken later, finds a wrong
    /// checksum there, and nowhere else.
    ///
    /// # Panics
    /// When there is no such copy.
    pub fn database(&self, copy: &CopyId) {
        let place = self.0.edit(|state| {
            let found = state.copies.get(copy)?;
            let disk = state.volumes.get(&found.data)?;
            disk.path(&found.database_file(), &copy.host)
        });
        assert!(place.is_some(), "there is no copy {copy}");
        if let Some(path) = place {
            self.live_file(&path, (3 * PAGE_BYTES as u64 + 40) * 8 + 5);
        }
    }

    /// Flips one bit of a live file on a volume, for good: it is wrong again whenever the writer writes the file anew.
    ///
    /// # Panics
    /// When the path lies on no volume.
    pub fn live_file(&self, path: &HostPath, bit: u64) {
        self.0.edit(|state| {
            let found = state.locate(path);
            assert!(found.is_some(), "{path} lies on no volume");
            let Some((volume, inside)) = found else { return };
            let Some(disk) = state.volumes.get_mut(&volume) else { return };
            let key = disk.key(&inside);
            if let Some(file) = disk.files.get_mut(&key) {
                file.bytes = flipped(&file.bytes, bit);
            }
            state.flips.entry((volume, key)).or_default().insert(bit);
        });
    }

    /// Flips one bit of a file in a snapshot that was taken.
    ///
    /// # Panics
    /// When the snapshot or the file in it is not there.
    pub fn stored_file(&self, snapshot: &SnapshotRef, path: &HostPath, bit: u64) {
        let done = self.0.edit(|state| {
            let file = stored(state, snapshot, path)?;
            file.bytes = flipped(&file.bytes, bit);
            Some(())
        });
        assert!(done.is_some(), "there is no {path} in {snapshot}");
    }

    /// Cuts a file in a snapshot short.
    ///
    /// # Panics
    /// When the snapshot or the file in it is not there.
    pub fn truncate_stored(&self, snapshot: &SnapshotRef, path: &HostPath, bytes: usize) {
        let done = self.0.edit(|state| {
            let file = stored(state, snapshot, path)?;
            file.bytes = file.bytes.get(..bytes).map_or_else(|| Arc::clone(&file.bytes), Arc::from);
            Some(())
        });
        assert!(done.is_some(), "there is no {path} in {snapshot}");
    }

    /// Removes a closed log file of a live copy.
    ///
    /// # Panics
    /// When there is no such copy.
    pub fn remove_log(&self, copy: &CopyId, generation: Generation) {
        self.0.edit(|state| {
            let now = state.now;
            state.render(copy, now);
            let found = state.copies.get(copy).cloned();
            assert!(found.is_some(), "there is no copy {copy}");
            let Some(found) = found else { return };
            let inside = found.closed_log(generation.0);
            if let Some(disk) = state.volumes.get_mut(&found.logs) {
                let key = disk.key(&inside);
                disk.files.remove(&key);
            }
        });
    }
}

fn flipped(bytes: &[u8], bit: u64) -> Arc<[u8]> {
    let mut bytes = bytes.to_vec();
    flip(&mut bytes, bit);
    bytes.into()
}

fn stored<'a>(
    state: &'a mut State,
    snapshot: &SnapshotRef,
    path: &HostPath,
) -> Option<&'a mut crate::world::state::File> {
    let (volume, inside) = state.locate(path).filter(|(volume, _)| *volume == snapshot.volume)?;
    let disk = state.volumes.get_mut(&volume)?;
    let key = disk.key(&inside);
    disk.snapshots.get_mut(&snapshot.id)?.files.get_mut(&key)
}
