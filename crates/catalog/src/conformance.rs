//! The checks that every catalogue has to pass. Each gets an empty catalogue of its own.

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use stillpoint_context::{ErrorFacts, HostId, IdempotencyKey, JobId, RunId};
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::id::{CopyId, DatabaseId, GroupId, PointId, PolicyId, SetToken};
use stillpoint_model::job::{Job, JobKind, JobRun, RunEnd, RunState};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{
    NewPoint, PointEvidence, PointFact, PointState, RestorePoint, Truncation, Trust,
};
use stillpoint_model::policy::Policy;
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::request::Trigger;
use uuid::Uuid;

use crate::{
    Begun, Catalog, CatalogError, CatalogExt, Cursor, Debris, DebrisKind, JobQuery, Page,
    PointQuery,
};

/// A catalogue does not do what it promises.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(String);

impl From<CatalogError> for Flaw {
    fn from(error: CatalogError) -> Self {
        Self(format!("a call failed: {error} ({})", error.code()))
    }
}

/// The catalogue under test.
pub type Subject = Arc<dyn Catalog>;

/// A check: its name, and what it does with an empty catalogue.
pub type Case = (&'static str, fn(Subject) -> BoxFuture<'static, Result<(), Flaw>>);

/// Every check.
pub const CASES: &[Case] = &[
    ("points_follow_their_facts", |c| Box::pin(points_follow_their_facts(c))),
    ("facts_are_all_or_nothing", |c| Box::pin(facts_are_all_or_nothing(c))),
    ("removed_points_stay_removed", |c| Box::pin(removed_points_stay_removed(c))),
    ("the_cursor_never_goes_back", |c| Box::pin(the_cursor_never_goes_back(c))),
    ("pages_show_everything_once", |c| Box::pin(pages_show_everything_once(c))),
    ("queries_choose", |c| Box::pin(queries_choose(c))),
    ("a_request_is_one_job", |c| Box::pin(a_request_is_one_job(c))),
    ("jobs_are_listed_newest_first", |c| Box::pin(jobs_are_listed_newest_first(c))),
    ("policies_keep_their_versions", |c| Box::pin(policies_keep_their_versions(c))),
    ("names_are_unique", |c| Box::pin(names_are_unique(c))),
    ("a_policy_in_use_stays", |c| Box::pin(a_policy_in_use_stays(c))),
    ("debris_is_kept_until_removed", |c| Box::pin(debris_is_kept_until_removed(c))),
];

fn same<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Result<(), Flaw> {
    if found == wanted {
        return Ok(());
    }
    Err(Flaw(format!("{what}: found {found:?}, wanted {wanted:?}")))
}

fn refused<T: Debug>(what: &str, found: Result<T, CatalogError>, code: &str) -> Result<(), Flaw> {
    match found {
        Err(error) if error.code() == code => Ok(()),
        other => Err(Flaw(format!("{what}: found {other:?}, wanted the error {code}"))),
    }
}

/// An instant, so many seconds after a fixed one.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

/// A restore point of a database, taken after so many seconds.
pub fn point(number: u128, database: u128, seconds: i64) -> Result<RestorePoint, Flaw> {
    let host = HostId::new("ex1").map_err(|error| Flaw(error.to_string()))?;
    let (run, id) = (RunId(Uuid::from_u128(900)), PointId(Uuid::from_u128(number)));
    Ok(RestorePoint::new(NewPoint {
        id,
        copy: CopyId::new(DatabaseId(Uuid::from_u128(database)), host),
        database_name: format!("DB{database}"),
        kind: BackupKind::Full,
        taken_at: at(seconds),
        job: JobId(Uuid::from_u128(800)),
        run,
        set: SetToken::of(&run, id),
        evidence: PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerWriter),
    }))
}

fn published(number: u128, database: u128, seconds: i64) -> Result<PointFact, Flaw> {
    Ok(PointFact::Published(Box::new(point(number, database, seconds)?)))
}

fn job(number: u128, seconds: i64) -> Result<Job, Flaw> {
    let key =
        IdempotencyKey::new(format!("key-{number}")).map_err(|error| Flaw(error.to_string()))?;
    let id = JobId(Uuid::from_u128(number));
    Ok(Job::new(id, JobKind::Backup, key, Trigger::Api, at(seconds)))
}

fn policy(number: u128, name: &str) -> Policy {
    Policy::new(PolicyId(Uuid::from_u128(number)), name)
}

fn group(number: u128, name: &str, policies: &[&Policy]) -> ResourceGroup {
    let id = GroupId(Uuid::from_u128(number));
    let mut group = ResourceGroup::new(id, name, vec![Selector::Everything]);
    group.policies = policies.iter().map(|policy| policy.id).collect();
    group
}

