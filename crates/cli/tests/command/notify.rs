//! Who is told what became of jobs: a file beside the state file, and a web service on this machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::support::{self, Lab, list, text};

/// A web service that takes one request.
struct Service(TcpListener);

impl Service {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The file that has it told.
    fn told(&self, lab: &Lab, on: &str) {
        fs::write(lab.path("token"), "s3cr3t\n").unwrap();
        let url = format!("http://{}/p4th", self.0.local_addr().unwrap());
        let entry = format!("{on}\nwebhook = {{ url = \"{url}\", token_file = \"token\" }}");
        let file = format!("format = 1\n[[notify]]\n{entry}\n[[notify]]\nlog = {{}}\n");
        fs::write(lab.path("state.notify.toml"), file).unwrap();
    }

    /// Whether somebody asks, looked at for a moment.
    fn is_asked(&self) -> bool {
        let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&moment)).unwrap() > 0
    }

    /// Runs a command, takes the one request that it makes, and gives both.
    fn while_running(&self, command: &mut Command) -> (support::Ran, Value, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that ends and has told nobody is not waited for.
        while !self.is_asked() {
            let is_over = child.try_wait().unwrap().is_some();
            assert!(!is_over || self.is_asked(), "it told nobody");
        }
        let (stream, _) = self.0.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some((_, value)) = line.to_lowercase().split_once("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        reader.into_inner().write_all(answer).unwrap();
        let output = child.wait_with_output().unwrap();
        let ran = support::Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        (ran, serde_json::from_slice(&body).unwrap(), head)
    }
}

/// Serves one connection as a mail server does, and gives what it was told.
fn mail_server(listener: &TcpListener) -> String {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let (mut told, mut is_mail) = (String::new(), false);
    reader.get_mut().write_all(b"220 here\r\n").unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "QUIT\r\n" {
            return told;
        }
        told.push_str(&line);
        let answer = match (line.trim_end(), is_mail) {
            (".", true) => "250 taken",
            (_, true) => continue,
            ("DATA", _) => "354 go on",
            (line, _) if line.starts_with("EHLO") => "250-here\r\n250 AUTH PLAIN",
            (line, _) if line.starts_with("AUTH") => "235 welcome",
            _ => "250 well",
        };
        is_mail = line == "DATA\r\n";
        reader.get_mut().write_all(format!("{answer}\r\n").as_bytes()).unwrap();
    }
}

#[test]
fn people_are_told_by_mail() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(lab.path("password"), "s3cr3t\n").unwrap();
    let file = format!(
        "format = 1\n[[notify]]\non = [\"succeeded\"]\n[notify.smtp]\nserver = \"127.0.0.1\"\nport = {port}\n\
         security = \"plain\"\nuser = \"me\"\npassword_file = \"password\"\n\
         from = \"Stillpoint <backup@example.com>\"\nto = [\"ops@example.com\"]\n"
    );
    fs::write(lab.path("state.notify.toml"), file).unwrap();
    let (ran, told) = std::thread::scope(|scope| {
        let server = scope.spawn(|| mail_server(&listener));
        let ran = lab.run(["notify", "test"]);
        // If nobody has called it, it has something to end for.
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
        (ran, server.join().unwrap())
    });
    assert_eq!((ran.code, ran.stdout.trim()), (0, "smtp: sent"), "{ran:?}");
    assert!(!format!("{ran:?}").contains("s3cr3t"), "{ran:?}");
    assert!(told.contains("AUTH PLAIN AG1lAHMzY3IzdA==\r\n"), "{told}");
    assert!(told.contains("RCPT TO:<ops@example.com>\r\n"), "{told}");
    assert!(told.contains("Subject: TEST: backup of nothing"), "{told}");
    assert!(told.contains("\"schema\": \"stillpoint.job-report/1\""), "{told}");
}

/// Scenario 52, as the operator sees it: exit code and notification.
#[test]
fn s52_partial_group_is_told_as_four_of_five() {
    let lab = Lab::new();
    let names = ["DB01", "DB02", "DB03", "DB04", "DB05"];
    let mail = lab.mail(&names);
    // More than the checksum of a page can mend.
    let database = mail.join("DB03/DB03.edb");
    let mut bytes = fs::read(&database).unwrap();
    bytes[6 * 32_768 + 1_000..][..500].fill(0x5a);
    fs::write(&database, bytes).unwrap();
    let service = Service::new();
    service.told(&lab, "");
    let mut command = lab.command(["backup", "--source", "mail", "--prune", "--json"]);
    let (ran, told, head) = service.while_running(&mut command);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(head.to_lowercase().contains("authorization: bearer s3cr3t"), "{head}");
    assert_eq!(told["outcome"], "warnings", "{told:#}");
    assert_eq!(text(&told, "subject"), "backup default: succeeded with warnings, 4 of 5 databases");
    assert_eq!((&told["report"]["good"], &told["report"]["all"]), (&4.into(), &5.into()));
    let bad: Vec<&Value> =
        list(&told["report"], "databases").iter().filter(|one| one["good"] == false).collect();
    assert_eq!((bad.len(), text(bad[0], "name")), (1, "DB03"));
    let shown = ran.json();
    assert_eq!(told["report"]["job"], shown["job"]["job"]);
    assert!(shown.to_string().contains("prune.not_done"), "{shown:#}");
    let text = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!text.contains("s3cr3t") && !text.contains("p4th"), "{text}");
}

