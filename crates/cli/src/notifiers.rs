//! Who is told what became of jobs: a file beside the state file, since it names machines and secrets, which are no part of what is
//! protected.
//!
//! ```toml
//! format = 1
//!
//! [[notify]]
//! on = ["failed", "needs_attention", "warnings"]   # also: succeeded, cancelled; these three if it is left out
//! webhook.url = "https://ops.example.com/hooks/backup"
//! webhook.token_file = "webhook.token"             # from here on, if it is relative
//!
//! [[notify]]
//! log = {}
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use stillpoint::{LogNotifier, Notifier, NotifyOn};
use stillpoint_notify_webhook::{Webhook, WebhookConfig};

use crate::error::{CliError, Outcome};

/// The form of the file.
const FORMAT: u64 = 1;

/// The longest token, in bytes: a file that is longer is another one.
const LONGEST_TOKEN: u64 = 4096;

const REMEDY: &str = "Correct the file: docs/hooks-and-notifications.md shows how it is written.";

/// Somebody who is told, and of what.
pub(crate) type Subscription = (NotifyOn, Arc<dyn Notifier>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    #[serde(default)]
    notify: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    on: NotifyOn,
    log: Option<Log>,
    webhook: Option<Service>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: Option<String>,
    url: String,
    token_file: Option<PathBuf>,
    timeout_ms: Option<u64>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its address may be a secret.
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}

fn wrong(file: &Path, why: impl std::fmt::Display) -> CliError {
    let message = format!("the notifications in {} cannot be understood: {why}", file.display());
    CliError::invalid("notify.invalid", message, REMEDY).about("path", file.display())
}

/// What a file says.
///
/// # Errors
/// `notify.unreadable`, `notify.invalid`; what a notifier says of its own settings.
pub(crate) fn read(file: &Path) -> Outcome<Vec<Subscription>> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::io("notify.unreadable", "cannot read", file, &error, "Name a file with --notify.")
    })?;
    // The error of the parser shows the line that it means, which may hold a secret.
    let read: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
        });
        wrong(file, format!("line {line}: {}", error.message()))
    })?;
    if read.format != FORMAT {
        return Err(wrong(file, format!("it has format {}, and {FORMAT} is known", read.format)));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    read.notify.into_iter().map(|entry| subscription(file, folder, entry)).collect()
}

fn subscription(file: &Path, folder: &Path, entry: Entry) -> Outcome<Subscription> {
    let notifier: Arc<dyn Notifier> = match (entry.log, entry.webhook) {
        (Some(Log {}), None) => Arc::new(LogNotifier),
        (None, Some(service)) => Arc::new(webhook(folder, service)?),
        _ => return Err(wrong(file, "each [[notify]] has one of log and webhook")),
    };
    Ok((entry.on, notifier))
}

fn webhook(folder: &Path, service: Service) -> Outcome<Webhook> {
    let mut config = WebhookConfig::new(service.url);
    if let Some(file) = service.token_file {
        config = config.with_token(secret(&folder.join(file))?);
    }
    if let Some(time) = service.timeout_ms {
        config = config.with_timeout(Duration::from_millis(time));
    }
    if let Some(name) = service.name {
        config = config.with_name(name);
    }
    Ok(Webhook::new(config)?)
}

/// The one line of a file that holds a secret.
fn secret(file: &Path) -> Outcome<String> {
    let remedy = "Put the token alone into the file, on one line.";
    let io = |error| CliError::io("notify.unreadable", "cannot read", file, &error, remedy);
    if std::fs::metadata(file).map_err(io)?.len() > LONGEST_TOKEN {
        return Err(wrong(file, "it is too long for a token"));
    }
    Ok(std::fs::read_to_string(file).map_err(io)?.trim().to_owned())
}
