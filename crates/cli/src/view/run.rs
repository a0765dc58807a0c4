//! What `run` shows when it has ended.

use std::fmt::Write as _;

use serde::Serialize;

use super::Report;
use crate::context::JobId;
use crate::model::job::Job;
use crate::text;

/// What the daemon did.
#[derive(Debug, Serialize)]
pub(crate) struct RunView {
    recovered: usize,
    began: u64,
    lapsed: u64,
    open: Vec<JobId>,
}

impl RunView {
    pub(crate) fn of(recovered: usize, began: u64, lapsed: u64, open: &[Job]) -> Self {
        let open = open.iter().map(|job| job.id).collect();
        Self { recovered, began, lapsed, open }
    }
}

impl Report for RunView {
    const SCHEMA: &'static str = "stillpoint.run/1";

    fn text(&self, text: &mut String) {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let _ = writeln!(
            text,
            "{} carried on with, {} begun, {} without a job",
            text::count(self.recovered, "job"),
            text::count(count(self.began), "job"),
            text::count(count(self.lapsed), "due time"),
        );
        for job in &self.open {
            let _ = writeln!(text, "not over: job {job}");
        }
    }
}
