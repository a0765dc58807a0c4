//! What the tests of the command share: a place of their own, and runs of the built binary.

// Each test file uses a part of it; helpers are no test functions.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use stillpoint_ese::write::ExchangeSet;
use tempfile::TempDir;

/// The built command.
pub const STILLPOINT: &str = env!("CARGO_BIN_EXE_stillpoint");

/// A place for one test; gone when it ends.
pub struct Lab {
    place: TempDir,
}

/// What a run of the command left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    pub fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    /// The place, without links.
    pub fn root(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// A folder `mail` with one Exchange-shaped set in `mail/<name>` for each name; every second one was shut down cleanly.
    pub fn mail(&self, names: &[&str]) -> PathBuf {
        let mail = self.path("mail");
        for (index, name) in (0_u64..).zip(names) {
            let folder = mail.join(name);
            fs::create_dir_all(&folder).unwrap();
            ExchangeSet::new(index + 1)
                .with_name(*name)
                .with_base(format!("E{index:02}"))
                .with_clean(index % 2 == 1)
                .with_log_segments(16)
                .write_to(&folder)
                .unwrap();
        }
        mail
    }

    /// The command, about to run in this place with the state file `state.db`.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(STILLPOINT);
        command.args(args).arg("--state").arg(self.path("state.db"));
        self.tame(&mut command);
        command
    }

    /// Runs in this place, away from the caller's settings.
    pub fn tame(&self, command: &mut Command) {
        command
            .current_dir(self.root())
            .env("TMPDIR", self.root())
            .env_remove("STILLPOINT_LOG")
            .stdin(Stdio::null());
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        ran(&mut self.command(args))
    }

    /// Runs with `--json`.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> (i32, Value) {
        let ran = ran(self.command(args).arg("--json"));
        (ran.code, ran.json())
    }
}

/// Runs a command to its end.
pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the command starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// The document on standard output, whose `exit` must be what the process ended with.
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"));
        assert_eq!(value["exit"], self.code, "{value:#}");
        value
    }
}

/// The array under a name.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is no list in {value:#}"))
}

/// The text under a name.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {value:#}"))
}

/// The database of this name in a topology (or any list of databases).
pub fn database<'a>(value: &'a Value, name: &str) -> &'a Value {
    let all = list(value, "databases");
    all.iter().find(|database| database["name"] == name).unwrap_or_else(|| {
        panic!("no database {name} in {value:#}");
    })
}

/// The id of the newest restore point of a database in a topology.
pub fn newest_point(topology: &Value, name: &str) -> String {
    text(&list(database(topology, name), "points")[0], "point").to_owned()
}

/// Compares a document with its golden file `golden/runs/<name>.json`; `STILLPOINT_BLESS=1` writes that anew.
pub fn golden(name: &str, shown: &Value) {
    let found = serde_json::to_string_pretty(shown).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/runs/{name}.json"));
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &found).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(found, golden, "{name} changed; see the head of the tests");
}

/// Every regular file below a folder, in order.
pub fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![below.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The one file of this name below a folder.
pub fn file(below: &Path, name: &str) -> PathBuf {
    let mut found = files(below);
    found.retain(|path| path.file_name().unwrap() == name);
    assert_eq!(found.len(), 1, "{name} below {}: {found:?}", below.display());
    found.remove(0)
}

/// Flips one bit of a stored file, which is read-only.
pub fn flip(path: &Path, offset: usize) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
}

/// Whether CI says that tests which need `what` may not be skipped.
pub fn is_required(what: &str) -> bool {
    let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word == what)
}

/// Says that a test skips; fails if it may not.
#[allow(clippy::print_stderr, reason = "a test that skips says so loudly")]
pub fn skip(needs: &str, why: &str) {
    assert!(!is_required(needs), "{needs} required: {why}");
    eprintln!("SKIPPED: {why}");
}

/// The folder of genuine files; a test that skips without it says so.
pub fn samples() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ese-samples");
    let folder = std::env::var_os("STILLPOINT_ESE_SAMPLES").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    skip("samples", &format!("there are no sample files at {}", folder.display()));
    None
}
