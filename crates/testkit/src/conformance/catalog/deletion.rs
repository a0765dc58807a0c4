//! Points that go, and what keeps them.

use std::sync::Arc;

use stillpoint_catalog::{CatalogError, CatalogExt, PointQuery};
use stillpoint_context::BoxFuture;
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{DatabaseId, PointId, SnapshotId, SnapshotRef, VolumeId, VolumeRef};
use stillpoint_model::inventory::Generation;
use stillpoint_model::point::{
    MemberRole, PointFact, PointMember, PointState, RestorePoint, Truncation,
};
use uuid::Uuid;

use super::super::Subject;
use super::super::frame::{Flaw, ensure, same};
use super::{at, fork, hold, point, published, refused};

type Part<T> = BoxFuture<'static, Result<T, Flaw>>;

fn id(number: u128) -> PointId {
    PointId(Uuid::from_u128(number))
}

fn expiring(number: u128, turn: u32, keeps_logs: bool) -> PointFact {
    PointFact::Expiring { point: id(number), at: at(10), turn, keeps_logs }
}

fn spared(number: u128, turn: u32) -> PointFact {
    PointFact::Spared { point: id(number), at: at(11), turn }
}

fn reduced(number: u128, turn: u32) -> PointFact {
    PointFact::Reduced { point: id(number), at: at(12), turn, manifest_digest: None }
}

/// A point with a snapshot for its database and one for its logs.
fn with_members(number: u128) -> Result<RestorePoint, Flaw> {
    let mut point = point(number, 1, 0)?;
    for (name, role) in [("data", MemberRole::Data), ("logs", MemberRole::Log)] {
        let names = (name.parse(), name.parse(), SnapshotId::new(name));
        let (Ok(provider), Ok(volume), Ok(snapshot)) = names else {
            return Err(Flaw("a name is none".into()));
        };
        let volume: VolumeId = volume;
        let snapshot = SnapshotRef::new(VolumeRef::new(provider, volume), snapshot);
        point.members.push(PointMember::new(snapshot, name, role));
    }
    Ok(point)
}

pub(super) async fn points_go_in_turns(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let completed =
        PointFact::Completed { point: id(1), at: at(1), truncation: Truncation::Requested };
    let story = [
        (PointFact::Published(Box::new(with_members(1)?)), PointState::Provisional, 2),
        (completed, PointState::Available, 2),
        (expiring(1, 1, true), PointState::Expiring, 2),
        (spared(1, 1), PointState::Available, 2),
        (expiring(1, 2, true), PointState::Expiring, 2),
        (reduced(1, 2), PointState::LogsOnly, 1),
        (expiring(1, 3, false), PointState::Expiring, 1),
    ];
    for told in 0..story.len() {
        let (fact, state, members) = &story[told];
        catalog.apply(std::slice::from_ref(fact), None).await?;
        let wanted = |known: Option<RestorePoint>| {
            known.map(|point| (point.state, point.members.len(), point.has_database()))
        };
        let whole = matches!(state, PointState::Provisional | PointState::Available);
        let known = catalog.point(id(1)).await?;
        same(
            &format!("the point after {fact:?}"),
            &wanted(known.clone()),
            &Some((*state, *members, whole)),
        )?;
        // All that was told so far, once more, at once and one by one.
        let again: Vec<PointFact> = story[..=told].iter().map(|(fact, ..)| fact.clone()).collect();
        catalog.apply(&again, None).await?;
        for fact in &again {
            catalog.apply(std::slice::from_ref(fact), None).await?;
        }
        same("the point that was told everything again", &catalog.point(id(1)).await?, &known)?;
        let mut query = PointQuery::all();
        query.state = Some(*state);
        let found: Vec<PointId> =
            catalog.all_points(&query).await?.iter().map(|point| point.id).collect();
        same(&format!("the points that are {state}"), &found, &vec![id(1)])?;
    }
    refused(
        "an unknown point",
        catalog.apply(&[expiring(9, 1, false)], None).await,
        "point.unknown",
    )?;
    let removed = PointFact::Removed { point: id(1), at: at(20) };
    catalog.apply(&[removed, expiring(1, 4, false), spared(1, 3)], None).await?;
    same("a point that is gone", &catalog.point(id(1)).await?, &None)
}

