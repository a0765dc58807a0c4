//! What everything that keeps [`Leases`] has to do.
//!
//! With the journal of the same store it is also tried that leases and commits are of one order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{BoxFuture, ProcessId};
use stillpoint_workflow::{Fencing, JournalError, Lease, Leases, Seq};

use super::frame::{self, Flaw, Works, cases, ensure, pause, same};
use super::journal::{Writer, append, contents, fenced, mono, note, process, stream};
use super::{Case, Report, StoreFactory, Subject};

/// Every case.
pub fn cases() -> &'static [Case] {
    cases! {
        a_lease_lasts_a_term: "A lease lasts for its term from the instant on at which it is given.";
        epochs_rise_over_all_processes:
            "The epoch of a lease is higher than that of every lease before it on the store, of any process. Never 0.";
        leases_given_at_once_have_epochs_of_their_own: "Each call takes effect whole or not at all, in one order.";
        acquiring_again_ends_the_lease_before: "What a process held before ends when it acquires a lease.";
        leases_are_listed_by_epoch: "Every lease there is is listed, in the order of their epochs.";
        renewing_prolongs: "Renewing prolongs a lease to now and a term.";
        renewing_never_shortens: "A lease never gets shorter.";
        renewing_what_is_not_held_is_refused:
            "Renewing is refused as fenced when the process does not hold this epoch any more.";
        an_expired_lease_may_be_renewed: "A lease that has expired and was not fenced may be renewed.";
        releasing_ends_the_lease: "What is given back is gone, and its process may be carried on for at once.";
        releasing_another_epoch_changes_nothing: "A lease of another epoch stays, and releasing twice succeeds.";
        a_living_process_is_not_fenced:
            "A process is alive until its lease is over and the margin has gone by." [Blind];
        a_process_is_fenced_when_its_time_is_over:
            "Fencing ends the lease of a process that is over: at its end and the margin, and not of another.";
        fencing_what_has_no_lease_succeeds: "Fencing of what has no lease succeeds.";
        a_lease_of_an_earlier_boot_is_over:
            "A lease that would last longer than its term is one of an earlier boot, and over.";
        a_fenced_process_comes_back_under_a_new_epoch: "A process that was fenced may acquire a lease anew.";
        of_renewing_and_fencing_one_wins: "Each call takes effect whole or not at all, in one order." [Blind];
        commits_follow_the_lease:
            "A commit is accepted while its owner holds the epoch, whatever the time, and refused after." [Journal];
        fencing_and_commits_are_in_one_order:
            "A commit that began after the fencing is refused, and one that was accepted came before it." [Journal];
        leases_are_there_after_opening_again: "Everything is durable when it returns, epochs that were used included." [Reopen];
    }
}

/// Tries every case.
pub async fn run_all(stores: &dyn StoreFactory) -> Report {
    frame::run_all(cases(), stores).await
}

const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// What is listed: whose, epoch, until when.
async fn listed(leases: &dyn Leases, what: &str, wanted: &[Lease]) -> Result<(), Flaw> {
    same(&format!("the leases {what}"), &leases.leases().await?, &wanted.to_vec())
}

async fn a_lease_lasts_a_term(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    listed(leases, "of nobody", &[]).await?;
    let lease = leases.acquire(process(1), mono(100), TERM).await?;
    same("a lease", &lease, &Lease::new(process(1), lease.epoch, mono(100), TERM))?;
    same("its end", &lease.until, &mono(160))?;
    listed(leases, "of one", &[lease]).await
}

async fn epochs_rise_over_all_processes(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let mut last = 0;
    for (round, number) in [1, 2, 1, 3, 3, 2, 1].into_iter().enumerate() {
        let epoch = leases.acquire(process(number), mono(round as u64), TERM).await?.epoch;
        ensure(epoch > last, || format!("the epoch {epoch} comes after {last}"))?;
        last = epoch;
        // Neither does a lease that is gone give its epoch to another.
        match round % 3 {
            0 => leases.release(process(number), epoch).await?,
            1 => drop(leases.fence(process(number), mono(1000), MARGIN).await?),
            _ => drop(leases.renew(process(number), epoch, mono(10), TERM).await?),
        }
    }
    Ok(())
}

