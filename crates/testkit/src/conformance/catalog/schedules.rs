//! Schedules, and what becomes of their due times.

use std::num::NonZeroU32;
use std::sync::Arc;

use stillpoint_catalog::{
    Begun, Catalog, CatalogError, CatalogExt, Entry, LAPSES_KEPT, Settlement, Settling,
    UNBEGUN_NAMED,
};
use stillpoint_context::{BoxFuture, JobId};
use stillpoint_model::group::{Attachment, ResourceGroup};
use stillpoint_model::id::{GroupId, ScheduleId};
use stillpoint_model::policy::Policy;
use stillpoint_model::schedule::{
    AttachmentId, Due, Lapse, Ledger, OpenDue, RecordedLapse, Rule, Schedule, StoredSchedule,
    Timetable, Why, Zone,
};
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{at, edited, group, job, policy, refused};

fn schedule(number: u128, name: &str) -> StoredSchedule {
    let rule = Rule::Hourly { every: NonZeroU32::MIN, minute: 0 };
    let schedule = Schedule::new(name, rule, Zone::UTC);
    StoredSchedule::new(ScheduleId(Uuid::from_u128(number)), at(0), schedule)
}

/// The next version, under another name.
fn next(known: &StoredSchedule, name: &str) -> Result<StoredSchedule, Flaw> {
    let mut schedule = known.schedule.clone();
    name.clone_into(&mut schedule.name);
    known.edit(schedule, at(60)).map_err(|error| Flaw(error.to_string()))
}

fn attached(mut group: ResourceGroup, policy: &Policy, to: &StoredSchedule) -> ResourceGroup {
    group.attachments.push(Attachment { policy: policy.id, schedule: to.id });
    group
}

fn attachment(number: u128) -> AttachmentId {
    AttachmentId {
        schedule: ScheduleId(Uuid::from_u128(1)),
        group: GroupId(Uuid::from_u128(number)),
        policy: policy(1, "P").id,
    }
}

/// A ledger of an attachment, considered up to so many seconds.
fn ledger(number: u128, seconds: i64) -> Ledger {
    Ledger::new(attachment(number), NonZeroU32::MIN, at(seconds))
}

fn settlement(from: Option<u64>, ledger: &Ledger) -> Settlement {
    let (attachment, to) = (ledger.attachment, Some(ledger.clone()));
    Settlement { attachment, from, to, lapses: Vec::new() }
}

fn lapse(number: u128, seconds: i64) -> RecordedLapse {
    let lapse = Lapse::one(at(seconds), Why::Missed);
    RecordedLapse::new(attachment(number), at(seconds), lapse)
}

/// A due time of an hourly schedule.
fn due(hours: i64) -> Result<Due, Flaw> {
    let mut table = Timetable::new();
    let (begin, end) = (at(hours * 3600 - 1), at(hours * 3600));
    table.put(schedule(1, "S").schedule, begin).map_err(|error| Flaw(error.to_string()))?;
    table.tick(end).due.pop().ok_or_else(|| Flaw("nothing is due".into()))
}

/// The revision under which one settlement was stored.
async fn stored(
    catalog: &dyn Catalog,
    seconds: i64,
    settlement: Settlement,
) -> Result<Option<u64>, Flaw> {
    match catalog.settle(at(seconds), &[settlement]).await?.pop() {
        Some(Settling::Done(revision)) => Ok(revision),
        other => Err(Flaw(format!("a settlement that should be stored: {other:?}"))),
    }
}

