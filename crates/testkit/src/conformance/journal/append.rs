//! What fits, what does not, and where it goes.

use stillpoint_workflow::{FactDraft, Position, Seq, StreamId};

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{Writer, all, all_facts, append, conflict, fact, note, only, run, stream, topic};

pub(super) async fn a_commit_is_all_or_nothing(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    writer.write(vec![append(stream(1), 0, vec![note("a"), note("b")])]).await?;
    // One of the three does not fit, in every place of the batch; what fits comes before it and after it.
    for misfit in 0..3 {
        let mut appends = vec![
            append(stream(2), 0, vec![note("c")]),
            append(StreamId::Arbiter, 0, vec![note("d")]),
        ];
        appends.insert(misfit, append(stream(1), 1, vec![note("other")]));
        let mut batch = writer.batch(appends);
        batch.facts = vec![(run(1), fact(&topic, "f")), (run(2), fact(&topic, "g"))];
        conflict(
            "a commit of which one append does not fit",
            journal.commit(batch).await,
            stream(1),
            2,
        )?;
        only(journal, &[(stream(1), 2), (stream(2), 0), (StreamId::Arbiter, 0)], (&topic, 0))
            .await?;
        let open: Vec<_> = journal.open(None, 9).await?.iter().map(|open| open.stream).collect();
        same("the open streams", &open, &vec![stream(1)])?;
    }
    let mut batch = writer.batch(vec![
        append(stream(2), 0, vec![note("c")]),
        append(StreamId::Arbiter, 0, vec![note("d")]),
        append(stream(1), 2, vec![note("e"), note("f"), note("g")]),
    ]);
    batch.facts = vec![(run(1), fact(&topic, "f")), (run(2), fact(&topic, "g"))];
    journal.commit(batch).await?;
    only(journal, &[(stream(1), 5), (stream(2), 1), (StreamId::Arbiter, 1)], (&topic, 2)).await
}

pub(super) async fn an_append_behind_the_head_is_a_conflict(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    writer.write(vec![append(stream(1), 0, vec![note("a"), note("b")])]).await?;
    writer.write(vec![append(stream(1), 2, vec![note("c")])]).await?;
    for expected in 0..3 {
        let late = writer.write(vec![append(stream(1), expected, vec![note("late")])]).await;
        conflict(&format!("an append at {expected} of 3"), late, stream(1), 3)?;
        only(journal, &[(stream(1), 3)], (&topic, 0)).await?;
    }
    Ok(())
}

pub(super) async fn an_append_ahead_of_the_head_is_a_conflict(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    for expected in [1, 2, u64::MAX / 2, u64::MAX - 1] {
        let early = writer.write(vec![append(stream(2), expected, vec![note("early")])]).await;
        conflict(&format!("an append at {expected} of none"), early, stream(2), 0)?;
    }
    writer.write(vec![append(stream(1), 0, vec![note("a"), note("b")])]).await?;
    for expected in [3, 4, u64::MAX - 1] {
        let early = writer.write(vec![append(stream(1), expected, vec![note("early")])]).await;
        conflict(&format!("an append at {expected} of 2"), early, stream(1), 2)?;
    }
    only(journal, &[(stream(1), 2), (stream(2), 0)], (&topic, 0)).await
}

pub(super) async fn an_append_of_no_records_changes_no_stream(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    writer.write(vec![append(stream(1), 0, Vec::new())]).await?;
    same("the open streams", &journal.open(None, 9).await?, &Vec::new())?;
    let early = writer.write(vec![append(stream(1), 1, Vec::new())]).await;
    conflict("an append of nothing, ahead of the head", early, stream(1), 0)?;
    // What else is in the batch lands.
    writer
        .write(vec![append(stream(1), 0, Vec::new()), append(stream(2), 0, vec![note("a")])])
        .await?;
    writer.write(vec![append(stream(2), 1, Vec::new())]).await?;
    only(journal, &[(stream(1), 0), (stream(2), 1)], (&topic, 0)).await?;
    writer.write(vec![append(stream(2), 1, vec![note("b")])]).await?;
    only(journal, &[(stream(1), 0), (stream(2), 2)], (&topic, 0)).await
}

pub(super) async fn a_batch_of_facts_alone_is_a_commit(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    let before = writer.write(vec![append(stream(1), 0, vec![note("a")])]).await?;
    let mut batch = writer.batch(Vec::new());
    batch.facts = vec![(run(1), fact(&topic, "f"))];
    let position = journal.commit(batch).await?;
    ensure(position > before, || format!("the facts are at {position:?}, not after {before:?}"))?;
    let facts = all_facts(journal, &topic).await?;
    same(
        "the facts",
        &facts.iter().map(|fact| fact.position).collect::<Vec<_>>(),
        &vec![position],
    )?;
    only(journal, &[(stream(1), 1)], (&topic, 1)).await
}

pub(super) async fn positions_rise(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    let mut last = Position(0);
    let mut wanted = Vec::new();
    for round in 0..10 {
        let records =
            |text: &str| (0..=round % 3).map(|n| note(format!("{text}{n}"))).collect::<Vec<_>>();
        let heads = [journal.head(&stream(1)).await?, journal.head(&stream(2)).await?];
        let mut batch = writer.batch(vec![
            append(stream(1), heads[0].0, records("a")),
            append(stream(2), heads[1].0, records("b")),
        ]);
        let draft = FactDraft::new(topic.clone(), "key", &b""[..]);
        batch.facts = vec![(run(1), draft)];
        let position = journal.commit(batch).await?;
        ensure(position > last, || format!("{position:?} comes after {last:?}"))?;
        last = position;
        wanted.extend((0..=round % 3).map(|_| position));
        // A refused commit does not disturb the order.
        let stale = writer.write(vec![append(stream(1), 0, vec![note("stale")])]).await;
        ensure(stale.is_err(), || "a stale append is accepted".to_owned())?;
    }
    for stream in [stream(1), stream(2)] {
        let records = all(journal, stream).await?;
        let found: Vec<_> = records.iter().map(|stored| stored.position).collect();
        same(&format!("the positions of {stream}"), &found, &wanted)?;
        let head = Seq(wanted.len() as u64);
        same(&format!("the head of {stream}"), &journal.head(&stream).await?, &head)?;
    }
    wanted.dedup();
    let facts = all_facts(journal, &topic).await?;
    same("the positions of facts", &facts.iter().map(|fact| fact.position).collect(), &wanted)
}
