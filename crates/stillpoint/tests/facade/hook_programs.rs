//! Hooks that are real programs: what they get, what they must not reach, and that they end.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use stillpoint::context::{Cancel, Cx, Failure, JobId};
use stillpoint::model::hook::{Hook, HookEnd, HookPhase, HookStatus};
use stillpoint::model::id::PolicyId;
use stillpoint::model::job::JobKind;
use stillpoint::model::policy::Policy;
use stillpoint::workflow::TokioSeams;
use stillpoint::{HookCall, HookRunner as _, INHERITED, ProgramRunner};
use tempfile::TempDir;
use uuid::Uuid;

/// A folder of hooks beside which something lies that is none.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        fs::create_dir(lab.root()).unwrap();
        lab
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("hooks")
    }

    fn script(&self, name: &str, text: &str) {
        program(&self.root().join(name), &format!("#!/bin/sh\n{text}\n"));
    }

    fn runner(&self) -> ProgramRunner {
        ProgramRunner::new(self.root()).unwrap()
    }

    async fn run(&self, hook: Hook) -> Result<HookEnd, Failure> {
        self.runner().run(&cx().with_timeout(hook.timeout), &call(hook)).await
    }
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn cx() -> Cx {
    Cx::detached(&TokioSeams::current().unwrap())
}

fn call(hook: Hook) -> HookCall {
    let policy = Policy::new(PolicyId(Uuid::from_u128(1)), "default").reference();
    let mut call =
        HookCall::new(hook, JobId(Uuid::from_u128(2)), JobKind::Backup, "mail".into(), policy);
    call.databases = vec!["DB 01".to_owned(), "DB02".to_owned()];
    call
}

fn hook(program: &str) -> Hook {
    Hook::new(HookPhase::Always, program)
}

#[tokio::test]
async fn words_and_variables_arrive_as_they_stand_and_nothing_else_does() {
    let lab = Lab::new();
    lab.script(
        "sub/all",
        r#"printf '<%s>\n' "$@"; echo "in $(pwd)"; env; read -r x || echo no input"#,
    );
    let args = ["", "a b", "$HOME", "`id`", "*", "'\"", "--x;y|z&"];
    let end =
        lab.run(hook("sub/all").with_args(args).with_variable("TOKEN", "s=1\n2")).await.unwrap();
    assert_eq!((&end.status, end.cut), (&HookStatus::Exited(0), 0), "{end:?}");
    let lines: Vec<&str> = end.output.lines().collect();
    let words: Vec<String> = args.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(lines[..args.len()], words);
    let root = lab.root().canonicalize().unwrap();
    assert_eq!(lines[args.len()], format!("in {}", root.display()));
    assert_eq!(*lines.last().unwrap(), "no input");
    for set in [
        "TOKEN=s=1",
        "STILLPOINT_PHASE=always",
        "STILLPOINT_JOB_KIND=backup",
        "STILLPOINT_DATABASES=DB 01",
        "DB02",
        "STILLPOINT_DATABASE_COUNT=2",
        "STILLPOINT_POLICY=default@1",
    ] {
        assert!(lines.contains(&set), "{set} is not in {lines:#?}");
    }
    // Cargo gives tests a crowd of variables; of those none comes through.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let by_shell = ["PWD", "SHLVL", "_", "OLDPWD"];
    let names = lines.iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    for name in names {
        let known = name.starts_with("STILLPOINT_")
            || INHERITED.contains(&name)
            || by_shell.contains(&name)
            || name == "TOKEN"
            || name.starts_with('<');
        assert!(known, "{name} came through");
    }
}

#[tokio::test]
async fn what_lies_outside_the_folder_is_never_run_by_whatever_way() {
    let lab = Lab::new();
    let outside = lab.0.path().join("outside/evil");
    program(&outside, "#!/bin/sh\necho ran > \"$0.ran\"\n");
    lab.script("good", "exit 0");
    symlink(&outside, lab.root().join("link")).unwrap();
    symlink(lab.0.path().join("outside"), lab.root().join("folder")).unwrap();
    symlink("../outside/evil", lab.root().join("relative")).unwrap();
    symlink("good", lab.root().join("inside")).unwrap();
    let absolute = outside.to_str().unwrap();
    let ways =
        ["link", "folder/evil", "relative", "../outside/evil", "..\\outside\\evil", absolute];
    for way in ways {
        let checked = lab.runner().check(&cx(), &hook(way)).await.unwrap_err();
        let ran = lab.run(hook(way)).await.unwrap_err();
        assert_eq!(
            (checked.code, ran.code),
            ("hook.path_escape".into(), "hook.path_escape".into())
        );
    }
    assert!(!outside.with_extension("ran").exists(), "it was run");
    assert!(lab.run(hook("inside")).await.unwrap().is_good());
    // A link that was good when the policy was saved, and leads elsewhere by now.
    lab.runner().check(&cx(), &hook("inside")).await.unwrap();
    fs::remove_file(lab.root().join("inside")).unwrap();
    symlink(&outside, lab.root().join("inside")).unwrap();
    assert_eq!(lab.run(hook("inside")).await.unwrap_err().code, "hook.path_escape");
}

