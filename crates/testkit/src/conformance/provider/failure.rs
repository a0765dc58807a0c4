//! S6: what errors say, and that it is true.

use std::time::Duration;

use stillpoint_context::{Cx, Deadline, Effect, ErrorFacts};
use stillpoint_model::id::{SnapshotId, SnapshotRef, VolumeId, VolumeRef};
use stillpoint_storage::{Found, ProviderError, ProviderResult};

use super::super::frame::{Flaw, ensure, same};
use super::trial::Trial;

/// Every error that is easy to come by, with the volume that it is about.
async fn errors(
    trial: &Trial,
) -> Result<Vec<(&'static str, ProviderError, Option<VolumeRef>)>, Flaw> {
    let (provider, cx) = (trial.provider()?, trial.cx());
    let id = VolumeId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    let unknown = VolumeRef::new(trial.caps.provider.clone(), id);
    let mut found = Vec::new();
    let mut note = |what, error: Option<ProviderError>, volume| {
        found.extend(error.map(|error| (what, error, volume)));
    };
    let told = provider.volumes(cx, std::slice::from_ref(&unknown)).await;
    note("telling of an unknown volume", told.err(), Some(unknown.clone()));
    let listed = provider.list(cx, &unknown, None).await;
    note("listing an unknown volume", listed.err(), Some(unknown));
    let spec = trial.one()?;
    let prepared = trial.prepare(&spec).await?;
    note("settling what was never taken", trial.settle(&prepared).await.err(), None);
    trial.clear(&spec.token).await?;
    if trial.commits() {
        let gone = provider.commit(cx, &prepared).await;
        note("a commit of what was discarded", gone.err(), None);
    }
    let limited = trial.one()?.with_limit(Some(Duration::from_nanos(1)));
    note("preparing under a limit of 1 ns", trial.prepare(&limited).await.err(), None);
    trial.clear(&limited.token).await?;
    if trial.caps.expose {
        let id = SnapshotId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
        let never = SnapshotRef::new(trial.first()?.volume.clone(), id);
        let exposed =
            provider.expose(cx, &[never], &trial.ground.host, &trial.exposure_key()?).await;
        note("exposing what is not there", exposed.err(), None);
    }
    Ok(found)
}

pub(super) async fn an_error_says_what_it_is(trial: Trial) -> Result<(), Flaw> {
    for (what, error, volume) in errors(&trial).await? {
        let ill =
            |why: &str| Err(Flaw::new(format!("{what} fails with an error {why}: {error:?}")));
        let message = error.to_string();
        if message.trim().is_empty() || message.ends_with('.') || message.contains('\n') {
            return ill("whose message is no sentence without a full stop");
        }
        if error.remedy().trim().is_empty() {
            return ill("without a remedy");
        }
        if volume.is_some() && error.volume() != volume.as_ref() {
            return ill("that does not name the volume that it is about");
        }
    }
    Ok(())
}

/// What a call answered that was made under a context in which it should not have begun.
fn kept_its_word<T>(what: &str, answer: &ProviderResult<T>, changed: bool) -> Result<(), Flaw> {
    match answer {
        Err(error) if error.effect() == Effect::None => {
            ensure(!changed, || format!("{what} says it did nothing ({error}), and it did"))
        }
        _ => Ok(()),
    }
}

pub(super) async fn what_says_it_did_nothing_did_nothing(trial: Trial) -> Result<(), Flaw> {
    let cancelled = trial.cx().child();
    cancelled.cancel().cancel();
    let late = trial.cx().with_deadline(Deadline::at(trial.cx().mono()));
    for (how, cx) in [("cancelled", &cancelled), ("past its deadline", &late)] {
        tried_under(&trial, how, cx).await?;
    }
    Ok(())
}

async fn tried_under(trial: &Trial, how: &str, cx: &Cx) -> Result<(), Flaw> {
    let provider = trial.provider()?;
    if trial.commits() {
        let spec = trial.spec()?;
        let prepared = trial.prepare(&spec).await?;
        let answer = provider.commit(cx, &prepared).await;
        trial.let_pass().await;
        let found = trial.find(&spec.token).await?;
        kept_its_word(&format!("a commit that was {how}"), &answer, found != Found::Absent)?;
        trial.clear(&spec.token).await?;
    }
    let spec = trial.spec()?;
    let snapshots = trial.settled(&spec).await?;
    for snapshot in &snapshots {
        let answer = provider.delete(cx, &snapshot.reference()).await;
        trial.let_pass().await;
        let left = trial.of_token(&snapshot.volume, &spec.token).await?;
        kept_its_word(&format!("a deletion that was {how}"), &answer, left.is_empty())?;
    }
    let before = trial.find(&spec.token).await?;
    let answer = provider.discard(cx, &spec.token).await;
    trial.let_pass().await;
    let found = trial.find(&spec.token).await?;
    kept_its_word(&format!("a discard that was {how}"), &answer, found != before)?;
    trial.clear(&spec.token).await?;
    if trial.caps.documents {
        let name = trial.doc_name()?;
        let answer = provider.put_doc(cx, &name, b"text").await;
        trial.let_pass().await;
        let stored = provider.get_doc(trial.cx(), &name).await?;
        kept_its_word(&format!("storing what was {how}"), &answer, stored.is_some())?;
        provider.delete_doc(trial.cx(), &name).await?;
    }
    Ok(())
}

pub(super) async fn a_refused_preparation_leaves_nothing(trial: Trial) -> Result<(), Flaw> {
    let id = VolumeId::new(trial.name()).map_err(|error| Flaw::new(error.to_string()))?;
    let unknown = VolumeRef::new(trial.caps.provider.clone(), id);
    let good = trial.spec()?;
    let mut bad = good.clone();
    if let Some(last) = bad.members.last_mut() {
        last.volume = unknown;
    }
    let Err(error) = trial.prepare(&bad).await else {
        return Err(Flaw::new("a set of an unknown volume is prepared"));
    };
    same("the effect of a refusal", &error.effect(), &Effect::None)?;
    trial.nothing_of(&good.token, "when it was refused").await?;
    // Nothing is in the way of the same set, put right.
    let snapshots = trial.settled(&good).await?;
    same("how many snapshots there are", &snapshots.len(), &good.members.len())?;
    trial.clear(&good.token).await
}
