//! The verdict on a backup set: can this database be made consistent with these logs?
//!
//! ```text
//! generation   min required … max required … max committed … newest
//!              └ needed for consistency ┘ └ needed for no loss ┘ └ roll forward
//! ```

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    DatabaseHeader, DatabaseState, Generation, GenerationRange, JetError, LogMember, LogTime,
    StreamFinding, StreamFindingKind, check_stream,
    log::{Chain, choose},
};

/// The answer an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SetVerdict {
    /// Consistent as it is; no log is needed.
    Clean,
    /// Every log that is needed is there.
    Recoverable {
        /// Generations needed for consistency.
        required: GenerationRange,
        /// Last generation with committed work; present as well.
        committed: Generation,
    },
    /// Recoverable to consistency, but committed work is lost
    /// (`JET_errCommittedLogFilesMissing`).
    RecoverableWithLoss {
        /// Generations needed for consistency; all present.
        required: GenerationRange,
        /// Committed generations that are missing or unusable.
        missing: Vec<GenerationRange>,
        /// Why each is unusable.
        reasons: Vec<Reason>,
    },
    /// Not recoverable with these logs.
    NotRecoverable {
        /// Required generations that are missing or unusable.
        missing: Vec<GenerationRange>,
        /// Why; never empty.
        reasons: Vec<Reason>,
    },
}

impl SetVerdict {
    /// Whether the database can be made consistent, with or without loss.
    pub fn is_recoverable(&self) -> bool {
        !matches!(self, Self::NotRecoverable { .. })
    }

    /// Whether it can be made consistent without losing committed work.
    pub fn is_lossless(&self) -> bool {
        matches!(self, Self::Clean | Self::Recoverable { .. })
    }
}

/// Why a set is not recoverable, or not without loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The state of the database forbids its use.
    State {
        /// The state.
        state: DatabaseState,
    },
    /// The database is dirty but names no sensible range of logs.
    RequiredUnknown,
    /// Required logs are missing.
    RequiredMissing {
        /// Which generations.
        missing: GenerationRange,
    },
    /// Committed logs are missing.
    CommittedMissing {
        /// Which generations.
        missing: GenerationRange,
    },
    /// A needed log is damaged.
    LogDamaged {
        /// The file.
        file: String,
        /// Its generation.
        generation: Generation,
    },
    /// A needed log breaks a rule of the stream.
    Stream(StreamFinding),
    /// A needed log was not created when the database says it was: another history.
    CreationMismatch {
        /// The file.
        file: String,
        /// Its generation.
        generation: Generation,
        /// When the database says it was created.
        expected: LogTime,
        /// When the log says it was created.
        found: LogTime,
    },
}

impl Reason {
    /// The engine's error for it.
    pub fn jet(&self) -> JetError {
        match self {
            Self::State { .. } | Self::RequiredUnknown => JetError::DATABASE_DIRTY_SHUTDOWN,
            Self::RequiredMissing { .. } => JetError::REQUIRED_LOG_FILES_MISSING,
            Self::CommittedMissing { .. } => JetError::COMMITTED_LOG_FILES_MISSING,
            Self::LogDamaged { .. } => JetError::LOG_FILE_CORRUPT,
            Self::Stream(finding) => finding.jet,
            Self::CreationMismatch { .. } => JetError::INVALID_LOG_SEQUENCE,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { state } => write!(f, "its state is {state}"),
            Self::RequiredUnknown => f.write_str("it is dirty and names no sensible log range"),
            Self::RequiredMissing { missing } => {
                write!(f, "required log generations {missing} are missing")
            }
            Self::CommittedMissing { missing } => {
                write!(f, "committed log generations {missing} are missing")
            }
            Self::LogDamaged { file, generation } => {
                write!(f, "{file} (generation {generation}) is damaged")
            }
            Self::Stream(finding) => return finding.fmt(f),
            Self::CreationMismatch { file, generation, expected, found } => write!(
                f,
                "{file} (generation {generation}) was created {found}, the database expects \
                 {expected}"
            ),
        }?;
        write!(f, ", {}", self.jet())
    }
}

