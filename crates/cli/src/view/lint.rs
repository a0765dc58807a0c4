//! What `lint` shows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;
use stillpoint::LintReport;

use super::Report;
use crate::context::Subject;
use crate::exit::Exit;
use crate::model::strategy::{Finding, Severity, VolumeNeed, VolumeShare};

#[derive(Debug, Serialize)]
struct FindingView {
    code: String,
    severity: Severity,
    message: String,
    remedy: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Serialize)]
struct VolumeView {
    volume: String,
    need: u32,
    limit: Option<u32>,
    shares: Vec<ShareView>,
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ShareView {
    policy: String,
    fulls: u32,
    logs: u32,
}

/// What the linter found.
#[derive(Debug, Serialize)]
pub(crate) struct LintView {
    at: DateTime<Utc>,
    findings: Vec<FindingView>,
    volumes: Vec<VolumeView>,
    #[serde(skip)]
    worst: Option<Severity>,
}

impl LintView {
    pub(crate) fn of(report: &LintReport) -> Self {
        let finding = |finding: &Finding| FindingView {
            code: finding.code.to_string(),
            severity: finding.severity,
            message: finding.message.clone(),
            remedy: finding.remedy.clone().into_owned(),
            subjects: finding.subjects.clone(),
        };
        let share = |share: &VolumeShare| ShareView {
            policy: share.name.clone(),
            fulls: share.fulls,
            logs: share.logs,
        };
        let volume = |known: &VolumeNeed| VolumeView {
            volume: known.volume.to_string(),
            need: known.need,
            limit: known.limit,
            shares: known.shares.iter().map(share).collect(),
            unknown: known.unknown.iter().map(ToString::to_string).collect(),
        };
        Self {
            at: report.at,
            findings: report.findings.iter().map(finding).collect(),
            volumes: report.volumes.iter().map(volume).collect(),
            worst: report.worst(),
        }
    }

    /// What the worst of it is worth.
    pub(crate) const fn exit(&self) -> Exit {
        match self.worst {
            Some(Severity::Error) => Exit::Failed,
            Some(Severity::Warning) => Exit::Warnings,
            Some(Severity::Info) | None => Exit::Done,
        }
    }
}

impl Report for LintView {
    const SCHEMA: &'static str = "stillpoint.lint/1";

    fn text(&self, text: &mut String) {
        if self.findings.is_empty() {
            text.push_str("nothing is wrong\n");
        }
        for finding in &self.findings {
            let FindingView { code, severity, message, remedy, .. } = finding;
            let _ = writeln!(text, "{severity:8} {message} [{code}]");
            let _ = writeln!(text, "         remedy: {remedy}");
        }
        for volume in &self.volumes {
            let limit = volume.limit.map_or_else(String::new, |limit| format!(" of {limit}"));
            let and = if volume.unknown.is_empty() { "" } else { ", and what nobody can say" };
            let _ = writeln!(
                text,
                "volume {}: {}{limit} snapshots at most{and}",
                volume.volume, volume.need
            );
            for share in &volume.shares {
                let ShareView { policy, fulls, logs } = share;
                let _ = writeln!(text, "  {policy}: {fulls} restore points, {logs} of logs alone");
            }
            for unknown in &volume.unknown {
                let _ = writeln!(text, "  {unknown}");
            }
        }
    }
}
