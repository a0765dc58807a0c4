//! Points, jobs, policies, groups and debris, one call after the other.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use stillpoint_catalog::{
    Begun, CatalogExt, Cursor, Debris, DebrisKind, JobQuery, Page, PointQuery,
};
use stillpoint_context::{ErrorClass, Failure, JobId, RunId};
use stillpoint_model::id::{DatabaseId, GroupId, PointId, PolicyId};
use stillpoint_model::job::{JobKind, JobRun, RunEnd, RunState};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{PointFact, PointState, Truncation, Trust};
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, same};
use super::{at, edited, group, job, point, policy, published, refused};

fn points(set: impl FnOnce(&mut PointQuery)) -> PointQuery {
    let mut query = PointQuery::all();
    set(&mut query);
    query
}

fn jobs(set: impl FnOnce(&mut JobQuery)) -> JobQuery {
    let mut query = JobQuery::all();
    set(&mut query);
    query
}

pub(super) async fn points_follow_their_facts(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let new = point(1, 1, 0)?;
    let id = new.id;
    same("an unknown point", &catalog.point(id).await?, &None)?;
    let facts = [
        PointFact::Published(Box::new(new.clone())),
        PointFact::Completed { point: id, at: at(1), truncation: Truncation::Requested },
        PointFact::Checked { point: id, trust: Trust::Verified { at: at(2) } },
    ];
    catalog.apply(&facts[..1], None).await?;
    same("a new point", &catalog.point(id).await?, &Some(new))?;
    catalog.apply(&facts[1..], None).await?;
    let known = catalog.point(id).await?.ok_or_else(|| Flaw("a point vanished".into()))?;
    same("its state", &known.state, &PointState::Available)?;
    same("its trust", &known.trust, &Trust::Verified { at: at(2) })?;
    same("its truncation", &known.truncation, &Truncation::Requested)?;
    for again in [&facts[..], &facts[..1], &facts[1..2]] {
        catalog.apply(again, None).await?;
        same("the point after old facts", &catalog.point(id).await?, &Some(known.clone()))?;
    }
    Ok(())
}

pub(super) async fn facts_are_all_or_nothing(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let stray = PointFact::Checked {
        point: PointId(Uuid::from_u128(99)),
        trust: Trust::Verified { at: at(1) },
    };
    let facts = [published(1, 1, 0)?, stray];
    refused("a stray fact", catalog.apply(&facts, Some(Cursor(7))).await, "point.unknown")?;
    same("the point beside it", &catalog.point(PointId(Uuid::from_u128(1))).await?, &None)?;
    same("the cursor", &catalog.cursor().await?, &None)
}

pub(super) async fn removed_points_stay_removed(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let new = published(1, 1, 0)?;
    let id = new.point();
    let removed = PointFact::Removed { point: id, at: at(5) };
    catalog.apply(std::slice::from_ref(&new), None).await?;
    catalog.apply(std::slice::from_ref(&removed), None).await?;
    same("a removed point", &catalog.point(id).await?, &None)?;
    let late = PointFact::Completed { point: id, at: at(6), truncation: Truncation::Unknown };
    catalog.apply(&[new, late], None).await?;
    same("a removed point, told again", &catalog.point(id).await?, &None)?;
    catalog.apply(&[removed], None).await?;
    // Within one call, too.
    let other = published(2, 1, 0)?;
    let id = other.point();
    let removed = PointFact::Removed { point: id, at: at(5) };
    catalog.apply(&[other.clone(), removed, other], None).await?;
    same("a point that came and went", &catalog.point(id).await?, &None)?;
    same("the list", &catalog.all_points(&PointQuery::all()).await?, &Vec::new())
}