/// How far a set can be rolled forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RollForward {
    /// Highest generation that can be replayed.
    pub generation: Generation,
    /// The newest time that is known to be in the set: when the last data of that log was written
    /// if it was scanned, else when it was created; of a clean database without logs, when it was
    /// shut down.
    pub time: LogTime,
    /// Missing or unusable generations that cut the roll-forward short of later logs that are
    /// there.
    pub cut_by: Option<GenerationRange>,
}

/// The verdict with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SetReport {
    /// The answer.
    pub verdict: SetVerdict,
    /// How far the set can be rolled forward; `None` when it is not recoverable.
    pub rolls_forward_to: Option<RollForward>,
    /// Files of the logs that replay would read, lowest generation first.
    pub needed: Vec<String>,
    /// Everything that is wrong between the logs, needed or not.
    pub stream: Vec<StreamFinding>,
}

/// Judges a database with the logs that lie beside it. Logs of which only the header was read
/// count as sound: give scanned ones for a verdict on their content.
///
/// The absence of the current log (`E00.log`) is no fault by itself: the freeze of a VSS backup
/// closes it. A log is matched by its header's generation, not by its name.
///
/// # Complexity
/// Sorting the logs; missing generations are ranges, so a wild header costs nothing.
pub fn judge_set(database: &DatabaseHeader, logs: &[LogMember]) -> SetReport {
    let stream = check_stream(&database.log_signature, logs);
    let not_recoverable = |missing, reasons| SetVerdict::NotRecoverable { missing, reasons };
    let report =
        |verdict, stream| SetReport { verdict, rolls_forward_to: None, needed: Vec::new(), stream };
    let state = database.state;
    if state.is_clean() {
        return judge_clean(database, logs, stream);
    }
    if !state.needs_logs() {
        return report(not_recoverable(Vec::new(), vec![Reason::State { state }]), stream);
    }
    let Some(required) = database.required() else {
        return report(not_recoverable(Vec::new(), vec![Reason::RequiredUnknown]), stream);
    };
    let committed = database.committed();

    let chain = choose(&database.log_signature, logs);
    let faults = faults(database, required, &chain, &stream);
    let in_required =
        collect(required, &chain, &faults, |missing| Reason::RequiredMissing { missing });
    if !in_required.reasons.is_empty() {
        return report(not_recoverable(in_required.missing, in_required.reasons), stream);
    }
    let beyond = GenerationRange::new(required.last().next(), committed);
    let in_committed = beyond.map(|range| {
        collect(range, &chain, &faults, |missing| Reason::CommittedMissing { missing })
    });
    let verdict = match in_committed {
        Some(lost) if !lost.reasons.is_empty() => SetVerdict::RecoverableWithLoss {
            required,
            missing: lost.missing,
            reasons: lost.reasons,
        },
        _ => SetVerdict::Recoverable { required, committed },
    };
    let (rolls_forward_to, needed) = roll_forward(required.first(), &chain, &faults);
    SetReport { verdict, rolls_forward_to, needed, stream }
}

/// A clean database needs nothing, and can be rolled forward from the log it was shut down in.
fn judge_clean(
    database: &DatabaseHeader,
    logs: &[LogMember],
    stream: Vec<StreamFinding>,
) -> SetReport {
    let from = database.consistent.generation;
    let chain = choose(&database.log_signature, logs);
    let mut faults = Faults::new();
    find_faults(from, &chain, &stream, &mut faults);
    let own = RollForward { generation: from, time: database.consistent_time, cut_by: None };
    let rolls_forward_to = match roll_forward(from, &chain, &faults) {
        (Some(reached), _) if reached.time.unix_millis() >= own.time.unix_millis() => reached,
        // The log is older than the shutdown that it ends with.
        (Some(reached), _) => RollForward { time: own.time, ..reached },
        // No log goes on from where it was shut down.
        (None, _) => {
            let next = chain.range(from.next()..).next().map(|(&generation, _)| generation);
            let before = next.map(|next| Generation::new(next.number().saturating_sub(1)));
            RollForward {
                cut_by: before.and_then(|before| GenerationRange::new(from, before)),
                ..own
            }
        }
    };
    SetReport {
        verdict: SetVerdict::Clean,
        rolls_forward_to: Some(rolls_forward_to),
        needed: Vec::new(),
        stream,
    }
}

/// What makes a log that is there unusable, by generation.
type Faults = BTreeMap<Generation, Reason>;

