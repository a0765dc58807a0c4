//! What waits for the operator: parked runs, locks and debris, in a state file that a process left which is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use stillpoint::context::Cx;
use stillpoint::exchange::{
    Completion, ExchangePlugin, ForwardPlugin, PluginError, PluginErrorKind, PluginResult,
};
use stillpoint::exchange_files::FilesPlugin;
use stillpoint::model::id::{CopyId, SessionId, VolumeId};
use stillpoint::model::job::JobState;
use stillpoint::model::request::BackupRequest;
use stillpoint::storage_fs::{FsConfig, FsProvider};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::{Stillpoint, Timeouts};

use super::support::{self, Lab, list, text};

/// The plug-in of the command, one of whose calls fails as if it had not been answered in time.
#[derive(Debug)]
struct Failing {
    inner: FilesPlugin,
    call: &'static str,
}

impl Failing {
    fn fails(&self, call: &str) -> PluginResult<()> {
        if self.call == call {
            return Err(PluginError::new(PluginErrorKind::TimedOut, "it does not answer"));
        }
        Ok(())
    }
}

#[async_trait]
impl ForwardPlugin for Failing {
    fn inner(&self) -> &dyn ExchangePlugin {
        &self.inner
    }
    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.fails("thaw")?;
        self.inner.thaw(cx, id).await
    }
    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, stillpoint::model::verdict::Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        self.fails("complete")?;
        self.inner.complete(cx, id, verdicts).await
    }
}

/// A lab whose state file holds a parked backup, by a process that is gone; and the ids of its job and its run.
fn parked(call: &'static str) -> (Lab, String, String) {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (job, run) = runtime.block_on(async {
        let inner = FilesPlugin::new(&mail, "localhost".parse().unwrap()).unwrap();
        let volume = VolumeId::new(mail.to_str().unwrap()).unwrap();
        let store = lab.path("state.store");
        let host = "localhost".parse().unwrap();
        let config = FsConfig::new("fs".parse().unwrap(), host, store);
        let config = config.with_volume(volume, &mail).with_existing_store();
        let mut timeouts = Timeouts::default();
        timeouts.attempts = 1;
        let state = SqliteStore::open_alone(lab.path("state.db")).unwrap();
        let this = Stillpoint::builder(Arc::new(Failing { inner, call }))
            .provider(Arc::new(FsProvider::open(&config).unwrap()))
            .store(Arc::new(state))
            .timeouts(timeouts)
            .build()
            .unwrap();
        let policy = this.policies().await.unwrap().remove(0).id;
        let request = BackupRequest::everything("parked".parse().unwrap(), policy);
        let job = this.backup(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Parked, "{job:#?}");
        (job.id.to_string(), job.runs[0].run.to_string())
    });
    drop(runtime);
    (lab, job, run)
}

/// Runs, wants this exit, and gives the document.
fn shown(lab: &Lab, args: &[&str], exit: i32) -> Value {
    let (code, shown) = lab.json(args);
    assert_eq!(code, exit, "{args:?}: {shown:#}");
    shown
}

/// Runs, and wants to be refused with this code, in JSON and in words.
fn refused(lab: &Lab, args: &[&str], code: &str) {
    let shown = shown(lab, args, 1);
    assert_eq!(shown["error"]["code"], code, "{args:?}: {shown:#}");
    assert!(!text(&shown["error"], "remedy").is_empty(), "{shown:#}");
    let words = lab.run(args);
    assert!(words.code == 1 && words.stderr.contains(&format!("[{code}]")), "{words:?}");
}

const STEPS: [(&str, &str, &str); 2] =
    [("thaw", "freeze", "exit_owed"), ("complete", "complete", "past_no_return")];