pub(super) async fn schedules_keep_their_versions(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let first = schedule(1, "Hourly");
    let second = next(&first, "Nightly")?;
    let alone = catalog.put_schedule(&second).await;
    refused("version 2 alone", alone, "schedule.version_conflict")?;
    catalog.put_schedule(&first).await?;
    catalog.put_schedule(&first).await?;
    catalog.put_schedule(&second).await?;
    let mut changed = first.clone();
    changed.since = at(9);
    let changed = catalog.put_schedule(&changed).await;
    refused("version 1 changed", changed, "schedule.version_conflict")?;
    catalog.put_schedule(&first).await?;
    same("the newest", &catalog.schedule(first.id, None).await?, &Some(second.clone()))?;
    let old = catalog.schedule(first.id, Some(first.version)).await?;
    same("the first", &old, &Some(first.clone()))?;
    let third = second.version.saturating_add(1);
    same("a version to come", &catalog.schedule(first.id, Some(third)).await?, &None)?;
    same("the list", &catalog.schedules().await?, &vec![second])?;
    same("by name", &catalog.schedule_named("NIGHTLY").await?.map(|s| s.id), &Some(first.id))?;
    same("by an old name", &catalog.schedule_named("hourly").await?, &None)
}

pub(super) async fn a_name_is_one_schedule(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let first = schedule(1, "Täglich");
    catalog.put_schedule(&first).await?;
    let twin = catalog.put_schedule(&schedule(2, "TÄGLICH")).await;
    refused("a name", twin, "schedule.name_taken")?;
    catalog.put_schedule(&next(&first, "Nachts")?).await?;
    // What it was called before is free.
    catalog.put_schedule(&schedule(2, "täglich")).await?;
    catalog.put_schedule(&schedule(3, "Abends")).await?;
    let names = catalog.schedules().await?.into_iter().map(|known| known.schedule.name);
    let wanted = ["Abends", "Nachts", "täglich"].map(str::to_owned).to_vec();
    same("the schedules by name", &names.collect::<Vec<_>>(), &wanted)
}

pub(super) async fn an_attached_schedule_stays(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let (hourly, daily) = (schedule(1, "Hourly"), policy(1, "Daily"));
    catalog.put_policy(&daily).await?;
    let mail = attached(group(1, "Mail", &[&daily]), &daily, &hourly);
    let stray = catalog.put_group(&mail).await;
    refused("a schedule that is not there", stray, "catalog.not_found")?;
    catalog.put_schedule(&hourly).await?;
    catalog.put_group(&mail).await?;
    same("the group", &catalog.group(mail.id).await?, &Some(mail.clone()))?;
    let removed = catalog.remove_schedule(hourly.id).await;
    refused("an attached schedule", removed, "schedule.in_use")?;
    catalog.put_group(&edited(&mail, |mail| mail.attachments.clear())).await?;
    catalog.remove_schedule(hourly.id).await?;
    catalog.remove_schedule(hourly.id).await?;
    same("a removed schedule", &catalog.schedule(hourly.id, None).await?, &None)?;
    same("its version", &catalog.schedule(hourly.id, Some(hourly.version)).await?, &None)
}

pub(super) async fn what_is_new_shows(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let daily = policy(1, "Daily");
    catalog.put_policy(&daily).await?;
    let mut known = catalog.times().await?.revision;
    let mut rises = async |what: &str| -> Result<(), Flaw> {
        let now = catalog.times().await?.revision;
        ensure(now > known, || format!("{what}: the revision stays at {now}"))?;
        known = now;
        same("the revision, asked again", &catalog.times().await?.revision, &now)
    };
    let hourly = schedule(1, "Hourly");
    catalog.put_schedule(&hourly).await?;
    rises("a new schedule").await?;
    catalog.put_schedule(&next(&hourly, "Often")?).await?;
    rises("another version").await?;
    catalog.put_group(&attached(group(1, "Mail", &[&daily]), &daily, &hourly)).await?;
    rises("a group").await?;
    catalog.remove_group(GroupId(Uuid::from_u128(1))).await?;
    rises("a group that is gone").await?;
    catalog.remove_schedule(hourly.id).await?;
    rises("a schedule that is gone").await?;

    let mut open = ledger(2, 0);
    let since = due(1)?;
    open.open.push(OpenDue::new(&since, "Hourly", NonZeroU32::MIN));
    let first = stored(&*catalog, 1, settlement(None, &open)).await?;
    stored(&*catalog, 1, settlement(None, &ledger(1, 0))).await?;
    same("what has not begun", &catalog.times().await?.unbegun, &vec![attachment(2)])?;
    open.open[0].job = Some(JobId(Uuid::from_u128(7)));
    stored(&*catalog, 2, settlement(first, &open)).await?;
    same("what has not begun", &catalog.times().await?.unbegun, &Vec::new())
}

