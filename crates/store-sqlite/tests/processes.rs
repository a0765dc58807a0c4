//! Several stores on one file, in one process and in several: conflicts, fencing, life and death.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};

use stillpoint_store_sqlite::SqliteStore;
use stillpoint_workflow::{Fencing, Journal, JournalError, Leases, Position, Seq, StreamId};
use support::{
    MARGIN, Other, TERM, append, at, batch, folder, leased, one, process, record, run, say, state,
};

/// Not a test by itself: does what it is told, with a store of its own.
#[test]
#[ignore = "the other side of the tests below"]
fn other_process() {
    let Some(path) = state() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut store = Some(SqliteStore::open(path).unwrap());
    say("ready");
    support::answer(|line| {
        let (verb, numbers) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = numbers.split(' ').filter_map(|word| word.parse().ok()).collect();
        let store_now = store.clone();
        let store_now = || store_now.as_ref().unwrap();
        match (verb, &numbers[..]) {
            ("acquire", &[who]) => {
                let lease = store_now().acquire(process(who.into()), at(0), TERM);
                runtime.block_on(lease).unwrap().epoch.to_string()
            }
            ("renew", &[who, epoch]) => {
                let renewed = store_now().renew(process(who.into()), epoch, at(1), TERM);
                told(runtime.block_on(renewed).map(|lease| lease.epoch))
            }
            ("commit", &[who, epoch, number, expected]) => {
                let one = one(number.into(), expected, 9);
                let commit = store_now().commit(batch(process(who.into()), epoch, vec![one]));
                told(runtime.block_on(commit).map(|position| position.0))
            }
            ("count", &[who, epoch, times]) => {
                for _ in 0..times {
                    runtime.block_on(count_one(store_now(), who, epoch));
                }
                "counted".to_owned()
            }
            ("close", _) => {
                store = None;
                "closed".to_owned()
            }
            _ => panic!("{line}?"),
        }
    });
}

fn told(answer: Result<u64, JournalError>) -> String {
    match answer {
        Ok(number) => number.to_string(),
        Err(JournalError::Fenced { .. }) => "fenced".to_owned(),
        Err(JournalError::Conflict { head, .. }) => format!("conflict at {}", head.0),
        Err(other) => other.to_string(),
    }
}