/// Finds what is wrong with logs by themselves and among each other. What lies before `first` does
/// not concern the database.
fn find_faults(
    first: Generation,
    chain: &Chain<'_>,
    stream: &[StreamFinding],
    faults: &mut Faults,
) {
    for (&generation, log) in chain {
        if log.is_damaged {
            let reason = Reason::LogDamaged { file: log.file.clone(), generation };
            faults.insert(generation, reason);
        }
    }
    for finding in stream {
        let is_of_chosen =
            chain.get(&finding.generation).is_some_and(|log| log.file == finding.file);
        let generation = match finding.kind {
            StreamFindingKind::NameMismatch { .. } | StreamFindingKind::TornWhileClosed
                if is_of_chosen =>
            {
                finding.generation
            }
            StreamFindingKind::SequenceBroken if is_of_chosen && finding.generation > first => {
                finding.generation
            }
            // A body that is not what its successor remembers spoils that body's log.
            StreamFindingKind::AccumulatedMismatch => {
                Generation::new(finding.generation.number().saturating_sub(1))
            }
            _ => continue,
        };
        faults.entry(generation).or_insert_with(|| Reason::Stream(finding.clone()));
    }
}

fn faults(
    database: &DatabaseHeader,
    required: GenerationRange,
    chain: &Chain<'_>,
    stream: &[StreamFinding],
) -> Faults {
    let mut faults = Faults::new();
    find_faults(required.first(), chain, stream, &mut faults);
    let mut check_created = |generation: Generation, expected: &[LogTime]| {
        let expected: Vec<LogTime> =
            expected.iter().copied().filter(|time| time.is_set()).collect();
        if let (Some(log), Some(&first)) = (chain.get(&generation), expected.first())
            && !expected.contains(&log.created)
        {
            faults.entry(generation).or_insert_with(|| Reason::CreationMismatch {
                file: log.file.clone(),
                generation,
                expected: first,
                found: log.created,
            });
        }
    };
    check_created(database.max_required, &[database.max_required_created]);
    // Older engines kept the time of the last required generation in this field; it binds the last
    // committed one only when it is not that.
    let committed = database.committed();
    let is_of_required = chain
        .get(&database.max_required)
        .is_some_and(|log| log.created == database.max_committed_created);
    if !is_of_required {
        check_created(committed, &[database.max_committed_created]);
    }
    faults
}

#[derive(Default)]
struct Lacking {
    missing: Vec<GenerationRange>,
    reasons: Vec<Reason>,
}

/// What a range of generations lacks: missing ones as ranges, and unusable ones.
fn collect(
    range: GenerationRange,
    chain: &Chain<'_>,
    faults: &Faults,
    absent: impl Fn(GenerationRange) -> Reason,
) -> Lacking {
    let mut out = Lacking::default();
    let mut expected = range.first();
    let note_gap = |out: &mut Lacking, from: Generation, to: u32| {
        if let Some(missing) = GenerationRange::new(from, Generation::new(to)) {
            out.missing.push(missing);
            out.reasons.push(absent(missing));
        }
    };
    for &generation in chain.range(range.first()..=range.last()).map(|(generation, _)| generation) {
        note_gap(&mut out, expected, generation.number().saturating_sub(1));
        expected = generation.next();
        if let Some(reason) = faults.get(&generation) {
            out.missing.extend(GenerationRange::new(generation, generation));
            out.reasons.push(reason.clone());
        }
    }
    note_gap(&mut out, expected, range.last().number());
    out
}

fn roll_forward(
    first: Generation,
    chain: &Chain<'_>,
    faults: &Faults,
) -> (Option<RollForward>, Vec<String>) {
    let mut last = None;
    let mut needed = Vec::new();
    let mut expected = first;
    let mut cut_by = None;
    for (&generation, log) in chain.range(first..) {
        if generation != expected || faults.contains_key(&generation) {
            let before = Generation::new(generation.number().saturating_sub(1));
            cut_by = GenerationRange::new(expected, before.max(expected));
            break;
        }
        needed.push(log.file.clone());
        last = Some((generation, log.newest()));
        expected = generation.next();
    }
    let roll_forward = last.map(|(generation, time)| RollForward { generation, time, cut_by });
    (roll_forward, needed)
}
