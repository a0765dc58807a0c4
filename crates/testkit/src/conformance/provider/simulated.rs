//! Places of a simulated storage.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{HostId, HostPath, PathFlavor, Seams};
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{SnapshotRef, VolumeRef};
use stillpoint_storage::SnapshotProvider;

use super::super::store::BoxError;
use super::place::{Can, Ground, ProviderFactory, ProviderPlace, TestVolume};
use crate::{Change, SimStorage, VolumeSpec, World};

type Open = dyn Fn(SimStorage) -> Arc<dyn SnapshotProvider> + Send + Sync;

/// Places in worlds of their own, at which everything can be done: for [`SimStorage`], for what is wrapped around it, and
/// for a look at what the suite asks for.
///
/// Three volumes, of which the first takes longer than the others and has at most 16 snapshots. Time has to be virtual.
#[derive(Clone)]
pub struct SimPlaces {
    seams: Seams,
    open: Arc<Open>,
}

impl Debug for SimPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimPlaces")
    }
}

impl SimPlaces {
    /// Places of the simulated provider, in this virtual time.
    pub fn new(seams: Seams) -> Self {
        Self { seams, open: Arc::new(|storage| Arc::new(storage)) }
    }

    /// The same, of what is made of the simulated provider each time that a place is opened.
    pub fn with(
        mut self,
        open: impl Fn(SimStorage) -> Arc<dyn SnapshotProvider> + Send + Sync + 'static,
    ) -> Self {
        self.open = Arc::new(open);
        self
    }
}

const HOST: &str = "lab.example.com";
const VOLUMES: [(&str, Duration); 3] = [
    ("data", Duration::from_millis(20)),
    ("logs", Duration::from_millis(5)),
    ("more", Duration::from_millis(10)),
];

#[async_trait]
impl ProviderFactory for SimPlaces {
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
        let host: HostId = HOST.parse()?;
        let mut builder = World::builder().host(HOST);
        let mut volumes = Vec::new();
        for (index, (name, commit)) in VOLUMES.into_iter().enumerate() {
            let mut spec =
                VolumeSpec::new(name).mounted(HOST, format!("/mail/{name}")).commit(commit);
            if index == 0 {
                spec = spec.snapshot_limit(16);
            }
            builder = builder.volume(spec);
            let root = HostPath::new(host.clone(), PathFlavor::Posix, format!("/mail/{name}"))?;
            let files = vec![root.join("one.bin")?, root.join("in a folder/two.bin")?];
            let volume: VolumeRef = format!("sim:{name}").parse()?;
            volumes.push(TestVolume::new(volume, root, files));
        }
        let world = builder.build();
        for file in volumes.iter().flat_map(|volume| &volume.files) {
            world.write(file, b"as it was");
        }
        let path = |raw: &str| HostPath::new(host.clone(), PathFlavor::Posix, raw);
        let ground = Ground::new(volumes, host.clone())
            .with_elsewhere(path("/elsewhere/file.bin")?)
            .with_targets(path("/restored")?);
        Ok(Box::new(SimPlace { world, ground, open: Arc::clone(&self.open) }))
    }

    fn seams(&self) -> Seams {
        self.seams.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        use Can::{CutPower, Exhaust, Fill, Foreign, Hold, Lock, Reopen, Snap, Virtual, Write};
        [Reopen, Write, Foreign, Snap, Fill, Exhaust, Hold, Lock, CutPower, Virtual].into()
    }
}

struct SimPlace {
    world: World,
    ground: Ground,
    open: Arc<Open>,
}

#[async_trait]
impl ProviderPlace for SimPlace {
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
        Ok((self.open)(self.world.storage()))
    }

    fn ground(&self) -> Ground {
        self.ground.clone()
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.world.read(path))
    }

    async fn write(&self, path: &HostPath, bytes: &[u8]) -> Result<(), BoxError> {
        self.world.write(path, bytes);
        Ok(())
    }

    async fn remove(&self, path: &HostPath) -> Result<(), BoxError> {
        self.world.remove(path);
        Ok(())
    }

    async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
        // What lies on a volume, or was restored, is a file like any other.
        let live = self.ground.volumes.iter().map(|volume| &volume.root);
        Ok(!live.chain(&self.ground.targets).any(|folder| path.starts_with(folder)))
    }

    async fn add_foreign(&self, volume: &VolumeRef, name: &str) -> Result<SnapshotRef, BoxError> {
        Ok(self.world.add_foreign_snapshot(volume, name))
    }

    async fn snap(&self, prepared: &Prepared) -> Result<Vec<NativeSnapshot>, BoxError> {
        Ok(self.world.snap_natively(prepared))
    }

    async fn fill(&self, volume: &VolumeRef, full: bool) -> Result<(), BoxError> {
        self.world.fill(volume, full);
        Ok(())
    }

    async fn hold(&self, snapshot: &SnapshotRef, held: bool) -> Result<(), BoxError> {
        self.world.hold(snapshot, held);
        Ok(())
    }

    async fn lock(&self, snapshot: &SnapshotRef, locked: bool) -> Result<DateTime<Utc>, BoxError> {
        let time = if locked { Duration::from_hours(1) } else { Duration::ZERO };
        let until = self.world.now().plus(time).at;
        self.world.lock_snapshot(snapshot, time);
        Ok(until)
    }

    async fn cut_power(&self) -> Result<(), BoxError> {
        self.world.change(&Change::PowerCut);
        Ok(())
    }
}
