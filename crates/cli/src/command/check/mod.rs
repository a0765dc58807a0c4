//! `provider check` and `plugin check`: either side of a backup, tried on the operator's own system before the first one.
//!
//! ```text
//!   ground ─ what is there: files, and which of them are tried      nothing is written there
//!   trial  ─ a store of its own beside the real one                 goes with everything in it, also after an interrupt
//!   times  ─ prepare, commit, settle, and taking away; by rounds
//!   suite  ─ the cases of the testkit that do no harm
//! ```

mod ground;
pub(super) mod plugin;
pub(super) mod provider;
mod seams;
mod trial;

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use stillpoint_testkit::conformance::{Case, Kit};

use crate::args::{Global, Storage};
use crate::context::{Effect, ErrorClass, ErrorFacts, Failure};
use crate::error::{CliError, Outcome};
use crate::out::Talk;
use crate::place::{Places, check_apart, check_source};
use crate::site::{Absent, Site};
use crate::view::{CheckView, Level};

/// Where things are that are tried.
struct Setting {
    source: PathBuf,
    store: PathBuf,
    storage: Storage,
    /// Held meanwhile, where there is a state file: no backup is made beside this.
    _site: Option<Site>,
}

/// What the state file says, if there is one, else the command line. Makes none.
async fn setting(global: &Global, dir: Option<&std::path::Path>) -> Outcome<Setting> {
    let places = Places::of(global, dir)?;
    if places.has_state() {
        let site = Site::open(&places, Absent::Refuse).await?;
        let (source, store, storage) = (site.source.clone(), site.store.clone(), site.storage);
        check_source(&source)?;
        return Ok(Setting { source, store, storage, _site: Some(site) });
    }
    let Some(source) = places.source.clone() else {
        places.require_state()?;
        return Err(CliError::usage("name the folder"));
    };
    check_source(&source)?;
    let store = places.store();
    check_apart(&source, &store)?;
    Ok(Setting { source, store, storage: places.storage.unwrap_or_default(), _site: None })
}

/// Notes an error as what is missing.
fn missing(view: &mut CheckView, area: &str, failure: &Failure) {
    let Failure { code, message, remedy, .. } = failure;
    let mut text = message.clone();
    for cause in failure.causes.iter().filter(|cause| !message.contains(cause.as_str())) {
        text.push_str(": ");
        text.push_str(cause);
    }
    view.add(area, Level::Error, format!("{text} [{code}]"), remedy);
}

/// The same of an error of either side.
fn refused(view: &mut CheckView, area: &str, error: &(impl ErrorFacts + std::error::Error)) {
    missing(view, area, &Failure::of(error));
}

/// Tries the cases that do no harm.
async fn run_harmless<'f, K: Kit>(
    talk: &Talk,
    cases: &[Case<K>],
    factory: &'f K::Factory<'f>,
    view: &mut CheckView,
) {
    let harmless: Vec<_> = cases.iter().filter(|case| case.is_harmless()).collect();
    let bar = if talk.out.draws() {
        let bar = ProgressBar::new(harmless.len() as u64);
        let style = ProgressStyle::with_template("{pos:>4} of {len} rules {wide_msg}");
        style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
    } else {
        ProgressBar::hidden()
    };
    for case in harmless {
        bar.set_message(case.name);
        view.case(&case.run(factory).await);
        bar.inc(1);
    }
    bar.finish_and_clear();
}

fn interrupted(effect: Effect) -> CliError {
    let message = "the check was interrupted";
    let remedy = "Ask again when there is time.";
    let error = CliError::of_class("cli.interrupted", ErrorClass::Unavailable, message, remedy);
    CliError { failure: Box::new((*error.failure).with_effect(effect)), exit: error.exit }
}