async fn leases_given_at_once_have_epochs_of_their_own(subject: Subject) -> Result<(), Flaw> {
    let leases = subject.leases()?;
    let parts = (0..32_u128).map(|number| {
        let leases = Arc::clone(&leases);
        let part = async move { Ok(leases.acquire(process(number % 24), mono(1), TERM).await?) };
        Box::pin(part) as BoxFuture<'static, Result<Lease, Flaw>>
    });
    let given = subject.together(parts.collect()).await?;
    let epochs: BTreeSet<u64> = given.iter().map(|lease| lease.epoch).collect();
    same("how many epochs were given", &epochs.len(), &32)?;
    // Of two leases of one process the later is there.
    let mut wanted: Vec<Lease> = Vec::new();
    for number in 0..24 {
        let of_process = given.iter().filter(|lease| lease.process == process(number));
        wanted.extend(of_process.max_by_key(|lease| lease.epoch));
    }
    wanted.sort_by_key(|lease| lease.epoch);
    listed(&*leases, "given at once", &wanted).await
}

async fn acquiring_again_ends_the_lease_before(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let old = leases.acquire(process(1), mono(0), TERM).await?;
    // A shorter one takes its place all the same.
    let new = leases.acquire(process(1), mono(1), TERM / 2).await?;
    same("the lease after it", &new, &Lease::new(process(1), new.epoch, mono(1), TERM / 2))?;
    listed(leases, "of a process that acquired twice", &[new]).await?;
    let renewed = leases.renew(process(1), old.epoch, mono(2), TERM).await;
    fenced("renewing the lease before", renewed, process(1), old.epoch)?;
    leases.release(process(1), old.epoch).await?;
    listed(leases, "after giving back the lease before", &[new]).await?;
    leases.renew(process(1), new.epoch, mono(2), TERM).await.map(drop).map_err(Into::into)
}

async fn leases_are_listed_by_epoch(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let mut wanted = Vec::new();
    for number in [5, u128::MAX, 3, 1 << 127, 1, 4] {
        // Neither in the order of processes nor in that of their ends.
        let term = TERM * u32::try_from(number % 7 + 1).unwrap_or(1);
        wanted.push(leases.acquire(process(number), mono(0), term).await?);
    }
    listed(leases, "of six", &wanted).await?;
    // Renewing keeps the place, acquiring again does not.
    wanted[1] = leases.renew(process(u128::MAX), wanted[1].epoch, mono(500), TERM).await?;
    let again = leases.acquire(process(3), mono(0), TERM).await?;
    wanted.remove(2);
    wanted.push(again);
    listed(leases, "of six, later", &wanted).await
}

async fn renewing_prolongs(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let lease = leases.acquire(process(1), mono(0), TERM).await?;
    let other = leases.acquire(process(2), mono(0), TERM).await?;
    for (now, term) in [(10, TERM), (20, TERM * 2), (139, TERM), (160, TERM)] {
        let renewed = leases.renew(process(1), lease.epoch, mono(now), term).await?;
        let wanted = Lease::new(process(1), lease.epoch, mono(now), term);
        same("a lease renewed", &renewed, &wanted)?;
        listed(leases, "after renewing", &[wanted, other]).await?;
    }
    Ok(())
}

async fn renewing_never_shortens(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let lease = leases.acquire(process(1), mono(0), TERM).await?;
    for (now, term) in [(1, 5), (10, 0), (30, 29)] {
        let term = Duration::from_secs(term);
        let renewed = leases.renew(process(1), lease.epoch, mono(now), term).await?;
        same("the end of a lease renewed for less", &renewed.until, &lease.until)?;
        let ends: Vec<_> = leases.leases().await?.iter().map(|lease| lease.until).collect();
        same("the end that is listed", &ends, &vec![lease.until])?;
    }
    Ok(())
}

async fn renewing_what_is_not_held_is_refused(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let one = leases.acquire(process(1), mono(0), TERM).await?;
    let two = leases.acquire(process(2), mono(0), TERM).await?;
    let three = leases.acquire(process(3), mono(0), TERM).await?;
    leases.release(process(3), three.epoch).await?;
    for (what, owner, epoch) in [
        ("a lease of a process that has none", process(9), one.epoch),
        ("a lease of epoch 0", process(1), 0),
        ("a lease of an epoch to come", process(1), u64::MAX),
        ("a lease of another process", process(1), two.epoch),
        ("a lease that was given back", process(3), three.epoch),
    ] {
        let renewed = leases.renew(owner, epoch, mono(1), TERM).await;
        fenced(&format!("renewing {what}"), renewed, owner, epoch)?;
        listed(leases, &format!("after renewing {what}"), &[one, two]).await?;
    }
    Ok(())
}

