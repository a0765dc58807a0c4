//! The wrappers keep the contract of what they are around, and do what they are for.
#![allow(clippy::clone_on_ref_ptr, reason = "`.clone()` may become a trait object on the way")]
#![allow(clippy::many_single_char_names, reason = "short rows of calls")]

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stillpoint_context::{Cancel, Cx, Effect, ErrorFacts};
use stillpoint_exchange::{
    BackupKind, CopyId, ExchangePlugin, Held, PluginErrorKind, SessionId, SessionSpec,
};
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{PointId, SetToken};
use stillpoint_model::verdict::Verdict;
use stillpoint_storage::{
    Found, MemberSpec, PrepareSpec, Prepared, ProviderErrorKind, Snapshot, SnapshotProvider,
};
use stillpoint_testkit::conformance::plugin::SimOrganisations;
use stillpoint_testkit::conformance::provider::SimPlaces;
use stillpoint_testkit::conformance::{self, Report};
use stillpoint_testkit::wrap::{Faulty, Recorded, Recording, Replay, SCHEMA, Timed, Times};
use stillpoint_testkit::{
    Change, Fault, Faults, FreezeWindow, Lie, Outcome, RandomFaults, Trouble, World,
};
use stillpoint_workflow::testing::Sim;
use uuid::Uuid;

use super::common::{Time, drop_after_one_poll, ms, s};

type AnyProvider = Arc<dyn SnapshotProvider>;
type AnyPlugin = Arc<dyn ExchangePlugin>;

fn provider_report(wrap: fn(AnyProvider) -> AnyProvider) -> Report {
    let sim = Sim::new(1);
    let places = SimPlaces::new(sim.seams()).with(move |storage| {
        let storage = storage.with_caps(|caps| caps.revert = true);
        wrap(Arc::new(storage))
    });
    sim.run(conformance::provider::run_all(&places))
}

#[test]
fn a_wrapped_provider_conforms_as_the_bare_one() {
    let bare = provider_report(|storage| storage);
    bare.assert_passed();
    let wraps: [fn(AnyProvider) -> AnyProvider; 4] = [
        |storage| Arc::new(Faulty::provider(storage, &Faults::default())),
        |storage| Arc::new(Recorded::provider(storage, &Recording::new())),
        |storage| Arc::new(Timed::provider(storage, &Times::new())),
        |storage| {
            let faulty = Arc::new(Faulty::provider(storage, &Faults::default()));
            let recorded = Arc::new(Recorded::provider(faulty, &Recording::new()));
            Arc::new(Timed::provider(recorded, &Times::new()))
        },
    ];
    for wrap in wraps {
        assert_eq!(provider_report(wrap), bare);
    }
}

fn plugin_report(wrap: fn(AnyPlugin) -> AnyPlugin) -> Report {
    let sim = Sim::new(1);
    let places = SimOrganisations::new(sim.seams()).with(move |plugin| wrap(Arc::new(plugin)));
    sim.run(conformance::plugin::run_all(&places))
}

#[test]
fn a_wrapped_plug_in_conforms_as_the_bare_one() {
    let bare = plugin_report(|plugin| plugin);
    bare.assert_passed();
    let wraps: [fn(AnyPlugin) -> AnyPlugin; 4] = [
        |plugin| Arc::new(Faulty::plugin(plugin, &Faults::default())),
        |plugin| Arc::new(Recorded::plugin(plugin, &Recording::new())),
        |plugin| Arc::new(Timed::plugin(plugin, &Times::new())),
        |plugin| {
            let faulty = Arc::new(Faulty::plugin(plugin, &Faults::default()));
            let recorded = Arc::new(Recorded::plugin(faulty, &Recording::new()));
            Arc::new(Timed::plugin(recorded, &Times::new()))
        },
    ];
    for wrap in wraps {
        assert_eq!(plugin_report(wrap), bare);
    }
}

/// The two sides of a backup, whatever they are.
struct Sides {
    plugin: AnyPlugin,
    storage: AnyProvider,
}

fn session(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(1000 + number))
}

fn token(cx: &Cx) -> SetToken {
    SetToken::of(&cx.run(), PointId(Uuid::from_u128(1)))
}

