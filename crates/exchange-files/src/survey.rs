//! What lies under the folder: databases by their headers, each with its log stream and checkpoint.
//!
//! ```text
//!   walk ─▶ sniff every file ─▶ databases ─┐
//!                              logs by signature, folder and base name ─┤ pair ─▶ judge ─▶ reasons
//!                              checkpoints by signature and folder ─────┘
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use stillpoint_context::{Cx, HostPath};
use stillpoint_ese::{
    CheckpointHeader, DatabaseHeader, EseError, FileKind, LogHeader, LogMember, LogName, LogRole,
    SetVerdict, judge_set, read_checkpoint, read_database_header, read_log_header,
};
use stillpoint_exchange::{PluginError, PluginErrorKind, PluginResult};
use stillpoint_model::{
    availability::Reason,
    id::{CopyId, DatabaseId},
    inventory::{FileRole, Generation, LogSignature, LogState},
};

use crate::{
    plugin::Place,
    walk::{Entry, interrupted, open, walk},
};

type Ranges = Vec<std::ops::RangeInclusive<Generation>>;

/// A file that belongs to a database.
#[derive(Debug, Clone)]
pub(crate) struct FoundFile {
    pub(crate) native: PathBuf,
    pub(crate) path: HostPath,
    pub(crate) role: FileRole,
    pub(crate) bytes: u64,
    pub(crate) generation: Option<Generation>,
    /// The log being written, whose header does not change as it grows.
    pub(crate) is_open_log: bool,
}

/// A database with everything that belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: DatabaseId,
    pub(crate) name: String,
    native: PathBuf,
    pub(crate) header: Option<DatabaseHeader>,
    /// The database first, then its logs, lowest generation first, then the checkpoint.
    pub(crate) files: Vec<FoundFile>,
    pub(crate) log_folder: Option<HostPath>,
    pub(crate) log_prefix: Option<String>,
    pub(crate) log_state: Option<LogState>,
    pub(crate) is_circular: bool,
    pub(crate) reasons: Vec<Reason>,
}

struct Log {
    native: PathBuf,
    name: Option<LogName>,
    bytes: u64,
    header: LogHeader,
}

/// The logs of one signature, folder and base name.
struct Stream<'a> {
    folder: &'a Path,
    base: &'a str,
    logs: Vec<&'a Log>,
}

struct Checkpoint {
    native: PathBuf,
    bytes: u64,
    header: CheckpointHeader,
}

/// A file that should be of use but is not.
struct Spoiled {
    native: PathBuf,
    problem: Problem,
}

#[derive(Clone)]
enum Problem {
    Unreadable(String),
    Damaged(String),
}

impl Problem {
    fn reason(&self, file: HostPath) -> Reason {
        match self.clone() {
            Self::Unreadable(message) => Reason::Unreadable { file, message },
            Self::Damaged(message) => Reason::Damaged { file, message },
        }
    }
}

#[derive(Default)]
struct Finds {
    databases: Vec<(PathBuf, u64, DatabaseHeader)>,
    logs: Vec<Log>,
    checkpoints: Vec<Checkpoint>,
    /// Databases that cannot be used, and folders that cannot be listed.
    spoiled: Vec<Spoiled>,
    /// Files named as logs that cannot be used; told only where a log is missing.
    spoiled_logs: Vec<Spoiled>,
}

/// Looks at everything under the place. Reads headers only.
///
/// # Errors
/// When the folder itself cannot be listed, or the call is interrupted.
pub(crate) fn survey(cx: &Cx, place: &Place) -> PluginResult<Vec<Found>> {
    let entries = walk(cx, place.root(), place.excluded())?;
    let mut finds = Finds::default();
    for entry in entries {
        match entry {
            Entry::File(path) => {
                cx.check().map_err(interrupted)?;
                finds.examine(path);
            }
            Entry::Unreadable(native, error) => {
                let problem = Problem::Unreadable(error.to_string());
                finds.spoiled.push(Spoiled { native, problem });
            }
        }
    }
    let mut found: Vec<Found> = finds
        .databases
        .iter()
        .map(|(native, bytes, header)| finds.pair(place, native, *bytes, header))
        .collect::<PluginResult<_>>()?;
    for spoiled in &finds.spoiled {
        found.push(spoiled.as_database(place)?);
    }
    name_all(place, &mut found);
    Ok(found)
}

