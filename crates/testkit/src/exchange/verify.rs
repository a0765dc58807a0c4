//! Reading simulated files in an exposure.

use std::sync::Arc;

use stillpoint_context::HostPath;
use stillpoint_exchange::{RequiredFile, VerifySpec};
use stillpoint_model::handover::Exposure;
use stillpoint_model::id::CopyId;
use stillpoint_model::inventory::FileRole;
use stillpoint_model::verdict::{CopyReport, Finding, FindingKind, Verdict, VerifyReport};

use crate::world::state::{State, join};
use crate::writer::{PAGE_BYTES, read_checkpoint, read_log, read_pages};

/// ESE's number for a page whose checksum is wrong.
const READ_VERIFY_FAILURE: i32 = -1018;
/// ESE's number for a missing log.
const MISSING_LOG: i32 = -528;

pub(super) fn verify(state: &mut State, exposure: &Exposure, spec: &VerifySpec) -> VerifyReport {
    let mut report = VerifyReport::new();
    let copies: Vec<CopyId> = spec.copies().into_iter().cloned().collect();
    for copy in copies {
        let files = spec.files.iter().filter(|file| file.file.copy == copy);
        let mut check = Check { state, exposure, spec, findings: Vec::new(), notes: Vec::new() };
        let mut checked = stillpoint_model::verdict::Checked::default();
        let mut required = Vec::new();
        for file in files {
            required.push(&file.file);
            let Some(bytes) = check.read(&file.file.path) else {
                check.find(&file.file, FindingKind::Missing, "it is not in the snapshot", None);
                continue;
            };
            checked.files += 1;
            checked.bytes += bytes.len() as u64;
            if let Some(Err(error)) = file.seal.as_ref().map(|seal| seal.check_all(&bytes)) {
                let offset = Some(error.offset());
                check.find(&file.file, FindingKind::Seal, &error.to_string(), offset);
            }
        }
        checked.pages = check.database_and_logs(&copy, &required);
        let Check { mut findings, notes, .. } = check;
        findings.truncate(spec.max_findings.max(1) as usize);
        let verdict = if findings.is_empty() { Verdict::Good } else { Verdict::bad(findings) };
        let mut result = CopyReport::new(verdict);
        result.checked = checked;
        result.notes = notes;
        report.insert(copy, result);
    }
    report
}

struct Check<'a> {
    state: &'a mut State,
    exposure: &'a Exposure,
    spec: &'a VerifySpec,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl Check<'_> {
    fn read(&mut self, original: &HostPath) -> Option<Arc<[u8]>> {
        let path = self.exposure.find(original)?;
        self.state.read(&path)
    }

    fn find(&mut self, file: &RequiredFile, kind: FindingKind, text: &str, offset: Option<u64>) {
        let name = file.path.file_name().unwrap_or_default();
        let mut finding = Finding::new(name, kind, text);
        finding.offset = offset;
        self.findings.push(finding);
    }

    /// Checks pages, log headers and what they say together; gives the number of pages read.
    fn database_and_logs(&mut self, copy: &CopyId, required: &[&RequiredFile]) -> u64 {
        let mut newest = None;
        let mut pages_read = 0;
        for file in required.iter().filter(|file| file.role == FileRole::Database) {
            let Some(bytes) = self.read(&file.path) else { continue };
            let pages = read_pages(&bytes);
            pages_read += pages.len() as u64;
            for (number, page) in (0u64..).zip(&pages) {
                if page.is_none() {
                    let finding = Finding::new(
                        file.path.file_name().unwrap_or_default(),
                        FindingKind::Checksum,
                        "the checksum of the page is wrong",
                    );
                    let finding = finding
                        .at_page(number)
                        .at_offset(number * PAGE_BYTES as u64)
                        .with_jet_error(READ_VERIFY_FAILURE);
                    self.findings.push(finding);
                }
            }
            if pages.iter().flatten().max() != pages.iter().flatten().min() {
                self.notes.push("a transaction was under way: it needs replay".to_owned());
            }
            newest = pages.into_iter().flatten().max().max(newest);
        }
        // Logs alone are looked at for themselves.
        self.logs(copy, required, newest.unwrap_or(0));
        pages_read
    }

    /// Every log of the copy that can be found: those that were named, and those beside them, as generations close between
    /// the session's begin and its freeze.
    fn logs(&mut self, copy: &CopyId, required: &[&RequiredFile], newest_page: u64) {
        let mut files: Vec<(String, Arc<[u8]>)> = Vec::new();
        for file in required.iter().filter(|file| file.role == FileRole::Log) {
            let Some(bytes) = self.read(&file.path) else { continue };
            files.push((file.path.file_name().unwrap_or_default().to_owned(), bytes));
        }
        let folder = self.state.copies.get(copy).and_then(|known| {
            let disk = self.state.volumes.get(&known.logs)?;
            join(disk.mount_on(&copy.host)?, &known.log_folder())
        });
        let beside = folder.and_then(|folder| self.exposure.find(&folder));
        for (name, bytes) in beside.iter().flat_map(|folder| self.state.exposed_folder(folder)) {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            if name.to_lowercase().ends_with(".log")
                && files.iter().all(|(known, _)| *known != name)
            {
                files.push((name, bytes));
            }
        }
        let mut logs = Vec::new();
        for (name, bytes) in &files {
            match read_log(bytes) {
                Some(log) => logs.push(log),
                None => self.findings.push(Finding::new(
                    name.clone(),
                    FindingKind::Checksum,
                    "the checksum of the log is wrong",
                )),
            }
        }
        if !self.spec.recoverable {
            return;
        }
        logs.sort();
        let needed = required.iter().filter(|file| file.role == FileRole::Checkpoint);
        let checkpoints: Vec<_> = needed.map(|file| file.path.clone()).collect();
        let checkpoint = checkpoints.iter().find_map(|path| read_checkpoint(&self.read(path)?));
        let first = logs.first().map(|log| log.generation);
        let from = checkpoint.or(first).unwrap_or(1);
        let until = logs.last().map_or(from, |log| log.generation);
        let missing: Vec<u32> = (from..=until)
            .filter(|wanted| logs.iter().all(|log| log.generation != *wanted))
            .collect();
        for generation in missing {
            let text = format!("log generation {generation:08X} is missing");
            let finding = Finding::new("logs", FindingKind::LogGap, text);
            self.findings.push(finding.with_jet_error(MISSING_LOG));
        }
        let logged = logs.iter().map(|log| log.last).max().unwrap_or(0);
        if newest_page > logged && self.findings.is_empty() {
            let text = format!("pages hold transaction {newest_page}, the logs end at {logged}");
            self.findings.push(Finding::new("logs", FindingKind::Structure, text));
        }
    }
}
