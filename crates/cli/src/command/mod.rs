//! The commands, one file for each family.

mod backup;
mod catalogue;
mod check;
mod discover;
mod doctor;
mod ese;
mod group;
mod hold;
mod notify;
mod operate;
mod policy;
mod protect;
mod prune;
mod reconcile;
mod restore;
mod rules;
mod run;
mod schedule;
mod show;
mod verify;

use std::io;

use crate::args::keeping::CatalogueCommand;
use crate::args::{Cli, Command, PluginCommand, ProviderCommand};
use crate::context::{ErrorClass, Failure};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::{Out, Talk};
use crate::place::Places;
use crate::view::Report;

/// Carries out what the command line says.
pub(crate) async fn run(cli: Cli, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    let global = &cli.global;
    let places = || Places::of(global, None);
    match cli.command {
        Command::Protect(args) => protect::run(&args, global, talk).await,
        Command::Discover(args) => discover::run(&args, global, out).await,
        Command::Doctor(args) => doctor::run(&args, global, out).await,
        Command::Provider(ProviderCommand::Check(args)) => {
            check::provider::run(&args, global, talk).await
        }
        Command::Plugin(PluginCommand::Check(args)) => {
            check::plugin::run(&args, global, talk).await
        }
        Command::Ese(command) => ese::run(command, talk).await,
        Command::Policy(command) => policy::run(command, &places()?, out).await,
        Command::Group(command) => group::run(command, &places()?, out).await,
        Command::Schedule(command) => schedule::run(command, &places()?, out).await,
        Command::Export(args) => rules::export(&args, &places()?, out).await,
        Command::Import(args) => rules::import(&args, &places()?, out).await,
        Command::Run(args) => run::run(&args, &places()?, talk).await,
        Command::Backup(args) => backup::run(&args, &places()?, talk).await,
        Command::Restore(args) => restore::run(&args, &places()?, talk).await,
        Command::Verify(args) => verify::run(&args, &places()?, talk).await,
        Command::Prune(args) => prune::run(&args, &places()?, talk).await,
        Command::Reconcile(args) => reconcile::run(&args, &places()?, talk).await,
        Command::Catalogue(CatalogueCommand::Backup { file }) => {
            catalogue::back_up(&file, &places()?, out)
        }
        Command::Catalogue(CatalogueCommand::Forget(args)) => {
            catalogue::forget(&args, &places()?, out).await
        }
        Command::Rebuild => reconcile::rebuild(&places()?, out).await,
        Command::Notify(command) => notify::run(command, &places()?, out).await,
        Command::Hold(command) => hold::run(command, &places()?, out).await,
        Command::Jobs(args) => show::jobs(&args, &places()?, out).await,
        Command::Parked(args) => operate::parked(args.command, &places()?, talk).await,
        Command::Debris(args) => operate::debris(&args, &places()?, out).await,
        Command::Locks => operate::locks(&places()?, out).await,
        Command::Topology => show::topology(&places()?, out).await,
        Command::Windows(args) => show::windows(&args, &places()?, out).await,
        Command::Lint(args) => show::lint(&args, &places()?, out).await,
    }
}

/// Shows a result, with what went wrong if something did.
fn tell<R: Report>(out: Out, report: &R, exit: Exit, failure: Option<&Failure>) -> Outcome<Exit> {
    let unwritten = |error: io::Error| {
        CliError::of_class(
            "cli.output_failed",
            ErrorClass::Unavailable,
            format!("the result cannot be written: {error}"),
            "The work is done: `stillpoint jobs` and `stillpoint topology` tell what came of it.",
        )
    };
    out.report(report, exit, failure).map_err(unwritten)?;
    Ok(exit)
}
