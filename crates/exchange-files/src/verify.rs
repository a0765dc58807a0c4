//! Reading every byte of a restore point: checksums inside the files, seals over them, and whether they make a database
//! that can be recovered.

use std::{collections::BTreeMap, fs::File, io, ops::ControlFlow};

use stillpoint_context::{Cx, HostId, HostPath, Progress};
use stillpoint_ese::{
    self as ese, DatabaseHeader, EseError, Finding as EseFinding, FindingKind as EseKind, LogBody,
    LogMember, Observer, PageFault, Place, ReadAt, ScanOptions, SetVerdict, Severity, judge_set,
    scan_checkpoint, scan_database, scan_log,
};
use stillpoint_exchange::{
    CopyReport, Exposure, PluginError, PluginErrorKind, PluginResult, Verdict, VerifyFile,
    VerifyReport, VerifySpec,
};
use stillpoint_model::{
    id::CopyId,
    inventory::FileRole,
    seal::{Seal, SealCheck, SealError},
    verdict::{Checked, Finding, FindingKind},
};

use crate::walk::{interrupted, open};

/// Verifies the files of a spec in an exposure; a verdict for each copy. Blocks.
///
/// # Errors
/// When the exposure is not on this machine, or the call is interrupted.
pub(crate) fn verify(
    cx: &Cx,
    host: &HostId,
    exposure: &Exposure,
    spec: &VerifySpec,
) -> PluginResult<VerifyReport> {
    if exposure.host != *host {
        return Err(PluginError::new(
            PluginErrorKind::Invalid,
            format!("the exposure is on {}, this plug-in reads on {host}", exposure.host),
        )
        .without_effect());
    }
    let mut copies: BTreeMap<&CopyId, Vec<&VerifyFile>> = BTreeMap::new();
    for file in &spec.files {
        copies.entry(&file.file.copy).or_default().push(file);
    }
    let total = spec.files.iter().map(|file| file.file.bytes.unwrap_or(0)).sum();
    let mut meter = Meter { cx, done: 0, total };
    let mut report = VerifyReport::new();
    for (copy, files) in copies {
        let mut copy_check = CopyCheck::new(spec);
        for file in files {
            copy_check.read(&mut meter, exposure, file)?;
        }
        report.insert(copy.clone(), copy_check.judge());
    }
    Ok(report)
}

/// Progress over all files of the call.
struct Meter<'a> {
    cx: &'a Cx,
    done: u64,
    total: u64,
}

struct CopyCheck<'a> {
    spec: &'a VerifySpec,
    database: Option<(String, DatabaseHeader)>,
    logs: Vec<LogMember>,
    findings: Vec<Finding>,
    notes: Vec<String>,
    /// What could not be checked, so that nothing good can be said.
    unchecked: Option<String>,
    checked: Checked,
}

/// What one pass over a file gave.
struct Pass {
    findings: ese::Findings,
    seal: Option<SealError>,
}

impl<'a> CopyCheck<'a> {
    fn new(spec: &'a VerifySpec) -> Self {
        Self {
            spec,
            database: None,
            logs: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
            unchecked: None,
            checked: Checked::default(),
        }
    }

