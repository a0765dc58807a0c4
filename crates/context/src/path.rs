//! Paths of a host, which need not be this one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::HostId;

/// How a host writes and compares paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathFlavor {
    /// `/var/mail/db.edb`; every byte counts.
    Posix,
    /// `C:\Mail\DB.edb`, `\\server\share\x`, `\\?\Volume{…}\x`; upper and lower case are the same, and so are the two
    /// slashes.
    Windows,
}

impl PathFlavor {
    /// The flavour of the machine that this program was built for.
    pub const NATIVE: Self = if cfg!(windows) { Self::Windows } else { Self::Posix };

    fn is_separator(self, c: char) -> bool {
        c == '/' || (self == Self::Windows && c == '\\')
    }

    fn separator(self) -> char {
        match self {
            Self::Posix => '/',
            Self::Windows => '\\',
        }
    }
}

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Only absolute paths name a place on a host.
    #[error("the path {0:?} is not absolute")]
    NotAbsolute(String),
    /// A relative path would leave its folder.
    #[error("the path {0:?} would leave its folder")]
    Escapes(String),
    /// The path has characters that are not Unicode, or a NUL.
    #[error("the path {0:?} is not text without NUL")]
    NotText(String),
    /// The path belongs to a host of another kind.
    #[error("the path {0:?} is not one of this machine's kind")]
    Foreign(String),
}

/// An absolute path on a named host.
///
/// Equality, order and hash follow the host's rules: on Windows `C:\Mail\db.edb` and `c:/mail/DB.edb` are one path. What
/// is shown is what was given.
///
/// ```
/// use stillpoint_context::{HostId, HostPath, PathFlavor};
///
/// let host = HostId::new("ex1.example.com")?;
/// let a = HostPath::new(host.clone(), PathFlavor::Windows, r"D:\Mail\DB01\DB01.edb")?;
/// let b = HostPath::new(host, PathFlavor::Windows, "d:/mail/db01")?;
/// assert_eq!(a.relative_to(&b).as_deref(), Some("DB01.edb"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct HostPath {
    host: HostId,
    flavor: PathFlavor,
    raw: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    host: HostId,
    flavor: PathFlavor,
    raw: String,
}

impl TryFrom<Wire> for HostPath {
    type Error = PathError;

    fn try_from(wire: Wire) -> Result<Self, PathError> {
        Self::new(wire.host, wire.flavor, wire.raw)
    }
}

impl From<HostPath> for Wire {
    fn from(path: HostPath) -> Self {
        Self { host: path.host, flavor: path.flavor, raw: path.raw }
    }
}

impl HostPath {
    /// The path `raw` on `host`.
    ///
    /// # Errors
    /// [`PathError::NotAbsolute`], [`PathError::Escapes`] when it has a `..` part, [`PathError::NotText`] when it has a
    /// NUL.
    pub fn new(
        host: HostId,
        flavor: PathFlavor,
        raw: impl Into<String>,
    ) -> Result<Self, PathError> {
        let raw = raw.into();
        if raw.contains('\0') {
            return Err(PathError::NotText(raw));
        }
        if !is_absolute(flavor, &raw) {
            return Err(PathError::NotAbsolute(raw));
        }
        if raw.split(|c| flavor.is_separator(c)).any(|part| part == "..") {
            return Err(PathError::Escapes(raw));
        }
        Ok(Self { host, flavor, raw })
    }

    /// A path of this machine, which is known as `host`.
    ///
    /// # Errors
    /// As [`new`](Self::new); also [`PathError::NotText`] when the path is not Unicode.
    pub fn from_native(host: HostId, path: &Path) -> Result<Self, PathError> {
        let raw = path.to_str().ok_or_else(|| PathError::NotText(path.display().to_string()))?;
        Self::new(host, PathFlavor::NATIVE, raw)
    }