#[test]
fn a_test_says_who_was_told_and_who_was_not() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (exit, shown) = lab.json(["notify", "test"]);
    assert_eq!((exit, list(&shown, "notifiers").len()), (1, 0), "{shown:#}");
    assert_eq!(text(&shown["error"], "code"), "notify.nobody", "{shown:#}");
    let service = Service::new();
    service.told(&lab, "on = []");
    let (ran, told, _) = service.while_running(&mut lab.command(["notify", "test", "--json"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(told["test"], true);
    assert!(text(&told, "subject").starts_with("TEST: "), "{told:#}");
    assert_eq!(list(&ran.json(), "notifiers").len(), 2);
    // Nobody listens any more: the log is told all the same.
    drop(service);
    let (exit, shown) = lab.json(["notify", "test"]);
    assert_eq!(exit, 3, "{shown:#}");
    assert_eq!(list(&shown, "notifiers")[0]["failure"]["code"], "webhook.failed");
    // A backup is none the worse for it, but for a warning.
    let file = lab.path("state.notify.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("on = []", "on = [\"succeeded\"]"))
        .unwrap();
    let (exit, shown) = lab.json(["backup"]);
    assert_eq!(exit, 3, "{shown:#}");
    let warnings = list(&shown["job"], "warnings");
    assert_eq!((warnings.len(), text(&warnings[0], "code")), (1, "notify.failed"), "{shown:#}");
}

/// Who has tried a file is told from then on, without naming it again.
#[test]
fn a_file_that_was_tried_is_remembered() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    fs::write(lab.path("elsewhere.toml"), "format = 1\n[[notify]]\nlog = {}\n").unwrap();
    assert_eq!(lab.run(["notify", "test", "--notify", "elsewhere.toml"]).code, 0);
    let (exit, shown) = lab.json(["notify", "test"]);
    assert_eq!((exit, list(&shown, "notifiers").len()), (0, 1), "{shown:#}");
}

#[test]
fn a_file_that_cannot_be_used_is_told_of_and_keeps_nobody_from_a_backup() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let file = lab.path("state.notify.toml");
    for (content, wanted) in [
        ("", "notify.invalid"),
        ("format = 2", "notify.invalid"),
        ("format = 1\nnotfy = []", "notify.invalid"),
        ("format = 1\n[[notify]]", "notify.invalid"),
        ("format = 1\n[[notify]]\nlog = {}\nwebhook.url = \"https://x/\"", "notify.invalid"),
        ("format = 1\n[[notify]]\non = [\"sometimes\"]\nlog = {}", "notify.invalid"),
        ("format = 1\n[[notify]]\nwebhook.url = \"http://example.com/s3cr3t\"", "webhook.invalid"),
        ("format = 1\n[[notify]]\nwebhook.url = \"s3cr3t", "notify.invalid"),
        ("format = 1\n[[notify]]\nsmtp.server = \"x\"", "notify.invalid"),
        (
            "format = 1\n[[notify]]\nsmtp = { server = \"x\", from = \"a@x\", to = [\"b@x\"], security = \"none\" }",
            "notify.invalid",
        ),
        (
            "format = 1\n[[notify]]\nsmtp = { server = \"x\", from = \"a@x\", to = [\"b@x\"], user = \"me\" }",
            "notify.invalid",
        ),
        (
            "format = 1\n[[notify]]\nsmtp = { server = \"x\", from = \"a@x\", to = [] }",
            "smtp.invalid",
        ),
        (
            "format = 1\n[[notify]]\nsmtp = { server = \"x\", from = \"a@x\", to = [\"b@x\"], roots_file = \"absent\" }",
            "notify.unreadable",
        ),
        (
            "format = 1\n[[notify]]\nwebhook = { url = \"https://x/\", token_file = \"absent\" }",
            "notify.unreadable",
        ),
    ] {
        fs::write(&file, content).unwrap();
        let ran = lab.run(["topology"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains(wanted), "{content}: {ran:?}");
        assert!(!ran.stderr.contains("s3cr3t"), "{ran:?}");
        let (exit, shown) = lab.json(["notify", "test"]);
        assert_eq!((exit, text(&shown["error"], "code")), (1, wanted), "{content}: {shown:#}");
        // One that is named has to be good.
        let (exit, shown) = lab.json(["backup", "--notify", "state.notify.toml"]);
        assert_eq!((exit, text(&shown["error"], "code")), (1, wanted), "{content}: {shown:#}");
    }
    let (exit, shown) = lab.json(["backup", "--notify", "absent.toml"]);
    assert_eq!((exit, text(&shown["error"], "code")), (1, "notify.unreadable"), "{shown:#}");
}
