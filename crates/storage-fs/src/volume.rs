//! Volumes: folders that the operator named, and files opened inside them without ever leaving them.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stillpoint_context::{HostPath, Subject};
use stillpoint_model::id::VolumeRef;
use stillpoint_storage::{ProviderError, ProviderErrorKind, ProviderResult};

use crate::disk::{Inode, is};
use crate::format::{self, Method};

/// A folder whose files are protected.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) reference: VolumeRef,
    /// For people.
    pub(crate) name: String,
    /// As the operator named it.
    pub(crate) root: HostPath,
    /// With links resolved.
    pub(crate) real_root: HostPath,
    pub(crate) path: PathBuf,
    /// Folders of other volumes inside this one: what lies there is theirs.
    pub(crate) nested: Vec<PathBuf>,
    /// What is to be expected of its files.
    pub(crate) method: Method,
}

/// A file that is being taken.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
}

impl Source {
    pub(crate) fn inode(&self) -> Inode {
        Inode::of(&self.metadata)
    }
}

impl Volume {
    /// The path of a file below this volume, with `/`; `None` when it does not lie below it by its name.
    pub(crate) fn inside(&self, path: &HostPath) -> Option<String> {
        format::inside(path, &self.root, &self.real_root)
    }

    /// Where a path that may not exist yet really lies below this volume; `None` when a link leads out of it.
    pub(crate) fn places(&self, inside: &str) -> io::Result<bool> {
        let mut path = self.path.join(inside);
        loop {
            match fs::canonicalize(&path) {
                Ok(real) if self.method != Method::Snapshot => return Ok(self.holds(&real)),
                // In a snapshot of the volume, what lies on a subvolume inside it is not there.
                Ok(real) => {
                    let is_own = fs::metadata(&real)?.dev() == fs::metadata(&self.path)?.dev();
                    return Ok(is_own && self.holds(&real));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !path.pop() || !path.starts_with(&self.path) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn holds(&self, real: &Path) -> bool {
        real.starts_with(&self.path) && !self.nested.iter().any(|other| real.starts_with(other))
    }

    /// Opens a file for reading. Links are followed as long as they stay inside the volume.
    pub(crate) fn open(&self, inside: &str) -> ProviderResult<Source> {
        let named = self.path.join(inside);
        let real = fs::canonicalize(&named).map_err(|error| self.trouble(inside, error))?;
        let below = real.strip_prefix(&self.path).ok().filter(|_| self.holds(&real));
        let Some(below) = below else {
            let text = format!("{} leads out of its volume to {}", named.display(), real.display());
            return Err(self.error(ProviderErrorKind::PathEscapes, inside, text));
        };
        let file = self.walk(below).map_err(|error| self.trouble(inside, error))?;
        let metadata = file.metadata().map_err(|error| self.trouble(inside, error))?;
        if !metadata.is_file() {
            let text = format!("{} is not a regular file", named.display());
            return Err(self.error(ProviderErrorKind::Invalid, inside, text));
        }
        if self.method == Method::Snapshot {
            self.check_snapped(inside, below, &metadata)?;
        }
        Ok(Source { file, metadata })
    }

    /// Refuses a file that would not be in a snapshot of the subvolume under its name.
    fn check_snapped(&self, inside: &str, below: &Path, metadata: &Metadata) -> ProviderResult<()> {
        let named = self.path.join(inside);
        // In a snapshot, a link to an absolute path would lead to the file of today.
        if below != Path::new(inside) {
            let text = format!("{} is reached through a link", named.display());
            return Err(self
                .error(ProviderErrorKind::PathEscapes, inside, text)
                .with_remedy("Name the file by its real path."));
        }
        // A subvolume inside the volume is an empty folder in a snapshot, and so is a mount point.
        let root = fs::metadata(&self.path).map_err(|error| self.trouble(inside, error))?;
        if metadata.dev() != root.dev() {
            let text = format!(
                "{} lies on a subvolume or a file system of its own inside the volume",
                named.display()
            );
            return Err(self
                .error(ProviderErrorKind::PathEscapes, inside, text)
                .with_remedy("Name that subvolume as a volume of its own."));
        }
        Ok(())
    }

    /// Opens part by part and never through a link, so that nobody can put one in between the check and the opening.
    fn walk(&self, below: &Path) -> io::Result<File> {
        walk(&self.path, below)
    }

    /// An error about a file of this volume; nothing was changed.
    pub(crate) fn error(
        &self,
        kind: ProviderErrorKind,
        inside: &str,
        text: impl Into<String>,
    ) -> ProviderError {
        ProviderError::new(kind, text)
            .with_volume(self.reference.clone())
            .with_subject(Subject::new("file", self.path.join(inside).display()))
            .without_effect()
    }

    /// An error of the operating system about reading a file of this volume.
    pub(crate) fn trouble(&self, inside: &str, error: io::Error) -> ProviderError {
        let path = self.path.join(inside);
        let gone = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if gone || is(&error, &[Errno::LOOP]) {
            let (kind, text) = if gone {
                (ProviderErrorKind::Vanished, format!("{} is not there", path.display()))
            } else {
                (
                    ProviderErrorKind::PathEscapes,
                    format!("{} is a link into a loop", path.display()),
                )
            };
            return self.error(kind, inside, text).with_source(error);
        }
        ProviderError::io(format_args!("read {}", path.display()), error)
            .with_volume(self.reference.clone())
            .with_subject(Subject::new("file", path.display()))
            .without_effect()
    }
}

/// Opens a file below a folder, part by part and never through a link.
pub(crate) fn walk(folder: &Path, below: &Path) -> io::Result<File> {
    let part_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A named pipe must not block us; it is refused afterwards.
    let file_flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(folder, part_flags, Mode::empty())?;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(Errno::INVAL.into()) };
        let flags = if parts.peek().is_some() { part_flags } else { file_flags };
        at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
    }
    Ok(File::from(at))
}
