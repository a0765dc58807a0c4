//! Against a real server, `aiosmtpd` of PyPI (`STILLPOINT_AIOSMTPD` names the folder that it is installed in, if Python does not find it
//! by itself), with a certificate that `openssl` makes: what arrives, what is tried again and what is not, and that no secret is shown.
//! Where one of them is absent, a test says that it skips, unless `STILLPOINT_REQUIRE` contains `smtp`. Answers that no good server
//! gives come from a listener of our own.

// Tests may panic; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use server::Server;
use stillpoint::{Notification, Notifier as _};
use stillpoint_context::{Cx, Effect, Failure, IdempotencyKey, JobId};
use stillpoint_model::job::{Job, JobKind, JobState};
use stillpoint_model::request::Trigger;
use stillpoint_notify_smtp::{Security, Smtp, SmtpConfig};
use stillpoint_workflow::TokioSeams;
use uuid::Uuid;

const PASSWORD: &str = "s3cr3t p4ssword";

fn notification() -> Notification {
    let (now, key) = ("2026-01-02T03:04:05Z".parse().unwrap(), IdempotencyKey::new("k").unwrap());
    let trigger = Trigger::Manual { user: None };
    let mut job = Job::new(JobId(Uuid::from_u128(7)), JobKind::Backup, key, trigger, now);
    "Postfächer".clone_into(&mut job.title);
    Notification::of_job(&job, JobState::Succeeded, now).unwrap()
}

/// To a server at this port, in the clear.
fn config(port: u16) -> SmtpConfig {
    SmtpConfig::new("127.0.0.1", "Stillpoint <backup@example.com>")
        .with_recipient("Ops <ops@example.com>")
        .with_port(port)
        .with_security(Security::Plain)
        .with_timeout(Duration::from_mins(1))
}

async fn sent(config: SmtpConfig) -> Result<(), Failure> {
    let cx = Cx::detached(&TokioSeams::current().unwrap());
    let smtp = Smtp::new(config.clone()).unwrap();
    let told = smtp.notify(&cx, &notification()).await;
    let shown = format!("{smtp:?} {config:?} {told:?}");
    assert!(!shown.contains("s3cr3t") && !shown.contains("czNjcjN0"), "{shown}");
    told
}

/// Sends to a server that was started so, and gives what came of it and what it took in.
async fn told(
    options: &Value,
    with: impl FnOnce(SmtpConfig) -> SmtpConfig,
) -> Option<(Result<(), Failure>, Vec<Value>)> {
    let server = Server::start(options)?;
    let mut config = config(server.port);
    config.roots.clone_from(&server.certificate);
    let told = sent(with(config)).await;
    Some((told, server.taken()))
}

