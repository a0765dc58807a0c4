//! `jobs` and `topology`.

use super::tell;
use crate::args::JobsArgs;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{JobsView, TopologyView};

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
