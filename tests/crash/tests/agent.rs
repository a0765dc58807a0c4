//! What the agent serves keeps the contract of a plug-in, and its client tells the truth about calls that fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use stillpoint_context::{Cancel, Cx, Effect, ErrorFacts as _, FencingToken};
use stillpoint_crash::check::{
    completions_are_of_freezes_that_held, every_freeze_ends, nothing_is_written_while_frozen,
    tokens_never_go_back,
};
use stillpoint_crash::client::{AgentPlugin, ask};
use stillpoint_crash::ledger::{self, EndedBy, Ledger, Line, What};
use stillpoint_crash::mail::{Mail, beats_below};
use stillpoint_crash::server::serve_here;
use stillpoint_crash::simulated::{Setup, SimulatedExchange};
use stillpoint_crash::wire::{Ask, LONGEST};
use stillpoint_exchange::{
    BackupKind, Cause, Completion, CopyId, ExchangePlugin as _, Held, PluginErrorKind,
    PluginResult, Scope, SessionId, SessionSpec, SessionState, Truncation, Verdict,
};
use stillpoint_model::quiesce::QuiesceLevel;
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;
use uuid::Uuid;

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_millis(100);

/// An agent in this process, which thaws after an hour, and its client.
struct Bench {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    server: SimulatedExchange,
    plugin: AgentPlugin,
    copies: Vec<CopyId>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mail = folder.path().join("mail");
        Mail::make(&mail, 2).unwrap();
        let runtime = runtime();
        let cx = cx(&runtime);
        let setup = Setup {
            host: "ex1".parse().unwrap(),
            freeze_limit: HOUR,
            rest: Duration::from_millis(1),
        };
        let log = Ledger::open(&folder.path().join("agent.log")).unwrap();
        let server = SimulatedExchange::open(&mail, setup, log).unwrap();
        let socket = folder.path().join("agent.sock");
        serve_here(&socket, server.clone(), cx.clone(), runtime.handle().clone()).unwrap();
        let plugin = AgentPlugin::connect(&socket, &cx).unwrap();
        let inventory = runtime.block_on(plugin.inventory(&cx, &Scope::Everything)).unwrap();
        let copies = inventory.copies.keys().cloned().collect();
        Self { folder, runtime, server, plugin, copies }
    }

    /// A context under this token.
    fn at(&self, fence: u64) -> Cx {
        Cx::builder(cx(&self.runtime).seams()).fence(FencingToken(fence)).build()
    }

    fn begin(&self, number: u128, fence: u64, lease: Duration) -> PluginResult<SessionId> {
        let id = SessionId(Uuid::from_u128(number));
        let copy = self.copies[usize::try_from(number).unwrap() % 2].clone();
        let spec = SessionSpec::new(id, BackupKind::Full, vec![copy], lease);
        let session = self.runtime.block_on(self.plugin.begin(&self.at(fence), &spec))?;
        assert_eq!(session.id, id);
        Ok(id)
    }

    fn freeze(&self, id: SessionId, fence: u64, limit: Option<Duration>) -> PluginResult<()> {
        let frozen = self.runtime.block_on(self.plugin.freeze(&self.at(fence), id, limit))?;
        assert_eq!(frozen.level, QuiesceLevel::App);
        assert!(frozen.until.is_some());
        Ok(())
    }

    fn thaw(&self, id: SessionId, fence: u64) -> PluginResult<()> {
        self.runtime.block_on(self.plugin.thaw(&self.at(fence), id))
    }

    fn state(&self, id: SessionId) -> SessionState {
        self.runtime.block_on(self.plugin.session(&self.at(0), id)).unwrap()
    }

    fn held(&self, id: SessionId) -> Held {
        let outcome = self.runtime.block_on(self.plugin.evidence(&self.at(0), id)).unwrap();
        let mut held = outcome.copies.values().map(|evidence| evidence.held.clone());
        held.next().unwrap()
    }

    fn complete(&self, id: SessionId, fence: u64) -> PluginResult<Vec<Completion>> {
        let verdicts: BTreeMap<_, _> =
            self.copies.iter().map(|copy| (copy.clone(), Verdict::Good)).collect();
        let answers =
            self.runtime.block_on(self.plugin.complete(&self.at(fence), id, &verdicts))?;
        Ok(answers.into_values().collect())
    }

    fn abort(&self, id: SessionId, fence: u64) -> PluginResult<()> {
        self.runtime.block_on(self.plugin.abort(&self.at(fence), id))
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn await_thaw(&self) {
        ask(&self.socket(), &self.at(0), &Ask::AwaitThaw).unwrap();
    }

    fn lines(&self) -> Vec<Line> {
        ledger::read(&self.folder.path().join("agent.log")).unwrap()
    }

    /// What the agent did keeps the rules, whatever was asked.
    fn end(self) -> Vec<Line> {
        self.server.stop();
        let lines = self.lines();
        let until = ledger::now();
        assert_eq!(every_freeze_ends(&lines, until, HOUR), []);
        assert_eq!(nothing_is_written_while_frozen(&lines), []);
        assert_eq!(tokens_never_go_back(&lines), []);
        assert_eq!(completions_are_of_freezes_that_held(&lines), []);
        lines
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

fn cx(runtime: &tokio::runtime::Runtime) -> Cx {
    Cx::detached(&TokioSeams::on(runtime.handle().clone()))
}

fn refused<T: std::fmt::Debug>(answer: PluginResult<T>, kind: &PluginErrorKind) {
    let error = answer.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (kind, Effect::None), "{error}");
}

#[test]
fn what_it_can_do_and_what_there_is_comes_over_the_socket() {
    let bench = Bench::new();
    let caps = bench.plugin.caps();
    assert_eq!(caps, bench.server.caps());
    assert_eq!((caps.freeze_limit, caps.fencing), (Some(HOUR), true));
    assert_eq!(bench.copies.len(), 2);
    let cx = bench.at(0);
    let nothing = Scope::Databases([].into());
    let inventory = bench.runtime.block_on(bench.plugin.inventory(&cx, &nothing)).unwrap();
    assert!(inventory.copies.is_empty());
    bench.end();
}

#[test]
fn a_session_is_frozen_thawed_completed_and_truncated() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    assert_eq!((bench.state(id), bench.held(id)), (SessionState::Open, Held::Unknown));
    bench.freeze(id, 3, None).unwrap();
    bench.freeze(id, 3, None).unwrap();
    assert!(matches!(bench.state(id), SessionState::Frozen { until: Some(_) }));
    assert_eq!(bench.held(id), Held::Unknown);
    refused(bench.complete(id, 3), &PluginErrorKind::Invalid);
    bench.thaw(id, 3).unwrap();
    bench.thaw(id, 3).unwrap();
    assert_eq!((bench.state(id), bench.held(id)), (SessionState::Open, Held::Yes));
    assert_eq!(bench.complete(id, 3).unwrap(), [Completion::Completed]);
    assert_eq!(bench.complete(id, 3).unwrap(), [Completion::Completed]);
    assert!(matches!(bench.state(id), SessionState::Completed(_)));

    // The writer removes the logs when it comes to it; here it comes to it at once.
    bench.server.write_once(&bench.at(0));
    let since = bench.at(0).now();
    let truncation = |number: usize| {
        let copy = &bench.copies[number];
        bench.runtime.block_on(bench.plugin.truncation(&bench.at(0), copy, since)).unwrap()
    };
    assert!(matches!(truncation(1), Truncation::Confirmed { .. }), "{:?}", truncation(1));
    assert!(matches!(truncation(0), Truncation::NothingEligible { .. }));
    let lines = bench.end();
    let frozen = lines.iter().filter(|line| matches!(line.what, What::Frozen { .. })).count();
    assert_eq!(frozen, 1, "a repeated freeze is the same");
}

