//! What has to be known before a backup is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use stillpoint_catalog::{CatalogExt, PointQuery};
use stillpoint_context::{Cx, HostPath};
use stillpoint_exchange::Scope;
use stillpoint_model::capability::{PluginCaps, ProviderCaps, VolumeFacts};
use stillpoint_model::chain::Chains;
use stillpoint_model::fork::{ChainFork, branch_after};
use stillpoint_model::group::{Members, ResourceGroup};
use stillpoint_model::id::{CopyId, DatabaseId, ProviderId, VolumeRef};
use stillpoint_model::inventory::{FileRole, Inventory};
use stillpoint_model::placement::{CopyPlacement, PlacementMap};
use stillpoint_model::planning::{BaseFull, Claim};
use stillpoint_model::point::{PointLogs, RestorePoint};
use stillpoint_model::policy::Policy;
use stillpoint_model::request::{BackupRequest, Target};

use crate::Stillpoint;
use crate::error::Error;

/// What exists, where it lies, and what all sides can do.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) policy: Policy,
    pub(crate) group: Option<ResourceGroup>,
    pub(crate) inventory: Inventory,
    pub(crate) placement: PlacementMap,
    /// Each file of each copy with its volume.
    pub(crate) places: BTreeMap<CopyId, Vec<(HostPath, VolumeRef)>>,
    pub(crate) plugin: PluginCaps,
    pub(crate) providers: BTreeMap<ProviderId, ProviderCaps>,
    pub(crate) volumes: BTreeMap<VolumeRef, VolumeFacts>,
    pub(crate) fulls: BTreeMap<DatabaseId, BaseFull>,
    /// The databases that a run of ours has.
    pub(crate) under_way: Vec<DatabaseId>,
    /// The volumes that hold the state.
    pub(crate) state: Vec<VolumeRef>,
}

/// What there is, and where: the answer of [`Stillpoint::discover`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Discovery {
    /// Servers, databases and copies, each with what stands in the way of backing it up.
    pub inventory: Inventory,
    /// The volumes of each copy.
    pub placement: PlacementMap,
    /// What is known of those volumes.
    pub volumes: BTreeMap<VolumeRef, VolumeFacts>,
}

type Places = BTreeMap<CopyId, Vec<(HostPath, VolumeRef)>>;

/// The policy of a request, as it is now or in the version that its job pins, and the group.
pub(crate) async fn subjects(
    this: &Stillpoint,
    request: &BackupRequest,
    pinned: Option<NonZeroU32>,
) -> Result<(Policy, Option<ResourceGroup>), Error> {
    let policy = this
        .services()
        .catalog
        .policy(request.policy, pinned)
        .await?
        .ok_or_else(|| Error::NotFound { kind: "policy", id: request.policy.to_string() })?;
    let group = match &request.target {
        Target::Group(id) => Some(
            this.group(*id)
                .await?
                .ok_or_else(|| Error::NotFound { kind: "resource group", id: id.to_string() })?,
        ),
        _ => None,
    };
    Ok((policy, group))
}

impl Survey {
    /// Looks at everything that a backup of this request needs to know. Read only: may be dropped at any time.
    pub(crate) async fn take(
        this: &Stillpoint,
        cx: &Cx,
        request: &BackupRequest,
        pinned: Option<NonZeroU32>,
    ) -> Result<Self, Error> {
        let (policy, group) = subjects(this, request, pinned).await?;
        let (Discovery { inventory, placement, volumes }, places) = discover(this, cx).await?;
        let services = this.services();
        // Of no other database: a catalogue may have many restore points of each.
        let wanted = wanted(request, group.as_ref(), &inventory);
        let mut fulls = BTreeMap::new();
        for database in &wanted {
            let points = services.catalog.all_points(&PointQuery::of(*database)).await?;
            let forks = services.catalog.forks(*database).await?;
            if let Some(base) = base(*database, &points, &forks) {
                let _none = fulls.insert(*database, base);
            }
        }
        let under_way = under_way(this, &wanted, &inventory).await?;
        let state = state_volumes(this, cx).await?;
        Ok(Self {
            policy,
            group,
            inventory,
            placement,
            places,
            plugin: services.plugin.caps(),
            providers: services
                .providers
                .iter()
                .map(|(id, provider)| (id.clone(), provider.caps()))
                .collect(),
            volumes,
            fulls,
            under_way,
            state,
        })
    }
}

/// The databases that a request is about.
fn wanted(
    request: &BackupRequest,
    group: Option<&ResourceGroup>,
    inventory: &Inventory,
) -> BTreeSet<DatabaseId> {
    let members = match &request.target {
        Target::Selected(selectors) => selectors.as_slice(),
        _ => group.map_or(&[][..], |group| group.members.as_slice()),
    };
    Members::of(members, inventory).databases.into_keys().collect()
}

