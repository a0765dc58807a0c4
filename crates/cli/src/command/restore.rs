//! `restore`.

use std::path::Path;

use stillpoint::context::HostPath;
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};

use super::tell;
use crate::args::RestoreArgs;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::Talk;
use crate::pick;
use crate::place::{Places, absolute};
use crate::site::{self, Absent, Site};
use crate::view::RestoreView;

/// Among the databases that are protected, what is restored would be another one of them.
fn target_protected(folder: &Path, source: &Path) -> CliError {
    CliError::invalid(
        "restore.target_protected",
        format!(
            "the target {} lies inside the protected folder {}",
            folder.display(),
            source.display()
        ),
        "Name a folder outside with --to, or restore over the database with --in-place.",
    )
    .about("path", folder.display())
}

/// Restores, or shows the plan.
pub(super) async fn run(args: &RestoreArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    let folder = args.to.as_deref().map(absolute).transpose()?;
    let target = match &folder {
        None => RestoreTarget::InPlace,
        Some(folder) => {
            if folder.exists() && !folder.is_dir() {
                return Err(CliError::invalid(
                    "restore.target_not_a_folder",
                    format!("the target {} is not a folder", folder.display()),
                    "Name a folder with --to; it is made if it does not exist.",
                )
                .about("path", folder.display()));
            }
            RestoreTarget::AlternatePath(HostPath::from_native(site::host()?, folder).map_err(
                |error| {
                    let remedy = "Name another folder with --to.";
                    CliError::invalid("path.invalid", error.to_string(), remedy)
                },
            )?)
        }
    };
    let site = Site::open(places, Absent::Refuse).await?;
    if let Some(folder) = folder.filter(|folder| folder.starts_with(&site.source)) {
        return Err(target_protected(&folder, &site.source));
    }
    if !args.dry_run {
        site.recover().await?;
    }
    let point = pick::point(&site.stillpoint.topology_of_catalog().await?, &args.point)?;
    let mut request = RestoreRequest::new(site.key("restore")?, point, target);
    request.accept_suspect = args.accept_suspect;
    request.accept_provisional = args.accept_provisional;
    let plan = site.stillpoint.plan_restore(&request).await?;
    if args.dry_run {
        return tell(out, &RestoreView::of(&plan, None), Exit::Done, None);
    }
    let handle = site.stillpoint.restore(request).await?;
    let job = follow(talk, &handle, "restore").await?;
    let view = RestoreView::of(&plan, Some(&job));
    tell(out, &view, Exit::of(job.state()), failure_of(&job).as_ref())
}
