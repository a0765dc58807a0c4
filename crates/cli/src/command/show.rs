//! `jobs`, `topology`, `windows` and `lint`.

use stillpoint::model::strategy::Assumptions;

use super::tell;
use crate::args::{JobsArgs, LintArgs, WindowsArgs};
use crate::error::Outcome;
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{JobsView, LintView, TopologyView, WindowsView};

/// All jobs, or one in detail.
pub(super) async fn jobs(args: &JobsArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let jobs = site.stillpoint.jobs().await?;
    let view = match &args.id {
        Some(id) => {
            let job = pick::job(&jobs, id)?;
            match site.stillpoint.account(job.id).await? {
                Some(account) => JobsView::account(&account),
                None => JobsView::one(job),
            }
        }
        None => JobsView::list(&jobs),
    };
    tell(out, &view, Exit::Done, None)
}

/// Every database with its copies and restore points.
pub(super) async fn topology(places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let topology = site.topology().await?;
    tell(out, &TopologyView::of(&topology), Exit::Done, None)
}

/// What each database, or one of them, can be brought back to.
pub(super) async fn windows(args: &WindowsArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let topology = site.topology().await?;
    let only = args.database.as_deref().map(|name| pick::known_database(&topology, name));
    tell(out, &WindowsView::of(&topology, only.transpose()?), Exit::Done, None)
}

/// What policies, groups and schedules amount to.
pub(super) async fn lint(args: &LintArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let mut assumed = Assumptions::default();
    (assumed.log_bytes_per_hour, assumed.log_room) = (args.log_rate, args.log_room);
    let view = LintView::of(&site.stillpoint.lint(assumed).await?);
    let exit = view.exit();
    tell(out, &view, exit, None)
}
