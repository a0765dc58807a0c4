//! X4, X5 and X6: sessions, and what they are about.

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint_exchange::{CopyId, PluginErrorKind as Kind, Scope, SessionSpec, SessionState};
use stillpoint_model::id::DatabaseId;
use stillpoint_model::inventory::FileRole;

use super::super::frame::{Flaw, ensure, poll_and_drop, same};
use super::place::Can;
use super::trial::{LEASE, Trial, gone, placed, refused};

const SHORT: Duration = Duration::from_millis(100);

fn is_open(state: &SessionState) -> bool {
    matches!(state, SessionState::Open | SessionState::Frozen { .. })
}

pub(super) async fn beginning_again_is_the_same_session(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.spec()?;
    spec.lease = Duration::from_mins(10);
    let first = trial.begin(&spec).await?;
    trial.wait(Duration::from_millis(10)).await;
    let again = trial.begin(&spec).await?;
    same("the id of a session begun again", &again.id, &first.id)?;
    same("its kind", &again.kind, &first.kind)?;
    same("its copies", &again.copies, &first.copies)?;
    same("its files", &again.files, &first.files)?;
    ensure(again.lease_until > first.lease_until, || {
        format!("the lease does not begin anew: {} after {}", again.lease_until, first.lease_until)
    })?;
    trial.end(&spec).await
}

pub(super) async fn a_session_can_be_looked_up(trial: Trial) -> Result<(), Flaw> {
    let never = trial.id();
    same("the state of what never was", &trial.state(never).await?, &SessionState::Unknown)?;
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    same("the state of what was begun", &trial.state(spec.id).await?, &SessionState::Open)?;
    if trial.freezes() {
        trial.plugin()?.freeze(trial.cx(), spec.id, trial.limit()).await?;
        trial.is_frozen(&spec, "after the freeze,").await?;
        trial.plugin()?.thaw(trial.cx(), spec.id).await?;
        same("the state after the thaw", &trial.state(spec.id).await?, &SessionState::Open)?;
    }
    trial.end(&spec).await?;
    let state = trial.state(spec.id).await?;
    ensure(matches!(state, SessionState::Aborted | SessionState::Unknown), || {
        format!("what was aborted is {state:?}")
    })
}

pub(super) async fn a_lease_runs_out(trial: Trial) -> Result<(), Flaw> {
    for freeze in [false, true] {
        let mut spec = trial.spec()?;
        spec.lease = SHORT;
        trial.begin(&spec).await?;
        if freeze && trial.freezes() {
            // On a slow machine the lease is over before: that is what is to be seen.
            let _frozen = trial.plugin()?.freeze(trial.cx(), spec.id, trial.limit()).await;
        }
        trial.ends_by_itself(spec.id, "a session whose lease is over", is_open).await?;
        trial.is_over(&spec, "after its lease").await?;
        gone("renewing what is over", trial.plugin()?.renew(trial.cx(), spec.id, LEASE).await)?;
        // And it is not in the way of another.
        let next = trial.spec()?;
        trial.begin(&next).await?;
        trial.end(&next).await?;
    }
    Ok(())
}

pub(super) async fn a_renewed_session_lives_on(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.spec()?;
    spec.lease = Duration::from_mins(1);
    trial.begin(&spec).await?;
    trial.plugin()?.renew(trial.cx(), spec.id, Duration::from_hours(1)).await?;
    if trial.can(Can::Virtual) {
        trial.wait(Duration::from_mins(30)).await;
    }
    same("the state of what was renewed", &trial.state(spec.id).await?, &SessionState::Open)?;
    // A lease counts from now, also if that is sooner.
    trial.plugin()?.renew(trial.cx(), spec.id, SHORT).await?;
    trial.ends_by_itself(spec.id, "a session whose lease is over", is_open).await?;
    trial.is_over(&spec, "after its lease").await
}

pub(super) async fn what_is_not_open_is_gone(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    trial.end(&spec).await?;
    let plugin = trial.plugin()?;
    for id in [trial.id(), spec.id] {
        gone("renewing what is not open", plugin.renew(trial.cx(), id, LEASE).await)?;
        if trial.freezes() {
            let frozen = plugin.freeze(trial.cx(), id, trial.limit()).await;
            refused("freezing what is not open", frozen, "SessionGone or Superseded", |kind| {
                matches!(kind, Kind::SessionGone | Kind::Superseded)
            })?;
            trial.is_not_frozen(&spec, "when its freeze was refused,").await?;
        }
    }
    gone("evidence of what never was", plugin.evidence(trial.cx(), trial.id()).await)
}

