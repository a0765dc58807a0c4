//! Many at the same time, and calls that are given up.

use std::sync::Arc;

use stillpoint_context::BoxFuture;
use stillpoint_workflow::{JournalError, Position, Seq, StreamId};

use super::super::Subject;
use super::super::frame::{Flaw, Works, ensure, pause, poll_and_drop, same};
use super::{Writer, all, all_facts, append, contents, fact, note, only, run, stream, topic};

pub(super) async fn a_reader_never_sees_half_a_commit(subject: Subject) -> Result<(), Flaw> {
    let (writer, topic) = (Writer::new(&subject, 1).await?, topic("conformance")?);
    let streams = [stream(1), StreamId::Arbiter, stream(2)];
    let writers = Works::default();
    let working = writers.begin();
    let mut parts: Vec<BoxFuture<'static, Result<(), Flaw>>> = Vec::new();
    let (reader, read) = (Arc::clone(&writer.journal), topic.clone());
    parts.push(Box::pin(async move {
        for at in 0..20 {
            let appends =
                streams.iter().map(|stream| append(*stream, at, vec![note("a")])).collect();
            let mut batch = writer.batch(appends);
            batch.facts = vec![(run(1), fact(&topic, "f"))];
            writer.journal.commit(batch).await?;
            pause().await;
        }
        drop(working);
        Ok(())
    }));
    parts.push(Box::pin(async move {
        // What is looked at later has at least as much as what is looked at earlier, in whatever order.
        while !writers.are_done() {
            for backwards in [false, true] {
                let mut seen = Vec::new();
                for nth in 0..4 {
                    seen.push(match if backwards { 3 - nth } else { nth } {
                        3 => reader.facts(&read, Position(0), 99).await?.len() as u64,
                        nth => reader.head(&streams[nth]).await?.0,
                    });
                }
                ensure(seen.is_sorted(), || {
                    format!(
                        "commits seen in one stream after the other, then in facts, \
                        backwards {backwards}: {seen:?}"
                    )
                })?;
            }
            pause().await;
        }
        Ok(())
    }));
    subject.together(parts).await.map(drop)
}

pub(super) async fn commits_to_different_streams_all_land(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let topic = topic("conformance")?;
    let mut parts: Vec<BoxFuture<'static, Result<Vec<Position>, Flaw>>> = Vec::new();
    for by in 0..12_u128 {
        let (writer, topic) = (writer.clone(), topic.clone());
        parts.push(Box::pin(async move {
            let mut positions = Vec::new();
            for at in 0..6_u64 {
                let records = vec![note(format!("{by}/{at}")), note("and")];
                let mut batch = writer.batch(vec![append(stream(by), at * 2, records)]);
                batch.facts = vec![(run(by), fact(&topic, format!("{by}/{at}")))];
                positions.push(writer.journal.commit(batch).await?);
            }
            Ok(positions)
        }));
    }
    let positions = subject.together(parts).await?;
    let journal = &*writer.journal;
    for (by, positions) in (0..).zip(&positions) {
        ensure(positions.is_sorted_by(|a, b| a < b), || format!("positions fall: {positions:?}"))?;
        let records = all(journal, stream(by)).await?;
        let found: Vec<_> = records.iter().map(|stored| stored.record.clone()).collect();
        let wanted = (0..6).flat_map(|at| [note(format!("{by}/{at}")), note("and")]).collect();
        same(&format!("the records of {}", stream(by)), &found, &wanted)?;
        let found: Vec<_> = records.iter().map(|stored| stored.position).step_by(2).collect();
        same("their positions", &found, positions)?;
    }
    let mut every: Vec<_> = positions.into_iter().flatten().collect();
    every.sort_unstable();
    every.dedup();
    same("how many positions were given", &every.len(), &72)?;
    let facts = all_facts(journal, &topic).await?;
    same("the positions of facts", &facts.iter().map(|fact| fact.position).collect(), &every)
}

