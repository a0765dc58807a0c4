//! What `ese` shows: checked files, databases with their logs, and headers.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use stillpoint_ese::{
    CheckedDatabase, CheckedFile, CheckedStream, CopyState, DatabaseHeaders, FileKind, Finding,
    FlushMapFit, GenerationRange, HeaderCopy, Health, JetError, PageCounts, RollForward, SetCheck,
    SetVerdict, Severity,
};

use super::Report;
use crate::text;

/// Files, and what the databases among them come to.
#[derive(Debug, Serialize)]
pub(crate) struct EseCheckView {
    health: Health,
    files: Vec<FileView>,
    databases: Vec<DatabaseView>,
    streams: Vec<StreamView>,
}

#[derive(Debug, Serialize)]
struct FileView {
    path: String,
    kind: FileKind,
    health: Health,
    pages: Option<PageCounts>,
    findings: Vec<FindingView>,
    omitted: u64,
    failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct FindingView {
    place: String,
    offset: u64,
    kind: String,
    severity: Severity,
    message: String,
    jet: Option<JetView>,
}

#[derive(Debug, Serialize)]
struct JetView {
    code: i32,
    name: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct RangeView {
    from: u32,
    to: u32,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    path: String,
    page_size: u32,
    state: String,
    health: Health,
    /// `clean`, `recoverable`, `recoverable_with_loss` or `not_recoverable`.
    verdict: &'static str,
    required: Option<RangeView>,
    committed: Option<u32>,
    missing: Vec<RangeView>,
    reasons: Vec<String>,
    needed: Vec<String>,
    rolls_forward_to: Option<RollForwardView>,
    stream: Vec<String>,
    checkpoints: Vec<CheckpointView>,
    flush_map: Option<FlushMapFit>,
}

#[derive(Debug, Serialize)]
struct RollForwardView {
    generation: u32,
    time: String,
    cut_by: Option<RangeView>,
}

#[derive(Debug, Serialize)]
struct CheckpointView {
    path: String,
    fits: bool,
}

#[derive(Debug, Serialize)]
struct StreamView {
    signature: String,
    generations: Option<RangeView>,
    stream: Vec<String>,
    damaged: Vec<String>,
}

impl RangeView {
    fn of(range: GenerationRange) -> Self {
        Self { from: range.first().number(), to: range.last().number() }
    }

    fn all(ranges: &[GenerationRange]) -> Vec<Self> {
        ranges.iter().copied().map(Self::of).collect()
    }

    fn words(&self) -> String {
        if self.from == self.to {
            self.from.to_string()
        } else {
            format!("{}-{}", self.from, self.to)
        }
    }
}

impl JetView {
    fn of(jet: JetError) -> Self {
        Self { code: jet.code(), name: jet.name() }
    }
}

impl FindingView {
    fn of(finding: &Finding) -> Self {
        Self {
            place: finding.place.to_string(),
            offset: finding.offset,
            kind: word(&finding.kind),
            severity: finding.severity,
            message: finding.to_string(),
            jet: finding.jet.map(JetView::of),
        }
    }
}

/// The name of a variant: of the innermost one that has a name.
fn word(kind: &impl Serialize) -> String {
    let mut value = serde_json::to_value(kind).unwrap_or_default();
    let mut word = String::new();
    while let Value::Object(fields) = value {
        let mut fields = fields.into_iter();
        match (fields.next(), fields.next()) {
            (Some((name, inner)), None) if inner.is_object() || inner.is_string() => {
                word = name;
                value = inner;
            }
            _ => return word.to_lowercase(),
        }
    }
    value.as_str().map_or(word, ToOwned::to_owned).to_lowercase()
}

impl FileView {
    fn of(file: &CheckedFile) -> Self {
        Self {
            path: file.path.display().to_string(),
            kind: file.kind,
            health: file.health,
            pages: file.pages,
            findings: file.findings.iter().map(FindingView::of).collect(),
            omitted: file.findings.omitted,
            failure: file.failure.as_ref().map(|failure| failure.message.clone()),
        }
    }

