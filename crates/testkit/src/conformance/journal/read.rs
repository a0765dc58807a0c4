//! What is read, and what is listed as open.

use std::sync::Arc;

use serde_json::json;
use stillpoint_context::IdempotencyKey;
use stillpoint_workflow::{
    JournalError, KeyRecord, OpenStream, Payload, Record, RunRecord, Seq, StreamId, decode_records,
};
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{
    Writer, all, all_facts, append, contents, ended, fact, instant, note, only, run, stream, topic,
};

pub(super) async fn records_are_read_from_any_place(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    same("a stream that is not there", &journal.read(&stream(1), Seq(0), 9).await?, &Vec::new())?;
    // Appends of 1, 2, 3 and 4 records, between those of another stream.
    let mut wanted = Vec::new();
    for count in 1..=4 {
        let from = wanted.len() as u64;
        let records: Vec<_> = (from..from + count).map(|n| note(format!("record {n}"))).collect();
        writer.write(vec![append(stream(1), from, records.clone())]).await?;
        writer.write(vec![append(stream(2), count - 1, vec![note("other")])]).await?;
        wanted
            .extend(records.into_iter().map(|record| (record, instant(1_700_000_000_000 + from))));
    }
    let length = wanted.len();
    for from in 0..=length + 2 {
        for max in 0..=length + 2 {
            let found = journal.read(&stream(1), Seq(from as u64), max).await?;
            let what = format!("{max} records from {from} of {length}");
            let places: Vec<_> = found.iter().map(|stored| stored.seq.0).collect();
            let end = (from + max).min(length);
            same(&what, &places, &(from as u64..end as u64).collect())?;
            for (stored, (record, at)) in found.iter().zip(wanted.iter().skip(from)) {
                same("a record", &stored.record, record)?;
                same("its instant", &stored.at, at)?;
                same("its stream", &stored.stream, &stream(1))?;
            }
        }
    }
    for from in [u64::MAX / 2, u64::MAX] {
        let past = journal.read(&stream(1), Seq(from), usize::MAX).await?;
        same("what lies past the end", &past, &Vec::new())?;
    }
    let everything = journal.read(&stream(1), Seq(0), usize::MAX).await?;
    same("how many there are", &everything.len(), &length)
}

pub(super) async fn the_head_counts_the_records(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let streams = [stream(1), StreamId::Arbiter, StreamId::Key(Uuid::from_u128(7))];
    for stream in streams {
        let mut head = 0;
        same(
            "the head of a stream that is not there",
            &writer.journal.head(&stream).await?,
            &Seq(0),
        )?;
        for count in [1, 3, 2] {
            let records = (0..count).map(|n| note(format!("{head}/{n}"))).collect();
            writer.write(vec![append(stream, head, records)]).await?;
            head += count;
            let found = writer.journal.head(&stream).await?;
            same(&format!("the head of {stream}"), &found, &Seq(head))?;
        }
    }
    let end = vec![append(stream(1), 6, vec![ended()])];
    writer.write(end).await?;
    same("the head of a run that has ended", &writer.journal.head(&stream(1)).await?, &Seq(7))
}

pub(super) async fn streams_of_one_number_are_apart(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    // Those of number 0 beside the arbiter's, which has none.
    let streams = [0, 5].map(|n| [stream(n), StreamId::Key(Uuid::from_u128(n))]).concat();
    let streams = [&streams[..], &[StreamId::Arbiter]].concat();
    for (nth, stream) in streams.iter().enumerate() {
        let records = (0..=nth).map(|n| note(format!("{stream} {n}"))).collect();
        writer.write(vec![append(*stream, 0, records)]).await?;
    }
    for (nth, stream) in streams.iter().enumerate() {
        let wanted: Vec<_> = (0..=nth).map(|n| note(format!("{stream} {n}"))).collect();
        same(&format!("the records of {stream}"), &contents(journal, *stream).await?, &wanted)?;
        same("its head", &journal.head(stream).await?, &Seq(nth as u64 + 1))?;
    }
    Ok(())
}

