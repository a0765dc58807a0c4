//! Many calls at the same time, calls that are given up, and what is left when the catalogue is opened again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_catalog::{
    Begun, Catalog, CatalogError, CatalogExt, Cursor, Debris, DebrisKind, JobQuery, Page,
    PointQuery,
};
use stillpoint_context::{BoxFuture, JobId, Mono, ProcessId, RunId};
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::PointId;
use stillpoint_model::job::{Job, JobOwner};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{PointFact, Truncation};
use stillpoint_model::policy::Policy;
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, Works, ensure, pause, poll_and_drop, same};
use super::{at, edited, fork, group, hold, job, point, policy, published, refused};

type Part<T> = BoxFuture<'static, Result<T, Flaw>>;

fn id(number: u128) -> PointId {
    PointId(Uuid::from_u128(number))
}

/// A fact about a point that does not exist.
fn stray(number: u128) -> PointFact {
    PointFact::Completed { point: id(number + 5000), at: at(1), truncation: Truncation::Unknown }
}

pub(super) async fn calls_at_once_are_each_whole(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let works = Works::default();
    let mut parts: Vec<Part<usize>> = Vec::new();
    for number in 1..=40_u128 {
        let (catalog, working) = (Arc::clone(&catalog), works.begin());
        parts.push(Box::pin(async move {
            let mut facts = vec![published(number, 1, 1)?, published(number + 1000, 1, 1)?];
            if number % 4 == 0 {
                facts.push(stray(number));
                refused("a stray fact", catalog.apply(&facts, None).await, "point.unknown")?;
                drop(working);
                return Ok(0);
            }
            catalog.apply(&facts, None).await?;
            Ok(2)
        }));
    }
    let reader = Arc::clone(&catalog);
    parts.push(Box::pin(async move {
        while !works.are_done() {
            // A page is one look: of every pair it has both or none.
            let seen = reader.points(&PointQuery::all(), &Page::first(Page::LARGEST)).await?.items;
            let pairs = seen.iter().filter(|point| point.id.0.as_u128() <= 1000).count();
            same("the points seen, as twice the pairs", &seen.len(), &(pairs * 2))?;
            pause().await;
        }
        Ok(0)
    }));
    let wanted: usize = subject.together(parts).await?.into_iter().sum();
    same("how many points there are", &catalog.all_points(&PointQuery::all()).await?.len(), &wanted)
}

pub(super) async fn the_cursor_comes_with_its_facts(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let works = Works::default();
    let (writer, working) = (Arc::clone(&catalog), works.begin());
    let write: Part<()> = Box::pin(async move {
        for number in 1..=30_u64 {
            let facts =
                [published(number.into(), 1, 1)?, published(u128::from(number) + 1000, 1, 1)?];
            writer.apply(&facts, Some(Cursor(number))).await?;
            pause().await;
        }
        drop(working);
        Ok(())
    });
    let reader = Arc::clone(&catalog);
    let read: Part<()> = Box::pin(async move {
        while !works.are_done() {
            // Between two looks at the cursor lies a look at the points.
            let before = reader.cursor().await?.map_or(0, |cursor| cursor.0);
            let points = reader.all_points(&PointQuery::all()).await?.len() as u64;
            let after = reader.cursor().await?.map_or(0, |cursor| cursor.0);
            ensure(before * 2 <= points && points <= after * 2, || {
                format!("{points} points between cursor {before} and cursor {after}, of two each")
            })?;
            pause().await;
        }
        Ok(())
    });
    subject.together(vec![write, read]).await?;
    same("the cursor", &catalog.cursor().await?, &Some(Cursor(30)))
}

pub(super) async fn one_of_many_requests_of_a_key_begins(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    for round in 0..5_u128 {
        let parts = (0..8_u128).map(|by| {
            let catalog = Arc::clone(&catalog);
            let part = async move {
                let mut job = job(round, 0)?;
                job.id = JobId(Uuid::from_u128(round * 100 + by));
                match catalog.begin_job(&job).await? {
                    Begun::New => Ok((true, job.id)),
                    Begun::Existing(known) => Ok((false, known.id)),
                }
            };
            Box::pin(part) as Part<(bool, JobId)>
        });
        let begun = subject.together(parts.collect()).await?;
        let new: Vec<_> = begun.iter().filter(|(new, _)| *new).collect();
        same("how many of eight requests began a job", &new.len(), &1)?;
        let all = begun.iter().all(|(_, job)| *job == new[0].1);
        ensure(all, || format!("requests of one key are told of several jobs: {begun:?}"))?;
    }
    same("how many jobs there are", &catalog.all_jobs(&JobQuery::all()).await?.len(), &5)
}

