//! Forgetting: what is gone is gone whole, what is not is as it was. A journal that keeps everything passes.

use stillpoint_workflow::{Forget, Journal, Position, Seq, StreamId};
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{Writer, all_facts, append, contents, ended, fact, note, run, stream, topic};

const KEY: StreamId = StreamId::Key(Uuid::from_u128(1));

/// Two runs that have ended and one that has not, each with a fact, and the key of the first.
async fn lived(subject: &Subject) -> Result<Writer, Flaw> {
    let (writer, topic) = (Writer::new(subject, 1).await?, topic("conformance")?);
    for number in [1, 2, 3] {
        let mut appends = vec![append(stream(number), 0, vec![note("a")])];
        if number == 1 {
            appends.push(append(KEY, 0, vec![note("key")]));
        }
        let mut batch = writer.batch(appends);
        batch.facts = vec![(run(number), fact(&topic, format!("of {number}")))];
        writer.journal.commit(batch).await?;
    }
    for number in [1, 2] {
        writer.write(vec![append(stream(number), 1, vec![note("b"), ended()])]).await?;
    }
    // So that what is forgotten does not hold the last commit.
    writer.write(vec![append(stream(3), 1, vec![note("b")])]).await?;
    Ok(writer)
}

/// The runs that facts are of.
async fn stated(journal: &dyn Journal) -> Result<Vec<String>, Flaw> {
    let facts = all_facts(journal, &topic("conformance")?).await?;
    Ok(facts.into_iter().map(|fact| fact.fact.key).collect())
}

pub(super) async fn what_is_forgotten_is_gone_whole(subject: Subject) -> Result<(), Flaw> {
    let writer = lived(&subject).await?;
    let journal = &*writer.journal;
    let gone = journal.forget(&Forget::streams(vec![KEY, stream(1)])).await?;
    if gone == 0 {
        same("what is kept", &contents(journal, stream(1)).await?.len(), &3)?;
        return same("the facts", &stated(journal).await?.len(), &3);
    }
    same("how many streams went", &gone, &2)?;
    for stream in [KEY, stream(1)] {
        same("the head of what is gone", &journal.head(&stream).await?, &Seq(0))?;
        same("the records of what is gone", &contents(journal, stream).await?, &Vec::new())?;
    }
    let left = vec![note("a"), note("b"), ended()];
    same("another run", &contents(journal, stream(2)).await?, &left)?;
    same("the facts", &stated(journal).await?, &vec!["of 2".to_owned(), "of 3".to_owned()])?;
    same("what is forgotten once more", &journal.forget(&Forget::streams(vec![KEY])).await?, &0)?;
    // It may be begun anew, with the same and with something else.
    writer.write(vec![append(KEY, 0, vec![note("key")])]).await?;
    writer.write(vec![append(stream(1), 0, vec![note("new")])]).await?;
    same("what is begun anew", &contents(journal, stream(1)).await?, &vec![note("new")])?;
    let open: Vec<_> = journal.open(None, 9).await?.iter().map(|open| open.stream).collect();
    same("the open runs", &open, &vec![stream(1), stream(3)])
}

pub(super) async fn an_open_run_is_never_forgotten(subject: Subject) -> Result<(), Flaw> {
    let writer = lived(&subject).await?;
    let journal = &*writer.journal;
    let unknown = stream(99);
    let gone = journal.forget(&Forget::streams(vec![stream(3), unknown])).await?;
    same("how many streams went", &gone, &0)?;
    same("the open run", &contents(journal, stream(3)).await?, &vec![note("a"), note("b")])?;
    ensure(stated(journal).await?.contains(&"of 3".to_owned()), || {
        "a fact of the open run is gone".to_owned()
    })
}

pub(super) async fn positions_rise_over_what_is_forgotten(
    mut subject: Subject,
) -> Result<(), Flaw> {
    let mut writer = lived(&subject).await?;
    let all = Forget::streams(vec![KEY, stream(1), stream(2), stream(3)]);
    let mut last = writer.write(vec![append(stream(3), 2, vec![ended()])]).await?;
    for round in 0..3_u64 {
        writer.journal.forget(&all).await?;
        drop(writer);
        subject.reopen().await?;
        writer = Writer::new(&subject, u128::from(round) + 2).await?;
        let at = writer.write(vec![append(stream(10), round, vec![note("later")])]).await?;
        ensure(at > last, || format!("the commit after {last:?} is at {at:?}"))?;
        last = at;
    }
    let records = writer.journal.read(&stream(10), Seq(0), 9).await?;
    let mut places: Vec<Position> = records.iter().map(|stored| stored.position).collect();
    places.dedup();
    same("the commits of what is left", &places.len(), &3)
}

pub(super) async fn what_is_left_of_the_arbiter_keeps_its_place(
    mut subject: Subject,
) -> Result<(), Flaw> {
    let mut writer = Writer::new(&subject, 1).await?;
    let text = |place: u64| note(format!("{place}"));
    for from in (0..30).step_by(3) {
        let records = (from..from + 3).map(text).collect();
        writer.write(vec![append(StreamId::Arbiter, from, records)]).await?;
    }
    for before in [0, 13, 5, 29] {
        writer.journal.forget(&Forget::arbiter(Seq(before))).await?;
        drop(writer);
        subject.reopen().await?;
        writer = Writer::new(&subject, 2 + u128::from(before)).await?;
        let journal = &*writer.journal;
        same("the head", &journal.head(&StreamId::Arbiter).await?, &Seq(30))?;
        for from in [0, before.saturating_sub(1), before, 20, 29] {
            let found = journal.read(&StreamId::Arbiter, Seq(from), 99).await?;
            let places: Vec<u64> = found.iter().map(|stored| stored.seq.0).collect();
            let first = places.first().copied().unwrap_or(30);
            same("the places", &places, &(first..30).collect())?;
            ensure(first == from || (from < first && first <= before.max(13)), || {
                format!("reading from {from} began at {first}, forgotten before {before}")
            })?;
            for stored in &found {
                same("a record", &stored.record, &text(stored.seq.0))?;
            }
            let few = journal.read(&StreamId::Arbiter, Seq(from), 2).await?;
            ensure(found.starts_with(&few), || format!("a page from {from} is {few:?}"))?;
        }
    }
    writer.write(vec![append(StreamId::Arbiter, 30, vec![text(30)])]).await?;
    let found = writer.journal.read(&StreamId::Arbiter, Seq(30), 9).await?;
    same("what comes after", &found.iter().map(|stored| stored.seq).collect(), &vec![Seq(30)])
}
