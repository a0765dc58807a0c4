//! The store as a journal.

// A test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use futures_util::future::join_all;
use stillpoint_catalog::{Catalog, CatalogExt, Cursor, PointQuery};
use stillpoint_context::{ErrorFacts, Mono};
use stillpoint_model::point::{PointFact, Truncation};
use stillpoint_store_sqlite::SqliteStore;
use stillpoint_testkit::conformance::catalog::point;
use stillpoint_workflow::{
    Append, Batch, Forget, Journal, JournalError, Leases, MemoryJournal, Now, Payload, Position,
    Record, RunRecord, Seq, Stored, StreamId,
};
use support::{
    MARGIN, TERM, append, at, batch, ended, fact, folder, leased, one, process, record, run, topic,
};
use uuid::Uuid;

fn stream(number: u128) -> StreamId {
    StreamId::Run(run(number))
}

async fn records(store: &SqliteStore, of: StreamId) -> Vec<Stored> {
    Journal::read(store, &of, Seq(0), 1000).await.unwrap()
}

/// A record of so many bytes and some.
fn large(bytes: usize, fill: char) -> Record {
    let text = fill.to_string().repeat(bytes);
    let output = Payload::of(&text).unwrap();
    let node = serde_json::from_value(7.into()).unwrap();
    Record::Run(RunRecord::Succeeded { node, attempt: 1, output, warnings: Vec::new() })
}

#[tokio::test]
async fn large_appends_are_whole_or_not_there_like_small_ones() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    // Around the size from which on they are written by themselves, and far beyond what SQLite keeps in memory.
    let sizes = [(1 << 20) - 200, (1 << 20) - 60, 1 << 20, 9 << 20];
    for (number, size) in (1_u32..).zip(sizes) {
        let of = stream(number.into());
        let records = vec![record(1), large(size, 'x'), record(2)];
        let one = || batch(process(1), epoch, vec![append(of, 0, records.clone())]);
        let position = store.commit(one()).await.unwrap();
        assert_eq!(store.commit(one()).await.unwrap(), position, "a repeat");
        let other = append(of, 0, vec![record(1), large(size, 'y'), record(2)]);
        let other = store.commit(batch(process(1), epoch, vec![other])).await;
        assert!(matches!(other, Err(JournalError::Conflict { .. })));
        // With another one that does not fit.
        let more = append(of, 3, vec![large(size, 'z')]);
        let misfit = append(stream(99), 5, vec![record(1)]);
        let both = store.commit(batch(process(1), epoch, vec![more, misfit])).await;
        assert!(matches!(both, Err(JournalError::Conflict { .. })));
        let stored = self::records(&store, of).await;
        assert!(stored.iter().map(|stored| &stored.record).eq(&records));
    }
    store.check().await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    for (number, size) in (1_u32..).zip(sizes) {
        let stored = records(&store, stream(number.into())).await;
        assert_eq!(stored[1].record, large(size, 'x'));
        assert_eq!(stored.len(), 3);
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let now = Now {
        mono: Mono(Duration::new(3, 7)),
        civil: DateTime::UNIX_EPOCH + TimeDelta::new(1_728_000_000, 123_456_789).unwrap(),
    };
    let mut first = append(stream(1), 0, vec![record(1), record(2)]);
    first.at = now;
    let mut both =
        batch(process(1), epoch, vec![first, append(StreamId::Arbiter, 0, vec![record(3)])]);
    both.facts.push(fact("t", "a", b"\0\xff"));
    let position = store.commit(both).await.unwrap();
    drop(store);

    let store = SqliteStore::open(&path).unwrap();
    let stored = records(&store, stream(1)).await;
    let expected = |seq, number| Stored {
        stream: stream(1),
        seq: Seq(seq),
        position,
        at: now,
        record: record(number),
    };
    assert_eq!(stored, [expected(0, 1), expected(1, 2)]);
    assert_eq!(records(&store, StreamId::Arbiter).await.len(), 1);
    assert_eq!(store.head(&stream(1)).await.unwrap(), Seq(2));
    let facts = store.facts(&topic("t"), Position(0), 9).await.unwrap();
    assert_eq!(
        (facts[0].position, facts[0].run, &facts[0].fact.body[..]),
        (position, run(1), &b"\0\xff"[..])
    );
    let open = store.open(None, 9).await.unwrap();
    assert_eq!((open[0].stream, open[0].owner, open[0].head), (stream(1), process(1), Seq(2)));
    store.check().await.unwrap();
}

