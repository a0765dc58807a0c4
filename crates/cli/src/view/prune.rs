//! What `prune` shows: the verdicts, and the job that carried them out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::{DatabaseRetention, RetentionTable};

use super::{JobView, Report};
use crate::model::id::{DatabaseId, PointId, PolicyId, SegmentId};
use crate::model::job::Job;
use crate::model::point::PointState;
use crate::model::retention::{Decision, Fate, Why};
use crate::text;

/// Why something stays or goes.
#[derive(Debug, Serialize)]
struct WhyView {
    /// `count`, `within`, `held`, `required`, ….
    why: String,
    message: String,
    policy: Option<PolicyId>,
    policy_name: Option<String>,
    point: Option<PointId>,
    until: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
struct PointVerdict {
    point: PointId,
    taken_at: DateTime<Utc>,
    state: PointState,
    policy: Option<String>,
    policy_id: Option<PolicyId>,
    /// `keep`, `defer` or `delete`.
    verdict: Fate,
    reasons: Vec<WhyView>,
    /// It is to be deleted by this prune.
    goes: bool,
    /// Its logs stay although its database goes.
    keeps_logs: bool,
}

#[derive(Debug, Serialize)]
struct SegmentVerdict {
    segment: SegmentId,
    from: u32,
    to: u32,
    taken_at: DateTime<Utc>,
    verdict: Fate,
    reasons: Vec<WhyView>,
}

/// The verdicts of a database.
#[derive(Debug, Serialize)]
pub(super) struct DatabaseView {
    database: DatabaseId,
    name: String,
    points: Vec<PointVerdict>,
    segments: Vec<SegmentVerdict>,
}

/// The verdicts, and the job that carried them out.
#[derive(Debug, Serialize)]
pub(crate) struct PruneView {
    dry_run: bool,
    at: DateTime<Utc>,
    next_due: Option<DateTime<Utc>>,
    databases: Vec<DatabaseView>,
    job: Option<JobView>,
}

impl WhyView {
    fn all<T>(decision: &Decision<T>, policies: &BTreeMap<PolicyId, String>) -> Vec<Self> {
        let view = |why: &Why| {
            let (policy, point, until) = (why.policy(), why.point(), why.until());
            Self {
                why: why.word(),
                message: why.to_string(),
                policy,
                policy_name: policy.and_then(|policy| policies.get(&policy).cloned()),
                point,
                until,
            }
        };
        decision.reasons.iter().map(view).collect()
    }

    fn line(&self) -> String {
        match &self.policy_name {
            Some(policy) => format!("{} (policy {policy})", self.message),
            None => self.message.clone(),
        }
    }
}

impl DatabaseView {
    pub(super) fn all(table: &RetentionTable) -> Vec<Self> {
        table.databases.iter().map(|known| Self::of(known, &table.policies)).collect()
    }

    fn of(known: &DatabaseRetention, policies: &BTreeMap<PolicyId, String>) -> Self {
        let points = known.points.iter().zip(&known.decisions.points).rev();
        let points = points.map(|(point, decision)| {
            let going = known.order.points.get(&point.id);
            PointVerdict {
                point: point.id,
                taken_at: point.taken_at,
                state: point.state,
                policy: point.policy.as_ref().map(ToString::to_string),
                policy_id: point.policy.as_ref().map(|policy| policy.id),
                verdict: decision.fate,
                reasons: WhyView::all(decision, policies),
                goes: going.is_some(),
                keeps_logs: going.is_some_and(|going| going.keeps_logs),
            }
        });
        let segments = known.segments.iter().zip(&known.decisions.segments).rev();
        let segments = segments.map(|(segment, decision)| SegmentVerdict {
            segment: segment.id,
            from: segment.range.start().0,
            to: segment.range.end().0,
            taken_at: segment.taken_at,
            verdict: decision.fate,
            reasons: WhyView::all(decision, policies),
        });
        Self {
            database: known.database,
            name: known.name.clone(),
            points: points.collect(),
            segments: segments.collect(),
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}", self.name);
        for point in &self.points {
            point.write(text);
        }
        for segment in &self.segments {
            let _ = writeln!(
                text,
                "  {:<8}logs {} to {}  {}",
                segment.verdict,
                segment.from,
                segment.to,
                text::time(segment.taken_at)
            );
            write_reasons(text, &segment.reasons);
        }
    }
}

impl PointVerdict {
    fn write(&self, text: &mut String) {
        let verdict = if self.goes { Fate::Delete } else { self.verdict };
        let policy = self.policy.as_deref().map_or_else(String::new, |name| format!("  {name}"));
        let at = text::time(self.taken_at);
        let _ = write!(text, "  {verdict:<8}point {}  {at}{policy}", self.point);
        if self.state != PointState::Available {
            let _ = write!(text, ", {}", self.state);
        }
        if self.keeps_logs {
            text.push_str("; its logs stay");
        }
        text.push('\n');
        write_reasons(text, &self.reasons);
        let is_gone = self.reasons.iter().any(|why| why.why == Why::NoPolicy.word());
        if let Some(id) = self.policy_id.filter(|_| is_gone) {
            let _ = writeln!(text, "            its policy {id} is not there");
        }
    }
}

impl PruneView {
    pub(crate) fn of(table: &RetentionTable, job: Option<&Job>) -> Self {
        Self {
            dry_run: job.is_none(),
            at: table.at,
            next_due: table.next_due(),
            databases: DatabaseView::all(table),
            job: job.map(JobView::of),
        }
    }
}

fn write_reasons(text: &mut String, reasons: &[WhyView]) {
    for why in reasons {
        let _ = writeln!(text, "            {}", why.line());
    }
}

impl Report for PruneView {
    const SCHEMA: &'static str = "stillpoint.prune/1";

    fn text(&self, text: &mut String) {
        if self.databases.is_empty() {
            text.push_str("there are no restore points\n");
        }
        for database in &self.databases {
            database.write(text);
        }
        if let Some(due) = self.next_due {
            let _ = writeln!(text, "the next lock is over at {}", text::time(due));
        }
        if let Some(job) = &self.job {
            job.write(text);
        }
    }
}
