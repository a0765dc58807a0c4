//! Who may write.

use std::time::Duration;

use stillpoint_workflow::{Fencing, JournalError, OpenStream, Seq, StreamId};

use super::super::Subject;
use super::super::frame::{Flaw, same};
use super::{Writer, append, ended, fenced, mono, note, only, process, stream, topic};

const TERM: Duration = Duration::from_hours(1);

pub(super) async fn an_owner_without_the_lease_of_its_epoch_is_refused(
    subject: Subject,
) -> Result<(), Flaw> {
    let (leases, topic) = (subject.leases()?, topic("conformance")?);
    let (first, second) = (Writer::new(&subject, 1).await?, Writer::new(&subject, 2).await?);
    let journal = &*first.journal;
    first.write(vec![append(stream(1), 0, vec![note("a")])]).await?;
    let refused = async |what: &str, owner, epoch| {
        let writer = Writer { journal: std::sync::Arc::clone(&first.journal), owner, epoch };
        let answer = writer.write(vec![append(stream(1), 1, vec![note("b")])]).await;
        fenced(what, answer, owner, epoch)?;
        only(journal, &[(stream(1), 1)], (&topic, 0)).await
    };
    refused("a process that never had a lease", process(3), first.epoch).await?;
    refused("the epoch of another process", first.owner, second.epoch).await?;
    refused("an epoch to come", first.owner, second.epoch + 1).await?;
    refused("the largest epoch", first.owner, u64::MAX).await?;
    let again = leases.acquire(first.owner, mono(0), TERM).await?;
    refused("an epoch that was replaced", first.owner, first.epoch).await?;
    leases.release(second.owner, second.epoch).await?;
    refused("an epoch that was given back", second.owner, second.epoch).await?;
    let fencing = leases.fence(first.owner, mono(100_000), Duration::ZERO).await?;
    same("the fencing of a lease that is long over", &fencing, &Fencing::Fenced)?;
    refused("an epoch that was fenced off", first.owner, again.epoch).await?;
    // Others write as before.
    let third = Writer::new(&subject, 3).await?;
    third.write(vec![append(stream(1), 1, vec![note("b")])]).await?;
    only(journal, &[(stream(1), 2)], (&topic, 0)).await
}

pub(super) async fn a_fenced_owner_learns_that_first(subject: Subject) -> Result<(), Flaw> {
    let leases = subject.leases()?;
    let writer = Writer::new(&subject, 1).await?;
    writer.write(vec![append(stream(1), 0, vec![note("a"), note("b")])]).await?;
    leases.release(writer.owner, writer.epoch).await?;
    for (what, expected, records) in [
        ("a conflict behind the head", 0, vec![note("x")]),
        ("a conflict ahead of the head", 7, vec![note("x")]),
        ("a commit made again", 0, vec![note("a"), note("b")]),
        ("an append of nothing", 2, vec![]),
    ] {
        let answer = writer.write(vec![append(stream(1), expected, records)]).await;
        fenced(
            &format!("{what}, by an owner without a lease"),
            answer,
            writer.owner,
            writer.epoch,
        )?;
    }
    let nothing = writer.write(Vec::new()).await;
    fenced("a batch of nothing, by an owner without a lease", nothing, writer.owner, writer.epoch)
}

pub(super) async fn a_shared_journal_refuses_epoch_0(subject: Subject) -> Result<(), Flaw> {
    let topic = topic("conformance")?;
    let first = Writer { journal: subject.journal()?, owner: process(1), epoch: 0 };
    let answer = first.write(vec![append(stream(1), 0, vec![note("a")])]).await;
    fenced("epoch 0", answer, first.owner, 0)?;
    // A lease makes no difference.
    let second = Writer { epoch: 0, ..Writer::new(&subject, 2).await? };
    let answer = second.write(vec![append(stream(1), 0, vec![note("a")])]).await;
    fenced("epoch 0 of a process with a lease", answer, second.owner, 0)?;
    only(&*first.journal, &[(stream(1), 0)], (&topic, 0)).await
}

pub(super) async fn a_private_journal_takes_epoch_0(subject: Subject) -> Result<(), Flaw> {
    let topic = topic("conformance")?;
    let writer = Writer { journal: subject.journal()?, owner: process(1), epoch: 0 };
    let write = writer.write(vec![append(stream(1), 0, vec![note("a")])]).await;
    match write {
        Ok(_) => only(&*writer.journal, &[(stream(1), 1)], (&topic, 0)).await,
        Err(error @ JournalError::Fenced { .. }) => Err(Flaw(format!("epoch 0: {error}"))),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn open_names_the_last_writer(subject: Subject) -> Result<(), Flaw> {
    let (first, second) = (Writer::new(&subject, 1).await?, Writer::new(&subject, 2).await?);
    let (one, other, mine) = (stream(1), stream(2), stream(3));
    first.write(vec![append(one, 0, vec![note("a")]), append(other, 0, vec![note("a")])]).await?;
    second.write(vec![append(one, 1, vec![note("b"), note("c")])]).await?;
    second.write(vec![append(StreamId::Arbiter, 0, vec![note("d")])]).await?;
    second.write(vec![append(mine, 0, vec![note("e")])]).await?;
    second.write(vec![append(stream(4), 0, vec![note("f"), ended()])]).await?;
    first.write(vec![append(mine, 1, vec![note("g"), note("h"), note("i")])]).await?;
    let open = |stream, owner, head| OpenStream { stream, owner, head: Seq(head) };
    let wanted =
        vec![open(one, second.owner, 3), open(other, first.owner, 1), open(mine, first.owner, 4)];
    same("the open streams", &first.journal.open(None, 9).await?, &wanted)?;
    // Who tries in vain, or again, is no writer.
    let stale = second.write(vec![append(other, 0, vec![note("stale")])]).await;
    super::conflict("a stale append", stale, other, 1)?;
    same("the open streams", &first.journal.open(None, 9).await?, &wanted)
}