impl Finds {
    fn examine(&mut self, native: PathBuf) {
        let classified = classify(&native);
        // Paths travel as text; what has none cannot be backed up, but must not go unseen.
        let classified = match classified {
            Ok(Some(kind)) if native.to_str().is_none() => Err((
                Some(kind.kind()),
                Problem::Unreadable("its path is not Unicode text".to_owned()),
            )),
            other => other,
        };
        match classified {
            Ok(Some(Kind::Database(bytes, header))) => {
                self.databases.push((native, bytes, *header));
            }
            Ok(Some(Kind::Log(bytes, header))) => {
                let name = native.file_name().and_then(|name| LogName::parse(name.to_str()?));
                self.logs.push(Log { name, native, bytes, header: *header });
            }
            Ok(Some(Kind::Checkpoint(bytes, header))) => {
                self.checkpoints.push(Checkpoint { native, bytes, header: *header });
            }
            Ok(None) => {}
            Err((kind, problem)) => {
                let is_log = log_name(&native)
                    .is_some_and(|name| matches!(name.role, LogRole::Closed(_) | LogRole::Current));
                // Only what says that it is a database, by content or else by name, is worth an
                // entry; the name alone never makes one that can be backed up.
                let is_database = kind == Some(FileKind::Database) || has_database_name(&native);
                if is_database {
                    self.spoiled.push(Spoiled { native, problem });
                } else if is_log || kind == Some(FileKind::Log) {
                    self.spoiled_logs.push(Spoiled { native, problem });
                }
            }
        }
    }

    /// Gives a database its logs and checkpoint, and judges whether it can be recovered.
    fn pair(
        &self,
        place: &Place,
        native: &Path,
        bytes: u64,
        header: &DatabaseHeader,
    ) -> PluginResult<Found> {
        let id = place.database_id(native, Some(header.signature.as_bytes()));
        let mut files = vec![FoundFile {
            native: native.to_path_buf(),
            path: place.host_path(native)?,
            role: FileRole::Database,
            bytes,
            generation: None,
            is_open_log: false,
        }];
        let mut found = Found {
            id,
            name: String::new(),
            native: native.to_path_buf(),
            header: Some(header.clone()),
            files: Vec::new(),
            log_folder: None,
            log_prefix: None,
            log_state: None,
            is_circular: false,
            reasons: Vec::new(),
        };
        let mut nearest = self.nearest_streams(native, header);
        let stream = if nearest.len() > 1 { None } else { nearest.pop() };
        if let Some(stream) = &stream {
            for log in &stream.logs {
                files.push(FoundFile {
                    native: log.native.clone(),
                    path: place.host_path(&log.native)?,
                    role: FileRole::Log,
                    bytes: log.bytes,
                    generation: Some(Generation(log.header.generation.number())),
                    is_open_log: role(log) == Some(LogRole::Current),
                });
            }
            found.log_folder = Some(place.host_path(stream.folder)?);
            found.log_prefix = Some(stream.base.to_owned()).filter(|base| !base.is_empty());
            found.is_circular = stream.logs.last().is_some_and(|log| log.header.is_circular);
            if let Some(checkpoint) = self.checkpoint_of(stream, header) {
                files.push(FoundFile {
                    native: checkpoint.native.clone(),
                    path: place.host_path(&checkpoint.native)?,
                    role: FileRole::Checkpoint,
                    bytes: checkpoint.bytes,
                    generation: None,
                    is_open_log: false,
                });
            }
        }
        found.log_state = Some(log_state(header, stream.as_ref()));
        found.files = files;
        found.reasons = if nearest.is_empty() {
            self.judge(place, native, header, stream.as_ref())?
        } else if header.state.is_clean() {
            // It needs no log, so it does not matter which are its own.
            Vec::new()
        } else {
            vec![Reason::Ambiguous {
                others: self.clones(place, native, header),
                message: format!("{} log streams of its signature lie equally near", nearest.len()),
            }]
        };
        Ok(found)
    }