pub(super) async fn one_of_many_takers_has_a_job(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let owner = |number| JobOwner::new(ProcessId(Uuid::from_u128(u128::from(number))), number);
    let unknown = catalog.take_job(job(9, 0)?.id, None, owner(1)).await;
    refused("a job that never began", unknown, "catalog.not_found")?;
    let mut known = job(1, 0)?;
    catalog.begin_job(&known).await?;
    let mut last = None;
    for round in 1..=5_u64 {
        let (one, other) = (owner(10 * round), owner(7));
        for from in [None, Some(owner(3)), Some(other)].into_iter().filter(|from| *from != last) {
            let taken = catalog.take_job(known.id, from, other).await?;
            same(&format!("what is taken from {from:?}"), &taken, &None)?;
        }
        known.owner = Some(one);
        let wanted = Some(known.clone());
        same("what is taken", &catalog.take_job(known.id, last, one).await?, &wanted)?;
        same("what is, again", &catalog.take_job(known.id, last, one).await?, &wanted)?;
        same("the job that is taken", &catalog.job(known.id).await?, &wanted)?;
        let parts = (1..=8_u64).map(|by| {
            let (catalog, job, to) = (Arc::clone(&catalog), known.id, owner(10 * round + by));
            Box::pin(async move { Ok((catalog.take_job(job, Some(one), to).await?, to)) })
                as Part<(Option<Job>, JobOwner)>
        });
        let mut taken = subject.together(parts.collect()).await?;
        taken.retain(|(job, _)| job.is_some());
        same("how many of eight have it", &taken.len(), &1)?;
        last = taken.first().map(|(_, to)| *to);
        known.owner = last;
        same("the job of the one", &catalog.job(known.id).await?.as_ref(), &Some(&known))?;
    }
    Ok(())
}

