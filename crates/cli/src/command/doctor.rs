//! `doctor`: what is missing, before it is missed. Changes nothing.

use std::path::{Path, PathBuf};

use stillpoint::context::{Failure, JobId};
use stillpoint::model::inventory::Inventory;
use stillpoint::model::job::Job;
use stillpoint::{Gravity, Stillpoint};

use super::tell;
use crate::args::{FolderArgs, Global, Storage};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::place::{Places, check_apart, check_source};
use crate::site::{self, Absent, Site};
use crate::text;
use crate::view::{DoctorView, Level};

/// Looks at state, source and store, and at how a backup would go.
pub(super) async fn run(args: &FolderArgs, global: &Global, out: Out) -> Outcome<Exit> {
    let mut view = DoctorView::default();
    match Places::of(global, args.dir.as_deref()) {
        Ok(places) => examine(&places, &mut view).await,
        Err(error) if error.exit == Exit::Usage => return Err(error),
        Err(error) => bad(&mut view, "state", &error),
    }
    let exit = view.exit();
    tell(out, &view, exit, None)
}

fn bad(view: &mut DoctorView, area: &str, error: &CliError) {
    let Failure { code, message, remedy, .. } = &*error.failure;
    view.add(area, Level::Error, format!("{message} [{code}]"), remedy);
}

async fn examine(places: &Places, view: &mut DoctorView) {
    let (source, store, site) = if places.has_state() {
        match Site::open(places, Absent::Refuse).await {
            Ok(site) => {
                view.ok("state", format!("{} is in order", site.state.display()));
                left_open(&site.stillpoint, view).await;
                (Some(site.source.clone()), site.store.clone(), Some(site))
            }
            Err(error) => {
                bad(view, "state", &error);
                (places.source.clone(), places.store(), None)
            }
        }
    } else {
        let folder = places.state.parent().unwrap_or(Path::new("/"));
        match tempfile::tempfile_in(folder) {
            Ok(_) => view.ok(
                "state",
                format!("{} will be made by the first backup", places.state.display()),
            ),
            Err(error) => view.add(
                "state",
                Level::Error,
                format!("no file can be made in {}: {error}", folder.display()),
                "Make the folder writable, or name another state file with --state.",
            ),
        }
        (places.source.clone(), places.store(), None)
    };
    let Some(source) = source else {
        let message = "nobody said what is to be protected";
        view.add("source", Level::Error, message, "Name the folder.");
        return;
    };
    if let Err(error) = check_source(&source) {
        bad(view, "source", &error);
        return;
    }
    view.ok("source", format!("{} can be read", source.display()));
    if let Err(error) = check_apart(&source, &store) {
        bad(view, "store", &error);
        return;
    }
    match site {
        Some(site) => backup(&site.stillpoint, site.clones, view).await,
        None => without_site(&source, &store, places.storage.unwrap_or_default(), view).await,
    }
}

/// Jobs that a process began and did not live to end. No other command can be at work on them, but the daemon can.
async fn left_open(stillpoint: &Stillpoint, view: &mut DoctorView) {
    let Ok(jobs) = stillpoint.jobs().await else { return };
    // After the jobs: who has begun one held its lease before.
    let Ok(others) = stillpoint.engine().others().await else { return };
    let parked = stillpoint.parked().await.unwrap_or_default();
    for known in &parked {
        let what = known.steps.first().map(|step| step.why.to_string()).unwrap_or_default();
        let message = format!("run {} is parked: {what} [run.parked]", known.run);
        let remedy = "`stillpoint parked` tells more, and resumes, resolves or abandons it.";
        view.add("parked", Level::Warning, message, remedy);
    }
    let is_parked = |job: &JobId| parked.iter().any(|known| known.job == Some(*job));
    let is_at_work = |job: &Job| match job.owner {
        Some(owner) => others.contains(&(owner.process, owner.epoch)),
        // Nobody can say whose it is, unless there is nobody else.
        None => !others.is_empty(),
    };
    let is_open = |job: &&Job| !job.state().is_final() && !is_parked(&job.id);
    for job in jobs.iter().filter(is_open).filter(|job| !is_at_work(job)) {
        let message =
            format!("the process of {} {} ended before it did [job.left_open]", job.kind, job.id);
        let remedy = "Nothing to do: the next command that changes something, or the daemon, carries on with it or undoes it.";
        view.add("jobs", Level::Warning, message, remedy);
    }
}

/// What a store in this place would be like. It is not made: a temporary one beside it answers for it.
async fn without_site(source: &Path, store: &Path, storage: Storage, view: &mut DoctorView) {
    let existing: PathBuf =
        store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let trial = match tempfile::Builder::new().prefix(".stillpoint-trial-").tempdir_in(&existing) {
        Ok(trial) => trial,
        Err(error) => {
            view.add(
                "store",
                Level::Error,
                format!("no folder can be made in {}: {error}", existing.display()),
                "Make the folder writable, or name another with --store.",
            );
            return;
        }
    };
    match site::compose(source, trial.path(), storage, site::Sides::default()) {
        Ok((stillpoint, clones)) => {
            let made = if store.is_dir() { "is there" } else { "will be made" };
            view.ok("store", format!("{} {made}", store.display()));
            backup(&stillpoint, clones, view).await;
        }
        Err(error) => bad(view, "store", &error),
    }
}

/// How a backup would go.
async fn backup(stillpoint: &Stillpoint, clones: bool, view: &mut DoctorView) {
    for finding in stillpoint.doctor().await {
        let level = match finding.gravity {
            Gravity::Fine => Level::Ok,
            Gravity::Warning => Level::Warning,
            Gravity::Error => Level::Error,
        };
        let code = finding.code.map(|code| format!(" [{code}]")).unwrap_or_default();
        view.add(&finding.area, level, format!("{}{code}", finding.message), &finding.remedy);
    }
    let Ok(discovery) = stillpoint.discover().await else { return };
    if clones {
        view.ok("space", "copies are clones: they take an instant, and room only for what changes");
        return;
    }
    let needed = needed(&discovery.inventory);
    for free in discovery.volumes.values().filter_map(|facts| facts.free_bytes) {
        let message =
            format!("copies are whole: {} of {} free", text::bytes(needed), text::bytes(free));
        if free < needed {
            let remedy = "Make room, or name a store on another file system with --store.";
            view.add("space", Level::Error, message, remedy);
        } else {
            view.ok("space", message);
        }
    }
}

/// The bytes that a backup of everything that can be backed up takes.
fn needed(inventory: &Inventory) -> u64 {
    let copies = inventory.copies.values().filter(|copy| copy.availability.is_available());
    copies.flat_map(|copy| &copy.files).filter_map(|file| file.bytes).sum()
}