impl Sides {
    async fn frozen(
        &self,
        cx: &Cx,
        copy: &CopyId,
        number: u128,
    ) -> Result<Prepared, Box<dyn Error + Send + Sync>> {
        let spec = SessionSpec::new(session(number), BackupKind::Full, vec![copy.clone()], s(3600));
        let session = self.plugin.begin(cx, &spec).await?;
        let files: Vec<_> = session.files.into_iter().map(|file| file.path).collect();
        let mut members = BTreeMap::<_, Vec<_>>::new();
        for placement in self.storage.resolve(cx, &files).await? {
            members.entry(placement.volume).or_default().push(placement.file);
        }
        let mut spec = PrepareSpec::new(token(cx), format!("night-{number}"));
        for (volume, files) in members {
            spec = spec.with_member(MemberSpec::new(volume, MemberRole::DataAndLog, files));
        }
        let prepared = self.storage.prepare(cx, &spec).await?;
        self.plugin.freeze(cx, session.id, Some(s(10))).await?;
        Ok(prepared)
    }

    /// A whole backup.
    async fn backup(
        &self,
        cx: &Cx,
        copy: &CopyId,
        number: u128,
    ) -> Result<Vec<Snapshot>, Box<dyn Error + Send + Sync>> {
        let prepared = self.frozen(cx, copy, number).await?;
        self.storage.commit(cx, &prepared).await?;
        self.plugin.thaw(cx, session(number)).await?;
        let snapshots = self.storage.settle(cx, &prepared).await?;
        assert_eq!(self.plugin.evidence(cx, session(number)).await?.held(copy), Held::Yes);
        let verdicts = [(copy.clone(), Verdict::Good)].into();
        self.plugin.complete(cx, session(number), &verdicts).await?;
        Ok(snapshots)
    }
}

/// A world of one database, and its sides with faults.
struct Trial {
    time: Time,
    world: World,
    copy: CopyId,
    cx: Cx,
    faults: Faults,
    plugin: Arc<Faulty<dyn ExchangePlugin>>,
    storage: Arc<Faulty<dyn SnapshotProvider>>,
}

impl Trial {
    fn new() -> Self {
        let (time, world, faults) = (Time::default(), World::one_server(1), Faults::default());
        let plugin = Arc::new(Faulty::plugin(Arc::new(world.exchange()), &faults));
        let storage = Arc::new(Faulty::provider(Arc::new(world.storage()), &faults));
        let (copy, cx) = (world.active("DB01"), time.cx(1, "step", 1));
        Self { time, world, copy, cx, faults, plugin, storage }
    }

    fn sides(&self) -> Sides {
        let (plugin, storage) = (self.plugin.clone(), self.storage.clone());
        Sides { plugin, storage }
    }

    fn frozen(&self) -> Prepared {
        self.time.run(self.sides().frozen(&self.cx, &self.copy, 1)).unwrap()
    }
}

#[test]
fn a_fault_comes_before_or_after_the_effect() {
    let trial = Trial::new();
    let (faults, cx) = (&trial.faults, &trial.cx);
    let prepared = trial.frozen();
    faults.on("commit").nth(1).inject(Fault::fail(ProviderErrorKind::NoSpace));
    faults.on("commit").nth(2).after_effect().inject(Fault::Fail(Trouble::timed_out()));
    faults.on("thaw").about("0000000003e9").nth(1).inject(Fault::Slow(s(2)));
    trial.time.run(async {
        let error = trial.storage.commit(cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::NoSpace);
        assert!(trial.world.snapshots().is_empty());
        let error = trial.storage.commit(cx, &prepared).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&ProviderErrorKind::TimedOut, Effect::Unknown));
        assert_eq!(trial.world.snapshots().len(), prepared.members.len());
        trial.plugin.thaw(cx, session(1)).await.unwrap();
    });
    assert_eq!(faults.fired(), 3);
    let thaw = &trial.plugin.calls().named("thaw")[0];
    assert_eq!(thaw.ended.unwrap().since(thaw.started), s(2));
    assert!(thaw.fault.as_deref().unwrap().contains("Slow"));
    let outcomes: Vec<_> =
        trial.storage.calls().named("commit").into_iter().map(|call| call.outcome).collect();
    let failed = |code| Outcome::Failed(code);
    assert_eq!(outcomes, [failed("storage.no_space".into()), failed("storage.timed_out".into())]);
}

