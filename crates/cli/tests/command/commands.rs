//! The commands one by one: what they print for scripts, held still by golden files, and what they do.
//! `STILLPOINT_BLESS=1 cargo test -p stillpoint-cli` writes the golden files anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use super::support::{Lab, STILLPOINT, database, files, golden, list, ran, skip, text};

/// Puts stand-ins in the place of what differs from run to run: ids, times, the lab's place.
struct Normal {
    root: String,
    ids: BTreeMap<String, usize>,
}

impl Normal {
    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.value(field)),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> String {
        let text =
            text.replace(&self.root, "<lab>").replace(&self.root.replace('/', "%2f"), "<lab>");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if let Some(length) = shape(rest, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh")
                .or_else(|| shape(rest, &"h".repeat(32)))
            {
                let next = self.ids.len() + 1;
                let id = rest[..length].replace('-', "");
                let number = *self.ids.entry(id).or_insert(next);
                write!(out, "<id {number}>").unwrap();
                rest = &rest[length..];
            } else if let Some(length) = shape(rest, "dddd-dd-ddTdd:dd:dd")
                .map(|length| length + rest[length..].find('Z').unwrap() + 1)
                .or_else(|| shape(rest, "ddddddddTddddddZ"))
            {
                out.push_str("<time>");
                rest = &rest[length..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out
    }
}

/// The length of `pattern` if the text begins so: `h` is a hexadecimal digit, `d` a decimal one.
fn shape(text: &str, pattern: &str) -> Option<usize> {
    let bytes = text.as_bytes().get(..pattern.len())?;
    let fits = bytes.iter().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
        b'h' => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        b'd' => byte.is_ascii_digit(),
        other => *byte == other,
    });
    fits.then_some(pattern.len())
}

#[test]
fn every_document_has_its_form() {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01", "DB02", "DB03"]);
    // A database that needs a log which is gone.
    fs::remove_file(mail.join("DB03/E0200000006.log")).unwrap();
    let mut normal = Normal { root: lab.root().display().to_string(), ids: BTreeMap::new() };
    let mut check = |name: &str, exit: i32, args: &[&str]| {
        let (code, mut shown) = lab.json(args);
        assert_eq!(code, exit, "{name}: {shown:#}");
        normal.value(&mut shown);
        golden(name, &shown);
    };
    check("error", 1, &["topology"]);
    check("discover", 0, &["discover", "mail"]);
    check("protect", 3, &["protect", "mail"]);
    check("policy_list", 0, &["policy", "list"]);
    check("group_list", 0, &["group", "list"]);
    check("backup_dry_run", 0, &["backup", "--database", "DB01", "--dry-run"]);
    let pruned = ["backup", "--database", "DB01", "--prune", "--dry-run"];
    check("backup_dry_run_prune", 0, &pruned);
    check("backup", 0, &["backup", "--database", "DB01"]);
    check("restore_dry_run", 0, &["restore", "latest:DB02", "--to", "back", "--dry-run"]);
    check("restore", 0, &["restore", "latest:DB02", "--to", "back"]);
    check("verify", 0, &["verify", "latest:DB01"]);
    check("jobs", 0, &["jobs"]);
    check("policy_edit", 0, &["policy", "edit", "default", "--keep-count", "1"]);
    check("hold_add", 0, &["hold", "add", "case-7", "latest:DB02", "--reason", "a case"]);
    check("prune_dry_run", 0, &["prune", "--dry-run"]);
    check("prune", 0, &["prune", "--database", "DB01"]);
    check("topology", 0, &["topology"]);
    check("windows", 0, &["windows", "DB01"]);
    check("lint", 3, &["lint"]);
}

