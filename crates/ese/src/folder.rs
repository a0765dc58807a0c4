//! Whole backup sets: every file of some folders, and what each database comes to with the logs
//! that lie beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    CheckpointHeader, DatabaseHeader, DatabaseState, EseError, FileCheck, FileKind, Findings,
    FlushMapFit, FlushMapHeader, GenerationRange, Health, JetError, LogMember, LogName, LogRole,
    PageSize, Progress, ScanOptions, SetReport, SetVerdict, Signature, StreamFinding,
    check::check_path_beside, check_stream, judge_set,
};

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// How it was found by itself.
    pub health: Health,
    /// Pages of a database, by what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<PageCounts>,
    /// What was found.
    pub findings: Findings,
    /// Why it could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Pages of a database, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PageCounts {
    /// All of them, headers not counted.
    pub total: u64,
    /// Never written.
    pub uninitialised: u64,
    /// Bad.
    pub bad: u64,
    /// Good after turning single bits back.
    pub correctable: u64,
}

/// Why a file could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The code of the error.
    pub code: &'static str,
    /// The error and what caused it.
    pub message: String,
    /// What a Windows tool would answer.
    pub jet: Option<JetError>,
}

impl Failure {
    fn of(error: &EseError) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self { code: error.code(), message, jet: error.jet() }
    }
}

/// Whether a checkpoint belongs to a database's log stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointFit {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it carries the signature of the stream; otherwise `JET_errBadCheckpointSignature`.
    pub fits: bool,
}

/// A database with what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckedDatabase {
    /// Where it lies.
    pub path: PathBuf,
    /// Size of its pages.
    pub page_size: PageSize,
    /// State it was left in.
    pub state: DatabaseState,
    /// Generations that it needs.
    pub required: Option<GenerationRange>,
    /// Whether it can be recovered with the logs that are there, and how far.
    pub set: SetReport,
    /// How the database and its set were found together.
    pub health: Health,
    /// Checkpoints in its folders that belong to its stream, or to none of the databases. A restore
    /// does without: it replays from the first log that is needed.
    pub checkpoints: Vec<CheckpointFit>,
    /// Whether its flush map, if there is one, is of use to it. The engine makes one anew otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_map: Option<FlushMapFit>,
}

/// Logs that no database of the set belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckedStream {
    /// Their signature.
    pub signature: Signature,
    /// Their generations, from the lowest to the highest.
    pub generations: Option<GenerationRange>,
    /// What is wrong between them.
    pub findings: Vec<StreamFinding>,
    /// Which of them are damaged.
    pub damaged: Vec<String>,
}

/// What a check of a whole set found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct SetCheck {
    /// Every file of the engine, and every file that was named, in the order of their paths.
    pub files: Vec<CheckedFile>,
    /// Every database.
    pub databases: Vec<CheckedDatabase>,
    /// Logs that belong to none of them.
    pub streams: Vec<CheckedStream>,
}

impl SetCheck {
    /// The gravest of all: of files, databases and streams.
    pub fn health(&self) -> Health {
        let files = self.files.iter().map(|file| file.health);
        let databases = self.databases.iter().map(|database| database.health);
        let streams = self.streams.iter().map(|stream| {
            if stream.findings.is_empty() && stream.damaged.is_empty() {
                Health::Good
            } else {
                Health::Bad
            }
        });
        // Nothing at all proves nothing.
        files.chain(databases).chain(streams).max().unwrap_or(Health::Unusable)
    }
}

/// Hears of the progress of a check: the file that is being read, and how far all of them are.
/// `Break` ends it with [`EseError::Stopped`].
pub trait SetObserver {
    /// Called after each part of a file, and once a file is done.
    fn progress(&mut self, file: &Path, progress: Progress) -> ControlFlow<()>;
}

