//! What `protect` shows.

use std::fmt::Write as _;

use serde::Serialize;

use super::inventory::RefusedView;
use super::{JobView, JobsView, Report, TopologyView};
use crate::text;

/// The whole workflow.
#[derive(Debug, Serialize)]
pub(crate) struct ProtectView {
    pub(crate) source: String,
    pub(crate) state: String,
    pub(crate) store: String,
    /// The folder was made for the occasion.
    pub(crate) demo: bool,
    /// State, store and source still exist afterwards.
    pub(crate) kept: bool,
    /// How many databases there are.
    pub(crate) found: usize,
    /// Those that could not be backed up.
    pub(crate) refused: Vec<RefusedView>,
    pub(crate) backup: JobView,
    pub(crate) verification: Option<JobView>,
    pub(crate) restores: Vec<JobView>,
    pub(crate) comparison: Option<ComparisonView>,
    #[serde(flatten)]
    pub(crate) jobs: JobsView,
    pub(crate) topology: TopologyView,
}

/// What comparing restored files with the originals found.
#[derive(Debug, Serialize)]
pub(crate) struct ComparisonView {
    pub(crate) restored_to: String,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Files that are not byte for byte the same.
    pub(crate) different: Vec<String>,
}

impl Report for ProtectView {
    const SCHEMA: &'static str = "stillpoint.protect/1";

    fn text(&self, text: &mut String) {
        let found = text::count(self.found, "database");
        let _ = writeln!(text, "{found} under {}", self.source);
        for refused in &self.refused {
            let _ = writeln!(text, "refused: {}", refused.name);
            for reason in &refused.reasons {
                let _ = writeln!(text, "  {} [{}]", reason.message, reason.code);
                let _ = writeln!(text, "  remedy: {}", reason.remedy);
            }
        }
        if let Some(comparison) = &self.comparison {
            if comparison.different.is_empty() {
                let _ = writeln!(
                    text,
                    "restored to {}: {} of {}, byte for byte the same",
                    comparison.restored_to,
                    text::count(comparison.files, "file"),
                    text::bytes(comparison.bytes),
                );
            }
            for path in &comparison.different {
                let _ = writeln!(text, "restored file differs: {path}");
            }
        }
        text.push_str("\njobs\n");
        self.jobs.write(text, "  ");
        text.push_str("\ntopology\n");
        self.topology.write(text, "  ");
        text.push('\n');
        if self.kept {
            let _ = writeln!(text, "state: {}", self.state);
            let _ = writeln!(text, "store: {}", self.store);
        } else {
            text.push_str("the folder that was made for this is gone; --keep leaves it\n");
        }
    }
}
