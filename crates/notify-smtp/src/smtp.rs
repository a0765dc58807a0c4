//! The notifier: a mail, tried as often as is safe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::Address;
use stillpoint::{Notification, Notifier};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};

use crate::config::{Settings, SmtpConfig};
use crate::dialogue::{Ground, Stopped, send};
use crate::mail::{mail, stuffed};

/// How often it is tried at most.
const TRIES: u32 = 3;

/// How long to wait before the second try; twice that before the third.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells people by mail.
#[derive(Clone)]
pub struct Smtp {
    config: SmtpConfig,
    settings: Arc<Settings>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Smtp").field(&self.config).finish()
    }
}

impl Smtp {
    /// A notifier. Nothing is sent.
    ///
    /// # Errors
    /// `smtp.invalid`: for a server or an address that is none, nobody who gets it or somebody who gets it twice, a login that cannot be
    /// sent or that would be sent in the clear to another machine, certificates that are none, and no time.
    pub fn new(config: SmtpConfig) -> Result<Self, Failure> {
        let settings = Arc::new(Settings::of(&config)?);
        Ok(Self { config, settings })
    }

    fn failed(&self, code: &'static str, why: &str, remedy: &'static str) -> Failure {
        let server = &self.config.server;
        let message = format!("no mail was sent by {server}: {why}");
        Failure::new(code, ErrorClass::Unavailable, message)
            .with_effect(Effect::None)
            .with_subject(Subject::new("server", server))
            .with_remedy(remedy)
    }

    fn not_taken(&self, why: &str) -> Failure {
        let remedy = "See whether the server answers, and send a test notification.";
        self.failed("smtp.failed", why, remedy).with_retryable(true)
    }

    fn stopped(&self, stopped: Stopped) -> Failure {
        match stopped {
            Stopped::NotTaken(why) => self.not_taken(&why),
            Stopped::Refused(ground, why) => match ground {
                Ground::Server => self.not_taken(&why),
                Ground::Security => self.failed(
                    "smtp.not_secure",
                    &why,
                    "Name the server as its certificate does, trust the authority of that, or choose the security that it offers.",
                ),
                Ground::Login => {
                    self.failed("smtp.login_refused", &why, "Correct the user or the password.")
                }
            }
            .with_retryable(false),
            Stopped::Unknown(why) => {
                let message = format!("nobody knows whether {} took a mail in: {why}", self.config.server);
                Failure::new("smtp.failed", ErrorClass::Unavailable, message)
                    .with_effect(Effect::Unknown)
                    .with_subject(Subject::new("server", &self.config.server))
                    .with_remedy("See whether it has arrived, and send a test notification.")
            }
        }
    }

    /// What is to be said of those for whom it was not taken in, if there are any.
    fn told(
        &self,
        count: usize,
        refused: Vec<(Address, String)>,
        later: Vec<(Address, String)>,
    ) -> Result<(), Failure> {
        match later.first() {
            None if refused.is_empty() => Ok(()),
            Some((_, why)) if count == 0 && refused.is_empty() => Err(self.not_taken(why)),
            _ => Err(self.left_out(count, &[refused, later].concat())),
        }
    }

    fn left_out(&self, count: usize, left: &[(Address, String)]) -> Failure {
        let all = count + left.len();
        let each: Vec<String> =
            left.iter().map(|(address, words)| format!("{address} ({words})")).collect();
        let message = format!(
            "{} took a mail in for {count} of {all}, and not for {}",
            self.config.server,
            each.join(", ")
        );
        let effect = if count == 0 { Effect::None } else { Effect::Unknown };
        Failure::new("smtp.recipient_refused", ErrorClass::Unavailable, message)
            .with_effect(effect)
            .with_retryable(false)
            .with_subject(Subject::new("server", &self.config.server))
            .with_remedy("Correct the addresses, or have the server take mail in for them.")
    }
}

#[async_trait]
impl Notifier for Smtp {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn notify(&self, cx: &Cx, notification: &Notification) -> Result<(), Failure> {
        let Settings { from, to, .. } = &*self.settings;
        let mail: Arc<[u8]> = stuffed(&mail(notification, from, to)?).into();
        let mut open: Vec<Address> = to.iter().map(|to| to.email.clone()).collect();
        let (mut count, mut refused, mut nth) = (0, Vec::new(), 0);
        loop {
            nth += 1;
            if cx.check().is_err() {
                return Err(self.not_taken("there was no time left"));
            }
            let call = cx.with_timeout(self.config.timeout);
            let (settings, some, mail) = (Arc::clone(&self.settings), open, Arc::clone(&mail));
            let tried = cx.blocking("mail", move || {
                let sent = send(&call, &settings, &some, &mail);
                (some, sent)
            });
            // What panics may have sent it.
            let (some, sent) = tried.await.unwrap_or_else(|panicked| {
                (Vec::new(), Err(Stopped::Unknown(panicked.to_string())))
            });
            let later: Vec<(Address, String)> = match sent {
                Ok(taken) => {
                    count += taken.count;
                    refused.extend(taken.refused);
                    taken.later
                }
                Err(Stopped::NotTaken(why)) => {
                    some.into_iter().map(|address| (address, why.clone())).collect()
                }
                Err(stopped) if count == 0 => return Err(self.stopped(stopped)),
                // The first try has told some.
                Err(stopped) => {
                    let failure = self.stopped(stopped);
                    return Err(failure.with_effect(Effect::Unknown).with_retryable(false));
                }
            };
            let is_over = later.is_empty() || nth == TRIES;
            if is_over || cx.sleep(PAUSE.saturating_mul(nth)).await.is_err() {
                return self.told(count, refused, later);
            }
            open = later.into_iter().map(|(address, _)| address).collect();
        }
    }
}