pub(super) async fn holds_are_kept_until_taken_off(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    catalog.apply(&[published(1, 1, 0)?, published(2, 1, 1)?], None).await?;
    same("no holds", &catalog.holds().await?, &Vec::new())?;
    let (b, a) = (hold("case-b", &[1])?, hold("case-a", &[1, 2])?);
    for hold in [&b, &a, &b] {
        catalog.put_hold(hold).await?;
    }
    same("the holds by name", &catalog.holds().await?, &vec![a.clone(), b.clone()])?;
    let mut changed = hold("case-a", &[2])?.until(at(100));
    changed.reason = "the case goes on".into();
    catalog.put_hold(&changed).await?;
    same("a hold as it was last put", &catalog.holds().await?, &vec![changed.clone(), b.clone()])?;
    let names = catalog.held_by(id(2), at(99)).await?;
    same("who holds a point", &names, &[changed.name.clone()].into())?;
    same("who holds it later", &catalog.held_by(id(2), at(100)).await?.len(), &0)?;
    catalog.remove_hold(&b.name).await?;
    catalog.remove_hold(&b.name).await?;
    same("the rest", &catalog.holds().await?, &vec![changed])
}

pub(super) async fn forks_are_kept_until_taken_back(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    let database = DatabaseId(Uuid::from_u128(1));
    same("no forks", &catalog.forks(database).await?, &Vec::new())?;
    let (first, second, other) = (fork(9, 1, 10), fork(3, 1, 20), fork(4, 2, 15));
    for fork in [&second, &other, &first, &second] {
        catalog.put_fork(fork).await?;
    }
    same("the forks", &catalog.forks(database).await?, &vec![first.clone(), second.clone()])?;
    let mut changed = first.clone();
    changed.replayed_to = Some(Generation(7));
    catalog.put_fork(&changed).await?;
    same(
        "a fork as it was last put",
        &catalog.forks(database).await?,
        &vec![changed, second.clone()],
    )?;
    catalog.remove_fork(first.run).await?;
    catalog.remove_fork(first.run).await?;
    same("the rest", &catalog.forks(database).await?, &vec![second])?;
    same("those of another", &catalog.forks(other.database).await?, &vec![other])
}

pub(super) async fn nothing_holds_what_goes(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    catalog.apply(&[published(1, 1, 0)?, published(2, 1, 1)?], None).await?;
    let known = hold("known", &[2])?;
    catalog.put_hold(&known).await?;
    catalog.apply(&[expiring(2, 1, false)], None).await?;
    refused(
        "a hold on what goes",
        catalog.put_hold(&hold("late", &[1, 2])?).await,
        "hold.too_late",
    )?;
    let nobody = catalog.put_hold(&hold("nobody", &[1, 9])?).await;
    refused("a hold on what is not there", nobody, "catalog.not_found")?;
    same("the holds after that", &catalog.holds().await?, &vec![known.clone()])?;
    // One that was there before may be put again, and changed.
    catalog.put_hold(&known).await?;
    let more = hold("known", &[1, 2])?;
    catalog.put_hold(&more).await?;
    same("the hold that was there", &catalog.holds().await?, &vec![more])?;
    catalog.apply(&[spared(2, 1)], None).await?;
    catalog.put_hold(&hold("late", &[1, 2])?).await?;
    same("a hold on what was spared", &catalog.holds().await?.len(), &2)
}

pub(super) async fn a_hold_is_known_to_who_sees_the_intent(subject: Subject) -> Result<(), Flaw> {
    let catalog = subject.catalog()?;
    for round in 0..20_u128 {
        catalog.apply(&[published(round, 1, 1)?], None).await?;
        let wanted: Hold = hold(&format!("case-{round}"), &[round])?;
        let (deleting, holding) = (Arc::clone(&catalog), Arc::clone(&catalog));
        let mine = wanted.clone();
        // What each has seen: who deletes, the holds after its intent; who holds, that it is held.
        let mut parts: Vec<Part<bool>> = vec![
            Box::pin(async move {
                deleting.apply(&[expiring(round, 1, false)], None).await?;
                Ok(!deleting.held_by(id(round), at(1)).await?.is_empty())
            }),
            Box::pin(async move {
                match holding.put_hold(&mine).await {
                    Ok(()) => Ok(true),
                    Err(CatalogError::Expiring { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }),
        ];
        if round % 2 == 1 {
            parts.reverse();
        }
        let seen = subject.together(parts).await?;
        same("whether it is held, to who deletes and to who holds", &seen[0], &seen[1])?;
        let held = catalog.holds().await?.contains(&wanted);
        same("whether it is held in the end", &held, &seen[1])?;
        let state = catalog.point(id(round)).await?.map(|point| point.state);
        ensure(state == Some(PointState::Expiring), || format!("the point is {state:?}"))?;
    }
    Ok(())
}
