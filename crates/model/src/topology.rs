//! All copies of the data in one view: databases, their copies on servers, and their restore
//! points.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::HostId;

use crate::availability::Reason;
use crate::chain::{Bound, Chains, LogSegment, Reach};
use crate::fork::ChainFork;
use crate::id::{CopyId, DatabaseId, PointId, ProviderId};
use crate::inventory::{CopyRole, CopyStatus, Inventory};
use crate::kind::BackupKind;
use crate::point::{PointState, RestorePoint, Truncation, Trust};
use crate::quiesce::Consistency;
use crate::window::RecoveryWindow;

/// How well a database is protected, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It has a restore point whose backup is over and which is neither suspect nor missing.
    Protected,
    /// It has suspect restore points and none that is better.
    SuspectOnly,
    /// It could be backed up and has no restore point, or only one whose backup is not over.
    NotProtected,
    /// The same, and it cannot be backed up.
    NotAvailable,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Protected => "protected",
            Self::SuspectOnly => "only suspect restore points",
            Self::NotProtected => "not protected",
            Self::NotAvailable => "not available for backup",
        })
    }
}

/// A copy in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyView {
    /// Which copy.
    pub copy: CopyId,
    /// Its part.
    pub role: CopyRole,
    /// What Exchange says of it.
    pub status: CopyStatus,
    /// What stands in the way of a backup of it.
    pub reasons: Vec<Reason>,
}

/// A restore point in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PointView {
    /// Which point.
    pub point: PointId,
    /// Its name.
    pub name: String,
    /// The instant that it restores to.
    pub taken_at: DateTime<Utc>,
    /// What was taken.
    pub kind: BackupKind,
    /// The copy that was taken.
    pub copy: CopyId,
    /// What it may be called.
    pub consistency: Consistency,
    /// How far it has come.
    pub state: PointState,
    /// Since when the storage lacks snapshots of it, if it does. To be told to somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<DateTime<Utc>>,
    /// How far it can be trusted.
    pub trust: Trust,
    /// What is known about truncation.
    pub truncation: Truncation,
    /// Its size in bytes.
    pub bytes: u64,
    /// Who holds its snapshots.
    pub providers: BTreeSet<ProviderId>,
    /// How many snapshots it is made of.
    pub members: usize,
    /// How far it can be rolled forward.
    pub reach: Reach,
}

/// A database in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseView {
    /// Which database.
    pub database: DatabaseId,
    /// Its name, or what it was called when it was last seen.
    pub name: String,
    /// Whether it exists now; unknown without an inventory.
    pub exists: Option<bool>,
    /// In one word.
    pub protection: Protection,
    /// Its copies, by server.
    pub copies: Vec<CopyView>,
    /// Its restore points, newest first.
    pub points: Vec<PointView>,
    /// What it can be brought back to.
    pub window: RecoveryWindow,
}

/// The whole view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Topology {
    /// Every database that exists or has a restore point, by name.
    pub databases: Vec<DatabaseView>,
}

impl Topology {
    /// The view of what exists (if that is known) and of these points, where nothing was ever restored in place.
    pub fn of(inventory: Option<&Inventory>, points: &[RestorePoint]) -> Self {
        Self::of_forked(inventory, points, &BTreeMap::new())
    }

    /// The same where chains of logs forked so, those of each database in their order.
    pub fn of_forked(
        inventory: Option<&Inventory>,
        points: &[RestorePoint],
        forks: &BTreeMap<DatabaseId, Vec<ChainFork>>,
    ) -> Self {
        let mut by_database: BTreeMap<DatabaseId, Vec<&RestorePoint>> = BTreeMap::new();
        for database in inventory.iter().flat_map(|inventory| inventory.databases.keys()) {
            by_database.entry(*database).or_default();
        }
        for point in points {
            by_database.entry(point.database).or_default().push(point);
        }
        let mut databases: Vec<DatabaseView> = by_database
            .into_iter()
            .map(|(database, points)| {
                let forks = forks.get(&database).map_or(&[][..], Vec::as_slice);
                view(database, inventory, points, forks)
            })
            .collect();
        databases.sort_by(|a, b| (&a.name, a.database).cmp(&(&b.name, b.database)));
        Self { databases }
    }

