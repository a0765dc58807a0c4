//! The simulated snapshot provider.

use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{Cx, HostId, HostPath, PathFlavor};
use stillpoint_model::capability::ProviderCoordination;
use stillpoint_model::handover::{ExposedRoot, Exposure, Member, NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::placement::Placement;
use stillpoint_storage::{
    Deleted, Discarded, DocName, Found, Listing, PrepareSpec, ProviderCaps, ProviderError,
    ProviderErrorKind, ProviderResult, Snapshot, SnapshotLock, SnapshotProvider, SnapshotRestore,
    VolumeFacts,
};

use crate::call::Side;
use crate::world::World;
use crate::world::array::{Behaviour, refuse};
use crate::world::builder::provider;
use crate::world::state::{Entry, State};

mod lock;
mod restore;

/// A provider of a [`World`]'s volumes: instant snapshots, commit and adopt, exposure, documents, restore by clone.
///
/// Made by [`World::storage`].
#[derive(Debug, Clone)]
pub struct SimStorage {
    world: World,
    caps: Arc<ProviderCaps>,
    behaviour: Behaviour,
}

impl World {
    /// The provider `sim`, to which volumes belong unless said otherwise.
    pub fn storage(&self) -> SimStorage {
        self.storage_named("sim")
    }

    /// The provider of this name.
    ///
    /// # Panics
    /// When the name is no provider id.
    pub fn storage_named(&self, name: &str) -> SimStorage {
        let mut caps = ProviderCaps::new(provider(name));
        caps.coordination = [ProviderCoordination::Commit, ProviderCoordination::Adopt].into();
        caps.instant = true;
        caps.clone = true;
        caps.fencing = true;
        SimStorage { world: self.clone(), caps: Arc::new(caps), behaviour: Behaviour::default() }
    }
}

impl SimStorage {
    /// The same with other capabilities, which it keeps to.
    pub fn with_caps(mut self, change: impl FnOnce(&mut ProviderCaps)) -> Self {
        change(Arc::make_mut(&mut self.caps));
        self
    }

    /// The same with another behaviour.
    pub fn with_behaviour(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.behaviour);
        self
    }

    /// The world whose volumes it has.
    pub fn world(&self) -> &World {
        &self.world
    }

    async fn perform<T, F>(
        &self,
        cx: &Cx,
        name: &'static str,
        about: String,
        effect: F,
    ) -> ProviderResult<T>
    where
        T: Send,
        F: Fn(&mut State, &Entry) -> ProviderResult<T> + Send + Sync + 'static,
    {
        let about = format!("{} {about}", self.caps.provider);
        self.world.perform(cx, Side::Storage, name, about, effect).await
    }

    fn plays(&self, part: ProviderCoordination) -> bool {
        self.caps.coordination.contains(&part)
    }
}

fn listed<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

impl State {
    fn expose(
        &mut self,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
        caps: &ProviderCaps,
    ) -> ProviderResult<Exposure> {
        let open = self.exposures.get(&(caps.provider.clone(), key.clone()));
        if let Some(open) = open {
            let same = open.host == *to
                && snapshots
                    .iter()
                    .all(|wanted| open.roots.iter().any(|root| root.snapshot == *wanted));
            let message = format!("the exposure {key} is of other snapshots");
            return if same {
                Ok(open.clone())
            } else {
                Err(refuse(ProviderErrorKind::NameTaken, message))
            };
        }
        let mut roots = Vec::new();
        for (number, snapshot) in snapshots.iter().enumerate() {
            let disk = self.volume_of(&caps.provider, &snapshot.volume)?;
            let Some(known) = disk.snapshots.get(&snapshot.id) else {
                let message = format!("there is no snapshot {snapshot}");
                return Err(refuse(ProviderErrorKind::NotFound, message)
                    .with_volume(snapshot.volume.clone()));
            };
            if known.token.is_none() {
                let message = format!("snapshot {snapshot} is not ours");
                return Err(refuse(ProviderErrorKind::Invalid, message));
            }
            for (mount, original) in disk.mounts.iter().enumerate() {
                let raw = match original.flavor() {
                    PathFlavor::Windows => {
                        format!(r"X:\Exposed\{}\{key}\{number}-{mount}", caps.provider)
                    }
                    PathFlavor::Posix => {
                        format!("/exposed/{}/{key}/{number}-{mount}", caps.provider)
                    }
                };
                let exposed = HostPath::new(to.clone(), original.flavor(), raw)?;
                roots.push(ExposedRoot::new(snapshot.clone(), original.clone(), exposed));
            }
        }
        let exposure = Exposure::new(key.clone(), to.clone(), roots);
        self.exposures.insert((caps.provider.clone(), key.clone()), exposure.clone());
        Ok(exposure)
    }