    /// The log streams that may be the database's own: those of its signature that lie nearest, unless a clone of the
    /// database lies nearer to them.
    fn nearest_streams<'a>(&'a self, native: &Path, header: &DatabaseHeader) -> Vec<Stream<'a>> {
        let mut streams: BTreeMap<(&Path, &str), Vec<&Log>> = BTreeMap::new();
        let mut unnamed: BTreeMap<&Path, Vec<&Log>> = BTreeMap::new();
        for log in self.logs.iter().filter(|log| log.header.signature == header.log_signature) {
            let folder = folder_of(&log.native);
            match &log.name {
                Some(name) if matches!(name.role, LogRole::Closed(_) | LogRole::Current) => {
                    streams.entry((folder, name.base.as_str())).or_default().push(log);
                }
                Some(_) => {}
                None => unnamed.entry(folder).or_default().push(log),
            }
        }
        // Renamed logs count only where no log kept its name: beside a stream they are leftovers.
        let named: BTreeSet<&Path> = streams.keys().map(|(folder, _)| *folder).collect();
        for (folder, logs) in unnamed {
            if !named.contains(folder) {
                streams.insert((folder, ""), logs);
            }
        }
        let home = folder_of(native);
        let is_of_clone = |folder: &Path| {
            self.databases.iter().any(|(other, _, theirs)| {
                other != native
                    && theirs.signature == header.signature
                    && nearness(folder_of(other), folder) < nearness(home, folder)
            })
        };
        let mut best = None;
        let mut nearest = Vec::new();
        for ((folder, base), mut logs) in streams {
            if is_of_clone(folder) {
                continue;
            }
            let near = nearness(home, folder);
            if best.is_none_or(|best| near < best) {
                best = Some(near);
                nearest.clear();
            }
            if best == Some(near) {
                logs.sort_by_key(|log| {
                    (log.header.generation, role(log) == Some(LogRole::Current))
                });
                nearest.push(Stream { folder, base, logs });
            }
        }
        nearest
    }

    fn checkpoint_of(&self, stream: &Stream<'_>, header: &DatabaseHeader) -> Option<&Checkpoint> {
        let mut all: Vec<&Checkpoint> = self
            .checkpoints
            .iter()
            .filter(|checkpoint| {
                checkpoint.header.log_signature == header.log_signature
                    && folder_of(&checkpoint.native) == stream.folder
            })
            .collect();
        let has_base = |checkpoint: &&Checkpoint| {
            log_name(&checkpoint.native).is_some_and(|name| name.base == stream.base)
        };
        all.sort_by_key(|checkpoint| !has_base(checkpoint));
        all.first().copied()
    }

    fn clones(&self, place: &Place, native: &Path, header: &DatabaseHeader) -> Vec<CopyId> {
        self.databases
            .iter()
            .filter(|(other, _, theirs)| other != native && theirs.signature == header.signature)
            .map(|(other, _, theirs)| {
                place.copy_id(place.database_id(other, Some(theirs.signature.as_bytes())))
            })
            .collect()
    }

    fn judge(
        &self,
        place: &Place,
        native: &Path,
        header: &DatabaseHeader,
        stream: Option<&Stream<'_>>,
    ) -> PluginResult<Vec<Reason>> {
        let members: Vec<LogMember> = stream
            .map(|stream| stream.logs.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|log| LogMember::from_header(log.native.to_string_lossy(), &log.header))
            .collect();
        let (missing, reasons) = match judge_set(header, &members).verdict {
            SetVerdict::NotRecoverable { missing, reasons } => (missing, reasons),
            SetVerdict::RecoverableWithLoss { reasons, .. } => {
                for reason in reasons {
                    tracing::warn!(database = %native.display(), %reason, "work is lost");
                }
                return Ok(Vec::new());
            }
            _ => return Ok(Vec::new()),
        };
        let mut out = vec![Reason::NotRecoverable { missing: ranges(&missing) }];
        // What is there under the name of a missing log, but of no use, explains why it is missing.
        for spoiled in &self.spoiled_logs {
            let is_of_stream =
                stream.is_none_or(|stream| folder_of(&spoiled.native) == stream.folder);
            let is_missing = match log_name(&spoiled.native).map(|name| name.role) {
                Some(LogRole::Closed(generation)) => {
                    missing.iter().any(|range| range.contains(generation))
                }
                _ => true,
            };
            if is_of_stream && is_missing {
                out.push(spoiled.problem.reason(place.nearest_host_path(&spoiled.native)?));
            }
        }
        for reason in reasons {
            let file = match &reason {
                stillpoint_ese::Reason::LogDamaged { file, .. }
                | stillpoint_ese::Reason::CreationMismatch { file, .. } => file.clone(),
                stillpoint_ese::Reason::Stream(finding) => finding.file.clone(),
                _ => continue,
            };
            let file = place.host_path(Path::new(&file))?;
            out.push(Reason::Damaged { file, message: reason.to_string() });
        }
        Ok(out)
    }
}

