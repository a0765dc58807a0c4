//! The daemon: a real process that is told to end, killed, and started again.
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use super::support::{Lab, list, text};

/// A daemon that is at work.
struct Daemon {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Daemon {
    fn start(lab: &Lab, notify: Option<&str>) -> Self {
        Self::start_with(lab, notify, &[])
    }

    fn start_with(lab: &Lab, notify: Option<&str>, options: &[&str]) -> Self {
        let mut command = lab.command(["run", "--beat", "1s", "--json"]);
        command.args(options);
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        if let Some(socket) = notify {
            command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "200000");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// Reads its lines up to one that says this.
    fn until(&mut self, wanted: &str) -> String {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it says {wanted:?}");
        }
        line
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Its exit code and its document.
    fn end(self) -> (i32, Value) {
        let output = self.child.wait_with_output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
        (output.status.code().unwrap(), value)
    }
}

/// A place with a schedule that is due each second.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    assert_eq!(lab.run(["policy", "edit", "default", "--verify", "never"]).code, 0);
    let add = ["schedule", "add", "often", "--every", "1s", "--group", "default"];
    let (code, shown) = lab.json(add);
    assert_eq!(code, 0, "{shown:#}");
    lab
}

/// The due time of a line, as the jobs of schedules bear it.
fn due(line: &str) -> String {
    let (_, due) = line.split_once("often, due ").unwrap();
    let (due, _) = due.split_once("Z: ").unwrap();
    format!("schedule often, due {due} UTC")
}

/// How many jobs each due time has.
fn jobs_by_due(lab: &Lab) -> BTreeMap<String, usize> {
    let (_, jobs) = lab.json(["jobs"]);
    let mut by_due = BTreeMap::new();
    for job in list(&jobs, "jobs") {
        let (_, shown) = lab.json(["jobs", text(job, "job")]);
        let told = text(&list(&shown, "jobs")[0], "trigger").to_owned();
        if told.starts_with("schedule") {
            *by_due.entry(told).or_default() += 1;
        }
    }
    by_due
}

#[test]
fn the_daemon_makes_jobs_shares_the_state_and_ends_when_it_is_told_to() {
    let lab = lab();
    let path = lab.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_mins(2))).unwrap();
    let mut daemon = Daemon::start(&lab, Some(path.to_str().unwrap()));
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        while !heard.contains(wanted) {
            let mut bytes = [0; 500];
            let length = socket.recv(&mut bytes).unwrap();
            heard = String::from_utf8(bytes[..length].to_vec()).unwrap();
        }
    };
    hear("READY=1\n");
    hear("WATCHDOG=1\n");
    daemon.until("often, due");
    // Other commands may be used meanwhile.
    let (code, shown) = lab.json(["schedule", "list"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(list(&shown, "schedules")[0]["name"], "often");
    let (code, shown) = lab.json(["backup"]);
    assert_eq!(code, 0, "{shown:#}");
    daemon.signal("-TERM");
    hear("STOPPING=1\n");
    let (code, shown) = daemon.end();
    assert_eq!((code, text(&shown, "schema")), (0, "stillpoint.run/1"), "{shown:#}");
    assert!(shown["began"].as_u64().unwrap() >= 1, "{shown:#}");
    assert!(list(&shown, "open").is_empty(), "{shown:#}");
    let by_due = jobs_by_due(&lab);
    assert!(!by_due.is_empty() && by_due.values().all(|count| *count == 1), "{by_due:#?}");
}

#[test]
fn a_daemon_that_was_killed_is_carried_on_with() {
    let lab = lab();
    // What was begun and not noted is told of again by the next one.
    let mut told = BTreeSet::new();
    for _ in 0..3 {
        let mut daemon = Daemon::start(&lab, None);
        told.insert(due(&daemon.until("often, due")));
        daemon.signal("-KILL");
        daemon.child.wait().unwrap();
    }
    let mut last = Daemon::start(&lab, None);
    told.insert(due(&last.until("often, due")));
    last.signal("-INT");
    let (code, shown) = last.end();
    assert_eq!(code, 0, "{shown:#}");
    let (_, jobs) = lab.json(["jobs"]);
    for job in list(&jobs, "jobs") {
        assert_ne!(job["state"], "running", "{jobs:#}");
        assert_ne!(job["state"], "queued", "{jobs:#}");
    }
    let by_due = jobs_by_due(&lab);
    assert!(by_due.values().all(|count| *count == 1), "{by_due:#?}");
    let missing: Vec<_> = told.iter().filter(|due| !by_due.contains_key(*due)).collect();
    assert!(missing.is_empty(), "{missing:#?} of {by_due:#?}");
}

#[test]
fn the_daemon_tells_what_the_store_has_lost() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (_, shown) = lab.json(["reconcile"]);
    assert_eq!(shown["counts"]["whole"], 1, "{shown:#}");
    let sets = fs::read_dir(lab.path("state.store/sets")).unwrap();
    let set = sets.map(|set| set.unwrap().path()).next().unwrap();
    fs::rename(set, lab.path("aside")).unwrap();
    let options = ["--reconcile-first", "1s"];
    let mut daemon = Daemon::start_with(&lab, None, &options);
    let line = daemon.until("what was found has changed: job ");
    let (_, id) = line.trim().rsplit_once(' ').unwrap();
    // An end would cut it off.
    let mut shown = lab.json(["jobs", id]).1;
    while ["queued", "running"].contains(&text(&list(&shown, "jobs")[0], "state")) {
        shown = lab.json(["jobs", id]).1;
    }
    daemon.signal("-TERM");
    let (code, ended) = daemon.end();
    assert_eq!(code, 0, "{ended:#}");
    let job = &list(&shown, "jobs")[0];
    assert_eq!((text(job, "kind"), text(job, "state")), ("reconcile", "succeeded_with_warnings"));
    assert!(shown.to_string().contains("point.missing"), "{shown:#}");
    for wrong in [
        ["--reconcile-every", "0s"],
        ["--reconcile-every", "often"],
        ["--reconcile-first", "soon"],
        ["--beat", "0s"],
    ] {
        let (code, shown) = lab.json(["run"].into_iter().chain(wrong));
        assert_eq!((code, &shown["error"]["code"]), (2, &"cli.usage".into()), "{shown:#}");
    }
    let wrong = ["run", "--reconcile-every", "never", "--delete-orphans-after", "7d"];
    let (code, shown) = lab.json(wrong);
    assert_eq!((code, &shown["error"]["code"]), (1, &"run.no_reconcile".into()), "{shown:#}");
}