#[test]
fn what_is_parked_is_shown_and_nothing_is_changed_by_it() {
    for (call, step, reason) in STEPS {
        let (lab, job, run) = parked(call);
        for _ in 0..2 {
            let all = shown(&lab, &["parked"], 4);
            assert_eq!(all["schema"], "stillpoint.parked/1");
            let [known] = list(&all, "parked") else { panic!("{all:#}") };
            assert_eq!((text(known, "run"), text(known, "job")), (run.as_str(), job.as_str()));
            let [stuck] = list(known, "steps") else { panic!("{all:#}") };
            assert_eq!((text(stuck, "step"), text(stuck, "reason")), (step, reason));
            assert!(!text(stuck, "since").is_empty() && !list(known, "claims").is_empty());

            let locks = shown(&lab, &["locks"], 0);
            assert_eq!(locks["schema"], "stillpoint.locks/1");
            for lock in list(&locks, "locks") {
                assert_eq!((text(lock, "run"), text(lock, "job")), (run.as_str(), job.as_str()));
                assert_eq!(text(lock, "parked"), reason);
                assert!(text(lock, "why").contains("parked"), "{lock:#}");
            }
            let account = shown(&lab, &["jobs", &job[..13]], 0);
            let account = &list(&account, "jobs")[0];
            assert_eq!(account["state"], "parked");
            assert_eq!(list(account, "locks").len(), list(known, "claims").len());
            assert_eq!(list(account, "left_behind").len(), 0);
            let told = &list(account, "runs")[0];
            assert_eq!(text(&list(told, "parked")[0], "step"), step);
            let steps = list(told, "steps");
            let state = |name: &str| {
                let found = steps.iter().find(|known| known["step"] == name);
                text(found.unwrap_or_else(|| panic!("{name}: {told:#}")), "state").to_owned()
            };
            assert_eq!((state("begin").as_str(), state(step).as_str()), ("done", "parked"));
            assert_eq!(list(&shown(&lab, &["debris"], 0), "debris").len(), 0);
        }
        let words = lab.run(["parked"]);
        assert!(words.stdout.contains(&format!("run {run} of job {job}")), "{words:?}");
        assert!(words.stdout.contains(&format!("parked: step {step}: ")), "{words:?}");
        let words = lab.run(["locks"]);
        assert!(words.stdout.contains(&format!("held by run {run} of job {job}")), "{words:?}");
        let words = lab.run(["jobs", &job[..13]]);
        assert!(words.stdout.contains(&format!("steps of run {run}:")), "{words:?}");
        let doctor = lab.run(["doctor"]);
        assert!(doctor.stdout.contains("[run.parked]"), "{doctor:?}");
        assert!(!doctor.stdout.contains("[job.left_open]"), "{doctor:?}");
    }
}

/// That nothing is parked or locked any more, and that backups go well again.
fn check(lab: &Lab) {
    assert_eq!(list(&shown(lab, &["parked"], 0), "parked").len(), 0);
    assert_eq!(list(&shown(lab, &["locks"], 0), "locks").len(), 0);
    assert_eq!(lab.run(["backup"]).code, 0);
}

#[test]
fn a_parked_run_is_resumed() {
    for (call, _, _) in STEPS {
        let (lab, job, run) = parked(call);
        let resumed = lab.json(["parked", "resume", &run[..13]]);
        // The plug-in does not remember the session: what came of it nobody knows, and that is told.
        let state = text(&list(&resumed.1, "jobs")[0], "state").to_owned();
        assert!(matches!(resumed.0, 0 | 1 | 3), "{resumed:#?}");
        assert_ne!(state, "needs_attention");
        assert_eq!(text(&list(&resumed.1, "jobs")[0], "job"), job);
        refused(&lab, &["parked", "resume", &run], "run.not_parked");
        check(&lab);
    }
}

#[test]
fn a_parked_run_is_resolved_by_hand() {
    for (call, step, _) in STEPS {
        let (lab, job, run) = parked(call);
        // It has to be said.
        assert_eq!(lab.run(["parked", "resolve", &run]).code, 2);
        assert_eq!(lab.run(["parked", "resolve", &run, "--done", "--output", "{"]).code, 2);
        let not_it = ["parked", "resolve", &run, "--done", "--output", "\"a word\""];
        refused(&lab, &not_it, "run.resolution_unfit");
        refused(&lab, &["parked", "resolve", &run, "--done", "--step", "nothing"], "run.no_step");
        let begun = ["parked", "resolve", &run, "--done", "--step", "begin"];
        refused(&lab, &begun, "run.not_parked");
        assert_eq!(list(&shown(&lab, &["parked"], 4), "parked").len(), 1);

        let (exit, shown) = lab.json(["parked", "resolve", &job[..13], "--step", step, "--done"]);
        assert!(matches!(exit, 0 | 1 | 3), "{shown:#}");
        let told = &list(&shown, "jobs")[0];
        assert!(list(told, "locks").is_empty() && list(told, "left_behind").is_empty());
        if call == "complete" {
            assert_eq!((exit, text(told, "state")), (3, "succeeded_with_warnings"));
        }
        refused(&lab, &["parked", "resolve", &run, "--done"], "run.not_parked");
        check(&lab);
    }
}

