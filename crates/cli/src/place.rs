//! Where things are: the state file, the store and the source, made absolute and checked against each other.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::args::{Global, Storage};
use crate::context::ErrorClass;
use crate::error::{CliError, Outcome};

/// The name of the state file unless the operator says otherwise.
const STATE: &str = "stillpoint.db";

/// Where state and store are, and the source if it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// The state file.
    pub(crate) state: PathBuf,
    /// The store, if it was named.
    pub(crate) store: Option<PathBuf>,
    /// The source, if it was named.
    pub(crate) source: Option<PathBuf>,
    /// The folder of hooks, if it was named.
    pub(crate) hooks: Option<PathBuf>,
    /// The file of notifications, if it was named.
    pub(crate) notify: Option<PathBuf>,
    /// How copies are made, if that was said.
    pub(crate) storage: Option<Storage>,
}

impl Places {
    /// What the command line says; `dir` is the command's own folder argument.
    pub(crate) fn of(global: &Global, dir: Option<&Path>) -> Outcome<Self> {
        let state = global.state.as_deref().unwrap_or(Path::new(STATE));
        let source = match (dir, &global.source) {
            (Some(dir), Some(source)) if absolute(dir)? != absolute(source)? => {
                return Err(CliError::usage(format!(
                    "{} and --source {} are two folders",
                    dir.display(),
                    source.display()
                )));
            }
            (Some(dir), _) => Some(absolute(dir)?),
            (None, source) => source.as_deref().map(absolute).transpose()?,
        };
        let places = Self {
            state: absolute(state)?,
            store: global.store.as_deref().map(absolute).transpose()?,
            source,
            notify: global.notify.as_deref().map(absolute).transpose()?,
            hooks: global.hooks.as_deref().map(absolute).transpose()?,
            storage: global.storage,
        };
        places.check_state()?;
        Ok(places)
    }

    /// The store: the named one, else the one beside the state file.
    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.state.with_extension("store"))
    }

    fn check_state(&self) -> Outcome<()> {
        let state = &self.state;
        let remedy = "Name a file with --state.";
        match fs::symlink_metadata(state) {
            Ok(_) if !state.is_file() && state.exists() => Err(CliError::invalid(
                "state.not_a_file",
                format!("the state file {} is not a file", state.display()),
                remedy,
            )
            .about("path", state.display())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match state.parent() {
                Some(folder) if folder.is_dir() => Ok(()),
                _ => Err(CliError::invalid(
                    "state.no_folder",
                    format!("the folder of the state file {} does not exist", state.display()),
                    "Make the folder, or name another state file with --state.",
                )
                .about("path", state.display())),
            },
            Err(error) => {
                Err(CliError::io("state.unreadable", "cannot look at", state, &error, remedy))
            }
        }
    }

    /// Whether there is a state file.
    pub(crate) fn has_state(&self) -> bool {
        self.state.is_file()
    }

    /// That there is a state file to read.
    pub(crate) fn require_state(&self) -> Outcome<()> {
        if self.has_state() {
            return Ok(());
        }
        Err(CliError::of_class(
            "state.not_found",
            ErrorClass::Conflict,
            format!("there is no state file {}", self.state.display()),
            "Protect a folder first, or name the state file with --state.",
        )
        .about("path", self.state.display()))
    }
}

/// That a source is a folder that can be listed.
pub(crate) fn check_source(source: &Path) -> Outcome<()> {
    let error = match fs::metadata(source) {
        Ok(facts) if !facts.is_dir() => {
            return Err(CliError::invalid(
                "source.not_a_folder",
                format!("{} is not a folder", source.display()),
                "Name the folder that holds the databases.",
            )
            .about("path", source.display()));
        }
        Ok(_) => match fs::read_dir(source) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CliError::invalid(
                "source.not_found",
                format!("there is no folder {}", source.display()),
                "Check the path; a restore does not need the source.",
            )
            .about("path", source.display()));
        }
        Err(error) => error,
    };
    let remedy = "Give this user the right to read the folder.";
    Err(CliError::io("source.unreadable", "cannot read", source, &error, remedy))
}

