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
//! smtp.server = "mail.example.com"
//! smtp.user = "backup"
//! smtp.password_file = "smtp.password"
//! smtp.from = "Stillpoint <backup@example.com>"
//! smtp.to = ["ops@example.com"]
//!
//! [[notify]]
//! log = {}
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use stillpoint::{LogNotifier, Notifier, NotifyOn};
use stillpoint_notify_smtp::{Security, Smtp, SmtpConfig};
use stillpoint_notify_webhook::{Webhook, WebhookConfig};

use crate::error::{CliError, Outcome};

/// The form of the file.
const FORMAT: u64 = 1;

/// The longest secret, in bytes: a file that is longer is another one.
const LONGEST_SECRET: u64 = 4096;

/// The most certificates, in bytes: what the systems trust is a tenth of it.
const LONGEST_ROOTS: u64 = 4 * 1024 * 1024;

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
    smtp: Option<Mail>,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mail {
    name: Option<String>,
    server: String,
    port: Option<u16>,
    #[serde(default)]
    security: Kept,
    user: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
    to: Vec<String>,
    roots_file: Option<PathBuf>,
    timeout_ms: Option<u64>,
}

/// The words of the [`Security`] of mail.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    #[default]
    Starttls,
    Tls,
    Plain,
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
    let notifier: Arc<dyn Notifier> = match (entry.log, entry.smtp, entry.webhook) {
        (Some(Log {}), None, None) => Arc::new(LogNotifier),
        (None, Some(mail), None) => Arc::new(smtp(file, folder, mail)?),
        (None, None, Some(service)) => Arc::new(webhook(folder, service)?),
        _ => return Err(wrong(file, "each [[notify]] has one of log, smtp and webhook")),
    };
    Ok((entry.on, notifier))
}

fn smtp(file: &Path, folder: &Path, mail: Mail) -> Outcome<Smtp> {
    let mut config = SmtpConfig::new(mail.server, mail.from).with_security(match mail.security {
        Kept::Starttls => Security::StartTls,
        Kept::Tls => Security::Tls,
        Kept::Plain => Security::Plain,
    });
    (config.to, config.port) = (mail.to, mail.port);
    config = match (mail.user, mail.password_file) {
        (None, None) => config,
        (Some(user), Some(file)) => config.with_login(user, secret(&folder.join(file))?),
        _ => return Err(wrong(file, "smtp has both of user and password_file, or neither")),
    };
    if let Some(file) = mail.roots_file {
        config = config.with_roots(held(&folder.join(file), LONGEST_ROOTS)?);
    }
    if let Some(time) = mail.timeout_ms {
        config = config.with_timeout(Duration::from_millis(time));
    }
    if let Some(name) = mail.name {
        config = config.with_name(name);
    }
    Ok(Smtp::new(config)?)
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
    Ok(held(file, LONGEST_SECRET)?.trim().to_owned())
}

/// What a file holds that is no longer than this.
fn held(file: &Path, longest: u64) -> Outcome<String> {
    let remedy = "Put what is asked for, and nothing else, into a file that can be read.";
    let io = |error| CliError::io("notify.unreadable", "cannot read", file, &error, remedy);
    if std::fs::metadata(file).map_err(io)?.len() > longest {
        return Err(wrong(file, "it is too long to be what is meant"));
    }
    std::fs::read_to_string(file).map_err(io)
}