pub(super) async fn one_of_many_versions_is_stored(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut version = NonZeroU32::MIN;
    for _ in 0..5 {
        let parts = (0..6).map(|by| {
            let catalog = Arc::clone(&catalog);
            let part = async move {
                let mut policy = policy(1, &format!("{version} by {by}"));
                policy.version = version;
                match catalog.put_policy(&policy).await {
                    Ok(()) => Ok(Some(policy)),
                    Err(CatalogError::Version { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            };
            Box::pin(part) as Part<Option<Policy>>
        });
        let stored: Vec<Policy> =
            subject.together(parts.collect()).await?.into_iter().flatten().collect::<Vec<_>>();
        same("how many of six contents are one version", &stored.len(), &1)?;
        let known = catalog.policy(stored[0].id, Some(version)).await?;
        same("what is stored", &known.as_ref(), &stored.first())?;
        version = version.saturating_add(1);
    }
    Ok(())
}

pub(super) async fn one_of_many_changes_of_a_group_is_stored(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let mut last = group(1, "Mail", &[]);
    catalog.put_group(&last).await?;
    for _ in 0..5 {
        let parts = (0..6).map(|by| {
            let catalog = Arc::clone(&catalog);
            let next = edited(&last, |mail| mail.name = format!("Mail by {by}"));
            let part = async move {
                match catalog.put_group(&next).await {
                    Ok(()) => Ok(Some(next)),
                    Err(CatalogError::GroupVersion { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            };
            Box::pin(part) as Part<Option<ResourceGroup>>
        });
        let stored: Vec<ResourceGroup> =
            subject.together(parts.collect()).await?.into_iter().flatten().collect::<Vec<_>>();
        same("how many of six changes are stored", &stored.len(), &1)?;
        let known = catalog.group(last.id).await?;
        same("what is stored", &known.as_ref(), &stored.first())?;
        last = known.unwrap_or(last);
    }
    Ok(())
}

pub(super) async fn who_was_taken_over_stores_no_job(subject: Subject) -> Result<(), Flaw> {
    const TERM: Duration = Duration::from_mins(1);
    let (catalog, leases) = (subject.catalog()?, subject.leases()?);
    let process = |number| ProcessId(Uuid::from_u128(number));
    let (one, two) = (process(1), process(2));
    let (now, later) = (Mono(TERM), Mono(10 * TERM));
    let mut job = job(1, 0)?;
    catalog.begin_job(&job).await?;
    for round in 0..20_u32 {
        let epoch = leases.acquire(one, now, TERM).await?.epoch;
        job.title = format!("of the first, {round}");
        catalog.put_job_in_epoch(&job, one, epoch).await?;
        same("the job of who holds the epoch", &catalog.job(job.id).await?, &Some(job.clone()))?;
        let strangers = [(two, epoch), (one, epoch + 1), (one, epoch - 1), (process(3), 0)];
        for (owner, epoch) in strangers {
            let stored = catalog.put_job_in_epoch(&job, owner, epoch).await;
            refused("a job in an epoch that is not held", stored, "catalog.fenced")?;
        }
        // Another one takes over while the first is about to store.
        let (mut late, mut carried_on) = (job.clone(), job.clone());
        late.title = format!("of the first, late, {round}");
        carried_on.title = format!("of the second, {round}");
        let (first, second) = (Arc::clone(&catalog), Arc::clone(&catalog));
        let (taking, wanted) = (Arc::clone(&leases), carried_on.clone());
        let parts: Vec<Part<()>> = vec![
            Box::pin(async move {
                match first.put_job_in_epoch(&late, one, epoch).await {
                    Ok(()) => Ok(()),
                    fenced => refused("a late job", fenced, "catalog.fenced"),
                }
            }),
            Box::pin(async move {
                taking.fence(one, later, Duration::ZERO).await?;
                let taken = taking.acquire(two, later, TERM).await?.epoch;
                second.put_job_in_epoch(&carried_on, two, taken).await?;
                taking.release(two, taken).await?;
                Ok(())
            }),
        ];
        subject.together(parts).await?;
        same("the job that was carried on", &catalog.job(job.id).await?, &Some(wanted))?;
    }
    Ok(())
}

pub(super) async fn a_dropped_call_is_whole_or_not_at_all(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    for polls in 0..6_u32 {
        let first = u128::from(polls) * 10;
        let facts =
            [published(first, 1, 1)?, published(first + 1, 1, 1)?, published(first + 2, 1, 1)?];
        let cursor = Cursor(u64::from(polls) + 1);
        poll_and_drop(catalog.apply(&facts, Some(cursor)), polls).await;
        // It may take effect while we look: what is looked at later is there if what came before it was.
        let mut seen = Vec::new();
        for number in first..first + 3 {
            seen.push(catalog.point(id(number)).await?.is_some());
        }
        seen.push(catalog.cursor().await? == Some(cursor));
        ensure(seen.is_sorted(), || {
            format!("after {polls} polls a dropped call has taken effect in part: {seen:?}")
        })?;
        catalog.apply(&facts, Some(cursor)).await?;
        for number in first..first + 3 {
            let found = catalog.point(id(number)).await?;
            same("a point of a call made again", &found, &Some(point(number, 1, 1)?))?;
        }
        same("its cursor", &catalog.cursor().await?, &Some(cursor))?;
    }
    let count = catalog.all_points(&PointQuery::all()).await?.len();
    same("how many points there are", &count, &18)
}

pub(super) async fn everything_is_there_after_opening_again(
    mut subject: Subject,
) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    catalog.apply(&[published(1, 1, 1)?, published(2, 1, 2)?], Some(Cursor(u64::MAX - 1))).await?;
    catalog.apply(&[PointFact::Removed { point: id(2), at: at(9) }], None).await?;
    let (first, mut second) = (policy(3, "Daily"), policy(3, "Nightly"));
    second.version = second.version.saturating_add(1);
    second.kind = BackupKind::Copy;
    catalog.put_policy(&first).await?;
    catalog.put_policy(&second).await?;
    catalog.put_group(&group(4, "Mail", &[&first])).await?;
    let begun = job(5, 1)?;
    catalog.begin_job(&begun).await?;
    let mut known = begun.clone();
    known.title = "as it was last put".into();
    catalog.put_job(&known).await?;
    let debris = |key| {
        let kind = DebrisKind::Other("a clone".into());
        Debris::new(key, RunId(Uuid::from_u128(6)), kind, "left behind", at(2))
    };
    catalog.put_debris(&debris("a")).await?;
    catalog.put_debris(&debris("b")).await?;
    catalog.remove_debris("b").await?;
    catalog.put_hold(&hold("case-1", &[1])?).await?;
    catalog.put_hold(&hold("case-2", &[1])?).await?;
    catalog.remove_hold(&hold("case-2", &[1])?.name).await?;
    catalog.put_fork(&fork(8, 1, 3)).await?;
    let before = everything(&*catalog).await?;
    drop(catalog);
    for _ in 0..2 {
        subject.reopen().await?;
        let catalog = subject.catalog()?;
        same("what is there after opening again", &everything(&*catalog).await?, &before)?;
        let old = catalog.policy(first.id, Some(first.version)).await?;
        same("an old version of a policy", &old.as_ref(), &Some(&first))?;
        // What is known of what is gone and of what must not be twice is there, too.
        catalog.apply(&[published(2, 1, 2)?], Some(Cursor(3))).await?;
        let again = catalog.begin_job(&begun).await?;
        same("the request made again", &again, &Begun::Existing(Box::new(known.clone())))?;
        refused(
            "a name that is taken",
            catalog.put_policy(&policy(7, "NIGHTLY")).await,
            "policy.name_taken",
        )?;
        refused("a policy in use", catalog.remove_policy(first.id).await, "policy.in_use")?;
        same("what was removed", &catalog.removed(&[id(1), id(2)]).await?, &[id(2)].into())?;
        same("what is there after that", &everything(&*catalog).await?, &before)?;
    }
    Ok(())
}

/// All that can be listed, as text.
async fn everything(catalog: &dyn Catalog) -> Result<String, Flaw> {
    let points = catalog.all_points(&PointQuery::all()).await?;
    let jobs = catalog.all_jobs(&JobQuery::all()).await?;
    let (policies, groups) = (catalog.policies().await?, catalog.groups().await?);
    let (debris, cursor) = (catalog.debris().await?, catalog.cursor().await?);
    let (holds, forks) = (catalog.holds().await?, catalog.forks(fork(8, 1, 3).database).await?);
    Ok(format!(
        "{points:?}\n{jobs:?}\n{policies:?}\n{groups:?}\n{debris:?}\n{holds:?}\n{forks:?}\n{cursor:?}"
    ))
}