pub(super) async fn an_abort_is_right_in_any_state(trial: Trial) -> Result<(), Flaw> {
    let plugin = trial.plugin()?;
    plugin.abort(trial.cx(), trial.id()).await?;
    for freeze in [false, true] {
        let spec = trial.spec()?;
        trial.begin(&spec).await?;
        if freeze && trial.freezes() {
            plugin.freeze(trial.cx(), spec.id, trial.limit()).await?;
        }
        for _ in 0..2 {
            trial.end(&spec).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_beginning_that_was_dropped_is_ended(trial: Trial) -> Result<(), Flaw> {
    for polls in 0..6 {
        let spec = trial.spec()?;
        poll_and_drop(trial.plugin()?.begin(trial.cx(), &spec), polls).await;
        trial.cx().in_flight().over().await;
        trial.end(&spec).await?;
        let next = trial.spec()?;
        trial.begin(&next).await?;
        trial.end(&next).await?;
    }
    Ok(())
}

pub(super) async fn a_session_can_be_ended_after_a_crash(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    trial.reopen().await?;
    // It is there, or it is honestly lost.
    let state = trial.state(spec.id).await?;
    let legal = matches!(state, SessionState::Open | SessionState::Lost | SessionState::Unknown);
    ensure(legal, || format!("after a crash an open session is {state:?}"))?;
    trial.end(&spec).await?;
    let next = trial.spec()?;
    trial.begin(&next).await?;
    trial.end(&next).await
}

pub(super) async fn copies_are_known_by_id(trial: Trial) -> Result<(), Flaw> {
    let inventory = trial.inventory(&Scope::Everything).await?;
    for (id, copy) in &inventory.copies {
        same("the id of a copy", &copy.id, id)?;
        ensure(inventory.databases.contains_key(&id.database), || {
            format!("the database of {id} is not in the inventory")
        })?;
        ensure(inventory.hosts.contains_key(&id.host), || {
            format!("the host of {id} is not in the inventory")
        })?;
    }
    let again = trial.inventory(&Scope::Everything).await?;
    let ids = |inventory: &stillpoint_exchange::Inventory| {
        inventory.copies.keys().cloned().collect::<Vec<_>>()
    };
    same("the copies, asked again", &ids(&again), &ids(&inventory))?;
    same("the epoch, when nothing has changed", &again.epoch, &inventory.epoch)
}

pub(super) async fn ids_outlast_names(trial: Trial) -> Result<(), Flaw> {
    let before = trial.inventory(&Scope::Everything).await?;
    let spec = trial.one()?;
    let session = trial.begin(&spec).await?;
    let copy = spec.copies.first().ok_or_else(|| Flaw::new("there is no copy"))?;
    let name = format!("renamed-{}", trial.uuid().simple());
    placed("rename", trial.place.rename(copy.database, &name).await)?;
    let after = trial.inventory(&Scope::Everything).await?;
    let known = after.databases.get(&copy.database);
    let known = known.ok_or_else(|| Flaw::new("a database that was renamed is another"))?;
    same("its name", &known.name, &name)?;
    let ids = |inventory: &stillpoint_exchange::Inventory| {
        inventory.copies.keys().cloned().collect::<Vec<_>>()
    };
    same("the copies after one was renamed", &ids(&after), &ids(&before))?;
    same("a session of what was renamed", &trial.begin(&spec).await?.copies, &session.copies)?;
    trial.end(&spec).await
}

pub(super) async fn a_scope_is_what_it_names(trial: Trial) -> Result<(), Flaw> {
    let all = trial.inventory(&Scope::Everything).await?;
    let nothing = trial.inventory(&Scope::Databases(BTreeSet::new())).await?;
    ensure(nothing.copies.is_empty() && nothing.databases.is_empty(), || {
        "an empty scope is everything".to_owned()
    })?;
    let one = trial.one()?;
    let copy = one.copies.first().ok_or_else(|| Flaw::new("there is no copy"))?;
    let wanted: Vec<_> = all.copies.keys().filter(|c| c.database == copy.database).collect();
    let found = trial.inventory(&Scope::Databases([copy.database].into())).await?;
    same("the copies of one database", &found.copies.keys().collect(), &wanted)?;
    let wanted: Vec<_> = all.copies.keys().filter(|c| c.host == copy.host).collect();
    let found = trial.inventory(&Scope::Hosts([copy.host.clone()].into())).await?;
    same("the copies of one host", &found.copies.keys().collect(), &wanted)
}

async fn nothing_begun(trial: &Trial, spec: &SessionSpec) -> Result<(), Flaw> {
    let state = trial.state(spec.id).await?;
    ensure(!is_open(&state), || format!("a session that was refused is {state:?}"))
}

pub(super) async fn an_unknown_copy_is_refused(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.one()?;
    let host = spec.copies.first().map(|copy| copy.host.clone());
    let host = host.ok_or_else(|| Flaw::new("there is no copy"))?;
    spec.copies = vec![CopyId::new(DatabaseId(trial.uuid()), host)];
    let begun = trial.plugin()?.begin(trial.cx(), &spec).await;
    refused("beginning with an unknown copy", begun, "NotFound or NotAvailable", |kind| {
        matches!(kind, Kind::NotFound | Kind::NotAvailable)
    })?;
    nothing_begun(&trial, &spec).await
}

pub(super) async fn copies_of_several_servers_are_invalid(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.one()?;
    spec.copies.extend(trial.elsewhere.clone());
    let begun = trial.plugin()?.begin(trial.cx(), &spec).await;
    refused(
        "beginning on two servers",
        begun,
        "Invalid or Unsupported(\"max_databases\")",
        |kind| matches!(kind, Kind::Invalid | Kind::Unsupported("max_databases")),
    )?;
    nothing_begun(&trial, &spec).await
}

pub(super) async fn a_session_names_the_files_of_its_copies(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let session = trial.begin(&spec).await?;
    same("the id of a session", &session.id, &spec.id)?;
    same("the copies of a session", &session.copies, &spec.copies)?;
    for copy in &spec.copies {
        let mut files = session.files.iter().filter(|file| file.copy == *copy);
        ensure(files.any(|file| file.role == FileRole::Database), || {
            format!("the session has no database file of {copy}")
        })?;
    }
    for file in &session.files {
        ensure(spec.copies.contains(&file.copy), || {
            format!("{} is of {}, which is not in the session", file.path, file.copy)
        })?;
    }
    trial.end(&spec).await
}

pub(super) async fn more_databases_than_can_be_are_refused(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.one()?;
    spec.copies.clone_from(&trial.copies);
    let begun = trial.plugin()?.begin(trial.cx(), &spec).await;
    refused("beginning with too many", begun, "Unsupported(\"max_databases\")", |kind| {
        *kind == Kind::Unsupported("max_databases")
    })?;
    nothing_begun(&trial, &spec).await
}

pub(super) async fn a_second_freeze_does_no_harm_to_the_first(trial: Trial) -> Result<(), Flaw> {
    let one = trial.one()?;
    let mut two = trial.one()?;
    two.copies = trial.copies.iter().skip(1).take(1).cloned().collect();
    let plugin = trial.plugin()?;
    trial.begin(&two).await?;
    trial.frozen(&one).await?;
    let second = plugin.freeze(trial.cx(), two.id, trial.limit()).await;
    trial.is_frozen(&one, "beside a second freeze,").await?;
    if let Err(error) = second {
        refused::<()>(
            "a second freeze of a server",
            Err(error),
            "a refusal that may be retried",
            |kind| {
                matches!(
                    kind,
                    Kind::BusyOtherRequester | Kind::NotAvailable | Kind::WriterFailed { .. }
                )
            },
        )?;
    }
    plugin.thaw(trial.cx(), two.id).await?;
    trial.is_frozen(&one, "after the thaw of the second,").await?;
    plugin.thaw(trial.cx(), one.id).await?;
    trial.is_not_frozen(&one, "after the thaw").await?;
    trial.end(&two).await?;
    trial.end(&one).await
}

pub(super) async fn a_second_session_of_a_database_does_no_harm(trial: Trial) -> Result<(), Flaw> {
    let (one, two) = (trial.one()?, trial.one()?);
    trial.begin(&one).await?;
    let second = trial.plugin()?.begin(trial.cx(), &two).await;
    same("the first session", &trial.state(one.id).await?, &SessionState::Open)?;
    if second.is_ok() {
        trial.end(&two).await?;
    }
    same("the first session", &trial.state(one.id).await?, &SessionState::Open)?;
    trial.thawed(&one).await?;
    trial.end(&one).await
}