#[test]
fn what_is_late_comes_although_nobody_waits() {
    let trial = Trial::new();
    let prepared = trial.frozen();
    trial.faults.on("commit").nth(1).inject(Fault::Slow(s(25)));
    trial.faults.on("settle").inject(Fault::LateArrival(s(5)));
    let settled =
        || trial.world.snapshots().iter().all(|snapshot| snapshot.files[0].seal.is_some());
    // In one run: at its end all that is under way is gone, as with a process.
    trial.time.run(async {
        drop_after_one_poll(trial.storage.commit(&trial.cx, &prepared));
        trial.cx.sleep(s(20)).await.unwrap();
        assert!(trial.world.snapshots().is_empty());
        trial.cx.sleep(s(6)).await.unwrap();
        assert_eq!(trial.world.snapshots().len(), prepared.members.len());
        let error = SnapshotProvider::settle(&*trial.storage, &trial.cx, &prepared).await;
        assert_eq!(error.unwrap_err().kind(), &ProviderErrorKind::TimedOut);
        assert!(!settled());
        trial.cx.sleep(s(6)).await.unwrap();
        assert!(settled());
        // Who waits gets the answer of the call that was slow, and hears a cancel.
        trial.faults.on("commit").inject(Fault::Slow(s(3)));
        let members = trial.storage.commit(&trial.cx, &prepared).await.unwrap();
        assert_eq!(members.len(), prepared.members.len());
        let cancel = Cancel::new();
        let cx = Cx::builder(trial.cx.seams()).cancel(cancel.clone()).build();
        cancel.cancel();
        let error = trial.storage.commit(&cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::Cancelled);
    });
}

#[test]
fn a_lie_is_told_where_it_can_be_made_up_and_refused_where_not() {
    let trial = Trial::new();
    let (faults, cx) = (&trial.faults, &trial.cx);
    let prepared = trial.frozen();
    for call in ["commit", "thaw", "discard", "put_doc", "prepare"] {
        faults.on(call).nth(1).inject(Fault::Lie(Lie::Done));
    }
    faults.on("find").nth(1).inject(Fault::Change(Change::PowerCut));
    faults.on("evidence").nth(1).inject(Fault::Lie(Lie::Held));
    faults.on("evidence").nth(2).inject(Fault::Lie(Lie::Unsure));
    trial.time.run(async {
        let members = trial.storage.commit(cx, &prepared).await.unwrap();
        assert_eq!((members.len(), trial.world.snapshots().len()), (prepared.members.len(), 0));
        trial.plugin.thaw(cx, session(1)).await.unwrap();
        assert!(trial.world.is_frozen(&trial.copy.host));
        trial.plugin.thaw(cx, session(1)).await.unwrap();
        let evidence = trial.plugin.evidence(cx, session(1)).await.unwrap();
        assert_eq!(evidence.held(&trial.copy), Held::Yes);
        let evidence = trial.plugin.evidence(cx, session(1)).await.unwrap();
        assert_eq!(evidence.held(&trial.copy), Held::Unknown);
        let spec = PrepareSpec::new(token(cx), "again");
        let error = trial.storage.prepare(cx, &spec).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (&ProviderErrorKind::Internal, Effect::None));
        assert!(error.to_string().contains("needs a simulated world"), "{error}");
        let error = trial.storage.find(cx, &token(cx)).await.unwrap_err();
        assert!(error.to_string().contains("PowerCut"), "{error}");
    });
}

#[test]
fn a_side_that_died_answers_nothing_until_it_is_revived() {
    let trial = Trial::new();
    let cx = &trial.cx;
    let prepared = trial.frozen();
    trial.faults.on("commit").after_effect().inject(Fault::Die);
    trial.time.run(async {
        let error = trial.storage.commit(cx, &prepared).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::Unreachable);
        let error = trial.storage.find(cx, &token(cx)).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::Unreachable);
        trial.plugin.thaw(cx, session(1)).await.unwrap(); // the other side lives
        trial.storage.revive();
        let found = trial.storage.find(cx, &token(cx)).await.unwrap();
        assert!(matches!(found, Found::Complete(_)), "{found:?}");
    });
}

/// The seed of the one trial to be made.
const SEED: &str = "FAULT_SEED";