impl Spoiled {
    /// An entry that says why there is no more to say.
    fn as_database(&self, place: &Place) -> PluginResult<Found> {
        // A folder that cannot be listed, or a path that is no text, is no file to name.
        let metadata = std::fs::symlink_metadata(&self.native).ok();
        let file = metadata.filter(std::fs::Metadata::is_file).and_then(|metadata| {
            Some(FoundFile {
                native: self.native.clone(),
                path: place.host_path(&self.native).ok()?,
                role: FileRole::Database,
                bytes: metadata.len(),
                generation: None,
                is_open_log: false,
            })
        });
        let path = place.nearest_host_path(&self.native)?;
        Ok(Found {
            id: place.database_id(&self.native, None),
            name: String::new(),
            native: self.native.clone(),
            header: None,
            files: file.into_iter().collect(),
            log_folder: None,
            log_prefix: None,
            log_state: None,
            is_circular: false,
            reasons: vec![self.problem.reason(path)],
        })
    }
}

enum Kind {
    Database(u64, Box<DatabaseHeader>),
    Log(u64, Box<LogHeader>),
    Checkpoint(u64, Box<CheckpointHeader>),
}

impl Kind {
    fn kind(&self) -> FileKind {
        match self {
            Self::Database(..) => FileKind::Database,
            Self::Log(..) => FileKind::Log,
            Self::Checkpoint(..) => FileKind::Checkpoint,
        }
    }
}

/// What a file is by its content; an error names what it seems to be, and why it is of no use.
fn classify(native: &Path) -> Result<Option<Kind>, (Option<FileKind>, Problem)> {
    let unreadable = |error: io::Error| (None, Problem::Unreadable(error.to_string()));
    let file = match open(native) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let bytes = file.metadata().map_err(unreadable)?.len();
    let fault = |kind: Option<FileKind>| {
        move |error: EseError| match error {
            EseError::Read { source, .. } => (kind, Problem::Unreadable(source.to_string())),
            other => (kind, Problem::Damaged(other.to_string())),
        }
    };
    let sniffed = FileKind::sniff(&file).map_err(fault(None))?;
    let fault = fault(Some(sniffed.kind));
    match sniffed.kind {
        FileKind::Database => {
            let header = read_database_header(&file).map_err(fault)?.header;
            Ok(Some(Kind::Database(bytes, Box::new(header))))
        }
        FileKind::Log => {
            let header = read_log_header(&file).map_err(fault)?;
            Ok(Some(Kind::Log(bytes, Box::new(header))))
        }
        FileKind::Checkpoint => {
            let header = read_checkpoint(&file).map_err(fault)?;
            Ok(Some(Kind::Checkpoint(bytes, Box::new(header))))
        }
        FileKind::Other if has_database_name(native) => {
            let message =
                if bytes == 0 { "it is empty" } else { "it is no database by its content" };
            Err((None, Problem::Damaged(message.to_owned())))
        }
        FileKind::Other if log_name(native).is_some() => {
            Err((None, Problem::Damaged("it is no log by its content".to_owned())))
        }
        _ => Ok(None),
    }
}