#[tokio::test]
async fn without_a_lease_of_this_epoch_nothing_is_written() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let attempt = |owner, epoch| store.commit(batch(process(owner), epoch, vec![one(1, 5, 0)]));
    for (owner, epoch) in [(1, 0), (1, epoch + 1), (2, epoch), (1, u64::MAX)] {
        let refused = attempt(owner, epoch).await.unwrap_err();
        assert_eq!(refused, JournalError::Fenced { owner: process(owner), epoch });
    }
    // It is looked at first, but not only.
    assert!(matches!(attempt(1, epoch).await, Err(JournalError::Conflict { head: Seq(0), .. })));
    store.release(process(1), epoch).await.unwrap();
    assert!(matches!(attempt(1, epoch).await, Err(JournalError::Fenced { .. })));
}

/// Numbers from a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A batch for a few streams that fits, repeats, half repeats or conflicts.
fn draw(random: &mut Random, heads: &mut [u64; 6], last: &[Append], epoch: u64) -> Batch {
    let mut streams: Vec<usize> = (0..6).filter(|_| random.below(3) == 0).collect();
    if random.below(2) == 0 {
        streams.truncate(1);
    }
    let of = |at: usize| match at {
        0 => StreamId::Arbiter,
        1 => StreamId::Key(Uuid::from_u128(7)),
        at => StreamId::Run(run(at as u128)),
    };
    let mut appends: Vec<_> = streams
        .into_iter()
        .map(|at| {
            let expected = match random.below(8) {
                0 => heads[at] + random.below(3),
                1 => heads[at].saturating_sub(random.below(3)),
                _ => heads[at],
            };
            let mut records: Vec<_> = (0..random.below(4))
                .map(|_| record(u32::try_from(random.below(2)).unwrap()))
                .collect();
            if at > 1 && random.below(10) == 0 {
                records.push(ended());
            }
            append(of(at), expected, records)
        })
        .collect();
    match random.below(6) {
        0 => appends = last.to_vec(),
        1 if !appends
            .iter()
            .any(|append| last.first().is_some_and(|l| l.stream == append.stream)) =>
        {
            appends.extend(last.first().cloned());
        }
        _ => {}
    }
    let facts = (0..random.below(4) / 2).map(|n| fact("t", &n.to_string(), b"x")).collect();
    Batch { owner: process(1), epoch, appends, facts }
}

/// Every answer is that of the journal in memory, whatever is asked.
#[tokio::test]
async fn it_answers_as_the_journal_in_memory_does() {
    for seed in 1..=3 {
        let (_folder, path) = folder();
        let (store, mut epoch) = leased(&path).await;
        let memory = MemoryJournal::new();
        memory.acquire(process(1), at(0), TERM).await.unwrap();
        let mut random = Random(seed);
        let (mut heads, mut last) = ([0; 6], Vec::new());
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..250 {
            let batch = draw(&mut random, &mut heads, &last, epoch);
            let ours = store.commit(batch.clone()).await;
            assert_eq!(ours, memory.commit(batch.clone()).await, "{batch:?}");
            if ours.is_ok() {
                accepted += 1;
                last = batch.appends;
            } else {
                refused += 1;
            }
            for (at, known) in heads.iter_mut().enumerate() {
                let stream = match at {
                    0 => StreamId::Arbiter,
                    1 => StreamId::Key(Uuid::from_u128(7)),
                    at => StreamId::Run(run(at as u128)),
                };
                let head = store.head(&stream).await.unwrap();
                assert_eq!(head, memory.head(&stream).await.unwrap());
                *known = head.0;
                let from = Seq(random.below(head.0 + 2));
                let max = usize::try_from(random.below(9)).unwrap();
                assert_eq!(
                    Journal::read(&store, &stream, from, max).await.unwrap(),
                    memory.read(&stream, from, max).await.unwrap(),
                    "{stream} from {from:?}, {max}"
                );
            }
            let after = Position(random.below(accepted + 1));
            let max = usize::try_from(random.below(4)).unwrap();
            assert_eq!(
                store.facts(&topic("t"), after, max).await.unwrap(),
                memory.facts(&topic("t"), after, max).await.unwrap()
            );
            let after = [
                None,
                Some(StreamId::Arbiter),
                Some(StreamId::Run(run(3))),
                Some(StreamId::Key(Uuid::nil())),
            ][usize::try_from(random.below(4)).unwrap()];
            assert_eq!(
                store.open(after, max).await.unwrap(),
                memory.open(after, max).await.unwrap()
            );
            if random.below(40) == 0 {
                let lease = store.acquire(process(1), at(9), TERM).await.unwrap();
                assert_eq!(lease, memory.acquire(process(1), at(9), TERM).await.unwrap());
                epoch = lease.epoch;
            }
        }
        assert!(accepted > 60 && refused > 30, "{accepted} and {refused}");
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn leases_are_as_those_in_memory() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let memory = MemoryJournal::new();
    let mut random = Random(5);
    for now in 0..300 {
        let now = at(now * random.below(3));
        let process = process(random.below(3).into());
        let epoch = random.below(40);
        let term = Duration::from_secs(random.below(200));
        match random.below(5) {
            0 => assert_eq!(
                store.acquire(process, now, term).await,
                memory.acquire(process, now, term).await
            ),
            1 => {
                let held = memory.leases().await.unwrap();
                let epoch = held.first().map_or(epoch, |lease| lease.epoch);
                assert_eq!(
                    store.renew(process, epoch, now, term).await,
                    memory.renew(process, epoch, now, term).await
                );
            }
            2 => assert_eq!(
                store.release(process, epoch).await,
                memory.release(process, epoch).await
            ),
            _ => assert_eq!(
                store.fence(process, now, MARGIN).await,
                memory.fence(process, now, MARGIN).await
            ),
        }
        assert_eq!(store.leases().await, memory.leases().await);
    }
}

#[tokio::test]
async fn a_stream_twice_in_one_batch_conflicts() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    for second in [0, 1] {
        let twice = batch(process(1), epoch, vec![one(1, 0, 1), one(1, second, 2)]);
        assert!(matches!(store.commit(twice).await, Err(JournalError::Conflict { .. })));
    }
    assert!(records(&store, stream(1)).await.is_empty());
}

