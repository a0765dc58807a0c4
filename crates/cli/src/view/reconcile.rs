//! What `reconcile`, `rebuild` and `catalogue` show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::context::RunId;
use stillpoint::{Rebuilt, ReconcileReport};

use super::{JobView, Report};
use crate::model::id::{PointId, SetToken};
use crate::model::job::Job;
use crate::model::reconcile::{Finding, Thing, Verdict};
use crate::text;

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct FindingView {
    /// `point`, `set`, `manifest` or `snapshot`.
    kind: &'static str,
    /// The id of that.
    object: String,
    set: Option<SetToken>,
    /// `missing`, `unknown`, `owned`, `adoptable`, `orphan`, `leftover`, `stray`, `unreadable`, `back`, `settled`.
    verdict: &'static str,
    message: String,
    /// The snapshots that it is about.
    snapshots: Vec<String>,
    /// Since when an orphan or a leftover is noted.
    since: Option<DateTime<Utc>>,
    /// `reconcile --apply` would do something about it.
    has_act: bool,
}

impl FindingView {
    fn of(finding: &Finding) -> Self {
        let (kind, object) = match &finding.thing {
            Thing::Point(point) => ("point", point.to_string()),
            Thing::Set(set) => ("set", set.to_string()),
            Thing::Manifest(point) => ("manifest", point.to_string()),
            Thing::Snapshot(snapshot) => ("snapshot", snapshot.to_string()),
            other => ("other", other.to_string()),
        };
        let (snapshots, since) = match &finding.verdict {
            Verdict::Missing { lost, .. } => (lost.iter().map(ToString::to_string).collect(), None),
            Verdict::Orphan { snapshots, since, .. }
            | Verdict::Leftover { snapshots, since, .. } => {
                (snapshots.iter().map(ToString::to_string).collect(), *since)
            }
            _ => (Vec::new(), None),
        };
        Self {
            kind,
            object,
            set: finding.set.clone(),
            verdict: finding.verdict.word(),
            message: finding.verdict.to_string(),
            snapshots,
            since,
            has_act: finding.act().is_some(),
        }
    }
}

/// What was found, all in numbers, and what somebody should look at by itself.
#[derive(Debug, Serialize)]
pub(crate) struct ReconcileView {
    at: DateTime<Utc>,
    /// How many things there are of each verdict.
    counts: BTreeMap<&'static str, usize>,
    /// Those that are neither whole nor foreign.
    findings: Vec<FindingView>,
    /// Where nobody could look.
    limits: Vec<String>,
    job: Option<JobView>,
}

impl ReconcileView {
    pub(crate) fn of(report: &ReconcileReport, job: Option<&Job>) -> Self {
        let told =
            |finding: &&Finding| !matches!(finding.verdict, Verdict::Whole | Verdict::Foreign);
        Self {
            at: report.at,
            counts: report.comparison.counts(),
            findings: report.comparison.findings.iter().filter(told).map(FindingView::of).collect(),
            limits: report.limits.clone(),
            job: job.map(JobView::of),
        }
    }
}

impl Report for ReconcileView {
    const SCHEMA: &'static str = "stillpoint.reconcile/1";

    fn text(&self, text: &mut String) {
        for finding in &self.findings {
            let _ = writeln!(text, "{:<11}{} {}", finding.verdict, finding.kind, finding.object);
            let _ = writeln!(text, "           {}", finding.message);
            if let Some(since) = finding.since {
                let _ = writeln!(text, "           noted at {}", text::time(since));
            }
        }
        for limit in &self.limits {
            let _ = writeln!(text, "not seen   {limit}");
        }
        let counts: Vec<String> =
            self.counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let counts =
            if counts.is_empty() { "nothing is there".to_owned() } else { counts.join(", ") };
        let _ = writeln!(text, "{counts}");
        if let Some(job) = &self.job {
            job.write(text);
        }
    }
}

/// What a rebuild came to.
#[derive(Debug, Serialize)]
pub(crate) struct RebuildView {
    points: Vec<PointId>,
    known: usize,
    holds: Vec<String>,
    forks: Vec<RunId>,
    clock: Option<DateTime<Utc>>,
    skipped: Vec<String>,
}

impl RebuildView {
    pub(crate) fn of(rebuilt: &Rebuilt) -> Self {
        Self {
            points: rebuilt.points.iter().copied().collect(),
            known: rebuilt.known,
            holds: rebuilt.holds.iter().map(ToString::to_string).collect(),
            forks: rebuilt.forks.iter().copied().collect(),
            clock: rebuilt.clock,
            skipped: rebuilt.skipped.clone(),
        }
    }
}

impl Report for RebuildView {
    const SCHEMA: &'static str = "stillpoint.rebuild/1";

    fn text(&self, text: &mut String) {
        for point in &self.points {
            let _ = writeln!(text, "added point {point}");
        }
        for hold in &self.holds {
            let _ = writeln!(text, "added hold {hold}");
        }
        for fork in &self.forks {
            let _ = writeln!(text, "added the fork of a log chain at restore {fork}");
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "left out: {skipped}");
        }
        let _ = writeln!(
            text,
            "{} restore points and {} holds were added; {} were there",
            self.points.len(),
            self.holds.len(),
            self.known
        );
        if let Some(clock) = self.clock {
            let _ = writeln!(text, "the latest that is told of was at {}", text::time(clock));
        }
        text.push_str("`stillpoint reconcile` tells whether their snapshots are there\n");
    }
}

/// A copy of the state file.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUpView {
    file: String,
    bytes: u64,
}

impl BackedUpView {
    pub(crate) fn of(file: &Path, bytes: u64) -> Self {
        Self { file: file.display().to_string(), bytes }
    }
}

impl Report for BackedUpView {
    const SCHEMA: &'static str = "stillpoint.catalogue/1";

    fn text(&self, text: &mut String) {
        let _ = writeln!(text, "{}: a copy of the state, {}", self.file, text::bytes(self.bytes));
    }
}
