//! What `topology` shows, and the restore point in every other result.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{ReasonView, Report};
use crate::model::chain::Bound;
use crate::model::id::{CopyId, DatabaseId, PointId};
use crate::model::inventory::{CopyRole, CopyStatus};
use crate::model::kind::BackupKind;
use crate::model::point::{PointState, Truncation, Trust};
use crate::model::quiesce::Consistency;
use crate::model::topology::{self, Protection, Topology};
use crate::model::verdict::{Finding, FindingKind};
use crate::text;

/// All copies of everything.
#[derive(Debug, Serialize)]
pub(crate) struct TopologyView {
    databases: Vec<DatabaseView>,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    database: DatabaseId,
    name: String,
    exists: Option<bool>,
    protection: Protection,
    copies: Vec<CopyView>,
    points: Vec<PointView>,
    window: Vec<IntervalView>,
}

#[derive(Debug, Serialize)]
struct CopyView {
    copy: CopyId,
    host: String,
    role: CopyRole,
    status: CopyStatus,
    reasons: Vec<ReasonView>,
}

#[derive(Debug, Serialize)]
struct IntervalView {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// A restore point.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PointView {
    point: PointId,
    name: String,
    taken_at: DateTime<Utc>,
    kind: BackupKind,
    copy: CopyId,
    consistency: Consistency,
    state: PointState,
    /// Since when the storage lacks snapshots of it, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_since: Option<DateTime<Utc>>,
    /// `unverified`, `verified` or `suspect`.
    trust: &'static str,
    checked_at: Option<DateTime<Utc>>,
    findings: Vec<FindingView>,
    /// `not_requested`, `requested`, `confirmed`, `nothing_eligible` or `unknown`.
    truncation: &'static str,
    bytes: u64,
    providers: Vec<String>,
    snapshots: usize,
    up_to_the_minute: bool,
    bound: String,
}

/// Something that is wrong with a restore point.
#[derive(Clone, Debug, Serialize)]
struct FindingView {
    file: String,
    page: Option<u64>,
    offset: Option<u64>,
    kind: FindingKind,
    jet_error: Option<i32>,
    message: String,
    #[serde(skip)]
    line: String,
}

impl FindingView {
    fn of(finding: &Finding) -> Self {
        Self {
            file: finding.file.clone(),
            page: finding.page,
            offset: finding.offset,
            kind: finding.kind,
            jet_error: finding.jet_error,
            message: finding.message.clone(),
            line: finding.to_string(),
        }
    }
}

impl PointView {
    pub(crate) fn of(point: &topology::PointView) -> Self {
        let findings: &[Finding] = match &point.trust {
            Trust::Suspect { findings, .. } => findings,
            _ => &[],
        };
        Self {
            point: point.point,
            name: point.name.clone(),
            taken_at: point.taken_at,
            kind: point.kind,
            copy: point.copy.clone(),
            consistency: point.consistency,
            state: point.state,
            missing_since: point.missing_since,
            trust: point.trust.word(),
            checked_at: point.trust.at(),
            findings: findings.iter().map(FindingView::of).collect(),
            truncation: match point.truncation {
                Truncation::NotRequested => "not_requested",
                Truncation::Requested => "requested",
                Truncation::Confirmed { .. } => "confirmed",
                Truncation::NothingEligible { .. } => "nothing_eligible",
                _ => "unknown",
            },
            bytes: point.bytes,
            providers: point.providers.iter().map(ToString::to_string).collect(),
            snapshots: point.members,
            up_to_the_minute: matches!(point.reach.bound, Bound::EndOfLogs),
            bound: point.reach.bound.to_string(),
        }
    }

    /// These restore points, in the order of the topology.
    pub(crate) fn some(topology: &Topology, wanted: &[PointId]) -> Vec<Self> {
        let all = topology.databases.iter().flat_map(|database| &database.points);
        all.filter(|point| wanted.contains(&point.point)).map(Self::of).collect()
    }

    /// A line for people; with what is wrong below it if `in_detail`.
    pub(crate) fn write(&self, text: &mut String, indent: &str, in_detail: bool) {
        let _ = write!(
            text,
            "{indent}point {}  {}  {}, {}, {}, {}",
            self.point,
            self.taken_at.format("%Y-%m-%d %H:%M:%SZ"),
            self.kind,
            match self.consistency {
                Consistency::Application => "application-consistent".to_owned(),
                Consistency::Crash => "crash-consistent".to_owned(),
                Consistency::AtRest => self.consistency.to_string(),
            },
            self.trust,
            text::bytes(self.bytes),
        );
        if self.state != PointState::Available {
            let _ = write!(text, ", {}", self.state);
        }
        if let Some(since) = self.missing_since {
            let _ = write!(text, ", MISSING since {}", text::time(since));
        }
        text.push('\n');
        if in_detail {
            for finding in &self.findings {
                let _ = writeln!(text, "{indent}  {}", finding.line);
            }
        }
    }
}

impl TopologyView {
    pub(crate) fn of(topology: &Topology) -> Self {
        let copy = |copy: &topology::CopyView| CopyView {
            copy: copy.copy.clone(),
            host: copy.copy.host.to_string(),
            role: copy.role,
            status: copy.status,
            reasons: ReasonView::all(&copy.reasons),
        };
        let database = |database: &topology::DatabaseView| DatabaseView {
            database: database.database,
            name: database.name.clone(),
            exists: database.exists,
            protection: database.protection,
            copies: database.copies.iter().map(copy).collect(),
            points: database.points.iter().map(PointView::of).collect(),
            window: database
                .window
                .intervals
                .iter()
                .map(|interval| IntervalView { from: interval.from, until: interval.until })
                .collect(),
        };
        Self { databases: topology.databases.iter().map(database).collect() }
    }

    pub(crate) fn write(&self, text: &mut String, indent: &str) {
        for database in &self.databases {
            let _ = write!(text, "{indent}{}: {}", database.name, database.protection);
            if database.exists == Some(false) {
                text.push_str(" (no longer there)");
            }
            text.push('\n');
            for copy in &database.copies {
                let _ = writeln!(
                    text,
                    "{indent}  {} copy on {}, {}",
                    copy.role,
                    copy.host,
                    status(copy.status)
                );
                for reason in &copy.reasons {
                    let _ = writeln!(text, "{indent}    {} [{}]", reason.message, reason.code);
                }
            }
            for point in &database.points {
                point.write(text, &format!("{indent}  "), true);
            }
        }
    }
}

impl Report for TopologyView {
    const SCHEMA: &'static str = "stillpoint.topology/1";

    fn text(&self, text: &mut String) {
        if self.databases.is_empty() {
            text.push_str("nothing is known yet\n");
        }
        self.write(text, "");
    }
}

/// A copy's status for people: Exchange's word, or ours for files that nobody has open.
pub(super) fn status(status: CopyStatus) -> String {
    if status == CopyStatus::AtRest { "at rest".to_owned() } else { status.to_string() }
}
