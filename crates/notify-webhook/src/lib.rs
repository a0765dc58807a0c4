//! Tells a web service what became of a job.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use stillpoint::{Builder, NotifyOn};
//! use stillpoint_notify_webhook::{Webhook, WebhookConfig};
//!
//! fn told(builder: Builder, token: String) -> Result<Builder, Box<dyn std::error::Error>> {
//!     let config = WebhookConfig::new("https://ops.example.com/hooks/backup")
//!         .with_token(token)
//!         .with_timeout(Duration::from_secs(10));
//!     Ok(builder.notifier(NotifyOn::default(), Arc::new(Webhook::new(config)?)))
//! }
//! ```
//!
//! # What is sent
//!
//! ```text
//!   POST <address>
//!   Content-Type: application/json
//!   Idempotency-Key: notify/<job>           the same whenever one job is told of again
//!   Authorization: Bearer <token>           if there is a token
//!
//!   {"schema": "stillpoint.notification/1", "key": …, "outcome": …, "subject": …, "text": …, "test": …, "report": {…}}
//! ```
//!
//! | field | what |
//! |---|---|
//! | `schema` | [`SCHEMA`] |
//! | `key` | as the header |
//! | `outcome` | `failed`, `needs_attention`, `warnings`, `succeeded` or `cancelled` |
//! | `subject`, `text` | for people: one line, and several |
//! | `test` | it was sent to try whether it arrives |
//! | `report` | the [`JobReport`](stillpoint::JobReport) |
//!
//! Any answer of 2xx is taken for its arrival. A redirect is not followed, since it would carry the token elsewhere.
//!
//! # When it is tried again
//! Where no connection came about, and where the service says that it did not take it in (429 and 503): up to three times in all, as
//! far as there is time. After anything else it may have arrived, and is not sent again.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::{Notification, Notifier};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// The name and version of what is sent.
pub const SCHEMA: &str = "stillpoint.notification/1";

/// How often it is tried at most.
const TRIES: u32 = 3;

/// How long to wait before the second try; twice that before the third.
const PAUSE: Duration = Duration::from_secs(1);

/// Where to tell, and how.
///
/// `Debug` shows the machine of the address alone: an address may be a secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct WebhookConfig {
    /// The address.
    pub url: String,
    /// The token of the `Authorization` header.
    pub token: Option<String>,
    /// How long one try may take, from looking for the machine to its answer.
    pub timeout: Duration,
    /// What it is called in warnings.
    pub name: String,
}

impl WebhookConfig {
    /// An address, with 15 s for each try and no token.
    pub fn new(url: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(15);
        Self { url: url.into(), token: None, timeout, name: "webhook".to_owned() }
    }

    /// The same with a token.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The same with so much time for each try.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same under another name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.url.parse::<Uri>().ok().and_then(|uri| Some(uri.host()?.to_owned()));
        f.debug_struct("WebhookConfig")
            .field("machine", &machine.unwrap_or_default())
            .field("has_token", &self.token.is_some())
            .field("timeout", &self.timeout)
            .field("name", &self.name)
            .finish()
    }
}

/// Tells a web service.
#[derive(Clone)]
pub struct Webhook {
    config: WebhookConfig,
    /// The machine, for people.
    machine: String,
    agent: Agent,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.config).finish()
    }
}

fn invalid(why: &str) -> Failure {
    Failure::new(
        "webhook.invalid",
        ErrorClass::Invalid,
        format!("the webhook cannot be used: {why}"),
    )
    .with_effect(Effect::None)
    .with_remedy("Correct its address, its token or its time.")
}