    fn read(
        &mut self,
        meter: &mut Meter<'_>,
        exposure: &Exposure,
        wanted: &VerifyFile,
    ) -> PluginResult<()> {
        let name = name_in(exposure, &wanted.file.path);
        let Some(at) = exposure.find(&wanted.file.path) else {
            let message = "no exposed snapshot holds it";
            self.findings.push(Finding::new(name, FindingKind::Missing, message));
            return Ok(());
        };
        let file = match open(&at.to_native()?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "it is missing";
                self.findings.push(Finding::new(name, FindingKind::Missing, message));
                return Ok(());
            }
            Err(error) => {
                let message = format!("it cannot be opened: {error}");
                self.findings.push(Finding::new(name, FindingKind::Unreadable, message));
                return Ok(());
            }
        };
        match self.scan(meter, &name, &file, wanted) {
            Ok(pass) => self.take(&name, &pass),
            Err(EseError::Read { offset, source }) => {
                self.findings.push(
                    Finding::new(name, FindingKind::Unreadable, source.to_string())
                        .at_offset(offset),
                );
            }
            Err(error) => {
                meter.cx.check().map_err(interrupted)?;
                return Err(PluginError::new(PluginErrorKind::Internal, error.to_string())
                    .with_source(error)
                    .without_effect());
            }
        }
        Ok(())
    }

    /// Reads a file once, for its own checksums and for its seal.
    fn scan(
        &mut self,
        meter: &mut Meter<'_>,
        name: &str,
        file: &File,
        wanted: &VerifyFile,
    ) -> Result<Pass, EseError> {
        let most = usize::try_from(self.spec.max_findings).unwrap_or(usize::MAX).clamp(1, 10_000);
        let options = ScanOptions::default().with_max_findings(most);
        let mut reader = Reader {
            meter,
            name,
            before: 0,
            bytes: 0,
            seal: wanted.seal.as_ref().map(Seal::check),
            failed: None,
        };
        reader.before = reader.meter.done;
        let findings = match wanted.file.role {
            FileRole::Database => {
                let report = scan_database(file, &options, &mut reader)?;
                self.checked.pages += report.pages;
                if let Some(header) = report.header {
                    self.database = Some((name.to_owned(), header));
                }
                report.findings
            }
            FileRole::Log => {
                let report = scan_log(file, &options, &mut reader)?;
                self.logs.extend(LogMember::from_report(name, &report));
                if report.body == LogBody::NotChecked && report.findings.is_usable() {
                    self.unchecked.get_or_insert_with(|| {
                        format!("{name} has the format of an older engine, which is not checked")
                    });
                }
                report.findings
            }
            FileRole::Checkpoint => scan_checkpoint(file, &options, &mut reader)?.findings,
            // Nothing is known of its inside; its seal is over every byte.
            _ => ese::Findings::default(),
        };
        // A scan stops where it finds no header; the seal is over every byte.
        reader.read_rest(file)?;
        self.checked.files += 1;
        self.checked.bytes += reader.bytes;
        Ok(Pass { findings, seal: reader.finish() })
    }

    fn take(&mut self, name: &str, pass: &Pass) {
        let is_cut =
            pass.findings.iter().any(|found| matches!(found.kind, EseKind::PartialTail { .. }))
                && pass
                    .findings
                    .iter()
                    .any(|found| matches!(found.kind, EseKind::LinksBeyondEnd { .. }));
        for found in &pass.findings {
            // What the engine can put right is worth telling; where the seal says that it was not
            // so when it was stored, it is damage, and this is the place of it.
            let is_bad = found.severity == Severity::Damage
                || (found.severity == Severity::Repairable && pass.seal.is_some());
            let is_end = matches!(found.kind, EseKind::LinksBeyondEnd { .. });
            if is_bad || (is_end && is_cut) {
                self.findings.push(finding(name, found));
            } else {
                self.notes.push(format!("{name}: {found}"));
            }
        }
        if pass.findings.omitted > 0 {
            self.notes.push(format!("{name}: {} more findings", pass.findings.omitted));
        }
        if let Some(error) = &pass.seal {
            let kind = match error {
                SealError::Short { .. } => FindingKind::Truncated,
                _ => FindingKind::Seal,
            };
            let finding = Finding::new(name, kind, error.to_string()).at_offset(error.offset());
            self.findings.push(finding);
        }
    }

    fn judge(mut self) -> CopyReport {
        if self.spec.recoverable {
            self.judge_recovery();
        }
        let most = usize::try_from(self.spec.max_findings).unwrap_or(usize::MAX).max(1);
        if self.findings.len() > most {
            self.notes.push(format!("{} more findings", self.findings.len() - most));
            self.findings.truncate(most);
        }
        let verdict = if !self.findings.is_empty() {
            Verdict::bad(self.findings)
        } else if let Some(reason) = self.unchecked {
            Verdict::Unverified { reason }
        } else {
            Verdict::Good
        };
        let mut report = CopyReport::new(verdict);
        report.checked = self.checked;
        report.notes = self.notes;
        report
    }

    fn judge_recovery(&mut self) {
        let Some((name, header)) = &self.database else { return };
        let set = judge_set(header, &self.logs);
        match set.verdict {
            SetVerdict::NotRecoverable { reasons, .. } => {
                for reason in reasons {
                    self.findings.push(lacking(name, &reason));
                }
            }
            SetVerdict::RecoverableWithLoss { reasons, .. } => {
                let reasons =
                    reasons.iter().map(|reason| format!("{name}: work is lost: {reason}"));
                self.notes.extend(reasons);
            }
            _ => {}
        }
        self.notes.extend(set.stream.iter().map(ToString::to_string));
    }
}

