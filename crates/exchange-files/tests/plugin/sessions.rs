//! What a session sees: freezes of files at rest, limits, leases, tokens.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use stillpoint_context::{Cx, FencingToken, HostId};
use stillpoint_ese::write::ExchangeSet;
use stillpoint_exchange::{
    BackupKind, Cause, Completion, CopyId, DatabaseId, ExchangePlugin, Held, PluginErrorKind,
    QuiesceLevel, Scope, SessionSpec, SessionState, Truncation, Verdict,
};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::inventory::{FileRole, Generation};
use stillpoint_model::quiesce::Consistency;

use super::lab::{LEASE, Lab, code, copy_named, host, names, session_id, set, write_at};
use super::support::block_on;

#[test]
fn a_session_from_begin_to_complete() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let id = session_id(1);
    let caps = lab.plugin.caps();
    assert_eq!((caps.quiesce, caps.freeze_limit), (QuiesceLevel::AtRest, None));
    assert_eq!(lab.state(), SessionState::Unknown);

    let session = lab.begin(vec![copy.id.clone()]);
    let of_session: Vec<_> = session.files.iter().map(|file| file.path.clone()).collect();
    let of_copy: Vec<_> = copy.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(of_session, of_copy);
    assert_eq!(session.files[6].generation, Some(Generation(8)));
    assert_eq!(lab.begin(vec![copy.id.clone()]), session);
    assert_eq!(lab.state(), SessionState::Open);
    assert_eq!(lab.held(&copy.id), Held::Unknown);

    let frozen = block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap();
    assert_eq!((frozen.level, frozen.until), (QuiesceLevel::AtRest, None));
    assert_eq!(block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap(), frozen);
    assert_eq!(lab.state(), SessionState::Frozen { until: None });
    assert_eq!(lab.held(&copy.id), Held::Unknown);
    // Nobody can take the database for himself while it is frozen.
    let database = File::open(lab.path("DB01.edb")).unwrap();
    assert!(database.try_lock().is_err());
    lab.thaw();
    lab.thaw();
    assert!(database.try_lock().is_ok());
    drop(database);

    let outcome = block_on(lab.plugin.evidence(&lab.cx(), id)).unwrap();
    assert_eq!(outcome.grain, EvidenceGrain::PerDatabase);
    assert_eq!(outcome.held(&copy.id), Held::Yes);
    assert_eq!(outcome.consistency(&copy.id), Consistency::AtRest);
    assert_eq!(outcome.copies[&copy.id].log_state, copy.log_state);
    assert!(outcome.frozen_at.is_some() && outcome.thawed_at >= outcome.frozen_at);

    let verdicts = BTreeMap::from([(copy.id.clone(), Verdict::Good)]);
    let completions = block_on(lab.plugin.complete(&lab.cx(), id, &verdicts)).unwrap();
    assert_eq!(completions, BTreeMap::from([(copy.id.clone(), Completion::Completed)]));
    assert_eq!(block_on(lab.plugin.complete(&lab.cx(), id, &verdicts)).unwrap(), completions);
    assert_eq!(lab.state(), SessionState::Completed(completions));
    let now = lab.cx().now();
    let truncation = block_on(lab.plugin.truncation(&lab.cx(), &copy.id, now)).unwrap();
    assert!(matches!(truncation, Truncation::NothingEligible { why } if why.contains("at rest")));
    // Nothing was written anywhere.
    assert_eq!(lab.inventory().copies, inventory.copies);
    let refused = block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap_err();
    assert_eq!(refused.kind(), &PluginErrorKind::SessionGone);
}

/// Who takes the files in the order of the session takes no page before a log that is newer (S9).
#[test]
fn databases_that_share_a_log_stream_all_come_before_its_logs() {
    let lab = Lab::with_set();
    set().with_name("DB02").write_to(lab.plugin.root()).unwrap();
    let inventory = lab.inventory();
    let copies: Vec<_> = ["DB01", "DB02"].map(|name| copy_named(&inventory, name).clone()).into();
    assert_eq!(names(&copies[0])[1..], names(&copies[1])[1..], "one stream for both");
    let session = lab.begin(copies.iter().map(|copy| copy.id.clone()).collect());
    let roles: Vec<_> = session.files.iter().map(|file| file.role).collect();
    assert_eq!(roles[..2], [FileRole::Database; 2]);
    assert!(!roles[2..].contains(&FileRole::Database), "{roles:?}");
    // Those of one copy are still in their order.
    for copy in &copies {
        let of_session = session.files.iter().filter(|file| file.copy == copy.id);
        let of_copy = copy.files.iter();
        assert!(of_session.map(|file| &file.path).eq(of_copy.map(|file| &file.path)));
    }
}

