//! Claims: conflicting runs never overlap, and nobody waits for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, Failure};
use stillpoint_workflow::testing::Sim;
use stillpoint_workflow::*;

use super::common::*;

/// Who is inside, with what; notes every conflict that it sees.
#[derive(Debug, Clone, Default)]
struct Watch(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    now: BTreeMap<usize, Vec<Claim>>,
    conflicts: Vec<String>,
}

impl Watch {
    fn enter(&self, who: usize, claims: &[Claim]) {
        let mut state = self.0.lock().unwrap();
        let mut seen = Vec::new();
        for (other, theirs) in &state.now {
            for (mine, theirs) in
                claims.iter().flat_map(|mine| theirs.iter().map(move |t| (mine, t)))
            {
                if mine.conflicts_with(theirs) {
                    seen.push(format!("{who} and {other} both hold {}", mine.key));
                }
            }
        }
        state.conflicts.extend(seen);
        state.now.insert(who, claims.to_vec());
    }

    fn leave(&self, who: usize) {
        self.0.lock().unwrap().now.remove(&who);
    }

    fn conflicts(&self) -> Vec<String> {
        self.0.lock().unwrap().conflicts.clone()
    }
}

/// A dozen runs with random claims on few keys, submitted at random times, some cancelled: the conflicts seen.
fn storm(sim: &Sim, policy: GrantPolicy) -> Vec<String> {
    let watch = Watch::default();
    let journal =
        Arc::new(testing::HookJournal::jitter(MemoryJournal::new(), sim, Duration::from_millis(3)));
    let engine = Engine::builder(ActionRegistry::new(), journal, sim.seams(), sim.lanes())
        .grant_policy(policy)
        .audited()
        .build();
    let keys = ["db", "db/1", "db/1/live", "db/1/point/7", "db/2", "volume/1", "volume"];
    let below = |n: usize| usize::try_from(sim.random() % n as u64).unwrap();
    let plans: Vec<_> = (0..12)
        .map(|who| {
            let mut claims: Vec<_> = (0..=below(3))
                .map(|_| {
                    let key = key(keys[below(keys.len())]);
                    if below(2) == 0 { Claim::shared(key) } else { Claim::exclusive(key) }
                })
                .collect();
            claims.sort();
            claims.dedup();
            let mut plan = PlanBuilder::new(format!("run {who}"));
            for claim in &claims {
                plan.claim(claim.clone());
            }
            let (inside, theirs) = (watch.clone(), claims);
            let work = step_fn(move |cx: Cx, ()| {
                let (inside, claims) = (inside.clone(), theirs.clone());
                async move {
                    inside.enter(who, &claims);
                    let slept = cx.sleep(Duration::from_millis(20)).await;
                    inside.leave(who);
                    slept.map(Done::new).map_err(|error| Failure::of(&error))
                }
            })
            .read_only();
            plan.step("work", work).add();
            plan.build().unwrap()
        })
        .collect();
    let seams = sim.seams();
    sim.run(async {
        let mut runs = Vec::new();
        for plan in plans {
            pause(&seams, Duration::from_millis(sim.random() % 8)).await;
            let head_start = Duration::from_millis(sim.random() % 50);
            runs.push(engine.submit(Submission::new(plan).head_start(head_start)).await.unwrap());
            if sim.random().is_multiple_of(5) {
                let run = &runs[usize::try_from(sim.random() % runs.len() as u64).unwrap()];
                run.cancel("op").await.unwrap();
            }
        }
        for run in &runs {
            let end = run.wait().await.unwrap().end();
            assert!(matches!(end, End::Succeeded | End::Cancelled), "{end:?}");
        }
        assert_eq!(engine.waiting().await.unwrap(), []);
    });
    watch.conflicts()
}

#[test]
fn conflicting_runs_never_overlap_in_any_order_of_things() {
    for_seeds(1500, |sim| {
        let conflicts = storm(&sim, GrantPolicy::Strict);
        assert!(conflicts.is_empty(), "{conflicts:?}");
    });
}

#[test]
fn the_same_storm_sees_conflicts_when_every_claim_is_granted() {
    let seen = (0..20).filter(|seed| !storm(&Sim::new(*seed), GrantPolicy::Always).is_empty());
    assert!(seen.count() > 15, "the check above would not notice an arbiter that sleeps");
}

#[test]
fn a_head_start_goes_first_and_nobody_else_overtakes() {
    for_seeds(100, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = |name: &str| {
            let mut plan = PlanBuilder::new(name);
            plan.claim(Claim::exclusive(key("db/1/live")));
            plan.step(name, trace.step(name)).add();
            plan.build().unwrap()
        };
        let names = ["first", "second", "third", "restore"];
        let plans = names.map(plan);
        let seams = sim.seams();
        sim.run(async {
            let mut runs = Vec::new();
            for (name, plan) in names.iter().zip(plans) {
                let head = Duration::from_secs(if *name == "restore" { 60 } else { 0 });
                runs.push(engine.submit(Submission::new(plan).head_start(head)).await.unwrap());
                pause(&seams, Duration::from_micros(10)).await;
            }
            for run in runs {
                run.wait().await.unwrap();
            }
        });
        assert_eq!(trace.all(), ["first", "restore", "second", "third"]);
    });
}

#[test]
fn runs_that_share_nothing_run_at_the_same_time() {
    for_seeds(20, |sim| {
        let (engine, trace) = (engine(&sim), Trace::default());
        let plan = |db: &str| {
            let mut plan = PlanBuilder::new(db);
            plan.claim(Claim::exclusive(key(&format!("db/{db}/live"))));
            plan.claim(Claim::shared(key("volume/1")));
            plan.step(db, trace.step_in(db, Duration::from_secs(10))).add();
            plan.build().unwrap()
        };
        let (one, two) = (plan("1"), plan("2"));
        let clock = sim.seams().clock;
        sim.run(async {
            let before = clock.mono();
            let one = engine.submit(Submission::new(one)).await.unwrap();
            let two = engine.submit(Submission::new(two)).await.unwrap();
            one.wait().await.unwrap();
            two.wait().await.unwrap();
            assert!(clock.mono().saturating_since(before) < Duration::from_secs(11));
        });
    });
}