/// What the daemon has in hand has not been left by anybody.
#[test]
fn a_job_of_the_daemon_is_no_job_that_was_left_open() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let hooks = lab.path("state.hooks");
    fs::create_dir(&hooks).unwrap();
    let hook = hooks.join("wait");
    fs::write(&hook, "#!/bin/sh\ntouch ../begun; while [ ! -e ../go ]; do sleep 0.1; done\n")
        .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let document = "format = 1\n[[policies]]\nname = \"default\"\nkind = \"copy\"\n\
        hooks = [{ phase = \"before_quiesce\", program = \"wait\" }]\n";
    fs::write(lab.path("hooks.toml"), document).unwrap();
    assert_eq!(lab.run(["import", "hooks.toml", "--source", "mail"]).code, 0);
    let add = ["schedule", "add", "often", "--every", "1s", "--group", "default"];
    assert_eq!(lab.run(add).code, 0);
    let mut daemon = Daemon::start(&lab, None);
    let line = daemon.until("often, due");
    let (_, job) = line.trim().split_once(": job ").unwrap();
    while !lab.path("begun").exists() {
        std::thread::yield_now();
    }
    let doctor = lab.run(["doctor"]);
    fs::write(lab.path("go"), "").unwrap();
    assert!(!doctor.stdout.contains("[job.left_open]"), "{doctor:?}");
    // The journal of the system has to say how it ended, too.
    let line = daemon.until(job);
    assert!(line.starts_with("backup default: succeeded"), "{line}");
    fs::rename(lab.path("mail"), lab.path("gone")).unwrap();
    let line = daemon.until("error: backup default: failed");
    assert!(line.contains(": job "), "{line}");
    assert!(daemon.until("because: ").trim_end().ends_with(']'));
    daemon.signal("-TERM");
    assert_eq!(daemon.end().0, 0);
}

