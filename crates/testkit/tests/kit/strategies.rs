//! What is drawn is valid, or breaks exactly the rule that it names; and so is all that it is shrunk to.
#![cfg(feature = "proptest")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stillpoint_context::ErrorFacts;
use stillpoint_exchange::{BackupKind, ExchangePlugin, SessionId, SessionSpec};
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::SetToken;
use stillpoint_model::inventory::{CopyRole, FileRole};
use stillpoint_storage::{MemberSpec, PrepareSpec, SnapshotProvider};
use stillpoint_testkit::strategies::{
    Organisation, PlanShape, broken_groups, broken_policies, broken_schedules, fault_schedules,
    fit_organisations, groups, hooks, log_retentions, organisations, plan_shapes, plannings,
    policies, refused_plannings, retentions, schedules,
};
use stillpoint_testkit::wrap::Faulty;
use stillpoint_testkit::{Faults, FreezeWindow, World};
use stillpoint_workflow::testing::Sim;
use stillpoint_workflow::{
    ActionRegistry, Done, End, Engine, Known, MemoryJournal, Plan, Submission, step_fn,
};
use uuid::Uuid;

use super::common::{Time, s};

/// Draws values, and looks at each and at what it is shrunk to. Another seed each time, which `STILLPOINT_SEED` plays again.
fn look<S: Strategy>(test: &str, cases: u32, strategy: &S, check: impl Fn(&S::Value))
where
    S::Value: Debug,
{
    let seed = std::env::var("STILLPOINT_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!(
        "replay: STILLPOINT_SEED={seed} cargo test -p stillpoint-testkit --test kit strategies::{test}"
    );
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for case in 0..cases {
        let mut tree = strategy.new_tree(&mut runner).unwrap();
        check(&tree.current());
        // As a runner does it: smaller while it fails, back a little when it does not.
        for step in 0..12 {
            let moved = if step % 4 == 3 { tree.complicate() } else { tree.simplify() };
            if !moved && step % 4 != 3 {
                break;
            }
            let checked = catch_unwind(AssertUnwindSafe(|| check(&tree.current())));
            if let Err(panic) = checked {
                println!("case {case}, shrunk {step} times: {:#?}", tree.current());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn valid_ones_are_valid() {
    let hooked = Cell::new(0);
    look("valid_ones", 60, &policies(), |policy| {
        assert_eq!(policy.check(), Ok(()));
        hooked.set(hooked.get() + usize::from(!policy.hooks.is_empty()));
    });
    assert!(hooked.get() > 0, "some have hooks");
    look("valid_ones", 60, &hooks(), |hook| assert_eq!(hook.check(), Ok(())));
    look("valid_ones", 60, &groups(), |group| assert_eq!(group.check(), Ok(())));
    look("valid_ones", 40, &schedules(), |schedule| assert_eq!(schedule.check(), Ok(())));
    look("valid_ones", 40, &(policies(), retentions(), log_retentions()), |drawn| {
        let (mut policy, retention, logs) = drawn.clone();
        (policy.retention, policy.log_retention) = (retention, logs);
        assert_eq!(policy.check(), Ok(()));
    });
}

#[test]
fn broken_ones_are_refused_with_the_code_they_name() {
    let codes = Mutex::new(BTreeSet::new());
    let saw = |code| codes.lock().unwrap().insert(code);
    look("broken_ones", 250, &broken_policies(), |broken| {
        assert_eq!(broken.what.check().unwrap_err().code(), broken.code);
        saw(broken.code);
    });
    look("broken_ones", 40, &broken_groups(), |broken| {
        assert_eq!(broken.what.check().unwrap_err().code(), broken.code);
        saw(broken.code);
    });
    look("broken_ones", 150, &broken_schedules(), |broken| {
        assert_eq!(broken.what.check().unwrap_err().code(), broken.code);
        saw(broken.code);
    });
    let wanted = [
        "group.empty",
        "group.name_invalid",
        "hook.invalid",
        "hook.path_escape",
        "hook.phase_forbidden",
        "hook.too_many",
        "policy.name_invalid",
        "policy.no_hosts",
        "quiesce.limit_zero",
        "retention.out_of_range",
        "schedule.blackout_empty",
        "schedule.jitter_too_long",
        "schedule.name_invalid",
        "schedule.never_fires",
        "schedule.rule_invalid",
    ];
    assert_eq!(codes.into_inner().unwrap(), BTreeSet::from(wanted), "each is drawn");
}

fn check_organisation(organisation: &Organisation) {
    let Organisation { inventory, placement, volumes, providers, .. } = organisation;
    let mut names = BTreeSet::new();
    for database in inventory.databases.values() {
        assert!(database.name.chars().count() <= 64 && names.insert(&database.name));
        let copies: Vec<_> = inventory.copies_of(database.id).collect();
        let active = copies.iter().filter(|copy| copy.role == CopyRole::Active).count();
        assert_eq!(active, 1, "{copies:#?}");
        let preferences: BTreeSet<_> = copies.iter().map(|c| c.activation_preference).collect();
        assert_eq!(preferences.len(), copies.len(), "{copies:#?}");
        let mut theirs = BTreeSet::new();
        for copy in &copies {
            assert!(inventory.hosts.contains_key(&copy.id.host));
            assert!(copy.replay_lag <= Duration::from_hours(14 * 24));
            assert!(copy.role == CopyRole::Passive || !copy.is_lagged());
            assert_eq!(copy.files_of(FileRole::Database).count(), 1);
            assert_eq!(
                copy.availability.is_available(),
                copy.status.fitness() == stillpoint_model::inventory::Fitness::Fit
            );
            let placed = placement.of(&copy.id).unwrap();
            for volume in placed.volumes() {
                assert!(theirs.insert(volume.clone()) || placed.volumes().contains(volume));
                assert!(providers.contains_key(&volume.provider));
            }
        }
    }
    for copy in inventory.copies.keys() {
        for other in inventory.copies_of(copy.database).filter(|other| other.id != *copy) {
            let (one, two) = (placement.of(copy).unwrap(), placement.of(&other.id).unwrap());
            assert!(one.volumes().is_disjoint(&two.volumes()), "{copy} and {}", other.id);
        }
    }
    for dag in inventory.dags.values() {
        let members: BTreeSet<_> = dag.members.iter().collect();
        assert!((1..=16).contains(&members.len()) && members.len() == dag.members.len());
    }
    for facts in volumes.values() {
        assert!(facts.snapshot_limit.is_none_or(|limit| facts.snapshots_used <= limit.get()));
    }
    assert_eq!(inventory.epoch, inventory.structural_epoch());
}

#[test]
fn organisations_are_sound() {
    look("organisations", 60, &organisations(), check_organisation);
    look("organisations", 30, &fit_organisations(), |organisation| {
        check_organisation(organisation);
        assert!(!organisation.inventory.databases.is_empty());
        assert!(organisation.inventory.copies.values().all(|c| c.availability.is_available()));
    });
}

#[test]
fn whatever_is_wanted_of_whatever_there_is_can_be_planned() {
    let sets = Mutex::new(0);
    look("whatever_is_wanted", 60, &plannings(), |planning| {
        let plan = planning.plan().unwrap();
        *sets.lock().unwrap() += plan.sets.len();
    });
    assert!(sets.into_inner().unwrap() > 60, "there is something to back up");
}

#[test]
fn what_is_wrong_with_a_planning_is_said_and_nothing_else() {
    let rules = Mutex::new(BTreeMap::<_, BTreeSet<_>>::new());
    look("what_is_wrong", 200, &refused_plannings(), |refused| {
        assert_eq!(refused.codes(), [refused.code]);
        let plan = refused.planning.plan();
        match refused.database {
            None => assert!(plan.is_err()),
            Some(victim) => {
                let mut names = plan.as_ref().unwrap().refused().map(|(database, _)| database);
                assert!(names.any(|database| database.database == Some(victim)));
            }
        }
        rules.lock().unwrap().entry(refused.rule).or_default().insert(refused.code);
    });
    let rules = rules.into_inner().unwrap();
    let numbers: Vec<_> = rules.keys().copied().collect();
    let wanted =
        ["", "V1", "V10", "V12", "V13", "V14", "V15", "V16", "V2", "V22", "V3", "V4", "V5"];
    assert_eq!(numbers, wanted, "each is drawn");
    assert_eq!(rules["V13"].len(), 2);
}

fn trace_of(shape: &PlanShape) -> (Plan, Arc<Mutex<Vec<String>>>) {
    let trace = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &str| {
        let (trace, name) = (Arc::clone(&trace), name.to_owned());
        move || trace.lock().unwrap().push(name.clone())
    };
    let plan = shape.build(
        |name| {
            let note = note(name);
            step_fn(move |_, ()| {
                note();
                async { Ok(Done::new(())) }
            })
        },
        |name| {
            let note = note(name);
            step_fn(move |_, (_, ()): (Known<()>, ())| {
                note();
                async { Ok(Done::new(())) }
            })
        },
    );
    (plan, trace)
}

#[test]
fn drawn_plans_are_carried_out_in_their_order() {
    let guarded = Mutex::new(0);
    look("drawn_plans", 60, &plan_shapes(6), |shape| {
        let (plan, trace) = trace_of(shape);
        let sim = Sim::new(1);
        let journal = Arc::new(MemoryJournal::new());
        let engine =
            Engine::builder(ActionRegistry::new(), journal, sim.seams(), sim.lanes()).build();
        sim.run(async {
            let run = engine.submit(Submission::new(plan)).await.unwrap();
            assert_eq!(run.wait().await.unwrap().end(), End::Succeeded);
        });
        let trace = trace.lock().unwrap().clone();
        let at = |name: &str| trace.iter().position(|done| done == name).unwrap();
        for (number, step) in shape.steps.iter().enumerate() {
            for before in &step.after {
                assert!(at(&format!("s{before}")) < at(&format!("s{number}")), "{trace:?}");
            }
        }
        if let Some(guard) = &shape.guard {
            *guarded.lock().unwrap() += 1;
            for body in 0..guard.body.len() {
                let body = at(&format!("b{body}"));
                assert!(at("guard/m0/enter") < body && body < at("guard/m0/exit"), "{trace:?}");
            }
        }
        assert!(!shape.point || at("point") == trace.len() - 1, "{trace:?}");
    });
    assert!(guarded.into_inner().unwrap() > 10);
}

#[test]
fn faults_that_are_drawn_come_and_leave_nothing() {
    let calls = ["begin", "prepare", "freeze", "commit", "thaw"];
    let fired = Mutex::new(0);
    look("faults_that_are_drawn", 60, &fault_schedules(&calls, 4), |schedule| {
        assert!(schedule.faults.iter().all(|fault| calls.contains(&fault.call)));
        let (time, world, faults) = (Time::default(), World::one_server(1), Faults::default());
        schedule.inject(&faults);
        let plugin = Faulty::plugin(Arc::new(world.exchange()), &faults);
        let storage = Faulty::provider(Arc::new(world.storage()), &faults);
        let (cx, copy) = (time.cx(1, "step", 1), world.active("DB01"));
        let (id, token) = (SessionId(Uuid::from_u128(1)), SetToken::new("set").unwrap());
        let lasts = cx.with_timeout(s(60));
        let careless = async {
            let spec = SessionSpec::new(id, BackupKind::Full, vec![copy], s(3600));
            drop(plugin.begin(&lasts, &spec).await);
            let mut spec = PrepareSpec::new(token.clone(), "set");
            for volume in world.volumes() {
                spec = spec.with_member(MemberSpec::new(volume, MemberRole::Data, Vec::new()));
            }
            if let Ok(prepared) = storage.prepare(&lasts, &spec).await {
                drop(plugin.freeze(&lasts, id, Some(s(10))).await);
                drop(storage.commit(&lasts, &prepared).await);
            }
            drop(plugin.thaw(&lasts, id).await);
        };
        let careless = std::pin::pin!(careless);
        let clock = time.seams().clock;
        let most = clock.sleep_until(clock.mono() + s(200));
        let trying = async {
            futures_util::future::select(most, careless).await;
            // What is late comes by then.
            cx.sleep(s(300)).await.unwrap();
        };
        drop(catch_unwind(AssertUnwindSafe(|| time.run(trying))));
        *fired.lock().unwrap() += faults.fired();
        assert!(faults.fired() as usize <= schedule.faults.len());
        faults.clear();
        time.pass(s(300));
        time.run(async {
            plugin.abort(&cx, id).await.unwrap();
            storage.discard(&cx, &token).await.unwrap();
        });
        let longest = world.freeze_windows().iter().filter_map(FreezeWindow::length).max();
        assert!(longest.is_none_or(|longest| longest <= s(10)), "{longest:?}");
        assert!(world.snapshots().is_empty() && world.in_flight().is_empty());
        assert!(world.open_sessions().is_empty());
    });
    assert!(fired.into_inner().unwrap() > 20);
}
