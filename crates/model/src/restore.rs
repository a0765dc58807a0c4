//! Restores: what is asked for, what it would touch, and what is refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, HostPath, IdempotencyKey, PathError, PathFlavor,
    Subject,
};

use crate::id::{DatabaseId, PointId, SnapshotRef, VolumeRef};
use crate::inventory::{FileRole, Generation};
use crate::planning::{Claim, Mode};
use crate::point::{PointState, RestorePoint, Trust};
use crate::warning::Warning;

/// What the name of a folder begins with in which a restore keeps files beside their targets: those that are not checked
/// yet, and those that they replace. Whoever looks for databases passes it by.
pub const HIDDEN_FOLDER: &str = ".stillpoint-restore-";

/// Where a restore goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestoreTarget {
    /// Into a folder, below which the files keep their places relative to each other.
    AlternatePath(HostPath),
    /// Where the files lay. What is there is kept aside until the restored files have been
    /// checked.
    InPlace,
}

/// How far the database is brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecoverTo {
    /// The point itself.
    #[default]
    Point,
    /// A log generation.
    Generation(Generation),
    /// Every log there is, those on the server included.
    UpToTheMinute,
}

/// A request for a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// What tells it from another.
    pub key: IdempotencyKey,
    /// What is restored.
    pub point: PointId,
    /// Where to.
    pub target: RestoreTarget,
    /// How far.
    pub recover_to: RecoverTo,
    /// Restore a suspect point all the same. Every byte is still checked, and damage still stops.
    pub accept_suspect: bool,
    /// Restore a point whose backup is not over.
    pub accept_provisional: bool,
}

impl RestoreRequest {
    /// A restore of the point itself, without overrides.
    pub fn new(key: IdempotencyKey, point: PointId, target: RestoreTarget) -> Self {
        Self {
            key,
            point,
            target,
            recover_to: RecoverTo::Point,
            accept_suspect: false,
            accept_provisional: false,
        }
    }
}

/// A file of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreFile {
    /// Its place in [`RestorePoint::files`].
    pub index: usize,
    /// What it is.
    pub role: FileRole,
    /// Where it goes.
    pub to: HostPath,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What a restore will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The point.
    pub point: PointId,
    /// Its database.
    pub database: DatabaseId,
    /// Where it goes.
    pub target: RestoreTarget,
    /// Its files.
    pub files: Vec<RestoreFile>,
    /// All their bytes.
    pub bytes: u64,
    /// The snapshots that are read.
    pub snapshots: BTreeSet<SnapshotRef>,
    /// What it claims.
    pub claims: Vec<Claim>,
    /// What is worth telling.
    pub warnings: Vec<Warning>,
}

/// A restore is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The point is suspect and the request has no override.
    #[error("restore point {point} is suspect: {reason}")]
    Suspect {
        /// The point.
        point: PointId,
        /// What was found.
        reason: String,
    },
    /// The backup that makes the point is not over.
    #[error("the backup of restore point {point} is not over")]
    Provisional {
        /// The point.
        point: PointId,
    },
    /// The point is to be deleted, and some of it may be gone.
    #[error("restore point {point} is being deleted")]
    Expiring {
        /// The point.
        point: PointId,
    },
    /// The storage has lost some of the point.
    #[error("restore point {point} is missing: its storage has lost snapshots of it")]
    Missing {
        /// The point.
        point: PointId,
    },
    /// The point holds no database, only logs.
    #[error("restore point {point} holds only logs")]
    LogsOnly {
        /// The point.
        point: PointId,
    },
    /// The point has no files to restore.
    #[error("restore point {point} lists no files")]
    NoFiles {
        /// The point.
        point: PointId,
    },
    /// Logs beyond the point are wanted, and this path does not replay logs.
    #[error("restore point {point} can be brought to its own instant only")]
    PointOnly {
        /// The point.
        point: PointId,
    },
    /// Two files would have one path.
    #[error("two files of the restore point would become {path}")]
    SamePath {
        /// The path.
        path: HostPath,
    },
    /// A path cannot be made.
    #[error("a path below the target cannot be made")]
    Path(#[source] PathError),
}

impl ErrorFacts for RestoreError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Suspect { .. } => "restore.suspect",
            Self::Provisional { .. } => "restore.provisional",
            Self::Expiring { .. } => "restore.expiring",
            Self::Missing { .. } => "restore.missing",
            Self::LogsOnly { .. } => "restore.logs_only",
            Self::NoFiles { .. } => "restore.no_files",
            Self::PointOnly { .. } => "restore.point_only",
            Self::SamePath { .. } => "restore.same_path",
            Self::Path(_) => "restore.path_invalid",
        })
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Suspect { .. } => ErrorClass::Integrity,
            Self::Provisional { .. } | Self::Expiring { .. } | Self::Missing { .. } => {
                ErrorClass::Conflict
            }
            _ => ErrorClass::Invalid,
        }
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Suspect { point, .. }
            | Self::Provisional { point }
            | Self::Expiring { point }
            | Self::Missing { point }
            | Self::LogsOnly { point }
            | Self::NoFiles { point }
            | Self::PointOnly { point } => vec![Subject::new("restore point", point)],
            Self::SamePath { path } => vec![Subject::new("file", path)],
            Self::Path(_) => Vec::new(),
        }
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Suspect { .. } => {
                "Choose an earlier point, or override: every byte is checked all the same."
            }
            Self::Provisional { .. } => {
                "Wait for the backup to end or resolve it, or accept the point as it is."
            }
            Self::Expiring { .. } => "Choose another point: some of this one may be gone.",
            Self::Missing { .. } => {
                "Choose another point. If the snapshots are there again, reconcile tells so."
            }
            Self::LogsOnly { .. } => "Choose a point that holds the database.",
            Self::NoFiles { .. } => "Read the point again from its manifest.",
            Self::PointOnly { .. } => "Ask for the point itself.",
            Self::SamePath { .. } => "Restore to another place.",
            Self::Path(_) => "Choose another target folder.",
        }
        .into()
    }
}