pub(super) async fn removed_points_are_told_for_ever(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let facts = (1..=4).map(|number| published(number, 1, 0)).collect::<Result<Vec<_>, _>>()?;
    catalog.apply(&facts, None).await?;
    let ids: Vec<PointId> = (1..=5).map(|number| PointId(Uuid::from_u128(number))).collect();
    same("removed of none", &catalog.removed(&ids).await?, &BTreeSet::new())?;
    let removed = |number: usize| PointFact::Removed { point: ids[number], at: at(5) };
    catalog.apply(&[removed(1), removed(3)], None).await?;
    let wanted = BTreeSet::from([ids[1], ids[3]]);
    same("those that were removed", &catalog.removed(&ids).await?, &wanted)?;
    same("of some", &catalog.removed(&ids[..2]).await?, &BTreeSet::from([ids[1]]))?;
    same("of nothing", &catalog.removed(&[]).await?, &BTreeSet::new())?;
    // Told again, they stay so.
    catalog.apply(&facts, None).await?;
    same("those after old facts", &catalog.removed(&ids).await?, &wanted)
}

pub(super) async fn the_cursor_never_goes_back(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    same("the first cursor", &catalog.cursor().await?, &None)?;
    for (given, wanted) in [(Some(3), 3), (None, 3), (Some(2), 3), (Some(u64::MAX), u64::MAX)] {
        catalog.apply(&[], given.map(Cursor)).await?;
        same("the cursor", &catalog.cursor().await?, &Some(Cursor(wanted)))?;
    }
    Ok(())
}

pub(super) async fn pages_show_everything_once(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    // Some share an instant, so that the id has to decide.
    let facts = (0..25)
        .map(|n| published(n, n % 3, i64::try_from(n / 4).unwrap_or(0)))
        .collect::<Result<Vec<_>, _>>()?;
    catalog.apply(&facts, None).await?;
    for limit in [0, 1, 4, 25, 100] {
        let mut page = Page::first(limit);
        let mut seen = Vec::new();
        loop {
            let listing = catalog.points(&PointQuery::all(), &page).await?;
            let most = usize::try_from(page.size()).unwrap_or(usize::MAX);
            if listing.items.len() > most {
                return Err(Flaw(format!("a page of {} for {most}", listing.items.len())));
            }
            seen.extend(listing.items.iter().map(|point| (point.taken_at, point.id)));
            // A token survives as text.
            match listing.next.map(|next| next.to_string().parse()) {
                Some(Ok(next)) => page.after = Some(next),
                Some(Err(error)) => return Err(Flaw(format!("a page token: {error}"))),
                None => break,
            }
            if seen.len() > 25 {
                return Err(Flaw("the pages do not end".into()));
            }
        }
        let mut wanted: Vec<_> = seen.clone();
        wanted.sort_by_key(|(at, id)| (std::cmp::Reverse(*at), *id));
        wanted.dedup();
        same("newest first, each once", &seen, &wanted)?;
        same("how many", &seen.len(), &25)?;
    }
    Ok(())
}

pub(super) async fn queries_choose(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut facts = Vec::new();
    for number in 0..12u128 {
        let mut point = point(number, number % 2, i64::try_from(number).unwrap_or(0))?;
        point.group = (number % 3 == 0).then(|| GroupId(Uuid::from_u128(5)));
        point.policy = (number % 4 == 0).then(|| policy(6, "P").reference());
        if number == 11 {
            point.kind = BackupKind::Copy;
            point.job = JobId(Uuid::from_u128(801));
            point.run = RunId(Uuid::from_u128(901));
        }
        facts.push(PointFact::Published(Box::new(point)));
    }
    let done = PointId(Uuid::from_u128(3));
    facts.push(PointFact::Completed { point: done, at: at(50), truncation: Truncation::Unknown });
    catalog.apply(&facts, None).await?;
    let set = point(7, 0, 0)?.set;
    let queries = [
        PointQuery::of(DatabaseId(Uuid::from_u128(1))),
        points(|query| query.group = Some(GroupId(Uuid::from_u128(5)))),
        points(|query| query.policy = Some(PolicyId(Uuid::from_u128(6)))),
        points(|query| query.job = Some(JobId(Uuid::from_u128(801)))),
        points(|query| query.run = Some(RunId(Uuid::from_u128(901)))),
        points(|query| query.set = Some(set)),
        points(|query| query.kind = Some(BackupKind::Copy)),
        points(|query| query.state = Some(PointState::Available)),
        points(|query| (query.from, query.until) = (Some(at(3)), Some(at(7)))),
        points(|query| (query.from, query.until) = (Some(at(7)), Some(at(3)))),
        points(|query| {
            query.database = Some(DatabaseId(Uuid::from_u128(0)));
            query.group = Some(GroupId(Uuid::from_u128(5)));
            query.from = Some(at(1));
        }),
    ];
    let every = catalog.all_points(&PointQuery::all()).await?;
    same("how many there are", &every.len(), &12)?;
    for query in queries {
        let wanted: Vec<PointId> =
            every.iter().filter(|point| query.wants(point)).map(|point| point.id).collect();
        let found: Vec<PointId> =
            catalog.all_points(&query).await?.iter().map(|point| point.id).collect();
        same(&format!("{query:?}"), &found, &wanted)?;
    }
    Ok(())
}