    fn place(&self, files: &[HostPath], caps: &ProviderCaps) -> Vec<Placement> {
        let place = |file: &HostPath| {
            let (volume, inside) = self.locate(file)?;
            let device = self.volume_of(&caps.provider, &volume).ok()?.device.clone();
            Some(Placement::new(file.clone(), volume, inside).with_device(device))
        };
        files.iter().filter_map(place).collect()
    }

    fn facts(&self, volume: &VolumeRef, caps: &ProviderCaps) -> ProviderResult<VolumeFacts> {
        let disk = self.volume_of(&caps.provider, volume)?;
        let mut facts = VolumeFacts::new(volume.clone(), disk.needs, Some(disk.worst));
        facts.name = Some(volume.id.to_string());
        facts.snapshots_used = u32::try_from(disk.snapshots.len()).unwrap_or(u32::MAX);
        facts.snapshot_limit = disk.limit;
        Ok(facts)
    }
}

#[async_trait]
impl SnapshotProvider for SimStorage {
    fn caps(&self) -> ProviderCaps {
        (*self.caps).clone()
    }

    async fn resolve(&self, cx: &Cx, files: &[HostPath]) -> ProviderResult<Vec<Placement>> {
        let (caps, wanted) = (Arc::clone(&self.caps), files.to_vec());
        let effect = move |state: &mut State, _: &Entry| Ok(state.place(&wanted, &caps));
        self.perform(cx, "resolve", format!("{} files", files.len()), effect).await
    }

    async fn volumes(&self, cx: &Cx, volumes: &[VolumeRef]) -> ProviderResult<Vec<VolumeFacts>> {
        let (caps, wanted) = (Arc::clone(&self.caps), volumes.to_vec());
        let effect = move |state: &mut State, _: &Entry| {
            wanted.iter().map(|volume| state.facts(volume, &caps)).collect()
        };
        self.perform(cx, "volumes", listed(volumes), effect).await
    }

    async fn prepare(&self, cx: &Cx, spec: &PrepareSpec) -> ProviderResult<Prepared> {
        let volumes = listed(spec.members.iter().map(|member| &member.volume));
        let about = format!("{} {volumes}", spec.token);
        let (caps, spec) = (Arc::clone(&self.caps), spec.clone());
        let effect = move |state: &mut State, entry: &Entry| state.prepare(entry, &spec, &caps);
        self.perform(cx, "prepare", about, effect).await
    }

    async fn commit(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Member>> {
        let volumes = listed(prepared.members.iter().map(|member| &member.volume));
        let about = format!("{} {} {volumes}", self.caps.provider, prepared.token);
        let call = self.world.enter(cx, Side::Storage, "commit", about);
        let part = ProviderCoordination::Commit;
        if !self.plays(part) {
            return call.end(Err(ProviderError::unsupported("commit")));
        }
        let (caps, set, behaviour) = (Arc::clone(&self.caps), prepared.clone(), self.behaviour);
        let effect =
            move |state: &mut State, entry: &Entry| state.commit(entry, &set, &caps, behaviour);
        let result = match call.run(effect).await {
            Err(error) => Err(error),
            Ok(done) => match call.wait(done.value.until).await {
                Err(interrupted) => Err(interrupted.into()),
                Ok(()) if done.is_pretence() => Ok(done.value.members),
                Ok(()) => call
                    .see(|state| state.committed(prepared, &self.caps.provider))
                    .map(|()| done.value.members),
            },
        };
        call.end(result)
    }

    async fn adopt(
        &self,
        cx: &Cx,
        prepared: &Prepared,
        natives: &[NativeSnapshot],
    ) -> ProviderResult<Vec<Member>> {
        let part = ProviderCoordination::Adopt;
        let can = self.plays(part);
        let ids = listed(natives.iter().map(|native| &native.native_id));
        let about = format!("{} {ids}", prepared.token);
        let (caps, set, natives) = (Arc::clone(&self.caps), prepared.clone(), natives.to_vec());
        let effect = move |state: &mut State, entry: &Entry| {
            if !can {
                return Err(ProviderError::unsupported("adopt"));
            }
            state.adopt(entry, &set, &natives, &caps)
        };
        self.perform(cx, "adopt", about, effect).await
    }

    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        let (caps, set) = (Arc::clone(&self.caps), prepared.clone());
        let effect = move |state: &mut State, entry: &Entry| state.settle(entry, &set, &caps);
        self.perform(cx, "settle", prepared.token.to_string(), effect).await
    }