/// Records of many kinds, with what is awkward in them.
fn of_many_kinds() -> Result<Vec<Record>, Flaw> {
    let failure = json!({
        "code": "x.y", "class": "busy", "retryable": true, "retry_after": {"secs": 1, "nanos": 999_999_999},
        "effect": "unknown", "subjects": [{"kind": "volume", "id": "E:\\ \"ä\""}],
        "message": "line\nbreak\ttab \u{0} nul", "remedy": "", "causes": ["a", "b"],
    });
    let mono = json!({"secs": u64::MAX / 1000, "nanos": 1});
    let record = |run: serde_json::Value| json!({ "run": run });
    let records = json!({"format": 1, "records": [
        record(json!({"started": {"fence": u64::MAX}})),
        record(json!({"intended": {"node": u32::MAX, "attempt": 1}})),
        record(json!({"failed": {"node": 0, "attempt": 2, "failure": failure, "next": {"retry": mono}}})),
        record(json!({"failed": {"node": 0, "attempt": 3, "failure": failure, "next": "final"}})),
        record(json!({"in_flight": {"node": 1, "until": mono}})),
        record(json!({"armed": {"guard": 1}})),
        record(json!({"unwinding": {"cause": {"cancelled": {"by": "somebody"}}}})),
        record(json!({"abandoned": {"by": "", "debris": [
            {"step": "snap", "object": {"kind": "snapshot", "id": "1"}, "possible": true, "why": "?"},
        ]}})),
        {"arbiter": {"granted": {"run": Uuid::from_u128(u128::MAX)}}},
    ]});
    let mut records = decode_records(records.to_string().as_bytes())?;
    for text in [
        "",
        "null",
        "Grüße 😀 𐍈",
        "\u{0}\u{7f}\u{2028}\u{feff}\u{fffd}",
        "'; DROP TABLE record; --",
        "\\u0000",
    ] {
        records.push(note(text));
        let output = Payload::of(&text).map_err(|failure| Flaw::new(failure.message))?;
        records.push(decode_output(output)?);
    }
    records.push(decode_output(Payload::UNIT)?);
    records.push(decode_output(Payload::from_json(&b"{\"b\":1,  \"a\":[1.50,1e3]}"[..]))?);
    let key = IdempotencyKey::new("k".repeat(80)).map_err(|error| Flaw::new(error.to_string()))?;
    records.push(Record::Key(KeyRecord { key, run: run(1), digest: "00".into() }));
    Ok(records)
}

/// The success of a step with this output.
fn decode_output(output: Payload) -> Result<Record, Flaw> {
    let text =
        br#"{"format":1,"records":[{"run":{"succeeded":{"node":0,"attempt":1,"output":"1"}}}]}"#;
    let mut records = decode_records(text)?;
    match records.pop() {
        Some(Record::Run(RunRecord::Succeeded { node, attempt, warnings, .. })) => {
            Ok(Record::Run(RunRecord::Succeeded { node, attempt, output, warnings }))
        }
        other => Err(Flaw(format!("a success is read as {other:?}"))),
    }
}

pub(super) async fn records_come_back_as_they_were(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    let records = of_many_kinds()?;
    let half = records.len() / 2;
    writer.write(vec![append(stream(1), 0, records[..half].to_vec())]).await?;
    for (nth, record) in records.iter().enumerate().skip(half) {
        writer.write(vec![append(stream(1), nth as u64, vec![record.clone()])]).await?;
    }
    let found = contents(journal, stream(1)).await?;
    for (found, wanted) in found.iter().zip(&records) {
        same("a record", found, wanted)?;
    }
    same("how many there are", &found.len(), &records.len())?;
    // And what it cannot be told from is no repeat of it.
    let other = writer.write(vec![append(stream(1), 0, vec![records[1].clone()])]).await;
    ensure(other.is_err(), || "another record is taken for the one that is there".to_owned())
}

pub(super) async fn a_payload_that_is_no_text_is_kept_or_refused(
    subject: Subject,
) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    let odd = decode_output(Payload::from_json(&b"\"\xff\xfe\""[..]))?;
    let mut batch = writer.batch(vec![
        append(stream(1), 0, vec![note("a"), odd.clone()]),
        append(stream(2), 0, vec![note("b")]),
    ]);
    batch.facts = vec![(run(1), fact(&topic, "f"))];
    match journal.commit(batch).await {
        Ok(_) => {
            same("the records", &contents(journal, stream(1)).await?, &vec![note("a"), odd])?;
            only(journal, &[(stream(1), 2), (stream(2), 1)], (&topic, 1)).await
        }
        Err(JournalError::Corrupt(_)) => {
            only(journal, &[(stream(1), 0), (stream(2), 0)], (&topic, 0)).await
        }
        Err(other) => Err(Flaw(format!("a payload that is no text: {other:?}"))),
    }
}