pub(super) async fn a_request_is_one_job(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let first = job(1, 0)?;
    let mut twin = job(1, 1)?;
    twin.id = JobId(Uuid::from_u128(2));
    let (a, b) =
        futures_util::future::join(catalog.begin_job(&first), catalog.begin_job(&twin)).await;
    let news = [&a, &b].into_iter().filter(|begun| matches!(begun, Ok(Begun::New))).count();
    same("new jobs of one key", &news, &1)?;
    let kept = if matches!(a, Ok(Begun::New)) { &first } else { &twin };
    same("the twin", &catalog.begin_job(&first).await?, &Begun::Existing(Box::new(kept.clone())))?;
    let mut other = twin.clone();
    other.request_digest = "something else".into();
    refused("another request", catalog.begin_job(&other).await, "run.key_reused")?;
    let mut other = twin.clone();
    other.kind = JobKind::Restore;
    refused("another kind", catalog.begin_job(&other).await, "run.key_reused")?;
    let mut other = kept.clone();
    other.key = job(9, 0)?.key;
    refused("another key", catalog.begin_job(&other).await, "run.key_reused")?;
    same("the jobs", &catalog.all_jobs(&JobQuery::all()).await?, &vec![kept.clone()])?;

    let mut known = kept.clone();
    known.title = "now".into();
    catalog.put_job(&known).await?;
    same("the job", &catalog.job(known.id).await?, &Some(known))?;
    refused("a job that never began", catalog.put_job(&job(9, 0)?).await, "catalog.not_found")
}

pub(super) async fn jobs_are_forgotten_once_they_are_over(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut jobs = Vec::new();
    for number in 1..=3 {
        let mut job = job(number, 0)?;
        catalog.begin_job(&job).await?;
        if number < 3 {
            job.planned_at = Some(at(1));
            job.failure = Some(Failure::new("x", ErrorClass::Internal, "it could not be"));
            catalog.put_job(&job).await?;
        }
        jobs.push(job);
    }
    let unknown = JobId(Uuid::from_u128(99));
    let these = [jobs[0].id, jobs[2].id, unknown];
    match catalog.forget_jobs(&these).await? {
        0 => {
            same("what is kept", &catalog.job(jobs[0].id).await?, &Some(jobs[0].clone()))?;
            return Ok(());
        }
        gone => same("how many went", &gone, &1)?,
    }
    same("what is forgotten", &catalog.job(jobs[0].id).await?, &None)?;
    same("the open one", &catalog.job(jobs[2].id).await?, &Some(jobs[2].clone()))?;
    let left = catalog.all_jobs(&JobQuery::all()).await?;
    same("the others", &left.iter().map(|job| job.id).collect(), &vec![jobs[1].id, jobs[2].id])?;
    refused("a job that is gone", catalog.put_job(&jobs[0]).await, "catalog.not_found")?;
    same("how many went again", &catalog.forget_jobs(&these).await?, &0)?;
    // Its key is free, for whatever.
    let mut other = job(1, 5)?;
    other.id = JobId(Uuid::from_u128(4));
    other.request_digest = "something else".into();
    same("the key", &catalog.begin_job(&other).await?, &Begun::New)
}