#[tokio::test]
async fn what_is_no_program_is_refused_when_it_is_saved_and_when_it_is_run() {
    let lab = Lab::new();
    fs::write(lab.root().join("plain"), "#!/bin/sh\n").unwrap();
    fs::create_dir(lab.root().join("folder")).unwrap();
    for name in ["absent", "plain", "folder", "plain/x"] {
        let checked = lab.runner().check(&cx(), &hook(name)).await.unwrap_err();
        assert_eq!(checked.code, "hook.program_missing", "{name}");
        assert_eq!(lab.run(hook(name)).await.unwrap_err().code, "hook.program_missing", "{name}");
    }
    program(&lab.root().join("broken"), "#!/no/such/interpreter\n");
    let failure = lab.run(hook("broken")).await.unwrap_err();
    assert_eq!(failure.code, "hook.not_started");
    for root in ["absent", "plain"] {
        let error = ProgramRunner::new(lab.root().join(root)).unwrap_err();
        assert_eq!(error.code, "hook.no_root");
    }
}

#[tokio::test]
async fn how_it_ended_and_the_end_of_what_it_wrote_are_kept() {
    let lab = Lab::new();
    lab.script("seven", "echo out; echo err >&2; exit 7");
    let end = lab.run(hook("seven")).await.unwrap();
    assert_eq!((end.status, end.output.as_str()), (HookStatus::Exited(7), "out\nerr\n"));
    lab.script("killed", "kill -9 $$");
    assert_eq!(lab.run(hook("killed")).await.unwrap().status, HookStatus::Signalled(9));
    lab.script(
        "much",
        "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; printf 'end\\377'",
    );
    let end = lab.run(hook("much")).await.unwrap();
    assert_eq!(end.status, HookStatus::Exited(0));
    assert!(end.output.ends_with("0123456789\nend\u{fffd}"), "{}", end.output.len());
    assert_eq!(end.cut, 20_000 * 11 + 4 - 16 * 1024);
    lab.script("silent", "exec >&- 2>&-; exit 0");
    assert!(lab.run(hook("silent")).await.unwrap().is_good());
    // Somebody else goes on to hold its output: it is not waited for.
    lab.script("leaves", "sleep 1000 & echo $!");
    let end = lab.run(hook("leaves")).await.unwrap();
    assert!(end.is_good());
    let left = end.output.trim();
    assert!(is_alive(left), "what it leaves behind in time stays");
    let _killed = std::process::Command::new("kill").arg(left).status().unwrap();
}

/// Whether a process is there, and no zombie.
fn is_alive(id: &str) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    !status.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_all_that_it_has_started() {
    let lab = Lab::new();
    // The child heeds no request, and the grandchild has no parent any more.
    lab.script(
        "stubborn",
        "trap '' TERM; (sleep 1000 & echo $!) ; sleep 1000 & echo $!; echo $$; wait; sleep 1000",
    );
    for is_cancelled in [false, true] {
        let cancel = Cancel::new();
        let seams = TokioSeams::current().unwrap();
        let cx = Cx::builder(&seams).cancel(cancel.clone()).build();
        let runner = lab.runner();
        let time = Duration::from_millis(if is_cancelled { 3_600_000 } else { 500 });
        let running = call(hook("stubborn").with_timeout(time));
        let cx = cx.with_timeout(time);
        let run = runner.run(&cx, &running);
        let stop = async {
            if is_cancelled {
                seams.clock.sleep_until(seams.clock.mono() + Duration::from_millis(500)).await;
                cancel.cancel();
            }
        };
        let (end, ()) = tokio::join!(run, stop);
        let end = end.unwrap();
        let wanted = if is_cancelled { HookStatus::Cancelled } else { HookStatus::TimedOut };
        assert_eq!(end.status, wanted);
        let all: Vec<&str> = end.output.lines().collect();
        assert_eq!(all.len(), 3, "{end:?}");
        for id in all {
            // They have been killed; that they are dead may take a busy machine a moment, and otherwise they sleep for 1000 s.
            while is_alive(id) {
                seams.clock.sleep_until(seams.clock.mono() + Duration::from_millis(10)).await;
            }
        }
    }
}
