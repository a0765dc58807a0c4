//! S2: the token, repetition, and what is dropped half way.

use futures_util::future::try_join;
use stillpoint_storage::{Found, PrepareSpec, ProviderErrorKind as Kind, SetToken};

use super::super::frame::{Flaw, ensure, poll_and_drop, same};
use super::trial::{Trial, complete, refused, refused_as};

/// After so many polls a call is dropped at most.
const POLLS: u32 = 6;

pub(super) async fn what_never_was_is_absent(trial: Trial) -> Result<(), Flaw> {
    let token = trial.token()?;
    same("what is found of a token that never was", &trial.find(&token).await?, &Found::Absent)
}

pub(super) async fn what_was_taken_is_found_by_its_token(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.take(&spec).await?;
    let found = trial.find(&spec.token).await?;
    ensure(found != Found::Absent, || "a committed set is not found".to_owned())?;
    let snapshots = trial.settle(&prepared).await?;
    complete("a settled set", &trial.find(&spec.token).await?, &snapshots)?;
    for member in &spec.members {
        let listed = trial.of_token(&member.volume, &spec.token).await?;
        same("how many snapshots a volume has of a set", &listed.len(), &1)?;
    }
    trial.clear(&spec.token).await
}

pub(super) async fn what_was_taken_is_found_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.take(&spec).await?;
    trial.reopen().await?;
    let found = trial.find(&spec.token).await?;
    ensure(found != Found::Absent, || "a committed set is not found after a crash".to_owned())?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_was_settled_is_found_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let snapshots = trial.settled(&spec).await?;
    trial.reopen().await?;
    complete("a settled set after a crash", &trial.find(&spec.token).await?, &snapshots)?;
    trial.stamp(2).await?;
    trial.hold("after a crash", &snapshots, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn a_repeated_commit_is_the_same_snapshots(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let first = trial.commit(&prepared).await?;
    trial.stamp(2).await?;
    same("a commit that is repeated", &trial.commit(&prepared).await?, &first)?;
    let snapshots = trial.settle(&prepared).await?;
    one_of_each(&trial, &spec).await?;
    trial.hold("after a repeated commit", &snapshots, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn a_commit_of_what_is_settled_is_the_same_snapshots(
    trial: Trial,
) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let first = trial.commit(&prepared).await?;
    let snapshots = trial.settle(&prepared).await?;
    same("a commit of what is settled", &trial.commit(&prepared).await?, &first)?;
    one_of_each(&trial, &spec).await?;
    complete("the set after it", &trial.find(&spec.token).await?, &snapshots)?;
    trial.clear(&spec.token).await
}

async fn one_of_each(trial: &Trial, spec: &PrepareSpec) -> Result<(), Flaw> {
    for member in &spec.members {
        let listed = trial.of_token(&member.volume, &spec.token).await?;
        ensure(listed.len() == 1, || {
            format!("{} has {} snapshots of one set: {listed:?}", member.volume, listed.len())
        })?;
    }
    Ok(())
}

pub(super) async fn a_set_that_is_prepared_again_is_one_set(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.prepare(&spec).await?;
    let prepared = trial.prepare(&spec).await?;
    trial.commit(&prepared).await?;
    trial.settle(&prepared).await?;
    one_of_each(&trial, &spec).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn sets_of_different_tokens_are_apart(trial: Trial) -> Result<(), Flaw> {
    let one = trial.spec()?;
    // A token that begins as another does is another.
    let mut two = trial.spec()?;
    two.token = SetToken::new(format!("{}-1", one.token)).map_err(|e| Flaw::new(e.to_string()))?;
    two.name = format!("{}-1", one.name);
    let prepared = trial.prepare(&two).await?;
    trial.stamp(1).await?;
    let seen = trial.live(&two).await?;
    trial.commit(&prepared).await?;
    same(
        "what is found of a set that was not taken",
        &trial.find(&one.token).await?,
        &Found::Absent,
    )?;
    trial.stamp(2).await?;
    let first = trial.settled(&one).await?;
    let second = trial.settle(&prepared).await?;
    complete("the first set", &trial.find(&one.token).await?, &first)?;
    complete("the second set", &trial.find(&two.token).await?, &second)?;
    trial.clear(&one.token).await?;
    complete(
        "the second set, when the first was discarded",
        &trial.find(&two.token).await?,
        &second,
    )?;
    trial.hold("the set that is left", &second, &seen).await?;
    trial.clear(&two.token).await
}

pub(super) async fn sets_may_be_under_way_at_once(trial: Trial) -> Result<(), Flaw> {
    let (one, two) = (trial.spec()?, trial.spec()?);
    let (first, second) = (trial.prepare(&one).await?, trial.prepare(&two).await?);
    let taken = try_join(trial.commit(&second), trial.commit(&first)).await?;
    same(
        "how many members were taken",
        &(taken.0.len(), taken.1.len()),
        &(two.members.len(), one.members.len()),
    )?;
    let (first, second) = try_join(trial.settle(&first), trial.settle(&second)).await?;
    complete("one of two sets", &trial.find(&one.token).await?, &first)?;
    complete("the other set", &trial.find(&two.token).await?, &second)?;
    trial.clear(&one.token).await?;
    trial.clear(&two.token).await
}

pub(super) async fn a_commit_that_was_dropped_can_be_taken_away(trial: Trial) -> Result<(), Flaw> {
    for polls in 0..POLLS {
        let spec = trial.spec()?;
        let prepared = trial.prepare(&spec).await?;
        poll_and_drop(Box::pin(trial.commit(&prepared)), polls).await;
        // Whatever is found, asking does no harm.
        trial.find(&spec.token).await?;
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn a_commit_that_was_dropped_is_found_after_a_crash(
    trial: Trial,
) -> Result<(), Flaw> {
    for polls in 0..POLLS {
        let spec = trial.spec()?;
        let prepared = trial.prepare(&spec).await?;
        poll_and_drop(Box::pin(trial.commit(&prepared)), polls).await;
        trial.reopen().await?;
        trial.find(&spec.token).await?;
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn a_commit_that_was_dropped_may_be_repeated(trial: Trial) -> Result<(), Flaw> {
    for polls in 0..POLLS {
        let spec = trial.spec()?;
        let prepared = trial.prepare(&spec).await?;
        poll_and_drop(Box::pin(trial.commit(&prepared)), polls).await;
        trial.commit(&prepared).await?;
        let snapshots = trial.settle(&prepared).await?;
        one_of_each(&trial, &spec).await?;
        complete("a set whose commit was repeated", &trial.find(&spec.token).await?, &snapshots)?;
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn a_preparation_that_was_dropped_leaves_nothing(
    trial: Trial,
) -> Result<(), Flaw> {
    for polls in 0..POLLS {
        let spec = trial.spec()?;
        poll_and_drop(Box::pin(trial.prepare(&spec)), polls).await;
        trial.clear(&spec.token).await?;
        // Repeated without a look it is not in its own way either.
        let spec = trial.spec()?;
        poll_and_drop(Box::pin(trial.prepare(&spec)), polls).await;
        trial.settled(&spec).await?;
        one_of_each(&trial, &spec).await?;
        trial.clear(&spec.token).await?;
    }
    Ok(())
}

pub(super) async fn what_was_discarded_does_not_come_back(trial: Trial) -> Result<(), Flaw> {
    for committed in [false, true] {
        let spec = trial.spec()?;
        let prepared = trial.prepare(&spec).await?;
        if committed {
            trial.commit(&prepared).await?;
        }
        trial.clear(&spec.token).await?;
        if trial.commits() {
            let what = "a commit of what was discarded";
            let again = trial.provider()?.commit(trial.cx(), &prepared).await;
            refused(what, again, &Kind::Expired)?;
        }
        if let Ok(snapshots) = trial.settle(&prepared).await {
            return Err(Flaw::new(format!("what was discarded is settled as {snapshots:?}")));
        }
        trial.nothing_of(&spec.token, "after the commit of what was discarded").await?;
    }
    Ok(())
}

pub(super) async fn what_was_discarded_does_not_come_back_after_a_crash(
    trial: Trial,
) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    trial.clear(&spec.token).await?;
    trial.reopen().await?;
    refused("a commit of what was discarded", trial.commit(&prepared).await, &Kind::Expired)?;
    trial.nothing_of(&spec.token, "after the commit of what was discarded").await
}

pub(super) async fn what_vss_made_is_found_by_the_token(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.stamp(1).await?;
    let seen = trial.live(&spec).await?;
    let prepared = trial.prepare(&spec).await?;
    let natives = trial.natives(&prepared).await?;
    trial.stamp(2).await?;
    let members = trial.provider()?.adopt(trial.cx(), &prepared, &natives).await?;
    same("how many members were adopted", &members.len(), &spec.members.len())?;
    let snapshots = trial.settle(&prepared).await?;
    complete("what was adopted", &trial.find(&spec.token).await?, &snapshots)?;
    one_of_each(&trial, &spec).await?;
    trial.hold("what was adopted", &snapshots, &seen).await?;
    trial.clear(&spec.token).await
}

pub(super) async fn adopting_again_answers_the_same(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let natives = trial.natives(&prepared).await?;
    let provider = trial.provider()?;
    let first = provider.adopt(trial.cx(), &prepared, &natives).await?;
    same("adopting again", &provider.adopt(trial.cx(), &prepared, &natives).await?, &first)?;
    trial.settle(&prepared).await?;
    same(
        "adopting what is settled",
        &provider.adopt(trial.cx(), &prepared, &natives).await?,
        &first,
    )?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_vss_did_not_make_is_not_adopted(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let prepared = trial.prepare(&spec).await?;
    let mut natives = trial.natives(&prepared).await?;
    if let Some(native) = natives.last_mut() {
        native.native_id = format!("{}-no-such", native.native_id);
    }
    let adopted = trial.provider()?.adopt(trial.cx(), &prepared, &natives).await;
    refused("adopting what does not exist", adopted, &Kind::NotFound)?;
    natives.pop();
    let adopted = trial.provider()?.adopt(trial.cx(), &prepared, &natives).await;
    refused("adopting fewer than the set has", adopted, &Kind::NotFound)?;
    trial.clear(&spec.token).await
}

pub(super) async fn what_vss_made_for_another_set_is_not_adopted(trial: Trial) -> Result<(), Flaw> {
    let (one, two) = (trial.spec()?, trial.spec()?);
    let (first, second) = (trial.prepare(&one).await?, trial.prepare(&two).await?);
    let natives = trial.natives(&first).await?;
    let mut claimed = natives.clone();
    for native in &mut claimed {
        native.token = second.token.clone();
    }
    let adopted = trial.provider()?.adopt(trial.cx(), &second, &claimed).await;
    refused_as("adopting another set's snapshots", adopted, "NotFound or Invalid", |kind| {
        matches!(kind, Kind::NotFound | Kind::Invalid)
    })?;
    trial.clear(&two.token).await?;
    trial.provider()?.adopt(trial.cx(), &first, &natives).await?;
    trial.settle(&first).await?;
    trial.clear(&one.token).await
}
