//! What a disk may do to the file: lose it at a kill, fill up, fail, rot.
#![cfg(target_os = "linux")]
// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use stillpoint_context::ErrorFacts;
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{Journal, JournalError, Leases, Seq, StreamId};
use support::{Other, STATE, TERM, at, batch, folder, one, process, run, say, state};

/// After how many commits the other side ends by itself.
const COMMITS: &str = "STILLPOINT_TEST_COMMITS";

/// Not a test by itself: commits until it is killed or the disk fails it, and says how it went.
#[test]
#[ignore = "the other side of the tests below"]
fn committing_process() {
    let Some(path) = state() else { return };
    let ballast = path.with_file_name("ballast");
    std::fs::write(&ballast, vec![1; 200_000]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path).unwrap();
        let epoch = store.acquire(process(1), at(0), TERM).await.unwrap().epoch;
        let commit = |seq| store.commit(batch(process(1), epoch, vec![one(1, seq, 7)]));
        let mut committed = 0;
        let most = std::env::var(COMMITS).map_or(u64::MAX, |most| most.parse().unwrap());
        let error = loop {
            if committed == most {
                return;
            }
            match commit(committed).await {
                Ok(_) => committed += 1,
                Err(error) => break error,
            }
            say(committed);
        };
        say(error.code());
        // Until there is room again, it says so; and what was committed can be read.
        assert!(commit(committed).await.is_err());
        assert_eq!(store.head(&StreamId::Run(run(1))).await.unwrap(), Seq(committed));
        std::fs::remove_file(&ballast).unwrap();
        say(commit(committed)
            .await
            .map_or_else(|error| error.code().to_string(), |_| "goes on".into()));
        say(store.check().await.map_or_else(|error| error.to_string(), |()| "sound".into()));
    });
}

/// The last number that the other side said before something else.
fn count(other: &mut Other) -> (u64, String) {
    let mut last = 0;
    loop {
        let said = other.hear();
        match said.parse() {
            Ok(number) => last = number,
            Err(_) => return (last, said),
        }
    }
}

async fn committed(path: &Path) -> u64 {
    let store = SqliteStore::open(path).unwrap();
    store.check().await.unwrap();
    store.head(&StreamId::Run(run(1))).await.unwrap().0
}

fn shell(script: &str, state: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["committing_process", "--exact", "--ignored", "--nocapture"]).env(STATE, state);
    command
}

#[tokio::test]
async fn every_commit_is_synced_before_it_is_answered() {
    let (folder, path) = folder();
    let log = folder.path().join("trace");
    if !Command::new("strace").args(["-f", "true"]).output().is_ok_and(|done| done.status.success())
    {
        eprintln!("SKIPPED: there is no strace, or this process may not trace another");
        return;
    }
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o"]).arg(&log);
    traced.arg(std::env::current_exe().unwrap()).env(STATE, &path);
    traced.args(["committing_process", "--exact", "--ignored", "--nocapture"]).env(COMMITS, "3");
    let mut other = Other::run(&mut traced);
    for number in 1..=3 {
        assert_eq!(other.hear(), number.to_string());
    }
    other.wait();
    let trace = std::fs::read_to_string(&log).unwrap();
    let (mut syncs, mut answered) = (0, 0);
    let mut unsynced = false;
    for line in trace.lines() {
        if line.contains("pwrite64(") && line.contains("-wal>") {
            unsynced = true;
        } else if line.contains("sync") && line.ends_with("= 0") {
            // The second half of a call has no path; nothing but the log is synced between commits.
            let whole = line.contains("-wal>") || line.contains("resumed>");
            if whole {
                unsynced = false;
                syncs += 1;
            }
        } else if line.contains("write(1<") && line.contains("\"> ") {
            assert!(!unsynced && syncs > answered, "answered before it was synced: {line}");
            answered += 1;
        }
    }
    assert!(answered == 3 && syncs > 3, "{answered} answers, {syncs} syncs in\n{trace}");
}

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    let (_folder, path) = folder();
    let mut other = Other::start("committing_process", &path);
    for _ in 0..20 {
        other.hear();
    }
    other.kill();
    assert!(committed(&path).await >= 20);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_loses_no_commit() {
    let (_folder, path) = folder();
    // A file that may not grow any more.
    let script = "trap '' XFSZ; ulimit -f 600; exec \"$@\"";
    let mut other = Other::run(&mut shell(script, &path));
    let (count, error) = count(&mut other);
    assert!(["journal.io", "journal.full"].contains(&error.as_str()), "{error}");
    assert!(count > 5, "{count}");
    // It is another file's room that was freed.
    let (_, later) = self::count(&mut other);
    assert!(later.starts_with("journal."), "{later}");
    drop(other);
    // One more may be there: the one of which it was not known.
    let there = committed(&path).await;
    assert!((count..=count + 1).contains(&there), "{there} of {count}");
}

