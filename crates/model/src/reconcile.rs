//! Whether the catalogue tells the truth: what it says, against what the storages show.
//!
//! ```text
//!   catalogue: points, debris, orphans noted ─┐
//!   journal:   open runs ─────────────────────┼─▶ compare ─▶ a finding for each thing ─▶ acts
//!   storages:  snapshots, manifests ──────────┘
//! ```
//!
//! | | the storage shows it | the storage does not | the storage cannot be asked |
//! |---|---|---|---|
//! | **in a point** | whole | missing | unknown |
//! | **ours, in no point** | adoptable, a leftover, or an orphan | | unknown |
//! | **not ours** | foreign: in no act, ever | | |
//!
//! What a run that is open or a deletion that was begun has in hand is *owned*: it is that one's affair whether it is there. What
//! runs are known to have left behind is debris, and owned too. What comes back of a point that the catalogue knows to be removed
//! is a *leftover*: it is never adopted.
//!
//! The comparison is pure. It does not matter in what order things come, and once its acts are carried out it finds none.

mod compare;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::RunId;

use crate::id::{DatabaseId, PointId, SetToken, SnapshotRef, VolumeRef};
use crate::point::{PointState, RestorePoint};

/// What the catalogue says of a point, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownPoint {
    /// Which point.
    pub point: PointId,
    /// Of which database.
    pub database: DatabaseId,
    /// The set that it lies on.
    pub set: SetToken,
    /// The run that made it.
    pub run: RunId,
    /// How far it has come.
    pub state: PointState,
    /// The snapshots that it needs.
    pub members: BTreeSet<SnapshotRef>,
    /// Those that are told to be missing.
    pub lost: BTreeSet<SnapshotRef>,
}

impl KnownPoint {
    /// What of a point matters.
    pub fn of(point: &RestorePoint) -> Self {
        Self {
            point: point.id,
            database: point.database,
            set: point.set.clone(),
            run: point.run,
            state: point.state,
            members: point.members.iter().map(|member| member.snapshot.clone()).collect(),
            lost: point.loss.as_ref().map(|loss| loss.lost.clone()).unwrap_or_default(),
        }
    }
}

/// A manifest beside the data whose point the catalogue does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundManifest {
    /// The point that it is of, by its name.
    pub point: PointId,
    /// What it says, or why it cannot be read.
    pub content: Result<KnownPoint, String>,
}

impl FoundManifest {
    /// The manifest of this point, as it was read.
    pub const fn new(point: PointId, content: Result<KnownPoint, String>) -> Self {
        Self { point, content }
    }
}

/// All that is compared.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sight {
    /// When.
    pub now: DateTime<Utc>,
    /// The points of the catalogue.
    pub points: Vec<KnownPoint>,
    /// What the storages show, each snapshot with the token of its set; without one it is not ours.
    pub snapshots: Vec<(SnapshotRef, Option<SetToken>)>,
    /// The volumes that were seen whole: what they do not show, they do not have.
    pub seen: BTreeSet<VolumeRef>,
    /// Why others were not.
    pub unseen: BTreeMap<VolumeRef, String>,
    /// Why there may be manifests that were not seen, if so.
    pub unread: Option<String>,
    /// The manifests whose points the catalogue does not have.
    pub manifests: Vec<FoundManifest>,
    /// Those of their points that the catalogue knows to be removed.
    pub removed: BTreeSet<PointId>,
    /// The runs that had not ended while it was looked, or that ended meanwhile.
    pub open: BTreeSet<RunId>,
    /// Sets of which something may still appear.
    pub pending: BTreeSet<SetToken>,
    /// Sets that runs are known to have left behind.
    pub debris: BTreeSet<SetToken>,
    /// When orphans and leftovers were noted first.
    pub noted: BTreeMap<SetToken, DateTime<Utc>>,
    /// How long an orphan or a leftover is left alone once it is noted; without it, for ever.
    pub grace: Option<TimeDelta>,
}

