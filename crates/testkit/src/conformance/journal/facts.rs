//! Facts: by topic, after a position, commit by commit.

use stillpoint_context::BoxFuture;
use stillpoint_workflow::{Fact, FactDraft, Position};

use super::super::Subject;
use super::super::frame::{Flaw, Works, ensure, pause, same};
use super::{Writer, append, fact, note, run, stream, topic};

pub(super) async fn facts_are_read_by_topic_in_order(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    let topics = [topic("a")?, topic("a.b")?, topic("b")?];
    let mut wanted: Vec<Fact> = Vec::new();
    let bodies: [&[u8]; 4] = [b"", b"\x00\xff\x80", "Grüße".as_bytes(), &[0; 3000]];
    for round in 0..4_usize {
        let mut batch = writer.batch(vec![append(stream(1), round as u64, vec![note("a")])]);
        for (nth, topic) in topics.iter().enumerate() {
            // The same key time and again, and keys that are out of order.
            for key in ["z", "", "Ä key with a \u{0} in it", "z"] {
                let body = bodies[(round + nth) % bodies.len()];
                let by = run(100 + nth as u128);
                batch.facts.push((by, FactDraft::new(topic.clone(), key, body)));
            }
        }
        let facts = batch.facts.clone();
        let position = journal.commit(batch).await?;
        wanted.extend(facts.into_iter().map(|(run, fact)| Fact { position, run, fact }));
        // A commit without facts in between.
        writer.write(vec![append(stream(2), round as u64, vec![note("b")])]).await?;
    }
    for topic in &topics {
        let wanted: Vec<&Fact> = wanted.iter().filter(|fact| fact.fact.topic == *topic).collect();
        let mut places: Vec<Position> = wanted.iter().map(|fact| fact.position).collect();
        let found = journal.facts(topic, Position(0), 99).await?;
        same(&format!("the facts of {topic}"), &found.iter().collect(), &wanted)?;
        places.extend([Position(places[0].0 + 1), Position(u64::MAX / 2)]);
        for after in places {
            let found = journal.facts(topic, after, 99).await?;
            let later: Vec<&Fact> =
                wanted.iter().copied().filter(|fact| fact.position > after).collect();
            same(
                &format!("the facts of {topic} after {after:?}"),
                &found.iter().collect(),
                &later,
            )?;
        }
    }
    same(
        "a topic of which there is none",
        &journal.facts(&topic("c")?, Position(0), 9).await?,
        &Vec::new(),
    )
}

pub(super) async fn the_facts_of_a_commit_are_never_split(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic, other) = (&*writer.journal, topic("conformance")?, topic("other")?);
    let counts = [1, 3, 2, 0, 5, 1];
    let mut wanted = Vec::new();
    for (round, count) in counts.into_iter().enumerate() {
        let mut batch = writer.batch(vec![append(stream(1), round as u64, vec![note("a")])]);
        let keys: Vec<String> = (0..count).map(|nth| format!("{round}/{nth}")).collect();
        batch.facts = keys.iter().map(|key| (run(1), fact(&topic, key.clone()))).collect();
        batch.facts.insert(count / 2, (run(1), fact(&other, "beside")));
        journal.commit(batch).await?;
        wanted.push(keys);
    }
    wanted.retain(|keys| !keys.is_empty());
    for max in 1..=13 {
        let (mut after, mut rest) = (Position(0), &wanted[..]);
        loop {
            let page = journal.facts(&topic, after, max).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            let mut keys = page.iter().map(|fact| fact.fact.key.clone()).collect::<Vec<_>>();
            // Whole commits, and none that begins after there are enough.
            let (length, mut last) = (keys.len(), 0);
            while !keys.is_empty() {
                let Some((commit, left)) = rest.split_first() else {
                    return Err(Flaw(format!("{keys:?} comes after the last fact")));
                };
                ensure(keys.starts_with(commit), || {
                    format!("a page of at most {max} has {keys:?}, not all of {commit:?}")
                })?;
                keys.drain(..commit.len());
                (rest, last) = (left, commit.len());
            }
            ensure(length - last < max, || {
                format!("a page of at most {max} has {length} facts, {last} of the last commit")
            })?;
        }
        same(&format!("what is left after pages of {max}"), &rest.len(), &0)?;
    }
    Ok(())
}

const WRITERS: usize = 6;
const COMMITS: usize = 15;

pub(super) async fn a_follower_of_facts_misses_nothing(subject: Subject) -> Result<(), Flaw> {
    let (writer, topic) = (Writer::new(&subject, 1).await?, topic("conformance")?);
    let writers = Works::default();
    let mut parts: Vec<BoxFuture<'static, Result<(), Flaw>>> = Vec::new();
    for nth in 0..WRITERS {
        let (writer, topic, working) = (writer.clone(), topic.clone(), writers.begin());
        parts.push(Box::pin(async move {
            let by = nth as u128;
            for at in 0..COMMITS {
                let mut batch = writer.batch(vec![append(stream(by), at as u64, vec![note("a")])]);
                batch.facts =
                    vec![(run(by), fact(&topic, format!("{at}"))), (run(by), fact(&topic, "and"))];
                writer.journal.commit(batch).await?;
                pause().await;
            }
            drop(working);
            Ok(())
        }));
    }
    parts.push(Box::pin(async move {
        let (mut after, mut seen) = (Position(0), vec![0; WRITERS]);
        loop {
            let over = writers.are_done();
            let page = writer.journal.facts(&topic, after, 5).await?;
            if page.is_empty() && over {
                break;
            }
            for pair in page.chunks(2) {
                let [first, second] = pair else { return Err(Flaw::new("a commit came in part")) };
                ensure(first.position > after && second.position == first.position, || {
                    format!("{:?} and {:?} come after {after:?}", first.position, second.position)
                })?;
                after = first.position;
                let next =
                    usize::try_from(first.run.0.as_u128()).ok().and_then(|by| seen.get_mut(by));
                let next = next.ok_or_else(|| Flaw::new("a fact of nobody's"))?;
                same(
                    &format!("the next fact of {}", first.run),
                    &first.fact.key,
                    &next.to_string(),
                )?;
                *next += 1;
            }
            pause().await;
        }
        same("what a follower saw of each writer", &seen, &vec![COMMITS; WRITERS])
    }));
    subject.together(parts).await.map(drop)
}