    async fn discard(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Discarded> {
        let (caps, wanted, behaviour) = (Arc::clone(&self.caps), token.clone(), self.behaviour);
        let effect = move |state: &mut State, entry: &Entry| {
            state.discard(entry, &wanted, &caps.provider, behaviour)
        };
        self.perform(cx, "discard", token.to_string(), effect).await
    }

    async fn find(&self, cx: &Cx, token: &SetToken) -> ProviderResult<Found> {
        let (caps, wanted) = (Arc::clone(&self.caps), token.clone());
        let effect = move |state: &mut State, _: &Entry| Ok(state.find(&wanted, &caps.provider));
        self.perform(cx, "find", token.to_string(), effect).await
    }

    async fn list(
        &self,
        cx: &Cx,
        volume: &VolumeRef,
        page: Option<String>,
    ) -> ProviderResult<Listing> {
        let (caps, wanted, behaviour) = (Arc::clone(&self.caps), volume.clone(), self.behaviour);
        let effect = move |state: &mut State, _: &Entry| {
            state.list(&wanted, page.as_deref(), &caps.provider, behaviour)
        };
        self.perform(cx, "list", volume.to_string(), effect).await
    }

    async fn delete(&self, cx: &Cx, snapshot: &SnapshotRef) -> ProviderResult<Deleted> {
        let (caps, wanted, behaviour) = (Arc::clone(&self.caps), snapshot.clone(), self.behaviour);
        let effect = move |state: &mut State, entry: &Entry| {
            state.delete(entry, &wanted, &caps.provider, behaviour)
        };
        self.perform(cx, "delete", snapshot.to_string(), effect).await
    }

    async fn expose(
        &self,
        cx: &Cx,
        snapshots: &[SnapshotRef],
        to: &HostId,
        key: &ExposureKey,
    ) -> ProviderResult<Exposure> {
        let about = format!("{key} to {to} {}", listed(snapshots));
        let caps = Arc::clone(&self.caps);
        let (snapshots, to, key) = (snapshots.to_vec(), to.clone(), key.clone());
        let effect = move |state: &mut State, _: &Entry| {
            if !caps.expose {
                return Err(ProviderError::unsupported("expose"));
            }
            state.expose(&snapshots, &to, &key, &caps)
        };
        self.perform(cx, "expose", about, effect).await
    }

    async fn unexpose(&self, cx: &Cx, key: &ExposureKey) -> ProviderResult<()> {
        let (caps, wanted) = (Arc::clone(&self.caps), key.clone());
        let effect = move |state: &mut State, _: &Entry| {
            let _was = state.exposures.remove(&(caps.provider.clone(), wanted.clone()));
            Ok(())
        };
        self.perform(cx, "unexpose", key.to_string(), effect).await
    }

    async fn exposures(&self, cx: &Cx) -> ProviderResult<Vec<Exposure>> {
        let caps = Arc::clone(&self.caps);
        let effect = move |state: &mut State, _: &Entry| {
            let ours = state.exposures.iter().filter(|((of, _), _)| *of == caps.provider);
            Ok(ours.map(|(_, exposure)| exposure.clone()).collect())
        };
        self.perform(cx, "exposures", String::new(), effect).await
    }

    async fn put_doc(&self, cx: &Cx, name: &DocName, bytes: &[u8]) -> ProviderResult<()> {
        let (caps, key, bytes) = (Arc::clone(&self.caps), name.clone(), bytes.to_vec());
        let effect = move |state: &mut State, _: &Entry| {
            if !caps.documents {
                return Err(ProviderError::unsupported("documents"));
            }
            let _before = state.docs.insert((caps.provider.clone(), key.clone()), bytes.clone());
            Ok(())
        };
        self.perform(cx, "put_doc", name.to_string(), effect).await
    }

    async fn get_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<Option<Vec<u8>>> {
        let (caps, key) = (Arc::clone(&self.caps), name.clone());
        let effect = move |state: &mut State, _: &Entry| {
            Ok(state.docs.get(&(caps.provider.clone(), key.clone())).cloned())
        };
        self.perform(cx, "get_doc", name.to_string(), effect).await
    }

    async fn list_docs(&self, cx: &Cx) -> ProviderResult<Vec<DocName>> {
        let caps = Arc::clone(&self.caps);
        let effect = move |state: &mut State, _: &Entry| {
            let ours = state.docs.keys().filter(|(of, _)| *of == caps.provider);
            Ok(ours.map(|(_, name)| name.clone()).collect())
        };
        self.perform(cx, "list_docs", String::new(), effect).await
    }

    async fn delete_doc(&self, cx: &Cx, name: &DocName) -> ProviderResult<()> {
        let (caps, key) = (Arc::clone(&self.caps), name.clone());
        let effect = move |state: &mut State, _: &Entry| {
            let _was = state.docs.remove(&(caps.provider.clone(), key.clone()));
            Ok(())
        };
        self.perform(cx, "delete_doc", name.to_string(), effect).await
    }

    fn restore(&self) -> Option<&dyn SnapshotRestore> {
        (self.caps.clone || self.caps.revert).then_some(self)
    }

    fn lock(&self) -> Option<&dyn SnapshotLock> {
        self.caps.lock.then_some(self)
    }
}
