//! `hold`.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use stillpoint::catalog::PointQuery;
use stillpoint::model::hold::Hold;
use stillpoint::model::id::{HoldName, PointId};
use stillpoint::model::topology::Topology;

use super::tell;
use crate::args::keeping::{FitArgs, HoldArgs, HoldCommand};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::HoldsView;

/// In whose name a hold is put on if nobody says.
const BY: &str = "the operator";

/// Puts holds on, takes them off, and shows those that there are then.
pub(super) async fn run(command: HoldCommand, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let now = site.stillpoint.seams().clock.now();
    match command {
        HoldCommand::List => {}
        HoldCommand::Add(args) => {
            let (is_dry, hold) = (args.dry_run, hold(&site, args, now).await?);
            if is_dry {
                hold.check().map_err(stillpoint::Error::from)?;
                return tell(out, &HoldsView::of_dry_run(&hold, now), Exit::Done, None);
            }
            site.stillpoint.put_hold(&hold).await?;
        }
        HoldCommand::Remove { name } => {
            let wanted = hold_name(&name)?;
            if site.stillpoint.holds().await?.iter().all(|hold| hold.name != wanted) {
                return Err(CliError::invalid(
                    "hold.unknown",
                    format!("there is no hold {name:?}"),
                    "`stillpoint hold list` lists the holds.",
                ));
            }
            site.stillpoint.remove_hold(&wanted).await?;
        }
    }
    tell(out, &HoldsView::of(&site.stillpoint.holds().await?, now), Exit::Done, None)
}

/// The hold that is asked for.
async fn hold(site: &Site, args: HoldArgs, now: DateTime<Utc>) -> Outcome<Hold> {
    let name = hold_name(&args.name)?;
    let topology = site.stillpoint.topology_of_catalog().await?;
    let points = if args.points.is_empty() {
        fitting(site, &topology, &args.fits).await?
    } else {
        let points = args.points.iter().map(|point| pick::point(&topology, point));
        points.collect::<Result<_, CliError>>()?
    };
    let by = args.by.as_deref().unwrap_or(BY);
    let mut hold = Hold::new(name, points, args.reason, by, now);
    hold.until = args.until;
    Ok(hold)
}

/// The restore points that fit, as they are now.
async fn fitting(site: &Site, topology: &Topology, fits: &FitArgs) -> Outcome<BTreeSet<PointId>> {
    let this = &site.stillpoint;
    let mut query = PointQuery::all();
    (query.from, query.until) = (fits.taken_since, fits.taken_until);
    if let Some(name) = &fits.group {
        query.group = Some(pick::group(&this.groups().await?, name)?.id);
    }
    if let Some(name) = &fits.policy {
        query.policy = Some(pick::policy(&this.policies().await?, name)?.id);
    }
    let mut points = BTreeSet::new();
    if fits.database.is_empty() {
        points = this.holdable(&query).await?;
    }
    for name in &fits.database {
        query.database = Some(pick::known_database(topology, name)?);
        points.extend(this.holdable(&query).await?);
    }
    if points.is_empty() {
        return Err(CliError::invalid(
            "hold.fits_nothing",
            "there is no restore point that all of this holds of and that is not being deleted",
            "`stillpoint topology` lists the restore points.",
        ));
    }
    Ok(points)
}

fn hold_name(name: &str) -> Outcome<HoldName> {
    HoldName::new(name).map_err(|error| {
        CliError::invalid(
            "hold.name_invalid",
            error.to_string(),
            "Use letters, digits, '.', '_' and '-'.",
        )
    })
}
