//! S1 and S9: what happens in which phase, and in which order.

use std::collections::BTreeMap;

use futures_util::future::{Either, select};
use stillpoint_model::handover::Prepared;
use stillpoint_model::id::VolumeRef;

use super::super::frame::{Flaw, ensure, same};
use super::trial::{Trial, complete, placed, stamp_of, stamped, told};

pub(super) async fn a_prepared_set_says_what_was_asked(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    same("the token of what was prepared", &prepared.token, &spec.token)?;
    same("its provider", &prepared.provider, &trial.caps.provider)?;
    let members: Vec<_> = prepared.members.iter().map(|m| (&m.volume, m.role)).collect();
    let asked: Vec<_> = spec.members.iter().map(|m| (&m.volume, m.role)).collect();
    same("its members", &members, &asked)?;
    trial.clear(&spec.token).await
}

pub(super) async fn preparing_takes_no_snapshot(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let volumes: Vec<VolumeRef> = spec.members.iter().map(|member| member.volume.clone()).collect();
    let before = trial.provider()?.volumes(trial.cx(), &volumes).await?;
    trial.prepare(&spec).await?;
    trial.nothing_of(&spec.token, "when it is only prepared").await?;
    let after = trial.provider()?.volumes(trial.cx(), &volumes).await?;
    for (before, after) in before.iter().zip(&after) {
        same("snapshots counted once prepared", &after.snapshots_used, &before.snapshots_used)?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn a_snapshot_is_of_the_instant_of_its_commit(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let prepared = trial.prepare(&spec).await?;
    // Nothing is held up yet.
    trial.stamp(2).await?;
    let seen = trial.live(&spec).await?;
    trial.commit(&prepared).await?;
    trial.stamp(3).await?;
    let snapshots = trial.settle(&prepared).await?;
    trial.stamp(4).await?;
    trial.hold("a snapshot whose commit saw stamp 2", &snapshots, &seen).await?;
    for file in snapshots.iter().flat_map(|snapshot| &snapshot.files) {
        let (Some(seal), Some(bytes)) = (&file.seal, seen.get(&file.path)) else { continue };
        ensure(seal.check_all(bytes).is_ok(), || {
            format!("the seal of {} is not that of what was there at the commit", file.path)
        })?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn a_commit_answers_with_its_members(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let members = trial.commit(&prepared).await?;
    let found: BTreeMap<_, _> = members.iter().map(|m| (&m.volume, m.role)).collect();
    let asked: BTreeMap<_, _> = spec.members.iter().map(|m| (&m.volume, m.role)).collect();
    same("the members that were taken", &found, &asked)?;
    same("how many there are", &members.len(), &spec.members.len())?;
    let snapshots = trial.settle(&prepared).await?;
    for member in &members {
        let Some(id) = &member.snapshot else { continue };
        ensure(snapshots.iter().any(|s| s.volume == member.volume && s.id == *id), || {
            format!("the commit names {id} of {}, the settled set is {snapshots:?}", member.volume)
        })?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn a_commit_keeps_to_the_worst_case_that_was_stated(
    trial: Trial,
) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let began = trial.cx().mono();
    trial.provider()?.commit(trial.cx(), &prepared).await?;
    let took = trial.cx().mono().saturating_since(began);
    if let Some(worst) = prepared.worst_case {
        ensure(took <= worst, || format!("the commit took {took:?}, at worst {worst:?} was said"))?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn a_settled_set_is_as_it_was_asked_for(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let snapshots = trial.settled(&spec).await?;
    let mut volumes: Vec<_> = snapshots.iter().map(|snapshot| &snapshot.volume).collect();
    let mut asked: Vec<_> = spec.members.iter().map(|member| &member.volume).collect();
    volumes.sort();
    asked.sort();
    same("the volumes of a settled set", &volumes, &asked)?;
    for snapshot in &snapshots {
        same("the token of a settled snapshot", &snapshot.token.as_ref(), &Some(&spec.token))?;
        for (key, value) in &spec.tags {
            same(&format!("its tag {key:?}"), &snapshot.tags.get(key), &Some(value))?;
        }
    }
    trial.clear(&spec.token).await
}

pub(super) async fn settling_again_answers_the_same(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.take(&spec).await?;
    let first = trial.settle(&prepared).await?;
    let again = trial.settle(&prepared).await?;
    same("a set that is settled again", &again, &first)?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_was_never_taken_is_not_settled(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    if let Ok(snapshots) = trial.settle(&prepared).await {
        return Err(Flaw::new(format!("a set that was never taken is settled as {snapshots:?}")));
    }
    trial.nothing_of(&spec.token, "when it was settled and never taken").await?;
    trial.clear(&spec.token).await
}

pub(super) async fn a_settled_set_survives_a_power_cut(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    placed("cut the power", trial.place.cut_power().await)?;
    trial.reopen().await?;
    complete("a settled set after a power cut", &trial.find(&spec.token).await?, &snapshots)?;
    trial.stamp(2).await?;
    trial.hold("after a power cut", &snapshots, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_was_prepared_is_used_by_another_process(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let unread = |error| Flaw::new(format!("what was prepared cannot be stored: {error}"));
    let stored = serde_json::to_vec(&prepared).map_err(unread)?;
    trial.reopen().await?;
    let read: Prepared = serde_json::from_slice(&stored).map_err(unread)?;
    same("what was prepared, stored and read", &read, &prepared)?;
    trial.commit(&read).await?;
    let snapshots = trial.settle(&read).await?;
    same("how many snapshots there are", &snapshots.len(), &spec.members.len())?;
    trial.clear(&spec.token).await
}

/// An application that writes ahead to its logs, as fast as it gets its turn: what is in the data is in the logs before.
async fn write_ahead(
    trial: &Trial,
    data: &[stillpoint_context::HostPath],
    logs: &[stillpoint_context::HostPath],
) -> Flaw {
    let mut number = 1;
    loop {
        for file in logs.iter().chain(data) {
            if let Err(flaw) = placed("write", trial.place.write(file, &stamped(number)).await) {
                return flaw;
            }
        }
        number += 1;
        trial.wait(std::time::Duration::from_millis(1)).await;
    }
}

pub(super) async fn data_is_taken_before_its_logs(trial: Trial) -> Result<(), Flaw> {
    trial.stamp(0).await?;
    let spec = trial.spec()?;
    let files = |index: usize| spec.members.get(index).map(|m| m.files.clone()).unwrap_or_default();
    let (data, logs) = (files(0), files(1));
    let prepared = trial.prepare(&spec).await?;
    let members = {
        let writer = std::pin::pin!(write_ahead(&trial, &data, &logs));
        let commit = std::pin::pin!(trial.commit(&prepared));
        match select(commit, writer).await {
            Either::Left((members, _)) => members?,
            Either::Right((flaw, _)) => return Err(flaw),
        }
    };
    let taken = |index: usize| {
        let volume = spec.members.get(index).map(|member| &member.volume);
        members.iter().find(|member| Some(&member.volume) == volume).map(|member| member.taken_at)
    };
    ensure(taken(0) <= taken(1), || format!("logs were taken before their data: {members:?}"))?;
    let snapshots = trial.settle(&prepared).await?;
    if trial.caps.expose {
        let exposure = trial.expose(&snapshots).await?;
        let mut newest_page = 0;
        for (files, is_log) in [(&data, false), (&logs, true)] {
            for file in files {
                let place = exposure
                    .find(file)
                    .ok_or_else(|| Flaw::new(format!("{file} is not exposed")))?;
                let bytes = trial.read(&place).await?;
                let stamp = bytes.as_deref().and_then(stamp_of);
                let Some(stamp) = stamp else {
                    return Err(Flaw::new(format!("{place} holds {}", told(bytes.as_deref()))));
                };
                ensure(!is_log || stamp >= newest_page, || {
                    format!("data holds stamp {newest_page}, its log {file} only {stamp}")
                })?;
                newest_page = if is_log { newest_page } else { newest_page.max(stamp) };
            }
        }
        trial.unexpose(&exposure).await?;
    }
    trial.clear(&spec.token).await
}
