//! `catalogue`: the state file itself.

use std::path::Path;

use chrono::TimeDelta;
use stillpoint::ForgetOptions;

use super::tell;
use crate::args::keeping::ForgetArgs;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{BackedUpView, ForgottenView};

/// Writes a copy of the state file. Nothing else of the site is looked at: the storage may be what is lost.
pub(super) fn back_up(file: &Path, places: &Places, out: Out) -> Outcome<Exit> {
    places.require_state()?;
    stillpoint::store_sqlite::SqliteStore::open(&places.state)?.back_up(file)?;
    let bytes = std::fs::metadata(file).map_or(0, |copy| copy.len());
    tell(out, &BackedUpView::of(file, bytes), Exit::Done, None)
}

/// Forgets old jobs.
pub(super) async fn forget(args: &ForgetArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let age = TimeDelta::from_std(args.older_than).ok();
    let before = age.and_then(|age| site.stillpoint.seams().clock.now().checked_sub_signed(age));
    let before = before.ok_or_else(|| {
        CliError::invalid(
            "forget.too_long_ago",
            "that is longer ago than calendars go".to_owned(),
            "Name a shorter time.",
        )
    })?;
    if !args.dry_run {
        site.recover().await?;
    }
    let mut options = ForgetOptions::before(before);
    (options.newest, options.dry_run) = (args.newest, args.dry_run);
    let jobs = site.stillpoint.forget(&options).await?;
    tell(out, &ForgottenView::of(jobs, &options), Exit::Done, None)
}
