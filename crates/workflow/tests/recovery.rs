//! Recovery: whatever a process left open is brought to its end by another, under the same promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use stillpoint_context::{Cx, Effect, Failure, FencingToken};
use stillpoint_workflow::testing::{HookJournal, Scenario, Sim, trials};
use stillpoint_workflow::*;

const SECOND: Duration = Duration::from_secs(1);
const TERM: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(10);

/// What is outside: things that were made, a section that is frozen, tokens that were seen.
#[derive(Debug, Clone, Default)]
struct Outside(Arc<Mutex<Things>>);

#[derive(Debug, Default)]
struct Things {
    made: BTreeSet<String>,
    frozen: bool,
    fence: FencingToken,
    done: u32,
}

impl Outside {
    fn with<T>(&self, look: impl FnOnce(&mut Things) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Refuses a token lower than one that was seen.
    fn admit(&self, cx: &Cx) {
        self.with(|things| {
            assert!(
                cx.fence() >= things.fence,
                "token {:?} of {} acts after {:?}",
                cx.fence(),
                cx.run(),
                things.fence
            );
            things.fence = cx.fence();
        });
    }
}

macro_rules! action {
    ($name:ident, $text:literal, $effect:ident, $idempotent:literal, $in:ty, |$world:ident, $cx:ident, $params:ident| $run:block, |$w2:ident, $p2:ident| $undo:block) => {
        #[derive(Debug)]
        struct $name(Outside);
        #[async_trait::async_trait]
        impl Action for $name {
            const NAME: &'static str = $text;
            const EFFECT: EffectKind = EffectKind::$effect;
            const IDEMPOTENT: bool = $idempotent;
            type Params = String;
            type Input = $in;
            type Output = ();
            async fn run(&self, $cx: &Cx, $params: &String, _: $in) -> Result<Done<()>, Failure> {
                let $world = &self.0;
                // Time to die in, before and after.
                $cx.sleep(Duration::from_millis(5)).await.map_err(|error| Failure::of(&error))?;
                $run;
                $cx.sleep(Duration::from_millis(5)).await.map_err(|error| Failure::of(&error))?;
                Ok(Done::new(()))
            }
            async fn undo(
                &self,
                _: &Cx,
                $p2: &String,
                _: $in,
                _: Known<()>,
            ) -> Result<Undone, Failure> {
                let $w2 = &self.0;
                $undo;
                Ok(Undone::clean())
            }
        }
    };
}

action!(
    Make,
    "make",
    Reversible,
    true,
    (),
    |world, cx, name| {
        world.admit(cx);
        world.with(|things| things.made.insert(name.clone()));
    },
    |world, name| { world.with(|things| things.made.remove(name)) }
);
action!(
    Freeze,
    "freeze",
    Reversible,
    false,
    (),
    |world, cx, _name| {
        world.with(|things| things.frozen = true);
        let _ = cx;
    },
    |_world, _name| {}
);
action!(
    Snap,
    "snap",
    Reversible,
    false,
    (),
    |world, _cx, name| {
        world.with(|things| {
            assert!(things.frozen, "taken outside the freeze");
            things.made.insert(name.clone())
        });
    },
    |world, name| {
        world.with(|things| {
            assert!(!things.frozen, "undone inside the freeze");
            things.made.remove(name)
        })
    }
);
action!(
    Thaw,
    "thaw",
    Irreversible,
    true,
    (Known<()>, ()),
    |world, _cx, _name| {
        world.with(|things| things.frozen = false);
    },
    |_world, _name| {}
);
action!(
    Finish,
    "finish",
    Irreversible,
    true,
    (),
    |world, cx, _name| {
        world.admit(cx);
        world.with(|things| things.done += 1);
    },
    |_world, _name| {}
);

/// Make, freeze with two snapshots, make again, finish past no return.
struct Backup {
    no_return: bool,
}

impl Scenario for Backup {
    type World = Outside;

    fn world(&self) -> Outside {
        Outside::default()
    }

    fn registry(&self, world: &Outside) -> ActionRegistry {
        let mut registry = ActionRegistry::new();
        registry.register(Make(world.clone())).unwrap();
        registry.register(Freeze(world.clone())).unwrap();
        registry.register(Snap(world.clone())).unwrap();
        registry.register(Thaw(world.clone())).unwrap();
        registry.register(Finish(world.clone())).unwrap();
        registry
    }