async fn an_expired_lease_may_be_renewed(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let mut lease = leases.acquire(process(1), mono(0), TERM).await?;
    // At its end, within a margin, and long after.
    for now in [60, 125, 100_000] {
        listed(leases, "of which one has expired", &[lease]).await?;
        lease = leases.renew(process(1), lease.epoch, mono(now), TERM).await?;
        same("the end of a lease renewed late", &lease.until, &mono(now + 60))?;
    }
    Ok(())
}

async fn releasing_ends_the_lease(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let one = leases.acquire(process(1), mono(0), TERM).await?;
    let two = leases.acquire(process(2), mono(0), TERM).await?;
    leases.release(process(1), one.epoch).await?;
    listed(leases, "after one was given back", &[two]).await?;
    let fencing = leases.fence(process(1), mono(1), MARGIN).await?;
    same("the fencing of what was given back", &fencing, &Fencing::Fenced)?;
    let renewed = leases.renew(process(1), one.epoch, mono(1), TERM).await;
    fenced("renewing what was given back", renewed, process(1), one.epoch)
}

async fn releasing_another_epoch_changes_nothing(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    leases.release(process(1), 1).await?;
    let one = leases.acquire(process(1), mono(0), TERM).await?;
    let two = leases.acquire(process(2), mono(0), TERM).await?;
    for (owner, epoch) in [(1, two.epoch), (1, 0), (1, u64::MAX), (3, one.epoch)] {
        leases.release(process(owner), epoch).await?;
        listed(leases, "after giving back what is not held", &[one, two]).await?;
    }
    for _ in 0..2 {
        leases.release(process(1), one.epoch).await?;
        listed(leases, "after giving one back", &[two]).await?;
    }
    Ok(())
}

async fn a_living_process_is_not_fenced(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let lease = leases.acquire(process(1), mono(100), TERM).await?;
    let alive = |until| Fencing::Alive { until: mono(until) };
    for now in [100, 130, 159, 160, 169] {
        let fencing = leases.fence(process(1), mono(now), MARGIN).await?;
        same(&format!("fencing at {now} of a lease to 160"), &fencing, &alive(160))?;
        listed(leases, "after a fencing in vain", &[lease]).await?;
    }
    let renewed = leases.renew(process(1), lease.epoch, mono(169), TERM).await?;
    let fencing = leases.fence(process(1), mono(170), MARGIN).await?;
    same("fencing of a lease that was renewed", &fencing, &alive(229))?;
    listed(leases, "after a fencing in vain", &[renewed]).await
}

async fn a_process_is_fenced_when_its_time_is_over(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let one = leases.acquire(process(1), mono(100), TERM).await?;
    let two = leases.acquire(process(2), mono(100), TERM).await?;
    let three = leases.acquire(process(3), mono(100), TERM).await?;
    same(
        "fencing at the end and the margin",
        &leases.fence(process(1), mono(170), MARGIN).await?,
        &Fencing::Fenced,
    )?;
    listed(leases, "after a fencing", &[two, three]).await?;
    let renewed = leases.renew(process(1), one.epoch, mono(170), TERM).await;
    fenced("renewing what was fenced off", renewed, process(1), one.epoch)?;
    // Without a margin, and long after.
    same(
        "fencing at the end",
        &leases.fence(process(2), mono(160), Duration::ZERO).await?,
        &Fencing::Fenced,
    )?;
    listed(leases, "after another", &[three]).await?;
    same(
        "fencing long after",
        &leases.fence(process(3), mono(100_000), MARGIN).await?,
        &Fencing::Fenced,
    )?;
    listed(leases, "after the last", &[]).await
}

async fn fencing_what_has_no_lease_succeeds(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let fence = |number| leases.fence(process(number), mono(200), MARGIN);
    same("fencing of what never had a lease", &fence(1).await?, &Fencing::Fenced)?;
    let lease = leases.acquire(process(2), mono(0), TERM).await?;
    let other = leases.acquire(process(3), mono(200), TERM).await?;
    for _ in 0..3 {
        same("fencing again", &fence(2).await?, &Fencing::Fenced)?;
        listed(leases, "after fencing again", &[other]).await?;
    }
    let renewed = leases.renew(process(2), lease.epoch, mono(200), TERM).await;
    fenced("renewing what was fenced off", renewed, process(2), lease.epoch)
}

