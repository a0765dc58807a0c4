//! `protect`: the whole workflow in one go.
//!
//! ```text
//!   discover ─ default policy and group ─ backup ─ topology
//!                                            └─ of a folder of our own making: verify ─ restore ─ compare
//! ```

use std::path::{Path, PathBuf};

use stillpoint::VerifyRequest;
use stillpoint::context::{Effect, ErrorClass, Failure, HostPath};
use stillpoint::model::id::PointId;
use stillpoint::model::job::{Job, JobState, MemberEnd};
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};

use super::tell;
use crate::args::{Global, ProtectArgs};
use crate::demo::{Demo, same_bytes};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::Talk;
use crate::pick;
use crate::place::{Places, check_source};
use crate::site::{self, Absent, DEFAULT, Site};
use crate::view::{ComparisonView, JobView, JobsView, ProtectView, TopologyView, refused};

/// Protects a folder, or one of our own making.
pub(super) async fn run(args: &ProtectArgs, global: &Global, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    let is_named = args.dir.is_some() || global.source.is_some();
    let has_state = global.state.as_ref().is_some_and(|state| state.exists());
    if is_named || has_state {
        if args.keep {
            return Err(CliError::usage("--keep is for a run without DIR"));
        }
        let places = Places::of(global, args.dir.as_deref())?;
        let (view, exit, failure) = protect(&places, None, talk).await?;
        return tell(out, &view, exit, failure.as_ref());
    }
    if global.store.is_some() && global.state.is_none() {
        return Err(CliError::usage("without DIR, --store goes with --state"));
    }
    let demo = Demo::make()?;
    let mut global = global.clone();
    let is_inside = global.state.is_none();
    global.state.get_or_insert_with(|| demo.state());
    let places = Places::of(&global, Some(&demo.source()))?;
    let (mut view, exit, failure) = protect(&places, Some(&demo), talk).await?;
    view.kept = args.keep || !is_inside;
    if args.keep {
        let _place = demo.keep();
    } else {
        demo.remove()?;
    }
    tell(out, &view, exit, failure.as_ref())
}

fn no_databases(source: &Path) -> CliError {
    CliError::of_class(
        "source.no_databases",
        ErrorClass::Invalid,
        format!("there is no Exchange database under {}", source.display()),
        "Name the folder that holds the databases; they are known by their content, not by their name.",
    )
    .about("path", source.display())
}

async fn protect(
    places: &Places,
    demo: Option<&Demo>,
    talk: &Talk,
) -> Outcome<(ProtectView, Exit, Option<Failure>)> {
    // A state file protects one folder for good: one that was named by mistake must not be it.
    if !places.has_state() {
        let source = site::check_new(places)?;
        if site::inventory(source).await?.databases.is_empty() {
            return Err(no_databases(source));
        }
    }
    let site = Site::open(places, Absent::Make).await?;
    site.recover().await?;
    check_source(&site.source)?;
    let inventory = site.stillpoint.discover().await?.inventory;
    if inventory.databases.is_empty() {
        return Err(no_databases(&site.source));
    }
    let group = site.default_group().await?;
    let policies = site.stillpoint.policies().await?;
    let policy = match group.policies.first() {
        Some(id) => pick::policy(&policies, &id.to_string())?,
        None => pick::policy(&policies, DEFAULT)?,
    };
    let request = BackupRequest::new(site.key("protect")?, Target::Group(group.id), policy.id);
    let handle = site.stillpoint.backup(request).await?;
    let backup = follow(talk, &handle, "backup").await?;
    let mut exit = Exit::of(backup.state());
    let mut failure = failure_of(&backup);

    let mut proof = Proof::default();
    if let (Some(demo), true) = (demo, failure.is_none()) {
        proof = prove(&site, demo, &backup, talk).await?;
        exit = exit.worse(proof.exit);
        failure = proof.failure.take();
    }
    let view = ProtectView {
        source: site.source.display().to_string(),
        state: site.state.display().to_string(),
        store: site.store.display().to_string(),
        demo: demo.is_some(),
        kept: true,
        found: inventory.databases.len(),
        refused: refused(&inventory),
        backup: JobView::of(&backup),
        verification: proof.verification.as_ref().map(JobView::of),
        restores: proof.restores.iter().map(JobView::of).collect(),
        comparison: proof.comparison,
        jobs: JobsView::list(&site.stillpoint.jobs().await?),
        topology: TopologyView::of(&site.topology().await?),
    };
    Ok((view, exit, failure))
}

