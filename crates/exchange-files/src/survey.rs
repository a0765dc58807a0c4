//! What lies under the folder: databases by their headers, each with its log stream and checkpoint.
//!
//! ```text
//!   walk ─▶ sniff every file ─▶ databases ─┐
//!                              logs by signature, folder and base name ─┤ pair ─▶ judge ─▶ reasons
//!                              checkpoints by signature and folder ─────┘
//! ```

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use stillpoint_context::{Cx, HostPath};
use stillpoint_ese::{
    CheckpointHeader, DatabaseHeader, EseError, FileKind, LogHeader, LogName, LogRole,
    read_checkpoint, read_database_header, read_log_header,
};
use stillpoint_exchange::{PluginError, PluginErrorKind, PluginResult};
use stillpoint_model::{
    availability::Reason,
    id::{CopyId, DatabaseId},
    inventory::{FileRole, Generation, LogState},
};

use crate::{
    plugin::Place,
    walk::{Entry, interrupted, open, walk},
};

mod near;
mod pair;

use pair::pair_all;

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
    /// What is worth telling though it stands in the way of nothing.
    notes: Vec<String>,
}

struct Log {
    native: PathBuf,
    name: Option<LogName>,
    bytes: u64,
    header: LogHeader,
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
    /// Checkpoints that cannot be used. Recovery does without: it begins at the first log that is required.
    spoiled_checkpoints: Vec<Spoiled>,
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
    let mut found = pair_all(cx, place, &finds)?;
    for spoiled in &finds.spoiled {
        found.push(spoiled.as_database(place)?);
    }
    name_all(place, &mut found);
    for found in &found {
        for note in &found.notes {
            tracing::warn!(database = %found.native.display(), "{note}");
        }
    }
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
                } else if kind == Some(FileKind::Checkpoint) || is_checkpoint(&native) {
                    self.spoiled_checkpoints.push(Spoiled { native, problem });
                }
            }
        }
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
            notes: Vec::new(),
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
        FileKind::Other if is_checkpoint(native) => {
            Err((None, Problem::Damaged("it is no checkpoint by its content".to_owned())))
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

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

fn is_checkpoint(native: &Path) -> bool {
    log_name(native).is_some_and(|name| name.role == LogRole::Checkpoint)
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
