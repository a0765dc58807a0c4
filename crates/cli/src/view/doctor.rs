//! What `doctor` shows.

use std::fmt::Write as _;

use serde::Serialize;

use super::Report;
use crate::exit::Exit;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warning,
    /// A backup would fail.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FindingView {
    /// What it is about, such as `store`.
    area: String,
    level: Level,
    message: String,
    remedy: String,
}

impl FindingView {
    pub(super) fn new(area: &str, level: Level, message: impl Into<String>, remedy: &str) -> Self {
        Self { area: area.to_owned(), level, message: message.into(), remedy: remedy.to_owned() }
    }

    pub(super) fn is_of(&self, area: &str, level: Level) -> bool {
        self.area == area && self.level == level
    }

    pub(super) const fn level(&self) -> Level {
        self.level
    }
}

/// Findings in lines.
pub(super) fn write_findings(text: &mut String, findings: &[FindingView]) {
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let _ = writeln!(text, "{level:8} {}: {}", finding.area, finding.message);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "         remedy: {}", finding.remedy);
        }
    }
}

/// What `doctor` shows.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DoctorView {
    findings: Vec<FindingView>,
}

impl DoctorView {
    pub(crate) fn ok(&mut self, area: &str, message: impl Into<String>) {
        self.add(area, Level::Ok, message, "");
    }

    pub(crate) fn add(
        &mut self,
        area: &str,
        level: Level,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.findings.push(FindingView::new(area, level, message, remedy));
    }

    /// What the worst of them is worth.
    pub(crate) fn exit(&self) -> Exit {
        match self.findings.iter().map(|finding| finding.level).max() {
            Some(Level::Error) => Exit::Failed,
            Some(Level::Warning) => Exit::Warnings,
            Some(Level::Ok) | None => Exit::Done,
        }
    }
}

impl Report for DoctorView {
    const SCHEMA: &'static str = "stillpoint.doctor/1";

    fn text(&self, text: &mut String) {
        write_findings(text, &self.findings);
    }
}