#[test]
fn a_freeze_ends_by_itself_and_is_over_for_good() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    // On a busy machine the limit may pass before the freeze is answered; it is over then, too.
    match bench.freeze(id, 3, Some(SOON)) {
        Ok(()) => {
            bench.await_thaw();
            assert_eq!(bench.held(id), Held::Broken(Cause::LimitPassed));
        }
        Err(error) => assert_eq!(*error.kind(), PluginErrorKind::Superseded),
    }
    assert_eq!(bench.state(id), SessionState::Open);
    refused(bench.freeze(id, 3, None), &PluginErrorKind::Superseded);
    bench.thaw(id, 3).unwrap();
    bench.abort(id, 3).unwrap();
    let lines = bench.end();
    assert!(!lines.iter().any(|line| matches!(line.what, What::Thawed { by: EndedBy::Thaw, .. })));
}

#[test]
fn nothing_is_written_while_it_is_frozen_and_all_places_agree() {
    let bench = Bench::new();
    let mail = bench.folder.path().join("mail");
    let id = bench.begin(1, 3, HOUR).unwrap();
    bench.freeze(id, 3, None).unwrap();
    let frozen = beats_below(&mail).unwrap();
    assert_eq!(frozen.len(), 1);
    // The writer does not come to it by itself, and not when it is told to either.
    for _ in 0..100 {
        bench.server.write_once(&bench.at(0));
    }
    assert_eq!(beats_below(&mail).unwrap(), frozen);
    bench.thaw(id, 3).unwrap();
    bench.server.write_once(&bench.at(0));
    bench.server.stop();
    assert!(beats_below(&mail).unwrap() > frozen);
    bench.end();
}