#[test]
fn logs_are_backed_up_by_themselves() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let logs = ["policy", "create", "logs", "--kind", "log", "--keep-logs", "3fulls"];
    assert_eq!(lab.run(logs).code, 1, "there is no state");
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (code, shown) = lab.json(logs);
    let policy = &list(&shown, "policies")[0];
    assert_eq!((code, text(policy, "kind"), text(policy, "logs_kept")), (0, "log", "follow_fulls"));
    assert_eq!(policy["promotes_logs"], false);
    let (code, shown) = lab.json(["policy", "edit", "logs", "--promote", "yes"]);
    assert_eq!((code, &list(&shown, "policies")[0]["promotes_logs"]), (0, &true.into()));
    assert_eq!(lab.run(["policy", "edit", "logs", "--keep-logs", "three"]).code, 2);

    let (code, shown) = lab.json(["backup", "--policy", "logs", "--dry-run"]);
    assert_eq!(code, 0, "{shown:#}");
    let (code, shown) = lab.json(["backup", "--policy", "logs"]);
    assert_eq!(code, 0, "{shown:#}");
    let (_, topology) = lab.json(["topology"]);
    let points = list(database(&topology, "DB01"), "points");
    let kinds: Vec<&str> = points.iter().map(|point| text(point, "kind")).collect();
    assert_eq!(kinds, ["log", "copy"], "{topology:#}");
    let id = text(&points[0], "point");
    assert_eq!(lab.run(["verify", id]).code, 0);
    let (code, shown) = lab.json(["restore", id, "--to", "back"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"restore.logs_only".into()), "{shown:#}");
    // The newest point that can be restored is the one with the database.
    assert_eq!(lab.run(["restore", "latest:DB01", "--to", "back"]).code, 0);
}

#[test]
fn windows_and_the_linter_are_asked() {
    let lab = Lab::new();
    for args in [&["windows"][..], &["lint"]] {
        let (code, shown) = lab.json(args);
        assert_eq!((code, &shown["error"]["code"]), (1, &"state.not_found".into()), "{shown:#}");
    }
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (code, shown) = lab.json(["windows"]);
    assert_eq!((code, list(&shown, "databases").len()), (0, 2), "{shown:#}");
    let first = &list(&shown, "databases")[0];
    assert_eq!(list(first, "intervals").len(), 1, "{shown:#}");
    let (code, shown) = lab.json(["windows", "db02"]);
    assert_eq!((code, list(&shown, "databases").len()), (0, 1), "{shown:#}");
    let (code, shown) = lab.json(["windows", "nobody"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"database.unknown".into()), "{shown:#}");
    assert_eq!(lab.run(["windows", "DB01", "DB02"]).code, 2);

    // Nothing runs the policy, until a schedule does; one that runs nothing is worth knowing and no more.
    let (code, shown) = lab.json(["lint"]);
    assert_eq!(
        (code, &shown["findings"][0]["code"]),
        (3, &"strategy.no_schedule".into()),
        "{shown:#}"
    );
    let add = ["schedule", "add", "nightly", "--daily", "02:30", "--group", "default"];
    assert_eq!(lab.run(add).code, 0);
    let (code, shown) = lab.json(["lint"]);
    assert_eq!((code, list(&shown, "findings").len()), (0, 0), "{shown:#}");
    assert_eq!(lab.run(["schedule", "add", "idle", "--daily", "03:30"]).code, 0);
    let (code, shown) = lab.json(["lint", "--log-room", "1k", "--log-rate", "1t"]);
    let unattached = "strategy.schedule_unattached";
    assert_eq!((code, &shown["findings"][0]["code"]), (0, &unattached.into()), "{shown:#}");
    for bad in [&["lint", "--log-room", "much"][..], &["lint", "--log-rate", "-1"], &["lint", "x"]]
    {
        assert_eq!(lab.run(bad).code, 2, "{bad:?}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let before: Vec<_> = files(&lab.path("state.store"));
    let plan = lab.run(["backup", "--dry-run"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.stdout.contains("this will not truncate any log"), "{}", plan.stdout);
    assert_eq!(lab.run(["restore", "latest:DB01", "--to", "back", "--dry-run"]).code, 0);
    assert!(!lab.path("back").exists());
    assert_eq!(files(&lab.path("state.store")), before);
    let (_, jobs) = lab.json(["jobs"]);
    assert_eq!(list(&jobs, "jobs").len(), 1);
}

#[test]
fn policies_and_groups_are_made_edited_and_used() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    let create = ["policy", "create", "nightly", "--source", "mail", "--kind", "full"];
    let (code, shown) = lab.json(create.into_iter().chain(["--keep-count", "14"]));
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["policies"][0]["keep_count"], 14);
    let (code, shown) = lab.json(["policy", "create", "NIGHTLY"]);
    assert_eq!((code, &shown["error"]["class"]), (1, &"conflict".into()), "{shown:#}");
    let (code, shown) = lab.json(["policy", "edit", "nightly", "--keep-count", "0"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"retention.out_of_range".into()));
    let (_, shown) = lab.json(["policy", "edit", "nightly", "--verify", "never"]);
    assert_eq!(shown["policies"][0]["version"], 2);
    let (_, shown) = lab.json(["policy", "edit", "nightly", "--verify", "never"]);
    assert_eq!(shown["policies"][0]["version"], 2, "nothing changed");

    let (code, shown) = lab.json(["group", "create", "none", "--policy", "nightly"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"group.empty".into()), "{shown:#}");
    let group = ["group", "create", "one", "--database", "DB02", "--policy", "nightly"];
    // A backup would not be able to name its snapshots.
    for naming in ["", "{database}", "{host"] {
        let (code, shown) = lab.json(group.into_iter().chain(["--naming", naming]));
        let wanted = (1, &"naming.template_invalid".into());
        assert_eq!((code, &shown["error"]["code"]), wanted, "{shown:#}");
    }
    assert_eq!(lab.json(group).0, 0);
    let told = lab.run(["group", "show", "one"]);
    assert!(told.stdout.contains("  policy nightly "), "{told:?}");
    let (code, shown) = lab.json(["policy", "remove", "nightly"]);
    assert_eq!((code, &shown["error"]["code"]), (1, &"policy.in_use".into()), "{shown:#}");
    assert!(text(&shown["error"], "message").ends_with("group one"), "{shown:#}");
    let (code, shown) = lab.json(["backup", "--group", "one"]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["job"]["policy"]["name"], "nightly");
    let (_, topology) = lab.json(["topology"]);
    assert_eq!(database(&topology, "DB01")["protection"], "not_protected");
    let point = &list(database(&topology, "DB02"), "points")[0];
    assert_eq!((&point["kind"], &point["trust"]), (&"full".into(), &"unverified".into()));
}

#[test]
fn what_came_with_the_state_file_may_be_renamed() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    assert_eq!(lab.run(["group", "edit", "default", "--rename", "everything here"]).code, 0);
    assert_eq!(lab.run(["policy", "edit", "default", "--rename", "nightly"]).code, 0);
    for args in [&["protect", "mail"][..], &["backup"], &["backup", "--database", "DB01"]] {
        let (code, shown) = lab.json(args);
        assert_eq!(code, 0, "{args:?}: {shown:#}");
        let job = shown.get("backup").unwrap_or(&shown["job"]);
        assert_eq!(job["policy"]["name"], "nightly", "{args:?}: {shown:#}");
    }
    let (_, groups) = lab.json(["group", "list"]);
    assert_eq!(list(&groups, "groups").len(), 1, "no other one was made: {groups:#}");
    let (_, policies) = lab.json(["policy", "list"]);
    assert_eq!(list(&policies, "policies").len(), 1, "{policies:#}");
}