#[test]
fn whatever_comes_from_a_seed_freezes_end_and_nothing_is_left() {
    let only = std::env::var(SEED).ok().map(|seed| seed.parse::<u64>().unwrap());
    let (mut fired, mut kinds) = (0, std::collections::BTreeSet::new());
    for seed in only.map_or(0..100, |seed| seed..seed + 1) {
        let again = format!(
            "seed {seed}; again: {SEED}={seed} cargo test -p stillpoint-testkit --test kit wrap::whatever"
        );
        let trial = Trial::new();
        let calls = ["begin", "prepare", "freeze", "commit", "thaw", "settle"];
        trial.faults.random(RandomFaults::new(seed).one_in(3).only(&calls));
        let cx = &trial.cx.with_timeout(s(60));
        let (sides, clock) = (trial.sides(), trial.time.seams().clock);
        let careless = async {
            drop(sides.backup(cx, &trial.copy, 1).await);
            drop(trial.plugin.thaw(cx, session(1)).await);
        };
        let careless = std::pin::pin!(careless);
        let most = clock.sleep_until(clock.mono() + s(120));
        let trying = async {
            futures_util::future::select(most, careless).await;
            // What is late comes by then.
            trial.cx.sleep(s(300)).await.unwrap();
        };
        drop(catch_unwind(AssertUnwindSafe(|| trial.time.run(trying))));
        fired += trial.faults.fired();
        let records = trial.plugin.calls().all().into_iter().chain(trial.storage.calls().all());
        let words = records.filter_map(|call| call.fault);
        kinds.extend(words.map(|fault| fault.split(['(', ' ']).next().unwrap().to_owned()));
        trial.faults.clear();
        trial.time.pass(s(300));
        trial.time.run(async {
            trial.plugin.abort(&trial.cx, session(1)).await.unwrap();
            trial.storage.discard(&trial.cx, &token(&trial.cx)).await.unwrap();
        });
        let world = &trial.world;
        assert!(world.freeze_windows().iter().all(|window| window.ended.is_some()), "{again}");
        let longest = world.freeze_windows().iter().filter_map(FreezeWindow::length).max();
        assert!(longest.is_none_or(|longest| longest <= s(10)), "{again}: {longest:?}");
        assert!(world.in_flight().is_empty() && world.snapshots().is_empty(), "{again}");
        assert!(world.open_sessions().is_empty(), "{again}");
    }
    if only.is_none() {
        assert!(fired > 60, "only {fired} faults in all");
        let wanted = ["Deaf", "Fail", "Hang", "LateArrival", "Panic", "Slow"];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), wanted);
    }
}

/// A recording that was stored; with `STILLPOINT_BLESS` set it is written anew.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/recording.jsonl");

/// A recording of a whole backup.
fn recorded() -> (Recording, Vec<Snapshot>) {
    let (time, world, recording) = (Time::default(), World::one_server(1), Recording::new());
    let plugin = Arc::new(Recorded::plugin(Arc::new(world.exchange()), &recording));
    let storage = Arc::new(Recorded::provider(Arc::new(world.storage()), &recording));
    let sides = Sides { plugin, storage };
    let cx = time.cx(1, "backup", 7);
    let snapshots = time.run(sides.backup(&cx, &world.active("DB01"), 1)).unwrap();
    (recording, snapshots)
}

/// The sides that answer what was recorded.
fn replayed(replay: &Replay) -> Sides {
    let plugin = Arc::new(replay.plugin("simulated").unwrap());
    Sides { plugin, storage: Arc::new(replay.provider("sim").unwrap()) }
}

#[test]
fn a_recording_has_its_golden_form() {
    let (recording, _) = recorded();
    let lines = recording.to_lines();
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::write(GOLDEN, &lines).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap().replace('\r', "");
    for (number, (line, wanted)) in lines.lines().zip(golden.lines()).enumerate() {
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(json(line), json(wanted), "line {}", number + 1);
    }
    assert_eq!(lines.lines().count(), golden.lines().count());
    assert!(golden.starts_with(&format!("{{\"schema\":\"{SCHEMA}\"}}\n")));
}

