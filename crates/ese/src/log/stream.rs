//! The rules that hold between the logs of one stream.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{LogBody, LogHeader, LogName, LogReport, LogRole};
use crate::{Generation, GenerationRange, JetError, LogTime, Signature};

/// One log of a stream, as far as the rules between logs need to know it.
///
/// Made from its header alone (what is there?) or from a scan (is it sound, too?).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogMember {
    /// What the caller calls the file; its last part is read as a [`LogName`].
    pub file: String,
    /// Generation by the header.
    pub generation: Generation,
    /// Signature of the stream.
    pub signature: Signature,
    /// When it was created.
    pub created: LogTime,
    /// When the previous generation was created.
    pub previous_created: LogTime,
    /// What the header says of the previous generation's body; 0 for nothing.
    pub previous_accumulated: u64,
    /// When the last of its data was first written, if it was scanned and says so.
    pub last_written: LogTime,
    /// The body, if it was scanned.
    pub body: Option<LogBody>,
    /// Whether the scan found damage.
    pub is_damaged: bool,
}

impl LogMember {
    /// A log of which only the header was read.
    pub fn from_header(file: impl Into<String>, header: &LogHeader) -> Self {
        Self {
            file: file.into(),
            generation: header.generation,
            signature: header.signature,
            created: header.created,
            previous_created: header.previous_created,
            previous_accumulated: header.previous_accumulated,
            last_written: LogTime::default(),
            body: None,
            is_damaged: false,
        }
    }

    /// A log that was scanned; `None` when it has no usable header.
    pub fn from_report(file: impl Into<String>, report: &LogReport) -> Option<Self> {
        let header = report.header.as_ref()?;
        Some(Self {
            last_written: match report.body {
                LogBody::Checked { last_written, .. } => last_written,
                LogBody::NotChecked => LogTime::default(),
            },
            body: Some(report.body),
            is_damaged: !report.findings.is_usable(),
            ..Self::from_header(file, header)
        })
    }

    /// What its name says it is for.
    pub fn role(&self) -> Option<LogRole> {
        let name = self.file.rsplit(['/', '\\']).next().unwrap_or_default();
        LogName::parse(name).map(|name| name.role)
    }

    /// Of several files of one generation, recovery reads the one that ranks lowest: sound before
    /// damaged, rightly named before wrongly, closed before any other; the name decides between
    /// equals.
    fn rank(&self) -> (bool, bool, bool, &str) {
        let role = self.role();
        let is_closed = matches!(role, Some(LogRole::Closed(_)));
        let is_misnamed = matches!(role, Some(LogRole::Closed(named)) if named != self.generation);
        (self.is_damaged, is_misnamed, !is_closed, &self.file)
    }

    /// The newest time that is known to be in it: of its last data if that was looked at, else of
    /// its creation.
    pub fn newest(&self) -> LogTime {
        if self.last_written.is_set() { self.last_written } else { self.created }
    }

    fn accumulated(&self) -> Option<u64> {
        match self.body {
            Some(LogBody::Checked { accumulated, .. }) => accumulated,
            _ => None,
        }
    }
}

/// What is wrong between logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamFindingKind {
    /// The name says another generation than the header.
    NameMismatch {
        /// Generation by the name.
        named: Generation,
    },
    /// Another file of the same generation is the one that recovery would read.
    Duplicate {
        /// That file.
        other: String,
    },
    /// Generations before this one are missing.
    Gap {
        /// Which.
        missing: GenerationRange,
    },
    /// The previous log was created at another time than this header says: another history.
    SequenceBroken,
    /// The log belongs to another stream.
    ForeignSignature,
    /// The previous log's body is not what this header says it was.
    AccumulatedMismatch,
    /// A closed log needs its shadow: it was not closed in order.
    TornWhileClosed,
    /// The current log does not have the highest generation.
    CurrentNotHighest,
}

/// Something wrong between the logs of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamFinding {
    /// The file that shows it.
    pub file: String,
    /// Its generation.
    pub generation: Generation,
    /// What is wrong.
    pub kind: StreamFindingKind,
    /// The engine's error for it.
    pub jet: JetError,
}