async fn a_lease_of_an_earlier_boot_is_over(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let old = leases.acquire(process(1), mono(1_000_000), TERM).await?;
    let new = leases.acquire(process(2), mono(5), TERM).await?;
    let fencing = leases.fence(process(1), mono(6), MARGIN).await?;
    same("fencing of a lease to 1000060, at 6", &fencing, &Fencing::Fenced)?;
    listed(leases, "after the fencing", &[new]).await?;
    let renewed = leases.renew(process(1), old.epoch, mono(6), TERM).await;
    fenced("renewing it", renewed, process(1), old.epoch)
}

async fn a_fenced_process_comes_back_under_a_new_epoch(subject: Subject) -> Result<(), Flaw> {
    let leases = &*subject.leases()?;
    let old = leases.acquire(process(1), mono(0), TERM).await?;
    leases.fence(process(1), mono(70), MARGIN).await?;
    let new = leases.acquire(process(1), mono(71), TERM).await?;
    ensure(new.epoch > old.epoch, || format!("{new:?} after {old:?}"))?;
    let renewed = leases.renew(process(1), old.epoch, mono(72), TERM).await;
    fenced("renewing what was fenced off", renewed, process(1), old.epoch)?;
    leases.release(process(1), old.epoch).await?;
    listed(leases, "of a process that came back", &[new]).await?;
    leases.renew(process(1), new.epoch, mono(72), TERM).await.map(drop).map_err(Into::into)
}

async fn of_renewing_and_fencing_one_wins(subject: Subject) -> Result<(), Flaw> {
    let leases = subject.leases()?;
    for round in 0..10_u128 {
        let lease = leases.acquire(process(round), mono(0), TERM).await?;
        let (mine, theirs) = (Arc::clone(&leases), Arc::clone(&leases));
        let renew: BoxFuture<'static, Result<Option<bool>, Flaw>> = Box::pin(async move {
            match mine.renew(process(round), lease.epoch, mono(70), TERM).await {
                Ok(_) => Ok(Some(true)),
                Err(JournalError::Fenced { .. }) => Ok(Some(false)),
                Err(error) => Err(error.into()),
            }
        });
        let fence: BoxFuture<'static, Result<Option<bool>, Flaw>> = Box::pin(async move {
            match theirs.fence(process(round), mono(70), MARGIN).await? {
                Fencing::Fenced => Ok(Some(false)),
                Fencing::Alive { until } if until == mono(130) => Ok(Some(true)),
                _ => Ok(None),
            }
        });
        let parts = if round % 2 == 0 { vec![renew, fence] } else { vec![fence, renew] };
        let alive = subject.together(parts).await?;
        let held = leases.leases().await?.iter().any(|lease| lease.process == process(round));
        ensure(alive == [Some(held); 2], || {
            format!(
                "a lease is renewed and fenced at once; held: {held}, the callers think: {alive:?}"
            )
        })?;
    }
    Ok(())
}

async fn commits_follow_the_lease(subject: Subject) -> Result<(), Flaw> {
    let (leases, journal) = (subject.leases()?, subject.journal()?);
    let lease = leases.acquire(process(1), mono(0), TERM).await?;
    let writer = Writer { journal, owner: process(1), epoch: lease.epoch };
    let write = async |place| writer.write(vec![append(stream(1), place, vec![note("a")])]).await;
    let refused = |what: &str, found| fenced(what, found, process(1), lease.epoch);
    write(0).await?;
    leases.renew(process(1), lease.epoch, mono(100), TERM).await?;
    write(1).await?;
    // Only by being fenced off does a lease end for commits: they say no time.
    if subject.is_blind() {
        leases.fence(process(1), mono(169), MARGIN).await?;
        write(2).await?;
    }
    let head = writer.journal.head(&stream(1)).await?;
    leases.fence(process(1), mono(170), MARGIN).await?;
    refused("a commit after the fencing", write(head.0).await)?;
    let back = leases.acquire(process(1), mono(171), TERM).await?;
    refused("a commit of the old epoch", write(head.0).await)?;
    let new = Writer { epoch: back.epoch, ..writer.clone() };
    new.write(vec![append(stream(1), head.0, vec![note("b")])]).await?;
    leases.release(process(1), back.epoch).await?;
    let after = new.write(vec![append(stream(1), head.0 + 1, vec![note("c")])]).await;
    fenced("a commit after giving back the lease", after, process(1), back.epoch)?;
    same("the head", &writer.journal.head(&stream(1)).await?, &Seq(head.0 + 1))
}