pub(super) async fn a_stale_settlement_is_not_stored(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    same("no ledger", &catalog.ledger(attachment(1)).await?, &None)?;
    let first = stored(&*catalog, 1, settlement(None, &ledger(1, 1))).await?;
    let entry = |revision: Option<u64>, ledger: Ledger| {
        revision.map(|revision| Entry { revision, ledger }).ok_or(Flaw("no revision".into()))
    };
    let known = entry(first, ledger(1, 1))?;
    same("the ledger", &catalog.ledger(attachment(1)).await?, &Some(known.clone()))?;
    // Of two in one call, one is from what is gone, and only that one is not stored.
    let mut late = settlement(None, &ledger(1, 9));
    late.lapses.push(lapse(1, 9));
    let other = settlement(None, &ledger(2, 2));
    let mut answers = catalog.settle(at(2), &[late, other]).await?.into_iter();
    let stale = Settling::Stale(Some(Box::new(known.clone())));
    same("a stale one", &answers.next(), &Some(stale))?;
    let Some(Settling::Done(Some(second))) = answers.next() else {
        return Err(Flaw("the other one is not stored".into()));
    };
    let both = vec![known.clone(), entry(Some(second), ledger(2, 2))?];
    same("the ledgers", &catalog.ledgers().await?, &both)?;
    same("the lapses", &catalog.lapses(None, 9).await?, &Vec::new())?;
    // Removed, and made again: whoever knows the one that is gone cannot change the new one.
    let remove = Settlement { to: None, ..settlement(first, &ledger(1, 1)) };
    same("a removal", &stored(&*catalog, 3, remove).await?, &None)?;
    let again = stored(&*catalog, 4, settlement(None, &ledger(1, 4))).await?;
    ensure(again > first, || format!("revision {again:?} after {first:?}"))?;
    let late = catalog.settle(at(5), &[settlement(first, &ledger(1, 5))]).await?;
    let stale = Settling::Stale(Some(Box::new(entry(again, ledger(1, 4))?)));
    same("one from before", &late, &vec![stale])?;
    let gone = catalog.settle(at(6), &[settlement(Some(7_000), &ledger(3, 5))]).await?;
    same("one from nowhere", &gone, &vec![Settling::Stale(None)])
}

pub(super) async fn one_of_many_settlers_wins(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut from = None;
    for round in 0..5_i64 {
        let parts = (0..6_i64).map(|by| {
            let catalog = Arc::clone(&catalog);
            let part = async move {
                let mut wanted = settlement(from, &ledger(1, round * 10 + by));
                wanted.lapses.push(lapse(1, round * 10 + by));
                match catalog.settle(at(round), &[wanted]).await?.pop() {
                    Some(Settling::Done(revision)) => Ok(Some((revision, round * 10 + by))),
                    Some(Settling::Stale(_)) => Ok(None),
                    None => Err(Flaw("no answer".into())),
                }
            };
            Box::pin(part) as BoxFuture<'static, Result<Option<(Option<u64>, i64)>, Flaw>>
        });
        let won: Vec<_> = subject.together(parts.collect()).await?.into_iter().flatten().collect();
        same("how many of six were stored", &won.len(), &1)?;
        let (revision, seconds) = won[0];
        let known = catalog.ledger(attachment(1)).await?.map(|entry| entry.ledger);
        same("what is stored", &known, &Some(ledger(1, seconds)))?;
        from = revision;
    }
    same("how many lapses there are", &catalog.lapses(None, 99).await?.len(), &5)
}