#[tokio::test]
async fn numbers_beyond_all_bounds_are_refused_or_find_nothing() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    store.commit(batch(process(1), epoch, vec![one(1, 0, 1)])).await.unwrap();
    for expected in [1 << 62, i64::MAX as u64, u64::MAX] {
        let mut far = one(1, 0, 1);
        far.expected = Seq(expected);
        let refused = store.commit(batch(process(1), epoch, vec![far])).await.unwrap_err();
        assert!(matches!(refused, JournalError::Conflict { head: Seq(1), .. }), "{refused}");
        assert!(
            Journal::read(&store, &stream(1), Seq(expected), usize::MAX).await.unwrap().is_empty()
        );
        assert!(store.facts(&topic("t"), Position(expected), usize::MAX).await.unwrap().is_empty());
    }
    assert_eq!(Journal::read(&store, &stream(1), Seq(0), usize::MAX).await.unwrap().len(), 1);
}

#[tokio::test]
async fn many_at_once_are_each_whole_and_in_one_order() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    // Each of 200 runs writes to its own stream and wants the same place in the arbiter's.
    let commits = (1..=200).map(|n| {
        let both = vec![one(n, 0, 1), append(StreamId::Arbiter, 0, vec![record(2)])];
        store.commit(batch(process(1), epoch, both))
    });
    let won = join_all(commits).await.into_iter().flatten().count();
    assert_eq!(won, 1);
    assert_eq!(store.open(None, 999).await.unwrap().len(), 1, "who lost has written nothing");
    let commits = (1000..1500).map(|n| store.commit(batch(process(1), epoch, vec![one(n, 0, 1)])));
    let mut positions: Vec<_> =
        join_all(commits).await.into_iter().map(|done| done.unwrap().0).collect();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), 500);
    store.check().await.unwrap();
}

fn point_fact(said: &PointFact) -> (stillpoint_context::RunId, stillpoint_workflow::FactDraft) {
    fact("restore-point", &said.point().to_string(), &serde_json::to_vec(said).unwrap())
}

fn published(number: u128) -> PointFact {
    PointFact::Published(Box::new(point(number, 1, i64::try_from(number).unwrap()).unwrap()))
}

