//! A server in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// Prints its port, then each mail that it takes in, as a line of JSON each; ends with its input.
const SERVER: &str = r#"
import asyncio, email, email.policy, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

options = json.loads(sys.argv[1])
left = options.get("times", 1000)

def later(answer):
    global left
    if answer and left > 0:
        left -= 1
        return answer

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        answer = later(options.get("refuse", {}).get(address))
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answer = later(options.get("data"))
        if answer:
            return answer
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = [{"type": part.get_content_type(), "name": part.get_filename(),
                  "content": part.get_payload(decode=True).decode()} for part in mail.iter_parts()]
        print(json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or bool(options.get("tls")),
            "user": getattr(session.auth_data, "login", b"").decode(),
            "headers": {name: str(value) for name, value in mail.items()}, "parts": parts}), flush=True)
        return "250 OK"

def authenticator(server, session, envelope, mechanism, data):
    good = data.password.decode() == options.get("password")
    return AuthResult(success=good, handled=False, auth_data=data)

context = None
if options.get("tls") or options.get("starttls"):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options["certificate"], options["key"])

def server():
    more = {}
    if options.get("password"):
        more = {"authenticator": authenticator, "auth_require_tls": not options.get("tls"),
            "auth_exclude_mechanism": ["PLAIN"] if options.get("mechanism") == "LOGIN" else []}
    return SMTP(Handler(), hostname="localhost", loop=loop,
        tls_context=context if options.get("starttls") else None, **more)

async def main():
    at = await loop.create_server(server, "127.0.0.1", 0, ssl=context if options.get("tls") else None)
    print(at.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"#;

/// A server that runs. Ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) port: u16,
    /// Who vouches for it, in PEM, if it has TLS.
    pub(crate) certificate: Option<String>,
    _folder: tempfile::TempDir,
}

fn skip(why: &str) {
    let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word.trim() == "smtp"), "smtp is required: {why}");
    eprintln!("SKIPPED: {why}");
}

fn python() -> Command {
    let mut python = Command::new("python3");
    if let Some(folder) = std::env::var_os("STILLPOINT_AIOSMTPD") {
        python.env("PYTHONPATH", folder);
    }
    python
}

/// Whether there are servers on this machine.
fn has_one() -> bool {
    static HAS_ONE: OnceLock<bool> = OnceLock::new();
    *HAS_ONE.get_or_init(|| {
        let goes = |command: &mut Command| command.output().is_ok_and(|ran| ran.status.success());
        goes(python().args(["-c", "import aiosmtpd"]))
            && goes(Command::new("openssl").arg("version"))
    })
}

/// A certificate of this machine, or of another name, that vouches for itself.
fn certify(name: Option<&str>, certificate: &Path, key: &Path) {
    let name = name.map_or("IP:127.0.0.1".to_owned(), |name| format!("DNS:{name}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=Stillpoint's test", "-addext"]);
    openssl.arg(format!("subjectAltName={name}"));
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let ran = openssl.arg("-keyout").arg(key).arg("-out").arg(certificate).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

impl Server {
    /// Starts one. None if there is none on this machine, which is said.
    pub(crate) fn start(options: &Value) -> Option<Self> {
        if !has_one() {
            skip("Python has no aiosmtpd, or there is no openssl");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] =
            ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        let is_secured = options["tls"] == true || options["starttls"] == true;
        let vouched = is_secured.then(|| {
            certify(options["name"].as_str(), &certificate, &key);
            std::fs::read_to_string(&certificate).unwrap()
        });
        let mut options = options.clone();
        (options["certificate"], options["key"]) = (json!(certificate), json!(key));
        let mut child = python()
            .args(["-c", SERVER, &options.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It tells of every client that goes away.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("it prints its port");
        Some(Self { child, lines, port, certificate: vouched, _folder: folder })
    }

    /// Ends it; what it has taken in.
    pub(crate) fn taken(mut self) -> Vec<Value> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