pub(super) async fn jobs_are_listed_newest_first(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut put = Vec::new();
    for number in 1..=7u128 {
        let mut job = job(number, i64::try_from(number / 2).unwrap_or(0))?;
        job.group = (number % 2 == 0).then(|| GroupId(Uuid::from_u128(5)));
        if number == 4 {
            job.kind = JobKind::Verify;
        }
        catalog.begin_job(&job).await?;
        if number > 3 {
            let mut run = JobRun::new(RunId(Uuid::from_u128(number)), at(0));
            run.state = RunState::Ended(RunEnd::Succeeded);
            job.runs.push(run);
            job.planned_at = Some(at(1));
            catalog.put_job(&job).await?;
        }
        put.push(job);
    }
    let every = catalog.all_jobs(&JobQuery::all()).await?;
    let order: Vec<_> =
        every.iter().map(|job| (std::cmp::Reverse(job.created_at), job.id)).collect();
    let mut sorted = order.clone();
    sorted.sort();
    same("newest first", &order, &sorted)?;
    put.sort_by_key(|job| (std::cmp::Reverse(job.created_at), job.id));
    same("the jobs as they were put", &every, &put)?;
    let queries = [
        JobQuery::open(),
        jobs(|query| query.ended = Some(true)),
        jobs(|query| query.kind = Some(JobKind::Verify)),
        jobs(|query| query.group = Some(GroupId(Uuid::from_u128(5)))),
        jobs(|query| (query.from, query.until) = (Some(at(1)), Some(at(2)))),
    ];
    for query in queries {
        let wanted: Vec<JobId> =
            every.iter().filter(|job| query.wants(job)).map(|job| job.id).collect();
        let found: Vec<JobId> = catalog.all_jobs(&query).await?.iter().map(|job| job.id).collect();
        same(&format!("{query:?}"), &found, &wanted)?;
        let first = catalog.jobs(&query, &Page::first(1)).await?;
        same("the first page", &first.items.first().map(|job| job.id), &wanted.first().copied())?;
        same("whether there is more", &first.next.is_some(), &(wanted.len() > 1))?;
    }
    Ok(())
}

pub(super) async fn policies_keep_their_versions(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let first = policy(1, "Daily");
    let mut second = first.clone();
    second.version = NonZeroU32::MIN.saturating_add(1);
    second.name = "Nightly".into();
    refused("version 2 alone", catalog.put_policy(&second).await, "policy.version_conflict")?;
    catalog.put_policy(&first).await?;
    catalog.put_policy(&first).await?;
    catalog.put_policy(&second).await?;
    let mut changed = first.clone();
    changed.kind = BackupKind::Copy;
    refused("version 1 changed", catalog.put_policy(&changed).await, "policy.version_conflict")?;
    catalog.put_policy(&first).await?;
    same("the newest", &catalog.policy(first.id, None).await?, &Some(second.clone()))?;
    let old = catalog.policy(first.id, Some(first.version)).await?;
    same("the first", &old, &Some(first.clone()))?;
    let third = NonZeroU32::MIN.saturating_add(2);
    same("a version to come", &catalog.policy(first.id, Some(third)).await?, &None)?;
    same("the list", &catalog.policies().await?, &vec![second])?;
    same("by name", &catalog.policy_named("NIGHTLY").await?.map(|p| p.id), &Some(first.id))?;
    same("by an old name", &catalog.policy_named("daily").await?, &None)
}