#[tokio::test]
async fn facts_are_in_the_catalogue_with_the_commit_that_states_them() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let state = |seq, facts: &[PointFact]| {
        let mut batch = batch(process(1), epoch, vec![one(1, seq, 1)]);
        batch.facts = facts.iter().map(point_fact).collect();
        store.commit(batch)
    };
    let points = || async { store.all_points(&PointQuery::all()).await.unwrap().len() };
    state(0, &[]).await.unwrap();
    assert_eq!(store.cursor().await.unwrap(), None, "nothing was said");
    let said = state(1, &[published(1), published(2)]).await.unwrap();
    assert_eq!((points().await, store.cursor().await.unwrap()), (2, Some(Cursor(said.0))));
    // Said again, it is not said again.
    assert_eq!(state(1, &[published(1), published(2)]).await.unwrap(), said);
    assert_eq!(store.facts(&topic("restore-point"), Position(0), 9).await.unwrap().len(), 2);
    // Refused, it is not said at all.
    state(1, &[published(3)]).await.unwrap();
    state(9, &[published(4)]).await.unwrap_err();
    assert_eq!(points().await, 2);

    // One that does not fit: the commit stands, and the catalogue stays before it with all that follows.
    let stray = PointFact::Completed {
        point: published(9).point(),
        at: stillpoint_testkit::conformance::catalog::at(1),
        truncation: Truncation::Unknown,
    };
    let unfit = state(2, &[published(5), stray]).await.unwrap();
    let after = state(3, &[published(6)]).await.unwrap();
    assert_eq!((points().await, store.cursor().await.unwrap()), (2, Some(Cursor(said.0))));
    let pending = store.facts(&topic("restore-point"), said, 9).await.unwrap();
    assert_eq!(pending.iter().map(|fact| fact.position).collect::<Vec<_>>(), [unfit, unfit, after]);

    // Whoever feeds catalogues brings it on; then commits do so again.
    store.apply(&[published(6)], Some(Cursor(after.0))).await.unwrap();
    let last = state(4, &[published(7)]).await.unwrap();
    assert_eq!((points().await, store.cursor().await.unwrap()), (4, Some(Cursor(last.0))));

    // A body that is none counts as one that does not fit.
    let mut strange = batch(process(1), epoch, vec![one(1, 5, 1)]);
    strange.facts.push(fact("restore-point", "x", b"what"));
    store.commit(strange).await.unwrap();
    assert_eq!(store.cursor().await.unwrap(), Some(Cursor(last.0)));
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_newer_form_of_records_is_named_and_holes_are_found() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    for seq in 0..4 {
        store.commit(batch(process(1), epoch, vec![one(1, seq, 1), one(2, seq, 1)])).await.unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    // What is done to the file, what reading stream 1 then says, and whether the file is unsound.
    let cases = [
        (
            r#"UPDATE append SET records = CAST('{"format":7,"records":[{"moon":1}]}' AS BLOB) WHERE seq = 2"#,
            "journal.format",
            false,
        ),
        ("UPDATE append SET records = x'7b' WHERE seq = 2", "journal.corrupt", true),
        (
            r#"UPDATE append SET records = CAST('{"format":1,"records":[]}' AS BLOB) WHERE seq = 3"#,
            "journal.corrupt",
            true,
        ),
        ("DELETE FROM append WHERE seq = 0", "journal.corrupt", true),
        ("DELETE FROM append WHERE seq = 2", "journal.corrupt", true),
        ("DELETE FROM append WHERE seq = 3", "journal.corrupt", true),
        ("UPDATE append SET count = 2 WHERE seq = 3", "journal.corrupt", true),
        ("UPDATE append SET count = 0 WHERE seq = 3", "journal.corrupt", true),
        ("UPDATE stream SET head = 5", "journal.corrupt", true),
        ("UPDATE stream SET head = 3", "", true),
        ("UPDATE stream SET open = 0", "", true),
        ("DELETE FROM stream WHERE n = 2", "", true),
        ("DELETE FROM lease", "", true),
        ("UPDATE append SET position = 9 WHERE seq = 1", "", true),
        ("INSERT INTO fact VALUES ('t', 99, 0, zeroblob(16), 'k', x'')", "", true),
    ];
    for (change, code, unsound) in cases {
        std::fs::write(&path, &good).unwrap();
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(change).unwrap();
        drop(db);
        let store = SqliteStore::open(&path).unwrap();
        let found = Journal::read(&store, &stream(1), Seq(0), 9).await;
        let found = found.err().map(|error| error.code().to_string()).unwrap_or_default();
        assert_eq!(found, code, "{change}");
        let checked = store.check().await.err().map(|error| error.code().to_string());
        assert_eq!(checked.as_deref(), unsound.then_some("state.corrupt"), "{change}");
    }
}

