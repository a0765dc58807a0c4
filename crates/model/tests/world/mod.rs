//! A small organisation to plan for.

// Each test binary uses its part of it.
#![allow(dead_code, unreachable_pub)]

pub mod seed;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use stillpoint_context::{HostId, HostPath, JobId, PathFlavor};
use stillpoint_model::availability::Availability;
use stillpoint_model::capability::{
    Coordination, PluginCaps, ProviderCaps, ProviderCoordination, VolumeFacts,
};
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::id::{CopyId, DatabaseId, GroupId, PolicyId, ProviderId, VolumeRef};
use stillpoint_model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, FileRole, Host, Inventory,
};
use stillpoint_model::job::Elsewhere;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::placement::{CopyPlacement, PlacementMap};
use stillpoint_model::planning::{BackupPlan, BaseFull, Inputs, PlanError, plan_backup};
use stillpoint_model::policy::{CopySelection, Policy};
use stillpoint_model::quiesce::QuiesceLevel;
use uuid::Uuid;

pub fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 22, 1, 0, 0).unwrap()
}

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

pub fn db(number: u128) -> DatabaseId {
    DatabaseId(Uuid::from_u128(number))
}

pub fn volume(text: &str) -> VolumeRef {
    text.parse().unwrap()
}

#[derive(Clone, Debug)]
pub struct World {
    pub policy: Policy,
    pub group: ResourceGroup,
    pub inventory: Inventory,
    pub placement: PlacementMap,
    pub plugin: PluginCaps,
    pub providers: BTreeMap<ProviderId, ProviderCaps>,
    pub volumes: BTreeMap<VolumeRef, VolumeFacts>,
    pub fulls: BTreeMap<DatabaseId, BaseFull>,
    pub coalesced: Vec<Elsewhere>,
    pub under_way: Vec<DatabaseId>,
    pub reserve: u32,
    pub state: Vec<VolumeRef>,
}

impl World {
    /// No database, one provider `sim` that commits at once, a plug-in with Exchange's limits.
    pub fn new() -> Self {
        let mut plugin = PluginCaps::new("sim");
        plugin.kinds = BackupKind::ALL.into();
        plugin.quiesce = QuiesceLevel::App;
        plugin.freeze_limit = Some(Duration::from_secs(20));
        plugin.hold_limit = Some(Duration::from_secs(10));
        let mut world = Self {
            policy: Policy::new(PolicyId(Uuid::from_u128(1)), "Daily"),
            group: ResourceGroup::new(
                GroupId(Uuid::from_u128(2)),
                "All mail",
                vec![Selector::Everything],
            ),
            inventory: Inventory::new("e1".parse().unwrap(), now()),
            placement: PlacementMap::new(),
            plugin,
            providers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            fulls: BTreeMap::new(),
            coalesced: Vec::new(),
            under_way: Vec::new(),
            reserve: 0,
            state: Vec::new(),
        };
        world.policy.selection = CopySelection::ActiveOnly;
        world.provider("sim", [ProviderCoordination::Commit]);
        world
    }

    pub fn provider<const N: usize>(&mut self, id: &str, modes: [ProviderCoordination; N]) {
        let id = ProviderId::new(id).unwrap();
        let mut caps = ProviderCaps::new(id.clone());
        caps.coordination = BTreeSet::from(modes);
        caps.instant = true;
        self.providers.insert(id, caps);
    }

    pub fn volume(&mut self, text: &str) -> VolumeRef {
        let volume = volume(text);
        self.volumes.entry(volume.clone()).or_insert_with(|| {
            VolumeFacts::new(volume.clone(), QuiesceLevel::App, Some(Duration::from_millis(50)))
        });
        volume
    }

    pub fn copy(
        &mut self,
        database: u128,
        on: &str,
        role: CopyRole,
        data: &str,
        logs: &str,
    ) -> CopyId {
        let id = CopyId::new(db(database), host(on));
        self.inventory.add_host(Host::new(host(on)));
        if !self.inventory.databases.contains_key(&db(database)) {
            self.inventory.add_database(Database::new(db(database), format!("DB{database:02}")));
        }
        let status = match role {
            CopyRole::Active => CopyStatus::Mounted,
            CopyRole::Passive => CopyStatus::Healthy,
        };
        let mut copy = DatabaseCopy::new(id.clone(), role, status, Availability::available(now()));
        copy.replay_queue = Some(0);
        copy.files.push(CopyFile::new(
            HostPath::new(host(on), PathFlavor::Windows, format!(r"D:\DB{database}\db.edb"))
                .unwrap(),
            FileRole::Database,
        ));
        self.inventory.add_copy(copy);
        let placed = CopyPlacement::new(self.volume(data), self.volume(logs));
        self.placement.insert(id.clone(), placed);
        id
    }

    pub fn edit(&mut self, copy: &CopyId, change: impl FnOnce(&mut DatabaseCopy)) {
        change(self.inventory.copies.get_mut(copy).unwrap());
    }

    pub fn preference(&mut self, copy: &CopyId, number: u32) {
        self.edit(copy, |copy| copy.activation_preference = NonZeroU32::new(number));
    }

    pub fn coordinate<const N: usize>(&mut self, modes: [Coordination; N]) {
        self.plugin.coordination = BTreeSet::from(modes);
    }

    pub fn try_plan(&self) -> Result<BackupPlan, PlanError> {
        plan_backup(&Inputs {
            now: now(),
            job: JobId(Uuid::from_u128(77)),
            round: 0,
            members: &self.group.members,
            group: Some(&self.group),
            policy: &self.policy,
            kind: None,
            selection: None,
            inventory: &self.inventory,
            max_inventory_age: Some(Duration::from_hours(1)),
            placement: &self.placement,
            plugin: &self.plugin,
            providers: &self.providers,
            volumes: &self.volumes,
            fulls: &self.fulls,
            coalesced: &self.coalesced,
            under_way: &self.under_way,
            reserve: self.reserve,
            state: &self.state,
        })
    }

    pub fn plan(&self) -> BackupPlan {
        self.try_plan().unwrap()
    }
}

/// The codes of the refusals of a plan, by database name.
pub fn refusals(plan: &BackupPlan) -> BTreeMap<String, String> {
    plan.refused()
        .map(|(database, failure)| (database.name.clone(), failure.code.to_string()))
        .collect()
}

/// Who is taken, as `name@host kind`.
pub fn taken(plan: &BackupPlan) -> Vec<String> {
    let mut taken: Vec<String> = plan
        .sets
        .iter()
        .flat_map(|set| {
            set.members
                .iter()
                .map(|member| format!("{}@{} {}", member.name, member.copy.host, set.kind.word()))
        })
        .collect();
    taken.sort();
    taken
}

pub fn codes(plan: &BackupPlan) -> BTreeSet<String> {
    plan.warnings.iter().map(|warning| warning.code.to_string()).collect()
}
