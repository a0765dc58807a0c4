//! `backup`.

use stillpoint::model::group::Selector;
use stillpoint::model::id::PolicyId;
use stillpoint::model::kind::BackupKind;
use stillpoint::model::request::{BackupRequest, Target};

use super::tell;
use crate::args::{BackupArgs, Kind};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::Talk;
use crate::pick;
use crate::place::{Places, check_source};
use crate::site::{Absent, DEFAULT, Site};
use crate::view::BackupView;

impl From<Kind> for BackupKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::FullAndLog => Self::FullAndLog,
            Kind::Full => Self::Full,
            Kind::Log => Self::Log,
            Kind::Copy => Self::Copy,
        }
    }
}

/// Backs up, or shows the plan.
pub(super) async fn run(args: &BackupArgs, places: &Places, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    // A dry run changes nothing, so it makes no state file either.
    let absent = if args.dry_run { Absent::Refuse } else { Absent::Make };
    let site = Site::open(places, absent).await?;
    check_source(&site.source)?;
    let request = request(&site, args).await?;
    if args.dry_run {
        let dry = site.stillpoint.dry_run(&request).await?;
        let plan = &dry.plan;
        let is_whole = plan.refused().next().is_none();
        let exit = match (plan.is_empty(), is_whole) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Done,
            (false, false) => Exit::Warnings,
        };
        return tell(out, &BackupView::dry_run(&dry), exit, None);
    }
    site.recover().await?;
    let handle = site.stillpoint.backup(request).await?;
    let job = follow(talk, &handle, "backup").await?;
    tell(out, &BackupView::job(&job), Exit::of(job.state()), failure_of(&job).as_ref())
}

async fn request(site: &Site, args: &BackupArgs) -> Outcome<BackupRequest> {
    let policies = site.stillpoint.policies().await?;
    let default = site.default_group().await?;
    let (target, own) = if args.database.is_empty() {
        let group = match &args.group {
            Some(name) => pick::group(&site.stillpoint.groups().await?, name)?.clone(),
            None => default,
        };
        let own = group.policies.first().copied();
        (Target::Group(group.id), own)
    } else {
        let inventory = site.stillpoint.discover().await?.inventory;
        let ids = args.database.iter().map(|name| pick::database(&inventory, name));
        let selectors =
            ids.map(|id| id.map(Selector::Database)).collect::<Result<_, CliError>>()?;
        (Target::Selected(selectors), default.policies.first().copied())
    };
    let policy: PolicyId = match (&args.policy, own) {
        (Some(name), _) => pick::policy(&policies, name)?.id,
        (None, Some(own)) => own,
        (None, None) => pick::policy(&policies, DEFAULT)?.id,
    };
    let mut request = BackupRequest::new(site.key("backup")?, target, policy);
    request.kind = args.kind.map(BackupKind::from);
    request.prune = args.prune;
    Ok(request)
}