pub(super) async fn big_records_and_big_commits_arrive(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let (journal, topic) = (&*writer.journal, topic("conformance")?);
    let big: String =
        (0..1_000_000_u32).map(|n| char::from(b'a' + (n % 23).to_le_bytes()[0])).collect();
    writer.write(vec![append(stream(1), 0, vec![note(big.clone())])]).await?;
    ensure(contents(journal, stream(1)).await? == [note(big.clone())], || {
        "a record of a million characters came back otherwise".to_owned()
    })?;
    let body: Arc<[u8]> = big.into_bytes().into();
    let appends: Vec<_> = (100..160)
        .map(|n| append(stream(n), 0, (0..20).map(|nth| note(format!("{n}/{nth}"))).collect()))
        .collect();
    let mut batch = writer.batch(appends);
    batch.facts = (0..300).map(|n| (run(n), fact(&topic, format!("fact {n}")))).collect();
    batch.facts[7].1.body = Arc::clone(&body);
    let position = journal.commit(batch.clone()).await?;
    for n in 100..160 {
        let records = all(journal, stream(n)).await?;
        let found: Vec<_> = records.iter().map(|stored| stored.record.clone()).collect();
        same("a stream of many", &found, &(0..20).map(|nth| note(format!("{n}/{nth}"))).collect())?;
        let together = records.iter().all(|stored| stored.position == position);
        ensure(together, || format!("the records of {} are of several commits", stream(n)))?;
    }
    let facts = all_facts(journal, &topic).await?;
    same("the facts", &facts.len(), &300)?;
    let equal = facts.iter().zip(&batch.facts).all(|(found, (run, fact))| {
        found.position == position && found.run == *run && found.fact == *fact
    });
    ensure(equal, || "a fact of a big commit came back otherwise".to_owned())?;
    same("the commit made again", &journal.commit(batch).await, &Ok(position))
}

/// Numbers that are out of order as signed numbers, as text of decimals and from the end.
const NUMBERS: [u128; 8] = [1, 2, 10, 1 << 64, 1 << 120, (1 << 127) - 1, 1 << 127, u128::MAX];

pub(super) async fn open_lists_runs_that_have_not_ended(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    same("the open streams of nothing", &journal.open(None, 99).await?, &Vec::new())?;
    for number in NUMBERS.into_iter().rev() {
        writer.write(vec![append(stream(number), 0, vec![note("a")])]).await?;
    }
    let open = async |numbers: &[u128]| {
        let found: Vec<_> = journal.open(None, 99).await?.iter().map(|open| open.stream).collect();
        same("the open streams", &found, &numbers.iter().map(|number| stream(*number)).collect())
    };
    open(&NUMBERS).await?;
    // Of two that end one ends with its last append, one with its only one.
    writer.write(vec![append(stream(2), 1, vec![note("b"), ended()])]).await?;
    writer.write(vec![append(stream(7), 0, vec![note("a"), ended()])]).await?;
    open(&[&NUMBERS[..1], &NUMBERS[2..]].concat()).await?;
    let wanted = vec![note("a"), note("b"), ended()];
    same("a run that has ended", &contents(journal, stream(2)).await?, &wanted)
}

pub(super) async fn open_is_paged(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    let mut appends: Vec<_> = (1..=25).map(|n| append(stream(n), 0, vec![note("a")])).collect();
    for ended_one in [6, 7, 12, 25] {
        appends[ended_one - 1].records.push(ended());
    }
    writer.write(appends).await?;
    let every: Vec<u128> = (1..=25).filter(|n| ![6, 7, 12, 25].contains(n)).collect();
    let numbers = |page: &[OpenStream]| {
        page.iter()
            .map(|open| match open.stream {
                StreamId::Run(run) => run.0.as_u128(),
                _ => 0,
            })
            .collect::<Vec<_>>()
    };
    for max in [1, 2, 3, 21, 99, usize::MAX] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = journal.open(after, max).await?;
            ensure(page.len() <= max, || format!("{} open streams of at most {max}", page.len()))?;
            let Some(last) = page.last() else { break };
            ensure(after.is_none_or(|after| page[0].stream > after), || {
                format!("{} is listed after {after:?}", page[0].stream)
            })?;
            after = Some(last.stream);
            seen.extend(numbers(&page));
        }
        same(&format!("the open streams in pages of {max}"), &seen, &every)?;
    }
    same("none at all", &journal.open(None, 0).await?, &Vec::new())?;
    // After streams that are no run's, that have ended, and that are not there.
    for (after, least) in [
        (StreamId::Arbiter, 0),
        (stream(0), 1),
        (stream(6), 7),
        (stream(12), 13),
        (stream(13), 14),
        (stream(26), 26),
        (StreamId::Key(Uuid::nil()), 26),
    ] {
        let wanted: Vec<u128> = every.iter().copied().filter(|n| *n >= least).collect();
        let found = numbers(&journal.open(Some(after), 99).await?);
        same(&format!("the open streams after {after}"), &found, &wanted)?;
    }
    Ok(())
}

