//! S4: exposures.

use stillpoint_model::handover::Exposure;
use stillpoint_model::id::{SnapshotId, SnapshotRef};
use stillpoint_storage::{ProviderErrorKind as Kind, Snapshot};

use super::super::frame::{Flaw, ensure, same};
use super::trial::{Trial, complete, placed, refused};

async fn listed(trial: &Trial, exposure: &Exposure) -> Result<bool, Flaw> {
    let open = trial.provider()?.exposures(trial.cx()).await?;
    Ok(open.contains(exposure))
}

pub(super) async fn an_exposure_shows_what_was_taken(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let exposure = trial.expose(&snapshots).await?;
    same("the host of an exposure", &exposure.host, &trial.ground.host)?;
    for snapshot in &snapshots {
        ensure(exposure.roots.iter().any(|root| root.snapshot == snapshot.reference()), || {
            format!("the exposure has no root of {}", snapshot.reference())
        })?;
    }
    trial.shows("an exposure", &exposure, &seen).await?;
    trial.unexpose(&exposure).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn an_exposure_is_read_only(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let snapshots = trial.settled(&spec).await?;
    let exposure = trial.expose(&snapshots).await?;
    for file in spec.members.iter().flat_map(|member| &member.files) {
        let found = exposure.find(file);
        let place = found.ok_or_else(|| Flaw::new(format!("{file} is not exposed")))?;
        let read_only = placed("look who may write", trial.place.is_read_only(&place).await)?;
        ensure(read_only, || format!("{place} can be written to"))?;
    }
    trial.unexpose(&exposure).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn exposing_again_is_the_same_exposure(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let snapshots = trial.settled(&spec).await?;
    let references: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
    let (provider, key, host) = (trial.provider()?, trial.exposure_key()?, &trial.ground.host);
    let first = provider.expose(trial.cx(), &references, host, &key).await?;
    let again = provider.expose(trial.cx(), &references, host, &key).await?;
    same("an exposure that is repeated", &again, &first)?;
    let mut open = provider.exposures(trial.cx()).await?;
    open.retain(|exposure| exposure.key == key);
    same("the exposures of one key", &open, &vec![first.clone()])?;
    trial.unexpose(&first).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn an_exposure_is_listed_until_it_is_ended(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let (one, two) = (trial.expose(&snapshots).await?, trial.expose(&snapshots).await?);
    ensure(listed(&trial, &one).await? && listed(&trial, &two).await?, || {
        "an open exposure is not listed".to_owned()
    })?;
    trial.unexpose(&one).await?;
    ensure(!listed(&trial, &one).await?, || "an exposure that was ended is listed".to_owned())?;
    ensure(listed(&trial, &two).await?, || "ending one exposure ended another".to_owned())?;
    trial.shows("an exposure beside one that was ended", &two, &seen).await?;
    trial.unexpose(&two).await?;
    trial.unexpose(&two).await?;
    let never = trial.exposure_key()?;
    trial.provider()?.unexpose(trial.cx(), &never).await?;
    ensure(!listed(&trial, &two).await?, || "an exposure that was ended is listed".to_owned())?;
    trial.clear(&spec.token).await
}

pub(super) async fn an_exposure_never_changes_its_snapshot(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let exposure = trial.expose(&snapshots).await?;
    complete("an exposed set", &trial.find(&spec.token).await?, &snapshots)?;
    trial.unexpose(&exposure).await?;
    complete("a set that was exposed", &trial.find(&spec.token).await?, &snapshots)?;
    trial.hold("a snapshot that is exposed again", &snapshots, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn an_exposure_is_there_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.stamp(2).await?;
    let exposure = trial.expose(&snapshots).await?;
    trial.reopen().await?;
    ensure(listed(&trial, &exposure).await?, || {
        "after a crash the exposure is not listed".to_owned()
    })?;
    trial.shows("an exposure after a crash", &exposure, &seen).await?;
    trial.unexpose(&exposure).await?;
    trial.reopen().await?;
    ensure(!listed(&trial, &exposure).await?, || {
        "an ended exposure is back after a crash".to_owned()
    })?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_is_not_there_is_not_exposed(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let snapshots = trial.settled(&spec).await?;
    let id = SnapshotId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    let never = SnapshotRef::new(trial.first()?.volume.clone(), id);
    let mut wanted: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
    wanted.push(never);
    let key = trial.exposure_key()?;
    let host = &trial.ground.host;
    let exposed = trial.provider()?.expose(trial.cx(), &wanted, host, &key).await;
    refused("exposing what is not there", exposed, &Kind::NotFound)?;
    let open = trial.provider()?.exposures(trial.cx()).await?;
    ensure(open.iter().all(|exposure| exposure.key != key), || {
        "an exposure that was refused is open".to_owned()
    })?;
    trial.clear(&spec.token).await
}