/// A stream whose head is before its records: writing there meets what is there.
#[tokio::test]
async fn damage_to_one_stream_keeps_no_other_from_going_on() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    store.commit(batch(process(1), epoch, vec![one(1, 0, 1)])).await.unwrap();
    store.commit(batch(process(1), epoch, vec![one(1, 1, 1)])).await.unwrap();
    drop(store);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("UPDATE stream SET head = 1").unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let commits = (1..=50).map(|n| {
        let expected = u64::from(n == 1);
        store.commit(batch(process(1), epoch, vec![one(n, expected, 2)]))
    });
    let answers = join_all(commits).await;
    assert!(matches!(answers[0], Err(JournalError::Corrupt(_))), "{:?}", answers[0]);
    assert!(answers[1..].iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_another_process_has_forgotten_may_be_begun_anew() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let other = SqliteStore::open(&path).unwrap();
    let key = StreamId::Key(Uuid::from_u128(1));
    let life =
        || vec![append(key, 0, vec![record(1)]), append(stream(1), 0, vec![record(1), ended()])];
    store.commit(batch(process(1), epoch, life())).await.unwrap();
    // The newest stream and the last commit stay, as their numbers must not be given again.
    let all = Forget::streams(vec![key, stream(1)]);
    assert_eq!(other.forget(&all).await.unwrap(), 1, "the key");
    assert_eq!(records(&store, stream(1)).await.len(), 2);
    let last = batch(process(1), epoch, vec![append(stream(2), 0, vec![record(1), ended()])]);
    let last = store.commit(last).await.unwrap();
    assert_eq!(other.forget(&all).await.unwrap(), 1);
    assert_eq!(records(&store, stream(1)).await, []);
    // This process still has their numbers in mind.
    let again = store.commit(batch(process(1), epoch, life())).await.unwrap();
    assert!(again > last);
    assert_eq!(records(&other, stream(1)).await.len(), 2);
    assert_eq!(records(&other, key).await.len(), 1);
    // And once more, with one append by itself.
    let next = batch(process(1), epoch, vec![append(stream(3), 0, vec![record(1)])]);
    store.commit(next).await.unwrap();
    assert_eq!(other.forget(&all).await.unwrap(), 2);
    let alone = vec![append(stream(1), 0, vec![record(7)])];
    store.commit(batch(process(1), epoch, alone)).await.unwrap();
    assert_eq!(records(&other, stream(1)).await[0].record, record(7));
    store.check().await.unwrap();
}

/// Beginnings of the arbiter's stream that are forgotten are no damage; a hole still is.
#[tokio::test]
async fn a_check_tells_what_is_forgotten_from_what_is_lost() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    for from in 0..5 {
        let append = append(StreamId::Arbiter, from, vec![record(1)]);
        store.commit(batch(process(1), epoch, vec![append])).await.unwrap();
    }
    store.forget(&Forget::arbiter(Seq(3))).await.unwrap();
    store.check().await.unwrap();
    let left: Vec<Seq> = records(&store, StreamId::Arbiter).await.iter().map(|r| r.seq).collect();
    assert_eq!(left, [Seq(3), Seq(4)]);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE stream SET first = 2", []).unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), "state.corrupt", "{error}");
    let error = Journal::read(&store, &StreamId::Arbiter, Seq(0), 9).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt(_)), "{error}");
}

/// The room of what is forgotten is used again: a file whose runs come and go has a size.
#[tokio::test]
async fn a_file_that_forgets_does_not_grow() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let pages = || -> i64 {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
    };
    let (mut from, mut sizes) = (0, Vec::new());
    for round in 0..6_u128 {
        let runs: Vec<StreamId> = (1..=60).map(|number| stream(1000 * round + number)).collect();
        for of in &runs {
            let StreamId::Run(run) = of else { panic!("{of}") };
            let lives = append(*of, 0, vec![large(10_000, 'x'), record(1), ended()]);
            let grants = append(StreamId::Arbiter, from, vec![record(1), record(2)]);
            from += 2;
            let mut batch = batch(process(1), epoch, vec![lives, grants]);
            batch.facts = vec![(*run, fact("a", "key", &[7; 2000]).1)];
            store.commit(batch).await.unwrap();
        }
        sizes.push(pages());
        store.forget(&Forget::streams(runs)).await.unwrap();
        store.forget(&Forget::arbiter(Seq(from))).await.unwrap();
    }
    store.check().await.unwrap();
    assert!(sizes[0] > 150, "{sizes:?}");
    assert!(sizes[5] <= sizes[1] + sizes[1] / 10, "{sizes:?}");
}