pub(super) async fn keys_and_the_arbiter_are_never_open(subject: Subject) -> Result<(), Flaw> {
    let writer = Writer::new(&subject, 1).await?;
    let journal = &*writer.journal;
    let key = IdempotencyKey::new("a-key").map_err(|error| Flaw::new(error.to_string()))?;
    let record = KeyRecord { key: key.clone(), run: run(1), digest: "00".into() };
    let stream_of_key = StreamId::of_key(&key);
    writer
        .write(vec![
            append(stream_of_key, 0, vec![Record::Key(record)]),
            append(StreamId::Arbiter, 0, vec![note("a")]),
        ])
        .await?;
    same("the open streams", &journal.open(None, 9).await?, &Vec::new())?;
    writer
        .write(vec![
            append(stream(1), 0, vec![note("a")]),
            append(StreamId::Arbiter, 1, vec![note("a")]),
        ])
        .await?;
    let open: Vec<_> = journal.open(None, 9).await?.iter().map(|open| open.stream).collect();
    same("the open streams", &open, &vec![stream(1)])?;
    same("the head of a key", &journal.head(&stream_of_key).await?, &Seq(1))
}

pub(super) async fn everything_is_there_after_opening_again(
    mut subject: Subject,
) -> Result<(), Flaw> {
    let topic = topic("conformance")?;
    let (mut writer, mut batches) = (Writer::new(&subject, 1).await?, Vec::new());
    let mut before = None;
    for round in 0..4_u32 {
        let from = u64::from(round) * 2;
        let mut records = vec![note(format!("{round} ä")), note("😀")];
        if round == 3 {
            records.push(ended());
        }
        let mut batch = writer.batch(vec![
            append(stream(1), from, records),
            append(stream(2), from, vec![note("b"), note("c")]),
            append(StreamId::Arbiter, u64::from(round), vec![note("d")]),
            append(StreamId::Key(Uuid::from_u128(u128::from(round))), 0, vec![note("e")]),
        ]);
        batch.facts = vec![(run(1), fact(&topic, format!("{round}"))), (run(2), fact(&topic, "x"))];
        let position = writer.journal.commit(batch.clone()).await?;
        ensure(before.is_none_or(|before| position > before), || {
            format!("a commit after opening again is at {position:?}, the one before at {before:?}")
        })?;
        before = Some(position);
        batches.push((position, batch));

        let seen = everything(&writer).await?;
        let (owner, epoch) = (writer.owner, writer.epoch);
        drop(writer);
        subject.reopen().await?;
        writer = Writer { journal: subject.journal()?, owner, epoch };
        let again = everything(&writer).await?;
        same("what is there after opening again", &again, &seen)?;
        for (position, batch) in &batches {
            let repeated = writer.journal.commit(batch.clone()).await;
            same("a commit made again after opening again", &repeated, &Ok(*position))?;
        }
    }
    only(&*writer.journal, &[(stream(1), 9), (stream(2), 8), (StreamId::Arbiter, 4)], (&topic, 8))
        .await
}

/// All that can be read of what the case wrote, as text.
async fn everything(writer: &Writer) -> Result<String, Flaw> {
    let journal = &*writer.journal;
    let keys = (0..4).map(|n| StreamId::Key(Uuid::from_u128(n)));
    let mut streams = Vec::new();
    for stream in [stream(1), stream(2), StreamId::Arbiter].into_iter().chain(keys) {
        streams.push((stream, journal.head(&stream).await?, all(journal, stream).await?));
    }
    let facts = all_facts(journal, &topic("conformance")?).await?;
    Ok(format!("{streams:?}\n{facts:?}\n{:?}", journal.open(None, 9).await?))
}
