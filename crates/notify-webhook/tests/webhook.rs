//! Against a listener on this machine: what arrives, what is tried again and what is not, and that no secret is shown.

// Tests may panic; their helpers are no test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use stillpoint::{Notification, Notifier as _, Outcome};
use stillpoint_context::{Cx, Effect, Failure, IdempotencyKey, JobId};
use stillpoint_model::job::{Job, JobKind, JobState};
use stillpoint_model::request::Trigger;
use stillpoint_notify_webhook::{SCHEMA, Webhook, WebhookConfig};
use stillpoint_workflow::TokioSeams;
use uuid::Uuid;

const TOKEN: &str = "s3cr3t-t0ken";

fn notification() -> Notification {
    let seams = TokioSeams::current().unwrap();
    let (now, key) = (seams.clock.now(), IdempotencyKey::new("k").unwrap());
    let trigger = Trigger::Manual { user: None };
    let mut job = Job::new(JobId(Uuid::from_u128(7)), JobKind::Backup, key, trigger, now);
    "mail".clone_into(&mut job.title);
    Notification::of_job(&job, JobState::Succeeded, now).unwrap()
}

/// A request as it arrived.
#[derive(Debug)]
struct Arrived {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Arrived {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is done with a connection.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answers(&'static str),
    /// Takes everything in, and closes without a word.
    Hangs,
    /// Takes everything in, and says nothing until nobody waits any more.
    Silent,
}

/// Serves so many connections, and gives what arrived.
fn serve(listener: &TcpListener, does: &[Does]) -> Vec<Arrived> {
    let mut all = Vec::new();
    for does in does {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut arrived =
            Arrived { line: line.trim_end().to_owned(), headers, body: String::new() };
        let length: usize = arrived.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        arrived.body = String::from_utf8(body).unwrap();
        all.push(arrived);
        let mut stream = reader.into_inner();
        match does {
            Does::Answers(status) => {
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
            Does::Hangs => drop(stream),
            // Until whoever waits has given up.
            Does::Silent => assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0),
        }
    }
    all
}

fn config(at: SocketAddr) -> WebhookConfig {
    WebhookConfig::new(format!("http://{at}/hooks/p4th")).with_token(TOKEN)
}

/// Sends one notification to a listener that does these things, one a connection.
async fn sent(does: &'static [Does], time: Duration) -> (Result<(), Failure>, Vec<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let webhook = Webhook::new(config(listener.local_addr().unwrap()).with_timeout(time)).unwrap();
    let cx = Cx::detached(&TokioSeams::current().unwrap());
    let told = notification();
    let served = cx.blocking("listener", move || serve(&listener, does));
    let (told, arrived) = tokio::join!(webhook.notify(&cx, &told), served);
    (told, arrived.unwrap())
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_whole_report_arrives_with_its_key_and_its_token() {
    let (told, arrived) = sent(&[Does::Answers("204 No Content")], LONG).await;
    told.unwrap();
    let arrived = &arrived[0];
    assert_eq!(arrived.line, "POST /hooks/p4th HTTP/1.1");
    assert_eq!(arrived.header("content-type"), Some("application/json"));
    assert_eq!(arrived.header("authorization"), Some("Bearer s3cr3t-t0ken"));
    let told = notification();
    assert_eq!(arrived.header("idempotency-key"), Some(told.key.as_str()));
    let body: Value = serde_json::from_str(&arrived.body).unwrap();
    assert_eq!(body["schema"], SCHEMA);
    assert_eq!(body["key"], told.key.as_str());
    assert_eq!(body["outcome"], Outcome::Succeeded.word());
    assert_eq!(
        (&body["subject"], &body["test"]),
        (&Value::from("backup mail: succeeded"), &false.into())
    );
    assert_eq!(body["report"]["schema"], stillpoint::REPORT);
    assert_eq!(body["report"]["job"], told.report.job.to_string());
}

#[tokio::test]
async fn what_nobody_took_is_sent_again_and_nothing_else_is() {
    let (told, arrived) = sent(&[Does::Answers("503 Later"), Does::Answers("200 OK")], LONG).await;
    told.unwrap();
    assert_eq!(arrived.len(), 2);
    assert_eq!(arrived[0].header("idempotency-key"), arrived[1].header("idempotency-key"));
    let (told, _) = sent(&[Does::Answers("429 Slowly"); 3], LONG).await;
    assert_eq!(told.unwrap_err().effect, Effect::None);
    // Each of these is served once: a second try would find nobody, and be told of differently.
    for (does, effect, words) in [
        (&[Does::Answers("500 Oh")], Effect::None, "500"),
        (&[Does::Answers("404 Where")], Effect::None, "404"),
        (&[Does::Answers("302 Found")], Effect::None, "no redirect"),
        (&[Does::Hangs], Effect::Unknown, "broke"),
    ] {
        let (told, _) = sent(does, LONG).await;
        let failure = told.unwrap_err();
        assert_eq!(failure.code, "webhook.failed");
        assert!(failure.message.contains(words), "{failure:?}");
        assert!(failure.effect == effect || words == "broke", "{failure:?}");
    }
    let (told, _) = sent(&[Does::Silent], Duration::from_millis(300)).await;
    let failure = told.unwrap_err();
    assert!(failure.message.contains("in time"), "{failure:?}");
    assert_eq!(failure.effect, Effect::Unknown);
}

#[tokio::test]
async fn where_nobody_listens_is_said_and_no_secret_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let webhook = Webhook::new(config(at)).unwrap();
    let cx = Cx::detached(&TokioSeams::current().unwrap()).with_timeout(Duration::from_millis(500));
    let failure = webhook.notify(&cx, &notification()).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.effect), ("webhook.failed", Effect::None));
    let shown = format!("{webhook:?} {failure:?} {failure} {:?}", config(at));
    assert!(shown.contains("127.0.0.1"), "{shown}");
    assert!(!shown.contains(TOKEN) && !shown.contains("p4th"), "{shown}");
}

/// A look-up that fails has asked nobody anything: it is tried again, and nothing is unknown.
#[tokio::test]
async fn a_machine_that_is_not_found_was_not_told() {
    let config = WebhookConfig::new("https://no-such-machine.invalid/hook");
    let cx = Cx::detached(&TokioSeams::current().unwrap());
    let failure = Webhook::new(config).unwrap().notify(&cx, &notification()).await.unwrap_err();
    assert!(failure.message.contains("no machine no-such-machine.invalid"), "{failure:?}");
    assert_eq!((failure.effect, failure.retryable), (Effect::None, true), "{failure:?}");
}

#[test]
fn what_is_no_safe_address_is_refused_before_anything_is_sent() {
    for url in [
        "",
        "nonsense",
        "/path",
        "ftp://ops.example.com/",
        "http://ops.example.com/",
        "http://localhost.example.com/",
        "https://",
        "https://user:p4ss@ops.example.com/",
    ] {
        let failure = Webhook::new(WebhookConfig::new(url)).unwrap_err();
        assert_eq!(failure.code, "webhook.invalid", "{url}");
        assert!(!failure.message.contains("p4ss"), "{failure:?}");
    }
    let good = || WebhookConfig::new("https://ops.example.com/");
    assert!(Webhook::new(good()).is_ok());
    for bad in
        [good().with_token("a\r\nb"), good().with_token(""), good().with_timeout(Duration::ZERO)]
    {
        assert_eq!(Webhook::new(bad).unwrap_err().code, "webhook.invalid");
    }
}