/// Once the job is over an interrupt ends the command, also if nobody takes its result from it.
#[test]
fn an_interrupt_outside_a_job_ends_the_command() {
    for signal in ["-INT", "-TERM"] {
        let lab = Lab::new();
        lab.mail(&["DB01"]);
        // A pipe that is full already: the command can never write its result.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        writer.write_all(&vec![b'x'; room]).unwrap();
        let mut child = lab
            .command(["protect", "mail"])
            .stdout(writer.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("backup: succeeded") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).unwrap(), 0, "the backup succeeds");
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal}");
        drop((reader, writer));
        let (_, jobs) = lab.json(["jobs"]);
        assert_eq!(list(&jobs, "jobs")[0]["state"], "succeeded", "{jobs:#}");
    }
}

#[test]
fn the_doctor_looks_and_touches_nothing() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let (code, shown) = lab.json(["doctor", "mail"]);
    assert_eq!(code, 0, "{shown:#}");
    let areas: Vec<&str> = list(&shown, "findings").iter().map(|f| text(f, "area")).collect();
    for area in ["state", "source", "store", "database DB01", "space"] {
        assert!(areas.contains(&area), "{area}: {areas:?}");
    }
    assert_eq!(fs::read_dir(lab.root()).unwrap().count(), 1, "only the folder is there");
    let (code, shown) = lab.json(["doctor", "mail", "--store", "mail/store"]);
    assert_eq!(code, 1, "{shown:#}");
    let (code, shown) = lab.json(["doctor", "missing"]);
    assert_eq!(code, 1, "{shown:#}");
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let ran = lab.run(["doctor"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("is in order"), "{ran:?}");
}

