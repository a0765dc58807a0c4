//! Where to send, and how; and what of it cannot be meant.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use stillpoint_context::{Effect, ErrorClass, Failure};

/// What keeps others from reading and changing what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Security {
    /// TLS once the server has agreed to it; without it nothing is sent.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Nothing does.
    Plain,
}

impl Security {
    /// The port that servers listen at for it.
    pub const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::Plain => 25,
        }
    }
}

/// Whom to tell, by which server, and how.
///
/// `Debug` shows neither user nor password.
#[derive(Clone)]
#[non_exhaustive]
pub struct SmtpConfig {
    /// The name or the address of the server.
    pub server: String,
    /// Its port; that of the [`Security`], if none is given.
    pub port: Option<u16>,
    /// What keeps others out.
    pub security: Security,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Who sends it, as `name <address>` or as an address.
    pub from: String,
    /// Who gets it, likewise.
    pub to: Vec<String>,
    /// Certificates in PEM that are trusted beside those that the system trusts.
    pub roots: Option<String>,
    /// How long one try may take, from looking for the server to its last answer.
    pub timeout: Duration,
    /// What it is called in warnings.
    pub name: String,
}

impl SmtpConfig {
    /// A server and a sender, with STARTTLS, 20 s for each try, no login and nobody who gets it yet.
    pub fn new(server: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            port: None,
            security: Security::default(),
            login: None,
            from: from.into(),
            to: Vec::new(),
            roots: None,
            timeout: Duration::from_secs(20),
            name: "smtp".to_owned(),
        }
    }

    /// The same with one more who gets it.
    pub fn with_recipient(mut self, to: impl Into<String>) -> Self {
        self.to.push(to.into());
        self
    }

    /// The same with a user and a password.
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some((user.into(), password.into()));
        self
    }

    /// The same at another port.
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The same with other security.
    pub const fn with_security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The same with certificates, in PEM, that are trusted beside those of the system: of an authority of one's own.
    pub fn with_roots(mut self, pem: impl Into<String>) -> Self {
        self.roots = Some(pem.into());
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

impl fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpConfig")
            .field("server", &self.server)
            .field("port", &self.port)
            .field("security", &self.security)
            .field("has_login", &self.login.is_some())
            .field("from", &self.from)
            .field("to", &self.to)
            .field("has_roots", &self.roots.is_some())
            .field("timeout", &self.timeout)
            .field("name", &self.name)
            .finish()
    }
}

/// A configuration that can be meant.
pub(crate) struct Settings {
    pub(crate) server: String,
    /// The server, as its certificate has to name it.
    pub(crate) tls_name: ServerName<'static>,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) login: Option<Credentials>,
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

fn invalid(why: &str) -> Failure {
    let message = format!("mail cannot be sent so: {why}");
    Failure::new("smtp.invalid", ErrorClass::Invalid, message)
        .with_effect(Effect::None)
        .with_remedy("Correct its server, its addresses, its login, its certificates or its time.")
}

fn mailbox(text: &str) -> Result<Mailbox, Failure> {
    let is_plain = !text.chars().any(char::is_control);
    let mailbox = text.parse::<Mailbox>().ok().filter(|_| is_plain);
    let mailbox = mailbox.ok_or_else(|| invalid(&format!("{text:?} is no address")))?;
    // Not every server takes others in.
    if !AsRef::<str>::as_ref(&mailbox.email).is_ascii() {
        return Err(invalid(&format!("{text:?} has letters that not every server knows")));
    }
    Ok(mailbox)
}

impl Settings {
    /// # Errors
    /// `smtp.invalid`. What is wrong with a login is said without it.
    pub(crate) fn of(config: &SmtpConfig) -> Result<Self, Failure> {
        let SmtpConfig { server, security, login, .. } = config;
        let tls_name = ServerName::try_from(server.clone())
            .map_err(|_| invalid(&format!("{server:?} is no name of a server")))?;
        let from = mailbox(&config.from)?;
        let to = config.to.iter().map(|to| mailbox(to)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(invalid("nobody gets it"));
        }
        let different: BTreeSet<&str> = to.iter().map(|to| to.email.as_ref()).collect();
        if different.len() < to.len() {
            return Err(invalid("somebody gets it twice"));
        }
        if config.port == Some(0) {
            return Err(invalid("nobody listens at port 0"));
        }
        if config.timeout.is_zero() {
            return Err(invalid("it has no time"));
        }
        if let Some((user, password)) = login {
            let is_word = |word: &String| !word.is_empty() && !word.chars().any(char::is_control);
            if !is_word(user) || !is_word(password) {
                return Err(invalid("its user or its password is empty or cannot be sent"));
            }
            let is_here = matches!(server.as_str(), "127.0.0.1" | "::1" | "localhost");
            if *security == Security::Plain && !is_here {
                return Err(invalid("without TLS its password could be read by others"));
            }
        }
        let roots = match &config.roots {
            None => Vec::new(),
            Some(pem) => roots(pem)?,
        };
        Ok(Self {
            server: server.clone(),
            tls_name,
            port: config.port.unwrap_or(security.port()),
            security: *security,
            login: login.clone().map(|(user, password)| Credentials::new(user, password)),
            from,
            to,
            roots,
        })
    }
}

fn roots(pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|_| invalid("its certificates cannot be read"))?;
    let mut known = rustls::RootCertStore::empty();
    if all.is_empty() || all.iter().any(|one| known.add(one.clone()).is_err()) {
        return Err(invalid("its certificates are none"));
    }
    Ok(all)
}