    fn plan(&self, _: &Outside) -> Plan {
        let named = |name: &str| name.to_owned();
        let mut plan = PlanBuilder::new("backup");
        plan.claim(Claim::exclusive(key("db/1/live")));
        plan.claim(Claim::exclusive(key("host/1/freeze")).until("guard".parse().unwrap()));
        let first = plan.step("first", Make::with(named("first"))).retry(Retry::times(3)).add();
        let (verdict, ()) = plan
            .guard("guard")
            .after(first)
            .limit(Some(20 * SECOND))
            .exit_timeout(SECOND)
            .member("host", Freeze::with(named("")).bind(()), Thaw::with(named("")).bind(()))
            .body(|body| {
                body.step("data", Snap::with(named("data"))).add();
                body.step("logs", Snap::with(named("logs"))).add();
            })
            .close();
        let second = plan
            .step("second", Make::with(named("second")))
            .after(verdict)
            .retry(Retry::times(2))
            .add();
        let finish = plan.step("finish", Finish::with(named(""))).after(second);
        let finish = finish.retry(Retry::times(3));
        if self.no_return {
            finish.no_return().add()
        } else {
            finish.add()
        };
        plan.build().unwrap()
    }

    fn check(&self, world: &Outside, end: End) -> Result<(), String> {
        world.with(|things| {
            let all: BTreeSet<_> = ["data", "first", "logs", "second"].map(str::to_owned).into();
            if things.frozen {
                return Err(format!("frozen after {end:?}"));
            }
            let made = &things.made;
            match end {
                End::Succeeded | End::SucceededWithWarnings if *made != all || things.done == 0 => {
                    Err(format!("{made:?} after {end:?}, finished {} times", things.done))
                }
                // Its irreversible last step is debris if it was done and the run failed for it.
                End::Failed | End::Cancelled | End::NeedsAttention
                    if !made.is_empty() && (things.done == 0 || !self.no_return) =>
                {
                    Err(format!("{made:?} left after {end:?}"))
                }
                _ => Ok(()),
            }
        })
    }
}

#[test]
fn a_backup_leaves_nothing_behind_whatever_goes_wrong() {
    for seed in 0..3 {
        let tried = trials::all(&Backup { no_return: false }, seed).unwrap();
        assert!(tried > 100, "{tried} mishaps");
        trials::all(&Backup { no_return: true }, seed).unwrap();
    }
}

/// An engine of one process over a store that others share.
fn process(sim: &Sim, store: &Arc<MemoryJournal>, world: &Outside, registry: bool) -> Engine {
    let jitter = HookJournal::jitter(Arc::clone(store), sim, Duration::from_millis(2)).shared();
    let registry =
        if registry { Backup { no_return: true }.registry(world) } else { ActionRegistry::new() };
    Engine::builder(registry, Arc::new(jitter), sim.seams(), sim.lanes())
        .leases(Arc::clone(store) as Arc<dyn Leases>)
        .lease_terms(TERM, MARGIN)
        .audited()
        .build()
}

fn backup() -> Submission {
    Submission::new(Backup { no_return: true }.plan(&Outside::default()))
}

/// What a process does until it dies: everything of it is gone with the simulation.
fn dies_when(store: &Arc<MemoryJournal>, world: &Outside, at: impl Fn(&Things) -> bool) {
    let sim = Sim::new(1);
    let engine = process(&sim, store, world, true);
    sim.run(async {
        engine.submit(backup()).await.unwrap();
        while !world.with(|things| at(things)) {
            pause(&sim.seams(), Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_process_that_is_alive_is_left_alone_and_one_that_is_gone_is_taken_over() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
    dies_when(&store, &world, |things| things.frozen);
    let sim = Sim::new(2);
    let engine = process(&sim, &store, &world, true);
    sim.run(async {
        let early = engine.recover().await.unwrap();
        assert!(early.runs.is_empty());
        assert_eq!(early.elsewhere.len(), 1, "its lease has not ended");
        assert!(world.with(|things| things.frozen));
        pause(&sim.seams(), TERM + MARGIN).await;
        let late = engine.recover().await.unwrap();
        let [run] = late.runs.as_slice() else { panic!("{late:?}") };
        let report = run.wait().await.unwrap();
        assert_eq!(report.end(), End::Failed);
        assert_eq!(report.failure().unwrap().code, "guard.lost");
        assert!(!world.with(|things| things.frozen));
        assert!(world.with(|things| things.made.is_empty()));
        assert!(engine.holders().await.unwrap().is_empty());
        // The next one has what it needs.
        let next = engine.submit(backup()).await.unwrap().wait().await.unwrap();
        assert_eq!(next.end(), End::Succeeded);
    });
}

#[test]
fn two_processes_that_recover_at_once_share_the_runs_and_do_nothing_twice() {
    for_seeds(60, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        dies_when(&store, &world, |things| things.made.contains("second"));
        let engines = [(); 2].map(|()| process(&sim, &store, &world, true));
        sim.run(async {
            pause(&sim.seams(), TERM + MARGIN).await;
            let [one, other] = &engines;
            let both = futures_util::future::join(one.recover(), other.recover()).await;
            let runs = [both.0.unwrap().runs, both.1.unwrap().runs].concat();
            assert!(!runs.is_empty());
            let mut ends = 0;
            for run in runs {
                match run.wait().await {
                    Ok(report) => {
                        assert_eq!(report.end(), End::Succeeded);
                        ends += 1;
                    }
                    // The other one was faster.
                    Err(EngineError::Journal(_) | EngineError::Gone) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(ends >= 1);
            assert_eq!(store.ends(), [End::Succeeded]);
        });
    });
}

#[test]
fn a_paused_process_that_was_taken_over_starts_nothing_more() {
    // One process hangs in its append while another takes over; then the append goes on.
    for_seeds(40, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let (stall, journal) = testing::Stall::new(Arc::clone(&store), |batch| {
            batch.appends.iter().flat_map(|append| &append.records).any(|record| {
                matches!(record, Record::Run(RunRecord::Succeeded { attempt: 1, .. }))
            })
        });
        let registry = Backup { no_return: true }.registry(&world);
        // Its leases hang with it: nobody renews them.
        let paused = Engine::builder(registry, Arc::new(journal), sim.seams(), sim.lanes())
            .leases(Arc::new(Once(Arc::clone(&store))))
            .lease_terms(TERM, MARGIN)
            .build();
        let engine = process(&sim, &store, &world, true);
        sim.run(async {
            let run = paused.submit(backup()).await.unwrap();
            while !stall.is_stalled() {
                pause(&sim.seams(), Duration::from_millis(10)).await;
            }
            pause(&sim.seams(), TERM + MARGIN).await;
            let recovery = engine.recover().await.unwrap();
            let report = recovery.runs[0].wait().await.unwrap();
            assert_eq!(report.end(), End::Succeeded);
            let (made, done) = world.with(|things| (things.made.clone(), things.done));
            assert_eq!((made.len(), done), (4, 1));
            stall.release();
            let error = run.wait().await.unwrap_err();
            assert!(matches!(error, EngineError::Journal(JournalError::Fenced { .. })), "{error}");
            pause(&sim.seams(), TERM).await;
            assert_eq!(world.with(|things| (things.made.clone(), things.done)), (made, done));
        });
    });
}

/// Leases that can be acquired and never renewed, as those of a process that stands still.
#[derive(Debug)]
struct Once(Arc<MemoryJournal>);

#[async_trait::async_trait]
impl Leases for Once {
    async fn acquire(
        &self,
        process: stillpoint_context::ProcessId,
        now: stillpoint_context::Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        self.0.acquire(process, now, term).await
    }
    async fn renew(
        &self,
        process: stillpoint_context::ProcessId,
        epoch: u64,
        now: stillpoint_context::Mono,
        term: Duration,
    ) -> Result<Lease, JournalError> {
        if self.0.leases().await?.iter().any(|lease| lease.process == process) {
            return Err(JournalError::Io("it stands still".into()));
        }
        self.0.renew(process, epoch, now, term).await
    }
    async fn release(
        &self,
        process: stillpoint_context::ProcessId,
        epoch: u64,
    ) -> Result<(), JournalError> {
        self.0.release(process, epoch).await
    }
    async fn leases(&self) -> Result<Vec<Lease>, JournalError> {
        self.0.leases().await
    }
    async fn fence(
        &self,
        process: stillpoint_context::ProcessId,
        now: stillpoint_context::Mono,
        margin: Duration,
    ) -> Result<Fencing, JournalError> {
        self.0.fence(process, now, margin).await
    }
}

#[test]
fn the_same_key_is_the_same_run_also_in_another_process_and_after_a_restart() {
    for_seeds(60, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let engines = [(); 2].map(|()| process(&sim, &store, &world, true));
        let keyed = || backup().key("tonight".parse().unwrap());
        sim.run(async {
            let [one, other] = &engines;
            let both = futures_util::future::join(one.submit(keyed()), other.submit(keyed())).await;
            let (a, b) = (both.0.unwrap(), both.1.unwrap());
            assert_eq!(a.id(), b.id());
            assert_eq!(a.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(b.wait().await.unwrap().end(), End::Succeeded);
            let another = Submission::new(Backup { no_return: false }.plan(&world));
            let another = another.key("tonight".parse().unwrap());
            let error = other.submit(another).await.unwrap_err();
            assert!(matches!(error, EngineError::KeyReused { run, .. } if run == a.id()));
            // A process that comes later.
            let third = process(&sim, &store, &world, true);
            let again = third.submit(keyed()).await.unwrap();
            assert_eq!(again.id(), a.id());
            assert_eq!(again.wait().await.unwrap().end(), End::Succeeded);
            assert_eq!(store.ends().len(), 1);
        });
    });
}

#[test]
fn claims_exclude_runs_of_other_processes() {
    for_seeds(30, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let engines = [(); 3].map(|()| process(&sim, &store, &world, true));
        sim.run(async {
            let mut runs = Vec::new();
            for engine in engines.iter().cycle().take(9) {
                runs.push(engine.submit(backup()).await.unwrap());
            }
            for run in runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
            }
            assert_eq!(world.with(|things| things.done), 9);
            // The last release may still be on its way.
            pause(&sim.seams(), SECOND).await;
        });
        overlaps(&store, &sim);
    });
}

/// Checks in the arbiter's stream that conflicting grants never overlap, and that tokens rise.
fn overlaps(store: &Arc<MemoryJournal>, sim: &Sim) {
    let stored = Sim::new(sim.seed()).run(store.read(&StreamId::Arbiter, Seq(0), 100_000)).unwrap();
    let mut wants = std::collections::BTreeMap::new();
    let mut holds = std::collections::BTreeMap::new();
    for stored in stored {
        match stored.record {
            Record::Arbiter(ArbiterRecord::Queued { run, claims, .. }) => {
                wants.insert(run, claims);
            }
            Record::Arbiter(ArbiterRecord::Granted { run }) => {
                let claims = wants[&run].clone();
                for (other, held) in &holds {
                    let held: &Vec<Claim> = held;
                    let conflict = claims.iter().any(|c| held.iter().any(|h| c.conflicts_with(h)));
                    assert!(!conflict, "{run} was granted what {other} holds");
                }
                holds.insert(run, claims);
            }
            Record::Arbiter(ArbiterRecord::Released { run, claims }) if claims.is_empty() => {
                holds.remove(&run);
            }
            Record::Arbiter(ArbiterRecord::Released { run, claims }) => {
                if let Some(held) = holds.get_mut(&run) {
                    held.retain(|claim| !claims.contains(claim));
                }
            }
            _ => {}
        }
    }
    assert!(holds.is_empty());
}

#[test]
fn an_action_that_is_unknown_here_parks_the_run_until_somebody_has_it() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
    dies_when(&store, &world, |things| things.made.contains("second"));
    let sim = Sim::new(3);
    let lacking = process(&sim, &store, &world, false);
    let able = process(&sim, &store, &world, true);
    sim.run(async {
        pause(&sim.seams(), TERM + MARGIN).await;
        let run = lacking.recover().await.unwrap().runs.remove(0);
        let settled = run.settled().await.unwrap();
        assert_eq!(settled.phase, RunPhase::Parked);
        assert_eq!(settled.parked[0].1.reason, ParkReason::UnknownAction);
        assert_eq!(lacking.parked().len(), 1);
        assert!(!lacking.holders().await.unwrap().is_empty(), "it keeps what it claims");
        lacking.suspend().await.unwrap();
        let run = able.recover().await.unwrap().runs.remove(0);
        assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
    });
}

#[test]
fn a_run_whose_action_nobody_has_any_more_can_be_abandoned() {
    // It dies at work on its second thing, then before its first.
    for (dies_with, left) in [("second", true), ("", false)] {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        if dies_with.is_empty() {
            let sim = Sim::new(1);
            let first = process(&sim, &store, &world, true);
            // The process dies with its runtime as soon as the run is in the journal.
            let submitted = sim.run(async { first.submit(backup()).await.map(|run| run.id()) });
            submitted.unwrap();
        } else {
            dies_when(&store, &world, |things| things.made.contains(dies_with));
        }
        let sim = Sim::new(3);
        let lacking = process(&sim, &store, &world, false);
        sim.run(async {
            pause(&sim.seams(), TERM + MARGIN).await;
            let run = lacking.recover().await.unwrap().runs.remove(0);
            assert_eq!(run.settled().await.unwrap().phase, RunPhase::Parked);
            let nothing = Resolution::Done(Payload::UNIT);
            let step = run.status().parked[0].0.clone();
            let error = run.resolve("op", step.as_str(), nothing).await.unwrap_err();
            assert!(matches!(error, EngineError::NotParked { .. }), "{error}");
            let error = run.resume("op").await.unwrap_err();
            assert!(matches!(error, EngineError::NotParked { .. }), "{error}");
            run.abandon("op").await.unwrap();
            let report = run.wait().await.unwrap();
            let failure = report.failure().map(|failure| failure.code.clone());
            if left {
                assert_eq!(report.end(), End::NeedsAttention);
                assert!(!report.debris().is_empty(), "what was made is listed");
                assert_eq!(failure.unwrap(), "engine.unknown_action");
            } else {
                assert_eq!(report.end(), End::Failed, "it did nothing");
                assert!(report.debris().is_empty());
            }
            // The release may still be on its way.
            pause(&sim.seams(), SECOND).await;
            assert!(lacking.holders().await.unwrap().is_empty(), "its claims are free");
            assert!(lacking.parked().is_empty());
        });
    }
}

#[test]
fn open_runs_and_claims_are_seen_from_outside_and_left_as_they_are() {
    for_seeds(20, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let engine = process(&sim, &store, &world, true);
        let (able, lacking) =
            (process(&sim, &store, &world, true), process(&sim, &store, &world, false));
        sim.run(async {
            let first = engine.submit(backup()).await.unwrap().id();
            let second = engine.submit(backup()).await.unwrap().id();
            pause(&sim.seams(), Duration::from_millis(10 + sim.random() % 30)).await;
            let head = store.head(&StreamId::Arbiter).await.unwrap();
            let open = able.open_runs().await.unwrap();
            let mut runs: Vec<_> = open.iter().map(|open| open.run).collect();
            let mut both = [first, second];
            both.sort();
            runs.sort();
            assert_eq!(runs, both);
            let account = |open: &OpenRun| open.account.clone().unwrap();
            for known in &open {
                let known = account(known);
                assert!(known.parked.is_empty() && known.submitted_at <= known.written_at);
                assert_eq!(known.started_at.is_some(), known.state.has_started());
            }
            // What this process could not carry on is told as parked.
            for known in &lacking.open_runs().await.unwrap() {
                assert_eq!(account(known).parked[0].reason, ParkReason::UnknownAction);
            }
            let claims = able.claims().await.unwrap();
            let [(holder, theirs)] = claims.holders.as_slice() else { panic!("{claims:?}") };
            assert_eq!((*holder, claims.waiting.len()), (first, 1));
            assert!(!theirs.is_empty());
            assert_eq!((claims.waiting[0].run, claims.waiting[0].holder), (second, first));
            assert_eq!(claims.wanted[0].0, second);
            assert!(able.runs().is_empty() && lacking.runs().is_empty(), "nothing was taken");
            assert_eq!(store.head(&StreamId::Arbiter).await.unwrap(), head);

            let ended = engine.run(second).unwrap().wait().await.unwrap();
            assert_eq!(ended.end(), End::Succeeded);
            pause(&sim.seams(), SECOND).await;
            assert!(able.open_runs().await.unwrap().is_empty());
            assert!(able.claims().await.unwrap().holders.is_empty());
            let known = able.account(second).await.unwrap().unwrap();
            assert_eq!(known.state.end(), Some(End::Succeeded));
            let nobody = stillpoint_context::RunId(uuid::Uuid::from_u128(9));
            assert!(able.account(nobody).await.unwrap().is_none());
        });
    });
}

/// The claims of many runs, read from the arbiter's last snapshot on, are those that it knows itself.
#[test]
fn claims_are_read_from_the_last_snapshot_on() {
    let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
    let sim = Sim::new(5);
    let engine = process(&sim, &store, &world, true);
    let other = process(&sim, &store, &world, true);
    sim.run(async {
        for _ in 0..400 {
            let run = engine.submit(backup()).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
        }
        let head = store.head(&StreamId::Arbiter).await.unwrap();
        assert!(head.0 > 1100, "{head:?}: there is a snapshot behind the first page");
        let run = engine.submit(backup()).await.unwrap();
        pause(&sim.seams(), Duration::from_millis(10)).await;
        let claims = other.claims().await.unwrap();
        assert_eq!(claims.holders, engine.holders().await.unwrap());
        assert_eq!(claims.holders[0].0, run.id());
        assert_eq!(claims.waiting, engine.waiting().await.unwrap());
    });
}

#[test]
fn a_suspended_engine_leaves_nothing_in_doubt_and_another_goes_on_at_once() {
    for_seeds(80, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let one = process(&sim, &store, &world, true);
        let other = process(&sim, &store, &world, true);
        sim.run(async {
            let run = one.submit(backup()).await.unwrap();
            let queued = one.submit(backup()).await.unwrap();
            pause(&sim.seams(), Duration::from_millis(sim.random() % 60)).await;
            one.suspend().await.unwrap();
            assert!(!world.with(|things| things.frozen), "no guard is open");
            let error = one.submit(backup()).await.unwrap_err();
            assert!(matches!(error, EngineError::Closing));
            let recovered = other.recover().await.unwrap();
            for run in &recovered.runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded, "nothing was undone");
                let state = run.state().await.unwrap();
                for at in 0..state.plan().nodes().len() {
                    let node = state.plan().find(state.plan().nodes()[at].name.as_str()).unwrap();
                    assert!(state.attempts(node) <= 1, "nothing was in doubt");
                }
            }
            for run in [run, queued] {
                match run.wait().await {
                    Ok(report) => assert_eq!(report.end(), End::Succeeded),
                    Err(EngineError::Suspended { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(store.ends(), [End::Succeeded; 2]);
        });
    });
}

#[test]
fn a_drained_engine_takes_nothing_more_and_ends_what_it_has() {
    for_seeds(20, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let engine = process(&sim, &store, &world, true);
        sim.run(async {
            for _ in 0..3 {
                engine.submit(backup()).await.unwrap();
            }
            let drained = engine.drain().await.unwrap();
            assert!(drained.open.is_empty());
            assert_eq!(store.ends(), [End::Succeeded; 3]);
            assert!(matches!(engine.submit(backup()).await, Err(EngineError::Closing)));
            assert!(store.leases().await.unwrap().is_empty(), "the lease is given back");
        });
    });
}

#[test]
fn a_journal_that_fails_for_a_while_loses_no_run() {
    for_seeds(80, |sim| {
        let (store, world) = (Arc::new(MemoryJournal::new()), Outside::default());
        let fail_from = 5 + sim.random() % 30;
        let (count, clock) = (std::sync::atomic::AtomicU64::new(0), sim.seams().clock);
        let until = clock.mono() + Duration::from_secs(3);
        let journal = HookJournal::new(Arc::clone(&store), move |_| {
            let at = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let fails = at >= fail_from && clock.mono() < until;
            let error =
                if at % 2 == 0 { JournalError::Full } else { JournalError::Io("no".into()) };
            Box::pin(std::future::ready(if fails { Err(error) } else { Ok(()) }))
        });
        let registry = Backup { no_return: true }.registry(&world);
        let engine = Engine::builder(registry, Arc::new(journal), sim.seams(), sim.lanes())
            .audited()
            .build();
        sim.run(async {
            let mut runs = Vec::new();
            for _ in 0..3 {
                match engine.submit(backup()).await {
                    Ok(run) => runs.push(run),
                    Err(EngineError::Journal(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for run in &runs {
                let end = run.wait().await.unwrap().end();
                assert!(matches!(end, End::Succeeded | End::Failed), "{end:?}");
                replays(run).await;
            }
            assert!(!world.with(|things| things.frozen));
            assert_eq!(store.ends().len(), runs.len());
            assert!(engine.holders().await.unwrap().is_empty());
        });
    });
}

#[test]
fn a_pool_limits_what_runs_at_once_over_all_runs() {
    for_seeds(20, |sim| {
        let busy = Arc::new(Mutex::new((0_u32, 0_u32)));
        let pool = PoolName::new("storage").unwrap();
        let engine = Engine::builder(
            ActionRegistry::new(),
            Arc::new(MemoryJournal::new()),
            sim.seams(),
            sim.lanes(),
        )
        .pool(pool.clone(), 3.try_into().unwrap())
        .audited()
        .build();
        let step = || {
            let busy = Arc::clone(&busy);
            step_fn(move |cx: Cx, ()| {
                let busy = Arc::clone(&busy);
                async move {
                    {
                        let mut busy = busy.lock().unwrap();
                        busy.0 += 1;
                        busy.1 = busy.1.max(busy.0);
                    }
                    cx.sleep(Duration::from_millis(10)).await.map_err(|e| Failure::of(&e))?;
                    busy.lock().unwrap().0 -= 1;
                    if cx.attempt() == stillpoint_context::Attempt::FIRST {
                        return Err(hiccup(Effect::None));
                    }
                    Ok(Done::new(()))
                }
            })
        };
        sim.run(async {
            let mut runs = Vec::new();
            for n in 0..4 {
                let mut plan = PlanBuilder::new(format!("run-{n}"));
                for at in 0..6 {
                    let step = plan.step(format!("step-{at}"), step());
                    step.retry(Retry::times(2)).pool(pool.clone()).add();
                }
                runs.push(engine.submit(Submission::new(plan.build().unwrap())).await.unwrap());
            }
            pause(&sim.seams(), Duration::from_millis(5)).await;
            assert!(!engine.waiting_for_slots().await.unwrap().is_empty());
            let cancelled = runs.pop().unwrap();
            cancelled.cancel("test").await.unwrap();
            for run in &runs {
                assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
                replays(run).await;
            }
            assert_eq!(cancelled.wait().await.unwrap().end(), End::Cancelled);
            assert!(engine.waiting_for_slots().await.unwrap().is_empty());
            assert_eq!(busy.lock().unwrap().1, 3);
        });
    });
}

#[test]
fn a_full_queue_is_a_clear_error() {
    let sim = Sim::new(5);
    let engine = Engine::builder(
        ActionRegistry::new(),
        Arc::new(MemoryJournal::new()),
        sim.seams(),
        sim.lanes(),
    )
    .queue_limit(2)
    .build();
    let plan = || {
        let mut plan = PlanBuilder::new("slow");
        plan.step(
            "wait",
            step_fn(|cx: Cx, ()| async move {
                cx.sleep(SECOND).await.map_err(|error| Failure::of(&error))?;
                Ok(Done::new(()))
            }),
        )
        .add();
        Submission::new(plan.build().unwrap())
    };
    sim.run(async {
        let first = engine.submit(plan()).await.unwrap();
        engine.submit(plan()).await.unwrap();
        let full = engine.submit(plan()).await.unwrap_err();
        assert_eq!(full, EngineError::QueueFull { limit: 2 });
        first.wait().await.unwrap();
        engine.submit(plan()).await.unwrap();
    });
}
