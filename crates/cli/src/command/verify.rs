//! `verify`.

use stillpoint::VerifyRequest;
use stillpoint::model::id::PointId;

use super::tell;
use crate::args::VerifyArgs;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::Talk;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{PointView, VerifyView};

/// Checks the bytes of restore points, and shows them as they are then.
pub(super) async fn run(args: &VerifyArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    let site = Site::open(places, Absent::Refuse).await?;
    site.recover().await?;
    let topology = site.stillpoint.topology_of_catalog().await?;
    let mut points: Vec<PointId> = if args.all {
        let all = topology.databases.iter().flat_map(|database| &database.points);
        let all = all.filter(|point| point.state.is_whole() && point.missing_since.is_none());
        all.map(|point| point.point).collect()
    } else {
        let named = args.points.iter().map(|point| pick::point(&topology, point));
        named.collect::<Result<_, CliError>>()?
    };
    points.sort();
    points.dedup();
    if points.is_empty() {
        return Err(CliError::invalid(
            "verify.nothing",
            "there are no restore points to verify",
            "Back something up first.",
        ));
    }
    let request = VerifyRequest::new(site.key("verify")?, points.clone());
    let handle = site.stillpoint.verify(request).await?;
    let job = follow(talk, &handle, "verify").await?;
    let checked = PointView::some(&site.stillpoint.topology_of_catalog().await?, &points);
    let view = VerifyView::of(&job, checked);
    tell(out, &view, Exit::of(job.state()), failure_of(&job).as_ref())
}