#[tokio::test]
async fn a_mail_arrives_with_the_outcome_the_text_and_the_report() {
    let Some((told, taken)) =
        told(&json!({}), |config| config.with_recipient("b@example.com")).await
    else {
        return;
    };
    told.unwrap();
    assert_eq!(taken.len(), 1, "{taken:#?}");
    let (mail, wanted) = (&taken[0], notification());
    assert_eq!((&mail["from"], &mail["tls"]), (&json!("backup@example.com"), &json!(false)));
    assert_eq!(mail["to"], json!(["ops@example.com", "b@example.com"]));
    let headers = &mail["headers"];
    assert_eq!(headers["From"], "Stillpoint <backup@example.com>");
    assert_eq!(headers["To"], "Ops <ops@example.com>, b@example.com");
    assert_eq!(headers["Subject"], "backup Postfächer: succeeded");
    assert_eq!(headers["Date"], "Fri, 02 Jan 2026 03:04:05 +0000");
    assert_eq!(headers["Auto-Submitted"], "auto-generated");
    let id = format!("<notify.{}@example.com>", wanted.report.job);
    assert_eq!(headers["Message-ID"], json!(id));
    let parts = mail["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2, "{mail:#}");
    assert_eq!((&parts[0]["type"], &parts[0]["name"]), (&json!("text/plain"), &Value::Null));
    let text = parts[0]["content"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(text.trim_end(), wanted.text.trim_end());
    assert_eq!(parts[1]["type"], "application/json");
    assert_eq!(parts[1]["name"], "job-report.json");
    let report: Value = serde_json::from_str(parts[1]["content"].as_str().unwrap()).unwrap();
    assert_eq!(report["schema"], stillpoint::REPORT);
    assert_eq!(report["job"], wanted.report.job.to_string());
    assert_eq!(report["title"], "Postfächer");
}

#[tokio::test]
async fn a_recipient_who_is_refused_keeps_nobody_else_from_it() {
    let refuses = json!({"refuse": {"no@example.com": "550 5.1.1 No such user"}});
    let more = |config: SmtpConfig| config.with_recipient("no@example.com");
    let Some((outcome, taken)) = told(&refuses, more).await else { return };
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, "smtp.recipient_refused");
    assert!(failure.message.contains("for 1 of 2"), "{failure:?}");
    assert!(failure.message.contains("no@example.com (550 5.1.1 No such user)"), "{failure:?}");
    assert_eq!((failure.effect, failure.retryable), (Effect::Unknown, false));
    assert_eq!((taken.len(), &taken[0]["to"]), (1, &json!(["ops@example.com"])));

    let refuses = json!({"refuse": {"ops@example.com": "550 Gone"}});
    let (outcome, taken) = told(&refuses, |config| config).await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, "smtp.recipient_refused");
    assert_eq!((failure.effect, taken.len()), (Effect::None, 0));
}

#[tokio::test]
async fn what_a_server_does_not_take_for_now_is_sent_again_and_nothing_else_is() {
    // Once, and for one of two: the other one gets it once.
    let later = json!({"refuse": {"b@example.com": "451 Later"}, "times": 1});
    let more = |config: SmtpConfig| config.with_recipient("b@example.com");
    let Some((outcome, taken)) = told(&later, more).await else { return };
    outcome.unwrap();
    let to: Vec<&Value> = taken.iter().map(|mail| &mail["to"]).collect();
    assert_eq!(to, [&json!(["ops@example.com"]), &json!(["b@example.com"])]);
    assert_eq!(taken[0]["headers"]["Message-ID"], taken[1]["headers"]["Message-ID"]);

    let later = json!({"data": "452 4.3.1 Full", "times": 1});
    let (outcome, taken) = told(&later, |config| config).await.unwrap();
    outcome.unwrap();
    assert_eq!(taken.len(), 1);

    // The server would take the second try.
    let never = json!({"data": "554 5.7.1 Spam", "times": 1});
    let (outcome, taken) = told(&never, |config| config).await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!((failure.code.as_str(), taken.len()), ("smtp.failed", 0));
    assert!(failure.message.contains("554 5.7.1 Spam"), "{failure:?}");
    assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
}

#[tokio::test]
async fn a_mail_goes_under_tls_with_a_login() {
    for (security, options) in [
        (Security::StartTls, json!({"starttls": true, "password": PASSWORD})),
        (Security::Tls, json!({"tls": true, "password": PASSWORD})),
        (Security::StartTls, json!({"starttls": true, "password": PASSWORD, "mechanism": "LOGIN"})),
    ] {
        let login = |config: SmtpConfig| config.with_security(security).with_login("me", PASSWORD);
        let Some((outcome, taken)) = told(&options, login).await else { return };
        outcome.unwrap();
        assert_eq!(
            (taken.len(), &taken[0]["tls"], &taken[0]["user"]),
            (1, &json!(true), &json!("me"))
        );

        let wrong = |config: SmtpConfig| config.with_security(security).with_login("me", "s3cr3t!");
        let (outcome, taken) = told(&options, wrong).await.unwrap();
        let failure = outcome.unwrap_err();
        assert_eq!((failure.code.as_str(), taken.len()), ("smtp.login_refused", 0));
        assert!(failure.message.contains("535"), "{failure:?}");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
    }
}

#[tokio::test]
async fn without_tls_nothing_is_said_that_is_not_for_everybody() {
    let none = |config: SmtpConfig| config.with_security(Security::StartTls);
    let Some((outcome, taken)) = told(&json!({}), none).await else { return };
    let failure = outcome.unwrap_err();
    assert_eq!((failure.code.as_str(), taken.len()), ("smtp.not_secure", 0));
    assert!(failure.message.contains("no STARTTLS"), "{failure:?}");

    // A server that nobody has vouched for, and one under another name.
    for (security, options) in [
        (Security::StartTls, json!({"starttls": true})),
        (Security::Tls, json!({"tls": true})),
        (Security::Tls, json!({"tls": true, "name": "other.example.com"})),
    ] {
        let is_named = options["name"].is_null();
        let strange = |mut config: SmtpConfig| {
            if is_named {
                config.roots = None;
            }
            config.with_security(security).with_login("me", PASSWORD)
        };
        let (outcome, taken) = told(&options, strange).await.unwrap();
        let failure = outcome.unwrap_err();
        assert_eq!((failure.code.as_str(), taken.len()), ("smtp.not_secure", 0), "{failure:?}");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
    }
    // A server that takes no password gets none.
    let login = |config: SmtpConfig| config.with_login("me", PASSWORD);
    let (outcome, taken) = told(&json!({}), login).await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!((failure.code.as_str(), taken.len()), ("smtp.login_refused", 0), "{failure:?}");
}

/// Answers one connection line by line: each of these once a line has come that begins so. Gives what came.
fn scripted(listener: &TcpListener, script: &[(&str, &str)]) -> String {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut came = String::new();
    for (wanted, answer) in script {
        let mut line = String::new();
        while !wanted.is_empty() && !line.starts_with(wanted) {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return came;
            }
            came.push_str(&line);
        }
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }
    // Says nothing more, until nobody waits any more.
    let mut rest = Vec::new();
    let _end = reader.read_to_end(&mut rest);
    came + &String::from_utf8_lossy(&rest)
}

