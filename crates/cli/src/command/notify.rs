//! `notify`.

use super::tell;
use crate::args::NotifyCommand;
use crate::context::Failure;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::NotifyView;

fn nobody() -> CliError {
    let message = "nobody is told: there is no file of notifications, or nobody in it";
    let remedy = "Write one beside the state file, or name one with --notify: docs/hooks-and-notifications.md shows how.";
    CliError::invalid("notify.nobody", message, remedy)
}

/// Sends a test to everybody who is told what became of jobs.
pub(super) async fn run(command: NotifyCommand, places: &Places, out: Out) -> Outcome<Exit> {
    let NotifyCommand::Test = command;
    let site = Site::open(places, Absent::Refuse).await?;
    site.note(places).await?;
    let sent = site.stillpoint.test_notifiers().await?;
    let sent: Vec<(String, Option<Failure>)> = sent
        .into_iter()
        .map(|(name, sent)| (name, sent.err().map(|error| Failure::of(&error))))
        .collect();
    if sent.is_empty() {
        // Other commands only warn of it; here it is what was asked.
        let why = site.untold.unwrap_or_else(nobody);
        return tell(out, &NotifyView::of(&sent), Exit::Failed, Some(&why.failure));
    }
    let failed = sent.iter().filter(|(_, failure)| failure.is_some()).count();
    let exit = match (failed, sent.len()) {
        (failed, all) if failed == all => Exit::Failed,
        (0, _) => Exit::Done,
        _ => Exit::Warnings,
    };
    tell(out, &NotifyView::of(&sent), exit, None)
}