/// That copies do not land in what is copied, nor what is copied among the copies.
pub(crate) fn check_apart(source: &Path, store: &Path) -> Outcome<()> {
    let (code, inner, outer) = if store.starts_with(source) {
        ("store.inside_source", "the store", "the protected folder")
    } else if source.starts_with(store) {
        ("source.inside_store", "the protected folder", "the store")
    } else if store.exists() && !store.is_dir() {
        return Err(CliError::invalid(
            "store.not_a_folder",
            format!("the store {} is not a folder", store.display()),
            "Name a folder with --store.",
        )
        .about("path", store.display()));
    } else {
        return Ok(());
    };
    let (inner_path, outer_path) =
        if code == "store.inside_source" { (store, source) } else { (source, store) };
    Err(CliError::invalid(
        code,
        format!("{inner} {} lies inside {outer} {}", inner_path.display(), outer_path.display()),
        "Name a folder outside with --store, or another state file with --state.",
    )
    .about("path", inner_path.display()))
}

/// The path without links, `.` and `..`, whether or not its last parts exist.
pub(crate) fn absolute(path: &Path) -> Outcome<PathBuf> {
    let unreadable = |error: &io::Error| {
        let remedy = "Give the path in another way.";
        CliError::io("path.invalid", "cannot make sense of the path", path, error, remedy)
    };
    if path.as_os_str().is_empty() {
        return Err(CliError::invalid("path.invalid", "the path is empty", "Give a path."));
    }
    let mut whole = std::path::absolute(path).map_err(|error| unreadable(&error))?;
    // What does not exist yet cannot be resolved: its last parts are kept aside, and put back behind what can be.
    let mut rest = Vec::new();
    loop {
        match fs::canonicalize(&whole) {
            Ok(real) => {
                whole = real;
                break;
            }
            Err(error) => {
                // A link that leads nowhere is not a path that can be made.
                if fs::symlink_metadata(&whole).is_ok_and(|facts| facts.is_symlink()) {
                    return Err(unreadable(&error));
                }
                let absent =
                    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                match (absent, whole.components().next_back()) {
                    (true, Some(Component::Normal(last))) => rest.push(last.to_owned()),
                    _ => return Err(unreadable(&error)),
                }
                whole.pop();
            }
        }
    }
    whole.extend(rest.iter().rev());
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_as_far_as_they_exist() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(real.join("a")).unwrap();
        fs::write(real.join("f"), "").unwrap();
        assert_eq!(absolute(&real.join("a/../b/c")).unwrap(), real.join("b/c"));
        assert_eq!(absolute(&real.join("./a//")).unwrap(), real.join("a"));
        assert_eq!(absolute(&real.join("f/x")).unwrap(), real.join("f/x"));
        assert!(absolute(&real.join("gone/../b")).is_err(), "nobody knows where that leads");
        assert!(absolute(Path::new("")).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(real.join("a"), real.join("link")).unwrap();
            std::os::unix::fs::symlink(real.join("nowhere"), real.join("dead")).unwrap();
            assert_eq!(absolute(&real.join("link/x")).unwrap(), real.join("a/x"));
            assert!(absolute(&real.join("dead")).is_err());
        }
    }

    #[test]
    fn store_and_source_lie_apart() {
        let code = |source: &str, store: &str| {
            check_apart(Path::new(source), Path::new(store))
                .err()
                .map(|error| error.failure.code.to_string())
        };
        assert_eq!(code("/nowhere/mail", "/nowhere/store"), None);
        assert_eq!(code("/nowhere/mail", "/nowhere/mail2"), None);
        assert_eq!(code("/nowhere/a", "/nowhere/a/s").as_deref(), Some("store.inside_source"));
        assert_eq!(code("/nowhere/a", "/nowhere/a").as_deref(), Some("store.inside_source"));
        assert_eq!(code("/nowhere/s/a", "/nowhere/s").as_deref(), Some("source.inside_store"));
    }
}