#[test]
fn begin_refuses_what_it_cannot_do() {
    use BackupKind::{Full, Log};
    let lab = Lab::with_set();
    set().with_name("DB02").write_to(&lab.dir("broken")).unwrap();
    fs::remove_file(lab.path("broken/E0000000006.log")).unwrap();
    let inventory = lab.inventory();
    let good = copy_named(&inventory, "DB01").id.clone();
    let broken = copy_named(&inventory, "DB02").id.clone();
    let stray = CopyId::new(good.database, HostId::new("elsewhere").unwrap());
    let unknown = CopyId::new(DatabaseId(uuid::Uuid::from_u128(9)), host());
    let begin = |kind, copies| {
        let spec = SessionSpec::new(session_id(1), kind, copies, LEASE);
        block_on(lab.plugin.begin(&lab.cx(), &spec)).unwrap_err()
    };
    assert_eq!(code(&begin(Log, vec![good.clone()])), "exchange.unsupported");
    assert_eq!(code(&begin(Full, vec![])), "exchange.invalid");
    assert_eq!(code(&begin(Full, vec![stray])), "exchange.invalid");
    assert_eq!(code(&begin(Full, vec![unknown])), "exchange.not_found");
    let refused = begin(Full, vec![good, broken]);
    assert_eq!(code(&refused), "resource.not_available");
    assert!(refused.to_string().contains("00000006"), "{refused}");
    assert_eq!(lab.state(), SessionState::Unknown);
}

/// What happens to a file, and what the evidence must then say.
type Change = (&'static str, fn(&Path), &'static str);

#[test]
fn a_file_that_changes_during_the_freeze_breaks_it_for_its_database_alone() {
    let changes: [Change; 7] = [
        ("DB01.edb", |path| append(path, b"x"), "size"),
        ("DB01.edb", |path| write_at(path, 9 * 4096, b"x"), "time"),
        (
            "E00.log",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                write_at(path, 5 * 4096, b"records");
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
            },
            "log segments",
        ),
        (
            "E0000000003.log",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                write_at(path, 5 * 4096 + 100, b"x");
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
            },
            "identity or change time",
        ),
        ("E0000000006.log", |path| fs::write(path, "").unwrap(), "size"),
        (
            "E00.chk",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                let bytes = fs::read(path).unwrap();
                fs::remove_file(path).unwrap();
                // Until the kernel's next tick the new file has the time of the old one.
                loop {
                    fs::write(path, &bytes).unwrap();
                    if fs::metadata(path).unwrap().modified().unwrap() != before {
                        return;
                    }
                }
            },
            "time",
        ),
        ("E0000000007.log", |path| fs::remove_file(path).unwrap(), "vanished"),
    ];
    for (name, change, what) in changes {
        let lab = Lab::new();
        set().write_to(&lab.dir("one")).unwrap();
        ExchangeSet::new(8)
            .with_name("DB02")
            .with_pages(8)
            .with_log_segments(8)
            .write_to(&lab.dir("two"))
            .unwrap();
        let inventory = lab.inventory();
        let one = copy_named(&inventory, "DB01").id.clone();
        let two = copy_named(&inventory, "DB02").id.clone();
        lab.begin(vec![one.clone(), two.clone()]);
        lab.freeze();
        change(&lab.path("one").join(name));
        lab.thaw();
        assert_eq!(lab.held(&two), Held::Yes, "{name} {what}");
        match lab.held(&one) {
            Held::Broken(Cause::FileChanged { file, what: told }) => {
                assert_eq!(file.file_name(), Some(name));
                assert_eq!(told, what, "{name}");
            }
            Held::Broken(Cause::FileVanished { file }) => {
                assert_eq!((file.file_name(), "vanished"), (Some(name), what));
            }
            other => panic!("{name} {what}: {other:?}"),
        }
        let outcome = block_on(lab.plugin.evidence(&lab.cx(), session_id(1))).unwrap();
        assert_eq!(outcome.consistency(&one), Consistency::Crash);
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn what_changed_since_begin_is_not_frozen() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    write_at(&lab.path("E00.log"), 5 * 4096, b"records");
    let refused = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), None)).unwrap_err();
    assert_eq!(code(&refused), "resource.not_available");
    assert!(refused.to_string().contains("E00.log"), "{refused}");
    assert_eq!(lab.state(), SessionState::Open);
    assert_eq!(lab.held(&copy), Held::Unknown);
}