#[test]
fn a_freeze_that_comes_after_its_thaw_is_superseded() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    bench.thaw(id, 3).unwrap();
    refused(bench.freeze(id, 3, None), &PluginErrorKind::Superseded);
    bench.thaw(SessionId(Uuid::from_u128(99)), 3).unwrap();
    bench.end();
}

#[test]
fn a_thaw_is_of_its_own_session_alone() {
    let bench = Bench::new();
    let (one, two) = (bench.begin(1, 3, HOUR).unwrap(), bench.begin(2, 4, HOUR).unwrap());
    bench.freeze(one, 3, None).unwrap();
    refused(bench.freeze(two, 4, None), &PluginErrorKind::BusyOtherRequester);
    bench.thaw(two, 4).unwrap();
    bench.abort(two, 4).unwrap();
    assert!(matches!(bench.state(one), SessionState::Frozen { .. }));
    bench.thaw(one, 3).unwrap();
    assert_eq!(bench.held(one), Held::Yes);
    bench.end();
}

#[test]
fn an_old_token_is_refused_by_every_call_that_changes_something() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    // The run was taken over: its successor begins the same session again, under a newer token.
    bench.begin(1, 5, HOUR).unwrap();
    refused(bench.begin(1, 3, HOUR), &PluginErrorKind::Fenced);
    refused(bench.freeze(id, 3, None), &PluginErrorKind::Fenced);
    bench.freeze(id, 5, None).unwrap();
    refused(bench.thaw(id, 3), &PluginErrorKind::Fenced);
    refused(bench.abort(id, 3), &PluginErrorKind::Fenced);
    let old = bench.at(3);
    let renewed = bench.plugin.renew(&old, id, HOUR);
    refused(bench.runtime.block_on(renewed), &PluginErrorKind::Fenced);
    assert!(matches!(bench.state(id), SessionState::Frozen { .. }));
    bench.thaw(id, 5).unwrap();
    refused(bench.complete(id, 4), &PluginErrorKind::Fenced);
    bench.abort(id, 5).unwrap();
    // Another session of the same copy knows the token as well.
    refused(bench.begin(3, 4, HOUR), &PluginErrorKind::Fenced);
    bench.begin(3, 5, HOUR).unwrap();
    bench.end();
}

#[test]
fn a_session_whose_lease_is_over_is_given_up_with_its_freeze() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, SOON).unwrap();
    match bench.freeze(id, 3, None) {
        Ok(()) => bench.await_thaw(),
        Err(error) => assert!(
            matches!(error.kind(), PluginErrorKind::SessionGone | PluginErrorKind::Superseded),
            "{error}"
        ),
    }
    // It ends when the time keeper wakes, or when somebody looks, whichever is first.
    while bench.state(id) == SessionState::Open {
        std::thread::yield_now();
    }
    assert_eq!(bench.state(id), SessionState::Aborted);
    assert_eq!(bench.complete(id, 3).unwrap(), [Completion::Lost, Completion::Lost]);
    refused(bench.begin(1, 3, HOUR), &PluginErrorKind::SessionGone);
    // The database is free for another session.
    bench.begin(3, 3, HOUR).unwrap();
    bench.end();
}

#[test]
fn a_begin_that_is_repeated_is_the_same_session_and_another_is_refused() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    bench.begin(1, 3, HOUR).unwrap();
    let cx = bench.at(3);
    let other = SessionSpec::new(id, BackupKind::Copy, bench.copies[1..].to_vec(), HOUR);
    refused(bench.runtime.block_on(bench.plugin.begin(&cx, &other)), &PluginErrorKind::Invalid);
    let log = SessionSpec::new(id, BackupKind::Log, bench.copies.clone(), HOUR);
    let kind = PluginErrorKind::Unsupported("kind");
    refused(bench.runtime.block_on(bench.plugin.begin(&cx, &log)), &kind);
    // A database has one backup at a time.
    refused(bench.begin(3, 3, HOUR), &PluginErrorKind::NotAvailable);
    bench.end();
}