#[test]
fn a_recording_that_was_stored_answers_in_the_place_of_both_sides() {
    let golden = &std::fs::read_to_string(GOLDEN).unwrap();
    let replay = Replay::read(golden).unwrap();
    let (_, snapshots) = recorded();
    // No world is there, and another run asks.
    let time = Time::default();
    let (cx, copy) = (time.cx(1, "again", 8), World::one_server(1).active("DB01"));
    let sides = replayed(&replay);
    assert_eq!(sides.storage.caps(), World::one_server(1).storage().caps());
    assert_eq!(sides.plugin.caps(), World::one_server(1).exchange().caps());
    assert!(sides.storage.restore().is_some() && sides.storage.lock().is_none());
    assert_eq!(time.run(sides.backup(&cx, &copy, 1)).unwrap(), snapshots);
    replay.assert_played();
}

#[test]
fn the_first_call_that_differs_is_named() {
    let replay = Replay::read(&recorded().0.to_lines()).unwrap();
    let time = Time::default();
    let (cx, copy) = (time.cx(1, "again", 8), World::one_server(1).active("DB01"));
    let sides = replayed(&replay);
    time.run(async {
        let prepared = sides.frozen(&cx, &copy, 1).await.unwrap();
        // Settled before it is committed.
        let error = sides.storage.settle(&cx, &prepared).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("line 8 of the recording is `commit sp-"), "{text}");
        assert!(text.contains(", and `settle sp-"), "{text}");
        assert_eq!(error.effect(), Effect::None);
        // It stays so: what follows is not to be believed.
        let later = sides.storage.commit(&cx, &prepared).await.unwrap_err();
        assert_eq!(later.to_string(), text);
        let later = sides.plugin.thaw(&cx, session(1)).await.unwrap_err();
        assert_eq!((later.kind(), later.to_string()), (&PluginErrorKind::Internal, text));
    });
    let divergence = replay.divergence().unwrap();
    assert_eq!(divergence.line, Some(8));
    let played = catch_unwind(AssertUnwindSafe(|| replay.assert_played())).unwrap_err();
    assert_eq!(played.downcast_ref::<String>(), Some(&divergence.to_string()));

    let replay = Replay::read(&recorded().0.to_lines()).unwrap();
    let error = time.run(replayed(&replay).frozen(&cx, &copy, 2)).unwrap_err();
    assert!(error.to_string().starts_with("line 4 of the recording is `begin "), "{error}");
    assert_eq!(replay.remaining().len(), recorded().0.calls().all().len());
}

#[test]
fn errors_drops_and_calls_under_way_at_once_are_replayed() {
    let trial = Trial::new();
    let recording = Recording::new();
    let storage = Arc::new(Recorded::provider(trial.storage.clone(), &recording));
    let faults = &trial.faults;
    faults.on("find").about("sp-a").inject(Fault::fail(ProviderErrorKind::Busy));
    faults.on("find").about("sp-b").inject(Fault::Slow(s(1)));
    faults.on("find").about("sp-c").inject(Fault::Deaf);
    faults.on("find").about("sp-d").inject(Fault::Panic);
    let token = |name: &str| SetToken::new(name).unwrap();
    let [a, b, c, d, e] = ["sp-a", "sp-b", "sp-c", "sp-d", "sp-e"].map(token);
    let cx = &trial.cx;
    trial.time.run(async {
        storage.find(cx, &a).await.unwrap_err();
        let both = futures_util::future::join(storage.find(cx, &b), storage.find(cx, &e));
        assert!(both.await.0.is_ok());
        storage.exposures(cx).await.unwrap();
    });
    drop_after_one_poll(storage.find(cx, &c));
    let find = || trial.time.run(storage.find(cx, &d));
    drop(catch_unwind(AssertUnwindSafe(find)).unwrap_err());
    let outcomes: Vec<_> =
        recording.calls().named("find").into_iter().map(|call| call.outcome).collect();
    let busy = Outcome::Failed("storage.busy".into());
    assert_eq!(
        outcomes,
        [busy, Outcome::Ok, Outcome::Ok, Outcome::Dropped, Outcome::Panicked],
        "{:#?}",
        recording.calls().all()
    );

    let replay = Replay::read(&recording.to_lines()).unwrap();
    let again = replay.provider("sim").unwrap();
    trial.time.run(async {
        let error = again.find(cx, &a).await.unwrap_err();
        assert_eq!(error.kind(), &ProviderErrorKind::Busy);
        // They were under way at once: either may come first.
        assert_eq!(again.find(cx, &e).await.unwrap(), Found::Absent);
        assert_eq!(again.find(cx, &b).await.unwrap(), Found::Absent);
        again.exposures(cx).await.unwrap();
    });
    drop_after_one_poll(again.find(cx, &c));
    let find = || trial.time.run(again.find(cx, &d));
    let panic = catch_unwind(AssertUnwindSafe(find)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "`find sp-d` panicked (recorded)");
    replay.assert_played();
    // What came after both had ended may not come before one of them.
    let replay = Replay::read(&recording.to_lines()).unwrap();
    let again = replay.provider("sim").unwrap();
    trial.time.run(async {
        again.find(cx, &a).await.unwrap_err();
        again.find(cx, &e).await.unwrap();
        let error = again.exposures(cx).await.unwrap_err();
        assert!(error.to_string().contains("is `find sp-b`, and `exposures` was asked"), "{error}");
    });
}

