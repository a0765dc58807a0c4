//! Hooks as an operator has them: in the document of policies, in the dry run, in the account of a job.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::support::{Lab, list, text};

fn script(lab: &Lab, name: &str, body: &str) {
    let file = lab.path("state.hooks").join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Imports a policy `default` with these hooks.
fn import(lab: &Lab, hooks: &str) -> (i32, Value) {
    let document = format!(
        "format = 1\n[[policies]]\nname = \"default\"\nkind = \"copy\"\nhooks = [{hooks}]\n"
    );
    fs::write(lab.path("hooks.toml"), document).unwrap();
    lab.json(["import", "hooks.toml", "--source", "mail"])
}

fn code(shown: &Value) -> &str {
    text(&shown["error"], "code")
}

#[test]
fn the_hooks_of_a_policy_are_planned_run_and_told() {
    let lab = Lab::new();
    lab.mail(&["DB01", "DB02"]);
    script(&lab, "quiet", r#"echo "quiet $1 for $STILLPOINT_DATABASES""#);
    script(
        &lab,
        "tell",
        r#"echo "$STILLPOINT_GOOD of $STILLPOINT_ALL: $STILLPOINT_OUTCOME"; exit 4"#,
    );
    let hooks = r#"
        { phase = "always", program = "tell", on_failure = "warn" },
        { phase = "before_quiesce", program = "quiet", args = ["a b"], env = { TOKEN = "hunter2" } },"#;
    let (exit, shown) = import(&lab, hooks);
    assert_eq!(exit, 0, "{shown:#}");
    let (_, policies) = lab.json(["policy", "list"]);
    let hook = &list(&list(&policies, "policies")[0], "hooks")[1];
    assert_eq!((text(hook, "program"), &hook["needed"]), ("quiet", &Value::Bool(true)));
    assert!(!policies.to_string().contains("hunter2"), "{policies:#}");

    let (_, dry) = lab.json(["backup", "--dry-run"]);
    let planned: Vec<&str> =
        list(&dry["plan"], "hooks").iter().map(|hook| text(hook, "phase")).collect();
    assert_eq!(planned, ["before_quiesce", "always"]);
    let dry = lab.run(["backup", "--dry-run"]);
    assert!(dry.stdout.contains("hook before quiesce: quiet"), "{dry:?}");

    let (exit, shown) = lab.json(["backup"]);
    assert_eq!(exit, 3, "{shown:#}");
    let job = text(&shown["job"], "job");
    let (_, account) = lab.json(["jobs", job]);
    let runs = list(&list(&account, "jobs")[0], "runs");
    let steps = runs.iter().flat_map(|run| list(run, "steps"));
    let ends: Vec<(&str, &Value)> = steps
        .filter(|step| !step["hook"].is_null())
        .map(|step| (text(step, "step"), &step["hook"]))
        .collect();
    assert_eq!(ends.len(), 2, "{account:#}");
    assert_eq!(ends[0].0, "hook:before_quiesce:1");
    assert_eq!(text(ends[0].1, "output"), "quiet a b for DB01\nDB02\n");
    assert_eq!((ends[1].0, &ends[1].1["number"]), ("hook:always:1", &Value::from(4)));
    assert_eq!(text(ends[1].1, "output"), "2 of 2: succeeded\n");
    let told = lab.run(["jobs", job]);
    assert!(told.stdout.contains("  | 2 of 2: succeeded"), "{told:?}");
    assert!(told.stdout.contains("hook.failed"), "{told:?}");
}

#[test]
fn a_hook_that_has_to_succeed_stops_the_backup() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    script(&lab, "no", "echo not today >&2; exit 1");
    let (exit, _) = import(&lab, r#"{ phase = "before_job", program = "no" }"#);
    assert_eq!(exit, 0);
    let (exit, shown) = lab.json(["backup"]);
    assert_eq!(exit, 1, "{shown:#}");
    assert_eq!(code(&shown), "hook.failed");
    let why = &list(&shown["error"], "causes")[0];
    assert_eq!(why, "it wrote: not today");
    let (_, topology) = lab.json(["topology"]);
    assert!(!topology.to_string().contains("\"point\""), "{topology:#}");
}

#[test]
fn what_cannot_be_a_hook_is_refused_when_it_is_imported() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    script(&lab, "ok", "exit 0");
    std::os::unix::fs::symlink("/bin/sh", lab.path("state.hooks/sh")).unwrap();
    for (hook, wanted) in [
        (r#"{ phase = "after_freeze", program = "ok" }"#, "hook.phase_forbidden"),
        (r#"{ phase = "always", program = "/bin/sh" }"#, "hook.path_escape"),
        (r#"{ phase = "always", program = "../x" }"#, "hook.path_escape"),
        (r#"{ phase = "always", program = "C:\\x" }"#, "hook.path_escape"),
        (r#"{ phase = "always", program = "\\\\server\\x" }"#, "hook.path_escape"),
        (r#"{ phase = "always", program = "sh" }"#, "hook.path_escape"),
        (r#"{ phase = "always", program = "absent" }"#, "hook.program_missing"),
        (r#"{ phase = "always", program = "ok", timeout_ms = 0 }"#, "hook.invalid"),
        (r#"{ phase = "always", program = "ok", env = { STILLPOINT_JOB = "x" } }"#, "hook.invalid"),
    ] {
        let (exit, shown) = import(&lab, hook);
        assert_eq!((exit, code(&shown)), (1, wanted), "{hook}: {shown:#}");
        let (exit, shown) = lab.json(["import", "hooks.toml", "--dry-run"]);
        assert_eq!((exit, code(&shown)), (1, wanted), "dry: {hook}: {shown:#}");
    }
    // What is refused in the end changes nothing in the beginning.
    let document = "format = 1\n[[policies]]\nname = \"first\"\n[[policies]]\nname = \"second\"\n\
        hooks = [{ phase = \"always\", program = \"absent\" }]\n";
    fs::write(lab.path("both.toml"), document).unwrap();
    let (exit, shown) = lab.json(["import", "both.toml"]);
    assert_eq!((exit, code(&shown)), (1, "hook.program_missing"), "{shown:#}");
    let (_, policies) = lab.json(["policy", "list"]);
    let names: Vec<&str> =
        list(&policies, "policies").iter().map(|policy| text(policy, "name")).collect();
    assert_eq!(names, ["default"]);
}

#[test]
fn an_import_that_is_refused_for_a_hook_has_changed_nothing_and_its_dry_run_says_so() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let (_, before) = lab.json(["policy", "list"]);
    let document = "format = 1\n[[policies]]\nname = \"default\"\nretention.count = 1\n\
                    [[policies]]\nname = \"second\"\n\
                    hooks = [{ phase = \"always\", program = \"nowhere\" }]\n";
    fs::write(lab.path("two.toml"), document).unwrap();
    for args in [&["import", "two.toml", "--dry-run"][..], &["import", "two.toml"]] {
        let (exit, shown) = lab.json(args);
        assert_eq!((exit, code(&shown)), (1, "hook.no_runner"), "{shown:#}");
        assert_eq!(lab.json(["policy", "list"]).1, before, "{args:?}");
    }
}

#[test]
fn the_folder_of_hooks_is_remembered_and_one_that_is_gone_stops_only_hooks() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    let (exit, shown) = import(&lab, r#"{ phase = "always", program = "ok" }"#);
    assert_eq!((exit, code(&shown)), (1, "hook.no_runner"), "{shown:#}");
    fs::create_dir(lab.path("elsewhere")).unwrap();
    script(&lab, "ok", "echo it runs");
    fs::rename(lab.path("state.hooks/ok"), lab.path("elsewhere/ok")).unwrap();
    let ran = lab.run(["import", "hooks.toml", "--hooks", "elsewhere"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lab.run(["backup"]).code, 0);
    fs::rename(lab.path("elsewhere"), lab.path("moved")).unwrap();
    assert_eq!(lab.run(["topology"]).code, 0);
    let (exit, shown) = lab.json(["backup"]);
    assert_eq!(exit, 3, "{shown:#}");
    assert!(shown.to_string().contains("hook.no_runner"), "{shown:#}");
    let (exit, shown) = lab.json(["backup", "--hooks", "elsewhere"]);
    assert_eq!((exit, code(&shown)), (1, "hook.no_root"), "{shown:#}");
}