pub(super) async fn groups_keep_their_versions(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let first = group(1, "Mail", &[]);
    let conflict = "group.version_conflict";
    let second = edited(&first, |mail| "Letters".clone_into(&mut mail.name));
    refused("a second version of nothing", catalog.put_group(&second).await, conflict)?;
    catalog.put_group(&first).await?;
    catalog.put_group(&first).await?;
    let mut other = first.clone();
    "Parcels".clone_into(&mut other.name);
    refused("other words for a version", catalog.put_group(&other).await, conflict)?;
    let third = edited(&second, |_| {});
    refused("a version that is left out", catalog.put_group(&third).await, conflict)?;
    catalog.put_group(&second).await?;
    refused("the version before", catalog.put_group(&first).await, conflict)?;
    same("the group", &catalog.group(first.id).await?, &Some(second.clone()))?;
    catalog.put_group(&third).await?;
    same("the groups", &catalog.groups().await?, &vec![third])?;
    // One that was removed begins anew.
    catalog.remove_group(first.id).await?;
    refused("a version of what is gone", catalog.put_group(&second).await, conflict)?;
    catalog.put_group(&first).await?;
    same("the group, anew", &catalog.group(first.id).await?, &Some(first))
}

pub(super) async fn names_are_unique(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    catalog.put_policy(&policy(1, "Täglich")).await?;
    refused("a name", catalog.put_policy(&policy(2, "TÄGLICH")).await, "policy.name_taken")?;
    let mut renamed = policy(1, "Nachts");
    renamed.version = NonZeroU32::MIN.saturating_add(1);
    catalog.put_policy(&renamed).await?;
    catalog.put_policy(&policy(2, "täglich")).await?;

    let mail = group(1, "Mail", &[]);
    catalog.put_group(&mail).await?;
    catalog.put_group(&edited(&mail, |mail| "mail".clone_into(&mut mail.name))).await?;
    refused("a group", catalog.put_group(&group(2, "MAIL", &[])).await, "group.name_taken")?;
    catalog.remove_group(GroupId(Uuid::from_u128(1))).await?;
    catalog.remove_group(GroupId(Uuid::from_u128(1))).await?;
    catalog.put_group(&group(2, "MAIL", &[])).await?;
    catalog.put_group(&group(3, "Archive", &[])).await?;
    let names: Vec<String> = catalog.groups().await?.into_iter().map(|group| group.name).collect();
    same("the groups by name", &names, &vec!["Archive".to_owned(), "MAIL".to_owned()])?;
    let mail = catalog.group(GroupId(Uuid::from_u128(2))).await?;
    same("a group", &mail, &Some(group(2, "MAIL", &[])))?;
    same("by name", &catalog.group_named("mail").await?, &mail)
}

pub(super) async fn a_policy_in_use_stays(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let daily = policy(1, "Daily");
    let stray = catalog.put_group(&group(1, "Mail", &[&daily])).await;
    refused("a policy that is not there", stray, "catalog.not_found")?;
    catalog.put_policy(&daily).await?;
    let mail = group(1, "Mail", &[&daily]);
    catalog.put_group(&mail).await?;
    refused("a policy in use", catalog.remove_policy(daily.id).await, "policy.in_use")?;
    catalog.put_group(&edited(&mail, |mail| mail.policies.clear())).await?;
    catalog.remove_policy(daily.id).await?;
    catalog.remove_policy(daily.id).await?;
    same("a removed policy", &catalog.policy(daily.id, None).await?, &None)?;
    same("its version", &catalog.policy(daily.id, Some(daily.version)).await?, &None)
}

pub(super) async fn debris_is_kept_until_removed(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let debris = |key: &str, seconds: i64| {
        let run = RunId(Uuid::from_u128(1));
        Debris::new(key, run, DebrisKind::Other("a clone".into()), "left behind", at(seconds))
    };
    catalog.put_debris(&debris("b", 2)).await?;
    catalog.put_debris(&debris("a", 2)).await?;
    catalog.put_debris(&debris("c", 1)).await?;
    catalog.put_debris(&debris("c", 0)).await?;
    let wanted = vec![debris("c", 0), debris("a", 2), debris("b", 2)];
    same("the debris, oldest first", &catalog.debris().await?, &wanted)?;
    catalog.remove_debris("c").await?;
    catalog.remove_debris("c").await?;
    same("the rest", &catalog.debris().await?, &wanted[1..].to_vec())
}