#[test]
fn a_parked_run_is_abandoned_and_what_it_left_is_listed_and_swept() {
    for (call, step, _) in STEPS {
        let (lab, job, run) = parked(call);
        let given_up = shown(&lab, &["parked", "abandon", &run[..13]], 4);
        let told = &list(&given_up, "jobs")[0];
        assert_eq!((text(told, "job"), text(told, "state")), (job.as_str(), "needs_attention"));
        let debris = shown(&lab, &["debris"], 4);
        assert_eq!(debris["schema"], "stillpoint.debris/1");
        let left = list(&debris, "debris");
        assert_eq!(list(told, "left_behind"), left);
        for left in left {
            assert_eq!((text(left, "run"), text(left, "job")), (run.as_str(), job.as_str()));
        }
        let stuck = left.iter().find(|left| left["step"] == step).expect("what was stuck");
        assert_eq!(stuck["possible"], true);
        assert!(lab.run(["debris"]).stdout.contains("left behind: "), "{debris:#}");
        refused(&lab, &["parked", "abandon", &job], "run.not_parked");
        let (_, swept) = lab.json(["debris", "--sweep"]);
        for left in list(&swept, "debris") {
            assert_eq!(left["kind"], "other", "only what a person has to judge is left");
        }
        check(&lab);
    }
}

#[test]
fn ids_and_files_that_are_none() {
    let (lab, job, run) = parked("complete");
    for command in [&["resume"][..], &["abandon"], &["resolve", "--done"]] {
        let args = |id: &'static str| {
            let mut args = vec!["parked", command[0], id];
            args.extend(&command[1..]);
            args
        };
        refused(&lab, &args("zzz"), "run.unknown");
        refused(&lab, &args(""), "run.unknown");
        assert_eq!(lab.run(["parked", command[0]]).code, 2);
    }
    // The job of `protect` has ended.
    let jobs = shown(&lab, &["jobs"], 0);
    let other = list(&jobs, "jobs").iter().map(|known| text(known, "job")).find(|id| *id != job);
    refused(&lab, &["parked", "resume", other.unwrap()], "run.not_parked");
    assert_eq!(lab.run(["parked", "fly"]).code, 2);

    let held = SqliteStore::open_alone(lab.path("state.db")).unwrap();
    // Side by side, as each waits a while for the other process to end.
    let doors = [
        &["parked"][..],
        &["parked", "resume", &run],
        &["parked", "resolve", &run, "--done"],
        &["parked", "abandon", &run],
        &["debris"],
        &["debris", "--sweep"],
        &["locks"],
        &["jobs", &job],
    ];
    std::thread::scope(|scope| {
        for args in doors {
            scope.spawn(|| refused(&lab, args, "state.in_use"));
        }
    });
    drop(held);
    assert_eq!(list(&shown(&lab, &["parked"], 4), "parked").len(), 1, "nothing was changed");

    let empty = Lab::new();
    for args in [&["parked"][..], &["parked", "resume", &run], &["debris"], &["locks"]] {
        refused(&empty, args, "state.not_found");
    }
}

#[test]
fn where_nothing_waits_that_is_said() {
    let lab = Lab::new();
    lab.mail(&["DB01"]);
    assert_eq!(lab.run(["protect", "mail"]).code, 0);
    for (args, said) in [
        (&["parked"][..], "nothing is parked\n"),
        (&["debris"], "nothing was left behind\n"),
        (&["debris", "--sweep"], "nothing was left behind\n"),
        (&["locks"], "nothing is locked\n"),
    ] {
        let words = lab.run(args);
        assert_eq!((words.code, words.stdout.as_str()), (0, said), "{words:?}");
    }
}

/// Data at rest blocks nobody's writes: the state file may lie beside it, on the same volume.
#[test]
fn a_state_file_among_what_is_protected_is_no_matter_at_rest() {
    let lab = Lab::new();
    let mail = lab.mail(&["DB01"]);
    let state = mail.join("state.db");
    let store = lab.path("store");
    let protect = [
        "protect".as_ref(),
        mail.as_os_str(),
        "--state".as_ref(),
        state.as_os_str(),
        "--store".as_ref(),
        store.as_os_str(),
    ];
    let mut command = std::process::Command::new(support::STILLPOINT);
    lab.tame(command.args(protect));
    let ran = support::ran(&mut command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut command = std::process::Command::new(support::STILLPOINT);
    lab.tame(command.arg("doctor").args(&protect[2..4]));
    let ran = support::ran(&mut command);
    assert!(!ran.stdout.contains("state.on_protected_volume"), "{ran:?}");
}