#[test]
fn a_disk_that_is_full_is_told_and_passes() {
    let (folder, path) = folder();
    let place = folder.path().display();
    let mount = format!("mount -t tmpfs -o size=1m none '{place}'");
    let apart = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.args(["committing_process", "--exact", "--ignored", "--nocapture"]);
        command.env(STATE, &path);
        command
    };
    if !apart(&mount).output().is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: this process may not mount a file system of its own");
        return;
    }
    let mut other = Other::run(&mut apart(&format!("{mount} && exec \"$@\"")));
    let (count, error) = count(&mut other);
    assert_eq!(error, "journal.full");
    assert!(count > 5, "{count}");
    assert_eq!((other.hear(), other.hear()), ("goes on".to_owned(), "sound".to_owned()));
}

/// A log as a killed process leaves it, and the state file beside it.
struct Left {
    path: PathBuf,
    db: Vec<u8>,
    log: Vec<u8>,
    commits: u64,
}

const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

impl Left {
    async fn behind(path: &Path) -> Self {
        let mut other = Other::start("committing_process", path);
        while other.hear() != "12" {}
        other.kill();
        let beside = path.with_extension("db-wal");
        let (db, log) = (std::fs::read(path).unwrap(), std::fs::read(beside).unwrap());
        let left = Self { path: path.to_owned(), db, log, commits: committed(path).await };
        assert!(left.frames() > 20);
        left
    }

    fn frames(&self) -> usize {
        (self.log.len() - HEADER) / FRAME
    }

    /// The frames with which transactions end.
    fn ends(&self) -> Vec<usize> {
        let ends = |frame: &usize| self.log[HEADER + frame * FRAME + 4..][..4] != [0; 4];
        (0..self.frames()).filter(ends).collect()
    }

    /// What is there when the log is as given: the number of commits, or the code of an error.
    async fn found(&self, log: &[u8]) -> Result<u64, String> {
        std::fs::write(&self.path, &self.db).unwrap();
        std::fs::write(self.path.with_extension("db-wal"), log).unwrap();
        drop(std::fs::remove_file(self.path.with_extension("db-shm")));
        let error = |error: &dyn ErrorFacts| error.code().to_string();
        let store = SqliteStore::open(&self.path).map_err(|e| error(&e))?;
        store.check().await.map_err(|e| error(&e))?;
        store.head(&StreamId::Run(run(1))).await.map(|head| head.0).map_err(|e| error(&e))
    }
}

