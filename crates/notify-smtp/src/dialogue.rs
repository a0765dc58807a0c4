//! One try: what is said to the server, and what its answers mean.
//!
//! ```text
//!   connect ─ EHLO ─ STARTTLS ─ EHLO ─ AUTH ─ MAIL ─ RCPT … ─ DATA ─ the mail ─ its last line ─ answer
//!   └───────────────────────────────── nobody has it ────────────────────────┘└ somebody may ┘└ it is known
//! ```

use std::sync::Arc;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, Extension, ServerInfo};
use lettre::transport::smtp::response::{Code, Response, Severity};
use rustls::ClientConfig;
use rustls_platform_verifier::Verifier;
use stillpoint_context::Cx;

use crate::config::{Security, Settings};
use crate::line::{Broke, Line};

/// The longest piece of what a server says that is passed on, in characters.
const LONGEST_SAYING: usize = 200;

/// What became of a try, for each who was to get it.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// For so many it was taken in.
    pub(crate) count: usize,
    /// For these it may be later, in the server's words.
    pub(crate) later: Vec<(Address, String)>,
    /// For these it never will be.
    pub(crate) refused: Vec<(Address, String)>,
}

/// Why a try came to nothing.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Nobody has it; it may be tried again.
    NotTaken(String),
    /// Nobody has it, and the same would happen again.
    Refused(Ground, String),
    /// Somebody may have it.
    Unknown(String),
}

/// What has to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The server, or what is between.
    Server,
    /// What keeps others out.
    Security,
    /// User and password.
    Login,
}

impl From<Broke> for Stopped {
    /// What it means that a connection broke before the mail was complete.
    fn from(broke: Broke) -> Self {
        let why = broke.to_string();
        match broke {
            Broke::Nowhere | Broke::Io(_) => Self::NotTaken(why),
            Broke::Untrusted(_) => Self::Refused(Ground::Security, why),
            // What has waited once has had its time.
            Broke::Late | Broke::Garbled => Self::Refused(Ground::Server, why),
        }
    }
}

/// What a server says, as it can be shown.
fn saying(answer: &Response) -> String {
    let words: Vec<&str> = answer.message().collect();
    let words: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    let words: String = words.trim().chars().take(LONGEST_SAYING).collect();
    format!("{} {words}", answer.code()).trim_end().to_owned()
}

fn is_for_now(code: Code) -> bool {
    code.severity == Severity::TransientNegativeCompletion
}

/// That an answer is positive.
fn positive(answer: Response) -> Result<Response, Stopped> {
    if answer.is_positive() {
        return Ok(answer);
    }
    let why = format!("it answered {}", saying(&answer));
    if is_for_now(answer.code()) {
        return Err(Stopped::NotTaken(why));
    }
    Err(Stopped::Refused(Ground::Server, why))
}

/// Sends a mail to some of those who get it.
pub(crate) fn send(
    cx: &Cx,
    settings: &Settings,
    to: &[Address],
    mail: &[u8],
) -> Result<Taken, Stopped> {
    let mut line = opened(cx, settings)?;
    let from = settings.from.email.clone();
    let _sender = positive(line.ask(Mail::new(Some(from), Vec::new()))?)?;
    let mut taken = Taken::default();
    for address in to {
        let answer = line.ask(Rcpt::new(address.clone(), Vec::new()))?;
        match answer.code() {
            _ if answer.is_positive() => taken.count += 1,
            code if is_for_now(code) => taken.later.push((address.clone(), saying(&answer))),
            _ => taken.refused.push((address.clone(), saying(&answer))),
        }
    }
    if taken.count > 0 {
        let _go_on = positive(line.ask(Data)?)?;
        line.say(mail)?;
        // From here on it may have it.
        let after = |broke: Broke| Stopped::Unknown(broke.to_string());
        line.say(b".\r\n").map_err(after)?;
        let _taken = positive(line.answer().map_err(after)?)?;
    }
    // What it answers changes nothing any more.
    let _parted = line.say(Quit.to_string().as_bytes());
    Ok(taken)
}

/// A connection to a server that waits for a mail.
fn opened(cx: &Cx, settings: &Settings) -> Result<Line, Stopped> {
    let Settings { server, tls_name, port, security, .. } = settings;
    let mut line = Line::connect(cx, server, *port)?;
    if *security == Security::Tls {
        line = line.secured(tls(settings)?, tls_name.clone())?;
    }
    let _greeting = positive(line.answer()?)?;
    let mut known = greeted(&mut line)?;
    if *security == Security::StartTls {
        if !known.supports_feature(Extension::StartTls) {
            return Err(no_tls("it offers no STARTTLS"));
        }
        let answer = line.ask(Starttls)?;
        if !answer.is_positive() {
            return Err(no_tls(&format!("it answered {} to STARTTLS", saying(&answer))));
        }
        line = line.secured(tls(settings)?, tls_name.clone())?;
        // What it offered in the clear anybody may have said.
        known = greeted(&mut line)?;
    }
    if let Some(login) = &settings.login {
        log_in(&mut line, &known, login)?;
    }
    Ok(line)
}

fn no_tls(why: &str) -> Stopped {
    Stopped::Refused(Ground::Security, format!("{why}, and nothing is sent without TLS"))
}

/// What the server offers.
fn greeted(line: &mut Line) -> Result<ServerInfo, Stopped> {
    let answer = positive(line.ask(Ehlo::new(ClientId::default()))?)?;
    ServerInfo::from_response(&answer).map_err(|_| Stopped::from(Broke::Garbled))
}

fn tls(settings: &Settings) -> Result<Arc<ClientConfig>, Stopped> {
    let untrusted = |error: rustls::Error| Stopped::from(Broke::Untrusted(error));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = settings.roots.iter().cloned();
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider));
    let verifier = Arc::new(verifier.map_err(untrusted)?);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(untrusted)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What it answers may hold what it was asked, and is passed on as a code alone.
fn log_in(line: &mut Line, known: &ServerInfo, login: &Credentials) -> Result<(), Stopped> {
    let refused = |why: String| Stopped::Refused(Ground::Login, why);
    let known = known.get_auth_mechanism(&[Mechanism::Plain, Mechanism::Login]);
    let how = known.ok_or_else(|| refused("it takes no password".to_owned()))?;
    let garbled = |_| Stopped::from(Broke::Garbled);
    let mut next = Auth::new(how, login.clone(), None).map_err(garbled)?;
    // User, password, and one more.
    for _ in 0..3 {
        let answer = line.ask(next)?;
        match answer.code() {
            code if is_for_now(code) => {
                return Err(Stopped::NotTaken(format!("it answered {code} to the login")));
            }
            code if !answer.is_positive() => {
                return Err(refused(format!("it answered {code} to the login")));
            }
            _ if answer.has_code(334) => {
                next = Auth::new_from_response(how, login.clone(), &answer).map_err(garbled)?;
            }
            _ => return Ok(()),
        }
    }
    Err(Stopped::from(Broke::Garbled))
}