    fn write(&self, text: &mut String) {
        let pages = self.pages.map_or_else(String::new, |pages| {
            format!(
                ", {} pages ({} bad, {} correctable, {} never written)",
                pages.total, pages.bad, pages.correctable, pages.uninitialised
            )
        });
        let _ = writeln!(text, "{}: {}, {}{pages}", self.path, self.kind, health(self.health));
        for finding in &self.findings {
            let _ = writeln!(text, "  {}", finding.message);
        }
        if self.omitted > 0 {
            let _ = writeln!(text, "  and {} more", self.omitted);
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "  {failure}");
        }
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Notable => "usable, see below",
        Health::Bad => "BAD",
        _ => "not checked",
    }
}

impl DatabaseView {
    fn of(database: &CheckedDatabase) -> Self {
        let set = &database.set;
        let (verdict, committed, missing, reasons) = match &set.verdict {
            SetVerdict::Clean => ("clean", None, &[][..], &[][..]),
            SetVerdict::Recoverable { committed, .. } => {
                ("recoverable", Some(committed.number()), &[][..], &[][..])
            }
            SetVerdict::RecoverableWithLoss { missing, reasons, .. } => {
                ("recoverable_with_loss", None, missing.as_slice(), reasons.as_slice())
            }
            SetVerdict::NotRecoverable { missing, reasons } => {
                ("not_recoverable", None, missing.as_slice(), reasons.as_slice())
            }
            _ => ("unknown", None, &[][..], &[][..]),
        };
        Self {
            path: database.path.display().to_string(),
            page_size: database.page_size.bytes(),
            state: database.state.to_string(),
            health: database.health,
            verdict,
            required: database.required.map(RangeView::of),
            committed,
            missing: RangeView::all(missing),
            reasons: reasons.iter().map(ToString::to_string).collect(),
            needed: set.needed.clone(),
            rolls_forward_to: set.rolls_forward_to.as_ref().map(RollForwardView::of),
            stream: set.stream.iter().map(ToString::to_string).collect(),
            checkpoints: database
                .checkpoints
                .iter()
                .map(|checkpoint| CheckpointView {
                    path: checkpoint.path.display().to_string(),
                    fits: checkpoint.fits,
                })
                .collect(),
            flush_map: database.flush_map,
        }
    }

    fn write(&self, text: &mut String) {
        let verdict = self.verdict.replace('_', " ");
        let _ = writeln!(text, "{}: {verdict} ({})", self.path, self.state);
        if let Some(required) = &self.required {
            let _ = writeln!(text, "  needs log generations {}", required.words());
        }
        if let Some(reached) = &self.rolls_forward_to {
            let _ = writeln!(
                text,
                "  can be rolled forward to generation {}, {}",
                reached.generation, reached.time
            );
            if let Some(gap) = &reached.cut_by {
                let _ = writeln!(text, "  and no further: {} are missing or bad", gap.words());
            }
        }
        for line in self.reasons.iter().chain(&self.stream) {
            let _ = writeln!(text, "  {line}");
        }
        for checkpoint in self.checkpoints.iter().filter(|checkpoint| !checkpoint.fits) {
            let _ = writeln!(text, "  {} belongs to another stream", checkpoint.path);
        }
    }
}

impl RollForwardView {
    fn of(reached: &RollForward) -> Self {
        Self {
            generation: reached.generation.number(),
            time: reached.time.to_string(),
            cut_by: reached.cut_by.map(RangeView::of),
        }
    }
}

impl StreamView {
    fn of(stream: &CheckedStream) -> Self {
        Self {
            signature: stream.signature.to_string(),
            generations: stream.generations.map(RangeView::of),
            stream: stream.findings.iter().map(ToString::to_string).collect(),
            damaged: stream.damaged.clone(),
        }
    }

