//! All that a backup is planned from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use stillpoint_context::{ErrorFacts, HostId, JobId};
use stillpoint_model::availability::{Availability, Reason};
use stillpoint_model::capability::{Coordination, PluginCaps};
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::id::{CopyId, DatabaseId};
use stillpoint_model::inventory::{CopyRole, CopyStatus, DatabaseCopy, Fitness, Host, Inventory};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::placement::CopyPlacement;
use stillpoint_model::planning::{BackupPlan, BaseFull, Inputs, PlanError, plan_backup};
use stillpoint_model::policy::{CopySelection, MultipleTruncating, Policy};
use stillpoint_model::quiesce::QuiesceLevel;
use uuid::Uuid;

use super::group::groups;
use super::must;
use super::organisation::{Organisation, fit_organisations, organisations, seen, volume};
use super::policy::{broken_names, policies};

/// All that a backup is planned from, as values: see [`Inputs`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Planning {
    /// What there is.
    pub organisation: Organisation,
    /// What is to be protected.
    pub group: ResourceGroup,
    /// How.
    pub policy: Policy,
    /// A plug-in with Exchange's limits, 20 s and 10 s, that can do every kind.
    pub plugin: PluginCaps,
    /// The last full backups.
    pub fulls: BTreeMap<DatabaseId, BaseFull>,
    /// The time. An inventory that is more than an hour older is refused.
    pub now: DateTime<Utc>,
}

impl Planning {
    fn of(organisation: Organisation, group: ResourceGroup, policy: Policy) -> Self {
        let mut plugin = PluginCaps::new("drawn");
        plugin.coordination = [Coordination::Engine, Coordination::Plugin].into();
        plugin.kinds = BackupKind::ALL.into();
        plugin.quiesce = QuiesceLevel::App;
        plugin.freeze_limit = Some(Duration::from_secs(20));
        plugin.hold_limit = Some(Duration::from_secs(10));
        Self { organisation, group, policy, plugin, fulls: BTreeMap::new(), now: seen() }
    }

    /// The same for the planner.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            now: self.now,
            job: JobId(Uuid::from_u128(0x10b)),
            round: 0,
            members: &self.group.members,
            group: Some(&self.group),
            policy: &self.policy,
            kind: None,
            selection: None,
            inventory: &self.organisation.inventory,
            max_inventory_age: Some(Duration::from_hours(1)),
            placement: &self.organisation.placement,
            plugin: &self.plugin,
            providers: &self.organisation.providers,
            volumes: &self.organisation.volumes,
            fulls: &self.fulls,
            coalesced: &[],
            under_way: &[],
            reserve: 0,
            state: &[],
        }
    }

    /// The plan.
    ///
    /// # Errors
    /// What concerns the whole. A planning that [`plannings`] drew has none.
    pub fn plan(&self) -> Result<BackupPlan, PlanError> {
        plan_backup(&self.inputs())
    }

    fn inventory(&mut self) -> &mut Inventory {
        &mut self.organisation.inventory
    }

    fn know_fulls(&mut self, without: impl Fn(usize) -> bool) {
        let known = self.organisation.inventory.databases.keys().enumerate();
        let taken = self.now - TimeDelta::days(1);
        let fulls = known.filter(|(at, _)| !without(*at));
        self.fulls = fulls.map(|(_, id)| (*id, BaseFull::new(taken, None))).collect();
    }

    /// A passive copy on a server of its own.
    fn add_spare(&mut self, of: DatabaseId, placed: CopyPlacement) {
        let spare = must(HostId::new("spare.example.com"));
        let id = CopyId::new(of, spare.clone());
        let (role, available) = (CopyRole::Passive, Availability::available(seen()));
        let copy = DatabaseCopy::new(id.clone(), role, CopyStatus::Healthy, available);
        self.inventory().add_host(Host::new(spare)).add_copy(copy);
        self.organisation.placement.insert(id, placed);
    }

    fn active(&self, of: DatabaseId) -> CopyId {
        let active = self.organisation.inventory.active_copy(of);
        must(active.map(|copy| copy.id.clone()).ok_or("every database has an active copy"))
    }
}

/// Plannings of which a plan can be made, in any state of the organisation: databases may be refused in it, one by one.
pub fn plannings() -> impl Strategy<Value = Planning> {
    let without = proptest::collection::vec(prop::bool::weighted(0.2), 8);
    (organisations(), groups(), policies(), without).prop_map(
        |(organisation, group, policy, without)| {
            let mut planning = Planning::of(organisation, group, policy);
            planning.know_fulls(|at| without.get(at).copied().unwrap_or_default());
            planning
        },
    )
}

/// A planning that is refused for one reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Refused {
    /// What is planned.
    pub planning: Planning,
    /// The rule that it breaks, such as `V10`; empty for one that has no number.
    pub rule: &'static str,
    /// The code of the error.
    pub code: &'static str,
    /// The database that is refused; none if it is the whole.
    pub database: Option<DatabaseId>,
}

impl Refused {
    /// The codes of all refusals, each once.
    pub fn codes(&self) -> Vec<String> {
        let codes: BTreeSet<_> = match self.planning.plan() {
            Err(error) => [error.code().to_string()].into(),
            Ok(plan) => plan.refused().map(|(_, failure)| failure.code.to_string()).collect(),
        };
        codes.into_iter().collect()
    }
}