pub(super) async fn the_newest_lapses_are_kept(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut from = [None, None];
    for round in 0..3_i64 {
        for number in [1, 2_u128] {
            let mut wanted = settlement(from[usize::from(number == 2)], &ledger(number, round));
            // One has more than is kept, by and by.
            let count = if number == 1 { i64::from(LAPSES_KEPT) / 2 } else { 1 };
            wanted.lapses = (0..count).map(|n| lapse(number, round * 10_000 + n)).collect();
            from[usize::from(number == 2)] = stored(&*catalog, round, wanted).await?;
        }
    }
    let first = catalog.lapses(Some(attachment(1)), u32::MAX).await?;
    same("how many are kept", &first.len(), &(LAPSES_KEPT as usize))?;
    same("the newest", &first.first(), &Some(&lapse(1, 20_499)))?;
    same("the oldest", &first.last(), &Some(&lapse(1, 10_000)))?;
    let two = catalog.lapses(None, 2).await?;
    same("the newest of all", &two, &vec![lapse(2, 20_000), lapse(1, 20_499)])?;
    same("of the other", &catalog.lapses(Some(attachment(2)), 9).await?.len(), &3)?;
    Ok(())
}

pub(super) async fn lapses_outlive_their_ledger(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let kept = i64::from(LAPSES_KEPT);
    let with = |from, number, lapses: &[i64]| {
        let mut wanted = settlement(from, &ledger(number, 0));
        wanted.lapses = lapses.iter().map(|seconds| lapse(number, *seconds)).collect();
        wanted
    };
    let without =
        |from, number, lapses: &[i64]| Settlement { to: None, ..with(from, number, lapses) };
    // One that stays, the oldest of all; two that go.
    stored(&*catalog, 1, with(None, 3, &[1])).await?;
    let one = stored(&*catalog, 2, with(None, 1, &[2, 3])).await?;
    let two = stored(&*catalog, 3, with(None, 2, &[4])).await?;
    let stale = catalog.settle(at(4), &[without(two, 1, &[9])]).await?;
    ensure(matches!(stale[..], [Settling::Stale(Some(_))]), || format!("{stale:?}"))?;
    same("a removal", &stored(&*catalog, 5, without(one, 1, &[5])).await?, &None)?;
    let of_one = vec![lapse(1, 5), lapse(1, 3), lapse(1, 2)];
    same("of one that is gone", &catalog.lapses(Some(attachment(1)), 9).await?, &of_one)?;
    let newest = vec![lapse(1, 5), lapse(2, 4), lapse(1, 3)];
    same("the newest of all", &catalog.lapses(None, 3).await?, &newest)?;
    // What is attached again goes on from there.
    let one = stored(&*catalog, 6, with(None, 1, &[6])).await?;
    same(
        "of one that is back",
        &catalog.lapses(Some(attachment(1)), 1).await?,
        &vec![lapse(1, 6)],
    )?;
    stored(&*catalog, 7, without(one, 1, &[])).await?;
    // There are four of what is gone. As many more as are kept push three of them out, together with those of the other one.
    let many: Vec<i64> = (10..9 + kept).collect();
    stored(&*catalog, 8, without(two, 2, &many)).await?;
    same(
        "what is left of one",
        &catalog.lapses(Some(attachment(1)), 9).await?,
        &vec![lapse(1, 6)],
    )?;
    let of_two = catalog.lapses(Some(attachment(2)), u32::MAX).await?;
    same("what is left of two", &of_two.len(), &(many.len()))?;
    same("the oldest of two", &of_two.last(), &Some(&lapse(2, 10)))?;
    same("of what stays", &catalog.lapses(Some(attachment(3)), 9).await?, &vec![lapse(3, 1)])
}