#[tokio::test]
async fn damage_to_the_log_is_not_taken_for_its_end() {
    let (_folder, path) = folder();
    let left = Left::behind(&path).await;
    assert_eq!(left.found(&left.log).await, Ok(left.commits));
    let ends = left.ends();
    let last = ends[ends.len() - 2] + 1;
    // A byte of the page, of its number, of the salt, of the checksum: in turns, and all where it matters most.
    let offsets = [24 + 99, 1, 8, 20];
    let tried = (0..left.frames()).flat_map(|frame| {
        let all = frame == 0 || frame + 8 > last;
        let some = offsets.into_iter().enumerate().filter(move |(n, _)| all || n % 4 == frame % 4);
        some.map(move |(_, offset)| (frame, offset))
    });
    for (frame, offset) in tried {
        let mut log = left.log.clone();
        log[HEADER + frame * FRAME + offset] ^= 0x40;
        let found = left.found(&log).await;
        if frame < last {
            assert_eq!(found, Err("state.corrupt".to_owned()), "frame {frame} at {offset}");
        } else {
            // The last commit was never acknowledged, for all that the log can tell; what is behind it was none.
            let there = left.commits - u64::from(frame <= ends[ends.len() - 1]);
            assert_eq!(found, Ok(there), "frame {frame} at {offset}");
        }
    }
    let mut log = left.log.clone();
    log[17] ^= 1;
    assert_eq!(left.found(&log).await, Err("state.corrupt".to_owned()));
    // Nothing of this was written into the file.
    assert_eq!(left.found(&left.log).await, Ok(left.commits));
}

#[tokio::test]
async fn a_log_that_ends_in_the_middle_is_one_of_fewer_commits() {
    let (_folder, path) = folder();
    let left = Left::behind(&path).await;
    let mut before = 0;
    for length in (0..=left.log.len()).step_by(FRAME / 3) {
        match left.found(&left.log[..length]).await {
            Ok(commits) => {
                assert!((before..=before + 1).contains(&commits), "{commits} after {before}");
                before = commits;
            }
            // Without its first commits the file is empty, and is made anew.
            Err(code) => panic!("{code} at {length}"),
        }
    }
    assert!(left.commits - before <= 1);
}

/// What a killed process left behind the end of the log while others went on is no damage.
#[tokio::test]
async fn what_others_wrote_over_is_no_damage() {
    let (_folder, path) = folder();
    let left = Left::behind(&path).await;
    let ends = left.ends();
    // The frames of a commit that was never seen, and over its beginning one that was: the last two change places.
    let (from, middle) = (ends[ends.len() - 3] + 1, ends[ends.len() - 2] + 1);
    let frame = |number: usize| HEADER + number * FRAME;
    let mut log = left.log[..frame(middle)].to_vec();
    // Twice what does not follow on what is before it.
    log.extend_from_slice(&left.log[frame(from) + FRAME..frame(middle)]);
    log.extend_from_slice(&left.log[frame(from) + FRAME..frame(middle)]);
    assert_eq!(left.found(&log).await, Ok(left.commits - 1));
}

#[tokio::test]
async fn damaged_pages_are_told_by_whoever_meets_them() {
    let (_folder, path) = folder();
    let (store, epoch) = support::leased(&path).await;
    for number in 1..=300 {
        store.commit(batch(process(1), epoch, vec![one(number, 0, 7)])).await.unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut met = 0;
    for at in (4096..good.len()).step_by(4096) {
        let mut bad = good.clone();
        bad[at + 8..at + 4096].fill(0xA5);
        std::fs::write(&path, &bad).unwrap();
        let Ok(store) = SqliteStore::open(&path) else {
            met += 1;
            continue;
        };
        let mut answers = vec![store.check().await.map_err(|error| error.code())];
        for number in 1..=300 {
            let stream = StreamId::Run(run(number));
            let read = Journal::read(&store, &stream, Seq(0), 9).await;
            answers.push(read.map(drop).map_err(|error| error.code()));
        }
        let commit = store.commit(batch(process(1), epoch, vec![one(1, 1, 7)])).await;
        if let Err(JournalError::Fenced { .. }) = commit {
            panic!("damage is no fencing");
        }
        for code in answers.into_iter().filter_map(Result::err) {
            assert!(["journal.corrupt", "state.corrupt"].contains(&code.as_str()), "{code}");
            met += 1;
        }
    }
    assert!(met > 5, "{met}");
}
