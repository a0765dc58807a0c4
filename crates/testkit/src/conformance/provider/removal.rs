//! S3: deleting, discarding, and what is refused or never touched.

use std::collections::BTreeMap;

use stillpoint_model::id::{SetToken, SnapshotId, SnapshotRef};
use stillpoint_storage::{Deleted, Discarded, Found, ProviderErrorKind as Kind, Snapshot};

use super::super::frame::{Flaw, ensure, same};
use super::trial::{Trial, complete, identities, placed, refused};

async fn delete(trial: &Trial, snapshot: &SnapshotRef) -> Result<(), Flaw> {
    // What the storage carries out later is gone after a while.
    for _ in 0..1000 {
        let answer = trial.provider()?.delete(trial.cx(), snapshot).await?;
        if answer == Deleted::Gone {
            return Ok(());
        }
        trial.wait(std::time::Duration::from_millis(50)).await;
    }
    Err(Flaw::new(format!("{snapshot} is still being deleted")))
}

pub(super) async fn discarding_is_right_in_any_phase(trial: Trial) -> Result<(), Flaw> {
    for phase in 0..4 {
        let spec = trial.spec()?;
        if phase > 0 {
            let prepared = trial.prepare(&spec).await?;
            if phase > 1 {
                trial.commit(&prepared).await?;
            }
            if phase > 2 {
                trial.settle(&prepared).await?;
            }
        }
        trial.clear(&spec.token).await?;
        let again = trial.provider()?.discard(trial.cx(), &spec.token).await?;
        same("discarding what was discarded", &again, &Discarded::Gone)?;
    }
    Ok(())
}

pub(super) async fn deleting_again_succeeds(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    for snapshot in trial.settled(&spec).await? {
        delete(&trial, &snapshot.reference()).await?;
        let left = trial.of_token(&snapshot.volume, &spec.token).await?;
        ensure(left.is_empty(), || format!("what was deleted is listed: {left:?}"))?;
        let again = trial.provider()?.delete(trial.cx(), &snapshot.reference()).await?;
        same("deleting what is gone", &again, &Deleted::Gone)?;
    }
    trial.nothing_of(&spec.token, "when all its snapshots are deleted").await?;
    let volume = trial.first()?.volume.clone();
    let id = SnapshotId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    let never = SnapshotRef::new(volume, id);
    let answer = trial.provider()?.delete(trial.cx(), &never).await?;
    same("deleting what never was", &answer, &Deleted::Gone)?;
    trial.clear(&spec.token).await
}