pub(super) async fn a_job_of_a_due_time_begins_while_that_is_open(
    subject: Subject,
) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let (first, second) = (due(1)?, due(2)?);
    let (of, at_one, at_two) = (attachment(1), first.firing.due, second.firing.due);
    let none = catalog.begin_due(&job(1, 0)?, of, at_one).await;
    refused("a job without a ledger", none, "schedule.due_settled")?;
    let mut open = ledger(1, 0);
    open.open = [first, second].map(|due| OpenDue::new(&due, "Hourly", NonZeroU32::MIN)).into();
    let before = stored(&*catalog, 1, settlement(None, &open)).await?;
    let other = catalog.begin_due(&job(1, 0)?, of, at(5)).await;
    refused("a job of no due time", other, "schedule.due_settled")?;
    same("a job that is refused", &catalog.job(job(1, 0)?.id).await?, &None)?;
    same("a job", &catalog.begin_due(&job(1, 0)?, of, at_one).await?, &Begun::New)?;
    same("the job", &catalog.job(job(1, 0)?.id).await?, &Some(job(1, 0)?))?;
    open.open[0].job = Some(job(1, 0)?.id);
    let entry = catalog.ledger(of).await?;
    same("the note", &entry.as_ref().map(|entry| &entry.ledger), &Some(&open))?;
    let revision = entry.map(|entry| entry.revision);
    ensure(revision > before, || format!("revision {revision:?} after {before:?}"))?;
    let again = catalog.begin_due(&job(2, 0)?, of, at_one).await;
    refused("a due time that has its job", again, "schedule.due_settled")?;
    // Whoever has read it before changes nothing; whoever has settled it leaves nothing to begin.
    let late = catalog.settle(at(2), &[settlement(before, &ledger(1, 1))]).await?;
    ensure(matches!(late[..], [Settling::Stale(Some(_))]), || format!("{late:?}"))?;
    // A job that there is under its key is noted, one of another request is not.
    let mut twin = job(1, 0)?;
    "another".clone_into(&mut twin.request_digest);
    refused("another request", catalog.begin_due(&twin, of, at_two).await, "run.key_reused")?;
    let unbegun = catalog.ledger(of).await?.map(|entry| entry.ledger.is_unbegun());
    same("whether something has not begun", &unbegun, &Some(true))?;
    let known = catalog.begin_due(&job(1, 0)?, of, at_two).await?;
    same("a known job", &known, &Begun::Existing(Box::new(job(1, 0)?)))?;
    let noted = catalog.ledger(of).await?.and_then(|entry| entry.ledger.open[1].job);
    same("the note of a known job", &noted, &Some(job(1, 0)?.id))
}

pub(super) async fn of_a_job_and_a_settlement_there_is_one(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    for round in 1..=6_u128 {
        let (of, begins) = (attachment(round), due(1)?);
        let mut open = ledger(round, 0);
        open.open.push(OpenDue::new(&begins, "Hourly", NonZeroU32::MIN));
        let from = stored(&*catalog, 1, settlement(None, &open)).await?;
        let at_one = begins.firing.due;
        let parts = (0..6_u128).map(|by| {
            let catalog = Arc::clone(&catalog);
            let part = async move {
                // Once the one is the first to come, once the other.
                if (by + round) % 2 == 0 {
                    match catalog.begin_due(&job(10 * round + by, 0)?, of, at_one).await {
                        Ok(Begun::New) => Ok(1),
                        Err(CatalogError::DueSettled { .. }) => Ok(0),
                        other => Err(Flaw(format!("{other:?}"))),
                    }
                } else {
                    let lapses = vec![lapse(round, 3600)];
                    let removal = Settlement { attachment: of, from, to: None, lapses };
                    let answers = catalog.settle(at(2), &[removal]).await?;
                    Ok(usize::from(answers == [Settling::Done(None)]))
                }
            };
            Box::pin(part) as BoxFuture<'static, Result<usize, Flaw>>
        });
        let done: usize = subject.together(parts.collect()).await?.into_iter().sum();
        same("how many of six did something", &done, &1)?;
        let mut jobs = 0;
        for by in 0..6 {
            jobs += usize::from(catalog.job(job(10 * round + by, 0)?.id).await?.is_some());
        }
        let lapses = catalog.lapses(Some(of), 9).await?.len();
        same("how many jobs and reasons there are", &(jobs + lapses), &1)?;
    }
    Ok(())
}

