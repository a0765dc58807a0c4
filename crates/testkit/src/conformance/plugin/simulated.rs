//! Organisations of a simulated Exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Cx, HostPath, RunId, Seams};
use stillpoint_exchange::{CopyId, ExchangePlugin, RequiredFile};
use stillpoint_model::handover::{Exposure, MemberRole, Prepared};
use stillpoint_model::id::{DatabaseId, ExposureKey, SetToken};
use stillpoint_model::inventory::FileRole;
use stillpoint_storage::{MemberSpec, PrepareSpec, Snapshot, SnapshotProvider};
use uuid::Uuid;

use super::super::store::BoxError;
use super::place::{Can, PluginFactory, PluginPlace};
use crate::{Change, CopySpec, DatabaseSpec, SimExchange, VolumeSpec, World};

type Open = dyn Fn(SimExchange) -> Arc<dyn ExchangePlugin> + Send + Sync;

/// Organisations in worlds of their own, a DAG of two servers with three databases, at which everything can be done: for
/// [`SimExchange`], for what is wrapped around it, and for a look at what the suite asks for. Time has to be virtual.
#[derive(Clone)]
pub struct SimOrganisations {
    seams: Seams,
    open: Arc<Open>,
}

impl Debug for SimOrganisations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimOrganisations")
    }
}

impl SimOrganisations {
    /// Organisations of the simulated plug-in, in this virtual time.
    pub fn new(seams: Seams) -> Self {
        Self { seams, open: Arc::new(|plugin| Arc::new(plugin)) }
    }

    /// The same, of what is made of the simulated plug-in each time that a place is opened.
    pub fn with(
        mut self,
        open: impl Fn(SimExchange) -> Arc<dyn ExchangePlugin> + Send + Sync + 'static,
    ) -> Self {
        self.open = Arc::new(open);
        self
    }
}

/// Three databases with a copy on each of two servers. They are written slowly, so that their logs are short.
fn organisation() -> World {
    let hosts = ["ex1.example.com", "ex2.example.com"];
    let mut builder = World::builder().host(hosts[0]).host(hosts[1]).dag("DAG1", hosts);
    for number in 1..=3 {
        let name = format!("DB{number:02}");
        let database = DatabaseSpec::new(&name).writes_every(Duration::from_secs(5));
        builder = builder.database(database.per_generation(60));
        for (server, host) in hosts.into_iter().enumerate() {
            let volume = format!("vol{number:02}-{server}");
            let copy = if server == 0 {
                CopySpec::active(&name, host)
            } else {
                CopySpec::passive(&name, host)
            };
            builder = builder
                .volume(VolumeSpec::new(&volume).mounted(host, format!(r"V:\Vol{number:02}")))
                .copy(copy.on(&volume, &volume));
        }
    }
    builder.build()
}

#[async_trait]
impl PluginFactory for SimOrganisations {
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError> {
        let world = organisation();
        // A run of its own: its snapshots are not those of the sessions that are tried.
        let cx = Cx::builder(&self.seams).run(RunId(Uuid::from_u128(1))).build();
        Ok(Box::new(Organisation { world, cx, open: Arc::clone(&self.open) }))
    }

    fn seams(&self) -> Seams {
        self.seams.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        use Can::{Complete, Disturb, Expose, Prepare, Read, Rename, Reopen, SeeFreeze, Virtual};
        [Reopen, Read, SeeFreeze, Disturb, Prepare, Expose, Rename, Complete, Virtual].into()
    }
}

struct Organisation {
    world: World,
    cx: Cx,
    open: Arc<Open>,
}

impl Organisation {
    async fn prepared(&self, files: &[RequiredFile]) -> Result<Prepared, BoxError> {
        let storage = self.world.storage();
        let paths: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
        let mut members = BTreeMap::<_, (MemberRole, Vec<HostPath>)>::new();
        for (placement, file) in storage.resolve(&self.cx, &paths).await?.into_iter().zip(files) {
            let role = match file.role {
                FileRole::Database => MemberRole::Data,
                _ => MemberRole::Log,
            };
            let member = members.entry(placement.volume).or_insert((role, Vec::new()));
            member.0 = member.0.and(role);
            member.1.push(placement.file);
        }
        let token = SetToken::new(format!("set-{}", self.cx.seams().ids.uuid().simple()))?;
        let mut spec = PrepareSpec::new(token.clone(), token.as_str());
        for (volume, (role, files)) in members {
            spec = spec.with_member(MemberSpec::new(volume, role, files));
        }
        Ok(storage.prepare(&self.cx, &spec).await?)
    }
}

#[async_trait]
impl PluginPlace for Organisation {
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError> {
        Ok((self.open)(self.world.exchange()))
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.world.read(path))
    }

    async fn is_frozen(&self, copy: &CopyId) -> Result<bool, BoxError> {
        Ok(self.world.is_held(copy))
    }

    async fn disturb(&self, copy: &CopyId) -> Result<(), BoxError> {
        self.world.change(&Change::ThawByOperator(copy.host.clone()));
        self.world.change(&Change::Dismount(copy.clone()));
        Ok(())
    }

    async fn prepare(&self, files: &[RequiredFile]) -> Result<Vec<Prepared>, BoxError> {
        Ok(vec![self.prepared(files).await?])
    }

    async fn expose(&self, files: &[RequiredFile]) -> Result<Exposure, BoxError> {
        let prepared = self.prepared(files).await?;
        let (storage, key) = (self.world.storage(), ExposureKey::new(prepared.token.as_str())?);
        storage.commit(&self.cx, &prepared).await?;
        let snapshots = SnapshotProvider::settle(&storage, &self.cx, &prepared).await?;
        let snapshots: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
        let host = files.first().ok_or("there is no file")?.path.host();
        Ok(storage.expose(&self.cx, &snapshots, host, &key).await?)
    }

    async fn rename(&self, database: DatabaseId, name: &str) -> Result<(), BoxError> {
        self.world.rename(database, name);
        Ok(())
    }
}
