//! X9: the logs that are closed.

use std::time::Duration;

use stillpoint_exchange::{ClosedLogs, CopyId, DatabaseId, PluginErrorKind as Kind};

use super::super::frame::{Flaw, ensure, same};
use super::place::Can;
use super::trial::{Trial, placed, refused};

async fn asked(trial: &Trial, copy: &CopyId) -> Result<ClosedLogs, Flaw> {
    Ok(trial.plugin()?.closed_logs(trial.cx(), copy).await?)
}

pub(super) async fn closed_logs_are_named_in_order(trial: Trial) -> Result<(), Flaw> {
    for copy in trial.copies.clone() {
        let closed = asked(&trial, &copy).await?;
        let generations: Vec<_> = closed.files.iter().filter_map(|file| file.generation).collect();
        same("how many logs have a generation", &generations.len(), &closed.files.len())?;
        ensure(generations.is_sorted_by(|one, next| one < next), || {
            format!("the logs of {copy} are named in this order: {generations:?}")
        })?;
        same("the last closed log", &generations.last(), &closed.state.last_closed.as_ref())?;
        let told = closed.state.closed_at.is_some_and(|at| at <= trial.cx().now());
        ensure(closed.files.is_empty() || told, || {
            format!("the last log was closed at {:?}", closed.state.closed_at)
        })?;
    }
    Ok(())
}

pub(super) async fn the_log_being_written_is_not_named(trial: Trial) -> Result<(), Flaw> {
    for copy in trial.copies.clone() {
        let closed = asked(&trial, &copy).await?;
        let open = closed.state.open;
        let named = closed
            .files
            .iter()
            .find(|file| file.generation.is_none() || (open.is_some() && file.generation >= open));
        ensure(named.is_none(), || format!("{open:?} is being written, and {named:?} is named"))?;
    }
    Ok(())
}

pub(super) async fn a_closed_log_is_never_written_again(trial: Trial) -> Result<(), Flaw> {
    let copy = trial.one()?.copies.first().cloned().ok_or_else(|| Flaw::new("there is no copy"))?;
    let before = asked(&trial, &copy).await?;
    let mut read = Vec::new();
    for file in &before.files {
        read.push(placed("read", trial.place.read(&file.path).await)?);
    }
    let time =
        if trial.can(Can::Virtual) { Duration::from_hours(1) } else { Duration::from_millis(50) };
    trial.wait(time).await;
    let after = asked(&trial, &copy).await?;
    for (file, before) in before.files.iter().zip(read) {
        // It may have been truncated.
        if after.files.iter().any(|left| left.path == file.path) {
            let now = placed("read", trial.place.read(&file.path).await)?;
            ensure(now == before, || format!("{} was closed, and has changed", file.path))?;
        }
    }
    Ok(())
}

pub(super) async fn logs_of_an_unknown_copy_are_refused(trial: Trial) -> Result<(), Flaw> {
    let known =
        trial.one()?.copies.first().cloned().ok_or_else(|| Flaw::new("there is no copy"))?;
    let copy = CopyId::new(DatabaseId(trial.uuid()), known.host);
    let named = trial.plugin()?.closed_logs(trial.cx(), &copy).await;
    refused("the logs of an unknown copy", named, "NotFound or NotAvailable", |kind| {
        matches!(kind, Kind::NotFound | Kind::NotAvailable)
    })
    .map(drop)
}

pub(super) async fn without_log_backups_no_logs_are_named(trial: Trial) -> Result<(), Flaw> {
    let copy = trial.one()?.copies.first().cloned().ok_or_else(|| Flaw::new("there is no copy"))?;
    let named = trial.plugin()?.closed_logs(trial.cx(), &copy).await;
    refused("closed logs", named, "Unsupported(\"closed_logs\")", |kind| {
        *kind == Kind::Unsupported("closed_logs")
    })
    .map(drop)
}
