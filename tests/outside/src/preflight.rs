//! Backup logic of an application: what stands in the way of tonight's backup.

use std::collections::BTreeSet;
use std::error::Error;

use stillpoint::exchange::{Cx, DatabaseId, ExchangePlugin, Scope};
use stillpoint::storage::{SnapshotProvider, VolumeRef};

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// No copy of the database can be backed up; the codes of all reasons.
    Unavailable(DatabaseId, Vec<&'static str>),
    /// A file lies where the provider has no volume.
    Elsewhere(DatabaseId),
    /// The volume takes fewer snapshots than are to be kept.
    NoRoom(VolumeRef, u32),
}

/// Everything that stands in the way of keeping `keep` more snapshots of every database.
///
/// # Errors
/// When Exchange or the storage cannot be asked.
pub async fn obstacles(
    cx: &Cx,
    plugin: &dyn ExchangePlugin,
    provider: &dyn SnapshotProvider,
    keep: u32,
) -> Result<Vec<Obstacle>, Box<dyn Error + Send + Sync>> {
    let inventory = plugin.inventory(cx, &Scope::Everything).await?;
    let mut found = Vec::new();
    let mut volumes = BTreeSet::new();
    for database in inventory.databases.keys() {
        let copies: Vec<_> = inventory.copies_of(*database).collect();
        let Some(copy) = copies.iter().find(|copy| copy.availability.is_available()) else {
            let reasons = copies.iter().flat_map(|copy| &copy.availability.reasons);
            found.push(Obstacle::Unavailable(*database, reasons.map(|r| r.code()).collect()));
            continue;
        };
        let files: Vec<_> = copy.files.iter().map(|file| file.path.clone()).collect();
        let placed = provider.resolve(cx, &files).await?;
        if placed.len() < files.len() {
            found.push(Obstacle::Elsewhere(*database));
        }
        volumes.extend(placed.into_iter().map(|placement| placement.volume));
    }
    let volumes: Vec<_> = volumes.into_iter().collect();
    for facts in provider.volumes(cx, &volumes).await? {
        if let Some(left) = facts.snapshots_left().filter(|left| *left < keep) {
            found.push(Obstacle::NoRoom(facts.volume, left));
        }
    }
    Ok(found)
}
