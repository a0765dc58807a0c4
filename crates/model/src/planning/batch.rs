//! Cutting copies into sets that are snapped together.
//!
//! Only the volumes of *one* database must be snapped together; putting several in a set is
//! economy. A set is of one server, one kind and one mode, and keeps within the limits.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_context::HostId;

use super::Inputs;
use super::error::PlanError;
use super::freeze::FreezeBudget;
use super::select::Chosen;
use crate::capability::Coordination;
use crate::id::{CopyId, ProviderId, VolumeRef};
use crate::kind::BackupKind;

/// Copies that are snapped together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The server.
    pub host: HostId,
    /// What is taken.
    pub kind: BackupKind,
    /// Who coordinates; none where nothing is frozen.
    pub coordination: Option<Coordination>,
    /// The time there is; none where nothing is frozen.
    pub freeze: Option<FreezeBudget>,
    /// Its copies, in order.
    pub members: Vec<Chosen>,
}

/// How large a set may be.
#[derive(Clone, Debug)]
struct Limits {
    databases: usize,
    volumes: usize,
    of_provider: BTreeMap<ProviderId, usize>,
}

impl Limits {
    fn of(inputs: &Inputs<'_>) -> Self {
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let batching = inputs.batching();
        let databases = batching
            .max_databases
            .min(inputs.plugin.max_databases.unwrap_or(batching.max_databases));
        let volumes =
            batching.max_volumes.min(inputs.plugin.max_volumes.unwrap_or(batching.max_volumes));
        Self {
            databases: size(databases.get()),
            volumes: size(volumes.get()),
            of_provider: inputs
                .providers
                .iter()
                .filter_map(|(id, caps)| Some((id.clone(), size(caps.max_volumes?.get()))))
                .collect(),
        }
    }

    fn allow(&self, databases: usize, volumes: &BTreeSet<&VolumeRef>) -> bool {
        let within = |(provider, limit): (&ProviderId, &usize)| {
            volumes.iter().filter(|volume| volume.provider == *provider).count() <= *limit
        };
        databases <= self.databases
            && volumes.len() <= self.volumes
            && self.of_provider.iter().all(within)
    }

    /// The limit that `volumes` alone break.
    fn broken_by(&self, volumes: &BTreeSet<&VolumeRef>) -> usize {
        if volumes.len() > self.volumes {
            return self.volumes;
        }
        let of_provider = self.of_provider.values().copied().min();
        of_provider.unwrap_or(self.volumes)
    }
}

/// Cuts `chosen` into sets. What does not fit any set, or a volume's last snapshots, is handed to
/// `refuse`.
///
/// # Complexity
/// O(s · n) set operations for n copies in s sets.
pub(super) fn batches(
    inputs: &Inputs<'_>,
    chosen: Vec<Chosen>,
    refuse: &mut dyn FnMut(&CopyId, PlanError),
) -> Vec<Batch> {
    let limits = Limits::of(inputs);
    let mut alike: BTreeMap<(HostId, BackupKind, Option<Coordination>), Vec<Chosen>> =
        BTreeMap::new();
    for item in chosen {
        let volumes = item.volumes();
        if !limits.allow(1, &volumes) {
            let error = PlanError::TooBig {
                copy: item.copy.clone(),
                volumes: volumes.len(),
                limit: limits.broken_by(&volumes),
            };
            refuse(&item.copy, error);
            continue;
        }
        let key = (item.copy.host.clone(), item.kind, item.coordination);
        alike.entry(key).or_default().push(item);
    }
    let mut batches = Vec::new();
    for ((host, kind, coordination), mut items) in alike {
        items.sort_by(|a, b| a.copy.cmp(&b.copy));
        for members in pack(items, &limits) {
            batches.push(Batch { host: host.clone(), kind, coordination, freeze: None, members });
        }
    }
    within_snapshot_limits(inputs, &mut batches, refuse);
    for batch in &mut batches {
        batch.freeze = slowest(&batch.members);
    }
    batches
}

/// The budget of a set: all its copies have one, and the slowest snapshot counts.
fn slowest(members: &[Chosen]) -> Option<FreezeBudget> {
    let mut budgets = members.iter().filter_map(|member| member.freeze);
    let mut budget = budgets.next()?;
    for other in budgets {
        budget.worst_case =
            budget.worst_case.zip(other.worst_case).map(|(mine, theirs)| mine.max(theirs));
    }
    Some(budget)
}

