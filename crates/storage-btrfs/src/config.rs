//! What a provider is opened with.

use std::path::PathBuf;

use stillpoint_context::HostId;
use stillpoint_model::id::ProviderId;

/// What a provider is made of.
///
/// ```
/// use stillpoint_storage_btrfs::BtrfsConfig;
///
/// let config = BtrfsConfig::new("btrfs".parse()?, "lab".parse()?, "/mnt/pool/stillpoint")
///     .with_volume("/mnt/pool/mail")
///     .with_volume("/mnt/pool/logs");
/// assert_eq!(config.volumes.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BtrfsConfig {
    /// The provider's name; it stands in every volume's reference.
    pub provider: ProviderId,
    /// The name of this machine in host paths.
    pub host: HostId,
    /// The volumes: the root folders of subvolumes. A folder that is gone can be restored from, not snapped.
    pub volumes: Vec<PathBuf>,
    /// The folder of the store, on the file system of the volumes and outside all of them.
    pub store: PathBuf,
    /// Whether the store is made if it is not there. Without it, opening fails where there is none.
    pub make: bool,
    /// Whether volumes may be reverted. Where they may, a plan warns of volumes that hold several databases, as a revert would
    /// take all of them back.
    pub revert: bool,
}

impl BtrfsConfig {
    /// A provider without volumes, with its store in this folder.
    pub fn new(provider: ProviderId, host: HostId, store: impl Into<PathBuf>) -> Self {
        Self { provider, host, volumes: Vec::new(), store: store.into(), make: true, revert: true }
    }

    /// The same over a store that is there: none is made, so that a store which is missing (a disk that is not mounted) is not
    /// taken for an empty one.
    pub fn with_existing_store(mut self) -> Self {
        self.make = false;
        self
    }

    /// The same without reverts: everything is restored by clone.
    pub fn without_revert(mut self) -> Self {
        self.revert = false;
        self
    }

    /// The same with one more volume, by the root folder of its subvolume.
    pub fn with_volume(mut self, folder: impl Into<PathBuf>) -> Self {
        self.volumes.push(folder.into());
        self
    }
}