impl fmt::Display for StreamFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (generation {}): ", self.file, self.generation)?;
        match &self.kind {
            StreamFindingKind::NameMismatch { named } => {
                write!(f, "named as generation {named}")
            }
            StreamFindingKind::Duplicate { other } => write!(f, "same generation as {other}"),
            StreamFindingKind::Gap { missing } => write!(f, "missing before it: {missing}"),
            StreamFindingKind::SequenceBroken => {
                f.write_str("the log before it belongs to another history")
            }
            StreamFindingKind::ForeignSignature => f.write_str("belongs to another stream"),
            StreamFindingKind::AccumulatedMismatch => {
                f.write_str("the log before it has another content than it had")
            }
            StreamFindingKind::TornWhileClosed => f.write_str("closed, but its end is torn"),
            StreamFindingKind::CurrentNotHighest => {
                f.write_str("the current log is not the highest")
            }
        }?;
        write!(f, ", {}", self.jet)
    }
}

/// The one log of each generation that replay would read.
pub(crate) type Chain<'a> = BTreeMap<Generation, &'a LogMember>;

/// Chooses the log of each generation.
pub(crate) fn choose<'a>(signature: &Signature, logs: &'a [LogMember]) -> Chain<'a> {
    let mut chain = Chain::new();
    for log in logs.iter().filter(|log| log.signature == *signature) {
        chain
            .entry(log.generation)
            .and_modify(|chosen| {
                if log.rank() < chosen.rank() {
                    *chosen = log;
                }
            })
            .or_insert(log);
    }
    chain
}

/// Checks the rules between the logs of one stream. The order of `logs` does not matter.
///
/// Which signature is the stream's own is the caller's word; logs of another are named and left
/// out of the chain. Of several files of one generation one is in the chain, and the others are
/// told as its duplicates. Logs below or beyond what a database needs are checked as well.
///
/// # Complexity
/// Sorting.
pub fn check_stream(signature: &Signature, logs: &[LogMember]) -> Vec<StreamFinding> {
    let mut findings = Vec::new();
    let mut push = |log: &LogMember, kind, jet| {
        findings.push(StreamFinding {
            file: log.file.clone(),
            generation: log.generation,
            kind,
            jet,
        });
    };
    let mut all: Vec<&LogMember> = logs.iter().collect();
    all.sort_by(|one, other| (one.generation, &one.file).cmp(&(other.generation, &other.file)));
    let mut own: Vec<&LogMember> = Vec::with_capacity(logs.len());
    for log in all {
        if log.signature == *signature {
            own.push(log);
        } else {
            push(log, StreamFindingKind::ForeignSignature, JetError::BAD_LOG_SIGNATURE);
        }
    }
    let highest = own.last().map(|log| log.generation);
    let chain = choose(signature, logs);
    let mut previous: Option<&LogMember> = None;
    for log in own {
        let role = log.role();
        if let Some(LogRole::Closed(named)) = role
            && named != log.generation
        {
            let kind = StreamFindingKind::NameMismatch { named };
            push(log, kind, JetError::LOG_GENERATION_MISMATCH);
        }
        if role == Some(LogRole::Current) && Some(log.generation) != highest {
            push(log, StreamFindingKind::CurrentNotHighest, JetError::LOG_GENERATION_MISMATCH);
        }
        let is_torn = matches!(log.body, Some(LogBody::Checked { is_torn: true, .. }));
        if is_torn && matches!(role, Some(LogRole::Closed(_))) {
            push(log, StreamFindingKind::TornWhileClosed, JetError::LOG_FILE_CORRUPT);
        }
        match chain.get(&log.generation) {
            Some(chosen) if !std::ptr::eq(*chosen, log) => {
                let kind = StreamFindingKind::Duplicate { other: chosen.file.clone() };
                push(log, kind, JetError::LOG_GENERATION_MISMATCH);
            }
            _ => {
                if let Some(previous) = previous.replace(log) {
                    follow(previous, log, &mut push);
                }
            }
        }
    }
    findings
}

/// Checks that a log follows on the one before it in the chain.
fn follow(
    previous: &LogMember,
    log: &LogMember,
    push: &mut impl FnMut(&LogMember, StreamFindingKind, JetError),
) {
    if previous.generation.next() != log.generation {
        let last = Generation::new(log.generation.number().saturating_sub(1));
        if let Some(missing) = GenerationRange::new(previous.generation.next(), last) {
            push(log, StreamFindingKind::Gap { missing }, JetError::MISSING_LOG_FILE);
        }
        return;
    }
    if previous.created != log.previous_created {
        push(log, StreamFindingKind::SequenceBroken, JetError::INVALID_LOG_SEQUENCE);
    }
    let differs = previous
        .accumulated()
        .is_some_and(|sum| log.previous_accumulated != 0 && sum != log.previous_accumulated);
    if differs {
        let jet = JetError::LOG_SEQUENCE_CHECKSUM_MISMATCH;
        push(log, StreamFindingKind::AccumulatedMismatch, jet);
    }
}