pub(super) async fn the_clock_goes_back_only_if_it_is_believed(
    subject: Subject,
) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    same("the first clock", &catalog.times().await?.clock, &None)?;
    for (now, wanted) in [(5, 5), (3, 5), (8, 8)] {
        catalog.settle(at(now), &[]).await?;
        same("the clock", &catalog.times().await?.clock, &Some(at(wanted)))?;
    }
    let ahead = stored(&*catalog, 9, settlement(None, &ledger(1, 9))).await?;
    let behind = stored(&*catalog, 9, settlement(None, &ledger(2, 1))).await?;
    let before = catalog.times().await?;
    catalog.believe_clock(at(2)).await?;
    let times = catalog.times().await?;
    same("the clock that is believed", &times.clock, &Some(at(2)))?;
    ensure(times.believed > before.believed, || "nobody can see that it is believed".to_owned())?;
    let known = catalog.ledger(attachment(1)).await?;
    same("what was ahead", &known.clone().map(|entry| entry.ledger), &Some(ledger(1, 2)))?;
    let is_new = known.map(|entry| entry.revision) > ahead;
    ensure(is_new, || "whoever knows what was ahead can still change it".to_owned())?;
    let known = catalog.ledger(attachment(2)).await?;
    let entry = behind.map(|revision| Entry { revision, ledger: ledger(2, 1) });
    same("what was not", &known, &entry)
}

pub(super) async fn schedules_are_there_after_opening_again(
    mut subject: Subject,
) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let (hourly, daily) = (schedule(1, "Hourly"), policy(1, "Daily"));
    catalog.put_policy(&daily).await?;
    catalog.put_schedule(&hourly).await?;
    catalog.put_schedule(&next(&hourly, "Nightly")?).await?;
    catalog.put_group(&attached(group(1, "Mail", &[&daily]), &daily, &hourly)).await?;
    let mut open = ledger(2, 0);
    open.open.push(OpenDue::new(&due(1)?, "Hourly", NonZeroU32::MIN));
    let mut wanted = settlement(None, &open);
    wanted.lapses.push(lapse(2, 3));
    let revision = stored(&*catalog, 7, wanted).await?;
    let before = everything(&*catalog).await?;
    drop(catalog);
    for _ in 0..2 {
        subject.reopen().await?;
        let catalog = subject.catalog()?;
        same("what is there after opening again", &everything(&*catalog).await?, &before)?;
        let old = catalog.schedule(hourly.id, Some(hourly.version)).await?;
        same("an old version", &old.as_ref(), &Some(&hourly))?;
    }
    let catalog = subject.catalog()?;
    let later = stored(&*catalog, 8, settlement(revision, &ledger(2, 1))).await?;
    ensure(later > revision, || format!("revision {later:?} after {revision:?}"))
}

/// All that can be listed, as text.
async fn everything(catalog: &dyn Catalog) -> Result<String, Flaw> {
    let (schedules, groups) = (catalog.schedules().await?, catalog.groups().await?);
    let (ledgers, times) = (catalog.ledgers().await?, catalog.times().await?);
    let lapses = catalog.lapses(None, UNBEGUN_NAMED).await?;
    Ok(format!("{schedules:?}\n{groups:?}\n{ledgers:?}\n{times:?}\n{lapses:?}"))
}
