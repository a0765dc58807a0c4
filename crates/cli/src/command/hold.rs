//! `hold`.

use stillpoint::model::hold::Hold;
use stillpoint::model::id::HoldName;

use super::tell;
use crate::args::keeping::{HoldArgs, HoldCommand};
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
    match command {
        HoldCommand::List => {}
        HoldCommand::Add(args) => add(&site, args).await?,
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
    let now = site.stillpoint.seams().clock.now();
    tell(out, &HoldsView::of(&site.stillpoint.holds().await?, now), Exit::Done, None)
}

async fn add(site: &Site, args: HoldArgs) -> Outcome<()> {
    let topology = site.stillpoint.topology_of_catalog().await?;
    let points = args.points.iter().map(|point| pick::point(&topology, point));
    let points = points.collect::<Result<_, CliError>>()?;
    let by = args.by.as_deref().unwrap_or(BY);
    let now = site.stillpoint.seams().clock.now();
    let mut hold = Hold::new(hold_name(&args.name)?, points, args.reason, by, now);
    hold.until = args.until;
    Ok(site.stillpoint.put_hold(&hold).await?)
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
