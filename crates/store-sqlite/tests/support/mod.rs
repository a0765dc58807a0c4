//! What the tests of this crate share.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use stillpoint_context::{Mono, ProcessId, RunId};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{
    Append, Batch, End, FactDraft, Now, Record, RunRecord, Seq, StreamId, Topic,
};
use uuid::Uuid;

pub const TERM: Duration = Duration::from_mins(1);
pub const MARGIN: Duration = Duration::from_secs(10);

pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stillpoint.db");
    (folder, path)
}

pub fn process(number: u128) -> ProcessId {
    ProcessId(Uuid::from_u128(number))
}

pub fn run(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

pub fn at(seconds: u64) -> Mono {
    Mono(Duration::from_secs(seconds))
}

pub fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// A record that tells itself from others.
pub fn record(number: u32) -> Record {
    Record::Run(RunRecord::Lingers { node: serde_json::from_value(number.into()).unwrap() })
}

pub fn ended() -> Record {
    Record::Run(RunRecord::Ended { end: End::Succeeded })
}

pub fn append(stream: StreamId, expected: u64, records: Vec<Record>) -> Append {
    let now = Now { mono: at(expected), civil: Now::default().civil };
    Append { stream, expected: Seq(expected), at: now, records }
}

/// One record to a run's stream.
pub fn one(number: u128, expected: u64, content: u32) -> Append {
    append(StreamId::Run(run(number)), expected, vec![record(content)])
}

pub fn fact(name: &str, key: &str, body: &[u8]) -> (RunId, FactDraft) {
    (run(1), FactDraft::new(topic(name), key, body))
}

pub fn batch(owner: ProcessId, epoch: u64, appends: Vec<Append>) -> Batch {
    Batch { owner, epoch, appends, facts: Vec::new() }
}

/// A store, and the epoch of a lease of process 1.
pub async fn leased(path: &Path) -> (SqliteStore, u64) {
    use stillpoint_workflow::Leases;
    let store = SqliteStore::open(path).unwrap();
    let lease = store.acquire(process(1), at(0), TERM).await.unwrap();
    (store, lease.epoch)
}

/// The other side of a test: this test executable again, in a process of its own.
pub struct Other {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Where the other side finds the file.
pub const STATE: &str = "STILLPOINT_TEST_STATE";

impl Other {
    /// Runs the ignored test of this name.
    pub fn start(test: &str, state: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        Self::run(command.env(STATE, state))
    }

    pub fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from: BufReader::new(from) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says to us.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        while self.from.read_line(&mut line).unwrap() > 0 {
            if let Some(said) = line.trim_end().strip_prefix("> ") {
                return said.to_owned();
            }
            line.clear();
        }
        panic!("the other process ended");
    }

    /// Asks it to do something, and waits for what it says.
    pub fn ask(&mut self, what: &str) -> String {
        writeln!(self.to, "{what}").unwrap();
        self.hear()
    }

    /// As the operating system kills a process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The other side's end of the line: the file, unless this is not the other side at all.
pub fn state() -> Option<PathBuf> {
    std::env::var_os(STATE).map(PathBuf::from)
}

#[allow(clippy::print_stdout, reason = "how the other side speaks")]
pub fn say(what: impl std::fmt::Display) {
    println!("\n> {what}");
    std::io::stdout().flush().unwrap();
}

/// Says what each line that comes in is answered with.
pub fn answer(mut to: impl FnMut(&str) -> String) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        say(to(&line));
    }
}