#[test]
fn schedules_are_made_looked_at_and_removed() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let add = ["schedule", "add", "nightly", "--daily", "02:30", "--zone", "Europe/Berlin"];
    let (code, shown) = lab.json(add.into_iter().chain(["--group", "default", "--jitter", "10m"]));
    assert_eq!(code, 0, "{shown:#}");
    let schedule = &list(&shown, "schedules")[0];
    assert_eq!(text(&list(schedule, "attached")[0], "group_name"), "default");
    let (code, shown) = lab.json(add);
    assert_eq!((code, &shown["error"]["code"]), (1, &"schedule.name_taken".into()), "{shown:#}");
    let (code, shown) = lab.json(["schedule", "add", "never", "--cron", "0 0 30 2 *"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"schedule.never_fires".into()), "{shown:#}");
    let (code, shown) = lab.json(["schedule", "add", "never", "--daily", "1:00", "--zone", "X/Y"]);
    assert_eq!((code, &shown["error"]["code"]), (2, &"cli.usage".into()), "{shown:#}");
    for (wrong, hint) in [("2026", "such as 2027-01-31"), ("tomorrow", "such as 2027-01-31")] {
        let ran = lab.run(["schedule", "add", "never", "--daily", "1:00", "--start", wrong]);
        assert!(ran.code == 2 && ran.stderr.contains(hint), "{ran:?}");
    }
    let (code, shown) = lab.json(["schedule", "add", "when"]);
    assert_eq!((code, &shown["error"]["code"]), (2, &"cli.usage".into()), "{shown:#}");

    let after = ["--after", "2026-03-28", "-n", "2"];
    let (_, shown) = lab.json(["schedule", "preview", "nightly"].into_iter().chain(after));
    let fates: Vec<_> = list(&shown, "firings").iter().map(|firing| text(firing, "fate")).collect();
    assert_eq!(fates, ["planned", "shifted"], "{shown:#}");
    let after = ["--after", "2026-03-28T12:00:00Z", "-n", "2"];
    let (_, shown) = lab.json(["schedule", "preview", "nightly"].into_iter().chain(after));
    let fates: Vec<_> = list(&shown, "firings").iter().map(|firing| text(firing, "fate")).collect();
    assert_eq!(fates, ["shifted", "planned"], "{shown:#}");
    let edit = ["schedule", "edit", "nightly", "--gap", "skip", "--rename", "at night"];
    let (_, shown) = lab.json(edit);
    assert_eq!(list(&shown, "schedules")[0]["version"], 2, "{shown:#}");
    let (_, shown) = lab.json(["schedule", "preview", "at night"].into_iter().chain(after));
    assert_eq!(text(&list(&shown, "firings")[0], "fate"), "gap", "{shown:#}");

    for (args, code) in [
        (["schedule", "remove", "at night"], "schedule.in_use"),
        (["policy", "remove", "default"], "policy.in_use"),
        (["group", "remove", "default"], "group.of_state"),
    ] {
        let (status, shown) = lab.json(args);
        assert_eq!((status, &shown["error"]["code"]), (1, &code.into()), "{shown:#}");
    }
    assert_eq!(lab.run(["schedule", "detach", "at night", "--group", "default"]).code, 0);
    let (_, shown) = lab.json(["schedule", "list"]);
    assert!(list(&list(&shown, "schedules")[0], "attached").is_empty(), "{shown:#}");
    assert_eq!(lab.run(["schedule", "attach", "at night"]).code, 0);
    assert_eq!(lab.run(["schedule", "detach", "at night"]).code, 0);
    let (_, shown) = lab.json(["schedule", "remove", "at night"]);
    assert!(list(&shown, "schedules").is_empty(), "{shown:#}");
    let (code, shown) = lab.json(["schedule", "lapses"]);
    assert_eq!((code, list(&shown, "lapses").len()), (0, 0), "{shown:#}");

    // What was due while nobody was there, and is detached: its reason stays, also when nobody knows its name any more.
    let add = ["schedule", "add", "often", "--every", "1s", "--group", "default"];
    assert_eq!(lab.run(add).code, 0);
    assert!(Command::new("sleep").arg("1.5").status().unwrap().success());
    assert_eq!(lab.run(["schedule", "detach", "often"]).code, 0);
    let (_, shown) = lab.json(["schedule", "lapses", "often"]);
    let lapse = &list(&shown, "lapses")[0];
    assert_eq!((text(lapse, "why"), text(lapse, "schedule_name")), ("detached", "often"));
    assert_eq!(lab.run(["schedule", "remove", "often"]).code, 0);
    let (_, shown) = lab.json(["schedule", "lapses"]);
    let lapse = &list(&shown, "lapses")[0];
    assert_eq!(text(lapse, "why"), "detached", "{shown:#}");
    assert_eq!(text(lapse, "schedule_name"), text(lapse, "schedule"), "{shown:#}");
}