/// Those of the databases of which Exchange says that they are being backed up, and a run of ours, in whatever process, has them.
async fn under_way(
    this: &Stillpoint,
    wanted: &BTreeSet<DatabaseId>,
    inventory: &Inventory,
) -> Result<Vec<DatabaseId>, Error> {
    let in_progress = |id: &&DatabaseId| {
        inventory.databases.get(id).is_some_and(|database| database.backup_in_progress)
    };
    let mut busy: Vec<DatabaseId> = wanted.iter().filter(in_progress).copied().collect();
    if !busy.is_empty() {
        let holders = this.engine().claims().await?.holders;
        let held: BTreeSet<String> = holders
            .iter()
            .flat_map(|(_, claims)| claims)
            .map(|claim| claim.key.to_string())
            .collect();
        busy.retain(|id| held.contains(&Claim::live(*id).key));
    }
    Ok(busy)
}

/// What logs of a database can be built on.
fn base(database: DatabaseId, points: &[RestorePoint], forks: &[ChainFork]) -> Option<BaseFull> {
    let whole = || points.iter().filter(|point| point.has_database());
    let newest = whole().max_by_key(|point| point.taken_at)?;
    let chain = newest.logs.as_ref().map(PointLogs::chain);
    let mut base = BaseFull::copy(chain.map(|chain| chain.signature));
    // Exchange may note a backup when it is completed, long after its snapshots were taken.
    let noted = |point: &RestorePoint| {
        // Points of before that was stored have only what was learnt last.
        point.completed_at.or(point.truncation_at).max(Some(point.taken_at))
    };
    let truncating = whole().filter(|point| point.kind.truncates());
    base.truncated_at = truncating.max_by_key(|point| point.taken_at).and_then(noted);
    base.stored_to = chain.and_then(|chain| Chains::stored_to(database, points, chain));
    base.forked = chain.is_some_and(|chain| chain.branch < branch_after(forks));
    Some(base)
}

/// The volumes that hold the state, as far as a provider knows them and somebody has said where it is.
pub(crate) async fn state_volumes(this: &Stillpoint, cx: &Cx) -> Result<Vec<VolumeRef>, Error> {
    let services = this.services();
    let mut volumes = Vec::new();
    if services.state.is_empty() {
        return Ok(volumes);
    }
    for provider in services.providers.values() {
        let placed = provider.resolve(cx, &services.state).await?;
        volumes.extend(placed.into_iter().map(|placed| placed.volume));
    }
    Ok(volumes)
}

/// Each file of each copy with its volume; files that no provider knows are left out.
async fn places(this: &Stillpoint, cx: &Cx, inventory: &Inventory) -> Result<Places, Error> {
    let mut places = Places::new();
    let files: Vec<HostPath> = inventory
        .copies
        .values()
        .flat_map(|copy| copy.files.iter().map(|file| file.path.clone()))
        .collect();
    let mut volumes: BTreeMap<HostPath, VolumeRef> = BTreeMap::new();
    for provider in this.services().providers.values() {
        for placed in provider.resolve(cx, &files).await? {
            let _before = volumes.insert(placed.file, placed.volume);
        }
    }
    for copy in inventory.copies.values() {
        let mine = copy
            .files
            .iter()
            .filter_map(|file| Some((file.path.clone(), volumes.get(&file.path)?.clone())));
        let _none = places.insert(copy.id.clone(), mine.collect());
    }
    Ok(places)
}

fn placement(inventory: &Inventory, places: &Places) -> PlacementMap {
    let mut map = PlacementMap::new();
    for copy in inventory.copies.values() {
        let known: BTreeMap<&HostPath, &VolumeRef> = places
            .get(&copy.id)
            .into_iter()
            .flatten()
            .map(|(path, volume)| (path, volume))
            .collect();
        let mut lies = CopyPlacement::default();
        for file in &copy.files {
            match (known.get(&file.path), file.role) {
                (None, _) => lies.unresolved.push(file.path.clone()),
                (Some(volume), FileRole::Log | FileRole::Checkpoint) => {
                    let _new = lies.logs.insert((*volume).clone());
                }
                (Some(volume), _) => {
                    let _new = lies.data.insert((*volume).clone());
                }
            }
        }
        let _map = map.insert(copy.id.clone(), lies);
    }
    map
}

impl Stillpoint {
    /// What there is, where it lies, and what of it can be backed up.
    ///
    /// # Errors
    /// When the plug-in or a provider cannot be asked as a whole.
    pub async fn discover(&self) -> Result<Discovery, Error> {
        Ok(discover(self, &self.cx()).await?.0)
    }
}

async fn discover(this: &Stillpoint, cx: &Cx) -> Result<(Discovery, Places), Error> {
    let services = this.services();
    let inventory = services.plugin.inventory(cx, &Scope::Everything).await?;
    let places = places(this, cx, &inventory).await?;
    let placement = placement(&inventory, &places);
    let mut volumes = BTreeMap::new();
    for (id, provider) in &services.providers {
        let mut mine: Vec<VolumeRef> = places
            .values()
            .flatten()
            .map(|(_, volume)| volume.clone())
            .filter(|volume| volume.provider == *id)
            .collect();
        mine.sort();
        mine.dedup();
        for facts in provider.volumes(cx, &mine).await? {
            let _none = volumes.insert(facts.volume.clone(), facts);
        }
    }
    Ok((Discovery { inventory, placement, volumes }, places))
}