/// Each set makes one snapshot of each of its volumes. Copies for which a volume has no room left
/// are refused before anything is frozen.
fn within_snapshot_limits(
    inputs: &Inputs<'_>,
    batches: &mut Vec<Batch>,
    refuse: &mut dyn FnMut(&CopyId, PlanError),
) {
    let mut made: BTreeMap<VolumeRef, u32> = BTreeMap::new();
    for batch in batches.iter_mut() {
        let mut here: BTreeSet<VolumeRef> = BTreeSet::new();
        batch.members.retain(|member| {
            let full = member.volumes().into_iter().find_map(|volume| {
                let facts = inputs.volumes.get(volume)?;
                let limit = facts.snapshot_limit?.get();
                let before = made.get(volume).copied().unwrap_or(0);
                let used = facts.snapshots_used.saturating_add(before);
                let needed = used.saturating_add(1).saturating_add(inputs.reserve);
                (!here.contains(volume) && needed > limit).then(|| PlanError::SnapshotLimit {
                    volume: volume.clone(),
                    used,
                    limit,
                    reserve: inputs.reserve,
                })
            });
            if let Some(error) = full {
                refuse(&member.copy, error);
                return false;
            }
            here.extend(member.volumes().into_iter().cloned());
            true
        });
        for volume in here {
            *made.entry(volume).or_default() += 1;
        }
    }
    batches.retain(|batch| !batch.members.is_empty());
}

/// A set that is being filled.
#[derive(Default)]
struct Bin {
    members: Vec<Chosen>,
    volumes: BTreeSet<VolumeRef>,
}

impl Bin {
    fn takes(&self, items: &[Chosen], limits: &Limits) -> bool {
        let mut volumes: BTreeSet<&VolumeRef> = self.volumes.iter().collect();
        volumes.extend(items.iter().flat_map(Chosen::volumes));
        limits.allow(self.members.len() + items.len(), &volumes)
    }

    fn add(&mut self, items: impl IntoIterator<Item = Chosen>) {
        for item in items {
            self.volumes.extend(item.volumes().into_iter().cloned());
            self.members.push(item);
        }
    }

    fn shares(&self, item: &Chosen) -> usize {
        item.volumes().into_iter().filter(|volume| self.volumes.contains(*volume)).count()
    }
}

/// First fit, by groups of copies that share volumes; a group that is too large for one set is cut
/// where it shares least. Copies come in order and each fits a set of its own.
fn pack(items: Vec<Chosen>, limits: &Limits) -> Vec<Vec<Chosen>> {
    let mut bins: Vec<Bin> = Vec::new();
    for group in sharing(items) {
        if let Some(bin) = bins.iter_mut().find(|bin| bin.takes(&group, limits)) {
            bin.add(group);
        } else if Bin::default().takes(&group, limits) {
            let mut bin = Bin::default();
            bin.add(group);
            bins.push(bin);
        } else {
            let begin = bins.len();
            for item in group {
                let one = std::slice::from_ref(&item);
                let best = (begin..bins.len())
                    .filter(|&at| bins[at].takes(one, limits))
                    // Of equals the first, so that pieces fill up in order.
                    .max_by_key(|&at| (bins[at].shares(&item), std::cmp::Reverse(at)));
                let at = best.unwrap_or_else(|| {
                    bins.push(Bin::default());
                    bins.len() - 1
                });
                bins[at].add([item]);
            }
        }
    }
    bins.into_iter()
        .map(|mut bin| {
            bin.members.sort_by(|a, b| a.copy.cmp(&b.copy));
            bin.members
        })
        .collect()
}

/// The leader of `at`, with the way to it shortened.
fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

/// Groups of copies that are connected by volumes, each in order, in order of their first copies.
fn sharing(items: Vec<Chosen>) -> Vec<Vec<Chosen>> {
    // Union-find over the places of the items.
    let mut parent: Vec<usize> = (0..items.len()).collect();
    let mut first_on: BTreeMap<&VolumeRef, usize> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        for volume in item.volumes() {
            let other = *first_on.entry(volume).or_insert(at);
            let (a, b) = (root(&mut parent, at), root(&mut parent, other));
            // The smaller place leads, so that groups come in order of their first copies.
            parent[a.max(b)] = a.min(b);
        }
    }
    let leaders: Vec<usize> = (0..items.len()).map(|at| root(&mut parent, at)).collect();
    let mut groups: BTreeMap<usize, Vec<Chosen>> = BTreeMap::new();
    for (leader, item) in leaders.into_iter().zip(items) {
        groups.entry(leader).or_default().push(item);
    }
    groups.into_values().collect()
}