/// Plans a restore of `point`. Pure: nothing is looked at but the arguments.
///
/// # Errors
/// [`RestoreError`] by kind: a point that is being deleted or missing, a suspect or provisional point without its override, a point without
/// a database or without files, files that would meet in one path.
pub fn plan_restore(
    request: &RestoreRequest,
    point: &RestorePoint,
) -> Result<RestorePlan, RestoreError> {
    let id = point.id;
    let mut warnings = Vec::new();
    if point.state == PointState::Expiring {
        return Err(RestoreError::Expiring { point: id });
    }
    if point.is_missing() {
        return Err(RestoreError::Missing { point: id });
    }
    if let Trust::Suspect { reason, .. } = &point.trust {
        if !request.accept_suspect {
            return Err(RestoreError::Suspect { point: id, reason: reason.clone() });
        }
        warnings.push(
            Warning::new(
                "restore.suspect",
                format!("the point is suspect: {reason}"),
                "Expect the restore to stop at the damage.",
            )
            .about("restore point", id),
        );
    }
    if point.state == PointState::Provisional {
        if !request.accept_provisional {
            return Err(RestoreError::Provisional { point: id });
        }
        warnings.push(
            Warning::new(
                "restore.provisional",
                "the backup that made the point is not over",
                "Resolve the backup's run afterwards.",
            )
            .about("restore point", id),
        );
    }
    if !point.has_database() {
        return Err(RestoreError::LogsOnly { point: id });
    }
    if point.files.is_empty() {
        return Err(RestoreError::NoFiles { point: id });
    }
    if request.recover_to != RecoverTo::Point {
        return Err(RestoreError::PointOnly { point: id });
    }

    let paths = match &request.target {
        RestoreTarget::InPlace => point.files.iter().map(|file| file.path.clone()).collect(),
        RestoreTarget::AlternatePath(folder) => below(folder, point)?,
    };
    let mut seen = BTreeMap::new();
    for (index, path) in paths.iter().enumerate() {
        if seen.insert(path, index).is_some() {
            return Err(RestoreError::SamePath { path: path.clone() });
        }
    }
    let files = point
        .files
        .iter()
        .zip(paths)
        .enumerate()
        .map(|(index, (file, to))| RestoreFile { index, role: file.role, to, bytes: file.bytes })
        .collect();
    Ok(RestorePlan {
        point: id,
        database: point.database,
        target: request.target.clone(),
        files,
        bytes: point.bytes(),
        snapshots: point.files.iter().map(|file| file.snapshot.clone()).collect(),
        claims: claims(point),
        warnings,
    })
}

/// The database is held even if its files go elsewhere: a backup and a restore of one database never run at once, so that
/// nobody has to reason about what a backup takes while files of the same database appear.
fn claims(point: &RestorePoint) -> Vec<Claim> {
    let mut claims =
        vec![Claim::live(point.database), Claim::point(point.database, point.id, Mode::Shared)];
    let volumes: BTreeSet<&VolumeRef> =
        point.files.iter().map(|file| &file.snapshot.volume).collect();
    claims.extend(volumes.into_iter().map(Claim::volume));
    claims
}

/// Each file's place below `folder`: its path without what all files' folders have in common.
fn below(folder: &HostPath, point: &RestorePoint) -> Result<Vec<HostPath>, RestoreError> {
    let parts: Vec<Vec<&str>> = point.files.iter().map(|file| parts(&file.path)).collect();
    let mut common = parts.first().map_or(0, |first| first.len().saturating_sub(1));
    for (path, file) in parts.iter().zip(&point.files) {
        let first = &parts[0];
        let same =
            first.iter().zip(path).take_while(|(a, b)| fold(&file.path, a) == fold(&file.path, b));
        common = common.min(same.count()).min(path.len().saturating_sub(1));
    }
    let separator = match folder.flavor() {
        PathFlavor::Posix => "/",
        PathFlavor::Windows => "\\",
    };
    parts
        .iter()
        .map(|path| {
            // A drive's colon would not be taken inside a path.
            let relative: Vec<String> = path[common..].iter().map(|p| p.replace(':', "")).collect();
            folder.join(&relative.join(separator)).map_err(RestoreError::Path)
        })
        .collect()
}

fn parts(path: &HostPath) -> Vec<&str> {
    let separators: &[char] = match path.flavor() {
        PathFlavor::Posix => &['/'],
        PathFlavor::Windows => &['/', '\\'],
    };
    path.as_str().split(separators).filter(|part| !matches!(*part, "" | "." | "?")).collect()
}

fn fold(path: &HostPath, part: &str) -> String {
    match path.flavor() {
        PathFlavor::Posix => part.to_owned(),
        PathFlavor::Windows => part.to_lowercase(),
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restore point {} ({} bytes)", self.point, self.bytes)?;
        for file in &self.files {
            writeln!(f, "  {} ({} bytes)", file.to, file.bytes)?;
        }
        for claim in &self.claims {
            writeln!(f, "  claim {claim}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}