    /// The servers that appear in it.
    pub fn hosts(&self) -> BTreeSet<&HostId> {
        let copies = self.databases.iter().flat_map(|database| &database.copies);
        copies.map(|copy| &copy.copy.host).collect()
    }
}

fn view(
    database: DatabaseId,
    inventory: Option<&Inventory>,
    mut points: Vec<&RestorePoint>,
    forks: &[ChainFork],
) -> DatabaseView {
    points.sort_by_key(|point| (std::cmp::Reverse(point.taken_at), point.id));
    let known = inventory.and_then(|inventory| inventory.databases.get(&database));
    let circular = known.is_some_and(|known| known.circular_logging);
    let there = points.iter().filter(|point| !point.has_lost_logs());
    let segments: Vec<LogSegment> = there.filter_map(|point| LogSegment::of(point)).collect();
    let chains = Chains::of(database, &segments).forked(forks);
    let owned: Vec<RestorePoint> = points.iter().map(|point| (*point).clone()).collect();

    let copies: Vec<CopyView> = inventory
        .iter()
        .flat_map(|inventory| inventory.copies_of(database))
        .map(|copy| CopyView {
            copy: copy.id.clone(),
            role: copy.role,
            status: copy.status,
            reasons: copy.availability.reasons.clone(),
        })
        .collect();
    let whole = || points.iter().filter(|point| point.has_database());
    let is_suspect = |point: &RestorePoint| matches!(point.trust, Trust::Suspect { .. });
    let is_good = |point: &RestorePoint| {
        point.state == PointState::Available && !is_suspect(point) && !point.is_missing()
    };
    let protection = if whole().any(|point| is_good(point)) {
        Protection::Protected
    } else if whole().any(|point| is_suspect(point) && !point.is_missing()) {
        Protection::SuspectOnly
    } else if copies.iter().any(|copy| copy.reasons.is_empty()) {
        Protection::NotProtected
    } else {
        Protection::NotAvailable
    };
    let name = known.map(|known| known.name.clone());
    DatabaseView {
        database,
        name: name
            .or_else(|| points.first().map(|point| point.database_name.clone()))
            .unwrap_or_default(),
        exists: inventory.map(|_| known.is_some()),
        protection,
        copies,
        window: RecoveryWindow::of_forked(database, &owned, forks, circular),
        points: points
            .into_iter()
            .map(|point| PointView {
                point: point.id,
                name: point.name.clone(),
                taken_at: point.taken_at,
                kind: point.kind,
                copy: point.copy.clone(),
                consistency: point.consistency,
                state: point.state,
                missing_since: point
                    .loss
                    .as_ref()
                    .filter(|_| point.is_missing())
                    .map(|loss| loss.since),
                trust: point.trust.clone(),
                truncation: point.truncation.clone(),
                bytes: point.bytes(),
                providers: point
                    .members
                    .iter()
                    .map(|member| member.snapshot.volume.provider.clone())
                    .collect(),
                members: point.members.len(),
                reach: chains.reach(point, circular),
            })
            .collect(),
    }
}

impl fmt::Display for Topology {
    /// A tree, a line for each database, copy and restore point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for database in &self.databases {
            write!(f, "{}: {}", database.name, database.protection)?;
            if database.exists == Some(false) {
                f.write_str(" (no longer there)")?;
            }
            writeln!(f)?;
            for copy in &database.copies {
                write!(f, "  copy on {}: {}, {}", copy.copy.host, copy.role, copy.status)?;
                for reason in &copy.reasons {
                    write!(f, "; {reason}")?;
                }
                writeln!(f)?;
            }
            for point in &database.points {
                write!(
                    f,
                    "  point {} {}: {}, {}-consistent, {}, {}, {} bytes",
                    point.point,
                    point.taken_at.format("%Y-%m-%dT%H:%M:%SZ"),
                    point.kind,
                    point.consistency,
                    point.state,
                    point.trust,
                    point.bytes
                )?;
                if let Some(since) = point.missing_since {
                    write!(f, "; MISSING since {}", since.format("%Y-%m-%dT%H:%M:%SZ"))?;
                }
                if !matches!(point.reach.bound, Bound::EndOfLogs) {
                    write!(f, "; point in time only: {}", point.reach.bound)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
