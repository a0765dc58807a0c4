//! A small Exchange-shaped folder of our own making, and the comparison of what comes back.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use stillpoint_ese::write::ExchangeSet;
use tempfile::TempDir;

use crate::error::{CliError, Outcome};

/// The temporary place of a demonstration: the folder, its state file, its store and what is restored.
#[derive(Debug)]
pub(crate) struct Demo {
    place: TempDir,
}

impl Demo {
    /// Makes the folder: a database as a VSS snapshot leaves it (its last changes are in its logs), and one that was
    /// shut down cleanly, each with its log stream and checkpoint.
    pub(crate) fn make() -> Outcome<Self> {
        let made = || -> io::Result<Self> {
            let place = tempfile::Builder::new().prefix("stillpoint-demo-").tempdir()?;
            let demo = Self { place };
            for (seed, name, base, clean) in [(1, "DB01", "E00", false), (2, "DB02", "E01", true)] {
                let folder = demo.source().join(name);
                fs::create_dir_all(&folder)?;
                ExchangeSet::new(seed)
                    .with_name(name)
                    .with_base(base)
                    .with_clean(clean)
                    .write_to(&folder)?;
            }
            Ok(demo)
        };
        made().map_err(|error| {
            CliError::io(
                "demo.not_made",
                "cannot make the demonstration below",
                &std::env::temp_dir(),
                &error,
                "Make room there, or set TMPDIR to a folder that can be written.",
            )
        })
    }

    /// What is protected.
    pub(crate) fn source(&self) -> PathBuf {
        self.place.path().join("mail")
    }

    /// Where the state goes unless the operator says otherwise.
    pub(crate) fn state(&self) -> PathBuf {
        self.place.path().join("stillpoint.db")
    }

    /// Where databases are restored to, each into a folder of its own: beside the original.
    pub(crate) fn restored(&self) -> PathBuf {
        self.place.path().join("restored")
    }

    /// Leaves everything where it is.
    pub(crate) fn keep(self) -> PathBuf {
        self.place.keep()
    }

    /// Takes everything away.
    pub(crate) fn remove(self) -> Outcome<()> {
        let path = self.place.path().to_owned();
        self.place.close().map_err(|error| {
            let remedy = "Delete the folder by hand.";
            CliError::io("demo.not_removed", "cannot remove", &path, &error, remedy)
        })
    }
}

/// Whether two files have the same bytes.
pub(crate) fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    const CHUNK: usize = 1 << 20;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = fill(&mut one, &mut here)?;
        if length != fill(&mut other, &mut there)? || here[..length] != there[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demonstration_is_a_folder_with_two_databases_and_goes_away() {
        let demo = Demo::make().unwrap();
        let place = demo.place.path().to_owned();
        for file in ["DB01/DB01.edb", "DB01/E00.log", "DB01/E00.chk", "DB02/DB02.edb"] {
            assert!(demo.source().join(file).is_file(), "{file}");
        }
        assert!(!demo.restored().exists());
        demo.remove().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn a_comparison_sees_the_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let mut bytes = vec![7; (1 << 20) + 3];
        fs::write(path("a"), &bytes).unwrap();
        fs::write(path("b"), &bytes).unwrap();
        assert!(same_bytes(&path("a"), &path("b")).unwrap());
        *bytes.last_mut().unwrap() = 8;
        fs::write(path("b"), &bytes).unwrap();
        assert!(!same_bytes(&path("a"), &path("b")).unwrap());
        fs::write(path("b"), &bytes[1..]).unwrap();
        assert!(!same_bytes(&path("a"), &path("b")).unwrap());
        assert!(same_bytes(&path("a"), &path("c")).is_err());
    }
}
