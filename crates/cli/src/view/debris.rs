//! What `debris` shows, and what is left in the account of a job.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::catalog::{Debris, DebrisKind};

use super::Report;
use crate::context::{JobId, RunId};
use crate::text;

/// Something that was left behind.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LeftView {
    /// `snapshots`, `exposure`, `session`, `manifest`, `staged`, `orphan`, `other`.
    kind: &'static str,
    object: String,
    run: RunId,
    job: Option<JobId>,
    /// The step that owed its removal.
    step: Option<String>,
    /// It is not known whether it is there.
    possible: bool,
    message: String,
    since: DateTime<Utc>,
}

impl LeftView {
    pub(super) fn of(left: &Debris) -> Self {
        let kind = match left.kind {
            DebrisKind::Snapshots(_) => "snapshots",
            DebrisKind::Exposure(_) => "exposure",
            DebrisKind::Session(_) => "session",
            DebrisKind::Manifest(_) => "manifest",
            DebrisKind::Staged(_) => "staged",
            DebrisKind::Orphan(_) => "orphan",
            _ => "other",
        };
        Self {
            kind,
            object: left.kind.to_string(),
            run: left.run,
            job: left.job,
            step: left.step.as_ref().map(ToString::to_string),
            possible: left.possible,
            message: left.message.clone(),
            since: left.since,
        }
    }

    pub(super) fn write(&self, text: &mut String, indent: &str) {
        let possible = if self.possible { ", maybe" } else { "" };
        let _ = writeln!(text, "{indent}left behind: {}{possible}", self.object);
        let job = self.job.map_or_else(String::new, |job| format!(" of job {job}"));
        let step = self.step.as_ref().map_or_else(String::new, |step| format!("step {step} of "));
        let since = text::time(self.since);
        let _ = writeln!(text, "{indent}  owed by {step}run {}{job} since {since}", self.run);
        let _ = writeln!(text, "{indent}  {}", self.message);
    }
}

/// What `debris` shows.
#[derive(Debug, Serialize)]
pub(crate) struct DebrisView {
    debris: Vec<LeftView>,
}

impl DebrisView {
    pub(crate) fn of(left: &[Debris]) -> Self {
        Self { debris: left.iter().map(LeftView::of).collect() }
    }
}

impl Report for DebrisView {
    const SCHEMA: &'static str = "stillpoint.debris/1";

    fn text(&self, text: &mut String) {
        if self.debris.is_empty() {
            text.push_str("nothing was left behind\n");
        }
        for left in &self.debris {
            left.write(text, "");
        }
    }
}
