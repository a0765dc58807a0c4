//! `parked`, `debris` and `locks`: what waits for the operator.

use stillpoint::workflow::Payload;
use stillpoint::{ByHand, JobHandle, ParkedRun};

use super::tell;
use crate::args::{DebrisArgs, ParkedCommand, ResolveArgs};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::follow::{failure_of, follow};
use crate::out::{Out, Talk};
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{DebrisView, JobsView, LocksView, ParkedView};

/// In whose name it is done.
const BY: &str = "the operator";

/// Shows what is parked, or deals with a run of it and shows its job.
pub(super) async fn parked(
    command: Option<ParkedCommand>,
    places: &Places,
    talk: &Talk,
) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let Some(command) = command else { return list(&site, talk.out).await };
    // What a killed command left at work is not parked, and may be once it is carried on.
    site.recover().await?;
    let (title, job) = deal(&site, command).await?;
    let Some(job) = job else { return list(&site, talk.out).await };
    let job = follow(talk, &job, title).await?;
    site.let_go().await?;
    let view = match site.stillpoint.account(job.id).await? {
        Some(account) => JobsView::account(&account),
        None => JobsView::one(&job),
    };
    tell(talk.out, &view, Exit::of(job.state()), failure_of(&job).as_ref())
}

async fn list(site: &Site, out: Out) -> Outcome<Exit> {
    let parked = site.stillpoint.parked().await?;
    let exit = if parked.is_empty() { Exit::Done } else { Exit::Attention };
    tell(out, &ParkedView::of(&parked), exit, None)
}

/// Does what is wanted with a run; what that is called, and the run's job.
async fn deal(site: &Site, command: ParkedCommand) -> Outcome<(&'static str, Option<JobHandle>)> {
    let this = &site.stillpoint;
    let (all, jobs) = (this.parked().await?, this.jobs().await?);
    Ok(match command {
        ParkedCommand::Resume { id } => {
            let run = pick::parked(&all, &jobs, &id)?.run;
            ("resume", this.resume(run, BY).await?)
        }
        ParkedCommand::Resolve(args) => {
            let run = pick::parked(&all, &jobs, &args.id)?;
            let step = step_of(run, &args)?;
            let outcome = outcome_of(&args)?;
            ("resolve", this.resolve(run.run, &step, outcome, BY).await?)
        }
        ParkedCommand::Abandon { id } => {
            let run = pick::parked(&all, &jobs, &id)?.run;
            ("abandon", this.abandon(run, BY).await?)
        }
    })
}

/// The step that is meant: the named one, else the one that is stuck.
fn step_of(run: &ParkedRun, args: &ResolveArgs) -> Outcome<String> {
    let stuck: Vec<String> =
        run.steps.iter().filter_map(|step| step.step.as_ref().map(ToString::to_string)).collect();
    match (&args.step, stuck.as_slice()) {
        (Some(step), _) | (None, [step]) => Ok(step.clone()),
        (None, []) => Err(CliError::invalid(
            "run.resolution_unfit",
            format!("run {} cannot be read", run.run),
            "Start the version that wrote it.",
        )),
        (None, several) => Err(CliError::invalid(
            "step.ambiguous",
            format!("several steps of run {} are stuck: {}", run.run, several.join(", ")),
            "Name one of them with --step.",
        )),
    }
}

/// What the operator says of it.
fn outcome_of(args: &ResolveArgs) -> Outcome<ByHand> {
    let Some(output) = &args.output else { return Ok(ByHand::Done) };
    let value: serde_json::Value = serde_json::from_str(output).map_err(|error| {
        let message = format!("what --output gives is no JSON: {error}");
        CliError::usage(message)
    })?;
    let output = Payload::of(&value).map_err(|failure| {
        CliError::invalid("run.resolution_unfit", failure.message, "Leave --output out.")
    })?;
    Ok(ByHand::Gave(output))
}

/// Shows what was left behind, once it has been tried to take it away if that is wanted.
pub(super) async fn debris(args: &DebrisArgs, places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    let left = if args.sweep {
        site.recover().await?;
        site.stillpoint.sweep().await?
    } else {
        site.stillpoint.debris().await?
    };
    let exit = if left.is_empty() { Exit::Done } else { Exit::Attention };
    tell(out, &DebrisView::of(&left), exit, None)
}

/// Shows what is locked.
pub(super) async fn locks(places: &Places, out: Out) -> Outcome<Exit> {
    let site = Site::open(places, Absent::Refuse).await?;
    tell(out, &LocksView::of(&site.stillpoint.locks().await?), Exit::Done, None)
}