#[test]
fn an_aborted_session_is_over_and_its_completion_is_lost() {
    let bench = Bench::new();
    let id = bench.begin(1, 3, HOUR).unwrap();
    bench.freeze(id, 3, None).unwrap();
    bench.abort(id, 3).unwrap();
    bench.abort(id, 3).unwrap();
    assert_eq!(bench.state(id), SessionState::Aborted);
    assert_eq!(bench.held(id), Held::Broken(Cause::ThawedEarly));
    assert_eq!(bench.complete(id, 3).unwrap(), [Completion::Lost, Completion::Lost]);
    bench.end();
}

#[test]
fn a_line_that_is_cut_short_is_not_acted_upon() {
    let bench = Bench::new();
    let called = || {
        let lines = bench.lines();
        lines.iter().filter(|line| matches!(line.what, What::Called { .. })).count()
    };
    let before = called();
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    let whole = "{\"caller\":{\"run\":\"00000000-0000-0000-0000-000000000000\",\"step\":\"x\",\"attempt\":1,\"fence\":0},\"ask\":\"caps\"}";
    stream.write_all(whole.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!((answer.as_str(), called()), ("", before));
    // With its end it is a call; and what is none is told so.
    let mut stream = UnixStream::connect(bench.socket()).unwrap();
    stream.write_all(format!("{whole}\nnonsense\n").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.lines().count(), 2);
    assert!(answer.contains("caps") && answer.contains("exchange.invalid"), "{answer}");
    assert_eq!(called(), before + 1);
    bench.end();
}

/// What a client sees of somebody who answers every line like this, or hangs up.
fn against(serve: impl FnOnce(&UnixStream) + Send, cx: &Cx) -> (PluginErrorKind, Effect) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener.accept().unwrap().0));
        let error = ask(&socket, cx, &Ask::Thaw(SessionId(Uuid::nil()))).unwrap_err();
        (error.kind().clone(), error.effect())
    })
}

fn read_line(mut stream: &UnixStream) {
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {}
}

#[test]
fn a_call_that_was_not_handed_over_had_no_effect() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let error = ask(&folder.path().join("none"), &cx(&runtime), &Ask::Caps).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (&PluginErrorKind::Unreachable, Effect::None));

    let late = cx(&runtime).with_timeout(Duration::ZERO);
    let error = ask(&folder.path().join("none"), &late, &Ask::Caps).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (&PluginErrorKind::TimedOut, Effect::None));

    // More than a socket holds, to somebody who hangs up in the middle of it.
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let copy: CopyId = "00000000-0000-0000-0000-000000000007@ex1".parse().unwrap();
    let verdict = Verdict::Unverified { reason: "x".repeat(4 << 20) };
    let verdicts = BTreeMap::from([(copy, verdict)]);
    let long = Ask::Complete { id: SessionId(Uuid::nil()), verdicts };
    let error = std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept().unwrap()));
        ask(&socket, &cx(&runtime), &long).unwrap_err()
    });
    assert_eq!((error.kind(), error.effect()), (&PluginErrorKind::Unreachable, Effect::None));
}

#[test]
fn a_call_without_an_answer_may_have_had_an_effect() {
    let runtime = runtime();
    let unlimited = cx(&runtime);
    let hung_up = against(read_line, &unlimited);
    assert_eq!(hung_up, (PluginErrorKind::Unreachable, Effect::Unknown));

    // Somebody who takes the call and is silent until the caller has gone.
    let silent = |mut stream: &UnixStream| {
        read_line(stream);
        let _gone = stream.read(&mut [0]);
    };
    let late = against(silent, &unlimited.with_timeout(SOON));
    assert_eq!(late, (PluginErrorKind::TimedOut, Effect::Unknown));

    let cancel = Cancel::new();
    let cancelled = Cx::builder(unlimited.seams()).cancel(cancel.clone()).build();
    let then_cancelled = |mut stream: &UnixStream| {
        read_line(stream);
        cancel.cancel();
        let _gone = stream.read(&mut [0]);
    };
    let seen = against(then_cancelled, &cancelled);
    assert_eq!(seen, (PluginErrorKind::Cancelled, Effect::Unknown));

    let babble = |mut stream: &UnixStream| {
        read_line(stream);
        stream.write_all(b"nonsense\n").unwrap();
    };
    assert_eq!(against(babble, &unlimited), (PluginErrorKind::Internal, Effect::Unknown));
    let endless = |mut stream: &UnixStream| {
        read_line(stream);
        let block = vec![b'x'; 1 << 20];
        for _ in 0..=LONGEST >> 20 {
            // It hangs up at some point.
            if stream.write_all(&block).is_err() {
                return;
            }
        }
        let _gone = stream.read(&mut [0]);
    };
    assert_eq!(against(endless, &unlimited), (PluginErrorKind::Internal, Effect::Unknown));
}
