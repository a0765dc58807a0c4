//! `reconcile` and `rebuild`: whether the catalogue tells the truth, and how it comes back.

use stillpoint::storage_fs::is_store;
use stillpoint::{ReconcileOptions, RepairRequest};

use super::tell;
use crate::args::keeping::ReconcileArgs;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::{Out, Talk};
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{RebuildView, ReconcileView};

/// Compares catalogue and storage, and does what is to be done if that is wanted.
pub(super) async fn run(args: &ReconcileArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let options = match args.delete_orphans_after {
        Some(grace) => ReconcileOptions::delete_orphans_after(grace),
        None => ReconcileOptions::keep_orphans(),
    };
    if !args.apply {
        let report = site.stillpoint.reconcile(&options).await?;
        let exit = if report.is_clean() { Exit::Done } else { Exit::Attention };
        return tell(talk.out, &ReconcileView::of(&report, None), exit, None);
    }
    site.recover().await?;
    let request = RepairRequest::new(site.key("reconcile")?, options.clone());
    let handle = site.stillpoint.repair(request).await?;
    let job = follow(talk, &handle, "reconcile").await?;
    site.let_go().await?;
    // What is left after it.
    let report = site.stillpoint.reconcile(&options).await?;
    let left = if report.is_clean() { Exit::Done } else { Exit::Attention };
    let view = ReconcileView::of(&report, Some(&job));
    tell(talk.out, &view, Exit::of(job.state()).worse(left), failure_of(&job).as_ref())
}

/// Makes a catalogue of what lies beside the data.
pub(super) async fn rebuild(places: &Places, out: Out) -> Outcome<Exit> {
    let store = places.store();
    if !places.has_state() && !is_store(&store) {
        // A store that is made now has nothing to rebuild from.
        return Err(CliError::invalid(
            "store.missing",
            format!("there is no store at {}", store.display()),
            "Name the folder that the copies are in with --store.",
        ));
    }
    let site = Site::open(places, Absent::Make).await?;
    site.recover().await?;
    let rebuilt = site.stillpoint.rebuild().await?;
    let exit = if rebuilt.skipped.is_empty() { Exit::Done } else { Exit::Warnings };
    tell(out, &RebuildView::of(&rebuilt), exit, None)
}