    /// The path as this machine's own. The caller has made sure that the host is this machine.
    ///
    /// # Errors
    /// [`PathError::Foreign`] when its flavour is not this machine's.
    pub fn to_native(&self) -> Result<PathBuf, PathError> {
        if self.flavor == PathFlavor::NATIVE {
            Ok(PathBuf::from(&self.raw))
        } else {
            Err(PathError::Foreign(self.raw.clone()))
        }
    }

    /// The host.
    pub fn host(&self) -> &HostId {
        &self.host
    }

    /// How the host writes paths.
    pub fn flavor(&self) -> PathFlavor {
        self.flavor
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// The last part: the name of the file or folder. `None` for a root.
    pub fn file_name(&self) -> Option<&str> {
        let trimmed = self.raw.trim_end_matches(|c| self.flavor.is_separator(c));
        let name = trimmed.rsplit(|c| self.flavor.is_separator(c)).next()?;
        let is_drive = self.flavor == PathFlavor::Windows && name.ends_with(':');
        (!name.is_empty() && !is_drive).then_some(name)
    }

    /// This path with a relative one below it.
    ///
    /// # Errors
    /// [`PathError::Escapes`] when `relative` is empty, absolute, names a drive or has a `..` part.
    pub fn join(&self, relative: &str) -> Result<Self, PathError> {
        let drive = self.flavor == PathFlavor::Windows && relative.contains(':');
        let escapes = relative.is_empty()
            || drive
            || relative.starts_with(|c| self.flavor.is_separator(c))
            || relative.split(|c| self.flavor.is_separator(c)).any(|part| part == "..");
        if escapes {
            return Err(PathError::Escapes(relative.to_owned()));
        }
        let mut raw = self.raw.trim_end_matches(|c| self.flavor.is_separator(c)).to_owned();
        raw.push(self.flavor.separator());
        raw.push_str(relative);
        Self::new(self.host.clone(), self.flavor, raw)
    }

    /// Whether this path is `folder` or lies below it, on the same host.
    pub fn starts_with(&self, folder: &Self) -> bool {
        self.parts_below(folder).is_some()
    }

    /// The part of this path below `folder`, as it was written; `None` when it does not lie below it.
    pub fn relative_to(&self, folder: &Self) -> Option<String> {
        let parts = self.parts_below(folder)?;
        let mut text = String::new();
        for part in parts {
            if !text.is_empty() {
                text.push(self.flavor.separator());
            }
            text.push_str(part);
        }
        (!text.is_empty()).then_some(text)
    }

    /// The parts of this path below `folder`, as they were written; empty for `folder` itself, `None` when it does not lie
    /// below it. With [`join`](Self::join) they make the same place below another folder, also on a host of another kind.
    pub fn parts_below(&self, folder: &Self) -> Option<Vec<&str>> {
        let other_kind = self.flavor != folder.flavor || self.is_network() != folder.is_network();
        if self.host != folder.host || other_kind {
            return None;
        }
        let mine: Vec<&str> = self.parts().collect();
        let theirs: Vec<&str> = folder.parts().collect();
        let below = mine.len() >= theirs.len()
            && mine.iter().zip(&theirs).all(|(a, b)| self.folded(a) == self.folded(b));
        below.then(|| mine[theirs.len()..].to_vec())
    }

    /// The parts between separators, without empty ones and `.`, and without a leading `\\?\` before a drive.
    fn parts(&self) -> impl Iterator<Item = &str> {
        let flavor = self.flavor;
        let raw = match self.raw.strip_prefix(r"\\?\") {
            Some(rest) if flavor == PathFlavor::Windows && has_drive(rest) => rest,
            _ => self.raw.as_str(),
        };
        raw.split(move |c| flavor.is_separator(c)).filter(|part| !part.is_empty() && *part != ".")
    }

    fn folded<'a>(&self, part: &'a str) -> std::borrow::Cow<'a, str> {
        match self.flavor {
            PathFlavor::Posix => part.into(),
            PathFlavor::Windows => part.to_lowercase().into(),
        }
    }

    fn is_network(&self) -> bool {
        self.flavor == PathFlavor::Windows
            && self.raw.chars().take(2).all(|c| self.flavor.is_separator(c))
            && !self.raw.starts_with(r"\\?\")
    }
}