/// What is wrong.
#[derive(Debug, Clone)]
enum Wrong {
    GroupName(String),
    PolicyName(String),
    LogOfCircular,
    NoBaseFull,
    Retention,
    SharedVolume,
    MultipleTruncating,
    NotOnHost,
    UnsupportedStorage,
    Recovery,
    NotAvailable(CopyStatus),
    Stale(i64),
    Deadline(u64),
    Template(&'static str),
}

fn wrongs() -> impl Strategy<Value = Wrong> {
    let unfit: Vec<_> =
        CopyStatus::EXCHANGE.into_iter().filter(|s| s.fitness() != Fitness::Fit).collect();
    prop_oneof![
        broken_names().prop_map(Wrong::GroupName),
        broken_names().prop_map(Wrong::PolicyName),
        Just(Wrong::LogOfCircular),
        Just(Wrong::NoBaseFull),
        Just(Wrong::Retention),
        Just(Wrong::SharedVolume),
        Just(Wrong::MultipleTruncating),
        Just(Wrong::NotOnHost),
        Just(Wrong::UnsupportedStorage),
        Just(Wrong::Recovery),
        select(unfit).prop_map(Wrong::NotAvailable),
        (61..10_000_i64).prop_map(Wrong::Stale),
        (11..100_u64).prop_map(Wrong::Deadline),
        select(vec!["", "{nobody}", "{run", "run}"]).prop_map(Wrong::Template),
    ]
}

impl Wrong {
    /// Does it, and says which rule that breaks, with which code, and whether it is one database's affair.
    fn befall(
        self,
        planning: &mut Planning,
        victim: DatabaseId,
    ) -> (&'static str, &'static str, bool) {
        let active = planning.active(victim);
        match self {
            Self::GroupName(name) => {
                planning.group.name = name;
                ("V1", "group.name_invalid", false)
            }
            Self::PolicyName(name) => {
                planning.policy.name = name;
                ("V2", "policy.name_invalid", false)
            }
            Self::LogOfCircular => {
                planning.policy.kind = BackupKind::Log;
                if let Some(database) = planning.inventory().databases.get_mut(&victim) {
                    database.circular_logging = true;
                }
                ("V3", "policy.log_with_circular_logging", true)
            }
            Self::NoBaseFull => {
                planning.policy.kind = BackupKind::Log;
                planning.policy.promote_log = false;
                planning.fulls.remove(&victim);
                ("V4", "backup.no_base_full", true)
            }
            Self::Retention => {
                planning.policy.retention.count = Some(0);
                ("V5", "retention.out_of_range", false)
            }
            Self::SharedVolume => {
                let placed = planning.organisation.placement.of(&active).cloned();
                planning.add_spare(victim, placed.unwrap_or_default());
                ("V10", "placement.active_passive_share_volume", true)
            }
            Self::MultipleTruncating => {
                let spare = volume("sim:spare-v0");
                planning.organisation.know(&spare, 0);
                planning.add_spare(victim, CopyPlacement::new(spare.clone(), spare));
                let hosts = planning.inventory().hosts.keys().cloned().collect();
                planning.policy.selection = CopySelection::OnHosts { hosts };
                planning.policy.multiple_truncating = MultipleTruncating::Refuse;
                ("V12", "copy.multiple_truncating", true)
            }
            Self::NotOnHost => {
                let hosts = vec![must(HostId::new("nowhere.example.com"))];
                planning.policy.selection = CopySelection::OnHosts { hosts };
                ("V13", "copy.not_on_host", true)
            }
            Self::UnsupportedStorage => {
                let nobodys = CopyPlacement::new(volume("nobody:v"), volume("nobody:v"));
                planning.organisation.placement.insert(active, nobodys);
                ("V13", "copy.unsupported_storage", true)
            }
            Self::Recovery => {
                if let Some(database) = planning.inventory().databases.get_mut(&victim) {
                    database.recovery = true;
                }
                planning.group.members.push(Selector::Database(victim));
                ("V14", "resource.recovery_database", true)
            }
            Self::NotAvailable(status) => {
                if let Some(copy) = planning.inventory().copies.get_mut(&active) {
                    copy.status = status;
                    let reasons = vec![Reason::CopyStatus { status }];
                    copy.availability = Availability::unavailable(seen(), reasons);
                }
                ("V15", "resource.not_available", true)
            }
            Self::Stale(minutes) => {
                planning.now += TimeDelta::minutes(minutes);
                ("V16", "plan.stale", false)
            }
            Self::Deadline(seconds) => {
                planning.policy.quiesce.limit = Some(Duration::from_secs(seconds));
                ("V22", "quiesce.deadline_too_long", false)
            }
            Self::Template(template) => {
                planning.group.naming = Some(template.to_owned());
                ("", "naming.template_invalid", false)
            }
        }
    }
}

/// Plannings of the active copies of a fit organisation in which one thing is wrong: all refusals have one code.
pub fn refused_plannings() -> impl Strategy<Value = Refused> {
    (fit_organisations(), groups(), policies(), any::<Index>(), wrongs()).prop_map(
        |(organisation, group, policy, victim, wrong)| {
            let databases: Vec<_> = organisation.inventory.databases.keys().copied().collect();
            let victim = *victim.get(&databases);
            let mut planning = Planning::of(organisation, group, policy);
            planning.know_fulls(|_| false);
            planning.group.members = vec![Selector::Everything];
            planning.policy.kind = BackupKind::FullAndLog;
            planning.policy.selection = CopySelection::ActiveOnly;
            let (rule, code, of_one) = wrong.befall(&mut planning, victim);
            Refused { planning, rule, code, database: of_one.then_some(victim) }
        },
    )
}