pub(super) async fn deleting_one_leaves_the_rest_of_its_set(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let mut seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let (Some(gone), [_, left @ ..]) = (snapshots.first(), snapshots.as_slice()) else {
        return Err(Flaw::new("the set has no snapshot"));
    };
    delete(&trial, &gone.reference()).await?;
    let found = trial.find(&spec.token).await?;
    let is_part = matches!(&found, Found::Partial(part) if identities(part) == identities(left));
    ensure(is_part, || format!("without one snapshot the set is found as {found:?}"))?;
    for member in spec.members.iter().filter(|member| member.volume == gone.volume) {
        seen.retain(|file, _| !member.files.contains(file));
    }
    trial.hold("the rest of the set", left, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn removing_leaves_other_sets(trial: Trial) -> Result<(), Flaw> {
    let (one, two, three) = (trial.spec()?, trial.spec()?, trial.spec()?);
    trial.stamp(1).await?;
    let seen = trial.live(&two).await?;
    let first = trial.settled(&one).await?;
    let second = trial.settled(&two).await?;
    trial.settled(&three).await?;
    trial.stamp(2).await?;
    for snapshot in &first {
        delete(&trial, &snapshot.reference()).await?;
    }
    trial.clear(&three.token).await?;
    complete("another set", &trial.find(&two.token).await?, &second)?;
    trial.hold("another set", &second, &seen).await?;
    trial.clear(&two.token).await
}

pub(super) async fn what_is_held_is_refused(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let snapshots = trial.settled(&spec).await?;
    for snapshot in &snapshots {
        placed("hold", trial.place.hold(&snapshot.reference(), true).await)?;
        let deleted = trial.provider()?.delete(trial.cx(), &snapshot.reference()).await;
        refused("deleting what is held", deleted, &Kind::Held)?;
    }
    let discarded = trial.provider()?.discard(trial.cx(), &spec.token).await;
    refused("discarding what is held", discarded, &Kind::Held)?;
    complete("what is held", &trial.find(&spec.token).await?, &snapshots)?;
    for snapshot in &snapshots {
        placed("release", trial.place.hold(&snapshot.reference(), false).await)?;
        delete(&trial, &snapshot.reference()).await?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn what_is_locked_is_refused_with_its_date(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let snapshots = trial.settled(&spec).await?;
    for snapshot in &snapshots {
        let until = placed("lock", trial.place.lock(&snapshot.reference(), true).await)?;
        let deleted = trial.provider()?.delete(trial.cx(), &snapshot.reference()).await;
        refused("deleting what is locked", deleted, &Kind::Locked { until })?;
        let discarded = trial.provider()?.discard(trial.cx(), &spec.token).await;
        refused("discarding what is locked", discarded, &Kind::Locked { until })?;
    }
    complete("what is locked", &trial.find(&spec.token).await?, &snapshots)?;
    for snapshot in &snapshots {
        placed("unlock", trial.place.lock(&snapshot.reference(), false).await)?;
        delete(&trial, &snapshot.reference()).await?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn what_is_exposed_is_refused_or_stays_readable(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let exposure = trial.expose(&snapshots).await?;
    for snapshot in &snapshots {
        if let Err(error) = trial.provider()?.delete(trial.cx(), &snapshot.reference()).await {
            refused::<()>("deleting what is exposed", Err(error), &Kind::Dependents)?;
        }
    }
    if let Err(error) = trial.provider()?.discard(trial.cx(), &spec.token).await {
        refused::<()>("discarding what is exposed", Err(error), &Kind::Dependents)?;
    }
    trial.shows("an exposure whose snapshot was to be removed", &exposure, &seen).await?;
    trial.unexpose(&exposure).await?;
    trial.clear(&spec.token).await
}

/// The snapshots of every volume that are not of a token.
async fn others(trial: &Trial, token: &SetToken) -> Result<BTreeMap<SnapshotRef, Snapshot>, Flaw> {
    let mut found = BTreeMap::new();
    for volume in &trial.ground.volumes {
        for snapshot in trial.listed(&volume.volume).await? {
            if snapshot.token.as_ref() != Some(token) {
                let _new = found.insert(snapshot.reference(), snapshot);
            }
        }
    }
    Ok(found)
}

pub(super) async fn what_is_not_ours_is_never_touched(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let volume = trial.first()?.volume.clone();
    let mut foreign = Vec::new();
    // Names that begin as ours do, and nothing else of ours.
    for name in [format!("{}.0", spec.name), "daily.0".to_owned(), format!("{}.old", spec.token)] {
        foreign
            .push(placed("add a foreign snapshot", trial.place.add_foreign(&volume, &name).await)?);
    }
    let before = others(&trial, &spec.token).await?;
    for snapshot in &foreign {
        let Some(listed) = before.get(snapshot) else {
            return Err(Flaw::new(format!("the foreign snapshot {snapshot} is not listed")));
        };
        same("the token of what is not ours", &listed.token, &None)?;
    }
    let snapshots = trial.settled(&spec).await?;
    for snapshot in &foreign {
        let deleted = trial.provider()?.delete(trial.cx(), snapshot).await;
        refused("deleting what is not ours", deleted, &Kind::Invalid)?;
        ensure(snapshots.iter().all(|ours| ours.reference() != *snapshot), || {
            format!("the set took over {snapshot}, which is not ours")
        })?;
    }
    for snapshot in &snapshots {
        delete(&trial, &snapshot.reference()).await?;
    }
    trial.clear(&spec.token).await?;
    same("what is not ours, afterwards", &others(&trial, &spec.token).await?, &before)
}

pub(super) async fn a_name_that_is_taken_is_no_set_of_ours(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let volume = trial.first()?.volume.clone();
    let foreign = placed(
        "add a foreign snapshot",
        trial.place.add_foreign(&volume, spec.token.as_str()).await,
    )?;
    let before = others(&trial, &spec.token).await?;
    ensure(before.contains_key(&foreign), || format!("{foreign} is not listed as another's"))?;
    trial.nothing_of(&spec.token, "when only another's snapshot has its name").await?;
    match trial.prepare(&spec).await {
        Ok(prepared) => {
            // It found another name: the foreign one is none of the set's.
            let members = trial.commit(&prepared).await?;
            ensure(members.iter().all(|m| m.snapshot.as_ref() != Some(&foreign.id)), || {
                format!("the commit answers with another's snapshot: {members:?}")
            })?;
            trial.settle(&prepared).await?;
        }
        Err(error) => {
            refused::<()>("preparing under a name that is taken", Err(error), &Kind::NameTaken)?;
        }
    }
    trial.clear(&spec.token).await?;
    same("what is not ours, afterwards", &others(&trial, &spec.token).await?, &before)
}
