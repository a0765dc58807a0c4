//! S5: what is asked before, and what is refused before the freeze.

use std::time::Duration;

use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_model::id::{VolumeId, VolumeRef};
use stillpoint_storage::{MemberRole, MemberSpec, ProviderErrorKind as Kind, ProviderResult};

use super::super::frame::{Flaw, ensure, same};
use super::trial::{Trial, placed, refused, refused_as};

pub(super) async fn capabilities_stay_as_they_are(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.prepare(&spec).await?;
    same("the capabilities, asked again", &trial.provider()?.caps(), &trial.caps)?;
    trial.clear(&spec.token).await?;
    ensure(trial.commits() || trial.adopts(), || "it can neither commit nor adopt".to_owned())
}

pub(super) async fn files_are_placed_on_their_volumes(trial: Trial) -> Result<(), Flaw> {
    let mut files = Vec::new();
    let mut wanted = Vec::new();
    for volume in &trial.ground.volumes {
        let new = volume.root.join(&trial.name()).map_err(|e| Flaw::new(e.to_string()))?;
        for file in volume.files.iter().cloned().chain([new]) {
            files.extend(trial.ground.elsewhere.clone());
            wanted.push((file.clone(), volume.volume.clone()));
            files.push(file);
        }
    }
    files.reverse();
    wanted.reverse();
    let placements = trial.provider()?.resolve(trial.cx(), &files).await?;
    let found: Vec<_> = placements.into_iter().map(|p| (p.file, p.volume)).collect();
    same("where files lie, those elsewhere left out", &found, &wanted)
}

fn no_volume(trial: &Trial) -> Result<VolumeRef, Flaw> {
    let id = VolumeId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    Ok(VolumeRef::new(trial.caps.provider.clone(), id))
}

pub(super) async fn volumes_are_told_in_the_order_asked(trial: Trial) -> Result<(), Flaw> {
    let mut asked: Vec<_> = trial.ground.volumes.iter().map(|v| v.volume.clone()).collect();
    asked.reverse();
    let facts = trial.provider()?.volumes(trial.cx(), &asked).await?;
    let told: Vec<_> = facts.iter().map(|facts| facts.volume.clone()).collect();
    same("the volumes that are told of", &told, &asked)
}

pub(super) async fn an_unknown_volume_is_not_found(trial: Trial) -> Result<(), Flaw> {
    let unknown = no_volume(&trial)?;
    let provider = trial.provider()?;
    let asked = [trial.first()?.volume.clone(), unknown.clone()];
    refused(
        "telling of an unknown volume",
        provider.volumes(trial.cx(), &asked).await,
        &Kind::NotFound,
    )?;
    refused(
        "listing an unknown volume",
        provider.list(trial.cx(), &unknown, None).await,
        &Kind::NotFound,
    )?;
    let mut spec = trial.one()?;
    spec.members.push(MemberSpec::new(unknown, MemberRole::Log, Vec::new()));
    refused_as("preparing an unknown volume", trial.prepare(&spec).await, "NotFound", |kind| {
        // A set of one volume may be all there can be.
        matches!(kind, Kind::NotFound | Kind::Unsupported("max_volumes"))
    })?;
    trial.clear(&spec.token).await
}

pub(super) async fn a_snapshot_more_is_counted(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let volume = [trial.first()?.volume.clone()];
    let used = async || -> Result<_, Flaw> {
        let facts = trial.provider()?.volumes(trial.cx(), &volume).await?;
        facts.first().map(|f| f.snapshots_used).ok_or_else(|| Flaw::new("there are no facts"))
    };
    let before = used().await?;
    trial.settled(&spec).await?;
    same("snapshots used, after one more", &used().await?, &(before + 1))?;
    trial.clear(&spec.token).await?;
    same("snapshots used, after it is gone", &used().await?, &before)
}