#[test]
fn a_job_is_shown_by_the_beginning_of_its_id() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let (_, shown) = lab.json(["protect", "mail"]);
    let id = text(&shown["backup"], "job").to_owned();
    let (code, shown) = lab.json(["jobs", &id[..8]]);
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!(shown["jobs"][0]["job"], id);
    assert_eq!(list(&shown, "jobs").len(), 1);
}

#[test]
fn standard_output_carries_results_only_and_quiet_is_quiet() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let loud = lab.run(["protect", "mail"]);
    assert!(loud.stderr.contains("backup: "), "{loud:?}");
    assert!(!loud.stdout.contains("backup: running"), "{loud:?}");
    let quiet = lab.run(["backup", "--quiet"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    let logged = lab.run(["backup", "--quiet", "-vv"]);
    assert_eq!(logged.code, 0);
    assert!(logged.stdout.starts_with("backup "), "logs go to standard error: {logged:?}");
}

#[test]
fn a_reader_that_leaves_changes_nothing() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let mut child = lab
        .command(["protect", "mail", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    // Not even standard error needs a reader.
    let mut child =
        lab.command(["backup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (_, jobs) = lab.json(["jobs"]);
    assert_eq!(list(&jobs, "jobs").len(), 2);
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    if !Path::new("/dev/full").exists() {
        skip("nothing", "there is no /dev/full");
        return;
    }
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = ran(Command::new(STILLPOINT)
        .args(["discover", "mail"])
        .current_dir(lab.root())
        .stdout(full));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("[cli.output_failed]"), "{ran:?}");
}

#[test]
fn help_and_version_are_answers() {
    for (args, wanted) in [
        (&["--help"][..], "Exit codes: 0 done"),
        (&["protect", "--help"], "--keep"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let ran = ran(Command::new(STILLPOINT).args(args));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains(wanted), "{ran:?}");
    }
}

/// A command that copies a database of this size, and what it still has to say.
fn preparing(megabytes: u32) -> (Lab, Child, BufReader<ChildStderr>) {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    stillpoint_ese::write::ExchangeSet::new(9)
        .with_name("big")
        .with_base("E09")
        .with_pages(megabytes * 32)
        .write_to(&mail)
        .unwrap();
    let command = &mut lab.command(["protect", "mail"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("backup: prepare") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "the backup begins");
    }
    (lab, child, errors)
}

/// Like the one below, with a blow that nothing can be done about.
#[test]
fn the_doctor_tells_of_a_job_whose_process_was_killed() {
    for megabytes in [64, 256, 1024] {
        let (lab, mut child, _errors) = preparing(megabytes);
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            continue;
        }
        let (code, shown) = lab.json(["doctor"]);
        assert_eq!(code, 3, "{shown:#}");
        let told = |f: &Value| text(f, "message").contains("[job.left_open]");
        assert!(list(&shown, "findings").iter().any(told), "{shown:#}");
        let (_, topology) = lab.json(["topology"]);
        assert_eq!(database(&topology, "DB01")["points"], serde_json::json!([]));
        assert_eq!(lab.run(["backup"]).code, 0, "and it does not stand in the way");
        return;
    }
    panic!("no blow came in time");
}

/// The first interrupt cancels the job, which unwinds. How far the job has come by then is not ours to say: one that was
/// quicker than the interrupt, or past its point of no return, is asked again with more to do.
#[test]
fn an_interrupt_cancels_the_job_and_leaves_nothing() {
    for megabytes in [64, 256, 1024] {
        let (lab, mut child, mut errors) = preparing(megabytes);
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        let code = child.wait().unwrap().code();
        let (_, jobs) = lab.json(["jobs"]);
        let job = &list(&jobs, "jobs")[0];
        let points = || {
            let (_, topology) = lab.json(["topology"]);
            let databases = list(&topology, "databases").to_vec();
            databases.iter().map(|database| list(database, "points").len()).sum::<usize>()
        };
        match (text(job, "state"), code) {
            ("cancelled", Some(1)) => {
                assert!(rest.contains("cancelling"), "{rest}");
                assert_eq!(points(), 0, "{jobs:#}");
                let sets = files(&lab.path("state.store/sets"));
                assert_eq!(sets, Vec::<std::path::PathBuf>::new());
                return;
            }
            // Something did not stop within its grace: what it may have left is named, and no point lies on it.
            ("needs_attention", Some(4)) => {
                let debris = list(job, "runs").iter().map(|run| list(run, "debris").len());
                assert!(debris.sum::<usize>() > 0 && points() == 0, "{jobs:#}");
                return;
            }
            // It was over, or as good as over; an interrupt that came after it ends the command.
            ("succeeded", Some(0 | 1)) | ("succeeded_with_warnings", Some(1 | 3)) => {
                assert_eq!(points(), 2, "{jobs:#}");
            }
            (state, code) => panic!("the job is {state}, exit {code:?}: {rest}"),
        }
    }
    panic!("no interrupt came in time");
}

#[test]
fn what_policies_let_go_is_deleted_and_what_is_held_is_not() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    for _ in 0..2 {
        assert_eq!(lab.run(["backup"]).code, 0);
    }
    let points = |name: &str| {
        let (_, shown) = lab.json(["topology"]);
        let points = list(database(&shown, name), "points").to_vec();
        // Logs may outlive their databases.
        let whole = points.iter().filter(|point| point["state"] != "logs_only");
        whole.map(|point| text(point, "point").to_owned()).collect::<Vec<_>>()
    };
    let before = [points("DB01"), points("DB02")];
    assert_eq!(before.each_ref().map(Vec::len), [3, 3]);
    // The default policy keeps all.
    let (code, shown) = lab.json(["prune"]);
    assert_eq!((code, list(&shown["job"], "runs").len()), (0, 0), "{shown:#}");
    assert_eq!(lab.run(["policy", "edit", "default", "--keep-count", "1"]).code, 0);
    let oldest = &before[0][2];
    let add = ["hold", "add", "case-7", oldest, "--reason", "a case", "--until", "2999-01-01"];
    let (code, shown) = lab.json(add);
    assert_eq!((code, text(&list(&shown, "holds")[0], "by")), (0, "the operator"), "{shown:#}");
    let stored = files(&lab.path("state.store"));
    let (code, shown) = lab.json(["prune", "--dry-run"]);
    assert_eq!((code, &shown["job"]), (0, &Value::Null), "{shown:#}");
    let verdicts = |name: &str| {
        let points = list(database(&shown, name), "points");
        points.iter().map(|point| text(point, "verdict").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verdicts("DB01"), ["keep", "delete", "keep"]);
    assert_eq!(verdicts("DB02"), ["keep", "delete", "delete"]);
    assert_eq!(files(&lab.path("state.store")), stored);
    // One that is named.
    let refused = |point: &str| {
        let (code, shown) = lab.json(["prune", "--point", point]);
        assert_eq!(code, 1, "{shown:#}");
        text(&shown["error"], "code").to_owned()
    };
    assert_eq!(refused(oldest), "prune.held");
    assert_eq!(refused("latest:DB01"), "prune.last_good");
    assert_eq!(lab.run(["prune", "--point", &before[1][1]]).code, 0);
    assert_eq!(points("DB02"), [before[1][0].clone(), before[1][2].clone()]);
    // The rest of one database, then of the other.
    let plain = lab.run(["prune", "--database", "DB02"]);
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(plain.stdout.contains("number 1 of the newest 1 (policy default)"), "{}", plain.stdout);
    assert_eq!((points("DB01").len(), points("DB02").len()), (3, 1));
    assert_eq!(lab.run(["prune", "--policy", "default"]).code, 0);
    assert_eq!(points("DB01"), [before[0][0].clone(), before[0][2].clone()]);
    // Once it is not held, it goes; twice it cannot be taken off.
    assert_eq!(lab.run(["hold", "remove", "case-7"]).code, 0);
    let (code, shown) = lab.json(["hold", "remove", "case-7"]);
    assert_eq!((code, text(&shown["error"], "code")), (1, "hold.unknown"), "{shown:#}");
    assert_eq!(lab.run(["prune"]).code, 0);
    assert_eq!(points("DB01"), [before[0][0].clone()]);
    assert_eq!(lab.run(["verify", "--all"]).code, 0);
    assert_eq!(lab.run(["restore", "latest:DB01", "--to", "back"]).code, 0);
    assert!(lab.path("back").exists());
}