/// Appends one record to the arbiter's stream, wherever it ends.
async fn count_one(store: &SqliteStore, who: u64, epoch: u64) {
    let mut expected = store.head(&StreamId::Arbiter).await.unwrap();
    loop {
        let next = append(StreamId::Arbiter, expected.0, vec![record(u32::try_from(who).unwrap())]);
        match store.commit(batch(process(who.into()), epoch, vec![next])).await {
            Ok(_) => return,
            Err(JournalError::Conflict { head, .. }) => {
                assert!(head > expected, "{head:?} {expected:?}");
                expected = head;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The other side, and the epoch of its lease as process 2.
fn other(path: &Path) -> (Other, String) {
    let mut other = Other::start("other_process", path);
    assert_eq!(other.hear(), "ready");
    let epoch = other.ask("acquire 2");
    (other, epoch)
}

fn marks(path: &Path) -> Vec<PathBuf> {
    let folder = path.with_file_name("stillpoint.db.alive");
    let files = std::fs::read_dir(folder).map(|files| files.map(|file| file.unwrap().path()));
    files.into_iter().flatten().collect()
}

#[tokio::test]
async fn heads_are_the_same_for_all_processes() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let (mut other, theirs) = other(&path);
    let ours = |expected| store.commit(batch(process(1), epoch, vec![one(1, expected, 1)]));
    assert_eq!(ours(0).await.unwrap(), Position(1));
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 0")), "conflict at 1");
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 1")), "2");
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 1")), "2", "repeated");
    let conflict = ours(1).await.unwrap_err();
    assert!(matches!(conflict, JournalError::Conflict { head: Seq(2), .. }), "{conflict}");
    assert_eq!(ours(2).await.unwrap(), Position(3));
    let stored = Journal::read(&store, &StreamId::Run(run(1)), Seq(0), 9).await.unwrap();
    let positions: Vec<_> = stored.iter().map(|stored| stored.position.0).collect();
    assert_eq!(positions, [1, 2, 3]);
    assert_eq!(store.open(None, 9).await.unwrap()[0].owner, process(1));
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 3")), "4");
    assert_eq!(store.open(None, 9).await.unwrap()[0].owner, process(2));
}

#[tokio::test]
async fn who_was_fenced_off_is_refused_in_its_own_process() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let (mut other, theirs) = other(&path);
    let commit = format!("commit 2 {theirs} 1 0");
    assert_eq!(other.ask(&commit), "1");
    // It lives, so its lease has to end, and the margin with it.
    let early = at(69);
    let alive = store.fence(process(2), early, MARGIN).await.unwrap();
    assert_eq!(alive, Fencing::Alive { until: at(60) });
    assert_eq!(other.ask(&format!("renew 2 {theirs}")), theirs);
    let renewed = store.fence(process(2), at(70), MARGIN).await.unwrap();
    assert_eq!(renewed, Fencing::Alive { until: at(61) });
    assert_eq!(store.fence(process(2), at(71), MARGIN).await.unwrap(), Fencing::Fenced);
    assert_eq!(other.ask(&commit), "fenced", "also what it wrote before");
    assert_eq!(other.ask(&format!("renew 2 {theirs}")), "fenced");
    let again = other.ask("acquire 2");
    assert!(again.parse::<u64>().unwrap() > theirs.parse().unwrap());
    assert_eq!(other.ask(&format!("commit 2 {again} 1 1")), "2");
}

#[tokio::test]
async fn a_process_that_was_killed_is_fenced_at_once() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let (mut other, theirs) = other(&path);
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 0")), "1");
    assert_eq!(marks(&path).len(), 1);
    other.kill();
    // Also when everybody else was gone meanwhile.
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.open(None, 9).await.unwrap()[0].owner, process(2));
    assert_eq!(store.fence(process(2), at(0), MARGIN).await.unwrap(), Fencing::Fenced);
    assert!(marks(&path).is_empty() && store.leases().await.unwrap().is_empty());
    // Its runs are carried on.
    let ours = store.acquire(process(1), at(0), TERM).await.unwrap();
    store.commit(batch(process(1), ours.epoch, vec![one(1, 1, 1)])).await.unwrap();
    assert_eq!(store.open(None, 9).await.unwrap()[0].owner, process(1));
    store.check().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_process_that_is_paused_outstays_its_lease_before_it_is_fenced() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let (mut other, theirs) = other(&path);
    other.signal("-STOP");
    let alive = store.fence(process(2), at(69), MARGIN).await.unwrap();
    assert_eq!(alive, Fencing::Alive { until: at(60) });
    assert_eq!(store.fence(process(2), at(70), MARGIN).await.unwrap(), Fencing::Fenced);
    other.signal("-CONT");
    assert_eq!(other.ask(&format!("commit 2 {theirs} 1 0")), "fenced");
}

#[tokio::test]
async fn a_store_that_is_closed_lives_no_more() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let second = SqliteStore::open(&path).unwrap();
    let own = store.fence(process(1), at(0), MARGIN).await.unwrap();
    assert_eq!(own, Fencing::Alive { until: at(60) }, "nobody is dead in his own eyes");
    let alive = second.fence(process(1), at(0), MARGIN).await.unwrap();
    assert_eq!(alive, Fencing::Alive { until: at(60) });
    // What it acquired before is over, and only that.
    let again = store.acquire(process(1), at(0), TERM).await.unwrap();
    let more = store.acquire(process(3), at(0), TERM).await.unwrap();
    assert_eq!(marks(&path).len(), 2);
    let refused = second.commit(batch(process(1), epoch, vec![one(1, 0, 1)])).await.unwrap_err();
    assert_eq!(refused, JournalError::Fenced { owner: process(1), epoch });
    second.commit(batch(process(1), again.epoch, vec![one(1, 0, 1)])).await.unwrap();
    // Released by whoever: its own store keeps the file until then.
    store.release(process(3), more.epoch).await.unwrap();
    assert_eq!(marks(&path).len(), 1);
    drop(store);
    assert_eq!(second.fence(process(1), at(0), MARGIN).await.unwrap(), Fencing::Fenced);
    assert!(marks(&path).is_empty());

    let (mut other, theirs) = other(&path);
    assert_eq!(other.ask("close"), "closed");
    assert_eq!(second.fence(process(2), at(0), MARGIN).await.unwrap(), Fencing::Fenced);
    let theirs = theirs.parse().unwrap();
    let refused = second.commit(batch(process(2), theirs, vec![])).await.unwrap_err();
    assert_eq!(refused, JournalError::Fenced { owner: process(2), epoch: theirs });
}