#[test]
fn what_another_process_holds_is_not_at_rest() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy]);
    let theirs = File::open(lab.path("DB01.edb")).unwrap();
    theirs.lock().unwrap();
    let refused = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), None)).unwrap_err();
    assert_eq!(code(&refused), "resource.not_available");
    theirs.unlock().unwrap();
    // A reader with a shared lock of his own does not disturb.
    theirs.lock_shared().unwrap();
    lab.freeze();
}

#[test]
fn a_freeze_that_completes_after_its_thaw_is_superseded() {
    for abort in [false, true] {
        let lab = Lab::with_set();
        let copy = copy_named(&lab.inventory(), "DB01").id.clone();
        lab.begin(vec![copy]);
        lab.bench.workshop.hold();
        let cx = lab.cx();
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), None));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if abort {
            block_on(lab.plugin.abort(&lab.cx(), session_id(1))).unwrap();
        } else {
            lab.thaw();
        }
        lab.bench.workshop.release();
        let late = block_on(freeze).unwrap_err();
        assert_eq!(late.kind(), &PluginErrorKind::Superseded);
        let expected = if abort { SessionState::Aborted } else { SessionState::Open };
        assert_eq!(lab.state(), expected);
        assert!(File::open(lab.path("DB01.edb")).unwrap().try_lock().is_ok());
    }
}

#[test]
fn a_freeze_whose_caller_went_away_can_be_thawed() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.workshop.hold();
    {
        let cx = lab.cx();
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), None));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    lab.bench.workshop.release();
    assert_eq!(lab.state(), SessionState::Frozen { until: None });
    lab.thaw();
    assert_eq!(lab.state(), SessionState::Open);
    assert!(File::open(lab.path("DB01.edb")).unwrap().try_lock().is_ok());
    assert_eq!(lab.held(&copy), Held::Yes);
}

/// Waits until nobody holds the database: the plug-in's own thread lets it go, with nobody calling.
fn wait_until_thawed(lab: &Lab) {
    let database = File::open(lab.path("DB01.edb")).unwrap();
    while database.try_lock().is_err() {
        std::thread::yield_now();
    }
}

fn is_frozen(lab: &Lab) -> bool {
    File::open(lab.path("DB01.edb")).unwrap().try_lock().is_err()
}

#[test]
fn a_limit_that_was_asked_for_ends_the_freeze() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let limit = Duration::from_secs(20);
    let frozen = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), Some(limit))).unwrap();
    assert_eq!(frozen.until, Some(frozen.at + limit));
    lab.bench.clock.advance(Duration::from_secs(19));
    assert!(matches!(lab.state(), SessionState::Frozen { .. }));
    lab.bench.clock.advance(Duration::from_secs(1));
    wait_until_thawed(&lab);
    assert_eq!(lab.state(), SessionState::Open);
    lab.thaw();
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));

    // A thaw that is faster than the plug-in's own changes nothing about the answer.
    block_on(lab.plugin.freeze(&lab.cx(), session_id(1), Some(limit))).unwrap();
    lab.bench.clock.advance(limit);
    lab.thaw();
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

