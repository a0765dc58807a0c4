//! `prune`.

use stillpoint::{PruneRequest, PruneScope, PruneTarget};

use super::tell;
use crate::args::keeping::PruneArgs;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::Talk;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::PruneView;

/// Deletes what the policies let go, and shows the verdicts that it went by; or shows them alone.
pub(super) async fn run(args: &PruneArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    if !args.dry_run {
        site.recover().await?;
    }
    let target = target(&site, args).await?;
    let table = site.stillpoint.retention(&target).await?;
    if args.dry_run {
        return tell(talk.out, &PruneView::of(&table, None), Exit::Done, None);
    }
    let request = PruneRequest::new(site.key("prune")?, target);
    let handle = site.stillpoint.prune(request).await?;
    let job = follow(talk, &handle, "prune").await?;
    let view = PruneView::of(&table, Some(&job));
    tell(talk.out, &view, Exit::of(job.state()), failure_of(&job).as_ref())
}

async fn target(site: &Site, args: &PruneArgs) -> Outcome<PruneTarget> {
    let topology = site.stillpoint.topology_of_catalog().await?;
    if let Some(point) = &args.point {
        return Ok(PruneTarget::of(PruneScope::Point(pick::point(&topology, point)?)));
    }
    let databases = args.database.iter().map(|name| pick::known_database(&topology, name));
    let databases = databases.collect::<Result<std::collections::BTreeSet<_>, CliError>>()?;
    let mut target = PruneTarget::everything();
    if !databases.is_empty() {
        target.scope = PruneScope::Databases(databases);
    }
    if let Some(name) = &args.policy {
        target.policy = Some(pick::policy(&site.stillpoint.policies().await?, name)?.id);
    }
    Ok(target)
}