    fn write(&self, text: &mut String) {
        let generations = self.generations.as_ref().map_or_else(String::new, RangeView::words);
        let word = if self.stream.is_empty() && self.damaged.is_empty() { "good" } else { "BAD" };
        let _ =
            writeln!(text, "log generations {generations} of stream {}: {word}", self.signature);
        for line in &self.stream {
            let _ = writeln!(text, "  {line}");
        }
        for file in &self.damaged {
            let _ = writeln!(text, "  {file} is damaged");
        }
    }
}

impl EseCheckView {
    pub(crate) fn of(check: &SetCheck) -> Self {
        Self {
            health: check.health(),
            files: check.files.iter().map(FileView::of).collect(),
            databases: check.databases.iter().map(DatabaseView::of).collect(),
            streams: check.streams.iter().map(StreamView::of).collect(),
        }
    }
}

impl Report for EseCheckView {
    const SCHEMA: &'static str = "stillpoint.ese_check/1";

    fn text(&self, text: &mut String) {
        for file in &self.files {
            file.write(text);
        }
        for database in &self.databases {
            database.write(text);
        }
        for stream in &self.streams {
            stream.write(text);
        }
        let files = text::count(self.files.len(), "file");
        let _ = match self.health {
            Health::Good => writeln!(text, "good: {files}"),
            Health::Notable => writeln!(text, "usable, and something is worth a look: {files}"),
            Health::Bad => writeln!(text, "BAD: {files}"),
            _ if self.files.is_empty() => writeln!(text, "there is nothing to check"),
            _ => writeln!(text, "not all could be checked: {files}"),
        };
    }
}

/// The header of one file.
#[derive(Debug, Serialize)]
pub(crate) struct EseHeaderView {
    path: String,
    kind: FileKind,
    /// Of a database: which copy is shown, and how both were found.
    copies: Option<CopiesView>,
    /// The fields, named as in the library.
    header: Value,
}

#[derive(Debug, Serialize)]
struct CopiesView {
    used: HeaderCopy,
    primary: CopyState,
    shadow: CopyState,
    differs_at: Option<u64>,
}

impl EseHeaderView {
    pub(crate) fn of(path: &Path, kind: FileKind, header: &impl Serialize) -> Self {
        Self {
            path: path.display().to_string(),
            kind,
            copies: None,
            header: serde_json::to_value(header).unwrap_or_default(),
        }
    }

    pub(crate) fn of_database(path: &Path, kind: FileKind, headers: &DatabaseHeaders) -> Self {
        let copies = CopiesView {
            used: headers.used,
            primary: headers.primary,
            shadow: headers.shadow,
            differs_at: headers.differs_at,
        };
        Self { copies: Some(copies), ..Self::of(path, kind, &headers.header) }
    }
}

impl Report for EseHeaderView {
    const SCHEMA: &'static str = "stillpoint.ese_header/1";

    fn text(&self, text: &mut String) {
        let _ = writeln!(text, "{}: {}", self.path, self.kind);
        if let Some(copies) = &self.copies {
            let copies = serde_json::to_value(copies).unwrap_or_default();
            write_value(text, "  ", "copies", &copies);
        }
        if let Value::Object(fields) = &self.header {
            for (name, value) in fields {
                write_value(text, "  ", name, value);
            }
        }
    }
}

/// A field in a line, or in lines where it has fields of its own.
fn write_value(text: &mut String, indent: &str, name: &str, value: &Value) {
    let _ = match value {
        Value::Object(fields) => {
            let _ = writeln!(text, "{indent}{name}:");
            for (name, value) in fields {
                write_value(text, &format!("{indent}  "), name, value);
            }
            Ok(())
        }
        Value::String(words) => writeln!(text, "{indent}{name}: {words}"),
        Value::Null => writeln!(text, "{indent}{name}: -"),
        other => writeln!(text, "{indent}{name}: {other}"),
    };
}

#[cfg(test)]
mod tests {
    use stillpoint_ese::{FindingKind, PageFault};

    use super::*;

    #[test]
    fn findings_have_one_word() {
        for (kind, expected) in [
            (FindingKind::SegmentBad, "segment_bad"),
            (FindingKind::SegmentCorrectable { bit: 7 }, "segment_correctable"),
            (FindingKind::Page(PageFault::Checksum), "checksum"),
            (FindingKind::Page(PageFault::WrongPage { actual: 3 }), "wrong_page"),
            (FindingKind::Page(PageFault::Correctable { bits: vec![1] }), "correctable"),
        ] {
            assert_eq!(word(&kind), expected);
        }
    }
}