impl Sight {
    /// Nothing seen yet, at this time, with this grace for orphans.
    pub fn at(now: DateTime<Utc>, grace: Option<TimeDelta>) -> Self {
        Self { now, grace, ..Self::default() }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Thing {
    /// A point of the catalogue.
    Point(PointId),
    /// Snapshots of a set that no point of the catalogue lies on.
    Set(SetToken),
    /// A manifest without a point and without its snapshots.
    Manifest(PointId),
    /// A snapshot that is not ours.
    Snapshot(SnapshotRef),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point(point) => write!(f, "point {point}"),
            Self::Set(set) => write!(f, "set {set}"),
            Self::Manifest(point) => write!(f, "manifest of {point}"),
            Self::Snapshot(snapshot) => write!(f, "snapshot {snapshot}"),
        }
    }
}

/// Whose affair something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Owner {
    /// A run that has not ended.
    Run(RunId),
    /// The deletion of the point, which was begun.
    Deletion,
    /// Something of it may still appear.
    Pending,
    /// A run is known to have left it behind: it is debris.
    Debris,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => write!(f, "run {run} is open"),
            Self::Deletion => f.write_str("its deletion was begun"),
            Self::Pending => f.write_str("something of it may still appear"),
            Self::Debris => f.write_str("it is listed as debris"),
        }
    }
}

/// What was found of a thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The storage has every snapshot of the point.
    Whole,
    /// The storage has every snapshot of the point, which was told to be missing.
    Back,
    /// The storage has lost these.
    Missing {
        /// The snapshots.
        lost: BTreeSet<SnapshotRef>,
        /// The catalogue does not say so yet, or not all of it.
        is_news: bool,
    },
    /// It cannot be said: a storage could not be asked.
    Unknown {
        /// Why.
        why: String,
    },
    /// It is somebody's affair.
    Owned(Owner),
    /// The catalogue lacks these points, whose manifests and snapshots are there.
    Adoptable {
        /// The points.
        points: BTreeSet<PointId>,
    },
    /// Nobody can say what these snapshots are of.
    Orphan {
        /// The snapshots.
        snapshots: BTreeSet<SnapshotRef>,
        /// Why they are not adopted.
        why: String,
        /// When they were noted first, if they were.
        since: Option<DateTime<Utc>>,
        /// Why they are not to be deleted now; none if they are.
        stays: Option<String>,
    },
    /// It is what is left, or has come back, of points that the catalogue knows to be removed.
    Leftover {
        /// The points, each of which there is a manifest of.
        points: BTreeSet<PointId>,
        /// The snapshots; none where there is nothing but the manifests.
        snapshots: BTreeSet<SnapshotRef>,
        /// When it was noted first, if it was.
        since: Option<DateTime<Utc>>,
        /// Why it is not to be deleted now; none if it is.
        stays: Option<String>,
    },
    /// What was noted as an orphan or a leftover is none any more.
    Settled,
    /// Nothing of what the manifest tells of is there.
    Stray,
    /// The manifest cannot be read.
    Unreadable {
        /// Why.
        why: String,
    },
    /// It is not ours.
    Foreign,
}

impl Verdict {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Back => "back",
            Self::Missing { .. } => "missing",
            Self::Unknown { .. } => "unknown",
            Self::Owned(_) => "owned",
            Self::Adoptable { .. } => "adoptable",
            Self::Orphan { .. } => "orphan",
            Self::Leftover { .. } => "leftover",
            Self::Settled => "settled",
            Self::Stray => "stray",
            Self::Unreadable { .. } => "unreadable",
            Self::Foreign => "foreign",
        }
    }

    /// Whether somebody should look at it: something is lost, left over, or cannot be said.
    pub const fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Unknown { .. }
                | Self::Orphan { .. }
                | Self::Leftover { .. }
                | Self::Adoptable { .. }
                | Self::Stray
                | Self::Unreadable { .. }
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("every snapshot is there"),
            Self::Back => f.write_str("every snapshot is there again"),
            Self::Missing { lost, .. } => {
                write!(f, "the storage does not have {}", listed(lost))
            }
            Self::Unknown { why } | Self::Unreadable { why } => f.write_str(why),
            Self::Owned(owner) => owner.fmt(f),
            Self::Adoptable { points } => {
                write!(f, "the catalogue lacks {}, whose data is there", listed(points))
            }
            Self::Orphan { snapshots, why, stays, .. } => {
                write!(f, "{}: {why}", listed(snapshots))?;
                write_stays(f, stays.as_deref())
            }
            Self::Leftover { points, snapshots, stays, .. } => {
                write!(f, "left of {}, known to be removed", listed(points))?;
                if snapshots.is_empty() {
                    f.write_str(": nothing but what tells of it")?;
                } else {
                    write!(f, ": {}", listed(snapshots))?;
                }
                write_stays(f, stays.as_deref())
            }
            Self::Settled => {
                f.write_str("it was noted as an orphan or a leftover, and is none any more")
            }
            Self::Stray => f.write_str("nothing of what it tells of is there"),
            Self::Foreign => f.write_str("it is not ours"),
        }
    }
}

