//! What `hold` shows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Report;
use crate::model::hold::Hold;
use crate::model::id::PointId;
use crate::text;

#[derive(Debug, Serialize)]
struct HoldView {
    hold: String,
    points: Vec<PointId>,
    reason: String,
    by: String,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    is_over: bool,
}

/// Every hold; or the one that would be put on.
#[derive(Debug, Serialize)]
pub(crate) struct HoldsView {
    dry_run: bool,
    holds: Vec<HoldView>,
}

impl HoldsView {
    pub(crate) fn of(holds: &[Hold], now: DateTime<Utc>) -> Self {
        let view = |hold: &Hold| HoldView {
            hold: hold.name.to_string(),
            points: hold.points.iter().copied().collect(),
            reason: hold.reason.clone(),
            by: hold.by.clone(),
            since: hold.since,
            until: hold.until,
            is_over: !hold.is_on(now),
        };
        Self { dry_run: false, holds: holds.iter().map(view).collect() }
    }

    pub(crate) fn of_dry_run(hold: &Hold, now: DateTime<Utc>) -> Self {
        Self { dry_run: true, ..Self::of(std::slice::from_ref(hold), now) }
    }
}

impl Report for HoldsView {
    const SCHEMA: &'static str = "stillpoint.hold/1";

    fn text(&self, text: &mut String) {
        if self.holds.is_empty() {
            text.push_str("nothing is held\n");
        }
        for hold in &self.holds {
            let until =
                hold.until.map_or_else(String::new, |at| format!(" until {}", text::time(at)));
            let over = if hold.is_over { ", over" } else { "" };
            let since = text::time(hold.since);
            let _ = writeln!(text, "{} by {} since {since}{until}{over}", hold.hold, hold.by);
            let _ = writeln!(text, "  {}", hold.reason);
            for point in &hold.points {
                let _ = writeln!(text, "  point {point}");
            }
        }
        if self.dry_run {
            text.push_str("nothing was changed\n");
        }
    }
}