impl SetObserver for () {
    fn progress(&mut self, _: &Path, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(&Path, Progress) -> ControlFlow<()>> SetObserver for F {
    fn progress(&mut self, file: &Path, progress: Progress) -> ControlFlow<()> {
        self(file, progress)
    }
}

/// Checks files and everything below folders as one set, judges each database with the logs of its
/// signature, and holds it against the flush map beside it, as
/// [`scan_mapped_database`](crate::scan_mapped_database) does. Links below a folder are not followed.
///
/// A file that cannot be read is in the result, as unusable. Files of somebody else are left out
/// unless they were named.
///
/// # Errors
/// [`EseError::Open`] when a folder cannot be listed, [`EseError::Stopped`] when the observer says
/// so.
///
/// # Complexity
/// One pass over the files; memory for each file's name and findings.
pub fn check_set<O: SetObserver + ?Sized>(
    paths: &[PathBuf],
    options: &ScanOptions,
    observer: &mut O,
) -> Result<SetCheck, EseError> {
    let mut files = BTreeMap::new();
    for path in paths {
        list(path, true, &mut files)?;
    }
    let maps: BTreeSet<PathBuf> =
        files.keys().filter(|path| path.extension().is_some_and(|e| e == "jfm")).cloned().collect();
    let total = files.values().map(|found| found.bytes).sum();
    let mut gathering = Gathering::default();
    let mut before = 0;
    for (path, found) in files {
        // One that cannot be opened is told of when its own turn comes.
        let map = maps.get(&path.with_extension("jfm")).and_then(|map| File::open(map).ok());
        let checked = check_path_beside(&path, map.as_ref(), options, &mut |progress: Progress| {
            observer.progress(&path, Progress { done: before + progress.done, total })
        });
        before += found.bytes;
        if let Err(EseError::Stopped) = checked {
            return Err(EseError::Stopped);
        }
        gathering.take(path, checked, found.is_named);
    }
    Ok(gathering.judge())
}

/// A file to be checked.
struct Listed {
    bytes: u64,
    is_named: bool,
}

fn list(path: &Path, is_named: bool, into: &mut BTreeMap<PathBuf, Listed>) -> Result<(), EseError> {
    let open = |source: io::Error| EseError::Open { source };
    // What was named may be a link; what lies below it may not lead out of it.
    let metadata = if is_named { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let kind = match &metadata {
        Ok(metadata) => metadata.file_type(),
        // It is told of as a file that cannot be opened.
        Err(_) if is_named => {
            into.insert(path.to_owned(), Listed { bytes: 0, is_named });
            return Ok(());
        }
        // It went away.
        Err(_) => return Ok(()),
    };
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(open)? {
            list(&entry.map_err(open)?.path(), false, into)?;
        }
    } else if kind.is_file() || is_named {
        let bytes = metadata.map_or(0, |metadata| metadata.len());
        into.entry(path.to_owned())
            .and_modify(|listed| listed.is_named |= is_named)
            .or_insert(Listed { bytes, is_named });
    }
    Ok(())
}

/// What is kept of the files until all have been read.
#[derive(Default)]
struct Gathering {
    files: Vec<CheckedFile>,
    databases: Vec<(PathBuf, DatabaseHeader, Health)>,
    logs: Vec<LogMember>,
    checkpoints: Vec<(PathBuf, CheckpointHeader)>,
    flush_maps: Vec<(PathBuf, FlushMapHeader)>,
}

impl Gathering {
    fn take(&mut self, path: PathBuf, checked: Result<FileCheck, EseError>, is_named: bool) {
        let mut file = CheckedFile {
            path,
            kind: FileKind::Other,
            health: Health::Unusable,
            pages: None,
            findings: Findings::default(),
            failure: None,
        };
        match checked {
            Err(error) => file.failure = Some(Failure::of(&error)),
            Ok(FileCheck::Other { file: kind }) => {
                if !is_named {
                    return;
                }
                file.kind = kind;
            }
            Ok(checked) => {
                file.kind = checked.kind();
                file.health = checked.health();
                file.findings = self.keep(&file.path, file.health, checked, &mut file.pages);
            }
        }
        self.files.push(file);
    }

    /// Keeps what the verdicts need; gives the findings.
    fn keep(
        &mut self,
        path: &Path,
        health: Health,
        checked: FileCheck,
        pages: &mut Option<PageCounts>,
    ) -> Findings {
        let path = path.to_owned();
        match checked {
            FileCheck::Database(report) => {
                *pages = Some(PageCounts {
                    total: report.pages,
                    uninitialised: report.uninitialised,
                    bad: report.bad,
                    correctable: report.correctable,
                });
                if let Some(header) = report.header {
                    let header = match &report.trailer {
                        Some(trailer) if header.in_streaming_backup() => {
                            header.with_trailer(trailer)
                        }
                        _ => header,
                    };
                    self.databases.push((path, header, health));
                }
                report.findings
            }
            FileCheck::Log(report) => {
                self.logs.extend(LogMember::from_report(path.to_string_lossy(), &report));
                report.findings
            }
            FileCheck::Checkpoint(report) => {
                self.checkpoints.extend(report.header.map(|header| (path, header)));
                report.findings
            }
            FileCheck::FlushMap(report) => {
                self.flush_maps.extend(report.header.map(|header| (path, header)));
                report.findings
            }
            FileCheck::Other { .. } => Findings::default(),
        }
    }

    fn judge(self) -> SetCheck {
        let mut streams: BTreeMap<[u8; 28], Vec<LogMember>> = BTreeMap::new();
        for log in self.logs {
            streams.entry(*log.signature.as_bytes()).or_default().push(log);
        }
        let known: BTreeSet<Signature> =
            self.databases.iter().map(|(_, header, _)| header.log_signature).collect();
        let mut out = SetCheck { files: self.files, ..SetCheck::default() };
        for (path, header, health) in self.databases {
            let key = header.log_signature.as_bytes();
            let logs = streams.get(key).map(Vec::as_slice).unwrap_or_default();
            let set = judge_set(&header, logs);
            let of_set = match &set.verdict {
                SetVerdict::NotRecoverable { .. } => Health::Bad,
                SetVerdict::RecoverableWithLoss { .. } => Health::Notable,
                _ => Health::Good,
            };
            let checkpoints = self
                .checkpoints
                .iter()
                .filter(|(_, checkpoint)| {
                    checkpoint.log_signature == header.log_signature
                        || !known.contains(&checkpoint.log_signature)
                })
                .map(|(path, checkpoint)| CheckpointFit {
                    path: path.clone(),
                    fits: checkpoint.log_signature == header.log_signature,
                })
                .collect();
            let map_of = path.with_extension("jfm");
            let flush_map = self
                .flush_maps
                .iter()
                .find(|(path, _)| *path == map_of)
                .map(|(_, map)| map.fit(&header));
            out.databases.push(CheckedDatabase {
                page_size: header.page_size,
                state: header.state,
                required: header.required(),
                health: health.max(of_set),
                path,
                set,
                checkpoints,
                flush_map,
            });
        }
        for (key, logs) in streams {
            let signature = Signature::from_bytes(key);
            if !known.contains(&signature) {
                out.streams.push(judge_stream(signature, &logs));
            }
        }
        out
    }
}

/// What the logs of one signature come to among themselves.
fn judge_stream(signature: Signature, logs: &[LogMember]) -> CheckedStream {
    let generations = || logs.iter().map(|log| log.generation);
    let range = generations().min().zip(generations().max());
    CheckedStream {
        signature,
        generations: range.and_then(|(first, last)| GenerationRange::new(first, last)),
        findings: check_stream(&signature, logs),
        damaged: logs.iter().filter(|log| log.is_damaged).map(|log| log.file.clone()).collect(),
    }
}

/// Checks the log stream of one base name in a folder, as `eseutil /ml BASE` does: every log by
/// itself, then the rules between them.
///
/// # Errors
/// As [`check_set`].
pub fn check_logs<O: SetObserver + ?Sized>(
    folder: &Path,
    base: &str,
    options: &ScanOptions,
    observer: &mut O,
) -> Result<SetCheck, EseError> {
    let open = |source: io::Error| EseError::Open { source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(open)? {
        let entry = entry.map_err(open)?;
        let name = entry.file_name();
        let is_log = LogName::parse(&name.to_string_lossy()).is_some_and(|name| {
            name.base.eq_ignore_ascii_case(base)
                && matches!(name.role, LogRole::Closed(_) | LogRole::Current)
        });
        if is_log {
            paths.push(entry.path());
        }
    }
    check_set(&paths, options, observer)
}