#[tokio::test]
async fn where_nothing_tells_who_lives_only_time_does() {
    /// What fencing says of a store that is gone, after something was done to the folder before or after its lease.
    async fn fenced(before: fn(&Path), after: fn(&Path)) -> Fencing {
        let (_folder, path) = folder();
        let alive = path.with_file_name("stillpoint.db.alive");
        before(&alive);
        drop(leased(&path).await);
        after(&alive);
        let store = SqliteStore::open(&path).unwrap();
        let early = store.fence(process(1), at(69), MARGIN).await.unwrap();
        let late = store.fence(process(1), at(70), MARGIN).await.unwrap();
        assert_eq!(late, Fencing::Fenced);
        early
    }
    let waits = Fencing::Alive { until: at(60) };
    let nothing: fn(&Path) = |_| {};
    assert_eq!(fenced(nothing, nothing).await, Fencing::Fenced);
    // A file is where the folder would be.
    assert_eq!(fenced(|alive| drop(File::create(alive).unwrap()), nothing).await, waits);
    assert_eq!(fenced(nothing, |alive| std::fs::remove_dir_all(alive).unwrap()).await, waits);
}

#[tokio::test]
async fn leftover_files_are_swept_and_others_left() {
    let (_folder, path) = folder();
    drop(leased(&path).await);
    let [of_lease] = &marks(&path)[..] else { panic!("one lease, one file") };
    let file = |name: &str| File::create(of_lease.with_file_name(name)).unwrap();
    file("of-nobody");
    // Somebody is just about to have a lease.
    let locked = file("of-somebody");
    locked.try_lock().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let mut names = marks(&path);
    names.sort();
    assert_eq!(names, [of_lease.clone(), of_lease.with_file_name("of-somebody")]);
    assert_eq!(store.fence(process(1), at(0), MARGIN).await.unwrap(), Fencing::Fenced);
    // Closed alone it would be locked until processes have begun that other tests start just now.
    locked.unlock().unwrap();
    drop(SqliteStore::open(&path).unwrap());
    assert!(marks(&path).is_empty());
}

#[tokio::test]
async fn processes_at_work_at_the_same_time_lose_nothing() {
    const TIMES: u64 = 40;
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let mut others: Vec<_> = (2..=4)
        .map(|who| {
            let mut other = Other::start("other_process", &path);
            assert_eq!(other.hear(), "ready");
            let epoch = other.ask(&format!("acquire {who}"));
            (other, format!("count {who} {epoch} {TIMES}"))
        })
        .collect();
    std::thread::scope(|scope| {
        for (other, count) in &mut others {
            scope.spawn(|| assert_eq!(other.ask(count), "counted"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        scope.spawn(move || {
            for _ in 0..TIMES {
                runtime.block_on(count_one(&store, 1, epoch));
            }
        });
    });
    let store = SqliteStore::open(&path).unwrap();
    let stored = Journal::read(&store, &StreamId::Arbiter, Seq(0), 9999).await.unwrap();
    for who in 1..=4 {
        let of_it = stored.iter().filter(|stored| stored.record == record(who)).count();
        assert_eq!(of_it as u64, TIMES, "each commit is there once");
    }
    assert!(stored.is_sorted_by(|a, b| a.position < b.position));
    store.check().await.unwrap();
}