type Script = &'static [(&'static str, &'static str)];

/// Sends to a listener that answers so.
async fn answered(
    script: Script,
    with: impl FnOnce(SmtpConfig) -> SmtpConfig,
) -> (Failure, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cx = Cx::detached(&TokioSeams::current().unwrap());
    let served = cx.blocking("listener", move || scripted(&listener, script));
    let (told, came) = tokio::join!(sent(with(config(port))), served);
    (told.unwrap_err(), came.unwrap())
}

const UP_TO_DATA: Script =
    &[("", "220 hi\r\n"), ("EHLO", "250 me\r\n"), ("MAIL", "250\r\n"), ("RCPT", "250 ok\r\n")];

const UP_TO_THE_LAST_LINE: Script = &[
    ("", "220-hi\r\n220 there\r\n"),
    ("EHLO", "250 me\r\n"),
    ("MAIL", "250 ok\r\n"),
    ("RCPT", "250 ok\r\n"),
    ("DATA", "354 go\r\n"),
];

#[tokio::test]
async fn what_waits_for_nothing_ends_and_says_whether_somebody_may_have_it() {
    let shortly = |config: SmtpConfig| config.with_timeout(Duration::from_millis(300));
    // Nobody has it; another try would find nobody, and say so.
    let (failure, came) = answered(&[], shortly).await;
    assert!(failure.message.contains("in time"), "{failure:?}");
    assert_eq!((failure.effect, came.as_str()), (Effect::None, ""));
    let (failure, came) = answered(UP_TO_DATA, shortly).await;
    assert!(failure.message.contains("in time"), "{failure:?}");
    assert_eq!(failure.effect, Effect::None);
    assert!(came.ends_with("DATA\r\n"), "{came}");
    // The whole mail was sent.
    let (failure, came) = answered(UP_TO_THE_LAST_LINE, shortly).await;
    assert_eq!((failure.code.as_str(), failure.effect), ("smtp.failed", Effect::Unknown));
    assert!(came.ends_with("\r\n.\r\n"), "{came}");
    assert!(came.lines().all(str::is_ascii), "{came}");
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    for script in [
        [("", "hello\r\n")].as_slice(),
        &[("", "220-a\r\n250 b\r\n")],
        &[("", "999 b\r\n")],
        // Said in the clear, for it to be taken for something said under TLS.
        &[
            ("", "220 hi\r\n"),
            ("EHLO", "250-me\r\n250 STARTTLS\r\n"),
            ("STARTTLS", "220 go\r\n250-me\r\n250 AUTH PLAIN\r\n250 ok\r\n"),
        ],
    ] {
        let (failure, came) =
            answered(script, |config| config.with_security(Security::StartTls)).await;
        assert!(failure.message.contains("not understood"), "{script:?}: {failure:?}");
        assert_eq!(failure.effect, Effect::None);
        assert!(!came.contains("MAIL"), "{came}");
    }
    let (failure, _) = answered(&[("", "220 hi\r\n"), ("EHLO", "502 5.5.2 what\r\n")], |c| c).await;
    assert!(failure.message.contains("502 5.5.2 what"), "{failure:?}");
}

#[tokio::test]
async fn where_nobody_listens_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let cx = Cx::detached(&TokioSeams::current().unwrap()).with_timeout(Duration::from_millis(500));
    let smtp = Smtp::new(config(at.port()).with_login("me", PASSWORD)).unwrap();
    let failure = smtp.notify(&cx, &notification()).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.effect), ("smtp.failed", Effect::None));
    assert!(failure.message.contains("127.0.0.1") && failure.retryable, "{failure:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let good =
        || SmtpConfig::new("mail.example.com", "b@example.com").with_recipient("o@example.com");
    assert!(Smtp::new(good().with_login("me", PASSWORD)).is_ok());
    let mut elsewhere = good();
    "a b".clone_into(&mut elsewhere.server);
    let mut nowhere = good();
    nowhere.server.clear();
    for bad in [
        elsewhere,
        nowhere,
        SmtpConfig::new("mail.example.com", "b@example.com"),
        SmtpConfig::new("mail.example.com", "nobody").with_recipient("o@example.com"),
        good().with_recipient("o@"),
        good().with_recipient("Else <o@example.com>"),
        good().with_recipient("ö@example.com"),
        good().with_recipient("x\r\nBcc: y <z@example.com>"),
        good().with_port(0),
        good().with_timeout(Duration::ZERO),
        good().with_login("", PASSWORD),
        good().with_login("me", ""),
        good().with_login("me", "s3cr3t\r\nRSET"),
        good().with_security(Security::Plain).with_login("me", PASSWORD),
        good().with_roots("nothing"),
        good().with_roots("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        let shown = format!("{bad:?}");
        let failure = Smtp::new(bad).unwrap_err();
        assert_eq!(failure.code, "smtp.invalid", "{shown}");
        assert!(!failure.message.contains("s3cr3t"), "{failure:?}");
    }
}