fn write_stays(f: &mut fmt::Formatter<'_>, stays: Option<&str>) -> fmt::Result {
    write!(f, "; {}", stays.unwrap_or("to be deleted"))
}

fn listed<T: fmt::Display>(things: &BTreeSet<T>) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = things.iter().take(SHOWN).map(ToString::to_string).collect();
    if things.len() > SHOWN {
        text.push(format!("{} more", things.len() - SHOWN));
    }
    text.join(", ")
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// Of what.
    pub thing: Thing,
    /// The set that it belongs to; none for what is not ours.
    pub set: Option<SetToken>,
    /// What.
    pub verdict: Verdict,
}

/// What is to be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Act {
    /// The point is told to be missing.
    Mark {
        /// Which.
        point: PointId,
        /// What is lost.
        lost: BTreeSet<SnapshotRef>,
    },
    /// The point is told to be there again.
    Unmark {
        /// Which.
        point: PointId,
    },
    /// The points are told from their manifests.
    Adopt {
        /// Which.
        points: BTreeSet<PointId>,
    },
    /// The orphan or leftover is noted, so that its grace begins.
    Note,
    /// The snapshots are deleted, and every manifest of their set.
    Delete {
        /// Which.
        snapshots: BTreeSet<SnapshotRef>,
    },
    /// The note is taken off.
    Forget,
    /// The leftover of removed points is deleted.
    Clear {
        /// Their manifests.
        points: BTreeSet<PointId>,
        /// Their snapshots.
        snapshots: BTreeSet<SnapshotRef>,
    },
}

impl Finding {
    /// What is to be done about it, if anything.
    pub fn act(&self) -> Option<Act> {
        match (&self.thing, &self.verdict) {
            (Thing::Point(point), Verdict::Missing { lost, is_news: true }) => {
                Some(Act::Mark { point: *point, lost: lost.clone() })
            }
            (Thing::Point(point), Verdict::Back) => Some(Act::Unmark { point: *point }),
            (_, Verdict::Adoptable { points }) => Some(Act::Adopt { points: points.clone() }),
            (_, Verdict::Orphan { since: None, .. } | Verdict::Leftover { since: None, .. }) => {
                Some(Act::Note)
            }
            (_, Verdict::Orphan { snapshots, stays: None, .. }) => {
                Some(Act::Delete { snapshots: snapshots.clone() })
            }
            (_, Verdict::Leftover { points, snapshots, stays: None, .. }) => {
                Some(Act::Clear { points: points.clone(), snapshots: snapshots.clone() })
            }
            (_, Verdict::Settled) => Some(Act::Forget),
            _ => None,
        }
    }
}

/// What was found, a finding for each thing, in the order of the things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Comparison {
    /// Compares. Pure: nothing is looked at but the argument.
    ///
    /// # Complexity
    /// O(n log n) in the number of members, snapshots and manifests.
    pub fn of(sight: &Sight) -> Self {
        compare::compare(sight)
    }

    /// How many findings there are of each word.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.verdict.word()).or_default() += 1;
        }
        counts
    }

    /// What is to be done, for each set that something is to be done about.
    pub fn acts(&self) -> BTreeMap<&SetToken, Vec<Act>> {
        let mut acts: BTreeMap<&SetToken, Vec<Act>> = BTreeMap::new();
        for finding in &self.findings {
            if let (Some(set), Some(act)) = (&finding.set, finding.act()) {
                acts.entry(set).or_default().push(act);
            }
        }
        acts
    }

    /// Those that somebody should look at.
    pub fn troubles(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict.is_trouble())
    }
}
