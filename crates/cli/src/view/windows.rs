//! What `windows` shows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Report;
use crate::model::id::{DatabaseId, PointId};
use crate::model::topology::Topology;
use crate::model::window::{RecoveryWindow, TimeGap, Why};
use crate::text;

/// What databases can be brought back to.
#[derive(Debug, Serialize)]
pub(crate) struct WindowsView {
    databases: Vec<DatabaseView>,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    database: DatabaseId,
    name: String,
    intervals: Vec<IntervalView>,
    gaps: Vec<GapView>,
    up_to_the_minute: bool,
}

#[derive(Debug, Serialize)]
struct IntervalView {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    points: Vec<PointId>,
}

#[derive(Debug, Serialize)]
struct GapView {
    after: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
    why: Vec<WhyView>,
}

#[derive(Debug, Serialize)]
struct WhyView {
    reason: &'static str,
    message: String,
    point: Option<PointId>,
    from_generation: Option<u32>,
    to_generation: Option<u32>,
}

impl WhyView {
    fn of(why: &Why) -> Self {
        Self {
            reason: why.word(),
            message: why.to_string(),
            point: why.point(),
            from_generation: why.missing().map(|missing| missing.start().0),
            to_generation: why.missing().map(|missing| missing.end().0),
        }
    }
}

impl GapView {
    fn of(gap: &TimeGap) -> Self {
        let why = gap.why.iter().map(WhyView::of).collect();
        Self { after: gap.after, before: gap.before, why }
    }

    fn write(&self, text: &mut String) {
        let edge = |at: Option<DateTime<Utc>>| at.map(text::time);
        let span = match (edge(self.after), edge(self.before)) {
            (None, None) => "never".to_owned(),
            (None, Some(before)) => format!("not before {before}"),
            (Some(after), None) => format!("not after {after}"),
            (Some(after), Some(before)) => format!("not between {after} and {before}"),
        };
        let why: Vec<&str> = self.why.iter().map(|why| why.message.as_str()).collect();
        let _ = writeln!(text, "    {span}: {}", why.join("; "));
    }
}

impl DatabaseView {
    fn of(database: DatabaseId, name: &str, window: &RecoveryWindow) -> Self {
        let intervals = window.intervals.iter().map(|known| IntervalView {
            from: known.from,
            until: known.until,
            points: known.points.clone(),
        });
        Self {
            database,
            name: name.to_owned(),
            intervals: intervals.collect(),
            gaps: window.gaps.iter().map(GapView::of).collect(),
            up_to_the_minute: window.up_to_the_minute,
        }
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}", self.name);
        // Gaps lie around the intervals: before each, and behind the last.
        let mut gaps = self.gaps.iter();
        for interval in &self.intervals {
            if let Some(gap) = gaps.next() {
                gap.write(text);
            }
            let IntervalView { from, until, points } = interval;
            let from = text::time(*from);
            let to = match text::time(*until) {
                until if until == from => String::new(),
                until => format!(" to {until}"),
            };
            let plural = if points.len() == 1 { "" } else { "s" };
            let _ = writeln!(text, "  {from}{to}  ({} restore point{plural})", points.len());
        }
        for gap in gaps {
            gap.write(text);
        }
        if self.up_to_the_minute {
            text.push_str("    further with the logs that are on the server, if they follow\n");
        }
    }
}

impl WindowsView {
    /// Those of all databases of a topology, or of one.
    pub(crate) fn of(topology: &Topology, only: Option<DatabaseId>) -> Self {
        let meant = topology
            .databases
            .iter()
            .filter(|known| only.is_none_or(|only| only == known.database));
        let view = meant.map(|known| DatabaseView::of(known.database, &known.name, &known.window));
        Self { databases: view.collect() }
    }
}

impl Report for WindowsView {
    const SCHEMA: &'static str = "stillpoint.windows/1";

    fn text(&self, text: &mut String) {
        if self.databases.is_empty() {
            text.push_str("nothing is known yet\n");
        }
        for database in &self.databases {
            database.write(text);
        }
    }
}
