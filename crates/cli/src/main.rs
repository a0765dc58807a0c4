//! `stillpoint`: the operator's command, a thin composition of the libraries over databases at rest under a folder.
//!
//! ```text
//!   args ──▶ place ──▶ site ──▶ command ──▶ follow ──▶ view ──▶ out ──▶ exit
//!  (clap)   (paths)  (state,   (one file   (a job,    (JSON    (the one  (0 to 4)
//!                     store)    for each)   Ctrl-C)    or text) writer)
//! ```

#![forbid(unsafe_code)]

mod args;
mod command;
mod demo;
mod document;
mod error;
mod exit;
mod follow;
mod interrupt;
mod notifiers;
mod notify;
mod out;
mod pick;
mod place;
mod progress;
mod site;
mod text;
mod view;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
pub(crate) use stillpoint::{context, model};
use tracing_subscriber::EnvFilter;

use args::Cli;
use error::{CliError, Outcome};
use exit::Exit;
use interrupt::Interrupts;
use out::{Out, Talk};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let exit = match Cli::try_parse_from(&words) {
        Ok(cli) => {
            let out = Out::new(cli.global.json, cli.global.quiet);
            log_to_stderr(cli.global.verbose);
            run(cli, out).unwrap_or_else(|error| fail(out, &error))
        }
        Err(error) => misunderstood(&error, &words),
    };
    ExitCode::from(exit.code())
}

/// Runs the command on a runtime of its own.
fn run(cli: Cli, out: Out) -> Outcome<Exit> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
            let message = format!("cannot start: {error}");
            CliError::of_class("cli.internal", context::ErrorClass::Unavailable, message, "")
        })?;
    let exit = runtime.block_on(async {
        let interrupts = Interrupts::listen()?;
        let talk = Talk { out, interrupts: interrupts.clone() };
        tokio::select! {
            exit = command::run(cli, &talk) => exit,
            error = interrupts.outside() => Err(error),
        }
    });
    // After an interrupt something may still be at work; it is not waited for.
    runtime.shutdown_background();
    exit
}

/// Tells an error; if not even that is possible, the exit code is what is left.
fn fail(out: Out, error: &CliError) -> Exit {
    match out.error(&error.failure, error.exit) {
        Ok(()) => error.exit,
        Err(_) => error.exit.worse(Exit::Failed),
    }
}

/// Help and version are answers; anything else that clap says is a mistake of the caller's.
fn misunderstood(error: &clap::Error, words: &[OsString]) -> Exit {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let wants_json = words.iter().any(|word| word == "--json");
    if is_answer || !wants_json {
        // Nobody may be listening any more.
        let _ = error.print();
        return if is_answer { Exit::Done } else { Exit::Usage };
    }
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    let message = line.strip_prefix("error: ").unwrap_or(line);
    fail(Out::new(true, false), &CliError::usage(message))
}

/// Logs go to standard error, and only if somebody asked for them.
fn log_to_stderr(verbose: u8) {
    let asked = std::env::var("STILLPOINT_LOG").ok();
    let filter = match (asked, verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return,
        (None, 1) => "info".to_owned(),
        (None, 2) => "debug".to_owned(),
        (None, _) => "trace".to_owned(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