impl Webhook {
    /// A webhook. Nothing is sent.
    ///
    /// # Errors
    /// `webhook.invalid` for an address that is none, or that is not `https`: without TLS only this machine is told, since what is
    /// sent names servers and databases. For a token that cannot be a header, and for no time.
    pub fn new(config: WebhookConfig) -> Result<Self, Failure> {
        // What is wrong with an address is said without it.
        let uri: Uri = config.url.parse().map_err(|_| invalid("its address is none"))?;
        let machine = uri.host().filter(|host| !host.is_empty());
        let machine = machine.ok_or_else(|| invalid("its address names no machine"))?.to_owned();
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(invalid("its address holds a password; use a token"));
        }
        let is_here = matches!(machine.as_str(), "127.0.0.1" | "[::1]" | "localhost");
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_here => {}
            _ => return Err(invalid("its address does not begin with https")),
        }
        let is_plain = |token: &String| {
            !token.is_empty() && token.bytes().all(|byte| (0x21..0x7f).contains(&byte))
        };
        if config.token.as_ref().is_some_and(|token| !is_plain(token)) {
            return Err(invalid("its token is empty or has characters that cannot be sent"));
        }
        if config.timeout.is_zero() {
            return Err(invalid("it has no time"));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("stillpoint/", env!("CARGO_PKG_VERSION")))
            // A setting of the environment does not decide where a token goes.
            .proxy(None)
            .build();
        let agent = Agent::with_parts(agent, DefaultConnector::default(), Names::default());
        Ok(Self { config, machine, agent })
    }

    /// What became of one try, on this thread.
    fn try_once(&self, key: &str, body: &str, time: Duration) -> Tried {
        let mut request = self
            .agent
            .post(&self.config.url)
            .config()
            .timeout_global(Some(time))
            .build()
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key);
        if let Some(token) = &self.config.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        match request.send(body) {
            Ok(answer) => match answer.status().as_u16() {
                200..=299 => Tried::Arrived,
                status @ (429 | 503) => Tried::NotTaken(format!("it answered {status}")),
                status @ 300..=399 => {
                    Tried::Refused(format!("it answered {status}, and no redirect is followed"))
                }
                status => Tried::Refused(format!("it answered {status}")),
            },
            Err(error) => self.why(&error),
        }
    }

    /// What an error means. Its own words may name the address, and are not used.
    fn why(&self, error: &ureq::Error) -> Tried {
        use ureq::Error as E;
        match error {
            E::HostNotFound => Tried::NotTaken(format!("there is no machine {}", self.machine)),
            E::Io(io) if io.kind() == ErrorKind::ConnectionRefused => {
                Tried::NotTaken("no connection came about: refused".to_owned())
            }
            E::ConnectionFailed => Tried::NotTaken("no connection came about".to_owned()),
            E::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                Tried::NotTaken("no connection came about in time".to_owned())
            }
            E::Timeout(_) => Tried::Unknown("it did not answer in time".to_owned()),
            E::Tls(_) | E::Rustls(_) => {
                Tried::Refused("it could not be made sure who it is".to_owned())
            }
            E::Io(io) => Tried::Unknown(format!("the connection broke ({})", io.kind())),
            _ => Tried::Unknown("what it answered is not understood".to_owned()),
        }
    }
}

/// Looks machines up as the system does. One that fails says so by an error that a broken connection could have had as well; here
/// it means that nobody was asked anything yet.
#[derive(Default)]
struct Names(DefaultResolver);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| match error {
            ureq::Error::Io(_) => ureq::Error::HostNotFound,
            other => other,
        })
    }
}

/// What became of a try.
enum Tried {
    Arrived,
    /// Nobody has it: it may be tried again.
    NotTaken(String),
    /// Somebody has it, and did not want it.
    Refused(String),
    /// Somebody may have it.
    Unknown(String),
}

/// The document that is sent.
///
/// # Errors
/// `webhook.encode`, which is a defect of ours.
pub fn body_of(notification: &Notification) -> Result<String, Failure> {
    let Notification { key, outcome, subject, text, report, is_test, .. } = notification;
    let body = serde_json::json!({
        "schema": SCHEMA,
        "key": key,
        "outcome": outcome,
        "subject": subject,
        "text": text,
        "test": is_test,
        "report": report,
    });
    serde_json::to_string(&body)
        .map_err(|error| Failure::new("webhook.encode", ErrorClass::Internal, error.to_string()))
}

#[async_trait]
impl Notifier for Webhook {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn notify(&self, cx: &Cx, notification: &Notification) -> Result<(), Failure> {
        let body = Arc::new(body_of(notification)?);
        let key = notification.key.to_string();
        let failed = |why: &str, effect| {
            Failure::new(
                "webhook.failed",
                ErrorClass::Unavailable,
                format!("the web service at {} was not told: {why}", self.machine),
            )
            .with_effect(effect)
            .with_retryable(effect == Effect::None)
            .with_subject(Subject::new("machine", &self.machine))
            .with_remedy("See whether the service answers, and send a test notification.")
        };
        let mut nth = 0;
        loop {
            nth += 1;
            let left = cx.remaining().unwrap_or(self.config.timeout);
            let time = left.min(self.config.timeout);
            if cx.check().is_err() || time.is_zero() {
                return Err(failed("there was no time left", Effect::None));
            }
            let (this, key, body) = (self.clone(), key.clone(), Arc::clone(&body));
            let tried = cx.blocking("webhook", move || this.try_once(&key, &body, time)).await;
            let tried = tried.unwrap_or_else(|panicked| Tried::Unknown(panicked.to_string()));
            match tried {
                Tried::Arrived => return Ok(()),
                Tried::NotTaken(why) if nth == TRIES => return Err(failed(&why, Effect::None)),
                Tried::NotTaken(why) => {
                    if cx.sleep(PAUSE.saturating_mul(nth)).await.is_err() {
                        return Err(failed(&why, Effect::None));
                    }
                }
                Tried::Refused(why) => {
                    return Err(failed(&why, Effect::None).with_retryable(false));
                }
                Tried::Unknown(why) => return Err(failed(&why, Effect::Unknown)),
            }
        }
    }
}
