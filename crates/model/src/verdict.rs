//! What verification found, copy by copy.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::CopyId;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A stored checksum does not fit the bytes.
    Checksum,
    /// A page bears the number of another.
    PageNumber,
    /// A file header cannot be used.
    Header,
    /// A page's or a file's content contradicts itself.
    Structure,
    /// A file is shorter than it says.
    Truncated,
    /// A file is missing.
    Missing,
    /// A log generation that recovery needs is missing.
    LogGap,
    /// A log or checkpoint belongs to another stream.
    Signature,
    /// Bytes are not those that were sealed when they were stored.
    Seal,
    /// A file cannot be read.
    Unreadable,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The file, by its path inside the restore point.
    pub file: String,
    /// The page of a database, or the segment (4 KiB, the header is 0) of a log, if it is one.
    pub page: Option<u64>,
    /// Where in the file it is, in bytes.
    pub offset: Option<u64>,
    /// What it is about.
    pub kind: FindingKind,
    /// The number that ESE gives it, e.g. -1018.
    pub jet_error: Option<i32>,
    /// One sentence for people.
    pub message: String,
}

impl Finding {
    /// A finding about a whole file.
    pub fn new(file: impl Into<String>, kind: FindingKind, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            page: None,
            offset: None,
            kind,
            jet_error: None,
            message: message.into(),
        }
    }

    /// The same at a page.
    pub fn at_page(mut self, page: u64) -> Self {
        self.page = Some(page);
        self
    }

    /// The same at an offset in bytes.
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The same with ESE's number.
    pub fn with_jet_error(mut self, number: i32) -> Self {
        self.jet_error = Some(number);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(page) = self.page {
            write!(f, ", page {page}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset:#x}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(number) = self.jet_error {
            write!(f, " (JET {number})")?;
        }
        Ok(())
    }
}

/// What is to be thought of one copy in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It was checked and nothing is wrong. Only this may lead to truncation where the policy asks
    /// for verification first.
    Good,
    /// Something is wrong.
    Bad {
        /// What, in one sentence.
        reason: String,
        /// In detail; may be capped, never empty for damage that was seen.
        findings: Vec<Finding>,
    },
    /// It was not checked.
    Unverified {
        /// Why not, e.g. the policy does not ask for it.
        reason: String,
    },
}

impl Verdict {
    /// A bad verdict over what was found.
    pub fn bad(findings: Vec<Finding>) -> Self {
        let reason = match findings.as_slice() {
            [] => "it is damaged".to_owned(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        Self::Bad { reason, findings }
    }

    /// `true` only for [`Verdict::Good`].
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Good)
    }

    /// `true` for [`Verdict::Bad`].
    pub const fn is_bad(&self) -> bool {
        matches!(self, Self::Bad { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Bad { reason, .. } => write!(f, "bad: {reason}"),
            Self::Unverified { reason } => write!(f, "unverified: {reason}"),
        }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checked {
    /// Files read.
    pub files: u64,
    /// Database pages read.
    pub pages: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// The verdict over one copy and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyReport {
    /// The verdict.
    pub verdict: Verdict,
    /// How much was looked at.
    pub checked: Checked,
    /// Things worth telling that are not wrong, e.g. a page whose checksum was corrected.
    pub notes: Vec<String>,
}

impl CopyReport {
    /// A report of this verdict.
    pub fn new(verdict: Verdict) -> Self {
        Self { verdict, checked: Checked::default(), notes: Vec::new() }
    }
}

/// What one verification found: a verdict for each copy. That a database is bad is an answer, not
/// a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Copy by copy.
    pub copies: BTreeMap<CopyId, CopyReport>,
}

impl VerifyReport {
    /// A report about nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the report of one copy.
    pub fn insert(&mut self, copy: CopyId, report: CopyReport) -> &mut Self {
        self.copies.insert(copy, report);
        self
    }

    /// The verdict over `copy`; what was not reported is unverified.
    pub fn verdict(&self, copy: &CopyId) -> Verdict {
        self.copies.get(copy).map_or_else(
            || Verdict::Unverified { reason: "the verification did not report on it".to_owned() },
            |report| report.verdict.clone(),
        )
    }
}