/// What shows that a backup is worth something.
#[derive(Default)]
struct Proof {
    verification: Option<Job>,
    restores: Vec<Job>,
    comparison: Option<ComparisonView>,
    exit: Exit,
    failure: Option<Failure>,
}

impl Proof {
    /// Whether the job went well; if not, why.
    fn takes(&mut self, job: &Job) -> bool {
        self.exit = self.exit.worse(Exit::of(job.state()));
        self.failure = failure_of(job);
        job.state() == JobState::Succeeded
    }
}

/// Verifies the restore points, restores each beside the original, and compares.
async fn prove(site: &Site, demo: &Demo, backup: &Job, talk: &Talk) -> Outcome<Proof> {
    let mut proof = Proof::default();
    let points: Vec<(PointId, String)> = backup
        .runs
        .iter()
        .flat_map(|run| &run.members)
        .filter_map(|member| match member.end {
            Some(MemberEnd::Point { point, .. }) => Some((point, member.name.clone())),
            _ => None,
        })
        .collect();
    let ids = points.iter().map(|(point, _)| *point).collect();
    let handle = site.stillpoint.verify(VerifyRequest::new(site.key("verify")?, ids)).await?;
    let verification = follow(talk, &handle, "verify").await?;
    let is_good = proof.takes(&verification);
    proof.verification = Some(verification);
    if !is_good {
        return Ok(proof);
    }
    let mut comparison = ComparisonView {
        restored_to: demo.restored().display().to_string(),
        files: 0,
        bytes: 0,
        different: Vec::new(),
    };
    for (point, name) in points {
        let folder = HostPath::from_native(site::host()?, &demo.restored().join(&name)).map_err(
            |error| {
                CliError::invalid(
                    "path.invalid",
                    error.to_string(),
                    "Set TMPDIR to another folder.",
                )
            },
        )?;
        let target = RestoreTarget::AlternatePath(folder);
        let request = RestoreRequest::new(site.key("restore")?, point, target);
        let plan = site.stillpoint.plan_restore(&request).await?;
        let originals = site.stillpoint.point(point).await?.map(|point| point.files);
        let handle = site.stillpoint.restore(request).await?;
        let restore = follow(talk, &handle, &format!("restore of {name}")).await?;
        let is_good = proof.takes(&restore);
        proof.restores.push(restore);
        if !is_good {
            return Ok(proof);
        }
        for file in &plan.files {
            let original = originals.as_ref().and_then(|files| files.get(file.index));
            let original = original.map(|file| PathBuf::from(file.path.as_str()));
            comparison.files += 1;
            comparison.bytes += file.bytes;
            let restored = Path::new(file.to.as_str());
            let is_same = original.is_some_and(|original| {
                // A file that cannot be read is not the same.
                same_bytes(&original, restored).unwrap_or(false)
            });
            if !is_same {
                comparison.different.push(file.to.as_str().to_owned());
            }
        }
    }
    if !comparison.different.is_empty() {
        proof.exit = Exit::Failed;
        let message = format!("{} restored files differ", comparison.different.len());
        let failure = Failure::new("demo.different", ErrorClass::Internal, message);
        let remedy = "Report this with the files: it must not happen.";
        proof.failure = Some(failure.with_effect(Effect::None).with_remedy(remedy));
    }
    proof.comparison = Some(comparison);
    Ok(proof)
}