async fn fencing_and_commits_are_in_one_order(subject: Subject) -> Result<(), Flaw> {
    let (leases, journal) = (subject.leases()?, subject.journal()?);
    for round in 0..10_u128 {
        let (old, new) = (process(round * 2 + 1), process(round * 2 + 2));
        let lease = leases.acquire(old, mono(0), TERM).await?;
        let writer = Writer { journal: Arc::clone(&journal), owner: old, epoch: lease.epoch };
        let taken_over = Works::default();
        let taking_over = taken_over.begin();
        let fenced_off: BoxFuture<'static, Result<u64, Flaw>> = Box::pin(async move {
            // Writes until it is told that it has been taken over, at the first append after that at the latest.
            let mut place = 0;
            loop {
                let last = taken_over.are_done();
                match writer.write(vec![append(stream(round), place, vec![note("old")])]).await {
                    Ok(_) if last => return Err(Flaw::new("a fenced owner writes on")),
                    Ok(_) => pause().await,
                    Err(JournalError::Fenced { .. }) => return Ok(place),
                    Err(error) => return Err(error.into()),
                }
                place += 1;
            }
        });
        let (leases, journal) = (Arc::clone(&leases), Arc::clone(&journal));
        let successor: BoxFuture<'static, Result<u64, Flaw>> = Box::pin(async move {
            for _ in 0..round {
                pause().await;
            }
            take_over(&*leases, old).await?;
            drop(taking_over);
            let head = journal.head(&stream(round)).await?;
            let lease = leases.acquire(new, mono(100), TERM).await?;
            pause().await;
            let writer = Writer { journal, owner: new, epoch: lease.epoch };
            writer.write(vec![append(stream(round), head.0, vec![note("new")])]).await?;
            Ok(head.0)
        });
        let ends = subject.together(vec![fenced_off, successor]).await?;
        let records = contents(&*subject.journal()?, stream(round)).await?;
        let mut wanted = vec![note("old"); records.len().saturating_sub(1)];
        wanted.push(note("new"));
        same("the records of the old owner and the new", &records, &wanted)?;
        let place = wanted.len() as u64 - 1;
        same("where the two think that one ends and the other begins", &ends, &vec![place; 2])?;
    }
    Ok(())
}

async fn take_over(leases: &dyn Leases, process: ProcessId) -> Result<(), Flaw> {
    let fencing = leases.fence(process, mono(70), MARGIN).await?;
    same("the fencing of a lease that is over", &fencing, &Fencing::Fenced)
}

async fn leases_are_there_after_opening_again(mut subject: Subject) -> Result<(), Flaw> {
    let leases = subject.leases()?;
    let one = leases.acquire(process(1), mono(0), TERM).await?;
    let two = leases.acquire(process(2), mono(0), TERM).await?;
    let three = leases.acquire(process(3), mono(0), TERM).await?;
    let four = leases.acquire(process(4), mono(0), TERM).await?;
    let one = leases.renew(process(1), one.epoch, mono(30), TERM * 2).await?;
    let fencing = leases.fence(process(2), mono(70), MARGIN).await?;
    same("the fencing of a lease that is over", &fencing, &Fencing::Fenced)?;
    leases.release(process(4), four.epoch).await?;
    drop(leases);
    subject.reopen().await?;

    let leases = subject.leases()?;
    listed(&*leases, "after opening again", &[one, three]).await?;
    for (what, gone) in [("fenced off", two), ("given back", four)] {
        let renewed = leases.renew(gone.process, gone.epoch, mono(71), TERM).await;
        fenced(&format!("renewing what was {what} before"), renewed, gone.process, gone.epoch)?;
    }
    // The highest epoch had been given back: it is used up all the same.
    let new = leases.acquire(process(5), mono(71), TERM).await?;
    ensure(new.epoch > four.epoch, || format!("{new:?} after opening again, {four:?} before"))?;
    leases.renew(process(1), one.epoch, mono(100), TERM).await?;
    drop(leases);
    subject.reopen().await?;
    let epochs: Vec<_> = subject.leases()?.leases().await?.iter().map(|l| l.epoch).collect();
    same("the epochs after opening once more", &epochs, &vec![one.epoch, three.epoch, new.epoch])
}