fn has_database_name(native: &Path) -> bool {
    native.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("edb"))
}

fn log_name(native: &Path) -> Option<LogName> {
    LogName::parse(native.file_name()?.to_str()?)
}

fn role(log: &Log) -> Option<LogRole> {
    log.name.as_ref().map(|name| name.role)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// How near two folders are: the deeper their common folder the nearer, then the fewer steps between them. Less is nearer.
fn nearness(one: &Path, other: &Path) -> (Reverse<usize>, usize) {
    let common = one.components().zip(other.components()).take_while(|(a, b)| a == b).count();
    let steps = one.components().count() + other.components().count() - 2 * common;
    (Reverse(common), steps)
}

fn log_state(header: &DatabaseHeader, stream: Option<&Stream<'_>>) -> LogState {
    let mut state = LogState::new(LogSignature(*header.log_signature.as_bytes()));
    let generation = |generation: stillpoint_ese::Generation| Generation(generation.number());
    state.required =
        header.required().map(|range| generation(range.first())..=generation(range.last()));
    if state.required.is_some() {
        state.committed = Some(generation(header.committed()));
    }
    let logs = stream.map(|stream| stream.logs.as_slice()).unwrap_or_default();
    state.oldest_present = logs.first().map(|log| generation(log.header.generation));
    for log in logs {
        let number = Some(generation(log.header.generation));
        if role(log) == Some(LogRole::Current) {
            state.open = state.open.max(number);
        } else {
            state.last_closed = state.last_closed.max(number);
        }
    }
    state
}

pub(crate) fn ranges(missing: &[stillpoint_ese::GenerationRange]) -> Ranges {
    missing
        .iter()
        .map(|range| Generation(range.first().number())..=Generation(range.last().number()))
        .collect()
}

/// Names for people: the file's name without its extension, or its place where that is not unique.
fn name_all(place: &Place, found: &mut [Found]) {
    let stem = |found: &Found| {
        found.native.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for found in &*found {
        *seen.entry(stem(found).to_lowercase()).or_default() += 1;
    }
    for found in found {
        let short = stem(found);
        let is_unique = seen.get(&short.to_lowercase()) == Some(&1);
        let name =
            if is_unique && !short.is_empty() { short } else { place.relative(&found.native) };
        // The end of a long place tells more than its beginning.
        let skip = name.chars().count().saturating_sub(64);
        found.name = name.chars().skip(skip).collect();
    }
}

/// The found databases of these copies, in the order of the copies.
///
/// # Errors
/// `NotFound` for one that is not there, `NotAvailable` for one that cannot be backed up.
pub(crate) fn select(
    found: Vec<Found>,
    place: &Place,
    copies: &[CopyId],
) -> PluginResult<Vec<Found>> {
    let mut by_id: BTreeMap<CopyId, Found> =
        found.into_iter().map(|found| (place.copy_id(found.id), found)).collect();
    copies
        .iter()
        .map(|copy| {
            let subject = || stillpoint_context::Subject::new("copy", copy);
            let found = by_id.remove(copy).ok_or_else(|| {
                PluginError::new(
                    PluginErrorKind::NotFound,
                    format!("{copy} does not lie under {}", place.root().display()),
                )
                .without_effect()
                .with_subject(subject())
            })?;
            if found.reasons.is_empty() {
                return Ok(found);
            }
            let reasons: Vec<String> = found.reasons.iter().map(ToString::to_string).collect();
            Err(PluginError::new(
                PluginErrorKind::NotAvailable,
                format!("{} cannot be backed up: {}", found.name, reasons.join("; ")),
            )
            .without_effect()
            .with_subject(subject()))
        })
        .collect()
}