/// Why a database cannot be recovered, as a finding of the file that shows it.
fn lacking(database: &str, reason: &ese::Reason) -> Finding {
    let (file, kind) = match reason {
        ese::Reason::State { .. } | ese::Reason::RequiredUnknown => {
            (database, FindingKind::Structure)
        }
        ese::Reason::LogDamaged { file, .. } => (file.as_str(), FindingKind::Checksum),
        ese::Reason::CreationMismatch { file, .. } => (file.as_str(), FindingKind::Signature),
        ese::Reason::Stream(finding) => (finding.file.as_str(), FindingKind::Structure),
        _ => (database, FindingKind::LogGap),
    };
    Finding::new(file, kind, reason.to_string()).with_jet_error(reason.jet().code())
}

fn finding(name: &str, found: &EseFinding) -> Finding {
    let kind = match &found.kind {
        EseKind::HeaderUnusable
        | EseKind::HeaderVersion { .. }
        | EseKind::HeaderCopyBad
        | EseKind::HeaderCopyAbsent
        | EseKind::HeaderCopiesDiffer
        | EseKind::GenerationInvalid
        | EseKind::SegmentSizeInvalid => FindingKind::Header,
        EseKind::Page(PageFault::WrongPage { .. } | PageFault::NumberField { .. })
        | EseKind::SegmentMisplaced { .. } => FindingKind::PageNumber,
        EseKind::LinksBeyondEnd { .. } | EseKind::PartialTail { .. } | EseKind::NoPages => {
            FindingKind::Truncated
        }
        EseKind::LengthMismatch { expected, actual } if actual < expected => FindingKind::Truncated,
        EseKind::LengthMismatch { .. } | EseKind::SegmentAfterEnd | EseKind::TooManyPages => {
            FindingKind::Structure
        }
        _ => FindingKind::Checksum,
    };
    let mut out = Finding::new(name, kind, found.to_string()).at_offset(found.offset);
    if let Place::Page(number) | Place::Segment(number) = found.place {
        out = out.at_page(u64::from(number));
    }
    match found.jet {
        Some(jet) => out.with_jet_error(jet.code()),
        None => out,
    }
}

/// The path inside the restore point: below the folder that was snapped.
fn name_in(exposure: &Exposure, original: &HostPath) -> String {
    exposure
        .roots
        .iter()
        .filter_map(|root| original.parts_below(&root.original))
        .filter(|parts| !parts.is_empty())
        .min_by_key(Vec::len)
        .map_or_else(|| original.as_str().to_owned(), |parts| parts.join("/"))
}

/// Shows every byte to the seal, tells the progress, and hears of a cancel.
struct Reader<'a, 'm> {
    meter: &'a mut Meter<'m>,
    name: &'a str,
    before: u64,
    bytes: u64,
    seal: Option<SealCheck<'a>>,
    failed: Option<SealError>,
}

impl Observer for Reader<'_, '_> {
    // Without a seal, what a scan reads need not be shown to anybody.
    fn wants_bytes(&self) -> bool {
        self.seal.is_some()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some(seal) = &mut self.seal
            && let Err(error) = seal.update(bytes)
        {
            self.failed.get_or_insert(error);
            self.seal = None;
        }
    }

    fn progress(&mut self, progress: ese::Progress) -> ControlFlow<()> {
        self.bytes = progress.done;
        self.meter.done = self.before + progress.done;
        let (done, total, name) = (self.meter.done, self.meter.total, self.name);
        self.meter.cx.report(|| Progress::bytes(name.to_owned(), done, Some(total.max(done))));
        if self.meter.cx.check().is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Reader<'_, '_> {
    fn read_rest(&mut self, file: &File) -> Result<(), EseError> {
        if self.seal.is_none() {
            return Ok(());
        }
        let mut buf = vec![0; 1 << 20];
        loop {
            let offset = self.bytes;
            let read = file
                .read_at(offset, &mut buf)
                .map_err(|source| EseError::Read { offset, source })?;
            if read == 0 {
                return Ok(());
            }
            self.bytes(&buf[..read.min(buf.len())]);
            let progress = ese::Progress { done: self.bytes, total: self.bytes };
            if self.progress(progress).is_break() {
                return Err(EseError::Stopped);
            }
        }
    }

    fn finish(self) -> Option<SealError> {
        self.failed.or_else(|| self.seal.and_then(|seal| seal.finish().err()))
    }
}