/// As in a guard: the thread of the enter has a runtime of its own, which ends as soon as `freeze` has returned.
#[test]
fn a_freeze_ends_at_its_limit_though_the_runtime_that_made_it_has_ended() {
    use stillpoint_workflow::{Lanes, ThreadLanes, TokioSeams};
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let embedder = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut seams = TokioSeams::on(embedder.handle().clone());
    seams.clock = Arc::clone(&lab.bench.seams.clock);
    let (plugin, cx) = (lab.plugin.clone(), Cx::detached(&seams));
    let (tell, told) = std::sync::mpsc::channel();
    let lane = ThreadLanes.threads(&["enter".to_owned()]).unwrap().pop().unwrap();
    lane.run(Box::pin(async move {
        tell.send(plugin.freeze(&cx, session_id(1), Some(Duration::from_secs(2))).await).unwrap();
    }));
    told.recv().unwrap().unwrap();
    // The lane has dropped its sender with its task: its runtime is as good as gone.
    assert!(told.recv().is_err());
    lab.bench.clock.advance(Duration::from_millis(1999));
    assert!(is_frozen(&lab));
    lab.bench.clock.advance(Duration::from_millis(1));
    wait_until_thawed(&lab);
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

#[test]
fn a_freeze_whose_caller_went_away_ends_at_its_limit() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.workshop.hold();
    {
        let cx = lab.cx();
        let limit = Some(Duration::from_secs(2));
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), limit));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    lab.bench.workshop.release();
    assert!(is_frozen(&lab));
    lab.bench.clock.advance(Duration::from_secs(2));
    wait_until_thawed(&lab);
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

#[test]
fn a_lease_that_runs_out_ends_the_session() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.clock.advance(Duration::from_mins(9));
    block_on(lab.plugin.renew(&lab.cx(), session_id(1), LEASE)).unwrap();
    lab.freeze();
    lab.bench.clock.advance(LEASE);
    // By itself, with nobody calling.
    wait_until_thawed(&lab);
    assert_eq!(lab.state(), SessionState::Aborted);
    let gone = block_on(lab.plugin.renew(&lab.cx(), session_id(1), LEASE)).unwrap_err();
    assert_eq!(gone.kind(), &PluginErrorKind::SessionGone);
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    let lost = block_on(lab.plugin.complete(&lab.cx(), session_id(1), &verdicts)).unwrap();
    assert_eq!(lost[&copy], Completion::Lost);
    assert!(!lab.held(&copy).is_yes());
}

#[test]
fn a_plugin_that_is_dropped_lets_everything_go() {
    let Lab { folder, plugin, bench } = Lab::with_set();
    let inventory = block_on(plugin.inventory(&bench.cx(), &Scope::Everything)).unwrap();
    let copy = copy_named(&inventory, "DB01").id.clone();
    let spec = SessionSpec::new(session_id(1), BackupKind::Full, vec![copy], LEASE);
    block_on(plugin.begin(&bench.cx(), &spec)).unwrap();
    block_on(plugin.freeze(&bench.cx(), session_id(1), None)).unwrap();
    let database = File::open(folder.path().join("DB01.edb")).unwrap();
    assert!(database.try_lock().is_err());
    drop(plugin);
    // The thread of blocking work may hold the sessions for an instant longer.
    while database.try_lock().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn another_process_knows_nothing_of_a_session() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let restarted = FilesPlugin::new(lab.plugin.root(), host()).unwrap();
    let cx = lab.cx();
    let id = session_id(1);
    assert_eq!(block_on(restarted.session(&cx, id)).unwrap(), SessionState::Unknown);
    block_on(restarted.thaw(&cx, id)).unwrap();
    block_on(restarted.abort(&cx, id)).unwrap();
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    assert_eq!(block_on(restarted.complete(&cx, id, &verdicts)).unwrap()[&copy], Completion::Lost);
    assert!(block_on(restarted.evidence(&cx, id)).is_err());
}

#[test]
fn old_tokens_are_refused() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    let with = |token| Cx::builder(&lab.bench.seams).fence(FencingToken(token)).build();
    let spec = |id| SessionSpec::new(session_id(id), BackupKind::Full, vec![copy.clone()], LEASE);
    block_on(lab.plugin.begin(&with(5), &spec(1))).unwrap();
    let old = block_on(lab.plugin.begin(&with(4), &spec(2))).unwrap_err();
    assert_eq!(old.kind(), &PluginErrorKind::Fenced);
    block_on(lab.plugin.freeze(&with(6), session_id(1), None)).unwrap();
    let old = block_on(lab.plugin.thaw(&with(5), session_id(1))).unwrap_err();
    assert_eq!(code(&old), "lease.fenced");
    assert!(matches!(lab.state(), SessionState::Frozen { .. }));
    block_on(lab.plugin.thaw(&with(7), session_id(1))).unwrap();
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    assert!(block_on(lab.plugin.complete(&with(5), session_id(1), &verdicts)).is_err());
    assert!(block_on(lab.plugin.complete(&with(6), session_id(1), &verdicts)).is_ok());
}