async fn points_follow_their_facts(catalog: Subject) -> Result<(), Flaw> {
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

async fn facts_are_all_or_nothing(catalog: Subject) -> Result<(), Flaw> {
    let stray = PointFact::Checked {
        point: PointId(Uuid::from_u128(99)),
        trust: Trust::Verified { at: at(1) },
    };
    let facts = [published(1, 1, 0)?, stray];
    refused("a stray fact", catalog.apply(&facts, Some(Cursor(7))).await, "point.unknown")?;
    same("the point beside it", &catalog.point(PointId(Uuid::from_u128(1))).await?, &None)?;
    same("the cursor", &catalog.cursor().await?, &None)
}

async fn removed_points_stay_removed(catalog: Subject) -> Result<(), Flaw> {
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

async fn the_cursor_never_goes_back(catalog: Subject) -> Result<(), Flaw> {
    same("the first cursor", &catalog.cursor().await?, &None)?;
    for (given, wanted) in [(Some(3), 3), (None, 3), (Some(2), 3), (Some(u64::MAX), u64::MAX)] {
        catalog.apply(&[], given.map(Cursor)).await?;
        same("the cursor", &catalog.cursor().await?, &Some(Cursor(wanted)))?;
    }
    Ok(())
}

async fn pages_show_everything_once(catalog: Subject) -> Result<(), Flaw> {
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

async fn queries_choose(catalog: Subject) -> Result<(), Flaw> {
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
    let all = PointQuery::all;
    let set = point(7, 0, 0)?.set;
    let queries = [
        PointQuery::of(DatabaseId(Uuid::from_u128(1))),
        PointQuery { group: Some(GroupId(Uuid::from_u128(5))), ..all() },
        PointQuery { policy: Some(PolicyId(Uuid::from_u128(6))), ..all() },
        PointQuery { job: Some(JobId(Uuid::from_u128(801))), ..all() },
        PointQuery { run: Some(RunId(Uuid::from_u128(901))), ..all() },
        PointQuery { set: Some(set), ..all() },
        PointQuery { kind: Some(BackupKind::Copy), ..all() },
        PointQuery { state: Some(PointState::Available), ..all() },
        PointQuery { from: Some(at(3)), until: Some(at(7)), ..all() },
        PointQuery { from: Some(at(7)), until: Some(at(3)), ..all() },
        PointQuery {
            database: Some(DatabaseId(Uuid::from_u128(0))),
            group: Some(GroupId(Uuid::from_u128(5))),
            from: Some(at(1)),
            ..all()
        },
    ];
    let every = catalog.all_points(&all()).await?;
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

async fn a_request_is_one_job(catalog: Subject) -> Result<(), Flaw> {
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

async fn jobs_are_listed_newest_first(catalog: Subject) -> Result<(), Flaw> {
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
        JobQuery { ended: Some(true), ..JobQuery::all() },
        JobQuery { kind: Some(JobKind::Verify), ..JobQuery::all() },
        JobQuery { group: Some(GroupId(Uuid::from_u128(5))), ..JobQuery::all() },
        JobQuery { from: Some(at(1)), until: Some(at(2)), ..JobQuery::all() },
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

async fn policies_keep_their_versions(catalog: Subject) -> Result<(), Flaw> {
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

async fn names_are_unique(catalog: Subject) -> Result<(), Flaw> {
    catalog.put_policy(&policy(1, "Täglich")).await?;
    refused("a name", catalog.put_policy(&policy(2, "TÄGLICH")).await, "policy.name_taken")?;
    let mut renamed = policy(1, "Nachts");
    renamed.version = NonZeroU32::MIN.saturating_add(1);
    catalog.put_policy(&renamed).await?;
    catalog.put_policy(&policy(2, "täglich")).await?;

    catalog.put_group(&group(1, "Mail", &[])).await?;
    catalog.put_group(&group(1, "mail", &[])).await?;
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

async fn a_policy_in_use_stays(catalog: Subject) -> Result<(), Flaw> {
    let daily = policy(1, "Daily");
    let stray = catalog.put_group(&group(1, "Mail", &[&daily])).await;
    refused("a policy that is not there", stray, "catalog.not_found")?;
    catalog.put_policy(&daily).await?;
    catalog.put_group(&group(1, "Mail", &[&daily])).await?;
    refused("a policy in use", catalog.remove_policy(daily.id).await, "policy.in_use")?;
    catalog.put_group(&group(1, "Mail", &[])).await?;
    catalog.remove_policy(daily.id).await?;
    catalog.remove_policy(daily.id).await?;
    same("a removed policy", &catalog.policy(daily.id, None).await?, &None)?;
    same("its version", &catalog.policy(daily.id, Some(daily.version)).await?, &None)
}

async fn debris_is_kept_until_removed(catalog: Subject) -> Result<(), Flaw> {
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