fn has_drive(raw: &str) -> bool {
    let mut chars = raw.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}

fn is_absolute(flavor: PathFlavor, raw: &str) -> bool {
    match flavor {
        PathFlavor::Posix => raw.starts_with('/'),
        PathFlavor::Windows => {
            let drive =
                has_drive(raw) && raw.chars().nth(2).is_some_and(|c| flavor.is_separator(c));
            let network = raw.len() > 2 && raw.chars().take(2).all(|c| flavor.is_separator(c));
            drive || network
        }
    }
}

impl PartialEq for HostPath {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for HostPath {}

impl PartialOrd for HostPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.host
            .cmp(&other.host)
            .then_with(|| self.flavor.cmp(&other.flavor))
            .then_with(|| self.is_network().cmp(&other.is_network()))
            .then_with(|| {
                self.parts().map(|p| self.folded(p)).cmp(other.parts().map(|p| other.folded(p)))
            })
    }
}

impl Hash for HostPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.flavor.hash(state);
        self.is_network().hash(state);
        for part in self.parts() {
            self.folded(part).hash(state);
        }
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.raw)
    }
}

impl fmt::Debug for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(raw: &str) -> HostPath {
        HostPath::new(HostId::new("ex1").unwrap(), PathFlavor::Windows, raw).unwrap()
    }

    fn posix(raw: &str) -> HostPath {
        HostPath::new(HostId::new("lab").unwrap(), PathFlavor::Posix, raw).unwrap()
    }

    #[test]
    fn windows_paths_compare_without_case_and_slashes() {
        assert_eq!(windows(r"C:\Mail\DB.edb"), windows("c:/mail/db.EDB"));
        assert_eq!(windows(r"\\?\C:\Mail"), windows(r"C:\Mail\"));
        assert_ne!(windows(r"\\c\mail"), windows(r"\\d\mail"));
        assert!(!windows(r"\\c\mail").starts_with(&windows(r"\\?\c\mail")), "share and device");
        assert!(windows(r"\\?\Volume{A1}\x\y").starts_with(&windows(r"\\?\volume{a1}\")));
        assert!(!windows(r"C:\Mailbox").starts_with(&windows(r"C:\Mail")));
    }

    #[test]
    fn posix_paths_compare_by_every_character() {
        assert_ne!(posix("/a/DB.edb"), posix("/a/db.edb"));
        assert_eq!(posix("/a//b/./c"), posix("/a/b/c"));
        assert_eq!(posix("/a/b/c").relative_to(&posix("/")).as_deref(), Some("a/b/c"));
        assert_eq!(posix("/a").relative_to(&posix("/a")), None);
        assert!(posix("/a").starts_with(&posix("/a")));
        assert_eq!(posix("/").file_name(), None);
        assert_eq!(posix("/a/b/").file_name(), Some("b"));
    }

    #[test]
    fn a_path_never_leaves_its_folder() {
        let folder = posix("/store");
        for bad in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(folder.join(bad).is_err(), "{bad:?}");
        }
        assert_eq!(folder.join("a/b").unwrap().as_str(), "/store/a/b");
        assert!(windows(r"D:\s").join(r"C:\x").is_err());
        assert!(HostPath::new(HostId::new("h").unwrap(), PathFlavor::Posix, "/a/../b").is_err());
        assert!(HostPath::new(HostId::new("h").unwrap(), PathFlavor::Posix, "a").is_err());
        assert!(HostPath::new(HostId::new("h").unwrap(), PathFlavor::Windows, r"C:x").is_err());
    }

    #[test]
    fn stored_paths_are_checked_again() {
        let path = posix("/a/b");
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<HostPath>(&json).unwrap(), path);
        assert!(serde_json::from_str::<HostPath>(&json.replace("/a/b", "a/../b")).is_err());
    }
}
