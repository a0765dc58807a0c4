//! Commits that are made again, because nobody knows whether they arrived.

use stillpoint_workflow::{JournalError, Record, StreamId};

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{Writer, append, conflict, contents, fact, note, only, run, stream, topic};

pub(super) async fn a_repeated_commit_answers_with_its_position(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    let mut batch = writer.batch(vec![
        append(stream(1), 0, vec![note("a"), note("b")]),
        append(StreamId::Arbiter, 0, vec![note("c")]),
    ]);
    batch.facts = vec![(run(1), fact(&topic, "f")), (run(1), fact(&topic, "g"))];
    let position = journal.commit(batch.clone()).await?;
    let heads = |first, arbiter, other| {
        [(stream(1), first), (StreamId::Arbiter, arbiter), (stream(2), other)]
    };
    same("a commit made again", &journal.commit(batch.clone()).await, &Ok(position))?;
    only(journal, &heads(2, 1, 0), (&topic, 2)).await?;
    // Also when much has come after it.
    writer.write(vec![append(stream(2), 0, vec![note("d")])]).await?;
    let mut next = writer.batch(vec![append(stream(1), 2, vec![note("e"), note("f"), note("g")])]);
    next.facts = vec![(run(1), fact(&topic, "h"))];
    let later = journal.commit(next.clone()).await?;
    writer.write(vec![append(stream(1), 5, vec![note("h")])]).await?;
    for _ in 0..2 {
        same("a commit made again, later", &journal.commit(batch.clone()).await, &Ok(position))?;
        same("another one", &journal.commit(next.clone()).await, &Ok(later))?;
        only(journal, &heads(6, 1, 1), (&topic, 3)).await?;
    }
    let wanted: Vec<Record> = ["a", "b", "e", "f", "g", "h"].map(note).into();
    same("the records", &contents(journal, stream(1)).await?, &wanted)
}

pub(super) async fn a_repeat_of_other_content_is_a_conflict(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    writer.write(vec![append(stream(1), 0, vec![note("a"), note("b")])]).await?;
    writer.write(vec![append(stream(2), 0, vec![note("c")])]).await?;
    for (what, records) in [
        ("another first record", vec![note("x"), note("b")]),
        ("another last record", vec![note("a"), note("x")]),
        ("more records than there are", vec![note("a"), note("b"), note("x")]),
        ("the records in another order", vec![note("b"), note("a")]),
    ] {
        let other = writer.write(vec![append(stream(1), 0, records)]).await;
        conflict(what, other, stream(1), 2)?;
    }
    let past = writer.write(vec![append(stream(1), 1, vec![note("b"), note("x")])]).await;
    conflict("a repeat that goes on past the head", past, stream(1), 2)?;
    // One of two is equal.
    let half = vec![append(stream(2), 0, vec![note("c")]), append(stream(1), 0, vec![note("x")])];
    conflict("a repeat of which one half differs", writer.write(half).await, stream(1), 2)?;
    only(journal, &[(stream(1), 2), (stream(2), 1)], (&topic, 0)).await?;
    same("the records", &contents(journal, stream(1)).await?, &vec![note("a"), note("b")])
}

pub(super) async fn a_repeat_by_another_owner_is_a_conflict(subject: Subject) -> Result<(), Flaw> {
    let (first, second) = (Writer::new(&subject, 1).await?, Writer::new(&subject, 2).await?);
    let (journal, topic) = (&*first.journal, topic("conformance")?);
    let equal = || {
        vec![
            append(stream(1), 0, vec![note("a"), note("b")]),
            append(StreamId::Arbiter, 0, vec![note("c")]),
        ]
    };
    let position = first.write(equal()).await?;
    for (what, appends) in [
        ("an equal commit of another owner", equal()),
        (
            "an equal append of another owner",
            vec![append(stream(1), 0, vec![note("a"), note("b")])],
        ),
        ("one that is equal to the end of another's", vec![append(stream(1), 1, vec![note("b")])]),
    ] {
        conflict(what, second.write(appends).await, stream(1), 2)?;
    }
    // Nor is what two owners wrote a repeat of either.
    second.write(vec![append(stream(1), 2, vec![note("d")])]).await?;
    for writer in [&first, &second] {
        let both = writer.write(vec![append(stream(1), 1, vec![note("b"), note("d")])]).await;
        conflict("what two owners wrote, written by one", both, stream(1), 3)?;
    }
    only(journal, &[(stream(1), 3), (StreamId::Arbiter, 1)], (&topic, 0)).await?;
    same("a commit made again by its owner", &first.write(equal()).await, &Ok(position))
}

pub(super) async fn a_commit_that_is_there_in_part_is_a_conflict(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    writer.write(vec![append(stream(1), 0, vec![note("a")])]).await?;
    for new_first in [false, true] {
        let mut appends =
            vec![append(stream(1), 0, vec![note("a")]), append(stream(2), 0, vec![note("b")])];
        if new_first {
            appends.reverse();
        }
        let mut batch = writer.batch(appends);
        batch.facts = vec![(run(2), fact(&topic, "f"))];
        // Which of the two streams is named is up to the journal; its head is not.
        match journal.commit(batch).await {
            Err(JournalError::Conflict { stream, head }) => {
                let known = journal.head(&stream).await?;
                same(&format!("the head that the conflict names of {stream}"), &head, &known)?;
            }
            other => ensure(false, || format!("a commit of which a part is there: {other:?}"))?,
        }
        only(journal, &[(stream(1), 1), (stream(2), 0)], (&topic, 0)).await?;
    }
    Ok(())
}