#[test]
fn what_is_no_recording_is_refused_with_the_line() {
    let error = Replay::read("{\"schema\":\"stillpoint.recording/2\"}\n").unwrap_err();
    assert_eq!(error.code(), "recording.schema");
    assert!(Replay::read("").is_err());
    let damaged = format!("{{\"schema\":\"{SCHEMA}\"}}\n\n{{\"call\":7}}\n");
    let error = Replay::read(&damaged).unwrap_err();
    assert_eq!(error.code(), "recording.damaged");
    assert!(error.to_string().starts_with("line 3 "), "{error}");
}

#[test]
fn times_are_of_freezes_commits_and_calls() {
    let trial = Trial::new();
    let times = Times::new();
    let sides = Sides {
        plugin: Arc::new(Timed::plugin(trial.plugin.clone(), &times)),
        storage: Arc::new(Timed::provider(trial.storage.clone(), &times)),
    };
    let commits = [ms(300), ms(100), ms(200), ms(700)];
    for number in 1..=4_u32 {
        trial.faults.clear();
        trial.faults.on("commit").inject(Fault::Slow(commits[number as usize - 1]));
        if number == 2 {
            trial.faults.on("settle").inject(Fault::fail(ProviderErrorKind::Io));
        }
        let cx = trial.time.cx(number.into(), "step", number.into());
        let done = trial.time.run(sides.backup(&cx, &trial.copy, number.into()));
        assert_eq!(done.is_ok(), number != 2);
        trial.time.run(sides.plugin.abort(&cx, session(number.into()))).unwrap();
    }
    trial.faults.clear();
    let cx = trial.time.cx(9, "step", 9);
    // A freeze that did not come, and one that nobody waited for.
    trial.faults.on("freeze").nth(1).inject(Fault::Fail(Trouble::timed_out().without_effect()));
    trial.faults.on("freeze").nth(2).inject(Fault::Deaf);
    trial.time.run(sides.frozen(&cx, &trial.copy, 9)).unwrap_err();
    drop_after_one_poll(sides.plugin.freeze(&cx, session(9), Some(s(1))));
    trial.time.run(sides.plugin.thaw(&cx, session(9))).unwrap();

    let timings = times.timings();
    let (freezes, commits) = (timings.freezes, timings.commits);
    assert_eq!((commits.count, freezes.count), (4, 4));
    assert_eq!((commits.min, commits.median, commits.max), (ms(110), ms(310), ms(710)));
    assert!(freezes.min >= commits.min && freezes.max >= commits.max, "{timings}");
    assert!(freezes.max < s(1), "{timings}");
    let took: Vec<_> = timings.sets.iter().map(|set| set.took).collect();
    assert_eq!(took, [ms(310), ms(110), ms(210), ms(710)]);
    assert_eq!(timings.sets[0].token, token(&trial.time.cx(1, "step", 1)));
    let settle = timings.calls["settle"];
    assert_eq!((settle.answered.count, settle.failed, settle.dropped), (3, 1, 0));
    let freeze = timings.calls["freeze"];
    assert_eq!((freeze.answered.count, freeze.failed, freeze.dropped), (4, 1, 1));
    let text = timings.to_string();
    assert!(text.contains("commits  4×  min 110.0 ms  median 310.0 ms  max 710.0 ms"), "{text}");
    assert!(text.contains("settle  1 failed, 0 dropped"), "{text}");
    assert!(serde_json::to_value(&timings).unwrap()["freezes"]["count"] == 4);
    times.clear();
    assert_eq!(times.timings().commits.to_string(), "never");
}