pub(super) async fn one_of_many_commits_to_one_place_lands(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (Arc::clone(&writer.journal), topic("conformance")?);
    let (mut wanted, mut keys) = (Vec::new(), Vec::new());
    for at in 0..10_u64 {
        let parts = (0..8_u128).map(|by| {
            let (writer, topic) = (writer.clone(), topic.clone());
            let mut batch = writer.batch(vec![
                append(StreamId::Arbiter, at, vec![note(format!("{at} by {by}"))]),
                append(stream(by), wins(&keys, by), vec![note("won")]),
            ]);
            batch.facts = vec![(run(by), fact(&topic, format!("{at} by {by}")))];
            let part = async move { Ok((by, writer.journal.commit(batch).await)) };
            Box::pin(part) as BoxFuture<'static, _>
        });
        let mut won = Vec::new();
        for (by, answer) in subject.together(parts.collect()).await? {
            match answer {
                Ok(_) => won.push(by),
                Err(error) => {
                    let wanted =
                        JournalError::Conflict { stream: StreamId::Arbiter, head: Seq(at + 1) };
                    same("what the others are told", &error, &wanted)?;
                }
            }
        }
        let [by] = won[..] else {
            return Err(Flaw(format!("place {at} was taken by {} of 8 commits", won.len())));
        };
        wanted.push(note(format!("{at} by {by}")));
        keys.push(by);
    }
    same("the records", &contents(&*journal, StreamId::Arbiter).await?, &wanted)?;
    for by in 0..8 {
        let head = journal.head(&stream(by)).await?;
        same("the wins of one of them", &head.0, &wins(&keys, by))?;
    }
    let facts = all_facts(&*journal, &topic).await?;
    same("who stated facts", &facts.iter().map(|fact| fact.run.0.as_u128()).collect(), &keys)
}

/// How often one of them has won.
fn wins(winners: &[u128], by: u128) -> u64 {
    winners.iter().filter(|winner| **winner == by).count() as u64
}

pub(super) async fn a_dropped_commit_is_there_whole_or_not_at_all(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    for polls in 0..6_u32 {
        let streams = |nth| [0, 1, 2].map(|n| stream(u128::from(polls) * 10 + nth * 3 + n));
        let batch = |nth, text: &str| {
            let records = vec![note(text), note("and")];
            let mut batch = writer.batch(
                streams(nth).iter().map(|stream| append(*stream, 0, records.clone())).collect(),
            );
            batch.facts = vec![(run(nth), fact(&topic, format!("{polls}/{nth}/{text}")))];
            batch
        };
        let facts = async |nth, text: &str| {
            let key = format!("{polls}/{nth}/{text}");
            let facts = all_facts(journal, &topic).await?;
            Ok::<_, Flaw>(facts.iter().filter(|fact| fact.fact.key == key).count())
        };

        // Made again, it is there once.
        poll_and_drop(journal.commit(batch(0, "dropped")), polls).await;
        // It may arrive while we look: what is looked at later has no less.
        let mut seen = vec![];
        for stream in streams(0) {
            seen.push(journal.head(&stream).await?.0);
        }
        seen.push(facts(0, "dropped").await? as u64 * 2);
        ensure(seen.is_sorted() && seen.iter().all(|head| [0, 2].contains(head)), || {
            format!("after {polls} polls a dropped commit is there in part: {seen:?}")
        })?;
        journal.commit(batch(0, "dropped")).await?;
        for stream in streams(0) {
            let found = contents(journal, stream).await?;
            same("a commit dropped and made again", &found, &vec![note("dropped"), note("and")])?;
        }
        same("its facts", &facts(0, "dropped").await?, &1)?;

        // With another in its place, one of the two is there.
        poll_and_drop(journal.commit(batch(1, "dropped")), polls).await;
        let rival = journal.commit(batch(1, "rival")).await;
        let (there, gone) = match rival {
            Ok(_) => ("rival", "dropped"),
            Err(JournalError::Conflict { head: Seq(2), .. }) => ("dropped", "rival"),
            other => return Err(Flaw(format!("after a dropped commit: {other:?}"))),
        };
        for stream in streams(1) {
            let found = contents(journal, stream).await?;
            same("a commit and its rival", &found, &vec![note(there), note("and")])?;
        }
        same("the facts of the one", &facts(1, there).await?, &1)?;
        same("the facts of the other", &facts(1, gone).await?, &0)?;
    }
    // Nothing arrives late.
    let heads: Vec<_> =
        (0..6).flat_map(|polls| (0..6).map(move |nth| (stream(polls * 10 + nth), 2))).collect();
    only(journal, &heads, (&topic, 12)).await
}