pub(super) async fn a_limit_that_cannot_be_kept_is_refused(trial: Trial) -> Result<(), Flaw> {
    for limit in [Duration::from_nanos(1), Duration::from_secs(8), Duration::from_hours(24)] {
        let spec = trial.spec()?.with_limit(Some(limit));
        match trial.prepare(&spec).await {
            Ok(prepared) => {
                let worst = prepared.worst_case;
                ensure(worst.is_some_and(|worst| worst <= limit), || {
                    format!("a limit of {limit:?} is promised, and {worst:?} at worst is stated")
                })?;
            }
            Err(error) => {
                let wanted =
                    "TooSlow with a worst case past the limit, or Unsupported(\"instant\")";
                let error =
                    refused_as::<()>("preparing under a limit", Err(error), wanted, |kind| {
                        match kind {
                            Kind::Unsupported("instant") => true,
                            Kind::TooSlow { worst_case, limit: named } => {
                                *named == limit && *worst_case > limit
                            }
                            _ => false,
                        }
                    })?;
                same("the effect of a refusal", &error.effect(), &Effect::None)?;
                trial.nothing_of(&spec.token, "when it was refused").await?;
            }
        }
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn more_volumes_than_can_be_are_refused(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec_of(&trial.ground.volumes)?;
    let what = "preparing more volumes than can be";
    refused(what, trial.prepare(&spec).await, &Kind::Unsupported("max_volumes"))?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_is_not_declared_is_refused_by_name(trial: Trial) -> Result<(), Flaw> {
    let provider = trial.provider()?;
    let (caps, cx) = (&trial.caps, trial.cx());
    let unsupported = |what: &str, found: ProviderResult<String>, capability: &'static str| {
        refused(what, found, &Kind::Unsupported(capability)).map(drop)
    };
    let told = |answer: &dyn std::fmt::Debug| format!("{answer:?}");
    let spec = trial.one()?;
    let prepared = trial.prepare(&spec).await?;
    if !trial.adopts() {
        let found = provider.adopt(cx, &prepared, &[]).await.map(|a| told(&a));
        unsupported("adopting", found, "adopt")?;
    }
    if !trial.commits() {
        let found = provider.commit(cx, &prepared).await.map(|a| told(&a));
        unsupported("a commit", found, "commit")?;
    }
    if !caps.expose {
        let key = trial.exposure_key()?;
        let found = provider.expose(cx, &[], &trial.ground.host, &key).await.map(|a| told(&a));
        unsupported("exposing", found, "expose")?;
    }
    if !caps.documents {
        let name = trial.doc_name()?;
        let found = provider.put_doc(cx, &name, b"text").await.map(|a| told(&a));
        unsupported("storing a document", found, "documents")?;
    }
    if caps.clone {
        ensure(provider.restore().is_some(), || {
            "it restores by clone, and has no side for it".to_owned()
        })?;
    }
    if let Some(restore) = provider.restore().filter(|_| !caps.revert) {
        let found = restore.collateral(cx, &[]).await.map(|a| told(&a));
        unsupported("asking for the collateral of a revert", found, "revert")?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn the_snapshot_limit_is_refused_before(trial: Trial) -> Result<(), Flaw> {
    let volume = [trial.first()?.volume.clone()];
    let facts = trial.provider()?.volumes(trial.cx(), &volume).await?;
    let facts = facts.first().ok_or_else(|| Flaw::new("there are no facts"))?;
    let limit =
        facts.snapshot_limit.ok_or_else(|| Flaw::new("the volume states no snapshot limit"))?;
    let left = facts.snapshots_left().unwrap_or_default();
    ensure(left <= 100, || format!("{left} snapshots are too many to try"))?;
    let mut taken = Vec::new();
    for _ in 0..left {
        let spec = trial.one()?;
        trial.settled(&spec).await?;
        taken.push(spec.token);
    }
    let one_more = trial.one()?;
    let wanted = Kind::SnapshotLimit { limit: u64::from(limit.get()) };
    let error = refused(
        "preparing one snapshot more than can be",
        trial.prepare(&one_more).await,
        &wanted,
    )?;
    same("the volume that the refusal names", &error.volume(), &volume.first())?;
    trial.clear(&one_more.token).await?;
    if let Some(token) = taken.pop() {
        trial.clear(&token).await?;
        let one_more = trial.one()?;
        trial.settled(&one_more).await?;
        trial.clear(&one_more.token).await?;
    }
    for token in taken {
        trial.clear(&token).await?;
    }
    Ok(())
}

pub(super) async fn where_there_is_no_room_it_is_said(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.one()?;
    let volume = trial.first()?.volume.clone();
    placed("fill", trial.place.fill(&volume, true).await)?;
    // If it could not be known before, the commit or the settling says it.
    let taken = async || -> ProviderResult<()> {
        let prepared = trial.prepare(&spec).await?;
        trial.commit(&prepared).await?;
        trial.settle(&prepared).await.map(drop)
    };
    let refused = refused("a snapshot where there is no room", taken().await, &Kind::NoSpace);
    placed("make room", trial.place.fill(&volume, false).await)?;
    refused?;
    trial.clear(&spec.token).await?;
    let spec = trial.one()?;
    trial.settled(&spec).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_prepare_lets_through_can_be_taken(trial: Trial) -> Result<(), Flaw> {
    let volume = trial.first()?;
    let missing = volume.root.join(&trial.name()).map_err(|e| Flaw::new(e.to_string()))?;
    let files = [Some(missing), trial.ground.elsewhere.clone()];
    for file in files.into_iter().flatten() {
        let mut spec = trial.one()?;
        for member in &mut spec.members {
            member.files.push(file.clone());
        }
        match trial.prepare(&spec).await {
            Ok(prepared) => {
                if let Err(error) = trial.commit(&prepared).await {
                    return Err(Flaw::new(format!(
                        "a set with {file} was prepared, and its commit fails: {error}"
                    )));
                }
            }
            Err(error) => {
                let wanted = "Vanished, NotFound, PathEscapes or Invalid";
                refused_as::<()>(
                    "preparing a file that is not there",
                    Err(error),
                    wanted,
                    |kind| {
                        matches!(
                            kind,
                            Kind::Vanished | Kind::NotFound | Kind::PathEscapes | Kind::Invalid
                        )
                    },
                )?;
                trial.nothing_of(&spec.token, "when it was refused").await?;
            }
        }
        trial.clear(&spec.token).await?;
    }
    Ok(())
}
