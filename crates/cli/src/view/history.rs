//! What `catalogue forget` shows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::ForgetOptions;

use super::Report;
use crate::text;

/// How many jobs are forgotten.
#[derive(Debug, Serialize)]
pub(crate) struct ForgottenView {
    before: DateTime<Utc>,
    jobs: u64,
    dry_run: bool,
}

impl ForgottenView {
    pub(crate) fn of(jobs: u64, options: &ForgetOptions) -> Self {
        Self { before: options.before, jobs, dry_run: options.dry_run }
    }
}

impl Report for ForgottenView {
    const SCHEMA: &'static str = "stillpoint.forget/1";

    fn text(&self, text: &mut String) {
        let jobs = text::count(usize::try_from(self.jobs).unwrap_or(usize::MAX), "job");
        let done = if self.dry_run { "would be forgotten" } else { "forgotten" };
        let before = text::time(self.before);
        let _ = writeln!(text, "{jobs} {done} that ended before {before}");
    }
}
